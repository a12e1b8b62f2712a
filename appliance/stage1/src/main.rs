//! stage1: PID 1 of the initramfs. From the kernel to systemd on a sealed root.
//!
//! What it does is a contract (ARCHITECTURE.md, "Boot chain") that images and machines in service
//! rely on; [`boot`] reads as the list of its points. It runs as `/init` of an initramfs that holds
//! nothing else but kernel modules and what the boot loader adds under `/.extra`.
//!
//! What may hang on a broken device (loading drivers, reading disks, the state file system) runs in
//! a child process with a deadline, not in a thread: a thread stuck in the kernel would block the
//! final exec. The child is this same program ([`worker`]).

#![cfg_attr(not(test), no_main)]

mod bootdisk;
mod cmdline;
mod console;
mod counter;
mod credentials;
mod esp;
mod finder;
mod machine_id;
mod modules;
mod root;
mod state;
mod switch_root;
mod verity;
mod watchdog;
mod worker;

use std::path::Path;
use std::time::Duration;

use console::{Fatal, Log};
use slots::BootReport;

/// Where the root of the system is mounted until it becomes `/`.
const SYSROOT: &str = "/sysroot";

/// The entry point that the C library calls. Rust's own would end the program when the kernel could
/// not open a console for it: as PID 1 that is a panic of the kernel, without a word.
#[cfg(not(test))]
#[unsafe(no_mangle)]
extern "C" fn main(_count: libc::c_int, _arguments: *const *const libc::c_char) -> libc::c_int {
    run()
}

#[cfg_attr(test, expect(dead_code, reason = "tests call what it calls"))]
fn run() -> i32 {
    if let Some(status) = worker::dispatch() {
        return status;
    }
    if !rustix::process::getpid().is_init() {
        eprintln!("stage1 is the first program of an initramfs and does nothing elsewhere.");
        return 2;
    }
    console::reboot_on_panic();
    let mut log = Log::default();
    let Err(fatal) = boot(&mut log);
    console::give_up(&fatal);
}

/// The contract. Returns only if the machine has to reboot.
fn boot(log: &mut Log) -> Result<std::convert::Infallible, Fatal> {
    root::mount_kernel_file_systems()?;
    console::prepare();
    let cmdline = cmdline::read()?;
    log.step("looking for the disk that this machine boots from");

    // 1. Modules; a watchdog where there is one.
    modules::load(log);
    let mut watchdog = watchdog::Watchdog::arm(log);

    // 2. The disk that the machine booted from, and nothing from any other.
    let mut finder = finder::Finder::new(bootdisk::wanted(&cmdline, log)?);
    let disk = finder.find(&cmdline.root_hash, &mut watchdog, log)?;

    // 3. The sealed root.
    let root = verity::open(&disk, &cmdline.root_hash)?;
    root::mount(&root)?;
    root::move_kernel_file_systems()?;
    let mut report = BootReport::new(&disk.node, &cmdline.root_hash.to_string());
    disk.describe(&mut report);

    // 4. State at /var; the machine id.
    report.state_status = state::mount(disk.state.as_deref(), &mut watchdog, log)?;
    machine_id::provide(log)?;

    // 5. Credentials and the host name.
    credentials::hand_on(log)?;
    let esp = esp::look(disk.esp.as_deref(), log);
    credentials::provide_host(esp.host.as_deref(), log)?;

    // 6. Boots since the last healthy one.
    report.boot_count = counter::count(report.state_status, &esp.entries, log)?;

    // A second candidate may have turned up late.
    finder.recheck(log)?;
    report.messages = log.messages();
    report
        .write(Path::new(slots::REPORT_PATH))
        .map_err(|error| Fatal::new(format!("cannot leave the boot report: {error}")))?;
    watchdog.hand_over(log);
    log.step("starting the system");
    switch_root::exec()
}

/// How long the operator has to read why two disks are one too many.
const TWO_CANDIDATES: Duration = Duration::from_secs(60);
