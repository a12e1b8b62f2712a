//! The two sockets on which values leave the fetcher: `credential` for units that start, `refresh`
//! for daemons that run.

mod credential;
mod peer;
mod refresh;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

pub use credential::{CredentialServer, Starts};
pub use peer::{Cgroup, Origins, unit_of_cgroup};
pub use refresh::RefreshServer;

/// Fuzz target: no bytes may panic what reads names and control groups.
pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = peer::parse_name(bytes);
    let _ = unit_of_cgroup(&String::from_utf8_lossy(bytes));
}

/// Connections that are served at once; others wait.
const CONNECTIONS: usize = 256;
/// A peer that does not read is given up.
const WRITE: Duration = Duration::from_secs(10);

/// Serves each connection on a task of its own, until dropped.
async fn accept<F>(listener: &UnixListener, serve: impl Fn(UnixStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let work = serve(stream);
                tokio::spawn(async move {
                    work.await;
                    drop(place);
                });
            }
            // Such as too many open files: others are being closed.
            Err(error) => {
                log::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
