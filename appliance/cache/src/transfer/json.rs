//! JSON that comes from outside.

use bytes::Bytes;
use serde_json::Value;

/// Deepest nesting.
const DEPTH: usize = 32;

/// Why bytes are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoJson;

/// Parses JSON that is nested at most 32 levels deep.
///
/// # Errors
///
/// It is no JSON, or nested deeper.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, NoJson> {
    // Before the parser spends memory on it.
    if depth(bytes) > DEPTH {
        return Err(NoJson);
    }
    serde_json::from_slice(bytes).map_err(|_| NoJson)
}

/// The pieces of a body as one.
pub(crate) fn join(pieces: &[Bytes]) -> Vec<u8> {
    pieces.concat()
}

/// How deep brackets outside of strings nest.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut string, mut escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if string => escaped = true,
            b'"' => string = !string,
            b'[' | b'{' if !string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(32).as_bytes()).is_ok());
        assert_eq!(parse(nested(33).as_bytes()), Err(NoJson));
        assert!(parse(br#"{"a":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"[["}"#).is_ok());
        for bad in [&b""[..], b"{", b"[1,]", b"\xff"] {
            assert_eq!(parse(bad), Err(NoJson));
        }
    }
}
