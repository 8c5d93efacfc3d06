//! The chat among others: what instances tell one another, and what it hears from them.
//!
//! Logged events come with their place in the log. All else is a note, or an event that somebody emits to sockets.

use std::{
    collections::HashSet,
    pin::Pin,
    sync::{Arc, PoisonError, Weak, atomic::Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    adapter::{classic::Request, python::Method},
    auth::Identity,
    chat::{
        Chat, Error,
        delivery::Origin,
        event::to_json,
        job::Job,
        meeting::{self, Here, LEAVE_HOLD_MS, Moved},
        service::{Door, client},
        service_command::{Revoke, Subject},
    },
    cluster::{Deliver, Emit, RedisState},
    metrics::RedisGauges,
    socket::Socket,
    store::{Failures, LogEvent, Opened, Position, Usage},
    types::RoomId,
};

/// The chat, as the cluster sees it. Deaf when the chat is gone.
pub struct Peers(Weak<Chat>);

/// What instances tell one another. One that does not know a note drops it.
#[derive(Serialize, Deserialize, Debug)]
#[serde(tag = "note", rename_all = "snake_case")]
pub(super) enum Note {
    /// A user's sockets in a meeting, at the instance that tells it.
    Here { user: Arc<str>, name: Arc<str>, since: u64, devices: u32 },
    /// Marks have moved in a meeting.
    Receipts { marks: Vec<(Arc<str>, u64)> },
    /// What is unread of these users has changed.
    Unread { users: Vec<Arc<str>> },
    /// A message mentions a user, or answers theirs, who may read it if they are where this is heard.
    Mentioned { meeting: Box<str>, user: Arc<str>, id: Box<str>, json: Box<str> },
    /// A right may have changed.
    Forget { user: Arc<str>, meeting: Box<str> },
    /// A user has to leave a meeting.
    PutOut { meeting: Box<str>, user: Arc<str> },
    /// Everybody has to leave a meeting.
    Empty { meeting: Box<str> },
    /// Sockets have to be closed.
    Disconnect { subject: String },
    /// Tokens are good no more.
    Revoke { subject: String, before: Option<u64> },
    /// The instance has begun, or is back.
    Hello,
    /// The instance ends. Its users come back elsewhere.
    Bye,
}

/// A user's sockets, as they are kept for others to find.
#[derive(Serialize, Deserialize)]
struct Present {
    user: Arc<str>,
    name: Arc<str>,
    since: u64,
    devices: u32,
}

impl Present {
    fn of(here: Here) -> Self {
        let Here { user, name, since, devices } = here;
        Self { user, name, since, devices }
    }
}

/// Users that one note names.
const USERS_PER_NOTE: usize = 200;

impl Peers {
    /// What the cluster delivers to.
    pub fn new(chat: &Arc<Chat>) -> Arc<Self> {
        Arc::new(Self(Arc::downgrade(chat)))
    }

    fn chat(&self) -> Option<Arc<Chat>> {
        self.0.upgrade()
    }
}

impl Deliver for Peers {
    fn logged(&self, meeting: RoomId, event: LogEvent) {
        if let Some(chat) = self.chat() {
            chat.deliver(&meeting, event, Origin::Elsewhere);
        }
    }

    fn emit(&self, emit: Emit) {
        if let Some(chat) = self.chat() {
            chat.pass_on(emit);
        }
    }

    fn note(&self, peer: &Arc<str>, meeting: Option<RoomId>, note: &str) {
        let Some(chat) = self.chat() else { return };
        // A later version may say more.
        let Ok(note) = serde_json::from_str::<Note>(note) else { return };
        chat.heed(peer, meeting, note);
    }

    fn request(&self, request: Request) {
        if let Some(chat) = self.chat() {
            chat.answer_server(request);
        }
    }

    fn python(&self, method: Method<'_>) {
        if let Some(chat) = self.chat() {
            chat.do_for_python(method);
        }
    }

    fn update(&self, json: &str) {
        if let Some(chat) = self.chat() {
            chat.queue_update(json);
        }
    }

    fn kept_update(&self, json: String, at: u64) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let chat = self.chat();
        Box::pin(async move {
            let Some(chat) = chat else { return false };
            chat.take_in(&json, at).await
        })
    }

    fn auth_event(&self, json: &str) {
        let Some(chat) = self.chat() else { return };
        match Revoke::read_event(json) {
            Ok(revoke) => {
                // Here at once, however long it takes to keep it for others.
                chat.revoke_here(revoke.clone());
                chat.run({
                    let chat = Arc::clone(&chat);
                    async move {
                        if chat.keep_revocation(&revoke).await.is_err() {
                            chat.warn("a revocation is not kept for instances that begin later");
                        }
                    }
                });
            }
            Err(error) => chat.could_not_read("auth_events", &error.message),
        }
    }

    fn lost_peers(&self, peers: Vec<Arc<str>>) {
        let Some(chat) = self.chat() else { return };
        for peer in peers {
            log::info!("instance {peer} is gone");
            chat.drop_peer(&peer);
        }
    }

    fn check(&self) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let chat = self.chat();
        Box::pin(async move {
            let Some(chat) = chat else { return false };
            chat.check_meetings().await
        })
    }

    fn look_around(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let chat = self.chat();
        Box::pin(async move {
            if let Some(chat) = chat {
                chat.look_around().await;
            }
        })
    }

    fn note_again(&self) {
        if let Some(chat) = self.chat() {
            chat.run({
                let chat = Arc::clone(&chat);
                async move {
                    chat.note_present_again().await;
                    if !chat.catch_up().await {
                        chat.recheck_revoked().await;
                    }
                }
            });
        }
    }

    fn heard_again(&self, silent_for: Duration) {
        let Some(chat) = self.chat() else { return };
        chat.run({
            let chat = Arc::clone(&chat);
            async move {
                chat.note_silence(silent_for);
                _ = chat.catch_up().await;
            }
        });
    }

    fn beat(&self) {
        if let Some(chat) = self.chat() {
            chat.remind();
        }
    }
}

impl Chat {
    /// How it stands with Redis.
    pub fn redis_state(&self) -> RedisState {
        self.cluster.as_ref().map_or(RedisState::Disabled, |cluster| cluster.state())
    }

    /// The same in numbers, if there is one.
    pub fn redis_gauges(&self) -> Option<RedisGauges> {
        let cluster = self.cluster.as_ref()?;
        let Usage { pending, failures, .. } = self.store.usage();
        let Failures { away, full, unknown, not_replicated, refused, malformed } = failures;
        let refused = [away, full, unknown, not_replicated, refused, malformed];
        Some(RedisGauges { pending: pending as u64, refused, ..cluster.gauges() })
    }

    /// The last event that this instance knows of a meeting; nothing if it is alone.
    pub(super) fn known(&self, meeting: &RoomId) -> Option<Position> {
        self.cluster.as_ref()?.known(meeting)
    }

    /// Something that others have said makes no sense.
    pub(super) fn could_not_read(&self, what: &str, why: &str) {
        if let Some(cluster) = &self.cluster {
            cluster.could_not_read(what, why);
        }
    }

    /// Says in the log that something went wrong with the other instances, unless something did lately.
    fn warn(&self, what: &str) {
        if let Some(cluster) = &self.cluster {
            cluster.warn(|| log::warn!("{what}"));
        }
    }

    pub(super) fn tell(&self, meeting: Option<&RoomId>, note: &Note) {
        if let Some(cluster) = &self.cluster {
            cluster.tell(meeting, &to_json(note));
        }
    }

    /// Tells all other instances something that none may miss.
    ///
    /// # Errors
    /// `unavailable`
    pub(super) async fn tell_surely(&self, note: &Note) -> Result<(), Error> {
        match &self.cluster {
            Some(cluster) => cluster
                .tell_surely(&to_json(note))
                .await
                .map_err(|_| Error::unavailable("the other instances cannot be told", TELL_RETRY_MS)),
            None => Ok(()),
        }
    }

    /// Channels have been silent, and stand again.
    fn note_silence(&self, silent_for: Duration) {
        let silent_ms = u64::try_from(silent_for.as_millis()).unwrap_or(u64::MAX);
        // A connection is silent for a while before that is noticed.
        let since = self.now().saturating_sub(silent_ms).saturating_sub(UNNOTICED_MS);
        let mut silent_since = self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        *silent_since = Some(silent_since.map_or(since, |known| known.min(since)));
    }

    /// Heeds what could not be heard, and looks at what may have changed meanwhile: as soon as that can be asked for, which may
    /// be later than that channels stand, and is tried again then. False if there was nothing, or not yet.
    async fn catch_up(self: &Arc<Self>) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let silent_since = || *self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        let told = loop {
            let Some(since) = silent_since() else { return false };
            if !cluster.is_admitted() {
                return false;
            }
            match cluster.told_since(since).await {
                Some(told) => break told,
                None => self.sleep(CATCH_UP_PAUSE_MS).await,
            }
        };
        *self.silent_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
        for (peer, note) in told {
            if let Ok(note) = serde_json::from_str(&note) {
                self.heed(&peer, None, note);
            }
        }
        self.check_meetings().await;
        self.look_around().await;
        self.recheck_revoked().await;
        self.recheck_rights().await;
        // Notifications may have come meanwhile.
        for user in self.users.all() {
            self.unread_changed(&user, None);
        }
        true
    }

    fn heed(self: &Arc<Self>, peer: &Arc<str>, meeting: Option<RoomId>, note: Note) {
        match (note, meeting) {
            (Note::Here { user, name, since, devices }, Some(id)) => {
                let (chat, peer, here) = (Arc::clone(self), Arc::clone(peer), Here { user, name, since, devices });
                self.in_room(&id.clone(), move |room| {
                    let later = meeting::note_peer(room, &id, &peer, &here, chat.now());
                    chat.put_off(later, &id, &here.user);
                });
            }
            (Note::Receipts { marks }, Some(id)) => {
                let chat = Arc::clone(self);
                self.in_room(&id.clone(), move |room| {
                    let owner_of = |user: &str| Some(chat.users.find(user)?.number);
                    meeting::tell_receipts(room, &id, marks, owner_of, chat.now());
                });
            }
            (Note::Unread { users }, _) => {
                for user in users.iter().filter_map(|user| self.users.find(user)) {
                    self.unread_changed(&user, None);
                }
            }
            (Note::Mentioned { meeting, user, id, json }, _) => {
                self.heed_mention(RoomId::new(&meeting), user, id, json);
            }
            (Note::Forget { user, meeting }, _) => self.access.forget(&user, Some(&meeting)),
            (Note::PutOut { meeting, user }, _) => {
                self.access.forget(&user, Some(&meeting));
                self.put_user_out(&RoomId::new(&meeting), &user, "removed");
            }
            (Note::Empty { meeting }, _) => _ = self.empty(&RoomId::new(&meeting)),
            (Note::Disconnect { subject }, _) => {
                if let Some(subject) = named(&subject) {
                    self.disconnect_here(&subject);
                }
            }
            (Note::Revoke { subject, before }, _) => {
                if let Some(subject) = named(&subject) {
                    self.revoke_here(Revoke { subject, before });
                }
            }
            (Note::Bye, _) => {
                if let Some(cluster) = &self.cluster {
                    cluster.peer_ends(peer);
                }
                // Its users come back elsewhere, and are not to be seen leaving.
                self.schedule.add(self.now() + LEAVE_HOLD_MS, Job::DropPeer(Arc::clone(peer)));
            }
            // Who tells something is known to be there.
            (Note::Hello | Note::Here { .. } | Note::Receipts { .. }, _) => {}
        }
    }

    /// A user's sockets here have changed in a meeting: puts off what that leads to, and tells the others.
    pub(super) fn moved(&self, moved: Moved, id: &RoomId, user: &Arc<str>) {
        self.put_off(moved.later, id, user);
        if let Some(name) = &moved.stopped_typing {
            self.tell_typing_elsewhere(id, user, name, false);
        }
        if let (Some(here), Some(_)) = (moved.here, &self.cluster) {
            self.note_present(id, here, true);
        }
    }

    fn note_present(&self, id: &RoomId, here: Here, is_news: bool) {
        let Some(cluster) = &self.cluster else { return };
        let present = (here.devices > 0).then(|| to_json(&Present::of(here.clone())));
        let Here { user, name, since, devices } = here;
        let note = is_news.then(|| to_json(&Note::Here { user: Arc::clone(&user), name, since, devices }));
        cluster.note_present(id, &user, present.as_deref(), note.as_deref());
    }

    /// A user has no socket in a meeting here for long enough, and the room may be gone with them.
    pub(super) fn has_gone(&self, id: &RoomId, user: &Arc<str>) {
        let (user, name) = (Arc::clone(user), Arc::clone(user));
        self.note_present(id, Here { user, name, since: 0, devices: 0 }, true);
    }

    /// Who is in a meeting at other instances. `None` if nobody can tell.
    pub(super) async fn peers_in(&self, id: &RoomId) -> Option<Vec<(Arc<str>, Here)>> {
        self.noted_in(id).await.map(|(theirs, _)| theirs)
    }

    /// The same, and who is noted to be here.
    async fn noted_in(&self, id: &RoomId) -> Option<(Vec<(Arc<str>, Here)>, Vec<Arc<str>>)> {
        let (present, ours) = self.cluster.as_ref()?.present(id).await?;
        self.take_back(id, ours.clone());
        let read = |(peer, json): (Arc<str>, String)| {
            let Present { user, name, since, devices } = serde_json::from_str(&json).ok()?;
            Some((peer, Here { user, name, since, devices }))
        };
        Some((present.into_iter().filter_map(read).collect(), ours))
    }

    /// Takes back what was noted of users who are not here any more.
    fn take_back(&self, id: &RoomId, noted: Vec<Arc<str>>) {
        if noted.is_empty() {
            return;
        }
        let (Some(cluster), room_id) = (self.cluster.clone(), id.clone()) else { return };
        self.meetings.deliver(id, move |room| {
            let room = room.ok();
            for user in noted.iter().filter(|user| !room.as_ref().is_some_and(|room| room.state.is_here(user))) {
                cluster.note_present(&room_id, user, None, None);
            }
        });
    }

    /// Notes the users of a meeting who are here, except those that are noted.
    async fn note_all_present(&self, id: &RoomId, noted: Option<Vec<Arc<str>>>) {
        let Some(cluster) = self.cluster.clone() else { return };
        let room_id = id.clone();
        // Asked for within the turn: who leaves after it is taken back after it.
        let noting = self.ask_room(id, move |room| {
            let mut users = room.state.local_users();
            users.retain(|here| here.devices > 0);
            if let Some(noted) = noted {
                let noted: HashSet<Arc<str>> = noted.into_iter().collect();
                users.retain(|here| !noted.contains(&here.user));
            }
            let present = users.into_iter().map(|here| (Arc::clone(&here.user), to_json(&Present::of(here)))).collect();
            cluster.note_all_present(&room_id, present)
        });
        if let Some(noting) = noting.await {
            noting.await;
        }
    }

    /// Compares who is where with what other instances have noted, in every meeting here, and listens to each.
    async fn look_around(self: &Arc<Self>) {
        // ORDERING: Relaxed. A number of its own.
        let look = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
        self.tell_untold();
        for id in self.meetings.ids() {
            if self.looks.load(Ordering::Relaxed) != look {
                // Another one has begun, and looks at all of them.
                return;
            }
            if let Some(cluster) = &self.cluster {
                // Nearly always it is listened to.
                cluster.listen_still(&id, self.now()).await;
            }
            self.load_peers_of(&id).await;
        }
        self.listen_for_plain_rooms().await;
        self.recheck_named().await;
    }

    /// Sockets whose tokens other services have revoked by a key, which nobody is told of.
    async fn recheck_named(self: &Arc<Self>) {
        let Some(cluster) = &self.cluster else { return };
        let with_jti = |socket: Socket| {
            let jti: Arc<str> = client(&socket)?.identity().jti.as_deref()?.into();
            Some((jti, socket))
        };
        let sockets: Vec<_> = self.sockets().into_iter().filter_map(with_jti).collect();
        for sockets in sockets.chunks(NAMED_AT_A_TIME) {
            let jtis: Vec<_> = sockets.iter().map(|(jti, _)| &**jti).collect();
            if !cluster.is_any_named(&jtis).await {
                continue;
            }
            for (jti, socket) in sockets {
                if cluster.is_any_named(&[&**jti]).await {
                    self.expire(socket);
                }
            }
        }
    }

    pub(super) async fn load_peers_of(self: &Arc<Self>, id: &RoomId) {
        let Some((theirs, ours)) = self.noted_in(id).await else { return };
        self.note_all_present(id, Some(ours)).await;
        let (chat, room_id) = (Arc::clone(self), id.clone());
        self.in_room(id, move |room| {
            for (later, user) in meeting::set_peers(room, &room_id, &theirs, false, chat.now()) {
                chat.put_off(later, &room_id, &user);
            }
        });
    }

    /// A room has just been made: who comes elsewhere while it was may have been missed.
    pub(super) fn opened_room(&self, id: &RoomId, opened: &Opened) {
        if let Some(cluster) = &self.cluster {
            self.schedule.add(self.now() + PEERS_PAUSE_MS, Job::Peers(id.clone()));
            // An event that came before there was a room for it.
            let is_behind =
                cluster.known(id).is_some_and(|known| known.epoch != opened.epoch || known.seq > opened.seq);
            if is_behind {
                self.schedule.add(self.now(), Job::Catch(id.clone()));
            }
            cluster.note(id, &opened.epoch, opened.seq, self.now());
        }
    }

    /// What this instance has noted of its users may be lost.
    async fn note_present_again(self: &Arc<Self>) {
        self.tell(None, &Note::Hello);
        self.tell_untold();
        for id in self.meetings.ids() {
            self.note_all_present(&id, None).await;
        }
    }

    /// Tells who has left while that could not be told.
    fn tell_untold(self: &Arc<Self>) {
        let untold = self.cluster.as_ref().map(|cluster| cluster.take_untold()).unwrap_or_default();
        for (id, user) in untold {
            let chat = Arc::clone(self);
            self.meetings.deliver(&id.clone(), move |room| {
                if !room.is_ok_and(|room| room.state.is_here(&user)) {
                    chat.has_gone(&id, &user);
                }
            });
        }
    }

    /// Drops whoever was at an instance that is gone.
    pub(super) fn drop_peer(self: &Arc<Self>, peer: &Arc<str>) {
        if let Some(cluster) = &self.cluster {
            cluster.forget_peer(peer);
        }
        for id in self.meetings.ids() {
            let (chat, peer, room_id) = (Arc::clone(self), Arc::clone(peer), id.clone());
            self.in_room(&id, move |room| {
                for (later, user) in meeting::drop_peer(room, &room_id, &peer, chat.now()) {
                    chat.put_off(later, &room_id, &user);
                }
            });
        }
    }

    /// Sockets whose tokens were revoked while that could not be heard.
    async fn recheck_revoked(self: &Arc<Self>) {
        if self.authenticator.is_none() {
            return;
        }
        for socket in self.sockets() {
            let Some(identity) = client(&socket).map(|client| client.identity()) else { continue };
            if self.is_revoked_elsewhere(&identity).await {
                self.expire(&socket);
            }
        }
    }

    /// Whether a token was revoked where all instances look. Nobody is kept out because that cannot be asked.
    pub(super) async fn is_revoked_elsewhere(&self, identity: &Identity) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let subjects = subjects(identity);
        let subjects: Vec<_> = subjects.iter().map(String::as_str).collect();
        cluster.is_revoked(identity.jti.as_deref(), &subjects, identity.issued_at).await
    }

    /// Puts those out whose rights were lost while that could not be heard.
    async fn recheck_rights(self: &Arc<Self>) {
        for user in self.users.all() {
            for door in user.sockets().into_iter().filter_map(Door::of) {
                for meeting in door.client.member.rooms() {
                    self.access.forget(&user.id, Some(meeting.as_str()));
                    let right = self.access.right(&door.client.identity(), meeting.as_str(), self.now()).await;
                    if matches!(right, Ok(None)) {
                        self.put_out(&meeting, &door, "forbidden");
                    }
                }
            }
        }
    }

    /// Tells the users' other instances that there is something else to read.
    pub(super) fn tell_unread_elsewhere(&self, users: &[Arc<str>]) {
        if self.cluster.is_none() {
            return;
        }
        for users in users.chunks(USERS_PER_NOTE) {
            self.tell(None, &Note::Unread { users: users.to_vec() });
        }
    }

    /// A right may have changed.
    pub(super) fn forget_right(&self, user: &Arc<str>, meeting: &RoomId) {
        self.access.forget(user, Some(meeting.as_str()));
        self.tell(None, &Note::Forget { user: Arc::clone(user), meeting: meeting.as_str().into() });
    }

    /// The instance ends.
    pub async fn say_bye(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.leave(&to_json(&Note::Bye)).await;
        }
    }
}

/// What a revocation may name a token by.
fn subjects(identity: &Identity) -> Vec<String> {
    let user = Subject::User(Arc::clone(&identity.user_id));
    let jti = identity.jti.clone().map(Subject::Jti);
    let sid = identity.sid.clone().map(Subject::Sid);
    [Some(user), jti, sid].iter().flatten().map(name_of).collect()
}

/// The subject of a name.
fn named(name: &str) -> Option<Subject> {
    let (kind, id) = name.split_once(':')?;
    Some(match kind {
        "user" => Subject::User(id.into()),
        "jti" => Subject::Jti(id.into()),
        "sid" => Subject::Sid(id.into()),
        _ => return None,
    })
}

/// A subject by a name, in notes and in the key of what is kept of it.
pub(super) fn name_of(subject: &Subject) -> String {
    match subject {
        Subject::User(id) => format!("user:{id}"),
        Subject::Jti(id) => format!("jti:{id}"),
        Subject::Sid(id) => format!("sid:{id}"),
    }
}

/// Tokens that are asked about at a time.
const NAMED_AT_A_TIME: usize = 500;
/// When to try again to tell others something.
const TELL_RETRY_MS: u32 = 1000;
/// For how long a connection may be silent before that is noticed.
const UNNOTICED_MS: u64 = 15_000;
/// The pause before it is asked again for what could not be heard.
const CATCH_UP_PAUSE_MS: u64 = 500;
/// How long after a room was made it is looked again who is elsewhere.
const PEERS_PAUSE_MS: u64 = 1000;
