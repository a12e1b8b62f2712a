//! The credential that a request shows: a Bearer token, or the password of Basic.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Denial;

/// Longest `Authorization` that is looked at, in bytes: a token with grants for many projects fits.
const LONGEST: usize = 8 * 1024;

/// A token as a client shows it.
pub(crate) struct Credential<'a> {
    token: Token<'a>,
    digest: [u8; 32],
}

enum Token<'a> {
    /// In the header itself.
    Bearer(&'a str),
    /// Decoded.
    Basic(Zeroizing<String>),
}

/// The beginning of the SHA-256 of a token: says which one it was without saying the token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint(pub(crate) [u8; 8]);

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({})", self.fingerprint())
    }
}

impl<'a> Credential<'a> {
    /// What the headers show.
    ///
    /// # Errors
    ///
    /// [`Denial::Missing`]: nothing. [`Denial::Unauthorized`]: something that is no token, or two
    /// of them.
    pub(crate) fn of(headers: &'a HeaderMap) -> Result<Self, Denial> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().map_or(&b""[..], HeaderValue::as_bytes);
        if value.trim_ascii().is_empty() {
            return Err(Denial::Missing);
        }
        if values.next().is_some() || value.len() > LONGEST {
            return Err(Denial::Unauthorized);
        }
        Self::parse(value).ok_or(Denial::Unauthorized)
    }

    fn parse(value: &'a [u8]) -> Option<Self> {
        let value = std::str::from_utf8(value).ok()?.trim_ascii();
        let (scheme, rest) = value.split_once(' ')?;
        let rest = rest.trim_ascii();
        let token = if scheme.eq_ignore_ascii_case("bearer") {
            Token::Bearer(rest)
        } else if scheme.eq_ignore_ascii_case("basic") {
            let decoded = STANDARD
                .decode(rest)
                .or_else(|_| STANDARD_NO_PAD.decode(rest));
            let decoded = Zeroizing::new(decoded.ok()?);
            let pair = std::str::from_utf8(&decoded).ok()?;
            // RFC 7617: the user has no colon, the password may.
            let (_, password) = pair.split_once(':')?;
            Token::Basic(Zeroizing::new(password.to_owned()))
        } else {
            return None;
        };
        // A header must be able to carry it on to the server.
        let text = token.text();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        Some(Self {
            digest: Sha256::digest(text.as_bytes()).into(),
            token,
        })
    }

    /// The token in clear.
    pub(crate) fn token(&self) -> &str {
        self.token.text()
    }

    /// SHA-256 of the token.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.digest)
    }
}

impl Token<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Bearer(token) => token,
            Self::Basic(token) => token,
        }
    }
}

impl Fingerprint {
    /// Of a token's SHA-256.
    pub(crate) fn of(digest: &[u8; 32]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *digest;
        Self([a, b, c, d, e, f, g, h])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> Result<String, Denial> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        Credential::of(&headers).map(|shown| shown.token().to_owned())
    }

    #[test]
    fn a_token_comes_as_bearer_or_as_the_password_of_basic() {
        assert_eq!(shown("Bearer secret").unwrap(), "secret");
        assert_eq!(shown("bearer  secret ").unwrap(), "secret");
        let basic = |pair: &str| shown(&format!("Basic {}", STANDARD.encode(pair)));
        assert_eq!(basic("anybody:secret").unwrap(), "secret");
        assert_eq!(basic(":a:b").unwrap(), "a:b");
        assert_eq!(shown("basic OmFi").unwrap(), "ab");
        for wrong in [
            "secret",
            "Bearer",
            "Digest x",
            "Basic ?",
            "Bearer a b",
            "Bearer é",
        ] {
            assert_eq!(shown(wrong), Err(Denial::Unauthorized), "{wrong}");
        }
        assert_eq!(basic("nocolon"), Err(Denial::Unauthorized));
        assert_eq!(basic("empty:"), Err(Denial::Unauthorized));
        assert_eq!(
            shown(&format!("Bearer {}", "x".repeat(LONGEST))),
            Err(Denial::Unauthorized)
        );
    }

    #[test]
    fn nothing_is_missing_and_two_are_wrong() {
        assert_eq!(shown(" "), Err(Denial::Missing));
        let mut headers = HeaderMap::new();
        assert_eq!(Credential::of(&headers).unwrap_err(), Denial::Missing);
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        assert_eq!(Credential::of(&headers).unwrap_err(), Denial::Unauthorized);
    }

    #[test]
    fn a_fingerprint_is_the_beginning_of_the_hash() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer abc"));
        let shown = Credential::of(&headers).unwrap();
        assert_eq!(shown.fingerprint().to_string(), "ba7816bf8f01cfea");
        assert_eq!(format!("{shown:?}"), "Credential(ba7816bf8f01cfea)");
    }
}
