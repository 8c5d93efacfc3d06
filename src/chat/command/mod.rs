//! What clients ask for: payloads, read strictly.
//!
//! There is a type for each event, with `read` for the event's payload. Where HTTP asks for the same, `read_in` takes
//! what stands in the path from there, and `from_query` takes the rest from the query.
//!
//! Every field that is wrong is refused by name, with what was expected. Unknown fields are ignored, and never sent on;
//! `null` is the same as no field. Ids and numbers are owned, for they are needed after the first step; texts are those
//! that were sent.
//!
//! Left to others: whether the sender may, how deep and how large an event's payload is (`socket`), percent-encoding,
//! and what a token is worth (`auth`).

pub(in crate::chat) mod fields;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt, ops::RangeInclusive, sync::Arc};

use serde_json::value::RawValue;

use self::fields::{
    ANY_INTEGER, CLIENT_ID, FLAG, INTEGER, JSON, MEETING_ID, MESSAGE_ID, array, clamped, client_id, flag, integer,
    is_client_id, meeting_id, meeting_id_text, message_ref, nested, object, optional, parameters, printable,
    query_flag, required, string, user_id, without_repetitions,
};
use crate::{
    chat::{Code, Error},
    store::{From, Kind, Position, Read},
    types::RoomId,
};

pub use self::fields::MessageRef;

/// The payload of `join_room`.
#[derive(Debug)]
pub struct JoinRoom<'a> {
    /// Which meeting.
    pub meeting: Meeting<'a>,
    /// The last event that the client has.
    pub since: Option<Position>,
    /// Most events to answer with, 0–300. By default none, with `since` 300.
    pub limit: usize,
    /// Whether to answer with who is there.
    pub presence: bool,
}

/// The payload of `leave_room`.
#[derive(Debug)]
pub struct LeaveRoom<'a> {
    /// Which meeting.
    pub meeting: Meeting<'a>,
}

/// The payload of `chat_message`. Fields that are only passed on stay the JSON text that was sent.
#[derive(Debug)]
pub struct SendMessage<'a> {
    /// Which meeting.
    pub meeting: RoomId,
    /// A JSON string, checked.
    pub text: &'a RawValue,
    /// 1–64 letters, digits, `_` and `-`.
    pub client_id: Option<Cow<'a, str>>,
    /// The message that is answered.
    pub reply_to: Option<MessageRef>,
    /// User ids; those that were sent as integers by their digits.
    pub mentions: Option<Vec<Cow<'a, str>>>,
    /// A JSON object.
    pub meta: Option<&'a RawValue>,
    unescaped: Cow<'a, str>,
}

/// The payload of `edit_message`.
#[derive(Debug)]
pub struct EditMessage<'a> {
    /// Which meeting.
    pub meeting: RoomId,
    /// Which message.
    pub id: MessageRef,
    /// A JSON string, checked.
    pub text: &'a RawValue,
}

/// The payload of `delete_message`.
#[derive(Debug)]
pub struct DeleteMessage {
    /// Which meeting.
    pub meeting: RoomId,
    /// Which message.
    pub id: MessageRef,
}

/// The payload of `react`.
#[derive(Debug)]
pub struct React<'a> {
    /// Which meeting.
    pub meeting: RoomId,
    /// Which message.
    pub id: MessageRef,
    /// 1–16 Unicode scalars without controls. That it is an emoji is not checked: new ones appear every year.
    pub emoji: Cow<'a, str>,
    /// Whether it is taken back.
    pub is_removal: bool,
}

/// The payload of `typing`.
#[derive(Debug)]
pub struct Typing {
    /// Which meeting.
    pub meeting: RoomId,
    /// Whether the user is typing.
    pub active: bool,
}

/// The payload of `mark_read`.
#[derive(Debug)]
pub struct MarkRead {
    /// Which meeting.
    pub meeting: RoomId,
    /// The last event that was read; may be above the top.
    pub seq: u64,
}

/// The payload of `get_history`.
#[derive(Debug)]
pub struct History {
    /// Which meeting.
    pub meeting: RoomId,
    /// Where the page begins.
    pub from: From,
    /// The life of the order that `from` is of.
    pub epoch: Option<Arc<str>>,
    /// Most events, 1–100.
    pub limit: usize,
    /// Only these, each once; empty is all.
    pub kinds: Vec<Kind>,
}

/// The payload of `get_presence`.
#[derive(Debug)]
pub struct Presence {
    /// Which meeting.
    pub meeting: RoomId,
    /// Most users, 1–1 000.
    pub limit: usize,
}

/// The payload of `notifications_get`.
#[derive(Debug)]
pub struct Notifications {
    /// Where the page begins, by `nseq`.
    pub from: From,
    /// Most notifications, 1–100.
    pub limit: usize,
    /// Leave out what is read.
    pub unread_only: bool,
}

/// The payload of `notifications_read`.
#[derive(Debug)]
pub struct ReadNotifications {
    /// Which are read now: at most 100 ids, or all up to a number.
    pub which: Read,
}

/// The payload of `auth_refresh`. `Debug` leaves the token out.
pub struct RefreshToken<'a> {
    /// A secret, of any length and form, without `Bearer `.
    pub token: Cow<'a, str>,
}

/// The payload of a CONNECT. `Debug` leaves the token out.
#[derive(Default)]
pub struct ConnectAuth<'a> {
    /// A secret, of any length and form but not empty, without `Bearer `.
    pub token: Option<Cow<'a, str>>,
    /// What the client calls itself: 1–64 printable characters.
    pub client: Option<Cow<'a, str>>,
}

/// A meeting's id, as it was sent and as it is used.
#[derive(Debug)]
pub struct Meeting<'a> {
    /// 1–128 characters of `[A-Za-z0-9_.:-]`; an integer's decimal digits.
    pub id: RoomId,
    /// The JSON text that was sent, which acks echo.
    pub sent: &'a RawValue,
}

/// Longest text, in Unicode scalars.
pub const TEXT_MAX_CHARS: usize = 4000;
/// Longest text, in bytes of UTF-8.
pub const TEXT_MAX_BYTES: usize = 16 * 1024;
/// Largest payload of `message`, attachments included, in bytes.
pub const MESSAGE_MAX_BYTES: usize = 64 * 1024;
/// Events that a join answers with, at most.
pub const JOIN_EVENTS_MAX: usize = 300;
/// Events of a page of history.
pub const HISTORY_PAGE: RangeInclusive<usize> = 1..=100;
/// Users of a list of who is there.
pub const PRESENCE_PAGE: RangeInclusive<usize> = 1..=1000;
/// Notifications of a page of an inbox.
pub const INBOX_PAGE: RangeInclusive<usize> = 1..=100;
const HISTORY_PAGE_DEFAULT: usize = 50;
const PRESENCE_PAGE_DEFAULT: usize = 200;
const INBOX_PAGE_DEFAULT: usize = 50;
const MENTIONS_MAX: usize = 50;
const META_MAX_BYTES: usize = 2048;
const META_MAX_DEPTH: usize = 4;
const EMOJI_MAX_CHARS: usize = 16;
const EPOCH_MAX_CHARS: usize = 32;
const READ_IDS_MAX: usize = 100;
const NOTIFICATION_ID_MAX_CHARS: usize = 64;
const CLIENT_MAX_CHARS: usize = 64;

const TEXT: &str = "a string of 1-4000 characters and at most 16384 bytes, without control characters but \\n and \\t";
const MENTIONS: &str = "an array of at most 50 user ids, each of 1-128 printable characters";
const META: &str = "an object of at most 2048 bytes and depth 4";
const SINCE: &str = "an object with epoch, a string of at most 32 characters, and seq, an integer from 0 to 2^53-1";
const EPOCH: &str = "a string of at most 32 characters";
const EMOJI: &str = "a string of 1-16 characters, without control characters";
const ONE_DIRECTION: &str = "an integer from 0 to 2^53-1, and not both directions";
const KINDS: &str = "a list of chat_message, message_edited, message_deleted, message_reaction, meeting_update";
const IDS: &str = "an array of at most 100 ids, each of 1-64 printable characters; or up_to instead";
const UP_TO: &str = "an integer from 0 to 2^53-1, and no ids";
const TOKEN: &str = "a string";

// Every field of every payload, with the aliases that Flask-style clients use.
fields::fields! { Fields:
    meeting_id room text message client_id reply_to mentions meta since limit presence id emoji remove active seq
    before_seq after_seq epoch kinds after before unread_only ids up_to token client
}

impl<'a> JoinRoom<'a> {
    /// Reads the payload: an object, or the meeting's bare id.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(payload: Option<&'a RawValue>) -> Result<Self, Error> {
        let fields = Fields::read_or_bare(payload)?;
        let meeting = fields.meeting_as_sent()?;
        let since = optional(fields.since, "since", SINCE, position)?;
        let limit_default = if since.is_some() { JOIN_EVENTS_MAX } else { 0 };
        Ok(Self {
            meeting,
            since,
            limit: fields.limit(&(0..=JOIN_EVENTS_MAX))?.unwrap_or(limit_default),
            presence: optional(fields.presence, "presence", FLAG, flag)?.unwrap_or(false),
        })
    }
}

impl<'a> LeaveRoom<'a> {
    /// Reads the payload: an object, or the meeting's bare id.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(payload: Option<&'a RawValue>) -> Result<Self, Error> {
        Ok(Self { meeting: Fields::read_or_bare(payload)?.meeting_as_sent()? })
    }
}

impl<'a> SendMessage<'a> {
    /// Reads the payload.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(payload: Option<&'a RawValue>) -> Result<Self, Error> {
        let fields = Fields::read(payload)?;
        Self::new(fields.meeting()?, &fields, None)
    }

    /// Reads the body of an HTTP request for the meeting that its path names. `idempotency_key` is that header; it goes
    /// before the body's `client_id`.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read_in(meeting: &str, body: Option<&'a RawValue>, idempotency_key: Option<&'a str>) -> Result<Self, Error> {
        Self::new(Meeting::from_path(meeting)?, &Fields::read(body)?, idempotency_key)
    }

    /// The text, unescaped: the same for all ways to write it in JSON.
    pub fn unescaped_text(&self) -> &str {
        &self.unescaped
    }

    /// The `client_id` of a payload that was refused, if it can be told: the error names it.
    pub fn reference(payload: Option<&'a RawValue>) -> Option<Cow<'a, str>> {
        client_id(Fields::read(payload).ok()?.client_id?)
    }

    fn new(meeting: RoomId, fields: &Fields<'a>, idempotency_key: Option<&'a str>) -> Result<Self, Error> {
        let (text, unescaped) = required(fields.text.or(fields.message), "text", TEXT, text)?;
        let key = optional(idempotency_key, "Idempotency-Key", CLIENT_ID, |key| is_client_id(key).then_some(key))?;
        let client_id = match key {
            Some(key) => Some(Cow::Borrowed(key)),
            None => optional(fields.client_id, "client_id", CLIENT_ID, client_id)?,
        };
        Ok(Self {
            meeting,
            text,
            client_id,
            reply_to: optional(fields.reply_to, "reply_to", MESSAGE_ID, message_ref)?,
            mentions: optional(fields.mentions, "mentions", MENTIONS, mentions)?,
            meta: optional(fields.meta, "meta", META, meta)?,
            unescaped,
        })
    }
}

impl<'a> EditMessage<'a> {
    /// Reads the payload.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(payload: Option<&'a RawValue>) -> Result<Self, Error> {
        let fields = Fields::read(payload)?;
        Self::new(fields.meeting()?, fields.message_ref()?, &fields)
    }

    /// Reads the body of an HTTP request for the message that its path names.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read_in(meeting: &str, id: &str, body: Option<&'a RawValue>) -> Result<Self, Error> {
        Self::new(Meeting::from_path(meeting)?, message_from_path(id)?, &Fields::read(body)?)
    }

    fn new(meeting: RoomId, id: MessageRef, fields: &Fields<'a>) -> Result<Self, Error> {
        let (text, _) = required(fields.text, "text", TEXT, text)?;
        Ok(Self { meeting, id, text })
    }
}

impl DeleteMessage {
    /// Reads the payload.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(payload: Option<&RawValue>) -> Result<Self, Error> {
        let fields = Fields::read(payload)?;
        Ok(Self { meeting: fields.meeting()?, id: fields.message_ref()? })
    }

    /// The message that the path of an HTTP request names.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn from_path(meeting: &str, id: &str) -> Result<Self, Error> {
        Ok(Self { meeting: Meeting::from_path(meeting)?, id: message_from_path(id)? })
    }
}

impl<'a> React<'a> {
    /// Reads the payload.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(payload: Option<&'a RawValue>) -> Result<Self, Error> {
        let fields = Fields::read(payload)?;
        Ok(Self {
            meeting: fields.meeting()?,
            id: fields.message_ref()?,
            emoji: required(fields.emoji, "emoji", EMOJI, |value| printable(value, EMOJI_MAX_CHARS))?,
            is_removal: optional(fields.remove, "remove", FLAG, flag)?.unwrap_or(false),
        })
    }
}

impl Typing {
    /// Reads the payload.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(payload: Option<&RawValue>) -> Result<Self, Error> {
        let fields = Fields::read(payload)?;
        let active = optional(fields.active, "active", FLAG, flag)?.unwrap_or(true);
        Ok(Self { meeting: fields.meeting()?, active })
    }
}

impl MarkRead {
    /// Reads the payload.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(payload: Option<&RawValue>) -> Result<Self, Error> {
        let fields = Fields::read(payload)?;
        Self::new(fields.meeting()?, &fields)
    }

    /// Reads the body of an HTTP request for the meeting that its path names.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read_in(meeting: &str, body: Option<&RawValue>) -> Result<Self, Error> {
        Self::new(Meeting::from_path(meeting)?, &Fields::read(body)?)
    }

    fn new(meeting: RoomId, fields: &Fields<'_>) -> Result<Self, Error> {
        let seq = required(fields.seq, "seq", INTEGER, |value| integer(value.get()))?;
        Ok(Self { meeting, seq })
    }
}

impl History {
    /// Reads the payload.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(payload: Option<&RawValue>) -> Result<Self, Error> {
        let fields = Fields::read(payload)?;
        Ok(Self {
            meeting: fields.meeting()?,
            from: page_start(
                ("before_seq", fields.before_seq.map(RawValue::get)),
                ("after_seq", fields.after_seq.map(RawValue::get)),
            )?,
            epoch: optional(fields.epoch, "epoch", EPOCH, |value| epoch(&string(value)?))?,
            limit: fields.limit(&HISTORY_PAGE)?.unwrap_or(HISTORY_PAGE_DEFAULT),
            kinds: optional(fields.kinds, "kinds", KINDS, kinds)?.unwrap_or_default(),
        })
    }

    /// Reads the query of an HTTP request for the meeting that its path names: `before_seq` or `after_seq`, `epoch`,
    /// `limit`, and `kinds` with commas between them. Names and values are percent-decoded.
    ///
    /// # Errors
    /// `invalid_payload`, with the parameter.
    pub fn from_query<'q>(meeting: &str, query: impl Iterator<Item = (&'q str, &'q str)>) -> Result<Self, Error> {
        let [before, after, epoch_sent, limit, kinds] =
            parameters(query, ["before_seq", "after_seq", "epoch", "limit", "kinds"])?;
        Ok(Self {
            meeting: Meeting::from_path(meeting)?,
            from: page_start(("before_seq", before), ("after_seq", after))?,
            epoch: optional(epoch_sent, "epoch", EPOCH, epoch)?,
            limit: page_limit(limit, &HISTORY_PAGE)?.unwrap_or(HISTORY_PAGE_DEFAULT),
            kinds: optional(kinds, "kinds", KINDS, |list| {
                if list.is_empty() { Some(Vec::new()) } else { kinds_of_names(list.split(',')) }
            })?
            .unwrap_or_default(),
        })
    }
}

impl Presence {
    /// Reads the payload.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(payload: Option<&RawValue>) -> Result<Self, Error> {
        let fields = Fields::read(payload)?;
        let meeting = fields.meeting()?;
        Ok(Self { meeting, limit: fields.limit(&PRESENCE_PAGE)?.unwrap_or(PRESENCE_PAGE_DEFAULT) })
    }

    /// Reads the query of an HTTP request for the meeting that its path names: `limit`.
    ///
    /// # Errors
    /// `invalid_payload`, with the parameter.
    pub fn from_query<'q>(meeting: &str, query: impl Iterator<Item = (&'q str, &'q str)>) -> Result<Self, Error> {
        let [limit] = parameters(query, ["limit"])?;
        let meeting = Meeting::from_path(meeting)?;
        Ok(Self { meeting, limit: page_limit(limit, &PRESENCE_PAGE)?.unwrap_or(PRESENCE_PAGE_DEFAULT) })
    }
}

impl Notifications {
    /// Reads the payload, which may be missing: there is nothing that it must say.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(payload: Option<&RawValue>) -> Result<Self, Error> {
        let fields = match payload {
            None => Fields::default(),
            payload => Fields::read(payload)?,
        };
        Ok(Self {
            from: page_start(("before", fields.before.map(RawValue::get)), ("after", fields.after.map(RawValue::get)))?,
            limit: fields.limit(&INBOX_PAGE)?.unwrap_or(INBOX_PAGE_DEFAULT),
            unread_only: optional(fields.unread_only, "unread_only", FLAG, flag)?.unwrap_or(false),
        })
    }

    /// Reads the query of an HTTP request: `before` or `after`, `limit`, `unread_only`. Names and values are
    /// percent-decoded.
    ///
    /// # Errors
    /// `invalid_payload`, with the parameter.
    pub fn from_query<'q>(query: impl Iterator<Item = (&'q str, &'q str)>) -> Result<Self, Error> {
        let [before, after, limit, unread_only] = parameters(query, ["before", "after", "limit", "unread_only"])?;
        Ok(Self {
            from: page_start(("before", before), ("after", after))?,
            limit: page_limit(limit, &INBOX_PAGE)?.unwrap_or(INBOX_PAGE_DEFAULT),
            unread_only: optional(unread_only, "unread_only", FLAG, query_flag)?.unwrap_or(false),
        })
    }
}

impl ReadNotifications {
    /// Reads the payload, or the body of an HTTP request.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(payload: Option<&RawValue>) -> Result<Self, Error> {
        let fields = Fields::read(payload)?;
        let ids = optional(fields.ids, "ids", IDS, notification_ids)?;
        let up_to = optional(fields.up_to, "up_to", UP_TO, |value| integer(value.get()))?;
        let which = match (ids, up_to) {
            (Some(ids), None) => Read::Ids(ids),
            (None, Some(nseq)) => Read::UpTo(nseq),
            (Some(_), Some(_)) => return Err(Error::invalid("up_to", UP_TO)),
            (None, None) => return Err(Error::invalid("ids", IDS)),
        };
        Ok(Self { which })
    }
}

impl<'a> RefreshToken<'a> {
    /// Reads the payload.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(payload: Option<&'a RawValue>) -> Result<Self, Error> {
        let token = required(Fields::read(payload)?.token, "token", TOKEN, string)?;
        Ok(Self { token: without_scheme(token) })
    }
}

impl fmt::Debug for RefreshToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(…)")
    }
}

impl<'a> ConnectAuth<'a> {
    /// Reads the payload. What is not as expected counts as missing: the token may also stand in a header.
    pub fn read(payload: Option<&'a RawValue>) -> Self {
        let Ok(fields) = Fields::read(payload) else { return Self::default() };
        Self {
            token: fields.token.and_then(string).map(without_scheme).filter(|token| !token.is_empty()),
            client: fields.client.and_then(|value| printable(value, CLIENT_MAX_CHARS)),
        }
    }
}

impl fmt::Debug for ConnectAuth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_token = self.token.is_some();
        f.debug_struct("ConnectAuth").field("has_token", &has_token).field("client", &self.client).finish()
    }
}

impl Meeting<'_> {
    /// The meeting that a path names, percent-decoded.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn from_path(id: &str) -> Result<RoomId, Error> {
        required(Some(id), "meeting_id", MEETING_ID, meeting_id_text)
    }
}

/// The JSON text in the body of an HTTP request: as deep as an event's payload may be, and checked to be JSON.
///
/// # Errors
/// `invalid_payload`.
pub fn body(bytes: &[u8]) -> Result<&RawValue, Error> {
    serde_json::from_slice::<&RawValue>(bytes)
        .ok()
        .filter(|json| fields::depth(json.get()) <= fields::DEPTH_MAX)
        .ok_or_else(|| Error::new(Code::InvalidPayload, format!("body: expected {JSON}")))
}

impl<'a> Fields<'a> {
    fn read(payload: Option<&'a RawValue>) -> Result<Self, Error> {
        object(payload)
    }

    fn read_or_bare(payload: Option<&'a RawValue>) -> Result<Self, Error> {
        match payload {
            Some(bare) if bare.get().starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) => {
                Ok(Self { meeting_id: Some(bare), ..Self::default() })
            }
            payload => Self::read(payload),
        }
    }

    fn meeting(&self) -> Result<RoomId, Error> {
        self.meeting_as_sent().map(|meeting| meeting.id)
    }

    fn meeting_as_sent(&self) -> Result<Meeting<'a>, Error> {
        required(self.meeting_id.or(self.room), "meeting_id", MEETING_ID, |sent| {
            Some(Meeting { id: meeting_id(sent)?, sent })
        })
    }

    fn message_ref(&self) -> Result<MessageRef, Error> {
        required(self.id, "id", MESSAGE_ID, message_ref)
    }

    fn limit(&self, range: &RangeInclusive<usize>) -> Result<Option<usize>, Error> {
        page_limit(self.limit.map(RawValue::get), range)
    }
}

fn message_from_path(id: &str) -> Result<MessageRef, Error> {
    required(Some(id), "id", MESSAGE_ID, MessageRef::parse)
}

/// Where a page begins, by the fields for both directions.
fn page_start(before: (&'static str, Option<&str>), after: (&'static str, Option<&str>)) -> Result<From, Error> {
    let seq = |(field, value)| optional(value, field, ONE_DIRECTION, integer);
    match (seq(before)?, seq(after)?) {
        (None, None) => Ok(From::Top),
        (Some(seq), None) => Ok(From::Before(seq)),
        (None, Some(seq)) => Ok(From::After(seq)),
        (Some(_), Some(_)) => Err(Error::invalid(before.0, ONE_DIRECTION)),
    }
}

fn page_limit(value: Option<&str>, range: &RangeInclusive<usize>) -> Result<Option<usize>, Error> {
    optional(value, "limit", ANY_INTEGER, |text| clamped(text, range))
}

fn text(value: &RawValue) -> Option<(&RawValue, Cow<'_, str>)> {
    let text = string(value)?;
    let is_control = |byte: u8| byte < 0x20 && byte != b'\n' && byte != b'\t';
    let is_fine = (1..=TEXT_MAX_BYTES).contains(&text.len())
        // Counted only where bytes alone do not say it.
        && (text.len() <= TEXT_MAX_CHARS || text.chars().count() <= TEXT_MAX_CHARS)
        && !text.bytes().any(is_control);
    is_fine.then_some((value, text))
}

fn position(value: &RawValue) -> Option<Position> {
    let fields: Fields<'_> = object(Some(value)).ok()?;
    Some(Position { epoch: epoch(&string(fields.epoch?)?)?, seq: integer(fields.seq?.get())? })
}

/// Not compared with the form of those that are given out: any other than the log's is answered alike.
fn epoch(text: &str) -> Option<Arc<str>> {
    (text.chars().count() <= EPOCH_MAX_CHARS).then(|| text.into())
}

fn mentions(value: &RawValue) -> Option<Vec<Cow<'_, str>>> {
    let list = array(value)?;
    if list.len() > MENTIONS_MAX { None } else { list.into_iter().map(user_id).collect() }
}

fn meta(value: &RawValue) -> Option<&RawValue> {
    if value.get().len() <= META_MAX_BYTES { nested(value, META_MAX_DEPTH) } else { None }
}

fn kinds(value: &RawValue) -> Option<Vec<Kind>> {
    let names = array(value)?.into_iter().map(string).collect::<Option<Vec<_>>>()?;
    kinds_of_names(names.iter().map(AsRef::as_ref))
}

fn kinds_of_names<'n>(names: impl Iterator<Item = &'n str>) -> Option<Vec<Kind>> {
    let mut kinds = Vec::new();
    for name in names {
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == name)?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Some(kinds)
}

fn notification_ids(value: &RawValue) -> Option<Vec<Box<str>>> {
    let list = array(value)?;
    if list.len() > READ_IDS_MAX {
        return None;
    }
    let id = |value| fields::id(value, NOTIFICATION_ID_MAX_CHARS).map(|id| id.into_owned().into_boxed_str());
    list.into_iter().map(id).collect::<Option<_>>().map(without_repetitions)
}

/// Flask clients put the whole header's value into the payload.
fn without_scheme(token: Cow<'_, str>) -> Cow<'_, str> {
    const SCHEME: &str = "Bearer ";
    if !token.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME)) {
        return token;
    }
    match token {
        Cow::Borrowed(token) => Cow::Borrowed(token.get(SCHEME.len()..).unwrap_or_default()),
        Cow::Owned(token) => Cow::Owned(token.get(SCHEME.len()..).unwrap_or_default().to_owned()),
    }
}
