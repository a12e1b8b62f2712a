//! Fingerprints of public SSH keys.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use config::ssh::PublicKey;
use sha2::{Digest, Sha256};

/// The fingerprint as ssh shows it: `SHA256:` and base64.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    format!(
        "SHA256:{}",
        STANDARD_NO_PAD.encode(Sha256::digest(key.blob()))
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Made by ssh-keygen for this test; its private half is lost.
    pub(crate) const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOVJFV1HrYVhxauT3II8L41GrmZYZRDBd9msAeOxJ/da operator@example";

    #[test]
    fn a_key_of_ssh_keygen() {
        let key = PublicKey::parse(KEY).unwrap();
        assert_eq!(
            fingerprint(&key),
            "SHA256:ZZ1ed/bQlZ6WOB34j6gmbfauKuxFNcKttKYVmE3X5Fc"
        );
    }
}
