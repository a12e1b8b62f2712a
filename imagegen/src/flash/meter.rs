//! How far it is: a bar on a terminal, lines elsewhere, and the place where Ctrl-C is asked for.

use std::io::IsTerminal;
use std::sync::Mutex;

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::size;

/// Shows the progress of one step after the other on standard error.
pub(super) struct Meter {
    show: Show,
    step: Mutex<Step>,
}

enum Show {
    #[cfg(test)]
    Nothing,
    Lines,
    Bar,
}

#[derive(Default)]
struct Step {
    name: &'static str,
    done: u64,
    total: u64,
    /// Tenths that have been told.
    told: u64,
    bar: Option<ProgressBar>,
}

impl Meter {
    /// A bar if standard error is a terminal, else a line for every tenth.
    pub(super) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self::with(if terminal { Show::Bar } else { Show::Lines })
    }

    /// Shows nothing.
    #[cfg(test)]
    pub(super) fn silent() -> Self {
        Self::with(Show::Nothing)
    }

    fn with(show: Show) -> Self {
        Self {
            show,
            step: Mutex::default(),
        }
    }

    fn step(&self) -> std::sync::MutexGuard<'_, Step> {
        // Numbers and a bar; nothing that a panic elsewhere could leave half done.
        self.step
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Begins a step of `total` bytes.
    pub(super) fn start(&self, name: &'static str, total: u64) {
        let bar = matches!(self.show, Show::Bar).then(|| {
            let bar = ProgressBar::new(total).with_message(name);
            let template = "{msg:>10} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        *self.step() = Step {
            name,
            total,
            bar,
            ..Step::default()
        };
    }

    /// `bytes` more are done.
    ///
    /// # Errors
    /// The user has asked to end.
    pub(super) fn add(&self, bytes: u64) -> Result<()> {
        if vm::interrupt::requested() {
            bail!("interrupted");
        }
        let mut step = self.step();
        step.done += bytes;
        match &self.show {
            #[cfg(test)]
            Show::Nothing => {}
            Show::Bar => {
                if let Some(bar) = &step.bar {
                    bar.set_position(step.done);
                }
            }
            Show::Lines => {
                let tenth = (step.done * 10)
                    .checked_div(step.total)
                    .unwrap_or(10)
                    .min(10);
                if tenth > step.told {
                    step.told = tenth;
                    eprintln!(
                        "{}: {}% of {}",
                        step.name,
                        tenth * 10,
                        size::show(step.total)
                    );
                }
            }
        }
        Ok(())
    }

    /// The step is done.
    pub(super) fn finish(&self) {
        if let Some(bar) = self.step().bar.take() {
            bar.finish();
        }
    }
}
