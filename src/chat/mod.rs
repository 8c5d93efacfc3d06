//! What the events of the chat mean: payloads in, meetings changed, answers and broadcasts out.
//!
//! [`command`] reads what clients send and [`service_command`] and [`update`] what sibling services say; [`event`] lists
//! what clients get; [`error`] is the one error object. [`service`] holds the chat and takes an event from its socket to
//! its command; the commands stand by what they are about: [`identity`] (who a client is, from CONNECT to the end of its
//! token), [`joining`] (join, leave, presence, typing), [`messages`] (send, edit, read), [`notices`] (inbox, what is
//! unread), [`publishing`] (what other services bring about). A command has two doors: an event, or a request of
//! `api::rest`.
//!
//! Commands are futures, but nearly always done at once: what they wait for (the store, the authorisation service) is
//! mostly there. Those of one socket are done in order. What concerns everybody in a meeting happens in a turn of its
//! room, which `meeting` writes down; what is put off stands in `job`.
//!
//! The chat knows no transport, and no clock of its own. `docs/PROTOCOL.md` is the contract that clients read.

pub mod command;
mod delivery;
mod emits;
pub mod error;
pub mod event;
pub mod identity;
mod job;
pub mod joining;
mod meeting;
pub mod messages;
pub mod notices;
pub mod participants;
pub mod peers;
pub mod publishing;
mod rfc3339;
mod servers;
pub mod service;
pub mod service_command;
pub mod update;
mod user;

pub use crate::cluster::RedisState;
pub use error::{Code, Error};
pub use participants::StoredParticipants;
pub use peers::Peers;
pub use service::{Caller, Chat, Class, Offload, Parts, Rates, Settings, random_name};
