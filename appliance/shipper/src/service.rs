//! The service: a thread for each journal, one that scrapes, one that sends metrics.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{
    Receiver as Frames, RecvTimeoutError, SyncSender, TrySendError, sync_channel,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use secrets::fingerprint::{Fingerprint, Key};
use secrets::redact::Redactor;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, SystemClock};
use crate::counters::{LogCounters, MetricCounters};
use crate::journal::{Files, Journal, Place};
use crate::logs::{Keep, KeepFile, Pipeline, Settings as LogSettings, Step};
use crate::metrics::{Frame, Ring, Scraper, Sender, Target};
use crate::receivers::{Current, Receivers, Shared};
use crate::stop::{Alive, Stop};

/// Longest time that is spent on sending what is left when the service stops.
const LAST: Duration = Duration::from_secs(5);
/// Frames between scraping and sending.
const FRAMES: usize = 64;
/// A thread without a sign of life for this long hangs: longer than a request and its parts take.
const HANGS: Duration = Duration::from_secs(300);
/// Longest wait in the journal, within which a stop is noticed.
const NOTICE: Duration = Duration::from_millis(500);
/// Why no journal is read.
const HELD: &str = "logs wait until it is known which secrets to blot out of them; is larder-secrets.service running?";
/// Bytes and age (in ms) of metrics that wait on disk.
const RING: (u64, i64) = (64 << 20, 24 * 3600 * 1000);
/// How long metrics wait for the clock, counted from the boot.
const PATIENCE_FOR_CLOCK: Duration = Duration::from_secs(180);

/// A journal to be shipped.
#[derive(Clone, Debug)]
pub struct LogSource {
    /// Its name in metrics and status.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// How it is shipped.
    pub settings: LogSettings,
    /// What it counts.
    pub counters: Arc<LogCounters>,
}

/// Everything that the service is told.
#[derive(Debug)]
pub struct Settings {
    /// Folder for cursors and waiting metrics.
    pub state: PathBuf,
    /// Journals.
    pub logs: Vec<LogSource>,
    /// Targets.
    pub metrics: Vec<Target>,
    /// Where they go; see [`Service::receive`].
    pub receivers: Receivers,
    /// No journal is read before [`Service::blot`] has said what not to ship.
    pub hold: bool,
    /// What the pipeline of metrics counts.
    pub counters: Arc<MetricCounters>,
}

/// How the service is, for people.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// When this was true, in s since 1970.
    pub time: i64,
    /// Journals.
    pub logs: Vec<LogStatus>,
    /// Metrics.
    pub metrics: MetricStatus,
}

/// How one journal is shipped.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LogStatus {
    /// Its name.
    pub journal: String,
    /// Whether there is a receiver.
    pub configured: bool,
    /// Entries that the receiver acknowledged since the start.
    pub shipped: u64,
    /// Entries that are lost: dropped, or removed before they were shipped.
    pub lost: u64,
    /// Age of the oldest entry that is not acknowledged in s.
    pub behind_seconds: u64,
    /// What is wrong; empty: nothing.
    pub problem: String,
}

/// How metrics are sent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MetricStatus {
    /// Whether there is a receiver.
    pub configured: bool,
    /// Samples that the receiver took since the start.
    pub samples: u64,
    /// Samples that are lost.
    pub lost: u64,
    /// Scrapes that wait.
    pub waiting: u64,
    /// What is wrong; empty: nothing.
    pub problem: String,
}

/// The running service.
#[derive(Debug)]
pub struct Service {
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
    alive: Vec<(String, Alive)>,
    redactors: Vec<Arc<Mutex<Redactor>>>,
    hold: Arc<AtomicBool>,
    logs: Vec<(String, Arc<LogCounters>)>,
    metrics: Arc<MetricCounters>,
    to_logs: Shared,
    to_metrics: Shared,
}

impl Service {
    /// Starts all threads.
    ///
    /// # Errors
    ///
    /// The kernel refuses what they need.
    pub fn start(settings: Settings, stop: Stop) -> std::io::Result<Self> {
        let mut service = Self {
            stop: stop.clone(),
            threads: Vec::new(),
            alive: Vec::new(),
            redactors: Vec::new(),
            hold: Arc::new(AtomicBool::new(settings.hold)),
            logs: Vec::new(),
            metrics: Arc::clone(&settings.counters),
            to_logs: Shared::new(settings.receivers.logs),
            to_metrics: Shared::new(settings.receivers.metrics),
        };
        for source in settings.logs {
            let counters = Arc::clone(&source.counters);
            service
                .logs
                .push((source.name.clone(), Arc::clone(&counters)));
            let keep = KeepFile(settings.state.join(format!("cursor-{}.json", source.name)));
            let place = source.place;
            let mut pipeline = Pipeline::new(
                source.settings,
                move || Files::open(place.clone()),
                Current::new(service.to_logs.clone()),
                SystemClock::new(),
                keep,
                source.counters,
            );
            service.redactors.push(pipeline.redactor());
            let (stop, alive, hold) = (stop.clone(), Alive::new(), Arc::clone(&service.hold));
            let name = format!("logs-{}", source.name);
            service.spawn(&name, alive.clone(), move || {
                ship(&mut pipeline, &counters, &hold, &stop, &alive);
            })?;
        }
        let (sender, frames) = sync_channel(FRAMES);
        let counters = settings.counters;
        let (stopped, alive, lost) = (stop.clone(), Alive::new(), Arc::clone(&counters));
        let (targets, to) = (settings.metrics, service.to_metrics.clone());
        service.spawn("scrapes", alive.clone(), move || {
            scrape(targets, &to, &sender, &lost, &stopped, &alive);
        })?;
        let ring = Ring::open(settings.state.join("metrics"), RING.0, RING.1);
        let ring = ring
            .inspect_err(|error| log::error!("metrics cannot wait on disk: {error}"))
            .ok();
        let quarantine = settings.state.join("quarantined-series");
        let receiver = Current::new(service.to_metrics.clone());
        let sender = Sender::new(receiver, ring, Some(quarantine), counters);
        let alive = Alive::new();
        service.spawn("metrics", alive.clone(), move || {
            send(sender, &frames, &stop, &alive);
        })?;
        Ok(service)
    }

    /// Logs and metrics go there from now on; whoever waits for a receiver tries at once.
    pub fn receive(&self, receivers: Receivers) {
        self.to_logs.set(receivers.logs);
        self.to_metrics.set(receivers.metrics);
        self.stop.hurry();
    }

    fn spawn(
        &mut self,
        name: &str,
        alive: Alive,
        work: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        self.threads
            .push(std::thread::Builder::new().name(name.into()).spawn(work)?);
        self.alive.push((name.into(), alive));
        Ok(())
    }

    /// Everything that is read once this has returned is free of these secrets.
    pub fn blot(&self, key: &Key, fingerprints: &[Fingerprint]) {
        for redactor in &self.redactors {
            let mut redactor = redactor.lock().unwrap_or_else(PoisonError::into_inner);
            redactor.set(key, fingerprints);
        }
        if self.hold.swap(false, Ordering::SeqCst) {
            self.stop.hurry();
        }
    }

    /// A thread that hangs or has ended, if there is one.
    pub fn hangs(&self) -> Option<&str> {
        let mut threads = self.alive.iter().zip(&self.threads);
        let hanging = threads.find(|((_, alive), thread)| {
            alive.ago() > HANGS || (thread.is_finished() && !self.stop.is_stopping())
        });
        hanging.map(|((name, _), _)| name.as_str())
    }

    /// How it is.
    pub fn status(&self) -> Status {
        let now = SystemClock::new().now() / 1000;
        let logs = self.logs.iter().map(|(name, counters)| {
            let oldest = counters.oldest.get();
            let behind = if oldest == 0 {
                0
            } else {
                (now - oldest).max(0) as u64 / 1_000_000
            };
            LogStatus {
                journal: name.clone(),
                configured: self.to_logs.is_configured(),
                shipped: counters.shipped.get(),
                lost: counters.dropped.total() + counters.lost_to_vacuum.get(),
                behind_seconds: behind,
                problem: counters.problem(),
            }
        });
        let metrics = &self.metrics;
        let problem = metrics
            .problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Status {
            time: now / 1_000_000,
            logs: logs.collect(),
            metrics: MetricStatus {
                configured: self.to_metrics.is_configured(),
                samples: metrics.samples.get(),
                lost: metrics.dropped.total(),
                waiting: metrics.waiting_frames.get().max(0) as u64,
                problem,
            },
        }
    }

    /// Waits for all threads after a stop.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("a thread of the shipper panicked");
            }
        }
    }
}

/// Ships a journal until the service stops.
fn ship<J, O, C, K>(
    pipeline: &mut Pipeline<J, O, Current, C, K>,
    counters: &LogCounters,
    hold: &AtomicBool,
    stop: &Stop,
    alive: &Alive,
) where
    J: Journal,
    O: FnMut() -> Result<J, crate::journal::Error>,
    C: Clock,
    K: Keep,
{
    let mut waited = false;
    while !stop.is_stopping() {
        alive.show();
        if let Err(why) = may_ship(pipeline, hold) {
            counters.set_problem(&why);
            waited = true;
            stop.wait(LAST, alive);
            continue;
        }
        if std::mem::take(&mut waited) {
            counters.set_problem("");
        }
        match pipeline.step(false) {
            Step::Progress => {}
            Step::Wait(wait) => drop(stop.wait(wait, alive)),
            Step::Idle(patience) => pipeline.wait(patience.min(NOTICE)),
        }
    }
    let end = Instant::now() + LAST;
    while may_ship(pipeline, hold).is_ok()
        && Instant::now() < end
        && pipeline.step(true) == Step::Progress
    {}
    pipeline.save();
}

/// Whether a journal may be read. An error says why not; it is empty if that is as it should be.
fn may_ship<J, O, C, K>(
    pipeline: &mut Pipeline<J, O, Current, C, K>,
    hold: &AtomicBool,
) -> Result<(), String>
where
    J: Journal,
    O: FnMut() -> Result<J, crate::journal::Error>,
    C: Clock,
    K: Keep,
{
    match pipeline.receiver().ready() {
        Ok(false) => Err(String::new()),
        Ok(true) if hold.load(Ordering::SeqCst) => Err(HELD.into()),
        Ok(true) => Ok(()),
        Err(error) => Err(error),
    }
}

fn milliseconds() -> i64 {
    SystemClock::new().now() / 1_000_000
}

/// Scrapes all targets, each at its interval, until the service stops.
fn scrape(
    targets: Vec<Target>,
    to: &Shared,
    frames: &SyncSender<Frame>,
    counters: &MetricCounters,
    stop: &Stop,
    alive: &Alive,
) {
    let give = |frame: Frame| {
        if let Err(TrySendError::Full(_)) = frames.try_send(frame) {
            counters.dropped.add("sender hangs (frames)", 1);
        }
    };
    // Samples with a wrong time would be refused, or spoil what comes later.
    let clock = SystemClock::new();
    while !clock.synchronized() && clock.monotonic() < PATIENCE_FOR_CLOCK && !stop.is_stopping() {
        stop.wait(Duration::from_secs(1), alive);
    }
    let mut scrapers: Vec<(Instant, Scraper)> = targets
        .into_iter()
        .map(|target| (Instant::now(), Scraper::new(target)))
        .collect();
    while !stop.is_stopping() && !scrapers.is_empty() {
        if !to.is_configured() {
            stop.wait(LAST, alive);
            continue;
        }
        for (due, scraper) in &mut scrapers {
            let now = Instant::now();
            if *due <= now {
                alive.show();
                let before = scraper.problem().to_owned();
                give(scraper.scrape(milliseconds()));
                if !scraper.problem().is_empty() && scraper.problem() != before {
                    log::warn!("a target of metrics fails: {}", scraper.problem());
                }
                // After a pause (a suspended machine) nothing is made up for.
                *due = (*due + scraper.interval()).max(now);
            }
        }
        let next = scrapers.iter().map(|(due, _)| *due).min();
        let wait = next.map_or(LAST, |due| due.saturating_duration_since(Instant::now()));
        stop.wait(wait, alive);
    }
    if !to.is_configured() {
        return;
    }
    for (_, scraper) in &mut scrapers {
        give(scraper.end(milliseconds()));
    }
}

/// Sends frames until there will be no more.
fn send(mut sender: Sender<Current>, frames: &Frames<Frame>, stop: &Stop, alive: &Alive) {
    let clock = SystemClock::new();
    let mut wait = Duration::ZERO;
    let mut hurries = stop.hurries();
    loop {
        alive.show();
        if hurries != stop.hurries() {
            hurries = stop.hurries();
            sender.hurry();
        }
        match frames.recv_timeout(wait) {
            Ok(frame) => sender.offer(frame),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let next = sender.step(clock.monotonic(), milliseconds());
        wait = next.unwrap_or(LAST).min(LAST);
        if stop.is_stopping() {
            wait = wait.min(NOTICE);
        }
    }
    sender.hurry();
    // One last try; what is left waits on disk.
    sender.step(clock.monotonic(), milliseconds());
    sender.store();
}
