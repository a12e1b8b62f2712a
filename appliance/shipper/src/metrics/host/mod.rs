//! Metrics of the machine, with the names, types and labels of node_exporter, so that dashboards
//! and alerts made for it go on working.

mod bus;
mod cpu;
mod disk;
mod filesystem;
mod misc;
mod network;
mod numbers;
mod systemd;
mod tcpstat;

use std::path::PathBuf;
use std::time::Instant;

use super::sample::{Kind, Sink};

/// What a collector came to: an error says what could not be read. A thing that this machine does
/// not have is no error.
type Outcome = Result<(), String>;

type Collector = fn(&Host, &mut dyn Sink) -> Outcome;

/// The collectors under the names that node_exporter gives them.
const COLLECTORS: [(&str, Collector); 27] = [
    ("arp", network::arp),
    ("conntrack", network::conntrack),
    ("cpu", cpu::cpu),
    ("diskstats", disk::diskstats),
    ("entropy", misc::entropy),
    ("filefd", misc::filefd),
    ("filesystem", filesystem::filesystem),
    ("hwmon", misc::hwmon),
    ("loadavg", cpu::loadavg),
    ("meminfo", misc::meminfo),
    ("netclass", network::netclass),
    ("netdev", network::netdev),
    ("netstat", network::netstat),
    ("pressure", misc::pressure),
    ("processes", cpu::processes),
    ("schedstat", cpu::schedstat),
    ("sockstat", network::sockstat),
    ("softnet", network::softnet),
    ("stat", cpu::stat),
    ("systemd", systemd::systemd),
    ("tcpstat", tcpstat::tcpstat),
    ("textfile", misc::textfile),
    ("thermal_zone", misc::thermal),
    ("time", misc::time),
    ("timex", misc::timex),
    ("uname", misc::uname),
    ("vmstat", misc::vmstat),
];

/// The machine.
#[derive(Clone, Debug)]
pub struct Host {
    /// `/proc`, or a copy of it.
    proc: PathBuf,
    /// `/sys`, or a copy of it.
    sys: PathBuf,
    /// Socket of the system's bus; there may be none.
    bus: PathBuf,
    /// Connections by state, as of their last count.
    connections: tcpstat::Last,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            sys: "/sys".into(),
            bus: "/run/dbus/system_bus_socket".into(),
            connections: tcpstat::Last::default(),
        }
    }
}

impl Host {
    /// A machine whose `/proc` and `/sys` are elsewhere, and which has no bus.
    pub fn at(proc: impl Into<PathBuf>, sys: impl Into<PathBuf>) -> Self {
        Self {
            proc: proc.into(),
            sys: sys.into(),
            bus: PathBuf::new(),
            connections: tcpstat::Last::default(),
        }
    }

    /// Collects everything. A collector that fails leaves its metrics out, and
    /// `node_scrape_collector_success` tells.
    pub fn collect(&self, sink: &mut dyn Sink) {
        let mut outcomes = Vec::with_capacity(COLLECTORS.len());
        for (name, collector) in COLLECTORS {
            let begin = Instant::now();
            let outcome = collector(self, sink);
            if let Err(error) = &outcome {
                log::debug!("collector {name}: {error}");
            }
            outcomes.push((name, begin.elapsed(), outcome.is_ok()));
        }
        sink.family("node_scrape_collector_duration_seconds", Kind::Gauge);
        for (name, duration, _) in &outcomes {
            sink.sample(&[("collector", name)], duration.as_secs_f64());
        }
        sink.family("node_scrape_collector_success", Kind::Gauge);
        for (name, _, success) in &outcomes {
            sink.sample(&[("collector", name)], f64::from(u8::from(*success)));
        }
    }

    /// Reads a file below `/proc`.
    fn proc(&self, path: &str) -> Result<String, String> {
        read(self.proc.join(path))
    }

    /// Reads a file below `/sys` without the white space around it; `None` if there is none.
    fn sys(&self, path: &str) -> Option<String> {
        read(self.sys.join(path))
            .ok()
            .map(|text| text.trim().to_owned())
    }
}

fn read(path: PathBuf) -> Result<String, String> {
    let bytes = std::fs::read(&path);
    let bytes = bytes.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Names in a folder, sorted; none if there is no such folder.
fn names(path: PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::TextSink;

    #[test]
    fn a_machine_without_anything_has_no_metrics_but_does_not_fail() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = TextSink::default();
        Host::at(folder.path(), folder.path()).collect(&mut sink);
        assert!(
            sink.text
                .contains("node_scrape_collector_success{collector=\"cpu\"} 0\n")
        );
        assert!(
            sink.text
                .contains("node_scrape_collector_success{collector=\"hwmon\"} 1\n")
        );
    }

    #[test]
    fn garbage_does_not_hurt() {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            "stat",
            "meminfo",
            "diskstats",
            "net/dev",
            "net/snmp",
            "net/netstat",
            "net/snmp6",
            "net/sockstat",
            "net/tcp",
            "net/softnet_stat",
            "loadavg",
            "vmstat",
            "schedstat",
            "pressure/io",
            "1/mountinfo",
            "net/arp",
        ];
        for garbage in [
            "",
            "\n\n",
            "a b c\nd",
            "cpu\ncpu0 1\n",
            "Tcp: a b\nTcp: 1\n",
            ": : :",
            "é 1 2 3 4 5",
        ] {
            for file in files {
                let path = folder.path().join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, garbage).unwrap();
            }
            Host::at(folder.path(), folder.path()).collect(&mut TextSink::default());
        }
    }
}
