//! One Engine.IO packet: a type digit and its data.

use std::borrow::Cow;

use crate::engine::ProtocolError;

/// A packet as it came in. Section "Packet encoding".
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// `0`: only servers send it; ignored when it comes in.
    Open,
    /// `1`: the client closes the session.
    Close,
    /// `2` and its data, which is `probe` in an upgrade.
    Ping(&'a str),
    /// `3`: the heartbeat's answer.
    Pong,
    /// `4` and its data, or a binary message.
    Message(Message<'a>),
    /// `5`: the client moves to the WebSocket that it probed.
    Upgrade,
    /// `6`: nothing.
    Noop,
}

/// What the layer above gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// Text, without the type digit.
    Text(&'a str),
    /// Bytes: owned when they came as base64.
    Binary(Cow<'a, [u8]>),
}

impl<'a> Packet<'a> {
    /// Reads one text packet (one WebSocket text message, or one part of a polling payload without `b`).
    ///
    /// # Errors
    /// No type digit, or an unknown one.
    pub fn parse(text: &'a str) -> Result<Self, ProtocolError> {
        let kind = *text.as_bytes().first().ok_or(ProtocolError::Empty)?;
        let data = text.get(1..).unwrap_or("");
        match kind {
            b'0' => Ok(Self::Open),
            b'1' => Ok(Self::Close),
            b'2' => Ok(Self::Ping(data)),
            b'3' => Ok(Self::Pong),
            b'4' => Ok(Self::Message(Message::Text(data))),
            b'5' => Ok(Self::Upgrade),
            b'6' => Ok(Self::Noop),
            other => Err(ProtocolError::UnknownPacketType(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_every_packet_form() {
        let cases: &[(&str, &str, Result<Packet<'_>, ProtocolError>)] = &[
            ("open", "0{}", Ok(Packet::Open)),
            ("close", "1", Ok(Packet::Close)),
            ("ping", "2", Ok(Packet::Ping(""))),
            ("probe", "2probe", Ok(Packet::Ping("probe"))),
            ("pong", "3", Ok(Packet::Pong)),
            ("pong with data", "3probe", Ok(Packet::Pong)),
            ("message", "4hi", Ok(Packet::Message(Message::Text("hi")))),
            ("message, multibyte", "4€", Ok(Packet::Message(Message::Text("€")))),
            ("message, empty", "4", Ok(Packet::Message(Message::Text("")))),
            ("upgrade", "5", Ok(Packet::Upgrade)),
            ("noop", "6", Ok(Packet::Noop)),
            ("no type", "", Err(ProtocolError::Empty)),
            ("type out of range", "7x", Err(ProtocolError::UnknownPacketType(b'7'))),
            ("a letter", "abc", Err(ProtocolError::UnknownPacketType(b'a'))),
            ("base64 outside a payload", "bAQ==", Err(ProtocolError::UnknownPacketType(b'b'))),
            ("multibyte type", "€", Err(ProtocolError::UnknownPacketType(0xe2))),
        ];
        for (name, wire, expected) in cases {
            assert_eq!(Packet::parse(wire), *expected, "{name}: {wire:?}");
        }
    }
}
