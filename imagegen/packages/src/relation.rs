//! Dependency fields: `a (>= 1) | b, c:any` (Debian Policy 7.1).

use std::fmt;

use crate::version::Op;

/// One package name with an optional bound on its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Package, real or virtual; an architecture qualifier (`:any`) is dropped.
    pub name: &'a str,
    /// Bound on the version.
    pub bound: Option<(Op, &'a str)>,
}

impl Relation<'_> {
    /// Whether a package of this version fulfils the bound.
    pub fn admits(&self, version: &str) -> bool {
        self.bound
            .is_none_or(|(op, bound)| op.holds(version, bound))
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        match self.bound {
            Some((op, version)) => write!(f, " ({} {version})", op.as_str()),
            None => Ok(()),
        }
    }
}

/// Alternatives separated by `|`, of which one must hold.
pub type Group<'a> = Vec<Relation<'a>>;

/// Shows alternatives as they were written.
pub fn show(group: &[Relation<'_>]) -> String {
    group
        .iter()
        .map(Relation::to_string)
        .collect::<Vec<_>>()
        .join(" | ")
}

/// Parses a dependency field; the error is the part that is not understood.
pub fn parse(field: &str) -> Result<Vec<Group<'_>>, &str> {
    field
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .map(|group| group.split('|').map(one).collect())
        .collect()
}

/// Parses one relation; restrictions to architectures (`[amd64]`) do not occur in indexes of
/// binary packages and are refused.
fn one(text: &str) -> Result<Relation<'_>, &str> {
    let text = text.trim();
    let (name, bound) = match text.split_once('(') {
        None => (text, None),
        Some((name, rest)) => {
            let inner = rest.strip_suffix(')').ok_or(text)?.trim();
            let at = inner
                .find(|c: char| !matches!(c, '<' | '>' | '='))
                .ok_or(text)?;
            let (op, version) = inner.split_at(at);
            let op = match op {
                "<<" => Op::Less,
                "<=" | "<" => Op::LessEqual,
                "=" => Op::Equal,
                ">=" | ">" => Op::GreaterEqual,
                ">>" => Op::Greater,
                _ => return Err(text),
            };
            let version = version.trim();
            if version.is_empty() || version.contains(char::is_whitespace) {
                return Err(text);
            }
            (name.trim(), Some((op, version)))
        }
    };
    let name = name.split_once(':').map_or(name, |(name, _)| name);
    let fits = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_'));
    if fits {
        Ok(Relation { name, bound })
    } else {
        Err(text)
    }
}

/// Fuzz target: what parses shows as something that parses to the same.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(groups) = parse(&text) {
        let shown = groups
            .iter()
            .map(|g| show(g))
            .collect::<Vec<_>>()
            .join(", ");
        assert_eq!(parse(&shown).as_ref(), Ok(&groups), "{text:?}");
    }
}
