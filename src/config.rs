//! Everything an operator can set, read once from the environment.
//!
//! [`Config::from_vars`] turns the variables into typed values and reports everything it could not
//! use at once; nothing else in the crate reads the environment. [`SETTINGS`] is the one list of the
//! variables: `--help` prints it, and the defaults it shows are the very text that is parsed when a
//! variable is unset, so the two cannot disagree.
//!
//! Left to others: whether the descriptor limit carries `MAX_CONNECTIONS` (`server`), and what the
//! [warnings](Config::warnings) are written to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use log::LevelFilter;

use crate::http::cors::AllowedOrigins;

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
    /// How clients prove who they are. `AUTH_MODE`, default none; in production it has to be said.
    pub auth_mode: AuthMode,
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
    /// Whether `REDIS_URL` is set. The URL holds a password and this build does not use it, so it is
    /// not kept.
    pub redis_url_set: bool,
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
            auth_mode: vars.auth_mode(),
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
            redis_url_set: vars.raw("REDIS_URL").is_some(),
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
        match self.auth_mode {
            AuthMode::None => warnings.push(
                "AUTH_MODE=none: clients are not authenticated; whoever reaches the port can read and write every room",
            ),
        }
        if self.redis_url_set {
            warnings
                .push("REDIS_URL is set, but this build does not use Redis: rooms and history stay in this process");
        }
        warnings
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

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthMode {
    /// They do not: the user id is the socket id.
    None,
}

/// One variable, as `--help` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    /// What is taken when it is unset, in its own syntax; in parentheses when it is worked out instead.
    pub default: &'static str,
    /// Takes the place of `default` in production, where the two differ.
    pub in_production: Option<&'static str>,
    /// The unit, or the words it can be.
    pub unit: &'static str,
    /// What it does, in a sentence.
    pub help: &'static str,
    /// Whether a message may never show the value.
    pub secret: bool,
}

impl Setting {
    const fn new(name: &'static str, default: &'static str, unit: &'static str, help: &'static str) -> Self {
        Self { name, default, in_production: None, unit, help, secret: false }
    }

    const fn in_production(self, default: &'static str) -> Self {
        Self { in_production: Some(default), ..self }
    }

    const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// The row of `name`.
    #[expect(clippy::expect_used, reason = "names are constants, and a test reads every variable")]
    fn named(name: &str) -> &'static Self {
        SETTINGS.iter().find(|setting| setting.name == name).expect("every variable is in SETTINGS")
    }
}

/// Every variable that [`Config::from_vars`] reads, in the order of `--help`.
#[rustfmt::skip] // a table: one row, one setting
pub const SETTINGS: [Setting; 25] = [
    Setting::new("ENV", "development", "development|production", "Which defaults apply."),
    Setting::new("FLASK_ENV", "(as ENV)", "development|production", "The older name of ENV; if both are set they must agree."),
    Setting::new("HOST", "127.0.0.1", "IP address", "Address to listen on.").in_production("0.0.0.0"),
    Setting::new("PORT", "5003", "TCP port", "Port to listen on; 0 takes any free one."),
    Setting::new("AUTH_MODE", "none", "none", "How clients prove who they are; this build cannot verify tokens yet.").in_production("(must be set)"),
    Setting::new("CORS_ALLOWED_ORIGINS", "(same origin and localhost)", "* or a comma list", "Whose pages may call.").in_production("(same origin)"),
    Setting::new("REDIS_URL", "(none)", "URL", "Accepted, but not used by this build yet.").secret(),
    Setting::new("METRICS_ADDR", "off", "IP address:port, or off", "A listener of its own for the metrics."),
    Setting::new("LOG_LEVEL", "info", "off|error|warn|info|debug|trace", "What is logged."),
    Setting::new("LOG_FORMAT", "text", "text|json", "How a line of the log looks."),
    Setting::new("WORKER_THREADS", "(available cores)", "threads", "Threads that run connections."),
    Setting::new("PING_INTERVAL_MS", "25000", "milliseconds", "Pause between a pong and the next ping."),
    Setting::new("PING_TIMEOUT_MS", "20000", "milliseconds", "How long a pong may take."),
    Setting::new("CONNECT_TIMEOUT_MS", "10000", "milliseconds", "How long a session may go without joining a namespace."),
    Setting::new("UPGRADE_TIMEOUT_MS", "10000", "milliseconds", "How long the change to WebSocket may take."),
    Setting::new("MAX_PAYLOAD", "65536", "bytes", "Longest message or polling body of a client."),
    Setting::new("OUTBOX_MAX_BYTES", "1048576", "bytes", "Queued for one slow client before it is closed."),
    Setting::new("MAX_CONNECTIONS", "16000", "connections", "Open connections, and sessions; 0 is no limit. Lowered to what the descriptor limit leaves."),
    Setting::new("HEAD_TIMEOUT", "5s", "duration", "How long a request head may take to arrive."),
    Setting::new("BODY_TIMEOUT", "10s", "duration", "How long a request body may take to arrive."),
    Setting::new("KEEP_ALIVE_TIMEOUT", "75s", "duration", "How long a connection may idle between requests."),
    Setting::new("HEAD_MAX_BYTES", "16384", "bytes", "Longest request head."),
    Setting::new("HEAD_MAX_HEADERS", "64", "headers", "Most header fields in a request."),
    Setting::new("DRAIN_SPREAD", "10s", "duration", "Over how long a stop spreads the reconnects."),
    Setting::new("DRAIN_TIMEOUT", "25s", "duration", "How long a stop may take in all."),
];

/// Why the process does not start: at least one variable that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Never empty.
    problems: Vec<Problem>,
}

impl ConfigError {
    fn from_problems(problems: Vec<Problem>) -> Option<Self> {
        if problems.is_empty() { None } else { Some(Self { problems }) }
    }

    /// Everything that was wrong, in the order it was read. Never empty.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    /// One problem a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One variable that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    variable: &'static str,
    given: Given,
    expected: String,
}

/// What the variable held.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    Value(String),
    Secret,
    Nothing,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.given {
            // Quoted and escaped: a stray line end or blank is what the reader is looking for.
            Given::Value(value) => write!(f, "{}={value:?}", self.variable)?,
            Given::Secret => write!(f, "{}=(hidden)", self.variable)?,
            Given::Nothing => write!(f, "{} is not set", self.variable)?,
        }
        write!(f, ": expected {}", self.expected)
    }
}

/// Reads variables and collects what is wrong with them.
///
/// A value that cannot be used is replaced by its default, only so that reading can go on.
struct Reader<L> {
    lookup: L,
    production: bool,
    problems: Vec<Problem>,
}

impl<L: Fn(&str) -> Option<String>> Reader<L> {
    fn new(lookup: L) -> Self {
        Self { lookup, production: false, problems: Vec::new() }
    }

    fn raw(&self, name: &'static str) -> Option<String> {
        (self.lookup)(Setting::named(name).name).filter(|value| !value.is_empty())
    }

    fn refuse(&mut self, variable: &'static str, expected: String) {
        let setting = Setting::named(variable);
        let given = match self.raw(variable) {
            Some(_) if setting.secret => Given::Secret,
            Some(value) => Given::Value(value.chars().take(SHOWN_CHARS).collect()),
            None => Given::Nothing,
        };
        self.problems.push(Problem { variable, given, expected });
    }

    /// The variable's value; the default of the table when it is unset. `parse` fails with what it
    /// expected.
    #[expect(clippy::expect_used, reason = "defaults are constants, and a test reads them all")]
    fn read<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        let setting = Setting::named(name);
        let default = setting.in_production.filter(|_| self.production).unwrap_or(setting.default);
        let default = parse(default).expect("every default in SETTINGS parses");
        self.read_or(name, default, parse)
    }

    /// As [`read`](Self::read), for a default that is worked out.
    fn read_or<T>(&mut self, name: &'static str, default: T, parse: impl Fn(&str) -> Result<T, String>) -> T {
        match self.raw(name).as_deref().map(parse) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(expected)) => {
                self.refuse(name, expected);
                default
            }
        }
    }

    fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> T {
        self.read(name, |text| parse_word(text, words))
    }

    fn integer<T: TryFrom<u64>>(&mut self, name: &'static str, range: RangeInclusive<u64>) -> T {
        let unit = Setting::named(name).unit;
        self.read(name, |text| parse_integer(text, unit, &range))
    }

    fn milliseconds(&mut self, name: &'static str) -> Duration {
        Duration::from_millis(self.integer(name, 10..=3_600_000))
    }

    /// The bounds are written as an operator writes them, and shown so.
    #[expect(clippy::expect_used, reason = "bounds are constants, and a test reads them all")]
    fn duration(&mut self, name: &'static str, min: &str, max: &str) -> Duration {
        let bound = |text| parse_duration(text).expect("a bound is a duration");
        let range = bound(min)..=bound(max);
        self.read(name, |text| {
            parse_duration(text).filter(|duration| range.contains(duration)).ok_or_else(|| {
                let bare = text.bytes().all(|byte| byte.is_ascii_digit());
                let hint = if bare { "; a bare integer has no unit" } else { "" };
                format!("a duration with its unit (ms, s, m, h or d), from {min} to {max}{hint}")
            })
        })
    }

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

    /// Production must not run open because somebody forgot a variable: a build that can only be open
    /// has to be told so.
    fn auth_mode(&mut self) -> AuthMode {
        let parse = |text: &str| match text {
            "none" => Ok(AuthMode::None),
            _ => Err("none, because this build cannot verify tokens yet".to_owned()),
        };
        if self.production && self.raw("AUTH_MODE").is_none() {
            let expected = "none, said explicitly in production, because this build cannot verify tokens yet";
            self.refuse("AUTH_MODE", expected.to_owned());
        }
        self.read_or("AUTH_MODE", AuthMode::None, parse)
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
}

/// One of `words`, spelled exactly.
fn parse_word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        words.join(" or ")
    })
}

/// Digits only: no sign, no blanks, no separators, as JSON writes an integer.
fn parse_integer<T: TryFrom<u64>>(text: &str, unit: &str, range: &RangeInclusive<u64>) -> Result<T, String> {
    digits(text)
        .filter(|value| range.contains(value))
        .and_then(|value| T::try_from(value).ok())
        .ok_or_else(|| format!("{unit}, an integer from {} to {}", range.start(), range.end()))
}

/// `10s`, `250ms`, `15m`, `24h`, `7d`; `None` for everything else.
fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    digits(number)?.checked_mul(unit_ms).map(Duration::from_millis)
}

fn digits(text: &str) -> Option<u64> {
    // `parse` alone would take a leading plus.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

const MIB: u64 = 1024 * 1024;

/// A thread costs a stack and a queue; more of them than this is a typing error.
const MAX_WORKER_THREADS: u64 = 256;

/// How much of an unusable value a message shows.
const SHOWN_CHARS: usize = 80;

const ENVIRONMENTS: [(&str, Environment); 2] =
    [("development", Environment::Development), ("production", Environment::Production)];

const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

const LOG_LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;

    fn config(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_vars(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    fn production(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        config(&[&[("ENV", "production"), ("AUTH_MODE", "none")], vars].concat())
    }

    #[test]
    fn table_and_reader_name_the_same_variables() {
        let listed: BTreeSet<String> = SETTINGS.iter().map(|s| s.name.to_owned()).collect();
        assert_eq!(listed.len(), SETTINGS.len(), "a variable is listed twice");
        for environment in ["development", "production"] {
            let read = RefCell::new(BTreeSet::new());
            let _ = Config::from_vars(|name| {
                read.borrow_mut().insert(name.to_owned());
                (name == "ENV").then(|| environment.to_owned())
            });
            assert_eq!(read.into_inner(), listed, "{environment}");
        }
    }

    #[test]
    fn nothing_set_is_the_development_default() {
        let config = config(&[]).expect("the defaults are valid");
        assert_eq!(config.host, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(config.port, 5003);
        assert_eq!(config.environment, Environment::Development);
        assert_eq!(config.log_level, LevelFilter::Info);
        assert_eq!(config.log_format, LogFormat::Text);
        assert_eq!(config.auth_mode, AuthMode::None);
        assert!(matches!(config.cors, AllowedOrigins::SameOrigin { localhost: true }));
        assert_eq!(config.ping_interval, Duration::from_secs(25));
        assert_eq!(config.ping_timeout, Duration::from_secs(20));
        assert_eq!(config.connect_timeout, Duration::from_secs(10));
        assert_eq!(config.upgrade_timeout, Duration::from_secs(10));
        assert_eq!(config.max_payload, 65_536);
        assert_eq!(config.outbox_max_bytes, 1_048_576);
        assert_eq!(config.max_connections, NonZeroUsize::new(16_000));
        assert!((1..=256).contains(&config.worker_threads));
        assert_eq!(config.head_timeout, Duration::from_secs(5));
        assert_eq!(config.body_timeout, Duration::from_secs(10));
        assert_eq!(config.keep_alive_timeout, Duration::from_secs(75));
        assert_eq!(config.head_max_bytes, 16_384);
        assert_eq!(config.head_max_headers, 64);
        assert_eq!(config.drain_spread, Duration::from_secs(10));
        assert_eq!(config.drain_timeout, Duration::from_secs(25));
        assert_eq!(config.metrics_addr, None);
        assert!(!config.redis_url_set);
        assert_eq!(config.warnings().len(), 1, "one clear warning: {:?}", config.warnings());
    }

    #[test]
    fn production_has_other_defaults_under_either_name() {
        for name in ["ENV", "FLASK_ENV"] {
            let config = config(&[(name, "production"), ("AUTH_MODE", "none")]).expect(name);
            assert_eq!(config.environment, Environment::Production, "{name}");
            assert_eq!(config.host, IpAddr::from([0, 0, 0, 0]), "{name}");
            assert!(matches!(config.cors, AllowedOrigins::SameOrigin { localhost: false }), "{name}");
        }
    }

    #[test]
    fn values_are_taken() {
        let config = production(&[
            ("FLASK_ENV", "production"),
            ("HOST", "::1"),
            ("PORT", "0"),
            ("LOG_LEVEL", "off"),
            ("LOG_FORMAT", "json"),
            ("CORS_ALLOWED_ORIGINS", "*"),
            ("PING_INTERVAL_MS", "300"),
            ("MAX_CONNECTIONS", "0"),
            ("WORKER_THREADS", "256"),
            ("HEAD_TIMEOUT", "250ms"),
            ("KEEP_ALIVE_TIMEOUT", "15m"),
            ("METRICS_ADDR", "[::1]:9103"),
            ("REDIS_URL", "redis://:hunter2@redis:6379/0"),
        ])
        .expect("all valid");
        assert_eq!(config.host, IpAddr::from_str("::1").expect("an address"));
        assert_eq!(config.port, 0);
        assert_eq!(config.log_level, LevelFilter::Off);
        assert_eq!(config.log_format, LogFormat::Json);
        assert!(matches!(config.cors, AllowedOrigins::Any));
        assert_eq!(config.ping_interval, Duration::from_millis(300));
        assert_eq!(config.max_connections, None);
        assert_eq!(config.worker_threads, 256);
        assert_eq!(config.head_timeout, Duration::from_millis(250));
        assert_eq!(config.keep_alive_timeout, Duration::from_secs(900));
        assert_eq!(config.metrics_addr.map(|addr| addr.port()), Some(9103));
        assert!(config.redis_url_set);
        assert!(!format!("{config:?}").contains("hunter2"), "the URL is not kept");
        assert_eq!(config.warnings().len(), 2);
    }

    #[test]
    fn an_empty_value_is_unset() {
        let config = config(&[("PORT", ""), ("ENV", ""), ("METRICS_ADDR", ""), ("REDIS_URL", "")]);
        let config = config.expect("all unset");
        assert_eq!((config.port, config.redis_url_set), (5003, false));
    }

    #[test]
    fn an_error_names_variable_value_and_expectation() {
        let ms = "milliseconds, an integer from 10 to 3600000";
        let head = "a duration with its unit (ms, s, m, h or d), from 10ms to 10m";
        let cases = [
            ("PING_INTERVAL_MS", "25s", ms.to_owned()),
            ("PING_INTERVAL_MS", "9", ms.to_owned()),
            ("PING_TIMEOUT_MS", "3600001", ms.to_owned()),
            ("CONNECT_TIMEOUT_MS", "+10", ms.to_owned()),
            ("UPGRADE_TIMEOUT_MS", "18446744073709551616", ms.to_owned()),
            ("HEAD_TIMEOUT", "5", format!("{head}; a bare integer has no unit")),
            ("HEAD_TIMEOUT", "9ms", head.to_owned()),
            ("HEAD_TIMEOUT", "11m", head.to_owned()),
            ("HEAD_TIMEOUT", "5 s", head.to_owned()),
            ("HEAD_TIMEOUT", "1.5s", head.to_owned()),
            ("HEAD_TIMEOUT", "s", head.to_owned()),
            ("HEAD_TIMEOUT", "99999999999999999d", head.to_owned()),
            ("PORT", "65536", "TCP port, an integer from 0 to 65535".into()),
            ("HOST", "localhost", "an IP address such as 127.0.0.1 or ::".into()),
            ("ENV", "staging", "development or production".into()),
            ("FLASK_ENV", "testing", "development or production".into()),
            ("LOG_LEVEL", "INFO", "off or error or warn or info or debug or trace".into()),
            ("LOG_FORMAT", "xml", "text or json".into()),
            ("AUTH_MODE", "jwt", "none, because this build cannot verify tokens yet".into()),
            ("WORKER_THREADS", "0", "threads, an integer from 1 to 256".into()),
            ("WORKER_THREADS", "257", "threads, an integer from 1 to 256".into()),
            ("METRICS_ADDR", "9103", "an address and port such as 127.0.0.1:9103, or off".into()),
            ("MAX_PAYLOAD", "1023", "bytes, an integer from 1024 to 16777216".into()),
            ("OUTBOX_MAX_BYTES", "65535", "at least MAX_PAYLOAD, which is 65536".into()),
            ("DRAIN_SPREAD", "26s", "at most DRAIN_TIMEOUT, which is 25s".into()),
        ];
        for (name, value, expected) in cases {
            let error = config(&[(name, value)]).expect_err(name).to_string();
            assert_eq!(error, format!("{name}={value:?}: expected {expected}"));
        }
    }

    #[test]
    fn an_unusable_origin_is_reported_with_its_reason() {
        let error = config(&[("CORS_ALLOWED_ORIGINS", "app")]).expect_err("no scheme").to_string();
        let beginning = "CORS_ALLOWED_ORIGINS=\"app\": expected * or a comma list of origins (";
        assert!(error.starts_with(beginning) && error.ends_with(')'), "{error}");
    }

    #[test]
    fn values_at_the_limit_are_taken() {
        let at_limit = [
            ("PING_INTERVAL_MS", "10"),
            ("PING_TIMEOUT_MS", "3600000"),
            ("HEAD_TIMEOUT", "10ms"),
            ("BODY_TIMEOUT", "10m"),
            ("PORT", "65535"),
            ("WORKER_THREADS", "1"),
            ("MAX_PAYLOAD", "1024"),
            ("OUTBOX_MAX_BYTES", "65536"),
            ("DRAIN_SPREAD", "25s"),
        ];
        for (name, value) in at_limit {
            assert!(config(&[(name, value)]).is_ok(), "{name}={value}");
        }
    }

    #[test]
    fn the_two_names_of_the_environment_must_agree() {
        let error = config(&[("ENV", "production"), ("FLASK_ENV", "development")]);
        let error = error.expect_err("they differ").to_string();
        assert!(error.starts_with("FLASK_ENV=\"development\": expected the same as ENV=\"production\""), "{error}");
    }

    #[test]
    fn production_does_not_start_open_by_accident() {
        let error = config(&[("ENV", "production")]).expect_err("not said").to_string();
        assert_eq!(
            error,
            "AUTH_MODE is not set: expected none, said explicitly in production, because this build \
             cannot verify tokens yet"
        );
    }

    #[test]
    fn every_problem_is_reported() {
        let error = config(&[("PORT", "x"), ("HOST", "y"), ("LOG_FORMAT", "z")]);
        let error = error.expect_err("three are wrong");
        assert_eq!(error.problems().len(), 3);
        assert_eq!(error.to_string().lines().count(), 3);
    }

    #[test]
    fn a_message_neither_shows_secrets_nor_grows_with_the_value() {
        let mut vars = Reader::new(|_: &str| Some("hunter2".repeat(1000)));
        vars.refuse("REDIS_URL", "a URL".to_owned());
        vars.refuse("PORT", "a port".to_owned());
        let error = ConfigError::from_problems(vars.problems).expect("two").to_string();
        let (secret, long) = error.split_once('\n').expect("two lines");
        assert_eq!(secret, "REDIS_URL=(hidden): expected a URL");
        assert!(long.len() < 2 * SHOWN_CHARS, "{long}");
    }

    #[test]
    fn durations_take_every_unit() {
        let cases = [
            ("250ms", Some(250)),
            ("10s", Some(10_000)),
            ("15m", Some(900_000)),
            ("24h", Some(86_400_000)),
            ("7d", Some(604_800_000)),
            ("0s", Some(0)),
            ("", None),
            ("10", None),
            ("10S", None),
            ("-1s", None),
            ("1s1s", None),
            ("١s", None),
        ];
        for (text, ms) in cases {
            assert_eq!(parse_duration(text), ms.map(Duration::from_millis), "{text:?}");
        }
    }
}
