//! The greedy resolver: first alternative that exists, what is already selected preferred, highest
//! version of the suites; then everything is checked, and what does not fit fails loudly.
//!
//! It finds the same set as apt does for a set of packages that can be installed together; it
//! never goes back on a choice, so a request that needs that must name the right alternative.

mod pick;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use crate::error::Error;
use crate::index::{Stanza, Universe, provides};
use crate::relation::{Group, Relation};

/// Why a package is in.
#[derive(Clone, Debug)]
enum Because {
    Requested,
    Essential,
    /// A dependency of the selected package of this number.
    Needed(usize),
}

/// What to resolve.
pub(crate) struct Wish<'r, 'a> {
    pub(crate) install: &'r [String],
    /// Name → reason.
    pub(crate) exclude: &'r BTreeMap<String, String>,
    pub(crate) pins: &'r BTreeMap<String, String>,
    /// Suites that packages come from unless they are pinned.
    pub(crate) suites: &'r [String],
    /// Packages that stay as they are for as long as their versions fit.
    pub(crate) held: &'r HashMap<&'a str, Stanza<'a>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Not because of versions.
    Other(Error),
    /// The packages do not fit together; `names` are those involved, which may be held.
    Unfit {
        problems: Vec<String>,
        names: BTreeSet<String>,
    },
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Other(error)
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Other(error) => error,
            Failed::Unfit { problems, .. } => Error::Unresolved(problems),
        }
    }
}

pub(crate) use pick::candidate;
use pick::pick;

type Result<T, E = Failed> = std::result::Result<T, E>;

/// The answer, in the order of selection.
#[derive(Debug)]
pub(crate) struct Resolution<'a> {
    pub(crate) selected: Vec<Stanza<'a>>,
    /// Exclusions that nothing asked for.
    pub(crate) unneeded: Vec<String>,
}

struct Resolver<'u, 'a, 'r> {
    universe: &'u Universe<'a>,
    wish: &'r Wish<'r, 'a>,
    selected: Vec<(Stanza<'a>, Because)>,
    by_name: HashMap<&'a str, usize>,
    /// Provided name → `(version or "", number of the selected package)`.
    provided: HashMap<&'a str, Vec<(&'a str, usize)>>,
    /// Excluded packages and what they would provide.
    excluded: HashSet<&'a str>,
    used: HashSet<&'a str>,
    problems: Vec<String>,
    /// Packages that the problems are about.
    names: BTreeSet<String>,
}

/// Resolves a wish.
pub(crate) fn resolve<'a>(universe: &Universe<'a>, wish: &Wish<'_, 'a>) -> Result<Resolution<'a>> {
    let mut resolver = Resolver {
        universe,
        wish,
        selected: Vec::new(),
        by_name: HashMap::new(),
        provided: HashMap::new(),
        excluded: HashSet::new(),
        used: HashSet::new(),
        problems: Vec::new(),
        names: BTreeSet::new(),
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
                let suites = self.wish.suites.join(", ");
                let text =
                    format!("package `{name}` is excluded, but {suites} have no such package");
                return Err(Error::Request(text).into());
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
                return Err(Error::Request(self.unknown(name)).into());
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

    /// Selected package that fulfils a relation.
    fn satisfied(&self, relation: &Relation<'_>) -> Option<usize> {
        if let Some(&number) = self.by_name.get(relation.name)
            && relation.admits(self.selected[number].0.version)
        {
            return Some(number);
        }
        let providers = self.provided.get(relation.name)?;
        providers
            .iter()
            .find(|(version, _)| provided_fits(relation, version))
            .map(|(_, number)| *number)
    }

    /// Follows dependencies until nothing is open.
    fn close(&mut self) -> Result<()> {
        let mut queue: VecDeque<usize> = (0..self.selected.len()).collect();
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
                        Choice::Impossible => self.unmet(number, field, &group),
                    }
                }
            }
        }
        self.verdict()
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
            let provider = self
                .universe
                .providers(relation.name)
                .find_map(|(provider, _)| {
                    let candidate = self.candidate(provider.name, None, Some(suite))?;
                    let fits = provides(&candidate).ok()?.iter().any(|(name, version)| {
                        *name == relation.name && provided_fits(relation, version)
                    });
                    let free = !self.by_name.contains_key(provider.name)
                        && !self.excluded.contains(provider.name);
                    (fits && free).then_some(candidate)
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

    /// Notes that a dependency cannot be met.
    fn unmet(&mut self, number: usize, field: &str, group: &[Relation<'_>]) {
        self.problems.push(self.impossible(number, field, group));
        self.names.insert(self.selected[number].0.name.to_owned());
        self.names.extend(group.iter().map(|r| r.name.to_owned()));
    }

    /// Notes that two selected packages exclude each other.
    fn clash(&mut self, number: usize, field: &str, relation: &Relation<'_>, other: usize) {
        let (other_chain, chain) = (self.chain(other), self.chain(number));
        self.problems.push(format!(
            "{field}: {relation} with {other_chain}; asked by {chain}"
        ));
        self.names
            .extend([number, other].map(|n| self.selected[n].0.name.to_owned()));
    }

    fn verdict(&mut self) -> Result<()> {
        if self.problems.is_empty() {
            return Ok(());
        }
        let (problems, names) = (
            std::mem::take(&mut self.problems),
            std::mem::take(&mut self.names),
        );
        Err(Failed::Unfit { problems, names })
    }

    /// Checks the whole selection: what the greedy way chose must fit together.
    fn check(&mut self) -> Result<()> {
        for number in 0..self.selected.len() {
            let stanza = self.selected[number].0;
            for field in ["Pre-Depends", "Depends"] {
                for group in stanza.relations(field)? {
                    let fits = group
                        .iter()
                        .any(|r| self.satisfied(r).is_some() || self.excluded.contains(r.name));
                    if !fits {
                        self.unmet(number, field, &group);
                    }
                }
            }
            for field in ["Conflicts", "Breaks"] {
                for relation in stanza.relations(field)?.iter().flatten() {
                    for other in self.matching(relation) {
                        if other != number {
                            self.clash(number, field, relation, other);
                        }
                    }
                }
            }
        }
        self.verdict()
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
            if provided_fits(relation, version) {
                found.push(*number);
            }
        }
        found
    }
}

enum Choice<'a> {
    Nothing,
    Take(Stanza<'a>),
    Impossible,
}

/// Whether a name provided at `version` (`""`: without one) meets a relation to that name; without
/// a version it meets no bound (Policy 7.5).
fn provided_fits(relation: &Relation<'_>, version: &str) -> bool {
    relation.bound.is_none() || (!version.is_empty() && relation.admits(version))
}
