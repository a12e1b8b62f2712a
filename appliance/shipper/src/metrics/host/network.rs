//! The network.

use super::numbers::{number, tables};
use super::{Host, Kind, Outcome, Sink, names};

/// `/proc/net/dev` (proc_pid_net(5)), in the order of its columns.
const DEVICE: [&str; 16] = [
    "receive_bytes",
    "receive_packets",
    "receive_errs",
    "receive_drop",
    "receive_fifo",
    "receive_frame",
    "receive_compressed",
    "receive_multicast",
    "transmit_bytes",
    "transmit_packets",
    "transmit_errs",
    "transmit_drop",
    "transmit_fifo",
    "transmit_colls",
    "transmit_carrier",
    "transmit_compressed",
];

/// Traffic of each interface.
pub(super) fn netdev(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let text = host.proc("net/dev")?;
    let devices: Vec<(&str, Vec<f64>)> = text
        .lines()
        .skip(2)
        .filter_map(|line| {
            let (device, rest) = line.rsplit_once(':')?;
            Some((
                device.trim(),
                rest.split_ascii_whitespace()
                    .map(|w| number(Some(w)))
                    .collect(),
            ))
        })
        .collect();
    for (at, name) in DEVICE.iter().enumerate() {
        sink.family(&format!("node_network_{name}_total"), Kind::Counter);
        for (device, values) in &devices {
            sink.sample(
                &[("device", device)],
                values.get(at).copied().unwrap_or(0.0),
            );
        }
    }
    sink.family("node_network_receive_nohandler_total", Kind::Counter);
    for (device, _) in &devices {
        let path = format!("class/net/{device}/statistics/rx_nohandler");
        sink.sample(&[("device", device)], number(host.sys(&path).as_deref()));
    }
    Ok(())
}

/// Name, file, type.
const CLASS: [(&str, &str, Kind); 8] = [
    ("carrier", "carrier", Kind::Gauge),
    ("carrier_changes_total", "carrier_changes", Kind::Counter),
    (
        "carrier_down_changes_total",
        "carrier_down_count",
        Kind::Counter,
    ),
    (
        "carrier_up_changes_total",
        "carrier_up_count",
        Kind::Counter,
    ),
    ("dormant", "dormant", Kind::Gauge),
    ("mtu_bytes", "mtu", Kind::Gauge),
    ("transmit_queue_length", "tx_queue_len", Kind::Gauge),
    ("iface_id", "ifindex", Kind::Gauge),
];

/// `/sys/class/net` (sysfs-class-net).
pub(super) fn netclass(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let devices = names(host.sys.join("class/net"));
    let devices: Vec<_> = devices
        .iter()
        .filter(|name| host.sys.join("class/net").join(name).is_dir())
        .collect();
    let read = |device: &str, file: &str| host.sys(&format!("class/net/{device}/{file}"));
    for (name, file, kind) in CLASS {
        sink.family(&format!("node_network_{name}"), kind);
        for device in &devices {
            // The carrier of an interface that is down cannot be read.
            if let Some(value) = read(device, file).and_then(|value| value.parse().ok()) {
                sink.sample(&[("device", device)], value);
            }
        }
    }
    sink.family("node_network_speed_bytes", Kind::Gauge);
    for device in &devices {
        if let Some(mbits) = read(device, "speed").and_then(|value| value.parse::<f64>().ok()) {
            sink.sample(&[("device", device)], mbits * 1_000_000.0 / 8.0);
        }
    }
    sink.family("node_network_up", Kind::Gauge);
    for device in &devices {
        let up = read(device, "operstate").is_some_and(|state| state == "up");
        sink.sample(&[("device", device)], f64::from(u8::from(up)));
    }
    sink.family("node_network_info", Kind::Gauge);
    for device in &devices {
        let value = |file| read(device, file).unwrap_or_default();
        let (address, broadcast) = (value("address"), value("broadcast"));
        let (duplex, alias, state) = (value("duplex"), value("ifalias"), value("operstate"));
        let flags = read(device, "flags");
        let flags = flags.as_deref().and_then(|text| text.strip_prefix("0x"));
        // IFF_UP of netdevice(7).
        let admin = match flags.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
            Some(flags) if flags & 1 == 1 => "up",
            Some(_) => "down",
            None => "unknown",
        };
        let labels = [
            ("address", address.as_str()),
            ("adminstate", admin),
            ("broadcast", &broadcast),
            ("device", device),
            ("duplex", &duplex),
            ("ifalias", &alias),
            ("operstate", &state),
        ];
        sink.sample(&labels, 1.0);
    }
    Ok(())
}

/// Names of `/proc/net/sockstat` and `sockstat6`.
pub(super) fn sockstat(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let page = rustix::param::page_size() as f64;
    let four = host.proc("net/sockstat")?;
    // Without IPv6 there is no second file.
    let six = host.proc("net/sockstat6").unwrap_or_default();
    for line in four.lines().chain(six.lines()) {
        let Some((protocol, rest)) = line.split_once(':') else {
            continue;
        };
        let words: Vec<&str> = rest.split_ascii_whitespace().collect();
        for pair in words.chunks_exact(2) {
            let value = number(Some(pair[1]));
            let name = format!("node_sockstat_{protocol}_{}", pair[0]);
            sink.one(&name, Kind::Gauge, value);
            if pair[0] == "mem" {
                sink.one(&format!("{name}_bytes"), Kind::Gauge, value * page);
            }
        }
    }
    Ok(())
}

/// What node_exporter tells of `/proc/net/netstat`, `snmp` and `snmp6`.
fn wanted(table: &str, name: &str) -> bool {
    let list: &[&str] = match table {
        "IpExt" | "Ip6" => &["InOctets", "OutOctets"],
        "Ip" => &["Forwarding"],
        "Icmp" | "Icmp6" => &["InMsgs", "InErrors", "OutMsgs"],
        "Tcp" => &[
            "ActiveOpens",
            "InSegs",
            "OutSegs",
            "OutRsts",
            "PassiveOpens",
            "RetransSegs",
            "InErrs",
            "CurrEstab",
        ],
        "TcpExt" => {
            return name.starts_with("Listen")
                || name.starts_with("Syncookies")
                || ["TCPSynRetrans", "TCPTimeouts", "TCPOFOQueue", "TCPRcvQDrop"].contains(&name);
        }
        "Udp" | "Udp6" => &[
            "InDatagrams",
            "InErrors",
            "OutDatagrams",
            "NoPorts",
            "RcvbufErrors",
            "SndbufErrors",
        ],
        "UdpLite" | "UdpLite6" => &["InErrors"],
        _ => &[],
    };
    list.contains(&name)
}

/// Counters of the protocols.
pub(super) fn netstat(host: &Host, sink: &mut dyn Sink) -> Outcome {
    for file in ["net/netstat", "net/snmp"] {
        let text = host.proc(file)?;
        for (table, name, value) in tables(&text) {
            if wanted(table, name) {
                sink.one(
                    &format!("node_netstat_{table}_{name}"),
                    Kind::Untyped,
                    value,
                );
            }
        }
    }
    let six = host.proc("net/snmp6").unwrap_or_default();
    for (word, value) in super::numbers::pairs(&six) {
        // The protocol ends with the digit.
        let Some((protocol, name)) = word.split_once('6') else {
            continue;
        };
        let table = format!("{protocol}6");
        if wanted(&table, name) {
            sink.one(
                &format!("node_netstat_{table}_{name}"),
                Kind::Untyped,
                value,
            );
        }
    }
    Ok(())
}

/// `/proc/net/softnet_stat`: hexadecimal columns, a line for each processor.
pub(super) fn softnet(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let text = host.proc("net/softnet_stat")?;
    let rows: Vec<(usize, Vec<f64>)> = text
        .lines()
        .enumerate()
        .map(|(at, line)| {
            let words = line.split_ascii_whitespace();
            let values: Vec<u64> = words
                .map(|word| u64::from_str_radix(word, 16).unwrap_or(0))
                .collect();
            // Since 5.14 the 13th column is the processor.
            let cpu = values.get(12).map_or(at, |&cpu| cpu as usize);
            (cpu, values.into_iter().map(|value| value as f64).collect())
        })
        .collect();
    for (name, at, kind) in [
        ("backlog_len", 11, Kind::Gauge),
        ("cpu_collision_total", 8, Kind::Counter),
        ("dropped_total", 1, Kind::Counter),
        ("flow_limit_count_total", 10, Kind::Counter),
        ("processed_total", 0, Kind::Counter),
        ("received_rps_total", 9, Kind::Counter),
        ("times_squeezed_total", 2, Kind::Counter),
    ] {
        sink.family(&format!("node_softnet_{name}"), kind);
        for (cpu, values) in &rows {
            let value = values.get(at).copied().unwrap_or(0.0);
            sink.sample(&[("cpu", &cpu.to_string())], value);
        }
    }
    Ok(())
}

/// `/proc/net/arp`: entries by interface.
pub(super) fn arp(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let text = host.proc("net/arp")?;
    let mut devices: Vec<&str> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_ascii_whitespace().nth(5))
        .collect();
    devices.sort_unstable();
    sink.family("node_arp_entries", Kind::Gauge);
    for same in devices.chunk_by(|a, b| a == b) {
        sink.sample(&[("device", same[0])], same.len() as f64);
    }
    Ok(())
}

/// Tracked connections, where the kernel tracks any.
pub(super) fn conntrack(host: &Host, sink: &mut dyn Sink) -> Outcome {
    for (name, file) in [
        (
            "node_nf_conntrack_entries",
            "sys/net/netfilter/nf_conntrack_count",
        ),
        (
            "node_nf_conntrack_entries_limit",
            "sys/net/netfilter/nf_conntrack_max",
        ),
    ] {
        if let Ok(text) = host.proc(file) {
            sink.one(name, Kind::Gauge, number(Some(text.trim())));
        }
    }
    Ok(())
}
