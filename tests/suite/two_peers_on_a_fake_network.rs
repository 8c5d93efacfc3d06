//! Promise: whatever the network does to a stock client, messages arrive exactly once and in order, both ways, through
//! polling, upgrade and WebSocket; and no session outlives its deadlines or leaves anything behind.
//!
//! Our state machines and a model of a stock client, joined by a network that delays, batches, cuts at any byte and
//! reorders between transports. The clock is a number, the chance a seed: a failure names the seed that repeats it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, Weak},
    task::Waker,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chat_service::{
    engine::{Due, Message, Packet, PollAnswer, ProbeStep, Received, Session, Settings, payload},
    outbox::{Frame, Outbox, Slot},
    socket::{Connection, Limits, Namespaces, Socket, WeakSocket},
    types::{CloseReason, Handshake, SessionId, Transport},
};

const SEEDS: u64 = 3000;
const MESSAGES: u32 = 24;
const SETTINGS: Settings = Settings {
    ping_interval: Duration::from_secs(25),
    ping_timeout: Duration::from_secs(20),
    upgrade_timeout: Duration::from_secs(10),
    max_payload: 65_536,
};
/// The longest a session can be there after its client has gone silent: the ping, its pong, and the linger time.
const LONGEST_END: Duration = Duration::from_secs(25 + 20 + 30);
const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn messages_arrive_exactly_once_and_in_order() {
    let mut coverage = Coverage::default();
    for seed in 0..SEEDS {
        let mut sim = Sim::new(seed);
        sim.schedule_messages();
        sim.run_for(Duration::from_secs(20));
        let expected: Vec<u32> = (0..MESSAGES).collect();
        assert_eq!(sim.log.lock().unwrap().up, expected, "seed {seed}: client to server");
        assert_eq!(sim.client.received, expected, "seed {seed}: server to client");
        assert!(!sim.server.engine.is_closed(), "seed {seed}");
        assert!(sim.server.outbox.is_empty() && sim.server.outbox.queued_bytes() == 0, "seed {seed}");
        coverage.count(&sim);

        // Then it is silent, and must be gone in time.
        sim.client.is_silent = true;
        let pong_at = sim.server.pong_at;
        sim.run_for(LONGEST_END);
        assert_eq!(sim.server.closed, Some((CloseReason::PingTimeout, pong_at + TIMEOUT)), "seed {seed}");
        sim.assert_nothing_is_left();
    }
    coverage.assert_complete();
}

/// From a pong to the end of a client that sends no other.
const TIMEOUT: Duration = Duration::from_secs(45);

#[test]
fn a_close_at_any_step_leaves_nothing() {
    let mut reasons = [0; CloseReason::ALL.len()];
    for seed in 0..SEEDS {
        let mut sim = Sim::new(seed);
        sim.schedule_messages();
        let steps = sim.random.usize(..250);
        for _ in 0..steps {
            if !sim.step(sim.start + Duration::from_secs(20)) {
                break;
            }
        }
        sim.close_somehow();
        let from = sim.now;
        sim.run_for(LONGEST_END);
        let (reason, at) = sim.server.closed.unwrap_or_else(|| panic!("seed {seed}: still there"));
        assert!(at <= from + TIMEOUT, "seed {seed}: {reason:?} after {:?}", at - from);
        reasons[reason as usize] += 1;
        let received = sim.log.lock().unwrap().up.clone();
        assert!(received.iter().copied().eq(0..received.len() as u32), "seed {seed}: {received:?}");
        let received = sim.client.received.clone();
        assert!(received.iter().copied().eq(0..received.len() as u32), "seed {seed}: {received:?}");
        sim.assert_nothing_is_left();
    }
    for reason in [
        CloseReason::TransportClose,
        CloseReason::TransportError,
        CloseReason::PingTimeout,
        CloseReason::ParseError,
        CloseReason::ServerClose,
        CloseReason::SlowConsumer,
    ] {
        assert!(reasons[reason as usize] > 50, "{reason:?} only {} times", reasons[reason as usize]);
    }
}

#[test]
fn answered_heartbeats_keep_a_session_for_a_day() {
    for (seed, upgrades) in [(1, false), (2, true), (3, false), (4, true)] {
        let mut sim = Sim::new(seed);
        sim.plan = Plan { upgrade_at: upgrades.then_some(Duration::from_millis(50)), ..Plan::default() };
        sim.begin();
        sim.run_for(DAY);
        assert!(!sim.server.engine.is_closed(), "seed {seed}");
        let transport = if upgrades { Transport::WebSocket } else { Transport::Polling };
        assert_eq!(sim.server.engine.transport(), transport);
        // Every interval and the way there and back, which is well under a second.
        assert!((DAY.as_secs() / 26..=DAY.as_secs() / 25).contains(&sim.server.pings), "{} pings", sim.server.pings);
    }
}

#[test]
fn an_unanswered_heartbeat_ends_a_session_at_interval_plus_timeout() {
    for seed in 0..200 {
        let mut sim = Sim::new(seed);
        sim.run_for(Duration::from_secs(1 + seed));
        assert!(!sim.server.engine.is_closed(), "seed {seed}");
        sim.client.is_silent = true;
        // What is on its way may still be a pong.
        sim.run_for(Duration::from_secs(2));
        let due = sim.server.pong_at + TIMEOUT;
        sim.run_until(due - Duration::from_nanos(1));
        assert!(!sim.server.engine.is_closed(), "seed {seed}: too early");
        sim.run_until(due);
        assert_eq!(sim.server.closed, Some((CloseReason::PingTimeout, due)), "seed {seed}");
    }
}

/// That the seeds led everywhere.
#[derive(Default)]
struct Coverage {
    on_polling: u32,
    on_websocket: u32,
    held: u32,
    given_up: u32,
    timed_out: u32,
    noops: u32,
    sent_while_upgrading: u32,
}

impl Coverage {
    fn count(&mut self, sim: &Sim) {
        match sim.server.engine.transport() {
            Transport::Polling => self.on_polling += 1,
            Transport::WebSocket => self.on_websocket += 1,
        }
        self.held += u32::from(sim.server.seen.held);
        self.given_up += u32::from(sim.server.seen.given_up);
        self.timed_out += u32::from(sim.server.seen.timed_out);
        self.noops += u32::from(sim.server.seen.noop);
        self.sent_while_upgrading += u32::from(sim.server.seen.sent_while_upgrading);
    }

    fn assert_complete(&self) {
        let Self { on_polling, on_websocket, held, given_up, timed_out, noops, sent_while_upgrading } = *self;
        for (name, count) in [
            ("on polling at the end", on_polling),
            ("on a WebSocket at the end", on_websocket),
            ("upgrade held by a POST", held),
            ("upgrade given up by the client", given_up),
            ("upgrade timed out", timed_out),
            ("noop", noops),
            ("taken by a GET in an upgrade", sent_while_upgrading),
        ] {
            println!("{name}: {count}");
            assert!(count > 50, "{name}: only {count} of {SEEDS}");
        }
    }
}

/// What goes from peer to peer, or a moment at which one of them does something of its own.
#[derive(Debug)]
enum Event {
    // To the server.
    Get(u32),
    PostBytes {
        id: u32,
        bytes: Vec<u8>,
        is_last: bool,
    },
    Open(u32),
    Up {
        ws: u32,
        message: Wire,
    },
    UpCut(u32),
    // To the client.
    GetBytes {
        id: u32,
        bytes: Vec<u8>,
        is_last: bool,
    },
    Posted {
        id: u32,
        is_ok: bool,
    },
    Opened(u32),
    DownBytes {
        ws: u32,
        bytes: Vec<u8>,
    },
    DownCut(u32),
    // To themselves.
    /// The task of the parked GET, or of the WebSocket, gets its turn.
    ServerTask,
    ServerEmits(u32),
    ClientSends(u32),
    ClientUpgrades,
    ClientTries,
}

/// A packet of the client.
#[derive(Clone, Debug, PartialEq)]
enum Wire {
    Text(String),
    Binary(Vec<u8>),
}

/// In which order a way keeps things: each transport for itself, and each direction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Way {
    GetUp,
    GetDown,
    PostUp,
    PostDown,
    WsUp(u32),
    WsDown(u32),
}

/// What this seed's client does.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    upgrade_at: Option<Duration>,
    /// Sends `5` right behind `2probe`, even while its POST is being read.
    is_eager: bool,
    /// Hangs up the first WebSocket before it has been taken.
    gives_up: bool,
    /// Never probes on the first WebSocket.
    forgets: bool,
}

struct Sim {
    seed: u64,
    random: fastrand::Rng,
    start: Instant,
    now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    scheduled: u64,
    ways: HashMap<Way, Instant>,
    /// The network's mood: the longest a piece can take, in ms.
    slowest_ms: u64,
    plan: Plan,
    server: Server,
    client: Client,
    log: Arc<Mutex<Log>>,
}

/// What the application saw.
#[derive(Default)]
struct Log {
    up: Vec<u32>,
    joined: Option<WeakSocket>,
    connects: u32,
    disconnects: u32,
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let start = Instant::now();
        let log = Arc::new(Mutex::new(Log::default()));
        let kind = random.u8(..10);
        let plan = Plan {
            upgrade_at: (kind > 0).then(|| Duration::from_millis(random.u64(..600))),
            is_eager: (1..=4).contains(&kind),
            gives_up: kind == 5,
            forgets: kind == 6,
        };
        let slowest_ms = [2, 20, 150][random.usize(..3)];
        let server = Server::new(&log, start);
        let mut sim = Self {
            seed,
            random,
            start,
            now: start,
            events: BTreeMap::new(),
            scheduled: 0,
            ways: HashMap::new(),
            slowest_ms,
            plan,
            server,
            client: Client::default(),
            log,
        };
        sim.begin();
        sim
    }

    /// Begins anew, with the handshake: a GET that is answered at once.
    fn begin(&mut self) {
        self.events.clear();
        self.client = Client { is_eager: self.plan.is_eager, ..Client::default() };
        let mut open = Vec::new();
        self.server = Server::new(&self.log, self.start);
        for frame in self.server.outbox.take_all() {
            payload::encode(&frame, &mut open);
        }
        self.client.get = Some(0);
        self.send_pieces(Way::GetDown, open, |bytes, is_last| Event::GetBytes { id: 0, bytes, is_last });
        if let Some(after) = self.plan.upgrade_at {
            self.at(self.start + after, Event::ClientUpgrades);
        }
    }

    /// Numbered messages both ways, some alone and some in bursts.
    fn schedule_messages(&mut self) {
        for number in 0..MESSAGES {
            for event in [Event::ServerEmits(number), Event::ClientSends(number)] {
                let burst = u64::from(number) / 4 * 150;
                let after = if self.random.bool() { burst } else { u64::from(number) * 37 + 1 };
                // In order all the same: each waits for the one before.
                let way =
                    if matches!(event, Event::ServerEmits(_)) { Way::WsDown(u32::MAX) } else { Way::WsUp(u32::MAX) };
                let at = self.start + Duration::from_millis(400 + after);
                let at = self.ways.get(&way).map_or(at, |last| at.max(*last));
                self.ways.insert(way, at);
                self.at(at, event);
            }
        }
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.scheduled += 1;
        self.events.insert((at.max(self.now), self.scheduled), event);
    }

    fn send(&mut self, way: Way, event: Event) {
        let delay = Duration::from_micros(self.random.u64(..=self.slowest_ms * 1000));
        let at = (self.now + delay).max(self.ways.get(&way).copied().unwrap_or(self.now));
        self.ways.insert(way, at);
        self.at(at, event);
    }

    /// Sends bytes in pieces that are cut anywhere.
    fn send_pieces(&mut self, way: Way, bytes: Vec<u8>, event: impl Fn(Vec<u8>, bool) -> Event) {
        let mut rest = bytes;
        loop {
            let length = if self.random.bool() { rest.len() } else { self.random.usize(..=rest.len()) };
            let left = rest.split_off(length);
            let is_last = left.is_empty();
            self.send(way, event(rest, is_last));
            if is_last {
                return;
            }
            rest = left;
        }
    }

    fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    fn run_until(&mut self, until: Instant) {
        while self.step(until) {}
        self.now = until;
    }

    /// Goes on to the next thing that happens, if that is not later than `until`.
    fn step(&mut self, until: Instant) -> bool {
        let event_at = self.events.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = self.server.next_deadline().into_iter().chain(event_at).min() else { return false };
        if next > until {
            return false;
        }
        assert!(next >= self.now, "seed {}: a deadline was let pass", self.seed);
        self.now = next;
        if self.server.next_deadline() == Some(next) {
            self.server.handle_timeout(next);
            assert!(
                self.server.next_deadline().is_none_or(|later| later > next),
                "seed {}: due and not done",
                self.seed
            );
        } else if let Some((_, event)) = self.events.pop_first() {
            self.handle(event);
        }
        self.let_server_react();
        self.let_client_react();
        true
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Get(id) => {
                if !self.server.get(id, now) {
                    self.send_pieces(Way::GetDown, b"!".to_vec(), move |bytes, is_last| Event::GetBytes {
                        id,
                        bytes,
                        is_last,
                    });
                }
            }
            Event::PostBytes { id, bytes, is_last } => {
                if let Some(is_ok) = self.server.post(id, &bytes, is_last, now) {
                    self.send(Way::PostDown, Event::Posted { id, is_ok });
                }
            }
            Event::Open(ws) => {
                if self.server.open_websocket(ws, now) {
                    self.send(Way::WsDown(ws), Event::Opened(ws));
                } else {
                    self.send(Way::WsDown(ws), Event::DownCut(ws));
                }
            }
            Event::Up { ws, message } => self.server.receive(ws, message, now),
            Event::UpCut(ws) => self.server.lose_websocket(ws, now),
            Event::ServerTask => {
                self.server.task_scheduled = false;
                self.run_server_task();
            }
            Event::ServerEmits(number) => self.server.emit(number),
            Event::GetBytes { id, bytes, is_last } => self.client.get_bytes(id, &bytes, is_last),
            Event::Posted { id, is_ok } => self.client.posted(id, is_ok),
            Event::Opened(ws) => self.client_opened(ws),
            Event::DownBytes { ws, bytes } => self.client.bytes(ws, &bytes),
            Event::DownCut(ws) => self.client.lost(ws),
            Event::ClientSends(number) => self.client.send(number),
            Event::ClientUpgrades => self.client_upgrades(),
            Event::ClientTries => {}
        }
    }

    /// Whoever waits on the server was woken; when it runs is up to its executor.
    fn let_server_react(&mut self) {
        self.server.settle(self.now);
        if !self.server.task_scheduled && self.server.has_work() {
            self.server.task_scheduled = true;
            let pause = Duration::from_micros(self.random.u64(..5000));
            self.at(self.now + pause, Event::ServerTask);
        }
        for ws in std::mem::take(&mut self.server.hung_up) {
            self.send(Way::WsDown(ws), Event::DownCut(ws));
        }
    }

    fn run_server_task(&mut self) {
        // Two tasks: who comes first is chance, and the other comes later.
        if self.random.bool() {
            if let Some((id, body)) = self.server.answer_get(self.now) {
                self.send_pieces(Way::GetDown, body, move |bytes, is_last| Event::GetBytes { id, bytes, is_last });
            }
        } else if let Some((ws, bytes)) = self.server.write() {
            self.send_pieces(Way::WsDown(ws), bytes, move |bytes, _| Event::DownBytes { ws, bytes });
        }
    }

    fn client_upgrades(&mut self) {
        let client = &mut self.client;
        if client.is_over || client.is_silent || !matches!(client.phase, Phase::Polling) {
            return;
        }
        client.last_ws += 1;
        let ws = client.last_ws;
        client.phase = Phase::Probing(ws);
        self.send(Way::WsUp(ws), Event::Open(ws));
        if self.plan.gives_up && ws == 1 {
            let after = self.now + Duration::from_millis(self.random.u64(..self.slowest_ms * 4));
            // Before it can have sent its `5`, which no client takes back.
            self.client.phase = Phase::GivingUp(ws);
            self.ways.insert(Way::WsUp(ws), after);
            if self.random.bool() {
                self.send(Way::WsUp(ws), Event::Up { ws, message: Wire::Text("2probe".into()) });
            }
            self.send(Way::WsUp(ws), Event::UpCut(ws));
            self.at(after + Duration::from_millis(700), Event::ClientUpgrades);
        }
    }

    fn client_opened(&mut self, ws: u32) {
        if self.client.phase == Phase::Probing(ws) && !self.client.is_silent && !(self.plan.forgets && ws == 1) {
            self.send(Way::WsUp(ws), Event::Up { ws, message: Wire::Text("2probe".into()) });
            self.client.is_probing = true;
        }
    }

    fn let_client_react(&mut self) {
        if self.client.is_over || self.client.is_silent {
            return;
        }
        if self.client.wants_retry {
            self.client.wants_retry = false;
            self.at(self.now + Duration::from_millis(300), Event::ClientUpgrades);
        }
        self.client_switches();
        self.client_flushes();
        if self.client.get.is_none() && self.client.polls() {
            self.client.last_id += 1;
            let id = self.client.last_id;
            self.client.get = Some(id);
            self.send(Way::GetUp, Event::Get(id));
        }
    }

    /// A stock client sends `5` when the probe is answered and both its requests are done. An eager one does not wait,
    /// but for its POST to be on the server: were it behind the `5`, even the reference would refuse it.
    fn client_switches(&mut self) {
        let ready = match self.client.phase {
            Phase::Upgrading(ws) if self.client.get.is_none() && self.client.post.is_none() => Some(ws),
            Phase::Probing(ws) if self.plan.is_eager && self.client.is_probing && self.client.is_connected => {
                // Better still with one under way.
                let is_read = self.client.post.is_some() && self.client.post == self.server.post_id();
                if !is_read && self.client.post.is_some() {
                    self.at(self.now + Duration::from_millis(1), Event::ClientTries);
                }
                (is_read || (self.client.post.is_none() && self.client.received.len() > 20)).then_some(ws)
            }
            _ => None,
        };
        if let Some(ws) = ready {
            self.client.phase = Phase::WebSocket(ws);
            self.client.is_probing = false;
            self.send(Way::WsUp(ws), Event::Up { ws, message: Wire::Text("5".into()) });
        }
    }

    fn client_flushes(&mut self) {
        match self.client.phase {
            Phase::Upgrading(_) => {}
            Phase::Polling | Phase::Probing(_) | Phase::GivingUp(_) => {
                if self.client.post.is_none() && !self.client.writing.is_empty() {
                    self.client.last_id += 1;
                    let id = self.client.last_id;
                    self.client.post = Some(id);
                    let body = join(self.client.writing.drain(..));
                    self.send_pieces(Way::PostUp, body, move |bytes, is_last| Event::PostBytes { id, bytes, is_last });
                }
            }
            Phase::WebSocket(ws) => {
                for message in std::mem::take(&mut self.client.writing) {
                    self.send(Way::WsUp(ws), Event::Up { ws, message });
                }
            }
        }
    }

    /// Ends the session in one of the ways in which sessions end.
    fn close_somehow(&mut self) {
        match self.random.u8(..6) {
            0 => self.server.outbox.close(CloseReason::ServerClose),
            1 => self.client.writing.push_back(Wire::Text("1".into())),
            2 => self.client.writing.push_back(Wire::Text("4abc".into())),
            3 => self.client.is_silent = true,
            4 => {
                self.client.is_silent = true;
                self.server.end(CloseReason::TransportError, self.now);
            }
            _ => {
                self.client.is_silent = true;
                let large = Frame::text(&format!("4{}", "x".repeat(OUTBOX_BYTES)));
                self.server.outbox.push(large);
            }
        }
        self.let_server_react();
        self.let_client_react();
    }

    /// The session is over: nothing of it may be alive but what this test itself holds.
    fn assert_nothing_is_left(self) {
        let Self { server, log, seed, .. } = self;
        assert!(server.engine.is_closed() && !server.engine.is_lingering(), "seed {seed}");
        assert_eq!(server.next_deadline(), None, "seed {seed}");
        assert!(server.connection.sockets().is_empty(), "seed {seed}");
        {
            let log = log.lock().unwrap();
            assert_eq!(log.connects, log.disconnects, "seed {seed}");
        }
        let outbox: Weak<Outbox> = Arc::downgrade(&server.outbox);
        let connection: Weak<Connection> = Arc::downgrade(&server.connection);
        drop(server);
        assert!(connection.upgrade().is_none(), "seed {seed}: connection");
        assert!(outbox.upgrade().is_none(), "seed {seed}: outbox");
        let socket = log.lock().unwrap().joined.take();
        assert!(socket.is_none_or(|socket| socket.upgrade().is_none()), "seed {seed}: socket");
    }
}

const OUTBOX_BYTES: usize = 100_000;

/// Our state machines, driven as `net` drives them.
struct Server {
    engine: Session,
    outbox: Arc<Outbox>,
    connection: Arc<Connection>,
    log: Arc<Mutex<Log>>,
    /// The parked GET.
    get: Option<u32>,
    post: Option<(u32, Vec<u8>)>,
    ws: Option<Ws>,
    /// WebSockets that the server has closed.
    hung_up: Vec<u32>,
    task_scheduled: bool,
    pong_at: Instant,
    pings: u64,
    closed: Option<(CloseReason, Instant)>,
    seen: Seen,
}

struct Ws {
    id: u32,
    upgrade: u32,
    phase: WsPhase,
    /// Received and not handled: an upgrade that is held reads nothing.
    unread: VecDeque<Wire>,
    /// The probe's answer.
    urgent: Vec<Frame>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WsPhase {
    Probing,
    Held,
    Open,
}

#[derive(Default)]
struct Seen {
    held: bool,
    given_up: bool,
    timed_out: bool,
    noop: bool,
    sent_while_upgrading: bool,
}

impl Server {
    fn new(log: &Arc<Mutex<Log>>, now: Instant) -> Self {
        let engine = Session::new(Transport::Polling, SETTINGS, now);
        let outbox = Arc::new(Outbox::new(OUTBOX_BYTES));
        outbox.push(Frame::text(&engine.open_packet(&SessionId::new("sid"))));
        let connection = Connection::new(Arc::clone(&outbox), namespaces(log), Arc::new(Handshake::default()), now);
        Self {
            engine,
            outbox,
            connection,
            log: Arc::clone(log),
            get: None,
            post: None,
            ws: None,
            hung_up: Vec::new(),
            task_scheduled: false,
            pong_at: now,
            pings: 0,
            closed: None,
            seen: Seen::default(),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let engine = self.engine.next_deadline()?;
        let above = self.connection.next_deadline().filter(|_| !self.engine.is_closed());
        above.into_iter().chain([engine]).min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.engine.handle_timeout(now) {
            match due {
                Due::Ping => {
                    self.pings += 1;
                    self.outbox.push_urgent(Frame::text("2"));
                }
                Due::UpgradeOver => self.seen.timed_out = true,
                Due::PingTimeout => return self.end(CloseReason::PingTimeout, now),
                Due::LingerOver => return,
            }
        }
        if let Err(error) = self.connection.handle_timeout(now) {
            self.end(error.close_reason(), now);
        }
    }

    fn end(&mut self, reason: CloseReason, now: Instant) {
        let transport = self.engine.transport();
        if !self.engine.close(reason, now) {
            return;
        }
        self.closed = Some((reason, now));
        // Only who ends in order waits for a last GET.
        let is_orderly = [CloseReason::TransportClose, CloseReason::ServerClose, CloseReason::SlowConsumer];
        assert!(is_orderly.contains(&reason) || !self.engine.is_lingering(), "{reason:?}");
        if self.engine.is_lingering() || transport == Transport::WebSocket {
            self.outbox.close(reason);
        } else {
            self.outbox.abandon(reason);
        }
        self.connection.close(reason);
    }

    /// What the tasks of a session do as soon as they are woken, whenever that is.
    fn settle(&mut self, now: Instant) {
        if self.ws.as_ref().is_some_and(|ws| ws.phase == WsPhase::Held) {
            self.step(now, "5");
        }
        while let Some(ws) = &mut self.ws
            && ws.phase != WsPhase::Held
            && let Some(message) = ws.unread.pop_front()
        {
            self.handle_message(message, now);
        }
        if let Some(ws) = &self.ws {
            let gone = match ws.phase {
                WsPhase::Open => self.engine.is_closed() && self.outbox.is_empty(),
                WsPhase::Probing | WsPhase::Held => !self.engine.is_upgrading(ws.upgrade),
            };
            if gone {
                self.hung_up.push(ws.id);
                self.ws = None;
            }
        }
        // The keeper on polling; on a WebSocket its task, which has written what was queued.
        if let Some(reason) = self.outbox.close_reason()
            && (self.engine.transport() == Transport::Polling || self.outbox.is_empty())
        {
            self.end(reason, now);
        }
    }

    fn has_work(&self) -> bool {
        let writes = self
            .ws
            .as_ref()
            .is_some_and(|ws| !ws.urgent.is_empty() || ws.phase == WsPhase::Open && !self.outbox.is_empty());
        let answers = self.get.is_some()
            && (!self.outbox.is_empty()
                || self.engine.is_closed()
                || self.engine.transport() == Transport::WebSocket
                || self.ws.is_some());
        writes || answers
    }

    fn get(&mut self, id: u32, _now: Instant) -> bool {
        let overlaps = self.engine.is_polled();
        assert!(!overlaps, "a stock client has one GET");
        let begun = self.engine.begin_poll();
        self.get = begun.is_ok().then_some(id);
        begun.is_ok()
    }

    fn answer_get(&mut self, now: Instant) -> Option<(u32, Vec<u8>)> {
        let id = self.get?;
        let is_upgrading = self.ws.is_some() && self.engine.transport() == Transport::Polling;
        let answer = self.engine.poll_answer(!self.outbox.is_empty(), now);
        let last: &[u8] = match answer {
            PollAnswer::Wait | PollAnswer::WaitUntil(_) => return None,
            PollAnswer::Take => b"",
            PollAnswer::Noop => b"6",
            PollAnswer::Close => b"1",
        };
        let mut body = Vec::new();
        match answer {
            PollAnswer::Noop => self.seen.noop = true,
            _ => {
                self.seen.sent_while_upgrading |= is_upgrading;
                self.outbox.take_all().iter().for_each(|frame| payload::encode(frame, &mut body));
            }
        }
        if !last.is_empty() {
            payload::encode(&Frame::text(std::str::from_utf8(last).unwrap()), &mut body);
        }
        self.get = None;
        Some((id, body))
    }

    fn post_id(&self) -> Option<u32> {
        self.post.as_ref().map(|(id, _)| *id)
    }

    /// Returns the answer, once there is one.
    fn post(&mut self, id: u32, bytes: &[u8], is_last: bool, now: Instant) -> Option<bool> {
        if self.post_id() != Some(id) {
            if self.engine.begin_post().is_err() {
                return is_last.then_some(false);
            }
            self.post = Some((id, Vec::new()));
        }
        let (_, body) = self.post.as_mut()?;
        body.extend_from_slice(bytes);
        if !is_last {
            return None;
        }
        let (_, body) = self.post.take()?;
        let handled = payload::decode(&body).try_for_each(|packet| {
            let packet = packet.map_err(|error| error.close_reason())?;
            if self.engine.is_closed() { Ok(()) } else { self.handle_packet(packet, now) }
        });
        self.engine.end_post();
        if let Err(reason) = handled {
            self.end(reason, now);
        }
        Some(handled.is_ok())
    }

    fn handle_packet(&mut self, packet: Packet<'_>, now: Instant) -> Result<(), CloseReason> {
        if packet == Packet::Pong {
            self.pong_at = now;
        }
        match self.engine.handle_packet(packet, now).map_err(|error| error.close_reason())? {
            Received::Nothing => Ok(()),
            Received::Message(Message::Text(text)) => {
                self.connection.handle_text(text, now).map_err(|error| error.close_reason())
            }
            Received::Message(Message::Binary(data)) => {
                self.connection.handle_binary(data.into_owned()).map_err(|error| error.close_reason())
            }
            Received::Close => Err(CloseReason::TransportClose),
        }
    }

    fn open_websocket(&mut self, id: u32, now: Instant) -> bool {
        let Ok(upgrade) = self.engine.begin_upgrade(now) else { return false };
        let (unread, urgent) = (VecDeque::new(), Vec::new());
        self.ws = Some(Ws { id, upgrade, phase: WsPhase::Probing, unread, urgent });
        true
    }

    fn receive(&mut self, id: u32, message: Wire, now: Instant) {
        let Some(ws) = self.ws.as_mut().filter(|ws| ws.id == id) else { return };
        ws.unread.push_back(message);
        self.settle(now);
    }

    fn handle_message(&mut self, message: Wire, now: Instant) {
        let Some(ws) = &self.ws else { return };
        let handled = match (ws.phase, message) {
            (WsPhase::Open, Wire::Text(text)) => match Packet::parse(&text) {
                Ok(packet) => self.handle_packet(packet, now),
                Err(error) => Err(error.close_reason()),
            },
            (WsPhase::Open, Wire::Binary(data)) => {
                self.connection.handle_binary(data).map_err(|error| error.close_reason())
            }
            (_, Wire::Text(text)) => {
                self.step(now, &text);
                Ok(())
            }
            (_, Wire::Binary(_)) => panic!("bytes in a probe"),
        };
        if let Err(reason) = handled {
            self.end(reason, now);
        }
    }

    fn step(&mut self, now: Instant, packet: &str) {
        let Some(ws) = &mut self.ws else { return };
        match self.engine.handle_probe(ws.upgrade, packet) {
            ProbeStep::Answer => ws.urgent.push(Frame::text("3probe")),
            ProbeStep::Hold => {
                ws.phase = WsPhase::Held;
                self.seen.held = true;
            }
            ProbeStep::Done => ws.phase = WsPhase::Open,
            ProbeStep::Abort => {
                let id = ws.id;
                self.lose_websocket(id, now);
                self.hung_up.push(id);
            }
        }
    }

    /// The WebSocket is gone, and with it the session if that was on it.
    fn lose_websocket(&mut self, id: u32, now: Instant) {
        let Some(ws) = self.ws.take_if(|ws| ws.id == id) else { return };
        if ws.phase == WsPhase::Open {
            self.end(CloseReason::TransportError, now);
        } else {
            self.seen.given_up = true;
            self.engine.abort_upgrade(ws.upgrade);
        }
    }

    /// What the WebSocket's task writes in one go.
    fn write(&mut self) -> Option<(u32, Vec<u8>)> {
        let ws = self.ws.as_mut()?;
        let mut frames: VecDeque<Frame> = ws.urgent.drain(..).collect();
        if ws.phase == WsPhase::Open {
            let _ = self.outbox.poll_take(Slot::Stream, Waker::noop(), &mut frames);
        }
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.websocket().to_vec()).collect();
        (!bytes.is_empty()).then_some((ws.id, bytes))
    }

    /// Every fifth message has an attachment, which must not be torn off at the change of transports.
    fn emit(&mut self, number: u32) {
        let socket: Option<Socket> = self.log.lock().unwrap().joined.as_ref().and_then(WeakSocket::upgrade);
        let Some(socket) = socket else { return };
        if number.is_multiple_of(5) {
            socket.emit_binary("down", &format!("{number},{PLACEHOLDER}"), &[attachment(number)]);
        } else {
            socket.emit("down", &number);
        }
    }
}

const PLACEHOLDER: &str = r#"{"_placeholder":true,"num":0}"#;

fn attachment(number: u32) -> Vec<u8> {
    vec![number as u8; number as usize * 7]
}

fn namespaces(log: &Arc<Mutex<Log>>) -> Arc<Namespaces> {
    let (connected, received, left) = (Arc::clone(log), Arc::clone(log), Arc::clone(log));
    Namespaces::builder()
        .limits(Limits::default())
        .namespace("/", |namespace| {
            namespace
                .on_connect(move |socket| {
                    let mut log = connected.lock().unwrap();
                    log.connects += 1;
                    log.joined = Some(socket.downgrade());
                })
                .on("up", move |_, event| {
                    let number: u32 = event.args.first_str().unwrap().parse().unwrap();
                    if number.is_multiple_of(5) {
                        assert_eq!(event.attachments, [attachment(number)]);
                    }
                    received.lock().unwrap().up.push(number);
                })
                .on_disconnect(move |_, _| left.lock().unwrap().disconnects += 1)
        })
        .build()
}

/// A model of a stock client: what `engine.io-client` and `socket.io-client` do, and no more.
#[derive(Default)]
struct Client {
    phase: Phase,
    get: Option<u32>,
    get_body: Vec<u8>,
    post: Option<u32>,
    last_id: u32,
    last_ws: u32,
    ws_bytes: Vec<u8>,
    is_eager: bool,
    /// `2probe` is sent.
    is_probing: bool,
    wants_retry: bool,
    writing: VecDeque<Wire>,
    /// Messages of the application before the CONNECT was answered.
    early: Vec<u32>,
    is_connected: bool,
    received: Vec<u32>,
    /// Whose attachment is to come.
    awaits: Option<u32>,
    is_silent: bool,
    is_over: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Phase {
    #[default]
    Polling,
    Probing(u32),
    GivingUp(u32),
    /// The probe is answered: no new request, and on to the WebSocket when the old ones are done.
    Upgrading(u32),
    WebSocket(u32),
}

impl Client {
    fn polls(&self) -> bool {
        matches!(self.phase, Phase::Polling | Phase::Probing(_) | Phase::GivingUp(_))
    }

    fn send(&mut self, number: u32) {
        if !self.is_connected {
            return self.early.push(number);
        }
        if number.is_multiple_of(5) {
            self.writing.push_back(Wire::Text(format!(r#"451-["up",{number},{PLACEHOLDER}]"#)));
            self.writing.push_back(Wire::Binary(attachment(number)));
        } else {
            self.writing.push_back(Wire::Text(format!(r#"42["up",{number}]"#)));
        }
    }

    fn get_bytes(&mut self, id: u32, bytes: &[u8], is_last: bool) {
        assert_eq!(self.get, Some(id));
        self.get_body.extend_from_slice(bytes);
        if !is_last {
            return;
        }
        self.get = None;
        let body = std::mem::take(&mut self.get_body);
        if body == b"!" {
            // Refused: the session is over, or (to an eager client) on its WebSocket.
            self.is_over |= !matches!(self.phase, Phase::WebSocket(_));
        } else {
            for part in body.split(|byte| *byte == payload::SEPARATOR) {
                match part.strip_prefix(b"b") {
                    Some(base64) => self.binary(&STANDARD.decode(base64).unwrap()),
                    None => self.packet(std::str::from_utf8(part).unwrap()),
                }
            }
        }
        // What came over the WebSocket meanwhile comes after it.
        if let Phase::WebSocket(ws) = self.phase {
            self.bytes(ws, b"");
        }
    }

    fn posted(&mut self, id: u32, is_ok: bool) {
        assert_eq!(self.post, Some(id));
        self.post = None;
        self.is_over |= !is_ok;
    }

    fn bytes(&mut self, ws: u32, bytes: &[u8]) {
        if !matches!(self.phase, Phase::Probing(id) | Phase::WebSocket(id) if id == ws) {
            return;
        }
        self.ws_bytes.extend_from_slice(bytes);
        while self.get.is_none() || !matches!(self.phase, Phase::WebSocket(_)) {
            let Some((is_text, data, used)) = split_frame(&self.ws_bytes) else { return };
            let data = data.to_vec();
            self.ws_bytes.drain(..used);
            if is_text { self.packet(std::str::from_utf8(&data).unwrap()) } else { self.binary(&data) }
        }
    }

    fn lost(&mut self, ws: u32) {
        match self.phase {
            Phase::Probing(id) | Phase::GivingUp(id) if id == ws => {
                self.wants_retry = true;
                self.is_probing = false;
                self.ws_bytes.clear();
                self.phase = Phase::Polling;
            }
            Phase::WebSocket(id) | Phase::Upgrading(id) if id == ws => self.is_over = true,
            _ => {}
        }
    }

    fn packet(&mut self, packet: &str) {
        if packet.starts_with("0{") {
            self.writing.push_back(Wire::Text("40".into()));
        } else if packet == "1" {
            self.is_over = true;
        } else if packet == "2" {
            self.writing.push_back(Wire::Text("3".into()));
        } else if packet == "3probe" {
            // An eager one does not wait for it.
            if let Phase::Probing(ws) = self.phase
                && !self.is_eager
            {
                self.phase = Phase::Upgrading(ws);
            }
        } else if packet.starts_with("40{") {
            self.is_connected = true;
            std::mem::take(&mut self.early).into_iter().for_each(|number| self.send(number));
        } else if let Some(rest) = packet.strip_prefix(r#"42["down","#) {
            assert_eq!(self.awaits, None, "an attachment was torn off");
            self.received.push(rest.trim_end_matches(']').parse().unwrap());
        } else if let Some(rest) = packet.strip_prefix(r#"451-["down","#) {
            assert_eq!(self.awaits, None, "an attachment was torn off");
            self.awaits = Some(rest.split_once(',').unwrap().0.parse().unwrap());
        } else {
            assert!(packet == "6" || packet.starts_with("4x"), "{packet}");
        }
    }

    fn binary(&mut self, data: &[u8]) {
        let number = self.awaits.take().expect("an attachment belongs to an event");
        assert_eq!(data, attachment(number));
        self.received.push(number);
    }
}

/// A polling payload.
fn join(packets: impl Iterator<Item = Wire>) -> Vec<u8> {
    let parts: Vec<String> = packets
        .map(|packet| match packet {
            Wire::Text(text) => text,
            Wire::Binary(data) => format!("b{}", STANDARD.encode(data)),
        })
        .collect();
    parts.join("\x1e").into_bytes()
}

/// The first whole frame: whether it is text, its data, and its length on the wire.
fn split_frame(bytes: &[u8]) -> Option<(bool, &[u8], usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert_eq!(first & 0xf0, 0x80, "whole messages only");
    assert_eq!(second & 0x80, 0, "a server does not mask");
    let (start, length) = match second {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize),
        length => (2, usize::from(length)),
    };
    Some((first == 0x81, bytes.get(start..start + length)?, start + length))
}
