//! Any sequence of outages, refusals, kills, rotations and reboots delivers every entry at least
//! once, in order within a stream, or counts it.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use receiver_double::Loki;
use shipper::clock::Clock;
use shipper::counters::LogCounters;
use shipper::http::{Answer, Receiver};
use shipper::journal::{Cursor, Entry, Error, Id128, Journal, Stamp};
use shipper::logs::{Keep, Labels, Memory, Pipeline, Settings, Step};

const START: i64 = 1_790_000_000;

/// The world: a machine with its journal and clocks, and Loki.
#[derive(Debug, Default)]
struct World {
    entries: Vec<(Cursor, String)>,
    /// The journal begins here; what is before was vacuumed.
    first: usize,
    seqnum: u64,
    /// Whose numbers these are.
    numbers: u8,
    boot: u8,
    /// µs since the boot.
    monotonic: u64,
    /// Realtime in µs, and what the machine believes it is.
    real: i64,
    believed: i64,
    synchronized: bool,
    loki: Loki,
    /// What the next pushes come to.
    faults: Vec<Fault>,
    memory: Memory,
    pushes: usize,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Stored, but nobody hears of it.
    LostAnswer,
    Unavailable,
    RateLimited,
    Unauthorized,
    TooLarge,
    Nothing,
    Html,
    TooManyStreams,
    /// One line in three is refused for ever, the others are stored.
    Partial,
}

type Shared = Rc<RefCell<World>>;

impl World {
    fn pass(&mut self, micros: u64) {
        self.monotonic += micros;
        self.real += micros as i64;
        self.believed += micros as i64;
    }

    fn log(&mut self, text: String) {
        self.pass(1000);
        self.seqnum += 1;
        let cursor = Cursor {
            seqnum_id: Id128([9 + self.numbers; 16]),
            seqnum: self.seqnum,
            boot: Id128([self.boot; 16]),
            monotonic: self.monotonic,
            realtime: self.believed as u64,
            hash: self.seqnum,
        };
        self.entries.push((cursor, text));
    }

    fn reboot(&mut self, wrong: i64) {
        self.boot += 1;
        self.monotonic = 1_000_000;
        self.real += 30_000_000;
        self.believed = self.real + wrong;
        self.synchronized = false;
        self.log(format!("boot {}", self.boot));
    }

    /// journald moves the journal from `/run` to `/var`, and numbers all entries anew.
    fn flush(&mut self) {
        self.numbers += 1;
        self.seqnum = self.entries.len() as u64;
        for (at, (cursor, _)) in self.entries.iter_mut().enumerate() {
            cursor.seqnum_id = Id128([9 + self.numbers; 16]);
            cursor.seqnum = at as u64 + 1;
        }
    }

    fn synchronize(&mut self) {
        self.believed = self.real;
        self.synchronized = true;
    }
}

#[derive(Clone, Debug)]
struct Model {
    world: Shared,
    /// Index of the entry, or that of the next one.
    at: usize,
    on: bool,
}

impl Model {
    fn here(&self) -> (Cursor, String) {
        self.world.borrow().entries[self.at].clone()
    }

    fn seek(&mut self, at: usize) {
        self.at = at.max(self.world.borrow().first);
        self.on = false;
    }
}

impl Journal for Model {
    fn seek_head(&mut self) -> Result<(), Error> {
        self.seek(0);
        Ok(())
    }

    fn seek_cursor(&mut self, cursor: &str) -> Result<(), Error> {
        let wanted = Cursor::parse(cursor).expect("a cursor of this journal");
        let world = self.world.borrow();
        let before = |(c, _): &(Cursor, String)| {
            if c.seqnum_id == wanted.seqnum_id {
                c.seqnum < wanted.seqnum
            } else {
                c.realtime < wanted.realtime
            }
        };
        let at = world.entries.partition_point(before);
        drop(world);
        self.seek(at);
        Ok(())
    }

    fn seek_monotonic(&mut self, boot: Id128, monotonic: u64) -> Result<(), Error> {
        let found = |(c, _): &(Cursor, String)| c.boot == boot && c.monotonic >= monotonic;
        let at = self.world.borrow().entries.iter().position(found);
        let end = self.world.borrow().entries.len();
        self.seek(at.unwrap_or(end));
        Ok(())
    }

    fn clock_of_boot(&mut self, boot: Id128) -> Result<Option<i64>, Error> {
        let world = self.world.borrow();
        let mut kept = world.entries[world.first..].iter().rev();
        let last = kept.find(|(cursor, _)| cursor.boot == boot);
        Ok(last.map(|(cursor, _)| cursor.realtime as i64 - cursor.monotonic as i64))
    }

    fn next(&mut self) -> Result<bool, Error> {
        let world = self.world.borrow();
        let next = (self.at + usize::from(self.on)).max(world.first);
        if next >= world.entries.len() {
            return Ok(false);
        }
        self.at = next;
        self.on = true;
        Ok(true)
    }

    fn previous(&mut self) -> Result<bool, Error> {
        if self.at <= self.world.borrow().first {
            return Ok(false);
        }
        self.at -= 1;
        self.on = true;
        Ok(true)
    }

    fn is_at(&mut self, cursor: &str) -> Result<bool, Error> {
        Ok(self.on && self.here().0.to_string() == cursor)
    }

    fn cursor(&mut self) -> Result<String, Error> {
        assert!(self.on);
        Ok(self.here().0.to_string())
    }

    fn stamp(&mut self) -> Result<Stamp, Error> {
        assert!(self.on);
        let (cursor, _) = self.here();
        Ok(Stamp {
            realtime: cursor.realtime,
            monotonic: cursor.monotonic,
            boot: cursor.boot,
            seqnum_id: cursor.seqnum_id,
            seqnum: cursor.seqnum,
        })
    }

    fn read(&mut self, entry: &mut Entry) -> Result<(), Error> {
        entry.clear();
        entry.stamp = self.stamp()?;
        let (cursor, text) = self.here();
        entry.add(format!("MESSAGE={text}").as_bytes());
        entry.add(format!("_SYSTEMD_UNIT=unit{}.service", cursor.seqnum % 3).as_bytes());
        Ok(())
    }

    fn wait(&mut self, _: Duration) -> Result<(), Error> {
        Ok(())
    }
}

impl Clock for Model {
    fn now(&self) -> i64 {
        self.world.borrow().believed * 1000
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.world.borrow().monotonic)
    }

    fn synchronized(&self) -> bool {
        self.world.borrow().synchronized
    }

    fn boot(&self) -> Id128 {
        Id128([self.world.borrow().boot; 16])
    }
}

impl Receiver for Model {
    fn push(&mut self, body: &[u8]) -> Answer {
        let mut world = self.world.borrow_mut();
        world.pass(10_000);
        world.pushes += 1;
        let response = |status, text: String| Answer::Response {
            status,
            retry_after: None,
            text,
        };
        match world.faults.pop() {
            None => {}
            Some(Fault::LostAnswer) => {
                let now = world.real * 1000;
                world.loki.push("application/x-protobuf", body, now);
                return Answer::Failure("connection reset".into());
            }
            Some(Fault::Unavailable) => return response(503, String::new()),
            Some(Fault::RateLimited) => return response(429, "Ingestion rate limit".into()),
            Some(Fault::Unauthorized) => return response(401, "no org id".into()),
            Some(Fault::TooLarge) if snap_len(body) > 200 => return response(413, String::new()),
            Some(Fault::TooLarge) => {}
            Some(Fault::Partial) => world.loki.refuse_next(3),
            Some(Fault::Nothing) => return Answer::Failure("refused".into()),
            Some(Fault::Html) => return response(200, "<html>".into()),
            Some(Fault::TooManyStreams) => return response(429, "stream limit".into()),
        }
        let now = world.real * 1000;
        let (status, text) = world.loki.push("application/x-protobuf", body, now);
        response(status, text)
    }
}

/// Length of the raw message that a snappy block says.
fn snap_len(body: &[u8]) -> usize {
    let mut length = 0;
    for (at, byte) in body.iter().enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            break;
        }
    }
    length
}

impl Keep for Model {
    fn load(&mut self) -> Memory {
        self.world.borrow().memory.clone()
    }

    fn save(&mut self, memory: &Memory) -> Result<(), disk::Error> {
        self.world.borrow_mut().memory = memory.clone();
        Ok(())
    }
}

type Model1 = Model;
type Shipper = Pipeline<Model, Box<dyn FnMut() -> Result<Model, Error>>, Model1, Model, Model>;

fn shipper(world: &Shared, counters: &Arc<LogCounters>) -> Shipper {
    let model = Model {
        world: Rc::clone(world),
        at: 0,
        on: false,
    };
    let labels = Labels {
        instance: "h".into(),
        service: ("s".into(), "s".into()),
        host: ("host".into(), "larder".into()),
        service_units: vec![],
        stream: None,
        metadata: vec![],
    };
    let journal = model.clone();
    let settings = Settings {
        batch_bytes: 600,
        ..Settings::new(labels)
    };
    let open: Box<dyn FnMut() -> Result<Model, Error>> = Box::new(move || Ok(journal.clone()));
    Pipeline::new(
        settings,
        open,
        model.clone(),
        model.clone(),
        model,
        Arc::clone(counters),
    )
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Log(u8),
    Steps(u8),
    Fault(Fault),
    Kill,
    Stop,
    Vacuum(u8),
    Reboot {
        wrong: i64,
        lines: u8,
    },
    Synchronize,
    Later(u32),
    /// The wall clock jumps, by µs.
    Jump(i64),
}

fn action() -> impl Strategy<Value = Action> {
    use Fault::*;
    let fault = proptest::sample::select(vec![
        LostAnswer,
        Unavailable,
        RateLimited,
        Unauthorized,
        TooLarge,
        Nothing,
        Html,
        TooManyStreams,
        Partial,
    ]);
    prop_oneof![
        4 => (1u8..40).prop_map(Action::Log),
        6 => (1u8..20).prop_map(Action::Steps),
        3 => fault.prop_map(Action::Fault),
        1 => Just(Action::Kill),
        1 => Just(Action::Stop),
        1 => (1u8..60).prop_map(Action::Vacuum),
        1 => (proptest::sample::select(vec![0, -3_600_000_000_000, -7_200_000_000, 40_000_000_000]), 0u8..30)
            .prop_map(|(wrong, lines)| Action::Reboot { wrong, lines }),
        2 => Just(Action::Synchronize),
        1 => (1u32..100_000_000).prop_map(Action::Later),
        1 => proptest::sample::select(vec![-7_200_000_000, -1_000_000, 1_000_000, 7_200_000_000])
            .prop_map(Action::Jump),
    ]
}

fn run(actions: Vec<Action>) {
    let world: Shared = Rc::default();
    let counters = Arc::new(LogCounters::default());
    {
        let mut world = world.borrow_mut();
        world.real = START * 1_000_000;
        world.reboot(0);
        world.synchronize();
    }
    let mut shipper_now = shipper(&world, &counters);
    let mut number = 0;
    // The first entry that was there when the shipper looked for the first time.
    let contact = std::cell::Cell::new(None);
    let log = |count: u8, number: &mut usize| {
        for _ in 0..count {
            world.borrow_mut().log(format!("line {number}"));
            *number += 1;
        }
    };
    let step = |shipper: &mut Shipper, flush| {
        if contact.get().is_none() {
            let world = world.borrow();
            contact.set(Some(world.entries[world.first].0.seqnum));
        }
        let step = shipper.step(flush);
        if let Step::Wait(wait) | Step::Idle(wait) = step {
            world.borrow_mut().pass(wait.as_micros() as u64);
        }
        step
    };
    for action in actions {
        match action {
            Action::Log(count) => log(count, &mut number),
            Action::Steps(count) => {
                for _ in 0..count {
                    step(&mut shipper_now, false);
                }
            }
            Action::Fault(fault) => world.borrow_mut().faults.push(fault),
            Action::Kill => shipper_now = shipper(&world, &counters),
            Action::Stop => {
                for _ in 0..20 {
                    step(&mut shipper_now, true);
                }
                shipper_now.save();
                shipper_now = shipper(&world, &counters);
            }
            Action::Vacuum(count) => {
                let mut world = world.borrow_mut();
                world.first = (world.first + usize::from(count)).min(world.entries.len() - 1);
            }
            Action::Reboot { wrong, lines } => {
                world.borrow_mut().reboot(wrong);
                log(lines, &mut number);
                shipper_now = shipper(&world, &counters);
            }
            Action::Synchronize => world.borrow_mut().synchronize(),
            Action::Jump(micros) => world.borrow_mut().believed += micros,
            Action::Later(micros) => world.borrow_mut().pass(u64::from(micros)),
        }
    }
    // In the end all is well, and everything arrives.
    world.borrow_mut().faults.clear();
    world.borrow_mut().synchronize();
    log(1, &mut number);
    let mut idle = 0;
    for _ in 0..20_000 {
        idle = if matches!(step(&mut shipper_now, true), Step::Idle(_)) {
            idle + 1
        } else {
            0
        };
        if idle == 3 {
            break;
        }
    }
    assert_eq!(idle, 3, "it never comes to rest");

    let world = world.borrow();
    let arrived: BTreeSet<&str> = world.loki.lines().map(|line| line.text.as_str()).collect();
    let missing: Vec<_> = world
        .entries
        .iter()
        .filter(|(_, text)| !arrived.contains(text.as_str()))
        .map(|(cursor, text)| (cursor.seqnum, text))
        .filter(|(seqnum, _)| Some(*seqnum) >= contact.get())
        .collect();
    let counted = counters.lost_to_vacuum.get() + counters.dropped.total();
    assert!(
        missing.len() as u64 <= counted,
        "{} missing, {counted} counted ({:?}): {missing:?}",
        missing.len(),
        counters.dropped.all()
    );
    // Nothing that is still in the journal is missing.
    let kept = world.entries[world.first].0.seqnum;
    let kept: Vec<_> = missing
        .iter()
        .filter(|(seqnum, _)| *seqnum >= kept)
        .collect();
    assert!(
        kept.len() as u64 <= counters.dropped.total(),
        "{kept:?} {:?}",
        counters.dropped.all()
    );
    for (labels, lines) in &world.loki.streams {
        let numbers: Vec<usize> = lines
            .iter()
            .filter_map(|line| line.text.strip_prefix("line ")?.parse().ok())
            .collect();
        // What was acknowledged and not remembered comes again, as a whole: order is that of the
        // first arrivals.
        let mut seen = BTreeSet::new();
        let first: Vec<_> = numbers
            .iter()
            .filter(|number| seen.insert(**number))
            .collect();
        assert!(
            labels.contains("replay") || first.is_sorted(),
            "out of order in {labels}: {first:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::with_cases(200) })]
    #[test]
    fn every_entry_arrives_or_is_counted(actions in proptest::collection::vec(action(), 1..60)) {
        run(actions);
    }
}

#[test]
fn an_outage_of_hours_loses_nothing() {
    let mut actions = vec![];
    for _ in 0..30 {
        actions.push(Action::Log(100));
        actions.extend([Action::Fault(Fault::Nothing); 20]);
        actions.push(Action::Steps(20));
    }
    run(actions);
}

#[test]
fn entries_that_are_numbered_anew_are_neither_missing_nor_shipped_twice() {
    let world: Shared = Rc::default();
    let counters = Arc::new(LogCounters::default());
    world.borrow_mut().real = START * 1_000_000;
    world.borrow_mut().reboot(0);
    world.borrow_mut().synchronize();
    let log = |from: usize, count: usize| {
        for number in from..from + count {
            world.borrow_mut().log(format!("line {number}"));
        }
    };
    let drain = |shipper: &mut Shipper| {
        for _ in 0..100 {
            if let Step::Wait(wait) | Step::Idle(wait) = shipper.step(true) {
                world.borrow_mut().pass(wait.as_micros() as u64);
            }
        }
        shipper.save();
    };
    log(0, 30);
    drain(&mut shipper(&world, &counters));
    assert_eq!(counters.shipped.get(), 31);
    log(30, 10);
    world.borrow_mut().flush();
    log(40, 10);
    drain(&mut shipper(&world, &counters));
    assert_eq!(counters.shipped.get(), 51);
    assert_eq!(counters.lost_to_vacuum.get() + counters.dropped.total(), 0);
    let world = world.borrow();
    let arrived: BTreeSet<_> = world.loki.lines().map(|line| &line.text).collect();
    assert_eq!(
        (
            arrived.len(),
            world.loki.lines().count(),
            world.loki.duplicates
        ),
        (51, 51, 0)
    );
}
