use formats::gpt::{Disks, Layout, Role, SectorSize};
use imagegen::image::Image;
use imagegen::inspect::Report;

use crate::compose::{Composed, Spec, compose, compose_on, without_folder};

fn report(image: &Composed, with_manifest: bool) -> Report {
    let opened = Image::open(&image.path).unwrap();
    let mut report = Report::of(&opened, with_manifest.then_some(&image.manifest));
    report.source = without_folder(&report.source, image.folder.path());
    // How many blocks a file takes depends on the file system that it is in.
    report.data = 170 << 20;
    report
}

fn fits(text: &str) {
    let long = text.lines().find(|line| line.chars().count() > 100);
    assert_eq!(long, None, "{text}");
}

#[test]
fn with_and_without_the_manifest() {
    let image = compose(&Spec::default());
    let with = report(&image, true);
    assert_eq!(with.problems, [""; 0]);
    insta::assert_snapshot!(with.text(false));
    fits(&with.text(true));
    let without = report(&image, false);
    insta::assert_snapshot!(without.text(false));
    fits(&without.text(true));
}

#[test]
fn json_has_everything() {
    let image = compose(&Spec::default());
    let json = serde_json::to_value(report(&image, true)).unwrap();
    insta::assert_json_snapshot!(json);
}

#[test]
fn a_damaged_image_is_shown_as_far_as_it_can_be_read() {
    let image = compose(&Spec::default());
    image.flip(image.start(Role::Esp) + 16_384 + 9);
    image.flip(512 + 60);
    let report = report(&image, true);
    assert_eq!(report.problems.len(), 2, "{:?}", report.problems);
    let text = report.text(false);
    assert!(text.contains("differ at cluster"), "{text}");
    assert!(text.contains("larder_1.2.3_verity"), "{text}");
}

#[test]
fn a_disk_for_cas_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("larder-cas.raw");
    let layout = Layout::cas_disk(66 << 20, SectorSize::S512, "larder", 64 << 20).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(layout.disk_size).unwrap();
    layout.write(&file).unwrap();
    let report = Report::of(&Image::open(&path).unwrap(), None);
    assert_eq!(report.problems, [""; 0]);
    assert_eq!(report.partitions[0].holds, "empty");
}

#[test]
fn a_disk_without_cas_and_with_large_sectors() {
    let image = compose_on(&Spec::default(), Disks::Two, SectorSize::S4096, "larder", 0);
    let report = report(&image, true);
    assert_eq!(report.problems, [""; 0]);
    assert_eq!((report.sector, report.partitions.len()), (4096, 7));
}
