//! Kernels as plain artifacts: found by name in the index and locked with their parts.
//!
//! They never go through the resolver: backports drops parts of older kernels that the packages
//! still depend on (`linux-base-6.18.15+deb13-cloud-amd64`), which only resolvers need. Since
//! 6.19 `linux-image-*` is empty and depends on `linux-binary-*` (the image), `linux-modules-*`
//! and `linux-base-*` (config and System.map) of exactly its own version.

use std::fmt;

use crate::error::{Error, Result};
use crate::index::{Stanza, Universe};
use crate::lock::Lock;
use crate::request::KernelRequest;
use crate::version::{self, Op};

/// The packages of a kernel, `linux-image-*` first.
pub(crate) fn find<'a>(
    universe: &Universe<'a>,
    name: &str,
    request: &KernelRequest,
    architecture: &str,
) -> Result<Vec<Stanza<'a>>> {
    let mut images: Vec<&Stanza<'a>> = universe
        .stanzas
        .iter()
        .filter(|s| request.suites.contains(&universe.suites[s.suite].name))
        .filter(|s| fits(s.name, request, architecture))
        .collect();
    images.sort_by(|a, b| version::compare(b.version, a.version).then(a.suite.cmp(&b.suite)));
    let mut reasons = Vec::new();
    for image in &images {
        match parts(universe, image, request)? {
            Ok(parts) => return Ok(parts),
            Err(reason) => reasons.push(reason),
        }
    }
    let flavour = request.flavour.suffix(architecture);
    let wanted = match request.version.as_str() {
        "" => format!("linux-image-*-{flavour}"),
        version => format!("linux-image-{version}*-{flavour}"),
    };
    let suites = request.suites.join(", ");
    Err(Error::Request(if reasons.is_empty() {
        format!("kernel `{name}`: no {wanted} in {suites}")
    } else {
        format!(
            "kernel `{name}`: no complete {wanted} in {suites}: {}",
            reasons.join("; ")
        )
    }))
}

/// Whether a package is the image of a kernel as requested.
pub(crate) fn fits(package: &str, request: &KernelRequest, architecture: &str) -> bool {
    release(package, request, architecture).is_some_and(|r| begins(r, &request.version))
}

/// `6.18.15+deb13` of `linux-image-6.18.15+deb13-cloud-amd64`; `None` if it is another flavour,
/// not a kernel, or the meta package.
fn release<'a>(package: &'a str, request: &KernelRequest, architecture: &str) -> Option<&'a str> {
    let rest = package.strip_prefix("linux-image-")?;
    let release = rest
        .strip_suffix(&request.flavour.suffix(architecture))?
        .strip_suffix('-')?;
    let kernel = release.starts_with(|c: char| c.is_ascii_digit()) && !release.contains('-');
    kernel.then_some(release)
}

/// Whether a release begins with whole components of a version.
fn begins(release: &str, version: &str) -> bool {
    version.is_empty()
        || release
            .strip_prefix(version)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '+', '~']))
}

/// The image and what it names with exactly its own version; `Err` if a part is missing without
/// which it cannot boot.
fn parts<'a>(
    universe: &Universe<'a>,
    image: &Stanza<'a>,
    request: &KernelRequest,
) -> Result<Result<Vec<Stanza<'a>>, String>> {
    let mut found = vec![*image];
    let mut open = vec![*image];
    while let Some(package) = open.pop() {
        for relation in package.relations("Depends")?.iter().flatten() {
            let exact = relation.bound == Some((Op::Equal, image.version));
            if !exact || found.iter().any(|f| f.name == relation.name) {
                continue;
            }
            let part = universe
                .named(relation.name)
                .filter(|s| s.version == image.version)
                .find(|s| request.suites.contains(&universe.suites[s.suite].name));
            match part {
                Some(part) => {
                    found.push(*part);
                    open.push(*part);
                }
                // Config and System.map: nothing at run time reads them.
                None if relation.name.starts_with("linux-base-") => {}
                None => {
                    return Ok(Err(format!(
                        "{} needs {}, which is gone",
                        image.name, relation.name
                    )));
                }
            }
        }
    }
    Ok(Ok(found))
}

/// What a kernel of a lock could be instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelNews {
    /// Name of the kernel, such as `6.18-cloud`.
    pub name: String,
    /// Version in the lock; empty if the lock does not have this kernel.
    pub locked: String,
    /// Newest version that the request allows; `None` if there is none any more.
    pub allowed: Option<String>,
    /// Newest version of this flavour in all suites, and its suite.
    pub newest: Option<(String, String)>,
}

impl KernelNews {
    /// Looks a kernel of a request up.
    pub(crate) fn look_up(
        universe: &Universe<'_>,
        lock: &Lock,
        name: &str,
        request: &KernelRequest,
        architecture: &str,
    ) -> Self {
        let of = |request: &KernelRequest| {
            let parts = find(universe, name, request, architecture).ok()?;
            let image = parts.first()?;
            Some((
                image.version.to_owned(),
                universe.suites[image.suite].name.clone(),
            ))
        };
        let suites = universe.suites.iter().map(|s| s.name.clone()).collect();
        let any = KernelRequest {
            suites,
            version: String::new(),
            ..request.clone()
        };
        let image = lock
            .kernel(name)
            .find(|p| p.name.starts_with("linux-image-"));
        Self {
            name: name.to_owned(),
            locked: image.map_or(String::new(), |p| p.version.clone()),
            allowed: of(request).map(|(version, _)| version),
            newest: of(&any),
        }
    }
}

impl fmt::Display for KernelNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}: ", self.name)?;
        match self.locked.as_str() {
            "" => f.write_str("not in the lock")?,
            locked => f.write_str(locked)?,
        }
        match &self.allowed {
            None => f.write_str("; gone from the index, so it gets no security updates")?,
            Some(allowed) if *allowed == self.locked => {}
            Some(allowed) => write!(f, "; {allowed} is out")?,
        }
        match &self.newest {
            Some((newest, suite)) if *newest != self.locked => {
                write!(f, "; the newest of its flavour is {newest} ({suite})")
            }
            _ => Ok(()),
        }
    }
}
