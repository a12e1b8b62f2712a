//! A unified kernel image taken apart.

use std::borrow::Cow;

use anyhow::{Context, Result, ensure};
use formats::pcr;
use formats::pe::{Measured, Pe};
use formats::verity::RootHash;
use packages::Digest;
use serde::Serialize;

/// Most memory that a section may ask for; only a damaged one asks for more.
const MOST_MEMORY: u32 = 1 << 30;

/// A boot image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uki {
    /// Its path on the ESP.
    pub path: String,
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// Whether it carries a Secure Boot signature.
    pub signed: bool,
    /// The sections that make it a boot image, in the order of the file.
    pub sections: Vec<Section>,
    /// os-release.
    pub osrel: String,
    /// Kernel command line.
    pub cmdline: String,
    /// Kernel release.
    pub uname: String,
    /// PCR 11 (SHA-256 bank) as the stub leaves it, before the words of boot phases.
    pub pcr11: Digest,
    /// Whether a signed policy for PCR 11 is in it.
    pub pcr_signed: bool,
}

/// A section of a boot image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Offset of its content in the file.
    pub offset: u64,
    /// Bytes of content.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Digest,
}

impl Uki {
    /// Takes the file at `path` (of the ESP) apart.
    ///
    /// # Errors
    /// What is missing or damaged, with its offset.
    pub fn parse(path: &str, file: &[u8]) -> Result<Self> {
        let pe = Pe::parse(file, "the boot image")?;
        let text = |name: &str| -> Result<String> {
            let section = pe.section(name).with_context(|| format!("no {name}"))?;
            let text = std::str::from_utf8(section.content())
                .map_err(|_| anyhow::anyhow!("its {name} (byte {}) is no text", section.offset))?;
            // Sections may be padded.
            Ok(text.trim_end_matches('\0').trim_end().to_string())
        };
        for name in [".linux", ".initrd"] {
            pe.section(name).with_context(|| format!("no {name}"))?;
        }
        let mut sections = Vec::new();
        let mut measured = Vec::new();
        for section in pe.sections() {
            ensure!(
                section.virtual_size <= MOST_MEMORY,
                "its {} wants {} bytes of memory",
                section.name,
                section.virtual_size
            );
            let content = section.content();
            let known = pcr::ORDER.iter().find(|name| **name == section.name);
            if let Some(&name) = known {
                measured.push(Measured {
                    name,
                    data: Cow::Borrowed(content),
                    zeros: u64::from(section.virtual_size) - content.len() as u64,
                });
            }
            if known.is_some() || section.name == ".pcrsig" {
                sections.push(Section {
                    name: section.name.to_string(),
                    offset: section.offset.into(),
                    size: content.len() as u64,
                    sha256: Digest::of(content),
                });
            }
        }
        Ok(Self {
            path: path.to_string(),
            size: file.len() as u64,
            sha256: Digest::of(file),
            signed: pe.is_signed(),
            sections,
            osrel: text(".osrel")?,
            cmdline: text(".cmdline")?,
            uname: text(".uname")?,
            pcr11: Digest(pcr::Value::of_sections(&measured).0),
            pcr_signed: pe.section(".pcrsig").is_some(),
        })
    }

    /// The root that it boots.
    ///
    /// # Errors
    /// No `roothash=` on the command line, or one that is no root hash.
    pub fn root_hash(&self) -> Result<RootHash> {
        let hash = self
            .cmdline
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix("roothash="))
            .context("no roothash= on its command line")?;
        Ok(hash.parse()?)
    }

    /// A field of os-release, without its quotes.
    pub fn os_release(&self, key: &str) -> Option<&str> {
        let value = self
            .osrel
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(value.trim_matches('"'))
    }
}
