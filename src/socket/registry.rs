//! What the application registers: namespaces, and who is called for what.

use std::{
    any::Any,
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    outbox::Outbox,
    socket::{Ack, Args, Connection, DisconnectReason, Limits, Socket, is_reserved_event},
    types::{Handshake, SocketId},
};

/// All namespaces of the server, their handlers and the limits. Built once, at start.
///
/// The handlers of one socket never overlap, and come in the order of its packets: `on_connect` first, then events,
/// then, exactly once, `on_disconnect`. They run in the thread that handed the message in; behind a CONNECT that a
/// middleware answered elsewhere, in the thread of the answer. No lock is held: a handler may emit, end its socket, or
/// block its own connection.
///
/// ```
/// use chat_service::socket::Namespaces;
///
/// let namespaces = Namespaces::builder()
///     .namespace("/", |ns| {
///         ns.on_connect(|socket| {
///             socket.emit_raw("hello", "");
///         })
///         .on("message", |socket, event| {
///             socket.emit_raw("message-back", event.args.as_str());
///         })
///     })
///     .build();
/// # drop(namespaces);
/// ```
pub struct Namespaces {
    list: Vec<Arc<Namespace>>,
    limits: Arc<Limits>,
    socket_id_prefix: Box<str>,
}

impl Namespaces {
    /// Begins with no namespace and the default limits.
    pub fn builder() -> NamespacesBuilder {
        NamespacesBuilder { list: Vec::new(), limits: Limits::default(), socket_id_prefix: Box::default() }
    }

    /// What is allowed to clients.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    pub(super) fn socket_id_prefix(&self) -> &str {
        &self.socket_id_prefix
    }

    // There are only a few: comparing them is faster than hashing.
    pub(super) fn find(&self, name: &str) -> Option<&Arc<Namespace>> {
        self.list.iter().find(|namespace| &*namespace.name == name)
    }
}

impl fmt::Debug for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.list.iter().map(|namespace| &namespace.name)).finish()
    }
}

/// Builds [`Namespaces`].
pub struct NamespacesBuilder {
    list: Vec<Arc<Namespace>>,
    limits: Limits,
    socket_id_prefix: Box<str>,
}

impl NamespacesBuilder {
    /// Sets what is allowed to clients.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets what the ids of all sockets begin with: at most 8 characters, so that 72 random bits are left.
    pub fn socket_id_prefix(mut self, prefix: &str) -> Self {
        self.socket_id_prefix = prefix.get(..prefix.len().min(8)).unwrap_or_default().into();
        self
    }

    /// Adds a namespace.
    ///
    /// # Panics
    /// The name does not begin with a slash, contains a comma, or is there already.
    pub fn namespace(mut self, name: &str, build: impl FnOnce(NamespaceBuilder) -> NamespaceBuilder) -> Self {
        assert!(name.starts_with('/') && !name.contains(','), "namespace {name:?}: expected a slash and no comma");
        assert!(self.list.iter().all(|present| &*present.name != name), "namespace {name:?} is there already");
        let namespace = Namespace {
            name: name.into(),
            index: self.list.len(),
            middleware: None,
            on_connect: None,
            on_disconnect: None,
            events: HashMap::new(),
            on_any: None,
        };
        self.list.push(Arc::new(build(NamespaceBuilder(namespace)).0));
        self
    }

    /// Done.
    pub fn build(self) -> Arc<Namespaces> {
        Arc::new(Namespaces { list: self.list, limits: Arc::new(self.limits), socket_id_prefix: self.socket_id_prefix })
    }
}

/// Sets up one namespace. What is set twice counts as it was set last.
pub struct NamespaceBuilder(Namespace);

impl NamespaceBuilder {
    /// Decides who may join. Without it everybody may.
    ///
    /// The request may be kept and answered later, from any thread. What the client sends meanwhile is kept, up to
    /// `max_parked_bytes`; its connect timeout goes on.
    pub fn middleware(mut self, decide: impl Fn(ConnectRequest) + Send + Sync + 'static) -> Self {
        self.0.middleware = Some(Box::new(decide));
        self
    }

    /// Called when a client has joined. Its answer is queued already: what is emitted here comes right behind it.
    pub fn on_connect(mut self, handler: impl Fn(&Socket) + Send + Sync + 'static) -> Self {
        self.0.on_connect = Some(Box::new(handler));
        self
    }

    /// Called for each event of this name.
    ///
    /// # Panics
    /// The name is reserved, so no client can send it.
    pub fn on(mut self, name: &str, handler: impl Fn(&Socket, Event<'_>) + Send + Sync + 'static) -> Self {
        assert!(!is_reserved_event(name), "event name {name:?} is reserved");
        self.0.events.insert(name.into(), Box::new(handler));
        self
    }

    /// Called for each event that has no handler of its own. Without it they are ignored.
    pub fn on_any(mut self, handler: impl Fn(&Socket, Event<'_>) + Send + Sync + 'static) -> Self {
        self.0.on_any = Some(Box::new(handler));
        self
    }

    /// Called when a socket for which `on_connect` was called has ended.
    pub fn on_disconnect(mut self, handler: impl Fn(&Socket, DisconnectReason) + Send + Sync + 'static) -> Self {
        self.0.on_disconnect = Some(Box::new(handler));
        self
    }
}

/// One namespace, as it was registered.
#[allow(clippy::type_complexity, reason = "each handler's type is written once, next to what it is for")]
pub(super) struct Namespace {
    name: Box<str>,
    /// Its place in the list, which is shorter to keep and compare than its name.
    index: usize,
    middleware: Option<Box<dyn Fn(ConnectRequest) + Send + Sync>>,
    on_connect: Option<Box<dyn Fn(&Socket) + Send + Sync>>,
    on_disconnect: Option<Box<dyn Fn(&Socket, DisconnectReason) + Send + Sync>>,
    events: HashMap<Box<str>, Box<dyn Fn(&Socket, Event<'_>) + Send + Sync>>,
    on_any: Option<Box<dyn Fn(&Socket, Event<'_>) + Send + Sync>>,
}

impl Namespace {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Hands the request to the middleware, or gives it back if there is none.
    pub(super) fn decide(&self, request: ConnectRequest) -> Option<ConnectRequest> {
        match &self.middleware {
            Some(decide) => {
                decide(request);
                None
            }
            None => Some(request),
        }
    }

    pub(super) fn joined(&self, socket: &Socket) {
        if let Some(handler) = &self.on_connect {
            handler(socket);
        }
    }

    pub(super) fn left(&self, socket: &Socket, reason: DisconnectReason) {
        if let Some(handler) = &self.on_disconnect {
            handler(socket, reason);
        }
    }

    pub(super) fn event(&self, socket: &Socket, event: Event<'_>) {
        if let Some(handler) = self.events.get(event.name).or(self.on_any.as_ref()) {
            handler(socket, event);
        }
    }
}

/// An event of a client.
#[derive(Debug)]
pub struct Event<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its arguments, as the client wrote them.
    pub args: Args<'a>,
    /// The attachments that placeholders in the arguments name.
    pub attachments: &'a [Vec<u8>],
    /// The right to answer, if the client awaits an answer.
    pub ack: Option<Ack>,
}

/// A client that wants to join a namespace, for a middleware to decide.
///
/// Dropped without an answer it is refused with the message `internal error`. An answer comes to nothing when the
/// client has left meanwhile.
pub struct ConnectRequest {
    /// Taken by the answer.
    ticket: Option<Ticket>,
    payload: Option<Box<RawValue>>,
    handshake: Arc<Handshake>,
    id: SocketId,
}

/// Which join is to be answered.
struct Ticket {
    connection: Weak<Connection>,
    namespace: Arc<Namespace>,
    join: u64,
}

impl ConnectRequest {
    pub(super) fn new(
        connection: Weak<Connection>,
        namespace: Arc<Namespace>,
        join: u64,
        payload: Option<&RawValue>,
        handshake: Arc<Handshake>,
        id: SocketId,
    ) -> Self {
        let ticket = Some(Ticket { connection, namespace, join });
        Self { ticket, payload: payload.map(ToOwned::to_owned), handshake, id }
    }

    /// The CONNECT's payload: the client's `auth` object.
    pub fn payload(&self) -> Option<&RawValue> {
        self.payload.as_deref()
    }

    /// What the request that opened the session said.
    pub fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    /// What will wait for the client; `None` if it has left already.
    pub fn outbox(&self) -> Option<Arc<Outbox>> {
        Some(Arc::clone(self.ticket.as_ref()?.connection.upgrade()?.outbox()))
    }

    /// The id that the socket will have.
    pub fn socket_id(&self) -> &SocketId {
        &self.id
    }

    /// Lets the client join: sends the answer, calls `on_connect`, and handles what the client has sent meanwhile. All
    /// that in this thread, unless another one is handling the same client's packets just now.
    pub fn accept(self) {
        self.join(None);
    }

    /// Like [`accept`](Self::accept), for a socket that has the application's data from the start.
    pub fn accept_with<T: Any + Send + Sync>(self, data: T) {
        self.join(Some(Box::new(data)));
    }

    /// Refuses with a CONNECT_ERROR. Packets that the client sent behind its CONNECT then belong to no namespace, and
    /// close the connection.
    pub fn refuse(self, message: &str) {
        self.refuse_raw(message, None);
    }

    /// Refuses with data for the client's program, beside the message.
    pub fn refuse_with<T: Serialize + ?Sized>(self, message: &str, data: &T) {
        let data = to_raw_value(data).inspect_err(|err| log::error!("refusal's data cannot be written as JSON: {err}"));
        self.refuse_raw(message, data.ok().as_deref());
    }

    /// Refuses with data that are JSON already.
    pub fn refuse_raw(mut self, message: &str, data: Option<&RawValue>) {
        if let Some(ticket) = self.ticket.take() {
            ticket.refuse(message, data);
        }
    }

    fn join(mut self, data: Option<Box<dyn Any + Send + Sync>>) {
        if let Some(ticket) = self.ticket.take()
            && let Some(connection) = ticket.connection.upgrade()
        {
            connection.accept(&ticket.namespace, ticket.join, self.id.clone(), data);
        }
    }
}

impl Ticket {
    fn refuse(self, message: &str, data: Option<&RawValue>) {
        if let Some(connection) = self.connection.upgrade() {
            connection.refuse(&self.namespace, self.join, message, data);
        }
    }
}

impl Drop for ConnectRequest {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            ticket.refuse("internal error", None);
        }
    }
}

impl fmt::Debug for ConnectRequest {
    /// Without payload and handshake: both hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectRequest({})", self.id)
    }
}
