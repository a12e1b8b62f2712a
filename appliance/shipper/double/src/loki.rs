//! Loki, as far as its push endpoint is concerned.

use std::collections::{BTreeMap, BTreeSet};

use crate::protobuf::fields;

const HOUR: i64 = 3600 * 1_000_000_000;

/// Limits, with Loki's defaults.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest request in bytes, uncompressed.
    pub request_bytes: usize,
    /// Longest line in bytes.
    pub line_bytes: usize,
    /// Longer lines are cut instead of refused (`max_line_size_truncate`).
    pub truncate: bool,
    /// Every request must name a tenant (`auth_enabled`).
    pub tenants: bool,
    /// Most streams.
    pub streams: usize,
    /// Most bytes of lines until [`Loki::refill`]; `None`: any.
    pub rate_bytes: Option<usize>,
    /// The same for each stream.
    pub stream_rate_bytes: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 100 << 20,
            line_bytes: 256 << 10,
            truncate: false,
            tenants: false,
            streams: 5000,
            rate_bytes: None,
            stream_rate_bytes: None,
        }
    }
}

/// A line that is stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// ns since 1970.
    pub time: i64,
    /// The text.
    pub text: String,
    /// Structured metadata.
    pub metadata: Vec<(String, String)>,
}

impl Line {
    /// A value of its metadata.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.metadata
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What was pushed.
#[derive(Debug, Default)]
pub struct Loki {
    /// Limits.
    pub limits: Limits,
    /// Stored lines by stream, in the order of their arrival.
    pub streams: BTreeMap<String, Vec<Line>>,
    /// Lines that were refused.
    pub refused: usize,
    /// Lines that were there already.
    pub duplicates: usize,
    used: usize,
    used_by_stream: BTreeMap<String, usize>,
    refuse: Option<usize>,
    /// What was refused by [`Loki::refuse_next`] always will be.
    unwanted: BTreeSet<(String, i64, String)>,
    known: BTreeSet<(String, i64, String)>,
}

impl Loki {
    /// One with other limits.
    pub fn limited(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// How many lines [`Loki::refuse_next`] has kept out.
    pub fn unwanted(&self) -> usize {
        self.unwanted.len()
    }

    /// All stored lines.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.streams.values().flatten()
    }

    /// Gives back what the rate limit took.
    pub fn refill(&mut self) {
        self.used = 0;
        self.used_by_stream.clear();
    }

    /// The next request meets a stream that is ahead of it: one line in `every` is too far behind, and
    /// will be for ever.
    pub fn refuse_next(&mut self, every: usize) {
        self.refuse = Some(every);
    }

    /// [`Loki::push_as`] nobody in particular.
    pub fn push(&mut self, content_type: &str, body: &[u8], now: i64) -> (u16, String) {
        self.push_as(None, content_type, body, now)
    }

    /// `POST /loki/api/v1/push` with the header `X-Scope-OrgID`: status and text, by its clock `now` in
    /// ns since 1970.
    pub fn push_as(
        &mut self,
        tenant: Option<&str>,
        content_type: &str,
        body: &[u8],
        now: i64,
    ) -> (u16, String) {
        if self.limits.tenants && tenant.is_none_or(str::is_empty) {
            return (401, "no org id".into());
        }
        if content_type != "application/x-protobuf" {
            return (400, format!("Content type {content_type} is not supported"));
        }
        let length = match snap::raw::decompress_len(body) {
            Ok(length) => length,
            Err(error) => return (400, error.to_string()),
        };
        if length > self.limits.request_bytes {
            return (413, "message larger than max".into());
        }
        let raw = match snap::raw::Decoder::new().decompress_vec(body) {
            Ok(raw) => raw,
            Err(error) => return (400, format!("snappy: {error}")),
        };
        match decode(&raw) {
            Ok(streams) => self.store(streams, now),
            Err(error) => (400, error),
        }
    }

    fn store(&mut self, streams: Vec<(String, Vec<Line>)>, now: i64) -> (u16, String) {
        if streams.is_empty() {
            return (
                422,
                "error at least one valid stream is required for ingestion".into(),
            );
        }
        let bytes: usize = streams
            .iter()
            .flat_map(|(_, lines)| lines)
            .map(|line| line.text.len())
            .sum();
        if self
            .limits
            .rate_bytes
            .is_some_and(|rate| self.used + bytes > rate)
        {
            return (429, "Ingestion rate limit exceeded for user fake".into());
        }
        for (labels, lines) in &streams {
            let bytes: usize = lines.iter().map(|line| line.text.len()).sum();
            let used = self.used_by_stream.get(labels).copied().unwrap_or(0) + bytes;
            if self
                .limits
                .stream_rate_bytes
                .is_some_and(|rate| used > rate)
            {
                return (
                    429,
                    format!(
                        "Per stream rate limit exceeded (limit: 3MB/sec) while attempting to ingest for stream '{labels}'"
                    ),
                );
            }
        }
        let new = streams
            .iter()
            .filter(|(labels, _)| !self.streams.contains_key(labels))
            .count();
        if self.streams.len() + new > self.limits.streams {
            return (
                429,
                "Maximum active stream limit exceeded when trying to create stream".into(),
            );
        }
        for (labels, _) in &streams {
            if let Err(error) = check_labels(labels) {
                return (400, error);
            }
        }
        self.used += bytes;
        let refuse = self.refuse.take();
        let mut count = 0;
        let mut errors = Vec::new();
        for (labels, lines) in streams {
            let total = lines.len();
            let bytes: usize = lines.iter().map(|line| line.text.len()).sum();
            *self.used_by_stream.entry(labels.clone()).or_default() += bytes;
            let labels = if labels == "{}" {
                r#"{service_name="unknown_service"}"#.to_owned()
            } else {
                labels
            };
            let stored = self.streams.entry(labels.clone()).or_default();
            let mut newest = stored
                .iter()
                .map(|line| line.time)
                .max()
                .unwrap_or(i64::MIN);
            let mut last = None;
            let mut ignored = 0;
            for mut line in lines {
                count += 1;
                if self.limits.truncate && line.text.len() > self.limits.line_bytes {
                    let limit = self.limits.line_bytes;
                    let end = (0..=limit).rfind(|end| line.text.is_char_boundary(*end));
                    line.text.truncate(end.unwrap_or(0));
                }
                let identity = (labels.clone(), line.time, line.text.clone());
                if refuse.is_some_and(|every| count % every == 0) && !self.known.contains(&identity)
                {
                    self.unwanted.insert(identity.clone());
                }
                let metadata: usize = line.metadata.iter().map(|(n, v)| n.len() + v.len()).sum();
                let error = if line.time < now - 168 * HOUR {
                    Some("timestamp too old")
                } else if line.time > now + HOUR / 6 {
                    Some("timestamp too new")
                } else if line.text.len() > self.limits.line_bytes {
                    Some("Max entry size exceeded")
                } else if line.metadata.len() > 128 || metadata > 64 << 10 {
                    Some("stream has structured metadata too large")
                } else if line.time < newest.saturating_sub(HOUR)
                    || self.unwanted.contains(&identity)
                {
                    Some(
                        "entry too far behind, oldest acceptable timestamp is an hour before the newest",
                    )
                } else {
                    None
                };
                if let Some(error) = error {
                    ignored += 1;
                    last = Some(error);
                    continue;
                }
                newest = newest.max(line.time);
                if self.known.insert(identity) {
                    stored.push(line);
                } else {
                    self.duplicates += 1;
                }
            }
            if let Some(error) = last {
                self.refused += ignored;
                errors.push(format!("{error}\nuser 'fake', total ignored: {ignored} out of {total} for stream: {labels}"));
            }
        }
        if errors.is_empty() {
            (204, String::new())
        } else {
            (400, errors.join("\n"))
        }
    }
}

/// `logproto.PushRequest`.
fn decode(raw: &[u8]) -> Result<Vec<(String, Vec<Line>)>, String> {
    let mut streams = Vec::new();
    for (number, value) in fields(raw)? {
        if number != 1 {
            continue;
        }
        let mut labels = None;
        let mut lines = Vec::new();
        for (number, value) in fields(value.bytes()?)? {
            match number {
                1 => labels = Some(value.text()?),
                2 => lines.push(line(value.bytes()?)?),
                _ => {}
            }
        }
        streams.push((labels.unwrap_or_default(), lines));
    }
    Ok(streams)
}

fn line(raw: &[u8]) -> Result<Line, String> {
    let mut line = Line {
        time: 0,
        text: String::new(),
        metadata: Vec::new(),
    };
    for (number, value) in fields(raw)? {
        match number {
            1 => {
                for (number, value) in fields(value.bytes()?)? {
                    let scale = if number == 1 { 1_000_000_000 } else { 1 };
                    line.time += value.number()? * scale;
                }
            }
            // Go's strings hold any bytes.
            2 => line.text = String::from_utf8_lossy(value.bytes()?).into_owned(),
            3 => {
                let mut pair = (String::new(), String::new());
                for (number, value) in fields(value.bytes()?)? {
                    *(if number == 1 {
                        &mut pair.0
                    } else {
                        &mut pair.1
                    }) = value.text()?;
                }
                line.metadata.push(pair);
            }
            other => return Err(format!("proto: unexpected field {other}")),
        }
    }
    Ok(line)
}

/// `{a="b", …}` as LogQL wants it.
fn check_labels(labels: &str) -> Result<(), String> {
    let error = || Err(format!("error parsing labels {labels}: syntax error"));
    let Some(inner) = labels
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
    else {
        return error();
    };
    let mut rest = inner;
    let mut count = 0;
    while !rest.is_empty() {
        let Some((name, after)) = rest.split_once("=\"") else {
            return error();
        };
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        if !name.starts_with(letter) || !name.chars().all(|c| letter(c) || c.is_ascii_digit()) {
            return error();
        }
        let mut escaped = false;
        let end = after.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else {
            return error();
        };
        if name.len() > 1024 || end > 2048 {
            return Err("stream has label too long".into());
        }
        count += 1;
        rest = &after[end + 1..];
        if !rest.is_empty() {
            let Some(next) = rest.strip_prefix(", ").or_else(|| rest.strip_prefix(',')) else {
                return error();
            };
            rest = next;
        }
    }
    if count > 15 {
        Err("entry for stream has 16 label names; limit 15".into())
    } else {
        Ok(())
    }
}
