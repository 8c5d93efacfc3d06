//! `chat-service healthcheck`: asks a running server for its health, for container images that have
//! no shell and no `curl`.
//!
//! Blocking and on `std` alone: it must work, and stay quick, when the server does not.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Asks the server that listens on `host` and `port`; an unspecified host is asked on loopback.
///
/// Success if it answers 200; otherwise failure, with one line on stderr that says why. Done within
/// three seconds either way.
pub fn run(host: IpAddr, port: u16) -> ExitCode {
    match check(target(host, port), Instant::now() + TIMEOUT) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            // Not eprintln!, which panics if nobody reads it.
            let _ = writeln!(io::stderr(), "unhealthy: {err}");
            ExitCode::FAILURE
        }
    }
}

/// Why the server does not count as healthy.
#[derive(Debug)]
enum Unhealthy {
    /// Could not ask: nobody listens, or no route.
    Connect(SocketAddr, io::Error),
    /// The connection broke while it was asked, or it took too long.
    Exchange(io::Error),
    /// What came back does not begin like an HTTP response.
    NotHttp,
    /// It answered, but not with 200.
    Status(u16),
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(addr, err) => write!(f, "cannot connect to {addr}: {err}"),
            Self::Exchange(err) => write!(f, "no answer from {PATH}: {err}"),
            Self::NotHttp => write!(f, "the answer is not HTTP"),
            Self::Status(status) => write!(f, "{PATH} answered {status}"),
        }
    }
}

fn target(host: IpAddr, port: u16) -> SocketAddr {
    let host = match host {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        concrete => concrete,
    };
    SocketAddr::new(host, port)
}

fn check(addr: SocketAddr, deadline: Instant) -> Result<(), Unhealthy> {
    let mut stream = time_left(deadline)
        .and_then(|left| TcpStream::connect_timeout(&addr, left))
        .map_err(|err| Unhealthy::Connect(addr, err))?;
    match status(&exchange(&mut stream, addr, deadline).map_err(Unhealthy::Exchange)?) {
        Some(200) => Ok(()),
        Some(other) => Err(Unhealthy::Status(other)),
        None => Err(Unhealthy::NotHttp),
    }
}

/// Sends the request and reads as much as [`status`] needs.
fn exchange(stream: &mut TcpStream, addr: SocketAddr, deadline: Instant) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(time_left(deadline)?))?;
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;

    let mut answer = Vec::with_capacity(STATUS_BYTES);
    while answer.len() < STATUS_BYTES {
        // Anew for each read: a server that sends a byte a second must not keep us.
        stream.set_read_timeout(Some(time_left(deadline)?))?;
        let mut bytes = [0; STATUS_BYTES];
        match stream.read(&mut bytes[answer.len()..]) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&bytes[answer.len()..][..read]),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            // What a socket says when its read timeout is over.
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Err(timed_out()),
            Err(err) => return Err(err),
        }
    }
    Ok(answer)
}

/// The code of a status line such as `HTTP/1.1 200 OK`, of which [`STATUS_BYTES`] are there.
fn status(answer: &[u8]) -> Option<u16> {
    match answer.strip_prefix(b"HTTP/1.")? {
        [_minor, b' ', code @ ..] if code.len() == 3 => str::from_utf8(code).ok()?.parse().ok(),
        _ => None,
    }
}

fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    // A zero timeout would mean none at all.
    if left.is_zero() { Err(timed_out()) } else { Ok(left) }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "timed out")
}

const PATH: &str = "/api/v1/chat/health";

/// Docker's own limit is longer: the line on stderr should be ours.
const TIMEOUT: Duration = Duration::from_secs(3);

/// All that is read: `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers one connection with `answer`, in two pieces.
    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a whole head");
                request.push(byte[0]);
            }
            assert!(request.starts_with(b"GET /api/v1/chat/health HTTP/1.1\r\nHost: 127.0.0.1:"));
            let (first, second) = answer.split_at(answer.len() / 2);
            for piece in [first, second] {
                // The client may have seen enough.
                let _ = stream.write_all(piece.as_bytes());
                thread::sleep(Duration::from_millis(5));
            }
        });
        addr
    }

    #[test]
    fn only_200_is_healthy() {
        let cases = [
            ("HTTP/1.1 200 OK\r\n\r\n", Ok(())),
            ("HTTP/1.0 200", Ok(())),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Err("/api/v1/chat/health answered 503")),
            ("HTTP/1.1 204 No Content\r\n\r\n", Err("/api/v1/chat/health answered 204")),
            ("HTTP/1.1 20", Err("the answer is not HTTP")),
            ("HTTP/2 200 OK\r\n\r\n", Err("the answer is not HTTP")),
            ("SSH-2.0-OpenSSH_9.2", Err("the answer is not HTTP")),
            ("", Err("the answer is not HTTP")),
        ];
        for (answer, expected) in cases {
            let result = check(server(answer), Instant::now() + TIMEOUT);
            let result = result.map_err(|err| err.to_string());
            assert_eq!(result, expected.map_err(str::to_owned), "{answer:?}");
        }
    }

    #[test]
    fn a_silent_server_does_not_keep_us() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let deadline = Instant::now() + Duration::from_millis(50);
        let err = check(addr, deadline).expect_err("no answer");
        assert_eq!(err.to_string(), "no answer from /api/v1/chat/health: timed out");
    }

    #[test]
    fn nobody_listening_is_unhealthy() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        drop(listener);
        let err = check(addr, Instant::now() + TIMEOUT).expect_err("refused");
        assert!(matches!(err, Unhealthy::Connect(..)), "{err}");
    }

    #[test]
    fn an_unspecified_host_is_asked_on_loopback() {
        let cases = [
            ("0.0.0.0", "127.0.0.1:5003"),
            ("::", "[::1]:5003"),
            ("10.1.2.3", "10.1.2.3:5003"),
            ("127.0.0.1", "127.0.0.1:5003"),
        ];
        for (host, expected) in cases {
            assert_eq!(target(host.parse().expect("an address"), 5003).to_string(), expected);
        }
    }
}
