//! Engine.IO 4, server side, as state machines: bytes, packets and the time in, answers and a deadline out.
//!
//! [`Session`] holds the life of one session over both transports: who may poll, who may post, the upgrade,
//! the heartbeat, the close. [`Packet`] and [`payload`] are the wire formats, [`Intent`] reads a request's
//! query, [`Refusal`] lists the errors the protocol knows.
//!
//! Left to others: HTTP and WebSocket bytes (`http`, `net`), what waits for the client (`outbox`), and what a
//! message means (`socket`). No I/O, no clock, no executor: `now` is always an argument.
//!
//! Source: <https://github.com/socketio/socket.io/blob/main/docs/engine.io-protocol/v4-current.md>.
//! Start at [`session`].

mod error;
mod intent;
mod packet;
pub mod payload;
pub mod session;

pub use error::{ProtocolError, Refusal};
pub use intent::Intent;
pub use packet::{Message, Packet};
pub use session::{Due, PollAnswer, ProbeStep, Received, Session, Settings};
