//! What the kernel knows about this process, under the names that every Prometheus client uses.

use crate::metrics::Text;

/// Writes the metrics of this process; what `/proc` does not tell is left out.
pub(crate) fn write(text: &mut Text) {
    if let Some(stat) = std::fs::read_to_string("/proc/self/stat")
        .ok()
        .as_deref()
        .and_then(parse)
    {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let page = rustix::param::page_size() as u64;
        gauge(
            text,
            "resident_memory_bytes",
            "Resident memory in bytes.",
            stat.pages * page,
        );
        gauge(
            text,
            "virtual_memory_bytes",
            "Virtual memory in bytes.",
            stat.virtual_bytes,
        );
        let (name, help) = ("process_cpu_seconds_total", "CPU time in seconds.");
        text.family(name, "counter", help);
        text.line("", &[], stat.ticks as f64 / ticks);
        // Since the boot; the time of the boot comes from the two clocks.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let booted = now.map_or(0.0, |now| now.as_secs_f64()) - up.tv_sec as f64;
        let started = (booted + stat.started as f64 / ticks).round();
        let help = "Start of the process in seconds since 1970.";
        gauge(text, "start_time_seconds", help, started);
        gauge(text, "threads", "Threads.", stat.threads);
    }
    if let Ok(folder) = std::fs::read_dir("/proc/self/fd") {
        gauge(text, "open_fds", "Open files.", folder.count());
    }
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        gauge(text, "max_fds", "Most open files.", limit);
    }
}

fn gauge(text: &mut Text, name: &str, help: &str, value: impl std::fmt::Display) {
    text.family(&format!("process_{name}"), "gauge", help);
    text.line("", &[], value);
}

/// Fields of `/proc/self/stat` (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// User and system time in clock ticks.
    ticks: u64,
    threads: u64,
    /// Clock ticks from the boot to the start.
    started: u64,
    virtual_bytes: u64,
    /// Resident pages.
    pages: u64,
}

fn parse(stat: &str) -> Option<Stat> {
    // The name in parentheses may hold anything; the fields after it begin with the third.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        ticks: field(14)? + field(15)?,
        threads: field(20)?,
        started: field(22)?,
        virtual_bytes: field(23)?,
        pages: field(24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process() {
        let mut text = Text::default();
        write(&mut text);
        let text = format!("{text:?}");
        for name in [
            "cpu_seconds_total",
            "resident_memory_bytes",
            "open_fds",
            "max_fds",
        ] {
            assert!(text.contains(&format!("process_{name} ")), "{text}");
        }
    }

    #[test]
    fn names_may_hold_anything() {
        let stat = "1 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22";
        let parsed = parse(stat).unwrap();
        assert_eq!(parsed.ticks, 11 + 12);
        assert_eq!(parse("1 (a"), None);
        assert_eq!(parse("1 (a) S 1"), None);
    }
}
