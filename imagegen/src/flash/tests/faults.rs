//! Disks that fail, lie or are not as large as they say.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::ops::Range;

use disk::Device;
use formats::gpt::{self, Disks, Layout, Role, SectorSize};
use formats::region::{ReadAt, WriteAt};

use super::super::image::Image;
use super::super::machine_esp;
use super::super::meter::Meter;
use super::super::target::{Medium, Target};
use super::super::write::{self, Job};
use super::compose::Bench;
use crate::layout;

const SIZE: u64 = 3 << 30;

/// What is wrong with a disk.
#[derive(Clone, Debug)]
enum Fault {
    /// The request of that number (writes, clears and flushes) fails.
    Fails(u32),
    /// What is written in this range is gone.
    Loses(Range<u64>),
    /// Reading this byte fails.
    Unreadable(u64),
    /// It is smaller than it says: addresses wrap, as on a forged stick.
    Wraps(u64),
}

struct Faulty {
    medium: Medium,
    fault: Fault,
    requests: Cell<u32>,
}

impl Faulty {
    fn request(&self) -> io::Result<()> {
        let number = self.requests.get();
        self.requests.set(number + 1);
        match self.fault {
            Fault::Fails(at) if at == number => Err(io::Error::other("the disk is broken")),
            _ => Ok(()),
        }
    }

    fn place(&self, offset: u64) -> u64 {
        match self.fault {
            Fault::Wraps(size) => offset % size,
            _ => offset,
        }
    }
}

impl ReadAt for Faulty {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self.fault {
            Fault::Unreadable(at) if (offset..offset + buf.len() as u64).contains(&at) => {
                Err(io::Error::other("the disk is broken"))
            }
            _ => self.medium.read_exact_at(buf, self.place(offset)),
        }
    }

    fn size(&self) -> io::Result<u64> {
        self.medium.size()
    }
}

impl WriteAt for Faulty {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.request()?;
        match &self.fault {
            Fault::Loses(range) if range.contains(&offset) => Ok(()),
            _ => self.medium.write_all_at(buf, self.place(offset)),
        }
    }
}

impl Target for Faulty {
    fn clear(&self, range: Range<u64>) -> io::Result<()> {
        self.request()?;
        let start = self.place(range.start);
        self.medium.clear(start..start + (range.end - range.start))
    }

    fn flush(&self) -> io::Result<()> {
        self.request()
    }

    fn forget(&self) -> io::Result<()> {
        Ok(())
    }

    fn reread(&self) {}
}

/// The words of a flash to a disk with that fault, and whether the disk has a table then.
fn flash(bench: &Bench, fault: Fault) -> (Result<u32, String>, bool) {
    let image = Image::open(&bench.path("larder.raw"), &Meter::silent()).unwrap();
    let (version, hash) = (&image.version, image.root_hash);
    let sector = SectorSize::S512;
    let request = layout::request(SIZE, sector, Disks::One, "seed", version, hash);
    let job = Job {
        image: &image,
        layout: &Layout::new(&request).unwrap(),
        esp: &machine_esp(&image, "one").unwrap(),
        volume_id: 5,
        clock: 1_800_000_000,
    };
    let path = bench.path("disk");
    File::create(&path).unwrap().set_len(SIZE).unwrap();
    let target = Faulty {
        medium: Medium(Device::open_rw(&path).unwrap()),
        fault,
        requests: Cell::new(0),
    };
    let written = write::write(&target, &job, &Meter::silent());
    let table = gpt::read(&File::open(&path).unwrap(), None).is_ok();
    let written = written.map_err(|error| format!("{error:#}"));
    (written.map(|()| target.requests.get()), table)
}

/// First byte of a partition.
fn start(role: Role) -> u64 {
    let hash = formats::verity::RootHash([0; 32]);
    let sector = SectorSize::S512;
    let request = layout::request(SIZE, sector, Disks::One, "seed", "1", hash);
    Layout::new(&request).unwrap().get(role).unwrap().start
}

#[test]
fn every_request_that_fails_is_an_error_and_leaves_no_table_before_the_commit() {
    let bench = Bench::new("1");
    let (all, table) = flash(&bench, Fault::Fails(u32::MAX));
    let all = all.unwrap();
    assert!(table && all > 40, "{all}");
    for number in 0..all {
        let (words, table) = flash(&bench, Fault::Fails(number));
        let words = words.unwrap_err();
        assert!(words.ends_with("the disk is broken"), "{number}: {words}");
        // The last three pairs are a part of the table and its flush.
        let commit = all - 6;
        assert_eq!(table, number > commit, "{number} of {all}: {words}");
    }
}

#[test]
fn what_is_read_back_otherwise_is_an_error_that_says_where() {
    let bench = Bench::new("1");
    let state = start(Role::State) + 4096;
    // State comes to lie on root.
    let wraps = start(Role::State) - start(Role::RootA);
    for (fault, want) in [
        (
            Fault::Loses(start(Role::RootA)..start(Role::RootAVerity)),
            "(partition root-a)",
        ),
        (
            Fault::Loses(start(Role::State)..start(Role::Cas)),
            "(partition state)",
        ),
        (
            Fault::Loses(start(Role::Esp)..start(Role::RootA)),
            "the ESP cannot be read back",
        ),
        (Fault::Unreadable(state), "reading back byte"),
        (Fault::Wraps(wraps), "(partition root-a)"),
    ] {
        let (words, table) = flash(&bench, fault.clone());
        let words = words.expect_err(want);
        assert!(words.contains(want) && !table, "{fault:?}: {words}");
    }
    let lost = Fault::Loses(0..start(Role::Bios));
    let (words, _) = flash(&bench, lost);
    assert!(words.unwrap_err().contains("the partition table"));
}
