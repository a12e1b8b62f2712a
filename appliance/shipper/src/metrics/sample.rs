//! Samples in the making: [`Snapshot`] for remote write, [`TextSink`] for people and comparison.

use std::collections::HashSet;
use std::fmt::Write;

use crate::protobuf;

/// Types of metrics, as Prometheus names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Nobody said.
    Untyped,
}

impl Kind {
    /// The word of the text format.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Untyped => "untyped",
        }
    }
}

/// Where samples go.
pub trait Sink {
    /// Begins a metric; its samples follow.
    fn family(&mut self, name: &str, kind: Kind);

    /// A sample of the metric that was begun last. Labels are in any order and have no empty
    /// values.
    fn sample(&mut self, labels: &[(&str, &str)], value: f64);

    /// A metric of one sample without labels.
    fn one(&mut self, name: &str, kind: Kind, value: f64) {
        self.family(name, kind);
        self.sample(&[], value);
    }
}

/// The value that marks the end of a series (Prometheus remote write 1.0, "Stale markers").
pub(super) const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Samples of one time as remote write sends them: labels are encoded, sorted by name, those of
/// the target among them.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Labels of every sample, which win over those of the sample.
    target: Vec<(String, String)>,
    name: String,
    /// Encoded labels, one series after the other.
    arena: Vec<u8>,
    /// End of the labels in the arena, and the bits of the value.
    samples: Vec<(u32, u64)>,
}

impl Snapshot {
    /// An empty one, whose samples get these labels.
    pub fn new(target: &[(String, String)]) -> Self {
        Self {
            target: target.to_vec(),
            ..Self::default()
        }
    }

    /// Samples in it.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Encoded labels and value of each sample.
    pub(super) fn series(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let mut start = 0;
        self.samples.iter().map(move |&(end, value)| {
            let labels = &self.arena[start as usize..end as usize];
            start = end;
            (labels, value)
        })
    }

    /// Adds a series by its encoded labels.
    pub(super) fn push(&mut self, labels: &[u8], value: u64) {
        self.arena.extend_from_slice(labels);
        self.samples.push((self.arena.len() as u32, value));
    }

    /// Adds a marker of the end of every series that `before` had and this one has not.
    pub(super) fn mark_ended(&mut self, before: &Self) {
        let ended: Vec<Vec<u8>> = {
            let now: HashSet<&[u8]> = self.series().map(|(labels, _)| labels).collect();
            before
                .series()
                .filter(|(labels, value)| *value != STALE && !now.contains(labels))
                .map(|(labels, _)| labels.to_vec())
                .collect()
        };
        for labels in ended {
            self.push(&labels, STALE);
        }
    }

    /// `prometheus.WriteRequest` of remote write 1.0 with some of the samples, not compressed.
    pub(super) fn write_request(&self, time: i64, some: std::ops::Range<usize>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.arena.len() + 32 * some.len());
        let mut sample = Vec::with_capacity(24);
        for (labels, value) in self.series().skip(some.start).take(some.len()) {
            sample.clear();
            protobuf::double(&mut sample, 1, value);
            protobuf::number(&mut sample, 2, time as u64);
            protobuf::head(
                &mut out,
                1,
                labels.len() + protobuf::bytes_len(sample.len()),
            );
            out.extend_from_slice(labels);
            protobuf::bytes(&mut out, 2, &sample);
        }
        out
    }
}

impl Sink for Snapshot {
    fn family(&mut self, name: &str, _: Kind) {
        name.clone_into(&mut self.name);
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut all: Vec<(&str, &str)> = Vec::with_capacity(labels.len() + self.target.len() + 1);
        all.push(("__name__", &self.name));
        all.extend(
            self.target
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        for &(name, value) in labels {
            if !value.is_empty() && self.target.iter().all(|(target, _)| target != name) {
                all.push((name, value));
            }
        }
        all.sort_unstable();
        all.dedup_by(|a, b| a.0 == b.0);
        for (name, value) in all {
            protobuf::pair(&mut self.arena, 1, name.as_bytes(), value.as_bytes());
        }
        self.samples
            .push((self.arena.len() as u32, value.to_bits()));
    }
}

/// Prometheus's text format 0.0.4, without help.
#[derive(Clone, Debug, Default)]
pub struct TextSink {
    name: String,
    /// The text so far.
    pub text: String,
}

impl Sink for TextSink {
    fn family(&mut self, name: &str, kind: Kind) {
        name.clone_into(&mut self.name);
        let _ = writeln!(self.text, "# TYPE {name} {}", kind.word());
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(&self.name);
        for (at, (name, value)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let _ = write!(self.text, "{before}{name}=\"{value}\"");
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{after} {value}");
    }
}
