//! What goes in and out, counted by what it is: the names of the service that this one replaces
//! where it had the same, `larder_cache_client_` for clients that it did not know.

use crate::metrics::{Counter, Text};

/// Why uploads fail, in the order of [`Flow::errors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    TooLarge,
    Timeout,
    Persist,
    InvalidChecksum,
    ChecksumMismatch,
    Truncated,
}

impl Failure {
    const ALL: [(Self, &'static str); 6] = [
        (Self::TooLarge, "too_large"),
        (Self::Timeout, "timeout"),
        (Self::Persist, "persist_error"),
        (Self::InvalidChecksum, "invalid_checksum"),
        (Self::ChecksumMismatch, "checksum_mismatch"),
        (Self::Truncated, "truncated"),
    ];
}

/// Counters of one kind of objects, or of one kind of client.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) download_bytes: Counter,
    pub(crate) download_errors: Counter,
    pub(crate) attempts: Counter,
    pub(crate) stored: Counter,
    pub(crate) exists: Counter,
    pub(crate) cancelled: Counter,
    pub(crate) upload_bytes: Counter,
    errors: [Counter; Failure::ALL.len()],
}

impl Flow {
    /// An upload failed.
    pub(crate) fn failed(&self, why: Failure) {
        self.errors[why as usize].add(1);
    }

    fn counters(&self) -> [(&'static str, &'static str, &Counter); 9] {
        [
            (
                "download_disk_hits_total",
                "Objects found on the disk.",
                &self.hits,
            ),
            (
                "download_disk_misses_total",
                "Objects not found on the disk.",
                &self.misses,
            ),
            (
                "download_bytes",
                "Bytes of objects sent.",
                &self.download_bytes,
            ),
            (
                "download_errors_total",
                "Downloads that the disk broke off.",
                &self.download_errors,
            ),
            ("upload_attempts_total", "Uploads begun.", &self.attempts),
            ("upload_success_total", "Objects stored.", &self.stored),
            (
                "upload_exists_total",
                "Uploads of objects that were there.",
                &self.exists,
            ),
            (
                "upload_cancelled_total",
                "Uploads given up by the client.",
                &self.cancelled,
            ),
            (
                "upload_bytes",
                "Bytes of objects stored.",
                &self.upload_bytes,
            ),
        ]
    }
}

/// Groups of paths that have a [`Flow`], as labels name them.
pub(crate) const GROUPS: [&str; 14] = [
    "xcode",
    "module",
    "gradle",
    "bazel",
    "ccache",
    "gradle-http",
    "moon",
    "metro",
    "rush",
    "go",
    "turborepo",
    "nx",
    "sccache",
    "free",
];
/// How many of them are Tuist's own, with metric names of their own.
const TUIST: usize = 3;

/// All counters of traffic.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    flows: [Flow; GROUPS.len()],
    pub(crate) entries: Entries,
    pub(crate) multipart: Multipart,
}

/// Counters of the Xcode action cache.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub(crate) gets: Counter,
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) get_bytes: Counter,
    pub(crate) puts: Counter,
    pub(crate) stored: Counter,
    pub(crate) errors: Counter,
    pub(crate) values: Counter,
    /// Values in which no id was found.
    pub(crate) unknown: Counter,
    /// Entries dropped because an object that they name is gone.
    pub(crate) dropped: Counter,
}

/// Counters of uploads in parts.
#[derive(Debug, Default)]
pub(crate) struct Multipart {
    pub(crate) starts: Counter,
    pub(crate) parts: Counter,
    pub(crate) part_bytes: Counter,
    pub(crate) completions: Counter,
    pub(crate) completed_bytes: Counter,
    pub(crate) mismatches: Counter,
    /// Refused because the account had too many.
    pub(crate) refused: Counter,
    /// Sessions that are open now.
    pub(crate) open: Counter,
    /// Bytes in them.
    pub(crate) unfinished: Counter,
}

impl Traffic {
    /// The counters of a group of paths.
    pub(crate) fn of(&self, group: &str) -> Option<&Flow> {
        let at = GROUPS.iter().position(|known| *known == group)?;
        self.flows.get(at)
    }

    /// The counters of a group that is in [`GROUPS`].
    pub(crate) fn flow(&self, group: &'static str) -> &Flow {
        // The last group is for everything else.
        self.of(group).unwrap_or(&self.flows[GROUPS.len() - 1])
    }

    pub(crate) fn write(&self, text: &mut Text) {
        let groups = || GROUPS.iter().zip(&self.flows);
        for (group, flow) in groups().take(TUIST) {
            for (name, help, counter) in flow.counters() {
                text.family(&format!("tuist_cache_{group}_{name}"), "counter", help);
                text.line("", &[], counter.get());
            }
            let name = format!("tuist_cache_{group}_upload_errors_total");
            text.family(&name, "counter", "Uploads that failed.");
            for ((_, reason), counter) in Failure::ALL.iter().zip(&flow.errors) {
                text.line("", &[("reason", reason)], counter.get());
            }
        }
        for (at, (name, help, _)) in self.flows[0].counters().into_iter().enumerate() {
            text.family(&format!("larder_cache_client_{name}"), "counter", help);
            for (group, flow) in groups().skip(TUIST) {
                text.line("", &[("client", group)], flow.counters()[at].2.get());
            }
        }
        let name = "larder_cache_client_upload_errors_total";
        text.family(name, "counter", "Uploads that failed.");
        for (group, flow) in groups().skip(TUIST) {
            for ((_, reason), counter) in Failure::ALL.iter().zip(&flow.errors) {
                let labels = [("client", *group), ("reason", *reason)];
                text.line("", &labels, counter.get());
            }
        }
        let (entries, multipart) = (&self.entries, &self.multipart);
        for (name, help, counter) in [
            ("cache_kv_get_total", "Entries asked for.", &entries.gets),
            ("cache_kv_get_hit_total", "Entries found.", &entries.hits),
            (
                "cache_kv_get_miss_total",
                "Entries not found.",
                &entries.misses,
            ),
            (
                "cache_kv_get_bytes",
                "Bytes of entries sent.",
                &entries.get_bytes,
            ),
            ("cache_kv_put_total", "Entries that came.", &entries.puts),
            (
                "cache_kv_put_success_total",
                "Entries stored.",
                &entries.stored,
            ),
            (
                "cache_kv_put_errors_total",
                "Entries not stored.",
                &entries.errors,
            ),
            (
                "cache_kv_put_entries",
                "Values in the entries that came.",
                &entries.values,
            ),
            (
                "larder_cache_kv_unknown_values_total",
                "Values in which no id of an object was found.",
                &entries.unknown,
            ),
            (
                "larder_cache_kv_dropped_total",
                "Entries dropped because an object that they name is gone.",
                &entries.dropped,
            ),
            (
                "tuist_cache_module_multipart_starts_total",
                "Uploads in parts begun.",
                &multipart.starts,
            ),
            (
                "tuist_cache_module_multipart_parts_total",
                "Parts that came.",
                &multipart.parts,
            ),
            (
                "tuist_cache_module_multipart_parts_bytes",
                "Bytes of parts that came.",
                &multipart.part_bytes,
            ),
            (
                "tuist_cache_module_multipart_completions_total",
                "Uploads in parts completed.",
                &multipart.completions,
            ),
            (
                "tuist_cache_module_multipart_completed_bytes",
                "Bytes of uploads in parts completed.",
                &multipart.completed_bytes,
            ),
            (
                "tuist_cache_module_multipart_checksum_mismatch_total",
                "Uploads in parts with another digest than declared.",
                &multipart.mismatches,
            ),
            (
                "larder_cache_multipart_refused_total",
                "Uploads in parts refused because the account had too many.",
                &multipart.refused,
            ),
        ] {
            text.family(name, "counter", help);
            text.line("", &[], counter.get());
        }
        for (name, help, counter) in [
            (
                "larder_cache_multipart_sessions",
                "Uploads in parts that are open.",
                &multipart.open,
            ),
            (
                "larder_cache_multipart_unfinished_bytes",
                "Bytes of uploads in parts that are open.",
                &multipart.unfinished,
            ),
        ] {
            text.family(name, "gauge", help);
            text.line("", &[], counter.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_counter() {
        for (at, (failure, reason)) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, at, "{reason}");
        }
    }

    #[test]
    fn groups_are_counted_apart() {
        let traffic = Traffic::default();
        traffic.flow("xcode").failed(Failure::Truncated);
        traffic.flow("nx").hits.add(2);
        let mut text = Text::default();
        traffic.write(&mut text);
        let text = text.into_string();
        for line in [
            r#"tuist_cache_xcode_upload_errors_total{reason="truncated"} 1"#,
            r#"tuist_cache_gradle_upload_errors_total{reason="truncated"} 0"#,
            r#"larder_cache_client_download_disk_hits_total{client="nx"} 2"#,
            r#"larder_cache_client_download_disk_hits_total{client="free"} 0"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
