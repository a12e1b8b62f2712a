//! Numbers out of the kernel's text files.

/// The number that a word is; what is none counts as zero, as a field that a kernel lacks.
pub(super) fn number(word: Option<&str>) -> f64 {
    word.and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// Pairs of a name and a number, one a line.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, f64)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        Some((words.next()?, words.next()?.parse().ok()?))
    })
}

/// Two lines each, one of names and one of numbers, both beginning with the same word
/// (`/proc/net/snmp`, `/proc/net/netstat`).
pub(super) fn tables(text: &str) -> Vec<(&str, &str, f64)> {
    let mut rows = Vec::new();
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (Some((table, names)), Some((same, values))) =
            (names.split_once(':'), values.split_once(':'))
        else {
            continue;
        };
        if table != same {
            continue;
        }
        let values = values.split_ascii_whitespace().map(str::parse::<f64>);
        for (name, value) in names.split_ascii_whitespace().zip(values) {
            rows.extend(value.ok().map(|value| (table, name, value)));
        }
    }
    rows
}
