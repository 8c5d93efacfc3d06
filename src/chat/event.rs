//! What the chat sends to clients.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::chat::Error;

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
    pub unread: Unread,
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

/// What was missed. Nothing is kept yet, so nothing is.
#[derive(Serialize, Debug, Default)]
pub struct Unread {
    /// Notifications.
    pub notifications: u32,
    /// Messages, by meeting.
    pub meetings: serde_json::Map<String, serde_json::Value>,
}

/// `chat_message`, to everybody in the meeting: what its sender decides. Its [`Place`] comes in front.
#[derive(Serialize, Debug)]
pub struct ChatMessage<'a> {
    /// Where.
    pub meeting_id: &'a str,
    /// What, as the same JSON text that was sent.
    pub text: &'a RawValue,
    /// Who, by user id.
    pub sender: &'a str,
    /// What to call them.
    pub sender_name: &'a str,
    /// The sender's own id for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<&'a RawValue>,
    /// The message it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<&'a RawValue>,
    /// Who is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mentions: Option<&'a [Cow<'a, str>]>,
    /// What the application adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<&'a RawValue>,
}

/// Where a logged event stands in its meeting's order.
#[derive(Serialize, Debug)]
pub struct Place<'a> {
    /// 26 characters, a ULID.
    pub id: &'a str,
    /// The number in the order, from 1.
    pub seq: u64,
    /// The life of the order.
    pub epoch: &'a str,
    /// ms since the epoch.
    pub ts: u64,
}

/// An event that is encoded but for its place.
#[derive(Debug)]
pub struct Content(String);

impl ChatMessage<'_> {
    /// Encodes what does not depend on the message's place. `None` never happens: nothing here fails to serialise.
    pub fn encode(&self) -> Option<Content> {
        serde_json::to_string(self).ok().map(Content)
    }
}

impl Content {
    /// The whole event as JSON: the place's fields, then the others.
    pub fn place(&self, place: &Place<'_>) -> String {
        let mut json = String::with_capacity(self.0.len() + 128);
        if let Ok(place) = serde_json::to_string(place) {
            json.push_str(place.strip_suffix('}').unwrap_or_default());
            json.push(',');
        }
        json.push_str(self.0.strip_prefix('{').unwrap_or_default());
        json
    }
}

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
    pub reference: Option<&'a RawValue>,
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
