//! Resources of each unit, from its control group (cgroup-v2 of the kernel's documentation).

use std::path::PathBuf;

use super::sample::{Kind, Sink};

/// Most units.
const LIMIT: usize = 256;

/// The units of a machine.
#[derive(Clone, Debug)]
pub struct Units {
    /// Folder of the slice, `/sys/fs/cgroup/system.slice`.
    pub slice: PathBuf,
}

impl Default for Units {
    fn default() -> Self {
        Self {
            slice: "/sys/fs/cgroup/system.slice".into(),
        }
    }
}

impl Units {
    /// Collects CPU, memory, I/O and tasks of every service.
    pub fn collect(&self, sink: &mut dyn Sink) {
        let mut units: Vec<String> = std::fs::read_dir(&self.slice)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.ends_with(".service"))
            .collect();
        units.sort_unstable();
        units.truncate(LIMIT);
        let read =
            |unit: &str, file: &str| std::fs::read_to_string(self.slice.join(unit).join(file)).ok();
        let word = |text: &str, name: &str| -> Option<f64> {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        sink.family("larder_unit_cpu_seconds_total", Kind::Counter);
        for unit in &units {
            let stat = read(unit, "cpu.stat").unwrap_or_default();
            for (mode, name) in [("user", "user_usec "), ("system", "system_usec ")] {
                if let Some(value) = word(&stat, name) {
                    sink.sample(&[("mode", mode), ("unit", unit)], value / 1e6);
                }
            }
        }
        for (name, file) in [
            ("larder_unit_memory_bytes", "memory.current"),
            ("larder_unit_memory_swap_bytes", "memory.swap.current"),
            ("larder_unit_tasks", "pids.current"),
        ] {
            sink.family(name, Kind::Gauge);
            for unit in &units {
                if let Some(value) = read(unit, file).and_then(|text| text.trim().parse().ok()) {
                    sink.sample(&[("unit", unit)], value);
                }
            }
        }
        for (name, word) in [("read", "rbytes="), ("written", "wbytes=")] {
            sink.family(&format!("larder_unit_io_{name}_bytes_total"), Kind::Counter);
            for unit in &units {
                if let Some(text) = read(unit, "io.stat") {
                    let words = text.split_ascii_whitespace();
                    let sum = words
                        .filter_map(|w| w.strip_prefix(word)?.parse::<f64>().ok())
                        .sum();
                    sink.sample(&[("unit", unit)], sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::TextSink;

    #[test]
    fn a_unit() {
        let folder = tempfile::tempdir().unwrap();
        let unit = folder.path().join("a.service");
        std::fs::create_dir(&unit).unwrap();
        std::fs::write(
            unit.join("cpu.stat"),
            "usage_usec 3\nuser_usec 2000000\nsystem_usec 1\n",
        )
        .unwrap();
        std::fs::write(unit.join("memory.current"), "4096\n").unwrap();
        std::fs::write(
            unit.join("io.stat"),
            "254:0 rbytes=5 wbytes=7\n8:0 rbytes=6 wbytes=0\n",
        )
        .unwrap();
        let mut sink = TextSink::default();
        Units {
            slice: folder.path().into(),
        }
        .collect(&mut sink);
        for line in [
            "larder_unit_cpu_seconds_total{mode=\"user\",unit=\"a.service\"} 2\n",
            "larder_unit_memory_bytes{unit=\"a.service\"} 4096\n",
            "larder_unit_io_read_bytes_total{unit=\"a.service\"} 11\n",
        ] {
            assert!(sink.text.contains(line), "{}", sink.text);
        }
    }
}
