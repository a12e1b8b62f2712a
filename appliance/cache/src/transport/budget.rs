//! One budget for all bytes of bodies that are in memory on their way to clients.
//!
//! A permit goes with a chunk from before it is read until the transport has let go of it: then the
//! bytes are the kernel's (or, a copy of at most one buffer, the TLS session's). A client that does
//! not read keeps its permits, and no more than those.
//!
//! Accounts share it: with k accounts in it, none gets more than the (k + 1)th part while others
//! wait, so that there is room for one more; those that wait take turns. An eighth is kept for
//! small answers, which never queue behind large ones.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::auth::Handle;
use crate::metrics::Text;

/// Largest chunk of a small answer, in bytes.
pub(crate) const SMALL: u64 = 16 * 1024;
/// Longest wait of a request before it is refused.
const PATIENCE: Duration = Duration::from_millis(250);
/// Pause that clients are asked for, without the random part.
const PAUSE: Duration = Duration::from_secs(1);
/// Most requests that wait; each more is refused at once.
const WAITING: usize = 4096;

/// There is no room; when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overloaded {
    /// Random, so that not all come back at once.
    pub(crate) retry_after: Duration,
}

/// The budget.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    /// Bytes of small answers.
    small: AtomicU64,
    large: Mutex<Large>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Large {
    used: u64,
    /// Bytes of each account that has some.
    accounts: HashMap<Handle, u64>,
    /// Who waits, by account; the first account has the next turn.
    waiting: VecDeque<(Handle, VecDeque<Waiter>)>,
    waiters: usize,
}

#[derive(Debug)]
struct Waiter {
    bytes: u64,
    permit: oneshot::Sender<Permit>,
}

/// The right to hold some bytes in memory; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
    /// `None`: of a small answer.
    account: Option<Handle>,
}

/// An account's way into the budget.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    account: Handle,
}

impl Budget {
    /// `limit`: bytes.
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            small: AtomicU64::new(0),
            large: Mutex::default(),
            refused: AtomicU64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Large> {
        // Numbers that belong together are changed without anything that panics between.
        self.large.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way in of an account.
    pub(crate) fn share(self: &Arc<Self>, account: &Handle) -> Share {
        Share {
            budget: Arc::clone(self),
            account: account.clone(),
        }
    }

    /// Writes metrics.
    pub(crate) fn write(&self, text: &mut Text) {
        for (name, help, value) in [
            (
                "bytes",
                "Bytes of bodies that may be in memory.",
                self.limit,
            ),
            (
                "used_bytes",
                "Bytes of bodies that are in memory.",
                self.used(),
            ),
        ] {
            text.family(&format!("larder_cache_budget_{name}"), "gauge", help);
            text.line("", &[], value);
        }
        text.family(
            "larder_cache_budget_refused_total",
            "counter",
            "Requests refused because no memory was left.",
        );
        text.line("", &[], self.refused.load(Ordering::Relaxed));
    }

    /// Bytes that are in use.
    pub(crate) fn used(&self) -> u64 {
        self.small.load(Ordering::Relaxed) + self.lock().used
    }

    fn take_small(self: &Arc<Self>, bytes: u64) -> Option<Permit> {
        let most = self.limit / 8;
        let took = self.small.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if took > most {
            self.small.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        Some(Permit {
            budget: Arc::clone(self),
            bytes,
            account: None,
        })
    }

    /// Hands what is free to those who wait, account by account.
    fn serve(self: &Arc<Self>, mut large: MutexGuard<'_, Large>) {
        let mut unwanted = Vec::new();
        let mut passed = 0;
        while passed < large.waiting.len() {
            let Some((account, mut queue)) = large.waiting.pop_front() else {
                break;
            };
            let fits = queue.front().is_some_and(|first| {
                first.permit.is_closed() || large.has_room(&account, first.bytes, self.limit)
            });
            if fits && let Some(first) = queue.pop_front() {
                large.waiters -= 1;
                passed = 0;
                if !first.permit.is_closed() {
                    large.add(&account, first.bytes);
                    let permit = Permit {
                        budget: Arc::clone(self),
                        bytes: first.bytes,
                        account: Some(account.clone()),
                    };
                    // Dropping a permit takes the lock.
                    if let Err(permit) = first.permit.send(permit) {
                        unwanted.push(permit);
                    }
                }
            } else {
                passed += 1;
            }
            if !queue.is_empty() {
                large.waiting.push_back((account, queue));
            }
        }
        drop(large);
        drop(unwanted);
    }
}

impl Large {
    fn has_room(&self, account: &Handle, bytes: u64, limit: u64) -> bool {
        let limit = limit - limit / 8;
        if self.used + bytes > limit {
            // One chunk goes out whatever its size, or nothing ever would.
            return self.used == 0;
        }
        let own = self.accounts.get(account).copied().unwrap_or(0);
        let others = self.accounts.len() as u64 + u64::from(own == 0);
        own == 0 || own + bytes <= limit / (others + 1)
    }

    fn add(&mut self, account: &Handle, bytes: u64) {
        self.used += bytes;
        *self.accounts.entry(account.clone()).or_default() += bytes;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(account) = &self.account else {
            self.budget.small.fetch_sub(self.bytes, Ordering::Relaxed);
            return;
        };
        let mut large = self.budget.lock();
        large.used -= self.bytes;
        if let Some(own) = large.accounts.get_mut(account) {
            *own -= self.bytes;
            if *own == 0 {
                large.accounts.remove(account);
            }
        }
        if large.waiters > 0 {
            self.budget.serve(large);
        }
    }
}

impl Share {
    /// The permit for a chunk, if there is room and nobody waits.
    pub(crate) fn try_take(&self, bytes: u64) -> Option<Permit> {
        let small = (bytes <= SMALL)
            .then(|| self.budget.take_small(bytes))
            .flatten();
        if small.is_some() {
            return small;
        }
        let mut large = self.budget.lock();
        let queues = large
            .waiting
            .iter()
            .any(|(account, _)| *account == self.account);
        if queues || !large.has_room(&self.account, bytes, self.budget.limit) {
            return None;
        }
        large.add(&self.account, bytes);
        Some(self.permit(bytes))
    }

    fn permit(&self, bytes: u64) -> Permit {
        Permit {
            budget: Arc::clone(&self.budget),
            bytes,
            account: Some(self.account.clone()),
        }
    }

    /// Waits for the permit for a chunk, as long as it takes.
    pub(crate) async fn take(&self, bytes: u64) -> Permit {
        loop {
            if let Some(permit) = self.try_take(bytes) {
                return permit;
            }
            let waiting = {
                let mut large = self.budget.lock();
                let (sender, waiting) = oneshot::channel();
                let waiter = Waiter {
                    bytes,
                    permit: sender,
                };
                large.waiters += 1;
                let mut queues = large.waiting.iter_mut();
                match queues.find(|(account, _)| *account == self.account) {
                    Some((_, queue)) => queue.push_back(waiter),
                    None => {
                        let queue = VecDeque::from([waiter]);
                        large.waiting.push_back((self.account.clone(), queue));
                    }
                }
                // What was given back in the meantime.
                self.budget.serve(large);
                waiting
            };
            // The sender lives in the queue; a queue that is gone is tried again.
            if let Ok(permit) = waiting.await {
                return permit;
            }
        }
    }

    /// Whether the first chunk of an answer of this length finds room soon: to be asked before the
    /// answer begins, because afterwards it cannot be refused any more.
    ///
    /// # Errors
    ///
    /// It does not.
    pub(crate) async fn admit(&self, bytes: u64) -> Result<(), Overloaded> {
        if self.try_take(bytes).is_some() {
            return Ok(());
        }
        let crowd = self.budget.lock().waiters >= WAITING;
        if !crowd
            && tokio::time::timeout(PATIENCE, self.take(bytes))
                .await
                .is_ok()
        {
            return Ok(());
        }
        self.budget.refused.fetch_add(1, Ordering::Relaxed);
        Err(Overloaded {
            retry_after: PAUSE + crate::jitter::up_to(2 * PAUSE),
        })
    }
}

/// Bytes that carry their permit.
struct Permitted {
    bytes: Bytes,
    _permit: Permit,
}

impl AsRef<[u8]> for Permitted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Permit {
    /// Ties it to the bytes: it is given back when the last of them is let go.
    pub(crate) fn with(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Permitted {
            bytes,
            _permit: self,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(budget: &Arc<Budget>, account: &str) -> Share {
        budget.share(&Handle::parse(account).unwrap())
    }

    const CHUNK: u64 = 64 * 1024;

    #[tokio::test(start_paused = true)]
    async fn permits_live_as_long_as_the_bytes() {
        let budget = Budget::new(1 << 20);
        let permit = share(&budget, "a").take(CHUNK).await;
        let bytes = permit.with(Bytes::from_static(b"abc"));
        let part = bytes.slice(1..2);
        drop(bytes);
        assert_eq!(budget.used(), CHUNK);
        drop(part);
        assert_eq!(budget.used(), 0);
        assert!(budget.lock().accounts.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_leaves_room_for_the_next() {
        let budget = Budget::new(8 << 20);
        let (a, b, c) = (
            share(&budget, "a"),
            share(&budget, "b"),
            share(&budget, "c"),
        );
        let mut held = Vec::new();
        while let Some(permit) = a.try_take(CHUNK) {
            held.push(permit);
        }
        let half = budget.used();
        assert!(half <= 7 * (8 << 20) / 16 && half > 3 << 20, "{half}");
        while let Some(permit) = b.try_take(CHUNK) {
            held.push(permit);
        }
        assert!(budget.used() > half);
        // The third finds some, too.
        held.push(c.try_take(CHUNK).unwrap());
        // Small answers never wait for large ones.
        held.push(a.try_take(SMALL).unwrap());
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_soon_is_refused_with_a_pause_of_its_own() {
        let budget = Budget::new(1 << 20);
        let a = share(&budget, "a");
        let mut held = Vec::new();
        while let Some(permit) = a.try_take(CHUNK) {
            held.push(permit);
        }
        let mut pauses = Vec::new();
        for _ in 0..10 {
            pauses.push(a.admit(CHUNK).await.unwrap_err().retry_after);
        }
        assert!(
            pauses
                .iter()
                .all(|pause| (PAUSE..3 * PAUSE).contains(pause))
        );
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        assert_eq!(budget.refused.load(Ordering::Relaxed), 10);
        // A little patience helps where somebody goes.
        let soon = tokio::spawn(async move { a.admit(CHUNK).await });
        tokio::task::yield_now().await;
        held.pop();
        assert_eq!(soon.await.unwrap(), Ok(()));
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn accounts_that_wait_take_turns() {
        let budget = Budget::new(1 << 20);
        let (a, b) = (share(&budget, "a"), share(&budget, "b"));
        let hog = share(&budget, "hog").take(1 << 20).await;
        let order = Arc::new(Mutex::new(String::new()));
        let mut tasks = Vec::new();
        for name in ["a", "a", "a", "a", "b", "b"] {
            let share = if name == "a" { a.clone() } else { b.clone() };
            let order = order.clone();
            tasks.push(tokio::spawn(async move {
                // Half of what there is: one at a time.
                let permit = share.take(512 * 1024).await;
                order.lock().unwrap().push_str(name);
                tokio::task::yield_now().await;
                drop(permit);
            }));
            tokio::task::yield_now().await;
        }
        drop(hog);
        for task in tasks {
            task.await.unwrap();
        }
        let order = order.lock().unwrap().clone();
        assert!(order.starts_with("ab") && order.len() == 6, "{order}");
        assert_eq!(budget.used(), 0);
        assert_eq!(budget.lock().waiters, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_holds_up_nobody() {
        let budget = Budget::new(1 << 20);
        let a = share(&budget, "a");
        let hog = a.take(800 * 1024).await;
        let waiting = {
            let a = a.clone();
            tokio::spawn(async move { a.take(CHUNK).await })
        };
        tokio::task::yield_now().await;
        let second = {
            let a = a.clone();
            tokio::spawn(async move { a.take(CHUNK).await })
        };
        tokio::task::yield_now().await;
        waiting.abort();
        let _ = waiting.await;
        drop(hog);
        drop(second.await.unwrap());
        assert_eq!(budget.used(), 0);
    }
}
