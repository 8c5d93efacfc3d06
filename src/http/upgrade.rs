//! The WebSocket handshake, server side (RFC 6455 §4.2), up to the `101`.
//!
//! The frames after it are the WebSocket library's. What a client sent right behind its request is
//! left in the caller's buffer and belongs to them.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, PAD, STANDARD};

use super::head::{Framing, Head, Version};
use super::response::{Response, is_ours, push_header};
use super::token;

/// Checks an upgrade request and computes its answer.
///
/// Extensions are not negotiated: compression costs 3 to 10 times the memory per connection (websockets/ws#497).
///
/// # Errors
///
/// The first thing that is not as RFC 6455 §4.2.1 says.
pub fn websocket(head: &Head) -> Result<Accept, UpgradeError> {
    if head.method() != "GET" {
        return Err(UpgradeError::Method);
    }
    if head.version() != Version::Http11 {
        return Err(UpgradeError::HttpVersion);
    }
    if !head.has_token("connection", "upgrade") || !head.has_token("upgrade", "websocket") {
        return Err(UpgradeError::NotWebSocket);
    }
    // With a body in between, the first frame would begin where another parser sees the body.
    if !matches!(head.framing(), Framing::None | Framing::Length(0)) {
        return Err(UpgradeError::Content);
    }
    if only(head, "sec-websocket-version") != Some(b"13") {
        return Err(UpgradeError::WebSocketVersion);
    }
    let key = only(head, "sec-websocket-key").ok_or(UpgradeError::Key)?;
    if KEY_ENGINE.decode(key).map_or(0, |nonce| nonce.len()) != KEY_BYTES {
        return Err(UpgradeError::Key);
    }
    let mut offered = head.headers("sec-websocket-protocol").flat_map(token::list);
    let protocol = match offered.next() {
        None => None,
        Some(first) if token::is_token(first) => Some(String::from_utf8_lossy(first).into()),
        Some(_) => return Err(UpgradeError::Subprotocol),
    };

    let mut hash = sha1_smol::Sha1::from(key);
    hash.update(ACCEPT_GUID);
    Ok(Accept { proof: STANDARD.encode(hash.digest().bytes()), protocol })
}

/// A handshake that may go on: everything of the request that its answer needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accept {
    /// Value of Sec-WebSocket-Accept.
    proof: String,
    /// The first subprotocol that the client offered. Engine.IO gives them no meaning, but a
    /// browser which offered some and got none fails the handshake.
    protocol: Option<Box<str>>,
}

impl Accept {
    /// Appends the `101 Switching Protocols` head to `out`. The next byte is the first one of a frame.
    ///
    /// Of `extra_headers` those that frame a message are skipped, as in [`Response::encode`].
    pub fn encode(&self, out: &mut Vec<u8>, extra_headers: &[(&'static str, Cow<'static, str>)]) {
        out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
        push_header(out, "Sec-WebSocket-Accept", &self.proof);
        if let Some(protocol) = &self.protocol {
            push_header(out, "Sec-WebSocket-Protocol", protocol);
        }
        for (name, value) in extra_headers.iter().filter(|(name, _)| !is_ours(name)) {
            push_header(out, name, value);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Why an upgrade request cannot become a WebSocket. Always the client's fault.
///
/// Becomes a [`Response`], after which the connection must be closed: the client may have sent frames already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UpgradeError {
    /// Not a GET.
    Method,
    /// HTTP/1.0, which has no upgrade. Often an nginx without `proxy_http_version 1.1`.
    HttpVersion,
    /// Upgrade or Connection are missing, or name something else.
    NotWebSocket,
    /// The request has a body.
    Content,
    /// Sec-WebSocket-Version is not 13. The answer says which ones there are.
    WebSocketVersion,
    /// Sec-WebSocket-Key is not 16 bytes in base64, once.
    Key,
    /// The first Sec-WebSocket-Protocol is not a token.
    Subprotocol,
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for UpgradeError {}

impl UpgradeError {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "expected a WebSocket handshake with GET",
            Self::HttpVersion => "expected a WebSocket handshake in HTTP/1.1",
            Self::NotWebSocket => "expected the headers Upgrade: websocket and Connection: Upgrade",
            Self::Content => "expected a WebSocket handshake without a body",
            Self::WebSocketVersion => "expected Sec-WebSocket-Version: 13",
            Self::Key => "expected a Sec-WebSocket-Key of 16 bytes in base64",
            Self::Subprotocol => "expected Sec-WebSocket-Protocol to list tokens",
        }
    }
}

impl From<UpgradeError> for Response {
    fn from(error: UpgradeError) -> Self {
        let response = refusal(error.as_str());
        match error {
            // The reference's answer. RFC 6455 §4.4 suggests 426; clients take either.
            UpgradeError::WebSocketVersion => response.with_header("Sec-WebSocket-Version", "13, 8"),
            _ => response,
        }
    }
}

/// The answer to an upgrade request that fails, in the reference's form: always 400, `text/html`, the bare message.
///
/// `message` is static because it is sent as HTML without escaping. Encode it with `keep_alive: false`.
pub fn refusal(message: &'static str) -> Response {
    Response::text(400, "text/html", message)
}

/// The value of a header that must be there exactly once.
fn only<'h>(head: &'h Head, name: &str) -> Option<&'h [u8]> {
    let mut values = head.headers(name);
    values.next().filter(|_| values.next().is_none())
}

/// Length of the nonce in Sec-WebSocket-Key.
const KEY_BYTES: usize = 16;

/// RFC 6455 §1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Padding is required, but not that the four bits which 16 bytes leave unused are zero: `ws` takes
/// such keys as well, and the key proves nothing but that we read it.
const KEY_ENGINE: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PAD.with_decode_allow_trailing_bits(true));

#[cfg(test)]
mod tests {
    use super::super::head::HeadLimits;
    use super::super::response::Encoding;
    use super::*;

    /// The request of RFC 6455 §1.2, but for its subprotocols.
    const LINES: [&str; 5] = [
        "Host: server.example.com",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ];

    fn handshake(request_line: &str, lines: &[&str]) -> Result<Accept, UpgradeError> {
        let text = format!("{request_line}\r\n{}\r\n\r\n", lines.join("\r\n"));
        let (head, _) = Head::parse(text.as_bytes(), &HeadLimits::default()).expect(&text).expect(&text);
        websocket(&head)
    }

    /// The sample request with the line that has the same name replaced, or one more.
    fn with(line: &str) -> Result<Accept, UpgradeError> {
        let name = |line: &str| line.split(':').next().map(str::to_owned);
        let mut lines: Vec<_> = LINES.into_iter().filter(|sample| name(sample) != name(line)).collect();
        lines.push(line);
        handshake("GET / HTTP/1.1", &lines)
    }

    #[test]
    fn sample_of_the_rfc_is_accepted() {
        let mut out = Vec::new();
        let accept = handshake("GET /chat HTTP/1.1", &LINES).unwrap();
        accept.encode(&mut out, &[]);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn subprotocol_and_extra_headers_are_written() {
        let mut out = Vec::new();
        let accept = with("Sec-WebSocket-Protocol: , chat, superchat").unwrap();
        accept.encode(&mut out, &[("Set-Cookie", "io=a\r\nX: b".into()), ("Content-Length", "5".into())]);
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("xOo=\r\nSec-WebSocket-Protocol: chat\r\nSet-Cookie: io=a  X: b\r\n\r\n"), "{text}");
        assert!(!text.contains("Sec-WebSocket-Extensions"));
    }

    #[test]
    fn handshakes_are_checked() {
        let cases = [
            ("Upgrade: WebSocket", Ok(())),
            ("Upgrade: h2c, websocket", Ok(())),
            ("Connection: keep-alive, Upgrade", Ok(())),
            ("Content-Length: 0", Ok(())),
            ("Sec-WebSocket-Extensions: permessage-deflate", Ok(())),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==", Ok(())),
            ("Upgrade: h2c", Err(UpgradeError::NotWebSocket)),
            ("Upgrade: websockets", Err(UpgradeError::NotWebSocket)),
            ("Connection: keep-alive", Err(UpgradeError::NotWebSocket)),
            ("Content-Length: 1", Err(UpgradeError::Content)),
            ("Transfer-Encoding: chunked", Err(UpgradeError::Content)),
            ("Sec-WebSocket-Version: 8", Err(UpgradeError::WebSocketVersion)),
            ("Sec-WebSocket-Version: 13, 8", Err(UpgradeError::WebSocketVersion)),
            ("Sec-WebSocket-Version:", Err(UpgradeError::WebSocketVersion)),
            ("Sec-WebSocket-Key:", Err(UpgradeError::Key)),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ", Err(UpgradeError::Key)),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j", Err(UpgradeError::Key)),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWE=", Err(UpgradeError::Key)),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!Q==", Err(UpgradeError::Key)),
            ("Sec-WebSocket-Protocol: a b", Err(UpgradeError::Subprotocol)),
        ];
        for (line, expected) in cases {
            assert_eq!(with(line).map(|_| ()), expected, "{line}");
        }
        for line in &LINES[1..] {
            let others: Vec<_> = LINES.into_iter().filter(|other| other != line).collect();
            assert!(handshake("GET / HTTP/1.1", &others).is_err(), "without {line}");
        }
        for line in &LINES[3..] {
            assert!(handshake("GET / HTTP/1.1", &[&LINES[..], &[line]].concat()).is_err(), "twice {line}");
        }
        assert_eq!(handshake("POST / HTTP/1.1", &LINES), Err(UpgradeError::Method));
        assert_eq!(handshake("GET / HTTP/1.0", &LINES), Err(UpgradeError::HttpVersion));
    }

    #[test]
    fn refusals_have_the_form_of_the_reference() {
        let mut out = Vec::new();
        let how = Encoding { version: Version::Http11, head_only: false, keep_alive: false };
        Response::from(UpgradeError::WebSocketVersion).encode(&mut out, &how);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nSec-WebSocket-Version: 13, 8\r\n\
             Cache-Control: no-store\r\nContent-Length: 34\r\nConnection: close\r\n\r\nexpected Sec-WebSocket-Version: 13"
        );
        assert_eq!(refusal("Transport unknown").body.as_bytes(), b"Transport unknown");
    }
}
