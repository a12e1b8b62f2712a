//! Sentences that the operator has to see, also when nobody is logged in.

use std::io::Write;

/// Writes a warning to the kernel's log: every console shows it (also with `quiet`), and the journal
/// takes it from there. Without the right to write there, our own log has to do.
pub(crate) fn announce(text: &str) {
    let line = format!("<3>larder: {text}\n");
    // Each message opens the log anew: the kernel limits the rate of each opener.
    let written = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .and_then(|mut kmsg| kmsg.write_all(line.as_bytes()));
    if written.is_err() {
        log::error!("{text}");
    }
}
