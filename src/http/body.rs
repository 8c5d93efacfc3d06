//! Takes request bodies off the wire, by length or by chunks (RFC 9112 §6 and §7.1).

use super::error::HttpError;
use super::head::{Framing, hex_digit};
use super::token::{is_forbidden_control, is_tchar};

/// Reads one body, however its bytes are cut into pieces.
///
/// Copies data as it comes and reserves nothing for data that was only announced, so a client pays for the
/// memory it takes with the bytes it sends. Chunk extensions and trailers are checked, counted and thrown away.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    max_bytes: usize,
    /// Data bytes that were decoded or announced by a chunk's size. Never above `max_bytes`.
    claimed_bytes: u64,
    /// Bytes of chunk extensions so far, at most [`EXTENSIONS_MAX_BYTES`].
    extension_bytes: usize,
    /// Bytes of trailers so far, at most [`TRAILERS_MAX_BYTES`].
    trailer_bytes: usize,
}

/// How far a call to [`BodyDecoder::decode`] came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// Bytes of the input that belong to this body and need not be shown again. All of it unless `done`.
    pub used: usize,
    /// Whether the body is complete: the rest of the input is the next request.
    pub done: bool,
}

impl BodyDecoder {
    /// Prepares for a body of at most `max_bytes` bytes of data.
    ///
    /// # Errors
    ///
    /// [`HttpError::BodyTooLarge`] if Content-Length says so already.
    pub fn new(framing: Framing, max_bytes: usize) -> Result<Self, HttpError> {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(left) if usize::try_from(left).is_ok_and(|left| left <= max_bytes) => State::Fixed { left },
            Framing::Length(_) => return Err(HttpError::BodyTooLarge { max_bytes }),
            Framing::Chunked => State::Size { value: 0, digits: 0 },
        };
        Ok(Self { state, max_bytes, claimed_bytes: 0, extension_bytes: 0, trailer_bytes: 0 })
    }

    /// Whether the body is complete; true from the start for a request without one.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Moves the data at the start of `input` to the end of `body`.
    ///
    /// # Errors
    ///
    /// The first fault in byte order, for good: every later call returns the same. `body` then holds the
    /// data before the fault. A chunk that would make the body too long is refused at its size line.
    pub fn decode(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<Decoded, HttpError> {
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            match self.state {
                State::Done => break,
                State::Fixed { left } => {
                    let taken = take(rest, left, body);
                    used += taken;
                    self.state = match left - taken as u64 {
                        0 => State::Done,
                        left => State::Fixed { left },
                    };
                }
                State::Data { left } => {
                    let taken = take(rest, left, body);
                    used += taken;
                    self.state = match left - taken as u64 {
                        0 => State::DataCr,
                        left => State::Data { left },
                    };
                }
                _ => {
                    let byte = rest.first().copied().unwrap_or_default();
                    self.state = self.step(byte).inspect_err(|error| self.state = State::Failed(*error))?;
                    used += 1;
                }
            }
        }
        match self.state {
            State::Failed(error) => Err(error),
            _ => Ok(Decoded { used, done: self.is_done() }),
        }
    }

    /// What the state becomes with one byte of what surrounds the data.
    fn step(&mut self, byte: u8) -> Result<State, HttpError> {
        Ok(match (self.state, byte) {
            (State::Failed(error), _) => return Err(error),

            (State::Size { value, digits }, _) if let Some(digit) = hex_digit(byte) => {
                if digits == SIZE_MAX_DIGITS {
                    return Err(HttpError::ChunkSize);
                }
                let value = value << 4 | u64::from(digit);
                let total = self.claimed_bytes.checked_add(value).and_then(|total| usize::try_from(total).ok());
                if total.is_none_or(|total| total > self.max_bytes) {
                    return Err(HttpError::BodyTooLarge { max_bytes: self.max_bytes });
                }
                State::Size { value, digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err(HttpError::ChunkSize),
            (State::Size { value, .. }, b'\r') => State::SizeLf { value },
            (State::Size { value, .. }, b';') => State::Extension { value },
            (State::Size { .. } | State::Extension { .. }, b'\n') => return Err(HttpError::LineEnd),
            // Whitespace as well: some parsers skip it before the CR, some before a `;`, some nowhere.
            (State::Size { .. }, _) => return Err(HttpError::ChunkSize),

            (State::Extension { value }, b'\r') => State::SizeLf { value },
            (State::Extension { value }, _) => {
                self.extension_bytes += 1;
                if is_forbidden_control(byte) || self.extension_bytes > EXTENSIONS_MAX_BYTES {
                    return Err(HttpError::ChunkExtension { max_bytes: EXTENSIONS_MAX_BYTES });
                }
                State::Extension { value }
            }
            (State::SizeLf { value: 0 }, b'\n') => State::LineStart,
            (State::SizeLf { value }, b'\n') => {
                self.claimed_bytes = self.claimed_bytes.saturating_add(value);
                State::Data { left: value }
            }

            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
            (State::DataCr | State::DataLf, _) => return Err(HttpError::ChunkEnd),

            (State::LineStart, b'\r') => State::EndLf,
            (State::EndLf, b'\n') => State::Done,
            (State::LineStart, b' ' | b'\t') => return Err(HttpError::Folded),
            (State::LineStart | State::TrailerName, b'\n') => return Err(HttpError::LineEnd),
            (State::LineStart, _) if is_tchar(byte) => self.trailer_byte(State::TrailerName)?,
            (State::TrailerName, _) if is_tchar(byte) => self.trailer_byte(State::TrailerName)?,
            (State::TrailerName, b':') => self.trailer_byte(State::TrailerValue)?,
            (State::LineStart | State::TrailerName, _) => return Err(HttpError::Field),
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, b'\n') => return Err(HttpError::LineEnd),
            (State::TrailerValue, _) if is_forbidden_control(byte) => return Err(HttpError::ControlByte),
            (State::TrailerValue, _) => self.trailer_byte(State::TrailerValue)?,
            (State::TrailerLf, b'\n') => State::LineStart,

            (State::SizeLf { .. } | State::TrailerLf | State::EndLf, _) => return Err(HttpError::LineEnd),
            // `decode` gives these no single bytes.
            (state @ (State::Done | State::Fixed { .. } | State::Data { .. }), _) => state,
        })
    }

    fn trailer_byte(&mut self, next: State) -> Result<State, HttpError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILERS_MAX_BYTES {
            return Err(HttpError::TrailersTooLarge { max_bytes: TRAILERS_MAX_BYTES });
        }
        Ok(next)
    }
}

/// What the next byte belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// A body with Content-Length; `left` is never 0.
    Fixed {
        left: u64,
    },
    /// The digits of a chunk's size.
    Size {
        value: u64,
        digits: u8,
    },
    /// What follows the `;` after the size.
    Extension {
        value: u64,
    },
    /// The LF after the size line's CR.
    SizeLf {
        value: u64,
    },
    /// A chunk's data; `left` is never 0.
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// The start of a trailer, or of the empty line that ends everything.
    LineStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
    Failed(HttpError),
}

/// Copies at most `left` bytes of `input`, and says how many.
fn take(input: &[u8], left: u64, body: &mut Vec<u8>) -> usize {
    let len = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
    let data = input.get(..len).unwrap_or_default();
    body.extend_from_slice(data);
    data.len()
}

/// A `u64` in hexadecimal. More digits could only be leading zeros or a number that is too large.
const SIZE_MAX_DIGITS: u8 = 16;

/// All of a body's chunk extensions together. Nobody sends any, but for request signing: 85 bytes a chunk.
const EXTENSIONS_MAX_BYTES: usize = 8 * 1024;

/// All trailers of a body together, line ends not counted.
const TRAILERS_MAX_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_BYTES: usize = 32;

    /// Decodes `input` in pieces of `step` bytes: body, bytes used, and whether it was complete.
    fn decode(
        framing: Framing,
        max_bytes: usize,
        input: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, usize, bool), HttpError> {
        let mut decoder = BodyDecoder::new(framing, max_bytes)?;
        let mut body = Vec::new();
        let mut used = 0;
        for piece in input.chunks(step) {
            let decoded = decoder.decode(piece, &mut body).inspect_err(|error| {
                assert_eq!(decoder.decode(b"x", &mut Vec::new()), Err(*error), "a fault is for good");
            })?;
            used += decoded.used;
            assert_eq!(decoded.done, decoder.is_done());
            assert!(decoded.done || decoded.used == piece.len(), "nothing is left over before the end");
            if decoded.done {
                break;
            }
        }
        Ok((body, used, decoder.is_done()))
    }

    /// The same at every step width, and at every cut into two.
    fn decode_every_way(framing: Framing, max_bytes: usize, input: &[u8]) -> Result<(Vec<u8>, usize, bool), HttpError> {
        let whole = decode(framing, max_bytes, input, input.len().max(1));
        for step in 1..input.len() {
            assert_eq!(decode(framing, max_bytes, input, step), whole, "in steps of {step}");
        }
        for cut in 0..input.len() {
            let part = decode(framing, max_bytes, &input[..cut], cut.max(1));
            match (&part, &whole) {
                (Ok((_, _, false)), _) => {}
                _ => assert_eq!(part, whole, "cut at {cut}"),
            }
        }
        whole
    }

    #[test]
    fn reads_bodies_and_leaves_what_follows() {
        let cases: [(_, _, &[u8], &[u8], _); 10] = [
            ("none", Framing::None, b"GET /", b"", 0),
            ("length 0", Framing::Length(0), b"GET /", b"", 0),
            ("length", Framing::Length(5), b"helloGET /", b"hello", 5),
            ("chunks", Framing::Chunked, b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\nGET /", b"hello!", 21),
            ("no chunks", Framing::Chunked, b"0\r\n\r\nGET /", b"", 5),
            (
                "hex in both cases",
                Framing::Chunked,
                b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n",
                b"01234567890123456789a",
                36,
            ),
            ("leading zeros", Framing::Chunked, b"0000000000000005\r\nhello\r\n000\r\n\r\n", b"hello", 32),
            ("line ends as data", Framing::Chunked, b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n", 14),
            ("extensions", Framing::Chunked, b"2;a=b;c=\"d e\"\r\nhi\r\n0;x\r\n\r\n", b"hi", 26),
            ("trailers", Framing::Chunked, b"2\r\nhi\r\n0\r\nA: b\r\nX-C:\r\n\r\nGET", b"hi", 24),
        ];
        for (name, framing, input, body, used) in cases {
            assert_eq!(decode_every_way(framing, MAX_BYTES, input), Ok((body.to_vec(), used, true)), "{name}");
        }
    }

    #[test]
    fn refuses_chunks_that_can_be_read_in_two_ways() {
        let extension = HttpError::ChunkExtension { max_bytes: EXTENSIONS_MAX_BYTES };
        let cases: &[(&str, &[u8], HttpError)] = &[
            ("no size", b"\r\nhello", HttpError::ChunkSize),
            ("extension without size", b";a\r\n", HttpError::ChunkSize),
            ("hex prefix", b"0x5\r\nhello\r\n", HttpError::ChunkSize),
            ("plus", b"+5\r\nhello\r\n", HttpError::ChunkSize),
            ("minus", b"-5\r\nhello\r\n", HttpError::ChunkSize),
            ("space before", b" 5\r\nhello\r\n", HttpError::ChunkSize),
            ("space after", b"5 \r\nhello\r\n", HttpError::ChunkSize),
            ("space before the extension", b"5 ;a\r\nhello\r\n", HttpError::ChunkSize),
            ("underscore", b"1_0\r\n", HttpError::ChunkSize),
            ("17 digits", b"00000000000000005\r\nhello\r\n", HttpError::ChunkSize),
            ("bare LF after the size", b"5\nhello\r\n", HttpError::LineEnd),
            ("bare CR after the size", b"5\rhello\r\n", HttpError::LineEnd),
            ("bare LF after an extension", b"5;a\nhello\r\n", HttpError::LineEnd),
            ("NUL in an extension", b"5;\0\r\nhello\r\n", extension),
            ("bare CR in an extension", b"5;a\rb\r\nhello\r\n", HttpError::LineEnd),
            ("bare LF after the data", b"5\r\nhello\n0\r\n\r\n", HttpError::ChunkEnd),
            ("bare CR after the data", b"5\r\nhello\r0\r\n\r\n", HttpError::ChunkEnd),
            ("data longer than said", b"5\r\nhello!\r\n", HttpError::ChunkEnd),
            ("data shorter than said", b"6\r\nhello\r\n0\r\n\r\n", HttpError::ChunkEnd),
            ("bare LF as the end", b"0\r\n\n", HttpError::LineEnd),
            ("bare CR as the end", b"0\r\n\rG", HttpError::LineEnd),
            ("trailer without colon", b"0\r\nabc\r\n\r\n", HttpError::Field),
            ("trailer without name", b"0\r\n: b\r\n\r\n", HttpError::Field),
            ("next request instead of the end", b"0\r\nGET / HTTP/1.1\r\n\r\n", HttpError::Field),
            ("trailer with a bare LF", b"0\r\na: b\n\r\n", HttpError::LineEnd),
            ("trailer name with a bare LF", b"0\r\na\n\r\n", HttpError::LineEnd),
            ("trailer with a bare CR", b"0\r\na: b\rc\r\n\r\n", HttpError::LineEnd),
            ("trailer with a NUL", b"0\r\na: \0\r\n\r\n", HttpError::ControlByte),
            ("folded trailer", b"0\r\na: b\r\n c\r\n\r\n", HttpError::Folded),
        ];
        for (name, input, expected) in cases {
            assert_eq!(decode_every_way(Framing::Chunked, MAX_BYTES, input), Err(*expected), "{name}");
            assert!(expected.closes());
        }
    }

    #[test]
    fn body_limit_holds_exactly() {
        let too_large = Err(HttpError::BodyTooLarge { max_bytes: MAX_BYTES });
        let data = vec![b'a'; MAX_BYTES];
        let length = |len: usize| Framing::Length(len as u64);
        assert_eq!(decode(length(MAX_BYTES), MAX_BYTES, &data, 7), Ok((data.clone(), MAX_BYTES, true)));
        assert_eq!(decode(length(MAX_BYTES + 1), MAX_BYTES, b"", 1), too_large, "before a byte is read");
        assert_eq!(decode(Framing::Length(u64::MAX), MAX_BYTES, b"", 1), too_large);

        let chunks = |tail: &[u8]| [b"10\r\n", &data[..16], b"\r\n10\r\n", &data[..16], b"\r\n", tail].concat();
        let (body, _, done) = decode_every_way(Framing::Chunked, MAX_BYTES, &chunks(b"0\r\n\r\n")).unwrap();
        assert_eq!((body.len(), done), (MAX_BYTES, true));
        assert_eq!(decode_every_way(Framing::Chunked, MAX_BYTES, &chunks(b"1\r\n")), too_large);
        assert_eq!(decode_every_way(Framing::Chunked, MAX_BYTES, b"21"), too_large, "at the size already");
        assert_eq!(decode_every_way(Framing::Chunked, MAX_BYTES, b"ffffffffffffffffff\r\n"), too_large);
    }

    #[test]
    fn chunk_size_cannot_overflow() {
        let input = b"1\r\na\r\nffffffffffffffff\r\n";
        let error = decode_every_way(Framing::Chunked, usize::MAX, input);
        assert_eq!(error, Err(HttpError::BodyTooLarge { max_bytes: usize::MAX }), "with the chunk before");
        let error = decode_every_way(Framing::Chunked, usize::MAX, b"fffffffffffffffff\r\n");
        assert_eq!(error, Err(HttpError::ChunkSize));
    }

    #[test]
    fn extensions_and_trailers_are_bounded_in_all() {
        let half = "e".repeat(EXTENSIONS_MAX_BYTES / 2);
        let input = |more: &str| format!("1;{half}\r\na\r\n1;{half}{more}\r\nb\r\n0\r\n\r\n");
        assert_eq!(
            decode(Framing::Chunked, MAX_BYTES, input("").as_bytes(), 999).map(|found| found.0),
            Ok(b"ab".to_vec())
        );
        let too_long = Err(HttpError::ChunkExtension { max_bytes: EXTENSIONS_MAX_BYTES });
        assert_eq!(decode(Framing::Chunked, MAX_BYTES, input("e").as_bytes(), 999), too_long);

        let half = "t".repeat(TRAILERS_MAX_BYTES / 2 - 2);
        let input = |more: &str| format!("0\r\na:{half}\r\nb:{half}{more}\r\n\r\n");
        assert!(decode(Framing::Chunked, MAX_BYTES, input("").as_bytes(), 999).is_ok_and(|found| found.2));
        let too_long = Err(HttpError::TrailersTooLarge { max_bytes: TRAILERS_MAX_BYTES });
        assert_eq!(decode(Framing::Chunked, MAX_BYTES, input("t").as_bytes(), 999), too_long);
    }

    #[test]
    fn announced_data_reserves_no_memory() {
        let mut decoder = BodyDecoder::new(Framing::Length(1 << 30), 1 << 30).unwrap();
        let mut body = Vec::new();
        assert_eq!(decoder.decode(b"hi", &mut body), Ok(Decoded { used: 2, done: false }));
        assert!(body.capacity() < 64, "{}", body.capacity());
    }

    #[test]
    fn mutated_chunks_never_panic_and_never_change_their_mind() {
        const SEED: &[u8] = b"5;x=y\r\nhello\r\na\r\n0123456789\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\n";
        const SPICE: &[u8] = b"\r\n\0 \t:;0159afF+-x\xff";
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
        for _ in 0..2_000 {
            let mut input = SEED.to_vec();
            for _ in 0..=random(3) {
                let at = random(input.len());
                match random(3) {
                    0 => input[at] = SPICE[random(SPICE.len())],
                    1 => input.insert(at, SPICE[random(SPICE.len())]),
                    _ => drop(input.remove(at)),
                }
            }
            let _ = decode_every_way(Framing::Chunked, MAX_BYTES, &input);
        }
    }
}
