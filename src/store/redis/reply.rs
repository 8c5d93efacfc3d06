//! Reading what Redis answers. What is not as expected is `None`, and never more than that.

use std::{str::FromStr, vec};

use redis::Value;

/// The elements of an array, one after the other.
pub(super) struct Fields(vec::IntoIter<Value>);

impl Fields {
    /// An array's elements.
    pub(super) fn of(value: Value) -> Option<Self> {
        match value {
            Value::Array(values) | Value::Set(values) => Some(Self(values.into_iter())),
            _ => None,
        }
    }

    /// The next element is a number.
    pub(super) fn number(&mut self) -> Option<u64> {
        number(&self.0.next()?)
    }

    /// The next element is 0 or 1.
    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.number()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// The next element is a string.
    pub(super) fn bytes(&mut self) -> Option<Vec<u8>> {
        bytes(self.0.next()?)
    }

    /// The next element is a text.
    pub(super) fn text(&mut self) -> Option<String> {
        text(self.0.next()?)
    }

    /// The next element is an array.
    pub(super) fn list(&mut self) -> Option<Self> {
        Self::of(self.0.next()?)
    }

    /// All that are left, read in one way.
    pub(super) fn all<T>(self, read: impl FnMut(Value) -> Option<T>) -> Option<Vec<T>> {
        self.0.map(read).collect()
    }
}

/// A number, which may stand in a string.
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(bytes) => parse(bytes),
        _ => None,
    }
}

/// A string.
pub(super) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// A string that is UTF-8.
pub(super) fn text(value: Value) -> Option<String> {
    String::from_utf8(bytes(value)?).ok()
}

/// A number that is written in decimal digits.
pub(super) fn parse<T: FromStr>(digits: &[u8]) -> Option<T> {
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_something_else_is_none() {
        let text_of = |text: &str| Value::BulkString(text.into());
        for (name, value, expected) in [
            ("an integer", Value::Int(5), Some(5)),
            ("a negative one", Value::Int(-5), None),
            ("digits", text_of("18446744073709551615"), Some(u64::MAX)),
            ("one past", text_of("18446744073709551616"), None),
            ("no digits", text_of("x"), None),
            ("an empty text", text_of(""), None),
            ("nothing", Value::Nil, None),
            ("a status", Value::SimpleString("5".into()), None),
        ] {
            assert_eq!(number(&value), expected, "{name}");
        }
        assert_eq!(text(Value::BulkString(vec![0xff])), None);
        assert_eq!(text(text_of("\u{e9}")).as_deref(), Some("\u{e9}"));
        assert!(Fields::of(Value::Int(1)).is_none());
        let mut fields =
            Fields::of(Value::Array(vec![Value::Int(1), Value::Int(2), text_of("x"), Value::Nil])).unwrap();
        assert_eq!((fields.flag(), fields.flag(), fields.text()), (Some(true), None, Some("x".into())));
        assert!(fields.list().is_none(), "not an array");
        assert_eq!(fields.number(), None, "nothing is left");
    }
}
