//! Against binutils, with a small stub made here (the real one meets our writer in the image tests).

use std::path::Path;
use std::process::Command;

use super::*;

/// A PE32+ image with room for `room` section headers; 512/4096 alignments as in systemd's stub.
fn image(sections: &[(&str, &[u8], u32)], room: usize, dll: u16) -> Vec<u8> {
    let headers = (0x40 + 24 + 240 + (sections.len() + room) * 40).next_multiple_of(512);
    let mut out = vec![0; headers];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x40u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x44, &0x8664u16.to_le_bytes());
    put(0x46, &(sections.len() as u16).to_le_bytes());
    put(0x48, &1_700_000_000u32.to_le_bytes());
    put(0x54, &240u16.to_le_bytes());
    put(0x56, &0x22eu16.to_le_bytes());
    let optional = 0x58;
    put(optional, &0x20bu16.to_le_bytes());
    put(optional + 16, &0x1000u32.to_le_bytes());
    put(optional + 24, &0x1_4df9_0000u64.to_le_bytes());
    put(optional + 32, &4096u32.to_le_bytes());
    put(optional + 36, &512u32.to_le_bytes());
    put(optional + 60, &(headers as u32).to_le_bytes());
    put(optional + 68, &10u16.to_le_bytes());
    put(optional + 70, &dll.to_le_bytes());
    put(optional + 108, &16u32.to_le_bytes());
    let mut address = 4096u32;
    let mut offset = headers;
    for (index, (name, data, flags)) in sections.iter().enumerate() {
        let at = 0x40 + 24 + 240 + index * 40;
        put(at, name.as_bytes());
        put(at + 8, &(data.len() as u32).to_le_bytes());
        put(at + 12, &address.to_le_bytes());
        put(
            at + 16,
            &(data.len().next_multiple_of(512) as u32).to_le_bytes(),
        );
        put(at + 20, &(offset as u32).to_le_bytes());
        put(at + 36, &flags.to_le_bytes());
        address += (data.len() as u32).next_multiple_of(4096);
        offset += data.len().next_multiple_of(512);
    }
    put(optional + 56, &address.to_le_bytes());
    for (_, data, _) in sections {
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out
}

const SBAT: &str = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md
systemd-stub,1,The systemd Developers,systemd,257,https://systemd.io/
";

fn stub() -> Vec<u8> {
    image(
        &[
            (".text", &[0x90; 700], 0x6000_0020),
            (".data", &[1; 20], 0xc000_0040),
            (".sbat", SBAT.as_bytes(), DATA),
            (".reloc", &[0; 12], 0x4200_0040),
        ],
        20,
        0x160,
    )
}

fn kernel(dll: u16) -> Vec<u8> {
    image(&[(".text", &[0xcc; 5000], 0x6000_0020)], 0, dll)
}

fn uki<'a>(stub: &'a [u8], linux: &'a [u8]) -> Uki<'a> {
    Uki {
        stub,
        linux,
        osrel: b"ID=larder\nIMAGE_VERSION=1\n",
        cmdline: "roothash=00 quiet",
        initrd: &[0x55; 3333],
        uname: "6.18.15+deb13-cloud-amd64",
        sbat: None,
        pcrpkey: None,
        pcrsig: None,
    }
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?} (make test installs it): {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn write(dir: &Path, name: &str, data: &[u8]) -> std::path::PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, data).unwrap();
    path
}

#[test]
fn objdump_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let (stub, linux) = (stub(), kernel(NX_COMPAT));
    let image = Uki {
        pcrpkey: Some(b"-----BEGIN PUBLIC KEY-----"),
        pcrsig: Some(b"{}"),
        ..uki(&stub, &linux)
    }
    .assemble()
    .unwrap();
    let path = write(dir.path(), "uki.efi", &image);
    let listing = run(Command::new("objdump")
        .arg("-h")
        .arg(&path)
        .env("LC_ALL", "C"));
    let listing: Vec<&str> = listing.lines().skip(3).collect();
    insta::assert_snapshot!(listing.join("\n"));
    let headers = run(Command::new("objdump")
        .arg("-p")
        .arg(&path)
        .env("LC_ALL", "C"));
    let interesting = ["SizeOf", "CheckSum", "DllChar", "NX_COMPAT"];
    let lines = headers
        .lines()
        .filter(|line| interesting.iter().any(|word| line.contains(word)));
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
    // What objcopy takes out is what went in.
    for (section, data) in [(".linux", &linux[..]), (".initrd", &[0x55; 3333])] {
        let out = dir.path().join("out");
        run(Command::new("objcopy")
            .args(["-O", "binary", "--only-section", section])
            .arg(&path)
            .arg(&out));
        let got = std::fs::read(&out).unwrap();
        assert_eq!(&got[..data.len()], data, "{section}");
    }
}

/// The same sections, put into the same stub by objcopy, lie in memory at the same place with the
/// same content and flags.
#[test]
fn objcopy_makes_the_same_sections() {
    let dir = tempfile::tempdir().unwrap();
    let (stub, mut linux) = (stub(), kernel(NX_COMPAT));
    // objcopy cannot reserve memory behind a section's data: let there be nothing to reserve.
    linux[0x58 + 56..0x58 + 60].copy_from_slice(&4096u32.to_le_bytes());
    let ours = uki(&stub, &linux).assemble().unwrap();
    let ours = Pe::parse(&ours, "ours").unwrap();
    let stub_path = write(dir.path(), "stub.efi", &stub);
    let path = dir.path().join("uki.efi");
    let mut objcopy = Command::new("objcopy");
    for section in &ours.sections()[4..] {
        let file = write(dir.path(), section.name, section.content());
        let address = 0x1_4df9_0000u64 + u64::from(section.virtual_address);
        objcopy
            .arg(format!("--add-section={}={}", section.name, file.display()))
            .arg(format!(
                "--set-section-flags={}=data,readonly",
                section.name
            ))
            .arg(format!(
                "--change-section-vma={}={address:#x}",
                section.name
            ));
    }
    run(objcopy.arg(&stub_path).arg(&path));
    let theirs = std::fs::read(&path).unwrap();
    let theirs = Pe::parse(&theirs, "theirs").unwrap();
    let essence = |pe: &Pe<'_>| -> Vec<(String, u32, Vec<u8>)> {
        let appended = pe.sections().iter().skip(4);
        appended
            .map(|s| (s.name.to_string(), s.virtual_address, s.content().to_vec()))
            .collect()
    };
    assert_eq!(essence(&ours), essence(&theirs));
    assert_eq!(ours.size_of_image(), theirs.size_of_image());
}

#[test]
fn sbat_of_stub_kernel_and_ours_are_one() {
    let entry = "linux.debian,1,Debian,linux,6.18,https://tracker.debian.org/pkg/linux\n";
    // So long that the merged text no longer fits where the stub has its own.
    let long = format!("sbat,1,SBAT Version\n{}", entry.repeat(9));
    let stub = stub();
    for (kernel_sbat, entries) in [(format!("sbat,1,x\n{entry}"), 1), (long, 9)] {
        let linux = image(
            &[
                (".text", &[0xcc; 5000], 0),
                (".sbat", kernel_sbat.as_bytes(), DATA),
            ],
            0,
            0,
        );
        let uki = uki(&stub, &linux);
        let image = uki.assemble().unwrap();
        let pe = Pe::parse(&image, "ours").unwrap();
        let names: Vec<&str> = pe.sections().iter().map(|s| s.name).collect();
        assert_eq!(
            names,
            [
                ".text", ".data", ".sbat", ".reloc", ".osrel", ".cmdline", ".uname", ".initrd",
                ".linux"
            ]
        );
        let sbat = pe.sbat().unwrap();
        assert_eq!(sbat.len(), 1 + entries + 1);
        assert!(sbat[0].starts_with("systemd-stub,1") && sbat[1 + entries].starts_with("uki,1"));
        // It is measured as it lies in memory.
        let measured = uki.measured().unwrap();
        let section = pe.section(".sbat").unwrap();
        assert_eq!(section.content(), &*measured.last().unwrap().data);
        assert_eq!(
            section.virtual_address,
            Pe::parse(&stub, "")
                .unwrap()
                .section(".sbat")
                .unwrap()
                .virtual_address
        );
    }
}

#[test]
fn nx_is_only_promised_when_the_kernel_keeps_it() {
    let stub = stub();
    for (dll, expected) in [(NX_COMPAT, 0x160), (0, 0x60)] {
        let linux = kernel(dll);
        let image = uki(&stub, &linux).assemble().unwrap();
        let pe = Pe::parse(&image, "ours").unwrap();
        assert_eq!(pe.dll_characteristics(), expected);
        assert_eq!(pe.time_stamp(), 0);
    }
}

#[test]
fn kernel_memory_is_reserved() {
    let stub = stub();
    let mut linux = kernel(0);
    linux[0x58 + 56..0x58 + 60].copy_from_slice(&1_000_000u32.to_le_bytes());
    let uki = uki(&stub, &linux);
    let image = uki.assemble().unwrap();
    let pe = Pe::parse(&image, "ours").unwrap();
    let section = pe.section(".linux").unwrap();
    assert_eq!(
        (section.virtual_size, section.content()),
        (1_000_000, &linux[..])
    );
    assert_eq!(pe.size_of_image(), section.virtual_address + 1_003_520);
    let measured = uki.measured().unwrap();
    let measured = measured.iter().find(|m| m.name == ".linux").unwrap();
    assert_eq!(measured.zeros, 1_000_000 - linux.len() as u64);
}

#[test]
fn errors_say_what_and_where() {
    let (stub, linux) = (stub(), kernel(0));
    let good = uki(&stub, &linux);
    let mut said = Vec::new();
    let mut say = |uki: Uki<'_>| {
        said.push(
            uki.assemble()
                .map(|image| image.len())
                .unwrap_err()
                .to_string(),
        )
    };
    say(Uki {
        stub: b"#!/bin/sh",
        ..good
    });
    say(Uki {
        linux: &linux[..0x60],
        ..good
    });
    say(Uki {
        linux: &linux[..0x400],
        ..good
    });
    say(Uki {
        cmdline: "a\nb",
        ..good
    });
    say(Uki {
        initrd: b"",
        ..good
    });
    say(Uki { uname: "", ..good });
    let crowded = image(&[(".text", &[0u8; 10][..], 0); 15], 1, 0);
    say(Uki {
        stub: &crowded,
        ..good
    });
    let twice = image(&[(".text", &[0; 10], 0), (".osrel", &[0; 10], 0)], 9, 0);
    say(Uki {
        stub: &twice,
        ..good
    });
    let mut signed = stub.clone();
    signed[0x58 + 112 + 36..0x58 + 112 + 40].copy_from_slice(&8u32.to_le_bytes());
    say(Uki {
        stub: &signed,
        ..good
    });
    let sbat = image(&[(".text", &[0; 10], 0), (".sbat", b"hello", 0)], 9, 0);
    say(Uki {
        stub: &sbat,
        ..good
    });
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn fuzz_for_a_second() {
    let seeds = [stub(), kernel(0)];
    crate::fuzzing::mutate_for(std::time::Duration::from_secs(1), &seeds, fuzz);
}
