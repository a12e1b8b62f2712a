//! An image against its manifest.

use std::collections::BTreeMap;

use formats::gpt::{Role, derived_guid};
use formats::tree::{Kind, Tree};
use packages::Digest;
use sha2::Digest as _;

use super::boot::Boots;
use super::{Checks, first_nonzero};
use crate::image::{Device, Image, Slot, by_path, installed_packages};
use crate::manifest::{File, Manifest, Part};
use crate::size;

const PART: &str = "manifest";

/// Compares everything that the manifest knows. `root` is the slot that holds its root hash, and
/// its files if they could be read.
pub(super) fn check<D: Device>(
    image: &Image<D>,
    manifest: &Manifest,
    boots: &Boots,
    root: Option<(Slot, Option<Tree>)>,
    checks: &mut Checks,
) {
    let Some((slot, files)) = root else {
        checks.fail(
            PART,
            format!(
                "it describes {} {}, root hash {}, which no partition is named after",
                manifest.id, manifest.version, manifest.root_hash
            ),
        );
        return;
    };
    let holds = slot.holds.clone().unwrap_or_default();
    if (&holds.0, &holds.1) != (&manifest.id, &manifest.version) {
        checks.fail(
            PART,
            format!(
                "it is that of {} {}, {} is labelled {}_{}",
                manifest.id,
                manifest.version,
                slot.role.name(),
                holds.0,
                holds.1
            ),
        );
    }
    boot_image(manifest, boots, checks);
    esp(manifest, boots, checks);
    if let Some(files) = files {
        root_files(manifest, &files, checks);
    }
    // The image file as it was built; a machine's own disk has another GUID.
    let built = image.table().header.disk_guid == derived_guid(&manifest.id, "disk");
    if built && image.size() == manifest.size {
        all_parts(image, manifest, checks);
    } else {
        checks.note(
            PART,
            "the disk has a GUID or size of its own: of its parts, root and hash tree are compared",
        );
        slot_parts(image, manifest, &slot, checks);
    }
}

/// Kernel, command line and PCR 11 of the boot image that boots the root.
fn boot_image(manifest: &Manifest, boots: &Boots, checks: &mut Checks) {
    let hash = manifest.root_hash.0;
    let boots_it = |uki: &&crate::image::Uki| uki.root_hash().is_ok_and(|found| found.0 == hash);
    let Some(uki) = boots.ukis.iter().find(boots_it) else {
        // Said where the ESP was checked.
        return;
    };
    let differences = [
        ("kernel", &manifest.kernel, &uki.uname),
        ("command line", &manifest.cmdline, &uki.cmdline),
        (
            "PCR 11",
            &manifest.pcr11.to_string(),
            &uki.pcr11.to_string(),
        ),
    ]
    .into_iter()
    .filter(|(_, expected, found)| expected != found)
    .map(|(what, expected, found)| format!("{}: {what} is {found:?}, not {expected:?}", uki.path))
    .collect::<Vec<_>>();
    match differences.is_empty() {
        true => checks.ok(PART, "kernel, command line and PCR 11 of the boot image"),
        false => differences
            .into_iter()
            .for_each(|text| checks.fail(Role::Esp.name(), text)),
    }
}

/// The files of the ESP. A machine adds its name and credentials; a good boot takes the count of
/// tries out of a boot image's name.
fn esp(manifest: &Manifest, boots: &Boots, checks: &mut Checks) {
    let Some(esp) = &boots.esp else {
        return;
    };
    let found: BTreeMap<&str, &bytes::Bytes> = esp
        .files
        .iter()
        .map(|file| (without_tries(&file.path), &file.content))
        .collect();
    let before = checks.failures();
    for file in &manifest.esp {
        match found.get(without_tries(&file.path)) {
            None => checks.fail(Role::Esp.name(), format!("{} is missing", file.path)),
            Some(content) => {
                if Digest::of(content) != file.sha256 {
                    checks.fail(
                        Role::Esp.name(),
                        format!("{}: its content is not that of the manifest", file.path),
                    );
                }
            }
        }
    }
    if checks.failures() == before {
        checks.ok(PART, format!("{} files of the ESP", manifest.esp.len()));
    }
}

/// `/EFI/Linux/larder_1.2+3.efi` → `/EFI/Linux/larder_1.2`; other paths as they are.
fn without_tries(path: &str) -> &str {
    match path.strip_suffix(".efi") {
        Some(name) if path.starts_with("/EFI/Linux/") => {
            name.rsplit_once('+').map_or(name, |(name, _)| name)
        }
        _ => path,
    }
}

/// That the manifest tells the truth about the root.
fn root_files(manifest: &Manifest, tree: &Tree, checks: &mut Checks) {
    let before = checks.failures();
    let found = by_path(File::all_of(tree));
    let expected = by_path(manifest.files.clone());
    let mut wrong = Vec::new();
    for (path, file) in &expected {
        let own = File {
            origin: String::new(),
            ..file.clone()
        };
        match found.get(path) {
            None => wrong.push(format!("{path} is not in the image")),
            Some(found) if *found != own => {
                wrong.push(format!("{path} is not what the manifest says"));
            }
            Some(_) => {}
        }
    }
    let unknown = found.keys().filter(|path| !expected.contains_key(*path));
    wrong.extend(unknown.map(|path| format!("{path} is not in the manifest")));
    for text in wrong.iter().take(5) {
        checks.fail("root files", text.clone());
    }
    if wrong.len() > 5 {
        checks.fail("root files", format!("and {} more", wrong.len() - 5));
    }
    for binary in &manifest.binaries {
        let Some(node) = tree.get(&binary.path) else {
            // One of the initramfs.
            continue;
        };
        let Kind::File(content) = &node.kind else {
            continue;
        };
        if Digest::of(content) != binary.sha256 {
            checks.fail(
                "root files",
                format!("{} is another program than the manifest says", binary.path),
            );
        }
    }
    let installed = installed_packages(tree);
    for package in &installed {
        let known = manifest
            .packages
            .iter()
            .any(|known| known.name == package.name && known.version == package.version);
        if !known {
            checks.fail(
                "root files",
                format!(
                    "package {} {} is not in the manifest",
                    package.name, package.version
                ),
            );
        }
    }
    if checks.failures() == before {
        checks.ok(PART, format!("{} files of the root", manifest.files.len()));
    }
}

/// Every part by its hash, and zeros wherever no part has content.
fn all_parts<D: Device>(image: &Image<D>, manifest: &Manifest, checks: &mut Checks) {
    let before = checks.failures();
    let mut end = 0;
    let mut parts: Vec<&Part> = manifest.parts.iter().collect();
    parts.sort_by_key(|part| part.offset);
    for part in parts {
        part_at(image, part, part.offset, checks);
        if part.offset > end {
            zero(image, "gap", end, part.offset, checks);
        }
        let stop = part.offset.saturating_add(part.size).min(image.size());
        let content = part.offset.saturating_add(part.content);
        zero(image, &part.name, content.min(stop), stop, checks);
        end = end.max(stop);
    }
    zero(image, "gap", end, image.size(), checks);
    if checks.failures() == before {
        let bytes: u64 = manifest.parts.iter().map(|part| part.content).sum();
        checks.ok(
            PART,
            format!(
                "{} parts, {} hashed, all else is zero",
                manifest.parts.len(),
                size::show(bytes)
            ),
        );
    }
}

/// Root and hash tree, wherever they are now.
fn slot_parts<D: Device>(image: &Image<D>, manifest: &Manifest, slot: &Slot, checks: &mut Checks) {
    let before = checks.failures();
    for (name, role) in [
        (Role::RootA.name(), slot.role),
        (Role::RootAVerity.name(), slot.tree()),
    ] {
        if let (Some(part), Some(entry)) = (manifest.part(name), image.part(role)) {
            part_at(image, part, entry.start, checks);
        }
    }
    if checks.failures() == before {
        checks.ok(PART, "root and hash tree");
    }
}

fn part_at<D: Device>(image: &Image<D>, part: &Part, start: u64, checks: &mut Checks) {
    let inside = start
        .checked_add(part.content)
        .is_some_and(|end| end <= image.size());
    if !inside || part.content > part.size {
        checks.fail(
            &part.name,
            format!("the manifest puts it beyond the end of the image, byte {start}"),
        );
        return;
    }
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = start;
    let end = start + part.content;
    while at < end {
        let len = (end - at).min(buffer.len() as u64) as usize;
        if let Err(error) = image.device().read_exact_at(&mut buffer[..len], at) {
            checks.fail(&part.name, format!("reading at byte {at} failed: {error}"));
            return;
        }
        hash.update(&buffer[..len]);
        at += len as u64;
    }
    let found = Digest(hash.finalize().into());
    if found != part.sha256 {
        checks.fail(
            &part.name,
            format!(
                "bytes {start} to {end} of the disk have the hash {}…, not {}…",
                &found.to_string()[..12],
                &part.sha256.to_string()[..12]
            ),
        );
    }
}

fn zero<D: Device>(image: &Image<D>, name: &str, start: u64, end: u64, checks: &mut Checks) {
    match first_nonzero(image, start, end) {
        Ok(None) => {}
        Ok(Some(at)) => checks.fail(
            name,
            format!("byte {at} of the disk is not zero; nothing should be there"),
        ),
        Err(error) => checks.fail(name, error),
    }
}
