//! Connections to one Redis: commands on one, published messages on another, each owned by a task that keeps it up.
//!
//! Calls are queued, written in batches, and answered in order; what ends a connection, what is then sent again and
//! what is not, and when a call is given up is decided here. What commands and answers mean is left to whoever makes the
//! calls. Nothing here starts a thread or an executor: tasks are handed to the caller's.
//!
//! Start at [`Redis`]; `commands.rs` is what its tasks do, `subscriber.rs` the other connection.

mod address;
mod call;
mod commands;
pub mod reply;
mod resp;
mod server;
mod subscriber;
mod wire;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    slice,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures_rustls::TlsConnector;
use redis::Value;
use smol::{Timer, future::FutureExt as _};

pub use self::{
    address::{Address, AddressError},
    call::{Call, CallError, Script},
    subscriber::{Listener, SubscribeError, Subscriber},
};
use self::{
    call::{Answer, Slot},
    commands::{Kind, Lane},
};

/// The connections for commands. Cheap to clone.
#[derive(Clone)]
pub struct Redis(Arc<Shared>);

/// Where to connect, and the limits.
#[derive(Clone)]
pub struct Settings {
    /// The server.
    pub address: Address,
    /// For `rediss://`; a connection that needs it is refused without.
    pub tls: Option<TlsConnector>,
    /// Shown in `CLIENT LIST`. Without spaces. Default `chat-service`.
    pub client_name: Box<str>,
    /// Replicas that must have what a [`Call::replicated`] did. Default 0.
    pub min_replicas: u32,
    /// For name look-up, connecting and TLS. Default 2 s.
    pub connect_timeout: Duration,
    /// How long the server may be silent while an answer is due. Default 4 s.
    pub io_timeout: Duration,
    /// How long commands may pause before a PING. Default 10 s.
    pub ping_interval: Duration,
    /// How long published messages may pause before a PING. Default 5 s.
    pub subscriber_ping_interval: Duration,
    /// Calls that wait for their answers on one connection; more are [`CallError::Full`]. Default 10 000.
    pub max_calls: usize,
    /// Bytes of these calls. Default 64 MiB.
    pub max_bytes: usize,
    /// Longest reply; a longer one ends the connection. Default 64 MiB.
    pub max_reply_bytes: usize,
    /// Longest published message; a longer one is left out and counted. Default 1 MiB.
    pub max_message_bytes: usize,
}

impl Settings {
    /// The defaults.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            tls: None,
            client_name: "chat-service".into(),
            min_replicas: 0,
            connect_timeout: Duration::from_secs(2),
            io_timeout: Duration::from_secs(4),
            ping_interval: Duration::from_secs(10),
            subscriber_ping_interval: Duration::from_secs(5),
            max_calls: 10_000,
            max_bytes: 64 << 20,
            max_reply_bytes: 64 << 20,
            max_message_bytes: 1 << 20,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A new connection for commands stands; only [`Call::early`] calls are sent until it is admitted by its number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connected {
    /// Never the same twice.
    pub connection: u64,
    /// Names one life of the server's process.
    pub run_id: Box<str>,
    /// The server's clock minus ours.
    pub offset_ms: i64,
}

/// How it stands with the connections for commands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// There is none, or not all of them.
    Connecting,
    /// They stand.
    Connected {
        /// Whether [`Redis::admit`] was called for it.
        admitted: bool,
    },
    /// The server answers, but cannot be used: why. Tried again all the time.
    Refused(Box<str>),
}

/// What was counted since the start.
#[derive(Default, Debug)]
pub struct Counters {
    /// Calls not taken, because too many waited.
    pub full: AtomicU64,
    /// Calls written, some of them more than once.
    pub written: AtomicU64,
    /// Batches in which they were written.
    pub batches: AtomicU64,
    /// Calls whose time was over before their answer.
    pub expired: AtomicU64,
    /// Connections for commands after each one's first.
    pub reconnects: AtomicU64,
    /// Connections that were ended because the server was silent.
    pub timeouts: AtomicU64,
    /// Connections for messages after the first.
    pub subscriber_reconnects: AtomicU64,
    /// Messages handed on.
    pub messages: AtomicU64,
    /// Messages left out for their size.
    pub messages_too_large: AtomicU64,
    /// Messages dropped because their channel is not UTF-8.
    pub messages_bad_channel: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, count: usize) {
        // ORDERING: Relaxed. Only for the metrics; nothing is decided by it.
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Redis {
    /// Starts the tasks, which run for ever. `connected` is called on one of them, and must be quick.
    pub fn start(
        settings: Settings,
        connected: impl Fn(Connected) + Send + Sync + 'static,
        spawn: impl Fn(Pin<Box<dyn Future<Output = ()> + Send>>),
    ) -> Self {
        let shared = Arc::new(Shared {
            lanes: [Kind::Commands, Kind::Replicated, Kind::Blocking].map(Lane::new),
            settings,
            on_connected: Box::new(connected),
            counters: Arc::default(),
            admission: Mutex::new(Admission { away_since: Some(Instant::now()), ..Admission::default() }),
            states: Mutex::new([const { State::Connecting }; LANES]),
            deadlines: Signal::default(),
            subscribers: Mutex::default(),
            reason: Mutex::default(),
        });
        for kind in [Kind::Commands, Kind::Replicated, Kind::Blocking] {
            if kind != Kind::Replicated || shared.settings.min_replicas > 0 {
                let shared = Arc::clone(&shared);
                spawn(Box::pin(async move { commands::run(&shared, kind).await }));
            }
        }
        let deadlines = Arc::clone(&shared);
        spawn(Box::pin(async move { deadlines.watch_deadlines().await }));
        Self(shared)
    }

    /// Makes a call, at once; the future is its answer. If that is dropped before the call is written, it never is. While
    /// there has been no connection for as long as the call may wait, it is [`CallError::Away`] at once.
    pub fn call(&self, call: Call) -> impl Future<Output = Result<Value, CallError>> + Send + use<> {
        let kind = self.0.kind(&call);
        self.0.make(kind, call)
    }

    /// Makes calls in one batch, as far as buffers allow, and waits for all the answers, which are in the calls' order.
    /// If they do not all fit, none is made.
    pub fn calls(&self, calls: Vec<Call>) -> impl Future<Output = Vec<Result<Value, CallError>>> + Send + use<> {
        let mut answers: Vec<Option<Answer>> = calls.iter().map(|_| None).collect();
        let mut calls: Vec<(Kind, usize, Call)> =
            calls.into_iter().enumerate().map(|(at, call)| (self.0.kind(&call), at, call)).collect();
        for kind in [Kind::Commands, Kind::Replicated] {
            let (here, others): (Vec<_>, Vec<_>) = calls.into_iter().partition(|(of, _, _)| *of == kind);
            calls = others;
            let (places, here): (Vec<usize>, Vec<Call>) = here.into_iter().map(|(_, at, call)| (at, call)).unzip();
            for (at, answer) in places.into_iter().zip(self.0.make_all(kind, here)) {
                if let Some(place) = answers.get_mut(at) {
                    *place = Some(answer);
                }
            }
        }
        async move {
            let mut outcomes = Vec::with_capacity(answers.len());
            for answer in answers {
                outcomes.push(match answer {
                    Some(answer) => answer.await,
                    None => Err(CallError::Away),
                });
            }
            outcomes
        }
    }

    /// Makes a call that the server answers late, such as `XREADGROUP … BLOCK`, on a connection for these, one after the
    /// other. [`Call::within`] must be longer than what the server is told to wait.
    pub fn block(&self, call: Call) -> impl Future<Output = Result<Value, CallError>> + Send + use<> {
        self.0.make(Kind::Blocking, call)
    }

    /// Lets all calls pass on this connection, and says what [`Call::life`] is from now on. False: the connection is
    /// another by now, and nothing was changed.
    pub fn admit(&self, connection: u64, life: u64) -> bool {
        {
            let mut admission = lock(&self.0.admission);
            if admission.connection != connection || admission.run_id.is_none() {
                return false;
            }
            admission.admitted = true;
            admission.away_since = None;
            admission.life = life;
        }
        self.0.wake_all();
        true
    }

    /// How it stands.
    pub fn state(&self) -> State {
        let states = lock(&self.0.states);
        let needed = if self.0.settings.min_replicas > 0 { 2 } else { 1 };
        // The first that stands in the way. The connection for calls that block is not needed by anything else.
        let worst = states.iter().take(needed).find(|state| !matches!(state, State::Connected { .. }));
        match worst {
            Some(state) => state.clone(),
            None => State::Connected { admitted: lock(&self.0.admission).admitted },
        }
    }

    /// What was counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// Starts the connection for published messages: `patterns` for good, channels as they are asked for.
    pub fn subscriber(
        &self,
        patterns: Vec<Arc<str>>,
        listener: impl Listener,
        spawn: impl Fn(Pin<Box<dyn Future<Output = ()> + Send>>),
    ) -> Subscriber {
        Subscriber::start(&self.0, patterns, listener, spawn)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({}, {:?})", self.0.settings.address, self.state())
    }
}

const LANES: usize = 3;

/// What all tasks know.
///
/// No two of its locks are ever held together, except that `state` takes `admission` inside `states`.
struct Shared {
    settings: Settings,
    on_connected: Box<dyn Fn(Connected) + Send + Sync>,
    counters: Arc<Counters>,
    lanes: [Lane; LANES],
    admission: Mutex<Admission>,
    states: Mutex<[State; LANES]>,
    /// There is an earlier deadline than before.
    deadlines: Signal,
    /// Who is to be told that the server is another.
    subscribers: Mutex<Vec<Arc<Signal>>>,
    /// What the log was told last.
    reason: Mutex<Option<Box<str>>>,
}

/// Of the connection for commands; the others follow it.
#[derive(Default)]
struct Admission {
    /// Its number, also when it has ended.
    connection: u64,
    /// None: there is no connection.
    run_id: Option<Box<str>>,
    admitted: bool,
    life: u64,
    /// Since when only early calls are sent, or none.
    away_since: Option<Instant>,
}

/// Which calls may be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Open {
    None,
    Early,
    All,
    /// None, and never any more: the connection for commands has gone to another server.
    Elsewhere,
}

impl Shared {
    fn lane(&self, kind: Kind) -> &Lane {
        let [commands, replicated, blocking] = &self.lanes;
        match kind {
            Kind::Commands => commands,
            Kind::Replicated => replicated,
            Kind::Blocking => blocking,
        }
    }

    fn kind(&self, call: &Call) -> Kind {
        if call.replicated && self.settings.min_replicas > 0 { Kind::Replicated } else { Kind::Commands }
    }

    fn make(&self, kind: Kind, call: Call) -> Answer {
        let slot = Slot::new();
        self.push(kind, [call], slice::from_ref(&slot));
        Answer(slot)
    }

    fn make_all(&self, kind: Kind, calls: Vec<Call>) -> Vec<Answer> {
        let slots: Vec<Arc<Slot>> = calls.iter().map(|_| Slot::new()).collect();
        if !slots.is_empty() {
            self.push(kind, calls, &slots);
        }
        slots.into_iter().map(Answer).collect()
    }

    /// Queues calls with the places of their outcomes; if they are not taken, that is the outcome of each.
    fn push(&self, kind: Kind, calls: impl AsRef<[Call]> + IntoIterator<Item = Call>, slots: &[Arc<Slot>]) {
        let refusal = if self.has_been_away(calls.as_ref()) {
            Some(CallError::Away)
        } else {
            match self.lane(kind).push(&self.settings, calls, slots, Instant::now()) {
                commands::Pushed::Full => {
                    Counters::add(&self.counters.full, slots.len());
                    Some(CallError::Full)
                }
                commands::Pushed::EarlierDeadline => {
                    self.deadlines.notify();
                    None
                }
                commands::Pushed::Done => None,
            }
        };
        if let Some(refusal) = refusal {
            for slot in slots {
                slot.put(Err(refusal.clone()));
            }
        }
    }

    /// Ends calls whose time is over.
    async fn watch_deadlines(&self) {
        loop {
            match self.lanes.iter().filter_map(Lane::next_deadline).min() {
                None => self.deadlines.wait().await,
                Some(at) => {
                    let timer = async {
                        Timer::at(at).await;
                    };
                    self.deadlines.wait().or(timer).await;
                }
            }
            let now = Instant::now();
            for lane in &self.lanes {
                Counters::add(&self.counters.expired, lane.expire(now));
            }
        }
    }

    /// What a connection to the server of this name may write, and the life to write.
    fn open(&self, run_id: &str) -> (Open, u64) {
        let admission = lock(&self.admission);
        let open = match &admission.run_id {
            None => Open::None,
            Some(current) if **current != *run_id => Open::Elsewhere,
            Some(_) if admission.admitted => Open::All,
            Some(_) => Open::Early,
        };
        (open, admission.life)
    }

    /// The connection for commands stands. Returns its number.
    fn connected(&self, run_id: &str) -> u64 {
        let mut admission = lock(&self.admission);
        admission.connection += 1;
        admission.run_id = Some(run_id.into());
        admission.admitted = false;
        let connection = admission.connection;
        drop(admission);
        self.wake_all();
        connection
    }

    /// Whether nothing could be sent for longer than these calls may wait: those that come one after the other do not
    /// each wait for their whole time.
    fn has_been_away(&self, calls: &[Call]) -> bool {
        let Some(since) = lock(&self.admission).away_since else { return false };
        calls.iter().all(|call| !call.early && since.elapsed() >= call.time)
    }

    /// The connection for commands has ended.
    fn lost(&self) {
        let mut admission = lock(&self.admission);
        admission.away_since.get_or_insert_with(Instant::now);
        admission.run_id = None;
        admission.admitted = false;
    }

    fn wake_all(&self) {
        for lane in &self.lanes {
            lane.wake();
        }
        let subscribers = lock(&self.subscribers).clone();
        for subscriber in subscribers {
            subscriber.notify();
        }
    }

    fn tell(&self, connected: Connected) {
        // A panic has told the log by itself, and must not end the task.
        _ = catch_unwind(AssertUnwindSafe(|| (self.on_connected)(connected)));
    }

    fn set_state(&self, kind: Kind, state: State) {
        if let Some(place) = lock(&self.states).get_mut(kind as usize) {
            *place = state;
        }
    }

    /// Tells the log why there is no connection, if it is another reason than the last one: all connections go to one
    /// server, and try again and again.
    fn report(&self, reason: &str) {
        let mut last = lock(&self.reason);
        if last.as_deref() != Some(reason) {
            *last = Some(reason.into());
            drop(last);
            log::warn!("Redis at {} cannot be used: {reason}; trying again", self.settings.address);
        }
    }

    /// There is a connection for commands again: the next trouble is news.
    fn report_success(&self, version: &str) {
        *lock(&self.reason) = None;
        log::info!("Redis {version} at {} is connected", self.settings.address);
    }
}

/// Wakes one task. Does not forget: a notification while nobody waits ends the next wait at once.
#[derive(Default)]
struct Signal(Mutex<(bool, Option<Waker>)>);

impl Signal {
    fn notify(&self) {
        let waker = {
            let mut content = lock(&self.0);
            content.0 = true;
            content.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether it was notified since the last time. If not, the task is woken when it is.
    fn take(&self, cx: &Context<'_>) -> bool {
        let mut content = lock(&self.0);
        if content.0 {
            content.0 = false;
            return true;
        }
        content.1 = Some(cx.waker().clone());
        false
    }

    async fn wait(&self) {
        std::future::poll_fn(|cx| if self.take(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
