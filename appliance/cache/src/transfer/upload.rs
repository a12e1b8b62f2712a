//! From a request to the store.

use bytes::Bytes;
use store::{Begun, Error, Key, Outcome, Terms, Upload};

use crate::body::{Broken, Received};
use crate::call::Call;
use crate::pace::Pace;
use crate::traffic::{Failure, Flow};

/// How an upload ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landed {
    /// The object is stored.
    Stored,
    /// There was one already, and it stays.
    Exists,
}

/// Why an upload failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// More bytes than allowed, declared or received.
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The bytes came too slowly.
    Slow,
    /// Fewer bytes came than were declared. Mostly nobody reads the answer.
    Truncated,
    /// The bytes have another SHA-256.
    Digest {
        declared: [u8; 32],
        received: [u8; 32],
    },
    /// The key, or what goes with the object, is longer than the store takes.
    TooLong,
    /// The disk, which was complained about.
    Disk,
}

impl Fault {
    /// Of an error of the store.
    pub(crate) fn of(call: &Call<'_>, error: &Error) -> Self {
        match error {
            Error::TooLarge { limit } => Self::TooLarge { limit: *limit },
            Error::Length { .. } => Self::Truncated,
            Error::Digest { declared, received } => Self::Digest {
                declared: *declared,
                received: *received,
            },
            Error::Key { .. } | Error::TooLong { .. } => Self::TooLong,
            error => {
                call.shared.complain("write", error);
                Self::Disk
            }
        }
    }

    fn count(self, flow: &Flow) {
        match self {
            Self::TooLarge { .. } => flow.failed(Failure::TooLarge),
            Self::Slow => flow.failed(Failure::Timeout),
            Self::Truncated => flow.failed(Failure::Truncated),
            Self::Digest { .. } => flow.failed(Failure::ChecksumMismatch),
            Self::TooLong | Self::Disk => flow.failed(Failure::Persist),
        }
    }
}

/// Stores `first` and the body behind it under `key`, and counts. A body whose object is there
/// already is read to its end, within the same limit.
///
/// # Errors
///
/// Nothing was stored; the fault says why.
pub(crate) async fn receive(
    call: &Call<'_>,
    key: &Key,
    mut terms: Terms,
    first: Vec<Bytes>,
    body: Received,
    flow: &Flow,
) -> Result<Landed, Fault> {
    flow.attempts.add(1);
    let gathered: u64 = first.iter().map(|bytes| bytes.len() as u64).sum();
    // hyper counts what it has handed out already.
    terms.length = body.length().map(|length| length + gathered);
    let limit = terms.limit;
    let mut pace = Pace::new(&call.shared.settings.timeouts, terms.length);
    let landed = match call.shared.store.put(key, terms).await {
        Ok(Begun::Exists) => drain(body, &mut pace, gathered, limit).await,
        Ok(Begun::Upload(upload)) => take(call, upload, first, body, &mut pace, flow).await,
        Err(error) => Err(Fault::of(call, &error)),
    };
    match landed {
        Ok(Landed::Stored) => flow.stored.add(1),
        Ok(Landed::Exists) => flow.exists.add(1),
        Err(fault) => fault.count(flow),
    }
    landed
}

async fn take(
    call: &Call<'_>,
    mut upload: Box<Upload>,
    first: Vec<Bytes>,
    mut body: Received,
    pace: &mut Pace,
    flow: &Flow,
) -> Result<Landed, Fault> {
    let fault = |error: Error| Fault::of(call, &error);
    let mut received = 0;
    for bytes in first {
        received += bytes.len() as u64;
        upload.write(&bytes).await.map_err(fault)?;
    }
    loop {
        match body.next(pace).await {
            Ok(Some(bytes)) => {
                received += bytes.len() as u64;
                upload.write(&bytes).await.map_err(fault)?;
            }
            Ok(None) => break,
            Err(Broken::Slow) => return Err(Fault::Slow),
            Err(Broken::Ended) => {
                flow.cancelled.add(1);
                return Err(Fault::Truncated);
            }
        }
    }
    match upload.finish().await {
        // As if it had been stored just before the project was cleaned.
        Ok(Outcome::Stored) | Err(Error::Cleaned) => {
            flow.upload_bytes.add(received);
            Ok(Landed::Stored)
        }
        Ok(Outcome::Exists) => Ok(Landed::Exists),
        Err(error) => Err(fault(error)),
    }
}

/// Reads a body that is not needed, so that the client sees the answer.
async fn drain(
    mut body: Received,
    pace: &mut Pace,
    mut received: u64,
    limit: u64,
) -> Result<Landed, Fault> {
    loop {
        match body.next(pace).await {
            Ok(Some(bytes)) => received += bytes.len() as u64,
            // The object is there, whatever became of the copy.
            Ok(None) | Err(Broken::Ended) => return Ok(Landed::Exists),
            Err(Broken::Slow) => return Err(Fault::Slow),
        }
        if received > limit {
            return Err(Fault::TooLarge { limit });
        }
    }
}

/// What a body holds up to a limit.
#[derive(Debug)]
pub(crate) enum Gathered {
    /// All of it.
    Whole(Vec<Bytes>),
    /// Its beginning, of more bytes than the limit.
    Beginning(Vec<Bytes>),
}

/// Reads a body until its end or until it is longer than `limit`.
///
/// # Errors
///
/// It did not come whole.
pub(crate) async fn gather(
    call: &Call<'_>,
    body: &mut Received,
    limit: u64,
) -> Result<Gathered, Fault> {
    let mut pace = Pace::new(&call.shared.settings.timeouts, body.length());
    let (mut pieces, mut length) = (Vec::new(), 0);
    loop {
        match body.next(&mut pace).await {
            Ok(Some(bytes)) => {
                length += bytes.len() as u64;
                pieces.push(bytes);
                if length > limit {
                    return Ok(Gathered::Beginning(pieces));
                }
            }
            Ok(None) => return Ok(Gathered::Whole(pieces)),
            Err(Broken::Slow) => return Err(Fault::Slow),
            Err(Broken::Ended) => return Err(Fault::Truncated),
        }
    }
}
