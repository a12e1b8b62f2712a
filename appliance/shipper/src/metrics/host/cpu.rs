//! Processors and what runs on them.

use super::numbers::{number, pairs};
use super::{Host, Kind, Outcome, Sink, names};

const MODES: [&str; 8] = [
    "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal",
];

/// `/proc/stat` (proc_stat(5)): time of each processor.
pub(super) fn cpu(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let text = host.proc("stat")?;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let cpus: Vec<(&str, Vec<f64>)> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("cpu")?.split_ascii_whitespace();
            // The line of all processors has no number, and two blanks.
            let cpu = words.next().filter(|_| !line.starts_with("cpu "))?;
            Some((cpu, words.map(|word| number(Some(word)) / ticks).collect()))
        })
        .collect();
    if cpus.is_empty() {
        return Err("there is no processor in stat".into());
    }
    let value = |values: &[f64], at: usize| values.get(at).copied().unwrap_or(0.0);
    sink.family("node_cpu_guest_seconds_total", Kind::Counter);
    for (cpu, values) in &cpus {
        for (mode, at) in [("user", 8), ("nice", 9)] {
            sink.sample(&[("cpu", cpu), ("mode", mode)], value(values, at));
        }
    }
    sink.family("node_cpu_seconds_total", Kind::Counter);
    for (cpu, values) in &cpus {
        for (at, mode) in MODES.iter().enumerate() {
            sink.sample(&[("cpu", cpu), ("mode", mode)], value(values, at));
        }
    }
    Ok(())
}

/// `/proc/stat`: what is counted for the whole machine.
pub(super) fn stat(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let text = host.proc("stat")?;
    for (name, value) in pairs(&text) {
        let (name, kind) = match name {
            "btime" => ("node_boot_time_seconds", Kind::Gauge),
            "ctxt" => ("node_context_switches_total", Kind::Counter),
            "intr" => ("node_intr_total", Kind::Counter),
            "processes" => ("node_forks_total", Kind::Counter),
            "procs_running" => ("node_procs_running", Kind::Gauge),
            "procs_blocked" => ("node_procs_blocked", Kind::Gauge),
            _ => continue,
        };
        sink.one(name, kind, value);
    }
    Ok(())
}

/// `/proc/loadavg` (proc_loadavg(5)).
pub(super) fn loadavg(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let text = host.proc("loadavg")?;
    let mut words = text.split_ascii_whitespace();
    for name in ["node_load1", "node_load5", "node_load15"] {
        let word = words.next().ok_or("loadavg is too short")?;
        sink.one(name, Kind::Gauge, number(Some(word)));
    }
    Ok(())
}

/// `/proc/schedstat` (sched-stats of the kernel's documentation); kernels may lack it.
pub(super) fn schedstat(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let Ok(text) = host.proc("schedstat") else {
        return Ok(());
    };
    let cpus: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("cpu")?.split_ascii_whitespace();
            Some((
                words.next()?,
                words.map(|word| number(Some(word))).collect::<Vec<_>>(),
            ))
        })
        .collect();
    for (name, at, scale) in [
        ("node_schedstat_running_seconds_total", 6, 1e-9),
        ("node_schedstat_waiting_seconds_total", 7, 1e-9),
        ("node_schedstat_timeslices_total", 8, 1.0),
    ] {
        sink.family(name, Kind::Counter);
        for (cpu, values) in &cpus {
            sink.sample(
                &[("cpu", cpu)],
                values.get(at).copied().unwrap_or(0.0) * scale,
            );
        }
    }
    Ok(())
}

/// Processes by state; node_exporter leaves this off by default, and its dashboard wants it.
pub(super) fn processes(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let mut states: Vec<(String, f64)> = Vec::new();
    let (mut processes, mut threads) = (0.0, 0.0);
    for name in names(host.proc.clone()) {
        if !name.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        // It may have ended in the meantime.
        let Ok(text) = host.proc(&format!("{name}/stat")) else {
            continue;
        };
        let Some((_, rest)) = text.rsplit_once(')') else {
            continue;
        };
        let words: Vec<&str> = rest.split_ascii_whitespace().collect();
        processes += 1.0;
        threads += number(words.get(17).copied());
        let state = words.first().copied().unwrap_or("?");
        match states.iter_mut().find(|(known, _)| known == state) {
            Some((_, count)) => *count += 1.0,
            None => states.push((state.to_owned(), 1.0)),
        }
    }
    sink.family("node_processes_state", Kind::Gauge);
    for (state, count) in &states {
        sink.sample(&[("state", state)], *count);
    }
    sink.one("node_processes_pids", Kind::Gauge, processes);
    sink.one("node_processes_threads", Kind::Gauge, threads);
    for (name, path) in [
        ("node_processes_max_processes", "sys/kernel/pid_max"),
        ("node_processes_max_threads", "sys/kernel/threads-max"),
    ] {
        sink.one(name, Kind::Gauge, number(Some(host.proc(path)?.trim())));
    }
    Ok(())
}
