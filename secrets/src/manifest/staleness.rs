//! For how long an old value does.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How old the last word of a provider may be for a value to be handed out still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staleness {
    /// Never from an earlier boot; the value is not kept on disk, sealed or not.
    Never,
    /// As long as this after the provider confirmed it last.
    For(Duration),
    /// However old it is.
    Forever,
}

impl Staleness {
    /// Whether a value does whose provider confirmed it this long ago, in an earlier boot or not.
    pub fn allows(self, age: Duration, earlier_boot: bool) -> bool {
        match self {
            Self::Never => !earlier_boot,
            Self::For(longest) => age <= longest,
            Self::Forever => true,
        }
    }
}

impl FromStr for Staleness {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "never" => Ok(Self::Never),
            "forever" => Ok(Self::Forever),
            _ => duration(text).map(Self::For),
        }
    }
}

impl fmt::Display for Staleness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::For(longest) => write!(f, "{}s", longest.as_secs()),
            Self::Forever => f.write_str("forever"),
        }
    }
}

/// A number and a unit: `30s`, `5m`, `12h`, `7d`; at least a second, at most ten years.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let fail = || format!("{text:?} is no duration: write 30s, 5m, 12h or 7d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(fail()),
    };
    if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return Err(fail());
    }
    let seconds = digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor));
    match seconds {
        Some(seconds @ 1..=315_360_000) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{text:?} is not between 1s and 3650d")),
    }
}
