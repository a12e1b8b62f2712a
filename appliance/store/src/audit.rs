//! The audit: finds poisoned objects that nobody else can see.
//!
//! The id of an object of the Xcode compilation cache is the SHA-256 of its plain bytes and
//! `cache-v1`; what is stored is compressed with zstd, so the id is no digest of the body and no
//! upload can be checked cheaply. The audit decodes and computes it again. It reports, it removes nothing.

use std::io::Read;

use bytes::Buf;
use sha2::{Digest, Sha256};

use crate::format::record::Head;
use crate::key::Kind;
use crate::object::Info;
use crate::volume::{Body, read_part};
use crate::{Error, Store};

/// Most plain bytes of an object.
const PLAIN_LIMIT: u64 = 256 << 20;
/// What is hashed after the plain bytes.
const SUFFIX: &[u8] = b"cache-v1";

/// What the audit found out about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is what its id says.
    Right,
    /// It is something else: whoever gets it builds with it. Its plain bytes have this id.
    Poisoned(String),
    /// It is no zstd stream, for this reason.
    Undecodable(String),
    /// It has more than 256 MiB of plain bytes.
    TooLarge,
}

impl Store {
    /// Audits all objects whose id is 64 hexadecimal digits. Blocks, for long.
    ///
    /// # Errors
    ///
    /// A volume cannot be read at all.
    pub fn audit(&self, mut each: impl FnMut(&Info, Finding)) -> Result<(), Error> {
        for volume in self.volumes() {
            volume.each_live(&mut |segment, entry, slot| {
                let record = volume.record_in(segment, slot.place, slot.bytes(), true);
                // What is damaged is the scrub's to find.
                if let Ok(record) = record
                    && entry.tag == record.head.tag
                    && has_id(&record.head)
                {
                    let finding = look(&record.head, &record.body);
                    if let Some(finding) = finding {
                        each(&Info::new(&record.head, false), finding);
                    }
                }
                std::ops::ControlFlow::Continue(())
            });
        }
        Ok(())
    }
}

fn has_id(head: &Head) -> bool {
    let [kind, _, _, _, id, _] = head.key.each();
    kind == Kind::XcodeCas.name()
        && id.len() == 64
        && id.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// `None`: the bytes could not be read.
fn look(head: &Head, body: &Body) -> Option<Finding> {
    let body = match body {
        Body::Here(body) => body.clone(),
        Body::There(source, offset) => {
            read_part(head, source, *offset, 0..head.length, true).ok()?
        }
    };
    let [.., id, _] = head.key.each();
    let decoder = match zstd::stream::read::Decoder::new(body.reader()) {
        Ok(decoder) => decoder,
        Err(error) => return Some(Finding::Undecodable(error.to_string())),
    };
    let mut plain = decoder.take(PLAIN_LIMIT + 1);
    let mut hash = Sha256::new();
    let (mut buffer, mut length) = (vec![0; 64 * 1024], 0_u64);
    loop {
        match plain.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                length += read as u64;
                hash.update(&buffer[..read]);
            }
            Err(error) => return Some(Finding::Undecodable(error.to_string())),
        }
    }
    if length > PLAIN_LIMIT {
        return Some(Finding::TooLarge);
    }
    hash.update(SUFFIX);
    let computed = crate::error::hex(&hash.finalize()).to_uppercase();
    Some(if computed.eq_ignore_ascii_case(id) {
        Finding::Right
    } else {
        Finding::Poisoned(computed)
    })
}
