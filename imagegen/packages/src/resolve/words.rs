//! What the resolver says when there is no answer: who asked for what, and what there is instead.

use super::{Because, Resolver};
use crate::relation::{Relation, show};

impl Resolver<'_, '_, '_> {
    /// A sentence about a name that no suite has.
    pub(super) fn unknown(&self, name: &str) -> String {
        let suites = self
            .wish
            .pins
            .get(name)
            .map_or(self.wish.suites.join(", "), String::clone);
        let elsewhere: Vec<&str> = self
            .universe
            .named(name)
            .map(|s| self.universe.suites[s.suite].name.as_str())
            .collect();
        let providers: Vec<&str> = self
            .universe
            .providers(name)
            .map(|(s, _)| s.name)
            .take(5)
            .collect();
        let hint = if !elsewhere.is_empty() {
            format!(" (it is in {}: pin it to that suite)", elsewhere.join(", "))
        } else if !providers.is_empty() {
            format!(
                " (it is a virtual package, provided by {}: name one of them)",
                providers.join(", ")
            )
        } else {
            self.similar(name)
        };
        format!("package `{name}`: not in {suites}{hint}")
    }

    /// A hint at a name of which this one is a misspelling.
    fn similar(&self, name: &str) -> String {
        let best = self
            .universe
            .stanzas
            .iter()
            .filter(|s| s.name.len().abs_diff(name.len()) <= 2)
            .map(|s| (distance(s.name, name), s.name))
            .min();
        match best {
            Some((distance, best)) if distance <= 2 => format!(" (`{best}` is)"),
            _ => String::new(),
        }
    }

    /// `openssh-server 1:10.0p1-7 (asked for)` or `libc6 2.41-12 ← bash 5.2 (Essential)`.
    pub(super) fn chain(&self, mut number: usize) -> String {
        let mut out = String::new();
        loop {
            let (stanza, because) = &self.selected[number];
            out += &format!("{} {}", stanza.name, stanza.version);
            match because {
                Because::Requested => return out + " (asked for)",
                Because::Essential => return out + " (Essential)",
                Because::Needed(by) => {
                    out += " ← ";
                    number = *by;
                }
            }
        }
    }

    pub(super) fn impossible(&self, number: usize, field: &str, group: &[Relation<'_>]) -> String {
        let found: Vec<String> = group
            .iter()
            .map(|r| {
                if let Some(&number) = self.by_name.get(r.name) {
                    return format!("{} {} is selected", r.name, self.selected[number].0.version);
                }
                let versions: Vec<String> = self
                    .universe
                    .named(r.name)
                    .map(|s| format!("{} in {}", s.version, self.universe.suites[s.suite].name))
                    .collect();
                match versions.as_slice() {
                    [] => format!("there is no {}", r.name),
                    versions => format!("there is {} {}", r.name, versions.join(", ")),
                }
            })
            .collect();
        format!(
            "{field}: {}, but {}; asked by {}",
            show(group),
            found.join(", "),
            self.chain(number)
        )
    }
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y))
                .min(row[j] + 1)
                .min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}
