//! One session with everything that belongs to it, and the task that keeps its deadlines.

use std::{
    future::{Future as _, poll_fn},
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use smol::future::FutureExt as _;

use crate::{
    engine::{self, Due, Message, Packet, Received},
    limits::{Address, Place, SharedBucket},
    net::{Peer, Shared, timers::Sleep},
    outbox::{Frame, Outbox, Slot},
    types::{CloseReason, Handshake, SessionId, Transport},
};

/// An Engine.IO session, its outbox and the layer above it.
pub(crate) struct Session {
    id: SessionId,
    engine: Mutex<engine::Session>,
    outbox: Arc<Outbox>,
    peer: Arc<dyn Peer>,
    shared: Arc<Shared>,
    /// The client's address, if its sessions are counted.
    address: Option<Address>,
    /// What the client may send, in bytes.
    input: SharedBucket,
}

/// The same for everybody.
static PING: LazyLock<Frame> = LazyLock::new(|| Frame::text("2"));

impl Session {
    /// Opens a session, which has `place`, and queues its open packet. On polling, a task of its own keeps its deadlines.
    ///
    /// # Errors
    /// The operating system had no random bytes.
    pub(super) fn open(
        shared: &Arc<Shared>,
        transport: Transport,
        handshake: Handshake,
        place: Place<'_>,
    ) -> Result<Arc<Self>, getrandom::Error> {
        let id = random_id()?;
        let now = Instant::now();
        let engine = engine::Session::new(transport, shared.settings.engine, now);
        let outbox = Arc::new(Outbox::new(shared.settings.outbox_max_bytes));
        outbox.push(Frame::text(&engine.open_packet(&id)));
        let peer = shared.app.open(&outbox, handshake, now);
        let session = Arc::new(Self {
            id: id.clone(),
            engine: Mutex::new(engine),
            outbox,
            peer,
            shared: Arc::clone(shared),
            // Nothing can fail any more: it is given back when the session leaves the table.
            address: place.keep(),
            input: SharedBucket::default(),
        });
        shared.sessions.pin().insert(id, Arc::clone(&session));
        shared.metrics.opened(transport);
        log::debug!("{:?} opened on {}", session.id, transport.as_str());
        if transport == Transport::Polling {
            shared.executor.spawn(keep(Arc::clone(&session))).detach();
        }
        Ok(session)
    }

    /// Finds the session that a request names.
    pub(super) fn find(shared: &Shared, id: &SessionId) -> Option<Arc<Self>> {
        shared.sessions.pin().get(id).cloned()
    }

    /// The engine's state. Held for a few instructions, never while a handler runs.
    pub(super) fn engine(&self) -> MutexGuard<'_, engine::Session> {
        // The engine's methods leave a whole state behind, should one of them panic.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    pub(crate) fn peer(&self) -> &dyn Peer {
        &*self.peer
    }

    /// Handles one packet, and the message it carries. The session may be closed afterwards.
    ///
    /// # Errors
    /// Why the session is to be closed.
    pub(super) fn handle_packet(
        &self,
        packet: Packet<'_>,
        transport: Transport,
        now: Instant,
    ) -> Result<(), CloseReason> {
        self.shared.metrics.packets_in(transport, 1);
        // The guard is gone before the layer above is called.
        let received = self.engine().handle_packet(packet, now);
        match received {
            Ok(Received::Nothing) => Ok(()),
            Ok(Received::Message(Message::Text(text))) => self.peer.handle_text(text, now),
            Ok(Received::Message(Message::Binary(data))) => self.peer.handle_binary(&data, now),
            Ok(Received::Close) => Err(CloseReason::TransportClose),
            Err(error) => {
                log::debug!("{:?}: {error}", self.id);
                Err(error.close_reason())
            }
        }
    }

    /// Handles one binary message of a WebSocket.
    ///
    /// # Errors
    /// Why the session is to be closed.
    pub(super) fn handle_binary(&self, data: &[u8], now: Instant) -> Result<(), CloseReason> {
        self.shared.metrics.packets_in(Transport::WebSocket, 1);
        self.peer.handle_binary(data, now)
    }

    /// Does what is due, in the engine and above it.
    pub(super) fn handle_timeout(&self, now: Instant) {
        loop {
            let due = self.engine().handle_timeout(now);
            match due {
                Some(Due::Ping) => {
                    self.outbox.push_urgent(PING.clone());
                }
                Some(Due::UpgradeOver) => self.outbox.wake_all(),
                Some(Due::PingTimeout) => return self.end(CloseReason::PingTimeout),
                Some(Due::LingerOver) => {
                    self.forget();
                    return self.outbox.wake_all();
                }
                None => break,
            }
        }
        if let Err(reason) = self.peer.handle_timeout(now) {
            self.end(reason);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do. `None`: never again.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let (engine, closed) = {
            let engine = self.engine();
            (engine.next_deadline()?, engine.is_closed())
        };
        match self.peer.next_deadline() {
            Some(peer) if !closed => Some(engine.min(peer)),
            _ => Some(engine),
        }
    }

    /// Ends the session, whoever finds out first: takes it from the table, tells the layer above, wakes its tasks.
    pub(super) fn end(&self, reason: CloseReason) {
        let (transport, lingers) = {
            let mut engine = self.engine();
            let transport = engine.transport();
            if !engine.close(reason, Instant::now()) {
                return;
            }
            (transport, engine.is_lingering())
        };
        // Closed before the layer above is told: from here on nothing is queued, and no room takes it in.
        match reason {
            // Nobody is there to read what is queued.
            CloseReason::TransportError | CloseReason::PingTimeout => self.outbox.abandon(reason),
            _ => self.outbox.close(reason),
        }
        if !lingers {
            self.forget();
        }
        self.shared.metrics.closed(transport, reason);
        log::debug!("{:?} closed: {}", self.id, reason.as_str());
        self.peer.close(reason);
        self.outbox.wake_all();
    }

    /// Counts bytes that the client sent. Over its rate: for how long nothing more is to be read from it.
    ///
    /// That is how the limit on bytes shows. To refuse them would need to know what they ask for; to close would make the
    /// client come back and send them again. Waiting makes it slow, and no slower than the rate.
    pub(super) fn spend_input(&self, bytes: u64, now: Instant) -> Option<Sleep> {
        let rate = self.shared.settings.input_rate?;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let pause_ms = self.input.spend(rate, bytes, self.shared.ms(now));
        if pause_ms == 0 {
            return None;
        }
        self.shared.metrics.input_paused();
        Some(self.shared.timers.at(now + Duration::from_millis(pause_ms.into())))
    }

    /// Takes the session from the table, and gives its place back.
    pub(super) fn forget(&self) {
        // Once, whoever is first. Not when it is dropped: the table may keep it for a while.
        if self.shared.sessions.pin().remove(&self.id).is_some()
            && let Some(address) = self.address
        {
            self.shared.sessions_by_address.leave(address);
        }
    }

    /// Asks for the session to be closed, after what is queued, by the task that serves it.
    pub(crate) fn request_close(&self, reason: CloseReason) {
        self.outbox.close(reason);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.id.fmt(f)
    }
}

/// Keeps the deadlines of a session that has no WebSocket. Ends with the session, or when a WebSocket takes over.
async fn keep(session: Arc<Session>) {
    let guard = Arc::clone(&session);
    let mut timer = session.shared.timers.sleep();
    let mut armed = None;
    let kept = poll_fn(move |cx| {
        loop {
            session.outbox.sleep_in(Slot::Keeper, cx.waker());
            if let Some(reason) = session.outbox.close_reason() {
                session.end(reason);
            }
            if session.engine().transport() == Transport::WebSocket {
                return Poll::Ready(());
            }
            let Some(deadline) = session.next_deadline() else { return Poll::Ready(()) };
            if armed != Some(deadline) {
                armed = Some(deadline);
                timer.set_at(deadline);
            }
            match Pin::new(&mut timer).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => {
                    armed = None;
                    session.handle_timeout(Instant::now());
                }
            }
        }
    });
    if AssertUnwindSafe(kept).catch_unwind().await.is_err() {
        guard.end(CloseReason::InternalError);
    }
}

/// [`SessionId::LEN`] characters from the operating system's CSPRNG.
fn random_id() -> Result<SessionId, getrandom::Error> {
    let mut bytes = [0; SessionId::LEN / 4 * 3];
    getrandom::fill(&mut bytes)?;
    Ok(SessionId::new(URL_SAFE_NO_PAD.encode(bytes)))
}
