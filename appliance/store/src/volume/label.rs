//! The superblock: which volume this is, and which keys are its own (`FORMAT.md` 1.6).

use std::fmt::Debug;
use std::io::ErrorKind;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{cleans, segment};
use crate::Error;
use crate::disk::{Disk, Flush, Surroundings, read_exact, replace};
use crate::format::cleans::Clean;
use crate::format::mix;
use crate::format::superblock::{LENGTH, LISTS, Members, Missing, Superblock};

/// Path of the superblock.
const PATH: &str = "volume";
/// The folders below that of the volume.
pub(super) const FOLDERS: [&str; 2] = ["segments", "large"];

/// A volume that is locked and was looked at.
#[derive(Debug)]
pub(crate) struct Look {
    disk: Arc<dyn Disk>,
    lock: Arc<dyn Debug + Send + Sync>,
    /// The superblock, or why the volume starts empty.
    state: Result<Superblock, String>,
    /// The cleans that it knows.
    pub(crate) cleans: Vec<Clean>,
}

/// A volume that is ready to be opened.
#[derive(Debug)]
pub(crate) struct Found {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) lock: Arc<dyn Debug + Send + Sync>,
    pub(super) label: Label,
    pub(super) seed: u64,
}

/// What the superblock says, ready for use.
#[derive(Debug)]
pub(crate) struct Label {
    pub(super) uuid: [u8; 16],
    /// Why the volume started empty, if it did.
    pub(crate) emptied: Option<String>,
    /// For each list of volumes: from which segment on it counts, and who is in it.
    lists: Vec<(u32, Members64)>,
}

/// Hashes of the names of volumes, and which of them this one is.
#[derive(Clone, Debug)]
pub(crate) struct Members64 {
    hashes: Vec<u64>,
    me: Option<usize>,
}

impl Members64 {
    pub(crate) fn new(names: &[String], me: &str) -> Self {
        let hash = |name: &String| {
            let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
            let mut word = [0; 8];
            word.copy_from_slice(&digest[..8]);
            u64::from_le_bytes(word)
        };
        Self {
            hashes: names.iter().map(hash).collect(),
            me: names.iter().position(|name| name == me),
        }
    }

    /// The number of the volume whose a tag is: the highest score (rendezvous hashing).
    pub(crate) fn owner(&self, tag: u64) -> usize {
        let scores = self.hashes.iter().map(|hash| mix(tag ^ hash));
        let best = scores.enumerate().max_by_key(|(_, score)| *score);
        best.map_or(0, |(number, _)| number)
    }
}

impl Look {
    /// Makes what is missing of the folders, takes the lock, reads what says what this is.
    pub(crate) fn at(disk: Arc<dyn Disk>) -> Result<Self, Error> {
        let root = disk.root().to_owned();
        let around = disk
            .surroundings()
            .map_err(Error::io(&root, "look around"))?;
        let prepared = disk.prepare(&FOLDERS);
        prepared.map_err(Error::io(&root, "make the folders of"))?;
        let path = root.join("lock");
        let lock = match disk.lock("lock") {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(Error::Held { path });
            }
            locked => locked.map_err(Error::io(&path, "lock"))?,
        };
        let read = disk.open(PATH).and_then(|file| {
            let length = file.length()?.min(2 * LENGTH as u64);
            read_exact(&*file, 0, length as usize)
        });
        let state = match read {
            Ok(bytes) => Superblock::parse(&bytes).map_err(|missing| match missing {
                Missing::Damaged => "its superblock was wrecked".to_owned(),
                Missing::Version(version) => {
                    format!("it has format version {version}, which this program does not know")
                }
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(match around {
                Surroundings::Ours => "it was never finished".to_owned(),
                Surroundings::Empty => "the disk was empty".to_owned(),
                Surroundings::Foreign => {
                    "the disk held other things, which are left alone".to_owned()
                }
            }),
            // Nothing is ever emptied because of a read error.
            Err(error) => return Err(Error::io(&root.join(PATH), "read")(error)),
        };
        let cleans = cleans::read(&*disk);
        Ok(Self {
            disk,
            lock,
            state,
            cleans,
        })
    }

    /// Number of the last change of the list of volumes that it saw, and that list.
    pub(crate) fn epoch(&self) -> Option<(u64, &[String])> {
        let superblock = self.state.as_ref().ok()?;
        let newest = superblock.members.last()?;
        Some((superblock.epoch, &newest.names))
    }

    /// Makes the volume part of the store of these volumes. `epoch`: number of their list;
    /// `before`: the one of the list before, if it is new.
    pub(crate) fn join(
        self,
        me: &str,
        names: &[String],
        epoch: u64,
        before: Option<u64>,
        now: u64,
    ) -> Result<Found, Error> {
        let Self {
            disk, lock, state, ..
        } = self;
        let root = disk.root().to_owned();
        let mut seed = [0; 24];
        let filled = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
        filled.map_err(|errno| Error::io(&root, "get random numbers for")(errno.into()))?;
        let (superblock, emptied, write) = match state {
            Ok(known) if known.epoch == epoch => (known, None, false),
            Ok(mut known) if Some(known.epoch) == before => {
                let ids = ids(&*disk).map_err(Error::io(&root, "list"))?;
                let oldest = ids.iter().min().copied().unwrap_or(u32::MAX);
                known.epoch = epoch;
                known.members.push(Members {
                    from: ids.iter().max().map_or(1, |id| id + 1),
                    names: names.to_vec(),
                });
                // Lists that no record is as old as.
                while known.members.len() > 1 && known.members[1].from <= oldest {
                    known.members.remove(0);
                }
                if known.members.len() > LISTS {
                    let why = "the list of volumes changed too often".to_owned();
                    (Self::fresh(names, epoch, now, &seed), Some(why), true)
                } else {
                    (known, None, true)
                }
            }
            Ok(_) => {
                let why = "it missed a change of the list of volumes".to_owned();
                (Self::fresh(names, epoch, now, &seed), Some(why), true)
            }
            Err(why) => (Self::fresh(names, epoch, now, &seed), Some(why), true),
        };
        if emptied.is_some() {
            empty(&*disk).map_err(Error::io(&root, "empty"))?;
        }
        if write {
            let bytes = superblock.to_bytes().ok_or(Error::TooLong {
                what: "the list of volumes",
                length: names.len(),
                limit: LISTS,
            })?;
            replace(&*disk, PATH, &bytes, Flush::Superblock)
                .map_err(Error::io(&root.join(PATH), "write"))?;
        }
        let lists = superblock.members.iter();
        let lists = lists.map(|list| (list.from, Members64::new(&list.names, me)));
        let mut word = [0; 8];
        word.copy_from_slice(&seed[16..]);
        Ok(Found {
            label: Label {
                uuid: superblock.uuid,
                emptied,
                lists: lists.collect(),
            },
            disk,
            lock,
            seed: u64::from_le_bytes(word),
        })
    }

    fn fresh(names: &[String], epoch: u64, now: u64, seed: &[u8; 24]) -> Superblock {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&seed[..16]);
        Superblock {
            uuid,
            epoch,
            time: now,
            members: vec![Members {
                from: 0,
                names: names.to_vec(),
            }],
        }
    }
}

impl Label {
    /// Whether a record of this tag in this segment counts, by every list from then on.
    pub(super) fn owns(&self, tag: u64, segment: u32) -> bool {
        let later = self.lists.iter().rev();
        for (from, members) in later {
            if members.me != Some(members.owner(tag)) {
                return false;
            }
            if *from <= segment {
                break;
            }
        }
        true
    }
}

/// Ids of all segments that there are.
fn ids(disk: &dyn Disk) -> std::io::Result<Vec<u32>> {
    let names = disk.list("segments")?;
    Ok(names.iter().filter_map(|name| segment::id(name)).collect())
}

/// Removes all that a volume holds, but not what it knows of cleans.
fn empty(disk: &dyn Disk) -> std::io::Result<()> {
    for path in ["checkpoint.a", "checkpoint.b"] {
        match disk.unlink(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    for folder in FOLDERS {
        for name in disk.list(folder)? {
            disk.unlink(&format!("{folder}/{name}"))?;
        }
        disk.sync_folder(folder, Flush::Superblock)?;
    }
    disk.sync_folder("", Flush::Superblock)
}
