//! What depmod needs to know of one kernel module.

use crate::elf::{ET_REL, Elf};
use crate::inflate::{Format, inflate};

use super::DepmodError;

/// No module of Debian's decompresses to more (the largest, amdgpu, has some 25 MiB).
const MAX_MODULE: u64 = 256 << 20;

/// The parts of a module that indexes are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleInfo {
    /// `key=value` strings of `.modinfo`, in order.
    pub modinfo: Vec<(String, String)>,
    /// Symbols that it exports, in order.
    pub exports: Vec<String>,
    /// Symbols that it needs, in order.
    pub needs: Vec<String>,
}

impl ModuleInfo {
    /// All values of a `.modinfo` key.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.modinfo
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }

    /// Names of the modules that it says to depend on, `-` as `_`.
    pub fn depends(&self) -> impl Iterator<Item = String> {
        self.values("depends")
            .flat_map(|list| list.split(','))
            .filter(|name| !name.is_empty())
            .map(normal_name)
    }

    /// Modules to load before and after it if they are there (`softdep=pre: a b post: c`).
    pub fn soft_depends(&self) -> (Vec<String>, Vec<String>) {
        let (mut pre, mut post) = (Vec::new(), Vec::new());
        for text in self.values("softdep") {
            let mut list = None;
            for word in text.split_whitespace() {
                match (word, &mut list) {
                    ("pre:", _) => list = Some(true),
                    ("post:", _) => list = Some(false),
                    (name, Some(true)) => pre.push(normal_name(name)),
                    (name, Some(false)) => post.push(normal_name(name)),
                    _ => {}
                }
            }
        }
        (pre, post)
    }
}

/// A module's name as the kernel has it: `-` is `_`.
pub(super) fn normal_name(name: &str) -> String {
    name.replace('-', "_")
}

/// The module name of a file's path: `kernel/fs/fat/vfat.ko.xz` → `vfat`.
pub(super) fn name_of_path(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normal_name(file.split('.').next().unwrap_or(file))
}

/// Reads a module: `.ko`, or compressed by xz or Zstandard.
///
/// # Errors
/// [`DepmodError::Inflate`], [`DepmodError::Elf`], [`DepmodError::NotModule`], each with `path`.
pub fn read_module(path: &str, file: &[u8]) -> Result<ModuleInfo, DepmodError> {
    let format = Format::sniff(file);
    let inflated;
    let bytes = match format {
        Format::Plain => file,
        _ => {
            inflated =
                inflate(format, file, MAX_MODULE).map_err(|source| DepmodError::Inflate {
                    path: path.to_string(),
                    source,
                })?;
            &inflated
        }
    };
    let elf_error = |source| DepmodError::Elf {
        path: path.to_string(),
        source,
    };
    let elf = Elf::parse(bytes).map_err(elf_error)?;
    if elf.kind != ET_REL {
        return Err(DepmodError::NotModule(path.to_string()));
    }
    let sections = elf.sections().map_err(elf_error)?;
    let section = |name: &[u8]| sections.iter().find(|section| section.name == name);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let strings = |name: &[u8]| {
        let data = section(name).map_or(&b""[..], |section| section.data);
        data.split(|b| *b == 0).filter(|s| !s.is_empty()).map(text)
    };
    let modinfo = strings(b".modinfo")
        .filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            Some((key.to_string(), value.to_string()))
        })
        .collect();
    let mut info = ModuleInfo {
        modinfo,
        ..ModuleInfo::default()
    };
    if let Some(table) = section(b".symtab") {
        let symbols = Elf::symbols(&sections, table).map_err(elf_error)?;
        for symbol in &symbols {
            if let Some(name) = symbol.name.strip_prefix(b"__crc_") {
                info.exports.push(text(name));
            }
            if symbol.section == 0 && !symbol.name.is_empty() {
                info.needs.push(text(symbol.name));
            }
        }
    }
    // Kernels without symbol versions, such as Debian's since 6.18, have no `__crc_` symbols.
    if info.exports.is_empty() {
        info.exports.extend(strings(b"__ksymtab_strings"));
    }
    Ok(info)
}
