//! Scrapes: what a target says, and that it has said so.

use std::time::{Duration, Instant};

use super::cgroup::Units;
use super::host::Host;
use super::own::Own;
use super::process::Group;
use super::ring::Frame;
use super::sample::{Kind, STALE, Sink, Snapshot};
use super::secrets::Secrets;
use super::text;
use crate::http::Client;

/// Largest answer of a target in bytes.
const ANSWER: usize = 10 << 20;

/// What is scraped.
#[derive(Debug)]
pub enum Source {
    /// The machine, its units, and the shipper itself.
    Host(Host, Units, Box<Own>),
    /// Processes.
    Groups(Vec<Group>),
    /// A service that answers in Prometheus's text format.
    Http(Box<Client>),
}

/// A target and how often it is scraped.
#[derive(Debug)]
pub struct Target {
    /// Labels of all its samples: `instance`, `job` and constant ones.
    pub labels: Vec<(String, String)>,
    /// Time between two scrapes.
    pub interval: Duration,
    /// What it is.
    pub source: Source,
}

/// Scrapes a target.
#[derive(Debug)]
pub struct Scraper {
    target: Target,
    before: Snapshot,
    problem: String,
}

impl Scraper {
    /// A scraper that has not seen its target yet.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            before: Snapshot::default(),
            problem: String::new(),
        }
    }

    /// Time between two scrapes.
    pub fn interval(&self) -> Duration {
        self.target.interval
    }

    /// What was wrong with the target at the last scrape; empty: nothing.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// Scrapes at a time in ms since 1970. A target that fails is `up` 0, and all its series end.
    pub fn scrape(&mut self, time: i64) -> Frame {
        let begin = Instant::now();
        let mut snapshot = Snapshot::new(&self.target.labels);
        let outcome = self.collect(&mut snapshot);
        if outcome.is_err() {
            snapshot = Snapshot::new(&self.target.labels);
        }
        let samples = snapshot.len() as f64;
        snapshot.one("up", Kind::Gauge, f64::from(u8::from(outcome.is_ok())));
        let duration = begin.elapsed().as_secs_f64();
        snapshot.one("scrape_duration_seconds", Kind::Gauge, duration);
        snapshot.one("scrape_samples_scraped", Kind::Gauge, samples);
        self.problem = outcome.err().unwrap_or_default();
        snapshot.mark_ended(&self.before);
        let frame = Frame::new(time, &snapshot);
        self.before = snapshot;
        frame
    }

    /// Marks the end of all series, when nobody will scrape any more.
    pub fn end(&mut self, time: i64) -> Frame {
        let mut snapshot = Snapshot::default();
        for (labels, value) in self.before.series() {
            if value != STALE {
                snapshot.push(labels, STALE);
            }
        }
        self.before = Snapshot::default();
        Frame::new(time, &snapshot)
    }

    fn collect(&mut self, sink: &mut Snapshot) -> Result<(), String> {
        match &mut self.target.source {
            Source::Host(host, units, own) => {
                host.collect(sink);
                units.collect(sink);
                own.collect(sink);
                Secrets::default().collect(sink);
                Ok(())
            }
            Source::Groups(groups) => {
                for group in groups {
                    group.collect(sink);
                }
                Ok(())
            }
            Source::Http(client) => {
                let (status, body) = client.get(ANSWER)?;
                if status != 200 {
                    return Err(format!("the target answers with status {status}"));
                }
                let body = String::from_utf8(body).map_err(|_| "the answer is no text")?;
                text::parse(&body, sink).map(drop)
            }
        }
    }
}
