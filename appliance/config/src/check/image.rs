//! `image.toml`.

use std::collections::BTreeSet;

use crate::load::{File, Report, Step, place};
use crate::modules;
use crate::{ByFlavour, Image, Modules, Packages, Trim, Units};

use super::shapes;

/// Bytes that a GPT partition's label holds beside id and version: `_` and `_verity`.
const LABEL: usize = 36 - "_".len() - "_verity".len();
/// Longest version (`Image::version`).
const VERSION: usize = 22;
/// What the kernel takes, less `roothash=` and 64 digits.
const CMDLINE: usize = 2047 - " roothash=".len() - 64;
/// Without these in the initramfs or in the kernel no machine boots.
const NEEDED: &[&str] = &["dm_verity", "ext4", "vfat"];
/// Kinds of units (systemd.unit(5)).
const UNITS: &[&str] = &[
    "service",
    "socket",
    "timer",
    "target",
    "path",
    "mount",
    "automount",
    "swap",
    "slice",
    "device",
];

impl File for Image {
    const NAME: &'static str = "image.toml";

    fn check(&self, report: &mut Report) {
        if shapes::label(&self.id).is_err() || self.id.len() > 16 {
            report.wrong(
                place!["id"],
                format!("{:?} cannot be part of file names and labels", self.id),
                "at most 16 lower-case letters, digits and `-`",
            );
        }
        version(&self.id, &self.version, report);
        cmdline(&self.kernel.cmdline, report);
        let known: Vec<&str> = self.packages.kernels.keys().map(String::as_str).collect();
        if !known.contains(&self.kernel.default.as_str()) {
            report.wrong(
                place!["kernel", "default"],
                format!("there is no kernel {:?}", self.kernel.default),
                crate::words::suggest(&self.kernel.default, &known, "packages.kernels has"),
            );
        }
        packages(&self.packages, report);
        trim(&self.trim, report);
        check_modules(&self.modules, report);
        units(&self.units, report);
    }
}

fn version(id: &str, version: &str, report: &mut Report) {
    let at = || place!["version"];
    let begins = version.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins || !shapes::word(version, ".~^-") {
        report.wrong(
            at(),
            format!("{version:?} is no version"),
            "letters, digits, `.`, `~`, `^` and `-`, beginning with a letter or a digit",
        );
    } else if version.len() > VERSION || id.len() + version.len() > LABEL {
        let most = VERSION.min(LABEL.saturating_sub(id.len()));
        report.wrong(
            at(),
            format!("{version:?} is too long"),
            format!("at most {most} bytes: it is part of a partition's label"),
        );
    }
}

fn cmdline(words: &[String], report: &mut Report) {
    let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '\'';
    for (number, word) in words.iter().enumerate() {
        let at = place!["kernel", "cmdline", number];
        let key = word.split('=').next().unwrap_or_default();
        if word.is_empty() || !word.chars().all(plain) {
            report.wrong(
                at,
                format!("{word:?} is not one word"),
                "one parameter an element, without blanks and quotes",
            );
        } else if key == "roothash" || key.starts_with("systemd.verity") {
            report.wrong(
                at,
                format!("{key} is the builder's"),
                "nothing: it is known when the root is sealed",
            );
        } else if [
            "root",
            "rootfstype",
            "rootflags",
            "init",
            "rdinit",
            "initrd",
            "rw",
        ]
        .contains(&key)
        {
            report.wrong(
                at,
                format!("{key} does not go with a sealed root"),
                "nothing: stage1 finds and mounts it",
            );
        } else if key.starts_with("systemd.set_credential") {
            report.wrong(
                at,
                "everybody can read the command line",
                "secrets come as credentials",
            );
        }
    }
    let length: usize = words.iter().map(|word| word.len() + 1).sum();
    if length > CMDLINE {
        report.wrong(
            place!["kernel", "cmdline"],
            format!("it has {length} bytes"),
            format!("at most {CMDLINE}"),
        );
    }
}

fn packages(packages: &Packages, report: &mut Report) {
    let at = |steps: &[Step]| {
        let mut place = place!["packages"];
        place.extend_from_slice(steps);
        place
    };
    if packages.architecture != "amd64" {
        let message = format!("{:?} is not supported", packages.architecture);
        report.wrong(at(&["architecture".into()]), message, "\"amd64\"");
    }
    if packages.suites.is_empty() {
        report.wrong(
            at(&["suites".into()]),
            "no suite is named",
            "[\"trixie\", \"trixie-security\", \"trixie-backports\"]",
        );
    }
    let suites: Vec<&str> = packages.suites.iter().map(String::as_str).collect();
    let suite = |suite: &String, place: Vec<Step>, report: &mut Report| {
        if !suites.contains(&suite.as_str()) {
            let right = crate::words::suggest(suite, &suites, "packages.suites has");
            report.wrong(place, format!("{suite:?} is not among the suites"), right);
        }
    };
    for (number, name) in packages.suites.iter().enumerate() {
        let place = at(&["suites".into(), number.into()]);
        if !shapes::word(name, "-._") {
            report.wrong(
                place,
                format!("{name:?} is no suite"),
                "a suite's name, as in \"trixie-security\"",
            );
        } else if packages.suites[..number].contains(name) {
            report.wrong(place, format!("{name:?} is there twice"), "each suite once");
        }
    }
    let name = |name: &str| {
        shapes::word(name, "+-.") && name.starts_with(|c: char| c.is_ascii_alphanumeric())
    };
    let shape = "the name of a Debian package, as in \"openssh-server\"";
    for (key, list) in [("install", &packages.install), ("build", &packages.build)] {
        for (number, package) in list.iter().enumerate() {
            let place = at(&[key.into(), number.into()]);
            if !name(package) {
                report.wrong(place, format!("{package:?} is no package name"), shape);
            } else if list[..number].contains(package) {
                report.wrong(
                    place,
                    format!("{package:?} is there twice"),
                    "each package once",
                );
            } else if let Some(reason) = packages.exclude.get(package) {
                let message = format!("{package:?} is excluded, too: {reason}");
                report.wrong(place, message, "either here or in packages.exclude");
            }
        }
    }
    for (package, reason) in &packages.exclude {
        let place = at(&["exclude".into(), package.into()]);
        if !name(package) {
            report.wrong(place, format!("{package:?} is no package name"), shape);
        } else if shapes::line(reason).is_err() {
            report.wrong(
                place,
                "it does not say why",
                "the reason, for whoever wonders",
            );
        }
    }
    for (package, from) in &packages.pins {
        let place = at(&["pins".into(), package.into()]);
        if !name(package) {
            report.wrong(place, format!("{package:?} is no package name"), shape);
        } else if packages.exclude.contains_key(package) {
            report.wrong(
                place,
                format!("{package:?} is excluded"),
                "either here or in packages.exclude",
            );
        } else {
            suite(from, place, report);
        }
    }
    for (kernel, from) in &packages.kernels {
        let place = |key: &str| at(&["kernels".into(), kernel.into(), key.into()]);
        if !shapes::word(kernel, "+-._") {
            let right = "letters, digits, `.` and `-`, as in \"6.18-cloud\"";
            report.wrong(
                at(&["kernels".into(), kernel.into()]),
                "this is no name",
                right,
            );
        }
        if from.suites.is_empty() {
            report.wrong(
                place("suites"),
                "no suite to look in",
                format!("of {}", suites.join(", ")),
            );
        }
        for (number, name) in from.suites.iter().enumerate() {
            let mut place = place("suites");
            place.push(number.into());
            suite(name, place, report);
        }
        let version = from.version.is_empty()
            || shapes::word(&from.version, ".+~-")
                && from.version.starts_with(|c: char| c.is_ascii_digit());
        if !version {
            let message = format!("{:?} is no version of a kernel", from.version);
            report.wrong(
                place("version"),
                message,
                "how it begins, as in \"6.18\"; leave it out for the newest",
            );
        }
    }
}

fn trim(trim: &Trim, report: &mut Report) {
    for (number, rule) in trim.rules.iter().enumerate() {
        let at = |key: &str| place!["trim", "rules", number, key];
        if rule.paths.is_empty() {
            report.wrong(
                at("paths"),
                "the rule is about no file",
                "patterns of absolute paths",
            );
        }
        if shapes::line(&rule.why).is_err() {
            report.wrong(
                at("why"),
                "it does not say why",
                "the reason, for whoever wonders",
            );
        }
        for (index, path) in rule.paths.iter().enumerate() {
            let at = place!["trim", "rules", number, "paths", index];
            if !path.starts_with('/') || path.contains(char::is_control) {
                report.wrong(
                    at,
                    format!("{path:?} is no absolute path"),
                    "as in \"/usr/share/man/**\"",
                );
            } else if ["/**", "/usr/**", "/etc/**"].contains(&path.as_str()) && !rule.keep {
                report.wrong(at, format!("{path:?} would leave nothing"), "folders below");
            }
        }
    }
}

fn check_modules(modules: &Modules, report: &mut Report) {
    let lists: [(&[&str], &ByFlavour, bool); 2] = [
        (&["modules", "initrd"], &modules.initrd, false),
        (&["modules", "keep"], &modules.keep, true),
    ];
    for (table, lists, globs) in lists {
        for (key, list) in [
            ("common", &lists.common),
            ("cloud", &lists.cloud),
            ("generic", &lists.generic),
        ] {
            let mut place: Vec<Step> = table.iter().map(|step| Step::from(*step)).collect();
            place.push(key.into());
            names(list, globs, &place, report);
        }
    }
    names(&modules.load, false, &place!["modules", "load"], report);
    let common = modules.initrd.common.iter();
    let has: BTreeSet<String> = common.map(|name| modules::name(name)).collect();
    for needed in NEEDED.iter().filter(|needed| !has.contains(**needed)) {
        report.wrong(
            place!["modules", "initrd", "common"],
            format!("{needed} is not in it: no machine would boot"),
            format!("add {needed:?}"),
        );
    }
}

fn names(list: &[String], globs: bool, at: &[Step], report: &mut Report) {
    let mut seen = BTreeSet::new();
    for (number, name) in list.iter().enumerate() {
        let mut place = at.to_vec();
        place.push(number.into());
        let more = if globs { "-_*?/.+" } else { "-_" };
        let file = name.ends_with(".ko") || name.contains(".ko.");
        if file || !shapes::word(name, more) || name.starts_with('/') {
            let right = match globs {
                true => {
                    "a name or a path without `.ko`, as in \"nft_*\" or \"kernel/net/netfilter/**\""
                }
                false => "its name without path and `.ko`, as in \"dm_verity\"",
            };
            report.wrong(place, format!("{name:?} is no name of a module"), right);
        } else if !seen.insert(name.replace('-', "_")) {
            report.wrong(
                place,
                format!("{name:?} is there twice"),
                "each module once",
            );
        }
    }
}

fn units(units: &Units, report: &mut Report) {
    let name = |name: &str| {
        let kind = name
            .rsplit_once('.')
            .is_some_and(|(stem, kind)| !stem.is_empty() && UNITS.contains(&kind));
        kind && shapes::word(name, "-_.@:\\")
    };
    let right = |name: &str| match name.contains('.') {
        true => "the name of a unit, as in \"ssh.service\"".to_owned(),
        false => format!("with its kind, as in \"{name}.service\""),
    };
    for (number, unit) in units.enable.iter().enumerate() {
        let at = place!["units", "enable", number];
        if !name(unit) {
            report.wrong(at, format!("{unit:?} is no unit"), right(unit));
        } else if units.enable[..number].contains(unit) {
            report.wrong(at, format!("{unit:?} is there twice"), "each unit once");
        } else if let Some(reason) = units.mask.get(unit) {
            report.wrong(
                at,
                format!("{unit:?} is masked, too: {reason}"),
                "either here or in units.mask",
            );
        }
    }
    for (unit, reason) in &units.mask {
        let at = place!["units", "mask", unit];
        if !name(unit) {
            report.wrong(at, format!("{unit:?} is no unit"), right(unit));
        } else if shapes::line(reason).is_err() {
            report.wrong(at, "it does not say why", "the reason, for whoever wonders");
        }
    }
}
