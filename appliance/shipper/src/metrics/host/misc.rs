//! Memory, pressure, clock, sensors and the rest.

use super::numbers::{number, pairs};
use super::{Host, Kind, Outcome, Sink, names};
use crate::clock::{self, Clock, SystemClock};

/// `/proc/meminfo` (proc_meminfo(5)).
pub(super) fn meminfo(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let text = host.proc("meminfo")?;
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else {
            continue;
        };
        let mut words = rest.split_ascii_whitespace();
        let value = number(words.next());
        // Active(anon) is Active_anon.
        let mut name = format!(
            "node_memory_{}",
            name.trim_end_matches(')').replace('(', "_")
        );
        let unit = if words.next() == Some("kB") {
            1024.0
        } else {
            1.0
        };
        if unit > 1.0 {
            name.push_str("_bytes");
        }
        sink.one(&name, Kind::Gauge, value * unit);
    }
    Ok(())
}

/// Dashboards of node_exporter ask whether files of metrics could be read. Here nobody leaves any, so
/// none fails.
pub(super) fn textfile(_: &Host, sink: &mut dyn Sink) -> Outcome {
    sink.one("node_textfile_scrape_error", Kind::Gauge, 0.0);
    Ok(())
}

/// What node_exporter tells of `/proc/vmstat`.
pub(super) fn vmstat(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let text = host.proc("vmstat")?;
    for (name, value) in pairs(&text) {
        let wanted = [
            "oom_kill",
            "pgpgin",
            "pgpgout",
            "pswpin",
            "pswpout",
            "pgfault",
            "pgmajfault",
        ];
        if wanted.contains(&name) {
            sink.one(&format!("node_vmstat_{name}"), Kind::Untyped, value);
        }
    }
    Ok(())
}

/// `/proc/pressure` (psi of the kernel's documentation); kernels may lack it.
pub(super) fn pressure(host: &Host, sink: &mut dyn Sink) -> Outcome {
    for (file, lines) in [
        ("cpu", &[("some", "cpu_waiting")][..]),
        ("io", &[("some", "io_waiting"), ("full", "io_stalled")]),
        (
            "memory",
            &[("some", "memory_waiting"), ("full", "memory_stalled")],
        ),
        ("irq", &[("full", "irq_stalled")]),
    ] {
        let Ok(text) = host.proc(&format!("pressure/{file}")) else {
            continue;
        };
        for (word, name) in lines {
            let line = text.lines().find(|line| line.starts_with(word));
            let total = line
                .and_then(|line| line.rsplit_once("total="))
                .map(|(_, total)| total);
            if total.is_some() {
                let name = format!("node_pressure_{name}_seconds_total");
                sink.one(&name, Kind::Counter, number(total) / 1e6);
            }
        }
    }
    Ok(())
}

/// `/proc/sys/kernel/random`.
pub(super) fn entropy(host: &Host, sink: &mut dyn Sink) -> Outcome {
    for (name, file) in [("available", "entropy_avail"), ("pool_size", "poolsize")] {
        let text = host.proc(&format!("sys/kernel/random/{file}"))?;
        sink.one(
            &format!("node_entropy_{name}_bits"),
            Kind::Gauge,
            number(Some(text.trim())),
        );
    }
    Ok(())
}

/// `/proc/sys/fs/file-nr`.
pub(super) fn filefd(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let text = host.proc("sys/fs/file-nr")?;
    let mut words = text.split_ascii_whitespace();
    sink.one("node_filefd_allocated", Kind::Gauge, number(words.next()));
    sink.one("node_filefd_maximum", Kind::Gauge, number(words.nth(1)));
    Ok(())
}

/// The wall clock.
pub(super) fn time(_: &Host, sink: &mut dyn Sink) -> Outcome {
    sink.one(
        "node_time_seconds",
        Kind::Gauge,
        SystemClock::new().now() as f64 / 1e9,
    );
    Ok(())
}

/// adjtimex(2).
pub(super) fn timex(_: &Host, sink: &mut dyn Sink) -> Outcome {
    let timex = clock::timex().ok_or("adjtimex is not permitted")?;
    // Times are in ns if the kernel's clock is set so.
    let unit = if timex.status & libc::STA_NANO != 0 {
        1e-9
    } else {
        1e-6
    };
    let synchronized = f64::from(u8::from(timex.status & libc::STA_UNSYNC == 0));
    // Frequencies are in ppm with 16 binary places.
    let ratio = 1.0 + timex.freq as f64 / (65536.0 * 1e6);
    for (name, value) in [
        ("sync_status", synchronized),
        ("offset_seconds", timex.offset as f64 * unit),
        ("frequency_adjustment_ratio", ratio),
        ("maxerror_seconds", timex.maxerror as f64 / 1e6),
        ("estimated_error_seconds", timex.esterror as f64 / 1e6),
        ("status", f64::from(timex.status)),
        ("loop_time_constant", timex.constant as f64),
        ("tick_seconds", timex.tick as f64 / 1e6),
        ("tai_offset_seconds", f64::from(timex.tai)),
    ] {
        sink.one(&format!("node_timex_{name}"), Kind::Gauge, value);
    }
    Ok(())
}

/// uname(2).
pub(super) fn uname(_: &Host, sink: &mut dyn Sink) -> Outcome {
    let uname = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let labels = [
        ("domainname", text(uname.domainname())),
        ("machine", text(uname.machine())),
        ("nodename", text(uname.nodename())),
        ("release", text(uname.release())),
        ("sysname", text(uname.sysname())),
        ("version", text(uname.version())),
    ];
    let labels: Vec<_> = labels
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    sink.family("node_uname_info", Kind::Gauge);
    sink.sample(&labels, 1.0);
    Ok(())
}

/// Temperatures of `/sys/class/hwmon` (sysfs-interface of hwmon).
pub(super) fn hwmon(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let chips = names(host.sys.join("class/hwmon"));
    let mut temperatures = Vec::new();
    let mut chip_names = Vec::new();
    for chip in &chips {
        let folder = host.sys.join("class/hwmon").join(chip);
        // The device tells chips of one kind apart.
        let device = std::fs::canonicalize(folder.join("device")).ok();
        let part = |path: &std::path::Path| {
            path.file_name()
                .map(|name| clean(&name.to_string_lossy()))
                .unwrap_or_default()
        };
        let label = match &device {
            Some(device) => {
                format!(
                    "{}_{}",
                    device.parent().map(part).unwrap_or_default(),
                    part(device)
                )
            }
            None => chip.clone(),
        };
        if let Some(name) = host.sys(&format!("class/hwmon/{chip}/name")) {
            chip_names.push((label.clone(), clean(&name)));
        }
        for file in names(folder) {
            if let Some(sensor) = file
                .strip_suffix("_input")
                .filter(|name| name.starts_with("temp"))
                && let Some(value) = host.sys(&format!("class/hwmon/{chip}/{file}"))
            {
                temperatures.push((
                    label.clone(),
                    sensor.to_owned(),
                    number(Some(&value)) / 1000.0,
                ));
            }
        }
    }
    sink.family("node_hwmon_chip_names", Kind::Gauge);
    for (chip, name) in &chip_names {
        sink.sample(&[("chip", chip), ("chip_name", name)], 1.0);
    }
    sink.family("node_hwmon_temp_celsius", Kind::Gauge);
    for (chip, sensor, value) in &temperatures {
        sink.sample(&[("chip", chip), ("sensor", sensor)], *value);
    }
    Ok(())
}

fn clean(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    lower
        .replace(|c: char| !c.is_ascii_alphanumeric() && c != ':', "_")
        .trim_matches('_')
        .into()
}

/// `/sys/class/thermal`: cooling devices and zones.
pub(super) fn thermal(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let entries = names(host.sys.join("class/thermal"));
    let read = |entry: &str, file: &str| host.sys(&format!("class/thermal/{entry}/{file}"));
    for (name, file) in [("cur_state", "cur_state"), ("max_state", "max_state")] {
        sink.family(&format!("node_cooling_device_{name}"), Kind::Gauge);
        for entry in &entries {
            if let Some(number_of) = entry.strip_prefix("cooling_device")
                && let Some(kind) = read(entry, "type")
                && let Some(value) = read(entry, file)
            {
                sink.sample(
                    &[("name", number_of), ("type", &kind)],
                    number(Some(&value)),
                );
            }
        }
    }
    sink.family("node_thermal_zone_temp", Kind::Gauge);
    for entry in &entries {
        if let Some(zone) = entry.strip_prefix("thermal_zone")
            && let Some(kind) = read(entry, "type")
            && let Some(value) = read(entry, "temp")
        {
            sink.sample(
                &[("type", &kind), ("zone", zone)],
                number(Some(&value)) / 1000.0,
            );
        }
    }
    Ok(())
}
