//! One request's head: the request line and the headers, checked so that nothing in it can be read in two ways.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use super::authority::Authority;
use super::error::HttpError;
use super::scan::Outline;
use super::token;

/// How much head a client may send. Both bounds hold before anything is allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadLimits {
    /// Bytes from the first one to the empty line's LF, default 16 KiB. A read buffer of this size suffices.
    pub max_bytes: usize,
    /// Header lines, default 64.
    pub max_headers: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { max_bytes: 16 * 1024, max_headers: 64 }
    }
}

/// The version a request was sent with. HTTP/1.2 to 1.9 count as 1.1 (RFC 9110 §2.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// What nginx speaks to its upstreams by default: no keep-alive unless asked for, no chunks, no upgrade.
    Http10,
    /// Everything else.
    Http11,
}

/// How a request's body is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// Neither header: a request without a body.
    None,
    /// Content-Length, possibly 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A complete request head.
///
/// Owns one copy of the bytes, header names in lower case, and the places of its parts. `Debug`
/// leaves out the query and the headers, because session ids and tokens stand there.
pub struct Head {
    bytes: Box<[u8]>,
    method: Span,
    target: Span,
    /// Within `target`. Empty for `http://host`, whose path is `/`.
    path: Span,
    query: Span,
    /// Host header, or what an absolute target says instead of it.
    host: Option<Span>,
    version: Version,
    framing: Framing,
    fields: Box<[Field]>,
}

impl Head {
    /// Reads the head at the start of `input`. `None` means that it is not complete yet, and costs
    /// no more than one pass over `input`: call again with the same bytes and more.
    ///
    /// With the head comes the number of bytes that it used, empty lines in front of it included.
    /// What follows them is the body, the next request, or after an upgrade the first frames.
    ///
    /// # Errors
    ///
    /// The first fault in byte order, reported as soon as its byte is there; faults in what headers
    /// mean once the head is complete. All of them close the connection.
    pub fn parse(input: &[u8], limits: &HeadLimits) -> Result<Option<(Self, usize)>, HttpError> {
        let Some(outline) = Outline::scan(input, limits)? else { return Ok(None) };
        let used = outline.fields.end;
        Self::new(input, &outline).map(|head| Some((head, used)))
    }

    fn new(input: &[u8], outline: &Outline) -> Result<Self, HttpError> {
        let Outline { request_line, fields, field_count } = outline;
        let start = request_line.method.start;
        let within = |range: &Range<usize>| Span::new(range.start - start..range.end - start);
        let mut bytes: Box<[u8]> = input.get(start..fields.end).unwrap_or_default().into();
        let fields = split_fields(&bytes, within(fields), *field_count)?;
        for field in &fields {
            bytes.get_mut(field.name.range()).unwrap_or_default().make_ascii_lowercase();
        }

        let target = within(&request_line.target);
        let mut head = Self {
            bytes,
            method: within(&request_line.method),
            target,
            path: target,
            query: Span::default(),
            host: None,
            version: request_line.version,
            framing: Framing::None,
            fields,
        };
        head.host = head.checked_host()?;
        head.read_target()?;
        head.framing = head.checked_framing()?;
        if head.headers("expect").any(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
            return Err(HttpError::ExpectationFailed);
        }
        Ok(head)
    }

    /// The method as sent; methods are case-sensitive.
    pub fn method(&self) -> &str {
        self.text(self.method)
    }

    /// The request target as sent, query and all. Holds session ids: not for logs.
    pub fn target(&self) -> &str {
        self.text(self.target)
    }

    /// The target's path, still percent-encoded: begins with `/`, or is `*` with OPTIONS.
    pub fn path(&self) -> &str {
        match self.text(self.path) {
            "" => "/",
            path => path,
        }
    }

    /// What follows the target's first `?`, still percent-encoded; empty if there is none.
    pub fn query(&self) -> &str {
        self.text(self.query)
    }

    /// The first value of `name` in the query, decoded as forms are: `+` is a space, `%` escapes are bytes.
    ///
    /// A broken escape stands for itself and broken UTF-8 becomes U+FFFD, as in a browser's `URLSearchParams`.
    pub fn query_param(&self, name: &str) -> Option<Cow<'_, str>> {
        self.query().split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_form(key) == name).then(|| decode_form(value))
        })
    }

    /// All fields of the query, decoded as those of [`query_param`](Self::query_param).
    pub fn query_params(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        self.query().split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_form(key), decode_form(value))
        })
    }

    /// The version of the request. An answer is HTTP/1.1 all the same.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The host that the request is for, `host[:port]`: the Host header, or the authority of an
    /// absolute target, which overrides it (RFC 9112 §3.2.2). `None` only in HTTP/1.0.
    pub fn host(&self) -> Option<&[u8]> {
        self.host.map(|span| self.slice(span))
    }

    /// The first header of this name, which must be in lower case. Whitespace around the value is cut off.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers(name).next()
    }

    /// All headers of this name, which must be in lower case, in the order they came.
    pub fn headers<'h>(&'h self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.fields
            .iter()
            .filter(move |field| self.slice(field.name) == name.as_bytes())
            .map(|field| self.slice(field.value))
    }

    /// Like [`header`](Self::header); `None` also if the first value is not UTF-8.
    pub fn header_str(&self, name: &str) -> Option<&str> {
        self.header(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// How the body is delimited.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the client wants the connection to stay open after the answer (RFC 9112 §9.3).
    pub fn keep_alive(&self) -> bool {
        match self.version {
            Version::Http11 => !self.has_token("connection", "close"),
            Version::Http10 => self.has_token("connection", "keep-alive") && !self.has_token("connection", "close"),
        }
    }

    /// Whether the client may be waiting for [`CONTINUE`](super::CONTINUE) before it sends the body.
    ///
    /// Never true for HTTP/1.0, where the header must be ignored, nor without a body.
    pub fn expects_continue(&self) -> bool {
        self.version == Version::Http11
            && !matches!(self.framing, Framing::None | Framing::Length(0))
            && self.header("expect").is_some()
    }

    /// Whether one of the comma lists in the headers of this name, in lower case, holds `token` in any case.
    pub fn has_token(&self, header: &str, token: &str) -> bool {
        self.headers(header).flat_map(token::list).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Whether the client asks for another protocol. Which one is for
    /// [`upgrade::websocket`](super::upgrade::websocket) to say: some HTTP clients offer `h2c` with
    /// every request, and want a plain answer when nobody takes it up.
    pub fn is_upgrade(&self) -> bool {
        self.header("upgrade").is_some() && self.has_token("connection", "upgrade")
    }

    fn checked_host(&self) -> Result<Option<Span>, HttpError> {
        let mut hosts = self.fields.iter().filter(|field| self.slice(field.name) == b"host");
        let Some(host) = hosts.next() else {
            return match self.version {
                Version::Http10 => Ok(None),
                Version::Http11 => Err(HttpError::HostMissing),
            };
        };
        if hosts.next().is_some() {
            return Err(HttpError::HostRepeated);
        }
        // An empty Host is valid (RFC 9112 §3.2); it equals no origin.
        if Authority::parse(self.slice(host.value)).is_none() {
            return Err(HttpError::HostInvalid);
        }
        Ok(Some(host.value))
    }

    /// Finds path and query in the target, and the host in one of absolute form.
    fn read_target(&mut self) -> Result<(), HttpError> {
        let target = self.target();
        if target == "*" {
            return if self.method() == "OPTIONS" { Ok(()) } else { Err(HttpError::Target) };
        }
        let mut path_at = 0;
        let mut host = None;
        if !target.starts_with('/') {
            let (scheme, rest) = target.split_once("://").ok_or(HttpError::Target)?;
            if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
                return Err(HttpError::Target);
            }
            let authority = rest.split(['/', '?']).next().unwrap_or_default();
            match Authority::parse(authority.as_bytes()) {
                Some(parsed) if !parsed.host.is_empty() => {}
                _ => return Err(HttpError::Target),
            }
            let host_at = scheme.len() + "://".len();
            path_at = host_at + authority.len();
            host = Some(self.target.part(host_at..path_at));
        }
        let len = target.len();
        let path_and_query = target.get(path_at..).unwrap_or_default();
        let path_end = path_and_query.find('?').map_or(len, |at| path_at + at);
        self.query = self.target.part((path_end + 1).min(len)..len);
        self.path = self.target.part(path_at..path_end);
        self.host = host.or(self.host);
        Ok(())
    }

    /// RFC 9112 §6.3, with everything it allows to be repaired refused instead.
    fn checked_framing(&self) -> Result<Framing, HttpError> {
        let mut codings = self.headers("transfer-encoding");
        let mut lengths = self.headers("content-length");
        match (codings.next(), lengths.next()) {
            (None, None) => Ok(Framing::None),
            (Some(_), Some(_)) => Err(HttpError::LengthWithCoding),
            (Some(_), None) if self.version == Version::Http10 => Err(HttpError::CodingInHttp10),
            (Some(coding), None) => {
                if codings.next().is_some() || !coding.eq_ignore_ascii_case(b"chunked") {
                    return Err(HttpError::TransferCoding);
                }
                Ok(Framing::Chunked)
            }
            (None, Some(length)) => {
                if lengths.next().is_some() {
                    return Err(HttpError::LengthRepeated);
                }
                // `u64::from_str` would take a leading `+`.
                if !length.iter().all(u8::is_ascii_digit) {
                    return Err(HttpError::LengthInvalid);
                }
                let digits = std::str::from_utf8(length).map_err(|_| HttpError::LengthInvalid)?;
                digits.parse().map(Framing::Length).map_err(|_| HttpError::LengthInvalid)
            }
        }
    }

    fn slice(&self, span: Span) -> &[u8] {
        self.bytes.get(span.range()).unwrap_or_default()
    }

    /// Only for the parts of the request line, which the scan left nothing but ASCII in.
    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.slice(span)).unwrap_or_default()
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("method", &self.method())
            .field("path", &self.path())
            .field("version", &self.version)
            .field("framing", &self.framing)
            .field("headers", &self.fields.len())
            .finish()
    }
}

/// One header line's parts.
struct Field {
    name: Span,
    value: Span,
}

/// A place in a head's bytes: half of a `Range<usize>`.
#[derive(Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Saturates above 4 GiB, where [`Head::slice`] then finds nothing; heads are a million times smaller.
    fn new(range: Range<usize>) -> Self {
        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { start: narrow(range.start), end: narrow(range.end) }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// A place given relative to this one.
    fn part(self, range: Range<usize>) -> Self {
        let start = self.range().start;
        Self::new(start + range.start..start + range.end)
    }
}

/// Splits the scanned field lines into names and values.
fn split_fields(bytes: &[u8], fields: Span, count: usize) -> Result<Box<[Field]>, HttpError> {
    let lines = bytes.get(fields.range()).unwrap_or_default();
    // The scan has counted the lines, and at most `max_headers` of them: the vector has that many places exactly.
    let mut headers = vec![httparse::EMPTY_HEADER; count];
    match httparse::parse_headers(lines, &mut headers) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) | Err(_) => return Err(HttpError::Field),
    }
    // httparse lends slices of what it was given, so the distance between two addresses is the offset.
    let base = bytes.as_ptr().addr();
    let span = |part: &[u8]| {
        let start = part.as_ptr().addr().wrapping_sub(base);
        Span::new(start..start.wrapping_add(part.len()))
    };
    Ok(headers
        .iter()
        .map(|header| Field { name: span(header.name.as_bytes()), value: span(header.value.trim_ascii()) })
        .collect())
}

/// Decodes `application/x-www-form-urlencoded` text; borrows if there is nothing to decode.
fn decode_form(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escaped = match (byte, after) {
            (b'%', [high, low, after @ ..]) => hex_digit(*high).zip(hex_digit(*low)).map(|pair| (pair, after)),
            _ => None,
        };
        decoded.push(match (byte, escaped) {
            (_, Some(((high, low), after))) => {
                rest = after;
                high << 4 | low
            }
            (b'+', None) => b' ',
            (byte, None) => byte,
        });
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

/// The value of one hexadecimal digit.
pub(super) const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::TARGET_MAX_BYTES;
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 16 * 1024, max_headers: 64 };

    fn parse(input: impl AsRef<[u8]>) -> Result<Option<(Head, usize)>, HttpError> {
        Head::parse(input.as_ref(), &LIMITS)
    }

    /// A head that must parse, with the given lines between request line and end.
    fn head(request_line: &str, lines: &str) -> Head {
        let text = format!("{request_line}\r\n{lines}\r\n");
        let (head, used) = parse(&text).expect(&text).expect(&text);
        assert_eq!(used, text.len(), "{text:?}");
        head
    }

    /// Everything a parse can say, in a form that compares.
    fn outcome(input: &[u8]) -> Result<Option<(String, usize)>, HttpError> {
        parse(input).map(|found| {
            found.map(|(head, used)| {
                let fields: Vec<_> =
                    head.fields.iter().map(|field| (head.slice(field.name), head.slice(field.value))).collect();
                (format!("{head:?} {} {:?} {:?} {fields:?}", head.target(), head.query(), head.host()), used)
            })
        })
    }

    /// A prefix says "more" until it says what the whole says, and from there on never changes its mind.
    fn assert_same_at_every_cut(input: &[u8]) {
        let whole = outcome(input);
        for cut in 0..input.len() {
            let part = outcome(&input[..cut]);
            assert!(
                part == Ok(None) || part == whole,
                "cut at {cut} of {:?}: {part:?}, whole: {whole:?}",
                String::from_utf8_lossy(input)
            );
            if let Ok(Some((_, used))) = &whole {
                assert_eq!(part == Ok(None), cut < *used, "cut at {cut}");
            }
        }
    }

    #[test]
    fn refuses_what_can_be_read_in_two_ways() {
        let cases: &[(&str, &[u8], HttpError)] = &[
            // Lines and bytes.
            ("bare LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", HttpError::LineEnd),
            ("bare LF after a header", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", HttpError::LineEnd),
            ("bare LF as the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", HttpError::LineEnd),
            ("bare LF in front", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::LineEnd),
            ("bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", HttpError::LineEnd),
            ("bare CR after the version", b"GET / HTTP/1.1\rHost: a\r\n\r\n", HttpError::LineEnd),
            ("bare CR in front", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::LineEnd),
            ("CR CR LF", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", HttpError::LineEnd),
            ("NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", HttpError::ControlByte),
            ("NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", HttpError::ControlByte),
            ("NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::ControlByte),
            ("DEL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", HttpError::ControlByte),
            (
                "vertical tab before chunked",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
                HttpError::ControlByte,
            ),
            ("folded header", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", HttpError::Folded),
            ("folded with a tab", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", HttpError::Folded),
            ("space before the first header", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", HttpError::Folded),
            ("space before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", HttpError::Field),
            ("tab before the colon", b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", HttpError::Field),
            ("space in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n", HttpError::Field),
            ("no name", b"GET / HTTP/1.1\r\nHost: a\r\n: z\r\n\r\n", HttpError::Field),
            ("no colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", HttpError::Field),
            ("non-ASCII in a name", b"GET / HTTP/1.1\r\nHost: a\r\n\xc3\xa9: z\r\n\r\n", HttpError::Field),
            // The request line.
            ("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::RequestLine),
            ("space at the end", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", HttpError::RequestLine),
            ("tab for a space", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::RequestLine),
            ("space in front", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::RequestLine),
            ("no version", b"GET /\r\nHost: a\r\n\r\n", HttpError::RequestLine),
            ("no target", b"GET\r\nHost: a\r\n\r\n", HttpError::RequestLine),
            ("method of other bytes", b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::RequestLine),
            ("lower-case version", b"GET / http/1.1\r\nHost: a\r\n\r\n", HttpError::RequestLine),
            ("long version", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", HttpError::RequestLine),
            ("short version", b"GET / HTTP/1\r\nHost: a\r\n\r\n", HttpError::RequestLine),
            ("non-ASCII target", b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::RequestLine),
            ("fragment", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::RequestLine),
            ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", HttpError::ControlByte),
            ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HttpError::VersionUnsupported),
            ("HTTP/3", b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", HttpError::VersionUnsupported),
            ("HTTP/0.9", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", HttpError::VersionUnsupported),
            // The target.
            ("star with GET", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::Target),
            ("authority form", b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::Target),
            ("no slash", b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::Target),
            ("another scheme", b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::Target),
            ("absolute without host", b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::Target),
            ("absolute with a user", b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::Target),
            // Host.
            ("no Host", b"GET / HTTP/1.1\r\n\r\n", HttpError::HostMissing),
            ("no Host in 1.2", b"GET / HTTP/1.2\r\n\r\n", HttpError::HostMissing),
            ("two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", HttpError::HostRepeated),
            ("two equal Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", HttpError::HostRepeated),
            ("two Hosts in 1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", HttpError::HostRepeated),
            ("Host list", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", HttpError::HostInvalid),
            ("Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", HttpError::HostInvalid),
            ("Host with a user", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", HttpError::HostInvalid),
            ("Host with a wrong port", b"GET / HTTP/1.0\r\nHost: a:b\r\n\r\n", HttpError::HostInvalid),
            // The message's length.
            (
                "CL and TE",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                HttpError::LengthWithCoding,
            ),
            (
                "TE and CL",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
                HttpError::LengthWithCoding,
            ),
            (
                "CL 0 and TE",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: x\r\n\r\n",
                HttpError::LengthWithCoding,
            ),
            (
                "two different CLs",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
                HttpError::LengthRepeated,
            ),
            (
                "two equal CLs",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n",
                HttpError::LengthRepeated,
            ),
            ("CL list", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5,5\r\n\r\n", HttpError::LengthInvalid),
            (
                "CL list with a space",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
                HttpError::LengthInvalid,
            ),
            ("CL with plus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", HttpError::LengthInvalid),
            ("CL with minus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", HttpError::LengthInvalid),
            ("CL in hex", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", HttpError::LengthInvalid),
            (
                "CL with a fraction",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\n",
                HttpError::LengthInvalid,
            ),
            (
                "CL with a space inside",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 6\r\n\r\n",
                HttpError::LengthInvalid,
            ),
            (
                "CL with an underscore",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\n",
                HttpError::LengthInvalid,
            ),
            ("empty CL", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", HttpError::LengthInvalid),
            (
                "CL of 2^64",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
                HttpError::LengthInvalid,
            ),
            (
                "CL in other digits",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ٥\r\n\r\n".as_bytes(),
                HttpError::LengthInvalid,
            ),
            (
                "unknown coding",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
                HttpError::TransferCoding,
            ),
            (
                "coding before chunked",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                HttpError::TransferCoding,
            ),
            (
                "chunked not last",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
                HttpError::TransferCoding,
            ),
            (
                "chunked twice",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
                HttpError::TransferCoding,
            ),
            (
                "two TEs",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                HttpError::TransferCoding,
            ),
            (
                "two TEs, one identity",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
                HttpError::TransferCoding,
            ),
            (
                "identity",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
                HttpError::TransferCoding,
            ),
            (
                "almost chunked",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
                HttpError::TransferCoding,
            ),
            (
                "chunked with a parameter",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n",
                HttpError::TransferCoding,
            ),
            (
                "chunked with a comma",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n",
                HttpError::TransferCoding,
            ),
            (
                "quoted chunked",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
                HttpError::TransferCoding,
            ),
            ("empty TE", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n", HttpError::TransferCoding),
            ("TE in 1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", HttpError::CodingInHttp10),
            // Expect.
            ("unknown Expect", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", HttpError::ExpectationFailed),
            (
                "one of two Expects unknown",
                b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: tea\r\n\r\n",
                HttpError::ExpectationFailed,
            ),
        ];
        for (name, input, expected) in cases {
            assert_eq!(outcome(input), Err(*expected), "{name}");
            assert!(expected.closes(), "{name}");
            assert_same_at_every_cut(input);
        }
    }

    #[test]
    fn reads_what_clients_send() {
        let inputs: &[&[u8]] = &[
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
            b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a:80/b?c HTTP/1.1\r\nHost: d\r\n\r\n",
            b"POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a:5003\r\nContent-Length: 2\r\n\r\n40GET ",
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Name: caf\xc3\xa9 \xff\r\nEmpty:\r\n\r\nGET / HTTP/1.1\r\n",
        ];
        for input in inputs {
            assert!(matches!(outcome(input), Ok(Some(_))), "{:?}", String::from_utf8_lossy(input));
            assert_same_at_every_cut(input);
        }
    }

    #[test]
    fn says_how_many_bytes_it_used() {
        let input = b"\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n";
        let (first, used) = parse(input).unwrap().unwrap();
        let (second, rest) = parse(&input[used..]).unwrap().unwrap();
        assert_eq!((first.path(), second.path()), ("/a", "/b"));
        assert_eq!(used + rest, input.len());
    }

    #[test]
    fn targets_fall_into_path_and_query() {
        let cases = [
            ("GET /", "/", "", "h"),
            ("GET /a/b", "/a/b", "", "h"),
            ("GET /a?b=c", "/a", "b=c", "h"),
            ("GET /a?", "/a", "", "h"),
            ("GET /?b?c", "/", "b?c", "h"),
            ("GET /a?u=http://x/y", "/a", "u=http://x/y", "h"),
            ("GET //a", "//a", "", "h"),
            ("OPTIONS *", "*", "", "h"),
            ("GET http://x", "/", "", "x"),
            ("GET http://x?y", "/", "y", "x"),
            ("GET HTTPS://x:8443/y?z", "/y", "z", "x:8443"),
            ("GET http://[::1]:5003/y", "/y", "", "[::1]:5003"),
        ];
        for (line, path, query, host) in cases {
            let head = head(&format!("{line} HTTP/1.1"), "Host: h\r\n");
            assert_eq!((head.path(), head.query()), (path, query), "{line}");
            assert_eq!(head.host(), Some(host.as_bytes()), "{line}");
            assert_eq!(Some(head.target()), line.split(' ').nth(1));
        }
        assert_eq!(head("GET / HTTP/1.0", "").host(), None);
        assert_eq!(head("GET / HTTP/1.1", "Host:\r\n").host(), Some(&b""[..]));
    }

    #[test]
    fn query_parameters_are_decoded() {
        let head = head(
            "GET /?EIO=4&a=b+c&a=second&%73id=x%2Fy%20&bad=%zz%4&utf=%C3%A9&broken=%ff&flag&e= HTTP/1.1",
            "Host: h\r\n",
        );
        let cases = [
            ("EIO", Some("4")),
            ("eio", None),
            ("a", Some("b c")),
            ("sid", Some("x/y ")),
            ("bad", Some("%zz%4")),
            ("utf", Some("é")),
            ("broken", Some("\u{fffd}")),
            ("flag", Some("")),
            ("e", Some("")),
            ("none", None),
        ];
        for (name, expected) in cases {
            assert_eq!(head.query_param(name).as_deref(), expected, "{name}");
        }
        assert!(matches!(head.query_param("EIO"), Some(Cow::Borrowed("4"))));
    }

    #[test]
    fn headers_are_found_without_case_and_trimmed() {
        let head = head("GET / HTTP/1.1", "HOST: a\r\nX-A: \t one \t\r\nx-a:two\r\nX-B:\r\n");
        assert_eq!(head.header("host"), Some(&b"a"[..]));
        assert_eq!(head.headers("x-a").collect::<Vec<_>>(), [b"one", b"two"]);
        assert_eq!(head.header("x-b"), Some(&b""[..]));
        assert_eq!(head.header("x-d"), None);
        assert_eq!(head.header_str("x-a"), Some("one"));
        let (other, _) = parse(b"GET / HTTP/1.0\r\nX: \xff\r\n\r\n").unwrap().unwrap();
        assert_eq!((other.header_str("x"), other.header("x")), (None, Some(&b"\xff"[..])));
    }

    #[test]
    fn connection_rules() {
        let cases = [
            ("HTTP/1.1", "", true),
            ("HTTP/1.1", "Connection: close\r\n", false),
            ("HTTP/1.1", "Connection: Upgrade, CLOSE\r\n", false),
            ("HTTP/1.1", "Connection: x\r\nConnection: close\r\n", false),
            ("HTTP/1.1", "Connection: closed\r\n", true),
            ("HTTP/1.9", "", true),
            ("HTTP/1.0", "", false),
            ("HTTP/1.0", "Connection: Keep-Alive\r\n", true),
            ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
        ];
        for (version, lines, expected) in cases {
            let head = head(&format!("GET / {version}"), &format!("Host: a\r\n{lines}"));
            assert_eq!(head.keep_alive(), expected, "{version} {lines:?}");
        }
    }

    #[test]
    fn framing_and_expect() {
        let cases = [
            ("HTTP/1.1", "", Framing::None, false),
            ("HTTP/1.1", "Content-Length: 0\r\n", Framing::Length(0), false),
            ("HTTP/1.1", "Content-Length: 007\r\n", Framing::Length(7), false),
            ("HTTP/1.1", "Content-Length: 18446744073709551615\r\n", Framing::Length(u64::MAX), false),
            ("HTTP/1.0", "Content-Length: 7\r\n", Framing::Length(7), false),
            ("HTTP/1.1", "Transfer-Encoding: Chunked\r\n", Framing::Chunked, false),
            ("HTTP/1.1", "Content-Length: 7\r\nExpect: 100-Continue\r\n", Framing::Length(7), true),
            ("HTTP/1.1", "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", Framing::Chunked, true),
            ("HTTP/1.1", "Expect: 100-continue\r\n", Framing::None, false),
            ("HTTP/1.1", "Content-Length: 0\r\nExpect: 100-continue\r\n", Framing::Length(0), false),
            ("HTTP/1.0", "Content-Length: 7\r\nExpect: 100-continue\r\n", Framing::Length(7), false),
        ];
        for (version, lines, framing, expects) in cases {
            let head = head(&format!("POST / {version}"), &format!("Host: a\r\n{lines}"));
            assert_eq!((head.framing(), head.expects_continue()), (framing, expects), "{version} {lines:?}");
        }
    }

    #[test]
    fn upgrade_needs_both_headers() {
        let cases = [
            ("Upgrade: websocket\r\nConnection: Upgrade\r\n", true),
            ("Upgrade: h2c\r\nConnection: HTTP2-Settings, upgrade\r\n", true),
            ("Upgrade: websocket\r\n", false),
            ("Connection: Upgrade\r\n", false),
            ("", false),
        ];
        for (lines, expected) in cases {
            assert_eq!(head("GET / HTTP/1.1", &format!("Host: a\r\n{lines}")).is_upgrade(), expected, "{lines:?}");
        }
    }

    #[test]
    fn each_limit_holds_exactly() {
        let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(len - 1));
        assert!(parse(target(TARGET_MAX_BYTES)).unwrap().is_some());
        let too_long = HttpError::TargetTooLong { max_bytes: TARGET_MAX_BYTES };
        assert_eq!(outcome(target(TARGET_MAX_BYTES + 1).as_bytes()), Err(too_long));
        let unfinished = |len: usize| format!("GET /{}", "a".repeat(len - 1));
        assert_eq!(outcome(unfinished(TARGET_MAX_BYTES).as_bytes()), Ok(None));
        assert_eq!(outcome(unfinished(TARGET_MAX_BYTES + 1).as_bytes()), Err(too_long), "told before it ends");

        let lines = |count: usize| format!("GET / HTTP/1.0\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(parse(lines(LIMITS.max_headers)).unwrap().is_some());
        let too_many = HttpError::TooManyHeaders { max_headers: LIMITS.max_headers };
        assert_eq!(outcome(lines(LIMITS.max_headers + 1).as_bytes()), Err(too_many));

        let bytes = |len: usize| {
            let rest = "GET / HTTP/1.0\r\nx: \r\n\r\n".len();
            format!("GET / HTTP/1.0\r\nx: {}\r\n\r\n", "a".repeat(len - rest))
        };
        let too_large = HttpError::HeadTooLarge { max_bytes: LIMITS.max_bytes };
        assert!(parse(bytes(LIMITS.max_bytes)).unwrap().is_some());
        assert_eq!(outcome(bytes(LIMITS.max_bytes + 1).as_bytes()), Err(too_large));
        let endless = vec![b'a'; LIMITS.max_bytes];
        let endless = [&b"GET / HTTP/1.0\r\nx: "[..], &endless].concat();
        assert_eq!(outcome(&endless[..LIMITS.max_bytes - 1]), Ok(None));
        assert_eq!(outcome(&endless[..LIMITS.max_bytes]), Err(too_large), "a full buffer is enough to know");

        let method = |len: usize| format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(len));
        assert!(parse(method(32)).unwrap().is_some());
        assert_eq!(outcome(method(33).as_bytes()), Err(HttpError::MethodUnknown));

        let empty = |count: usize| format!("{}GET / HTTP/1.0\r\n\r\n", "\r\n".repeat(count));
        assert!(parse(empty(4)).unwrap().is_some());
        assert_eq!(outcome(empty(5).as_bytes()), Err(HttpError::EmptyLines));
    }

    #[test]
    fn debug_shows_no_secret() {
        let head = head("GET /p?sid=hush HTTP/1.1", "Host: a\r\nAuthorization: Bearer hush\r\n");
        let text = format!("{head:?}");
        assert!(text.contains("/p") && !text.contains("hush"), "{text}");
    }

    #[test]
    fn mutated_heads_never_panic_and_never_change_their_mind() {
        const SEEDS: [&[u8]; 3] = [
            b"GET /socket.io/?EIO=4&sid=a%20b HTTP/1.1\r\nHost: a:5003\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            b"\r\nPOST http://a/b HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
            b"POST / HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ];
        const SPICE: &[u8] = b"\r\n\0 \t:,;%+/?#*\xff\x7f19aZ";
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        // Knuth's MMIX generator: enough to place mutations, and the same ones in every run.
        let mut random = move |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
        for _ in 0..3_000 {
            let mut input = SEEDS[random(SEEDS.len())].to_vec();
            for _ in 0..=random(4) {
                let at = random(input.len());
                match random(4) {
                    0 => input[at] = SPICE[random(SPICE.len())],
                    1 => input.insert(at, SPICE[random(SPICE.len())]),
                    2 => drop(input.remove(at)),
                    _ => {
                        let piece = input[at..(at + random(24)).min(input.len())].to_vec();
                        let to = random(input.len());
                        drop(input.splice(to..to, piece));
                    }
                }
            }
            assert_same_at_every_cut(&input);
            if let Ok(Some((head, used))) = parse(&input) {
                assert!(used <= input.len());
                assert!(head.path().starts_with('/') || head.path() == "*");
                let _ = (head.keep_alive(), head.is_upgrade(), head.query_param("sid"));
            }
        }
    }
}
