//! What long steps show: a bar on a terminal, a line a step elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};
use packages::Progress;

/// Shows steps and downloads on standard error.
#[derive(Default)]
pub struct Terminal {
    bar: Mutex<Option<ProgressBar>>,
}

impl Terminal {
    /// Ends a bar that is there.
    pub fn done(&self) {
        let mut bar = self.bar.lock().unwrap_or_else(|broken| broken.into_inner());
        if let Some(bar) = bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Terminal {
    fn step(&self, what: &str) {
        self.done();
        eprintln!("{what}");
    }

    fn bytes(&self, done: u64, total: u64, name: &str) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let mut bar = self.bar.lock().unwrap_or_else(|broken| broken.into_inner());
        let bar = bar.get_or_insert_with(|| {
            let bar = ProgressBar::new(total);
            let template = "{bytes:>10} of {total_bytes:10} [{bar:30}] {bytes_per_sec:>12} {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(name.to_string());
    }

    fn warning(&self, text: &str) {
        self.done();
        eprintln!("warning: {text}");
    }
}
