//! What the events of the chat mean: payloads in, rooms changed, answers and broadcasts out.
//!
//! [`command`] reads what clients send, [`event`] lists what they get, [`error`] is the one error object of acks,
//! [`service`] does what was asked. The chat knows meetings and sockets; it knows no transport and no clock of its
//! own. `docs/PROTOCOL.md` is the contract that clients read.
//!
//! So far meetings live in memory for as long as somebody is in them, everybody may join and write, and messages are
//! numbered but not kept.

pub mod command;
pub mod error;
pub mod event;
pub mod service;

pub use error::{Code, Error};
pub use service::Chat;
