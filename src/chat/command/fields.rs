//! The fields of payloads and what their values may be.
//!
//! A *taker* turns one value into what it stands for, or into nothing if it is not what it should be; [`optional`] and
//! [`required`] make a refusal of that, which names the field.

use std::{borrow::Cow, collections::HashSet, hash::Hash, ops::RangeInclusive, sync::Arc};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    chat::{Code, Error},
    types::{MessageId, RoomId},
};

/// How deep a whole payload may nest.
pub(in crate::chat) const DEPTH_MAX: usize = 32;
/// The largest integer that every JSON library keeps as it is.
pub(in crate::chat) const INTEGER_MAX: u64 = (1 << 53) - 1;
const MEETING_ID_MAX: usize = 128;
const USER_ID_MAX_CHARS: usize = 128;
const CLIENT_ID_MAX: usize = 64;

pub(in crate::chat) const OBJECT: &str = "an object, in which no field comes twice";
pub(in crate::chat) const JSON: &str = "JSON, nested at most 32 deep";
pub(in crate::chat) const MEETING_ID: &str = "1-128 characters of A-Z a-z 0-9 _ . : -, or an integer from 0 to 2^53-1";
pub(in crate::chat) const USER_ID: &str = "1-128 printable characters, or an integer from 0 to 2^53-1";
pub(in crate::chat) const MESSAGE_ID: &str = "the id of a message, 26 characters";
pub(in crate::chat) const CLIENT_ID: &str = "a string of 1-64 characters of A-Z a-z 0-9 _ -";
pub(in crate::chat) const INTEGER: &str = "an integer from 0 to 2^53-1";
pub(in crate::chat) const ANY_INTEGER: &str = "an integer";
pub(in crate::chat) const FLAG: &str = "true or false";

/// Declares a struct with the JSON text of each of these fields, if it is there and not `null`. Fields that are not
/// listed are passed over. `field = "name"` is for names that Rust would not take.
macro_rules! fields {
    ($name:ident: $($field:ident $(= $rename:literal)?)+) => {
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct $name<'a> {
            $(#[serde(borrow)]
            $(#[serde(rename = $rename)])?
            $field: Option<&'a serde_json::value::RawValue>,)+
        }
    };
}
pub(in crate::chat) use fields;

/// Which message is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageRef {
    /// This one, if it exists.
    Known(MessageId),
    /// None that can exist: it looks like an id, and is not one that was ever given.
    Unknown,
}

impl MessageRef {
    /// The id to look for.
    ///
    /// # Errors
    /// `not_found`, as for an id that is not in the log.
    pub fn id(self) -> Result<MessageId, Error> {
        match self {
            Self::Known(id) => Ok(id),
            Self::Unknown => Err(Error::new(Code::NotFound, "no such message")),
        }
    }

    /// 26 letters and digits.
    pub(in crate::chat) fn parse(text: &str) -> Option<Self> {
        let looks_like_one = text.len() == MessageId::LEN && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        looks_like_one.then(|| MessageId::parse(text).map_or(Self::Unknown, Self::Known))
    }
}

/// The fields of an object, in a struct made by [`fields`].
pub(in crate::chat) fn object<'a, F: Deserialize<'a>>(payload: Option<&'a RawValue>) -> Result<F, Error> {
    // The first byte tells: serde takes arrays for structs too.
    payload
        .filter(|payload| payload.get().starts_with('{'))
        .and_then(|payload| serde_json::from_str(payload.get()).ok())
        .ok_or_else(|| Error::new(Code::InvalidPayload, format!("payload: expected {OBJECT}")))
}

/// What a field stands for, if it is there.
pub(in crate::chat) fn optional<V, T>(
    value: Option<V>,
    field: &'static str,
    expected: &'static str,
    take: impl FnOnce(V) -> Option<T>,
) -> Result<Option<T>, Error> {
    value.map(|value| take(value).ok_or_else(|| Error::invalid(field, expected))).transpose()
}

/// What a field stands for.
pub(in crate::chat) fn required<V, T>(
    value: Option<V>,
    field: &'static str,
    expected: &'static str,
    take: impl FnOnce(V) -> Option<T>,
) -> Result<T, Error> {
    optional(value, field, expected, take)?.ok_or_else(|| Error::invalid(field, expected))
}

/// These parameters of a query, each at most once; others are passed over.
pub(in crate::chat) fn parameters<'q, const N: usize>(
    query: impl Iterator<Item = (&'q str, &'q str)>,
    names: [&'static str; N],
) -> Result<[Option<&'q str>; N], Error> {
    let mut values = [None; N];
    for (name, value) in query {
        if let Some((slot, name)) = values.iter_mut().zip(names).find(|(_, wanted)| *wanted == name)
            && slot.replace(value).is_some()
        {
            return Err(Error::invalid(name, "to come once"));
        }
    }
    Ok(values)
}

/// A JSON string, unescaped. Lone surrogates are refused: they are no text.
pub(in crate::chat) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    // Through a borrowing wrapper: a plain `Cow` would always be copied.
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

/// A JSON array.
pub(in crate::chat) fn array(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// The text of a JSON object that nests at most `depth_max` deep, itself included.
pub(in crate::chat) fn nested(value: &RawValue, depth_max: usize) -> Option<&RawValue> {
    (value.get().starts_with('{') && depth(value.get()) <= depth_max).then_some(value)
}

/// Digits, at most 2^53-1.
pub(in crate::chat) fn integer(text: &str) -> Option<u64> {
    digits(text)?.parse().ok().filter(|number| *number <= INTEGER_MAX)
}

/// Any integer, as the nearest one in the range.
pub(in crate::chat) fn clamped(text: &str, range: &RangeInclusive<usize>) -> Option<usize> {
    match text.strip_prefix('-') {
        Some(text) => digits(text).map(|_| *range.start()),
        None => digits(text).map(|text| text.parse().unwrap_or(usize::MAX).clamp(*range.start(), *range.end())),
    }
}

/// What parsing a number alone would not say: `+5` is none.
fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

/// `true` or `false`.
pub(in crate::chat) fn flag(value: &RawValue) -> Option<bool> {
    value.get().parse().ok()
}

/// The same in a query, where people also write `1` and `0`.
pub(in crate::chat) fn query_flag(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// 1 to `max_chars` characters without controls.
pub(in crate::chat) fn is_printable(text: &str, max_chars: usize) -> bool {
    (1..=max_chars).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// Such a string.
pub(in crate::chat) fn printable(value: &RawValue, max_chars: usize) -> Option<Cow<'_, str>> {
    string(value).filter(|text| is_printable(text, max_chars))
}

/// Such a string, or an integer's digits.
pub(in crate::chat) fn id(value: &RawValue, max_chars: usize) -> Option<Cow<'_, str>> {
    if value.get().starts_with('"') {
        return printable(value, max_chars);
    }
    // As text, and not through a number: valid JSON has no leading zeros.
    integer(value.get()).map(|_| Cow::Borrowed(value.get()))
}

/// Somebody's id.
pub(in crate::chat) fn user_id(value: &RawValue) -> Option<Cow<'_, str>> {
    id(value, USER_ID_MAX_CHARS)
}

/// At most `max` users' ids, each once.
pub(in crate::chat) fn user_ids(value: &RawValue, max: usize) -> Option<Vec<Arc<str>>> {
    let list = array(value)?;
    if list.len() > max {
        return None;
    }
    let ids = list.into_iter().map(|value| user_id(value).map(Arc::from)).collect::<Option<_>>()?;
    Some(without_repetitions(ids))
}

/// The first of each, in order.
pub(in crate::chat) fn without_repetitions<T: Clone + Eq + Hash>(mut list: Vec<T>) -> Vec<T> {
    let mut seen = HashSet::with_capacity(list.len());
    list.retain(|item| seen.insert(item.clone()));
    list
}

/// A meeting's id.
pub(in crate::chat) fn meeting_id(value: &RawValue) -> Option<RoomId> {
    meeting_id_text(&id(value, MEETING_ID_MAX)?)
}

/// A meeting's id that is text already.
pub(in crate::chat) fn meeting_id_text(id: &str) -> Option<RoomId> {
    let is_fine = (1..=MEETING_ID_MAX).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte));
    is_fine.then(|| RoomId::new(id))
}

/// A message's id.
pub(in crate::chat) fn message_ref(value: &RawValue) -> Option<MessageRef> {
    MessageRef::parse(&string(value)?)
}

/// An id that a client made up.
pub(in crate::chat) fn client_id(value: &RawValue) -> Option<Cow<'_, str>> {
    string(value).filter(|id| is_client_id(id))
}

/// 1–64 letters, digits, `_` and `-`.
pub(in crate::chat) fn is_client_id(id: &str) -> bool {
    (1..=CLIENT_ID_MAX).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// How deep arrays and objects of valid JSON nest.
pub(in crate::chat) fn depth(json: &str) -> usize {
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
