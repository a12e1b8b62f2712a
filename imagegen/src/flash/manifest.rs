//! What the manifest beside an image says of its bytes.
//!
//! `larder.manifest.json` holds more; read here are its objects `outputs` (file name → size and
//! SHA-256, of the compressed image) and `parts` (name of a partition as [`Role::name`] gives it →
//! size and SHA-256 of its first `size` bytes).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use formats::gpt::Role;
use formats::region::ReadAt;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Size and digest of something.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Sum {
    /// In bytes.
    pub(super) size: u64,
    /// 64 hexadecimal digits.
    pub(super) sha256: String,
}

/// The manifest of an image.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Manifest {
    #[serde(default)]
    outputs: BTreeMap<String, Sum>,
    #[serde(default)]
    parts: BTreeMap<String, Sum>,
}

impl Manifest {
    /// The manifest beside `image`, and its path; `None` if there is none.
    pub(super) fn beside(image: &Path) -> Result<Option<(PathBuf, Self)>> {
        let Some(name) = image.file_name().and_then(|name| name.to_str()) else {
            return Ok(None);
        };
        let stem = name.strip_suffix(".zst").unwrap_or(name);
        let stem = stem.strip_suffix(".raw").unwrap_or(stem);
        let path = image.with_file_name(format!("{stem}.manifest.json"));
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let manifest = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no manifest of an image", path.display()))?;
        Ok(Some((path, manifest)))
    }

    /// What it says of the file of that name.
    pub(super) fn output(&self, image: &Path) -> Option<&Sum> {
        self.outputs.get(image.file_name()?.to_str()?)
    }

    /// Whether it says anything that can be checked.
    pub(super) fn knows(&self, image: &Path) -> bool {
        !self.parts.is_empty() || self.output(image).is_some()
    }

    /// Checks the partition of `role`, whose bytes `part` are.
    ///
    /// # Errors
    /// It is not what the manifest says.
    pub(super) fn check<D: ReadAt + ?Sized>(&self, role: Role, part: &D) -> Result<()> {
        let Some(sum) = self.parts.get(role.name()) else {
            return Ok(());
        };
        let have = part.size()?;
        if sum.size > have {
            bail!(
                "partition {} has {have} bytes, the manifest says {}",
                role.name(),
                sum.size
            );
        }
        let mut hash = Sha256::new();
        let mut piece = vec![0; 1 << 20];
        let mut at = 0;
        while at < sum.size {
            let room = piece.len().min((sum.size - at) as usize);
            part.read_exact_at(&mut piece[..room], at)?;
            hash.update(&piece[..room]);
            at += room as u64;
        }
        let digest = hex(&hash.finalize());
        if digest != sum.sha256 {
            bail!(
                "partition {} is not what the manifest says: its SHA-256 is {digest}, not {}",
                role.name(),
                sum.sha256
            );
        }
        Ok(())
    }
}

/// Hexadecimal digits, two a byte.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lies_beside_the_image_and_is_believed_only_where_it_says_something() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("larder.raw.zst");
        assert!(Manifest::beside(&image).unwrap().is_none());
        let path = folder.path().join("larder.manifest.json");
        std::fs::write(&path, "{\"version\": \"1\"}").unwrap();
        let (found, manifest) = Manifest::beside(&image).unwrap().unwrap();
        assert_eq!(found, path);
        assert!(!manifest.knows(&image));
        manifest.check(Role::RootA, &vec![1_u8; 8]).unwrap();
        let digest = hex(&Sha256::digest([1; 8]));
        let text = format!(
            "{{\"parts\": {{\"root-a\": {{\"size\": 8, \"sha256\": \"{digest}\"}}}}, \"x\": 1}}"
        );
        std::fs::write(&path, text).unwrap();
        let raw = folder.path().join("larder.raw");
        let (_, manifest) = Manifest::beside(&raw).unwrap().unwrap();
        assert!(manifest.knows(&raw));
        manifest.check(Role::RootA, &vec![1_u8; 9]).unwrap();
        let error = manifest.check(Role::RootA, &vec![2_u8; 8]).unwrap_err();
        assert!(error.to_string().contains("root-a is not what"), "{error}");
        assert!(manifest.check(Role::RootA, &vec![1_u8; 7]).is_err());
        std::fs::write(&path, "rubbish").unwrap();
        assert!(Manifest::beside(&raw).is_err());
    }
}
