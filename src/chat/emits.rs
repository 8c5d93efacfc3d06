//! Events that other servers and services emit to sockets, and what else they may do with these.
//!
//! A room of theirs is a meeting (those who have joined it here), `user:<id>` (a user's sockets), a socket's id, or a room
//! that other servers have put sockets into. The last are no meetings: whoever is put into one of a meeting's name has not
//! joined that meeting, and sees nothing of its log.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, MutexGuard, PoisonError},
};

use crate::{
    adapter::{
        Event,
        classic::Selection,
        rooms::{USER, meeting_of_room, room_of_meeting, room_of_user},
    },
    chat::{
        Chat,
        meeting::Meeting,
        service::{NAMESPACE, client},
    },
    cluster::Emit,
    outbox::Frame,
    rooms::Room,
    socket::{Socket, binary_event_frames, event_frame, is_reserved_event},
    types::{RoomId, SocketId},
};

/// Sockets in rooms that are no meetings.
#[derive(Default)]
pub(super) struct PlainRooms {
    rooms: HashMap<Box<str>, HashSet<SocketId>>,
    /// The same, by socket.
    sockets: HashMap<SocketId, HashSet<Box<str>>>,
    /// How many that are.
    places: usize,
}

/// Places in rooms that are no meetings, in this process. Of more, none is taken.
const PLACES_MAX: usize = 100_000;

impl Chat {
    /// Brings an event that somebody else emits to the sockets it is for.
    pub(super) fn pass_on(self: &Arc<Self>, emit: Emit) {
        if is_reserved_event(&emit.event.name) {
            return self.could_not_read("an event", "a name that is reserved");
        }
        if let Some(answers) = &emit.ack {
            return self.ask_clients(&emit, answers);
        }
        let Emit { rooms, except, event, is_volatile, .. } = emit;
        let frames: Arc<[Frame]> = frames(&event).into();
        if let ([room], Some(except)) = (&rooms[..], self.owner_left_out(&except))
            && !room.starts_with(USER)
            && !self.plain_rooms().rooms.contains_key(room.as_str())
            && !self.names_socket(room)
        {
            // By far the most: to everybody in a meeting.
            let Some(meeting) = meeting_of_room(room) else { return };
            self.in_room(&RoomId::new(meeting), move |room: &mut Room<Meeting>| {
                if is_volatile && let [frame] = &*frames {
                    room.broadcast_volatile(frame, except);
                } else {
                    room.broadcast_all(&frames, except);
                }
            });
            return;
        }
        for socket in self.select(&Selection { rooms, except }) {
            match &*frames {
                [frame] if is_volatile => _ = socket.outbox().push_volatile(frame.clone()),
                frames => _ = socket.emit_frames(frames),
            }
        }
    }

    /// The one user who is left out, as rooms know them, if all that is left out is one user here, or nobody.
    fn owner_left_out(&self, except: &[String]) -> Option<Option<u64>> {
        match except {
            [] => Some(None),
            [room] => {
                let user = room.strip_prefix(USER)?;
                // Of somebody who is not here nobody has to be left out.
                Some(self.users.find(user).map(|user| user.number))
            }
            _ => None,
        }
    }

    /// Whether a room's name is that of a socket, here or elsewhere.
    fn names_socket(&self, room: &str) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.names_socket(room))
    }

    /// The sockets here that are in one of the rooms, and in none of the excepted ones.
    pub(super) fn select(&self, selection: &Selection) -> Vec<Socket> {
        let Selection { rooms, except } = selection;
        let candidates = match &rooms[..] {
            [room] if room.starts_with(USER) => {
                let user = room.strip_prefix(USER).and_then(|user| self.users.find(user));
                user.map(|user| user.sockets()).unwrap_or_default()
            }
            _ => self.sockets(),
        };
        let plain = self.plain_rooms();
        let is_in_any = |socket: &Socket, rooms: &[String]| {
            let Some(client) = client(socket) else { return false };
            rooms.iter().any(|room| {
                room.strip_prefix(USER).is_some_and(|user| *user == *client.user.id)
                    || room == socket.id().as_str()
                    || meeting_of_room(room)
                        .is_some_and(|meeting| client.member.is_in(meeting) && !self.names_socket(room))
                    || plain.rooms.get(room.as_str()).is_some_and(|sockets| sockets.contains(socket.id()))
            })
        };
        let is_meant = |socket: &Socket| (rooms.is_empty() || is_in_any(socket, rooms)) && !is_in_any(socket, except);
        candidates.into_iter().filter(is_meant).collect()
    }

    /// Puts sockets into a room that is no meeting, and listens to its channel.
    pub(super) fn join_plain(self: &Arc<Self>, sockets: &[Socket], rooms: &[String]) {
        let Some(cluster) = self.cluster.clone() else { return };
        {
            let mut plain = self.plain_rooms();
            for (socket, room) in sockets.iter().flat_map(|socket| rooms.iter().map(move |room| (socket, room))) {
                plain.add(socket.id(), room);
            }
        }
        // One that ended meanwhile would stay for ever.
        for socket in sockets.iter().filter(|socket| !socket.is_connected()) {
            self.leave_plain_rooms(socket);
        }
        let (rooms, chat) = (rooms.to_vec(), Arc::clone(self));
        self.run(async move {
            for room in rooms {
                if let Some(meeting) = meeting_of_room(&room) {
                    // If it fails, it is tried again with the next look at all of them.
                    let _ = cluster.listen(&RoomId::new(meeting), chat.now()).await;
                }
            }
        });
    }

    /// Makes sure that rooms which are no meetings are listened to.
    pub(super) async fn listen_for_plain_rooms(&self) {
        let Some(cluster) = &self.cluster else { return };
        let rooms: Vec<Box<str>> = self.plain_rooms().rooms.keys().map(|room| room.as_ref().into()).collect();
        for meeting in rooms.iter().filter_map(|room| meeting_of_room(room)) {
            cluster.listen_still(&RoomId::new(meeting), self.now()).await;
        }
    }

    /// Takes sockets out of rooms that are no meetings.
    pub(super) fn leave_plain(&self, sockets: &[Socket], rooms: &[String]) {
        let mut plain = self.plain_rooms();
        for (socket, room) in sockets.iter().flat_map(|socket| rooms.iter().map(move |room| (socket, room))) {
            plain.remove(socket.id(), room);
        }
    }

    /// A socket has ended.
    pub(super) fn leave_plain_rooms(&self, socket: &Socket) {
        let mut plain = self.plain_rooms();
        let rooms = plain.sockets.get(socket.id()).cloned().unwrap_or_default();
        for room in rooms {
            plain.remove(socket.id(), &room);
        }
    }

    /// Empties a room that is no meeting.
    pub(super) fn close_plain(&self, room: &str) {
        let mut plain = self.plain_rooms();
        for socket in plain.rooms.get(room).cloned().unwrap_or_default() {
            plain.remove(&socket, room);
        }
    }

    /// All rooms a socket is in, as other servers name them.
    pub(super) fn rooms_of(&self, socket: &Socket) -> Vec<String> {
        let mut rooms = vec![socket.id().to_string()];
        if let Some(client) = client(socket) {
            rooms.push(room_of_user(&client.user.id));
            rooms.extend(client.member.rooms().iter().map(|room| room_of_meeting(room.as_str()).into_owned()));
        }
        let plain = self.plain_rooms();
        rooms.extend(plain.sockets.get(socket.id()).into_iter().flatten().map(|room| room.to_string()));
        rooms
    }

    /// Whether somebody here listens to a room's channel for being in it.
    pub(super) fn has_plain_room(&self, room: &str) -> bool {
        self.plain_rooms().rooms.contains_key(room)
    }

    fn plain_rooms(&self) -> MutexGuard<'_, PlainRooms> {
        self.plain_rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PlainRooms {
    fn add(&mut self, socket: &SocketId, room: &str) {
        if self.places >= PLACES_MAX {
            return;
        }
        self.places += usize::from(self.rooms.entry(room.into()).or_default().insert(socket.clone()));
        self.sockets.entry(socket.clone()).or_default().insert(room.into());
    }

    fn remove(&mut self, socket: &SocketId, room: &str) {
        if let Some(sockets) = self.rooms.get_mut(room) {
            self.places -= usize::from(sockets.remove(socket));
            if sockets.is_empty() {
                self.rooms.remove(room);
            }
        }
        if let Some(rooms) = self.sockets.get_mut(socket) {
            rooms.remove(room);
            if rooms.is_empty() {
                self.sockets.remove(socket);
            }
        }
    }
}

/// An event as its frames: one, and one for each attachment.
fn frames(event: &Event<'_>) -> Vec<Frame> {
    if event.args.attachments.is_empty() {
        vec![event_frame(NAMESPACE, &event.name, &event.args.json)]
    } else {
        binary_event_frames(NAMESPACE, &event.name, &event.args.json, &event.args.attachments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_plain_rooms_are_bounded_and_given_back() {
        let socket = |number: usize| SocketId::new(number.to_string());
        let mut plain = PlainRooms::default();
        for number in 0..PLACES_MAX {
            plain.add(&socket(number), "promo");
            // Twice is once.
            plain.add(&socket(number), "promo");
        }
        assert_eq!((plain.places, plain.rooms["promo"].len()), (PLACES_MAX, PLACES_MAX), "exactly full");
        plain.add(&socket(PLACES_MAX), "promo");
        assert_eq!((plain.places, plain.sockets.len()), (PLACES_MAX, PLACES_MAX), "one past it is not taken");
        plain.remove(&socket(0), "promo");
        plain.remove(&socket(0), "promo");
        plain.add(&socket(PLACES_MAX), "other");
        assert_eq!((plain.places, plain.rooms.len()), (PLACES_MAX, 2));
        plain.remove(&socket(PLACES_MAX), "other");
        assert_eq!((plain.places, plain.rooms.len(), plain.sockets.len()), (PLACES_MAX - 1, 1, PLACES_MAX - 1));
    }
}
