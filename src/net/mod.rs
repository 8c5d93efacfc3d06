//! Sockets, tasks, timers and the clock: what drives the layers to the right.
//!
//! One task per connection. It speaks HTTP (`connection`) until a request upgrades it; then a new, smaller task
//! takes the socket over (`stream`, on the WebSocket of `channel`), and nothing of HTTP stays in memory. A
//! session on polling has a task of its own for its deadlines (`session`).
//!
//! Everything that belongs to one session is handled by one task at a time and in order: the POST that is under way,
//! or the WebSocket. Handlers run on that task, without a lock.
//!
//! A panic ends the session and the connection in whose task it happened, and nothing else.
//!
//! Start at `listener`, then `connection`.

mod app;
mod boundary;
mod channel;
mod connection;
mod echo;
mod io;
mod listener;
mod polling;
mod session;
mod shared;
mod socketio;
mod stream;
mod timers;

pub use app::{Application, Pages, Peer, Request};
pub use listener::{bind, serve};
pub use shared::{Settings, Shared, TCP_PER_SESSION, WebSocketMode};
pub use socketio::SocketIo;
