//! The suite on Redis, and what only Redis can do to a store.

use std::{
    collections::{BTreeSet, HashSet},
    io::Write as _,
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use ::redis::{Client, Commands, Connection, FromRedisValue};

use super::*;
use crate::{
    adapter::msgpack::to_json,
    redis::{Address, Connected, Settings},
    store::{
        LogEvent, Memory, MemoryLimits, Missed,
        suite::{SuiteLimits, compare_with_a_model, store_suite},
    },
};

const NOW: u64 = 1_760_000_000_000;
const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

/// A Redis server, which ends with this value, or with this process.
struct Server {
    port: u16,
    guard: Child,
}

impl Server {
    fn start() -> Self {
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            // The shell ends the server when its own input ends: this process may be killed.
            let script = format!(
                "redis-server --bind 127.0.0.1 --port {port} --save '' --appendonly no --dir \"${{TMPDIR:-/tmp}}\" \
                 > /dev/null & read -r _; kill $!"
            );
            let guard =
                Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            let server = Self { port, guard };
            if server.is_up() {
                return server;
            }
        }
        panic!("no redis-server comes up");
    }

    /// False if another process has taken the port.
    fn is_up(&self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if Client::open(self.url()).and_then(|client| client.get_connection()).is_ok() {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    fn connection(&self) -> Connection {
        let connection = Client::open(self.url()).unwrap().get_connection().unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        connection
    }

    /// A connection of its own, and its number.
    fn connect(&self) -> (Redis, u64) {
        let (tell, connections) = mpsc::channel();
        let connected = move |connected: Connected| _ = tell.send(connected.connection);
        let settings = Settings::new(Address::parse(&self.url()).unwrap());
        let redis = Redis::start(settings, connected, |task| smol::spawn(task).detach());
        let connection = connections.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(redis.admit(connection, 1));
        let again = redis.clone();
        thread::spawn(move || {
            for connection in connections {
                again.admit(connection, 1);
            }
        });
        (redis, connection)
    }

    fn store(&self, prefix: &str, limits: SuiteLimits) -> RedisStore {
        store_on(self.connect().0, prefix, limits)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut input) = self.guard.stdin.take() {
            let _ = input.write_all(b"\n");
        }
        let _ = self.guard.wait();
    }
}

fn store_on(redis: Redis, prefix: &str, limits: SuiteLimits) -> RedisStore {
    let SuiteLimits { history_size, history_ttl_ms } = limits;
    let settings = RedisSettings {
        prefix: prefix.into(),
        adapter_prefix: prefix.into(),
        instance: "uid123".into(),
        history_size,
        history_ttl_ms,
        ..RedisSettings::default()
    };
    RedisStore::new(redis, settings)
}

/// The server that tests share, which each use under a prefix of their own.
fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

fn new_prefix() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("t{}:", NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn make(limits: SuiteLimits) -> RedisStore {
    static REDIS: OnceLock<Redis> = OnceLock::new();
    store_on(REDIS.get_or_init(|| shared().connect().0).clone(), &new_prefix(), limits)
}

const LIMITS: SuiteLimits = SuiteLimits { history_size: 1000, history_ttl_ms: 7 * DAY };

store_suite!(on_redis, make);

#[test]
fn a_naive_model_agrees() {
    compare_with_a_model(make, 12, 400, |_| {});
}

fn wait<T: Unpin>(answer: Answer<'_, T>) -> T {
    smol::block_on(answer).unwrap()
}

fn room(name: &str) -> RoomId {
    RoomId::new(name)
}

fn id(number: u128) -> MessageId {
    MessageId::new(NOW, number)
}

fn text(text: &str) -> Content {
    let kept = "{\"meeting_id\":\"m\",";
    let text = serde_json::to_string(text).unwrap();
    Content { json: format!("{kept}\"text\":{text}}}").into(), erasable_from: Some(kept.len() as u32) }
}

fn message(number: u128) -> Change {
    let content = text(&format!("text {number}"));
    Change::Message { id: id(number), content, client_id: None, fingerprint: 0, reply_to: None }
}

fn message_by_client(number: u128, by_client: &str) -> Change {
    let content = text(&format!("text {number}"));
    let client_id = Some(by_client.into());
    Change::Message { id: id(number), content, client_id, fingerprint: u64::MAX, reply_to: None }
}

fn reply(number: u128, to: u128) -> Change {
    let reply_to = Some(id(to));
    Change::Message { id: id(number), content: text("reply"), client_id: None, fingerprint: 0, reply_to }
}

fn react(number: u128, emoji: &str) -> Change {
    let content = Content { json: r#"{"emoji":"x"}"#.into(), erasable_from: None };
    Change::React { id: id(number), content, emoji: emoji.into(), is_removal: false }
}

fn update(event_id: &str) -> Change {
    let content = Content { json: r#"{"type":"x"}"#.into(), erasable_from: None };
    Change::Update { content, event_id: event_id.into() }
}

fn edit(number: u128) -> Change {
    Change::Edit { id: id(number), content: text("edited"), is_moderator: true }
}

fn delete(number: u128) -> Change {
    let content = Content { json: r#"{"deleted_by":"a"}"#.into(), erasable_from: None };
    Change::Delete { id: id(number), content, is_moderator: true }
}

fn append_knowing(
    store: &RedisStore,
    author: &str,
    change: Change,
    known: Option<Position>,
) -> Result<Appended, StoreError> {
    smol::block_on(store.append(Append { meeting: room("m"), author: author.into(), change, known }, NOW))
}

/// Appends to the meeting `m`, by `a`.
fn append(store: &RedisStore, change: Change) -> Result<Appended, StoreError> {
    append_knowing(store, "a", change, None)
}

fn at(epoch: &str, seq: u64) -> Option<Position> {
    Some(Position { epoch: epoch.into(), seq })
}

fn open_knowing(store: &RedisStore, since: Option<Position>, known: Option<Position>) -> Opened {
    wait(store.open(Open { meeting: room("m"), reader: None, since, limit: 1000, known }, NOW))
}

fn open(store: &RedisStore) -> Opened {
    open_knowing(store, None, None)
}

fn join(store: &RedisStore, reader: &str) -> Opened {
    let reader = Some(reader.into());
    wait(store.open(Open { meeting: room("m"), reader, since: None, limit: 1000, known: None }, NOW))
}

fn check(store: &RedisStore, known: Option<Position>) -> Position {
    wait(store.check(vec![Known { meeting: room("m"), known }], NOW)).remove(0).top
}

fn seqs(events: &[LogEvent]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

fn unread_of(store: &RedisStore, user: &str) -> Option<u32> {
    wait(store.unread(user, NOW)).meetings.first().map(|(_, unread)| *unread)
}

fn note(name: &str) -> Notification {
    let json = format!("{{\"id\":\"{name}\",\"kind\":\"k\"}}");
    Notification { id: name.into(), json: json.into(), is_kept: true, expires_at: None }
}

fn notify(store: &RedisStore, name: &str) -> Option<String> {
    wait(store.notify(&"a".into(), note(name), NOW)).json
}

fn inbox(store: &RedisStore) -> InboxPage {
    wait(store.inbox("a", InboxRange { from: From::Top, limit: 300, unread_only: false }, NOW))
}

/// Reads from or writes to what the store has written, behind its back.
fn command<T: FromRedisValue>(connection: &mut Connection, words: &[&str]) -> T {
    let mut command = ::redis::cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(word);
    });
    command.query(connection).unwrap()
}

fn key(store: &RedisStore, name: &str) -> String {
    store.meeting_key(&room("m"), name)
}

fn keys(store: &RedisStore) -> BTreeSet<String> {
    shared().connection().keys(format!("{}*", store.settings.prefix)).unwrap()
}

const BROKEN: StoreError = StoreError::Broken;
const UNAVAILABLE: StoreError = StoreError::Unavailable { retry_after_ms: RETRY_REFUSED_MS };

#[test]
fn a_log_that_has_gone_back_goes_on_in_another_epoch() {
    #[expect(clippy::type_complexity, reason = "a table: one row, one way to tell what is known")]
    let ways: &[(&str, fn(&RedisStore, Option<Position>) -> Arc<str>)] = &[
        ("append", |store, known| append_knowing(store, "a", update("e"), known).unwrap().place.epoch),
        ("open", |store, known| open_knowing(store, None, known).epoch),
        ("check", |store, known| check(store, known).epoch),
    ];
    for (name, way) in ways {
        let store = make(LIMITS);
        for number in 1..=3 {
            append(&store, message(number)).unwrap();
        }
        join(&store, "b");
        let first = open(&store).epoch;
        assert_eq!(way(&store, at(&first, 3)), first, "{name}: as it is known");
        assert_eq!(way(&store, at(&first, 2)), first, "{name}: it is further");
        assert_eq!(way(&store, at("another", 9)), first, "{name}: another log");
        let top = check(&store, None).seq;
        let second = way(&store, at(&first, top + 1));
        assert_ne!(second, first, "{name}: it has gone back");
        assert!(second.len() == 12 && second.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{second}");
        let third = way(&store, at(&first, top + 1));
        assert_eq!(third, second, "{name}: whoever tells it again changes nothing");
        // What is left is numbered on, under the new epoch, and nobody is told that it is complete.
        let opened = open_knowing(&store, at(&first, top), None);
        assert_eq!(opened.recovered, Some(Err(Missed::Epoch)), "{name}");
        let next = append(&store, message(9)).unwrap();
        assert!(next.place.seq > top, "{name}");
        let events = open(&store).events;
        assert_eq!(seqs(&events), (1..=next.place.seq).collect::<Vec<_>>(), "{name}");
        let epoch = format!("\"epoch\":\"{second}\"");
        assert!(events.iter().all(|event| event.epoch == second && event.json.contains(&epoch)), "{name}");
        assert_eq!(unread_of(&store, "b"), Some(1), "{name}");
        assert!(append(&store, edit(1)).unwrap().event.is_some(), "{name}: messages are known still");
    }
}

#[test]
fn a_later_life_begins_another_epoch_once() {
    let (redis, connection) = shared().connect();
    let made = || store_on(redis.clone(), &new_prefix(), LIMITS);
    let set_life = |life| assert!(redis.admit(connection, life));
    let store = made();
    set_life(5);
    let first = append(&store, message(1)).unwrap().place.epoch;
    for (life, is_new) in [(5, false), (4, false), (6, true), (6, false), (5, false), (7, true)] {
        let before = open(&store).epoch;
        set_life(life);
        assert_eq!(open(&store).epoch != before, is_new, "{life}");
        assert_eq!(seqs(&open(&store).events), [1]);
    }
    assert_eq!(append(&store, message(2)).unwrap().place.seq, 2);
    assert_ne!(open(&store).epoch, first);
    // A log that has gone back under a life that is over goes on once, too.
    let before = open(&store).epoch;
    set_life(3);
    let after = open_knowing(&store, None, at(&before, 99)).epoch;
    assert_ne!(after, before);
    set_life(7);
    assert_eq!(open(&store).epoch, after);
    // An epoch that was told before the first event is told no more.
    let store = made();
    set_life(1);
    let first = open(&store).epoch;
    set_life(2);
    assert_ne!(append(&store, message(1)).unwrap().place.epoch, first);
    for (name, change) in [("range", 0), ("mark", 1), ("check", 2)] {
        let before = open(&store).epoch;
        set_life(10 + change);
        let range = Range { meeting: room("m"), from: From::Top, epoch: None, limit: 1, kinds: Vec::new() };
        match change {
            0 => assert_ne!(wait(store.range(range, NOW)).epoch, before),
            1 => assert_eq!(wait(store.mark_read(&room("m"), &"a".into(), 1, NOW)).seq, 1),
            _ => assert_ne!(check(&store, None).epoch, before),
        }
        assert_ne!(open(&store).epoch, before, "{name}");
    }
}

#[test]
fn after_a_flush_everything_begins_anew() {
    let server = Server::start();
    let store = server.store("chat:", LIMITS);
    for number in 1..=3 {
        append(&store, message_by_client(number, &number.to_string())).unwrap();
    }
    let epoch = join(&store, "b").epoch;
    notify(&store, "n");
    let () = command(&mut server.connection(), &["FLUSHALL"]);
    // The scripts are gone as well.
    let () = command(&mut server.connection(), &["SCRIPT", "FLUSH"]);
    let opened = open_knowing(&store, at(&epoch, 3), at(&epoch, 3));
    assert_eq!((opened.seq, opened.first_seq, opened.recovered), (0, 1, Some(Err(Missed::Epoch))));
    assert_ne!(opened.epoch, epoch);
    let place = append_knowing(&store, "a", message_by_client(4, "3"), at(&epoch, 3)).unwrap().place;
    assert_eq!((place.seq, &place.epoch), (1, &opened.epoch));
    assert_eq!((unread_of(&store, "b"), inbox(&store).items.len()), (None, 0));
    assert!(notify(&store, "n").unwrap().starts_with("{\"nseq\":1,"));
}

#[test]
fn the_same_append_twice_is_logged_once_and_answered_twice() {
    for client_id in [false, true] {
        let store = make(SuiteLimits { history_size: 8, ..LIMITS });
        append_knowing(&store, "b", message(9), None).unwrap();
        let change = |number| match client_id {
            true => message_by_client(number, "c"),
            false => message(number),
        };
        let first = append(&store, change(1)).unwrap();
        assert!(first.event.is_some());
        append(&store, message(2)).unwrap();
        assert_eq!(append(&store, change(1)).as_ref(), Ok(&first), "{client_id}");
        // Even where it would be refused by now.
        wait(store.close_at(&room("m"), Some(NOW), NOW));
        assert_eq!(append(&store, change(1)).as_ref(), Ok(&first), "{client_id}");
        wait(store.close_at(&room("m"), None, NOW));
        assert_eq!(check(&store, None).seq, 3);
        // Another message of the same client_id is a repeat as ever.
        let other = append(&store, message_by_client(7, "c")).unwrap();
        assert_eq!(other.event.is_none(), client_id);
        // Another author has said something else.
        assert_ne!(append_knowing(&store, "b", message(1), None).unwrap().place.seq, first.place.seq);
        // A reply is told whom it answers again.
        let first = append(&store, reply(20, 9)).unwrap();
        assert_eq!(first.reply_author.as_deref(), Some("b"));
        assert_eq!(append(&store, reply(20, 9)).as_ref(), Ok(&first));
        // By its client_id it is known even when it is out of the log.
        for number in 30..40 {
            append(&store, update(&number.to_string())).unwrap();
        }
        let again = append(&store, change(1)).unwrap();
        assert_eq!(again.place.seq == 2, client_id);
        // What else is sent twice changes nothing the second time.
        append(&store, message(50)).unwrap();
        for change in [react(50, "x"), delete(50), update("e")] {
            let first = append(&store, change.clone()).unwrap();
            assert!(first.event.is_some());
            let second = append(&store, change).unwrap();
            assert_eq!((second.place, second.event), (first.place, None));
        }
    }
}

/// Fills a log: three messages of which the first is edited and reacted to, an update, a mark.
fn filled(limits: SuiteLimits) -> RedisStore {
    let store = make(limits);
    join(&store, "b");
    for number in 1..=3 {
        append(&store, message_by_client(number, &number.to_string())).unwrap();
    }
    for change in [edit(1), react(1, "x"), update("e")] {
        append(&store, change).unwrap();
    }
    assert_eq!(check(&store, None).seq, 6);
    store
}

#[test]
fn keys_that_are_lost_alone_make_no_nonsense() {
    let mut redis = shared().connection();
    // The log's end: it begins anew, and nothing of the old one is taken for a part of it.
    let store = filled(LIMITS);
    let epoch = open(&store).epoch;
    assert_eq!(wait(store.mark_read(&room("m"), &"b".into(), 5, NOW)).seq, 5);
    let () = command(&mut redis, &["DEL", &key(&store, ":meta")]);
    let opened = open_knowing(&store, at(&epoch, 6), at(&epoch, 6));
    assert_eq!((opened.seq, opened.first_seq, opened.recovered), (0, 1, Some(Err(Missed::Epoch))));
    assert_eq!(unread_of(&store, "b"), Some(0));
    assert_eq!(append(&store, edit(1)), Err(StoreError::NoMessage));
    assert_eq!(append(&store, message_by_client(4, "1")).unwrap().place.seq, 1);
    assert_eq!(append(&store, update("e")).unwrap().place.seq, 2);
    assert_eq!(unread_of(&store, "b"), Some(1), "the mark was cut to the top");
    // And what is remembered of senders, if the list of those is lost too.
    let store = filled(LIMITS);
    let () = command(&mut redis, &["DEL", &key(&store, ":meta"), &key(&store, ":authors")]);
    for number in 10..20 {
        assert_eq!(append(&store, update(&number.to_string())).unwrap().place.seq, number - 9);
    }
    for (number, client_id) in [(4, "1"), (6, "2")] {
        assert!(append(&store, message_by_client(number, client_id)).unwrap().event.is_some(), "of another log");
        assert!(append(&store, message_by_client(number + 1, client_id)).unwrap().event.is_none());
    }
    // The events: the same log, whose events are not kept any more.
    let store = filled(LIMITS);
    let epoch = open(&store).epoch;
    let () = command(&mut redis, &["DEL", &key(&store, ":log")]);
    for (since, expected) in [(6, Ok(())), (5, Err(Missed::Window))] {
        let opened = open_knowing(&store, at(&epoch, since), at(&epoch, 6));
        assert_eq!((&opened.epoch, opened.seq, opened.first_seq), (&epoch, 6, 7));
        assert_eq!(opened.recovered, Some(expected));
    }
    assert_eq!(append(&store, edit(1)), Err(StoreError::NoMessage));
    assert_eq!(append(&store, reply(4, 1)), Err(StoreError::NoReplyTarget));
    assert!(append(&store, message_by_client(4, "1")).unwrap().event.is_none(), "it was logged");
    assert_eq!(append(&store, message(5)).unwrap().place.seq, 7);
    assert_eq!(append(&store, edit(1)), Err(StoreError::NoMessage));
    let messages: u64 = command(&mut redis, &["HLEN", &key(&store, ":messages")]);
    assert_eq!(messages, 1, "nothing is left of what is not in the log");
    assert_eq!(wait(store.mark_read(&room("m"), &"b".into(), 3, NOW)).seq, 6, "what is not kept counts as read");
    // What is known of messages.
    let store = filled(LIMITS);
    let () = command(&mut redis, &["DEL", &key(&store, ":messages"), &key(&store, ":reactions")]);
    assert_eq!(append(&store, delete(1)), Err(StoreError::NoMessage));
    assert_eq!(append(&store, message(4)).unwrap().place.seq, 7);
    assert_eq!(open(&store).events.len(), 7);
    // More events than were ever logged: nobody knows which ones.
    let store = filled(LIMITS);
    let epoch = open(&store).epoch;
    assert_eq!(wait(store.mark_read(&room("m"), &"b".into(), 6, NOW)).seq, 6);
    let () = command(&mut redis, &["HSET", &key(&store, ":meta"), "s", "2"]);
    let opened = open(&store);
    assert_eq!((opened.seq, opened.first_seq, opened.events.len()), (2, 3, 0));
    assert_ne!(opened.epoch, epoch);
    append(&store, message(4)).unwrap();
    let marked = wait(store.mark_read(&room("m"), &"b".into(), 3, NOW));
    assert_eq!(marked, Marked { seq: 3, has_moved: true }, "the mark at 6 was cut to the top");
}

/// Ids are new. If another author's is not, the younger message has it.
#[test]
fn an_id_that_comes_twice_names_the_last_message() {
    let store = make(SuiteLimits { history_size: 3, ..LIMITS });
    for (number, author, is_there) in [(1, "a", true), (1, "b", true), (2, "a", true), (3, "a", true), (4, "a", false)]
    {
        assert!(append_knowing(&store, author, message(number), None).unwrap().event.is_some());
        let mut redis = shared().connection();
        let is_known: bool = command(&mut redis, &["HEXISTS", &key(&store, ":messages"), &id(1).to_string()]);
        assert_eq!(is_known, is_there, "after {number}");
    }
}

#[test]
fn an_inbox_that_is_lost_in_part_is_put_right() {
    let mut redis = shared().connection();
    let made = || {
        let store = make(LIMITS);
        for name in ["1", "2", "3"] {
            notify(&store, name).unwrap();
        }
        wait(store.read_inbox("a", Read::Ids(vec!["2".into()]), NOW));
        store
    };
    let store = made();
    let () = command(&mut redis, &["DEL", &store.user_key("a", ":notes")]);
    assert_eq!(wait(store.unread("a", NOW)).notifications, 0);
    assert!(notify(&store, "1").unwrap().starts_with("{\"nseq\":4,"));
    assert_eq!(inbox(&store).items.len(), 1);
    let store = made();
    let () = command(&mut redis, &["DEL", &store.user_key("a", ":inbox")]);
    assert_eq!(wait(store.unread("a", NOW)).notifications, 2);
    assert_eq!(notify(&store, "2"), None);
    assert!(notify(&store, "4").unwrap().starts_with("{\"nseq\":4,"));
    assert_eq!((inbox(&store).items.len(), inbox(&store).unread), (4, 3));
}

/// Somebody else has put something else there. What cannot be done is refused whole, and works when the key is gone.
#[test]
fn keys_of_another_type_are_refused() {
    let mut redis = shared().connection();
    let changes = [message_by_client(7, "7"), react(1, "y"), update("f"), delete(2)];
    for name in [":meta", ":log", ":messages", ":reactions", ":updates", ":marks", ":sent:a", ":authors"] {
        for (index, change) in changes.iter().enumerate() {
            let store = filled(LIMITS);
            let (key, away) = (key(&store, name), key(&store, "away"));
            let () = command(&mut redis, &["RENAME", &key, &away]);
            let () = command(&mut redis, &["SET", &key, "x"]);
            let appended = append(&store, change.clone());
            assert!(matches!(appended, Err(BROKEN) | Ok(_)), "{name} {index}: {appended:?}");
            let is_refused = appended.is_err();
            assert_eq!(u64::from(is_refused), store.usage().failures.malformed, "{name} {index}");
            if matches!(name, ":meta" | ":log") {
                assert!(is_refused);
            }
            let () = command(&mut redis, &["RENAME", &away, &key]);
            assert_eq!(check(&store, None).seq, if is_refused { 6 } else { 7 }, "{name} {index}");
            assert_eq!(open(&store).events.len(), if is_refused { 6 } else { 7 }, "{name} {index}");
            let again = append(&store, change.clone()).unwrap();
            assert_eq!(again.place.seq, 7, "{name} {index}");
        }
    }
    // A user is told of the other meetings.
    let store = filled(LIMITS);
    let other = Open { meeting: room("n"), reader: Some("b".into()), since: None, limit: 0, known: None };
    wait(store.open(other, NOW));
    let () = command(&mut redis, &["DEL", &key(&store, ":meta")]);
    let () = command(&mut redis, &["SET", &key(&store, ":meta"), "x"]);
    assert_eq!(wait(store.unread("b", NOW)).meetings, [(room("n"), 0)]);
    for name in [":inbox", ":notes"] {
        let store = make(LIMITS);
        notify(&store, "1");
        let key = store.user_key("a", name);
        let () = command(&mut redis, &["DEL", &key]);
        let () = command(&mut redis, &["SET", &key, "x"]);
        let refused = smol::block_on(store.notify(&"a".into(), note("2"), NOW));
        assert_eq!(refused, Err(BROKEN), "{name}");
        assert_eq!(smol::block_on(store.unread("a", NOW)), Err(BROKEN), "{name}");
    }
    let store = make(LIMITS);
    let () = command(&mut redis, &["RPUSH", &format!("{}claim:k", store.settings.prefix), "x"]);
    assert_eq!(smol::block_on(store.claim("k", 1, NOW)), Err(BROKEN));
}

#[test]
fn two_instances_share_a_log() {
    const EACH: u64 = 300;
    let prefix = new_prefix();
    let stores = [shared().store(&prefix, LIMITS), shared().store(&prefix, LIMITS)];
    let given = Mutex::new(HashSet::new());
    thread::scope(|scope| {
        for (thread, store) in stores.iter().enumerate() {
            let given = &given;
            scope.spawn(move || {
                for number in 0..EACH {
                    let number = u128::from(number) + thread as u128 * 1000;
                    let place = append(store, message_by_client(number, &number.to_string())).unwrap().place;
                    assert!(given.lock().unwrap().insert((place.epoch, place.seq)), "given twice");
                    // What one has logged the other finds.
                    assert!(check(store, None).seq >= place.seq);
                }
            });
        }
    });
    let given = given.into_inner().unwrap();
    let epochs: HashSet<_> = given.iter().map(|(epoch, _)| epoch).collect();
    assert_eq!((epochs.len(), given.len() as u64), (1, 2 * EACH));
    let opened = open(&stores[1]);
    assert_eq!(seqs(&opened.events), (1..=2 * EACH).collect::<Vec<_>>());
    assert_eq!(opened, open(&stores[0]));
    let repeated = append(&stores[0], message_by_client(9999, "1000")).unwrap();
    assert!(repeated.event.is_none(), "logged by the other one");
}

#[test]
fn killed_connections_lose_nothing_and_double_nothing() {
    const EACH: u128 = 400;
    let server = Server::start();
    let store = server.store("chat:", LIMITS);
    join(&store, "reader");
    let done = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..2 {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                let mut last = 0;
                for number in (0..EACH).map(|number| thread * EACH + number) {
                    let change = match number % 2 {
                        0 => message(number),
                        _ => message_by_client(number, &number.to_string()),
                    };
                    let appended = append(store, change).unwrap();
                    assert!(appended.event.is_some() && appended.place.seq > last);
                    last = appended.place.seq;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut redis = server.connection();
        for kills in 1..=15 {
            while done.load(Ordering::Relaxed) < kills * 50 {
                thread::yield_now();
            }
            // It may just be coming back from the last time.
            while command::<u64>(&mut redis, &["CLIENT", "KILL", "TYPE", "normal"]) == 0 {
                thread::yield_now();
            }
        }
    });
    let opened = open(&store);
    assert_eq!(seqs(&opened.events), (1..=2 * EACH as u64).collect::<Vec<_>>());
    assert_eq!(unread_of(&store, "reader"), Some(2 * EACH as u32));
}

#[test]
fn reminders_and_claims_are_given_to_one_instance() {
    const EACH: u64 = 600;
    let prefix = new_prefix();
    let stores = [shared().store(&prefix, LIMITS), shared().store(&prefix, LIMITS)];
    for number in 0..EACH {
        let due = vec![(NOW + number % 3, "5m".into()), (NOW + number % 3, "5m".into())];
        wait(stores[0].set_reminders(&room(&number.to_string()), Reminders { due, ..Reminders::default() }, NOW));
    }
    assert_eq!((stores[0].usage().reminders, stores[1].usage().reminders), (1200, 0));
    let (taken, claimed) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    thread::scope(|scope| {
        for store in &stores {
            let (taken, claimed) = (&taken, &claimed);
            scope.spawn(move || {
                loop {
                    let some = wait(store.take_reminders(NOW + 2));
                    if some.is_empty() {
                        break;
                    }
                    some.iter().for_each(|reminder| wait(store.drop_reminder(reminder, NOW + 2)));
                    taken.lock().unwrap().extend(some.into_iter().map(|reminder| reminder.meeting));
                }
                for number in 0..EACH {
                    let is_first = wait(store.claim(&number.to_string(), MINUTE, NOW));
                    claimed.fetch_add(u64::from(is_first), Ordering::Relaxed);
                }
            });
        }
    });
    let mut taken = taken.into_inner().unwrap();
    assert_eq!(taken.len() as u64, 2 * EACH);
    taken.sort();
    taken.dedup();
    assert_eq!((taken.len() as u64, claimed.into_inner()), (EACH, EACH));
    // Each knows what it was told last.
    for store in &stores {
        assert_eq!((wait(store.take_reminders(NOW + MINUTE)), store.next_reminder()), (Vec::new(), None));
    }
    assert_eq!(keys(&stores[0]).into_iter().filter(|key| key.contains("reminders")).count(), 0);
}

/// Reading stops where one answer is full: what is behind that would be thrown away.
#[test]
fn no_more_is_read_than_an_answer_may_hold() {
    const MAX: usize = 10_000;
    let mut store = make(LIMITS);
    store.settings.answer_max_bytes = MAX;
    for number in 1..=300 {
        let content = text(&"x".repeat(if number % 100 == 0 { 2 * MAX } else { 200 }));
        let change = Change::Message { id: id(number), content, client_id: None, fingerprint: 0, reply_to: None };
        append(&store, change).unwrap();
    }
    let epoch = open(&store).epoch;
    let opened = |since: Option<u64>| {
        let since = since.map(|seq| Position { epoch: epoch.clone(), seq });
        let open = Open { meeting: room("m"), reader: None, since, limit: 300, known: None };
        let opened = wait(store.open(open, NOW));
        let seqs: Vec<u64> = opened.events.iter().map(|event| event.seq).collect();
        assert!(seqs.is_sorted() && seqs.last().is_none_or(|last| *last == 300), "{seqs:?}");
        (seqs.len(), opened.recovered)
    };
    assert_eq!(opened(None), (32, None), "the last one alone is too much: no second part is read");
    assert_eq!(opened(Some(290)), (10, Some(Ok(()))));
    assert_eq!(opened(Some(10)), (0, Some(Err(Missed::TooMany))));
    let page = |from, kinds: &[Kind]| {
        let range = Range { meeting: room("m"), from, epoch: None, limit: 100, kinds: kinds.to_vec() };
        let page = wait(store.range(range, NOW));
        let seqs: Vec<u64> = page.items.iter().map(|event| event.seq).collect();
        assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
        (seqs.first().copied(), seqs.last().copied(), page.has_more)
    };
    let all: &[Kind] = &[];
    assert_eq!(page(From::Top, all), (Some(269), Some(300), true));
    assert_eq!(page(From::After(0), all), (Some(1), Some(64), true));
    assert_eq!(page(From::Before(3), all), (Some(1), Some(2), false));
    let messages = &[Kind::ChatMessage];
    assert_eq!(page(From::Top, messages), (Some(300), Some(300), true));
    let (first, last, has_more) = page(From::After(0), messages);
    assert!(first == Some(1) && last.is_some_and(|last| (30..=50).contains(&last)) && has_more, "{last:?}");
    assert_eq!(page(From::Before(3), messages), (Some(1), Some(2), false));
}

/// The connection may have ended before the answer came.
#[test]
fn a_claim_that_is_sent_twice_is_one_claim() {
    let store = make(LIMITS);
    let claim = |word: &str| {
        let key = format!("{}claim:k", store.settings.prefix);
        let call = Call::script(&scripts::CLAIM, 1).arg(key).int(NOW).int(MINUTE).arg(word);
        smol::block_on(store.redis.call(call)).unwrap()
    };
    for (word, expected) in [("ours", 1), ("ours", 1), ("another's", 0), ("ours", 1)] {
        assert_eq!(claim(word), Value::Int(expected), "{word}");
    }
    assert!(!wait(store.claim("k", MINUTE, NOW)));
}

#[test]
fn recipients_and_title_stay_when_reminders_move() {
    let store = make(LIMITS);
    let set = |due: u64, recipients: Option<&[&str]>, title: Option<&str>| {
        let recipients = recipients.map(|users| users.iter().map(|user| Arc::from(*user)).collect());
        let due = vec![(due, "5m".into())];
        let reminders = Reminders { starts_at: due[0].0 + 1, due, recipients, title: title.map(Box::from) };
        wait(store.set_reminders(&room("m"), reminders, NOW));
    };
    set(NOW, Some(&["a", "\u{e9}"]), Some("title"));
    set(NOW + 1, None, None);
    let taken = wait(store.take_reminders(NOW + 1)).remove(0);
    assert_eq!((taken.recipients.len(), taken.title.as_deref(), taken.starts_at), (2, Some("title"), NOW + 2));
    set(NOW, Some(&["a"]), Some("title"));
    set(NOW, Some(&[]), Some(""));
    let taken = wait(store.take_reminders(NOW)).remove(0);
    assert_eq!((taken.recipients.len(), taken.title.as_deref()), (0, Some("")));
    wait(store.drop_reminder(&taken, NOW));
    set(NOW, None, None);
    let taken = wait(store.take_reminders(NOW)).remove(0);
    assert_eq!((taken.recipients.len(), taken.title), (0, None), "what was done is not replaced");
    // One of the two keys is lost alone.
    let mut redis = shared().connection();
    for name in ["due", "plans"] {
        set(NOW, None, None);
        let key = format!("{}{{reminders}}:{name}", store.settings.prefix);
        let () = command(&mut redis, &["DEL", &key]);
        assert_eq!((wait(store.take_reminders(NOW)), store.next_reminder()), (Vec::new(), None), "{name}");
        assert_eq!(keys(&store).len(), 0, "{name}");
    }
}

/// How often a command was called on a server, and for how many microseconds.
fn calls_of(server: &Server, name: &str) -> (u64, u64) {
    let info: String = command(&mut server.connection(), &["INFO", "commandstats"]);
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:")).map(str::to_owned));
    let Some(line) = line else { return (0, 0) };
    let field = |name: &str| {
        line.split(',').find_map(|field| field.strip_prefix(&format!("{name}="))).unwrap().parse::<u64>().unwrap()
    };
    (field("calls"), field("usec"))
}

#[test]
fn an_event_costs_one_call_and_one_publication() {
    let server = Server::start();
    let store = server.store("chat:", LIMITS);
    let by_name = ["evalsha", "eval", "publish", "script|load"];
    let counts = || by_name.map(|name| calls_of(&server, name).0);
    append(&store, message(0)).unwrap();
    join(&store, "a");
    let changes = [message_by_client(1, "1"), reply(2, 1), edit(1), react(1, "x"), delete(1), update("e")];
    for (index, change) in changes.into_iter().enumerate() {
        let before = counts();
        assert!(append(&store, change.clone()).unwrap().event.is_some());
        let after = counts();
        let cost: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(cost, [1, 0, 1, 0], "change {index}");
        // What is not logged is not published.
        if index > 1 && index != 2 {
            assert!(append(&store, change).unwrap().event.is_none());
            assert_eq!((calls_of(&server, "publish").0, counts()[0]), (after[2], after[0] + 1), "change {index}");
        }
    }
    notify(&store, "0");
    for (name, published) in [("1", 1), ("1", 0)] {
        let before = counts();
        notify(&store, name);
        let cost: Vec<_> = counts().iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(cost, [1, 0, published, 0], "a notification");
    }
    let before = counts();
    assert_eq!(append(&store, edit(99)), Err(StoreError::NoMessage));
    assert_eq!(counts()[2], before[2]);
}

#[test]
fn what_is_published_is_what_is_answered() {
    let store = make(LIMITS);
    let mut redis = shared().connection();
    let mut published = redis.as_pubsub();
    let prefix = &store.settings.adapter_prefix;
    published.psubscribe(format!("{prefix}*")).unwrap();
    let mut next = || {
        let message = published.get_message().unwrap();
        let (json, binaries) = to_json(message.get_payload_bytes(), 1 << 24).unwrap();
        assert!(binaries.is_empty());
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        (message.get_channel_name().to_owned(), value)
    };
    let mentions = r#"{"meeting_id":"m","mentions":["a","b"],"meta":{"x":[1,2.5,null,true]},"text":"\u00e9\u0000"}"#;
    let rich = Content { json: mentions.into(), erasable_from: None };
    let rich = Change::Message { id: id(1), content: rich, client_id: None, fingerprint: 0, reply_to: None };
    let empty =
        Change::Update { content: Content { json: r#"{"":""}"#.into(), erasable_from: None }, event_id: "".into() };
    for change in [rich, edit(1), react(1, "\u{1f44d}"), update("e"), delete(1), empty] {
        let Appended { event, place, .. } = append(&store, change).unwrap();
        let event = event.unwrap();
        let (channel, value) = next();
        assert_eq!(channel, format!("{prefix}#/#m#"));
        let [uid, packet, options, ours] = value.as_array().unwrap().as_slice() else { panic!("{value}") };
        assert_eq!(uid, "uid123");
        let payload: serde_json::Value = serde_json::from_str(&event.json).unwrap();
        let expected = serde_json::json!({"type": 2, "data": [event.kind.as_str(), payload], "nsp": "/"});
        assert_eq!(*packet, expected);
        // In the same order too.
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&packet["data"][1]), keys(&payload));
        assert_eq!(*options, serde_json::json!({"rooms": ["m"], "except": [], "flags": {}}));
        let expected =
            serde_json::json!({"s": place.seq, "e": &*place.epoch, "k": event.kind as u8, "j": &*event.json});
        assert_eq!(*ours, expected);
        assert_eq!(open(&store).events.last().unwrap(), &event);
    }
    for is_kept in [true, false] {
        let json = notify_kept(&store, is_kept);
        let (channel, value) = next();
        assert_eq!(channel, format!("{prefix}#/#user:a#"));
        let payload: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            value,
            serde_json::json!([
                // The instance that made it is to hear it, too.
                "inbox",
                {"type": 2, "data": ["notification", payload], "nsp": "/"},
                {"rooms": ["user:a"], "except": [], "flags": {}},
                {"j": json},
            ])
        );
    }
}

fn notify_kept(store: &RedisStore, is_kept: bool) -> String {
    let notification = Notification { is_kept, ..note(&is_kept.to_string()) };
    wait(store.notify(&"a".into(), notification, NOW)).json.unwrap()
}

#[test]
fn contents_come_back_byte_for_byte() {
    let store = make(LIMITS);
    let texts = [
        "".to_owned(),
        "x".repeat(16 * 1024),
        "\u{1f600}".repeat(4000),
        "%s %d %1 \\ \" \r\n \t \u{0} \u{7f} \u{2028}".to_owned(),
        "}".to_owned(),
        "\u{e9}\",\"deleted\":true".to_owned(),
    ];
    let authors = ["a", "user with spaces", "\u{1f600}%d", "1 2 3", "a:b}c", &"x".repeat(128)];
    let mut expected = Vec::new();
    for (number, (content, author)) in texts.iter().zip(authors).enumerate() {
        let id = id(number as u128);
        let client_id = Some("c d".into());
        let change = Change::Message { id, content: text(content), client_id, fingerprint: 1, reply_to: None };
        join(&store, author);
        let appended = append_knowing(&store, author, change.clone(), None).unwrap();
        expected.push(appended.event.clone().unwrap());
        assert_eq!(append_knowing(&store, author, change, None), Ok(appended));
        for emoji in ["", "\u{1f44d}\u{1f3fd}", "u1:x", " ", "a\nb"] {
            let content = Content { json: "{\"e\":1}".into(), erasable_from: None };
            let react = Change::React { id, content, emoji: emoji.into(), is_removal: false };
            let event = append_knowing(&store, author, react, None).unwrap().event.unwrap();
            assert!(event.json.contains("\"count\":1,"), "{}", event.json);
            expected.push(event);
        }
    }
    let opened = open(&store);
    assert_eq!(opened.events, expected);
    for event in &opened.events {
        assert!(serde_json::from_str::<serde_json::Value>(&event.json).is_ok(), "{}", event.json);
    }
    let readers: BTreeSet<_> = wait(store.readers(&room("m"), NOW)).iter().map(|user| user.to_string()).collect();
    assert_eq!(readers, authors.map(str::to_owned).into());
    for author in authors {
        assert!(unread_of(&store, author).is_some(), "{author}");
        assert_eq!(wait(store.erase_user(author, NOW)), 1, "{author}");
    }
}

/// Where a text begins is checked before. If it is wrong, more is erased, and nothing is left of the text.
#[test]
fn a_place_that_makes_no_sense_erases_all() {
    for from in [0, 11, 9999, u32::MAX] {
        let store = make(LIMITS);
        let content = Content { json: "{\"text\":\"S3CRET \u{e9}\u{e9}\"}".into(), erasable_from: Some(from) };
        let change = Change::Message { id: id(1), content, client_id: None, fingerprint: 0, reply_to: None };
        let content = Content { json: r#"{"x":1}"#.into(), erasable_from: None };
        let place = append(&store, change).unwrap().place;
        append(&store, Change::Delete { id: id(1), content, is_moderator: false }).unwrap();
        let json = open(&store).events[0].json.to_string();
        assert!(!json.contains("CRET") && json.ends_with(ERASED_END), "{from}: {json}");
        if from != 11 {
            assert_eq!(json, crate::store::payload(&place, None, crate::store::ERASED), "{from}");
        }
    }
    // In the midst of a character.
    let store = make(LIMITS);
    let content = Content { json: "{\"text\":\"\u{e9}\"}".into(), erasable_from: Some(10) };
    let change = Change::Message { id: id(1), content, client_id: None, fingerprint: 0, reply_to: None };
    let place = append(&store, change).unwrap().place;
    append(&store, delete(1)).unwrap();
    let expected = crate::store::payload(&place, None, crate::store::ERASED);
    assert_eq!(&*open(&store).events[0].json, expected);
}

const ERASED_END: &str = "\"text\":\"\",\"deleted\":true}";

#[test]
fn one_append_past_the_limit_is_refused_at_once() {
    let store = make(LIMITS);
    let start = |number| {
        let change = message(number);
        store.append(Append { meeting: room("m"), author: "a".into(), change, known: None }, NOW)
    };
    let mut waiting: Vec<_> = (0..PENDING_MAX as u128).map(start).collect();
    assert_eq!(store.usage().pending, 1000);
    let refused = start(1000).now().ok().unwrap();
    assert_eq!(refused, Err(StoreError::Unavailable { retry_after_ms: 1000 }));
    assert_eq!((store.usage().failures.full, store.usage().pending), (1, 1000));
    drop(waiting.pop());
    waiting.push(start(1001));
    assert_eq!(store.usage().pending, 1000);
    for answer in waiting {
        smol::block_on(answer).unwrap();
    }
    assert_eq!(store.usage().pending, 0);
}

#[test]
fn every_key_expires_and_has_its_tag() {
    let mut redis = shared().connection();
    let ttl = 7 * DAY;
    let store = filled(SuiteLimits { history_ttl_ms: ttl, ..LIMITS });
    notify(&store, "1");
    wait(store.close_at(&room("closed"), Some(NOW), NOW));
    wait(store.claim("k", MINUTE, NOW));
    wait(store.mark_read(&room("marked"), &"c".into(), 1, NOW));
    let mut names = BTreeSet::new();
    for key in keys(&store) {
        let left: i64 = command(&mut redis, &["PTTL", &key]);
        let name = key.strip_prefix(&*store.settings.prefix).unwrap();
        let least = match name {
            "claim:k" => MINUTE,
            // A log without an event, and not closed.
            "{m:marked}:meta" => 30 * MINUTE,
            _ if name.ends_with(":meta") || name.ends_with(":marks") => ttl + 90 * DAY,
            "{u:a}:inbox" | "{u:a}:notes" => 30 * DAY,
            _ => ttl,
        };
        assert!(left > least as i64, "{key}: {left}");
        names.insert(name.to_owned());
    }
    let expected = [
        "claim:k",
        "{m:closed}:meta",
        "{m:marked}:marks",
        "{m:marked}:meta",
        "{m:m}:authors",
        "{m:m}:log",
        "{m:m}:marks",
        "{m:m}:messages",
        "{m:m}:meta",
        "{m:m}:reactions",
        "{m:m}:sent:a",
        "{m:m}:updates",
        "{u:a}:inbox",
        "{u:a}:notes",
        "{u:b}:marks",
        "{u:c}:marks",
    ];
    assert_eq!(names, expected.map(str::to_owned).into());
    // What is used lives on; and so do the marks of a meeting that is.
    for name in [":meta", ":log", ":messages", ":marks", ":sent:a", ":authors"] {
        let () = command(&mut redis, &["PEXPIRE", &key(&store, name), "100000"]);
    }
    append(&store, message_by_client(7, "7")).unwrap();
    for name in [":meta", ":log", ":messages", ":marks", ":sent:a", ":authors"] {
        let left: u64 = command(&mut redis, &["PTTL", &key(&store, name)]);
        assert!(left > ttl, "{name}: {left}");
    }
    // Nothing of a meeting or a user is left behind.
    wait(store.erase_meeting(&room("m"), NOW));
    for meeting in ["closed", "marked"] {
        wait(store.erase_meeting(&room(meeting), NOW));
    }
    for user in ["a", "b"] {
        wait(store.erase_user(user, NOW));
    }
    assert_eq!(keys(&store).into_iter().collect::<Vec<_>>(), [format!("{}claim:k", store.settings.prefix)]);
}

#[test]
fn nothing_is_left_of_events_that_are_out_of_the_log() {
    let store = make(SuiteLimits { history_size: 20, ..LIMITS });
    let mut redis = shared().connection();
    let mut random = fastrand::Rng::with_seed(7);
    for number in 0..400_u128 {
        append(&store, message(number)).unwrap();
        for _ in 0..random.u8(..3) {
            let about = number - random.u128(..number.min(10) + 1);
            let is_removal = random.bool();
            let emoji = random.u8(..3).to_string().into();
            let content = Content { json: "{\"e\":1}".into(), erasable_from: None };
            let _ = append(&store, Change::React { id: id(about), content, emoji, is_removal });
            let _ = append(&store, edit(about));
        }
    }
    for number in 0..20 {
        append(&store, update(&number.to_string())).unwrap();
    }
    let left: [u64; 3] = [("HLEN", ":messages"), ("HLEN", ":reactions"), ("LLEN", ":log")]
        .map(|(length, name)| command(&mut redis, &[length, &key(&store, name)]));
    assert_eq!(left, [0, 0, 20]);
    // All events at once.
    let other = filled(LIMITS);
    let range = Range { meeting: room("m"), from: From::Top, epoch: None, limit: 1, kinds: Vec::new() };
    assert_eq!(wait(other.range(range, NOW + 8 * DAY)).first_seq, 7);
    let names = [":log", ":messages", ":reactions"].map(|name| key(&other, name));
    let left: u64 = command(&mut redis, &["EXISTS", &names[0], &names[1], &names[2]]);
    assert_eq!(left, 0);
    // Nor of ids that are forgotten.
    let later = NOW + 11 * MINUTE;
    for number in 0..30 {
        let change = update(&format!("later {number}"));
        wait(store.append(Append { meeting: room("m"), author: "a".into(), change, known: None }, later));
    }
    let left: u64 = command(&mut redis, &["HLEN", &key(&store, ":updates")]);
    assert_eq!(left, 3 + 2 * 30);
    let still_later = later + 11 * MINUTE;
    // One comes again before it is its turn to be dropped.
    let again = [450].into_iter().chain(1500..1520).map(|client_id| (client_id, still_later));
    for (number, (client_id, now)) in (0..1500).map(|client_id| (client_id, later)).chain(again).enumerate() {
        let change = message_by_client(10_000 + number as u128, &client_id.to_string());
        wait(store.append(Append { meeting: room("m"), author: "a".into(), change, known: None }, now));
    }
    let left: u64 = command(&mut redis, &["HLEN", &key(&store, ":sent:a")]);
    assert_eq!(left, 3 + 2 * 1000);
}

#[test]
fn participants_are_read_as_others_write_them() {
    let store = make(LIMITS);
    let mut redis = shared().connection();
    let names = ["set", "hash", "text"].map(|kind| format!("{kind}-{}", store.settings.prefix.trim_end_matches(':')));
    let [set, hash, other] = names.each_ref().map(|name| format!("meeting:{name}:participants"));
    let () = command(&mut redis, &["SADD", &set, "a", "7"]);
    let () = command(&mut redis, &["HSET", &hash, "r", "read", "w", "write", "h", "host", "o", "owner", "e", ""]);
    let () = command(&mut redis, &["SET", &other, "a"]);
    use Participation::{Host, Read, Write};
    let cases = [
        (0, "a", Some(Write)),
        (0, "7", Some(Write)),
        (0, "b", None),
        (1, "r", Some(Read)),
        (1, "w", Some(Write)),
        (1, "h", Some(Host)),
        (1, "o", None),
        (1, "e", None),
        (1, "a", None),
        (2, "a", None),
    ];
    for (meeting, user, expected) in cases {
        assert_eq!(wait(store.participant(&room(&names[meeting]), user, NOW)), expected, "{} {user}", names[meeting]);
    }
    assert_eq!(wait(store.participant(&room("unheard-of"), "a", NOW)), None);
    // We write none of it, but whoever is removed loses the mark.
    assert!(store.has_participants());
    let meeting = room(&names[0]);
    for reader in ["a", "7"] {
        let reader = Some(reader.into());
        wait(store.open(Open { meeting: meeting.clone(), reader, since: None, limit: 0, known: None }, NOW));
    }
    wait(store.add_participants(&meeting, &["x".into()], NOW));
    wait(store.remove_participants(&meeting, &["a".into(), "x".into()], NOW));
    assert_eq!(wait(store.participant(&meeting, "a", NOW)), Some(Write));
    assert_eq!(wait(store.participant(&meeting, "x", NOW)), None);
    assert_eq!(wait(store.readers(&meeting, NOW)), [Arc::<str>::from("7")]);
    assert_eq!((wait(store.unread("a", NOW)).meetings.len(), wait(store.unread("7", NOW)).meetings.len()), (0, 1));
    let () = command(&mut redis, &["DEL", &set, &hash, &other]);
}

#[test]
fn without_memory_nothing_is_logged() {
    let server = Server::start();
    let store = server.store("chat:", LIMITS);
    let mut redis = server.connection();
    let first = append(&store, message(1)).unwrap().place;
    let () = command(&mut redis, &["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(append(&store, message(2)), Err(UNAVAILABLE));
    assert_eq!(smol::block_on(store.notify(&"a".into(), note("1"), NOW)), Err(UNAVAILABLE));
    assert_eq!(open(&store).seq, 1, "reading goes on");
    let () = command(&mut redis, &["CONFIG", "SET", "maxmemory", "0"]);
    let second = append(&store, message(2)).unwrap().place;
    assert_eq!((second.seq, second.epoch), (2, first.epoch));
    assert_eq!(store.usage().failures, Failures { refused: 2, ..Failures::default() });
}

/// A script that runs for long holds up all instances.
#[test]
fn scripts_are_quick_on_long_logs() {
    let server = Server::start();
    let store = server.store("chat:", LIMITS);
    join(&store, "far behind");
    for number in 0..1200 {
        let change = message_by_client(number, &number.to_string());
        append(&store, change).unwrap();
    }
    let mean = |name: &str, most_us: u64, run: &mut dyn FnMut(u64)| {
        const ROUNDS: u64 = 50;
        run(0);
        let before = calls_of(&server, "evalsha");
        (1..=ROUNDS).for_each(run);
        let after = calls_of(&server, "evalsha");
        let mean_us = (after.1 - before.1) / ROUNDS;
        println!("{name}: {mean_us} us");
        assert!(mean_us <= most_us, "{name}: {mean_us} us");
    };
    // Ten times what it takes on a laptop.
    mean("append", 1000, &mut |number| {
        append(&store, message_by_client(5000 + u128::from(number), &format!("m{number}"))).unwrap();
    });
    mean("mark in the midst", 10_000, &mut |number| {
        let user: Arc<str> = "far behind".into();
        wait(store.mark_read(&room("m"), &user, 300 + number, NOW));
    });
    mean("all events", 20_000, &mut |_| assert_eq!(open(&store).events.len(), 1000));
    mean("rare kinds", 10_000, &mut |_| {
        let kinds = vec![Kind::MessageDeleted];
        let range = Range { meeting: room("m"), from: From::Top, epoch: None, limit: 100, kinds };
        assert_eq!(wait(store.range(range, NOW)).items.len(), 0);
    });
    // All but the last go at once.
    append(&store, update("late")).unwrap();
    let before = calls_of(&server, "evalsha");
    let change = update("later");
    wait(store.append(Append { meeting: room("m"), author: "a".into(), change, known: None }, NOW + 5 * DAY));
    let range = Range { meeting: room("m"), from: From::Top, epoch: None, limit: 1000, kinds: Vec::new() };
    assert_eq!(wait(store.range(range, NOW + 8 * DAY)).items.len(), 1);
    let after = calls_of(&server, "evalsha");
    println!("dropping all: {} us", after.1 - before.1);
    assert!(after.1 - before.1 < 100_000, "{} us", after.1 - before.1);
}

/// Does the same random things to a store in Redis and to one in memory: what they answer must be the same, but for the
/// epochs' names.
#[test]
fn memory_answers_the_same() {
    const USERS: [&str; 3] = ["a", "b", "long user id"];
    const ROOMS: [&str; 2] = ["m", "n"];
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(10);
    for seed in 0..seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let limits = SuiteLimits { history_size: random.usize(1..60), history_ttl_ms: random.u64(MINUTE..60 * MINUTE) };
        let redis = make(limits);
        let SuiteLimits { history_size, history_ttl_ms } = limits;
        let memory = Memory::new(MemoryLimits { history_size, history_ttl_ms, ..MemoryLimits::default() });
        let mut now = NOW;
        for step in 0..600_u32 {
            now += match random.u8(..200) {
                0 => random.u64(..2 * DAY),
                1..4 => random.u64(..20 * MINUTE),
                _ => random.u64(..1000),
            };
            let (user, name) = (Arc::<str>::from(USERS[random.usize(..3)]), ROOMS[random.usize(..2)]);
            let meeting = room(name);
            let about = id(u128::from(step.saturating_sub(random.u32(..60))));
            let word = random.u8(..12).to_string();
            let is_so = random.bool();
            let some = random.u64(..100);
            let from = [From::Top, From::Before(some), From::After(some)][random.usize(..3)];
            let action = random.u8(..34);
            let limit = random.usize(..20);
            let content = Content { erasable_from: is_so.then_some(17), ..text(&word) };
            let change = match action {
                0..6 => Some(Change::Message {
                    id: id(step.into()),
                    content,
                    client_id: random.bool().then(|| word.as_str().into()),
                    fingerprint: random.u64(..2),
                    reply_to: (random.u8(..3) == 0).then_some(about),
                }),
                6..8 => Some(Change::Edit { id: about, content, is_moderator: random.bool() }),
                8 => Some(Change::Delete { id: about, content, is_moderator: random.bool() }),
                9..13 => Some(Change::React {
                    id: about,
                    content,
                    emoji: random.u8(..25).to_string().into(),
                    is_removal: random.bool(),
                }),
                13 => Some(Change::React { id: about, content, emoji: "x".into(), is_removal: is_so }),
                14 => Some(Change::Update { content, event_id: word.as_str().into() }),
                _ => None,
            };
            let epochs = {
                let asked = Open { meeting: meeting.clone(), reader: None, since: None, limit: 0, known: None };
                // It begins a log where there is none, in both.
                [wait(redis.open(asked.clone(), now)).epoch, wait(memory.open(asked, now)).epoch]
            };
            let since = random.bool().then(|| (random.u8(..8) > 0, random.u64(..step as u64 / 2 + 2)));
            let title = random.bool().then(|| word.as_str().into());
            let due: Vec<_> = (0..random.u64(..3)).map(|_| (now + random.u64(..1000), word.as_str().into())).collect();
            let expires_at = (random.u8(..4) == 0).then(|| now + random.u64(..MINUTE));
            let kinds: Vec<_> = Kind::ALL.into_iter().filter(|_| random.u8(..4) == 0).collect();
            let read = match is_so {
                true => Read::UpTo(some),
                false => Read::Ids(vec![word.as_str().into(), "5".into()]),
            };
            let rare = random.u8(..30) == 0;
            let act = |store: &dyn Store, epoch: &Arc<str>| -> String {
                let answer = match action {
                    _ if change.is_some() => {
                        let change = change.clone().unwrap();
                        let append =
                            Append { meeting: meeting.clone(), author: Arc::clone(&user), change, known: None };
                        format!("{:?}", smol::block_on(store.append(append, now)))
                    }
                    15..18 => {
                        let since = since.map(|(is_known, seq)| Position {
                            epoch: if is_known { Arc::clone(epoch) } else { "other".into() },
                            seq,
                        });
                        let reader = is_so.then(|| Arc::clone(&user));
                        let open = Open { meeting: meeting.clone(), reader, since, limit, known: None };
                        format!("{:?}", smol::block_on(store.open(open, now)))
                    }
                    18..20 => {
                        let kinds = kinds.clone();
                        let range = Range { meeting: meeting.clone(), from, epoch: None, limit, kinds };
                        format!("{:?}", smol::block_on(store.range(range, now)))
                    }
                    20..23 => {
                        let top =
                            wait(store.check(vec![Known { meeting: meeting.clone(), known: None }], now)).remove(0);
                        let seq = top.top.seq.saturating_sub(some / 4);
                        format!("{:?}", smol::block_on(store.mark_read(&meeting, &user, seq, now)))
                    }
                    23 => {
                        let mut readers = wait(store.readers(&meeting, now));
                        readers.sort();
                        format!("{readers:?}")
                    }
                    24..27 => {
                        let json = format!("{{\"id\":\"{word}\",\"x\":{step}}}").into();
                        let notification = Notification { id: word.as_str().into(), json, is_kept: !rare, expires_at };
                        format!("{:?}", smol::block_on(store.notify(&user, notification, now)))
                    }
                    27 => {
                        let range = InboxRange { from, limit, unread_only: is_so };
                        format!("{:?}", smol::block_on(store.inbox(&user, range, now)))
                    }
                    28 => format!("{:?}", smol::block_on(store.read_inbox(&user, read.clone(), now))),
                    29 => {
                        let at = is_so.then_some(now + some * 100);
                        format!("{:?}", (wait(store.closes_at(&meeting, now)), wait(store.close_at(&meeting, at, now))))
                    }
                    30 => format!("{:?}", smol::block_on(store.claim(&word, some * 100, now))),
                    31 => {
                        let recipients = is_so.then(|| vec![Arc::clone(&user)]);
                        let (title, due) = (title.clone(), due.clone());
                        let reminders = Reminders { starts_at: now, due, recipients, title };
                        wait(store.set_reminders(&meeting, reminders, now));
                        format!("{:?}", (store.next_reminder(), store.usage().reminders))
                    }
                    32 => {
                        let mut taken = wait(store.take_reminders(now));
                        taken.sort_by_key(|taken| (taken.due_at, taken.meeting.clone(), taken.offset.clone()));
                        taken.iter().filter(|_| is_so).for_each(|taken| wait(store.drop_reminder(taken, now)));
                        format!("{:?}", (taken, store.next_reminder(), store.usage().reminders))
                    }
                    33 if rare && is_so => format!("{:?}", smol::block_on(store.erase_meeting(&meeting, now))),
                    33 if rare => format!("{:?}", smol::block_on(store.erase_user(&user, now))),
                    33 if is_so => {
                        format!("{:?}", smol::block_on(store.remove_participants(&meeting, &[Arc::clone(&user)], now)))
                    }
                    _ => format!("{:?}", smol::block_on(store.sweep(now))),
                };
                format!("{} {:?}", answer.replace(&**epoch, "EPOCH"), smol::block_on(store.unread(&user, now)))
            };
            let [in_redis, in_memory] = [act(&redis, &epochs[0]), act(&memory, &epochs[1])];
            assert_eq!(in_redis, in_memory, "seed {seed}, step {step}, action {action}, {change:?}");
        }
    }
}
