//! Uploads in parts: who has which open, and what came so far.
//!
//! The part that is next in order goes on into the object as soon as it came whole; it cannot be
//! replaced any more. Others wait on the disk. Neither outlives the session, nor the process.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use store::{Error, Key, Outcome, Scratch, Upload};
use tokio::time::Instant;
use uuid::Uuid;

use super::MODULE_LIMIT;
use crate::auth::Project;
use crate::certificate::provider;

/// Most sessions of an account.
const SESSIONS: usize = 64;
/// Most bytes that an account may have in sessions.
const UNFINISHED: u64 = 16 << 30;
/// Most sessions of all accounts.
const ALL: usize = 4096;
/// A session without activity for so long is over.
const ABANDONED: Duration = Duration::from_secs(5 * 60);

/// Limits of an account; tests lower them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) sessions: usize,
    pub(crate) unfinished: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: SESSIONS,
            unfinished: UNFINISHED,
        }
    }
}

/// All sessions; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    limits: Limits,
    open: Mutex<HashMap<Uuid, Arc<Session>>>,
    /// What sessions of an account hold, also those that are being completed.
    accounts: Mutex<HashMap<String, Arc<Account>>>,
}

#[derive(Debug, Default)]
struct Account {
    bytes: AtomicU64,
}

/// An upload in parts.
#[derive(Debug)]
pub(crate) struct Session {
    project: Project,
    key: Key,
    account: Arc<Account>,
    limit: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Instant,
    /// Bytes of all parts, also of those that are on their way.
    total: u64,
    /// Parts that are on their way.
    running: usize,
    /// `None` while the next parts are being added, and once that failed.
    upload: Option<Box<Upload>>,
    /// Set for good when adding parts failed.
    broken: bool,
    /// Number of the next part in order.
    next: u32,
    /// The parts that came.
    parts: BTreeMap<u32, Part>,
}

#[derive(Debug)]
enum Part {
    /// On its way.
    Coming,
    /// Waits for those before it.
    Waiting(Scratch),
    /// Belongs to the object.
    Added,
}

/// Why a part or a session is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such session of this project and key.
    Unknown,
    /// The part was added already, or is on its way.
    Fixed,
    /// More bytes than a module may have.
    TooLarge,
    /// The account has too many sessions, or bytes in them.
    TooMany,
}

/// Why a completion failed.
#[derive(Debug)]
pub(crate) enum Incomplete {
    /// Other parts are listed than came.
    Parts,
    /// A part is still on its way; the session stays.
    Busy,
    /// The store.
    Store(Error),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is done under these locks is done in one step, or is a number.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    #[cfg(test)]
    pub(crate) fn with(limits: Limits) -> Self {
        let shared = Shared {
            limits,
            ..Shared::default()
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Whether the account may open one more.
    pub(crate) fn has_room(&self, project: &Project) -> bool {
        let open = lock(&self.shared.open);
        let of_account = |session: &&Arc<Session>| session.project.account == project.account;
        open.len() < ALL && open.values().filter(of_account).count() < self.shared.limits.sessions
    }

    /// Opens a session; its id.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooMany`]
    pub(crate) fn open(
        &self,
        project: &Project,
        key: Key,
        mut upload: Box<Upload>,
    ) -> Result<Uuid, Refusal> {
        // Which digest it is to have is said at the end.
        upload.compute_sha256();
        let mut accounts = lock(&self.shared.accounts);
        let account = Arc::clone(accounts.entry(project.account.to_string()).or_default());
        drop(accounts);
        let session = Session {
            project: project.clone(),
            key,
            account,
            limit: self.shared.limits.unfinished,
            state: Mutex::new(State {
                last: Instant::now(),
                total: 0,
                running: 0,
                upload: Some(upload),
                broken: false,
                next: 1,
                parts: BTreeMap::new(),
            }),
        };
        let id = new_id();
        let mut open = lock(&self.shared.open);
        let of_account = |other: &&Arc<Session>| other.project.account == project.account;
        if open.len() >= ALL
            || open.values().filter(of_account).count() >= self.shared.limits.sessions
        {
            return Err(Refusal::TooMany);
        }
        open.insert(id, Arc::new(session));
        Ok(id)
    }

    /// The session of an id, if it is one of this project and key.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`]
    pub(crate) fn find(
        &self,
        id: &str,
        project: &Project,
        key: &Key,
    ) -> Result<Arc<Session>, Refusal> {
        let id = Uuid::try_parse(id).map_err(|_| Refusal::Unknown)?;
        let open = lock(&self.shared.open);
        let session = open.get(&id).ok_or(Refusal::Unknown)?;
        if session.project != *project || session.key != *key || session.is_abandoned() {
            return Err(Refusal::Unknown);
        }
        Ok(Arc::clone(session))
    }

    /// Ends a session.
    pub(crate) fn close(&self, id: &str) {
        if let Ok(id) = Uuid::try_parse(id) {
            lock(&self.shared.open).remove(&id);
        }
    }

    /// Ends all sessions of a project.
    pub(crate) fn forget(&self, project: &Project) {
        lock(&self.shared.open).retain(|_, session| session.project != *project);
    }

    /// Ends those that were abandoned.
    pub(crate) fn sweep(&self) {
        lock(&self.shared.open).retain(|_, session| !session.is_abandoned());
        // The map holds one reference, every session one more.
        lock(&self.shared.accounts).retain(|_, account| Arc::strong_count(account) > 1);
    }

    /// Number of sessions, and the bytes in them.
    pub(crate) fn usage(&self) -> (usize, u64) {
        let accounts = lock(&self.shared.accounts);
        let bytes = |account: &Arc<Account>| account.bytes.load(Ordering::Relaxed);
        (
            lock(&self.shared.open).len(),
            accounts.values().map(bytes).sum(),
        )
    }
}

/// A UUID of version 7 (RFC 9562).
fn new_id() -> Uuid {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut random = [0; 10];
    // A failure makes an id that another one may take from us, and no more: it is only good with
    // the right project and key.
    let _ = provider().secure_random.fill(&mut random);
    uuid::Builder::from_unix_timestamp_millis(now.unwrap_or_default().as_millis() as u64, &random)
        .into_uuid()
}

impl Drop for Session {
    fn drop(&mut self) {
        let total = lock(&self.state).total;
        self.account.bytes.fetch_sub(total, Ordering::Relaxed);
    }
}

/// A part on its way. One that is dropped before [`Arriving::came`] leaves nothing.
#[derive(Debug)]
pub(crate) struct Arriving {
    session: Arc<Session>,
    number: u32,
    bytes: u64,
    arrived: bool,
}

impl Session {
    fn is_abandoned(&self) -> bool {
        let state = lock(&self.state);
        state.running == 0 && state.last.elapsed() >= ABANDONED
    }

    /// Begins a part. One that waits for those before it is replaced.
    ///
    /// # Errors
    ///
    /// [`Refusal::Fixed`], or [`Refusal::Unknown`] after the session broke.
    pub(crate) fn begin(self: &Arc<Self>, number: u32) -> Result<Arriving, Refusal> {
        let mut state = lock(&self.state);
        if state.broken {
            return Err(Refusal::Unknown);
        }
        let replaced = match state.parts.get(&number) {
            Some(Part::Coming | Part::Added) => return Err(Refusal::Fixed),
            Some(Part::Waiting(scratch)) => scratch.len(),
            None => 0,
        };
        state.total -= replaced;
        self.account.bytes.fetch_sub(replaced, Ordering::Relaxed);
        state.parts.insert(number, Part::Coming);
        state.running += 1;
        state.last = Instant::now();
        Ok(Arriving {
            session: Arc::clone(self),
            number,
            bytes: 0,
            arrived: false,
        })
    }

    /// Adds the parts that are next in order, as far as they came.
    async fn add(&self) -> Result<(), Error> {
        loop {
            let (mut upload, mut scratch) = {
                let mut state = lock(&self.state);
                let next = state.next;
                if !matches!(state.parts.get(&next), Some(Part::Waiting(_))) {
                    return Ok(());
                }
                // Somebody else is adding, and will find this part too.
                let Some(upload) = state.upload.take() else {
                    return Ok(());
                };
                let Some(Part::Waiting(scratch)) = state.parts.insert(next, Part::Added) else {
                    return Ok(());
                };
                state.next += 1;
                (upload, scratch)
            };
            let added = append(&mut upload, &mut scratch).await;
            let mut state = lock(&self.state);
            match added {
                Ok(()) => state.upload = Some(upload),
                Err(error) => {
                    state.broken = true;
                    return Err(error);
                }
            }
        }
    }

    /// Completes the object: `listed` must be exactly the parts that came.
    ///
    /// # Errors
    ///
    /// It is not complete. Unless it is [`Incomplete::Busy`], the session is to be closed.
    pub(crate) async fn complete(
        &self,
        listed: &[u32],
        sha256: Option<[u8; 32]>,
    ) -> Result<(Outcome, u64), Incomplete> {
        let (mut upload, rest, total) = {
            let mut state = lock(&self.state);
            if state.running > 0 {
                return Err(Incomplete::Busy);
            }
            if !state.parts.keys().eq(listed) {
                return Err(Incomplete::Parts);
            }
            let Some(upload) = state.upload.take() else {
                return Err(Incomplete::Store(Error::Interrupted));
            };
            state.broken = true;
            (upload, std::mem::take(&mut state.parts), state.total)
        };
        for part in rest.into_values() {
            if let Part::Waiting(mut scratch) = part {
                append(&mut upload, &mut scratch)
                    .await
                    .map_err(Incomplete::Store)?;
            }
        }
        if let Some(sha256) = sha256 {
            upload.declare_sha256(sha256);
        }
        let outcome = upload.finish().await.map_err(Incomplete::Store)?;
        Ok((outcome, total))
    }
}

async fn append(upload: &mut Upload, scratch: &mut Scratch) -> Result<(), Error> {
    let mut at = 0;
    loop {
        let bytes = scratch.read(at).await?;
        if bytes.is_empty() {
            return Ok(());
        }
        at += bytes.len() as u64;
        upload.write(&bytes).await?;
    }
}

impl Arriving {
    /// Takes room for more bytes of the part.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooLarge`], [`Refusal::TooMany`]
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<(), Refusal> {
        let session = &self.session;
        let mut state = lock(&session.state);
        if state.total + bytes > MODULE_LIMIT {
            return Err(Refusal::TooLarge);
        }
        let account = &session.account.bytes;
        if account.fetch_add(bytes, Ordering::Relaxed) + bytes > session.limit {
            account.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Refusal::TooMany);
        }
        state.total += bytes;
        state.last = Instant::now();
        drop(state);
        self.bytes += bytes;
        Ok(())
    }

    /// The part came whole.
    ///
    /// # Errors
    ///
    /// The store failed: the session is to be closed.
    pub(crate) async fn came(mut self, scratch: Scratch) -> Result<(), Error> {
        {
            let mut state = lock(&self.session.state);
            state.parts.insert(self.number, Part::Waiting(scratch));
            self.arrived = true;
        }
        // It goes on when the client is gone: half a part must not stay in the object.
        let adding = tokio::spawn(async move { self.session.add().await });
        adding.await.unwrap_or(Err(Error::Interrupted))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut state = lock(&self.session.state);
        state.running -= 1;
        state.last = Instant::now();
        if !self.arrived {
            state.parts.remove(&self.number);
            state.total -= self.bytes;
            let account = &self.session.account.bytes;
            account.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use store::{Begun, Kind, Store, Terms};

    use super::*;

    struct Fixture {
        _folder: tempfile::TempDir,
        store: Store,
        sessions: Sessions,
        project: Project,
    }

    impl Fixture {
        async fn new(limits: Limits) -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self {
                store: Store::open(folder.path()).await,
                _folder: folder,
                sessions: Sessions::with(limits),
                project: Project::parse("acme", "app").unwrap(),
            }
        }

        fn key(&self, hash: &str) -> Key {
            Key {
                kind: Kind::Module,
                account: "acme".into(),
                project: "app".into(),
                hash: hash.into(),
                ..Key::default()
            }
        }

        async fn start(&self, hash: &str) -> Result<Uuid, Refusal> {
            let terms = Terms {
                limit: MODULE_LIMIT,
                ..Terms::default()
            };
            match self.store.put(&self.key(hash), terms).await.unwrap() {
                Begun::Upload(upload) => self.sessions.open(&self.project, self.key(hash), upload),
                Begun::Exists => panic!("{hash} is there"),
            }
        }

        async fn part(&self, id: Uuid, hash: &str, number: u32, text: &str) -> Result<(), Refusal> {
            let key = self.key(hash);
            let session = self.sessions.find(&id.to_string(), &self.project, &key)?;
            let mut arriving = session.begin(number)?;
            arriving.reserve(text.len() as u64)?;
            let mut scratch = self.store.scratch(&key, 10).await.unwrap();
            scratch.write(text.as_bytes()).await.unwrap();
            arriving.came(scratch).await.unwrap();
            Ok(())
        }
    }

    #[tokio::test]
    async fn sessions_and_bytes_of_an_account_are_bounded() {
        let limits = Limits {
            sessions: 2,
            unfinished: 10,
        };
        let all = Fixture::new(limits).await;
        let one = all.start("1").await.unwrap();
        let two = all.start("2").await.unwrap();
        assert!(!all.sessions.has_room(&all.project));
        assert_eq!(all.start("3").await, Err(Refusal::TooMany));
        let other = Project::parse("other", "app").unwrap();
        assert!(all.sessions.has_room(&other));
        all.part(one, "1", 1, "123456").await.unwrap();
        assert_eq!(all.part(two, "2", 1, "12345").await, Err(Refusal::TooMany));
        assert_eq!(all.sessions.usage(), (2, 6));
        // What waits can be replaced and counts once.
        all.part(two, "2", 2, "123").await.unwrap();
        all.part(two, "2", 2, "1234").await.unwrap();
        assert_eq!(all.sessions.usage(), (2, 10));
        all.sessions.close(&one.to_string());
        assert_eq!(all.sessions.usage(), (1, 4));
        all.part(two, "2", 1, "12345").await.unwrap();
        all.sessions.forget(&all.project);
        all.sessions.sweep();
        assert_eq!(all.sessions.usage(), (0, 0));
    }

    #[tokio::test]
    async fn parts_come_in_any_order() {
        let all = Fixture::new(Limits::default()).await;
        let id = all.start("a").await.unwrap();
        for (number, text) in [(3, "ghi"), (1, "abc"), (2, "def")] {
            all.part(id, "a", number, text).await.unwrap();
        }
        // All of them belong to the object by now.
        for number in 1..=3 {
            assert_eq!(all.part(id, "a", number, "x").await, Err(Refusal::Fixed));
        }
        let key = all.key("a");
        let session = all
            .sessions
            .find(&id.to_string(), &all.project, &key)
            .unwrap();
        let (outcome, bytes) = session.complete(&[1, 2, 3], None).await.unwrap();
        assert_eq!((outcome, bytes), (Outcome::Stored, 9));
        let object = all.store.get(&key).await.unwrap().unwrap();
        let read = object.read(0..9).next().await.unwrap().unwrap();
        assert_eq!(read, "abcdefghi");
    }

    #[tokio::test]
    async fn a_part_that_breaks_off_leaves_nothing() {
        let all = Fixture::new(Limits::default()).await;
        let id = all.start("a").await.unwrap();
        let key = all.key("a");
        let session = all
            .sessions
            .find(&id.to_string(), &all.project, &key)
            .unwrap();
        let mut arriving = session.begin(1).unwrap();
        arriving.reserve(5).unwrap();
        assert_eq!(session.begin(1).unwrap_err(), Refusal::Fixed);
        assert!(matches!(
            session.complete(&[], None).await,
            Err(Incomplete::Busy)
        ));
        drop(arriving);
        assert_eq!(all.sessions.usage(), (1, 0));
        all.part(id, "a", 1, "abc").await.unwrap();
        assert!(matches!(
            session.complete(&[2], None).await,
            Err(Incomplete::Parts)
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_without_activity_is_over() {
        let all = Fixture::new(Limits::default()).await;
        let id = all.start("a").await.unwrap();
        let find = || {
            all.sessions
                .find(&id.to_string(), &all.project, &all.key("a"))
        };
        tokio::time::advance(ABANDONED - Duration::from_secs(1)).await;
        let arriving = find().unwrap().begin(1).unwrap();
        tokio::time::advance(ABANDONED * 2).await;
        assert!(find().is_ok());
        drop(arriving);
        tokio::time::advance(ABANDONED).await;
        assert_eq!(find().unwrap_err(), Refusal::Unknown);
        all.sessions.sweep();
        assert_eq!(all.sessions.usage(), (0, 0));
    }

    #[tokio::test]
    async fn a_session_is_only_good_for_its_project_and_key() {
        let all = Fixture::new(Limits::default()).await;
        let id = all.start("a").await.unwrap().to_string();
        let other = Project::parse("acme", "other").unwrap();
        for (id, project, key) in [
            (&*id, &other, all.key("a")),
            (&*id, &all.project, all.key("b")),
            ("", &all.project, all.key("a")),
            (&new_id().to_string(), &all.project, all.key("a")),
        ] {
            assert_eq!(
                all.sessions.find(id, project, &key).unwrap_err(),
                Refusal::Unknown
            );
        }
    }
}
