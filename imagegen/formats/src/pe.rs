//! PE32+ executables, as UEFI loads them (Microsoft's "PE Format"), and unified kernel images made of
//! them ([`Uki`]; UAPI group, "Unified Kernel Image").
//!
//! The reader checks all that it hands out; the writer only ever appends sections to an existing
//! image. Signing is not here.

mod uki;
pub use uki::{Measured, Uki};

#[cfg(test)]
mod tests;

/// `IMAGE_DLLCHARACTERISTICS_NX_COMPAT`: the image keeps its pages either writable or executable.
pub const NX_COMPAT: u16 = 0x0100;

/// Section flags: initialised data, readable.
const DATA: u32 = 0x4000_0040;
/// Section flags: code, readable (and not executable in place), as ukify marks `.linux`.
const CODE: u32 = 0x4000_0020;

const OPTIONAL: usize = 24;
const SECTION_HEADER: usize = 40;
/// Index of the certificate table among the data directories.
const SECURITY: u32 = 4;

/// Why a file is no PE32+ image, or cannot become a unified kernel image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PeError {
    /// A header or a section is damaged or of another format.
    #[error("{file} is not a good PE32+ image: byte {offset}: {what}")]
    Bad {
        /// Which file, in words (`the kernel`, `the boot stub`).
        file: &'static str,
        /// Offset in it.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// No room for another section header before the first section's data.
    #[error("the boot stub has no room for a header of section {0}")]
    NoRoom(String),
    /// A section that must not be there twice.
    #[error("the boot stub already has a section {0}")]
    Duplicate(String),
    /// An image with a signature cannot be changed.
    #[error("the boot stub is signed; an unsigned one is needed to build upon")]
    Signed,
    /// An input that must hold something is empty or not text.
    #[error("the {section} section {what}")]
    Section {
        /// Its name.
        section: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// More than a PE image can hold.
    #[error("the unified kernel image would have 2 GiB or more")]
    TooBig,
}

/// One section of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// Its name, up to 8 bytes.
    pub name: &'a str,
    /// Bytes in memory; more than [`Section::data`] has means zeros behind it, fewer that the rest of
    /// the data is padding of the file.
    pub virtual_size: u32,
    /// Offset in memory from the image's base.
    pub virtual_address: u32,
    /// Offset of its data in the file.
    pub offset: u32,
    /// Its data in the file, padding included.
    pub data: &'a [u8],
    /// `IMAGE_SCN_*` flags.
    pub flags: u32,
}

impl<'a> Section<'a> {
    /// The data without the file's padding: at most `virtual_size` bytes.
    pub fn content(&self) -> &'a [u8] {
        &self.data[..self.data.len().min(self.virtual_size as usize)]
    }
}

/// A parsed image.
#[derive(Clone, Debug)]
pub struct Pe<'a> {
    bytes: &'a [u8],
    file: &'static str,
    /// Offset of `PE\0\0`.
    header: usize,
    sections: Vec<Section<'a>>,
}

impl<'a> Pe<'a> {
    /// Reads the headers and finds the sections; `file` says in errors which image this is.
    ///
    /// # Errors
    /// [`PeError::Bad`].
    pub fn parse(bytes: &'a [u8], file: &'static str) -> Result<Self, PeError> {
        let bad = |offset: usize, what| PeError::Bad {
            file,
            offset: offset as u64,
            what,
        };
        if !bytes.starts_with(b"MZ") {
            return Err(bad(0, "it does not begin with MZ"));
        }
        let header = u32_at(bytes, 0x3c).ok_or_else(|| bad(0x3c, "it is cut off"))? as usize;
        if bytes.get(header..header.saturating_add(4)) != Some(b"PE\0\0") {
            return Err(bad(header, "no PE header where the DOS header says"));
        }
        let count = u16_at(bytes, header + 6).ok_or_else(|| bad(header + 6, "it is cut off"))?;
        let optional = u16_at(bytes, header + 20).unwrap_or(0) as usize;
        if u16_at(bytes, header + OPTIONAL) != Some(0x20b) || optional < 112 {
            return Err(bad(header + OPTIONAL, "it is not PE32+ (64 bit)"));
        }
        let table = header + OPTIONAL + optional;
        if table > bytes.len() {
            return Err(bad(header + OPTIONAL, "its optional header is cut off"));
        }
        let mut pe = Self {
            bytes,
            file,
            header,
            sections: Vec::with_capacity(count.into()),
        };
        let alignments = [pe.field(32), pe.field(36)];
        if alignments
            .iter()
            .any(|n| !n.is_power_of_two() || *n > 1 << 20)
        {
            return Err(bad(
                header + OPTIONAL + 32,
                "an alignment is no power of two",
            ));
        }
        for index in 0..usize::from(count) {
            let at = table + index * SECTION_HEADER;
            let head = bytes
                .get(at..at + SECTION_HEADER)
                .ok_or_else(|| bad(at, "the section table is cut off"))?;
            let word = |offset| u32_at(head, offset).unwrap_or(0);
            let name = head[..8].split(|b| *b == 0).next().unwrap_or_default();
            let name =
                std::str::from_utf8(name).map_err(|_| bad(at, "a section name is no text"))?;
            let (size, offset) = (word(16) as usize, word(20) as usize);
            // Sections without data in the file (.bss) may point anywhere.
            let data = if size == 0 {
                &[]
            } else {
                bytes
                    .get(offset..offset.saturating_add(size))
                    .ok_or_else(|| bad(at, "a section lies outside of the file"))?
            };
            pe.sections.push(Section {
                name,
                virtual_size: word(8),
                virtual_address: word(12),
                offset: offset as u32,
                data,
                flags: word(36),
            });
        }
        Ok(pe)
    }

    /// The sections in the table's order.
    pub fn sections(&self) -> &[Section<'a>] {
        &self.sections
    }

    /// The first section of that name.
    pub fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Size of the whole image in memory.
    pub fn size_of_image(&self) -> u32 {
        self.field(56)
    }

    /// `DllCharacteristics`, such as [`NX_COMPAT`].
    pub fn dll_characteristics(&self) -> u16 {
        u16_at(self.bytes, self.header + OPTIONAL + 70).unwrap_or(0)
    }

    /// Seconds since 1970 when the linker says it made the image; 0 in ours.
    pub fn time_stamp(&self) -> u32 {
        u32_at(self.bytes, self.header + 8).unwrap_or(0)
    }

    /// Whether there is a certificate table (an Authenticode signature).
    pub fn is_signed(&self) -> bool {
        self.field(108) > SECURITY && self.field(112 + 8 * SECURITY as usize + 4) != 0
    }

    /// The entries of `.sbat` sections but the first line, which names the format; empty without one.
    ///
    /// # Errors
    /// [`PeError::Bad`] if there is one that is not SBAT text.
    pub fn sbat(&self) -> Result<Vec<&'a str>, PeError> {
        let mut entries = Vec::new();
        for section in self.sections.iter().filter(|s| s.name == ".sbat") {
            let bad = || PeError::Bad {
                file: self.file,
                offset: section.offset.into(),
                what: "its .sbat section is not what shim's SBAT.md describes",
            };
            let text = std::str::from_utf8(section.content()).map_err(|_| bad())?;
            let mut lines = text.trim_end_matches('\0').lines();
            if !lines.next().is_some_and(|line| line.starts_with("sbat,")) {
                return Err(bad());
            }
            entries.extend(lines.filter(|line| !line.is_empty()));
        }
        Ok(entries)
    }

    /// A field of the optional header by its offset there (the fixed part was checked to be present).
    fn field(&self, offset: usize) -> u32 {
        u32_at(self.bytes, self.header + OPTIONAL + offset).unwrap_or(0)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(
        bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
    ))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

/// For fuzzing: any bytes are an image or a typed error, as a stub as well as a kernel.
pub fn fuzz(data: &[u8]) {
    if let Ok(pe) = Pe::parse(data, "the image") {
        let _ = pe.sbat();
        let _ = pe.is_signed();
    }
    let uki = Uki {
        stub: data,
        linux: data,
        osrel: b"ID=fuzz\n",
        cmdline: "quiet",
        initrd: b"initrd",
        uname: "6.18",
        sbat: None,
        pcrpkey: None,
        pcrsig: None,
    };
    if let Ok(image) = uki.assemble() {
        let pe = Pe::parse(&image, "our own image").map(|pe| pe.sections().len());
        assert!(pe.is_ok());
    }
}
