//! Questions to a booted guest that several tests ask.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::TestMachine;

impl TestMachine {
    /// Waits until the boot is through, whether it went well or not; gives what
    /// `systemctl is-system-running` says: `running`, `degraded`, …
    pub fn wait_started(&mut self) -> Result<String> {
        let output = self.ssh("timeout 300 systemctl is-system-running --wait")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The units that have failed, one a line.
    pub fn failed_units(&mut self) -> Result<String> {
        self.succeed("systemctl --failed --no-pager --no-legend --plain")
    }

    /// The services, sockets, timers, mounts, paths and swaps that this boot has started, those
    /// included that are through. What belongs to a login is left out, as are the aliases of the
    /// swap.
    pub fn started_units(&mut self) -> Result<Vec<String>> {
        let kinds = ["service", "socket", "timer", "mount", "path", "swap"];
        let globs = kinds.map(|kind| format!("'*.{kind}'")).join(" ");
        let shown = self.succeed(&format!(
            "systemctl show --all --no-pager -p Id -p InactiveExitTimestampMonotonic {globs}"
        ))?;
        let mut units: Vec<String> = shown
            .split("\n\n")
            .filter(|unit| !unit.contains("InactiveExitTimestampMonotonic=0"))
            .filter_map(|unit| unit.lines().find_map(|line| line.strip_prefix("Id=")))
            .filter(|id| {
                let login = ["user@", "user-runtime-dir@", "run-user-"];
                !login.iter().any(|start| id.starts_with(start)) && !id.starts_with("dev-disk-")
            })
            .map(str::to_owned)
            .collect();
        units.sort();
        units.dedup();
        Ok(units)
    }

    /// A JSON file of the guest.
    pub fn json(&mut self, path: &str) -> Result<Value> {
        let text = self.succeed(&format!("sudo cat {path}"))?;
        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))
    }

    /// A variable of the boot loader, as text; none if it is not set.
    pub fn loader_variable(&mut self, name: &str) -> Result<Option<String>> {
        let path = format!("/sys/firmware/efi/efivars/{name}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f");
        // Four bytes of attributes, then UTF-16; efivarfs cannot seek.
        let shell = format!("test -e {path} && cat {path} | tail -c +5 | tr -d '\\000'");
        let output = self.ssh(&shell)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(output.status.success().then_some(text))
    }

    /// `KEY=value` lines of a file of the guest, such as `/etc/os-release`.
    pub fn variables(&mut self, path: &str) -> Result<BTreeMap<String, String>> {
        let text = self.succeed(&format!("sudo cat {path}"))?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()));
        Ok(pairs.collect())
    }

    /// Says `request` to a forwarded port and gives the first bytes of the answer.
    pub fn hear(&self, guest_port: u16, request: &[u8]) -> Result<Vec<u8>> {
        let mut stream = self.knock(guest_port, request)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    }

    /// Fails unless the guest's firewall refuses a forwarded port: it counts a refused packet, and
    /// no answer has come.
    pub fn refuses(&mut self, guest_port: u16, request: &[u8]) -> Result<()> {
        let before = self.refused()?;
        let mut stream = self.knock(guest_port, request)?;
        let counted = format!(
            "set -- $(sudo nft list counter inet larder refused | grep packets); test $2 -gt {before}"
        );
        self.wait_until_succeeds(&counted)?;
        stream.set_nonblocking(true)?;
        match stream.read(&mut [0; 64]) {
            Ok(0) => Ok(()),
            Ok(length) => anyhow::bail!("port {guest_port} answered with {length} bytes"),
            Err(error) => {
                let closed = [ErrorKind::WouldBlock, ErrorKind::ConnectionReset];
                ensure!(closed.contains(&error.kind()), "{error}");
                Ok(())
            }
        }
    }

    /// How many packets the firewall has refused.
    fn refused(&mut self) -> Result<u64> {
        let text = self.succeed("sudo nft list counter inet larder refused")?;
        let mut words = text.split_ascii_whitespace();
        let count = words.find(|word| *word == "packets").and(words.next());
        count
            .and_then(|count| count.parse().ok())
            .with_context(|| format!("nft shows no counter: {text}"))
    }

    /// Connects to a forwarded port. QEMU accepts at once, whatever the guest does.
    fn knock(&self, guest_port: u16, request: &[u8]) -> Result<TcpStream> {
        let port = self.running()?.port(guest_port);
        let port = port.with_context(|| format!("port {guest_port} is not forwarded"))?;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.write_all(request)?;
        Ok(stream)
    }
}
