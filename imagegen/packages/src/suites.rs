//! The suites of a request: their signed InRelease files and indexes, loaded and resolved.

use std::io::Read as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cache::Cache;
use crate::digest::Digest;
use crate::download::{self, Item, Options, fetch_small};
use crate::error::{Error, Result};
use crate::http::Connections;
use crate::index::{self, Stanza, Suite, Universe};
use crate::kernel;
use crate::lock::{Lock, LockedSuite, Package, Role};
use crate::progress::Progress;
use crate::relation::show;
use crate::release::Release;
use crate::request::Request;
use crate::resolve::{self, Wish};
use crate::sources::{Archive, Sources};
use crate::verify;

/// An InRelease of Debian is 140 kB.
const IN_RELEASE_LIMIT: u64 = 16 << 20;
/// An unpacked Packages file of Debian is 57 MB.
const INDEX_LIMIT: u64 = 1 << 30;

/// A suite with its index.
pub(crate) struct Loaded {
    pub(crate) suite: Suite,
    pub(crate) locked: LockedSuite,
    /// Name of the index in errors.
    what: String,
    /// The Packages file.
    text: String,
}

/// All suites of a request.
pub(crate) struct Suites(pub(crate) Vec<Loaded>);

/// Downloads and verifies what a request needs.
pub(crate) fn load(
    request: &Request,
    sources: &Sources,
    cache: &Cache,
    progress: &Arc<dyn Progress>,
    options: &Options,
) -> Result<Suites> {
    progress.step("fetching the signed indexes");
    let mut verified = Vec::new();
    download::runtime()?.block_on(async {
        let mut connections = Connections::new(options.client());
        for suite in request.all_suites() {
            verified.push(
                in_release(&mut connections, suite, sources, progress.as_ref(), options).await?,
            );
        }
        Ok::<_, Error>(())
    })?;
    let file = format!("main/binary-{}/Packages.xz", request.architecture);
    let mut items = Vec::new();
    for (suite, found) in request.all_suites().iter().zip(&verified) {
        let (size, digest) = found.release.file(&file).ok_or_else(|| Error::NotListed {
            url: found.url.clone(),
            file: file.clone(),
        })?;
        // Only the mirror whose InRelease this is surely has the index of the same moment.
        let folder = found.archive.url.join(&format!(
            "dists/{suite}/main/binary-{}",
            request.architecture
        ));
        let mut urls = Vec::new();
        if found.release.by_hash {
            urls.push(folder.join(&format!("by-hash/SHA256/{digest}")));
        }
        urls.push(folder.join("Packages.xz"));
        items.push(Item {
            name: format!("index of {suite}"),
            urls,
            size,
            digest,
            extension: "xz",
        });
    }
    let paths = download::fetch(items, cache, progress, options)?;
    let mut loaded = Vec::new();
    for ((suite, found), path) in request.all_suites().iter().zip(verified).zip(paths) {
        let packed = std::fs::read(&path).map_err(Error::io(&path, "cannot read"))?;
        let what = format!("index of {suite}");
        let wrong = |reason: String| Error::Syntax {
            what: what.clone(),
            line: 1,
            reason,
        };
        let mut text = Vec::with_capacity(packed.len() * 7);
        liblzma::read::XzDecoder::new(packed.as_slice())
            .take(INDEX_LIMIT)
            .read_to_end(&mut text)
            .map_err(|e| wrong(format!("cannot be unpacked: {e}")))?;
        let text = String::from_utf8(text).map_err(|e| wrong(e.to_string()))?;
        loaded.push(Loaded {
            suite: Suite {
                name: (*suite).to_owned(),
                not_automatic: found.release.not_automatic,
            },
            locked: LockedSuite {
                name: (*suite).to_owned(),
                date: found.release.date,
                sha256: found.digest,
            },
            what,
            text,
        });
    }
    Ok(Suites(loaded))
}

/// A verified InRelease and where it came from.
struct Verified<'s> {
    release: Release,
    digest: Digest,
    url: String,
    archive: &'s Archive,
}

/// The InRelease of a suite from the first archive that serves a good one.
async fn in_release<'s>(
    connections: &mut Connections,
    suite: &str,
    sources: &'s Sources,
    progress: &dyn Progress,
    options: &Options,
) -> Result<Verified<'s>> {
    let mut failure = None;
    let mut tried = Vec::new();
    for archive in sources.of_suite(suite) {
        let url = archive.url.join(&format!("dists/{suite}/InRelease"));
        let bytes = match fetch_small(connections, &url, IN_RELEASE_LIMIT, options).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                tried.push(url.to_string());
                continue;
            }
            // The next mirror may be up.
            Err(error @ Error::Unreachable { .. }) => {
                progress.warning(&error.to_string());
                failure = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        let url = url.to_string();
        let keyring = verify::keyring(archive.keyring.as_deref())?;
        let text = verify::in_release(&bytes, &keyring, &url)?;
        let release = Release::parse(&text, &url)?;
        release.check_suite(suite, &url)?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        if let Some(warning) = release.check_date(now, options.strict_dates, &url)? {
            progress.warning(&warning);
        }
        return Ok(Verified {
            release,
            digest: Digest::of(&bytes),
            url,
            archive,
        });
    }
    Err(failure.unwrap_or_else(|| {
        Error::Request(format!(
            "suite `{suite}`: no mirror has it (looked for {})",
            tried.join(", ")
        ))
    }))
}

impl Suites {
    /// Parses the indexes.
    pub(crate) fn universe(&self) -> Result<Universe<'_>> {
        let mut stanzas = Vec::new();
        for (number, loaded) in self.0.iter().enumerate() {
            stanzas.extend(index::parse(&loaded.text, number, &loaded.what)?);
        }
        Universe::new(self.0.iter().map(|l| l.suite.clone()).collect(), stanzas)
    }

    /// Makes a lock.
    pub(crate) fn resolve(&self, request: &Request, progress: &Arc<dyn Progress>) -> Result<Lock> {
        let universe = self.universe()?;
        let wish = Wish {
            install: &request.install,
            exclude: &request.exclude,
            pins: &request.pins,
            suites: &request.suites,
        };
        let resolution = resolve::resolve(&universe, &wish)?;
        for name in &resolution.unneeded {
            progress.warning(&format!(
                "package `{name}` is excluded, but nothing asks for it"
            ));
        }
        let mut packages = Vec::new();
        for stanza in &resolution.selected {
            packages.push(record(&universe, stanza, Role::System)?);
        }
        for (name, kernel) in &request.kernels {
            for part in kernel::find(&universe, name, kernel, &request.architecture)? {
                packages.push(record(&universe, &part, Role::Kernel(name.clone()))?);
            }
        }
        for stanza in build_packages(&universe, &wish, &request.build, &resolution.selected)? {
            packages.push(record(&universe, &stanza, Role::Build)?);
        }
        let suites = self.0.iter().map(|l| l.locked.clone()).collect();
        Ok(Lock::new(
            &request.architecture,
            request.digest(),
            suites,
            packages,
        ))
    }
}

/// The packages to build against: exactly those named, in versions that fit the system.
fn build_packages<'a>(
    universe: &Universe<'a>,
    wish: &Wish<'_>,
    names: &[String],
    system: &[Stanza<'a>],
) -> Result<Vec<Stanza<'a>>> {
    let mut found: Vec<Stanza<'a>> = Vec::new();
    for name in names {
        if found.iter().chain(system).any(|s| s.name == name) {
            continue;
        }
        let stanza = resolve::candidate(universe, wish, name)
            .ok_or_else(|| Error::Request(format!("build package `{name}`: no suite has it")))?;
        found.push(stanza);
    }
    let mut problems = Vec::new();
    for stanza in &found {
        for group in stanza.relations("Depends")? {
            let clash = group.iter().any(|relation| {
                let other = system
                    .iter()
                    .chain(&found)
                    .find(|s| s.name == relation.name);
                other.is_some_and(|other| !relation.admits(other.version))
            });
            if clash {
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
        Err(Error::Unresolved(problems))
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
