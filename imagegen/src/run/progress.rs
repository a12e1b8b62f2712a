//! What `run` shows while a machine boots.

use std::io::Write;
use std::time::Instant;

use vm::Running;

/// Steps of a boot, by what the console says when they are reached.
const STEPS: [(&str, &str); 4] = [
    ("BdsDxe: starting", "the firmware has found the boot loader"),
    (
        "Larder: looking for the disk",
        "the kernel has started stage1",
    ),
    ("Larder: booting from", "stage1 has found its disk"),
    ("Larder: starting the system", "stage1 has started systemd"),
];

/// Shows the console, or the steps of the boot.
pub(crate) struct Progress {
    whole: bool,
    shown: usize,
    steps: usize,
    started: Instant,
}

impl Progress {
    pub(crate) fn new(whole: bool) -> Progress {
        Progress {
            whole,
            shown: 0,
            steps: 0,
            started: Instant::now(),
        }
    }

    /// Shows what is new.
    pub(crate) fn show(&mut self, running: &Running) -> vm::Result<()> {
        let fresh = running.console_since(self.shown)?;
        if self.whole {
            self.shown += fresh.len();
            let mut out = std::io::stdout().lock();
            // A closed pipe is the reader's business.
            let _ = out.write_all(fresh.as_bytes()).and_then(|()| out.flush());
            return Ok(());
        }
        // A step is looked for in whole lines, and in what has come since the step before.
        let Some(end) = fresh.rfind('\n') else {
            return Ok(());
        };
        let mut rest = &fresh[..=end];
        self.shown += rest.len();
        while let Some((at, step)) = self.next_step(rest) {
            let seconds = self.started.elapsed().as_secs_f64();
            // The benchmark of the image reads these lines.
            let cpu = running.cpu_seconds();
            eprintln!("{seconds:7.1} s {cpu:6.1} CPU s  {}", STEPS[step].1);
            self.steps = step + 1;
            rest = &rest[at..];
        }
        Ok(())
    }

    /// The earliest step still to come that `text` shows: a later one may come without it.
    fn next_step(&self, text: &str) -> Option<(usize, usize)> {
        (self.steps..STEPS.len())
            .filter_map(|step| Some((text.find(STEPS[step].0)?, step)))
            .min()
    }
}
