//! Promise: what the chat does for one message costs little: to read it, decide rights and limits, log it, encode it for
//! everybody and answer it takes less than 20 µs of CPU time. Sockets, and the writes to members, come on top.

use std::{
    fs,
    sync::{Arc, atomic::AtomicU64},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use chat_service::{
    chat::Chat,
    outbox::Outbox,
    socket::{Connection, Namespaces},
    store::MemoryLimits,
    types::Handshake,
};

use crate::chat_model::{Pending, Rights, parts, token};

const ROUNDS: u64 = 20_000;
const MAX_NS: u64 = 20_000;

/// What this thread has used, in ns: not the time that others had the core.
fn cpu_ns() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_message_costs_less_than_20_us_before_the_fan_out() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let pending = Pending::default();
    let clock = Arc::new(AtomicU64::new(now));
    let chat = Chat::new(parts(&clock, &Arc::new(Rights::all()), &pending, MemoryLimits::default()));
    let namespaces = Namespaces::builder().namespace("/", |namespace| chat.register(namespace)).build();
    let outbox = Arc::new(Outbox::new(1 << 20));
    let instant = Instant::now();
    let connection = Connection::new(Arc::clone(&outbox), namespaces, Arc::new(Handshake::default()), instant);
    let say = |text: &str| {
        connection.handle_text(text, instant).unwrap();
        pending.settle();
        outbox.take_all().len()
    };
    say(&format!(r#"0{{"token":"{}"}}"#, token(1)));
    say(r#"20["join_room",{"meeting_id":"m1"}]"#);

    let mut send = |number: u64| {
        let frames = say(&format!(
            r#"2{number}["chat_message",{{"meeting_id":"m1","text":"{}","client_id":"c{number}"}}]"#,
            "x".repeat(100)
        ));
        assert_eq!(frames, 2, "the event and the ack");
    };
    (1..=1000).for_each(&mut send);
    let before = cpu_ns();
    (1001..=1000 + ROUNDS).for_each(&mut send);
    let each = (cpu_ns() - before) / ROUNDS;
    println!("{each} ns of CPU time a message");
    assert!((1..MAX_NS).contains(&each), "{each} ns");
}
