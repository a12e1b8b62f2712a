//! The power goes at every flush, and at sampled writes between: the disk boots what was there,
//! or nothing, or the new system, whole.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use disk::Device;
use formats::fat;
use formats::gpt::{self, Disks, Layout, Role, SectorSize};
use formats::region::{ReadAt, Region, WriteAt};
use formats::tree::Tree;
use formats::verity;
use qemu_tests::recorder::{Cut, Log, Record, Replay};

use super::super::image::{Image, check_boot, esp_tree};
use super::super::machine_esp;
use super::super::meter::Meter;
use super::super::target::{Medium, Target};
use super::super::write::{self, Job};
use super::compose::{Bench, image};
use crate::image::Esp;
use crate::layout;

const SIZE: u64 = 3 << 30;

/// A medium that writes down what it is asked for.
struct Recorded {
    medium: Medium,
    log: RefCell<Log>,
    /// Flushes are forgotten, as by a disk that lies.
    deaf: bool,
}

impl ReadAt for Recorded {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.medium.read_exact_at(buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.medium.size()
    }
}

impl WriteAt for Recorded {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.medium.write_all_at(buf, offset)?;
        self.log.borrow_mut().write(offset, buf, false)
    }
}

impl Target for Recorded {
    fn clear(&self, range: Range<u64>) -> io::Result<()> {
        self.medium.clear(range.clone())?;
        let length = range.end - range.start;
        self.log.borrow_mut().zero(range.start, length, false);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        if !self.deaf {
            self.log.borrow_mut().flush();
        }
        Ok(())
    }

    fn forget(&self) -> io::Result<()> {
        Ok(())
    }

    fn reread(&self) {}
}

/// A system that a disk may boot.
struct System {
    image: Image,
    esp: Tree,
    layout: Layout,
}

impl System {
    fn new(bench: &Bench, file: &str, host: &str, sector: SectorSize) -> Self {
        let image = Image::open(&bench.path(file), &Meter::silent()).unwrap();
        let esp = machine_esp(&image, host).unwrap();
        let (version, hash) = (&image.version, image.root_hash);
        let request = layout::request(SIZE, sector, Disks::One, host, version, hash);
        Self {
            layout: Layout::new(&request).unwrap(),
            image,
            esp,
        }
    }

    fn job(&self) -> Job<'_> {
        Job {
            image: &self.image,
            layout: &self.layout,
            esp: &self.esp,
            volume_id: 5,
            clock: 1_800_000_000,
        }
    }

    /// Whether all that it needs is on the disk; what is missing first.
    fn is_whole(&self, disk: &File, table: &gpt::Table, esp: &Esp) -> Result<(), String> {
        let tree = esp_tree(esp).unwrap();
        let same = tree.len() == self.esp.len()
            && tree
                .iter()
                .zip(self.esp.iter())
                .all(|(a, b)| (a.0, &a.1.kind) == (b.0, &b.1.kind));
        if !same {
            return Err("the ESP is not its".into());
        }
        check_boot(esp, &self.image.root_hash).map_err(|error| format!("{error:#}"))?;
        let part = |guid, what: &str| {
            let entry = table.by_guid(guid).ok_or(format!("no {what}"))?;
            Ok::<_, String>(Region::new(disk, entry.start, entry.size))
        };
        let hash = self.image.root_hash;
        let root = part(hash.data_partuuid(), "root")?;
        let tree = part(hash.hash_partuuid(), "hash tree")?;
        verity::verify(&root, &tree, &hash).map_err(|error| error.to_string())?;
        for role in [Role::State, Role::Cas] {
            let place = self.layout.get(role).unwrap();
            let have = part(place.guid, role.name())?;
            let want = self.image.part(role).unwrap();
            let length = want.size().unwrap() as usize;
            let (mut a, mut b) = (vec![0; length], vec![0; length]);
            have.read_exact_at(&mut a, 0).unwrap();
            want.read_exact_at(&mut b, 0).unwrap();
            if a != b {
                return Err(format!("{} is not pristine", role.name()));
            }
        }
        Ok(())
    }
}

/// Which of the systems a disk boots, by the most credulous firmware: one good copy of a table, for
/// whatever sectors, suffices; or a FAT without any.
fn boots(disk: &Path, systems: &[&System]) -> Result<Option<usize>, String> {
    let disk = File::open(disk).unwrap();
    if fat::Volume::open(&disk, fat::Limits::default()).is_ok() {
        return Err("a FAT without a table".into());
    }
    let mut found = None;
    for sector in [SectorSize::S512, SectorSize::S4096] {
        let Ok(table) = gpt::read(&disk, Some(sector)) else {
            continue;
        };
        let differ = table
            .defects
            .iter()
            .find(|its| matches!(its, gpt::Defect::Differ { .. }));
        if let Some(defect) = differ {
            return Err(defect.to_string());
        }
        let esp = table.by_label("ESP").ok_or("a table without ESP")?;
        let esp = Region::new(&disk, esp.start, esp.size);
        let esp = Esp::read(&esp).map_err(|error| format!("{error:#}"))?;
        let whole: Vec<_> = systems
            .iter()
            .map(|its| its.is_whole(&disk, &table, &esp))
            .collect();
        match whole.iter().position(Result::is_ok) {
            Some(index) => found = Some(index),
            None => return Err(format!("{whole:?}")),
        }
    }
    Ok(found)
}

/// A disk with a system on it, or a blank one.
fn base(bench: &Bench, old: Option<&System>) -> std::path::PathBuf {
    let path = bench.path("base");
    File::create_new(&path).unwrap().set_len(SIZE).unwrap();
    if let Some(old) = old {
        let medium = Medium(Device::open_rw(&path).unwrap());
        write::write(&medium, &old.job(), &Meter::silent()).unwrap();
    }
    path
}

/// Records a flash of `new` over `base`.
fn record(bench: &Bench, base: &Path, new: &System, deaf: bool) -> Log {
    let current = bench.path("current");
    vm::sparse_copy(base, &current).unwrap();
    let target = Recorded {
        medium: Medium(Device::open_rw(&current).unwrap()),
        log: RefCell::new(Log::create(&bench.path("log")).unwrap()),
        deaf,
    };
    write::write(&target, &new.job(), &Meter::silent()).unwrap();
    target.log.into_inner()
}

/// What all cuts boot: nothing, the old system, the new one.
fn outcomes(bench: &Bench, base: &Path, log: &Log, systems: &[&System]) -> [usize; 3] {
    let mut counts = [0; 3];
    let mut tally = |cut: &Cut, replay: &mut Replay| {
        let found = replay.with(cut, |disk| Ok(boots(disk, systems))).unwrap();
        let found = found.unwrap_or_else(|half| panic!("{cut:?} boots half: {half}"));
        counts[found.map_or(0, |index| index + 1)] += 1;
    };
    for (name, cuts) in [
        ("flushes", log.flush_cuts()),
        (
            "worst",
            (0..=log.len())
                .map(|at| Cut::worst(log.records(), at))
                .collect(),
        ),
        ("sampled", log.sampled_cuts(6, 7)),
    ] {
        let log = log.reader().unwrap();
        let mut replay = Replay::new(base, SIZE, log, &bench.path(name)).unwrap();
        cuts.iter().for_each(|cut| tally(cut, &mut replay));
    }
    println!("{}: nothing, old, new: {counts:?}", log.summary());
    counts
}

/// A flash over a whole older system with sectors of `sector`, cut everywhere.
fn over_an_old_system(sector: SectorSize) {
    let bench = Bench::new("2.0");
    image(&bench.path("old.raw"), "1.0", Disks::One);
    let old = System::new(&bench, "old.raw", "two", sector);
    let new = System::new(&bench, "larder.raw", "one", SectorSize::S512);
    let base = base(&bench, Some(&old));
    let log = record(&bench, &base, &new, false);
    let [none, before, after] = outcomes(&bench, &base, &log, &[&old, &new]);
    assert!(
        none > 20 && before > 2 && after > 2,
        "{none} {before} {after}"
    );
}

#[test]
fn a_flash_cut_at_every_flush_never_boots_half() {
    over_an_old_system(SectorSize::S512);
}

#[test]
fn nor_does_one_on_sectors_of_4096_bytes() {
    let bench = Bench::new("2.0");
    let new = System::new(&bench, "larder.raw", "one", SectorSize::S4096);
    let base = base(&bench, None);
    let log = record(&bench, &base, &new, false);
    let [none, after, _] = outcomes(&bench, &base, &log, &[&new]);
    assert!(none > 20 && after > 2, "{none} {after}");
}

#[test]
fn nor_over_a_table_of_the_other_sector_size() {
    over_an_old_system(SectorSize::S4096);
}

#[test]
fn without_flushes_it_would() {
    let bench = Bench::new("2.0");
    let new = System::new(&bench, "larder.raw", "one", SectorSize::S512);
    let base = base(&bench, None);
    let log = record(&bench, &base, &new, true);
    let replayed = log.reader().unwrap();
    let mut replay = Replay::new(&base, SIZE, replayed, &bench.path("replayed")).unwrap();
    let mut half = 0;
    for (index, record) in log.records().iter().enumerate() {
        // The clears of a blank disk change nothing.
        let Record::Write(write) = record else {
            panic!("a flush in {record:?}");
        };
        let cut = Cut {
            at: log.len(),
            lost: vec![index],
            torn: None,
        };
        let in_root = new
            .layout
            .get(Role::RootA)
            .is_some_and(|root| (root.start..root.end()).contains(&write.offset));
        let found = replay.with(&cut, |disk| Ok(boots(disk, &[&new]))).unwrap();
        if in_root && found.is_err() {
            half += 1;
        }
    }
    assert!(half > 0, "a lost root goes unseen");
}
