//! A test from power-on to its verdict.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::Result;

use crate::console::suspicious;
use crate::{Setup, TestMachine};

/// Runs `body` on a machine that is switched off. Fails, by panicking, if `body` does, if one of
/// its checks did, or if the console has shown what no healthy machine shows; then the console's
/// end and the journal are printed.
pub fn scenario(setup: Setup, body: impl FnOnce(&mut TestMachine) -> Result<()>) {
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

/// Prints past the capture of the test harness: a test of minutes should be seen to go on.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
