//! The greedy resolver: first alternative that exists, what is already selected preferred, highest
//! version of the suites; then everything is checked, and what does not fit fails loudly.
//!
//! It finds the same set as apt does for a set of packages that can be installed together; it
//! never goes back on a choice, so a request that needs that must name the right alternative.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::error::{Error, Result};
use crate::index::{Stanza, Universe, provides};
use crate::relation::{Group, Relation, show};
use crate::version;

/// Why a package is in.
#[derive(Clone, Debug)]
enum Because {
    Requested,
    Essential,
    /// A dependency of the selected package of this number.
    Needed(usize),
}

/// What to resolve.
pub(crate) struct Wish<'r> {
    pub(crate) install: &'r [String],
    /// Name → reason.
    pub(crate) exclude: &'r BTreeMap<String, String>,
    pub(crate) pins: &'r BTreeMap<String, String>,
    /// Suites that packages come from unless they are pinned.
    pub(crate) suites: &'r [String],
}

/// The answer, in the order of selection.
#[derive(Debug)]
pub(crate) struct Resolution<'a> {
    pub(crate) selected: Vec<Stanza<'a>>,
    /// Exclusions that nothing asked for.
    pub(crate) unneeded: Vec<String>,
}

struct Resolver<'u, 'a, 'r> {
    universe: &'u Universe<'a>,
    wish: &'r Wish<'r>,
    selected: Vec<(Stanza<'a>, Because)>,
    by_name: HashMap<&'a str, usize>,
    /// Provided name → `(version or "", number of the selected package)`.
    provided: HashMap<&'a str, Vec<(&'a str, usize)>>,
    /// Excluded packages and what they would provide.
    excluded: HashSet<&'a str>,
    used: HashSet<&'a str>,
}

/// Resolves a wish.
pub(crate) fn resolve<'a>(universe: &Universe<'a>, wish: &Wish<'_>) -> Result<Resolution<'a>> {
    let mut resolver = Resolver {
        universe,
        wish,
        selected: Vec::new(),
        by_name: HashMap::new(),
        provided: HashMap::new(),
        excluded: HashSet::new(),
        used: HashSet::new(),
    };
    resolver.exclude()?;
    resolver.seed()?;
    resolver.close()?;
    resolver.check()?;
    let unneeded = wish
        .exclude
        .keys()
        .filter(|name| !resolver.used.contains(name.as_str()))
        .cloned()
        .collect();
    Ok(Resolution {
        selected: resolver.selected.into_iter().map(|(s, _)| s).collect(),
        unneeded,
    })
}

impl<'a> Resolver<'_, 'a, '_> {
    fn candidate(
        &self,
        name: &str,
        relation: Option<&Relation<'_>>,
        beside: Option<usize>,
    ) -> Option<Stanza<'a>> {
        pick(self.universe, self.wish, name, relation, beside)
    }

    fn select(&mut self, stanza: Stanza<'a>, because: Because) -> Result<()> {
        let number = self.selected.len();
        self.by_name.insert(stanza.name, number);
        for (name, version) in provides(&stanza)? {
            self.provided
                .entry(name)
                .or_default()
                .push((version, number));
        }
        self.selected.push((stanza, because));
        Ok(())
    }

    fn exclude(&mut self) -> Result<()> {
        for name in self.wish.exclude.keys() {
            let Some(stanza) = self.candidate(name, None, None) else {
                return Err(Error::Request(format!(
                    "package `{name}` is excluded, but there is no such package in {}",
                    self.wish.suites.join(", ")
                )));
            };
            self.excluded.insert(stanza.name);
            self.excluded
                .extend(provides(&stanza)?.into_iter().map(|(name, _)| name));
        }
        Ok(())
    }

    fn seed(&mut self) -> Result<()> {
        for name in self.wish.install {
            if self.by_name.contains_key(name.as_str()) {
                continue;
            }
            let Some(stanza) = self.candidate(name, None, None) else {
                return Err(Error::Request(self.unknown(name)));
            };
            self.select(stanza, Because::Requested)?;
        }
        let mut essential: Vec<&str> = self
            .universe
            .stanzas
            .iter()
            .filter(|s| s.essential && !self.universe.suites[s.suite].not_automatic)
            .map(|s| s.name)
            .collect();
        essential.sort_unstable();
        essential.dedup();
        for name in essential {
            if self.wish.exclude.contains_key(name) {
                self.used.insert(name);
            } else if !self.by_name.contains_key(name)
                && let Some(stanza) = self.candidate(name, None, None)
            {
                self.select(stanza, Because::Essential)?;
            }
        }
        Ok(())
    }

    /// A sentence about a name that no suite has.
    fn unknown(&self, name: &str) -> String {
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

    /// Selected package that fulfils a relation.
    fn satisfied(&self, relation: &Relation<'_>) -> Option<usize> {
        if let Some(&number) = self.by_name.get(relation.name)
            && relation.admits(self.selected[number].0.version)
        {
            return Some(number);
        }
        // A provider without a version fulfils no bound (Policy 7.5).
        let providers = self.provided.get(relation.name)?;
        providers
            .iter()
            .find(|(version, _)| {
                relation.bound.is_none() || (!version.is_empty() && relation.admits(version))
            })
            .map(|(_, number)| *number)
    }

    /// Follows dependencies until nothing is open.
    fn close(&mut self) -> Result<()> {
        let mut queue: VecDeque<usize> = (0..self.selected.len()).collect();
        let mut problems = Vec::new();
        while let Some(number) = queue.pop_front() {
            let stanza = self.selected[number].0;
            for field in ["Pre-Depends", "Depends"] {
                for group in stanza.relations(field)? {
                    match self.choose(&group, stanza.suite) {
                        Choice::Nothing => {}
                        Choice::Take(package) => {
                            queue.push_back(self.selected.len());
                            self.select(package, Because::Needed(number))?;
                        }
                        Choice::Impossible => problems.push(self.impossible(number, field, &group)),
                    }
                }
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Error::Unresolved(problems))
        }
    }

    fn choose(&mut self, group: &Group<'a>, suite: usize) -> Choice<'a> {
        if group
            .iter()
            .any(|relation| self.satisfied(relation).is_some())
        {
            return Choice::Nothing;
        }
        for relation in group {
            if self.excluded.contains(relation.name) {
                self.note_use(relation.name);
                return Choice::Nothing;
            }
        }
        for relation in group {
            if !self.by_name.contains_key(relation.name)
                && let Some(package) = self.candidate(relation.name, Some(relation), Some(suite))
            {
                return Choice::Take(package);
            }
            let provider =
                self.universe
                    .providers(relation.name)
                    .find_map(|(provider, version)| {
                        let fits = relation.bound.is_none()
                            || (!version.is_empty() && relation.admits(version));
                        let candidate = self.candidate(provider.name, None, Some(suite))?;
                        // The version that would be taken must be the one that provides it.
                        (fits
                            && candidate.version == provider.version
                            && !self.by_name.contains_key(provider.name)
                            && !self.excluded.contains(provider.name))
                        .then_some(candidate)
                    });
            if let Some(package) = provider {
                return Choice::Take(package);
            }
        }
        Choice::Impossible
    }

    /// Remembers which exclusion a name was fulfilled by.
    fn note_use(&mut self, name: &'a str) {
        self.used.insert(name);
        for (provider, _) in self.universe.providers(name) {
            if self.wish.exclude.contains_key(provider.name) {
                self.used.insert(provider.name);
            }
        }
    }

    /// `openssh-server 1:10.0p1-7 (asked for)` or `libc6 2.41-12 ← bash 5.2 (Essential)`.
    fn chain(&self, mut number: usize) -> String {
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

    fn impossible(&self, number: usize, field: &str, group: &[Relation<'_>]) -> String {
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

    /// Checks the whole selection: what the greedy way chose must fit together.
    fn check(&mut self) -> Result<()> {
        let mut problems = Vec::new();
        for number in 0..self.selected.len() {
            let stanza = self.selected[number].0;
            for field in ["Pre-Depends", "Depends"] {
                for group in stanza.relations(field)? {
                    let fits = group
                        .iter()
                        .any(|r| self.satisfied(r).is_some() || self.excluded.contains(r.name));
                    if !fits {
                        problems.push(self.impossible(number, field, &group));
                    }
                }
            }
            for field in ["Conflicts", "Breaks"] {
                for relation in stanza.relations(field)?.iter().flatten() {
                    for other in self.matching(relation) {
                        if other != number {
                            problems.push(format!(
                                "{field}: {relation} with {}; asked by {}",
                                self.chain(other),
                                self.chain(number)
                            ));
                        }
                    }
                }
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Error::Unresolved(problems))
        }
    }

    /// Every selected package that a relation speaks of.
    fn matching(&self, relation: &Relation<'_>) -> Vec<usize> {
        let mut found = Vec::new();
        if let Some(&number) = self.by_name.get(relation.name)
            && relation.admits(self.selected[number].0.version)
        {
            found.push(number);
        }
        for (version, number) in self.provided.get(relation.name).into_iter().flatten() {
            if relation.bound.is_none() || (!version.is_empty() && relation.admits(version)) {
                found.push(*number);
            }
        }
        found
    }
}

/// The version of a package that would be taken without anybody's conditions.
pub(crate) fn candidate<'a>(
    universe: &Universe<'a>,
    wish: &Wish<'_>,
    name: &str,
) -> Option<Stanza<'a>> {
    pick(universe, wish, name, None, None)
}

/// The version of a package that is taken; `beside` is the suite of who asks.
fn pick<'a>(
    universe: &Universe<'a>,
    wish: &Wish<'_>,
    name: &str,
    relation: Option<&Relation<'_>>,
    beside: Option<usize>,
) -> Option<Stanza<'a>> {
    let suites = &universe.suites;
    let best = |usable: &dyn Fn(usize) -> bool| {
        universe
            .named(name)
            .filter(|s| usable(s.suite))
            .filter(|s| relation.is_none_or(|r| r.admits(s.version)))
            // Of equal versions the suite that is named first.
            .max_by(|a, b| version::compare(a.version, b.version).then(b.suite.cmp(&a.suite)))
            .copied()
    };
    if let Some(pin) = wish.pins.get(name) {
        return best(&|suite| suites[suite].name == *pin);
    }
    let automatic =
        best(&|suite| !suites[suite].not_automatic && wish.suites.contains(&suites[suite].name));
    // Only who comes from backports may draw on backports.
    automatic.or_else(|| beside.and_then(|beside| best(&|suite| suite == beside)))
}

enum Choice<'a> {
    Nothing,
    Take(Stanza<'a>),
    Impossible,
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
