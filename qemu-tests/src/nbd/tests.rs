use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use super::*;

struct Memory(Vec<u8>);

impl Backend for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        data.copy_from_slice(&self.0[offset as usize..][..data.len()]);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8], _fua: bool) -> io::Result<()> {
        self.0[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn zero(&mut self, offset: u64, length: u64, _fua: bool, _trim: bool) -> io::Result<()> {
        self.0[offset as usize..][..length as usize].fill(0);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::Error::other("this memory never flushes"))
    }
}

fn server() -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("nbd"), Memory(vec![7; 1 << 16])).unwrap();
    (folder, server)
}

#[test]
fn reads_writes_zeros_and_errors() {
    let (_folder, server) = server();
    let mut client = Client::connect(server.socket()).unwrap();
    assert_eq!(client.size(), 1 << 16);
    client.write(512, b"hello").unwrap();
    client.write_fua(600, b"there").unwrap();
    client.zero(514, 2).unwrap();
    assert_eq!(client.read(511, 8).unwrap(), b"\x07he\0\0o\x07\x07");
    assert_eq!(client.read(0, 0).unwrap(), b"");
    client.trim(0, 1 << 16).unwrap();
    assert_eq!(client.read(600, 5).unwrap(), [0; 5]);
    // Outside, and what the disk itself refuses.
    assert_eq!(
        client.read((1 << 16) - 1, 2).unwrap_err().raw_os_error(),
        Some(22)
    );
    assert_eq!(
        client.write(u64::MAX, b"x").unwrap_err().raw_os_error(),
        Some(22)
    );
    assert_eq!(client.flush().unwrap_err().raw_os_error(), Some(5));
    // The connection has survived all that, and a second one comes after the first.
    assert_eq!(client.read(600, 1).unwrap(), [0]);
    drop(client);
    assert_eq!(Client::connect(server.socket()).unwrap().size(), 1 << 16);
    let socket = server.socket().to_owned();
    drop(server);
    assert!(!socket.exists());
}

#[test]
fn rubbish_neither_kills_nor_blocks_the_server() {
    let (_folder, server) = server();
    let hello = [1_u32.to_be_bytes().as_slice(), b"IHAVEOPT"].concat();
    let go = [&hello[..], &[0, 0, 0, 7, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0]].concat();
    let mut seed = 1_u64;
    for round in 0..300 {
        let mut sent = match round % 3 {
            0 => Vec::new(),
            1 => hello.clone(),
            _ => go.clone(),
        };
        for _ in 0..round % 64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            sent.push((seed >> 56) as u8);
        }
        if round % 2 == 0 && sent.len() > 12 {
            // A request that is nearly right: its magic, a small command, then chance.
            let at = go.len().min(sent.len() - 8);
            sent.splice(
                at..at + 8,
                [0x25, 0x60, 0x95, 0x13, 0, 0, 0, round as u8 % 8],
            );
        }
        let mut stream = UnixStream::connect(server.socket()).unwrap();
        let _ = stream.write_all(&sent);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(Client::connect(server.socket()).unwrap().size(), 1 << 16);
}
