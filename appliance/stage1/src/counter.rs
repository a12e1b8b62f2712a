//! Boots since the last healthy one, and the other slot after three of them.

use std::path::{Path, PathBuf};

use slots::{Advice, Attempts, Entry, StateStatus, advise, efivar};

use crate::SYSROOT;
use crate::console::{self, Fatal, Log};

/// Where the count is kept, below the root.
const FOLDER: &str = "var/lib/larder/boot";

/// Counts this boot. Does not return if the other slot is to boot: the boot loader has made its
/// choice for this boot already, so it is asked for the next one and the machine reboots at once.
pub(crate) fn count(state: StateStatus, entries: &[Entry], log: &mut Log) -> Result<u32, Fatal> {
    if state == StateStatus::Tmpfs {
        log.say("this boot is not counted");
        return Ok(1);
    }
    let folder = PathBuf::from(SYSROOT).join(FOLDER);
    let before = Attempts::load(&folder).unwrap_or_else(|error| {
        log.warn(&error.to_string());
        Attempts::default()
    });
    let mut attempts = before.one_more();
    let efi = Path::new(efivar::FOLDER);
    let booted = efivar::read(efi, efivar::ENTRY_SELECTED).ok().flatten();
    let advice = advise(attempts, booted.as_deref(), entries);
    attempts.asked |= matches!(advice, Advice::AskFor(_));
    // Durable before the boot loader is asked: a machine never goes round in circles.
    if let Err(error) = attempts.store(&folder) {
        log.warn(&format!("this boot is not counted: {error}"));
        return Ok(attempts.boots);
    }
    let unhealthy = attempts.boots - 1;
    match advice {
        Advice::GoOn => log.say(&format!("boots since the last healthy one: {unhealthy}")),
        Advice::AlreadyAsked => log.warn(&format!(
            "{unhealthy} boots in a row were not healthy, and the other image was tried already"
        )),
        Advice::NoOther => log.warn(&format!(
            "{unhealthy} boots in a row were not healthy, and there is no other image to boot{}",
            if booted.is_none() {
                " (no boot loader to ask)"
            } else {
                ""
            }
        )),
        Advice::AskFor(other) => {
            log.warn(&format!(
                "{unhealthy} boots in a row were not healthy, trying {other}"
            ));
            match efivar::write(efi, efivar::ENTRY_ONE_SHOT, &other) {
                Ok(()) => {
                    let var = format!("{SYSROOT}/var");
                    if let Err(error) = disk::mount::unmount(Path::new(&var)) {
                        log.warn(&error.to_string());
                    }
                    console::reboot();
                }
                Err(error) => log.warn(&format!("the boot loader cannot be asked: {error}")),
            }
        }
    }
    Ok(attempts.boots)
}
