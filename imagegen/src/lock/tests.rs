use clap::Parser;
use packages::Silent;
use tempfile::TempDir;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: LockArgs,
}

fn args(configs: &Path, more: &[&str]) -> LockArgs {
    let configs = configs.display().to_string();
    let words = ["lock", "--configs", &configs]
        .into_iter()
        .chain(more.iter().copied());
    Cli::parse_from(words).args
}

/// The folder `configs/` of this repository.
fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

/// A configuration of its own, with the lock of this repository.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["image.toml", NAME] {
        std::fs::copy(shipped().join(name), folder.path().join(name)).unwrap();
    }
    folder
}

/// One that nobody answers: no test asks a mirror.
fn fetcher(folder: &Path) -> Fetcher {
    let mirrors = vec!["http://127.0.0.1:9/debian".to_owned()];
    let mut fetcher = Fetcher::new(mirrors, Cache::at(folder.join("cache")), Arc::new(Silent));
    fetcher.options.attempts = 1;
    fetcher
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn the_shipped_lock_is_what_the_shipped_image_asks_for() {
    let image = config::Image::load(&shipped()).unwrap_or_else(|errors| panic!("{errors}"));
    let lock = Lock::load(&shipped().join(NAME)).unwrap();
    let request = request(&image.packages);
    request.check().unwrap();
    assert_eq!(lock.request, request.digest());
    assert!(image_of(&lock, &image.kernel.default).is_some());
}

#[test]
fn a_lock_that_fits_needs_no_mirror() {
    let folder = folder();
    let said = renew(&args(folder.path(), &[]), &fetcher(folder.path())).unwrap();
    assert!(said.contains("is what image.toml asks for"), "{said}");
}

#[test]
fn what_goes_wrong_leaves_the_lock_as_it_was() {
    let folder = folder();
    let path = folder.path().join(NAME);
    let before = std::fs::read(&path).unwrap();
    let fails = |more: &[&str], expected: &str| {
        let error = renew(&args(folder.path(), more), &fetcher(folder.path())).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(expected), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    };
    fails(&["--update"], "127.0.0.1:9");
    let image = folder.path().join("image.toml");
    replace(&image, "\"bash\",", "\"bash\", \"nano\",");
    fails(&[], "127.0.0.1:9");
    replace(&image, "\"nano\"", "\"Nano Editor\"");
    fails(&[], "Nano Editor");
}

#[test]
fn a_lock_that_makes_no_sense_is_made_anew_as_a_whole_only() {
    let folder = folder();
    let path = folder.path().join(NAME);
    std::fs::write(&path, "<<<<<<< HEAD\n").unwrap();
    let error = |more: &[&str]| {
        let error = renew(&args(folder.path(), more), &fetcher(folder.path())).unwrap_err();
        format!("{error:#}")
    };
    assert!(error(&["--update", "bash"]).contains("merge conflict"));
    assert!(error(&[]).contains("127.0.0.1:9"));
    std::fs::remove_file(&path).unwrap();
    assert!(error(&[]).contains("127.0.0.1:9"));
    assert!(!path.exists());
}

#[test]
fn help() {
    let mut command = <Cli as clap::CommandFactory>::command().term_width(100);
    insta::assert_snapshot!(command.render_long_help());
}
