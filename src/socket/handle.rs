//! The handle by which an application talks to one client in one namespace.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU8, Ordering},
    },
    time::Instant,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

use crate::{
    outbox::{Frame, Outbox, Pushed},
    socket::{
        AckArgs, AckError, Connection, DisconnectReason, ack::AckCallback, encode, is_reserved_event,
        registry::Namespace,
    },
    types::{CloseReason, SocketId},
};

/// One client in one namespace, from its join to its end. A cheap clone of one shared thing.
///
/// It may be kept and used from any thread. Once the socket has ended all it does is nothing; it keeps neither the
/// connection nor the session alive, only its outbox and its data. A socket whose own data holds a `Socket` would live
/// for ever: hold a [`WeakSocket`] there.
#[derive(Clone)]
pub struct Socket(Arc<Shared>);

struct Shared {
    id: SocketId,
    namespace: Arc<Namespace>,
    /// Which of the connection's joins this is: tells the socket from an earlier one in the same namespace.
    join: u64,
    outbox: Arc<Outbox>,
    /// Weak, because the connection holds its sockets.
    connection: Weak<Connection>,
    flags: AtomicU8,
    /// Set just before [`LEFT`], once.
    left: OnceLock<DisconnectReason>,
    data: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// A handler of the socket is running, in one thread. Set under the connection's lock while the socket is joined, so
/// never after `LEFT`.
const RUNNING: u8 = 1;
/// The socket has ended. Set under the connection's lock, once.
const LEFT: u8 = 2;

impl Socket {
    pub(super) fn new(
        id: SocketId,
        namespace: Arc<Namespace>,
        join: u64,
        outbox: Arc<Outbox>,
        connection: Weak<Connection>,
        data: Option<Box<dyn Any + Send + Sync>>,
    ) -> Self {
        let data = data.map(OnceLock::from).unwrap_or_default();
        let (flags, left) = (AtomicU8::new(0), OnceLock::new());
        Self(Arc::new(Shared { id, namespace, join, outbox, connection, flags, left, data }))
    }

    /// The id, which other clients may see.
    pub fn id(&self) -> &SocketId {
        &self.0.id
    }

    /// The namespace's name, with its slash.
    pub fn namespace(&self) -> &str {
        self.0.namespace.name()
    }

    /// Whether the socket has not ended. Another thread may end it at any time: for a decision that must hold, decide
    /// again in `on_disconnect`, which comes after.
    pub fn is_connected(&self) -> bool {
        // ORDERING: Acquire, with the AcqRel in `mark_left`: who sees the end also sees its reason.
        self.0.flags.load(Ordering::Acquire) & LEFT == 0
    }

    /// Why the socket has ended, if it has.
    pub fn disconnect_reason(&self) -> Option<DisconnectReason> {
        if self.is_connected() { None } else { self.0.left.get().copied() }
    }

    /// What waits for this client. Shared by all sockets of the connection, and still there when they have ended.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.0.outbox
    }

    /// Sends an event with one argument.
    pub fn emit<T: Serialize + ?Sized>(&self, name: &str, arg: &T) -> Pushed {
        if !is_allowed(name) {
            return Pushed::Dropped;
        }
        self.push_if_connected(|namespace| encode::event_frame_json(namespace, name, arg))
    }

    /// Sends an event whose arguments are JSON text: values with commas between them, maybe none.
    pub fn emit_raw(&self, name: &str, args_json: &str) -> Pushed {
        if !is_allowed(name) {
            return Pushed::Dropped;
        }
        self.push_if_connected(|namespace| encode::event_frame(namespace, name, args_json))
    }

    /// Sends an event with one argument, which is lost if much is queued already.
    pub fn emit_volatile<T: Serialize + ?Sized>(&self, name: &str, arg: &T) -> Pushed {
        if !is_allowed(name) {
            return Pushed::Dropped;
        }
        if !self.is_connected() {
            return Pushed::Closed;
        }
        self.0.outbox.push_volatile(encode::event_frame_json(self.namespace(), name, arg))
    }

    /// Sends an event with attachments, which `args_json` names by its placeholders.
    pub fn emit_binary<B: AsRef<[u8]>>(&self, name: &str, args_json: &str, attachments: &[B]) -> Pushed {
        if !is_allowed(name) {
            return Pushed::Dropped;
        }
        self.push_all_if_connected(|namespace| encode::binary_event_frames(namespace, name, args_json, attachments))
    }

    /// Sends frames that were encoded for this namespace, with nothing between them.
    pub fn emit_frames(&self, frames: &[Frame]) -> Pushed {
        if !self.is_connected() {
            return Pushed::Closed;
        }
        self.0.outbox.push_all(frames)
    }

    /// Sends an event and calls `callback` once: with the client's answer, or with the reason for there being none.
    ///
    /// It is called in the thread that handles the client's messages, or that ends the socket, or in this one if the
    /// event is not sent at all: because the socket has ended, or because `max_pending_acks` events await an answer.
    /// An answer comes in turn with the socket's handlers; a reason may come while one of them runs.
    pub fn emit_with_ack(
        &self,
        name: &str,
        args_json: &str,
        deadline: Instant,
        callback: impl FnOnce(Result<AckArgs<'_>, AckError>) + Send + 'static,
    ) {
        self.emit_binary_with_ack::<&[u8]>(name, args_json, &[], deadline, callback);
    }

    /// [`emit_with_ack`](Self::emit_with_ack) with attachments, which `args_json` names by its placeholders.
    pub fn emit_binary_with_ack<B: AsRef<[u8]>>(
        &self,
        name: &str,
        args_json: &str,
        attachments: &[B],
        deadline: Instant,
        callback: impl FnOnce(Result<AckArgs<'_>, AckError>) + Send + 'static,
    ) {
        let callback = AckCallback::new(callback);
        let encode = |namespace: &str, id| encode::event_frames(namespace, name, Some(id), args_json, attachments);
        match self.0.connection.upgrade() {
            Some(connection) if is_allowed(name) => connection.emit_with_ack(self, encode, deadline, callback),
            _ => callback.call(Err(AckError::Disconnected)),
        }
    }

    /// Ends the socket: the client gets a DISCONNECT, and does not come back by itself. The connection stays.
    ///
    /// `on_disconnect` is called in this thread, or if one of the socket's handlers is running, behind that one in its
    /// thread.
    pub fn disconnect(&self) {
        if let Some(connection) = self.0.connection.upgrade() {
            connection.disconnect(self);
        }
    }

    /// Asks for the whole connection to be closed, once what is queued now has been written. Stock clients come back.
    pub fn close_transport(&self, reason: CloseReason) {
        self.0.outbox.close(reason);
    }

    /// Attaches the application's data, unless there are some. Whether it did.
    pub fn set_data<T: Any + Send + Sync>(&self, data: T) -> bool {
        self.0.data.set(Box::new(data)).is_ok()
    }

    /// The application's data, if they are of this type.
    pub fn data<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.data.get()?.downcast_ref()
    }

    /// A handle that does not keep the socket's data alive.
    pub fn downgrade(&self) -> WeakSocket {
        WeakSocket(Arc::downgrade(&self.0))
    }

    pub(super) fn push_if_connected(&self, frame: impl FnOnce(&str) -> Frame) -> Pushed {
        if !self.is_connected() {
            return Pushed::Closed;
        }
        self.0.outbox.push(frame(self.namespace()))
    }

    pub(super) fn push_all_if_connected(&self, frames: impl FnOnce(&str) -> Vec<Frame>) -> Pushed {
        if !self.is_connected() {
            return Pushed::Closed;
        }
        self.0.outbox.push_all(&frames(self.namespace()))
    }

    pub(super) fn join(&self) -> u64 {
        self.0.join
    }

    pub(super) fn registered(&self) -> &Arc<Namespace> {
        &self.0.namespace
    }

    /// Announces that [`run_handler`](Self::run_handler) is about to be called. Under the connection's lock.
    pub(super) fn begin_handler(&self) {
        // ORDERING: Relaxed. The lock orders it before any `mark_left`.
        self.0.flags.fetch_or(RUNNING, Ordering::Relaxed);
    }

    /// Runs one of the socket's handlers, then `on_disconnect` if the socket ended meanwhile. So the handlers of a
    /// socket never overlap, and `on_disconnect` is the last, even if a handler panics: the panic goes on afterwards.
    pub(super) fn run_handler(&self, handler: impl FnOnce()) {
        let outcome = catch_unwind(AssertUnwindSafe(handler));
        // ORDERING: AcqRel, here and in `mark_left`: whichever comes second runs `on_disconnect`, and sees all that
        // the other's side did before.
        let before = self.0.flags.fetch_and(!RUNNING, Ordering::AcqRel);
        if before & LEFT != 0 {
            self.tell_left();
        }
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
    }

    /// Ends the socket, under the connection's lock and once. True if `on_disconnect` is the caller's task, false if
    /// it is that of the thread which runs a handler.
    pub(super) fn mark_left(&self, reason: DisconnectReason) -> bool {
        self.0.left.get_or_init(|| reason);
        let before = self.0.flags.fetch_or(LEFT, Ordering::AcqRel);
        before & RUNNING == 0
    }

    /// Calls `on_disconnect`.
    pub(super) fn tell_left(&self) {
        if let Some(reason) = self.0.left.get() {
            self.0.namespace.left(self, *reason);
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({} {})", self.namespace(), self.id())
    }
}

/// A [`Socket`] that may be gone.
#[derive(Clone)]
pub struct WeakSocket(Weak<Shared>);

impl WeakSocket {
    /// The socket, if somebody still holds it. It may have ended nevertheless.
    pub fn upgrade(&self) -> Option<Socket> {
        self.0.upgrade().map(Socket)
    }
}

impl fmt::Debug for WeakSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakSocket")
    }
}

/// Draws a new id: 120 bits from the operating system's CSPRNG, written in 20 characters, of which `prefix` replaces the
/// first ones.
pub(super) fn draw_socket_id(prefix: &str) -> Result<SocketId, getrandom::Error> {
    let mut bytes = [0; 15];
    getrandom::fill(&mut bytes)?;
    let mut id = URL_SAFE_NO_PAD.encode(bytes);
    if id.is_char_boundary(prefix.len()) {
        id.replace_range(..prefix.len(), prefix);
    }
    Ok(SocketId::new(id))
}

/// A client would take an event of such a name for its library's own, so it is not sent.
fn is_allowed(name: &str) -> bool {
    let is_reserved = is_reserved_event(name);
    if is_reserved {
        log::error!("event {name:?} is not sent: its name is reserved");
    }
    debug_assert!(!is_reserved, "event name {name:?} is reserved");
    !is_reserved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_twenty_url_safe_characters_and_differ() {
        let ids = [draw_socket_id("").unwrap(), draw_socket_id("inst01").unwrap()];
        assert_ne!(ids[0], ids[1]);
        assert!(ids[1].as_str().starts_with("inst01"));
        for id in ids {
            assert_eq!(id.as_str().len(), 20);
            assert!(id.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{id}");
        }
    }
}
