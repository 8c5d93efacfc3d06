use serde_json::{Value as Json, json};

use super::*;
use crate::adapter::{
    MAX_ATTACHMENTS, MAX_DEPTH,
    msgpack::{json_to_msgpack, write_bin, write_f64, write_i64},
    test_support::{damage, hex, unhex, vectors},
};

const CAPTURED: &str = include_str!("../../../tests/fixtures/redis/classic-adapter.json");
const EMITTER: &str = include_str!("../../../tests/fixtures/redis/node-emitter.json");
const FOREIGN: &str = include_str!("../../../tests/fixtures/redis/classic-foreign-input.json");

impl<'a> Broadcast<'a> {
    fn decode(payload: &'a [u8]) -> Result<Self, FormatError> {
        peek(payload)?.decode(None)
    }
}

/// A captured PUBLISH.
struct Published {
    /// What was done, or the message itself for emitters.
    name: String,
    channel: String,
    payload: Vec<u8>,
    decoded: Json,
}

fn published(fixture: &str) -> Vec<Published> {
    let mut found = Vec::new();
    for vector in vectors(fixture, "vectors") {
        let own = [vector.clone()];
        for command in vector["redis"].as_array().map_or(&own[..], |commands| commands) {
            let Some(channel) = command["channel"].as_str() else { continue };
            let (payload, decoded) = match (command["hex"].as_str(), command["json"].as_str()) {
                (Some(hex), _) => (unhex(hex), command["decoded"].clone()),
                (_, Some(json)) => (json.as_bytes().to_vec(), serde_json::from_str(json).unwrap()),
                _ => panic!("{command}"),
            };
            let name = vector["op"].as_str().map_or_else(|| decoded.to_string(), str::to_owned);
            found.push(Published { name, channel: channel.to_owned(), payload, decoded });
        }
    }
    found
}

fn captured(kind: &str) -> Vec<Published> {
    let of_kind = |published: &Published| published.channel.starts_with(kind);
    [published(CAPTURED), published(EMITTER)].into_iter().flatten().filter(of_kind).collect()
}

/// `{"$bin": hex}` is how fixtures write bytes.
fn with_placeholders(value: &Json, attachments: &mut Vec<String>) -> Json {
    match value {
        Json::Object(fields) if fields.contains_key("$bin") => {
            attachments.push(fields["$bin"].as_str().unwrap().to_owned());
            json!({"_placeholder": true, "num": attachments.len() - 1})
        }
        Json::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), with_placeholders(value, attachments)));
            Json::Object(fields.collect())
        }
        Json::Array(values) => values.iter().map(|value| with_placeholders(value, attachments)).collect(),
        other => other.clone(),
    }
}

/// An event as the fixtures write its packet's data.
fn assert_event(event: &Event<'_>, data: &Json, name: &str) {
    let mut attachments = Vec::new();
    let expected = with_placeholders(data, &mut attachments);
    let found: Json = serde_json::from_str(&format!("[{}]", listed(event))).unwrap();
    assert_eq!(found, expected, "{name}");
    assert_eq!(event.args.attachments.iter().map(|bytes| hex(bytes)).collect::<Vec<_>>(), attachments, "{name}");
}

fn listed(event: &Event<'_>) -> String {
    let name = Json::from(&*event.name).to_string();
    if event.args.json.is_empty() { name } else { format!("{name},{}", event.args.json) }
}

/// Names as the fixtures write them: numbers are their digits.
fn names(value: &Json) -> Vec<String> {
    let name = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    value.as_array().map(|names| names.iter().map(name).collect()).unwrap_or_default()
}

#[test]
fn every_captured_broadcast_is_read() {
    let captured = captured("socket.io#");
    assert_eq!(captured.len(), 21);
    for Published { name, channel, payload, decoded } in captured {
        let broadcast = Broadcast::decode(&payload).unwrap();
        assert_eq!(broadcast.uid.as_deref(), decoded[0].as_str(), "{name}");
        assert_eq!(broadcast.namespace, decoded[1]["nsp"].as_str().unwrap(), "{name}");
        assert_event(&broadcast.event, &decoded[1]["data"], &name);
        assert_eq!(broadcast.rooms, names(&decoded[2]["rooms"]), "{name}");
        assert_eq!(broadcast.except, names(&decoded[2]["except"]), "{name}");
        let volatile = decoded[2]["flags"]["volatile"].as_bool().unwrap_or(false);
        assert_eq!(broadcast.flags, Flags { volatile, timeout_ms: None }, "{name}");
        assert_eq!(broadcast.meta, None, "{name}");
        assert_eq!(Channels::new("socket.io").rooms(&broadcast.namespace, &broadcast.rooms), channel, "{name}");
        let peeked = peek(&payload).unwrap();
        assert_eq!((peeked.uid, peeked.meta), (broadcast.uid.as_deref(), None), "{name}");
    }
}

/// But for what is lost on purpose: `compress`, dates, numbers as rooms.
#[test]
fn broadcasts_are_written_byte_for_byte_as_the_adapter_does() {
    let mut differ = Vec::new();
    for Published { name, payload, .. } in
        published(CAPTURED).into_iter().filter(|sent| sent.channel.starts_with("socket.io#"))
    {
        let encoded = Broadcast::decode(&payload).unwrap().encode().unwrap();
        if encoded != payload {
            differ.push((name, hex(&encoded)));
        }
    }
    let head = "93a63569354f6d4c83a47479706502a464617461";
    let tail = "a36e7370a12f83a5726f6f6d7390a665786365707490a5666c616773";
    let expected = [
        ("io.volatile.compress(false).emit", format!("{head}91a176{tail}81a8766f6c6174696c65c3")),
        (
            "Date",
            format!(
                "{head}93a464617465b8{}b8{}{tail}80",
                hex(b"2023-11-14T22:13:20.000Z"),
                hex(b"2023-11-14T22:13:20.123Z")
            ),
        ),
        ("numeric room", format!("{head}91a36e756da36e7370a12f83a5726f6f6d7391a23432a665786365707490a5666c61677380")),
    ];
    assert_eq!(differ, expected.map(|(name, hex)| (name.to_owned(), hex)));
}

/// `opts` are `rooms, flags, except` to the emitter and `rooms, except, flags` to the adapter. All else is the same.
#[test]
fn what_the_emitter_writes_differs_in_the_order_of_options_only() {
    for Published { name, payload, .. } in
        published(EMITTER).into_iter().filter(|sent| sent.channel.starts_with("socket.io#"))
    {
        let broadcast = Broadcast::decode(&payload).unwrap();
        let encoded = broadcast.encode().unwrap();
        let until_rooms = |bytes: &[u8]| hex(bytes).split_once("a5726f6f6d73").unwrap().0.to_owned();
        assert_eq!(until_rooms(&encoded), until_rooms(&payload), "{name}");
        assert_eq!(Broadcast::decode(&encoded).unwrap(), broadcast, "{name}");
    }
}

#[test]
fn every_captured_request_is_read() {
    let captured = captured("socket.io-request#");
    assert_eq!(captured.len(), 17);
    let mut types = Vec::new();
    for Published { name, payload, decoded, .. } in captured {
        let request = Request::decode(&payload).unwrap();
        assert_eq!(request.uid.as_deref(), decoded["uid"].as_str(), "{name}");
        let request_id = decoded["requestId"].as_str().map(str::to_owned);
        let selection =
            || Selection { rooms: names(&decoded["opts"]["rooms"]), except: names(&decoded["opts"]["except"]) };
        let expected = match decoded["type"].as_u64().unwrap() {
            1 => Ask::Rooms { request_id: request_id.unwrap() },
            2 => Ask::Join { sockets: Sockets::In(selection()), rooms: names(&decoded["rooms"]) },
            3 => Ask::Leave { sockets: Sockets::In(selection()), rooms: names(&decoded["rooms"]) },
            4 => Ask::Disconnect { sockets: Sockets::In(selection()), close: decoded["close"].as_bool().unwrap() },
            5 => Ask::Fetch { request_id: request_id.unwrap(), sockets: selection() },
            kind => match &request.ask {
                Ask::Emit { event, request_id: id } => {
                    assert_event(event, &decoded["data"], &name);
                    assert_eq!((kind, id), (6, &request_id), "{name}");
                    request.ask.clone()
                }
                Ask::Broadcast { request_id: id, broadcast } => {
                    assert_eq!((kind, id), (7, &request_id.unwrap()), "{name}");
                    assert_event(&broadcast.event, &decoded["packet"]["data"], &name);
                    assert_eq!(broadcast.namespace, "/");
                    assert_eq!(broadcast.rooms, selection().rooms, "{name}");
                    assert_eq!(broadcast.flags, Flags { volatile: false, timeout_ms: Some(2500) }, "{name}");
                    request.ask.clone()
                }
                other => panic!("{name}: {other:?}"),
            },
        };
        assert_eq!(request.ask, expected, "{name}");
        types.push(decoded["type"].as_u64().unwrap());
    }
    types.sort_unstable();
    types.dedup();
    assert_eq!(types, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn responses_are_written_byte_for_byte_as_the_adapter_does() {
    let captured = captured("socket.io-response#");
    assert_eq!(captured.len(), 8);
    for Published { name, payload, decoded, .. } in captured {
        let one = |json: &Json| Event::new("", json.to_string()).args.into_owned();
        let reply = match (decoded["type"].as_u64(), decoded["sockets"].as_array()) {
            (Some(6), _) => Reply::Emitted(one(&decoded["data"])),
            (Some(8), _) => Reply::ClientCount(decoded["clientCount"].as_u64().unwrap()),
            (Some(9), _) => Reply::Ack(one(&decoded["packet"])),
            (_, Some(sockets)) => Reply::Fetched(sockets.iter().map(|socket| remote(socket, &payload)).collect()),
            _ => Reply::Rooms(names(&decoded["rooms"])),
        };
        let response = Response { request_id: decoded["requestId"].as_str().unwrap().to_owned(), reply };
        let written = response.encode().unwrap();
        assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&payload), "{name}");
        assert_eq!(written, payload, "{name}");
    }
}

/// A socket of a response. Its handshake is as it stands there: the parser has sorted its keys.
fn remote(socket: &Json, payload: &[u8]) -> RemoteSocket {
    let text = str::from_utf8(payload).unwrap();
    let behind = text.split_once("\"handshake\":").unwrap().1;
    let handshake = behind.split_once(",\"rooms\":").unwrap().0.to_owned();
    assert_eq!(serde_json::from_str::<Json>(&handshake).unwrap(), socket["handshake"]);
    RemoteSocket {
        id: socket["id"].as_str().unwrap().to_owned(),
        handshake,
        rooms: names(&socket["rooms"]),
        data: socket["data"].to_string(),
    }
}

/// Where Node delivers, so do we; where it breaks, or breaks its clients, the message is refused.
#[test]
fn foreign_input_is_taken_as_node_takes_it_but_for_what_breaks_node() {
    let mut counts = (0, 0);
    for case in vectors(FOREIGN, "cases") {
        if !case["send"].is_array() {
            continue;
        }
        let mut attachments = Vec::new();
        let sent = with_placeholders(&case["send"], &mut attachments).to_string();
        let attachments: Vec<_> = attachments.iter().map(|bytes| Cow::Owned(unhex(bytes))).collect();
        let mut payload = Vec::new();
        write_values(&mut payload, &sent, &attachments).unwrap();
        let decoded = Broadcast::decode(&payload);
        let result = case["result"].as_str().unwrap();
        if result.starts_with("throws") || result.starts_with("every matching client is disconnected") {
            assert!(decoded.is_err(), "{case}");
            counts.1 += 1;
        } else {
            let decoded = decoded.unwrap();
            assert_eq!(listed(&decoded.event), format!("\"m\",{}", case["send"][1]["data"][1]), "{case}");
            assert_eq!(decoded.namespace, "/");
            assert_eq!(decoded.rooms, names(&case["send"][2]["rooms"]));
            counts.0 += 1;
        }
    }
    assert_eq!(counts, (10, 3));
}

/// A broadcast from JSON text, with attachments for its placeholders.
fn from_json(json: &str) -> Result<Broadcast<'static>, FormatError> {
    let mut payload = Vec::new();
    write_values(&mut payload, json, &[]).unwrap();
    Broadcast::decode(&payload).map(|broadcast| Broadcast {
        uid: broadcast.uid.map(|uid| own(uid).into()),
        namespace: own(broadcast.namespace).into(),
        event: broadcast.event.into_owned(),
        rooms: broadcast.rooms.into_iter().map(|room| own(room).into()).collect(),
        except: broadcast.except.into_iter().map(|room| own(room).into()).collect(),
        flags: broadcast.flags,
        meta: None,
    })
}

#[test]
fn a_refusal_names_what_was_expected() {
    const PARTS: &str = "an array of uid, packet and options";
    const DATA: &str = "packet.data: an array that begins with the name of an event";
    const ROOMS: &str = "opts.rooms: an array of strings or numbers";
    const EXCEPT: &str = "opts.except: an array of strings or numbers";
    let cases = [
        ("null", PARTS),
        ("{}", PARTS),
        ("[]", PARTS),
        (r#"["x",{"type":2,"data":["m"]}]"#, PARTS),
        (r#"["x",null,{}]"#, "packet: a map"),
        (r#"["x",[2,["m",9],"/"],{}]"#, "packet: a map"),
        (r#"["x",{"data":["m"]},{}]"#, "packet.type: 2"),
        (r#"["x",{"type":5,"data":["m"]},{}]"#, "packet.type: 2"),
        (r#"["x",{"type":3,"data":["m"]},{}]"#, "packet.type: 2"),
        (r#"["x",{"type":2.5,"data":["m"]},{}]"#, "packet.type: 2"),
        (r#"["x",{"type":"2","data":["m"]},{}]"#, "packet.type: 2"),
        (r#"["x",{"type":[2],"data":["m"]},{}]"#, "packet.type: 2"),
        (r#"["x",{"type":2},{}]"#, DATA),
        (r#"["x",{"type":2,"data":null},{}]"#, DATA),
        (r#"["x",{"type":2,"data":"m"},{}]"#, DATA),
        (r#"["x",{"type":2,"data":{}},{}]"#, DATA),
        (r#"["x",{"type":2,"data":[]},{}]"#, DATA),
        (r#"["x",{"type":2,"data":[1]},{}]"#, DATA),
        (r#"["x",{"type":2,"data":[["m"]]},{}]"#, DATA),
        (r#"["x",{"type":2,"data":["m"],"nsp":null},{}]"#, "packet.nsp: a string"),
        (r#"["x",{"type":2,"data":["m"],"nsp":1},{}]"#, "packet.nsp: a string"),
        (r#"["x",{"type":2,"data":["m"]},null]"#, "opts: a map"),
        (r#"["x",{"type":2,"data":["m"]},[]]"#, "opts: a map"),
        (r#"["x",{"type":2,"data":["m"]},{"rooms":"r"}]"#, ROOMS),
        (r#"["x",{"type":2,"data":["m"]},{"rooms":{}}]"#, ROOMS),
        (r#"["x",{"type":2,"data":["m"]},{"rooms":1}]"#, ROOMS),
        // Left out, it would make this a message for everybody.
        (r#"["x",{"type":2,"data":["m"]},{"rooms":[null]}]"#, ROOMS),
        (r#"["x",{"type":2,"data":["m"]},{"rooms":[true]}]"#, ROOMS),
        (r#"["x",{"type":2,"data":["m"]},{"rooms":[["r"]]}]"#, ROOMS),
        (r#"["x",{"type":2,"data":["m"]},{"rooms":[1e999]}]"#, ROOMS),
        (r#"["x",{"type":2,"data":["m"]},{"except":[{}]}]"#, EXCEPT),
        (r#"["x",{"type":2,"data":["m"]},{"except":false}]"#, EXCEPT),
    ];
    for (json, expected) in cases {
        assert_eq!(from_json(json).unwrap_err(), FormatError::Expected(expected), "{json}");
    }
    for (payload, expected) in [
        ("c0".to_owned(), FormatError::Expected(PARTS)),
        ("c1".to_owned(), FormatError::UnusedByte),
        (String::new(), FormatError::Truncated),
        (hex(br#"["x",{"type":2,"data":["m"],"nsp":"/"},{}]"#), FormatError::Expected(PARTS)),
    ] {
        assert_eq!(Broadcast::decode(&unhex(&payload)).unwrap_err(), expected, "{payload}");
        assert_eq!(peek(&unhex(&payload)).unwrap_err(), expected, "{payload}");
    }
}

#[test]
fn whatever_node_tolerates_is_read() {
    let plain = from_json(r#"["x",{"type":2,"data":["m",1],"nsp":"/"},{"rooms":[],"except":[],"flags":{}}]"#).unwrap();
    for json in [
        r#"["x",{"type":2,"data":["m",1]},{}]"#,
        r#"["x",{"nsp":"/","data":["m",1],"type":2},{"flags":{},"rooms":[],"except":[]}]"#,
        r#"["x",{"type":2,"data":["m",1],"nsp":"/","id":5,"options":{}},{"rooms":null,"except":null,"flags":null,"more":[{}]}]"#,
        r#"["x",{"type":2,"data":["m",1],"nsp":"/"},{"flags":{"compress":true,"local":false,"volatile":false,"timeout":null}}]"#,
        r#"["x",{"type":2,"data":["m",1],"nsp":"/"},{"flags":7}]"#,
        r#"["x",{"type":2,"data":["m",1],"nsp":"/"},{"flags":{"volatile":1,"timeout":-1}}]"#,
        r#"["x",{"type":2,"data":["m",1],"nsp":"/"},{},null,[{}],7]"#,
        r#"["x",{"type":5,"type":2,"data":["m",1],"nsp":"/"},{}]"#,
    ] {
        assert_eq!(from_json(json).unwrap(), plain, "{json}");
    }
    // The type as a float; an undefined namespace; keys that are no strings.
    let payload =
        unhex("93a178 84a474797065cb4000000000000000a46461746192a16d01a36e7370d40000c001 81a5666c616773d40000");
    assert_eq!(Broadcast::decode(&payload).unwrap(), plain);
    for uid in ["7", "null", "true", "[1]", "{}", "1.5"] {
        let json = format!(r#"[{uid},{{"type":2,"data":["m",1],"nsp":"/"}},{{}}]"#);
        assert_eq!(from_json(&json).unwrap(), Broadcast { uid: None, ..plain.clone() }, "{json}");
    }
    let named =
        from_json(r#"["x",{"type":2,"data":["m"]},{"rooms":[42,"a",-1,1.5,1e21,"","a#b"],"except":[4294967296]}]"#)
            .unwrap();
    assert_eq!(named.rooms, ["42", "a", "-1", "1.5", "1e+21", "", "a#b"]);
    assert_eq!(named.except, ["4294967296"]);
    assert_eq!(named.event, Event::new("m", ""));
    let flags =
        from_json(r#"["x",{"type":2,"data":["m"]},{"flags":{"volatile":true,"timeout":2500.0}}]"#).unwrap().flags;
    assert_eq!(flags, Flags { volatile: true, timeout_ms: Some(2500) });
}

fn example() -> Broadcast<'static> {
    Broadcast {
        uid: Some("abc-_9".into()),
        namespace: "/".into(),
        event: Event::new("chat_message", r#"{"text":"é","n":[1,null]}"#),
        rooms: vec!["42".into()],
        except: vec![],
        flags: Flags::default(),
        meta: None,
    }
}

#[test]
fn the_fourth_element_is_ours() {
    let meta =
        Meta { seq: Some(70_000), epoch: Some("abcdEFGH"), kind: Some(4), json: Some("{\"a\":1}"), control: None };
    let broadcast = Broadcast { meta: Some(meta), ..example() };
    let payload = broadcast.encode().unwrap();
    assert_eq!(Broadcast::decode(&payload).unwrap(), broadcast);
    let peeked = peek(&payload).unwrap();
    assert_eq!((peeked.uid, peeked.meta), (Some("abc-_9"), Some(meta)));
    let args = r#"{"a":1}"#;
    let other = Broadcast { event: Event::new("chat_message", args), ..broadcast };
    assert_eq!(peeked.decode(Some(args)).unwrap(), other, "its own arguments are not looked at");
    let control = Meta { control: Some("x"), ..Meta::default() };
    for meta in [Meta::default(), control, Meta { seq: Some(u64::MAX), ..control }] {
        let payload = Broadcast { meta: Some(meta), ..example() }.encode().unwrap();
        assert_eq!(peek(&payload).unwrap().meta, Some(meta));
    }
}

#[test]
fn of_meta_only_what_is_of_the_right_type_is_taken() {
    let cases = [
        ("[]", None),
        ("null", None),
        ("7", None),
        (r#""s""#, None),
        ("{}", Some(Meta::default())),
        (r#"{"o":5,"e":"abcdEFGH"}"#, Some(Meta { epoch: Some("abcdEFGH"), ..Meta::default() })),
        (r#"{"s":5.0,"k":0.0}"#, Some(Meta { seq: Some(5), kind: Some(0), ..Meta::default() })),
        (r#"{"s":-1,"k":-1,"e":1,"j":{},"c":[]}"#, Some(Meta::default())),
        (r#"{"s":"5","k":256,"e":null,"j":true,"c":1.5}"#, Some(Meta::default())),
        (r#"{"s":1.5,"k":255}"#, Some(Meta { kind: Some(255), ..Meta::default() })),
        (r#"{"s":1,"s":2,"ss":3,"":4}"#, Some(Meta { seq: Some(2), ..Meta::default() })),
    ];
    for (json, expected) in cases {
        let mut payload = unhex("95a178c0c0");
        write_values(&mut payload, json, &[]).unwrap();
        write_nil(&mut payload);
        assert_eq!(peek(&payload).unwrap().meta, expected, "{json}");
    }
    for not_utf8 in ["a16aa1ff", "a165a1ff", "a163c40161"] {
        let payload = unhex(&format!("94a178c0c081{not_utf8}"));
        assert_eq!(peek(&payload).unwrap().meta, Some(Meta::default()), "{not_utf8}");
    }
}

/// It is made for what our own instances send: the packet is not even looked at.
#[test]
fn peeking_asks_for_nothing_but_an_array_that_is_whole() {
    for (bytes, expected) in [
        ("93c0c0c0", Ok(None)),
        ("93a161c0c0", Ok(Some("a"))),
        ("93a1ff0102", Ok(None)),
        ("93c4016180 90", Ok(None)),
        ("dc0003a161c0c0", Ok(Some("a"))),
        ("92a161c0", Err(FormatError::Expected("an array of uid, packet and options"))),
        ("93a161c0", Err(FormatError::Truncated)),
        ("93a161c0c0c0", Err(FormatError::Trailing)),
        ("94a161c0c080 c0", Err(FormatError::Trailing)),
        ("94a161c0c081", Err(FormatError::Truncated)),
        ("93a161c1c0", Err(FormatError::UnusedByte)),
    ] {
        assert_eq!(
            peek(&unhex(bytes)).map(|peeked| peeked.uid.map(str::to_owned)),
            expected.map(|uid| uid.map(str::to_owned)),
            "{bytes}"
        );
    }
}

#[test]
fn parts_argument_and_meta_are_a_broadcast() {
    let argument = r#"{"text":"é","n":[1,null]}"#;
    let meta = Meta { seq: Some(1), epoch: Some("e"), kind: Some(0), json: Some(argument), control: None };
    for rooms in [&["42"][..], &[], &["a", "b"]] {
        let (mut payload, tail) = broadcast_parts("abc-_9", "/", "chat_message", rooms);
        json_to_msgpack(argument, &mut payload).unwrap();
        payload.extend_from_slice(&tail);
        meta.write(&mut payload);
        let rooms = rooms.iter().map(|room| (*room).into()).collect();
        let expected = Broadcast { rooms, meta: Some(meta), ..example() };
        assert_eq!(payload, expected.encode().unwrap());
        assert_eq!(Broadcast::decode(&payload).unwrap(), expected);
    }
}

#[test]
fn arguments_and_attachments_come_back_the_same() {
    let args = [
        ("", vec![]),
        ("1", vec![]),
        ("1,\"a\",null,{},[]", vec![]),
        (r#"{"_placeholder":true,"num":0}"#, vec![vec![1, 2]]),
        (r#"{"a":[{"_placeholder":true,"num":0}]},{"_placeholder":true,"num":1}"#, vec![vec![], vec![0xff; 300]]),
    ];
    for (json, attachments) in args {
        let mut broadcast = example();
        broadcast.event.args =
            Values { json: json.into(), attachments: attachments.into_iter().map(Cow::Owned).collect() };
        let payload = broadcast.encode().unwrap();
        assert_eq!(Broadcast::decode(&payload).unwrap(), broadcast, "{json}");
    }
    for json in ["1,", ",1", "1 2", "]", "x", "[", "1],[2"] {
        let broadcast = Broadcast { event: Event::new("a", json), ..example() };
        assert_eq!(broadcast.encode(), Err(FormatError::NotJson), "{json}");
        let reply = Reply::Emitted(Event::new("a", json).args);
        assert_eq!(Response { request_id: String::new(), reply }.encode(), Err(FormatError::NotJson), "{json}");
    }
}

#[test]
fn channels_are_named_as_the_adapter_names_them() {
    let channels = Channels::new("socket.io");
    let cases = [
        (channels.namespace("/"), "socket.io#/#"),
        (channels.namespace("/chat"), "socket.io#/chat#"),
        (channels.room("/chat", "lobby"), "socket.io#/chat#lobby#"),
        (channels.room("/", "a#b"), "socket.io#/#a#b#"),
        (channels.rooms("/", &["user:42"]), "socket.io#/#user:42#"),
        (channels.rooms("/", &["a", "b"]), "socket.io#/#"),
        (channels.rooms::<&str>("/", &[]), "socket.io#/#"),
        (channels.request("/chat"), "socket.io-request#/chat#"),
        (channels.response("/"), "socket.io-response#/#"),
        (channels.response_to("/chat", "5i5OmL"), "socket.io-response#/chat#5i5OmL#"),
        (Channels::new("a").room("/", "r"), "a#/#r#"),
    ];
    for (name, expected) in cases {
        assert_eq!(name, expected);
    }
}

/// As 8.3.0 subscribes to them.
#[test]
fn captured_channels_have_these_names() {
    let channels = Channels::new("socket.io");
    for command in vectors(CAPTURED, "subscribe") {
        if command[0] == "subscribe" {
            let uid = command[3].as_str().unwrap().rsplit('#').nth(1).unwrap();
            let namespace = command[1].as_str().unwrap().split('#').nth(1).unwrap();
            assert_eq!(command[1], channels.request(namespace));
            assert_eq!(command[2], channels.response(namespace));
            assert_eq!(command[3], channels.response_to(namespace, uid));
        } else {
            let pattern = command[1].as_str().unwrap();
            let namespace = pattern.split('#').nth(1).unwrap();
            assert_eq!(pattern.strip_suffix('*').unwrap(), channels.namespace(namespace));
        }
    }
}

fn request(json: &str) -> Result<Ask, FormatError> {
    let read = Request::decode(json.as_bytes()).map(|request| request.ask);
    let mut transcoded = Vec::new();
    json_to_msgpack(json, &mut transcoded).unwrap();
    assert_eq!(Request::decode(&transcoded).map(|request| request.ask), read, "{json} as MessagePack");
    read
}

#[test]
fn requests_of_all_versions_are_read() {
    let one = |request_id: Option<&str>| Sockets::One { sid: "s".into(), request_id: request_id.map(str::to_owned) };
    let all = || Sockets::In(Selection::default());
    let cases = [
        (
            r#"{"type":0,"uid":"u","requestId":"q","rooms":["a",1]}"#,
            Ask::Sockets { request_id: "q".into(), rooms: vec!["a".into(), "1".into()] },
        ),
        (r#"{"type":0,"requestId":"q"}"#, Ask::Sockets { request_id: "q".into(), rooms: vec![] }),
        (r#"{"type":1.0,"requestId":7}"#, Ask::Rooms { request_id: "7".into() }),
        (
            r#"{"type":2,"sid":"s","room":"legacy","requestId":"q1"}"#,
            Ask::Join { sockets: one(Some("q1")), rooms: vec!["legacy".into()] },
        ),
        (r#"{"type":3,"sid":"s","room":5,"opts":null}"#, Ask::Leave { sockets: one(None), rooms: vec!["5".into()] }),
        (r#"{"type":4,"sid":"s","close":true,"requestId":null}"#, Ask::Disconnect { sockets: one(None), close: true }),
        (r#"{"type":4,"opts":{}}"#, Ask::Disconnect { sockets: all(), close: false }),
        (r#"{"type":4,"opts":{"rooms":null},"close":1}"#, Ask::Disconnect { sockets: all(), close: false }),
        (
            r#"{"type":2,"opts":{},"rooms":["r"],"sid":"ignored"}"#,
            Ask::Join { sockets: all(), rooms: vec!["r".into()] },
        ),
        (
            r#"{"type":5,"requestId":"q","opts":{"flags":{}}}"#,
            Ask::Fetch { request_id: "q".into(), sockets: Selection::default() },
        ),
        (r#" {"type":6,"data":["e"]}"#.trim(), Ask::Emit { request_id: None, event: Event::new("e", "") }),
        (
            r#"{"type":6,"data":["e",{"a":1},2],"requestId":"q"}"#,
            Ask::Emit { request_id: Some("q".into()), event: Event::new("e", r#"{"a":1},2"#) },
        ),
        (
            r#"{"type":7,"requestId":"q","packet":{"type":2,"data":["e"]},"opts":{}}"#,
            Ask::Broadcast {
                request_id: "q".into(),
                broadcast: Box::new(Broadcast {
                    namespace: "/".into(),
                    event: Event::new("e", ""),
                    ..Broadcast::default()
                }),
            },
        ),
    ];
    for (json, expected) in cases {
        assert_eq!(request(json).as_ref(), Ok(&expected), "{json}");
    }
    for uid in ["7", "null", "{}", "[]"] {
        let json = format!(r#"{{"type":1,"requestId":"q","uid":{uid}}}"#);
        assert_eq!(Request::decode(json.as_bytes()).unwrap().uid, None, "{json}");
    }
}

#[test]
fn requests_that_would_break_node_are_refused() {
    const KIND: &str = "type: from 0 to 7";
    const ID: &str = "requestId: a string";
    const DATA: &str = "data: an array that begins with the name of an event";
    let cases = [
        ("{}", KIND),
        (r#"{"type":8,"requestId":"q"}"#, KIND),
        (r#"{"type":"1","requestId":"q"}"#, KIND),
        (r#"{"type":-1,"requestId":"q"}"#, KIND),
        (r#"{"type":0}"#, ID),
        (r#"{"type":1}"#, ID),
        (r#"{"type":1,"requestId":null}"#, ID),
        (r#"{"type":1,"requestId":{}}"#, ID),
        (r#"{"type":2,"rooms":["r"]}"#, "opts, or sid: a string"),
        (r#"{"type":2,"opts":7,"rooms":["r"]}"#, "opts: a map"),
        (r#"{"type":2,"opts":{}}"#, "rooms: an array of strings or numbers"),
        (r#"{"type":2,"opts":{},"rooms":[]}"#, "rooms: an array of strings or numbers"),
        (r#"{"type":3,"opts":{},"rooms":"r"}"#, "rooms: an array of strings or numbers"),
        (r#"{"type":3,"opts":{"rooms":[null]},"rooms":["r"]}"#, "opts.rooms: an array of strings or numbers"),
        (r#"{"type":2,"sid":"s"}"#, "room: a string or number"),
        (r#"{"type":4}"#, "opts, or sid: a string"),
        (r#"{"type":5,"requestId":"q1"}"#, "opts: a map"),
        (r#"{"type":5,"requestId":"q1","opts":null}"#, "opts: a map"),
        (r#"{"type":5,"opts":{}}"#, ID),
        (r#"{"type":6}"#, DATA),
        (r#"{"type":6,"data":"e"}"#, DATA),
        (r#"{"type":6,"data":[]}"#, DATA),
        (r#"{"type":6,"data":[1]}"#, DATA),
        (r#"{"type":7,"requestId":"q","opts":{}}"#, "packet: a map"),
        (r#"{"type":7,"requestId":"q","packet":{"type":5,"data":["e"]},"opts":{}}"#, "packet.type: 2"),
        (r#"{"type":7,"requestId":"q","packet":{"type":2,"data":["e"]}}"#, "opts: a map"),
        (r#"{"type":7,"packet":{"type":2,"data":["e"]},"opts":{}}"#, ID),
    ];
    for (json, expected) in cases {
        assert_eq!(request(json), Err(FormatError::Expected(expected)), "{json}");
    }
    for (payload, expected) in [
        (&b"{bad"[..], FormatError::NotJson),
        (b"{}x", FormatError::NotJson),
        (b"[]", FormatError::Expected("a map")),
        (b"", FormatError::Truncated),
        (b"\x90", FormatError::Expected("a map")),
        (b"\x80\x80", FormatError::Trailing),
    ] {
        assert_eq!(Request::decode(payload).unwrap_err(), expected, "{payload:?}");
    }
}

#[test]
fn every_kind_of_reply_is_written() {
    let values = |json: &str| Event::new("", json.to_owned()).args.into_owned();
    let socket = |handshake: &str, data: &str| {
        let (id, rooms) = ("a".to_owned(), vec!["a".to_owned(), "1".to_owned()]);
        RemoteSocket { id, handshake: handshake.into(), rooms, data: data.into() }
    };
    let cases = [
        (Reply::Done, r#"{"requestId":"q"}"#),
        (Reply::Sockets(vec!["a".into(), "b".into()]), r#"{"requestId":"q","sockets":["a","b"]}"#),
        (Reply::Sockets(vec![]), r#"{"requestId":"q","sockets":[]}"#),
        (Reply::Fetched(vec![]), r#"{"requestId":"q","sockets":[]}"#),
        (
            Reply::Fetched(vec![socket(r#"{"t":[1.5]}"#, "null"), socket("{}", "{}")]),
            r#"{"requestId":"q","sockets":[{"id":"a","handshake":{"t":[1.5]},"rooms":["a","1"],"data":null},{"id":"a","handshake":{},"rooms":["a","1"],"data":{}}]}"#,
        ),
        (Reply::Rooms(vec!["a".into(), "1".into()]), r#"{"requestId":"q","rooms":["a","1"]}"#),
        (Reply::Emitted(values(r#"{"a":1}"#)), r#"{"type":6,"requestId":"q","data":{"a":1}}"#),
        (Reply::ClientCount(3), r#"{"type":8,"requestId":"q","clientCount":3}"#),
    ];
    for (reply, expected) in cases {
        let written = Response { request_id: "q".into(), reply }.encode().unwrap();
        assert_eq!(String::from_utf8_lossy(&written), expected);
    }
    for socket in [socket("{", "{}"), socket("{}", "1,2"), socket("", "{}")] {
        let response = Response { request_id: "q".into(), reply: Reply::Fetched(vec![socket]) };
        assert_eq!(response.encode(), Err(FormatError::NotJson));
    }
}

#[test]
fn acks_and_binary_answers_are_messagepack() {
    let args = || Values { json: r#"{"_placeholder":true,"num":0}"#.into(), attachments: vec![Cow::Owned(vec![7])] };
    let written = |reply: Reply| Response { request_id: "q".into(), reply }.encode();
    let packed = |kind: u8, key: &str, value: &str| {
        let head = format!("83a474797065{kind:02x}a9{}a171", hex(b"requestId"));
        Ok(unhex(&format!("{head}{:02x}{}{value}", 0xa0 | key.len(), hex(key.as_bytes()))))
    };
    assert_eq!(written(Reply::Emitted(args())), packed(6, "data", "c40107"));
    assert_eq!(written(Reply::Ack(args())), packed(9, "packet", "c40107"));
    for (json, value) in [("null", "c0"), ("[1]", "9101")] {
        let values = Values { json: json.into(), attachments: vec![] };
        assert_eq!(written(Reply::Ack(values)), packed(9, "packet", value));
    }
    for json in ["", "1,2"] {
        let values = Values { json: json.into(), attachments: vec![] };
        assert_eq!(written(Reply::Ack(values)), Err(FormatError::Expected("one value")), "{json}");
    }
    let broken = Values { json: "1".into(), ..args() };
    assert!(written(Reply::Emitted(broken)).is_ok());
}

#[test]
fn emits_with_attachments_are_read() {
    let payload = unhex("82a47479706506a46461746192a165c40107");
    let Ask::Emit { request_id: None, event } = Request::decode(&payload).unwrap().ask else { panic!() };
    let args = Values { json: r#"{"_placeholder":true,"num":0}"#.into(), attachments: vec![Cow::Owned(vec![7])] };
    assert_eq!(event, Event { name: "e".into(), args });
}

/// A value of each kind of limit: what fits, and what is one more.
#[test]
fn every_limit_holds_at_it_and_one_past_it() {
    let rooms = |count: usize| (0..count).map(|room| room.to_string().into()).collect::<Vec<Cow<'static, str>>>();
    let decoded = |broadcast: &Broadcast<'_>| Broadcast::decode(&broadcast.encode().unwrap()).map(|_| ());
    let too_many = |what: &'static str| Err(FormatError::TooMany(what));
    let too_large = |max_bytes| Err(FormatError::TooLarge { max_bytes });

    assert_eq!(decoded(&Broadcast { rooms: rooms(MAX_NAMES), except: rooms(MAX_NAMES), ..example() }), Ok(()));
    let more = Broadcast { rooms: rooms(MAX_NAMES + 1), ..example() };
    assert_eq!(decoded(&more), too_many("opts.rooms: an array of strings or numbers"));
    let more = Broadcast { except: rooms(MAX_NAMES + 1), ..example() };
    assert_eq!(decoded(&more), too_many("opts.except: an array of strings or numbers"));

    let long = |length: usize| "é".repeat(length / 2);
    for set in [
        |broadcast: &mut Broadcast<'_>, name: String| broadcast.namespace = name.into(),
        |broadcast: &mut Broadcast<'_>, name: String| broadcast.event.name = name.into(),
        |broadcast: &mut Broadcast<'_>, name: String| broadcast.rooms = vec![name.into()],
        |broadcast: &mut Broadcast<'_>, name: String| broadcast.except = vec![name.into()],
    ] {
        let mut broadcast = example();
        set(&mut broadcast, long(MAX_NAME_BYTES));
        assert_eq!(decoded(&broadcast), Ok(()));
        set(&mut broadcast, long(MAX_NAME_BYTES) + "x");
        assert_eq!(decoded(&broadcast), too_large(MAX_NAME_BYTES));
    }

    let args = |json: String| Broadcast { event: Event::new("e", json), ..example() };
    assert_eq!(decoded(&args(format!("1,\"{}\"", "x".repeat(MAX_JSON_BYTES - 4)))), Ok(()));
    assert_eq!(decoded(&args(format!("1,\"{}\"", "x".repeat(MAX_JSON_BYTES - 3)))), too_large(MAX_JSON_BYTES));
    assert_eq!(decoded(&args(format!("1,{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)))), Ok(()));
    let deeper = format!("1,{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
    assert_eq!(decoded(&args(deeper)), Err(FormatError::TooDeep));

    let attached = |count: usize, bytes: usize| {
        let json =
            (0..count).map(|num| format!("{{\"_placeholder\":true,\"num\":{num}}}")).collect::<Vec<_>>().join(",");
        let attachments = vec![Cow::Owned(vec![0; bytes]); count];
        Broadcast { event: Event { name: "e".into(), args: Values { json: json.into(), attachments } }, ..example() }
    };
    assert_eq!(decoded(&attached(MAX_ATTACHMENTS, 1)), Ok(()));
    assert_eq!(decoded(&attached(MAX_ATTACHMENTS + 1, 1)), Err(FormatError::TooManyAttachments));

    let around = attached(1, 1 << 20).encode().unwrap().len() - (1 << 20);
    let full = attached(1, MAX_MESSAGE_BYTES - around);
    assert_eq!(full.encode().unwrap().len(), MAX_MESSAGE_BYTES);
    assert_eq!(decoded(&full), Ok(()));
    assert_eq!(decoded(&attached(1, MAX_MESSAGE_BYTES - around + 1)), too_large(MAX_MESSAGE_BYTES));
    let over = vec![0xc0; MAX_MESSAGE_BYTES + 1];
    assert_eq!(peek(&over).unwrap_err(), FormatError::TooLarge { max_bytes: MAX_MESSAGE_BYTES });
    assert_eq!(Request::decode(&over), too_large(MAX_MESSAGE_BYTES).map(|()| unreachable!()));

    let asked = |json: Json| Request::decode(json.to_string().as_bytes()).map(|_| ());
    let join = |count: usize| asked(json!({"type": 2, "opts": {}, "rooms": vec!["r"; count]}));
    assert_eq!(join(MAX_NAMES), Ok(()));
    assert_eq!(join(MAX_NAMES + 1), too_many("rooms: an array of strings or numbers"));
    let id = |length: usize| asked(json!({"type": 1, "requestId": "x".repeat(length)}));
    assert_eq!(id(MAX_NAME_BYTES), Ok(()));
    assert_eq!(id(MAX_NAME_BYTES + 1), too_large(MAX_NAME_BYTES));
}

#[test]
fn damaged_payloads_are_read_without_harm() {
    let mut read = (0, 0);
    let meta = Meta { seq: Some(5), epoch: Some("e"), kind: Some(0), json: Some("{}"), control: Some("c") };
    let own = Broadcast { meta: Some(meta), ..example() }.encode().unwrap();
    let all = published(CAPTURED).into_iter().chain(published(EMITTER)).map(|sent| sent.payload).chain([own]);
    for (seed, payload) in all.enumerate() {
        damage(&payload, seed as u64, |damaged| {
            let broadcast = Broadcast::decode(damaged);
            let peeked = peek(damaged);
            if let Ok(broadcast) = broadcast {
                // What can be decoded can be peeked at, and written again.
                let peeked = peeked.unwrap();
                assert_eq!((peeked.uid, peeked.meta), (broadcast.uid.as_deref(), broadcast.meta));
                let written = broadcast.encode().unwrap();
                let again = Broadcast::decode(&written).unwrap();
                assert_eq!(again.rooms, broadcast.rooms);
                let args: Json = serde_json::from_str(&format!("[{}]", broadcast.event.args.json)).unwrap();
                assert!(args.is_array());
                read.0 += 1;
            }
            read.1 += usize::from(Request::decode(damaged).is_ok());
        });
    }
    // Most damage is within texts.
    assert!(read.0 > 1000 && read.1 > 1000, "{read:?}");
}

/// Announced lengths in every place of a broadcast.
#[test]
fn announced_sizes_are_not_believed() {
    for bomb in ["ddffffffff", "dfffffffff", "dbffffffff", "c6ffffffff", "c9ffffffff00", "dcffff", "deffff"] {
        for place in [
            "",
            "93",
            "93a178",
            "93a17883a47479706502a464617461",
            "93a178c0",
            "93a178c081a5726f6f6d73",
            "94a178c0c0",
            "94a178c0c081a16a",
        ] {
            let payload = unhex(&format!("{place}{bomb}"));
            assert_eq!(Broadcast::decode(&payload).unwrap_err(), FormatError::Truncated, "{place} {bomb}");
            assert_eq!(peek(&payload).unwrap_err(), FormatError::Truncated, "{place} {bomb}");
        }
        let payload = unhex(&format!("81a474797065{bomb}"));
        assert_eq!(Request::decode(&payload), Err(FormatError::Truncated), "{bomb}");
    }
    // Nested as deep as there are bytes: refused without recursion.
    let deep = [vec![0x93, 0xc0], vec![0x91; 1_000_000], vec![0xc0, 0x80]].concat();
    assert_eq!(Broadcast::decode(&deep).unwrap_err(), FormatError::Expected("packet: a map"));
    let deep = format!("{{\"type\":6,\"data\":{}", "[".repeat(1_000_000));
    assert_eq!(Request::decode(deep.as_bytes()), Err(FormatError::TooDeep));
}

#[test]
fn numbers_are_whole_in_any_form() {
    let read = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        unsigned(Reader::new(&bytes).value().unwrap())
    };
    assert_eq!(read(&|out| write_f64(out, 2.0)), Some(2));
    assert_eq!(read(&|out| out.extend(unhex("cb4000000000000000"))), Some(2));
    assert_eq!(read(&|out| out.extend(unhex("ca40000000"))), Some(2));
    assert_eq!(read(&|out| out.extend(unhex("cb433fffffffffffff"))), Some(9_007_199_254_740_991));
    assert_eq!(read(&|out| out.extend(unhex("cb4340000000000000"))), None);
    assert_eq!(read(&|out| write_f64(out, 2.5)), None);
    assert_eq!(read(&|out| write_i64(out, -2)), None);
    assert_eq!(read(&|out| write_bin(out, &[2])), None);
}
