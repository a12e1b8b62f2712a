//! A small reader of 64-bit little-endian ELF files (System V gABI): what shared libraries and
//! kernel modules need, nothing else. Every offset is checked; nothing is allocated by a size that
//! the file claims.

/// `e_type` of relocatable files, which kernel modules are.
pub const ET_REL: u16 = 1;
/// `e_type` of shared objects (and of position-independent executables).
pub const ET_DYN: u16 = 3;
/// `e_machine` of x86-64.
pub const EM_X86_64: u16 = 62;
/// `e_machine` of 64-bit ARM.
pub const EM_AARCH64: u16 = 183;
/// Program header: the dynamic section.
pub const PT_DYNAMIC: u32 = 2;
/// Program header: the interpreter of an executable.
pub const PT_INTERP: u32 = 3;
/// Program header: notes.
pub const PT_NOTE: u32 = 4;
/// Program header: a part that is loaded into memory.
pub const PT_LOAD: u32 = 1;
/// Program header: GNU properties, a note of its own.
pub const PT_GNU_PROPERTY: u32 = 0x6474_e553;

const SHT_NOBITS: u32 = 8;
const HEADER: usize = 64;
const SECTION: usize = 64;
const PROGRAM: usize = 56;
const SYMBOL: usize = 24;

/// Why bytes are no ELF file that we read.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ElfError {
    /// Another format, 32 bit or big-endian.
    #[error("not a 64-bit little-endian ELF file")]
    NotElf64,
    /// Damaged or cut off.
    #[error("damaged ELF file at byte {offset}: {what}")]
    Damaged {
        /// Offset of the structure.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// A section of the file.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// `SHT_*`.
    pub kind: u32,
    /// Its bytes; empty for `.bss` and the like.
    pub data: &'a [u8],
    /// Index of a related section, such as the string table of a symbol table.
    pub link: u32,
}

/// A program header.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// `PT_*`.
    pub kind: u32,
    /// Address in memory.
    pub address: u64,
    /// Its bytes in the file.
    pub data: &'a [u8],
}

/// An entry of `.symtab`.
#[derive(Clone, Copy, Debug)]
pub struct Symbol<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Index of the section that defines it; 0: undefined.
    pub section: u16,
}

/// A parsed file.
#[derive(Clone, Debug)]
pub struct Elf<'a> {
    bytes: &'a [u8],
    /// `ET_*`.
    pub kind: u16,
    /// `EM_*`.
    pub machine: u16,
    /// `e_flags`.
    pub flags: u32,
}

impl<'a> Elf<'a> {
    /// Looks at the header.
    ///
    /// # Errors
    /// [`ElfError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ElfError> {
        // Magic, ELFCLASS64, ELFDATA2LSB, version 1.
        if !bytes.starts_with(b"\x7fELF\x02\x01\x01") {
            return Err(ElfError::NotElf64);
        }
        if bytes.len() < HEADER {
            return Err(damaged(0, "the header is cut off"));
        }
        Ok(Self {
            bytes,
            kind: u16_at(bytes, 16),
            machine: u16_at(bytes, 18),
            flags: u32_at(bytes, 48),
        })
    }

    /// All sections; their index is their place in the list.
    ///
    /// # Errors
    /// [`ElfError::Damaged`].
    pub fn sections(&self) -> Result<Vec<Section<'a>>, ElfError> {
        let at = u64_at(self.bytes, 40);
        let count = usize::from(u16_at(self.bytes, 60));
        let names = usize::from(u16_at(self.bytes, 62));
        if count == 0 {
            return Ok(Vec::new());
        }
        if usize::from(u16_at(self.bytes, 58)) != SECTION {
            return Err(damaged(58, "section headers of an unknown size"));
        }
        let table = self.table(
            at,
            count,
            SECTION,
            "the section headers lie outside of the file",
        )?;
        let data = |header: &[u8]| -> Result<&'a [u8], ElfError> {
            if u32_at(header, 4) == SHT_NOBITS {
                return Ok(&[]);
            }
            let start = u64_at(header, 24);
            self.slice(
                start,
                u64_at(header, 32),
                "a section lies outside of the file",
            )
        };
        let names = match table.chunks_exact(SECTION).nth(names) {
            Some(header) => data(header)?,
            None => return Err(damaged(62, "no section holds the section names")),
        };
        table
            .chunks_exact(SECTION)
            .map(|header| {
                Ok(Section {
                    name: string(names, u32_at(header, 0) as usize)
                        .ok_or_else(|| damaged(at, "a section without a name"))?,
                    kind: u32_at(header, 4),
                    data: data(header)?,
                    link: u32_at(header, 40),
                })
            })
            .collect()
    }

    /// The program headers.
    ///
    /// # Errors
    /// [`ElfError::Damaged`].
    pub fn segments(&self) -> Result<Vec<Segment<'a>>, ElfError> {
        let at = u64_at(self.bytes, 32);
        let count = usize::from(u16_at(self.bytes, 56));
        if count == 0 {
            return Ok(Vec::new());
        }
        if usize::from(u16_at(self.bytes, 54)) != PROGRAM {
            return Err(damaged(54, "program headers of an unknown size"));
        }
        let table = self.table(
            at,
            count,
            PROGRAM,
            "the program headers lie outside of the file",
        )?;
        table
            .chunks_exact(PROGRAM)
            .map(|header| {
                Ok(Segment {
                    kind: u32_at(header, 0),
                    address: u64_at(header, 16),
                    data: self.slice(
                        u64_at(header, 8),
                        u64_at(header, 32),
                        "a segment lies outside of the file",
                    )?,
                })
            })
            .collect()
    }

    /// The entries of a symbol table section but the first, empty one.
    ///
    /// # Errors
    /// [`ElfError::Damaged`].
    pub fn symbols(
        sections: &[Section<'a>],
        table: &Section<'a>,
    ) -> Result<Vec<Symbol<'a>>, ElfError> {
        let strings = sections
            .get(table.link as usize)
            .ok_or_else(|| damaged(0, "a symbol table without a string table"))?;
        table
            .data
            .chunks_exact(SYMBOL)
            .skip(1)
            .map(|symbol| {
                Ok(Symbol {
                    name: string(strings.data, u32_at(symbol, 0) as usize)
                        .ok_or_else(|| damaged(0, "a symbol's name lies outside of its table"))?,
                    section: u16_at(symbol, 6),
                })
            })
            .collect()
    }

    /// The bytes in memory from `address` to the end of the segment that holds it.
    pub fn memory(segments: &[Segment<'a>], address: u64) -> Option<&'a [u8]> {
        segments
            .iter()
            .filter(|segment| segment.kind == PT_LOAD)
            .find_map(|segment| {
                let offset = address.checked_sub(segment.address)?;
                segment.data.get(usize::try_from(offset).ok()?..)
            })
            .filter(|bytes| !bytes.is_empty())
    }

    fn table(
        &self,
        at: u64,
        count: usize,
        size: usize,
        what: &'static str,
    ) -> Result<&'a [u8], ElfError> {
        self.slice(at, (count * size) as u64, what)
    }

    fn slice(&self, at: u64, size: u64, what: &'static str) -> Result<&'a [u8], ElfError> {
        let start = usize::try_from(at).ok();
        let end = at
            .checked_add(size)
            .and_then(|end| usize::try_from(end).ok());
        start
            .zip(end)
            .and_then(|(start, end)| self.bytes.get(start..end))
            .ok_or_else(|| damaged(at, what))
    }
}

/// The string at `at` of a string table, without its NUL.
pub fn string(table: &[u8], at: usize) -> Option<&[u8]> {
    let tail = table.get(at..)?;
    tail.iter().position(|b| *b == 0).map(|end| &tail[..end])
}

/// Pairs of tag and value of a dynamic section, up to `DT_NULL`.
pub fn dynamic(data: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    data.chunks_exact(16)
        .map(|entry| (u64_at(entry, 0), u64_at(entry, 8)))
        .take_while(|(tag, _)| *tag != 0)
}

/// Notes as (owner without NUL, type, description). `align` is 4, or 8 for GNU properties.
pub fn notes(mut data: &[u8], align: usize) -> Vec<(&[u8], u32, &[u8])> {
    let mut notes = Vec::new();
    while data.len() >= 12 {
        let name_size = u32_at(data, 0) as usize;
        let size = u32_at(data, 4) as usize;
        let kind = u32_at(data, 8);
        let body = (12 + name_size).next_multiple_of(align);
        let (Some(name), Some(text)) = (
            data.get(12..12 + name_size),
            data.get(body..body.saturating_add(size)),
        ) else {
            break;
        };
        notes.push((name.strip_suffix(&[0]).unwrap_or(name), kind, text));
        let next = (body + size).next_multiple_of(align);
        data = data.get(next..).unwrap_or_default();
    }
    notes
}

fn damaged(offset: u64, what: &'static str) -> ElfError {
    ElfError::Damaged { offset, what }
}

/// Fields of structures whose size was checked; beyond the end they are 0.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    array(bytes, at).map_or(0, u16::from_le_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    array(bytes, at).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    array(bytes, at).map_or(0, u64::from_le_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// For fuzzing: any bytes are an ELF file or a typed error.
pub fn fuzz(data: &[u8]) {
    let Ok(elf) = Elf::parse(data) else { return };
    if let Ok(sections) = elf.sections() {
        for section in &sections {
            let _ = Elf::symbols(&sections, section);
        }
    }
    if let Ok(segments) = elf.segments() {
        for segment in &segments {
            dynamic(segment.data).for_each(drop);
            notes(segment.data, 4);
            notes(segment.data, 8);
            Elf::memory(&segments, segment.address.wrapping_add(5));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// This very test program is an ELF file, and readelf knows it too.
    #[test]
    fn readelf_agrees() {
        let path = std::env::current_exe().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let elf = Elf::parse(&bytes).unwrap();
        let output = Command::new("readelf")
            .args(["-SW"])
            .arg(&path)
            .output()
            .expect("readelf of binutils (make test installs it)");
        let text = String::from_utf8(output.stdout).unwrap();
        let sections = elf.sections().unwrap();
        for section in &sections[1..] {
            let name = std::str::from_utf8(section.name).unwrap();
            assert!(text.contains(&format!("] {name} ")), "{name}");
        }
        assert!(text.starts_with(&format!("There are {} section headers", sections.len())));
        let symtab = sections.iter().find(|s| s.name == b".symtab").unwrap();
        let symbols = Elf::symbols(&sections, symtab).unwrap();
        assert!(symbols.iter().any(|s| s.name == b"main" && s.section != 0));
        let segments = elf.segments().unwrap();
        let build_id = segments
            .iter()
            .filter(|s| s.kind == PT_NOTE)
            .flat_map(|s| notes(s.data, 4))
            .any(|(name, kind, text)| name == b"GNU" && (kind, text.len()) == (3, 20));
        let wanted = text.contains(".note.gnu.build-id");
        assert_eq!(build_id, wanted);
    }

    #[test]
    fn fuzz_for_a_second() {
        let mut seed = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        // The header, the program headers and a bit; then the section headers, moved close.
        let table = u64_at(&seed, 40) as usize;
        let count = usize::from(u16_at(&seed, 60));
        let sections = seed[table..table + count * SECTION].to_vec();
        seed.truncate(8192);
        seed[40..48].copy_from_slice(&8192u64.to_le_bytes());
        seed.extend(sections);
        crate::fuzzing::mutate_for(std::time::Duration::from_millis(500), &[seed], fuzz);
    }
}
