//! `appliance console`: keeps the panel on the consoles up to date.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use slots::BootReport;

use crate::addresses::addresses;
use crate::files::{self, Root};
use crate::identity::Identity;
use crate::panel::Facts;
use crate::sshkey::fingerprint;
use crate::{hostkey, loopback};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// Between two looks as long as the service is not up.
const LOOK_SOON: Duration = Duration::from_secs(2);
/// Between two questions to a service that answers.
const ASK: Duration = Duration::from_secs(60);
/// How long the service may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Where the service is asked.
const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 443);

/// Show on every console which machine this is and how it is.
///
/// The panel is printed when it changes: addresses, service, disks, and what the boot had to say.
/// Nobody has a password here, so there is no login prompt.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print the panel once, to standard output
    #[arg(long)]
    once: bool,
}

/// Runs `appliance console`.
///
/// # Errors
///
/// The panel cannot be printed to standard output.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = Root::default();
    let mut watch = Watch::default();
    if arguments.once {
        let text = watch.look(&root).text();
        return Ok(std::io::stdout().write_all(text.as_bytes())?);
    }
    let (mut shown, mut before) = (String::new(), String::new());
    loop {
        let text = watch.look(&root).text();
        // What changes all the time would fill the screen: it is shown when it stays.
        if text != shown && (text == before || shown.is_empty()) {
            show(&root, &text);
            shown.clone_from(&text);
        }
        before = text;
        std::thread::sleep(if watch.is_up() { LOOK } else { LOOK_SOON });
    }
}

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
struct Watch {
    asked: Option<Instant>,
    service: Option<Result<u16, String>>,
}

impl Watch {
    fn is_up(&self) -> bool {
        matches!(self.service, Some(Ok(200)))
    }

    /// Gathers what the panel shows.
    fn look(&mut self, root: &Root) -> Facts {
        if !self.is_up() || self.asked.is_none_or(|asked| asked.elapsed() >= ASK) {
            let answer = loopback::get(SERVICE, "/up", ANSWER);
            self.service = Some(answer.map_err(|error| format!("{error:#}")));
            self.asked = Some(Instant::now());
        }
        let quietly = |error: anyhow::Error| log::debug!("{error:#}");
        Facts {
            version: files::version(root),
            identity: Identity::read(root).map_err(quietly).ok(),
            boot: BootReport::read(&root.path(slots::REPORT_PATH)).ok(),
            cas: files::read(&root.path("/run/larder/cas.json"))
                .ok()
                .flatten()
                .and_then(|text| serde_json::from_slice(&text).ok()),
            addresses: addresses().unwrap_or_default(),
            fingerprint: hostkey::public(root).map(|key| fingerprint(&key)),
            service: self.service.clone(),
            secrets: files::read(&root.path(secrets::fetcher::STATUS))
                .ok()
                .flatten()
                .and_then(|text| serde_json::from_slice(&text).ok()),
        }
    }
}

/// Prints to every console that the kernel writes to.
fn show(root: &Root, text: &str) {
    let active = std::fs::read_to_string(root.path("/sys/class/tty/console/active"));
    let active = active.unwrap_or_default();
    let mut consoles: Vec<PathBuf> = active
        .split_ascii_whitespace()
        .map(|name| root.path("/dev").join(name))
        .collect();
    if consoles.is_empty() {
        consoles.push(root.path("/dev/console"));
    }
    for console in consoles {
        // A serial line that nobody reads must not hold us up.
        let opened = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
            .open(&console);
        let shown = opened.and_then(|mut file| write(&mut file, text.as_bytes()));
        if let Err(error) = shown {
            log::debug!("{}: {error}", console.display());
        }
    }
}

/// Writes what a console takes within a second or so.
fn write(file: &mut impl Write, mut bytes: &[u8]) -> std::io::Result<()> {
    let mut patience = 20;
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && patience > 0 => {
                patience -= 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_console_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        std::fs::create_dir_all(root.path("/sys/class/tty/console")).unwrap();
        std::fs::create_dir_all(root.path("/dev")).unwrap();
        std::fs::write(root.path("/sys/class/tty/console/active"), "tty0 ttyS0\n").unwrap();
        std::fs::write(root.path("/dev/ttyS0"), "").unwrap();
        std::fs::write(root.path("/dev/console"), "").unwrap();
        // There is no tty0: the other one is written to all the same.
        show(&root, "panel");
        assert_eq!(
            std::fs::read_to_string(root.path("/dev/ttyS0")).unwrap(),
            "panel"
        );
        std::fs::remove_file(root.path("/sys/class/tty/console/active")).unwrap();
        show(&root, "panel");
        assert_eq!(
            std::fs::read_to_string(root.path("/dev/console")).unwrap(),
            "panel"
        );
    }

    #[test]
    fn nothing_there_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let mut watch = Watch {
            asked: Some(Instant::now()),
            service: Some(Ok(200)),
        };
        let text = watch.look(&root).text();
        assert!(text.contains("a machine without identity"), "{text}");
        std::fs::create_dir_all(root.path("/run/larder")).unwrap();
        for name in ["identity", "boot", "cas"] {
            std::fs::write(root.path(&format!("/run/larder/{name}.json")), "{").unwrap();
        }
        assert_eq!(watch.look(&root).text(), text);
    }
}
