//! A Debian archive in small: signed suites with a few made-up packages, on the server double.

use std::io::Write as _;

use packages::{Cache, Digest, Fetcher, Lock, Refresh, Request, Sources};

use crate::download::fetcher;
use crate::server::Server;
use crate::signing::Key;

/// The day most things are dated.
pub(crate) const DAY: &str = "Sat, 21 Nov 2026 09:15:44 UTC";

/// A mirror and everything that is needed to use it.
pub(crate) struct Mirror {
    pub(crate) server: Server,
    pub(crate) key: Key,
    pub(crate) folder: tempfile::TempDir,
}

/// A package: its text is `NAME VERSION`, then fields, one a line.
pub(crate) fn stanza(text: &str) -> (String, String, String) {
    let (head, fields) = text.trim().split_once('\n').unwrap_or((text.trim(), ""));
    let (name, version) = head.split_once(' ').expect("NAME VERSION");
    let fields: String = fields.lines().map(|l| format!("{}\n", l.trim())).collect();
    (name.to_owned(), version.to_owned(), fields)
}

impl Mirror {
    pub(crate) fn new() -> Self {
        let mirror = Self {
            server: Server::start(),
            key: Key::new(1),
            folder: tempfile::tempdir().expect("a folder"),
        };
        std::fs::write(mirror.keyring(), mirror.key.keyring()).expect("a keyring");
        mirror
    }

    pub(crate) fn keyring(&self) -> std::path::PathBuf {
        self.folder.path().join("keyring.gpg")
    }

    /// The index of some packages; each of their files is served too.
    pub(crate) fn index(&self, root: &str, packages: &[&str]) -> String {
        let mut out = String::new();
        for text in packages {
            let (name, version, fields) = stanza(text);
            let contents = format!("{name} {version} {root}").into_bytes();
            let path = format!("pool/main/{name}_{}_amd64.deb", version.replace(':', "%3a"));
            out += &format!(
                "Package: {name}\nVersion: {version}\nArchitecture: amd64\n{fields}Filename: {path}\nSize: {}\nSHA256: {}\n\n",
                contents.len(),
                Digest::of(&contents)
            );
            self.server.put(&format!("{root}/{path}"), contents);
        }
        out
    }

    /// The text of a Release file for an index.
    pub(crate) fn release(suite: &str, date: &str, packed: &[u8]) -> String {
        let backports = if suite.ends_with("-backports") {
            "NotAutomatic: yes\nButAutomaticUpgrades: yes\n"
        } else {
            ""
        };
        format!(
            "Origin: Debian\nSuite: stable\nCodename: {suite}\nDate: {date}\n{backports}Acquire-By-Hash: yes\nSHA256:\n {} {} main/binary-amd64/Packages.xz\n",
            Digest::of(packed),
            packed.len()
        )
    }

    /// Publishes a suite.
    pub(crate) fn publish(&self, suite: &str, date: &str, packages: &[&str]) {
        let root = if suite.ends_with("-security") {
            "/debian-security"
        } else {
            "/debian"
        };
        let packed = pack(&self.index(root, packages));
        let release = Self::release(suite, date, &packed);
        let folder = format!("{root}/dists/{suite}/main/binary-amd64");
        self.server.put(
            &format!("{folder}/by-hash/SHA256/{}", Digest::of(&packed)),
            packed.clone(),
        );
        self.server.put(&format!("{folder}/Packages.xz"), packed);
        self.server.put(
            &format!("{root}/dists/{suite}/InRelease"),
            self.key.clear_sign(&release),
        );
    }

    pub(crate) fn sources(&self) -> Sources {
        let mirror = self.server.url("/debian");
        Sources::from_mirrors(&[mirror])
            .expect("a mirror")
            .with_keyring(&self.keyring())
    }

    pub(crate) fn cache(&self) -> Cache {
        Cache::at(self.folder.path().join("cache"))
    }

    pub(crate) fn fetcher(&self) -> Fetcher {
        fetcher(self.sources(), self.cache())
    }

    pub(crate) fn resolve(&self, request: &Request) -> packages::Result<Lock> {
        self.fetcher().resolve(request)
    }

    pub(crate) fn update(
        &self,
        lock: &Lock,
        refresh: Refresh<'_>,
        request: &Request,
    ) -> packages::Result<Lock> {
        self.fetcher().update(lock, refresh, request)
    }
}

/// Compresses an index.
pub(crate) fn pack(index: &str) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(index.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

/// A request for packages of one suite.
pub(crate) fn request(install: &[&str]) -> Request {
    Request {
        architecture: "amd64".to_owned(),
        suites: vec!["trixie".to_owned()],
        install: install.iter().map(|s| (*s).to_owned()).collect(),
        exclude: Default::default(),
        build: Vec::new(),
        pins: Default::default(),
        kernels: Default::default(),
    }
}

/// `name version` of the packages of a lock, with the role where it is not system.
pub(crate) fn names(lock: &Lock) -> Vec<String> {
    lock.packages
        .iter()
        .map(|p| match &p.role {
            packages::Role::System => format!("{} {}", p.name, p.version),
            role => format!("{role} {} {}", p.name, p.version),
        })
        .collect()
}
