//! What runs before the boot loader.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The firmware of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Firmware {
    /// QEMU's own SeaBIOS; for direct kernel boots.
    #[default]
    SeaBios,
    /// UEFI from Debian's `ovmf`.
    Ovmf {
        /// The machine's own copy of the variable store. Made from the pristine one if it does not
        /// exist; kept, so the next start of the same machine sees what this one wrote. None: a
        /// pristine one at each start.
        vars: Option<PathBuf>,
    },
}

/// The two files of the UEFI firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OvmfFiles {
    /// The code, mapped read-only.
    pub code: PathBuf,
    /// The pristine variable store (setup mode, no keys).
    pub vars: PathBuf,
}

/// Finds the 4 MiB build of OVMF where Debian 12 and 13 put it.
///
/// # Errors
/// [`Error::MissingFirmware`] names the file and the package.
pub fn find_ovmf() -> Result<OvmfFiles> {
    find_ovmf_in(Path::new("/usr/share/OVMF"))
}

fn find_ovmf_in(folder: &Path) -> Result<OvmfFiles> {
    let code = folder.join("OVMF_CODE_4M.fd");
    let vars = folder.join("OVMF_VARS_4M.fd");
    for path in [&code, &vars] {
        if !path.is_file() {
            return Err(Error::MissingFirmware { path: path.clone() });
        }
    }
    Ok(OvmfFiles { code, vars })
}

/// Makes `vars` from `pristine` unless it exists: whole, or not at all.
pub(crate) fn prepare_vars(pristine: &Path, vars: &Path) -> Result<()> {
    if vars.exists() {
        return Ok(());
    }
    let partial = vars.with_extension("partial");
    std::fs::copy(pristine, &partial).map_err(Error::file("copy the UEFI variables to", vars))?;
    // The original may be read-only, and copy keeps the mode.
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
    std::fs::set_permissions(&partial, mode).map_err(Error::file("make writable", &partial))?;
    std::fs::rename(&partial, vars).map_err(Error::file("name", vars))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_firmware_names_the_package() {
        let folder = tempfile::tempdir().unwrap();
        let error = find_ovmf_in(folder.path()).unwrap_err().to_string();
        assert!(error.contains("apt-get install ovmf"), "{error}");
        assert!(error.contains("OVMF_CODE_4M.fd"), "{error}");
    }

    #[test]
    fn variables_are_copied_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let pristine = folder.path().join("pristine");
        let vars = folder.path().join("vars.fd");
        std::fs::write(&pristine, "new").unwrap();
        prepare_vars(&pristine, &vars).unwrap();
        std::fs::write(&vars, "written by the guest").unwrap();
        prepare_vars(&pristine, &vars).unwrap();
        assert_eq!(
            std::fs::read_to_string(&vars).unwrap(),
            "written by the guest"
        );
    }
}
