//! The hunt for a value that should be nowhere: in every form, in every place. The hunter is the
//! redactor of the shipper, which is tested by itself; what it cannot find it could not blot out.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use qemu_tests::TestMachine;
use secrets::fingerprint::Key;
use secrets::redact::Redactor;
use vm::for_each_extent;

/// Bytes of a file that are looked at together, and by how many such parts overlap.
const PART: usize = 4 << 20;
const OVERLAP: usize = 64 << 10;

/// Knows values.
pub(super) struct Hunter(Redactor);

/// Places in the guest, with the command that prints what is there.
const PLACES: [(&str, &str); 3] = [
    (
        "command lines and environments",
        "sudo sh -c 'cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null; true'",
    ),
    ("the journal", "sudo journalctl -a -o export --no-pager"),
    (
        "the ESP",
        "sudo sh -c 'find /boot -type f -size -8M -exec cat {} +'",
    ),
];

/// Programs that are made to dump core, and a way to make one.
const CORE: &str = "/run/core-of-";

impl Hunter {
    pub(super) fn new(values: &[&str]) -> Result<Hunter> {
        let key = Key::new()?;
        let all: Vec<_> = values
            .iter()
            .flat_map(|value| key.of(value.as_bytes()))
            .collect();
        let mut redactor = Redactor::default();
        redactor.set(&key, &all);
        Ok(Hunter(redactor))
    }

    fn found(&mut self, bytes: &[u8]) -> bool {
        let starts = (0..bytes.len()).step_by(PART);
        starts.into_iter().any(|start| {
            let part = &bytes[start..bytes.len().min(start + PART + OVERLAP)];
            matches!(self.0.value(part), std::borrow::Cow::Owned(_))
        })
    }

    /// Whether it is anywhere in the data of a file, whatever lies between.
    pub(super) fn found_in_file(&mut self, path: &Path) -> Result<bool> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let mut found = false;
        let mut buffer = vec![0; PART + OVERLAP];
        for_each_extent(&file, |start, end| {
            let mut at = start;
            while at < end && !found {
                let length = buffer.len().min((end - at) as usize);
                match file.read_exact_at(&mut buffer[..length], at) {
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                    other => other?,
                }
                found = matches!(self.0.value(&buffer[..length]), std::borrow::Cow::Owned(_));
                at += PART as u64;
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Searches the running machine: the names of the places where it is.
    fn search(&mut self, machine: &mut TestMachine) -> Result<Vec<String>> {
        let mut places = Vec::new();
        for (place, shell) in PLACES {
            let said = machine.ssh(shell)?;
            ensure!(
                said.status.success() && !said.stdout.is_empty(),
                "nothing to search: {place}"
            );
            if self.found(&said.stdout) {
                places.push(place.to_owned());
            }
        }
        if self.found(machine.console()?.as_bytes()) {
            places.push("the console".to_owned());
        }
        for core in machine
            .succeed(&format!("ls {CORE}* 2>/dev/null; true"))?
            .lines()
        {
            let said = machine.ssh(&format!("sudo cat {core}"))?;
            if self.found(&said.stdout) {
                places.push(core.to_owned());
            }
        }
        machine.succeed("sudo sync")?;
        // The file systems' own copies: what the guest has written is in the file.
        if self.found_in_file(machine.disk())? {
            places.push("the disk".to_owned());
        }
        Ok(places)
    }

    /// Fails if it is anywhere; then plants it everywhere and fails unless it is found in each place.
    /// `value` is one that the hunter knows.
    pub(super) fn hunt(&mut self, machine: &mut TestMachine, value: &str) -> Result<()> {
        // Whoever wants to can dump core on this machine: a pipe knows no limit of size.
        machine.succeed(&format!(
            "echo '|/usr/bin/tee {CORE}%e-%p' | sudo tee /proc/sys/kernel/core_pattern"
        ))?;
        // The fetcher holds it, and the cache was given it.
        for unit in ["larder-secrets.service", "larder-cache.service"] {
            machine.wait_for_unit(unit)?;
            machine.succeed(&format!("sudo systemctl kill -s ABRT {unit}"))?;
        }
        machine.wait_up()?;
        machine.wait_for_unit("larder-secrets.service")?;
        // The fetcher cannot be dumped at all; the cache can, on a machine that is set up so.
        machine.wait_until_succeeds(&format!("ls {CORE}*"))?;
        let places = self.search(machine)?;
        ensure!(places.is_empty(), "it is in {places:?}");

        // The search itself.
        let careless = machine.succeed(&format!(
            "K={value} nohup sleep 600 >/dev/null 2>&1 </dev/null & echo $!"
        ))?;
        machine.succeed(&format!(
            "echo {value} | sudo tee /boot/planted /var/tmp/planted /dev/console >/dev/null; \
             logger -- {value}; \
             sudo env K={value} sh -c 'ulimit -c unlimited; kill -ABRT $$'; \
             sudo journalctl --sync; sync"
        ))?;
        let places = self.search(machine)?;
        let wanted = PLACES.map(|(place, _)| place).into_iter();
        for place in wanted.chain(["the console", "the disk", CORE]) {
            ensure!(
                places.iter().any(|found| found.starts_with(place)),
                "planted, it is not found in {place}, only in {places:?}"
            );
        }
        machine.succeed(&format!(
            "kill {}; sudo rm -f /boot/planted /var/tmp/planted {CORE}*",
            careless.trim()
        ))?;
        Ok(())
    }
}
