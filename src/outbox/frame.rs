//! One encoded message, shared by everybody who receives it.

use std::{cell::RefCell, fmt, sync::Arc};

/// One Engine.IO packet, encoded as a finished WebSocket frame (RFC 6455 §5.2).
///
/// A server's frames are not masked, so the same bytes serve every member of a room; polling uses the
/// [`payload`](Self::payload) behind the frame's header. Cloning costs one reference count.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Arc<[u8]>,
    /// Invariant: at most `bytes.len()`.
    header_bytes: u8,
    binary: bool,
}

/// The longest server frame header: two bytes and a 64-bit length.
const HEADER_MAX_BYTES: usize = 10;
/// A scratch buffer over this size is given back, so that one large message does not stay for ever.
const SCRATCH_KEEP_BYTES: usize = 64 * 1024;

const OPCODE_TEXT: u8 = 0x1;
const OPCODE_BINARY: u8 = 0x2;
const FIN: u8 = 0x80;

thread_local! {
    /// Frames are built here, so that encoding costs one allocation: the shared one.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Frame {
    /// A text packet: its Engine.IO type digit and its data.
    pub fn text(packet: &str) -> Self {
        Self::build_text(|out| out.extend_from_slice(packet.as_bytes()))
    }

    /// A binary message: on WebSocket the bare bytes, on polling `b` and base64.
    pub fn binary(data: &[u8]) -> Self {
        Self::build(OPCODE_BINARY, |out| out.extend_from_slice(data))
    }

    /// A text packet that `write` appends piece by piece. It must append UTF-8 only, and no more than that:
    /// what stands in the buffer already is not its own.
    pub fn build_text(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        Self::build(OPCODE_TEXT, write)
    }

    /// Bytes that are encoded already: a control frame, or the answer to an upgrade request.
    pub fn raw(bytes: &[u8]) -> Self {
        Self { bytes: Arc::from(bytes), header_bytes: 0, binary: false }
    }

    fn build(opcode: u8, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        // Taken out and put back, instead of borrowed: `write` may build a frame itself.
        let mut scratch = SCRATCH.take();
        scratch.clear();
        scratch.resize(HEADER_MAX_BYTES, 0);
        write(&mut scratch);
        let payload_bytes = scratch.len().saturating_sub(HEADER_MAX_BYTES);
        let mut header = [0; HEADER_MAX_BYTES];
        let header_bytes = encode_header(&mut header, FIN | opcode, payload_bytes);
        // The header's length depends on the payload's, so it is set flush against the payload.
        let start = HEADER_MAX_BYTES - header_bytes;
        scratch[start..HEADER_MAX_BYTES].copy_from_slice(&header[..header_bytes]);
        let frame = Self {
            bytes: Arc::from(&scratch[start..]),
            header_bytes: header_bytes as u8,
            binary: opcode == OPCODE_BINARY,
        };
        if scratch.capacity() <= SCRATCH_KEEP_BYTES {
            SCRATCH.set(scratch);
        }
        frame
    }

    /// The whole frame, ready for the wire.
    pub fn websocket(&self) -> &[u8] {
        &self.bytes
    }

    /// The packet without the WebSocket header. UTF-8 unless [`is_binary`](Self::is_binary).
    pub fn payload(&self) -> &[u8] {
        &self.bytes[usize::from(self.header_bytes)..]
    }

    /// Whether this is a binary message.
    pub fn is_binary(&self) -> bool {
        self.binary
    }

    /// What the frame counts against an outbox's limit, in bytes.
    pub fn cost_bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes the header of an unmasked frame and returns its length in bytes.
fn encode_header(out: &mut [u8; HEADER_MAX_BYTES], first: u8, payload_bytes: usize) -> usize {
    out[0] = first;
    match payload_bytes {
        0..=125 => {
            out[1] = payload_bytes as u8;
            2
        }
        126..=0xffff => {
            out[1] = 126;
            out[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
            4
        }
        _ => {
            out[1] = 127;
            out[2..10].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            10
        }
    }
}

impl fmt::Debug for Frame {
    /// Length and kind only: payloads do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.binary { "binary" } else { "text" };
        write!(f, "Frame({kind}, {} bytes)", self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_forms_change_at_their_limits() {
        let cases: &[(usize, usize)] = &[(0, 2), (1, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)];
        for (payload_bytes, header_bytes) in cases {
            let payload = "x".repeat(*payload_bytes);
            let frame = Frame::text(&payload);
            assert_eq!(frame.websocket().len(), header_bytes + payload_bytes, "{payload_bytes}");
            assert_eq!(frame.payload(), payload.as_bytes());
            assert_eq!(frame.websocket()[0], 0x81);
        }
        assert_eq!(Frame::text("hi").websocket(), b"\x81\x02hi");
        assert_eq!(&Frame::text(&"x".repeat(126)).websocket()[..4], b"\x81\x7e\x00\x7e");
        assert_eq!(&Frame::text(&"x".repeat(65_536)).websocket()[..10], b"\x81\x7f\0\0\0\0\0\x01\0\0");
    }

    #[test]
    fn binary_frame_keeps_bytes() {
        let frame = Frame::binary(&[0, 255, 1]);
        assert_eq!(frame.websocket(), [0x82, 3, 0, 255, 1]);
        assert!(frame.is_binary());
    }

    #[test]
    fn a_frame_can_be_built_while_another_is() {
        let outer = Frame::build_text(|out| {
            out.extend_from_slice(b"4");
            assert_eq!(Frame::text("2").payload(), b"2");
            out.extend_from_slice(b"outer");
        });
        assert_eq!(outer.payload(), b"4outer");
    }
}
