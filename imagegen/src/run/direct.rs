//! `--direct`: the kernel of an image without its firmware and boot loader.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use formats::pe::Pe;
use formats::region::{ReadAt, Region};
use formats::{fat, gpt};
use vm::Kernel;

/// Takes kernel, initramfs and command line out of the image's UKI and puts them into `folder`.
pub(crate) fn kernel(image: &Path, folder: &Path) -> Result<Kernel> {
    let disk = File::open(image).with_context(|| format!("cannot read {}", image.display()))?;
    let parts = read_uki(&disk).with_context(|| image.display().to_string())?;
    let write = |name, content: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, content)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok::<_, anyhow::Error>(path)
    };
    Ok(Kernel {
        image: write("vmlinuz", &parts.linux)?,
        initrd: Some(write("initrd", &parts.initrd)?),
        cmdline: parts.cmdline,
    })
}

/// What a UKI starts.
struct Parts {
    linux: Vec<u8>,
    initrd: Vec<u8>,
    cmdline: String,
}

/// Reads the newest UKI of a disk.
fn read_uki<D: ReadAt + ?Sized>(disk: &D) -> Result<Parts> {
    let table = gpt::read(disk, None)?;
    let esp = table
        .by_label("ESP")
        .context("the disk has no partition labelled ESP")?;
    let esp = Region::new(disk, esp.start, esp.size);
    let volume = fat::Volume::open(&esp, fat::Limits::default()).context("the ESP")?;
    let names = volume.list().context("the ESP")?;
    let entry = newest(&names).context("the ESP has no UKI in EFI/Linux that may boot")?;
    let file = volume.content(entry).with_context(|| entry.path.clone())?;
    let uki = Pe::parse(&file, "the UKI").with_context(|| entry.path.clone())?;
    let section = |name| {
        let section = uki
            .section(name)
            .with_context(|| format!("{}: no {name}", entry.path))?;
        Ok::<_, anyhow::Error>(section.content().to_vec())
    };
    let Ok(cmdline) = String::from_utf8(section(".cmdline")?) else {
        bail!("{}: the command line is no text", entry.path)
    };
    // Sections may be padded.
    let cmdline = cmdline.trim_end_matches('\0').trim().to_owned();
    Ok(Parts {
        linux: section(".linux")?,
        initrd: section(".initrd")?,
        cmdline,
    })
}

/// The UKI that sd-boot would choose: of those with tries left, the one of the highest version.
fn newest(entries: &[fat::Entry]) -> Option<&fat::Entry> {
    entries
        .iter()
        .filter(|entry| !entry.folder)
        .filter_map(|entry| {
            let name = entry
                .path
                .strip_prefix("/EFI/Linux/")?
                .strip_suffix(".efi")?;
            // `larder_1.2+0-3`: version, tries left, tries done.
            let (version, tries) = name.split_once('+').unwrap_or((name, "1"));
            let gone = tries == "0" || tries.starts_with("0-");
            Some((!gone, natural(version), entry))
        })
        .max_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)))
        .map(|(_, _, entry)| entry)
}

/// A key by which 1.10 comes after 1.9: pieces of text, and of digits as numbers.
fn natural(version: &str) -> Vec<(u64, String)> {
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
        key.push((0, rest[..text].to_owned()));
        key.push((digits[..end].parse().unwrap_or(u64::MAX), String::new()));
        rest = &digits[end..];
    }
    key
}

#[cfg(test)]
mod tests {
    use formats::gpt::{Disks, Layout, Request, Role, SectorSize};
    use formats::tree::{Kind, Node, Tree};

    use super::*;
    use crate::testing::pe;

    fn tree(files: &[(&str, Vec<u8>)]) -> Tree {
        let mut tree = Tree::new();
        for folder in ["/EFI", "/EFI/Linux"] {
            tree.insert(folder, Node::new(Kind::Dir, 0o755, "test"))
                .unwrap();
        }
        for (path, content) in files {
            let kind = Kind::File(content.clone().into());
            tree.insert(*path, Node::new(kind, 0o644, "test")).unwrap();
        }
        tree
    }

    /// A disk with these files on its ESP.
    fn disk(folder: &Path, files: &[(&str, Vec<u8>)]) -> std::path::PathBuf {
        let path = folder.join("larder.raw");
        let file = File::create_new(&path).unwrap();
        let request = Request {
            disk_size: 2 << 30,
            sector: SectorSize::S512,
            disks: Disks::One,
            state_size: 64 << 20,
            cas_min: 64 << 20,
            seed: "test".into(),
            version: "1".into(),
            root_hash: formats::verity::RootHash([0; 32]),
        };
        let layout = Layout::new(&request).unwrap();
        file.set_len(layout.disk_size).unwrap();
        layout.write(&file).unwrap();
        let esp = layout.get(Role::Esp).unwrap();
        let options = fat::Options {
            size: esp.size,
            sector: SectorSize::S512,
            label: "ESP".into(),
            volume_id: 1,
            clock: 0,
        };
        let region = Region::new(&file, esp.start, esp.size);
        fat::write(&tree(files), &options, &region).unwrap();
        path
    }

    #[test]
    fn the_newest_uki_is_taken_apart() {
        let folder = tempfile::tempdir().unwrap();
        let sections: [(&str, &[u8]); 3] = [
            (".cmdline", b"quiet roothash=00\0"),
            (".initrd", b"cpio"),
            (".linux", b"bzImage"),
        ];
        let image = disk(
            folder.path(),
            &[
                ("/EFI/Linux/larder_1.9+3.efi", b"old".to_vec()),
                ("/EFI/Linux/larder_1.10+2-1.efi", pe(&sections)),
                ("/EFI/Linux/larder_2+0-3.efi", b"bad".to_vec()),
            ],
        );
        let kernel = kernel(&image, folder.path()).unwrap();
        assert_eq!(kernel.cmdline, "quiet roothash=00");
        assert_eq!(std::fs::read(kernel.image).unwrap(), b"bzImage");
        assert_eq!(std::fs::read(kernel.initrd.unwrap()).unwrap(), b"cpio");
    }

    #[test]
    fn what_is_missing_is_named() {
        let words = |files: &[(&str, Vec<u8>)]| {
            let folder = tempfile::tempdir().unwrap();
            let image = disk(folder.path(), files);
            format!("{:#}", kernel(&image, folder.path()).unwrap_err())
        };
        assert!(words(&[]).contains("no UKI"));
        let rubbish = words(&[("/EFI/Linux/larder_1.efi", b"rubbish".to_vec())]);
        assert!(
            rubbish.contains("larder_1.efi") && rubbish.contains("MZ"),
            "{rubbish}"
        );
        let empty = words(&[("/EFI/Linux/larder_1.efi", pe(&[(".linux", b"x")]))]);
        assert!(empty.contains("no .cmdline"), "{empty}");
        let folder = tempfile::tempdir().unwrap();
        let blank = folder.path().join("blank.raw");
        std::fs::write(&blank, vec![0; 1 << 20]).unwrap();
        let blank = format!("{:#}", kernel(&blank, folder.path()).unwrap_err());
        assert!(
            blank.contains("blank.raw") && blank.contains("no partition table"),
            "{blank}"
        );
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(natural("larder_1.10") > natural("larder_1.9"));
        assert!(natural("larder_2025.1") < natural("larder_2025.1.1"));
        assert!(natural("larder_99999999999999999999999") > natural("larder_1"));
    }
}
