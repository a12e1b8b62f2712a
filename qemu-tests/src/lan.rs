//! A network cable with a gateway at its end: what a machine's second card talks to.
//!
//! Each port is a unix datagram socket that carries Ethernet frames. The gateway answers ARP,
//! neighbour solicitations and pings for its addresses, on whatever VLAN it is asked, and notes
//! every frame. It routes nothing and gives no addresses: a network where nothing works that is
//! not configured.

mod frame;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use vm::Nic;

pub use frame::{Frame, Mac, Payload};

/// MAC address of the gateway.
pub const GATEWAY_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

/// A frame that has come in, and by which port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Port, in the order they were made.
    pub port: usize,
    /// The frame.
    pub frame: Frame,
}

/// The gateway with its ports. It ends with this value.
#[derive(Debug)]
pub struct Lan {
    folder: PathBuf,
    addresses4: Vec<Ipv4Addr>,
    addresses6: Vec<Ipv6Addr>,
    seen: Arc<Mutex<Vec<Seen>>>,
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Lan {
    /// A gateway with these addresses; its sockets are made in `folder`.
    pub fn new(folder: &Path, addresses4: &[Ipv4Addr], addresses6: &[Ipv6Addr]) -> Lan {
        Lan {
            folder: folder.to_owned(),
            addresses4: addresses4.to_vec(),
            addresses6: addresses6.to_vec(),
            seen: Arc::default(),
            ending: Arc::default(),
            threads: Vec::new(),
        }
    }

    /// One more port; the card that goes into it.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn port(&mut self) -> Result<Nic> {
        let port = self.threads.len();
        let machine = self.folder.join(format!("lan{port}-machine"));
        let gateway = self.folder.join(format!("lan{port}-gateway"));
        let socket = UnixDatagram::bind(&gateway)
            .with_context(|| format!("cannot make the socket {}", gateway.display()))?;
        // The thread looks at `ending` that often.
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let (seen, ending) = (Arc::clone(&self.seen), Arc::clone(&self.ending));
        let (addresses4, addresses6) = (self.addresses4.clone(), self.addresses6.clone());
        let peer = machine.clone();
        self.threads.push(std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while !ending.load(Ordering::SeqCst) {
                let Ok(length) = socket.recv(&mut buffer) else {
                    continue;
                };
                let bytes = &buffer[..length];
                let Some(frame) = Frame::parse(bytes) else {
                    continue;
                };
                // Noted first: who has got an answer finds the question noted.
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Seen {
                        port,
                        frame: frame.clone(),
                    });
                if let Some(answer) = frame::answer(bytes, &frame, &addresses4, &addresses6) {
                    // The machine may be gone.
                    let _ = socket.send_to(&answer, &peer);
                }
            }
        }));
        Ok(Nic::Datagram {
            local: machine,
            remote: gateway,
        })
    }

    /// All frames so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_answers_on_the_vlan_it_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let gateway = Ipv4Addr::new(172, 31, 1, 1);
        let mut lan = Lan::new(folder.path(), &[gateway], &[]);
        let Nic::Datagram { local, remote } = lan.port().unwrap() else {
            panic!()
        };
        let machine = UnixDatagram::bind(local).unwrap();
        machine
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let request = frame::test_frames::arp_request(Some(7), gateway);
        machine.send_to(&request, &remote).unwrap();
        let mut answer = vec![0; 2000];
        let length = machine.recv(&mut answer).unwrap();
        let answer = Frame::parse(&answer[..length]).unwrap();
        assert_eq!((answer.from, answer.vlan), (GATEWAY_MAC, Some(7)));
        let expected = Payload::Arp {
            request: false,
            sender: gateway,
            target: [10, 0, 0, 2].into(),
        };
        assert_eq!(answer.payload, expected);
        assert_eq!(lan.seen().len(), 1);
        assert_eq!(lan.seen()[0].frame.vlan, Some(7));
    }
}
