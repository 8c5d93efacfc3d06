//! One Socket.IO packet, as a client sends it.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::socket::{ProtocolError, json};

/// A packet. Section "Packet encoding"; everything in it is a part of the text that it was read from.
#[derive(Clone, Debug)]
pub struct Packet<'a> {
    /// The namespace, with its slash; `/` if the packet named none.
    pub namespace: &'a str,
    /// What it is.
    pub kind: PacketKind<'a>,
}

/// What a packet is, and its payload.
///
/// EVENT and BINARY_EVENT are one kind, likewise the two ACKs: they differ in the number of attachments that follow,
/// and a binary packet that announces none is complete at once.
#[derive(Clone, Debug)]
pub enum PacketKind<'a> {
    /// `0`: the client wants to join the namespace.
    Connect {
        /// The `auth` object.
        payload: Option<&'a RawValue>,
    },
    /// `1`: the client leaves the namespace.
    Disconnect,
    /// `2` or `5`.
    Event {
        /// The event's name. A number, which JavaScript allows, stands as it was written.
        name: Cow<'a, str>,
        /// What follows the name.
        args: Args<'a>,
        /// The id under which the client awaits an answer.
        ack_id: Option<u64>,
        /// How many binary messages follow.
        attachments: usize,
    },
    /// `3` or `6`: the answer to an event of the server.
    Ack {
        /// The id that the server gave. Without one it answers nothing.
        id: Option<u64>,
        /// The answer.
        args: Args<'a>,
        /// How many binary messages follow.
        attachments: usize,
    },
    /// `4`: only servers send it, so its payload is not read.
    ConnectError,
}

/// What is allowed in a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketLimits {
    /// Binary attachments of one packet. Default 10, the reference parser's.
    pub max_attachments: usize,
    /// Depth of arrays and objects, in which an argument's outermost brackets count as 1. Default 32.
    pub max_depth: usize,
    /// Characters of an event's name. Default 64.
    pub max_event_name: usize,
}

impl Default for PacketLimits {
    fn default() -> Self {
        Self { max_attachments: 10, max_depth: 32, max_event_name: 64 }
    }
}

const CONNECT: u8 = b'0';
const DISCONNECT: u8 = b'1';
const EVENT: u8 = b'2';
const ACK: u8 = b'3';
const CONNECT_ERROR: u8 = b'4';
const BINARY_EVENT: u8 = b'5';
const BINARY_ACK: u8 = b'6';

impl<'a> Packet<'a> {
    /// Reads one packet: the Engine.IO message without its `4`.
    ///
    /// Stricter than the reference parser where that one follows JavaScript's idea of a number: an ack id and an
    /// attachment count are digits, and the JSON begins with its bracket.
    ///
    /// # Errors
    /// The text is no packet, or it exceeds `limits`.
    pub fn parse(text: &'a str, limits: &PacketLimits) -> Result<Self, ProtocolError> {
        let packet_type = *text.as_bytes().first().ok_or(ProtocolError::Empty)?;
        if !(CONNECT..=BINARY_ACK).contains(&packet_type) {
            return Err(ProtocolError::UnknownPacketType(packet_type));
        }
        let rest = text.get(1..).unwrap_or("");
        let (attachments, rest) = match packet_type {
            BINARY_EVENT | BINARY_ACK => {
                let (count, rest) = split_attachment_count(rest, limits.max_attachments)?;
                (Some(count), rest)
            }
            _ => (None, rest),
        };
        let (namespace, rest) = split_namespace(rest);
        let kind = match packet_type {
            CONNECT => parse_connect(rest, limits)?,
            DISCONNECT if rest.is_empty() => PacketKind::Disconnect,
            CONNECT_ERROR => PacketKind::ConnectError,
            EVENT | BINARY_EVENT => {
                let (ack_id, array) = parse_array(packet_type, rest, attachments, limits)?;
                parse_event(packet_type, ack_id, array, attachments.unwrap_or(0), limits)?
            }
            ACK | BINARY_ACK => {
                let (id, array) = parse_array(packet_type, rest, attachments, limits)?;
                let args = Args { text: array.all, first: array.first };
                PacketKind::Ack { id, args, attachments: attachments.unwrap_or(0) }
            }
            _ => return Err(ProtocolError::InvalidPayload { packet_type }),
        };
        Ok(Self { namespace, kind })
    }

    /// How many binary messages follow, which belong to this packet.
    pub fn attachments(&self) -> usize {
        match self.kind {
            PacketKind::Event { attachments, .. } | PacketKind::Ack { attachments, .. } => attachments,
            _ => 0,
        }
    }
}

fn split_attachment_count(text: &str, max: usize) -> Result<(usize, &str), ProtocolError> {
    let (digits, rest) = split_digits(text);
    let rest = rest.strip_prefix('-').ok_or(ProtocolError::BadAttachmentCount)?;
    if digits.is_empty() {
        return Err(ProtocolError::BadAttachmentCount);
    }
    match digits.parse() {
        Ok(count) if count <= max => Ok((count, rest)),
        _ => Err(ProtocolError::TooManyAttachments { max }),
    }
}

/// The namespace runs to the comma, or to the end of the packet.
fn split_namespace(text: &str) -> (&str, &str) {
    if !text.starts_with('/') {
        return ("/", text);
    }
    text.split_once(',').unwrap_or((text, ""))
}

fn split_digits(text: &str) -> (&str, &str) {
    let count = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at_checked(count).unwrap_or(("", text))
}

fn parse_connect<'a>(payload: &'a str, limits: &PacketLimits) -> Result<PacketKind<'a>, ProtocolError> {
    if payload.is_empty() {
        return Ok(PacketKind::Connect { payload: None });
    }
    if !payload.starts_with('{') {
        return Err(ProtocolError::InvalidPayload { packet_type: CONNECT });
    }
    let payload = parse_json(payload)?;
    if !json::is_within_depth(payload.get(), limits.max_depth) {
        return Err(ProtocolError::TooDeep { max: limits.max_depth });
    }
    Ok(PacketKind::Connect { payload: Some(payload) })
}

/// Reads `[ack id][JSON array]`.
fn parse_array<'a>(
    packet_type: u8,
    text: &'a str,
    attachments: Option<usize>,
    limits: &PacketLimits,
) -> Result<(Option<u64>, json::Cuts<'a>), ProtocolError> {
    let (digits, payload) = split_digits(text);
    let id = match digits {
        "" => None,
        digits => Some(digits.parse().map_err(|_| ProtocolError::AckIdTooLarge)?),
    };
    if !payload.starts_with('[') {
        return Err(ProtocolError::InvalidPayload { packet_type });
    }
    let array = parse_json(payload)?.get();
    // The array around the arguments does not count.
    let max_depth = limits.max_depth.saturating_add(1);
    let cuts = json::cut_array(array, max_depth).ok_or(ProtocolError::TooDeep { max: limits.max_depth })?;
    if let Some(attachments) = attachments
        && !json::are_placeholders_valid(array, attachments)
    {
        return Err(ProtocolError::BadPlaceholder { attachments });
    }
    Ok((id, cuts))
}

/// Checks the whole text. It stays raw, because a value would change numbers, order, duplicate keys and escapes, and
/// because JavaScript writes lone surrogates (`"\ud800"`), which no Rust string can hold.
fn parse_json(text: &str) -> Result<&RawValue, ProtocolError> {
    // serde_json skips over a value without recursion, so the depth needs no check before.
    serde_json::from_str(text).map_err(|_| ProtocolError::InvalidJson)
}

fn parse_event<'a>(
    packet_type: u8,
    ack_id: Option<u64>,
    array: json::Cuts<'a>,
    attachments: usize,
    limits: &PacketLimits,
) -> Result<PacketKind<'a>, ProtocolError> {
    let first = array.first;
    let name = match first.as_bytes().first() {
        Some(b'"') => parse_name(first).ok_or(ProtocolError::InvalidPayload { packet_type })?,
        Some(b'-' | b'0'..=b'9') => Cow::Borrowed(first),
        _ => return Err(ProtocolError::InvalidPayload { packet_type }),
    };
    if is_reserved_event(&name) {
        return Err(ProtocolError::ReservedEvent);
    }
    let max = limits.max_event_name;
    if name.len() > max && name.chars().count() > max {
        return Err(ProtocolError::EventNameTooLong { max });
    }
    let args = Args { text: array.behind_first, first: array.second };
    Ok(PacketKind::Event { name, args, ack_id, attachments })
}

/// A name is looked up, so unlike an argument it cannot hold a lone surrogate.
fn parse_name(string: &str) -> Option<Cow<'_, str>> {
    if string.contains('\\') {
        return serde_json::from_str(string).ok().map(Cow::Owned);
    }
    let name = string.strip_prefix('"')?.strip_suffix('"')?;
    Some(Cow::Borrowed(name))
}

/// Whether an event may not bear this name, because libraries give it a meaning of its own.
///
/// A client that sends one is closed, and the server does not emit one.
pub fn is_reserved_event(name: &str) -> bool {
    matches!(name, "connect" | "connect_error" | "disconnect" | "disconnecting" | "newListener" | "removeListener")
}

/// The arguments of an event or ack: JSON values with commas between them, as the client wrote them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Args<'a> {
    text: &'a str,
    /// The first value's text, or nothing. Found while reading the packet, since most events have one argument.
    first: &'a str,
}

impl<'a> Args<'a> {
    /// All of them, without brackets; empty if there are none. What [`Socket::emit_raw`] and
    /// [`Ack::send`] take.
    ///
    /// [`Socket::emit_raw`]: crate::socket::Socket::emit_raw
    /// [`Ack::send`]: crate::socket::Ack::send
    pub fn as_str(self) -> &'a str {
        self.text
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.text.is_empty()
    }

    /// The first one's text, ready for `serde_json::from_str`.
    pub fn first_str(self) -> Option<&'a str> {
        (!self.first.is_empty()).then_some(self.first)
    }

    /// The first one.
    pub fn first(self) -> Option<&'a RawValue> {
        self.iter().next()
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = &'a RawValue> {
        // They were checked with the packet: there is no error to lose.
        self.texts().map_while(|text| serde_json::from_str(text).ok())
    }

    fn texts(self) -> impl Iterator<Item = &'a str> {
        let mut rest = (!self.is_empty()).then_some(self.text);
        std::iter::from_fn(move || {
            let (first, behind) = json::split_first(rest?);
            rest = behind;
            Some(first)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet in a form that can be compared.
    fn describe(text: &str) -> Result<String, ProtocolError> {
        let packet = Packet::parse(text, &PacketLimits::default())?;
        let id = |id: Option<u64>| id.map(|id| format!(" #{id}")).unwrap_or_default();
        let kind = match &packet.kind {
            PacketKind::Connect { payload } => format!("connect {}", payload.map_or("-", |payload| payload.get())),
            PacketKind::Disconnect => "disconnect".into(),
            PacketKind::ConnectError => "connect error".into(),
            PacketKind::Event { name, args, ack_id, attachments } => {
                format!("event {name:?}{} +{attachments} {}", id(*ack_id), args.as_str())
            }
            PacketKind::Ack { id: ack_id, args, attachments } => {
                format!("ack{} +{attachments} {}", id(*ack_id), args.as_str())
            }
        };
        Ok(format!("{} {kind}", packet.namespace))
    }

    /// socket.io v5 § Packet encoding, with all its examples, and protocol-facts §10.
    #[test]
    fn reads_every_packet_form() {
        let cases: &[(&str, &str)] = &[
            // § Connection to a namespace
            ("0", "/ connect -"),
            ("0{}", "/ connect {}"),
            (r#"0{"token":"123"}"#, r#"/ connect {"token":"123"}"#),
            (r#"0/admin,{"sid":"oSO0OpakMV_3jnilAAAA"}"#, r#"/admin connect {"sid":"oSO0OpakMV_3jnilAAAA"}"#),
            ("0/custom", "/custom connect -"),
            ("0/custom,", "/custom connect -"),
            ("0/,", "/ connect -"),
            ("0/", "/ connect -"),
            ("0/admin?x=1", "/admin?x=1 connect -"),
            ("0/admin?x=1,{}", "/admin?x=1 connect {}"),
            ("0{} \n", "/ connect {}"),
            (r#"4{"message":"Not authorized"}"#, "/ connect error"),
            ("4", "/ connect error"),
            // § Disconnection from a namespace
            ("1", "/ disconnect"),
            ("1/admin", "/admin disconnect"),
            ("1/admin,", "/admin disconnect"),
            // § Sending and receiving data
            (r#"2["foo"]"#, r#"/ event "foo" +0 "#),
            (r#"2/admin,["bar"]"#, r#"/admin event "bar" +0 "#),
            (r#"2["message",1,"2",{"3":[true]}]"#, r#"/ event "message" +0 1,"2",{"3":[true]}"#),
            (r#"2["a" , 1 , [2] ]"#, r#"/ event "a" +0 1 , [2]"#),
            (r#"2["\u0061\n",1]"#, r#"/ event "a\n" +0 1"#),
            (r#"2["é\"",1]"#, r#"/ event "é\"" +0 1"#),
            (r#"2["",1]"#, r#"/ event "" +0 1"#),
            (r#"2["error"]"#, r#"/ event "error" +0 "#),
            ("2[1,2]", r#"/ event "1" +0 2"#),
            ("2[-1.5e3]", r#"/ event "-1.5e3" +0 "#),
            (r#"51-["baz",{"_placeholder":true,"num":0}]"#, r#"/ event "baz" +1 {"_placeholder":true,"num":0}"#),
            (
                r#"52-/admin,["baz",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
                r#"/admin event "baz" +2 {"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#,
            ),
            (r#"50-["a"]"#, r#"/ event "a" +0 "#),
            (r#"501-["a"]"#, r#"/ event "a" +1 "#),
            (r#"2["a",{"_placeholder":true,"num":9}]"#, r#"/ event "a" +0 {"_placeholder":true,"num":9}"#),
            // § Acknowledgement
            (r#"212["foo"]"#, r#"/ event "foo" #12 +0 "#),
            (r#"2456["a",1]"#, r#"/ event "a" #456 +0 1"#),
            (r#"2007["a"]"#, r#"/ event "a" #7 +0 "#),
            (r#"218446744073709551615["a"]"#, r#"/ event "a" #18446744073709551615 +0 "#),
            (r#"3/admin,13["bar"]"#, r#"/admin ack #13 +0 "bar""#),
            ("312[]", "/ ack #12 +0 "),
            ("3[]", "/ ack +0 "),
            (r#"61-15["bar",{"_placeholder":true,"num":0}]"#, r#"/ ack #15 +1 "bar",{"_placeholder":true,"num":0}"#),
            (
                r#"51-/admin,7["a",{"num":0,"_placeholder":true}]"#,
                r#"/admin event "a" #7 +1 {"num":0,"_placeholder":true}"#,
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(describe(text).as_deref(), Ok(*expected), "{text}");
        }
    }

    /// socket.io v5 § Sending and receiving data, § Acknowledgement, and protocol-facts §10.
    #[test]
    fn refuses_what_is_no_packet() {
        use ProtocolError as E;
        let payload = |packet_type| E::InvalidPayload { packet_type };
        let cases: &[(&str, ProtocolError)] = &[
            ("", E::Empty),
            ("7", E::UnknownPacketType(b'7')),
            ("9[]", E::UnknownPacketType(b'9')),
            ("abc", E::UnknownPacketType(b'a')),
            ("é", E::UnknownPacketType(0xc3)),
            (" 2[\"a\"]", E::UnknownPacketType(b' ')),
            // CONNECT: an object or nothing
            ("0[]", payload(b'0')),
            ("0\"x\"", payload(b'0')),
            ("0null", payload(b'0')),
            ("01{}", payload(b'0')),
            ("0 {}", payload(b'0')),
            ("0{", E::InvalidJson),
            ("0{}x", E::InvalidJson),
            // DISCONNECT: nothing
            ("1{}", payload(b'1')),
            ("1/admin,[]", payload(b'1')),
            ("11", payload(b'1')),
            // EVENT: a non-empty array that begins with a name
            ("2", payload(b'2')),
            ("2/admin", payload(b'2')),
            ("212", payload(b'2')),
            ("2{}", payload(b'2')),
            ("2\"a\"", payload(b'2')),
            ("2[]", payload(b'2')),
            ("2[ ]", payload(b'2')),
            ("2[null]", payload(b'2')),
            ("2[[\"a\"]]", payload(b'2')),
            ("2[true]", payload(b'2')),
            (r#"2["\ud800"]"#, payload(b'2')),
            (r#"2abc["a"]"#, payload(b'2')),
            (r#"2-1["a"]"#, payload(b'2')),
            (r#"2 1["a"]"#, payload(b'2')),
            (r#"21 ["a"]"#, payload(b'2')),
            (r#"21.5["a"]"#, payload(b'2')),
            (r#"2["a"]]"#, E::InvalidJson),
            (r#"2["a"]["b"]"#, E::InvalidJson),
            (r#"2["a",]"#, E::InvalidJson),
            (r#"2["a""#, E::InvalidJson),
            (r#"2["a",01]"#, E::InvalidJson),
            (r#"2["a",NaN]"#, E::InvalidJson),
            (r#"2["a",{b:1}]"#, E::InvalidJson),
            ("2[\"a\n\"]", E::InvalidJson),
            (r#"2["\x"]"#, E::InvalidJson),
            (r#"218446744073709551616["a"]"#, E::AckIdTooLarge),
            // ACK: an array
            ("3", payload(b'3')),
            ("312", payload(b'3')),
            ("312{}", payload(b'3')),
            ("318446744073709551616[]", E::AckIdTooLarge),
            // binary
            (r#"5["a"]"#, E::BadAttachmentCount),
            (r#"5-["a"]"#, E::BadAttachmentCount),
            (r#"51["a"]"#, E::BadAttachmentCount),
            (r#"5-1-["a"]"#, E::BadAttachmentCount),
            (r#"51.0-["a"]"#, E::BadAttachmentCount),
            (r#"51e1-["a"]"#, E::BadAttachmentCount),
            (r#"5 1-["a"]"#, E::BadAttachmentCount),
            (r#"5/admin,["a"]"#, E::BadAttachmentCount),
            ("6", E::BadAttachmentCount),
            (r#"599999999999999999999999-["a"]"#, E::TooManyAttachments { max: 10 }),
            (r#"51-[{"_placeholder":true,"num":0}]"#, payload(b'5')),
            (r#"51-["a",{"_placeholder":true,"num":1}]"#, E::BadPlaceholder { attachments: 1 }),
            (r#"51-["a",{"_placeholder":true,"num":"splice"}]"#, E::BadPlaceholder { attachments: 1 }),
            (r#"50-["a",{"_placeholder":true,"num":0}]"#, E::BadPlaceholder { attachments: 0 }),
            (r#"61-1[{"_placeholder":true,"num":-1}]"#, E::BadPlaceholder { attachments: 1 }),
        ];
        for (text, expected) in cases {
            assert_eq!(describe(text), Err(*expected), "{text}");
        }
    }

    #[test]
    fn reserved_names_are_refused() {
        for name in ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"] {
            assert_eq!(describe(&format!("2[\"{name}\"]")), Err(ProtocolError::ReservedEvent), "{name}");
        }
        assert_eq!(describe(r#"2["\u0063onnect"]"#), Err(ProtocolError::ReservedEvent));
    }

    #[test]
    fn limits_hold_at_and_one_past() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(describe(&format!("2[\"a\",{}]", nested(32))).is_ok());
        assert_eq!(describe(&format!("2[\"a\",{}]", nested(33))), Err(ProtocolError::TooDeep { max: 32 }));
        let object = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert!(describe(&format!("0{}", object(32))).is_ok());
        assert_eq!(describe(&format!("0{}", object(33))), Err(ProtocolError::TooDeep { max: 32 }));
        assert_eq!(describe(&format!("3{}", nested(100_000))), Err(ProtocolError::TooDeep { max: 32 }));

        assert!(describe(&format!("2[\"{}\"]", "é".repeat(64))).is_ok());
        let long = format!("2[\"{}\"]", "é".repeat(65));
        assert_eq!(describe(&long), Err(ProtocolError::EventNameTooLong { max: 64 }));

        assert!(describe(r#"510-["a"]"#).is_ok());
        assert_eq!(describe(r#"511-["a"]"#), Err(ProtocolError::TooManyAttachments { max: 10 }));
    }

    #[test]
    fn arguments_keep_their_text() {
        let args = r#"1.0,12345678901234567890,{"b":1,"a":2,"b":3},"\ud800\u0041\/",1E400,"é""#;
        let text = format!("2[\"a\",{args}]");
        let packet = Packet::parse(&text, &PacketLimits::default()).unwrap();
        let PacketKind::Event { args: found, .. } = packet.kind else { panic!("no event") };
        assert_eq!(found.as_str(), args);
        assert_eq!(found.first().unwrap().get(), "1.0");
        assert_eq!(found.first_str(), Some("1.0"));
        let each: Vec<_> = found.iter().map(RawValue::get).collect();
        let expected =
            ["1.0", "12345678901234567890", r#"{"b":1,"a":2,"b":3}"#, r#""\ud800\u0041\/""#, "1E400", "\"é\""];
        assert_eq!(each, expected);
        assert!(Args::default().is_empty());
        assert_eq!(Args::default().iter().count(), 0);
    }

    #[test]
    fn cut_at_every_byte_it_never_panics() {
        let packets = [
            r#"0/admin,{"token":"é\ud800\"","a":[1,2,{"b":null}]}"#,
            r#"52-/ns,17["näme",{"_placeholder":true,"num":0},[1.5e-3,"\\",{"num":1,"_placeholder":true}]]"#,
            r#"2["a",{"k":[[],{}]},true]"#,
            r#"63-9[{"_placeholder":true,"num":2}]"#,
        ];
        for packet in packets {
            assert!(describe(packet).is_ok(), "{packet}");
            for end in (0..packet.len()).filter(|end| packet.is_char_boundary(*end)) {
                let _ = describe(&packet[..end]);
                let _ = describe(&packet[end..]);
            }
        }
    }

    #[test]
    fn mutated_it_never_panics() {
        let seeds = [
            r#"0/admin,{"token":"a\ud800\"","a":[1,2,{"b":null}]}"#,
            r#"52-/ns,17["name",{"_placeholder":true,"num":0},[1.5e-3,"\\",{"num":1,"_placeholder":true}]]"#,
            r#"3/a,1["x",{"y":[1,2]}]"#,
        ];
        let alphabet = b"0123456789-/,[]{}\":\\ un_aetrf.\n";
        let mut random = 1_u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        for round in 0..30_000 {
            let mut bytes = seeds[round % seeds.len()].as_bytes().to_vec();
            for _ in 0..=next(4) {
                let at = next(bytes.len());
                match next(3) {
                    0 => bytes[at] = alphabet[next(alphabet.len())],
                    1 => bytes.insert(at, alphabet[next(alphabet.len())]),
                    _ => drop(bytes.remove(at)),
                }
            }
            let text = String::from_utf8(bytes).unwrap();
            if let Ok(packet) = Packet::parse(&text, &PacketLimits::default())
                && let PacketKind::Event { args, .. } | PacketKind::Ack { args, .. } = packet.kind
            {
                // Whatever is let through is a list of JSON values.
                let list = format!("[{}]", args.as_str());
                let values: Vec<&RawValue> = serde_json::from_str(&list).unwrap();
                assert_eq!(values.len(), args.iter().count(), "{text}");
            }
        }
    }
}
