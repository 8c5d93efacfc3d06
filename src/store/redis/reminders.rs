//! Reminders as texts, and back.

use std::sync::Arc;

use redis::Value;

use crate::{
    redis::reply::{Fields, parse},
    store::Reminder,
    types::RoomId,
};

/// Stands in front of what is given, so that it is never empty: an empty text is one that is not given.
const GIVEN: u8 = b'+';

/// Recipients, each behind its length.
pub(super) fn write_recipients(recipients: Option<&[Arc<str>]>) -> Vec<u8> {
    let Some(recipients) = recipients else { return Vec::new() };
    let mut out = vec![GIVEN];
    for user in recipients {
        // Users' ids are short: none is cut.
        let length = user.len().min(usize::from(u16::MAX));
        out.extend((length as u16).to_be_bytes());
        out.extend(user.bytes().take(length));
    }
    out
}

fn read_recipients(bytes: &[u8]) -> Option<Vec<Arc<str>>> {
    let mut recipients = Vec::new();
    let mut rest = match bytes.split_first() {
        None => return Some(recipients),
        Some((&GIVEN, rest)) => rest,
        Some(_) => return None,
    };
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (user, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        recipients.push(str::from_utf8(user).ok()?.into());
        rest = behind;
    }
    rest.is_empty().then_some(recipients)
}

/// A title.
pub(super) fn write_title(title: Option<&str>) -> String {
    title.map_or_else(String::new, |title| format!("+{title}"))
}

fn read_title(text: &str) -> Option<Option<Box<str>>> {
    match text.strip_prefix('+') {
        Some(title) => Some(Some(title.into())),
        None => text.is_empty().then_some(None),
    }
}

/// What waits after a script on reminders has run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Waiting {
    /// How many.
    pub(super) count: u64,
    /// When the first is due.
    pub(super) next: Option<u64>,
}

impl Waiting {
    fn read(fields: &mut Fields) -> Option<Self> {
        let count = fields.number()?;
        let next = match fields.bytes()?.as_slice() {
            b"" => None,
            digits => Some(parse(digits)?),
        };
        Some(Self { count, next })
    }
}

/// The answer of `set_reminders.lua` and `drop_reminder.lua`.
pub(super) fn waiting(value: Value) -> Option<Waiting> {
    Waiting::read(&mut Fields::of(value)?)
}

/// The answer of `take_reminders.lua`.
pub(super) fn taken(value: Value) -> Option<(Waiting, Vec<Reminder>)> {
    let mut fields = Fields::of(value)?;
    let waiting = Waiting::read(&mut fields)?;
    // One that cannot be read is gone already: the others are given.
    let taken = fields.list()?.all(|reminder| Some(reminder_of(reminder)))?;
    Some((waiting, taken.into_iter().flatten().collect()))
}

fn reminder_of(value: Value) -> Option<Reminder> {
    let mut fields = Fields::of(value)?;
    Some(Reminder {
        meeting: RoomId::new(&fields.text()?),
        starts_at: fields.number()?,
        offset: fields.text()?.into(),
        due_at: fields.number()?,
        recipients: read_recipients(&fields.bytes()?)?,
        title: read_title(&fields.text()?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_and_titles_are_read_as_they_were_written() {
        let users: [&[&str]; 4] = [&[], &["a"], &["a", "", "\u{e9}"], &["a\0b", "x".repeat(128).leak()]];
        for users in users {
            let users: Vec<Arc<str>> = users.iter().map(|user| Arc::from(*user)).collect();
            let written = write_recipients(Some(&users));
            assert!(!written.is_empty());
            assert_eq!(read_recipients(&written), Some(users));
            for length in 2..written.len() {
                let part = read_recipients(&written[..length]);
                assert!(part.is_none_or(|part| write_recipients(Some(&part)).len() == length), "{length} bytes");
            }
        }
        assert_eq!(read_recipients(&write_recipients(None)), Some(Vec::new()));
        assert_eq!(read_recipients(b"x"), None);
        for title in [None, Some(""), Some("a"), Some("+")] {
            assert_eq!(read_title(&write_title(title)), Some(title.map(Box::from)));
        }
        assert_eq!(read_title("a"), None);
    }

    #[test]
    fn a_reminder_that_cannot_be_read_takes_no_other_with_it() {
        let text = |text: &str| Value::BulkString(text.into());
        let good = Value::Array(["m", "1", "5m", "2", "+", ""].map(text).into());
        let bad = Value::Array(["m", "x", "5m", "2", "+", ""].map(text).into());
        let answer = Value::Array(vec![Value::Int(0), text(""), Value::Array(vec![bad, good, Value::Nil])]);
        let (waiting, taken) = taken(answer).unwrap();
        assert_eq!((waiting, taken.len()), (Waiting { count: 0, next: None }, 1));
        assert_eq!(taken[0].due_at, 2);
    }
}
