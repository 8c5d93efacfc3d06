//! A server for protocol test suites: our engine, socket, WebSocket and HTTP layers without the chat.
//!
//! ```text
//! cargo run --release --example conformance -- --mode socketio --port 3000
//! ```
//!
//! Modes: `socketio` (namespaces `/` and `/custom`), `engineio` (echoes every message), `ws-echo` (RFC 6455 echo under any path),
//! `http-echo` (echoes the body of any request). `--help` lists the flags.

use std::{
    collections::HashMap,
    env,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use chat_service::{
    engine,
    http::{AllowedOrigins, HeadLimits, Response, TrustedProxies},
    logging,
    metrics::Metrics,
    net::{self, Application, Pages, Peer, Request, Settings, Shared, SocketIo, WebSocketMode},
    outbox::{Frame, Outbox},
    server,
    socket::{Event, Limits, NamespaceBuilder, Namespaces, Socket},
    types::{CloseReason, DrainNotice, Handshake},
};

/// Name, default, meaning.
const FLAGS: [(&str, &str, &str); 9] = [
    ("--mode", "socketio", "socketio, engineio, ws-echo or http-echo"),
    ("--port", "3000", "0 for any free one; the address is printed"),
    ("--path", "/socket.io/", "where Engine.IO is, with a slash at its end; in engineio mode /engine.io/"),
    ("--ping-interval-ms", "300", "pause between a pong and the next ping"),
    ("--ping-timeout-ms", "200", "how long a pong may take"),
    ("--connect-timeout-ms", "45000", "how long a client may take to join a namespace"),
    ("--upgrade-timeout-ms", "10000", "how long an upgrade may take"),
    ("--max-payload", "1000000", "the largest message, in bytes"),
    ("--log-level", "warn", "off, error, warn, info, debug or trace"),
];

/// Messages of the echo modes, and what may wait for one client.
const ECHO_MAX_BYTES: usize = 64 * 1024 * 1024;
/// How long the client may take to answer `emit-with-ack`.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    match run(env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: impl Iterator<Item = String>) -> Result<(), String> {
    let mut flags: HashMap<&str, String> =
        FLAGS.iter().map(|(name, default, _)| (*name, (*default).to_owned())).collect();
    let mut args = args;
    let mut path_given = false;
    while let Some(name) = args.next() {
        if name == "--help" {
            for (name, default, meaning) in FLAGS {
                println!("{name} ({default})\n    {meaning}");
            }
            return Ok(());
        }
        let value = args.next().ok_or_else(|| format!("{name}: expected a value"))?;
        path_given |= name == "--path";
        *flags.get_mut(name.as_str()).ok_or_else(|| format!("unknown flag {name}, see --help"))? = value;
    }
    let number = |name: &str| -> Result<u64, String> {
        let value = &flags[name];
        value.parse().map_err(|_| format!("{name} {value}: expected an integer"))
    };
    let ms = |name: &str| number(name).map(Duration::from_millis);

    let mode = flags["--mode"].as_str();
    let (app, websocket): (Box<dyn Application>, _) = match mode {
        "socketio" => {
            let limits = Limits { connect_timeout: ms("--connect-timeout-ms")?, ..Limits::default() };
            (Box::new(SocketIo::new(namespaces(limits), |_, _| {})), WebSocketMode::Engine)
        }
        "engineio" => (Box::new(EngineEcho), WebSocketMode::Engine),
        "ws-echo" | "http-echo" => (Box::new(EngineEcho), WebSocketMode::Echo),
        other => return Err(format!("--mode {other}: expected socketio, engineio, ws-echo or http-echo")),
    };
    let path = match mode {
        "ws-echo" | "http-echo" => None,
        "engineio" if !path_given => Some("/engine.io/"),
        _ => Some(flags["--path"].as_str()),
    };
    let settings = Settings {
        path: path.map(Into::into),
        websocket,
        engine: engine::Settings {
            ping_interval: ms("--ping-interval-ms")?,
            ping_timeout: ms("--ping-timeout-ms")?,
            upgrade_timeout: ms("--upgrade-timeout-ms")?,
            max_payload: number("--max-payload")? as usize,
        },
        outbox_max_bytes: ECHO_MAX_BYTES,
        head: HeadLimits::default(),
        head_timeout: Duration::from_secs(5),
        body_timeout: Duration::from_secs(10),
        keep_alive_timeout: Duration::from_secs(75),
        max_body: ECHO_MAX_BYTES,
        max_connections: None,
        max_connections_per_ip: None,
        connect_rate: None,
        input_rate: None,
        trusted_proxies: TrustedProxies::default(),
        cors: AllowedOrigins::Any,
    };
    let level = flags["--log-level"].parse().map_err(|_| "--log-level: expected a level".to_owned())?;
    logging::init(level, chat_service::config::LogFormat::Text).map_err(|error| error.to_string())?;

    let port = u16::try_from(number("--port")?).map_err(|_| "--port: expected a port".to_owned())?;
    let listener = net::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).map_err(|error| error.to_string())?;
    let address = listener.get_ref().local_addr().map_err(|error| error.to_string())?;
    println!("listening on http://{address}");

    let executor = Arc::new(smol::Executor::new());
    let metrics = Arc::new(Metrics::new(SystemTime::now()));
    let shared = Arc::new(Shared::new(settings, metrics, Arc::clone(&executor), app, Box::new(HttpEcho)));
    server::block_on(&executor, 2, net::serve(listener, shared));
    Ok(())
}

fn namespaces(limits: Limits) -> Arc<Namespaces> {
    Namespaces::builder().limits(limits).namespace("/", register).namespace("/custom", register).build()
}

fn register(namespace: NamespaceBuilder) -> NamespaceBuilder {
    namespace
        // The payload is kept from the CONNECT to the handler that emits it.
        .middleware(|request| {
            let payload = request.payload().map_or("{}", |payload| payload.get()).to_owned();
            request.accept_with(payload);
        })
        .on_connect(|socket| {
            let payload = socket.data::<String>().map_or("{}", String::as_str);
            socket.emit_raw("auth", payload);
        })
        .on("message", |socket, event| {
            emit(socket, "message-back", &event);
        })
        .on("message-with-ack", |_, event| {
            if let Some(ack) = event.ack {
                ack.send_binary(event.args.as_str(), event.attachments);
            }
        })
        .on("emit-with-ack", |socket, event| {
            let again = socket.clone();
            let (args, deadline) = (event.args.as_str(), Instant::now() + ACK_TIMEOUT);
            socket.emit_binary_with_ack(event.name, args, event.attachments, deadline, move |answer| {
                if let Ok(answer) = answer {
                    again.emit_binary("emit-with-ack", answer.args.as_str(), answer.attachments);
                }
            });
        })
}

fn emit(socket: &Socket, name: &str, event: &Event<'_>) {
    socket.emit_binary(name, event.args.as_str(), event.attachments);
}

/// Sends every Engine.IO message back.
struct EngineEcho;

impl Application for EngineEcho {
    fn open(&self, outbox: &Arc<Outbox>, _handshake: Handshake, _now: Instant) -> Arc<dyn Peer> {
        Arc::new(EngineEchoPeer(Arc::clone(outbox)))
    }
}

struct EngineEchoPeer(Arc<Outbox>);

impl Peer for EngineEchoPeer {
    fn handle_text(&self, text: &str, _now: Instant) -> Result<(), CloseReason> {
        self.0.push(Frame::build_text(|out| {
            out.push(b'4');
            out.extend_from_slice(text.as_bytes());
        }));
        Ok(())
    }

    fn handle_binary(&self, data: &[u8], _now: Instant) -> Result<(), CloseReason> {
        self.0.push(Frame::binary(data));
        Ok(())
    }

    fn handle_timeout(&self, _now: Instant) -> Result<(), CloseReason> {
        Ok(())
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn announce_drain(&self, _notice: DrainNotice) {}

    fn close(&self, _reason: CloseReason) {}
}

/// Sends every request's body back.
struct HttpEcho;

impl Pages for HttpEcho {
    fn respond<'a>(
        &'a self,
        _shared: &'a Shared,
        request: Request<'a>,
    ) -> Pin<Box<dyn Future<Output = Response> + Send + 'a>> {
        Box::pin(async move { Response::text(200, "application/octet-stream", request.body) })
    }
}
