//! Time-based one-time codes (RFC 6238) of an `otpauth://totp/` URI or a secret in Base32.

use std::time::Duration;

use ring::hmac;
use zeroize::Zeroizing;

/// The code of a moment, since 1970.
pub(super) fn code(uri: &str, now: Duration) -> Result<Zeroizing<String>, String> {
    let (mut secret, mut digits, mut period) = (uri, 6, 30);
    let mut algorithm = hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
    if let Some(rest) = uri.strip_prefix("otpauth://totp/") {
        secret = "";
        let query = rest.split_once('?').map_or("", |(_, query)| query);
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "secret" => secret = value,
                "digits" => digits = number(value, 6..=8).ok_or("its digits are not 6 to 8")?,
                "period" => period = number(value, 1..=3600).ok_or("its period makes no sense")?,
                "algorithm" => {
                    algorithm = match value {
                        "SHA1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                        "SHA256" => hmac::HMAC_SHA256,
                        "SHA512" => hmac::HMAC_SHA512,
                        _ => return Err("its algorithm is not known".into()),
                    }
                }
                _ => {}
            }
        }
    }
    let key = base32(secret).ok_or("its one-time secret is no Base32")?;
    let counter = (now.as_secs() / period).to_be_bytes();
    let tag = hmac::sign(&hmac::Key::new(algorithm, &key), &counter);
    let tag = tag.as_ref();
    // RFC 4226, 5.3: the last half byte says where the four bytes are.
    let offset = usize::from(tag[tag.len() - 1] & 15);
    let word = [
        tag[offset] & 0x7f,
        tag[offset + 1],
        tag[offset + 2],
        tag[offset + 3],
    ];
    let value = u32::from_be_bytes(word) % 10_u32.pow(digits as u32);
    Ok(Zeroizing::new(format!(
        "{value:0width$}",
        width = digits as usize
    )))
}

fn number(text: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
    text.parse().ok().filter(|number| range.contains(number))
}

/// RFC 4648, 6, without regard to case, spaces and padding. `None`: empty or not Base32.
fn base32(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let (mut bits, mut count) = (0_u32, 0);
    for c in text.bytes().filter(|c| !b" -=".contains(c)) {
        let value = match c.to_ascii_uppercase() {
            c @ b'A'..=b'Z' => c - b'A',
            c @ b'2'..=b'7' => c - b'2' + 26,
            _ => return None,
        };
        bits = bits << 5 | u32::from(value);
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B.
    #[test]
    fn published_codes() {
        let uri = |secret: &str, algorithm: &str| {
            format!("otpauth://totp/x?secret={secret}&algorithm={algorithm}&digits=8")
        };
        let sha1 = uri("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "SHA1");
        let sha256 = uri(
            "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZA",
            "SHA256",
        );
        for (at, uri, expected) in [
            (59, &sha1, "94287082"),
            (1111111109, &sha1, "07081804"),
            (20000000000, &sha1, "65353130"),
            (59, &sha256, "46119246"),
        ] {
            assert_eq!(&**code(uri, Duration::from_secs(at)).unwrap(), expected);
        }
        let bare = code("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", Duration::from_secs(59)).unwrap();
        assert_eq!(&**bare, "287082");
    }

    #[test]
    fn nonsense_is_refused() {
        for uri in [
            "",
            "1",
            "otpauth://totp/x",
            "otpauth://totp/x?secret=AAAA&digits=99",
            "\u{e9}",
        ] {
            assert!(code(uri, Duration::ZERO).is_err(), "{uri:?}");
        }
    }
}
