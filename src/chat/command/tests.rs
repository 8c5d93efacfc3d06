use super::*;

fn raw(json: &str) -> &RawValue {
    serde_json::from_str(json).unwrap()
}

/// The field that was refused, or nothing if all was taken.
fn refused<T>(read: Result<T, Error>) -> Option<&'static str> {
    let error = read.err()?;
    assert_eq!(error.code, Code::InvalidPayload);
    Some(error.details.map_or("payload", |details| details.field))
}

/// An event: its name, its reader, and the least payload that it takes.
struct Reader {
    event: &'static str,
    read: fn(Option<&RawValue>) -> Option<&'static str>,
    required: &'static [(&'static str, &'static str)],
}

const ULID: &str = "\"01ARZ3NDEKTSV4RRFFQ69G5FAV\"";

const READERS: [Reader; 13] = [
    Reader { event: "join_room", read: |json| refused(JoinRoom::read(json)), required: &[("meeting_id", "\"m\"")] },
    Reader { event: "leave_room", read: |json| refused(LeaveRoom::read(json)), required: &[("meeting_id", "\"m\"")] },
    Reader {
        event: "chat_message",
        read: |json| refused(SendMessage::read(json)),
        required: &[("meeting_id", "\"m\""), ("text", "\"hi\"")],
    },
    Reader {
        event: "edit_message",
        read: |json| refused(EditMessage::read(json)),
        required: &[("meeting_id", "\"m\""), ("id", ULID), ("text", "\"hi\"")],
    },
    Reader {
        event: "delete_message",
        read: |json| refused(DeleteMessage::read(json)),
        required: &[("meeting_id", "\"m\""), ("id", ULID)],
    },
    Reader {
        event: "react",
        read: |json| refused(React::read(json)),
        required: &[("meeting_id", "\"m\""), ("id", ULID), ("emoji", "\"👍\"")],
    },
    Reader { event: "typing", read: |json| refused(Typing::read(json)), required: &[("meeting_id", "\"m\"")] },
    Reader {
        event: "mark_read",
        read: |json| refused(MarkRead::read(json)),
        required: &[("meeting_id", "\"m\""), ("seq", "1")],
    },
    Reader { event: "get_history", read: |json| refused(History::read(json)), required: &[("meeting_id", "\"m\"")] },
    Reader { event: "get_presence", read: |json| refused(Presence::read(json)), required: &[("meeting_id", "\"m\"")] },
    Reader { event: "notifications_get", read: |json| refused(Notifications::read(json)), required: &[] },
    Reader {
        event: "notifications_read",
        read: |json| refused(ReadNotifications::read(json)),
        required: &[("ids", "[]")],
    },
    Reader { event: "auth_refresh", read: |json| refused(RefreshToken::read(json)), required: &[("token", "\"t\"")] },
];

impl Reader {
    /// The least payload with one field set to `value`, or left out.
    fn payload(&self, field: &str, value: Option<&str>) -> String {
        let others = self.required.iter().filter(|(name, _)| *name != field);
        let fields: Vec<_> = others.copied().chain(value.map(|value| (field, value))).collect();
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    }
}

fn quoted(count: usize) -> String {
    format!("\"{}\"", "x".repeat(count))
}

fn list(item: &str, count: usize) -> String {
    format!("[{}]", vec![item; count].join(","))
}

/// Values of a field, and whether they are taken.
fn values(event: &str, field: &str) -> Vec<(String, bool)> {
    let meta = |bytes: usize| format!(r#"{{"k":"{}"}}"#, "x".repeat(bytes - 8));
    let own = |values: &[(&str, bool)]| values.iter().map(|(value, is_fine)| ((*value).to_owned(), *is_fine)).collect();
    let not_flags = [("1", false), ("0", false), ("\"true\"", false), ("[]", false), ("{}", false)];
    let not_integers = [
        ("1.5", false),
        ("1.0", false),
        ("1e2", false),
        ("\"1\"", false),
        ("true", false),
        ("[]", false),
        ("{}", false),
    ];
    let seqs = [("0", true), ("9007199254740991", true), ("9007199254740992", false), ("-1", false)];
    match (event, field) {
        (_, "meeting_id" | "room") => vec![
            (quoted(1), true),
            (quoted(128), true),
            (quoted(129), false),
            ("\"\"".into(), false),
            ("\"a.b:c_d-1\"".into(), true),
            ("\"a b\"".into(), false),
            ("\"ä\"".into(), false),
            ("\"a/b\"".into(), false),
            (r#""\ud800""#.into(), false),
            (r#""a\u0000""#.into(), false),
            (r#""\u0041""#.into(), true),
            ("0".into(), true),
            ("9007199254740991".into(), true),
            ("9007199254740992".into(), false),
            ("99999999999999999999999".into(), false),
            ("-1".into(), false),
            ("1.5".into(), false),
            ("true".into(), false),
            ("null".into(), false),
            ("[\"m\"]".into(), false),
            ("{}".into(), false),
        ],
        (_, "text" | "message") => vec![
            (quoted(1), true),
            ("\"\"".into(), false),
            (quoted(4000), true),
            (quoted(4001), false),
            // 16 000 bytes, then 16 004. No text of 4 000 scalars is longer than 16 KiB.
            (format!("\"{}\"", "😀".repeat(4000)), true),
            (format!("\"{}\"", "😀".repeat(4001)), false),
            (r#""line\nline\ttab""#.into(), true),
            (r#""nul\u0000""#.into(), false),
            (r#""bell\u0007""#.into(), false),
            (r#""unit\u001f""#.into(), false),
            (r#""cr\r""#.into(), false),
            (r#""del\u007f""#.into(), true),
            (r#""lone \ud800 surrogate""#.into(), false),
            (r#""lone \udc00 surrogate""#.into(), false),
            (r#""pair \ud83d\ude00""#.into(), true),
            ("5".into(), false),
            ("true".into(), false),
            ("null".into(), false),
            ("[]".into(), false),
            ("{}".into(), false),
        ],
        ("chat_message", "client_id") => vec![
            (quoted(1), true),
            (quoted(64), true),
            (quoted(65), false),
            ("\"\"".into(), false),
            ("\"aZ09_-\"".into(), true),
            ("\"a b\"".into(), false),
            ("\"a.b\"".into(), false),
            (r#""\ud800""#.into(), false),
            (r#""\n""#.into(), false),
            ("7".into(), false),
            ("null".into(), true),
            ("[]".into(), false),
        ],
        ("chat_message", "reply_to") | (_, "id") => vec![
            (ULID.into(), true),
            (quoted(26), true),
            (quoted(25), false),
            (quoted(27), false),
            ("\"\"".into(), false),
            ("\"01ARZ3NDEKTSV4RRFFQ69G5FA-\"".into(), false),
            (format!("\"{}\"", "ä".repeat(13)), false),
            (r#""\ud800""#.into(), false),
            (r#""\u00001234567890123456789012345""#.into(), false),
            ("7".into(), false),
            ("[]".into(), false),
            ("{}".into(), false),
            ("null".into(), field == "reply_to"),
        ],
        ("chat_message", "mentions") => vec![
            (list("\"u\"", 50), true),
            (list("\"u\"", 51), false),
            ("[]".into(), true),
            ("[5]".into(), true),
            ("[9007199254740992]".into(), false),
            ("[-1]".into(), false),
            ("[1.5]".into(), false),
            ("[\"\"]".into(), false),
            ("[null]".into(), false),
            ("[[]]".into(), false),
            ("[\"a\\u0000\"]".into(), false),
            ("[\"\\ud800\"]".into(), false),
            ("\"u\"".into(), false),
            ("{}".into(), false),
            ("null".into(), true),
            (list(&quoted(128), 1), true),
            (list(&quoted(129), 1), false),
            (format!("[\"{}\"]", "ä".repeat(128)), true),
        ],
        ("chat_message", "meta") => vec![
            (meta(2048), true),
            (meta(2049), false),
            ("{}".into(), true),
            (r#"{"a":{"b":{"c":{}}}}"#.into(), true),
            (r#"{"a":{"b":{"c":{"d":[]}}}}"#.into(), false),
            (r#"{"a":"]]]}}}\"{{{{{"}"#.into(), true),
            ("[]".into(), false),
            ("\"x\"".into(), false),
            ("null".into(), true),
        ],
        ("join_room", "since") => vec![
            (r#"{"epoch":"e","seq":0}"#.into(), true),
            (r#"{"epoch":"e","seq":9007199254740991}"#.into(), true),
            (r#"{"epoch":"e","seq":9007199254740992}"#.into(), false),
            (r#"{"epoch":"e","seq":-1}"#.into(), false),
            (r#"{"epoch":"e","seq":1.5}"#.into(), false),
            (r#"{"epoch":"e","seq":"1"}"#.into(), false),
            (r#"{"epoch":"e","seq":null}"#.into(), false),
            (r#"{"epoch":"e"}"#.into(), false),
            (r#"{"seq":1}"#.into(), false),
            (r#"{"epoch":5,"seq":1}"#.into(), false),
            (r#"{"epoch":"\ud800","seq":1}"#.into(), false),
            (format!(r#"{{"epoch":{},"seq":1}}"#, quoted(32)), true),
            (format!(r#"{{"epoch":{},"seq":1}}"#, quoted(33)), false),
            (r#"{"epoch":"e","seq":1,"more":[]}"#.into(), true),
            (r#"{"epoch":"e","seq":1,"seq":1}"#.into(), false),
            (r#"["e",5]"#.into(), false),
            ("{}".into(), false),
            ("5".into(), false),
            ("null".into(), true),
        ],
        ("react", "emoji") => vec![
            ("\"👍\"".into(), true),
            (format!("\"{}\"", "👍".repeat(16)), true),
            (format!("\"{}\"", "👍".repeat(17)), false),
            ("\"\"".into(), false),
            ("null".into(), false),
            (r#""a\u0000""#.into(), false),
            (r#""\n""#.into(), false),
            (r#""\u007f""#.into(), false),
            (r#""\u0085""#.into(), false),
            (r#""\ud83d""#.into(), false),
            (r#""\ud83d\udc4d""#.into(), true),
            ("5".into(), false),
            ("[]".into(), false),
        ],
        (_, "presence" | "remove" | "active" | "unread_only") => {
            [own(&[("true", true), ("false", true), ("null", true)]), own(&not_flags)].concat()
        }
        (_, "limit") => [
            own(&[("0", true), ("-5", true), ("-0", true), ("99999999999999999999999", true), ("null", true)]),
            own(&[("-99999999999999999999999", true), ("-1.5", false)]),
            own(&not_integers),
        ]
        .concat(),
        ("mark_read", "seq") => [own(&seqs), own(&not_integers), own(&[("null", false)])].concat(),
        (_, "before_seq" | "after_seq" | "before" | "after") => {
            [own(&seqs), own(&not_integers), own(&[("null", true)])].concat()
        }
        ("get_history", "epoch") => vec![
            (quoted(32), true),
            (quoted(33), false),
            ("\"\"".into(), true),
            ("5".into(), false),
            ("{}".into(), false),
            (r#""\ud800""#.into(), false),
            ("null".into(), true),
        ],
        ("get_history", "kinds") => vec![
            ("[]".into(), true),
            ("null".into(), true),
            (r#"["chat_message"]"#.into(), true),
            (r#"["chat_message","chat_message"]"#.into(), true),
            (r#"["message_edited","message_deleted","message_reaction","meeting_update","chat_message"]"#.into(), true),
            (r#"["typing"]"#.into(), false),
            (r#"["chat_message","x"]"#.into(), false),
            (r#"[""]"#.into(), false),
            (r#"["\ud800"]"#.into(), false),
            ("[1]".into(), false),
            ("[null]".into(), false),
            (r#""chat_message""#.into(), false),
            ("{}".into(), false),
        ],
        ("notifications_read", "ids") => vec![
            ("[]".into(), true),
            (list("\"n\"", 100), true),
            (list("\"n\"", 101), false),
            (list(&quoted(64), 1), true),
            (list(&quoted(65), 1), false),
            ("[7]".into(), true),
            ("[-7]".into(), false),
            ("[1.5]".into(), false),
            ("[\"\"]".into(), false),
            ("[null]".into(), false),
            ("[\"\\n\"]".into(), false),
            ("[\"\\ud800\"]".into(), false),
            ("\"n\"".into(), false),
            ("{}".into(), false),
            ("null".into(), false),
        ],
        ("auth_refresh", "token") => vec![
            (quoted(1), true),
            (quoted(20_000), true),
            ("\"\"".into(), true),
            ("5".into(), false),
            ("null".into(), false),
            ("{}".into(), false),
            (r#""\ud800""#.into(), false),
        ],
        (_, "unknown") => own(&[("{\"whatever\":[1]}", true), ("\"\\ud800\"", true), ("null", true)]),
        other => panic!("no values for {other:?}"),
    }
}

#[test]
fn every_field_of_every_event_is_checked() {
    let optional_fields: [(&str, &[&str]); 13] = [
        ("join_room", &["since", "limit", "presence"]),
        ("leave_room", &[]),
        ("chat_message", &["client_id", "reply_to", "mentions", "meta"]),
        ("edit_message", &[]),
        ("delete_message", &[]),
        ("react", &["remove"]),
        ("typing", &["active"]),
        ("mark_read", &[]),
        ("get_history", &["before_seq", "after_seq", "epoch", "limit", "kinds"]),
        ("get_presence", &["limit"]),
        ("notifications_get", &["before", "after", "limit", "unread_only"]),
        ("notifications_read", &[]),
        ("auth_refresh", &[]),
    ];
    for (reader, (event, optional)) in READERS.iter().zip(optional_fields) {
        assert_eq!(reader.event, event);
        for (field, _) in reader.required {
            let json = reader.payload(field, None);
            assert_eq!((reader.read)(Some(raw(&json))), Some(*field), "{event} without {field}");
        }
        let required = reader.required.iter().map(|(field, _)| *field);
        for field in required.chain(optional.iter().copied()).chain(["unknown"]) {
            for (value, is_fine) in values(event, field) {
                let json = reader.payload(field, Some(&value));
                let expected = if is_fine { None } else { Some(field) };
                assert_eq!((reader.read)(Some(raw(&json))), expected, "{event}: {field}: {value:.60}");
            }
        }
    }
}

#[test]
fn payloads_that_are_no_objects() {
    for reader in &READERS {
        let takes_bare_ids = matches!(reader.event, "join_room" | "leave_room");
        for json in ["[]", "[\"m\"]", "null", "true", "1", "\"m\""] {
            let expected = if takes_bare_ids && matches!(json, "1" | "\"m\"") { None } else { Some("payload") };
            assert_eq!((reader.read)(Some(raw(json))), expected, "{}: {json}", reader.event);
        }
        let twice = format!("{{\"room\":1,\"room\":1,{}", reader.payload("", None).split_at(1).1);
        let twice = twice.replace(",}", "}");
        assert_eq!((reader.read)(Some(raw(&twice))), Some("payload"), "{}: {twice}", reader.event);
        let expected = if reader.event == "notifications_get" { None } else { Some("payload") };
        assert_eq!((reader.read)(None), expected, "{}", reader.event);
    }
}

#[test]
fn flask_style_payloads() {
    let message = SendMessage::read(Some(raw(r#"{"room":7,"message":"hi"}"#))).unwrap();
    assert_eq!((message.meeting.as_str(), message.text.get()), ("7", "\"hi\""));
    for (json, id, sent) in [("\"m\"", "m", "\"m\""), ("42", "42", "42"), (r#"{"room":"\u006d"}"#, "m", r#""\u006d""#)]
    {
        let meeting = JoinRoom::read(Some(raw(json))).unwrap().meeting;
        assert_eq!((meeting.id.as_str(), meeting.sent.get()), (id, sent));
        let meeting = LeaveRoom::read(Some(raw(json))).unwrap().meeting;
        assert_eq!((meeting.id.as_str(), meeting.sent.get()), (id, sent));
    }
    for json in ["-1", "1.5", "\"a b\"", "9007199254740992"] {
        assert_eq!(refused(JoinRoom::read(Some(raw(json)))), Some("meeting_id"), "{json}");
    }
    for reader in READERS.iter().filter(|reader| reader.payload("", None).contains("meeting_id")) {
        for (value, is_fine) in values(reader.event, "room") {
            let json = reader.payload("", None).replace("\"meeting_id\":\"m\"", &format!("\"room\":{value}"));
            let expected = if is_fine { None } else { Some("meeting_id") };
            assert_eq!((reader.read)(Some(raw(&json))), expected, "{}: {json:.80}", reader.event);
        }
    }
    for (value, is_fine) in values("chat_message", "message") {
        let json = format!(r#"{{"meeting_id":"m","message":{value}}}"#);
        assert_eq!(
            refused(SendMessage::read(Some(raw(&json)))),
            if is_fine { None } else { Some("text") },
            "{json:.80}"
        );
    }
    // The contract's names go before; only `chat_message` knows `message`.
    let both = SendMessage::read(Some(raw(r#"{"meeting_id":"m","room":"r","text":"t","message":"o"}"#))).unwrap();
    assert_eq!((both.meeting.as_str(), both.unescaped_text()), ("m", "t"));
    let edit = format!(r#"{{"meeting_id":"m","id":{ULID},"message":"hi"}}"#);
    assert_eq!(refused(EditMessage::read(Some(raw(&edit)))), Some("text"));
}

#[test]
fn joins_say_how_much_they_want() {
    let cases = [
        (r#"{"meeting_id":"m"}"#, (false, 0, false)),
        (r#"{"meeting_id":"m","since":{"epoch":"e","seq":5}}"#, (true, 300, false)),
        (r#"{"meeting_id":"m","since":{"epoch":"e","seq":5},"limit":7}"#, (true, 7, false)),
        (r#"{"meeting_id":"m","limit":300,"presence":true}"#, (false, 300, true)),
        (r#"{"meeting_id":"m","limit":301}"#, (false, 300, false)),
        (r#"{"meeting_id":"m","limit":-1}"#, (false, 0, false)),
        ("\"m\"", (false, 0, false)),
    ];
    for (json, expected) in cases {
        let join = JoinRoom::read(Some(raw(json))).unwrap();
        assert_eq!((join.since.is_some(), join.limit, join.presence), expected, "{json}");
    }
    let join = JoinRoom::read(Some(raw(r#"{"meeting_id":"m","since":{"epoch":"\u0065","seq":5}}"#))).unwrap();
    assert_eq!(join.since, Some(Position { epoch: "e".into(), seq: 5 }));
}

#[test]
fn a_message_is_what_was_sent() {
    let json = format!(
        r#"{{"meeting_id":"m","text":"a\u0062\n","client_id":"\u0063","reply_to":{ULID},"mentions":["ann",7],"meta":{{"k": 1}}}}"#
    );
    let message = SendMessage::read(Some(raw(&json))).unwrap();
    assert_eq!((message.text.get(), message.unescaped_text()), (r#""a\u0062\n""#, "ab\n"));
    assert_eq!(message.client_id.as_deref(), Some("c"));
    assert_eq!(message.reply_to.unwrap().id().unwrap().to_string(), ULID.trim_matches('"'));
    assert_eq!(message.mentions.unwrap(), ["ann", "7"]);
    assert_eq!(message.meta.unwrap().get(), r#"{"k": 1}"#);
    let least = SendMessage::read(Some(raw(r#"{"meeting_id":"m","text":"a"}"#))).unwrap();
    assert!(least.client_id.is_none() && least.reply_to.is_none() && least.mentions.is_none() && least.meta.is_none());
    assert!(matches!(least.unescaped, Cow::Borrowed("a")), "copied for nothing");
}

#[test]
fn refused_messages_are_told_by_their_client_id() {
    let cases = [
        (r#"{"client_id":"c"}"#, Some("c")),
        (r#"{"client_id":"c","text":5}"#, Some("c")),
        (r#"{"client_id":"a b"}"#, None),
        (r#"{"client_id":5}"#, None),
        (r#"{"client_id":null}"#, None),
        ("5", None),
    ];
    for (json, expected) in cases {
        assert_eq!(SendMessage::reference(Some(raw(json))).as_deref(), expected, "{json}");
    }
    assert_eq!(SendMessage::reference(None), None);
}

#[test]
fn ids_that_were_never_given_name_no_message() {
    let cases = [
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV", true),
        ("00000000000000000000000000", true),
        ("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", true),
        // Over 128 bits, lower case, and letters that the alphabet leaves out.
        ("80000000000000000000000000", false),
        ("01arz3ndektsv4rrffq69g5fav", false),
        ("01ARZ3NDEKTSV4RRFFQ69G5FAI", false),
        ("01ARZ3NDEKTSV4RRFFQ69G5FAU", false),
        ("xxxxxxxxxxxxxxxxxxxxxxxxxx", false),
    ];
    for (id, is_known) in cases {
        let json = format!(r#"{{"meeting_id":"m","id":"{id}"}}"#);
        for id_read in [DeleteMessage::read(Some(raw(&json))), DeleteMessage::from_path("m", id)] {
            let id_read = id_read.unwrap().id;
            assert_eq!(matches!(id_read, MessageRef::Known(_)), is_known, "{id}");
            let expected = if is_known { Ok(id.to_owned()) } else { Err(Code::NotFound) };
            assert_eq!(id_read.id().map(|id| id.to_string()).map_err(|error| error.code), expected, "{id}");
        }
    }
}

#[test]
fn reactions_typing_and_marks() {
    for (remove, expected) in [("", false), (r#","remove":true"#, true), (r#","remove":false"#, false)] {
        let json = format!(r#"{{"meeting_id":"m","id":{ULID},"emoji":"\ud83d\udc4d"{remove}}}"#);
        let react = React::read(Some(raw(&json))).unwrap();
        assert_eq!((&*react.emoji, react.is_removal), ("👍", expected), "{json}");
    }
    for (active, expected) in [("", true), (r#","active":true"#, true), (r#","active":false"#, false)] {
        let json = format!(r#"{{"meeting_id":"m"{active}}}"#);
        assert_eq!(Typing::read(Some(raw(&json))).unwrap().active, expected, "{json}");
    }
    assert_eq!(MarkRead::read(Some(raw(r#"{"meeting_id":3,"seq":12}"#))).unwrap().seq, 12);
}

#[test]
fn pages_of_history() {
    let all = Kind::ALL.to_vec();
    let cases: [(&str, &[(&str, &str)], _); 11] = [
        ("", &[], (From::Top, 50, vec![])),
        (r#","before_seq":5,"limit":1"#, &[("before_seq", "5"), ("limit", "1")], (From::Before(5), 1, vec![])),
        (r#","after_seq":0,"limit":100"#, &[("after_seq", "0"), ("limit", "100")], (From::After(0), 100, vec![])),
        (r#","limit":101"#, &[("limit", "101")], (From::Top, 100, vec![])),
        (r#","limit":0"#, &[("limit", "0")], (From::Top, 1, vec![])),
        (r#","limit":-7"#, &[("limit", "-7")], (From::Top, 1, vec![])),
        (r#","limit":null"#, &[("other", "x")], (From::Top, 50, vec![])),
        (r#","kinds":[]"#, &[("kinds", "")], (From::Top, 50, vec![])),
        (
            r#","kinds":["meeting_update","chat_message","meeting_update"]"#,
            &[("kinds", "meeting_update,chat_message,meeting_update")],
            (From::Top, 50, vec![Kind::MeetingUpdate, Kind::ChatMessage]),
        ),
        (
            r#","kinds":["chat_message","message_edited","message_deleted","message_reaction","meeting_update"]"#,
            &[("kinds", "chat_message,message_edited,message_deleted,message_reaction,meeting_update")],
            (From::Top, 50, all),
        ),
        (
            r#","before_seq":9007199254740991"#,
            &[("before_seq", "9007199254740991")],
            (From::Before((1 << 53) - 1), 50, vec![]),
        ),
    ];
    for (fields, query, expected) in cases {
        let json = format!(r#"{{"meeting_id":"m"{fields}}}"#);
        let history = History::read(Some(raw(&json))).unwrap();
        let by_query = History::from_query("m", query.iter().copied()).unwrap();
        for history in [history, by_query] {
            assert_eq!((history.from, history.limit, history.kinds), expected, "{json}");
            assert_eq!((history.meeting.as_str(), history.epoch), ("m", None));
        }
    }
    let json = raw(r#"{"meeting_id":"m","epoch":"e1"}"#);
    assert_eq!(History::read(Some(json)).unwrap().epoch.as_deref(), Some("e1"));
    let both = raw(r#"{"meeting_id":"m","before_seq":2,"after_seq":1}"#);
    assert_eq!(refused(History::read(Some(both))), Some("before_seq"));
}

#[test]
fn lists_of_users_and_of_notifications() {
    for (limit, expected) in [("null", 200), ("0", 1), ("-1", 1), ("1", 1), ("1000", 1000), ("1001", 1000)] {
        let json = format!(r#"{{"meeting_id":"m","limit":{limit}}}"#);
        assert_eq!(Presence::read(Some(raw(&json))).unwrap().limit, expected, "{json}");
        let query = [("limit", limit)];
        let by_query = Presence::from_query("m", query.into_iter().filter(|_| limit != "null"));
        assert_eq!(by_query.unwrap().limit, expected, "{limit}");
    }
    let cases = [
        ("{}", "", (From::Top, 50, false)),
        (r#"{"before":3,"limit":100}"#, "before=3 limit=100", (From::Before(3), 100, false)),
        (r#"{"after":3,"limit":101}"#, "after=3 limit=101", (From::After(3), 100, false)),
        (r#"{"limit":0,"unread_only":true}"#, "limit=0 unread_only=true", (From::Top, 1, true)),
        (r#"{"limit":-5,"unread_only":false}"#, "limit=-5 unread_only=false", (From::Top, 1, false)),
        (r#"{"unread_only":true}"#, "unread_only=1", (From::Top, 50, true)),
        (r#"{"unread_only":null}"#, "unread_only=0", (From::Top, 50, false)),
    ];
    for (json, query, expected) in cases {
        let query = query.split(' ').filter_map(|parameter| parameter.split_once('='));
        for read in [Notifications::read(Some(raw(json))), Notifications::from_query(query)] {
            let read = read.unwrap();
            assert_eq!((read.from, read.limit, read.unread_only), expected, "{json}");
        }
    }
    assert_eq!(refused(Notifications::read(Some(raw(r#"{"before":2,"after":1}"#)))), Some("before"));
    assert_eq!(Notifications::read(None).unwrap().limit, 50);
}

#[test]
fn notifications_are_read_by_id_or_up_to_a_number() {
    let ids = |ids: &[&str]| Ok(Read::Ids(ids.iter().map(|id| (*id).into()).collect()));
    let cases = [
        (r#"{"ids":["a",7,"a"]}"#, ids(&["a", "7"])),
        (r#"{"ids":["a"],"up_to":null}"#, ids(&["a"])),
        (r#"{"ids":[]}"#, ids(&[])),
        (r#"{"up_to":0}"#, Ok(Read::UpTo(0))),
        (r#"{"up_to":9007199254740991}"#, Ok(Read::UpTo((1 << 53) - 1))),
        (r#"{"up_to":9007199254740992}"#, Err("up_to")),
        (r#"{"up_to":-1}"#, Err("up_to")),
        (r#"{"up_to":1.5}"#, Err("up_to")),
        (r#"{"up_to":"1"}"#, Err("up_to")),
        (r#"{"up_to":1,"ids":[]}"#, Err("up_to")),
        ("{}", Err("ids")),
        (r#"{"up_to":null,"ids":null}"#, Err("ids")),
    ];
    for (json, expected) in cases {
        let read = ReadNotifications::read(Some(raw(json))).map(|read| read.which);
        assert_eq!(read.map_err(|error| error.details.unwrap().field), expected, "{json}");
    }
}

#[test]
fn tokens_lose_their_scheme_and_are_not_shown() {
    let cases = [
        ("abc", "abc"),
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("Bearer ", ""),
        ("Bearer", "Bearer"),
        ("Bearerabc", "Bearerabc"),
        ("Bearer Bearer abc", "Bearer abc"),
        ("äääääää", "äääääää"),
    ];
    for (sent, expected) in cases {
        for escaped in [format!("\"{sent}\""), format!("\"{}\"", sent.replace('e', "\\u0065"))] {
            let json = format!(r#"{{"token":{escaped},"client":"web"}}"#);
            let refresh = RefreshToken::read(Some(raw(&json))).unwrap();
            assert_eq!(refresh.token, expected, "{json}");
            assert_eq!(format!("{refresh:?}"), "RefreshToken(…)");
            let connect = ConnectAuth::read(Some(raw(&json)));
            assert_eq!(connect.token.as_deref(), Some(expected).filter(|token| !token.is_empty()), "{json}");
            let has_token = !expected.is_empty();
            let shown = format!("ConnectAuth {{ has_token: {has_token}, client: Some(\"web\") }}");
            assert_eq!(format!("{connect:?}"), shown);
        }
    }
}

#[test]
fn connects_never_fail_for_what_they_carry() {
    let long = format!(r#"{{"token":"t","client":{}}}"#, quoted(65));
    let fits = format!(r#"{{"token":"t","client":{}}}"#, quoted(64));
    let cases: [(&str, Option<&str>, bool); 16] = [
        ("null", None, false),
        ("5", None, false),
        ("\"t\"", None, false),
        ("[\"t\"]", None, false),
        ("{}", None, false),
        (r#"{"token":"t"}"#, Some("t"), false),
        (r#"{"token":null,"client":"c"}"#, None, true),
        (r#"{"token":5,"client":"c"}"#, None, true),
        (r#"{"token":"","client":"c"}"#, None, true),
        (r#"{"token":"\ud800","client":"c"}"#, None, true),
        (r#"{"token":"t","client":5}"#, Some("t"), false),
        (r#"{"token":"t","client":""}"#, Some("t"), false),
        (r#"{"token":"t","client":"\u0000"}"#, Some("t"), false),
        (r#"{"token":"t","token":"u"}"#, None, false),
        (&long, Some("t"), false),
        (&fits, Some("t"), true),
    ];
    for (json, token, has_client) in cases {
        let connect = ConnectAuth::read(Some(raw(json)));
        assert_eq!((connect.token.as_deref(), connect.client.is_some()), (token, has_client), "{json}");
    }
    assert!(ConnectAuth::read(None).token.is_none());
}

#[test]
fn paths_and_queries_are_checked_like_payloads() {
    let ids: [(&str, bool); 8] = [
        ("m", true),
        ("42", true),
        ("a.b:c_d-1", true),
        ("", false),
        ("a b", false),
        ("a/b", false),
        ("ä", false),
        ("a\0", false),
    ];
    let nothing = || std::iter::empty::<(&str, &str)>();
    let text = Some(raw(r#"{"text":"hi","meeting_id":{}}"#));
    let ulid = ULID.trim_matches('"');
    let long = "x".repeat(129);
    let longest = "x".repeat(128);
    for (id, is_fine) in ids.into_iter().chain([(longest.as_str(), true), (long.as_str(), false)]) {
        let expected = if is_fine { None } else { Some("meeting_id") };
        assert_eq!(refused(Meeting::from_path(id)), expected, "{id}");
        assert_eq!(refused(SendMessage::read_in(id, text, None)), expected, "{id}");
        assert_eq!(refused(EditMessage::read_in(id, ulid, text)), expected, "{id}");
        assert_eq!(refused(DeleteMessage::from_path(id, ulid)), expected, "{id}");
        assert_eq!(refused(MarkRead::read_in(id, Some(raw(r#"{"seq":1}"#)))), expected, "{id}");
        assert_eq!(refused(History::from_query(id, nothing())), expected, "{id}");
        assert_eq!(refused(Presence::from_query(id, nothing())), expected, "{id}");
    }
    for id in ["", "01ARZ3NDEKTSV4RRFFQ69G5FA", "01ARZ3NDEKTSV4RRFFQ69G5FAVX", "01ARZ3NDEKTSV4RRFFQ69G5FA-"] {
        assert_eq!(refused(EditMessage::read_in("m", id, text)), Some("id"), "{id}");
        assert_eq!(refused(DeleteMessage::from_path("m", id)), Some("id"), "{id}");
    }
    let wrong = [
        ("before_seq", "x"),
        ("before_seq", ""),
        ("before_seq", "+5"),
        ("before_seq", "-1"),
        ("before_seq", "9007199254740992"),
        ("after_seq", "1.5"),
        ("after_seq", " 1"),
        ("after_seq", "٣"),
        ("limit", ""),
        ("limit", "-"),
        ("limit", "ten"),
        ("limit", "1e1"),
        ("kinds", "typing"),
        ("kinds", "chat_message,"),
        ("kinds", "chat_message, message_edited"),
        ("epoch", long.as_str()),
    ];
    for (name, value) in wrong {
        assert_eq!(refused(History::from_query("m", [(name, value)].into_iter())), Some(name), "{name}={value}");
    }
    let both = [("before_seq", "2"), ("after_seq", "1")];
    assert_eq!(refused(History::from_query("m", both.into_iter())), Some("before_seq"));
    let twice = [("limit", "2"), ("x", "1"), ("x", "1"), ("limit", "2")];
    assert_eq!(refused(History::from_query("m", twice.into_iter())), Some("limit"));
    assert_eq!(refused(Presence::from_query("m", twice.into_iter())), Some("limit"));
    assert_eq!(refused(Notifications::from_query(twice.into_iter())), Some("limit"));
    let epoch = History::from_query("m", [("epoch", "e1")].into_iter()).unwrap().epoch;
    assert_eq!(epoch.as_deref(), Some("e1"));
    for (name, value) in [("unread_only", ""), ("unread_only", "yes"), ("before", "x"), ("after", "-1"), ("limit", "")]
    {
        assert_eq!(refused(Notifications::from_query([(name, value)].into_iter())), Some(name), "{name}={value}");
    }
    let both = [("before", "2"), ("after", "1")];
    assert_eq!(refused(Notifications::from_query(both.into_iter())), Some("before"));
}

#[test]
fn the_path_and_the_header_go_before_the_body() {
    let body = raw(r#"{"meeting_id":"other","text":"hi","client_id":"of-body"}"#);
    let message = SendMessage::read_in("m", Some(body), Some("of-header")).unwrap();
    assert_eq!((message.meeting.as_str(), message.client_id.as_deref()), ("m", Some("of-header")));
    let message = SendMessage::read_in("m", Some(body), None).unwrap();
    assert_eq!(message.client_id.as_deref(), Some("of-body"));
    let longest = "x".repeat(64);
    assert_eq!(refused(SendMessage::read_in("m", Some(body), Some(&longest))), None);
    let long = "x".repeat(65);
    for key in ["", "a b", "ä", "\"k\"", long.as_str()] {
        assert_eq!(refused(SendMessage::read_in("m", Some(body), Some(key))), Some("Idempotency-Key"), "{key}");
    }
    let body = r#"{"id":"x","text":"hi","seq":4}"#;
    let edit = EditMessage::read_in("m", ULID.trim_matches('"'), Some(raw(body))).unwrap();
    assert_eq!((edit.meeting.as_str(), edit.text.get()), ("m", "\"hi\""));
    assert!(matches!(edit.id, MessageRef::Known(_)));
    assert_eq!(MarkRead::read_in("m", Some(raw(body))).unwrap().seq, 4);
    assert_eq!(refused(MarkRead::read_in("m", None)), Some("payload"));
    assert_eq!(refused(MarkRead::read_in("m", Some(raw("{}")))), Some("seq"));
    assert_eq!(refused(EditMessage::read_in("m", ULID.trim_matches('"'), Some(raw("{}")))), Some("text"));
    assert_eq!(refused(SendMessage::read_in("m", Some(raw("[]")), None)), Some("payload"));
}

#[test]
fn bodies_are_json_of_bounded_depth() {
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    let cases: Vec<(Vec<u8>, bool)> = vec![
        (b" {\"a\":1}\n".to_vec(), true),
        (b"5".to_vec(), true),
        (nested(32), true),
        (nested(33), false),
        (nested(100_000), false),
        (b"".to_vec(), false),
        (b"{".to_vec(), false),
        (b"{} {}".to_vec(), false),
        (b"{\"a\":\"\xff\"}".to_vec(), false),
    ];
    for (bytes, is_fine) in cases {
        assert_eq!(body(&bytes).is_ok(), is_fine, "{:.40}", String::from_utf8_lossy(&bytes));
    }
    assert_eq!(body(b" {\"a\":1}\n").unwrap().get(), "{\"a\":1}");
}

/// Payloads put together at random, and damaged: read or refused, and what was read keeps its limits.
#[test]
fn nothing_that_is_sent_makes_a_reader_panic() {
    const FIELDS: [&str; 27] = [
        "meeting_id",
        "room",
        "text",
        "message",
        "client_id",
        "reply_to",
        "mentions",
        "meta",
        "since",
        "limit",
        "presence",
        "id",
        "emoji",
        "remove",
        "active",
        "seq",
        "before_seq",
        "after_seq",
        "epoch",
        "kinds",
        "after",
        "before",
        "unread_only",
        "ids",
        "up_to",
        "token",
        "x",
    ];
    const VALUES: [&str; 24] = [
        "null",
        "true",
        "false",
        "0",
        "-1",
        "7",
        "300",
        "1.5e9",
        "9007199254740991",
        "99999999999999999999",
        "\"\"",
        "\"m\"",
        "\"hi\\n\"",
        "\"\\ud800\"",
        "\"\\ud83d\\ude00\"",
        "\"01ARZ3NDEKTSV4RRFFQ69G5FAV\"",
        "\"Bearer \\u00e4\"",
        "[]",
        "[\"u\",5]",
        "[\"chat_message\"]",
        "{}",
        "{\"epoch\":\"e\",\"seq\":1}",
        "{\"k\":[[[1]]]}",
        "[[[[[[]]]]]]",
    ];
    let mut rng = fastrand::Rng::with_seed(7);
    let mut taken = [0_u32; READERS.len()];
    for _ in 0..200_000 {
        let reader = rng.usize(..READERS.len());
        let mut fields = READERS[reader].required.to_vec();
        fields.extend(
            (0..rng.usize(0..4)).map(|_| (FIELDS[rng.usize(..FIELDS.len())], VALUES[rng.usize(..VALUES.len())])),
        );
        let fields: Vec<_> = fields.iter().map(|(field, value)| format!("\"{field}\":{value}")).collect();
        let mut bytes = format!("{{{}}}", fields.join(",")).into_bytes();
        for _ in 0..rng.usize(0..3) {
            let at = rng.usize(..bytes.len());
            match rng.u8(..4) {
                0 => bytes[at] = rng.u8(..),
                1 => bytes[at] = b"\"\\{}[],:0-e.u"[rng.usize(..13)],
                2 => bytes.truncate(at + 1),
                _ => bytes.insert(at, rng.u8(..)),
            }
        }
        if let Ok(body) = body(&bytes) {
            taken[reader] += u32::from((READERS[reader].read)(Some(body)).is_none());
            ConnectAuth::read(Some(body));
            SendMessage::reference(Some(body));
            if let Ok(history) = History::read(Some(body)) {
                assert!((1..=100).contains(&history.limit) && history.kinds.len() <= 5);
            }
        }
    }
    assert!(taken.iter().all(|count| *count > 1000), "what is put together is hardly ever right: {taken:?}");
}
