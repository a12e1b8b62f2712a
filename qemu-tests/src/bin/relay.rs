//! `relay PORT`: joins its standard input and output with a TCP port of the loopback interface. QEMU
//! starts one for each connection of a guest (`guestfwd=…-cmd:`), which so reaches a double of a test.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};

/// Copies until the end, without waiting for a buffer to fill.
fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to
            .write_all(&buffer[..length])
            .and_then(|()| to.flush())
            .is_err()
        {
            return;
        }
    }
}

fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let port: u16 = port.ok_or_else(|| std::io::Error::other("usage: relay PORT"))?;
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let back = stream.try_clone()?;
    std::thread::spawn(move || {
        copy(std::io::stdin(), &stream);
        let _ = stream.shutdown(Shutdown::Write);
    });
    copy(&back, std::io::stdout());
    Ok(())
}
