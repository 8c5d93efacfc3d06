//! What the scripts on a meeting answer.

use std::sync::Arc;

use redis::Value;

use crate::{
    redis::reply::{Fields, bytes, number},
    store::{Appended, Kind, LogEvent, Marked, Missed, Opened, Page, Place, Position, Standing, StoreError, payload},
    types::MessageId,
};

/// An event as it lies in the log, where neither its seq nor its epoch stands: see `ITEM` in `meeting.lua`.
struct Item<'a> {
    kind: Kind,
    ts: u64,
    /// See [`extra_name`].
    extra: u32,
    id: Option<MessageId>,
    /// Without the opening brace.
    content: &'a str,
}

/// The further field that the store puts into an event of this kind.
pub(super) const fn extra_name(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::MessageEdited => Some("version"),
        Kind::MessageReaction => Some("count"),
        Kind::ChatMessage | Kind::MessageDeleted | Kind::MeetingUpdate => None,
    }
}

impl<'a> Item<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let kind = *Kind::ALL.get(usize::from(*kind))?;
        let (ts, rest) = rest.split_first_chunk()?;
        let (_total, rest) = rest.split_first_chunk::<8>()?;
        let (extra, rest) = rest.split_first_chunk()?;
        let (_erasable_from, rest) = rest.split_first_chunk::<4>()?;
        let (id_bytes, rest) = rest.split_first()?;
        let (id, rest) = rest.split_at_checked(usize::from(*id_bytes))?;
        let id = match str::from_utf8(id).ok()? {
            "" => None,
            id => Some(MessageId::parse(id)?),
        };
        let (_author, rest) = split_string(rest)?;
        let (_emoji, rest) = split_string(rest)?;
        let content = str::from_utf8(rest).ok()?;
        Some(Self { kind, ts: u64::from_be_bytes(*ts), extra: u32::from_be_bytes(*extra), id, content })
    }

    fn event(&self, seq: u64, epoch: &Arc<str>) -> LogEvent {
        let place = Place { id: self.id, seq, epoch: Arc::clone(epoch), ts: self.ts };
        let extra = extra_name(self.kind).map(|name| (name, u64::from(self.extra)));
        LogEvent { kind: self.kind, epoch: place.epoch.clone(), seq, json: payload(&place, extra, self.content).into() }
    }
}

/// A string that begins with its length, and what is behind it.
fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Why a script did not do what it was asked.
fn refusal(value: Value) -> Option<StoreError> {
    Some(match bytes(value)?.as_slice() {
        b"no_message" => StoreError::NoMessage,
        b"no_reply_target" => StoreError::NoReplyTarget,
        b"not_allowed" => StoreError::NotAllowed,
        b"deleted" => StoreError::Deleted,
        b"client_id_reused" => StoreError::ClientIdReused,
        b"closed" => StoreError::Closed,
        b"too_many_reactions" => StoreError::TooManyReactions,
        b"epoch_differs" => StoreError::EpochDiffers,
        _ => return None,
    })
}

/// The answer of `append.lua` to an event of this kind and content.
pub(super) fn appended(value: Value, kind: Kind, content: &str) -> Option<Result<Appended, StoreError>> {
    if !matches!(value, Value::Array(_)) {
        return refusal(value).map(Err);
    }
    let mut fields = Fields::of(value)?;
    let is_logged = fields.flag()?;
    let id = match fields.text()?.as_str() {
        "" => None,
        id => Some(MessageId::parse(id)?),
    };
    let place = Place { id, seq: fields.number()?, epoch: fields.text()?.into(), ts: fields.number()? };
    let extra = fields.number()?;
    let reply_author = Some(fields.text()?).filter(|author| !author.is_empty()).map(Arc::from);
    let event = is_logged.then(|| {
        let json = payload(&place, extra_name(kind).map(|name| (name, extra)), content).into();
        LogEvent { kind, epoch: Arc::clone(&place.epoch), seq: place.seq, json }
    });
    let version = if kind == Kind::MessageEdited { u32::try_from(extra).ok()? } else { 0 };
    Some(Ok(Appended { place, event, version, reply_author }))
}

/// The answer of `open.lua`.
pub(super) fn opened(value: Value) -> Option<Opened> {
    let mut fields = Fields::of(value)?;
    let epoch: Arc<str> = fields.text()?.into();
    let (seq, first_seq) = (fields.number()?, fields.number()?);
    let recovered = match fields.number()? {
        0 => None,
        1 => Some(Ok(())),
        2 => Some(Err(Missed::Epoch)),
        3 => Some(Err(Missed::Window)),
        4 => Some(Err(Missed::TooMany)),
        _ => return None,
    };
    let mut seq_before = fields.number()?;
    let events = fields.list()?.all(|item| {
        seq_before += 1;
        Some(Item::parse(&bytes(item)?)?.event(seq_before, &epoch))
    })?;
    Some(Opened { epoch, seq, first_seq, recovered, events })
}

/// The answer of `check.lua`.
pub(super) fn standing(value: Value) -> Option<Standing> {
    let mut fields = Fields::of(value)?;
    let top = Position { epoch: fields.text()?.into(), seq: fields.number()? };
    Some(Standing { top, first_seq: fields.number()? })
}

/// The answer of `range.lua`.
pub(super) fn page(value: Value) -> Option<Result<Page, StoreError>> {
    if !matches!(value, Value::Array(_)) {
        return refusal(value).map(Err);
    }
    let mut fields = Fields::of(value)?;
    let epoch: Arc<str> = fields.text()?.into();
    let (top_seq, first_seq, has_more) = (fields.number()?, fields.number()?, fields.flag()?);
    let mut seqs = fields.list()?.all(|seq| number(&seq))?.into_iter();
    let items = fields.list()?.all(|item| Some(Item::parse(&bytes(item)?)?.event(seqs.next()?, &epoch)))?;
    Some(Ok(Page { epoch, top_seq, first_seq, items, has_more }))
}

/// The answer of `mark.lua`.
pub(super) fn marked(value: Value) -> Option<Marked> {
    let mut fields = Fields::of(value)?;
    Some(Marked { seq: fields.number()?, has_moved: fields.flag()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_read_whole_or_not_at_all() {
        let id = MessageId::new(1_760_000_000_000, 7);
        let mut bytes = vec![1];
        bytes.extend(1_760_000_000_000_u64.to_be_bytes());
        bytes.extend(9_u64.to_be_bytes());
        bytes.extend(3_u32.to_be_bytes());
        bytes.extend(0_u32.to_be_bytes());
        bytes.push(26);
        bytes.extend(id.to_string().as_bytes());
        bytes.extend([0, 1, b'a', 0, 0]);
        let header = bytes.len();
        bytes.extend(b"\"text\":\"\xc3\xa9\"}");
        let event = Item::parse(&bytes).unwrap().event(5, &"epoch".into());
        let expected =
            format!(r#"{{"id":"{id}","seq":5,"epoch":"epoch","ts":1760000000000,"version":3,"text":"{}"}}"#, '\u{e9}');
        assert_eq!((event.kind, event.seq, &*event.json), (Kind::MessageEdited, 5, &*expected));
        for length in 0..header {
            assert!(Item::parse(&bytes[..length]).is_none(), "{length} bytes");
        }
        assert!(Item::parse(&bytes[..header + 9]).is_none(), "half a character");
        bytes[0] = 5;
        assert!(Item::parse(&bytes).is_none(), "an unknown kind");
    }

    #[test]
    fn answers_that_make_no_sense_are_none() {
        let text = |text: &str| Value::BulkString(text.into());
        let nothing = Value::Array(Vec::new());
        assert_eq!(appended(text("closed"), Kind::ChatMessage, "}"), Some(Err(StoreError::Closed)));
        assert_eq!(appended(text("unheard of"), Kind::ChatMessage, "}"), None);
        assert_eq!(appended(nothing.clone(), Kind::ChatMessage, "}"), None);
        assert_eq!(appended(Value::Nil, Kind::ChatMessage, "}"), None);
        assert_eq!(opened(nothing.clone()), None);
        assert_eq!(standing(nothing.clone()), None);
        assert_eq!(page(nothing.clone()), None);
        assert_eq!(page(text("epoch_differs")), Some(Err(StoreError::EpochDiffers)));
        assert_eq!(marked(nothing), None);
        let opening = |found| {
            let items = Value::Array(Vec::new());
            Value::Array(vec![text("e"), Value::Int(3), Value::Int(1), Value::Int(found), Value::Int(3), items])
        };
        assert_eq!(opened(opening(4)).unwrap().recovered, Some(Err(Missed::TooMany)));
        assert_eq!(opened(opening(5)), None);
    }
}
