//! The journal on disk, through libsystemd.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::library::{Handle, LOCAL_ONLY, Library, library};
use super::{Cursor, Entry, Error, Id128, Journal, Stamp};

/// Which journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// This machine's, without those of namespaces.
    System,
    /// A namespace's (systemd-journald.service(8), "Journal Namespaces").
    Namespace(String),
    /// All files of a folder.
    Folder(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("of the system"),
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::Folder(path) => write!(f, "in {}", path.display()),
        }
    }
}

/// A journal on disk.
///
/// To be used by one thread at a time.
pub struct Files {
    library: &'static Library,
    handle: *mut Handle,
    place: Place,
}

// SAFETY: sd-journal(3): an object may be used by any thread, by one at a time.
unsafe impl Send for Files {}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Files {
    /// Opens a journal. One whose files do not exist yet is empty.
    ///
    /// # Errors
    ///
    /// There is no libsystemd, or no right to read the journal.
    pub fn open(place: Place) -> Result<Self, Error> {
        let library = library()?;
        let mut handle = std::ptr::null_mut();
        let invalid = |_| Error::Call {
            call: "sd_journal_open",
            place: place.to_string(),
            source: std::io::ErrorKind::InvalidInput.into(),
        };
        // SAFETY: handle is written by the call; strings live as long as it.
        let result = unsafe {
            match &place {
                Place::System => (library.sd_journal_open)(&raw mut handle, LOCAL_ONLY),
                Place::Namespace(name) => {
                    let name = CString::new(name.as_str()).map_err(invalid)?;
                    (library.sd_journal_open_namespace)(&raw mut handle, name.as_ptr(), LOCAL_ONLY)
                }
                Place::Folder(path) => {
                    let path =
                        CString::new(path.as_os_str().as_encoded_bytes()).map_err(invalid)?;
                    (library.sd_journal_open_directory)(&raw mut handle, path.as_ptr(), 0)
                }
            }
        };
        // Without a handle nothing is to be closed.
        check("sd_journal_open", &place, result)?;
        let files = Self {
            library,
            handle,
            place,
        };
        // A field may be decompressed to this size.
        // SAFETY: the handle is open until the end of `files`.
        let result =
            unsafe { (library.sd_journal_set_data_threshold)(handle, Entry::FIELD_LIMIT + 64) };
        files.check("sd_journal_set_data_threshold", result)?;
        Ok(files)
    }

    fn check(&self, call: &'static str, result: c_int) -> Result<c_int, Error> {
        check(call, &self.place, result)
    }

    /// A call that takes nothing but the handle.
    fn call(
        &self,
        name: &'static str,
        function: unsafe extern "C" fn(*mut Handle) -> c_int,
    ) -> Result<c_int, Error> {
        // SAFETY: the handle is open until the end of `self`.
        self.check(name, unsafe { function(self.handle) })
    }

    fn c_cursor(&self, cursor: &str) -> Result<CString, Error> {
        CString::new(cursor).map_err(|_| Error::Call {
            call: "cursor",
            place: self.place.to_string(),
            source: std::io::ErrorKind::InvalidInput.into(),
        })
    }
}

fn check(call: &'static str, place: &Place, result: c_int) -> Result<c_int, Error> {
    if result >= 0 {
        return Ok(result);
    }
    let source = std::io::Error::from_raw_os_error(-result);
    Err(Error::Call {
        call,
        place: place.to_string(),
        source,
    })
}

impl Drop for Files {
    fn drop(&mut self) {
        // SAFETY: nobody uses the handle after this.
        unsafe { (self.library.sd_journal_close)(self.handle) }
    }
}

impl Journal for Files {
    fn seek_head(&mut self) -> Result<(), Error> {
        self.call("sd_journal_seek_head", self.library.sd_journal_seek_head)
            .map(drop)
    }

    fn seek_cursor(&mut self, cursor: &str) -> Result<(), Error> {
        let cursor = self.c_cursor(cursor)?;
        // SAFETY: the handle is open, the cursor a string.
        let result = unsafe { (self.library.sd_journal_seek_cursor)(self.handle, cursor.as_ptr()) };
        self.check("sd_journal_seek_cursor", result).map(drop)
    }

    fn seek_monotonic(&mut self, boot: Id128, monotonic: u64) -> Result<(), Error> {
        // SAFETY: the handle is open.
        let result =
            unsafe { (self.library.sd_journal_seek_monotonic_usec)(self.handle, boot, monotonic) };
        self.check("sd_journal_seek_monotonic_usec", result)
            .map(drop)
    }

    fn clock_of_boot(&mut self, boot: Id128) -> Result<Option<i64>, Error> {
        let matching = format!("_BOOT_ID={boot}");
        // SAFETY: the handle is open, the match is copied.
        let result = unsafe {
            let data = matching.as_ptr().cast::<c_void>();
            (self.library.sd_journal_add_match)(self.handle, data, matching.len())
        };
        self.check("sd_journal_add_match", result)?;
        let found = self
            .call("sd_journal_seek_tail", self.library.sd_journal_seek_tail)
            .and_then(|_| self.previous());
        let clock = match found {
            Ok(true) => self
                .stamp()
                .map(|stamp| Some(stamp.realtime as i64 - stamp.monotonic as i64)),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        // SAFETY: the handle is open until the end of `self`.
        unsafe { (self.library.sd_journal_flush_matches)(self.handle) };
        clock
    }

    fn next(&mut self) -> Result<bool, Error> {
        self.call("sd_journal_next", self.library.sd_journal_next)
            .map(|moved| moved > 0)
    }

    fn previous(&mut self) -> Result<bool, Error> {
        self.call("sd_journal_previous", self.library.sd_journal_previous)
            .map(|moved| moved > 0)
    }

    fn is_at(&mut self, cursor: &str) -> Result<bool, Error> {
        let cursor = self.c_cursor(cursor)?;
        // SAFETY: the handle is open, the cursor a string.
        let result = unsafe { (self.library.sd_journal_test_cursor)(self.handle, cursor.as_ptr()) };
        self.check("sd_journal_test_cursor", result)
            .map(|same| same > 0)
    }

    fn cursor(&mut self) -> Result<String, Error> {
        let mut text: *mut c_char = std::ptr::null_mut();
        // SAFETY: the handle is open; the call allocates a string.
        let result = unsafe { (self.library.sd_journal_get_cursor)(self.handle, &raw mut text) };
        self.check("sd_journal_get_cursor", result)?;
        // SAFETY: the call succeeded, so this is a string from malloc, which is freed once.
        unsafe {
            let cursor = CStr::from_ptr(text).to_string_lossy().into_owned();
            libc::free(text.cast());
            Ok(cursor)
        }
    }

    fn stamp(&mut self) -> Result<Stamp, Error> {
        let mut stamp = Stamp::default();
        let handle = self.handle;
        // SAFETY: the handle is open, the results are ours.
        let result =
            unsafe { (self.library.sd_journal_get_realtime_usec)(handle, &raw mut stamp.realtime) };
        self.check("sd_journal_get_realtime_usec", result)?;
        // SAFETY: as above.
        let result = unsafe {
            let (time, boot) = (&raw mut stamp.monotonic, &raw mut stamp.boot);
            (self.library.sd_journal_get_monotonic_usec)(handle, time, boot)
        };
        self.check("sd_journal_get_monotonic_usec", result)?;
        if let Some(get_seqnum) = self.library.sd_journal_get_seqnum {
            // SAFETY: as above.
            let result =
                unsafe { get_seqnum(handle, &raw mut stamp.seqnum, &raw mut stamp.seqnum_id) };
            self.check("sd_journal_get_seqnum", result)?;
        } else if let Some(cursor) = Cursor::parse(&self.cursor()?) {
            stamp.seqnum = cursor.seqnum;
            stamp.seqnum_id = cursor.seqnum_id;
        }
        Ok(stamp)
    }

    fn read(&mut self, entry: &mut Entry) -> Result<(), Error> {
        entry.clear();
        entry.stamp = self.stamp()?;
        // SAFETY: the handle is open until the end of `self`.
        unsafe { (self.library.sd_journal_restart_data)(self.handle) };
        loop {
            let mut data: *const c_void = std::ptr::null();
            let mut length = 0;
            // SAFETY: the handle is open; the data are valid until the next call.
            let result = unsafe {
                let (data, length) = (&raw mut data, &raw mut length);
                (self.library.sd_journal_enumerate_available_data)(self.handle, data, length)
            };
            match self.check("sd_journal_enumerate_available_data", result) {
                Ok(0) => return Ok(()),
                // SAFETY: the call succeeded, so there are `length` bytes, copied before the next.
                Ok(_) => entry.add(unsafe { std::slice::from_raw_parts(data.cast(), length) }),
                // A damaged field ends the entry; what was read is shipped.
                Err(Error::Call { source, .. })
                    if matches!(source.raw_os_error(), Some(libc::EBADMSG | libc::EIO)) =>
                {
                    entry.add(b"JOURNAL_DAMAGED=1");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn wait(&mut self, patience: Duration) -> Result<(), Error> {
        let patience = u64::try_from(patience.as_micros()).unwrap_or(u64::MAX);
        // SAFETY: the handle is open.
        let result = unsafe { (self.library.sd_journal_wait)(self.handle, patience) };
        self.check("sd_journal_wait", result).map(drop)
    }
}
