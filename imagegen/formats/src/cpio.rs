//! The `newc` cpio archive that the kernel unpacks as its initramfs
//! (Documentation/driver-api/early-userspace/buffer-format.rst of Linux), written deterministically
//! and read back with limits.
//!
//! The writer numbers inodes in order, takes times from its caller, owns everything by what the
//! caller says, and pads the archive to 512 bytes. Hard links and extended attributes are not
//! written: an initramfs needs neither.

use bytes::Bytes;

use crate::tree::{Kind, Node, Tree};

const MAGIC: &[u8; 6] = b"070701";
const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";
/// PATH_MAX of Linux, which its unpacker applies to names and link targets.
const MAX_NAME: usize = 4096;

const S_IFIFO: u32 = 0o010_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFMT: u32 = 0o170_000;

/// Why an archive cannot be written or read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CpioError {
    /// The format has no place for it.
    #[error("{path} cannot be put into a cpio archive: {what}")]
    Unsupported {
        /// The path in the tree.
        path: String,
        /// Why not.
        what: &'static str,
    },
    /// The archive is damaged.
    #[error("damaged cpio archive at byte {offset}: {what}")]
    Damaged {
        /// Offset of the entry in the archive.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Writes all of `tree` but its root folder, sorted by path; times later than `clock` (seconds
/// since 1970) become `clock`, earlier than 0 become 0.
///
/// # Errors
/// [`CpioError::Unsupported`] for hard links, files of 4 GiB and more, overlong names.
pub fn write(tree: &Tree, clock: u32) -> Result<Vec<u8>, CpioError> {
    let size: usize = tree
        .iter()
        .map(|(path, node)| HEADER + path.len() + 8 + node.content().map_or(0, Bytes::len))
        .sum();
    let mut out = Vec::with_capacity(size + 1024);
    let mut inode = 0;
    for (path, node) in tree.iter().filter(|(path, _)| *path != "/") {
        let unsupported = |what| CpioError::Unsupported {
            path: path.to_string(),
            what,
        };
        inode += 1;
        let (kind, data, device): (u32, &[u8], (u32, u32)) = match &node.kind {
            Kind::Dir => (S_IFDIR, b"", (0, 0)),
            Kind::File(data) => (S_IFREG, data, (0, 0)),
            Kind::Symlink(target) => (S_IFLNK, target.as_bytes(), (0, 0)),
            Kind::CharDevice(major, minor) => (S_IFCHR, b"", (*major, *minor)),
            Kind::BlockDevice(major, minor) => (S_IFBLK, b"", (*major, *minor)),
            Kind::Fifo => (S_IFIFO, b"", (0, 0)),
            Kind::Hardlink(_) => return Err(unsupported("it is a hard link")),
        };
        if kind == S_IFLNK && data.len() >= MAX_NAME {
            return Err(unsupported("its target is longer than the kernel takes"));
        }
        if path.len() >= MAX_NAME {
            return Err(unsupported("its name is longer than the kernel takes"));
        }
        let length = u32::try_from(data.len()).map_err(|_| unsupported("it has 4 GiB or more"))?;
        let links = if kind == S_IFDIR { 2 } else { 1 };
        let mtime = u32::try_from(node.mtime.max(0)).map_or(clock, |time| time.min(clock));
        header(
            &mut out,
            [
                inode,
                kind | u32::from(node.mode & 0o7777),
                node.uid,
                node.gid,
                links,
                mtime,
                length,
                0,
                0,
                device.0,
                device.1,
            ],
            &path[1..],
        );
        out.extend_from_slice(data);
        pad(&mut out, 4);
    }
    header(&mut out, [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], TRAILER);
    pad(&mut out, 512);
    Ok(out)
}

/// Fields in their order: ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor,
/// rdevmajor, rdevminor; then namesize and the (always zero) check.
fn header(out: &mut Vec<u8>, fields: [u32; 11], name: &str) {
    out.extend_from_slice(MAGIC);
    for field in fields.into_iter().chain([name.len() as u32 + 1, 0]) {
        out.extend(format!("{field:08x}").bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out, 4);
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// Reads one archive, up to its trailer; the result and how many bytes it took (the kernel accepts
/// several archives in a row, each aligned to 4 bytes).
///
/// # Errors
/// [`CpioError::Damaged`]; nothing is allocated that the archive does not have bytes for.
pub fn read(archive: &[u8], origin: &str) -> Result<(Tree, usize), CpioError> {
    let mut tree = Tree::new();
    let mut at = 0;
    loop {
        let damaged = |what| CpioError::Damaged {
            offset: at as u64,
            what,
        };
        let head = archive
            .get(at..at + HEADER)
            .ok_or_else(|| damaged("it ends without a trailer"))?;
        if &head[..6] != MAGIC {
            return Err(damaged("an entry does not begin with 070701"));
        }
        let mut fields = [0u32; 13];
        for (field, text) in fields.iter_mut().zip(head[6..].chunks_exact(8)) {
            *field = std::str::from_utf8(text)
                .ok()
                // `from_str_radix` takes a sign, the format does not.
                .filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))
                .and_then(|text| u32::from_str_radix(text, 16).ok())
                .ok_or_else(|| damaged("a number is not hexadecimal"))?;
        }
        let [
            _,
            mode,
            uid,
            gid,
            _,
            mtime,
            size,
            _,
            _,
            major,
            minor,
            name_size,
            _,
        ] = fields;
        let name_end = at + HEADER + name_size as usize;
        let name = archive
            .get(at + HEADER..name_end)
            .filter(|_| name_size as usize <= MAX_NAME)
            .and_then(|name| name.strip_suffix(&[0]))
            .and_then(|name| std::str::from_utf8(name).ok())
            .ok_or_else(|| damaged("a name is overlong, not UTF-8 or not ended by NUL"))?;
        let start = name_end.next_multiple_of(4);
        let data = archive
            .get(start..start + size as usize)
            .ok_or_else(|| damaged("a file is longer than the archive"))?;
        let next = (start + size as usize).next_multiple_of(4);
        if name == TRAILER {
            return Ok((tree, next.min(archive.len())));
        }
        let name = name
            .strip_prefix("./")
            .unwrap_or(name)
            .trim_start_matches('/');
        let path = match name {
            "" | "." => "/".to_string(),
            name => format!("/{name}"),
        };
        let kind = match mode & S_IFMT {
            S_IFDIR => Kind::Dir,
            S_IFREG => Kind::File(Bytes::copy_from_slice(data)),
            S_IFLNK => Kind::Symlink(
                String::from_utf8(data.to_vec())
                    .map_err(|_| damaged("a link's target is not UTF-8"))?,
            ),
            S_IFCHR => Kind::CharDevice(major, minor),
            S_IFBLK => Kind::BlockDevice(major, minor),
            S_IFIFO => Kind::Fifo,
            _ => return Err(damaged("an entry is of an unknown kind")),
        };
        let node = Node {
            uid,
            gid,
            mtime: i64::from(mtime),
            ..Node::new(kind, (mode & 0o7777) as u16, origin)
        };
        tree.insert(path, node)
            .map_err(|_| damaged("a name is not a normalised path"))?;
        at = next;
    }
}

/// For fuzzing: any bytes are an archive or a typed error; what was read is written again.
pub fn fuzz(data: &[u8]) {
    if let Ok((tree, used)) = read(data, "fuzz") {
        assert!(used <= data.len());
        if let Ok(again) = write(&tree, u32::MAX) {
            assert!(read(&again, "fuzz").is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn sample() -> Tree {
        let mut tree = Tree::new();
        let mut add =
            |path: &str, kind, mode| tree.insert(path, Node::new(kind, mode, "t")).unwrap();
        add("/", Kind::Dir, 0o755);
        add("/dev", Kind::Dir, 0o755);
        add("/dev/console", Kind::CharDevice(5, 1), 0o600);
        add("/dev/sda", Kind::BlockDevice(8, 0), 0o660);
        add(
            "/init",
            Kind::File(Bytes::from_static(b"\x7fELF...")),
            0o755,
        );
        add("/pipe", Kind::Fifo, 0o600);
        add("/sbin", Kind::Symlink("usr/sbin".into()), 0o777);
        add("/usr", Kind::Dir, 0o1777);
        add("/usr/Főt", Kind::File(Bytes::from(vec![b'x'; 4097])), 0o640);
        let init = tree.get_mut("/init").unwrap();
        init.mtime = 2_000_000_000;
        tree
    }

    #[test]
    fn written_is_read_back() {
        let tree = sample();
        let bytes = write(&tree, 1_700_000_000).unwrap();
        assert_eq!(bytes, write(&tree.clone(), 1_700_000_000).unwrap());
        assert_eq!(bytes.len() % 512, 0);
        let (mut back, used) = read(&bytes, "t").unwrap();
        assert!(used <= bytes.len() && bytes.len() - used < 512);
        assert_eq!(back.get("/init").unwrap().mtime, 1_700_000_000);
        back.get_mut("/init").unwrap().mtime = 2_000_000_000;
        let mut expected = tree;
        expected.remove("/");
        // `remove` of the root takes all below it along; put the rest back.
        assert!(expected.is_empty());
        let mut expected = sample();
        expected.retain(|path, _| path != "/");
        assert_eq!(back, expected);
    }

    /// GNU cpio lists what we wrote.
    #[test]
    fn cpio_agrees() {
        use std::io::Write;
        let bytes = write(&sample(), 0).unwrap();
        let mut child = Command::new("cpio")
            .args(["-itvn", "--quiet"])
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cpio (make test installs it)");
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap());
    }

    /// The other way: what GNU cpio wrote is read.
    #[test]
    fn reads_what_cpio_writes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/file"), "content").unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("sub/link")).unwrap();
        let output = Command::new("sh")
            .args(["-c", "find . | sort | cpio -o -H newc --quiet"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "cpio (make test installs it)");
        let (tree, _) = read(&output.stdout, "t").unwrap();
        let paths: Vec<&str> = tree.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["/", "/sub", "/sub/file", "/sub/link"]);
        assert_eq!(
            &tree.get("/sub/file").unwrap().content().unwrap()[..],
            b"content"
        );
        assert_eq!(
            tree.get("/sub/link").unwrap().kind,
            Kind::Symlink("file".into())
        );
    }

    #[test]
    fn bad_input() {
        let bytes = write(&sample(), 0).unwrap();
        // Cut anywhere before the end of the trailer.
        let end = bytes.windows(10).position(|w| w == b"TRAILER!!!").unwrap();
        for cut in 0..end + 10 {
            assert!(read(&bytes[..cut], "t").is_err(), "cut {cut}");
        }
        let mut tree = sample();
        tree.insert(
            "/again",
            Node::new(Kind::Hardlink("/init".into()), 0o755, "t"),
        )
        .unwrap();
        assert_eq!(
            write(&tree, 0).unwrap_err().to_string(),
            "/again cannot be put into a cpio archive: it is a hard link"
        );
        let mut evil = Vec::new();
        header(&mut evil, [1, S_IFREG, 0, 0, 1, 0, 0, 0, 0, 0, 0], "../x");
        assert_eq!(
            read(&evil, "t").unwrap_err().to_string(),
            "damaged cpio archive at byte 0: a name is not a normalised path"
        );
    }

    #[test]
    fn fuzz_for_a_second() {
        let seed = write(&sample(), 0).unwrap();
        crate::fuzzing::mutate_for(std::time::Duration::from_millis(700), &[seed], fuzz);
    }
}
