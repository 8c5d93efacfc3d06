//! Polling payloads: packets joined by the record separator, binary as base64. Section "HTTP long-polling".

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    engine::{Message, Packet, ProtocolError},
    outbox::Frame,
};

/// Stands between two packets, and nowhere else.
pub const SEPARATOR: u8 = 0x1e;

/// Reads a payload packet by packet, in order. After the first error nothing more comes.
///
/// Bytes, not text: a part that is not UTF-8 spoils only itself and what follows it.
pub fn decode(body: &[u8]) -> impl Iterator<Item = Result<Packet<'_>, ProtocolError>> {
    let mut failed = false;
    body.split(|byte| *byte == SEPARATOR).map_while(move |part| {
        if failed {
            return None;
        }
        let packet = decode_part(part);
        failed = packet.is_err();
        Some(packet)
    })
}

fn decode_part(part: &[u8]) -> Result<Packet<'_>, ProtocolError> {
    if let Some(base64) = part.strip_prefix(b"b") {
        let data = STANDARD.decode(base64).map_err(|_| ProtocolError::BadBase64)?;
        return Ok(Packet::Message(Message::Binary(Cow::Owned(data))));
    }
    Packet::parse(std::str::from_utf8(part).map_err(|_| ProtocolError::BadUtf8)?)
}

/// Appends one frame to a payload.
pub fn encode(frame: &Frame, payload: &mut Vec<u8>) {
    if !payload.is_empty() {
        payload.push(SEPARATOR);
    }
    if frame.is_binary() {
        let mut base64 = String::with_capacity(frame.payload().len().div_ceil(3) * 4);
        STANDARD.encode_string(frame.payload(), &mut base64);
        payload.push(b'b');
        payload.extend_from_slice(base64.as_bytes());
    } else {
        payload.extend_from_slice(frame.payload());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(data: &str) -> Result<Packet<'_>, ProtocolError> {
        Ok(Packet::Message(Message::Text(data)))
    }

    fn binary(data: &[u8]) -> Result<Packet<'static>, ProtocolError> {
        Ok(Packet::Message(Message::Binary(Cow::Owned(data.to_vec()))))
    }

    #[test]
    fn decodes_every_payload_form() {
        type Case<'a> = (&'a str, &'a [u8], Vec<Result<Packet<'a>, ProtocolError>>);
        let cases: &[Case<'_>] = &[
            ("one", b"4a", vec![text("a")]),
            ("two", b"4a\x1e4b", vec![text("a"), text("b")]),
            ("mixed", b"4a\x1ebAQID\x1e3", vec![text("a"), binary(&[1, 2, 3]), Ok(Packet::Pong)]),
            ("padding", b"bAQ==", vec![binary(&[1])]),
            ("empty binary", b"b", vec![binary(&[])]),
            ("empty", b"", vec![Err(ProtocolError::Empty)]),
            ("trailing separator", b"4a\x1e", vec![text("a"), Err(ProtocolError::Empty)]),
            ("leading separator", b"\x1e4a", vec![Err(ProtocolError::Empty)]),
            ("nothing after an error", b"4a\x1ex\x1e4b", vec![text("a"), Err(ProtocolError::UnknownPacketType(b'x'))]),
            ("no padding", b"bAQ", vec![Err(ProtocolError::BadBase64)]),
            ("url-safe alphabet", b"b__8=", vec![Err(ProtocolError::BadBase64)]),
            ("not UTF-8", b"4a\x1e4\xff", vec![text("a"), Err(ProtocolError::BadUtf8)]),
        ];
        for (name, wire, expected) in cases {
            assert_eq!(decode(wire).collect::<Vec<_>>(), *expected, "{name}: {wire:?}");
        }
    }

    #[test]
    fn encodes_text_and_binary_with_separators_between() {
        let mut payload = Vec::new();
        for frame in [Frame::text("4a"), Frame::binary(&[255, 254]), Frame::text("2")] {
            encode(&frame, &mut payload);
        }
        assert_eq!(payload, b"4a\x1eb//4=\x1e2");
    }
}
