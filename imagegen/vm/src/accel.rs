//! KVM or TCG? Asked by booting something, because a machine may have a writable `/dev/kvm` on
//! which everything up to creating a CPU succeeds and guests die all the same.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::process::{find_program, spawn_tied};
use crate::{Error, Result};

/// The probe's guest; `probe.S` is its source.
const GUEST: &[u8] = include_bytes!("probe.bin");
/// QEMU's exit status when the guest has come through.
const SUCCESS: i32 = 33;
/// A working KVM needs some 0.1 s, TCG 0.15 s; the emulating kind that survives at all took 5 s.
const LIMIT: Duration = Duration::from_secs(4);

/// How the guest's instructions are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By translation; some ten times slower.
    Tcg,
}

impl std::fmt::Display for Accel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        })
    }
}

/// A chosen accelerator and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccelChoice {
    /// The accelerator.
    pub accel: Accel,
    /// Why, as the end of a sentence: "asked for", "/dev/kvm is missing".
    pub why: String,
}

impl std::fmt::Display for AccelChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.accel {
            Accel::Kvm => write!(f, "KVM ({})", self.why),
            Accel::Tcg => write!(f, "TCG, without hardware acceleration ({})", self.why),
        }
    }
}

/// What a probe of KVM has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// A guest ran.
    Works,
    /// None did; why.
    Broken(String),
}

/// Chooses the accelerator: `wish` if there is one, else `$LARDER_ACCEL` (`kvm`, `tcg`, `auto`),
/// else KVM where a probe guest runs, else TCG.
///
/// The probe's answer is kept in the user's cache folder until the host boots anew.
///
/// # Errors
/// [`Error::NoKvm`] if KVM is wished for and does not work, [`Error::BadAccel`] for a bad variable.
pub fn choose_accel(wish: Option<Accel>) -> Result<AccelChoice> {
    let (wish, by) = match (wish, std::env::var("LARDER_ACCEL")) {
        (Some(wish), _) => (Some(wish), "asked for"),
        (None, Ok(value)) => (parse_wish(&value)?, "LARDER_ACCEL"),
        (None, Err(_)) => (None, ""),
    };
    if wish == Some(Accel::Tcg) {
        return Ok(AccelChoice {
            accel: Accel::Tcg,
            why: by.to_owned(),
        });
    }
    static ANSWER: OnceLock<ProbeAnswer> = OnceLock::new();
    let answer = match ANSWER.get() {
        Some(answer) => answer.clone(),
        None => {
            let answer = cached_probe()?;
            ANSWER.get_or_init(|| answer).clone()
        }
    };
    match (answer, wish) {
        (ProbeAnswer::Works, Some(_)) => Ok(AccelChoice {
            accel: Accel::Kvm,
            why: by.into(),
        }),
        (ProbeAnswer::Works, None) => Ok(AccelChoice {
            accel: Accel::Kvm,
            why: "a probe guest ran".into(),
        }),
        (ProbeAnswer::Broken(why), Some(_)) => Err(Error::NoKvm { why }),
        (ProbeAnswer::Broken(why), None) => Ok(AccelChoice {
            accel: Accel::Tcg,
            why,
        }),
    }
}

/// `kvm`, `tcg`, or `auto` and nothing for the probe's choice.
fn parse_wish(value: &str) -> Result<Option<Accel>> {
    match value.trim() {
        "" | "auto" => Ok(None),
        other => other.parse().map(Some),
    }
}

impl FromStr for Accel {
    type Err = Error;

    fn from_str(value: &str) -> Result<Accel> {
        match value {
            "kvm" => Ok(Accel::Kvm),
            "tcg" => Ok(Accel::Tcg),
            _ => Err(Error::BadAccel {
                value: value.to_owned(),
            }),
        }
    }
}

fn cached_probe() -> Result<ProbeAnswer> {
    let device = Path::new("/dev/kvm");
    if let Err(error) = OpenOptions::new().read(true).write(true).open(device) {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "/dev/kvm is missing".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "you may not open /dev/kvm; join its group: adduser $USER kvm".to_owned()
            }
            _ => format!("/dev/kvm cannot be opened: {error}"),
        };
        return Ok(ProbeAnswer::Broken(why));
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let note = cache_folder().map(|folder| folder.join("kvm-probe"));
    if let Some(answer) = note.as_deref().and_then(|note| read_note(note, &boot)) {
        return Ok(answer);
    }
    let answer = probe(Accel::Kvm, LIMIT)?;
    if let Some(note) = note {
        // Only a cache: where it cannot be written, the next start probes again.
        let _ = write_note(&note, &boot, &answer);
    }
    Ok(answer)
}

/// `$XDG_CACHE_HOME/larder`, or below `$HOME/.cache`.
fn cache_folder() -> Option<PathBuf> {
    let from = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    from("XDG_CACHE_HOME")
        .or_else(|| Some(from("HOME")?.join(".cache")))
        .map(|cache| cache.join("larder"))
}

fn read_note(note: &Path, boot: &str) -> Option<ProbeAnswer> {
    let text = std::fs::read_to_string(note).ok()?;
    let (its_boot, answer) = text.split_once('\n')?;
    if boot.trim().is_empty() || its_boot != boot.trim() {
        return None;
    }
    match answer.trim_end().split_once(' ') {
        None if answer.trim_end() == "works" => Some(ProbeAnswer::Works),
        Some(("broken", why)) => Some(ProbeAnswer::Broken(why.to_owned())),
        _ => None,
    }
}

fn write_note(note: &Path, boot: &str, answer: &ProbeAnswer) -> io::Result<()> {
    let folder = note.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    let answer = match answer {
        ProbeAnswer::Works => "works".to_owned(),
        ProbeAnswer::Broken(why) => format!("broken {}", why.replace('\n', " ")),
    };
    let partial = note.with_extension(format!("partial-{}", std::process::id()));
    std::fs::write(&partial, format!("{}\n{answer}\n", boot.trim()))?;
    std::fs::rename(partial, note)
}

/// Boots the probe's guest.
fn probe(accel: Accel, limit: Duration) -> Result<ProbeAnswer> {
    let qemu = find_program("qemu-system-x86_64", "qemu-system-x86")?;
    let folder = tempfile::Builder::new()
        .prefix("larder-probe.")
        .tempdir()
        .map_err(Error::file("make a folder in", std::env::temp_dir()))?;
    let kernel = folder.path().join("probe.bin");
    std::fs::write(&kernel, GUEST).map_err(Error::file("write", &kernel))?;
    let said = folder.path().join("stderr");
    let stderr = File::create(&said).map_err(Error::file("create", &said))?;
    let mut command = Command::new(&qemu);
    command
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args(["-machine", "q35", "-m", "64M", "-accel", &accel.to_string()])
        .args(["-device", "isa-debug-exit,iobase=0x501,iosize=1", "-kernel"])
        .arg(&kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    let mut child = spawn_tied(command).map_err(|source| Error::Spawn {
        program: qemu.display().to_string(),
        source,
    })?;
    let deadline = Instant::now() + limit;
    let words = || String::from_utf8_lossy(&std::fs::read(&said).unwrap_or_default()).into_owned();
    let answer = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.code() == Some(SUCCESS) => break ProbeAnswer::Works,
            Ok(Some(status)) => {
                let words = words();
                let last = words
                    .trim()
                    .lines()
                    .last()
                    .unwrap_or("it said nothing")
                    .to_owned();
                break ProbeAnswer::Broken(format!("the probe guest ended with {status}: {last}"));
            }
            Ok(None) => {}
            Err(source) => {
                return Err(Error::Spawn {
                    program: qemu.display().to_string(),
                    source,
                });
            }
        }
        // QEMU stays, with the machine stopped, when KVM gives up.
        if words().contains("KVM internal error") {
            break ProbeAnswer::Broken("/dev/kvm opens, but a probe guest dies in it".to_owned());
        }
        if Instant::now() > deadline {
            let seconds = limit.as_secs();
            break ProbeAnswer::Broken(format!(
                "/dev/kvm opens, but a probe guest was not through after {seconds} s"
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // Dead already, or to be: a KVM that hangs holds its QEMU.
    let _ = child.kill();
    let _ = child.wait();
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_runs_where_nothing_is_emulated_wrongly() {
        // A busy host may need long; the limit is what is tested below.
        assert_eq!(
            probe(Accel::Tcg, Duration::from_secs(60)).unwrap(),
            ProbeAnswer::Works
        );
    }

    #[test]
    fn a_guest_that_hangs_is_killed() {
        let started = Instant::now();
        let answer = probe(Accel::Tcg, Duration::ZERO).unwrap();
        assert!(matches!(answer, ProbeAnswer::Broken(why) if why.contains("not through")));
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn the_guest_is_what_its_source_says() {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/probe.S");
        let (object, flat) = (
            folder.path().join("probe.o"),
            folder.path().join("probe.bin"),
        );
        // binutils is there wherever Rust links.
        let run = |command: &mut Command| assert!(command.status().unwrap().success());
        run(Command::new("as").arg("-o").arg(&object).arg(&source));
        run(Command::new("objcopy")
            .args(["-O", "binary"])
            .arg(&object)
            .arg(&flat));
        assert_eq!(std::fs::read(flat).unwrap(), GUEST);
    }

    #[test]
    fn notes_are_for_one_boot_of_the_host() {
        let folder = tempfile::tempdir().unwrap();
        let note = folder.path().join("a/kvm-probe");
        let broken = ProbeAnswer::Broken("a guest dies".into());
        for answer in [ProbeAnswer::Works, broken] {
            write_note(&note, "boot-1\n", &answer).unwrap();
            assert_eq!(read_note(&note, "boot-1\n"), Some(answer));
            assert_eq!(read_note(&note, "boot-2"), None);
            assert_eq!(read_note(&note, ""), None);
        }
        for rubbish in [
            "",
            "boot-1",
            "boot-1\n",
            "boot-1\nperhaps so\n",
            "boot-1\nworks well\n",
        ] {
            std::fs::write(&note, rubbish).unwrap();
            assert_eq!(read_note(&note, "boot-1"), None, "{rubbish:?}");
        }
    }

    #[test]
    fn wishes() {
        assert_eq!(parse_wish("auto").unwrap(), None);
        assert_eq!(parse_wish("kvm").unwrap(), Some(Accel::Kvm));
        let error = parse_wish("xen").unwrap_err().to_string();
        assert!(
            error.contains("xen") && error.contains("kvm, tcg or auto"),
            "{error}"
        );
        let choice = choose_accel(Some(Accel::Tcg)).unwrap();
        assert_eq!(
            choice.to_string(),
            "TCG, without hardware acceleration (asked for)"
        );
    }
}
