//! Certificates and one-time codes need the time: nothing is sent before the clock is right.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::{Origin, Pending, Request, Response, Transport};
use crate::error::FetchError;

/// Is there once systemd-timesyncd has the time (systemd-timesyncd.service(8)).
const TIMESYNCD: &str = "/run/systemd/timesync/synchronized";
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Whether the clock is synchronised, and how long that is waited for, from the first request on.
#[derive(Clone)]
pub struct Synchronised {
    /// Tells.
    pub is: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Longest wait; then requests are sent all the same, with a loud word.
    pub patience: Duration,
}

impl Default for Synchronised {
    fn default() -> Self {
        Self {
            is: Arc::new(|| Path::new(TIMESYNCD).exists()),
            patience: Duration::from_secs(30),
        }
    }
}

/// Sends the first request when the clock is synchronised.
pub struct AfterClock<T> {
    transport: T,
    synchronised: Synchronised,
    waited: OnceCell<()>,
}

impl<T> AfterClock<T> {
    /// Waits before the first request.
    pub fn new(transport: T, synchronised: Synchronised) -> Self {
        Self {
            transport,
            synchronised,
            waited: OnceCell::new(),
        }
    }

    async fn wait(&self) {
        let patience = self.synchronised.patience;
        let deadline = Instant::now() + patience;
        while !(self.synchronised.is)() {
            if Instant::now() >= deadline {
                log::warn!(
                    "the clock is not synchronised after {} s; asking for secrets all the same",
                    patience.as_secs()
                );
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl<T: Transport> Transport for AfterClock<T> {
    fn send<'a>(
        &'a self,
        origin: &'a Origin,
        request: Request,
    ) -> Pending<'a, Result<Response, FetchError>> {
        Box::pin(async move {
            self.waited.get_or_init(|| self.wait()).await;
            self.transport.send(origin, request).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Echo;

    impl Transport for Echo {
        fn send<'a>(
            &'a self,
            _: &'a Origin,
            _: Request,
        ) -> Pending<'a, Result<Response, FetchError>> {
            Box::pin(async {
                Ok(Response {
                    status: 200,
                    retry_after: None,
                    body: Default::default(),
                })
            })
        }
    }

    async fn ask(transport: &AfterClock<Echo>) -> Duration {
        let origin = Origin::parse("https://connect.example").unwrap();
        let began = Instant::now();
        transport.send(&origin, Request::get("/")).await.unwrap();
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_first_request_waits_and_not_for_ever() {
        let right = Arc::new(AtomicBool::new(false));
        let transport = AfterClock::new(
            Echo,
            Synchronised {
                is: {
                    let right = right.clone();
                    Arc::new(move || right.load(Ordering::SeqCst))
                },
                patience: Duration::from_secs(30),
            },
        );
        let waited = ask(&transport).await;
        assert!((30..=31).contains(&waited.as_secs()), "{waited:?}");
        assert_eq!(ask(&transport).await, Duration::ZERO);

        let soon = AfterClock::new(
            Echo,
            Synchronised {
                is: {
                    let began = Instant::now();
                    Arc::new(move || began.elapsed() > Duration::from_secs(3))
                },
                patience: Duration::from_secs(30),
            },
        );
        assert_eq!(ask(&soon).await.as_secs(), 3);
    }
}
