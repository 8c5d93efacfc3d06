//! Being in a meeting: join, leave, presence, typing.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    adapter::rooms::{room_of_meeting, room_of_user},
    auth::{Right, access::AccessError},
    chat::{
        Chat, Error,
        command::{JoinRoom, LeaveRoom, Presence, Typing},
        error::Code,
        event::{self, Success, UserPresence, to_json},
        identity::doors_into,
        meeting::{self, Fit, Here, Meeting},
        messages::shorten,
        service::{Caller, Class, Nothing, Reply, busy, room_error},
    },
    rooms::{self, Joined, Stay},
    socket::{Event, Socket},
    store::{Missed, Open, Opened, Position, Standing, StoreError},
    types::RoomId,
};

/// What `join_room` asks for.
struct Join {
    meeting: RoomId,
    /// The id as it was sent.
    sent: Box<RawValue>,
    since: Option<Position>,
    limit: usize,
    wants_presence: bool,
}

/// Users that a join's ack names at most.
const PRESENCE_MAX: usize = 200;
/// How often a join is tried while what was asked for it changes.
const JOIN_ATTEMPTS: usize = 4;
/// How often a room is brought up to where the log was, for one join.
const ENTER_ATTEMPTS: usize = 4;

/// The ack of `join_room`.
#[derive(Serialize)]
struct JoinedAck<'a> {
    meeting_id: &'a RawValue,
    epoch: &'a str,
    seq: u64,
    first_seq: u64,
    members: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    events: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence: Option<Vec<UserPresence>>,
}

/// The ack of `leave_room`.
#[derive(Serialize)]
struct LeftAck {
    meeting_id: Box<RawValue>,
}

/// Answers when it is dropped: in the turn that takes the member out, or at once if there is nothing to leave.
struct LeftReply(Option<(Reply, LeftAck)>);

impl Drop for LeftReply {
    fn drop(&mut self) {
        if let Some((reply, ack)) = self.0.take() {
            reply.succeed(ack);
        }
    }
}

/// The ack of `get_presence`.
#[derive(Serialize, Debug)]
pub struct PresenceAnswer {
    count: usize,
    users: Vec<UserPresence>,
    truncated: bool,
}

/// What was asked before somebody joins.
struct Seen {
    /// Where the room stood before the log was asked, if there was one.
    room: Option<Position>,
    opened: Opened,
    /// Who is in the meeting at other instances.
    theirs: Vec<(Arc<str>, Here)>,
}

/// Why a join came to nothing, this time.
enum Refusal {
    /// What was asked before is not true any more: ask again.
    AskAgain,
    /// Events have to be delivered first that the log has shown already.
    RoomIsBehind(Box<Seen>),
    /// The log has begun anew, and members do not know yet.
    RoomIsOutdated(Standing),
    Error(Error),
}

impl Chat {
    pub(super) fn on_join(self: &Arc<Self>, socket: &Socket, event: Event<'_>) {
        let Some((caller, reply, payload)) = self.admit(socket, event, Class::Join) else { return };
        let Some(door) = caller.door.clone() else { return };
        let join = match JoinRoom::read(payload) {
            Ok(join) => join,
            Err(error) => return self.refuse_in_turn(&door, reply, error),
        };
        let join = Arc::new(Join {
            meeting: join.meeting.id,
            sent: join.meeting.sent.to_owned(),
            since: join.since,
            limit: join.limit,
            wants_presence: join.presence,
        });
        let chat = Arc::clone(self);
        self.step(&door, async move { chat.join(caller, join, reply).await });
    }

    async fn join(self: Arc<Self>, caller: Caller, join: Arc<Join>, mut reply: Reply) {
        for _ in 0..JOIN_ATTEMPTS {
            let mut seen = match self.open(&caller, &join).await {
                Ok(seen) => seen,
                Err(error) => return self.refuse(reply, &error),
            };
            // The log has been asked, and the room stands elsewhere: it may take a while until it is where the log was.
            for _ in 0..ENTER_ATTEMPTS {
                let refusal;
                (reply, refusal) = match self.enter(&caller, &join, seen, reply).await {
                    Some(refused) => refused,
                    None => return,
                };
                match refusal {
                    Refusal::Error(error) => return self.refuse(reply, &error),
                    Refusal::AskAgain => break,
                    Refusal::RoomIsBehind(same) => {
                        seen = *same;
                        self.repair(&join.meeting).await;
                    }
                    Refusal::RoomIsOutdated(standing) => {
                        self.reload(&join.meeting, standing);
                        break;
                    }
                }
                // One that has not joined yet keeps no room alive.
                if caller.door.as_ref().is_none_or(|door| door.is_closed()) {
                    return;
                }
            }
        }
        self.refuse(reply, &busy());
    }

    /// Asks the log for what somebody who joins gets. Also tells where the room stood before.
    ///
    /// # Errors
    /// They may not read it, or it cannot be asked.
    async fn open(self: &Arc<Self>, caller: &Caller, join: &Join) -> Result<Seen, Error> {
        self.require(caller, &join.meeting, Right::Read).await?;
        if let Some(cluster) = &self.cluster {
            // Before the log is asked: what is logged after that comes by the channel.
            let is_listening = cluster.listen(&join.meeting, self.now()).await;
            is_listening.map_err(|_| Error::unavailable("the other instances cannot be heard", 1000))?;
        }
        let now = self.now();
        let known = self.meetings.ask(&join.meeting, move |room| {
            room.state.expect_joiner(now);
            room.state.position().cloned()
        });
        let known = known.await.flatten();
        let open = Open {
            meeting: join.meeting.clone(),
            reader: Some(Arc::clone(&caller.user.id)),
            since: join.since.clone(),
            limit: join.limit,
            known: known.clone().or_else(|| self.known(&join.meeting)),
        };
        // Where nobody is yet, nobody has told who is elsewhere.
        let theirs =
            async { if known.is_none() { self.peers_in(&join.meeting).await.unwrap_or_default() } else { Vec::new() } };
        let (opened, theirs) = smol::future::zip(self.store.open(open, self.now()), theirs).await;
        let mut opened = opened.map_err(store_error)?;
        self.shorten(&mut opened);
        Ok(Seen { room: known, opened, theirs })
    }

    /// Puts a socket into a meeting, in one turn with the answer: what comes live comes after it. `None` if it is done, or
    /// nobody waits for an answer.
    async fn enter(
        self: &Arc<Self>,
        caller: &Caller,
        join: &Arc<Join>,
        seen: Seen,
        reply: Reply,
    ) -> Option<(Reply, Refusal)> {
        let member = Arc::clone(&caller.door.as_ref()?.client.member);
        let (tell, told) = rooms::answer();
        let (chat, caller, join) = (Arc::clone(self), caller.clone(), Arc::clone(join));
        let meeting = join.meeting.clone();
        let enter = move |joined: Result<Joined<'_, Meeting>, _>| {
            let refusal = match joined {
                Ok(joined) => match chat.admit_member(joined, &caller, &join, seen) {
                    Ok(ack) => {
                        reply.succeed_raw(&ack);
                        return Stay::In;
                    }
                    Err(refusal) => refusal,
                },
                Err(error) => match room_error(error, &chat.settings) {
                    Some(error) => Refusal::Error(error),
                    None => return Stay::Out,
                },
            };
            tell.send((reply, refusal));
            Stay::Out
        };
        self.meetings.join(&meeting, &member, Meeting::default, enter);
        told.await
    }

    /// In the room's turn: whoever joins is one more of those here, and gets what the log has up to where the room stands.
    fn admit_member(
        self: &Arc<Self>,
        joined: Joined<'_, Meeting>,
        caller: &Caller,
        join: &Join,
        seen: Seen,
    ) -> Result<Box<RawValue>, Refusal> {
        let Seen { room: known, mut opened, theirs } = seen;
        let (identity, now, room) = (&caller.identity, self.now(), joined.room);
        // It may have been taken away since it was asked for.
        if !matches!(self.access.right_now(identity, join.meeting.as_str(), now), Some(Ok(Some(_)))) {
            return Err(Refusal::AskAgain);
        }
        let is_visible = !identity.is_service;
        if is_visible
            && room.state.user_count() >= self.settings.users_per_room
            && !room.state.has_user(&caller.user.id)
        {
            let error = Error::new(Code::RoomFull, format!("expected at most {} users", self.settings.users_per_room));
            return Err(Refusal::Error(error));
        }
        let is_new_room = room.state.position().is_none();
        match meeting::fit(room, &mut opened, join.limit) {
            Fit::Yes => {}
            Fit::RoomIsBehind => return Err(Refusal::RoomIsBehind(Box::new(Seen { room: known, opened, theirs }))),
            Fit::TooLate => return Err(Refusal::AskAgain),
            Fit::OtherEpoch if room.state.epoch() == known.as_ref().map(|known| &known.epoch) => {
                // The room has not moved to another life since before the log was asked: the log has.
                let top = Position { epoch: opened.epoch, seq: opened.seq };
                return Err(Refusal::RoomIsOutdated(Standing { top, first_seq: opened.first_seq }));
            }
            Fit::OtherEpoch => return Err(Refusal::AskAgain),
        }
        self.shorten(&mut opened);
        if joined.is_new {
            let entered = meeting::enter(room, &join.meeting, identity, caller.user.number, now);
            self.moved(entered, &join.meeting, &caller.user.id);
        }
        if is_new_room {
            self.opened_room(&join.meeting, &opened);
            // Nobody but the new member is here to be told.
            meeting::set_peers(room, &join.meeting, &theirs, true, now);
        }
        let users = if join.wants_presence { room.state.users(PRESENCE_MAX) } else { Vec::new() };
        Ok(ack(room.state.user_count(), users, opened, join))
    }

    /// Leaves out what would be too long for one answer: all of it after a `since`, else the oldest events.
    fn shorten(&self, opened: &mut Opened) {
        let max_bytes = self.settings.answer_max_bytes;
        if opened.recovered.is_none() {
            shorten(&mut opened.events, false, max_bytes, |event| event.json.len());
        } else if opened.events.iter().map(|event| event.json.len()).sum::<usize>() > max_bytes {
            opened.recovered = Some(Err(Missed::TooMany));
            opened.events.clear();
        }
    }

    pub(super) fn on_leave(self: &Arc<Self>, socket: &Socket, event: Event<'_>) {
        let Some((caller, reply, payload)) = self.admit(socket, event, Class::Join) else { return };
        let Some(door) = caller.door else { return };
        let leave = match LeaveRoom::read(payload) {
            Ok(leave) => leave,
            Err(error) => return self.refuse_in_turn(&door, reply, error),
        };
        let id = leave.meeting.id;
        let left = LeftReply(Some((reply, LeftAck { meeting_id: leave.meeting.sent.to_owned() })));
        let (chat, door_too) = (Arc::clone(self), door.clone());
        self.step(&door, async move {
            let (leaving, room_id, user) = (Arc::clone(&chat), id.clone(), caller.user);
            chat.meetings.leave(&id, &door_too.client.member, move |room| {
                leaving.has_left(room, &room_id, &user);
                // In the turn: events that were on their way come before the answer, and none comes after it.
                drop(left);
            });
        });
    }

    pub(super) fn on_typing(self: &Arc<Self>, socket: &Socket, event: Event<'_>) {
        let Some((caller, reply, payload)) = self.admit(socket, event, Class::Event) else { return };
        let Some(door) = caller.door.clone() else { return };
        let typing = match Typing::read(payload) {
            Ok(typing) => typing,
            Err(error) => return self.refuse_in_turn(&door, reply, error),
        };
        if caller.user.buckets.typing.take(self.settings.rates.typing, 1, self.now()).is_err() {
            // Nothing is lost: the next one says the same.
            return reply.succeed(Nothing {});
        }
        let chat = Arc::clone(self);
        self.step(&door, async move {
            let id = typing.meeting;
            let allowed = match chat.require_joined(&caller, &id).await {
                Ok(()) => chat.require(&caller, &id, Right::Write).await,
                Err(error) => Err(error),
            };
            // Rights that cannot be checked for the moment are what they were when the meeting was joined.
            let allowed = allowed.map(|_| ()).or_else(|error| match error.code {
                Code::Unavailable => Ok(()),
                _ => Err(error),
            });
            if let Err(error) = allowed {
                return chat.refuse(reply, &error);
            }
            let (now, active) = (chat.now(), typing.active);
            chat.tell_typing_elsewhere(&id, &caller.user.id, &caller.identity.name, active);
            chat.in_room(&id.clone(), move |room| {
                let typist = (&*caller.user.id, &*caller.identity.name);
                meeting::tell_typing(room, &id, typist, caller.user.number, active, now);
            });
            reply.succeed(Nothing {});
        });
    }

    /// Tells other instances what [`meeting::tell_typing`] tells here.
    pub(super) fn tell_typing_elsewhere(&self, id: &RoomId, user: &str, name: &str, active: bool) {
        let Some(cluster) = &self.cluster else { return };
        let (meeting_id, expires_in_ms) = (id.as_str(), meeting::TYPING_MS);
        let typing = to_json(&event::Typing { meeting_id, user_id: user, name, active, expires_in_ms });
        let (room, typist) = (room_of_meeting(id.as_str()), room_of_user(user));
        cluster.emit_elsewhere(&[&room], &[&typist], "typing", &typing, true);
    }

    /// Who is in a meeting.
    ///
    /// # Errors
    /// Who asks may not read it.
    pub async fn presence(self: Arc<Self>, caller: Caller, presence: Presence) -> Result<PresenceAnswer, Error> {
        self.require(&caller, &presence.meeting, Right::Read).await?;
        let limit = presence.limit;
        let there =
            self.meetings.ask(&presence.meeting, move |room| (room.state.shown_count(), room.state.users(limit)));
        let (count, users) = match there.await {
            Some(there) => there,
            // Nobody is here; they may be elsewhere.
            None => meeting::users_elsewhere(&self.peers_in(&presence.meeting).await.unwrap_or_default(), limit),
        };
        Ok(PresenceAnswer { count, truncated: users.len() < count, users })
    }

    /// Whether the caller has a right in a meeting.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `unavailable`.
    pub(super) async fn require(
        self: &Arc<Self>,
        caller: &Caller,
        meeting: &RoomId,
        needed: Right,
    ) -> Result<Right, Error> {
        let now = self.now();
        let right = match self.access.right_now(&caller.identity, meeting.as_str(), now) {
            Some(right) => right,
            None => {
                let right = self.access.right(&caller.identity, meeting.as_str(), now).await;
                // Much may happen to a client while somebody is asked.
                if caller.door.as_ref().is_some_and(|door| door.is_closed()) {
                    return Err(Error::new(Code::Unauthorized, "the connection has been closed"));
                }
                right
            }
        };
        match right {
            Ok(Some(right)) if right >= needed => Ok(right),
            Ok(right) => {
                if right.is_none() {
                    self.put_out_whoever_may_not(caller, meeting, now);
                }
                Err(Error::new(Code::Forbidden, format!("expected the right to {} here", needed.as_str())))
            }
            Err(AccessError::NoMeeting) => Err(Error::new(Code::NotFound, "no such meeting")),
            Err(AccessError::Unavailable { retry_after_ms }) => {
                Err(Error::unavailable("rights cannot be checked just now", retry_after_ms))
            }
        }
    }

    /// A right has been lost since it was checked at a join: takes those sockets of the user out whose own tokens do not
    /// give it either.
    fn put_out_whoever_may_not(self: &Arc<Self>, caller: &Caller, meeting: &RoomId, now: u64) {
        for door in doors_into(&caller.user, meeting) {
            let right = self.access.right_now(&door.client.identity(), meeting.as_str(), now);
            if matches!(right, Some(Ok(None))) {
                self.put_out(meeting, &door, "forbidden");
            }
        }
    }

    /// Whether a caller who came by a socket has joined a meeting with it.
    ///
    /// # Errors
    /// `not_joined`; or `room_closed` to whoever may read it: nobody is in a meeting that was closed.
    pub(super) async fn require_joined(&self, caller: &Caller, meeting: &RoomId) -> Result<(), Error> {
        match &caller.door {
            Some(door) if !door.client.member.is_in(meeting.as_str()) => {
                let now = self.now();
                let is_closed = matches!(self.store.closes_at(meeting, now).await, Ok(Some(at)) if at <= now);
                let right = self.access.right(&caller.identity, meeting.as_str(), now);
                if is_closed && matches!(right.await, Ok(Some(_))) {
                    return Err(store_error(StoreError::Closed));
                }
                Err(Error::new(Code::NotJoined, "join the meeting before sending to it"))
            }
            _ => Ok(()),
        }
    }
}

/// The ack of `join_room`, as JSON: it outlives what it borrows from its turn.
fn ack(members: usize, users: Vec<UserPresence>, opened: Opened, join: &Join) -> Box<RawValue> {
    let ack = Success::new(JoinedAck {
        meeting_id: &join.sent,
        epoch: &opened.epoch,
        seq: opened.seq,
        first_seq: opened.first_seq,
        members,
        recovered: opened.recovered.map(|recovered| recovered.is_ok()),
        events: event::items(&opened.events),
        reason: opened.recovered.and_then(Result::err).map(|missed| match missed {
            Missed::Epoch => "epoch",
            Missed::Window => "window",
            Missed::TooMany => "too_many",
        }),
        presence: join.wants_presence.then_some(users),
    });
    to_raw_value(&ack).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// What a store's refusal is to clients.
pub(super) fn store_error(error: StoreError) -> Error {
    let (code, message) = match error {
        StoreError::NoMessage => (Code::NotFound, "no such message in the log"),
        StoreError::NoReplyTarget => (Code::NotFound, "reply_to: no such message in the log"),
        StoreError::NotAllowed => (Code::Forbidden, "expected one's own message, to edit not older than 24 hours"),
        StoreError::Deleted => (Code::Conflict, "the message was deleted"),
        StoreError::ClientIdReused => (Code::Conflict, "client_id: was used for another text"),
        StoreError::Closed => (Code::RoomClosed, "the meeting is closed, and can only be read"),
        StoreError::TooManyReactions => (Code::LimitReached, "expected at most 20 different emoji on a message"),
        StoreError::EpochDiffers => (Code::Conflict, "epoch: the log has begun anew"),
        StoreError::Broken => (Code::Internal, "what is kept of it cannot be used"),
        StoreError::Unavailable { retry_after_ms } => return Error::unavailable("the log is away", retry_after_ms),
    };
    Error::new(code, message)
}
