//! Child processes that never outlive us, and what they have used.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use crate::Error;

type Job = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts `command` in a process group of its own, to be killed by the kernel when this process
/// ends, however that happens.
///
/// The kernel's parent-death signal follows the *thread* that forked, not the process: a machine
/// started by one test's thread and used by the next one would die in between. So one thread that
/// lives as long as the process starts all children.
///
/// # Errors
/// As `Command::spawn`.
pub fn spawn_tied(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let parent = rustix::process::getpid();
    command.process_group(0);
    // SAFETY: between fork and exec only async-signal-safe system calls are made (prctl, getppid),
    // and nothing is allocated: io::Error from an errno holds no heap memory.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // The parent may have died before the signal was asked for.
            if rustix::process::getppid() != Some(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in jobs {
                // A caller that went away no longer wants the child; nothing else can fail here.
                if let Err(mpsc::SendError(Ok(mut orphan))) = answer.send(command.spawn()) {
                    let _ = orphan.kill();
                    let _ = orphan.wait();
                }
            }
        });
        sender
    });
    let (answer, result) = mpsc::sync_channel(1);
    let gone = || io::Error::other("the thread that starts processes has ended");
    spawner.send((command, answer)).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

/// Path of `program` on `$PATH` (and the sbin folders, which a user's `$PATH` lacks).
///
/// # Errors
/// [`Error::MissingProgram`] that names `package`.
pub fn find_program(program: &str, package: &'static str) -> crate::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Error::MissingProgram {
            program: program.to_owned(),
            package,
        })
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time in user and kernel mode.
    pub cpu: Duration,
    /// Resident memory, bytes.
    pub resident: u64,
}

/// Reads `/proc/PID/stat` (see proc(5)).
pub(crate) fn usage(pid: u32) -> io::Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(
        &stat,
        rustix::param::clock_ticks_per_second(),
        rustix::param::page_size() as u64,
    )
    .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not understood: {stat}")))
}

/// The fields utime (14), stime (15) and rss (24) of a line of proc(5)'s `stat`.
fn parse_stat(stat: &str, ticks: u64, page: u64) -> Option<Usage> {
    // The command name (2) is in parentheses and may hold anything, parentheses included.
    let rest = stat.get(stat.rfind(')')? + 1..)?;
    let mut fields = rest.split_ascii_whitespace();
    let utime: u64 = fields.nth(11)?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    let rss: u64 = fields.nth(8)?.parse().ok()?;
    let millis = utime
        .checked_add(stime)?
        .checked_mul(1000)?
        .checked_div(ticks)?;
    Some(Usage {
        cpu: Duration::from_millis(millis),
        resident: rss.checked_mul(page)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_nasty_name() {
        let line = "123 (a) b) (c)) S 1 1 1 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 3 0 99 4096 17 \
                    18446744073709551615 1 1 0";
        let usage = parse_stat(line, 100, 4096).unwrap();
        assert_eq!(usage.cpu, Duration::from_secs(3));
        assert_eq!(usage.resident, 17 * 4096);
        for end in 0..line.len() {
            let _ = parse_stat(&line[..end], 100, 4096);
        }
        assert_eq!(parse_stat(line, 0, 4096), None);
    }

    #[test]
    fn own_usage_is_readable() {
        assert!(usage(std::process::id()).unwrap().resident > 0);
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let mut child = std::thread::spawn(|| {
            let mut sleep = Command::new("sleep");
            sleep.arg("30");
            spawn_tied(sleep).unwrap()
        })
        .join()
        .unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(
            child.try_wait().unwrap().is_none(),
            "killed with the thread that asked for it"
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = find_program("no-such-program", "some-package").unwrap_err();
        assert!(
            error.to_string().contains("apt-get install some-package"),
            "{error}"
        );
    }
}
