//! A small image made of nothing but this workspace's writers: all parts of a real one, a root of
//! some files, and a boot loader and kernel that are PE images of noise.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::fs::File;
use std::path::{Path, PathBuf};

use formats::gpt::{Disks, Layout, Role, SectorSize, derived_guid};
use formats::pcr::Value;
use formats::pe::Uki;
use formats::region::Region;
use formats::tree::{Kind, Node, Tree};
use formats::verity::{self, RootHash};
use formats::{ext4, fat};
use imagegen::manifest::{self, Manifest, Part};
use packages::Digest;

/// 2026-11-23, the date of the lock.
pub const CLOCK: i64 = 1_795_399_773;

/// What an image is made of.
pub struct Spec {
    pub version: &'static str,
    pub kernel: &'static str,
    pub cmdline: &'static str,
    /// Name, version, files.
    pub packages: Vec<(&'static str, &'static str, Files)>,
    /// Files of nobody's.
    pub others: Files,
}

/// Path, node with its origin.
pub type Files = Vec<(&'static str, Node)>;

pub fn file(content: impl Into<bytes::Bytes>, mode: u16, origin: &str) -> Node {
    Node::new(Kind::File(content.into()), mode, origin)
}

pub fn link(to: &str, origin: &str) -> Node {
    Node::new(Kind::Symlink(to.into()), 0o777, origin)
}

/// Bytes that are the same every time and do not compress.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

impl Default for Spec {
    fn default() -> Self {
        let package = |name: &str| format!("package {name}");
        let mut ping = file(noise(50_000, 4), 0o755, &package("iputils-ping"));
        ping.xattrs.insert(
            "security.capability".into(),
            b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
        );
        Self {
            version: "1.2.3",
            kernel: "6.18.15+deb13-cloud-amd64",
            cmdline: "console=ttyS0 panic=10 quiet",
            packages: vec![
                (
                    "bash",
                    "5.2.37-2+b10",
                    vec![(
                        "/usr/bin/bash",
                        file(noise(300_000, 1), 0o755, "package bash"),
                    )],
                ),
                (
                    "iputils-ping",
                    "3:20240905-3",
                    vec![("/usr/bin/ping", ping)],
                ),
                (
                    "openssh-server",
                    "1:10.0p1-7",
                    vec![
                        (
                            "/usr/sbin/sshd",
                            file(noise(200_000, 2), 0o755, "package openssh-server"),
                        ),
                        (
                            "/usr/lib/systemd/system/ssh.service",
                            file(
                                "[Unit]\nDescription=OpenBSD Secure Shell server\n\n[Service]\n\
                                 ExecStart=/usr/sbin/sshd -D\n",
                                0o644,
                                "package openssh-server",
                            ),
                        ),
                    ],
                ),
            ],
            others: vec![
                ("/bin", link("usr/bin", "layout")),
                ("/dev", Node::new(Kind::Dir, 0o755, "layout")),
                ("/var", Node::new(Kind::Dir, 0o755, "layout")),
                ("/tmp", Node::new(Kind::Dir, 0o1777, "layout")),
                (
                    "/usr/lib/os-release",
                    file("NAME=\"Larder\"\nID=larder\n", 0o644, "effect os-release"),
                ),
                (
                    "/usr/bin/appliance",
                    file(noise(400_000, 3), 0o755, "our binary"),
                ),
                (
                    "/etc/systemd/system/multi-user.target.wants/ssh.service",
                    link(
                        "/usr/lib/systemd/system/ssh.service",
                        "image.toml units.enable ssh.service",
                    ),
                ),
                (
                    "/usr/lib/systemd/system/larder-cache.service",
                    file(
                        "[Service]\nExecStart=/usr/bin/appliance cache\nUser=cache\n",
                        0o644,
                        "configs/root",
                    ),
                ),
                (
                    "/usr/lib/systemd/system/multi-user.target.wants/larder-cache.service",
                    link("../larder-cache.service", "configs/root"),
                ),
                (
                    "/etc/systemd/system/systemd-pcrlock.service",
                    link("/dev/null", "image.toml units.mask"),
                ),
                (
                    "/usr/lib/sysctl.d/90-larder.conf",
                    file(
                        "# made from system.toml\nnet.core.somaxconn = 4096\nvm.swappiness = 10\n",
                        0o644,
                        "system.toml sysctl",
                    ),
                ),
                (
                    "/etc/nftables.conf",
                    file(
                        "table inet filter {\n  chain input {\n    tcp dport { 22, 80, 443 } \
                         accept\n  }\n}\n",
                        0o644,
                        "system.toml firewall",
                    ),
                ),
                (
                    "/etc/larder/fleet.toml",
                    file(
                        "domain = \"tuist.dev\"\n[hosts.cache-eu-central]\nenvironment = \
                         \"production\"\nregion = \"eu-central\"\n",
                        0o644,
                        "configs/fleet.toml",
                    ),
                ),
            ],
        }
    }
}

impl Spec {
    /// The root file system.
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut status = String::new();
        let mut nodes = vec![];
        for (name, version, files) in &self.packages {
            status += &format!(
                "Package: {name}\nStatus: install ok installed\nVersion: {version}\n\
                 Architecture: amd64\n\n"
            );
            nodes.extend(files.iter().cloned());
        }
        nodes.extend(self.others.iter().cloned());
        nodes.push(("/var/lib/dpkg/status", file(status, 0o644, "effect dpkg")));
        nodes.sort_by_key(|(path, _)| *path);
        tree.insert("/", Node::new(Kind::Dir, 0o755, "layout"))
            .unwrap();
        for (path, node) in nodes {
            for (at, _) in path.match_indices('/').skip(1) {
                if tree.get(&path[..at]).is_none() {
                    tree.insert(&path[..at], Node::new(Kind::Dir, 0o755, "layout"))
                        .unwrap();
                }
            }
            tree.insert(path, node).unwrap();
        }
        tree
    }
}

/// A written image.
pub struct Composed {
    pub folder: tempfile::TempDir,
    pub path: PathBuf,
    pub layout: Layout,
    pub root_hash: RootHash,
    pub manifest: Manifest,
    /// Bytes of the root's file system, of its tree, and of the pristine ones.
    pub root_bytes: u64,
    pub tree_bytes: u64,
}

pub const PRISTINE: u64 = 16 << 20;

/// Writes `larder.raw` and its manifest to a new folder.
pub fn compose(spec: &Spec) -> Composed {
    compose_on(spec, Disks::One, SectorSize::S512, "larder", 0)
}

/// The same with another layout, seed of the GUIDs and size of the disk (0: the least).
pub fn compose_on(
    spec: &Spec,
    disks: Disks,
    sector: SectorSize,
    seed: &str,
    disk_size: u64,
) -> Composed {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("larder.raw");
    let file = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let layout = |root_hash| {
        let request =
            |size| imagegen::layout::request(size, sector, disks, seed, spec.version, root_hash);
        let size = match disk_size {
            0 => Layout::minimum_size(&request(0)),
            size => size,
        };
        Layout::new(&request(size)).unwrap()
    };
    let places = layout(RootHash([0; 32]));
    file.set_len(places.disk_size).unwrap();

    let tree = spec.tree();
    let place = places.get(Role::RootA).unwrap();
    let region = Region::new(&file, place.start, place.size);
    let options = |name: &str, label: &str, size| ext4::Options {
        uuid: derived_guid(seed, &format!("{name}-uuid")),
        hash_seed: derived_guid(seed, &format!("{name}-hash-seed")),
        label: label.into(),
        clock: CLOCK,
        max_bytes: size,
    };
    let root = ext4::write(&tree, &options("root", "larder-root", place.size), &region).unwrap();
    let parameters = verity::Parameters {
        salt: vec![7; 64],
        uuid: derived_guid(seed, "root-verity-uuid"),
    };
    let hashes = verity::build(&region, root.blocks, Some(&root.data), &parameters).unwrap();
    let place = places.get(Role::RootAVerity).unwrap();
    write(&file, &hashes.bytes, place.start);
    let root_hash = hashes.root_hash;

    let cmdline = format!("{} roothash={root_hash}", spec.cmdline);
    let osrel = format!(
        "PRETTY_NAME=\"Larder {v}\"\nID=larder\nIMAGE_ID=larder\nIMAGE_VERSION={v}\n",
        v = spec.version
    );
    let (stub, linux, initrd) = (stub(), kernel(spec.kernel), noise(100_000, 9));
    let uki = Uki {
        stub: &stub,
        linux: &linux,
        osrel: osrel.as_bytes(),
        cmdline: &cmdline,
        initrd: &initrd,
        uname: spec.kernel,
        sbat: None,
        pcrpkey: None,
        pcrsig: None,
    };
    let pcr11 = Value::of_uki(&uki).unwrap();
    let uki_path = format!("/EFI/Linux/larder_{}+3.efi", spec.version);
    let mut esp = Tree::new();
    for folder in ["/", "/EFI", "/EFI/BOOT", "/EFI/Linux", "/loader"] {
        esp.insert(folder, Node::new(Kind::Dir, 0o700, "esp"))
            .unwrap();
    }
    for (path, content) in [
        ("/EFI/BOOT/BOOTX64.EFI", stub.clone()),
        (&uki_path, uki.assemble().unwrap()),
        ("/loader/loader.conf", b"timeout 0\n".to_vec()),
    ] {
        esp.insert(path, self::file(content, 0o700, "esp")).unwrap();
    }
    let place = places.get(Role::Esp).unwrap();
    let volume = fat::Options {
        size: place.size,
        sector,
        label: "ESP".into(),
        volume_id: 0x1234_5678,
        clock: CLOCK,
    };
    fat::write(&esp, &volume, &Region::new(&file, place.start, place.size)).unwrap();
    for role in [Role::State, Role::Cas] {
        if let Some(place) = places.get(role) {
            let region = Region::new(&file, place.start, place.size);
            let options = options(role.name(), ext4::PRISTINE_LABEL, PRISTINE);
            ext4::write_pristine(PRISTINE, &options, &region).unwrap();
        }
    }
    let layout = layout(root_hash);
    layout.write(&file).unwrap();

    let (root_bytes, tree_bytes) = (root.bytes(), hashes.bytes.len() as u64);
    let mut out = Composed {
        folder,
        path,
        layout,
        root_hash,
        root_bytes,
        tree_bytes,
        manifest: Manifest {
            format: manifest::FORMAT,
            id: "larder".into(),
            version: spec.version.into(),
            clock: CLOCK,
            architecture: "amd64".into(),
            kernel: spec.kernel.into(),
            cmdline,
            host: None,
            size: places.disk_size,
            root_hash: Digest(root_hash.0),
            pcr11: Digest(pcr11.0),
            compiler: "rustc 1.95.0 (0123456789 2026-10-01)".into(),
            outputs: vec![],
            parts: vec![],
            esp: esp
                .iter()
                .filter_map(|(path, node)| {
                    let content = node.content()?;
                    Some(manifest::EspFile {
                        path: path.into(),
                        size: content.len() as u64,
                        sha256: Digest::of(content),
                    })
                })
                .collect(),
            binaries: vec![manifest::Binary {
                path: "/usr/bin/appliance".into(),
                sha256: Digest::of(tree.get("/usr/bin/appliance").unwrap().content().unwrap()),
            }],
            packages: spec
                .packages
                .iter()
                .map(|(name, version, _)| manifest::Package {
                    name: (*name).into(),
                    version: (*version).into(),
                    arch: "amd64".into(),
                    sha256: Digest::of(format!("{name} {version}").as_bytes()),
                    suite: "trixie".into(),
                })
                .collect(),
            files: manifest::File::all_of(&tree),
        },
    };
    out.describe_parts(&file);
    out.write_manifest();
    out
}

impl Composed {
    /// Where a part's bytes are that the manifest has a hash of.
    fn describe_parts(&mut self, file: &File) {
        let [(_, head), (tail_start, tail)] = self.layout.encode().unwrap();
        let mut parts = vec![(manifest::GPT, 0, head.len() as u64, head.len() as u64)];
        for partition in &self.layout.partitions {
            let content = match partition.role {
                Role::Esp => partition.size,
                Role::RootA => self.root_bytes,
                Role::RootAVerity => self.tree_bytes,
                Role::State | Role::Cas => PRISTINE,
                _ => 0,
            };
            parts.push((
                partition.role.name(),
                partition.start,
                partition.size,
                content,
            ));
        }
        let tail_len = tail.len() as u64;
        parts.push((manifest::GPT_BACKUP, tail_start, tail_len, tail_len));
        self.manifest.parts = parts
            .into_iter()
            .map(|(name, offset, size, content)| {
                let mut bytes = vec![0; content as usize];
                formats::region::ReadAt::read_exact_at(file, &mut bytes, offset).unwrap();
                Part {
                    name: name.into(),
                    offset,
                    size,
                    content,
                    sha256: Digest::of(&bytes),
                }
            })
            .collect();
    }

    pub fn manifest_path(&self) -> PathBuf {
        Manifest::path_beside(&self.path)
    }

    pub fn write_manifest(&self) {
        std::fs::write(self.manifest_path(), self.manifest.to_json().unwrap()).unwrap();
    }

    pub fn open(&self) -> File {
        File::options()
            .read(true)
            .write(true)
            .open(&self.path)
            .unwrap()
    }

    /// Flips the lowest bit of a byte.
    pub fn flip(&self, offset: u64) {
        use formats::region::{ReadAt, WriteAt};
        let file = self.open();
        let mut byte = [0];
        ReadAt::read_exact_at(&file, &mut byte, offset).unwrap();
        WriteAt::write_all_at(&file, &[byte[0] ^ 1], offset).unwrap();
    }

    /// First byte of a partition.
    pub fn start(&self, role: Role) -> u64 {
        self.layout.get(role).unwrap().start
    }
}

fn write(file: &File, bytes: &[u8], offset: u64) {
    formats::region::WriteAt::write_all_at(file, bytes, offset).unwrap();
}

/// A boot stub: a PE32+ image with room for sections.
fn stub() -> Vec<u8> {
    let sbat = b"sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n\
                 systemd-stub,1,The systemd Developers,systemd,257,https://systemd.io/\n";
    pe(
        &[
            (".text", &noise(700, 5), 0x6000_0020),
            (".sbat", sbat, 0x4000_0040),
        ],
        20,
    )
}

/// A kernel, different for each release.
fn kernel(release: &str) -> Vec<u8> {
    let seed = release
        .bytes()
        .fold(1, |n, b| n * 31 % 65521 + u64::from(b));
    pe(&[(".text", &noise(150_000, seed), 0x6000_0020)], 0)
}

fn pe(sections: &[(&str, &[u8], u32)], room: usize) -> Vec<u8> {
    let headers = (0x40 + 24 + 240 + (sections.len() + room) * 40).next_multiple_of(512);
    let mut out = vec![0; headers];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x40u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x44, &0x8664u16.to_le_bytes());
    put(0x46, &(sections.len() as u16).to_le_bytes());
    put(0x54, &240u16.to_le_bytes());
    put(0x56, &0x22eu16.to_le_bytes());
    let optional = 0x58;
    put(optional, &0x20bu16.to_le_bytes());
    put(optional + 16, &0x1000u32.to_le_bytes());
    put(optional + 24, &0x1_4df9_0000u64.to_le_bytes());
    put(optional + 32, &4096u32.to_le_bytes());
    put(optional + 36, &512u32.to_le_bytes());
    put(optional + 60, &(headers as u32).to_le_bytes());
    put(optional + 68, &10u16.to_le_bytes());
    put(optional + 108, &16u32.to_le_bytes());
    let (mut address, mut offset) = (4096u32, headers);
    for (index, (name, data, flags)) in sections.iter().enumerate() {
        let at = 0x40 + 24 + 240 + index * 40;
        put(at, name.as_bytes());
        put(at + 8, &(data.len() as u32).to_le_bytes());
        put(at + 12, &address.to_le_bytes());
        let padded = data.len().next_multiple_of(512);
        put(at + 16, &(padded as u32).to_le_bytes());
        put(at + 20, &(offset as u32).to_le_bytes());
        put(at + 36, &flags.to_le_bytes());
        address += (data.len() as u32).next_multiple_of(4096);
        offset += padded;
    }
    put(optional + 56, &address.to_le_bytes());
    for (_, data, _) in sections {
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out
}

/// Replaces what differs from run to run in output.
pub fn without_folder(text: &str, folder: &Path) -> String {
    text.replace(&folder.display().to_string(), "FOLDER")
}
