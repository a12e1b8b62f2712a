//! dm-verity: the sealed root as a device whose every block is checked (facts of the format:
//! Documentation/admin-guide/device-mapper/verity.rst, cryptsetup's on-disk format of the
//! superblock).

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use disk::{Device, ReadAt};

use crate::bootdisk::BootDisk;
use crate::cmdline::RootHash;
use crate::console::Fatal;

const CONTROL: &str = "/dev/mapper/control";
const NAME: &str = "root";
/// A block that does not match panics: the words stay on every console for 10 s and go to the
/// firmware's crash store, then the machine reboots (`panic=10`) and counts the boot.
const ON_CORRUPTION: &str = "panic_on_corruption";

/// The superblock of a hash device.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Superblock {
    uuid: [u8; 16],
    data_blocks: u64,
    salt: Vec<u8>,
}

impl Superblock {
    /// Parses the first 512 bytes. Nothing in there is trusted: with any of it changed, the root
    /// hash does not match.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let bytes: &[u8; 512] = bytes
            .get(..512)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or("it is too short")?;
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if &bytes[..8] != b"verity\0\0" {
            return Err("it is no verity tree".into());
        }
        let algorithm = bytes[32..64]
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default();
        if (word(8), word(12), word(64), word(68)) != (1, 1, 4096, 4096) || algorithm != b"sha256" {
            return Err("it is not of version 1 with SHA-256 and blocks of 4096 bytes".into());
        }
        let salt_length = usize::from(u16::from_le_bytes([bytes[80], bytes[81]]));
        let salt = bytes
            .get(88..88 + salt_length)
            .filter(|salt| salt.len() <= 256);
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[16..32]);
        Ok(Self {
            uuid,
            data_blocks: u64::from(word(72)) | u64::from(word(76)) << 32,
            salt: salt.ok_or("its salt is too long")?.into(),
        })
    }

    /// The parameters of the device-mapper target; devices as `MAJOR:MINOR`.
    fn parameters(&self, data: &str, hash: &str, root_hash: &RootHash) -> String {
        let salt: String = match self.salt.as_slice() {
            [] => "-".into(),
            salt => salt.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        format!(
            "1 {data} {hash} 4096 4096 {} 1 sha256 {root_hash} {salt} 1 {ON_CORRUPTION}",
            self.data_blocks
        )
    }
}

/// Sets the device up. Returns its node.
pub(crate) fn open(boot: &BootDisk, root_hash: &RootHash) -> Result<String, Fatal> {
    let mut tree = Device::open(&boot.verity)?;
    let superblock = Superblock::parse(&tree.read_vec(0, 512)?)
        .map_err(|reason| Fatal::new(format!("{}: {reason}", boot.verity)))?;
    let room = Device::open(&boot.root)?.size() / 4096;
    if superblock.data_blocks == 0 || superblock.data_blocks > room {
        return Err(Fatal::new(format!(
            "{} seals {} blocks, but {} has {room}",
            boot.verity, superblock.data_blocks, boot.root
        )));
    }
    let parameters = superblock.parameters(
        &device_number(&boot.root)?,
        &device_number(&boot.verity)?,
        root_hash,
    );
    let uuid: String = superblock
        .uuid
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    activate(
        &format!("CRYPT-VERITY-{uuid}-{NAME}"),
        superblock.data_blocks * 8,
        &parameters,
    )
    .map_err(|(what, error)| Fatal::new(format!("the sealed root cannot be {what}: {error}")))
}

fn device_number(node: &str) -> Result<String, Fatal> {
    let metadata = std::fs::metadata(node)
        .map_err(|error| Fatal::new(format!("cannot look at {node}: {error}")))?;
    if !metadata.file_type().is_block_device() {
        return Err(Fatal::new(format!("{node} is no block device")));
    }
    let number = metadata.rdev();
    Ok(format!(
        "{}:{}",
        rustix::fs::major(number),
        rustix::fs::minor(number)
    ))
}

/// Requests of linux/dm-ioctl.h: `_IOWR(0xfd, NUMBER, struct dm_ioctl)`.
const DEV_CREATE: libc::Ioctl = 0xc138_fd03;
const DEV_SUSPEND: libc::Ioctl = 0xc138_fd06;
const TABLE_LOAD: libc::Ioctl = 0xc138_fd09;
const READ_ONLY: u32 = 1;
/// Length of `struct dm_ioctl`, of `struct dm_target_spec`.
const HEADER: usize = 312;
const TARGET: usize = 40;

/// Creates the device, loads its table, starts it.
fn activate(
    uuid: &str,
    sectors: u64,
    parameters: &str,
) -> Result<String, (&'static str, std::io::Error)> {
    let control = File::options()
        .read(true)
        .write(true)
        .open(CONTROL)
        .map_err(|error| ("set up without the device mapper", error))?;
    let mut create = request(0, &[]);
    put(&mut create, 176, uuid.as_bytes());
    call(&control, DEV_CREATE, &mut create).map_err(|error| ("created", error))?;
    let mut number = [0; 8];
    number.copy_from_slice(&create[40..48]);
    let number = u64::from_le_bytes(number);

    let mut load = request(READ_ONLY, &target(sectors, parameters));
    call(&control, TABLE_LOAD, &mut load).map_err(|error| ("loaded", error))?;
    // Without the flag that suspends, this starts the device.
    call(&control, DEV_SUSPEND, &mut request(READ_ONLY, &[])).map_err(|e| ("started", e))?;
    // The kernel's encoding of device numbers: the minor's low byte, the major, the rest.
    let minor = (number & 0xff) | ((number >> 12) & 0x000f_ff00);
    Ok(format!("/dev/dm-{minor}"))
}

/// A `struct dm_ioctl` about our device, followed by `data`.
fn request(flags: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend_from_slice(data);
    // Room for the answer.
    bytes.resize(bytes.len().max(4096), 0);
    let length = bytes.len() as u32;
    put(&mut bytes, 0, &4u32.to_ne_bytes());
    put(&mut bytes, 12, &length.to_ne_bytes());
    put(&mut bytes, 16, &(HEADER as u32).to_ne_bytes());
    put(&mut bytes, 20, &u32::from(!data.is_empty()).to_ne_bytes());
    put(&mut bytes, 28, &flags.to_ne_bytes());
    put(&mut bytes, 48, NAME.as_bytes());
    bytes
}

/// A `struct dm_target_spec` and its parameters, padded to 8 bytes.
fn target(sectors: u64, parameters: &str) -> Vec<u8> {
    let mut bytes = vec![0; TARGET];
    put(&mut bytes, 8, &sectors.to_ne_bytes());
    put(&mut bytes, 24, b"verity");
    bytes.extend_from_slice(parameters.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let length = bytes.len() as u32;
    put(&mut bytes, 20, &length.to_ne_bytes());
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn call(control: &File, request: libc::Ioctl, bytes: &mut [u8]) -> std::io::Result<()> {
    // SAFETY: `bytes` begins with a `struct dm_ioctl` whose data_size is the length of `bytes`; the
    // kernel reads and writes no more than that.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), request, bytes.as_mut_ptr()) };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline::EXAMPLE;

    /// A tree by veritysetup, which also says what the parameters should be.
    #[test]
    fn reads_what_veritysetup_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("data"), vec![7; 40960]).unwrap();
        let output = std::process::Command::new("veritysetup")
            .args(["format", &path("data"), &path("tree"), "--salt", "00ff10"])
            .args(["--uuid", "00112233-4455-6677-8899-aabbccddeeff"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let tree = std::fs::read(path("tree")).unwrap();
        let found = Superblock::parse(&tree).unwrap();
        assert_eq!(
            (found.data_blocks, found.salt.as_slice()),
            (10, &[0, 255, 16][..])
        );
        assert_eq!(found.uuid[..2], [0, 0x11]);
        let hash = RootHash::parse(EXAMPLE).unwrap();
        assert_eq!(
            found.parameters("254:3", "254:4", &hash),
            format!("1 254:3 254:4 4096 4096 10 1 sha256 {hash} 00ff10 1 panic_on_corruption")
        );
        let bare = Superblock {
            salt: Vec::new(),
            ..found
        };
        assert!(bare.parameters("a", "b", &hash).contains(" - 1 "));
    }

    #[test]
    fn nonsense_is_an_error() {
        let mut good = vec![0; 512];
        put(&mut good, 0, b"verity\0\0\x01\0\0\0\x01\0\0\0");
        put(&mut good, 32, b"sha256");
        put(&mut good, 64, &[0, 16, 0, 0, 0, 16, 0, 0]);
        assert!(Superblock::parse(&good).is_ok());
        for (at, byte) in [(0, b'V'), (8, 2), (12, 0), (32, b'S'), (64, 1), (81, 0xff)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(Superblock::parse(&bad).is_err(), "byte {at}");
        }
        assert!(Superblock::parse(&good[..511]).is_err());
    }

    #[test]
    fn requests_have_the_kernel_s_layout() {
        let spec = target(80, "1 2");
        assert_eq!(spec.len(), 48);
        assert_eq!(spec[20..24], 48u32.to_ne_bytes());
        assert_eq!(&spec[24..31], b"verity\0");
        let request = request(READ_ONLY, &spec);
        assert_eq!(request[12..16], 4096u32.to_ne_bytes());
        assert_eq!(request[16..20], 312u32.to_ne_bytes());
        assert_eq!(&request[48..53], b"root\0");
        assert_eq!(request[312..360], spec);
    }
}
