//! The client: for tests of the server, and for looking at a served disk without a machine.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::wire::{
    CMD_DISC, CMD_FLAG_FUA, CMD_FLUSH, CMD_READ, CMD_TRIM, CMD_WRITE, CMD_WRITE_ZEROES,
    FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, INFO_EXPORT, NBD_MAGIC, OPT_GO, OPTION_MAGIC,
    OPTION_REPLY_MAGIC, REP_ACK, REP_INFO, REPLY_MAGIC, Request, bad, read_u16, read_u32, read_u64,
};

/// A connection to an export. An error of the server is an `io::Error` with its number.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    size: u64,
    cookie: u64,
}

impl Client {
    /// Connects and negotiates.
    ///
    /// # Errors
    /// If nobody listens, or what listens does not speak the protocol.
    pub fn connect(socket: &Path) -> io::Result<Client> {
        let mut stream = UnixStream::connect(socket)?;
        if read_u64(&mut stream)? != NBD_MAGIC || read_u64(&mut stream)? != OPTION_MAGIC {
            return Err(bad("not a newstyle server"));
        }
        let flags = u32::from(read_u16(&mut stream)?);
        let wanted = u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        if flags & wanted != wanted {
            return Err(bad(format!("the server's flags are {flags:#x}")));
        }
        stream.write_all(&wanted.to_be_bytes())?;
        stream.write_all(&OPTION_MAGIC.to_be_bytes())?;
        stream.write_all(&OPT_GO.to_be_bytes())?;
        // An empty name (4 bytes of length) and no requests for more information (2 bytes).
        stream.write_all(&6_u32.to_be_bytes())?;
        stream.write_all(&[0; 6])?;
        let mut size = 0;
        loop {
            if read_u64(&mut stream)? != OPTION_REPLY_MAGIC || read_u32(&mut stream)? != OPT_GO {
                return Err(bad("not a reply to the option"));
            }
            let kind = read_u32(&mut stream)?;
            let mut data = vec![0; read_u32(&mut stream)?.min(4096) as usize];
            stream.read_exact(&mut data)?;
            match kind {
                REP_ACK => {
                    return Ok(Client {
                        stream,
                        size,
                        cookie: 0,
                    });
                }
                REP_INFO => {
                    let mut data = data.as_slice();
                    if read_u16(&mut data)? == INFO_EXPORT {
                        size = read_u64(&mut data)?;
                    }
                }
                _ => return Err(bad(format!("the server replies {kind:#x}"))),
            }
        }
    }

    /// Size of the export in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads `length` bytes from `offset`.
    pub fn read(&mut self, offset: u64, length: u32) -> io::Result<Vec<u8>> {
        self.call(CMD_READ, 0, offset, length, &[])
    }

    /// Writes `data` to `offset`.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let length = u32::try_from(data.len()).map_err(bad)?;
        self.call(CMD_WRITE, 0, offset, length, data).map(drop)
    }

    /// Writes `data` to `offset`, durable at return.
    pub fn write_fua(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let length = u32::try_from(data.len()).map_err(bad)?;
        self.call(CMD_WRITE, CMD_FLAG_FUA, offset, length, data)
            .map(drop)
    }

    /// Writes zeros.
    pub fn zero(&mut self, offset: u64, length: u32) -> io::Result<()> {
        self.call(CMD_WRITE_ZEROES, 0, offset, length, &[])
            .map(drop)
    }

    /// Gives a range up.
    pub fn trim(&mut self, offset: u64, length: u32) -> io::Result<()> {
        self.call(CMD_TRIM, 0, offset, length, &[]).map(drop)
    }

    /// Makes durable what was written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.call(CMD_FLUSH, 0, 0, 0, &[]).map(drop)
    }

    fn call(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        length: u32,
        data: &[u8],
    ) -> io::Result<Vec<u8>> {
        self.cookie += 1;
        let request = Request {
            flags,
            command,
            cookie: self.cookie,
            offset,
            length,
        };
        request.write(&mut self.stream)?;
        self.stream.write_all(data)?;
        if read_u32(&mut self.stream)? != REPLY_MAGIC {
            return Err(bad("not a simple reply"));
        }
        let error = read_u32(&mut self.stream)?;
        if read_u64(&mut self.stream)? != self.cookie {
            return Err(bad("a reply to another request"));
        }
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error.cast_signed()));
        }
        let mut data = vec![
            0;
            if command == CMD_READ {
                length as usize
            } else {
                0
            }
        ];
        self.stream.read_exact(&mut data)?;
        Ok(data)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let bye = Request {
            flags: 0,
            command: CMD_DISC,
            cookie: 0,
            offset: 0,
            length: 0,
        };
        // The server ends the session at a hang-up just as well.
        let _ = bye.write(&mut self.stream);
    }
}
