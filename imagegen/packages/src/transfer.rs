//! One file from one source: retried, resumed where it broke off, and checked.

use http::header;

use crate::cache::Part;
use crate::download::Item;
use crate::error::{Error, Result};
use crate::http::{Connections, Failure};
use crate::options::Options;
use crate::url::Url;

/// Learns of bytes that came, and of those that have to come again.
pub(crate) trait Watch: Send {
    fn advance(&mut self, bytes: u64);
    fn take_back(&mut self, bytes: u64);
}

/// Why one source did not give a file.
pub(crate) enum Outcome {
    /// It has none.
    NotThere,
    /// It is broken or out of reach: the next may do.
    Source(Error),
    /// Nothing else will help.
    Stop(Error),
}

/// How a body ended.
enum End {
    /// By itself, at the size that was announced, if one was.
    Whole,
    /// It is longer than the file may be; at least so many bytes.
    TooLong(u64),
}

/// Downloads from one URL until the file is whole and right.
pub(crate) async fn from_source(
    connections: &mut Connections,
    item: &Item,
    url: &Url,
    part: &mut Part,
    options: &Options,
    watch: &mut dyn Watch,
) -> Result<(), Outcome> {
    // What is there came from elsewhere or from an earlier run.
    let mut foreign = part.len() > 0;
    let (mut failures, mut furthest) = (0, part.len());
    loop {
        let result = if part.len() == item.size {
            Ok((End::Whole, url.clone()))
        } else {
            transfer(connections, item, url, part, watch).await
        };
        match result {
            Ok((end, from)) => {
                let found = part.digest();
                if matches!(end, End::Whole) && part.len() == item.size && found == item.digest {
                    return Ok(());
                }
                let len = part.len();
                start_over(part, watch).map_err(Outcome::Stop)?;
                if std::mem::take(&mut foreign) {
                    continue;
                }
                let url = from.to_string();
                return Err(Outcome::Source(match end {
                    End::TooLong(found) => Error::WrongSize {
                        url,
                        found,
                        wanted: item.size,
                    },
                    End::Whole if len != item.size => Error::WrongSize {
                        url,
                        found: len,
                        wanted: item.size,
                    },
                    End::Whole => Error::Mismatch {
                        url,
                        found,
                        wanted: item.digest,
                    },
                }));
            }
            Err(Failure::Status(404 | 410)) => return Err(Outcome::NotThere),
            Err(Failure::Status(status)) => {
                return Err(Outcome::Source(Error::Status {
                    url: url.to_string(),
                    status,
                }));
            }
            Err(Failure::Fatal(error @ Error::BadUrl { .. })) => {
                return Err(Outcome::Source(error));
            }
            Err(Failure::Fatal(error)) => return Err(Outcome::Stop(error)),
            Err(Failure::Transient(reason)) => {
                // Only what was never reached before is progress: a server that breaks off at the
                // same place for ever must end.
                failures = if part.len() > furthest {
                    1
                } else {
                    failures + 1
                };
                furthest = furthest.max(part.len());
                if failures >= options.attempts {
                    let url = url.to_string();
                    return Err(Outcome::Source(Error::Unreachable {
                        url,
                        reason,
                        attempts: failures,
                    }));
                }
                tokio::time::sleep(options.pause_after(failures)).await;
            }
        }
    }
}

fn start_over(part: &mut Part, watch: &mut dyn Watch) -> Result<()> {
    watch.take_back(part.len());
    part.reset()
}

/// One request, its body appended to the part; with the URL that answered in the end.
async fn transfer(
    connections: &mut Connections,
    item: &Item,
    url: &Url,
    part: &mut Part,
    watch: &mut dyn Watch,
) -> Result<(End, Url), Failure> {
    let mut response = connections.get(url, part.len()).await?;
    let header = |name| {
        response
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let begins = format!("bytes {}-", part.len());
    let continues = response.status == 206
        && header(header::CONTENT_RANGE).is_some_and(|r| r.starts_with(&begins));
    let announced = header(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if !continues && part.len() > 0 {
        // The server cannot resume, or has no such range: from the beginning.
        start_over(part, watch).map_err(Failure::Fatal)?;
    }
    if !continues && response.status != 200 {
        return Err(Failure::Transient(format!(
            "the server answered {} to a range",
            response.status
        )));
    }
    let from = response.url.clone();
    let mut here = 0;
    while let Some(bytes) = response.chunk().await? {
        let remaining = item.size - part.len();
        if bytes.len() as u64 > remaining {
            let longer = (item.size + 1).max(part.len() - here + announced.unwrap_or(0));
            return Ok((End::TooLong(longer), from));
        }
        part.write(&bytes, remaining).map_err(Failure::Fatal)?;
        here += bytes.len() as u64;
        watch.advance(bytes.len() as u64);
    }
    // A body without a length ends wherever the connection does.
    if announced.is_none() && part.len() < item.size && here > 0 {
        return Err(Failure::Transient("the connection ended early".to_owned()));
    }
    connections.keep(response);
    Ok((End::Whole, from))
}

/// A small file into memory; `None` if it is not there.
pub(crate) async fn fetch_small(
    connections: &mut Connections,
    url: &Url,
    limit: u64,
    options: &Options,
) -> Result<Option<Vec<u8>>> {
    let mut failures = 0;
    loop {
        match small(connections, url, limit).await {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(Failure::Status(404 | 410)) => return Ok(None),
            Err(Failure::Status(status)) => {
                return Err(Error::Status {
                    url: url.to_string(),
                    status,
                });
            }
            Err(Failure::Fatal(error)) => return Err(error),
            Err(Failure::Transient(reason)) => {
                failures += 1;
                if failures >= options.attempts {
                    return Err(Error::Unreachable {
                        url: url.to_string(),
                        reason,
                        attempts: failures,
                    });
                }
                tokio::time::sleep(options.pause_after(failures)).await;
            }
        }
    }
}

async fn small(connections: &mut Connections, url: &Url, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut response = connections.get(url, 0).await?;
    let mut out = Vec::new();
    while let Some(bytes) = response.chunk().await? {
        if (out.len() + bytes.len()) as u64 > limit {
            return Err(Failure::Fatal(Error::TooLarge {
                url: url.to_string(),
                limit,
            }));
        }
        out.extend_from_slice(&bytes);
    }
    connections.keep(response);
    Ok(out)
}
