//! From an entry of the journal to a line of Loki: which stream it belongs to, its text, and what
//! goes beside it as structured metadata.

use std::borrow::Cow;
use std::collections::HashMap;

use secrets::redact::Redactor;

use crate::journal::Entry;
use crate::protobuf;

/// Longest line in bytes; Loki's default limit (`max_line_size`) is 256 KiB.
const LINE_LIMIT: usize = 256 * 1024 - 64;
/// Longest value of structured metadata in bytes; all of an entry may be 64 KiB.
const VALUE_LIMIT: usize = 1024;
/// Most fields of an entry that become structured metadata; Loki takes 128.
const METADATA_LIMIT: usize = 24;
/// Most units that have a stream of their own; Loki's default limit is 5000 streams a tenant.
const UNITS: usize = 64;
/// Where a unit beyond those goes, and what is no unit at all.
const OTHER: &str = "other";

/// What a line of logs is labelled with, beside its unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// `instance`: the host.
    pub instance: String,
    /// `job` and `app` of the units named in `service_units`.
    pub service: (String, String),
    /// `job` and `app` of everything else.
    pub host: (String, String),
    /// Units that are the service.
    pub service_units: Vec<String>,
    /// `stream` of a journal of access lines, whose lines are the service's and have no unit.
    pub stream: Option<String>,
    /// Structured metadata of every line: environment, region.
    pub metadata: Vec<(String, String)>,
}

/// Number of a stream in [`Streams`].
pub(super) type StreamId = u16;

/// The streams seen so far: their labels as Loki reads them.
#[derive(Debug)]
pub(super) struct Streams {
    labels: Labels,
    /// Metadata of every line, encoded.
    constant: Vec<u8>,
    known: HashMap<(String, bool), StreamId>,
    names: Vec<String>,
    /// Units get no streams of their own: the receiver has too many already.
    pub(super) collapsed: bool,
}

impl Streams {
    pub(super) fn new(labels: Labels) -> Self {
        let mut constant = Vec::new();
        for (name, value) in &labels.metadata {
            protobuf::pair(&mut constant, 3, name.as_bytes(), value.as_bytes());
        }
        Self {
            labels,
            constant,
            known: HashMap::new(),
            names: Vec::new(),
            collapsed: false,
        }
    }

    /// Labels of a stream, `{a="b", …}`.
    pub(super) fn name(&self, id: StreamId) -> &str {
        &self.names[usize::from(id)]
    }

    /// The stream of a unit.
    fn id(&mut self, unit: &str, replay: bool) -> StreamId {
        if let Some(&id) = self.known.get(&(unit.to_owned(), replay)) {
            return id;
        }
        let unit = if self.known.len() >= 2 * UNITS {
            OTHER
        } else {
            unit
        };
        let labels = &self.labels;
        let service = labels.stream.is_some() || labels.service_units.iter().any(|is| is == unit);
        let (job, app) = if service {
            &labels.service
        } else {
            &labels.host
        };
        let mut pairs = vec![
            ("app", app.as_str()),
            ("instance", &labels.instance),
            ("job", job),
        ];
        if replay {
            pairs.push(("replay", "boot"));
        }
        match &labels.stream {
            Some(stream) => pairs.push(("stream", stream)),
            None if self.collapsed => {}
            None => pairs.push(("unit", unit)),
        }
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| format!("{name}={}", quoted(value)))
            .collect();
        let name = format!("{{{}}}", pairs.join(", "));
        let id = match self.names.iter().position(|other| *other == name) {
            Some(id) => id,
            None => {
                self.names.push(name);
                self.names.len() - 1
            }
        };
        // At most two streams for each of UNITS units, and `other`.
        let id = id as StreamId;
        if self.known.len() <= 2 * UNITS {
            self.known.insert((unit.to_owned(), replay), id);
        }
        id
    }

    /// Forgets all streams, and gives units none of their own from now on.
    pub(super) fn collapse(&mut self) {
        self.collapsed = true;
        self.known.clear();
        self.names.clear();
    }

    /// Encodes an entry as Loki's `Entry` message (without its head) into `out`, and says which
    /// stream it belongs to.
    ///
    /// `time` is in ns since 1970; `original` is journald's time in µs if it is another one.
    pub(super) fn encode(
        &mut self,
        entry: &Entry,
        time: i64,
        original: Option<u64>,
        replay: bool,
        redactor: &mut Redactor,
        out: &mut Vec<u8>,
    ) -> StreamId {
        let mut message = &b""[..];
        let mut priority = None;
        let mut unit = None;
        let mut kernel = false;
        let mut own = false;
        let mut process = &b""[..];
        for (name, value) in entry.fields() {
            match name {
                b"MESSAGE" if message.is_empty() => message = value,
                b"PRIORITY" => priority = value.first().copied(),
                b"_SYSTEMD_UNIT" => unit = Some(value),
                b"_TRANSPORT" => kernel = value == b"kernel",
                b"_PID" => process = value,
                // Our own logger writes info as notice and debug as info.
                b"SYSLOG_IDENTIFIER" => own = value == b"appliance",
                _ => {}
            }
        }
        let unit = match unit {
            Some(unit) => unit_label(unit),
            None if kernel => "kernel".into(),
            None => OTHER.into(),
        };
        let stream = self.id(&unit, replay);

        let mut scratch = [0u8; 20];
        let time = timestamp(time, &mut scratch);
        protobuf::bytes(out, 1, time);
        let message = redactor.line(process, message);
        let (text, cut) = line_text(&message);
        protobuf::bytes(out, 2, text.as_bytes());
        let mut metadata =
            |name: &str, value: &str| protobuf::pair(out, 3, name.as_bytes(), value.as_bytes());
        metadata("level", level(priority, own));
        if self.collapsed && self.labels.stream.is_none() {
            metadata("unit", &unit);
        }
        if cut > 0 {
            metadata("truncated_bytes", &cut.to_string());
        }
        if let Some(original) = original {
            metadata("journal_timestamp", &original.to_string());
        }
        out.extend_from_slice(&self.constant);
        let mut kept = 0;
        for (name, value) in entry.fields() {
            let Some(name) = metadata_name(name) else {
                continue;
            };
            if kept == METADATA_LIMIT {
                break;
            }
            let value = redactor.value(value);
            let value = text_within(&value, VALUE_LIMIT).0;
            if !value.is_empty() {
                protobuf::pair(out, 3, name.as_bytes(), value.as_bytes());
                kept += 1;
            }
        }
        stream
    }

    /// Encodes a line of the shipper's own, about the journal.
    pub(super) fn encode_own(
        &mut self,
        time: i64,
        text: &str,
        metadata: &[(&str, String)],
        out: &mut Vec<u8>,
    ) -> StreamId {
        let stream = self.id("larder-shipper.service", false);
        let mut scratch = [0u8; 20];
        protobuf::bytes(out, 1, timestamp(time, &mut scratch));
        protobuf::bytes(out, 2, text.as_bytes());
        protobuf::pair(out, 3, b"level", b"error");
        for (name, value) in metadata {
            protobuf::pair(out, 3, name.as_bytes(), value.as_bytes());
        }
        out.extend_from_slice(&self.constant);
        stream
    }
}

/// `google.protobuf.Timestamp`.
fn timestamp(time: i64, out: &mut [u8; 20]) -> &[u8] {
    let mut message = Vec::with_capacity(20);
    protobuf::number(&mut message, 1, time.div_euclid(1_000_000_000) as u64);
    protobuf::number(&mut message, 2, time.rem_euclid(1_000_000_000) as u64);
    // Two tags, ten and five bytes at most.
    out[..message.len()].copy_from_slice(&message);
    &out[..message.len()]
}

/// A string of LogQL.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            character if character.is_control() => quoted.push('\u{fffd}'),
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// The unit as a label: what is different at every start would make a stream each.
fn unit_label(unit: &[u8]) -> Cow<'_, str> {
    let unit = text_within(unit, 128).0;
    if let Some((template, rest)) = unit.split_once('@')
        && let Some((_, kind)) = rest.rsplit_once('.')
    {
        return format!("{template}@.{kind}").into();
    }
    for prefix in ["session-", "run-"] {
        if unit.starts_with(prefix)
            && let Some((_, kind)) = unit.rsplit_once('.')
        {
            return format!("{}.{kind}", prefix.trim_end_matches('-')).into();
        }
    }
    unit
}

/// The level as Grafana colours it, from a priority of syslog(3).
fn level(priority: Option<u8>, own: bool) -> &'static str {
    match (priority, own) {
        (Some(b'0'..=b'2'), _) => "critical",
        (Some(b'3'), _) => "error",
        (Some(b'4'), _) => "warn",
        (Some(b'6'), true) | (Some(b'7'), false) => "debug",
        (Some(b'7'), true) => "trace",
        _ => "info",
    }
}

/// Under which name a field of the journal is shipped as structured metadata, if it is.
fn metadata_name(name: &[u8]) -> Option<Cow<'static, str>> {
    Some(match name {
        b"_PID" => "pid".into(),
        b"_COMM" => "comm".into(),
        b"_SOURCE_REALTIME_TIMESTAMP" => "source_timestamp".into(),
        b"SYSLOG_IDENTIFIER" => "identifier".into(),
        // UNIT is what a message of the service manager is about.
        b"UNIT" => "about_unit".into(),
        b"LEVEL" => "level_field".into(),
        b"MESSAGE" | b"PRIORITY" | b"TID" | b"LINE" | b"FILE" => return None,
        _ => {
            let skipped: [&[u8]; 6] = [
                b"_",
                b"CODE_",
                b"SYSLOG_",
                b"INVOCATION_ID",
                b"USER_INVOCATION_ID",
                b"COREDUMP",
            ];
            if skipped.iter().any(|prefix| name.starts_with(prefix)) || name.len() > 64 {
                return None;
            }
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            name.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
                .into()
        }
    })
}

/// The line as text within Loki's limit, and how many bytes were cut off.
fn line_text(message: &[u8]) -> (Cow<'_, str>, usize) {
    text_within(message, LINE_LIMIT)
}

/// Valid UTF-8 of at most `limit` bytes, and how many bytes were cut off.
fn text_within(bytes: &[u8], limit: usize) -> (Cow<'_, str>, usize) {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]);
    let cut = bytes.len().saturating_sub(limit);
    if text.len() <= limit && cut == 0 {
        return (text, 0);
    }
    // Replacements are longer than what they replace, and a cut may go through a character.
    let mut end = text.len().min(limit);
    if cut > 0 {
        end = end.min(text.trim_end_matches('\u{fffd}').len().max(1));
    }
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    (Cow::Owned(text[..end].to_owned()), cut.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        Labels {
            instance: "cache-1".into(),
            service: ("cache-nginx".into(), "cache-docker".into()),
            host: ("host".into(), "larder".into()),
            service_units: vec!["larder-cache.service".into()],
            stream: None,
            metadata: vec![("environment".into(), "production".into())],
        }
    }

    fn stream(streams: &mut Streams, unit: &str, replay: bool) -> String {
        let id = streams.id(unit, replay);
        streams.name(id).into()
    }

    #[test]
    fn streams_are_named_as_saved_queries_name_them() {
        let mut streams = Streams::new(labels());
        assert_eq!(
            stream(&mut streams, "larder-cache.service", false),
            r#"{app="cache-docker", instance="cache-1", job="cache-nginx", unit="larder-cache.service"}"#
        );
        assert_eq!(
            stream(&mut streams, "kernel", true),
            r#"{app="larder", instance="cache-1", job="host", replay="boot", unit="kernel"}"#
        );
        let mut access = Streams::new(Labels {
            stream: Some("access".into()),
            ..labels()
        });
        assert_eq!(
            stream(&mut access, "larder-cache.service", false),
            r#"{app="cache-docker", instance="cache-1", job="cache-nginx", stream="access"}"#
        );
    }

    #[test]
    fn the_number_of_streams_is_bounded() {
        let mut streams = Streams::new(labels());
        for unit in 0..10_000 {
            streams.id(&format!("u{unit}.service"), unit % 2 == 0);
        }
        assert!(
            streams.names.len() <= 2 * UNITS + 2,
            "{}",
            streams.names.len()
        );
        assert!(streams.known.len() <= 2 * UNITS + 1);
        streams.collapse();
        assert!(!stream(&mut streams, "a.service", false).contains("unit"));
    }

    #[test]
    fn units_that_differ_at_every_start_share_a_label() {
        for (unit, label) in [
            ("ssh@7-10.0.0.1:22-10.0.0.2:5.service", "ssh@.service"),
            ("session-17.scope", "session.scope"),
            ("run-r1234.service", "run.service"),
            ("larder-cache.service", "larder-cache.service"),
            ("user@1000.service", "user@.service"),
        ] {
            assert_eq!(unit_label(unit.as_bytes()), label);
        }
    }

    #[test]
    fn levels() {
        assert_eq!(level(Some(b'3'), false), "error");
        assert_eq!(level(Some(b'5'), true), "info");
        assert_eq!(level(Some(b'6'), false), "info");
        assert_eq!(level(Some(b'6'), true), "debug");
        assert_eq!(level(None, false), "info");
    }

    #[test]
    fn long_and_broken_text_is_cut_at_a_character() {
        assert_eq!(text_within(b"abc", 3), ("abc".into(), 0));
        assert_eq!(text_within("aäb".as_bytes(), 2), ("a".into(), 2));
        assert_eq!(text_within(b"\xff\xff", 4).0, "\u{fffd}");
        assert_eq!(text_within(b"a\xffb", 100), ("a\u{fffd}b".into(), 0));
        let long = vec![0xff; 1 << 20];
        let (text, cut) = line_text(&long);
        assert!(text.len() <= LINE_LIMIT && cut >= (1 << 20) - LINE_LIMIT);
    }

    #[test]
    fn fields_become_metadata_under_safe_names() {
        assert_eq!(metadata_name(b"PATH_GROUP").unwrap(), "path_group");
        assert_eq!(metadata_name(b"A.B\xff").unwrap(), "a_b_");
        assert_eq!(metadata_name(b"CODE_FILE"), None);
        assert_eq!(metadata_name(b"_STREAM_ID"), None);
    }
}
