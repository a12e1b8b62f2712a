//! What the store says of itself, for Prometheus.

use store::Usage;

use crate::metrics::Text;

/// Writes how full it is and what happened since the start.
pub(crate) fn write(usage: &Usage, text: &mut Text) {
    let kept = usage.pinned.saturating_add(usage.pending);
    for (name, help, value) in [
        ("objects", "Objects stored.", usage.objects),
        (
            "index_bytes",
            "Bytes of memory of the index.",
            usage.index_bytes,
        ),
        (
            "used_bytes",
            "Bytes of segments and files on disk.",
            usage.used,
        ),
        ("capacity_bytes", "Most of them.", usage.capacity),
        (
            "pinned_bytes",
            "Bytes of objects that are kept as long as there is room.",
            usage.pinned,
        ),
        (
            "evictable_bytes",
            "Bytes that can go at once to make room.",
            usage.used.saturating_sub(kept),
        ),
        ("volumes", "Volumes that work.", usage.volumes),
    ] {
        text.family(&format!("larder_store_{name}"), "gauge", help);
        text.line("", &[], value);
    }
    for (name, value) in usage.counts.all() {
        let help = "Since the start; see the store's counters.";
        text.family(&format!("larder_store_{name}_total"), "counter", help);
        text.line("", &[], value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_alerts_ask_for() {
        let mut text = Text::default();
        write(&Usage::default(), &mut text);
        let text = text.into_text();
        for line in [
            "larder_store_used_bytes 0",
            "larder_store_evictable_bytes 0",
            "larder_store_capacity_bytes 0",
            "larder_store_evicted_bytes_total 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
