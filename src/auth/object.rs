//! JSON objects in which no member comes twice, and the few kinds of value that tokens and key sets hold.
//!
//! Two readers of one document must not be able to disagree about which of two members counts.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The members of an object, unread. Names are compared after unescaping.
pub(super) struct Object<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

/// Largest integer that every JSON reader keeps exact.
const INTEGER_MAX: u64 = (1 << 53) - 1;

impl<'a> Object<'a> {
    /// Reads a whole text; `None` if that is no object, or one in which a member comes twice.
    pub(super) fn parse(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// The member of that name.
    pub(super) fn member(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied()
    }

    /// The member of that name if it is a string.
    pub(super) fn string(&self, name: &str) -> Option<Cow<'a, str>> {
        self.member(name).and_then(string)
    }

    /// All members, by name.
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), *value))
    }
}

/// The string that `value` is.
pub(super) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text>(value.get()).ok().map(|text| text.0)
}

/// The integer that `value` is, from 0 to 2^53-1, written without fraction and exponent.
pub(super) fn integer(value: &RawValue) -> Option<u64> {
    value.get().parse().ok().filter(|number| *number <= INTEGER_MAX)
}

/// What `value` is an array of.
pub(super) fn array(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// Borrowed where nothing is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object in which no member comes twice")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
            if members.insert(name.0, value).is_some() {
                return Err(A::Error::custom("a member comes twice"));
            }
        }
        Ok(Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_objects_without_repetition_are_read() {
        for (json, members) in [
            ("{}", Some(0)),
            (r#" { "a" : 1 , "b" : [{"a":1,"a":2}] } "#, Some(2)),
            (r#"{"a":1,"A":1}"#, Some(2)),
            (r#"{"a":1,"a":1}"#, None),
            (r#"{"a":1,"b":2,"\u0061":3}"#, None),
            (r#"{"\ud800":1}"#, None),
            (r#"{"a":1}{}"#, None),
            (r#"{"a":1,}"#, None),
            (r#"{"a":01}"#, None),
            (r#"[["a",1]]"#, None),
            (r#""{}""#, None),
            ("null", None),
            ("", None),
        ] {
            assert_eq!(Object::parse(json).map(|object| object.members().count()), members, "{json}");
        }
    }

    #[test]
    fn integers_are_exact_and_not_negative() {
        for (json, number) in [
            ("0", Some(0)),
            ("9007199254740991", Some(INTEGER_MAX)),
            ("9007199254740992", None),
            ("9223372036854775808", None),
            ("99999999999999999999999", None),
            ("-0", None),
            ("-1", None),
            ("1.0", None),
            ("1e3", None),
            ("\"1\"", None),
            ("null", None),
            ("true", None),
        ] {
            let text = format!("{{\"n\":{json}}}");
            let object = Object::parse(&text).unwrap();
            assert_eq!(integer(object.member("n").unwrap()), number, "{json}");
        }
    }

    #[test]
    fn deep_nesting_is_passed_over_without_recursion() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Object::parse(&deep).is_some());
        assert!(array(Object::parse(&deep).unwrap().member("a").unwrap()).is_some());
    }
}
