//! Packages from their files, all at once, none of their scripts run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use bytes::Bytes;
use formats::deb;
use formats::tree::{Kind, Node, Tree};

use super::Root;
use super::modules::Kernel;

/// Paths that the builder itself needs, whatever the trim rules drop from the root later.
const NEEDED: &[&str] = &[
    "/usr/share/base-files/",
    "/usr/share/base-passwd/",
    "/usr/share/ca-certificates/",
    "/usr/lib/systemd/boot/efi/",
    "/usr/lib/sysusers.d/",
];

/// A package of the lock and its file.
pub type Locked = (packages::Package, PathBuf);

/// An unpacked package.
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its entries in the archive's order.
    pub files: Vec<(String, Node)>,
    /// `control`, `conffiles`, `md5sums`, …
    pub control: BTreeMap<String, Bytes>,
}

impl Package {
    /// The content of a regular file.
    pub fn content(&self, path: &str) -> Option<Bytes> {
        let (_, node) = self.files.iter().find(|(name, _)| name == path)?;
        node.content().cloned()
    }
}

/// What [`unpack`] brings.
pub struct Unpacked {
    /// The packages, in the lock's order.
    pub packages: Vec<Package>,
    /// The kernel.
    pub kernel: Kernel,
    /// Names of packages with a maintainer script whose effects nobody has declared.
    pub unknown_scripts: Vec<String>,
}

/// Unpacks packages and kernel on all processors, the largest first. What the trim rules drop and
/// nobody needs is never kept in memory.
///
/// # Errors
/// A file that can't be read or is no package (the message names both), a kernel without what it
/// should have.
pub fn unpack(config: &config::Config, system: &[Locked], kernel: &[Locked]) -> Result<Unpacked> {
    let rules = config::trim::Rules::new(&config.image.trim)?;
    let keep = |entry: &deb::Entry<'_>| {
        entry.kind == deb::EntryType::Dir
            || NEEDED.iter().any(|needed| entry.path.starts_with(needed))
            || rules.keeps(&usr_merged(entry.path))
    };
    let kernel_keep = |entry: &deb::Entry<'_>| super::modules::wanted(entry.path);
    let mut jobs: Vec<Job<'_>> = Vec::new();
    jobs.extend(system.iter().map(|locked| Job {
        locked,
        keep: &keep,
    }));
    jobs.extend(kernel.iter().map(|locked| Job {
        locked,
        keep: &kernel_keep,
    }));
    let mut packages = run(&jobs)?;
    let kernel = packages.split_off(system.len());
    let unknown = packages.iter().filter(|p| super::scripts::is_unknown(p));
    Ok(Unpacked {
        unknown_scripts: unknown.map(|package| package.name.clone()).collect(),
        packages,
        kernel: Kernel::new(&config.image.modules, kernel)?,
    })
}

/// Unpacks packages whole into one tree, as for a sysroot.
///
/// # Errors
/// As [`unpack`], and two packages with different things at one path.
pub fn unpack_plain(locked: &[Locked]) -> Result<Tree> {
    let jobs: Vec<Job<'_>> = locked
        .iter()
        .map(|locked| Job {
            locked,
            keep: &|_| true,
        })
        .collect();
    let mut root = Root::new(0)?;
    for package in run(&jobs)? {
        merge(&mut root, package)?;
    }
    Ok(root.tree)
}

struct Job<'a> {
    locked: &'a Locked,
    keep: &'a (dyn Fn(&deb::Entry<'_>) -> bool + Sync),
}

/// The packages in the order of the jobs.
fn run(jobs: &[Job<'_>]) -> Result<Vec<Package>> {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(jobs[index].locked.0.size));
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(jobs.len()));
    let work = || -> Result<()> {
        while let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let package = unpack_one(&jobs[index])?;
            done.lock()
                .unwrap_or_else(|broken| broken.into_inner())
                .push((index, package));
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads()).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker
                .join()
                .map_err(|_| anyhow::anyhow!("unpacking panicked"))??;
        }
        anyhow::Ok(())
    })?;
    let mut done = done
        .into_inner()
        .unwrap_or_else(|broken| broken.into_inner());
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, package)| package).collect())
}

fn threads() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(processors).unwrap_or(u32::MAX).min(16)
}

fn unpack_one(job: &Job<'_>) -> Result<Package> {
    let (package, path) = job.locked;
    let at = || format!("package {} ({})", package.name, path.display());
    let deb = fs::read(path).with_context(at)?;
    let origin = format!("package {}", package.name);
    // The kernel is as large as all other packages together: one thread alone would be last.
    let options = deb::Options {
        threads: threads(),
        ..deb::Options::default()
    };
    let unpacked = deb::unpack(&deb, &origin, &options, job.keep).with_context(at)?;
    Ok(Package {
        name: package.name.clone(),
        files: unpacked.files,
        control: unpacked.control,
    })
}

/// Adds a package to the root.
///
/// # Errors
/// Something else is there already: no package of trixie's that an image needs diverts another's
/// file, so there is nothing to choose by.
pub(super) fn merge(root: &mut Root, package: Package) -> Result<()> {
    for (path, mut node) in package.files {
        node.mtime = node.mtime.min(root.clock);
        if let Kind::Hardlink(target) = &mut node.kind {
            *target = usr_merged(target);
        }
        root.add(&usr_merged(&path), node)?;
    }
    root.packages.insert(package.name);
    Ok(())
}

/// The path below /usr for what a package still ships in a folder that is a link.
fn usr_merged(path: &str) -> String {
    for link in ["/bin", "/lib", "/lib64", "/sbin"] {
        if path
            .strip_prefix(link)
            .is_some_and(|rest| rest.starts_with('/'))
        {
            return format!("/usr{path}");
        }
    }
    path.to_string()
}

impl Root {
    /// Adds what a package ships. A folder may be there already, as a folder or as a link to one,
    /// and base-files ships the links of the layout too.
    fn add(&mut self, path: &str, node: Node) -> Result<()> {
        if let Some(old) = self.tree.get(path) {
            let folder = || {
                let at = self.tree.resolve(path)?;
                Some(self.tree.get(&at)?.kind == Kind::Dir)
            };
            let same_link = matches!(node.kind, Kind::Symlink(_)) && node.kind == old.kind;
            if same_link || (node.kind == Kind::Dir && folder() == Some(true)) {
                return Ok(());
            }
        }
        Ok(self.tree.add(path, node)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, files: &[(&str, Kind)]) -> Package {
        let node = |kind: &Kind| Node::new(kind.clone(), 0o644, format!("package {name}"));
        Package {
            name: name.into(),
            files: files
                .iter()
                .map(|(path, kind)| ((*path).to_string(), node(kind)))
                .collect(),
            control: BTreeMap::new(),
        }
    }

    #[test]
    fn old_paths_go_below_usr_and_links_to_folders_are_folders() {
        let mut root = Root::new(10).unwrap();
        let files = [
            ("/lib", Kind::Dir),
            ("/lib/x", Kind::File("1".into())),
            ("/libexec", Kind::Dir),
            ("/bin", Kind::Symlink("usr/bin".into())),
            ("/lib64/y", Kind::File("2".into())),
        ];
        merge(&mut root, package("a", &files)).unwrap();
        assert!(root.tree.get("/usr/lib/x").is_some());
        assert!(root.tree.get("/libexec").is_some());
        assert!(matches!(
            root.tree.get("/lib").unwrap().kind,
            Kind::Symlink(_)
        ));
    }

    #[test]
    fn two_packages_with_one_path_clash_in_words() {
        let mut root = Root::new(10).unwrap();
        merge(
            &mut root,
            package("a", &[("/etc/x", Kind::File("1".into()))]),
        )
        .unwrap();
        let other = package("b", &[("/etc/x", Kind::File("2".into()))]);
        let error = format!("{:#}", merge(&mut root, other).unwrap_err());
        assert!(
            error.contains("/etc/x") && error.contains("package a") && error.contains("package b")
        );
    }

    #[test]
    fn files_are_no_younger_than_the_lock() {
        let mut root = Root::new(10).unwrap();
        let mut young = package("a", &[("/etc/x", Kind::File("1".into()))]);
        young.files[0].1.mtime = 99;
        merge(&mut root, young).unwrap();
        assert_eq!(root.tree.get("/etc/x").unwrap().mtime, 10);
    }
}
