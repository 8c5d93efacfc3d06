//! The rules: which packet is allowed when, what waits for what, and until when.
//!
//! [`Client`] decides and remembers, and calls nobody: it is driven under a lock by
//! [`Connection`](crate::socket::Connection), which calls the handlers afterwards.

use std::{
    collections::VecDeque,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    socket::{
        AckError, DisconnectReason, PacketKind, PacketLimits, ProtocolError, Socket,
        ack::{AckCallback, PendingAcks},
    },
    types::CloseReason,
};

/// What is allowed to one client. The same for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// In a packet.
    pub packet: PacketLimits,
    /// From the session's begin to the first joined namespace. Default 10 s.
    pub connect_timeout: Duration,
    /// From a binary packet to its last attachment. Default 10 s.
    pub attachment_timeout: Duration,
    /// Attachments of one packet together. Default 655 360, ten of Engine.IO's `maxPayload`.
    ///
    /// Worst-case memory of incomplete packets is this times the number of connections.
    pub max_attachment_bytes: usize,
    /// Packets behind a CONNECT that its middleware has not answered yet, each with
    /// [`PARCEL_BYTES`](Self::PARCEL_BYTES) on top. Default 64 KiB.
    pub max_parked_bytes: usize,
    /// Events of one socket that await an answer. Default 1 024; beyond, `emit_with_ack` sends nothing.
    pub max_pending_acks: usize,
}

impl Limits {
    /// What a parked packet counts besides its bytes: about its share of the queue, so that thousands of tiny packets
    /// cannot take many times the limit.
    pub const PARCEL_BYTES: usize = 64;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet: PacketLimits::default(),
            connect_timeout: Duration::from_secs(10),
            attachment_timeout: Duration::from_secs(10),
            max_attachment_bytes: 10 * 65_536,
            max_parked_bytes: 64 * 1024,
            max_pending_acks: 1024,
        }
    }
}

/// All sockets of one session.
pub(super) struct Client {
    limits: Arc<Limits>,
    /// One for each namespace that the client ever asked for, so at most as many as are registered.
    slots: Vec<Slot>,
    /// A binary packet whose attachments are outstanding.
    assembly: Option<Box<Assembly>>,
    /// None from the first join on, for good: a client that left everything stays on its heartbeat.
    connect_deadline: Option<Instant>,
    /// Not later than the earliest deadline of all pending acks; set right when it comes.
    ack_deadline: Option<Instant>,
    /// What all slots have parked, in bytes with `Limits::PARCEL_BYTES`.
    parked_bytes: usize,
    /// How many joins were begun. Numbers them.
    joins: u64,
    is_closed: bool,
}

const _: () = assert!(size_of::<Client>() <= 112);

/// One namespace of the client.
struct Slot {
    namespace: usize,
    stage: Stage,
    /// Somebody goes through `parked`, one packet after the other, and all other packets must go behind.
    is_driven: bool,
    /// What came behind a CONNECT before its turn.
    parked: VecDeque<Parcel>,
    /// Outlives the stages, so that ack ids are not used twice.
    acks: Option<Box<PendingAcks>>,
}

enum Stage {
    /// Not joined.
    Vacant,
    /// The server has ended the socket. What the client sent before it knew is no mistake of its, and is ignored until
    /// it joins anew. (The reference closes the connection here.)
    Dismissed,
    /// The middleware decides.
    Pending {
        join: u64,
    },
    /// The middleware has accepted; whoever drives the slot makes it `Joined` and calls `on_connect`.
    Accepted(Socket),
    Joined(Socket),
}

/// A packet that waits for its turn. Complete, with its attachments.
pub(super) struct Parcel {
    pub(super) text: Box<str>,
    pub(super) attachments: Vec<Vec<u8>>,
}

impl Parcel {
    fn cost_bytes(text: &str, attachments: &[Vec<u8>]) -> usize {
        Limits::PARCEL_BYTES + text.len() + attachments.iter().map(Vec::len).sum::<usize>()
    }
}

/// A binary packet and the attachments that have come.
struct Assembly {
    text: Box<str>,
    /// How many attachments belong to it. Invariant: more than have come.
    expected: usize,
    attachments: Vec<Vec<u8>>,
    /// Sum of the attachments' lengths.
    bytes: usize,
    deadline: Instant,
}

impl Assembly {
    fn missing(&self) -> usize {
        self.expected - self.attachments.len()
    }
}

/// What is to be done about a packet, without the lock.
pub(super) enum Step {
    /// Nothing, or not yet.
    Nothing,
    /// Ask the middleware.
    Decide { join: u64 },
    /// Run the event's handler ([`Socket::run_handler`]; `begin_handler` was called).
    Event(Socket),
    /// Run the callback, as a handler.
    Ack(Socket, AckCallback),
    /// Tell everybody.
    Leave(Departure),
}

/// What is next for who drives a slot.
pub(super) enum Turn {
    /// Send the answer to the CONNECT and run `on_connect`, as a handler.
    Joined(Socket),
    /// [`Client::apply`] this packet, and do what it says.
    Packet(Parcel),
    /// Nothing more. The slot is no longer driven.
    Done,
}

/// What became of an answer "may join".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Accepted {
    /// The caller must drive the slot now.
    Drive,
    /// Somebody drives the slot already and sees to it.
    Driven,
    /// The client is not waiting any more.
    TooLate,
}

/// What became of an answer "may not join".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// The client is to be told.
    Tell,
    /// The client is to be told, and closed: it had sent packets behind its CONNECT.
    TellAndClose(ProtocolError),
    /// The client is not waiting any more.
    TooLate,
}

/// A socket that has ended, for [`finish`](Self::finish) without the lock.
pub(super) struct Departure {
    socket: Socket,
    acks: Vec<AckCallback>,
    /// False if `on_disconnect` is another thread's task, or `on_connect` was never called.
    is_told_here: bool,
}

impl Departure {
    /// Tells the pending acks and `on_disconnect`, all of them even if one panics.
    pub(super) fn finish(self) {
        let acks = AssertUnwindSafe(|| call_all(self.acks, |callback| callback.call(Err(AckError::Disconnected))));
        let outcome = catch_unwind(acks);
        if self.is_told_here {
            self.socket.tell_left();
        }
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
    }
}

/// Calls each, even if one panics. The first panic goes on afterwards.
pub(super) fn call_all<T>(items: Vec<T>, mut call: impl FnMut(T)) {
    let mut first_panic = None;
    for item in items {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| call(item))) {
            first_panic.get_or_insert(panic);
        }
    }
    if let Some(panic) = first_panic {
        resume_unwind(panic);
    }
}

impl Client {
    /// A session that has just begun.
    pub(super) fn new(limits: Arc<Limits>, now: Instant) -> Self {
        Self {
            connect_deadline: Some(now + limits.connect_timeout),
            limits,
            slots: Vec::new(),
            assembly: None,
            ack_deadline: None,
            parked_bytes: 0,
            joins: 0,
            is_closed: false,
        }
    }

    /// Refuses a text message while attachments are outstanding.
    pub(super) fn expect_text(&self) -> Result<(), ProtocolError> {
        match &self.assembly {
            Some(assembly) => Err(ProtocolError::UnexpectedText { missing: assembly.missing() }),
            None => Ok(()),
        }
    }

    /// Takes a packet whose attachments are still to come.
    pub(super) fn handle_head(
        &mut self,
        namespace: usize,
        text: &str,
        expected: usize,
        now: Instant,
    ) -> Result<(), ProtocolError> {
        self.expect_text()?;
        if self.is_closed {
            return Ok(());
        }
        let slot = self.slots.iter().find(|slot| slot.namespace == namespace).ok_or(ProtocolError::NotJoined)?;
        // A slot that is driven may be joined by the time the attachments are here.
        if matches!(slot.stage, Stage::Vacant) && !slot.is_driven {
            return Err(ProtocolError::NotJoined);
        }
        let deadline = now + self.limits.attachment_timeout;
        let (attachments, bytes) = (Vec::new(), 0);
        self.assembly = Some(Box::new(Assembly { text: text.into(), expected, attachments, bytes, deadline }));
        Ok(())
    }

    /// Takes an attachment. Returns the packet when it was the last.
    pub(super) fn handle_attachment(&mut self, data: Vec<u8>) -> Result<Option<Parcel>, ProtocolError> {
        if self.is_closed {
            return Ok(None);
        }
        let mut assembly = self.assembly.take().ok_or(ProtocolError::UnexpectedBinary)?;
        assembly.bytes = assembly.bytes.saturating_add(data.len());
        let (bytes, max_bytes) = (assembly.bytes, self.limits.max_attachment_bytes);
        if bytes > max_bytes {
            return Err(ProtocolError::AttachmentsTooLarge { bytes, max_bytes });
        }
        assembly.attachments.push(data);
        if assembly.missing() > 0 {
            self.assembly = Some(assembly);
            return Ok(None);
        }
        Ok(Some(Parcel { text: assembly.text, attachments: assembly.attachments }))
    }

    /// Takes a complete packet from the client. `attachments` are moved out if it has to wait.
    pub(super) fn handle_packet(
        &mut self,
        namespace: usize,
        kind: &PacketKind<'_>,
        text: &str,
        attachments: &mut Vec<Vec<u8>>,
    ) -> Result<Step, ProtocolError> {
        self.expect_text()?;
        match self.slots.iter_mut().find(|slot| slot.namespace == namespace) {
            Some(slot) if matches!(slot.stage, Stage::Pending { .. }) => match kind {
                PacketKind::Connect { .. } => return Err(ProtocolError::AlreadyJoined),
                PacketKind::ConnectError => return Err(ProtocolError::ConnectErrorFromClient),
                PacketKind::Disconnect => {
                    slot.stage = Stage::Vacant;
                    self.parked_bytes -= slot.drop_parked();
                    return Ok(Step::Nothing);
                }
                PacketKind::Event { .. } | PacketKind::Ack { .. } => {}
            },
            Some(slot) if slot.is_driven => {}
            _ => return self.apply(namespace, kind),
        }
        self.park(namespace, text, mem::take(attachments))?;
        Ok(Step::Nothing)
    }

    fn park(&mut self, namespace: usize, text: &str, attachments: Vec<Vec<u8>>) -> Result<(), ProtocolError> {
        let parked_bytes = self.parked_bytes.saturating_add(Parcel::cost_bytes(text, &attachments));
        let max_bytes = self.limits.max_parked_bytes;
        if parked_bytes > max_bytes {
            return Err(ProtocolError::TooMuchParked { max_bytes });
        }
        self.parked_bytes = parked_bytes;
        self.slot_mut(namespace).parked.push_back(Parcel { text: text.into(), attachments });
        Ok(())
    }

    /// Takes a packet whose turn it is.
    pub(super) fn apply(&mut self, namespace: usize, kind: &PacketKind<'_>) -> Result<Step, ProtocolError> {
        if self.is_closed {
            return Ok(Step::Nothing);
        }
        let slot = self.slots.iter_mut().find(|slot| slot.namespace == namespace);
        let stage = slot.as_ref().map_or(&Stage::Vacant, |slot| &slot.stage);
        match (kind, stage) {
            (PacketKind::ConnectError, _) => Err(ProtocolError::ConnectErrorFromClient),
            (PacketKind::Connect { .. }, Stage::Vacant | Stage::Dismissed) => {
                self.joins += 1;
                let join = self.joins;
                self.slot_mut(namespace).stage = Stage::Pending { join };
                Ok(Step::Decide { join })
            }
            (PacketKind::Connect { .. }, _) => Err(ProtocolError::AlreadyJoined),
            (PacketKind::Event { .. }, Stage::Joined(socket)) => {
                socket.begin_handler();
                Ok(Step::Event(socket.clone()))
            }
            (PacketKind::Ack { id, .. }, Stage::Joined(socket)) => {
                let socket = socket.clone();
                let acks = slot.and_then(|slot| slot.acks.as_mut());
                let callback = id.and_then(|id| acks?.take(id));
                // An answer that nobody awaits any more is no mistake: it may have crossed the timeout.
                Ok(callback.map_or(Step::Nothing, |callback| {
                    socket.begin_handler();
                    Step::Ack(socket, callback)
                }))
            }
            (PacketKind::Disconnect, Stage::Joined(_)) => {
                let reason = DisconnectReason::ClientNamespaceDisconnect;
                let departure = slot.and_then(|slot| slot.end(Stage::Vacant, reason));
                Ok(departure.map_or(Step::Nothing, Step::Leave))
            }
            (_, Stage::Dismissed) => Ok(Step::Nothing),
            (_, Stage::Vacant | Stage::Pending { .. } | Stage::Accepted(_)) => Err(ProtocolError::NotJoined),
        }
    }

    /// The next thing to do for who drives the slot.
    pub(super) fn next_turn(&mut self, namespace: usize) -> Turn {
        if self.is_closed {
            return Turn::Done;
        }
        let slot = self.slot_mut(namespace);
        match &slot.stage {
            Stage::Accepted(socket) => {
                let socket = socket.clone();
                socket.begin_handler();
                slot.stage = Stage::Joined(socket.clone());
                return Turn::Joined(socket);
            }
            // What is parked waits for the answer, and whoever gives it drives on.
            Stage::Pending { .. } => {}
            _ => {
                if let Some(parcel) = slot.parked.pop_front() {
                    self.parked_bytes -= Parcel::cost_bytes(&parcel.text, &parcel.attachments);
                    return Turn::Packet(parcel);
                }
                // Rarely needed again, and its room is more than a slot.
                slot.parked = VecDeque::new();
            }
        }
        slot.is_driven = false;
        Turn::Done
    }

    /// The sockets that have joined.
    pub(super) fn sockets(&self) -> Vec<Socket> {
        let joined = |slot: &Slot| match &slot.stage {
            Stage::Joined(socket) => Some(socket.clone()),
            _ => None,
        };
        self.slots.iter().filter_map(joined).collect()
    }

    /// Whether the middleware's answer to this join is still awaited.
    fn is_pending(&self, namespace: usize, join: u64) -> bool {
        let is_it = |slot: &Slot| {
            slot.namespace == namespace && matches!(slot.stage, Stage::Pending { join: pending } if pending == join)
        };
        !self.is_closed && self.slots.iter().any(is_it)
    }

    /// The middleware lets the client join.
    pub(super) fn accept(&mut self, namespace: usize, socket: &Socket) -> Accepted {
        if !self.is_pending(namespace, socket.join()) {
            return Accepted::TooLate;
        }
        self.connect_deadline = None;
        let slot = self.slot_mut(namespace);
        slot.stage = Stage::Accepted(socket.clone());
        if mem::replace(&mut slot.is_driven, true) { Accepted::Driven } else { Accepted::Drive }
    }

    /// The middleware does not let the client join.
    pub(super) fn refuse(&mut self, namespace: usize, join: u64) -> Refused {
        if !self.is_pending(namespace, join) {
            return Refused::TooLate;
        }
        let slot = self.slot_mut(namespace);
        slot.stage = Stage::Vacant;
        let dropped_bytes = slot.drop_parked();
        self.parked_bytes -= dropped_bytes;
        // As if they had come behind the refusal.
        if dropped_bytes > 0 { Refused::TellAndClose(ProtocolError::NotJoined) } else { Refused::Tell }
    }

    /// The server ends a socket. The flag says that the caller must drive the slot, which holds up a new join of the
    /// client until it has been told of the end.
    pub(super) fn dismiss(&mut self, namespace: usize, socket: &Socket) -> Option<(Departure, bool)> {
        let slot = self.joined_slot(namespace, socket)?;
        let departure = slot.end(Stage::Dismissed, DisconnectReason::ServerNamespaceDisconnect)?;
        let must_drive = !mem::replace(&mut slot.is_driven, true);
        Some((departure, must_drive))
    }

    /// Makes a place for the answer to an event, and names its id. The flag says that a deadline has come nearer.
    pub(super) fn await_ack(
        &mut self,
        namespace: usize,
        socket: &Socket,
        deadline: Instant,
        callback: AckCallback,
    ) -> Result<(u64, bool), (AckError, AckCallback)> {
        let max_pending = self.limits.max_pending_acks;
        let Some(slot) = self.joined_slot(namespace, socket) else {
            return Err((AckError::Disconnected, callback));
        };
        let acks = slot.acks.get_or_insert_default();
        if acks.len() >= max_pending {
            return Err((AckError::TooManyPending, callback));
        }
        let id = acks.insert(deadline, callback);
        let is_nearer = self.next_deadline().is_none_or(|next| deadline < next);
        self.ack_deadline = Some(self.ack_deadline.map_or(deadline, |present| present.min(deadline)));
        Ok((id, is_nearer))
    }

    /// Ends everything. What is returned is to be finished without the lock; a second call returns nothing.
    pub(super) fn close(&mut self, reason: CloseReason) -> Vec<Departure> {
        self.is_closed = true;
        self.connect_deadline = None;
        self.ack_deadline = None;
        self.assembly = None;
        self.parked_bytes = 0;
        let end = |mut slot: Slot| slot.end(Stage::Vacant, DisconnectReason::Closed(reason));
        mem::take(&mut self.slots).into_iter().filter_map(end).collect()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Looks at the clock. What is returned is to be told of the timeout, without the lock.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<Vec<AckCallback>, ProtocolError> {
        if self.connect_deadline.is_some_and(|deadline| deadline <= now) {
            return Err(ProtocolError::NotJoinedInTime);
        }
        if let Some(assembly) = &self.assembly
            && assembly.deadline <= now
        {
            return Err(ProtocolError::AttachmentsOverdue { missing: assembly.missing() });
        }
        let mut expired = Vec::new();
        if self.ack_deadline.is_some_and(|deadline| deadline <= now) {
            self.ack_deadline = None;
            for acks in self.slots.iter_mut().filter_map(|slot| slot.acks.as_mut()) {
                acks.take_expired(now, &mut expired);
                self.ack_deadline = self.ack_deadline.into_iter().chain(acks.next_deadline()).min();
            }
        }
        Ok(expired)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called at the latest.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let assembly = self.assembly.as_ref().map(|assembly| assembly.deadline);
        [self.connect_deadline, assembly, self.ack_deadline].into_iter().flatten().min()
    }

    fn slot_mut(&mut self, namespace: usize) -> &mut Slot {
        let index = match self.slots.iter().position(|slot| slot.namespace == namespace) {
            Some(index) => index,
            None => {
                // Most clients join one namespace, and a vector would begin with four.
                self.slots.reserve_exact(1);
                self.slots.push(Slot {
                    namespace,
                    stage: Stage::Vacant,
                    is_driven: false,
                    parked: VecDeque::new(),
                    acks: None,
                });
                self.slots.len() - 1
            }
        };
        &mut self.slots[index]
    }

    fn joined_slot(&mut self, namespace: usize, socket: &Socket) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| {
            slot.namespace == namespace
                && matches!(&slot.stage, Stage::Joined(joined) if joined.join() == socket.join())
        })
    }
}

impl Slot {
    /// Ends the socket, if there is one.
    fn end(&mut self, stage: Stage, reason: DisconnectReason) -> Option<Departure> {
        let (socket, was_told) = match mem::replace(&mut self.stage, stage) {
            Stage::Joined(socket) => (socket, true),
            Stage::Accepted(socket) => (socket, false),
            Stage::Vacant | Stage::Dismissed | Stage::Pending { .. } => return None,
        };
        let is_told_here = socket.mark_left(reason) && was_told;
        let acks = self.acks.as_mut().map(|acks| acks.take_all()).unwrap_or_default();
        Some(Departure { socket, acks, is_told_here })
    }

    /// Forgets what is parked, and returns what it counted.
    fn drop_parked(&mut self) -> usize {
        let cost = |parcel: &Parcel| Parcel::cost_bytes(&parcel.text, &parcel.attachments);
        mem::take(&mut self.parked).iter().map(cost).sum()
    }
}
