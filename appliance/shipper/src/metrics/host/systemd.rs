//! Units of the service manager, as node_exporter's collector of that name has them: how many there are
//! in each state, which have failed, and what sockets have accepted.

use super::bus::{Body, Bus, Method};
use super::{Host, Kind, Outcome, Sink};

const MANAGER: &str = "org.freedesktop.systemd1";
/// States of a unit in the order of node_exporter's series.
const STATES: [&str; 5] = ["activating", "active", "deactivating", "failed", "inactive"];
/// Most units that are named because they have failed, and most sockets.
const LIMIT: usize = 32;
/// Name of a metric, its type, and the property of `org.freedesktop.systemd1.Socket`.
const SOCKET: [(&str, Kind, &str); 3] = [
    ("accepted_connections_total", Kind::Counter, "NAccepted"),
    ("current_connections", Kind::Gauge, "NConnections"),
    ("refused_connections_total", Kind::Gauge, "NRefused"),
];

/// What is known of a unit.
struct Unit<'a> {
    name: &'a str,
    state: &'a str,
    path: &'a str,
}

/// Asks for all units; a machine without a bus has none.
pub(super) fn systemd(host: &Host, sink: &mut dyn Sink) -> Outcome {
    if !host.bus.exists() {
        return Ok(());
    }
    let mut bus = Bus::connect(&host.bus)?;
    let list = Method {
        destination: MANAGER,
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member: "ListUnits",
    };
    let body = bus.call(&list, &[])?;
    let units = units(&body).ok_or("ListUnits: an answer that makes no sense")?;
    sink.family("node_systemd_units", Kind::Gauge);
    for state in STATES {
        let count = units.iter().filter(|unit| unit.state == state).count();
        sink.sample(&[("state", state)], count as f64);
    }
    // Of thousands of series, the ones that alerts are made of.
    sink.family("node_systemd_unit_state", Kind::Gauge);
    let failed = units.iter().filter(|unit| unit.state == "failed");
    for unit in failed.take(LIMIT) {
        sink.sample(&[("name", unit.name), ("state", "failed")], 1.0);
    }
    let sockets: Vec<_> = units
        .iter()
        .filter(|unit| unit.name.ends_with(".socket"))
        .take(LIMIT)
        .collect();
    for (name, kind, property) in SOCKET {
        sink.family(&format!("node_systemd_socket_{name}"), kind);
        for socket in &sockets {
            let get = Method {
                destination: MANAGER,
                path: socket.path,
                interface: "org.freedesktop.DBus.Properties",
                member: "Get",
            };
            // It may be gone, or systemd too old for the property.
            let Ok(body) = bus.call(&get, &["org.freedesktop.systemd1.Socket", property]) else {
                continue;
            };
            let mut body = Body::new(&body);
            if body.signature() == Some(b"u")
                && let Some(value) = body.number()
            {
                sink.sample(&[("name", socket.name)], value.into());
            }
        }
    }
    Ok(())
}

/// Reads `a(ssssssouso)`: name, description, load, active and sub state, followed unit, path, job.
fn units(body: &[u8]) -> Option<Vec<Unit<'_>>> {
    let mut body = Body::new(body);
    body.number()?;
    let mut units = Vec::new();
    loop {
        body.align(8);
        if body.is_at_end() {
            return Some(units);
        }
        let (name, _, _, state) = (
            body.string()?,
            body.string()?,
            body.string()?,
            body.string()?,
        );
        let (_, _, path) = (body.string()?, body.string()?, body.string()?);
        let (_, _, _) = (body.number()?, body.string()?, body.string()?);
        units.push(Unit { name, state, path });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::super::bus::tests::{answer, strings};
    use super::*;
    use crate::metrics::TextSink;

    fn listed(units: &[(&str, &str, &str)]) -> Vec<u8> {
        let mut out = vec![0; 8];
        for (name, state, path) in units {
            out.resize(out.len().next_multiple_of(8), 0);
            let mut unit = strings(&[name, "words", "loaded", state, "sub", "", path]);
            unit.resize(unit.len().next_multiple_of(4), 0);
            unit.extend(0u32.to_le_bytes());
            unit.extend(strings(&["", "/"]));
            out.extend(unit);
        }
        let length = out.len() as u32 - 8;
        out[..4].copy_from_slice(&length.to_le_bytes());
        out
    }

    /// Takes a call, and gives its bytes.
    fn call(stream: &mut BufReader<UnixStream>) -> String {
        let mut fixed = [0; 16];
        if stream.read_exact(&mut fixed).is_err() {
            return String::new();
        }
        let number = |at: usize| u32::from_le_bytes(fixed[at..at + 4].try_into().unwrap()) as usize;
        let mut rest = vec![0; number(12).next_multiple_of(8) + number(4)];
        stream.read_exact(&mut rest).unwrap();
        String::from_utf8_lossy(&rest).into_owned()
    }

    #[test]
    fn units_and_sockets_of_a_bus() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bus");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            assert!(line.starts_with("\0AUTH EXTERNAL 3"), "{line}");
            stream.get_mut().write_all(b"OK 1234\r\n").unwrap();
            line.clear();
            stream.read_line(&mut line).unwrap();
            assert_eq!(line, "BEGIN\r\n");
            for serial in 1.. {
                let asked = call(&mut stream);
                let body = match &asked {
                    asked if asked.contains("Hello") => strings(&[":1.1"]),
                    asked if asked.contains("ListUnits") => listed(&[
                        ("a.service", "active", "/a"),
                        ("bad.service", "failed", "/b"),
                        ("c.socket", "active", "/c"),
                    ]),
                    asked if asked.contains("NAccepted") => b"\x01u\0\0\x07\0\0\0".to_vec(),
                    asked if asked.contains("NRefused") => {
                        let error = answer(serial, 3, &strings(&["no such property"]));
                        stream.get_mut().write_all(&error).unwrap();
                        continue;
                    }
                    asked if asked.contains("NConnections") => b"\x01u\0\0\x02\0\0\0".to_vec(),
                    _ => return,
                };
                // What belongs to nobody comes first.
                let mut all = answer(1000, 4, b"");
                all.extend(answer(serial, 2, &body));
                stream.get_mut().write_all(&all).unwrap();
            }
        });
        let mut host = Host::at(folder.path(), folder.path());
        host.bus = path;
        let mut sink = TextSink::default();
        systemd(&host, &mut sink).unwrap();
        server.join().unwrap();
        for line in [
            "node_systemd_units{state=\"active\"} 2\n",
            "node_systemd_units{state=\"failed\"} 1\n",
            "node_systemd_units{state=\"inactive\"} 0\n",
            "node_systemd_unit_state{name=\"bad.service\",state=\"failed\"} 1\n",
            "node_systemd_socket_accepted_connections_total{name=\"c.socket\"} 7\n",
            "node_systemd_socket_current_connections{name=\"c.socket\"} 2\n",
        ] {
            assert!(sink.text.contains(line), "{line} in {}", sink.text);
        }
        assert!(!sink.text.contains("refused_connections_total{"));
    }

    #[test]
    fn a_bus_that_says_nonsense_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for said in [
            &b"REJECTED EXTERNAL\r\n"[..],
            b"",
            b"OK 1\r\nxxxxxxxxxxxxxxxxxxxxxxxx",
        ] {
            let path = folder.path().join(format!("bus{}", said.len()));
            let listener = UnixListener::bind(&path).unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(said).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let _ = stream.read_to_end(&mut Vec::new());
            });
            let mut host = Host::at(folder.path(), folder.path());
            host.bus = path;
            assert!(systemd(&host, &mut TextSink::default()).is_err());
            server.join().unwrap();
        }
    }
}
