//! The files that a build leaves, whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use formats::gpt::Role;
use formats::region::ReadAt;
use packages::Digest;
use rustix::fs::{FlockOperation, flock};
use sha2::Digest as _;

use super::image::{Disk, Image};
use super::sources::Sources;
use super::steps::Steps;
use super::{compress, sbom};
use crate::manifest::{self, Binary, EspFile, Manifest, Output, Part};

/// Level of Zstandard: of those that keep the build under its time the one with the best ratio.
const LEVEL: i32 = 4;

const RAW: &str = "larder.raw";
const CAS: &str = "larder-cas.raw";
const ZST: &str = "larder.raw.zst";
const SBOM: &str = "larder.sbom.json";
const MANIFEST: &str = "larder.manifest.json";
/// All of them.
const NAMES: [&str; 5] = [RAW, CAS, ZST, SBOM, MANIFEST];

/// The output folder, locked against a second build.
pub(super) struct Outputs {
    dir: PathBuf,
    /// Held for its lock.
    _lock: File,
}

impl Outputs {
    /// Makes the folder, locks it, clears what an interrupted build left.
    ///
    /// # Errors
    /// A final name that is taken by a folder or a device, another build at work, no permission.
    pub(super) fn prepare(dir: &Path) -> Result<Self> {
        let at = || format!("--out {}", dir.display());
        fs::create_dir_all(dir).with_context(at)?;
        let lock = File::open(dir).with_context(at)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("{}: another build is at work in it", dir.display()))?;
        let outputs = Self {
            dir: dir.to_path_buf(),
            _lock: lock,
        };
        for name in NAMES {
            let path = dir.join(name);
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => {
                    bail!(
                        "{} is a folder; the build writes a file of that name",
                        path.display()
                    )
                }
                Ok(meta) if meta.file_type().is_block_device() => bail!(
                    "{} is a block device; build into a folder, then use `imagegen flash`",
                    path.display()
                ),
                _ => {}
            }
            remove(&outputs.temporary(name))?;
        }
        Ok(outputs)
    }

    fn temporary(&self, name: &str) -> PathBuf {
        self.dir.join(format!(".{name}.part"))
    }

    /// The disk image: a hole of `size` bytes.
    pub(super) fn raw(&self, size: u64) -> Result<File> {
        self.sparse(RAW, size)
    }

    /// The second disk: a hole of `size` bytes.
    pub(super) fn cas(&self, size: u64) -> Result<File> {
        self.sparse(CAS, size)
    }

    fn sparse(&self, name: &str, size: u64) -> Result<File> {
        let path = self.temporary(name);
        let at = || path.display().to_string();
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(at)?;
        file.set_len(size).with_context(at)?;
        Ok(file)
    }

    /// Writes what lies beside the image and gives everything its name.
    pub(super) fn finish(
        &self,
        sources: &Sources,
        image: Image,
        compressed: bool,
        steps: &Steps,
    ) -> Result<()> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let zst = self.temporary(ZST);
        let manifest = std::thread::scope(|scope| -> Result<_> {
            let describe = scope.spawn(|| manifest(sources, &image));
            let mut outputs = Vec::new();
            if compressed {
                let at = || zst.display().to_string();
                let mut out = Hashing::new(File::create(&zst).with_context(at)?);
                let Disk { file, layout, data } = &image.disk;
                let size =
                    compress::compress(file, layout.disk_size, data, LEVEL, threads, &mut out)
                        .with_context(at)?;
                let sha256 = Digest(out.hash.finalize().into());
                outputs.push(Output {
                    name: ZST.into(),
                    size,
                    sha256,
                });
            }
            let described = describe
                .join()
                .map_err(|_| anyhow::anyhow!("hashing panicked"))?;
            Ok(Manifest {
                outputs,
                ..described?
            })
        })?;
        self.write(MANIFEST, &manifest.to_json()?)?;
        self.write(SBOM, &sbom(sources, &manifest))?;
        for output in &manifest.outputs {
            steps.done(&format!("compressed to {} MiB", output.size >> 20));
        }

        let names = [
            (RAW, true),
            (CAS, image.cas.is_some()),
            (ZST, compressed),
            (SBOM, true),
            (MANIFEST, true),
        ];
        for (name, there) in names {
            let path = self.dir.join(name);
            if there {
                fs::rename(self.temporary(name), &path)
                    .with_context(|| path.display().to_string())?;
            } else {
                // One that is left from another build would not belong to this image.
                remove(&path)?;
            }
        }
        let path = self.dir.join(RAW);
        steps.done(&format!(
            "{} ({} {})",
            path.display(),
            manifest.id,
            manifest.version
        ));
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.temporary(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        for name in NAMES {
            // What is whole has another name by now.
            let _ = remove(&self.temporary(name));
        }
    }
}

/// Hashes what is written on its way.
struct Hashing {
    file: File,
    hash: sha2::Sha256,
}

impl Hashing {
    fn new(file: File) -> Self {
        Self {
            file,
            hash: sha2::Sha256::new(),
        }
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn manifest(sources: &Sources, image: &Image) -> Result<Manifest> {
    let mut esp: Vec<EspFile> = image
        .esp
        .iter()
        .map(|(path, content)| EspFile {
            path: path.clone(),
            size: content.len() as u64,
            sha256: Digest::of(content),
        })
        .collect();
    esp.sort_by(|a, b| a.path.cmp(&b.path));
    let mut packages: Vec<_> = sources
        .packages
        .iter()
        .map(|p| manifest::Package {
            name: p.name.clone(),
            version: p.version.clone(),
            arch: p.arch.clone(),
            sha256: p.sha256,
            suite: p.suite.clone(),
        })
        .collect();
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(Manifest {
        format: manifest::FORMAT,
        id: sources.id.clone(),
        version: sources.version.clone(),
        clock: sources.clock,
        architecture: sources.lock.architecture.clone(),
        kernel: sources.uname.clone(),
        cmdline: image.cmdline.clone(),
        host: image.host.clone(),
        size: image.disk.layout.disk_size,
        root_hash: Digest(image.root_hash.0),
        pcr11: Digest(image.pcr11.0),
        compiler: sources.binaries.compiler.clone(),
        outputs: Vec::new(),
        parts: parts(image)?,
        esp,
        binaries: vec![
            Binary {
                path: "/usr/bin/appliance".into(),
                sha256: Digest::of(&sources.binaries.appliance),
            },
            Binary {
                path: "initramfs:/init".into(),
                sha256: Digest::of(&sources.binaries.stage1),
            },
        ],
        packages,
        files: manifest::File::all_of(&sources.root),
    })
}

/// Tables and partitions with the hashes of what is in them; what follows the last data is zero.
fn parts(image: &Image) -> Result<Vec<Part>> {
    let Disk { file, layout, data } = &image.disk;
    let part = |name: &str, offset: u64, size: u64, content: u64| -> Result<Part> {
        let sha256 = hash(file, offset, content)?;
        Ok(Part {
            name: name.into(),
            offset,
            size,
            content,
            sha256,
        })
    };
    let mut parts = Vec::new();
    let tables = layout.encode()?;
    let [(start, head), (tail_start, tail)] = &tables;
    parts.push(part(
        manifest::GPT,
        *start,
        head.len() as u64,
        head.len() as u64,
    )?);
    for place in &layout.partitions {
        let content = match place.role {
            Role::RootA => image.root_bytes,
            Role::RootAVerity => image.tree_bytes,
            _ => {
                let last = data
                    .iter()
                    .filter(|r| r.start < place.end() && r.end > place.start)
                    .last();
                last.map_or(0, |range| range.end.min(place.end()) - place.start)
            }
        };
        parts.push(part(place.role.name(), place.start, place.size, content)?);
    }
    parts.push(part(
        manifest::GPT_BACKUP,
        *tail_start,
        tail.len() as u64,
        tail.len() as u64,
    )?);
    Ok(parts)
}

fn hash(file: &File, offset: u64, len: u64) -> Result<Digest> {
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let now = (len - at).min(buffer.len() as u64);
        let piece = &mut buffer[..now as usize];
        ReadAt::read_exact_at(file, piece, offset + at).context("reading the image")?;
        hash.update(&piece);
        at += now;
    }
    Ok(Digest(hash.finalize().into()))
}

fn sbom(sources: &Sources, manifest: &Manifest) -> String {
    let mut items = Vec::new();
    for package in &manifest.packages {
        items.push(sbom::Item {
            name: package.name.clone(),
            version: package.version.clone(),
            purl: format!("pkg:deb/debian/{}", package.name),
            qualifiers: format!("?arch={}&distro=debian-13", package.arch),
            sha256: Some(package.sha256.to_string()),
            supplier: "Organization: Debian",
            license: None,
        });
    }
    for (name, binary) in ["appliance", "stage1"].iter().zip(&manifest.binaries) {
        items.push(sbom::Item {
            name: (*name).into(),
            version: manifest.version.clone(),
            purl: format!("pkg:generic/larder-{name}"),
            qualifiers: String::new(),
            sha256: Some(binary.sha256.to_string()),
            supplier: "Organization: Larder",
            license: Some(env!("CARGO_PKG_LICENSE").into()),
        });
    }
    for part in &sources.binaries.crates {
        items.push(sbom::Item {
            name: part.name.clone(),
            version: part.version.clone(),
            purl: format!("pkg:cargo/{}", part.name),
            qualifiers: String::new(),
            sha256: None,
            supplier: "NOASSERTION",
            license: part.license.clone(),
        });
    }
    let image = sbom::Image {
        id: &manifest.id,
        version: &manifest.version,
        root_hash: &manifest.root_hash.to_string(),
        created: iso8601(sources.clock),
    };
    sbom::document(&image, &items)
}

/// `2026-11-23T02:09:33Z`.
fn iso8601(clock: i64) -> String {
    let shown = packages::date::show(u64::try_from(clock).unwrap_or(0));
    shown.replacen(' ', "T", 1).replace(" UTC", "Z")
}
