//! The disk image: what is written where.

use std::fs::File;

use anyhow::{Context, Result};
use bytes::Bytes;
use formats::gpt::{self, Disks, Layout, Role, SectorSize, derived_guid};
use formats::pcr::Value;
use formats::pe::Uki;
use formats::region::{Extents, Region, WriteAt};
use formats::verity::{self, RootHash};
use formats::{ext4, fat};

use super::esp;
use super::outputs::Outputs;
use super::pcr_policy::PolicyKey;
use super::sources::Sources;
use super::steps::Steps;
use crate::layout;

/// The one salt of all hash trees: equal blocks of two versions have equal hashes, so an update can
/// compare trees instead of data. 64 bytes, a block of SHA-256.
const SALT: &[u8; 64] = b"larder: one salt for all hash trees, so that versions compare..\n";

/// Label of the sealed file system.
const ROOT_LABEL: &str = "larder-root";

/// Bytes of an empty file system that waits for the first boot.
const PRISTINE: u64 = 16 << 20;

/// What an image is made of.
pub(super) struct Parts<'a> {
    pub(super) config: &'a config::Config,
    pub(super) sources: &'a Sources,
    /// Name of the one machine that it is for, and whether that has a second disk.
    pub(super) host: Option<(&'a str, bool)>,
    /// Size of the disk, if not the least.
    pub(super) disk_size: Option<u64>,
    pub(super) key: Option<&'a PolicyKey>,
}

/// A disk image that is written.
pub(super) struct Disk {
    pub(super) file: File,
    pub(super) layout: Layout,
    /// All that is not a hole.
    pub(super) data: Extents,
}

/// What was written.
pub(super) struct Image {
    pub(super) disk: Disk,
    /// The second disk of a two-disk host.
    pub(super) cas: Option<Disk>,
    pub(super) root_hash: RootHash,
    /// Bytes of the root file system and of its hash tree.
    pub(super) root_bytes: u64,
    pub(super) tree_bytes: u64,
    /// PCR 11 after the boot stub.
    pub(super) pcr11: Value,
    /// The command line.
    pub(super) cmdline: String,
    /// The one machine that it is for.
    pub(super) host: Option<String>,
    /// Files of the ESP: path, content.
    pub(super) esp: Vec<(String, Bytes)>,
}

/// Writes the image into the outputs' temporary files.
pub(super) fn write(parts: &Parts<'_>, outputs: &Outputs, steps: &Steps) -> Result<Image> {
    let config = &parts.config.image;
    let clock = parts.sources.clock;
    let seed = |name: &str| derived_guid(&config.id, name);
    let disks = match parts.host {
        Some((_, true)) => Disks::Two,
        _ => Disks::One,
    };
    // Offsets do not depend on the root hash, only the names of two partitions do.
    let layout = |root_hash| -> Result<Layout> {
        let (sector, id, version) = (SectorSize::S512, &config.id, &config.version);
        let request = |size| layout::request(size, sector, disks, id, version, root_hash);
        let size = match parts.disk_size {
            Some(size) => size - size % sector.bytes(),
            None => Layout::minimum_size(&request(0)),
        };
        Layout::new(&request(size)).context("the partitions")
    };
    let places = layout(RootHash([0; 32]))?;
    let file = outputs.raw(places.disk_size)?;
    let mut data = Extents::new();

    let place = partition(&places, Role::RootA)?;
    let region = Region::new(&file, place.start, place.size);
    let options = ext4::Options {
        uuid: seed("root-uuid"),
        hash_seed: seed("root-hash-seed"),
        label: ROOT_LABEL.into(),
        clock,
        max_bytes: place.size,
    };
    let root = ext4::write(&parts.sources.root, &options, &region)
        .with_context(|| format!("the root file system ({} MiB at most)", place.size >> 20))?;
    add(&mut data, &root.data, place.start);
    steps.done(&format!("root file system, {} MiB", root.bytes() >> 20));

    let parameters = verity::Parameters {
        salt: SALT.to_vec(),
        uuid: seed("root-verity-uuid"),
    };
    let tree = verity::build(&region, root.blocks, Some(&root.data), &parameters)?;
    let place = partition(&places, Role::RootAVerity)?;
    anyhow::ensure!(
        tree.bytes.len() as u64 <= place.size,
        "the hash tree does not fit"
    );
    put(&file, &mut data, &tree.bytes, place.start)?;
    steps.done(&format!("hash tree, root hash {}", tree.root_hash));

    let cmdline = cmdline(&config.kernel.cmdline, &tree.root_hash);
    let (uki, pcr11) = uki(parts, &cmdline)?;
    let files = esp::tree(esp::Contents {
        boot_loader: parts.sources.boot_loader.clone(),
        uki: uki.into(),
        uki_path: esp::uki_path(&config.id, &config.version),
        host: parts.host.map(|(name, _)| name),
    })?;
    let place = partition(&places, Role::Esp)?;
    let options = fat::Options {
        size: place.size,
        sector: SectorSize::S512,
        label: "ESP".into(),
        volume_id: u32::from_le_bytes(first4(seed("ESP-volume").as_bytes())),
        clock,
    };
    let written = fat::write(
        &files,
        &options,
        &Region::new(&file, place.start, place.size),
    )
    .context("the ESP")?;
    add(&mut data, &written.data, place.start);

    for role in [Role::State, Role::Cas] {
        if let Some(place) = places.get(role) {
            pristine(&file, &mut data, place, &config.id, clock)?;
        }
    }

    let disk = finish(file, layout(tree.root_hash)?, data)?;
    let cas = match disks {
        Disks::One => None,
        Disks::Two => Some(cas_disk(parts, outputs)?),
    };
    steps.done("boot image, partitions");
    Ok(Image {
        disk,
        cas,
        root_hash: tree.root_hash,
        root_bytes: root.bytes(),
        tree_bytes: tree.bytes.len() as u64,
        pcr11,
        cmdline,
        host: parts.host.map(|(name, _)| name.to_string()),
        esp: files
            .iter()
            .filter_map(|(path, node)| Some((path.to_string(), node.content()?.clone())))
            .collect(),
    })
}

/// The second disk: one pristine `/cas`.
fn cas_disk(parts: &Parts<'_>, outputs: &Outputs) -> Result<Disk> {
    let id = &parts.config.image.id;
    let size = layout::CAS_MIN + 2 * gpt::ALIGNMENT;
    let layout = Layout::cas_disk(size, SectorSize::S512, id, layout::CAS_MIN)?;
    let file = outputs.cas(layout.disk_size)?;
    let mut data = Extents::new();
    pristine(
        &file,
        &mut data,
        partition(&layout, Role::Cas)?,
        id,
        parts.sources.clock,
    )?;
    finish(file, layout, data)
}

/// The partition table, last.
fn finish(file: File, layout: Layout, mut data: Extents) -> Result<Disk> {
    for (offset, bytes) in layout.encode()? {
        put(&file, &mut data, &bytes, offset)?;
    }
    Ok(Disk { file, layout, data })
}

/// An empty file system that the first boot makes again at its real size.
fn pristine(
    file: &File,
    data: &mut Extents,
    place: &gpt::Partition,
    seed: &str,
    clock: i64,
) -> Result<()> {
    let name = place.role.name();
    let size = place.size.min(PRISTINE);
    let options = ext4::Options {
        uuid: derived_guid(seed, &format!("{name}-uuid")),
        hash_seed: derived_guid(seed, &format!("{name}-hash-seed")),
        label: ext4::PRISTINE_LABEL.into(),
        clock,
        max_bytes: size,
    };
    let region = Region::new(file, place.start, place.size);
    let written = ext4::write_pristine(size, &options, &region)
        .with_context(|| format!("the empty file system of {name}"))?;
    add(data, &written.data, place.start);
    Ok(())
}

/// The UKI, and PCR 11 after it was started.
fn uki(parts: &Parts<'_>, cmdline: &str) -> Result<(Vec<u8>, Value)> {
    let sources = parts.sources;
    let public = parts.key.map(PolicyKey::public_pem);
    let mut uki = Uki {
        stub: &sources.boot_stub,
        linux: &sources.linux,
        osrel: &sources.osrel,
        cmdline,
        initrd: &sources.initrd,
        uname: &sources.uname,
        sbat: None,
        pcrpkey: public.as_deref().map(str::as_bytes),
        pcrsig: None,
    };
    let pcr11 = Value::of_uki(&uki).context("the UKI")?;
    let signed = parts.key.map(|key| key.sign(pcr11)).transpose()?;
    uki.pcrsig = signed.as_deref().map(str::as_bytes);
    Ok((uki.assemble().context("the UKI")?, pcr11))
}

fn cmdline(words: &[String], root_hash: &RootHash) -> String {
    let mut words = words.to_vec();
    words.push(format!("roothash={root_hash}"));
    words.join(" ")
}

fn partition(layout: &Layout, role: Role) -> Result<&gpt::Partition> {
    layout
        .get(role)
        .with_context(|| format!("the layout has no partition {}", role.name()))
}

fn put(file: &File, data: &mut Extents, bytes: &[u8], offset: u64) -> Result<()> {
    WriteAt::write_all_at(file, bytes, offset)
        .with_context(|| format!("writing the image at byte {offset}"))?;
    data.add(offset..offset + bytes.len() as u64);
    Ok(())
}

fn add(data: &mut Extents, written: &Extents, start: u64) {
    for range in written.shifted(start).iter() {
        data.add(range);
    }
}

fn first4(bytes: &[u8; 16]) -> [u8; 4] {
    [bytes[0], bytes[1], bytes[2], bytes[3]]
}
