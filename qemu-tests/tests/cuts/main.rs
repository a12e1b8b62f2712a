//! A first boot, cut anywhere, goes on at the next one; and what a client was told to be stored is
//! stored.
//!
//! One first boot is recorded. Its disk after every flush, and after writes between them with some
//! of the others lost or torn, is looked at as the boot loader, stage1 and `larder-cas` will look at
//! it. Cuts that leave the same are one outcome, and outcomes are booted.

mod outcome;
mod storm;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use outcome::{Examiner, Outcome};
use qemu_tests::recorder::Cut;
use qemu_tests::{Setup, TestMachine, full_matrix, scenario};

/// What the client puts; several blocks.
fn artifact() -> Vec<u8> {
    (7..70_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// The moment two seconds after the client had its answer: what was put is durable by then.
const SETTLED: &str = "settled";

/// Boots for the first time, stores an artifact, is blessed. Gives the files of `/cas` of
/// which one has the artifact.
fn first_boot(machine: &mut TestMachine) -> Result<Vec<String>> {
    machine.boot()?;
    let status = machine.put("kept", &artifact())?;
    ensure!(status < 300, "PUT: {status}");
    // The store's promise is one of time, by the machine's own clock.
    machine.succeed("sleep 2")?;
    machine.recorder().log().mark(SETTLED);
    machine.wait_for_unit("boot-complete.target")?;
    let found = machine.succeed("cd /cas && sudo find . -type f -name '*.seg'")?;
    let segments: Vec<String> = found.lines().map(|file| file[1..].to_owned()).collect();
    ensure!(!segments.is_empty(), "no segment in /cas");
    machine.power_cut()?;
    Ok(segments)
}

#[test]
fn a_first_boot_may_be_cut_anywhere() {
    scenario(Setup::new("cuts").recorded(), |machine| {
        let segments = first_boot(machine)?;
        let summary = machine.recorder().log().summary();
        eprintln!("the first boot: {summary}");
        let all = full_matrix("more cuts between flushes, and a boot of every outcome");
        let outcomes = look_at_all(machine, &segments, if all { 6 } else { 1 })?;
        for (outcome, cuts) in &outcomes {
            eprintln!("{:5} cuts: {outcome}", cuts.len());
        }
        // A test that never really interrupts would see one.
        ensure!(outcomes.len() > 4, "only {} outcomes", outcomes.len());
        machine.check("a disk that lies loses the artifact", |machine| {
            liar(machine, &segments)
        });
        let mut chosen: Vec<(String, Cut)> = Vec::new();
        for (outcome, cuts) in &outcomes {
            chosen.extend(cuts.first().map(|cut| (outcome.to_string(), cut.clone())));
        }
        if !all {
            // An early one, and one in the middle of something.
            let middle = chosen.len() / 2;
            let renaming = chosen.iter().position(|(outcome, _)| outcome.contains('('));
            chosen = vec![
                chosen[1].clone(),
                chosen[renaming.unwrap_or(middle)].clone(),
            ];
        }
        let worst = {
            let log = machine.recorder().log();
            let settled = log.find_mark(SETTLED).context("no mark")?;
            Cut::worst(log.records(), settled)
        };
        chosen.push(("two seconds after an artifact came".into(), worst));
        boot_them(machine, chosen)
    });
}

/// Every cut, by what it leaves.
fn look_at_all(
    machine: &TestMachine,
    segments: &[String],
    per_interval: usize,
) -> Result<BTreeMap<Outcome, Vec<Cut>>> {
    let folder = machine.folder();
    let mut replay = machine.recorder().replay(folder)?;
    let settled = replay.log().find_mark(SETTLED).context("no mark")?;
    let mut cuts = replay.log().flush_cuts();
    cuts.extend(replay.log().sampled_cuts(per_interval, 7));
    cuts.push(Cut::worst(replay.log().records(), settled));
    cuts.push(Cut::worst(replay.log().records(), replay.log().len()));
    cuts.sort_by_key(|cut| cut.at);
    let records = replay.log().records().to_vec();
    let mut examiner = Examiner::new(machine.recorder(), folder, segments, &artifact())?;
    let mut outcomes: BTreeMap<Outcome, Vec<Cut>> = BTreeMap::new();
    let count = cuts.len();
    for cut in cuts {
        let seen = replay.with(&cut, |disk| examiner.examine(disk, &records, &cut));
        let outcome = seen.with_context(|| format!("{cut:?}"))?;
        if cut.at >= settled {
            ensure!(outcome.artifact, "the artifact is lost: {cut:?}: {outcome}");
        }
        outcomes.entry(outcome).or_default().push(cut);
    }
    eprintln!("{count} cuts, {} looks", examiner.looks());
    std::fs::remove_file(folder.join("replayed.raw"))?;
    Ok(outcomes)
}

/// The same cut on a disk that ignores flushes: the test above would notice.
fn liar(machine: &TestMachine, segments: &[String]) -> Result<()> {
    let folder = machine.folder();
    let log = machine.recorder().log().of_a_liar()?;
    let mut replay = machine.recorder().replay_log(log, folder)?;
    let settled = replay.log().find_mark(SETTLED).context("no mark")?;
    let records = replay.log().records().to_vec();
    let mut examiner = Examiner::new(machine.recorder(), folder, segments, &artifact())?;
    let worst = Cut::worst(&records, settled);
    let outcome = replay.with(&worst, |disk| examiner.examine(disk, &records, &worst))?;
    std::fs::remove_file(folder.join("replayed.raw"))?;
    ensure!(
        !outcome.artifact,
        "an artifact that was never flushed is there"
    );
    Ok(())
}

/// Boots what cuts have left.
fn boot_them(machine: &TestMachine, mut chosen: Vec<(String, Cut)>) -> Result<()> {
    chosen.sort_by_key(|(_, cut)| cut.at);
    let folder = machine.folder();
    let mut replay = machine.recorder().replay(folder)?;
    let settled = replay.log().find_mark(SETTLED).context("no mark")?;
    for (number, (outcome, cut)) in chosen.into_iter().enumerate() {
        let disk = folder.join("left.raw");
        replay.materialise(&cut, &disk)?;
        eprintln!("booting after {} records: {outcome}", cut.at);
        let setup = Setup::new(format!("cut_{number}")).image(&disk);
        scenario(setup, |machine| goes_on(machine, &disk, cut.at >= settled));
        std::fs::remove_file(&disk)?;
    }
    Ok(())
}

/// The next boot: everything is there, and what was there already is the same.
fn goes_on(machine: &mut TestMachine, disk: &Path, settled: bool) -> Result<()> {
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
    if settled {
        ensure!(
            status == 200 && body == artifact(),
            "the artifact is gone: {status}"
        );
    }
    ensure!(machine.put("more", b"artifact")? < 300, "PUT fails");
    machine.shut_down()
}
