//! Against the real depmod, with modules that binutils' assembler makes.

use std::path::Path;
use std::process::Command;

use super::index::{Index, Node, write_values};
use super::*;

const VERSION: &str = "6.18.0-test";

/// A made-up module: `.modinfo` strings, exported and needed symbols.
struct Made {
    path: &'static str,
    modinfo: &'static [&'static str],
    exports: &'static [&'static str],
    needs: &'static [&'static str],
}

/// Modules with most of the shapes that real ones have; `pci*` aliases share long prefixes.
const MODULES: &[Made] = &[
    Made {
        path: "kernel/drivers/block/virtio_blk.ko.xz",
        modinfo: &[
            "alias=virtio:d00000002v*",
            "depends=virtio,virtio-ring",
            "name=virtio_blk",
        ],
        exports: &[],
        needs: &[
            "register_virtio_driver",
            "printk",
            "virtqueue_add",
            "virtqueue_kick",
        ],
    },
    Made {
        path: "kernel/drivers/virtio/virtio.ko.xz",
        modinfo: &["description=Virtio bus", "depends="],
        exports: &["register_virtio_driver", "unregister_virtio_driver"],
        needs: &["printk"],
    },
    Made {
        path: "kernel/drivers/virtio/virtio-ring.ko.zst",
        modinfo: &[
            "alias=ring-[a-z]-x",
            "softdep=pre: crypto-md5 post: fuse",
            "depends=virtio",
        ],
        exports: &["virtqueue_add", "virtqueue_kick", "virtqueue_a"],
        needs: &["unregister_virtio_driver"],
    },
    Made {
        path: "kernel/fs/fuse/fuse.ko",
        modinfo: &[
            "alias=devname:fuse",
            "alias=char-major-10-229",
            "alias=fs-fuse",
            "softdep=pre: virtio-ring",
            "weakdep=virtio_blk",
            "depends=",
        ],
        exports: &["fuse_dev"],
        needs: &["printk"],
    },
    Made {
        path: "kernel/drivers/net/e1000.ko.xz",
        modinfo: &[
            "alias=pci:v00008086d00001000sv*sd*bc*sc*i*",
            "alias=pci:v00008086d00001001sv*sd*bc*sc*i*",
            "alias=pci:v00008086d0000100*",
            "alias=pci:v00008086d00001000sv*sd*bc*sc*i*",
            "alias=unmatched]bracket",
            "depends=fuse",
        ],
        exports: &[],
        needs: &["fuse_dev"],
    },
    Made {
        path: "kernel/drivers/net/e1000e.ko.xz",
        modinfo: &[
            "alias=pci:v00008086d00001000sv*sd*bc*sc*i*",
            "depends=loop_a",
        ],
        exports: &[],
        needs: &["loop_a"],
    },
    Made {
        path: "updates/unlisted.ko.xz",
        modinfo: &[
            "depends=virtio_blk,gone",
            "alias=block-major-7-3",
            "alias=devname:loop-x",
        ],
        exports: &["unlisted"],
        needs: &["virtqueue_a", "fuse_dev", "unlisted"],
    },
];

/// Modules that need each other: depmod refuses them.
const LOOP: &[Made] = &[
    Made {
        path: "kernel/misc/loop-a.ko",
        modinfo: &["depends=loop_b"],
        exports: &["loop_a"],
        needs: &["loop_b"],
    },
    Made {
        path: "kernel/misc/loop-b.ko",
        modinfo: &["depends=loop_a"],
        exports: &["loop_b"],
        needs: &["loop_a"],
    },
];

const ORDER: &str = "kernel/fs/fuse/fuse.ko\nkernel/drivers/virtio/virtio-ring.ko\n\
    kernel/drivers/virtio/virtio.ko\nkernel/gone.ko\nkernel/drivers/block/virtio_blk.ko\n\
    kernel/drivers/net/e1000.ko\n\
    kernel/drivers/net/e1000e.ko\n";
const BUILTIN: &str = "kernel/fs/ext4/ext4.ko\nkernel/crypto/sha256-generic.ko\n\
    kernel/crypto/sha256-ssse3.ko\n";
const BUILTIN_MODINFO: &[u8] = b"ext4.alias=fs-ext4\0ext4.license=GPL\0ext4.alias=fs-ext3\0\
    sha256_generic.alias=crypto-sha256\0sha256_ssse3.alias=crypto-sha256\0broken\0";

/// Assembles a module; the tree's file is compressed as its name says.
fn assemble(dir: &Path, module: &Made) -> Vec<u8> {
    let mut source = ".section .modinfo,\"a\"\n".to_string();
    for line in module.modinfo {
        source += &format!(".asciz \"{line}\"\n");
    }
    source += ".section __ksymtab_strings,\"aMS\",@progbits,1\n";
    for name in module.exports {
        source += &format!(".asciz \"{name}\"\n");
    }
    source += ".data\n";
    for name in module.needs {
        source += &format!(".quad {name}\n");
    }
    for name in module.exports {
        source += &format!(".globl {name}\n{name}: .quad 0\n");
    }
    let (input, output) = (dir.join("m.s"), dir.join("m.o"));
    std::fs::write(&input, source).unwrap();
    let status = Command::new("as")
        .args(["--64", "-o"])
        .args([&output, &input])
        .status()
        .expect("as of binutils (make test installs it)");
    assert!(status.success());
    let plain = std::fs::read(&output).unwrap();
    match module.path.rsplit('.').next() {
        Some("xz") => {
            use std::io::Write;
            let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
            xz.write_all(&plain).unwrap();
            xz.finish().unwrap()
        }
        Some("zst") => zstd::encode_all(&plain[..], 1).unwrap(),
        _ => plain,
    }
}

fn sources(modules: &[Made]) -> Sources {
    let dir = tempfile::tempdir().unwrap();
    Sources {
        modules: modules
            .iter()
            .map(|made| (made.path.to_string(), assemble(dir.path(), made).into()))
            .collect(),
        order: ORDER.into(),
        builtin: BUILTIN.into(),
        builtin_modinfo: BUILTIN_MODINFO.into(),
    }
}

/// What depmod before version 34 writes: children first. The content is the same.
fn write_children_first(index: &Index) -> Vec<u8> {
    fn node_last(node: &Node<'_>, out: &mut Vec<u8>) -> u32 {
        let children: Vec<(u8, u32)> = node
            .children
            .iter()
            .map(|(character, child)| (*character, node_last(child, out)))
            .collect();
        let mut offset = out.len() as u32;
        if !node.prefix.is_empty() {
            out.extend_from_slice(node.prefix);
            out.push(0);
            offset |= 0x8000_0000;
        }
        if let (Some(first), Some(last)) = (children.first(), children.last()) {
            out.extend([first.0, last.0]);
            for character in first.0..=last.0 {
                let child = children.iter().find(|child| child.0 == character);
                out.extend(child.map_or(0, |child| child.1).to_be_bytes());
            }
            offset |= 0x2000_0000;
        }
        write_values(node, out, &mut offset);
        offset
    }
    let mut out = index.write()[..12].to_vec();
    let root = node_last(&index.tree(), &mut out);
    out[8..12].copy_from_slice(&root.to_be_bytes());
    out
}

/// The real depmod on the same tree writes the same files, byte for byte.
#[test]
fn depmod_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("lib/modules").join(VERSION);
    let sources = sources(MODULES);
    let put = |path: &str, data: &[u8]| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, data).unwrap();
    };
    for (path, data) in &sources.modules {
        put(path, data);
    }
    put("modules.order", &sources.order);
    put("modules.builtin", &sources.builtin);
    put("modules.builtin.modinfo", &sources.builtin_modinfo);
    // Debian has it where users have no search path.
    let depmod = ["/usr/sbin/depmod", "/sbin/depmod"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("depmod of kmod (make test installs it)");
    let version = Command::new(depmod).arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let version: u32 = version
        .split_whitespace()
        .find_map(|word| word.parse().ok())
        .or_else(|| version.split(['.', ' ']).find_map(|word| word.parse().ok()))
        .unwrap();
    let output = Command::new(depmod)
        .arg("-b")
        .arg(dir.path())
        .arg(VERSION)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");

    let ours = Catalog::new(sources).unwrap().index(|_| true, 2).unwrap();
    assert_eq!(ours.len(), 11);
    for (name, data) in &ours {
        let theirs = match std::fs::read(root.join(name)) {
            Ok(theirs) => theirs,
            Err(_) if *name == "modules.weakdep" && version < 33 => continue,
            Err(error) => panic!("{name}: {error}"),
        };
        if name.ends_with(".bin") {
            let read = |file: &[u8]| Index::read(file).unwrap().keys().clone();
            assert_eq!(read(data), read(&theirs), "{name}");
            let data = match version >= 34 {
                true => data.clone(),
                false => write_children_first(&Index::read(data).unwrap()),
            };
            assert!(data == theirs, "{name}");
        } else if *name == "modules.symbols" {
            // The one file whose order is ours.
            let lines = |file: &[u8]| -> BTreeSet<String> {
                let text = String::from_utf8(file.to_vec()).unwrap();
                text.lines().map(str::to_string).collect()
            };
            assert_eq!(lines(data), lines(&theirs));
        } else {
            assert_eq!(
                String::from_utf8_lossy(data),
                String::from_utf8_lossy(&theirs),
                "{name}"
            );
        }
    }
    // And it really had something to say.
    let dep = String::from_utf8_lossy(&ours["modules.dep"]);
    assert!(dep.contains(
        "kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio-ring.ko.zst \
         kernel/drivers/virtio/virtio.ko.xz\n"
    ));
}

#[test]
fn closure_is_in_loading_order_and_lazy() {
    let catalog = Catalog::new(sources(MODULES)).unwrap();
    assert_eq!(
        catalog
            .closure(&["virtio-blk", "ext4", "e1000"], 2)
            .unwrap(),
        ["virtio", "virtio_ring", "fuse", "virtio_blk", "e1000"]
    );
    let read: Vec<&str> = catalog
        .modules
        .iter()
        .filter(|(_, module)| module.info.get().is_some())
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        read,
        ["e1000", "fuse", "virtio", "virtio_blk", "virtio_ring"]
    );
    assert_eq!(catalog.closure(&["sha256_generic"], 1).unwrap(), [""; 0]);
    assert_eq!(
        catalog.path("virtio-ring"),
        Some("kernel/drivers/virtio/virtio-ring.ko.zst")
    );
    assert!(catalog.is_builtin("ext4") && !catalog.contains("ext4"));
}

#[test]
fn index_of_some_modules_names_no_others() {
    let catalog = Catalog::new(sources(MODULES)).unwrap();
    let keep = ["virtio", "virtio_blk"];
    let files = catalog.index(|name| keep.contains(&name), 1).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&files["modules.dep"]),
        "kernel/drivers/virtio/virtio.ko.xz:\n\
         kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio.ko.xz\n"
    );
    let empty = Catalog::new(Sources::default()).unwrap();
    let files = empty.index(|_| true, 2).unwrap();
    assert!(
        Index::read(&files["modules.dep.bin"])
            .unwrap()
            .keys()
            .is_empty()
    );
}

#[test]
fn errors_say_what_and_where() {
    let catalog = Catalog::new(sources(MODULES)).unwrap();
    let mut said = Vec::new();
    let mut say = |error: DepmodError| said.push(error.to_string());
    say(catalog.closure(&["nonsense"], 2).unwrap_err());
    say(catalog.closure(&["unlisted"], 2).unwrap_err());
    let catalog = Catalog::new(sources(LOOP)).unwrap();
    say(catalog.closure(&["loop_a"], 2).unwrap_err());
    say(catalog.index(|_| true, 2).unwrap_err());
    let bad = |modules: &[(&str, &[u8])]| {
        let modules = modules
            .iter()
            .map(|(path, data)| (path.to_string(), Bytes::copy_from_slice(data)))
            .collect();
        let sources = Sources {
            modules,
            ..Sources::default()
        };
        Catalog::new(sources).and_then(|catalog| catalog.index(|_| true, 2))
    };
    let dir = tempfile::tempdir().unwrap();
    let good = assemble(dir.path(), &MODULES[3]);
    say(bad(&[("kernel/a.ko", b"")]).unwrap_err());
    say(bad(&[("kernel/a.ko", &good[..good.len() - 9])]).unwrap_err());
    say(bad(&[("kernel/a.ko.xz", b"\xfd7zXZ\0rubbish")]).unwrap_err());
    say(bad(&[("kernel/a.ko", &good), ("updates/a.ko.xz", &good)]).unwrap_err());
    let umlaut = Made {
        path: "kernel/u.ko",
        modinfo: &["alias=für"],
        exports: &[],
        needs: &[],
    };
    say(bad(&[("kernel/u.ko", &assemble(dir.path(), &umlaut))]).unwrap_err());
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    say(bad(&[("kernel/p.ko", &program)]).unwrap_err());
    say(Index::read(b"rubbish, but long enough").unwrap_err());
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn index_loops_end() {
    // A root whose only child is the root.
    let mut file = [0xb007_f457u32, 0x0002_0001, 0x2000_000c]
        .map(u32::to_be_bytes)
        .concat();
    file.extend(b"aa\x20\0\0\x0c");
    assert!(matches!(
        Index::read(&file),
        Err(DepmodError::BadIndex {
            what: "the tree has loops",
            ..
        })
    ));
}

#[test]
fn fuzz_for_a_second() {
    let sources = sources(&MODULES[..4]);
    let catalog = Catalog::new(sources.clone()).unwrap();
    let mut seeds: Vec<Vec<u8>> = catalog.index(|_| true, 2).unwrap().into_values().collect();
    seeds.extend(sources.modules.iter().map(|(_, data)| data.to_vec()));
    crate::fuzzing::mutate_for(std::time::Duration::from_secs(1), &seeds, fuzz);
}

proptest::proptest! {
    /// Any keys and values come back, sorted by priority.
    #[test]
    fn index_round_trip(entries in proptest::collection::vec(("[a-c]{0,4}", "[x-z]{0,2}", 0u32..3), 0..40)) {
        let mut index = Index::default();
        for (key, value, priority) in &entries {
            index.insert(key.as_bytes(), value.as_bytes(), *priority).unwrap();
        }
        let back = Index::read(&index.write()).unwrap();
        proptest::prop_assert_eq!(back.keys(), index.keys());
        let back = Index::read(&write_children_first(&index)).unwrap();
        proptest::prop_assert_eq!(back.keys(), index.keys());
    }
}
