//! Assembly of a unified kernel image: sections appended to systemd's `linuxx64.efi.stub`.
//!
//! The result is what `ukify build` of systemd 257 makes of the same parts, but for the time stamp
//! (cleared here) and the order of sections, which nobody depends on.

use std::borrow::Cow;

use super::{CODE, DATA, NX_COMPAT, OPTIONAL, Pe, PeError, SECTION_HEADER, u16_at};

/// First line of every `.sbat` section.
const SBAT_HEADER: &str =
    "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md";
/// The entry that says that an image is a unified kernel image; ukify's default.
const SBAT_UKI: &str =
    "uki,1,UKI,uki,1,https://uapi-group.org/specifications/specs/unified_kernel_image/";

/// The parts of a unified kernel image.
#[derive(Clone, Copy, Debug)]
pub struct Uki<'a> {
    /// systemd's `linuxx64.efi.stub`.
    pub stub: &'a [u8],
    /// The kernel (bzImage, which is a PE image as well).
    pub linux: &'a [u8],
    /// Content of os-release; the loader shows `PRETTY_NAME` and sorts by `IMAGE_VERSION`.
    pub osrel: &'a [u8],
    /// Kernel command line without NUL or newline.
    pub cmdline: &'a str,
    /// The initramfs, compressed or not.
    pub initrd: &'a [u8],
    /// Kernel release, `uname -r`.
    pub uname: &'a str,
    /// An SBAT entry of our own instead of the generic `uki,1,…`; without the header line.
    pub sbat: Option<&'a str>,
    /// Public key (PEM) that signs PCR policies.
    pub pcrpkey: Option<&'a [u8]>,
    /// Signed PCR policies (JSON), see `pcr`. The only section that is not measured.
    pub pcrsig: Option<&'a [u8]>,
}

/// A section as the stub measures it into PCR 11: its bytes, then `zeros` zero bytes.
#[derive(Clone, Debug)]
pub struct Measured<'a> {
    /// Name with the dot.
    pub name: &'static str,
    /// Content.
    pub data: Cow<'a, [u8]>,
    /// Zero bytes in memory behind the content.
    pub zeros: u64,
}

impl<'a> Uki<'a> {
    /// The sections that are measured, in no special order (`pcr` has its own).
    ///
    /// # Errors
    /// [`PeError`] for inputs that cannot become an image.
    pub fn measured(&self) -> Result<Vec<Measured<'a>>, PeError> {
        let stub = Pe::parse(self.stub, "the boot stub")?;
        let linux = Pe::parse(self.linux, "the kernel")?;
        self.parts(&stub, &linux)
    }

    fn parts(&self, stub: &Pe<'a>, linux: &Pe<'a>) -> Result<Vec<Measured<'a>>, PeError> {
        let text = |section, text: &'a str| match text {
            "" => Err(PeError::Section {
                section,
                what: "is empty",
            }),
            text if text.contains(['\0', '\n']) => Err(PeError::Section {
                section,
                what: "has a NUL or a newline",
            }),
            text => Ok(text.as_bytes()),
        };
        let bytes = |section, bytes: &'a [u8]| match bytes {
            [] => Err(PeError::Section {
                section,
                what: "is empty",
            }),
            bytes => Ok(bytes),
        };
        let part = |name, data: &'a [u8]| Measured {
            name,
            data: Cow::Borrowed(data),
            zeros: 0,
        };
        let mut parts = vec![
            part(".osrel", bytes(".osrel", self.osrel)?),
            part(".cmdline", text(".cmdline", self.cmdline)?),
            part(".uname", text(".uname", self.uname)?),
        ];
        if let Some(key) = self.pcrpkey {
            parts.push(part(".pcrpkey", bytes(".pcrpkey", key)?));
        }
        parts.push(part(".initrd", bytes(".initrd", self.initrd)?));
        parts.push(Measured {
            // Newer stubs start the kernel where it lies, so its memory must suffice for it.
            zeros: u64::from(linux.size_of_image()).saturating_sub(self.linux.len() as u64),
            ..part(".linux", self.linux)
        });

        let mut sbat = vec![SBAT_HEADER];
        sbat.extend(stub.sbat()?);
        sbat.extend(linux.sbat()?);
        sbat.push(self.sbat.unwrap_or(SBAT_UKI));
        parts.push(Measured {
            name: ".sbat",
            data: Cow::Owned(format!("{}\n\0", sbat.join("\n")).into_bytes()),
            zeros: 0,
        });
        Ok(parts)
    }

    /// The finished image. The same parts give the same bytes.
    ///
    /// # Errors
    /// [`PeError`].
    pub fn assemble(&self) -> Result<Vec<u8>, PeError> {
        let stub = Pe::parse(self.stub, "the boot stub")?;
        let linux = Pe::parse(self.linux, "the kernel")?;
        if stub.is_signed() {
            return Err(PeError::Signed);
        }
        let mut parts = self.parts(&stub, &linux)?;
        if let Some(signature) = self.pcrsig {
            parts.insert(
                parts.len() - 1,
                Measured {
                    name: ".pcrsig",
                    data: Cow::Borrowed(signature),
                    zeros: 0,
                },
            );
        }
        let total: u64 = parts.iter().map(|p| p.data.len() as u64 + p.zeros).sum();
        if total + stub.bytes.len() as u64 >= 1 << 31 {
            return Err(PeError::TooBig);
        }

        let mut image = Appender::new(&stub, total as usize)?;
        for part in &parts {
            if part.name == ".sbat" && stub.section(".sbat").is_some() {
                image.replace(part)?;
            } else {
                image.append(part)?;
            }
        }
        let keep_nx = linux.dll_characteristics() & NX_COMPAT != 0;
        Ok(image.finish(keep_nx))
    }
}

/// An image that grows.
struct Appender<'s> {
    stub: &'s Pe<'s>,
    out: Vec<u8>,
    file_align: usize,
    memory_align: u32,
    count: usize,
    /// First free address in memory.
    memory_end: u32,
    /// Where the next section header goes, and where headers must end.
    table_end: usize,
    table_limit: usize,
}

impl<'s> Appender<'s> {
    fn new(stub: &'s Pe<'s>, more: usize) -> Result<Self, PeError> {
        let bad = |what| PeError::Bad {
            file: stub.file,
            offset: stub.header as u64,
            what,
        };
        let count = stub.sections.len();
        let optional = usize::from(u16_at(stub.bytes, stub.header + 20).unwrap_or(0));
        let table = stub.header + OPTIONAL + optional;
        let first_data = stub.sections.iter().filter(|s| !s.data.is_empty());
        let first_data = first_data.map(|s| s.offset as usize).min();
        let headers = stub.field(60) as usize;
        let table_limit = headers.min(first_data.unwrap_or(headers));
        let table_end = table + count * SECTION_HEADER;
        if table_limit > stub.bytes.len() || table_end > table_limit {
            return Err(bad("its headers and sections overlap"));
        }
        let memory_end = stub
            .sections
            .iter()
            .map(|s| s.virtual_address.checked_add(s.virtual_size.max(1)))
            .collect::<Option<Vec<_>>>()
            .and_then(|ends| ends.into_iter().max())
            .filter(|end| *end < 1 << 30)
            .ok_or_else(|| bad("it has no sections, or they lie too high"))?;
        let file_align = stub.field(36) as usize;
        let mut out = Vec::with_capacity(stub.bytes.len() + more + 16 * file_align);
        out.extend_from_slice(stub.bytes);
        Ok(Self {
            stub,
            out,
            file_align,
            memory_align: stub.field(32),
            count,
            memory_end,
            table_end,
            table_limit,
        })
    }

    /// Puts data at the end of the file; offset and padded size.
    fn data(&mut self, data: &[u8]) -> (u32, u32) {
        self.align();
        let start = self.out.len();
        self.out.extend_from_slice(data);
        self.align();
        // Sizes were checked to stay under 2 GiB.
        (start as u32, (self.out.len() - start) as u32)
    }

    fn align(&mut self) {
        let aligned = self.out.len().next_multiple_of(self.file_align);
        self.out.resize(aligned, 0);
    }

    fn append(&mut self, part: &Measured<'_>) -> Result<(), PeError> {
        if self.stub.section(part.name).is_some() {
            return Err(PeError::Duplicate(part.name.to_string()));
        }
        if self.table_end + SECTION_HEADER > self.table_limit || self.count == usize::from(u16::MAX)
        {
            return Err(PeError::NoRoom(part.name.to_string()));
        }
        let (offset, size) = self.data(&part.data);
        let virtual_size = (part.data.len() as u64 + part.zeros) as u32;
        let address = self.memory_end.next_multiple_of(self.memory_align);
        self.memory_end = address
            .checked_add(virtual_size)
            .filter(|end| *end < 1 << 31)
            .ok_or(PeError::TooBig)?;
        let mut header = [0; SECTION_HEADER];
        header[..part.name.len()].copy_from_slice(part.name.as_bytes());
        let flags = if part.name == ".linux" { CODE } else { DATA };
        let words = [
            (8, virtual_size),
            (12, address),
            (16, size),
            (20, offset),
            (36, flags),
        ];
        for (at, word) in words {
            header[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        self.out[self.table_end..self.table_end + SECTION_HEADER].copy_from_slice(&header);
        self.table_end += SECTION_HEADER;
        self.count += 1;
        let initialised = self.stub_word(8).wrapping_add(virtual_size);
        self.set_word(8, initialised);
        Ok(())
    }

    /// Gives a section of the stub other data: in its place if there is room, else at the end of the
    /// file, as long as its memory does not run into the next section.
    fn replace(&mut self, part: &Measured<'_>) -> Result<(), PeError> {
        let sections = &self.stub.sections;
        let found = sections.iter().position(|s| s.name == part.name);
        let Some(index) = found else {
            return self.append(part);
        };
        let old = sections[index];
        let room = sections
            .iter()
            .map(|s| s.virtual_address)
            .filter(|address| *address > old.virtual_address)
            .min()
            .map_or(u32::MAX, |next| next - old.virtual_address);
        if part.data.len() > room as usize {
            return Err(PeError::NoRoom(part.name.to_string()));
        }
        let (offset, size) = if part.data.len() <= old.data.len() {
            let start = old.offset as usize;
            let place = &mut self.out[start..start + old.data.len()];
            place.fill(0);
            place[..part.data.len()].copy_from_slice(&part.data);
            (old.offset, old.data.len() as u32)
        } else {
            self.data(&part.data)
        };
        let header = self.table_end - (self.count - index) * SECTION_HEADER;
        for (at, word) in [(8, part.data.len() as u32), (16, size), (20, offset)] {
            self.out[header + at..header + at + 4].copy_from_slice(&word.to_le_bytes());
        }
        Ok(())
    }

    fn stub_word(&self, offset: usize) -> u32 {
        super::u32_at(&self.out, self.stub.header + OPTIONAL + offset).unwrap_or(0)
    }

    fn set_word(&mut self, offset: usize, word: u32) {
        let at = self.stub.header + OPTIONAL + offset;
        self.out[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }

    fn finish(mut self, keep_nx: bool) -> Vec<u8> {
        let header = self.stub.header;
        self.out[header + 6..header + 8].copy_from_slice(&(self.count as u16).to_le_bytes());
        self.out[header + 8..header + 12].fill(0); // TimeDateStamp
        let size = self.memory_end.next_multiple_of(self.memory_align);
        self.set_word(56, size); // SizeOfImage
        self.set_word(64, 0); // CheckSum, which UEFI does not look at
        if !keep_nx {
            // An image that promises what its kernel does not keep would fault.
            let flags = self.stub.dll_characteristics() & !NX_COMPAT;
            let at = header + OPTIONAL + 70;
            self.out[at..at + 2].copy_from_slice(&flags.to_le_bytes());
        }
        self.out
    }
}
