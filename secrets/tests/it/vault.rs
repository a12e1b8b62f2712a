//! OpenBao and Vault, against a double of their documented API.

use std::sync::Arc;

use secret_doubles::Certificate;
use secret_doubles::vault::Bao;
use secrets::Class;
use secrets::provider::Provider;
use secrets::reference::Scheme;
use secrets::transport::Limits;

use crate::support::{Given, class, connect_to, references, resolve, settings, told};

fn provider(bao: &Bao, more: &str, token: &str) -> Arc<dyn Provider> {
    let section = format!("vault]\nurl = \"{}\"\n{more}", bao.server.url());
    let settings = settings(Scheme::Vault, &section);
    connect_to(
        &bao.server,
        &settings,
        &Given::token(token),
        Limits::default(),
    )
}

fn start() -> Bao {
    let bao = Bao::start(Certificate::Good);
    bao.state().tokens.insert("s.root".into(), vec!["*".into()]);
    bao.state()
        .tokens
        .insert("s.some".into(), vec!["larder/cache".into()]);
    bao.set("secret", "larder/cache", "jwt", "vault-value");
    bao.set("secret", "larder/cache", "number", 5);
    bao.set("secret", "larder/other", "key", "other-value");
    bao.set("secret", "larder/gone", "key", "gone");
    bao.state()
        .secrets
        .get_mut(&("secret".into(), "larder/gone".into()))
        .unwrap()
        .deleted = true;
    bao.set(
        "teams/cache",
        "a b",
        "key",
        "value-with-a-space-in-its-path",
    );
    bao
}

#[tokio::test]
async fn each_reference_has_its_own_result() {
    let bao = start();
    let provider = provider(&bao, "", "s.some\n");
    let results = resolve(
        &*provider,
        &[
            "vault://secret/larder/cache#jwt",
            "vault://secret/larder/cache#none",
            "vault://secret/larder/cache#number",
            "vault://secret/larder/other#key",
            "vault://secret/none#key",
        ],
    )
    .await;
    assert_eq!(results[0].as_deref().ok(), Some("vault-value"));
    insta::assert_snapshot!(told(&bao.server, &results[1..]));
}

#[tokio::test]
async fn deleted_and_missing_are_told_apart() {
    let bao = start();
    let provider = provider(&bao, "", "s.root");
    let results = resolve(
        &*provider,
        &[
            "vault://secret/larder/gone#key",
            "vault://secret/none#key",
            "vault://teams%2Fcache/a b#key",
        ],
    )
    .await;
    assert_eq!(
        results[2].as_deref().ok(),
        Some("value-with-a-space-in-its-path")
    );
    insta::assert_snapshot!(told(&bao.server, &results[..2]));
}

#[tokio::test]
async fn an_approle_logs_in_and_again_when_its_token_dies() {
    let bao = start();
    bao.state().approle = Some(("role".into(), "secret \"id\"".into()));
    bao.state().namespace = Some("team/cache".into());
    let more = "auth = \"approle\"\nrole_id = \"role\"\nnamespace = \"team/cache\"";
    let provider = provider(&bao, more, "secret \"id\"");
    let read = async || {
        resolve(&*provider, &["vault://secret/larder/cache#jwt"])
            .await
            .remove(0)
    };
    assert_eq!(read().await.as_deref().ok(), Some("vault-value"));
    bao.server.requests();
    assert!(read().await.is_ok());
    assert_eq!(
        bao.server.requests(),
        ["GET /v1/secret/data/larder/cache"],
        "one login lasts"
    );
    bao.state().tokens.clear();
    assert_eq!(read().await.as_deref().ok(), Some("vault-value"));
    // The role is withdrawn too.
    bao.state().tokens.clear();
    bao.state().approle = None;
    assert_eq!(read().await.unwrap_err().class, Class::Unauthorized);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_dies() {
    let bao = start();
    bao.state().lease = 1;
    let provider = provider(&bao, "", "s.root");
    assert!(resolve(&*provider, &["vault://secret/larder/cache#jwt"]).await[0].is_ok());
    bao.state().lease = 3600;
    // Two thirds of a second.
    let due = std::time::Instant::now() + std::time::Duration::from_secs(1);
    loop {
        assert!(resolve(&*provider, &["vault://secret/larder/cache#jwt"]).await[0].is_ok());
        if bao
            .server
            .requests()
            .contains(&"POST /v1/auth/token/renew-self".into())
        {
            break;
        }
        assert!(std::time::Instant::now() < due + std::time::Duration::from_secs(10));
    }
}

#[tokio::test]
async fn a_look_for_changes_is_one_request_a_secret() {
    let bao = start();
    let provider = provider(&bao, "", "s.root");
    let all = references(&[
        "vault://secret/larder/cache#jwt",
        "vault://secret/larder/cache#number",
    ]);
    let version = async || provider.versions(&all).await.remove(0).unwrap();
    let first = provider.fetch(&all).await.remove(0).unwrap().version;
    bao.server.requests();
    assert_eq!(version().await, first);
    assert_eq!(
        bao.server.requests(),
        ["GET /v1/secret/metadata/larder/cache"]
    );
    bao.set("secret", "larder/cache", "jwt", "rotated");
    assert_ne!(version().await, first);
}

#[tokio::test]
async fn refusals_have_their_classes() {
    let bao = start();
    let reference = "vault://secret/larder/cache#jwt";
    assert_eq!(
        class(&*provider(&bao, "", "s.wrong"), reference).await,
        Class::Unauthorized
    );
    let approle = provider(&bao, "auth = \"approle\"\nrole_id = \"role\"", "x");
    assert_eq!(class(&*approle, reference).await, Class::Unauthorized);
    let elsewhere = provider(&bao, "namespace = \"other\"", "s.root");
    assert_eq!(class(&*elsewhere, reference).await, Class::Protocol);
    bao.state().sealed = true;
    assert_eq!(
        class(&*provider(&bao, "", "s.root"), reference).await,
        Class::Unavailable
    );
}

#[tokio::test]
async fn a_new_token_is_used_at_once_when_somebody_says_so() {
    let bao = Bao::start(Certificate::Good);
    bao.set("secret", "p", "k", "value");
    let all = || vec!["*".to_owned()];
    bao.state().tokens.insert("s.old".into(), all());
    bao.state().tokens.insert("s.new".into(), all());
    let settings = settings(
        Scheme::Vault,
        &format!("vault]\nurl = \"{}\"", bao.server.url()),
    );
    let given = Given::token("s.old");
    let provider = connect_to(&bao.server, &settings, &given, Limits::default());
    let fetch = async || resolve(&*provider, &["vault://secret/p#k"]).await[0].clone();
    assert_eq!(fetch().await.unwrap(), "value");
    bao.server.requests();
    // The same token: the session goes on.
    provider.renew().await;
    fetch().await.unwrap();
    assert_eq!(bao.server.requests().len(), 1);
    given.set(secrets::manifest::TOKEN, "s.new");
    provider.renew().await;
    fetch().await.unwrap();
    let requests = bao.server.requests();
    assert!(
        requests.iter().any(|line| line.ends_with("lookup-self")),
        "{requests:?}"
    );
}
