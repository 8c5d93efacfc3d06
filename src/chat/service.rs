//! Does what clients ask for.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use ulid::Ulid;

use crate::{
    chat::{
        Error,
        command::{JoinRoom, LeaveRoom, MESSAGE_MAX_BYTES, Position, SendMessage, TEXT_MAX_CHARS},
        error::Code,
        event::{self, ChatError, Failure, Ready, ReadyLimits, Success},
    },
    metrics::Metrics,
    rooms::{Limits, Member, Room, RoomError, Rooms},
    socket::{Ack, Event, NamespaceBuilder, Socket, event_frame},
    types::{DrainNotice, RoomId},
};

/// The chat, as all sockets of this process share it.
pub struct Chat {
    meetings: Rooms<Meeting>,
    metrics: Arc<Metrics>,
    /// ms since the epoch.
    clock: Clock,
    /// Names this process to clients.
    instance: Box<str>,
    max_payload: usize,
}

/// Tells the time of day, in ms since the epoch.
pub type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

/// What is known of a meeting while somebody is in it.
struct Meeting {
    /// Names this life of the meeting's order: a seq means nothing in another one.
    epoch: Box<str>,
    /// The last one given.
    seq: u64,
}

/// The namespace of everything here.
const NAMESPACE: &str = "/";
/// When to try again where the server is too busy for the moment.
const BUSY_RETRY_MS: u32 = 250;

/// The registry's limits. The contract's §4, and as many rooms as fit into about 300 MB.
pub const LIMITS: Limits = Limits { rooms: 1_000_000, members: 10_000, rooms_per_member: 100, waiting_turns: 4096 };

impl Chat {
    /// A chat without meetings. `offload` is to run a closure on a task of its own.
    pub fn new(
        metrics: Arc<Metrics>,
        clock: Clock,
        max_payload: usize,
        offload: impl Fn(Box<dyn FnOnce() + Send>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let meetings = Rooms::new(LIMITS, offload);
        Arc::new(Self { meetings, metrics, clock, instance: random_name(), max_payload })
    }

    /// Registers the chat's handlers.
    pub fn register(self: &Arc<Self>, namespace: NamespaceBuilder) -> NamespaceBuilder {
        let on = |handle: fn(&Arc<Self>, &Socket, Event<'_>)| {
            let chat = Arc::clone(self);
            move |socket: &Socket, event: Event<'_>| {
                chat.metrics.event_in();
                handle(&chat, socket, event);
            }
        };
        let (connecting, leaving) = (Arc::clone(self), Arc::clone(self));
        namespace
            .on_connect(move |socket| connecting.connect(socket))
            .on_disconnect(move |socket, _| leaving.disconnect(socket))
            .on("message", on(Self::message))
            .on("join_room", on(Self::join_room))
            .on("leave_room", on(Self::leave_room))
            .on("chat_message", on(Self::chat_message))
            .on_any(on(Self::unknown_event))
    }

    /// How many meetings somebody is in.
    pub fn meeting_count(&self) -> usize {
        self.meetings.len()
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

    fn connect(&self, socket: &Socket) {
        socket.set_data(Arc::new(Member::new(Arc::clone(socket.outbox()))));
        socket.emit(
            "ready",
            &Ready {
                // Without tokens nobody has a name: the socket is the user.
                user_id: socket.id().as_str(),
                name: socket.id().as_str(),
                sid: socket.id().as_str(),
                instance: &self.instance,
                server_time: (self.clock)(),
                protocol: 1,
                exp: None,
                limits: ReadyLimits {
                    text: TEXT_MAX_CHARS,
                    payload: self.max_payload.min(MESSAGE_MAX_BYTES),
                    history_page: 100,
                },
                unread: event::Unread::default(),
            },
        );
    }

    fn disconnect(&self, socket: &Socket) {
        if let Some(member) = member(socket) {
            self.meetings.remove(member);
        }
    }

    fn message(self: &Arc<Self>, socket: &Socket, event: Event<'_>) {
        let attachment_bytes: usize = event.attachments.iter().map(Vec::len).sum();
        if event.args.as_str().len() + attachment_bytes > MESSAGE_MAX_BYTES {
            let error = Error::new(Code::TooLarge, format!("expected at most {MESSAGE_MAX_BYTES} bytes"));
            return self.refuse(socket, event.name, event.ack, None, &error);
        }
        let data = event.args.first().unwrap_or(RawValue::NULL);
        if event.attachments.is_empty() {
            socket.emit("response", &event::Response { data });
        } else {
            let response = format!(r#"{{"data":{data}}}"#);
            socket.emit_binary("response", &response, event.attachments);
        }
        if let Some(ack) = event.ack {
            ack.send(r#"{"ok":true}"#);
        }
    }

    fn join_room(self: &Arc<Self>, socket: &Socket, event: Event<'_>) {
        let command = match JoinRoom::read(event.args.first()) {
            Ok(command) => command,
            Err(error) => return self.refuse(socket, event.name, event.ack, None, &error),
        };
        let Some(member) = member(socket) else { return };
        let sent = command.meeting.sent.to_owned();
        let since = command.since.map(|Position { epoch, seq }| (epoch.into_owned(), seq));
        let (chat, socket, ack) = (Arc::clone(self), socket.clone(), event.ack);
        let new = || Meeting { epoch: random_name(), seq: 0 };
        // The answer is queued in the same turn: what comes live comes after it.
        self.meetings.join(&RoomId::new(&command.meeting.id), member, new, move |joined| match joined {
            Ok(room) => {
                if let Some(ack) = ack {
                    ack.send_json(&Success::new(Joined::new(room, &sent, since.as_ref())));
                }
            }
            Err(error) => chat.refuse_room(&socket, "join_room", ack, None, error),
        });
    }

    fn leave_room(self: &Arc<Self>, socket: &Socket, event: Event<'_>) {
        let command = match LeaveRoom::read(event.args.first()) {
            Ok(command) => command,
            Err(error) => return self.refuse(socket, event.name, event.ack, None, &error),
        };
        if let Some(member) = member(socket) {
            self.meetings.leave(&RoomId::new(&command.meeting.id), member, |_| {});
        }
        if let Some(ack) = event.ack {
            ack.send_json(&Success::new(Left { meeting_id: command.meeting.sent }));
        }
    }

    fn chat_message(self: &Arc<Self>, socket: &Socket, event: Event<'_>) {
        let payload = event.args.first();
        let command = match SendMessage::read(payload) {
            Ok(command) => command,
            Err(error) => {
                return self.refuse(socket, event.name, event.ack, SendMessage::reference(payload), &error);
            }
        };
        let is_in = member(socket).is_some_and(|member| member.is_in(&command.meeting.id));
        if !is_in {
            let error = Error::new(Code::NotJoined, "join the meeting before sending to it");
            return self.refuse(socket, event.name, event.ack, command.client_id, &error);
        }
        // All but what the turn decides is encoded here, outside of it.
        let content = event::ChatMessage {
            meeting_id: &command.meeting.id,
            text: command.text,
            sender: socket.id().as_str(),
            sender_name: socket.id().as_str(),
            client_id: command.client_id,
            reply_to: command.reply_to,
            mentions: command.mentions.as_deref(),
            meta: command.meta,
        };
        let Some(content) = content.encode() else { return };
        let reference = command.client_id.map(ToOwned::to_owned);
        let (chat, socket, ack) = (Arc::clone(self), socket.clone(), event.ack);
        // One turn: the next seq, and the message to everybody. So all members see one order.
        self.meetings.turn(&RoomId::new(&command.meeting.id), move |room| match room {
            Ok(room) => {
                let ts = (chat.clock)();
                room.state.seq += 1;
                let id = message_id(ts);
                let place = event::Place { id: id.as_str(), seq: room.state.seq, epoch: &room.state.epoch, ts };
                room.broadcast(&event_frame(NAMESPACE, "chat_message", &content.place(&place)));
                if let Some(ack) = ack {
                    ack.send_json(&Success::new(Sent { place, duplicate: false }));
                }
            }
            Err(error) => chat.refuse_room(&socket, "chat_message", ack, reference.as_deref(), error),
        });
    }

    fn unknown_event(self: &Arc<Self>, socket: &Socket, event: Event<'_>) {
        let error = Error::new(Code::UnknownEvent, "no such event");
        self.metrics.refused(error.metric());
        if let Some(ack) = event.ack {
            ack.send_json(&Failure::new(&error));
        }
        log::debug!("{}: unknown event", socket.id());
    }

    fn refuse_room(
        &self,
        socket: &Socket,
        event: &str,
        ack: Option<Ack>,
        reference: Option<&RawValue>,
        error: RoomError,
    ) {
        let error = match error {
            // Nobody waits for an answer any more.
            RoomError::Gone => return,
            RoomError::Left => Error::new(Code::NotJoined, "left the meeting before it was joined"),
            RoomError::TooManyRooms => Error::new(
                Code::LimitReached,
                format!("expected at most {} meetings a socket", LIMITS.rooms_per_member),
            ),
            RoomError::RoomFull => Error::new(Code::RoomFull, format!("expected at most {} members", LIMITS.members)),
            RoomError::RegistryFull => Error::unavailable("too many meetings", BUSY_RETRY_MS),
            RoomError::Busy => Error::unavailable("the meeting is too busy", BUSY_RETRY_MS),
        };
        self.refuse(socket, event, ack, reference, &error);
    }

    /// Tells a client what went wrong: by the ack that it asked for, or by `chat_error`.
    fn refuse(&self, socket: &Socket, event: &str, ack: Option<Ack>, reference: Option<&RawValue>, error: &Error) {
        self.metrics.refused(error.metric());
        match ack {
            Some(ack) => ack.send_json(&Failure::new(error)),
            None => socket.emit("chat_error", &ChatError { event, reference, error }),
        };
    }
}

/// The ack of `join_room`.
#[derive(Serialize)]
struct Joined<'a> {
    meeting_id: &'a RawValue,
    epoch: &'a str,
    seq: u64,
    first_seq: u64,
    members: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    /// Nothing is kept yet, so there is nothing to give.
    events: [(); 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl<'a> Joined<'a> {
    fn new(room: &'a Room<Meeting>, meeting_id: &'a RawValue, since: Option<&(String, u64)>) -> Self {
        let Meeting { epoch, seq } = &room.state;
        let reason = since.and_then(|(since_epoch, since_seq)| {
            if **since_epoch != **epoch || since_seq > seq {
                Some("epoch")
            } else if since_seq < seq {
                Some("window")
            } else {
                None
            }
        });
        Self {
            meeting_id,
            epoch,
            seq: *seq,
            first_seq: seq + 1,
            members: room.len(),
            recovered: since.map(|_| reason.is_none()),
            events: [],
            reason,
        }
    }
}

/// The ack of `leave_room`.
#[derive(Serialize)]
struct Left<'a> {
    meeting_id: &'a RawValue,
}

/// The ack of `chat_message`.
#[derive(Serialize)]
struct Sent<'a> {
    #[serde(flatten)]
    place: event::Place<'a>,
    duplicate: bool,
}

fn member(socket: &Socket) -> Option<&Arc<Member>> {
    socket.data::<Arc<Member>>()
}

/// A ULID: sorts by time, and needs no coordination.
fn message_id(ts: u64) -> String {
    Ulid::from_parts(ts, fastrand::u128(..)).to_string()
}

/// 12 characters that no other process, and no other life of a meeting, has.
fn random_name() -> Box<str> {
    std::iter::repeat_with(fastrand::alphanumeric).take(12).collect::<String>().into()
}
