//! Every kernel that `configs/image.toml` offers builds into an image that boots and serves.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use qemu_tests::{Setup, TestMachine, build_image, full_matrix, scenario, source_tree};

/// Builds the image with a kernel of `configs/image.toml`, into `build/kernels`. Gives it and the
/// release of its kernel as the manifest has it.
fn build(kernel: &str) -> Result<(PathBuf, String)> {
    let root = source_tree();
    let out = root.join("build/kernels").join(kernel);
    let image = build_image(&out, |build| {
        build.args(["--kernel", kernel]);
    })?;
    let release = release(&out.join("larder.manifest.json"))?;
    eprintln!("{kernel} is {release}");
    Ok((image, release))
}

fn release(manifest: &Path) -> Result<String> {
    let text = std::fs::read(manifest).with_context(|| manifest.display().to_string())?;
    let manifest: serde_json::Value = serde_json::from_slice(&text)?;
    let release = manifest["kernel"].as_str();
    Ok(release.context("the manifest names no kernel")?.to_owned())
}

/// Boots it on a bus whose driver is a module in every kernel.
fn serves(machine: &mut TestMachine, release: &str) -> Result<()> {
    machine.boot()?;
    let running = machine.succeed("uname -r")?;
    ensure!(
        running.trim() == release,
        "kernel {running} runs, {release} was built in"
    );
    machine.wait_for_unit("boot-complete.target")?;
    let failed = machine.succeed("systemctl --failed --no-legend --plain")?;
    ensure!(failed.trim().is_empty(), "failed units: {failed}");
    ensure!(machine.put("kernel", b"artifact")? < 300, "PUT fails");
    ensure!(machine.get("kernel")?.0 == 200, "GET fails");
    // Modules that the kernel's flavour has and the settings ask for.
    for (what, shell) in [
        (
            "bbr",
            "grep -qx bbr /proc/sys/net/ipv4/tcp_congestion_control",
        ),
        ("zram", "grep -q zram /proc/swaps"),
        ("nftables", "sudo nft list ruleset | grep -q 'dport'"),
    ] {
        machine.check(what, |machine| machine.succeed(shell).map(drop));
    }
    machine.shut_down()
}

/// One test: builds lock the same folders.
#[test]
fn kernels_build_and_boot() {
    let all = full_matrix("a boot of kernels 6.12-cloud and 6.18-generic");
    let (oldest, newest) = ("6.12-cloud", "newest-cloud");
    for kernel in [oldest, "6.18-generic", newest] {
        let (image, release) = build(kernel).unwrap_or_else(|error| panic!("{error:#}"));
        let fits = match kernel {
            "6.12-cloud" => release.starts_with("6.12.") && release.ends_with("-cloud-amd64"),
            "6.18-generic" => release.starts_with("6.18.") && !release.contains("cloud"),
            _ => release.ends_with("-cloud-amd64") && !release.starts_with("6.12."),
        };
        assert!(fits, "{kernel} is {release}");
        if all || kernel == newest {
            let setup = Setup::new(format!("kernel_{kernel}")).image(&image);
            scenario(setup, |machine| serves(machine, &release));
        }
        std::fs::remove_dir_all(image.with_file_name("")).expect("cannot tidy up");
    }
}
