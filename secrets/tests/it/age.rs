//! The age provider: against files of the reference tool and the published vectors of the format.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrets::Class;
use secrets::provider::{AgeFiles, Provider};

use crate::support::{Given, class, resolve};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data")
}

fn provider(folder: PathBuf, key: &str) -> AgeFiles {
    AgeFiles::new(
        folder,
        Arc::new(Given::token(key)),
        secrets::manifest::TOKEN.into(),
    )
}

/// The vectors of C2SP's CCTV for X25519, armor, header and payload: one named case each of what is
/// right and what is wrong. Each is `key: value` lines, an empty line, and the file.
#[tokio::test]
async fn published_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let mut cases = 0;
    for entry in std::fs::read_dir(data().join("age")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let vector = std::fs::read(&path).unwrap();
        let split = vector.windows(2).position(|two| two == b"\n\n").unwrap();
        let head = String::from_utf8_lossy(&vector[..split]).into_owned();
        let value = |key: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
        };
        std::fs::write(folder.path().join("file.age"), &vector[split + 2..]).unwrap();
        let keys: Vec<_> = head
            .lines()
            .filter_map(|line| line.strip_prefix("identity: "))
            .collect();
        let provider = provider(folder.path().into(), &keys.join("\n"));
        let reference = ["age://file.age".parse().unwrap()];
        let result = provider.fetch(&reference).await.remove(0);
        match value("expect").unwrap() {
            "success" => {
                let fetched = result.unwrap_or_else(|error| panic!("{name}: {error}"));
                let digest = ring::digest::digest(&ring::digest::SHA256, fetched.value.expose());
                let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
                assert_eq!(Some(&*hex), value("payload"), "{name}");
            }
            "no match" => assert_eq!(result.unwrap_err().class, Class::Unauthorized, "{name}"),
            _ => {
                let class = result.expect_err(&name).class;
                assert!(
                    matches!(class, Class::Protocol | Class::Unauthorized),
                    "{name}: {class}"
                );
            }
        }
        cases += 1;
    }
    assert!(cases > 60, "{cases} vectors");
}

const KEY: &str = include_str!("data/key.txt");

/// `data/*.age` are made by the reference tool, as data/README says.
#[tokio::test]
async fn files_of_the_reference_tool() {
    let provider = provider(data(), KEY);
    let results = resolve(
        &provider,
        &[
            "age://site.age#jwt-secret",
            "age://site.age#none",
            "age://armored.age",
            "age://site-for-another.age#jwt-secret",
            "age://passphrase.age",
            "age://none.age",
            "age://armored.age#name",
            "age://site.age#tls-key",
        ],
    )
    .await;
    let mut told = String::new();
    for result in &results {
        told += &match result {
            Ok(value) => format!("value {value:?}\n"),
            Err(error) => format!("{error}\n"),
        };
    }
    insta::assert_snapshot!(told.replace(data().to_str().unwrap(), "DATA"));
}

#[tokio::test]
async fn keys_that_are_none() {
    for key in [
        "",
        "# only a comment",
        "AGE-SECRET-KEY-1",
        "AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM1",
        "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj",
        "\u{e9}",
    ] {
        let provider = provider(data(), key);
        assert_eq!(
            class(&provider, "age://site.age#jwt-secret").await,
            Class::Unauthorized
        );
    }
}
