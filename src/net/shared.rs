//! What all connections of one server share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use smol::Executor;

use crate::{
    engine,
    http::{AllowedOrigins, HeadLimits},
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
    /// Which pages may connect.
    pub cors: AllowedOrigins,
}

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
        Self {
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

    /// The sessions of this moment.
    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.pin().values().cloned().collect()
    }
}

/// Counts a connection for as long as it lives.
pub(super) struct Admission(Arc<Shared>);

impl Admission {
    /// Counts one more, and says how many there were before.
    pub(super) fn new(shared: &Arc<Shared>) -> (Self, usize) {
        // ORDERING: Relaxed. A gauge, and a limit that several acceptors may pass by one each.
        let before = shared.connections.fetch_add(1, Ordering::Relaxed);
        shared.metrics.connection_opened();
        (Self(Arc::clone(shared)), before)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.connection_closed();
    }
}
