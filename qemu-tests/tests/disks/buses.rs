//! The image boots from whatever a server's disk hangs on. In `make test` the other files have one
//! of each: virtio-scsi in `second`, virtio-blk in `troubled`, NVMe and AHCI in `incidents`.

use anyhow::ensure;
use qemu_tests::{Setup, full_matrix, scenario};
use vm::Bus;

fn serves(name: &str, bus: Bus, disk: &'static str) {
    if !full_matrix(&format!("the image on {bus:?}")) {
        return;
    }
    scenario(Setup::new(name).bus(bus), |machine| {
        machine.boot()?;
        let source = machine.succeed("findmnt -no SOURCE /cas")?;
        ensure!(source.starts_with(disk), "/cas is on {source}");
        ensure!(machine.put("bus", b"artifact")? < 300, "PUT fails");
        ensure!(machine.get("bus")?.0 == 200, "GET fails");
        machine.shut_down()
    });
}

#[test]
fn virtio_blk() {
    serves("virtio_blk", Bus::VirtioBlk, "/dev/vda");
}

#[test]
fn virtio_scsi() {
    serves("virtio_scsi", Bus::VirtioScsi, "/dev/sda");
}

#[test]
fn nvme() {
    serves("nvme", Bus::Nvme, "/dev/nvme0n1");
}

#[test]
fn ahci() {
    serves("ahci", Bus::Ahci, "/dev/sda");
}
