//! A first boot, cut anywhere, goes on at the next one; and what a client was told to be stored is
//! stored.
//!
//! One first boot is recorded. Its disk after every flush, and after writes between them with some
//! of the others lost or torn, is looked at as the boot loader, stage1 and `larder-cas` will look at
//! it. Cuts that leave the same are one outcome, and outcomes are booted.

mod outcome;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use outcome::{Examiner, Outcome};
use qemu_tests::recorder::Cut;
use qemu_tests::{Setup, TestMachine, full_matrix, scenario};

/// What the client puts; several blocks.
fn artifact() -> Vec<u8> {
    (0..70_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// The moment at which the client had its answer.
const ACKNOWLEDGED: &str = "acknowledged";

/// Boots for the first time, stores an artifact, is blessed. Gives the artifact's file below `/cas`.
fn first_boot(machine: &mut TestMachine) -> Result<String> {
    machine.boot()?;
    let status = machine.put("kept", &artifact())?;
    machine.recorder().log().mark(ACKNOWLEDGED);
    ensure!(status < 300, "PUT: {status}");
    machine.wait_for_unit("boot-complete.target")?;
    let file = machine.succeed("cd /cas && sudo find objects -type f -size +100k")?;
    let file = file.trim().to_owned();
    ensure!(file.lines().count() == 1, "files of one artifact: {file}");
    machine.power_cut()?;
    Ok(format!("/{file}"))
}

#[test]
fn a_first_boot_may_be_cut_anywhere() {
    scenario(Setup::new("cuts").recorded(), |machine| {
        let file = first_boot(machine)?;
        let summary = machine.recorder().log().summary();
        eprintln!("the first boot: {summary}");
        let all = full_matrix("more cuts between flushes, and a boot of every outcome");
        let outcomes = look_at_all(machine, &file, if all { 6 } else { 1 })?;
        for (outcome, cuts) in &outcomes {
            eprintln!("{:5} cuts: {outcome}", cuts.len());
        }
        // A test that never really interrupts would see one.
        ensure!(outcomes.len() > 4, "only {} outcomes", outcomes.len());
        machine.check("a disk that lies loses the artifact", |machine| {
            liar(machine, &file)
        });
        let mut chosen: Vec<(&Outcome, &Cut)> = Vec::new();
        for (outcome, cuts) in &outcomes {
            chosen.extend(cuts.first().map(|cut| (outcome, cut)));
        }
        if !all {
            // The last one has most on its disk; two from before.
            let (last, middle) = (chosen.len() - 1, chosen.len() / 2);
            chosen = vec![chosen[1], chosen[middle], chosen[last]];
        }
        boot_them(machine, chosen)
    });
}

/// Every cut, by what it leaves.
fn look_at_all(
    machine: &TestMachine,
    file: &str,
    per_interval: usize,
) -> Result<BTreeMap<Outcome, Vec<Cut>>> {
    let folder = machine.folder();
    let mut replay = machine.recorder().replay(folder)?;
    let acknowledged = replay.log().find_mark(ACKNOWLEDGED).context("no mark")?;
    let mut cuts = replay.log().flush_cuts();
    cuts.extend(replay.log().sampled_cuts(per_interval, 7));
    cuts.push(Cut::worst(replay.log().records(), acknowledged));
    cuts.push(Cut::worst(replay.log().records(), replay.log().len()));
    cuts.sort_by_key(|cut| cut.at);
    let records = replay.log().records().to_vec();
    let mut examiner = Examiner::new(machine.recorder(), folder, file, &artifact())?;
    let mut outcomes: BTreeMap<Outcome, Vec<Cut>> = BTreeMap::new();
    let count = cuts.len();
    for cut in cuts {
        let seen = replay.with(&cut, |disk| examiner.examine(disk, &records, &cut));
        let outcome = seen.with_context(|| format!("{cut:?}"))?;
        if cut.at >= acknowledged {
            ensure!(outcome.artifact, "the artifact is lost: {cut:?}: {outcome}");
        }
        outcomes.entry(outcome).or_default().push(cut);
    }
    eprintln!("{count} cuts, {} looks", examiner.looks());
    std::fs::remove_file(folder.join("replayed.raw"))?;
    Ok(outcomes)
}

/// The same cut on a disk that ignores flushes: the test above would notice.
fn liar(machine: &TestMachine, file: &str) -> Result<()> {
    let folder = machine.folder();
    let log = machine.recorder().log().of_a_liar()?;
    let mut replay = machine.recorder().replay_log(log, folder)?;
    let acknowledged = replay.log().find_mark(ACKNOWLEDGED).context("no mark")?;
    let records = replay.log().records().to_vec();
    let mut examiner = Examiner::new(machine.recorder(), folder, file, &artifact())?;
    let worst = Cut::worst(&records, acknowledged);
    let outcome = replay.with(&worst, |disk| examiner.examine(disk, &records, &worst))?;
    std::fs::remove_file(folder.join("replayed.raw"))?;
    ensure!(
        !outcome.artifact,
        "an artifact that was never flushed is there"
    );
    Ok(())
}

/// Boots what cuts have left.
fn boot_them(machine: &TestMachine, mut chosen: Vec<(&Outcome, &Cut)>) -> Result<()> {
    chosen.sort_by_key(|(_, cut)| cut.at);
    let folder = machine.folder();
    let mut replay = machine.recorder().replay(folder)?;
    for (number, (outcome, cut)) in chosen.into_iter().enumerate() {
        let disk = folder.join("left.raw");
        replay.materialise(cut, &disk)?;
        eprintln!("booting after {} records: {outcome}", cut.at);
        let setup = Setup::new(format!("cut_{number}")).image(&disk);
        scenario(setup, |machine| goes_on(machine, outcome, &disk));
        std::fs::remove_file(&disk)?;
    }
    Ok(())
}

/// The next boot: everything is there, and what was there already is the same.
fn goes_on(machine: &mut TestMachine, outcome: &Outcome, disk: &Path) -> Result<()> {
    let before = outcome::kept(disk, machine.folder())?;
    machine.boot()?;
    machine.wait_for_unit("boot-complete.target")?;
    let failed = machine.succeed("systemctl --failed --no-legend --plain")?;
    ensure!(failed.trim().is_empty(), "failed units: {failed}");
    for (what, path) in outcome::KEPT {
        let now = machine.succeed(&format!("sudo cat /var{path}"))?;
        match before.get(what) {
            Some(then) => ensure!(*then == now, "the {what} was {then:?} and is {now:?}"),
            None => ensure!(!now.is_empty(), "there is no {what}"),
        }
    }
    let kinds = machine.succeed("findmnt -no FSTYPE /var; findmnt -no FSTYPE /cas")?;
    ensure!(kinds == "ext4\next4\n", "/var and /cas are {kinds:?}");
    let (status, body) = machine.get("kept")?;
    if outcome.artifact {
        ensure!(
            status == 200 && body == artifact(),
            "the artifact is gone: {status}"
        );
    }
    ensure!(machine.put("more", b"artifact")? < 300, "PUT fails");
    machine.shut_down()
}
