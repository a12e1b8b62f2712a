//! What is refused, and that nothing is written then.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::Outcome;
use super::super::confirm::{Answer, confirm};
use super::super::facts::{Facts, Holds, Place};
use super::super::image::Image;
use super::super::meter::Meter;
use super::super::plan::{HostWords, Plan};
use super::super::usage::{Kernel, Use};
use super::compose::{Bench, error, flash, refused};

/// A file of `size` bytes with `bytes` at `offset`.
fn file(path: &Path, size: u64, offset: u64, bytes: &[u8]) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

#[test]
fn paths_that_are_no_disk() {
    let bench = Bench::new("1");
    let with = |disk: &str| {
        let mut args = bench.args("one", "x");
        args.disk = disk.into();
        error(&args)
    };
    let folder = bench.path("");
    assert!(with(folder.to_str().unwrap()).contains("is a folder"));
    assert!(with("/dev/null").contains("is a character device"));
    assert!(with("/dev/no-such-disk").contains("lsblk"));
    assert!(with(bench.path("none").to_str().unwrap()).contains("--size"));
    let image = bench.path("larder.raw");
    assert!(with(image.to_str().unwrap()).contains("is the image itself"));
    let mut args = bench.args("one", "larder.raw");
    args.size = Some(1 << 30);
    assert!(error(&args).contains("exists"), "{}", error(&args));
    let mut args = bench.args("one", "no/folder");
    args.size = Some(3 << 30);
    assert!(error(&args).contains("cannot make"), "{}", error(&args));
    // More than a file can have.
    let mut args = bench.args("one", "huge");
    args.size = Some(1 << 62);
    let words = error(&args);
    assert!(
        words.contains("cannot make") && !args.disk.exists(),
        "{words}"
    );
}

#[test]
fn hosts_and_images_that_are_none() {
    let bench = Bench::new("1");
    let mut args = bench.args("three", "disk");
    args.size = Some(3 << 30);
    let words = error(&args);
    assert!(
        words.contains("no host `three`; it has one, two"),
        "{words}"
    );
    args.host = "one".into();
    args.configs = bench.path("none");
    assert!(error(&args).contains("--configs"), "{}", error(&args));
    args.configs = bench.path("configs");

    let mut with = |path: &Path| {
        args.image = path.to_owned();
        let words = error(&args);
        assert!(!args.disk.exists());
        words
    };
    assert!(with(&bench.path("configs")).contains("is a folder"));
    assert!(with(&bench.path("none.raw")).contains("build one with"));
    let other = bench.path("other.raw");
    file(&other, 1 << 20, 0, b"rubbish");
    assert!(with(&other).contains("is no disk image"));
    std::fs::write(&other, "").unwrap();
    assert!(with(&other).contains("is no disk image"));

    // Cut off at every partition's start, and a sector before the end.
    let whole = bench.path("larder.raw");
    let table = formats::gpt::read(&File::open(&whole).unwrap(), None).unwrap();
    let ends = table.partitions().iter().map(|entry| entry.start);
    let size = std::fs::metadata(&whole).unwrap().len();
    for end in ends.chain([size - 512]) {
        std::fs::remove_file(&other).unwrap();
        vm::sparse_copy(&whole, &other).unwrap();
        let cut = File::options().write(true).open(&other).unwrap();
        cut.set_len(end).unwrap();
        let words = with(&other);
        assert!(words.contains("truncated"), "{end}: {words}");
    }
}

#[test]
fn an_image_with_a_flipped_byte_or_a_past() {
    let bench = Bench::new("1");
    let whole = bench.path("larder.raw");
    let table = formats::gpt::read(&File::open(&whole).unwrap(), None).unwrap();
    let start = |label: &str| table.by_label(label).unwrap().start;
    let mut args = bench.args("one", "disk");
    args.size = Some(3 << 30);
    args.image = bench.path("harmed.raw");
    for (offset, bytes, want) in [
        (
            start("larder_1") + 8192,
            &[0x5A; 64][..],
            "the root is damaged",
        ),
        (
            start("larder_1_verity") + 4096,
            &[0x5A; 64],
            "the root is damaged",
        ),
        (start("ESP") + 510, b"\0\0", "ESP"),
        (
            start("state") + 1024 + 0x78,
            b"larder-state\0\0\0",
            "has been used",
        ),
        (start("cas") + 1024 + 0x38, b"\0\0", "no file system"),
        (512 + 56, b"\0\0\0\0", "damaged"),
    ] {
        vm::sparse_copy(&whole, &args.image).unwrap();
        let harmed = File::options().write(true).open(&args.image).unwrap();
        harmed.write_all_at(bytes, offset).unwrap();
        let words = error(&args);
        assert!(words.contains(want), "{offset}: {words}");
        assert!(!args.disk.exists());
        std::fs::remove_file(&args.image).unwrap();
    }
}

#[test]
fn disks_that_are_too_small_or_hold_something() {
    let bench = Bench::new("1");
    let args = bench.args("one", "disk");
    let digest = || {
        let mut head = vec![0; 4 << 20];
        File::open(&args.disk)
            .unwrap()
            .read_exact_at(&mut head, 0)
            .unwrap();
        head
    };
    file(&args.disk, 1 << 30, 0, b"");
    let words = refused(&args);
    assert!(
        words.contains("is too small") && words.contains("nothing was written"),
        "{words}"
    );
    file(&args.disk, (3 << 30) + 100, 0, b"");
    assert!(refused(&args).contains("does not consist of sectors"));
    for (offset, bytes, want) in [
        (1080, &[0x53, 0xef][..], "an ext4"),
        (0, b"LUKS\xba\xbe", "a LUKS volume"),
        (510, b"\x55\xaa", "MBR"),
        (1 << 20, b"XFSB", "an XFS is at 1 MiB"),
        ((3 << 30) - 4096, b"x", "not blank"),
    ] {
        file(&args.disk, 3 << 30, offset, bytes);
        let before = digest();
        let words = refused(&args);
        assert!(words.contains(want) && words.contains("--wipe"), "{words}");
        assert!(before == digest(), "{want} was written over");
    }
    // With --wipe the last of them goes, without a question only with the right name.
    let wipe = super::FlashArgs {
        wipe: true,
        ..args.clone()
    };
    for yes in [None, Some("other".to_owned())] {
        let said = flash(&super::FlashArgs {
            yes,
            ..wipe.clone()
        })
        .unwrap();
        assert_eq!(said.outcome, Outcome::NotConfirmed);
        assert!(said.words.contains("nothing was written"), "{said:?}");
        assert!(refused(&args).contains("not blank"));
    }
    assert_eq!(flash(&wipe).unwrap().outcome, Outcome::Written);
}

#[test]
fn a_file_that_another_program_has_locked() {
    let bench = Bench::new("1");
    let args = bench.args("one", "disk");
    file(&args.disk, 3 << 30, 0, b"");
    // As QEMU does: locks of the open file description, so that this process conflicts with itself.
    let mut lock = std::process::Command::new("python3")
        .args(["-c", "import fcntl,sys\nf=open(sys.argv[1],'r+')\nfcntl.lockf(f,fcntl.LOCK_SH|fcntl.LOCK_NB,1,100)\nprint('locked',flush=True)\nsys.stdin.read()"])
        .arg(&args.disk)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = lock.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    assert_eq!(line, "locked\n");
    let words = refused(&args);
    drop(lock.stdin.take());
    lock.wait().unwrap();
    assert!(words.contains("another program"), "{words}");
    assert_eq!(flash(&args).unwrap().outcome, Outcome::Written);
}

/// A disk as sysfs would tell it.
fn facts() -> Facts {
    Facts {
        path: "/dev/sdb".into(),
        name: "sdb".into(),
        model: Some("Samsung SSD 870".into()),
        serial: Some("S5Y1".into()),
        size: 500_107_862_016,
        sector_size: 512,
        read_only: false,
        new: false,
        holds: Holds::Nothing,
        partitions: vec![],
        uses: vec![],
    }
}

#[test]
fn disks_in_use_and_the_disk_of_the_host() {
    let bench = Bench::new("1");
    let image = Image::open(&bench.path("larder.raw"), &Meter::silent()).unwrap();
    let codes = |facts: Facts, cas_is_disk| {
        let host = HostWords {
            name: "one".into(),
            environment: config::Environment::Production,
            region: "eu".into(),
            cas: None,
        };
        let plan = Plan::new(facts, &image, host, cas_is_disk, true, "seed");
        let refusals = plan.refusals().iter();
        let words: Vec<_> = refusals
            .map(|it| format!("{}: {}", it.code, it.message))
            .collect();
        words.join("\n")
    };
    let used = |how: &str, root| Use {
        device: "sdb2".into(),
        partition: Some(2),
        how: how.into(),
        root,
    };
    assert_eq!(codes(facts(), false), "");
    let busy = Facts {
        uses: vec![
            used("mounted on /srv", false),
            used("in use as swap", false),
        ],
        ..facts()
    };
    assert_eq!(
        codes(busy, false),
        "busy: /dev/sdb is busy: sdb2 is mounted on /srv; end that first\n\
         busy: /dev/sdb is busy: sdb2 is in use as swap; end that first"
    );
    let root = Facts {
        uses: vec![used("mounted on /", true)],
        ..facts()
    };
    assert_eq!(
        codes(root, false),
        "host-disk: this machine runs from /dev/sdb"
    );
    let read_only = Facts {
        read_only: true,
        ..facts()
    };
    assert_eq!(
        codes(read_only, false),
        "read-only: /dev/sdb is write-protected"
    );
    let odd = Facts {
        sector_size: 2048,
        ..facts()
    };
    assert!(codes(odd, false).starts_with("sector-size: "));
    assert!(codes(facts(), true).starts_with("cas-disk: "));
    let empty = Facts { size: 0, ..facts() };
    assert!(codes(empty, false).starts_with("too-small: "));
}

#[test]
fn the_question_is_about_the_serial_number() {
    let ask = |facts: &Facts, typed: &str| {
        let mut input = typed.as_bytes();
        confirm(facts, Answer::Ask(&mut input)).unwrap()
    };
    assert!(ask(&facts(), "S5Y1\n").is_ok());
    for wrong in ["", "\n", "yes\n", "sdb\n", "s5y1\n"] {
        assert!(ask(&facts(), wrong).is_err(), "{wrong:?}");
    }
    let nameless = Facts {
        serial: None,
        ..facts()
    };
    assert!(ask(&nameless, "sdb\n").is_ok());
    let nobody = confirm(&facts(), Answer::Nobody).unwrap().unwrap_err();
    assert!(nobody.contains("--yes S5Y1"), "{nobody}");
    let given = confirm(&facts(), Answer::Given("S5Y2"))
        .unwrap()
        .unwrap_err();
    assert!(given.contains("serial number is S5Y1"), "{given}");
}

#[test]
fn places_that_are_disks_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let find = |size| Place::find(&path, size, &Kernel::default()).unwrap();
    assert_eq!(find(Some(5)), Place::New(5));
    file(&path, 10, 0, b"");
    assert_eq!(find(None), Place::File);
}
