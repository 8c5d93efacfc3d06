//! What clients ask for: payloads, read strictly.
//!
//! Every field that is wrong is refused by name, with what was expected. Unknown fields are ignored, and never sent on.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::chat::{Error, error::Code};

/// The payload of `join_room`.
#[derive(Debug)]
pub struct JoinRoom<'a> {
    /// Which meeting.
    pub meeting: Meeting<'a>,
    /// The last event that the client has.
    pub since: Option<Position<'a>>,
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
    pub meeting: Meeting<'a>,
    /// A JSON string, checked.
    pub text: &'a RawValue,
    /// A JSON string of 1–64 letters, digits, `_` and `-`.
    pub client_id: Option<&'a RawValue>,
    /// A JSON string: a message id.
    pub reply_to: Option<&'a RawValue>,
    /// User ids; those that were sent as integers by their digits.
    pub mentions: Option<Vec<Cow<'a, str>>>,
    /// A JSON object.
    pub meta: Option<&'a RawValue>,
}

/// A meeting's id, as it was sent and as it is used.
#[derive(Debug)]
pub struct Meeting<'a> {
    /// 1–128 characters of `[A-Za-z0-9_.:-]`; an integer's decimal digits.
    pub id: Cow<'a, str>,
    /// The JSON text that was sent, which acks echo.
    pub sent: &'a RawValue,
}

/// A place in a meeting's order.
#[derive(Debug, Deserialize)]
pub struct Position<'a> {
    /// The life of the order.
    #[serde(borrow)]
    pub epoch: Cow<'a, str>,
    /// The last event seen.
    pub seq: u64,
}

/// Longest text, in Unicode scalars.
pub const TEXT_MAX_CHARS: usize = 4000;
/// Longest text, in bytes of UTF-8.
pub const TEXT_MAX_BYTES: usize = 16 * 1024;
/// Largest payload of `message`, attachments included, in bytes.
pub const MESSAGE_MAX_BYTES: usize = 64 * 1024;
const MEETING_ID_MAX: usize = 128;
const USER_ID_MAX_CHARS: usize = 128;
const CLIENT_ID_MAX: usize = 64;
const MESSAGE_ID_LEN: usize = 26;
const MENTIONS_MAX: usize = 50;
const META_MAX_BYTES: usize = 2048;
const META_MAX_DEPTH: usize = 4;
const INTEGER_MAX: u64 = (1 << 53) - 1;
const LIMIT_EXPECTED: &str = "an integer";

const OBJECT: &str = "an object, in which no field comes twice";
const MEETING_ID: &str = "1-128 characters of A-Z a-z 0-9 _ . : -, or an integer from 0 to 2^53-1";
const TEXT: &str = "a string of 1-4000 characters and at most 16384 bytes, without control characters but \\n and \\t";
const CLIENT_ID: &str = "a string of 1-64 characters of A-Z a-z 0-9 _ -";
const REPLY_TO: &str = "the id of a message, 26 characters";
const MENTIONS: &str = "an array of at most 50 user ids, each of 1-128 printable characters";
const META: &str = "an object of at most 2048 bytes and depth 4";
const SINCE: &str = "an object with epoch, a string, and seq, an integer from 0";

/// Every field of every payload, with the aliases that Flask-style clients use.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields<'a> {
    #[serde(borrow)]
    meeting_id: Option<&'a RawValue>,
    #[serde(borrow)]
    room: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    client_id: Option<&'a RawValue>,
    #[serde(borrow)]
    reply_to: Option<&'a RawValue>,
    #[serde(borrow)]
    mentions: Option<&'a RawValue>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
    #[serde(borrow)]
    since: Option<&'a RawValue>,
    #[serde(borrow)]
    limit: Option<&'a RawValue>,
    #[serde(borrow)]
    presence: Option<&'a RawValue>,
}

impl<'a> JoinRoom<'a> {
    /// Reads the payload: an object, or the meeting's bare id.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(payload: Option<&'a RawValue>) -> Result<Self, Error> {
        let fields = Fields::read_or_bare(payload)?;
        // Checked although there is no history yet: what is wrong today must not be right tomorrow.
        fields.limit.map(|limit| parse::<i64>(limit, "limit", LIMIT_EXPECTED)).transpose()?;
        fields.presence.map(|presence| parse::<bool>(presence, "presence", "true or false")).transpose()?;
        let since = fields.since.map(|since| parse(since, "since", SINCE)).transpose()?;
        Ok(Self { meeting: fields.meeting()?, since })
    }
}

impl<'a> LeaveRoom<'a> {
    /// Reads the payload: an object, or the meeting's bare id.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(payload: Option<&'a RawValue>) -> Result<Self, Error> {
        Ok(Self { meeting: Fields::read_or_bare(payload)?.meeting()? })
    }
}

impl<'a> SendMessage<'a> {
    /// Reads the payload.
    ///
    /// # Errors
    /// `invalid_payload`, with the field.
    pub fn read(payload: Option<&'a RawValue>) -> Result<Self, Error> {
        let fields = Fields::read(payload)?;
        let meeting = fields.meeting()?;
        let text = fields.text.or(fields.message).ok_or_else(|| Error::invalid("text", TEXT))?;
        if !parse::<Cow<'_, str>>(text, "text", TEXT).is_ok_and(|text| is_text(&text)) {
            return Err(Error::invalid("text", TEXT));
        }
        let checked = |field: Option<&'a RawValue>, name, expected, is_fine: fn(&'a RawValue) -> bool| match field {
            Some(value) if !is_fine(value) => Err(Error::invalid(name, expected)),
            fine => Ok(fine),
        };
        Ok(Self {
            meeting,
            text,
            client_id: checked(fields.client_id, "client_id", CLIENT_ID, is_client_id)?,
            reply_to: checked(fields.reply_to, "reply_to", REPLY_TO, is_message_id)?,
            mentions: match fields.mentions {
                Some(list) => Some(mentions(list).ok_or_else(|| Error::invalid("mentions", MENTIONS))?),
                None => None,
            },
            meta: checked(fields.meta, "meta", META, is_meta)?,
        })
    }

    /// The `client_id` of a payload that was refused, if it can be told: the error names it.
    pub fn reference(payload: Option<&'a RawValue>) -> Option<&'a RawValue> {
        Fields::read(payload).ok()?.client_id.filter(|value| is_client_id(value))
    }
}

impl<'a> Fields<'a> {
    fn read(payload: Option<&'a RawValue>) -> Result<Self, Error> {
        let not_an_object = || Error::new(Code::InvalidPayload, format!("payload: expected {OBJECT}"));
        let payload = payload.ok_or_else(not_an_object)?;
        if !payload.get().starts_with('{') {
            return Err(not_an_object());
        }
        serde_json::from_str(payload.get()).map_err(|_| not_an_object())
    }

    fn read_or_bare(payload: Option<&'a RawValue>) -> Result<Self, Error> {
        match payload {
            Some(bare) if bare.get().starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) => {
                Ok(Self { meeting_id: Some(bare), ..Self::default() })
            }
            payload => Self::read(payload),
        }
    }

    fn meeting(&self) -> Result<Meeting<'a>, Error> {
        let sent = self.meeting_id.or(self.room).ok_or_else(|| Error::invalid("meeting_id", MEETING_ID))?;
        let id = if sent.get().starts_with('"') {
            parse::<Cow<'a, str>>(sent, "meeting_id", MEETING_ID)?
        } else {
            let number: u64 = parse(sent, "meeting_id", MEETING_ID)?;
            if number > INTEGER_MAX {
                return Err(Error::invalid("meeting_id", MEETING_ID));
            }
            Cow::Owned(number.to_string())
        };
        let is_fine = (1..=MEETING_ID_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte));
        if is_fine { Ok(Meeting { id, sent }) } else { Err(Error::invalid("meeting_id", MEETING_ID)) }
    }
}

fn parse<'a, T: Deserialize<'a>>(value: &'a RawValue, field: &'static str, expected: &'static str) -> Result<T, Error> {
    serde_json::from_str(value.get()).map_err(|_| Error::invalid(field, expected))
}

fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    // Through a borrowing wrapper: a plain `Cow` would always be copied.
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

fn is_text(text: &str) -> bool {
    let is_control = |byte: u8| byte < 0x20 && byte != b'\n' && byte != b'\t';
    (1..=TEXT_MAX_BYTES).contains(&text.len())
        // Counted only where bytes alone do not say it.
        && (text.len() <= TEXT_MAX_CHARS || text.chars().count() <= TEXT_MAX_CHARS)
        && !text.bytes().any(is_control)
}

fn is_client_id(value: &RawValue) -> bool {
    string(value).is_some_and(|id| {
        (1..=CLIENT_ID_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    })
}

fn is_message_id(value: &RawValue) -> bool {
    string(value).is_some_and(|id| id.len() == MESSAGE_ID_LEN && id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn mentions(value: &RawValue) -> Option<Vec<Cow<'_, str>>> {
    let list = serde_json::from_str::<Vec<&RawValue>>(value.get()).ok()?;
    if list.len() > MENTIONS_MAX { None } else { list.into_iter().map(user_id).collect() }
}

fn user_id(value: &RawValue) -> Option<Cow<'_, str>> {
    match string(value) {
        Some(id) if (1..=USER_ID_MAX_CHARS).contains(&id.chars().count()) && !id.chars().any(char::is_control) => {
            Some(id)
        }
        Some(_) => None,
        None => {
            let number = serde_json::from_str::<u64>(value.get()).ok()?;
            (number <= INTEGER_MAX).then(|| Cow::Owned(number.to_string()))
        }
    }
}

fn is_meta(value: &RawValue) -> bool {
    value.get().starts_with('{') && value.get().len() <= META_MAX_BYTES && depth(value.get()) <= META_MAX_DEPTH
}

/// How deep arrays and objects of valid JSON nest.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut in_string = false;
    let mut escaped = false;
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    /// The field that a `chat_message` payload is refused for, or nothing if it is taken.
    fn refused_field(json: &str) -> Option<&'static str> {
        let error = SendMessage::read(Some(raw(json))).err()?;
        assert_eq!(error.code, Code::InvalidPayload, "{json}");
        Some(error.details.map_or("payload", |details| details.field))
    }

    fn message_with(field: &str, value: &str) -> String {
        if field == "text" || field == "meeting_id" {
            let (text, meeting) = if field == "text" { (value, "\"m\"") } else { ("\"hi\"", value) };
            return format!(r#"{{"meeting_id":{meeting},"text":{text}}}"#);
        }
        format!(r#"{{"meeting_id":"m","text":"hi","{field}":{value}}}"#)
    }

    #[test]
    fn every_field_is_checked() {
        let quoted = |count: usize| format!("\"{}\"", "x".repeat(count));
        let mentions = |count: usize| format!("[{}]", vec!["\"u\""; count].join(","));
        let meta = |bytes: usize| format!(r#"{{"k":"{}"}}"#, "x".repeat(bytes - 8));
        let cases: Vec<(&str, String, bool)> = vec![
            ("meeting_id", quoted(1), true),
            ("meeting_id", quoted(128), true),
            ("meeting_id", quoted(129), false),
            ("meeting_id", "\"\"".into(), false),
            ("meeting_id", "\"a.b:c_d-1\"".into(), true),
            ("meeting_id", "\"a b\"".into(), false),
            ("meeting_id", "\"ä\"".into(), false),
            ("meeting_id", "\"a/b\"".into(), false),
            ("meeting_id", "0".into(), true),
            ("meeting_id", "9007199254740991".into(), true),
            ("meeting_id", "9007199254740992".into(), false),
            ("meeting_id", "-1".into(), false),
            ("meeting_id", "1.5".into(), false),
            ("meeting_id", "true".into(), false),
            ("meeting_id", "null".into(), false),
            ("meeting_id", "[\"m\"]".into(), false),
            ("text", quoted(1), true),
            ("text", "\"\"".into(), false),
            ("text", quoted(4000), true),
            ("text", quoted(4001), false),
            ("text", format!("\"{}\"", "😀".repeat(4000)), true),
            ("text", format!("\"{}\"", "😀".repeat(4001)), false),
            ("text", r#""line\nline\ttab""#.into(), true),
            ("text", r#""nul\u0000""#.into(), false),
            ("text", r#""bell\u0007""#.into(), false),
            ("text", r#""cr\r""#.into(), false),
            ("text", r#""del\u007f""#.into(), true),
            ("text", r#""lone \ud800 surrogate""#.into(), false),
            ("text", r#""pair \ud83d\ude00""#.into(), true),
            ("text", "5".into(), false),
            ("text", "null".into(), false),
            ("client_id", quoted(64), true),
            ("client_id", quoted(65), false),
            ("client_id", "\"\"".into(), false),
            ("client_id", "\"a b\"".into(), false),
            ("client_id", "7".into(), false),
            ("client_id", "null".into(), true),
            ("reply_to", quoted(26), true),
            ("reply_to", quoted(25), false),
            ("reply_to", quoted(27), false),
            ("mentions", mentions(50), true),
            ("mentions", mentions(51), false),
            ("mentions", "[]".into(), true),
            ("mentions", "[5]".into(), true),
            ("mentions", "[\"\"]".into(), false),
            ("mentions", "[null]".into(), false),
            ("mentions", "\"u\"".into(), false),
            ("mentions", format!("[{}]", quoted(128)), true),
            ("mentions", format!("[{}]", quoted(129)), false),
            ("meta", meta(2048), true),
            ("meta", meta(2049), false),
            ("meta", r#"{"a":{"b":{"c":{}}}}"#.into(), true),
            ("meta", r#"{"a":{"b":{"c":{"d":[]}}}}"#.into(), false),
            ("meta", r#"{"a":"]]]}}}\"{{{{{"}"#.into(), true),
            ("meta", "[]".into(), false),
            ("meta", "\"x\"".into(), false),
            ("unknown", "{\"whatever\":[1]}".into(), true),
        ];
        for (field, value, is_fine) in cases {
            let json = message_with(field, &value);
            let expected = if is_fine { None } else { Some(field) };
            assert_eq!(refused_field(&json), expected, "{field}: {value:.60}");
        }
    }

    #[test]
    fn payloads_that_are_no_objects() {
        for json in ["1", "\"m\"", "[]", "null", "true"] {
            assert_eq!(refused_field(json), Some("payload"), "{json}");
        }
        assert_eq!(refused_field(r#"{"meeting_id":"m","meeting_id":"m","text":"hi"}"#), Some("payload"));
        assert_eq!(SendMessage::read(None).unwrap_err().code, Code::InvalidPayload);
        assert_eq!(refused_field("{}"), Some("meeting_id"));
        assert_eq!(refused_field(r#"{"meeting_id":"m"}"#), Some("text"));
    }

    #[test]
    fn flask_style_payloads() {
        let message = SendMessage::read(Some(raw(r#"{"room":7,"message":"hi"}"#))).unwrap();
        assert_eq!((&*message.meeting.id, message.meeting.sent.get(), message.text.get()), ("7", "7", "\"hi\""));
        for (json, id) in [("\"m\"", "m"), ("42", "42"), (r#"{"room":"m"}"#, "m")] {
            assert_eq!(JoinRoom::read(Some(raw(json))).unwrap().meeting.id, id);
            assert_eq!(LeaveRoom::read(Some(raw(json))).unwrap().meeting.id, id);
        }
        assert!(JoinRoom::read(Some(raw("-1"))).is_err());
    }

    #[test]
    fn mentioned_integers_are_their_digits() {
        let message = SendMessage::read(Some(raw(r#"{"meeting_id":"m","text":"hi","mentions":["ann",7]}"#))).unwrap();
        assert_eq!(message.mentions.unwrap(), ["ann", "7"]);
    }

    #[test]
    fn join_fields_are_checked() {
        let cases = [
            (r#"{"meeting_id":"m","since":{"epoch":"e","seq":5},"limit":10,"presence":true}"#, None),
            (r#"{"meeting_id":"m","since":{"epoch":"e"}}"#, Some("since")),
            (r#"{"meeting_id":"m","since":{"epoch":"e","seq":-1}}"#, Some("since")),
            (r#"{"meeting_id":"m","since":5}"#, Some("since")),
            (r#"{"meeting_id":"m","limit":"many"}"#, Some("limit")),
            (r#"{"meeting_id":"m","presence":1}"#, Some("presence")),
        ];
        for (json, field) in cases {
            let refused = JoinRoom::read(Some(raw(json))).err().and_then(|error| error.details);
            assert_eq!(refused.map(|details| details.field), field, "{json}");
        }
    }
}
