//! Kernel, memory, file systems, names and time.

use anyhow::{Context, Result, ensure};
use qemu_tests::TestMachine;

use crate::words;

/// The users' machines as they run today.
const SYSCTLS: &[(&str, &str)] = &[
    ("net.core.somaxconn", "16384"),
    ("net.ipv4.tcp_max_syn_backlog", "16384"),
    ("net.core.rmem_max", "67108864"),
    ("net.core.wmem_max", "67108864"),
    ("net.ipv4.tcp_rmem", "4096 131072 67108864"),
    ("net.ipv4.tcp_wmem", "4096 65536 67108864"),
    ("fs.file-max", "1048576"),
    ("fs.nr_open", "1048576"),
    ("fs.aio-max-nr", "1048576"),
    ("net.core.optmem_max", "65536"),
    ("net.ipv4.tcp_congestion_control", "bbr"),
    ("net.core.default_qdisc", "fq"),
    ("net.ipv4.tcp_slow_start_after_idle", "0"),
    ("net.ipv4.tcp_notsent_lowat", "131072"),
    ("net.core.netdev_max_backlog", "16384"),
    ("net.ipv4.tcp_fastopen", "3"),
    ("net.ipv4.tcp_mtu_probing", "1"),
    ("net.ipv4.tcp_tw_reuse", "1"),
    ("net.ipv4.tcp_fin_timeout", "15"),
    ("net.ipv4.ip_local_port_range", "10240 65535"),
    ("net.ipv4.tcp_keepalive_time", "300"),
    ("net.ipv4.tcp_keepalive_intvl", "15"),
    ("net.ipv4.tcp_keepalive_probes", "5"),
    ("net.core.netdev_budget", "600"),
    ("net.core.netdev_budget_usecs", "16000"),
    ("vm.swappiness", "10"),
    // A core dump would hold secrets.
    ("kernel.core_pattern", "|/bin/false"),
    ("kernel.panic", "10"),
];

pub(super) fn kernel(machine: &mut TestMachine) {
    machine.check("every sysctl", |machine| {
        let keys: Vec<&str> = SYSCTLS.iter().map(|(key, _)| *key).collect();
        let said = machine.succeed(&format!("sudo sysctl {}", keys.join(" ")))?;
        let mut wrong = Vec::new();
        for (key, wanted) in SYSCTLS {
            let value = said.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                (name.trim() == *key).then(|| words(value))
            });
            if value.as_deref() != Some(*wanted) {
                wrong.push(format!("{key} is {value:?}, not {wanted:?}"));
            }
        }
        ensure!(wrong.is_empty(), "{wrong:#?}");
        Ok(())
    });
    machine.check("limits of open files", |machine| {
        let limits = machine.succeed("ulimit -Sn; ulimit -Hn")?;
        ensure!(words(&limits) == "65535 65535", "of a login: {limits}");
        let limits = machine
            .succeed("systemctl show -p DefaultLimitNOFILE -p DefaultLimitNOFILESoft | sort")?;
        let wanted = "DefaultLimitNOFILE=65535 DefaultLimitNOFILESoft=65535";
        ensure!(words(&limits) == wanted, "of units: {limits}");
        Ok(())
    });
    machine.check("no huge pages", |machine| {
        let mode = machine.succeed("cat /sys/kernel/mm/transparent_hugepage/enabled")?;
        ensure!(mode.contains("[never]"), "{mode}");
        Ok(())
    });
}

pub(super) fn memory(machine: &mut TestMachine) {
    machine.check(
        "swap is in memory, compressed, and nowhere else",
        |machine| {
            let swaps = machine.succeed("cat /proc/swaps")?;
            let devices: Vec<_> = swaps
                .lines()
                .skip(1)
                .filter_map(|l| l.split(' ').next())
                .collect();
            ensure!(devices == ["/dev/zram0"], "{swaps}");
            let algorithm = machine.succeed("cat /sys/block/zram0/comp_algorithm")?;
            ensure!(algorithm.contains("[zstd]"), "{algorithm}");
            let size: u64 = machine
                .succeed("cat /sys/block/zram0/disksize")?
                .trim()
                .parse()?;
            let total = machine.succeed("grep MemTotal /proc/meminfo")?;
            let total: u64 = words(&total)
                .split(' ')
                .nth(1)
                .context("no MemTotal")?
                .parse()?;
            let half = total * 1024 / 2;
            ensure!(
                size.abs_diff(half) < 32 << 20,
                "{size} bytes, half of memory is {half}"
            );
            Ok(())
        },
    );
}

pub(super) fn file_systems(machine: &mut TestMachine) {
    let mounts: [(&str, &str, &[&str]); 4] = [
        ("/", "ext4", &["ro"]),
        ("/var", "ext4", &["rw", "noatime", "commit=30", "lazytime"]),
        (
            "/cas",
            "ext4",
            &[
                "rw",
                "noatime",
                "nodiratime",
                "commit=60",
                "lazytime",
                "errors=remount-ro",
            ],
        ),
        ("/boot", "vfat", &["rw", "fmask=0077", "dmask=0077"]),
    ];
    for (target, kind, wanted) in mounts {
        machine.check(&format!("mount options of {target}"), |machine| {
            let shown = machine.succeed(&format!("findmnt -rno FSTYPE,SOURCE,OPTIONS {target}"))?;
            let shown: Vec<&str> = shown.split_ascii_whitespace().collect();
            ensure!(shown.len() == 3 && shown[0] == kind, "{shown:?}");
            ensure!(
                target != "/" || shown[1].starts_with("/dev/dm-"),
                "root is {}",
                shown[1]
            );
            let options: Vec<&str> = shown[2].split(',').collect();
            let missing: Vec<_> = wanted.iter().filter(|o| !options.contains(*o)).collect();
            ensure!(missing.is_empty(), "no {missing:?} in {options:?}");
            // It triples the time of an unlink; fstrim.timer does it.
            ensure!(!options.contains(&"discard"), "{options:?}");
            Ok(())
        });
    }
    machine.check(
        "/cas was made with its options, and is the cache's",
        |machine| {
            let shown =
                machine.succeed("sudo dumpe2fs -h $(findmnt -no SOURCE /cas) 2>/dev/null")?;
            let number = |name: &str| -> Result<u64> {
                let value = shown.lines().find_map(|line| line.strip_prefix(name));
                let value = value.with_context(|| format!("no {name} in {shown}"))?;
                Ok(value.trim().parse()?)
            };
            let bytes = number("Block count:")? * number("Block size:")?;
            let ratio = bytes / number("Inode count:")?;
            ensure!((8000..8400).contains(&ratio), "an inode per {ratio} bytes");
            ensure!(number("Reserved block count:")? == 0, "blocks are reserved");
            let owner = machine.succeed("stat -c '%a %u %g' /cas")?;
            ensure!(owner.trim() == "755 990 990", "{owner}");
            Ok(())
        },
    );
    machine.check("unused blocks are given back once a week", |machine| {
        machine.wait_for_unit("fstrim.timer")
    });
}

pub(super) fn names_and_time(machine: &mut TestMachine) {
    machine.check(
        "names are resolved by systemd-resolved, with servers to fall back on",
        |machine| {
            let file = machine.succeed("readlink -f /etc/resolv.conf")?;
            ensure!(
                file.trim() == "/run/systemd/resolve/stub-resolv.conf",
                "{file}"
            );
            let status = machine.succeed("resolvectl status --no-pager")?;
            ensure!(
                words(&status).contains("Fallback DNS Servers: 9.9.9.9 1.1.1.1"),
                "{status}"
            );
            ensure!(status.contains("-LLMNR -mDNS"), "{status}");
            // The stub answers: what it knows itself, the only thing it can in a cut-off network.
            machine.succeed("resolvectl query --no-pager --synthesize=yes dev.larder.internal")?;
            machine
                .succeed("getent ahosts dev.larder.internal")
                .map(drop)
        },
    );
    machine.check("time is kept by NTP, and is UTC", |machine| {
        machine.wait_for_unit("systemd-timesyncd.service")?;
        let zone = machine.succeed("date +%Z")?;
        ensure!(zone.trim() == "UTC", "{zone}");
        let servers =
            machine.succeed("systemd-analyze cat-config systemd/timesyncd.conf --no-pager")?;
        ensure!(
            servers.contains("\nFallbackNTP=0.debian.pool.ntp.org"),
            "{servers}"
        );
        Ok(())
    });
}
