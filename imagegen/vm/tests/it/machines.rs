use std::net::TcpListener;
use std::time::Duration;

use vm::{
    Accel, Bus, Credential, Disk, Error, Firmware, Forward, HostPort, Machine, Nic, Patience,
    Running,
};

use crate::guest::{count, counter_disk};

const PATIENCE: Patience = Patience {
    quiet: Duration::from_secs(60),
    cpu_seconds: 60.0,
};

fn machine(name: &str) -> Machine {
    Machine::new(name).memory_mib(64).accel(Accel::Tcg)
}

/// The line `boot N counted`, without the rest.
fn boot_line(running: &Running) -> String {
    running
        .wait_console(&["counted", "disk error"], PATIENCE)
        .unwrap()
        .line
}

#[test]
fn every_bus_boots_reads_and_writes() {
    for bus in [Bus::VirtioBlk, Bus::VirtioScsi, Bus::Nvme, Bus::Ahci] {
        let folder = tempfile::tempdir().unwrap();
        let disk = counter_disk(folder.path());
        let running = machine("bus")
            .disk(Disk::file(&disk).on(bus))
            .start()
            .unwrap();
        assert_eq!(boot_line(&running), "boot 1 counted", "{bus:?}");
        drop(running);
        assert_eq!(count(&disk), 1, "{bus:?}");
    }
}

#[test]
fn console_reset_and_events() {
    let folder = tempfile::tempdir().unwrap();
    let disk = counter_disk(folder.path());
    let log = folder.path().join("serial.log");
    let machine = machine("events")
        .disk(Disk::file(&disk).no_flush())
        .serial_log(&log);
    let running = machine.start().unwrap();
    assert_eq!(boot_line(&running), "boot 1 counted");
    running.send_console(b"p").unwrap();
    running.wait_console(&["pong"], PATIENCE).unwrap();
    // The guest resets itself.
    running.send_console(b"r").unwrap();
    assert_eq!(
        running
            .wait_event("RESET", Duration::from_secs(60))
            .unwrap()
            .data["guest"],
        true
    );
    assert_eq!(boot_line(&running), "boot 2 counted");
    // We reset it. The guest's own may have come twice: it does not wait for the first to happen.
    running.reset().unwrap();
    let minute = Duration::from_secs(60);
    while running.wait_event("RESET", minute).unwrap().data["guest"] == true {}
    assert_eq!(boot_line(&running), "boot 3 counted");
    assert!(running.cpu_seconds() > 0.0);
    // Power cut, and the same machine again: it knows nothing of the earlier console.
    running.kill();
    assert!(running.ended().is_some());
    assert!(running.cpu_seconds() > 0.0, "usage is kept after the end");
    let again = machine.start().unwrap();
    assert_eq!(boot_line(&again), "boot 4 counted");
    drop(again);
    assert_eq!(count(&disk), 4);
    assert_eq!(
        std::fs::read_to_string(log)
            .unwrap()
            .matches("counted")
            .count(),
        4
    );
}

#[test]
fn a_snapshot_leaves_the_disk_alone_and_survives_a_reset() {
    let folder = tempfile::tempdir().unwrap();
    let disk = counter_disk(folder.path());
    let throw_away = Disk::file(&disk).snapshot().grow_to(64 << 20);
    let running = machine("snapshot").disk(throw_away).start().unwrap();
    assert_eq!(boot_line(&running), "boot 1 counted");
    let block = running
        .qmp("query-named-block-nodes", serde_json::json!({}))
        .unwrap();
    assert!(
        block.to_string().contains("\"virtual-size\":67108864"),
        "not grown: {block}"
    );
    running.reset().unwrap();
    assert_eq!(boot_line(&running), "boot 2 counted");
    drop(running);
    assert_eq!(count(&disk), 0);
    assert_eq!(std::fs::metadata(&disk).unwrap().len(), 2 << 20);
}

#[test]
fn a_read_only_disk_gives_the_guest_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::file(counter_disk(folder.path())).read_only();
    let running = machine("read-only").disk(disk).start().unwrap();
    assert_eq!(boot_line(&running), "disk error");
}

#[test]
fn an_end_instead_of_a_reboot() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::file(counter_disk(folder.path()));
    let running = machine("end").disk(disk).end_at_reboot().start().unwrap();
    boot_line(&running);
    running.send_console(b"r").unwrap();
    assert!(running.wait_end(Duration::from_secs(60)).unwrap().success());
    let error = running.wait_console(&["never"], PATIENCE).unwrap_err();
    assert!(matches!(error, Error::Ended { .. }), "{error}");
    assert!(
        error.to_string().contains("boot 1 counted"),
        "no console in: {error}"
    );
}

#[test]
fn waits_end() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::file(counter_disk(folder.path()));
    let running = machine("waits").disk(disk).start().unwrap();
    boot_line(&running);
    let hasty = Patience {
        quiet: Duration::from_millis(300),
        cpu_seconds: 60.0,
    };
    let error = running.wait_console(&["never"], hasty).unwrap_err();
    assert!(matches!(error, Error::Quiet { .. }), "{error}");
    // The guest spins, so it uses CPU.
    let stingy = Patience {
        quiet: Duration::from_secs(60),
        cpu_seconds: 0.2,
    };
    let error = running.wait_console(&["never"], stingy).unwrap_err();
    assert!(matches!(error, Error::Budget { .. }), "{error}");
    let error = running
        .wait_event("WATCHDOG", Duration::from_millis(50))
        .unwrap_err();
    assert!(error.to_string().contains("WATCHDOG"), "{error}");
    assert_eq!(running.wait_end(Duration::from_millis(50)), None);
}

#[test]
fn forwards_take_the_next_free_port_and_are_read_back() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let forwards = vec![
        Forward {
            host: HostPort::From(port),
            guest: 443,
        },
        Forward::to(22),
        Forward::to(22),
    ];
    let running = machine("ports")
        .nic(Nic::User { forwards })
        .start()
        .unwrap();
    let hosts: Vec<u16> = running
        .forwarded()
        .iter()
        .map(|forward| forward.host)
        .collect();
    assert!(
        hosts[0] > port && hosts[0] <= port + 99,
        "{hosts:?} for {port}"
    );
    assert!(
        hosts[1] != 0 && hosts[2] != 0 && hosts[1] != hosts[2],
        "{hosts:?}"
    );
    assert_eq!(running.port(443), Some(hosts[0]));
    assert!(std::net::TcpStream::connect(("127.0.0.1", hosts[0])).is_ok());

    let forwards = vec![Forward {
        host: HostPort::Exactly(port),
        guest: 443,
    }];
    let error = machine("taken")
        .nic(Nic::User { forwards })
        .start()
        .unwrap_err();
    assert!(matches!(error, Error::NoPort { guest: 443, .. }), "{error}");
}

#[test]
fn cards_without_a_network() {
    let folder = tempfile::tempdir().unwrap();
    let datagram = Nic::Datagram {
        local: folder.path().join("machine"),
        remote: folder.path().join("peer"),
    };
    let cards = machine("cards")
        .nic(Nic::NoCarrier)
        .nic(Nic::Silent)
        .nic(datagram);
    let running = cards.start().unwrap();
    running.set_link(0, true).unwrap();
    assert!(folder.path().join("machine").exists());
    assert_eq!(running.qemu_words(), "");
}

#[test]
fn firmware_variables_belong_to_one_machine() {
    let folder = tempfile::tempdir().unwrap();
    let vars = folder.path().join("vars.fd");
    let pristine = std::fs::read(vm::find_ovmf().unwrap().vars).unwrap();
    let machine = machine("uefi").memory_mib(128).firmware(Firmware::Ovmf {
        vars: Some(vars.clone()),
    });
    // Nothing to boot, so OVMF ends in its shell.
    let running = machine.start().unwrap();
    running
        .wait_console(&["UEFI Interactive Shell"], PATIENCE)
        .unwrap();
    println!("OVMF to its shell: {:.1} CPU s", running.cpu_seconds());
    drop(running);
    let written = std::fs::read(&vars).unwrap();
    assert_ne!(written, pristine, "the firmware has stored nothing");
    drop(machine.paused().start().unwrap());
    assert_eq!(
        std::fs::read(&vars).unwrap(),
        written,
        "the variables were not kept"
    );
}

#[test]
fn credentials_are_in_files_that_go_with_the_machine() {
    let machine = machine("credentials")
        .credential(Credential::smbios("larder.host", "dev"))
        .credential(Credential::fw_cfg("larder.cache-token", "canary"));
    let running = machine.start().unwrap();
    let argv = std::fs::read(format!("/proc/{}/cmdline", running.pid())).unwrap();
    let environment = std::fs::read(format!("/proc/{}/environ", running.pid())).unwrap();
    for public in [argv, environment] {
        let public = String::from_utf8_lossy(&public);
        assert!(
            !public.contains("canary") && !public.contains("Y2FuYXJ5"),
            "{public}"
        );
    }
    let folder = running.folder().to_owned();
    assert!(folder.join("credential-1").exists());
    drop(running);
    assert!(!folder.exists(), "{} is left", folder.display());
}

#[test]
fn bad_machines_are_refused_with_the_reason() {
    let words = |machine: Machine| machine.start().unwrap_err().to_string();
    assert!(words(machine("a").disk(Disk::file("/no/disk"))).contains("/no/disk does not exist"));
    let folder = tempfile::tempdir().unwrap();
    let disk = counter_disk(folder.path());
    let disk = || Disk::file(&disk);
    assert!(words(machine("b").disk(disk().block_size(520))).contains("512 and 4096"));
    assert!(words(machine("c").disk(disk().on(Bus::Ahci).block_size(4096))).contains("AHCI"));
    assert!(words(machine("d").disk(disk().serial("a,b"))).contains("serial"));
    assert!(words(machine("e").disk(disk().grow_to(1))).contains("snapshot"));
    assert!(words(machine("f").credential(Credential::smbios("a=b", ""))).contains("a=b"));
    assert!(words(machine("g").nic(Nic::user(&[])).nic(Nic::user(&[]))).contains("user networks"));
    assert!(words(machine("h").memory_mib(0)).contains("memory"));
    // What only QEMU knows is passed on in its words.
    assert!(words(machine("i").extra_args(["-device", "no-such"])).contains("no-such"));
    assert!(words(machine("j").cpu_model("z80")).contains("z80"));
    assert!(words(machine("k").rtc("yesterday")).contains("datetime"));
}
