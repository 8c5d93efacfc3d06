//! A meeting as a room holds it while somebody is in it: how far its events have been delivered, and who is here.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::Arc,
};

use crate::{
    auth::Identity,
    chat::{
        event::{Person, PresenceCount, PresenceUpdate, ReadReceipt, Resync, Typing, UserPresence},
        service::NAMESPACE,
    },
    outbox::Frame,
    rooms::Room,
    socket::event_frame_json,
    store::{LogEvent, Opened, Position},
    types::RoomId,
};

/// The state of a room.
#[derive(Default)]
pub(super) struct Meeting {
    /// The last event that was delivered. `None` until the first member has asked the log.
    position: Option<Position>,
    /// Events that came before one with a lower seq.
    early: BTreeMap<u64, (LogEvent, Frame)>,
    /// Who is here. In a room of one's own this is all there is.
    present: HashMap<Arc<str>, Present>,
    /// How many of them have left, and may be back before others are told.
    leaving: usize,
    /// How many of them may be typing.
    typing: usize,
    /// Marks that moved and were not told yet.
    receipts: Vec<(Arc<str>, u64)>,
    /// A job will tell them.
    receipts_are_due: bool,
    /// A job will tell how many there are.
    count_is_due: bool,
    /// A job will tell readers who are elsewhere that there is more to read.
    unread_is_due: bool,
}

struct Present {
    name: Arc<str>,
    /// ms since the epoch.
    since: u64,
    /// Sockets that have joined.
    devices: u32,
    /// When the last of them left.
    left_at: Option<u64>,
    /// Until when they are shown as typing.
    typing_until: u64,
}

/// How long typing is shown without being said again.
pub(super) const TYPING_MS: u64 = 6000;
/// How long somebody may be away before others are told.
pub(super) const LEAVE_HOLD_MS: u64 = 10_000;
/// Above this many users only their number is told.
const NAMED_PRESENCE_MAX: usize = 200;
/// How often that is.
pub(super) const COUNT_PAUSE_MS: u64 = 2000;
/// Above this many users only the reader's own devices get receipts.
const RECEIPTS_MAX: usize = 50;
/// Receipts that wait for one pause of [`RECEIPT_PAUSE_MS`]; further ones are told by the next mark of the same user.
const WAITING_RECEIPTS_MAX: usize = 1024;
/// For how long receipts are gathered.
pub(super) const RECEIPT_PAUSE_MS: u64 = 1000;

impl Meeting {
    /// Where the room stands.
    pub(super) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// How many users are here, as members have been told: with those who left a moment ago.
    pub(super) fn shown_count(&self) -> usize {
        self.present.len()
    }

    /// How many users are here.
    pub(super) fn user_count(&self) -> usize {
        self.present.len() - self.leaving
    }

    pub(super) fn has_user(&self, user: &str) -> bool {
        self.present.get(user).is_some_and(|present| present.devices > 0)
    }

    /// Everybody, longest first, at most `limit`.
    pub(super) fn users(&self, limit: usize) -> Vec<UserPresence> {
        let mut users: Vec<_> = self
            .present
            .iter()
            .map(|(id, present)| UserPresence {
                id: Arc::clone(id),
                name: Arc::clone(&present.name),
                since: present.since,
                devices: present.devices,
            })
            .collect();
        users.sort_unstable_by(|a, b| (a.since, &a.id).cmp(&(b.since, &b.id)));
        users.truncate(limit);
        users
    }

    /// Whether somebody has to look for readers elsewhere. Once, until [`unread_told`](Self::unread_told).
    pub(super) fn note_unread(&mut self) -> bool {
        !mem::replace(&mut self.unread_is_due, true)
    }

    pub(super) fn unread_told(&mut self) {
        self.unread_is_due = false;
    }
}

/// What has to be done later, with the room that a turn has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Later {
    /// Nothing.
    Nothing,
    /// [`tell_leave`] for that user.
    Leave,
    /// [`tell_count`].
    Count,
}

/// Delivers an event in its order: members see every seq once, and none before the one in front of it. True if it was
/// news to the room.
pub(super) fn deliver(room: &mut Room<Meeting>, id: &RoomId, event: LogEvent, frame: Frame) -> bool {
    let is_next = match &room.state.position {
        Some(position) if position.epoch == event.epoch => {
            if event.seq <= position.seq {
                return false;
            }
            event.seq == position.seq + 1
        }
        Some(_) => {
            // The log was lost and begins anew: what members have is of no use any more.
            let (epoch, seq) = (Arc::clone(&event.epoch), event.seq);
            resync(room, id, "epoch_changed", Position { epoch, seq: seq - 1 }, seq);
            true
        }
        // The room's first member is still to be told where it stands.
        None => false,
    };
    if !is_next {
        room.state.early.insert(event.seq, (event, frame));
        return true;
    }
    send(room, event.seq, &frame);
    deliver_early(room);
    true
}

/// Sets where a new room stands, or finds that the log has another life than the room knows of.
pub(super) fn place(room: &mut Room<Meeting>, id: &RoomId, opened: &Opened) {
    let position = Position { epoch: Arc::clone(&opened.epoch), seq: opened.seq };
    match &room.state.position {
        Some(present) if present.epoch == position.epoch => {}
        Some(_) => resync(room, id, "epoch_changed", position, opened.first_seq),
        None => {
            room.state.position = Some(position);
            deliver_early(room);
        }
    }
}

fn resync(room: &mut Room<Meeting>, id: &RoomId, reason: &'static str, position: Position, first_seq: u64) {
    let resync = Resync { meeting_id: id.as_str(), reason, epoch: &position.epoch, top_seq: position.seq, first_seq };
    room.broadcast(&event_frame_json(NAMESPACE, "resync", &resync));
    room.state.early.clear();
    room.state.position = Some(position);
}

fn send(room: &mut Room<Meeting>, seq: u64, frame: &Frame) {
    room.broadcast(frame);
    if let Some(position) = &mut room.state.position {
        position.seq = seq;
    }
}

/// Delivers what waited for the event that has just been delivered.
fn deliver_early(room: &mut Room<Meeting>) {
    while let Some(entry) = room.state.early.first_entry() {
        let Some(position) = &room.state.position else { return };
        let seq = *entry.key();
        if seq > position.seq + 1 {
            return;
        }
        let (event, frame) = entry.remove();
        if seq > position.seq && event.epoch == position.epoch {
            send(room, seq, &frame);
        }
    }
}

/// One more socket of a user is here; it is a member already.
pub(super) fn enter(room: &mut Room<Meeting>, id: &RoomId, identity: &Identity, owner: u64, now: u64) -> Later {
    if identity.is_service {
        return Later::Nothing;
    }
    if let Some(present) = room.state.present.get_mut(&identity.user_id) {
        present.devices += 1;
        if present.left_at.take().is_some() {
            room.state.leaving -= 1;
        }
        return Later::Nothing;
    }
    let present = Present { name: Arc::clone(&identity.name), since: now, devices: 1, left_at: None, typing_until: 0 };
    room.state.present.insert(Arc::clone(&identity.user_id), present);
    tell_presence(room, id, "join", &identity.user_id, &identity.name, Some(owner), now)
}

/// One socket of a user has left; it is no member any more.
pub(super) fn leave(room: &mut Room<Meeting>, id: &RoomId, user: &str, owner: u64, now: u64) -> Later {
    stop_typing(room, id, user, owner, now);
    let Some(present) = room.state.present.get_mut(user) else { return Later::Nothing };
    present.devices = present.devices.saturating_sub(1);
    if present.devices > 0 {
        return Later::Nothing;
    }
    if present.left_at.replace(now).is_none() {
        room.state.leaving += 1;
    }
    Later::Leave
}

/// Tells that a user has left, unless they are back, or have been back meanwhile.
pub(super) fn tell_leave(room: &mut Room<Meeting>, id: &RoomId, user: &Arc<str>, now: u64) -> Later {
    let is_gone = |present: &Present| {
        present.devices == 0 && present.left_at.is_some_and(|left_at| now >= left_at + LEAVE_HOLD_MS)
    };
    if !room.state.present.get(user).is_some_and(is_gone) {
        return Later::Nothing;
    }
    match room.state.present.remove(user) {
        Some(present) => {
            room.state.leaving -= 1;
            tell_presence(room, id, "leave", user, &present.name, None, now)
        }
        None => Later::Nothing,
    }
}

fn tell_presence(
    room: &mut Room<Meeting>,
    id: &RoomId,
    event: &'static str,
    user: &Arc<str>,
    name: &Arc<str>,
    except: Option<u64>,
    now: u64,
) -> Later {
    let count = room.state.present.len();
    if count > NAMED_PRESENCE_MAX {
        let is_new = !mem::replace(&mut room.state.count_is_due, true);
        return if is_new { Later::Count } else { Later::Nothing };
    }
    let update = PresenceUpdate { meeting_id: id.as_str(), event, user: Person { id: user, name }, count, ts: now };
    room.broadcast_volatile(&event_frame_json(NAMESPACE, "presence_update", &update), except);
    Later::Nothing
}

/// Tells how many users there are.
pub(super) fn tell_count(room: &mut Room<Meeting>, id: &RoomId, now: u64) {
    room.state.count_is_due = false;
    let update = PresenceCount { meeting_id: id.as_str(), event: "count", count: room.state.present.len(), ts: now };
    room.broadcast_volatile(&event_frame_json(NAMESPACE, "presence_update", &update), None);
}

/// Tells everybody but the typist's own sockets.
pub(super) fn tell_typing(
    room: &mut Room<Meeting>,
    id: &RoomId,
    (user, name): (&str, &str),
    owner: u64,
    active: bool,
    now: u64,
) {
    if let Some(present) = room.state.present.get_mut(user) {
        let was_typing = present.typing_until > 0;
        present.typing_until = if active { now + TYPING_MS } else { 0 };
        room.state.typing = room.state.typing + usize::from(active) - usize::from(was_typing);
    }
    let typing = Typing { meeting_id: id.as_str(), user_id: user, name, active, expires_in_ms: TYPING_MS };
    room.broadcast_volatile(&event_frame_json(NAMESPACE, "typing", &typing), Some(owner));
}

/// A message says that typing has ended: nothing more is told.
pub(super) fn forget_typing(room: &mut Room<Meeting>, user: &str) {
    if room.state.typing > 0
        && let Some(present) = room.state.present.get_mut(user)
        && mem::take(&mut present.typing_until) > 0
    {
        room.state.typing -= 1;
    }
}

fn stop_typing(room: &mut Room<Meeting>, id: &RoomId, user: &str, owner: u64, now: u64) {
    if room.state.typing == 0 {
        return;
    }
    let typing = room.state.present.get(user).map(|present| (present.typing_until, Arc::clone(&present.name)));
    match typing {
        Some((until, name)) if until > now => tell_typing(room, id, (user, &name), owner, false, now),
        // It has lapsed by itself.
        _ => forget_typing(room, user),
    }
}

/// Notes that a mark has moved. True if a job has to be made that tells.
pub(super) fn note_receipt(meeting: &mut Meeting, user: &Arc<str>, seq: u64) -> bool {
    if let Some(waiting) = meeting.receipts.iter_mut().find(|(waiting, _)| waiting == user) {
        waiting.1 = seq;
    } else if meeting.receipts.len() < WAITING_RECEIPTS_MAX {
        meeting.receipts.push((Arc::clone(user), seq));
    }
    !mem::replace(&mut meeting.receipts_are_due, true)
}

/// Tells which marks have moved; in a large room to nobody but the reader's own sockets, which `owner_of` finds.
pub(super) fn tell_receipts(room: &mut Room<Meeting>, id: &RoomId, owner_of: impl Fn(&str) -> Option<u64>, now: u64) {
    room.state.receipts_are_due = false;
    let is_large = room.state.present.len() > RECEIPTS_MAX;
    for (user, seq) in mem::take(&mut room.state.receipts) {
        let receipt = ReadReceipt { meeting_id: id.as_str(), user_id: &user, seq, ts: now };
        let frame = event_frame_json(NAMESPACE, "read_receipt", &receipt);
        if !is_large {
            room.broadcast_volatile(&frame, None);
        } else if let Some(owner) = owner_of(&user) {
            room.tell_volatile(&frame, owner);
        }
    }
}
