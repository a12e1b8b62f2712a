//! The `ar` container of a .deb (deb(5)): `!<arch>\n`, then members, each with a header of 60 bytes
//! and padded to an even offset. Only the plain short names that dpkg-deb writes are accepted.

use super::DebError;

/// The first bytes of every `ar` file.
const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: usize = 60;

/// One member: its name and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member<'a> {
    /// The name without padding and without the `/` that some tools append.
    pub(super) name: &'a str,
    /// The content.
    pub(super) data: &'a [u8],
}

/// All members of `file`, in order.
///
/// # Errors
/// [`DebError::NotAr`], [`DebError::Ar`].
pub(super) fn members(file: &[u8]) -> Result<Vec<Member<'_>>, DebError> {
    if !file.starts_with(MAGIC) {
        return Err(DebError::NotAr);
    }
    let mut members = Vec::new();
    let mut at = MAGIC.len();
    while at < file.len() {
        let bad = |what| DebError::Ar {
            offset: at as u64,
            what,
        };
        let header = file
            .get(at..at + HEADER)
            .ok_or_else(|| bad("the header of a member is cut off"))?;
        if &header[58..60] != b"`\n" {
            return Err(bad("a member's header does not end as it must"));
        }
        let name = std::str::from_utf8(&header[..16])
            .ok()
            .map(|name| name.trim_end_matches(' ').trim_end_matches('/'))
            .filter(|name| !name.is_empty() && !name.starts_with('#') && !name.contains('/'))
            .ok_or_else(|| bad("a member's name is none that a package has"))?;
        let size = std::str::from_utf8(&header[48..58])
            .ok()
            .and_then(|size| size.trim_end_matches(' ').parse::<usize>().ok())
            .ok_or_else(|| bad("a member's size is not a decimal number"))?;
        let start = at + HEADER;
        let data = start
            .checked_add(size)
            .and_then(|end| file.get(start..end))
            .ok_or_else(|| bad("a member is longer than the file"))?;
        members.push(Member { name, data });
        at = start + size + size % 2;
    }
    Ok(members)
}
