//! `appliance health`: the gate before `boot-complete.target`. A boot is healthy once `/up` has
//! answered 200 on port 443; then the count of boots is cleared and the image is blessed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use slots::{Attempts, Blessing, efivar};

use crate::announce::announce;
use crate::esp;
use crate::loopback;

/// Where the boots are counted.
const COUNT: &str = "/var/lib/larder/boot";
/// Kernel parameter `rcupdate.rcu_expedited=`, which the command line of the image sets for the boot.
const EXPEDITED: &str = "/sys/kernel/rcu_expedited";
/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two questions.
const PAUSE: Duration = Duration::from_secs(1);

/// Wait until /up answers 200 on this machine, then mark this boot as healthy.
///
/// That clears the count of boots and takes the counter out of the name of the image on the ESP
/// (it is blessed). Anything else is an error, which every console shows.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long the service may take to get ready, in seconds
    #[arg(long, default_value_t = 90, value_name = "SECONDS")]
    deadline: u64,
    /// Port of the service on this machine
    #[arg(long, default_value_t = 443)]
    port: u16,
}

/// Runs `appliance health`.
///
/// # Errors
///
/// The boot is not healthy, or could not be recorded as such; the reason was announced.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let deadline = Duration::from_secs(arguments.deadline);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
    let result = wait(address, deadline).and_then(|()| {
        record(
            Path::new(COUNT),
            Path::new(efivar::FOLDER),
            Path::new(esp::TARGET),
        )
    });
    // Boots wait for the kernel's grace periods a hundred times, serving hardly does; from here on
    // they interrupt nobody. A kernel that does not know the file has never hurried.
    let _ = std::fs::write(EXPEDITED, "0");
    match result {
        Ok(words) => {
            log::info!("this boot is healthy; {words}");
            Ok(())
        }
        Err(error) => {
            announce(&format!("this boot is not healthy: {error:#}"));
            Err(error)
        }
    }
}

/// Asks for `/up` until it answers 200.
fn wait(address: SocketAddr, deadline: Duration) -> Result<()> {
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let reason = match loopback::get(address, "/up", left.min(ANSWER)) {
            Ok(200) => return Ok(()),
            Ok(status) => anyhow!("/up answers {status}"),
            Err(error) => error,
        };
        if Instant::now() + PAUSE >= end {
            return Err(reason.context(format!(
                "https://{address}/up did not answer 200 within {} s",
                deadline.as_secs()
            )));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Clears the count and blesses the image. Returns what was done, in words.
fn record(count: &Path, efi: &Path, esp: &Path) -> Result<String> {
    Attempts::default()
        .store(count)
        .context("the count of boots is not cleared")?;
    let Some(path) = efivar::read(efi, efivar::BOOT_COUNT_PATH)? else {
        return Ok("the boot loader does not count it".into());
    };
    if !esp.join("EFI").is_dir() {
        bail!(
            "{path} cannot be blessed, the ESP is not mounted at {}",
            esp.display()
        );
    }
    Ok(
        match slots::bless(esp, &path).context("the image is not blessed")? {
            Blessing::Renamed { from, to } => format!("blessed {from} as {to}"),
            Blessing::Already => "the image was blessed already".into(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_healthy_boot_is_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let [count, efi, esp] = ["count", "efi", "esp"].map(|name| folder.path().join(name));
        Attempts {
            boots: 3,
            asked: true,
        }
        .store(&count)
        .unwrap();
        std::fs::create_dir(&efi).unwrap();
        let words = record(&count, &efi, &esp).unwrap();
        assert_eq!(words, "the boot loader does not count it");
        assert_eq!(Attempts::load(&count).unwrap(), Attempts::default());

        efivar::write(
            &efi,
            efivar::BOOT_COUNT_PATH,
            r"\EFI\Linux\larder_1+2-1.efi",
        )
        .unwrap();
        let error = record(&count, &efi, &esp).unwrap_err().to_string();
        assert!(error.contains("the ESP is not mounted"), "{error}");
        std::fs::create_dir_all(esp.join("EFI/Linux")).unwrap();
        let error = format!("{:#}", record(&count, &efi, &esp).unwrap_err());
        assert!(error.starts_with("the image is not blessed: "), "{error}");
        std::fs::write(esp.join("EFI/Linux/larder_1+2-1.efi"), "").unwrap();
        let words = record(&count, &efi, &esp).unwrap();
        assert_eq!(words, "blessed larder_1+2-1.efi as larder_1.efi");
        assert_eq!(
            record(&count, &efi, &esp).unwrap(),
            "the image was blessed already"
        );
    }

    #[test]
    fn nobody_at_home_is_not_healthy() {
        // A port that is free at this moment.
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let error = format!(
            "{:#}",
            wait(address, Duration::from_millis(500)).unwrap_err()
        );
        assert!(error.contains("did not answer 200 within 0 s: "), "{error}");
    }
}
