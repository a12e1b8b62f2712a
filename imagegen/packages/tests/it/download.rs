//! Downloads against a server that misbehaves.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use packages::{
    Cache, Digest, Error, Fetcher, Options, Package, Progress, Proxies, Role, Silent, Sources,
    Timeouts,
};

use crate::server::{Fault, Server, closed_port};

/// Small numbers, so that a test is quick.
pub(crate) fn options() -> Options {
    Options {
        pause: Duration::from_millis(1),
        attempts: 3,
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            answer: Duration::from_millis(500),
            stall: Duration::from_millis(300),
        },
        proxies: Some(Proxies::none()),
        ..Options::default()
    }
}

/// A fetcher with those options that shows nothing.
pub(crate) fn fetcher(sources: Sources, cache: Cache) -> Fetcher {
    let mut fetcher = Fetcher::with_sources(sources, cache, silent());
    fetcher.options = options();
    fetcher
}

pub(crate) fn silent() -> Arc<dyn Progress> {
    Arc::new(Silent)
}

/// A body of some length, different for each seed.
fn body(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i * 7 + seed * 13 + i / 251) as u8)
        .collect()
}

fn package(name: &str, contents: &[u8]) -> Package {
    Package {
        role: Role::System,
        name: name.to_owned(),
        version: "1:1.0-1".to_owned(),
        arch: "amd64".to_owned(),
        suite: "trixie".to_owned(),
        size: contents.len() as u64,
        sha256: Digest::of(contents),
        path: format!("pool/main/{name}_1.0-1_amd64.deb"),
    }
}

/// A server with one package, its path there, and an empty cache.
struct Bench {
    server: Server,
    contents: Vec<u8>,
    package: Package,
    path: String,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let server = Server::start();
        let contents = body(1, 100_000);
        let package = package("thing", &contents);
        let path = format!("/debian/{}", package.path);
        server.put(&path, contents.clone());
        Self {
            server,
            contents,
            package,
            path,
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    fn cache(&self) -> Cache {
        Cache::at(self.folder.path().join("cache"))
    }

    fn sources(&self) -> Sources {
        Sources::from_mirrors(&[self.server.url("/debian")]).expect("a source")
    }

    fn fetch(&self) -> Result<Vec<PathBuf>, Error> {
        self.fetch_with(&options())
    }

    fn fetch_with(&self, options: &Options) -> Result<Vec<PathBuf>, Error> {
        let mut fetcher = fetcher(self.sources(), self.cache());
        fetcher.options = options.clone();
        fetcher.fetch(&[&self.package])
    }

    fn part(&self) -> PathBuf {
        self.cache().path(&self.package.sha256, "part")
    }

    #[track_caller]
    fn assert_fetched(&self) {
        let paths = self.fetch().expect("the download goes well in the end");
        assert_eq!(std::fs::read(&paths[0]).expect("the file"), self.contents);
        assert_eq!(
            files(&self.folder),
            [paths[0].clone()],
            "only the file is left"
        );
    }

    /// Nothing is under the final name.
    #[track_caller]
    fn assert_nothing(&self) {
        assert!(!self.cache().path(&self.package.sha256, "deb").exists());
    }
}

/// All files under a folder, sorted.
fn files(folder: &tempfile::TempDir) -> Vec<PathBuf> {
    fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => walk(&path, out),
                path => out.push(path),
            }
        }
    }
    let mut out = Vec::new();
    walk(folder.path(), &mut out);
    out.sort();
    out
}

#[test]
fn many_files_come_over_few_connections_and_a_second_run_asks_nobody() {
    let bench = Bench::new();
    let contents: Vec<Vec<u8>> = (0..30).map(|i| body(i, 1000 + i * 999)).collect();
    let packages: Vec<Package> = contents
        .iter()
        .enumerate()
        .map(|(i, c)| package(&format!("p{i}"), c))
        .collect();
    for (package, contents) in packages.iter().zip(&contents) {
        bench
            .server
            .put(&format!("/debian/{}", package.path), contents.clone());
    }
    let wanted: Vec<&Package> = packages.iter().collect();
    let fetch = |connections| {
        let options = Options {
            connections,
            ..options()
        };
        let mut fetcher = fetcher(bench.sources(), bench.cache());
        fetcher.options = options;
        fetcher.fetch(&wanted)
    };
    let paths = fetch(4).expect("downloads");
    for (path, contents) in paths.iter().zip(&contents) {
        assert_eq!(
            &std::fs::read(path).expect("the file"),
            contents,
            "in the order asked for"
        );
    }
    assert!(
        bench.server.connections() <= 4,
        "kept alive: {}",
        bench.server.connections()
    );
    let before = bench.server.connections();
    assert_eq!(fetch(4).expect("from the cache"), paths);
    assert_eq!(
        bench.server.connections(),
        before,
        "no network for what is there"
    );
    assert_eq!(bench.server.seen().len(), 30);
}

#[test]
fn a_broken_connection_is_resumed_where_it_broke() {
    let bench = Bench::new();
    bench
        .server
        .fail(&bench.path, [Fault::Drop(40_000), Fault::Drop(20_000)]);
    bench.assert_fetched();
    let ranges = bench.server.ranges(&bench.path);
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=40000-".to_owned()),
            Some("bytes=60000-".to_owned())
        ]
    );
}

#[test]
fn an_interrupted_run_leaves_only_a_part_which_the_next_one_completes() {
    let bench = Bench::new();
    bench.server.always(&bench.path, Fault::Drop(30_000));
    let once = Options {
        attempts: 1,
        ..options()
    };
    let error = bench.fetch_with(&once).expect_err("it breaks");
    assert!(
        matches!(error, Error::Unreachable { attempts: 1, .. }),
        "{error}"
    );
    assert_eq!(files(&bench.folder), [bench.part()]);
    bench.server.put(&bench.path, bench.contents.clone());
    bench.assert_fetched();
    assert_eq!(
        bench.server.ranges(&bench.path)[1].as_deref(),
        Some("bytes=30000-")
    );
}

#[test]
fn a_server_without_ranges_is_read_from_the_beginning() {
    let bench = Bench::new();
    bench
        .server
        .fail(&bench.path, [Fault::Drop(40_000), Fault::IgnoreRange]);
    bench.assert_fetched();
}

#[test]
fn a_body_without_a_length_that_ends_early_is_resumed() {
    let bench = Bench::new();
    bench.server.fail(
        &bench.path,
        [Fault::Unannounced(10_000), Fault::Unannounced(1 << 20)],
    );
    bench.assert_fetched();
}

#[test]
fn a_part_with_wrong_bytes_is_thrown_away() {
    for wrong in [vec![0; 50_000], vec![0; 100_000], vec![0; 200_000]] {
        let bench = Bench::new();
        std::fs::create_dir_all(bench.part().parent().expect("a folder")).expect("a folder");
        std::fs::write(bench.part(), &wrong).expect("a part");
        bench.assert_fetched();
    }
}

#[test]
fn passing_errors_are_tried_again() {
    let bench = Bench::new();
    bench
        .server
        .fail(&bench.path, [Fault::Status(503), Fault::Hangup]);
    bench.assert_fetched();
    let bench = Bench::new();
    bench.server.fail(
        &bench.path,
        [Fault::Stall(10), Fault::Stall(10), Fault::Slow],
    );
    bench.assert_fetched();
}

#[test]
fn lasting_errors_end_with_what_happened_and_how_often_it_was_tried() {
    for (fault, words) in [
        (Fault::Status(503), "the server answered 503"),
        (Fault::Hangup, "connection"),
        (Fault::Stall(0), "no data for 0.3 s"),
        (
            Fault::Redirect("/debian/pool/main/thing_1.0-1_amd64.deb".to_owned()),
            "redirects",
        ),
    ] {
        let bench = Bench::new();
        bench.server.always(&bench.path, fault.clone());
        let error = bench.fetch().expect_err("it cannot work");
        assert!(
            matches!(error, Error::Unreachable { attempts: 3, .. }),
            "{fault:?}: {error}"
        );
        let text = error.to_string();
        assert!(
            text.contains(words) && text.contains(&bench.path),
            "{fault:?}: {text}"
        );
        bench.assert_nothing();
    }
    let bench = Bench::new();
    bench.server.always(&bench.path, Fault::Status(403));
    let error = bench.fetch().expect_err("forbidden");
    assert!(
        matches!(error, Error::Status { status: 403, .. }),
        "{error}"
    );
}

#[test]
fn a_server_that_always_breaks_off_at_the_same_place_is_given_up() {
    let bench = Bench::new();
    bench.server.always(&bench.path, Fault::Cut(30_000));
    let error = bench.fetch().expect_err("it never gets further");
    assert!(
        matches!(error, Error::Unreachable { attempts: 3, .. }),
        "{error}"
    );
    // What arrives before a break varies a little, and counts as progress.
    assert!(bench.server.seen().len() < 20);
}

#[test]
fn wrong_contents_never_get_the_final_name() {
    let bench = Bench::new();
    bench.server.always(&bench.path, Fault::Wrong);
    let error = bench.fetch().expect_err("other bytes");
    let text = error.to_string();
    assert!(matches!(error, Error::Mismatch { .. }), "{text}");
    let wrong: Vec<u8> = bench.contents.iter().map(|b| b ^ 1).collect();
    for part in [
        bench.package.sha256.to_string(),
        Digest::of(&wrong).to_string(),
        bench.path.clone(),
    ] {
        assert!(text.contains(&part), "{text} does not name {part}");
    }
    assert_eq!(files(&bench.folder), [] as [PathBuf; 0]);
    for (fault, bytes) in [(Fault::Short(99_000), 99_000), (Fault::Long, 100_008)] {
        let bench = Bench::new();
        bench.server.always(&bench.path, fault);
        let error = bench.fetch().expect_err("another size");
        assert!(
            matches!(error, Error::WrongSize { found, wanted: 100_000, .. } if found == bytes),
            "{error}"
        );
        assert_eq!(files(&bench.folder), [] as [PathBuf; 0]);
    }
}

#[test]
fn a_tampering_mirror_is_passed_over_for_a_right_one() {
    let bench = Bench::new();
    let second = Server::start();
    second.put(&bench.path, bench.contents.clone());
    bench.server.always(&bench.path, Fault::Wrong);
    let sources =
        Sources::from_mirrors(&[bench.server.url("/debian"), second.url("/debian")]).expect("two");
    fetcher(sources.clone(), bench.cache().clone())
        .fetch(&[&bench.package])
        .expect("the second mirror is right");
}

#[test]
fn redirects_are_followed() {
    let bench = Bench::new();
    let other = Server::start();
    other.put("/elsewhere/x.deb", bench.contents.clone());
    bench
        .server
        .always(&bench.path, Fault::Redirect(other.url("/elsewhere/x.deb")));
    bench.assert_fetched();
}

#[test]
fn what_one_archive_lost_is_found_in_another() {
    let bench = Bench::new();
    bench.server.remove(&bench.path);
    bench.server.put(
        &format!("/debian-security/{}", bench.package.path),
        bench.contents.clone(),
    );
    bench.assert_fetched();
}

#[test]
fn what_is_gone_everywhere_is_named_after_the_rest_was_fetched() {
    let bench = Bench::new();
    let (lost, also) = (package("lost", b"lost"), package("also-lost", b"also"));
    let wanted = [&lost, &bench.package, &also];
    let error = fetcher(bench.sources().clone(), bench.cache().clone())
        .fetch(&wanted)
        .expect_err("two are gone");
    assert!(
        matches!(&error, Error::Gone { packages } if packages.len() == 2),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("also-lost 1:1.0-1, lost 1:1.0-1;"),
        "{error}"
    );
    bench.assert_fetched();
}

#[test]
fn a_mirror_that_nobody_listens_on_is_named() {
    let bench = Bench::new();
    let mirror = format!("http://127.0.0.1:{}/debian", closed_port());
    let sources = Sources::from_mirrors(std::slice::from_ref(&mirror)).expect("a source");
    let error = fetcher(sources.clone(), bench.cache().clone())
        .fetch(&[&bench.package])
        .expect_err("nobody listens");
    let text = error.to_string();
    assert!(
        text.contains("127.0.0.1") && text.contains("refused") && text.contains("3 times"),
        "{text}"
    );
    let sources = Sources::from_mirrors(&["http://no.such.host.invalid/debian".to_owned()])
        .expect("a source");
    let error = fetcher(sources.clone(), bench.cache().clone())
        .fetch(&[&bench.package])
        .expect_err("no such host");
    assert!(
        error.to_string().contains("no.such.host.invalid"),
        "{error}"
    );
}

#[test]
fn what_is_cached_needs_no_mirror_at_all() {
    let bench = Bench::new();
    bench.assert_fetched();
    let nowhere = Fetcher::new(vec!["not a URL".to_owned()], bench.cache(), silent());
    nowhere.fetch(&[&bench.package]).expect("it is there");
    std::fs::remove_file(bench.cache().path(&bench.package.sha256, "deb")).expect("a file");
    let error = nowhere
        .fetch(&[&bench.package])
        .expect_err("now it matters");
    assert!(matches!(error, Error::BadUrl { .. }), "{error}");
}

#[test]
fn a_cached_file_of_another_size_is_fetched_again() {
    let bench = Bench::new();
    bench.assert_fetched();
    let path = bench.cache().path(&bench.package.sha256, "deb");
    std::fs::write(&path, b"cut").expect("damage");
    bench.assert_fetched();
}

#[test]
fn a_cached_file_with_other_bytes_is_found_when_asked_to_look() {
    let bench = Bench::new();
    bench.assert_fetched();
    let path = bench.cache().path(&bench.package.sha256, "deb");
    let damaged = vec![0; bench.contents.len()];
    std::fs::write(&path, &damaged).expect("damage");
    bench.fetch().expect("the size is right");
    assert_eq!(
        std::fs::read(&path).expect("the file"),
        damaged,
        "not looked into"
    );
    bench
        .fetch_with(&Options {
            rehash: true,
            ..options()
        })
        .expect("fetched again");
    assert_eq!(std::fs::read(&path).expect("the file"), bench.contents);
}

#[test]
fn a_disk_without_room_is_told_before_anything_is_asked_for() {
    let mut bench = Bench::new();
    bench.package.size = 1 << 60;
    let error = bench.fetch().expect_err("an exabyte");
    assert!(
        matches!(error, Error::DiskFull { needed, .. } if needed == 1 << 60),
        "{error}"
    );
    assert!(error.to_string().contains("LARDER_CACHE"), "{error}");
    assert_eq!(bench.server.connections(), 0);
    assert_eq!(files(&bench.folder), [] as [PathBuf; 0]);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let bench = Bench::new();
    let file = bench.folder.path().join("file");
    std::fs::write(&file, b"").expect("a file");
    let cache = Cache::at(&file);
    let error = fetcher(bench.sources().clone(), cache.clone())
        .fetch(&[&bench.package])
        .expect_err("a file is no folder");
    assert!(
        error.to_string().contains(&file.display().to_string()),
        "{error}"
    );
}

#[test]
fn two_runs_at_once_share_one_download() {
    let bench = Bench::new();
    bench.server.always(&bench.path, Fault::Slow);
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| bench.fetch())).collect();
        for run in runs {
            run.join().expect("no panic").expect("a download");
        }
    });
    assert_eq!(bench.server.seen().len(), 1, "the others waited");
    bench.assert_fetched();
}

#[test]
fn progress_ends_at_the_whole_even_when_bytes_came_twice() {
    #[derive(Default)]
    struct Meter {
        last: AtomicU64,
        total: AtomicU64,
        names: Mutex<Vec<String>>,
    }
    impl Progress for Meter {
        fn bytes(&self, done: u64, total: u64, name: &str) {
            self.last.store(done, Ordering::SeqCst);
            self.total.store(total, Ordering::SeqCst);
            self.names.lock().expect("no panic").push(name.to_owned());
        }
    }
    let bench = Bench::new();
    bench
        .server
        .fail(&bench.path, [Fault::Drop(40_000), Fault::IgnoreRange]);
    let meter = Arc::new(Meter::default());
    let progress: Arc<dyn Progress> = meter.clone();
    let mut fetcher = fetcher(bench.sources(), bench.cache());
    fetcher.progress = progress;
    fetcher.fetch(&[&bench.package]).expect("a download");
    assert_eq!(meter.last.load(Ordering::SeqCst), 100_000);
    assert_eq!(meter.total.load(Ordering::SeqCst), 100_000);
    assert!(
        meter
            .names
            .lock()
            .expect("no panic")
            .iter()
            .all(|n| n == "thing")
    );
}

#[test]
fn names_are_encoded_and_credentials_sent() {
    let server = Server::start();
    let contents = body(3, 10);
    let mut package = package("g++", &contents);
    package.path = "pool/main/g++_4%3a14~1_amd64.deb".to_owned();
    server.put(&format!("/debian/{}", package.path), contents);
    let mirror = format!("http://me:secret@127.0.0.1:{}/debian", server.port);
    let sources = Sources::from_mirrors(&[mirror]).expect("a source");
    let folder = tempfile::tempdir().expect("a folder");
    fetcher(sources.clone(), Cache::at(folder.path()).clone())
        .fetch(&[&package])
        .expect("a download");
    let seen = &server.seen()[0];
    assert_eq!(
        seen.target,
        "/debian/pool/main/g%2b%2b_4%253a14~1_amd64.deb"
    );
    assert_eq!(seen.headers["authorization"], "Basic bWU6c2VjcmV0");
    assert_eq!(seen.headers["host"], format!("127.0.0.1:{}", server.port));
}

#[test]
fn a_proxy_gets_the_whole_url_and_a_direct_host_none() {
    let bench = Bench::new();
    let proxy = bench.server.url("");
    let dump =
        format!("Acquire::http::Proxy \"{proxy}\";\nAcquire::http::Proxy::127.0.0.1 \"DIRECT\";\n");
    let options = Options {
        proxies: Some(Proxies::from_settings(&dump, |_| None)),
        ..options()
    };
    let sources =
        Sources::from_mirrors(&["http://mirror.invalid/debian".to_owned()]).expect("a source");
    let mut proxied = fetcher(sources, bench.cache());
    proxied.options = options.clone();
    proxied.fetch(&[&bench.package]).expect("through the proxy");
    let seen = &bench.server.seen()[0];
    assert_eq!(
        seen.target,
        format!("http://mirror.invalid/debian/{}", bench.package.path)
    );
    assert_eq!(seen.headers["host"], "mirror.invalid");
    let fresh = tempfile::tempdir().expect("a folder");
    let mut direct = fetcher(bench.sources(), Cache::at(fresh.path()));
    direct.options = options;
    direct.fetch(&[&bench.package]).expect("directly");
    assert_eq!(bench.server.seen()[1].target, bench.path);
}
