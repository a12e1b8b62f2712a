//! The EFI system partition: boot loader, boot images and what the machine is told.

use std::cmp::Ordering;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use formats::fat::{Limits, Volume};
use formats::region::ReadAt;

use super::Uki;

/// Folder of the boot images (Boot Loader Specification, type 2).
pub(super) const UKIS: &str = "/EFI/Linux/";

/// All that is on an ESP.
#[derive(Clone, Debug)]
pub struct Esp {
    /// Volume label.
    pub label: String,
    /// Volume id.
    pub volume_id: u32,
    /// Bytes of all clusters that nothing uses.
    pub free: u64,
    /// Paths of the folders, sorted.
    pub folders: Vec<String>,
    /// The files, sorted by path.
    pub files: Vec<EspFile>,
}

/// A file on the ESP.
#[derive(Clone, Debug)]
pub struct EspFile {
    /// Absolute path.
    pub path: String,
    /// Content.
    pub content: Bytes,
}

impl Esp {
    /// Reads a volume with all its files.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn read<D: ReadAt + ?Sized>(device: &D) -> Result<Self> {
        let volume = Volume::open(device, Limits::default())?;
        let list = volume.list()?;
        // Files that share clusters would be read again and again.
        let total: u64 = list.iter().map(|entry| u64::from(entry.size)).sum();
        let size = device.size()?;
        ensure!(
            total <= size,
            "its files claim {total} bytes together, the volume has {size}"
        );
        let mut out = Self {
            label: volume.label().to_string(),
            volume_id: volume.volume_id(),
            free: volume.free_clusters() * volume.cluster_size(),
            folders: Vec::new(),
            files: Vec::new(),
        };
        for entry in list {
            if entry.folder {
                out.folders.push(entry.path);
                continue;
            }
            let content = volume.content(&entry)?.into();
            out.files.push(EspFile {
                path: entry.path,
                content,
            });
        }
        out.folders.sort();
        out.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(out)
    }

    /// The content of the file at `path`; case does not count on FAT.
    pub fn file(&self, path: &str) -> Option<&Bytes> {
        let found = self
            .files
            .iter()
            .find(|file| file.path.eq_ignore_ascii_case(path));
        found.map(|file| &file.content)
    }

    /// The files that are boot images, the one that systemd-boot starts first.
    pub fn uki_files(&self) -> Vec<&EspFile> {
        let mut found: Vec<_> = self
            .files
            .iter()
            .filter(|file| {
                file.path.starts_with(UKIS)
                    && file.path.ends_with(".efi")
                    && !file.path[UKIS.len()..].contains('/')
            })
            .collect();
        found.sort_by(|a, b| boot_order(&a.path, &b.path));
        found
    }

    /// The boot images, in the same order.
    ///
    /// # Errors
    /// One that is none.
    pub fn ukis(&self) -> Result<Vec<Uki>> {
        let files = self.uki_files();
        let read = |file: &&EspFile| {
            Uki::parse(&file.path, &file.content).with_context(|| file.path.clone())
        };
        files.iter().map(read).collect()
    }
}

/// Tries that the boot loader has left for a boot image (Automatic Boot Assessment: `+LEFT` or
/// `+LEFT-DONE` before `.efi`); `None` if they are not counted, as after a good boot.
pub fn tries_left(path: &str) -> Option<u32> {
    let (_, tries) = path.strip_suffix(".efi")?.rsplit_once('+')?;
    let left = tries.split_once('-').map_or(tries, |(left, _)| left);
    left.parse().ok()
}

/// Which of two boot images systemd-boot starts first: one with tries left before one without,
/// then the higher version.
fn boot_order(a: &str, b: &str) -> Ordering {
    let key = |path: &str| {
        let name = path
            .trim_start_matches(UKIS)
            .trim_end_matches(".efi")
            .to_string();
        let name = name.split_once('+').map_or(&*name, |(name, _)| name);
        (tries_left(path) == Some(0), natural(name))
    };
    let (a, b) = (key(a), key(b));
    a.0.cmp(&b.0).then_with(|| b.1.cmp(&a.1))
}

/// A key by which 1.10 comes after 1.9: pieces of text, and of digits as numbers.
fn natural(version: &str) -> Vec<(String, u64)> {
    let mut key = Vec::new();
    let mut rest = version;
    while !rest.is_empty() {
        let text = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let digits = &rest[text..];
        let end = digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits.len());
        // More digits than a number holds: all such versions are as high as each other.
        let number = digits[..end].parse().unwrap_or(u64::MAX);
        key.push((rest[..text].to_owned(), number));
        rest = &digits[end..];
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_images_come_in_the_order_of_the_boot_loader() {
        let mut names = [
            "/EFI/Linux/larder_1.9.efi",
            "/EFI/Linux/larder_2.0+0-3.efi",
            "/EFI/Linux/larder_1.10+2-1.efi",
            "/EFI/Linux/larder_1.2+3.efi",
        ];
        names.sort_by(|a, b| boot_order(a, b));
        assert_eq!(
            names,
            [
                "/EFI/Linux/larder_1.10+2-1.efi",
                "/EFI/Linux/larder_1.9.efi",
                "/EFI/Linux/larder_1.2+3.efi",
                "/EFI/Linux/larder_2.0+0-3.efi",
            ]
        );
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(natural("larder_1.10") > natural("larder_1.9"));
        assert!(natural("larder_2025.1") < natural("larder_2025.1.1"));
        assert!(natural("larder_99999999999999999999999") > natural("larder_1"));
    }

    #[test]
    fn tries_are_read_off_the_name() {
        assert_eq!(tries_left("/EFI/Linux/larder_1+3.efi"), Some(3));
        assert_eq!(tries_left("/EFI/Linux/larder_1+0-3.efi"), Some(0));
        assert_eq!(tries_left("/EFI/Linux/larder_1.efi"), None);
        assert_eq!(tries_left("/EFI/Linux/larder_1+x.efi"), None);
    }
}
