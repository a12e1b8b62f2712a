//! Against a real Prometheus with its remote-write receiver.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use shipper::clock::{Clock, SystemClock};
use shipper::counters::MetricCounters;
use shipper::metrics::{
    Frame, Host, Kind, Own, Scraper, Sender, Sink, Snapshot, Source, Target, Units,
};
use support::{Daemon, client, program};

fn prometheus() -> Option<(tempfile::TempDir, Daemon)> {
    let prometheus = program("prometheus", &["/usr/bin/prometheus"])?;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("prometheus.yml");
    std::fs::write(&config, "global:\n  scrape_interval: 1h\n").unwrap();
    let data = folder.path().join("data");
    let daemon = Daemon::start(
        |address| {
            let mut command = Command::new(&prometheus);
            command
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", data.display()))
                .arg(format!("--web.listen-address={address}"))
                .arg("--web.enable-remote-write-receiver");
            command
        },
        "Server is ready to receive web requests",
    );
    Some((folder, daemon))
}

fn labels() -> Vec<(String, String)> {
    vec![
        ("instance".into(), "cache-1".into()),
        ("job".into(), "node".into()),
    ]
}

fn query(daemon: &Daemon, query: &str) -> String {
    let url = format!("http://{}/api/v1/query?query={query}", daemon.address);
    let (status, body) = client(&url).get(16 << 20).unwrap();
    let text = String::from_utf8(body).unwrap();
    assert_eq!(status, 200, "{text}");
    text
}

fn now() -> i64 {
    SystemClock::new().now() / 1_000_000
}

/// Names that the dashboard "Node Exporter Full" cannot do without, and that machines have on which
/// tests run; more need hardware, a service manager or a newer kernel, and are looked for in QEMU.
const MUST_HAVE: &[&str] = &[
    "node_memory_MemTotal_bytes",
    "node_memory_MemFree_bytes",
    "node_memory_MemAvailable_bytes",
    "node_memory_Buffers_bytes",
    "node_memory_Cached_bytes",
    "node_memory_SwapCached_bytes",
    "node_memory_SwapTotal_bytes",
    "node_memory_SwapFree_bytes",
    "node_memory_Active_bytes",
    "node_memory_Inactive_bytes",
    "node_memory_Active_anon_bytes",
    "node_memory_Inactive_anon_bytes",
    "node_memory_Active_file_bytes",
    "node_memory_Inactive_file_bytes",
    "node_memory_Unevictable_bytes",
    "node_memory_Mlocked_bytes",
    "node_memory_Dirty_bytes",
    "node_memory_Writeback_bytes",
    "node_memory_AnonPages_bytes",
    "node_memory_Mapped_bytes",
    "node_memory_Shmem_bytes",
    "node_memory_Slab_bytes",
    "node_memory_SReclaimable_bytes",
    "node_memory_SUnreclaim_bytes",
    "node_memory_KernelStack_bytes",
    "node_memory_PageTables_bytes",
    "node_memory_CommitLimit_bytes",
    "node_memory_Committed_AS_bytes",
    "node_memory_VmallocTotal_bytes",
    "node_memory_VmallocUsed_bytes",
    "node_memory_VmallocChunk_bytes",
    "node_memory_Percpu_bytes",
    "node_memory_AnonHugePages_bytes",
    "node_memory_ShmemHugePages_bytes",
    "node_memory_ShmemPmdMapped_bytes",
    "node_memory_Hugepagesize_bytes",
    "node_memory_DirectMap4k_bytes",
    "node_memory_DirectMap2M_bytes",
    "node_memory_DirectMap1G_bytes",
    "node_memory_HugePages_Total",
    "node_memory_HugePages_Free",
    "node_memory_HugePages_Rsvd",
    "node_memory_HugePages_Surp",
    "node_cpu_seconds_total",
    "node_cpu_guest_seconds_total",
    "node_load1",
    "node_load5",
    "node_load15",
    "node_context_switches_total",
    "node_intr_total",
    "node_forks_total",
    "node_boot_time_seconds",
    "node_procs_running",
    "node_procs_blocked",
    "node_time_seconds",
    "node_uname_info",
    "node_vmstat_pgfault",
    "node_vmstat_pgmajfault",
    "node_vmstat_pgpgin",
    "node_vmstat_pgpgout",
    "node_vmstat_pswpin",
    "node_vmstat_pswpout",
    "node_vmstat_oom_kill",
    "node_filesystem_size_bytes",
    "node_filesystem_free_bytes",
    "node_filesystem_avail_bytes",
    "node_filesystem_files",
    "node_filesystem_files_free",
    "node_filesystem_readonly",
    "node_filesystem_device_error",
    "node_network_receive_bytes_total",
    "node_network_transmit_bytes_total",
    "node_network_receive_packets_total",
    "node_network_transmit_packets_total",
    "node_network_receive_errs_total",
    "node_network_transmit_errs_total",
    "node_network_receive_drop_total",
    "node_network_transmit_drop_total",
    "node_network_receive_fifo_total",
    "node_network_transmit_fifo_total",
    "node_network_receive_compressed_total",
    "node_network_transmit_compressed_total",
    "node_network_receive_frame_total",
    "node_network_receive_multicast_total",
    "node_network_receive_nohandler_total",
    "node_network_transmit_colls_total",
    "node_network_transmit_carrier_total",
    "node_network_up",
    "node_network_carrier",
    "node_network_mtu_bytes",
    "node_sockstat_sockets_used",
    "node_sockstat_TCP_inuse",
    "node_sockstat_TCP_orphan",
    "node_sockstat_TCP_tw",
    "node_sockstat_TCP_alloc",
    "node_sockstat_TCP_mem",
    "node_sockstat_TCP_mem_bytes",
    "node_sockstat_UDP_inuse",
    "node_sockstat_UDP_mem",
    "node_sockstat_UDP_mem_bytes",
    "node_sockstat_RAW_inuse",
    "node_sockstat_FRAG_inuse",
    "node_netstat_TcpExt_ListenOverflows",
    "node_netstat_TcpExt_ListenDrops",
    "node_netstat_TcpExt_SyncookiesSent",
    "node_netstat_TcpExt_TCPSynRetrans",
    "node_netstat_TcpExt_TCPTimeouts",
    "node_netstat_IpExt_InOctets",
    "node_netstat_IpExt_OutOctets",
    "node_netstat_Tcp_CurrEstab",
    "node_netstat_Udp_InDatagrams",
    "node_netstat_Icmp_InMsgs",
    "node_softnet_processed_total",
    "node_softnet_dropped_total",
    "node_softnet_times_squeezed_total",
    "node_timex_offset_seconds",
    "node_timex_estimated_error_seconds",
    "node_timex_maxerror_seconds",
    "node_timex_sync_status",
    "node_timex_frequency_adjustment_ratio",
    "node_timex_tai_offset_seconds",
    "node_filefd_allocated",
    "node_filefd_maximum",
    "node_entropy_available_bits",
    "node_entropy_pool_size_bits",
    "node_processes_state",
    "node_processes_pids",
    "node_processes_threads",
    "node_processes_max_processes",
    "node_processes_max_threads",
    "node_tcp_connection_states",
    "node_scrape_collector_success",
    "node_scrape_collector_duration_seconds",
    "node_textfile_scrape_error",
    "process_cpu_seconds_total",
    "process_virtual_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "node_memory_NFS_Unstable_bytes",
    "node_memory_WritebackTmp_bytes",
    "node_pressure_cpu_waiting_seconds_total",
    "node_pressure_memory_waiting_seconds_total",
    "node_pressure_memory_stalled_seconds_total",
    "node_pressure_io_waiting_seconds_total",
    "node_pressure_io_stalled_seconds_total",
    "node_disk_reads_completed_total",
    "node_disk_writes_completed_total",
    "node_disk_read_bytes_total",
    "node_disk_written_bytes_total",
    "node_disk_reads_merged_total",
    "node_disk_writes_merged_total",
    "node_disk_read_time_seconds_total",
    "node_disk_write_time_seconds_total",
    "node_disk_io_time_seconds_total",
    "node_disk_io_time_weighted_seconds_total",
    "node_disk_io_now",
    "node_disk_discards_completed_total",
    "node_disk_flush_requests_total",
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "prometheus_remote_storage_samples_total",
];

#[test]
fn it_takes_a_scrape_and_answers_for_every_name_that_dashboards_need() {
    let Some((_folder, daemon)) = prometheus() else {
        return;
    };
    let counters = Arc::new(MetricCounters::default());
    let receiver = client(&format!("http://{}/api/v1/write", daemon.address));
    let mut sender = Sender::new(receiver, None, None, Arc::clone(&counters));
    let own = Own {
        logs: vec![],
        metrics: Arc::clone(&counters),
    };
    let mut scraper = Scraper::new(Target {
        labels: labels(),
        interval: Duration::from_secs(30),
        source: Source::Host(Host::default(), Units::default(), Box::new(own)),
    });
    sender.offer(scraper.scrape(now()));
    assert_eq!(
        sender.step(Duration::ZERO, now()),
        None,
        "{:?}",
        counters.problem
    );
    assert_eq!(counters.dropped.total(), 0);
    assert!(counters.samples.get() > 200);
    let answer = query(
        &daemon,
        "{job=\"node\",instance=\"cache-1\"}"
            .replace('"', "%22")
            .as_str(),
    );
    for name in MUST_HAVE {
        assert!(
            answer.contains(&format!("\"__name__\":\"{name}\"")),
            "{name} is missing"
        );
    }
    // When the shipper stops, so do the series.
    assert!(query(&daemon, "node_load1").contains("cache-1"));
    sender.offer(scraper.end(now() + 1));
    assert_eq!(sender.step(Duration::ZERO, now()), None);
    let later = format!("node_load1&time={}.5", now() / 1000 + 1);
    assert!(!query(&daemon, &later).contains("cache-1"));
}

#[test]
fn one_series_that_it_cannot_take_does_not_take_the_others_along() {
    let Some((folder, daemon)) = prometheus() else {
        return;
    };
    let counters = Arc::new(MetricCounters::default());
    let receiver = client(&format!("http://{}/api/v1/write", daemon.address));
    let quarantine = folder.path().join("quarantine");
    let mut sender = Sender::new(
        receiver,
        None,
        Some(quarantine.clone()),
        Arc::clone(&counters),
    );
    let frame = |time: i64, value: f64| {
        let mut snapshot = Snapshot::new(&labels());
        snapshot.family("good", Kind::Gauge);
        for at in 0..49 {
            snapshot.sample(&[("at", &at.to_string())], value);
        }
        let body = Frame::new(time, &snapshot).body;
        let mut raw = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        // A series with the same label twice: this Prometheus fails at it, for ever.
        let mut series = Vec::new();
        for (name, value) in [("__name__", "twice"), ("a", "1"), ("a", "2")] {
            series.extend([0x0a, 4 + name.len() as u8 + value.len() as u8]);
            series.extend([0x0a, name.len() as u8]);
            series.extend(name.bytes());
            series.extend([0x12, value.len() as u8]);
            series.extend(value.bytes());
        }
        let mut sample = vec![0x09];
        sample.extend(value.to_bits().to_le_bytes());
        sample.push(0x10);
        let mut rest = time as u64;
        while rest >= 0x80 {
            sample.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        sample.push(rest as u8);
        series.extend([0x12, sample.len() as u8]);
        series.extend(sample);
        raw.extend([0x0a, series.len() as u8]);
        raw.extend(series);
        Frame {
            time,
            body: snap::raw::Encoder::new().compress_vec(&raw).unwrap(),
        }
    };
    let time = now() - 10_000;
    sender.offer(frame(time, 1.0));
    let mut monotonic = Duration::ZERO;
    while let Some(wait) = sender.step(monotonic, now()) {
        monotonic += wait;
        assert!(
            monotonic < Duration::from_secs(3600),
            "{:?}",
            counters.problem
        );
    }
    let answer = query(&daemon, "count(good)");
    assert!(answer.contains("\"49\""), "{answer}");
    assert_eq!(counters.quarantined.get(), 1);
    assert!(
        std::fs::read_to_string(&quarantine)
            .unwrap()
            .contains("twice")
    );
    // Next time it is left out.
    let requests = counters.requests.total();
    sender.offer(frame(time + 5000, 2.0));
    assert_eq!(sender.step(monotonic, now()), None);
    assert_eq!(counters.requests.total(), requests + 1);
}

#[test]
fn what_is_out_of_order_is_counted_and_the_rest_goes_on() {
    let Some((_folder, daemon)) = prometheus() else {
        return;
    };
    let counters = Arc::new(MetricCounters::default());
    let receiver = client(&format!("http://{}/api/v1/write", daemon.address));
    let mut sender = Sender::new(receiver, None, None, Arc::clone(&counters));
    let mut snapshot = Snapshot::new(&labels());
    snapshot.one("x", Kind::Gauge, 1.0);
    let time = now();
    for time in [time - 1000, time - 60_000, time - 4 * 3_600_000, time] {
        sender.offer(Frame::new(time, &snapshot));
    }
    assert_eq!(sender.step(Duration::ZERO, now()), None);
    assert_eq!((counters.samples.get(), counters.dropped.total()), (2, 2));
}
