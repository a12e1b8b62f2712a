//! A test for every sentence about authorization. The server is a double behind the transport, the
//! clocks are ours.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use secrets::FetchError;
use secrets::clock::Manual;
use secrets::transport::{Origin, Pending, Request, Response, Transport};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::standing::{FREE_TIER, INACTIVE};
use super::*;

const NOW: u64 = 1_790_000_000;
const SECRET: &[u8] = b"a shared secret";

/// The Tuist server, answering what it is told.
struct Double {
    calls: AtomicUsize,
    /// Status and body; `None`: no answer comes.
    answer: Mutex<Option<(u16, Value)>>,
    /// Answers for some paths instead.
    paths: Mutex<Vec<(&'static str, u16, Value)>>,
    /// An answer takes one of them.
    gate: Semaphore,
    most: AtomicUsize,
    running: AtomicUsize,
    seen: Mutex<Vec<String>>,
}

impl Double {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            calls: AtomicUsize::new(0),
            answer: Mutex::new(Some((200, json!({"projects": ["acme/ios"]})))),
            paths: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            most: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            seen: Mutex::default(),
        })
    }

    fn says(&self, status: u16, body: Value) {
        *self.answer.lock().unwrap() = Some((status, body));
    }

    fn is_silent(&self) {
        *self.answer.lock().unwrap() = None;
    }

    fn calls(&self) -> usize {
        self.calls.swap(0, Ordering::Relaxed)
    }

    /// Keeps all answers back.
    fn hold(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }
}

struct Wire(Arc<Double>);

impl Transport for Wire {
    fn send<'a>(
        &'a self,
        _: &'a Origin,
        request: Request,
    ) -> Pending<'a, Result<Response, FetchError>> {
        Box::pin(async move {
            let double = &self.0;
            double.calls.fetch_add(1, Ordering::Relaxed);
            let running = double.running.fetch_add(1, Ordering::Relaxed) + 1;
            double.most.fetch_max(running, Ordering::Relaxed);
            for (name, value) in &request.headers {
                double
                    .seen
                    .lock()
                    .unwrap()
                    .push(format!("{} {name}: {}", request.path, **value));
            }
            double.gate.acquire().await.unwrap().forget();
            double.gate.add_permits(1);
            double.running.fetch_sub(1, Ordering::Relaxed);
            let paths = double.paths.lock().unwrap().clone();
            let by_path = paths.into_iter().find(|(path, ..)| *path == request.path);
            let answer = by_path.map(|(_, status, body)| (status, body));
            match answer.or_else(|| double.answer.lock().unwrap().clone()) {
                Some((status, body)) => Ok(Response {
                    status,
                    retry_after: None,
                    body: body.to_string().into_bytes().into(),
                }),
                None => Err(FetchError::new(
                    secrets::Class::Unavailable,
                    "cannot connect",
                )),
            }
        })
    }
}

struct House {
    access: Access,
    double: Arc<Double>,
    clock: Arc<Manual>,
}

fn house_with(settings: AuthSettings, server: bool) -> House {
    let (double, clock) = (Double::new(), Arc::new(Manual::at(NOW)));
    let origin = Origin::parse("https://tuist.example").unwrap();
    let server = server.then(|| Server::over(origin, Box::new(Wire(double.clone()))));
    let access = Access::with_server(&settings, None, clock.clone(), server).unwrap();
    House {
        access,
        double,
        clock,
    }
}

fn house() -> House {
    house_with(AuthSettings::default(), true)
}

/// Without a server; with the shared secret for HS256.
fn alone() -> House {
    let settings = AuthSettings {
        algorithm: SharedAlgorithm::Hs256,
        ..AuthSettings::default()
    };
    let house = house_with(settings, false);
    house.access.set_keys(Some(SECRET), None).unwrap();
    house
}

fn project(text: &str) -> Project {
    Project::of_full_name(text).unwrap()
}

impl House {
    async fn from(
        &self,
        peer: &str,
        token: &str,
        name: &str,
        action: Action,
    ) -> Result<Grant, Denial> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        headers.insert(AUTHORIZATION, value);
        let caller = Caller {
            headers: &headers,
            peer: peer.parse().unwrap(),
            request_id: "r-1",
        };
        self.access
            .authorize(caller, Some(&project(name)), action)
            .await
    }

    async fn ask(&self, token: &str, name: &str, action: Action) -> Result<Grant, Denial> {
        self.from("192.0.2.1", token, name, action).await
    }

    async fn reads(&self, token: &str, name: &str) -> Result<(), Denial> {
        self.ask(token, name, Action::Read).await.map(drop)
    }

    async fn writes(&self, token: &str, name: &str) -> Result<(), Denial> {
        self.ask(token, name, Action::Write).await.map(drop)
    }

    async fn listed(&self, token: &str) -> Result<Projects, Denial> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        headers.insert(AUTHORIZATION, value);
        let caller = Caller {
            headers: &headers,
            peer: "192.0.2.1".parse().unwrap(),
            request_id: "r-1",
        };
        self.access.projects(caller).await
    }

    async fn passes(&self, seconds: u64) {
        // The clock of the house moves with tokio's.
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }
}

fn unavailable(result: &Result<(), Denial>) -> bool {
    matches!(result, Err(Denial::Unavailable { .. }))
}

fn throttled(result: &Result<(), Denial>) -> bool {
    matches!(result, Err(Denial::Throttled { .. }))
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn hs_with(algorithm: hmac::Algorithm, name: &str, secret: &[u8], claims: &Value) -> String {
    let signed = unsigned(&json!({"alg": name, "typ": "JWT"}), claims);
    let tag = hmac::sign(&hmac::Key::new(algorithm, secret), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn hs(claims: &Value) -> String {
    hs_with(hmac::HMAC_SHA256, "HS256", SECRET, claims)
}

/// The claims of a good cache token, with these changed (`null` takes one away).
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": "tuist", "typ": "cache", "sub": "user:7", "exp": NOW + 3600,
        "cache_grants": {"project": {"read": ["acme/mac"], "write": ["Acme/iOS"]}},
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// A key pair of ES256 and its public key in PEM.
fn pair() -> (EcdsaKeyPair, String) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, &key.serialize_der(), &random).unwrap();
    (pair, key.public_key_pem())
}

fn es(pair: &EcdsaKeyPair, header: Value, claims: &Value) -> String {
    let signed = unsigned(&header, claims);
    let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn es256() -> Value {
    json!({"alg": "ES256", "typ": "JWT"})
}

#[tokio::test(start_paused = true)]
async fn cache_grants_are_the_final_answer_and_the_server_is_not_asked() {
    let house = house();
    house.access.set_keys(Some(SECRET), None).unwrap();
    let settings = AuthSettings::default();
    assert_eq!(settings.algorithm, SharedAlgorithm::Hs512);
    let token = hs_with(hmac::HMAC_SHA512, "HS512", SECRET, &claims(json!({})));
    let grant = house.ask(&token, "ACME/ios", Action::Write).await.unwrap();
    assert_eq!(grant.subject.as_deref(), Some("user:7"));
    assert_eq!(grant.project.to_string(), "acme/ios");
    assert_eq!(house.reads(&token, "acme/ios").await, Ok(()));
    assert_eq!(house.reads(&token, "acme/mac").await, Ok(()));
    assert_eq!(
        house.writes(&token, "acme/mac").await,
        Err(Denial::Forbidden)
    );
    assert_eq!(
        house.reads(&token, "acme/other").await,
        Err(Denial::Forbidden)
    );
    assert_eq!(house.double.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_shared_algorithm_verifies_and_only_the_configured_one() {
    let all = [
        (SharedAlgorithm::Hs256, hmac::HMAC_SHA256, "HS256"),
        (SharedAlgorithm::Hs384, hmac::HMAC_SHA384, "HS384"),
        (SharedAlgorithm::Hs512, hmac::HMAC_SHA512, "HS512"),
    ];
    for (configured, ..) in all {
        let settings = AuthSettings {
            algorithm: configured,
            ..AuthSettings::default()
        };
        let house = house_with(settings, false);
        // The end of the file's last line is no part of the secret.
        house
            .access
            .set_keys(Some(b"a shared secret\n"), None)
            .unwrap();
        for (other, algorithm, name) in all {
            let token = hs_with(algorithm, name, SECRET, &claims(json!({})));
            let right = house.reads(&token, "acme/ios").await.is_ok();
            assert_eq!(right, configured == other, "{configured:?} {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_key_fixes_the_algorithm_and_the_header_chooses_nothing() {
    let (pair, pem) = pair();
    let house = alone();
    house
        .access
        .set_keys(Some(SECRET), Some(pem.as_bytes()))
        .unwrap();
    let claims = claims(json!({}));
    let good = es(&pair, es256(), &claims);
    assert_eq!(house.reads(&good, "acme/ios").await, Ok(()));
    // The public key as the secret of an HMAC.
    let der = pair.public_key().as_ref();
    for secret in [pem.as_bytes(), pem.trim().as_bytes(), der] {
        let confused = hs_with(hmac::HMAC_SHA256, "HS256", secret, &claims);
        assert_eq!(
            house.reads(&confused, "acme/ios").await,
            Err(Denial::Unauthorized)
        );
        let named = hs_with(hmac::HMAC_SHA256, "ES256", secret, &claims);
        assert_eq!(
            house.reads(&named, "acme/ios").await,
            Err(Denial::Unauthorized)
        );
    }
    for none in ["none", "None", "NONE", "", "hs256", "RS256"] {
        let header = json!({"alg": none, "typ": "JWT"});
        let signed = unsigned(&header, &claims);
        let good_signature = hs(&claims).rsplit_once('.').unwrap().1.to_owned();
        for signature in ["", "AAAA", &good_signature] {
            let token = format!("{signed}.{signature}");
            assert_eq!(
                house.reads(&token, "acme/ios").await,
                Err(Denial::Unauthorized),
                "{none}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn forged_tokens_are_refused() {
    let house = alone();
    let token = hs(&claims(json!({})));
    assert_eq!(house.reads(&token, "acme/ios").await, Ok(()));
    let (head, tag) = token.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let others = claims(json!({"cache_grants": {"project": {"write": ["other/app"]}}}));
    let others = URL_SAFE_NO_PAD.encode(others.to_string());
    let forged = format!("{header}.{others}.{tag}");
    assert_eq!(
        house.reads(&forged, "other/app").await,
        Err(Denial::Unauthorized)
    );
    for cut in 0..token.len() {
        let denied = house.reads(&token[..cut.max(1)], "acme/ios").await;
        assert_eq!(denied, Err(Denial::Unauthorized));
    }
    let wrong = hs_with(hmac::HMAC_SHA256, "HS256", b"another", &claims(json!({})));
    assert_eq!(
        house.reads(&wrong, "acme/ios").await,
        Err(Denial::Unauthorized)
    );
}

#[tokio::test(start_paused = true)]
async fn issuer_times_and_type_are_checked() {
    let house = alone();
    let verdict = async |changes: Value| house.reads(&hs(&claims(changes)), "acme/ios").await;
    for good in [
        json!({"nbf": NOW}),
        // The issuer's clock may be a minute ahead of ours.
        json!({"nbf": NOW + 60}),
        json!({"typ": "access"}),
        json!({"exp": NOW + 1}),
        json!({"exp": NOW as f64 + 0.5}),
        json!({"sub": 7}),
    ] {
        assert_eq!(verdict(good.clone()).await, Ok(()), "{good}");
    }
    for bad in [
        json!({"iss": "other"}),
        json!({"iss": null}),
        json!({"exp": NOW}),
        json!({"exp": NOW - 3600}),
        json!({"exp": null}),
        json!({"exp": -1}),
        json!({"exp": "tomorrow"}),
        json!({"exp": 1e300}),
        json!({"nbf": NOW + 61}),
        // A refresh token is signed by the same key.
        json!({"typ": "refresh"}),
        json!({"cache_grants": "all"}),
    ] {
        assert_eq!(
            verdict(bad.clone()).await,
            Err(Denial::Unauthorized),
            "{bad}"
        );
    }
    let header = json!({"alg": "HS256", "typ": "JWT", "crit": ["b64"]});
    let signed = unsigned(&header, &claims(json!({})));
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, SECRET),
        signed.as_bytes(),
    );
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
    assert_eq!(
        house.reads(&token, "acme/ios").await,
        Err(Denial::Unauthorized)
    );
}

#[tokio::test(start_paused = true)]
async fn keys_of_the_bundle_sign_tokens_for_caches_only() {
    let (pair, pem) = pair();
    let house = alone();
    house.access.set_keys(None, Some(pem.as_bytes())).unwrap();
    for typ in [json!("access"), json!("refresh"), Value::Null] {
        let token = es(&pair, es256(), &claims(json!({"typ": typ})));
        assert_eq!(
            house.reads(&token, "acme/ios").await,
            Err(Denial::Unauthorized),
            "{typ}"
        );
    }
    let header = json!({"alg": "ES256", "typ": "other"});
    let token = es(&pair, header, &claims(json!({})));
    assert_eq!(
        house.reads(&token, "acme/ios").await,
        Err(Denial::Unauthorized)
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_names_its_key_is_verified_by_that_key_only() {
    let ((first, first_pem), (second, second_pem), (third, third_pem)) = (pair(), pair(), pair());
    let house = alone();
    let bundle =
        format!("kid: 2026-01\n{first_pem}# next\nkid: 2026-02\n{second_pem}\n{third_pem}");
    house
        .access
        .set_keys(None, Some(bundle.as_bytes()))
        .unwrap();
    let verdict = async |pair: &EcdsaKeyPair, kid: Option<&str>| {
        let mut header = es256();
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        house
            .reads(&es(pair, header, &claims(json!({}))), "acme/ios")
            .await
            .is_ok()
    };
    assert!(verdict(&first, Some("2026-01")).await);
    assert!(verdict(&second, Some("2026-02")).await);
    assert!(!verdict(&first, Some("2026-02")).await);
    // A name that we do not know is that of the key without one, at most.
    assert!(!verdict(&first, Some("2026-03")).await);
    assert!(verdict(&third, Some("2026-03")).await);
    assert!(!verdict(&third, Some("2026-01")).await);
    for pair in [&first, &second, &third] {
        assert!(verdict(pair, None).await);
    }
}

#[tokio::test(start_paused = true)]
async fn the_bundle_reloads_without_a_restart_and_old_tokens_end_with_their_key() {
    let ((first, first_pem), (second, second_pem)) = (pair(), pair());
    let house = alone();
    let old = es(&first, es256(), &claims(json!({})));
    let new = es(&second, es256(), &claims(json!({})));
    house
        .access
        .set_keys(None, Some(first_pem.as_bytes()))
        .unwrap();
    assert_eq!(house.reads(&old, "acme/ios").await, Ok(()));
    assert_eq!(
        house.reads(&new, "acme/ios").await,
        Err(Denial::Unauthorized)
    );
    let both = format!("{first_pem}{second_pem}");
    house.access.set_keys(None, Some(both.as_bytes())).unwrap();
    assert_eq!(house.reads(&old, "acme/ios").await, Ok(()));
    assert_eq!(house.reads(&new, "acme/ios").await, Ok(()));
    house
        .access
        .set_keys(None, Some(second_pem.as_bytes()))
        .unwrap();
    assert_eq!(
        house.reads(&old, "acme/ios").await,
        Err(Denial::Unauthorized)
    );
    // What is no bundle changes nothing.
    for broken in [
        "",
        "noise",
        &second_pem[..60],
        &second_pem.replace("PUBLIC", "EC PRIVATE"),
    ] {
        house
            .access
            .set_keys(None, Some(broken.as_bytes()))
            .unwrap_err();
    }
    assert!(house.access.set_keys(Some(b" \n"), None).is_err());
    assert_eq!(house.reads(&new, "acme/ios").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_remembered_jwt_ends_with_its_exp() {
    let house = alone();
    let token = hs(&claims(json!({"exp": NOW + 100})));
    assert_eq!(house.reads(&token, "acme/ios").await, Ok(()));
    house.passes(99).await;
    assert_eq!(house.reads(&token, "acme/ios").await, Ok(()));
    house.passes(1).await;
    assert_eq!(
        house.reads(&token, "acme/ios").await,
        Err(Denial::Unauthorized)
    );
}

#[tokio::test(start_paused = true)]
async fn projects_of_a_token_are_not_all_of_them_so_the_server_is_asked_about_others() {
    let house = house();
    house.access.set_keys(Some(SECRET), None).unwrap();
    let claims = claims(json!({"cache_grants": null, "typ": "access", "projects": ["acme/web"]}));
    let token = hs_with(hmac::HMAC_SHA512, "HS512", SECRET, &claims);
    assert_eq!(house.writes(&token, "acme/web").await, Ok(()));
    assert_eq!(house.double.calls(), 0);
    assert_eq!(house.writes(&token, "acme/ios").await, Ok(()));
    assert_eq!(house.double.calls(), 1);
    assert_eq!(
        house.reads(&token, "acme/other").await,
        Err(Denial::Forbidden)
    );
}

#[tokio::test(start_paused = true)]
async fn the_answer_is_kept_for_600_s_for_all_projects_and_actions() {
    let house = house();
    house
        .double
        .says(200, json!({"projects": ["acme/ios", "Acme/Mac"]}));
    assert_eq!(house.reads("opaque", "acme/ios").await, Ok(()));
    assert_eq!(house.writes("opaque", "acme/mac").await, Ok(()));
    house.passes(599).await;
    assert_eq!(house.writes("opaque", "acme/ios").await, Ok(()));
    assert_eq!(house.double.calls(), 1);
    house.passes(1).await;
    assert_eq!(house.reads("opaque", "acme/ios").await, Ok(()));
    assert_eq!(house.double.calls(), 1);
    // Another token is another question.
    assert_eq!(house.reads("opaque2", "acme/ios").await, Ok(()));
    assert_eq!(house.double.calls(), 1);
    let seen = house.double.seen.lock().unwrap().clone();
    let expected = "/api/cache/access authorization: Bearer opaque".to_owned();
    assert!(seen.contains(&expected), "{seen:?}");
    assert!(
        seen.contains(&"/api/cache/access x-request-id: r-1".to_owned()),
        "{seen:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_kept_for_3_s() {
    let house = house();
    assert_eq!(
        house.reads("opaque", "acme/new").await,
        Err(Denial::Forbidden)
    );
    // Handles at random are no way to make us ask.
    for number in 0..100 {
        let name = format!("acme/random{number}");
        assert_eq!(house.reads("opaque", &name).await, Err(Denial::Forbidden));
    }
    assert_eq!(house.double.calls(), 1);
    house
        .double
        .says(200, json!({"projects": ["acme/ios", "acme/new"]}));
    house.passes(3).await;
    assert_eq!(house.reads("opaque", "acme/new").await, Ok(()));
    house.double.says(401, json!({}));
    assert_eq!(
        house.reads("other", "acme/new").await,
        Err(Denial::Unauthorized)
    );
    assert_eq!(
        house.reads("other", "acme/new").await,
        Err(Denial::Unauthorized)
    );
    assert_eq!(house.double.calls(), 2);
    house.passes(3).await;
    house.double.says(200, json!({"projects": ["acme/new"]}));
    assert_eq!(house.reads("other", "acme/new").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn one_question_is_on_its_way_for_a_token_however_many_wait() {
    let house = Arc::new(house());
    house.double.hold();
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let house = house.clone();
            tokio::spawn(async move { house.reads("opaque", "acme/ios").await })
        })
        .collect();
    while house.double.calls.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    house.double.gate.add_permits(1);
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(()));
    }
    assert_eq!(house.double.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_does_not_take_the_answer_with_it() {
    let house = Arc::new(house());
    house.double.hold();
    let first = {
        let house = house.clone();
        tokio::spawn(async move { house.reads("opaque", "acme/ios").await })
    };
    while house.double.calls.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    let _ = first.await;
    house.double.gate.add_permits(1);
    assert_eq!(house.reads("opaque", "acme/ios").await, Ok(()));
    assert_eq!(house.double.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn at_most_32_questions_are_on_their_way() {
    let house = Arc::new(house());
    house.double.hold();
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let house = house.clone();
            tokio::spawn(async move {
                let peer = format!("192.0.2.{number}");
                let token = format!("opaque{number}");
                house
                    .from(&peer, &token, "acme/ios", Action::Read)
                    .await
                    .map(drop)
            })
        })
        .collect();
    // All that still wait for their turn after 3 s are turned away; those on their way go on.
    let mut away = 0;
    for (number, task) in tasks.into_iter().enumerate() {
        if number == 40 {
            house.double.gate.add_permits(100);
        }
        if number < 32 {
            continue;
        }
        away += usize::from(throttled(&task.await.unwrap()));
    }
    assert_eq!(house.double.most.load(Ordering::Relaxed), 32);
    assert!(away > 0, "{away}");
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_kept_are_bounded() {
    // What the bound does is shown by its own test; here, that answers go through it.
    let house = house();
    for number in 0..10 {
        let token = format!("opaque{number}");
        assert_eq!(house.reads(&token, "acme/ios").await, Ok(()));
    }
    let mut text = Text::default();
    house.access.write(&mut text);
    let text = text.into_text();
    assert!(
        text.contains("larder_cache_auth_held_tokens 10\n"),
        "{text}"
    );
    assert!(
        text.contains("cache_auth_authorized_total{method=\"server\"} 10\n"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_source_that_tries_many_tokens_is_throttled_and_others_are_not() {
    let settings = AuthSettings {
        failing_tokens: 8,
        ..AuthSettings::default()
    };
    let house = house_with(settings, true);
    assert_eq!(house.reads("good", "acme/ios").await, Ok(()));
    house.double.says(401, json!({}));
    for number in 0..8 {
        let token = format!("random{number}");
        assert_eq!(
            house.reads(&token, "acme/ios").await,
            Err(Denial::Unauthorized)
        );
    }
    let _ = house.double.calls();
    for number in 8..100 {
        let denied = house.reads(&format!("random{number}"), "acme/ios").await;
        assert!(throttled(&denied), "{denied:?}");
    }
    assert_eq!(house.double.calls(), 0);
    // What is known to be good goes on, also when the server has to be asked about it again.
    assert_eq!(house.reads("good", "acme/ios").await, Ok(()));
    house.double.says(200, json!({"projects": ["acme/ios"]}));
    let other = house
        .from("192.0.2.9", "random200", "acme/ios", Action::Read)
        .await;
    assert!(other.is_ok());
    house.passes(60).await;
    assert_eq!(house.reads("random300", "acme/ios").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_held_grant_serves_for_25_minutes_while_the_server_is_silent() {
    for silence in [None, Some(500), Some(503), Some(429)] {
        let house = house();
        assert_eq!(house.writes("opaque", "acme/ios").await, Ok(()));
        match silence {
            None => house.double.is_silent(),
            Some(status) => house.double.says(status, json!({})),
        }
        house.passes(600).await;
        assert_eq!(house.writes("opaque", "acme/ios").await, Ok(()));
        // Whoever is not known gets the one 503 that a peer may cause.
        let denied = house.reads("unknown", "acme/ios").await;
        assert!(unavailable(&denied), "{denied:?}");
        assert!(denied.unwrap_err().retry_after().unwrap() >= Duration::from_secs(1));
        house.passes(899).await;
        assert_eq!(
            house.writes("opaque", "acme/ios").await,
            Ok(()),
            "{silence:?}"
        );
        house.passes(1).await;
        let denied = house.writes("opaque", "acme/ios").await;
        assert!(unavailable(&denied), "{silence:?} {denied:?}");
        house.double.says(200, json!({"projects": ["acme/ios"]}));
        house.passes(3).await;
        assert_eq!(house.writes("opaque", "acme/ios").await, Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn the_25_minutes_count_from_the_last_confirmation() {
    let house = house();
    assert_eq!(house.reads("opaque", "acme/ios").await, Ok(()));
    house.passes(600).await;
    assert_eq!(house.reads("opaque", "acme/ios").await, Ok(()));
    house.double.is_silent();
    house.passes(24 * 60).await;
    assert_eq!(house.reads("opaque", "acme/ios").await, Ok(()));
    house.passes(60).await;
    assert!(unavailable(&house.reads("opaque", "acme/ios").await));
}

#[tokio::test(start_paused = true)]
async fn a_held_grant_never_outlives_the_token() {
    let house = house();
    // Signed by nobody whom we know; the server says that it is good.
    let token = hs(&claims(json!({"exp": NOW + 700})));
    assert_eq!(house.reads(&token, "acme/ios").await, Ok(()));
    house.double.is_silent();
    house.passes(699).await;
    assert_eq!(house.reads(&token, "acme/ios").await, Ok(()));
    house.passes(1).await;
    assert_eq!(
        house.reads(&token, "acme/ios").await,
        Err(Denial::Unauthorized)
    );
    // Nor does a wall clock that jumps make it longer.
    let other = hs(&claims(json!({"exp": NOW + 9000})));
    house.double.says(200, json!({"projects": ["acme/ios"]}));
    assert_eq!(house.reads(&other, "acme/ios").await, Ok(()));
    house.clock.advance(Duration::from_secs(9000));
    assert_eq!(
        house.reads(&other, "acme/ios").await,
        Err(Denial::Unauthorized)
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_not_asked_for_every_request_and_heard_when_it_speaks() {
    let house = house();
    assert_eq!(house.reads("opaque", "acme/ios").await, Ok(()));
    house.double.is_silent();
    house.passes(600).await;
    let _ = house.double.calls();
    for _ in 0..100 {
        assert_eq!(house.reads("opaque", "acme/ios").await, Ok(()));
    }
    assert_eq!(house.double.calls(), 1);
    house.double.says(401, json!({}));
    house.passes(3).await;
    // Nobody waits for the answer, but it counts.
    assert_eq!(house.reads("opaque", "acme/ios").await, Ok(()));
    while house.access.server.as_ref().unwrap().len() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        house.reads("opaque", "acme/ios").await,
        Err(Denial::Unauthorized)
    );
}

#[tokio::test(start_paused = true)]
async fn a_401_voids_the_token_at_once() {
    let house = house();
    house
        .double
        .says(200, json!({"projects": ["acme/ios", "acme/mac"]}));
    assert_eq!(house.reads("opaque", "acme/ios").await, Ok(()));
    assert_eq!(house.reads("opaque", "acme/mac").await, Ok(()));
    house.double.says(401, json!({}));
    // A project that it was not for makes us ask.
    house.passes(3).await;
    assert_eq!(
        house.reads("opaque", "acme/other").await,
        Err(Denial::Unauthorized)
    );
    house.double.is_silent();
    for name in ["acme/ios", "acme/mac"] {
        assert_eq!(house.reads("opaque", name).await, Err(Denial::Unauthorized));
    }
    house.passes(3).await;
    assert!(unavailable(&house.reads("opaque", "acme/ios").await));
}

#[tokio::test(start_paused = true)]
async fn a_403_voids_that_project_and_no_other() {
    let house = house();
    house
        .double
        .says(200, json!({"projects": ["acme/ios", "acme/mac"]}));
    assert_eq!(house.reads("opaque", "acme/ios").await, Ok(()));
    house.passes(600).await;
    house.double.says(403, json!({}));
    assert_eq!(
        house.reads("opaque", "acme/ios").await,
        Err(Denial::Forbidden)
    );
    house.double.is_silent();
    assert_eq!(
        house.reads("opaque", "acme/ios").await,
        Err(Denial::Forbidden)
    );
    assert_eq!(house.reads("opaque", "acme/mac").await, Ok(()));
    house.passes(3).await;
    assert!(unavailable(&house.reads("opaque", "acme/ios").await));
}

#[tokio::test(start_paused = true)]
async fn an_account_that_has_not_paid_gets_402() {
    let house = house();
    house.double.says(404, json!({}));
    let accounts = json!([
        {"name": "acme", "plan": "air", "thresholds_surpassed": true},
        {"name": "tiny", "plan": "air", "thresholds_surpassed": false},
        {"name": "late", "plan": "pro", "subscription_active": false},
        {"name": "good", "plan": "enterprise", "subscription_active": true},
    ]);
    let projects = json!([
        {"full_name": "acme/ios"}, {"full_name": "tiny/app"},
        {"full_name": "late/app"}, {"full_name": "good/app"},
    ]);
    let older = json!({"projects": projects, "accounts": accounts});
    *house.double.paths.lock().unwrap() = vec![("/api/projects", 200, older)];
    assert_eq!(
        house.reads("opaque", "acme/ios").await,
        Err(Denial::Payment(FREE_TIER))
    );
    assert_eq!(
        house.reads("opaque", "late/app").await,
        Err(Denial::Payment(INACTIVE))
    );
    assert_eq!(house.writes("opaque", "tiny/app").await, Ok(()));
    assert_eq!(house.writes("opaque", "good/app").await, Ok(()));
    // Both questions, once; from then on the older one.
    assert_eq!(house.double.calls(), 2);
    let _ = house.reads("opaque2", "good/app").await;
    assert_eq!(house.double.calls(), 1);
    let house = alone();
    let token = hs(&claims(json!({"cache_payment_required": true})));
    assert_eq!(
        house.reads(&token, "acme/ios").await,
        Err(Denial::Payment(FREE_TIER))
    );
    let token = hs(&claims(json!({"cache_payment_required": ["other"]})));
    assert_eq!(house.reads(&token, "acme/ios").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn answers_that_mean_nothing_let_nobody_in() {
    let house = house();
    for (status, body) in [
        (200, json!({})),
        (200, json!({"projects": "all"})),
        (200, json!([])),
        (204, json!({})),
        (302, json!({})),
        (404, json!({})),
        (418, json!({})),
    ] {
        house.double.says(status, body);
        let denied = house.reads(&format!("opaque{status}"), "acme/ios").await;
        assert!(unavailable(&denied), "{status} {denied:?}");
    }
    house.double.says(
        200,
        json!({"projects": ["acme", "", "a/b/c", "../x", "acme/ios"]}),
    );
    assert_eq!(house.reads("opaque", "acme/ios").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn configured_tokens_have_projects_an_action_and_an_end() {
    let token = |name: &str, projects: &[&str], write, expires| ConfiguredToken {
        name: name.into(),
        hash: TokenHash::of_token(name.as_bytes()).unwrap(),
        projects: projects.iter().map(|text| (*text).into()).collect(),
        write,
        expires,
    };
    let settings = AuthSettings {
        tokens: vec![
            token("reader", &["acme/ios"], false, None),
            token("writer", &["acme/*"], true, None),
            token("ends", &["*"], true, Some(Duration::from_secs(NOW + 10))),
        ],
        ..AuthSettings::default()
    };
    // With a server: it is not asked about them.
    let house = house_with(settings, true);
    assert_eq!(house.reads("reader", "acme/ios").await, Ok(()));
    assert_eq!(
        house.writes("reader", "acme/ios").await,
        Err(Denial::Forbidden)
    );
    assert_eq!(
        house.reads("reader", "acme/mac").await,
        Err(Denial::Forbidden)
    );
    assert_eq!(house.writes("writer", "acme/mac").await, Ok(()));
    assert_eq!(house.writes("ends", "any/thing").await, Ok(()));
    let grant = house
        .ask("writer", "acme/mac", Action::Write)
        .await
        .unwrap();
    assert_eq!(grant.subject.as_deref(), Some("writer"));
    let only = house.listed("reader").await.unwrap();
    assert_eq!(only.only(), Some(&project("acme/ios")));
    assert_eq!(house.listed("ends").await.unwrap(), Projects::All);
    house.passes(10).await;
    assert_eq!(
        house.reads("ends", "any/thing").await,
        Err(Denial::Unauthorized)
    );
    assert_eq!(house.double.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn revoked_tokens_of_every_kind_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuthSettings {
        token: TokenHash::of_token(b"one"),
        algorithm: SharedAlgorithm::Hs256,
        ..AuthSettings::default()
    };
    let (double, clock) = (Double::new(), Arc::new(Manual::at(NOW)));
    let origin = Origin::parse("https://tuist.example").unwrap();
    let server = Server::over(origin, Box::new(Wire(double.clone())));
    let access =
        Access::with_server(&settings, Some(folder.path()), clock.clone(), Some(server)).unwrap();
    access.set_keys(Some(SECRET), None).unwrap();
    let house = House {
        access,
        double,
        clock,
    };
    let jwt = hs(&claims(json!({})));
    for token in ["one", "opaque", &jwt] {
        let grant = house.ask(token, "acme/ios", Action::Read).await.unwrap();
        revoke(folder.path(), &grant.fingerprint.to_string(), NOW, "leaked").unwrap();
        house.access.look();
        assert_eq!(
            house.reads(token, "acme/ios").await,
            Err(Denial::Unauthorized)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn without_any_way_in_everything_is_refused() {
    let house = house_with(AuthSettings::default(), false);
    assert!(house.access.is_closed());
    let jwt = hs_with(hmac::HMAC_SHA512, "HS512", b"", &claims(json!({})));
    for token in ["", "x", &jwt] {
        assert!(house.reads(token, "acme/ios").await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_project_learns_only_whether_its_token_is_good() {
    let house = house();
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer opaque"));
    let caller = Caller {
        headers: &headers,
        peer: "192.0.2.1".parse().unwrap(),
        request_id: "r",
    };
    let denied = house.access.authorize(caller, None, Action::Read).await;
    assert_eq!(denied.unwrap_err(), Denial::Forbidden);
    assert_eq!(
        house.listed("opaque").await.unwrap().only(),
        Some(&project("acme/ios"))
    );
    house.double.says(401, json!({}));
    assert_eq!(house.listed("other").await, Err(Denial::Unauthorized));
}

#[tokio::test]
async fn the_server_is_asked_over_https() {
    use secret_doubles::{Answer, Certificate, Server as Http};
    let http = Http::start(Certificate::Good, |received| match received.path.as_str() {
        "/api/cache/access" if received.header("authorization") == Some("Bearer t") => {
            Answer::json(200, &json!({"projects": ["acme/ios"]}))
        }
        _ => Answer::json(401, &json!({})),
    });
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, http.authority()).unwrap();
    let settings = AuthSettings {
        server: Some(ServerSettings {
            url: http.url(),
            ca_file: Some(authority),
        }),
        ..AuthSettings::default()
    };
    let clock = Arc::new(secrets::clock::System);
    let access = Access::new(&settings, None, clock).unwrap();
    let mut headers = HeaderMap::new();
    // Basic, as some clients must; the server gets it as Bearer.
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic OnQ="));
    let caller = Caller {
        headers: &headers,
        peer: "192.0.2.1".parse().unwrap(),
        request_id: "r",
    };
    let project = project("acme/ios");
    access
        .authorize(caller, Some(&project), Action::Write)
        .await
        .unwrap();
    let plain = ServerSettings {
        url: "http://tuist.example".into(),
        ca_file: None,
    };
    let settings = AuthSettings {
        server: Some(plain),
        ..AuthSettings::default()
    };
    let error = Access::new(&settings, None, Arc::new(secrets::clock::System)).unwrap_err();
    assert!(error.contains("https://"), "{error}");
}

#[test]
fn noise_panics_nothing() {
    for bytes in [
        &b""[..],
        b"a.b.c",
        b"{}",
        b"\xff\xfe",
        b"-----BEGIN PUBLIC KEY-----",
    ] {
        fuzz(bytes);
    }
    let (_, pem) = pair();
    for cut in 0..pem.len() {
        fuzz(&pem.as_bytes()[..cut]);
    }
}
