use std::sync::Mutex;

use super::{known::KNOWN_KEPT_MS, *};
use crate::{
    adapter::classic::Request,
    redis::Address,
    store::{Kind, Position},
};

/// Notes what it is told, in a word each.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }
}

impl Deliver for Notes {
    fn logged(&self, meeting: RoomId, event: LogEvent) {
        self.note(format!("logged {} {} {} {}", meeting.as_str(), event.epoch, event.seq, event.json));
    }
    fn emit(&self, emit: Emit) {
        let Emit { rooms, except, event, is_volatile, .. } = emit;
        self.note(format!("emit {rooms:?} {except:?} {} {} {is_volatile}", event.name, event.args.json));
    }
    fn note(&self, peer: &Arc<str>, meeting: Option<RoomId>, note: &str) {
        Self::note(self, format!("note {peer} {:?} {note}", meeting.as_ref().map(RoomId::as_str)));
    }
    fn request(&self, request: Request) {
        self.note(format!("request {:?}", request.uid));
    }
    fn python(&self, method: python::Method<'_>) {
        self.note(format!("python {}", matches!(method, python::Method::Disconnect { .. })));
    }
    fn update(&self, json: &str) {
        self.note(format!("update {json}"));
    }
    fn kept_update(&self, _: String, _: u64) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        Box::pin(async { true })
    }
    fn auth_event(&self, json: &str) {
        self.note(format!("auth {json}"));
    }
    fn lost_peers(&self, _: Vec<Arc<str>>) {}
    fn check(&self) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        Box::pin(async { true })
    }
    fn look_around(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async {})
    }
    fn note_again(&self) {}
    fn heard_again(&self, _: Duration) {}
    fn beat(&self) {}
}

/// An instance that is never connected.
fn alone() -> Arc<Cluster> {
    let settings = crate::redis::Settings::new(Address::parse("redis://127.0.0.1:1").unwrap());
    let redis = Redis::start(settings, |_| {}, drop);
    let settings = Settings {
        adapter_prefix: "socket.io".into(),
        key_prefix: "chat:".into(),
        needs_replicas: false,
        python_channels: vec!["socketio".into()],
    };
    let metrics = Arc::new(Metrics::new(std::time::SystemTime::UNIX_EPOCH));
    Cluster::new(redis, "ours01", settings, metrics, Box::new(drop))
}

fn heard(cluster: &Cluster, channel: &str, payload: &[u8], is_pattern: bool) -> Result<Vec<String>, String> {
    let notes = Notes::default();
    cluster.hear(&notes, channel, payload, is_pattern)?;
    Ok(notes.0.into_inner().unwrap())
}

fn broadcast(uid: &str, namespace: &'static str, rooms: &[&str], meta: Option<Meta<'_>>) -> Vec<u8> {
    Broadcast {
        uid: Some(Cow::Owned(uid.to_owned())),
        namespace: Cow::Borrowed(namespace),
        event: Event::new("hello", "1,2"),
        rooms: rooms.iter().map(|room| Cow::Owned((*room).to_owned())).collect(),
        meta,
        ..Broadcast::default()
    }
    .encode()
    .unwrap()
}

#[test]
fn everything_on_the_channels_goes_to_whom_it_is_for() {
    let logged = Meta { seq: Some(7), epoch: Some("e"), kind: Some(0), json: Some("{\"a\":1}"), control: None };
    let json = |json| Some(Meta { json: Some(json), ..Meta::default() });
    let note = Some(Meta { control: Some("{}"), ..Meta::default() });
    let python = br#"{"method":"emit","event":"e","data":["x"],"namespace":"/","room":"m","host_id":"h"}"#;
    let nobody = br#"{"method":"emit","event":"e","data":["x"],"namespace":"/","room":[],"host_id":"h"}"#;
    let request = br#"{"uid":"other1","requestId":"r","type":1}"#;
    let own_request = br#"{"uid":"ours01","requestId":"r","type":1}"#;
    #[rustfmt::skip] // a table: one row, one case
    #[expect(clippy::type_complexity, reason = "a table: one row, one case")]
    let cases: &[(&str, &str, Vec<u8>, Result<&[&str], &str>)] = &[
        ("a logged event", "socket.io#/#m#", broadcast("other1", "/", &["m"], Some(logged)), Ok(&["logged m e 7 {\"a\":1}"])),
        ("our own, as its answer may be lost", "socket.io#/#m#", broadcast("ours01", "/", &["m"], Some(logged)), Ok(&["logged m e 7 {\"a\":1}"])),
        ("of a meeting that is called like a user", "socket.io#/#meeting:user:1#", broadcast("o", "/", &[], Some(logged)), Ok(&["logged user:1 e 7 {\"a\":1}"])),
        ("on a user's channel", "socket.io#/#user:1#", broadcast("o", "/", &[], Some(logged)), Err("meeting")),
        ("of an unknown kind", "socket.io#/#m#", broadcast("o", "/", &[], Some(Meta { kind: Some(5), ..logged })), Err("kind")),
        ("whose payload is no JSON", "socket.io#/#m#", broadcast("o", "/", &[], Some(Meta { json: Some("{"), ..logged })), Err("JSON")),
        ("whose payload is no object", "socket.io#/#m#", broadcast("o", "/", &[], Some(Meta { json: Some("1"), ..logged })), Err("object")),
        ("an emit to a room", "socket.io#/#m#", broadcast("other1", "/", &["m"], None), Ok(&["emit [\"m\"] [] hello 1,2 false"])),
        ("to everybody", "socket.io#/#", broadcast("other1", "/", &[], None), Ok(&["emit [] [] hello 1,2 false"])),
        ("with its JSON", "socket.io#/#m#", broadcast("other1", "/", &["m"], json("{\"n\":1.0}")), Ok(&["emit [\"m\"] [] hello {\"n\":1.0} false"])),
        ("with what is no JSON", "socket.io#/#m#", broadcast("other1", "/", &["m"], json("nonsense")), Ok(&["emit [\"m\"] [] hello 1,2 false"])),
        ("our own emit", "socket.io#/#m#", broadcast("ours01", "/", &["m"], None), Ok(&[])),
        ("in another namespace", "socket.io#/#m#", broadcast("other1", "/admin", &["m"], None), Ok(&[])),
        ("a note of a meeting", "socket.io#/#m#", broadcast("other1", NOTES, &["m"], note), Ok(&["note other1 Some(\"m\") {}"])),
        ("a note to all", "chat:peers", broadcast("other1", NOTES, &[], note), Ok(&["note other1 None {}"])),
        ("our own note", "chat:peers", broadcast("ours01", NOTES, &[], note), Ok(&[])),
        ("garbage", "socket.io#/#m#", b"\xc1".to_vec(), Err("")),
        ("a request", "socket.io-request#/#", request.to_vec(), Ok(&["request Some(\"other1\")"])),
        ("our own request", "socket.io-request#/#", own_request.to_vec(), Ok(&[])),
        ("no request", "socket.io-request#/#", b"{}".to_vec(), Err("")),
        ("a response to somebody", "socket.io-response#/#", b"garbage".to_vec(), Ok(&[])),
        ("an update", "meeting_updates", b"{}".to_vec(), Ok(&["update {}"])),
        ("no text", "meeting_updates", b"\xff".to_vec(), Err("UTF-8")),
        ("an update at its limit", "meeting_updates", vec![b' '; 64 * 1024], Ok(&[&format!("update {}", " ".repeat(64 * 1024))])),
        ("one past it", "meeting_updates", vec![b' '; 64 * 1024 + 1], Err("65536")),
        ("a revocation", "auth_events", b"{}".to_vec(), Ok(&["auth {}"])),
        ("a Python emit", "socketio", python.to_vec(), Ok(&["emit [\"m\"] [] e \"x\" false"])),
        ("to nobody", "socketio", nobody.to_vec(), Ok(&[])),
        ("a Python disconnect", "socketio", br#"{"method":"disconnect","sid":"s","namespace":"/"}"#.to_vec(), Ok(&["python true"])),
        ("in another namespace", "socketio", br#"{"method":"disconnect","sid":"s","namespace":"/x"}"#.to_vec(), Ok(&[])),
        ("a pickle", "socketio", b"\x80\x04\x95".to_vec(), Err("pickle")),
    ];
    for (name, channel, payload, expected) in cases {
        let heard = heard(&alone(), channel, payload, false);
        match (heard, expected) {
            (Ok(heard), Ok(expected)) => assert_eq!(heard, *expected, "{name}"),
            (Err(why), Err(expected)) => assert!(why.contains(expected), "{name}: {why}"),
            (heard, _) => panic!("{name}: {heard:?}"),
        }
    }
    assert_eq!(Kind::ALL.len(), 5, "the unknown kind above is unknown");
}

#[test]
fn what_a_pattern_shows_as_well_is_heard_once() {
    let cluster = alone();
    let payload = broadcast("other1", "/", &["user:x"], None);
    assert_eq!(heard(&cluster, "socket.io#/#user:x#", &payload, true).unwrap().len(), 1);
    let payload = broadcast("other1", "/", &["ours01-room"], None);
    assert_eq!(heard(&cluster, "socket.io#/#ours01-room#", &payload, true).unwrap().len(), 1);
    // Somebody is in a meeting that is called like one of our sockets.
    assert!(smol::block_on(cluster.listen(&RoomId::new("ours01-room"), 0)).is_err(), "it is not connected");
    assert_eq!(heard(&cluster, "socket.io#/#ours01-room#", &payload, true).unwrap().len(), 0);
    assert_eq!(heard(&cluster, "socket.io#/#ours01-room#", &payload, false).unwrap().len(), 1);
}

#[test]
fn a_channel_is_given_up_some_time_after_its_last_use() {
    let (cluster, meeting) = (alone(), RoomId::new("m"));
    let _ = smol::block_on(cluster.listen(&meeting, 1000));
    let cases =
        [(1000 + CHANNEL_KEPT_MS, false, true), (90_000, true, true), (120_000, false, true), (120_001, false, false)];
    for (now, is_hosted, is_kept) in cases {
        cluster.sweep(|_| is_hosted, now);
        assert_eq!(cluster.channels.pin().contains_key(&meeting), is_kept, "at {now}");
    }
}

#[test]
fn what_is_known_of_a_log_only_grows_within_its_life() {
    let (cluster, meeting) = (alone(), RoomId::new("m"));
    let (e, f): (Arc<str>, Arc<str>) = ("e".into(), "f".into());
    assert_eq!(cluster.known(&meeting), None);
    for (epoch, seq, known) in [(&e, 3, 3), (&e, 2, 3), (&e, 4, 4), (&f, 1, 1)] {
        cluster.note(&meeting, epoch, seq, 1000);
        assert_eq!(cluster.known(&meeting), Some(Position { epoch: Arc::clone(epoch), seq: known }));
    }
    // Nobody listens to it: it is forgotten when no server that failed would have, which one that is away may have done.
    for (now, is_up, is_known) in [
        (2000 + KNOWN_KEPT_MS, false, true),
        (9000 + KNOWN_KEPT_MS, true, true),
        (9000 + 2 * KNOWN_KEPT_MS, true, true),
        (9001 + 2 * KNOWN_KEPT_MS, false, true),
        (9002 + 2 * KNOWN_KEPT_MS, true, true),
        (9002 + 3 * KNOWN_KEPT_MS, true, true),
        (9003 + 3 * KNOWN_KEPT_MS, true, false),
    ] {
        cluster.forget_known(is_up, now);
        assert_eq!(cluster.all_known().len(), usize::from(is_known), "at {now}");
    }
}

#[test]
fn rooms_that_are_sockets() {
    let cluster = alone();
    cluster.members.note(&"other1".into());
    let cases = [
        ("ours01aaaaaaaaaaaaaa", true),
        ("other1aaaaaaaaaaaaaa", true),
        ("gone01aaaaaaaaaaaaaa", false),
        ("ours01aaaaaaaaaaaaa", false),
        ("ours01aaaaaaaaaaaaaaa", false),
        ("standup", false),
    ];
    for (room, is_socket) in cases {
        assert_eq!(cluster.names_socket(room), is_socket, "{room}");
    }
}

#[test]
fn patterns_take_nothing_but_what_is_meant() {
    assert_eq!(escape("a*b?[c]\\"), "a\\*b\\?\\[c\\]\\\\");
}
