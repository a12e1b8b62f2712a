//! Small images, hosts and calls.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use formats::gpt::{Disks, Layout, Role, SectorSize};
use formats::region::Region;
use formats::tree::{Kind, Node, Tree};
use formats::{ext4, fat, verity};
use packages::Digest;
use uuid::Uuid;

use super::super::confirm::Answer;
use super::super::meter::Meter;
use super::super::usage::Kernel;
use super::super::{FlashArgs, Outcome};
use crate::layout;
use crate::manifest::Manifest;
use crate::testing::pe;

/// Bytes of the empty file systems of these images.
pub(super) const PRISTINE: u64 = 2 << 20;

/// A folder with `larder.raw` and `configs`.
pub(super) struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// With an image of that version, whose `/cas` is on the same disk.
    pub(super) fn new(version: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bench = Self { folder };
        std::fs::create_dir(bench.path("configs")).unwrap();
        let fleet = "domain = 'example.org'\n\
            [hosts.one]\nenvironment = 'production'\nregion = 'eu'\n\
            [hosts.two]\nenvironment = 'staging'\nregion = 'us'\n\
            disks.cas = '/dev/disk/by-id/nvme-CAS_1'\n";
        std::fs::write(bench.path("configs/fleet.toml"), fleet).unwrap();
        image(&bench.path("larder.raw"), version, Disks::One);
        bench
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the manifest of `larder.raw`, which is also in the file `output`; `change` may harm it.
    pub(super) fn manifest(&self, output: &str, change: impl FnOnce(&mut Manifest)) {
        let file = File::open(self.path("larder.raw")).unwrap();
        let table = formats::gpt::read(&file, None).unwrap();
        let packed = std::fs::read(self.path(output)).unwrap();
        let digest = Digest([1; 32]);
        let part = |(role, entry): (Role, &formats::gpt::Entry)| {
            use formats::region::ReadAt;
            let mut bytes = vec![0; 1 << 20];
            ReadAt::read_exact_at(&file, &mut bytes, entry.start).unwrap();
            crate::manifest::Part {
                name: role.name().into(),
                offset: entry.start,
                size: entry.size,
                content: bytes.len() as u64,
                sha256: Digest::of(&bytes),
            }
        };
        let mut manifest = Manifest {
            format: crate::manifest::FORMAT,
            id: "larder".into(),
            version: "1".into(),
            clock: 0,
            architecture: "amd64".into(),
            kernel: "6.18".into(),
            cmdline: String::new(),
            host: None,
            size: file.metadata().unwrap().len(),
            root_hash: digest,
            pcr11: digest,
            compiler: String::new(),
            outputs: vec![crate::manifest::Output {
                name: output.into(),
                size: packed.len() as u64,
                sha256: Digest::of(&packed),
            }],
            parts: Role::ALL
                .into_iter()
                .zip(table.partitions())
                .map(part)
                .collect(),
            esp: vec![],
            binaries: vec![],
            packages: vec![],
            files: vec![],
        };
        change(&mut manifest);
        let path = self.path("larder.manifest.json");
        std::fs::write(path, manifest.to_json().unwrap()).unwrap();
    }

    /// `--host HOST --disk DISK --yes DISK`, for a file in the folder.
    pub(super) fn args(&self, host: &str, disk: &str) -> FlashArgs {
        FlashArgs {
            host: host.into(),
            disk: self.path(disk),
            image: self.path("larder.raw"),
            configs: self.path("configs"),
            yes: Some(disk.into()),
            wipe: false,
            dry_run: false,
            json: false,
            size: None,
            sector_size: None,
        }
    }
}

/// What a call said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) outcome: Outcome,
    pub(super) plan: String,
    pub(super) words: String,
}

/// Calls `flash` as the command line does.
pub(super) fn flash(args: &FlashArgs) -> anyhow::Result<Said> {
    let answer = match &args.yes {
        Some(yes) => Answer::Given(yes),
        None => Answer::Nobody,
    };
    let (mut out, mut words) = (Vec::new(), Vec::new());
    let meter = Meter::silent();
    let kernel = Kernel::default();
    let outcome = super::super::flash(args, &kernel, answer, &meter, &mut out, &mut words)?;
    Ok(Said {
        outcome,
        plan: String::from_utf8(out).unwrap(),
        words: words.join("\n"),
    })
}

/// The words of a call that must fail.
pub(super) fn error(args: &FlashArgs) -> String {
    format!("{:#}", flash(args).unwrap_err())
}

/// The words of a call that must be refused.
pub(super) fn refused(args: &FlashArgs) -> String {
    let said = flash(args).unwrap();
    assert_eq!(said.outcome, Outcome::Refused, "{said:?}");
    said.words
}

/// Bytes that differ from version to version.
fn noise(length: usize, seed: &str) -> Vec<u8> {
    let mut state = seed.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

fn file(content: Vec<u8>) -> Node {
    Node::new(Kind::File(content.into()), 0o644, "test")
}

fn folder() -> Node {
    Node::new(Kind::Dir, 0o755, "test")
}

/// Makes an image as `imagegen build` does, with a root of some 100 KiB.
pub(super) fn image(path: &Path, version: &str, disks: Disks) {
    let options = |label: &str, max_bytes| ext4::Options {
        uuid: Uuid::from_u128(1),
        hash_seed: Uuid::from_u128(2),
        label: label.into(),
        clock: 1_700_000_000,
        max_bytes,
    };
    let mut tree = Tree::new();
    tree.insert("/", folder()).unwrap();
    tree.insert("/etc", folder()).unwrap();
    tree.insert("/etc/version", file(version.into())).unwrap();
    tree.insert("/data", file(noise(100_000, version))).unwrap();
    let root = formats::region::Memory::new(0);
    let summary = ext4::write(&tree, &options("root", 512 << 20), &root).unwrap();
    let mut root = root.into_inner();
    root.resize(summary.bytes() as usize, 0);
    let parameters = verity::Parameters {
        salt: vec![7; 64],
        uuid: Uuid::from_u128(3),
    };
    let hashes = verity::build(&root, summary.blocks, None, &parameters).unwrap();

    let request = |size| {
        let sector = SectorSize::S512;
        layout::request(size, sector, disks, "larder", version, hashes.root_hash)
    };
    let size = Layout::minimum_size(&request(0));
    let layout = Layout::new(&request(size)).unwrap();
    let disk = File::create_new(path).unwrap();
    disk.set_len(size).unwrap();
    let region = |role| {
        let part = layout.get(role).unwrap();
        Region::new(&disk, part.start, part.size)
    };
    use formats::region::WriteAt;
    region(Role::RootA).write_all_at(&root, 0).unwrap();
    region(Role::RootAVerity)
        .write_all_at(&hashes.bytes, 0)
        .unwrap();
    for role in [Role::State, Role::Cas] {
        if layout.get(role).is_some() {
            let options = options(ext4::PRISTINE_LABEL, PRISTINE);
            ext4::write_pristine(PRISTINE, &options, &region(role)).unwrap();
        }
    }
    let esp = esp(version, &hashes.root_hash.to_string());
    let options = fat::Options {
        size: layout.get(Role::Esp).unwrap().size,
        sector: SectorSize::S512,
        label: "ESP".into(),
        volume_id: 4,
        clock: 1_700_000_000,
    };
    fat::write(&esp, &options, &region(Role::Esp)).unwrap();
    layout.write(&disk).unwrap();
}

fn esp(version: &str, root_hash: &str) -> Tree {
    let mut esp = Tree::new();
    for path in ["/EFI", "/EFI/BOOT", "/EFI/Linux", "/loader"] {
        esp.insert(path, folder()).unwrap();
    }
    let loader = pe(&[(".text", &noise(9000, &format!("loader {version}")))]);
    esp.insert("/EFI/BOOT/BOOTX64.EFI", file(loader)).unwrap();
    let cmdline = format!("quiet roothash={root_hash}");
    let uki = pe(&[
        (".osrel", b"ID=larder\n"),
        (".cmdline", cmdline.as_bytes()),
        (".uname", b"6.18"),
        (".initrd", b"cpio"),
        (".linux", &noise(50_000, &format!("linux {version}"))),
    ]);
    let name = format!("/EFI/Linux/larder_{version}+3.efi");
    esp.insert(name, file(uki)).unwrap();
    esp.insert("/loader/loader.conf", file(b"timeout 0\n".to_vec()))
        .unwrap();
    esp
}

/// Runs a reference tool; one that is missing fails the test: `make test` installs them.
pub(super) fn tool(name: &str, args: &[&str]) -> Output {
    let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not installed; `make test` would install it"));
    Command::new(found)
        .args(args)
        .env("LC_ALL", "C")
        .output()
        .unwrap()
}

/// Runs a reference tool that must be content; gives back what it printed.
pub(super) fn ok(name: &str, args: &[&str]) -> String {
    let output = tool(name, args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let more = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {text}\n{more}");
    text
}
