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
    is_busy: IsBusy,
}

/// Tells a socket that the server stops.
type OnDrain = Arc<dyn Fn(&Socket, DrainNotice) + Send + Sync>;
/// Whether answers to a socket are still to come.
type IsBusy = Arc<dyn Fn(&Socket) -> bool + Send + Sync>;

impl SocketIo {
    /// The server that `namespaces` describes. `on_drain` is called for every socket when the server stops.
    pub fn new(namespaces: Arc<Namespaces>, on_drain: impl Fn(&Socket, DrainNotice) + Send + Sync + 'static) -> Self {
        Self { namespaces, on_drain: Arc::new(on_drain), is_busy: Arc::new(|_| false) }
    }

    /// When the server stops, a socket is closed only when `is_busy` is false of it.
    #[must_use]
    pub fn wait_while(self, is_busy: impl Fn(&Socket) -> bool + Send + Sync + 'static) -> Self {
        Self { is_busy: Arc::new(is_busy), ..self }
    }
}

impl Application for SocketIo {
    fn open(&self, outbox: &Arc<Outbox>, handshake: Handshake, now: Instant) -> Arc<dyn Peer> {
        let namespaces = Arc::clone(&self.namespaces);
        let connection = Connection::new(Arc::clone(outbox), namespaces, Arc::new(handshake), now);
        let (on_drain, is_busy) = (Arc::clone(&self.on_drain), Arc::clone(&self.is_busy));
        Arc::new(SocketIoPeer { connection, on_drain, is_busy })
    }
}

struct SocketIoPeer {
    connection: Arc<Connection>,
    on_drain: OnDrain,
    is_busy: IsBusy,
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

    fn is_busy(&self) -> bool {
        self.connection.sockets().iter().any(|socket| (self.is_busy)(socket))
    }

    fn close(&self, reason: CloseReason) {
        self.connection.close(reason);
    }
}
