//! 1Password Connect, against a double of its documented API.

use secret_doubles::connect::Connect;
use secret_doubles::{Certificate, Field, Kind};
use secrets::Class;
use secrets::provider::Provider;
use secrets::reference::Scheme;
use secrets::transport::Limits;

use crate::support::{Given, class, connect_to, references, resolve, settings, told};
use std::sync::Arc;

fn start(certificate: Certificate) -> (Connect, Arc<dyn Provider>) {
    let connect = Connect::start(certificate);
    let provider = provider(&connect, &connect.token);
    (connect, provider)
}

fn provider(connect: &Connect, token: &str) -> Arc<dyn Provider> {
    let section = format!(
        "onepassword]\nkind = \"connect\"\nurl = \"{}\"",
        connect.server.url()
    );
    let settings = settings(Scheme::Op, &section);
    connect_to(
        &connect.server,
        &settings,
        &Given::token(token),
        Limits::default(),
    )
}

pub(crate) fn fill(library: &secret_doubles::Library) {
    library.set(
        "cache",
        "Grafana-Alloy",
        "GRAFANA_CLOUD_LOKI_URL",
        "https://logs.example",
    );
    library.set(
        "cache",
        "Grafana-Alloy",
        "GRAFANA_CLOUD_LOKI_PASSWORD",
        "glc_\"quoted\"\n\u{fc}",
    );
    library.set("other", "Single", "only", "other-value");
    library.set("other", "Twice", "field", "one");
    let field = |label: &str, section: Option<&str>, kind, value: &str| Field {
        id: format!("{}{}", label.to_lowercase(), section.unwrap_or("0")),
        label: label.into(),
        section: section.map(|section| (format!("section-{section}"), section.into())),
        kind,
        value: value.into(),
    };
    for field in [
        field("user", Some("Staging"), Kind::Text, "staging-user"),
        field("user", Some("Production"), Kind::Text, "production-user"),
        field("key", Some("Production"), Kind::Concealed, "production-key"),
        field(
            "code",
            Some("Production"),
            Kind::OneTimePassword,
            "otpauth://totp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
        ),
    ] {
        library.put("cache", "Sections", field);
    }
    library.set("cache", "Old", "field", "in-the-trash");
    library.change("cache", |vault| {
        for item in &mut vault.items {
            item.trashed = item.title == "Old";
        }
    });
    library.change("other", |vault| {
        let mut copy = vault
            .items
            .iter()
            .find(|item| item.title == "Twice")
            .unwrap()
            .clone();
        copy.id = "b".repeat(26);
        copy.fields[0].value = "two".into();
        vault.items.push(copy);
    });
}

/// References and what they give, for both ways to 1Password.
pub(crate) const VALUES: &[(&str, &str)] = &[
    (
        "op://cache/Grafana-Alloy/GRAFANA_CLOUD_LOKI_URL",
        "https://logs.example",
    ),
    (
        "op://cache/Grafana-Alloy/GRAFANA_CLOUD_LOKI_PASSWORD",
        "glc_\"quoted\"\n\u{fc}",
    ),
    // Names match without regard to case.
    (
        "op://CACHE/grafana-alloy/grafana_cloud_loki_url",
        "https://logs.example",
    ),
    ("op://other/Single/only", "other-value"),
    ("op://cache/Sections/Production/user", "production-user"),
    ("op://cache/Sections/section-Staging/user", "staging-user"),
    // In a section, but there is only one of that name.
    ("op://cache/Sections/key", "production-key"),
    (
        "op://cache/Sections/code",
        "otpauth://totp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
    ),
    // An id tells items of one name apart.
    ("op://other/bbbbbbbbbbbbbbbbbbbbbbbbbb/field", "two"),
];

/// References that fail, each in its own way.
pub(crate) const FAILURES: &[&str] = &[
    "op://none/Grafana-Alloy/x",
    "op://cache/None/x",
    "op://cache/Old/field",
    "op://cache/Grafana-Alloy/none",
    "op://cache/Sections/None/user",
    "op://cache/Sections/Staging/key",
    "op://cache/Sections/user",
    "op://other/Twice/field",
    "op://cache/Sections/key?attribute=otp",
];

#[tokio::test]
async fn each_reference_has_its_own_result() {
    let (connect, provider) = start(Certificate::Good);
    fill(&connect.library);
    let mixed: Vec<&str> = VALUES
        .iter()
        .map(|(reference, _)| *reference)
        .chain(FAILURES.iter().copied())
        .collect();
    let results = resolve(&*provider, &mixed).await;
    for ((reference, value), result) in VALUES.iter().zip(&results) {
        assert_eq!(result.as_deref().ok(), Some(*value), "{reference}");
    }
    insta::assert_snapshot!(told(&connect.server, &results[VALUES.len()..]));
}

#[tokio::test]
async fn one_time_codes_are_six_digits() {
    let (connect, provider) = start(Certificate::Plain);
    fill(&connect.library);
    let results = resolve(&*provider, &["op://cache/Sections/code?attribute=otp"]).await;
    let code = results[0].as_ref().unwrap();
    assert!(
        code.len() == 6 && code.bytes().all(|c| c.is_ascii_digit()),
        "{code}"
    );
}

#[tokio::test]
async fn a_look_for_changes_is_one_request() {
    let (connect, provider) = start(Certificate::Good);
    fill(&connect.library);
    let all = references(&["op://cache/Sections/key", "op://other/Single/only"]);
    let fetched = provider.fetch(&all).await;
    let before: Vec<_> = fetched.into_iter().map(|f| f.unwrap().version).collect();
    connect.server.requests();
    let versions = async || -> Vec<_> {
        provider
            .versions(&all)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect()
    };
    assert_eq!(versions().await, before);
    assert_eq!(connect.server.requests(), ["GET /v1/vaults"]);
    connect.library.set("other", "Single", "only", "rotated");
    let after = versions().await;
    assert_eq!(after[0], before[0]);
    assert_ne!(after[1], before[1]);
}

#[tokio::test]
async fn a_wrong_token_is_told_apart() {
    let (connect, _) = start(Certificate::Good);
    fill(&connect.library);
    for token in ["wrong", "", "two\nlines", "\u{e9}"] {
        let provider = provider(&connect, token);
        assert_eq!(
            class(&*provider, "op://cache/Sections/key").await,
            Class::Unauthorized
        );
    }
}
