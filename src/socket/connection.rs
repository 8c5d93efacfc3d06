//! All of Socket.IO for one session: messages in, handlers called, frames out.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Instant,
};

use serde_json::value::RawValue;

use crate::{
    outbox::{Frame, Outbox},
    socket::{
        Ack, AckArgs, AckError, ConnectRequest, Event, Namespaces, Packet, PacketKind, ProtocolError, Socket,
        ack::AckCallback,
        client::{Accepted, Client, Refused, Step, Turn, call_all},
        encode,
        handle::draw_socket_id,
        registry::Namespace,
    },
    types::{CloseReason, Handshake, SocketId},
};

/// All of Socket.IO for one Engine.IO session. Reads no clock, waits for nothing, spawns nothing.
///
/// Whoever reads the session's messages hands them in, one at a time and in order. After an error it calls
/// [`close`](Self::close), as it does when the session ends for any other reason; when
/// [`next_deadline`](Self::next_deadline) has come it calls [`handle_timeout`](Self::handle_timeout). What the client is
/// to get goes into the outbox; a wish to close the session goes there too ([`Outbox::close`]).
///
/// A panic of a handler passes through, and leaves everything in order; `close` is what should follow.
///
/// Lock order: this connection's, then the outbox's. No handler, callback or destructor of the application's is run
/// under either.
pub struct Connection {
    /// For the sockets and requests that this connection hands out, none of which keeps it alive.
    me: Weak<Self>,
    outbox: Arc<Outbox>,
    namespaces: Arc<Namespaces>,
    handshake: Arc<Handshake>,
    client: Mutex<Client>,
}

impl Connection {
    /// A session that has just begun. The connect timeout runs from `now`.
    pub fn new(outbox: Arc<Outbox>, namespaces: Arc<Namespaces>, handshake: Arc<Handshake>, now: Instant) -> Arc<Self> {
        let client = Mutex::new(Client::new(Arc::clone(namespaces.limits()), now));
        Arc::new_cyclic(|me| Self { me: Weak::clone(me), outbox, namespaces, handshake, client })
    }

    /// Takes a text message: the Engine.IO packet without its `4`.
    ///
    /// # Errors
    /// The client broke the protocol, and the connection is to be closed.
    pub fn handle_text(&self, text: &str, now: Instant) -> Result<(), ProtocolError> {
        let packet = Packet::parse(text, &self.namespaces.limits().packet)?;
        let Some(namespace) = self.namespaces.find(packet.namespace) else {
            return self.handle_unknown_namespace(&packet);
        };
        match packet.attachments() {
            0 => self.dispatch(namespace, packet.kind, text, Vec::new()),
            expected => self.lock().handle_head(namespace.index(), text, expected, now),
        }
    }

    /// Takes a binary message: an attachment of the packet before it.
    ///
    /// # Errors
    /// The client broke the protocol, and the connection is to be closed.
    pub fn handle_binary(&self, data: Vec<u8>) -> Result<(), ProtocolError> {
        let Some(whole) = self.lock().handle_attachment(data)? else { return Ok(()) };
        let packet = Packet::parse(&whole.text, &self.namespaces.limits().packet)?;
        match self.namespaces.find(packet.namespace) {
            Some(namespace) => self.dispatch(namespace, packet.kind, &whole.text, whole.attachments),
            None => Err(ProtocolError::NotJoined),
        }
    }

    /// Looks at the clock: the connect timeout, attachments and acks that did not come. Does nothing when too early.
    ///
    /// # Errors
    /// The client let a time limit pass, and the connection is to be closed.
    pub fn handle_timeout(&self, now: Instant) -> Result<(), ProtocolError> {
        let expired = self.lock().handle_timeout(now)?;
        call_all(expired, |callback| callback.call(Err(AckError::Timeout)));
        Ok(())
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called at the latest. To be asked again after each call
    /// of this type and each time the outbox wakes its sleepers.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.lock().next_deadline()
    }

    /// The sockets that have joined, one a namespace.
    pub fn sockets(&self) -> Vec<Socket> {
        self.lock().sockets()
    }

    /// What waits for the client.
    pub(super) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Ends everything: each socket gets `on_disconnect`, pending acks are told, the outbox takes nothing more. The
    /// second and later calls do nothing.
    pub fn close(&self, reason: CloseReason) {
        self.outbox.close(reason);
        let departures = self.lock().close(reason);
        call_all(departures, |departure| departure.finish());
    }

    fn handle_unknown_namespace(&self, packet: &Packet<'_>) -> Result<(), ProtocolError> {
        self.lock().expect_text()?;
        match packet.kind {
            PacketKind::Connect { .. } => {
                self.push_connect_error(packet.namespace, "Invalid namespace", None);
                Ok(())
            }
            PacketKind::ConnectError => Err(ProtocolError::ConnectErrorFromClient),
            _ => Err(ProtocolError::NotJoined),
        }
    }

    /// Handles a complete packet, or parks it.
    fn dispatch(
        &self,
        namespace: &Arc<Namespace>,
        kind: PacketKind<'_>,
        text: &str,
        mut attachments: Vec<Vec<u8>>,
    ) -> Result<(), ProtocolError> {
        let step = self.lock().handle_packet(namespace.index(), &kind, text, &mut attachments)?;
        self.perform(namespace, step, kind, &attachments);
        Ok(())
    }

    /// Does what the client's rules say about a packet.
    fn perform(&self, namespace: &Arc<Namespace>, step: Step, kind: PacketKind<'_>, attachments: &[Vec<u8>]) {
        match (step, kind) {
            (Step::Event(socket), PacketKind::Event { name, args, ack_id, .. }) => socket.run_handler(|| {
                let ack = ack_id.map(|id| Ack::new(socket.clone(), id));
                namespace.event(&socket, Event { name: &name, args, attachments, ack });
            }),
            (Step::Ack(socket, callback), PacketKind::Ack { args, .. }) => {
                socket.run_handler(|| callback.call(Ok(AckArgs { args, attachments })));
            }
            (Step::Decide { join }, PacketKind::Connect { payload }) => self.decide(namespace, join, payload),
            (Step::Leave(departure), _) => departure.finish(),
            // Nothing to do: a step comes with the kind of packet that it was made for.
            _ => {}
        }
    }

    fn decide(&self, namespace: &Arc<Namespace>, join: u64, payload: Option<&RawValue>) {
        let id = match draw_socket_id(self.namespaces.socket_id_prefix()) {
            Ok(id) => id,
            Err(err) => {
                log::error!("no socket id from the operating system: {err}");
                return self.refuse(namespace, join, "internal error", None);
            }
        };
        let (me, handshake) = (Weak::clone(&self.me), Arc::clone(&self.handshake));
        let request = ConnectRequest::new(me, Arc::clone(namespace), join, payload, handshake, id);
        if let Some(undecided) = namespace.decide(request) {
            undecided.accept();
        }
    }

    /// The middleware's answer.
    pub(super) fn accept(
        &self,
        namespace: &Arc<Namespace>,
        join: u64,
        id: SocketId,
        data: Option<Box<dyn Any + Send + Sync>>,
    ) {
        let (me, outbox) = (Weak::clone(&self.me), Arc::clone(&self.outbox));
        let socket = Socket::new(id, Arc::clone(namespace), join, outbox, me, data);
        let accepted = self.lock().accept(namespace.index(), &socket);
        if accepted == Accepted::Drive {
            self.close_on_panic(|| self.drive(namespace));
        }
    }

    /// The middleware's answer.
    pub(super) fn refuse(&self, namespace: &Namespace, join: u64, message: &str, data: Option<&RawValue>) {
        let refused = self.lock().refuse(namespace.index(), join);
        match refused {
            Refused::TooLate => {}
            Refused::Tell => self.push_connect_error(namespace.name(), message, data),
            Refused::TellAndClose(err) => {
                self.push_connect_error(namespace.name(), message, data);
                self.give_up(err);
            }
        }
    }

    fn push_connect_error(&self, namespace: &str, message: &str, data: Option<&RawValue>) {
        self.outbox.push(Frame::build_text(|out| encode::write_connect_error(out, namespace, message, data)));
    }

    /// Opens an accepted socket and handles what was parked behind its CONNECT, one packet after the other, while new
    /// ones are parked behind those. There is never more than one thread here for one namespace; it leaves, under the
    /// lock, when nothing is parked any more, so packets neither overtake one another nor are left behind.
    ///
    /// A loop and not a recursion: a middleware that answers at once from in here leaves the rest to this loop, so a
    /// client that joins and leaves a thousand times in a row does not need a thousand stack frames.
    fn drive(&self, namespace: &Arc<Namespace>) {
        loop {
            // A statement of its own: the lock must be free again below.
            let turn = self.lock().next_turn(namespace.index());
            match turn {
                Turn::Joined(socket) => {
                    let answer = Frame::build_text(|out| encode::write_connect(out, namespace.name(), socket.id()));
                    self.outbox.push(answer);
                    socket.run_handler(|| namespace.joined(&socket));
                }
                Turn::Packet(parcel) => {
                    let step = Packet::parse(&parcel.text, &self.namespaces.limits().packet).and_then(|packet| {
                        let step = self.lock().apply(namespace.index(), &packet.kind)?;
                        Ok((step, packet.kind))
                    });
                    match step {
                        Ok((step, kind)) => self.perform(namespace, step, kind, &parcel.attachments),
                        // The slot stays driven, so whatever comes until the close is parked.
                        Err(err) => return self.give_up(err),
                    }
                }
                Turn::Done => return,
            }
        }
    }

    /// [`Socket::disconnect`].
    pub(super) fn disconnect(&self, socket: &Socket) {
        let namespace = socket.registered();
        let dismissed = self.lock().dismiss(namespace.index(), socket);
        let Some((departure, must_drive)) = dismissed else { return };
        self.outbox.push(Frame::build_text(|out| encode::write_disconnect(out, namespace.name())));
        self.close_on_panic(|| {
            departure.finish();
            if must_drive {
                self.drive(namespace);
            }
        });
    }

    /// [`Socket::emit_binary_with_ack`]. `encode` makes the event of the namespace and the ack's id.
    pub(super) fn emit_with_ack(
        &self,
        socket: &Socket,
        encode: impl FnOnce(&str, u64) -> Vec<Frame>,
        deadline: Instant,
        callback: AckCallback,
    ) {
        let namespace = socket.registered();
        let awaited = self.lock().await_ack(namespace.index(), socket, deadline, callback);
        match awaited {
            Ok((id, is_nearer)) => {
                self.outbox.push_all(&encode(namespace.name(), id));
                if is_nearer {
                    // Whoever watches the deadlines sleeps until a later one.
                    self.outbox.wake_all();
                }
            }
            Err((err, callback)) => callback.call(Err(err)),
        }
    }

    /// Has the connection closed by the task that reads it, from a thread that cannot return the error to it.
    fn give_up(&self, err: ProtocolError) {
        log::debug!("parked packet: {err}");
        self.outbox.close(err.close_reason());
    }

    /// Calls handlers in whatever thread this is. Their panic is its, but the connection cannot go on either.
    fn close_on_panic(&self, call: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(call)) {
            self.outbox.close(CloseReason::InternalError);
            resume_unwind(panic);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Client> {
        // No code that can panic runs under the lock, so a poisoned state is a whole one.
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connection {
    /// Ends what nobody has ended, so that no application keeps what belongs to a client that is gone.
    fn drop(&mut self) {
        if self.lock().is_closed() {
            return;
        }
        // This may be an unwinding already, out of which a second panic must not come.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.close(CloseReason::InternalError)));
        if outcome.is_err() {
            log::error!("a disconnect handler panicked while its connection was dropped");
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}
