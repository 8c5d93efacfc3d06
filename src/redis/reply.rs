//! Reading what the server answers. What is not as expected is `None`, and never more than that.

use std::{str::FromStr, vec};

use redis::Value;

/// The elements of an array, one after the other.
#[derive(Debug)]
pub struct Fields(vec::IntoIter<Value>);

impl Fields {
    /// An array's elements.
    pub fn of(value: Value) -> Option<Self> {
        match value {
            Value::Array(values) => Some(Self(values.into_iter())),
            _ => None,
        }
    }

    /// The next element is a number.
    pub fn number(&mut self) -> Option<u64> {
        number(&self.0.next()?)
    }

    /// The next element is 0 or 1.
    pub fn flag(&mut self) -> Option<bool> {
        match self.number()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// The next element is a string.
    pub fn bytes(&mut self) -> Option<Vec<u8>> {
        bytes(self.0.next()?)
    }

    /// The next element is a text.
    pub fn text(&mut self) -> Option<String> {
        text(self.0.next()?)
    }

    /// The next element is an array.
    pub fn list(&mut self) -> Option<Self> {
        Self::of(self.0.next()?)
    }

    /// All that are left, read in one way.
    pub fn all<T>(self, read: impl FnMut(Value) -> Option<T>) -> Option<Vec<T>> {
        self.0.map(read).collect()
    }
}

/// A number, which may stand in a string.
pub fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(bytes) => parse(bytes),
        _ => None,
    }
}

/// A string.
pub fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// A string that is UTF-8.
pub fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// The same, to keep.
pub fn text(value: Value) -> Option<String> {
    String::from_utf8(bytes(value)?).ok()
}

/// Names and their values, which stand in turn; pairs that are no texts are left out.
pub fn pairs(value: Value) -> Option<Vec<(String, String)>> {
    let Value::Array(values) = value else { return None };
    let mut values = values.into_iter().map(text);
    let mut pairs = Vec::with_capacity(values.len() / 2);
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        pairs.extend(name.zip(value));
    }
    Some(pairs)
}

/// A number that is written in decimal digits.
pub fn parse<T: FromStr>(digits: &[u8]) -> Option<T> {
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn what_is_something_else_is_none() {
        for (name, value, expected) in [
            ("an integer", Value::Int(5), Some(5)),
            ("a negative one", Value::Int(-5), None),
            ("digits", bulk("18446744073709551615"), Some(u64::MAX)),
            ("one past", bulk("18446744073709551616"), None),
            ("no digits", bulk("x"), None),
            ("an empty text", bulk(""), None),
            ("nothing", Value::Nil, None),
            ("a status", Value::SimpleString("5".into()), None),
        ] {
            assert_eq!(number(&value), expected, "{name}");
        }
        assert_eq!(text_of(&Value::BulkString(vec![0xff])), None);
        assert_eq!(text(Value::BulkString(vec![0xff])), None);
        assert_eq!(text_of(&bulk("\u{e9}")), Some("\u{e9}"));
        assert_eq!(text(bulk("\u{e9}")).as_deref(), Some("\u{e9}"));
        assert!(Fields::of(Value::Int(1)).is_none());
        let mut fields = Fields::of(Value::Array(vec![Value::Int(1), Value::Int(2), bulk("x"), Value::Nil])).unwrap();
        assert_eq!((fields.flag(), fields.flag(), fields.text()), (Some(true), None, Some("x".into())));
        assert!(fields.list().is_none(), "not an array");
        assert_eq!(fields.number(), None, "nothing is left");
    }

    #[test]
    fn names_and_values_stand_in_turn() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let both = vec![bulk("a"), bulk("1"), bulk("b"), bulk("")];
        assert_eq!(pairs(Value::Array(both)), Some(vec![pair("a", "1"), pair("b", "")]));
        let odd = vec![bulk("a"), Value::Nil, Value::Int(1), bulk("x"), bulk("b"), bulk("2"), bulk("c")];
        assert_eq!(pairs(Value::Array(odd)), Some(vec![pair("b", "2")]));
        assert_eq!(pairs(Value::Array(vec![])), Some(vec![]));
        assert_eq!(pairs(Value::Nil), None);
    }
}
