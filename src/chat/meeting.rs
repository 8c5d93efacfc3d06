//! A meeting as a room holds it while somebody is in it: how far its events have been delivered, and who is here.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
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
    socket::{event_frame, event_frame_json},
    store::{LogEvent, Missed, Opened, Position, Standing},
    types::RoomId,
};

/// The state of a room.
#[derive(Default)]
pub(super) struct Meeting {
    /// The last event that was delivered. `None` only until the turn ends in which the room is made.
    position: Option<Position>,
    /// Events that came before one with a lower seq. At most [`EARLY_MAX`]: the log has the others.
    early: BTreeMap<u64, (LogEvent, Frame)>,
    /// What was delivered last, while somebody may be joining.
    recent: VecDeque<LogEvent>,
    /// Until when `recent` is kept up, in ms since the epoch.
    recent_until: u64,
    /// Somebody fetches from the log what is missing, or will.
    repair_is_due: bool,
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
    /// When the first of the sockets here has joined, in ms since the epoch.
    since_here: u64,
    /// Sockets that have joined here.
    devices: u32,
    /// When the last of them left.
    left_at: Option<u64>,
    /// Where else they are.
    peers: Vec<There>,
    /// Until when they are shown as typing.
    typing_until: u64,
}

/// Events that wait for others in front of them.
const EARLY_MAX: usize = 256;
/// Events that are remembered for those who are joining.
const RECENT_MAX: usize = 256;
/// For how long they are, after somebody has begun to join.
const RECENT_MS: u64 = 10_000;
/// A user's sockets at another instance.
struct There {
    peer: Arc<str>,
    devices: u32,
    since: u64,
}

impl Present {
    /// They are only held back, until others are told that they have left.
    fn is_leaving(&self) -> bool {
        self.left_at.is_some() && self.peers.is_empty()
    }

    fn since(&self) -> u64 {
        let is_here = self.devices > 0 || self.left_at.is_some() || self.peers.is_empty();
        let here = is_here.then_some(self.since_here);
        self.peers.iter().map(|there| there.since).chain(here).min().unwrap_or(self.since_here)
    }

    fn devices(&self) -> u32 {
        self.peers.iter().fold(self.devices, |sum, there| sum.saturating_add(there.devices))
    }

    fn here(&self, user: &Arc<str>) -> Here {
        let (user, name) = (Arc::clone(user), Arc::clone(&self.name));
        Here { user, name, since: self.since_here, devices: self.devices }
    }
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

    pub(super) fn epoch(&self) -> Option<&Arc<str>> {
        self.position.as_ref().map(|position| &position.epoch)
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
        self.present.get(user).is_some_and(|present| !present.is_leaving())
    }

    /// Whether a user has sockets here, or had a moment ago.
    pub(super) fn is_here(&self, user: &str) -> bool {
        self.present.get(user).is_some_and(|present| present.devices > 0 || present.left_at.is_some())
    }

    /// The users with sockets here.
    pub(super) fn local_users(&self) -> Vec<Here> {
        let here = self.present.iter().filter(|(_, present)| present.devices > 0 || present.left_at.is_some());
        here.map(|(user, present)| present.here(user)).collect()
    }

    /// Everybody, longest first, at most `limit`.
    pub(super) fn users(&self, limit: usize) -> Vec<UserPresence> {
        let mut users: Vec<_> = self
            .present
            .iter()
            .map(|(id, present)| UserPresence {
                id: Arc::clone(id),
                name: Arc::clone(&present.name),
                since: present.since(),
                devices: present.devices(),
            })
            .collect();
        longest_first(&mut users, limit);
        users
    }

    /// Somebody is going to ask the log, and then to enter: what is delivered meanwhile is kept for them.
    pub(super) fn expect_joiner(&mut self, now: u64) {
        self.recent_until = now + RECENT_MS;
    }

    /// Whether events are missing that came after others.
    pub(super) fn has_hole(&self) -> bool {
        !self.early.is_empty()
    }

    /// The last event that has come, delivered or not.
    pub(super) fn last_known(&self) -> Option<Position> {
        let seq = self.early.last_key_value().map(|(seq, _)| *seq);
        self.position.as_ref().map(|position| Position { seq: seq.unwrap_or(position.seq), ..position.clone() })
    }

    /// Whether somebody has to fetch what is missing. Once, until [`repaired`](Self::repaired).
    pub(super) fn note_repair(&mut self) -> bool {
        !mem::replace(&mut self.repair_is_due, true)
    }

    pub(super) fn repaired(&mut self) {
        self.repair_is_due = false;
    }

    /// Whether somebody has to look for readers elsewhere. Once, until [`unread_told`](Self::unread_told).
    pub(super) fn note_unread(&mut self) -> bool {
        !mem::replace(&mut self.unread_is_due, true)
    }

    pub(super) fn unread_told(&mut self) {
        self.unread_is_due = false;
    }
}

fn longest_first(users: &mut Vec<UserPresence>, limit: usize) {
    users.sort_unstable_by(|a, b| (a.since, &a.id).cmp(&(b.since, &b.id)));
    users.truncate(limit);
}

/// How many users are in a meeting, and the first of them, where nobody is here.
pub(super) fn users_elsewhere(theirs: &[(Arc<str>, Here)], limit: usize) -> (usize, Vec<UserPresence>) {
    let mut by_user: HashMap<&str, UserPresence> = HashMap::new();
    for (_, here) in theirs {
        let user = by_user.entry(&here.user).or_insert_with(|| UserPresence {
            id: Arc::clone(&here.user),
            name: Arc::clone(&here.name),
            since: here.since,
            devices: 0,
        });
        user.since = user.since.min(here.since);
        user.devices = user.devices.saturating_add(here.devices);
    }
    let mut users: Vec<_> = by_user.into_values().collect();
    let count = users.len();
    longest_first(&mut users, limit);
    (count, users)
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

/// What became of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Delivered {
    /// Members have it.
    Now,
    /// Members had it already.
    Before,
    /// It waits for others, or is of another life of the log: the log has to be asked.
    Not { is_other_life: bool },
}

/// Delivers an event in its order: members see every seq once, and none before the one in front of it.
pub(super) fn deliver(room: &mut Room<Meeting>, event: LogEvent, now: u64) -> Delivered {
    let state = &mut room.state;
    let Some(position) = state.position.as_ref().filter(|position| position.epoch == event.epoch) else {
        return Delivered::Not { is_other_life: true };
    };
    if event.seq <= position.seq {
        return Delivered::Before;
    }
    let frame = event_frame(NAMESPACE, event.kind.as_str(), &event.json);
    if event.seq > position.seq + 1 {
        if state.early.len() < EARLY_MAX {
            state.early.insert(event.seq, (event, frame));
        }
        return Delivered::Not { is_other_life: false };
    }
    send(room, event, &frame, now);
    // What waited for it.
    while let Some(entry) = room.state.early.first_entry() {
        let Some(position) = &room.state.position else { break };
        if *entry.key() > position.seq + 1 {
            break;
        }
        let is_next = *entry.key() == position.seq + 1;
        let (event, frame) = entry.remove();
        if is_next && event.epoch == position.epoch {
            send(room, event, &frame, now);
        }
    }
    Delivered::Now
}

/// Why members have to load the log anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reload {
    EpochChanged,
    WindowExceeded,
}

/// Puts the room at the log's top, and tells members that what they have does not lead there.
pub(super) fn resync(room: &mut Room<Meeting>, id: &RoomId, reason: Reload, standing: &Standing) {
    let reason = match reason {
        Reload::EpochChanged => "epoch_changed",
        Reload::WindowExceeded => "window_exceeded",
    };
    let Position { epoch, seq } = &standing.top;
    let resync = Resync { meeting_id: id.as_str(), reason, epoch, top_seq: *seq, first_seq: standing.first_seq };
    room.broadcast(&event_frame_json(NAMESPACE, "resync", &resync));
    room.state.early.retain(|early, (event, _)| event.epoch == *epoch && early > seq);
    room.state.recent.clear();
    room.state.position = Some(standing.top.clone());
}

fn send(room: &mut Room<Meeting>, event: LogEvent, frame: &Frame, now: u64) {
    room.broadcast(frame);
    let state = &mut room.state;
    if let Some(position) = &mut state.position {
        position.seq = event.seq;
    }
    if now < state.recent_until {
        if state.recent.len() >= RECENT_MAX {
            state.recent.pop_front();
        }
        state.recent.push_back(event);
    } else if state.recent_until > 0 {
        state.recent_until = 0;
        state.recent = VecDeque::new();
    }
}

/// How what the log has said fits to where the room stands by now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    /// What is opened leads to where the room stands.
    Yes,
    /// The room has not got there yet.
    RoomIsBehind,
    /// The log has begun anew since the room was told.
    OtherEpoch,
    /// What lies between is not known any more.
    TooLate,
}

/// Makes what the log has said lead to where the room stands: events that were delivered since are added, of which at
/// most `limit` are shown. A new room stands where the log does.
pub(super) fn fit(room: &mut Room<Meeting>, opened: &mut Opened, limit: usize) -> Fit {
    let state = &mut room.state;
    let position = state.position.get_or_insert_with(|| Position { epoch: Arc::clone(&opened.epoch), seq: opened.seq });
    if position.epoch != opened.epoch {
        return Fit::OtherEpoch;
    }
    if position.seq < opened.seq {
        return Fit::RoomIsBehind;
    }
    let missing = (position.seq - opened.seq) as usize;
    let is_missing = |event: &&LogEvent| event.seq > opened.seq && event.seq <= position.seq;
    let known: Vec<_> = state.recent.iter().filter(is_missing).cloned().collect();
    if known.len() != missing || known.iter().any(|event| event.epoch != opened.epoch) {
        return Fit::TooLate;
    }
    opened.seq = position.seq;
    match opened.recovered {
        None => {
            opened.events.extend(known);
            let surplus = opened.events.len().saturating_sub(limit);
            opened.events.drain(..surplus);
        }
        Some(Ok(())) => {
            opened.events.extend(known);
            if opened.events.len() > limit {
                opened.recovered = Some(Err(Missed::TooMany));
                opened.events.clear();
            }
        }
        Some(Err(_)) => {}
    }
    Fit::Yes
}

/// What somebody's coming or going leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Moved {
    pub(super) later: Later,
    /// What other instances are to know of the user's sockets here.
    pub(super) here: Option<Here>,
    /// The name of a user who types no longer.
    pub(super) stopped_typing: Option<Arc<str>>,
}

/// Sockets of a user at one instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Here {
    pub(super) user: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) since: u64,
    /// 0: they have left.
    pub(super) devices: u32,
}

const NOTHING: Moved = Moved { later: Later::Nothing, here: None, stopped_typing: None };

/// One more socket of a user is here; it is a member already.
pub(super) fn enter(room: &mut Room<Meeting>, id: &RoomId, identity: &Identity, owner: u64, now: u64) -> Moved {
    if identity.is_service {
        return NOTHING;
    }
    let user = &identity.user_id;
    if let Some(here) = change(&mut room.state, user, |present| {
        if present.devices == 0 && present.left_at.is_none() {
            present.since_here = now;
        }
        present.devices += 1;
        present.left_at = None;
        Some(present.here(user))
    }) {
        return Moved { here, ..NOTHING };
    }
    let present = Present {
        name: Arc::clone(&identity.name),
        since_here: now,
        devices: 1,
        left_at: None,
        peers: Vec::new(),
        typing_until: 0,
    };
    let here = Some(present.here(user));
    room.state.present.insert(Arc::clone(user), present);
    Moved { later: tell_presence(room, id, "join", user, &identity.name, Some(owner), now), here, stopped_typing: None }
}

/// One socket of a user has left; it is no member any more.
pub(super) fn leave(room: &mut Room<Meeting>, id: &RoomId, user: &Arc<str>, owner: u64, now: u64) -> Moved {
    let stopped_typing = stop_typing(room, id, user, owner, now);
    let left = change(&mut room.state, user, |present| {
        present.devices = present.devices.saturating_sub(1);
        if present.devices == 0 {
            present.left_at = Some(now);
            return Moved { later: Later::Leave, ..NOTHING };
        }
        Moved { here: Some(present.here(user)), ..NOTHING }
    });
    Moved { stopped_typing, ..left.unwrap_or(NOTHING) }
}

/// Tells that a user has left, unless they are back, or have been back meanwhile. `here` is of those who have not.
pub(super) fn tell_leave(room: &mut Room<Meeting>, id: &RoomId, user: &Arc<str>, now: u64) -> Moved {
    let here = change(&mut room.state, user, |present| {
        let is_gone = present.devices == 0 && present.left_at.is_some_and(|left_at| now >= left_at + LEAVE_HOLD_MS);
        is_gone.then(|| {
            present.left_at = None;
            present.here(user)
        })
    });
    Moved { later: remove_absent(room, id, user, now), here: here.flatten(), stopped_typing: None }
}

/// Another instance tells of a user's sockets there.
pub(super) fn note_peer(room: &mut Room<Meeting>, id: &RoomId, peer: &Arc<str>, here: &Here, now: u64) -> Later {
    let note = |present: &mut Present| {
        present.peers.retain(|there| there.peer != *peer);
        if here.devices > 0 {
            let (peer, devices, since) = (Arc::clone(peer), here.devices, here.since);
            present.peers.push(There { peer, devices, since });
        }
    };
    if change(&mut room.state, &here.user, note).is_some() {
        return remove_absent(room, id, &here.user, now);
    }
    if here.devices == 0 {
        return Later::Nothing;
    }
    let mut present = Present {
        name: Arc::clone(&here.name),
        since_here: here.since,
        devices: 0,
        left_at: None,
        peers: Vec::new(),
        typing_until: 0,
    };
    note(&mut present);
    room.state.present.insert(Arc::clone(&here.user), present);
    tell_presence(room, id, "join", &here.user, &here.name, None, now)
}

/// Takes over who is at other instances, and drops who is there no more. Members are told who comes or
/// goes, unless it is to be `is_silent`.
pub(super) fn set_peers(
    room: &mut Room<Meeting>,
    id: &RoomId,
    theirs: &[(Arc<str>, Here)],
    is_silent: bool,
    now: u64,
) -> Vec<(Later, Arc<str>)> {
    let mut later = Vec::new();
    let kept: HashSet<(&str, &str)> = theirs.iter().map(|(peer, here)| (&**peer, &*here.user)).collect();
    let lost: Vec<_> = room
        .state
        .present
        .iter()
        .flat_map(|(user, present)| present.peers.iter().map(move |there| (user, there)))
        .filter(|(user, there)| !kept.contains(&(&*there.peer, &***user)))
        .map(|(user, there)| (Arc::clone(&there.peer), Arc::clone(user)))
        .collect();
    for (peer, user) in lost {
        let gone = Here { name: Arc::clone(&user), user, since: 0, devices: 0 };
        later.push((note_peer(room, id, &peer, &gone, now), gone.user));
    }
    for (peer, here) in theirs {
        if is_silent && !room.state.present.contains_key(&here.user) {
            let (name, since_here) = (Arc::clone(&here.name), here.since);
            let present = Present { name, since_here, devices: 0, left_at: None, peers: Vec::new(), typing_until: 0 };
            room.state.present.insert(Arc::clone(&here.user), present);
        }
        later.push((note_peer(room, id, peer, here, now), Arc::clone(&here.user)));
    }
    later
}

/// Another instance is gone, and all who were there.
pub(super) fn drop_peer(room: &mut Room<Meeting>, id: &RoomId, peer: &str, now: u64) -> Vec<(Later, Arc<str>)> {
    let is_there = |present: &Present| present.peers.iter().any(|there| &*there.peer == peer);
    let users: Vec<_> =
        room.state.present.iter().filter(|(_, present)| is_there(present)).map(|(user, _)| Arc::clone(user)).collect();
    let drop = |user: Arc<str>| {
        change(&mut room.state, &user, |present| present.peers.retain(|there| &*there.peer != peer));
        (remove_absent(room, id, &user, now), user)
    };
    users.into_iter().map(drop).collect()
}

/// Changes what is known of somebody who is present.
fn change<R>(meeting: &mut Meeting, user: &Arc<str>, change: impl FnOnce(&mut Present) -> R) -> Option<R> {
    let present = meeting.present.get_mut(user)?;
    let was_leaving = present.is_leaving();
    let result = change(present);
    meeting.leaving = meeting.leaving + usize::from(present.is_leaving()) - usize::from(was_leaving);
    Some(result)
}

/// Takes a user off who is nowhere any more.
fn remove_absent(room: &mut Room<Meeting>, id: &RoomId, user: &Arc<str>, now: u64) -> Later {
    let is_absent = |present: &Present| present.devices == 0 && present.left_at.is_none() && present.peers.is_empty();
    if !room.state.present.get(user).is_some_and(is_absent) {
        return Later::Nothing;
    }
    match room.state.present.remove(user) {
        Some(present) => {
            room.state.typing -= usize::from(present.typing_until > 0);
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

/// Returns the name of a user who was typing.
fn stop_typing(room: &mut Room<Meeting>, id: &RoomId, user: &str, owner: u64, now: u64) -> Option<Arc<str>> {
    if room.state.typing == 0 {
        return None;
    }
    let typing = room.state.present.get(user).map(|present| (present.typing_until, Arc::clone(&present.name)));
    match typing {
        Some((until, name)) if until > now => {
            tell_typing(room, id, (user, &name), owner, false, now);
            Some(name)
        }
        // It has lapsed by itself.
        _ => {
            forget_typing(room, user);
            None
        }
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

/// Takes the marks that have moved.
pub(super) fn take_receipts(meeting: &mut Meeting) -> Vec<(Arc<str>, u64)> {
    meeting.receipts_are_due = false;
    mem::take(&mut meeting.receipts)
}

/// Tells which marks have moved; in a large room to nobody but the reader's own sockets, which `owner_of` finds.
pub(super) fn tell_receipts(
    room: &mut Room<Meeting>,
    id: &RoomId,
    marks: Vec<(Arc<str>, u64)>,
    owner_of: impl Fn(&str) -> Option<u64>,
    now: u64,
) {
    let is_large = room.state.present.len() > RECEIPTS_MAX;
    for (user, seq) in marks {
        let receipt = ReadReceipt { meeting_id: id.as_str(), user_id: &user, seq, ts: now };
        let frame = event_frame_json(NAMESPACE, "read_receipt", &receipt);
        if !is_large {
            room.broadcast_volatile(&frame, None);
        } else if let Some(owner) = owner_of(&user) {
            room.tell_volatile(&frame, owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        outbox::Outbox,
        rooms::{self, Limits, Member, Rooms, Stay},
        store::Kind,
    };

    const NOW: u64 = 1_000_000;

    /// What a turn makes of a room with one member, and the packets that the member has been sent.
    fn in_room<R: Send + 'static>(turn: impl FnOnce(&mut Room<Meeting>) -> R + Send + 'static) -> (R, Vec<String>) {
        let limits = Limits { rooms: 1, members: 10, rooms_per_member: 1, waiting_turns: 10 };
        let rooms = Rooms::new(limits, |turns| turns());
        let outbox = Arc::new(Outbox::new(1 << 20));
        let member = Arc::new(Member::new(Arc::clone(&outbox), 1));
        let (tell, told) = rooms::answer();
        rooms.join(&id(), &member, Meeting::default, move |joined| {
            tell.send(turn(joined.unwrap().room));
            Stay::In
        });
        let result = smol::block_on(told).unwrap();
        let packets = outbox.take_all();
        (result, packets.iter().map(|frame| String::from_utf8_lossy(frame.payload()).into_owned()).collect())
    }

    fn id() -> RoomId {
        RoomId::new("m")
    }

    fn event(epoch: &str, seq: u64) -> LogEvent {
        LogEvent { kind: Kind::ChatMessage, epoch: epoch.into(), seq, json: format!("{{\"seq\":{seq}}}").into() }
    }

    fn seqs(packets: &[String]) -> Vec<u64> {
        let seq = |packet: &String| packet.split("\"seq\":").nth(1)?.trim_end_matches(['}', ']']).parse().ok();
        packets.iter().filter_map(seq).collect()
    }

    fn at(epoch: &str, seq: u64) -> Option<Position> {
        Some(Position { epoch: epoch.into(), seq })
    }

    #[test]
    fn events_are_delivered_once_and_in_their_order() {
        let (outcomes, packets) = in_room(|room| {
            room.state.position = at("e", 3);
            [4, 6, 4, 7, 3, 5, 8].map(|seq| deliver(room, event("e", seq), NOW))
        });
        use Delivered::{Before, Now};
        let early = Delivered::Not { is_other_life: false };
        assert_eq!(outcomes, [Now, early, Before, early, Before, Now, Now]);
        assert_eq!(seqs(&packets), [4, 5, 6, 7, 8]);
    }

    #[test]
    fn an_event_of_another_life_is_left_to_the_log() {
        let (outcome, packets) = in_room(|room| {
            room.state.position = at("e", 3);
            deliver(room, event("f", 4), NOW)
        });
        assert_eq!((outcome, packets.len()), (Delivered::Not { is_other_life: true }, 0));
    }

    #[test]
    fn early_events_are_bounded_and_the_log_has_the_others() {
        let (count, _) = in_room(|room| {
            room.state.position = at("e", 0);
            for seq in 2..EARLY_MAX as u64 + 10 {
                deliver(room, event("e", seq), NOW);
            }
            assert_eq!(room.state.last_known().map(|known| known.seq), Some(EARLY_MAX as u64 + 1));
            room.state.early.len()
        });
        assert_eq!(count, EARLY_MAX);
    }

    #[test]
    fn a_resync_tells_where_the_log_stands_and_keeps_what_comes_behind_it() {
        let (position, packets) = in_room(|room| {
            room.state.position = at("e", 3);
            deliver(room, event("e", 9), NOW);
            let top = Position { epoch: "e".into(), seq: 8 };
            resync(room, &id(), Reload::WindowExceeded, &Standing { top, first_seq: 6 });
            deliver(room, event("e", 10), NOW);
            let standing = room.state.position.clone();
            deliver(room, event("e", 9), NOW);
            standing
        });
        assert_eq!(position, at("e", 8));
        assert!(
            packets[0].contains(r#""reason":"window_exceeded","epoch":"e","top_seq":8,"first_seq":6"#),
            "{packets:?}"
        );
        assert_eq!(seqs(&packets[1..]), [9, 10]);
    }

    #[test]
    fn what_the_log_has_said_is_made_to_lead_to_where_the_room_stands() {
        let cases = [
            // The room; what the log said up to 5, with since 3 or without; the limit. Then the fit, and the events.
            ("at the top", at("e", 5), true, 9, Fit::Yes, &[4, 5][..], Some(Ok(()))),
            ("beyond it", at("e", 7), true, 9, Fit::Yes, &[4, 5, 6, 7], Some(Ok(()))),
            ("beyond it, and too many", at("e", 7), true, 3, Fit::Yes, &[], Some(Err(Missed::TooMany))),
            ("beyond it, the last ones", at("e", 7), false, 3, Fit::Yes, &[5, 6, 7], None),
            ("too far beyond it", at("e", 8), true, 9, Fit::TooLate, &[4, 5], Some(Ok(()))),
            ("behind it", at("e", 4), true, 9, Fit::RoomIsBehind, &[4, 5], Some(Ok(()))),
            ("in another life", at("f", 5), true, 9, Fit::OtherEpoch, &[4, 5], Some(Ok(()))),
            ("new", None, true, 9, Fit::Yes, &[4, 5], Some(Ok(()))),
        ];
        for (name, position, has_since, limit, fits, events, recovered) in cases {
            let ((fit, opened, stands), _) = in_room(move |room| {
                room.state.expect_joiner(NOW);
                room.state.position = at("e", 5);
                deliver(room, event("e", 6), NOW);
                deliver(room, event("e", 7), NOW);
                room.state.position = position;
                let mut opened = Opened {
                    epoch: "e".into(),
                    seq: 5,
                    first_seq: 1,
                    recovered: has_since.then_some(Ok(())),
                    events: vec![event("e", 4), event("e", 5)],
                };
                let fit = fit(room, &mut opened, limit);
                (fit, opened, room.state.position.clone())
            });
            assert_eq!(fit, fits, "{name}");
            assert_eq!(opened.events.iter().map(|event| event.seq).collect::<Vec<_>>(), events, "{name}");
            assert_eq!(opened.recovered, recovered, "{name}");
            if fit == Fit::Yes {
                assert_eq!(stands, at("e", opened.seq), "{name}: the answer ends where the room stands");
            }
        }
    }

    #[test]
    fn what_was_delivered_is_forgotten_when_nobody_joins_any_more() {
        let (counts, _) = in_room(|room| {
            room.state.position = at("e", 0);
            room.state.expect_joiner(NOW);
            let counts = [NOW, NOW + RECENT_MS - 1, NOW + RECENT_MS, NOW + RECENT_MS].iter().zip(1..);
            counts
                .map(|(now, seq)| (deliver(room, event("e", seq), *now), room.state.recent.len()).1)
                .collect::<Vec<_>>()
        });
        assert_eq!(counts, [1, 2, 0, 0]);
    }

    fn here(user: &str, devices: u32) -> Here {
        Here { user: user.into(), name: user.into(), since: NOW, devices }
    }

    #[test]
    fn a_user_is_here_as_long_as_any_instance_says_so() {
        let (told, packets) = in_room(|room| {
            let (a, b): (Arc<str>, Arc<str>) = ("inst-a".into(), "inst-b".into());
            let ann = Identity::anonymous("ann");
            let mut counts = Vec::new();
            let mut count = |room: &Room<Meeting>| counts.push((room.state.user_count(), room.state.shown_count()));
            enter(room, &id(), &ann, 1, NOW);
            note_peer(room, &id(), &a, &here("ann", 2), NOW);
            note_peer(room, &id(), &b, &here("bob", 1), NOW);
            count(room);
            let devices: Vec<_> = room.state.users(9).iter().map(|user| (user.id.to_string(), user.devices)).collect();
            // Gone here, and still at the other instance.
            leave(room, &id(), &"ann".into(), 1, NOW);
            assert_eq!(
                tell_leave(room, &id(), &"ann".into(), NOW + LEAVE_HOLD_MS).here,
                Some(Here { devices: 0, ..here("ann", 0) })
            );
            count(room);
            // That instance dies.
            drop_peer(room, &id(), "inst-a", NOW);
            count(room);
            // What was missed is made up for.
            set_peers(room, &id(), &[(b, here("cid", 1))], false, NOW);
            count(room);
            note_peer(room, &id(), &a, &here("nobody", 0), NOW);
            count(room);
            (counts, devices)
        });
        assert_eq!(told.0, [(2, 2), (2, 2), (1, 1), (1, 1), (1, 1)]);
        assert_eq!(told.1, [("ann".to_owned(), 3), ("bob".to_owned(), 1)]);
        let events: Vec<_> = packets
            .iter()
            .filter(|packet| packet.contains("presence_update"))
            .map(|packet| {
                (packet.contains("\"join\""), ["ann", "bob", "cid"].into_iter().find(|user| packet.contains(user)))
            })
            .collect();
        // The member is Ann's own: she is not told that she came.
        let expected = [(true, Some("bob")), (false, Some("ann")), (false, Some("bob")), (true, Some("cid"))];
        assert_eq!(events, expected);
    }

    #[test]
    fn who_is_held_back_and_comes_back_elsewhere_has_never_left() {
        let (counts, packets) = in_room(|room| {
            let a: Arc<str> = "inst-a".into();
            enter(room, &id(), &Identity::anonymous("ann"), 1, NOW);
            leave(room, &id(), &"ann".into(), 1, NOW);
            let held = room.state.user_count();
            note_peer(room, &id(), &a, &here("ann", 1), NOW + 5000);
            let back = room.state.user_count();
            tell_leave(room, &id(), &"ann".into(), NOW + LEAVE_HOLD_MS);
            (held, back, room.state.user_count())
        });
        assert_eq!((counts, packets.len()), ((0, 1, 1), 0));
    }

    #[test]
    fn users_elsewhere_are_counted_once() {
        let at = |peer: &str, here: Here| (Arc::from(peer), here);
        let theirs = [at("a", here("ann", 1)), at("b", here("ann", 2)), at("b", here("bob", 1))];
        let (count, users) = users_elsewhere(&theirs, 1);
        assert_eq!((count, users.len(), users[0].devices), (2, 1, 3));
    }
}
