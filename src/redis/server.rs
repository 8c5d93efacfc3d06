//! From an address to a connection that can be used: dials, logs in, and asks the server whether it is the right one.

use std::{
    fmt, io,
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_rustls::{TlsConnector, pki_types::ServerName};
use redis::Value;
use smol::{
    Async, Timer,
    future::FutureExt as _,
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
};

use super::{
    Settings,
    address::Place,
    resp::{Replies, Reply, put_command},
};

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// A connection that is logged in.
pub(super) struct Greeted {
    pub(super) stream: Box<dyn Stream>,
    /// Names one life of the server's process.
    pub(super) run_id: Box<str>,
    pub(super) version: Box<str>,
    /// The server's clock minus ours.
    pub(super) offset_ms: i64,
}

/// Why there is no connection. The text is for the log, and holds no secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ConnectError {
    /// Nothing there, or it does not answer.
    Failed(Box<str>),
    /// The server answers, and cannot be used as it is.
    Refused(Box<str>),
}

/// Connects and logs in.
pub(super) async fn connect(settings: &Settings) -> Result<Greeted, ConnectError> {
    let stream = within(settings.connect_timeout, "connecting", dial(settings)).await?;
    within(settings.io_timeout, "logging in", greet(stream, settings)).await
}

async fn within<T>(
    time: Duration,
    what: &str,
    future: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    let late = async {
        Timer::after(time).await;
        Err(ConnectError::Failed(format!("{what} took more than {} ms", time.as_millis()).into()))
    };
    future.or(late).await
}

async fn dial(settings: &Settings) -> Result<Box<dyn Stream>, ConnectError> {
    let (host, port, tls) = match &settings.address.place {
        Place::Unix(path) => {
            let stream = Async::<UnixStream>::connect(path).await;
            return Ok(Box::new(stream.map_err(|error| failed("connecting", error))?));
        }
        Place::Tcp { host, port, tls } => (host, *port, *tls),
    };
    let addresses = smol::net::resolve((&**host, port)).await.map_err(|error| failed("name look-up", error))?;
    let stream = dial_first(&addresses, settings.connect_timeout).await.map_err(|error| failed("connecting", error))?;
    // Batches are made here, so waiting for more only costs time.
    _ = stream.get_ref().set_nodelay(true);
    if !tls {
        return Ok(Box::new(stream));
    }
    let Some(connector) = &settings.tls else {
        return Err(ConnectError::Refused("TLS is asked for, and not set up".into()));
    };
    start_tls(connector, host, stream).await
}

async fn start_tls(
    connector: &TlsConnector,
    host: &str,
    stream: Async<TcpStream>,
) -> Result<Box<dyn Stream>, ConnectError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| ConnectError::Refused("the host cannot be the name in a certificate".into()))?;
    match connector.connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        // rustls' own verdicts are `InvalidData`: the peer is there, but it is not whom we are to trust.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(ConnectError::Refused(short(format_args!("TLS: {error}"))))
        }
        Err(error) => Err(failed("TLS", error)),
    }
}

/// Connects to the first address that lets us. Each gets its share of the time: one that is silent must not cost all.
async fn dial_first(addresses: &[SocketAddr], time: Duration) -> io::Result<Async<TcpStream>> {
    let share = time / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = io::Error::other("the name has no address");
    for address in addresses {
        let late = async {
            Timer::after(share).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        match Async::<TcpStream>::connect(*address).or(late).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Logs in, and refuses what is not a master of a supported version with its data loaded.
async fn greet(stream: Box<dyn Stream>, settings: &Settings) -> Result<Greeted, ConnectError> {
    let mut greeting = Greeting { stream, replies: Replies::new(MAX_REPLY_BYTES), settings };
    let address = &settings.address;
    let database = address.database.to_string();
    let mut out = Vec::new();
    match (&address.user, &address.password) {
        (Some(user), Some(password)) => put_command(&mut out, &[b"AUTH", user.as_bytes(), password.as_bytes()]),
        (None, Some(password)) => put_command(&mut out, &[b"AUTH", password.as_bytes()]),
        _ => {}
    }
    if address.database != 0 {
        put_command(&mut out, &[b"SELECT", database.as_bytes()]);
    }
    put_command(&mut out, &[b"CLIENT", b"SETNAME", settings.client_name.as_bytes()]);
    // Sections one by one: before 7.0 only one can be asked for.
    for section in [&b"server"[..], b"persistence", b"replication"] {
        put_command(&mut out, &[b"INFO", section]);
    }
    // What a server says that turns us away at once is worth more than that it closed before it had read all.
    let written = greeting.stream.write_all(&out).await;
    if let Err(error) = written.and(greeting.stream.flush().await) {
        greeting.read_reply().await.map(|reply| refusal(&reply, "the connection", settings)).and_then(Err)?;
        return Err(failed("sending", error));
    }
    if address.password.is_some() {
        greeting.value("AUTH").await?;
    }
    if address.database != 0 {
        greeting.value("SELECT").await?;
    }
    // Only a name for people who look at CLIENT LIST: a user that may not set it loses nothing else.
    match greeting.read_reply().await? {
        reply @ Reply::Error { .. } if !is_tolerable(&reply) => return Err(refusal(&reply, "CLIENT", settings)),
        _ => {}
    }
    let server = greeting.info().await?;
    let persistence = greeting.info().await?;
    let replication = greeting.info().await?;
    let version: Box<str> = field(&server, "redis_version").unwrap_or("?").into();
    if number(&version) < MIN_VERSION {
        let (major, minor) = MIN_VERSION;
        return Err(ConnectError::Refused(short(format_args!(
            "version {version}: {major}.{minor} or newer is needed"
        ))));
    }
    if field(&persistence, "loading").is_some_and(|loading| loading != "0") {
        return Err(ConnectError::Refused(LOADING.into()));
    }
    if field(&replication, "role").is_some_and(|role| role != "master") {
        return Err(ConnectError::Refused(READONLY.into()));
    }
    let Some(run_id) = field(&server, "run_id").filter(|run_id| !run_id.is_empty()).map(Into::into) else {
        return Err(ConnectError::Refused("INFO has no run_id".into()));
    };
    let offset_ms = greeting.clock_offset().await?;
    Ok(Greeted { stream: greeting.stream, run_id, version, offset_ms })
}

struct Greeting<'a> {
    stream: Box<dyn Stream>,
    replies: Replies,
    settings: &'a Settings,
}

impl Greeting<'_> {
    async fn read_reply(&mut self) -> Result<Reply, ConnectError> {
        loop {
            let reply = self.replies.pull();
            if let Some(reply) = reply.map_err(|error| ConnectError::Refused(error.as_str().into()))? {
                return Ok(reply);
            }
            let mut chunk = [0; READ_BYTES];
            let count = self.stream.read(&mut chunk).await.map_err(|error| failed("receiving", error))?;
            if count == 0 {
                return Err(ConnectError::Failed("the server closed the connection".into()));
            }
            self.replies.push(chunk.get(..count).unwrap_or_default());
        }
    }

    async fn value(&mut self, command: &str) -> Result<Value, ConnectError> {
        match self.read_reply().await? {
            Reply::Value(value) => Ok(value),
            error => Err(refusal(&error, command, self.settings)),
        }
    }

    async fn info(&mut self) -> Result<String, ConnectError> {
        match self.value("INFO").await? {
            Value::BulkString(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            _ => Err(ConnectError::Refused("INFO is answered in an unknown form".into())),
        }
    }

    /// On its own, so that no other command's time counts for the way.
    async fn clock_offset(&mut self) -> Result<i64, ConnectError> {
        let mut out = Vec::new();
        put_command(&mut out, &[b"TIME"]);
        let sent = Instant::now();
        self.stream.write_all(&out).await.map_err(|error| failed("sending", error))?;
        self.stream.flush().await.map_err(|error| failed("sending", error))?;
        let time = self.value("TIME").await?;
        let half_way = sent.elapsed() / 2;
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(half_way);
        let Value::Array(parts) = time else {
            return Err(ConnectError::Refused("TIME is answered in an unknown form".into()));
        };
        let mut parts = parts.iter().map(|part| match part {
            Value::BulkString(digits) => str::from_utf8(digits).ok()?.parse::<i64>().ok(),
            _ => None,
        });
        match (parts.next().flatten(), parts.next().flatten()) {
            (Some(s), Some(us)) => {
                let theirs_ms = s.saturating_mul(1000).saturating_add(us / 1000);
                Ok(theirs_ms.saturating_sub(i64::try_from(ours.as_millis()).unwrap_or(i64::MAX)))
            }
            _ => Err(ConnectError::Refused("TIME is answered in an unknown form".into())),
        }
    }
}

/// Whether `CLIENT SETNAME` may have gone wrong so, and all else be well.
fn is_tolerable(reply: &Reply) -> bool {
    matches!(reply, Reply::Error { code, message } if &**code == "NOPERM"
        || (&**code == "ERR" && !message.starts_with("max number of clients")))
}

/// What an error in the place of an answer means.
fn refusal(reply: &Reply, command: &str, settings: &Settings) -> ConnectError {
    let Reply::Error { code, message } = reply else {
        return ConnectError::Refused(short(format_args!("{command} is answered in an unknown form")));
    };
    // A server that does not know AUTH quotes its arguments.
    let password = settings.address.password.as_deref();
    let is_secret = message.starts_with("unknown command") || password.is_some_and(|secret| message.contains(secret));
    ConnectError::Refused(match &**code {
        "WRONGPASS" => "wrong user or password (WRONGPASS)".into(),
        "NOAUTH" => "a password is needed (NOAUTH)".into(),
        "NOPERM" => short(format_args!("the user may not use {command} (NOPERM)")),
        "LOADING" => LOADING.into(),
        "READONLY" | "MASTERDOWN" => READONLY.into(),
        _ if is_secret => short(format_args!("{command} is answered {code}")),
        _ => short(format_args!("{command} is answered {code} {message}")),
    })
}

/// Of a section of `INFO`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Major and minor.
fn number(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Pauses between attempts: longer each time, and never the same for all instances.
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: MIN_PAUSE }
    }

    /// Between half of what its turn is and all of it.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(MAX_PAUSE);
        pause.mul_f64(0.5 + 0.5 * fastrand::f64())
    }

    /// A connection has ended that had lived for `time`. One that ends at once, again and again, is no success.
    pub(super) fn had_success(&mut self, time: Duration) {
        if time >= SUCCESS {
            self.next = MIN_PAUSE;
        }
    }
}

/// The oldest that has all that the service uses.
const MIN_VERSION: (u32, u32) = (6, 2);
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);
const SUCCESS: Duration = Duration::from_secs(1);
/// Of the replies while logging in.
const MAX_REPLY_BYTES: usize = 256 * 1024;
const READ_BYTES: usize = 4096;
/// Longest text for the log: it may be a server's, or a library's.
const MAX_TEXT_CHARS: usize = 200;
pub(super) const LOADING: &str = "it is loading its data (LOADING)";
pub(super) const READONLY: &str = "it is a replica (READONLY)";

pub(super) fn short(text: fmt::Arguments<'_>) -> Box<str> {
    let text = text.to_string();
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(MAX_TEXT_CHARS).collect()
}

fn failed(what: &str, error: impl fmt::Display) -> ConnectError {
    ConnectError::Failed(short(format_args!("{what}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::Address;

    #[test]
    fn pauses_double_up_to_a_limit_and_start_again_after_success() {
        let mut backoff = Backoff::new();
        for turn_ms in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
            let turn = Duration::from_millis(turn_ms);
            let pause = backoff.pause();
            assert!(pause >= turn / 2 && pause <= turn, "{turn_ms}: {pause:?}");
        }
        backoff.had_success(SUCCESS - Duration::from_millis(1));
        assert!(backoff.pause() > MIN_PAUSE);
        backoff.had_success(SUCCESS);
        assert!(backoff.pause() <= MIN_PAUSE);
    }

    #[test]
    fn refusals_say_why_and_hide_secrets() {
        let settings = Settings::new(Address::parse("redis://:pa55word@h").unwrap());
        for (code, message, expected) in [
            ("WRONGPASS", "invalid username-password pair", "wrong user or password (WRONGPASS)"),
            ("NOAUTH", "Authentication required.", "a password is needed (NOAUTH)"),
            ("NOPERM", "this user has no permissions", "the user may not use INFO (NOPERM)"),
            ("LOADING", "Redis is loading the dataset in memory", LOADING),
            ("ERR", "max number of clients reached", "INFO is answered ERR max number of clients reached"),
            ("ERR", "unknown command 'AUTH', with args beginning with: 'x'", "INFO is answered ERR"),
            ("ERR", "what is pa55word?", "INFO is answered ERR"),
        ] {
            let reply = Reply::Error { code: code.into(), message: message.into() };
            assert_eq!(refusal(&reply, "INFO", &settings), ConnectError::Refused(expected.into()), "{code} {message}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, is_enough) in
            [("6.0.16", false), ("6.2.0", true), ("6.10", true), ("7.0.15", true), ("10.0", true), ("?", false)]
        {
            assert_eq!(number(version) >= MIN_VERSION, is_enough, "{version}");
        }
        assert_eq!(
            field("# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n", "redis_mode"),
            Some("standalone")
        );
        assert_eq!(field("role:master\r\n", "rol"), None);
    }
}
