//! Names of boot images on the ESP, with the counter that systemd-boot keeps in them.

use std::path::Path;

use crate::Error;

/// Folder of the images on the ESP.
pub(crate) const FOLDER: &str = "EFI/Linux";

/// A file name taken apart: `larder_1.2+2-1.efi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `larder_1.2`.
    pub stem: String,
    /// Tries left; `None`: blessed, not counted.
    pub left: Option<u32>,
    /// Tries done.
    pub done: u32,
}

impl Entry {
    /// Takes a file name apart; `None` if it is no boot image.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let base = name
            .strip_suffix(".efi")
            .or_else(|| name.strip_suffix(".EFI"))?;
        if base.is_empty() {
            return None;
        }
        let blessed = || Self {
            stem: base.into(),
            left: None,
            done: 0,
        };
        let Some((stem, counter)) = base.rsplit_once('+') else {
            return Some(blessed());
        };
        let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok())?
        };
        match (number(left), number(done)) {
            (Some(left), Some(done)) if !stem.is_empty() => Some(Self {
                stem: stem.into(),
                left: Some(left),
                done,
            }),
            // Something else that has a plus in its name.
            _ => Some(blessed()),
        }
    }

    /// How the boot loader calls it, whatever its counter says.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}.efi", self.stem)
    }

    /// Whether the boot loader has given it up.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.left == Some(0)
    }

    /// The product that it belongs to: `larder` of `larder_1.2`.
    #[must_use]
    pub fn product(&self) -> &str {
        self.stem.split('_').next().unwrap_or_default()
    }
}

/// The boot images on an ESP, by name.
///
/// # Errors
///
/// The folder could not be read.
pub fn list(esp: &Path) -> Result<Vec<Entry>, Error> {
    let folder = esp.join(FOLDER);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(Error::path(&folder, "list"))? {
        let entry = entry.map_err(Error::path(&folder, "list"))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names.iter().filter_map(|name| Entry::parse(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(stem: &str, left: Option<u32>, done: u32) -> Option<Entry> {
        Some(Entry {
            stem: stem.into(),
            left,
            done,
        })
    }

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(
            Entry::parse("larder_1.2+3.efi"),
            entry("larder_1.2", Some(3), 0)
        );
        assert_eq!(
            Entry::parse("larder_1.2+2-1.efi"),
            entry("larder_1.2", Some(2), 1)
        );
        assert_eq!(Entry::parse("larder_1.2.efi"), entry("larder_1.2", None, 0));
        assert_eq!(
            Entry::parse("larder_1.2-rc1+0-3.EFI"),
            entry("larder_1.2-rc1", Some(0), 3)
        );
        assert_eq!(Entry::parse("a+b.efi"), entry("a+b", None, 0));
        assert_eq!(
            Entry::parse("a+99999999999.efi"),
            entry("a+99999999999", None, 0)
        );
        assert_eq!(Entry::parse("+3.efi"), entry("+3", None, 0));
        assert_eq!(Entry::parse(".efi"), None);
        assert_eq!(Entry::parse("loader.conf"), None);
        let counted = Entry::parse("larder_1.2+2-1.efi").unwrap();
        assert_eq!(
            (counted.id().as_str(), counted.product()),
            ("larder_1.2.efi", "larder")
        );
    }

    #[test]
    fn an_esp_is_listed() {
        let esp = tempfile::tempdir().unwrap();
        assert!(list(esp.path()).is_err());
        std::fs::create_dir_all(esp.path().join(FOLDER)).unwrap();
        for name in ["larder_2+3.efi", "larder_1.efi", "readme.txt"] {
            std::fs::write(esp.path().join(FOLDER).join(name), "").unwrap();
        }
        let ids: Vec<_> = list(esp.path()).unwrap().iter().map(Entry::id).collect();
        assert_eq!(ids, ["larder_1.efi", "larder_2.efi"]);
    }
}
