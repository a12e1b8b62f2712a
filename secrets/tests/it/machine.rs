//! What is on the machine: credentials in folders, and `systemd-creds`, played by a script.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use secrets::credentials::{Credentials, Folders};
use secrets::seal::{Sealer, SystemdCreds};
use secrets::{Class, FetchError, Secret};

fn put(folder: &Path, name: &str, value: &[u8], mode: u32) {
    let path = folder.join(name);
    std::fs::write(&path, value).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A program of `data/bin` in place of `systemd-creds`.
fn program(name: &str) -> SystemdCreds {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/bin");
    SystemdCreds::with(folder.join(name), "auto")
}

#[tokio::test]
async fn credentials_are_found_plain_before_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two, sealed) = ("one", "two", "sealed");
    for name in [one, two, sealed] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let path = |name: &str| folder.path().join(name);
    put(&path(two), "both", b"from two", 0o400);
    put(&path(sealed), "both", b"ignored", 0o400);
    put(
        &path(sealed),
        "token",
        b"arguments\nc2VhbGVkIHRva2Vu",
        0o400,
    );
    put(&path(sealed), "broken", b"arguments\n\xff", 0o400);
    put(&path(one), "open", b"canary-value", 0o644);
    put(&path(one), "huge", &vec![b'x'; 2 * 1024 * 1024], 0o400);
    let credentials = Folders {
        plain: vec![path(one), path(two), path("none")],
        sealed: vec![path(sealed), path("none")],
        sealer: Arc::new(program("played")),
    };
    let read = async |name: &str| credentials.read(name).await;
    assert_eq!(read("both").await.unwrap().expose(), b"from two");
    assert_eq!(read("token").await.unwrap().expose(), b"sealed token");
    let class = |result: Result<Secret, FetchError>| result.unwrap_err().class;
    assert_eq!(class(read("none").await), Class::Missing);
    assert_eq!(class(read("broken").await), Class::Local);
    assert_eq!(class(read("huge").await), Class::Local);
    // A token that everybody could read is none any more.
    let error = read("open").await.unwrap_err();
    assert_eq!(error.class, Class::Local);
    assert!(error.to_string().contains("chmod 0600") && !error.to_string().contains("canary"));
}

#[tokio::test]
async fn sealing_gives_no_value_away() {
    let sealer = program("played");
    let value = Secret::copy_of(b"canary-value").unwrap();
    let sealed = sealer.seal("name", &value).await.unwrap();
    assert_eq!(
        sealer.open("name", &sealed).await.unwrap().expose(),
        b"canary-value"
    );
    let arguments = sealed.split(|byte| *byte == b'\n').next().unwrap();
    assert_eq!(
        arguments,
        b"encrypt --name=name --with-key=auto --tpm2-pcrs= - -"
    );
}

#[tokio::test]
async fn sealing_that_fails_says_why() {
    let value = Secret::copy_of(b"canary-value").unwrap();
    let mut words = String::new();
    for name in ["no-tpm", "early", "killed"] {
        let error = program(name)
            .seal("name", &value)
            .await
            .unwrap_err()
            .to_string();
        let (_, told) = error.split_once("/data/bin/").unwrap();
        words += &format!("{told}\n");
    }
    let missing = SystemdCreds::with("/none/systemd-creds".into(), "auto");
    words += &missing.open("name", b"").await.unwrap_err().to_string();
    insta::assert_snapshot!(words);
}
