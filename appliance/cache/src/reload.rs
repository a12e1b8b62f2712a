//! What the service reads anew while it runs: its token, the keys of JWTs, a static certificate, the
//! list of revoked tokens.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::Instant;

use crate::auth::{Access, TokenHash};
use crate::certificate::Certificates;
use crate::credentials::{Credentials, Value};
use crate::server::{Shared, in_words};
use crate::{certificate, notify};

/// How often the list of revoked tokens is looked at.
const LOOK_AT_REVOKED: Duration = Duration::from_secs(1);
/// How often credentials are read anew.
const LOOK_AT_CREDENTIALS: Duration = Duration::from_secs(30);
/// Credential with the token that may do everything.
const TOKEN: &str = "larder.cache-token";
/// Credential with the shared secret of JWTs.
const JWT_SECRET: &str = "jwt-secret";
/// Credential with the public keys of JWTs.
const JWT_KEYS: &str = "jwt-keys";
/// Credential with a static certificate and those that it was signed by, in PEM.
const TLS_CERT: &str = "tls-cert";
/// Credential with its private key in PEM.
const TLS_KEY: &str = "tls-key";

/// The token; at the start the settings have it.
struct Token {
    /// A credential gave it.
    given: bool,
}

/// Two credentials that belong together, as they were read last.
struct Both(Option<Value>, Option<Value>);

/// The keys of JWTs: shared secret and bundle.
pub(crate) struct Keys(Both);

/// A static certificate: chain and key.
pub(crate) struct Pair(Both);

fn in_folder(credentials: &Credentials, name: &str) -> Option<Value> {
    credentials.in_folder(name).unwrap_or_else(|error| {
        log::error!("cannot read the credential {name}: {error}");
        None
    })
}

fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.same(b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

impl Token {
    /// Reads it anew, and gives it to `access` if it is another one than that has.
    async fn renew(&mut self, credentials: &Credentials, access: &Access) {
        let Some(new) = credentials.current(TOKEN).await else {
            return;
        };
        let hash = new
            .as_ref()
            .and_then(|value| TokenHash::of_token(value.expose()));
        match (&hash, self.given) {
            (Some(_), _) => {
                if access.set_token(hash) {
                    log::info!("{TOKEN} was read anew");
                }
                self.given = true;
            }
            (None, true) => {
                access.set_token(None);
                log::warn!("{TOKEN} was withdrawn: it lets nobody in any more");
                self.given = false;
            }
            // One of the configuration stays.
            (None, false) => {}
        }
    }
}

impl Both {
    /// As systemd gave them.
    fn of_folder(credentials: &Credentials, names: [&str; 2]) -> Self {
        let read = |name: &str| in_folder(credentials, name);
        Self(read(names[0]), read(names[1]))
    }

    /// Reads them anew; what is not to be had stays.
    async fn renewed(&self, credentials: &Credentials, names: [&str; 2]) -> Self {
        let first = credentials.current(names[0]).await;
        let second = credentials.current(names[1]).await;
        Self(
            first.unwrap_or_else(|| self.0.clone()),
            second.unwrap_or_else(|| self.1.clone()),
        )
    }

    fn same(&self, other: &Self) -> bool {
        same(self.0.as_ref(), other.0.as_ref()) && same(self.1.as_ref(), other.1.as_ref())
    }
}

impl Keys {
    const NAMES: [&str; 2] = [JWT_SECRET, JWT_KEYS];

    /// As systemd gave them.
    pub(crate) fn of_folder(credentials: &Credentials) -> Self {
        Self(Both::of_folder(credentials, Self::NAMES))
    }

    /// `Err`: what is wrong with them; the old ones stay.
    pub(crate) fn give(&self, access: &Access) -> Result<(), String> {
        let Both(secret, bundle) = &self.0;
        let given = access.set_keys(
            secret.as_ref().map(|secret| secret.expose()),
            bundle.as_ref().map(|bundle| bundle.expose()),
        );
        given.map_err(|reason| format!("credentials {JWT_SECRET} and {JWT_KEYS}: {reason}"))
    }
}

impl Pair {
    const NAMES: [&str; 2] = [TLS_CERT, TLS_KEY];

    /// As systemd gave it.
    pub(crate) fn of_folder(credentials: &Credentials) -> Self {
        Self(Both::of_folder(credentials, Self::NAMES))
    }

    /// `Err`: what is wrong with it; what was served before stays.
    pub(crate) fn give(&self, certificates: &Certificates) -> Result<(), String> {
        match &self.0 {
            Both(None, None) => certificates.set_static(None),
            Both(Some(chain), Some(key)) => {
                certificates.set_static(Some((chain.expose(), key.expose())))
            }
            _ => Err(format!(
                "of the credentials {TLS_CERT} and {TLS_KEY} one is missing"
            )),
        }
    }
}

/// Gets and renews the certificate, if ACME is configured.
pub(crate) async fn acme(shared: Arc<Shared>) {
    let settings = &shared.settings;
    let Some(acme) = settings.acme.clone() else {
        return;
    };
    let Some(state) = &settings.state else {
        return log::error!("no certificates by ACME: there is no folder to keep them in");
    };
    let clock = Arc::new(secrets::clock::System);
    let (names, certificates) = (settings.names.clone(), Arc::clone(&shared.certificates));
    certificate::tend(acme, names, state, clock, certificates).await;
}

/// Looks after the credentials and the list of revoked tokens, for ever; at once when told to
/// reload.
pub(crate) fn look(shared: Arc<Shared>, reload: Option<Signal>) -> impl Future<Output = ()> + Send {
    let credentials = &shared.settings.credentials;
    let keys = Keys::of_folder(credentials);
    let pair = Pair::of_folder(credentials);
    let token = Token {
        given: in_folder(credentials, TOKEN).is_some(),
    };
    look_on(shared, reload, keys, pair, token)
}

async fn look_on(
    shared: Arc<Shared>,
    mut reload: Option<Signal>,
    mut keys: Keys,
    mut pair: Pair,
    mut token: Token,
) {
    let credentials = &shared.settings.credentials;
    let mut looked: Option<Instant> = None;
    loop {
        let looking = Arc::clone(&shared);
        // One look at a file; it may be on a slow disk.
        let _ = tokio::task::spawn_blocking(move || looking.access.look()).await;
        let told = async {
            match &mut reload {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        let told = tokio::select! {
            () = tokio::time::sleep(LOOK_AT_REVOKED) => false,
            _ = told => true,
        };
        if !told && looked.is_some_and(|looked| looked.elapsed() < LOOK_AT_CREDENTIALS) {
            continue;
        }
        if told {
            notify::reloading();
        }
        looked = Some(Instant::now());
        token.renew(credentials, &shared.access).await;
        let new_keys = Keys(keys.0.renewed(credentials, Keys::NAMES).await);
        let new_pair = Pair(pair.0.renewed(credentials, Pair::NAMES).await);
        if told {
            notify::ready(&in_words(&shared));
        }
        if !new_keys.0.same(&keys.0) {
            match new_keys.give(&shared.access) {
                Ok(()) => log::info!("the keys of tokens were read anew"),
                Err(reason) => log::error!("{reason}; the old keys stay"),
            }
            keys = new_keys;
        }
        if !new_pair.0.same(&pair.0) {
            match new_pair.give(&shared.certificates) {
                Ok(()) => log::info!("the certificate was read anew"),
                Err(reason) => log::error!("{reason}; the old certificate stays"),
            }
            pair = new_pair;
        }
    }
}
