//! Every remote provider against a server that misbehaves in every way: the right class, words that
//! name the host, no panic, in bounded time.

use std::sync::Arc;
use std::time::Duration;

use secret_doubles::connect::Connect;
use secret_doubles::service_account::ServiceAccount;
use secret_doubles::vault::Bao;
use secret_doubles::{Certificate, Server, Toxic};
use secrets::provider::Provider;
use secrets::reference::Scheme;

use crate::support::{Given, SHORT, connect_to, resolve, settings, told};

/// A double, our provider for it, and a reference into it.
struct Pair {
    server: Server,
    provider: Arc<dyn Provider>,
    reference: &'static str,
}

fn pairs(certificate: Certificate) -> Vec<Pair> {
    let make = |server: Server, scheme, section: &str, token: &str, reference| {
        let settings = settings(scheme, section);
        let provider = connect_to(&server, &settings, &Given::token(token), SHORT);
        Pair {
            server,
            provider,
            reference,
        }
    };
    let connect = Connect::start(certificate);
    connect.library.set("v", "i", "f", "connect-value");
    let section = format!(
        "onepassword]\nkind = \"connect\"\nurl = \"{}\"",
        connect.server.url()
    );
    let connect = make(
        connect.server,
        Scheme::Op,
        &section,
        &connect.token,
        "op://v/i/f",
    );

    let account = ServiceAccount::start(certificate);
    account.library.set("v", "i", "f", "account-value");
    let port = account.server.address().port();
    let section =
        format!("onepassword]\nkind = \"service-account\"\nhosts = [\"localhost:{port}\"]");
    let token = account.token();
    let account = make(account.server, Scheme::Op, &section, &token, "op://v/i/f");

    let bao = Bao::start(certificate);
    bao.state().tokens.insert("s.root".into(), vec!["*".into()]);
    bao.set("secret", "p", "k", "vault-value");
    let section = format!("vault]\nurl = \"{}\"", bao.server.url());
    let vault = make(
        bao.server,
        Scheme::Vault,
        &section,
        "s.root",
        "vault://secret/p#k",
    );
    vec![connect, account, vault]
}

fn toxics() -> Vec<Toxic> {
    vec![
        Toxic::Drop,
        Toxic::Stall,
        Toxic::Status(500, None),
        Toxic::Status(503, Some(7)),
        Toxic::Status(429, Some(60)),
        Toxic::Status(429, None),
        Toxic::Status(418, None),
        Toxic::Cut,
        Toxic::Oversize(1024 * 1024),
        Toxic::Endless(1024 * 1024),
        Toxic::Redirect("https://evil.example/".into()),
        Toxic::Garbage(b"\x00\xff not HTTP\r\n\r\n".to_vec()),
        Toxic::Body(b"".to_vec()),
        Toxic::Body(b"{".to_vec()),
        Toxic::Body(b"null".to_vec()),
        Toxic::Body(b"{\"canary-value\": [1, 2, \"canary-value\"]}".to_vec()),
        Toxic::Body(b"\"canary-value\"".to_vec()),
        Toxic::Body([b"[".repeat(5000), b"]".repeat(5000)].concat()),
    ]
}

/// Before a session and within one. What takes time does so beside the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misbehaviour() {
    let (slow, fast): (Vec<_>, Vec<_>) = toxics()
        .into_iter()
        .partition(|toxic| matches!(toxic, Toxic::Stall));
    let slow = tokio::spawn(async move { all(slow).await });
    let words = all(fast).await + &slow.await.unwrap();
    assert!(
        !words.contains("canary-value"),
        "what a server sends is not told"
    );
    insta::assert_snapshot!(words);
}

async fn all(toxics: Vec<Toxic>) -> String {
    let mut words = String::new();
    for toxic in toxics {
        for pair in pairs(Certificate::Good) {
            pair.server.poison(toxic.clone());
            let results = resolve(&*pair.provider, &[pair.reference]).await;
            let name: String = format!("{toxic:?}").chars().take(40).collect();
            words += &format!("{name}: {}", told(&pair.server, &results));
            // It comes back by itself.
            pair.server.poison(Toxic::None);
            assert!(
                resolve(&*pair.provider, &[pair.reference]).await[0].is_ok(),
                "{toxic:?}"
            );

            // The same once a session stands.
            pair.server.poison(toxic.clone());
            let error = resolve(&*pair.provider, &[pair.reference])
                .await
                .remove(0)
                .unwrap_err();
            let within = error.to_string();
            assert!(within.contains("localhost"), "{within}");
            assert!(
                !within.contains("canary-value") && !within.contains("s.root"),
                "{within}"
            );
            pair.server.poison(Toxic::None);
            assert!(
                resolve(&*pair.provider, &[pair.reference]).await[0].is_ok(),
                "{toxic:?}"
            );
        }
    }
    words
}

#[tokio::test]
async fn certificates_that_are_not_trusted() {
    let mut words = String::new();
    for certificate in [Certificate::WrongName, Certificate::Unknown] {
        for pair in pairs(certificate) {
            let results = resolve(&*pair.provider, &[pair.reference]).await;
            words += &format!("{certificate:?}: {}", told(&pair.server, &results));
            assert!(pair.server.requests().is_empty(), "nothing was sent");
        }
    }
    insta::assert_snapshot!(words);
}

#[tokio::test]
async fn nobody_listens() {
    for pair in pairs(Certificate::Good) {
        let provider = pair.provider;
        let address = pair.server.address();
        drop(pair.server);
        // The port is free again once the task is gone.
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let error = resolve(&*provider, &[pair.reference])
            .await
            .remove(0)
            .unwrap_err();
        assert_eq!(error.class, secrets::Class::Unavailable, "{error}");
    }
}

#[tokio::test]
async fn retry_after_is_passed_on_within_bounds() {
    for pair in pairs(Certificate::Good) {
        pair.server.poison(Toxic::Status(429, Some(u64::MAX)));
        let error = resolve(&*pair.provider, &[pair.reference])
            .await
            .remove(0)
            .unwrap_err();
        assert_eq!(error.retry_after, Some(Duration::from_secs(86400)));
    }
}
