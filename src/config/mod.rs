//! Everything an operator can set, read once from the environment.
//!
//! [`Config::from_vars`] turns the variables into typed values and reports everything it could not
//! use at once; nothing else in the crate reads the environment. [`SETTINGS`] is the one list of the
//! variables: `--help` prints it, and the defaults it shows are the very text that is parsed when a
//! variable is unset, so the two cannot disagree.
//!
//! Left to others: whether a key is one (`auth`), whether an address answers (`fetch`), whether the
//! descriptor limit carries `MAX_CONNECTIONS` (`server`), and what the [warnings](Config::warnings)
//! are written to.

mod auth;
mod limits;
mod reader;
mod secret;
mod settings;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use log::LevelFilter;

use self::auth::{GOOD_SECRET_BYTES, MIN_SECRET_BYTES};
use self::reader::{Reader, parse_duration, parse_integer, parse_pem, parse_url, parse_word};
use crate::auth::access::RoomPolicy;
use crate::auth::token::KeySource;
use crate::http::{TrustedProxies, cors::AllowedOrigins};
use crate::redis::Address;

pub use self::auth::{Auth, JwtConfig};
pub use self::limits::Limits;
pub use self::reader::{ConfigError, Problem};
pub use self::secret::Secret;
pub use self::settings::{Group, SETTINGS, Setting};

/// The settings of one process. Built once in `main`, read-only afterwards.
///
/// Bytes unless the name says otherwise. A connection's worst case is about `head_max_bytes` while it
/// speaks HTTP, then `max_payload` inwards plus `outbox_max_bytes` outwards.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on. `HOST`, default 127.0.0.1, in production 0.0.0.0.
    pub host: IpAddr,
    /// Port to listen on, 0 for any free one. `PORT`, default 5003.
    pub port: u16,
    /// Which defaults apply. `ENV` or `FLASK_ENV`, default development.
    pub environment: Environment,
    /// What is logged of this crate. `LOG_LEVEL`, default info.
    pub log_level: LevelFilter,
    /// How a line of the log looks. `LOG_FORMAT`, default text.
    pub log_format: LogFormat,
    /// How clients prove who they are, and with which key. `AUTH_MODE` (default jwt if a key is set, else none, which has
    /// to be said in production), `JWT_ALGORITHMS`, `JWT_SECRET_KEY` or `SECRET_KEY`, `JWT_PUBLIC_KEY`, `JWKS_URL`,
    /// `JWT_REQUIRE_EXP`, `JWT_USER_CLAIM`, `JWT_ISSUER`, `JWT_AUDIENCE`.
    pub auth: Auth,
    /// Whether a token may also stand in the URL's query, where every proxy on the way logs it. `AUTH_QUERY_TOKEN`,
    /// default off.
    pub auth_query_token: bool,
    /// What everybody may do in meetings for which no other source answers. `ROOM_POLICY`, default
    /// authenticated, in production members.
    pub room_policy: RoomPolicy,
    /// Who is asked for a right that neither token nor participants tell; may hold credentials. `AUTHZ_URL`, default
    /// nobody.
    pub authz_url: Option<Secret>,
    /// Certificates in PEM that are trusted beside the built-in ones when we fetch something. `TLS_CA`, default none.
    pub tls_ca: Option<String>,
    /// What other services prove themselves with, in `X-API-Key`. `CHAT_API_KEY`, default none: they need a token.
    pub api_key: Option<Secret>,
    /// Events kept of each meeting. `HISTORY_SIZE`, default 1000, 1 to 100 000.
    pub history_size: usize,
    /// How long they are kept. `HISTORY_TTL`, default 7 days.
    pub history_ttl: Duration,
    /// Bytes kept of all meetings together, while they are kept in memory. `MEMORY_HISTORY_MAX`, default 256 MiB, at
    /// least 1 MiB.
    ///
    /// Reached long before `history_size` where there are many meetings; the oldest events go first.
    pub memory_history_max: usize,
    /// How long before a meeting its participants are reminded, and how that is called (`15m`), as it was written.
    /// `REMINDERS`, default 15, 5 and 0 minutes; at most 8, each at most 7 days; empty is off.
    pub reminders: Vec<(Duration, Box<str>)>,
    /// How long a meeting that has ended can still be written to. `ROOM_CLOSE_AFTER`, default 24 h.
    pub room_close_after: Duration,
    /// Rates, strikes and caps. `RATE_LIMITS`, `RATE_…`, `STRIKES`, `PENALTY`, `MAX_…_PER_…`.
    pub limits: Limits,
    /// Proxies whose `X-Forwarded-For` is believed. `TRUSTED_PROXIES`, default none.
    ///
    /// Limits by address need it behind a proxy, and can be got around if it names too many.
    pub trusted_proxies: TrustedProxies,
    /// Whether the descriptions of the API are served. `DOCS`, default on, in production off.
    pub docs: bool,
    /// Whose pages may call. `CORS_ALLOWED_ORIGINS`, default the same origin; in development also any
    /// origin on localhost.
    pub cors: AllowedOrigins,
    /// Pause between a pong and the next ping. `PING_INTERVAL_MS`, default 25 000 ms.
    pub ping_interval: Duration,
    /// How long a pong may take. `PING_TIMEOUT_MS`, default 20 000 ms.
    pub ping_timeout: Duration,
    /// How long a new session may go without joining a namespace. `CONNECT_TIMEOUT_MS`, default
    /// 10 000 ms.
    pub connect_timeout: Duration,
    /// How long the change from polling to WebSocket may take. `UPGRADE_TIMEOUT_MS`, default 10 000 ms.
    pub upgrade_timeout: Duration,
    /// Longest message or polling body a client may send. `MAX_PAYLOAD`, default 64 KiB.
    pub max_payload: usize,
    /// Bytes queued for one slow client before it is closed. `OUTBOX_MAX_BYTES`, default 1 MiB, at
    /// least `max_payload`.
    ///
    /// Worst-case outbox memory is this times the number of connections: only clients that stopped
    /// reading reach it, and their pings end them.
    pub outbox_max_bytes: usize,
    /// Open connections in all; `None` is no limit. `MAX_CONNECTIONS`, default 16 000, 0 is off.
    ///
    /// The default fits a descriptor limit of 16 384 and leaves some for listeners and files.
    pub max_connections: Option<NonZeroUsize>,
    /// Threads that run connections. `WORKER_THREADS`, default the available cores.
    pub worker_threads: usize,
    /// How long a request head may take to arrive. `HEAD_TIMEOUT`, default 5 s.
    pub head_timeout: Duration,
    /// How long a request body may take to arrive. `BODY_TIMEOUT`, default 10 s.
    pub body_timeout: Duration,
    /// How long a connection may idle between two requests. `KEEP_ALIVE_TIMEOUT`, default 75 s.
    pub keep_alive_timeout: Duration,
    /// Longest request head. `HEAD_MAX_BYTES`, default 16 KiB.
    pub head_max_bytes: usize,
    /// Most header fields in a request. `HEAD_MAX_HEADERS`, default 64.
    pub head_max_headers: usize,
    /// Over how long a drain spreads its reconnects. `DRAIN_SPREAD`, default 10 s, at most
    /// `drain_timeout`.
    pub drain_spread: Duration,
    /// How long a drain may take in all. `DRAIN_TIMEOUT`, default 25 s.
    pub drain_timeout: Duration,
    /// A second listener that serves only the metrics. `METRICS_ADDR`, default off.
    pub metrics_addr: Option<SocketAddr>,
    /// Where instances meet; `None` if this process is alone. `REDIS_URL`, default off.
    pub redis: Option<Address>,
    /// Replicas that have to have a message before it is acked. `REDIS_MIN_REPLICAS`, default 0.
    pub redis_min_replicas: u32,
    /// In front of the channels shared with Node servers. `REDIS_PREFIX`, default `socket.io`.
    pub redis_prefix: Box<str>,
    /// Where Python processes publish. `PYTHON_CHANNELS`, default `socketio` and `flask-socketio`.
    pub python_channels: Vec<Box<str>>,
    /// How long a message waits for Redis. `PUBLISH_WAIT`, default 5 s.
    pub publish_wait: Duration,
}

impl Config {
    /// Reads every setting through `lookup`, normally `|name| std::env::var(name).ok()`.
    ///
    /// An empty value counts as unset, because that is how compose files and shells pass on a variable
    /// that nobody set.
    ///
    /// # Errors
    /// Every value that cannot be used, with what was expected of it.
    pub fn from_vars(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut vars = Reader::new(lookup);
        let environment = vars.environment();
        vars.production = environment == Environment::Production;

        let config = Self {
            host: vars.read("HOST", |text| text.parse().map_err(|_| "an IP address such as 127.0.0.1 or ::".into())),
            port: vars.integer("PORT", 0..=65_535),
            environment,
            log_level: vars.word("LOG_LEVEL", &LOG_LEVELS),
            log_format: vars.word("LOG_FORMAT", &LOG_FORMATS),
            auth: vars.auth(),
            auth_query_token: vars.flag("AUTH_QUERY_TOKEN"),
            room_policy: vars.word("ROOM_POLICY", &ROOM_POLICIES),
            authz_url: vars.optional("AUTHZ_URL", parse_url).map(Secret::new),
            tls_ca: vars.tls_ca(),
            api_key: vars.api_key(),
            history_size: vars.integer("HISTORY_SIZE", 1..=100_000),
            history_ttl: vars.duration("HISTORY_TTL", "1s", "365d"),
            memory_history_max: vars.integer("MEMORY_HISTORY_MAX", MIB..=1024 * 1024 * MIB),
            reminders: vars.reminders(),
            room_close_after: vars.duration("ROOM_CLOSE_AFTER", "0s", "365d"),
            limits: vars.limits(),
            trusted_proxies: vars.trusted_proxies(),
            docs: vars.flag("DOCS"),
            cors: vars.cors(),
            ping_interval: vars.milliseconds("PING_INTERVAL_MS"),
            ping_timeout: vars.milliseconds("PING_TIMEOUT_MS"),
            connect_timeout: vars.milliseconds("CONNECT_TIMEOUT_MS"),
            upgrade_timeout: vars.milliseconds("UPGRADE_TIMEOUT_MS"),
            max_payload: vars.integer("MAX_PAYLOAD", 1024..=16 * MIB),
            outbox_max_bytes: vars.integer("OUTBOX_MAX_BYTES", 4096..=1024 * MIB),
            max_connections: NonZeroUsize::new(vars.integer("MAX_CONNECTIONS", 0..=10_000_000)),
            worker_threads: vars.worker_threads(),
            head_timeout: vars.duration("HEAD_TIMEOUT", "10ms", "10m"),
            body_timeout: vars.duration("BODY_TIMEOUT", "10ms", "10m"),
            keep_alive_timeout: vars.duration("KEEP_ALIVE_TIMEOUT", "10ms", "1h"),
            head_max_bytes: vars.integer("HEAD_MAX_BYTES", 1024..=MIB),
            head_max_headers: vars.integer("HEAD_MAX_HEADERS", 8..=256),
            drain_spread: vars.duration("DRAIN_SPREAD", "0s", "1h"),
            drain_timeout: vars.duration("DRAIN_TIMEOUT", "10ms", "1h"),
            metrics_addr: vars.metrics_addr(),
            redis: vars.optional("REDIS_URL", |url| Address::parse(url).map_err(|error| error.to_string())),
            redis_min_replicas: vars.integer("REDIS_MIN_REPLICAS", 0..=16),
            redis_prefix: vars.read("REDIS_PREFIX", parse_channel),
            python_channels: vars.read("PYTHON_CHANNELS", parse_channels),
            publish_wait: vars.duration("PUBLISH_WAIT", "10ms", "60s"),
        };

        if config.outbox_max_bytes < config.max_payload {
            let expected = format!("at least MAX_PAYLOAD, which is {}", config.max_payload);
            vars.refuse("OUTBOX_MAX_BYTES", expected);
        }
        if config.drain_spread > config.drain_timeout {
            let expected = format!("at most DRAIN_TIMEOUT, which is {:?}", config.drain_timeout);
            vars.refuse("DRAIN_SPREAD", expected);
        }
        ConfigError::from_problems(vars.problems).map_or(Ok(config), Err)
    }

    /// What is allowed but deserves a line in the log at the start. One sentence each.
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        let in_production = self.environment == Environment::Production;
        match &self.auth {
            Auth::None => {
                warnings.push(
                    "AUTH_MODE=none: clients are not authenticated; whoever reaches the port is let in, with the rights \
                     that ROOM_POLICY gives",
                );
                if self.room_policy == RoomPolicy::Members && self.authz_url.is_none() {
                    warnings.push(
                        "ROOM_POLICY=members with AUTH_MODE=none: nobody is known as a member, so nobody can join a \
                         meeting; ROOM_POLICY=authenticated lets everybody",
                    );
                }
            }
            Auth::Jwt(jwt) => match &jwt.token.key {
                KeySource::Secret(key) if in_production && key.len() < GOOD_SECRET_BYTES => warnings.push(
                    "JWT_SECRET_KEY (or SECRET_KEY) has fewer than 32 bytes: a short key can be guessed from one token",
                ),
                KeySource::Secret(key) if !in_production && key.len() < MIN_SECRET_BYTES => warnings
                    .push("JWT_SECRET_KEY (or SECRET_KEY) has fewer than 16 bytes: production does not start with it"),
                _ => {}
            },
        }
        if self.api_key.as_ref().is_some_and(|key| key.expose().len() < MIN_SECRET_BYTES) {
            warnings.push("CHAT_API_KEY has fewer than 16 bytes: production does not start with it");
        }
        if self.trusted_proxies.contains_everything() {
            warnings.push("TRUSTED_PROXIES trusts every address: clients can say which address they come from");
        }
        if self.limits.input.is_some_and(|rate| (rate.burst as usize) < self.max_payload) {
            warnings.push("RATE_INPUT has a burst below MAX_PAYLOAD: the longest messages do not fit into it");
        }
        warnings
    }
}

/// The name of a Redis channel, or its beginning.
fn parse_channel(text: &str) -> Result<Box<str>, String> {
    let is_one = (1..=CHANNEL_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_one { Ok(text.into()) } else { Err(format!("1-{CHANNEL_MAX} visible ASCII characters")) }
}

fn parse_channels(text: &str) -> Result<Vec<Box<str>>, String> {
    match text {
        "off" => Ok(Vec::new()),
        _ => text.split(',').map(|channel| parse_channel(channel.trim())).collect(),
    }
}

/// Where the process runs, which decides some defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// On somebody's own machine: loopback only, no authentication needed.
    Development,
    /// Everywhere else: reachable, and nothing unsafe by default.
    Production,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl<L: Fn(&str) -> Option<String>> Reader<L> {
    fn environment(&mut self) -> Environment {
        let environment = self.word("ENV", &ENVIRONMENTS);
        let flask = self.read_or("FLASK_ENV", environment, |text| parse_word(text, &ENVIRONMENTS));
        let (Some(first), Some(second)) = (self.raw("ENV"), self.raw("FLASK_ENV")) else {
            return flask;
        };
        if first != second && self.problems.is_empty() {
            self.refuse("FLASK_ENV", format!("the same as ENV={first:?}, or only one of the two"));
        }
        flask
    }

    fn cors(&mut self) -> AllowedOrigins {
        let default = AllowedOrigins::SameOrigin { localhost: !self.production };
        self.read_or("CORS_ALLOWED_ORIGINS", default, |text| {
            AllowedOrigins::parse(text).map_err(|reason| format!("* or a comma list of origins ({reason})"))
        })
    }

    fn worker_threads(&mut self) -> usize {
        let range = 1..=MAX_WORKER_THREADS;
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let default = cores.min(MAX_WORKER_THREADS as usize);
        self.read_or("WORKER_THREADS", default, |text| parse_integer(text, "threads", &range))
    }

    fn metrics_addr(&mut self) -> Option<SocketAddr> {
        self.read("METRICS_ADDR", |text| match text {
            "off" => Ok(None),
            _ => SocketAddr::from_str(text)
                .map(Some)
                .map_err(|_| "an address and port such as 127.0.0.1:9103, or off".to_owned()),
        })
    }

    fn tls_ca(&mut self) -> Option<String> {
        self.optional("TLS_CA", |text| {
            let expected = "certificates in PEM, each from -----BEGIN CERTIFICATE----- to its end, and nothing else";
            parse_pem(text, "CERTIFICATE-----").ok_or_else(|| expected.to_owned())
        })
    }

    fn reminders(&mut self) -> Vec<(Duration, Box<str>)> {
        self.read("REMINDERS", |text| {
            parse_reminders(text).ok_or_else(|| {
                format!(
                    "a comma list of up to {MAX_REMINDERS} different durations with their units (ms, s, m, h or d), each \
                     from 0m to 7d, or off"
                )
            })
        })
    }

    fn trusted_proxies(&mut self) -> TrustedProxies {
        let expected = "a comma list of IP addresses such as 127.0.0.1 and networks such as 10.0.0.0/8";
        let parse = |text: &str| TrustedProxies::parse(text).map_err(|_| expected.to_owned());
        self.optional("TRUSTED_PROXIES", parse).unwrap_or_default()
    }
}

/// `15m,5m,0m`, or `off` for none; the same time twice would remind twice.
fn parse_reminders(text: &str) -> Option<Vec<(Duration, Box<str>)>> {
    if text == "off" {
        return Some(Vec::new());
    }
    let mut reminders: Vec<(Duration, Box<str>)> = Vec::new();
    for label in text.split(',').map(str::trim) {
        let before = parse_duration(label).filter(|before| *before <= MAX_REMINDER)?;
        if reminders.len() == MAX_REMINDERS || reminders.iter().any(|(known, _)| *known == before) {
            return None;
        }
        reminders.push((before, label.into()));
    }
    Some(reminders)
}

const MIB: u64 = 1024 * 1024;
/// Characters of a channel's name in a setting.
const CHANNEL_MAX: usize = 64;

/// A thread costs a stack and a queue; more of them than this is a typing error.
const MAX_WORKER_THREADS: u64 = 256;

/// Each is a notification to every participant.
const MAX_REMINDERS: usize = 8;

const MAX_REMINDER: Duration = Duration::from_secs(7 * 24 * 3600);

const ENVIRONMENTS: [(&str, Environment); 2] =
    [("development", Environment::Development), ("production", Environment::Production)];

const ROOM_POLICIES: [(&str, RoomPolicy); 2] =
    [("members", RoomPolicy::Members), ("authenticated", RoomPolicy::Authenticated)];

const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

const LOG_LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];
