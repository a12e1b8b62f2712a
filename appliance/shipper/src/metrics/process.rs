//! Processes of a service under the names of process-exporter, which the users' dashboards know.

use std::path::{Path, PathBuf};

use super::sample::{Kind, Sink};

/// A group of processes: those of one control group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name, the label `groupname`.
    pub name: String,
    /// File with the numbers of its processes.
    pub processes: PathBuf,
    /// `/proc`, or a copy of it.
    pub proc: PathBuf,
}

#[derive(Default)]
struct Sum {
    processes: f64,
    threads: f64,
    user: f64,
    system: f64,
    resident: f64,
    virtual_: f64,
    minor: f64,
    major: f64,
    oldest: f64,
    files: Option<f64>,
    read: Option<f64>,
    written: Option<f64>,
}

impl Group {
    /// The group of a unit.
    pub fn of_unit(name: &str, unit: &str) -> Self {
        Self {
            name: name.into(),
            processes: format!("/sys/fs/cgroup/system.slice/{unit}/cgroup.procs").into(),
            proc: "/proc".into(),
        }
    }

    /// Collects the group. What the kernel does not show to this user (files, I/O of others) is
    /// left out.
    pub fn collect(&self, sink: &mut dyn Sink) {
        let numbers = std::fs::read_to_string(&self.processes).unwrap_or_default();
        let mut sum = Sum::default();
        for process in numbers.lines() {
            // It may have ended in the meantime.
            let _ = self.add(process, &mut sum);
        }
        let group = ("groupname", self.name.as_str());
        let mut one = |name: &str, kind, label: Option<(&str, &str)>, value: Option<f64>| {
            if let Some(value) = value {
                sink.family(&format!("namedprocess_namegroup_{name}"), kind);
                let labels: Vec<_> = std::iter::once(group).chain(label).collect();
                sink.sample(&labels, value);
            }
        };
        use Kind::{Counter, Gauge};
        one("num_procs", Gauge, None, Some(sum.processes));
        if sum.processes == 0.0 {
            return;
        }
        one("num_threads", Gauge, None, Some(sum.threads));
        one(
            "cpu_seconds_total",
            Counter,
            Some(("mode", "system")),
            Some(sum.system),
        );
        one(
            "cpu_seconds_total",
            Counter,
            Some(("mode", "user")),
            Some(sum.user),
        );
        one(
            "memory_bytes",
            Gauge,
            Some(("memtype", "resident")),
            Some(sum.resident),
        );
        one(
            "memory_bytes",
            Gauge,
            Some(("memtype", "virtual")),
            Some(sum.virtual_),
        );
        one("minor_page_faults_total", Counter, None, Some(sum.minor));
        one("major_page_faults_total", Counter, None, Some(sum.major));
        one("oldest_start_time_seconds", Gauge, None, Some(sum.oldest));
        one("open_filedesc", Gauge, None, sum.files);
        one("read_bytes_total", Counter, None, sum.read);
        one("write_bytes_total", Counter, None, sum.written);
    }

    /// A process of the group.
    fn add(&self, process: &str, sum: &mut Sum) -> Option<()> {
        let stat = Stat::read(&self.proc, process)?;
        sum.processes += 1.0;
        sum.threads += stat.threads;
        sum.user += stat.user;
        sum.system += stat.system;
        sum.minor += stat.minor_faults;
        sum.major += stat.major_faults;
        sum.virtual_ += stat.virtual_bytes;
        sum.resident += stat.resident_bytes;
        if sum.oldest == 0.0 || stat.started < sum.oldest {
            sum.oldest = stat.started;
        }
        let folder = self.proc.join(process);
        if let Ok(files) = std::fs::read_dir(folder.join("fd")) {
            *sum.files.get_or_insert(0.0) += files.count() as f64;
        }
        if let Ok(io) = std::fs::read_to_string(folder.join("io")) {
            let word = |name| {
                io.lines()
                    .find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
            };
            *sum.read.get_or_insert(0.0) += word("read_bytes:")?;
            *sum.written.get_or_insert(0.0) += word("write_bytes:")?;
        }
        Some(())
    }
}

/// What everybody may know of a process: `/proc/PID/stat` (proc_pid_stat(5)), times in s.
pub(super) struct Stat {
    pub(super) user: f64,
    pub(super) system: f64,
    threads: f64,
    minor_faults: f64,
    major_faults: f64,
    pub(super) virtual_bytes: f64,
    pub(super) resident_bytes: f64,
    /// Since 1970.
    pub(super) started: f64,
}

impl Stat {
    /// Reads it. `None`: there is no such process (any more).
    pub(super) fn read(proc: &Path, process: &str) -> Option<Self> {
        let stat = std::fs::read_to_string(proc.join(process).join("stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let words: Vec<f64> = rest
            .split_ascii_whitespace()
            .map(|word| word.parse().unwrap_or(0.0))
            .collect();
        // The first word is the third field.
        let field = |number: usize| words.get(number - 3).copied();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let boot = std::fs::read_to_string(proc.join("stat")).ok()?;
        let boot = boot
            .lines()
            .find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok())?;
        Some(Self {
            user: field(14)? / ticks,
            system: field(15)? / ticks,
            threads: field(20)?,
            minor_faults: field(10)?,
            major_faults: field(12)?,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * rustix::param::page_size() as f64,
            started: boot + field(22)? / ticks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::TextSink;

    #[test]
    fn this_process() {
        let folder = tempfile::tempdir().unwrap();
        let processes = folder.path().join("cgroup.procs");
        std::fs::write(&processes, format!("{}\n999999999\n", std::process::id())).unwrap();
        let mut sink = TextSink::default();
        Group {
            name: "cache".into(),
            processes,
            proc: "/proc".into(),
        }
        .collect(&mut sink);
        assert!(
            sink.text
                .contains("namedprocess_namegroup_num_procs{groupname=\"cache\"} 1\n")
        );
        assert!(
            sink.text
                .contains("_memory_bytes{groupname=\"cache\",memtype=\"resident\"} ")
        );
    }
}
