//! Certificates by ACME (RFC 8555): an account, orders validated by http-01, renewal when the
//! authority suggests it (ARI, RFC 9773) or a third of the life is left.
//!
//! All of it is kept in the folder `acme` of the service's state, by a hash of the directory, so
//! that a change of the authority begins anew and the way back finds what was there:
//! `account-HASH.json`, `certificate-HASH.pem`, `attempts`.

mod attempts;
mod http;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rustls::pki_types::CertificateDer;
use secrets::clock::Clock;
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;

use self::attempts::Attempts;
use self::http::Http;
use super::dns::{self, Resolve};
use super::kept::{Kept, keep, parse};
use super::{Certificates, Served, ends, margin};

/// How ACME is used.
#[derive(Clone, Debug)]
pub struct AcmeSettings {
    /// Address of the authority's directory.
    pub directory: String,
    /// E-mail address for the authority.
    pub contact: String,
    /// PEM file of the authorities that the directory's certificate must come from; `None`: those
    /// of the system.
    pub ca_file: Option<PathBuf>,
    /// Order only when the names lead to this machine.
    pub check_dns: bool,
}

/// How often names that lead elsewhere are looked at again.
const LOOK_AT_NAMES: Duration = Duration::from_secs(600);
/// How often the authority is asked when to renew, unless it says.
const LOOK_AT_RENEWAL: Duration = Duration::from_secs(6 * 3600);
/// Pause before an authority that gave no account is tried again.
const UNREACHABLE: Duration = Duration::from_secs(60);
/// Shortest and longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
/// Longest wait for the authority's validation, and then for the certificate.
const VALIDATION: Duration = Duration::from_secs(180);

/// One machine's dealings with one authority.
struct Acme {
    settings: AcmeSettings,
    names: Vec<String>,
    folder: PathBuf,
    hash: String,
    http: Http,
    resolve: Box<dyn Resolve>,
    clock: Arc<dyn Clock>,
    certificates: Arc<Certificates>,
    attempts: Attempts,
    /// The restored or new account.
    account: Option<Account>,
}

/// Gets and renews certificates, for ever.
pub(crate) async fn tend(
    settings: AcmeSettings,
    names: Vec<String>,
    state: &Path,
    clock: Arc<dyn Clock>,
    certificates: Arc<Certificates>,
) {
    let resolve = Box::new(dns::System);
    let opened = Acme::open(
        settings,
        names,
        state,
        clock,
        Arc::clone(&certificates),
        resolve,
    );
    let mut acme = match opened {
        Ok(acme) => acme,
        Err(error) => {
            log::error!("no certificates by ACME: {error}");
            return certificates.set_trouble(Some(error));
        }
    };
    loop {
        let pause = acme.look().await;
        tokio::time::sleep(pause.clamp(PAUSES.0, PAUSES.1)).await;
    }
}

/// The first 64 bits of the SHA-256 of a directory's address.
fn hash(directory: &str) -> String {
    let digest = Sha256::digest(directory.as_bytes());
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Lines for the log: what an authority says may hold anything.
fn printable(error: &Error) -> String {
    let text = error.to_string();
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(500)
        .collect()
}

impl Acme {
    fn open(
        settings: AcmeSettings,
        names: Vec<String>,
        state: &Path,
        clock: Arc<dyn Clock>,
        certificates: Arc<Certificates>,
        resolve: Box<dyn Resolve>,
    ) -> Result<Self, String> {
        let folder = state.join("acme");
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        Ok(Self {
            http: Http::new(settings.ca_file.as_deref())?,
            hash: hash(&settings.directory),
            attempts: Attempts::open(&folder),
            account: None,
            settings,
            names,
            folder,
            resolve,
            clock,
            certificates,
        })
    }

    fn now(&self) -> u64 {
        self.clock.now().as_secs()
    }

    fn file(&self) -> String {
        format!("certificate-{}.pem", self.hash)
    }

    /// The kept certificate. `None`: there is none, or not of these names.
    fn kept(&self) -> Option<Kept> {
        let bytes = std::fs::read(self.folder.join(self.file())).ok()?;
        let kept = parse(&bytes)?;
        (kept.names == self.names).then_some(kept)
    }

    /// Looks at the certificate and does what is to be done. Returns when to look again.
    async fn look(&mut self) -> Duration {
        let now = self.now();
        let kept = self
            .kept()
            .filter(|kept| kept.chain.first().and_then(ends) > Some(now));
        let mut replaces = None;
        if let Some(kept) = kept {
            let first = kept.chain[0].clone();
            let renew_after = kept.renew_after;
            let Some(served) = kept.certified().and_then(Served::new) else {
                log::error!(
                    "{}: the certificate is broken",
                    self.folder.join(self.file()).display()
                );
                return self.order(None).await;
            };
            self.certificates.set_acme(served);
            let (due, look) = self.due(&first, renew_after).await;
            if due > self.now() {
                self.certificates.set_trouble(None);
                return Duration::from_secs(due - self.now()).min(look);
            }
            replaces = Some(first);
        }
        self.order(replaces).await
    }

    /// When to renew, in seconds since 1970, and when to ask again at the latest.
    async fn due(&mut self, first: &CertificateDer<'_>, renew_after: u64) -> (u64, Duration) {
        let Ok(id) = CertificateIdentifier::try_from(first) else {
            return (renew_after, LOOK_AT_RENEWAL);
        };
        let account = match self.account().await {
            Ok(account) => account,
            Err(error) => {
                log::warn!(
                    "cannot ask {} when to renew: {}",
                    self.settings.directory,
                    printable(&error)
                );
                return (renew_after, LOOK_AT_RENEWAL);
            }
        };
        match account.renewal_info(&id).await {
            Ok((info, look)) => {
                let window = info.suggested_window;
                let (start, end) = (window.start.unix_timestamp(), window.end.unix_timestamp());
                if let Some(why) = &info.explanation_url {
                    log::info!(
                        "the authority explains the renewal at {}",
                        why.escape_debug()
                    );
                }
                (
                    within(start, end, &id),
                    look.clamp(PAUSES.0, LOOK_AT_RENEWAL),
                )
            }
            Err(Error::Unsupported(_)) => (renew_after, LOOK_AT_RENEWAL),
            Err(error) => {
                log::warn!(
                    "cannot ask {} when to renew: {}",
                    self.settings.directory,
                    printable(&error)
                );
                (renew_after, LOOK_AT_RENEWAL)
            }
        }
    }

    /// Orders a certificate if it may be done now. Returns when to look again.
    async fn order(&mut self, replaces: Option<CertificateDer<'static>>) -> Duration {
        let now = self.now();
        if let Some(wait) = self.attempts.wait(now) {
            return wait;
        }
        if self.settings.check_dns
            && let Err(wrong) = dns::check(&self.names, &*self.resolve).await
        {
            log::error!("{wrong}");
            self.certificates.set_trouble(Some(wrong));
            return LOOK_AT_NAMES;
        }
        // Without an order nothing is used up: an authority that cannot be reached is tried again
        // soon.
        if let Err(error) = self.account().await {
            let wait = self.http.wait().unwrap_or_default().max(UNREACHABLE);
            let text = format!(
                "no certificate is ordered: {}: {}",
                self.settings.directory,
                printable(&error)
            );
            log::error!("{text}");
            self.certificates.set_trouble(Some(text));
            return wait;
        }
        if let Err(error) = self.attempts.begins(now) {
            let text = format!("no certificate is ordered, because it could not be kept: {error}");
            log::error!("{text}");
            self.certificates.set_trouble(Some(text));
            return LOOK_AT_NAMES;
        }
        match self.certificate(replaces).await {
            Ok(()) => {
                log::info!(
                    "a certificate for {} from {}",
                    self.names.join(" "),
                    self.settings.directory
                );
                self.attempts.succeeded();
                self.certificates.set_trouble(None);
                PAUSES.0
            }
            Err(error) => {
                let now = self.now();
                self.attempts.failed(now, self.http.wait());
                let wait = self.attempts.wait(now).unwrap_or_default();
                let text = format!(
                    "no certificate for {} from {}: {error}; tried again in {} minutes",
                    self.names.join(" "),
                    self.settings.directory,
                    wait.as_secs() / 60
                );
                log::error!("{text}");
                self.certificates.set_trouble(Some(text));
                wait
            }
        }
    }

    /// Gets a certificate, keeps it and serves it.
    async fn certificate(
        &mut self,
        replaces: Option<CertificateDer<'static>>,
    ) -> Result<(), String> {
        let account = self.account().await.map_err(|error| printable(&error))?;
        let identifiers: Vec<_> = self
            .names
            .iter()
            .map(|name| match name.parse() {
                Ok(address) => Identifier::Ip(address),
                Err(_) => Identifier::Dns(name.clone()),
            })
            .collect();
        let order = NewOrder::new(&identifiers);
        let id = replaces
            .as_ref()
            .and_then(|first| CertificateIdentifier::try_from(first).ok());
        let made = match id {
            Some(id) => match account
                .new_order(&NewOrder::new(&identifiers).replaces(id))
                .await
            {
                // It was replaced already, or the authority knows nothing of it: a plain order.
                Err(error) if !is_rate_limit(&error) => {
                    log::warn!(
                        "an order that replaces the old certificate: {}",
                        printable(&error)
                    );
                    account.new_order(&order).await
                }
                made => made,
            },
            None => account.new_order(&order).await,
        };
        let mut order = made.map_err(|error| printable(&error))?;
        self.validate(&mut order).await?;
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
        let key = key.map_err(|error| error.to_string())?;
        let mut params =
            rcgen::CertificateParams::new(self.names.clone()).map_err(|e| e.to_string())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        let csr = params
            .serialize_request(&key)
            .map_err(|error| error.to_string())?;
        order
            .finalize_csr(csr.der())
            .await
            .map_err(|error| printable(&error))?;
        let policy = RetryPolicy::new().timeout(VALIDATION);
        let chain = order
            .poll_certificate(&policy)
            .await
            .map_err(|error| printable(&error))?;
        self.take(&key.serialize_pem(), &chain)
    }

    /// Checks, keeps and serves what the authority gave.
    fn take(&self, key: &str, chain: &str) -> Result<(), String> {
        let names = self.names.join(" ");
        let text = |renew: u64| format!("names: {names}\nrenew after: {renew}\n{key}{chain}");
        let no = "the authority's answer is no certificate for our key";
        let parsed = parse(text(0).as_bytes()).ok_or(no)?;
        let (_, first) = x509_parser::certificate::X509Certificate::from_der(&parsed.chain[0])
            .map_err(|_| no)?;
        let (from, to) = (
            first.validity().not_before.timestamp(),
            first.validity().not_after.timestamp(),
        );
        let (Ok(from), Ok(to)) = (u64::try_from(from), u64::try_from(to)) else {
            return Err(no.into());
        };
        if to <= self.now() {
            return Err(
                "the authority's certificate has ended already: is the clock right?".into(),
            );
        }
        let life = Duration::from_secs(to.saturating_sub(from));
        let text = text(to.saturating_sub(margin(life).as_secs()));
        let served = parse(text.as_bytes())
            .and_then(Kept::certified)
            .and_then(Served::new)
            .ok_or(no)?;
        keep(&self.folder, &self.file(), text.as_bytes()).map_err(|error| error.to_string())?;
        self.certificates.set_acme(served);
        Ok(())
    }

    /// Answers the challenges of an order until the authority has seen all of them.
    async fn validate(&self, order: &mut Order) -> Result<(), String> {
        let mut answers = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| printable(&error))?;
            let name = authorization.identifier().to_string();
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => return Err(format!("the authorization of {name} is {status:?}")),
            }
            let challenge = authorization.challenge(ChallengeType::Http01);
            let mut challenge = challenge
                .ok_or_else(|| format!("the authority does not offer http-01 for {name}"))?;
            let answer = challenge.key_authorization();
            answers.push(
                self.certificates
                    .challenges
                    .put(&challenge.token, answer.as_str()),
            );
            challenge
                .set_ready()
                .await
                .map_err(|error| printable(&error))?;
        }
        let policy = RetryPolicy::new().timeout(VALIDATION);
        let status = order
            .poll_ready(&policy)
            .await
            .map_err(|error| printable(&error))?;
        if status == OrderStatus::Ready {
            return Ok(());
        }
        Err(format!(
            "the order is {status:?}: {}",
            refusals(order).await
        ))
    }

    /// The account at this authority: in memory, kept, or new.
    async fn account(&mut self) -> Result<Account, Error> {
        if let Some(account) = &self.account {
            return Ok(account.clone());
        }
        let builder = || Account::builder_with_http(Box::new(self.http.clone()));
        let file = format!("account-{}.json", self.hash);
        let kept = std::fs::read(self.folder.join(&file)).ok();
        let kept = kept.and_then(|bytes| serde_json::from_slice::<AccountCredentials>(&bytes).ok());
        let account = match kept {
            Some(credentials) => builder().from_credentials(credentials).await?,
            None => {
                let contact = format!("mailto:{}", self.settings.contact);
                let new = NewAccount {
                    contact: &[&contact],
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                let directory = self.settings.directory.clone();
                let (account, credentials) = builder().create(&new, directory, None).await?;
                let text = zeroize::Zeroizing::new(serde_json::to_vec(&credentials)?);
                keep(&self.folder, &file, &text)
                    .map_err(|error| Error::Other(error.to_string().into()))?;
                account
            }
        };
        self.account = Some(account.clone());
        Ok(account)
    }
}

/// Why challenges failed, as the authority says.
async fn refusals(order: &mut Order) -> String {
    let mut all = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        // The state from before the validation is of no use.
        let _ = authorization.refresh().await;
        let name = authorization.identifier().to_string();
        for challenge in &authorization.challenges {
            if let Some(problem) = challenge.error.clone() {
                all.push(format!("{name}: {}", printable(&Error::Api(problem))));
            }
        }
    }
    all.join("; ")
}

fn is_rate_limit(error: &Error) -> bool {
    matches!(error, Error::Api(problem)
        if problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:rateLimited"))
}

/// A moment of the suggested window, always the same for a certificate, in seconds since 1970.
fn within(start: i64, end: i64, id: &CertificateIdentifier<'_>) -> u64 {
    let digest = Sha256::digest(id.to_string().as_bytes());
    let random = u64::from_be_bytes([
        digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7],
    ]);
    let (start, end) = (start.max(0) as u64, end.max(0) as u64);
    start + random % end.saturating_sub(start).max(1)
}

#[cfg(test)]
mod tests;
