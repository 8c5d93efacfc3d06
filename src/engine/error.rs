//! What can be wrong with a request or a packet.

use std::fmt;

use crate::types::CloseReason;

/// The errors of the HTTP side, with the codes and messages that clients know.
///
/// Section "Handshake" and the reference implementation; sent as `{"code":n,"message":"…"}`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// `transport` is missing or not one of ours.
    UnknownTransport,
    /// `sid` names no session, or one that was closed.
    UnknownSession,
    /// A handshake by another method than GET.
    BadHandshakeMethod,
    /// The request does not fit the session's state or its own transport.
    BadRequest,
    /// The origin is not allowed.
    Forbidden,
    /// `EIO` is missing or not 4.
    UnsupportedVersion,
}

impl Refusal {
    /// The number in the answer's body.
    pub const fn code(self) -> u8 {
        match self {
            Self::UnknownTransport => 0,
            Self::UnknownSession => 1,
            Self::BadHandshakeMethod => 2,
            Self::BadRequest => 3,
            Self::Forbidden => 4,
            Self::UnsupportedVersion => 5,
        }
    }

    /// The text in the answer's body.
    pub const fn message(self) -> &'static str {
        match self {
            Self::UnknownTransport => "Transport unknown",
            Self::UnknownSession => "Session ID unknown",
            Self::BadHandshakeMethod => "Bad handshake method",
            Self::BadRequest => "Bad request",
            Self::Forbidden => "Forbidden",
            Self::UnsupportedVersion => "Unsupported protocol version",
        }
    }

    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::Forbidden => 403,
            _ => 400,
        }
    }
}

/// What a client did wrong in a packet. Never our fault, so the only answer is to close the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A packet without a type digit.
    Empty,
    /// The type was not a digit from 0 to 6, nor `b` in a payload.
    UnknownPacketType(u8),
    /// A `b` packet whose data is not base64 with padding.
    BadBase64,
    /// A text packet that is not UTF-8.
    BadUtf8,
    /// A ping: in version 4 only the server pings.
    PingFromClient,
}

impl ProtocolError {
    /// Why the session is closed for it.
    pub const fn close_reason(self) -> CloseReason {
        CloseReason::ParseError
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("packet is empty: expected a type digit from 0 to 6"),
            Self::UnknownPacketType(byte) => write!(f, "packet type {byte:#04x}: expected a digit from 0 to 6"),
            Self::BadBase64 => f.write_str("binary packet is not base64 with padding"),
            Self::BadUtf8 => f.write_str("text packet is not UTF-8"),
            Self::PingFromClient => f.write_str("ping from a client: only the server pings"),
        }
    }
}

impl std::error::Error for ProtocolError {}
