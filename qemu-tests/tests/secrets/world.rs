//! A provider on this machine that the guest reaches, and an image whose manifest names it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use qemu_tests::{Setup, TestMachine, build_image, source_tree};
use ring::hmac;
use secret_doubles::service_account::ServiceAccount;
use secret_doubles::{Certificate, FOR_GUESTS, Toxic};
use tempfile::TempDir;
use vm::{Credential, Machine};

/// Port at which the guest reaches the provider.
const PORT: u16 = 8443;
/// Where the secrets are.
const VAULT: &str = "cache";
const ITEM: &str = "Larder";

/// A provider with one secret, and an image for it.
pub(super) struct World {
    /// Runs the provider.
    runtime: tokio::runtime::Runtime,
    pub(super) account: ServiceAccount,
    /// What the guest is to fetch.
    pub(super) secret: String,
    pub(super) image: PathBuf,
    /// Requests that were counted so far.
    requests: AtomicUsize,
    _configs: TempDir,
}

impl World {
    /// Starts a provider and builds an image into `build/secrets/NAME`, on which the secret is
    /// optional.
    pub(super) fn new(name: &str) -> Result<World> {
        let world = World::empty(name, false, None)?;
        Ok(World {
            secret: world.rotate(),
            ..world
        })
    }

    /// The same, but the provider has no secret yet. `pcr_key` signs the policy over PCR 11.
    pub(super) fn empty(name: &str, required: bool, pcr_key: Option<&Path>) -> Result<World> {
        let runtime = tokio::runtime::Runtime::new()?;
        let account = {
            let _within = runtime.enter();
            ServiceAccount::start(Certificate::Good)
        };
        let configs = tempfile::tempdir()?;
        let folder = configs.path().join("configs");
        let status = Command::new("cp")
            .arg("-a")
            .arg(source_tree().join("configs"))
            .arg(&folder)
            .status()?;
        ensure!(status.success(), "cp: {status}");
        let authority = folder.join("root/etc/larder/provider.pem");
        std::fs::create_dir_all(authority.parent().context("a folder")?)?;
        std::fs::write(authority, account.server.authority())?;
        let manifest = configs.path().join("manifest.toml");
        std::fs::write(&manifest, manifest_text(required))?;
        let image = build(name, &folder, &manifest, pcr_key)?;
        Ok(World {
            runtime,
            account,
            secret: String::new(),
            image,
            requests: AtomicUsize::new(0),
            _configs: configs,
        })
    }

    /// Gives the secret a new value, which nobody can have by chance.
    pub(super) fn rotate(&self) -> String {
        let mut bytes = [0; 48];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
            .unwrap_or_else(|_| panic!("no randomness"));
        let value = format!("canary-{}", URL_SAFE_NO_PAD.encode(bytes));
        self.account.library.set(VAULT, ITEM, "jwt", &value);
        value
    }

    /// The one thing that a machine is given.
    pub(super) fn token(&self) -> String {
        self.account
            .token_at(&format!("https://{FOR_GUESTS}:{PORT}"))
    }

    /// The token of another account: the provider refuses it.
    pub(super) fn wrong_token(&self) -> String {
        let _within = self.runtime.enter();
        let other = ServiceAccount::start(Certificate::Good);
        other.token_at(&format!("https://{FOR_GUESTS}:{PORT}"))
    }

    /// Whether connections are cut off from now on.
    pub(super) fn down(&self, down: bool) {
        self.account.server.poison(match down {
            true => Toxic::Drop,
            false => Toxic::None,
        });
    }

    /// Requests that have come since the last call.
    pub(super) fn requests(&self) -> usize {
        let new = self.account.server.requests().len();
        self.requests.fetch_add(new, Ordering::SeqCst);
        new
    }

    /// A machine on a network from which only the provider is reached, with a clock that is right.
    pub(super) fn setup(&self, name: &str) -> Setup {
        let relay = env!("CARGO_BIN_EXE_relay").replace(',', ",,");
        let port = self.account.server.address().port();
        let network = format!(
            "user,id=provider,restrict=on,net=10.0.3.0/24,\
             guestfwd=tcp:{FOR_GUESTS}:{PORT}-cmd:{relay} {port}"
        );
        Setup::new(name).image(&self.image).machine(move |machine| {
            let card = "virtio-net-pci,id=provider-card,netdev=provider,romfile=";
            machine
                .extra_args(["-netdev", &network, "-device", card])
                .credential(clock())
        })
    }
}

/// What timesyncd does when a server has told it the time; there is none here.
fn clock() -> Credential {
    let text = "[Service]\n\
                ExecStartPre=+/usr/bin/mkdir -p /run/systemd/timesync\n\
                ExecStartPre=+/usr/bin/touch /run/systemd/timesync/synchronized\n";
    Credential::smbios("systemd.unit-dropin.larder-secrets.service", text)
}

/// Gives a machine its token by SMBIOS.
pub(super) fn by_smbios(token: String) -> impl Fn(Machine) -> Machine {
    move |machine| machine.credential(Credential::smbios("larder.secrets-token", token.as_str()))
}

/// Gives a machine its token by fw_cfg.
pub(super) fn by_fw_cfg(token: String) -> impl Fn(Machine) -> Machine {
    move |machine| machine.credential(Credential::fw_cfg("larder.secrets-token", token.as_str()))
}

fn manifest_text(required: bool) -> String {
    format!(
        "[providers.onepassword]\n\
         kind = \"service-account\"\n\
         hosts = [\"{FOR_GUESTS}:{PORT}\"]\n\
         ca = \"/etc/larder/provider.pem\"\n\
         poll = \"30s\"\n\
         burst = 100\n\
         requests_per_hour = 120\n\
         \n\
         [secrets.jwt-secret]\n\
         reference = \"op://{VAULT}/{ITEM}/jwt\"\n\
         consumers = [{{ unit = \"larder-cache.service\" }}]\n\
         on_change = \"reload\"\n\
         required = {required}\n"
    )
}

fn build(name: &str, configs: &Path, manifest: &Path, pcr_key: Option<&Path>) -> Result<PathBuf> {
    build_image(&source_tree().join("build/secrets").join(name), |build| {
        build.arg("--configs").arg(configs);
        build.arg("--secrets").arg(manifest);
        if let Some(key) = pcr_key {
            build.arg("--pcr-key").arg(key);
        }
    })
}

/// A JSON Web Token that may write to the project of the harness, signed with a shared secret.
pub(super) fn jwt(secret: &str) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(serde_json::json!({ "alg": "HS512", "typ": "JWT" }));
    let claims = part(serde_json::json!({
        "iss": "tuist", "typ": "cache", "sub": "user:7", "exp": 4_000_000_000_u64,
        "cache_grants": { "project": { "write": ["larder/run"] } },
    }));
    let signed = format!("{header}.{claims}");
    let key = hmac::Key::new(hmac::HMAC_SHA512, secret.as_bytes());
    let tag = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// The status of a request for an artifact that is not there: 404 with a token that is good, 401
/// with another one.
pub(super) fn asked_with(machine: &TestMachine, token: &str) -> Result<u16> {
    let guest = machine.guest()?;
    let header = machine.folder().join("jwt-header");
    std::fs::write(&header, format!("Authorization: Bearer {token}\n"))?;
    let mut curl = guest.curl()?;
    curl.arg("-H").arg(format!("@{}", header.display()));
    curl.args(["-o", "/dev/null", "-w", "%{http_code}"]);
    let said = curl.arg(guest.artifact_url("nothing")).output()?;
    let said = String::from_utf8(said.stdout)?;
    said.parse().with_context(|| format!("curl said {said:?}"))
}

/// Waits until the machine takes tokens that are signed with a secret.
pub(super) fn until_taken(machine: &TestMachine, secret: &str) -> Result<()> {
    let token = jwt(secret);
    let patience = vm::Patience::default();
    let every = std::time::Duration::from_millis(300);
    let mut last = None;
    let running = machine.running()?;
    let found = running.wait_for("a token that is taken", patience, every, || {
        last = asked_with(machine, &token).ok();
        Ok((last == Some(404)).then_some(()))
    });
    found.with_context(|| format!("the last answer was {last:?}"))
}
