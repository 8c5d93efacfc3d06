//! HTTP/1 as bytes and values: request heads, bodies, answers, CORS, proxies and the WebSocket handshake.
//!
//! Nothing here touches a socket or a clock. [`net`](crate::net) appends what it read to a buffer
//! and asks; every parser says how much of the input it used, so what is left over is the next
//! pipelined request, or the first bytes of a WebSocket:
//!
//! ```text
//! buffer -> Head::parse -> BodyDecoder::decode -> (a handler) -> Response::encode -> buffer
//!                      \-> upgrade::websocket  -> Accept::encode, then the connection speaks WebSocket
//! ```
//!
//! The rule for what a message's end is (RFC 9112 §6.3) has one line here: one reading or a refusal.
//! Whatever another parser on the way could read in a second way (two lengths, a length beside a coding, a
//! bare LF, a folded line, a space before a colon) is an [`HttpError`] whose [`closes`](HttpError::closes)
//! is true, because after it nobody knows where the next request begins.
//!
//! Left to others: time (408 is [`HttpError::RequestTimeout`], but `net` decides when), routing, when to
//! send [`CONTINUE`], and the Engine.IO error bodies. Left out for good: HTTP/2, transfer codings other
//! than `chunked`, compression, ranges, `Date`, and trailers, which are read and thrown away.
//!
//! Specifications: RFC 9112 §2–§7 and §9 (messages, connections), RFC 9110 §7 (Host, Connection, Upgrade), §10.1.1
//! (Expect) and §15 (status codes), RFC 6455 §4.2 (WebSocket handshake), the Fetch standard's CORS protocol.
//!
//! Start with [`Head::parse`], then [`body`].

mod authority;
pub mod body;
pub mod cors;
pub mod error;
pub mod forwarded;
pub mod head;
pub mod response;
mod scan;
mod token;
pub mod upgrade;

pub use body::{BodyDecoder, Decoded};
pub use cors::{AllowedOrigins, Cors};
pub use error::HttpError;
pub use forwarded::TrustedProxies;
pub use head::{Framing, Head, HeadLimits, Version};
pub use response::{Body, CONTINUE, Encoding, Response};
pub use upgrade::{Accept, UpgradeError};
