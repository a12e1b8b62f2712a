//! What a kill or a power cut leaves.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Dice, Op, SimDisk, State};

const SECTOR: usize = 512;

/// What a power cut leaves of what was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing.
    Flushed,
    /// Everything.
    All,
    /// A part that follows from the number.
    Some(u64),
}

impl SimDisk {
    /// The disk as it is, for a process that was killed: nothing is lost.
    pub(crate) fn killed(&self) -> Self {
        let state = self.state();
        let copy = Self::new(state.capacity);
        {
            let mut new = copy.state();
            new.names = state.names.clone();
            for file in state.names.values() {
                new.files
                    .insert(*file, state.files.get(file).cloned().unwrap_or_default());
                let allocated = state.allocated.get(file).copied().unwrap_or(0);
                new.allocated.insert(*file, allocated);
            }
            new.next = state.next;
            new.around = state.around;
            new.start_recording();
        }
        copy
    }

    /// The disk as a power cut after `now` changes may leave it.
    pub(crate) fn cut(&self, now: usize, cut: Cut) -> Self {
        let state = self.state();
        let mut dice = Dice(match cut {
            Cut::Some(seed) => seed ^ now as u64,
            _ => 0,
        });
        let mut files: HashMap<u64, Vec<u8>> = HashMap::new();
        let mut pending: HashMap<u64, Vec<&Op>> = HashMap::new();
        let mut names: BTreeMap<String, u64> = BTreeMap::new();
        let mut pending_names: Vec<&Vec<(String, Option<u64>)>> = Vec::new();
        let folder_of = |path: &str| {
            path.rsplit_once('/')
                .map_or("", |(folder, _)| folder)
                .to_owned()
        };
        for op in &state.ops[..now] {
            match op {
                Op::Write { file, .. } | Op::Length { file, .. } => {
                    pending.entry(*file).or_default().push(op);
                }
                Op::Sync { file } => {
                    for op in pending.remove(file).unwrap_or_default() {
                        apply(files.entry(*file).or_default(), op, |_| true);
                    }
                }
                Op::Lost { file } => {
                    for op in pending.remove(file).unwrap_or_default() {
                        // Its length is known, its bytes are not there.
                        apply(files.entry(*file).or_default(), op, |_| false);
                    }
                }
                Op::Names(changes) => pending_names.push(changes),
                Op::SyncFolder { folder } => {
                    pending_names.retain(|changes| {
                        let ours = folder_of(&changes[0].0) == *folder;
                        if ours {
                            set_names(&mut names, changes);
                        }
                        !ours
                    });
                }
            }
        }
        for (file, ops) in pending {
            for op in ops {
                let whole = dice.below(3);
                let keep = |_: usize| match cut {
                    Cut::Flushed => false,
                    Cut::All => true,
                    Cut::Some(_) => match whole {
                        0 => false,
                        1 => true,
                        _ => dice.below(2) == 0,
                    },
                };
                apply_maybe(files.entry(file).or_default(), op, keep);
            }
        }
        for changes in pending_names {
            let keep = match cut {
                Cut::Flushed => false,
                Cut::All => true,
                Cut::Some(_) => dice.below(2) == 0,
            };
            if keep {
                set_names(&mut names, changes);
            }
        }
        let copy = Self::new(state.capacity);
        {
            let mut new = copy.state();
            new.around = state.around;
            new.next = state.next;
            for file in names.values() {
                let content = files.get(file).cloned().unwrap_or_default();
                new.allocated
                    .insert(*file, (content.len() as u64).next_multiple_of(4096));
                new.files.insert(*file, content);
            }
            new.names = names;
            new.start_recording();
        }
        copy
    }

    /// Tells disks apart whose names or bytes differ.
    pub(crate) fn fingerprint(&self) -> u128 {
        let state = self.state();
        let mut hash = twox_hash::xxhash3_128::Hasher::new();
        for (path, file) in &state.names {
            let content = state.files.get(file).map_or(&[][..], Vec::as_slice);
            for part in [path.as_bytes(), content] {
                hash.write(&(part.len() as u64).to_le_bytes());
                hash.write(part);
            }
        }
        hash.finish_128()
    }

    /// Begins to record anew, from what is there, as if all of it were flushed.
    pub(crate) fn start_recording(&self) {
        self.state().start_recording();
    }
}

impl State {
    fn start_recording(&mut self) {
        let mut ops = Vec::new();
        for (path, file) in &self.names {
            let bytes: Arc<[u8]> = self.files.get(file).cloned().unwrap_or_default().into();
            ops.push(Op::Length {
                file: *file,
                length: bytes.len() as u64,
            });
            ops.push(Op::Write {
                file: *file,
                at: 0,
                bytes,
            });
            ops.push(Op::Sync { file: *file });
            ops.push(Op::Names(vec![(path.clone(), Some(*file))]));
        }
        for folder in ["", "segments", "large"] {
            ops.push(Op::SyncFolder {
                folder: folder.into(),
            });
        }
        self.ops = ops;
    }
}

fn set_names(names: &mut BTreeMap<String, u64>, changes: &[(String, Option<u64>)]) {
    for (path, file) in changes {
        match file {
            Some(file) => names.insert(path.clone(), *file),
            None => names.remove(path),
        };
    }
}

pub(super) fn apply(content: &mut Vec<u8>, op: &Op, keep: impl FnMut(usize) -> bool) {
    apply_maybe(content, op, keep);
}

/// Applies the sectors of a write for which `keep` says so.
fn apply_maybe(content: &mut Vec<u8>, op: &Op, mut keep: impl FnMut(usize) -> bool) {
    match op {
        Op::Write { at, bytes, .. } => {
            let (mut at, mut rest) = (*at as usize, &bytes[..]);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                if keep(at) {
                    if content.len() < at + now.len() {
                        content.resize(at + now.len(), 0);
                    }
                    content[at..at + now.len()].copy_from_slice(now);
                }
                (at, rest) = (at + now.len(), later);
            }
        }
        Op::Length { length, .. } if keep(0) => content.resize(*length as usize, 0),
        _ => {}
    }
}
