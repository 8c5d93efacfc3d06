//! Promise: whatever comes in, cut anywhere or changed anyhow, the parsers neither panic nor read it in two ways.
//!
//! What was read and is written again reads the same; where a form is the only one for its content, it is the same
//! bytes. Seeds are fixed, so that a failure is one for everybody.

use std::borrow::Cow;

use chat_service::{
    engine::{Intent, Message, Packet, payload},
    http::{BodyDecoder, Framing, Head, HeadLimits, HttpError, upgrade},
    outbox::Frame,
    socket::{self, PacketKind, PacketLimits, encode},
};

const PAYLOADS: &[&[u8]] = &[
    b"4hello",
    b"40\x1e42[\"a\",1]\x1e3",
    b"4a\x1ebAQID\x1e2probe\x1ebAQ==\x1e4",
    "4\u{20ac}\u{1F600}\x1e41\x1e4\u{e9}".as_bytes(),
    b"2\x1eb\x1e1\x1e0\x1e5\x1e6",
];

const SOCKET_PACKETS: &[&str] = &[
    "0",
    "0/custom,",
    r#"0/admin,{"token":"é\ud800\"","a":[1,2,{"b":null}]}"#,
    "1",
    "1/admin,",
    r#"2["foo"]"#,
    r#"2/admin,456["project:delete",123,{"3":[true]},"\u0041\/"]"#,
    r#"52-/ns,17["näme",{"_placeholder":true,"num":0},[1.5e-3,"\\",{"num":1,"_placeholder":true}]]"#,
    r#"3/admin,456[]"#,
    r#"312["bar",1]"#,
    r#"61-9[{"_placeholder":true,"num":0}]"#,
];

const HEADS: &[&str] = &[
    "GET /socket.io/?EIO=4&transport=polling&t=a%20b HTTP/1.1\r\nHost: localhost:5003\r\nAccept: */*\r\n\r\n",
    "POST /socket.io/?EIO=4&transport=polling&sid=abc HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\
     Content-Type: text/plain;charset=UTF-8\r\nOrigin: http://localhost:3000\r\n\r\n",
    "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
     Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "PUT http://example.org:80/x HTTP/1.1\r\nHost: example.org:80\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
    "\r\nOPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
];

/// Wire form of a chunked body, and its data.
const CHUNKED: &[(&[u8], &[u8])] = &[
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"1;a=b\r\nx\r\nA\r\n0123456789\r\n0\r\nTrailer: v\r\nX: y\r\n\r\n", b"x0123456789"),
    (b"0\r\n\r\n", b""),
];

const BODY_MAX_BYTES: usize = 64;

#[test]
fn payloads() {
    for whole in PAYLOADS {
        let packets: Vec<_> = payload::decode(whole).collect();
        assert!(packets.iter().all(Result::is_ok), "{whole:?}");
        assert_eq!(encode_payload(&packets), **whole);
        for cut in 0..whole.len() {
            let begun: Vec<_> = payload::decode(&whole[..cut]).collect();
            // All but the packet that was cut are there, and as they were.
            assert_eq!(begun[..begun.len() - 1], packets[..begun.len() - 1], "{whole:?} cut at {cut}");
            let _ = payload::decode(&whole[cut..]).count();
        }
    }
}

#[test]
fn payloads_changed_at_random() {
    let mut complete = 0;
    mutate(PAYLOADS, b"0123456b\x1e\xff\xc3\xa9=+/-_AQ\"", 150_000, |changed| {
        let packets: Vec<_> = payload::decode(changed).collect();
        let failed = packets.iter().position(Result::is_err);
        assert!(failed.is_none_or(|at| at + 1 == packets.len()), "something came after an error: {changed:?}");
        if failed.is_some() {
            return;
        }
        complete += 1;
        let again = encode_payload(&packets);
        assert_eq!(payload::decode(&again).collect::<Vec<_>>(), packets, "{changed:?}");
        // Only these throw data away that they may have had.
        let drops_data = |packet: &_| {
            matches!(packet, Ok(Packet::Open | Packet::Close | Packet::Pong | Packet::Upgrade | Packet::Noop))
        };
        if !packets.iter().any(drops_data) {
            assert_eq!(again, changed);
        }
    });
    assert!(complete > 1000, "only {complete} were payloads at all");
}

fn encode_payload(packets: &[Result<Packet<'_>, chat_service::engine::ProtocolError>]) -> Vec<u8> {
    let mut out = Vec::new();
    for packet in packets.iter().flatten() {
        let frame = match packet {
            Packet::Open => Frame::text("0"),
            Packet::Close => Frame::text("1"),
            Packet::Ping(data) => Frame::text(&format!("2{data}")),
            Packet::Pong => Frame::text("3"),
            Packet::Message(Message::Text(text)) => Frame::text(&format!("4{text}")),
            Packet::Message(Message::Binary(data)) => Frame::binary(data),
            Packet::Upgrade => Frame::text("5"),
            Packet::Noop => Frame::text("6"),
        };
        payload::encode(&frame, &mut out);
    }
    out
}

#[test]
fn socket_packets() {
    for whole in SOCKET_PACKETS {
        assert_eq!(rewrite(whole).as_deref(), Some(*whole), "{whole}");
        for cut in (0..=whole.len()).filter(|cut| whole.is_char_boundary(*cut)) {
            // A namespace may end with the packet, so some beginnings are packets, too.
            let _ = rewrite(&whole[..cut]).map(|again| assert_eq!(rewrite(&again).as_ref(), Some(&again)));
            let _ = rewrite(&whole[cut..]);
        }
    }
}

#[test]
fn socket_packets_changed_at_random() {
    let seeds: Vec<&[u8]> = SOCKET_PACKETS.iter().map(|packet| packet.as_bytes()).collect();
    let mut complete = 0;
    mutate(&seeds, b"0123456789-/,[]{}\":\\ un_aetrf.\n\xc3\xa9", 150_000, |changed| {
        let text = String::from_utf8_lossy(changed);
        if let Some(again) = rewrite(&text) {
            complete += 1;
            assert_eq!(rewrite(&again).as_ref(), Some(&again), "{text}");
        }
    });
    assert!(complete > 1000, "only {complete} were packets at all");
}

/// Reads a packet and writes it again; `None` if it is none, or an ACK that answers nothing. Checks that its parts are
/// what they are said to be.
fn rewrite(text: &str) -> Option<String> {
    let packet = socket::Packet::parse(text, &PacketLimits::default()).ok()?;
    let namespace = packet.namespace;
    assert!(namespace.starts_with('/') && !namespace.contains(','), "{text}: namespace {namespace}");
    let prefix = if namespace == "/" { String::new() } else { format!("{namespace},") };
    let mut out = Vec::new();
    match packet.kind {
        PacketKind::Connect { payload } => {
            out = format!("40{prefix}{}", payload.map_or("", |payload| payload.get())).into_bytes();
        }
        PacketKind::Disconnect => encode::write_disconnect(&mut out, namespace),
        PacketKind::ConnectError => return None,
        PacketKind::Event { name, args, ack_id, attachments } => {
            assert_eq!(args.iter().count() == 0, args.is_empty(), "{text}");
            let name: Cow<'_, str> = name;
            match attachments {
                0 => encode::write_event(&mut out, namespace, &name, ack_id, args.as_str()),
                count => encode::write_binary_event(&mut out, count, namespace, &name, ack_id, args.as_str()),
            }
        }
        PacketKind::Ack { id, args, attachments } => match attachments {
            0 => encode::write_ack(&mut out, namespace, id?, args.as_str()),
            count => encode::write_binary_ack(&mut out, count, namespace, id?, args.as_str()),
        },
    }
    // Without the Engine.IO type.
    Some(String::from_utf8(out).unwrap().split_off(1))
}

#[test]
fn heads() {
    let limits = HeadLimits::default();
    for whole in HEADS {
        let (head, used) = Head::parse(whole.as_bytes(), &limits).unwrap().unwrap();
        assert_eq!(used, whole.len());
        assert!(whole.contains(&format!("{} {} HTTP/1.", head.method(), head.target())));
        for cut in 0..whole.len() {
            assert!(matches!(Head::parse(&whole.as_bytes()[..cut], &limits), Ok(None)), "{whole:?} cut at {cut}");
            let _ = Head::parse(&whole.as_bytes()[cut..], &limits);
        }
        // What follows is somebody else's.
        let followed = format!("{whole}\x00\u{e9} whatever");
        let (_, used) = Head::parse(followed.as_bytes(), &limits).unwrap().unwrap();
        assert_eq!(used, whole.len());
    }
}

#[test]
fn heads_changed_at_random() {
    let seeds: Vec<&[u8]> = HEADS.iter().map(|head| head.as_bytes()).collect();
    let limits = HeadLimits { max_bytes: 512, max_headers: 8 };
    let mut complete = 0;
    let mut random = fastrand::Rng::with_seed(7);
    mutate(&seeds, b"\r\n\t :/?&%=*AGh1,;\x00\x7f\xff-", 100_000, |changed| {
        let cut = random.usize(..=changed.len());
        let whole = Head::parse(changed, &limits);
        match (Head::parse(&changed[..cut], &limits), &whole) {
            (Ok(None), _) => {}
            // Once it is complete, or wrong, more bytes change nothing.
            (Ok(Some((_, used))), Ok(Some((_, whole_used)))) => assert_eq!(used, *whole_used),
            (Err(error), Err(whole_error)) => assert_eq!(error, *whole_error, "{changed:?} cut at {cut}"),
            (begun, _) => {
                panic!("{:?} cut at {cut}: {:?}", String::from_utf8_lossy(changed), begun.map(|_| "complete"))
            }
        }
        if let Ok(Some((head, used))) = whole {
            complete += 1;
            assert!(used <= changed.len() && used <= limits.max_bytes + 4);
            assert!(matches!(Head::parse(&changed[..used - 1], &limits), Ok(None)), "{changed:?}");
            let _ = upgrade::websocket(&head);
            let _ = Intent::read(head.method(), head.query(), head.is_upgrade());
            let _ = (head.host(), head.query_param("sid"), head.keep_alive(), head.expects_continue());
        }
    });
    assert!(complete > 1000, "only {complete} were heads at all");
}

#[test]
fn bodies() {
    for (wire, data) in CHUNKED {
        let followed = [*wire, b"GET / HTTP/1.1"].concat();
        for first in 0..=wire.len() {
            for second in first..=wire.len() {
                let pieces = [&followed[..first], &followed[first..second], &followed[second..]];
                let (outcome, used, body) = decode_pieces(Framing::Chunked, &pieces);
                assert_eq!(
                    (outcome, used, body.as_slice()),
                    (Ok(true), wire.len(), *data),
                    "{wire:?} {first} {second}"
                );
            }
        }
    }
    for length in [0, 1, BODY_MAX_BYTES] {
        let followed = vec![b'x'; length + 3];
        for cut in 0..=length {
            let (outcome, used, body) =
                decode_pieces(Framing::Length(length as u64), &[&followed[..cut], &followed[cut..]]);
            assert_eq!((outcome, used, body.len()), (Ok(true), length, length));
        }
    }
    // The limit is on all chunks together, and holds before the data come.
    let half = format!("20\r\n{}\r\n", "x".repeat(BODY_MAX_BYTES / 2));
    let (outcome, _, body) = decode_pieces(Framing::Chunked, &[half.as_bytes(), half.as_bytes(), b"0\r\n\r\n"]);
    assert_eq!((outcome, body.len()), (Ok(true), BODY_MAX_BYTES));
    let (outcome, _, body) = decode_pieces(Framing::Chunked, &[half.as_bytes(), b"21\r\n"]);
    assert_eq!((outcome, body.len()), (Err(HttpError::BodyTooLarge { max_bytes: BODY_MAX_BYTES }), BODY_MAX_BYTES / 2));
    let too_long = BodyDecoder::new(Framing::Length(BODY_MAX_BYTES as u64 + 1), BODY_MAX_BYTES);
    assert_eq!(too_long.err(), Some(HttpError::BodyTooLarge { max_bytes: BODY_MAX_BYTES }));
}

#[test]
fn bodies_changed_at_random() {
    let seeds: Vec<&[u8]> = CHUNKED.iter().map(|(wire, _)| *wire).collect();
    let mut complete = 0;
    mutate(&seeds, b"0123456789abcdefF\r\n;: x=\t\x00\xff", 100_000, |changed| {
        let at_once = decode_pieces(Framing::Chunked, &[changed]);
        let byte_by_byte: Vec<_> = changed.chunks(1).collect();
        let (outcome, used, body) = decode_pieces(Framing::Chunked, &byte_by_byte);
        assert_eq!((outcome, &body), (at_once.0, &at_once.2), "{changed:?}");
        assert!(body.len() <= BODY_MAX_BYTES);
        if outcome == Ok(true) {
            complete += 1;
            assert_eq!(used, at_once.1);
        }
    });
    assert!(complete > 1000, "only {complete} were bodies at all");
}

/// Whether the body is complete, or what is wrong with it; how many bytes it took; its data.
fn decode_pieces(framing: Framing, pieces: &[&[u8]]) -> (Result<bool, HttpError>, usize, Vec<u8>) {
    let mut decoder = BodyDecoder::new(framing, BODY_MAX_BYTES).unwrap();
    let (mut body, mut used) = (Vec::new(), 0);
    for piece in pieces {
        match decoder.decode(piece, &mut body) {
            Ok(decoded) => {
                assert!(decoded.done || decoded.used == piece.len());
                assert_eq!(decoded.done, decoder.is_done());
                used += decoded.used;
            }
            Err(error) => {
                assert_eq!(decoder.decode(b"0\r\n\r\n", &mut Vec::new()), Err(error), "an error is for good");
                return (Err(error), used, body);
            }
        }
    }
    (Ok(decoder.is_done()), used, body)
}

/// Changes a seed in up to four places, `rounds` times: replaces, inserts, removes, doubles and cuts.
fn mutate(seeds: &[&[u8]], alphabet: &[u8], rounds: u64, mut check: impl FnMut(&[u8])) {
    let mut random = fastrand::Rng::with_seed(rounds);
    for _ in 0..rounds {
        let mut bytes = seeds[random.usize(..seeds.len())].to_vec();
        for _ in 0..random.usize(1..=4) {
            let at = random.usize(..=bytes.len());
            let byte = alphabet[random.usize(..alphabet.len())];
            match random.u8(..8) {
                0..=2 if at < bytes.len() => bytes[at] = byte,
                3 | 4 => bytes.insert(at, byte),
                5 if at < bytes.len() => drop(bytes.remove(at)),
                6 => {
                    let end = (at + random.usize(..8)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                7 if random.bool() => bytes.truncate(at),
                _ => {}
            }
        }
        check(&bytes);
    }
}
