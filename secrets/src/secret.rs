//! A value that nobody may see by accident.

use std::fmt;
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags};
use zeroize::{Zeroize, Zeroizing};

/// Largest value, in bytes: systemd's limit for one credential (`CREDENTIAL_SIZE_MAX`).
pub const LARGEST: usize = 1024 * 1024;

/// The kernel gave no memory that can hold a secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "cannot lock {bytes} bytes of memory for a secret: {reason}; raise LimitMEMLOCK= of the unit"
)]
pub struct MemoryError {
    bytes: usize,
    reason: String,
}

/// Bytes in memory of their own: locked (never in swap), left out of core dumps, gone in children,
/// overwritten before it is given back.
///
/// There is no way to print, compare, clone or serialize one: what needs the bytes calls
/// [`Secret::expose`], which is easy to search for.
///
/// ```compile_fail
/// let secret = secrets::Secret::copy_of(b"value").unwrap();
/// println!("{secret}");
/// ```
/// ```compile_fail
/// let secret = secrets::Secret::copy_of(b"value").unwrap();
/// assert!(secret == secret);
/// ```
/// ```compile_fail
/// let secret = secrets::Secret::copy_of(b"value").unwrap();
/// let second = secret.clone();
/// drop(secret);
/// ```
/// ```compile_fail
/// let secret = secrets::Secret::copy_of(b"value").unwrap();
/// serde_json::to_string(&secret).unwrap();
/// ```
pub struct Secret {
    memory: NonNull<u8>,
    /// Of the mapping; 0: there is none.
    mapped: usize,
    length: usize,
}

// SAFETY: the memory belongs to this value alone, and is only written while it is made and dropped.
unsafe impl Send for Secret {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Secret {}

impl Secret {
    /// Copies a value in; the caller wipes its own copy.
    pub fn copy_of(bytes: &[u8]) -> Result<Self, MemoryError> {
        let fail = |error: rustix::io::Errno| MemoryError {
            bytes: bytes.len(),
            reason: error.to_string(),
        };
        if bytes.is_empty() {
            return Ok(Self {
                memory: NonNull::dangling(),
                mapped: 0,
                length: 0,
            });
        }
        let mapped = bytes.len().next_multiple_of(rustix::param::page_size());
        // SAFETY: a new private anonymous mapping at an address that the kernel chooses.
        let memory = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                mapped,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let memory = memory.map_err(fail)?;
        // From here on dropping it unmaps, whatever fails.
        let secret = Self {
            memory: NonNull::new(memory.cast()).unwrap_or(NonNull::dangling()),
            mapped,
            length: bytes.len(),
        };
        for advice in [Advice::LinuxDontDump, Advice::LinuxWipeOnFork] {
            // SAFETY: the mapping made above, whole.
            unsafe { rustix::mm::madvise(memory, mapped, advice) }.map_err(fail)?;
        }
        // SAFETY: the mapping made above, whole.
        unsafe { rustix::mm::mlock(memory, mapped) }.map_err(fail)?;
        // SAFETY: the mapping is at least as long as the bytes, and new, so they do not overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), secret.memory.as_ptr(), bytes.len());
        }
        Ok(secret)
    }

    /// Takes a value over and wipes where it came from.
    pub fn take(bytes: Zeroizing<Vec<u8>>) -> Result<Self, MemoryError> {
        Self::copy_of(&bytes)
    }

    /// The value itself. Do not keep copies of it.
    pub fn expose(&self) -> &[u8] {
        // SAFETY: memory holds `length` initialized bytes for as long as self lives.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.length) }
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it is the empty value.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether both hold the same bytes, in time that depends only on the lengths.
    pub fn same(&self, other: &Self) -> bool {
        self.length == other.length
            && self
                .expose()
                .iter()
                .zip(other.expose())
                .fold(0, |different, (a, b)| different | (a ^ b))
                == 0
    }

    /// The value as text without the white space around it, which files and terminals add.
    /// `None`: it is no UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.expose()).ok().map(str::trim)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        if self.mapped == 0 {
            return;
        }
        // SAFETY: the whole mapping is ours and writable; the kernel zeroed what was not written.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.mapped) }.zeroize();
        // SAFETY: the mapping made in `copy_of`, to which no reference is left.
        // If it fails there is nothing to be done, and nothing to be seen in it either.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), self.mapped) };
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Takes this process out of core dumps and debuggers (`PR_SET_DUMPABLE`, prctl(2)), and refuses to
/// let it write a dump (`RLIMIT_CORE`).
pub fn protect_process() -> std::io::Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(rustix::process::Resource::Core, none)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_never_shown() {
        let secret = Secret::copy_of(b"canary-value").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(format!("{:#?}", Some(&secret)).matches("canary").count(), 0);
        assert_eq!(secret.expose(), b"canary-value");
    }

    #[test]
    fn equality_needs_every_byte() {
        let one = Secret::copy_of(b"0123456789").unwrap();
        for (other, same) in [
            (&b"0123456789"[..], true),
            (b"0123456780", false),
            (b"1123456789", false),
            (b"012345678", false),
            (b"", false),
        ] {
            assert_eq!(
                one.same(&Secret::copy_of(other).unwrap()),
                same,
                "{other:?}"
            );
        }
        let empty = Secret::copy_of(b"").unwrap();
        assert!(empty.is_empty() && empty.same(&Secret::copy_of(b"").unwrap()));
    }

    /// What the kernel says of the page: locked, not dumped, wiped in children.
    #[test]
    fn its_memory_is_locked_and_left_out_of_dumps() {
        let secret = Secret::copy_of(&[7; 5000]).unwrap();
        let address = secret.memory.as_ptr() as usize;
        let hex = |text: &str| usize::from_str_radix(text, 16).ok();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        // Neighbours of equal flags share one entry.
        let ours = |line: &&str| {
            let (start, rest) = line.split_once('-').unwrap_or_default();
            let (end, _) = rest.split_once(' ').unwrap_or_default();
            matches!((hex(start), hex(end)), (Some(start), Some(end)) if (start..end).contains(&address))
        };
        let mut lines = smaps.lines().skip_while(|line| !ours(line));
        assert!(lines.next().is_some(), "a mapping");
        let flags = lines
            .find_map(|line| line.strip_prefix("VmFlags:"))
            .unwrap();
        for flag in ["lo", "dd", "wf"] {
            assert!(flags.split(' ').any(|f| f == flag), "{flag} in {flags}");
        }
    }
}
