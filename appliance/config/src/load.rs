//! Reading the files: every error of every file at once, each with its place.
//!
//! serde stops at the first thing that it cannot take. So what it complained about is taken out of
//! the document and the rest is tried again, until nothing is left to complain about.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use crate::error::{At, Error, Errors};
use crate::words;

/// No file has that many errors that somebody wants to read.
const MOST: usize = 100;

/// One step of the way from the top of a document to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.into())
    }
}

impl From<&String> for Step {
    fn from(key: &String) -> Self {
        Self::Key(key.clone())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// The way to a value: `place!["hosts", name, "network", "links", 0]`.
macro_rules! place {
    ($($step:expr),* $(,)?) => { Vec::from([$($crate::load::Step::from($step)),*]) };
}
pub(crate) use place;

/// What a check found wrong.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    place: Vec<Step>,
    message: String,
    hint: String,
}

/// Collects what checks find wrong in one file.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Problem>);

impl Report {
    /// `message` says what is wrong with the value at `place`, `hint` what would be right.
    pub(crate) fn wrong(
        &mut self,
        place: Vec<Step>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.0.push(Problem {
            place,
            message: message.into(),
            hint: hint.into(),
        });
    }
}

/// A configuration file.
pub(crate) trait File: DeserializeOwned {
    /// Its name.
    const NAME: &'static str;

    /// Says what is wrong in it though its form is right.
    fn check(&self, report: &mut Report);
}

/// A file's text, for showing places in it.
pub(crate) struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Reads the file `T` of a folder.
    pub(crate) fn read<T: File>(folder: &Path) -> Result<Self, Errors> {
        let path = folder.join(T::NAME);
        let error = |message: String, hint: &str| {
            Errors(vec![Error {
                file: path.clone(),
                at: None,
                message,
                hint: hint.into(),
            }])
        };
        let bytes = std::fs::read(&path).map_err(|cause| {
            let hint = match cause.kind() {
                std::io::ErrorKind::NotFound => "the folder of the configuration holds image.toml, system.toml, fleet.toml, cache.toml and shipper.toml",
                _ => "",
            };
            error(format!("cannot read it: {cause}"), hint)
        })?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { path, text }),
            Err(cause) => {
                let valid = cause.utf8_error().valid_up_to();
                let before = &cause.as_bytes()[..valid];
                let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
                Err(error(format!("line {line} is not UTF-8"), "TOML is UTF-8"))
            }
        }
    }

    /// A file of this text.
    pub(crate) fn of_text(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
        }
    }

    /// Parses and checks it.
    pub(crate) fn parse<T: File>(&self) -> Result<T, Errors> {
        let value: T = self.shape()?;
        let mut report = Report::default();
        value.check(&mut report);
        self.verdict(report)?;
        Ok(value)
    }

    /// An error if anything was reported.
    pub(crate) fn verdict(&self, report: Report) -> Result<(), Errors> {
        let mut errors: Vec<Error> = report.0.into_iter().map(|p| self.problem(p)).collect();
        errors.sort_by_key(|error| error.at.as_ref().map(|at| (at.line, at.column)));
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Errors(errors))
        }
    }

    fn error(&self, span: Option<Range<usize>>, message: String, hint: String) -> Error {
        let mut at = span.map(|span| At::new(&self.text, &span));
        if let Some(at) = at.as_mut().filter(|at| words::secret(&at.text)) {
            at.redact();
        }
        Error {
            file: self.path.clone(),
            at,
            message,
            hint,
        }
    }

    fn problem(&self, problem: Problem) -> Error {
        let (document, _) = DeTable::parse_recoverable(&self.text);
        let span = find(&document, &problem.place);
        let message = format!("{}: {}", name(&problem.place), problem.message);
        let mut error = self.error(Some(span), message, problem.hint);
        if secret(&problem.place)
            && let Some(at) = &mut error.at
        {
            at.redact();
        }
        error
    }

    /// What is wrong with the syntax. A table that is there twice brings all its keys twice.
    fn syntax(&self, found: &[toml::de::Error]) -> Errors {
        let mut errors = Vec::new();
        let mut twice: Option<usize> = None;
        for error in found.iter().take(MOST) {
            let span = error.span().unwrap_or(0..0);
            let at = At::new(&self.text, &span);
            let double = error.message().contains("duplicate key");
            let header = at.text.trim_start().starts_with('[');
            let between = twice.and_then(|from| self.text.get(from..span.start));
            let consequence = between.is_some_and(|text| !text.contains("\n["));
            if double && !header && consequence {
                continue;
            }
            if double && header {
                twice = Some(span.end);
            }
            let (message, hint) = match double {
                true => self.twice(&at, &span, header),
                false => (error.message().trim().to_owned(), String::new()),
            };
            errors.push(self.error(Some(span), message, hint));
        }
        Errors(errors)
    }

    fn twice(&self, at: &At, span: &Range<usize>, header: bool) -> (String, String) {
        if !header {
            let key = self.text.get(span.clone()).unwrap_or_default();
            let message = format!("the key `{key}` is there twice in its table");
            return (message, "leave one of the two".into());
        }
        let table = at.text.trim();
        let first = self.text.lines().position(|line| line.trim() == table);
        let message = match first.map(|line| line + 1).filter(|line| *line < at.line) {
            Some(line) => format!("{table} is there twice, first in line {line}"),
            None => format!("{table} is there twice"),
        };
        (
            message,
            "another name for one of the two, or one table for both".into(),
        )
    }

    /// Brings the text into the form of `T`.
    fn shape<T: File>(&self) -> Result<T, Errors> {
        let (document, syntax) = DeTable::parse_recoverable(&self.text);
        if !syntax.is_empty() {
            return Err(self.syntax(&syntax));
        }
        let mut rest = document.clone();
        let mut errors = Vec::new();
        // Keys taken out, with the table that they were in: it may lack them for that reason only.
        let mut taken: Vec<(Range<usize>, String)> = Vec::new();
        while errors.len() < MOST {
            let error = match T::deserialize(Deserializer::from(rest.clone())) {
                Ok(value) if errors.is_empty() => return Ok(value),
                Ok(_) => break,
                Err(error) => error,
            };
            let span = error.span().unwrap_or_else(|| document.span());
            let lacks = words::missing(error.message());
            let consequence = lacks.is_some_and(|key| {
                taken
                    .iter()
                    .any(|(table, name)| *table == span && name == key)
            });
            if !consequence {
                let place = way(&document, &span).unwrap_or_default();
                let (message, hint) = words::shape(error.message(), &place, secret(&place));
                // The whole file is no place in it.
                let at = (span != document.span()).then(|| span.clone());
                let mut error = self.error(at, message, hint);
                if let Some(at) = error.at.as_mut().filter(|_| secret(&place)) {
                    at.redact();
                }
                errors.push(error);
            }
            match take(&mut rest, &span) {
                Some(gone) => taken.push(gone),
                None => break,
            }
        }
        errors.sort_by_key(|error| error.at.as_ref().map(|at| (at.line, at.column)));
        Err(Errors(errors))
    }
}

/// Whether a secret may stand here by mistake: a token instead of its hash, a private key.
fn secret(place: &[Step]) -> bool {
    place
        .iter()
        .any(|step| matches!(step, Step::Key(key) if words::secret(key)))
}

/// `hosts.one.network.links[0]`; a key that is no bare key is quoted.
pub(crate) fn name(place: &[Step]) -> String {
    let mut text = String::new();
    for step in place {
        match step {
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                if !key.is_empty() && key.bytes().all(bare) {
                    text.push_str(key);
                } else {
                    text.push_str(&format!("{key:?}"));
                }
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Where `place` is: the value; if it is missing, the last key on the way that is there.
fn find(document: &Spanned<DeTable<'_>>, place: &[Step]) -> Range<usize> {
    let mut span = 0..0;
    let mut table = Some(document.get_ref());
    let mut value: Option<&Spanned<DeValue<'_>>> = None;
    for (number, step) in place.iter().enumerate() {
        let last = number + 1 == place.len();
        let found = match step {
            Step::Key(key) => table
                .or_else(|| value.and_then(|value| value.get_ref().as_table()))
                .and_then(|table| table.get_key_value(key.as_str()))
                .map(|(key, value)| {
                    // A table's own span may be anything from a header to nothing: its key is better.
                    let whole = value.get_ref().is_table() || !last;
                    (if whole { key.span() } else { value.span() }, value)
                }),
            Step::Index(index) => value
                .and_then(|value| value.get_ref().as_array())
                .and_then(|array| array.get(*index))
                .map(|value| (value.span(), value)),
        };
        let Some((at, next)) = found else { break };
        if !at.is_empty() {
            span = at;
        }
        (table, value) = (None, Some(next));
    }
    span
}

/// The way to the key or value that has this span.
fn way(document: &Spanned<DeTable<'_>>, span: &Range<usize>) -> Option<Vec<Step>> {
    fn within(table: &DeTable<'_>, span: &Range<usize>, way: &mut Vec<Step>) -> bool {
        for (key, value) in table {
            way.push(Step::Key(key.get_ref().to_string()));
            if key.span() == *span || inside(value, span, way) {
                return true;
            }
            way.pop();
        }
        false
    }
    fn inside(value: &Spanned<DeValue<'_>>, span: &Range<usize>, way: &mut Vec<Step>) -> bool {
        if value.span() == *span {
            return true;
        }
        match value.get_ref() {
            DeValue::Table(table) => within(table, span, way),
            DeValue::Array(array) => array.iter().enumerate().any(|(index, value)| {
                way.push(Step::Index(index));
                let found = inside(value, span, way);
                if !found {
                    way.pop();
                }
                found
            }),
            _ => false,
        }
    }
    let mut way = Vec::new();
    within(document.get_ref(), span, &mut way).then_some(way)
}

/// Takes the entry or element that has this span out; gives the span of the table that it was in
/// and its key.
fn take(
    document: &mut Spanned<DeTable<'_>>,
    span: &Range<usize>,
) -> Option<(Range<usize>, String)> {
    fn from_table(
        table: &mut DeTable<'_>,
        own: &Range<usize>,
        span: &Range<usize>,
    ) -> Option<(Range<usize>, String)> {
        let found = table
            .iter()
            .find(|(key, value)| key.span() == *span || value.span() == *span)
            .map(|(key, _)| key.get_ref().to_string());
        if let Some(key) = found {
            table.remove(key.as_str());
            return Some((own.clone(), key));
        }
        table
            .iter_mut()
            .find_map(|(_, value)| from_value(value, span))
    }
    fn from_value(
        value: &mut Spanned<DeValue<'_>>,
        span: &Range<usize>,
    ) -> Option<(Range<usize>, String)> {
        let own = value.span();
        match value.get_mut() {
            DeValue::Table(table) => from_table(table, &own, span),
            DeValue::Array(array) => {
                if let Some(index) = array.iter().position(|value| value.span() == *span) {
                    let others = array.iter().enumerate().filter(|(at, _)| *at != index);
                    let others: Vec<_> = others.map(|(_, value)| value.clone()).collect();
                    *array = others.into_iter().collect();
                    return Some((own, String::new()));
                }
                array.iter_mut().find_map(|value| from_value(value, span))
            }
            _ => None,
        }
    }
    let own = document.span();
    from_table(document.get_mut(), &own, span)
}
