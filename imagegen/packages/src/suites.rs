//! The suites of a request: their signed InRelease files and indexes, loaded and resolved.

use std::io::Read as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cache::Cache;
use crate::digest::Digest;
use crate::download::{self, Item};
use crate::error::{Error, Result};
use crate::http::Connections;
use crate::index::{self, Suite, Universe};
use crate::lock::LockedSuite;
use crate::options::Options;
use crate::progress::Progress;
use crate::release::Release;
use crate::request::Request;
use crate::sources::{Archive, Sources};
use crate::transfer::fetch_small;
use crate::verify;

/// An InRelease of Debian is 140 kB.
const IN_RELEASE_LIMIT: u64 = 16 << 20;
/// An unpacked Packages file of Debian is 57 MB.
const INDEX_LIMIT: u64 = 1 << 30;

/// A suite with its index.
pub(crate) struct Loaded {
    pub(crate) suite: Suite,
    pub(crate) locked: LockedSuite,
    /// Where its InRelease came from.
    pub(crate) url: String,
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
            version: String::new(),
            urls,
            size,
            digest,
            extension: "xz",
        });
    }
    let paths = download::fetch(items, cache, progress, options).map_err(|error| match error {
        Error::Gone { packages } => {
            let names: Vec<String> = packages.into_iter().map(|(name, _)| name).collect();
            Error::Request(format!(
                "{}: signed, but not on the mirror, which is being updated or broken: try again later",
                names.join(", ")
            ))
        }
        other => other,
    })?;
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
            url: found.url,
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
        // Another project's repository may look like a mirror of Debian in apt's configuration.
        if !release.origin.starts_with("Debian") {
            progress.warning(&format!(
                "{url}: of `{}`, not of Debian: left out",
                release.origin
            ));
            tried.push(url);
            continue;
        }
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
}
