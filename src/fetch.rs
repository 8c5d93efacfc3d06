//! An HTTP client for the Auth Service: one connection for each request, `http` and `https`, no redirects.
//!
//! Requests are rare (their answers are kept by whoever asks), so there is no pool of connections. Writing requests and
//! decoding chunked bodies is left to `async_h1`. It does not get to see heads of answers: it reads a line of any length,
//! panics at a header that is not ASCII, takes a body without a length for none, and a body cut short for a whole one.

use std::{
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use async_h1::client::{Encoder, decode};
use base64::Engine as _;
use futures_rustls::{
    TlsConnector,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    rustls::{ClientConfig, RootCertStore, client::Resumption, crypto::ring},
};
use http_types::{Method, Request, Url, url::Host};
use smol::{
    Async, Timer,
    future::FutureExt as _,
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    lock::Semaphore,
};

use crate::auth::{Fetch, FetchError, FetchRequest, FetchResponse};

/// Makes requests. At most 64 at a time: others wait, and their waiting counts towards their timeouts.
pub struct Client {
    /// Trusted beside the public ones.
    extra_roots: RootCertStore,
    /// Made at the first `https` request.
    tls: OnceLock<Result<TlsConnector, String>>,
    slots: Semaphore,
}

/// Why certificates of additional authorities cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CaError {
    /// Not PEM.
    NotPem,
    /// PEM without a certificate.
    NoCertificate,
    /// Something in it is no certificate of an authority.
    BadCertificate,
}

impl fmt::Display for CaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPem => "not PEM",
            Self::NoCertificate => "no certificate in it",
            Self::BadCertificate => "a certificate in it cannot be read",
        })
    }
}

impl Client {
    /// A client that trusts the public certificate authorities, and those of `extra_ca_pem`.
    ///
    /// # Errors
    /// There are certificates to trust, but they cannot be read.
    pub fn new(extra_ca_pem: Option<&str>) -> Result<Self, CaError> {
        let mut extra_roots = RootCertStore::empty();
        if let Some(pem) = extra_ca_pem {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|_| CaError::NotPem)?;
                extra_roots.add(certificate).map_err(|_| CaError::BadCertificate)?;
            }
            if extra_roots.is_empty() {
                return Err(CaError::NoCertificate);
            }
        }
        Ok(Self { extra_roots, tls: OnceLock::new(), slots: Semaphore::new(MAX_REQUESTS) })
    }

    async fn exchange(&self, request: FetchRequest) -> Result<FetchResponse, FetchError> {
        let url = Url::parse(&request.url).map_err(|_| FetchError::BadUrl)?;
        let stream = self.connect(&url, request.timeout).await?;
        exchange(stream, encode(&url, request.json), request.max_bytes).await
    }

    async fn connect(&self, url: &Url, timeout: Duration) -> Result<Box<dyn Stream>, FetchError> {
        let tls = match url.scheme() {
            "http" => None,
            "https" => Some(self.tls()?),
            _ => return Err(FetchError::BadUrl),
        };
        let port = url.port_or_known_default().ok_or(FetchError::BadUrl)?;
        let (addresses, name) = match url.host().ok_or(FetchError::BadUrl)? {
            Host::Ipv4(ip) => (vec![SocketAddr::new(ip.into(), port)], Ok(IpAddr::from(ip).into())),
            Host::Ipv6(ip) => (vec![SocketAddr::new(ip.into(), port)], Ok(IpAddr::from(ip).into())),
            Host::Domain(domain) => {
                let resolved = smol::net::resolve((domain, port)).await;
                (resolved.map_err(|error| failed("name look-up", error))?, ServerName::try_from(domain.to_owned()))
            }
        };
        let stream = dial(&addresses, timeout).await?;
        Ok(match tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = name.map_err(|_| FetchError::BadUrl)?;
                Box::new(tls.connect(name, stream).await.map_err(|error| failed("TLS", error))?)
            }
        })
    }

    /// What makes TLS connections, with the authorities that this client trusts.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn connector(&self) -> Result<TlsConnector, String> {
        self.tls().cloned().map_err(|error| format!("{error:?}"))
    }

    fn tls(&self) -> Result<&TlsConnector, FetchError> {
        let tls = self.tls.get_or_init(|| {
            let mut roots = self.extra_roots.clone();
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            // The process has no default provider, and shall not get one from here.
            let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.resumption = Resumption::in_memory_sessions(MAX_TLS_SESSIONS);
            Ok(Arc::new(config).into())
        });
        tls.as_ref().map_err(|error| FetchError::Failed(error.clone()))
    }
}

impl Fetch for Client {
    fn fetch(
        &self,
        request: FetchRequest,
    ) -> Pin<Box<dyn Future<Output = Result<FetchResponse, FetchError>> + Send + '_>> {
        let late = Timer::after(request.timeout);
        let answer = async {
            let _slot = self.slots.acquire().await;
            self.exchange(request).await
        };
        Box::pin(answer.or(async {
            late.await;
            Err(FetchError::Timeout)
        }))
    }
}

/// Requests at a time.
const MAX_REQUESTS: usize = 64;
/// Longest head of an answer, and what framing may add to a body.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Fields of a head.
const MAX_HEADERS: usize = 128;
/// TLS sessions to resume. There are one or two servers.
const MAX_TLS_SESSIONS: usize = 16;
/// What is read at once while the end of a head is not known.
const READ_BYTES: usize = 4096;
/// Longest text of an error: the library's may name everything that is in a certificate.
const MAX_ERROR_CHARS: usize = 200;
const USER_AGENT: &str = concat!("chat-service/", env!("CARGO_PKG_VERSION"));
const CLOSED_EARLY: &str = "the connection was closed before the end of the answer";

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// Connects to the first address that lets us. Each gets its share of the time: one that is silent must not cost all.
async fn dial(addresses: &[SocketAddr], timeout: Duration) -> Result<Async<TcpStream>, FetchError> {
    let Some((last, others)) = addresses.split_last() else {
        return Err(FetchError::Failed("the name has no address".to_owned()));
    };
    let share = timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in others {
        let late = async {
            Timer::after(share).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        if let Ok(stream) = Async::<TcpStream>::connect(*address).or(late).await {
            return Ok(stream);
        }
    }
    Async::<TcpStream>::connect(*last).await.map_err(|error| failed("connection", error))
}

fn encode(url: &Url, json: Option<String>) -> Encoder {
    let method = if json.is_some() { Method::Post } else { Method::Get };
    let mut request = Request::new(method, url.clone());
    if let Some(json) = json {
        request.set_body(json);
        request.insert_header("Content-Type", "application/json");
    }
    request.insert_header("Accept", "application/json");
    request.insert_header("User-Agent", USER_AGENT);
    request.insert_header("Connection", "close");
    if !url.username().is_empty() || url.password().is_some() {
        let mut credentials = percent_decoded(url.username());
        credentials.push(b':');
        credentials.extend(percent_decoded(url.password().unwrap_or("")));
        let credentials = base64::engine::general_purpose::STANDARD.encode(credentials);
        request.insert_header("Authorization", format!("Basic {credentials}"));
    }
    // Not `async_h1::connect`: it writes the whole request, with its credentials, into the log.
    Encoder::new(request)
}

/// What stands for itself, or is no escape, stays as it is.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or("").as_bytes().to_vec();
    for part in parts {
        let escape = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match (escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()), part.get(2..)) {
            (Some(byte), Some(rest)) => {
                decoded.push(byte);
                decoded.extend_from_slice(rest.as_bytes());
            }
            _ => {
                decoded.push(b'%');
                decoded.extend_from_slice(part.as_bytes());
            }
        }
    }
    decoded
}

async fn exchange(
    mut stream: Box<dyn Stream>,
    request: Encoder,
    max_bytes: usize,
) -> Result<FetchResponse, FetchError> {
    smol::io::copy(request, &mut stream).await.map_err(|error| failed("sending", error))?;
    let (head, rest) = read_head(&mut stream).await?;
    let rest = smol::io::Cursor::new(rest).chain(stream);
    let body = match head.framing {
        Framing::Empty => Vec::new(),
        Framing::Length(length) if length > max_bytes as u64 => return Err(FetchError::TooLarge),
        Framing::Length(length) => {
            let body = read_body(rest.take(length), max_bytes).await?;
            if (body.len() as u64) < length {
                return Err(FetchError::Failed(CLOSED_EARLY.to_owned()));
            }
            body
        }
        Framing::Chunked => {
            let rest = Eager(rest.take(max_bytes.saturating_add(MAX_HEAD_BYTES) as u64));
            let answer = smol::io::Cursor::new(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").chain(rest);
            let mut answer = decode(answer).await.map_err(|error| failed("HTTP", error))?;
            read_body(answer.take_body(), max_bytes).await?
        }
        Framing::UntilClose => read_body(rest, max_bytes).await?,
    };
    Ok(FetchResponse { status: head.status, body })
}

struct Head {
    status: u16,
    framing: Framing,
}

/// How the end of a body is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    Empty,
    Length(u64),
    Chunked,
    UntilClose,
}

/// Reads up to the end of the head of the final answer, and returns what was read behind it.
async fn read_head(stream: &mut Box<dyn Stream>) -> Result<(Head, Vec<u8>), FetchError> {
    let mut read = Vec::new();
    let mut left = MAX_HEAD_BYTES as u64;
    loop {
        while let Some((head, len)) = parse_head(&read)? {
            read.drain(..len);
            // Interim answers, such as 100 Continue, announce another.
            if head.status >= 200 {
                return Ok((head, read));
            }
        }
        if left == 0 {
            return Err(FetchError::Failed("the head of the answer is too long".to_owned()));
        }
        let mut bytes = [0; READ_BYTES];
        let count = (&mut *stream).take(left).read(&mut bytes).await.map_err(|error| failed("receiving", error))?;
        if count == 0 {
            return Err(FetchError::Failed(CLOSED_EARLY.to_owned()));
        }
        left = left.saturating_sub(count as u64);
        read.extend(bytes.iter().take(count));
    }
}

/// A head and its length, if it is there as a whole.
fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, FetchError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut fields);
    let len = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(failed("HTTP", error)),
    };
    let status = response.code.unwrap_or(0);
    let framing = framing(status, response.headers)?;
    Ok(Some((Head { status, framing }, len)))
}

fn framing(status: u16, fields: &[httparse::Header<'_>]) -> Result<Framing, FetchError> {
    let bad = || FetchError::Failed("the answer's length cannot be told".to_owned());
    let mut framing = Framing::UntilClose;
    for field in fields {
        let value = field.value.trim_ascii();
        if field.name.eq_ignore_ascii_case("Transfer-Encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") || framing == Framing::Chunked {
                return Err(bad());
            }
            framing = Framing::Chunked;
        } else if field.name.eq_ignore_ascii_case("Content-Length") && framing != Framing::Chunked {
            let digits = str::from_utf8(value).ok().filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
            let length = Framing::Length(digits.and_then(|digits| digits.parse().ok()).ok_or_else(bad)?);
            if framing != Framing::UntilClose && framing != length {
                return Err(bad());
            }
            framing = length;
        }
    }
    Ok(if status < 200 || status == 204 || status == 304 { Framing::Empty } else { framing })
}

async fn read_body(body: impl AsyncRead + Unpin, max_bytes: usize) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    let mut body = body.take((max_bytes as u64).saturating_add(1));
    body.read_to_end(&mut bytes).await.map_err(|error| failed("receiving", error))?;
    if bytes.len() > max_bytes { Err(FetchError::TooLarge) } else { Ok(bytes) }
}

/// Asks to be polled again after every read: the chunked decoder does not when the end of a body comes in two pieces,
/// and would wait for ever.
struct Eager<R>(R);

impl<R: AsyncRead + Unpin> AsyncRead for Eager<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.0).poll_read(cx, buffer);
        if read.is_ready() {
            cx.waker().wake_by_ref();
        }
        read
    }
}

fn failed(what: &str, error: impl fmt::Display) -> FetchError {
    FetchError::Failed(format!("{what}: {error}").chars().take(MAX_ERROR_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, net::Ipv4Addr, sync::mpsc, thread, time::Instant};

    use futures_rustls::{
        TlsAcceptor,
        pki_types::PrivateKeyDer,
        rustls::{ServerConfig, crypto::CryptoProvider},
    };
    use smol::io::AsyncWriteExt as _;

    use super::*;

    const CA: &str = include_str!("fetch/testdata/ca.pem");
    /// Of `CA`, for 127.0.0.1 and localhost.
    const LEAF: &str = include_str!("fetch/testdata/leaf.pem");
    /// Of `CA`, for auth.example.test.
    const OTHER: &str = include_str!("fetch/testdata/other.pem");
    /// Of both leaves.
    const KEY: &str = include_str!("fetch/testdata/leaf.key.pem");

    const MAX: usize = 100;

    /// A peer that says its pieces one by one, each when it is asked, and then nothing more.
    struct Script {
        pieces: VecDeque<Vec<u8>>,
        closes: bool,
    }

    impl AsyncRead for Script {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
            let closes = self.closes;
            let Some(piece) = self.pieces.front_mut() else {
                return if closes { Poll::Ready(Ok(0)) } else { Poll::Pending };
            };
            let count = piece.len().min(buffer.len());
            buffer[..count].copy_from_slice(&piece[..count]);
            piece.drain(..count);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
            Poll::Ready(Ok(count))
        }
    }

    impl AsyncWrite for Script {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        smol::block_on(async { Some(future.await) }.or(async {
            Timer::after(limit).await;
            None
        }))
    }

    /// What is made of these bytes, or `Timeout` if more is waited for.
    fn read(pieces: &[&[u8]], closes: bool) -> Result<FetchResponse, FetchError> {
        let pieces = pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| piece.to_vec()).collect();
        let url = Url::parse("http://auth/").unwrap();
        let answer = exchange(Box::new(Script { pieces, closes }), encode(&url, None), MAX);
        within(Duration::from_millis(200), answer).unwrap_or(Err(FetchError::Timeout))
    }

    fn ok(status: u16, body: &[u8]) -> Result<FetchResponse, FetchError> {
        Ok(FetchResponse { status, body: body.to_vec() })
    }

    fn is_failure(answer: &Result<FetchResponse, FetchError>) -> bool {
        matches!(answer, Err(FetchError::Failed(_)))
    }

    #[test]
    fn reads_every_framing_whole_and_cut_at_every_byte() {
        /// Name, answer, whether the peer closes, the status and the body that are in it.
        type Case = (&'static str, &'static [u8], bool, u16, &'static [u8]);
        let cases: &[Case] = &[
            ("length", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, 200, b"hello"),
            ("length, more behind", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!", false, 200, b"hello"),
            (
                "length said twice",
                b"HTTP/1.1 200 OK\r\ncontent-length:5\r\nContent-Length: 5\r\n\r\nhello",
                false,
                200,
                b"hello",
            ),
            ("no body", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, 200, b""),
            ("until close", b"HTTP/1.1 200 OK\r\n\r\nhello", true, 200, b"hello"),
            ("until close, nothing", b"HTTP/1.1 200 OK\r\n\r\n", true, 200, b""),
            ("HTTP/1.0", b"HTTP/1.0 200 OK\r\nServer: Werkzeug\r\n\r\nhello", true, 200, b"hello"),
            (
                "chunked",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
                false,
                200,
                b"hello",
            ),
            (
                "trailers",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\n",
                false,
                200,
                b"hello",
            ),
            (
                "chunked and a length",
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                false,
                200,
                b"hello",
            ),
            ("without body by its status", b"HTTP/1.1 204 No Content\r\n\r\n", false, 204, b""),
            (
                "after an interim answer",
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
                false,
                404,
                b"no",
            ),
            (
                "a redirect is an answer",
                b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
                false,
                302,
                b"",
            ),
            ("a status nobody knows", b"HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n", false, 599, b""),
            (
                "a header that is not ASCII",
                b"HTTP/1.1 200 OK\r\nServer: caf\xc3\xa9 \xff\r\nContent-Length: 2\r\n\r\nhi",
                false,
                200,
                b"hi",
            ),
        ];
        for (name, wire, closes, status, body) in cases {
            assert_eq!(read(&[wire], *closes), ok(*status, body), "{name}");
            for cut in 1..wire.len() {
                let (first, second) = wire.split_at(cut);
                assert_eq!(read(&[first, second], *closes), ok(*status, body), "{name}, cut at {cut}");
            }
            let bytes: Vec<&[u8]> = wire.chunks(1).collect();
            assert_eq!(read(&bytes, *closes), ok(*status, body), "{name}, byte by byte");
        }
    }

    #[test]
    fn refuses_what_is_no_whole_answer() {
        let cases: &[(&str, &[u8])] = &[
            ("nothing", b""),
            ("garbage", b"\x16\x03\x01 no HTTP\r\n\r\n"),
            ("part of a head", b"HTTP/1.1 200 OK\r\nContent-"),
            ("only an interim answer", b"HTTP/1.1 100 Continue\r\n\r\n"),
            ("part of a body", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"),
            ("part of a chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell"),
            ("no last chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
            ("no chunk size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello"),
            ("chunk size over 64 bits", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n"),
            ("another encoding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            (
                "chunked twice",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
            ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi"),
            ("negative length", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
            ("signed length", b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi"),
            ("empty length", b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n"),
            ("length over 64 bits", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"),
        ];
        for (name, wire) in cases {
            let answer = read(&[wire], true);
            assert!(is_failure(&answer), "{name}: {answer:?}");
        }
    }

    #[test]
    fn bodies_are_bounded_in_every_framing() {
        for (len, fits) in [(MAX, true), (MAX + 1, false), (1_000_000, false)] {
            let body = vec![b'x'; len];
            let expected = if fits { ok(200, &body) } else { Err(FetchError::TooLarge) };
            let with = |head: &str, tail: &str| [head.as_bytes(), &body, tail.as_bytes()].concat();
            let length = with(&format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n"), "");
            assert_eq!(read(&[&length], false), expected, "length, {len}");
            let until_close = with("HTTP/1.1 200 OK\r\n\r\n", "");
            assert_eq!(read(&[&until_close], true), expected, "until close, {len}");
            let chunk = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{len:x}\r\n");
            assert_eq!(read(&[&with(&chunk, "\r\n0\r\n\r\n")], false), expected, "chunked, {len}");
        }
        // Zeros that make a chunk's size no larger.
        let head: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let zeros = vec![b'0'; MAX_HEAD_BYTES * 100];
        assert!(is_failure(&read(&[head, &zeros], false)));
    }

    #[test]
    fn heads_are_bounded() {
        let head = |len: usize| {
            let (start, end) = ("HTTP/1.1 200 OK\r\nX: ", "\r\nContent-Length: 2\r\n\r\n");
            format!("{start}{}{end}hi", "x".repeat(len - start.len() - end.len()))
        };
        assert_eq!(read(&[head(MAX_HEAD_BYTES).as_bytes()], false), ok(200, b"hi"));
        assert!(is_failure(&read(&[head(MAX_HEAD_BYTES + 1).as_bytes()], false)));
        let endless = vec![b'x'; MAX_HEAD_BYTES * 100];
        assert!(is_failure(&read(&[b"HTTP/1.1 200 ", &endless], false)));
        assert!(is_failure(&read(&["HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000).as_bytes()], false)));
        let fields = |count: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n", "A:b\r\n".repeat(count));
        assert_eq!(read(&[fields(MAX_HEADERS - 1).as_bytes()], false), ok(200, b""));
        assert!(is_failure(&read(&[fields(MAX_HEADERS).as_bytes()], false)));
    }

    #[test]
    fn requests_carry_what_they_must() {
        let cases = [
            ("http://auth/allow?a=b", None, "GET /allow?a=b HTTP/1.1\r\n", "host: auth\r\n", None),
            ("http://auth:8080", Some("{}"), "POST / HTTP/1.1\r\n", "host: auth:8080\r\n", None),
            ("https://[::1]:8443/x", None, "GET /x HTTP/1.1\r\n", "host: [::1]:8443\r\n", None),
            // chat:s:cr%t, as RFC 7617 says.
            ("http://chat:s%3Acr%25t@auth/", None, "GET / HTTP/1.1\r\n", "host: auth\r\n", Some("Y2hhdDpzOmNyJXQ=")),
            ("http://key@auth/#top", None, "GET / HTTP/1.1\r\n", "host: auth\r\n", Some("a2V5Og==")),
        ];
        for (url, json, line, host, basic) in cases {
            let mut wire = String::new();
            let mut request = encode(&Url::parse(url).unwrap(), json.map(str::to_owned));
            smol::block_on(request.read_to_string(&mut wire)).unwrap();
            assert!(wire.starts_with(line), "{url}: {wire}");
            let agent = format!("user-agent: chat-service/{}\r\n", env!("CARGO_PKG_VERSION"));
            for expected in [host, "accept: application/json\r\n", "connection: close\r\n", &agent] {
                assert!(wire.contains(expected), "{url}: {expected} in {wire}");
            }
            let authorization = basic.map(|basic| format!("authorization: Basic {basic}\r\n"));
            assert_eq!(wire.contains("authorization"), authorization.is_some(), "{url}");
            assert!(wire.contains(&authorization.unwrap_or_default()), "{url}: {wire}");
            assert_eq!(wire.contains("content-type: application/json\r\n"), json.is_some(), "{url}: {wire}");
            assert!(wire.ends_with(&format!("\r\n\r\n{}", json.unwrap_or(""))), "{url}: {wire}");
        }
    }

    #[test]
    fn percent_escapes_are_decoded() {
        let cases = [("", ""), ("a", "a"), ("%41b", "Ab"), ("a%", "a%"), ("%4", "%4"), ("%+1", "%+1"), ("%zz", "%zz")];
        for (text, expected) in cases {
            assert_eq!(percent_decoded(text), expected.as_bytes(), "{text}");
        }
        assert_eq!(percent_decoded("%ff%e9\u{e9}%4\u{e9}"), b"\xff\xe9\xc3\xa9%4\xc3\xa9");
    }

    /// A server for one connection: tells the request, then sends `answer` after `pause` and closes, or stays.
    struct Server {
        address: SocketAddr,
        request: mpsc::Receiver<String>,
    }

    enum Then {
        Close,
        Stay,
    }

    impl Server {
        fn start(answer: &'static [u8], pause: Duration, then: Then, tls: Option<TlsAcceptor>) -> Self {
            let listener = Async::<std::net::TcpListener>::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = listener.get_ref().local_addr().unwrap();
            let (sender, request) = mpsc::channel();
            thread::spawn(move || {
                smol::block_on(async {
                    let (stream, _) = listener.accept().await.unwrap();
                    let mut stream: Box<dyn Stream> = match tls {
                        None => Box::new(stream),
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                    };
                    let mut request = Vec::new();
                    loop {
                        let mut bytes = [0; 1000];
                        let count = stream.read(&mut bytes).await.unwrap_or(0);
                        request.extend_from_slice(&bytes[..count]);
                        let text = String::from_utf8_lossy(&request);
                        let is_hello = request.first() == Some(&0x16);
                        // A request's body may come after its head.
                        let end = if text.starts_with("POST") { "}" } else { "\r\n\r\n" };
                        let is_whole = is_hello || text.ends_with(end);
                        if is_whole || count == 0 {
                            break;
                        }
                    }
                    let _ = sender.send(String::from_utf8_lossy(&request).into_owned());
                    Timer::after(pause).await;
                    let _ = stream.write_all(answer).await;
                    let _ = stream.flush().await;
                    match then {
                        Then::Close => drop(stream.close().await),
                        // Until the client goes.
                        Then::Stay => drop(stream.read(&mut [0]).await),
                    }
                });
            });
            Self { address, request }
        }

        fn plain(answer: &'static [u8]) -> Self {
            Self::start(answer, Duration::ZERO, Then::Close, None)
        }

        fn tls(certificate: &str) -> Self {
            let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
            let config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .unwrap();
            Self::start(HELLO, Duration::ZERO, Then::Close, Some(Arc::new(config).into()))
        }
    }

    const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

    fn request(url: String) -> FetchRequest {
        FetchRequest { url, json: None, timeout: Duration::from_secs(10), max_bytes: MAX }
    }

    fn fetch(client: &Client, request: FetchRequest) -> Result<FetchResponse, FetchError> {
        smol::block_on(client.fetch(request))
    }

    #[test]
    fn gets_and_posts() {
        let client = Client::new(None).unwrap();
        let server = Server::plain(HELLO);
        assert_eq!(fetch(&client, request(format!("http://{}/x", server.address))), ok(200, b"hello"));
        assert!(server.request.recv().unwrap().starts_with("GET /x HTTP/1.1\r\n"));

        // By name, which has an IPv6 address too where nobody listens.
        let server = Server::plain(b"HTTP/1.1 403 Forbidden\r\n\r\nno");
        let url = format!("http://localhost:{}/", server.address.port());
        assert_eq!(fetch(&client, FetchRequest { json: Some("{\"a\":1}".into()), ..request(url) }), ok(403, b"no"));
        let sent = server.request.recv().unwrap();
        assert!(sent.starts_with("POST / HTTP/1.1\r\n") && sent.ends_with("\r\n\r\n{\"a\":1}"), "{sent}");
        assert!(sent.contains("content-length: 7\r\n"), "{sent}");
    }

    #[test]
    fn the_timeout_is_for_everything() {
        let client = Client::new(None).unwrap();
        let timeout = Duration::from_millis(100);
        let stays: [&[u8]; 4] = [
            b"",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        ];
        for answer in stays {
            let server = Server::start(answer, Duration::ZERO, Then::Stay, None);
            let asked = Instant::now();
            let answer = fetch(&client, FetchRequest { timeout, ..request(format!("http://{}/", server.address)) });
            assert_eq!(answer, Err(FetchError::Timeout));
            assert!(asked.elapsed() >= timeout && asked.elapsed() < timeout * 50, "{:?}", asked.elapsed());
        }
        // A handshake that never comes.
        let server = Server::start(b"", Duration::from_secs(10), Then::Stay, None);
        let answer = fetch(&client, FetchRequest { timeout, ..request(format!("https://{}/", server.address)) });
        assert!(matches!(answer, Err(FetchError::Timeout)), "{answer:?}");
        // Late, but not too late.
        let server = Server::start(HELLO, timeout, Then::Close, None);
        assert_eq!(fetch(&client, request(format!("http://{}/", server.address))), ok(200, b"hello"));
    }

    #[test]
    fn waiting_for_a_slot_counts_too() {
        let client = Client { slots: Semaphore::new(1), ..Client::new(None).unwrap() };
        let (busy, free) = (Server::start(b"", Duration::ZERO, Then::Stay, None), Server::plain(HELLO));
        smol::block_on(async {
            let mut first = client.fetch(request(format!("http://{}/", busy.address)));
            assert_eq!(smol::future::poll_once(&mut first).await, None);
            let url = format!("http://{}/", free.address);
            let timeout = Duration::from_millis(50);
            let second = client.fetch(FetchRequest { timeout, ..request(url.clone()) }).await;
            assert_eq!(second, Err(FetchError::Timeout));
            drop(first);
            assert_eq!(client.fetch(request(url)).await, ok(200, b"hello"));
        });
    }

    #[test]
    fn what_cannot_be_fetched() {
        let client = Client::new(None).unwrap();
        for url in ["", "/allow", "auth", "ftp://auth/", "file:///etc/passwd", "http://", "http://a b/", "data:,x"] {
            assert_eq!(fetch(&client, request(url.to_owned())), Err(FetchError::BadUrl), "{url}");
        }
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let refused = fetch(&client, request(format!("http://chat:secret@{free}/?token=secret")));
        assert!(is_failure(&refused) && !format!("{refused:?}").contains("secret"), "{refused:?}");
        assert!(is_failure(&fetch(&client, request("http://no-such-host.invalid/".to_owned()))));
    }

    #[test]
    fn https_is_verified() {
        let (trusting, public) = (Client::new(Some(CA)).unwrap(), Client::new(None).unwrap());
        let by_address = |server: &Server| request(format!("https://{}/x?y", server.address));
        let by_name = |server: &Server| request(format!("https://localhost:{}/x?y", server.address.port()));

        for request in [by_address, by_name] as [fn(&Server) -> FetchRequest; 2] {
            let server = Server::tls(LEAF);
            assert_eq!(fetch(&trusting, request(&server)), ok(200, b"hello"));
            assert!(server.request.recv().unwrap().starts_with("GET /x?y HTTP/1.1\r\n"));
            let server = Server::tls(LEAF);
            let unknown = fetch(&public, request(&server));
            assert!(is_failure(&unknown) && format!("{unknown:?}").contains("UnknownIssuer"), "{unknown:?}");
            assert!(server.request.recv().is_err(), "nothing is sent");
            let server = Server::tls(OTHER);
            let misnamed = fetch(&trusting, request(&server));
            assert!(is_failure(&misnamed) && format!("{misnamed:?}").contains("not valid for name"), "{misnamed:?}");
            assert!(server.request.recv().is_err(), "nothing is sent");
        }
        let plain = Server::plain(HELLO);
        assert!(is_failure(&fetch(&trusting, by_address(&plain))));
    }

    #[test]
    fn additional_authorities_are_read_at_the_start() {
        let cases = [
            ("one", CA.to_owned(), None),
            ("two, with text around", format!("# ours\n{CA}\n# theirs\n{LEAF}"), None),
            ("nothing", String::new(), Some(CaError::NoCertificate)),
            ("something else", "ca.pem".to_owned(), Some(CaError::NoCertificate)),
            ("a key", KEY.to_owned(), Some(CaError::NoCertificate)),
            ("cut short", CA[..CA.len() / 2].to_owned(), Some(CaError::NotPem)),
            ("not base64", CA.replace('M', "\u{e9}"), Some(CaError::NotPem)),
            ("not a certificate", CA.replace("MII", "AAA"), Some(CaError::BadCertificate)),
        ];
        for (name, pem, error) in cases {
            assert_eq!(Client::new(Some(&pem)).err(), error, "{name}");
        }
    }
}
