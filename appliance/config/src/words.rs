//! serde's and toml's complaints in the words of somebody who writes a configuration file.

use crate::load::{self, Step};

/// The key that is missing, if that is the complaint.
pub(crate) fn missing(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.strip_suffix('`')
}

/// Whether the key of a line says that its value may be a secret.
pub(crate) fn secret(line: &str) -> bool {
    let key = line
        .split('=')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let words = ["token", "secret", "password", "key", "sha256"];
    words.iter().any(|word| key.contains(word))
}

/// What is wrong with the form of the value at `place`, and what would be right.
pub(crate) fn shape(message: &str, place: &[Step], secret: bool) -> (String, String) {
    let message = message.trim();
    let name = load::name(place);
    let prefix = |text: String| match name.as_str() {
        "" => text,
        name => format!("{name}: {text}"),
    };
    if let Some(key) = missing(message) {
        return (
            prefix(format!("`{key}` is missing")),
            format!("add {key} = …"),
        );
    }
    if let Some((found, known)) = unknown(message, "unknown field ") {
        let hint = suggest(found, &known, "known here");
        return (prefix(format!("`{found}` is not a known key")), hint);
    }
    if let Some((found, known)) = unknown(message, "unknown variant ") {
        let hint = suggest(found, &known, "it is one of");
        return (prefix(format!("`{found}` is not known")), hint);
    }
    for kind in ["invalid type: ", "invalid value: "] {
        if let Some(rest) = message.strip_prefix(kind) {
            let (found, expected) = rest.rsplit_once(", expected ").unwrap_or((rest, ""));
            let found = match secret {
                true => "this value".to_owned(),
                false => article(found),
            };
            return (prefix(format!("{found} does not fit")), wanted(expected));
        }
    }
    (prefix(message.to_owned()), String::new())
}

/// The word that is not known and those that are: ``unknown field `x`, expected one of `a`, `b` ``.
fn unknown<'a>(message: &'a str, kind: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let mut words = message.strip_prefix(kind)?.split('`').skip(1).step_by(2);
    let found = words.next()?;
    Some((found, words.collect()))
}

fn article(found: &str) -> String {
    let kind = found.split(' ').next().unwrap_or("");
    match kind {
        "string" | "sequence" | "map" | "boolean" | "float" => format!("a {found}"),
        "integer" => format!("an {found}"),
        _ => found.to_owned(),
    }
    .replace("a sequence", "a list")
    .replace("a map", "a table")
}

fn wanted(expected: &str) -> String {
    let text = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => {
            let most = match expected {
                "u8" => "255",
                "u16" => "65535",
                "u32" => "4294967295",
                _ => return "a whole number, not negative and without quotes".into(),
            };
            return format!("a whole number from 0 to {most}, without quotes");
        }
        "i64" => "a whole number",
        "a string" | "string" => "text in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list: […]",
        "a map" => "a table",
        "" => "",
        struct_ if struct_.starts_with("struct ") => "a table",
        other => other,
    };
    text.to_owned()
}

/// `did you mean …?` if something is near, and what else there is.
pub(crate) fn suggest(found: &str, known: &[&str], label: &str) -> String {
    let near = near(found, known);
    let list = known.join(", ");
    match (near, known.is_empty()) {
        (_, true) => String::new(),
        (Some(near), _) if known.len() == 1 || known.len() > 12 => {
            format!("did you mean `{near}`?")
        }
        (Some(near), _) => format!("did you mean `{near}`? {label}: {list}"),
        (None, _) => format!("{label}: {list}"),
    }
}

/// The known word that `found` is most likely a misspelling of.
fn near<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let most = (found.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|word| (distance(found, word), *word))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Insertions, deletions, changes and swaps of neighbours that lead from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let fold = |text: &str| -> Vec<char> {
        // Longer words are no misspellings of our keys; `_` and `-` are often mixed up.
        let chars = text.chars().take(64).map(|c| c.to_ascii_lowercase());
        chars.map(|c| if c == '-' { '_' } else { c }).collect()
    };
    let (a, b) = (fold(a), fold(b));
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings_are_near() {
        let known = ["mac", "mtu", "gateway", "gateway6", "gateway_on_link"];
        for (found, expected) in [
            ("gatway", Some("gateway")),
            ("gateway-on-link", Some("gateway_on_link")),
            ("MTU", Some("mtu")),
            ("mut", Some("mtu")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(near(found, &known), expected, "{found}");
        }
    }
}
