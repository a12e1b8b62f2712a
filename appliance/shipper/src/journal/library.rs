//! libsystemd, loaded at run time: the binary starts and says what is missing on a host without
//! it, and no header is needed to build it.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use super::{Error, Id128};

/// `sd_journal`, only ever seen by its address.
#[repr(C)]
pub(super) struct Handle {
    _private: [u8; 0],
}

/// `SD_JOURNAL_LOCAL_ONLY` of sd_journal_open(3).
pub(super) const LOCAL_ONLY: c_int = 1;

macro_rules! library {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions in use, as sd-journal(3) declares them: those with a result return an errno
        /// as a negative number.
        pub(super) struct Library {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            /// Since systemd 254.
            pub(super) sd_journal_get_seqnum:
                Option<unsafe extern "C" fn(*mut Handle, *mut u64, *mut Id128) -> c_int>,
        }

        impl Library {
            fn load() -> Result<Self, String> {
                // SAFETY: the library is systemd's, whose constructors have no preconditions.
                let library = unsafe { libc::dlopen(c"libsystemd.so.0".as_ptr(), libc::RTLD_NOW) };
                if library.is_null() {
                    return Err(last_error());
                }
                Ok(Self {
                    $($name: {
                        let address = symbol(library, concat!(stringify!($name), "\0"))?;
                        // SAFETY: the type is that of the function in sd-journal(3).
                        unsafe {
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($argument),*) $(-> $result)?,
                            >(address)
                        }
                    },)*
                    sd_journal_get_seqnum: symbol(library, "sd_journal_get_seqnum\0")
                        .ok()
                        .map(|address| {
                            // SAFETY: the type is that of the function in sd-journal(3).
                            unsafe {
                                std::mem::transmute::<
                                    *mut c_void,
                                    unsafe extern "C" fn(*mut Handle, *mut u64, *mut Id128) -> c_int,
                                >(address)
                            }
                        }),
                })
            }
        }
    };
}

library! {
    sd_journal_open: fn(*mut *mut Handle, c_int) -> c_int;
    sd_journal_open_namespace: fn(*mut *mut Handle, *const c_char, c_int) -> c_int;
    sd_journal_open_directory: fn(*mut *mut Handle, *const c_char, c_int) -> c_int;
    sd_journal_set_data_threshold: fn(*mut Handle, usize) -> c_int;
    sd_journal_next: fn(*mut Handle) -> c_int;
    sd_journal_previous: fn(*mut Handle) -> c_int;
    sd_journal_seek_head: fn(*mut Handle) -> c_int;
    sd_journal_seek_tail: fn(*mut Handle) -> c_int;
    sd_journal_seek_cursor: fn(*mut Handle, *const c_char) -> c_int;
    sd_journal_seek_monotonic_usec: fn(*mut Handle, Id128, u64) -> c_int;
    sd_journal_test_cursor: fn(*mut Handle, *const c_char) -> c_int;
    sd_journal_get_cursor: fn(*mut Handle, *mut *mut c_char) -> c_int;
    sd_journal_get_realtime_usec: fn(*mut Handle, *mut u64) -> c_int;
    sd_journal_get_monotonic_usec: fn(*mut Handle, *mut u64, *mut Id128) -> c_int;
    sd_journal_restart_data: fn(*mut Handle);
    sd_journal_enumerate_available_data: fn(*mut Handle, *mut *const c_void, *mut usize) -> c_int;
    sd_journal_add_match: fn(*mut Handle, *const c_void, usize) -> c_int;
    sd_journal_flush_matches: fn(*mut Handle);
    sd_journal_wait: fn(*mut Handle, u64) -> c_int;
    sd_journal_close: fn(*mut Handle);
}

/// The library, loaded once.
pub(super) fn library() -> Result<&'static Library, Error> {
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    let library = LIBRARY.get_or_init(Library::load);
    library
        .as_ref()
        .map_err(|error| Error::Library(error.clone()))
}

/// Address of a function; `name` ends with a NUL.
fn symbol(library: *mut c_void, name: &str) -> Result<*mut c_void, String> {
    // SAFETY: the library is open for ever, and the name ends with a NUL.
    let address = unsafe { libc::dlsym(library, name.as_ptr().cast()) };
    if address.is_null() {
        Err(last_error())
    } else {
        Ok(address)
    }
}

fn last_error() -> String {
    // SAFETY: dlerror gives NULL or a string that lives until the next call of this thread.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            "unknown error".into()
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }
}
