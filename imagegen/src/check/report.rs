//! What `imagegen check` found, in words and as JSON.

use std::fmt::Write as _;
use std::path::Path;

use packages::{KernelNews, Lock};
use serde::Serialize;

const DAY: u64 = 86_400;
/// Days after which a lock misses security updates that somebody wants.
const OLD: u64 = 30;

/// Everything that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// The fleet; empty if the configuration is wrong.
    pub hosts: Vec<String>,
    /// The lock; none if it cannot be read.
    pub lock: Option<Locked>,
    /// Its kernels.
    pub kernels: Vec<Kernel>,
    /// What an update of all packages would change, in words; none if nobody asked.
    pub news: Option<String>,
    /// The secrets, if there is a manifest of them that is right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Secrets>,
}

/// The manifest of secrets.
#[derive(Clone, Debug, Serialize)]
pub struct Secrets {
    /// How many there are.
    pub count: usize,
    /// The least that the token of a machine must be allowed, a line each.
    pub privileges: Vec<String>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// Line, from 1; none if it is about the whole file.
    pub line: Option<usize>,
    /// Column in characters, from 1.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub hint: String,
    /// As it is shown to people.
    #[serde(skip)]
    text: String,
}

impl Problem {
    /// About a whole file; `message` may begin with its path.
    pub(super) fn plain(path: &Path, message: &str) -> Self {
        let file = path.display().to_string();
        let message = message
            .strip_prefix(&format!("{file}: "))
            .unwrap_or(message);
        Self {
            message: message.to_owned(),
            file,
            line: None,
            column: None,
            hint: String::new(),
            text: String::new(),
        }
    }

    /// About a line of a manifest of secrets.
    pub(super) fn secret(path: &Path, problem: &secrets::manifest::Problem) -> Self {
        let mut told = Self::plain(path, &problem.message);
        if problem.line > 0 {
            told.line = Some(problem.line);
            told.text = format!("{}:{}: {}", told.file, problem.line, problem.message);
        }
        told
    }

    fn show(&self) -> String {
        match (self.text.as_str(), self.hint.as_str()) {
            ("", "") => format!("{}: {}", self.file, self.message),
            ("", hint) => format!("{}: {}\n  = {hint}", self.file, self.message),
            (text, _) => text.to_owned(),
        }
    }
}

impl From<&config::Error> for Problem {
    fn from(error: &config::Error) -> Self {
        Self {
            file: error.file.display().to_string(),
            line: error.at.as_ref().map(|at| at.line),
            column: error.at.as_ref().map(|at| at.column),
            message: error.message.clone(),
            hint: error.hint.clone(),
            text: error.to_string(),
        }
    }
}

/// The lock.
#[derive(Clone, Debug, Serialize)]
pub struct Locked {
    /// Whether it was made for this configuration.
    pub fits: bool,
    /// Date of the newest index that it was made from, seconds since 1970.
    pub date: u64,
    /// Its age in days.
    pub age_days: u64,
    /// Packages of the image, without kernels.
    pub packages: usize,
    /// Bytes of all packages.
    pub download: u64,
}

impl Locked {
    pub(super) fn new(lock: &Lock, now: u64) -> Self {
        Self {
            fits: false,
            date: lock.date,
            age_days: now.saturating_sub(lock.date) / DAY,
            packages: lock.system().count(),
            download: lock.download_size(),
        }
    }
}

/// A locked kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Kernel {
    /// Its name in `image.toml`.
    pub name: String,
    /// Whether it is the one that boots.
    pub default: bool,
    /// Version that is locked.
    pub version: String,
    /// Suite that it came from.
    pub suite: String,
    /// When it was built, seconds since 1970; none as long as it is not downloaded.
    pub built: Option<u64>,
    /// Days since then.
    pub age_days: Option<u64>,
    /// What is newer, in words; none if nobody asked.
    pub news: Option<String>,
}

impl Kernel {
    pub(super) fn new(
        name: &str,
        (version, suite): (String, String),
        built: Option<u64>,
        default: bool,
        now: u64,
    ) -> Self {
        Self {
            name: name.to_owned(),
            default,
            version,
            suite,
            built,
            age_days: built.map(|built| now.saturating_sub(built) / DAY),
            news: None,
        }
    }

    /// Takes in what the mirrors said.
    pub(super) fn tell(&mut self, news: KernelNews) {
        let text = news.to_string();
        let known = format!("kernel {}: {}", self.name, self.version);
        let text = text.strip_prefix(&known).unwrap_or(&text);
        self.news = Some(match text.trim_start_matches("; ") {
            "" => "the newest".to_owned(),
            text => text.to_owned(),
        });
    }
}

impl Report {
    /// What is not wrong, in words.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        if !self.hosts.is_empty() {
            let _ = writeln!(
                text,
                "configuration: {}: {}",
                count(self.hosts.len(), "host"),
                self.hosts.join(", ")
            );
        }
        if let Some(secrets) = &self.secrets {
            let _ = writeln!(
                text,
                "secrets: {}; the token of a machine needs, and nothing more:",
                secrets.count
            );
            for privilege in &secrets.privileges {
                let _ = writeln!(text, "  {privilege}");
            }
        }
        if let Some(lock) = &self.lock {
            let old = match lock.age_days > OLD {
                true => "; `imagegen lock --update` brings it up to date",
                false => "",
            };
            let _ = writeln!(
                text,
                "lock: {}, {:.1} MB with kernels, as of {}, {}{old}",
                count(lock.packages, "package"),
                lock.download as f64 / 1e6,
                day(lock.date),
                age(lock.age_days),
            );
        }
        for kernel in &self.kernels {
            let boots = if kernel.default { ", which boots" } else { "" };
            let _ = write!(
                text,
                "kernel {}{boots}: {} ({})",
                kernel.name, kernel.version, kernel.suite
            );
            let _ = match (kernel.built, kernel.age_days) {
                (Some(built), Some(days)) => write!(text, ", built {}, {}", day(built), age(days)),
                _ => write!(text, ", not downloaded yet"),
            };
            let _ = match &kernel.news {
                Some(news) => writeln!(text, "; {news}"),
                None => writeln!(text),
            };
        }
        if let Some(news) = &self.news {
            let _ = writeln!(text, "an update of all packages: {}", indent(news));
        }
        text
    }

    /// What is wrong, in words; empty if nothing is.
    #[must_use]
    pub fn problems(&self) -> String {
        let shown: Vec<String> = self.problems.iter().map(Problem::show).collect();
        match shown.len() {
            0 => String::new(),
            1 => format!("{}\n", shown[0]),
            number => format!("{}\n\n{number} errors\n", shown.join("\n\n")),
        }
    }
}

/// Several lines are set off from the line that announces them.
fn indent(text: &str) -> String {
    match text.contains('\n') {
        true => text
            .lines()
            .fold(String::new(), |all, line| all + "\n  " + line),
        false => text.to_owned(),
    }
}

fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

fn age(days: u64) -> String {
    match days {
        0 => "today".to_owned(),
        1 => "a day old".to_owned(),
        days => format!("{days} days old"),
    }
}

fn day(seconds: u64) -> String {
    let shown = packages::date::show(seconds);
    shown.split(' ').next().unwrap_or_default().to_owned()
}
