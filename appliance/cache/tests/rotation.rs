//! Credentials that change while the service runs: what is new counts at once, and no request is lost.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::{Signal, getpid, kill_process};
use support::{House, TOKEN};

/// Requests under load before and after a change.
const LOAD: usize = 20;

/// Tells the service, which is this process, to reload.
fn reload() {
    kill_process(getpid(), Signal::HUP).unwrap();
}

/// Leaves a new certificate in the folder; its DER.
fn put_pair(folder: &Path) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    std::fs::write(folder.join("tls-cert"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("tls-key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().to_vec()
}

fn get(token: &str) -> String {
    format!(
        "GET /api/cache/cas/a?account_handle=acme&project_handle=ios HTTP/1.1\r\nHost: a\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    )
}

/// The certificate that a new connection is shown.
async fn shown(house: &House) -> Vec<u8> {
    let talk = house.tls("http/1.1").await;
    let certificates = talk.stream.get_ref().1.peer_certificates();
    certificates.unwrap()[0].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_changes_and_no_request_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = folder.path().to_owned();
    let first = put_pair(&credentials);
    let given = credentials.clone();
    let house = House::build(move |settings| settings.credentials.folder = Some(given)).await;
    let house = Arc::new(house);
    assert_eq!(shown(&house).await, first);

    // One connection for all, and one for each request.
    let (stop, count) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let load = |lasting: bool| {
        let (house, stop, count) = (Arc::clone(&house), Arc::clone(&stop), Arc::clone(&count));
        tokio::spawn(async move {
            let mut talk = house.tls("http/1.1").await;
            while !stop.load(Ordering::SeqCst) {
                talk.say(&get(TOKEN)).await;
                let answer = talk.answer().await.unwrap();
                assert_eq!(answer.status, 404);
                count.fetch_add(1, Ordering::SeqCst);
                // A connection has but so many requests, and says so.
                if !lasting || answer.header("connection") == Some("close") {
                    talk = house.tls("http/1.1").await;
                }
            }
        })
    };
    let loads = [load(true), load(false)];
    let enough = async |more: usize| {
        let start = count.load(Ordering::SeqCst);
        while count.load(Ordering::SeqCst) < start + more {
            assert!(
                loads.iter().all(|load| !load.is_finished()),
                "a request was lost"
            );
            tokio::task::yield_now().await;
        }
    };
    enough(LOAD).await;
    let second = put_pair(&credentials);
    reload();
    while shown(&house).await != second {}
    enough(LOAD).await;
    // What is none changes nothing.
    std::fs::write(credentials.join("tls-key"), "no key").unwrap();
    reload();
    enough(LOAD).await;
    assert_eq!(shown(&house).await, second);
    stop.store(true, Ordering::SeqCst);
    for load in loads {
        load.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_token_counts_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = folder.path().to_owned();
    let token = credentials.join("larder.cache-token");
    std::fs::write(&token, TOKEN).unwrap();
    let house = House::build(move |settings| settings.credentials.folder = Some(credentials)).await;
    // A connection has but so many requests.
    let status = async |token: &str| {
        let mut talk = house.tls("http/1.1").await;
        talk.say(&get(token)).await;
        talk.answer().await.unwrap().status
    };
    assert_eq!(status(TOKEN).await, 404);
    std::fs::write(&token, "another-token\n").unwrap();
    reload();
    while status("another-token").await != 404 {}
    assert_eq!(status(TOKEN).await, 401);
    std::fs::remove_file(&token).unwrap();
    reload();
    while status("another-token").await != 401 {}
}
