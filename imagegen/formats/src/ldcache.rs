//! `/etc/ld.so.cache`, which the dynamic loader finds shared libraries by: a writer that chooses
//! and sorts as ldconfig of glibc 2.41 does, and a reader.
//!
//! Only the format of its own (`glibc-ld.so.cache1.1`, glibc's `elf/cache.c` and
//! `sysdeps/generic/dl-cache.h`), which is all that glibc has written since 2.32: a header of 48
//! bytes, entries of 24, strings ended by NUL; offsets count from the start of the file. Subfolders
//! `glibc-hwcaps` are not looked at, and the extension that names the writer is left out: the loader
//! asks for neither.

use std::collections::BTreeMap;

use crate::elf::{self, EM_AARCH64, EM_X86_64, ET_DYN, Elf, PT_DYNAMIC};
use crate::tree::{Kind, Tree};

const MAGIC: &[u8; 20] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;
const ENTRY: usize = 24;
/// Flag in the header: little-endian.
const LITTLE_ENDIAN: u8 = 2;
/// `FLAG_ELF_LIBC6`, and the kinds of library of dl-cache.h.
const X86_64_LIBC6: u32 = 0x0303;
const AARCH64_LIBC6: u32 = 0x0a03;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;

/// Where the loader of Debian's amd64 looks, in ldconfig's order: `ld.so.conf.d`, then what is
/// built in. Folders that are the same after links count once, under the first name.
pub const DEBIAN_AMD64: [&str; 6] = [
    "/usr/local/lib",
    "/usr/local/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib",
    "/usr/lib",
];

/// One library of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// What programs ask for: `libz.so.1`.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// Kind of library and machine.
    pub flags: u32,
}

/// Why bytes are no cache, or a tree has none.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LdCacheError {
    /// Another format.
    #[error("not a cache of the dynamic loader: it does not begin with `glibc-ld.so.cache1.1`")]
    NotCache,
    /// Damaged or cut off.
    #[error("damaged cache of the dynamic loader at byte {offset}: {what}")]
    Damaged {
        /// Offset of the structure.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// More than the format's 32-bit offsets reach.
    #[error("the cache of the dynamic loader would be larger than 4 GiB")]
    TooBig,
}

/// The cache of the libraries in `dirs`, for instance [`DEBIAN_AMD64`]. A folder that is not there
/// is skipped, as is what is no 64-bit library (linker scripts are called `.so` too).
///
/// # Errors
/// [`LdCacheError::TooBig`].
pub fn from_tree(tree: &Tree, dirs: &[&str]) -> Result<Vec<u8>, LdCacheError> {
    write(&libraries(tree, dirs))
}

/// What ldconfig finds, in the order of the cache.
fn libraries(tree: &Tree, dirs: &[&str]) -> Vec<Library> {
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for dir in dirs {
        let Some(real) = tree.resolve(dir) else {
            continue;
        };
        if !seen.contains(&real) {
            search(tree, dir, &real, &mut found);
            seen.push(real);
        }
    }
    // The loader's binary search wants them from the last to the first.
    found.sort_by(|a, b| compare(&b.name, &a.name).then_with(|| b.flags.cmp(&a.flags)));
    found
}

/// A candidate: the file's own name, and whether it is a link that only serves the linker.
struct Candidate {
    file: String,
    is_link: bool,
    flags: u32,
}

/// The libraries of one folder: for each name the newest file, files before links.
fn search(tree: &Tree, dir: &str, real: &str, found: &mut Vec<Library>) {
    let prefix = format!("{}/", real.trim_end_matches('/'));
    let mut chosen: BTreeMap<String, Candidate> = BTreeMap::new();
    for (path, node) in tree.below(real) {
        let Some(file) = path.strip_prefix(&prefix) else {
            continue;
        };
        if file.contains('/') || !is_library_name(file) {
            continue;
        }
        let link = matches!(node.kind, Kind::Symlink(_));
        let Some(target) = tree.resolve(path) else {
            continue;
        };
        let content = match tree.get(&target).map(|node| &node.kind) {
            Some(Kind::File(data)) => data,
            Some(Kind::Hardlink(to)) => match tree.get(to).and_then(|node| node.content()) {
                Some(data) => data,
                None => continue,
            },
            _ => continue,
        };
        let Some((soname, flags)) = soname(content) else {
            continue;
        };
        let mut name = soname.unwrap_or_else(|| file.to_string());
        // A link that is not the soname's own counts as the file that it leads to, except the
        // `libz.so` of development packages, which is a name of its own.
        let is_link = link && (file == name || (file.ends_with(".so") && name.starts_with(file)));
        if is_link {
            name = file.to_string();
        }
        let better = chosen.get(&name).is_none_or(|old| {
            (old.is_link && !is_link)
                || (old.is_link == is_link && compare(&old.file, file).is_lt())
        });
        if better {
            let file = file.to_string();
            chosen.insert(
                name,
                Candidate {
                    file,
                    is_link,
                    flags,
                },
            );
        }
    }
    for (name, candidate) in chosen {
        // ldconfig makes a missing link `soname`; a tree that has none is taken as it is.
        let file = match tree.get(&format!("{prefix}{name}")) {
            Some(_) => &name,
            None => &candidate.file,
        };
        found.push(Library {
            path: format!("{}/{file}", dir.trim_end_matches('/')),
            name,
            flags: candidate.flags,
        });
    }
}

fn is_library_name(file: &str) -> bool {
    (file.starts_with("lib") || file.starts_with("ld-"))
        && file.contains(".so")
        && !file.ends_with("-gdb.py")
}

/// The `DT_SONAME`, if it has one, and the flags of a shared library; None for anything else.
fn soname(bytes: &[u8]) -> Option<(Option<String>, u32)> {
    let file = Elf::parse(bytes).ok()?;
    let flags = match (file.kind, file.machine) {
        (ET_DYN, EM_X86_64) => X86_64_LIBC6,
        (ET_DYN, EM_AARCH64) => AARCH64_LIBC6,
        _ => return None,
    };
    let segments = file.segments().ok()?;
    let table = segments.iter().find(|s| s.kind == PT_DYNAMIC)?;
    let entry = |wanted| elf::dynamic(table.data).find(|(tag, _)| *tag == wanted);
    let name = entry(DT_SONAME).and_then(|(_, at)| {
        let strings = Elf::memory(&segments, entry(DT_STRTAB)?.1)?;
        let name = elf::string(strings, usize::try_from(at).ok()?)?;
        String::from_utf8(name.to_vec()).ok()
    });
    Some((name, flags))
}

/// `_dl_cache_libcmp`: runs of digits compare as numbers and come after everything else.
fn compare(a: &str, b: &str) -> std::cmp::Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while let Some(&first) = a.first() {
        let other = b.first().copied().unwrap_or(0);
        match (first.is_ascii_digit(), other.is_ascii_digit()) {
            (true, true) => {
                let ((left, rest), (right, other_rest)) = (number(a), number(b));
                if left != right {
                    return left.cmp(&right);
                }
                (a, b) = (rest, other_rest);
            }
            (true, false) => return std::cmp::Ordering::Greater,
            (false, true) => return std::cmp::Ordering::Less,
            (false, false) if first != other => return first.cmp(&other),
            (false, false) => (a, b) = (&a[1..], &b[1..]),
        }
    }
    0.cmp(&b.len())
}

/// The number at the start, and what follows it.
fn number(text: &[u8]) -> (u64, &[u8]) {
    let digits = text.iter().take_while(|c| c.is_ascii_digit()).count();
    let value = text[..digits].iter().fold(0u64, |n, c| {
        n.wrapping_mul(10).wrapping_add(u64::from(c - b'0'))
    });
    (value, &text[digits..])
}

/// Writes entries in the order given.
fn write(libraries: &[Library]) -> Result<Vec<u8>, LdCacheError> {
    let word = |n: usize| u32::try_from(n).map_err(|_| LdCacheError::TooBig);
    let base = HEADER + ENTRY * libraries.len();
    let mut strings: Vec<u8> = Vec::new();
    let mut entries = Vec::with_capacity(ENTRY * libraries.len());
    for library in libraries {
        // `/lib/libz.so.1` ends with `libz.so.1`: one string for both.
        let path = base + strings.len();
        strings.extend_from_slice(library.path.as_bytes());
        let name = if library.path.ends_with(&library.name) {
            path + library.path.len() - library.name.len()
        } else {
            strings.push(0);
            let at = base + strings.len();
            strings.extend_from_slice(library.name.as_bytes());
            at
        };
        strings.push(0);
        entries.extend_from_slice(&library.flags.to_le_bytes());
        entries.extend_from_slice(&word(name)?.to_le_bytes());
        entries.extend_from_slice(&word(path)?.to_le_bytes());
        // OS version, unused, and hardware capabilities, none.
        entries.extend_from_slice(&[0; 12]);
    }
    let mut out = Vec::with_capacity(base + strings.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&word(libraries.len())?.to_le_bytes());
    out.extend_from_slice(&word(strings.len())?.to_le_bytes());
    out.extend_from_slice(&[LITTLE_ENDIAN, 0, 0, 0]);
    // No extensions, and three unused words.
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&entries);
    out.extend_from_slice(&strings);
    Ok(out)
}

/// Reads a cache.
///
/// # Errors
/// [`LdCacheError::NotCache`], [`LdCacheError::Damaged`].
pub fn parse(bytes: &[u8]) -> Result<Vec<Library>, LdCacheError> {
    if !bytes.starts_with(MAGIC) {
        return Err(LdCacheError::NotCache);
    }
    let damaged = |offset: usize, what| LdCacheError::Damaged {
        offset: offset as u64,
        what,
    };
    if bytes.len() < HEADER {
        return Err(damaged(0, "the header is cut off"));
    }
    if !matches!(bytes[28] & 3, 0 | LITTLE_ENDIAN) {
        return Err(damaged(28, "not little-endian"));
    }
    let count = elf::u32_at(bytes, 20) as usize;
    let table = count
        .checked_mul(ENTRY)
        .and_then(|size| bytes.get(HEADER..HEADER.checked_add(size)?))
        .ok_or_else(|| damaged(20, "more entries than the file has room for"))?;
    let text = |at: usize, offset: usize| {
        let value = elf::u32_at(bytes, offset) as usize;
        let string = elf::string(bytes, value).filter(|_| value >= HEADER);
        let string = string.ok_or_else(|| damaged(at, "a string lies outside of the file"))?;
        String::from_utf8(string.to_vec()).map_err(|_| damaged(value, "a name that is not UTF-8"))
    };
    (0..table.len() / ENTRY)
        .map(|index| {
            let at = HEADER + index * ENTRY;
            Ok(Library {
                name: text(at, at + 4)?,
                path: text(at, at + 8)?,
                flags: elf::u32_at(bytes, at),
            })
        })
        .collect()
}

/// For fuzzing: any bytes are a cache or a typed error.
pub fn fuzz(data: &[u8]) {
    if let Ok(libraries) = parse(data)
        && let Ok(again) = write(&libraries)
    {
        assert_eq!(parse(&again).as_ref(), Ok(&libraries));
    }
    soname(data);
}

#[cfg(test)]
mod tests;
