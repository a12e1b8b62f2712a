//! The manifest: what is valid, and what is said of what is not.

use std::path::Path;
use std::time::Duration;

use secrets::manifest::{Consumer, Manifest, OnChange, ProviderKind, Staleness};
use secrets::reference::Scheme;

fn parse(text: &str) -> Result<Manifest, String> {
    Manifest::parse(text, Path::new("manifest.toml")).map_err(|error| error.to_string())
}

const FULL: &str = r#"
[providers.onepassword]
kind = "connect"
url = "https://connect.example:8443"
ca = "/etc/larder/connect.pem"
poll = "2m"

[providers.vault]
url = "https://vault.example:8200"
namespace = "team/cache"
auth = "approle"
role_id = "0f0a"
token = "larder.vault-secret-id"

[providers.age]
token = "larder.age-key"

[secrets.jwt-secret]
reference = "op://Cache/Service/jwt"
consumers = [{ unit = "larder-cache.service" }]
on_change = "reload"
required = true

[secrets.loki]
reference = "vault://secret/larder/loki#password"
consumers = [
  { unit = "larder-shipper.service", credential = "loki-password" },
  { unit = "other@1.service", credential = "loki" },
]
on_change = "restart"
stale = "7d"

[secrets.tls-key]
reference = "age://site.age#tls-key"
consumers = [{ unit = "larder-cache.service" }]

[secrets.region]
reference = "cred://larder.region"
consumers = [{ unit = "larder-cache.service" }]
public = true
stale = "never"
"#;

#[test]
fn a_full_manifest() {
    let manifest = parse(FULL).unwrap();
    let jwt = &manifest.secrets["jwt-secret"];
    assert!(jwt.required && !jwt.public);
    assert_eq!(jwt.on_change, OnChange::Reload);
    assert_eq!(jwt.stale, Staleness::Forever);
    let week = Staleness::For(Duration::from_secs(7 * 86400));
    assert_eq!(manifest.secrets["loki"].stale, week);
    let op = &manifest.providers[&Scheme::Op];
    assert!(matches!(&op.kind, ProviderKind::Connect { origin } if origin.port() == 8443));
    assert_eq!(op.poll, Some(Duration::from_secs(120)));
    assert_eq!(op.token, "larder.secrets-token");

    let consumer = |unit: &str, credential: &str| Consumer {
        unit: unit.into(),
        credential: credential.into(),
    };
    let find = |unit, credential| {
        manifest
            .find(&consumer(unit, credential))
            .map(|found| found.0)
    };
    assert_eq!(
        find("larder-shipper.service", "loki-password"),
        Some("loki")
    );
    // Only that pair: not the other unit's name for it, not another unit's secret.
    assert_eq!(find("larder-shipper.service", "loki"), None);
    assert_eq!(find("larder-shipper.service", "jwt-secret"), None);
    assert_eq!(find("larder-cache", "jwt-secret"), None);
}

#[test]
fn the_fleets_own_manifest_is_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifest.toml");
    let manifest = Manifest::load(&path).unwrap();
    assert_eq!(manifest.secrets.len(), 7);
    // A machine without a token starts everything.
    assert!(manifest.secrets.values().all(|entry| !entry.required));
}

/// What the file has as comments, for who has it, is right as well.
#[test]
fn what_the_fleets_manifest_offers_is_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifest.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let setting = |line: &&str| line.starts_with('[') || line.split(' ').nth(1) == Some("=");
    let lines = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if setting(&rest) => rest,
        _ => line,
    });
    let manifest = parse(&lines.collect::<Vec<_>>().join("\n")).unwrap();
    for name in [
        "jwt-keys",
        "tls-cert",
        "tls-key",
        "larder.cache-token",
        "tempo-url",
        "tempo-username",
        "tempo-password",
    ] {
        assert!(manifest.secrets.contains_key(name), "{name}");
    }
}

#[test]
fn least_privileges() {
    let lines: Vec<_> = parse(FULL)
        .unwrap()
        .privileges()
        .iter()
        .map(ToString::to_string)
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn consumers_must_exist() {
    let manifest = parse(FULL).unwrap();
    let problems = manifest.check_consumers(|unit| unit != "other@1.service");
    assert_eq!(
        problems.unwrap_err(),
        ["secret loki: there is no unit other@1.service in the image"]
    );
    manifest.check_consumers(|_| true).unwrap();
    insta::assert_debug_snapshot!(manifest.credentials());
}

#[test]
fn a_credential_of_the_machine_takes_the_place_of_a_secret() {
    let mut manifest = parse(FULL).unwrap();
    let before = manifest.clone();
    let (name, entry) = before.secrets.first_key_value().unwrap();
    assert_ne!(entry.reference.to_string(), format!("cred://{name}"));
    assert_eq!(manifest.prefer_machine(|own| own == name), [name]);
    for (other, entry) in &manifest.secrets {
        let expected = match other == name {
            true => format!("cred://{name}"),
            false => before.secrets[other].reference.to_string(),
        };
        assert_eq!(entry.reference.to_string(), expected);
    }
}

/// One case of everything that is refused, with line and words.
#[test]
fn problems_are_told_with_their_lines() {
    let secret = |rest: &str| {
        format!("[providers.onepassword]\nkind = \"service-account\"\n[secrets.a]\n{rest}")
    };
    let good = "reference = \"op://v/i/f\"\nconsumers = [{ unit = \"a.service\" }]\n";
    let cases = [
        ("syntax", "[secrets".into()),
        ("an unknown key", secret(&format!("{good}owner = \"root\""))),
        (
            "an unknown action",
            secret(&format!("{good}on_change = \"kill\"")),
        ),
        (
            "a bad reference",
            secret("reference = \"op://v\"\nconsumers = [{ unit = \"a.service\" }]"),
        ),
        (
            "a value",
            secret("reference = \"s3cr3t\"\nconsumers = [{ unit = \"a.service\" }]"),
        ),
        (
            "no consumer",
            secret("reference = \"op://v/i/f\"\nconsumers = []"),
        ),
        (
            "no service",
            secret("reference = \"op://v/i/f\"\nconsumers = [{ unit = \"a.socket\" }]"),
        ),
        (
            "a bad credential",
            secret(
                "reference = \"op://v/i/f\"\nconsumers = [{ unit = \"a.service\", credential = \"A/b\" }]",
            ),
        ),
        (
            "a long pair",
            secret(&format!(
                "reference = \"op://v/i/f\"\nconsumers = [{{ unit = \"{}.service\" }}]",
                "x".repeat(80)
            )),
        ),
        (
            "two for one",
            secret(&format!(
                "{good}[secrets.b]\n{}",
                good.replace("}]", ", credential = \"a\" }]")
            )),
        ),
        ("staleness", secret(&format!("{good}stale = \"soon\""))),
        ("staleness of 0", secret(&format!("{good}stale = \"0s\""))),
        ("no provider", format!("[secrets.a]\n{good}")),
        (
            "connect without url",
            "[providers.onepassword]\nkind = \"connect\"".into(),
        ),
        (
            "url of a service account",
            "[providers.onepassword]\nkind = \"service-account\"\nurl = \"https://x\"".into(),
        ),
        (
            "clear text",
            "[providers.vault]\nurl = \"http://vault.example\"".into(),
        ),
        (
            "approle without role",
            "[providers.vault]\nurl = \"https://v.example\"\nauth = \"approle\"".into(),
        ),
        (
            "role without approle",
            "[providers.vault]\nurl = \"https://v.example\"\nrole_id = \"x\"".into(),
        ),
        (
            "a namespace",
            "[providers.vault]\nurl = \"https://v.example\"\nnamespace = \"a/../b\"".into(),
        ),
        (
            "no budget",
            "[providers.vault]\nurl = \"https://v.example\"\nburst = 1".into(),
        ),
        (
            "polls beyond the budget",
            "[providers.onepassword]\nkind = \"service-account\"\npoll = \"10s\"".into(),
        ),
        (
            "one token for two",
            "[providers.age]\n[providers.vault]\nurl = \"https://v.example\"".into(),
        ),
        (
            "a bad name",
            format!(
                "[providers.onepassword]\nkind = \"service-account\"\n[secrets.\"A b\"]\n{good}"
            ),
        ),
    ];
    let mut told = String::new();
    for (name, text) in cases {
        let error = parse(&text).expect_err(name);
        told += &format!("{name}:\n  {}\n", error.replace('\n', "\n  "));
    }
    assert!(!told.contains("s3cr3t"));
    insta::assert_snapshot!(told);
}

#[test]
fn an_unreadable_file_is_named() {
    let error = Manifest::load(Path::new("/none/manifest.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("/none/manifest.toml: cannot read it: "),
        "{error}"
    );
}
