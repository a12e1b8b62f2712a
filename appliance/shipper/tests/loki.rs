//! The status table of Loki as it was observed (facts/logs-and-metrics.md 1.2): the double answers by
//! it, a test a row, and the pipeline does with each answer what has to be done.
#![allow(clippy::unwrap_used)]

mod support;

use receiver_double::{Limits, Loki};
use support::wire::{Push, line, line_with, push};

const NOW: i64 = 1_790_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 24 * 60 * MINUTE;
const PROTOBUF: &str = "application/x-protobuf";
const STREAM: &str = r#"{job="a"}"#;

fn status(loki: &mut Loki, body: &[u8]) -> u16 {
    loki.push(PROTOBUF, body, NOW).0
}

/// One line of one stream.
fn one(time: i64, text: &str) -> Vec<u8> {
    push(&[(STREAM, vec![line(time, text.as_bytes())])])
}

#[test]
fn good_requests() {
    let mut loki = Loki::default();
    let mut good = |body: &Push| assert_eq!(status(&mut loki, body), 204);
    good(&one(NOW, "ok"));
    good(&push(&[(STREAM, vec![])]));
    good(&push(&[("{}", vec![line(NOW, b"no labels")])]));
    good(&push(&[(STREAM, vec![line(NOW, b"nul \0 and \xff\xfe")])]));
    good(&one(NOW, "the same time, another line"));
    let unknown = &loki.streams[r#"{service_name="unknown_service"}"#];
    assert_eq!(unknown[0].text, "no labels");
    assert_eq!(loki.streams[STREAM].len(), 3);
}

#[test]
fn the_same_line_again_is_stored_once() {
    let mut loki = Loki::default();
    for _ in 0..3 {
        assert_eq!(status(&mut loki, &one(NOW, "again")), 204);
    }
    assert_eq!((loki.streams[STREAM].len(), loki.duplicates), (1, 2));
}

#[test]
fn older_than_the_newest_by_less_than_an_hour() {
    let mut loki = Loki::default();
    assert_eq!(status(&mut loki, &one(NOW, "new")), 204);
    assert_eq!(status(&mut loki, &one(NOW - 59 * MINUTE, "old")), 204);
}

#[test]
fn too_far_behind_its_stream() {
    let mut loki = Loki::default();
    assert_eq!(status(&mut loki, &one(NOW, "new")), 204);
    let (status, text) = loki.push(PROTOBUF, &one(NOW - 70 * MINUTE, "old"), NOW);
    assert_eq!(status, 400);
    assert!(text.contains("entry too far behind") && text.contains("oldest acceptable timestamp"));
    // Another stream has not seen the newer one.
    let other = push(&[(r#"{job="b"}"#, vec![line(NOW - 70 * MINUTE, b"old")])]);
    assert_eq!(self::status(&mut loki, &other), 204);
}

#[test]
fn of_a_mixed_request_the_good_lines_are_stored() {
    let mut loki = Loki::default();
    assert_eq!(status(&mut loki, &one(NOW - 1, "newest")), 204);
    let mixed = push(&[(
        STREAM,
        vec![line(NOW - 70 * MINUTE, b"bad"), line(NOW, b"good")],
    )]);
    let (status, text) = loki.push(PROTOBUF, &mixed, NOW);
    assert_eq!(status, 400);
    assert!(text.contains("total ignored: 1 out of 2"), "{text}");
    assert!(loki.lines().any(|line| line.text == "good") && loki.refused == 1);
}

#[test]
fn too_old_and_too_new() {
    let mut loki = Loki::default();
    for (time, expected) in [
        (NOW - 7 * DAY - SECOND, 400),
        (NOW - 7 * DAY + SECOND, 204),
        (NOW + 10 * MINUTE + SECOND, 400),
    ] {
        assert_eq!(status(&mut loki, &one(time, "x")), expected, "{time}");
    }
    let mut loki = Loki::default();
    assert_eq!(
        status(&mut loki, &one(NOW + 10 * MINUTE - SECOND, "x")),
        204
    );
}

#[test]
fn lines_that_are_too_long() {
    let long = "ä".repeat(128 * 1024 + 1);
    assert_eq!(status(&mut Loki::default(), &one(NOW, &long)), 400);
    assert_eq!(status(&mut Loki::default(), &one(NOW, &long[2..])), 204);
    let mut cutting = Loki::limited(Limits {
        truncate: true,
        ..Limits::default()
    });
    assert_eq!(status(&mut cutting, &one(NOW, &long)), 204);
    assert_eq!(cutting.streams[STREAM][0].text.len(), 256 * 1024);
}

#[test]
fn labels_that_are_refused() {
    let labels = |count: usize| {
        let pairs: Vec<_> = (0..count).map(|at| format!("l{at}=\"x\"")).collect();
        format!("{{{}}}", pairs.join(", "))
    };
    for (bad, expected) in [
        (labels(15), 204),
        (labels(16), 400),
        (format!("{{{}=\"x\"}}", "n".repeat(1025)), 400),
        (format!("{{n=\"{}\"}}", "v".repeat(2049)), 400),
        ("{a.b=\"x\"}".into(), 400),
        ("{a=x}".into(), 400),
        ("a=\"x\"".into(), 400),
        (String::new(), 400),
    ] {
        let body = push(&[(&bad, vec![line(NOW, b"x")])]);
        assert_eq!(status(&mut Loki::default(), &body), expected, "{:.60}", bad);
    }
}

#[test]
fn structured_metadata() {
    let pairs = |count: usize| -> Vec<_> {
        (0..count)
            .map(|at| (format!("m{at}"), "x".to_owned()))
            .collect()
    };
    let odd = ["a.b", "a-b", "_X"].map(|name| (name.to_owned(), "x".to_owned()));
    for (metadata, expected) in [
        (pairs(128), 204),
        (pairs(129), 400),
        (vec![("m".to_owned(), "x".repeat(64 * 1024))], 400),
        (odd.to_vec(), 204),
    ] {
        let body = push(&[(STREAM, vec![line_with(NOW, b"x", &metadata)])]);
        assert_eq!(status(&mut Loki::default(), &body), expected);
    }
}

#[test]
fn bodies_that_are_none() {
    let mut loki = Loki::default();
    let (status, text) = loki.push(PROTOBUF, &push(&[]), NOW);
    assert_eq!(status, 422);
    assert!(text.contains("at least one valid stream"), "{text}");
    for bad in [&b""[..], b"garbage", &[0xff; 100]] {
        assert_eq!(self::status(&mut loki, bad), 400);
    }
    assert_eq!(loki.push("text/plain", &one(NOW, "x"), NOW).0, 400);
    let raw = snap::raw::Encoder::new()
        .compress_vec(&[0x0a, 0x7f])
        .unwrap();
    assert_eq!(self::status(&mut loki, &raw), 400);
}

#[test]
fn a_request_that_is_too_large() {
    let mut loki = Loki::limited(Limits {
        request_bytes: 1000,
        ..Limits::default()
    });
    assert_eq!(status(&mut loki, &one(NOW, &"x".repeat(1000))), 413);
    assert_eq!(status(&mut loki, &one(NOW, &"x".repeat(500))), 204);
}

#[test]
fn nobody_in_particular() {
    let mut loki = Loki::limited(Limits {
        tenants: true,
        ..Limits::default()
    });
    let (status, text) = loki.push(PROTOBUF, &one(NOW, "x"), NOW);
    assert_eq!((status, text.as_str()), (401, "no org id"));
    assert_eq!(
        loki.push_as(Some("t"), PROTOBUF, &one(NOW, "x"), NOW).0,
        204
    );
}

#[test]
fn rates() {
    let kilobyte = one(NOW, &"x".repeat(1000));
    let mut rate = Loki::limited(Limits {
        rate_bytes: Some(1500),
        ..Limits::default()
    });
    assert_eq!(status(&mut rate, &kilobyte), 204);
    let (refused, text) = rate.push(PROTOBUF, &one(NOW, &"y".repeat(1000)), NOW);
    assert!(
        refused == 429 && text.contains("Ingestion rate limit"),
        "{text}"
    );
    rate.refill();
    assert_eq!(status(&mut rate, &kilobyte), 204);

    let mut stream = Loki::limited(Limits {
        stream_rate_bytes: Some(1500),
        ..Limits::default()
    });
    assert_eq!(status(&mut stream, &kilobyte), 204);
    let (refused, text) = stream.push(PROTOBUF, &one(NOW, &"y".repeat(1000)), NOW);
    assert!(
        refused == 429 && text.contains("Per stream rate limit"),
        "{text}"
    );
    let other = push(&[(r#"{job="b"}"#, vec![line(NOW, &[b'z'; 1000])])]);
    assert_eq!(status(&mut stream, &other), 204);

    let mut streams = Loki::limited(Limits {
        streams: 1,
        ..Limits::default()
    });
    assert_eq!(status(&mut streams, &kilobyte), 204);
    for _ in 0..2 {
        let (refused, text) = streams.push(PROTOBUF, &other, NOW);
        assert!(refused == 429 && text.contains("stream limit"), "{text}");
        streams.refill();
    }
}
