//! Network cards of a machine.

use std::path::PathBuf;

/// Which port of the host's loopback a forward takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPort {
    /// This one or an error.
    Exactly(u16),
    /// This one or, if it is taken, one of the next 99.
    From(u16),
    /// Any free one; the kernel chooses.
    Any,
}

/// A port of the host's loopback that leads into the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Port on 127.0.0.1 of the host.
    pub host: HostPort,
    /// TCP port in the guest.
    pub guest: u16,
}

impl Forward {
    /// Any free port of the host to `guest`.
    pub fn to(guest: u16) -> Forward {
        Forward {
            host: HostPort::Any,
            guest,
        }
    }

    /// `host`, or the next free port, to `guest`.
    pub fn from_port(host: u16, guest: u16) -> Forward {
        Forward {
            host: HostPort::From(host),
            guest,
        }
    }
}

/// One network card (virtio-net).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nic {
    /// QEMU's user network: DHCP gives 10.0.2.15; the guest reaches nothing, the host reaches the
    /// forwarded ports.
    User {
        /// The forwards.
        forwards: Vec<Forward>,
    },
    /// A card without carrier.
    NoCarrier,
    /// A card with carrier on a network where nobody answers.
    Silent,
    /// Ethernet frames as datagrams on unix sockets: this machine is bound to `local` and sends
    /// to `remote`, where another machine or a test sits.
    Datagram {
        /// The machine's socket; made by QEMU.
        local: PathBuf,
        /// The peer's socket.
        remote: PathBuf,
    },
}

impl Nic {
    /// A user network with any free ports of the host forwarded to these of the guest.
    pub fn user(guest_ports: &[u16]) -> Nic {
        Nic::User {
            forwards: guest_ports.iter().copied().map(Forward::to).collect(),
        }
    }

    /// MAC address of card number `index`: the same at every start.
    pub fn mac(index: usize) -> String {
        format!("52:54:00:12:34:{:02x}", 0x56 + index)
    }

    /// Name of the network back end of card number `index`.
    pub(crate) fn netdev(index: usize) -> String {
        format!("net{index}")
    }

    /// Name of the card number `index`, for QMP's `set_link`.
    pub fn device(index: usize) -> String {
        format!("nic{index}")
    }

    /// The `-netdev` value; `escape` doubles what QEMU's option syntax would split at.
    pub(crate) fn backend(
        &self,
        index: usize,
        escape: impl Fn(&std::path::Path) -> String,
    ) -> String {
        let id = Nic::netdev(index);
        match self {
            Nic::User { .. } => format!("user,id={id},restrict=on"),
            // A hub with one port: carrier, and nobody there.
            Nic::NoCarrier | Nic::Silent => format!("hubport,id={id},hubid={}", 100 + index),
            Nic::Datagram { local, remote } => format!(
                "dgram,id={id},local.type=unix,local.path={},remote.type=unix,remote.path={}",
                escape(local),
                escape(remote)
            ),
        }
    }

    /// The `-device` value. No option ROM: nothing boots from the network.
    pub(crate) fn card(index: usize) -> String {
        format!(
            "virtio-net-pci,id={},netdev={},mac={},romfile=",
            Nic::device(index),
            Nic::netdev(index),
            Nic::mac(index)
        )
    }
}

/// Looks up the host's port of a forward in HMP's `info usernet`, whose lines are
/// `TCP[HOST_FORWARD]  12  127.0.0.1 40001  10.0.2.15  22  0  0`.
///
/// `known` are host ports that belong to earlier forwards to the same guest port.
pub(crate) fn port_in_usernet(info: &str, guest: u16, known: &[u16]) -> Option<u16> {
    info.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "TCP[HOST_FORWARD]").then_some(())?;
        let host: u16 = words.nth(2)?.parse().ok()?;
        let to: u16 = words.nth(1)?.parse().ok()?;
        (to == guest && !known.contains(&host)).then_some(host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. \
        Address  Port RecvQ SendQ\r\n  TCP[HOST_FORWARD]  12       127.0.0.1 40001       \
        10.0.2.15    22     0     0\r\n  TCP[HOST_FORWARD]  13       127.0.0.1 40002       \
        10.0.2.15   443     0     0\r\n  TCP[HOST_FORWARD]  14       127.0.0.1 40003       \
        10.0.2.15    22     0     0\r\n";

    #[test]
    fn ports_are_read_back() {
        assert_eq!(port_in_usernet(INFO, 22, &[]), Some(40001));
        assert_eq!(port_in_usernet(INFO, 22, &[40001]), Some(40003));
        assert_eq!(port_in_usernet(INFO, 443, &[]), Some(40002));
        assert_eq!(port_in_usernet(INFO, 80, &[]), None);
        for end in 0..INFO.len() {
            let _ = port_in_usernet(&INFO[..end], 22, &[]);
        }
    }
}
