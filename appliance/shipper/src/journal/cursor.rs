//! Cursors of the journal (systemd.journal-fields(7), `__CURSOR`).
//!
//! To systemd a cursor is opaque; its form, `s=SEQNUM_ID;i=SEQNUM;b=BOOT;m=MONOTONIC;t=REALTIME;x=HASH`
//! with hexadecimal numbers, has been the same since 2012. The shipper passes cursors on as they
//! are and takes them apart only to count what is missing.

use std::fmt;

/// A 128-bit identifier, as systemd's `sd_id128_t`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct Id128(pub [u8; 16]);

impl Id128 {
    /// Reads 32 hexadecimal digits, with or without the dashes of a UUID.
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 16];
        let mut digits = 0;
        for byte in text.trim_end().bytes().filter(|&byte| byte != b'-') {
            let value = char::from(byte).to_digit(16)? as u8;
            let place = id.get_mut(digits / 2)?;
            *place = *place << 4 | value;
            digits += 1;
        }
        (digits == 32).then_some(Self(id))
    }
}

impl fmt::Display for Id128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a cursor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Whose sequence numbers these are.
    pub seqnum_id: Id128,
    /// Sequence number of the entry.
    pub seqnum: u64,
    /// Boot that the entry was written in.
    pub boot: Id128,
    /// Monotonic time in µs.
    pub monotonic: u64,
    /// Realtime in µs since 1970.
    pub realtime: u64,
    /// Hash of the entry's content.
    pub hash: u64,
}

impl Cursor {
    /// Takes a cursor apart. `None`: it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let mut cursor = Self {
            seqnum_id: Id128::default(),
            seqnum: 0,
            boot: Id128::default(),
            monotonic: 0,
            realtime: 0,
            hash: 0,
        };
        let mut seen = 0u8;
        for part in text.split(';') {
            let (key, value) = part.split_once('=')?;
            let number = || u64::from_str_radix(value, 16).ok();
            let bit = match key {
                "s" => {
                    cursor.seqnum_id = Id128::parse(value)?;
                    1
                }
                "i" => {
                    cursor.seqnum = number()?;
                    2
                }
                "b" => {
                    cursor.boot = Id128::parse(value)?;
                    4
                }
                "m" => {
                    cursor.monotonic = number()?;
                    8
                }
                "t" => {
                    cursor.realtime = number()?;
                    16
                }
                "x" => {
                    cursor.hash = number()?;
                    32
                }
                _ => 0,
            };
            seen |= bit;
        }
        (seen == 63).then_some(cursor)
    }

    /// Whether this is the same entry, its number aside: journald numbers the entries anew that it
    /// moves from `/run` to `/var`.
    pub fn same_entry(&self, other: &Self) -> bool {
        (self.boot, self.monotonic, self.realtime, self.hash)
            == (other.boot, other.monotonic, other.realtime, other.hash)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "s={};i={:x};b={};m={:x};t={:x};x={:x}",
            self.seqnum_id, self.seqnum, self.boot, self.monotonic, self.realtime, self.hash
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &str = "s=739ad463348b4ceca5a9e69c95a3c93f;i=4ece7;b=6c7c6013a26343b29e964691ff25d04c;m=4fc72436e;t=4c508a72423d9;x=d3e5610681098c10";

    #[test]
    fn real_ones_go_and_return() {
        let cursor = Cursor::parse(REAL).unwrap();
        assert_eq!(cursor.seqnum, 0x4ece7);
        assert_eq!(cursor.realtime, 0x4c508a72423d9);
        assert_eq!(cursor.to_string(), REAL);
        let mut renumbered = cursor;
        renumbered.seqnum = 1;
        assert!(cursor.same_entry(&renumbered));
        renumbered.hash = 1;
        assert!(!cursor.same_entry(&renumbered));
    }

    #[test]
    fn others_are_refused() {
        for bad in [
            "",
            "s=1",
            &REAL[1..],
            &REAL[..100],
            "s=x;i=1",
            &format!("{REAL};s="),
        ] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
        assert_eq!(
            Id128::parse("739ad463-348b-4cec-a5a9-e69c95a3c93f\n")
                .unwrap()
                .to_string(),
            &REAL[2..34]
        );
        assert_eq!(Id128::parse("739ad463348b4ceca5a9e69c95a3c93f0"), None);
    }
}
