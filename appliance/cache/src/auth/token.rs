//! Tokens of which only the SHA-256 is known.

use sha2::{Digest, Sha256};

/// SHA-256 of a token that clients show.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

impl TokenHash {
    /// Of a token in clear; white space around it (the line's end of a file) does not count.
    /// `None`: the token is empty.
    #[must_use]
    pub fn of_token(token: &[u8]) -> Option<Self> {
        let token = token.trim_ascii();
        (!token.is_empty()).then(|| Self(Sha256::digest(token).into()))
    }

    /// From 64 hexadecimal digits. `None`: they are not.
    #[must_use]
    pub fn from_hex(digits: &str) -> Option<Self> {
        parse_hex(digits).map(Self)
    }

    /// The hash itself.
    pub(super) fn digest(&self) -> &[u8; 32] {
        &self.0
    }
}

/// 64 hexadecimal digits of either case.
pub(crate) fn parse_hex(digits: &str) -> Option<[u8; 32]> {
    let digits = digits.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        // Two digits are at most 255.
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Some(bytes)
}

/// 64 lower-case hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8; 32]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(64);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_token_is_none() {
        // Not one that everybody knows.
        assert!(TokenHash::of_token(b" \n").is_none());
        let hash = TokenHash::of_token(b"secret\n").unwrap();
        assert_eq!(Some(hash), TokenHash::of_token(b"secret"));
    }

    #[test]
    fn hexadecimal() {
        let digits = "00ff".repeat(16);
        assert_eq!(to_hex(&parse_hex(&digits).unwrap()), digits);
        assert_eq!(parse_hex(&digits.to_uppercase()), parse_hex(&digits));
        for bad in [
            "",
            &digits[1..],
            &"0g".repeat(32),
            &"+f".repeat(32),
            &"é".repeat(32),
        ] {
            assert_eq!(parse_hex(bad), None, "{bad}");
        }
        let hash = TokenHash::of_token(b"abc").unwrap();
        assert_eq!(
            to_hex(&hash.0),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(format!("{hash:?}"), "TokenHash(..)");
    }
}
