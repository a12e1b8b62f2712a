//! `imagegen run`: boots an image in QEMU, with its ports on this machine's loopback.
//!
//! By default nothing that the guest writes is kept: its disk is an overlay that goes with it.
//! `--keep` works on a private copy below `build/run/HOST` instead, which the next `--keep`
//! continues. The image itself is never written.

mod access;
mod direct;
mod disks;
mod progress;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use vm::{
    Accel, Credential, Firmware, Forward, Machine, Nic, Patience, Running, choose_accel, interrupt,
};

pub use crate::size::parse_size;
pub use access::{Access, Guest, UpProbe};
pub use disks::{SecondDisk, second_disk};

use crate::size;
use progress::Progress;

/// Boot an image in QEMU and forward its ports to this machine's loopback.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The image to boot; it is not changed
    #[arg(default_value = "build/larder.raw")]
    pub image: PathBuf,

    /// Which host of the fleet the machine is told to be
    #[arg(long, default_value = "dev")]
    pub host: String,

    /// Folder of the configuration, for the disks that the host's entry asks for
    #[arg(long, default_value = "configs", value_name = "DIR")]
    pub configs: PathBuf,

    /// Folder for the key, the token, the console's log and what --keep keeps
    /// [default: build/run/HOST]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Keep what the guest writes and go on from there next time
    #[arg(long)]
    pub keep: bool,

    /// Size of the machine's disk, at least the image's
    #[arg(long, default_value = "8G", value_name = "SIZE", value_parser = parse_size)]
    pub disk_size: u64,

    /// Boot the kernel without firmware and boot loader: quicker, but no boot counting
    #[arg(long)]
    pub direct: bool,

    /// Show the whole console instead of the steps
    #[arg(long)]
    pub serial: bool,

    /// Use KVM, or say why it does not work
    #[arg(long, conflicts_with = "tcg")]
    pub kvm: bool,

    /// Do without KVM
    #[arg(long)]
    pub tcg: bool,

    /// Use KVM if a probe guest runs in it, else do without (the default)
    #[arg(long, conflicts_with_all = ["kvm", "tcg"])]
    pub auto: bool,

    /// Memory of the machine
    #[arg(long, default_value = "2G", value_name = "SIZE", value_parser = parse_size)]
    pub memory: u64,

    /// Number of CPUs
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub cpus: u32,

    /// Port of 127.0.0.1 that leads to HTTPS, or the next free one
    #[arg(long, default_value_t = 8443, value_name = "PORT")]
    pub https_port: u16,

    /// Port of 127.0.0.1 that leads to HTTP, or the next free one
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    pub http_port: u16,

    /// Port of 127.0.0.1 that leads to SSH, or the next free one
    #[arg(long, default_value_t = 2222, value_name = "PORT")]
    pub ssh_port: u16,

    /// Give the machine a system credential, by SMBIOS: its token (larder.secrets-token), or a value
    /// in place of a secret of the manifest; the file must be its owner's alone
    #[arg(long, value_name = "NAME=FILE", value_parser = parse_secret)]
    pub secret: Vec<(String, PathBuf)>,

    /// Put an artifact, get it back, log in once, then end: exit status 0 means that it serves
    #[arg(long)]
    pub check: bool,
}

/// `NAME=FILE` of `--secret`.
fn parse_secret(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok((name.into(), file.into()))
        }
        _ => Err("it is NAME=FILE, such as larder.secrets-token=token.txt".into()),
    }
}

/// Runs the machine until it ends, Ctrl-C is pressed, or the check is through.
///
/// # Errors
/// What is missing on this machine names its Debian package; a machine that does not come up shows
/// the end of its console.
pub fn run(args: RunArgs) -> Result<()> {
    let image = Image::open(&args.image)?;
    let second = second_disk(&args.configs, &args.host)?;
    let folder = args
        .dir
        .clone()
        .unwrap_or_else(|| Path::new("build/run").join(&args.host));
    let access = Access::prepare(&folder, args.keep)?;
    let accel = choose_accel(match (args.kvm, args.tcg) {
        (true, _) => Some(Accel::Kvm),
        (_, true) => Some(Accel::Tcg),
        _ => None,
    })?;

    let disk_size = args.disk_size.max(image.size);
    let mut machine = Machine::new(&args.host)
        .accel(accel.accel)
        .memory_mib(u32::try_from(args.memory >> 20).context("--memory is too large")?)
        .cpus(args.cpus)
        .nic(Nic::User {
            forwards: vec![
                Forward::from_port(args.https_port, 443),
                Forward::from_port(args.http_port, 80),
                Forward::from_port(args.ssh_port, 22),
            ],
        })
        .credential(Credential::smbios("larder.host", args.host.as_str()))
        .credential(Credential::smbios("larder.ssh-key", access.public_key()))
        .credential(Credential::smbios("larder.cache-token", access.token()))
        .serial_log(access.fresh_log()?);
    for (name, file) in &args.secret {
        let value = crate::token::of_file(file).with_context(|| format!("--secret {name}"))?;
        // A file's last line ends; what it holds does not.
        machine = machine.credential(Credential::smbios(name.as_str(), value.trim_ascii_end()));
    }
    if args.direct {
        machine = machine.kernel(direct::kernel(&args.image, &folder)?);
    } else {
        let vars = args.keep.then(|| folder.join("uefi-variables.fd"));
        machine = machine.firmware(Firmware::Ovmf { vars });
    }
    for disk in disks::attach(&args.image, disk_size, second.as_ref(), args.keep, &folder)? {
        machine = machine.disk(disk);
    }

    interrupt::install();
    eprintln!(
        "image    {} ({})",
        args.image.display(),
        size::show(image.size)
    );
    eprintln!(
        "machine  {}, {} CPUs, {}",
        args.host,
        args.cpus,
        size::show(args.memory)
    );
    eprintln!("         {accel}");
    eprintln!(
        "disk     {}, {}",
        size::show(disk_size),
        if args.keep {
            format!("kept in {}", folder.display())
        } else {
            "thrown away at the end (--keep keeps it)".to_owned()
        }
    );
    if let Some(second) = &second {
        eprintln!(
            "         and a second one for /cas, as {} of {}",
            second.device, args.host
        );
    }
    let running = machine.start()?;
    let guest = Guest::new(&access, &running)?;
    let outcome = serve(&args, &running, &guest);
    end(&running, args.keep);
    match outcome {
        // The user's wish is no failure.
        Err(error) if interrupted(&error) && !args.check => Ok(()),
        other => other,
    }
}

/// From power-on to the end.
fn serve(args: &RunArgs, running: &Running, guest: &Guest) -> Result<()> {
    let started = Instant::now();
    let mut progress = Progress::new(args.serial);
    let mut probe = guest.up_probe();
    let mut broken = None;
    let every = Duration::from_millis(50);
    let up = running.wait_for("/up over HTTPS", Patience::default(), every, || {
        progress.show(running)?;
        match probe.answered() {
            Ok(answered) => Ok(answered.then_some(())),
            Err(error) => {
                broken = Some(error);
                Ok(Some(()))
            }
        }
    });
    drop(probe);
    if let Some(error) = broken {
        return Err(error);
    }
    if let Err(error) = up {
        if args.check || !matches!(error, vm::Error::Quiet { .. } | vm::Error::Budget { .. }) {
            return Err(error.into());
        }
        // Someone may want to look inside.
        eprintln!("larder does not answer: {error}\n");
    } else {
        eprintln!(
            "/up answers 200 after {:.0} s ({:.1} CPU s of QEMU)",
            started.elapsed().as_secs_f64(),
            running.cpu_seconds()
        );
    }
    if args.check {
        return guest.check();
    }
    println!("\n{}\nCtrl-C ends the machine.", guest.lines());
    loop {
        progress.show(running)?;
        if let Some(status) = running.ended() {
            eprintln!("the machine has ended ({status})");
            return Ok(());
        }
        if interrupt::requested() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Ends the machine: by its power button if its disk is kept, else at once.
fn end(running: &Running, keep: bool) {
    if keep && running.ended().is_none() && running.power_button().is_ok() {
        eprintln!("shutting down; Ctrl-C once more cuts the power");
        // interrupt ends this process, and the machine with it, at the second Ctrl-C.
        let deadline = Instant::now() + Duration::from_secs(120);
        while running.ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    running.quit();
}

fn interrupted(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(vm::Error::Interrupted))
}

/// The image file, looked at as far as needed before it is attached.
struct Image {
    size: u64,
}

impl Image {
    fn open(path: &Path) -> Result<Image> {
        let meta = std::fs::metadata(path).with_context(|| {
            format!(
                "there is no image at {}; build one with: imagegen build",
                path.display()
            )
        })?;
        if !meta.is_file() {
            bail!("{} is no image file", path.display());
        }
        if meta.len() == 0 || meta.len() % 4096 != 0 {
            bail!(
                "{} is no disk image: its {} bytes are no whole number of blocks",
                path.display(),
                meta.len()
            );
        }
        Ok(Image { size: meta.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(path: &Path) -> String {
        format!("{:#}", Image::open(path).err().unwrap())
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(words(folder.path()).contains("is no image file"));
        assert!(words(Path::new("/dev/null")).contains("is no image file"));
        let path = folder.path().join("larder.raw");
        assert!(words(&path).contains("build one with"), "{}", words(&path));
        std::fs::write(&path, "").unwrap();
        assert!(words(&path).contains("is no disk image"));
        std::fs::write(&path, vec![0; 5000]).unwrap();
        assert!(words(&path).contains("5000 bytes"));
        std::fs::write(&path, vec![0; 8192]).unwrap();
        assert_eq!(Image::open(&path).unwrap().size, 8192);
    }
}
