//! What a build says while it runs: a line a step, with its time.

use std::sync::Arc;
use std::time::Instant;

use packages::Progress as _;

use crate::terminal::Terminal;

/// The steps of a build.
pub(super) struct Steps {
    started: Instant,
    /// Downloads show themselves through it.
    pub(super) terminal: Arc<Terminal>,
}

impl Steps {
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            terminal: Arc::new(Terminal::default()),
        }
    }

    /// Says that something is done.
    pub(super) fn done(&self, what: &str) {
        self.terminal.done();
        eprintln!("{:6.2} s  {what}", self.started.elapsed().as_secs_f64());
    }

    /// Says something that the user should read.
    pub(super) fn warn(&self, text: &str) {
        self.terminal.warning(text);
    }
}
