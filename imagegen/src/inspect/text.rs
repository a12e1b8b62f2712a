//! The report on a terminal of 100 columns.

use std::fmt::Write as _;

use super::report::{Report, Size};
use crate::image::tries_left;
use crate::size;

/// Columns of the terminal.
const WIDTH: usize = 100;
/// How many of the largest are listed.
const MOST: usize = 15;

impl Report {
    /// The report; `all` lists every package, file and folder.
    pub fn text(&self, all: bool) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut out, if all { usize::MAX } else { MOST });
        out
    }

    fn write(&self, out: &mut String, most: usize) -> std::fmt::Result {
        self.head(out)?;
        self.partitions(out)?;
        self.boot(out)?;
        self.packages(out, most)?;
        self.largest(out, most)?;
        self.units(out)?;
        if !self.problems.is_empty() {
            writeln!(out, "\nProblems (`imagegen verify` says more)")?;
            for problem in &self.problems {
                wrapped(out, "  ", problem.split(' '))?;
            }
        }
        Ok(())
    }

    fn head(&self, out: &mut String) -> std::fmt::Result {
        match (&self.id, &self.version) {
            (Some(id), Some(version)) => write!(out, "{id} {version}")?,
            _ => write!(out, "{}", self.source)?,
        }
        if let Some(architecture) = &self.architecture {
            write!(out, ", {architecture}")?;
        }
        if let Some(clock) = self.clock.and_then(|clock| u64::try_from(clock).ok()) {
            write!(out, ", packages of {}", packages::date::show(clock))?;
        }
        writeln!(out)?;
        let mut line = |name: &str, value: &str| {
            if !value.is_empty() {
                let first = format!("  {name:9}  ");
                wrapped(out, &first, value.split(' '))?;
            }
            Ok::<_, std::fmt::Error>(())
        };
        let data = match self.data < self.size {
            true => format!(", of which {} are data", size::show(self.data)),
            false => String::new(),
        };
        line(
            "image",
            &format!("{}, {}{data}", self.source, size::show(self.size)),
        )?;
        line("host", self.host.as_deref().unwrap_or_default())?;
        if let Some(uki) = self.boot.first() {
            line("kernel", &uki.uname)?;
            line("cmdline", &uki.cmdline)?;
            line("PCR 11", &uki.pcr11.to_string())?;
        }
        if let Some(root) = &self.root {
            line(
                "root",
                &format!("{} in {} names", size::show(root.bytes), root.names),
            )?;
        }
        line("compiler", self.compiler.as_deref().unwrap_or_default())?;
        for binary in &self.binaries {
            line("binary", &format!("{} {}", binary.sha256, binary.path))?;
        }
        Ok(())
    }

    fn partitions(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "\nPartitions of disk {}, sectors of {} bytes",
            self.disk_guid, self.sector
        )?;
        let labels = self.partitions.iter().map(|p| p.label.chars().count());
        let width = labels.max().unwrap_or(0).max(5);
        writeln!(
            out,
            "  #  {:width$}  {:>8}  {:>7}  {:36}  holds",
            "label", "start", "size", "PARTUUID"
        )?;
        for part in &self.partitions {
            writeln!(
                out,
                "{:>3}  {:width$}  {:>8}  {:>7}  {:36}  {}",
                part.number,
                part.label,
                size::show(part.start),
                size::show(part.size),
                part.guid,
                part.holds
            )?;
        }
        Ok(())
    }

    fn boot(&self, out: &mut String) -> std::fmt::Result {
        if !self.esp.is_empty() {
            writeln!(out, "\nESP")?;
        }
        for file in &self.esp {
            let sha256 = file.sha256.map(|sha256| sha256.to_string());
            let sha256 = sha256.unwrap_or_default();
            writeln!(
                out,
                "  {:>9}  {}…  {}",
                size::show(file.size),
                &sha256[..16.min(sha256.len())],
                file.path
            )?;
        }
        for (at, uki) in self.boot.iter().enumerate() {
            let first = at == 0;
            let mut facts = vec![match tries_left(&uki.path) {
                None => "blessed".to_string(),
                Some(0) => "given up".to_string(),
                Some(1) => "1 try left".to_string(),
                Some(tries) => format!("{tries} tries left"),
            }];
            if !first {
                facts.push(format!(
                    "{} with {}",
                    uki.os_release("PRETTY_NAME").unwrap_or("?"),
                    uki.uname
                ));
            }
            facts.push(if uki.signed { "signed" } else { "not signed" }.to_string());
            if uki.pcr_signed {
                facts.push("PCR policy signed".to_string());
            }
            let name = uki.path.rsplit('/').next().unwrap_or(&uki.path);
            writeln!(out, "\nBoot image {name}: {}", facts.join(", "))?;
            for section in &uki.sections {
                writeln!(
                    out,
                    "  {:>9}  {:9}  {}",
                    size::show(section.size),
                    section.name,
                    section.sha256
                )?;
            }
            if first && !uki.osrel.is_empty() {
                let osrel: Vec<_> = uki.osrel.lines().collect();
                wrapped(out, "  osrel  ", osrel)?;
            }
        }
        Ok(())
    }

    fn packages(&self, out: &mut String, most: usize) -> std::fmt::Result {
        if self.packages.is_empty() {
            return Ok(());
        }
        let known = self.packages.iter().any(|package| package.files.names > 0);
        writeln!(
            out,
            "\n{} packages{}",
            self.packages.len(),
            if known {
                " by the size of their files"
            } else {
                ""
            }
        )?;
        let mut list: Vec<_> = self.packages.iter().collect();
        list.sort_by(|a, b| {
            b.files
                .bytes
                .cmp(&a.files.bytes)
                .then_with(|| a.name.cmp(&b.name))
        });
        let shown = &list[..list.len().min(most)];
        // The few longer ones push what follows, so that no line gets too long.
        let width = shown
            .iter()
            .map(|p| p.name.len())
            .max()
            .unwrap_or(0)
            .min(30);
        let versions = shown
            .iter()
            .map(|p| p.version.len())
            .max()
            .unwrap_or(0)
            .min(22);
        for package in shown {
            let line = format!(
                "  {}{:width$}  {:versions$}  {}",
                size_if(known, package.files),
                package.name,
                package.version,
                package.suite.as_deref().unwrap_or_default()
            );
            writeln!(out, "{}", line.trim_end())?;
        }
        more(out, list.len(), most)?;
        if !self.origins.is_empty() {
            writeln!(out, "\nWhat is of no package")?;
            for (origin, size) in self.origins.iter().take(most) {
                let origin = if origin.is_empty() {
                    "(unknown)"
                } else {
                    origin
                };
                writeln!(out, "  {}{origin}", size_if(true, *size))?;
            }
            more(out, self.origins.len(), most)?;
        }
        Ok(())
    }

    fn largest(&self, out: &mut String, most: usize) -> std::fmt::Result {
        if !self.folders.is_empty() {
            writeln!(out, "\nLargest folders")?;
            for (path, size) in self.folders.iter().take(most) {
                writeln!(out, "  {}{path}", size_if(true, *size))?;
            }
            more(out, self.folders.len(), most)?;
        }
        if !self.files.is_empty() {
            writeln!(out, "\nLargest files")?;
            for file in self.files.iter().take(most) {
                let origin = match file.origin.strip_prefix("package ") {
                    Some(package) => format!("  ({package})"),
                    None if file.origin.is_empty() => String::new(),
                    None => format!("  ({})", file.origin),
                };
                writeln!(out, "  {:>9}  {}{origin}", size::show(file.size), file.path)?;
            }
            more(out, self.files.len(), most)?;
        }
        Ok(())
    }

    fn units(&self, out: &mut String) -> std::fmt::Result {
        let count: usize = self.units.enabled.values().map(|units| units.len()).sum();
        if count > 0 {
            writeln!(out, "\n{count} units start by themselves")?;
        }
        for (by, units) in &self.units.enabled {
            writeln!(out, "  {by}")?;
            wrapped(out, "    ", units.iter().map(String::as_str))?;
        }
        if !self.units.masked.is_empty() {
            writeln!(out, "  masked")?;
            wrapped(out, "    ", self.units.masked.iter().map(String::as_str))?;
        }
        Ok(())
    }
}

fn size_if(known: bool, size: Size) -> String {
    match known {
        true => format!("{:>9}  {:>5}  ", size::show(size.bytes), size.names),
        false => String::new(),
    }
}

fn more(out: &mut String, count: usize, most: usize) -> std::fmt::Result {
    if count > most {
        writeln!(out, "  … and {} more (--all)", count - most)?;
    }
    Ok(())
}

/// Words after `first`, broken into lines that are indented as far.
fn wrapped<'a>(
    out: &mut String,
    first: &str,
    words: impl IntoIterator<Item = &'a str>,
) -> std::fmt::Result {
    let indent = " ".repeat(first.chars().count());
    let mut line = first.to_string();
    let mut empty = true;
    for word in words {
        let fits = line.chars().count() + 1 + word.chars().count() <= WIDTH;
        if !empty && !fits {
            writeln!(out, "{}", line.trim_end())?;
            line.clone_from(&indent);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    writeln!(out, "{}", line.trim_end())
}
