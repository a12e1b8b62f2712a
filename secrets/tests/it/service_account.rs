//! 1Password service accounts, against a double of the protocol (the vendor's own client is set
//! against the same double in `oracle`).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secret_doubles::Certificate;
use secret_doubles::service_account::{ServiceAccount, Tamper};
use secrets::Class;
use secrets::provider::Provider;
use secrets::reference::Scheme;
use secrets::transport::Limits;

use crate::connect::{FAILURES, VALUES, fill};
use crate::support::{Given, class, connect_to, references, resolve, settings, told};

fn provider(account: &ServiceAccount, token: &str) -> Arc<dyn Provider> {
    given(account, &Given::token(token))
}

fn given(account: &ServiceAccount, given: &Given) -> Arc<dyn Provider> {
    let port = account.server.address().port();
    let section =
        format!("onepassword]\nkind = \"service-account\"\nhosts = [\"localhost:{port}\"]");
    let settings = settings(Scheme::Op, &section);
    connect_to(&account.server, &settings, given, Limits::default())
}

fn start() -> (ServiceAccount, Arc<dyn Provider>) {
    let account = ServiceAccount::start(Certificate::Good);
    fill(&account.library);
    let provider = provider(&account, &account.token());
    (account, provider)
}

#[tokio::test]
async fn each_reference_has_its_own_result() {
    let (account, provider) = start();
    let mixed: Vec<&str> = VALUES
        .iter()
        .map(|(reference, _)| *reference)
        .chain(FAILURES.iter().copied())
        .collect();
    let results = resolve(&*provider, &mixed).await;
    for ((reference, value), result) in VALUES.iter().zip(&results) {
        assert_eq!(result.as_deref(), Ok(*value), "{reference}");
    }
    insta::assert_snapshot!(told(&account.server, &results[VALUES.len()..]));
}

#[tokio::test]
async fn it_is_sparing_with_requests() {
    let (account, provider) = start();
    let all = references(&[
        "op://cache/Sections/key",
        "op://cache/Grafana-Alloy/GRAFANA_CLOUD_LOKI_URL",
    ]);
    let cache = account.library.lock()[0].id.clone();
    assert!(provider.fetch(&all).await.iter().all(Result::is_ok));
    let login = [
        "POST /api/v3/auth/start",
        "POST /api/v2/auth",
        "POST /api/v2/auth/confirm-key",
        "POST /api/v2/auth/complete",
    ];
    let overviews = format!("GET /api/v1/vault/{cache}/items/overviews");
    let batch = format!("POST /api/v3/vault/{cache}/items/batch");
    let list = "GET /api/v1/vaults?attrs=combined-access";
    let mut expected = login.to_vec();
    expected.extend([list, "GET /api/v2/account/keysets", &overviews, &batch]);
    assert_eq!(account.server.requests(), expected);
    // A look for changes: one.
    let before = provider.versions(&all).await;
    assert_eq!(account.server.requests(), [list]);
    assert!(before.iter().all(Result::is_ok));
    // Keys are kept.
    assert!(provider.fetch(&all).await.iter().all(Result::is_ok));
    assert_eq!(account.server.requests(), [list, &overviews, &batch]);
}

#[tokio::test]
async fn a_session_that_ended_is_begun_anew() {
    let (account, provider) = start();
    let reference = "op://cache/Sections/key";
    assert!(resolve(&*provider, &[reference]).await[0].is_ok());
    account.end_sessions();
    account.library.put(
        "cache",
        "Sections",
        secret_doubles::Field {
            id: "x".into(),
            label: "key".into(),
            section: Some(("section-Production".into(), "Production".into())),
            kind: secret_doubles::Kind::Concealed,
            value: "rotated".into(),
        },
    );
    assert_eq!(
        resolve(&*provider, &[reference]).await[0].as_deref(),
        Ok("rotated")
    );
}

#[tokio::test]
async fn a_new_token_is_used_at_once_when_somebody_says_so() {
    let (account, _) = start();
    let token = Given::token(account.token());
    let provider = given(&account, &token);
    let reference = "op://cache/Sections/key";
    assert!(resolve(&*provider, &[reference]).await[0].is_ok());
    account.server.requests();
    // The same: the session goes on.
    provider.renew().await;
    assert!(resolve(&*provider, &[reference]).await[0].is_ok());
    assert_eq!(account.server.requests().len(), 3);
    // Another: it does not. (This one is none, so that it shows.)
    token.set(secrets::manifest::TOKEN, "ops_other");
    provider.renew().await;
    let refused = resolve(&*provider, &[reference]).await.remove(0);
    assert_eq!(refused.unwrap_err().class, Class::Unauthorized);
    assert!(account.server.requests().is_empty());
}

/// Many logins, so that numbers with leading zeros and odd digits come up.
#[tokio::test]
async fn ten_logins() {
    let (account, _) = start();
    for _ in 0..10 {
        let provider = provider(&account, &account.token());
        let result = provider
            .versions(&references(&["op://cache/Sections/key"]))
            .await
            .remove(0);
        result.unwrap();
    }
}

#[tokio::test]
async fn tampering_is_seen() {
    let (account, _) = start();
    let mut words = String::new();
    for tamper in [
        Tamper::ServerProof,
        Tamper::Ciphertext,
        Tamper::Kid,
        Tamper::Encryption,
        Tamper::Keyset,
    ] {
        account.tamper(tamper);
        let provider = provider(&account, &account.token());
        let results = resolve(&*provider, &["op://cache/Sections/key"]).await;
        words += &format!("{tamper:?}: {}", told(&account.server, &results));
    }
    insta::assert_snapshot!(words);
}

#[tokio::test]
async fn malformed_tokens_say_why_and_show_nothing() {
    let (account, _) = start();
    let fields = account.token_fields();
    let with = |key: &str, value: serde_json::Value| {
        let mut fields = fields.clone();
        fields[key] = value;
        format!("ops_{}", URL_SAFE_NO_PAD.encode(fields.to_string()))
    };
    let whole = account.token();
    let tokens = [
        ("nothing", String::new()),
        ("a password", "hunter2-hunter2".into()),
        ("cut off", whole[..whole.len() / 2].into()),
        ("not Base64", format!("{whole}!")),
        (
            "no JSON",
            format!("ops_{}", URL_SAFE_NO_PAD.encode("hunter2")),
        ),
        ("no host", with("signInAddress", "".into())),
        (
            "a host of somebody",
            with("signInAddress", "evil.example".into()),
        ),
        (
            "a host that looks like theirs",
            with("signInAddress", "evil1password.com".into()),
        ),
        ("a path", with("signInAddress", "my.1password.com/x".into())),
        ("no TLS", with("signInAddress", "http://127.0.0.1:1".into())),
        (
            "another login",
            with(
                "userAuth",
                serde_json::json!({"method": "PLAIN", "salt": ""}),
            ),
        ),
        ("a short srpX", with("srpX", "00".into())),
        ("no hexadecimal", with("srpX", "é".repeat(32).into())),
        ("another secret key", with("secretKey", "A4-X".into())),
        (
            "a short key",
            with(
                "muk",
                serde_json::json!({"kty": "oct", "kid": "mp", "k": "AAAA"}),
            ),
        ),
        ("an unknown account", with("email", "nobody@example".into())),
        ("another device", with("deviceUuid", "a".repeat(26).into())),
        ("another password", with("srpX", "11".repeat(32).into())),
    ];
    let mut words = String::new();
    for (name, token) in tokens {
        let provider = provider(&account, &token);
        let results = resolve(&*provider, &["op://cache/Sections/key"]).await;
        assert_eq!(
            results[0].as_ref().unwrap_err().class,
            Class::Unauthorized,
            "{name}"
        );
        words += &format!("{name}: {}", told(&account.server, &results));
    }
    assert!(!words.contains("hunter2"));
    insta::assert_snapshot!(words);
}

#[tokio::test]
async fn another_key_opens_no_vault() {
    let (account, _) = start();
    let mut fields = account.token_fields();
    fields["muk"]["k"] = URL_SAFE_NO_PAD.encode([9; 32]).into();
    let token = format!("ops_{}", URL_SAFE_NO_PAD.encode(fields.to_string()));
    let provider = provider(&account, &token);
    assert_eq!(
        class(&*provider, "op://cache/Sections/key").await,
        Class::Protocol
    );
}
