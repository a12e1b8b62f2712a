//! Paths and queries of requests: percent-decoding, and what may become a name.

use std::borrow::Cow;

/// The target of a request cannot be decoded: `%` without two digits, no UTF-8, or a parameter that
/// is there twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Undecodable;

/// Decodes `%xx`.
pub(crate) fn decode(text: &str) -> Result<Cow<'_, str>, Undecodable> {
    if !text.contains('%') {
        return Ok(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let (&[high, low], after) = after.split_first_chunk().ok_or(Undecodable)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(Undecodable);
        // Two digits are at most 255.
        bytes.push((digit(high)? << 4 | digit(low)?) as u8);
        rest = after;
    }
    String::from_utf8(bytes)
        .map(Into::into)
        .map_err(|_| Undecodable)
}

/// The parameters of a query.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Parses the part of a target behind `?`.
    ///
    /// # Errors
    ///
    /// It cannot be decoded; or a parameter is there twice, or a value was encoded twice: whoever
    /// checks and whoever acts might take different ones.
    pub(crate) fn parse(text: Option<&'a str>) -> Result<Self, Undecodable> {
        let mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for pair in text.unwrap_or_default().split('&') {
            if pair.is_empty() {
                continue;
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decode_form(key)?, decode_form(value)?);
            if is_encoded(&value) || pairs.iter().any(|(known, _)| *known == key) {
                return Err(Undecodable);
            }
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| &**value)
    }
}

/// Decodes `%xx`, and `+`, which is a space in queries.
fn decode_form(text: &str) -> Result<Cow<'_, str>, Undecodable> {
    if !text.contains('+') {
        return decode(text);
    }
    let text = text.replace('+', " ");
    decode(&text).map(|text| Cow::Owned(text.into_owned()))
}

/// Whether there is a `%xx` in a text that was decoded already.
fn is_encoded(text: &str) -> bool {
    text.as_bytes()
        .windows(3)
        .any(|three| three[0] == b'%' && three[1..].iter().all(u8::is_ascii_hexdigit))
}

/// The segments of a path, each decoded; none may be empty, `.` or `..`, or hold `/`, `\\` or NUL
/// once it is decoded, so that no two paths mean the same object.
pub(crate) fn segments(path: &str) -> Result<Vec<Cow<'_, str>>, Undecodable> {
    let each = |segment| match decode(segment)? {
        segment if unsafe_name(&segment).is_some() || is_encoded(&segment) => Err(Undecodable),
        segment => Ok(segment),
    };
    path.split('/').map(each).collect()
}

/// Why a value may not be part of a name, or nothing.
pub(crate) fn unsafe_name(value: &str) -> Option<&'static str> {
    match value {
        "" => Some("String length is smaller than minLength: 1"),
        "." | ".." => Some("Invalid format. It must not be \".\" or \"..\""),
        _ if value.contains(['/', '\\', '\0']) => {
            Some("Invalid format. It must not contain \"/\", \"\\\" or NUL")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding() {
        assert_eq!(decode("a+b").unwrap(), "a+b");
        assert_eq!(decode("0~a%3D%3d%2Fb%C3%A9").unwrap(), "0~a==/bé");
        for bad in ["%", "%1", "a%1g", "%c3", "%+1"] {
            assert_eq!(decode(bad), Err(Undecodable), "{bad}");
        }
    }

    #[test]
    fn queries() {
        let all = Query::parse(Some("account_handle=a+b&x&&project_handle=%70"));
        let all = all.unwrap();
        assert_eq!(all.get("account_handle"), Some("a b"));
        assert_eq!(all.get("project_handle"), Some("p"));
        assert_eq!(all.get("x"), Some(""));
        assert_eq!(all.get("y"), None);
        assert_eq!(Query::parse(None), Ok(Query::default()));
        for bad in ["a=%zz&y=1", "a=1&a=1", "a=1&%61=2", "a=%2561"] {
            assert_eq!(Query::parse(Some(bad)), Err(Undecodable), "{bad}");
        }
        assert_eq!(Query::parse(Some("a=5%25")).unwrap().get("a"), Some("5%"));
    }

    #[test]
    fn paths_have_one_spelling() {
        assert_eq!(segments("a/b%20c").unwrap(), ["a", "b c"]);
        for bad in [
            "", "a//b", "a/", "./a", "a/..", "a/%2e%2e", "a%2Fb", "a%5cb", "%00", "%2561",
        ] {
            assert_eq!(segments(bad), Err(Undecodable), "{bad}");
        }
    }

    #[test]
    fn names() {
        for good in ["a", "...", ".a", "0~x==", "é", " "] {
            assert_eq!(unsafe_name(good), None, "{good}");
        }
        for bad in ["", ".", "..", "a/b", "\\", "a\0"] {
            assert!(unsafe_name(bad).is_some(), "{bad:?}");
        }
    }
}
