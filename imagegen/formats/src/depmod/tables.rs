//! The index files, in the order and with the quirks of depmod.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use super::index::Index;
use super::module::name_of_path;
use super::{Catalog, DepmodError, ModuleInfo, lines};

/// A module while dependencies are calculated.
struct Entry<'c> {
    name: &'c str,
    path: &'c str,
    info: &'c ModuleInfo,
    /// Direct dependencies: indexes, first in the order of the symbols, then sorted.
    deps: Vec<usize>,
    /// How many modules depend on it.
    users: usize,
    /// Place in the topological order, users first; None in a dependency cycle.
    rank: Option<usize>,
}

pub(super) fn write(
    catalog: &Catalog,
    names: &[&str],
) -> Result<BTreeMap<&'static str, Vec<u8>>, DepmodError> {
    let mut entries = entries(catalog, names)?;
    let owners = symbol_owners(&entries);
    link(&mut entries, &owners);
    rank(&mut entries);
    if let Some(entry) = entries.iter().find(|entry| entry.rank.is_none()) {
        return Err(DepmodError::Cycle(entry.name.to_string()));
    }

    let mut files = BTreeMap::new();
    let mut text = |name, text: String| files.insert(name, text.into_bytes());
    let mut dep = String::new();
    let mut dep_bin = Index::default();
    for (number, entry) in entries.iter().enumerate() {
        let mut line = format!("{}:", entry.path);
        for dependency in all_dependencies(&entries, number) {
            let _ = write!(line, " {}", entries[dependency].path);
        }
        dep_bin.insert(entry.name.as_bytes(), line.as_bytes(), number as u32)?;
        dep.push_str(&line);
        dep.push('\n');
    }
    text("modules.dep", dep);

    let each = |key: &'static str, head: &str, line: &dyn Fn(&str, &str) -> String| {
        let mut out = head.to_string();
        for entry in &entries {
            for value in entry.info.values(key) {
                out.push_str(&line(entry.name, value));
            }
        }
        out
    };
    text(
        "modules.alias",
        each(
            "alias",
            "# Aliases extracted from modules themselves.\n",
            &|name, value| format!("alias {value} {name}\n"),
        ),
    );
    text(
        "modules.softdep",
        each(
            "softdep",
            "# Soft dependencies extracted from modules themselves.\n",
            &|name, value| format!("softdep {name} {value}\n"),
        ),
    );
    text(
        "modules.weakdep",
        each(
            "weakdep",
            "# Weak dependencies extracted from modules themselves.\n",
            &|name, value| format!("weakdep {name} {value}\n"),
        ),
    );
    text("modules.devname", devname(&entries));

    let mut symbols = "# Aliases for symbols, used by symbol_request().\n".to_string();
    let mut symbols_bin = Index::default();
    let sorted: BTreeMap<&str, usize> = owners.iter().map(|(k, v)| (*k, *v)).collect();
    for (symbol, owner) in sorted {
        let name = entries[owner].name;
        let _ = writeln!(symbols, "alias symbol:{symbol} {name}");
        let key = format!("symbol:{symbol}");
        symbols_bin.insert(key.as_bytes(), name.as_bytes(), owner as u32)?;
    }
    text("modules.symbols", symbols);

    let mut alias_bin = Index::default();
    for (number, entry) in entries.iter().enumerate() {
        for value in entry.info.values("alias") {
            if let Some(alias) = underscores(value) {
                alias_bin.insert(alias.as_bytes(), entry.name.as_bytes(), number as u32)?;
            }
        }
    }
    files.insert("modules.dep.bin", dep_bin.write());
    files.insert("modules.alias.bin", alias_bin.write());
    files.insert("modules.symbols.bin", symbols_bin.write());
    files.insert("modules.builtin.bin", builtin(catalog)?.write());
    files.insert("modules.builtin.alias.bin", builtin_alias(catalog)?.write());
    Ok(files)
}

/// The kept modules in depmod's order: as `modules.order` lists them, then the rest by path.
fn entries<'c>(catalog: &'c Catalog, names: &[&'c str]) -> Result<Vec<Entry<'c>>, DepmodError> {
    let order: HashMap<&str, usize> = lines(&catalog.sources.order)
        .enumerate()
        .map(|(number, line)| (line, number))
        .collect();
    let mut entries = Vec::with_capacity(names.len());
    for name in names {
        let Some(path) = catalog.path(name) else {
            continue;
        };
        entries.push(Entry {
            name,
            path,
            info: catalog.info(name)?,
            deps: Vec::new(),
            users: 0,
            rank: None,
        });
    }
    entries.sort_by_cached_key(|entry| {
        // The list has names without the suffix of a compression.
        let plain = entry
            .path
            .find(".ko")
            .map_or(entry.path, |at| &entry.path[..at + 3]);
        (order.get(plain).copied().unwrap_or(usize::MAX), entry.path)
    });
    Ok(entries)
}

/// Which module exports a symbol; of several the last one.
fn symbol_owners<'c>(entries: &[Entry<'c>]) -> HashMap<&'c str, usize> {
    let mut owners = HashMap::new();
    for (number, entry) in entries.iter().enumerate() {
        for symbol in &entry.info.exports {
            owners.insert(symbol.as_str(), number);
        }
    }
    owners
}

fn link(entries: &mut [Entry<'_>], owners: &HashMap<&str, usize>) {
    for number in 0..entries.len() {
        let mut deps = Vec::new();
        let mut seen = BTreeSet::new();
        for symbol in &entries[number].info.needs {
            if let Some(owner) = owners.get(symbol.as_str())
                && seen.insert(*owner)
            {
                deps.push(*owner);
            }
        }
        for dependency in &deps {
            entries[*dependency].users += 1;
        }
        entries[number].deps = deps;
    }
}

/// depmod's topological sort: a stack of modules without (unsorted) users, the last found first.
fn rank(entries: &mut [Entry<'_>]) {
    let mut users: Vec<usize> = entries.iter().map(|entry| entry.users).collect();
    let mut roots: Vec<usize> = (0..entries.len()).filter(|n| users[*n] == 0).collect();
    let mut rank = 0;
    while let Some(number) = roots.pop() {
        entries[number].rank = Some(rank);
        rank += 1;
        for dependency in entries[number].deps.clone() {
            users[dependency] -= 1;
            if users[dependency] == 0 {
                roots.push(dependency);
            }
        }
    }
}

/// Direct and indirect dependencies, by rank.
fn all_dependencies(entries: &[Entry<'_>], number: usize) -> Vec<usize> {
    let mut found = BTreeSet::new();
    let mut todo = vec![number];
    while let Some(next) = todo.pop() {
        for dependency in &entries[next].deps {
            if found.insert(*dependency) {
                todo.push(*dependency);
            }
        }
    }
    let mut sorted: Vec<usize> = found.into_iter().collect();
    sorted.sort_by_key(|number| entries[*number].rank);
    sorted
}

/// Nodes that exist before their module: `fuse fuse c10:229`.
fn devname(entries: &[Entry<'_>]) -> String {
    let mut out = "# Device nodes to trigger on-demand module loading.\n".to_string();
    for entry in entries {
        let (mut name, mut device) = (None, None);
        for alias in entry.info.values("alias") {
            let number = |kind: &str, letter| {
                let (major, rest) = alias.strip_prefix(kind)?.split_once('-')?;
                let digits = rest
                    .find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(rest.len());
                let minor = rest[..digits].parse::<u32>().ok()?;
                Some((letter, major.parse::<u32>().ok()?, minor))
            };
            if let Some(devname) = alias.strip_prefix("devname:") {
                name = Some(devname);
            } else if let Some(found) =
                number("char-major-", 'c').or_else(|| number("block-major-", 'b'))
            {
                device = Some(found);
            }
            if let (Some(name), Some((letter, major, minor))) = (name, device) {
                let _ = writeln!(out, "{} {name} {letter}{major}:{minor}", entry.name);
                break;
            }
        }
    }
    out
}

fn builtin(catalog: &Catalog) -> Result<Index, DepmodError> {
    let mut index = Index::default();
    for line in lines(&catalog.sources.builtin) {
        index.insert(name_of_path(line).as_bytes(), b"", 0)?;
    }
    Ok(index)
}

/// `module.key=value` strings ended by NUL.
fn builtin_alias(catalog: &Catalog) -> Result<Index, DepmodError> {
    let mut index = Index::default();
    for entry in catalog.sources.builtin_modinfo.split(|b| *b == 0) {
        let parsed = std::str::from_utf8(entry).ok().and_then(|entry| {
            let (name, rest) = entry.split_once('.')?;
            underscores(rest.strip_prefix("alias=")?).map(|alias| (name, alias))
        });
        if let Some((name, alias)) = parsed {
            index.insert(alias.as_bytes(), name.as_bytes(), 0)?;
        }
    }
    Ok(index)
}

/// `-` becomes `_` outside of brackets; None if a bracket has no partner.
fn underscores(alias: &str) -> Option<String> {
    let mut out = String::with_capacity(alias.len());
    let mut inside = false;
    for c in alias.chars() {
        match c {
            ']' if !inside => return None,
            ']' => inside = false,
            '[' => inside = true,
            _ => {}
        }
        out.push(if c == '-' && !inside { '_' } else { c });
    }
    (!inside).then_some(out)
}
