//! The chat's hot events on socketioxide, written the way its documentation writes them.
//!
//! `message` → `response`, `join_room`, `chat_message` with a seq per room. No store, no rights, no
//! limits: what is measured is the Socket.IO stack, and the peer gets to do *less* than the service.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{Router, routing::get, serve::ListenerExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use socketioxide::{
    SocketIo,
    extract::{AckSender, Data, SocketRef, State},
};

/// Bytes waiting for a member are bounded by the load generator's window; this only has to be
/// larger than it, since socketioxide drops an emit to a member whose queue is full.
const MAX_BUFFERED_PACKETS: usize = 16_384;

#[derive(Deserialize)]
struct Join {
    meeting_id: String,
}

#[derive(Deserialize)]
struct Draft {
    meeting_id: String,
    text: String,
}

#[derive(Serialize)]
struct Response {
    data: Value,
}

#[derive(Serialize)]
struct Joined {
    ok: bool,
}

#[derive(Serialize)]
struct Sent<'a> {
    ok: bool,
    id: &'a str,
    seq: u64,
}

#[derive(Serialize)]
struct ChatMessage<'a> {
    id: &'a str,
    seq: u64,
    meeting_id: &'a str,
    text: &'a str,
    sender: &'a str,
    ts: u64,
}

/// The last seq of each room.
#[derive(Clone, Default)]
struct Rooms(Arc<RwLock<HashMap<String, Arc<AtomicU64>>>>);

impl Rooms {
    fn next_seq(&self, room: &str) -> u64 {
        if let Some(last) = self.0.read().unwrap().get(room) {
            return last.fetch_add(1, Ordering::Relaxed) + 1;
        }
        let mut rooms = self.0.write().unwrap();
        rooms.entry(room.to_owned()).or_default().fetch_add(1, Ordering::Relaxed) + 1
    }
}

async fn on_connect(socket: SocketRef) {
    socket.on("message", async |socket: SocketRef, Data(data): Data<Value>| {
        let _ = socket.emit("response", &Response { data });
    });
    socket.on("join_room", async |socket: SocketRef, Data(join): Data<Join>, ack: AckSender| {
        socket.join(join.meeting_id);
        let _ = ack.send(&Joined { ok: true });
    });
    socket.on("chat_message", on_chat_message);
}

async fn on_chat_message(socket: SocketRef, Data(message): Data<Draft>, State(rooms): State<Rooms>, ack: AckSender) {
    let ts = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let seq = rooms.next_seq(&message.meeting_id);
    // As long as a ULID, and as cheap as can be.
    let id = format!("{ts:012}{seq:014}");
    let event = ChatMessage {
        id: &id,
        seq,
        meeting_id: &message.meeting_id,
        text: &message.text,
        sender: socket.id.as_str(),
        ts,
    };
    let _ = socket.within(message.meeting_id.clone()).emit("chat_message", &event).await;
    let _ = ack.send(&Sent { ok: true, id: &id, seq });
}

fn main() {
    let var = |name: &str| std::env::var(name).ok();
    let port: u16 = var("PORT").map_or(3000, |port| port.parse().expect("PORT"));
    let mut runtime = match var("TOKIO_FLAVOR").as_deref() {
        None | Some("multi_thread") => tokio::runtime::Builder::new_multi_thread(),
        Some("current_thread") => tokio::runtime::Builder::new_current_thread(),
        Some(other) => panic!("TOKIO_FLAVOR={other}"),
    };
    if let Some(threads) = var("WORKER_THREADS") {
        runtime.worker_threads(threads.parse().expect("WORKER_THREADS"));
    }
    let runtime = runtime.enable_all().build().expect("runtime");
    // Spawned, so that accepting runs on a worker too and the main thread only waits.
    let server = runtime.spawn(async move {
        let (layer, io) =
            SocketIo::builder().max_buffer_size(MAX_BUFFERED_PACKETS).with_state(Rooms::default()).build_layer();
        io.ns("/", on_connect);
        let app = Router::new().route("/api/v1/chat/health", get(async || r#"{"status":"ok"}"#)).layer(layer);
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("bind");
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        axum::serve(listener, app).await.expect("serve");
    });
    runtime.block_on(server).expect("server");
}
