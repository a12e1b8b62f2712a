//! Sentences that the operator has to see, also when nobody is logged in.

use std::io::Write;

/// Writes a warning to the kernel's log, which every console shows (also with `quiet`), and to
/// standard error, which the journal keeps.
pub(crate) fn announce(text: &str) {
    let line = format!("<3>larder: {text}\n");
    // Each message opens the log anew: the kernel limits the rate of each opener. Without the right
    // to write there, the journal has to do.
    let _ = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .and_then(|mut kmsg| kmsg.write_all(line.as_bytes()));
    eprintln!("{text}");
}
