//! What all connections of one server share.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use smol::Executor;

use crate::{
    engine,
    http::{AllowedOrigins, HeadLimits, TrustedProxies},
    limits::{Address, AddressLimits, ByAddress, Rate},
    metrics::Metrics,
    net::{Application, Pages, session::Session, timers::Timers},
    types::SessionId,
};

/// Everything that connections need to know of one another and of the server.
pub struct Shared {
    pub(super) settings: Settings,
    pub(super) metrics: Arc<Metrics>,
    pub(super) executor: Arc<Executor<'static>>,
    pub(super) app: Box<dyn Application>,
    pub(super) pages: Box<dyn Pages>,
    pub(super) timers: Timers,
    /// Sessions by id, those that wait to tell their client of the close included.
    pub(super) sessions: papaya::HashMap<SessionId, Arc<Session>>,
    /// TCP connections that are open.
    pub(super) connections: AtomicUsize,
    /// Refused TCP connections that are given time to read why.
    pub(super) lingering: AtomicUsize,
    /// Sessions by the client's address.
    pub(super) sessions_by_address: ByAddress,
    /// TCP connections by the peer's address, those of trusted proxies left out.
    connections_by_address: ByAddress,
    /// Where the limits' clock begins, which is monotonic.
    started_at: Instant,
    draining: AtomicBool,
}

/// How connections behave. Nothing here changes after the start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Requests whose path begins so are Engine.IO's. Ends with a slash. `None`: there is no Engine.IO here.
    pub path: Option<Box<str>>,
    /// What becomes of WebSocket upgrades.
    pub websocket: WebSocketMode,
    /// Timing and limits of sessions.
    pub engine: engine::Settings,
    /// Bytes queued for one client before it is closed as too slow.
    pub outbox_max_bytes: usize,
    /// What a request head may be.
    pub head: HeadLimits,
    /// How long a request head may take, from its first byte or the connection's start.
    pub head_timeout: Duration,
    /// How long a body may take.
    pub body_timeout: Duration,
    /// How long a connection may stand idle between two requests.
    pub keep_alive_timeout: Duration,
    /// The largest body of a request that is not Engine.IO's, in bytes.
    pub max_body: usize,
    /// TCP connections at a time, and sessions; further ones are told 503. `None`: no limit but the descriptors.
    pub max_connections: Option<usize>,
    /// Sessions at a time of one address; further ones are told 429. And TCP connections, [`TCP_PER_SESSION`] times as
    /// many, which are told 503. `None`: no limit.
    pub max_connections_per_ip: Option<u32>,
    /// How fast one address may open sessions. `None`: no limit.
    pub connect_rate: Option<Rate>,
    /// Bytes that one session may send. Over it, it is not refused anything: nothing more is read from it until the rate
    /// allows, so that TCP slows the client down. `None`: no limit.
    pub input_rate: Option<Rate>,
    /// Whose `X-Forwarded-For` says who the client is.
    pub trusted_proxies: TrustedProxies,
    /// Which pages may connect.
    pub cors: AllowedOrigins,
}

/// TCP connections that an address may have for each of its sessions: a poll is parked on one while a post goes through
/// another.
pub const TCP_PER_SESSION: u32 = 2;

/// What becomes of WebSocket upgrades.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WebSocketMode {
    /// Engine.IO, under its path.
    Engine,
    /// A bare RFC 6455 echo under every path, for the public WebSocket suites.
    Echo,
}

impl Shared {
    /// A server's common part, without connections.
    pub fn new(
        settings: Settings,
        metrics: Arc<Metrics>,
        executor: Arc<Executor<'static>>,
        app: Box<dyn Application>,
        pages: Box<dyn Pages>,
    ) -> Self {
        let per_ip = settings.max_connections_per_ip.unwrap_or(0);
        let by_address = |places, rate| ByAddress::new(AddressLimits { places, rate });
        Self {
            sessions_by_address: by_address(per_ip, settings.connect_rate.unwrap_or(Rate::OFF)),
            connections_by_address: by_address(per_ip.saturating_mul(TCP_PER_SESSION), Rate::OFF),
            started_at: Instant::now(),
            lingering: AtomicUsize::new(0),
            settings,
            metrics,
            timers: Timers::new(&executor),
            executor,
            app,
            pages,
            sessions: papaya::HashMap::new(),
            connections: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
        }
    }

    /// From now on handshakes are refused with 503, and HTTP connections close after their answer.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the server is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Runs this server's tasks.
    pub fn executor(&self) -> &Arc<Executor<'static>> {
        &self.executor
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// How many TCP connections there are.
    pub fn connection_count(&self) -> usize {
        // ORDERING: Relaxed. A gauge.
        self.connections.load(Ordering::Relaxed)
    }

    /// Bytes that wait for all clients together. Walks over all sessions: for a look at the metrics, not for a hot path.
    pub fn outbox_bytes(&self) -> usize {
        self.sessions.pin().values().map(|session| session.outbox().queued_bytes()).sum()
    }

    /// Bytes that wait for the client for whom most do.
    pub fn outbox_bytes_max(&self) -> usize {
        self.sessions.pin().values().map(|session| session.outbox().queued_bytes()).max().unwrap_or(0)
    }

    /// A moment as the limits take it.
    pub(super) fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started_at).as_millis() as u64
    }

    /// The sessions of this moment.
    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.pin().values().cloned().collect()
    }
}

/// Counts a connection for as long as it lives.
pub(super) struct Admission {
    shared: Arc<Shared>,
    /// Whose it is, if that is counted.
    address: Option<Address>,
}

/// What to do with a connection that was accepted.
pub(super) enum Verdict {
    Welcome,
    /// There are as many as there may be.
    Full,
    /// The peer has as many as it may have.
    PeerFull,
}

impl Admission {
    /// Counts one more, welcome or not.
    pub(super) fn new(shared: &Arc<Shared>, peer: IpAddr) -> (Self, Verdict) {
        // ORDERING: Relaxed. A gauge, and a limit that several acceptors may pass by one each.
        let before = shared.connections.fetch_add(1, Ordering::Relaxed);
        shared.metrics.connection_opened();
        let mut admission = Self { shared: Arc::clone(shared), address: None };
        let Settings { max_connections, trusted_proxies, .. } = &shared.settings;
        if max_connections.is_some_and(|limit| before >= limit) {
            return (admission, Verdict::Full);
        }
        if !trusted_proxies.contains(peer) {
            // Without a rate the time means nothing.
            match shared.connections_by_address.enter(peer.into(), 0) {
                Ok(place) => admission.address = place.keep(),
                Err(_) => return (admission, Verdict::PeerFull),
            }
        }
        (admission, Verdict::Welcome)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            self.shared.connections_by_address.leave(address);
        }
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.shared.metrics.connection_closed();
    }
}
