//! A test from power-on to its verdict.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::Result;

use crate::console::suspicious;
use crate::{Setup, TestMachine};

/// How many scenarios run at a time, however many tests there are: each has a processor for itself
/// on the smallest machine that is meant to run them.
const AT_A_TIME: usize = 2;

static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// The right to run a scenario; the next one's turn comes with its end.
struct Turn;

impl Turn {
    fn wait() -> Turn {
        let (running, ended) = &RUNNING;
        let running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = ended
            .wait_while(running, |running| *running >= AT_A_TIME)
            .unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (running, ended) = &RUNNING;
        *running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ended.notify_one();
    }
}

/// Waits for its turn (two scenarios run at a time), then runs `body` on a machine that is switched off. Fails, by panicking, if `body` does, if one of
/// its checks did, or if the console has shown what no healthy machine shows; then the console's
/// end and the journal are printed.
pub fn scenario(setup: Setup, body: impl FnOnce(&mut TestMachine) -> Result<()>) {
    let _turn = Turn::wait();
    let allowed = setup.allowed.clone();
    let name = setup.name.clone();
    let mut machine = match TestMachine::new(setup) {
        Ok(machine) => machine,
        Err(error) => panic!("{name}: {error:#}"),
    };
    let mut problems = Vec::new();
    match catch_unwind(AssertUnwindSafe(|| body(&mut machine))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => problems.push(format!("{error:#}")),
        // What it said is on stderr already.
        Err(_) => problems.push("the test panicked".to_owned()),
    }
    problems.extend(machine.take_failures());
    let console = machine.all_consoles();
    problems.extend(suspicious(&console, &allowed));
    machine.keep_console(&console);
    if problems.is_empty() {
        return;
    }
    let mut report = String::new();
    let lines: Vec<&str> = console.lines().collect();
    let tail = &lines[lines.len().saturating_sub(120)..];
    report.push_str(&format!(
        "---- {name}: end of the console\n{}\n",
        tail.join("\n")
    ));
    if let Some(journal) = machine.journal() {
        report.push_str(&format!("---- {name}: journal\n{journal}\n"));
    }
    // Before the panic, or it would be lost if unwinding were to hang.
    say(&report);
    drop(machine);
    panic!("{name}:\n  {}", problems.join("\n  "));
}

/// Whether the full matrices run (`make test-all` sets `LARDER_TEST_ALL=1`); if not, it prints what
/// is skipped.
pub fn full_matrix(what: &str) -> bool {
    let full = std::env::var_os("LARDER_TEST_ALL").is_some_and(|value| value == "1");
    if !full {
        say(&format!("skipped without LARDER_TEST_ALL=1: {what}"));
    }
    full
}

/// Prints past the capture of the test harness: a test of minutes should be seen to go on.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
