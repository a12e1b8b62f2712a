//! The threads of a volume, so that no executor ever waits for a disk.
//!
//! | thread | does |
//! |---|---|
//! | writer | takes what waits and appends it: what waits meanwhile is the next batch |
//! | syncer | makes the log durable twice a second, or as soon as somebody waits for that: what is appended during one fdatasync is answered after the next |
//! | keeper | a spare segment, eviction, scrub, checkpoints |

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{Done, Volume, Work, lock};
use crate::Error;
use crate::disk::Flush;
use crate::settings::Durability;

/// Most works, and about most bytes, that are appended at a time.
const BATCH: usize = 256;
const BATCH_BYTES: u64 = 4 << 20;
/// Between two syncs: with the sync itself, what was answered is durable within a second.
const SYNC_EVERY: Duration = Duration::from_millis(400);
const KEEP_EVERY: Duration = Duration::from_millis(500);
/// How long a sync waits for those whom the last one answered: they mostly come back at once, and one
/// sync for all costs half of two.
const GATHER: Duration = Duration::from_micros(200);

type Answer = oneshot::Sender<Result<Done, Error>>;

#[derive(Debug, Default)]
struct Queue {
    works: VecDeque<(Work, Answer)>,
    stop: bool,
}

#[derive(Debug, Default)]
struct Signal {
    state: Mutex<(bool, bool)>,
    wake: Condvar,
}

impl Signal {
    /// Waits until it is rung, or so long; `false`: the end.
    fn wait(&self, timeout: Duration) -> bool {
        let state = lock(&self.state);
        let waited = self
            .wake
            .wait_timeout_while(state, timeout, |(rung, stop)| !*rung && !*stop);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.0 = false;
        !state.1
    }

    fn ring(&self, stop: bool) {
        let mut state = lock(&self.state);
        state.0 = true;
        state.1 |= stop;
        self.wake.notify_all();
    }
}

/// A volume and its threads; they end with [`Threads::stop`], or when this is dropped, after a last
/// sync and checkpoint.
#[derive(Debug)]
pub(crate) struct Threads {
    pub(crate) volume: Arc<Volume>,
    shared: Arc<Shared>,
    /// Whether there are threads, or all is done by whoever asks.
    threads: bool,
    joins: Mutex<Vec<JoinHandle<()>>>,
}

/// Answers that wait for the next sync.
#[derive(Debug)]
struct Waiting {
    answers: Answers,
    /// Failed syncs before the works were appended.
    failures: u64,
}

#[derive(Debug, Default)]
struct Shared {
    /// Of whoever opened the store: answers are given there.
    runtime: Option<Handle>,
    queue: Mutex<Queue>,
    work: Condvar,
    /// What was appended and is answered after the next sync.
    waiting: Mutex<Vec<Waiting>>,
    syncer: Signal,
    keeper: Signal,
}

impl Shared {
    /// How many answers wait for a sync.
    fn waiting(&self) -> usize {
        let waiting = lock(&self.waiting);
        waiting.iter().map(|one| one.answers.len()).sum()
    }
}

impl Threads {
    /// Starts the threads; without them (in tests that decide themselves what happens when) works
    /// are done by whoever submits them.
    pub(crate) fn start(volume: Arc<Volume>, threads: bool) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            runtime: Handle::try_current().ok().filter(|_| threads),
            ..Shared::default()
        });
        let this = Self {
            volume,
            shared,
            threads,
            joins: Mutex::default(),
        };
        if threads {
            this.spawn("store-writer", write)?;
            this.spawn("store-syncer", keep_durable)?;
            this.spawn("store-keeper", keep)?;
        } else {
            this.volume.recover_rest();
        }
        Ok(this)
    }

    fn spawn(&self, name: &str, run: fn(&Volume, &Shared)) -> std::io::Result<()> {
        let (volume, shared) = (Arc::clone(&self.volume), Arc::clone(&self.shared));
        let builder = std::thread::Builder::new().name(name.into());
        let join = builder.spawn(move || run(&volume, &shared))?;
        lock(&self.joins).push(join);
        Ok(())
    }

    /// Appends a work: the answer comes when it is done.
    pub(crate) fn submit(&self, work: Work) -> oneshot::Receiver<Result<Done, Error>> {
        let (answer, receiver) = oneshot::channel();
        if !self.threads {
            append(&self.volume, &self.shared, vec![(work, answer)]);
            if self.volume.settings.durability == Durability::Ack {
                sync(&self.volume, &self.shared);
            }
            return receiver;
        }
        let mut queue = lock(&self.shared.queue);
        // Dropped at the end: the receiver then says that it was interrupted.
        if !queue.stop {
            queue.works.push_back((work, answer));
            if queue.works.len() == 1 {
                self.shared.work.notify_one();
            }
        }
        receiver
    }
}

impl Threads {
    /// Ends the threads, after a last sync and checkpoint; waits for that.
    pub(crate) fn stop(&self) {
        end(&self.shared, std::mem::take(&mut *lock(&self.joins)));
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let joins = std::mem::take(&mut *lock(&self.joins));
        if joins.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        // Whoever drops it may be a thread that must not wait.
        let ending = std::thread::Builder::new().name("store-ending".into());
        if let Err(error) = ending.spawn(move || end(&shared, joins)) {
            log::error!("cannot end the store's threads: {error}; the next start recovers");
        }
    }
}

/// Tells threads to end, in an order in which nothing is lost, and waits for them.
fn end(shared: &Shared, joins: Vec<JoinHandle<()>>) {
    lock(&shared.queue).stop = true;
    shared.work.notify_all();
    for join in joins {
        // One that panicked has said so.
        let _ = join.join();
        // The first was the writer: the others go on for as long as it appends.
        shared.syncer.ring(true);
        shared.keeper.ring(true);
    }
}

/// Appends works, after eviction has made room if they need a new segment.
fn append(volume: &Volume, shared: &Shared, works: Vec<(Work, Answer)>) {
    let (works, answers): (Vec<Work>, Vec<Answer>) = works.into_iter().unzip();
    let bytes: u64 = works.iter().map(Work::bytes).sum();
    let outcomes = if volume.needs_segment(bytes) {
        volume.make_room(volume.segment_bytes).err()
    } else {
        None
    };
    let failures = volume.counters.sync_errors.get();
    let outcomes = match outcomes {
        None => volume.append(&works),
        Some(error) => works.iter().map(|_| Err(error.again())).collect(),
    };
    let answers = answers.into_iter().zip(outcomes);
    if volume.settings.durability == Durability::Ack {
        let answers = answers.collect();
        lock(&shared.waiting).push(Waiting { answers, failures });
        shared.syncer.ring(false);
    } else {
        answer(shared, answers.collect());
    }
}

type Answers = Vec<(Answer, Result<Done, Error>)>;

fn answer(shared: &Shared, answers: Answers) {
    let send = |answers: Answers| {
        for (answer, outcome) in answers {
            // Nobody waits any more for an upload that was given up meanwhile.
            let _ = answer.send(outcome);
        }
    };
    match &shared.runtime {
        // To wake a task from outside of its runtime takes a system call; one for all.
        Some(runtime) if answers.len() > 1 => drop(runtime.spawn(async move { send(answers) })),
        _ => send(answers),
    }
}

/// Makes the log durable, and answers those who wait for it; how many did.
fn sync(volume: &Volume, shared: &Shared) -> usize {
    let waiting = std::mem::take(&mut *lock(&shared.waiting));
    let count = waiting.iter().map(|one| one.answers.len()).sum();
    let synced = volume.sync(Flush::Records);
    for Waiting { answers, failures } in waiting {
        // Somebody else's sync may have failed, and taken back what was appended.
        let failed = match &synced {
            Err(error) => Some(error.again()),
            Ok(()) if volume.counters.sync_errors.get() == failures => None,
            Ok(()) => Some(Error::Unusable {
                reason: volume
                    .trouble()
                    .unwrap_or_else(|| "an fsync failed".to_owned()),
            }),
        };
        let outcomes = answers.into_iter().map(|(answer, outcome)| {
            let outcome = match (&failed, outcome) {
                (Some(error), Ok(_)) => Err(error.again()),
                (_, outcome) => outcome,
            };
            (answer, outcome)
        });
        answer(shared, outcomes.collect());
    }
    count
}

fn write(volume: &Volume, shared: &Shared) {
    loop {
        let mut queue = lock(&shared.queue);
        while queue.works.is_empty() && !queue.stop {
            queue = shared
                .work
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if queue.works.is_empty() {
            return;
        }
        let mut bytes = 0;
        let take = queue
            .works
            .iter()
            .take(BATCH)
            .take_while(|(work, _)| {
                let first = bytes == 0;
                bytes += work.bytes();
                first || bytes <= BATCH_BYTES
            })
            .count();
        let batch = queue.works.drain(..take).collect();
        drop(queue);
        append(volume, shared, batch);
        if !volume.has_spare() {
            shared.keeper.ring(false);
        }
    }
}

fn keep_durable(volume: &Volume, shared: &Shared) {
    let mut answered = 0;
    loop {
        let goes_on = shared.syncer.wait(SYNC_EVERY);
        let until = Instant::now() + GATHER;
        while goes_on
            && (1..answered).contains(&shared.waiting())
            && let left = until.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            shared.syncer.wait(left);
        }
        // The status says why if it fails.
        answered = sync(volume, shared);
        if !goes_on {
            return;
        }
    }
}

fn keep(volume: &Volume, shared: &Shared) {
    volume.recover_rest();
    let settings = &volume.settings;
    let mut checkpointed = Instant::now();
    let mut scrubbed = Instant::now();
    while shared.keeper.wait(KEEP_EVERY) {
        volume.advance(0);
        if !volume.has_spare() && volume.trouble().is_none() {
            volume.make_spare();
        }
        if let Err(error) = volume.evict_aged() {
            log::error!("{error}");
        }
        let elapsed = scrubbed.elapsed();
        if elapsed >= Duration::from_secs(1) && settings.scrub_bytes_per_second > 0 {
            scrubbed = Instant::now();
            let seconds = elapsed.as_secs_f64().min(10.0);
            volume.scrub((settings.scrub_bytes_per_second as f64 * seconds) as u64);
        }
        if checkpointed.elapsed() >= settings.checkpoint_every {
            checkpointed = Instant::now();
            if let Err(error) = volume.checkpoint() {
                log::error!("{error}");
            }
        }
    }
    if let Err(error) = volume.checkpoint() {
        log::error!("{error}");
    }
}

impl Volume {
    fn has_spare(&self) -> bool {
        lock(&self.log).spare.is_some()
    }

    /// Makes room for a segment, and the segment, before it is needed.
    fn make_spare(&self) {
        if self.make_room(self.segment_bytes).is_err() {
            return;
        }
        let id = {
            let mut log = lock(&self.log);
            log.next_id += 1;
            log.next_id - 1
        };
        // An error is noted; the writer will have it too.
        let Ok(spare) = self.note(self.make_segment(id)) else {
            return;
        };
        let mut log = lock(&self.log);
        let newest = log.open.as_ref().map_or(0, |open| open.segment.header.id);
        let newest = newest.max(log.closing.last().map_or(0, |open| open.segment.header.id));
        // Ids only grow; if the writer was faster, this one is of no use.
        if id > newest && log.spare.is_none() {
            log.spare = Some(spare);
        } else {
            drop(log);
            let _ = self.disk.unlink(&spare.path);
        }
    }
}
