//! Newtypes and small enums that several layers share.
//!
//! A type stands here when a mix-up would be possible with a bare string or integer, or when two layers
//! that do not import one another must name the same thing. It imports nothing of the crate.

use std::fmt;

/// Names an Engine.IO session. A bearer secret: whoever holds it can take the session over, so it
/// is never logged whole (`Debug` shows four characters) and never becomes a [`SocketId`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId(Box<str>);

impl SessionId {
    /// Characters of a session id: 24, which is 144 bits from the operating system's CSPRNG.
    pub const LEN: usize = 24;

    /// Takes over an id that [`crate::net`] drew, or one that a request names.
    pub fn new(id: impl Into<Box<str>>) -> Self {
        Self(id.into())
    }

    /// The whole secret, for the handshake answer and table look-ups only.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({}…)", self.0.get(..4).unwrap_or(""))
    }
}

/// Names a Socket.IO socket (one per session and namespace). Public: other clients see it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SocketId(Box<str>);

impl SocketId {
    /// Takes over an id: 20 characters of URL-safe base64 when made by this server.
    pub fn new(id: impl Into<Box<str>>) -> Self {
        Self(id.into())
    }

    /// The id as clients see it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names a room. Shared by reference count: the registry, the room and its members hold the same text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RoomId(std::sync::Arc<str>);

impl RoomId {
    /// Takes over a name that the application has checked.
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names a message: a ULID, so 48 bits of time in ms and 80 that make it unique. Sorts by time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MessageId(ulid::Ulid);

impl MessageId {
    /// Characters of an id as it is written.
    pub const LEN: usize = ulid::ULID_LEN;

    /// The id of a message sent at `ts`, in ms since the epoch, made unique by 80 bits of `random`.
    pub fn new(ts: u64, random: u128) -> Self {
        Self(ulid::Ulid::from_parts(ts, random))
    }

    /// Reads an id in the one form in which they are written; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let id = ulid::Ulid::from_string(text).ok()?;
        // Lower case and over-long values would be other names of the same message.
        (id.array_to_str(&mut [0; Self::LEN]) == text).then_some(Self(id))
    }
}

impl fmt::Display for MessageId {
    /// 26 characters of Crockford's base 32.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.array_to_str(&mut [0; Self::LEN]))
    }
}

impl serde::Serialize for MessageId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.array_to_str(&mut [0; Self::LEN]))
    }
}

/// How a client is connected at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// HTTP long-polling.
    Polling,
    /// One WebSocket.
    WebSocket,
}

impl Transport {
    /// The name on the wire (`transport=`) and in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::WebSocket => "websocket",
        }
    }
}

/// Why a session ended. One list for the wire, the logs and the metric label alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum CloseReason {
    /// The client closed the transport: Engine.IO close packet, WebSocket close, end of stream.
    TransportClose,
    /// Reading or writing failed: reset, a broken frame, an aborted poll or POST body.
    TransportError,
    /// No pong within `pingTimeout`.
    PingTimeout,
    /// A packet that could not be decoded, or one that its state forbids.
    ParseError,
    /// A packet or message over `maxPayload`.
    TooLarge,
    /// No namespace was joined within the connect timeout.
    ConnectTimeout,
    /// The outbox was full: the client reads too slowly.
    SlowConsumer,
    /// The server ended the session: an application handler asked for it.
    ServerClose,
    /// The server is shutting down.
    Draining,
    /// A handler or the connection's own task panicked.
    InternalError,
    /// The client's token is good no more: expired, or revoked.
    AuthExpired,
    /// The client's user was refused too often.
    TooManyRefusals,
}

impl CloseReason {
    /// Every reason, in declaration order: `ALL[reason as usize] == reason`.
    pub const ALL: [Self; 12] = [
        Self::TransportClose,
        Self::TransportError,
        Self::PingTimeout,
        Self::ParseError,
        Self::TooLarge,
        Self::ConnectTimeout,
        Self::SlowConsumer,
        Self::ServerClose,
        Self::Draining,
        Self::InternalError,
        Self::AuthExpired,
        Self::TooManyRefusals,
    ];

    /// The stable name, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TransportClose => "transport_close",
            Self::TransportError => "transport_error",
            Self::PingTimeout => "ping_timeout",
            Self::ParseError => "parse_error",
            Self::TooLarge => "too_large",
            Self::ConnectTimeout => "connect_timeout",
            Self::SlowConsumer => "slow_consumer",
            Self::ServerClose => "server_close",
            Self::Draining => "draining",
            Self::InternalError => "internal_error",
            Self::AuthExpired => "auth_expired",
            Self::TooManyRefusals => "too_many_refusals",
        }
    }
}

/// What a client's opening request said, kept for the handlers that decide about its CONNECTs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Handshake {
    /// The request target's query, without the `?`, still percent-encoded.
    pub query: Box<str>,
    /// The `Authorization` header, whole. A secret: never logged.
    pub authorization: Option<Box<str>>,
    /// The `Origin` header.
    pub origin: Option<Box<str>>,
    /// The client's address: the peer's, or what a trusted proxy says of it.
    pub peer: Option<std::net::IpAddr>,
}

/// What a client is told when the server stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DrainNotice {
    /// When to come back, in ms from now. Different for each client, so that they do not come all at once.
    pub reconnect_after_ms: u64,
    /// When the connection will be closed at the latest, in ms from now.
    pub deadline_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_reasons_index_their_own_list() {
        for (index, reason) in CloseReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{reason:?}");
        }
    }

    #[test]
    fn session_id_is_not_printed_whole() {
        let id = SessionId::new("abcdefghijklmnopqrstuvwx");
        assert_eq!(format!("{id:?}"), "SessionId(abcd…)");
    }
}
