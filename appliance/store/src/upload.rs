//! Storing an object.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::files::{Files, Temporary};
use crate::key::{Key, Place};
use crate::{Error, blocking};

/// Bytes that are gathered before they are written; smaller objects are stored in one go.
const CHUNK: usize = 256 * 1024;

/// What an upload has to keep to.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Most bytes.
    pub limit: u64,
    /// Exact number of bytes, if known.
    pub length: Option<u64>,
    /// Their SHA-256, if declared; it is checked before the object becomes visible.
    pub sha256: Option<[u8; 32]>,
}

/// What [`crate::Store::put`] found.
#[derive(Debug)]
pub enum Begun {
    /// There is an object of this key: nothing to do.
    Exists,
    /// The bytes may come.
    Upload(Box<Upload>),
}

/// How an upload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The object is stored.
    Stored,
    /// Another upload of the same key was faster; its object is there.
    Exists,
}

/// An upload on its way. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    files: Arc<Files>,
    place: Place,
    terms: Terms,
    hash: Option<Sha256>,
    received: u64,
    /// Not written yet: the end of what was received.
    gathered: Vec<u8>,
    /// There is one once more than [`CHUNK`] came.
    temporary: Option<Temporary>,
}

pub(crate) async fn begin(files: Arc<Files>, key: &Key, terms: Terms) -> Result<Begun, Error> {
    files.usable()?;
    if terms.length.is_some_and(|length| length > terms.limit) {
        return Err(Error::TooLarge { limit: terms.limit });
    }
    let place = key.place();
    let looked = {
        let (files, place) = (Arc::clone(&files), place.clone());
        blocking(move || files.exists(&place)).await?
    };
    if looked {
        return Ok(Begun::Exists);
    }
    Ok(Begun::Upload(Box::new(Upload {
        files,
        place,
        terms,
        hash: terms.sha256.map(|_| Sha256::new()),
        received: 0,
        gathered: Vec::new(),
        temporary: None,
    })))
}

impl Upload {
    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// More came than the terms allow, or the disk failed: the upload is over.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.received += bytes.len() as u64;
        if self.received > self.terms.limit {
            return Err(Error::TooLarge {
                limit: self.terms.limit,
            });
        }
        if let Some(declared) = self.terms.length.filter(|length| self.received > *length) {
            return Err(Error::Length {
                declared,
                received: self.received,
            });
        }
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() > CHUNK {
            self.write_out().await?;
        }
        Ok(())
    }

    async fn write_out(&mut self) -> Result<(), Error> {
        let files = Arc::clone(&self.files);
        let gathered = std::mem::take(&mut self.gathered);
        let offset = self.received - gathered.len() as u64;
        let temporary = self.temporary.take();
        let (temporary, mut gathered) = blocking(move || {
            let work = || {
                let temporary = temporary.map_or_else(|| files.temporary_file(), Ok)?;
                temporary.write(&gathered, offset)?;
                Ok(temporary)
            };
            files
                .note(work())
                .map(|temporary| (Some(temporary), gathered))
        })
        .await?;
        gathered.clear();
        (self.temporary, self.gathered) = (temporary, gathered);
        Ok(())
    }

    /// Ends the upload: checks length and digest, then makes the object visible and durable.
    ///
    /// # Errors
    ///
    /// The bytes are not those that were declared, or the disk failed. Nothing is left behind.
    pub async fn finish(self: Box<Self>) -> Result<Outcome, Error> {
        let Self {
            files,
            place,
            terms,
            hash,
            received,
            gathered,
            temporary,
        } = *self;
        if let Some(declared) = terms.length.filter(|length| received != *length) {
            return Err(Error::Length { declared, received });
        }
        if let (Some(declared), Some(hash)) = (terms.sha256, hash) {
            let computed = hash.finalize().into();
            if declared != computed {
                return Err(Error::Digest {
                    declared,
                    received: computed,
                });
            }
        }
        blocking(move || {
            let work = || {
                let temporary = temporary.map_or_else(|| files.temporary_file(), Ok)?;
                temporary.write(&gathered, received - gathered.len() as u64)?;
                files.publish(&temporary, &place, received, terms.sha256)
            };
            let stored = files.note(work())?;
            Ok(if stored {
                Outcome::Stored
            } else {
                Outcome::Exists
            })
        })
        .await
    }
}
