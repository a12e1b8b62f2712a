use imagegen::diff::{Changes, compare};

use crate::compose::{Composed, Spec, compose, file, link, noise, without_folder};

/// A version later, with one of everything changed.
fn later() -> Spec {
    let mut spec = Spec {
        version: "1.3.0",
        kernel: "6.18.19+deb13-cloud-amd64",
        cmdline: "console=ttyS0 panic=10 mitigations=auto",
        ..Spec::default()
    };
    spec.packages.retain(|(name, _, _)| *name != "iputils-ping");
    for (name, version, files) in &mut spec.packages {
        match *name {
            "bash" => {
                *version = "5.2.38-1";
                files[0].1 = file(noise(310_000, 11), 0o755, "package bash");
                files.push(("/usr/bin/rbash", link("bash", "package bash")));
            }
            "openssh-server" => *version = "1:9.9p2-1",
            _ => {}
        }
    }
    let kernel = (
        "linux-image-6.18.19+deb13-cloud-amd64",
        "6.18.19-1~bpo13+1",
        vec![],
    );
    spec.packages.push(kernel);
    let curl = vec![(
        "/usr/bin/curl",
        file(noise(90_000, 12), 0o755, "package curl"),
    )];
    spec.packages.push(("curl", "8.14.1-2+deb13u7", curl));
    let put = |spec: &mut Spec, path: &'static str, node| {
        spec.others.retain(|(other, _)| *other != path);
        spec.others.push((path, node));
    };
    put(
        &mut spec,
        "/usr/lib/sysctl.d/90-larder.conf",
        file(
            "net.core.somaxconn = 65535\nvm.overcommit_memory = 1\n",
            0o644,
            "system.toml sysctl",
        ),
    );
    put(
        &mut spec,
        "/etc/nftables.conf",
        file(
            "table inet filter {\n  chain input {\n    tcp dport { 22, 80, 443, 4369 } \
             accept\n  }\n}\n",
            0o600,
            "system.toml firewall",
        ),
    );
    put(
        &mut spec,
        "/etc/larder/fleet.toml",
        file(
            "domain = \"tuist.dev\"\n[hosts.cache-eu-central]\nenvironment = \"production\"\n\
             region = \"eu-west\"\n[hosts.cache-us-east]\nenvironment = \"staging\"\n",
            0o644,
            "configs/fleet.toml",
        ),
    );
    put(
        &mut spec,
        "/usr/lib/systemd/system/larder-cache.service",
        file(
            "[Service]\nExecStart=/usr/bin/appliance cache\nUser=cache\nLimitCORE=0\n",
            0o644,
            "configs/root",
        ),
    );
    put(
        &mut spec,
        "/usr/lib/systemd/system/multi-user.target.wants/larder-shipper.service",
        link("../larder-shipper.service", "configs/root"),
    );
    spec.others
        .retain(|(path, _)| *path != "/etc/systemd/system/systemd-pcrlock.service");
    let mut owned = file(noise(400_000, 30), 0o750, "our binary");
    owned.gid = 990;
    put(&mut spec, "/usr/bin/appliance", owned);
    spec
}

/// The first image, with the kernel's package in it.
fn first() -> Composed {
    let mut spec = Spec::default();
    spec.packages.push((
        "linux-image-6.18.15+deb13-cloud-amd64",
        "6.18.15-1~bpo13+1",
        vec![],
    ));
    compose(&spec)
}

fn fits(text: &str) {
    let long = text.lines().find(|line| line.chars().count() > 100);
    assert_eq!(long, None, "{text}");
}

#[test]
fn one_of_everything_in_words() {
    let (old, new) = (first(), compose(&later()));
    let changes = compare(&old.path, &new.path).unwrap();
    assert!(!changes.is_empty());
    insta::assert_snapshot!(changes.text(false));
    fits(&changes.text(true));

    // By their manifests alone: no contents, so no lines, settings and units.
    let changes = compare(&old.manifest_path(), &new.manifest_path()).unwrap();
    insta::assert_snapshot!(changes.text(false));

    // Without manifests: no origins but those of dpkg.
    std::fs::remove_file(old.manifest_path()).unwrap();
    std::fs::remove_file(new.manifest_path()).unwrap();
    let changes = compare(&old.path, &new.path).unwrap();
    insta::assert_snapshot!(changes.text(false));
}

#[test]
fn json_has_everything() {
    let (old, new) = (first(), compose(&later()));
    let mut changes = compare(&old.path, &new.path).unwrap();
    for (side, image) in [(&mut changes.old, &old), (&mut changes.new, &new)] {
        side.path = without_folder(&side.path, image.folder.path());
    }
    insta::assert_json_snapshot!(changes);
}

fn same(changes: &Changes) {
    assert!(changes.is_empty(), "{}", changes.text(true));
    let text = changes.text(false);
    assert!(
        text.starts_with("No difference: larder 1.2.3, root hash "),
        "{text}"
    );
}

#[test]
fn equal_images_have_no_difference() {
    let (one, two) = (compose(&Spec::default()), compose(&Spec::default()));
    assert_eq!(
        std::fs::read(one.manifest_path()).unwrap(),
        std::fs::read(two.manifest_path()).unwrap()
    );
    same(&compare(&one.path, &two.path).unwrap());
    same(&compare(&one.path, &one.path).unwrap());
    same(&compare(&one.manifest_path(), &two.path).unwrap());
    same(&compare(&one.path, &two.manifest_path()).unwrap());
    std::fs::remove_file(two.manifest_path()).unwrap();
    same(&compare(&one.path, &two.path).unwrap());
}

#[test]
fn one_changed_mode_is_a_difference() {
    let mut spec = Spec::default();
    for (path, node) in &mut spec.others {
        if *path == "/etc/nftables.conf" {
            node.mode = 0o600;
        }
    }
    let (old, new) = (compose(&Spec::default()), compose(&spec));
    let changes = compare(&old.path, &new.path).unwrap();
    let text = changes.text(false);
    assert!(
        text.contains("/etc/nftables.conf mode 0644 → 0600"),
        "{text}"
    );
    assert!(text.contains("No package changed"), "{text}");
}

#[test]
fn the_exit_status_is_that_of_diff() {
    use imagegen::diff::{DiffArgs, run};
    let (old, new) = (compose(&Spec::default()), compose(&later()));
    let status = |old: &std::path::Path, new: &std::path::Path| {
        let args = DiffArgs {
            old: old.into(),
            new: new.into(),
            all: false,
            json: true,
        };
        format!("{:?}", run(args).unwrap())
    };
    let code = |n: u8| format!("{:?}", std::process::ExitCode::from(n));
    assert_eq!(status(&old.path, &old.path), code(0));
    assert_eq!(status(&old.path, &new.path), code(1));
    assert_eq!(status(&old.path, "/nonexistent".as_ref()), code(2));
}
