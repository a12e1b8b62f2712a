//! The sockets: held by systemd, or made here for development.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use crate::Error;

/// The sockets that the service answers on.
#[derive(Debug, Default)]
pub struct Listeners {
    /// The service, by TLS.
    pub https: Vec<TcpListener>,
    /// `/up` and the redirect.
    pub http: Vec<TcpListener>,
    /// `/metrics`; loopback only.
    pub metrics: Vec<TcpListener>,
    /// Questions of the person on call; only root can reach it.
    pub control: Option<UnixListener>,
}

impl Listeners {
    /// Takes over the sockets that systemd holds, by their names. None if it started us without.
    ///
    /// # Errors
    ///
    /// What systemd says makes no sense, or a socket has a name that means nothing.
    ///
    /// # Safety
    ///
    /// To be called once, before any file is opened: the descriptors from 3 on are taken as
    /// systemd says.
    pub unsafe fn from_systemd() -> Result<Self, Error> {
        let mut listeners = Self::default();
        let sockets = sd_notify::listen_fds_with_names();
        for (descriptor, name) in sockets.map_err(|source| Error::Sockets { source })? {
            // SAFETY: systemd opened it for us, and by the contract above nobody else owns it.
            let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
            if name == "control" {
                listeners.control = Some(UnixListener::from(descriptor));
                continue;
            }
            let socket = TcpListener::from(descriptor);
            match &*name {
                "https" => listeners.https.push(socket),
                "http" => listeners.http.push(socket),
                "metrics" => listeners.metrics.push(socket),
                _ => return Err(Error::SocketName { name }),
            }
        }
        Ok(listeners)
    }

    /// Makes sockets at these addresses.
    ///
    /// # Errors
    ///
    /// An address cannot be listened on.
    pub fn bind(
        https: &[SocketAddr],
        http: &[SocketAddr],
        metrics: &[SocketAddr],
    ) -> Result<Self, Error> {
        let bind = |addresses: &[SocketAddr]| {
            let bind = |address: &SocketAddr| {
                TcpListener::bind(address).map_err(|source| Error::Listen {
                    address: *address,
                    source,
                })
            };
            addresses.iter().map(bind).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            https: bind(https)?,
            http: bind(http)?,
            metrics: bind(metrics)?,
            control: None,
        })
    }
}
