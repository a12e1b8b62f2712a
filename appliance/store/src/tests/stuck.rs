//! A disk that does not answer: no operation holds the thread that asks for it.

use std::fmt::Debug;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Condvar, Mutex, mpsc};

use super::*;
use crate::Existing;
use crate::disk::sim::SimDisk;
use crate::disk::{DiskFile, Flush, Room, Surroundings};
use crate::volume::lock;

/// Whether the disk is stuck.
#[derive(Debug, Default)]
struct Gate {
    stuck: Mutex<bool>,
    moved: Condvar,
}

impl Gate {
    fn set(&self, stuck: bool) {
        *lock(&self.stuck) = stuck;
        self.moved.notify_all();
    }

    fn pass(&self) {
        let stuck = lock(&self.stuck);
        drop(self.moved.wait_while(stuck, |stuck| *stuck).unwrap());
    }
}

#[derive(Debug)]
struct StuckDisk(SimDisk, Arc<Gate>);

#[derive(Debug)]
struct StuckFile(Arc<dyn DiskFile>, Arc<Gate>);

impl StuckDisk {
    fn file(&self, file: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(StuckFile(file?, Arc::clone(&self.1))))
    }
}

impl Disk for StuckDisk {
    fn root(&self) -> &Path {
        self.0.root()
    }
    fn prepare(&self, folders: &[&str]) -> io::Result<()> {
        self.0.prepare(folders)
    }
    fn surroundings(&self) -> io::Result<Surroundings> {
        self.0.surroundings()
    }
    fn lock(&self, path: &str) -> io::Result<Arc<dyn Debug + Send + Sync>> {
        self.0.lock(path)
    }
    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.1.pass();
        self.file(self.0.open(path))
    }
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.1.pass();
        self.file(self.0.create(path))
    }
    fn nameless(&self, folder: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.1.pass();
        self.file(self.0.nameless(folder))
    }
    fn link(&self, file: &dyn DiskFile, path: &str) -> io::Result<()> {
        self.1.pass();
        let file: &StuckFile = file.as_any().downcast_ref().unwrap();
        self.0.link(&*file.0, path)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.1.pass();
        self.0.rename(from, to)
    }
    fn unlink(&self, path: &str) -> io::Result<()> {
        self.1.pass();
        self.0.unlink(path)
    }
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.1.pass();
        self.0.list(folder)
    }
    fn sync_folder(&self, folder: &str, why: Flush) -> io::Result<()> {
        self.1.pass();
        self.0.sync_folder(folder, why)
    }
    fn room(&self) -> io::Result<Room> {
        self.1.pass();
        self.0.room()
    }
}

impl DiskFile for StuckFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.pass();
        self.0.read_at(buffer, offset)
    }
    fn read_ready(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        // What is not in memory is what only the disk has.
        if *lock(&self.1.stuck) {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.0.read_ready(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.1.pass();
        self.0.write_at(bytes, offset)
    }
    fn sync(&self, why: Flush) -> io::Result<()> {
        self.1.pass();
        self.0.sync(why)
    }
    fn forget(&self) -> io::Result<()> {
        self.0.forget()
    }
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.1.pass();
        self.0.allocate(offset, length)
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        self.1.pass();
        self.0.set_length(length)
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Everything that is asked of a store while its disk is stuck lets the one executor thread go.
#[tokio::test]
async fn a_stuck_disk_holds_no_executor_thread() {
    let gate: Arc<Gate> = Arc::default();
    let disk = StuckDisk(SimDisk::new(16 << 20), Arc::clone(&gate));
    let disk = Arc::new(disk) as Arc<dyn Disk>;
    let store = Store::new(settings(), vec![disk], TestClock::at(NOW), true);
    store.check().await;
    let (small, large) = (pattern(1, 2000), pattern(2, 50_000));
    put(&store, "small", &small).await.unwrap();
    put(&store, "large", &large).await.unwrap();
    put(&store, "goes", &small).await.unwrap();
    let entry = Terms {
        names: vec![key("goes")],
        ..terms()
    };
    put_with(&store, &key("entry"), b"entry", entry)
        .await
        .unwrap();
    for volume in store.volumes() {
        let slot = volume.index.get(crate::key::tag(&key("goes").hash(), 0));
        assert!(volume.drop_slot(&slot.unwrap()));
    }
    // If anything holds this thread, the disk moves again after a while, and the test fails.
    let (done, waits) = mpsc::channel::<()>();
    let watch = {
        let gate = Arc::clone(&gate);
        std::thread::spawn(move || {
            let in_time = waits.recv_timeout(Duration::from_secs(60)).is_ok();
            gate.set(false);
            in_time
        })
    };
    gate.set(true);
    let spawn = |work: std::pin::Pin<Box<dyn Future<Output = bool> + Send>>| tokio::spawn(work);
    let clone = || store.clone();
    let (a, b, c, d, e, f, g, h) = (
        clone(),
        clone(),
        clone(),
        clone(),
        clone(),
        clone(),
        clone(),
        clone(),
    );
    let replace = || Terms {
        existing: Existing::Replace,
        ..terms()
    };
    let (expected, more, most) = (small.clone(), small.clone(), large.clone());
    let works = vec![
        spawn(Box::pin(
            async move { get(&a, "small").await == Some(expected) },
        )),
        spawn(Box::pin(
            async move { get(&b, "large").await == Some(most) },
        )),
        spawn(Box::pin(async move {
            c.head(&key("small")).await.unwrap().is_some()
        })),
        spawn(Box::pin(async move {
            d.get(&key("entry")).await.unwrap().is_none()
        })),
        spawn(Box::pin(async move {
            put_with(&e, &key("new"), &more, replace()).await.is_ok()
        })),
        spawn(Box::pin(async move {
            put_with(&f, &key("new and large"), &pattern(3, 60_000), replace())
                .await
                .is_ok()
        })),
        spawn(Box::pin(async move {
            g.pin(&key("small"), true).await.unwrap()
        })),
        spawn(Box::pin(
            async move { h.clean("acme", "other").await.is_ok() },
        )),
    ];
    // Each gets its turns; what needs no disk is done at once.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(store.touch(&key("small")) && store.hold(&key("small"), NOW + 60_000));
    assert!(!store.touch(&key("goes")));
    let _ = (store.status(), store.usage(), store.is_recovered());
    assert!(works.iter().all(|work| !work.is_finished()));
    done.send(()).unwrap();
    for (number, work) in works.into_iter().enumerate() {
        assert!(work.await.unwrap(), "{number}");
    }
    assert!(watch.join().unwrap(), "the executor's thread was held");
    store.close().await;
}
