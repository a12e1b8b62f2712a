//! Waiting for what may come, with an end.

use std::time::{Duration, Instant};

/// Tries `attempt` until it gives something, at most for `patience` and at least once; the last
/// error is given back.
///
/// # Errors
///
/// That of the last attempt.
pub(crate) fn until<T, E>(
    patience: Duration,
    pause: Duration,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let end = Instant::now() + patience;
    loop {
        match attempt() {
            Err(_) if Instant::now() < end => std::thread::sleep(pause),
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_at_success_and_at_the_end() {
        let mut tries = 0;
        let soon = until(Duration::from_secs(10), Duration::ZERO, || {
            tries += 1;
            if tries == 3 { Ok(tries) } else { Err(tries) }
        });
        assert_eq!(soon, Ok(3));
        assert_eq!(
            until(Duration::ZERO, Duration::ZERO, || Err::<(), _>("no")),
            Err("no")
        );
    }
}
