//! Power cuts during a storm of uploads: each artifact that a client was told to be stored is there
//! and whole, unless the power went within the second that the store allows itself; no byte is
//! wrong.
//!
//! What a cut leaves of `/cas` is opened by the store itself, here, as the machine would.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::disk::{extract, partition};
use qemu_tests::recorder::{Cut, Log};
use qemu_tests::{Setup, TestMachine, full_matrix, scenario};
use store::{Key, Kind, Settings, Store};

use crate::outcome::{checked, run};

/// Uploads.
const COUNT: u32 = 400;
/// A second by the machine's clock, which an emulated processor reaches late: its fdatasync takes
/// as long as the rest of it lets it.
const WINDOW: Duration = Duration::from_secs(2);

/// An artifact: mostly small, some with a file of its own.
fn artifact(number: u32) -> Vec<u8> {
    let words = match number % 40 {
        39 => 300_000,
        29 => 20_000,
        _ => 500 + number % 40 * 100,
    };
    let words = (0..words).map(|word| word.wrapping_mul(0x9e37_79b9) ^ number);
    words.flat_map(u32::to_le_bytes).collect()
}

/// When a client had its answer, and from how many records of the log on it must survive.
struct Answer {
    number: u32,
    at: Instant,
}

/// How long the log was when.
type Lengths = Vec<(Instant, usize)>;

/// Uploads all, sixteen at a time. Gives the answers, and how long the log was when.
fn storm(machine: &TestMachine) -> Result<(Vec<Answer>, Lengths)> {
    let mut config = String::new();
    for number in 0..COUNT {
        let body = machine.folder().join(format!("storm-{number}"));
        std::fs::write(&body, artifact(number))?;
        let url = machine.guest()?.artifact_url(&format!("storm-{number}"));
        let separator = if number == 0 { "" } else { "next\n" };
        writeln!(
            config,
            "{separator}url = \"{url}\"\ndata-binary = \"@{}\"\nheader = \"@{}\"\n\
             header = \"Content-Type: application/octet-stream\"\noutput = \"/dev/null\"\ninsecure\nsilent\nnoproxy = \"*\"\n\
             write-out = \"%{{stderr}}{number} %{{http_code}}\\n\"",
            body.display(),
            machine.access().header_file().display()
        )?;
    }
    let file = machine.folder().join("storm");
    std::fs::write(&file, config)?;
    let over = AtomicBool::new(false);
    let recorder = machine.recorder();
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut lengths = Lengths::new();
            while !over.load(Ordering::Relaxed) {
                lengths.push((Instant::now(), recorder.log().len()));
                std::thread::sleep(Duration::from_millis(10));
            }
            lengths
        });
        let answers = upload(machine, &file);
        // The last ones become durable too.
        let end = Instant::now() + WINDOW + Duration::from_secs(1);
        std::thread::sleep(end - Instant::now());
        over.store(true, Ordering::Relaxed);
        let lengths = watch.join().expect("the watch does not panic");
        Ok((answers?, lengths))
    })
}

fn upload(machine: &TestMachine, config: &Path) -> Result<Vec<Answer>> {
    let mut curl = machine.guest()?.curl()?;
    curl.args(["--parallel", "--parallel-max", "16", "-K"])
        .arg(config);
    let mut curl = curl.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let said = BufReader::new(curl.stderr.take().context("no pipe")?);
    let mut answers = Vec::new();
    for line in said.lines() {
        let (line, at) = (line?, Instant::now());
        let Some((number, status)) = line.split_once(' ') else {
            continue;
        };
        if let (Ok(number), Ok(200..300_u16)) = (number.parse(), status.parse()) {
            answers.push(Answer { number, at });
        }
    }
    curl.wait()?;
    Ok(answers)
}

/// What the store finds in what a cut has left: for each artifact whether it is there, whole.
fn found(disk: &Path, size: u64, folder: &Path) -> Result<Vec<bool>> {
    let (part, out) = (folder.join("part"), folder.join("left"));
    let cas = partition(disk, "cas")?.start..size - (1 << 20);
    extract(disk, cas, &part)?;
    checked(&part, "larder-cas")?.context("/cas is pristine")?;
    std::fs::create_dir(&out)?;
    let ask = format!("rdump /larder-store {}", out.display());
    let (code, said) = run(
        "debugfs",
        "e2fsprogs",
        &["-R", &ask, &part.display().to_string()],
    )?;
    ensure!(code == 0, "{said}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let found = runtime.block_on(async {
        let store = Store::open_with(Settings {
            names: vec!["/cas".into()],
            ..Settings::new(vec![out.clone()])
        })
        .await;
        while !store.is_recovered() {
            tokio::task::yield_now().await;
        }
        let mut found = Vec::new();
        for number in 0..COUNT {
            let key = Key {
                kind: Kind::XcodeCas,
                account: "larder".into(),
                project: "run".into(),
                hash: format!("storm-{number}"),
                ..Key::default()
            };
            let mut bytes = None;
            if let Some(object) = store.get(&key).await? {
                let mut reader = object.read(0..u64::MAX);
                let all = bytes.insert(Vec::new());
                while let Some(chunk) = reader.next().await? {
                    all.extend_from_slice(&chunk);
                }
            }
            let wrong = bytes
                .as_ref()
                .is_some_and(|bytes| *bytes != artifact(number));
            ensure!(!wrong, "artifact {number} has wrong bytes");
            found.push(bytes.is_some());
        }
        let emptied = store.emptied();
        store.close().await;
        ensure!(emptied.is_empty(), "it starts empty: {emptied:?}");
        Ok(found)
    })?;
    std::fs::remove_dir_all(out)?;
    std::fs::remove_file(part)?;
    Ok(found)
}

#[test]
fn a_put_storm_may_be_cut_anywhere() {
    scenario(Setup::new("storm").recorded(), |machine| {
        machine.boot()?;
        machine.wait_for_unit("boot-complete.target")?;
        let start = machine.recorder().log().len();
        let (answers, lengths) = storm(machine)?;
        machine.power_cut()?;
        ensure!(
            answers.len() > COUNT as usize * 9 / 10,
            "only {} answers",
            answers.len()
        );
        // From which length of the log on each must survive.
        let mut durable: Vec<Option<usize>> = vec![None; COUNT as usize];
        for answer in &answers {
            let later = lengths.iter().find(|(at, _)| *at >= answer.at + WINDOW);
            let (_, length) = later.context("the watch ended too early")?;
            durable[answer.number as usize] = Some(*length);
        }
        let log = machine.recorder().log().reader()?;
        let every = if full_matrix("more cuts of the storm") {
            120
        } else {
            10
        };
        let lost = cut_all(machine, log, start, every, &durable)?;
        ensure!(lost.0 > 0, "no cut lost anything: the storm was not cut");
        ensure!(lost.1 == 0, "durable artifacts are gone");
        machine.check("a disk that lies loses what was durable", |machine| {
            let log = machine.recorder().log().of_a_liar()?;
            let flushes: Vec<usize> = machine.recorder().log().flushes().collect();
            let shifted: Vec<Option<usize>> = durable
                .iter()
                .map(|at| at.map(|at| at - flushes.partition_point(|flush| *flush < at)))
                .collect();
            let start = start - flushes.partition_point(|flush| *flush < start);
            let whole = Cut::worst(log.records(), log.len());
            // Nothing of the file system is left of it either.
            let seen = look(machine, log, &[whole], &shifted);
            ensure!(
                start > 0 && seen.map_or(true, |(_, gone)| gone > 0),
                "nothing is missed"
            );
            Ok(())
        });
        Ok(())
    });
}

/// Looks at cuts of the storm: behind flushes and between them, with some of what need not survive
/// lost, and with all of it. How many answered artifacts were lost within and after their second.
fn cut_all(
    machine: &TestMachine,
    log: Log,
    start: usize,
    count: usize,
    durable: &[Option<usize>],
) -> Result<(usize, usize)> {
    let mut cuts = log.flush_cuts();
    cuts.extend(log.sampled_cuts(1, 7));
    cuts.retain(|cut| cut.at > start);
    cuts.sort_by_key(|cut| cut.at);
    let step = (cuts.len() / count).max(1);
    let mut chosen: Vec<Cut> = cuts.into_iter().step_by(step).collect();
    let length = log.len();
    for part in 1..=count / 2 {
        let at = start + (length - start) * part / (count / 2);
        chosen.push(Cut::worst(log.records(), at));
    }
    chosen.sort_by_key(|cut| cut.at);
    look(machine, log, &chosen, durable)
}

fn look(
    machine: &TestMachine,
    log: Log,
    cuts: &[Cut],
    durable: &[Option<usize>],
) -> Result<(usize, usize)> {
    let (folder, size) = (machine.folder(), machine.recorder().size());
    let mut replay = machine.recorder().replay_log(log, folder)?;
    let mut lost = (0, 0);
    let outcome = cuts.iter().try_for_each(|cut| {
        let seen = replay.with(cut, |disk| found(disk, size, folder));
        let seen = seen.with_context(|| format!("{cut:?}"))?;
        let (mut there, mut gone) = (0, Vec::new());
        for (number, (seen, durable)) in seen.iter().zip(durable).enumerate() {
            there += usize::from(*seen);
            match durable {
                Some(durable) if !seen && *durable <= cut.at => gone.push(number),
                Some(_) if !seen => lost.0 += 1,
                _ => {}
            }
        }
        eprintln!("after {} records: {there} of {COUNT} artifacts", cut.at);
        if !gone.is_empty() {
            eprintln!("  durable and gone: {gone:?}");
        }
        lost.1 += gone.len();
        anyhow::Ok(())
    });
    for left in ["replayed.raw", "part"] {
        let _ = std::fs::remove_file(folder.join(left));
    }
    let _ = std::fs::remove_dir_all(folder.join("left"));
    outcome?;
    Ok(lost)
}
