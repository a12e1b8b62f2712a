//! `make bench-cache`: our daemon with the settings of `configs/` beside nginx, one core each for the
//! server and the generator, same certificate, cipher and objects.
//!
//! `LARDER_BENCH_LINES`: only lines whose name holds one of these words (separated by commas);
//! `LARDER_BENCH_SECONDS`: of each measurement (default 2); `LARDER_BENCH_ROUNDS` (default 5);
//! `LARDER_BENCH_DIR`: where objects lie; `LARDER_BENCH_APPLIANCE`: another build of our daemon;
//! `LARDER_BENCH_SERVERS`: only servers whose name holds one of these words.
//!
//! Requests per CPU second of the whole tree of processes, servers in the order ABBA; median and
//! spread. A measurement counts only if the server kept its core at least 95 % busy and the
//! generator its own at most 90 %; a line with too few of them is INVALID. What is printed is what
//! `docs/benchmarks.md` holds.
#![allow(missing_docs)]

mod cores;
mod crowd;
mod data;
mod fill;
mod generator;
mod http1;
mod http2;
mod lines;
mod servers;
mod tls;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cores::Core;
use generator::Generator;
use lines::{LINES, Line, What};
use servers::Server;

/// The token of all requests.
pub(crate) const TOKEN: &str = "bench-0123456789abcdef0123456789abcdef0123456789abcdef";
/// Before each measurement.
const WARM: Duration = Duration::from_millis(300);
/// Least share of its core that a server must use, and most that the generator may.
const BUSY: f64 = 0.95;
const CALM: f64 = 0.90;

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    let set = std::env::var(name).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Whether a name holds one of the words of a setting, or there are none.
fn wanted(setting: &str, name: &str) -> bool {
    let words = std::env::var(setting).unwrap_or_default();
    words.is_empty() || words.split(',').any(|word| name.contains(word))
}

fn main() {
    let mut arguments = std::env::args();
    if arguments.any(|argument| argument == servers::UPSTREAM) {
        return servers::upstream(&arguments.next().unwrap_or_default());
    }
    let around = std::env::var_os("LARDER_BENCH_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    let root = around.join(format!("bench-cache-{}", std::process::id()));
    std::fs::create_dir_all(&root).expect("the folder of the benchmark");
    let root = root.canonicalize().expect("the folder of the benchmark");
    cores::pin(Core::Generator);
    let outcome = std::panic::catch_unwind(|| run(&root));
    let _ = std::fs::remove_dir_all(&root);
    if outcome.unwrap_or(1) > 0 {
        std::process::exit(1);
    }
}

/// Runs all lines; how many missed what must be.
fn run(root: &std::path::Path) -> usize {
    servers::journal();
    let credentials = servers::credentials(root);
    let files = root.join("files");
    let mut servers = vec![servers::ours(root, &root.join("cas"), &credentials)];
    for suite in ["trixie", "sid"] {
        servers.extend(servers::nginx(suite, root, &files, &credentials));
    }
    servers.retain(|server| wanted("LARDER_BENCH_SERVERS", &server.name));
    let lines: Vec<&Line> = LINES
        .iter()
        .filter(|line| wanted("LARDER_BENCH_LINES", line.name))
        .collect();
    for server in &servers {
        println!(
            "{}: process {}, {:.1} MiB",
            server.name,
            server.process(),
            server.memory()
        );
    }
    fill::all(&servers, &lines, &files);
    let mut missed = 0;
    for line in lines {
        missed += usize::from(!measure_line(line, &servers, root));
    }
    if wanted("LARDER_BENCH_LINES", "crowd") && servers.first().is_some_and(|first| first.is_ours) {
        drop(servers);
        missed += crowd::measure(root, &credentials);
    }
    missed
}

/// Requests per CPU second of one measurement, or why it does not count.
struct Measured {
    rate: f64,
    server: f64,
    generator: f64,
}

fn measure(line: &Line, server: &Server, round: u64) -> Measured {
    let time = Duration::from_secs_f64(setting("LARDER_BENCH_SECONDS", 2.0));
    let tls = tls::client(line.http2, line.what != What::Handshake(false));
    let mut generator = Generator::new(line.load(server, &tls, round)).expect("connections");
    generator.run(WARM).expect("the load");
    let (began, before, own) = (Instant::now(), server.cpu(), cores::own_cpu());
    let count = generator.run(time).expect("the load");
    let (wall, used) = (began.elapsed().as_secs_f64(), server.cpu() - before);
    let large = matches!(line.what, What::Hot(length) if length >= 100 << 20);
    // Of large objects few end in the time.
    let answers = match (large, line.what) {
        (true, What::Hot(length)) => count.bytes as f64 / length as f64,
        _ => count.answers as f64,
    };
    Measured {
        rate: answers / used,
        server: used / wall,
        generator: (cores::own_cpu() - own) / wall,
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures a line on all servers; whether what must be is.
fn measure_line(line: &Line, servers: &[Server], root: &std::path::Path) -> bool {
    let rounds: u64 = setting("LARDER_BENCH_ROUNDS", 5);
    let mut measured: Vec<Vec<Measured>> = servers.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        let order: Vec<usize> = match round % 2 {
            0 => (0..servers.len()).collect(),
            _ => (0..servers.len()).rev().collect(),
        };
        for at in order {
            measured[at].push(measure(line, &servers[at], round + 1));
            fill::forget_puts(root);
        }
    }
    let mut rates = Vec::new();
    for (server, measured) in servers.iter().zip(&measured) {
        let counts = |one: &&Measured| one.server >= BUSY && one.generator <= CALM;
        let valid = measured.iter().filter(counts).count();
        let mut all: Vec<f64> = measured.iter().map(|one| one.rate).collect();
        let middle = median(&mut all);
        let spread = (all[all.len() - 1] - all[0]) / middle * 100.0;
        let mean = |of: fn(&Measured) -> f64| {
            measured.iter().map(of).sum::<f64>() / measured.len() as f64 * 100.0
        };
        let word = if valid * 2 > measured.len() {
            ""
        } else {
            " INVALID"
        };
        println!(
            "{:24} {:34} {middle:10.1} requests/CPU s, spread {spread:4.1} %, server {:3.0} %, generator {:3.0} %{word}",
            line.name,
            server.name,
            mean(|one| one.server),
            mean(|one| one.generator),
        );
        rates.push(middle);
    }
    let (Some(first), Some(last)) = (servers.first(), servers.last()) else {
        return true;
    };
    if !first.is_ours || last.is_ours {
        return true;
    }
    let ratio = rates[0] / rates[rates.len() - 1];
    let Some((must, goal)) = line.aims else {
        println!("{:24} {ratio:.2} times {}", line.name, last.name);
        return true;
    };
    let verdict = match ratio {
        ratio if ratio >= goal => "goal",
        ratio if ratio >= must => "must",
        _ => "MISSED",
    };
    println!(
        "{:24} {ratio:.2} times {} (must {must}, goal {goal}): {verdict}",
        line.name, last.name
    );
    ratio >= must
}
