//! Errors and delays on demand.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a guest asks of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A read.
    Read,
    /// A write, of zeros too.
    Write,
    /// A discard.
    Trim,
    /// A flush.
    Flush,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails with EIO.
    Eio,
    /// It is carried out after a while.
    Delay(Duration),
}

/// One fault: operations on a range of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which bytes; an operation that touches one of them meets the fault.
    pub range: Range<u64>,
    /// Which operations; none: all.
    pub operations: Vec<Operation>,
    /// What happens.
    pub effect: Effect,
}

impl Fault {
    /// The whole disk fails at everything.
    pub fn dead() -> Fault {
        Fault {
            range: 0..u64::MAX,
            operations: Vec::new(),
            effect: Effect::Eio,
        }
    }

    /// Reads of these bytes fail.
    pub fn unreadable(range: Range<u64>) -> Fault {
        Fault {
            range,
            operations: vec![Operation::Read],
            effect: Effect::Eio,
        }
    }

    /// Everything takes this much longer.
    pub fn slow(delay: Duration) -> Fault {
        Fault {
            range: 0..u64::MAX,
            operations: Vec::new(),
            effect: Effect::Delay(delay),
        }
    }
}

/// The faults of a disk, to be changed while it is in use.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    met: u64,
}

impl Faults {
    /// Adds one.
    pub fn add(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Takes all away: the disk is well again.
    pub fn clear(&self) {
        self.state().faults.clear();
    }

    /// How many operations have met a fault: a test that never met one shows nothing.
    pub fn met(&self) -> u64 {
        self.state().met
    }

    /// Lets an operation meet its faults.
    pub(super) fn meet(&self, operation: Operation, offset: u64, length: u64) -> io::Result<()> {
        let mut delay = Duration::ZERO;
        let mut state = self.state();
        let end = offset.saturating_add(length);
        let effects: Vec<Effect> = state
            .faults
            .iter()
            .filter(|fault| fault.operations.is_empty() || fault.operations.contains(&operation))
            .filter(|fault| fault.range.start < end && offset < fault.range.end)
            .map(|fault| fault.effect)
            .collect();
        state.met += u64::from(!effects.is_empty());
        drop(state);
        for effect in effects {
            match effect {
                Effect::Eio => return Err(io::Error::other("fault on demand")),
                Effect::Delay(more) => delay += more,
            }
        }
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        Ok(())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
