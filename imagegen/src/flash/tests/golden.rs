//! What people see.

use clap::Parser;

use super::super::facts::{Facts, Found, Holds};
use super::super::image::Image;
use super::super::meter::Meter;
use super::super::plan::{HostWords, Plan};
use super::super::usage::Use;
use super::compose::Bench;

#[derive(Debug, Parser)]
#[command(name = "imagegen flash", term_width = 100)]
struct Cli {
    #[command(flatten)]
    _args: super::FlashArgs,
}

#[test]
fn help() {
    use clap::CommandFactory;
    insta::assert_snapshot!(Cli::command().render_long_help().to_string());
    for (arguments, want) in [
        ("--host one", "--disk <PATH>"),
        ("--host one --disk x --size 5X", "5X"),
        ("--host one --disk x --sector-size 520", "512 and 4096"),
    ] {
        let words = std::iter::once("flash").chain(arguments.split(' '));
        let error = Cli::try_parse_from(words).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

/// A used disk.
fn used() -> Facts {
    let found = |number, start, size, label: &str, holds: &str, uses: &[&str]| Found {
        number,
        start,
        size,
        label: label.into(),
        holds: holds.into(),
        uses: uses.iter().map(|&its| its.into()).collect(),
    };
    Facts {
        path: "/dev/disk/by-id/ata-Samsung_SSD_870_S5Y1".into(),
        name: "sdb".into(),
        model: Some("Samsung SSD 870".into()),
        serial: Some("S5Y1".into()),
        size: 500_107_862_016,
        sector_size: 512,
        read_only: false,
        new: false,
        holds: Holds::Other("holds a partition table with 1 \"EFI\", 2 \"data\"".into()),
        partitions: vec![
            found(1, 1 << 20, 512 << 20, "EFI", "a FAT file system", &[]),
            found(
                2,
                513 << 20,
                465 << 30,
                "data",
                "an ext4 labelled \"srv\", UUID 00000000-0000-0000-0000-000000000001",
                &["mounted on /srv"],
            ),
        ],
        uses: vec![Use {
            device: "sdb2".into(),
            partition: Some(2),
            how: "mounted on /srv".into(),
            root: false,
        }],
    }
}

fn plan(facts: Facts, host: &str, cas: Option<&str>) -> Plan {
    let bench = Bench::new("1.2.3");
    let mut image = Image::open(&bench.path("larder.raw"), &Meter::silent()).unwrap();
    image.path = "build/larder.raw".into();
    image.manifest = cas.map(|_| "build/larder.manifest.json".into());
    let host = HostWords {
        name: host.into(),
        environment: config::Environment::Production,
        region: "eu-central".into(),
        cas: cas.map(Into::into),
    };
    Plan::new(facts, &image, host, false, false, "seed")
}

#[test]
fn the_plan_for_a_disk_that_is_used() {
    let plan = plan(used(), "cache-eu-central", Some("/dev/sdb"));
    insta::assert_snapshot!(plan);
    insta::assert_json_snapshot!(plan);
}

#[test]
fn the_plan_for_an_empty_disk_of_large_sectors() {
    let facts = Facts {
        path: "/dev/nvme0n1".into(),
        name: "nvme0n1".into(),
        model: None,
        serial: None,
        size: 16 << 30,
        sector_size: 4096,
        holds: Holds::Nothing,
        partitions: vec![],
        uses: vec![],
        ..used()
    };
    insta::assert_snapshot!(plan(facts, "dev", None));
}
