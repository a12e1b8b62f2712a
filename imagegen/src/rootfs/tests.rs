//! The whole way, on a handful of made packages and the shipped configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

fn node(kind: Kind, mode: u16, package: &str) -> Node {
    let mut node = Node::new(kind, mode, format!("package {package}"));
    node.mtime = 1_900_000_000;
    node
}

fn package(name: &str, files: Vec<(&str, u16, Kind)>) -> Package {
    let mut entries: BTreeMap<String, Node> = BTreeMap::new();
    for (path, mode, kind) in files {
        for (at, _) in path.match_indices('/').skip(1) {
            let folder = node(Kind::Dir, 0o755, name);
            entries.entry(path[..at].to_string()).or_insert(folder);
        }
        entries.insert(path.to_string(), node(kind, mode, name));
    }
    let control = format!("Package: {name}\nVersion: 1\nArchitecture: amd64\n");
    Package {
        name: name.into(),
        files: entries.into_iter().collect(),
        control: [("control".to_string(), control.into())].into(),
    }
}

fn text(content: &str) -> Kind {
    Kind::File(content.to_string().into())
}

fn packages() -> Vec<Package> {
    let mut tools = package(
        "tools",
        vec![
            ("/usr/bin/setuid", 0o4755, text("s")),
            ("/usr/bin/capable", 0o755, text("c")),
            (
                "/usr/bin/other",
                0o4755,
                Kind::Hardlink("/bin/setuid".into()),
            ),
            ("/usr/share/doc/tools/README", 0o644, text("dropped")),
            ("/usr/share/doc/tools/copyright", 0o644, text("kept")),
            (
                "/usr/lib/systemd/system/a.service",
                0o644,
                text("[Install]\nWantedBy=b.target\n"),
            ),
            ("/var/lib/tools", 0o700, Kind::Dir),
        ],
    );
    for (path, node) in &mut tools.files {
        if path == "/usr/bin/capable" {
            let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
            node.xattrs.insert("security.capability".into(), capability);
        }
    }
    vec![
        package(
            "base-files",
            vec![
                ("/home", 0o755, Kind::Dir),
                (
                    "/usr/lib/os-release",
                    0o644,
                    text("NAME=\"Debian\"\nID=debian\nVERSION_ID=\"13\"\n"),
                ),
                ("/usr/share/base-files/dot.profile", 0o644, text("p")),
                ("/usr/share/base-files/dot.bashrc", 0o644, text("b")),
                ("/usr/share/base-files/profile", 0o644, text("e")),
            ],
        ),
        package(
            "base-passwd",
            vec![
                (
                    "/usr/share/base-passwd/passwd.master",
                    0o644,
                    text("root:*:0:0:root:/root:/bin/bash\n"),
                ),
                (
                    "/usr/share/base-passwd/group.master",
                    0o644,
                    text("root:*:0:\nshadow:*:42:\n"),
                ),
            ],
        ),
        package(
            "ca-certificates",
            vec![(
                "/usr/share/ca-certificates/mozilla/A.crt",
                0o644,
                text("PEM"),
            )],
        ),
        package(
            "systemd",
            vec![
                (
                    "/usr/lib/sysusers.d/basic.conf",
                    0o644,
                    text("g systemd-journal - -\nu! systemd-network - \"Network\"\n"),
                ),
                ("/etc/credstore", 0o755, Kind::Dir),
                ("/etc/credstore.encrypted", 0o755, Kind::Dir),
            ],
        ),
        tools,
    ]
}

fn kernel() -> Kernel {
    let none = config::ByFlavour::default();
    let modules = config::Modules {
        initrd: none.clone(),
        load: Vec::new(),
        keep: none,
    };
    let module = "/usr/lib/modules/1.2-cloud/kernel/fs/x.ko";
    let linux = package(
        "linux-image",
        vec![
            ("/boot/vmlinuz-1.2-cloud", 0o644, text("MZ")),
            (module, 0o644, text("not read")),
        ],
    );
    Kernel::new(&modules, vec![linux]).unwrap()
}

/// Puts the made packages together, with `change` made to them or to the configuration first.
fn build(change: impl FnOnce(&mut Vec<Package>, &mut config::Config)) -> Result<Tree> {
    let mut config = config::Config::load(&configs()).unwrap_or_else(|errors| panic!("{errors}"));
    config.image.units.enable = vec!["a.service".into()];
    let mut packages = packages();
    change(&mut packages, &mut config);
    assemble(Sources {
        config: &config,
        configs: &configs(),
        secrets: None,
        packages,
        kernel: kernel(),
        binaries: vec![("/usr/bin/appliance".into(), "\x7fELF".into())],
        clock: 1_800_000_000,
        build: Build {
            id: "larder".into(),
            version: "9".into(),
            kernel: "1.2-cloud".into(),
            clock: 1_800_000_000,
        },
    })
}

fn error(change: impl FnOnce(&mut Vec<Package>, &mut config::Config)) -> String {
    format!("{:#}", build(change).unwrap_err())
}

#[test]
fn a_small_root_has_what_packages_effects_and_configuration_give() {
    let tree = build(|_, _| {}).unwrap();
    let get = |path: &str| {
        tree.get(path)
            .unwrap_or_else(|| panic!("{path} is missing"))
    };
    let content = |path: &str| String::from_utf8(get(path).content().unwrap().to_vec()).unwrap();

    // Packages: modes, capabilities and hard links as they were, times no younger than the clock.
    assert_eq!(get("/usr/bin/setuid").mode, 0o4755);
    assert_eq!(get("/usr/bin/setuid").mtime, 1_800_000_000);
    assert!(
        get("/usr/bin/capable")
            .xattrs
            .contains_key("security.capability")
    );
    assert_eq!(
        get("/usr/bin/other").kind,
        Kind::Hardlink("/usr/bin/setuid".into())
    );
    assert!(tree.get("/usr/share/doc/tools/README").is_none());
    assert!(tree.get("/usr/share/doc/tools/copyright").is_some());

    // Effects.
    let passwd = content("/etc/passwd");
    assert!(
        passwd.contains("systemd-network:x:997:997:Network:/:/usr/sbin/nologin\n"),
        "{passwd}"
    );
    assert!(passwd.contains("cache:x:990:990:"), "{passwd}");
    let shadow = get("/etc/shadow");
    assert_eq!((shadow.mode, shadow.uid, shadow.gid), (0o640, 0, 42));
    let shadow = content("/etc/shadow");
    for line in [
        "root:*:1:0:99999:7:::\n",
        "systemd-network:!*:1:::::1:\n",
        "cache:!*:1::::::\n",
        "larder:*:1:0:99999:7:::\n",
    ] {
        assert!(shadow.contains(line), "{line}{shadow}");
    }
    assert_eq!(content("/etc/ssl/certs/ca-certificates.crt"), "PEM\n");
    assert_eq!(content("/etc/machine-id"), "");
    assert_eq!(get("/usr/lib/clock-epoch").mtime, 1_800_000_000);
    assert_eq!(get("/home").kind, Kind::Symlink("var/home".into()));
    assert!(formats::ldcache::parse(get("/etc/ld.so.cache").content().unwrap()).is_ok());
    let enabled = "/etc/systemd/system/b.target.wants/a.service";
    assert!(matches!(get(enabled).kind, Kind::Symlink(_)));

    // State.
    let below: Vec<&str> = tree.below("/var").map(|(path, _)| path).collect();
    assert_eq!(
        below,
        ["/var", "/var/lib", "/var/lib/dpkg", "/var/lib/dpkg/status"]
    );
    let made = content("/usr/lib/tmpfiles.d/larder-packages.conf");
    assert!(made.contains("d /var/lib/tools 0700 0 0 -\n"), "{made}");
    let status = content("/usr/lib/sysimage/dpkg/status");
    assert!(
        status.contains("Package: tools\nStatus: install ok installed\n"),
        "{status}"
    );
    assert!(status.contains("Package: linux-image\n"), "{status}");

    // Ours.
    let release = String::from_utf8(osrel(&tree).unwrap()).unwrap();
    assert!(release.contains("IMAGE_VERSION=9\n") && release.contains("VERSION_ID=\"13\""));
    assert_eq!(get("/usr/bin/appliance").mode, 0o755);
    let fleet = std::fs::read(configs().join("fleet.toml")).unwrap();
    assert_eq!(
        get("/etc/larder/fleet.toml").content().unwrap()[..],
        fleet[..]
    );
    assert!(tree.iter().all(|(_, node)| !node.origin.is_empty()));
}

#[test]
fn the_same_sources_give_the_same_tree() {
    assert_eq!(build(|_, _| {}).unwrap(), build(|_, _| {}).unwrap());
}

#[test]
fn two_packages_with_one_path_are_refused() {
    let said = error(|packages, _| {
        packages.push(package(
            "rival",
            vec![("/usr/bin/setuid", 0o755, text("other"))],
        ));
    });
    assert!(
        said.contains("/usr/bin/setuid comes from package tools"),
        "{said}"
    );
    assert!(said.contains("package rival"), "{said}");
}

#[test]
fn a_unit_that_nobody_has_is_an_error() {
    let said = error(|_, config| config.image.units.enable.push("gone.service".into()));
    assert!(said.contains("units.enable \"gone.service\""), "{said}");
}

#[test]
fn a_bad_line_of_sysusers_names_its_file() {
    for (line, what) in [
        ("u", "a type and a name"),
        ("x y", "type \"x\""),
        ("u newcomer -", "newcomer has no fixed id"),
        ("m root nobody-knows", "group nobody-knows"),
        ("g twin 0", "both have gid 0"),
    ] {
        let said = error(|packages, _| {
            let path = "/usr/lib/sysusers.d/bad.conf";
            packages.push(package("bad", vec![(path, 0o644, text(line))]));
        });
        assert!(said.contains(what), "{line}: {said}");
        assert!(
            said.contains("bad.conf") || line.contains("twin"),
            "{line}: {said}"
        );
    }
}

#[test]
fn a_package_whose_effect_lacks_its_input_is_an_error() {
    let said = error(|packages, _| {
        packages[0]
            .files
            .retain(|(path, _)| !path.ends_with("profile"))
    });
    assert!(
        said.contains("effect of base-files: /usr/share/base-files/dot.profile"),
        "{said}"
    );
    let said = error(|packages, _| {
        packages.remove(1);
    });
    assert!(said.contains("group.master is not there"), "{said}");
}

#[test]
fn kernels_that_are_none_are_errors() {
    let modules = || config::Config::load(&configs()).unwrap().image.modules;
    let said = |packages| format!("{:#}", Kernel::new(&modules(), packages).err().unwrap());
    let linux = |release: &str, module: &str| {
        let image = format!("/boot/vmlinuz-{release}");
        let module = format!("/usr/lib/modules/{release}/kernel/{module}");
        let files = vec![
            (image.as_str(), 0o644, text("MZ")),
            (module.as_str(), 0o644, text("x")),
        ];
        package("linux", files)
    };
    assert!(said(vec![]).contains("neither /boot/vmlinuz"));
    let two = said(vec![linux("1-cloud", "a.ko"), linux("2-cloud", "b.ko")]);
    assert!(two.contains("two kernels, 1-cloud and 2-cloud"), "{two}");
    let missing = said(vec![linux("1-cloud", "a.ko")]);
    assert!(
        missing.contains("modules.initrd: i6300esb is neither"),
        "{missing}"
    );
}
