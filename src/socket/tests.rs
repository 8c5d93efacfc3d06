//! The life of a client, seen from both sides: messages in, frames and handler calls out, on a fake clock.
//!
//! Sections are those of the public text "Socket.IO Protocol", 5th revision; "facts" is our list of what clients and
//! the reference do beyond it.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::value::RawValue;

use crate::{
    outbox::{Outbox, Pushed},
    socket::{
        AckError, ConnectRequest, Connection, DisconnectReason, Event, Limits, Namespaces, NamespacesBuilder,
        ProtocolError, Socket, WeakSocket,
    },
    types::{CloseReason, Handshake},
};

/// What happened, in order. Shared with the handlers.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    fn note(&self, entry: impl Into<String>) {
        self.0.lock().unwrap().push(entry.into());
    }

    fn take(&self) -> Vec<String> {
        mem::take(&mut *self.0.lock().unwrap())
    }
}

/// Requests whose middleware has not answered.
type Waiting = Arc<Mutex<Vec<ConnectRequest>>>;

/// One client of a small application.
struct Bench {
    connection: Arc<Connection>,
    outbox: Arc<Outbox>,
    journal: Journal,
    waiting: Waiting,
    start: Instant,
}

impl Bench {
    /// `/` lets everybody in; `/slow` keeps each request in `waiting`; `/closed` refuses, with data if the client asks
    /// for them. All note what happens, `echo` answers, and `leave` ends the socket.
    fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    fn with_limits(limits: Limits) -> Self {
        let (journal, waiting) = (Journal::default(), Waiting::default());
        let builder = noting(Namespaces::builder().limits(limits), "/", &journal, None);
        let keep = Arc::clone(&waiting);
        let builder =
            noting(builder, "/slow", &journal, Some(Box::new(move |request| keep.lock().unwrap().push(request))));
        let namespaces = builder
            .namespace("/closed", |ns| {
                ns.middleware(|request| match request.payload() {
                    Some(_) => request.refuse_with("no entry", &[1, 2]),
                    None => request.refuse("no entry"),
                })
            })
            .build();
        Self::with_namespaces(namespaces, journal, waiting)
    }

    fn with_namespaces(namespaces: Arc<Namespaces>, journal: Journal, waiting: Waiting) -> Self {
        let start = Instant::now();
        let outbox = Arc::new(Outbox::new(16 << 20));
        let connection = Connection::new(Arc::clone(&outbox), namespaces, Arc::new(Handshake::default()), start);
        Self { connection, outbox, journal, waiting, start }
    }

    fn joined() -> Self {
        let bench = Self::new();
        bench.join("0");
        bench
    }

    /// Joins, and forgets what that sent and noted.
    fn join(&self, connect: &str) {
        self.send(connect).unwrap();
        assert_eq!(self.sent_without_ids(), [format!("4{connect}{{sid}}")]);
        assert_eq!(self.journal.take(), ["connect"]);
    }

    fn send(&self, text: &str) -> Result<(), ProtocolError> {
        self.connection.handle_text(text, self.start)
    }

    fn send_all(&self, texts: &[&str]) {
        for text in texts {
            self.send(text).unwrap();
        }
    }

    /// The packets for the client since the last look; `<n>` for a binary message of n bytes.
    fn sent(&self) -> Vec<String> {
        let text = |payload: &[u8]| String::from_utf8(payload.to_vec()).unwrap();
        let frames = self.outbox.take_all();
        let show = |frame: &crate::outbox::Frame| match frame.is_binary() {
            true => format!("<{}>", frame.payload().len()),
            false => text(frame.payload()),
        };
        frames.iter().map(show).collect()
    }

    fn sent_without_ids(&self) -> Vec<String> {
        let hide = |text: String| match text.split_once("{\"sid\":\"") {
            Some((head, id)) if id.len() == 22 => format!("{head}{{sid}}"),
            _ => text,
        };
        self.sent().into_iter().map(hide).collect()
    }

    fn waiting(&self) -> ConnectRequest {
        self.waiting.lock().unwrap().remove(0)
    }

    fn timeout_after(&self, time: Duration) -> Result<(), ProtocolError> {
        self.connection.handle_timeout(self.start + time)
    }
}

fn noting(
    builder: NamespacesBuilder,
    name: &str,
    journal: &Journal,
    middleware: Option<Box<dyn Fn(ConnectRequest) + Send + Sync>>,
) -> NamespacesBuilder {
    let [connected, event, disconnected] = [(); 3].map(|()| journal.clone());
    builder.namespace(name, |ns| {
        let ns = match middleware {
            Some(decide) => ns.middleware(decide),
            None => ns,
        };
        ns.on_connect(move |_| connected.note("connect"))
            .on("leave", |socket, _| socket.disconnect())
            .on("echo", |socket, event| {
                let (args, attachments) = (event.args.as_str(), event.attachments);
                match event.ack {
                    Some(ack) => ack.send_binary(args, attachments),
                    None => socket.emit_binary("echo", args, attachments),
                };
            })
            .on_any(move |_, Event { name, args, attachments, .. }| {
                event.note(format!("{name} {} +{}", args.as_str(), attachments.len()));
            })
            .on_disconnect(move |socket, reason| {
                assert!(!socket.is_connected());
                assert_eq!(socket.disconnect_reason(), Some(reason));
                disconnected.note(format!("disconnect {}", reason.as_str()));
            })
    })
}

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

// § Connection to a namespace

#[test]
fn connect_is_answered_first_and_then_comes_what_on_connect_emits() {
    let namespaces = Namespaces::builder()
        .namespace("/custom", |ns| {
            ns.middleware(|request| {
                let payload = request.payload().map(ToOwned::to_owned);
                request.accept_with(payload);
            })
            .on_connect(|socket| {
                let auth = socket.data::<Option<Box<RawValue>>>().unwrap();
                socket.emit_raw("auth", auth.as_deref().map_or("{}", RawValue::get));
            })
        })
        .build();
    let bench = Bench::with_namespaces(namespaces, Journal::default(), Waiting::default());
    bench.send(r#"0/custom,{"token":"123"}"#).unwrap();
    assert_eq!(bench.sent_without_ids(), ["40/custom,{sid}", r#"42/custom,["auth",{"token":"123"}]"#]);
    bench.send_all(&["1/custom", "0/custom"]);
    assert_eq!(bench.sent_without_ids(), ["40/custom,{sid}", r#"42/custom,["auth",{}]"#]);
}

#[test]
fn each_join_has_an_id_of_its_own() {
    let bench = Bench::new();
    bench.send("0").unwrap();
    bench.send("1").unwrap();
    bench.send("0").unwrap();
    let answers = bench.sent();
    assert_eq!(answers.len(), 2);
    assert_ne!(answers[0], answers[1]);
}

#[test]
fn a_packet_before_connect_closes() {
    let cases: &[(&str, ProtocolError)] = &[
        (r#"2["a"]"#, ProtocolError::NotJoined),
        ("1", ProtocolError::NotJoined),
        ("31[]", ProtocolError::NotJoined),
        (r#"51-["a"]"#, ProtocolError::NotJoined),
        (r#"2/random,["a"]"#, ProtocolError::NotJoined),
        (r#"51-/random,["a"]"#, ProtocolError::NotJoined),
        ("4", ProtocolError::ConnectErrorFromClient),
        ("4/random", ProtocolError::ConnectErrorFromClient),
        ("abc", ProtocolError::UnknownPacketType(b'a')),
    ];
    for (text, error) in cases {
        let bench = Bench::new();
        assert_eq!(bench.send(text), Err(*error), "{text}");
        assert_eq!(error.close_reason(), CloseReason::ParseError);
        assert_eq!(bench.sent(), [""; 0]);
    }
}

#[test]
fn a_packet_for_another_namespace_than_the_joined_one_closes() {
    for text in [r#"2/slow,["a"]"#, "1/slow", "3/slow,1[]", r#"51-/slow,["a"]"#] {
        assert_eq!(Bench::joined().send(text), Err(ProtocolError::NotJoined), "{text}");
    }
}

#[test]
fn a_second_connect_closes() {
    assert_eq!(Bench::joined().send("0"), Err(ProtocolError::AlreadyJoined));
    let pending = Bench::new();
    pending.send("0/slow").unwrap();
    assert_eq!(pending.send("0/slow,{}"), Err(ProtocolError::AlreadyJoined));
}

#[test]
fn a_connect_error_from_a_client_closes() {
    assert_eq!(Bench::joined().send("4{}"), Err(ProtocolError::ConnectErrorFromClient));
    let pending = Bench::new();
    pending.send("0/slow").unwrap();
    assert_eq!(pending.send("4/slow"), Err(ProtocolError::ConnectErrorFromClient));
}

#[test]
fn an_unknown_namespace_is_refused_and_the_connection_stays() {
    let bench = Bench::new();
    bench.send(r#"0/random,{"a":1}"#).unwrap();
    bench.send("0/random").unwrap();
    let refusal = r#"44/random,{"message":"Invalid namespace"}"#;
    assert_eq!(bench.sent(), [refusal, refusal]);
    bench.join("0");
}

#[test]
fn several_namespaces_live_side_by_side() {
    let bench = Bench::joined();
    bench.send("0/slow").unwrap();
    bench.waiting().accept();
    assert_eq!(bench.sent_without_ids(), ["40/slow,{sid}"]);
    bench.send_all(&["1/slow", r#"2["echo","still here"]"#]);
    assert_eq!(bench.sent(), [r#"42["echo","still here"]"#]);
    assert_eq!(bench.journal.take(), ["connect", "disconnect client_namespace_disconnect"]);
}

// Facts §11: the connect timeout

#[test]
fn without_a_join_in_time_the_connection_closes() {
    let bench = Bench::new();
    bench.send_all(&["0/random", "0/closed", "0/slow"]);
    assert_eq!(bench.connection.next_deadline(), Some(bench.start + 10 * SECOND));
    assert_eq!(bench.timeout_after(10 * SECOND - MILLI), Ok(()));
    let error = bench.timeout_after(10 * SECOND).unwrap_err();
    assert_eq!((error, error.close_reason()), (ProtocolError::NotJoinedInTime, CloseReason::ConnectTimeout));
}

#[test]
fn the_first_join_ends_the_connect_timeout_for_good() {
    let bench = Bench::joined();
    assert_eq!(bench.connection.next_deadline(), None);
    bench.send("1").unwrap();
    assert_eq!(bench.connection.next_deadline(), None);
    assert_eq!(bench.timeout_after(100 * SECOND), Ok(()));
}

// Facts §11: middleware

#[test]
fn a_refusal_names_its_message_and_its_data_if_any() {
    let bench = Bench::new();
    bench.send_all(&["0/closed", "0/closed,{}"]);
    let sent = [r#"44/closed,{"message":"no entry"}"#, r#"44/closed,{"message":"no entry","data":[1,2]}"#];
    assert_eq!(bench.sent(), sent);
    assert_eq!(bench.connection.next_deadline(), Some(bench.start + 10 * SECOND), "still not joined");
    bench.join("0");
    assert_eq!(bench.send(r#"2/closed,["a"]"#), Err(ProtocolError::NotJoined));
}

#[test]
fn a_request_dropped_unanswered_is_refused() {
    let bench = Bench::new();
    bench.send("0/slow").unwrap();
    drop(bench.waiting());
    assert_eq!(bench.sent(), [r#"44/slow,{"message":"internal error"}"#]);
    bench.send("0/slow").unwrap();
    bench.waiting().accept();
    assert_eq!(bench.sent_without_ids(), ["40/slow,{sid}"]);
}

#[test]
fn a_request_shows_payload_handshake_and_the_future_id() {
    let seen = Arc::new(Mutex::new(None));
    let note = Arc::clone(&seen);
    let namespaces = Namespaces::builder()
        .namespace("/", |ns| {
            ns.middleware(move |request| {
                let payload = request.payload().unwrap().get().to_owned();
                let query = request.handshake().query.to_string();
                *note.lock().unwrap() = Some((payload, query, request.socket_id().clone()));
                request.accept();
            })
        })
        .build();
    let handshake = Arc::new(Handshake { query: "EIO=4".into(), ..Handshake::default() });
    let outbox = Arc::new(Outbox::new(1000));
    let now = Instant::now();
    let connection = Connection::new(Arc::clone(&outbox), namespaces, handshake, now);
    connection.handle_text(r#"0{"token":"\ud800"}"#, now).unwrap();
    let (payload, query, id) = seen.lock().unwrap().take().unwrap();
    assert_eq!((payload.as_str(), query.as_str()), (r#"{"token":"\ud800"}"#, "EIO=4"));
    assert_eq!(outbox.take_all()[0].payload(), format!("40{{\"sid\":\"{id}\"}}").as_bytes());
}

#[test]
fn a_client_that_leaves_while_the_middleware_runs_does_not_join() {
    let bench = Bench::joined();
    bench.send_all(&["0/slow", r#"2/slow,["a"]"#, "1/slow"]);
    let request = bench.waiting();
    assert_eq!(bench.send(r#"2/slow,["a"]"#), Err(ProtocolError::NotJoined));
    request.accept();
    assert_eq!(bench.sent(), [""; 0]);
    assert_eq!(bench.journal.take(), [""; 0]);
}

#[test]
fn a_late_answer_does_not_decide_about_the_next_connect() {
    let bench = Bench::new();
    bench.send_all(&["0/slow", "1/slow", "0/slow"]);
    bench.waiting().refuse("late");
    assert_eq!(bench.sent(), [""; 0]);
    bench.waiting().accept();
    assert_eq!(bench.sent_without_ids(), ["40/slow,{sid}"]);
    assert_eq!(bench.journal.take(), ["connect"]);
}

#[test]
fn an_answer_after_the_close_comes_to_nothing() {
    for accepts in [true, false] {
        let bench = Bench::new();
        bench.send("0/slow").unwrap();
        let request = bench.waiting();
        bench.connection.close(CloseReason::TransportClose);
        if accepts {
            request.accept()
        } else {
            request.refuse("late")
        }
        assert_eq!(bench.sent(), [""; 0]);
        assert_eq!(bench.journal.take(), [""; 0]);
    }
}

// Contract §12: packets right behind a CONNECT are handled after it, in order

#[test]
fn packets_behind_a_pending_connect_wait_in_order() {
    let bench = Bench::joined();
    bench.send_all(&["0/slow", r#"2/slow,["a",1]"#, r#"51-/slow,["b",{"_placeholder":true,"num":0}]"#]);
    bench.connection.handle_binary(vec![1, 2]).unwrap();
    bench.send_all(&[r#"2["main"]"#, r#"2/slow,7["echo",3]"#, r#"2/slow,["c"]"#]);
    assert_eq!(bench.journal.take(), ["main  +0"], "other namespaces do not wait");
    bench.waiting().accept();
    assert_eq!(bench.journal.take(), ["connect", "a 1 +0", r#"b {"_placeholder":true,"num":0} +1"#, "c  +0"]);
    assert_eq!(bench.sent_without_ids(), ["40/slow,{sid}", "43/slow,7[3]"]);
    bench.send(r#"2/slow,["d"]"#).unwrap();
    assert_eq!(bench.journal.take(), ["d  +0"]);
}

#[test]
fn packets_behind_a_refused_connect_close() {
    let bench = Bench::new();
    bench.send_all(&["0/slow", r#"2/slow,["a"]"#]);
    bench.waiting().refuse("no");
    assert_eq!(bench.sent(), [r#"44/slow,{"message":"no"}"#]);
    assert_eq!(bench.outbox.close_reason(), Some(CloseReason::ParseError));
}

#[test]
fn parked_packets_are_bounded() {
    let packet = r#"2/slow,["a"]"#;
    let cost_bytes = packet.len() + Limits::PARCEL_BYTES;
    let limits = |max_parked_bytes| Limits { max_parked_bytes, ..Limits::default() };
    let bench = Bench::with_limits(limits(3 * cost_bytes));
    bench.send_all(&["0/slow", packet, packet, packet]);
    let error = ProtocolError::TooMuchParked { max_bytes: 3 * cost_bytes };
    assert_eq!(bench.send(packet), Err(error));
    assert_eq!(error.close_reason(), CloseReason::TooLarge);

    let bench = Bench::with_limits(limits(3 * cost_bytes - 1));
    bench.send_all(&["0/slow", packet, packet]);
    assert!(bench.send(packet).is_err());

    let binary = r#"51-/slow,["a"]"#;
    let bench = Bench::with_limits(limits(binary.len() + Limits::PARCEL_BYTES + 10));
    bench.send_all(&["0/slow", binary]);
    bench.connection.handle_binary(vec![0; 10]).unwrap();
    bench.waiting().accept();
    bench.send_all(&["1/slow", "0/slow", binary]);
    assert!(bench.connection.handle_binary(vec![0; 11]).is_err(), "attachments count");
}

#[test]
fn what_was_parked_does_not_count_any_more_once_it_is_handled_or_dropped() {
    let packet = r#"2/slow,["a"]"#;
    let max_parked_bytes = packet.len() + Limits::PARCEL_BYTES;
    let bench = Bench::with_limits(Limits { max_parked_bytes, ..Limits::default() });
    for _ in 0..3 {
        bench.send_all(&["0/slow", packet, "1/slow"]);
        drop(bench.waiting());
        bench.send_all(&["0/slow", packet]);
        bench.waiting().accept();
        bench.send("1/slow").unwrap();
    }
    bench.send_all(&["0/slow", packet]);
    assert!(bench.send(packet).is_err());
}

/// Hands messages in while `on_connect` runs, as the connection's task does when another thread has accepted.
struct Feeder {
    connection: OnceLock<Weak<Connection>>,
    texts: Mutex<Vec<String>>,
}

impl Feeder {
    fn bench(limits: Limits, texts: Vec<String>) -> Bench {
        let feeder = Arc::new(Self { connection: OnceLock::new(), texts: Mutex::new(texts) });
        let journal = Journal::default();
        let [connected, event, left] = [(); 3].map(|()| journal.clone());
        let feed = Arc::clone(&feeder);
        let namespaces = Namespaces::builder()
            .limits(limits)
            .namespace("/", |ns| {
                ns.on_connect(move |_| {
                    connected.note("connect");
                    let connection = feed.connection.get().unwrap().upgrade().unwrap();
                    for text in mem::take(&mut *feed.texts.lock().unwrap()) {
                        connection.handle_text(&text, Instant::now()).unwrap();
                    }
                    connected.note("connect done");
                })
                .on_any(move |_, incoming| event.note(incoming.name))
                .on_disconnect(move |_, reason| left.note(reason.as_str()))
            })
            .build();
        let bench = Bench::with_namespaces(namespaces, journal, Waiting::default());
        feeder.connection.set(Arc::downgrade(&bench.connection)).unwrap();
        bench
    }
}

#[test]
fn packets_that_come_while_on_connect_runs_are_handled_after_it() {
    let texts = [r#"2["a"]"#, "1", "0", r#"2["b"]"#].map(String::from).to_vec();
    let bench = Feeder::bench(Limits::default(), texts);
    bench.send("0").unwrap();
    let expected = ["connect", "connect done", "a", "client_namespace_disconnect", "connect", "connect done", "b"];
    assert_eq!(bench.journal.take(), expected);
}

#[test]
fn a_mistake_among_parked_packets_closes() {
    let texts = ["1", r#"2["a"]"#, r#"2["b"]"#].map(String::from).to_vec();
    let bench = Feeder::bench(Limits::default(), texts);
    bench.send("0").unwrap();
    assert_eq!(bench.outbox.close_reason(), Some(CloseReason::ParseError));
    bench.connection.close(CloseReason::ParseError);
    assert_eq!(bench.journal.take(), ["connect", "connect done", "client_namespace_disconnect"]);
}

#[test]
fn joining_and_leaving_thousands_of_times_needs_no_deep_stack() {
    let texts: Vec<_> = ["1", "0"].iter().cycle().take(20_000).map(ToString::to_string).collect();
    let limits = Limits { max_parked_bytes: 4 << 20, ..Limits::default() };
    let run = move || {
        let bench = Feeder::bench(limits, texts);
        bench.send("0").unwrap();
        assert_eq!(bench.journal.take().len(), 2 + 3 * 10_000);
    };
    thread::Builder::new().stack_size(256 * 1024).spawn(run).unwrap().join().unwrap();
}

#[test]
fn an_accept_in_another_thread_keeps_the_order() {
    for round in 0..200_u32 {
        let bench = Bench::new();
        bench.send("0/slow").unwrap();
        let request = bench.waiting();
        let acceptor = thread::spawn(move || {
            for _ in 0..round * 5 {
                std::hint::spin_loop();
            }
            request.accept();
        });
        for number in 0..60 {
            bench.send(&format!("2/slow,[\"n\",{number}]")).unwrap();
        }
        acceptor.join().unwrap();
        bench.send(r#"2/slow,["last"]"#).unwrap();
        let mut expected = vec!["connect".to_owned()];
        expected.extend((0..60).map(|number| format!("n {number} +0")));
        expected.push("last  +0".to_owned());
        assert_eq!(bench.journal.take(), expected);
    }
}

#[test]
fn accept_leave_disconnect_and_close_race_without_a_lost_or_doubled_end() {
    for round in 0..300 {
        let bench = Bench::new();
        bench.send("0/slow").unwrap();
        let request = bench.waiting();
        let connection = Arc::clone(&bench.connection);
        let acceptor = thread::spawn(move || request.accept());
        let closer = (round % 3 == 0).then(|| thread::spawn(move || connection.close(CloseReason::PingTimeout)));
        // Any of these may be refused, depending on who was faster.
        for text in [r#"2/slow,["a"]"#, r#"2/slow,["leave"]"#, r#"2/slow,["b"]"#, "1/slow", "0/slow"] {
            if bench.send(text).is_err() {
                break;
            }
        }
        acceptor.join().unwrap();
        if let Some(closer) = closer {
            closer.join().unwrap();
        }
        for request in mem::take(&mut *bench.waiting.lock().unwrap()) {
            request.accept();
        }
        bench.connection.close(CloseReason::TransportClose);
        // Each life is: connect, events, one end.
        let mut is_alive = false;
        for entry in bench.journal.take() {
            match entry.split(' ').next() {
                Some("connect") => assert!(!mem::replace(&mut is_alive, true)),
                Some("disconnect") => assert!(mem::replace(&mut is_alive, false)),
                _ => assert!(is_alive, "{entry}"),
            }
        }
        assert!(!is_alive);
    }
}

#[test]
fn any_sequence_of_packets_is_answered_or_closes() {
    let packets = [
        "0",
        "0/slow",
        "1",
        "1/slow",
        r#"2["a"]"#,
        r#"2/slow,["leave"]"#,
        r#"21["echo",1]"#,
        r#"51-/slow,["b",{"_placeholder":true,"num":0}]"#,
        "31[]",
        "0/closed",
        "0/random",
    ];
    let mut random = 7_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for _ in 0..3_000 {
        let bench = Bench::new();
        for _ in 0..12 {
            let outcome = match next(packets.len() + 3) {
                index if index < packets.len() => bench.send(packets[index]),
                index if index == packets.len() => bench.connection.handle_binary(vec![0; 3]),
                index => {
                    let request = bench.waiting.lock().unwrap().pop();
                    match request {
                        Some(request) if index % 2 == 0 => request.accept(),
                        Some(request) => request.refuse("no"),
                        None => {}
                    }
                    Ok(())
                }
            };
            if outcome.is_err() || bench.outbox.close_reason().is_some() {
                break;
            }
        }
        bench.connection.close(CloseReason::TransportClose);
        let journal = bench.journal.take();
        let count = |what: &str| journal.iter().filter(|entry| entry.starts_with(what)).count();
        assert_eq!(count("connect"), count("disconnect"), "{journal:?}");
    }
}

// § Sending and receiving data

#[test]
fn events_reach_their_handler_with_untouched_arguments() {
    let bench = Bench::joined();
    let args = r#"1,"2",{"3":[true],"3":1.0},12345678901234567890,"\ud800\/""#;
    bench.send(&format!("2[\"echo\",{args}]")).unwrap();
    assert_eq!(bench.sent(), [format!("42[\"echo\",{args}]")]);
    bench.send(&format!("2456[\"echo\",{args}]")).unwrap();
    assert_eq!(bench.sent(), [format!("43456[{args}]")]);
    bench.send(r#"2["other",1]"#).unwrap();
    assert_eq!(bench.journal.take(), ["other 1 +0"]);
}

#[test]
fn binary_events_are_put_together() {
    let bench = Bench::joined();
    let args = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;
    bench.send(&format!("52-[\"echo\",{args}]")).unwrap();
    bench.connection.handle_binary(vec![1, 2, 3]).unwrap();
    assert_eq!(bench.sent(), [""; 0]);
    bench.connection.handle_binary(vec![4]).unwrap();
    assert_eq!(bench.sent(), [format!("452-[\"echo\",{args}]"), "<3>".into(), "<1>".into()]);
    bench.send(&format!("52-789[\"echo\",{args}]")).unwrap();
    bench.connection.handle_binary(vec![]).unwrap();
    bench.connection.handle_binary(vec![4]).unwrap();
    assert_eq!(bench.sent(), [format!("462-789[{args}]"), "<0>".into(), "<1>".into()]);
}

#[test]
fn a_binary_event_without_attachments_is_complete_at_once() {
    let bench = Bench::joined();
    bench.send_all(&[r#"50-["a",1]"#, r#"2["b"]"#]);
    assert_eq!(bench.journal.take(), ["a 1 +0", "b  +0"]);
}

#[test]
fn text_while_attachments_are_outstanding_closes() {
    for text in [r#"2["a"]"#, "0/slow", "0/random", "1", r#"51-["a"]"#] {
        let bench = Bench::joined();
        bench.send(r#"52-["a"]"#).unwrap();
        bench.connection.handle_binary(vec![1]).unwrap();
        assert_eq!(bench.send(text), Err(ProtocolError::UnexpectedText { missing: 1 }), "{text}");
    }
}

#[test]
fn binary_while_no_attachment_is_outstanding_closes() {
    assert_eq!(Bench::new().connection.handle_binary(vec![1]), Err(ProtocolError::UnexpectedBinary));
    let bench = Bench::joined();
    bench.send(r#"51-["a"]"#).unwrap();
    bench.connection.handle_binary(vec![1]).unwrap();
    assert_eq!(bench.connection.handle_binary(vec![1]), Err(ProtocolError::UnexpectedBinary));
}

#[test]
fn outstanding_attachments_are_bounded_in_bytes_and_time() {
    let bench = Bench::with_limits(Limits { max_attachment_bytes: 10, ..Limits::default() });
    bench.join("0");
    bench.send(r#"52-["a"]"#).unwrap();
    bench.connection.handle_binary(vec![0; 4]).unwrap();
    bench.connection.handle_binary(vec![0; 6]).unwrap();
    bench.send(r#"52-["a"]"#).unwrap();
    bench.connection.handle_binary(vec![0; 4]).unwrap();
    let error = bench.connection.handle_binary(vec![0; 7]).unwrap_err();
    assert_eq!(error, ProtocolError::AttachmentsTooLarge { bytes: 11, max_bytes: 10 });
    assert_eq!(error.close_reason(), CloseReason::TooLarge);

    let bench = Bench::joined();
    bench.send(r#"52-["a"]"#).unwrap();
    bench.connection.handle_binary(vec![0]).unwrap();
    assert_eq!(bench.connection.next_deadline(), Some(bench.start + 10 * SECOND));
    assert_eq!(bench.timeout_after(10 * SECOND - MILLI), Ok(()));
    assert_eq!(bench.timeout_after(10 * SECOND), Err(ProtocolError::AttachmentsOverdue { missing: 1 }));
    bench.connection.handle_binary(vec![0]).unwrap();
    assert_eq!(bench.connection.next_deadline(), None);
    assert_eq!(bench.timeout_after(100 * SECOND), Ok(()));
}

// § Disconnection from a namespace

#[test]
fn a_client_that_leaves_gets_no_answer_and_may_come_back() {
    let bench = Bench::joined();
    bench.send("1").unwrap();
    assert_eq!(bench.sent(), [""; 0]);
    assert_eq!(bench.journal.take(), ["disconnect client_namespace_disconnect"]);
    assert_eq!(bench.send("1"), Err(ProtocolError::NotJoined));
    bench.join("0");
}

#[test]
fn the_server_ends_one_socket() {
    let bench = Bench::joined();
    bench.send("0/slow").unwrap();
    bench.waiting().accept();
    bench.sent();
    bench.journal.take();
    bench.send(r#"2/slow,["leave"]"#).unwrap();
    assert_eq!(bench.sent(), ["41/slow,"]);
    assert_eq!(bench.journal.take(), ["disconnect server_namespace_disconnect"]);
    bench.send(r#"2["echo"]"#).unwrap();
    assert_eq!(bench.sent(), [r#"42["echo"]"#]);
}

/// The reference closes the connection here, though the client could not know.
#[test]
fn what_crosses_the_servers_disconnect_is_ignored() {
    let bench = Bench::joined();
    bench.send_all(&[r#"2["leave"]"#, r#"2["a"]"#, "31[]", r#"51-["a"]"#]);
    bench.connection.handle_binary(vec![1]).unwrap();
    bench.send("1").unwrap();
    assert_eq!(bench.sent(), ["41"]);
    assert_eq!(bench.journal.take(), ["disconnect server_namespace_disconnect"]);
    bench.join("0");
    bench.send(r#"2["a"]"#).unwrap();
    assert_eq!(bench.journal.take(), ["a  +0"]);
}

#[test]
fn a_close_ends_every_socket_once() {
    let bench = Bench::joined();
    bench.send("0/slow").unwrap();
    bench.waiting().accept();
    bench.send("1/slow").unwrap();
    bench.send("0/slow").unwrap();
    bench.waiting().accept();
    bench.journal.take();
    bench.connection.close(CloseReason::PingTimeout);
    bench.connection.close(CloseReason::TransportClose);
    assert_eq!(bench.journal.take(), ["disconnect ping_timeout", "disconnect ping_timeout"]);
    assert_eq!(bench.outbox.close_reason(), Some(CloseReason::PingTimeout));
    assert_eq!(bench.connection.next_deadline(), None);
    bench.send_all(&["0", r#"2["a"]"#, r#"51-["a"]"#]);
    bench.connection.handle_binary(vec![1]).unwrap();
    assert_eq!(bench.timeout_after(100 * SECOND), Ok(()));
    assert_eq!(bench.journal.take(), [""; 0]);
}

// § Acknowledgement

/// An application that keeps its sockets and acks.
struct Keeper {
    bench: Bench,
    socket: Socket,
    /// The socket that joined last.
    kept: Arc<Mutex<Option<Socket>>>,
}

impl Keeper {
    fn new(limits: Limits) -> Self {
        let kept = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&kept);
        let journal = Journal::default();
        let left = journal.clone();
        let namespaces = Namespaces::builder()
            .limits(limits)
            .namespace("/", |ns| {
                ns.on_connect(move |socket| *keep.lock().unwrap() = Some(socket.clone()))
                    .on_disconnect(move |_, _| left.note("left"))
            })
            .build();
        let bench = Bench::with_namespaces(namespaces, journal, Waiting::default());
        bench.send("0").unwrap();
        bench.sent();
        let socket = kept.lock().unwrap().take().unwrap();
        Self { bench, socket, kept }
    }

    fn ask(&self, deadline: Duration) {
        let journal = self.bench.journal.clone();
        self.socket.emit_with_ack("ask", "1", self.bench.start + deadline, move |answer| {
            journal.note(match answer {
                Ok(answer) => format!("{} +{}", answer.args.as_str(), answer.attachments.len()),
                Err(err) => err.to_string(),
            });
        });
    }
}

#[test]
fn an_answer_reaches_its_callback_at_most_once() {
    let keeper = Keeper::new(Limits::default());
    let bench = &keeper.bench;
    keeper.ask(SECOND);
    keeper.ask(SECOND);
    assert_eq!(bench.sent(), [r#"421["ask",1]"#, r#"422["ask",1]"#], "the first id is 1");
    bench.send_all(&["32[\"b\"]", "32[\"again\"]", "31[]", "31[]", "39[]", "3[]"]);
    assert_eq!(bench.journal.take(), [r#""b" +0"#, " +0"]);
    assert_eq!(bench.outbox.close_reason(), None, "an unknown id is no mistake");
}

#[test]
fn an_answer_may_have_attachments() {
    let keeper = Keeper::new(Limits::default());
    keeper.ask(SECOND);
    keeper.bench.send(r#"61-1[{"_placeholder":true,"num":0}]"#).unwrap();
    keeper.bench.connection.handle_binary(vec![1]).unwrap();
    assert_eq!(keeper.bench.journal.take(), [r#"{"_placeholder":true,"num":0} +1"#]);
}

#[test]
fn an_answer_that_does_not_come_times_out_once() {
    let keeper = Keeper::new(Limits::default());
    let bench = &keeper.bench;
    keeper.ask(2 * SECOND);
    keeper.ask(SECOND);
    assert_eq!(bench.connection.next_deadline(), Some(bench.start + SECOND));
    bench.timeout_after(SECOND - MILLI).unwrap();
    assert_eq!(bench.journal.take(), [""; 0]);
    bench.timeout_after(SECOND).unwrap();
    assert_eq!(bench.journal.take(), ["no answer in time"]);
    assert_eq!(bench.connection.next_deadline(), Some(bench.start + 2 * SECOND));
    bench.send("32[\"late\"]").unwrap();
    assert_eq!(bench.journal.take(), [""; 0]);
    bench.timeout_after(5 * SECOND).unwrap();
    assert_eq!(bench.journal.take(), ["no answer in time"]);
    assert_eq!(bench.connection.next_deadline(), None);
}

#[test]
fn a_nearer_deadline_wakes_whoever_watches_them() {
    struct Count(AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let keeper = Keeper::new(Limits::default());
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let sleep = || keeper.bench.outbox.sleep_in(crate::outbox::Slot::Keeper, &Arc::clone(&count).into());
    for (deadline, wakes) in [(5 * SECOND, 1), (6 * SECOND, 1), (4 * SECOND, 2)] {
        sleep();
        keeper.ask(deadline);
        assert_eq!(count.0.load(Ordering::Relaxed), wakes, "{deadline:?}");
    }
}

#[test]
fn pending_answers_are_told_of_the_end() {
    let ends: [fn(&Keeper); 3] = [
        |keeper| keeper.bench.send("1").unwrap(),
        |keeper| keeper.socket.disconnect(),
        |keeper| keeper.bench.connection.close(CloseReason::TransportClose),
    ];
    for end in ends {
        let keeper = Keeper::new(Limits::default());
        keeper.ask(SECOND);
        keeper.ask(SECOND);
        end(&keeper);
        let gone = "socket is disconnected";
        assert_eq!(keeper.bench.journal.take(), [gone, gone, "left"]);
        keeper.bench.timeout_after(5 * SECOND).unwrap();
        keeper.ask(SECOND);
        assert_eq!(keeper.bench.journal.take(), [gone]);
    }
}

#[test]
fn pending_answers_are_bounded() {
    let keeper = Keeper::new(Limits { max_pending_acks: 2, ..Limits::default() });
    keeper.ask(SECOND);
    keeper.ask(SECOND);
    assert_eq!(keeper.bench.journal.take(), [""; 0]);
    keeper.ask(SECOND);
    assert_eq!(keeper.bench.journal.take(), ["too many events await an answer"]);
    assert_eq!(keeper.bench.sent().len(), 2, "the third was not sent");
    keeper.bench.send("31[]").unwrap();
    keeper.ask(SECOND);
    assert_eq!(keeper.bench.journal.take(), [" +0"]);
}

#[test]
fn a_handle_is_of_one_life_and_ack_ids_of_all() {
    let mut keeper = Keeper::new(Limits::default());
    keeper.ask(SECOND);
    keeper.bench.send_all(&["1", "0"]);
    keeper.bench.sent();
    assert_eq!(keeper.bench.journal.take(), ["socket is disconnected", "left"]);
    keeper.ask(SECOND);
    assert_eq!(keeper.bench.journal.take(), ["socket is disconnected"]);
    keeper.socket = keeper.kept.lock().unwrap().take().unwrap();
    keeper.ask(SECOND);
    assert_eq!(keeper.bench.sent(), [r#"422["ask",1]"#]);
    keeper.bench.send_all(&["31[\"late\"]", "32[\"new\"]"]);
    assert_eq!(keeper.bench.journal.take(), [r#""new" +0"#]);
}

#[test]
fn an_ack_may_be_kept_and_used_in_another_thread_or_too_late() {
    let (sender, acks) = mpsc::channel();
    let namespaces = Namespaces::builder()
        .namespace("/", |ns| ns.on("ask", move |_, event| sender.send(event.ack.unwrap()).unwrap()))
        .build();
    let bench = Bench::with_namespaces(namespaces, Journal::default(), Waiting::default());
    bench.send_all(&["0", r#"21["ask"]"#, r#"22["ask"]"#, r#"23["ask"]"#]);
    bench.sent();
    let acks: Vec<_> = acks.try_iter().collect();
    let acks = thread::spawn(move || {
        let mut acks = acks.into_iter();
        acks.next().unwrap().send_json(&[1]);
        acks
    });
    let mut acks = acks.join().unwrap();
    assert_eq!(bench.sent(), ["431[[1]]"]);
    drop(acks.next());
    bench.send_all(&["1", "0"]);
    bench.sent();
    assert_eq!(acks.next().unwrap().send("1"), Pushed::Closed);
    assert_eq!(bench.sent(), [""; 0]);
}

// What handlers may do

#[test]
fn a_handler_may_do_everything_to_its_own_socket() {
    let journal = Journal::default();
    let [asked, left] = [(); 2].map(|()| journal.clone());
    let namespaces = Namespaces::builder()
        .namespace("/", |ns| {
            ns.on("all", move |socket, event| {
                let asked = asked.clone();
                socket.emit("a", &1);
                socket.emit_volatile("b", &2);
                socket.emit_raw("c", "");
                socket.emit_frames(&[crate::socket::event_frame("/", "d", "4")]);
                socket.emit_with_ack("e", "5", Instant::now(), move |answer| {
                    asked.note(answer.unwrap_err().to_string());
                });
                event.ack.unwrap().send("6");
                socket.disconnect();
                asked_nothing_after_the_end(socket);
                socket.close_transport(CloseReason::ServerClose);
            })
            .on_disconnect(move |_, reason| left.note(reason.as_str()))
        })
        .build();
    fn asked_nothing_after_the_end(socket: &Socket) {
        assert!(!socket.is_connected());
        assert_eq!(socket.emit("a", &1), Pushed::Closed);
        assert_eq!(socket.emit_volatile("a", &1), Pushed::Closed);
        assert_eq!(socket.emit_raw("a", ""), Pushed::Closed);
        assert_eq!(socket.emit_binary("a", "", &[[1]]), Pushed::Closed);
        assert_eq!(socket.emit_frames(&[]), Pushed::Closed);
        socket.disconnect();
    }
    let bench = Bench::with_namespaces(namespaces, journal, Waiting::default());
    bench.send("0").unwrap();
    bench.sent();
    bench.send(r#"29["all"]"#).unwrap();
    let sent = [r#"42["a",1]"#, r#"42["b",2]"#, r#"42["c"]"#, r#"42["d",4]"#, r#"421["e",5]"#, "439[6]", "41"];
    assert_eq!(bench.sent(), sent);
    assert_eq!(bench.journal.take(), ["socket is disconnected", "server_namespace_disconnect"]);
    assert_eq!(bench.outbox.close_reason(), Some(CloseReason::ServerClose));
}

/// Lesson 4: a clean-up that overtakes the handler which joins a room would leave a ghost in it.
#[test]
fn on_disconnect_waits_for_the_handler_that_runs() {
    for ends_by_close in [true, false] {
        let (entered, wait_entered) = mpsc::channel();
        let (release, wait_release) = mpsc::channel::<()>();
        let (entered, wait_release) = (Mutex::new(entered), Mutex::new(wait_release));
        let journal = Journal::default();
        let [handled, left] = [(); 2].map(|()| journal.clone());
        let namespaces = Namespaces::builder()
            .namespace("/", |ns| {
                ns.on("work", move |socket, _| {
                    entered.lock().unwrap().send(socket.clone()).unwrap();
                    wait_release.lock().unwrap().recv().unwrap();
                    handled.note("handled");
                })
                .on_disconnect(move |_, _| left.note("left"))
            })
            .build();
        let bench = Bench::with_namespaces(namespaces, journal, Waiting::default());
        bench.send("0").unwrap();
        let connection = Arc::clone(&bench.connection);
        let reader = thread::spawn(move || connection.handle_text(r#"2["work"]"#, Instant::now()));
        let socket: Socket = wait_entered.recv().unwrap();
        if ends_by_close {
            bench.connection.close(CloseReason::Draining)
        } else {
            socket.disconnect()
        }
        assert!(!socket.is_connected());
        assert_eq!(bench.journal.take(), [""; 0]);
        release.send(()).unwrap();
        reader.join().unwrap().unwrap();
        assert_eq!(bench.journal.take(), ["handled", "left"]);
    }
}

#[test]
fn data_are_set_once_and_typed() {
    let keeper = Keeper::new(Limits::default());
    assert_eq!(keeper.socket.data::<u32>(), None);
    assert!(keeper.socket.set_data(7_u32));
    assert!(!keeper.socket.set_data("other"));
    assert_eq!(keeper.socket.data::<u32>(), Some(&7));
    assert_eq!(keeper.socket.data::<&str>(), None);
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "reserved"))]
fn reserved_names_are_not_emitted() {
    let keeper = Keeper::new(Limits::default());
    assert_eq!(keeper.socket.emit("disconnect", &1), Pushed::Dropped);
    assert_eq!(keeper.bench.sent(), [""; 0]);
}

#[test]
#[should_panic(expected = "reserved")]
fn reserved_names_have_no_handlers() {
    drop(Namespaces::builder().namespace("/", |ns| ns.on("connect", |_, _| {})));
}

#[test]
fn volatile_events_are_lost_on_a_slow_client() {
    let namespaces = Namespaces::builder()
        .namespace("/", |ns| {
            ns.on_connect(|socket| assert_eq!(socket.emit_volatile("a", &"x".repeat(500)), Pushed::Dropped))
        })
        .build();
    let (outbox, now) = (Arc::new(Outbox::new(1000)), Instant::now());
    let connection = Connection::new(Arc::clone(&outbox), namespaces, Arc::default(), now);
    connection.handle_text("0", now).unwrap();
    assert_eq!(outbox.take_all().len(), 1);
}

// Faults inside

fn panics(call: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_err()
}

#[test]
fn a_panic_passes_through_and_leaves_everything_in_order() {
    let journal = Journal::default();
    let waiting = Waiting::default();
    let [left, event] = [(); 2].map(|()| journal.clone());
    let keep = Arc::clone(&waiting);
    let namespaces = Namespaces::builder()
        .namespace("/", |ns| {
            ns.on("boom", |_, _| panic!("boom"))
                .on("leave", |socket, _| {
                    socket.disconnect();
                    panic!("boom");
                })
                .on_any(move |_, incoming| event.note(incoming.name))
                .on_disconnect(move |_, reason| left.note(reason.as_str()))
        })
        .namespace("/middleware", |ns| ns.middleware(|_| panic!("boom")))
        .namespace("/connect", |ns| {
            ns.middleware(move |request| keep.lock().unwrap().push(request)).on_connect(|_| panic!("boom"))
        })
        .build();
    let bench = Bench::with_namespaces(namespaces, journal, waiting);
    bench.send("0").unwrap();
    bench.sent();
    assert!(panics(|| _ = bench.send(r#"2["boom"]"#)));
    bench.send(r#"2["a"]"#).unwrap();
    assert_eq!(bench.journal.take(), ["a"]);
    assert!(panics(|| _ = bench.send(r#"2["leave"]"#)));
    assert_eq!(bench.journal.take(), ["server_namespace_disconnect"], "in spite of the panic");
    bench.send("0").unwrap();
    bench.sent();
    assert!(panics(|| _ = bench.send("0/middleware")));
    assert_eq!(bench.sent(), [r#"44/middleware,{"message":"internal error"}"#]);

    assert_eq!(bench.outbox.close_reason(), None);
    bench.send("0/connect").unwrap();
    let request = bench.waiting();
    assert!(thread::spawn(move || request.accept()).join().is_err());
    assert_eq!(bench.outbox.close_reason(), Some(CloseReason::InternalError), "the reader's task is told");
    bench.connection.close(CloseReason::InternalError);
    assert_eq!(bench.journal.take(), ["internal_error"]);
}

#[test]
fn a_panic_at_the_end_keeps_nobody_else_from_being_told() {
    let journal = Journal::default();
    let (first, second) = (journal.clone(), journal.clone());
    let namespaces = Namespaces::builder()
        .namespace("/", |ns| {
            ns.on_disconnect(move |_, _| {
                first.note("first");
                panic!("boom");
            })
        })
        .namespace("/b", |ns| {
            ns.on_connect(|socket| {
                socket.emit_with_ack("ask", "", Instant::now() + SECOND, |_| panic!("boom"));
            })
            .on_disconnect(move |_, _| second.note("second"))
        })
        .build();
    let bench = Bench::with_namespaces(namespaces, journal, Waiting::default());
    bench.send_all(&["0", "0/b"]);
    assert!(panics(|| bench.connection.close(CloseReason::TransportClose)));
    assert_eq!(bench.journal.take(), ["first", "second"]);
    bench.connection.close(CloseReason::InternalError);
    assert_eq!(bench.journal.take(), [""; 0]);
}

// Lesson 5: no leak

#[test]
fn after_the_close_nothing_is_kept() {
    let sockets: Arc<Mutex<Vec<WeakSocket>>> = Arc::default();
    let keep = Arc::clone(&sockets);
    let waiting = Waiting::default();
    let hold = Arc::clone(&waiting);
    let namespaces = Namespaces::builder()
        .namespace("/", |ns| {
            ns.on_connect(move |socket| {
                keep.lock().unwrap().push(socket.downgrade());
                // A callback that holds its own socket is a cycle, which the end breaks.
                let own = socket.clone();
                socket.emit_with_ack("ask", "", Instant::now() + SECOND, move |_| drop(own));
            })
        })
        .namespace("/slow", |ns| ns.middleware(move |request| hold.lock().unwrap().push(request)))
        .build();
    let bench = Bench::with_namespaces(namespaces, Journal::default(), waiting);
    bench.send_all(&["0", "1", "0", r#"2["leave"]"#, "0/slow", r#"2/slow,["a"]"#]);
    assert!(sockets.lock().unwrap()[0].upgrade().is_none(), "left");
    assert!(sockets.lock().unwrap()[1].upgrade().is_some());
    let connection = Arc::downgrade(&bench.connection);
    bench.connection.close(CloseReason::TransportClose);
    let Bench { connection: last, waiting, outbox, .. } = bench;
    drop(last);
    assert!(connection.upgrade().is_none(), "an unanswered request holds no connection");
    assert_eq!(waiting.lock().unwrap().len(), 1);
    for socket in &*sockets.lock().unwrap() {
        assert!(socket.upgrade().is_none());
    }
    assert_eq!(Arc::strong_count(&outbox), 1);
}

#[test]
fn a_connection_that_is_dropped_unclosed_ends_its_sockets() {
    let bench = Bench::joined();
    let Bench { connection, journal, outbox, .. } = bench;
    drop(connection);
    assert_eq!(journal.take(), ["disconnect internal_error"]);
    assert_eq!(outbox.close_reason(), Some(CloseReason::InternalError));
}

#[test]
fn reasons_have_stable_names() {
    let cases = [
        (DisconnectReason::ClientNamespaceDisconnect, "client_namespace_disconnect"),
        (DisconnectReason::ServerNamespaceDisconnect, "server_namespace_disconnect"),
        (DisconnectReason::Closed(CloseReason::PingTimeout), "ping_timeout"),
    ];
    for (reason, name) in cases {
        assert_eq!(reason.as_str(), name);
    }
    assert_eq!(AckError::TooManyPending.to_string(), "too many events await an answer");
}
