//! The reading half of a pipeline: where to begin, what is missing, and which time a line gets.

use std::time::Duration;

use secrets::redact::Redactor;

use super::lines::Streams;
use super::state::{Ahead, Memory};
use super::{batch::Batch, pipeline::Settings};
use crate::clock::Clock;
use crate::counters::LogCounters;
use crate::journal::{Cursor, Entry, Error, Id128, Journal, Stamp};

/// Most lines from the end of an ended boot that go ahead of older ones.
const AHEAD: usize = 500;
/// Entries before the cursor that the redactor sees again after a start, in case that a secret
/// goes on behind it.
const WARM_UP: usize = 64;
/// Difference between a line's time and the repaired one from which on it is re-stamped, in µs.
const WRONG_CLOCK: i64 = 10_000_000;
/// A line may be this much older than the newest of its stream, in ns; Loki takes an hour.
const BEHIND: i64 = 30 * 60 * 1_000_000_000;
/// A line may be this far in the future, in ns; Loki takes ten minutes.
const FUTURE: i64 = 5 * 60 * 1_000_000_000;

/// What the reader is doing.
#[derive(Debug, Default, PartialEq, Eq)]
enum Pass {
    /// Oldest first, everything.
    #[default]
    Whole,
    /// The end of the boot that died.
    Ahead(Id128),
}

/// How far a batch could be filled.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// It is as large as it may get.
    Full,
    /// It has to go as it is.
    Complete,
    /// There is nothing more to read for now.
    AtEnd,
}

/// Reads entries into batches.
#[derive(Debug)]
pub(super) struct Reader<J> {
    journal: J,
    pass: Pass,
    entry: Entry,
    /// `entry` has been read and not been taken.
    held: bool,
    /// The entry before.
    last: Option<Stamp>,
    /// The entry of the cursor is gone.
    gone: bool,
    /// The lines that go ahead, so far; remembered once all of them are in a batch.
    ahead: Option<Ahead>,
    /// Clock of the ended boot whose entries are being read.
    ended: Option<(Id128, Option<i64>)>,
}

/// What reading needs of the pipeline.
pub(super) struct Context<'a, C> {
    pub(super) settings: &'a Settings,
    pub(super) clock: &'a C,
    pub(super) streams: &'a mut Streams,
    pub(super) redactor: &'a mut Redactor,
    pub(super) counters: &'a LogCounters,
    /// What will be true once the batch is acknowledged.
    pub(super) memory: &'a mut Memory,
    pub(super) batch: &'a mut Batch,
}

impl<J: Journal> Reader<J> {
    /// Begins behind the last acknowledged entry, or with the end of the boot that died.
    pub(super) fn new(
        mut journal: J,
        memory: &Memory,
        boot: Id128,
        redactor: &mut Redactor,
    ) -> Result<Self, Error> {
        let mut pass = Pass::Whole;
        let mut last = None;
        let mut gone = false;
        let mut entry = Entry::default();
        if let Some(cursor) = &memory.cursor {
            match ahead(&mut journal, cursor, memory.ahead.as_ref(), boot)? {
                Some((died, first)) => {
                    pass = Pass::Ahead(died);
                    journal.seek_cursor(&first)?;
                }
                None => {
                    gone = !seek_behind(&mut journal, cursor)?;
                    if gone {
                        last = Cursor::parse(cursor).map(|cursor| stamp_of(&cursor));
                    } else {
                        last = Some(journal.stamp()?);
                        warm_up(&mut journal, &mut entry, redactor)?;
                        seek_behind(&mut journal, cursor)?;
                    }
                }
            }
        } else {
            journal.seek_head()?;
            if let Some((seqnum_id, first)) = &memory.first {
                // As if what was before had been shipped.
                last = Some(Stamp {
                    seqnum_id: Id128::parse(seqnum_id).unwrap_or_default(),
                    seqnum: first.saturating_sub(1),
                    ..Stamp::default()
                });
                gone = true;
            }
        }
        Ok(Self {
            journal,
            pass,
            entry,
            held: false,
            last,
            gone,
            ahead: None,
            ended: None,
        })
    }

    /// Waits for new entries.
    pub(super) fn wait(&mut self, patience: Duration) -> Result<(), Error> {
        self.journal.wait(patience)
    }

    /// Whether the journal has had no entry since it was opened.
    pub(super) fn is_new(&self) -> bool {
        self.last.is_none() && !self.held
    }

    /// Whether lines of the end of a boot are read ahead of older ones.
    pub(super) fn is_ahead(&self) -> bool {
        self.pass != Pass::Whole
    }

    /// Adds entries to the batch until it is full or there are none.
    pub(super) fn fill<C: Clock>(&mut self, context: &mut Context<'_, C>) -> Result<Filled, Error> {
        let mut taken = false;
        let filled = loop {
            if !self.held {
                if !self.journal.next()? {
                    break Filled::AtEnd;
                }
                self.journal.read(&mut self.entry)?;
                context.counters.read.add(1);
            }
            self.held = true;
            let stamp = self.entry.stamp;
            if let Pass::Ahead(died) = self.pass
                && stamp.boot != died
            {
                // The end of that boot; what was before is next.
                context.memory.ahead = self.ahead.take().or(context.memory.ahead.take());
                break Filled::Complete;
            }
            if context.memory.cursor.is_none() && context.memory.first.is_none() {
                context.memory.first = Some((stamp.seqnum_id.to_string(), stamp.seqnum));
            }
            if !self.settled(context, &stamp) {
                break Filled::AtEnd;
            }
            if self.pass == Pass::Whole {
                if !self.check_gap(context, &stamp)? {
                    continue;
                }
                if let Some(ahead) = &context.memory.ahead {
                    if ahead.covers(&stamp) {
                        taken = true;
                        self.held = false;
                        self.last = Some(stamp);
                        continue;
                    }
                    if Id128::parse(&ahead.boot) != Some(stamp.boot)
                        && self.last.is_some_and(|last| ahead.covers(&last))
                    {
                        context.memory.ahead = None;
                    }
                }
            }
            self.take(context, &stamp)?;
            taken = true;
            self.held = false;
            self.last = Some(stamp);
            if context.batch.bytes() >= context.settings.batch_bytes {
                break Filled::Full;
            }
        };
        if taken {
            self.note(context)?;
        }
        Ok(filled)
    }

    /// Notes in the memory how far the batch goes.
    fn note<C: Clock>(&mut self, context: &mut Context<'_, C>) -> Result<(), Error> {
        if self.pass != Pass::Whole {
            return Ok(());
        }
        if self.held {
            // The position is the entry that was not taken.
            if self.journal.previous()? {
                context.memory.cursor = Some(self.journal.cursor()?);
                self.journal.next()?;
            } else {
                // The taken one was removed in the meantime; its number is enough to go on.
                context.memory.cursor = self.last.map(|last| cursor_of(&last).to_string());
            }
        } else {
            context.memory.cursor = Some(self.journal.cursor()?);
        }
        Ok(())
    }

    /// Whether the times of an entry can be told: not before the clock of the running boot is
    /// synchronized, or has had time enough for it.
    fn settled<C: Clock>(&mut self, context: &mut Context<'_, C>, stamp: &Stamp) -> bool {
        let boot = context.clock.boot();
        let text = || boot.to_string();
        if stamp.boot != boot
            || context
                .memory
                .clock_boot
                .as_ref()
                .is_some_and(|(known, _)| *known == text())
        {
            return true;
        }
        let monotonic = context.clock.monotonic();
        if context.clock.synchronized() {
            let now = context.clock.now() / 1000;
            let monotonic = monotonic.as_micros() as i64;
            // Rounded, so that a restart before this is kept finds the same again.
            context.memory.clock = Some((now - monotonic + 50_000).div_euclid(100_000) * 100_000);
            context.memory.clock_boot = Some((text(), monotonic as u64));
            return true;
        }
        monotonic >= context.settings.patience_for_clock
    }

    /// Counts what is missing before an entry, and says so in a line of its own. `false`: the
    /// journal has to be read again from the entry before, since it may just not have been there.
    fn check_gap<C: Clock>(
        &mut self,
        context: &mut Context<'_, C>,
        stamp: &Stamp,
    ) -> Result<bool, Error> {
        let gone = std::mem::take(&mut self.gone);
        let Some(last) = self.last else {
            return Ok(true);
        };
        let (text, count) = if last.seqnum_id != stamp.seqnum_id {
            if !gone {
                return Ok(true);
            }
            ("journal gap: the journal is another one than before; how many entries of the old one were not shipped is not known".to_owned(), 0)
        } else {
            let count = stamp.seqnum.saturating_sub(last.seqnum.saturating_add(1));
            if count == 0 {
                return Ok(true);
            }
            if !gone && self.appeared(stamp)? {
                return Ok(false);
            }
            (
                format!("journal gap: {count} entries were removed before they were shipped"),
                count,
            )
        };
        log::warn!("{text}");
        context.counters.lost_to_vacuum.add(count);
        let (time, _) = self.time(context, stamp)?;
        let metadata = [
            ("gap_from", (last.seqnum + 1).to_string()),
            ("gap_to", stamp.seqnum.saturating_sub(1).to_string()),
        ];
        let streams = &mut *context.streams;
        context
            .batch
            .add(false, |out| streams.encode_own(time, &text, &metadata, out));
        Ok(true)
    }

    /// Looks again whether there is something between the last entry and this one: a file that
    /// libsystemd had not noticed. If so, the next entry is that.
    fn appeared(&mut self, stamp: &Stamp) -> Result<bool, Error> {
        if !self.journal.previous()? {
            // Everything before is gone, and the position is still this entry.
            return Ok(false);
        }
        let before = self.journal.cursor()?;
        let same = Some(self.journal.stamp()?) == self.last;
        self.journal.wait(Duration::ZERO)?;
        self.journal.seek_cursor(&before)?;
        let found = self.journal.next()? && self.journal.is_at(&before)?;
        if found && !self.journal.next()? {
            return Ok(false);
        }
        let appeared = found && same && self.journal.stamp()? != *stamp;
        if appeared {
            self.journal.read(&mut self.entry)?;
        }
        Ok(appeared)
    }

    /// Adds the entry to the batch.
    fn take<C: Clock>(&mut self, context: &mut Context<'_, C>, stamp: &Stamp) -> Result<(), Error> {
        let replay = self.is_ahead();
        if replay && self.ahead.is_none() {
            self.ahead = Some(Ahead {
                boot: stamp.boot.to_string(),
                seqnum_id: stamp.seqnum_id.to_string(),
                from: stamp.seqnum,
            });
        }
        let (time, original) = self.time(context, stamp)?;
        let now = context.clock.now();
        if now.saturating_sub(time) > context.settings.window.as_nanos() as i64 {
            context.counters.dropped.add("too old", 1);
            return Ok(());
        }
        if context.batch.is_empty() {
            context.counters.oldest.set(stamp.realtime as i64);
        }
        if !replay {
            context.memory.newest = context.memory.newest.max(time);
        }
        if original.is_some() {
            context.counters.restamped.add(1);
        }
        let (streams, redactor) = (&mut *context.streams, &mut *context.redactor);
        let before = redactor.blotted();
        context.batch.add(true, |out| {
            streams.encode(&self.entry, time, original, replay, redactor, out)
        });
        context.counters.redactions.add(redactor.blotted() - before);
        Ok(())
    }

    /// The time that a line is shipped with in ns, and journald's in µs if that is another one.
    fn time<C: Clock>(
        &mut self,
        context: &Context<'_, C>,
        stamp: &Stamp,
    ) -> Result<(i64, Option<u64>), Error> {
        let memory = &context.memory;
        let realtime = i64::try_from(stamp.realtime)
            .unwrap_or(i64::MAX / 1000)
            .min(i64::MAX / 1000);
        let monotonic = stamp.monotonic.min(u64::MAX >> 12) as i64;
        let clock = if stamp.boot == context.clock.boot() {
            let synchronized = memory.clock_boot.as_ref().map_or(0, |(_, at)| *at);
            memory.clock.filter(|_| stamp.monotonic < synchronized)
        } else {
            self.clock_of_ended(stamp.boot)?
        };
        let repaired = clock.map_or(realtime, |clock| clock.saturating_add(monotonic));
        let wrong = repaired.abs_diff(realtime) > WRONG_CLOCK as u64;
        let best = if wrong { repaired } else { realtime };
        let mut time = best
            .saturating_mul(1000)
            .saturating_add((stamp.seqnum % 1000) as i64);
        let now = context.clock.now();
        if time > now.saturating_add(FUTURE) {
            time = now;
        }
        let old = now.saturating_sub(time) > context.settings.window.as_nanos() as i64;
        // Where the clock had jumped ahead, what came then is no measure of what comes now.
        let newest = memory.newest.min(now);
        if !old && !self.is_ahead() && time < newest.saturating_sub(BEHIND) {
            time = newest;
        }
        let changed = time / 1000 != realtime;
        Ok((time, changed.then_some(stamp.realtime)))
    }

    /// The clock of a boot that is over, asked for once a boot.
    fn clock_of_ended(&mut self, boot: Id128) -> Result<Option<i64>, Error> {
        if let Some((known, clock)) = self.ended
            && known == boot
        {
            return Ok(clock);
        }
        let here = self.journal.cursor()?;
        let clock = self.journal.clock_of_boot(boot)?;
        self.journal.seek_cursor(&here)?;
        self.journal.next()?;
        self.ended = Some((boot, clock));
        Ok(clock)
    }
}

fn stamp_of(cursor: &Cursor) -> Stamp {
    Stamp {
        realtime: cursor.realtime,
        monotonic: cursor.monotonic,
        boot: cursor.boot,
        seqnum_id: cursor.seqnum_id,
        seqnum: cursor.seqnum,
    }
}

fn cursor_of(stamp: &Stamp) -> Cursor {
    Cursor {
        seqnum_id: stamp.seqnum_id,
        seqnum: stamp.seqnum,
        boot: stamp.boot,
        monotonic: stamp.monotonic,
        realtime: stamp.realtime,
        hash: 0,
    }
}

/// Goes to the entry of the cursor. `false`: it is gone, and `next` comes to what is behind it.
fn seek_behind<J: Journal>(journal: &mut J, cursor: &str) -> Result<bool, Error> {
    journal.seek_cursor(cursor)?;
    if journal.next()? && journal.is_at(cursor)? {
        return Ok(true);
    }
    // journald numbers entries anew when it moves them from /run to /var.
    if let Some(wanted) = Cursor::parse(cursor) {
        journal.seek_monotonic(wanted.boot, wanted.monotonic)?;
        while journal.next()? {
            let Some(here) = Cursor::parse(&journal.cursor()?) else {
                break;
            };
            if here.same_entry(&wanted) {
                return Ok(true);
            }
            if here.boot != wanted.boot || here.monotonic > wanted.monotonic {
                break;
            }
        }
    }
    journal.seek_cursor(cursor)?;
    Ok(false)
}

/// Shows the redactor the entries before the position.
fn warm_up<J: Journal>(
    journal: &mut J,
    entry: &mut Entry,
    redactor: &mut Redactor,
) -> Result<(), Error> {
    let mut steps = 0;
    while steps < WARM_UP && journal.previous()? {
        steps += 1;
    }
    for _ in 0..=steps {
        journal.read(entry)?;
        let process = entry.field("_PID").unwrap_or_default();
        redactor.line(process, entry.field("MESSAGE").unwrap_or_default());
        journal.next()?;
    }
    Ok(())
}

/// Whether there are lines from the end of an ended boot to be shipped before older ones: that
/// boot, and the cursor of the first of them.
fn ahead<J: Journal>(
    journal: &mut J,
    cursor: &str,
    done: Option<&Ahead>,
    boot: Id128,
) -> Result<Option<(Id128, String)>, Error> {
    let Some(acknowledged) = Cursor::parse(cursor).filter(|cursor| cursor.boot != boot) else {
        return Ok(None);
    };
    journal.seek_monotonic(boot, 0)?;
    if !journal.next()? || journal.stamp()?.boot != boot {
        return Ok(None);
    }
    let mut found: Option<(Id128, String)> = None;
    for _ in 0..AHEAD {
        if !journal.previous()? || journal.is_at(cursor)? {
            break;
        }
        let stamp = journal.stamp()?;
        let before =
            stamp.seqnum_id == acknowledged.seqnum_id && stamp.seqnum <= acknowledged.seqnum;
        let died = found.as_ref().map_or(stamp.boot, |(died, _)| *died);
        if before || stamp.boot != died || stamp.boot == boot {
            break;
        }
        found = Some((died, journal.cursor()?));
    }
    let shipped = |boot: Id128| done.is_some_and(|ahead| Id128::parse(&ahead.boot) == Some(boot));
    Ok(found.filter(|(died, _)| !shipped(*died)))
}
