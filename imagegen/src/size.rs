//! Sizes as people write them.

/// Parses `512M`, `8G`, `1T` (powers of 1024) or plain bytes.
///
/// # Errors
/// A sentence that says what would be right.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: write it as 512M, 8G or 1T");
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        "T" | "t" | "TiB" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number
        .checked_mul(1 << shift)
        .filter(|&size| size > 0)
        .ok_or_else(wrong)
}

/// A size for people: `155 MiB`, `2.4 GiB`.
pub(crate) fn show(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value >= 10.0 || value.fract() < 0.05 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("8G"), Ok(8 << 30));
        assert_eq!(parse_size("1TiB"), Ok(1 << 40));
        assert_eq!(parse_size("4096"), Ok(4096));
        for wrong in [
            "",
            "G",
            "0",
            "0G",
            "-1G",
            "1.5G",
            "8GB",
            "99999999T",
            "8 G",
            "ä",
        ] {
            assert!(parse_size(wrong).is_err(), "{wrong:?} was taken");
        }
        assert_eq!(show(155 << 20), "155 MiB");
        assert_eq!(show(2_576_980_378), "2.4 GiB");
        assert_eq!(show(8 << 30), "8 GiB");
        assert_eq!(show(512), "512 bytes");
    }
}
