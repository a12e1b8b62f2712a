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

/// The value of `name` in a query. One that is there twice is an error: whoever checks and whoever
/// acts might take different ones.
pub(crate) fn query(query: Option<&str>, name: &str) -> Result<Option<String>, Undecodable> {
    let mut found = None;
    for pair in query.unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        // A broken pair spoils the whole query, also under another name.
        let (key, value) = (key.replace('+', " "), value.replace('+', " "));
        let (key, value) = (decode(&key)?, decode(&value)?);
        if key == name && found.replace(value.into_owned()).is_some() {
            return Err(Undecodable);
        }
    }
    Ok(found)
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
        let all = Some("account_handle=a+b&x&project_handle=%70&z&z");
        assert_eq!(query(all, "account_handle").unwrap().unwrap(), "a b");
        assert_eq!(query(all, "project_handle").unwrap().unwrap(), "p");
        assert_eq!(query(all, "z"), Err(Undecodable));
        assert_eq!(query(all, "x").unwrap().unwrap(), "");
        assert_eq!(query(all, "y").unwrap(), None);
        assert_eq!(query(None, "y").unwrap(), None);
        assert_eq!(query(Some("a=%zz&y=1"), "y"), Err(Undecodable));
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
