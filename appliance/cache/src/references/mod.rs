//! Entries that name other objects: an entry is served only while all that it names is there, and
//! what was vouched for stays for a while, so that the client finds it.

pub(crate) mod action;
pub(crate) mod protobuf;
pub(crate) mod xcode;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use store::{Begun, Error, Key, Store, Terms};

use crate::call::Call;
use crate::server::Shared;
use crate::transfer::upload::Fault;

/// How long objects stay that an entry vouched for, unless the free-space reserve needs them.
const HELD: Duration = Duration::from_secs(15 * 60);
/// Most names that the store keeps with an entry.
const MOST: usize = 16 * 1024;

/// Whether all these objects are there; those that are stay for a while.
pub(crate) fn vouch(store: &Store, names: &[Key]) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let until = now.unwrap_or_default() + HELD;
    let mut all = true;
    for name in names {
        all &= store.hold(name, until.as_millis() as u64);
    }
    all
}

/// Removes an entry that names what is gone. During recovery it may only not be found yet.
pub(crate) async fn drop_entry(shared: &Shared, key: &Key) {
    if shared.store.is_recovered()
        && let Err(error) = shared.store.remove(key).await
    {
        shared.complain("remove", &error);
    }
}

/// The names that the store is to keep with an entry: all, or none where there are too many. Those
/// are looked up when the entry is read.
pub(crate) fn bounded(names: Vec<Key>) -> Vec<Key> {
    if names.len() > MOST {
        Vec::new()
    } else {
        names
    }
}

/// Stores an entry that is in memory.
///
/// # Errors
///
/// Nothing was stored; the fault says why.
pub(crate) async fn put(
    call: &Call<'_>,
    key: &Key,
    terms: Terms,
    bytes: Bytes,
) -> Result<(), Fault> {
    let fault = |error: Error| Fault::of(call, &error);
    match call.shared.store.put(key, terms).await.map_err(fault)? {
        Begun::Exists => Ok(()),
        Begun::Upload(mut upload) => {
            upload.write(&bytes).await.map_err(fault)?;
            match upload.finish().await {
                Ok(_) | Err(Error::Cleaned) => Ok(()),
                Err(error) => Err(fault(error)),
            }
        }
    }
}
