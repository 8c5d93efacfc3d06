//! Socket.IO 5, server side, as a state machine: the messages of one Engine.IO session and the time in, calls of
//! handlers, frames in an [`Outbox`](crate::outbox::Outbox) and a deadline out.
//!
//! [`Namespaces`] is what the application registers at start. A [`Connection`] is all that Socket.IO knows of one
//! session; the layer that reads messages drives it. Handlers get a [`Socket`], one per connection and namespace.
//! [`Packet`] is the wire format inwards, [`encode`] outwards. JSON that a client sent stays the text that it was:
//! nothing here builds values of it.
//!
//! Left to others: Engine.IO and the transports (`engine`, `net`), what waits for the client (`outbox`), rooms, and
//! what an event means (`chat`). No I/O, no clock, no executor: `now` is always an argument.
//!
//! Done: the whole of the protocol's text. Not done on purpose: connection state recovery, namespaces that come into
//! being at run time, query strings in namespaces (v2 only), other parsers than the default one.
//!
//! Source: <https://github.com/socketio/socket.io/blob/main/docs/socket.io-protocol/v5-current.md>.
//! Start at [`connection`], then `client`, where the rules are.

mod ack;
mod client;
pub mod connection;
pub mod encode;
mod error;
mod handle;
mod json;
mod packet;
mod registry;
#[cfg(test)]
mod tests;

pub use ack::{Ack, AckArgs, AckError};
pub use client::Limits;
pub use connection::Connection;
pub use encode::{binary_event_frames, event_frame, event_frame_json};
pub use error::{DisconnectReason, ProtocolError};
pub use handle::{Socket, WeakSocket};
pub use packet::{Args, Packet, PacketKind, PacketLimits, is_reserved_event};
pub use registry::{ConnectRequest, Event, NamespaceBuilder, Namespaces, NamespacesBuilder};
