//! A pipeline: reading and sending, one step at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrets::redact::Redactor;

use super::answer::Verdict;
use super::batch::Batch;
use super::lines::{Labels, Streams};
use super::reader::{Context, Filled, Reader};
use super::state::{Keep, Memory};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::counters::LogCounters;
use crate::http::{Answer, Receiver};
use crate::journal::{Error, Journal};

/// How a pipeline works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Labels of its lines.
    pub labels: Labels,
    /// A batch is sent when its lines are this large, in bytes before compression.
    pub batch_bytes: usize,
    /// A batch is sent when its first line has waited this long.
    pub batch_age: Duration,
    /// Lines older than this are not sent: the receiver would refuse them.
    pub window: Duration,
    /// From the boot on, how long lines wait for the clock to be synchronized.
    pub patience_for_clock: Duration,
}

impl Settings {
    /// Sizes and times that suit Loki's default limits.
    pub fn new(labels: Labels) -> Self {
        Self {
            labels,
            batch_bytes: 1 << 20,
            batch_age: Duration::from_secs(1),
            // Loki's reject_old_samples_max_age is 168 h.
            window: Duration::from_secs(167 * 3600),
            patience_for_clock: Duration::from_secs(180),
        }
    }
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There may be more to do at once.
    Progress,
    /// The receiver, or the journal, cannot be used for this long.
    Wait(Duration),
    /// Nothing to do until the journal has more, at most for this long.
    Idle(Duration),
}

/// Time between two tries at what a person has to put right.
const BLOCKED: Duration = Duration::from_secs(60);
/// Time between two tries to open the journal.
const UNREADABLE: Duration = Duration::from_secs(5);
/// A journal without entries is opened again after this long: libsystemd does not notice the folder of
/// a namespace that is made later.
const EMPTY: Duration = Duration::from_secs(60);
/// Least time between two writes of the cursor.
const SAVE: Duration = Duration::from_secs(1);
/// Answers that are not understood in a row before the lines are given up.
const UNCLEAR: u32 = 5;
/// A batch is not made smaller than this, in bytes.
const SMALLEST: usize = 64 * 1024;

/// Ships one journal.
pub struct Pipeline<J, O, R, C, K> {
    settings: Settings,
    open: O,
    receiver: R,
    clock: C,
    keep: K,
    counters: Arc<LogCounters>,
    reader: Option<Reader<J>>,
    /// By the monotonic clock, when the journal was opened.
    opened: Duration,
    streams: Streams,
    redactor: Arc<Mutex<Redactor>>,
    /// What the receiver has acknowledged.
    memory: Memory,
    /// What will be acknowledged with the batch.
    next: Memory,
    /// By the monotonic clock, when the memory was kept last; and whether it is another since.
    saved: Option<Duration>,
    dirty: bool,
    batch: Batch,
    /// By the monotonic clock, when the batch got its first line.
    begun: Duration,
    /// The batch is to be sent.
    ready: bool,
    /// Lines of it that are acknowledged, and most lines of one request.
    sent: usize,
    portion: usize,
    raw: Vec<u8>,
    /// The request; empty: to be encoded.
    body: Vec<u8>,
    backoff: Backoff,
    unclear: u32,
}

impl<J, O, R: std::fmt::Debug, C, K> std::fmt::Debug for Pipeline<J, O, R, C, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("receiver", &self.receiver)
            .finish_non_exhaustive()
    }
}

impl<J, O, R, C, K> Pipeline<J, O, R, C, K>
where
    J: Journal,
    O: FnMut() -> Result<J, Error>,
    R: Receiver,
    C: Clock,
    K: Keep,
{
    /// A pipeline that goes on where the last one left off.
    pub fn new(
        settings: Settings,
        open: O,
        receiver: R,
        clock: C,
        mut keep: K,
        counters: Arc<LogCounters>,
    ) -> Self {
        let memory = keep.load();
        Self {
            streams: Streams::new(settings.labels.clone()),
            settings,
            open,
            receiver,
            clock,
            keep,
            counters,
            reader: None,
            opened: Duration::ZERO,
            redactor: Arc::default(),
            next: memory.clone(),
            memory,
            saved: None,
            dirty: false,
            batch: Batch::default(),
            begun: Duration::ZERO,
            ready: false,
            sent: 0,
            portion: usize::MAX,
            raw: Vec::new(),
            body: Vec::new(),
            backoff: Backoff::default(),
            unclear: 0,
        }
    }

    /// What blots secrets out. Entries are read under its lock: what is set there is true for all that
    /// are read from then on.
    pub fn redactor(&self) -> Arc<Mutex<Redactor>> {
        Arc::clone(&self.redactor)
    }

    /// Where it ships to.
    pub fn receiver(&mut self) -> &mut R {
        &mut self.receiver
    }

    /// Reads, or sends once. With `flush`, a batch is sent as it is.
    pub fn step(&mut self, flush: bool) -> Step {
        if !self.ready {
            match self.fill(flush) {
                Ok(None) => {}
                Ok(Some(step)) => return step,
                Err(error) => {
                    self.counters.read_errors.add(1);
                    self.problem(&error.to_string());
                    self.abandon();
                    return Step::Wait(UNREADABLE);
                }
            }
        }
        self.send()
    }

    /// Waits until the journal has more.
    pub fn wait(&mut self, patience: Duration) {
        let waited = self.reader.as_mut().map(|reader| reader.wait(patience));
        if let Some(Err(error)) = waited {
            self.counters.read_errors.add(1);
            self.problem(&error.to_string());
            self.abandon();
        }
    }

    /// Keeps what is acknowledged, if it is not yet.
    pub fn save(&mut self) {
        if !self.dirty {
            return;
        }
        self.saved = Some(self.clock.monotonic());
        match self.keep.save(&self.memory) {
            Ok(()) => self.dirty = false,
            // Shipping goes on: after a restart lines come twice, and Loki stores them once.
            Err(error) => self.problem(&format!("cannot keep the cursor: {error}")),
        }
    }

    fn save_now_and_then(&mut self) {
        let now = self.clock.monotonic();
        if self
            .saved
            .is_none_or(|saved| now.saturating_sub(saved) >= SAVE)
        {
            self.save();
        }
    }

    /// Forgets what was read and not acknowledged; it is read again.
    fn abandon(&mut self) {
        self.reader = None;
        self.next = self.memory.clone();
        self.clear();
    }

    fn clear(&mut self) {
        self.batch.clear();
        self.body.clear();
        self.ready = false;
        self.sent = 0;
        self.portion = usize::MAX;
        self.unclear = 0;
    }

    fn problem(&self, text: &str) {
        if self.counters.problem() != text {
            log::warn!("{text}");
            self.counters.set_problem(text);
        }
    }

    /// Reads into the batch. `None`: it is to be sent.
    fn fill(&mut self, flush: bool) -> Result<Option<Step>, Error> {
        let mut redactor = self.redactor.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => {
                let journal = (self.open)()?;
                self.opened = self.clock.monotonic();
                let boot = self.clock.boot();
                let reader = Reader::new(journal, &self.memory, boot, &mut redactor)?;
                self.reader.insert(reader)
            }
        };
        let was_empty = self.batch.is_empty();
        let filled = reader.fill(&mut Context {
            settings: &self.settings,
            clock: &self.clock,
            streams: &mut self.streams,
            redactor: &mut redactor,
            counters: &self.counters,
            memory: &mut self.next,
            batch: &mut self.batch,
        })?;
        drop(redactor);
        if self.memory.first != self.next.first {
            // From now on, what goes missing is counted.
            self.memory.first.clone_from(&self.next.first);
            self.dirty = true;
            self.save();
        }
        let reader = match &self.reader {
            Some(reader) => reader,
            None => return Ok(Some(Step::Progress)),
        };
        let ahead_ends = reader.is_ahead() && filled != Filled::Full;
        let now = self.clock.monotonic();
        let reopen = reader.is_new() && now.saturating_sub(self.opened) >= EMPTY;
        if self.batch.is_empty() {
            if filled == Filled::AtEnd {
                self.counters.oldest.set(0);
            }
            if self.next != self.memory {
                // Entries that are too old to be sent.
                self.memory = self.next.clone();
                self.dirty = true;
            }
            self.save_now_and_then();
            if ahead_ends {
                self.reader = None;
                return Ok(Some(Step::Progress));
            }
            if reopen {
                self.reader = None;
            }
            return Ok(Some(Step::Idle(SAVE)));
        }
        if was_empty {
            self.begun = now;
        }
        let age = now.saturating_sub(self.begun);
        if filled == Filled::AtEnd && age < self.settings.batch_age && !flush && !ahead_ends {
            return Ok(Some(Step::Idle(self.settings.batch_age - age)));
        }
        if ahead_ends {
            // What is older comes next.
            self.reader = None;
        }
        self.ready = true;
        Ok(None)
    }

    /// Sends (a part of) the batch once.
    fn send(&mut self) -> Step {
        let end = self.sent.saturating_add(self.portion).min(self.batch.len());
        let lines = self.sent..end;
        if self.body.is_empty() {
            self.batch
                .encode(lines.clone(), &self.streams, &mut self.raw, &mut self.body);
        }
        let answer = self.receiver.push(&self.body);
        let entries = self.batch.entries(lines.clone());
        match Verdict::of(&answer) {
            Verdict::Stored => {
                self.counters.requests.add("stored", 1);
                self.counters.shipped.add(entries);
                self.acknowledged(end)
            }
            Verdict::Refused(reason, count) => {
                let lost = count.unwrap_or(entries).min(entries);
                self.counters.requests.add("refused", 1);
                self.counters.dropped.add(reason, lost);
                self.counters.shipped.add(entries - lost);
                log::warn!(
                    "the receiver of logs refused {lost} of {entries} lines: {}",
                    answer.words()
                );
                self.acknowledged(end)
            }
            Verdict::TooLarge if lines.len() == 1 => {
                self.counters.requests.add("too large", 1);
                self.counters.dropped.add("too large", entries);
                self.acknowledged(end)
            }
            Verdict::TooLarge => {
                self.counters.requests.add("too large", 1);
                self.portion = lines.len().div_ceil(2);
                self.settings.batch_bytes = (self.settings.batch_bytes / 2).max(SMALLEST);
                self.body.clear();
                Step::Progress
            }
            Verdict::TooManyStreams if !self.streams.collapsed => {
                self.counters.requests.add("too many streams", 1);
                log::warn!(
                    "the receiver of logs has too many streams; units share one from now on"
                );
                self.abandon();
                self.streams.collapse();
                Step::Wait(self.backoff.next(None))
            }
            Verdict::TooManyStreams => self.later("too many streams", &answer, None),
            Verdict::Unclear if self.unclear >= UNCLEAR => {
                self.counters.requests.add("refused", 1);
                self.counters.dropped.add("rejected", entries);
                log::error!(
                    "the receiver of logs rejected {entries} lines: {}",
                    answer.words()
                );
                self.acknowledged(end)
            }
            Verdict::Unclear => {
                self.unclear += 1;
                self.later("not understood", &answer, None)
            }
            Verdict::Later(reason, after) => self.later(reason, &answer, after),
            Verdict::Blocked(reason) => {
                self.counters.requests.add(reason, 1);
                self.problem(&format!("logs are not taken: {reason}: {}", answer.words()));
                Step::Wait(BLOCKED)
            }
        }
    }

    fn later(&mut self, reason: &'static str, answer: &Answer, after: Option<Duration>) -> Step {
        self.counters.requests.add(reason, 1);
        self.problem(&format!("logs wait: {reason}: {}", answer.words()));
        Step::Wait(self.backoff.next(after))
    }

    /// The lines before `end` are done with.
    fn acknowledged(&mut self, end: usize) -> Step {
        self.counters.bytes.add(self.body.len() as u64);
        self.backoff.reset();
        self.unclear = 0;
        self.body.clear();
        self.sent = end;
        if self.sent == self.batch.len() {
            self.clear();
            // Forgotten, they would come again in the streams of all others, behind newer lines.
            let ahead = self.memory.ahead != self.next.ahead;
            self.memory = self.next.clone();
            self.dirty = true;
            if ahead {
                self.save();
            }
            self.save_now_and_then();
        }
        if !self.counters.problem().is_empty() {
            log::info!("logs are taken again");
            self.counters.set_problem("");
        }
        Step::Progress
    }
}
