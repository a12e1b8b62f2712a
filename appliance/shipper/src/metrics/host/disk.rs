//! Block devices.

use super::numbers::number;
use super::{Host, Kind, Outcome, Sink};

/// Whether node_exporter leaves a device out: RAM disks, loops and partitions
/// (`^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$`).
fn left_out(device: &str) -> bool {
    let stem = device.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.len() == device.len() {
        return false;
    }
    if matches!(stem, "ram" | "zram" | "loop" | "fd") {
        return true;
    }
    if let Some(rest) = stem
        .strip_prefix("nvme")
        .and_then(|rest| rest.strip_suffix('p'))
    {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        return rest
            .split_once('n')
            .is_some_and(|(a, b)| digits(a) && digits(b));
    }
    ["hd", "sd", "vd", "xvd"].iter().any(|kind| {
        let letter = stem.strip_prefix(kind);
        letter.is_some_and(|letter| letter.len() == 1 && letter.as_bytes()[0].is_ascii_lowercase())
    })
}

/// Name, place in the line after the device's name, factor (sectors are of 512 bytes, times in ms).
const COUNTERS: [(&str, usize, f64); 17] = [
    ("reads_completed_total", 0, 1.0),
    ("reads_merged_total", 1, 1.0),
    ("read_bytes_total", 2, 512.0),
    ("read_time_seconds_total", 3, 0.001),
    ("writes_completed_total", 4, 1.0),
    ("writes_merged_total", 5, 1.0),
    ("written_bytes_total", 6, 512.0),
    ("write_time_seconds_total", 7, 0.001),
    ("io_now", 8, 1.0),
    ("io_time_seconds_total", 9, 0.001),
    ("io_time_weighted_seconds_total", 10, 0.001),
    ("discards_completed_total", 11, 1.0),
    ("discards_merged_total", 12, 1.0),
    ("discarded_sectors_total", 13, 1.0),
    ("discard_time_seconds_total", 14, 0.001),
    ("flush_requests_total", 15, 1.0),
    ("flush_requests_time_seconds_total", 16, 0.001),
];

/// `/proc/diskstats` (iostats of the kernel's documentation).
pub(super) fn diskstats(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let text = host.proc("diskstats")?;
    let disks: Vec<(&str, Vec<f64>)> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(2);
            let device = words.next().filter(|device| !left_out(device))?;
            Some((device, words.map(|word| number(Some(word))).collect()))
        })
        .collect();
    for (name, at, factor) in COUNTERS {
        let kind = if name == "io_now" {
            Kind::Gauge
        } else {
            Kind::Counter
        };
        sink.family(&format!("node_disk_{name}"), kind);
        for (device, values) in &disks {
            if let Some(value) = values.get(at) {
                sink.sample(&[("device", device)], value * factor);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::left_out;

    #[test]
    fn partitions_are_left_out() {
        for device in [
            "sda1",
            "vda8",
            "nvme0n1p3",
            "loop0",
            "zram0",
            "ram15",
            "xvdb2",
            "fd0",
        ] {
            assert!(left_out(device), "{device}");
        }
        for device in ["sda", "vdb", "nvme0n1", "dm-0", "md127", "sr0", "xvda"] {
            assert!(!left_out(device), "{device}");
        }
    }
}
