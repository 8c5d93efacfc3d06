//! Answers, and how they look on the wire (RFC 9112 §4 and §9, RFC 9110 §15).

use std::borrow::Cow;

use serde::Serialize;

use super::error::HttpError;
use super::head::Version;
use super::token::is_forbidden_control;

/// What a client waits for after `Expect: 100-continue`; the real answer still follows.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// An answer as a value. [`encode`](Self::encode) makes bytes of it and adds what depends on the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// The status code, 200 to 599.
    pub status: u16,
    /// Headers in the order they are sent. Connection, Content-Length and Transfer-Encoding are not
    /// among them: `encode` writes those, and skips any that stand here.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The content.
    pub body: Body,
}

/// An answer's content. Cow-like: what is known at compile time is not copied.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Body {
    /// No bytes.
    #[default]
    Empty,
    /// Bytes that are part of the binary.
    Static(&'static [u8]),
    /// Bytes that were made for this answer.
    Bytes(Vec<u8>),
}

/// What the request and the connection say about how an answer is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encoding {
    /// The request's version. The status line says HTTP/1.1 all the same (RFC 9110 §2.5); this
    /// decides about the Connection header.
    pub version: Version,
    /// The request was HEAD: Content-Length as for GET, but no content.
    pub head_only: bool,
    /// Whether the connection stays open after this answer.
    pub keep_alive: bool,
}

impl Response {
    /// An answer without headers or content.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::Empty }
    }

    /// An answer with `value` as JSON.
    ///
    /// A value that JSON cannot express (a map with keys that are no strings) is our fault: it
    /// becomes a 500 and a line in the log.
    pub fn json(status: u16, value: impl Serialize) -> Self {
        match serde_json::to_vec(&value) {
            Ok(body) => Self::text(status, "application/json", body),
            Err(error) => {
                log::error!("answer with status {status} cannot be written as JSON: {error}");
                Self::from_error(&HttpError::Internal)
            }
        }
    }

    /// An answer with content of the given type.
    pub fn text(status: u16, content_type: &'static str, body: impl Into<Body>) -> Self {
        Self { status, headers: vec![("Content-Type", Cow::Borrowed(content_type))], body: body.into() }
    }

    /// The answer to a faulty request: `{"error":{"code":…,"message":…}}` as in the contract's §0,
    /// with the Allow or Retry-After header that the status asks for.
    pub fn from_error(error: &HttpError) -> Self {
        Self::refusal(error, None)
    }

    /// [`from_error`](Self::from_error) with the id of the request.
    pub fn from_error_of(error: &HttpError, request_id: &str) -> Self {
        Self::refusal(error, Some(request_id))
    }

    fn refusal(error: &HttpError, request_id: Option<&str>) -> Self {
        let mut object = serde_json::json!({ "code": error.code(), "message": error.to_string() });
        let retry_after_ms = match error {
            HttpError::RateLimited { retry_after_ms } | HttpError::Unavailable { retry_after_ms } => {
                Some(retry_after_ms)
            }
            _ => None,
        };
        if let (Some(retry_after_ms), Some(object)) = (retry_after_ms, object.as_object_mut()) {
            object.insert("retry_after_ms".into(), (*retry_after_ms).into());
        }
        if let (Some(id), Some(object)) = (request_id, object.as_object_mut()) {
            object.insert("request_id".into(), id.into());
        }
        let response = Self::json(error.status(), serde_json::json!({ "error": object }));
        match error {
            HttpError::MethodNotAllowed { allow } => response.with_header("Allow", *allow),
            HttpError::RateLimited { retry_after_ms } | HttpError::Unavailable { retry_after_ms } => {
                response.with_header("Retry-After", retry_after_ms.div_ceil(1000).to_string())
            }
            _ => response,
        }
    }

    /// The same answer with one header more.
    pub fn with_header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Appends the whole answer to `out`.
    ///
    /// Adds Content-Length where the status may have one, Connection, and `Cache-Control: no-store`
    /// unless another Cache-Control is set: nothing that this service says is for a cache.
    pub fn encode(&self, out: &mut Vec<u8>, how: &Encoding) {
        let body = self.body.as_bytes();
        out.reserve(192 + self.headers.len() * 48 + body.len());
        out.extend_from_slice(b"HTTP/1.1 ");
        push_number(out, usize::from(self.status));
        out.push(b' ');
        out.extend_from_slice(reason(self.status).as_bytes());
        out.extend_from_slice(b"\r\n");

        let has_content = !matches!(self.status, 100..=199 | 204 | 304);
        let mut has_cache_control = false;
        for (name, value) in &self.headers {
            if !is_ours(name) {
                has_cache_control |= name.eq_ignore_ascii_case("cache-control");
                push_header(out, name, value);
            } else if self.status == 204 && name.eq_ignore_ascii_case("content-length") {
                // Against RFC 9110 §8.6, as the reference does for preflights: Safari waits for content without it.
                push_header(out, name, "0");
            }
        }
        if !has_cache_control {
            push_header(out, "Cache-Control", "no-store");
        }
        if has_content {
            out.extend_from_slice(b"Content-Length: ");
            push_number(out, body.len());
            out.extend_from_slice(b"\r\n");
        }
        match (how.keep_alive, how.version) {
            (false, _) => push_header(out, "Connection", "close"),
            (true, Version::Http10) => push_header(out, "Connection", "keep-alive"),
            (true, Version::Http11) => {}
        }
        out.extend_from_slice(b"\r\n");
        if has_content && !how.head_only {
            out.extend_from_slice(body);
        }
    }
}

impl Body {
    /// The content itself.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Empty => b"",
            Self::Static(bytes) => bytes,
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Static(bytes)
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::Static(text.as_bytes())
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Bytes(text.into_bytes())
    }
}

/// Writes one header line. Control bytes in the value, CR and LF above all, become spaces, so that
/// a value which came from a client cannot end its line.
pub(super) fn push_header(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.bytes().map(|byte| if is_forbidden_control(byte) { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

/// Headers that decide where the answer ends; only `encode` may write them.
pub(super) fn is_ours(name: &str) -> bool {
    ["connection", "content-length", "transfer-encoding"].iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

fn push_number(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(number.to_string().as_bytes());
}

/// The phrase beside the code; no program reads it.
const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        423 => "Locked",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        // RFC 9112 §4: the phrase may be empty, the space before it not.
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Encoding = Encoding { version: Version::Http11, head_only: false, keep_alive: true };

    fn wire(response: &Response, how: Encoding) -> String {
        let mut out = Vec::new();
        response.encode(&mut out, &how);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn writes_head_and_content() {
        let ok = Response::text(200, "text/html", "ok");
        let length = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: no-store\r\nContent-Length: 2\r\n";
        let close = Encoding { keep_alive: false, ..KEEP };
        let old = Encoding { version: Version::Http10, ..KEEP };
        let head_only = Encoding { head_only: true, ..KEEP };
        let cases = [
            ("1.1, open", KEEP, "", "ok"),
            ("1.1, last", close, "Connection: close\r\n", "ok"),
            ("1.0, open", old, "Connection: keep-alive\r\n", "ok"),
            ("1.0, last", Encoding { keep_alive: false, ..old }, "Connection: close\r\n", "ok"),
            ("HEAD", head_only, "", ""),
        ];
        for (name, how, connection, content) in cases {
            assert_eq!(wire(&ok, how), format!("{length}{connection}\r\n{content}"), "{name}");
        }
    }

    #[test]
    fn statuses_without_content_have_no_length() {
        for (status, line) in [(204, "HTTP/1.1 204 No Content"), (304, "HTTP/1.1 304 Not Modified")] {
            let response = Response { body: Body::Static(b"never sent"), ..Response::new(status) };
            assert_eq!(wire(&response, KEEP), format!("{line}\r\nCache-Control: no-store\r\n\r\n"));
        }
        let empty = wire(&Response::new(200), KEEP);
        assert_eq!(empty, "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 0\r\n\r\n");
        assert!(wire(&Response::new(299), KEEP).starts_with("HTTP/1.1 299 \r\n"));
    }

    #[test]
    fn headers_cannot_end_their_line_or_the_message() {
        let response = Response::new(200)
            .with_header("X-Echo", "a\r\nSet-Cookie: b\0\x7f\tc".to_owned())
            .with_header("content-length", "999")
            .with_header("Connection", "upgrade")
            .with_header("Transfer-Encoding", "chunked")
            .with_header("cache-control", "max-age=60");
        assert_eq!(
            wire(&response, KEEP),
            "HTTP/1.1 200 OK\r\nX-Echo: a  Set-Cookie: b  \tc\r\ncache-control: max-age=60\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn errors_are_json_objects() {
        let cases = [
            (HttpError::NotFound, r#"{"error":{"code":"not_found","message":"expected a path that exists"}}"#, None),
            (
                HttpError::MethodNotAllowed { allow: "GET, HEAD" },
                r#"{"error":{"code":"method_not_allowed","message":"expected one of the methods GET, HEAD"}}"#,
                Some(("Allow", "GET, HEAD")),
            ),
            (
                HttpError::Unavailable { retry_after_ms: 1001 },
                r#"{"error":{"code":"unavailable","message":"the service cannot answer now, try again in 1001 ms","retry_after_ms":1001}}"#,
                Some(("Retry-After", "2")),
            ),
            (
                HttpError::RateLimited { retry_after_ms: 50 },
                r#"{"error":{"code":"rate_limited","message":"expected fewer requests, try again in 50 ms","retry_after_ms":50}}"#,
                Some(("Retry-After", "1")),
            ),
        ];
        for (error, body, header) in cases {
            let response = Response::from_error(&error);
            assert_eq!(response.status, error.status());
            assert_eq!(std::str::from_utf8(response.body.as_bytes()), Ok(body));
            assert_eq!(response.headers.first(), Some(&("Content-Type", "application/json".into())));
            assert_eq!(response.headers.get(1), header.map(|(name, value)| (name, value.into())).as_ref());
        }
    }

    #[test]
    fn json_that_cannot_be_written_is_our_fault() {
        let map = std::collections::HashMap::from([((1, 2), 3)]);
        assert_eq!(Response::json(200, map), Response::from_error(&HttpError::Internal));
        assert_eq!(Response::json(201, [1, 2]).body, Body::Bytes(b"[1,2]".to_vec()));
    }
}
