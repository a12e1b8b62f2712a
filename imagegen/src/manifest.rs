//! `larder.manifest.json`, beside every image: what the image is, part by part and file by file.
//!
//! The builder writes it, `verify` checks an image against it, `inspect` and `diff` read from it
//! what an image does not carry itself (origins, compiler, hashes of packages). It is deterministic
//! JSON with one record a line, so that text tools can compare two of them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use formats::tree::{Kind, Node, Tree};
use packages::Digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Format that this code reads and writes.
pub const FORMAT: u32 = 1;

/// A manifest is a few megabytes; more than this is none.
const MOST_BYTES: u64 = 256 << 20;

/// What an image is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the image, `larder`.
    pub id: String,
    /// Its version.
    pub version: String,
    /// SOURCE_DATE_EPOCH: the date of the lock, seconds since 1970.
    pub clock: i64,
    /// Debian architecture.
    pub architecture: String,
    /// Kernel release, as `uname -r` says it.
    pub kernel: String,
    /// Kernel command line of the UKI, `roothash=` included.
    pub cmdline: String,
    /// The host whose identity is baked in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Size of the image in bytes.
    pub size: u64,
    /// Root hash of the dm-verity tree.
    pub root_hash: Digest,
    /// PCR 11 (SHA-256 bank) as the boot stub leaves it, before the words of boot phases.
    pub pcr11: Digest,
    /// What compiled our binaries.
    pub compiler: String,
    /// The files that the image is in: `larder.raw.zst`.
    pub outputs: Vec<Output>,
    /// Partition tables and partitions, in the order of the disk.
    pub parts: Vec<Part>,
    /// Files of the ESP, sorted by path.
    pub esp: Vec<EspFile>,
    /// Our own binaries: `/usr/bin/appliance` of the root, and `initramfs:/init`.
    pub binaries: Vec<Binary>,
    /// The Debian packages in the root and of the kernel, sorted by name.
    pub packages: Vec<Package>,
    /// Everything in the root, sorted by path.
    pub files: Vec<File>,
}

/// A file beside the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Its name, without folders.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Digest,
}

/// A range of the image: a partition, or one copy of the partition table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// [`formats::gpt::Role::name`], or [`GPT`], [`GPT_BACKUP`].
    pub name: String,
    /// First byte in the image.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// How many bytes at its start are hashed; all that follow are zero.
    pub content: u64,
    /// SHA-256 of the first `content` bytes.
    pub sha256: Digest,
}

/// Name of the part that is protective MBR and primary partition table.
pub const GPT: &str = "gpt";
/// Name of the part that is the backup partition table.
pub const GPT_BACKUP: &str = "gpt-backup";

/// A file of the ESP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EspFile {
    /// Absolute path on the ESP.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Digest,
}

/// A binary of our own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Binary {
    /// Where it is.
    pub path: String,
    /// SHA-256 of the content.
    pub sha256: Digest,
}

/// A Debian package.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// `amd64` or `all`.
    pub arch: String,
    /// SHA-256 of the .deb.
    pub sha256: Digest,
    /// Suite that it was found in.
    pub suite: String,
}

/// What a file of the root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    /// A folder.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// Another name of a regular file.
    Hardlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// Permission bits, written as text in octal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u16);

/// A file of the root.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Absolute path.
    pub path: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: Type,
    /// Permission bits.
    pub mode: Mode,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content; 0 for all but regular files.
    pub size: u64,
    /// SHA-256 of the content of a regular file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Where a link leads; `major:minor` of a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Extended attributes, their values in hexadecimal digits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
    /// Where it came from: `package openssh-server`, `effect base-passwd`, `configs/root`, …
    pub origin: String,
}

/// Why there is no manifest to use.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Reading failed.
    #[error("{path}: reading the manifest failed")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a manifest.
    #[error("{path}: not a manifest of an image")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// It is too large to be one.
    #[error("{path}: a manifest of {size} bytes is none")]
    TooBig {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// Another format.
    #[error(
        "{path}: format {format}, this program knows format {FORMAT}; a newer imagegen reads it"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Which.
        format: u32,
    },
}

impl Manifest {
    /// Where the manifest of an image lies: `larder.raw` and `larder.raw.zst` →
    /// `larder.manifest.json`.
    pub fn path_beside(image: &Path) -> PathBuf {
        match image.extension() {
            Some(extension) if extension == "zst" => Self::path_beside(&image.with_extension("")),
            _ => image.with_extension("manifest.json"),
        }
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn load(path: &Path) -> Result<Self, ManifestError> {
        let failed = |source| ManifestError::Read {
            path: path.into(),
            source,
        };
        let size = fs::metadata(path).map_err(failed)?.len();
        if size > MOST_BYTES {
            return Err(ManifestError::TooBig {
                path: path.into(),
                size,
            });
        }
        Self::parse(&fs::read(path).map_err(failed)?, path)
    }

    /// The manifest in `json`; `path` is for errors.
    ///
    /// # Errors
    /// [`ManifestError::Parse`], [`ManifestError::Format`].
    pub fn parse(json: &[u8], path: &Path) -> Result<Self, ManifestError> {
        /// The one field that all formats have.
        #[derive(Deserialize)]
        struct Any {
            format: u32,
        }
        let failed = |source| ManifestError::Parse {
            path: path.into(),
            source,
        };
        let Any { format } = serde_json::from_slice(json).map_err(failed)?;
        if format != FORMAT {
            return Err(ManifestError::Format {
                path: path.into(),
                format,
            });
        }
        serde_json::from_slice(json).map_err(failed)
    }

    /// The text of the file: lists have one record a line.
    ///
    /// # Errors
    /// None that can occur: all keys are text.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut out = Json::default();
        out.value("format", &self.format)?;
        out.value("id", &self.id)?;
        out.value("version", &self.version)?;
        out.value("clock", &self.clock)?;
        out.value("architecture", &self.architecture)?;
        out.value("kernel", &self.kernel)?;
        out.value("cmdline", &self.cmdline)?;
        if let Some(host) = &self.host {
            out.value("host", host)?;
        }
        out.value("size", &self.size)?;
        out.value("root_hash", &self.root_hash)?;
        out.value("pcr11", &self.pcr11)?;
        out.value("compiler", &self.compiler)?;
        out.list("outputs", &self.outputs)?;
        out.list("parts", &self.parts)?;
        out.list("esp", &self.esp)?;
        out.list("binaries", &self.binaries)?;
        out.list("packages", &self.packages)?;
        out.list("files", &self.files)?;
        Ok(out.finish())
    }

    /// The part of that name.
    pub fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }
}

impl File {
    /// The records of all nodes of `tree`, contents hashed on all processors.
    pub fn all_of(tree: &Tree) -> Vec<Self> {
        let nodes: Vec<_> = tree.iter().collect();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut out = Vec::new();
            while let Some((path, node)) = nodes.get(next.fetch_add(1, Ordering::Relaxed)) {
                out.push(Self::of(path, node));
            }
            out
        };
        let all = Mutex::new(Vec::with_capacity(nodes.len()));
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut done = work();
                    all.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .append(&mut done);
                });
            }
        });
        let mut out = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        out.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        out
    }

    /// The record of one node.
    pub fn of(path: &str, node: &Node) -> Self {
        let mut out = Self {
            path: path.into(),
            kind: Type::Dir,
            mode: Mode(node.mode),
            uid: node.uid,
            gid: node.gid,
            size: 0,
            sha256: None,
            target: None,
            xattrs: node
                .xattrs
                .iter()
                .map(|(name, value)| (name.clone(), hex(value)))
                .collect(),
            origin: node.origin.clone(),
        };
        let device = |major: u32, minor: u32| Some(format!("{major}:{minor}"));
        match &node.kind {
            Kind::Dir => {}
            Kind::File(data) => {
                out.kind = Type::File;
                out.size = data.len() as u64;
                out.sha256 = Some(Digest::of(data));
            }
            Kind::Symlink(to) => (out.kind, out.target) = (Type::Symlink, Some(to.clone())),
            Kind::Hardlink(to) => (out.kind, out.target) = (Type::Hardlink, Some(to.clone())),
            Kind::CharDevice(a, b) => (out.kind, out.target) = (Type::Char, device(*a, *b)),
            Kind::BlockDevice(a, b) => (out.kind, out.target) = (Type::Block, device(*a, *b)),
            Kind::Fifo => out.kind = Type::Fifo,
        }
        out
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A JSON object in the making.
#[derive(Default)]
struct Json(String);

impl Json {
    fn key(&mut self, name: &str) {
        self.0
            .push_str(if self.0.is_empty() { "{\n" } else { ",\n" });
        self.0.push_str(&format!("  \"{name}\": "));
    }

    fn value(&mut self, name: &str, value: &impl Serialize) -> Result<(), serde_json::Error> {
        self.key(name);
        self.0.push_str(&serde_json::to_string(value)?);
        Ok(())
    }

    fn list(&mut self, name: &str, list: &[impl Serialize]) -> Result<(), serde_json::Error> {
        self.key(name);
        self.0.push('[');
        for (at, item) in list.iter().enumerate() {
            self.0.push_str(if at == 0 { "\n    " } else { ",\n    " });
            self.0.push_str(&serde_json::to_string(item)?);
        }
        self.0.push_str(if list.is_empty() { "]" } else { "\n  ]" });
        Ok(())
    }

    fn finish(mut self) -> String {
        self.0.push_str("\n}\n");
        self.0
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom(format!("`{text}` is no mode (four octal digits)"));
        if text.len() != 4 {
            return Err(wrong());
        }
        let mode = u16::from_str_radix(&text, 8).map_err(|_| wrong())?;
        Ok(Self(mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::new();
        let mut put = |path: &str, kind, mode| {
            let mut node = Node::new(kind, mode, "test");
            if path == "/sudo" {
                node.gid = 27;
                node.xattrs
                    .insert("security.capability".into(), vec![1, 0, 255]);
            }
            tree.insert(path, node).unwrap();
        };
        put("/", Kind::Dir, 0o755);
        put("/bin", Kind::Symlink("usr/bin".into()), 0o777);
        put("/null", Kind::CharDevice(1, 3), 0o666);
        put("/other", Kind::Hardlink("/sudo".into()), 0o644);
        put("/pipe", Kind::Fifo, 0o600);
        put("/sudo", Kind::File("x".into()), 0o4755);
        tree
    }

    fn manifest() -> Manifest {
        let sha256 = Digest([0xab; 32]);
        Manifest {
            format: FORMAT,
            id: "larder".into(),
            version: "1".into(),
            clock: 1_795_399_773,
            architecture: "amd64".into(),
            kernel: "6.18".into(),
            cmdline: "quiet \"x\"".into(),
            host: None,
            size: 1 << 20,
            root_hash: sha256,
            pcr11: sha256,
            compiler: "rustc".into(),
            outputs: vec![],
            parts: vec![Part {
                name: GPT.into(),
                offset: 0,
                size: 17408,
                content: 17408,
                sha256,
            }],
            esp: vec![],
            binaries: vec![],
            packages: vec![],
            files: File::all_of(&tree()),
        }
    }

    #[test]
    fn one_record_a_line_and_back() {
        let manifest = manifest();
        let text = manifest.to_json().unwrap();
        insta::assert_snapshot!(text);
        let back = Manifest::parse(text.as_bytes(), Path::new("x")).unwrap();
        assert_eq!(back, manifest);
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_the_place() {
        let good = manifest().to_json().unwrap();
        let refused = |text: String| {
            let error = Manifest::parse(text.as_bytes(), Path::new("a.json")).unwrap_err();
            match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            }
        };
        insta::assert_snapshot!(
            [
                refused(String::new()),
                refused("{}".into()),
                refused("{\"format\": 2, \"new\": true}".into()),
                refused(good.replace("\"clock\"", "\"time\"")),
                refused(good.replace("0755", "755")),
                refused(good.replace("0755", "0789")),
                refused(good.replace("abab", "ABAB")),
                refused(good.replace("symlink", "socket")),
            ]
            .join("\n")
        );
    }

    #[test]
    fn it_lies_beside_the_image() {
        for (image, manifest) in [
            ("build/larder.raw", "build/larder.manifest.json"),
            ("build/larder.raw.zst", "build/larder.manifest.json"),
            ("/tmp/x", "/tmp/x.manifest.json"),
        ] {
            assert_eq!(Manifest::path_beside(Path::new(image)), Path::new(manifest));
        }
    }
}
