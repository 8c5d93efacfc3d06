//! What waits for one client, and how it is encoded.
//!
//! A [`Frame`] is encoded once, as the finished WebSocket frame, and shared by reference count by all the
//! clients it goes to. An [`Outbox`] queues frames for one client, bounded in bytes, whatever transport
//! the client is on at the moment.
//!
//! This is a leaf: `engine` puts its pings in, `socket` its events, `rooms` its broadcasts, and `net`
//! takes everything out and writes it. It leaves to others: what a frame means, and all I/O.

mod frame;
mod queue;

pub use frame::Frame;
pub use queue::{Outbox, Pushed, Slot};
