//! The integration tests of the library, in one binary so that they are linked once.
//!
//! One file per promise, its name is the promise. What stock clients see is tested in `tests/clients`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may give up")]

mod chat_cost;
mod chat_model;
mod layering;
mod payloads_cut_at_every_byte;
mod redis_link;
mod rooms_stress;
mod server_in_process;
mod two_peers_on_a_fake_network;
