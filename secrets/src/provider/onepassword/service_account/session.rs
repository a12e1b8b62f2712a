//! A session: the login in four requests, and requests that are signed and encrypted under its key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::super::super::{json, refusal};
use super::envelope::Envelope;
use super::keys::Key;
use super::srp::{Exchange, Identity, random};
use super::token::Token;
use crate::error::{Class, FetchError};
use crate::transport::{Origin, Request, Response, Transport};

/// What the vendor's clients derive the key of signatures from.
const MAC_CONTEXT: &[u8] = b"He never wears a Mac, in the pouring rain. Very strange.";

/// A login that stands.
pub(super) struct Session {
    origin: Origin,
    key: Key,
    mac: hmac::Key,
    /// Number of the next request.
    next: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    status: String,
    #[serde(default, rename = "sessionID")]
    session: String,
    #[serde(default)]
    user_auth: Option<UserAuth>,
}

#[derive(Deserialize)]
struct UserAuth {
    method: String,
    salt: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Auth {
    user_b: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Confirm {
    server_verify_hash: String,
}

#[derive(Deserialize)]
struct Complete {}

fn protocol(what: &str) -> FetchError {
    FetchError::new(Class::Protocol, format!("logging in: {what}"))
}

/// During the login 400, 401, 403 and 404 all say that the account is not known like that.
fn login_refusal(answer: &Response) -> FetchError {
    match answer.status {
        400 | 401 | 403 | 404 => {
            let what = format!(
                "logging in: the service account is refused (status {}): is the token revoked or \
                 expired?",
                answer.status
            );
            FetchError::new(Class::Unauthorized, what)
        }
        _ => refusal(answer, "logging in"),
    }
}

impl Session {
    /// Logs in.
    pub(super) async fn start(
        transport: &dyn Transport,
        token: &Token,
    ) -> Result<Self, FetchError> {
        let login = Self::log_in(transport, token).await;
        login.map_err(|error| error.at(&token.origin))
    }

    async fn log_in(transport: &dyn Transport, token: &Token) -> Result<Self, FetchError> {
        let post = |path: &str, body: serde_json::Value| {
            Request::with_body(http::Method::POST, path, body.to_string().into_bytes())
        };
        let send = async |request: Request| {
            let answer = transport.send(&token.origin, request).await?;
            match answer.status {
                200 => Ok(answer.body),
                _ => Err(login_refusal(&answer)),
            }
        };
        let doing = "logging in";
        let body = send(post(
            "/api/v3/auth/start",
            json!({
                "email": token.email, "skFormat": "A3", "skid": token.key_id,
                "deviceUuid": token.device,
            }),
        ))
        .await?;
        let start: Start = json(&body, doing)?;
        match start.status.as_str() {
            "ok" => {}
            "device-not-registered" | "device-deleted" => {
                let what = "logging in: the service account's device is not registered (any more): \
                            make a new token";
                return Err(FetchError::new(Class::Unauthorized, what));
            }
            _ => return Err(protocol("the server wants a step that is not known")),
        }
        let plain = |c: u8| c.is_ascii_alphanumeric();
        if start.session.is_empty() || !start.session.bytes().all(plain) {
            return Err(protocol("the server gave no session"));
        }
        let salt = match start.user_auth {
            Some(auth) if auth.method == "SRPg-4096" => URL_SAFE_NO_PAD
                .decode(&auth.salt)
                .map_err(|_| protocol("the salt is no Base64"))?,
            Some(_) => return Err(protocol("the server wants a login that is not known")),
            None => token.salt.clone(),
        };
        let with_session =
            |request: Request| request.header("x-agilebits-session-id", &start.session);

        let exchange = Exchange::begin()?;
        let auth = post("/api/v2/auth", json!({ "userA": exchange.public() }));
        let auth: Auth = json(&send(with_session(auth)).await?, doing)?;
        let identity = Identity {
            key_id: &token.key_id,
            email: &token.email,
            salt: &salt,
            x: &token.x,
        };
        let agreed = exchange.agree(&auth.user_b, &identity).map_err(protocol)?;

        let proof = json!({ "clientVerifyHash": URL_SAFE_NO_PAD.encode(agreed.proof) });
        let confirm = post("/api/v2/auth/confirm-key", proof);
        let confirm: Confirm = json(&send(with_session(confirm)).await?, doing)?;
        if confirm.server_verify_hash != URL_SAFE_NO_PAD.encode(agreed.expected) {
            return Err(protocol(
                "the server does not know the account: somebody else answers in its place",
            ));
        }

        let mut first = [0; 4];
        random(&mut first)?;
        let mac = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &*agreed.key),
            MAC_CONTEXT,
        );
        let mut session = Self {
            origin: token.origin.clone(),
            key: Key {
                id: start.session,
                bytes: agreed.key,
            },
            mac: hmac::Key::new(hmac::HMAC_SHA256, mac.as_ref()),
            // Half of the numbers are left to count.
            next: u32::from_be_bytes(first) / 2,
        };
        let client = concat!("Larder/", env!("CARGO_PKG_VERSION"));
        let complete = post(
            "/api/v2/auth/complete",
            json!({ "client": client, "device": null }),
        );
        let body = session.call(transport, complete, "logging in").await?;
        let Complete {} = json(&body, doing)?;
        Ok(session)
    }

    /// Sends a request, its body encrypted, and opens the answer. Class `Unauthorized`: the session
    /// is over.
    pub(super) async fn call(
        &mut self,
        transport: &dyn Transport,
        mut request: Request,
        doing: &str,
    ) -> Result<Zeroizing<Vec<u8>>, FetchError> {
        if !request.body.is_empty() {
            let envelope = Envelope::seal(&self.key, &request.body)?;
            request.body = Zeroizing::new(
                serde_json::to_vec(&envelope)
                    .map_err(|_| FetchError::new(Class::Local, "cannot write the request"))?,
            );
        }
        let mac = self.sign(&request);
        let request = request
            .header("x-agilebits-session-id", &self.key.id)
            .header("x-agilebits-mac", mac)
            .header("op-data-consistency", "eventual");
        let answer = transport.send(&self.origin, request).await?;
        if answer.status != 200 {
            return Err(refusal(&answer, doing).at(&self.origin));
        }
        let envelope: Envelope = json(&answer.body, doing).map_err(|e| e.at(&self.origin))?;
        envelope
            .open(&self.key, doing)
            .map_err(|e| e.at(&self.origin))
    }

    /// The value of `X-AgileBits-MAC`, which counts requests.
    fn sign(&mut self, request: &Request) -> String {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let text = format!(
            "{}|{}|{}{path}?{query}|v1|{number}",
            self.key.id,
            request.method,
            // Without the port.
            self.origin.host(),
        );
        let tag = hmac::sign(&self.mac, text.as_bytes());
        format!(
            "v1|{number}|{}",
            URL_SAFE_NO_PAD.encode(&tag.as_ref()[..12])
        )
    }
}
