//! `--direct`: the kernel of an image without its firmware and boot loader.

use std::path::Path;

use anyhow::{Context, Result, bail};
use formats::pe::Pe;
use vm::Kernel;

use crate::image::{Image, tries_left};

/// Takes kernel, initramfs and command line out of the image's UKI and puts them into `folder`.
pub(crate) fn kernel(image: &Path, folder: &Path) -> Result<Kernel> {
    let parts = read_uki(&Image::open(image)?).with_context(|| image.display().to_string())?;
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

/// Reads the UKI that the boot loader would start.
fn read_uki(image: &Image) -> Result<Parts> {
    let esp = image.esp()?;
    let files = esp.uki_files();
    let file = files
        .first()
        .filter(|file| tries_left(&file.path) != Some(0))
        .context("the ESP has no UKI in EFI/Linux that may boot")?;
    let uki = Pe::parse(&file.content, "the UKI").with_context(|| file.path.clone())?;
    let section = |name| {
        let section = uki
            .section(name)
            .with_context(|| format!("{}: no {name}", file.path))?;
        Ok::<_, anyhow::Error>(section.content().to_vec())
    };
    let Ok(cmdline) = String::from_utf8(section(".cmdline")?) else {
        bail!("{}: the command line is no text", file.path)
    };
    // Sections may be padded.
    let cmdline = cmdline.trim_end_matches('\0').trim().to_owned();
    Ok(Parts {
        linux: section(".linux")?,
        initrd: section(".initrd")?,
        cmdline,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use formats::fat;
    use formats::gpt::{Disks, Layout, Request, Role, SectorSize};
    use formats::region::Region;
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
}
