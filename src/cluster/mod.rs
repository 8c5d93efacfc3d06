//! The other instances, and whoever else publishes on Redis.
//!
//! Listens to the channels that matter here (one for each meeting that somebody here is in, and a few for all), and hands
//! what comes to the application by its trait [`Deliver`]. What the application tells others is published. Messages that
//! nobody can read are counted and dropped.
//!
//! Left to others: what anything means (`chat`), what is kept of it (`store`), connections (`redis`), formats (`adapter`).
//! Start at [`Cluster`]: listening and telling. How instances know of one another is in `members`, who is where in
//! `presence`, what they remember of logs in `known`, which tokens are bad in `revocations`, the stream in `updates`.

mod hearing;
mod known;
mod members;
mod presence;
mod revocations;
#[cfg(test)]
mod tests;
mod updates;

use std::{
    borrow::Cow,
    collections::HashSet,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::Value;
use smol::Timer;

use crate::{
    adapter::{
        Event, Values,
        classic::{self, Broadcast, Channels, Flags, Meta, Reply, Response},
        python,
        rooms::room_of_meeting,
    },
    metrics::{Metrics, RedisGauges},
    redis::{Call, CallError, Redis, Script, State, SubscribeError, Subscriber, reply},
    store::LogEvent,
    types::RoomId,
};

/// This instance among the others.
pub struct Cluster {
    redis: Redis,
    subscriber: OnceLock<Subscriber>,
    deliver: OnceLock<Arc<dyn Deliver>>,
    /// The channels of meetings.
    channels: papaya::HashMap<RoomId, Arc<Channel>>,
    /// The last events that are known, of all meetings that are listened to or were written to lately.
    known: papaya::HashMap<RoomId, known::Top>,
    /// Held while a channel is taken or given up.
    giving_up: Mutex<()>,
    /// Who has left meetings without the others being told.
    untold: Mutex<HashSet<(RoomId, Arc<str>)>>,
    /// All channels that stood before the connection there is stand.
    is_hearing: AtomicBool,
    /// The channels that are not meetings' have stood.
    is_listening: AtomicBool,
    /// Since when they do not.
    deaf_since: Mutex<Option<Instant>>,
    /// Since when the server has been there at each sweep, in ms since the epoch.
    up_since: Mutex<Option<u64>>,
    /// The last connection for commands.
    connection: AtomicU64,
    /// The server process at which this instance was admitted last; empty: none yet.
    run_id: Mutex<Box<str>>,
    /// The last heartbeat, by the server's clock, in ms.
    beat_at: AtomicU64,
    /// Why the server refuses to write, in its word for it.
    trouble: Mutex<Option<Box<str>>>,
    /// Somebody is looking whether it does.
    is_suspected: AtomicBool,
    /// What is known here is being compared with what others have noted.
    is_looking: AtomicBool,
    /// No more is to be begun.
    is_ending: AtomicBool,
    /// Held while updates of the stream are applied.
    applying: smol::lock::Mutex<()>,
    members: members::Members,
    names: Names,
    settings: Settings,
    metrics: Arc<Metrics>,
    spawn: Spawn,
    /// Messages that were left out unread, as far as the log was told.
    left_out: AtomicU64,
    /// When it was last said in the log that something could not be read.
    warned_at: Mutex<Option<Instant>>,
}

/// What an operator can set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// In front of the adapter's channels: `socket.io`.
    pub adapter_prefix: Box<str>,
    /// In front of our own keys and channels: `chat:`.
    pub key_prefix: Box<str>,
    /// What is acked has to be on replicas.
    pub needs_replicas: bool,
    /// Where python-socketio and Flask-SocketIO publish.
    pub python_channels: Vec<Box<str>>,
}

/// How it stands with Redis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RedisState {
    /// There is none.
    Disabled,
    /// All is well.
    Up,
    /// It cannot be used, and why.
    Down(Box<str>),
}

impl RedisState {
    /// In one word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Up => "up",
            Self::Down(_) => "down",
        }
    }
}

impl fmt::Display for RedisState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down(why) => write!(f, "down: {why}"),
            _ => f.write_str(self.as_str()),
        }
    }
}

/// Runs a future on a task of its own.
pub type Spawn = Box<dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync>;

/// What the application does with what it hears. Called on the task that listens: to be quick.
pub trait Deliver: Send + Sync + 'static {
    /// Another instance has logged an event of a meeting that somebody here may be in.
    fn logged(&self, meeting: RoomId, event: LogEvent);

    /// Somebody emits an event.
    fn emit(&self, emit: Emit);

    /// Another instance notes something, in the application's own words.
    fn note(&self, peer: &Arc<str>, meeting: Option<RoomId>, note: &str);

    /// Another server asks for something.
    fn request(&self, request: classic::Request);

    /// A Python process asks for something beside emitting.
    fn python(&self, method: python::Method<'_>);

    /// A service tells of a meeting.
    fn update(&self, json: &str);

    /// The same, but it was said `at` that time, is kept, and comes again until this is true.
    fn kept_update(&self, json: String, at: u64) -> Pin<Box<dyn Future<Output = bool> + Send>>;

    /// A service tells of tokens.
    fn auth_event(&self, json: &str);

    /// Instances have ended without a word.
    fn lost_peers(&self, peers: Vec<Arc<str>>);

    /// Compares what is known here of logs with the logs, and repairs what differs, later: nothing but this is sent yet,
    /// maybe. False if they could not be asked.
    fn check(&self) -> Pin<Box<dyn Future<Output = bool> + Send>>;

    /// Compares who is where with what other instances have noted, and what should be listened to with what is.
    fn look_around(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// What was noted of this instance has been lost, or may have been, and has to be noted again.
    fn note_again(&self);

    /// Channels have been silent for so long.
    fn heard_again(&self, silent_for: Duration);

    /// Regular work has to be done.
    fn beat(&self);
}

/// An event that somebody else emits to sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Emit {
    /// To whom; empty is everybody.
    pub rooms: Vec<String>,
    /// But not to these.
    pub except: Vec<String>,
    /// What.
    pub event: Event<'static>,
    /// It may be lost.
    pub is_volatile: bool,
    /// Clients are to answer.
    pub ack: Option<Answers>,
}

/// Who wants to know what clients answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answers {
    /// A Node server.
    Classic {
        /// Its name for the question.
        request_id: String,
        /// Until when answers matter.
        deadline: Instant,
    },
    /// A Python server.
    Python {
        /// Where it listens.
        channel: Box<str>,
        /// Its words for the question.
        callback: python::Callback,
        /// Until when answers matter.
        deadline: Instant,
    },
}

/// The other instances cannot be heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deaf;

/// A meeting's channel.
struct Channel {
    name: Arc<str>,
    /// It has been confirmed, and is with every new connection.
    stands: AtomicBool,
    /// When somebody last asked for it, in ms since the epoch.
    used_at: AtomicU64,
}

/// Names of channels and keys.
struct Names {
    /// This instance's.
    uid: Arc<str>,
    /// To all sockets.
    everybody: Arc<str>,
    requests: Arc<str>,
    responses: Arc<str>,
    own_responses: Arc<str>,
    channels: Channels,
    /// Between instances.
    peers: Arc<str>,
    run: String,
    instances: String,
    checked: String,
    expected: String,
    notes: String,
    lease: String,
    probe: String,
}

/// The namespace of all sockets.
const NAMESPACE: &str = "/";
/// The namespace of what instances note of a meeting: Node servers take it for somebody else's.
const NOTES: &str = "/chat:peers";
const UPDATES: &str = "meeting_updates";
const UPDATES_STREAM: &str = "meeting_updates:stream";
const AUTH_EVENTS: &str = "auth_events";
/// A channel is kept for so long after somebody has asked for it, or has been there.
const CHANNEL_KEPT_MS: u64 = 30_000;
/// Channels of meetings. A million take about 300 MB, there and here.
const CHANNELS_MAX: usize = 1_000_000;
/// Channels that are given up in one go.
const GIVEN_UP_AT_A_TIME: usize = 256;
/// Notes that none may miss, and for how long they are kept.
const NOTES_MAX: u64 = 10_000;
const NOTES_KEPT_MS: u64 = 10 * 60 * 1000;
/// After so long without a connection nobody waits for a channel.
const DEAF_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether the server still writes, while it may not.
const SUSPECT_PAUSE: Duration = Duration::from_secs(1);
/// How long clients' answers matter to other servers at most.
const ANSWERS_MAX: Duration = Duration::from_secs(60);
/// Characters of an instance's name.
pub const UID_LEN: usize = 6;
/// Characters of a socket's id, an instance's name in front.
const SOCKET_ID_LEN: usize = 20;

static NOTE: Script = Script::new(include_str!("note.lua"));

impl Cluster {
    /// An instance that is not connected yet. `uid` names it to the others.
    pub fn new(redis: Redis, uid: &str, settings: Settings, metrics: Arc<Metrics>, spawn: Spawn) -> Arc<Self> {
        let channels = Channels::new(&*settings.adapter_prefix);
        let names = Names {
            uid: uid.into(),
            everybody: channels.namespace(NAMESPACE).into(),
            requests: channels.request(NAMESPACE).into(),
            responses: channels.response(NAMESPACE).into(),
            own_responses: channels.response_to(NAMESPACE, uid).into(),
            channels,
            peers: format!("{}peers", settings.key_prefix).into(),
            run: format!("{}{{cluster}}:run", settings.key_prefix),
            instances: format!("{}{{cluster}}:instances", settings.key_prefix),
            checked: format!("{}{{cluster}}:checked", settings.key_prefix),
            expected: format!("{}{{cluster}}:expected", settings.key_prefix),
            notes: format!("{}{{cluster}}:notes", settings.key_prefix),
            probe: format!("{}{{cluster}}:probe", settings.key_prefix),
            lease: format!("{}{{cluster}}:stream", settings.key_prefix),
        };
        Arc::new(Self {
            redis,
            subscriber: OnceLock::new(),
            deliver: OnceLock::new(),
            channels: papaya::HashMap::new(),
            known: papaya::HashMap::new(),
            giving_up: Mutex::default(),
            untold: Mutex::default(),
            is_hearing: AtomicBool::new(false),
            is_listening: AtomicBool::new(false),
            deaf_since: Mutex::new(Some(Instant::now())),
            up_since: Mutex::default(),
            connection: AtomicU64::new(0),
            run_id: Mutex::default(),
            beat_at: AtomicU64::new(0),
            trouble: Mutex::default(),
            is_suspected: AtomicBool::new(false),
            is_looking: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            applying: smol::lock::Mutex::new(()),
            members: members::Members::default(),
            names,
            settings,
            metrics,
            spawn,
            left_out: AtomicU64::new(0),
            warned_at: Mutex::default(),
        })
    }

    /// Whether a room's name is that of a socket of some instance: no meeting then.
    pub fn names_socket(&self, room: &str) -> bool {
        room.len() == SOCKET_ID_LEN
            && room.get(..UID_LEN).is_some_and(|uid| *uid == *self.names.uid || self.members.is_alive(uid))
    }

    /// Names this instance to the others.
    pub fn uid(&self) -> &str {
        &self.names.uid
    }

    /// Whether calls go through.
    pub fn is_admitted(&self) -> bool {
        matches!(self.redis.state(), State::Connected { admitted: true })
    }

    /// How it stands with Redis.
    pub fn state(&self) -> RedisState {
        match self.redis.state() {
            State::Connected { admitted } => {
                let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let is_hearing = self.is_hearing.load(Ordering::Relaxed) && self.is_listening.load(Ordering::Relaxed);
                match (trouble, admitted, is_hearing) {
                    (Some(code), ..) => RedisState::Down(code),
                    (None, false, _) => RedisState::Down("waiting for the other instances".into()),
                    (None, true, false) => {
                        let refusal = self.subscriber.get().and_then(Subscriber::refusal);
                        RedisState::Down(refusal.unwrap_or_else(|| "subscribing".into()))
                    }
                    (None, true, true) => RedisState::Up,
                }
            }
            State::Connecting => RedisState::Down("connecting".into()),
            State::Refused(why) => RedisState::Down(why),
        }
    }

    /// The same in numbers.
    pub fn gauges(&self) -> RedisGauges {
        let counters = self.redis.counters();
        // ORDERING: Relaxed. Only shown.
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RedisGauges {
            is_up: self.state() == RedisState::Up,
            calls: value(&counters.written),
            batches: value(&counters.batches),
            failed: value(&counters.expired) + value(&counters.full),
            reconnects: value(&counters.reconnects) + value(&counters.subscriber_reconnects),
            timeouts: value(&counters.timeouts),
            messages: value(&counters.messages),
            left_out: value(&counters.messages_too_large) + value(&counters.messages_bad_channel),
            channels: self.channels.len() as u64,
            pending: 0,
            refused: [0; 6],
        }
    }

    /// Something was refused, or took too long: looks soon whether the server still writes.
    pub fn suspect(self: &Arc<Self>) {
        if self.is_suspected.swap(true, Ordering::Relaxed) {
            return;
        }
        let cluster = Arc::clone(self);
        (self.spawn)(Box::pin(async move {
            cluster.beat().await;
            Timer::after(SUSPECT_PAUSE).await;
            cluster.is_suspected.store(false, Ordering::Relaxed);
        }));
    }

    /// The channels to listen to from the start, and the patterns: everything but meetings'.
    pub fn channels(&self) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let (prefix, names) = (&self.settings.adapter_prefix, &self.names);
        let mut channels = vec![
            Arc::clone(&names.everybody),
            Arc::clone(&names.requests),
            Arc::clone(&names.responses),
            Arc::clone(&names.own_responses),
            Arc::clone(&names.peers),
            UPDATES.into(),
            AUTH_EVENTS.into(),
        ];
        channels.extend(self.settings.python_channels.iter().map(|channel| Arc::from(&**channel)));
        // Users are many, and told little: one pattern costs no memory for each of them. Sockets of this instance have
        // its name in front.
        let patterns = vec![
            format!("{}#{NAMESPACE}#user:*", escape(prefix)).into(),
            format!("{}#{NAMESPACE}#{}*", escape(prefix), escape(&names.uid)).into(),
        ];
        (channels, patterns)
    }

    /// Begins to deliver what is heard.
    pub fn start(&self, subscriber: Subscriber, deliver: Arc<dyn Deliver>) {
        let _ = self.subscriber.set(subscriber);
        let _ = self.deliver.set(deliver);
    }

    /// Listens to a meeting, from the end of this on.
    ///
    /// # Errors
    /// [`Deaf`]: not in time.
    pub async fn listen(&self, meeting: &RoomId, now: u64) -> Result<(), Deaf> {
        self.listen_if(meeting, now, false).await
    }

    /// The same for somebody who should be listening: makes sure of it.
    pub async fn listen_still(&self, meeting: &RoomId, now: u64) {
        let _ = self.listen_if(meeting, now, true).await;
    }

    async fn listen_if(&self, meeting: &RoomId, now: u64, is_to_make_sure: bool) -> Result<(), Deaf> {
        let (channel, subscribing) = {
            // So that it is not given up in between.
            let _giving_up = self.giving_up.lock().unwrap_or_else(PoisonError::into_inner);
            let channels = self.channels.pin();
            if channels.len() >= CHANNELS_MAX && !channels.contains_key(meeting) {
                return Err(Deaf);
            }
            let channel = channels.get_or_insert_with(meeting.clone(), || {
                Arc::new(Channel {
                    name: self.channel(meeting.as_str()).into(),
                    stands: AtomicBool::new(false),
                    used_at: AtomicU64::new(now),
                })
            });
            channel.used_at.store(now, Ordering::Relaxed);
            // ORDERING: Relaxed. It was stored by whoever had the server's word, and what comes on it comes later.
            let stands = self.is_hearing.load(Ordering::Relaxed) && channel.stands.load(Ordering::Relaxed);
            if stands && !is_to_make_sure {
                return Ok(());
            }
            // Those that come one after the other do not each wait for their whole time.
            let deaf_since = *self.deaf_since.lock().unwrap_or_else(PoisonError::into_inner);
            if deaf_since.is_some_and(|since| since.elapsed() >= DEAF_MAX) {
                return Err(Deaf);
            }
            let subscriber = self.subscriber.get().ok_or(Deaf)?;
            (Arc::clone(channel), subscriber.subscribe(vec![Arc::clone(&channel.name)]))
        };
        if let Err(error) = subscribing.await {
            if error == SubscribeError::Refused {
                self.warn(|| log::error!("Redis does not let this user listen to the channel of a meeting"));
            }
            return Err(Deaf);
        }
        channel.stands.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Stops listening to meetings in which nobody has been for a while.
    pub fn sweep(&self, is_hosted: impl Fn(&RoomId) -> bool, now: u64) {
        let channels = self.channels.pin();
        let is_idle = |channel: &Channel| now.saturating_sub(channel.used_at.load(Ordering::Relaxed)) > CHANNEL_KEPT_MS;
        let mut idle = Vec::new();
        for (meeting, channel) in &channels {
            if is_hosted(meeting) {
                channel.used_at.store(now, Ordering::Relaxed);
            } else if is_idle(channel) {
                idle.push(meeting.clone());
            }
        }
        for meetings in idle.chunks(GIVEN_UP_AT_A_TIME) {
            let _giving_up = self.giving_up.lock().unwrap_or_else(PoisonError::into_inner);
            // Somebody may have come back since.
            let still_idle =
                meetings.iter().filter(|meeting| channels.get(*meeting).is_some_and(|channel| is_idle(channel)));
            let names = still_idle.filter_map(|meeting| Some(Arc::clone(&channels.remove(meeting)?.name))).collect();
            if let Some(subscriber) = self.subscriber.get() {
                subscriber.unsubscribe(names);
            }
        }
        self.forget_known(self.is_admitted(), now);
    }

    /// Emits an event with one argument to sockets of other instances, and of Node servers, by the names of rooms.
    pub fn emit_elsewhere(
        self: &Arc<Self>,
        rooms: &[&str],
        except: &[&str],
        event: &str,
        arg_json: &str,
        is_volatile: bool,
    ) {
        let names = &self.names;
        let cow = |names: &[&'_ str]| names.iter().map(|name| Cow::Owned((*name).to_owned())).collect();
        let broadcast = Broadcast {
            uid: Some(Cow::Borrowed(&names.uid)),
            namespace: Cow::Borrowed(NAMESPACE),
            event: Event::new(event, arg_json),
            rooms: cow(rooms),
            except: cow(except),
            flags: Flags { volatile: is_volatile, ..Flags::default() },
            meta: Some(Meta { json: Some(arg_json), ..Meta::default() }),
        };
        match broadcast.encode() {
            Ok(payload) => self.publish(&names.channels.rooms(NAMESPACE, rooms), payload),
            Err(error) => log::error!("an event cannot be written for other instances: {error}"),
        }
    }

    /// Tells something to all other instances, or to those where somebody is in a meeting.
    pub fn tell(self: &Arc<Self>, meeting: Option<&RoomId>, note: &str) {
        let (channel, payload) = self.encode_note(meeting, note);
        self.publish(&channel, payload);
    }

    /// Tells something to all other instances, also to those that cannot hear it now.
    ///
    /// # Errors
    /// [`Deaf`]: it is not certain that it was told.
    pub async fn tell_surely(&self, note: &str) -> Result<(), Deaf> {
        let (channel, payload) = self.encode_note(None, note);
        let call = Call::script(&NOTE, 1)
            .arg(&self.names.notes)
            .int(NOTES_MAX)
            .int(NOTES_KEPT_MS)
            .arg(&*self.names.uid)
            .arg(note)
            .arg(channel)
            .arg(payload);
        self.redis.call(call.repeatable()).await.map(drop).map_err(|_| Deaf)
    }

    /// What other instances have told surely since then, with who did. `None` if that cannot be asked.
    pub async fn told_since(&self, since_ms: u64) -> Option<Vec<(Arc<str>, String)>> {
        // The last ones, if there are too many.
        let call = Call::command("XREVRANGE").arg(&self.names.notes).arg("+").int(since_ms).arg("COUNT").int(NOTES_MAX);
        let Value::Array(entries) = self.redis.call(call.repeatable()).await.ok()? else { return None };
        let read = |entry: Value| {
            let Value::Array(entry) = entry else { return None };
            let fields = reply::pairs(entry.into_iter().nth(1)?)?;
            let field = |name| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
            Some((Arc::<str>::from(field("from")?), field("note")?))
        };
        let told = entries.into_iter().rev().filter_map(read);
        Some(told.filter(|(from, _)| **from != *self.names.uid).collect())
    }

    fn encode_note(&self, meeting: Option<&RoomId>, note: &str) -> (String, Vec<u8>) {
        let broadcast = Broadcast {
            uid: Some(Cow::Borrowed(&self.names.uid)),
            namespace: Cow::Borrowed(NOTES),
            event: Event::new("note", ""),
            rooms: meeting.iter().map(|meeting| room_of_meeting(meeting.as_str())).collect(),
            meta: Some(Meta { control: Some(note), ..Meta::default() }),
            ..Broadcast::default()
        };
        let channel = meeting.map_or_else(|| self.names.peers.to_string(), |meeting| self.channel(meeting.as_str()));
        (channel, broadcast.encode().unwrap_or_default())
    }

    /// Answers another server.
    pub fn respond(self: &Arc<Self>, response: &Response) {
        match response.encode() {
            Ok(payload) => self.publish(&self.names.responses, payload),
            Err(error) => log::warn!("a response cannot be written: {error}"),
        }
    }

    /// Who wants answers to a Node server's question.
    pub fn answers(&self, request_id: String, timeout_ms: Option<u64>) -> Answers {
        let timeout = timeout_ms.map_or(ANSWERS_MAX, Duration::from_millis).min(ANSWERS_MAX);
        Answers::Classic { request_id, deadline: Instant::now() + timeout }
    }

    /// Tells how many clients are asked.
    pub fn will_answer(self: &Arc<Self>, answers: &Answers, clients: usize) {
        if let Answers::Classic { request_id, .. } = answers {
            let (request_id, reply) = (request_id.clone(), Reply::ClientCount(clients as u64));
            self.respond(&Response { request_id, reply });
        }
    }

    /// Passes a client's answer on: its first argument, or all of them, as JSON text.
    pub fn answer(self: &Arc<Self>, answers: &Answers, first_json: &str, args_json: &str, attachments: &[Vec<u8>]) {
        match answers {
            Answers::Classic { request_id, .. } => {
                let attachments = attachments.iter().map(|bytes| Cow::Owned(bytes.clone())).collect();
                let reply = Reply::Ack(Values { json: first_json.to_owned().into(), attachments });
                self.respond(&Response { request_id: request_id.clone(), reply });
            }
            Answers::Python { channel, callback, .. } => match callback.answer(args_json) {
                Ok(payload) => self.publish(channel, payload.into_bytes()),
                Err(error) => log::warn!("an answer cannot be written: {error}"),
            },
        }
    }

    fn publish(self: &Arc<Self>, channel: &str, payload: Vec<u8>) {
        if payload.is_empty() {
            return;
        }
        self.send(Call::command("PUBLISH").arg(channel).arg(payload));
    }

    /// Nobody waits for what becomes of it.
    fn send(self: &Arc<Self>, call: Call) {
        let answer = self.redis.call(call);
        let cluster = Arc::clone(self);
        (self.spawn)(Box::pin(async move {
            if let Err(error) = answer.await {
                cluster.metrics.not_published();
                if let CallError::Server { code, .. } = error {
                    cluster.warn(|| log::error!("Redis refuses to pass something on: {code}"));
                }
            }
        }));
    }

    fn channel(&self, meeting: &str) -> String {
        self.names.channels.room(NAMESPACE, &room_of_meeting(meeting))
    }
}

impl Answers {
    /// Until when answers matter.
    pub fn deadline(&self) -> Instant {
        match self {
            Self::Classic { deadline, .. } | Self::Python { deadline, .. } => *deadline,
        }
    }
}

/// What a pattern would take for more than itself.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if "*?[]\\".contains(char) {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}
