//! `appliance cache ls`, `explain`, `usage`, `purge`, `verify`: what the person on call asks the
//! service that runs on this machine.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cache::control::{Filter, Line, Object, Question, Usage};
use clap::{Args, Subcommand};

/// The control socket of the service.
pub(crate) const SOCKET: &str = "/run/larder/cache.sock";

/// What is asked of the running service.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List objects, oldest first: when stored, bytes, who wrote it, key
    Ls(Selected),
    /// Say everything that is known of one object: who stored it, when, by which request
    Explain {
        /// Its key, as `ls` prints it
        key: String,
        #[command(flatten)]
        output: Output,
    },
    /// Say how full the store is, and what happened since the start
    Usage {
        /// By project as well; reads the head of every object
        #[arg(long)]
        projects: bool,
        #[command(flatten)]
        output: Output,
    },
    Purge(Purge),
    /// Read every byte and say what is damaged, and which objects of the Xcode CAS are not what
    /// their id says; fails if there are any
    Verify(Selected),
}

#[derive(Debug, Args)]
pub(crate) struct Selected {
    #[command(flatten)]
    filter: Which,
    #[command(flatten)]
    output: Output,
}

/// Remove objects for good: those for which all that is given holds.
///
/// Whole projects and accounts are forgotten at once, and uploads to them that are on their way do
/// not land either. A poisoned build is undone by its writer:
///
///     appliance cache purge --writer 5e884898da280471 --since 2026-11-01 --dry-run
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Purge {
    #[command(flatten)]
    filter: Which,
    /// Only list what would be removed
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct Which {
    /// The object of this key, as `ls` prints it
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Those of an account
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    /// Those of a project
    #[arg(long, value_name = "ACCOUNT/PROJECT")]
    project: Option<String>,
    /// Those of a kind: xcode-cas, key-value, module, gradle, action, blob, free
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Those written with a token: its fingerprint (16 hex digits), or its subject
    #[arg(long, value_name = "FINGERPRINT")]
    writer: Option<String>,
    /// Those stored since the begin of a day (UTC), or since a time in ms since 1970
    #[arg(long, value_name = "YYYY-MM-DD")]
    since: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// As lines of JSON
    #[arg(long)]
    json: bool,
    /// Socket of the service
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl Which {
    fn filter(&self) -> Result<Filter> {
        let since = match &self.since {
            None => None,
            Some(text) => Some(since(text).with_context(|| {
                format!("{text:?} is no time; times look like 2026-11-25, or are ms since 1970")
            })?),
        };
        Ok(Filter {
            key: self.key.clone(),
            account: self.account.clone(),
            project: self.project.clone(),
            kind: self.kind.clone(),
            writer: self.writer.clone(),
            since,
        })
    }
}

/// Milliseconds since 1970 of a day or a number.
fn since(text: &str) -> Option<u64> {
    match config::seconds_of_date(text) {
        Some(seconds) => Some(seconds * 1000),
        None => text.parse().ok(),
    }
}

/// Runs a command.
pub(crate) fn run(command: &Command) -> Result<()> {
    let (question, output) = match command {
        Command::Ls(selected) => {
            let filter = selected.filter.filter()?;
            (Question::Ls { filter }, &selected.output)
        }
        Command::Explain { key, output } => (Question::Explain { key: key.clone() }, output),
        Command::Usage { projects, output } => {
            let projects = *projects;
            (Question::Usage { projects }, output)
        }
        Command::Purge(purge) => {
            let (filter, dry_run) = (purge.filter.filter()?, purge.dry_run);
            (Question::Purge { filter, dry_run }, &purge.output)
        }
        Command::Verify(selected) => {
            let filter = selected.filter.filter()?;
            (Question::Verify { filter }, &selected.output)
        }
    };
    let long = matches!(question, Question::Explain { .. });
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let (mut problems, mut last) = (0_u64, None);
    ask(&output.socket, &question, |line| {
        problems += u64::from(matches!(line, Line::Problem { .. }));
        if output.json {
            writeln!(out, "{}", serde_json::to_string(&line)?)?;
        } else {
            out.write_all(words(&line, long).as_bytes())?;
        }
        last = Some(line);
        Ok(())
    })?;
    out.flush().context("cannot print")?;
    match last {
        Some(Line::Done { .. }) if problems == 0 => Ok(()),
        Some(Line::Done { .. }) => bail!("{problems} objects are not as they should be"),
        Some(Line::Failed { why }) => bail!("{why}"),
        _ => bail!("the service broke the answer off; its journal says why"),
    }
}

/// Asks the service a question and gives every line of the answer to `each`.
///
/// # Errors
///
/// It could not be asked, or `each` failed.
pub(crate) fn ask(
    socket: &Path,
    question: &Question,
    mut each: impl FnMut(Line) -> Result<()>,
) -> Result<()> {
    let failed = || {
        format!(
            "cannot ask the service at {}: does it run on this machine, and is this root?",
            socket.display()
        )
    };
    let mut stream = UnixStream::connect(socket).with_context(failed)?;
    let mut text = serde_json::to_string(question)?;
    text.push('\n');
    stream.write_all(text.as_bytes()).with_context(failed)?;
    for line in BufReader::new(stream).lines() {
        let line = line.context("the answer broke off")?;
        each(serde_json::from_str(&line).context("the service says what is not understood")?)?;
    }
    Ok(())
}

/// A line for people.
fn words(line: &Line, long: bool) -> String {
    match line {
        Line::Object(object) if long => explained(object),
        Line::Object(object) => {
            let who = match &*object.subject {
                "" => object.fingerprint.clone(),
                subject => format!("{} {}", object.fingerprint, printable(subject)),
            };
            let time = time(object.time);
            format!("{time} {:>12} {who} {}\n", object.bytes, object.key)
        }
        Line::Usage(usage) => usage_words(usage),
        Line::Project {
            project,
            objects,
            bytes,
        } => format!("{project}: {objects} objects, {}\n", size(*bytes)),
        Line::Problem { key, what } => format!("{key}: {what}\n"),
        Line::Done { objects, bytes } if !long => {
            format!("{objects} objects, {}\n", size(*bytes))
        }
        Line::Done { .. } | Line::Failed { .. } => String::new(),
    }
}

fn explained(object: &Object) -> String {
    let or = |text: &str| match text {
        "" => "-".into(),
        text => printable(text),
    };
    let sha256 = object.sha256.as_deref().unwrap_or("not declared");
    format!(
        "key          {}\nbytes        {}\nstored       {}\nby token     {}\nsubject      {}\n\
         request      {}\nSHA-256      {sha256}\nETag         \"{}\"\npinned       {}\nnote         {}\n",
        object.key,
        object.bytes,
        time(object.time),
        object.fingerprint,
        or(&object.subject),
        or(&object.request),
        object.content,
        if object.pinned { "yes" } else { "no" },
        or(&object.note),
    )
}

fn usage_words(usage: &Usage) -> String {
    let percent = (usage.used * 100).checked_div(usage.capacity).unwrap_or(0);
    let index = if usage.recovered {
        ""
    } else {
        " (the index is still being read)"
    };
    let mut text = format!(
        "store        {}\nobjects      {}{index}\nused         {} of {} ({percent} %)\n\
         pinned       {}\nindex        {} of memory\nunfinished   {} uploads, {}\n",
        usage.status,
        usage.objects,
        size(usage.used),
        size(usage.capacity),
        size(usage.pinned),
        size(usage.index_bytes),
        usage.sessions,
        size(usage.unfinished),
    );
    for (name, count) in usage.counts.iter().filter(|(_, count)| *count > 0) {
        text += &format!("{:12} {count}\n", name.replace('_', " "));
    }
    text
}

/// A text from outside without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                '?'
            } else {
                character
            }
        })
        .collect()
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for next in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    match unit {
        "B" => format!("{bytes} B"),
        unit => format!("{value:.1} {unit}"),
    }
}

/// A time (ms since 1970) in UTC.
fn time(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil date of a day (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(1_709_251_199_999), "2024-02-29T23:59:59Z");
        assert_eq!(time(1_795_651_200_000), "2026-11-26T00:00:00Z");
        assert_eq!(since("2026-11-26"), Some(1_795_651_200_000));
        assert_eq!(since("17"), Some(17));
        assert_eq!(since("yesterday"), None);
    }

    #[test]
    fn sizes() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(3 << 40), "3.0 TiB");
    }

    #[test]
    fn what_clients_wrote_moves_no_cursor() {
        let object = Object {
            key: "free:a/b:c".into(),
            bytes: 3,
            time: 0,
            fingerprint: "0123456789abcdef".into(),
            subject: "\u{1b}[2Jx".into(),
            request: "r\n".into(),
            sha256: None,
            content: String::new(),
            pinned: false,
            note: String::new(),
        };
        for long in [false, true] {
            let text = words(&Line::Object(object.clone()), long);
            assert!(text.contains("?[2Jx") && !text.contains('\u{1b}'), "{text}");
        }
        let line = words(&Line::Object(object), false);
        assert_eq!(
            line,
            "1970-01-01T00:00:00Z            3 0123456789abcdef ?[2Jx free:a/b:c\n"
        );
    }
}
