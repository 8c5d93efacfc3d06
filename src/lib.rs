//! Real-time chat and notifications over Socket.IO, as one small binary.
//!
//! The README says how to run it, `docs/PROTOCOL.md` what clients may send and get, `docs/ARCHITECTURE.md` how it is
//! built and why.
//!
//! ```text
//!    sockets
//!       | bytes
//!      net ------ http     heads, bodies, answers, CORS, the WebSocket handshake
//!       | packets
//!     engine               Engine.IO: who may poll and post, heartbeat, upgrade, close
//!       | messages
//!     socket               Socket.IO: namespaces, events, acks, attachments
//!       | events
//!      chat                what an event means
//!       | turns
//!      rooms               members, one order of events per room, fan-out
//!       | frames
//!     outbox ----> net     what waits for one client; net writes it
//! ```
//!
//! Beside that path: [`api`] answers plain HTTP, [`metrics`] counts, [`types`] holds the names that several layers
//! share, [`server`] builds everything and stops it. [`config`], [`cli`], [`logging`], [`healthcheck`] and [`shutdown`]
//! are what `main` needs.
//!
//! Start at [`server`], then [`net`].

pub mod adapter;
pub mod api;
pub mod auth;
pub mod chat;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod engine;
pub mod fetch;
pub mod healthcheck;
pub mod http;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod outbox;
pub mod redis;
pub mod rooms;
pub mod schedule;
pub mod server;
pub mod shutdown;
pub mod socket;
pub mod store;
pub mod types;
