//! What the process counts, and how `GET /metrics` shows it: the Prometheus text format 0.0.4.
//!
//! One [`Metrics`] is shared by all tasks; every method is one or two relaxed atomic additions. What
//! other parts know anyway (how many rooms there are) is not counted twice but handed to
//! [`Metrics::render`] in [`Gauges`].
//!
//! ORDERING: Relaxed, everywhere in this file. The numbers are only for people and dashboards: nothing
//! is decided by them and no memory is published through them. Two of them read together may be a
//! moment apart.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>

use std::fmt::{self, Write as _};
use std::fs;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::types::{CloseReason, Transport};

/// The counters and gauges of one process, from its start.
#[derive(Debug)]
pub struct Metrics {
    /// By transport; written for every packet, hence on lines of their own.
    inbound: [Padded<Traffic>; TRANSPORTS.len()],
    outbound: [Padded<Traffic>; TRANSPORTS.len()],
    events: Padded<Counter>,

    connections: Gauge,
    sessions: [Gauge; TRANSPORTS.len()],
    handshakes: [Counter; TRANSPORTS.len()],
    upgrades: Counter,
    closes: [Counter; CloseReason::ALL.len()],
    refusals: [Counter; Refusal::ALL.len()],
    accept_errors: Counter,
    input_pauses: Counter,
    panics: Counter,
    unreadable: Counter,
    pickles: Counter,
    repairs: Counter,
    resyncs: Counter,
    unpublished: Counter,

    started_at: SystemTime,
}

impl Metrics {
    /// Everything at zero. `started_at` is shown as the start of the process.
    pub fn new(started_at: SystemTime) -> Self {
        Self {
            inbound: Default::default(),
            outbound: Default::default(),
            events: Padded::default(),
            connections: Gauge::default(),
            sessions: Default::default(),
            handshakes: Default::default(),
            upgrades: Counter::default(),
            closes: Default::default(),
            refusals: Default::default(),
            accept_errors: Counter::default(),
            input_pauses: Counter::default(),
            panics: Counter::default(),
            unreadable: Counter::default(),
            pickles: Counter::default(),
            repairs: Counter::default(),
            resyncs: Counter::default(),
            unpublished: Counter::default(),
            started_at,
        }
    }

    /// A TCP connection was accepted; [`connection_closed`](Self::connection_closed) follows.
    #[inline]
    pub fn connection_opened(&self) {
        self.connections.add(1);
    }

    /// A TCP connection is gone.
    #[inline]
    pub fn connection_closed(&self) {
        self.connections.add(-1);
    }

    /// `accept` failed, most likely for want of descriptors.
    #[inline]
    pub fn accept_failed(&self) {
        self.accept_errors.add(1);
    }

    /// A session was opened by a handshake; [`closed`](Self::closed) follows.
    #[inline]
    pub fn opened(&self, transport: Transport) {
        self.handshakes[index(transport)].add(1);
        self.sessions[index(transport)].add(1);
    }

    /// A session went over from polling to WebSocket.
    #[inline]
    pub fn upgraded(&self) {
        self.upgrades.add(1);
        self.sessions[index(Transport::WebSocket)].add(1);
        self.sessions[index(Transport::Polling)].add(-1);
    }

    /// A session ended; `transport` is the one it had last.
    #[inline]
    pub fn closed(&self, transport: Transport, reason: CloseReason) {
        self.sessions[index(transport)].add(-1);
        self.closes[reason as usize].add(1);
    }

    /// Engine.IO packets came in.
    #[inline]
    pub fn packets_in(&self, transport: Transport, packets: u64) {
        self.inbound[index(transport)].0.packets.add(packets);
    }

    /// Engine.IO packets were written.
    #[inline]
    pub fn packets_out(&self, transport: Transport, packets: u64) {
        self.outbound[index(transport)].0.packets.add(packets);
    }

    /// Bytes came in from clients.
    #[inline]
    pub fn bytes_in(&self, transport: Transport, bytes: u64) {
        self.inbound[index(transport)].0.bytes.add(bytes);
    }

    /// Bytes were written to clients.
    #[inline]
    pub fn bytes_out(&self, transport: Transport, bytes: u64) {
        self.outbound[index(transport)].0.bytes.add(bytes);
    }

    /// A Socket.IO event of a client is being handled.
    #[inline]
    pub fn event_in(&self) {
        self.events.0.add(1);
    }

    /// Something a client asked for was refused.
    #[inline]
    pub fn refused(&self, refusal: Refusal) {
        self.refusals[refusal as usize].add(1);
    }

    /// A client sent more than its rate: nothing is read from it for a while.
    #[inline]
    pub fn input_paused(&self) {
        self.input_pauses.add(1);
    }

    /// A panic was caught at the boundary of a task.
    #[inline]
    pub fn panicked(&self) {
        self.panics.add(1);
    }

    /// A message from Redis could not be read, and was dropped.
    #[inline]
    pub fn unreadable(&self) {
        self.unreadable.add(1);
    }

    /// One of them was a pickle.
    #[inline]
    pub fn pickle_refused(&self) {
        self.pickles.add(1);
    }

    /// Events that did not come by themselves are being fetched from a log.
    #[inline]
    pub fn repaired(&self) {
        self.repairs.add(1);
    }

    /// Members were told to load a log anew.
    #[inline]
    pub fn resynced(&self) {
        self.resyncs.add(1);
    }

    /// Something for other instances could not be passed on.
    #[inline]
    pub fn not_published(&self) {
        self.unpublished.add(1);
    }

    /// TCP connections that are open now.
    pub fn connections(&self) -> i64 {
        self.connections.value()
    }

    /// Sessions that are open now on `transport`.
    pub fn sessions(&self, transport: Transport) -> i64 {
        self.sessions[index(transport)].value()
    }

    /// The answer to `GET /metrics`, to be sent as [`CONTENT_TYPE`].
    pub fn render(&self, gauges: &Gauges) -> String {
        let mut page = Page::default();
        let by_transport = |counters: fn(&Self, usize) -> &Counter| {
            TRANSPORTS.map(|transport| {
                let value = counters(self, index(transport)).value();
                ("transport", transport.as_str(), value)
            })
        };

        let build = [("version", env!("CARGO_PKG_VERSION"), 1)];
        page.gauge("chat_build_info", "The version that runs.", build);
        page.gauge("chat_connections", "Open TCP connections.", one(self.connections()));
        let sessions = TRANSPORTS.map(|t| ("transport", t.as_str(), self.sessions(t)));
        page.gauge("chat_sessions", "Open Engine.IO sessions.", sessions);
        let handshakes = by_transport(|metrics, index| &metrics.handshakes[index]);
        page.counter("chat_handshakes_total", "Engine.IO sessions opened.", handshakes);
        let upgrades = one(self.upgrades.value());
        page.counter("chat_upgrades_total", "Sessions that went from polling to WebSocket.", upgrades);
        let closes = CloseReason::ALL.map(|reason| ("reason", reason.as_str(), self.closes[reason as usize].value()));
        page.counter("chat_closes_total", "Sessions ended, by reason.", closes);

        let packets = by_transport(|metrics, index| &metrics.inbound[index].0.packets);
        page.counter("chat_received_packets_total", "Engine.IO packets from clients.", packets);
        let packets = by_transport(|metrics, index| &metrics.outbound[index].0.packets);
        page.counter("chat_sent_packets_total", "Engine.IO packets to clients.", packets);
        let bytes = by_transport(|metrics, index| &metrics.inbound[index].0.bytes);
        page.counter("chat_received_bytes_total", "Bytes from clients.", bytes);
        let bytes = by_transport(|metrics, index| &metrics.outbound[index].0.bytes);
        page.counter("chat_sent_bytes_total", "Bytes to clients.", bytes);
        let events = one(self.events.0.value());
        page.counter("chat_received_events_total", "Socket.IO events from clients.", events);

        let refusals = Refusal::ALL.map(|refusal| ("code", refusal.as_str(), self.refusals[refusal as usize].value()));
        page.counter("chat_refusals_total", "What clients were refused, by code.", refusals);
        let errors = one(self.accept_errors.value());
        page.counter("chat_accept_errors_total", "Connections that could not be accepted.", errors);
        let pauses = one(self.input_pauses.value());
        page.counter("chat_input_pauses_total", "Pauses in reading from clients over their rate of bytes.", pauses);
        let panics = one(self.panics.value());
        page.counter("chat_panics_total", "Panics caught at the boundary of a task.", panics);

        if let Some(redis) = gauges.redis {
            page.gauge("chat_redis_up", "Whether Redis can be used.", one(u64::from(redis.is_up)));
            page.counter("chat_redis_calls_total", "Commands sent to Redis.", one(redis.calls));
            page.counter("chat_redis_batches_total", "Writes that these took.", one(redis.batches));
            page.counter("chat_redis_failed_total", "Commands not done in time, or not taken.", one(redis.failed));
            page.counter("chat_redis_reconnects_total", "Connections after the first ones.", one(redis.reconnects));
            let timeouts = one(redis.timeouts);
            page.counter("chat_redis_timeouts_total", "Connections given up because Redis was silent.", timeouts);
            page.counter("chat_redis_messages_total", "Published messages received.", one(redis.messages));
            page.gauge("chat_redis_channels", "Channels listened to.", one(redis.channels));
            page.gauge("chat_redis_pending", "Events that wait to be logged.", one(redis.pending));
            let refused = std::array::from_fn::<_, 6, _>(|at| ("reason", STORE_FAILURES[at], redis.refused[at]));
            page.counter("chat_store_failures_total", "What the store could not do, by reason.", refused);
        }
        let unreadable = one(self.unreadable.value() + gauges.redis.map_or(0, |redis| redis.left_out));
        page.counter("chat_redis_unreadable_total", "Messages from Redis that were dropped.", unreadable);
        let pickles = one(self.pickles.value());
        page.counter("chat_redis_pickles_total", "Messages of old Python emitters that were refused.", pickles);
        let unpublished = one(self.unpublished.value());
        page.counter("chat_redis_unpublished_total", "Messages for other instances that were lost.", unpublished);
        let repairs = one(self.repairs.value());
        page.counter("chat_log_repairs_total", "Times that events were fetched which did not come.", repairs);
        let resyncs = one(self.resyncs.value());
        page.counter("chat_resyncs_total", "Meetings whose members were told to load them anew.", resyncs);

        page.gauge("chat_rooms", "Rooms with at least one member.", one(gauges.rooms));
        page.gauge("chat_outbox_bytes", "Bytes waiting for clients.", one(gauges.outbox_bytes));
        let uptime = one(Seconds(gauges.uptime));
        page.gauge("chat_uptime_seconds", "Time since the start, monotonic clock.", uptime);
        let started = self.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = one(Seconds(started));
        page.gauge("process_start_time_seconds", "Start of the process, Unix time.", started);
        if let Some(bytes) = resident_bytes() {
            page.gauge("process_resident_memory_bytes", "Resident memory.", one(bytes));
        }
        page.0
    }
}

/// What others count and [`Metrics::render`] only shows, as it is at that moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// Rooms with at least one member.
    pub rooms: u64,
    /// Bytes waiting in all outboxes.
    pub outbox_bytes: u64,
    /// Time since the server started, on the monotonic clock.
    pub uptime: Duration,
    /// The connections to Redis, if there is one.
    pub redis: Option<RedisGauges>,
}

/// How it stands with Redis.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedisGauges {
    /// It can be used.
    pub is_up: bool,
    /// Commands written, and in how many batches.
    pub calls: u64,
    /// See `calls`.
    pub batches: u64,
    /// Commands that were not done in time, or not taken because too many waited.
    pub failed: u64,
    /// Connections after the first ones.
    pub reconnects: u64,
    /// Connections that were given up because the server was silent.
    pub timeouts: u64,
    /// Published messages that came.
    pub messages: u64,
    /// Of these, left out unread: too long, or on a channel whose name is no text.
    pub left_out: u64,
    /// Meetings and other channels that are listened to.
    pub channels: u64,
    /// Events that wait to be logged.
    pub pending: u64,
    /// What the store could not do: away, full, unknown, not replicated, refused, malformed.
    pub refused: [u64; 6],
}

/// Why the store could not do something: the label `reason`.
const STORE_FAILURES: [&str; 6] = ["away", "full", "unknown", "not_replicated", "refused", "malformed"];

/// The `Content-Type` of what [`Metrics::render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident => $code:literal,)+) => {
        /// What a client was refused, as the `code` label of one counter.
        ///
        /// Three layers share it: who refuses an HTTP request, an Engine.IO session, an event of the chat.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Refusal {
            $($(#[$doc])* $variant,)+
        }

        impl Refusal {
            /// Every refusal, in declaration order: `ALL[refusal as usize] == refusal`.
            pub const ALL: [Self; [$($code),+].len()] = [$(Self::$variant),+];

            /// The stable name, in `snake_case`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)+
                }
            }
        }
    };
}

// A macro, so that a new code is one line and neither the list nor the name can be forgotten.
refusals! {
    /// Engine.IO: no such transport.
    UnknownTransport => "unknown_transport",
    /// Engine.IO: the session id names no session.
    UnknownSession => "unknown_session",
    /// Engine.IO: a handshake that is not a GET.
    BadHandshakeMethod => "bad_handshake_method",
    /// Engine.IO: a request that its session's state forbids.
    BadRequest => "bad_request",
    /// Engine.IO: another protocol version than 4.
    UnsupportedVersion => "unsupported_version",
    /// HTTP: bytes that are no request.
    BadHttp => "bad_http",
    /// HTTP: the head did not arrive in time.
    HeadTimeout => "head_timeout",
    /// HTTP: the body did not arrive in time.
    BodyTimeout => "body_timeout",
    /// HTTP: a head or body over its limit. Chat: a whole payload over its limit.
    TooLarge => "too_large",
    /// HTTP: nothing has that path. Chat: no such meeting or message.
    NotFound => "not_found",
    /// HTTP: the path does not take that method.
    MethodNotAllowed => "method_not_allowed",
    /// HTTP: any other 4xx.
    OtherHttp => "other_http",
    /// The page's origin may not call.
    ForbiddenOrigin => "forbidden_origin",
    /// No new sessions: the server is stopping.
    Draining => "draining",
    /// `MAX_CONNECTIONS` is reached.
    TooManyConnections => "too_many_connections",
    /// `MAX_CONNECTIONS_PER_IP` is reached, by sessions or by TCP connections.
    TooManyPerIp => "too_many_per_ip",
    /// Chat: a payload that is not what the event takes.
    InvalidPayload => "invalid_payload",
    /// Chat: an event nobody handles.
    UnknownEvent => "unknown_event",
    /// Chat: no token where one is needed.
    Unauthorized => "unauthorized",
    /// Chat: a token that is not one of ours, or not for this.
    TokenInvalid => "token_invalid",
    /// Chat: a token that was one of ours.
    TokenExpired => "token_expired",
    /// Chat: the right is missing.
    Forbidden => "forbidden",
    /// Chat: the socket has not joined that meeting.
    NotJoined => "not_joined",
    /// Chat: it contradicts what happened before.
    Conflict => "conflict",
    /// Chat: the meeting is read-only.
    RoomClosed => "room_closed",
    /// Chat: the meeting has as many members as it may.
    RoomFull => "room_full",
    /// Chat: a cap is reached, such as rooms of a socket.
    LimitReached => "limit_reached",
    /// Too fast: handshakes of an address, or what a client asks for.
    RateLimited => "rate_limited",
    /// Chat: not now, such as a meeting that is too busy.
    Unavailable => "unavailable",
    /// Chat: a fault of the server.
    Internal => "internal",
}

impl Refusal {
    /// What an answer of HTTP with this status is, unless somebody knows better.
    pub const fn of_status(status: u16) -> Option<Self> {
        Some(match status {
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            408 => Self::BodyTimeout,
            413 => Self::TooLarge,
            429 => Self::RateLimited,
            400..500 => Self::OtherHttp,
            _ => return None,
        })
    }
}

/// In the order of [`index`].
const TRANSPORTS: [Transport; 2] = [Transport::Polling, Transport::WebSocket];

const fn index(transport: Transport) -> usize {
    match transport {
        Transport::Polling => 0,
        Transport::WebSocket => 1,
    }
}

/// A cache line of its own: otherwise two threads that count different things take the line from one
/// another for every packet.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Padded<T>(T);

/// One direction of one transport. On one line, for both are added to by the same read or write.
#[derive(Debug, Default)]
struct Traffic {
    packets: Counter,
    bytes: Counter,
}

const _: () = assert!(size_of::<Padded<Traffic>>() == 64);

/// Only rises.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    #[inline]
    fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Rises and falls. Signed, so that one `closed` too many shows as -1 and not as 2^64 - 1.
#[derive(Debug, Default)]
struct Gauge(AtomicI64);

impl Gauge {
    #[inline]
    fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The text, one family of samples after the other.
///
/// Label values and help texts are constants without a quote, a backslash or a line end, so nothing is
/// escaped.
struct Page(String);

impl Default for Page {
    fn default() -> Self {
        // About what a page takes, to grow at most once.
        Self(String::with_capacity(8 * 1024))
    }
}

/// A sample: label name, label value, value. An empty label name is none.
type Sample<V> = (&'static str, &'static str, V);

/// The only sample of a family without labels.
fn one<V>(value: V) -> [Sample<V>; 1] {
    [("", "", value)]
}

impl Page {
    fn counter<V: fmt::Display, const N: usize>(&mut self, name: &str, help: &str, samples: [Sample<V>; N]) {
        self.family(name, "counter", help, samples);
    }

    fn gauge<V: fmt::Display, const N: usize>(&mut self, name: &str, help: &str, samples: [Sample<V>; N]) {
        self.family(name, "gauge", help, samples);
    }

    fn family<V: fmt::Display, const N: usize>(&mut self, name: &str, kind: &str, help: &str, samples: [Sample<V>; N]) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (label, label_value, value) in samples {
            let _ = match label {
                "" => writeln!(self.0, "{name} {value}"),
                _ => writeln!(self.0, "{name}{{{label}=\"{label_value}\"}} {value}"),
            };
        }
    }
}

/// A time in seconds with milliseconds, without the rounding of a float.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0.as_secs(), self.0.subsec_millis())
    }
}

/// Resident memory of this process; `None` where there is no such file.
///
/// From `status` and not `statm`, which counts in pages: their size differs between machines and `std`
/// does not tell it.
fn resident_bytes() -> Option<u64> {
    parse_resident_bytes(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_resident_bytes(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    /// A strict reader of the format: panics at whatever Prometheus would not take, or would take for
    /// something else. Returns the samples by name and labels.
    fn parse(page: &str) -> HashMap<String, f64> {
        assert!(page.ends_with('\n') && !page.contains('\r'), "lines end with LF, the last too");
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        let (mut families, mut samples) = (HashSet::new(), HashMap::new());
        let mut lines = page.lines().peekable();
        while let Some(line) = lines.next() {
            let (name, help) = line
                .strip_prefix("# HELP ")
                .and_then(|rest| rest.split_once(' '))
                .unwrap_or_else(|| panic!("a family begins with HELP: {line:?}"));
            assert!(is_name(name), "{name:?}");
            assert!(!help.is_empty() && !help.contains('\\'), "{help:?}");
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            let kind = lines
                .next()
                .and_then(|line| line.strip_prefix("# TYPE "))
                .and_then(|rest| rest.strip_prefix(name))
                .unwrap_or_else(|| panic!("TYPE follows HELP: {name}"));
            match kind {
                " counter" => assert!(name.ends_with("_total"), "{name}"),
                " gauge" => assert!(!name.ends_with("_total"), "{name}"),
                other => panic!("{name}: type {other:?}"),
            }
            let before = samples.len();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let (series, value) = line.split_once(' ').expect("a value");
                let labels = series.strip_prefix(name).expect("a sample of its family");
                if !labels.is_empty() {
                    let inner = labels
                        .strip_prefix('{')
                        .and_then(|rest| rest.strip_suffix("\"}"))
                        .unwrap_or_else(|| panic!("labels: {line:?}"));
                    let (label, label_value) = inner.split_once("=\"").expect("label=\"value\"");
                    assert!(is_name(label), "{line:?}");
                    assert!(!label_value.contains(['"', '\\']), "{line:?}");
                }
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line:?}"));
                assert!(samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
            }
            assert!(samples.len() > before, "{name} has no sample");
        }
        samples
    }

    fn metrics() -> Metrics {
        Metrics::new(UNIX_EPOCH + Duration::from_millis(1_700_000_000_250))
    }

    #[test]
    fn an_untouched_page_shows_every_series_at_zero() {
        let samples = parse(&metrics().render(&Gauges::default()));
        let version = concat!("chat_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
        for (series, value) in &samples {
            match series.as_str() {
                "process_start_time_seconds" => assert_eq!(*value, 1_700_000_000.25),
                "process_resident_memory_bytes" => assert!(*value > 0.0),
                name if name == version => assert_eq!(*value, 1.0),
                _ => assert_eq!(*value, 0.0, "{series}"),
            }
        }
        for refusal in Refusal::ALL {
            let series = format!("chat_refusals_total{{code=\"{}\"}}", refusal.as_str());
            assert!(samples.contains_key(&series), "{series}");
        }
        for reason in CloseReason::ALL {
            let series = format!("chat_closes_total{{reason=\"{}\"}}", reason.as_str());
            assert!(samples.contains_key(&series), "{series}");
        }
    }

    #[test]
    fn every_method_moves_its_series_and_no_other() {
        use Transport::{Polling, WebSocket};
        type Case = (fn(&Metrics), &'static [(&'static str, f64)]);
        let cases: &[Case] = &[
            (|m| m.connection_opened(), &[("chat_connections", 1.0)]),
            (|m| m.connection_closed(), &[("chat_connections", -1.0)]),
            (|m| m.accept_failed(), &[("chat_accept_errors_total", 1.0)]),
            (
                |m| m.opened(Polling),
                &[("chat_sessions{transport=\"polling\"}", 1.0), ("chat_handshakes_total{transport=\"polling\"}", 1.0)],
            ),
            (
                |m| {
                    m.opened(Polling);
                    m.upgraded();
                },
                &[
                    ("chat_sessions{transport=\"websocket\"}", 1.0),
                    ("chat_handshakes_total{transport=\"polling\"}", 1.0),
                    ("chat_upgrades_total", 1.0),
                ],
            ),
            (
                |m| {
                    m.opened(WebSocket);
                    m.closed(WebSocket, CloseReason::SlowConsumer);
                },
                &[
                    ("chat_handshakes_total{transport=\"websocket\"}", 1.0),
                    ("chat_closes_total{reason=\"slow_consumer\"}", 1.0),
                ],
            ),
            (|m| m.packets_in(Polling, 2), &[("chat_received_packets_total{transport=\"polling\"}", 2.0)]),
            (|m| m.packets_out(WebSocket, 3), &[("chat_sent_packets_total{transport=\"websocket\"}", 3.0)]),
            (|m| m.bytes_in(WebSocket, 4), &[("chat_received_bytes_total{transport=\"websocket\"}", 4.0)]),
            (|m| m.bytes_out(Polling, 5), &[("chat_sent_bytes_total{transport=\"polling\"}", 5.0)]),
            (|m| m.event_in(), &[("chat_received_events_total", 1.0)]),
            (|m| m.refused(Refusal::Unavailable), &[("chat_refusals_total{code=\"unavailable\"}", 1.0)]),
            (|m| m.input_paused(), &[("chat_input_pauses_total", 1.0)]),
            (|m| m.panicked(), &[("chat_panics_total", 1.0)]),
        ];
        let untouched = parse(&metrics().render(&Gauges::default()));
        for (index, (touch, expected)) in cases.iter().enumerate() {
            let metrics = metrics();
            touch(&metrics);
            let mut samples = parse(&metrics.render(&Gauges::default()));
            samples.retain(|series, value| series != "process_resident_memory_bytes" && untouched[series] != *value);
            let expected: HashMap<String, f64> =
                expected.iter().map(|(series, value)| ((*series).to_owned(), *value)).collect();
            assert_eq!(samples, expected, "case {index}");
        }
    }

    #[test]
    fn gauges_of_others_are_shown() {
        let redis =
            Some(RedisGauges { is_up: true, left_out: 2, refused: [0, 0, 0, 7, 0, 0], ..RedisGauges::default() });
        let gauges = Gauges { rooms: 1, outbox_bytes: 3, uptime: Duration::from_millis(4_005), redis };
        let samples = parse(&metrics().render(&gauges));
        assert_eq!(samples["chat_rooms"], 1.0);
        assert_eq!(samples["chat_outbox_bytes"], 3.0);
        assert_eq!(samples["chat_uptime_seconds"], 4.005);
        assert_eq!((samples["chat_redis_up"], samples["chat_redis_unreadable_total"]), (1.0, 2.0));
        assert_eq!(samples["chat_store_failures_total{reason=\"not_replicated\"}"], 7.0);
    }

    #[test]
    fn sessions_and_connections_can_be_asked() {
        let metrics = metrics();
        metrics.connection_opened();
        metrics.opened(Transport::Polling);
        metrics.opened(Transport::Polling);
        metrics.upgraded();
        assert_eq!(metrics.connections(), 1);
        assert_eq!(metrics.sessions(Transport::Polling), 1);
        assert_eq!(metrics.sessions(Transport::WebSocket), 1);
    }

    #[test]
    fn refusals_index_their_own_list_under_different_names() {
        let mut names = HashSet::new();
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index, "{refusal:?}");
            assert!(names.insert(refusal.as_str()), "{refusal:?}");
        }
    }

    #[test]
    fn resident_memory_is_read_or_left_out() {
        let cases = [
            ("Name:\tchat\nVmRSS:\t    1234 kB\nThreads:\t3\n", Some(1_263_616)),
            ("Name:\tchat\n", None),
            ("VmRSS:\t many kB\n", None),
            ("VmRSS:\t18446744073709551615 kB\n", None),
        ];
        for (status, expected) in cases {
            assert_eq!(parse_resident_bytes(status), expected, "{status:?}");
        }
    }
}
