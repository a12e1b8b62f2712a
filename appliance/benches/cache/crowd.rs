//! Many connections that do little: memory, and whether others are still served.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::data::{self, Object};
use crate::generator::{Generator, Load, Request};
use crate::servers::{self, Server};
use crate::{fill, lines, tls};

const KIB: usize = 1024;
/// What a fresh request asks for.
const FRESH: Object = Object {
    number: 1,
    length: 8 * KIB,
};
/// What stalled streams and greedy downloads ask for.
const LARGE: Object = Object {
    number: 2,
    length: 1024 * KIB,
};
const CONNECTIONS: usize = 1000;
const STREAMS: usize = 100;

fn load(server: &Server, account: &'static str, object: Object, http2: bool) -> Load {
    Load {
        address: server.https,
        tls: Some(tls::client(http2, true)),
        http2,
        reads: true,
        connections: 1,
        depth: 1,
        requests: Box::new(move || lines::get(lines::cas_of(account, &object.id()), Some(object))),
    }
}

fn put(server: &Server, account: &'static str, object: Object) {
    let body = Arc::new(data::bytes(object));
    let digest = lines::hex(&data::digest(&body));
    let request = move || Request {
        path: lines::cas_of(account, &object.id()),
        ..lines::put(true, &object.id(), &body, &digest)
    };
    fill::once(server, Box::new(request), 1);
}

/// Says what did not hold; 1 then.
fn holds(what: &str, holds: bool) -> usize {
    if !holds {
        println!("MISSED: {what}");
    }
    usize::from(!holds)
}

/// Measures all of it on a daemon of its own; how much missed what must be.
pub(crate) fn measure(root: &Path, credentials: &Path) -> usize {
    let server = servers::ours(root, &root.join("cas-crowd"), credentials);
    for account in ["acme", "other"] {
        put(&server, account, FRESH);
        put(&server, account, LARGE);
    }
    idle(&server) + stalled(&server) + fairness(&server)
}

fn idle(server: &Server) -> usize {
    let before = server.memory();
    let connections = Load {
        connections: CONNECTIONS,
        ..load(server, "acme", FRESH, true)
    };
    let mut generator = Generator::new(connections).expect("connections");
    generator
        .run_until(|count, _| count.handshakes >= CONNECTIONS as u64)
        .expect("handshakes");
    generator.pause();
    generator.run(Duration::from_secs(1)).expect("the load");
    let used = server.memory() - before;
    println!("{CONNECTIONS} idle TLS connections: {used:.1} MiB (at most 100)");
    holds("memory of idle connections", used <= 100.0)
}

fn stalled(server: &Server) -> usize {
    let before = server.memory();
    let connections = Load {
        connections: CONNECTIONS,
        depth: STREAMS,
        reads: false,
        // Some may be refused: there is no memory for them.
        requests: Box::new(|| Request {
            status: 0,
            ..lines::get(lines::cas_of("acme", &LARGE.id()), None)
        }),
        ..load(server, "acme", LARGE, true)
    };
    let mut generator = Generator::new(connections).expect("connections");
    // As far as windows go.
    generator.run(Duration::from_secs(8)).expect("the load");
    let used = server.memory() - before;
    let each = used * 1024.0 * 1024.0 / (CONNECTIONS * STREAMS) as f64;
    println!(
        "{CONNECTIONS} connections with {STREAMS} stalled streams each: {used:.1} MiB (at most 512), {each:.0} bytes a stream"
    );
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let began = Instant::now();
        let mut fresh = Generator::new(load(server, "other", FRESH, false)).expect("a connection");
        fresh
            .run_until(|count, _| count.answers > 0)
            .expect("an answer");
        slowest = slowest.max(began.elapsed());
    }
    let slowest = slowest.as_secs_f64() * 1e3;
    println!(
        "fresh 8 KiB beside them, slowest of 20, handshake included: {slowest:.1} ms (at most 100)"
    );
    holds("memory of stalled streams", used <= 512.0)
        + holds("a fresh request beside stalled streams", slowest <= 100.0)
}

/// p99 in ms of small answers of one account, one after another.
fn p99(server: &Server) -> f64 {
    let mut generator = Generator::new(load(server, "other", FRESH, false)).expect("a connection");
    let mut times = Vec::new();
    for answers in 1..=400 {
        let began = Instant::now();
        let before = generator.shared.count.answers;
        generator
            .run_until(|count, _| count.answers > before)
            .expect("an answer");
        if answers > 20 {
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    times[times.len() * 99 / 100]
}

fn fairness(server: &Server) -> usize {
    // Both are beside 200 downloads: of another account of equal rights, or of their own.
    let crowd = |account| Load {
        connections: 200,
        ..load(server, account, LARGE, false)
    };
    let alone = p99(server);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let greedy = crowd("acme");
    let beside = std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut generator = Generator::new(greedy).expect("connections");
            let ended = std::sync::mpsc::TryRecvError::Disconnected;
            generator
                .run_until(|_, _| stopped.try_recv() == Err(ended))
                .expect("the load");
        });
        std::thread::sleep(Duration::from_secs(1));
        let beside = p99(server);
        drop(stop);
        beside
    });
    println!(
        "8 KiB p99: {alone:.2} ms alone, {beside:.2} ms beside 200 downloads of another account (at most three times; the generator shares its core)"
    );
    holds("fairness", beside <= 3.0 * alone)
}
