//! The changes in words, on a terminal of 100 columns.

use std::fmt::Write as _;

use super::changes::{Attribute, Changes, FileChange, Source};
use super::settings::SettingChange;
use crate::manifest::Type;
use crate::size;

/// Columns of the terminal.
const WIDTH: usize = 100;
/// Where the modules of kernels are.
const MODULES: &str = "/usr/lib/modules/";
/// Most lines of a text, and files of one origin, without `--all`.
const MOST: usize = 20;

impl Changes {
    /// What changed; `all` also lists the files of packages with another version.
    pub fn text(&self, all: bool) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut out, all);
        out
    }

    fn write(&self, out: &mut String, all: bool) -> std::fmt::Result {
        if self.is_empty() {
            return writeln!(
                out,
                "No difference: {}, root hash {}",
                self.new.name, self.new.root_hash
            );
        }
        writeln!(out, "{}", change(&self.old.name, &self.new.name))?;
        self.boot(out)?;
        self.packages(out)?;
        self.units(out)?;
        self.settings(out)?;
        self.files(out, all)?;
        self.sizes(out)
    }

    fn boot(&self, out: &mut String) -> std::fmt::Result {
        if let Some((old, new)) = &self.kernel {
            writeln!(out, "kernel {}", change(old, new))?;
        }
        if !self.cmdline_removed.is_empty() {
            writeln!(out, "command line lost {}", self.cmdline_removed.join(" "))?;
        }
        if !self.cmdline_added.is_empty() {
            writeln!(out, "command line got {}", self.cmdline_added.join(" "))?;
        }
        if let Some((old, new)) = &self.compiler {
            writeln!(out, "compiler {}", change(old, new))?;
        }
        if !self.boot_sections.is_empty() {
            writeln!(out, "boot image: {}", self.boot_sections.join(", "))?;
        }
        if self.pcr11 {
            writeln!(
                out,
                "PCR 11 differs: what is sealed to its value alone must be sealed anew"
            )?;
        }
        for file in &self.esp {
            writeln!(out, "ESP: {file}")?;
        }
        for (name, old, new) in &self.partitions {
            let show = |bytes: u64| match bytes {
                0 => "none".to_string(),
                bytes => size::show(bytes),
            };
            writeln!(out, "partition {name}: {} → {}", show(*old), show(*new))?;
        }
        Ok(())
    }

    fn packages(&self, out: &mut String) -> std::fmt::Result {
        let dates = |side: &Source| {
            let clock = side.clock.and_then(|clock| u64::try_from(clock).ok());
            clock.map(|clock| packages::date::show(clock)[..10].to_string())
        };
        let dates = match (dates(&self.old), dates(&self.new)) {
            (Some(old), Some(new)) if old != new => format!(", those of {old} → {new}"),
            _ => String::new(),
        };
        if self.packages.is_empty() {
            return writeln!(out, "\nNo package changed{dates}");
        }
        let count = |old: bool, new: bool| {
            let all = self.packages.iter();
            all.filter(|p| (p.old.is_some(), p.new.is_some()) == (old, new))
                .count()
        };
        writeln!(
            out,
            "\nPackages: {}{dates}",
            counts(&[
                (count(true, true), "changed"),
                (count(false, true), "added"),
                (count(true, false), "removed")
            ])
        )?;
        for package in &self.packages {
            let growth = match package.growth {
                0 => String::new(),
                bytes => format!("  ({})", signed(bytes)),
            };
            let name = &package.name;
            match (&package.old, &package.new) {
                (Some(old), Some(new)) if old == new => {
                    writeln!(
                        out,
                        "  {name} {new}, another file of the same version{growth}"
                    )?;
                }
                (Some(old), Some(new)) => {
                    let note = if package.older {
                        ", OLDER than before"
                    } else {
                        ""
                    };
                    writeln!(out, "  {name} {old} → {new}{note}{growth}")?;
                }
                (None, Some(new)) => writeln!(out, "  added {name} {new}{growth}")?,
                (Some(old), None) => writeln!(out, "  removed {name} {old}{growth}")?,
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn units(&self, out: &mut String) -> std::fmt::Result {
        let units = &self.units;
        if *units == super::UnitChanges::default() {
            return Ok(());
        }
        writeln!(out, "\nUnits")?;
        for (unit, by) in &units.starts {
            writeln!(out, "  {unit} starts now, with {by}")?;
        }
        for (unit, by) in &units.starts_no_more {
            writeln!(out, "  {unit} no longer starts with {by}")?;
        }
        for unit in &units.masked {
            writeln!(out, "  {unit} is masked now")?;
        }
        for unit in &units.unmasked {
            writeln!(out, "  {unit} is no longer masked")?;
        }
        Ok(())
    }

    fn settings(&self, out: &mut String) -> std::fmt::Result {
        if !self.settings.is_empty() {
            writeln!(out, "\nSettings")?;
        }
        let mut place = "";
        for setting in &self.settings {
            if setting.place != place {
                place = &setting.place;
                writeln!(out, "  {place}")?;
            }
            let SettingChange { key, old, new, .. } = setting;
            let line = match (old, new) {
                (Some(old), Some(new)) => format!("    {key}: {old} → {new}"),
                (None, Some(new)) if key.ends_with("[]") => format!("    {key} got {new}"),
                (Some(old), None) if key.ends_with("[]") => format!("    {key} lost {old}"),
                (None, Some(new)) => format!("    {key} is set now: {new}"),
                (Some(old), None) => format!("    {key} is no longer set (was {old})"),
                (None, None) => continue,
            };
            writeln!(out, "{}", cut(&line))?;
        }
        Ok(())
    }

    fn files(&self, out: &mut String, all: bool) -> std::fmt::Result {
        if self.files.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nFiles")?;
        for (origin, files) in &self.files {
            let changed_package = origin
                .strip_prefix("package ")
                .is_some_and(|name| self.packages.iter().any(|package| package.name == name));
            let count = |wanted: Option<&Attribute>| {
                let matches = |file: &&FileChange| match wanted {
                    Some(wanted) => file.what.first() == Some(wanted),
                    None => !matches!(
                        file.what.first(),
                        Some(Attribute::Added | Attribute::Removed)
                    ),
                };
                files.iter().filter(matches).count()
            };
            let counted = counts(&[
                (count(None), "changed"),
                (count(Some(&Attribute::Added)), "added"),
                (count(Some(&Attribute::Removed)), "removed"),
            ]);
            let origin = if origin.is_empty() {
                "of unknown origin"
            } else {
                origin
            };
            writeln!(out, "  {origin}: {counted}")?;
            if changed_package && !all {
                continue;
            }
            let most = if all { usize::MAX } else { MOST };
            // With another kernel all of its modules are others.
            let told = |file: &&FileChange| {
                all || self.kernel.is_none() || !file.path.starts_with(MODULES)
            };
            let files: Vec<_> = files.iter().filter(told).collect();
            for file in files.iter().take(most) {
                writeln!(out, "    {} {}", file.path, what(file))?;
                for line in file.lines.iter().take(most) {
                    writeln!(out, "{}", cut(&format!("      {line}")))?;
                }
                more(out, "      ", file.lines.len(), most, "lines")?;
            }
            more(out, "    ", files.len(), most, "files")?;
        }
        if !self.contents {
            writeln!(
                out,
                "  (a manifest has no contents: settings, units and lines are not compared)"
            )?;
        }
        Ok(())
    }

    fn sizes(&self, out: &mut String) -> std::fmt::Result {
        let (old, new) = (&self.old, &self.new);
        let growth = match new.bytes as i64 - old.bytes as i64 {
            0 => String::new(),
            bytes => format!(" ({})", signed(bytes)),
        };
        writeln!(
            out,
            "\nRoot: {}{growth}, {} names",
            change(&size::show(old.bytes), &size::show(new.bytes)),
            change(&old.names.to_string(), &new.names.to_string())
        )
    }
}

/// `old → new`, or what both are.
fn change(old: &str, new: &str) -> String {
    match old == new {
        true => new.to_string(),
        false => format!("{old} → {new}"),
    }
}

/// `2 changed, 1 added`.
fn counts(counts: &[(usize, &str)]) -> String {
    let words = counts.iter().filter(|(count, _)| *count > 0);
    let words: Vec<_> = words
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    words.join(", ")
}

fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { '−' } else { '+' };
    format!("{sign}{}", size::show(bytes.unsigned_abs()))
}

fn more(out: &mut String, indent: &str, count: usize, most: usize, what: &str) -> std::fmt::Result {
    if count > most {
        writeln!(out, "{indent}… and {} more {what} (--all)", count - most)?;
    }
    Ok(())
}

fn cut(line: &str) -> String {
    match line.chars().count() > WIDTH {
        true => line.chars().take(WIDTH - 1).chain(['…']).collect(),
        false => line.to_string(),
    }
}

/// What differs in a file.
fn what(file: &FileChange) -> String {
    let words = file.what.iter().map(|attribute| match attribute {
        Attribute::Added => "added".to_string(),
        Attribute::Removed => "removed".to_string(),
        Attribute::Type(old, new) => format!("was {}, is {}", kind(*old), kind(*new)),
        Attribute::Content => match file.size {
            (old, new) if old == new => "changed".to_string(),
            (old, new) => format!("changed ({})", signed(new as i64 - old as i64)),
        },
        Attribute::Target(old, new) => format!("led to {old}, leads to {new}"),
        Attribute::Mode(old, new) => format!("mode {old} → {new}"),
        Attribute::Owner(old, new) => format!("owner {old} → {new}"),
        Attribute::Xattrs => "has other attributes or capabilities".to_string(),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn kind(kind: Type) -> &'static str {
    match kind {
        Type::Dir => "a folder",
        Type::File | Type::Hardlink => "a file",
        Type::Symlink => "a link",
        Type::Char | Type::Block => "a device",
        Type::Fifo => "a pipe",
    }
}
