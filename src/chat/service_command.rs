//! What sibling services and operators ask for: the bodies of the service API, and the objects of the channel
//! `auth_events`. Read as strictly as what clients send, see [`command`](crate::chat::command).
//!
//! Left to others: whether the caller may, and how large a body is.

use std::{borrow::Cow, sync::Arc};

use serde_json::value::RawValue;

use crate::{
    chat::{
        Error,
        command::fields::{
            DEPTH_MAX, FLAG, INTEGER, JSON, MEETING_ID, USER_ID, depth, fields, flag, integer, meeting_id, object,
            optional, printable, required, string, user_id, user_ids,
        },
    },
    socket::is_reserved_event,
    types::RoomId,
};

/// The body of `POST /publish`.
#[derive(Clone, Debug)]
pub struct Publish {
    /// To whom.
    pub target: Target,
    /// 1–64 printable characters, and no event that the server sends by itself.
    pub event: String,
    /// Any JSON; `null` if there is none.
    pub data: Box<RawValue>,
    /// Whether it is to be kept. Not, unless it says so.
    pub persist: bool,
    /// 1–64 printable characters, the same if it is published again.
    pub idempotency_key: Option<String>,
}

/// To whom something is published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// To those who have joined a meeting.
    Meeting(RoomId),
    /// To 1–1 000 users, each once.
    Users(Vec<Arc<str>>),
    /// To everybody.
    Broadcast,
}

/// The body of `POST /disconnect`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disconnect {
    /// Whose connections. [`Subject::Sid`] is a Socket.IO id here.
    pub subject: Subject,
}

/// An object of the channel `auth_events`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revoke {
    /// Whose tokens. [`Subject::Sid`] is the claim here.
    pub subject: Subject,
    /// Only tokens issued before this, in ms since the epoch.
    pub before: Option<u64>,
}

/// Who is meant.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    /// A user.
    User(Arc<str>),
    /// Whoever uses the token with this id: 1–256 printable characters.
    Jti(Box<str>),
    /// One session: 1–256 printable characters.
    Sid(Box<str>),
}

/// The events that the server sends by itself, beside those that belong to Socket.IO.
const SERVER_EVENTS: [&str; 18] = [
    "response",
    "ready",
    "auth_expiring",
    "auth_expired",
    "chat_message",
    "message_edited",
    "message_deleted",
    "message_reaction",
    "meeting_update",
    "notification",
    "unread",
    "typing",
    "presence_update",
    "read_receipt",
    "room_left",
    "resync",
    "server_draining",
    "chat_error",
];
const EVENT_MAX_CHARS: usize = 64;
const USERS_MAX: usize = 1000;
const IDEMPOTENCY_KEY_MAX_CHARS: usize = 64;
const TOKEN_ID_MAX_CHARS: usize = 256;

const TARGET: &str = "exactly one of meeting_id, user_ids and broadcast";
const USERS: &str = "an array of 1-1000 user ids";
const EVENT: &str = "a string of 1-64 printable characters, not the name of an event that the server sends by itself";
const IDEMPOTENCY_KEY: &str = "a string of 1-64 printable characters";
const SUBJECT: &str = "exactly one of user_id, jti and sid";
const TOKEN_ID: &str = "a string of 1-256 printable characters";
const REVOKE: &str = "revoke";

fields! { Fields:
    kind = "type" meeting_id user_ids broadcast event data persist idempotency_key user_id jti sid before
}

impl Publish {
    /// Reads the body.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(body: Option<&RawValue>) -> Result<Self, Error> {
        let fields: Fields<'_> = object(body)?;
        let data = optional(fields.data, "data", JSON, |data| (depth(data.get()) < DEPTH_MAX).then_some(data))?;
        Ok(Self {
            target: fields.target()?,
            event: required(fields.event, "event", EVENT, |value| {
                printable(value, EVENT_MAX_CHARS).filter(|event| !is_taken(event))
            })?
            .into_owned(),
            data: data.unwrap_or(RawValue::NULL).to_owned(),
            persist: optional(fields.persist, "persist", FLAG, flag)?.unwrap_or(false),
            idempotency_key: optional(fields.idempotency_key, "idempotency_key", IDEMPOTENCY_KEY, |value| {
                printable(value, IDEMPOTENCY_KEY_MAX_CHARS)
            })?
            .map(Cow::into_owned),
        })
    }
}

impl Disconnect {
    /// Reads the body.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(body: Option<&RawValue>) -> Result<Self, Error> {
        let fields: Fields<'_> = object(body)?;
        Ok(Self { subject: fields.subject()? })
    }
}

impl Revoke {
    /// Reads the body of `POST /revoke`. Its `type` may be missing; another one than `revoke` is refused.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(body: Option<&RawValue>) -> Result<Self, Error> {
        let fields: Fields<'_> = object(body)?;
        optional(fields.kind, "type", REVOKE, |value| string(value).filter(|kind| *kind == REVOKE))?;
        Self::of(&fields)
    }

    /// Reads one of `auth_events`. Of other types than `revoke` nobody knows what they mean.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read_event(json: &str) -> Result<Self, Error> {
        let raw: Option<&RawValue> = serde_json::from_str(json).ok();
        let fields: Fields<'_> = object(raw)?;
        required(fields.kind, "type", REVOKE, |value| string(value).filter(|kind| *kind == REVOKE))?;
        Self::of(&fields)
    }

    fn of(fields: &Fields<'_>) -> Result<Self, Error> {
        Ok(Self {
            subject: fields.subject()?,
            before: optional(fields.before, "before", INTEGER, |value| integer(value.get()))?,
        })
    }
}

impl Fields<'_> {
    fn target(&self) -> Result<Target, Error> {
        let meeting = optional(self.meeting_id, "meeting_id", MEETING_ID, meeting_id)?;
        let users = optional(self.user_ids, "user_ids", USERS, |value| {
            user_ids(value, USERS_MAX).filter(|users| !users.is_empty())
        })?;
        let is_broadcast = optional(self.broadcast, "broadcast", FLAG, flag)?.unwrap_or(false);
        match (meeting, users, is_broadcast) {
            (Some(meeting), None, false) => Ok(Target::Meeting(meeting)),
            (None, Some(users), false) => Ok(Target::Users(users)),
            (None, None, true) => Ok(Target::Broadcast),
            _ => Err(Error::invalid("meeting_id", TARGET)),
        }
    }

    fn subject(&self) -> Result<Subject, Error> {
        let token_id = |value| printable(value, TOKEN_ID_MAX_CHARS).map(|id| id.into_owned().into_boxed_str());
        let user = optional(self.user_id, "user_id", USER_ID, user_id)?;
        let jti = optional(self.jti, "jti", TOKEN_ID, token_id)?;
        let sid = optional(self.sid, "sid", TOKEN_ID, token_id)?;
        match (user, jti, sid) {
            (Some(user), None, None) => Ok(Subject::User(user.into())),
            (None, Some(jti), None) => Ok(Subject::Jti(jti)),
            (None, None, Some(sid)) => Ok(Subject::Sid(sid)),
            _ => Err(Error::invalid("user_id", SUBJECT)),
        }
    }
}

fn is_taken(event: &str) -> bool {
    is_reserved_event(event) || SERVER_EVENTS.contains(&event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Code;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    /// The field that is refused, or nothing.
    fn refused<T>(read: Result<T, Error>) -> Option<&'static str> {
        let error = read.err()?;
        assert_eq!(error.code, Code::InvalidPayload);
        Some(error.details.map_or("payload", |details| details.field))
    }

    fn quoted(count: usize) -> String {
        format!("\"{}\"", "x".repeat(count))
    }

    #[test]
    fn publishes_to_exactly_one_target() {
        let users = |ids: &[&str]| Some(Target::Users(ids.iter().map(|id| Arc::from(*id)).collect()));
        let cases: Vec<(&str, Option<Target>)> = vec![
            (r#""meeting_id":"m""#, Some(Target::Meeting(RoomId::new("m")))),
            (r#""meeting_id":42"#, Some(Target::Meeting(RoomId::new("42")))),
            (r#""meeting_id":"m","broadcast":false,"user_ids":null"#, Some(Target::Meeting(RoomId::new("m")))),
            (r#""user_ids":["ann",7,"ann"]"#, users(&["ann", "7"])),
            (r#""broadcast":true"#, Some(Target::Broadcast)),
            (r#""x":1"#, None),
            (r#""broadcast":false"#, None),
            (r#""meeting_id":null"#, None),
            (r#""meeting_id":"m","user_ids":["u"]"#, None),
            (r#""meeting_id":"m","broadcast":true"#, None),
            (r#""user_ids":["u"],"broadcast":true"#, None),
        ];
        for (target, expected) in cases {
            let json = format!(r#"{{{target},"event":"e"}}"#);
            match (Publish::read(Some(raw(&json))), expected) {
                (Ok(publish), Some(expected)) => assert_eq!(publish.target, expected, "{json}"),
                (read, expected) => {
                    assert_eq!(expected, None, "{json}");
                    assert_eq!(refused(read), Some("meeting_id"), "{json}");
                }
            }
        }
    }

    #[test]
    fn every_field_of_a_publication_is_checked() {
        let users = |count: usize| format!("[{}]", vec!["\"u\""; count].join(","));
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let cases: Vec<(&str, String, bool)> = vec![
            ("meeting_id", quoted(128), true),
            ("meeting_id", quoted(129), false),
            ("meeting_id", "\"a b\"".into(), false),
            ("user_ids", users(1000), true),
            ("user_ids", users(1001), false),
            ("user_ids", "[]".into(), false),
            ("user_ids", "\"u\"".into(), false),
            ("user_ids", "[{}]".into(), false),
            ("user_ids", format!("[{}]", quoted(129)), false),
            ("broadcast", "1".into(), false),
            ("broadcast", "\"true\"".into(), false),
            ("event", quoted(1), true),
            ("event", quoted(64), true),
            ("event", quoted(65), false),
            ("event", format!("\"{}\"", "ä".repeat(64)), true),
            ("event", "\"\"".into(), false),
            ("event", "null".into(), false),
            ("event", "5".into(), false),
            ("event", r#""a\u0000""#.into(), false),
            ("event", r#""\ud800""#.into(), false),
            ("event", "\"message\"".into(), true),
            ("data", "null".into(), true),
            ("data", "[1,{}]".into(), true),
            ("data", "\"\\ud800\"".into(), true),
            ("data", nested(31), true),
            ("data", nested(32), false),
            ("persist", "true".into(), true),
            ("persist", "null".into(), true),
            ("persist", "0".into(), false),
            ("idempotency_key", quoted(64), true),
            ("idempotency_key", quoted(65), false),
            ("idempotency_key", "\"\"".into(), false),
            ("idempotency_key", "7".into(), false),
            ("idempotency_key", r#""\n""#.into(), false),
            ("unknown", "{}".into(), true),
        ];
        for (field, value, is_fine) in cases {
            let target = match field {
                "meeting_id" | "user_ids" | "broadcast" => String::new(),
                _ => r#""meeting_id":"m","#.into(),
            };
            let event = if field == "event" { "" } else { r#""event":"e","# };
            let json = format!(r#"{{{target}{event}"{field}":{value}}}"#);
            let expected = if is_fine { None } else { Some(field) };
            assert_eq!(refused(Publish::read(Some(raw(&json)))), expected, "{json:.80}");
        }
    }

    #[test]
    fn a_publication_is_what_was_sent() {
        let minimal = Publish::read(Some(raw(r#"{"broadcast":true,"event":"e"}"#))).unwrap();
        assert_eq!((minimal.event.as_str(), minimal.data.get(), minimal.persist), ("e", "null", false));
        assert_eq!(minimal.idempotency_key, None);
        let full = r#"{"meeting_id":1,"event":"x\u0041","data":{"b": 1,"b":2},"persist":true,"idempotency_key":"k"}"#;
        let full = Publish::read(Some(raw(full))).unwrap();
        assert_eq!((full.event.as_str(), full.data.get(), full.persist), ("xA", r#"{"b": 1,"b":2}"#, true));
        assert_eq!(full.idempotency_key.as_deref(), Some("k"));
    }

    #[test]
    fn the_servers_own_events_are_not_published() {
        let socket_io = ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];
        for event in socket_io.into_iter().chain(SERVER_EVENTS) {
            let json = format!(r#"{{"broadcast":true,"event":"{event}"}}"#);
            assert_eq!(refused(Publish::read(Some(raw(&json)))), Some("event"), "{event}");
        }
    }

    #[test]
    fn exactly_one_subject_is_named() {
        let cases: Vec<(String, Result<Subject, &str>)> = vec![
            (r#""user_id":"ann""#.into(), Ok(Subject::User("ann".into()))),
            (r#""user_id":7"#.into(), Ok(Subject::User("7".into()))),
            (r#""jti":"j","sid":null"#.into(), Ok(Subject::Jti("j".into()))),
            (r#""sid":"s""#.into(), Ok(Subject::Sid("s".into()))),
            (format!(r#""sid":{}"#, quoted(256)), Ok(Subject::Sid("x".repeat(256).into()))),
            (format!(r#""sid":{}"#, quoted(257)), Err("sid")),
            (format!(r#""jti":{}"#, quoted(257)), Err("jti")),
            (format!(r#""user_id":{}"#, quoted(129)), Err("user_id")),
            (r#""user_id":"""#.into(), Err("user_id")),
            (r#""user_id":true"#.into(), Err("user_id")),
            (r#""user_id":"a\u0007""#.into(), Err("user_id")),
            (r#""jti":7"#.into(), Err("jti")),
            (r#""jti":"""#.into(), Err("jti")),
            (r#""sid":"\ud800""#.into(), Err("sid")),
            (r#""sid":[]"#.into(), Err("sid")),
            (r#""x":1"#.into(), Err("user_id")),
            (r#""user_id":"a","jti":"j""#.into(), Err("user_id")),
            (r#""user_id":"a","sid":"s""#.into(), Err("user_id")),
            (r#""jti":"j","sid":"s""#.into(), Err("user_id")),
        ];
        for (fields, expected) in cases {
            let json = format!("{{{fields}}}");
            let subject = |read: Result<Subject, Error>| read.map_err(|error| error.details.unwrap().field);
            assert_eq!(subject(Disconnect::read(Some(raw(&json))).map(|read| read.subject)), expected, "{json:.80}");
            assert_eq!(subject(Revoke::read(Some(raw(&json))).map(|read| read.subject)), expected, "{json:.80}");
        }
    }

    #[test]
    fn revocations() {
        let cases = [
            (r#"{"type":"revoke","jti":"j"}"#, Ok(None)),
            (r#"{"jti":"j","before":1700000000000}"#, Ok(Some(1_700_000_000_000))),
            (r#"{"type":"revoke","jti":"j","before":9007199254740991}"#, Ok(Some((1 << 53) - 1))),
            (r#"{"type":"revoke","jti":"j","before":9007199254740992}"#, Err("before")),
            (r#"{"type":"revoke","jti":"j","before":-1}"#, Err("before")),
            (r#"{"type":"revoke","jti":"j","before":"now"}"#, Err("before")),
            (r#"{"type":"grant","jti":"j"}"#, Err("type")),
            (r#"{"type":1,"jti":"j"}"#, Err("type")),
            (r#"{"type":"revoke"}"#, Err("user_id")),
            (r#"{"type":"revoke","type":"revoke","jti":"j"}"#, Err("payload")),
        ];
        for (json, expected) in cases {
            let read = Revoke::read(Some(raw(json)));
            let before = read.map(|revoke| revoke.before);
            assert_eq!(
                before.map_err(|error| error.details.map_or("payload", |details| details.field)),
                expected,
                "{json}"
            );
        }
    }

    #[test]
    fn bodies_that_are_no_objects() {
        for json in ["1", "\"m\"", "[\"m\"]", "null", "true"] {
            assert_eq!(refused(Publish::read(Some(raw(json)))), Some("payload"), "{json}");
            assert_eq!(refused(Disconnect::read(Some(raw(json)))), Some("payload"), "{json}");
            assert_eq!(refused(Revoke::read(Some(raw(json)))), Some("payload"), "{json}");
        }
        assert_eq!(refused(Publish::read(None)), Some("payload"));
    }
}
