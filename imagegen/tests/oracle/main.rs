//! The root against a real installation by dpkg of the same packages, and against systemd's own
//! check of its units. Behind the feature `oracle`: it needs mmdebstrap, a network for the packages
//! that only maintainer scripts need, and two minutes. `make oracle` runs it.

// A helper that fails fails the test.
#![allow(clippy::unwrap_used)]

mod allow;
mod compare;
mod installation;
mod root;
mod units;

use allow::AllowList;

/// Every difference has a reason in `allow.toml`, and every reason a difference.
#[test]
fn a_real_installation_differs_only_where_it_is_meant_to() {
    let installed = installation::install();
    let ours = root::assemble(root::Trim::Off);
    let mut differences = compare::compare(&installed.tree, &ours);
    differences.retain(|difference| !installed.needless.contains(&difference.path));
    assert!(!differences.is_empty(), "nothing was compared");
    let list = AllowList::load();
    let (unlisted, unused) = list.judge(&differences);
    for difference in &unlisted {
        println!("{difference}");
    }
    for rule in &unused {
        println!("allow.toml: {rule} matches no difference any more");
    }
    assert!(
        unlisted.is_empty() && unused.is_empty(),
        "{} differences are not on the list, {} entries of the list are stale ({} are explained)",
        unlisted.len(),
        unused.len(),
        differences.len() - unlisted.len()
    );
    println!("{} differences, each with its reason", differences.len());
}

/// `systemd-analyze verify` of the image's own systemd has nothing to say about the image.
#[test]
fn systemd_takes_every_unit() {
    let mut tree = root::assemble(root::Trim::On);
    let said = units::verify(&tree);
    assert!(said.is_empty(), "systemd-analyze verify says:\n{said}");

    // It would say something.
    let path = "/usr/lib/systemd/system/larder-cache.service";
    let mut unit = tree.get(path).unwrap().clone();
    let text = String::from_utf8(unit.content().unwrap().to_vec()).unwrap();
    let broken = text.replace("/usr/bin/appliance", "/usr/bin/nowhere") + "\nWatchdogSecs=1\n";
    unit.kind = formats::tree::Kind::File(broken.into());
    tree.insert(path, unit).unwrap();
    let said = units::verify(&tree);
    assert!(
        said.contains("/usr/bin/nowhere is not executable"),
        "{said}"
    );
    assert!(said.contains("Unknown key 'WatchdogSecs'"), "{said}");
}
