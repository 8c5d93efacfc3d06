use serde_json::Value as Json;

use super::*;
use crate::adapter::test_support::{damage, unhex, vectors};

const CURRENT: &str = include_str!("../../../tests/fixtures/redis/python-current.json");
const PICKLED: &str = include_str!("../../../tests/fixtures/redis/python-pickle-5.13.json");
const SERVER: &str = include_str!("../../../tests/fixtures/redis/python-server.json");
const SHAPES: &str = include_str!("../../../tests/fixtures/redis/python-data-shapes.json");

/// All captured messages of 5.18.1.
fn current() -> Vec<String> {
    let mut found = Vec::new();
    for vector in vectors(CURRENT, "vectors") {
        for published in vector["published"].as_array().into_iter().flatten() {
            found.push(published["json"].as_str().unwrap().to_owned());
        }
    }
    let fixture: Json = serde_json::from_str(SERVER).unwrap();
    for vector in fixture["vectors"].as_object().unwrap().values() {
        for published in vector["published"].as_array().unwrap() {
            found.push(published.as_str().unwrap().to_owned());
        }
    }
    found
}

fn decode(text: &str) -> Result<Message<'_>, PythonError> {
    Message::decode(text.as_bytes())
}

fn emit(text: &str) -> Result<Emit<'_>, PythonError> {
    match decode(text)?.method {
        Method::Emit(emit) => Ok(emit),
        other => panic!("{text}: {other:?}"),
    }
}

/// An emit whose arguments are these, whatever else.
fn args(fields: &str) -> Result<Values<'static>, PythonError> {
    emit(&format!(r#"{{"method":"emit","event":"e",{fields}}}"#)).map(|emit| emit.event.args.into_owned())
}

fn json_args(fields: &str) -> Result<String, PythonError> {
    args(fields).map(|args| args.json.into_owned())
}

/// One name or several, as JSON.
fn names(value: &Json) -> Option<Vec<String>> {
    match value {
        Json::Null => None,
        Json::String(name) => Some(vec![name.clone()]),
        names => Some(names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()),
    }
}

fn texts(names: Vec<Cow<'_, str>>) -> Vec<String> {
    names.into_iter().map(Cow::into_owned).collect()
}

#[test]
fn every_captured_message_is_read() {
    let mut counts = [0; 6];
    let messages = current();
    assert_eq!(messages.len(), 36);
    for text in messages {
        let Ok(json) = serde_json::from_str::<Json>(&text) else {
            assert_eq!(decode(&text), Err(PythonError::NotJson), "{text}");
            continue;
        };
        if json["method"] == "nope" {
            assert_eq!(decode(&text), Err(PythonError::UnknownMethod), "{text}");
            continue;
        }
        let message = decode(&text).unwrap();
        assert_eq!(message.host_id.as_deref(), json["host_id"].as_str(), "{text}");
        assert_eq!(message.namespace, json["namespace"].as_str().unwrap_or("/"), "{text}");
        let (sid, room) = (json["sid"].as_str(), json["room"].as_str());
        let kind = match message.method {
            Method::Emit(emit) => {
                assert_eq!(json["method"], "emit");
                assert_eq!(emit.event.name, json["event"].as_str().unwrap(), "{text}");
                let args: Json = serde_json::from_str(&format!("[{}]", emit.event.args.json)).unwrap();
                let data = &json["data"];
                let expected = match (json["binary"] == true, data) {
                    (true, data) => data[0].clone(),
                    (false, data) if *data == serde_json::json!([null]) => serde_json::json!([]),
                    (false, Json::Array(_)) => data.clone(),
                    (false, data) => serde_json::json!([data]),
                };
                assert_eq!(args, expected, "{text}");
                assert_eq!(emit.rooms.map(texts), names(&json["room"]), "{text}");
                assert_eq!(texts(emit.skip_sids), names(&json["skip_sid"]).unwrap_or_default(), "{text}");
                assert_eq!(emit.callback.is_some(), json["callback"].is_array(), "{text}");
                0
            }
            Method::Callback { sid: who, id, args_json } => {
                assert_eq!(json["method"], "callback");
                assert_eq!((who, id), (&*json["sid"].to_string(), &*json["id"].to_string()), "{text}");
                assert_eq!(serde_json::from_str::<Json>(&format!("[{args_json}]")).unwrap(), json["args"], "{text}");
                1
            }
            Method::Disconnect { sid: who } => {
                assert_eq!(json["method"], "disconnect");
                assert_eq!(Some(&*who), sid, "{text}");
                2
            }
            Method::EnterRoom { sid: who, room: which } => {
                assert_eq!(json["method"], "enter_room");
                assert_eq!((Some(&*who), Some(&*which)), (sid, room), "{text}");
                3
            }
            Method::LeaveRoom { sid: who, room: which } => {
                assert_eq!(json["method"], "leave_room");
                assert_eq!((Some(&*who), Some(&*which)), (sid, room), "{text}");
                4
            }
            Method::CloseRoom { room: which } => {
                assert_eq!(json["method"], "close_room");
                assert_eq!(Some(&*which), room, "{text}");
                5
            }
        };
        counts[kind] += 1;
    }
    assert_eq!(counts, [23, 2, 1, 3, 2, 3], "of each method");
}

#[test]
fn pickles_are_told_apart() {
    let pickled = vectors(PICKLED, "vectors");
    assert_eq!(pickled.len(), 8);
    for vector in pickled {
        let payload = unhex(vector["published"][0]["hex"].as_str().unwrap());
        assert_eq!(Message::decode(&payload), Err(PythonError::Pickle), "{}", vector["label"]);
    }
    for (payload, expected) in [
        (&[0x80, 0x02][..], PythonError::Pickle),
        (&[0x80, 0x05, 0x95], PythonError::Pickle),
        (&[0x80], PythonError::NotJson),
        (&[0x80, 0x7b], PythonError::NotJson),
        (&[0x04, 0x80, 0x04], PythonError::NotJson),
    ] {
        assert_eq!(Message::decode(payload), Err(expected), "{payload:?}");
    }
}

/// Of each version since JSON came. What single and several arguments look like is not always to be told apart: lists
/// before 5.15.1 are taken as several.
#[test]
fn arguments_of_all_versions_are_read() {
    let fixture: Json = serde_json::from_str(SHAPES).unwrap();
    for (version, shapes) in fixture["vectors"].as_object().unwrap() {
        if shapes["same_as"].is_string() {
            continue;
        }
        let is_wrapped = version == "5.15.1";
        let read = |shape: &str| json_args(&format!("\"data\":{}", shapes[shape])).unwrap();
        assert_eq!(read("str"), "\"x\"", "{version}");
        assert_eq!(read("none"), "", "{version}");
        assert_eq!(read("tuple_1_two"), "1,\"two\"", "{version}");
        assert_eq!(read("list_1_2"), if is_wrapped { "[1,2]" } else { "1,2" }, "{version}");
        for (shape, json, bytes) in [
            ("bytes_in_dict", r#"{"f":{"_placeholder":true,"num":0}}"#, &[1, 2][..]),
            ("bytes_in_tuple", r#"{"_placeholder":true,"num":0},"z""#, &[1]),
        ] {
            let shape = &shapes[shape];
            if shape["binary"] == true {
                let found = args(&format!("\"binary\":true,\"data\":{}", shape["data"])).unwrap();
                assert_eq!(&*found.json, json, "{version}");
                assert_eq!(found.attachments, [bytes], "{version}");
            }
        }
    }
}

#[test]
fn arguments_stand_as_they_were_written() {
    let cases = [
        (r#""data":[]"#, ""),
        (r#""data":[null]"#, ""),
        (r#""data":null"#, ""),
        (r#""data":[null,null]"#, "null,null"),
        (r#""data":[[null]]"#, "[null]"),
        (r#""data":[ {"id": 7, "u": "\u00e9\ud83d"} , 1.0 ] "#, r#"{"id": 7, "u": "\u00e9\ud83d"} , 1.0"#),
        (r#""data":0"#, "0"),
        (r#""data":false"#, "false"),
        (r#""data":{"a":[1]}"#, r#"{"a":[1]}"#),
        (r#""data":"[1]""#, r#""[1]""#),
        (r#""data":[1],"binary":null"#, "1"),
        (r#""data":[1],"binary":false"#, "1"),
        // Without attachments a placeholder is an object like others.
        (r#""data":[{"_placeholder":true,"num":9}]"#, r#"{"_placeholder":true,"num":9}"#),
        (r#""data":[1],"data":[2]"#, "2"),
    ];
    for (fields, expected) in cases {
        assert_eq!(json_args(fields).as_deref(), Ok(expected), "{fields}");
    }
}

#[test]
fn attachments_and_placeholders_belong_together() {
    const DATA: PythonError = PythonError::Expected("data: an array of arguments and base64 texts");
    const NUM: PythonError = PythonError::Expected("data: placeholders with the number of an attachment");
    let cases = [
        (r#"[[{"_placeholder":true,"num":0}],"AQID"]"#, Ok(1)),
        (r#"[[{"num":1,"_placeholder":true},{"_placeholder":true,"num":0}],"AQID","\/w=="]"#, Ok(2)),
        (r#"[[],"",""]"#, Ok(2)),
        (r#"[[1]]"#, Ok(0)),
        (r#"[[{"_placeholder":false,"num":7}],"AQID"]"#, Ok(1)),
        (r#"[[{"_placeholder":true,"num":1}],"AQID"]"#, Err(NUM)),
        (r#"[[{"a":[{"_placeholder":true,"num":99999999999999999999}]}],"AQID"]"#, Err(NUM)),
        (r#"[[{"_placeholder":true,"num":-1}],"AQID"]"#, Err(NUM)),
        (r#"[[{"_placeholder":true,"num":0.5}],"AQID"]"#, Err(NUM)),
        (r#"[[{"_placeholder":true,"num":"0"}],"AQID"]"#, Err(NUM)),
        (r#"[[{"_placeholder":true}],"AQID"]"#, Err(NUM)),
        (r#"[[{"_place\u0068older":true,"num":1}],"AQID"]"#, Err(NUM)),
        (r#"[[{"_placeholder":true,"num":0}]]"#, Err(NUM)),
        (r#"[]"#, Err(DATA)),
        (r#"null"#, Err(DATA)),
        (r#""AQID""#, Err(DATA)),
        (r#"[[],1]"#, Err(DATA)),
        (r#"[[],null]"#, Err(DATA)),
        (r#"[[],"AQI"]"#, Err(DATA)),
        (r#"[[],"A"]"#, Err(DATA)),
        (r#"[[],"AQ_-"]"#, Err(DATA)),
        (r#"[[]," AQID"]"#, Err(DATA)),
    ];
    for (data, expected) in cases {
        let found = args(&format!("\"binary\":true,\"data\":{data}")).map(|args| args.attachments.len());
        assert_eq!(found, expected, "{data}");
    }
}

#[test]
fn a_refusal_says_why() {
    let cases = [
        ("", PythonError::NotJson),
        ("\u{4}garbage", PythonError::NotJson),
        ("{", PythonError::NotJson),
        ("{}x", PythonError::NotJson),
        ("[1", PythonError::NotJson),
        ("[1]x", PythonError::NotJson),
        (r#"{"method":"emit","event":"e","data":[NaN]}"#, PythonError::NotJson),
        ("[]", PythonError::NotAnObject),
        ("null", PythonError::NotAnObject),
        (r#""method""#, PythonError::NotAnObject),
        ("{}", PythonError::Expected("method: a string")),
        (r#"{"method":null}"#, PythonError::Expected("method: a string")),
        (r#"{"method":["emit"]}"#, PythonError::Expected("method: a string")),
        (r#"{"method":"nope"}"#, PythonError::UnknownMethod),
        (r#"{"method":""}"#, PythonError::UnknownMethod),
        (r#"{"method":"Emit"}"#, PythonError::UnknownMethod),
        (r#"{"method":"emit","data":[]}"#, PythonError::Expected("event: a string")),
        (r#"{"method":"emit","event":1,"data":[]}"#, PythonError::Expected("event: a string")),
        (r#"{"method":"emit","event":"e"}"#, PythonError::Expected("data")),
        (r#"{"method":"emit","event":"e","data":[],"binary":1}"#, PythonError::Expected("binary: true or false")),
        (r#"{"method":"emit","event":"e","data":[],"namespace":1}"#, PythonError::Expected("namespace: a string")),
        (r#"{"method":"emit","event":"e","data":[],"host_id":1}"#, PythonError::Expected("host_id: a string")),
        (
            r#"{"method":"emit","event":"e","data":[],"room":{}}"#,
            PythonError::Expected("room: a string or an array of strings"),
        ),
        (
            r#"{"method":"emit","event":"e","data":[],"room":["a",null]}"#,
            PythonError::Expected("room: a string or an array of strings"),
        ),
        (
            r#"{"method":"emit","event":"e","data":[],"room":1.5}"#,
            PythonError::Expected("room: a string or an array of strings"),
        ),
        (
            r#"{"method":"emit","event":"e","data":[],"skip_sid":true}"#,
            PythonError::Expected("skip_sid: a string or an array of strings"),
        ),
        (
            r#"{"method":"emit","event":"e","data":[],"host_id":"h","callback":7}"#,
            PythonError::Expected("callback: an array of room, namespace and number"),
        ),
        (
            r#"{"method":"emit","event":"e","data":[],"host_id":"h","callback":[["r"],"/",1]}"#,
            PythonError::Expected("callback: an array of room, namespace and number"),
        ),
        (r#"{"method":"disconnect"}"#, PythonError::Expected("sid: a string")),
        (r#"{"method":"disconnect","sid":null}"#, PythonError::Expected("sid: a string")),
        (r#"{"method":"enter_room","sid":"s"}"#, PythonError::Expected("room: a string or number")),
        (r#"{"method":"enter_room","room":"r"}"#, PythonError::Expected("sid: a string")),
        (r#"{"method":"leave_room","sid":"s","room":null}"#, PythonError::Expected("room: a string or number")),
        (r#"{"method":"close_room","room":["r"]}"#, PythonError::Expected("room: a string or number")),
        (r#"{"method":"callback","id":1,"args":[]}"#, PythonError::Expected("sid: a string or number")),
        (r#"{"method":"callback","sid":"s","args":[]}"#, PythonError::Expected("id: a number")),
        (r#"{"method":"callback","sid":"s","id":1}"#, PythonError::Expected("args: an array")),
        (r#"{"method":"callback","sid":"s","id":1,"args":{}}"#, PythonError::Expected("args: an array")),
    ];
    for (text, expected) in cases {
        assert_eq!(decode(text), Err(expected), "{text}");
    }
}

#[test]
fn rooms_are_nobody_everybody_one_or_several() {
    let rooms = |room: &str| {
        let text = format!(r#"{{"method":"emit","event":"e","data":[],{room}"host_id":"h"}}"#);
        emit(&text).unwrap().rooms.map(texts)
    };
    assert_eq!(rooms(""), None);
    assert_eq!(rooms(r#""room":null,"#), None);
    assert_eq!(rooms(r#""room":"user:42","#), Some(vec!["user:42".into()]));
    assert_eq!(rooms(r#""room":"\u00e9","#), Some(vec!["é".into()]));
    assert_eq!(rooms(r#""room":42,"#), Some(vec!["42".into()]));
    assert_eq!(rooms(r#""room":["a",-7,""],"#), Some(vec!["a".into(), "-7".into(), String::new()]));
    assert_eq!(rooms(r#""room":[],"#), Some(vec![]));
}

#[test]
fn a_missing_namespace_is_the_main_one() {
    for (field, expected) in [("", "/"), (r#","namespace":null"#, "/"), (r#","namespace":"/chat""#, "/chat")] {
        let text = format!(r#"{{"method":"close_room","room":"r"{field}}}"#);
        let message = decode(&text).unwrap();
        assert_eq!(message.namespace, expected);
        assert_eq!(message.host_id, None);
        assert_eq!(message.method, Method::CloseRoom { room: "r".into() });
    }
}

/// Each captured pair of an emit and the answer to its callback.
#[test]
fn answers_are_written_byte_for_byte_as_python_does() {
    let fixture: Json = serde_json::from_str(SERVER).unwrap();
    let mut count = 0;
    for vector in fixture["vectors"].as_object().unwrap().values() {
        let [question, answer] = &vector["published"].as_array().unwrap()[..] else { continue };
        let callback = emit(question.as_str().unwrap()).unwrap().callback.unwrap();
        assert_eq!(callback.answer(r#""ackval",2"#).as_deref(), Ok(answer.as_str().unwrap()));
        assert_eq!(callback.host_id, "e5ff45b3994d4bbdb905a5e53035b74d");
        count += 1;
    }
    assert_eq!(count, 2);
}

/// What `json.dumps` of Python 3.11 makes of the values.
#[test]
fn answers_are_ascii_with_spaces() {
    let callback = |text: &str| emit(text).unwrap().callback.unwrap();
    let emitted = r#"{"method":"emit","event":"e","data":[],"host_id":"h\u00e9","callback":[ 42 , "\/é" , 1 ]}"#;
    let head = r#"{"method": "callback", "host_id": "h\u00e9", "sid": 42, "namespace": "/\u00e9", "id": 1, "args": ["#;
    let cases = [
        ("", ""),
        ("1", "1"),
        (" 1 , [ ] , { } , null ", "1, [], {}, null"),
        (r#"{"a":[1,true,{"b":false}],"c":-1.5e3}"#, r#"{"a": [1, true, {"b": false}], "c": -1.5e3}"#),
        ("\"é€😀\u{7f}\u{2028}\"", r#""\u00e9\u20ac\ud83d\ude00\u007f\u2028""#),
        (r#""\"\\\/\b\f\n\r\t\u0000\u001f\u0041""#, r#""\"\\/\b\f\n\r\t\u0000\u001fA""#),
        (r#"{"é":"\ud800"}"#, r#"{"\u00e9": "\ufffd"}"#),
    ];
    for (args, expected) in cases {
        assert_eq!(callback(emitted).answer(args).unwrap(), format!("{head}{expected}]}}"), "{args}");
    }
    for args in ["1,", "x", "]", "1]}", "\"", "1 2"] {
        assert_eq!(callback(emitted).answer(args), Err(FormatError::NotJson), "{args}");
    }
}

#[test]
fn without_a_host_or_with_another_number_of_parts_there_is_no_callback() {
    for fields in [
        r#""callback":["r","/",1]"#,
        r#""callback":["r","/",1],"host_id":null"#,
        r#""callback":null,"host_id":"h""#,
        r#""callback":[],"host_id":"h""#,
        r#""callback":["r","/"],"host_id":"h""#,
        r#""callback":["r","/",1,2],"host_id":"h""#,
        r#""host_id":"h""#,
    ] {
        let text = format!(r#"{{"method":"emit","event":"e","data":[],{fields}}}"#);
        assert_eq!(emit(&text).unwrap().callback, None, "{fields}");
    }
}

#[test]
fn every_limit_holds_at_it_and_one_past_it() {
    let name = |length: usize| "é".repeat(length / 2) + &"x".repeat(length % 2);
    for field in ["host_id", "namespace", "room", "skip_sid", "event"] {
        let read = |length: usize| {
            let text = format!(r#"{{"method":"emit","data":[],"event":"e","{field}":"{}"}}"#, name(length));
            emit(&text).map(|_| ())
        };
        assert_eq!(read(MAX_NAME_BYTES), Ok(()), "{field}");
        assert_eq!(read(MAX_NAME_BYTES + 1), Err(PythonError::TooLarge), "{field}");
    }
    // With its quotes, since it goes back as it is.
    let callback = |length: usize| {
        let room = name(length - 2);
        let text = format!(r#"{{"method":"emit","data":[],"event":"e","host_id":"h","callback":["{room}","/",1]}}"#);
        emit(&text).map(|_| ())
    };
    assert_eq!(callback(MAX_NAME_BYTES), Ok(()));
    assert_eq!(callback(MAX_NAME_BYTES + 1), Err(PythonError::TooLarge));
    for field in ["room", "skip_sid"] {
        let read = |count: usize| {
            let names = vec!["\"a\""; count].join(",");
            emit(&format!(r#"{{"method":"emit","event":"e","data":[],"{field}":[{names}]}}"#)).map(|_| ())
        };
        assert_eq!(read(MAX_NAMES), Ok(()), "{field}");
        assert_eq!(read(MAX_NAMES + 1), Err(PythonError::TooLarge), "{field}");
    }
    let attached =
        |count: usize| args(&format!(r#""binary":true,"data":[[]{}]"#, r#","AQ==""#.repeat(count))).map(|_| ());
    assert_eq!(attached(MAX_ATTACHMENTS), Ok(()));
    assert_eq!(attached(MAX_ATTACHMENTS + 1), Err(PythonError::TooLarge));
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    for (open, close) in [(r#""data":["#, "]"), (r#""binary":true,"data":[["#, "]]")] {
        let read = |depth: usize| args(&format!("{open}{}{close}", nested(depth))).map(|_| ());
        assert_eq!(read(MAX_DEPTH), Ok(()), "{open}");
        assert_eq!(read(MAX_DEPTH + 1), Err(PythonError::TooLarge), "{open}");
        assert_eq!(read(500_000), Err(PythonError::TooLarge), "{open}");
    }
    let text = |length: usize| json_args(&format!("\"data\":[\"{}\"]", "x".repeat(length - 2))).map(|json| json.len());
    assert_eq!(text(MAX_JSON_BYTES), Ok(MAX_JSON_BYTES));
    assert_eq!(text(MAX_JSON_BYTES + 1), Err(PythonError::TooLarge));
    let payload = |length: usize| {
        let text = r#"{"method":"close_room","room":"r"}"#;
        Message::decode(format!("{text}{}", " ".repeat(length - text.len())).as_bytes()).map(|_| ())
    };
    assert_eq!(payload(MAX_MESSAGE_BYTES), Ok(()));
    assert_eq!(payload(MAX_MESSAGE_BYTES + 1), Err(PythonError::TooLarge));
}

#[test]
fn damaged_payloads_are_read_without_harm() {
    let mut read = 0;
    for (seed, text) in current().into_iter().enumerate() {
        damage(text.as_bytes(), seed as u64, |damaged| {
            let Ok(message) = Message::decode(damaged) else { return };
            read += 1;
            if let Method::Emit(emit) = message.method {
                let args = emit.event.args;
                let mut reader = Reader::new(&args.json);
                let mut is_first = true;
                while reader.next_listed(&mut is_first).unwrap() {
                    let count = (!args.attachments.is_empty()).then_some(args.attachments.len());
                    reader.value(MAX_DEPTH, count).unwrap();
                }
                if let Some(callback) = emit.callback {
                    let answer = callback.answer(&args.json).unwrap();
                    assert!(answer.is_ascii());
                    assert!(matches!(decode(&answer).unwrap().method, Method::Callback { .. }));
                }
            }
        });
    }
    assert!(read > 1000, "{read}");
    let pickle = unhex(vectors(PICKLED, "vectors")[0]["published"][0]["hex"].as_str().unwrap());
    damage(&pickle, 0, |damaged| assert!(Message::decode(damaged).is_err()));
}
