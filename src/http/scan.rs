//! Finds where a request head ends and reads its first line, refusing whatever is not strict on the way.
//!
//! Goes over the bytes once, from left to right, and reports the first fault in byte order. So a head that
//! comes in pieces gets the same answer as one that comes at once, and a fault is answered when its byte
//! arrives, not when the head ends. Field lines are only walked here; [`Head`](super::Head) has them split
//! by `httparse`, which is laxer than RFC 9112 in line ends and controls alone.

use std::ops::Range;

use super::error::HttpError;
use super::head::{HeadLimits, Version};
use super::token::{is_forbidden_control, is_tchar};

/// Where the parts of a complete head are, as offsets into the scanned input.
pub(super) struct Outline {
    pub(super) request_line: RequestLine,
    /// All field lines and the empty line that ends the head. Its end is the head's end.
    pub(super) fields: Range<usize>,
    pub(super) field_count: usize,
}

/// The parts of the first line that is not empty.
pub(super) struct RequestLine {
    pub(super) method: Range<usize>,
    pub(super) target: Range<usize>,
    pub(super) version: Version,
}

impl Outline {
    /// Looks for a complete head at the start of `input`; `None` if it needs more bytes.
    pub(super) fn scan(input: &[u8], limits: &HeadLimits) -> Result<Option<Self>, HttpError> {
        let window = input.get(..limits.max_bytes).unwrap_or(input);
        let found = Cursor { bytes: window, at: 0 }.head(limits)?;
        // A full window without an end will not get one, so there is no need to wait for one byte more.
        if found.is_none() && input.len() >= limits.max_bytes {
            return Err(HttpError::HeadTooLarge { max_bytes: limits.max_bytes });
        }
        Ok(found)
    }
}

/// The next byte, or "needs more bytes" as the result of the function around it.
macro_rules! next {
    ($cursor:expr) => {
        match $cursor.next() {
            Some(byte) => byte,
            None => return Ok(None),
        }
    };
}

/// A place in the input. The methods return `None` where the input ends too early.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn head(&mut self, limits: &HeadLimits) -> Result<Option<Outline>, HttpError> {
        let Some(request_line) = self.request_line()? else { return Ok(None) };
        let fields_start = self.at;
        let mut field_count = 0;
        loop {
            let mut byte = next!(self);
            match byte {
                b'\r' => {
                    let Some(()) = self.line_feed()? else { return Ok(None) };
                    return Ok(Some(Outline { request_line, fields: fields_start..self.at, field_count }));
                }
                b' ' | b'\t' => return Err(HttpError::Folded),
                _ => field_count += 1,
            }
            if field_count > limits.max_headers {
                return Err(HttpError::TooManyHeaders { max_headers: limits.max_headers });
            }
            while byte != b'\r' {
                if is_forbidden_control(byte) {
                    return Err(control_fault(byte, HttpError::ControlByte));
                }
                byte = next!(self);
            }
            let Some(()) = self.line_feed()? else { return Ok(None) };
        }
    }

    /// Skips empty lines (RFC 9112 §2.2), then reads method, target and version.
    fn request_line(&mut self) -> Result<Option<RequestLine>, HttpError> {
        let mut empty_lines = 0;
        let mut byte = next!(self);
        while byte == b'\r' {
            empty_lines += 1;
            if empty_lines > MAX_EMPTY_LINES {
                return Err(HttpError::EmptyLines);
            }
            let Some(()) = self.line_feed()? else { return Ok(None) };
            byte = next!(self);
        }

        let start = self.at - 1;
        while byte != b' ' {
            if !is_tchar(byte) {
                return Err(control_fault(byte, HttpError::RequestLine));
            }
            if self.at - start > METHOD_MAX_BYTES {
                return Err(HttpError::MethodUnknown);
            }
            byte = next!(self);
        }
        let method = start..self.at - 1;
        if method.is_empty() {
            return Err(HttpError::RequestLine);
        }

        let start = self.at;
        byte = next!(self);
        while byte != b' ' {
            // A fragment is the client's own business and must not be sent (RFC 9112 §3.2).
            if !byte.is_ascii_graphic() || byte == b'#' {
                return Err(control_fault(byte, HttpError::RequestLine));
            }
            if self.at - start > TARGET_MAX_BYTES {
                return Err(HttpError::TargetTooLong { max_bytes: TARGET_MAX_BYTES });
            }
            byte = next!(self);
        }
        let target = start..self.at - 1;
        if target.is_empty() {
            return Err(HttpError::RequestLine);
        }

        let start = self.at;
        byte = next!(self);
        while byte != b'\r' {
            if !byte.is_ascii_graphic() || self.at - start > VERSION_BYTES {
                return Err(control_fault(byte, HttpError::RequestLine));
            }
            byte = next!(self);
        }
        let version = self.bytes.get(start..self.at - 1).unwrap_or_default();
        let Some(()) = self.line_feed()? else { return Ok(None) };
        let version = match version {
            b"HTTP/1.0" => Version::Http10,
            // A minor version we do not know is answered as the highest that we do (RFC 9110 §2.5).
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Version::Http11,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                return Err(HttpError::VersionUnsupported);
            }
            _ => return Err(HttpError::RequestLine),
        };
        Ok(Some(RequestLine { method, target, version }))
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        byte
    }

    /// The LF that must follow a CR.
    fn line_feed(&mut self) -> Result<Option<()>, HttpError> {
        match self.next() {
            Some(b'\n') => Ok(Some(())),
            Some(_) => Err(HttpError::LineEnd),
            None => Ok(None),
        }
    }
}

/// The fault that a byte in the wrong place is: a bare LF or a control wherever it stands, else `otherwise`.
const fn control_fault(byte: u8, otherwise: HttpError) -> HttpError {
    match byte {
        b'\n' => HttpError::LineEnd,
        _ if is_forbidden_control(byte) && byte != b'\r' => HttpError::ControlByte,
        _ => otherwise,
    }
}

/// Empty lines that are skipped before a request line. Old clients send one after a POST body.
const MAX_EMPTY_LINES: usize = 4;

/// The longest method registered with IANA has 17 bytes (`UPDATEREDIRECTREF`); this is far above all in use.
const METHOD_MAX_BYTES: usize = 32;

/// RFC 9112 §3 asks for at least 8 000.
pub(super) const TARGET_MAX_BYTES: usize = 8 * 1024;

/// Length of `HTTP/1.1`.
const VERSION_BYTES: usize = 8;
