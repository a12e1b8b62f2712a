//! dpkg's list of installed packages, for scanners that look for known holes.

use anyhow::{Context, Result};
use bytes::Bytes;
use formats::tree::Kind;

use super::Root;

/// The file; `/var` is state, so it lies below `/usr`.
const STATUS: &str = "/usr/lib/sysimage/dpkg/status";
/// Where scanners look: in the image the same file, on a running machine a link to it.
const EXPECTED: &str = "/var/lib/dpkg/status";

/// Writes the status of packages, given by their `control` files.
///
/// # Errors
/// A `control` file that is no text or does not begin with the package's name.
pub(super) fn apply(root: &mut Root, controls: &[Bytes]) -> Result<()> {
    let mut stanzas = Vec::new();
    for control in controls {
        let text = std::str::from_utf8(control).context("a control file is not UTF-8")?;
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let name = first
            .strip_prefix("Package: ")
            .with_context(|| format!("a control file begins with {first:?}, not with Package:"))?;
        let rest = rest.trim_end();
        stanzas.push((
            name,
            format!("{first}\nStatus: install ok installed\n{rest}\n"),
        ));
    }
    stanzas.sort();
    let stanzas: Vec<String> = stanzas.into_iter().map(|(_, stanza)| stanza).collect();
    let origin = "effect dpkg";
    root.file(STATUS, 0o644, stanzas.join("\n"), origin)?;
    let link = format!("d /var/lib/dpkg 0755 0 0 -\nL {EXPECTED} - - - - ../../..{STATUS}\n");
    root.file("/usr/lib/tmpfiles.d/larder-dpkg.conf", 0o644, link, origin)?;
    root.parents(EXPECTED, origin)?;
    root.put(EXPECTED, Kind::Hardlink(STATUS.into()), 0o644, origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scanners_find_packages_in_dpkgs_own_form() {
        let mut root = Root::new(0).unwrap();
        let controls = [
            "Package: b\nVersion: 2\nDescription: x\n more\n",
            "Package: a\nVersion: 1\n",
        ];
        apply(&mut root, &controls.map(Bytes::from)).unwrap();
        assert_eq!(
            root.text(STATUS).unwrap(),
            "Package: a\nStatus: install ok installed\nVersion: 1\n\n\
             Package: b\nStatus: install ok installed\nVersion: 2\nDescription: x\n more\n"
        );
        root.tree.check().unwrap();
        assert!(apply(&mut root, &[Bytes::from("Version: 1\n")]).is_err());
    }
}
