//! What the network layer asks of the layers above it.

use std::{future::Future, net::IpAddr, pin::Pin, sync::Arc, time::Instant};

use crate::{
    http::{Head, HttpError, Response},
    net::Shared,
    outbox::Outbox,
    types::{CloseReason, DrainNotice, Handshake},
};

/// Makes the layer above one Engine.IO session: Socket.IO, or whatever speaks Engine.IO.
pub trait Application: Send + Sync + 'static {
    /// A session was opened. What it sends goes into `outbox`.
    fn open(&self, outbox: &Arc<Outbox>, handshake: Handshake, now: Instant) -> Arc<dyn Peer>;
}

/// The layer above one Engine.IO session. Input comes from one task at a time, in order.
pub trait Peer: Send + Sync {
    /// A text message, without its type digit.
    ///
    /// # Errors
    /// Why the session is to be closed.
    fn handle_text(&self, text: &str, now: Instant) -> Result<(), CloseReason>;

    /// A binary message.
    ///
    /// # Errors
    /// Why the session is to be closed.
    fn handle_binary(&self, data: &[u8], now: Instant) -> Result<(), CloseReason>;

    /// Does what is due. A call made too early does nothing.
    ///
    /// # Errors
    /// Why the session is to be closed.
    fn handle_timeout(&self, now: Instant) -> Result<(), CloseReason>;

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    fn next_deadline(&self) -> Option<Instant>;

    /// The server stops, and will close this session soon.
    fn announce_drain(&self, notice: DrainNotice);

    /// Whether answers to the client are still to come.
    fn is_busy(&self) -> bool {
        false
    }

    /// The session is over. Called once.
    fn close(&self, reason: CloseReason);
}

/// Answers the requests that are not Engine.IO's, and counts those that it refuses.
pub trait Pages: Send + Sync + 'static {
    /// Answers one request to the server that `shared` is of. Its body is complete, and within [`Settings::max_body`](super::Settings::max_body).
    fn respond<'a>(
        &'a self,
        shared: &'a Shared,
        request: Request<'a>,
    ) -> Pin<Box<dyn Future<Output = Response> + Send + 'a>>;

    /// Answers a request whose body could not be read.
    fn refuse(&self, head: &Head, error: &HttpError) -> Response {
        let _ = head;
        Response::from_error(error)
    }
}

/// One HTTP request.
#[derive(Debug)]
pub struct Request<'a> {
    /// Request line and headers.
    pub head: &'a Head,
    /// The body, decoded.
    pub body: Vec<u8>,
    /// The client's address: the peer's, or what a trusted proxy says of it.
    pub peer: IpAddr,
}
