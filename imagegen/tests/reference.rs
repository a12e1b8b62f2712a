//! Images against the reference tools of their formats: a composed one always, and the built one
//! (`LARDER_IMAGE`, else `build/larder.raw`) where there is one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compose;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use compose::{Spec, compose, compose_on};
use formats::gpt::{Disks, Role, SectorSize};
use formats::pcr;
use formats::pe::{Measured, Pe};
use imagegen::image::Image;
use imagegen::manifest::Manifest;

/// Runs a reference tool that must be content; gives back what it printed.
fn ok(program: &str, args: &[&str]) -> String {
    let found = ["/usr/sbin", "/usr/bin", "/usr/lib/systemd"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{program} is not installed; `make test` would install it"));
    let output = Command::new(found)
        .args(args)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{text}",
        output.status
    );
    text
}

/// Copies a partition to a file of its own, sparse.
fn part(image: &Image, role: Role, folder: &Path) -> String {
    let entry = image.part(role).unwrap();
    let to = folder.join(role.name());
    let out = File::create(&to).unwrap();
    out.set_len(entry.size).unwrap();
    vm::for_each_extent(&File::open(image.path()).unwrap(), |start, end| {
        let (start, end) = (start.max(entry.start), end.min(entry.end()));
        let mut at = start;
        while at < end {
            let mut buffer = vec![0; (end - at).min(1 << 20) as usize];
            formats::region::ReadAt::read_exact_at(&**image.device(), &mut buffer, at)?;
            if !formats::region::is_zero(&buffer) {
                formats::region::WriteAt::write_all_at(&out, &buffer, at - entry.start)?;
            }
            at += buffer.len() as u64;
        }
        Ok(())
    })
    .unwrap();
    to.to_str().unwrap().to_string()
}

fn every_tool_is_content(path: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let image = Image::open(path).unwrap();
    let at = path.to_str().unwrap();
    if image.table().sector == SectorSize::S512 {
        // sgdisk takes the sectors of a file to have 512 bytes.
        let text = ok("sgdisk", &["-v", at]);
        assert!(text.contains("No problems found"), "{text}");
    }
    let esp = part(&image, Role::Esp, folder.path());
    ok("fsck.fat", &["-n", &esp]);
    let root = part(&image, Role::RootA, folder.path());
    ok("e2fsck", &["-fn", &root]);
    for role in [Role::State, Role::Cas] {
        if image.part(role).is_some() {
            ok("e2fsck", &["-fn", &part(&image, role, folder.path())]);
        }
    }
    let ukis = image.esp().unwrap().ukis().unwrap();
    let uki = &ukis[0];
    let hash = uki.root_hash().unwrap().to_string();
    let tree = part(&image, Role::RootAVerity, folder.path());
    ok("veritysetup", &["verify", &root, &tree, &hash]);

    let file = folder.path().join("uki.efi");
    let content = image.esp().unwrap().file(&uki.path).unwrap().clone();
    std::fs::write(&file, content).unwrap();
    let file = file.to_str().unwrap();
    let listing = ok("objdump", &["-h", file]);
    for section in &uki.sections {
        let line = listing
            .lines()
            .find(|line| line.split_whitespace().nth(1) == Some(&section.name));
        let line = line.unwrap_or_else(|| panic!("{} is not in {listing}", section.name));
        let offset = line.split_whitespace().nth(5).unwrap();
        assert_eq!(u64::from_str_radix(offset, 16).unwrap(), section.offset);
    }
    pcr_is_what_systemd_measure_says(uki, file, folder.path());
}

/// PCR 11 over the sections that this systemd-measure knows: all but old ones know all of them.
fn pcr_is_what_systemd_measure_says(uki: &imagegen::image::Uki, file: &str, folder: &Path) {
    let help = ok("systemd-measure", &["--help"]);
    let content = std::fs::read(file).unwrap();
    let pe = Pe::parse(&content, "the boot image").unwrap();
    let mut args: Vec<String> = ["calculate", "--bank=sha256", "--phase=", "--json=short"]
        .map(String::from)
        .into();
    let (mut known, mut all) = (Vec::new(), Vec::new());
    for name in pcr::ORDER {
        let Some(section) = pe.section(name) else {
            continue;
        };
        // What lies in memory, zeros behind the content included, which is what the stub measures.
        let mut bytes = section.content().to_vec();
        bytes.resize(section.virtual_size as usize, 0);
        let measured = Measured {
            name,
            data: bytes.into(),
            zeros: 0,
        };
        let option = format!("--{}=", &name[1..]);
        if help.contains(&option) {
            let path = folder.join(&name[1..]);
            std::fs::write(&path, &measured.data).unwrap();
            args.push(format!("{option}{}", path.display()));
            known.push(measured.clone());
        }
        all.push(measured);
    }
    assert!(known.len() >= 4, "{help}");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let text = ok("systemd-measure", &args);
    let ours = pcr::Value::of_sections(&known).to_string();
    assert!(text.contains(&ours), "{text} {ours}");
    let ours = pcr::Value::of_sections(&all).to_string();
    assert_eq!(uki.pcr11.to_string(), ours);
}

#[test]
fn a_composed_image() {
    every_tool_is_content(&compose(&Spec::default()).path);
}

#[test]
fn a_composed_image_without_cas_and_one_with_large_sectors() {
    let spec = Spec::default();
    for (disks, sector) in [
        (Disks::Two, SectorSize::S512),
        (Disks::One, SectorSize::S4096),
    ] {
        every_tool_is_content(&compose_on(&spec, disks, sector, "larder", 0).path);
    }
}

#[test]
#[ignore = "needs a built image; `make test` builds one and runs it"]
fn the_built_image() {
    let path = std::env::var_os("LARDER_IMAGE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../build/larder.raw"),
        PathBuf::from,
    );
    every_tool_is_content(&path);
    let manifest = Manifest::load(&Manifest::path_beside(&path)).unwrap();
    let image = Image::open(&path).unwrap();
    let checks = imagegen::verify::check(&image, Some(&manifest));
    assert_eq!(checks.failures(), 0, "{}", checks.text());
    let report = imagegen::inspect::Report::of(&image, Some(&manifest));
    assert_eq!(report.problems, [""; 0]);
    let unknown = report.origins.iter().find(|(origin, _)| origin.is_empty());
    assert_eq!(unknown, None, "every file has an origin");
    // With --all, long paths are longer.
    let long = report.text(false);
    let long = long.lines().find(|line| line.chars().count() > 100);
    assert_eq!(long, None);
}
