use std::path::Path;
use std::process::Command;

use super::*;
use crate::elf::PT_LOAD;
use crate::tree::Node;

/// The smallest shared library that ldconfig takes.
fn library(soname: Option<&str>) -> Vec<u8> {
    let strings = format!("\0{}\0", soname.unwrap_or_default());
    let dynamic_at = 64 + 2 * 56;
    let mut dynamic: Vec<(u64, u64)> = Vec::new();
    if soname.is_some() {
        dynamic.push((DT_SONAME, 1));
    }
    let strings_at = dynamic_at + 16 * (dynamic.len() as u64 + 3);
    dynamic.extend([(DT_STRTAB, strings_at), (10, strings.len() as u64), (0, 0)]);
    let size = strings_at + strings.len() as u64;
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [ET_DYN, EM_X86_64] {
        out.extend(half.to_le_bytes());
    }
    out.extend(1u32.to_le_bytes());
    for word in [0u64, 64, 0] {
        out.extend(word.to_le_bytes());
    }
    out.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 2, 64, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    for (kind, at, len) in [
        (PT_LOAD, 0, size),
        (PT_DYNAMIC, dynamic_at, 16 * dynamic.len() as u64),
    ] {
        out.extend(kind.to_le_bytes());
        out.extend(6u32.to_le_bytes());
        for word in [at, at, at, len, len, 4096] {
            out.extend(word.to_le_bytes());
        }
    }
    for (tag, value) in dynamic {
        out.extend(tag.to_le_bytes());
        out.extend(value.to_le_bytes());
    }
    out.extend(strings.as_bytes());
    out
}

/// A tree with everything that ldconfig looks at in a special way.
fn tree() -> Tree {
    let mut tree = Tree::new();
    let mut put = |path: &str, kind| {
        tree.insert(path, Node::new(kind, 0o755, "test")).unwrap();
    };
    let so = |name| Kind::File(library(Some(name)).into());
    let link = |to: &str| Kind::Symlink(to.into());
    for dir in [
        "/",
        "/etc",
        "/usr",
        "/usr/lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu/libdir.so.1",
        "/usr/local",
        "/usr/local/lib",
    ] {
        put(dir, Kind::Dir);
    }
    put("/lib", link("usr/lib"));
    let conf = "/usr/local/lib\n/lib/x86_64-linux-gnu\n/usr/lib/x86_64-linux-gnu\n";
    put("/etc/ld.so.conf", Kind::File(conf.into()));
    for (file, kind) in [
        // An ordinary library, with the link of its development package.
        ("libz.so.1.3.1", so("libz.so.1")),
        ("libz.so.1", link("libz.so.1.3.1")),
        ("libz.so", link("libz.so.1.3.1")),
        // Its own name, and a link for the linker.
        ("libown.so.2", so("libown.so.2")),
        ("libown.so", link("libown.so.2")),
        // Numbers compare as numbers.
        ("libn.so.9", so("libn.so.9")),
        ("libn.so.10", so("libn.so.10")),
        ("libn-2.so.1", so("libn-2.so.1")),
        ("libn_x.so.1", so("libn_x.so.1")),
        // Two files of one name: the newer wins.
        ("libtwo.so.1.2", so("libtwo.so.1")),
        ("libtwo.so.1.10", so("libtwo.so.1")),
        ("libtwo.so.1", link("libtwo.so.1.10")),
        // Without a soname.
        ("libplain.so", Kind::File(library(None).into())),
        ("ld-linux-x86-64.so.2", so("ld-linux-x86-64.so.2")),
        // What is no library.
        ("libtext.so", Kind::File("INPUT(libz.so.1)".into())),
        ("libz.so.1-gdb.py", so("libz.so.1")),
        ("other.so.1", so("other.so.1")),
        ("libgone.so.1", link("nowhere.so.1")),
    ] {
        put(&format!("/usr/lib/x86_64-linux-gnu/{file}"), kind);
    }
    put("/usr/local/lib/libz.so.1", so("libz.so.1"));
    put("/usr/lib/libold.so.3", so("libold.so.3"));
    tree
}

fn lay_out(tree: &Tree, root: &Path) {
    for (path, node) in tree.iter().filter(|(path, _)| *path != "/") {
        let at = root.join(&path[1..]);
        match &node.kind {
            Kind::Dir => std::fs::create_dir(at).unwrap(),
            Kind::File(data) => std::fs::write(at, data).unwrap(),
            Kind::Symlink(to) => std::os::unix::fs::symlink(to, at).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn ldconfig_agrees() {
    let tree = tree();
    let ours = parse(&from_tree(&tree, &DEBIAN_AMD64).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    lay_out(&tree, dir.path());
    // ldconfig decides otherwise about links to links where it cannot change its root.
    let output = Command::new("unshare")
        .args(["--map-root-user", "/sbin/ldconfig", "-r"])
        .arg(dir.path())
        .output()
        .expect("unshare of util-linux and ldconfig of libc-bin");
    assert!(output.status.success(), "{output:?}");
    let theirs = std::fs::read(dir.path().join("etc/ld.so.cache")).unwrap();
    assert_eq!(ours, parse(&theirs).unwrap());
    assert_eq!(ours.len(), 13, "{ours:#?}");
}

#[test]
fn ldconfig_prints_what_we_write() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    std::fs::write(&cache, from_tree(&tree(), &DEBIAN_AMD64).unwrap()).unwrap();
    let output = Command::new("/sbin/ldconfig")
        .arg("-p")
        .arg("-C")
        .arg(&cache)
        .output()
        .expect("ldconfig of libc-bin");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("13 libs found in cache"), "{text}");
    let line = "\tlibz.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libz.so.1\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn hard_links_are_followed() {
    let mut tree = tree();
    let to = "/usr/lib/x86_64-linux-gnu/libown.so.2".to_string();
    let path = "/usr/lib/x86_64-linux-gnu/libhard.so.1";
    tree.insert(path, Node::new(Kind::Hardlink(to), 0o644, "test"))
        .unwrap();
    let found = libraries(&tree, &DEBIAN_AMD64);
    assert_eq!(
        found.iter().filter(|l| l.name == "libown.so.2").count(),
        1,
        "{found:?}"
    );
}

#[test]
fn damage_is_named() {
    let good = from_tree(&tree(), &DEBIAN_AMD64).unwrap();
    assert_eq!(parse(b"ld.so-1.7.0"), Err(LdCacheError::NotCache));
    for (at, value, what) in [
        (20, 0xffff_ffffu32, "more entries"),
        (28, 3, "little-endian"),
        (HEADER + 4, 0xffff_fff0, "a string"),
        (HEADER + 8, 3, "a string"),
    ] {
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let error = parse(&bad).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    assert!(parse(&good[..30]).is_err());
}

#[test]
fn an_empty_tree_has_an_empty_cache() {
    let cache = from_tree(&Tree::new(), &DEBIAN_AMD64).unwrap();
    assert_eq!(cache.len(), HEADER);
    assert_eq!(parse(&cache), Ok(Vec::new()));
}

#[test]
fn fuzz_for_a_second() {
    let seeds = [
        from_tree(&tree(), &DEBIAN_AMD64).unwrap(),
        library(Some("libz.so.1")),
    ];
    crate::fuzzing::mutate_for(std::time::Duration::from_millis(500), &seeds, fuzz);
}
