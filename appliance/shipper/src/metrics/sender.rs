//! Sending of frames: oldest first, nothing twice unless it may have been lost, and no frame that
//! blocks all others.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::ring::{Frame, Ring};
use super::second::{self, Knowledge};
use crate::backoff::Backoff;
use crate::counters::MetricCounters;
use crate::http::{Answer, Receiver};

/// Time between two tries at what a person has to put right.
const BLOCKED: Duration = Duration::from_secs(60);
/// A receiver that fails this often in a row at one frame may not like something in it.
const FAILURES: u32 = 8;
/// Most bytes of frames in memory, when the disk takes none.
const MEMORY: usize = 4 << 20;
/// Most series that are left out of all frames, and most bytes of their file.
const QUARANTINE: usize = 1000;

/// What an answer means for the frame.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    /// Later, because of the network, the rate, or the receiver's own trouble.
    Later(&'static str, Option<Duration>),
    /// A person has to put it right.
    Blocked(&'static str),
    /// The time of the samples is not to the receiver's liking, and never will be.
    Untimely(&'static str),
    /// Something in the frame is wrong.
    Wrong,
}

impl Verdict {
    /// By the observed behaviour of receivers (facts/logs-and-metrics.md 5.2).
    fn of(answer: &Answer) -> Self {
        let (status, text) = match answer {
            Answer::Failure(_) => return Self::Later("network", None),
            Answer::Response { status, text, .. } => (*status, text.as_str()),
        };
        match status {
            // A login page says 200, too.
            200..=299 if !text.trim_start().starts_with('<') => Self::Taken,
            200..=299 => Self::Blocked("not a receiver of metrics"),
            300..=399 => Self::Blocked("redirected"),
            400 if text.trim_start().starts_with('<') => Self::Blocked("not a receiver of metrics"),
            400 => {
                let untimely = [
                    ("out of order", "out of order"),
                    ("out of bounds", "out of bounds"),
                    ("too far in the future", "in the future"),
                    ("too old", "too old"),
                    ("duplicate sample", "duplicate"),
                ];
                match untimely.iter().find(|(words, _)| text.contains(words)) {
                    Some((_, reason)) => Self::Untimely(reason),
                    None => Self::Wrong,
                }
            }
            401 | 403 => Self::Blocked("credentials refused"),
            413 | 422 => Self::Wrong,
            408 | 425 => Self::Later("time-out", answer.retry_after()),
            429 => Self::Later("rate limited", answer.retry_after()),
            500..=599 => Self::Later("receiver failed", answer.retry_after()),
            _ => Self::Blocked("not a receiver of metrics"),
        }
    }
}

/// What came of a request of remote write 2.0.
enum Second {
    /// The receiver says that it has written all of it.
    Written,
    /// This, which says nothing about what the receiver understands.
    Answer(Answer),
    /// It does not understand it, or was not asked.
    Unknown,
}

/// Sends frames.
#[derive(Debug)]
pub struct Sender<R> {
    receiver: R,
    /// Frames that wait for longer; `None`: there is no place for them.
    ring: Option<Ring>,
    /// The file of series that the receiver cannot take.
    quarantine: Option<PathBuf>,
    /// Newest frames, behind those of the ring.
    queue: VecDeque<Frame>,
    poison: HashSet<u64>,
    counters: Arc<MetricCounters>,
    backoff: Backoff,
    /// Failures of the receiver, not of the network, at the first frame.
    failures: u32,
    /// By the monotonic clock.
    not_before: Duration,
    /// Whether the receiver understands remote write 2.0.
    second: Knowledge,
}

impl<R: Receiver> Sender<R> {
    /// A sender; frames that are in the ring go first.
    pub fn new(
        receiver: R,
        ring: Option<Ring>,
        quarantine: Option<PathBuf>,
        counters: Arc<MetricCounters>,
    ) -> Self {
        Self {
            receiver,
            ring,
            quarantine,
            queue: VecDeque::new(),
            poison: HashSet::new(),
            counters,
            backoff: Backoff::default(),
            failures: 0,
            not_before: Duration::ZERO,
            second: Knowledge::default(),
        }
    }

    /// Takes a frame that is newer than all before.
    pub fn offer(&mut self, frame: Frame) {
        self.queue.push_back(self.without_poison(frame));
        if self.ring.as_ref().is_some_and(|ring| !ring.is_empty()) {
            self.store();
        }
        let mut bytes: usize = self.queue.iter().map(|frame| frame.body.len()).sum();
        while bytes > MEMORY
            && let Some(frame) = self.queue.pop_front()
        {
            bytes -= frame.body.len();
            self.counters
                .dropped
                .add("no room", frame.series().len() as u64);
        }
        self.tell();
    }

    /// Sends until all is sent or the receiver has to be left alone. `now` is by the monotonic
    /// clock, `wall` in ms since 1970. Returns how long to wait, if there is something to send.
    pub fn step(&mut self, now: Duration, wall: i64) -> Option<Duration> {
        if now < self.not_before {
            return (!self.is_empty()).then(|| self.not_before - now);
        }
        let wait = loop {
            let (frame, stored) = match self.ring.as_mut().and_then(|ring| ring.front(wall)) {
                Some(frame) => (frame, true),
                None => match self.queue.front() {
                    Some(frame) => (frame.clone(), false),
                    None => break None,
                },
            };
            if let Some(wait) = self.send(&frame, now) {
                // Others may be worth more than what is in memory.
                self.store();
                self.not_before = now + wait;
                break Some(wait);
            }
            match &mut self.ring {
                Some(ring) if stored => ring.remove_oldest(),
                _ => drop(self.queue.pop_front()),
            }
        };
        self.tell();
        wait
    }

    /// Forgets how long the receiver was to be left alone.
    pub fn hurry(&mut self) {
        self.not_before = Duration::ZERO;
    }

    /// Writes everything that waits to disk.
    pub fn store(&mut self) {
        let Some(ring) = &mut self.ring else {
            return;
        };
        while let Some(frame) = self.queue.front() {
            if let Err(error) = ring.push(frame) {
                self.problem(&format!("cannot keep metrics that wait: {error}"));
                return;
            }
            self.queue.pop_front();
        }
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.ring.as_ref().is_none_or(Ring::is_empty)
    }

    fn tell(&mut self) {
        let ring = self.ring.as_mut();
        let lost = ring.map_or(0, Ring::take_lost);
        self.counters.dropped.add("waited too long (frames)", lost);
        let ring = self.ring.as_ref();
        let frames = ring.map_or(0, Ring::len) + self.queue.len();
        self.counters.waiting_frames.set(frames as i64);
        self.counters
            .waiting_bytes
            .set(ring.map_or(0, Ring::bytes) as i64);
        let oldest = ring
            .and_then(Ring::oldest)
            .or(self.queue.front().map(|frame| frame.time));
        self.counters.oldest.set(oldest.unwrap_or(0));
    }

    /// Sends a frame. `None`: it is done with; else how long to wait.
    fn send(&mut self, frame: &Frame, now: Duration) -> Option<Duration> {
        let answer = match self.send_second(frame, now) {
            Second::Written => return None,
            Second::Answer(answer) => answer,
            Second::Unknown => self.receiver.push(&frame.body),
        };
        match Verdict::of(&answer) {
            Verdict::Taken => {
                let series = count_series(frame);
                self.taken(series, frame.body.len());
                None
            }
            Verdict::Untimely(reason) => {
                self.counters.requests.add("refused", 1);
                self.counters.dropped.add(reason, count_series(frame));
                self.problem(&format!("metrics are refused: {}", answer.words()));
                None
            }
            Verdict::Wrong => self.isolate(frame, &frame.series(), &answer),
            Verdict::Blocked(reason) => {
                self.counters.requests.add(reason, 1);
                self.problem(&format!(
                    "metrics are not taken: {reason}: {}",
                    answer.words()
                ));
                Some(BLOCKED)
            }
            Verdict::Later(reason, after) => {
                self.counters.requests.add(reason, 1);
                self.problem(&format!("metrics wait: {reason}: {}", answer.words()));
                self.failures += u32::from(matches!(answer, Answer::Response { status: 500, .. }));
                if self.failures >= FAILURES {
                    self.failures = 0;
                    return self.isolate(frame, &frame.series(), &answer);
                }
                Some(self.backoff.next(after))
            }
        }
    }

    /// Sends a frame by remote write 2.0, if the receiver may understand that. If it does not, the frame
    /// is to be sent by 1.0; a sample that comes twice is taken as the same.
    fn send_second(&mut self, frame: &Frame, now: Duration) -> Second {
        if !self.second.worth_a_try(now) {
            return Second::Unknown;
        }
        let Some((body, samples)) = second::request(&frame.series()) else {
            return Second::Unknown;
        };
        let Some((answer, written)) = self.receiver.push_second(&body) else {
            return Second::Unknown;
        };
        match &answer {
            Answer::Failure(_) => Second::Answer(answer),
            Answer::Response {
                status: 200..=299, ..
            } if written.is_some_and(|written| written >= samples) => {
                self.second = Knowledge::Proved;
                self.taken(samples, body.len());
                Second::Written
            }
            Answer::Response {
                status: 429 | 500..,
                ..
            } if self.second == Knowledge::Proved => Second::Answer(answer),
            Answer::Response { .. } => {
                self.second = Knowledge::Refused(now);
                Second::Unknown
            }
        }
    }

    fn taken(&mut self, samples: u64, bytes: usize) {
        self.counters.requests.add("stored", 1);
        self.counters.samples.add(samples);
        self.counters.bytes.add(bytes as u64);
        self.failures = 0;
        self.backoff.reset();
        self.set_problem("");
    }

    /// Sends the series of a frame in ever smaller parts, until the one that the receiver cannot
    /// take is alone; that one is put aside. `None`: the frame is done with.
    fn isolate(&mut self, frame: &Frame, series: &[Vec<u8>], why: &Answer) -> Option<Duration> {
        if let [one] = series {
            self.put_aside(one, why);
            return None;
        }
        // A damaged frame has none.
        let (first, second) = series.split_at(series.len() / 2);
        for part in [first, second] {
            if part.is_empty() {
                continue;
            }
            let part_frame = Frame::of_request(frame.time, &part.concat());
            let answer = self.receiver.push(&part_frame.body);
            match Verdict::of(&answer) {
                Verdict::Taken => self.taken(part.len() as u64, part_frame.body.len()),
                Verdict::Untimely(reason) => self.counters.dropped.add(reason, part.len() as u64),
                Verdict::Wrong => {
                    if let Some(wait) = self.isolate(frame, part, &answer) {
                        return Some(wait);
                    }
                }
                Verdict::Later(_, _) if matches!(answer, Answer::Response { status: 500, .. }) => {
                    if let Some(wait) = self.isolate(frame, part, &answer) {
                        return Some(wait);
                    }
                }
                // The whole frame again: what was taken is taken as the same once more.
                Verdict::Later(_, after) => return Some(self.backoff.next(after)),
                Verdict::Blocked(_) => return Some(BLOCKED),
            }
        }
        None
    }

    fn put_aside(&mut self, series: &[u8], why: &Answer) {
        self.counters.quarantined.add(1);
        self.counters.dropped.add("quarantined", 1);
        self.problem(&format!("a series is put aside: {}", why.words()));
        if self.poison.len() >= QUARANTINE {
            return;
        }
        if let Some(key) = key(series)
            && self.poison.insert(key)
            && let Some(path) = &self.quarantine
        {
            let text = String::from_utf8_lossy(series).replace(|c: char| c.is_control(), " ");
            let line = format!("{text} | {}\n", why.words());
            let written = std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .and_then(|mut file| file.write_all(line.as_bytes()));
            if let Err(error) = written {
                log::warn!("cannot write {}: {error}", path.display());
            }
        }
    }

    /// The frame without the series that are put aside.
    fn without_poison(&self, frame: Frame) -> Frame {
        if self.poison.is_empty() {
            return frame;
        }
        let mut series = frame.series();
        let before = series.len();
        series.retain(|one| key(one).is_none_or(|key| !self.poison.contains(&key)));
        if series.len() == before {
            return frame;
        }
        self.counters
            .dropped
            .add("quarantined", (before - series.len()) as u64);
        Frame::of_request(frame.time, &series.concat())
    }

    fn set_problem(&self, text: &str) -> bool {
        let mut problem = self
            .counters
            .problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let new = *problem != text;
        if new {
            text.clone_into(&mut problem);
        }
        new
    }

    fn problem(&self, text: &str) {
        if self.set_problem(text) {
            log::warn!("{text}");
        }
    }
}

fn count_series(frame: &Frame) -> u64 {
    frame.series().len() as u64
}

/// What tells a series: its bytes but for the sample, which is the last field (two bytes of head
/// and at most 20 of value).
fn key(series: &[u8]) -> Option<u64> {
    // The sample is a double (9 bytes), the tag of its time and that time; its length is in front.
    let end = (12..32).find(|back| {
        let at = series.len().wrapping_sub(*back);
        series.get(at) == Some(&0x12)
            && series
                .get(at + 1)
                .is_some_and(|length| usize::from(*length) + 2 == *back)
            && series.get(at + 2) == Some(&0x09)
    })?;
    // The head holds the length of all, which the time may change.
    let start = 2 + series.get(1..)?.iter().position(|byte| byte & 0x80 == 0)?;
    let mut hasher = DefaultHasher::new();
    series.get(start..series.len() - end)?.hash(&mut hasher);
    Some(hasher.finish())
}
