//! TPM PCR 11 of a unified kernel image: what systemd-stub measures, and the policy over it.
//!
//! For each section of the image in a fixed order the stub extends the PCR twice: by the digest of
//! the section's name (with its NUL), then by that of its content as it lies in memory. Userspace
//! then extends it by a word for each phase of the boot (`systemd-pcrphase.service(8)`). Sources:
//! `src/boot/efi/stub.c`, `src/measure/measure.c` and `systemd-measure(1)` of systemd 257; the
//! policy is `TPM2_PolicyPCR` of "TPM 2.0 Library, Part 3".

use sha2::{Digest, Sha256};

use crate::pe::{Measured, PeError, Uki};

/// Number of the PCR.
pub const PCR: u8 = 11;

/// The sections that are measured, in the order of measuring. `.pcrsig` is not measured, for it holds what depends on the result.
pub const ORDER: [&str; 13] = [
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat",
    ".pcrpkey", ".profile", ".dtbauto", ".hwids",
];

/// A value of the PCR in its SHA-256 bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(pub [u8; 32]);

impl Value {
    /// What the stub leaves: all sections measured, no phase yet.
    ///
    /// # Errors
    /// The image's parts are none, see [`Uki::measured`].
    pub fn of_uki(uki: &Uki<'_>) -> Result<Self, PeError> {
        let sections = uki.measured()?;
        Ok(Self::of_sections(&sections))
    }

    /// The same for sections as they stand in a finished image.
    pub fn of_sections(sections: &[Measured<'_>]) -> Self {
        let mut value = Self([0; 32]);
        for name in ORDER {
            let Some(section) = sections.iter().find(|s| s.name == name) else {
                continue;
            };
            let mut named = name.as_bytes().to_vec();
            named.push(0);
            value = value.extend(&named);
            let mut content = Sha256::new();
            content.update(&section.data);
            let zeros = [0; 4096];
            let mut left = section.zeros;
            while left > 0 {
                let now = left.min(zeros.len() as u64);
                content.update(&zeros[..now as usize]);
                left -= now;
            }
            value = value.extend_digest(&content.finalize().into());
        }
        value
    }

    /// The value after the word of a boot phase, such as `sysinit`.
    #[must_use]
    pub fn phase(self, word: &str) -> Self {
        self.extend(word.as_bytes())
    }

    fn extend(self, data: &[u8]) -> Self {
        self.extend_digest(&Sha256::digest(data).into())
    }

    fn extend_digest(self, digest: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(digest);
        Self(hash.finalize().into())
    }

    /// Digest of the TPM policy "PCR 11 of the SHA-256 bank has this value".
    pub fn policy(&self) -> [u8; 32] {
        const TPM2_CC_POLICY_PCR: u32 = 0x17f;
        const TPM2_ALG_SHA256: u16 = 0x000b;
        let mut hash = Sha256::new();
        hash.update([0; 32]);
        hash.update(TPM2_CC_POLICY_PCR.to_be_bytes());
        // TPML_PCR_SELECTION: one bank, a bit mask of three bytes.
        hash.update(1_u32.to_be_bytes());
        hash.update(TPM2_ALG_SHA256.to_be_bytes());
        let mut mask = [0; 3];
        mask[usize::from(PCR / 8)] = 1 << (PCR % 8);
        hash.update([mask.len() as u8]);
        hash.update(mask);
        hash.update(Sha256::digest(self.0));
        hash.finalize().into()
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn section<'a>(name: &'static str, data: &'a [u8], zeros: u64) -> Measured<'a> {
        Measured {
            name,
            data: Cow::Borrowed(data),
            zeros,
        }
    }

    /// The chain by hand, as a shell with sha256sum would do it.
    #[test]
    fn sections_are_measured_in_the_stubs_order_whatever_theirs() {
        let h = |data: &[u8]| -> [u8; 32] { Sha256::digest(data).into() };
        let extend = |old: [u8; 32], new: [u8; 32]| h(&[old, new].concat());
        let mut expected = [0; 32];
        for (name, data) in [
            (&b".linux\0"[..], &b"kernel\0\0\0"[..]),
            (b".osrel\0", b"ID=larder\n"),
            (b".uname\0", b"6.18"),
        ] {
            expected = extend(expected, h(name));
            expected = extend(expected, h(data));
        }
        let found = Value::of_sections(&[
            section(".uname", b"6.18", 0),
            section(".osrel", b"ID=larder\n", 0),
            section(".pcrsig", b"not measured", 0),
            section(".linux", b"kernel", 3),
        ]);
        assert_eq!(found, Value(expected));
        assert_eq!(found.phase("sysinit").0, extend(expected, h(b"sysinit")));
    }

    #[test]
    fn zeros_are_as_if_they_stood_there() {
        let long = [b"x".to_vec(), vec![0; 10_000]].concat();
        assert_eq!(
            Value::of_sections(&[section(".linux", b"x", 10_000)]),
            Value::of_sections(&[section(".linux", &long, 0)])
        );
    }

    /// The marshalled command by hand: TPM2_PolicyPCR hashes old policy, command code, selection
    /// and the digest of the selected values.
    #[test]
    fn a_policy_is_that_of_the_specification() {
        let value = Value([0xab; 32]);
        let mut message = vec![0; 32];
        message.extend([0, 0, 1, 0x7f, 0, 0, 0, 1, 0, 0x0b, 3, 0, 0x08, 0]);
        message.extend(Sha256::digest([0xab; 32]));
        assert_eq!(value.policy()[..], Sha256::digest(&message)[..]);
    }
}
