//! What a client can do wrong, and why a socket ends.

use std::fmt;

use crate::types::CloseReason;

/// What a client did wrong. Never our fault, so the only answer is to close the whole connection: after a packet that
/// could not be read, what follows has no meaning either.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A packet without a type digit.
    Empty,
    /// The type was not a digit from 0 to 6.
    UnknownPacketType(u8),
    /// A binary packet whose type is not followed by digits and `-`.
    BadAttachmentCount,
    /// A binary packet that announces more attachments than allowed.
    TooManyAttachments {
        /// How many are allowed.
        max: usize,
    },
    /// An ack id beyond 64 bits.
    AckIdTooLarge,
    /// The payload is not one JSON text.
    InvalidJson,
    /// The payload is JSON, or absent, and may not be so in a packet of this type.
    InvalidPayload {
        /// The packet's type digit.
        packet_type: u8,
    },
    /// The payload is nested deeper than allowed.
    TooDeep {
        /// The allowed depth, in which an argument's outermost brackets count as 1.
        max: usize,
    },
    /// A name that only the server's own events bear.
    ReservedEvent,
    /// The event's name is longer than allowed.
    EventNameTooLong {
        /// The allowed length in characters.
        max: usize,
    },
    /// A placeholder that names no attachment of its packet.
    BadPlaceholder {
        /// How many attachments the packet has.
        attachments: usize,
    },
    /// A text message while attachments were outstanding.
    UnexpectedText {
        /// How many were outstanding.
        missing: usize,
    },
    /// A binary message while no attachment was outstanding.
    UnexpectedBinary,
    /// The attachments of one packet are larger than allowed together.
    AttachmentsTooLarge {
        /// Their size with the one that was too much.
        bytes: usize,
        /// The allowed size.
        max_bytes: usize,
    },
    /// Attachments that did not come in time.
    AttachmentsOverdue {
        /// How many were outstanding.
        missing: usize,
    },
    /// A packet other than CONNECT for a namespace that the client has not joined.
    NotJoined,
    /// A CONNECT for a namespace that the client has joined or is about to.
    AlreadyJoined,
    /// A CONNECT_ERROR: only the server sends it.
    ConnectErrorFromClient,
    /// More packets behind an unanswered CONNECT than are kept.
    TooMuchParked {
        /// The allowed size.
        max_bytes: usize,
    },
    /// No namespace was joined within the connect timeout.
    NotJoinedInTime,
}

impl ProtocolError {
    /// Why the connection is closed for it.
    pub const fn close_reason(self) -> CloseReason {
        match self {
            Self::AttachmentsTooLarge { .. } | Self::TooMuchParked { .. } => CloseReason::TooLarge,
            Self::NotJoinedInTime => CloseReason::ConnectTimeout,
            _ => CloseReason::ParseError,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("packet is empty: expected a type digit from 0 to 6"),
            Self::UnknownPacketType(byte) => write!(f, "packet type {byte:#04x}: expected a digit from 0 to 6"),
            Self::BadAttachmentCount => f.write_str("attachment count: expected digits and '-'"),
            Self::TooManyAttachments { max } => write!(f, "more than {max} attachments"),
            Self::AckIdTooLarge => f.write_str("ack id: expected at most 64 bits"),
            Self::InvalidJson => f.write_str("payload is not one JSON text"),
            Self::InvalidPayload { packet_type } => {
                write!(f, "payload does not fit packet type {}", char::from(*packet_type))
            }
            Self::TooDeep { max } => write!(f, "payload is nested deeper than {max}"),
            Self::ReservedEvent => f.write_str("event name is reserved"),
            Self::EventNameTooLong { max } => write!(f, "event name is longer than {max} characters"),
            Self::BadPlaceholder { attachments } => {
                write!(f, "placeholder names none of the packet's {attachments} attachments")
            }
            Self::UnexpectedText { missing } => write!(f, "text message while {missing} attachments were outstanding"),
            Self::UnexpectedBinary => f.write_str("binary message while no attachment was outstanding"),
            Self::AttachmentsTooLarge { bytes, max_bytes } => {
                write!(f, "attachments of {bytes} bytes: expected at most {max_bytes}")
            }
            Self::AttachmentsOverdue { missing } => write!(f, "{missing} attachments did not come in time"),
            Self::NotJoined => f.write_str("packet for a namespace that was not joined"),
            Self::AlreadyJoined => f.write_str("second CONNECT for a namespace"),
            Self::ConnectErrorFromClient => f.write_str("CONNECT_ERROR from a client: only the server sends it"),
            Self::TooMuchParked { max_bytes } => {
                write!(f, "more than {max_bytes} bytes of packets behind an unanswered CONNECT")
            }
            Self::NotJoinedInTime => f.write_str("no namespace was joined in time"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// Why a socket ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DisconnectReason {
    /// The client left the namespace.
    ClientNamespaceDisconnect,
    /// The server ended the socket: [`Socket::disconnect`](crate::socket::Socket::disconnect).
    ServerNamespaceDisconnect,
    /// The whole connection was closed.
    Closed(CloseReason),
}

impl DisconnectReason {
    /// The stable name, in `snake_case` like those of [`CloseReason`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientNamespaceDisconnect => "client_namespace_disconnect",
            Self::ServerNamespaceDisconnect => "server_namespace_disconnect",
            Self::Closed(reason) => reason.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_their_close_reason() {
        let cases = [
            (ProtocolError::InvalidJson, CloseReason::ParseError),
            (ProtocolError::NotJoined, CloseReason::ParseError),
            (ProtocolError::AttachmentsOverdue { missing: 1 }, CloseReason::ParseError),
            (ProtocolError::AttachmentsTooLarge { bytes: 2, max_bytes: 1 }, CloseReason::TooLarge),
            (ProtocolError::TooMuchParked { max_bytes: 1 }, CloseReason::TooLarge),
            (ProtocolError::NotJoinedInTime, CloseReason::ConnectTimeout),
        ];
        for (error, reason) in cases {
            assert_eq!(error.close_reason(), reason, "{error}");
        }
    }

    #[test]
    fn errors_read_well_after_a_colon() {
        let error = ProtocolError::AttachmentsTooLarge { bytes: 11, max_bytes: 10 };
        assert_eq!(error.to_string(), "attachments of 11 bytes: expected at most 10");
        assert_eq!(
            ProtocolError::UnknownPacketType(b'7').to_string(),
            "packet type 0x37: expected a digit from 0 to 6"
        );
    }
}
