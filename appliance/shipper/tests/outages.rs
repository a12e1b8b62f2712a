//! Outages and refusals, with real journal files and a clock that the test moves: what arrives in the
//! end, what is counted, and how often a receiver is asked meanwhile.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use receiver_double::{Loki, Reply, Server, remote_write};
use shipper::clock::Clock;
use shipper::counters::{LogCounters, MetricCounters};
use shipper::journal::{Files, Place};
use shipper::logs::Step;
use shipper::metrics::{Frame, Kind, Ring, Sender, Sink, Snapshot};
use support::client;
use support::journal::{
    FilesPipeline, TestClock, export, export_from, journal_remote, pipeline, pipeline_of, write,
};

const MINUTE: Duration = Duration::from_secs(60);

fn text(at: u64) -> Vec<u8> {
    format!("line {at}").into_bytes()
}

/// Loki, whose answer to request number `n` may be replaced by `instead`.
fn loki_with(
    clock: &TestClock,
    instead: impl Fn(usize) -> Option<Reply> + Send + Sync + 'static,
) -> (Arc<Mutex<Loki>>, Arc<AtomicUsize>, Server) {
    let (loki, requests): (Arc<Mutex<Loki>>, Arc<AtomicUsize>) = Default::default();
    let (shared, counted, clock) = (Arc::clone(&loki), Arc::clone(&requests), clock.clone());
    let server = Server::start(move |request| {
        if let Some(reply) = instead(counted.fetch_add(1, Ordering::SeqCst)) {
            return reply;
        }
        let content = request.header("content-type").unwrap_or_default();
        let mut loki = shared.lock().unwrap();
        let (status, text) = loki.push(content, &request.body, clock.now());
        Reply::status(status, text)
    });
    (loki, requests, server)
}

/// Steps until there is nothing left to ship.
fn finish(pipeline: &mut FilesPipeline, clock: &TestClock) {
    let mut idle = 0;
    for _ in 0..100_000 {
        idle = if step(pipeline, clock, true) {
            idle + 1
        } else {
            0
        };
        // New files are looked for by waiting.
        if idle == 2 {
            return pipeline.save();
        }
    }
    panic!("it never comes to rest");
}

/// One step, with the waiting that it asks for; whether there was nothing to do.
fn step(pipeline: &mut FilesPipeline, clock: &TestClock, flush: bool) -> bool {
    match pipeline.step(flush) {
        Step::Progress => false,
        Step::Wait(wait) => {
            clock.pass(wait);
            false
        }
        Step::Idle(wait) => {
            clock.pass(wait.max(Duration::from_millis(1)));
            pipeline.wait(Duration::ZERO);
            true
        }
    }
}

fn numbers(loki: &Mutex<Loki>) -> Vec<u64> {
    let loki = loki.lock().unwrap();
    let number = |text: &str| {
        text.strip_prefix("line ")
            .map(|number| number.parse().unwrap())
    };
    let mut numbers: Vec<u64> = loki.lines().filter_map(|line| number(&line.text)).collect();
    numbers.sort_unstable();
    numbers
}

/// 100 lines, an answer instead of Loki's to the first requests; gives what is counted.
fn shipped_in_spite_of(
    instead: impl Fn(usize) -> Option<Reply> + Send + Sync + 'static,
    prepare: impl FnOnce(&mut Loki),
) -> Option<(Arc<LogCounters>, Vec<u64>, Duration)> {
    let remote = journal_remote()?;
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    std::fs::create_dir(&journal).unwrap();
    write(&remote, &journal.join("a.journal"), &export(0..100, text));
    let clock = TestClock::new();
    let (loki, _, server) = loki_with(&clock, instead);
    prepare(&mut loki.lock().unwrap());
    let counters = Arc::default();
    let keep = folder.path().join("cursor");
    finish(
        &mut pipeline(&journal, &keep, &server, &clock, 1 << 20, &counters),
        &clock,
    );
    let numbers = numbers(&loki);
    Some((counters, numbers, clock.passed()))
}

fn all() -> Vec<u64> {
    (0..100).collect()
}

#[test]
fn what_can_be_put_right_costs_nothing_but_time() {
    let answers = [
        (Reply::Drop, "network"),
        (
            Reply::status(429, "Ingestion rate limit exceeded"),
            "rate limited",
        ),
        (Reply::status(500, ""), "receiver failed"),
        (Reply::status(503, ""), "receiver failed"),
        (Reply::status(408, ""), "time-out"),
        (Reply::status(401, "no org id"), "credentials refused"),
        (Reply::status(403, ""), "credentials refused"),
        (Reply::status(404, ""), "not a receiver of logs"),
        (Reply::status(200, "<html>log in"), "not a receiver of logs"),
        (
            Reply::Answer(
                302,
                vec!["Location: http://127.0.0.1:1/".into()],
                String::new(),
            ),
            "redirected",
        ),
        (Reply::status(400, "<html>bad gateway"), "not understood"),
    ];
    for (answer, outcome) in answers {
        let reply = answer.clone();
        let instead = move |request| (request < 3).then(|| reply.clone());
        let Some((counters, numbers, passed)) = shipped_in_spite_of(instead, |_| {}) else {
            return;
        };
        assert_eq!(numbers, all(), "{answer:?}");
        assert_eq!(
            (counters.shipped.get(), counters.dropped.total()),
            (100, 0),
            "{answer:?}"
        );
        assert!(
            counters.requests.all().contains(&(outcome, 3)),
            "{answer:?}: {:?}",
            counters.requests
        );
        assert!(
            passed > Duration::from_millis(700),
            "{answer:?}: {passed:?}"
        );
        assert_eq!(counters.problem(), "");
    }
}

#[test]
fn retry_after_is_heeded() {
    let reply = Reply::Answer(429, vec!["Retry-After: 77".into()], String::new());
    let instead = move |request| (request == 0).then(|| reply.clone());
    if let Some((_, numbers, passed)) = shipped_in_spite_of(instead, |_| {}) {
        assert_eq!(numbers, all());
        // And two looks, a second apart, that find nothing more.
        assert!((77..80).contains(&passed.as_secs()), "{passed:?}");
    }
}

#[test]
fn what_is_refused_for_ever_is_counted_and_the_rest_goes_on() {
    let never = |_: usize| None;
    let Some((counters, numbers, _)) = shipped_in_spite_of(never, |loki| loki.refuse_next(4))
    else {
        return;
    };
    assert_eq!(
        (counters.shipped.get(), counters.dropped.all()),
        (75, vec![("too far behind", 25)])
    );
    assert_eq!(numbers.len(), 75);

    let invalid = |request| (request == 0).then(|| Reply::status(422, "at least one valid stream"));
    let (counters, numbers, _) = shipped_in_spite_of(invalid, |_| {}).unwrap();
    assert_eq!(
        (numbers.len(), counters.dropped.all()),
        (0, vec![("invalid", 100)])
    );

    // Words that are not Loki's: tried some times more, then given up.
    let garbage = |_: usize| Some(Reply::status(400, "no"));
    let (counters, _, passed) = shipped_in_spite_of(garbage, |_| {}).unwrap();
    assert_eq!(counters.dropped.all(), vec![("rejected", 100)]);
    assert!(passed > Duration::from_secs(5), "{passed:?}");
}

#[test]
fn what_is_too_large_is_split() {
    let never = |_: usize| None;
    let prepare = |loki: &mut Loki| loki.limits.request_bytes = 700;
    if let Some((counters, numbers, _)) = shipped_in_spite_of(never, prepare) {
        assert_eq!(numbers, all());
        assert_eq!(counters.dropped.total(), 0);
        assert!(
            counters
                .requests
                .all()
                .iter()
                .any(|(outcome, _)| *outcome == "too large")
        );
    }
    // A line that is too large alone is given up.
    let prepare = |loki: &mut Loki| loki.limits.request_bytes = 10;
    if let Some((counters, _, _)) = shipped_in_spite_of(never, prepare) {
        assert_eq!(counters.dropped.all(), vec![("too large", 100)]);
    }
}

#[test]
fn too_many_streams_become_one() {
    let prepare = |loki: &mut Loki| loki.limits.streams = 2;
    if let Some((counters, numbers, _)) = shipped_in_spite_of(|_| None, prepare) {
        assert_eq!(numbers, all());
        assert_eq!((counters.shipped.get(), counters.dropped.total()), (100, 0));
    }
}

#[test]
fn ten_minutes_without_a_receiver() {
    let Some(remote) = journal_remote() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    std::fs::create_dir(&journal).unwrap();
    let clock = TestClock::new();
    let outage = 10 * MINUTE;
    let now = clock.clone();
    let (loki, requests, server) = loki_with(&clock, move |_| {
        (now.passed() < outage).then_some(Reply::Drop)
    });
    let counters = Arc::default();
    let keep = folder.path().join("cursor");
    let mut shipper = pipeline(&journal, &keep, &server, &clock, 1 << 20, &counters);
    let start = (clock.now() / 1000) as u64;
    // A rotated file of lines a minute, while nothing gets through.
    for minute in 0..10 {
        let lines = minute * 1000..(minute + 1) * 1000;
        let file = journal.join(format!("a@{minute}.journal"));
        write(
            &remote,
            &file,
            &export_from(start + minute * 60_000_000, lines, text),
        );
        let end = MINUTE * (minute as u32 + 1);
        while clock.passed() < end {
            step(&mut shipper, &clock, false);
        }
    }
    let asked = requests.load(Ordering::SeqCst);
    assert!((10..60).contains(&asked), "{asked} requests in ten minutes");
    assert!(shipper_is_behind(&counters) && counters.problem().contains("network"));
    finish(&mut shipper, &clock);
    assert!(
        numbers(&loki) == (0..10_000).collect::<Vec<_>>(),
        "lines are missing"
    );
    assert_eq!(
        (counters.dropped.total(), counters.lost_to_vacuum.get()),
        (0, 0)
    );
    assert_eq!(loki.lock().unwrap().refused, 0);
    assert!(!shipper_is_behind(&counters) && counters.problem().is_empty());
    for lines in loki.lock().unwrap().streams.values() {
        assert!(lines.is_sorted_by_key(|line| line.time), "out of order");
    }
}

fn shipper_is_behind(counters: &LogCounters) -> bool {
    counters.oldest.get() != 0
}

#[test]
fn ten_minutes_of_metrics_without_a_receiver() {
    let folder = tempfile::tempdir().unwrap();
    let times: Arc<Mutex<Vec<i64>>> = Arc::default();
    let clock = TestClock::new();
    let (log, now) = (Arc::clone(&times), clock.clone());
    let server = Server::start(move |request| {
        if now.passed() < 10 * MINUTE {
            return Reply::Drop;
        }
        let series = remote_write::decode(&request.body).unwrap();
        log.lock()
            .unwrap()
            .extend(series.iter().map(|series| series.samples[0].1));
        Reply::status(204, "")
    });
    let counters = Arc::new(MetricCounters::default());
    let ring = Ring::open(folder.path().join("ring"), 1 << 20, 24 * 3_600_000).unwrap();
    let receiver = client(&server.url("/"));
    let mut sender = Sender::new(receiver, Some(ring), None, Arc::clone(&counters));
    let mut scraped = Vec::new();
    for _ in 0..25 {
        let time = clock.now() / 1_000_000;
        let mut snapshot = Snapshot::new(&[("job".into(), "node".into())]);
        snapshot.one("x", Kind::Gauge, 1.0);
        sender.offer(Frame::new(time, &snapshot));
        scraped.push(time);
        let end = clock.passed() + Duration::from_secs(30);
        while clock.passed() < end {
            let wait = sender.step(clock.monotonic(), clock.now() / 1_000_000);
            let left = end - clock.passed();
            clock.pass(wait.unwrap_or(left).min(left));
        }
    }
    assert_eq!(*times.lock().unwrap(), scraped);
    assert_eq!(
        (counters.dropped.total(), counters.waiting_frames.get()),
        (0, 0)
    );
}

#[test]
fn a_journal_that_comes_to_be_later_is_found() {
    let Some(remote) = journal_remote() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let [empty, journal] = ["empty", "journal"].map(|name| folder.path().join(name));
    std::fs::create_dir(&empty).unwrap();
    std::fs::create_dir(&journal).unwrap();
    let clock = TestClock::new();
    let (loki, _, server) = loki_with(&clock, |_| None);
    let counters = Arc::default();
    // The folder of a namespace: not there when it is opened for the first time.
    let mut opened = 0;
    let open = Box::new(move || {
        opened += 1;
        let folder = if opened == 1 { &empty } else { &journal };
        Files::open(Place::Folder(folder.clone()))
    });
    let keep = folder.path().join("cursor");
    let mut shipper = pipeline_of(open, &keep, &server, &clock, 1 << 20, &counters);
    finish(&mut shipper, &clock);
    write(
        &remote,
        &folder.path().join("journal/a.journal"),
        &export(0..10, text),
    );
    while numbers(&loki).is_empty() {
        assert!(clock.passed() < 3 * MINUTE, "it is not found");
        step(&mut shipper, &clock, false);
    }
    assert_eq!(numbers(&loki), (0..10).collect::<Vec<_>>());
}

/// What may happen while a journal of files is shipped.
#[derive(Clone, Copy, Debug)]
enum Action {
    /// Lines come, in a new file: the one before was rotated.
    Rotate(u8),
    Steps(u8),
    /// The next requests fail, or are answered and the answer is lost.
    Outage(u8),
    LostAnswer,
    RateLimited,
    /// One line in so many is refused for ever.
    Partial(u8),
    /// Killed and started again.
    Kill,
}

fn actions() -> impl proptest::strategy::Strategy<Value = Vec<Action>> {
    use proptest::prelude::*;
    let action = prop_oneof![
        3 => (1u8..60).prop_map(Action::Rotate),
        5 => (1u8..12).prop_map(Action::Steps),
        1 => (1u8..6).prop_map(Action::Outage),
        1 => Just(Action::LostAnswer),
        1 => Just(Action::RateLimited),
        1 => (2u8..6).prop_map(Action::Partial),
        2 => Just(Action::Kill),
    ];
    proptest::collection::vec(action, 1..25)
}

fn any_sequence(remote: &Path, actions: Vec<Action>) {
    let folder = tempfile::tempdir().unwrap();
    let (journal, keep) = (folder.path().join("journal"), folder.path().join("cursor"));
    std::fs::create_dir(&journal).unwrap();
    let clock = TestClock::new();
    let replies: Arc<Mutex<Vec<Option<Reply>>>> = Arc::default();
    let next = Arc::clone(&replies);
    // Stored, but nobody hears of it.
    let lost: Arc<Mutex<Loki>> = Arc::default();
    let (kept, now) = (Arc::clone(&lost), clock.clone());
    let server = Server::start(move |request| {
        let instead = next.lock().unwrap().pop();
        if let Some(Some(reply)) = instead {
            return reply;
        }
        let mut loki = kept.lock().unwrap();
        let content = request.header("content-type").unwrap_or_default();
        let (status, text) = loki.push(content, &request.body, now.now());
        if instead.is_some() {
            Reply::Drop
        } else {
            Reply::status(status, text)
        }
    });
    let counters = Arc::default();
    let start = || pipeline(&journal, &keep, &server, &clock, 500, &counters);
    let mut shipper = start();
    let begin = (clock.now() / 1000) as u64 - 1_000_000;
    let mut written = 0;
    let mut files = 0;
    for action in actions {
        let mut replies = replies.lock().unwrap();
        match action {
            Action::Outage(count) => replies.extend(vec![Some(Reply::Drop); count.into()]),
            Action::LostAnswer => replies.push(None),
            Action::RateLimited => replies.push(Some(Reply::status(429, "rate"))),
            Action::Partial(every) => lost.lock().unwrap().refuse_next(every.into()),
            Action::Kill => shipper = start(),
            Action::Rotate(lines) => {
                let range = written..written + u64::from(lines);
                written = range.end;
                files += 1;
                let file = journal.join(format!("a@{files}.journal"));
                write(remote, &file, &export_from(begin, range, text));
            }
            Action::Steps(count) => {
                drop(replies);
                for _ in 0..count {
                    step(&mut shipper, &clock, false);
                }
            }
        }
    }
    replies.lock().unwrap().clear();
    shipper = start();
    finish(&mut shipper, &clock);
    let arrived: BTreeSet<u64> = numbers(&lost).into_iter().collect();
    let missing = written - arrived.len() as u64;
    assert_eq!(missing as usize, lost.lock().unwrap().unwanted());
    let counted = counters.dropped.total();
    assert!(
        missing <= counted,
        "{missing} of {written} missing, {counted} counted"
    );
    assert_eq!(counters.lost_to_vacuum.get(), 0);
    for (labels, lines) in &lost.lock().unwrap().streams {
        let mut seen = BTreeSet::new();
        let first = lines.iter().filter(|line| seen.insert(&line.text));
        let order: Vec<u64> = first
            .filter_map(|line| line.text.strip_prefix("line ")?.parse().ok())
            .collect();
        assert!(order.is_sorted(), "out of order in {labels}: {order:?}");
    }
}

fn cases() -> proptest::prelude::ProptestConfig {
    proptest::prelude::ProptestConfig {
        // Each one starts a program for each file.
        max_shrink_iters: 100,
        failure_persistence: None,
        ..proptest::prelude::ProptestConfig::with_cases(24)
    }
}

proptest::proptest! {
    #![proptest_config(cases())]
    #[test]
    fn any_sequence_with_real_files_delivers_or_counts(actions in actions()) {
        if let Some(remote) = journal_remote() {
            any_sequence(&remote, actions);
        }
    }
}
