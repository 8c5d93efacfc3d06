//! One WebSocket to the server, as far as a load generator needs the protocol.
//!
//! Set up with blocking reads ([`Connection::open`], [`Connection::request`]), then switched to
//! non-blocking and driven by the [`fleet`](crate::fleet). Frames are told apart by their first
//! [`HEAD_BYTES`]; the rest of a payload is skipped over, not copied. Not in scope: fragments (the
//! servers send none), extensions, binary events.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use crate::Failure;

/// How much of a payload is looked at. Longer than any prefix that is watched for.
const HEAD_BYTES: usize = 40;
/// Any non-zero key: the server has to unmask as it would for a browser.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const SETUP_TIMEOUT: Duration = Duration::from_secs(20);

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What arrived in one read, or since the last look.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    /// Packets that begin with the watched prefix.
    pub replies: u64,
    pub acks: u64,
    /// Acks whose answer is not `{"ok":true…`.
    pub refusals: u64,
    pub pings: u64,
    pub others: u64,
    /// As read from the socket, headers included.
    pub bytes: u64,
}

impl Tally {
    pub fn packets(&self) -> u64 {
        self.replies + self.acks + self.pings + self.others
    }
}

pub struct Connection {
    pub stream: TcpStream,
    /// Bytes read that do not make up a frame's header and head yet. Empty most of the time.
    carry: Vec<u8>,
    /// Payload bytes of the current frame that are still to come, and to be ignored.
    skip: usize,
    /// Frames that the kernel did not take yet.
    unsent: Vec<u8>,
    /// Whether each reply's `"seq"` is checked to follow `last_seq`.
    checks_seq: bool,
    last_seq: Option<u64>,
}

impl Connection {
    /// Connects, upgrades and joins the main namespace.
    pub fn open(port: u16) -> Result<Self, Failure> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SETUP_TIMEOUT))?;
        stream.write_all(
            format!(
                "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\
                 Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            .as_bytes(),
        )?;
        let mut carry = Vec::new();
        let head_end = loop {
            if let Some(at) = find(&carry, b"\r\n\r\n") {
                break at + 4;
            }
            read_more(&mut stream, &mut carry)?;
        };
        if !carry.starts_with(b"HTTP/1.1 101") {
            return Err(format!("no upgrade: {}", String::from_utf8_lossy(&carry)).into());
        }
        carry.drain(..head_end);
        let mut connection = Self { stream, carry, skip: 0, unsent: Vec::new(), checks_seq: false, last_seq: None };
        connection.wait_for("0{")?;
        connection.request("40", "40{")?;
        Ok(connection)
    }

    /// Sends a packet and waits for one that begins with `answer`, ignoring what comes before it.
    pub fn request(&mut self, packet: &str, answer: &str) -> Result<String, Failure> {
        self.stream.write_all(&frame(packet))?;
        self.wait_for(answer)
    }

    fn wait_for(&mut self, answer: &str) -> Result<String, Failure> {
        loop {
            match parse_header(&self.carry)? {
                Some(header) if self.carry.len() >= header.end() => {
                    let payload: Vec<u8> = self.carry.drain(..header.end()).skip(header.len).collect();
                    let packet = String::from_utf8_lossy(&payload).into_owned();
                    if header.opcode == CLOSE || packet.starts_with("44") || packet.starts_with("41") {
                        return Err(format!("refused while waiting for {answer}: {packet}").into());
                    } else if packet.starts_with(answer) {
                        return Ok(packet);
                    } else if packet == "2" {
                        self.stream.write_all(&frame("3"))?;
                    }
                }
                _ => read_more(&mut self.stream, &mut self.carry)
                    .map_err(|err| format!("waiting for {answer}: {err}"))?,
            }
        }
    }

    /// Ends the blocking phase. What was read together with the last answer is handled here: a first
    /// ping may be in it.
    pub fn make_nonblocking(&mut self) -> Result<(), Failure> {
        self.stream.set_nonblocking(true)?;
        let data = std::mem::take(&mut self.carry);
        self.handle_bytes(&data, b"nothing yet", &mut Tally::default())
    }

    /// From now on, replies must carry consecutive `"seq"`s. Costs a look at the whole payload.
    pub fn check_seq(&mut self) {
        self.checks_seq = true;
    }

    /// One read, and everything that is in it. `Ok` with an empty tally if nothing was there.
    pub fn read(&mut self, buffer: &mut [u8], watched: &[u8]) -> Result<Tally, Failure> {
        let mut tally = Tally::default();
        let carried = self.carry.len();
        buffer[..carried].copy_from_slice(&self.carry);
        let read = match self.stream.read(&mut buffer[carried..]) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(read) => read,
            Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(tally),
            Err(err) => return Err(err.into()),
        };
        self.carry.clear();
        tally.bytes = read as u64;
        self.handle_bytes(&buffer[..carried + read], watched, &mut tally)?;
        Ok(tally)
    }

    fn handle_bytes(&mut self, mut data: &[u8], watched: &[u8], tally: &mut Tally) -> Result<(), Failure> {
        loop {
            let skipped = self.skip.min(data.len());
            self.skip -= skipped;
            data = &data[skipped..];
            let Some(header) = parse_header(data)? else {
                break;
            };
            let whole = header.opcode != TEXT || self.checks_seq;
            let looked_at = if whole { header.payload_len } else { header.payload_len.min(HEAD_BYTES) };
            let Some(head) = data.get(header.len..header.len + looked_at) else {
                break;
            };
            self.handle_frame(header.opcode, head, watched, tally)?;
            self.skip = header.payload_len - looked_at;
            data = &data[header.len + looked_at..];
        }
        self.carry.extend_from_slice(data);
        Ok(())
    }

    fn handle_frame(&mut self, opcode: u8, head: &[u8], watched: &[u8], tally: &mut Tally) -> Result<(), Failure> {
        match opcode {
            TEXT if head.starts_with(watched) => {
                tally.replies += 1;
                if self.checks_seq {
                    let seq = seq_of(head).ok_or("a delivery without seq")?;
                    if self.last_seq.is_some_and(|last| seq != last + 1) {
                        return Err(format!("seq {seq} came after {:?}", self.last_seq).into());
                    }
                    self.last_seq = Some(seq);
                }
            }
            TEXT if head == b"2" => {
                tally.pings += 1;
                self.send(&frame("3"))?;
            }
            TEXT if head.starts_with(b"43") => {
                tally.acks += 1;
                if find(head, b"[{\"ok\":true").is_none() {
                    tally.refusals += 1;
                }
            }
            CLOSE => return Err(format!("close frame: {}", String::from_utf8_lossy(head)).into()),
            PING => self.send(&masked(PONG, head))?,
            _ => tally.others += 1,
        }
        Ok(())
    }

    /// Writes frames, keeping what the kernel does not take. [`Self::flush`] goes on with it.
    pub fn send(&mut self, frames: &[u8]) -> Result<(), Failure> {
        self.unsent.extend_from_slice(frames);
        self.flush()
    }

    pub fn flush(&mut self) -> Result<(), Failure> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(err) if err.kind() == ErrorKind::WouldBlock => break,
                Err(err) => return Err(err.into()),
            }
        }
        Ok(())
    }

    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }
}

/// A masked text frame, final, ready to be sent any number of times.
pub fn frame(packet: &str) -> Vec<u8> {
    masked(TEXT, packet.as_bytes())
}

fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len => {
            let len = u16::try_from(len).expect("the generator sends short packets");
            frame.push(0x80 | 126);
            frame.extend(len.to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

struct Header {
    opcode: u8,
    len: usize,
    payload_len: usize,
}

impl Header {
    fn end(&self) -> usize {
        self.len + self.payload_len
    }
}

/// `None`: more bytes are needed.
fn parse_header(data: &[u8]) -> Result<Option<Header>, Failure> {
    let &[first, second, ref rest @ ..] = data else {
        return Ok(None);
    };
    if first & 0xf0 != 0x80 || second & 0x80 != 0 {
        return Err(format!("unexpected frame header {first:#04x} {second:#04x}").into());
    }
    let (len, payload_len) = match second {
        126 => match rest.first_chunk() {
            Some(&len) => (4, usize::from(u16::from_be_bytes(len))),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(&len) => (10, usize::try_from(u64::from_be_bytes(len))?),
            None => return Ok(None),
        },
        len => (2, usize::from(len)),
    };
    Ok(Some(Header { opcode: first & 0x0f, len, payload_len }))
}

/// The number behind the first `"seq":`.
fn seq_of(packet: &[u8]) -> Option<u64> {
    let at = find(packet, b"\"seq\":")? + 6;
    let digits = packet[at..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |seq, digit| Some(seq.unwrap_or(0) * 10 + u64::from(digit - b'0')))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn read_more(stream: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 4096];
    match stream.read(&mut chunk)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        read => {
            into.extend_from_slice(&chunk[..read]);
            Ok(())
        }
    }
}
