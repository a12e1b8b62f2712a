use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::*;
use crate::nbd::Client;

const SIZE: u64 = 1 << 20;

struct Lab {
    recorder: Recorder,
    folder: tempfile::TempDir,
}

/// A recorder over a file of one sector of ones.
fn lab() -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    std::fs::write(&base, [1; 512]).unwrap();
    let recorder = Recorder::start(&base, SIZE, folder.path()).unwrap();
    Lab { recorder, folder }
}

/// First byte of the first eight sectors.
fn sectors(disk: &Path) -> Vec<u8> {
    std::fs::read(disk)
        .unwrap()
        .chunks(512)
        .take(8)
        .map(|sector| sector[0])
        .collect()
}

fn look(replay: &mut Replay, cut: &Cut) -> Vec<u8> {
    replay.with(cut, |disk| Ok(sectors(disk))).unwrap()
}

#[test]
fn what_was_written_is_logged_and_replayed() {
    let lab = lab();
    let mut client = Client::connect(lab.recorder.socket()).unwrap();
    assert_eq!(client.size(), SIZE);
    client.write(512, &[2; 512]).unwrap(); // 0
    client.flush().unwrap(); // 1
    client.write(1024, &[3; 1024]).unwrap(); // 2
    client.write_fua(2048, &[4; 512]).unwrap(); // 3
    client.zero(0, 512).unwrap(); // 4
    lab.recorder.log().mark("before the last flush");
    client.flush().unwrap(); // 5
    client.write(512, &[5; 512]).unwrap(); // 6
    assert_eq!(client.read(0, 1).unwrap(), [0]);
    drop(client);
    assert_eq!(sectors(lab.recorder.current()), [0, 5, 3, 3, 4, 0, 0, 0]);
    assert_eq!(
        lab.recorder.log().find_mark("before the last flush"),
        Some(5)
    );
    assert_eq!(lab.recorder.log().summary(), "5 writes of 2 KiB, 2 flushes");

    let mut replay = lab.recorder.replay(lab.folder.path()).unwrap();
    assert_eq!(
        replay.log().flush_cuts(),
        [Cut::after(0), Cut::after(2), Cut::after(6)]
    );
    assert_eq!(look(&mut replay, &Cut::after(0)), [1, 0, 0, 0, 0, 0, 0, 0]);
    // The first write is not durable before the flush.
    let lost = Cut {
        at: 1,
        lost: vec![0],
        torn: None,
    };
    assert_eq!(look(&mut replay, &lost), [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(look(&mut replay, &Cut::after(1)), [1, 2, 0, 0, 0, 0, 0, 0]);
    assert_eq!(look(&mut replay, &Cut::after(2)), [1, 2, 0, 0, 0, 0, 0, 0]);
    // Behind it every part of the rest may be lost, but for the FUA write; looks do not add up.
    assert_eq!(look(&mut replay, &Cut::after(5)), [0, 2, 3, 3, 4, 0, 0, 0]);
    let lost = Cut {
        at: 5,
        lost: vec![2],
        torn: None,
    };
    assert_eq!(look(&mut replay, &lost), [0, 2, 0, 0, 4, 0, 0, 0]);
    let torn = Cut {
        at: 3,
        lost: vec![],
        torn: Some((2, 512)),
    };
    assert_eq!(look(&mut replay, &torn), [1, 2, 3, 0, 0, 0, 0, 0]);
    let worst = Cut::worst(replay.log().records(), 5);
    assert_eq!(look(&mut replay, &worst), [1, 2, 0, 0, 4, 0, 0, 0]);
    let fua = Cut {
        at: 5,
        lost: vec![3],
        torn: None,
    };
    assert!(
        replay.with(&fua, |_| Ok(())).is_err(),
        "a FUA write was lost"
    );
    let durable = Cut {
        at: 5,
        lost: vec![0],
        torn: None,
    };
    assert!(
        replay.with(&durable, |_| Ok(())).is_err(),
        "a flushed write was lost"
    );
    let copy = lab.folder.path().join("copy");
    replay.materialise(&Cut::after(7), &copy).unwrap();
    assert_eq!(sectors(&copy), [0, 5, 3, 3, 4, 0, 0, 0]);
    assert_eq!(std::fs::metadata(&copy).unwrap().len(), SIZE);
    let back = replay
        .with(&Cut::after(1), |_| Ok(()))
        .unwrap_err()
        .to_string();
    assert!(back.contains("further already"), "{back}");
}

#[test]
fn a_disk_that_lies_may_lose_everything() {
    let lab = lab();
    let mut client = Client::connect(lab.recorder.socket()).unwrap();
    client.write(512, &[2; 512]).unwrap();
    client.flush().unwrap();
    client.write_fua(1024, &[3; 512]).unwrap();
    client.flush().unwrap();
    lab.recorder.log().mark("acknowledged");
    drop(client);
    let log = lab.recorder.log().of_a_liar().unwrap();
    let at = log.find_mark("acknowledged").unwrap();
    assert_eq!((at, log.len()), (2, 2));
    let worst = Cut::worst(log.records(), at);
    let mut replay = lab.recorder.replay_log(log, lab.folder.path()).unwrap();
    assert_eq!(look(&mut replay, &worst)[..3], [1, 0, 0]);
    assert_eq!(look(&mut replay, &Cut::after(at))[..3], [1, 2, 3]);
}

#[test]
fn samples_are_possible_repeatable_and_many() {
    let lab = lab();
    let mut client = Client::connect(lab.recorder.socket()).unwrap();
    for round in 0..6_u8 {
        for sector in 0..6 {
            client
                .write(512 * sector, &[10 * (round + 1) + sector as u8; 1024])
                .unwrap();
        }
        client.flush().unwrap();
    }
    drop(client);
    let mut replay = lab.recorder.replay(lab.folder.path()).unwrap();
    let cuts = replay.log().sampled_cuts(40, 1);
    assert_eq!(cuts, replay.log().sampled_cuts(40, 1));
    assert_ne!(cuts, replay.log().sampled_cuts(40, 2));
    assert_eq!(cuts.len(), 240);
    assert!(cuts.iter().any(|cut| cut.torn.is_some()));
    let mut seen = BTreeSet::new();
    for cut in &cuts {
        let found = look(&mut replay, cut);
        // Nothing of a later round, nothing older than the last round that was flushed.
        let (done, begun) = (cut.at / 7, cut.at.div_ceil(7));
        for byte in &found[..6] {
            let round = usize::from(byte / 10);
            let first = done == 0 && (*byte == 0 || *byte == 1);
            assert!(
                first || (done..=begun).contains(&round),
                "{cut:?}: {found:?}"
            );
        }
        seen.insert(found);
    }
    assert!(seen.len() > 60, "only {} different disks", seen.len());
    // And all of it is undone: the last state comes out of the replay as the guest saw it.
    let end = replay.log().len();
    let last = look(&mut replay, &Cut::after(end));
    assert_eq!(last, sectors(lab.recorder.current()));
}

#[test]
fn faults_on_demand() {
    let lab = lab();
    let mut client = Client::connect(lab.recorder.socket()).unwrap();
    let faults = lab.recorder.faults();
    faults.add(Fault::unreadable(1024..1025));
    assert!(client.read(512, 512).is_ok());
    assert_eq!(client.read(512, 513).unwrap_err().raw_os_error(), Some(5));
    client.write(1024, &[9; 512]).unwrap();
    assert_eq!(faults.met(), 1);
    faults.add(Fault::dead());
    assert!(client.write(0, &[9; 512]).is_err());
    assert!(client.flush().is_err());
    assert_eq!(
        lab.recorder.log().len(),
        1,
        "what failed was logged as done"
    );
    faults.clear();
    assert_eq!(client.read(1024, 1).unwrap(), [9]);
    assert_eq!(client.read(0, 1).unwrap(), [1]);
    faults.add(Fault::slow(Duration::from_millis(60)));
    let started = Instant::now();
    client.flush().unwrap();
    assert!(started.elapsed() >= Duration::from_millis(60));
}

/// A disk with the boot sector of vm's own tests: it counts its boots in its second sector.
fn counter_disk(folder: &Path) -> PathBuf {
    let source = crate::source_tree().join("imagegen/vm/tests/it/counter.S");
    let (object, disk) = (folder.join("counter.o"), folder.join("counter.raw"));
    let run = |command: &mut std::process::Command| assert!(command.status().unwrap().success());
    run(std::process::Command::new("as")
        .arg("-o")
        .arg(&object)
        .arg(source));
    run(std::process::Command::new("objcopy")
        .args(["-O", "binary"])
        .arg(object)
        .arg(&disk));
    disk
}

#[test]
fn a_machine_on_a_recorded_disk() {
    let folder = tempfile::tempdir().unwrap();
    let base = counter_disk(folder.path());
    let recorder = Recorder::start(&base, 2 << 20, folder.path()).unwrap();
    let machine = |disk: vm::Disk| {
        let machine = vm::Machine::new("recorded")
            .accel(vm::Accel::Tcg)
            .memory_mib(64);
        machine.disk(disk.on(vm::Bus::Ahci)).start().unwrap()
    };
    let patience = vm::Patience::default();
    let boot = |running: &vm::Running| {
        running
            .wait_console(&["counted", "disk error"], patience)
            .unwrap()
            .line
    };
    let running = machine(recorder.disk());
    assert_eq!(boot(&running), "boot 1 counted");
    for expected in ["boot 2 counted", "boot 3 counted"] {
        running.reset().unwrap();
        assert_eq!(boot(&running), expected);
    }
    recorder.faults().add(Fault::unreadable(512..1024));
    running.reset().unwrap();
    assert_eq!(boot(&running), "disk error");
    assert!(recorder.faults().met() > 0);
    running.kill();
    // The boot sector never flushes: any of its three writes may be lost. (Not so on virtio, whose
    // disks write through for a driver that cannot flush.)
    let mut replay = recorder.replay(folder.path()).unwrap();
    assert_eq!(replay.log().summary(), "3 writes of 1 KiB, 0 flushes");
    let end = replay.log().len();
    assert_eq!(look(&mut replay, &Cut::after(end))[1], 3);
    let worst = Cut::worst(replay.log().records(), end);
    assert_eq!(look(&mut replay, &worst)[1], 0);
    // And a machine boots what a cut has left.
    let left = folder.path().join("left.raw");
    let lost = Cut {
        at: end,
        lost: vec![2],
        torn: None,
    };
    replay.materialise(&lost, &left).unwrap();
    assert_eq!(boot(&machine(vm::Disk::file(left))), "boot 3 counted");
}
