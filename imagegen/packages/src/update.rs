//! Makes locks: from nothing, or from an older lock of which most stays as it is.
//!
//! An index holds only the newest version of a package, so what a lock holds back is often gone
//! from it. Such a package takes part in resolving with what is known of it: name and version
//! from the lock, dependencies from its newest version without their bounds. When that, or
//! anything else that is held, stands in the way, it is let go (with all that comes from the same
//! source package, since those need each other in the same version) and everything is resolved
//! once more.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::date;
use crate::error::{Error, Result};
use crate::index::{Stanza, Universe};
use crate::kernel;
use crate::lock::{Lock, Package, Role};
use crate::progress::Progress;
use crate::relation::{self, show};
use crate::request::Request;
use crate::resolve::{self, Failed, Wish};
use crate::suites::Suites;

/// What of an older lock may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh<'a> {
    /// Everything takes its newest version.
    Everything,
    /// Only what the request now asks for and the lock does not hold yet.
    Nothing,
    /// These packages or kernels (by package or by name), and what they then need.
    Only(&'a [String]),
}

/// Resolves a request; `previous` is held as far as `refresh` says.
pub(crate) fn make(
    suites: &Suites,
    request: &Request,
    previous: Option<(&Lock, Refresh<'_>)>,
    progress: &dyn Progress,
) -> Result<Lock> {
    let universe = suites.universe()?;
    let Some((previous, refresh)) = previous else {
        let made = Maker::new(&universe, request, &[], BTreeSet::new()).make(progress)?;
        return Ok(lock(suites, request, made));
    };
    for new in &suites.0 {
        let old = previous.suites.iter().find(|s| s.name == new.locked.name);
        if let Some(old) = old.filter(|old| old.date > new.locked.date) {
            return Err(Error::Downgrade {
                url: new.url.clone(),
                date: date::show(new.locked.date),
                locked: date::show(old.date),
            });
        }
    }
    let (held, released) = match refresh {
        Refresh::Everything => (&[][..], BTreeSet::new()),
        Refresh::Nothing => (previous.packages.as_slice(), BTreeSet::new()),
        Refresh::Only(names) => {
            for name in names {
                let known = previous.packages.iter().any(|p| p.name == *name)
                    || request.kernels.contains_key(name)
                    || request.install.contains(name)
                    || request.build.contains(name);
                if !known {
                    return Err(Error::Request(format!(
                        "`{name}` is neither a package nor a kernel of the lock: nothing to update"
                    )));
                }
            }
            (
                previous.packages.as_slice(),
                names.iter().cloned().collect(),
            )
        }
    };
    let made = Maker::new(&universe, request, held, released).make(progress)?;
    let new = lock(suites, request, made);
    // Newer dates alone are no reason to make another image.
    if new.packages == previous.packages && new.request == previous.request {
        return Ok(previous.clone());
    }
    Ok(new)
}

fn lock(suites: &Suites, request: &Request, packages: Vec<Package>) -> Lock {
    let suites = suites.0.iter().map(|s| s.locked.clone()).collect();
    Lock::new(&request.architecture, request.digest(), suites, packages)
}

/// One request against one universe, with packages to hold and names that are let go.
struct Maker<'m, 'a> {
    universe: &'m Universe<'a>,
    request: &'m Request,
    held: &'m [Package],
    /// Names of packages, and of kernels, that may change.
    released: BTreeSet<String>,
}

impl<'m, 'a> Maker<'m, 'a> {
    fn new(
        universe: &'m Universe<'a>,
        request: &'m Request,
        held: &'m [Package],
        released: BTreeSet<String>,
    ) -> Self {
        let mut maker = Self {
            universe,
            request,
            held,
            released,
        };
        maker.release_families();
        maker
    }

    /// Lets go of everything from the same source packages as what is already let go.
    fn release_families(&mut self) {
        let source = |name: &str| self.universe.named(name).map(Stanza::source).next();
        let sources: BTreeSet<&str> = self.released.iter().filter_map(|n| source(n)).collect();
        let family: Vec<String> = self
            .held
            .iter()
            .filter(|p| !matches!(p.role, Role::Kernel(_)))
            .filter(|p| source(&p.name).is_some_and(|s| sources.contains(s)))
            .map(|p| p.name.clone())
            .collect();
        self.released.extend(family);
    }

    fn make(mut self, progress: &dyn Progress) -> Result<Vec<Package>> {
        loop {
            match self.attempt(progress) {
                Ok(packages) => return Ok(packages),
                Err(Failed::Other(error)) => return Err(error),
                Err(Failed::Unfit { problems, names }) => {
                    let before = self.released.len();
                    let held = names
                        .into_iter()
                        .filter(|n| self.held.iter().any(|p| p.name == *n));
                    self.released.extend(held);
                    self.release_families();
                    if self.released.len() == before {
                        return Err(Error::Unresolved(problems));
                    }
                }
            }
        }
    }

    /// Records that stay as they are, by name: all but kernels.
    fn kept(&self) -> impl Iterator<Item = &'m Package> {
        self.held
            .iter()
            .filter(|p| !matches!(p.role, Role::Kernel(_)) && !self.released.contains(&p.name))
    }

    fn attempt(&self, progress: &dyn Progress) -> Result<Vec<Package>, Failed> {
        let request = self.request;
        let texts: Vec<(&Package, String)> = self
            .kept()
            .map(|p| (p, stand_in(self.universe, p)))
            .collect();
        let mut held = HashMap::new();
        for (package, text) in &texts {
            let suite = self
                .universe
                .suites
                .iter()
                .position(|s| s.name == package.suite);
            let pinned = request.pins.get(&package.name);
            // What the request no longer takes from there cannot stay.
            if let Some(suite) = suite.filter(|_| pinned.is_none_or(|pin| *pin == package.suite)) {
                let mut stanzas = crate::index::parse(text, suite, "the present lock")?;
                held.extend(stanzas.pop().map(|stanza| (stanza.name, stanza)));
            }
        }
        let wish = Wish {
            install: &request.install,
            exclude: &request.exclude,
            pins: &request.pins,
            suites: &request.suites,
            held: &held,
        };
        let resolution = resolve::resolve(self.universe, &wish)?;
        let build = build_packages(self.universe, &wish, &request.build, &resolution.selected)?;
        let mut packages = Vec::new();
        for stanza in &resolution.selected {
            packages.push(record(self.universe, stanza, Role::System)?);
        }
        for stanza in &build {
            packages.push(record(self.universe, stanza, Role::Build)?);
        }
        packages.extend(self.kernels()?);
        for name in &resolution.unneeded {
            progress.warning(&format!(
                "package `{name}` is excluded, but nothing asks for it"
            ));
        }
        Ok(packages)
    }

    /// The kernels of the request, those that are held as they are.
    fn kernels(&self) -> Result<Vec<Package>> {
        let mut packages = Vec::new();
        for (name, wanted) in &self.request.kernels {
            let role = Role::Kernel(name.clone());
            let held: Vec<&Package> = self.held.iter().filter(|p| p.role == role).collect();
            let stays = !self.released.contains(name)
                && !held.iter().any(|p| self.released.contains(&p.name))
                && held
                    .iter()
                    .any(|p| kernel::fits(&p.name, wanted, &self.request.architecture))
                && held.iter().all(|p| wanted.suites.contains(&p.suite));
            if stays {
                packages.extend(held.into_iter().cloned());
                continue;
            }
            for part in kernel::find(self.universe, name, wanted, &self.request.architecture)? {
                packages.push(record(self.universe, &part, role.clone())?);
            }
        }
        Ok(packages)
    }
}

/// The stanza of a locked package: from the index if it is still there, else what can be said.
fn stand_in(universe: &Universe<'_>, package: &Package) -> String {
    let digest = package.sha256.to_string();
    let mut known = BTreeMap::new();
    for stanza in universe.named(&package.name) {
        if stanza.version == package.version && stanza.field("SHA256") == Some(&digest) {
            // Its suite may hold it no more, while another does.
            return stanza.text.to_owned();
        }
        known.insert(stanza.suite, stanza);
    }
    let mut out = format!(
        "Package: {}\nVersion: {}\nArchitecture: {}\nFilename: {}\nSize: {}\nSHA256: {digest}\n",
        package.name, package.version, package.arch, package.path, package.size
    );
    let suite = universe
        .suites
        .iter()
        .position(|s| s.name == package.suite)
        .unwrap_or(usize::MAX);
    let Some(newest) = known.get(&suite).or_else(|| known.values().next()) else {
        return out;
    };
    for field in ["Pre-Depends", "Depends"] {
        let groups = newest.relations(field).unwrap_or_default();
        let loose: Vec<String> = groups
            .iter()
            .map(|group| {
                let names: Vec<_> = group
                    .iter()
                    .map(|r| relation::Relation {
                        name: r.name,
                        bound: None,
                    })
                    .collect();
                show(&names)
            })
            .collect();
        if !loose.is_empty() {
            out += &format!("{field}: {}\n", loose.join(", "));
        }
    }
    if let Some(provides) = newest.provides {
        // Provided at its own version, as a rule.
        out += &format!(
            "Provides: {}\n",
            provides.replace(newest.version, &package.version)
        );
    }
    if let Some(source) = newest.field("Source") {
        out += &format!("Source: {source}\n");
    }
    if newest.essential {
        out += "Essential: yes\n";
    }
    out
}

/// The packages to build against: exactly those named, in versions that fit the system.
fn build_packages<'a>(
    universe: &Universe<'a>,
    wish: &Wish<'_, 'a>,
    names: &[String],
    system: &[Stanza<'a>],
) -> Result<Vec<Stanza<'a>>, Failed> {
    let mut found: Vec<Stanza<'a>> = Vec::new();
    for name in names {
        if found.iter().chain(system).any(|s| s.name == name) {
            continue;
        }
        let stanza = resolve::candidate(universe, wish, name)
            .ok_or_else(|| Error::Request(format!("build package `{name}`: no suite has it")))?;
        found.push(stanza);
    }
    let (mut problems, mut culprits) = (Vec::new(), BTreeSet::new());
    for stanza in &found {
        for group in stanza.relations("Depends")? {
            let clash = group.iter().find(|relation| {
                let other = system
                    .iter()
                    .chain(&found)
                    .find(|s| s.name == relation.name);
                other.is_some_and(|other| !relation.admits(other.version))
            });
            if let Some(clash) = clash {
                culprits.extend([stanza.name.to_owned(), clash.name.to_owned()]);
                problems.push(format!(
                    "build package {} {} needs {}, which is not the selected version",
                    stanza.name,
                    stanza.version,
                    show(&group)
                ));
            }
        }
    }
    if problems.is_empty() {
        Ok(found)
    } else {
        Err(Failed::Unfit {
            problems,
            names: culprits,
        })
    }
}

fn record(universe: &Universe<'_>, stanza: &Stanza<'_>, role: Role) -> Result<Package> {
    let (path, size, sha256) = stanza.artifact()?;
    Ok(Package {
        role,
        name: stanza.name.to_owned(),
        version: stanza.version.to_owned(),
        arch: stanza.field("Architecture").unwrap_or("").to_owned(),
        suite: universe.suites[stanza.suite].name.clone(),
        size,
        sha256,
        path: path.to_owned(),
    })
}
