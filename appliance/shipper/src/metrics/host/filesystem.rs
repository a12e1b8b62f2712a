//! Mounted file systems.

use std::collections::HashSet;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::{Host, Kind, Outcome, Sink};

/// Types that node_exporter leaves out.
const TYPES: [&str; 28] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "procfs",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
    "efivarfs",
    "erofs",
    "ramfs",
    "tmpfs",
];
/// Places that node_exporter leaves out, with what is below them.
const PLACES: [&str; 3] = ["/dev", "/proc", "/sys"];
const CREDENTIALS: &str = "/run/credentials/";
/// A file system that does not answer within this time is broken.
const PATIENCE: Duration = Duration::from_secs(5);

/// A value of a mount, from the sizes that [`size`] gives.
type Value<'a> = &'a dyn Fn(&Mount, Option<&[f64; 5]>) -> Option<f64>;

struct Mount {
    device: String,
    place: String,
    kind: String,
    read_only: bool,
}

/// `/proc/1/mountinfo` (proc_pid_mountinfo(5)) and statvfs(3).
pub(super) fn filesystem(host: &Host, sink: &mut dyn Sink) -> Outcome {
    // The mounts of PID 1: ours may be hidden by the unit's sandbox.
    let text = host
        .proc("1/mountinfo")
        .or_else(|_| host.proc("self/mountinfo"))?;
    let mounts = mounts(&text);
    let sizes: Vec<_> = mounts.iter().map(|mount| size(&mount.place)).collect();
    let mut family = |name: &str, value: Value<'_>| {
        sink.family(&format!("node_filesystem_{name}"), Kind::Gauge);
        for (mount, size) in mounts.iter().zip(&sizes) {
            let labels = [
                ("device", mount.device.as_str()),
                ("fstype", &mount.kind),
                ("mountpoint", &mount.place),
            ];
            if let Some(value) = value(mount, size.as_ref()) {
                sink.sample(&labels, value);
            }
        }
    };
    family("avail_bytes", &|_, size| size.map(|size| size[2]));
    family("device_error", &|_, size| {
        Some(f64::from(u8::from(size.is_none())))
    });
    family("files", &|_, size| size.map(|size| size[3]));
    family("files_free", &|_, size| size.map(|size| size[4]));
    family("free_bytes", &|_, size| size.map(|size| size[1]));
    family("readonly", &|mount, size| {
        size.map(|_| f64::from(u8::from(mount.read_only)))
    });
    family("size_bytes", &|_, size| size.map(|size| size[0]));
    Ok(())
}

/// Size, free and available bytes, files and free ones. `None`: it does not answer.
fn size(place: &str) -> Option<[f64; 5]> {
    let (sender, receiver) = channel();
    let path = place.to_owned();
    // A network or dying disk may hang for ever; then this thread does, and the next scrape has
    // another.
    let spawned = std::thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(move || {
            let _ = sender.send(rustix::fs::statvfs(path.as_str()).ok());
        });
    if spawned.is_err() {
        return None;
    }
    let stat = match receiver.recv_timeout(PATIENCE) {
        Ok(stat) => stat?,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
    };
    let block = stat.f_frsize as f64;
    Some([
        stat.f_blocks as f64 * block,
        stat.f_bfree as f64 * block,
        stat.f_bavail as f64 * block,
        stat.f_files as f64,
        stat.f_ffree as f64,
    ])
}

fn mounts(text: &str) -> Vec<Mount> {
    let mut seen = HashSet::new();
    let mounts = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let dash = words.iter().position(|word| *word == "-")?;
        Some(Mount {
            place: unescape(words.get(4)?),
            kind: (*words.get(dash + 1)?).to_owned(),
            device: unescape(words.get(dash + 2)?),
            read_only: [words.get(5)?, words.get(dash + 3)?]
                .iter()
                .any(|options| options.split(',').any(|option| option == "ro")),
        })
    });
    mounts
        .filter(|mount| {
            let below = |place: &str| {
                let rest = mount.place.strip_prefix(place);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            !TYPES.contains(&mount.kind.as_str())
                && !PLACES.iter().any(|place| below(place))
                && !mount.place.starts_with(CREDENTIALS)
                && seen.insert((mount.device.clone(), mount.place.clone()))
        })
        .collect()
}

/// Octal escapes for blank, tab, line feed and backslash.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    #[test]
    fn mounts_worth_telling() {
        let text = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            23 22 0:21 / /proc rw - proc proc rw\n\
            24 22 8:1 / /mnt/a\\040b ro,noatime - ext4 /dev/sda1 rw\n\
            25 22 0:5 / /run rw - tmpfs tmpfs rw\nbroken line - x\n";
        let mounts = super::mounts(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[1].place, "/mnt/a b");
        assert!(mounts[1].read_only && !mounts[0].read_only);
    }
}
