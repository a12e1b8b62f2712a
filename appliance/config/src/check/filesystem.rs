//! How file systems are made and mounted: the options that mount(2), ext4(5), mount(8) for vfat and
//! mke2fs(8) know.

use crate::Filesystem;
use crate::load::{Report, Step, place};
use crate::words;

/// What mount(2) and the tables of mounts know.
const GENERIC: &[&str] = &[
    "async",
    "defaults",
    "dirsync",
    "lazytime",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nosuid",
    "relatime",
    "rw",
    "strictatime",
    "sync",
];
/// Words of ext4; those that end with `=` have a value.
const EXT4: &[&str] = &[
    "auto_da_alloc",
    "barrier",
    "commit=",
    "data=",
    "data_err=",
    "delalloc",
    "discard",
    "errors=",
    "init_itable",
    "init_itable=",
    "inode_readahead_blks=",
    "journal_async_commit",
    "journal_checksum",
    "journal_ioprio=",
    "max_batch_time=",
    "mb_optimize_scan=",
    "min_batch_time=",
    "noauto_da_alloc",
    "nobarrier",
    "nodelalloc",
    "nodiscard",
    "noinit_itable",
    "prefetch_block_bitmaps",
    "stripe=",
];
/// Words of vfat.
const VFAT: &[&str] = &[
    "codepage=",
    "dmask=",
    "errors=",
    "fmask=",
    "flush",
    "gid=",
    "iocharset=",
    "quiet",
    "shortname=",
    "tz=",
    "uid=",
    "umask=",
    "utf8",
];
/// mke2fs options that may be set, all with a value.
const MKFS: &[(&str, &str)] = &[
    ("-E", "extended options"),
    ("-J", "options of the journal"),
    ("-N", "number of inodes"),
    ("-O", "features"),
    ("-T", "usage type"),
    ("-i", "bytes per inode"),
    ("-m", "percentage reserved for root"),
];

/// Whether options are wrong, and what would be right.
pub(super) fn check(name: &str, filesystem: &Filesystem, report: &mut Report) {
    let known = match name {
        "state" | "cas" => EXT4,
        "esp" => VFAT,
        other => {
            let names = ["cas", "esp", "state"];
            report.wrong(
                place!["filesystems", name],
                format!("there is no file system {other:?}"),
                words::suggest(other, &names, "there are"),
            );
            return;
        }
    };
    for (number, option) in filesystem.mount.iter().enumerate() {
        if let Err(right) = mount_option(option, known) {
            let at = place!["filesystems", name, "mount", number];
            report.wrong(at, format!("{option:?} is no mount option"), right);
        }
    }
    if name == "esp" && !filesystem.mkfs.is_empty() {
        report.wrong(
            place!["filesystems", name, "mkfs"],
            "mke2fs does not make the ESP",
            "nothing: the builder makes it",
        );
    } else {
        mkfs(
            &filesystem.mkfs,
            &place!["filesystems", name, "mkfs"],
            report,
        );
    }
}

fn mount_option(option: &str, known: &[&str]) -> Result<(), String> {
    let all: Vec<&str> = GENERIC.iter().chain(known).copied().collect();
    let right =
        |all: &[&str]| words::suggest(option.split(',').next().unwrap_or(""), all, "known are");
    let Some((key, value)) = option.split_once('=') else {
        return match all.contains(&option) {
            true => Ok(()),
            false if option.contains(',') => {
                Err("one option an element: [\"noatime\", \"commit=60\"]".into())
            }
            false => Err(right(&all)),
        };
    };
    let key_with = format!("{key}=");
    if !all.contains(&key_with.as_str()) {
        return Err(words::suggest(&key_with, &all, "known are"));
    }
    let number = |low: u64, high: u64| match value.parse::<u64>() {
        Ok(found) if (low..=high).contains(&found) => Ok(()),
        _ => Err(format!("{key}= and a number from {low} to {high}")),
    };
    let mask = || match u32::from_str_radix(value, 8) {
        Ok(found) if found <= 0o777 && value.len() <= 4 => Ok(()),
        _ => Err(format!("{key}= and an octal mode, as in {key}=0077")),
    };
    let one = |list: &[&str]| match list.contains(&value) {
        true => Ok(()),
        false => Err(format!("{key}= and one of {}", list.join(", "))),
    };
    match key {
        "commit" => number(1, 300),
        "umask" | "dmask" | "fmask" => mask(),
        "uid" | "gid" => number(0, 65534),
        "errors" => one(&["continue", "remount-ro", "panic"]),
        "data" => one(&["journal", "ordered", "writeback"]),
        "data_err" => one(&["abort", "ignore"]),
        "journal_ioprio" => number(0, 7),
        "mb_optimize_scan" => number(0, 1),
        "codepage"
        | "init_itable"
        | "inode_readahead_blks"
        | "max_batch_time"
        | "min_batch_time"
        | "stripe" => number(0, 1_000_000_000),
        _ if super::shapes::word(value, "-_.") => Ok(()),
        _ => Err(format!("{key}= and a word")),
    }
}

/// Words of argv: an option and its value by turns.
fn mkfs(words: &[String], at: &[Step], report: &mut Report) {
    let mut number = 0;
    let place = |number: usize| {
        let mut place = at.to_vec();
        place.push(number.into());
        place
    };
    while let Some(option) = words.get(number) {
        let Some((_, what)) = MKFS.iter().find(|(known, _)| known == option) else {
            let known: Vec<String> = MKFS
                .iter()
                .map(|(option, what)| format!("{option} ({what})"))
                .collect();
            report.wrong(
                place(number),
                format!("{option:?} may not be set here"),
                format!(
                    "options and values as words of their own, of {}",
                    known.join(", ")
                ),
            );
            return;
        };
        let value = words.get(number + 1);
        let right = match (option.as_str(), value.map(String::as_str)) {
            (_, None | Some("")) => Err(format!("{option} and a value: {what}")),
            ("-i", Some(value)) => range(value, 1024, 67_108_864, what),
            ("-m", Some(value)) => range(value, 0, 50, what),
            ("-N", Some(value)) => range(value, 16, u64::from(u32::MAX), what),
            (_, Some(value)) if !value.starts_with('-') && super::shapes::word(value, "-_.,=^") => {
                Ok(())
            }
            (_, Some(_)) => Err(format!("{what}, without blanks")),
        };
        if let Err(right) = right {
            let at = place(if value.is_some() { number + 1 } else { number });
            let found = value.unwrap_or(option);
            report.wrong(at, format!("{found:?} does not fit"), right);
        }
        number += 2;
    }
}

fn range(value: &str, low: u64, high: u64, what: &str) -> Result<(), String> {
    match value.parse::<u64>() {
        Ok(found) if (low..=high).contains(&found) => Ok(()),
        _ => Err(format!("{what}: a number from {low} to {high}")),
    }
}
