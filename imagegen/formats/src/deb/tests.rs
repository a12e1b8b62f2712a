//! Against packages made by dpkg-deb and by hand, and against damaged ones.

use std::path::Path;
use std::process::Command;

use super::*;

fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, data) in members {
        out.extend(
            format!(
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                0,
                0,
                0,
                100644,
                data.len()
            )
            .bytes(),
        );
        out.extend(*data);
        if data.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

fn header(path: &str, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    // `set_path` refuses what some tests want to see refused by us.
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header.set_cksum();
    header
}

fn plain_control() -> Vec<u8> {
    let text = b"Package: demo\nVersion: 1\nArchitecture: all\n";
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header("./", tar::EntryType::Directory, 0), &b""[..])
        .unwrap();
    tar.append(
        &header("./control", tar::EntryType::Regular, text.len() as u64),
        &text[..],
    )
    .unwrap();
    tar.into_inner().unwrap()
}

fn plain_deb(data: &[u8]) -> Vec<u8> {
    ar(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar", &plain_control()),
        ("data.tar", data),
    ])
}

fn one_entry(path: &str, kind: tar::EntryType, link: &str) -> Vec<u8> {
    let mut h = header(path, kind, 0);
    h.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    h.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&h, &b""[..]).unwrap();
    plain_deb(&tar.into_inner().unwrap())
}

fn unpack_all(deb: &[u8]) -> Result<Package, DebError> {
    unpack(deb, "package demo", &Options::default(), &|_| true)
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

fn write(path: &Path, data: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, data).unwrap();
}

/// What dpkg-deb packs, by xz, Zstandard and not at all, comes out as `tar` lists it.
#[test]
fn dpkg_deb_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let long = format!("usr/share/{}/{}", "n".repeat(120), "m".repeat(140));
    write(
        &root.join("DEBIAN/control"),
        "Package: demo\nVersion: 1.2-3\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n",
    );
    write(&root.join("DEBIAN/conffiles"), "/etc/demo.conf\n");
    write(&root.join("etc/demo.conf"), "a = 1\n");
    write(&root.join("usr/bin/demo"), vec![7u8; 70_001]);
    write(&root.join(&long), "deep");
    write(&root.join("usr/share/demo/Főtanúsítvány.crt"), "utf-8");
    std::os::unix::fs::symlink("../bin/demo", root.join("usr/share/link")).unwrap();
    std::fs::hard_link(root.join("usr/bin/demo"), root.join("usr/bin/demo2")).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(root.join("usr/bin/demo"), PermissionsExt::from_mode(0o4755)).unwrap();

    for compression in ["-Zxz", "-Zzstd", "-Znone"] {
        let path = dir.path().join("demo.deb");
        run(Command::new("dpkg-deb")
            .args(["--root-owner-group", compression, "-b"])
            .arg(&root)
            .arg(&path));
        let package = unpack_all(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(package.field("version"), Some("1.2-3"));
        assert_eq!(package.conffiles(), ["/etc/demo.conf"]);

        let listing = run(Command::new("sh").arg("-c").arg(
            r#"dpkg-deb --fsys-tarfile "$0" | tar --numeric-owner --utc --full-time --quoting-style=literal -tvf -"#,
        ).arg(&path));
        let ours: Vec<String> = package
            .files
            .iter()
            .map(|(path, node)| {
                let (letter, size, tail) = match &node.kind {
                    Kind::Dir => ('d', 0, String::new()),
                    Kind::File(data) => ('-', data.len(), String::new()),
                    Kind::Symlink(to) => ('l', 0, format!(" -> {to}")),
                    Kind::Hardlink(to) => ('h', 0, format!(" link to .{to}")),
                    other => panic!("{other:?}"),
                };
                format!("{letter} {}/{} {size} .{path}{tail}", node.uid, node.gid)
            })
            .collect();
        let theirs: Vec<String> = listing
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let mut name = words[5..].join(" ");
                if name.ends_with('/') && name != "./" {
                    name.pop();
                }
                format!("{} {} {} {name}", &line[..1], words[1], words[2])
            })
            .collect();
        assert_eq!(ours, theirs);
        let demo = &package
            .files
            .iter()
            .find(|(p, _)| p == "/usr/bin/demo")
            .unwrap()
            .1;
        assert_eq!((demo.mode, demo.content().unwrap().len()), (0o4755, 70_001));
        assert!(package.files.iter().any(|(p, _)| *p == format!("/{long}")));
    }
}

#[test]
fn refused_files_are_skipped_and_pax_records_kept() {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(
        &header("./a", tar::EntryType::Regular, 700),
        &[1u8; 700][..],
    )
    .unwrap();
    tar.append_pax_extensions([
        (
            "SCHILY.xattr.security.capability",
            &b"\x01\0\0\x02\0\n=\0"[..],
        ),
        ("mtime", &b"1234567890.5"[..]),
        ("uid", &b"3000000"[..]),
    ])
    .unwrap();
    tar.append(&header("./b", tar::EntryType::Regular, 3), &b"two"[..])
        .unwrap();
    let mut device = header("./dev", tar::EntryType::Char, 0);
    device.set_device_major(259).unwrap();
    device.set_device_minor(70_000).unwrap();
    device.set_cksum();
    tar.append(&device, &b""[..]).unwrap();
    let deb = plain_deb(&tar.into_inner().unwrap());
    let package = unpack(&deb, "package demo", &Options::default(), &|entry| {
        entry.path != "/a"
    })
    .unwrap();
    let names: Vec<&str> = package
        .files
        .iter()
        .map(|(path, _)| path.as_str())
        .collect();
    assert_eq!(names, ["/b", "/dev"]);
    let b = &package.files[0].1;
    assert_eq!(b.xattrs["security.capability"], b"\x01\0\0\x02\0\n=\0");
    assert_eq!(
        (b.mtime, b.uid, &b.origin[..]),
        (1_234_567_890, 3_000_000, "package demo")
    );
    assert_eq!(package.files[1].1.kind, Kind::CharDevice(259, 70_000));
}

#[test]
fn paths_that_leave_the_package_are_refused() {
    for path in ["/etc/passwd", "../x", "./a/../b", "./a//b", "a/./b", ""] {
        let deb = one_entry(path, tar::EntryType::Regular, "");
        let error = unpack_all(&deb).unwrap_err();
        assert!(
            matches!(error, DebError::Tar { offset: 0, .. }),
            "{path:?}: {error}"
        );
    }
    let error = unpack_all(&one_entry(
        "./a",
        tar::EntryType::Link,
        "./../../etc/shadow",
    ))
    .unwrap_err();
    assert!(error.to_string().contains("hard link"), "{error}");
    // A symbolic link may point anywhere: it is only data here.
    let package = unpack_all(&one_entry("./a", tar::EntryType::Symlink, "/etc/shadow")).unwrap();
    assert_eq!(package.files[0].1.kind, Kind::Symlink("/etc/shadow".into()));
}

#[test]
fn errors_say_what_and_where() {
    let mut said = Vec::new();
    let mut say = |name: &str, deb: &[u8]| {
        said.push(format!("{name}: {}", unpack_all(deb).expect_err(name)));
    };
    let good = one_entry("./a", tar::EntryType::Regular, "");
    say("text", b"<html>not found</html>");
    say("cut", &good[..good.len() - 700]);
    say("header cut", &good[..30]);
    say("version", &ar(&[("debian-binary", b"3.0\n")]));
    say(
        "no data",
        &ar(&[
            ("debian-binary", b"2.0\n"),
            ("control.tar", &plain_control()),
        ]),
    );
    say(
        "gzip",
        &ar(&[
            ("debian-binary", b"2.0\n"),
            ("control.tar.gz", b""),
            ("data.tar.gz", b""),
        ]),
    );
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header("./big", tar::EntryType::Regular, 10), &[0; 10][..])
        .unwrap();
    let mut lies = tar.into_inner().unwrap();
    let mut h = header("./big", tar::EntryType::Regular, 5000);
    lies[..512].copy_from_slice(h.as_mut_bytes());
    say("lying size", &plain_deb(&lies));
    let h = header("./big", tar::EntryType::Regular, 1 << 30);
    lies[..512].copy_from_slice(h.as_bytes());
    say("size over the limit", &plain_deb(&lies));
    let mut damaged = lies.clone();
    damaged[0] = b'x';
    say("checksum", &plain_deb(&damaged));
    say("no end", &plain_deb(&[]));
    say("sparse", &one_entry("./a", tar::EntryType::GNUSparse, ""));
    insta::assert_snapshot!(said.join("\n"));
}

/// Random damage: an error or a package, never a panic.
#[test]
fn fuzz_for_a_second() {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_pax_extensions([("SCHILY.xattr.user.a", &b"b"[..])])
        .unwrap();
    tar.append(
        &header("./a", tar::EntryType::Regular, 700),
        &[1u8; 700][..],
    )
    .unwrap();
    let data = tar.into_inner().unwrap();
    let xz = {
        use std::io::Write;
        let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
        out.write_all(&data).unwrap();
        out.finish().unwrap()
    };
    let seeds = [
        plain_deb(&data),
        ar(&[
            ("debian-binary", b"2.0\n"),
            ("control.tar", &plain_control()),
            ("data.tar.xz", &xz),
        ]),
    ];
    crate::fuzzing::mutate_for(std::time::Duration::from_secs(1), &seeds, |bytes| {
        super::fuzz(bytes);
        // Straight at the tar reader with a repaired checksum, or nothing gets past it.
        let mut tar = bytes.to_vec();
        for block in tar.chunks_exact_mut(512) {
            let mut h = tar::Header::from_byte_slice(block).clone();
            h.set_cksum();
            block.copy_from_slice(h.as_bytes());
        }
        super::fuzz(&plain_deb(&tar));
    });
}
