//! What only several files together show.

use std::collections::BTreeSet;

use crate::load::{Report, place};
use crate::{Config, Flavour, SysctlValue, modules};

/// Says what `image.toml` lacks for what the other files ask for; places are of `image.toml`.
pub(crate) fn across(config: &Config, report: &mut Report) {
    let mut need = |package: &str, why: &str| {
        if !config
            .image
            .packages
            .install
            .iter()
            .any(|name| name == package)
        {
            report.wrong(
                place!["packages", "install"],
                format!("{package} is not in it, but {why}"),
                format!("add {package:?}"),
            );
        }
    };
    let system = &config.system;
    if system.zram.size_mib > 0 {
        need(
            "systemd-zram-generator",
            "system.toml asks for zram (size_mib = 0 would be none)",
        );
    }
    if !["UTC", "Etc/UTC"].contains(&system.time.zone.as_str()) {
        need(
            "tzdata",
            "system.toml asks for another time zone than Etc/UTC",
        );
    }
    if system
        .users
        .values()
        .any(|user| user.groups.iter().any(|group| group == "wheel"))
    {
        need("sudo", "users of system.toml are in group wheel");
    }
    let text = |key: &str| match system.sysctl.get(key) {
        Some(SysctlValue::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    let mut wanted = Vec::new();
    if let Some(name) =
        text("net.ipv4.tcp_congestion_control").filter(|name| !["cubic", "reno"].contains(name))
    {
        wanted.push((
            format!("tcp_{name}"),
            "sysctl net.ipv4.tcp_congestion_control",
        ));
    }
    if let Some(name) =
        text("net.core.default_qdisc").filter(|name| !["fq_codel", "pfifo_fast"].contains(name))
    {
        wanted.push((format!("sch_{name}"), "sysctl net.core.default_qdisc"));
    }
    if system.zram.size_mib > 0 {
        wanted.push(("zram".to_owned(), "zram"));
    }
    let image = &config.image.modules;
    let early: BTreeSet<String> = image
        .initrd
        .of(Flavour::Cloud)
        .chain(image.load.iter().map(String::as_str))
        .map(modules::name)
        .collect();
    for (module, why) in wanted.iter().filter(|(module, _)| !early.contains(module)) {
        report.wrong(
            place!["modules", "load"],
            format!(
                "{module} is neither here nor in modules.initrd, but system.toml needs it for {why}"
            ),
            format!("add {module:?}, here and to modules.keep.common"),
        );
    }
}
