//! Where messages go: to the journal with all fields, else to standard error.

use std::io::Write;

use log::{Level, LevelFilter, Log, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

/// Begins to log. `LARDER_LOG` (error, warn, info, debug, trace) sets how much; info if unset.
pub(crate) fn start() {
    let level = std::env::var("LARDER_LOG").ok();
    let level = level
        .and_then(|level| level.parse().ok())
        .unwrap_or(LevelFilter::Info);
    log::set_max_level(level);
    if connected_to_journal() && JournalLog::new().is_ok_and(|journal| journal.install().is_ok()) {
        return;
    }
    // Fails only if there is a logger already.
    let _ = log::set_logger(&Stderr);
}

/// Lines on standard error, with systemd's prefix of priority if that is the journal.
struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // TLS and HTTP libraries tell every step at these levels.
        if !self.enabled(record.metadata()) {
            return;
        }
        let prefix = match (connected_to_journal(), record.level()) {
            (false, Level::Error) => "error: ",
            (false, Level::Warn) => "warning: ",
            (false, _) => "",
            (true, Level::Error) => "<3>",
            (true, Level::Warn) => "<4>",
            (true, Level::Info) => "<5>",
            (true, Level::Debug) => "<6>",
            (true, Level::Trace) => "<7>",
        };
        // There is nowhere to tell that this fails.
        let _ = writeln!(std::io::stderr(), "{prefix}{}", record.args());
    }

    fn flush(&self) {}
}
