//! A tar reader for what is inside a .deb: ustar and GNU headers, GNU long names, PAX records with
//! extended attributes (tar(5), POSIX pax). No sparse files, no multi-volume archives.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{DebError, Entry, EntryType, Limits};
use crate::inflate::Inflate;
use crate::tree::{Kind, Node};

const BLOCK: u64 = 512;
/// Extended headers (long names, PAX records) may be this long: xattrs have 64 KiB at most.
const MAX_EXTENDED: u64 = 1 << 20;
/// What may follow the two zero blocks that end an archive.
const MAX_PADDING: u64 = 1 << 20;
/// PATH_MAX of Linux.
const MAX_PATH: usize = 4096;

/// What extended headers say about the next entry.
#[derive(Default)]
struct Extended {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    xattrs: BTreeMap<String, Vec<u8>>,
}

/// Reads the whole archive that comes out of `inflate`; `take` gets each entry that `keep` wants.
pub(super) fn read(
    member: &str,
    mut inflate: Inflate<'_>,
    origin: &str,
    limits: &Limits,
    keep: &dyn Fn(&Entry<'_>) -> bool,
    take: &mut dyn FnMut(String, Node),
) -> Result<(), DebError> {
    let unpacked = |source| DebError::Inflate {
        member: member.to_string(),
        source,
    };
    let mut extended = Extended::default();
    let mut header = [0u8; BLOCK as usize];
    loop {
        let offset = inflate.given();
        let tar = |what: &str| DebError::Tar {
            member: member.to_string(),
            offset,
            what: what.to_string(),
        };
        let too_big = |limit| DebError::TooBig {
            member: member.to_string(),
            offset,
            limit,
        };
        inflate.read_exact(&mut header).map_err(unpacked)?;
        if header == [0; BLOCK as usize] {
            break;
        }
        check_sum(&header).map_err(&tar)?;
        let typeflag = header[156];
        let mut size = extended
            .size
            .take()
            .map_or_else(|| number(&header[124..136]), Ok)
            .map_err(&tar)?;
        if offset.saturating_add(size) > limits.unpacked {
            return Err(too_big(limits.unpacked));
        }

        if matches!(typeflag, b'L' | b'K' | b'x' | b'g') {
            if size > MAX_EXTENDED {
                return Err(too_big(MAX_EXTENDED));
            }
            let mut body = vec![0; size as usize];
            inflate.read_exact(&mut body).map_err(unpacked)?;
            inflate.skip(padding(size)).map_err(unpacked)?;
            match typeflag {
                b'L' => extended.path = Some(text(until_nul(&body)).map_err(&tar)?),
                b'K' => extended.link = Some(text(until_nul(&body)).map_err(&tar)?),
                b'x' => records(&body, |k, v| extended.set(k, v)).map_err(&tar)?,
                _ => records(&body, |k, _| match k {
                    "comment" => Ok(()),
                    _ => Err("a global PAX record other than a comment"),
                })
                .map_err(&tar)?,
            }
            continue;
        }

        let ext = std::mem::take(&mut extended);
        let raw_path = match ext.path {
            Some(path) => path,
            None => header_path(&header).map_err(&tar)?,
        };
        let raw_link = match ext.link {
            Some(link) => link,
            None => text(until_nul(&header[157..257])).map_err(&tar)?,
        };
        let path = normalise(&raw_path).ok_or_else(|| tar("a path that leaves the package"))?;
        let kind = match typeflag {
            b'0' | 0 | b'7' if raw_path.ends_with('/') => EntryType::Dir,
            b'0' | 0 | b'7' => EntryType::File,
            b'1' => EntryType::Hardlink,
            b'2' => EntryType::Symlink,
            b'3' => EntryType::CharDevice,
            b'4' => EntryType::BlockDevice,
            b'5' => EntryType::Dir,
            b'6' => EntryType::Fifo,
            _ => return Err(tar("a kind of entry that packages do not have")),
        };
        if kind != EntryType::File {
            // Only files have data; some writers put the size of the target on links.
            if kind != EntryType::Hardlink && size != 0 {
                return Err(tar("data behind an entry that has none"));
            }
            size = 0;
        }
        if size > limits.file {
            return Err(too_big(limits.file));
        }
        let link = match kind {
            EntryType::Symlink if raw_link.is_empty() || raw_link.len() >= MAX_PATH => {
                return Err(tar("a symbolic link with an empty or overlong target"));
            }
            EntryType::Symlink => raw_link,
            EntryType::Hardlink => normalise(&raw_link)
                .ok_or_else(|| tar("a hard link to a path that leaves the package"))?,
            _ => String::new(),
        };
        let small = |range| number(range).and_then(|n| u32::try_from(n).map_err(|_| BAD_NUMBER));
        let mode = (small(&header[100..108]).map_err(&tar)? & 0o7777) as u16;
        let uid = ext.uid.map_or_else(|| small(&header[108..116]), Ok);
        let gid = ext.gid.map_or_else(|| small(&header[116..124]), Ok);
        let mtime = ext.mtime.map_or_else(|| time(&header[136..148]), Ok);
        let (uid, gid, mtime) = (uid.map_err(&tar)?, gid.map_err(&tar)?, mtime.map_err(&tar)?);

        let wanted = keep(&Entry {
            path: &path,
            kind,
            size,
            mode,
            link: &link,
        });
        if !wanted {
            inflate.skip(size + padding(size)).map_err(unpacked)?;
            continue;
        }
        let device = || -> Result<(u32, u32), DebError> {
            Ok((
                small(&header[329..337]).map_err(&tar)?,
                small(&header[337..345]).map_err(&tar)?,
            ))
        };
        let kind = match kind {
            EntryType::Dir => Kind::Dir,
            EntryType::File => {
                let mut data = vec![0; size as usize];
                inflate.read_exact(&mut data).map_err(unpacked)?;
                inflate.skip(padding(size)).map_err(unpacked)?;
                Kind::File(Bytes::from(data))
            }
            EntryType::Symlink => Kind::Symlink(link),
            EntryType::Hardlink => Kind::Hardlink(link),
            EntryType::CharDevice => {
                device().map(|(major, minor)| Kind::CharDevice(major, minor))?
            }
            EntryType::BlockDevice => {
                device().map(|(major, minor)| Kind::BlockDevice(major, minor))?
            }
            EntryType::Fifo => Kind::Fifo,
        };
        let node = Node {
            kind,
            mode,
            uid,
            gid,
            mtime,
            xattrs: ext.xattrs,
            origin: origin.to_string(),
        };
        take(path, node);
    }
    inflate.finish(MAX_PADDING).map_err(unpacked)
}

const BAD_NUMBER: &str = "a number that is none or too large";

impl Extended {
    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), &'static str> {
        let decimal = || {
            let text = std::str::from_utf8(value).map_err(|_| BAD_NUMBER)?;
            // Times may have a fraction, which file systems of this house do not keep.
            let whole = text.split('.').next().unwrap_or_default();
            whole.parse::<i64>().map_err(|_| BAD_NUMBER)
        };
        let id = || decimal().and_then(|n| u32::try_from(n).map_err(|_| BAD_NUMBER));
        match key {
            "path" => self.path = Some(text(value)?),
            "linkpath" => self.link = Some(text(value)?),
            "size" => self.size = Some(u64::try_from(decimal()?).map_err(|_| BAD_NUMBER)?),
            "uid" => self.uid = Some(id()?),
            "gid" => self.gid = Some(id()?),
            "mtime" => self.mtime = Some(decimal()?),
            _ => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    self.xattrs.insert(name.to_string(), value.to_vec());
                } else if key.starts_with("GNU.sparse") {
                    return Err("a sparse file, which packages do not have");
                }
            }
        }
        Ok(())
    }
}

/// Walks PAX records: `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
fn records(
    mut body: &[u8],
    mut each: impl FnMut(&str, &[u8]) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    const BAD: &str = "a PAX record that is not LENGTH KEY=VALUE";
    while !body.is_empty() {
        let space = body.iter().position(|b| *b == b' ').ok_or(BAD)?;
        let length: usize = std::str::from_utf8(&body[..space])
            .ok()
            .and_then(|n| n.parse().ok())
            .filter(|n| (space + 2..=body.len()).contains(n))
            .ok_or(BAD)?;
        let record = body[space + 1..length].strip_suffix(b"\n").ok_or(BAD)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or(BAD)?;
        let key = std::str::from_utf8(&record[..equals]).map_err(|_| BAD)?;
        each(key, &record[equals + 1..])?;
        body = &body[length..];
    }
    Ok(())
}

fn check_sum(header: &[u8; BLOCK as usize]) -> Result<(), &'static str> {
    let sum: u64 = header.iter().map(|b| u64::from(*b)).sum();
    let field: u64 = header[148..156].iter().map(|b| u64::from(*b)).sum();
    match number(&header[148..156]) {
        Ok(stored) if stored == sum - field + 8 * u64::from(b' ') => Ok(()),
        _ => Err("a header whose checksum is wrong"),
    }
}

/// A number of a header: octal text, or base 256 when the first bit is set (GNU).
fn number(field: &[u8]) -> Result<u64, &'static str> {
    if field[0] & 0x80 != 0 {
        if field[0] != 0x80 {
            return Err(BAD_NUMBER);
        }
        return field[1..].iter().try_fold(0u64, |n, b| {
            n.checked_mul(256)
                .map(|n| n + u64::from(*b))
                .ok_or(BAD_NUMBER)
        });
    }
    let digits = field
        .split(|b| *b == 0)
        .next()
        .unwrap_or_default()
        .trim_ascii();
    digits.iter().try_fold(0u64, |n, b| match b {
        b'0'..=b'7' => Ok((n << 3) | u64::from(b - b'0')),
        _ => Err(BAD_NUMBER),
    })
}

/// A time: as [`number`], but base 256 may be negative.
fn time(field: &[u8]) -> Result<i64, &'static str> {
    if field[0] == 0xff {
        // Two's complement, sign-extended over the whole field.
        let low: [u8; 8] = field[4..12].try_into().map_err(|_| BAD_NUMBER)?;
        return Ok(i64::from_be_bytes(low));
    }
    number(field).and_then(|n| i64::try_from(n).map_err(|_| BAD_NUMBER))
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

fn text(bytes: &[u8]) -> Result<String, &'static str> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a name that is not UTF-8")
}

/// The name in a header; POSIX ones may have a prefix in front.
fn header_path(header: &[u8; BLOCK as usize]) -> Result<String, &'static str> {
    let name = text(until_nul(&header[..100]))?;
    let prefix = until_nul(&header[345..500]);
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
        return Ok(format!("{}/{name}", text(prefix)?));
    }
    Ok(name)
}

/// `./usr/bin/` → `/usr/bin`; None for what is absolute, has `..`, NUL or empty parts, is too long.
fn normalise(path: &str) -> Option<String> {
    if path.is_empty() || path.len() >= MAX_PATH || path.contains('\0') {
        return None;
    }
    let mut out = String::with_capacity(path.len() + 1);
    for (index, part) in path.trim_end_matches('/').split('/').enumerate() {
        match part {
            "." if index == 0 => {}
            "" | "." | ".." => return None,
            _ if part.len() > 255 => return None,
            _ => {
                out.push('/');
                out.push_str(part);
            }
        }
    }
    if out.is_empty() {
        out.push('/');
    }
    Some(out)
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}
