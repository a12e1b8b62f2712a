//! The image file as a raw disk: itself, or what its compressed form holds.
//!
//! A compressed image is unpacked into a file without a name before anything is asked or written,
//! by a stack of readers: `decompress(verify(progress(file)))`. So its checksum is known to be
//! right before the first byte of the disk is touched, and all further checks can look anywhere.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use formats::region::is_zero;
use packages::Digest;
use sha2::{Digest as _, Sha256};

use super::meter::Meter;
use crate::manifest::Output;

/// First bytes of a zstd frame (RFC 8878).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Bytes that are looked at together: left out if they are zero.
const PIECE: usize = 64 << 10;

/// Opens the image at `path`; one compressed with zstd is unpacked. `sum` is what the manifest says
/// of the file, and is checked where the whole file is read anyhow, for a compressed one.
pub(super) fn open(path: &Path, sum: Option<&Output>, meter: &Meter) -> Result<File> {
    let what = path.display();
    let found = std::fs::metadata(path).with_context(|| {
        format!("there is no image at {what}; build one with: imagegen build (or see --image)")
    })?;
    if found.is_dir() {
        bail!("{what} is a folder; --image takes the file, larder.raw or larder.raw.zst in it");
    }
    if !found.is_file() {
        bail!("{what} is no image file; --image takes larder.raw or larder.raw.zst");
    }
    let file = File::open(path).with_context(|| format!("cannot read {what}"))?;
    let mut magic = [0; 4];
    let compressed = file.read_exact_at(&mut magic, 0).is_ok() && magic == ZSTD;
    if !compressed {
        return Ok(file);
    }
    if let Some(sum) = sum
        && sum.size != found.len()
    {
        bail!(
            "{what} has {} bytes, its manifest says {}: it is truncated or of another build",
            found.len(),
            sum.size
        );
    }
    meter.start("unpack", found.len());
    let raw = scratch(path)?;
    let mut packed = Hashing::new(Counting { file, meter });
    unpack(&mut packed, &raw)
        .with_context(|| format!("{what} cannot be unpacked: it is damaged or truncated"))?;
    let digest = packed.finish()?;
    meter.finish();
    match sum {
        Some(sum) if sum.sha256 != digest => bail!(
            "{what} is damaged, or not the image that its manifest tells of: its SHA-256 is \
             {digest}, the manifest says {}",
            sum.sha256
        ),
        _ => Ok(raw),
    }
}

/// A file without a name, beside the image or, where that cannot be, in the system's folder.
fn scratch(image: &Path) -> Result<File> {
    let beside = match image.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    tempfile::tempfile_in(beside)
        .or_else(|_| tempfile::tempfile())
        .context("no room for the unpacked image: neither beside it nor in TMPDIR")
}

/// Writes what `packed` holds to `raw`, leaving holes where it is zero.
fn unpack(packed: &mut impl Read, raw: &File) -> Result<()> {
    let mut plain = zstd::Decoder::new(packed)?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    loop {
        let got = fill(&mut plain, &mut piece)?;
        if got == 0 {
            break;
        }
        if !is_zero(&piece[..got]) {
            raw.write_all_at(&piece[..got], at).context(
                "the unpacked image cannot be written (set TMPDIR to where there is room)",
            )?;
        }
        at += got as u64;
    }
    raw.set_len(at)?;
    let mut raw = raw;
    raw.rewind()?;
    Ok(())
}

/// Reads until `out` is full or nothing more comes.
fn fill(from: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < out.len() {
        match from.read(&mut out[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// Shows how far it has been read.
struct Counting<'a> {
    file: File,
    meter: &'a Meter,
}

impl Read for Counting<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(out)?;
        self.meter.add(got as u64).map_err(io::Error::other)?;
        Ok(got)
    }
}

/// Hashes what is read through it.
struct Hashing<R> {
    from: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    fn new(from: R) -> Self {
        Self {
            from,
            hash: Sha256::new(),
        }
    }

    /// Reads the rest; the SHA-256 of everything.
    fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Digest(self.hash.finalize().into()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.from.read(out)?;
        self.hash.update(&out[..got]);
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn packed(folder: &Path) -> (std::path::PathBuf, Vec<u8>) {
        let mut raw = vec![0; 8 << 20];
        raw[5 << 20..(5 << 20) + 5].copy_from_slice(b"hello");
        let path = folder.join("larder.raw.zst");
        std::fs::write(&path, zstd::encode_all(&raw[..], 1).unwrap()).unwrap();
        (path, raw)
    }

    fn sum_of(path: &Path) -> Output {
        let bytes = std::fs::read(path).unwrap();
        Output {
            name: "larder.raw.zst".into(),
            size: bytes.len() as u64,
            sha256: Digest::of(&bytes),
        }
    }

    #[test]
    fn a_compressed_image_is_unpacked_sparse_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let (path, raw) = packed(folder.path());
        let good = sum_of(&path);
        for sum in [None, Some(&good)] {
            let mut file = open(&path, sum, &Meter::silent()).unwrap();
            assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
            let mut back = Vec::new();
            file.read_to_end(&mut back).unwrap();
            assert_eq!(back, raw);
        }
        let wrong = Output {
            sha256: Digest([0; 32]),
            ..good.clone()
        };
        let error = open(&path, Some(&wrong), &Meter::silent()).unwrap_err();
        assert!(
            error.to_string().contains("the manifest says 000"),
            "{error}"
        );
        let shorter = Output { size: 3, ..good };
        let error = open(&path, Some(&shorter), &Meter::silent()).unwrap_err();
        assert!(error.to_string().contains("truncated"), "{error}");
    }

    #[test]
    fn a_truncated_one_is_an_error_at_every_length() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = packed(folder.path());
        let whole = std::fs::read(&path).unwrap();
        for length in 4..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = open(&path, None, &Meter::silent()).unwrap_err();
            let words = format!("{error:#}");
            assert!(words.contains("truncated"), "{length}: {words}");
        }
    }

    #[test]
    fn what_is_no_file_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let words = |path: &Path| {
            let error = open(path, None, &Meter::silent()).unwrap_err();
            error.to_string()
        };
        assert!(words(folder.path()).contains("is a folder"));
        assert!(words(Path::new("/dev/null")).contains("is no image file"));
        assert!(words(&folder.path().join("none")).contains("build one with"));
    }
}
