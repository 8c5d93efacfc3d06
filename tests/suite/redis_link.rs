//! Promise: `redis` keeps connections up, and says truly of every call whether it was done; shown on a real server.
//!
//! Needs `redis-server` (7.0 or newer) in the path.

use std::{
    env, fs,
    future::Future,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use chat_service::redis::{
    Address, Call, CallError, Connected, Counters, Listener, Redis, Script, Settings, State, SubscribeError, Subscriber,
};
use futures_rustls::{
    TlsConnector,
    pki_types::{CertificateDer, pem::PemObject as _},
    rustls::{ClientConfig, RootCertStore, crypto::ring},
};
use redis::Value;
use smol::{
    Executor, Timer, channel,
    future::FutureExt as _,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener as AsyncListener, TcpStream as AsyncStream},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A `redis-server` of its own, which ends with this.
struct Server {
    child: Option<Child>,
    port: u16,
    dir: PathBuf,
    args: Vec<String>,
    password: Option<&'static str>,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = env::temp_dir().join(format!("chat-redis-{}-{count}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let args = args.iter().map(|arg| arg.replace("{dir}", dir.to_str().unwrap())).collect();
        let mut server = Self { child: None, port: free_port(), dir, args, password: None };
        server.begin(&[]);
        server
    }

    fn with_password(password: &'static str) -> Self {
        let mut server = Self::start(&[]);
        server.admin(&["CONFIG", "SET", "requirepass", password]);
        server.password = Some(password);
        server
    }

    /// Starts the process, and waits until it answers.
    fn begin(&mut self, more: &[&str]) {
        let child = Command::new("redis-server")
            .current_dir(&self.dir)
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--daemonize", "no"])
            .args(&self.args)
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.child = Some(child);
        let started = Instant::now();
        while !self.answers() {
            assert!(started.elapsed() < PATIENCE, "redis-server does not answer");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else { return false };
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        // TLS does not answer this, but it listens.
        stream.write_all(b"PING\r\n").is_ok()
            && (self.args.iter().any(|arg| arg == "--tls-port")
                || stream.read(&mut [0; 64]).is_ok_and(|count| count > 0))
    }

    /// Kills the process: what it had not written to its files is lost.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn settings(&self) -> Settings {
        settings(&self.url())
    }

    /// On a connection of its own.
    fn admin(&self, args: &[&str]) -> Value {
        self.try_admin(args).unwrap_or_else(|error| panic!("{args:?}: {error}"))
    }

    fn try_admin(&self, args: &[&str]) -> redis::RedisResult<Value> {
        let login = self.password.map_or(String::new(), |password| format!(":{password}@"));
        let client = redis::Client::open(format!("redis://{login}127.0.0.1:{}", self.port)).unwrap();
        let mut command = redis::cmd(args[0]);
        command.arg(&args[1..]);
        command.query(&mut client.get_connection()?)
    }

    /// How often a command was called.
    fn called(&self, command: &str) -> u64 {
        let stats = text(&self.admin(&["INFO", "commandstats"]));
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }

    fn list(&self, key: &str) -> Vec<String> {
        match self.admin(&["LRANGE", key, "0", "-1"]) {
            Value::Array(items) => items.iter().map(text).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Channels that somebody has subscribed to.
    fn channels(&self) -> Vec<String> {
        let Value::Array(names) = self.admin(&["PUBSUB", "CHANNELS"]) else { panic!() };
        let mut names: Vec<String> = names.iter().map(text).collect();
        names.sort();
        names
    }

    /// Lines of CLIENT LIST with this in them.
    fn clients(&self, what: &str) -> usize {
        text(&self.admin(&["CLIENT", "LIST"])).lines().filter(|line| line.contains(what)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        _ = fs::remove_dir_all(&self.dir);
    }
}

/// None of those that the kernel gives to listeners and connections by itself: other tests run at the same time.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(11_000..31_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::Okay => "OK".to_owned(),
        other => panic!("{other:?}"),
    }
}

fn settings(url: &str) -> Settings {
    Settings::new(Address::parse(url).unwrap())
}

type Spawn = Arc<dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync>;

/// Runs a test beside an executor with two threads, so that a task that blocks stops neither the test nor the others.
fn run<F: Future<Output = ()>>(test: impl FnOnce(Spawn) -> F) {
    let executor: Arc<Executor<'static>> = Arc::default();
    let (stop, stopped) = channel::bounded::<()>(1);
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (executor, stopped) = (Arc::clone(&executor), stopped.clone());
            thread::spawn(move || _ = smol::block_on(executor.run(stopped.recv())))
        })
        .collect();
    let spawn: Spawn = {
        let executor = Arc::clone(&executor);
        Arc::new(move |task| executor.spawn(task).detach())
    };
    let late = async {
        Timer::after(3 * PATIENCE).await;
        panic!("the test takes too long");
    };
    smol::block_on(test(spawn).or(late));
    stop.close();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Waits for a condition.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        Timer::after(Duration::from_millis(2)).await;
    }
}

struct Link {
    redis: Redis,
    connections: channel::Receiver<Connected>,
}

impl Link {
    /// Nothing is admitted.
    fn start(settings: Settings, spawn: &Spawn) -> Self {
        let (sender, connections) = channel::unbounded();
        let redis = Redis::start(settings, move |connected| _ = sender.try_send(connected), |task| spawn(task));
        Self { redis, connections }
    }

    /// Every connection is admitted, with its number as the life.
    fn admitted(settings: Settings, spawn: &Spawn) -> Self {
        let Self { redis, connections } = Self::start(settings, spawn);
        let (sender, forwarded) = channel::unbounded();
        let admitting = redis.clone();
        spawn(Box::pin(async move {
            while let Ok(connected) = connections.recv().await {
                admitting.admit(connected.connection, connected.connection);
                _ = sender.try_send(connected);
            }
        }));
        Self { redis, connections: forwarded }
    }

    async fn connected(&self) -> Connected {
        let late = async {
            Timer::after(PATIENCE).await;
            panic!("no connection; {:?}", self.redis);
        };
        async { self.connections.recv().await.unwrap() }.or(late).await
    }

    /// Waits until the connection that was seen last has ended: there is none, or already the next one.
    async fn lost(&self) {
        until("lost", || !self.connections.is_empty() || !matches!(self.redis.state(), State::Connected { .. })).await;
    }

    fn count(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        counter(self.redis.counters()).load(Ordering::Relaxed)
    }

    async fn refused(&self) -> Box<str> {
        let mut reason = "".into();
        until("refused", || match self.redis.state() {
            State::Refused(why) => {
                reason = why;
                true
            }
            _ => false,
        })
        .await;
        reason
    }
}

fn server_error(outcome: Result<Value, CallError>) -> String {
    match outcome {
        Err(CallError::Server { code, .. }) => code.into(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn calls_are_done_in_their_order_and_in_few_batches() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let link = Link::start(server.settings(), &spawn);
        let connection = link.connected().await.connection;
        let push = |number: u64| Call::command("RPUSH").arg("list").int(number);
        let answers: Vec<_> = (1..=1000).map(|number| link.redis.call(push(number))).collect();
        link.redis.admit(connection, 1);
        for (number, answer) in (1..=1000).zip(answers) {
            assert_eq!(answer.await, Ok(Value::Int(number)));
        }
        let lengths = link.redis.calls((1001..=2000).map(push).collect()).await;
        assert_eq!(lengths, (1001..=2000).map(|length| Ok(Value::Int(length))).collect::<Vec<_>>());
        assert_eq!(server.list("list"), (1..=2000).map(|number: u32| number.to_string()).collect::<Vec<_>>());
        assert_eq!(server.called("rpush"), 2000);
        assert_eq!(link.count(|counters| &counters.batches), 2);
        // A batch is closed by the call with which it has 256 KiB.
        let long = Call::command("ECHO").arg(vec![b'x'; 100 * 1024]);
        assert!(link.redis.calls(vec![long; 7]).await.iter().all(Result::is_ok));
        assert_eq!(link.count(|counters| &counters.batches), 5);
        assert_eq!(link.count(|counters| &counters.written), 2007);
    });
}

#[test]
fn errors_of_the_server_are_answers() {
    run(async |spawn| {
        let server = Server::start(&[]);
        static BROKEN: Script = Script::new("return redis.call('INCR', KEYS[1]) + nil");
        let link = Link::admitted(server.settings(), &spawn);
        link.redis.call(Call::command("SET").arg("text").arg("x")).await.unwrap();
        let outcomes = link
            .redis
            .calls(vec![
                Call::command("LPUSH").arg("text").arg("y"),
                Call::command("NOSUCH"),
                Call::script(&BROKEN, 1).arg("number"),
                Call::script(&BROKEN, 1).arg("text"),
                Call::command("GET").arg("text"),
            ])
            .await;
        let codes: Vec<String> = outcomes
            .into_iter()
            .map(|outcome| match outcome {
                Ok(value) => text(&value),
                error => server_error(error),
            })
            .collect();
        assert_eq!(codes, ["WRONGTYPE", "ERR", "ERR", "ERR", "x"]);
        server.admin(&["CONFIG", "SET", "maxmemory", "1"]);
        assert_eq!(server_error(link.redis.call(Call::command("SET").arg("a").arg("b")).await), "OOM");
        static SET: Script = Script::new("return redis.call('SET', KEYS[1], 'x')");
        assert_eq!(server_error(link.redis.call(Call::script(&SET, 1).arg("a")).await), "OOM");
        // None of them has cost the connection.
        assert_eq!(link.count(|counters| &counters.reconnects), 0);
    });
}

#[test]
fn a_script_that_is_not_known_is_sent_as_a_whole_once_and_in_order() {
    static PUSH: Script = Script::new("return redis.call('RPUSH', KEYS[1], ARGV[1])");
    run(async |spawn| {
        let server = Server::start(&[]);
        let link = Link::admitted(server.settings(), &spawn);
        for round in 0..2 {
            let calls = (0..100).map(|number| Call::script(&PUSH, 1).arg("list").int(round * 100 + number)).collect();
            let outcomes = link.redis.calls(calls).await;
            let expected: Vec<_> = (1..=100).map(|length| Ok(Value::Int((round * 100 + length) as i64))).collect();
            assert_eq!(outcomes, expected);
            assert_eq!(server.called("eval"), round + 1, "others find it");
            server.admin(&["SCRIPT", "FLUSH"]);
        }
        assert_eq!(server.list("list"), (0..200).map(|number: u32| number.to_string()).collect::<Vec<_>>());
    });
}

#[test]
fn only_early_calls_pass_before_the_connection_is_admitted() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let link = Link::start(server.settings(), &spawn);
        let push = |what: &str| Call::command("RPUSH").arg("list").arg(what);
        let late = link.redis.call(push("late").life());
        let connection = link.connected().await.connection;
        assert_eq!(link.redis.state(), State::Connected { admitted: false });
        assert_eq!(link.redis.call(push("early").life().early()).await, Ok(Value::Int(2)));
        assert!(!link.redis.admit(connection + 1, 9), "another connection");
        assert_eq!(link.redis.call(push("early").early()).await, Ok(Value::Int(3)));
        assert!(link.redis.admit(connection, 42));
        assert_eq!(link.redis.state(), State::Connected { admitted: true });
        assert_eq!(late.await, Ok(Value::Int(5)));
        assert_eq!(server.list("list"), ["early", "0", "early", "late", "42"]);

        // Each connection anew.
        server.admin(&["CLIENT", "KILL", "TYPE", "normal"]);
        let next = link.connected().await.connection;
        assert!(next > connection);
        let late = link.redis.call(push("again").life());
        assert_eq!(link.redis.call(push("early").early()).await, Ok(Value::Int(6)));
        assert!(!link.redis.admit(connection, 43), "an old connection");
        assert_eq!(link.redis.state(), State::Connected { admitted: false });
        assert!(link.redis.admit(next, 44));
        assert_eq!(late.await, Ok(Value::Int(8)));
        assert_eq!(server.list("list").split_off(5), ["early", "again", "44"]);
    });
}

#[test]
fn a_call_is_given_up_when_its_time_is_over() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let proxy = Proxy::start(server.port, &spawn).await;
        let link = Link::start(settings(&proxy.url()), &spawn);
        let connection = link.connected().await.connection;
        let incr = |key: &str, ms: u64| Call::command("INCR").arg(key).within(Duration::from_millis(ms));
        let started = Instant::now();
        assert_eq!(link.redis.call(incr("a", 50)).await, Err(CallError::Away), "not admitted");
        let waited = started.elapsed();
        assert!(waited >= Duration::from_millis(50) && waited < Duration::from_secs(4), "{waited:?}");
        link.redis.admit(connection, 1);
        proxy.stop(false, true);
        // Long enough to be sent, on a busy machine too.
        assert_eq!(link.redis.call(incr("b", 1000)).await, Err(CallError::Unknown), "sent");
        // A later call with an earlier deadline.
        let (long, short) = (link.redis.call(incr("c", 20_000)), link.redis.call(incr("d", 1000)));
        assert_eq!(short.await, Err(CallError::Unknown));
        proxy.go_on();
        assert_eq!(long.await, Ok(Value::Int(1)), "answers still belong to their calls");
        assert_eq!(link.redis.call(incr("b", 20_000)).await, Ok(Value::Int(2)), "it was done");
        assert_eq!(link.count(|counters| &counters.expired), 3);
        assert_eq!(server.called("incr"), 4, "what was away was never done");
    });
}

#[test]
fn without_a_server_calls_are_away() {
    run(async |spawn| {
        let link = Link::start(settings(&format!("redis://127.0.0.1:{}", free_port())), &spawn);
        let call = Call::command("PING").within(Duration::from_millis(200));
        assert_eq!(link.redis.call(call.clone()).await, Err(CallError::Away));
        assert_eq!(link.redis.block(call).await, Err(CallError::Away));
        assert_eq!(link.redis.state(), State::Connecting);
        assert!(link.connections.is_empty());
    });
}

#[test]
fn a_call_whose_answer_nobody_waits_for_is_not_sent() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let link = Link::start(server.settings(), &spawn);
        let connection = link.connected().await.connection;
        drop(link.redis.call(Call::command("INCR").arg("dropped")));
        let kept = link.redis.call(Call::command("INCR").arg("kept"));
        link.redis.admit(connection, 1);
        assert_eq!(kept.await, Ok(Value::Int(1)));
        assert_eq!(server.called("incr"), 1);
    });
}

#[test]
fn queues_are_full_at_their_limits_and_not_before() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let mut limited = server.settings();
        limited.max_calls = 10;
        limited.max_bytes = 10_000;
        let link = Link::start(limited, &spawn);
        let connection = link.connected().await.connection;
        let echo = |count: usize| vec![Call::command("ECHO").arg("x"); count];
        let nine = link.redis.calls(echo(9));
        assert_eq!(link.redis.calls(echo(2)).await, [Err(CallError::Full), Err(CallError::Full)], "all or none");
        let tenth = link.redis.call(echo(1).remove(0));
        assert_eq!(link.redis.call(echo(1).remove(0)).await, Err(CallError::Full));
        assert_eq!(link.redis.call(echo(1).remove(0).early()).await, Err(CallError::Full));
        assert_eq!(link.count(|counters| &counters.full), 4);
        link.redis.admit(connection, 1);
        assert!(nine.await.iter().all(Result::is_ok) && tenth.await.is_ok());

        // What is answered makes room, and what is given up. A call costs 256 bytes beside its encoded arguments, here `$9729\r\n…\r\n`.
        let exact = 10_000 - 256 - 9;
        let long = |bytes: usize| Call::command("ECHO").arg(vec![b'x'; bytes]);
        assert_eq!(link.redis.call(long(exact + 1)).await, Err(CallError::Full));
        assert!(link.redis.call(long(exact)).await.is_ok());
        server.admin(&["CLIENT", "KILL", "TYPE", "normal"]);
        link.lost().await;
        for _ in 0..3 {
            let given_up = vec![echo(1).remove(0).within(Duration::from_millis(20)); 10];
            assert!(link.redis.calls(given_up).await.iter().all(|outcome| *outcome == Err(CallError::Away)));
            let given_up = long(exact).within(Duration::from_millis(20));
            assert_eq!(link.redis.call(given_up).await, Err(CallError::Away));
        }
    });
}

#[test]
fn what_was_sent_is_unknown_or_sent_again_and_what_was_not_sent_waits() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let proxy = Proxy::start(server.port, &spawn).await;
        let link = Link::admitted(settings(&proxy.url()), &spawn);
        link.connected().await;
        let push = |number: u64| Call::command("RPUSH").arg("list").int(number);
        // Done, but the answers do not come back.
        proxy.stop(false, true);
        let unknown = link.redis.call(Call::command("INCR").arg("x"));
        let repeated = link.redis.calls((0..10).map(|number| push(number).repeatable()).collect());
        until("done", || server.list("list").len() == 10).await;
        proxy.refuse(true);
        proxy.cut();
        link.lost().await;
        let waiting = link.redis.calls((10..20).map(push).collect());
        assert_eq!(unknown.await, Err(CallError::Unknown));
        proxy.refuse(false);
        proxy.go_on();
        assert_eq!(repeated.await, (11..=20).map(|length| Ok(Value::Int(length))).collect::<Vec<_>>());
        assert_eq!(waiting.await, (21..=30).map(|length| Ok(Value::Int(length))).collect::<Vec<_>>());
        let expected: Vec<String> = (0..10).chain(0..20).map(|number: u32| number.to_string()).collect();
        assert_eq!(server.list("list"), expected, "again in front, in order");
        assert_eq!(server.called("incr"), 1);
    });
}

#[test]
fn a_call_that_was_sent_again_in_vain_is_unknown() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let proxy = Proxy::start(server.port, &spawn).await;
        let link = Link::admitted(settings(&proxy.url()), &spawn);
        link.connected().await;
        proxy.stop(false, true);
        let call = Call::command("INCR").arg("x").repeatable().within(Duration::from_millis(1500));
        let sent = link.redis.call(call.clone());
        until("done", || server.called("incr") == 1).await;
        proxy.refuse(true);
        proxy.cut();
        link.lost().await;
        let not_sent = link.redis.call(call);
        assert_eq!(sent.await, Err(CallError::Unknown));
        assert_eq!(not_sent.await, Err(CallError::Away));
    });
}

#[test]
fn a_call_that_went_out_in_part_was_not_done() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let proxy = Proxy::start(server.port, &spawn).await;
        let link = Link::admitted(settings(&proxy.url()), &spawn);
        link.connected().await;
        // More than all buffers on the way take.
        proxy.stop(true, false);
        let call = Call::command("APPEND").arg("x").arg(vec![b'x'; 48 << 20]).within(PATIENCE);
        let sent = link.redis.call(call);
        until("written", || link.count(|counters| &counters.written) == 1).await;
        proxy.cut();
        link.lost().await;
        proxy.go_on();
        assert_eq!(sent.await, Ok(Value::Int(48 << 20)), "although it may not be repeated");
        assert_eq!(server.called("append"), 1);
    });
}

#[test]
fn calls_survive_a_restart_of_the_server() {
    run(async |spawn| {
        let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
        let link = Link::admitted(server.settings(), &spawn);
        let first = link.connected().await.run_id;
        assert!(link.redis.call(Call::command("SET").arg("kept").arg("x")).await.is_ok());
        server.kill();
        link.lost().await;
        let waiting = link.redis.calls(vec![Call::command("GET").arg("kept"), Call::command("INCR").arg("number")]);
        server.begin(&[]);
        let second = link.connected().await.run_id;
        assert_ne!(first, second, "another process");
        assert_eq!(waiting.await, [Ok(Value::BulkString(b"x".to_vec())), Ok(Value::Int(1))]);
    });
}

#[test]
fn killed_connections_come_back_and_nothing_is_done_twice() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let link = Link::admitted(server.settings(), &spawn);
        link.connected().await;
        let (mut done, mut unknown) = (0, 0);
        for _ in 0..10 {
            let calls = link.redis.calls(vec![Call::command("INCR").arg("x").within(PATIENCE); 200]);
            server.admin(&["CLIENT", "KILL", "TYPE", "normal"]);
            for outcome in calls.await {
                match outcome {
                    Ok(_) => done += 1,
                    Err(CallError::Unknown) => unknown += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(done + unknown == 2000 && link.count(|counters| &counters.reconnects) >= 1);
        let all: i64 = text(&server.admin(&["GET", "x"])).parse().unwrap();
        assert!(all >= done && all <= done + unknown, "{done} {unknown} {all}");
    });
}

#[test]
fn a_server_that_pauses_is_left_and_found_again() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let mut quick = server.settings();
        quick.io_timeout = Duration::from_millis(200);
        let link = Link::admitted(quick, &spawn);
        link.connected().await;
        let started = Instant::now();
        server.admin(&["CLIENT", "PAUSE", "2000", "ALL"]);
        let unknown = link.redis.call(Call::command("INCR").arg("x"));
        let repeated = link.redis.call(Call::command("ECHO").arg("y").repeatable());
        link.lost().await;
        let noticed = started.elapsed();
        assert!(noticed >= Duration::from_millis(200) && noticed < Duration::from_millis(1900), "{noticed:?}");
        assert_eq!(unknown.await, Err(CallError::Unknown));
        assert_eq!(repeated.await, Ok(Value::BulkString(b"y".to_vec())));
        assert_eq!(link.count(|counters| &counters.timeouts), 1);
    });
}

#[test]
fn a_connection_that_is_half_open_is_noticed_while_it_is_used_and_while_it_is_not() {
    for is_used in [true, false] {
        run(async |spawn| {
            let server = Server::start(&[]);
            let proxy = Proxy::start(server.port, &spawn).await;
            let mut quick = settings(&proxy.url());
            quick.io_timeout = Duration::from_millis(1000);
            quick.ping_interval = Duration::from_millis(if is_used { 60_000 } else { 200 });
            let link = Link::admitted(quick, &spawn);
            link.connected().await;
            if !is_used {
                until("PINGs", || server.called("ping") >= 3).await;
                assert_eq!(link.count(|counters| &counters.reconnects), 0, "answered");
            }
            proxy.stop(true, true);
            let call = is_used.then(|| link.redis.call(Call::command("ECHO").arg("x").repeatable()));
            link.lost().await;
            proxy.go_on();
            link.connected().await;
            if let Some(call) = call {
                assert!(call.await.is_ok());
            }
        });
    }
}

#[test]
fn a_connection_that_is_used_needs_no_ping() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let mut quick = server.settings();
        quick.ping_interval = Duration::from_millis(1500);
        let link = Link::admitted(quick, &spawn);
        link.connected().await;
        let before = server.called("ping");
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(4000) {
            link.redis.call(Call::command("ECHO").arg("x")).await.unwrap();
            Timer::after(Duration::from_millis(20)).await;
        }
        assert_eq!(server.called("ping"), before);
        until("PING", || server.called("ping") > before).await;
    });
}

#[test]
fn replies_past_the_limits_end_the_connection() {
    static NESTED: Script = Script::new(
        "local function nest(depth) if depth == 0 then return 1 end return {nest(depth - 1)} end return nest(tonumber(ARGV[1]))",
    );
    run(async |spawn| {
        let server = Server::start(&[]);
        let mut limited = server.settings();
        limited.max_reply_bytes = 1000;
        let link = Link::admitted(limited, &spawn);
        link.connected().await;
        let exact = 1000 - "$991\r\n\r\n".len();
        let echo = |bytes: usize| Call::command("ECHO").arg(vec![b'x'; bytes]);
        let nested = |depth: u64| Call::script(&NESTED, 0).int(depth);
        assert!(link.redis.call(echo(exact)).await.is_ok());
        assert!(link.redis.call(nested(16)).await.is_ok());
        assert_eq!(link.count(|counters| &counters.reconnects), 0);
        assert_eq!(link.redis.call(echo(exact + 1)).await, Err(CallError::Unknown));
        link.lost().await;
        link.connected().await;
        assert_eq!(link.redis.call(nested(17)).await, Err(CallError::Unknown));
        link.lost().await;
        link.connected().await;
        assert!(link.redis.call(echo(exact)).await.is_ok());
    });
}

#[test]
fn a_server_that_cannot_be_used_is_refused_until_it_can() {
    run(async |spawn| {
        let server = Server::with_password("secret");
        let none = Link::admitted(settings(&server.url()), &spawn);
        let wrong = Link::admitted(settings(&format!("redis://:wrong@127.0.0.1:{}", server.port)), &spawn);
        let database = Link::admitted(settings(&format!("redis://:secret@127.0.0.1:{}/99", server.port)), &spawn);
        assert_eq!(&*none.refused().await, "a password is needed (NOAUTH)");
        assert_eq!(&*wrong.refused().await, "wrong user or password (WRONGPASS)");
        assert_eq!(&*database.refused().await, "SELECT is answered ERR DB index is out of range");
        let call = none.redis.call(Call::command("ECHO").arg("x").within(PATIENCE));
        server.admin(&["CONFIG", "SET", "requirepass", ""]);
        assert!(call.await.is_ok(), "what waited is done when it can be");
        assert_eq!(none.redis.state(), State::Connected { admitted: true });
    });
}

/// Keeps what the log is told.
struct Lines(Mutex<Vec<String>>);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(format!("{} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

#[test]
fn the_log_is_told_of_each_reason_once() {
    run(async |spawn| {
        if log::set_logger(&LINES).is_ok() {
            log::set_max_level(log::LevelFilter::Info);
        }
        let mut server = Server::with_password("hidden");
        let mut one = settings(&format!("redis://:secret@127.0.0.1:{}/5", server.port));
        one.min_replicas = 1;
        let link = Link::admitted(one, &spawn);
        let subscriber = link.redis.subscriber(Vec::new(), SharedSeen(Seen::new()), |task| spawn(task));
        until("attempts", || {
            let stats = text(&server.admin(&["INFO", "errorstats"]));
            let line = stats.lines().find_map(|line| line.strip_prefix("errorstat_WRONGPASS:count="));
            line.is_some_and(|count| count.trim().parse::<u32>().unwrap() >= 8)
        })
        .await;
        server.admin(&["CONFIG", "SET", "requirepass", "secret"]);
        server.password = Some("secret");
        link.connected().await;
        subscriber.subscribe(names(&["c"])).await.unwrap();
        let place = format!("redis://127.0.0.1:{}/5", server.port);
        let lines = LINES.0.lock().unwrap().clone();
        let lines: Vec<String> = lines.into_iter().filter(|line| line.contains(&place)).collect();
        let version = lines.last().unwrap().split(' ').nth(2).unwrap().to_owned();
        let expected = [
            format!("WARN Redis at {place} cannot be used: wrong user or password (WRONGPASS); trying again"),
            format!("INFO Redis {version} at {place} is connected"),
        ];
        assert_eq!(lines, expected);
    });
}

#[test]
fn a_user_needs_its_rights() {
    run(async |spawn| {
        let server = Server::start(&[]);
        server.admin(&["ACL", "SETUSER", "chat", "on", ">se@cret", "~*", "&*", "+@all", "-info", "-client"]);
        let link = Link::admitted(settings(&format!("redis://chat:se%40cret@127.0.0.1:{}", server.port)), &spawn);
        assert_eq!(&*link.refused().await, "the user may not use INFO (NOPERM)");
        server.admin(&["ACL", "SETUSER", "chat", "+info", "-get"]);
        link.connected().await;
        // Without CLIENT SETNAME it can do.
        let whoami = link.redis.call(Call::command("ACL").arg("WHOAMI")).await;
        assert_eq!(whoami, Ok(Value::BulkString(b"chat".to_vec())));
        assert_eq!(server_error(link.redis.call(Call::command("GET").arg("x")).await), "NOPERM");
        assert_eq!(link.count(|counters| &counters.reconnects), 0);
        // A user that is gone: the server ends its connections.
        server.admin(&["ACL", "DELUSER", "chat"]);
        link.lost().await;
        assert_eq!(&*link.refused().await, "wrong user or password (WRONGPASS)");
    });
}

#[test]
fn connects_by_unix_socket_and_to_a_database() {
    run(async |spawn| {
        let server = Server::start(&["--unixsocket", "{dir}/redis.sock", "--requirepass", "a&b"]);
        let socket = server.dir.join("redis.sock");
        let unix = format!("unix://{}?db=3&pass=a%26b", socket.display());
        let tcp = format!("redis://:a%26b@127.0.0.1:{}/3", server.port);
        let tcp = Link::admitted(settings(&tcp), &spawn);
        let unix = Link::admitted(settings(&unix), &spawn);
        assert!(tcp.redis.call(Call::command("SET").arg("x").arg("y")).await.is_ok());
        assert_eq!(unix.redis.call(Call::command("GET").arg("x")).await, Ok(Value::BulkString(b"y".to_vec())));
        let info = text(&unix.redis.call(Call::command("CLIENT").arg("INFO")).await.unwrap());
        assert!(info.contains(" db=3 ") && info.contains("redis.sock") && info.contains("name=chat-service"), "{info}");
    });
}

#[test]
fn a_server_that_is_too_old_or_none_is_refused() {
    run(async |spawn| {
        for (greeting, reason) in [
            ("redis_version:6.0.16\r\nrun_id:x\r\n", "version 6.0.16: 6.2 or newer is needed"),
            ("redis_version:6.2.0\r\n", "INFO has no run_id"),
        ] {
            let info = format!("${}\r\n{greeting}\r\n", greeting.len());
            let port = fake(format!("+OK\r\n{info}$0\r\n\r\n$0\r\n\r\n"), &spawn).await;
            let link = Link::start(settings(&format!("redis://127.0.0.1:{port}")), &spawn);
            assert_eq!(&*link.refused().await, reason);
        }
        let port = fake("HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(), &spawn).await;
        let link = Link::start(settings(&format!("redis://127.0.0.1:{port}")), &spawn);
        assert_eq!(&*link.refused().await, "what came was no RESP2");
        let port = fake("-ERR max number of clients reached\r\n".to_owned(), &spawn).await;
        let link = Link::start(settings(&format!("redis://127.0.0.1:{port}")), &spawn);
        assert_eq!(&*link.refused().await, "CLIENT is answered ERR max number of clients reached");
    });
}

#[test]
fn the_clock_of_the_server_is_compared_with_ours() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let link = Link::start(server.settings(), &spawn);
        let offset_ms = link.connected().await.offset_ms;
        assert!(offset_ms.abs() < 5000, "{offset_ms}");
        let info = "redis_version:7.0.0\r\nrun_id:x\r\n";
        let info = format!("${}\r\n{info}\r\n", info.len());
        // In the year 2001.
        let time = "*2\r\n$10\r\n1000000000\r\n$6\r\n500000\r\n";
        let port = fake(format!("+OK\r\n{info}$0\r\n\r\n$0\r\n\r\n{time}"), &spawn).await;
        let link = Link::start(settings(&format!("redis://127.0.0.1:{port}")), &spawn);
        let offset_ms = link.connected().await.offset_ms;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
        assert!((now + offset_ms - 1_000_000_000_500).abs() < 5000, "{offset_ms}");
    });
}

#[test]
fn a_server_that_is_loading_is_waited_for() {
    run(async |spawn| {
        let mut server = Server::start(&["--dbfilename", "dump.rdb"]);
        static FILL: Script = Script::new("for i = 1, 3000 do redis.call('SET', 'key:' .. i, i) end");
        let link = Link::admitted(server.settings(), &spawn);
        link.redis.call(Call::script(&FILL, 0)).await.unwrap();
        server.admin(&["SAVE"]);
        server.kill();
        link.connected().await;
        link.lost().await;
        server.begin(&["--key-load-delay", "1500", "--loading-process-events-interval-bytes", "1024"]);
        assert_eq!(&*link.refused().await, "it is loading its data (LOADING)");
        let call = link.redis.call(Call::command("GET").arg("key:3000").within(PATIENCE));
        assert_eq!(call.await, Ok(Value::BulkString(b"3000".to_vec())));
    });
}

#[test]
fn a_replica_is_refused_and_a_master_that_becomes_one_is_left_without_a_loss() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let link = Link::admitted(server.settings(), &spawn);
        link.connected().await;
        let nobody = free_port().to_string();
        let push = |number: u64| Call::command("RPUSH").arg("list").int(number).within(PATIENCE);
        link.redis.call(push(0)).await.unwrap();
        // Not repeatable, and yet done: the server says that it was not.
        server.admin(&["REPLICAOF", "127.0.0.1", &nobody]);
        let calls = link.redis.calls((1..=50).map(push).collect());
        assert_eq!(&*link.refused().await, "it is a replica (READONLY)");
        let away = link.redis.call(push(99).within(Duration::from_millis(50))).await;
        assert_eq!(away, Err(CallError::Away));
        let other = Link::start(server.settings(), &spawn);
        assert_eq!(&*other.refused().await, "it is a replica (READONLY)");
        server.admin(&["REPLICAOF", "NO", "ONE"]);
        assert_eq!(calls.await, (2..=51).map(|length| Ok(Value::Int(length))).collect::<Vec<_>>());
        assert_eq!(server.list("list"), (0..=50).map(|number: u32| number.to_string()).collect::<Vec<_>>());
    });
}

#[test]
fn replicated_calls_are_answered_when_replicas_have_them() {
    run(async |spawn| {
        let server = Server::start(&["--repl-diskless-sync-delay", "0"]);
        let mut one = server.settings();
        one.min_replicas = 1;
        let link = Link::start(one, &spawn);
        let push = |what: &str| Call::command("RPUSH").arg("list").arg(what).within(PATIENCE);
        let waiting = link.redis.call(push("x").replicated().life());
        let connection = link.connected().await.connection;
        until("both", || matches!(link.redis.state(), State::Connected { .. })).await;
        assert_eq!(link.redis.call(push("early").early()).await, Ok(Value::Int(1)));
        link.redis.admit(connection, 7);
        assert_eq!(waiting.await, Err(CallError::NotReplicated));
        assert_eq!(server.list("list"), ["early", "x", "7"], "done all the same");
        assert_eq!(link.redis.call(push("y")).await, Ok(Value::Int(4)), "others do not wait");
        assert_eq!(
            server_error(link.redis.call(Call::command("NOSUCH").replicated()).await),
            "ERR",
            "an error is an error, with replicas or without"
        );

        let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", server.port)]);
        // The replica may be done before the server knows.
        until("replicates", || text(&server.admin(&["INFO", "replication"])).contains("state=online")).await;
        let before = server.called("wait");
        let outcomes = link.redis.calls(vec![push("z").replicated(); 100]).await;
        assert_eq!(outcomes, (5..=104).map(|length| Ok(Value::Int(length))).collect::<Vec<_>>());
        assert_eq!(replica.list("list").len(), 104);
        assert!(server.called("wait") - before <= 2, "one for a batch");
        let mixed = vec![push("z").replicated(), Call::command("ECHO").arg("x"), push("z").replicated()];
        let expected = [Ok(Value::Int(105)), Ok(Value::BulkString(b"x".to_vec())), Ok(Value::Int(106))];
        assert_eq!(link.redis.calls(mixed).await, expected);
    });
}

#[test]
fn without_replicas_asked_for_a_replicated_call_is_like_any_other() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let link = Link::admitted(server.settings(), &spawn);
        assert_eq!(link.redis.call(Call::command("INCR").arg("x").replicated()).await, Ok(Value::Int(1)));
        assert_eq!(server.called("wait"), 0);
        assert_eq!(server.clients("name=chat-service"), 1, "one connection is enough");
    });
}

#[test]
fn all_connections_follow_the_one_for_commands_to_another_server() {
    run(async |spawn| {
        let (old, new) = (Server::start(&[]), Server::start(&[]));
        let proxy = Proxy::start(old.port, &spawn).await;
        let mut one = settings(&proxy.url());
        one.min_replicas = 1;
        let link = Link::admitted(one, &spawn);
        let seen = Seen::new();
        let subscriber = link.redis.subscriber(Vec::new(), SharedSeen(Arc::clone(&seen)), |task| spawn(task));
        link.connected().await;
        let incr = Call::command("INCR").arg("x").within(PATIENCE);
        assert_eq!(link.redis.call(incr.clone().replicated()).await, Err(CallError::NotReplicated));
        assert_eq!(link.redis.block(incr.clone()).await, Ok(Value::Int(2)));
        assert_eq!(subscriber.subscribe(vec!["c".into()]).await, Ok(()));
        let Ok(Value::Int(id)) = link.redis.call(Call::command("CLIENT").arg("ID")).await else { panic!() };
        // A failover that leaves all other connections as they are.
        proxy.turn_to(new.port);
        old.admin(&["CLIENT", "KILL", "ID", &id.to_string()]);
        link.lost().await;
        link.connected().await;
        assert_eq!(link.redis.call(incr.clone().replicated()).await, Err(CallError::NotReplicated));
        assert_eq!(link.redis.block(incr.clone()).await, Ok(Value::Int(2)));
        until("subscriber", || {
            text(&new.admin(&["INFO", "clients"])).contains("pubsub_clients:1") || seen.restored() == 2
        })
        .await;
        until("message", || {
            new.admin(&["PUBLISH", "c", "x"]);
            seen.count() > 0
        })
        .await;
        assert_eq!(text(&old.admin(&["GET", "x"])), "2", "nothing more was done there");
    });
}

#[test]
fn calls_that_block_do_so_on_their_own_and_one_after_the_other() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let mut quick = server.settings();
        quick.io_timeout = Duration::from_millis(1000);
        let link = Link::admitted(quick, &spawn);
        link.connected().await;
        assert_eq!(server.clients("name=chat-service"), 1, "none before it is needed");
        let pop =
            |key: &str, s: &str, ms: u64| Call::command("BLPOP").arg(key).arg(s).within(Duration::from_millis(ms));
        let (first, second) = (link.redis.block(pop("a", "10", 15_000)), link.redis.block(pop("b", "10", 15_000)));
        until("blocked", || text(&server.admin(&["INFO", "clients"])).contains("blocked_clients:1")).await;
        let pushed = link.redis.calls(vec![
            Call::command("RPUSH").arg("b").arg("2"),
            Call::command("LLEN").arg("b"),
            Call::command("RPUSH").arg("a").arg("1"),
        ]);
        assert_eq!(pushed.await, [Ok(Value::Int(1)), Ok(Value::Int(1)), Ok(Value::Int(1))]);
        let popped =
            |key: &str, value: &str| Ok(Value::Array([key, value].map(|text| Value::BulkString(text.into())).to_vec()));
        assert_eq!(first.await, popped("a", "1"));
        assert_eq!(second.await, popped("b", "2"));
        // The server's time ends before the call's, and the other way round.
        assert_eq!(link.redis.block(pop("a", "1.6", 15_000)).await, Ok(Value::Nil), "silence is what was asked for");
        assert_eq!(link.redis.block(pop("a", "10", 1000)).await, Err(CallError::Unknown));
        assert_eq!(link.redis.block(pop("a", "0.1", 15_000)).await, Ok(Value::Nil), "nothing stands in the way");
        assert_eq!(link.count(|counters| &counters.timeouts), 1);
    });
}

#[test]
fn tls_is_checked() {
    run(async |spawn| {
        let testdata = concat!(env!("CARGO_MANIFEST_DIR"), "/src/fetch/testdata");
        let tls_port = free_port();
        let server = Server::start(&[
            "--tls-port",
            &tls_port.to_string(),
            "--tls-cert-file",
            &format!("{testdata}/leaf.pem"),
            "--tls-key-file",
            &format!("{testdata}/leaf.key.pem"),
            "--tls-ca-cert-file",
            &format!("{testdata}/ca.pem"),
            "--tls-auth-clients",
            "no",
        ]);
        let url = format!("rediss://127.0.0.1:{tls_port}");
        let trusting = |pem: Option<&str>| {
            let mut roots = RootCertStore::empty();
            for certificate in pem.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes())) {
                roots.add(certificate.unwrap()).unwrap();
            }
            let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let mut settings = settings(&url);
            settings.tls = Some(TlsConnector::from(Arc::new(config)));
            settings
        };
        let ca = fs::read_to_string(format!("{testdata}/ca.pem")).unwrap();
        let link = Link::admitted(trusting(Some(&ca)), &spawn);
        link.connected().await;
        let long = vec![b'x'; 3 << 20];
        let echoes = link.redis.calls(vec![Call::command("ECHO").arg(&long); 5]).await;
        assert!(echoes.into_iter().all(|echo| echo == Ok(Value::BulkString(long.clone()))));
        let seen = Seen::new();
        let subscriber = link.redis.subscriber(Vec::new(), SharedSeen(Arc::clone(&seen)), |task| spawn(task));
        subscriber.subscribe(vec!["c".into()]).await.unwrap();
        server.admin(&["PUBLISH", "c", "x"]);
        until("message", || seen.count() == 1).await;

        let strange = Link::admitted(trusting(None), &spawn);
        let reason = strange.refused().await;
        assert!(reason.starts_with("TLS: ") && reason.contains("certificate"), "{reason}");
        let without = Link::admitted(settings(&url), &spawn);
        assert_eq!(&*without.refused().await, "TLS is asked for, and not set up");
        let plain = Link::admitted(settings(&format!("redis://127.0.0.1:{tls_port}")), &spawn);
        until("no connection", || plain.redis.state() != State::Connected { admitted: true }).await;
    });
}

struct Subscribed {
    link: Link,
    seen: Arc<Seen>,
    subscriber: Subscriber,
}

impl Subscribed {
    async fn start(settings: Settings, patterns: &[&str], spawn: &Spawn) -> Self {
        let link = Link::admitted(settings, spawn);
        let seen = Seen::new();
        let patterns = patterns.iter().map(|pattern| Arc::from(*pattern)).collect();
        let subscriber = link.redis.subscriber(patterns, SharedSeen(Arc::clone(&seen)), |task| spawn(task));
        until("restored", || seen.restored() == 1).await;
        Self { link, seen, subscriber }
    }

    async fn subscribe(&self, channels: &[&str]) -> Result<(), SubscribeError> {
        self.subscriber.subscribe(names(channels)).await
    }

    async fn is_restored_again(&self) {
        let restored = self.seen.restored();
        until("lost", || self.seen.lost() == restored).await;
        until("restored", || self.seen.restored() == restored + 1).await;
    }
}

fn names(channels: &[&str]) -> Vec<Arc<str>> {
    channels.iter().map(|channel| Arc::from(*channel)).collect()
}

fn numbered(count: usize) -> Vec<Arc<str>> {
    (0..count).map(|number| format!("channel:{number}").into()).collect()
}

fn published(server: &Server, channel: &str, payload: &str) -> i64 {
    match server.admin(&["PUBLISH", channel, payload]) {
        Value::Int(receivers) => receivers,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_published_after_a_subscription_arrives() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let there = Subscribed::start(server.settings(), &["p*", "*q"], &spawn).await;
        for number in 0..50 {
            let channel = format!("c{number}");
            there.subscribe(&[&channel]).await.unwrap();
            assert_eq!(published(&server, &channel, "x"), 1, "{channel}");
        }
        assert_eq!(there.subscribe(&["c1", "c2", "c1"]).await, Ok(()), "already, and twice");
        assert_eq!(there.subscribe(&[]).await, Ok(()));
        assert_eq!(server.called("subscribe"), 50);
        until("messages", || there.seen.count() == 50).await;
        // A pattern and a channel.
        there.subscribe(&["p1"]).await.unwrap();
        assert_eq!(published(&server, "p1", "\r\n\0"), 2);
        assert_eq!(published(&server, "q", ""), 1);
        until("messages", || there.seen.count() == 53).await;
        let messages = there.seen.messages.lock().unwrap()[50..].to_vec();
        assert!(messages.contains(&("p1".to_owned(), b"\r\n\0".to_vec(), false)));
        assert!(messages.contains(&("p1".to_owned(), b"\r\n\0".to_vec(), true)));
        assert!(messages.contains(&("q".to_owned(), b"".to_vec(), true)));

        there.subscriber.unsubscribe(names(&["c1", "c2", "never"]));
        until("unsubscribed", || published(&server, "c1", "x") + published(&server, "c2", "x") == 0).await;
        assert_eq!(server.channels().len(), 49);
        // Not counted: one is enough.
        there.subscribe(&["c3"]).await.unwrap();
        there.subscriber.unsubscribe(names(&["c3"]));
        until("unsubscribed", || published(&server, "c3", "x") == 0).await;
        there.subscribe(&["c1"]).await.unwrap();
        assert_eq!(published(&server, "c1", "x"), 1);
        until("counted", || there.link.count(|counters| &counters.messages) == there.seen.count() as u64).await;
    });
}

#[test]
fn subscriptions_are_merged_and_restored_in_batches() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let proxy = Proxy::start(server.port, &spawn).await;
        let there = Subscribed::start(settings(&proxy.url()), &["p*"], &spawn).await;
        there.subscriber.subscribe(numbered(2000)).await.unwrap();
        assert_eq!(server.called("subscribe"), 4);
        // Many requests, while one is on its way.
        proxy.stop(true, false);
        let more = |number: u32| there.subscriber.subscribe(names(&[&format!("more:{number}")]));
        let answers: Vec<_> = (0..500).map(more).collect();
        proxy.go_on();
        for answer in answers {
            assert_eq!(answer.await, Ok(()));
        }
        let called = server.called("subscribe");
        assert!(called <= 4 + 2, "{called}");
        there.subscriber.unsubscribe((0..500).map(|number| format!("more:{number}").into()).collect());
        until("unsubscribed", || published(&server, "more:499", "x") == 0).await;

        server.admin(&["CONFIG", "RESETSTAT"]);
        server.admin(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        there.is_restored_again().await;
        assert_eq!((server.called("subscribe"), server.called("psubscribe"), there.seen.lost()), (4, 1, 1));
        there.seen.messages.lock().unwrap().clear();
        for channel in ["channel:0", "channel:1999", "p"] {
            assert_eq!(published(&server, channel, "x"), 1, "{channel}");
        }
        assert_eq!(published(&server, "more:0", "x"), 0);
        until("messages", || there.seen.count() == 3).await;
        assert_eq!(there.link.count(|counters| &counters.subscriber_reconnects), 1);
        assert_eq!(there.link.count(|counters| &counters.reconnects), 0, "commands are not concerned");
    });
}

#[test]
fn a_subscription_while_there_is_no_connection_waits_for_one_until_its_time_is_over() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let proxy = Proxy::start(server.port, &spawn).await;
        let there = Subscribed::start(settings(&proxy.url()), &[], &spawn).await;
        there.subscribe(&["held"]).await.unwrap();
        proxy.refuse(true);
        proxy.cut();
        until("lost", || there.seen.lost() == 1).await;
        let short = Duration::from_millis(100);
        let quick = there.subscriber.subscribe_within(names(&["held", "shared", "alone"]), short);
        let patient = there.subscriber.subscribe(names(&["held", "shared"]));
        drop(there.subscriber.subscribe(names(&["dropped"])));
        assert_eq!(quick.await, Err(SubscribeError::Away));
        proxy.refuse(false);
        assert_eq!(patient.await, Ok(()));
        assert_eq!(server.channels(), ["held", "shared"], "what others want stays, and only that");
    });
}

#[test]
fn a_subscription_that_was_taken_back_is_told_so() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let proxy = Proxy::start(server.port, &spawn).await;
        let there = Subscribed::start(settings(&proxy.url()), &[], &spawn).await;
        proxy.stop(true, true);
        let both = there.subscriber.subscribe(names(&["a", "b"]));
        there.subscriber.unsubscribe(names(&["a"]));
        assert_eq!(both.await, Err(SubscribeError::Withdrawn));
        let again = there.subscriber.subscribe(names(&["a"]));
        proxy.go_on();
        assert_eq!(again.await, Ok(()));
        assert_eq!(published(&server, "a", "x"), 1);
        until("b is not wanted", || published(&server, "b", "x") == 0).await;
        assert_eq!(server.channels(), ["a"]);
    });
}

#[test]
fn messages_past_the_limit_are_left_out() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let mut limited = server.settings();
        limited.max_message_bytes = 1000;
        let there = Subscribed::start(limited, &["p*"], &spawn).await;
        there.subscribe(&["c"]).await.unwrap();
        for (channel, bytes) in [("c", 1000), ("c", 1001), ("p", 1000), ("p", 5_000_000), ("c", 1)] {
            published(&server, channel, &"x".repeat(bytes));
        }
        until("the last one", || there.seen.count() == 3).await;
        let lengths: Vec<usize> = there.seen.texts().iter().map(|text| text.len() - 2).collect();
        assert_eq!(lengths, [1000, 1000, 1]);
        assert_eq!(there.link.count(|counters| &counters.messages_too_large), 2);
        assert_eq!(there.seen.lost(), 0);
    });
}

#[test]
fn a_message_that_cannot_be_handled_costs_only_itself() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let there = Subscribed::start(server.settings(), &["*"], &spawn).await;
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        redis::cmd("PUBLISH").arg(b"\xff").arg("x").exec(&mut connection).unwrap();
        published(&server, "c", "panic");
        published(&server, "c", "good");
        until("the good one", || there.seen.count() == 1).await;
        assert_eq!(there.seen.texts(), ["c good"]);
        assert_eq!(there.link.count(|counters| &counters.messages_bad_channel), 1);
        assert_eq!(there.seen.lost(), 0);
    });
}

#[test]
fn a_subscriber_on_a_half_open_connection_notices_it() {
    run(async |spawn| {
        let server = Server::start(&[]);
        let proxy = Proxy::start(server.port, &spawn).await;
        let mut quick = settings(&proxy.url());
        quick.io_timeout = Duration::from_millis(1000);
        quick.subscriber_ping_interval = Duration::from_millis(200);
        let there = Subscribed::start(quick, &[], &spawn).await;
        // PINGs of an idle connection, before anything is subscribed and after.
        for channel in [None, Some("c")] {
            if let Some(channel) = channel {
                there.subscribe(&[channel]).await.unwrap();
            }
            let before = server.called("ping");
            until("PINGs", || server.called("ping") >= before + 3).await;
            assert_eq!(there.seen.lost(), 0, "they are answered");
        }
        proxy.stop(true, true);
        until("lost", || there.seen.lost() == 1).await;
        proxy.go_on();
        until("restored", || there.seen.restored() == 2).await;
        assert_eq!(published(&server, "c", "x"), 1);

        // Messages come, but nothing of ours arrives there.
        proxy.stop(true, false);
        let waiting = there.subscriber.subscribe(names(&["d"]));
        until("lost", || {
            published(&server, "c", "x");
            there.seen.lost() == 2
        })
        .await;
        proxy.go_on();
        assert_eq!(waiting.await, Ok(()));
        assert_eq!(there.link.count(|counters| &counters.timeouts), 2);
    });
}

#[test]
fn a_subscriber_that_is_too_slow_for_the_server_comes_back() {
    run(async |spawn| {
        let server = Server::start(&["--client-output-buffer-limit", "pubsub 1mb 0 0"]);
        let there = Subscribed::start(server.settings(), &[], &spawn).await;
        there.subscribe(&["c"]).await.unwrap();
        there.seen.close(true);
        let long = "x".repeat(256 * 1024);
        let mut count = 0;
        while published(&server, "c", &long) > 0 {
            count += 1;
            assert!(count < 1000, "the server keeps it all");
        }
        assert_eq!(there.seen.lost(), 0);
        there.seen.close(false);
        there.is_restored_again().await;
        assert!(there.seen.count() < count, "some are lost");
        assert_eq!(published(&server, "c", "x"), 1);
        until("message", || there.seen.texts().iter().any(|text| text == "c x")).await;
    });
}

#[test]
fn a_channel_that_the_user_may_not_have_is_refused_and_costs_nothing_else() {
    run(async |spawn| {
        let server = Server::start(&[]);
        server.admin(&[
            "ACL",
            "SETUSER",
            "chat",
            "on",
            ">secret",
            "~*",
            "resetchannels",
            "&chat:*",
            "&chat:p*",
            "+@all",
        ]);
        let url = format!("redis://chat:secret@127.0.0.1:{}", server.port);
        let there = Subscribed::start(settings(&url), &["chat:p*"], &spawn).await;
        assert_eq!(there.subscribe(&["chat:a"]).await, Ok(()));
        assert_eq!(there.subscribe(&["other", "chat:b"]).await, Err(SubscribeError::Refused));
        assert_eq!(there.subscribe(&["chat:b"]).await, Ok(()));
        assert_eq!((server.channels(), there.seen.lost()), (vec!["chat:a".to_owned(), "chat:b".to_owned()], 0));

        let link = Link::admitted(settings(&url), &spawn);
        let seen = Seen::new();
        let subscriber = link.redis.subscriber(names(&["*"]), SharedSeen(Arc::clone(&seen)), |task| spawn(task));
        let within = Duration::from_millis(300);
        assert_eq!(subscriber.subscribe_within(names(&["chat:a"]), within).await, Err(SubscribeError::Away));
        until("attempts", || link.count(|counters| &counters.subscriber_reconnects) > 0).await;
        assert_eq!((seen.restored(), seen.lost()), (0, 0), "without its pattern it is worth nothing");
    });
}

#[test]
fn a_subscriber_survives_a_restart_of_the_server() {
    run(async |spawn| {
        let mut server = Server::start(&[]);
        let there = Subscribed::start(server.settings(), &["p*"], &spawn).await;
        there.subscribe(&["c"]).await.unwrap();
        server.kill();
        until("lost", || there.seen.lost() == 1).await;
        there.subscriber.unsubscribe(names(&["c"]));
        let waiting = there.subscriber.subscribe(names(&["d"]));
        server.begin(&[]);
        assert_eq!(waiting.await, Ok(()));
        until("restored", || there.seen.restored() == 2).await;
        assert_eq!(published(&server, "c", "x"), 0);
        assert_eq!(published(&server, "d", "x") + published(&server, "p", "x"), 2);
    });
}

/// Is told, and remembers.
#[derive(Default)]
struct Seen {
    messages: Mutex<Vec<(String, Vec<u8>, bool)>>,
    restored: AtomicUsize,
    lost: AtomicUsize,
    is_closed: Mutex<bool>,
    opened: Condvar,
}

struct SharedSeen(Arc<Seen>);

impl Seen {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    fn count(&self) -> usize {
        self.messages.lock().unwrap().len()
    }

    fn texts(&self) -> Vec<String> {
        let messages = self.messages.lock().unwrap();
        messages.iter().map(|(channel, payload, _)| format!("{channel} {}", String::from_utf8_lossy(payload))).collect()
    }

    fn restored(&self) -> usize {
        self.restored.load(Ordering::SeqCst)
    }

    fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }

    /// Lets the listener wait, or go on.
    fn close(&self, is_closed: bool) {
        *self.is_closed.lock().unwrap() = is_closed;
        self.opened.notify_all();
    }
}

impl Listener for SharedSeen {
    fn message(&self, channel: &str, payload: &[u8], is_pattern: bool) {
        let mut is_closed = self.0.is_closed.lock().unwrap();
        while *is_closed {
            is_closed = self.0.opened.wait(is_closed).unwrap();
        }
        drop(is_closed);
        assert_ne!(payload, b"panic");
        self.0.messages.lock().unwrap().push((channel.to_owned(), payload.to_vec(), is_pattern));
    }

    fn restored(&self) {
        self.0.restored.fetch_add(1, Ordering::SeqCst);
    }

    fn lost(&self) {
        self.0.lost.fetch_add(1, Ordering::SeqCst);
    }
}

/// A way to a server that can be stopped, cut and turned.
struct Proxy {
    port: u16,
    target: Arc<AtomicUsize>,
    stopped: Arc<[AtomicBool; 2]>,
    refuses: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<AsyncStream>>>,
}

impl Proxy {
    async fn start(to: u16, spawn: &Spawn) -> Self {
        let listener = AsyncListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            target: Arc::new(AtomicUsize::new(to.into())),
            stopped: Arc::default(),
            refuses: Arc::default(),
            streams: Arc::default(),
        };
        let (target, stopped, refuses) =
            (Arc::clone(&proxy.target), Arc::clone(&proxy.stopped), Arc::clone(&proxy.refuses));
        let (streams, spawner) = (Arc::clone(&proxy.streams), Arc::clone(spawn));
        spawn(Box::pin(async move {
            while let Ok((client, _)) = listener.accept().await {
                if refuses.load(Ordering::SeqCst) {
                    continue;
                }
                let port = u16::try_from(target.load(Ordering::SeqCst)).unwrap();
                let Ok(server) = AsyncStream::connect((Ipv4Addr::LOCALHOST, port)).await else { continue };
                streams.lock().unwrap().extend([client.clone(), server.clone()]);
                for (direction, mut from, mut to) in [(0, client.clone(), server.clone()), (1, server, client)] {
                    let stopped = Arc::clone(&stopped);
                    spawner(Box::pin(async move {
                        let mut chunk = vec![0; 16 * 1024];
                        let go_on = async || {
                            while stopped[direction].load(Ordering::SeqCst) {
                                Timer::after(Duration::from_millis(2)).await;
                            }
                        };
                        loop {
                            go_on().await;
                            let Ok(count @ 1..) = from.read(&mut chunk).await else { break };
                            go_on().await;
                            if to.write_all(&chunk[..count]).await.is_err() {
                                break;
                            }
                        }
                        _ = to.shutdown(std::net::Shutdown::Both);
                    }));
                }
            }
        }));
        proxy
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Forwards nothing any more to the server, to the client. Connections stay.
    fn stop(&self, up: bool, down: bool) {
        self.stopped[0].store(up, Ordering::SeqCst);
        self.stopped[1].store(down, Ordering::SeqCst);
    }

    fn go_on(&self) {
        self.stop(false, false);
    }

    /// Closes new connections.
    fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }

    /// Ends all connections.
    fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Leads new connections to another server.
    fn turn_to(&self, port: u16) {
        self.target.store(port.into(), Ordering::SeqCst);
    }
}

/// A server that says this to everybody.
async fn fake(says: String, spawn: &Spawn) -> u16 {
    let listener = AsyncListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let spawner = Arc::clone(spawn);
    spawn(Box::pin(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let says = says.clone();
            spawner(Box::pin(async move {
                _ = stream.write_all(says.as_bytes()).await;
                _ = stream.read_to_end(&mut Vec::new()).await;
            }));
        }
    }));
    port
}
