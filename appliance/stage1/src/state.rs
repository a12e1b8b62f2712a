//! `/var`: the state file system, or memory if it cannot be used. Never formatted because of an
//! error: only what is pristine is made anew.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use disk::fsck::Verdict;
use disk::probe::Content;
use disk::settings::Settings;
use disk::{Device, LABEL_STATE, Storage, mkfs, mount as mounting, settings};
use slots::StateStatus;

use crate::SYSROOT;
use crate::console::{Fatal, Log};
use crate::watchdog::Watchdog;
use crate::worker::{Said, Worker};

/// How long e2fsck may take.
const FSCK: Duration = Duration::from_secs(60);
/// How long all of it may take, with nothing said for so long.
const DEADLINE: Duration = Duration::from_secs(120);
/// Where the child mounts it, in the root's name space.
const WAITING: &str = "/run/larder/state";
/// Folders without which PID 1 or stage1 cannot work; tmpfiles makes the rest.
const FOLDERS: &[(&str, u32)] = &[
    ("lib", 0o755),
    ("lib/larder", 0o755),
    ("log", 0o755),
    ("cache", 0o755),
    ("tmp", 0o1777),
];

/// Mounts `/var` of the root.
pub(crate) fn mount(
    device: Option<&str>,
    watchdog: &mut Watchdog,
    log: &mut Log,
) -> Result<StateStatus, Fatal> {
    let var = format!("{SYSROOT}/var");
    let answer = match device {
        None => Err("the boot disk has no state partition".to_owned()),
        Some(device) => ask(device, watchdog, log),
    };
    let status = match answer {
        Ok(status) => {
            disk::mount::move_to(Path::new(WAITING), Path::new(&var))?;
            // Only tidiness.
            let _ = std::fs::remove_dir(WAITING);
            status
        }
        Err(reason) => {
            log.warn(&format!(
                "{reason}; /var is in memory, nothing that is written there outlives this boot"
            ));
            disk::mount::mount(
                "tmpfs",
                Path::new(&var),
                "tmpfs",
                "nosuid,nodev,mode=0755,size=50%",
            )?;
            StateStatus::Tmpfs
        }
    };
    make_folders(Path::new(&var), log);
    Ok(status)
}

/// Lets a child do what may hang.
fn ask(device: &str, watchdog: &mut Watchdog, log: &mut Log) -> Result<StateStatus, String> {
    let mut worker = Worker::start(&["worker-state".into(), device.into()])
        .map_err(|error| format!("{device}: {error}"))?;
    let mut silence = Instant::now();
    let answer = loop {
        watchdog.ping();
        match worker.line(Duration::from_secs(1)) {
            Said::Line(line) => {
                silence = Instant::now();
                match line.split_once(' ').unwrap_or((&line, "")) {
                    ("say", text) => log.say(&format!("{device}: {text}")),
                    ("warn", text) => log.warn(&format!("{device}: {text}")),
                    ("ok", _) => break Ok(StateStatus::Ok),
                    ("created", _) => break Ok(StateStatus::Created),
                    (_, reason) => break Err(format!("{device}: {reason}")),
                }
            }
            Said::End => break Err(format!("{device}: the work on it ended early")),
            Said::Nothing if silence.elapsed() > DEADLINE => {
                break Err(format!("{device} does not answer"));
            }
            Said::Nothing => {}
        }
    };
    worker.stop();
    answer
}

/// Duty `worker-state`: checks or makes the file system and mounts it at [`WAITING`]. Lines:
/// `say TEXT`, `warn TEXT`, and last `ok`, `created` or `failed REASON`.
pub(crate) fn work(device: &Path) -> i32 {
    let mut output = std::io::stdout();
    let mut tell = |kind: &str, text: &str| {
        // Nobody listens any more if this fails.
        let _ = writeln!(output, "{kind} {text}").and_then(|()| output.flush());
    };
    // From here on the tools of the root are where they say they are.
    if let Err(error) = rustix::process::chroot(SYSROOT).and_then(|()| rustix::process::chdir("/"))
    {
        tell("failed", &format!("chroot {SYSROOT}: {error}"));
        return 1;
    }
    match prepare(device, &mut tell) {
        Ok(status) => tell(
            if status == StateStatus::Created {
                "created"
            } else {
                "ok"
            },
            "",
        ),
        Err(reason) => tell("failed", &reason),
    }
    0
}

fn prepare(device: &Path, tell: &mut dyn FnMut(&str, &str)) -> Result<StateStatus, String> {
    let settings = Settings::load(Path::new(settings::PATH));
    for problem in &settings.problems {
        tell("warn", problem);
    }
    let content = Device::open(device).and_then(|mut device| disk::probe::identify(&mut device));
    let status = match decide(&content) {
        Plan::Make => {
            let words = settings.mkfs("state");
            let made = Device::open_exclusive(device).and_then(|mut partition| {
                let partition: &mut dyn Storage = &mut partition;
                mkfs::make(partition, LABEL_STATE, &words)
            });
            let uuid = made.map_err(|error| format!("it cannot be made: {error}"))?;
            tell("say", &format!("made the state file system {uuid}"));
            StateStatus::Created
        }
        Plan::Check => {
            check(device, tell)?;
            StateStatus::Ok
        }
        Plan::LeaveAlone(reason) => return Err(reason),
    };
    let waiting = Path::new(WAITING);
    std::fs::create_dir_all(waiting).map_err(|error| format!("{WAITING}: {error}"))?;
    let options = settings.mount("state");
    mounting::mount(&device.display().to_string(), waiting, "ext4", options)
        .map_err(|error| error.to_string())?;
    match disk::grow::file_system(device, waiting) {
        Ok(None) => {}
        Ok(Some((_, new))) => tell("say", &format!("grown to {} MiB", new >> 20)),
        Err(error) => tell("warn", &error.to_string()),
    }
    Ok(status)
}

fn check(device: &Path, tell: &mut dyn FnMut(&str, &str)) -> Result<(), String> {
    match disk::fsck::ext4(device, FSCK, &mut |line| tell("say", line)) {
        Ok(Verdict::Clean) => Ok(()),
        Ok(Verdict::Repaired(what)) => {
            tell("say", &format!("repaired: {what}"));
            Ok(())
        }
        // Mounting it would make it worse, and repairing it needs a person.
        Ok(Verdict::Damaged(what)) => Err(format!(
            "it is damaged: {what}; repair it with e2fsck -y {}, then reboot",
            device.display()
        )),
        // Without e2fsck the kernel replays the journal, which is what is needed most.
        Err(error @ disk::Error::Start { .. }) => {
            tell("warn", &error.to_string());
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// What to do with the state partition.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// It came with the image: make it at its real size.
    Make,
    /// It is ours: check and mount it.
    Check,
    /// It is not, or nobody knows.
    LeaveAlone(String),
}

fn decide(content: &Result<Content, disk::Error>) -> Plan {
    match content {
        Ok(Content::Ext4(ext4)) if ext4.is_pristine() => Plan::Make,
        Ok(Content::Ext4(ext4)) if ext4.label == LABEL_STATE => Plan::Check,
        Ok(other) => Plan::LeaveAlone(format!(
            "it holds {other} instead of the state file system, and is left alone"
        )),
        Err(error) => Plan::LeaveAlone(format!("it is not readable, and is left alone: {error}")),
    }
}

fn make_folders(var: &Path, log: &mut Log) {
    use std::os::unix::fs::PermissionsExt;
    for (name, mode) in FOLDERS {
        let path = var.join(name);
        if path.is_dir() {
            continue;
        }
        let made = std::fs::create_dir(&path)
            .and_then(|()| std::fs::set_permissions(&path, PermissionsExt::from_mode(*mode)));
        if let Err(error) = made {
            log.warn(&format!("/var/{name} cannot be made: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::superblock::{Ext4, pristine_half};

    #[test]
    fn only_what_is_pristine_is_made_and_only_ours_is_mounted() {
        let mut ext4 = Ext4::parse(&pristine_half(uuid::Uuid::nil())).unwrap();
        assert_eq!(decide(&Ok(Content::Ext4(ext4.clone()))), Plan::Make);
        ext4.label = LABEL_STATE.into();
        assert_eq!(decide(&Ok(Content::Ext4(ext4.clone()))), Plan::Check);
        for foreign in ["", "rootfs", disk::LABEL_CAS, "LARDER-STATE"] {
            ext4.label = foreign.into();
            let plan = decide(&Ok(Content::Ext4(ext4.clone())));
            assert!(matches!(plan, Plan::LeaveAlone(_)), "{foreign}");
        }
        let blank = decide(&Ok(Content::Blank));
        assert_eq!(
            blank,
            Plan::LeaveAlone(
                "it holds no file system instead of the state file system, and is left alone"
                    .into()
            )
        );
        assert!(matches!(
            decide(&Ok(Content::Foreign("an XFS".into()))),
            Plan::LeaveAlone(_)
        ));
    }

    #[test]
    fn a_read_error_never_formats() {
        let cause = std::io::Error::from_raw_os_error(libc::EIO);
        let error = disk::Error::Transfer {
            action: "read",
            offset: 0,
            length: 4096,
            cause,
        };
        let Plan::LeaveAlone(reason) = decide(&Err(error)) else {
            panic!()
        };
        assert!(reason.contains("not readable"), "{reason}");
    }

    #[test]
    fn folders_are_made_once_with_their_modes() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::default();
        make_folders(folder.path(), &mut log);
        make_folders(folder.path(), &mut log);
        assert!(log.messages().is_empty());
        let mode = folder
            .path()
            .join("tmp")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o1777);
    }
}
