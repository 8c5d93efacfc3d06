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
    /// The HTTP request that was refused, as the logs name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// What was wrong with a field.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Details {
    /// The field's name, as the contract has it.
    pub field: &'static str,
    /// What it may be.
    pub expected: &'static str,
}

/// The kinds of refusal. Clients take an unknown one with `retry_after_ms` as retryable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// A field is missing, or not what was expected.
    InvalidPayload,
    /// The whole payload is too large.
    TooLarge,
    /// No event has that name.
    UnknownEvent,
    /// There is no token, and one is needed.
    Unauthorized,
    /// The token is not one of ours, or not for this.
    TokenInvalid,
    /// The token was one of ours.
    TokenExpired,
    /// The right is missing.
    Forbidden,
    /// There is no such meeting or message.
    NotFound,
    /// The socket has not joined that meeting.
    NotJoined,
    /// It contradicts what happened before.
    Conflict,
    /// The meeting is read-only.
    RoomClosed,
    /// The meeting has as many members as it may.
    RoomFull,
    /// A cap is reached.
    LimitReached,
    /// Too often.
    RateLimited,
    /// Not now.
    Unavailable,
    /// Not here any more: the server is stopping.
    Draining,
    /// A fault of the server.
    Internal,
}

impl Code {
    /// Every code, in declaration order.
    pub const ALL: [Self; 17] = [
        Self::InvalidPayload,
        Self::TooLarge,
        Self::UnknownEvent,
        Self::Unauthorized,
        Self::TokenInvalid,
        Self::TokenExpired,
        Self::Forbidden,
        Self::NotFound,
        Self::NotJoined,
        Self::Conflict,
        Self::RoomClosed,
        Self::RoomFull,
        Self::LimitReached,
        Self::RateLimited,
        Self::Unavailable,
        Self::Draining,
        Self::Internal,
    ];

    /// The name on the wire, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        self.metric().as_str()
    }

    /// The HTTP status of an answer with this code.
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidPayload => 400,
            Self::Unauthorized | Self::TokenInvalid | Self::TokenExpired => 401,
            Self::Forbidden => 403,
            Self::UnknownEvent | Self::NotFound => 404,
            Self::NotJoined | Self::Conflict | Self::RoomFull | Self::LimitReached => 409,
            Self::TooLarge => 413,
            Self::RoomClosed => 423,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Unavailable | Self::Draining => 503,
        }
    }

    /// How the refusal is counted: under its own name.
    pub const fn metric(self) -> Refusal {
        match self {
            Self::InvalidPayload => Refusal::InvalidPayload,
            Self::TooLarge => Refusal::TooLarge,
            Self::UnknownEvent => Refusal::UnknownEvent,
            Self::Unauthorized => Refusal::Unauthorized,
            Self::TokenInvalid => Refusal::TokenInvalid,
            Self::TokenExpired => Refusal::TokenExpired,
            Self::Forbidden => Refusal::Forbidden,
            Self::NotFound => Refusal::NotFound,
            Self::NotJoined => Refusal::NotJoined,
            Self::Conflict => Refusal::Conflict,
            Self::RoomClosed => Refusal::RoomClosed,
            Self::RoomFull => Refusal::RoomFull,
            Self::LimitReached => Refusal::LimitReached,
            Self::RateLimited => Refusal::RateLimited,
            Self::Unavailable => Refusal::Unavailable,
            Self::Draining => Refusal::Draining,
            Self::Internal => Refusal::Internal,
        }
    }
}

impl Error {
    /// A refusal without further details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None, details: None, request_id: None }
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

    /// Too often; it will be allowed again.
    pub fn rate_limited(retry_after_ms: u32) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..Self::new(Code::RateLimited, "too often") }
    }

    /// The same refusal, of the HTTP request with this id.
    #[must_use]
    pub fn with_request_id(self, id: impl Into<String>) -> Self {
        Self { request_id: Some(id.into()), ..self }
    }

    /// How the refusal is counted.
    pub fn metric(&self) -> Refusal {
        self.code.metric()
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
            (
                Error::new(Code::Internal, "a fault").with_request_id("r-1"),
                r#"{"code":"internal","message":"a fault","request_id":"r-1"}"#,
            ),
        ];
        for (error, json) in cases {
            assert_eq!(serde_json::to_string(&error).unwrap(), json);
        }
    }
    #[test]
    fn every_code_has_its_name_and_its_status() {
        let expected = [
            ("invalid_payload", 400),
            ("too_large", 413),
            ("unknown_event", 404),
            ("unauthorized", 401),
            ("token_invalid", 401),
            ("token_expired", 401),
            ("forbidden", 403),
            ("not_found", 404),
            ("not_joined", 409),
            ("conflict", 409),
            ("room_closed", 423),
            ("room_full", 409),
            ("limit_reached", 409),
            ("rate_limited", 429),
            ("unavailable", 503),
            ("draining", 503),
            ("internal", 500),
        ];
        assert_eq!(Code::ALL.map(|code| (code.as_str(), code.status())), expected);
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, index, "{code:?}");
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code.as_str()));
            assert_eq!(Error::new(code, "").metric().as_str(), code.as_str());
        }
    }
}
