//! Socket.IO as the layer above a session.

use std::{sync::Arc, time::Instant};

use crate::{
    net::{Application, Peer},
    outbox::Outbox,
    socket::{Connection, Namespaces, Socket},
    types::{CloseReason, DrainNotice, Handshake},
};

/// Opens a Socket.IO connection on every session.
pub struct SocketIo {
    namespaces: Arc<Namespaces>,
    on_drain: OnDrain,
}

/// Tells a socket that the server stops.
type OnDrain = Arc<dyn Fn(&Socket, DrainNotice) + Send + Sync>;

impl SocketIo {
    /// The server that `namespaces` describes. `on_drain` is called for every socket when the server stops.
    pub fn new(namespaces: Arc<Namespaces>, on_drain: impl Fn(&Socket, DrainNotice) + Send + Sync + 'static) -> Self {
        Self { namespaces, on_drain: Arc::new(on_drain) }
    }
}

impl Application for SocketIo {
    fn open(&self, outbox: &Arc<Outbox>, handshake: Handshake, now: Instant) -> Arc<dyn Peer> {
        let namespaces = Arc::clone(&self.namespaces);
        let connection = Connection::new(Arc::clone(outbox), namespaces, Arc::new(handshake), now);
        Arc::new(SocketIoPeer { connection, on_drain: Arc::clone(&self.on_drain) })
    }
}

struct SocketIoPeer {
    connection: Arc<Connection>,
    on_drain: OnDrain,
}

impl Peer for SocketIoPeer {
    fn handle_text(&self, text: &str, now: Instant) -> Result<(), CloseReason> {
        self.connection.handle_text(text, now).map_err(|error| {
            log::debug!("{error}");
            error.close_reason()
        })
    }

    fn handle_binary(&self, data: &[u8], _now: Instant) -> Result<(), CloseReason> {
        self.connection.handle_binary(data.to_vec()).map_err(|error| {
            log::debug!("{error}");
            error.close_reason()
        })
    }

    fn handle_timeout(&self, now: Instant) -> Result<(), CloseReason> {
        self.connection.handle_timeout(now).map_err(|error| error.close_reason())
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.connection.next_deadline()
    }

    fn announce_drain(&self, notice: DrainNotice) {
        for socket in self.connection.sockets() {
            (self.on_drain)(&socket, notice);
        }
    }

    fn close(&self, reason: CloseReason) {
        self.connection.close(reason);
    }
}
