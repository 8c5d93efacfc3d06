//! What sibling services say of meetings: the objects of the channel `meeting_updates`, and of `POST /updates`.
//!
//! [`Update::read`] takes the strict form and the ones that are tolerated. A field that has several names is read under
//! the first of them that is there, in the order of the code below, and refused under that name. The other methods say
//! what an update leads to: who hears of it and by which payload, and what else is to be done.
//!
//! Left to others: doing it, that an update which comes twice counts once, and who of those named has read right.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    chat::{
        Code, Error,
        command::fields::{
            DEPTH_MAX, FLAG, INTEGER, INTEGER_MAX, JSON, MEETING_ID, USER_ID, array, depth, fields, flag, integer,
            meeting_id, nested, object, optional, printable, string, user_id, user_ids, without_repetitions,
        },
        rfc3339,
    },
    store::Content,
    types::RoomId,
};

/// Something that happened to a meeting, or that users are to know.
#[derive(Clone, Debug)]
pub struct Update {
    /// 1–64 printable characters, the same if the update is published again. Without: see [`derived_id`](Self::derived_id).
    pub id: Option<String>,
    /// What happened.
    pub kind: UpdateKind,
    /// To which meeting.
    pub meeting: Option<RoomId>,
    /// Who did it.
    pub actor: Option<Arc<str>>,
    /// Who is to be notified: at most 1 000, each once.
    pub recipients: Vec<Arc<str>>,
    /// Who was added, invited or removed, each once: those who are named besides the recipients, else the recipients.
    /// Empty for all other kinds.
    pub participants: Vec<Arc<str>>,
    /// Who is not to be notified. An empty list is not the same as none, see [`notified`](Self::notified).
    pub exclude: Option<Vec<Arc<str>>>,
    /// Where it goes.
    pub to: To,
    /// A notification's title, at most 200 characters.
    pub title: Option<Box<str>>,
    /// A notification's text, at most 1 000 characters.
    pub body: Option<Box<str>>,
    /// A JSON object that is passed on.
    pub data: Option<Box<RawValue>>,
    /// When the meeting begins, in ms since the epoch.
    pub starts_at: Option<u64>,
    /// Whether notifications are kept for those who are away.
    pub persist: bool,
    /// How long they are worth keeping.
    pub ttl_ms: Option<u64>,
    /// When it happened, in ms since the epoch, by the publisher's clock.
    pub ts: Option<u64>,
    /// Without meeting and recipients: notify everybody who is connected.
    pub broadcast: bool,
}

/// What happened to a meeting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UpdateKind {
    /// `meeting.created`.
    Created,
    /// `meeting.updated`, also of an update that does not say.
    Updated,
    /// `meeting.rescheduled`.
    Rescheduled,
    /// `meeting.cancelled`.
    Cancelled,
    /// `meeting.deleted`.
    Deleted,
    /// `meeting.started`.
    Started,
    /// `meeting.ended`.
    Ended,
    /// `meeting.reminder`.
    Reminder,
    /// `participant.added`.
    ParticipantAdded,
    /// `participant.invited`.
    ParticipantInvited,
    /// `participant.removed`.
    ParticipantRemoved,
    /// `participant.responded`.
    ParticipantResponded,
    /// Any other: 1–64 of `[a-z0-9_.-]`.
    Other(Box<str>),
}

/// Where an update goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// Only to those who have joined the meeting.
    Room,
    /// Only to those who are to be notified.
    Users,
    /// To both.
    Both,
}

/// What an update leads to beside being told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SideEffect<'a> {
    /// Nothing.
    None,
    /// Set the meeting's reminders, for [`notified`](Update::notified).
    SetReminders {
        /// In ms since the epoch.
        starts_at: u64,
    },
    /// Replace the time of the meeting's reminders.
    MoveReminders {
        /// In ms since the epoch.
        starts_at: u64,
    },
    /// Drop the meeting's reminders.
    DropReminders,
    /// Drop the meeting's reminders, and make it read-only right behind this update.
    CloseRoom,
    /// Make the meeting read-only after a while.
    StartCloseTimer,
    /// These users take part, or may: forget what was decided about them.
    ParticipantsAdded(&'a [Arc<str>]),
    /// These users take part no longer: forget what was decided about them, and take them out of the meeting.
    ParticipantsRemoved(&'a [Arc<str>]),
}

/// Largest update, in bytes.
pub const UPDATE_MAX_BYTES: usize = 64 * 1024;
const VERSION: u64 = 1;
const ID_MAX_CHARS: usize = 64;
const KIND_MAX: usize = 64;
const USERS_MAX: usize = 1000;
const TITLE_MAX_CHARS: usize = 200;
const BODY_MAX_CHARS: usize = 1000;
/// Times below are in seconds: as ms they would be before March 1973, as seconds those above are after the year 5138.
const SECONDS_BELOW: u64 = 100_000_000_000;
/// Hexadecimal digits of a derived id: 128 bits.
const DERIVED_ID_LEN: usize = 32;

const V: &str = "1";
const ID: &str = "a string of 1-64 printable characters";
const KIND: &str = "a string of 1-64 characters of a-z 0-9 _ . -";
const USERS: &str = "an array of at most 1000 user ids";
const PEOPLE: &str = "an array of at most 1000 user ids, or objects with id or user_id";
const TO: &str = "room, users or both";
const TITLE: &str = "a string of at most 200 characters";
const BODY: &str = "a string of at most 1000 characters";
const DATA: &str = "an object";
const MOMENT: &str = "ms or s since 1970, or a time of RFC 3339";

fields! { Fields:
    v id kind = "type" event event_type action meeting_id camel_case_id = "meetingId" room meeting data payload update
    actor_id recipients user_ids participants user_id exclude to title body starts_at persist ttl_ms ts timestamp
    broadcast
}
fields! { MeetingFields: id }
fields! { DataFields: meeting_id }
fields! { PersonFields: user_id id }

impl Update {
    /// Reads one object.
    ///
    /// # Errors
    /// `too_large`, or `invalid_payload` with the field.
    pub fn read(json: &str) -> Result<Self, Error> {
        if json.len() > UPDATE_MAX_BYTES {
            return Err(Error::new(Code::TooLarge, format!("expected at most {UPDATE_MAX_BYTES} bytes")));
        }
        let fields: Fields<'_> = object(serde_json::from_str(json).ok())?;
        if depth(json) > DEPTH_MAX {
            return Err(Error::new(Code::InvalidPayload, format!("payload: expected {JSON}")));
        }
        optional(fields.v, "v", V, |value| integer(value.get()).filter(|version| *version == VERSION))?;
        let kind = fields.kind()?;
        let data = fields.data()?;
        let named = fields.people()?;
        let recipients = optional(fields.recipients, "recipients", USERS, |value| user_ids(value, USERS_MAX))?;
        let participants = match kind {
            UpdateKind::ParticipantAdded | UpdateKind::ParticipantInvited | UpdateKind::ParticipantRemoved => {
                named.clone().or_else(|| recipients.clone()).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        Ok(Self {
            id: optional(fields.id, "id", ID, |value| printable(value, ID_MAX_CHARS))?.map(Into::into),
            kind,
            meeting: fields.meeting(data)?,
            actor: optional(fields.actor_id, "actor_id", USER_ID, user_id)?.map(Into::into),
            recipients: recipients.or(named).unwrap_or_default(),
            participants,
            exclude: optional(fields.exclude, "exclude", USERS, |value| user_ids(value, USERS_MAX))?,
            to: optional(fields.to, "to", TO, |value| To::from_name(&string(value)?))?.unwrap_or(To::Both),
            title: optional(fields.title, "title", TITLE, |value| short(value, TITLE_MAX_CHARS))?,
            body: optional(fields.body, "body", BODY, |value| short(value, BODY_MAX_CHARS))?,
            data: data.map(ToOwned::to_owned),
            starts_at: optional(fields.starts_at, "starts_at", MOMENT, moment)?,
            persist: optional(fields.persist, "persist", FLAG, flag)?.unwrap_or(true),
            ttl_ms: optional(fields.ttl_ms, "ttl_ms", INTEGER, |value| integer(value.get()))?,
            ts: match optional(fields.ts, "ts", INTEGER, |value| integer(value.get()))? {
                None => optional(fields.timestamp, "timestamp", MOMENT, moment)?,
                ts => ts,
            },
            broadcast: optional(fields.broadcast, "broadcast", FLAG, flag)?.unwrap_or(false),
        })
    }

    /// The id of an update that has none: the same for the same bytes. Nothing that has to withstand forgery.
    pub fn derived_id(bytes: &[u8]) -> String {
        let mut id = sha1_smol::Sha1::from(bytes).digest().to_string();
        id.truncate(DERIVED_ID_LEN);
        id
    }

    /// Whether it goes to nobody: there is neither a meeting nor a recipient, nor is it for everybody.
    pub fn is_for_nobody(&self) -> bool {
        self.meeting.is_none() && self.recipients.is_empty() && self.participants.is_empty() && !self.broadcast
    }

    /// Whether everybody who is connected is notified (but for whom it [leaves out](Self::leaves_out)): only if it names
    /// neither a meeting nor a recipient.
    pub fn is_for_everybody(&self) -> bool {
        self.broadcast
            && self.meeting.is_none()
            && self.recipients.is_empty()
            && self.participants.is_empty()
            && self.to != To::Room
    }

    /// Whether those who have joined the meeting hear of it.
    pub fn goes_to_room(&self) -> bool {
        self.meeting.is_some() && self.to != To::Users && self.kind != UpdateKind::Created
    }

    /// Who gets a notification, each once: the recipients and those who were added, invited or removed, but nobody who is
    /// excluded. Whoever did it needs no telling, unless they are a recipient and `exclude` is an empty list.
    pub fn notified(&self) -> Vec<Arc<str>> {
        if self.to == To::Room || self.kind == UpdateKind::Ended {
            return Vec::new();
        }
        let everybody = self.recipients.iter().chain(&self.participants).cloned().collect();
        let mut notified = without_repetitions(everybody);
        notified.retain(|user| !self.leaves_out(user));
        notified
    }

    /// Whether somebody gets no notification although they would by their place: they are excluded, or did it themselves.
    pub fn leaves_out(&self, user: &str) -> bool {
        let excluded = self.exclude.as_deref();
        if excluded.is_some_and(|excluded| excluded.iter().any(|id| **id == *user)) {
            return true;
        }
        let wants_to_know = excluded.is_some_and(<[_]>::is_empty) && self.recipients.iter().any(|id| **id == *user);
        self.actor.as_deref() == Some(user) && !wants_to_know
    }

    /// Those whom it names to [leave out](Self::leaves_out).
    pub fn left_out(&self) -> Vec<Arc<str>> {
        let named = self.exclude.iter().flatten().chain(&self.actor);
        without_repetitions(named.filter(|user| self.leaves_out(user)).cloned().collect())
    }

    /// What is to be done beside telling. Nothing without a meeting.
    pub fn side_effect(&self) -> SideEffect<'_> {
        if self.meeting.is_none() {
            return SideEffect::None;
        }
        match (&self.kind, self.starts_at) {
            (UpdateKind::Created, Some(starts_at)) => SideEffect::SetReminders { starts_at },
            (UpdateKind::Updated | UpdateKind::Rescheduled, Some(starts_at)) => SideEffect::MoveReminders { starts_at },
            // Of a new time that is not told, only that the old one is wrong is known.
            (UpdateKind::Rescheduled, None) | (UpdateKind::Started, _) => SideEffect::DropReminders,
            (UpdateKind::Cancelled | UpdateKind::Deleted, _) => SideEffect::CloseRoom,
            (UpdateKind::Ended, _) => SideEffect::StartCloseTimer,
            (UpdateKind::ParticipantAdded | UpdateKind::ParticipantInvited, _) => {
                SideEffect::ParticipantsAdded(&self.participants)
            }
            (UpdateKind::ParticipantRemoved, _) => SideEffect::ParticipantsRemoved(&self.participants),
            (UpdateKind::Created | UpdateKind::Updated, None)
            | (UpdateKind::Reminder | UpdateKind::ParticipantResponded | UpdateKind::Other(_), _) => SideEffect::None,
        }
    }

    /// When its notifications may be dropped, in ms since the epoch.
    pub fn expires_at(&self, now: u64) -> Option<u64> {
        self.ttl_ms.map(|ttl_ms| now.saturating_add(ttl_ms))
    }

    /// The payload of `meeting_update` but for what the log adds. `id` is the update's own or the derived one.
    pub fn room_content(&self, id: &str, meeting: &RoomId) -> Content {
        let empty = || serde_json::from_str("{}").unwrap_or(RawValue::NULL);
        let content = RoomContent {
            meeting_id: meeting.as_str(),
            kind: self.kind.as_str(),
            event_id: id,
            actor_id: self.actor.as_deref(),
            data: self.data.as_deref().unwrap_or_else(empty),
        };
        Content { json: json(&content), erasable_from: None }
    }

    /// The payload of `notification` but for what the inbox adds. `id` is the update's own or the derived one. It is
    /// dated as the update is, and never later than `now`.
    pub fn notification(&self, id: &str, now: u64) -> Box<str> {
        json(&Notification {
            id,
            kind: self.kind.as_str(),
            meeting_id: self.meeting.as_ref().map(RoomId::as_str),
            actor_id: self.actor.as_deref(),
            title: self.title.as_deref(),
            body: self.body.as_deref(),
            data: self.data.as_deref(),
            ts: self.ts.map_or(now, |ts| ts.min(now)),
        })
    }
}

impl UpdateKind {
    /// Those that have a name of their own here.
    const NAMED: [Self; 12] = [
        Self::Created,
        Self::Updated,
        Self::Rescheduled,
        Self::Cancelled,
        Self::Deleted,
        Self::Started,
        Self::Ended,
        Self::Reminder,
        Self::ParticipantAdded,
        Self::ParticipantInvited,
        Self::ParticipantRemoved,
        Self::ParticipantResponded,
    ];

    /// The name in `type`, and in a notification's `kind`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Created => "meeting.created",
            Self::Updated => "meeting.updated",
            Self::Rescheduled => "meeting.rescheduled",
            Self::Cancelled => "meeting.cancelled",
            Self::Deleted => "meeting.deleted",
            Self::Started => "meeting.started",
            Self::Ended => "meeting.ended",
            Self::Reminder => "meeting.reminder",
            Self::ParticipantAdded => "participant.added",
            Self::ParticipantInvited => "participant.invited",
            Self::ParticipantRemoved => "participant.removed",
            Self::ParticipantResponded => "participant.responded",
            Self::Other(name) => name,
        }
    }

    /// The kind of that name; `None` if nothing may be called so.
    pub fn from_name(name: &str) -> Option<Self> {
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
        if !(1..=KIND_MAX).contains(&name.len()) || !name.bytes().all(is_name) {
            return None;
        }
        let named = Self::NAMED.into_iter().find(|kind| kind.as_str() == name);
        Some(named.unwrap_or_else(|| Self::Other(name.into())))
    }
}

impl To {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "room" => Some(Self::Room),
            "users" => Some(Self::Users),
            "both" => Some(Self::Both),
            _ => None,
        }
    }
}

impl<'a> Fields<'a> {
    fn kind(&self) -> Result<UpdateKind, Error> {
        let names =
            [("type", self.kind), ("event", self.event), ("event_type", self.event_type), ("action", self.action)];
        let kind = aliased(names, KIND, |value| UpdateKind::from_name(&string(value)?))?;
        Ok(kind.unwrap_or(UpdateKind::Updated))
    }

    fn data(&self) -> Result<Option<&'a RawValue>, Error> {
        let names =
            [("data", self.data), ("payload", self.payload), ("meeting", self.meeting), ("update", self.update)];
        aliased(names, DATA, |value| nested(value, DEPTH_MAX))
    }

    fn meeting(&self, data: Option<&'a RawValue>) -> Result<Option<RoomId>, Error> {
        let names = [("meeting_id", self.meeting_id), ("meetingId", self.camel_case_id), ("room", self.room)];
        if let Some(id) = aliased(names, MEETING_ID, meeting_id)? {
            return Ok(Some(id));
        }
        let inside: Option<MeetingFields<'_>> =
            optional(self.meeting, "meeting", DATA, |value| object(Some(value)).ok())?;
        if let Some(id) = optional(inside.and_then(|meeting| meeting.id), "meeting.id", MEETING_ID, meeting_id)? {
            return Ok(Some(id));
        }
        let inside: Option<DataFields<'_>> = optional(data, "data", DATA, |value| object(Some(value)).ok())?;
        optional(inside.and_then(|data| data.meeting_id), "data.meeting_id", MEETING_ID, meeting_id)
    }

    /// Those who are named, but not as `recipients`.
    fn people(&self) -> Result<Option<Vec<Arc<str>>>, Error> {
        match aliased([("user_ids", self.user_ids), ("participants", self.participants)], PEOPLE, people)? {
            None => {
                let user = optional(self.user_id, "user_id", USER_ID, user_id)?;
                Ok(user.map(|user| vec![user.into()]))
            }
            people => Ok(people),
        }
    }
}

/// What the first of these fields that is there stands for.
fn aliased<'a, T, const N: usize>(
    names: [(&'static str, Option<&'a RawValue>); N],
    expected: &'static str,
    take: impl FnOnce(&'a RawValue) -> Option<T>,
) -> Result<Option<T>, Error> {
    match names.into_iter().find(|(_, value)| value.is_some()) {
        Some((name, value)) => optional(value, name, expected, take),
        None => Ok(None),
    }
}

fn people(value: &RawValue) -> Option<Vec<Arc<str>>> {
    let list = array(value)?;
    if list.len() > USERS_MAX {
        return None;
    }
    list.into_iter().map(person).collect::<Option<_>>().map(without_repetitions)
}

fn person(value: &RawValue) -> Option<Arc<str>> {
    if !value.get().starts_with('{') {
        return user_id(value).map(Into::into);
    }
    let fields: PersonFields<'_> = object(Some(value)).ok()?;
    // With both, `id` is that of a row which says who takes part.
    user_id(fields.user_id.or(fields.id)?).map(Into::into)
}

fn short(value: &RawValue, max_chars: usize) -> Option<Box<str>> {
    string(value).filter(|text| text.chars().count() <= max_chars).map(|text| text.into_owned().into_boxed_str())
}

/// ms since the epoch. Fractions are taken: Python's clock has them.
fn moment(value: &RawValue) -> Option<u64> {
    if value.get().starts_with('"') {
        return rfc3339::parse_ms(&string(value)?);
    }
    if let Some(number) = integer(value.get()) {
        return Some(if number < SECONDS_BELOW { number * 1000 } else { number });
    }
    let number: f64 = value.get().parse().ok()?;
    let ms = if number < SECONDS_BELOW as f64 { number * 1000.0 } else { number };
    (0.0..=INTEGER_MAX as f64).contains(&ms).then_some(ms.round() as u64)
}

#[derive(Serialize)]
struct RoomContent<'a> {
    meeting_id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    event_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor_id: Option<&'a str>,
    data: &'a RawValue,
}

#[derive(Serialize)]
struct Notification<'a> {
    id: &'a str,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    meeting_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    ts: u64,
}

/// Nothing here can fail to serialise: there are only strings, a number, and JSON.
fn json(payload: &impl Serialize) -> Box<str> {
    serde_json::to_string(payload).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    /// The field that an update is refused for, or nothing if it is taken.
    fn refused(json: &str) -> Option<&'static str> {
        let error = Update::read(json).err()?;
        assert_eq!(error.code, Code::InvalidPayload, "{json:.80}");
        Some(error.details.map_or("payload", |details| details.field))
    }

    fn read(json: &str) -> Update {
        Update::read(json).unwrap_or_else(|error| panic!("{json}: {error:?}"))
    }

    fn quoted(count: usize) -> String {
        format!("\"{}\"", "x".repeat(count))
    }

    fn list(item: &str, count: usize) -> String {
        format!("[{}]", vec![item; count].join(","))
    }

    fn names(users: &[Arc<str>]) -> Vec<&str> {
        users.iter().map(AsRef::as_ref).collect()
    }

    #[test]
    fn the_strict_form() {
        let update = read(
            r#"{"v":1,"id":"e-1","type":"meeting.cancelled","meeting_id":"m","actor_id":"ann","recipients":["bob",7,"bob"],
            "exclude":["eve"],"to":"users","title":"T","body":"B\u0062","data":{"a": [1]},"starts_at":1700000000000,
            "persist":false,"ttl_ms":60000,"ts":1700000000001,"broadcast":true,"unknown":{}}"#,
        );
        assert_eq!(update.id.as_deref(), Some("e-1"));
        assert_eq!(update.kind, UpdateKind::Cancelled);
        assert_eq!(update.meeting, Some(RoomId::new("m")));
        assert_eq!(update.actor.as_deref(), Some("ann"));
        assert_eq!(names(&update.recipients), ["bob", "7"]);
        assert_eq!(names(&update.exclude.unwrap()), ["eve"]);
        assert_eq!(update.to, To::Users);
        assert_eq!((update.title.as_deref(), update.body.as_deref()), (Some("T"), Some("Bb")));
        assert_eq!(update.data.unwrap().get(), r#"{"a": [1]}"#);
        assert_eq!((update.starts_at, update.ts), (Some(1_700_000_000_000), Some(1_700_000_000_001)));
        assert_eq!((update.persist, update.ttl_ms, update.broadcast), (false, Some(60_000), true));
    }

    #[test]
    fn what_is_not_said() {
        for json in ["{}", r#"{"type":null,"v":null,"data":null,"to":null,"exclude":null,"persist":null,"ts":null}"#] {
            let update = read(json);
            assert_eq!((&update.id, &update.kind, &update.meeting), (&None, &UpdateKind::Updated, &None), "{json}");
            assert!(update.actor.is_none() && update.recipients.is_empty() && update.exclude.is_none(), "{json}");
            assert!(update.title.is_none() && update.body.is_none() && update.data.is_none(), "{json}");
            assert_eq!((update.to, update.persist, update.broadcast), (To::Both, true, false), "{json}");
            assert_eq!((update.starts_at, update.ttl_ms, update.ts), (None, None, None), "{json}");
        }
    }

    #[test]
    fn every_field_is_checked() {
        let users = |field| {
            vec![
                (field, "[]".to_owned(), true),
                (field, list("\"u\"", 1000), true),
                (field, list("\"u\"", 1001), false),
                (field, "[5]".into(), true),
                (field, "[9007199254740992]".into(), false),
                (field, "[\"\"]".into(), false),
                (field, "[null]".into(), false),
                (field, "[[]]".into(), false),
                (field, "[\"a\\u0000\"]".into(), false),
                (field, "[\"\\ud800\"]".into(), false),
                (field, list(&quoted(128), 1), true),
                (field, list(&quoted(129), 1), false),
                (field, "\"u\"".into(), false),
                (field, "5".into(), false),
            ]
        };
        let ids = |field, max: usize| {
            vec![
                (field, quoted(max), true),
                (field, quoted(max + 1), false),
                (field, "\"\"".to_owned(), false),
                (field, "7".into(), true),
                (field, "9007199254740991".into(), true),
                (field, "9007199254740992".into(), false),
                (field, "-1".into(), false),
                (field, "1.5".into(), false),
                (field, "true".into(), false),
                (field, "[]".into(), false),
                (field, r#""\ud800""#.into(), false),
                (field, r#""a\u0007""#.into(), false),
            ]
        };
        let kinds = |field| {
            vec![
                (field, quoted(64), true),
                (field, quoted(65), false),
                (field, "\"\"".to_owned(), false),
                (field, "\"a-b_c.9\"".into(), true),
                (field, "\"Meeting.created\"".into(), false),
                (field, "\"meeting created\"".into(), false),
                (field, "\"ä\"".into(), false),
                (field, r#""a\n""#.into(), false),
                (field, r#""\ud800""#.into(), false),
                (field, "5".into(), false),
                (field, "{}".into(), false),
            ]
        };
        let objects = |field| {
            vec![
                (field, "{}".to_owned(), true),
                (field, r#"{"meeting_id":"m","id":"m"}"#.into(), true),
                (field, "[]".into(), false),
                (field, "[{}]".into(), false),
                (field, "\"x\"".into(), false),
                (field, "5".into(), false),
                (field, "true".into(), false),
            ]
        };
        let integers = |field| {
            vec![
                (field, "0".to_owned(), true),
                (field, "9007199254740991".into(), true),
                (field, "9007199254740992".into(), false),
                (field, "-1".into(), false),
                (field, "1.5".into(), false),
                (field, "\"1\"".into(), false),
                (field, "true".into(), false),
                (field, "[]".into(), false),
            ]
        };
        let moments = |field| {
            vec![
                (field, "0".to_owned(), true),
                (field, "1700000000".into(), true),
                (field, "1700000000.5".into(), true),
                (field, "9007199254740991".into(), true),
                (field, "9007199254740992".into(), false),
                (field, "1e300".into(), false),
                (field, "1e999".into(), false),
                (field, "-1".into(), false),
                (field, "-0.1".into(), false),
                (field, "\"2024-02-29T12:00:00Z\"".into(), true),
                (field, r#""2024-02-29\u005412:00:00Z""#.into(), true),
                (field, "\"2024-02-29T12:00:00\"".into(), false),
                (field, "\"1700000000\"".into(), false),
                (field, "\"\"".into(), false),
                (field, "true".into(), false),
                (field, "{}".into(), false),
            ]
        };
        let flags = |field| {
            vec![
                (field, "true".to_owned(), true),
                (field, "false".into(), true),
                (field, "1".into(), false),
                (field, "\"true\"".into(), false),
                (field, "[]".into(), false),
            ]
        };
        let texts = |field, max: usize| {
            vec![
                (field, "\"\"".to_owned(), true),
                (field, format!("\"{}\"", "😀".repeat(max)), true),
                (field, quoted(max + 1), false),
                (field, r#""line\n\u0000""#.into(), true),
                (field, r#""\ud800""#.into(), false),
                (field, "5".into(), false),
                (field, "[]".into(), false),
            ]
        };
        let own = vec![
            ("v", "1".to_owned(), true),
            ("v", "2".into(), false),
            ("v", "0".into(), false),
            ("v", "1.0".into(), false),
            ("v", "\"1\"".into(), false),
            ("id", quoted(1), true),
            ("id", quoted(64), true),
            ("id", quoted(65), false),
            ("id", "\"\"".into(), false),
            ("id", "7".into(), false),
            ("id", r#""a\u0000""#.into(), false),
            ("id", r#""\ud800""#.into(), false),
            ("to", "\"room\"".into(), true),
            ("to", "\"users\"".into(), true),
            ("to", "\"both\"".into(), true),
            ("to", "\"Both\"".into(), false),
            ("to", "\"\"".into(), false),
            ("to", "1".into(), false),
            ("recipients", "[{\"id\":\"u\"}]".into(), false),
            ("exclude", "[{\"id\":\"u\"}]".into(), false),
            ("user_ids", "[{\"id\":\"u\"},{\"user_id\":7}]".into(), true),
            ("participants", "[{\"id\":\"u\",\"user_id\":null}]".into(), true),
            ("participants", "[{\"name\":\"u\"}]".into(), false),
            ("participants", "[{\"id\":[]}]".into(), false),
            ("participants", "[{\"id\":\"a\",\"id\":\"b\"}]".into(), false),
            ("meeting", r#"{"id":null}"#.into(), true),
            ("data", r#"{"meeting_id":null}"#.into(), true),
        ];
        let cases = [
            own,
            kinds("type"),
            kinds("event"),
            kinds("event_type"),
            kinds("action"),
            ids("meeting_id", 128),
            ids("meetingId", 128),
            ids("room", 128),
            ids("actor_id", 128),
            ids("user_id", 128),
            users("recipients"),
            users("exclude"),
            users("user_ids"),
            users("participants"),
            objects("data"),
            objects("payload"),
            objects("meeting"),
            objects("update"),
            integers("ttl_ms"),
            integers("ts"),
            moments("starts_at"),
            moments("timestamp"),
            flags("persist"),
            flags("broadcast"),
            texts("title", 200),
            texts("body", 1000),
        ];
        for (field, value, is_fine) in cases.into_iter().flatten() {
            let json = format!(r#"{{"{field}":{value}}}"#);
            assert_eq!(refused(&json), if is_fine { None } else { Some(field) }, "{json:.80}");
            // `null` is no field.
            assert_eq!(refused(&format!(r#"{{"{field}":null}}"#)), None);
        }
        for (json, field) in [
            (r#"{"meeting":{"id":"a b"}}"#, "meeting.id"),
            (r#"{"data":{},"meeting":5}"#, "meeting"),
            (r#"{"data":{"meeting_id":true}}"#, "data.meeting_id"),
            (r#"{"payload":{"meeting_id":""}}"#, "data.meeting_id"),
            (r#"{"data":{"meeting_id":"a","meeting_id":"b"}}"#, "data"),
        ] {
            assert_eq!(refused(json), Some(field), "{json}");
        }
    }

    #[test]
    fn objects_up_to_their_limits() {
        for json in ["", "x", "[]", "[{}]", "5", "\"m\"", "null", "{", "{} {}", r#"{"type":"a","type":"a"}"#] {
            assert_eq!(refused(json), Some("payload"), "{json}");
        }
        let sized = |bytes: usize| format!(r#"{{"data":{{"k":"{}"}}}}"#, "x".repeat(bytes - 17));
        assert_eq!(sized(100).len(), 100);
        assert_eq!(refused(&sized(64 * 1024)), None);
        assert_eq!(Update::read(&sized(64 * 1024 + 1)).unwrap_err().code, Code::TooLarge);
        let nested = |depth: usize| format!(r#"{{"data":{{"k":{}{}}}}}"#, "[".repeat(depth - 2), "]".repeat(depth - 2));
        assert_eq!(refused(&nested(32)), None);
        assert_eq!(refused(&nested(33)), Some("payload"));
        assert_eq!(refused(&nested(30_000)), Some("payload"));
        assert_eq!(refused(&format!(r#"{{"unknown":{}}}"#, nested(32))), Some("payload"));
    }

    #[test]
    fn tolerated_names_stand_for_the_strict_ones() {
        let started = UpdateKind::Started;
        let cases = [
            (r#"{"type":"meeting.started","event":5}"#, &started),
            (r#"{"event":"meeting.started","event_type":"x"}"#, &started),
            (r#"{"event_type":"meeting.started","action":"x"}"#, &started),
            (r#"{"action":"meeting.started"}"#, &started),
            (r#"{"type":null,"action":"meeting.started"}"#, &started),
        ];
        for (json, kind) in cases {
            assert_eq!(read(json).kind, *kind, "{json}");
        }
        let meetings = [
            (r#"{"meeting_id":"a","meetingId":"b","room":[],"meeting":{"id":"c"},"data":{"meeting_id":"d"}}"#, "a"),
            (r#"{"meetingId":"b","room":"c"}"#, "b"),
            (r#"{"room":7,"meeting":{"id":"c"}}"#, "7"),
            (r#"{"meeting":{"id":8},"data":{"meeting_id":"d"}}"#, "8"),
            (r#"{"meeting":{"id":8,"meeting_id":9}}"#, "8"),
            (r#"{"data":{"meeting_id":"d"}}"#, "d"),
            (r#"{"payload":{"meeting_id":"d"}}"#, "d"),
            (r#"{"meeting":{"meeting_id":"d"}}"#, "d"),
            (r#"{"update":{"meeting_id":"d"}}"#, "d"),
        ];
        for (json, meeting) in meetings {
            assert_eq!(read(json).meeting, Some(RoomId::new(meeting)), "{json}");
        }
        let recipients: [(&str, &[&str]); 9] = [
            (r#"{"recipients":["a"],"user_ids":["b"],"user_id":"c"}"#, &["a"]),
            (r#"{"recipients":[],"user_ids":["b"]}"#, &[]),
            (r#"{"user_ids":["b",{"id":5},{"user_id":"b"}],"participants":["c"],"user_id":"d"}"#, &["b", "5"]),
            (r#"{"participants":[{"id":1,"user_id":"c"}],"user_id":"d"}"#, &["c"]),
            (r#"{"user_id":7}"#, &["7"]),
            (r#"{"user_id":"d"}"#, &["d"]),
            (r#"{"recipients":null,"user_id":"d"}"#, &["d"]),
            (r#"{"user_ids":[]}"#, &[]),
            ("{}", &[]),
        ];
        for (json, expected) in recipients {
            assert_eq!(names(&read(json).recipients), expected, "{json}");
        }
        let data = [
            (r#"{"data":{"a":1},"payload":5}"#, Some(r#"{"a":1}"#)),
            (r#"{"payload":{"a":1},"meeting":{"id":"m"}}"#, Some(r#"{"a":1}"#)),
            (r#"{"meeting":{"id":"m"},"update":{"a":1}}"#, Some(r#"{"id":"m"}"#)),
            (r#"{"update":{"a":1}}"#, Some(r#"{"a":1}"#)),
            (r#"{"update":null}"#, None),
        ];
        for (json, expected) in data {
            assert_eq!(read(json).data.as_deref().map(RawValue::get), expected, "{json}");
        }
    }

    #[test]
    fn times_in_every_form() {
        let cases = [
            ("1700000000000", 1_700_000_000_000),
            ("1700000000", 1_700_000_000_000),
            ("99999999999", 99_999_999_999_000),
            ("100000000000", 100_000_000_000),
            ("1700000000.123", 1_700_000_000_123),
            ("1.7e9", 1_700_000_000_000),
            ("1.7e12", 1_700_000_000_000),
            ("1700000000000.4", 1_700_000_000_000),
            ("0", 0),
            ("\"2023-11-14T22:13:20.5Z\"", 1_700_000_000_500),
            ("\"2023-11-14T23:13:20+01:00\"", 1_700_000_000_000),
        ];
        for (value, ms) in cases {
            let update = read(&format!(r#"{{"starts_at":{value},"timestamp":{value}}}"#));
            assert_eq!((update.starts_at, update.ts), (Some(ms), Some(ms)), "{value}");
        }
        // The strict field goes before, and knows ms only.
        assert_eq!(read(r#"{"ts":5,"timestamp":"x"}"#).ts, Some(5));
        assert_eq!(read("{\"ttl_ms\":5}").expires_at(NOW), Some(NOW + 5));
        assert_eq!(read("{}").expires_at(NOW), None);
        assert_eq!(read("{\"ttl_ms\":5}").expires_at(u64::MAX), Some(u64::MAX));
    }

    #[test]
    fn every_kind_goes_where_the_table_says() {
        use SideEffect::{
            CloseRoom, DropReminders, MoveReminders, None as Nothing, ParticipantsAdded, ParticipantsRemoved,
            SetReminders, StartCloseTimer,
        };
        let users = ["bob".into()];
        let starts_at = 1_700_000_000_000;
        // Kind, whether to the room, whether to recipients, side effect, side effect with `starts_at`.
        let cases = [
            ("meeting.created", false, true, Nothing, SetReminders { starts_at }),
            ("meeting.updated", true, true, Nothing, MoveReminders { starts_at }),
            ("meeting.rescheduled", true, true, DropReminders, MoveReminders { starts_at }),
            ("meeting.cancelled", true, true, CloseRoom, CloseRoom),
            ("meeting.deleted", true, true, CloseRoom, CloseRoom),
            ("meeting.started", true, true, DropReminders, DropReminders),
            ("meeting.ended", true, false, StartCloseTimer, StartCloseTimer),
            ("meeting.reminder", true, true, Nothing, Nothing),
            ("participant.added", true, true, ParticipantsAdded(&users), ParticipantsAdded(&users)),
            ("participant.invited", true, true, ParticipantsAdded(&users), ParticipantsAdded(&users)),
            ("participant.removed", true, true, ParticipantsRemoved(&users), ParticipantsRemoved(&users)),
            ("participant.responded", true, true, Nothing, Nothing),
            ("poll.opened", true, true, Nothing, Nothing),
        ];
        for (name, to_room, to_users, effect, effect_with_start) in cases {
            let update = |more: &str| read(&format!(r#"{{"type":"{name}","recipients":["bob"]{more}}}"#));
            assert_eq!(update("").kind.as_str(), name);
            assert_eq!(matches!(update("").kind, UpdateKind::Other(_)), name == "poll.opened");
            let notified: &[&str] = if to_users { &["bob"] } else { &[] };
            for (more, to_room, notified) in [
                (r#","meeting_id":"m""#, to_room, notified),
                (r#","meeting_id":"m","to":"both""#, to_room, notified),
                (r#","meeting_id":"m","to":"room""#, to_room, &[]),
                (r#","meeting_id":"m","to":"users""#, false, notified),
                ("", false, notified),
            ] {
                let update = update(more);
                assert_eq!(update.goes_to_room(), to_room, "{name}{more}");
                assert_eq!(names(&update.notified()), notified, "{name}{more}");
                assert!(!update.is_for_nobody() && !update.is_for_everybody(), "{name}{more}");
            }
            assert_eq!(update(r#","meeting_id":"m""#).side_effect(), effect, "{name}");
            let with_start = update(&format!(r#","meeting_id":"m","starts_at":{starts_at}"#));
            assert_eq!(with_start.side_effect(), effect_with_start, "{name}");
            assert_eq!(update(&format!(r#","starts_at":{starts_at}"#)).side_effect(), Nothing, "{name}");
        }
    }

    #[test]
    fn participants_may_be_named_besides_the_recipients() {
        let cases: [(&str, &[&str], &[&str]); 6] = [
            (r#""type":"participant.removed","recipients":["bob"]"#, &["bob"], &["bob"]),
            (r#""type":"participant.removed","user_id":"bob","recipients":["host"]"#, &["bob"], &["host", "bob"]),
            (r#""type":"participant.invited","participants":[{"id":"bob"}],"recipients":[]"#, &["bob"], &["bob"]),
            (
                r#""type":"participant.added","user_ids":["bob","host"],"recipients":["host"]"#,
                &["bob", "host"],
                &["host", "bob"],
            ),
            (r#""type":"participant.responded","user_id":"bob","recipients":["host"]"#, &[], &["host"]),
            (r#""type":"meeting.updated","user_id":"bob","recipients":["host"]"#, &[], &["host"]),
        ];
        for (fields, participants, notified) in cases {
            let update = read(&format!(r#"{{"meeting_id":"m",{fields}}}"#));
            assert_eq!(names(&update.participants), participants, "{fields}");
            assert_eq!(names(&update.notified()), notified, "{fields}");
        }
        // Whoever leaves by themselves is not told, and is gone nevertheless.
        let left = read(r#"{"type":"participant.removed","meeting_id":"m","actor_id":"bob","user_id":"bob"}"#);
        assert_eq!(names(&left.notified()), [""; 0]);
        assert_eq!(left.side_effect(), SideEffect::ParticipantsRemoved(&["bob".into()]));
    }

    #[test]
    fn nobody_is_told_of_their_own_act_unless_they_ask() {
        let cases: [(&str, &[&str]); 8] = [
            (r#""recipients":["ann","bob"]"#, &["ann", "bob"]),
            (r#""actor_id":"ann","recipients":["ann","bob"]"#, &["bob"]),
            (r#""actor_id":"ann","recipients":["ann","bob"],"exclude":null"#, &["bob"]),
            (r#""actor_id":"ann","recipients":["ann","bob"],"exclude":[]"#, &["ann", "bob"]),
            (r#""actor_id":"ann","recipients":["ann","bob"],"exclude":["eve"]"#, &["bob"]),
            (r#""actor_id":"ann","recipients":["ann","bob"],"exclude":["bob"]"#, &[]),
            (r#""recipients":["ann","bob",7],"exclude":["bob",7]"#, &["ann"]),
            (
                r#""type":"participant.added","actor_id":"ann","recipients":["bob"],"user_id":"ann","exclude":[]"#,
                &["bob"],
            ),
        ];
        for (fields, expected) in cases {
            assert_eq!(names(&read(&format!("{{{fields}}}")).notified()), expected, "{fields}");
        }
    }

    #[test]
    fn updates_for_nobody_and_for_everybody() {
        let cases = [
            ("{}", (true, false)),
            (r#"{"broadcast":false,"user_ids":[]}"#, (true, false)),
            (r#"{"broadcast":true}"#, (false, true)),
            (r#"{"broadcast":true,"to":"room"}"#, (false, false)),
            (r#"{"broadcast":true,"to":"users"}"#, (false, true)),
            (r#"{"broadcast":true,"meeting_id":"m"}"#, (false, false)),
            (r#"{"broadcast":true,"user_id":"u"}"#, (false, false)),
            (r#"{"meeting_id":"m"}"#, (false, false)),
            (r#"{"user_id":"u"}"#, (false, false)),
            (r#"{"type":"participant.added","recipients":[],"user_id":"u","broadcast":true}"#, (false, false)),
        ];
        for (json, expected) in cases {
            let update = read(json);
            assert_eq!((update.is_for_nobody(), update.is_for_everybody()), expected, "{json}");
        }
        let update = read(r#"{"broadcast":true,"actor_id":"ann","exclude":["bob"]}"#);
        assert_eq!(["ann", "bob", "eve"].map(|user| update.leaves_out(user)), [true, true, false]);
    }

    #[test]
    fn payloads_as_clients_get_them() {
        let full = read(
            r#"{"type":"meeting.updated","meeting_id":"m","actor_id":"a\"b","title":"T","body":"B","data":{"k": "\u0062"},
            "ts":1700000000000}"#,
        );
        let least = read(r#"{"type":"x"}"#);
        let meeting = RoomId::new("m");
        let content = full.room_content("e", &meeting);
        assert_eq!(
            &*content.json,
            r#"{"meeting_id":"m","type":"meeting.updated","event_id":"e","actor_id":"a\"b","data":{"k": "\u0062"}}"#
        );
        assert_eq!(content.erasable_from, None);
        assert_eq!(
            &*least.room_content("e\"", &meeting).json,
            r#"{"meeting_id":"m","type":"x","event_id":"e\"","data":{}}"#
        );
        assert_eq!(
            &*full.notification("e", NOW),
            r#"{"id":"e","kind":"meeting.updated","meeting_id":"m","actor_id":"a\"b","title":"T","body":"B","data":{"k": "\u0062"},"ts":1700000000000}"#
        );
        assert_eq!(&*least.notification("e", NOW), r#"{"id":"e","kind":"x","ts":1800000000000}"#);
        // A publisher whose clock is ahead does not date anything into the future.
        assert!(read(r#"{"type":"x","ts":1800000000001}"#).notification("e", NOW).contains(r#""ts":1800000000000}"#));
    }

    #[test]
    fn derived_ids_are_the_same_for_the_same_bytes() {
        // The first 128 bits of SHA-1.
        assert_eq!(Update::derived_id(b"abc"), "a9993e364706816aba3e25717850c26c");
        assert_eq!(Update::derived_id(b""), "da39a3ee5e6b4b0d3255bfef95601890");
        assert_ne!(Update::derived_id(b"{}"), Update::derived_id(b"{ }"));
    }

    /// Updates put together at random, and damaged: read or refused, and what is made of them is JSON.
    #[test]
    fn nothing_that_is_published_makes_the_reader_panic() {
        #[rustfmt::skip]
        const FIELDS: [&str; 30] = [
            "v", "id", "type", "event", "event_type", "action", "meeting_id", "meetingId", "room", "meeting", "data",
            "payload", "update", "actor_id", "recipients", "user_ids", "participants", "user_id", "exclude", "to", "title",
            "body", "starts_at", "persist", "ttl_ms", "ts", "timestamp", "broadcast", "type", "x",
        ];
        #[rustfmt::skip]
        const VALUES: [&str; 22] = [
            "null", "true", "false", "0", "1", "-1", "1700000000", "1.7e12", "1e999", "9007199254740993", "\"\"", "\"m\"",
            "\"both\"", "\"participant.removed\"", "\"\\ud800\"", "\"2024-02-29T12:00:60.5+23:59\"", "[]", "[\"u\",5]",
            "[{\"id\":1},{\"user_id\":\"u\"}]", "{}", "{\"id\":\"m\",\"meeting_id\":1}", "[[[{}]]]",
        ];
        let mut rng = fastrand::Rng::with_seed(11);
        let meeting = RoomId::new("m");
        let mut taken = 0;
        for _ in 0..200_000 {
            let fields: Vec<_> = (0..rng.usize(0..5))
                .map(|_| format!("\"{}\":{}", FIELDS[rng.usize(..FIELDS.len())], VALUES[rng.usize(..VALUES.len())]))
                .collect();
            let mut bytes = format!("{{{}}}", fields.join(",")).into_bytes();
            for _ in 0..rng.usize(0..3) {
                let at = rng.usize(..bytes.len());
                match rng.u8(..4) {
                    0 => bytes[at] = rng.u8(..),
                    1 => bytes[at] = b"\"\\{}[],:0-e.u"[rng.usize(..13)],
                    2 => bytes.truncate(at + 1),
                    _ => bytes.insert(at, rng.u8(..)),
                }
            }
            let Ok(json) = String::from_utf8(bytes) else { continue };
            let Ok(update) = Update::read(&json) else { continue };
            taken += 1;
            for payload in [update.room_content("e", &meeting).json, update.notification("e", NOW)] {
                assert!(serde_json::from_str::<serde_json::Value>(&payload).is_ok(), "{json}: {payload}");
            }
            let notified = update.notified();
            assert!(notified.iter().all(|user| !update.leaves_out(user)), "{json}");
            assert!(!update.is_for_nobody() || (notified.is_empty() && !update.goes_to_room()), "{json}");
            let _ = update.side_effect();
        }
        assert!(taken > 10_000, "what is put together is hardly ever right: {taken}");
    }
}
