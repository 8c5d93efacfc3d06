//! Promise: whatever hundreds of users do, each gets every event of the meetings they are in once and in order, nobody
//! gets one of a meeting they are not in, and every answer is the one that a plain model of the chat gives.
//!
//! The whole chat but the network: clients are `socket::Connection`s, the clock is a number, and random operations are
//! done one at a time, on the chat and on the model. Everything of one seed can be replayed: a failure says the seed, the
//! operation's number, and what was done before by those concerned.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use fastrand::Rng;
use jwt_simple::prelude::{HS256Key, MACLike as _};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use chat_service::{
    auth::{
        Access, Authenticator, Fetch, FetchError, FetchRequest, FetchResponse, Identity, Right,
        access::{Noted, Participants, RoomPolicy},
        token::{Algorithm, KeySource, TokenSettings},
    },
    chat::{Chat, Parts, Rates, Settings, command},
    limits::{Rate, StrikeLimits},
    metrics::Metrics,
    outbox::Outbox,
    socket::{Connection, Namespaces},
    store::{Kind, Memory, MemoryLimits},
    types::{CloseReason, Handshake, RoomId},
};

const USERS: usize = 200;
const MEETINGS: usize = 50;
/// A fifth of the users have two devices.
const CLIENTS: usize = USERS + USERS / 5;
/// Meetings in which a user has something to do; in the others they have no right.
const HOMES: usize = 6;
const OPERATIONS: usize = 125_000;

#[test]
fn seed_1() {
    run(1, MemoryLimits::default());
}

#[test]
fn seed_2() {
    run(2, MemoryLimits { history_size: 150, ..MemoryLimits::default() });
}

#[test]
fn seed_3() {
    run(3, MemoryLimits::default());
}

#[test]
fn seed_4() {
    run(4, MemoryLimits { history_size: 400, ..MemoryLimits::default() });
}

#[test]
fn seed_5() {
    run(5, MemoryLimits { history_size: 40, ..MemoryLimits::default() });
}

#[test]
fn seed_6() {
    // In which the days that pass now and then take events out of the logs.
    run(6, MemoryLimits { history_ttl_ms: 2 * DAY_MS, ..MemoryLimits::default() });
}

#[test]
fn seed_7() {
    run(7, MemoryLimits { history_size: 1, ..MemoryLimits::default() });
}

#[test]
fn seed_8() {
    run(8, MemoryLimits { history_size: 250, history_ttl_ms: 3_600_000, ..MemoryLimits::default() });
}

fn run(seed: u64, limits: MemoryLimits) {
    let mut world = World::new(seed, limits);
    for client in 0..CLIENTS {
        world.do_operation(Operation::Connect { client });
    }
    while world.done.len() < OPERATIONS {
        let operation = world.draw();
        world.do_operation(operation);
    }
    world.end();
}

/// One thing that is done, as a line that can be read. `Revoke` and `Grant` change a right and say so by an update,
/// `ChangeRight` says nothing.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Connect { client: usize },
    Kill { client: usize },
    Join { client: usize, meeting: usize, since: Since, limit: Option<usize>, presence: bool },
    Leave { client: usize, meeting: usize },
    Send { client: usize, meeting: usize, message: NewMessage },
    Edit { client: usize, meeting: usize, target: Target },
    Delete { client: usize, meeting: usize, target: Target },
    React { client: usize, meeting: usize, target: Target, emoji: usize, removed: bool },
    Typing { client: usize, meeting: usize, active: bool },
    MarkRead { client: usize, meeting: usize, seq: u64 },
    History { client: usize, meeting: usize, page: PageFrom, limit: usize, kind: Option<Kind>, is_old_epoch: bool },
    Presence { client: usize, meeting: usize },
    ReadNotifications { client: usize },
    Revoke { user: usize, meeting: usize },
    Grant { user: usize, meeting: usize, right: u8 },
    ChangeRight { user: usize, meeting: usize, right: u8 },
    Update { meeting: usize, kind: &'static str, is_repeated: bool },
    Close { meeting: usize },
    Erase { meeting: usize },
    Wait { ms: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Since {
    Nothing,
    /// What the client saw last, less so many.
    Seen(u64),
    /// More than there is.
    Above,
}

#[derive(Clone, Copy, Debug)]
struct NewMessage {
    number: usize,
    client_id: ClientId,
    reply_to: Option<Target>,
    mention: Option<usize>,
    has_meta: bool,
    wants_ack: bool,
}

#[derive(Clone, Copy, Debug)]
enum ClientId {
    None,
    New,
    /// That of the last message of this client in the meeting, with its text or with another.
    Repeated {
        is_same_text: bool,
    },
}

/// A message.
#[derive(Clone, Copy, Debug)]
enum Target {
    /// By its number in its meeting.
    Message(usize),
    /// One of another meeting.
    Elsewhere(usize, usize),
    Unknown,
}

#[derive(Clone, Copy, Debug)]
enum PageFrom {
    Top,
    Before(u64),
    After(u64),
}

/// Everything: the chat, its clients, and the model of both.
struct World {
    seed: u64,
    rng: Rng,
    limits: MemoryLimits,
    done: Vec<Operation>,

    chat: Arc<Chat>,
    namespaces: Arc<Namespaces>,
    clock: Arc<AtomicU64>,
    table: Arc<Rights>,
    pending: Pending,
    tokens: Vec<String>,
    instant: Instant,

    now: u64,
    clients: Vec<Client>,
    meetings: Vec<Meeting>,
    homes: Vec<Vec<usize>>,
    /// What the chat knows of a user's right in a meeting, and until when.
    known: HashMap<(usize, usize), (u8, u64)>,
    /// The update that removed a user from a meeting last, and when.
    removals: HashMap<(usize, usize), (String, u64)>,
    /// Of each user: notifications that are kept, and whether each is read.
    inboxes: Vec<Vec<bool>>,
    jobs: BTreeMap<(u64, u64), Job>,
    last_number: u64,
    /// Clients for which something was predicted.
    touched: Vec<usize>,
    /// The meeting that is being emptied: in which order is not said, so that typing may or may not be told to have ended.
    emptied: Option<usize>,
    frames: usize,
    events: usize,
    /// What clients asked for last, and how often each answer was right.
    event: &'static str,
    answers: BTreeMap<(&'static str, &'static str), usize>,
}

/// A front-end: what it got, and what the model says it should have.
struct Client {
    user: usize,
    line: Option<Line>,
    next_ack: u64,
    asked: Option<Asked>,
    answer: Option<String>,
    chat_error: Option<String>,
    fronts: Vec<Front>,
    told: Vec<Told>,
    /// The model's: where it is a member.
    rooms: Vec<usize>,
    /// The model's: what it is to be told.
    expected: Vec<Told>,
    is_touched: bool,
    /// Where it was when it was killed.
    wanted: Vec<usize>,
    last_sent: HashMap<usize, (usize, String)>,
}

struct Line {
    connection: Arc<Connection>,
    outbox: Arc<Outbox>,
}

#[derive(Clone, Copy)]
struct Asked {
    id: u64,
    about: About,
}

#[derive(Clone, Copy)]
enum About {
    Join { meeting: usize, since: Option<u64> },
    Leave { meeting: usize },
    Other,
}

/// What a client has of a meeting.
#[derive(Clone, Default)]
struct Front {
    is_joined: bool,
    /// Of the last event that was applied; 0 if none ever was.
    life: u32,
    epoch: String,
    seq: u64,
}

/// What is told beside logged events. Of several who have gone at a time it is not said who is told first, so that their
/// `Count` stands by itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Told {
    Typing { meeting: usize, user: usize, active: bool },
    Come { meeting: usize, user: usize, count: usize },
    Gone { meeting: usize, user: usize },
    Count { meeting: usize, count: usize },
    Receipt { meeting: usize, user: usize, seq: u64 },
    Left { meeting: usize, reason: String },
    Notified { meeting: usize, kind: String },
}

/// A meeting, as it should be.
struct Meeting {
    id: RoomId,
    /// Of the log, counted.
    life: u32,
    /// As first seen.
    epoch: Option<String>,
    old_epochs: Vec<String>,
    /// All that was ever logged in this life.
    log: Vec<Entry>,
    /// The first that is still kept.
    first: u64,
    messages: Vec<Message>,
    /// The seqs of each user's messages.
    own: Vec<Vec<u64>>,
    marks: Vec<Option<u64>>,
    sent: HashMap<(usize, String), usize>,
    closes_at: Option<u64>,
    /// Clients.
    members: Vec<usize>,
    present: BTreeMap<usize, Present>,
    receipts: Vec<(usize, u64)>,
    receipts_are_due: bool,
}

struct Entry {
    kind: Kind,
    author: usize,
    ts: u64,
    /// Which message; nothing for updates.
    message: usize,
    text: String,
    /// The version, the emoji's number, or the update's.
    number: usize,
    removed: bool,
    count: usize,
    /// Messages so far.
    total: usize,
    is_erased: bool,
    /// What clients got, once it was compared with this.
    json: Option<Box<str>>,
}

struct Message {
    author: usize,
    id: String,
    seq: u64,
    ts: u64,
    client_id: Option<String>,
    reply_to: Option<usize>,
    mention: Option<usize>,
    has_meta: bool,
    text: String,
    version: usize,
    last: u64,
    deleted: Option<u64>,
    edits: Vec<u64>,
    reactions: Vec<(usize, Vec<(usize, u64)>)>,
}

#[derive(Default)]
struct Present {
    devices: usize,
    left_at: u64,
    typing_until: u64,
}

#[derive(Clone, Copy)]
enum Job {
    Leave(usize, usize),
    Receipts(usize),
}

/// A logged event as clients get it.
#[derive(Deserialize, PartialEq, Default, Debug)]
#[serde(deny_unknown_fields, default)]
struct Logged {
    id: Option<String>,
    seq: u64,
    epoch: String,
    ts: u64,
    meeting_id: String,
    sender: Option<String>,
    sender_name: Option<String>,
    client_id: Option<String>,
    reply_to: Option<String>,
    mentions: Option<Vec<String>>,
    meta: Option<Value>,
    text: Option<String>,
    deleted: Option<bool>,
    version: Option<usize>,
    editor: Option<String>,
    deleted_by: Option<String>,
    user_id: Option<String>,
    emoji: Option<String>,
    removed: Option<bool>,
    count: Option<usize>,
    #[serde(rename = "type")]
    kind: Option<String>,
    event_id: Option<String>,
    data: Option<Value>,
}

#[derive(Deserialize)]
struct JoinAck<'a> {
    meeting_id: &'a str,
    epoch: &'a str,
    seq: u64,
    first_seq: u64,
    members: usize,
    recovered: Option<bool>,
    reason: Option<&'a str>,
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    presence: Option<Vec<Person>>,
}

#[derive(Deserialize)]
struct HistoryAck<'a> {
    epoch: &'a str,
    top_seq: u64,
    first_seq: u64,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
    has_more: bool,
}

#[derive(Deserialize)]
struct PresenceAck {
    count: usize,
    users: Vec<Person>,
    truncated: bool,
}

#[derive(Deserialize)]
struct Person {
    id: String,
    devices: usize,
}

/// What the model says of an answer: fields of it, or the code of the refusal.
type Expected = Result<Vec<(&'static str, String)>, &'static str>;

const START_MS: u64 = 1_760_000_000_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const RIGHT_KEPT_MS: u64 = 30_000;
const LEAVE_HOLD_MS: u64 = 10_000;
const RECEIPT_PAUSE_MS: u64 = 1000;
const TYPING_MS: u64 = 6000;
const EMOJI_MAX: usize = 20;
const JOIN_EVENTS_MAX: usize = 300;
const INBOX_MAX: usize = 200;
const UNREAD_MAX: usize = 999;
const SECRET: &[u8] = b"a secret of thirty-two bytes, ok";
const NO_MESSAGE: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
const KINDS: [&str; 5] = ["chat_message", "message_edited", "message_deleted", "message_reaction", "meeting_update"];
/// Answers that some client gets in each run.
const ANSWERS: [(&str, &str); 23] = [
    ("chat_message", "ok"),
    ("chat_message", "duplicate"),
    ("chat_message", "conflict"),
    ("chat_message", "forbidden"),
    ("chat_message", "not_found"),
    ("chat_message", "not_joined"),
    ("chat_message", "room_closed"),
    ("edit_message", "ok"),
    ("edit_message", "forbidden"),
    ("edit_message", "not_found"),
    ("delete_message", "ok"),
    ("delete_message", "forbidden"),
    ("react", "ok"),
    ("react", "not_joined"),
    ("typing", "ok"),
    ("mark_read", "ok"),
    ("mark_read", "forbidden"),
    ("get_history", "ok"),
    ("get_history", "conflict"),
    ("join_room", "ok"),
    ("join_room", "recovered"),
    ("join_room", "epoch"),
    ("join_room", "forbidden"),
];
const NONE: u8 = 0;
const READ: u8 = 1;
const WRITE: u8 = 2;
const HOST: u8 = 3;

impl World {
    fn new(seed: u64, limits: MemoryLimits) -> Self {
        let mut rng = Rng::with_seed(seed);
        let clock = Arc::new(AtomicU64::new(START_MS));
        let table = Arc::new(Rights((0..USERS * MEETINGS).map(|_| AtomicU8::new(NONE)).collect()));
        let homes: Vec<Vec<usize>> = (0..USERS).map(|_| (0..HOMES).map(|_| rng.usize(..MEETINGS)).collect()).collect();
        for (user, meetings) in homes.iter().enumerate() {
            meetings.iter().for_each(|meeting| table.set(user, *meeting, any_right(&mut rng)));
        }
        let pending = Pending::default();
        let chat = Chat::new(parts(&clock, &table, &pending, limits));
        let namespaces = Namespaces::builder().namespace("/", |namespace| chat.register(namespace)).build();
        Self {
            seed,
            rng,
            limits,
            done: Vec::with_capacity(OPERATIONS),
            chat,
            namespaces,
            clock,
            table,
            pending,
            tokens: (0..USERS).map(token).collect(),
            instant: Instant::now(),
            now: START_MS,
            clients: (0..CLIENTS).map(|client| Client::new(client % USERS)).collect(),
            meetings: (0..MEETINGS).map(Meeting::new).collect(),
            homes,
            known: HashMap::new(),
            removals: HashMap::new(),
            inboxes: vec![Vec::new(); USERS],
            jobs: BTreeMap::new(),
            last_number: 0,
            touched: Vec::new(),
            emptied: None,
            frames: 0,
            events: 0,
            event: "",
            answers: BTreeMap::new(),
        }
    }

    /// Says what went wrong, and what was done before by the same client, user or meeting.
    fn fail(&self, what: impl Display) -> ! {
        let last = *self.done.last().unwrap();
        let (client, meeting) = last.concerns();
        let number = self.done.len();
        let mut before: Vec<String> = self
            .done
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, operation)| {
                let (other_client, other_meeting) = operation.concerns();
                (client.is_some() && other_client == client) || (meeting.is_some() && other_meeting == meeting)
            })
            .take(20)
            .map(|(index, operation)| format!("{:>7} {operation:?}", index + 1))
            .collect();
        before.reverse();
        panic!(
            "seed {}, operation {number}, at {} ms: {what}\n{}\n",
            self.seed,
            self.now - START_MS,
            before.join("\n")
        );
    }

    // What is done.

    fn draw(&mut self) -> Operation {
        let rng = &mut self.rng;
        let mut client = rng.usize(..CLIENTS);
        if self.clients[client].line.is_none() && rng.bool() {
            client = 0;
        }
        let Client { user, line, rooms, .. } = &self.clients[client];
        if line.is_none() {
            return Operation::Connect { client };
        }
        let user = *user;
        let home = self.homes[user][rng.usize(..HOMES)];
        let meeting = match rng.u8(..100) {
            0..3 => rng.usize(..MEETINGS),
            3..93 if !rooms.is_empty() => rooms[rng.usize(..rooms.len())],
            _ => home,
        };
        let state = &self.meetings[meeting];
        let top = state.log.len() as u64;
        let own = &state.own[user];
        let target = |rng: &mut Rng| {
            let count = state.messages.len();
            match rng.u8(..100) {
                0..2 => Target::Unknown,
                2..4 => {
                    let other = rng.usize(..MEETINGS);
                    match self.meetings[other].messages.len() {
                        0 => Target::Unknown,
                        count if other != meeting => Target::Elsewhere(other, rng.usize(..count)),
                        _ => Target::Unknown,
                    }
                }
                _ if count == 0 => Target::Unknown,
                // One that gets many reactions.
                4..20 => Target::Message(count - 1 - (count - 1) % 100),
                20..60 if !own.is_empty() => {
                    let seq = own[own.len() - 1 - rng.usize(..own.len().min(5))];
                    Target::Message(state.log[seq as usize - 1].message)
                }
                20..90 => Target::Message(count - 1 - rng.usize(..count.min(20))),
                _ => Target::Message(rng.usize(..count)),
            }
        };
        if rooms.is_empty() && rng.u8(..100) < 40 {
            return Operation::Join { client, meeting: home, since: Since::Seen(0), limit: None, presence: false };
        }
        match rng.u16(..1000) {
            0..330 => {
                let message = NewMessage {
                    number: self.done.len(),
                    client_id: match rng.u8(..100) {
                        0..40 => ClientId::None,
                        40..85 => ClientId::New,
                        85..97 => ClientId::Repeated { is_same_text: true },
                        _ => ClientId::Repeated { is_same_text: false },
                    },
                    reply_to: if rng.u8(..100) < 8 { Some(target(rng)) } else { None },
                    mention: if rng.u8(..100) < 4 { Some(rng.usize(..USERS)) } else { None },
                    has_meta: rng.u8(..100) < 5,
                    wants_ack: rng.u8(..100) >= 5,
                };
                Operation::Send { client, meeting, message }
            }
            330..400 => Operation::Edit { client, meeting, target: target(rng) },
            400..435 => Operation::Delete { client, meeting, target: target(rng) },
            435..530 => {
                let first = (!state.messages.is_empty() && rng.u8(..100) < 30).then_some(Target::Message(0));
                let (target, emoji, removed) =
                    (first.unwrap_or_else(|| target(rng)), rng.usize(..24), rng.u8(..100) < 20);
                Operation::React { client, meeting, target, emoji, removed }
            }
            530..600 => Operation::Typing { client, meeting, active: rng.u8(..100) < 80 },
            600..690 => {
                let seq = match rng.u8(..100) {
                    0..5 => top + rng.u64(1..9),
                    5..50 => top,
                    _ => rng.u64(..=top),
                };
                Operation::MarkRead { client, meeting, seq }
            }
            690..705 => {
                let page = match rng.u8(..3) {
                    0 => PageFrom::Top,
                    1 => PageFrom::Before(rng.u64(..top + 3)),
                    _ => PageFrom::After(rng.u64(..top + 3)),
                };
                let kind = if rng.bool() { None } else { Some(Kind::ALL[rng.usize(..5)]) };
                let (limit, is_old_epoch) = (rng.usize(1..=100), rng.u8(..100) < 10);
                Operation::History { client, meeting, page, limit, kind, is_old_epoch }
            }
            705..715 => Operation::Presence { client, meeting },
            715..790 => {
                let meeting = if rng.u8(..100) < 80 { home } else { meeting };
                let since = match rng.u8(..100) {
                    0..25 => Since::Nothing,
                    25..90 => Since::Seen(0),
                    90..97 => Since::Seen(rng.u64(1..400)),
                    _ => Since::Above,
                };
                let limit = if rng.bool() { None } else { Some(rng.usize(..12)) };
                Operation::Join { client, meeting, since, limit, presence: rng.u8(..100) < 10 }
            }
            790..890 => Operation::Leave { client, meeting },
            890..935 => Operation::Kill { client },
            935..942 => Operation::ReadNotifications { client },
            942..952 => Operation::Revoke { user, meeting },
            952..964 => Operation::Grant { user, meeting: home, right: READ + rng.u8(..3) },
            964..972 => Operation::ChangeRight { user, meeting, right: any_right(rng) },
            972..982 => {
                let kind = if rng.u8(..100) < 2 {
                    ["meeting.cancelled", "meeting.ended"][rng.usize(..2)]
                } else {
                    ["meeting.updated", "meeting.started", "deck.shown"][rng.usize(..3)]
                };
                Operation::Update { meeting, kind, is_repeated: rng.u8(..100) < 20 }
            }
            982..983 if rng.u8(..10) == 0 => Operation::Close { meeting },
            983..984 => Operation::Erase { meeting },
            984..988 if rng.u16(..100) == 0 => Operation::Wait { ms: rng.u64(..2 * DAY_MS) },
            982..988 => Operation::Leave { client, meeting: home },
            988..993 => Operation::Wait { ms: rng.u64(..=3000) },
            993..994 => Operation::Wait { ms: rng.u64(..40_000) },
            _ => Operation::Join { client, meeting, since: Since::Seen(0), limit: None, presence: false },
        }
    }

    fn do_operation(&mut self, operation: Operation) {
        self.done.push(operation);
        match operation {
            Operation::Connect { client } => self.connect(client),
            Operation::Kill { client } => self.kill(client),
            Operation::Join { client, meeting, since, limit, presence } => {
                self.join(client, meeting, since, limit, presence);
            }
            Operation::Leave { client, meeting } => self.leave(client, meeting),
            Operation::Send { client, meeting, message } => self.send(client, meeting, message),
            Operation::Edit { client, meeting, target } => self.edit(client, meeting, target),
            Operation::Delete { client, meeting, target } => self.delete(client, meeting, target),
            Operation::React { client, meeting, target, emoji, removed } => {
                self.react(client, meeting, target, emoji, removed);
            }
            Operation::Typing { client, meeting, active } => self.typing(client, meeting, active),
            Operation::MarkRead { client, meeting, seq } => self.mark_read(client, meeting, seq),
            Operation::History { client, meeting, page, limit, kind, is_old_epoch } => {
                self.history(client, meeting, page, limit, kind, is_old_epoch);
            }
            Operation::Presence { client, meeting } => self.presence(client, meeting),
            Operation::ReadNotifications { client } => self.read_notifications(client),
            Operation::Revoke { user, meeting } => self.revoke(user, meeting),
            Operation::Grant { user, meeting, right } => self.grant(user, meeting, right),
            Operation::ChangeRight { user, meeting, right } => self.table.set(user, meeting, right),
            Operation::Update { meeting, kind, is_repeated } => self.update(meeting, kind, is_repeated),
            Operation::Close { meeting } => self.close(meeting),
            Operation::Erase { meeting } => self.erase(meeting),
            Operation::Wait { ms } => self.wait(ms),
        }
        self.look_at_touched();
        // Whoever was to get nothing should have got nothing; they have not moved since they were looked at last.
        if self.done.len().is_multiple_of(100) {
            (0..CLIENTS).for_each(|client| self.look_at(client));
        }
    }

    fn connect(&mut self, client: usize) {
        let outbox = Arc::new(Outbox::new(64 << 20));
        let (namespaces, handshake) = (Arc::clone(&self.namespaces), Arc::new(Handshake::default()));
        let connection = Connection::new(Arc::clone(&outbox), namespaces, handshake, self.instant);
        let user = self.clients[client].user;
        connection.handle_text(&format!(r#"0{{"token":"{}"}}"#, self.tokens[user]), self.instant).unwrap();
        self.pending.settle();
        self.clients[client].line = Some(Line { connection, outbox });
        self.look_at(client);
        if self.clients[client].answer.take().is_none() {
            self.fail("no `ready`");
        }
        // A client comes back to where it was, with what it saw.
        for meeting in std::mem::take(&mut self.clients[client].wanted) {
            if self.rng.u8(..100) < 85 {
                self.join(client, meeting, Since::Seen(0), None, false);
                self.look_at_touched();
            }
        }
    }

    fn kill(&mut self, client: usize) {
        self.look_at(client);
        let Some(line) = self.clients[client].line.take() else { return };
        self.clients[client].wanted = self.clients[client].rooms.clone();
        for meeting in self.clients[client].rooms.clone() {
            self.goes(client, meeting);
        }
        self.clients[client].fronts.iter_mut().for_each(|front| front.is_joined = false);
        line.connection.close(CloseReason::TransportClose);
        self.pending.settle();
        if !line.outbox.take_all().is_empty() {
            self.fail("a client that is gone got something");
        }
    }

    fn join(&mut self, client: usize, meeting: usize, since: Since, limit: Option<usize>, presence: bool) {
        let (user, front) = (self.clients[client].user, self.clients[client].fronts[meeting].clone());
        let state = &self.meetings[meeting];
        let position = match since {
            Since::Seen(less) if front.life > 0 => Some((front.epoch.clone(), front.seq.saturating_sub(less))),
            Since::Above => {
                Some((state.epoch.clone().unwrap_or_else(|| "nonesuch".into()), state.log.len() as u64 + 1))
            }
            _ => None,
        };
        let is_same_life = match since {
            Since::Above => true,
            _ => front.life == state.life,
        };
        let limit_default = if position.is_some() { JOIN_EVENTS_MAX } else { 0 };
        let mut fields = format!(r#""meeting_id":"{}""#, state.id.as_str());
        if let Some((epoch, seq)) = &position {
            fields += &format!(r#","since":{{"epoch":"{epoch}","seq":{seq}}}"#);
        }
        if let Some(limit) = limit {
            fields += &format!(r#","limit":{limit}"#);
        }
        if presence {
            fields += r#","presence":true"#;
        }
        if let Err(code) = self.require(user, meeting, READ) {
            let about = About::Join { meeting, since: None };
            let answer = self.ask_about(client, "join_room", &fields, about);
            return self.compare(&answer, Err(code));
        }
        let first = self.first(meeting);
        let top = self.meetings[meeting].log.len() as u64;
        let limit = limit.unwrap_or(limit_default) as u64;
        let (recovered, reason, after) = match position {
            None => (None, None, top - limit.min(top)),
            Some((_, seq)) if !is_same_life || seq > top => (Some(false), Some("epoch"), top),
            Some((_, seq)) if seq < top && seq + 1 < first => (Some(false), Some("window"), top),
            Some((_, seq)) if top - seq > limit => (Some(false), Some("too_many"), top),
            Some((_, seq)) => (Some(true), None, seq),
        };
        self.meetings[meeting].marks[user].get_or_insert(top);
        if !self.clients[client].rooms.contains(&meeting) {
            self.comes(client, meeting);
        }
        let since = if recovered == Some(true) { Some(after) } else { None };
        let answer = self.ask_about(client, "join_room", &fields, About::Join { meeting, since });
        let Ok(ack) = serde_json::from_str::<JoinAck<'_>>(&answer) else { self.fail(format!("join: {answer}")) };
        self.count(match recovered {
            Some(true) => "recovered",
            _ => reason.unwrap_or("ok"),
        });
        self.check_epoch(meeting, ack.epoch);
        // Those who left a moment ago are still shown, but do not count here.
        let members = self.meetings[meeting].present.values().filter(|present| present.devices > 0).count();
        let (seq, first_seq) = (ack.seq, ack.first_seq);
        if (ack.meeting_id, seq, first_seq, ack.members, ack.recovered, ack.reason)
            != (self.meetings[meeting].id.as_str(), top, first, members, recovered, reason)
        {
            self.fail(format!("expected {top} {first} {members} {recovered:?} {reason:?}, got {answer}"));
        }
        self.check_items(meeting, &ack.events, (after.max(first - 1) + 1..=top).collect());
        match ack.presence {
            Some(users) if presence => self.check_users(meeting, &users),
            None if !presence => {}
            _ => self.fail(format!("presence: {answer}")),
        }
    }

    fn leave(&mut self, client: usize, meeting: usize) {
        if self.clients[client].rooms.contains(&meeting) {
            self.goes(client, meeting);
        }
        let fields = format!(r#""meeting_id":"m{meeting}""#);
        let answer = self.ask_about(client, "leave_room", &fields, About::Leave { meeting });
        self.compare(&answer, Ok(vec![("meeting_id", format!("\"m{meeting}\""))]));
    }

    fn send(&mut self, client: usize, meeting: usize, new: NewMessage) {
        let user = self.clients[client].user;
        let (mut text, mut sent_text) = (format!("text {}", new.number), format!("text {}", new.number));
        let client_id = match (new.client_id, self.clients[client].last_sent.get(&meeting)) {
            (ClientId::None, _) => None,
            (ClientId::Repeated { is_same_text }, Some((number, last))) => {
                if is_same_text {
                    text = format!("text {number}");
                    // The same in other letters.
                    sent_text = format!("\\u0074ext {number}");
                }
                Some(last.clone())
            }
            // Two devices of a user share the names of what they send.
            (ClientId::New | ClientId::Repeated { .. }, _) => Some(format!("c{}", new.number)),
        };
        if let (Some(client_id), ClientId::New) = (&client_id, new.client_id) {
            self.clients[client].last_sent.insert(meeting, (new.number, client_id.clone()));
        }
        let mut fields = format!(r#""meeting_id":"m{meeting}","text":"{sent_text}","unknown":[1]"#);
        if let Some(client_id) = &client_id {
            fields += &format!(r#","client_id":"{client_id}""#);
        }
        if let Some(target) = new.reply_to {
            fields += &format!(r#","reply_to":"{}""#, self.message_id(meeting, target));
        }
        if let Some(mention) = new.mention {
            fields += &format!(r#","mentions":["u{mention}"]"#);
        }
        if new.has_meta {
            fields += r#","meta":{"k":[1]}"#;
        }
        let expected = self.predict_send(client, meeting, text, client_id.clone(), &new);
        if new.wants_ack {
            let answer = self.ask(client, "chat_message", &fields);
            if expected.is_ok() {
                self.check_epoch(meeting, field(&answer, "\"epoch\":").unwrap_or_default());
            }
            self.compare_placed(&answer, user, meeting, expected);
        } else {
            self.tell(client, &format!(r#"["chat_message",{{{fields}}}]"#));
            let error = self.clients[client].chat_error.take();
            match (expected, error) {
                (Ok(_), None) => {}
                (Err(code), Some(error)) => {
                    let reference = client_id.map_or("null".to_owned(), |id| format!("\"{id}\""));
                    let head = format!(r#"{{"event":"chat_message","ref":{reference},"error":{{"code":"{code}""#);
                    if !error.starts_with(&head) {
                        self.fail(format!("expected {head}, got {error}"));
                    }
                }
                (expected, error) => self.fail(format!("expected {expected:?}, got {error:?}")),
            }
        }
    }

    fn predict_send(
        &mut self,
        client: usize,
        meeting: usize,
        text: String,
        client_id: Option<String>,
        new: &NewMessage,
    ) -> Expected {
        let user = self.clients[client].user;
        match self.require_joined(client, meeting) {
            // It may have been sent before.
            Err("room_closed") if client_id.is_some() => {}
            outcome => outcome?,
        }
        self.require(user, meeting, WRITE)?;
        if let Some(client_id) = &client_id
            && let Some(number) = self.meetings[meeting].sent.get(&(user, client_id.clone()))
        {
            let Message { seq, id, ts, text: first_text, .. } = &self.meetings[meeting].messages[*number];
            if *first_text != text {
                return Err("conflict");
            }
            let (seq, id, ts) = (seq.to_string(), format!("\"{id}\""), ts.to_string());
            return Ok(vec![("seq", seq), ("id", id), ("ts", ts), ("duplicate", "true".into())]);
        }
        self.require_open(meeting)?;
        let reply_to = match new.reply_to {
            None => None,
            Some(target) => {
                let number = self.kept(meeting, target).ok_or("not_found")?;
                if self.meetings[meeting].messages[number].deleted.is_some() {
                    return Err("not_found");
                }
                Some(number)
            }
        };
        let (mention, has_meta, now) = (new.mention, new.has_meta, self.now);
        let state = &mut self.meetings[meeting];
        let number = state.messages.len();
        let seq = state.log.len() as u64 + 1;
        if let Some(client_id) = &client_id {
            state.sent.insert((user, client_id.clone()), number);
        }
        state.messages.push(Message {
            author: user,
            id: String::new(),
            seq,
            ts: now,
            client_id,
            reply_to,
            mention,
            has_meta,
            text: text.clone(),
            version: 0,
            last: seq,
            deleted: None,
            edits: Vec::new(),
            reactions: Vec::new(),
        });
        state.own[user].push(seq);
        if let Some(present) = state.present.get_mut(&user) {
            present.typing_until = 0;
        }
        self.log(meeting, Entry { text, ..Entry::new(Kind::ChatMessage, user, number) });
        let reply_author = reply_to.map(|number| self.meetings[meeting].messages[number].author);
        let mut told = vec![user];
        for (notified, kind) in
            mention.map(|user| (user, "chat.mention")).into_iter().chain(reply_author.map(|user| (user, "chat.reply")))
        {
            if !told.contains(&notified) && self.may_read(notified, meeting) {
                self.notify(notified, meeting, kind);
                told.push(notified);
            }
        }
        Ok(vec![("seq", seq.to_string()), ("ts", now.to_string()), ("duplicate", "false".into())])
    }

    fn edit(&mut self, client: usize, meeting: usize, target: Target) {
        let text = format!("text {}", self.done.len());
        let fields =
            format!(r#""meeting_id":"m{meeting}","id":"{}","text":"{text}""#, self.message_id(meeting, target));
        let user = self.clients[client].user;
        let expected = self.predict_edit(user, meeting, target, text);
        let answer = self.ask(client, "edit_message", &fields);
        self.compare(&answer, expected);
    }

    fn predict_edit(&mut self, user: usize, meeting: usize, target: Target, text: String) -> Expected {
        let right = self.require(user, meeting, WRITE)?;
        let number = self.kept(meeting, target).ok_or("not_found")?;
        self.require_open(meeting)?;
        let (now, message) = (self.now, &mut self.meetings[meeting].messages[number]);
        if right < HOST && (message.author != user || now - message.ts > DAY_MS) {
            return Err("forbidden");
        }
        if message.deleted.is_some() {
            return Err("conflict");
        }
        message.version += 1;
        let version = message.version;
        let seq = self.log(meeting, Entry { text, number: version, ..Entry::new(Kind::MessageEdited, user, number) });
        let message = &mut self.meetings[meeting].messages[number];
        message.last = seq;
        message.edits.push(seq);
        Ok(vec![("seq", seq.to_string()), ("version", version.to_string())])
    }

    fn delete(&mut self, client: usize, meeting: usize, target: Target) {
        let fields = format!(r#""meeting_id":"m{meeting}","id":"{}""#, self.message_id(meeting, target));
        let user = self.clients[client].user;
        let expected = self.predict_delete(user, meeting, target);
        let answer = self.ask(client, "delete_message", &fields);
        self.compare(&answer, expected);
    }

    fn predict_delete(&mut self, user: usize, meeting: usize, target: Target) -> Expected {
        let right = self.require(user, meeting, WRITE)?;
        let number = self.kept(meeting, target).ok_or("not_found")?;
        let message = &self.meetings[meeting].messages[number];
        let may_delete = right >= HOST || message.author == user;
        if let Some(seq) = message.deleted
            && may_delete
        {
            return Ok(vec![("seq", seq.to_string())]);
        }
        self.require_open(meeting)?;
        if !may_delete {
            return Err("forbidden");
        }
        let Meeting { messages, log, .. } = &mut self.meetings[meeting];
        for seq in messages[number].edits.iter().chain([&messages[number].seq]) {
            let entry = &mut log[*seq as usize - 1];
            entry.is_erased = true;
            entry.json = None;
        }
        let seq = self.log(meeting, Entry::new(Kind::MessageDeleted, user, number));
        let message = &mut self.meetings[meeting].messages[number];
        (message.last, message.deleted) = (seq, Some(seq));
        message.reactions.clear();
        Ok(vec![("seq", seq.to_string())])
    }

    fn react(&mut self, client: usize, meeting: usize, target: Target, emoji: usize, removed: bool) {
        let id = self.message_id(meeting, target);
        let fields = format!(r#""meeting_id":"m{meeting}","id":"{id}","emoji":"e{emoji}","remove":{removed}"#);
        let expected = self.predict_react(client, meeting, target, emoji, removed);
        let answer = self.ask(client, "react", &fields);
        self.compare(&answer, expected);
    }

    fn predict_react(
        &mut self,
        client: usize,
        meeting: usize,
        target: Target,
        emoji: usize,
        removed: bool,
    ) -> Expected {
        let user = self.clients[client].user;
        self.require_joined(client, meeting)?;
        self.require(user, meeting, WRITE)?;
        let number = self.kept(meeting, target).ok_or("not_found")?;
        self.require_open(meeting)?;
        let message = &mut self.meetings[meeting].messages[number];
        if message.deleted.is_some() {
            return Err("conflict");
        }
        let seq_of = |users: &Vec<(usize, u64)>| users.iter().find(|(other, _)| *other == user).map(|(_, seq)| *seq);
        let index = message.reactions.iter().position(|(other, _)| *other == emoji);
        let done = index.and_then(|index| seq_of(&message.reactions[index].1));
        let unchanged = match (done, removed) {
            (Some(seq), false) => Some(seq),
            (None, true) => Some(message.last),
            _ => None,
        };
        if let Some(seq) = unchanged {
            return Ok(vec![("seq", seq.to_string())]);
        }
        if index.is_none() && message.reactions.len() >= EMOJI_MAX {
            return Err("limit_reached");
        }
        let seq = self.meetings[meeting].log.len() as u64 + 1;
        let message = &mut self.meetings[meeting].messages[number];
        message.last = seq;
        let index = index.unwrap_or_else(|| {
            message.reactions.push((emoji, Vec::new()));
            message.reactions.len() - 1
        });
        let users = &mut message.reactions[index].1;
        if removed {
            users.retain(|(other, _)| *other != user);
        } else {
            users.push((user, seq));
        }
        let count = users.len();
        message.reactions.retain(|(_, users)| !users.is_empty());
        let entry = Entry::new(Kind::MessageReaction, user, number);
        self.log(meeting, Entry { number: emoji, removed, count, ..entry });
        Ok(vec![("seq", seq.to_string())])
    }

    fn typing(&mut self, client: usize, meeting: usize, active: bool) {
        let user = self.clients[client].user;
        let allowed = match self.require_joined(client, meeting) {
            Ok(()) => self.require(user, meeting, WRITE),
            Err(code) => Err(code),
        };
        if allowed.is_ok() {
            let typing_until = if active { self.now + TYPING_MS } else { 0 };
            if let Some(present) = self.meetings[meeting].present.get_mut(&user) {
                present.typing_until = typing_until;
            }
            self.expect(meeting, Some(user), &Told::Typing { meeting, user, active });
        }
        let answer = self.ask(client, "typing", &format!(r#""meeting_id":"m{meeting}","active":{active}"#));
        self.compare(&answer, allowed.map(|_| Vec::new()));
    }

    fn mark_read(&mut self, client: usize, meeting: usize, seq: u64) {
        let user = self.clients[client].user;
        let expected = self.require(user, meeting, READ).map(|_| {
            let first = self.first(meeting);
            let state = &mut self.meetings[meeting];
            let wanted = seq.min(state.log.len() as u64);
            let has_moved = state.marks[user].is_none_or(|mark| mark < wanted);
            if has_moved {
                // What is not kept any more counts as read.
                state.marks[user] = Some(wanted.max(first - 1));
            }
            if has_moved && !state.members.is_empty() {
                let seq = state.marks[user].unwrap_or_default();
                match state.receipts.iter_mut().find(|(reader, _)| *reader == user) {
                    Some(waiting) => waiting.1 = seq,
                    None => state.receipts.push((user, seq)),
                }
                if !std::mem::replace(&mut state.receipts_are_due, true) {
                    self.put_off(RECEIPT_PAUSE_MS, Job::Receipts(meeting));
                }
            }
            vec![("seq", self.meetings[meeting].marks[user].unwrap_or_default().to_string())]
        });
        let answer = self.ask(client, "mark_read", &format!(r#""meeting_id":"m{meeting}","seq":{seq}"#));
        self.compare(&answer, expected);
    }

    fn history(
        &mut self,
        client: usize,
        meeting: usize,
        page: PageFrom,
        limit: usize,
        kind: Option<Kind>,
        is_old_epoch: bool,
    ) {
        let mut fields = format!(r#""meeting_id":"m{meeting}","limit":{limit}"#);
        match page {
            PageFrom::Top => {}
            PageFrom::Before(seq) => fields += &format!(r#","before_seq":{seq}"#),
            PageFrom::After(seq) => fields += &format!(r#","after_seq":{seq}"#),
        }
        if let Some(kind) = kind {
            fields += &format!(r#","kinds":["{}"]"#, kind.as_str());
        }
        if is_old_epoch {
            let old = self.meetings[meeting].old_epochs.last().map_or("nonesuch", |epoch| epoch);
            fields += &format!(r#","epoch":"{old}""#);
        }
        let user = self.clients[client].user;
        let allowed = self.require(user, meeting, READ);
        let answer = self.ask(client, "get_history", &fields);
        match allowed {
            Err(code) => return self.compare(&answer, Err(code)),
            Ok(_) if is_old_epoch => return self.compare(&answer, Err("conflict")),
            Ok(_) => {}
        }
        let first = self.first(meeting);
        let log = &self.meetings[meeting].log;
        let top = log.len() as u64;
        let mut seqs: Vec<u64> = (first..=top)
            .filter(|seq| kind.is_none_or(|kind| kind == log[*seq as usize - 1].kind))
            .filter(|seq| match page {
                PageFrom::Top => true,
                PageFrom::Before(end) => *seq < end,
                PageFrom::After(start) => *seq > start,
            })
            .collect();
        let has_more = seqs.len() > limit;
        match page {
            PageFrom::After(_) => seqs.truncate(limit),
            _ => drop(seqs.drain(..seqs.len().saturating_sub(limit))),
        }
        let Ok(ack) = serde_json::from_str::<HistoryAck<'_>>(&answer) else { self.fail(format!("history: {answer}")) };
        self.count("ok");
        self.check_epoch(meeting, ack.epoch);
        if (ack.top_seq, ack.first_seq, ack.has_more) != (top, first, has_more) {
            self.fail(format!("expected {top} {first} {has_more}, got {answer}"));
        }
        self.check_items(meeting, &ack.items, seqs);
    }

    fn presence(&mut self, client: usize, meeting: usize) {
        let user = self.clients[client].user;
        let allowed = self.require(user, meeting, READ);
        let answer = self.ask(client, "get_presence", &format!(r#""meeting_id":"m{meeting}""#));
        if let Err(code) = allowed {
            return self.compare(&answer, Err(code));
        }
        let Ok(ack) = serde_json::from_str::<PresenceAck>(&answer) else { self.fail(format!("presence: {answer}")) };
        if ack.count != self.meetings[meeting].present.len() || ack.truncated {
            self.fail(format!("expected {} users, got {answer}", self.meetings[meeting].present.len()));
        }
        self.count("ok");
        self.check_users(meeting, &ack.users);
    }

    fn read_notifications(&mut self, client: usize) {
        let user = self.clients[client].user;
        self.inboxes[user].iter_mut().for_each(|is_read| *is_read = true);
        let answer = self.ask(client, "notifications_read", r#""up_to":9007199254740991"#);
        self.compare(&answer, Ok(vec![("unread", "0".into())]));
    }

    fn revoke(&mut self, user: usize, meeting: usize) {
        self.table.set(user, meeting, NONE);
        let json = self.log_update(meeting, "participant.removed", Some(user));
        self.known.remove(&(user, meeting));
        self.meetings[meeting].marks[user] = None;
        self.put_user_out(user, meeting, "removed");
        self.apply(&json, false);
        self.removals.insert((user, meeting), (json, self.now));
    }

    fn grant(&mut self, user: usize, meeting: usize, right: u8) {
        self.table.set(user, meeting, right);
        self.known.remove(&(user, meeting));
        let json = self.log_update(meeting, "participant.added", Some(user));
        self.apply(&json, false);
    }

    fn update(&mut self, meeting: usize, kind: &'static str, is_repeated: bool) {
        let json = self.log_update(meeting, kind, None);
        let closes_at = match kind {
            "meeting.cancelled" => Some(self.now),
            "meeting.ended" => Some(self.now + DAY_MS),
            _ => None,
        };
        if let Some(at) = closes_at {
            let set = &mut self.meetings[meeting].closes_at;
            *set = Some(set.map_or(at, |set| set.min(at)));
        }
        self.apply(&json, false);
        if !is_repeated {
            return;
        }
        self.apply(&json, true);
        // Nobody who is back is put out by the update that put them out before.
        for client in self.meetings[meeting].members.clone() {
            let removal = self.removals.get(&(self.clients[client].user, meeting)).cloned();
            if let Some((json, _)) = removal.filter(|(_, at)| self.now - at < DAY_MS) {
                self.apply(&json, true);
            }
        }
    }

    fn close(&mut self, meeting: usize) {
        self.meetings[meeting].closes_at = Some(self.now);
        let count = self.empty(meeting);
        let closed = ready(Arc::clone(&self.chat).close_meeting(&self.meetings[meeting].id)).unwrap();
        if closed.count != count {
            self.fail(format!("expected {count} members, got {}", closed.count));
        }
        self.look_at_emptied();
    }

    fn erase(&mut self, meeting: usize) {
        self.empty(meeting);
        let count = self.meetings[meeting].log.len() as u64 + 1 - self.first(meeting);
        let erased = ready(Arc::clone(&self.chat).erase_meeting(&self.meetings[meeting].id)).unwrap();
        if erased.count != count {
            self.fail(format!("expected {count} events, got {}", erased.count));
        }
        self.look_at_emptied();
        let Meeting { life, epoch, mut old_epochs, .. } =
            std::mem::replace(&mut self.meetings[meeting], Meeting::new(meeting));
        old_epochs.extend(epoch);
        let state = &mut self.meetings[meeting];
        (state.life, state.old_epochs) = (life + 1, old_epochs);
    }

    fn wait(&mut self, ms: u64) {
        self.now += ms;
        self.clock.store(self.now, Ordering::Relaxed);
        while let Some(entry) = self.jobs.first_entry()
            && entry.key().0 <= self.now
        {
            match entry.remove() {
                Job::Leave(meeting, user) => {
                    let state = &mut self.meetings[meeting];
                    let is_gone =
                        |present: &Present| present.devices == 0 && present.left_at + LEAVE_HOLD_MS <= self.now;
                    if !state.members.is_empty() && state.present.get(&user).is_some_and(is_gone) {
                        state.present.remove(&user);
                        let count = state.present.len();
                        self.expect(meeting, None, &Told::Gone { meeting, user });
                        self.expect(meeting, None, &Told::Count { meeting, count });
                    }
                }
                Job::Receipts(meeting) => {
                    self.meetings[meeting].receipts_are_due = false;
                    for (user, seq) in std::mem::take(&mut self.meetings[meeting].receipts) {
                        self.expect(meeting, None, &Told::Receipt { meeting, user, seq });
                    }
                }
            }
        }
        self.chat.handle_timeout();
        self.pending.settle();
        // What is unread is as it is now, so it has to be looked at now.
        (0..CLIENTS).for_each(|client| self.look_at(client));
    }

    /// Everybody goes, and nothing is left.
    fn end(&mut self) {
        for client in 0..CLIENTS {
            self.kill(client);
            self.look_at_touched();
        }
        let counts = (self.chat.meeting_count(), self.chat.socket_count(), self.chat.user_count());
        if counts != (0, 0, 0) {
            self.fail(format!("meetings, sockets and users that are left: {counts:?}"));
        }
        let admin = Identity { is_admin: true, ..Identity::anonymous("admin") };
        for meeting in 0..MEETINGS {
            let caller = self.chat.visitor(admin.clone()).unwrap();
            let presence = command::Presence { meeting: self.meetings[meeting].id.clone(), limit: 1 };
            let answer = ready(Arc::clone(&self.chat).presence(caller, presence)).unwrap();
            let answer = serde_json::to_string(&answer).unwrap();
            if answer != r#"{"count":0,"users":[],"truncated":false}"# {
                self.fail(format!("present in an empty meeting: {answer}"));
            }
        }
        for user in 0..USERS {
            let caller = self.chat.visitor(Identity::anonymous(&format!("u{user}"))).unwrap();
            let unread = ready(Arc::clone(&self.chat).unread(caller)).unwrap();
            self.check_unread(user, unread.get());
        }
        // Each job has its time, and only the sweep comes again.
        for _ in 0..2 {
            self.wait(2 * 60_000);
        }
        if self.chat.next_deadline() != Some(self.now + 60_000) {
            self.fail("jobs are left");
        }
        // A run that never got anywhere has shown nothing.
        if let Some(missing) = ANSWERS.iter().find(|answer| !self.answers.contains_key(answer)) {
            self.fail(format!("nobody was answered {missing:?}: {:?}", self.answers));
        }
        if self.events < OPERATIONS / 8 || self.frames < 3 * self.events {
            self.fail(format!("only {} events, of which {} were delivered", self.events, self.frames));
        }
    }

    // The model.

    /// What a user may do, as the chat may know it: what it was told it uses for a while.
    fn right(&mut self, user: usize, meeting: usize) -> u8 {
        match self.known.get(&(user, meeting)) {
            Some((right, until)) if self.now < *until => *right,
            _ => {
                let right = self.table.get(user, meeting);
                self.known.insert((user, meeting), (right, self.now + RIGHT_KEPT_MS));
                right
            }
        }
    }

    fn require(&mut self, user: usize, meeting: usize, needed: u8) -> Result<u8, &'static str> {
        let right = self.right(user, meeting);
        if right == NONE {
            self.put_user_out(user, meeting, "forbidden");
        }
        if right >= needed { Ok(right) } else { Err("forbidden") }
    }

    fn require_joined(&mut self, client: usize, meeting: usize) -> Result<(), &'static str> {
        if self.clients[client].rooms.contains(&meeting) {
            return Ok(());
        }
        // Nobody is in a meeting that was closed; but that it was is told only to who may read it.
        let is_open = self.require_open(meeting).is_ok();
        let is_told = !is_open && self.right(self.clients[client].user, meeting) != NONE;
        Err(if is_told { "room_closed" } else { "not_joined" })
    }

    fn require_open(&self, meeting: usize) -> Result<(), &'static str> {
        match self.meetings[meeting].closes_at {
            Some(at) if at <= self.now => Err("room_closed"),
            _ => Ok(()),
        }
    }

    fn may_read(&mut self, user: usize, meeting: usize) -> bool {
        let is_online = self.clients.iter().any(|client| client.user == user && client.line.is_some());
        // Of somebody who is away it is enough that they have read there, and were not removed since.
        self.right(user, meeting) >= READ || !is_online && self.meetings[meeting].marks[user].is_some()
    }

    /// A message that is still in its meeting's log.
    fn kept(&mut self, meeting: usize, target: Target) -> Option<usize> {
        let Target::Message(number) = target else { return None };
        let first = self.first(meeting);
        (self.meetings[meeting].messages[number].seq >= first).then_some(number)
    }

    fn message_id(&self, meeting: usize, target: Target) -> String {
        match target {
            Target::Message(number) => self.meetings[meeting].messages[number].id.clone(),
            Target::Elsewhere(other, number) => self.meetings[other].messages[number].id.clone(),
            Target::Unknown => NO_MESSAGE.into(),
        }
    }

    /// The first event that is still kept; one behind the last if none is.
    fn first(&mut self, meeting: usize) -> u64 {
        let (now, limits, state) = (self.now, self.limits, &mut self.meetings[meeting]);
        let top = state.log.len() as u64;
        state.first = state.first.max((top + 1).saturating_sub(limits.history_size as u64));
        while state.first <= top && now - state.log[state.first as usize - 1].ts > limits.history_ttl_ms {
            state.first += 1;
        }
        state.first
    }

    /// Puts an event into the log, for everybody who is there. Returns its seq.
    fn log(&mut self, meeting: usize, entry: Entry) -> u64 {
        let state = &mut self.meetings[meeting];
        let before = state.log.last().map_or(0, |entry| entry.total);
        let total = before + usize::from(entry.kind == Kind::ChatMessage);
        state.log.push(Entry { ts: self.now, total, ..entry });
        self.events += 1;
        let seq = state.log.len() as u64;
        for client in state.members.clone() {
            self.touch(client);
        }
        seq
    }

    fn log_update(&mut self, meeting: usize, kind: &'static str, user: Option<usize>) -> String {
        let number = self.done.len();
        self.log(meeting, Entry { text: kind.into(), number, ..Entry::new(Kind::MeetingUpdate, 0, 0) });
        let mut json = format!(r#"{{"id":"update {number}","type":"{kind}","meeting_id":"m{meeting}""#);
        if let Some(user) = user {
            json += &format!(r#","user_ids":["u{user}"]"#);
            self.notify(user, meeting, kind);
        }
        json + "}"
    }

    fn notify(&mut self, user: usize, meeting: usize, kind: &str) {
        let inbox = &mut self.inboxes[user];
        if inbox.len() >= INBOX_MAX {
            inbox.remove(0);
        }
        inbox.push(false);
        for client in self.sockets_of(user) {
            self.clients[client].expected.push(Told::Notified { meeting, kind: kind.into() });
            self.touch(client);
        }
    }

    fn sockets_of(&self, user: usize) -> Vec<usize> {
        let clients = self.clients.iter().enumerate();
        clients.filter(|(_, client)| client.user == user && client.line.is_some()).map(|(index, _)| index).collect()
    }

    fn comes(&mut self, client: usize, meeting: usize) {
        let user = self.clients[client].user;
        self.clients[client].rooms.push(meeting);
        let state = &mut self.meetings[meeting];
        state.members.push(client);
        if let Some(present) = state.present.get_mut(&user) {
            present.devices += 1;
            return;
        }
        state.present.insert(user, Present { devices: 1, ..Present::default() });
        let count = state.present.len();
        self.expect(meeting, Some(user), &Told::Come { meeting, user, count });
    }

    fn goes(&mut self, client: usize, meeting: usize) {
        let user = self.clients[client].user;
        self.clients[client].rooms.retain(|room| *room != meeting);
        let (now, state) = (self.now, &mut self.meetings[meeting]);
        state.members.retain(|member| *member != client);
        let Some(present) = state.present.get_mut(&user) else { self.fail("a member who is not present") };
        let was_typing = std::mem::take(&mut present.typing_until) > now;
        present.devices -= 1;
        let is_last = present.devices == 0;
        if is_last {
            present.left_at = now;
        }
        if was_typing {
            self.expect(meeting, Some(user), &Told::Typing { meeting, user, active: false });
        }
        if is_last {
            self.put_off(LEAVE_HOLD_MS, Job::Leave(meeting, user));
        }
        let state = &mut self.meetings[meeting];
        if state.members.is_empty() {
            // With the last one goes the room, and whatever waits in it.
            state.present.clear();
            state.receipts.clear();
            state.receipts_are_due = false;
        }
    }

    fn put_out(&mut self, client: usize, meeting: usize, reason: &str) {
        self.goes(client, meeting);
        self.clients[client].expected.push(Told::Left { meeting, reason: reason.into() });
        self.touch(client);
    }

    fn put_user_out(&mut self, user: usize, meeting: usize, reason: &str) {
        for client in self.sockets_of(user) {
            if self.clients[client].rooms.contains(&meeting) {
                self.put_out(client, meeting, reason);
            }
        }
    }

    /// Puts everybody out. Returns how many those are.
    fn empty(&mut self, meeting: usize) -> u64 {
        self.emptied = Some(meeting);
        let members = self.meetings[meeting].members.clone();
        for client in &members {
            self.put_out(*client, meeting, "closed");
        }
        members.len() as u64
    }

    fn put_off(&mut self, pause_ms: u64, job: Job) {
        self.last_number += 1;
        self.jobs.insert((self.now + pause_ms, self.last_number), job);
    }

    /// Members are told, but for one user.
    fn expect(&mut self, meeting: usize, except: Option<usize>, told: &Told) {
        for client in self.meetings[meeting].members.clone() {
            if except != Some(self.clients[client].user) {
                self.clients[client].expected.push(told.clone());
                self.touch(client);
            }
        }
    }

    fn touch(&mut self, client: usize) {
        if !std::mem::replace(&mut self.clients[client].is_touched, true) {
            self.touched.push(client);
        }
    }

    fn unread(&self, user: usize, meeting: usize) -> Option<usize> {
        let state = &self.meetings[meeting];
        let mark = state.marks[user]?;
        let total = |seq: usize| seq.checked_sub(1).map_or(0, |index| state.log[index].total);
        let own = &state.own[user];
        let own_above = own.len() - own.partition_point(|seq| *seq <= mark);
        Some((total(state.log.len()) - total(mark as usize) - own_above).min(UNREAD_MAX))
    }

    fn logged(&self, meeting: usize, seq: u64) -> Logged {
        let state = &self.meetings[meeting];
        let entry = &state.log[seq as usize - 1];
        let user = Some(format!("u{}", entry.author));
        let about = |number: usize| Some(state.messages[number].id.clone());
        let text = Some(if entry.is_erased { String::new() } else { entry.text.clone() });
        let deleted = entry.is_erased.then_some(true);
        let all = Logged {
            seq,
            epoch: state.epoch.clone().unwrap_or_default(),
            ts: entry.ts,
            meeting_id: state.id.as_str().into(),
            ..Logged::default()
        };
        match entry.kind {
            Kind::ChatMessage => {
                let message = &state.messages[entry.message];
                Logged {
                    id: about(entry.message),
                    sender_name: user.as_ref().map(|user| format!("Name of {user}")),
                    sender: user,
                    client_id: message.client_id.clone(),
                    reply_to: message.reply_to.and_then(about),
                    mentions: message.mention.map(|user| vec![format!("u{user}")]),
                    meta: (message.has_meta && !entry.is_erased).then(|| serde_json::json!({"k": [1]})),
                    text,
                    deleted,
                    ..all
                }
            }
            Kind::MessageEdited => {
                Logged { id: about(entry.message), version: Some(entry.number), editor: user, text, deleted, ..all }
            }
            Kind::MessageDeleted => Logged { id: about(entry.message), deleted_by: user, ..all },
            Kind::MessageReaction => Logged {
                id: about(entry.message),
                user_id: user,
                emoji: Some(format!("e{}", entry.number)),
                removed: Some(entry.removed),
                count: Some(entry.count),
                ..all
            },
            Kind::MeetingUpdate => Logged {
                kind: Some(entry.text.clone()),
                event_id: Some(format!("update {}", entry.number)),
                data: Some(serde_json::json!({})),
                ..all
            },
        }
    }

    // The chat, and how it is compared with the model.

    fn ask(&mut self, client: usize, event: &'static str, fields: &str) -> String {
        self.ask_about(client, event, fields, About::Other)
    }

    /// Sends an event that wants an answer, and looks at everything until the answer.
    fn ask_about(&mut self, client: usize, event: &'static str, fields: &str, about: About) -> String {
        self.event = event;
        self.clients[client].next_ack += 1;
        let id = self.clients[client].next_ack;
        self.clients[client].asked = Some(Asked { id, about });
        self.tell(client, &format!(r#"{id}["{event}",{{{fields}}}]"#));
        self.clients[client].answer.take().unwrap_or_else(|| self.fail("no answer"))
    }

    fn tell(&mut self, client: usize, event: &str) {
        let Some(line) = &self.clients[client].line else { self.fail("nobody is there to ask") };
        if let Err(error) = line.connection.handle_text(&format!("2{event}"), self.instant) {
            self.fail(format!("{error:?}"));
        }
        self.pending.settle();
        self.look_at(client);
    }

    fn apply(&mut self, json: &str, is_duplicate: bool) {
        match ready(Arc::clone(&self.chat).update(json)) {
            Ok(updated) if updated.duplicate == is_duplicate => {}
            answer => self.fail(format!("update: {answer:?}")),
        }
        self.pending.settle();
    }

    fn look_at_touched(&mut self) {
        while let Some(client) = self.touched.pop() {
            self.look_at(client);
        }
    }

    fn look_at_emptied(&mut self) {
        self.pending.settle();
        self.look_at_touched();
        self.emptied = None;
    }

    /// Takes what waits for a client, and compares what it knows then with the model.
    fn look_at(&mut self, client: usize) {
        self.clients[client].is_touched = false;
        let Some(line) = &self.clients[client].line else { return };
        for frame in line.outbox.take_all() {
            match std::str::from_utf8(frame.payload()) {
                Ok(packet) => self.receive(client, packet),
                Err(_) => self.fail("not UTF-8"),
            }
        }
        let Client { told, expected, rooms, fronts, .. } = &mut self.clients[client];
        if let Some(emptied) = self.emptied {
            let is_open =
                |told: &Told| matches!(told, Told::Typing { meeting, active: false, .. } if *meeting == emptied);
            told.retain(|told| !is_open(told));
            expected.retain(|told| !is_open(told));
        }
        told.sort_unstable();
        expected.sort_unstable();
        if told != expected {
            let what = format!("client {client} was to be told {expected:?}, and was told {told:?}");
            self.fail(what);
        }
        told.clear();
        expected.clear();
        let joined = fronts.iter().filter(|front| front.is_joined).count();
        if joined != rooms.len() || !rooms.iter().all(|room| fronts[*room].is_joined) {
            self.fail(format!("client {client} should be in {:?}", self.clients[client].rooms));
        }
        for room in &self.clients[client].rooms {
            let (has, top) = (self.clients[client].fronts[*room].seq, self.meetings[*room].log.len() as u64);
            if has != top {
                self.fail(format!("client {client} has {has} of {top} events of m{room}"));
            }
        }
    }

    fn receive(&mut self, client: usize, packet: &str) {
        if let Some(ack) = packet.strip_prefix("43") {
            let (id, answer) = ack.split_at(ack.find('[').unwrap_or_default());
            let answer = answer.strip_prefix('[').and_then(|answer| answer.strip_suffix(']')).unwrap_or_default();
            return self.receive_answer(client, id, answer);
        }
        if packet.starts_with("40{\"sid\":") {
            return;
        }
        let Some((name, json)) = packet.strip_prefix("42[\"").and_then(|event| event.split_once("\",")) else {
            self.fail(format!("client {client} got {packet}"));
        };
        let json = json.strip_suffix(']').unwrap_or_default();
        if let Some(kind) = KINDS.iter().position(|kind| *kind == name) {
            return self.receive_logged(client, Kind::ALL[kind], json);
        }
        let user = self.clients[client].user;
        let told = match name {
            "ready" => {
                let unread = json.split_once("\"unread\":").unwrap_or_default().1;
                self.check_unread(user, unread);
                self.clients[client].answer = Some(String::new());
                return;
            }
            "unread" => return self.check_unread(user, json),
            "chat_error" => {
                self.clients[client].chat_error = Some(json.into());
                return;
            }
            "typing" => Told::Typing {
                meeting: meeting(json),
                user: number(json, "\"user_id\":\"u"),
                active: flag(json, "\"active\":"),
            },
            "presence_update" => {
                let (meeting, user, count) = (meeting(json), number(json, "\"id\":\"u"), number(json, "\"count\":"));
                match field(json, "\"event\":") {
                    Some("join") => Told::Come { meeting, user, count },
                    Some("leave") => {
                        self.clients[client].told.push(Told::Count { meeting, count });
                        Told::Gone { meeting, user }
                    }
                    _ => self.fail(format!("client {client} got {packet}")),
                }
            }
            "read_receipt" => {
                let seq = number(json, "\"seq\":") as u64;
                Told::Receipt { meeting: meeting(json), user: number(json, "\"user_id\":\"u"), seq }
            }
            "room_left" => {
                Told::Left { meeting: meeting(json), reason: field(json, "\"reason\":").unwrap_or_default().into() }
            }
            "notification" => {
                Told::Notified { meeting: meeting(json), kind: field(json, "\"kind\":").unwrap_or_default().into() }
            }
            _ => self.fail(format!("client {client} got {packet}")),
        };
        match &told {
            // These are the user's own, wherever they are.
            Told::Notified { .. } => {}
            Told::Typing { meeting, .. }
            | Told::Come { meeting, .. }
            | Told::Gone { meeting, .. }
            | Told::Count { meeting, .. }
            | Told::Receipt { meeting, .. }
            | Told::Left { meeting, .. } => {
                let front = &mut self.clients[client].fronts[*meeting];
                if !std::mem::replace(&mut front.is_joined, !matches!(told, Told::Left { .. })) {
                    self.fail(format!("client {client} is not there, and got {packet}"));
                }
            }
        }
        self.clients[client].told.push(told);
    }

    /// A logged event is the next one, and what the model says.
    fn receive_logged(&mut self, client: usize, kind: Kind, json: &str) {
        let (meeting, seq) = (meeting(json), number(json, "\"seq\":") as u64);
        let (front, state) = (&mut self.clients[client].fronts[meeting], &self.meetings[meeting]);
        if !front.is_joined {
            self.fail(format!("client {client} is not there, and got {json}"));
        }
        if front.life != state.life || seq != front.seq + 1 {
            let has = front.seq;
            self.fail(format!("client {client} has {has}, and got {json}"));
        }
        front.seq = seq;
        self.frames += 1;
        self.check_event(meeting, seq, kind, json);
    }

    fn receive_answer(&mut self, client: usize, id: &str, answer: &str) {
        let asked = self.clients[client].asked.take();
        let Some(asked) = asked.filter(|asked| asked.id.to_string() == id) else {
            self.fail(format!("client {client} got an answer that it did not ask for: {id} {answer}"));
        };
        let is_ok = answer.starts_with("{\"ok\":true");
        let front = |meeting: usize| &self.clients[client].fronts[meeting];
        match asked.about {
            About::Join { meeting, since } if is_ok => {
                // What it gets in the answer it applies there: `join` compares that with the model. What is told up to
                // here it has, what is told from here on follows.
                let seq = number(answer, "\"seq\":") as u64;
                let was_joined = front(meeting).is_joined;
                if since.is_some_and(|since| since > seq) || was_joined && front(meeting).seq > seq {
                    self.fail(format!("client {client} is put back: {answer}"));
                }
                let epoch = field(answer, "\"epoch\":").unwrap_or_default().into();
                let life = self.meetings[meeting].life;
                self.clients[client].fronts[meeting] = Front { is_joined: true, life, epoch, seq };
            }
            About::Leave { meeting } if is_ok => self.clients[client].fronts[meeting].is_joined = false,
            _ => {}
        }
        self.clients[client].answer = Some(answer.into());
    }

    fn count(&mut self, outcome: &'static str) {
        *self.answers.entry((self.event, outcome)).or_default() += 1;
    }

    /// Compares an answer with what the model says.
    fn compare(&mut self, answer: &str, expected: Expected) {
        let is_repeated = |(name, value): &(&str, String)| *name == "duplicate" && value == "true";
        let outcome = match &expected {
            Ok(fields) if fields.iter().any(is_repeated) => "duplicate",
            Ok(_) => "ok",
            Err(code) => *code,
        };
        self.count(outcome);
        match expected {
            Ok(fields) => {
                let has =
                    |(name, value): &(&str, String)| raw_field(answer, &format!("\"{name}\":")) == Some(value.as_str());
                if !answer.starts_with("{\"ok\":true") || !fields.iter().all(has) {
                    self.fail(format!("expected {fields:?}, got {answer}"));
                }
            }
            Err(code) => {
                if !answer.starts_with(&format!(r#"{{"ok":false,"error":{{"code":"{code}""#)) {
                    self.fail(format!("expected {code}, got {answer}"));
                }
            }
        }
    }

    /// As [`compare`](Self::compare), and the message's id is the one that everybody got.
    fn compare_placed(&mut self, answer: &str, user: usize, meeting: usize, expected: Expected) {
        if expected.is_ok() {
            let seq = number(answer, "\"seq\":") as u64;
            let id = field(answer, "\"id\":").unwrap_or_default();
            let message = self.meetings[meeting].messages.iter().rev().find(|message| message.seq == seq);
            if !message.is_some_and(|message| message.id == id && message.author == user) {
                self.fail(format!("another message than the one that was logged: {answer}"));
            }
        }
        self.compare(answer, expected);
    }

    /// An event is as the model says, and the same for everybody.
    fn check_event(&mut self, meeting: usize, seq: u64, kind: Kind, json: &str) {
        let entry = self.meetings[meeting].log.get(seq as usize - 1);
        let Some(entry) = entry.filter(|entry| entry.kind == kind) else {
            self.fail(format!("no such {} was logged: {json}", kind.as_str()));
        };
        if entry.json.as_deref() == Some(json) {
            return;
        }
        if kind == Kind::ChatMessage && self.meetings[meeting].messages[entry.message].id.is_empty() {
            let message = entry.message;
            self.meetings[meeting].messages[message].id = field(json, "\"id\":").unwrap_or_default().into();
        }
        self.check_epoch(meeting, field(json, "\"epoch\":").unwrap_or_default());
        let expected = self.logged(meeting, seq);
        let logged: Result<Logged, _> = serde_json::from_str(json);
        if !logged.as_ref().is_ok_and(|logged| *logged == expected) {
            self.fail(format!("expected {expected:?}, got {logged:?}: {json}"));
        }
        let entry = &mut self.meetings[meeting].log[seq as usize - 1];
        if entry.json.is_some() {
            self.fail(format!("not the same for everybody: {json}"));
        }
        entry.json = Some(json.into());
    }

    fn check_items(&mut self, meeting: usize, items: &[&RawValue], seqs: Vec<u64>) {
        let got: Vec<u64> = items.iter().map(|item| number(item.get(), "\"seq\":") as u64).collect();
        if got != seqs {
            self.fail(format!("expected events {seqs:?}, got {got:?}"));
        }
        for (item, seq) in items.iter().zip(seqs) {
            let kind = self.meetings[meeting].log[seq as usize - 1].kind;
            let Some(rest) = item.get().strip_prefix(&format!("{{\"event\":\"{}\",", kind.as_str())) else {
                self.fail(format!("expected {}, got {item}", kind.as_str()));
            };
            self.check_event(meeting, seq, kind, &format!("{{{rest}"));
        }
    }

    fn check_epoch(&mut self, meeting: usize, epoch: &str) {
        let state = &mut self.meetings[meeting];
        let is_new = state.epoch.is_none() && !state.old_epochs.iter().any(|old| *old == *epoch);
        if is_new && !epoch.is_empty() {
            state.epoch = Some(epoch.into());
        } else if state.epoch.as_deref() != Some(epoch) {
            self.fail(format!("epoch {epoch}"));
        }
    }

    fn check_users(&self, meeting: usize, users: &[Person]) {
        let mut got: Vec<_> = users.iter().map(|user| (user.id.clone(), user.devices)).collect();
        let present = self.meetings[meeting].present.iter();
        let mut expected: Vec<_> = present.map(|(user, present)| (format!("u{user}"), present.devices)).collect();
        got.sort_unstable();
        expected.sort_unstable();
        if got != expected {
            self.fail(format!("expected {expected:?}, got {got:?}"));
        }
    }

    /// What is unread, as JSON: everything that the model says, and nothing else.
    fn check_unread(&self, user: usize, json: &str) {
        let unread = self.inboxes[user].iter().filter(|is_read| !**is_read).count();
        let meetings =
            json.split_once("\"meetings\":{").and_then(|(_, rest)| rest.split_once('}')).unwrap_or_default().0;
        let mut pairs = 0;
        let is_right = |pair: &str| {
            let (id, count) = pair.split_once("\":")?;
            let expected = self.unread(user, id.strip_prefix("\"m")?.parse().ok()?)?;
            (count.parse() == Ok(expected)).then_some(())
        };
        for pair in meetings.split(',').filter(|pair| !pair.is_empty()) {
            pairs += 1;
            if is_right(pair).is_none() {
                self.fail(format!("unread of u{user}: {pair} in {json}"));
            }
        }
        let marked = self.meetings.iter().filter(|meeting| meeting.marks[user].is_some()).count();
        if pairs != marked || number(json, "\"notifications\":") != unread {
            self.fail(format!("expected {marked} meetings and {unread} notifications of u{user}, got {json}"));
        }
    }
}

impl Operation {
    /// The client or user, and the meeting.
    fn concerns(self) -> (Option<usize>, Option<usize>) {
        match self {
            Self::Connect { client } | Self::Kill { client } | Self::ReadNotifications { client } => {
                (Some(client), None)
            }
            Self::Join { client, meeting, .. }
            | Self::Leave { client, meeting }
            | Self::Send { client, meeting, .. }
            | Self::Edit { client, meeting, .. }
            | Self::Delete { client, meeting, .. }
            | Self::React { client, meeting, .. }
            | Self::Typing { client, meeting, .. }
            | Self::MarkRead { client, meeting, .. }
            | Self::History { client, meeting, .. }
            | Self::Presence { client, meeting } => (Some(client), Some(meeting)),
            Self::Revoke { user, meeting }
            | Self::Grant { user, meeting, .. }
            | Self::ChangeRight { user, meeting, .. } => (Some(user), Some(meeting)),
            Self::Update { meeting, .. } | Self::Close { meeting } | Self::Erase { meeting } => (None, Some(meeting)),
            Self::Wait { .. } => (None, None),
        }
    }
}

impl Client {
    fn new(user: usize) -> Self {
        Self {
            user,
            line: None,
            next_ack: 0,
            asked: None,
            answer: None,
            chat_error: None,
            fronts: vec![Front::default(); MEETINGS],
            told: Vec::new(),
            rooms: Vec::new(),
            expected: Vec::new(),
            is_touched: false,
            wanted: Vec::new(),
            last_sent: HashMap::new(),
        }
    }
}

impl Meeting {
    fn new(meeting: usize) -> Self {
        Self {
            id: RoomId::new(&format!("m{meeting}")),
            life: 1,
            epoch: None,
            old_epochs: Vec::new(),
            log: Vec::new(),
            first: 1,
            messages: Vec::new(),
            own: vec![Vec::new(); USERS],
            marks: vec![None; USERS],
            sent: HashMap::new(),
            closes_at: None,
            members: Vec::new(),
            present: BTreeMap::new(),
            receipts: Vec::new(),
            receipts_are_due: false,
        }
    }
}

impl Entry {
    fn new(kind: Kind, author: usize, message: usize) -> Self {
        let (ts, text, number, total, count) = (0, String::new(), 0, 0, 0);
        Self { kind, author, ts, message, text, number, removed: false, count, total, is_erased: false, json: None }
    }
}

/// Who may do what, by user and meeting.
pub(crate) struct Rights(Vec<AtomicU8>);

impl Rights {
    /// Everybody may write everywhere.
    pub(crate) fn all() -> Self {
        Self((0..USERS * MEETINGS).map(|_| AtomicU8::new(WRITE)).collect())
    }

    fn get(&self, user: usize, meeting: usize) -> u8 {
        self.0[user * MEETINGS + meeting].load(Ordering::Relaxed)
    }

    fn set(&self, user: usize, meeting: usize, right: u8) {
        self.0[user * MEETINGS + meeting].store(right, Ordering::Relaxed);
    }
}

impl Participants for Rights {
    fn right(&self, meeting: &str, user: &str, _now: u64) -> Pin<Box<dyn Future<Output = Noted> + Send + '_>> {
        let number = |id: &str| id[1..].parse().unwrap();
        let right = match self.get(number(user), number(meeting)) {
            READ => Some(Right::Read),
            WRITE => Some(Right::Write),
            HOST => Some(Right::Host),
            _ => None,
        };
        Box::pin(async move { Ok(right) })
    }
}

/// There is nobody to ask.
struct NoFetch;

impl Fetch for NoFetch {
    fn fetch(&self, _: FetchRequest) -> Pin<Box<dyn Future<Output = Result<FetchResponse, FetchError>> + Send + '_>> {
        Box::pin(async { Err(FetchError::BadUrl) })
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
type Turns = Box<dyn FnOnce() + Send>;

/// What the chat has handed over to others.
#[derive(Clone, Default)]
pub(crate) struct Pending {
    tasks: Arc<Mutex<Vec<Task>>>,
    turns: Arc<Mutex<Vec<Turns>>>,
}

impl Pending {
    /// Does everything: nothing here has to wait.
    pub(crate) fn settle(&self) {
        loop {
            let (tasks, turns) =
                (std::mem::take(&mut *self.tasks.lock().unwrap()), std::mem::take(&mut *self.turns.lock().unwrap()));
            if tasks.is_empty() && turns.is_empty() {
                return;
            }
            turns.into_iter().for_each(|turn| turn());
            tasks.into_iter().for_each(ready);
        }
    }
}

/// What a future gives that is done at once.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match Box::pin(future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("nothing here has to wait"),
    }
}

pub(crate) fn parts(clock: &Arc<AtomicU64>, table: &Arc<Rights>, pending: &Pending, limits: MemoryLimits) -> Parts {
    let tokens = TokenSettings {
        algorithms: vec![Algorithm::Hs256],
        key: KeySource::Secret(SECRET.into()),
        user_claim: None,
        require_exp: false,
        issuer: None,
        audience: None,
    };
    let off = Rate::OFF;
    let (clock, tasks, turns) = (Arc::clone(clock), Arc::clone(&pending.tasks), Arc::clone(&pending.turns));
    let participants: Arc<dyn Participants> = Arc::clone(table) as _;
    Parts {
        store: Arc::new(Memory::new(limits)),
        cluster: None,
        instance: "instance0001".into(),
        access: Arc::new(Access::new(RoomPolicy::Members, None, participants, Arc::new(NoFetch))),
        authenticator: Some(Arc::new(Authenticator::new(tokens, None, Arc::new(NoFetch)).unwrap())),
        metrics: Arc::new(Metrics::new(SystemTime::now())),
        clock: Box::new(move || clock.load(Ordering::Relaxed)),
        spawn: Box::new(move |task| tasks.lock().unwrap().push(task)),
        offload: Box::new(move |turn| turns.lock().unwrap().push(turn)),
        settings: Settings {
            max_payload: 65_536,
            answer_max_bytes: 256 * 1024,
            token_in_query: false,
            rates: Rates { message: off, typing: off, join: off, history: off, event: off, room: off },
            strikes: StrikeLimits { max: 0, window_ms: 60_000 },
            penalty_ms: 30_000,
            sockets_per_user: 20,
            rooms_per_socket: 100,
            users_per_room: 10_000,
            reminders: Vec::new(),
            room_close_after_ms: DAY_MS,
        },
    }
}

/// A token without an end.
pub(crate) fn token(user: usize) -> String {
    let claims = format!(r#"{{"sub":"u{user}","name":"Name of u{user}"}}"#);
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(claims));
    let signature = HS256Key::from_bytes(SECRET).authentication_tag(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn any_right(rng: &mut Rng) -> u8 {
    match rng.u8(..100) {
        0..8 => NONE,
        8..20 => READ,
        20..88 => WRITE,
        _ => HOST,
    }
}

// Fields are found by their names: no text here holds one, and most frames are never read otherwise.

/// A value as it stands there.
fn raw_field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let value = json.split_once(name)?.1;
    Some(&value[..value.find([',', '}']).unwrap_or(value.len())])
}

fn field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    raw_field(json, name).map(|value| value.trim_matches('"'))
}

fn number(json: &str, name: &str) -> usize {
    let digits = json.split_once(name).unwrap_or_default().1;
    let digits = &digits[..digits.find(|char: char| !char.is_ascii_digit()).unwrap_or(digits.len())];
    digits.parse().unwrap_or_else(|_| panic!("no number at {name} in {json}"))
}

fn flag(json: &str, name: &str) -> bool {
    raw_field(json, name) == Some("true")
}

fn meeting(json: &str) -> usize {
    number(json, "\"meeting_id\":\"m")
}
