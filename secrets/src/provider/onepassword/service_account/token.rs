//! The token: `ops_` and a JSON object in Base64url.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::super::text::SecretText;
use super::keys::{Jwk, Key};
use crate::transport::Origin;

/// Hosts of the vendor, whose subdomains a token may name.
const HOSTS: [&str; 3] = ["1password.com", "1password.ca", "1password.eu"];

/// What is in a token.
pub(super) struct Token {
    pub(super) origin: Origin,
    pub(super) email: String,
    /// The second part of the secret key, which names it.
    pub(super) key_id: String,
    pub(super) device: String,
    pub(super) salt: Vec<u8>,
    pub(super) x: Zeroizing<Vec<u8>>,
    /// Master unlock key: opens the keysets.
    pub(super) muk: Key,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    sign_in_address: String,
    user_auth: UserAuth,
    email: String,
    srp_x: SecretText,
    muk: Jwk,
    secret_key: SecretText,
    device_uuid: String,
}

#[derive(Deserialize)]
struct UserAuth {
    method: String,
    salt: String,
}

impl Token {
    /// Reads a token. It may name the vendor's hosts and these (`host` or `host:port`): whoever
    /// could choose the host would get the login.
    pub(super) fn parse(text: &str, hosts: &[String]) -> Result<Self, String> {
        let encoded = text
            .strip_prefix("ops_")
            .ok_or("a service account token begins with ops_")?;
        let plain = URL_SAFE_NO_PAD
            .decode(encoded.trim_end_matches('='))
            .map_err(|_| "the token is cut off or changed: it is no Base64")?;
        let plain = Zeroizing::new(plain);
        let raw: Raw = serde_json::from_slice(&plain)
            .map_err(|_| "the token is cut off or changed: parts of it are missing")?;
        if raw.user_auth.method != "SRPg-4096" {
            return Err("the token asks for a login that Larder does not know".into());
        }
        let origin = origin(&raw.sign_in_address, hosts)?;
        let mut parts = raw.secret_key.0.split('-');
        let key_id = match (parts.next(), parts.next()) {
            (Some("A3"), Some(id)) if !id.is_empty() => id.to_owned(),
            _ => return Err("the secret key in the token is not of the form A3-…".into()),
        };
        Ok(Self {
            origin,
            key_id,
            email: raw.email,
            device: raw.device_uuid,
            salt: URL_SAFE_NO_PAD
                .decode(&raw.user_auth.salt)
                .map_err(|_| "the salt in the token is no Base64")?,
            x: hex(&raw.srp_x.0).ok_or("srpX in the token is not 32 bytes in hexadecimal")?,
            muk: raw
                .muk
                .key()
                .map_err(|reason| format!("muk in the token: {reason}"))?,
        })
    }
}

fn origin(address: &str, hosts: &[String]) -> Result<Origin, String> {
    let url = match address.contains("://") {
        true => address.to_owned(),
        false => format!("https://{address}"),
    };
    // Only a host name is shown, never the rest of a token.
    let origin = Origin::parse(&url).map_err(|_| "the token names no valid host")?;
    let vendor = |host: &str| {
        HOSTS
            .iter()
            .any(|own| host.strip_suffix(own).is_some_and(|sub| sub.ends_with('.')))
    };
    let allowed = (origin.tls() && origin.port() == 443 && vendor(origin.host()))
        || hosts.iter().any(|host| {
            Origin::parse(&format!("https://{host}")).is_ok_and(|allowed| allowed == origin)
        });
    if allowed {
        Ok(origin)
    } else {
        Err(format!(
            "the token names the host {origin}, which is not 1Password's: if it is right, add it to \
             hosts in the manifest"
        ))
    }
}

fn hex(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    if text.len() != 64 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let digit = |c: u8| char::from(c).to_digit(16).unwrap_or(0) as u8;
    let bytes = text
        .as_bytes()
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]));
    Some(Zeroizing::new(bytes.collect()))
}
