//! The chat itself: who holds what, and the way of a client's event to its command and back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::AtomicU64},
    task::{Context, Poll, Waker},
};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    auth::{Access, Authenticator, Identity},
    chat::{
        Error,
        command::{
            self, DeleteMessage, EditMessage, History, MarkRead, Notifications, Presence, React, ReadNotifications,
            RefreshToken, SendMessage,
        },
        emits::PlainRooms,
        error::Code,
        event::{self, ChatError, Failure, Success},
        identity::Revocations,
        job::Job,
        meeting::Meeting,
        notices::NOTICES_WAITING_MAX,
        publishing::Updates,
        user::{Client, Queued, Step, User, Users},
    },
    cluster::Cluster,
    limits::{Rate, SharedBucket, Slots, StrikeLimits},
    metrics::Metrics,
    rooms::{Limits, RoomError, Rooms},
    schedule::{self, Schedule},
    socket::{Ack, Event, NamespaceBuilder, Socket},
    store::Store,
    types::{CloseReason, DrainNotice, RoomId},
};

/// The chat, as all sockets of this process share it.
pub struct Chat {
    pub(super) meetings: Rooms<Meeting>,
    pub(super) users: Users,
    pub(super) store: Arc<dyn Store>,
    /// The other instances; `None` if there are none.
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) access: Arc<Access>,
    /// `None`: clients are not authenticated, and the socket is the user.
    pub(super) authenticator: Option<Arc<Authenticator>>,
    pub(super) revoked: Revocations,
    pub(super) schedule: Schedule<Job>,
    /// The job for the next reminder, and its time.
    pub(super) reminder: Mutex<Option<(u64, schedule::Key)>>,
    /// Of those that were written to in the last minutes.
    pub(super) room_buckets: papaya::HashMap<RoomId, SharedBucket>,
    /// Sockets that other servers have put into rooms which are no meetings.
    pub(super) plain_rooms: Mutex<PlainRooms>,
    /// When users have left meetings lately, if there are other instances to be told. As many as jobs for that.
    pub(super) left: Mutex<HashMap<(RoomId, Arc<str>), u64>>,
    pub(super) updates: Updates,
    /// Notifications that could not be made, and will be tried again.
    pub(super) notices_waiting: Slots,
    /// Which comparison with the others is the last one that was begun.
    pub(super) looks: AtomicU64,
    /// From when on the others could not be heard, in ms since the epoch, if that was not made up for yet.
    pub(super) silent_since: Mutex<Option<u64>>,
    pub(super) metrics: Arc<Metrics>,
    clock: Clock,
    /// Does what has to wait on a task of its own.
    spawn: Spawn,
    /// Names this process to clients.
    instance: Box<str>,
    pub(super) settings: Settings,
}

/// Tells the time of day, in ms since the epoch.
pub type Clock = Box<dyn Fn() -> u64 + Send + Sync>;
/// Runs a future on a task of its own.
pub type Spawn = Box<dyn Fn(Step) + Send + Sync>;

/// Runs a closure on a task of its own.
pub type Offload = Box<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;

/// What the chat is built from.
pub struct Parts {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// The other instances, if there can be some.
    pub cluster: Option<Arc<Cluster>>,
    /// Names this process to clients: 12 characters.
    pub instance: Box<str>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// Who is who; `None` if nobody is asked.
    pub authenticator: Option<Arc<Authenticator>>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The time of day.
    pub clock: Clock,
    /// Runs futures.
    pub spawn: Spawn,
    /// Runs a closure on a task of its own, soon.
    pub offload: Offload,
    /// See there.
    pub settings: Settings,
}

/// What an operator can set of the chat. Times in ms.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest message of a client, in bytes; clients are told.
    pub max_payload: usize,
    /// Longest list of events or notifications in one answer, in bytes: it has to fit into the outbox, with others.
    pub answer_max_bytes: usize,
    /// Whether a token may stand in the query of the handshake.
    pub token_in_query: bool,
    /// How much of each kind of event.
    pub rates: Rates,
    /// How many refusals are too many.
    pub strikes: StrikeLimits,
    /// How long somebody with too many refusals stays away.
    pub penalty_ms: u64,
    /// Live sockets of one user; 0 is no limit.
    pub sockets_per_user: usize,
    /// Meetings that a socket may be in.
    pub rooms_per_socket: usize,
    /// Users of one meeting.
    pub users_per_room: usize,
    /// How long before a meeting to remind of it, and how that is called.
    pub reminders: Vec<(u64, Box<str>)>,
    /// How long an ended meeting can be written to.
    pub room_close_after_ms: u64,
}

/// Rates by class of event.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Messages, edits, deletions, reactions of a user.
    pub message: Rate,
    /// Typing and read marks of a user.
    pub typing: Rate,
    /// Joins, leaves and renewed tokens of a user.
    pub join: Rate,
    /// Pages of a user.
    pub history: Rate,
    /// All events of a user.
    pub event: Rate,
    /// Messages, edits, deletions, reactions in a meeting.
    pub room: Rate,
}

/// Which budget an event is taken from, beside that of all events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// No other.
    Event,
    /// [`Rates::message`].
    Message,
    /// [`Rates::typing`].
    Typing,
    /// [`Rates::join`].
    Join,
    /// [`Rates::history`].
    History,
}

/// Who asks for something: a socket of a user, or a user over HTTP.
#[derive(Clone)]
pub struct Caller {
    pub(super) user: Arc<User>,
    pub(super) identity: Arc<Identity>,
    pub(super) door: Option<Door>,
}

/// The socket by which a caller came.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) socket: Socket,
    pub(super) client: Arc<Client>,
}

/// Where the answer to an event goes.
pub(super) struct Reply {
    socket: Socket,
    user: Arc<User>,
    event: Box<str>,
    ack: Option<Ack>,
    /// The `client_id` that `chat_error` names.
    reference: Option<Box<str>>,
}

/// The namespace of everything here.
pub(super) const NAMESPACE: &str = "/";
/// When to try again where the server is too busy for the moment.
const BUSY_RETRY_MS: u32 = 250;
/// As many rooms as fit into about 300 MB.
const ROOMS_MAX: usize = 1_000_000;
/// Sockets in one room, for each user that may be there.
const SOCKETS_PER_PLACE: usize = 20;
const WAITING_TURNS_MAX: usize = 4096;

impl Chat {
    /// A chat without meetings.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { store, cluster, instance, access, authenticator, metrics, clock, spawn, offload, settings } = parts;
        let limits = Limits {
            rooms: ROOMS_MAX,
            members: settings.users_per_room.saturating_mul(SOCKETS_PER_PLACE),
            rooms_per_member: settings.rooms_per_socket,
            waiting_turns: WAITING_TURNS_MAX,
        };
        let chat = Arc::new(Self {
            meetings: Rooms::new(limits, offload),
            users: Users::default(),
            store,
            cluster,
            plain_rooms: Mutex::default(),
            left: Mutex::default(),
            updates: Updates::default(),
            notices_waiting: Slots::new(NOTICES_WAITING_MAX),
            looks: AtomicU64::new(0),
            silent_since: Mutex::default(),
            access,
            authenticator,
            revoked: Revocations::default(),
            schedule: Schedule::new(),
            reminder: Mutex::default(),
            room_buckets: papaya::HashMap::new(),
            metrics,
            clock,
            spawn,
            instance,
            settings,
        });
        chat.start_jobs();
        chat
    }

    /// Registers the chat's handlers.
    pub fn register(self: &Arc<Self>, namespace: NamespaceBuilder) -> NamespaceBuilder {
        let (deciding, connecting, leaving) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
        let on = |handle: fn(&Arc<Self>, &Socket, Event<'_>)| {
            let chat = Arc::clone(self);
            move |socket: &Socket, event: Event<'_>| {
                chat.metrics.event_in();
                handle(&chat, socket, event);
            }
        };
        macro_rules! command {
            ($class:ident, $payload:ident, $method:ident) => {
                on(|chat, socket, event| {
                    let chat_too = Arc::clone(chat);
                    chat.command(socket, event, Class::$class, |caller, payload| {
                        Ok(chat_too.$method(caller, $payload::read(payload)?))
                    });
                })
            };
        }
        namespace
            .middleware(move |request| deciding.decide(request))
            .on_connect(move |socket| connecting.connected(socket))
            .on_disconnect(move |socket, _| leaving.disconnected(socket))
            .on("message", on(Self::message))
            .on("join_room", on(Self::on_join))
            .on("leave_room", on(Self::on_leave))
            .on("typing", on(Self::on_typing))
            .on(
                "chat_message",
                on(|chat, socket, event| {
                    let chat_too = Arc::clone(chat);
                    chat.command(socket, event, Class::Message, |caller, payload| {
                        let message = SendMessage::read(payload)?.prepare(&caller.identity);
                        Ok(chat_too.send_message(caller, message))
                    });
                }),
            )
            .on(
                "edit_message",
                on(|chat, socket, event| {
                    let chat_too = Arc::clone(chat);
                    chat.command(socket, event, Class::Message, |caller, payload| {
                        let edit = EditMessage::read(payload)?.prepare(&caller.identity);
                        Ok(chat_too.edit_message(caller, edit))
                    });
                }),
            )
            .on("delete_message", command!(Message, DeleteMessage, delete_message))
            .on(
                "react",
                on(|chat, socket, event| {
                    let chat_too = Arc::clone(chat);
                    chat.command(socket, event, Class::Message, |caller, payload| {
                        let reaction = React::read(payload)?.prepare(&caller.identity)?;
                        Ok(chat_too.react(caller, reaction))
                    });
                }),
            )
            .on("mark_read", command!(Typing, MarkRead, mark_read))
            .on("get_history", command!(History, History, history))
            .on("get_presence", command!(History, Presence, presence))
            .on("notifications_get", command!(History, Notifications, notifications))
            .on("notifications_read", command!(Typing, ReadNotifications, read_notifications))
            .on(
                "auth_refresh",
                on(|chat, socket, event| {
                    let chat_too = Arc::clone(chat);
                    chat.command(socket, event, Class::Join, |caller, payload| {
                        let token = RefreshToken::read(payload)?.token.into_owned();
                        Ok(chat_too.refresh_token(caller, token))
                    });
                }),
            )
            .on_any(on(Self::unknown_event))
    }

    /// How many meetings somebody is in.
    pub fn meeting_count(&self) -> usize {
        self.meetings.len()
    }

    /// How many users are connected.
    pub fn user_count(&self) -> usize {
        self.users.all().iter().filter(|user| user.is_online()).count()
    }

    /// How many sockets are connected.
    pub fn socket_count(&self) -> usize {
        self.users.all().iter().map(|user| user.socket_count()).sum()
    }

    /// What is kept.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Names this process.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Tells a client that the server stops.
    pub fn announce_drain(&self, socket: &Socket, notice: DrainNotice) {
        let DrainNotice { reconnect_after_ms, deadline_ms } = notice;
        socket.emit("server_draining", &event::ServerDraining { reconnect_after_ms, deadline_ms });
    }

    /// Whether a client has asked for something that is not answered yet.
    pub fn is_busy(&self, socket: &Socket) -> bool {
        client(socket).is_some_and(|client| client.is_busy())
    }

    /// ms since the epoch.
    pub(super) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// Does an event's command and answers it. `begin` reads the payload, and returns what does the rest.
    fn command<F, T>(
        self: &Arc<Self>,
        socket: &Socket,
        event: Event<'_>,
        class: Class,
        begin: impl FnOnce(Caller, Option<&RawValue>) -> Result<F, Error>,
    ) where
        F: Future<Output = Result<T, Error>> + Send + 'static,
        T: Serialize + Send + 'static,
    {
        let Some((caller, reply, payload)) = self.admit(socket, event, class) else { return };
        let Some(door) = caller.door.clone() else { return };
        match begin(caller, payload) {
            Ok(command) => {
                let chat = Arc::clone(self);
                self.step(&door, async move {
                    match command.await {
                        Ok(answer) => reply.succeed(answer),
                        Err(error) => chat.refuse(reply, &error),
                    }
                });
            }
            Err(error) => self.refuse_in_turn(&door, reply, error),
        }
    }

    /// Takes an event from its budget. `None`: it was refused, or there is nobody to answer.
    pub(super) fn admit<'a>(
        self: &Arc<Self>,
        socket: &Socket,
        event: Event<'a>,
        class: Class,
    ) -> Option<(Caller, Reply, Option<&'a RawValue>)> {
        let client = client(socket)?;
        // Put out already; it may not have read that yet.
        if socket.outbox().close_reason().is_some() {
            return None;
        }
        let payload = event.args.first();
        let reference = match (&event.ack, event.name) {
            (None, "chat_message") => SendMessage::reference(payload).map(|id| id.as_ref().into()),
            _ => None,
        };
        let user = Arc::clone(&client.user);
        let reply = Reply {
            socket: socket.clone(),
            user: Arc::clone(&user),
            event: event.name.into(),
            ack: event.ack,
            reference,
        };
        if let Err(error) = self.take(&user, class, self.now()) {
            self.refuse(reply, &error);
            return None;
        }
        let door = Door { socket: socket.clone(), client: Arc::clone(client) };
        Some((Caller { user, identity: client.identity(), door: Some(door) }, reply, payload))
    }

    /// Takes one event from a user's budgets.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(super) fn take(&self, user: &User, class: Class, now: u64) -> Result<(), Error> {
        let (rates, buckets) = (&self.settings.rates, &user.buckets);
        let own = match class {
            Class::Event => None,
            Class::Message => Some((&buckets.message, rates.message)),
            Class::Typing => Some((&buckets.typing, rates.typing)),
            Class::Join => Some((&buckets.join, rates.join)),
            Class::History => Some((&buckets.history, rates.history)),
        };
        buckets.event.take(rates.event, 1, now).map_err(Error::rate_limited)?;
        own.map_or(Ok(()), |(bucket, rate)| bucket.take(rate, 1, now)).map_err(Error::rate_limited)
    }

    /// Takes one request from a caller's budgets.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take_for(self: &Arc<Self>, caller: &Caller, class: Class) -> Result<(), Error> {
        self.take(&caller.user, class, self.now()).inspect_err(|_| self.strike(&caller.user))
    }

    /// Counts a refusal that has been told over HTTP.
    pub fn count_refusal(&self, error: &Error) {
        self.metrics.refused(error.metric());
    }

    /// Does something for a socket, in the order in which it asked.
    pub(super) fn step(self: &Arc<Self>, door: &Door, step: impl Future<Output = ()> + Send + 'static) {
        let mut step = match door.client.queue(Box::pin(step)) {
            Queued::Now(step) => step,
            Queued::Waiting => return,
            // Nothing of it has been done, and without an answer the client will ask again: but not here.
            Queued::Full => {
                door.socket.close_transport(CloseReason::SlowConsumer);
                return;
            }
        };
        let guard = PanicGuard(&door.socket);
        let mut cx = Context::from_waker(Waker::noop());
        // Nearly everything is done at once.
        while let Poll::Ready(()) = step.as_mut().poll(&mut cx) {
            match door.next_step() {
                Some(next) => step = next,
                None => return drop(guard),
            }
        }
        drop(guard);
        let door = door.clone();
        (self.spawn)(Box::pin(async move {
            let _guard = PanicGuard(&door.socket);
            let mut next = Some(step);
            while let Some(step) = next {
                step.await;
                next = door.next_step();
            }
        }));
    }

    /// Does something that nobody waits for.
    pub(super) fn run(&self, job: impl Future<Output = ()> + Send + 'static) {
        let mut job: Step = Box::pin(job);
        if job.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            (self.spawn)(job);
        }
    }

    /// Tells a client what went wrong: by the ack that it asked for, or by `chat_error`.
    pub(super) fn refuse(self: &Arc<Self>, reply: Reply, error: &Error) {
        self.metrics.refused(error.metric());
        let Reply { socket, user, event, ack, reference } = reply;
        match ack {
            Some(ack) => ack.send_json(&Failure::new(error)),
            None if error.code == Code::UnknownEvent => return,
            None => socket.emit("chat_error", &ChatError { event: &event, reference: reference.as_deref(), error }),
        };
        self.strike(&user);
    }

    /// The same, behind the answers to what was asked before.
    pub(super) fn refuse_in_turn(self: &Arc<Self>, door: &Door, reply: Reply, error: Error) {
        let chat = Arc::clone(self);
        self.step(door, async move { chat.refuse(reply, &error) });
    }

    fn message(self: &Arc<Self>, socket: &Socket, event: Event<'_>) {
        let (args, attachments) = (event.args, event.attachments);
        let Some((_, reply, data)) = self.admit(socket, event, Class::Event) else { return };
        let attachment_bytes: usize = attachments.iter().map(Vec::len).sum();
        if args.as_str().len() + attachment_bytes > command::MESSAGE_MAX_BYTES {
            let error = Error::new(Code::TooLarge, format!("expected at most {} bytes", command::MESSAGE_MAX_BYTES));
            return self.refuse(reply, &error);
        }
        let data = data.unwrap_or(RawValue::NULL);
        if attachments.is_empty() {
            socket.emit("response", &event::Response { data });
        } else {
            let response = format!(r#"{{"data":{data}}}"#);
            socket.emit_binary("response", &response, attachments);
        }
        reply.succeed(Nothing {});
    }

    fn unknown_event(self: &Arc<Self>, socket: &Socket, event: Event<'_>) {
        let Some((_, reply, _)) = self.admit(socket, event, Class::Event) else { return };
        log::debug!("{}: unknown event", socket.id());
        self.refuse(reply, &Error::new(Code::UnknownEvent, "no such event"));
    }
}

impl Door {
    /// The door of a socket; `None` if it is nobody's.
    pub(super) fn of(socket: Socket) -> Option<Self> {
        let client = Arc::clone(client(&socket)?);
        Some(Self { socket, client })
    }

    /// Whether the connection is to be closed: nothing more is done for it.
    pub(super) fn is_closed(&self) -> bool {
        self.socket.outbox().close_reason().is_some()
    }

    /// The next thing that was asked for by this socket.
    fn next_step(&self) -> Option<Step> {
        let mut next = self.client.next_step();
        // Those that were put off by one that took its time.
        while next.is_some() && self.is_closed() {
            next = self.client.next_step();
        }
        next
    }
}

impl Caller {
    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl Reply {
    /// Answers with a whole ack as JSON, if an answer was asked for.
    pub(super) fn succeed_raw(self, ack_json: &RawValue) {
        if let Some(ack) = self.ack {
            ack.send(ack_json.get());
        }
    }

    /// Answers, if an answer was asked for.
    pub(super) fn succeed(self, answer: impl Serialize) {
        if let Some(ack) = self.ack {
            ack.send_json(&Success::new(answer));
        }
    }
}

/// An answer that says no more than that it was done.
#[derive(Serialize, Debug)]
pub struct Nothing {}

/// A command that panics leaves its socket with a lane that nobody serves: it is closed, and the client comes back.
struct PanicGuard<'a>(&'a Socket);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close_transport(CloseReason::InternalError);
        }
    }
}

pub(super) fn client(socket: &Socket) -> Option<&Arc<Client>> {
    socket.data::<Arc<Client>>()
}

/// Why a room refused.
pub(super) fn room_error(error: RoomError, settings: &Settings) -> Option<Error> {
    Some(match error {
        // Nobody waits for an answer any more.
        RoomError::Gone => return None,
        RoomError::Left => Error::new(Code::NotJoined, "left the meeting before it was joined"),
        RoomError::TooManyRooms => {
            Error::new(Code::LimitReached, format!("expected at most {} meetings a socket", settings.rooms_per_socket))
        }
        RoomError::RoomFull => {
            Error::new(Code::RoomFull, format!("expected at most {} users", settings.users_per_room))
        }
        RoomError::RegistryFull => Error::unavailable("too many meetings", BUSY_RETRY_MS),
        RoomError::Busy => busy(),
    })
}

pub(super) fn busy() -> Error {
    Error::unavailable("the meeting is too busy", BUSY_RETRY_MS)
}

/// 12 characters that no other process has.
pub fn random_name() -> Box<str> {
    std::iter::repeat_with(fastrand::alphanumeric).take(12).collect::<String>().into()
}
