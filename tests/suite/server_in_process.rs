//! Promise: the whole server keeps its limits and timeouts, refuses in order while it drains, survives its handlers, and
//! after any number of clients that came and were killed, all gauges are back at zero.
//!
//! The real server on a thread of this process, and raw TCP: what is cheaper here than with stock clients. Nothing waits
//! for a fixed time; where something must happen in the end, it is waited for.

use std::{
    future::Future,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    panic,
    pin::Pin,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use chat_service::{
    config::Config,
    engine,
    http::{AllowedOrigins, HeadLimits, Response, TrustedProxies},
    limits::Rate,
    metrics::{Gauges, Metrics},
    net::{self, Application, Pages, Peer, Request, Settings, Shared, WebSocketMode},
    outbox::{Frame, Outbox},
    server::Server,
    types::{CloseReason, DrainNotice, Handshake},
};
use smol::{Executor, channel, future::FutureExt as _};

const HEALTH: &str = "/api/v1/chat/health";
const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";
/// Longer than anything takes, and shorter than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(20);
/// Held by whoever sets or takes the panic hook, which is the whole process's.
static HOOK: Mutex<()> = Mutex::new(());

#[test]
fn exactly_max_connections_are_let_in_and_one_more_is_told_503() {
    let server = Running::start(&[("MAX_CONNECTIONS", "3")]);
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get(HEALTH).status, 200);
    }
    let refused = server.connect().read_answer().unwrap();
    assert_eq!((refused.status, refused.header("connection"), refused.header("retry-after")), (503, "close", "5"));
    // Those that are in notice nothing, and the place of one that goes is free again.
    assert_eq!(clients[0].get(HEALTH).status, 200);
    clients.pop();
    wait_for("a free place", || {
        let mut client = server.connect();
        let _ = client.request("GET", HEALTH, "", b"");
        client.read_answer().is_ok_and(|answer| answer.status == 200)
    });
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    // Longer than anything here takes on a busy machine.
    let server = Running::start(&[("KEEP_ALIVE_TIMEOUT", "1500ms"), ("HEAD_TIMEOUT", "10m")]);
    let mut client = server.connect();
    assert_eq!(client.get(HEALTH).status, 200);
    // From before the answer that the time begins with: nobody knows how late it comes.
    let from = Instant::now();
    assert_eq!(client.get(HEALTH).status, 200);
    assert_eq!(client.read_to_end(), "");
    assert!(from.elapsed() >= Duration::from_millis(1490), "closed after {:?}", from.elapsed());
}

#[test]
fn a_head_that_does_not_come_is_408() {
    let server = Running::start(&[("HEAD_TIMEOUT", "1s"), ("KEEP_ALIVE_TIMEOUT", "1h")]);
    // A connection that is only held ready was not asked anything, and is told nothing.
    assert_eq!(server.connect().read_to_end(), "");
    for begun in ["GET / HT", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let mut client = server.connect();
        client.send(begun.as_bytes()).unwrap();
        let answer = client.read_answer().unwrap();
        assert_eq!((answer.status, answer.header("connection")), (408, "close"), "{begun:?}");
        assert_eq!(client.read_to_end(), "");
    }
    // Begun after another request: the head's time counts, not the idle time.
    let mut client = server.connect();
    assert_eq!(client.get(HEALTH).status, 200);
    client.send(b"GET").unwrap();
    assert_eq!(client.read_answer().unwrap().status, 408);
}

#[test]
fn a_body_that_does_not_come_is_408() {
    let server = Running::start(&[("BODY_TIMEOUT", "60ms")]);
    let mut page = server.connect();
    page.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").unwrap();
    let answer = page.read_answer().unwrap();
    assert_eq!((answer.status, answer.header("connection")), (408, "close"));

    let sid = server.connect().open();
    let mut post = server.connect();
    let head = format!("POST {POLLING}&sid={sid} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n4");
    post.send(head.as_bytes()).unwrap();
    assert_eq!(post.read_answer().unwrap().status, 408);
    // Half a message is no message: the session is over.
    let gone = server.connect().get(&format!("{POLLING}&sid={sid}"));
    assert_eq!((gone.status, gone.body.as_str()), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
}

#[test]
fn head_limits_hold_at_and_one_past() {
    let server = Running::start(&[("HEAD_MAX_BYTES", "1024"), ("HEAD_MAX_HEADERS", "8")]);
    for (bytes, status) in [(1024, 200), (1025, 431)] {
        let line = format!("GET {HEALTH} HTTP/1.1\r\nHost: a\r\nX-Fill: ");
        let head = format!("{line}{}\r\n\r\n", "x".repeat(bytes - line.len() - 4));
        assert_eq!(head.len(), bytes);
        let mut client = server.connect();
        client.send(head.as_bytes()).unwrap();
        assert_eq!(client.read_answer().unwrap().status, status, "{bytes} bytes");
    }
    for (headers, status) in [(8, 200), (9, 431)] {
        let more = "X: y\r\n".repeat(headers - 1);
        let mut client = server.connect();
        client.send(format!("GET {HEALTH} HTTP/1.1\r\nHost: a\r\n{more}\r\n").as_bytes()).unwrap();
        assert_eq!(client.read_answer().unwrap().status, status, "{headers} headers");
    }
}

#[test]
fn while_draining_handshakes_are_503_and_answers_close() {
    let server = Running::start(&[("DRAIN_SPREAD", "30m"), ("DRAIN_TIMEOUT", "30m")]);
    let mut before = server.connect();
    let sid = before.open();
    let mut idle = server.connect();
    assert_eq!((idle.get(HEALTH).header("connection"), idle.get(HEALTH).status), ("", 200));
    server.stop.try_send(()).unwrap();
    wait_for("readiness to go", || server.connect().get("/api/v1/chat/ready").status == 503);

    for path in [POLLING, WEBSOCKET] {
        let mut client = server.connect();
        let upgrade = if path == WEBSOCKET { UPGRADE } else { "" };
        client.request("GET", path, upgrade, b"").unwrap();
        let refused = client.read_answer().unwrap();
        assert_eq!((refused.status, refused.header("connection")), (503, "close"), "{path}");
        assert_ne!(refused.header("retry-after"), "", "{path}");
        assert_eq!(client.read_to_end(), "");
    }
    let last = idle.get(HEALTH);
    assert_eq!((last.status, last.header("connection")), (200, "close"), "still healthy");
    // The sessions of before go on until their turn comes.
    before.request("POST", &format!("{POLLING}&sid={sid}"), "", b"40").unwrap();
    assert_eq!(before.read_answer().unwrap().body, "ok");
    assert!(server.connect().get(&format!("{POLLING}&sid={sid}")).body.starts_with("40{\"sid\":"));
}

#[test]
fn gauges_are_back_at_zero_after_killed_clients() {
    const CYCLES: u64 = 200;
    let server = Running::start(&[
        ("PING_INTERVAL_MS", "200"),
        ("PING_TIMEOUT_MS", "200"),
        ("CONNECT_TIMEOUT_MS", "300"),
        ("UPGRADE_TIMEOUT_MS", "300"),
    ]);
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..CYCLES {
        // A slow machine may end a session by its heartbeat in the middle: that is a kill as well.
        let _ = live_and_die(&server, &mut random);
    }
    let mut page = String::new();
    wait_for("all gauges at zero", || {
        page = server.connect().get("/metrics").body;
        let health = server.connect().get(HEALTH).body;
        // The scrape itself is a connection. The page counts what was opened and closed; health, what is in the table.
        health.contains("\"connections\":0")
            && ["chat_connections 1", "chat_rooms 0", "chat_outbox_bytes 0"].iter().all(|line| has_line(&page, line))
            && ["polling", "websocket"]
                .iter()
                .all(|transport| has_line(&page, &format!("chat_sessions{{transport=\"{transport}\"}} 0")))
    });
    let opened = sum(&page, "chat_handshakes_total");
    assert!(opened >= CYCLES / 2 && sum(&page, "chat_upgrades_total") > 10, "{page}");
    assert_eq!(sum(&page, "chat_closes_total"), opened, "each is closed once");
    assert!(sum(&page, "chat_received_events_total") > 20, "{page}");
    assert_eq!(sum(&page, "chat_panics_total"), 0);
}

/// One client that gets as far as chance lets it, and then is gone without a word.
fn live_and_die(server: &Running, random: &mut fastrand::Rng) -> io::Result<()> {
    const JOIN: &str = r#"420["join_room",{"meeting_id":"m1"}]"#;
    let mut client = server.connect();
    let mut ws = server.connect();
    let path = if random.u8(..4) == 0 {
        ws.upgrade(WEBSOCKET)?;
        String::new()
    } else {
        let sid = client.try_open()?;
        if random.u8(..4) == 0 {
            return Ok(());
        }
        client.request("POST", &format!("{POLLING}&sid={sid}"), "", b"40")?;
        client.read_answer()?;
        if random.bool() {
            client.request("POST", &format!("{POLLING}&sid={sid}"), "", JOIN.as_bytes())?;
            // Not always read: then the kernel resets.
            if random.bool() {
                client.read_answer()?;
            }
        }
        format!("&sid={sid}")
    };
    if random.bool() {
        let mut parked = server.connect();
        parked.request("GET", &format!("{POLLING}{path}"), "", b"")?;
        if random.bool() {
            parked.read_answer()?;
        }
    } else if !path.is_empty() {
        ws.upgrade(&format!("{WEBSOCKET}{path}"))?;
        ws.send_frame(b"2probe")?;
        if random.u8(..3) == 0 {
            return Ok(());
        }
        assert_eq!(ws.read_frame()?, b"3probe");
        ws.send_frame(b"5")?;
    }
    for message in [JOIN, r#"42["chat_message",{"meeting_id":"m1","text":"hi"}]"#, "4garbage"] {
        if random.u8(..3) == 0 {
            return Ok(());
        }
        let _ = ws.send_frame(message.as_bytes());
    }
    ws.read_frame().map(drop)
}

/// `Server::bind` counts panics for the whole process, wherever they happen.
#[test]
fn a_panic_is_counted() {
    let _alone = HOOK.lock();
    let server = Running::start_counting_panics(&[]);
    assert!(thread::spawn(|| panic!("on purpose")).join().is_err());
    let page = server.connect().get("/metrics").body;
    let _ = panic::take_hook();
    assert!(sum(&page, "chat_panics_total") >= 1, "{page}");
}

#[test]
fn a_handler_that_panics_ends_its_own_session_only() {
    let (server, shared, metrics) = Running::start_fragile(|_| {});
    let mut other = server.connect();
    other.upgrade(WEBSOCKET).unwrap();
    assert!(other.read_frame().unwrap().starts_with(b"0{"));
    let echo = |client: &mut Client| {
        client.send_frame(b"4hello").unwrap();
        assert_eq!(client.read_frame().unwrap(), b"4hello");
    };
    let mut panics = 0;
    for message in ["4panic", "4panic later"] {
        let mut victim = server.connect();
        victim.upgrade(WEBSOCKET).unwrap();
        victim.read_frame().unwrap();
        victim.send_frame(message.as_bytes()).unwrap();
        while victim.read_frame().is_ok() {}
        echo(&mut other);

        let mut victim = server.connect();
        let path = format!("{POLLING}&sid={}", victim.open());
        victim.request("POST", &path, "", message.as_bytes()).unwrap();
        let answer = victim.read_answer().unwrap();
        assert_eq!(answer.status, if message == "4panic" { 500 } else { 200 });
        // `later` panics in the task that keeps the session's deadlines.
        wait_for("the session to go", || server.connect().get(&path).body.contains("Session ID unknown"));
        echo(&mut other);
        panics += 2;
    }
    for path in [&format!("{POLLING}&panic"), "/panic"] {
        let mut victim = server.connect();
        victim.request("GET", path, "", b"").unwrap();
        assert!(victim.read_answer().is_err(), "{path}: no answer");
        echo(&mut other);
    }
    assert_eq!(server.connect().get("/").status, 200);
    wait_for("the victims' ends", || shared.session_count() == 1);
    let page = metrics.render(&Gauges::default());
    assert!(has_line(&page, &format!("chat_closes_total{{reason=\"internal_error\"}} {panics}")), "{page}");
    assert_eq!(sum(&page, "chat_handshakes_total"), panics + 1);
    drop(other);
    wait_for("everybody to be gone", || shared.session_count() == 0 && shared.connection_count() == 0);
}

#[test]
fn handshakes_of_one_address_over_the_rate_are_429_and_say_when_to_come_back() {
    let (server, shared, metrics) = Running::start_fragile(|settings| {
        settings.connect_rate = Some(Rate { per_s: 1, burst: 3 });
    });
    let mut before = server.connect();
    let sid = before.open();
    // The session of a WebSocket ends with it.
    let mut kept = Vec::new();
    for (path, upgrade) in [(POLLING, ""), (WEBSOCKET, UPGRADE)] {
        let mut opened = 0;
        // A slow machine is given tokens in the meantime.
        let (mut client, refused) = loop {
            let mut client = server.connect();
            client.request("GET", path, upgrade, b"").unwrap();
            let answer = client.read_answer().unwrap();
            if answer.status == 429 {
                break (client, answer);
            }
            kept.push(client);
            opened += 1;
        };
        assert!(path == WEBSOCKET || opened >= 2, "only {opened} beside the first");
        let (_, retry_after_ms) = refused.body.split_once("\"retry_after_ms\":").unwrap();
        let retry_after_ms: u64 = retry_after_ms.trim_end_matches('}').parse().unwrap();
        assert!((1..=1000).contains(&retry_after_ms), "{}", refused.body);
        assert!(refused.body.starts_with(r#"{"error":{"code":"rate_limited","message":""#), "{}", refused.body);
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(refused.header("connection"), if upgrade.is_empty() { "" } else { "close" });
        if upgrade.is_empty() {
            // The connection is as good as before, and the answer was right.
            thread::sleep(Duration::from_millis(retry_after_ms));
            assert_eq!(client.get(POLLING).status, 200);
        }
    }
    // Whoever is in notices nothing.
    before.request("POST", &format!("{POLLING}&sid={sid}"), "", b"4hello").unwrap();
    assert_eq!(before.read_answer().unwrap().body, "ok");
    let page = metrics.render(&Gauges::default());
    assert!(has_line(&page, "chat_refusals_total{code=\"rate_limited\"} 2"), "{page}");
    assert_eq!(sum(&page, "chat_handshakes_total"), sum(&page, "chat_sessions"));
    assert!(shared.session_count() >= 4, "{}", shared.session_count());
}

#[test]
fn one_address_has_so_many_sessions_and_twice_as_many_connections() {
    let (server, _, metrics) = Running::start_fragile(|settings| settings.max_connections_per_ip = Some(2));
    let mut clients = [server.connect(), server.connect(), server.connect()];
    let sid = clients[0].open();
    clients[1].upgrade(WEBSOCKET).unwrap();
    let refused = clients[2].get(POLLING);
    assert_eq!((refused.status, refused.header("retry-after")), (429, "5"));
    assert!(refused.body.ends_with("\"retry_after_ms\":5000}}"), "{}", refused.body);
    // What opens no session is not refused: neither a page, nor the sessions that there are, on the fourth connection.
    assert_eq!(clients[2].get("/").status, 200);
    let mut fourth = server.connect();
    fourth.request("POST", &format!("{POLLING}&sid={sid}"), "", b"4hello").unwrap();
    assert_eq!(fourth.read_answer().unwrap().body, "ok");
    let refused = server.connect().read_answer().unwrap();
    assert_eq!((refused.status, refused.header("retry-after")), (503, "5"));
    let page = metrics.render(&Gauges::default());
    assert!(has_line(&page, "chat_refusals_total{code=\"too_many_per_ip\"} 2"), "{page}");
    // A connection that goes makes room for another.
    drop(fourth);
    wait_for("a free connection", || {
        let mut client = server.connect();
        let _ = client.request("GET", "/", "", b"");
        client.read_answer().is_ok_and(|answer| answer.status == 200)
    });
}

#[test]
fn a_session_gives_its_place_back_however_it_ends() {
    for ending in ["1", "4panic", "gone"] {
        let (server, ..) = Running::start_fragile(|settings| settings.max_connections_per_ip = Some(1));
        let mut client = server.connect();
        if ending == "gone" {
            client.upgrade(WEBSOCKET).unwrap();
        } else {
            let path = format!("{POLLING}&sid={}", client.open());
            assert_eq!(server.connect().get(POLLING).status, 429);
            client.request("POST", &path, "", ending.as_bytes()).unwrap();
            client.read_answer().unwrap();
        }
        drop(client);
        // One place, not two.
        for (status, what) in [(200, "a free place"), (429, "a taken one")] {
            wait_for(what, || {
                let mut client = server.connect();
                let _ = client.request("GET", POLLING, "", b"");
                client.read_answer().is_ok_and(|answer| answer.status == status)
            });
        }
    }
}

#[test]
fn a_handshake_that_panics_gives_its_place_back() {
    let (server, shared, _) = Running::start_fragile(|settings| settings.max_connections_per_ip = Some(1));
    for _ in 0..3 {
        let mut victim = server.connect();
        victim.request("GET", &format!("{POLLING}&panic"), "", b"").unwrap();
        assert!(victim.read_answer().is_err());
        wait_for("its connection to go", || shared.connection_count() == 0);
    }
    assert_eq!(server.connect().get(POLLING).status, 200);
    assert_eq!(server.connect().get(POLLING).status, 429);
}

#[test]
fn a_trusted_proxy_says_who_its_clients_are_and_nobody_else_does() {
    for trusted in [true, false] {
        let (server, ..) = Running::start_fragile(|settings| {
            settings.max_connections_per_ip = Some(1);
            if trusted {
                settings.trusted_proxies = TrustedProxies::parse("127.0.0.0/8, 10.0.0.0/8").unwrap();
            }
        });
        let open = |client: &mut Client, forwarded_for: &str| {
            let header = format!("X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: {forwarded_for}\r\n");
            client.request("GET", POLLING, &header, b"").unwrap();
            let answer = client.read_answer().unwrap();
            (answer.status, answer.body)
        };
        let mut client = server.connect();
        let (status, body) = open(&mut client, "1.1.1.1");
        assert_eq!(status, 200);
        let sid = body.split('"').nth(3).unwrap().to_owned();
        let cases = [
            ("the same client", "1.1.1.1", 429, 429),
            ("the same, with something made up", "3.3.3.3, 1.1.1.1", 429, 429),
            ("the same through one more proxy", "1.1.1.1, 10.0.0.1", 429, 429),
            ("another client", "2.2.2.2", 200, 429),
            ("another of the same network", "[2001:db8::1]:1234", 200, 429),
            ("of that", "2001:db8::2", 429, 429),
        ];
        for (name, forwarded_for, if_trusted, if_not) in cases {
            let expected = if trusted { if_trusted } else { if_not };
            assert_eq!(open(&mut client, forwarded_for).0, expected, "{name}, trusted: {trusted}");
        }
        // Everybody is told the same address: the application, and who answers pages.
        let address = if trusted { "1.1.1.1" } else { "127.0.0.1" };
        client.request("GET", "/", "X-Forwarded-For: 1.1.1.1\r\n", b"").unwrap();
        assert_eq!(client.read_answer().unwrap().body, address);
        client.request("POST", &format!("{POLLING}&sid={sid}"), "", b"4who").unwrap();
        client.read_answer().unwrap();
        assert_eq!(client.get(&format!("{POLLING}&sid={sid}")).body, format!("4{address}"));
        // All of a proxy's connections come from one address.
        let mut second = server.connect();
        assert_eq!(second.get("/").status, 200);
        let mut third = server.connect();
        let _ = third.request("GET", "/", "", b"");
        assert_eq!(third.read_answer().unwrap().status, if trusted { 200 } else { 503 });
    }
}

/// One byte a second: a pause takes as long as pauses may.
const DRIP: Rate = Rate { per_s: 1, burst: 100 };

#[test]
fn a_websocket_that_sends_too_much_is_read_later_and_pinged_all_the_same() {
    let (server, shared, metrics) = Running::start_fragile(|settings| {
        settings.input_rate = Some(DRIP);
        settings.engine.ping_interval = Duration::from_millis(2000);
        settings.engine.ping_timeout = Duration::from_millis(200);
    });
    let mut client = server.connect();
    client.upgrade(WEBSOCKET).unwrap();
    client.read_frame().unwrap();
    let long = format!("4{}", "x".repeat(120));
    client.send_frame(b"4first").unwrap();
    assert_eq!(client.read_frame().unwrap(), b"4first");
    // Those that were read are handled; what comes behind them waits.
    client.send_frame(long.as_bytes()).unwrap();
    assert_eq!(client.read_frame().unwrap(), long.as_bytes());
    client.send_frame(b"4third").unwrap();
    // The ping goes out, its pong is not read, and the session's end is not waited for.
    assert_eq!(client.read_frame().unwrap(), b"2");
    client.send_frame(b"3").unwrap();
    assert!(client.read_frame().is_err(), "closed, without the third");
    wait_for("the session to go", || shared.session_count() == 0);
    let page = metrics.render(&Gauges::default());
    assert!(has_line(&page, "chat_input_pauses_total 1"), "{page}");
    assert!(has_line(&page, "chat_closes_total{reason=\"ping_timeout\"} 1"), "{page}");
}

#[test]
fn a_post_that_is_too_much_is_handled_at_once_and_answered_later() {
    let (server, shared, _) = Running::start_fragile(|settings| {
        settings.input_rate = Some(DRIP);
        settings.engine.ping_interval = Duration::from_millis(2000);
        settings.engine.ping_timeout = Duration::from_millis(2000);
    });
    let (mut poll, mut post) = (server.connect(), server.connect());
    let path = format!("{POLLING}&sid={}", poll.open());
    post.request("POST", &path, "", b"4little").unwrap();
    assert_eq!(post.read_answer().unwrap().body, "ok");
    assert_eq!(poll.get(&path).body, "4little");
    let from = Instant::now();
    let long = format!("4{}", "x".repeat(120));
    post.request("POST", &path, "", long.as_bytes()).unwrap();
    assert_eq!(poll.get(&path).body, long);
    assert_eq!(poll.get(&path).body, "2");
    assert_eq!(post.peek(), b"", "not answered");
    // The session's end ends the waiting.
    assert_eq!(post.read_answer().unwrap().body, "ok");
    assert!(from.elapsed() < Duration::from_secs(9), "{:?}", from.elapsed());
    wait_for("the session to go", || shared.session_count() == 0 || poll.get(&path).status == 400);
}

#[test]
fn who_sends_too_much_is_slowed_down_to_the_rate_and_loses_nothing() {
    let rate = Rate { per_s: 20_000, burst: 1000 };
    let (server, _, metrics) = Running::start_fragile(|settings| settings.input_rate = Some(rate));
    let message = format!("4{}", "x".repeat(1991));
    let (count, bytes) = (5, 5 * 2000);
    let least = Duration::from_millis((bytes - 2000 - 1000) * 1000 / 20_000);

    let mut ws = server.connect();
    ws.upgrade(WEBSOCKET).unwrap();
    ws.read_frame().unwrap();
    let from = Instant::now();
    for _ in 0..count {
        ws.send_frame(message.as_bytes()).unwrap();
    }
    for number in 0..count {
        assert_eq!(ws.read_frame().unwrap(), message.as_bytes(), "{number}");
    }
    assert!(from.elapsed() >= least, "over WebSocket in {:?}", from.elapsed());

    let (mut poll, mut post) = (server.connect(), server.connect());
    let path = format!("{POLLING}&sid={}", poll.open());
    let from = Instant::now();
    for number in 0..count {
        post.request("POST", &path, "", message.as_bytes()).unwrap();
        assert_eq!(poll.get(&path).body, message, "{number}");
        assert_eq!(post.read_answer().unwrap().body, "ok", "{number}");
    }
    assert!(from.elapsed() >= least, "by polling in {:?}", from.elapsed());
    assert!(sum(&metrics.render(&Gauges::default()), "chat_input_pauses_total") >= 5);
}

/// Echoes, and panics when told to. Without the panic hook, which is the process's and not this test's.
struct Fragile;

fn give_up() -> ! {
    panic::resume_unwind(Box::new("on purpose"))
}

impl Application for Fragile {
    fn open(&self, outbox: &Arc<Outbox>, handshake: Handshake, _now: Instant) -> Arc<dyn Peer> {
        if handshake.query.ends_with("&panic") {
            give_up();
        }
        Arc::new(FragilePeer { outbox: Arc::clone(outbox), address: handshake.peer, due: Mutex::new(None) })
    }
}

struct FragilePeer {
    outbox: Arc<Outbox>,
    address: Option<IpAddr>,
    due: Mutex<Option<Instant>>,
}

impl Peer for FragilePeer {
    fn handle_text(&self, text: &str, now: Instant) -> Result<(), CloseReason> {
        match text {
            "panic" => give_up(),
            "panic later" => *self.due.lock().unwrap() = Some(now),
            "who" => _ = self.outbox.push(Frame::text(&format!("4{}", self.address.unwrap()))),
            text => _ = self.outbox.push(Frame::text(&format!("4{text}"))),
        }
        Ok(())
    }

    fn handle_binary(&self, _data: &[u8], _now: Instant) -> Result<(), CloseReason> {
        Ok(())
    }

    fn handle_timeout(&self, now: Instant) -> Result<(), CloseReason> {
        let due = *self.due.lock().unwrap();
        if due.is_some_and(|due| due <= now) {
            give_up();
        }
        Ok(())
    }

    fn next_deadline(&self) -> Option<Instant> {
        *self.due.lock().unwrap()
    }

    fn announce_drain(&self, _notice: DrainNotice) {}

    fn close(&self, _reason: CloseReason) {}
}

impl Pages for Fragile {
    fn respond<'a>(
        &'a self,
        _shared: &'a Shared,
        request: Request<'a>,
    ) -> Pin<Box<dyn Future<Output = Response> + Send + 'a>> {
        Box::pin(async move {
            match request.head.path() {
                "/panic" => give_up(),
                _ => Response::text(200, "text/plain", request.peer.to_string()),
            }
        })
    }
}

/// A server on a thread of its own, until this is dropped.
struct Running {
    address: SocketAddr,
    /// Begins the drain.
    stop: channel::Sender<()>,
    /// Ends everything at once, when it is closed.
    abort: Option<channel::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(vars: &[(&'static str, &str)]) -> Self {
        let _alone = HOOK.lock();
        let running = Self::start_counting_panics(vars);
        // Tests that fail are to say so.
        let _ = panic::take_hook();
        running
    }

    fn start_counting_panics(vars: &[(&'static str, &str)]) -> Self {
        let config = Config::from_vars(|name| match name {
            "PORT" => Some("0".into()),
            _ => vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into()),
        });
        let executor = Arc::new(Executor::new());
        let server = Server::bind(config.unwrap(), &executor).unwrap();
        let address = server.local_addr().unwrap();
        let (stop, stopped) = channel::bounded::<()>(1);
        Self::run(address, executor, stop, async move { server.run(stopped.recv()).await })
    }

    /// A server of [`Fragile`] without limits but those that `limit` sets.
    fn start_fragile(limit: impl FnOnce(&mut Settings)) -> (Self, Arc<Shared>, Arc<Metrics>) {
        let second = Duration::from_secs(1);
        let mut settings = Settings {
            path: Some("/socket.io/".into()),
            websocket: WebSocketMode::Engine,
            engine: engine::Settings {
                ping_interval: 600 * second,
                ping_timeout: 600 * second,
                upgrade_timeout: 600 * second,
                max_payload: 10_000,
            },
            outbox_max_bytes: 100_000,
            head: HeadLimits::default(),
            head_timeout: 600 * second,
            body_timeout: 600 * second,
            keep_alive_timeout: 600 * second,
            max_body: 10_000,
            max_connections: None,
            max_connections_per_ip: None,
            connect_rate: None,
            input_rate: None,
            trusted_proxies: TrustedProxies::default(),
            cors: AllowedOrigins::Any,
        };
        limit(&mut settings);
        let executor = Arc::new(Executor::new());
        let metrics = Arc::new(Metrics::new(SystemTime::now()));
        let shared =
            Shared::new(settings, Arc::clone(&metrics), Arc::clone(&executor), Box::new(Fragile), Box::new(Fragile));
        let shared = Arc::new(shared);
        let listener = net::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.get_ref().local_addr().unwrap();
        let (stop, _) = channel::bounded(1);
        (Self::run(address, executor, stop, net::serve(listener, Arc::clone(&shared))), shared, metrics)
    }

    fn run(
        address: SocketAddr,
        executor: Arc<Executor<'static>>,
        stop: channel::Sender<()>,
        main: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let (abort, aborted) = channel::bounded::<()>(1);
        let main = main.or(async move {
            let _ = aborted.recv().await;
        });
        let thread = thread::spawn(move || smol::block_on(executor.run(main)));
        Self { address, stop, abort: Some(abort), thread: Some(thread) }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, input: Vec::new() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.abort.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || ended.is_none_or(|ended| ended.is_ok()), "the server's thread panicked");
    }
}

/// One TCP connection, by hand.
struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

/// An HTTP answer.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// Empty if there is none.
    fn header(&self, name: &str) -> &str {
        let is_it = |line: &&str| line.split_once(": ").is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        self.head.lines().find(is_it).and_then(|line| line.split_once(": ")).map_or("", |(_, value)| value)
    }
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

impl Client {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn request(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<()> {
        let length = if method == "POST" { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
        self.send(&[format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{headers}{length}\r\n").as_bytes(), body].concat())
    }

    fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, "", b"").unwrap();
        self.read_answer().unwrap()
    }

    fn read_answer(&mut self) -> io::Result<Answer> {
        let end = loop {
            match self.input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.read_more()?,
            }
        };
        let head = String::from_utf8(self.input.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: String::new() };
        let length = answer.header("content-length").parse().unwrap_or(0);
        while self.input.len() < length {
            self.read_more()?;
        }
        answer.body = String::from_utf8(self.input.drain(..length).collect()).unwrap();
        Ok(answer)
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.input.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }

    /// Everything until the server closes.
    fn read_to_end(&mut self) -> String {
        while self.read_more().map_err(|error| assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof)).is_ok() {}
        String::from_utf8(std::mem::take(&mut self.input)).unwrap()
    }

    /// A session on polling.
    fn open(&mut self) -> String {
        self.try_open().unwrap()
    }

    fn try_open(&mut self) -> io::Result<String> {
        self.request("GET", POLLING, "", b"")?;
        let body = self.read_answer()?.body;
        let sid = body.split('"').nth(3).ok_or(io::ErrorKind::InvalidData)?;
        Ok(sid.to_owned())
    }

    fn upgrade(&mut self, path: &str) -> io::Result<()> {
        self.request("GET", path, UPGRADE, b"")?;
        match self.read_answer()?.status {
            101 => Ok(()),
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    /// A text frame, masked with zeros.
    fn send_frame(&mut self, data: &[u8]) -> io::Result<()> {
        let [high, low] = u16::try_from(data.len()).unwrap().to_be_bytes();
        let head: &[u8] = if data.len() < 126 { &[0x81, 0x80 | low] } else { &[0x81, 0x80 | 126, high, low] };
        self.send(&[head, &[0; 4], data].concat())
    }

    /// What has come until now, without waiting.
    fn peek(&mut self) -> &[u8] {
        self.stream.set_nonblocking(true).unwrap();
        while self.read_more().is_ok() {}
        self.stream.set_nonblocking(false).unwrap();
        &self.input
    }

    /// The data of a short frame. An error at a close frame, as at the end of the stream.
    fn read_frame(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let [first, length, ..] = self.input[..] {
                let (start, length) = match (length, self.input.get(2..4)) {
                    (126, Some(length)) => (4, usize::from(u16::from_be_bytes([length[0], length[1]]))),
                    (126, None) => (4, usize::MAX - 4),
                    _ => (2, usize::from(length)),
                };
                if self.input.len() >= start + length {
                    let data = self.input.drain(..start + length).skip(start).collect();
                    return if first == 0x88 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(data) };
                }
            }
            self.read_more()?;
        }
    }
}

/// Asks again until it is so.
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn has_line(page: &str, line: &str) -> bool {
    page.lines().any(|present| present == line)
}

/// Sum of a metric over its labels.
fn sum(page: &str, name: &str) -> u64 {
    let values = page.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key.split('{').next() == Some(name)).then(|| value.parse::<u64>().unwrap())
    });
    values.sum()
}
