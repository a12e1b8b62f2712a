//! The server: one thread, one connection at a time, one request after the other. So the order in
//! which the back end sees requests is the order in which they are answered.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::wire::{
    CMD_DISC, CMD_FLAG_FUA, CMD_FLUSH, CMD_READ, CMD_TRIM, CMD_WRITE, CMD_WRITE_ZEROES, EINVAL,
    EIO, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, INFO_BLOCK_SIZE, INFO_EXPORT, MAX_REQUEST, NBD_MAGIC,
    OPT_ABORT, OPT_EXPORT_NAME, OPT_GO, OPT_INFO, OPTION_MAGIC, OPTION_REPLY_MAGIC, REP_ACK,
    REP_ERR_UNSUP, REP_INFO, REPLY_MAGIC, Request, TRANSMISSION_FLAGS, bad, read_u32, read_u64,
};

/// A disk behind the server. Ranges are inside of [`Backend::size`]; any error is the guest's EIO.
pub trait Backend: Send + 'static {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Fills `data` from `offset`.
    fn read(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()>;
    /// Writes; with `fua` it is durable when this returns.
    fn write(&mut self, offset: u64, data: &[u8], fua: bool) -> io::Result<()>;
    /// Writes `length` zeros; `trim` says that the guest does not care for the content any more.
    fn zero(&mut self, offset: u64, length: u64, fua: bool, trim: bool) -> io::Result<()>;
    /// Makes durable what was written before.
    fn flush(&mut self) -> io::Result<()>;
}

/// A server on a unix socket. It ends, and the socket goes, with this value.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `backend` on `socket`, which must not exist.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn start(socket: &Path, backend: impl Backend) -> io::Result<Server> {
        let listener = UnixListener::bind(socket)?;
        let ending = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ending);
        let mut backend = backend;
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let outcome = stream.and_then(|stream| session(&stream, &mut backend));
                match outcome {
                    // A machine that is killed hangs up in the middle of anything.
                    Err(error) if !hung_up(&error) => eprintln!("NBD server: {error}"),
                    _ => {}
                }
            }
        });
        Ok(Server {
            socket: socket.to_owned(),
            ending,
            thread: Some(thread),
        })
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Server {
    /// Waits for the running connection to end: its machine must be gone.
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        // Wakes the thread out of accept.
        let woken = UnixStream::connect(&self.socket).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

fn session(stream: &UnixStream, backend: &mut impl Backend) -> io::Result<()> {
    let mut from = BufReader::with_capacity(1 << 16, stream);
    let mut to = BufWriter::with_capacity(1 << 16, stream);
    if !handshake(&mut from, &mut to, backend.size())? {
        return Ok(());
    }
    let mut data = Vec::new();
    loop {
        to.flush()?;
        let request = Request::read(&mut from)?;
        if request.command == CMD_DISC {
            return Ok(());
        }
        let error = carry_out(&request, &mut from, &mut data, backend)?;
        to.write_all(&REPLY_MAGIC.to_be_bytes())?;
        to.write_all(&error.to_be_bytes())?;
        to.write_all(&request.cookie.to_be_bytes())?;
        if request.command == CMD_READ && error == 0 {
            to.write_all(&data)?;
        }
    }
}

/// Carries one request out and gives the error number of the reply. An `Err` ends the connection.
fn carry_out(
    request: &Request,
    from: &mut impl Read,
    data: &mut Vec<u8>,
    backend: &mut impl Backend,
) -> io::Result<u32> {
    let Request {
        command,
        offset,
        length,
        ..
    } = *request;
    let fua = request.flags & CMD_FLAG_FUA != 0;
    let moves_data = command == CMD_READ || command == CMD_WRITE;
    if moves_data && length > MAX_REQUEST {
        return Err(bad(format!("a request of {length} bytes")));
    }
    data.resize(if moves_data { length as usize } else { 0 }, 0);
    if command == CMD_WRITE {
        // The data are to be read off the connection even if they are refused.
        from.read_exact(data)?;
    }
    let inside = offset
        .checked_add(length.into())
        .is_some_and(|end| end <= backend.size());
    if !inside && command != CMD_FLUSH {
        return Ok(EINVAL);
    }
    let outcome = match command {
        CMD_READ => backend.read(offset, data),
        CMD_WRITE => backend.write(offset, data, fua),
        CMD_FLUSH => backend.flush(),
        CMD_TRIM => backend.zero(offset, length.into(), fua, true),
        CMD_WRITE_ZEROES => backend.zero(offset, length.into(), fua, false),
        _ => return Ok(EINVAL),
    };
    Ok(if outcome.is_ok() { 0 } else { EIO })
}

/// Negotiates; `false` if the client only asked.
fn handshake(from: &mut impl Read, to: &mut impl Write, size: u64) -> io::Result<bool> {
    to.write_all(&NBD_MAGIC.to_be_bytes())?;
    to.write_all(&OPTION_MAGIC.to_be_bytes())?;
    to.write_all(&(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes())?;
    to.flush()?;
    let client_flags = read_u32(from)?;
    if client_flags & u32::from(FLAG_FIXED_NEWSTYLE) == 0 {
        return Err(bad("the client does not speak fixed newstyle"));
    }
    loop {
        let magic = read_u64(from)?;
        if magic != OPTION_MAGIC {
            return Err(bad(format!("option magic {magic:#x}")));
        }
        let option = read_u32(from)?;
        let length = read_u32(from)?;
        if length > 4096 {
            return Err(bad(format!("an option of {length} bytes")));
        }
        let mut data = vec![0; length as usize];
        from.read_exact(&mut data)?;
        let mut reply = |kind: u32, data: &[u8]| {
            to.write_all(&OPTION_REPLY_MAGIC.to_be_bytes())?;
            to.write_all(&option.to_be_bytes())?;
            to.write_all(&kind.to_be_bytes())?;
            to.write_all(&u32::try_from(data.len()).unwrap_or(0).to_be_bytes())?;
            to.write_all(data)
        };
        match option {
            OPT_GO | OPT_INFO => {
                let mut export = INFO_EXPORT.to_be_bytes().to_vec();
                export.extend(size.to_be_bytes());
                export.extend(TRANSMISSION_FLAGS.to_be_bytes());
                reply(REP_INFO, &export)?;
                let mut sizes = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
                for value in [512, 4096, MAX_REQUEST] {
                    sizes.extend(value.to_be_bytes());
                }
                reply(REP_INFO, &sizes)?;
                reply(REP_ACK, &[])?;
                if option == OPT_GO {
                    return Ok(true);
                }
            }
            OPT_EXPORT_NAME => {
                to.write_all(&size.to_be_bytes())?;
                to.write_all(&TRANSMISSION_FLAGS.to_be_bytes())?;
                if client_flags & u32::from(FLAG_NO_ZEROES) == 0 {
                    to.write_all(&[0; 124])?;
                }
                return Ok(true);
            }
            OPT_ABORT => {
                reply(REP_ACK, &[])?;
                to.flush()?;
                return Ok(false);
            }
            _ => reply(REP_ERR_UNSUP, &[])?,
        }
        to.flush()?;
    }
}
