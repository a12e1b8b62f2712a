//! One entry of the journal, in memory that is used again.

use super::Id128;

/// Identity and times of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// When journald received it, in µs since 1970, by the clock of then.
    pub realtime: u64,
    /// The same by the monotonic clock of its boot, in µs.
    pub monotonic: u64,
    /// Its boot.
    pub boot: Id128,
    /// Whose sequence numbers these are.
    pub seqnum_id: Id128,
    /// Its sequence number, one more than that of the entry before.
    pub seqnum: u64,
}

/// One entry.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Identity and times.
    pub stamp: Stamp,
    bytes: Vec<u8>,
    /// Start of the field, of its value, end.
    fields: Vec<[u32; 3]>,
}

/// Fields beginning with an underscore (those that journald adds) that are kept.
const TRUSTED: [&[u8]; 7] = [
    b"_SYSTEMD_UNIT",
    b"_TRANSPORT",
    b"_PID",
    b"_SOURCE_REALTIME_TIMESTAMP",
    b"_STREAM_ID",
    b"_COMM",
    b"_UID",
];

impl Entry {
    /// Longest part of a field that is kept, in bytes.
    pub const FIELD_LIMIT: usize = 512 * 1024;
    /// Most fields that are kept.
    const FIELDS: usize = 256;

    /// Forgets all fields.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        // One monster is no reason to keep its memory.
        if self.bytes.capacity() > 2 * Self::FIELD_LIMIT {
            self.bytes = Vec::new();
        }
    }

    /// Adds `NAME=value` if it is one of the fields that anybody wants.
    pub fn add(&mut self, field: &[u8]) {
        let Some(equals) = memchr::memchr(b'=', field) else {
            return;
        };
        let name = &field[..equals];
        if name.first() == Some(&b'_') && !TRUSTED.contains(&name)
            || self.fields.len() >= Self::FIELDS
            || self.bytes.len() >= 2 * Self::FIELD_LIMIT
        {
            return;
        }
        let field = &field[..field.len().min(equals + 1 + Self::FIELD_LIMIT)];
        let start = self.bytes.len();
        self.bytes.extend_from_slice(field);
        // Both are far below 4 GiB.
        let at = |offset: usize| (start + offset) as u32;
        self.fields.push([at(0), at(equals + 1), at(field.len())]);
    }

    /// All fields, name and value.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|&[start, value, end]| {
            (
                &self.bytes[start as usize..value as usize - 1],
                &self.bytes[value as usize..end as usize],
            )
        })
    }

    /// The value of the first field of this name.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields()
            .find(|(other, _)| *other == name.as_bytes())
            .map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_wanted() {
        let mut entry = Entry::default();
        for field in [
            &b"MESSAGE=a=b"[..],
            b"_PID=7",
            b"_CAP_EFFECTIVE=0",
            b"none",
            b"EMPTY=",
        ] {
            entry.add(field);
        }
        assert_eq!(entry.field("MESSAGE"), Some(&b"a=b"[..]));
        assert_eq!(entry.field("_PID"), Some(&b"7"[..]));
        assert_eq!(entry.field("EMPTY"), Some(&b""[..]));
        assert_eq!(entry.fields().count(), 3);
    }

    #[test]
    fn memory_is_bounded() {
        let mut entry = Entry::default();
        let mut monster = b"MESSAGE=".to_vec();
        monster.resize(3 << 20, b'x');
        for _ in 0..100 {
            entry.add(&monster);
        }
        assert_eq!(entry.field("MESSAGE").unwrap().len(), Entry::FIELD_LIMIT);
        assert!(entry.bytes.len() < 4 * Entry::FIELD_LIMIT);
        entry.clear();
        assert!(entry.bytes.capacity() < Entry::FIELD_LIMIT);
    }
}
