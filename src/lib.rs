//! Real-time chat and notifications over Socket.IO, as one small binary.
pub mod api;
pub mod chat;
pub mod cli;
pub mod config;
pub mod engine;
pub mod healthcheck;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod outbox;
pub mod rooms;
pub mod server;
pub mod shutdown;
pub mod socket;
pub mod types;
