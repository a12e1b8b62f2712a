//! Strict doubles of the servers that hold secrets, for tests: they answer as the real ones are
//! known to, refuse what those refuse, and can be told to misbehave.
//!
//! Their cryptography is written apart from the client's on purpose: a mistake made once would
//! otherwise agree with itself.

pub mod connect;
pub mod library;
pub mod server;
pub mod service_account;
pub mod vault;

pub use library::{Field, Kind, Library, Shelf};
pub use server::{Answer, Certificate, FOR_GUESTS, Received, Server, Toxic};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Base64url without padding.
pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The other way.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    use ring::rand::SecureRandom;
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system has randomness");
    bytes
}

/// An id as 1Password makes them: 16 bytes in Base32, lower case. Its clients refuse others, of
/// which the two bits that are left are not zero.
pub(crate) fn id() -> String {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
    let number = u128::from_be_bytes(random());
    (0..26)
        .map(|index| {
            let value = match index {
                25 => number << 2,
                _ => number >> (123 - 5 * index),
            };
            char::from(ALPHABET[(value & 31) as usize])
        })
        .collect()
}
