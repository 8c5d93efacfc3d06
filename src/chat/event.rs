//! What the chat sends to clients.

use std::sync::Arc;

use serde::{Serialize, Serializer, ser::SerializeStruct as _};
use serde_json::value::RawValue;

use crate::{
    chat::Error,
    store::{self, Content, LogEvent},
    types::{MessageId, RoomId},
};

/// `ready`: the first event after a CONNECT.
#[derive(Serialize, Debug)]
pub struct Ready<'a> {
    /// Who the client is.
    pub user_id: &'a str,
    /// What to call them.
    pub name: &'a str,
    /// The socket's id.
    pub sid: &'a str,
    /// Which process serves it.
    pub instance: &'a str,
    /// ms since the epoch.
    pub server_time: u64,
    /// The contract's version.
    pub protocol: u8,
    /// When the token expires, in ms since the epoch. Without tokens: never.
    pub exp: Option<u64>,
    /// What a client may send.
    pub limits: ReadyLimits,
    /// What was missed.
    pub unread: Unread<'a>,
}

/// What a client may send.
#[derive(Serialize, Debug)]
pub struct ReadyLimits {
    /// Unicode scalars in a text.
    pub text: usize,
    /// Bytes in a payload.
    pub payload: usize,
    /// Items in a page of history.
    pub history_page: usize,
}

/// `unread`, and in `ready`: what was missed.
#[derive(Debug)]
pub struct Unread<'a>(pub &'a store::Unread);

impl Serialize for Unread<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Meetings<'a>(&'a [(RoomId, u32)]);
        impl Serialize for Meetings<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|(meeting, count)| (meeting.as_str(), count)))
            }
        }
        let mut fields = serializer.serialize_struct("Unread", 3)?;
        fields.serialize_field("notifications", &self.0.notifications)?;
        fields.serialize_field("meetings", &Meetings(&self.0.meetings))?;
        if self.0.is_truncated {
            fields.serialize_field("meetings_truncated", &true)?;
        }
        fields.end()
    }
}

/// `chat_message`, to everybody in the meeting: what its sender decides. The store puts its place in front, and
/// [`text`](Self::text) and [`meta`](Self::meta), which a deletion erases, come last.
#[derive(Serialize, Debug)]
pub struct ChatMessage<'a> {
    /// Where.
    pub meeting_id: &'a str,
    /// Who, by user id.
    pub sender: &'a str,
    /// What to call them.
    pub sender_name: &'a str,
    /// The sender's own id for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<&'a str>,
    /// The message it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// Who is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mentions: Option<&'a [Arc<str>]>,
    /// What the application adds.
    #[serde(skip)]
    pub meta: Option<&'a RawValue>,
    /// What, as the same JSON text that was sent.
    #[serde(skip)]
    pub text: &'a RawValue,
}

/// `message_edited`.
#[derive(Serialize, Debug)]
pub struct MessageEdited<'a> {
    /// Where.
    pub meeting_id: &'a str,
    /// Who edited it.
    pub editor: &'a str,
    /// The new text, as the same JSON text that was sent.
    #[serde(skip)]
    pub text: &'a RawValue,
}

/// `message_deleted`.
#[derive(Serialize, Debug)]
pub struct MessageDeleted<'a> {
    /// Where.
    pub meeting_id: &'a str,
    /// Who deleted it.
    pub deleted_by: &'a str,
}

/// `message_reaction`.
#[derive(Serialize, Debug)]
pub struct MessageReaction<'a> {
    /// Where.
    pub meeting_id: &'a str,
    /// Who.
    pub user_id: &'a str,
    /// What.
    pub emoji: &'a str,
    /// Whether it was taken back.
    pub removed: bool,
}

impl ChatMessage<'_> {
    /// Encodes what does not depend on the message's place.
    pub fn content(&self) -> Content {
        erasable(self, self.meta, self.text)
    }
}

impl MessageEdited<'_> {
    /// Encodes what does not depend on the event's place.
    pub fn content(&self) -> Content {
        erasable(self, None, self.text)
    }
}

/// Encodes an event's content of which nothing can be erased.
pub fn content<T: Serialize>(event: &T) -> Content {
    Content { json: to_json(event).into(), erasable_from: None }
}

fn erasable<T: Serialize>(event: &T, meta: Option<&RawValue>, text: &RawValue) -> Content {
    let mut json = to_json(event);
    json.pop();
    json.push(',');
    let erasable_from = u32::try_from(json.len()).ok();
    json.reserve_exact(text.get().len() + meta.map_or(0, |meta| meta.get().len()) + 20);
    if let Some(meta) = meta {
        json.push_str("\"meta\":");
        json.push_str(meta.get());
        json.push(',');
    }
    json.push_str("\"text\":");
    json.push_str(text.get());
    json.push('}');
    Content { json: json.into(), erasable_from }
}

/// Nothing here fails to serialise: no map has keys that are no strings.
pub(super) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// An event of a log as an item of a list: its payload, and which event it is.
pub fn write_item(out: &mut String, event: &LogEvent) {
    out.push_str("{\"event\":\"");
    out.push_str(event.kind.as_str());
    out.push_str("\",");
    out.push_str(event.json.strip_prefix('{').unwrap_or_default());
}

/// Events of a log as a JSON array.
pub fn items(events: &[LogEvent]) -> Box<RawValue> {
    let mut json = String::with_capacity(2 + events.iter().map(|event| event.json.len() + 32).sum::<usize>());
    json.push('[');
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        write_item(&mut json, event);
    }
    json.push(']');
    RawValue::from_string(json).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// A user as others see them.
#[derive(Serialize, Debug)]
pub struct Person<'a> {
    /// The user id.
    pub id: &'a str,
    /// What to call them.
    pub name: &'a str,
}

/// `presence_update`: somebody has come or gone.
#[derive(Serialize, Debug)]
pub struct PresenceUpdate<'a> {
    /// Where.
    pub meeting_id: &'a str,
    /// `join` or `leave`.
    pub event: &'a str,
    /// Who.
    pub user: Person<'a>,
    /// How many users are there now.
    pub count: usize,
    /// ms since the epoch.
    pub ts: u64,
}

/// `presence_update` in a large meeting.
#[derive(Serialize, Debug)]
pub struct PresenceCount<'a> {
    /// Where.
    pub meeting_id: &'a str,
    /// `count`.
    pub event: &'a str,
    /// How many users are there now.
    pub count: usize,
    /// ms since the epoch.
    pub ts: u64,
}

/// A user who is in a meeting.
#[derive(Serialize, Debug)]
pub struct UserPresence {
    /// The user id.
    pub id: Arc<str>,
    /// What to call them.
    pub name: Arc<str>,
    /// Since when, in ms since the epoch.
    pub since: u64,
    /// With how many sockets.
    pub devices: u32,
}

/// `typing`.
#[derive(Serialize, Debug)]
pub struct Typing<'a> {
    /// Where.
    pub meeting_id: &'a str,
    /// Who.
    pub user_id: &'a str,
    /// What to call them.
    pub name: &'a str,
    /// Whether they are.
    pub active: bool,
    /// When it has ended if nothing more is said.
    pub expires_in_ms: u64,
}

/// `read_receipt`.
#[derive(Serialize, Debug)]
pub struct ReadReceipt<'a> {
    /// Where.
    pub meeting_id: &'a str,
    /// Who.
    pub user_id: &'a str,
    /// Up to where.
    pub seq: u64,
    /// ms since the epoch.
    pub ts: u64,
}

/// `room_left`: the socket is in the meeting no more, without having asked.
#[derive(Serialize, Debug)]
pub struct RoomLeft<'a> {
    /// Which.
    pub meeting_id: &'a str,
    /// `removed`, `closed` or `forbidden`.
    pub reason: &'a str,
}

/// `resync`: what the client has of the meeting cannot be continued; it is to be read again.
#[derive(Serialize, Debug)]
pub struct Resync<'a> {
    /// Which.
    pub meeting_id: &'a str,
    /// `epoch_changed` or `window_exceeded`.
    pub reason: &'a str,
    /// The life of the log.
    pub epoch: &'a str,
    /// The last event before those that come next.
    pub top_seq: u64,
    /// The first that is kept.
    pub first_seq: u64,
}

/// `auth_expiring`: the token is to be renewed.
#[derive(Serialize, Debug)]
pub struct AuthExpiring {
    /// When it expires, in ms since the epoch.
    pub exp: u64,
    /// How long that is from now.
    pub in_ms: u64,
}

/// `auth_expired`: the connection is closed.
#[derive(Serialize, Debug)]
pub struct AuthExpired {}

/// `response`: what `message` is answered with.
#[derive(Serialize, Debug)]
pub struct Response<'a> {
    /// The same JSON text that was sent.
    pub data: &'a RawValue,
}

/// `chat_error`: a refusal for which no ack was asked.
#[derive(Serialize, Debug)]
pub struct ChatError<'a> {
    /// The event that was refused.
    pub event: &'a str,
    /// Its `client_id`.
    #[serde(rename = "ref")]
    pub reference: Option<&'a str>,
    /// Why.
    pub error: &'a Error,
}

/// `server_draining`: the server stops, and the client will be closed.
#[derive(Serialize, Debug)]
pub struct ServerDraining {
    /// When to come back, in ms from now. Different for each client.
    pub reconnect_after_ms: u64,
    /// When the connection ends at the latest, in ms from now.
    pub deadline_ms: u64,
}

/// The ack of what succeeded: `{"ok":true}` and more.
#[derive(Serialize, Debug)]
pub struct Success<T: Serialize> {
    ok: bool,
    #[serde(flatten)]
    more: T,
}

impl<T: Serialize> Success<T> {
    /// A success that says `more`.
    pub fn new(more: T) -> Self {
        Self { ok: true, more }
    }
}

/// The ack of what failed.
#[derive(Serialize, Debug)]
pub struct Failure<'a> {
    ok: bool,
    error: &'a Error,
}

impl<'a> Failure<'a> {
    /// A failure for this reason.
    pub fn new(error: &'a Error) -> Self {
        Self { ok: false, error }
    }
}
