//! The folders of the store and everything that is done to files. All of it blocks.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::key::Place;
use crate::object::{self, Header};
use crate::reader::Object;
use crate::{Error, Status};

/// Bytes of an object that are read along with its header.
const AHEAD: usize = 64 * 1024 - object::LENGTH;
/// Names of temporary files begin so; the folder is shared with others.
const PREFIX: &str = "larder-upload-";

/// The folders of the store.
#[derive(Debug)]
pub(crate) struct Files {
    root: PathBuf,
    objects: PathBuf,
    temporary: PathBuf,
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The lock of the store; `None`: not open.
    lock: Option<File>,
    status: Status,
}

/// A temporary file; its name goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
    file: File,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed now is swept at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Temporary {
    /// Writes all of `bytes` at `offset` of the object (the header is before it).
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        self.file
            .write_all_at(bytes, object::LENGTH as u64 + offset)
            .map_err(Error::io(&self.path, "write"))
    }
}

impl Files {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            objects: root.join("objects"),
            temporary: root.join("tmp"),
            next: AtomicU64::new(0),
            state: Mutex::new(State {
                lock: None,
                status: Status::Unusable("it was not opened yet".into()),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock can leave it half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> Status {
        self.state().status.clone()
    }

    /// Fails if the store is not open.
    pub(crate) fn usable(&self) -> Result<(), Error> {
        match &self.state().status {
            Status::Unusable(reason) => Err(Error::Unusable {
                reason: reason.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Opens what is not open, tries to write where the last write failed.
    pub(crate) fn check(&self) {
        let held = {
            let state = self.state();
            if state.status == Status::Ready {
                return;
            }
            state.lock.is_some()
        };
        let outcome = if held {
            self.probe().map(|()| None)
        } else {
            self.open().map(Some)
        };
        let mut state = self.state();
        match outcome {
            Ok(lock) => {
                state.lock = lock.or_else(|| state.lock.take());
                state.status = Status::Ready;
            }
            Err(error) if state.lock.is_some() => {
                state.status = Status::WritesFail(error.to_string());
            }
            // A store on a read-only disk is read all the same.
            Err(Error::ReadOnly { path }) if self.objects.is_dir() => {
                state.status = Status::WritesFail(Error::ReadOnly { path }.to_string());
            }
            Err(error) => state.status = Status::Unusable(error.to_string()),
        }
    }

    fn open(&self) -> Result<File, Error> {
        for folder in [&self.objects, &self.temporary] {
            match std::fs::create_dir(folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(Error::io(folder, "create the folder")(error));
                }
                _ => {}
            }
        }
        sync_folder(&self.root)?;
        let path = self.objects.join(".lock");
        // Open for reading only, so that an operator can still remount the disk read-only.
        let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC;
        let lock = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| Error::io(&path, "open")(error.into()))?;
        let lock = File::from(lock);
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::Held { path });
            }
            Err(error) => return Err(Error::io(&path, "lock")(error.into())),
        }
        self.sweep()?;
        self.probe()?;
        Ok(lock)
    }

    /// Removes what interrupted uploads left behind; the lock is held.
    fn sweep(&self) -> Result<(), Error> {
        let error = |error| Error::io(&self.temporary, "list")(error);
        for entry in std::fs::read_dir(&self.temporary).map_err(error)? {
            let entry = entry.map_err(error)?;
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                // Not ours, or gone: nothing that would keep the store from working.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Writes a byte.
    fn probe(&self) -> Result<(), Error> {
        self.temporary_file()?.write(&[0], 0)
    }

    /// Notes how a write went.
    pub(crate) fn note<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        let mut state = self.state();
        match (&outcome, &state.status) {
            (Err(error), Status::Ready | Status::WritesFail(_)) if error.is_disk() => {
                state.status = Status::WritesFail(error.to_string());
            }
            (Ok(_), Status::WritesFail(_)) if state.lock.is_some() => state.status = Status::Ready,
            _ => {}
        }
        outcome
    }

    /// A new, empty temporary file.
    pub(crate) fn temporary_file(&self) -> Result<Temporary, Error> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = self.temporary.join(format!("{PREFIX}{number}"));
            let opened = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            match opened {
                Ok(file) => return Ok(Temporary { path, file }),
                // One that the sweep could not remove.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io(&path, "create")(error)),
            }
        }
    }

    /// Gives a written object its name, durably. `false`: there is one already, also durably.
    pub(crate) fn publish(
        &self,
        temporary: &Temporary,
        place: &Place,
        length: u64,
        sha256: Option<[u8; 32]>,
    ) -> Result<bool, Error> {
        let version = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        let header = Header {
            length,
            version,
            sha256,
        };
        temporary
            .file
            .write_all_at(&header.to_bytes(), 0)
            .and_then(|()| temporary.file.sync_data())
            .map_err(Error::io(&temporary.path, "write"))?;
        let folder = self.objects.join(&place.folder);
        let path = folder.join(&place.file);
        let mut linked = std::fs::hard_link(&temporary.path, &path);
        if is(&linked, ErrorKind::NotFound) {
            make_folder(&folder, &self.objects)?;
            linked = std::fs::hard_link(&temporary.path, &path);
        }
        let stored = match linked {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if self.open_object(place)?.is_some() {
                    false
                } else {
                    // Damaged, or removed this moment.
                    std::fs::rename(&temporary.path, &path).map_err(Error::io(&path, "replace"))?;
                    true
                }
            }
            Err(error) => return Err(Error::io(&path, "link")(error)),
        };
        // Also for one that another upload has just linked: both answer only when it is durable.
        sync_folder(&folder)?;
        Ok(stored)
    }

    /// Opens an object. `None`: there is none that is sound.
    pub(crate) fn open_object(&self, place: &Place) -> Result<Option<Object>, Error> {
        self.usable()?;
        let path = self.objects.join(&place.folder).join(&place.file);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&path, "open")(error)),
        };
        let read = || -> io::Result<_> {
            let length = file.metadata()?.len();
            let mut start = vec![0; usize::try_from(length).map_or(AHEAD, |l| l.min(AHEAD + 64))];
            file.read_exact_at(&mut start, 0)?;
            Ok((length, start))
        };
        let (length, start) = match read() {
            // It became shorter between the two looks: damaged.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            other => other.map_err(Error::io(&path, "read"))?,
        };
        let Some(header) = Header::parse(&start, length) else {
            return Ok(None);
        };
        let start = Bytes::from(start).slice(object::LENGTH..);
        Ok(Some(Object::new(file, path, header, start)))
    }

    /// Whether there is an object, and if so, makes sure that it is durable.
    pub(crate) fn exists(&self, place: &Place) -> Result<bool, Error> {
        if self.open_object(place)?.is_none() {
            return Ok(false);
        }
        // It may have been linked a moment ago by an upload that is still flushing. On a disk that
        // became read-only this fails; the object can be read all the same.
        match sync_folder(&self.objects.join(&place.folder)) {
            Ok(()) | Err(Error::ReadOnly { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn remove(&self, place: &Place) -> Result<bool, Error> {
        self.usable()?;
        let folder = self.objects.join(&place.folder);
        let path = folder.join(&place.file);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io(&path, "remove")(error)),
            Ok(()) => sync_folder(&folder).map(|()| true),
        }
    }
}

fn is(outcome: &io::Result<()>, kind: ErrorKind) -> bool {
    matches!(outcome, Err(error) if error.kind() == kind)
}

/// Makes a folder, durably.
fn make_folder(folder: &Path, parent: &Path) -> Result<(), Error> {
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(Error::io(folder, "create the folder")(error));
        }
        _ => {}
    }
    // Also if another upload has just made it: its flush may not be through.
    sync_folder(parent)
}

fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(Error::io(folder, "flush"))
}
