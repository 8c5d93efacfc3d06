//! Follows the frames of a WebSocket, only to know when the library holds nothing of them.

/// Where in the stream of frames (RFC 6455 §5.2) the bytes read so far end. Checks nothing: the library does.
#[derive(Debug, Default)]
pub(super) struct Boundary {
    /// The bytes of a header that is not complete, without its mask.
    header: [u8; 10],
    header_bytes: u8,
    /// What is left of the mask and the payload.
    skip_bytes: u64,
    /// A fragmented message has begun and not ended.
    in_message: bool,
}

const FIN: u8 = 0x80;
const CONTROL: u8 = 0x08;
const MASK: u8 = 0x80;
const MASK_BYTES: u64 = 4;

impl Boundary {
    /// Takes note of bytes that go to the library.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = self.skip_bytes.min(bytes.len() as u64);
            self.skip_bytes -= skipped;
            bytes = bytes.get(skipped as usize..).unwrap_or(&[]);
            let Some((byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            if let Some(place) = self.header.get_mut(usize::from(self.header_bytes)) {
                *place = *byte;
                self.header_bytes += 1;
            }
            if self.header_bytes >= 2 {
                self.end_header();
            }
        }
    }

    /// Whether a message has just ended, or none has begun.
    pub(super) fn is_clear(&self) -> bool {
        self.header_bytes == 0 && self.skip_bytes == 0 && !self.in_message
    }

    fn end_header(&mut self) {
        let [first, second, length @ ..] = &self.header;
        let (needed, payload_bytes) = match second & !MASK {
            126 => (4, u64::from(u16::from_be_bytes([length[0], length[1]]))),
            127 => (10, u64::from_be_bytes(*length)),
            short => (2, u64::from(short)),
        };
        if self.header_bytes < needed {
            return;
        }
        if first & CONTROL == 0 {
            self.in_message = first & FIN == 0;
        }
        let mask_bytes = if second & MASK == 0 { 0 } else { MASK_BYTES };
        // A length that overflows is an error for the library, and the end of the connection.
        self.skip_bytes = payload_bytes.saturating_add(mask_bytes);
        self.header_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame with a payload of zeros.
    fn frame(first: u8, payload_bytes: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match payload_bytes {
            0..=125 => frame.push(MASK | payload_bytes as u8),
            126..=0xffff => {
                frame.push(MASK | 126);
                frame.extend((payload_bytes as u16).to_be_bytes());
            }
            _ => {
                frame.push(MASK | 127);
                frame.extend((payload_bytes as u64).to_be_bytes());
            }
        }
        frame.extend([1, 2, 3, 4]);
        frame.resize(frame.len() + payload_bytes, 0);
        frame
    }

    #[test]
    fn is_clear_between_frames_and_nowhere_else() {
        for payload_bytes in [0, 1, 125, 126, 127, 300, 65_535, 65_536] {
            let frame = frame(0x81, payload_bytes);
            let mut boundary = Boundary::default();
            for (index, byte) in frame.iter().enumerate() {
                assert_eq!(boundary.is_clear(), index == 0, "{payload_bytes} bytes, at {index}");
                boundary.pass(&[*byte]);
            }
            assert!(boundary.is_clear(), "{payload_bytes}");
        }
    }

    #[test]
    fn however_the_bytes_are_cut() {
        let frames: Vec<u8> = [3, 126, 0, 400].into_iter().flat_map(|bytes| frame(0x82, bytes)).collect();
        for size in 1..frames.len() {
            let mut boundary = Boundary::default();
            frames.chunks(size).for_each(|chunk| boundary.pass(chunk));
            assert!(boundary.is_clear(), "chunks of {size}");
            boundary.pass(&[0x81]);
            assert!(!boundary.is_clear());
        }
    }

    #[test]
    fn a_fragmented_message_is_not_clear_between_its_frames() {
        let mut boundary = Boundary::default();
        boundary.pass(&frame(0x01, 5));
        assert!(!boundary.is_clear());
        boundary.pass(&frame(0x89, 5));
        assert!(!boundary.is_clear(), "a ping in between ends nothing");
        boundary.pass(&frame(0x00, 5));
        assert!(!boundary.is_clear());
        boundary.pass(&frame(0x80, 5));
        assert!(boundary.is_clear());
    }
}
