//! Fetcher, provider, transport and budget together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use secret_doubles::Certificate;
use secret_doubles::connect::Connect;
use secret_doubles::service_account::ServiceAccount;
use secret_doubles::vault::Bao;
use secrets::fetcher::Source;
use secrets::provider::{self, Provider};
use secrets::reference::Scheme;
use secrets::transport::{Limits, Origin, Pending, Request, Response, Transport};
use secrets::{Budget, Budgeted, FetchError};

use crate::shop::{Machine, Wax, get};
use crate::support::{Given, connect_to, settings};

/// Refuses everything, as a server refuses a wrong token, and counts.
#[derive(Clone, Default)]
struct Refusing(Arc<AtomicUsize>);

impl Transport for Refusing {
    fn send<'a>(&'a self, _: &'a Origin, _: Request) -> Pending<'a, Result<Response, FetchError>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            Ok(Response {
                status: 401,
                retry_after: None,
                body: zeroize::Zeroizing::default(),
            })
        })
    }
}

/// A wrong token for an hour, restarts of the unit and of the fetcher included.
#[tokio::test(start_paused = true)]
async fn a_wrong_token_does_not_burn_the_quota() {
    let account = ServiceAccount::start(Certificate::Good);
    let port = account.server.address().port();
    let section =
        format!("onepassword]\nkind = \"service-account\"\nhosts = [\"localhost:{port}\"]");
    let settings = settings(Scheme::Op, &section);
    let machine = Machine::new();
    let refusing = Refusing::default();
    let boot = async || {
        let path = machine.folder.path().join("budget");
        let budget = Budget::open(settings.budget, Some(path), machine.clock.clone());
        let budget = Arc::new(budget);
        let transport = Budgeted {
            transport: refusing.clone(),
            budget: budget.clone(),
        };
        let provider = provider::build(
            &settings,
            Arc::new(transport),
            Arc::new(Given::token(account.token())),
            machine.clock.clone(),
        );
        let source = Source {
            provider,
            budget: Some(budget),
        };
        let sources = BTreeMap::from([(Scheme::Op, source)]);
        machine.boot_with(SECRETS, Wax::default(), sources).await
    };
    let fetcher = boot().await;
    for _ in 0..60 {
        get(&fetcher, "cache", "jwt").await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let hour = refusing.0.load(Ordering::SeqCst);
    assert!((1..=8).contains(&hour), "{hour} requests in an hour");
    drop(fetcher);
    // A crash loop: a new process every second.
    for _ in 0..300 {
        let fetcher = boot().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(fetcher);
    }
    let most = (settings.budget.burst + 2 * settings.budget.per_hour) as usize;
    let all = refusing.0.load(Ordering::SeqCst);
    assert!(all <= most + 1, "{all} requests, the budget is {most}");
    assert!(all > most / 2, "the budget is what stops it: {all}");
}

const SECRETS: &str = r#"
[secrets.jwt]
reference = "op://v/i/jwt"
consumers = [{ unit = "cache.service" }]
on_change = "reload"
"#;

/// A rotation, from the server to the unit, over TLS.
async fn rotation(
    scheme: Scheme,
    provider: Arc<dyn Provider>,
    reference: &str,
    set: impl Fn(&str),
) {
    let secrets = SECRETS.replace("op://v/i/jwt", reference);
    let vault = "[providers.vault]\nurl = \"https://vault.example\"\n\
                 token = \"larder.vault\"\npoll = \"1s\"\n";
    let secrets = format!("poll = \"1s\"\n{vault}{secrets}");
    let machine = Machine::new();
    let source = Source {
        provider,
        budget: None,
    };
    let sources = BTreeMap::from([(scheme, source)]);
    set("first-value");
    let fetcher = machine.boot_with(&secrets, Wax::default(), sources).await;
    assert_eq!(get(&fetcher, "cache", "jwt").await, "first-value");
    set("second-value");
    let mut changes = fetcher.changes();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    // By itself, within a poll.
    while machine.units.actions().is_empty() {
        assert!(tokio::time::Instant::now() < deadline);
        let _ = tokio::time::timeout(Duration::from_millis(100), changes.changed()).await;
    }
    assert_eq!(get(&fetcher, "cache", "jwt").await, "second-value");
}

#[tokio::test]
async fn rotation_with_connect() {
    let connect = Connect::start(Certificate::Good);
    let section = format!(
        "onepassword]\nkind = \"connect\"\nurl = \"{}\"",
        connect.server.url()
    );
    let settings = settings(Scheme::Op, &section);
    let given = Given::token(connect.token.clone());
    let provider = connect_to(&connect.server, &settings, &given, Limits::default());
    let library = connect.library.clone();
    rotation(Scheme::Op, provider, "op://v/i/jwt", |value| {
        library.set("v", "i", "jwt", value)
    })
    .await;
}

#[tokio::test]
async fn rotation_with_a_service_account() {
    let account = ServiceAccount::start(Certificate::Good);
    let port = account.server.address().port();
    let section =
        format!("onepassword]\nkind = \"service-account\"\nhosts = [\"localhost:{port}\"]");
    let settings = settings(Scheme::Op, &section);
    let given = Given::token(account.token());
    let provider = connect_to(&account.server, &settings, &given, Limits::default());
    let library = account.library.clone();
    rotation(Scheme::Op, provider, "op://v/i/jwt", |value| {
        library.set("v", "i", "jwt", value)
    })
    .await;
}

#[tokio::test]
async fn rotation_with_vault() {
    let bao = Bao::start(Certificate::Good);
    bao.state().tokens.insert("s.root".into(), vec!["*".into()]);
    let settings = settings(
        Scheme::Vault,
        &format!("vault]\nurl = \"{}\"", bao.server.url()),
    );
    let provider = connect_to(
        &bao.server,
        &settings,
        &Given::token("s.root"),
        Limits::default(),
    );
    rotation(Scheme::Vault, provider, "vault://secret/p#jwt", |value| {
        bao.set("secret", "p", "jwt", value);
    })
    .await;
}
