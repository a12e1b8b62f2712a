//! The ext4 file systems, read by `ext4-view`: a second opinion beside our own reader.

use std::sync::Arc;

use ext4_view::{Ext4, Ext4Error, Ext4Read};
use formats::gpt::{Entry, Role};
use formats::region::{ReadAt, Region};

use super::{Checks, words};
use crate::image::{Device, Image};
use crate::size;

/// More names than this no file system that is read as a whole has.
const MOST_ENTRIES: usize = 1_000_000;
/// Folders in folders; only a damaged file system has more.
const MOST_DEPTH: usize = 100;

/// A partition as ext4-view wants it.
struct View<D> {
    device: Arc<D>,
    start: u64,
    size: u64,
}

impl<D: Device> Ext4Read for View<D> {
    fn read(
        &mut self,
        start: u64,
        out: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let region = Region::new(&*self.device, self.start, self.size);
        Ok(region.read_exact_at(out, start)?)
    }
}

fn load<D: Device>(image: &Image<D>, entry: &Entry) -> Result<Ext4, Ext4Error> {
    Ext4::load(Box::new(View {
        device: image.device().clone(),
        start: entry.start,
        size: entry.size,
    }))
}

/// A root: every folder listed, every file read. Whether all of it could be.
pub(super) fn sealed<D: Device>(image: &Image<D>, role: Role, checks: &mut Checks) -> bool {
    let Some(entry) = image.part(role) else {
        return false;
    };
    let found = load(image, entry)
        .map_err(|error| words(&error))
        .and_then(|view| walk(&view, entry.size));
    match found {
        Ok((files, bytes)) => {
            checks.ok(
                role.name(),
                format!(
                    "ext4, read by ext4-view: {files} names, {} of files",
                    size::show(bytes)
                ),
            );
            true
        }
        Err(text) => {
            checks.fail(
                role.name(),
                format!(
                    "ext4, read by ext4-view: {text} (from byte {} of the disk)",
                    entry.start
                ),
            );
            false
        }
    }
}

/// Reads everything; how many names, and bytes of files.
fn walk(view: &Ext4, partition: u64) -> Result<(usize, u64), String> {
    let (mut names, mut bytes) = (0, 0_u64);
    let mut todo = vec![(ext4_view::PathBuf::new("/"), 0)];
    let mut buffer = vec![0; 1 << 18];
    while let Some((folder, depth)) = todo.pop() {
        let at = |path: &ext4_view::PathBuf, error: Ext4Error| {
            format!("{}: {}", path.display(), words(&error))
        };
        for entry in view.read_dir(&folder).map_err(|e| at(&folder, e))? {
            let entry = entry.map_err(|e| at(&folder, e))?;
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let path = entry.path();
            names += 1;
            if names > MOST_ENTRIES || depth > MOST_DEPTH {
                return Err(format!("{}: more than can be", path.display()));
            }
            let meta = entry.metadata().map_err(|e| at(&path, e))?;
            if meta.is_dir() {
                todo.push((path, depth + 1));
            } else if meta.is_symlink() {
                view.read_link(&path).map_err(|e| at(&path, e))?;
            } else if meta.file_type().is_regular_file() {
                bytes = bytes.saturating_add(meta.len());
                // Holes and hard links may count more than once, not without end.
                if meta.len() > partition || bytes / 16 > partition {
                    return Err(format!("{}: more bytes than can be", path.display()));
                }
                let mut file = view.open(&path).map_err(|e| at(&path, e))?;
                while file.read_bytes(&mut buffer).map_err(|e| at(&path, e))? > 0 {}
            }
        }
    }
    Ok((names, bytes))
}

/// State or `/cas`: the file system loads (its journal replayed in memory) and its first folder can
/// be read. Nothing else there has a checksum, and a service may be at work in it.
pub(super) fn writable<D: Device>(image: &Image<D>, role: Role, checks: &mut Checks) {
    let Some(entry) = image.part(role) else {
        return;
    };
    let found = load(image, entry).and_then(|view| {
        let mut names = 0;
        for entry in view.read_dir("/")? {
            entry?.metadata()?;
            names += 1;
        }
        Ok((view.label().display().to_string(), names))
    });
    match found {
        Ok((label, names)) => {
            let text = match (&*label, names) {
                (formats::ext4::PRISTINE_LABEL, 3) => {
                    "ext4, pristine: the first boot makes it anew".to_string()
                }
                (formats::ext4::PRISTINE_LABEL, _) => {
                    "ext4, called pristine, but there is something in it".to_string()
                }
                _ => format!("ext4, in use, labelled {label:?}"),
            };
            checks.ok(role.name(), text);
        }
        Err(error) => checks.fail(
            role.name(),
            format!(
                "ext4: {} (from byte {} of the disk)",
                words(&error),
                entry.start
            ),
        ),
    }
}
