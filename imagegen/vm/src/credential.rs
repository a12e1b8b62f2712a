//! System credentials for the guest: see systemd.system-credentials(7) and smbios-type-11(7).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How a credential gets into the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// An SMBIOS type 11 string: needs no driver in the guest, so stage1 and PID 1 see it.
    Smbios,
    /// A fw_cfg file: needs qemu_fw_cfg.ko in the guest.
    FwCfg,
}

/// One credential. Its value reaches QEMU by a file, never by a command line.
#[derive(Clone)]
pub struct Credential {
    /// Name, as in `LoadCredential=`.
    pub name: String,
    /// The bytes.
    pub value: Vec<u8>,
    /// How it gets in.
    pub way: Way,
}

impl Credential {
    /// A credential by SMBIOS.
    pub fn smbios(name: impl Into<String>, value: impl Into<Vec<u8>>) -> Credential {
        Credential {
            name: name.into(),
            value: value.into(),
            way: Way::Smbios,
        }
    }

    /// A credential by fw_cfg.
    pub fn fw_cfg(name: impl Into<String>, value: impl Into<Vec<u8>>) -> Credential {
        Credential {
            name: name.into(),
            value: value.into(),
            way: Way::FwCfg,
        }
    }

    /// Why the name cannot be used, if so. systemd takes file names of printable ASCII; QEMU's
    /// fw_cfg names end at 55 bytes, `opt/io.systemd.credentials/` included.
    pub(crate) fn complaint(&self) -> Option<String> {
        let name = &self.name;
        let printable = name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"/,=:".contains(&b));
        if name.is_empty() || name.starts_with('.') || !printable {
            return Some(format!(
                "`{name}` is no name for a credential: printable ASCII without / , = : and not \
                 starting with a dot"
            ));
        }
        let room = 55 - FW_CFG_PREFIX.len();
        (self.way == Way::FwCfg && name.len() > room)
            .then(|| format!("credential `{name}`: fw_cfg leaves {room} bytes for a name"))
    }

    /// Content of the file that QEMU reads.
    pub(crate) fn file_content(&self) -> Vec<u8> {
        match self.way {
            Way::FwCfg => self.value.clone(),
            Way::Smbios => format!(
                "io.systemd.credential.binary:{}={}",
                self.name,
                STANDARD.encode(&self.value)
            )
            .into_bytes(),
        }
    }

    /// The two arguments of QEMU, given that the content is in `path` (already escaped).
    pub(crate) fn args(&self, path: &str) -> [String; 2] {
        match self.way {
            Way::Smbios => ["-smbios".into(), format!("type=11,path={path}")],
            Way::FwCfg => [
                "-fw_cfg".into(),
                format!("name={FW_CFG_PREFIX}{},file={path}", self.name),
            ],
        }
    }
}

/// Without the value: it may be secret.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Credential({} by {:?}, {} bytes)",
            self.name,
            self.way,
            self.value.len()
        )
    }
}

const FW_CFG_PREFIX: &str = "opt/io.systemd.credentials/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_and_arguments() {
        let smbios = Credential::smbios("larder.host", "dev");
        assert_eq!(
            smbios.file_content(),
            b"io.systemd.credential.binary:larder.host=ZGV2".to_vec()
        );
        assert_eq!(smbios.args("/t/c0"), ["-smbios", "type=11,path=/t/c0"]);
        let fw_cfg = Credential::fw_cfg("larder.host", "dev");
        assert_eq!(fw_cfg.file_content(), b"dev");
        assert_eq!(
            fw_cfg.args("/t/c1"),
            [
                "-fw_cfg",
                "name=opt/io.systemd.credentials/larder.host,file=/t/c1"
            ]
        );
    }

    #[test]
    fn names_that_would_break_the_argument_are_refused() {
        for bad in ["", ".", "a/b", "a,b", "a=b", "a:b", "a b", "ä"] {
            assert!(
                Credential::smbios(bad, "").complaint().is_some(),
                "{bad:?} was taken"
            );
        }
        assert!(Credential::smbios("a".repeat(60), "").complaint().is_none());
        assert!(Credential::fw_cfg("a".repeat(29), "").complaint().is_some());
        assert!(Credential::fw_cfg("a".repeat(28), "").complaint().is_none());
    }

    #[test]
    fn debug_does_not_show_the_value() {
        let shown = format!("{:?}", Credential::smbios("larder.cache-token", "canary"));
        assert!(!shown.contains("canary"), "{shown}");
    }
}
