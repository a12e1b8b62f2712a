//! Kernel modules: `/modules/load` names them in the order in which they are loaded.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::console::Log;
use crate::worker::{Said, Worker};

const FOLDER: &str = "/modules";
const LIST: &str = "/modules/load";
/// How long a module may take before the others go on without it. A driver waits in there for the
/// disks that it finds, also for a dead one.
const PATIENCE: Duration = Duration::from_secs(5);
/// As long as one module is stuck, the ones after it wait for the same disk, though they work.
const LITTLE_PATIENCE: Duration = Duration::from_millis(300);
/// `MODULE_INIT_COMPRESSED_FILE` of linux/module.h.
const COMPRESSED: libc::c_int = 4;

/// One line of the list.
#[derive(Debug, PartialEq, Eq)]
struct Module {
    path: PathBuf,
    parameters: String,
}

/// A path (relative ones are in `/modules`) and parameters, `#` for comments.
fn parse(text: &str) -> Vec<Module> {
    let line = |line: &str| {
        let line = line.trim();
        let (path, parameters) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        (!path.is_empty() && !path.starts_with('#')).then(|| Module {
            path: Path::new(FOLDER).join(path),
            parameters: parameters.trim().into(),
        })
    };
    text.lines().filter_map(line).collect()
}

/// Loads all modules. One that does not load is said and skipped.
pub(crate) fn load(log: &mut Log) {
    let modules = match std::fs::read_to_string(LIST) {
        Ok(text) => parse(&text),
        Err(error) => return log.warn(&format!("no modules are loaded: {LIST}: {error}")),
    };
    let mut next = 0;
    let mut patience = PATIENCE;
    while next < modules.len() {
        let mut worker = match Worker::start(&["worker-modules".into(), next.to_string()]) {
            Ok(worker) => worker,
            Err(error) => return log.warn(&format!("no modules are loaded: {error}")),
        };
        let begun = next;
        loop {
            let name = || {
                let path = modules.get(next).map(|module| module.path.as_path());
                path.and_then(Path::file_name)
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned()
            };
            match worker.line(patience) {
                Said::Line(line) => {
                    if !line.is_empty() {
                        log.warn(&format!("module {} does not load: {line}", name()));
                    }
                    next += 1;
                }
                Said::End if next == begun => {
                    log.warn(&format!("module {} cannot be loaded", name()));
                    next += 1;
                    break;
                }
                Said::End => break,
                Said::Nothing => {
                    // The child goes on by itself, if it can.
                    log.warn(&format!("module {} does not get ready, going on", name()));
                    next += 1;
                    patience = LITTLE_PATIENCE;
                    break;
                }
            }
        }
    }
}

/// Duty `worker-modules`: loads all modules from number `start` on; a line for each, empty if it is
/// loaded, else the reason.
pub(crate) fn work(start: &str) -> i32 {
    let Ok(text) = std::fs::read_to_string(LIST) else {
        return 1;
    };
    let mut output = std::io::stdout();
    for module in parse(&text).iter().skip(start.parse().unwrap_or(0)) {
        let answer = match load_one(module) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        if writeln!(output, "{answer}")
            .and_then(|()| output.flush())
            .is_err()
        {
            return 1;
        }
    }
    0
}

fn load_one(module: &Module) -> std::io::Result<()> {
    let file = std::fs::File::open(&module.path)?;
    let compressed = module
        .path
        .extension()
        .is_some_and(|extension| extension != "ko");
    let parameters = std::ffi::CString::new(module.parameters.as_str())?;
    let flags = if compressed { COMPRESSED } else { 0 };
    match rustix::system::finit_module(&file, &parameters, flags) {
        // A driver without its hardware is as good as one that has nothing to do.
        Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_paths_and_parameters() {
        let module = |path: &str, parameters: &str| Module {
            path: path.into(),
            parameters: parameters.into(),
        };
        assert_eq!(
            parse("# order matters\ndm-mod.ko.xz\n\n/x/i6300esb.ko heartbeat=60 nowayout=1\n"),
            [
                module("/modules/dm-mod.ko.xz", ""),
                module("/x/i6300esb.ko", "heartbeat=60 nowayout=1")
            ]
        );
    }
}
