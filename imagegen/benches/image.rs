//! Speed and size of the image: how long a build takes beside a plain `dpkg-deb` of the same
//! packages, how large the results are, and what a boot to `/up` costs. Figures and ratios, no
//! verdict: machines are noisy.

// A benchmark that cannot go on ends.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const BUILDS: usize = 5;
const BOOTS: usize = 3;

/// What one run of a program took.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
    rss_mb: f64,
}

fn main() {
    // `cargo test --benches` runs this too, and asks for nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf();
    std::env::set_current_dir(&tree).unwrap();
    let out = tempfile::tempdir_in("/var/tmp").unwrap();

    let mut builds = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..BUILDS {
        let mut build = imagegen();
        build.args(["build", "--out"]).arg(out.path());
        builds.push(measure(&mut build));
        peers.push(measure(&mut dpkg(out.path())));
    }
    let (build, peer) = (best(&builds), best(&peers));
    println!("build, to all its outputs (of {BUILDS} runs: least; median)");
    println!(
        "  imagegen build          {:6.2} s; {:.2} s   {:5.2} CPU s   {:4.0} MB RSS   (at most 4.5 s, 400 MB)",
        build.wall,
        median(&builds),
        build.cpu,
        build.rss_mb
    );
    println!(
        "  dpkg-deb -x of the same {:6.2} s; {:.2} s   {:5.2} CPU s   which only unpacks",
        peer.wall,
        median(&peers),
        peer.cpu
    );
    println!(
        "  ratio                   {:6.2} of the wall time, {:.2} of the CPU time",
        build.wall / peer.wall,
        build.cpu / peer.cpu
    );

    let manifest = imagegen::manifest::Manifest::load(&out.path().join("larder.manifest.json"));
    let manifest = manifest.unwrap();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let root = manifest.part("root-a").unwrap().content;
    let zst = manifest.outputs[0].size;
    println!("size");
    println!(
        "  root file system        {:6.1} MiB   (at most 120)",
        mib(root)
    );
    println!(
        "  larder.raw.zst          {:6.1} MiB   (at most 60)",
        mib(zst)
    );

    let boots: Vec<Boot> = (0..BOOTS).map(|_| boot(out.path())).collect();
    let least = boots.iter().min_by(|a, b| a.cpu.total_cmp(&b.cpu)).unwrap();
    println!("boot, firmware to /up over HTTPS, CPU seconds of QEMU under TCG");
    println!(
        "  least of {BOOTS}              {:6.1} s     (at most 25)",
        least.cpu
    );
    let mut before = 0.0;
    for (cpu, step) in &least.steps {
        println!("    {:6.1} s  until {step}", cpu - before);
        before = *cpu;
    }
    println!("    {:6.1} s  until /up answers", least.cpu - before);
}

fn imagegen() -> Command {
    Command::new(env!("CARGO_BIN_EXE_imagegen"))
}

/// Unpacks the packages of the image by dpkg-deb, as many at once as there are processors.
fn dpkg(out: &Path) -> Command {
    let lock = packages::Lock::load(Path::new("configs/packages.lock")).unwrap();
    let image = config::Image::load(Path::new("configs")).unwrap();
    let cache = packages::Cache::of_user().unwrap();
    let list: String = lock
        .system()
        .chain(lock.kernel(&image.kernel.default))
        .map(|package| format!("{}\n", cache.path(&package.sha256, "deb").display()))
        .collect();
    let names = out.join("list");
    std::fs::write(&names, list).unwrap();
    let to = out.join("unpacked");
    let _ = std::fs::remove_dir_all(&to);
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "xargs -P \"$(nproc)\" -I{} dpkg-deb -x {} \"$1\" < \"$0\"",
    ]);
    command.arg(names).arg(to);
    command
}

/// Runs a program and waits for it and its children.
#[expect(
    clippy::zombie_processes,
    reason = "wait4 waits, and says what the child took"
)]
fn measure(command: &mut Command) -> Cost {
    let started = Instant::now();
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut usage: libc::rusage = no_usage();
    let mut status = 0;
    // SAFETY: both pointers are to our own variables, and the child is ours to wait for.
    let waited = unsafe { libc::wait4(child.id() as i32, &mut status, 0, &mut usage) };
    assert!(waited > 0 && status == 0, "{command:?} failed");
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Cost {
        wall: started.elapsed().as_secs_f64(),
        cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        rss_mb: usage.ru_maxrss as f64 / 1000.0,
    }
}

fn no_usage() -> libc::rusage {
    // SAFETY: a struct of numbers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

fn best(costs: &[Cost]) -> Cost {
    *costs
        .iter()
        .min_by(|a, b| a.wall.total_cmp(&b.wall))
        .unwrap()
}

fn median(costs: &[Cost]) -> f64 {
    let mut walls: Vec<f64> = costs.iter().map(|cost| cost.wall).collect();
    walls.sort_by(f64::total_cmp);
    walls[walls.len() / 2]
}

/// What one boot took, in CPU seconds of QEMU.
struct Boot {
    /// Until `/up` answers.
    cpu: f64,
    /// Until each step before it, with what the step is.
    steps: Vec<(f64, String)>,
}

/// Boots it once; the figures are those that `run` says.
fn boot(out: &Path) -> Boot {
    let image: PathBuf = out.join("larder.raw");
    let output = imagegen()
        .arg("run")
        .arg(image)
        .args(["--check", "--tcg", "--dir"])
        .arg(out.join("run"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let steps = said
        .lines()
        .filter_map(|line| {
            let (seconds, step) = line.split_once(" CPU s  ")?;
            Some((
                seconds.split(' ').next_back()?.parse().ok()?,
                step.to_owned(),
            ))
        })
        .collect();
    let (_, rest) = said
        .split_once("answers 200 after")
        .unwrap_or_else(|| panic!("{said}"));
    let (_, rest) = rest.split_once('(').unwrap();
    Boot {
        cpu: rest.split(' ').next().unwrap().parse().unwrap(),
        steps,
    }
}
