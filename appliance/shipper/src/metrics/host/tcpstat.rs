//! TCP connections by state.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Host, Kind, Outcome, Sink};

/// States in the order of their numbers in the kernel (`include/net/tcp_states.h`), from 1 on.
const STATES: [&str; 11] = [
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
];

/// How long a count is good for: the kernel walks its whole table of connections for it, 10 ms with
/// 262,144 chains, however few there are. All else of a scrape takes less than 3.
const COUNTED_EVERY: Duration = Duration::from_secs(120);

/// The last count and its time; copies share it.
pub(super) type Last = Arc<Mutex<Option<(Instant, Connections)>>>;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Connections {
    states: [f64; STATES.len()],
    sent: f64,
    received: f64,
}

/// Connections and queued bytes, as node_exporter's collector tells them (which is off by default).
/// A state in which no connection is has the value 0. At most two minutes old.
pub(super) fn tcpstat(host: &Host, sink: &mut dyn Sink) -> Outcome {
    let mut last = host
        .connections
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let connections = match *last {
        Some((at, connections)) if at.elapsed() < COUNTED_EVERY => connections,
        _ => {
            let connections = count(host)?;
            *last = Some((Instant::now(), connections));
            connections
        }
    };
    sink.family("node_tcp_connection_states", Kind::Gauge);
    let queues = [
        ("rx_queued_bytes", connections.received),
        ("tx_queued_bytes", connections.sent),
    ];
    for (state, value) in STATES.into_iter().zip(connections.states).chain(queues) {
        sink.sample(&[("state", state)], value);
    }
    Ok(())
}

/// Counts them, of both versions of IP.
fn count(host: &Host) -> Result<Connections, String> {
    let mut connections = Connections::default();
    for (file, needed) in [("net/tcp", true), ("net/tcp6", false)] {
        let path = host.proc.join(file);
        match File::open(&path) {
            // Line by line: a busy machine has megabytes of them.
            Ok(file) => connections
                .read(BufReader::with_capacity(64 * 1024, file))
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
            Err(error) if needed => {
                return Err(format!("cannot open {}: {error}", path.display()));
            }
            // A kernel without IPv6.
            Err(_) => {}
        }
    }
    Ok(connections)
}

impl Connections {
    /// `/proc/net/tcp` (proc_pid_net(5)): after the number of the line and two addresses the state,
    /// then bytes to send and received, all hexadecimal.
    fn read(&mut self, mut file: impl BufRead) -> std::io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if file.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let text = std::str::from_utf8(&line).unwrap_or_default();
            let mut words = text.split_ascii_whitespace().skip(3);
            let hex = |word: &str| u32::from_str_radix(word, 16).ok();
            let state = words.next().and_then(hex).unwrap_or_default() as usize;
            let Some(count) = state.checked_sub(1).and_then(|at| self.states.get_mut(at)) else {
                continue;
            };
            *count += 1.0;
            let queues = words.next().and_then(|queues| queues.split_once(':'));
            if let Some((sent, received)) = queues {
                self.sent += f64::from(hex(sent).unwrap_or_default());
                self.received += f64::from(hex(received).unwrap_or_default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_queues() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n\
            \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000001 00:00000000 00000000 0\n\
            \x20  1: 0100007F:1F90 0100007F:D431 01 0000000A:00000010 00:00000000 00000000 0\n\
            \x20  2: 0100007F:1F90 0100007F:D432 06 00000000:00000000 03:00000000 00000000 0\n\
            \x20  3: x y 99 1:1\n  4: x y FFFFFFFFFF\nx\n";
        let mut connections = Connections::default();
        connections.read(text.as_bytes()).unwrap();
        assert_eq!(
            (
                connections.states[9],
                connections.states[0],
                connections.states[5]
            ),
            (1.0, 1.0, 1.0)
        );
        assert_eq!(connections.states.iter().sum::<f64>(), 3.0);
        assert_eq!((connections.sent, connections.received), (10.0, 17.0));
    }
}
