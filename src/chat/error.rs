//! The error object that acks, `chat_error` and REST bodies share.

use serde::Serialize;

use crate::metrics::Refusal;

/// Why a command was refused. Serialises to the contract's object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Error {
    /// What kind of refusal, for programs.
    pub code: Code,
    /// What was expected, for people.
    pub message: String,
    /// When to try again, if that can help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
    /// Which field was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// What was wrong with a field.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Details {
    /// The field's name, as the contract has it.
    pub field: &'static str,
    /// What it may be.
    pub expected: &'static str,
}

/// The kinds of refusal that exist so far. Clients take an unknown one with `retry_after_ms` as retryable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// A field is missing, or not what was expected.
    InvalidPayload,
    /// The whole payload is too large.
    TooLarge,
    /// No event has that name.
    UnknownEvent,
    /// The socket has not joined that meeting.
    NotJoined,
    /// The meeting has as many members as it may.
    RoomFull,
    /// A cap is reached.
    LimitReached,
    /// Not now.
    Unavailable,
}

impl Error {
    /// A refusal without further details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None, details: None }
    }

    /// A field that is missing, or not what was expected.
    pub fn invalid(field: &'static str, expected: &'static str) -> Self {
        Self {
            details: Some(Details { field, expected }),
            ..Self::new(Code::InvalidPayload, format!("{field}: expected {expected}"))
        }
    }

    /// A refusal that will pass.
    pub fn unavailable(message: &str, retry_after_ms: u32) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..Self::new(Code::Unavailable, message) }
    }

    /// How the refusal is counted.
    pub fn metric(&self) -> Refusal {
        match self.code {
            Code::InvalidPayload | Code::TooLarge => Refusal::InvalidPayload,
            Code::UnknownEvent => Refusal::UnknownEvent,
            Code::NotJoined => Refusal::NotJoined,
            Code::RoomFull | Code::LimitReached => Refusal::LimitReached,
            Code::Unavailable => Refusal::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serialises_to_the_contracts_object() {
        let cases = [
            (
                Error::invalid("text", "a string"),
                r#"{"code":"invalid_payload","message":"text: expected a string","details":{"field":"text","expected":"a string"}}"#,
            ),
            (Error::unavailable("busy", 100), r#"{"code":"unavailable","message":"busy","retry_after_ms":100}"#),
            (Error::new(Code::NotJoined, "join first"), r#"{"code":"not_joined","message":"join first"}"#),
        ];
        for (error, json) in cases {
            assert_eq!(serde_json::to_string(&error).unwrap(), json);
        }
    }
}
