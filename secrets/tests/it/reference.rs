//! The grammar of references.

use secrets::reference::Reference;

/// What the vendor's own core accepts and we do too (facts of its `ValidateSecretReference`).
const ACCEPTED: &[&str] = &[
    "op://vault/item/field",
    "op://vault/item/section/field",
    "op://My Vault/My Item/some field",
    "op://v_1.2-3/i_1.2-3/f_1.2-3",
    "op://cache/Grafana-Alloy/GRAFANA_CLOUD_LOKI_URL",
    "op://abcdefghijklmnopqrstuvwxyz/abcdefghijklmnopqrstuvwxyz/password",
    "op://vault/item/field?attribute=otp",
    "op://vault/item/section/field?attribute=otp",
    "vault://secret/larder/cache#jwt-secret",
    "vault://teams%2Fcache/larder#jwt",
    "age://secrets.age#jwt-secret",
    "age://tls-key.age",
    "cred://jwt-secret",
];

#[test]
fn valid_references_come_back_as_they_went_in() {
    for text in ACCEPTED {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.to_string(), *text);
        assert_eq!(
            reference.to_string().parse::<Reference>().unwrap(),
            reference
        );
    }
    let totp: Reference = "op://v/i/f?attribute=totp".parse().unwrap();
    assert_eq!(totp.to_string(), "op://v/i/f?attribute=otp");
}

/// Every way to be wrong, and what is said.
#[test]
fn invalid_references_say_why() {
    let refused = [
        // The core refuses these too.
        "op://v/i/%20",
        "op://v/i/f\u{e9}",
        "op://v/i:1/f",
        "op://v/i@1/f",
        "op://v/(i)/f",
        "op://v/i'/f",
        "op://v/i/f+g",
        "op://v/i/f#g",
        "op://v/i/$f",
        "OP://v/i/f",
        "op://v/i",
        "op://v/i/s/f/g",
        "op://v/i/f?",
        "op://v/i/f?attribute=otp&attribute=otp",
        "op://v/i/f?attribute=type",
        "op://v/i/f?attribute=value",
        "op://v/i/f?ssh-format=pem",
        // The core takes these by accident.
        "op://v//f",
        "op:///i/f",
        "op://v/i/f/",
        "op://v/i/ f",
        // The core converts; we do not.
        "op://v/i/f?ssh-format=openssh",
        // Ours.
        "vault://secret#key",
        "vault://secret/path",
        "vault://secret/path#",
        "vault://secret/../sys/raw#key",
        "vault://secret//path#key",
        "vault:///path#key",
        "vault://secret/path?version=1#key",
        "age://../shadow#x",
        "age://.hidden",
        "age://",
        "age://f#",
        "cred://a/b",
        "cred://",
        "file:///etc/shadow",
        "",
        "hunter2-is-a-value",
    ];
    let mut told = String::new();
    for text in refused {
        let error = text.parse::<Reference>().unwrap_err();
        told += &format!("{error}\n");
    }
    assert!(
        !told.contains("hunter2"),
        "a value in the wrong place is not shown"
    );
    insta::assert_snapshot!(told);
}

#[test]
fn long_references_are_refused_and_shortened() {
    let long = format!("op://v/i/{}", "f".repeat(5000));
    let error = long.parse::<Reference>().unwrap_err().to_string();
    assert!(error.len() < 200, "{error}");
}
