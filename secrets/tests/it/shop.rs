//! A provider, a sealer and units that tests hold in their hands.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrets::clock::{Clock, Manual};
use secrets::fetcher::{Environment, Fetcher, Patience, Reply, Source, Units};
use secrets::manifest::{Consumer, Manifest, OnChange};
use secrets::provider::{Fetched, Provider, Results};
use secrets::reference::{Reference, Scheme};
use secrets::seal::Sealer;
use secrets::transport::Pending;
use secrets::{Budget, Class, FetchError, LastGood, Secret};

/// Gives what it is told to.
#[derive(Clone, Default)]
pub(crate) struct Shop(Arc<Shelves>);

#[derive(Default)]
struct Shelves {
    goods: Mutex<BTreeMap<String, (String, u64)>>,
    /// All references fail so, or these.
    failure: Mutex<Option<FetchError>>,
    hangs: AtomicBool,
    fetches: AtomicUsize,
    looks: AtomicUsize,
    /// Taken from with each request, if there is one.
    budget: Mutex<Option<Arc<Budget>>>,
}

impl Shop {
    pub(crate) fn set(&self, reference: &str, value: &str) {
        let mut goods = self.0.goods.lock().unwrap();
        let version = goods.get(reference).map_or(1, |(_, version)| version + 1);
        goods.insert(reference.into(), (value.into(), version));
    }

    pub(crate) fn fail(&self, class: Class) {
        *self.0.failure.lock().unwrap() = Some(FetchError::new(class, "told to fail").at("shop"));
    }

    pub(crate) fn fail_for(&self, class: Class, wait: Duration) {
        *self.0.failure.lock().unwrap() = Some(
            FetchError::new(class, "told to fail")
                .at("shop")
                .after(Some(wait)),
        );
    }

    pub(crate) fn work(&self) {
        *self.0.failure.lock().unwrap() = None;
    }

    pub(crate) fn hang(&self) {
        self.0.hangs.store(true, Ordering::SeqCst);
    }

    pub(crate) fn spend_from(&self, budget: Arc<Budget>) {
        *self.0.budget.lock().unwrap() = Some(budget);
    }

    /// Fetches and looks so far.
    pub(crate) fn asked(&self) -> (usize, usize) {
        (
            self.0.fetches.load(Ordering::SeqCst),
            self.0.looks.load(Ordering::SeqCst),
        )
    }

    async fn answer<T>(
        &self,
        references: &[Reference],
        give: impl Fn(&str, u64) -> T,
    ) -> Results<T> {
        if self.0.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let spent = self
            .0
            .budget
            .lock()
            .unwrap()
            .as_ref()
            .map_or(Ok(()), |budget| budget.take());
        let failure = spent
            .err()
            .or_else(|| self.0.failure.lock().unwrap().clone());
        let goods = self.0.goods.lock().unwrap();
        references
            .iter()
            .map(
                |reference| match (&failure, goods.get(&reference.to_string())) {
                    (Some(error), _) => Err(error.clone().of(reference)),
                    (None, Some((value, version))) => Ok(give(value, *version)),
                    (None, None) => Err(FetchError::new(Class::Missing, "not in the shop")
                        .at("shop")
                        .of(reference)),
                },
            )
            .collect()
    }
}

impl Provider for Shop {
    fn fetch<'a>(&'a self, references: &'a [Reference]) -> Pending<'a, Results<Fetched>> {
        Box::pin(async move {
            self.0.fetches.fetch_add(1, Ordering::SeqCst);
            self.answer(references, |value, version| Fetched {
                value: Secret::copy_of(value.as_bytes()).unwrap(),
                version: Some(version.to_string()),
            })
            .await
        })
    }

    fn versions<'a>(&'a self, references: &'a [Reference]) -> Pending<'a, Results<Option<String>>> {
        Box::pin(async move {
            self.0.looks.fetch_add(1, Ordering::SeqCst);
            self.answer(references, |_, version| Some(version.to_string()))
                .await
        })
    }
}

/// Seals so that tests see what is sealed; broken: it opens nothing.
#[derive(Default)]
pub(crate) struct Wax {
    pub(crate) broken: bool,
}

impl Sealer for Wax {
    fn open<'a>(
        &'a self,
        name: &'a str,
        sealed: &'a [u8],
    ) -> Pending<'a, Result<Secret, FetchError>> {
        Box::pin(async move {
            let plain: Vec<u8> = sealed.iter().map(|byte| byte ^ 0x55).collect();
            match plain.strip_prefix(name.as_bytes()) {
                Some(value) if !self.broken => Ok(Secret::copy_of(value)?),
                _ => Err(FetchError::new(Class::Local, "the seal does not fit")),
            }
        })
    }

    fn seal<'a>(
        &'a self,
        name: &'a str,
        value: &'a Secret,
    ) -> Pending<'a, Result<Vec<u8>, FetchError>> {
        Box::pin(async move {
            let plain = [name.as_bytes(), value.expose()].concat();
            Ok(plain.iter().map(|byte| byte ^ 0x55).collect())
        })
    }
}

/// Notes what is done to units.
#[derive(Clone, Default)]
pub(crate) struct Noted(Arc<Mutex<Vec<(String, OnChange, tokio::time::Duration)>>>);

impl Noted {
    /// Unit and action, in order.
    pub(crate) fn actions(&self) -> Vec<(String, OnChange)> {
        let noted = self.0.lock().unwrap();
        noted
            .iter()
            .map(|(unit, action, _)| (unit.clone(), *action))
            .collect()
    }

    /// When, since the machine began.
    pub(crate) fn times(&self) -> Vec<Duration> {
        self.0
            .lock()
            .unwrap()
            .iter()
            .map(|(_, _, at)| *at)
            .collect()
    }
}

/// A machine: its clock, shop, units and state.
pub(crate) struct Machine {
    pub(crate) shop: Shop,
    pub(crate) clock: Arc<Manual>,
    pub(crate) units: Noted,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) patience: Patience,
    pub(crate) budget: Option<Arc<Budget>>,
    began: tokio::time::Instant,
}

struct Noting(Noted, tokio::time::Instant);

impl Units for Noting {
    fn act<'a>(&'a self, unit: &'a str, action: OnChange) -> Pending<'a, Result<(), String>> {
        Box::pin(async move {
            let noted = (unit.to_owned(), action, self.1.elapsed());
            self.0.0.lock().unwrap().push(noted);
            Ok(())
        })
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            shop: Shop::default(),
            clock: Arc::new(Manual::at(1_800_000_000)),
            units: Noted::default(),
            folder: tempfile::tempdir().unwrap(),
            patience: Patience::default(),
            budget: None,
            began: tokio::time::Instant::now(),
        }
    }

    /// Boots with a manifest; its provider is Connect, played by the shop.
    pub(crate) async fn boot(&self, secrets: &str) -> Fetcher {
        self.boot_with(secrets, Wax::default(), BTreeMap::new())
            .await
    }

    pub(crate) async fn boot_with(
        &self,
        secrets: &str,
        sealer: Wax,
        mut sources: BTreeMap<Scheme, Source>,
    ) -> Fetcher {
        let manifest = manifest(secrets);
        let last_good = LastGood::new(self.folder.path().into(), Arc::new(sealer));
        sources.entry(Scheme::Op).or_insert_with(|| Source {
            provider: Arc::new(self.shop.clone()),
            budget: self.budget.clone(),
        });
        let environment = Environment {
            clock: self.clock.clone() as Arc<dyn Clock>,
            sources,
            last_good: Some(last_good),
            units: Arc::new(Noting(self.units.clone(), self.began)),
        };
        Fetcher::start(manifest, self.patience, environment)
            .await
            .unwrap()
    }
}

pub(crate) fn manifest(secrets: &str) -> Manifest {
    let text = format!(
        "[providers.onepassword]\nkind = \"connect\"\nurl = \"https://connect.example\"\n{secrets}"
    );
    Manifest::parse(&text, Path::new("manifest.toml")).unwrap()
}

pub(crate) fn consumer(unit: &str, credential: &str) -> Consumer {
    Consumer {
        unit: format!("{unit}.service"),
        credential: credential.into(),
    }
}

/// A reply in words.
pub(crate) fn words(reply: &Reply) -> String {
    match reply {
        Reply::Value(value) => String::from_utf8(value.expose().to_vec()).unwrap(),
        Reply::Absent => "absent".into(),
        Reply::Fail => "fail".into(),
        Reply::Denied => "denied".into(),
    }
}

/// What a unit gets when it starts anew.
pub(crate) async fn get(fetcher: &Fetcher, unit: &str, credential: &str) -> String {
    words(&fetcher.serve(&consumer(unit, credential), None).await)
}
