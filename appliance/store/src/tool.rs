//! The offline tool: looks into a volume that no service has open. Only [`Offline::rebuild_index`]
//! changes anything.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::{self, Debug};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Error;
use crate::disk::{Disk, Flush, RealDisk, Surroundings, read_exact};
use crate::format::record::{Head, Kind, LARGE, PINNED, Parsed};
use crate::format::segment::Entry;
use crate::format::superblock::{LENGTH, Superblock};
use crate::format::{ALIGN, cleans};
use crate::index::Place;
use crate::object::Info;
use crate::volume::{Segment, Source, read_part, segment_id};

/// A volume that is looked into.
#[derive(Debug)]
pub struct Offline {
    disk: RealDisk,
    _lock: Arc<dyn Debug + Send + Sync>,
    segments: Vec<Segment>,
    /// Files that are no segments though they are named so.
    broken: Vec<PathBuf>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub path: PathBuf,
    /// At which byte, if that says more.
    pub offset: Option<u64>,
    /// What, in words, with what it leads to.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Id of its segment.
    pub segment: u32,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What it does: object, removal, pin or unpin.
    pub kind: &'static str,
    /// Whether it is what its key means.
    pub live: bool,
    /// What is known of the object.
    pub info: Info,
}

/// What a volume holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Segments, and how many of them are not sealed.
    pub segments: (u64, u64),
    /// Bytes of segments, and of the records in them that count.
    pub segment_bytes: (u64, u64),
    /// Large objects and their bytes.
    pub large: (u64, u64),
    /// Records in all.
    pub records: u64,
    /// Objects and bytes by kind, account and project.
    pub projects: BTreeMap<String, (u64, u64)>,
    /// Projects that were cleaned once.
    pub cleaned: u64,
}

impl Offline {
    /// Looks at the volume in the folder `path`, where the disk is mounted.
    ///
    /// # Errors
    ///
    /// There is no volume, a service has it open, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let disk = RealDisk::new(path);
        let around = disk.surroundings().map_err(Error::io(path, "read"))?;
        if around != Surroundings::Ours {
            return Err(Error::Unusable {
                reason: format!("{}: there is no {} in it", path.display(), crate::FOLDER),
            });
        }
        let lock_path = disk.root().join("lock");
        let lock = match disk.lock("lock") {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(Error::Held { path: lock_path });
            }
            locked => locked.map_err(Error::io(&lock_path, "lock"))?,
        };
        let folder = disk.root().join("segments");
        let names = disk.list("segments").map_err(Error::io(&folder, "list"))?;
        let mut ids: Vec<u32> = names.iter().filter_map(|name| segment_id(name)).collect();
        ids.sort_unstable();
        let (mut segments, mut broken) = (Vec::new(), Vec::new());
        for id in ids {
            match Segment::open(&disk, id) {
                Ok(Some(segment)) => segments.push(segment),
                _ => broken.push(folder.join(format!("{id:08x}.seg"))),
            }
        }
        Ok(Self {
            disk,
            _lock: lock,
            segments,
            broken,
        })
    }

    /// All records, and what each tag means by the rule that the highest position is right.
    fn meaning(&self, problems: &mut dyn FnMut(Problem)) -> HashMap<u64, (Place, Kind)> {
        let mut meaning = HashMap::new();
        for segment in &self.segments {
            let mut problem = |offset, what: &str| {
                problems(Problem {
                    path: self.disk.root().join(&segment.path),
                    offset,
                    what: what.into(),
                });
            };
            if matches!(segment.footer(), Ok(None)) {
                // One that is written to still has the length that was allocated.
                let length = segment.file.length();
                if length.is_ok_and(|length| length != segment.header.size) {
                    problem(None, "its footer is damaged: it is scanned at the start");
                }
                for at in segment
                    .scan()
                    .map_or_else(|_| Vec::new(), |scan| scan.damaged)
                {
                    problem(Some(at), "no record: what was there is a miss");
                }
            }
            match segment.entries() {
                Ok(entries) => {
                    for entry in entries.iter() {
                        if matches!(entry.kind, Kind::Object | Kind::Removal) {
                            let place = self.place(segment, entry);
                            meaning.insert(entry.tag, (place, entry.kind));
                        }
                    }
                }
                Err(error) => problems(Problem {
                    path: self.disk.root().join(&segment.path),
                    offset: None,
                    what: format!("cannot be read: {error}; its objects are misses"),
                }),
            }
        }
        meaning
    }

    fn place(&self, segment: &Segment, entry: &Entry) -> Place {
        Place {
            segment: segment.header.id,
            offset: entry.offset,
        }
    }

    /// Calls `each` for every record whose head can be read, with its head.
    fn each(
        &self,
        problems: &mut dyn FnMut(Problem),
        each: &mut dyn FnMut(&Segment, &Entry, &Head, bool),
    ) {
        let meaning = self.meaning(problems);
        for segment in &self.segments {
            let Ok(entries) = segment.entries() else {
                continue;
            };
            for entry in entries.iter() {
                let place = self.place(segment, entry);
                let live = entry.kind == Kind::Object
                    && meaning
                        .get(&entry.tag)
                        .is_some_and(|(known, _)| *known == place);
                let bytes = u64::from(entry.size) * ALIGN;
                let read = read_exact(&*segment.file, place.byte(), bytes.min(1 << 20) as usize);
                let problem = match read {
                    Ok(bytes) => match Head::parse(&bytes, segment.header.generation) {
                        Parsed::Head(head, _) => {
                            each(segment, entry, &head, live);
                            continue;
                        }
                        _ => "its head is damaged: a miss".to_owned(),
                    },
                    Err(error) => format!("cannot be read: {error}; a miss"),
                };
                problems(Problem {
                    path: self.disk.root().join(&segment.path),
                    offset: Some(place.byte()),
                    what: problem,
                });
            }
        }
    }

    /// Lists all records, oldest first.
    pub fn dump(&self, mut each: impl FnMut(Row)) {
        self.each(&mut |_| {}, &mut |segment, entry, head, live| {
            each(Row {
                segment: segment.header.id,
                offset: u64::from(entry.offset) * ALIGN,
                kind: match entry.kind {
                    Kind::Object => "object",
                    Kind::Removal => "removal",
                    Kind::Pin => "pin",
                    Kind::Unpin => "unpin",
                },
                live,
                info: Info::new(head, head.flags & PINNED != 0),
            });
        });
    }

    /// What the volume holds.
    #[must_use]
    pub fn stat(&self) -> Stat {
        let mut stat = Stat::default();
        stat.segments.0 = self.segments.len() as u64;
        for segment in &self.segments {
            stat.segment_bytes.0 += segment.file.length().unwrap_or(0);
            stat.segments.1 += u64::from(!matches!(segment.footer(), Ok(Some(_))));
        }
        self.each(&mut |_| {}, &mut |_, entry, head, live| {
            stat.records += 1;
            if !live {
                return;
            }
            stat.segment_bytes.1 += u64::from(entry.size) * ALIGN;
            if head.flags & LARGE != 0 {
                stat.large.0 += 1;
                stat.large.1 += head.length;
            }
            let [kind, account, project, ..] = head.key.each();
            let name = format!("{kind} {account}/{project}");
            let sum = stat.projects.entry(name).or_default();
            sum.0 += 1;
            sum.1 += head.length;
        });
        stat.cleaned = self.cleans().len() as u64;
        stat
    }

    fn cleans(&self) -> HashSet<[u8; 32]> {
        let mut projects = HashSet::new();
        for path in ["cleans.a", "cleans.b"] {
            let bytes = self.disk.open(path).and_then(|file| {
                let length = file.length()?;
                read_exact(&*file, 0, length as usize)
            });
            projects.extend(cleans::parse(&bytes.unwrap_or_default()).map(|clean| clean.project));
        }
        projects
    }

    /// Reads everything and says what is not as it should be; the number of objects that are.
    pub fn check(&self, mut problem: impl FnMut(Problem)) -> u64 {
        let root = self.disk.root();
        let superblock = self.disk.open("volume").and_then(|file| {
            let length = file.length()?.min(2 * LENGTH as u64);
            read_exact(&*file, 0, length as usize)
        });
        if let Err(error) = superblock
            .map(|bytes| Superblock::parse(&bytes))
            .map_or_else(
                |error| Err(error.to_string()),
                |parsed| parsed.map_err(|missing| format!("{missing:?}")),
            )
        {
            problem(Problem {
                path: root.join("volume"),
                offset: None,
                what: format!("no superblock ({error}): the volume would start empty"),
            });
        }
        for path in &self.broken {
            problem(Problem {
                path: path.clone(),
                offset: None,
                what: "its header is damaged: it goes at the next start".into(),
            });
        }
        let problems = std::cell::RefCell::new(problem);
        let mut right = 0;
        let mut named = HashSet::new();
        self.each(
            &mut |found| problems.borrow_mut()(found),
            &mut |segment, entry, head, live| {
                if !live {
                    return;
                }
                named.insert(head.file);
                let offset = u64::from(entry.offset) * ALIGN;
                let path = root.join(&segment.path);
                let outcome = self.check_body(segment, entry, head);
                match outcome {
                    Ok(()) => right += 1,
                    Err(what) => problems.borrow_mut()(Problem {
                        path,
                        offset: Some(offset),
                        what: format!("{}: {what}", head.key),
                    }),
                }
            },
        );
        for name in self.disk.list("large").unwrap_or_default() {
            let number = u64::from_str_radix(&name, 16).unwrap_or(0);
            if !named.contains(&number) {
                problems.borrow_mut()(Problem {
                    path: root.join("large").join(&name),
                    offset: None,
                    what: "nothing names it: it goes at the next start".into(),
                });
            }
        }
        right
    }

    fn check_body(&self, segment: &Segment, entry: &Entry, head: &Head) -> Result<(), String> {
        let at = u64::from(entry.offset) * ALIGN;
        if head.flags & LARGE == 0 {
            let length = (u64::from(entry.size) * ALIGN) as usize;
            let bytes =
                read_exact(&*segment.file, at, length).map_err(|error| error.to_string())?;
            return match crate::format::record::whole(&bytes, segment.header.generation) {
                Some(_) => Ok(()),
                None => Err("the body is damaged: a miss".into()),
            };
        }
        let file = self.disk.open(&format!("large/{:016x}", head.file));
        let source = Source::File(file.map_err(|error| format!("its file: {error}"))?);
        let mut from = 0;
        while from < head.length {
            let to = (from + (1 << 20)).min(head.length);
            read_part(head, &source, 0, from..to, true).map_err(|_| {
                format!("its file is damaged near byte {from}: transfers break off")
            })?;
            from = to;
        }
        Ok(())
    }

    /// Removes the checkpoints, so that the next start makes the index from the log.
    ///
    /// # Errors
    ///
    /// The disk failed.
    pub fn rebuild_index(&self) -> Result<(), Error> {
        for path in ["checkpoint.a", "checkpoint.b"] {
            match self.disk.unlink(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed.map_err(Error::io(&self.disk.root().join(path), "remove"))?,
            }
        }
        let synced = self.disk.sync_folder("", Flush::Checkpoint);
        synced.map_err(Error::io(self.disk.root(), "sync"))
    }
}
