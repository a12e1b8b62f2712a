//! One core for the server, another for the generator, and what runs on them.

use std::collections::HashMap;

use rustix::thread::{CpuSet, sched_setaffinity};

/// A core and its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    Generator = 0,
    Server = 1,
}

/// Moves this thread, and what it starts from now on, to a core.
pub(crate) fn pin(core: Core) {
    let mut one = CpuSet::new();
    one.set(core as usize);
    sched_setaffinity(None, &one).expect("two cores");
}

/// Does something on a core; processes that it starts stay there.
pub(crate) fn on<T>(core: Core, start: impl FnOnce() -> T) -> T {
    pin(core);
    let started = start();
    pin(Core::Generator);
    started
}

struct Process {
    parent: u32,
    ticks: u64,
}

/// All processes with what they and the children they waited for have used (proc_pid_stat(5)).
fn processes() -> HashMap<u32, Process> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let each = |entry: std::io::Result<std::fs::DirEntry>| {
        let id: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let words: Vec<&str> = rest.split_ascii_whitespace().collect();
        let ticks = words[11..15]
            .iter()
            .map(|word| word.parse::<u64>().unwrap_or(0));
        Some((
            id,
            Process {
                parent: words[1].parse().ok()?,
                ticks: ticks.sum(),
            },
        ))
    };
    entries.filter_map(each).collect()
}

fn trees(all: &HashMap<u32, Process>, roots: Vec<u32>) -> Vec<u32> {
    let mut found = roots;
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        let children = all.iter().filter(|(_, process)| process.parent == parent);
        found.extend(children.map(|(id, _)| *id));
        at += 1;
    }
    found
}

/// CPU seconds of processes and all that they started.
pub(crate) fn cpu_of_trees(roots: Vec<u32>) -> f64 {
    let all = processes();
    let ids = trees(&all, roots);
    let ticks: u64 = ids
        .iter()
        .filter_map(|id| all.get(id))
        .map(|process| process.ticks)
        .sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Anonymous memory of processes and all that they started, in MiB.
pub(crate) fn memory_of_trees(roots: Vec<u32>) -> f64 {
    let all = processes();
    let anonymous = |id: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let number = line.and_then(|line| line.split_ascii_whitespace().next());
        number
            .and_then(|number| number.parse::<f64>().ok())
            .unwrap_or(0.0)
            / 1024.0
    };
    trees(&all, roots).iter().map(anonymous).sum()
}

/// CPU seconds of this process.
pub(crate) fn own_cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
