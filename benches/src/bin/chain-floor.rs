//! The floor: the smallest program that does the work of a put and a get with three replicas.
//!
//! A put reads the file, makes one CRC-32 a 64 KiB block and sends it by plain TCP to the first of three processes; each
//! verifies, writes its own file and forwards. A get reads one replica's file, verifies it, sends it; the client verifies
//! and writes. No metadata, no retries, no names, no durability: what is left is the cost that no chunk file system avoids.
//!
//! `chain-floor serve DIR [NEXT]` prints its address; `chain-floor put FILE ADDR`; `chain-floor get FILE ADDR`.

use anyhow::{Context as _, Result, bail, ensure};
use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};

const PACKET: usize = 1 << 20;
const BLOCK: usize = 64 << 10;
const PUT: u8 = 1;
const GET: u8 = 2;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", dir] => serve(dir, None),
        ["serve", dir, next] => serve(dir, Some(next)),
        ["put", file, addr] => put(file, addr),
        ["get", file, addr] => get(file, addr),
        _ => bail!("usage: chain-floor serve DIR [NEXT] | put FILE ADDR | get FILE ADDR"),
    }
}

fn connect(addr: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(addr).with_context(|| format!("connect {addr}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A packet on the wire: length, one CRC a block, data.
struct Packet {
    head: Vec<u8>,
    data: Vec<u8>,
}

impl Packet {
    fn new() -> Packet {
        Packet {
            head: Vec::with_capacity(4 + PACKET / BLOCK * 4),
            data: vec![0; PACKET],
        }
    }

    /// Fills it from a file; false at the end.
    fn read_file(&mut self, file: &mut File) -> Result<bool> {
        self.data.resize(PACKET, 0);
        let mut length = 0;
        while length < PACKET {
            match file.read(&mut self.data[length..])? {
                0 => break,
                n => length += n,
            }
        }
        self.data.truncate(length);
        self.head.clear();
        self.head.extend_from_slice(&u32::try_from(length)?.to_le_bytes());
        for block in self.data.chunks(BLOCK) {
            self.head.extend_from_slice(&crc32fast::hash(block).to_le_bytes());
        }
        Ok(length > 0)
    }

    /// Receives and verifies it; false for the empty packet that ends a stream.
    fn receive(&mut self, from: &mut TcpStream) -> Result<bool> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let bytes = u32::from_le_bytes(length) as usize;
        ensure!(bytes <= PACKET, "a packet over the limit");
        self.head.clear();
        self.head.extend_from_slice(&length);
        self.head.resize(4 + bytes.div_ceil(BLOCK) * 4, 0);
        from.read_exact(&mut self.head[4..])?;
        self.data.resize(bytes, 0);
        from.read_exact(&mut self.data)?;
        let sums = self.head[4..].chunks_exact(4);
        for (block, sum) in self.data.chunks(BLOCK).zip(sums) {
            ensure!(crc32fast::hash(block).to_le_bytes() == sum, "a wrong checksum");
        }
        Ok(bytes > 0)
    }

    fn send(&self, to: &mut TcpStream) -> Result<()> {
        let sent = to.write_vectored(&[IoSlice::new(&self.head), IoSlice::new(&self.data)])?;
        if sent < self.head.len() {
            to.write_all(&self.head[sent..])?;
        }
        to.write_all(&self.data[sent.saturating_sub(self.head.len())..])?;
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "the address is this program's output")]
fn serve(dir: &str, next: Option<&str>) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        let mut call = [0];
        stream.read_exact(&mut call)?;
        let path = format!("{dir}/replica");
        match call[0] {
            PUT => store(&mut stream, &path, next)?,
            GET => send_file(&mut File::open(path)?, &mut stream)?,
            other => bail!("unknown call {other}"),
        }
    }
    Ok(())
}

fn store(from: &mut TcpStream, path: &str, next: Option<&str>) -> Result<()> {
    let mut next = next.map(connect).transpose()?;
    if let Some(next) = &mut next {
        next.write_all(&[PUT])?;
    }
    let mut file = File::create(path)?;
    let mut packet = Packet::new();
    loop {
        let more = packet.receive(from)?;
        if let Some(next) = &mut next {
            packet.send(next)?;
        }
        if !more {
            break;
        }
        file.write_all(&packet.data)?;
    }
    file.sync_data()?;
    if let Some(next) = &mut next {
        next.read_exact(&mut [0])?;
    }
    from.write_all(&[1])?;
    Ok(())
}

fn send_file(file: &mut File, to: &mut TcpStream) -> Result<()> {
    let mut packet = Packet::new();
    while packet.read_file(file)? {
        packet.send(to)?;
    }
    packet.send(to)
}

fn put(path: &str, addr: &str) -> Result<()> {
    let mut head = connect(addr)?;
    head.write_all(&[PUT])?;
    send_file(&mut File::open(path)?, &mut head)?;
    head.read_exact(&mut [0])?;
    Ok(())
}

fn get(path: &str, addr: &str) -> Result<()> {
    let mut from = connect(addr)?;
    from.write_all(&[GET])?;
    let mut file = File::create(path)?;
    let mut packet = Packet::new();
    while packet.receive(&mut from)? {
        file.write_all(&packet.data)?;
    }
    Ok(())
}
