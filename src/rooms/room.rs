//! One room: its members and their fan-out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    outbox::{Frame, Outbox, Pushed},
    types::RoomId,
};

/// A room as a turn sees it, with the state `T` that the application keeps per room.
pub struct Room<T> {
    /// Side by side, so that a fan-out walks contiguous memory.
    members: Vec<Entry>,
    /// What the application keeps for this room.
    pub state: T,
}

struct Entry {
    /// The member's own, here as well to save the fan-out one step.
    outbox: Arc<Outbox>,
    member: Arc<Member>,
}

/// One socket, as the rooms know it. Made once per socket, and shared by all its rooms.
pub struct Member {
    outbox: Arc<Outbox>,
    /// The same for all members that belong together: a user's sockets.
    owner: u64,
    joined: Mutex<Joined>,
}

/// The rooms a member has asked for, whether or not the room's turn has come yet.
#[derive(Default)]
pub(super) struct Joined {
    pub(super) rooms: Vec<RoomId>,
    /// Set when the socket is gone; from then on it joins nothing.
    pub(super) gone: bool,
}

impl Member {
    /// A member that is in no room, and receives through `outbox`. Members that belong together have one `owner`.
    pub fn new(outbox: Arc<Outbox>, owner: u64) -> Self {
        Self { outbox, owner, joined: Mutex::default() }
    }

    /// The rooms that this member has joined, and not left since.
    pub fn rooms(&self) -> Vec<RoomId> {
        self.joined().rooms.clone()
    }

    /// Whether this member has joined `room`, and not left it since.
    pub fn is_in(&self, room: &str) -> bool {
        self.joined().rooms.iter().any(|joined| joined.as_str() == room)
    }

    /// Where the member's frames wait.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Never held while a turn runs: turns look in here.
    pub(super) fn joined(&self) -> MutexGuard<'_, Joined> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Room<T> {
    pub(super) fn new(state: T) -> Self {
        Self { members: Vec::new(), state }
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Queues a frame to every member. Nothing is done per member but that: the frame is encoded, and shared.
    pub fn broadcast(&self, frame: &Frame) {
        for entry in &self.members {
            // A full outbox closes its own client; the others do not notice.
            let _: Pushed = entry.outbox.push(frame.clone());
        }
    }

    /// Queues frames, with nothing between them, to every member but those of one owner.
    pub fn broadcast_all(&self, frames: &[Frame], except: Option<u64>) {
        for entry in self.members.iter().filter(|entry| except != Some(entry.member.owner)) {
            let _: Pushed = entry.outbox.push_all(frames);
        }
    }

    /// Queues a frame to every member but those of one owner; members for whom much is queued already do without it.
    pub fn broadcast_volatile(&self, frame: &Frame, except: Option<u64>) {
        for entry in &self.members {
            if except != Some(entry.member.owner) {
                let _: Pushed = entry.outbox.push_volatile(frame.clone());
            }
        }
    }

    /// [`broadcast_volatile`](Self::broadcast_volatile) to the members of one owner only.
    pub fn tell_volatile(&self, frame: &Frame, owner: u64) {
        for entry in self.members.iter().filter(|entry| entry.member.owner == owner) {
            let _: Pushed = entry.outbox.push_volatile(frame.clone());
        }
    }

    pub(super) fn add(&mut self, member: &Arc<Member>) {
        self.members.push(Entry { outbox: Arc::clone(&member.outbox), member: Arc::clone(member) });
    }

    pub(super) fn remove(&mut self, member: &Arc<Member>) -> bool {
        let position = self.position(member);
        if let Some(index) = position {
            self.members.swap_remove(index);
        }
        position.is_some()
    }

    pub(super) fn has(&self, member: &Arc<Member>) -> bool {
        self.position(member).is_some()
    }

    fn position(&self, member: &Arc<Member>) -> Option<usize> {
        self.members.iter().position(|entry| Arc::ptr_eq(&entry.member, member))
    }
}
