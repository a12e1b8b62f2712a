//! Side by side with node_exporter: names, types and label sets are its, values agree.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use shipper::metrics::{Host, TextSink};
use support::{Daemon, client, program};

/// What we have and node_exporter has not: by default, in the version of Debian 12 (1.5), or in that of
/// Debian 13 (1.9, which left some of `/proc/meminfo` out).
const OURS: &[&str] = &[
    "node_netstat_TcpExt_TCP",
    "node_schedstat_",
    "node_pressure_irq",
    "node_systemd_",
    "node_hwmon_",
    "node_cooling_",
    "node_thermal_",
    "node_softnet_backlog_len",
    "node_softnet_cpu_collision",
    "node_softnet_flow_limit",
    "node_softnet_received_rps",
    "node_memory_Balloon",
    "node_memory_FileHugePages",
    "node_memory_FilePmdMapped",
    "node_memory_Hugetlb",
    "node_memory_KReclaimable",
    "node_memory_SecPageTables",
    "node_memory_Zswap",
];
/// Labels that node_exporter has only since Debian 13.
const NEW_LABELS: &[&str] = &["adminstate"];
/// What node_exporter has and no dashboard of the list asks for.
const THEIRS: &[&str] = &[
    "go_",
    "promhttp_",
    "process_",
    "node_exporter_build_info",
    "node_textfile_mtime",
    "node_processes_threads_state",
    "node_os_",
    "node_disk_info",
    "node_dmi_",
    "node_edac_",
    "node_udp_queues",
    "node_selinux_",
    "node_time_clocksource",
    "node_time_zone",
    "node_timex_pps",
    "node_nf_conntrack_stat",
    "node_network_address_assign_type",
    "node_network_device_id",
    "node_network_flags",
    "node_network_iface_link",
    "node_network_name_assign_type",
    "node_network_net_dev_group",
    "node_network_protocol_type",
    "node_power_supply",
    "node_cpu_info",
    "node_cpu_core",
    "node_cpu_package",
    "node_cpu_scaling",
    "node_cpu_frequency",
    "node_md_",
    "node_xfs_",
    "node_filesystem_mount_info",
    "node_btrfs_",
    "node_nvme_",
    "node_rapl_",
    "node_zfs_",
    "node_bonding_",
    "node_softirqs",
    "node_hwmon_",
    "node_thermal_",
    "node_cooling_",
    "node_infiniband_",
    "node_ipvs",
    "node_nfs",
    "node_disk_ata",
    "node_disk_device_mapper",
    "node_disk_filesystem",
    "node_watchdog",
];
/// Whose values may differ: they count what happens in between, or the scrape itself.
const MOVING: f64 = 0.25;

fn listed(name: &str, list: &[&str]) -> bool {
    list.iter().any(|prefix| name.starts_with(prefix))
}

/// Types by name, and values by name and labels.
type Metrics = (
    BTreeMap<String, String>,
    BTreeMap<(String, BTreeSet<String>), f64>,
);

fn read(text: &str) -> Metrics {
    let (mut kinds, mut values) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            kinds.insert(name.to_owned(), kind.to_owned());
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            // No label's value of the machine holds this.
            let labels = labels.trim_end_matches('}').split("\",");
            let labels = labels.map(|label| label.trim_end_matches('"').to_owned());
            let labels = labels.filter(|label| !label.is_empty()).collect();
            values.insert((name.to_owned(), labels), value.parse().unwrap());
        }
    }
    (kinds, values)
}

#[test]
fn names_types_labels_and_values_agree() {
    let Some(exporter) = program(
        "prometheus-node-exporter",
        &["/usr/bin/prometheus-node-exporter"],
    ) else {
        return;
    };
    let daemon = Daemon::start(
        |address| {
            let mut command = Command::new(&exporter);
            command.arg(format!("--web.listen-address={address}"));
            // Off by default, and asked for by the dashboard.
            command.args(["--collector.processes", "--collector.tcpstat"]);
            command
        },
        "Listening on",
    );
    let (status, body) = client(&format!("http://{}/metrics", daemon.address))
        .get(16 << 20)
        .unwrap();
    assert_eq!(status, 200);
    let mut sink = TextSink::default();
    Host::default().collect(&mut sink);
    let (their_kinds, theirs) = read(&String::from_utf8(body).unwrap());
    let (our_kinds, ours) = read(&sink.text);

    let mut complaints = Vec::new();
    for (name, kind) in &their_kinds {
        if listed(name, THEIRS) {
            continue;
        }
        match our_kinds.get(name) {
            None => complaints.push(format!("{name} is missing")),
            Some(ours) if ours != kind => {
                complaints.push(format!("{name} is {ours}, not {kind}"));
            }
            Some(_) => {}
        }
    }
    for name in our_kinds.keys() {
        let empty = !ours.keys().any(|(other, _)| other == name);
        if !their_kinds.contains_key(name) && !listed(name, OURS) && !empty {
            complaints.push(format!("{name} is not one of node_exporter's"));
        }
    }
    let mut compared = 0;
    for ((name, labels), value) in &theirs {
        if listed(name, THEIRS) || name.starts_with("node_scrape_collector") {
            continue;
        }
        // Since 1.6 it leaves these out, as we do.
        if labels
            .iter()
            .any(|label| label.starts_with("device=\"zram"))
        {
            continue;
        }
        // An empty label is the same as none.
        let plain = |labels: &BTreeSet<String>| -> BTreeSet<String> {
            let there = labels.iter().filter(|label| !label.ends_with('='));
            there.cloned().collect()
        };
        let wanted = plain(labels);
        let own = ours.iter().find(|((other, labels), _)| {
            let extra = |label: &String| {
                let name = label.split('=').next().unwrap_or_default();
                NEW_LABELS.contains(&name) && !wanted.iter().any(|other| other.starts_with(name))
            };
            other == name
                && plain(labels)
                    .into_iter()
                    .filter(|label| !extra(label))
                    .eq(wanted.iter().cloned())
        });
        // A process that ran, or waited for a disk, when it looked may sleep when we do.
        let passing = name.starts_with("node_processes_") && !labels.contains("state=\"S");
        let Some((_, own)) = own else {
            if passing {
                continue;
            }
            complaints.push(format!("{name}{labels:?} is missing"));
            continue;
        };
        compared += 1;
        // What is under way at this very moment.
        let queues = labels.iter().any(|label| label.ends_with("x_queued_bytes"));
        if queues
            || listed(
                name,
                &[
                    "node_disk_io_now",
                    "node_memory_Writeback",
                    "node_memory_Dirty",
                    "node_sockstat_TCP_mem",
                ],
            )
        {
            continue;
        }
        let near = (own - value).abs() <= MOVING * value.abs().max(own.abs()).max(100.0);
        if !near {
            complaints.push(format!("{name}{labels:?} is {own}, not {value}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(compared > 150, "only {compared} values were compared");
}
