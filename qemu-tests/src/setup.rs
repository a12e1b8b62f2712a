//! What a test boots.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use vm::{Bus, Machine, Patience, Way};

/// Changes the machine in ways that [`Setup`] has no name for.
type Tweak = Arc<dyn Fn(Machine) -> Machine + Send + Sync>;

/// Builder of a [`crate::TestMachine`]: the image that ships, through UEFI firmware, as host `dev`,
/// with a key and a token, on virtio-blk.
#[derive(Clone)]
pub struct Setup {
    pub(crate) name: String,
    pub(crate) image: Option<PathBuf>,
    pub(crate) host: Option<String>,
    pub(crate) way: Way,
    pub(crate) token: bool,
    pub(crate) disk_size: u64,
    pub(crate) bus: Bus,
    pub(crate) block_size: u32,
    pub(crate) recorded: bool,
    pub(crate) memory_mib: u32,
    pub(crate) guest_ports: Vec<u16>,
    pub(crate) allowed: Vec<String>,
    pub(crate) patience: Patience,
    pub(crate) tweaks: Vec<Tweak>,
}

impl Setup {
    /// A machine for the test `name`.
    pub fn new(name: impl Into<String>) -> Setup {
        Setup {
            name: name.into(),
            image: None,
            host: Some("dev".into()),
            way: Way::Smbios,
            token: true,
            disk_size: 8 << 30,
            bus: Bus::VirtioBlk,
            block_size: 512,
            recorded: false,
            memory_mib: 1024,
            guest_ports: vec![443, 80, 22],
            allowed: Vec::new(),
            patience: Patience::default(),
            tweaks: Vec::new(),
        }
    }

    /// Boots this disk image instead of the one that ships. It is copied.
    #[must_use]
    pub fn image(mut self, image: impl Into<PathBuf>) -> Setup {
        self.image = Some(image.into());
        self
    }

    /// Which host of the fleet it is.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Setup {
        self.host = Some(host.into());
        self
    }

    /// Nobody tells it which host it is.
    #[must_use]
    pub fn without_host(mut self) -> Setup {
        self.host = None;
        self
    }

    /// Nobody gives it a token for the cache.
    #[must_use]
    pub fn without_token(mut self) -> Setup {
        self.token = false;
        self
    }

    /// Credentials by fw_cfg instead of SMBIOS.
    #[must_use]
    pub fn credentials_by_fw_cfg(mut self) -> Setup {
        self.way = Way::FwCfg;
        self
    }

    /// Size of its first disk in bytes, if that is more than the image's.
    #[must_use]
    pub fn disk_size(mut self, size: u64) -> Setup {
        self.disk_size = size;
        self
    }

    /// The bus of its first disk.
    #[must_use]
    pub fn bus(mut self, bus: Bus) -> Setup {
        self.bus = bus;
        self
    }

    /// Logical block size of its first disk, 512 or 4096.
    #[must_use]
    pub fn block_size(mut self, block_size: u32) -> Setup {
        self.block_size = block_size;
        self
    }

    /// Its first disk records every write and flush.
    #[must_use]
    pub fn recorded(mut self) -> Setup {
        self.recorded = true;
        self
    }

    /// Memory in MiB.
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32) -> Setup {
        self.memory_mib = memory_mib;
        self
    }

    /// Forwards one more port of the guest.
    #[must_use]
    pub fn forward(mut self, guest_port: u16) -> Setup {
        self.guest_ports.push(guest_port);
        self
    }

    /// Lines of the console that have this do not fail the test; `why` is for the reader.
    #[must_use]
    pub fn allow(mut self, text: impl Into<String>, why: &str) -> Setup {
        let _ = why;
        self.allowed.push(text.into());
        self
    }

    /// How long waits go on.
    #[must_use]
    pub fn patience(mut self, patience: Patience) -> Setup {
        self.patience = patience;
        self
    }

    /// More disks and cards, a watchdog, the clock: whatever [`Machine`] can be told.
    #[must_use]
    pub fn machine(mut self, tweak: impl Fn(Machine) -> Machine + Send + Sync + 'static) -> Setup {
        self.tweaks.push(Arc::new(tweak));
        self
    }

    /// Takes back all that [`Setup::machine`] has asked for.
    #[must_use]
    pub fn plain(mut self) -> Setup {
        self.tweaks.clear();
        self
    }
}

/// Root of the source tree that the tests were built from.
pub fn source_tree() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// The image that ships: `$LARDER_IMAGE`, or `build/larder.raw` of the source tree.
///
/// # Errors
/// If there is none: it says how to make it.
pub fn shipped_image() -> Result<PathBuf> {
    let from = std::env::var_os("LARDER_IMAGE").map(PathBuf::from);
    let image = from.unwrap_or_else(|| source_tree().join("build/larder.raw"));
    ensure!(
        image.is_file(),
        "there is no image at {}; build it with `make image`, or name one in LARDER_IMAGE",
        image.display()
    );
    Ok(image)
}

/// Where disks of tests live: not `/tmp`, which may be memory.
pub(crate) fn disks_folder() -> PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}
