use std::path::Path;

use clap::Parser;
use packages::Silent;
use tempfile::TempDir;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: CheckArgs,
}

/// A configuration of its own: the one of this repository.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    for name in [
        "image.toml",
        "system.toml",
        "fleet.toml",
        "cache.toml",
        "shipper.toml",
        lock::NAME,
    ] {
        std::fs::copy(shipped.join(name), folder.path().join(name)).unwrap();
    }
    folder
}

fn check_in(folder: &TempDir, days: u64, more: &[&str]) -> Result<Report> {
    let configs = folder.path().display().to_string();
    let words = ["check", "--configs", &configs]
        .into_iter()
        .chain(more.iter().copied());
    let mirrors = vec!["http://127.0.0.1:9/debian".to_owned()];
    let mut fetcher = Fetcher::new(
        mirrors,
        Cache::at(folder.path().join("cache")),
        Arc::new(Silent),
    );
    fetcher.options.attempts = 1;
    let date = Lock::load(&folder.path().join(lock::NAME)).map_or(0, |lock| lock.date);
    check(&Cli::parse_from(words).args, &fetcher, date + days * 86_400)
}

fn replace(folder: &TempDir, name: &str, from: &str, to: &str) {
    let path = folder.path().join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// What is said, without what changes with every lock.
fn shown(report: &Report, folder: &TempDir) -> String {
    let text = report.text() + &report.problems();
    text.replace(&folder.path().display().to_string(), "configs")
}

#[test]
fn a_sound_configuration() {
    let folder = folder();
    // As if the kernel that boots had been downloaded.
    let lock = Lock::load(&folder.path().join(lock::NAME)).unwrap();
    let image = lock::image_of(&lock, "6.18-cloud").unwrap();
    let deb = Cache::at(folder.path().join("cache")).path(&image.sha256, "deb");
    std::fs::create_dir_all(deb.parent().unwrap()).unwrap();
    let built = lock.date - 200 * 86_400;
    std::fs::write(
        &deb,
        format!("!<arch>\ndebian-binary   {built:<12}0     0     100644  4         `\n2.0\n"),
    )
    .unwrap();
    let report = check_in(&folder, 40, &[]).unwrap();
    assert!(
        report.ok && report.problems().is_empty(),
        "{}",
        report.problems()
    );
    let kernel = report.kernels.iter().find(|kernel| kernel.default).unwrap();
    assert_eq!((kernel.built, kernel.age_days), (Some(built), Some(240)));
    assert_eq!(report.kernels.len(), 4);
    insta::with_settings!({filters => vec![
        (r"\d+ packages, [\d.]+ MB", "[packages]"),
        (r"\d{4}-\d\d-\d\d", "[date]"),
        (r": \S+ \(trixie", ": [version] (trixie"),
    ]}, { insta::assert_snapshot!(shown(&report, &folder)); });
    let json: serde_json::Value = serde_json::to_value(&report).unwrap();
    assert_eq!(json["ok"], true);
    assert_eq!(json["lock"]["fits"], true);
    assert_eq!(json["lock"]["age_days"], 40);
    assert_eq!(json["hosts"].as_array().unwrap().len(), 8);
}

#[test]
fn everything_that_is_wrong_at_once() {
    let folder = folder();
    replace(&folder, "image.toml", "\"bash\",", "\"bash\", \"nano\",");
    replace(
        &folder,
        "image.toml",
        "[packages.kernels.newest-cloud]",
        "[packages.kernels.next-cloud]",
    );
    replace(&folder, "fleet.toml", "\"canary\"", "\"canari\"");
    replace(&folder, "system.toml", "\"443\"", "\"80-443\"");
    let report = check_in(&folder, 1, &[]).unwrap();
    assert!(!report.ok);
    // Lines of configs/ may move.
    insta::with_settings!({filters => vec![
        (r":\d+:\d+: ", ":[line]:[column]: "),
        (r"(?m)^  \d+ \|", "  [line] |"),
    ]}, {
        let problems = report.problems();
        insta::assert_snapshot!(problems.replace(&folder.path().display().to_string(), "configs"));
    });
    let json = serde_json::to_value(&report.problems[0]).unwrap();
    assert!(json["line"].as_u64().unwrap() > 1);
    assert!(
        json["message"].as_str().unwrap().contains("overlaps"),
        "{json}"
    );
}

#[test]
fn a_lock_that_is_not_there_or_broken() {
    let folder = folder();
    let path = folder.path().join(lock::NAME);
    std::fs::write(&path, "version = 1\n").unwrap();
    let report = check_in(&folder, 0, &[]).unwrap();
    assert!(!report.ok && report.lock.is_none());
    std::fs::remove_file(&path).unwrap();
    let report = check_in(&folder, 0, &[]).unwrap();
    let expected = "configs/packages.lock: there is no lock yet: `imagegen lock` makes it\n";
    assert_eq!(
        report
            .problems()
            .replace(&folder.path().display().to_string(), "configs"),
        expected
    );
}

#[test]
fn a_mirror_that_nobody_reaches_is_an_error() {
    let error = check_in(&folder(), 0, &["--online"]).unwrap_err();
    assert!(format!("{error:#}").contains("127.0.0.1:9"), "{error:#}");
}

#[test]
fn help() {
    let mut command = <Cli as clap::CommandFactory>::command().term_width(100);
    insta::assert_snapshot!(command.render_long_help());
}

#[test]
fn secrets_and_what_their_token_needs() {
    let folder = folder();
    let path = folder.path().join("secrets.toml");
    let more = ["--secrets", path.to_str().unwrap()];
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../secrets/manifest.toml");
    std::fs::copy(shipped, &path).unwrap();
    let report = check_in(&folder, 0, &more).unwrap();
    let missing = "there is no unit larder-shipper.service in the image";
    assert!(report.problems().contains(missing), "{}", report.problems());
    let units = folder.path().join("root/usr/lib/systemd/system");
    std::fs::create_dir_all(&units).unwrap();
    for unit in ["larder-cache.service", "larder-shipper.service"] {
        std::fs::write(units.join(unit), "").unwrap();
    }
    let report = check_in(&folder, 0, &more).unwrap();
    assert!(report.ok, "{}", report.problems());
    let secrets = report.secrets.as_ref().unwrap();
    assert!(secrets.privileges[0].starts_with("1Password vault \"cache\": read"));
    assert!(report.text().contains(&secrets.privileges[0]));

    std::fs::write(
        &path,
        "[secrets.a]\nreference = \"op://v\"\nconsumers = []\n",
    )
    .unwrap();
    let report = check_in(&folder, 0, &more).unwrap();
    assert!(!report.ok && report.secrets.is_none());
    let lines: Vec<_> = report.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [Some(2), Some(3)]);
    let first = report.problems().lines().next().unwrap().to_owned();
    assert!(
        first.contains("secrets.toml:2: \"op://v\" is no reference"),
        "{first}"
    );

    std::fs::remove_file(&path).unwrap();
    assert!(
        !check_in(&folder, 0, &more).unwrap().ok,
        "a named file must be there"
    );
}
