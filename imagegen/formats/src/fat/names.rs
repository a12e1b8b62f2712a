//! Long names, short names, and the bytes that hold both.

use std::collections::BTreeSet;

use super::{ATTR_LONG, ENTRY};

/// Units of a long name in one entry.
pub(super) const LONG_UNITS: usize = 13;
/// Where they are in the entry.
pub(super) const LONG_PLACES: [usize; LONG_UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// A short name as on the disk: 8 and 3 bytes, padded with spaces.
pub(super) type Short = [u8; 11];

/// Why `name` cannot be a name on FAT, if it cannot.
pub(super) fn refuse(name: &str) -> Option<&'static str> {
    if name.encode_utf16().count() > 255 {
        return Some("it has more than 255 characters");
    }
    if name
        .chars()
        .any(|c| c < ' ' || c == '\x7F' || "\"*/:<>?\\|".contains(c))
    {
        return Some("it has a character that FAT forbids");
    }
    if name.ends_with(['.', ' ']) || name.starts_with(' ') {
        return Some("it begins with a space, or ends with one or with a dot");
    }
    None
}

/// The name as case-insensitive systems compare it.
pub(super) fn folded(name: &str) -> String {
    name.chars().flat_map(char::to_uppercase).collect()
}

/// Characters of a short name.
fn is_short(c: char) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit() || "!#$%&'()-@^_`{}~".contains(c)
}

/// The short name for `name`, unlike all in `taken` (to which it is added), and whether it says
/// all, so that no long name is needed.
pub(super) fn short(name: &str, taken: &mut BTreeSet<Short>) -> Option<(Short, bool)> {
    let (base, extension) = match name.rfind('.') {
        // A leading dot begins no extension.
        Some(at) if at > 0 => (&name[..at], &name[at + 1..]),
        _ => (name, ""),
    };
    let plain = |part: &str, max: usize| part.len() <= max && part.chars().all(is_short);
    if !base.is_empty() && plain(base, 8) && plain(extension, 3) && !name.ends_with('.') {
        let short = pad(base, extension);
        if taken.insert(short) {
            return Some((short, true));
        }
    }
    // The basis name: upper case, without spaces and dots, strange characters as underscores.
    let basis = |part: &str, max: usize| -> String {
        part.chars()
            .filter(|c| *c != ' ' && *c != '.')
            .map(|c| c.to_ascii_uppercase())
            .map(|c| if is_short(c) { c } else { '_' })
            .take(max)
            .collect()
    };
    let (base, extension) = (basis(base, 8), basis(extension, 3));
    (1..1_000_000).find_map(|number| {
        let tail = format!("~{number}");
        let keep = base.len().min(8 - tail.len());
        let short = pad(&format!("{}{tail}", &base[..keep]), &extension);
        taken.insert(short).then_some((short, false))
    })
}

/// Both parts in their places.
fn pad(base: &str, extension: &str) -> Short {
    let mut out = [b' '; 11];
    out[..base.len()].copy_from_slice(base.as_bytes());
    out[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
    out
}

/// The checksum of the short name in the entries of the long one.
pub(super) fn checksum(short: &Short) -> u8 {
    short
        .iter()
        .fold(0u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte))
}

/// The entries of a long name, in the order of the disk: last part first.
pub(super) fn long_entries(name: &str, short: &Short) -> Vec<u8> {
    let units: Vec<u16> = name.encode_utf16().collect();
    let parts = units.len().div_ceil(LONG_UNITS);
    let mut out = Vec::with_capacity(parts * ENTRY);
    for (number, part) in units.chunks(LONG_UNITS).enumerate().rev() {
        let mut entry = [0; ENTRY];
        let last = if number + 1 == parts { 0x40 } else { 0 };
        entry[0] = (number + 1) as u8 | last;
        entry[11] = ATTR_LONG;
        entry[13] = checksum(short);
        for (at, place) in LONG_PLACES.into_iter().enumerate() {
            // The name, a zero if there is room for one, and ones.
            let unit = match at.cmp(&part.len()) {
                std::cmp::Ordering::Less => part[at],
                std::cmp::Ordering::Equal => 0,
                std::cmp::Ordering::Greater => 0xFFFF,
            };
            entry[place..place + 2].copy_from_slice(&unit.to_le_bytes());
        }
        out.extend_from_slice(&entry);
    }
    out
}

/// Date and time of FAT (UTC): since 1980, in steps of two seconds.
pub(super) fn timestamp(clock: i64) -> (u16, u16) {
    const FIRST: i64 = 315_532_800;
    const LAST: i64 = 4_354_819_198;
    let clock = clock.clamp(FIRST, LAST);
    let (days, seconds) = (clock.div_euclid(86_400), clock.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let date = ((year - 1980) << 9) | (month << 5) | day;
    let time = (seconds / 3600) << 11 | (seconds / 60 % 60) << 5 | ((seconds % 60) / 2);
    (date as u16, time as u16)
}

/// Year, month and day of a number of days since 1970 (Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    // Counted from 1 March 0000, so that the leap day is the last of its year.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(short: Short) -> String {
        String::from_utf8(short.to_vec()).unwrap()
    }

    #[test]
    fn short_names() {
        let mut taken = BTreeSet::new();
        let mut get = |name: &str| {
            let (short, all) = short(name, &mut taken).unwrap();
            (text(short), all)
        };
        assert_eq!(get("BOOTX64.EFI"), ("BOOTX64 EFI".into(), true));
        assert_eq!(get("EFI"), ("EFI        ".into(), true));
        assert_eq!(get("loader"), ("LOADER~1   ".into(), false));
        assert_eq!(get("loader.conf"), ("LOADER~1CON".into(), false));
        assert_eq!(get("loader.configuration"), ("LOADER~2CON".into(), false));
        assert_eq!(get("larder_1.2.3+3.efi"), ("LARDER~1EFI".into(), false));
        assert_eq!(get(".hidden"), ("HIDDEN~1   ".into(), false));
        assert_eq!(get("ä b.é"), ("_B~1    _  ".into(), false));
        assert_eq!(get("A.B.C"), ("AB~1    C  ".into(), false));
        for number in 2..=12 {
            let name = format!("loader{number:05}");
            assert_eq!(get(&name).0.len(), 11);
        }
    }

    #[test]
    fn names_that_fat_cannot_hold() {
        for bad in ["a:b", "a.", "a ", " a", "a\u{1}", "a\\b", &"x".repeat(256)] {
            assert!(refuse(bad).is_some(), "{bad}");
        }
        for good in ["a+b.efi", "[x];=,", "ä", &"x".repeat(255)] {
            assert!(refuse(good).is_none(), "{good}");
        }
    }

    #[test]
    fn times() {
        // 2026-11-24 16:30:59
        let (date, time) = timestamp(1_795_537_859);
        assert_eq!((date >> 9, date >> 5 & 15, date & 31), (46, 11, 24));
        assert_eq!((time >> 11, time >> 5 & 63, time & 31), (16, 30, 29));
        assert_eq!(timestamp(0), (1 << 5 | 1, 0));
        assert_eq!(timestamp(i64::MAX).0, 127 << 9 | 12 << 5 | 31);
        // A leap day.
        let (date, _) = timestamp(951_782_400);
        assert_eq!((date >> 9, date >> 5 & 15, date & 31), (20, 2, 29));
    }
}
