//! However this process ends, no QEMU is left. The process that ends is this test binary, started
//! anew for one test and told so by a variable.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use vm::{Accel, Error, Machine, Patience, interrupt};

const ROLE: &str = "LARDER_VM_TEST_ROLE";

fn machine() -> vm::Running {
    Machine::new("left behind")
        .memory_mib(32)
        .accel(Accel::Tcg)
        .start()
        .unwrap()
}

/// Starts this binary for the test `name` alone; gives it with the QEMU's pid that it prints.
/// Its stdout stays open, or it could not print its verdict.
fn other_self(name: &str, folder: &Path) -> (Child, BufReader<ChildStdout>, u32) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ROLE, "yes")
        // What a killed process cannot clean up is cleaned up here.
        .env("TMPDIR", folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut lines = out.by_ref().lines().map_while(Result::ok);
    let pid = lines
        .find_map(|line| line.strip_prefix("QEMU ")?.parse().ok())
        .unwrap();
    (child, out, pid)
}

fn wait_gone(pid: u32) {
    let started = Instant::now();
    // A zombie of another parent's is gone as well.
    let alive = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        Path::new(&format!("/proc/{pid}")).exists() && !stat.contains(") Z ")
    };
    while alive() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "QEMU {pid} is left behind"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_killed_parent_takes_its_machines_along() {
    if std::env::var_os(ROLE).is_some() {
        let running = machine();
        println!("\nQEMU {}", running.pid());
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut child, _out, pid) = other_self(
        "endings::a_killed_parent_takes_its_machines_along",
        folder.path(),
    );
    child.kill().unwrap();
    child.wait().unwrap();
    wait_gone(pid);
}

#[test]
fn ctrl_c_ends_waits_and_machines() {
    if std::env::var_os(ROLE).is_some() {
        interrupt::install();
        let running = machine();
        println!("\nQEMU {}", running.pid());
        let error = running
            .wait_console(&["never"], Patience::default())
            .unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut child, _out, pid) =
        other_self("endings::ctrl_c_ends_waits_and_machines", folder.path());
    // A little later than the line that it has printed.
    std::thread::sleep(Duration::from_millis(100));
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    assert!(
        child.wait().unwrap().success(),
        "it did not end as it should"
    );
    wait_gone(pid);
}
