//! HTTP/2 by hand: floods and ends, frame by frame (RFC 9113).
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::time::{Duration, Instant};

use support::{House, TOKEN, Talk};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection that was opened by a preface and empty settings.
struct Frames(Talk<TlsStream<TcpStream>>);

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header field without indexing and without Huffman coding (RFC 7541, 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let mut bytes = Vec::new();
        match text.len() {
            length @ 0..127 => bytes.push(length as u8),
            length => {
                bytes.push(127);
                let mut left = length - 127;
                while left >= 128 {
                    bytes.push((left % 128) as u8 | 128);
                    left /= 128;
                }
                bytes.push(left as u8);
            }
        }
        bytes.extend_from_slice(text.as_bytes());
        bytes
    };
    [vec![0], text(name), text(value)].concat()
}

fn request(path: &str) -> Vec<u8> {
    [
        field(":method", "GET"),
        field(":scheme", "https"),
        field(":authority", "localhost"),
        field(":path", path),
        field("authorization", &format!("Bearer {TOKEN}")),
    ]
    .concat()
}

impl Frames {
    async fn open(house: &House) -> Self {
        let mut talk = house.tls("h2").await;
        talk.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        talk.send(&frame(SETTINGS, 0, 0, &[])).await;
        Self(talk)
    }

    /// `None`: the connection ended.
    async fn next(&mut self) -> Option<Frame> {
        let head = self.0.take(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
            payload: self.0.take(length as usize).await?,
        };
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            self.0.send(&self::frame(SETTINGS, ACK, 0, &[])).await;
        }
        Some(frame)
    }

    /// Waits for a frame of this kind. `None`: the connection ended.
    async fn wait(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    async fn get(&mut self, stream: u32, path: &str) {
        let flags = END_HEADERS | END_STREAM;
        self.0
            .send(&frame(HEADERS, flags, stream, &request(path)))
            .await;
    }

    /// Last stream and error code of GOAWAY.
    async fn goaway(&mut self) -> Option<(u32, u32)> {
        let payload = self.wait(GOAWAY).await?.payload;
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        Some((number(0), number(4)))
    }
}

#[tokio::test]
async fn settings_are_as_documented() {
    let house = House::build(|_| {}).await;
    let mut frames = Frames::open(&house).await;
    let settings = frames.wait(SETTINGS).await.unwrap().payload;
    let value = |id: u16| {
        let mut all = settings.chunks(6);
        let found = all.find(|setting| setting[..2] == id.to_be_bytes())?;
        Some(u32::from_be_bytes(found[2..6].try_into().unwrap()))
    };
    // MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_HEADER_LIST_SIZE.
    assert_eq!(value(3), Some(512));
    assert_eq!(value(4), Some(1 << 20));
    assert_eq!(value(6), Some(16 * 1024));
}

#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection() {
    let house = House::build(|_| {}).await;
    let mut frames = Frames::open(&house).await;
    frames.0.send(&frame(HEADERS, 0, 1, &request("/up"))).await;
    let more = frame(CONTINUATION, 0, 1, &field("x", &"y".repeat(1000)));
    for _ in 0..200 {
        frames.0.send(&more).await;
    }
    // GOAWAY, or the end alone if our own frames were still on their way.
    let end = frames.goaway().await;
    assert!(end.is_none_or(|(_, code)| code != 0), "{end:?}");
    while frames.next().await.is_some() {}
    is_alive(&house).await;
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let house = House::build(|_| {}).await;
    let mut frames = Frames::open(&house).await;
    let mut flood = Vec::new();
    for number in 0..5000 {
        let stream = 2 * number + 1;
        flood.extend(frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            stream,
            &request("/up"),
        ));
        // CANCEL.
        flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    frames.0.send(&flood).await;
    let end = frames.goaway().await;
    // ENHANCE_YOUR_CALM, unless our own frames made the kernel drop it.
    assert!(end.is_none_or(|(_, code)| code == 11), "{end:?}");
    while frames.next().await.is_some() {}
    is_alive(&house).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let house = House::build(|_| {}).await;
    let mut frames = Frames::open(&house).await;
    let head = [request("/up"), field("x", &"y".repeat(15 * 1024))].concat();
    frames.0.send(&frame(HEADERS, END_STREAM, 1, &head)).await;
    let rest = field("z", &"y".repeat(2 * 1024));
    frames
        .0
        .send(&frame(CONTINUATION, END_HEADERS, 1, &rest))
        .await;
    // 431 as the first of the static entries would be 200; here, that there is no 200.
    let answer = frames.wait(HEADERS).await.unwrap();
    assert_eq!(answer.stream, 1);
    assert_ne!(answer.payload[0], 0x88, "{answer:?}");
    is_alive(&house).await;
}

#[tokio::test]
async fn stalled_streams_hold_no_more_than_the_budget_and_others_are_served() {
    let budget = 16 << 20;
    let house = House::build(|settings| settings.transport.budget = budget).await;
    let mut talk = house.tls("http/1.1").await;
    let body = vec![7; 1 << 20];
    for (id, length) in [("large", body.len()), ("small", 8192)] {
        talk.say(&format!(
            "POST /api/cache/cas/{id}?account_handle=a&project_handle=b HTTP/1.1\r\nHost: a\r\n\
             Authorization: Bearer {TOKEN}\r\nContent-Type: application/octet-stream\r\n\
             Content-Length: {length}\r\n\r\n"
        ))
        .await;
        talk.send(&body[..length]).await;
        assert_eq!(talk.answer().await.unwrap().status, 204);
    }
    let large = "/api/cache/cas/large?account_handle=a&project_handle=b";
    // Windows as large as they get, and then nobody reads.
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let mut talk = house.tls("h2").await;
        talk.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let window = [&4_u16.to_be_bytes()[..], &(1_u32 << 30).to_be_bytes()[..]].concat();
        talk.send(&frame(SETTINGS, 0, 0, &window)).await;
        talk.send(&frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()))
            .await;
        let mut frames = Frames(talk);
        for number in 0..100 {
            frames.get(2 * number + 1, large).await;
        }
        stalled.push(frames);
    }
    let began = Instant::now();
    while house.metric("larder_cache_budget_used_bytes").await == 0 {
        assert!(began.elapsed() < support::PATIENCE);
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        assert!(house.metric("larder_cache_budget_used_bytes").await <= budget);
        talk.say(&format!(
            "GET /api/cache/cas/small?account_handle=a&project_handle=b HTTP/1.1\r\nHost: a\r\n\
             Authorization: Bearer {TOKEN}\r\n\r\n"
        ))
        .await;
        let answer = talk.answer().await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 8192));
    }
    drop(stalled);
    while house.metric("larder_cache_budget_used_bytes").await > 0 {
        assert!(began.elapsed() < support::PATIENCE);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_stop_says_goaway_and_lets_streams_end() {
    let mut house = House::build(|_| {}).await;
    let mut frames = Frames::open(&house).await;
    frames.get(1, "/up").await;
    assert!(frames.wait(DATA).await.unwrap().payload.starts_with(b"UP!"));
    house.stop();
    let (_, code) = frames.goaway().await.unwrap();
    assert_eq!(code, 0);
    drop(frames);
    house.stopped().await;
}

#[tokio::test]
async fn after_its_last_request_a_connection_says_goaway() {
    let house = House::build(|settings| settings.transport.requests = 2).await;
    let mut frames = Frames::open(&house).await;
    for stream in [1, 3] {
        frames.get(stream, "/up").await;
    }
    let mut bodies = 0;
    let mut goaway = false;
    while let Some(frame) = frames.next().await {
        bodies += usize::from(frame.kind == DATA && !frame.payload.is_empty());
        if frame.kind == GOAWAY {
            assert_eq!(frame.payload[4..8], [0; 4]);
            goaway = true;
        }
        // PING, which the service waits for before it closes.
        if frame.kind == 6 && frame.flags & ACK == 0 {
            frames.0.send(&self::frame(6, ACK, 0, &frame.payload)).await;
        }
    }
    assert_eq!((bodies, goaway), (2, true));
}

async fn is_alive(house: &House) {
    let mut talk = house.tls("http/1.1").await;
    talk.say("GET /up HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = tokio::time::timeout(Duration::from_secs(30), talk.answer()).await;
    assert_eq!(answer.unwrap().unwrap().status, 200);
}
