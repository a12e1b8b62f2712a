//! What clients may do to connections: framing, floods, slowness, ends.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::time::Duration;

use support::{House, TOKEN};

const QUERY: &str = "account_handle=acme&project_handle=ios";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")
}

fn post(id: &str, length: usize, more: &str) -> String {
    format!(
        "POST /api/cache/cas/{id}?{QUERY} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n{more}\r\n"
    )
}

/// 400 and the end of the connection, whatever follows.
async fn is_refused(house: &House, request: &str) {
    let mut talk = house.plain().await;
    talk.say(request).await;
    talk.say("GET /up HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = talk
        .answer()
        .await
        .unwrap_or_else(|| panic!("no answer to {request:?}"));
    assert_eq!(answer.status, 400, "{request:?} {answer:?}");
    assert_eq!(talk.rest().await, "", "{request:?}");
}

#[tokio::test]
async fn smuggled_requests_get_400_and_the_connection_ends() {
    let house = House::build(|_| {}).await;
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length : 5",
        "Content-Length: +5",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: xchunked",
        "X: a\r\n folded",
        "X: a\nY: b",
        "X: a\rY: b",
    ] {
        let request = format!("POST /up HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\nabcde");
        is_refused(&house, &request).await;
    }
    is_refused(&house, "GET /up HTTP/1.1\nHost: a\n\n").await;
    is_refused(&house, "GET /up HTTP/1.1\r\nHost: a\0b\r\n\r\n").await;
    is_refused(&house, "GET /u\u{7f}p HTTP/1.1\r\nHost: a\r\n\r\n").await;
}

#[tokio::test]
async fn pipelined_requests_are_each_answered() {
    let house = House::build(|_| {}).await;
    let mut talk = house.plain().await;
    talk.say(&"GET /up HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3))
        .await;
    for _ in 0..3 {
        assert_eq!(talk.answer().await.unwrap().body, b"UP! Version: 1.2.3");
    }
}

#[tokio::test]
async fn floods_of_header_fields_get_431_and_the_connection_ends() {
    let house = House::build(|_| {}).await;
    let many: String = (0..101).map(|number| format!("x{number}: y\r\n")).collect();
    let large = format!("x: {}\r\n", "y".repeat(20 * 1024));
    for fields in [many, large] {
        let mut talk = house.plain().await;
        talk.say(&format!("GET /up HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
            .await;
        assert_eq!(talk.answer().await.unwrap().status, 431);
        assert_eq!(talk.rest().await, "");
    }
    let mut talk = house.plain().await;
    talk.say(&format!("GET /{} HTTP/1.1\r\n", "y".repeat(80 * 1024)))
        .await;
    let status = talk.answer().await.unwrap().status;
    assert!([400, 414, 431].contains(&status), "{status}");
    assert_eq!(talk.rest().await, "");
}

#[tokio::test]
async fn who_dribbles_a_head_is_cut_off() {
    let house = House::build(|settings| {
        settings.timeouts.head = Duration::from_millis(300);
        settings.timeouts.idle = Duration::from_secs(600);
    })
    .await;
    let mut talk = house.plain().await;
    let began = std::time::Instant::now();
    // A byte now and then does not help.
    while began.elapsed() < support::PATIENCE {
        talk.say("G").await;
        let read = tokio::time::timeout(Duration::from_millis(50), talk.take(1)).await;
        if let Ok(end) = read {
            assert_eq!(end, None);
            return;
        }
    }
    panic!("still connected");
}

#[tokio::test]
async fn who_never_shakes_hands_is_cut_off() {
    let house = House::build(|settings| {
        settings.timeouts.handshake = Duration::from_millis(200);
    })
    .await;
    let stream = tokio::net::TcpStream::connect(house.https).await.unwrap();
    let mut talk = support::Talk::new(stream);
    talk.say("\u{16}").await;
    assert_eq!(talk.rest().await, "");
    assert_eq!(
        house
            .metric("larder_cache_tls_handshake_failures_total")
            .await,
        1
    );
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_gets_408() {
    let house = House::build(|settings| {
        let soon = Duration::from_millis(200);
        settings.timeouts.body_first = (soon, soon);
        settings.timeouts.body_next = (soon, soon);
    })
    .await;
    let mut talk = house.tls("http/1.1").await;
    talk.say(&post("slow", 10, "")).await;
    talk.say("abc").await;
    let answer = talk.answer().await.unwrap();
    assert_eq!(answer.status, 408);
}

#[tokio::test]
async fn a_download_that_nobody_reads_is_cut_off_and_its_memory_given_back() {
    let house = House::build(|settings| {
        settings.timeouts.stall = Duration::from_millis(500);
    })
    .await;
    let mut talk = house.tls("http/1.1").await;
    let body = vec![7; 24 << 20];
    talk.say(&post("large", body.len(), "")).await;
    talk.send(&body).await;
    assert_eq!(talk.answer().await.unwrap().status, 204);
    talk.say(&get(&format!("/api/cache/cas/large?{QUERY}")))
        .await;
    // Now nothing is read until the service gives up.
    let over =
        "cache_nginx_http_responses_total{method=\"GET\",path_group=\"xcode\",status=\"200\"";
    let began = std::time::Instant::now();
    while !house.metrics().await.contains(over) {
        assert!(began.elapsed() < support::PATIENCE);
        tokio::task::yield_now().await;
    }
    assert_eq!(house.metric("larder_cache_budget_used_bytes").await, 0);
    let head = talk.head().await.unwrap();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(talk.take(body.len()).await.is_none());
}

#[tokio::test]
async fn after_its_last_request_a_connection_ends_well() {
    let house = House::build(|settings| settings.transport.requests = 3).await;
    let mut talk = house.tls("http/1.1").await;
    for number in 1..=3 {
        talk.say(&get("/up")).await;
        let answer = talk.answer().await.unwrap();
        assert_eq!(answer.status, 200);
        let close = answer.header("connection") == Some("close");
        assert_eq!(close, number == 3);
    }
    assert_eq!(talk.rest().await, "");
}

#[tokio::test]
async fn a_refusal_comes_before_the_body() {
    let house = House::build(|_| {}).await;
    // Who waits for the word to go on is refused instead.
    let mut talk = house.tls("http/1.1").await;
    let request = post("a", 1 << 20, "Expect: 100-continue\r\n").replace(TOKEN, "wrong");
    talk.say(&request).await;
    assert_eq!(talk.answer().await.unwrap().status, 401);
    assert_eq!(talk.rest().await, "");
    // Who may gets the word.
    let mut talk = house.tls("http/1.1").await;
    talk.say(&post("a", 3, "Expect: 100-continue\r\n")).await;
    assert_eq!(talk.answer().await.unwrap().status, 100);
    talk.say("abc").await;
    assert_eq!(talk.answer().await.unwrap().status, 204);
}

#[tokio::test]
async fn a_stop_answers_one_last_request_on_idle_connections() {
    let mut house = House::build(|_| {}).await;
    let mut talk = house.tls("http/1.1").await;
    talk.say(&get("/up")).await;
    assert_eq!(talk.answer().await.unwrap().status, 200);
    house.stop();
    // The listeners are gone; the connection is not.
    while tokio::net::TcpStream::connect(house.http).await.is_ok() {
        tokio::task::yield_now().await;
    }
    talk.say(&get("/up")).await;
    let answer = talk.answer().await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(talk.rest().await, "");
    house.stopped().await;
}

#[tokio::test]
async fn a_stop_cuts_what_takes_longer_than_the_drain() {
    let mut house = House::build(|settings| settings.drain = Duration::from_millis(200)).await;
    let mut talk = house.tls("http/1.1").await;
    talk.say(&post("never", 10, "")).await;
    talk.say("abc").await;
    house.stop();
    house.stopped().await;
}

#[tokio::test]
async fn a_lying_length_stores_nothing() {
    let house = House::build(|_| {}).await;
    let mut talk = house.tls("http/1.1").await;
    talk.say(&post("short", 10, "")).await;
    talk.say("abc").await;
    drop(talk);
    let began = std::time::Instant::now();
    while house
        .metric("tuist_cache_xcode_upload_cancelled_total")
        .await
        == 0
    {
        assert!(began.elapsed() < support::PATIENCE);
        tokio::task::yield_now().await;
    }
    let mut talk = house.tls("http/1.1").await;
    talk.say(&get(&format!("/api/cache/cas/short?{QUERY}")))
        .await;
    assert_eq!(talk.answer().await.unwrap().status, 404);
}
