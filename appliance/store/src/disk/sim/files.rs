//! The file system as the store asks for it.

use std::fmt::Debug;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use super::cut::apply;
use super::{Op, SimDisk, SimFile, SimLock};
use crate::disk::{Disk, DiskFile, Flush, Room, Surroundings};

impl Disk for SimDisk {
    fn root(&self) -> &Path {
        Path::new("/sim")
    }

    fn prepare(&self, _: &[&str]) -> io::Result<()> {
        self.state().around = true;
        Ok(())
    }

    fn surroundings(&self) -> io::Result<Surroundings> {
        let state = self.state();
        Ok(match (state.around, state.foreign) {
            (true, _) => Surroundings::Ours,
            (_, true) => Surroundings::Foreign,
            _ => Surroundings::Empty,
        })
    }

    fn lock(&self, _: &str) -> io::Result<Arc<dyn Debug + Send + Sync>> {
        let mut state = self.state();
        if std::mem::replace(&mut state.locked, true) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Arc::new(SimLock(self.clone())))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let file = *state.names.get(path).ok_or(ErrorKind::NotFound)?;
        *state.handles.entry(file).or_default() += 1;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            file,
        }))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.writable()?;
        if state.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if state.names.len() as u64 >= state.max_files {
            return Err(ErrorKind::StorageFull.into());
        }
        let file = state.next;
        state.next += 1;
        state.names.insert(path.into(), file);
        state.ops.push(Op::Names(vec![(path.into(), Some(file))]));
        *state.handles.entry(file).or_default() += 1;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            file,
        }))
    }

    fn nameless(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.writable()?;
        if state.names.len() as u64 >= state.max_files {
            return Err(ErrorKind::StorageFull.into());
        }
        let file = state.next;
        state.next += 1;
        *state.handles.entry(file).or_default() += 1;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            file,
        }))
    }

    fn link(&self, file: &dyn DiskFile, path: &str) -> io::Result<()> {
        let file: &SimFile = file.as_any().downcast_ref().ok_or(ErrorKind::Unsupported)?;
        let mut state = self.state();
        state.writable()?;
        if state.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.names.insert(path.into(), file.file);
        state
            .ops
            .push(Op::Names(vec![(path.into(), Some(file.file))]));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.writable()?;
        let file = state.names.remove(from).ok_or(ErrorKind::NotFound)?;
        let old = state.names.insert(to.into(), file);
        // One change: the new name is there, and the old one gone, or neither.
        state.ops.push(Op::Names(vec![
            (to.into(), Some(file)),
            (from.into(), None),
        ]));
        if let Some(old) = old {
            state.collect(old);
        }
        Ok(())
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        state.writable()?;
        let file = state.names.remove(path).ok_or(ErrorKind::NotFound)?;
        state.ops.push(Op::Names(vec![(path.into(), None)]));
        state.collect(file);
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let state = self.state();
        let names = state
            .names
            .keys()
            .filter_map(|path| match path.rsplit_once('/') {
                Some((of, name)) => (of == folder).then(|| name.to_owned()),
                None => folder.is_empty().then(|| path.clone()),
            });
        Ok(names.collect())
    }

    fn sync_folder(&self, folder: &str, why: Flush) -> io::Result<()> {
        let mut state = self.state();
        if let Some(at) = state.failing.iter().position(|failing| *failing == why) {
            state.failing.remove(at);
            return Err(io::Error::from_raw_os_error(5));
        }
        if state.skipped != Some(why) {
            state.ops.push(Op::SyncFolder {
                folder: folder.into(),
            });
        }
        Ok(())
    }

    fn room(&self) -> io::Result<Room> {
        let state = self.state();
        Ok(Room {
            total: state.capacity,
            free: state.capacity.saturating_sub(state.used()),
            files: state.max_files.saturating_sub(state.names.len() as u64),
        })
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        if state.failing_reads > 0 {
            state.failing_reads -= 1;
            return Err(io::Error::from_raw_os_error(5));
        }
        let content = state.content(self.file);
        let from = (offset as usize).min(content.len());
        let length = buffer.len().min(content.len() - from);
        buffer[..length].copy_from_slice(&content[from..from + length]);
        Ok(length)
    }

    fn read_ready(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.writable()?;
        let failing = std::mem::take(&mut state.failing_writes);
        let fails = failing.contains(&0);
        state.failing_writes = failing
            .into_iter()
            .filter_map(|n| n.checked_sub(1))
            .collect();
        let end = offset + bytes.len() as u64;
        state.grow(self.file, end)?;
        let bytes = if fails {
            &bytes[..bytes.len() / 2]
        } else {
            bytes
        };
        let end = offset as usize + bytes.len();
        let content = state.content(self.file);
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset as usize..end].copy_from_slice(bytes);
        state.ops.push(Op::Write {
            file: self.file,
            at: offset,
            bytes: bytes.into(),
        });
        if fails {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }

    fn sync(&self, why: Flush) -> io::Result<()> {
        let mut state = self.disk.state();
        if let Some(at) = state.failing.iter().position(|failing| *failing == why) {
            state.failing.remove(at);
            state.ops.push(Op::Lost { file: self.file });
            return Err(io::Error::from_raw_os_error(5));
        }
        if state.skipped != Some(why) {
            state.ops.push(Op::Sync { file: self.file });
        }
        Ok(())
    }

    fn forget(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let mut content = Vec::new();
        let mut pending: Vec<&Op> = Vec::new();
        for op in &state.ops {
            match op {
                Op::Write { file, .. } | Op::Length { file, .. } if *file == self.file => {
                    pending.push(op);
                }
                Op::Sync { file } if *file == self.file => {
                    pending
                        .drain(..)
                        .for_each(|op| apply(&mut content, op, |_| true));
                }
                Op::Lost { file } if *file == self.file => pending.clear(),
                _ => {}
            }
        }
        pending
            .drain(..)
            .for_each(|op| apply(&mut content, op, |_| true));
        let length = state.content(self.file).len();
        content.resize(length, 0);
        *state.content(self.file) = content;
        Ok(())
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.writable()?;
        state.grow(self.file, offset + length)?;
        let content = state.content(self.file);
        let length = (content.len() as u64).max(offset + length);
        content.resize(length as usize, 0);
        state.ops.push(Op::Length {
            file: self.file,
            length,
        });
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.writable()?;
        state.content(self.file).resize(length as usize, 0);
        state
            .allocated
            .insert(self.file, length.next_multiple_of(4096));
        state.ops.push(Op::Length {
            file: self.file,
            length,
        });
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().content(self.file).len() as u64)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
