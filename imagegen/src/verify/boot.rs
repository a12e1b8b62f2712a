//! The ESP with its boot images, and the roots that they boot.

use formats::ext4;
use formats::gpt::Role;
use formats::pe::Pe;
use formats::tree::Tree;
use formats::verity;

use super::{Checks, filesystem, words};
use crate::image::{Device, Esp, Image, Slot, Uki, tries_left};
use crate::size;

/// Path of the boot loader that any firmware starts (UEFI 2.10, 3.5.1.1).
const BOOT_LOADER: &str = "/EFI/BOOT/BOOTX64.EFI";

/// What the ESP holds, as far as it could be read.
#[derive(Default)]
pub(super) struct Boots {
    pub(super) esp: Option<Esp>,
    pub(super) ukis: Vec<Uki>,
}

/// Checks the ESP and takes its boot images apart.
pub(super) fn esp<D: Device>(image: &Image<D>, checks: &mut Checks) -> Option<Boots> {
    let part = Role::Esp.name();
    let start = image.part(Role::Esp)?.start;
    let esp = match image
        .region(Role::Esp)
        .and_then(|region| Esp::read(&region))
    {
        Ok(esp) => esp,
        Err(error) => {
            checks.fail(part, format!("{error:#} (from byte {start} of the disk)"));
            return None;
        }
    };
    let bytes: u64 = esp.files.iter().map(|file| file.content.len() as u64).sum();
    checks.ok(
        part,
        format!(
            "FAT32, both allocation tables agree, {} in {} files",
            size::show(bytes),
            esp.files.len()
        ),
    );
    match esp.file(BOOT_LOADER) {
        None => checks.fail(part, format!("there is no boot loader {BOOT_LOADER}")),
        Some(content) => match Pe::parse(content, "the boot loader") {
            Ok(_) => checks.ok(part, format!("{BOOT_LOADER} is a program for UEFI")),
            Err(error) => checks.fail(part, format!("{BOOT_LOADER}: {error}")),
        },
    }
    let mut ukis = Vec::new();
    for file in esp.uki_files() {
        match Uki::parse(&file.path, &file.content) {
            Ok(uki) => {
                uki_boots(image, &uki, checks);
                ukis.push(uki);
            }
            Err(error) => checks.fail(part, format!("{}: {error:#}", file.path)),
        }
    }
    if ukis.is_empty() {
        checks.fail(part, "there is no boot image in /EFI/Linux");
    } else if ukis.iter().all(|uki| tries_left(&uki.path) == Some(0)) {
        checks.fail(part, "no boot image has a try left");
    }
    Some(Boots {
        esp: Some(esp),
        ukis,
    })
}

/// A boot image leads to a root that is there.
fn uki_boots<D: Device>(image: &Image<D>, uki: &Uki, checks: &mut Checks) {
    let (part, path) = (Role::Esp.name(), &uki.path);
    match uki.root_hash() {
        Err(error) => checks.fail(part, format!("{path}: {error:#}")),
        Ok(hash) => {
            let slots = image.slots();
            let slot = slots.iter().find(|slot| slot.root_hash == hash);
            match slot {
                Some(slot) => checks.ok(
                    part,
                    format!("{path} boots {} with {}", slot.role.name(), uki.uname),
                ),
                None => checks.fail(
                    part,
                    format!("{path} boots the root {hash}, which no partition is named after"),
                ),
            }
        }
    }
}

/// A slot: names, hash tree, file system. What its root holds, if all of it is sound.
pub(super) fn slot<D: Device>(
    image: &Image<D>,
    slot: &Slot,
    boots: &Boots,
    checks: &mut Checks,
) -> Option<Tree> {
    let part = slot.role.name();
    let (root, tree) = (image.part(slot.role)?, image.part(slot.tree())?);
    let Some((id, version)) = &slot.holds else {
        checks.ok(part, "empty");
        return None;
    };
    let expected = format!("{}_verity", root.label);
    if tree.label != expected {
        checks.fail(
            slot.tree().name(),
            format!("it is labelled {:?}, not {expected:?}", tree.label),
        );
    }
    let booted = boots
        .ukis
        .iter()
        .any(|uki| uki.root_hash().ok() == Some(slot.root_hash));
    match (booted, &boots.esp) {
        (true, _) => checks.ok(
            part,
            format!("{id} {version}: the PARTUUIDs are the halves of the root hash"),
        ),
        (false, Some(_)) => checks.fail(
            part,
            format!(
                "{id} {version}: no boot image asks for the root hash {} that its PARTUUIDs spell",
                slot.root_hash
            ),
        ),
        // The ESP has had its word.
        (false, None) => {}
    }
    let (data, hashes) = match (image.region(slot.role), image.region(slot.tree())) {
        (Ok(data), Ok(hashes)) => (data, hashes),
        (Err(error), _) | (_, Err(error)) => {
            checks.fail(part, format!("{error:#}"));
            return None;
        }
    };
    let sound = match verity::verify(&data, &hashes, &slot.root_hash) {
        Ok(verified) => {
            checks.ok(
                part,
                format!(
                    "dm-verity: {} of data match the hash tree and the root hash",
                    size::show(verified.data_blocks * verity::BLOCK_SIZE)
                ),
            );
            true
        }
        Err(error) => {
            let (part, start, offset) = match &error {
                verity::Error::DataBlock { offset, .. } => (part, root.start, *offset),
                verity::Error::Superblock { offset, .. }
                | verity::Error::HashBlock { offset, .. } => {
                    (slot.tree().name(), tree.start, *offset)
                }
                _ => (part, root.start, 0),
            };
            checks.fail(
                part,
                format!(
                    "dm-verity: {}; that is byte {} of the disk",
                    words(&error),
                    start.saturating_add(offset)
                ),
            );
            false
        }
    };
    let read = ext4::Reader::open(&data, ext4::Limits::default())
        .and_then(|reader| Ok((reader.info().sealed, reader.tree()?)));
    match read {
        Err(error) => {
            let text = format!(
                "ext4: {} (from byte {} of the disk)",
                words(&error),
                root.start
            );
            checks.fail(part, text);
            None
        }
        Ok((sealed, files)) => {
            if !sealed {
                checks.fail(part, "ext4: the file system is not sealed (read-only)");
            }
            let whole = filesystem::sealed(image, slot.role, checks);
            (sound && whole).then_some(files)
        }
    }
}
