//! Resolves a request file into a lock, and with `fetch` downloads it: a try-out of this crate
//! without the command line of `imagegen`.
//!
//! `cargo run -p packages --example lock -- REQUEST.toml LOCK [fetch]`

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use packages::{Cache, Fetcher, Lock, Progress, Request};

struct Lines;

impl Progress for Lines {
    fn step(&self, what: &str) {
        eprintln!("{what}");
    }
    fn warning(&self, text: &str) {
        eprintln!("warning: {text}");
    }
}

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [request, lock, rest @ ..] = arguments.as_slice() else {
        return Err("REQUEST.toml LOCK [fetch]".into());
    };
    let request: Request = toml::from_str(&std::fs::read_to_string(request)?)?;
    let fetcher = Fetcher::new(Vec::new(), Cache::of_user()?, Arc::new(Lines));
    let start = Instant::now();
    let made = fetcher.resolve(&request)?;
    eprintln!(
        "{} packages, {} MB, in {:.2?}",
        made.packages.len(),
        made.download_size() / 1_000_000,
        start.elapsed()
    );
    made.save(Path::new(lock))?;
    if rest == ["fetch"] {
        let lock = Lock::load(Path::new(lock))?;
        let start = Instant::now();
        fetcher.fetch(&lock.packages.iter().collect::<Vec<_>>())?;
        eprintln!("downloaded in {:.2?}", start.elapsed());
    }
    Ok(())
}
