//! What `depmod` makes for libkmod and udev out of kernel modules: `modules.dep`, `modules.alias`
//! and the rest, text and binary, as kmod 34 of trixie writes them; and which modules, in which order,
//! have to be loaded for a given one.
//!
//! Modules are read lazily: looking for what a few modules depend on decompresses only those.
//!
//! The only difference from depmod's files: `modules.symbols` is sorted (depmod writes it in the
//! order of a hash table; nothing reads that file, programs use `modules.symbols.bin`).

mod index;
mod module;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::elf::ElfError;
use crate::inflate::InflateError;
pub use module::{ModuleInfo, read_module};
use module::{name_of_path, normal_name};

/// Why modules cannot be indexed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DepmodError {
    /// A module cannot be decompressed.
    #[error("{path}: {source}")]
    Inflate {
        /// The module's file.
        path: String,
        /// Why.
        source: InflateError,
    },
    /// A module is no ELF file.
    #[error("{path}: {source}")]
    Elf {
        /// The module's file.
        path: String,
        /// Why.
        source: ElfError,
    },
    /// An ELF file, but not a relocatable one.
    #[error("{0} is not a kernel module")]
    NotModule(String),
    /// Two files give the same module.
    #[error("module {name} is there twice: {first} and {second}")]
    Twice {
        /// The module's name.
        name: String,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
    /// A module that was asked for, or that another one depends on, does not exist.
    #[error("there is no module {name}{}", .needed_by.as_ref().map_or_else(
        || " in this kernel, neither as a file nor built in".to_string(),
        |by| format!(", which {by} depends on")))]
    Missing {
        /// The module's name.
        name: String,
        /// Whose dependency it is.
        needed_by: Option<String>,
    },
    /// Modules that depend on each other cannot be loaded.
    #[error("module {0} depends on itself, through others")]
    Cycle(String),
    /// The index format knows 7-bit characters only.
    #[error("{0:?} cannot be put into an index: only ASCII is allowed there")]
    NotAscii(String),
    /// A binary index is damaged.
    #[error("damaged module index at byte {offset}: {what}")]
    BadIndex {
        /// Offset in the file.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// The files of `/lib/modules/VERSION` that come with a kernel; all but `modules` may be empty.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Modules: path relative to that folder (`kernel/fs/fat/vfat.ko.xz`) and content.
    pub modules: Vec<(String, Bytes)>,
    /// `modules.order`.
    pub order: Bytes,
    /// `modules.builtin`.
    pub builtin: Bytes,
    /// `modules.builtin.modinfo`.
    pub builtin_modinfo: Bytes,
}

struct Module {
    path: String,
    file: Bytes,
    info: OnceLock<Result<ModuleInfo, DepmodError>>,
}

/// The modules of one kernel, by name.
pub struct Catalog {
    modules: BTreeMap<String, Module>,
    builtin: BTreeSet<String>,
    sources: Sources,
}

impl Catalog {
    /// Takes the files in; no module is read yet.
    ///
    /// # Errors
    /// [`DepmodError::Twice`].
    pub fn new(mut sources: Sources) -> Result<Self, DepmodError> {
        let mut modules: BTreeMap<String, Module> = BTreeMap::new();
        for (path, file) in std::mem::take(&mut sources.modules) {
            let name = name_of_path(&path);
            if let Some(first) = modules.get(&name) {
                return Err(DepmodError::Twice {
                    name,
                    first: first.path.clone(),
                    second: path,
                });
            }
            let info = OnceLock::new();
            modules.insert(name, Module { path, file, info });
        }
        let builtin = lines(&sources.builtin).map(name_of_path).collect();
        Ok(Self {
            modules,
            builtin,
            sources,
        })
    }

    /// Whether there is a file for the module.
    pub fn contains(&self, name: &str) -> bool {
        self.modules.contains_key(&normal_name(name))
    }

    /// Whether the module is part of the kernel itself.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&normal_name(name))
    }

    /// The path of a module's file, relative to the folder of the kernel's modules.
    pub fn path(&self, name: &str) -> Option<&str> {
        let module = self.modules.get(&normal_name(name))?;
        Some(&module.path)
    }

    /// Names of all modules that are files, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    /// Reads a module, once.
    ///
    /// # Errors
    /// [`DepmodError::Missing`] and those of [`read_module`].
    pub fn info(&self, name: &str) -> Result<&ModuleInfo, DepmodError> {
        let module = self.modules.get(&normal_name(name));
        let module = module.ok_or_else(|| DepmodError::Missing {
            name: name.to_string(),
            needed_by: None,
        })?;
        let info = || read_module(&module.path, &module.file);
        module.info.get_or_init(info).as_ref().map_err(Clone::clone)
    }

    /// Reads several modules with several threads; errors stay with the modules.
    fn read_all<'n>(&self, names: impl Iterator<Item = &'n str>, threads: usize) {
        let todo: Vec<&Module> = names
            .filter_map(|name| self.modules.get(name))
            .filter(|module| module.info.get().is_none())
            .collect();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(module) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
                module
                    .info
                    .get_or_init(|| read_module(&module.path, &module.file));
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(todo.len()) {
                scope.spawn(work);
            }
            work();
        });
    }

    /// The names of all modules that have to be loaded for `wanted`, in an order in which they can
    /// be loaded. Built-in ones need nothing. Soft dependencies are included where they exist by
    /// name; aliases are not looked up.
    ///
    /// # Errors
    /// [`DepmodError::Missing`], [`DepmodError::Cycle`] and those of [`read_module`].
    pub fn closure(&self, wanted: &[&str], threads: usize) -> Result<Vec<&str>, DepmodError> {
        // Read level by level, so that threads have something to share.
        let mut level: BTreeSet<String> = wanted.iter().map(|name| normal_name(name)).collect();
        let mut seen = BTreeSet::new();
        while !level.is_empty() {
            self.read_all(level.iter().map(String::as_str), threads);
            let mut next = BTreeSet::new();
            for name in &level {
                if let Some(Ok(info)) = self.modules.get(name).and_then(|m| m.info.get()) {
                    let (pre, post) = info.soft_depends();
                    next.extend(info.depends().chain(pre).chain(post));
                }
            }
            seen.append(&mut level);
            level = next.difference(&seen).cloned().collect();
        }

        let mut order = Vec::new();
        let mut state = BTreeMap::new();
        for name in wanted {
            self.visit(&normal_name(name), None, false, &mut state, &mut order)?;
        }
        Ok(order)
    }

    /// Depth first: what `name` needs, then itself. `state`: false while its dependencies are
    /// visited, true when it is in `order`.
    fn visit<'c>(
        &'c self,
        name: &str,
        needed_by: Option<&str>,
        soft: bool,
        state: &mut BTreeMap<&'c str, bool>,
        order: &mut Vec<&'c str>,
    ) -> Result<(), DepmodError> {
        let Some((name, _)) = self.modules.get_key_value(name) else {
            if soft || self.builtin.contains(name) {
                return Ok(());
            }
            return Err(DepmodError::Missing {
                name: name.to_string(),
                needed_by: needed_by.map(str::to_string),
            });
        };
        match state.get(name.as_str()) {
            Some(true) => return Ok(()),
            // Modules may name each other as soft dependencies.
            Some(false) if soft => return Ok(()),
            Some(false) => return Err(DepmodError::Cycle(name.clone())),
            None => {}
        }
        state.insert(name, false);
        let info = self.info(name)?;
        let (pre, post) = info.soft_depends();
        for soft in &pre {
            self.visit(soft, Some(name), true, state, order)?;
        }
        for hard in info.depends() {
            self.visit(&hard, Some(name), false, state, order)?;
        }
        state.insert(name, true);
        order.push(name);
        for soft in &post {
            self.visit(soft, Some(name), true, state, order)?;
        }
        Ok(())
    }

    /// The index files for the modules that `keep` says yes to, by file name. What a kept module
    /// needs of one that is not kept is left out, as depmod does with unknown symbols.
    ///
    /// # Errors
    /// [`DepmodError::NotAscii`], [`DepmodError::Cycle`] and those of [`read_module`].
    pub fn index(
        &self,
        keep: impl Fn(&str) -> bool,
        threads: usize,
    ) -> Result<BTreeMap<&'static str, Vec<u8>>, DepmodError> {
        let names: Vec<&str> = self.names().filter(|name| keep(name)).collect();
        self.read_all(names.iter().copied(), threads);
        tables::write(self, &names)
    }
}

/// The lines of a text file of a kernel.
fn lines(file: &Bytes) -> impl Iterator<Item = &str> {
    file.split(|b| *b == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .filter(|line| !line.is_empty())
}

/// For fuzzing: any bytes are a module, an index, or a typed error.
pub fn fuzz(data: &[u8]) {
    let _ = index::read(data, &mut |_, _| {});
    if read_module("fuzz.ko", data).is_ok() {
        let sources = Sources {
            modules: vec![("fuzz.ko".to_string(), Bytes::copy_from_slice(data))],
            builtin_modinfo: Bytes::copy_from_slice(data),
            ..Sources::default()
        };
        if let Ok(catalog) = Catalog::new(sources) {
            let _ = catalog.index(|_| true, 1);
            let _ = catalog.closure(&["fuzz"], 1);
        }
    }
}
