//! How the image sets a machine up, read back inside the guest: what `configs/` says is one thing,
//! what the kernel does another.

mod access;
mod clock;
mod secrecy;
mod settings;

use anyhow::ensure;
use qemu_tests::{Setup, scenario};

#[test]
fn a_machine_as_it_is_set_up() {
    let setup = Setup::new("a_machine_as_it_is_set_up").forward(9999);
    scenario(setup, |machine| {
        machine.boot()?;
        settings::kernel(machine);
        settings::memory(machine);
        settings::file_systems(machine);
        access::users(machine);
        access::logins(machine);
        settings::names_and_time(machine);
        machine.check(
            "a port that nobody listed is closed, whoever listens",
            access::unlisted_port,
        );
        machine.check("our units are hardened", secrecy::hardening);
        machine.check("the token is nowhere but where it belongs", |machine| {
            let status = machine.put("secret", b"artifact")?;
            ensure!(status < 300, "PUT: {status}");
            secrecy::no_secret(machine)
        });
        machine.shut_down()
    });
}

/// Words with one blank between them.
pub(crate) fn words(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}
