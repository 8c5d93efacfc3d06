//! What the chat does later: each thing that was put off, when its time has come.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    chat::{
        Chat, event,
        meeting::{self, COUNT_PAUSE_MS, LEAVE_HOLD_MS, Later, Meeting, RECEIPT_PAUSE_MS},
        peers::Note,
        service::client,
        user::User,
    },
    rooms::{self, Room},
    socket::WeakSocket,
    types::{RoomId, SocketId},
};

/// Something that was put off. Each kind is kept at most once for what it is about.
pub(super) enum Job {
    /// To tell that a user has left a meeting, unless they are back.
    Leave(RoomId, Arc<str>),
    /// To tell how many there are in a large meeting.
    Count(RoomId),
    /// To tell whose marks have moved.
    Receipts(RoomId),
    /// To tell the readers of a meeting who are elsewhere that there is more to read.
    Readers(RoomId),
    /// To tell a user's sockets what is unread.
    Unread(Arc<User>),
    /// To tell that a token ends soon.
    Expiring(WeakSocket),
    /// To close a socket whose token has ended.
    Expired(WeakSocket),
    /// To fetch what a meeting's room is missing, if it still is.
    Repair(RoomId),
    /// To fetch what came before there was a room.
    Catch(RoomId),
    /// To look who is in a meeting at other instances.
    Peers(RoomId),
    /// To go on with something.
    Wake(rooms::Sender<()>),
    /// To drop whoever was at an instance that has ended.
    DropPeer(Arc<str>),
    /// To forget a user without sockets.
    Forget(Arc<User>),
    /// To send the reminders that are due.
    Remind,
    /// To drop what is too old.
    Sweep,
}

/// How often what is too old is dropped.
const SWEEP_MS: u64 = 60_000;
/// For how long what is unread is gathered.
const UNREAD_PAUSE_MS: u64 = 1000;

impl Chat {
    /// When [`handle_timeout`](Self::handle_timeout) has something to do, in ms since the epoch.
    pub fn next_deadline(&self) -> Option<u64> {
        self.schedule.next()
    }

    /// How long that is from now.
    pub fn time_to_next_deadline(&self) -> Option<Duration> {
        self.next_deadline().map(|at| Duration::from_millis(at.saturating_sub(self.now())))
    }

    /// Sets what is called when [`next_deadline`](Self::next_deadline) has become earlier. Once.
    pub fn on_earlier_deadline(&self, call: impl Fn() + Send + Sync + 'static) {
        self.schedule.on_earlier(call);
    }

    /// Does what is due. A call made too early does nothing.
    pub fn handle_timeout(self: &Arc<Self>) {
        let now = self.now();
        while let Some(job) = self.schedule.take_due(now) {
            self.do_job(job, now);
        }
    }

    pub(super) fn start_jobs(self: &Arc<Self>) {
        self.schedule.add(self.now() + SWEEP_MS, Job::Sweep);
    }

    fn do_job(self: &Arc<Self>, job: Job, now: u64) {
        match job {
            Job::Leave(id, user) => {
                let chat = Arc::clone(self);
                self.meetings.deliver(&id.clone(), move |room| match room {
                    Ok(room) if room.state.is_here(&user) => {
                        let moved = meeting::tell_leave(room, &id, &user, now);
                        chat.moved(moved, &id, &user);
                    }
                    // The room went with its last member, and may have been made anew for others. They may also have been
                    // back since, and left again.
                    _ if chat.has_left_for_good(&id, &user, now) => chat.has_gone(&id, &user),
                    _ => {}
                });
            }
            Job::Count(id) => {
                self.in_room(&id.clone(), move |room| meeting::tell_count(room, &id, now));
            }
            Job::Receipts(id) => {
                let chat = Arc::clone(self);
                self.in_room(&id.clone(), move |room| {
                    let marks = meeting::take_receipts(&mut room.state);
                    chat.tell(Some(&id), &Note::Receipts { marks: marks.clone() });
                    meeting::tell_receipts(room, &id, marks, |user| Some(chat.users.find(user)?.number), now);
                });
            }
            Job::Readers(id) => self.tell_readers(id),
            Job::Unread(user) => self.tell_unread(user),
            Job::Repair(id) => self.run({
                let chat = Arc::clone(self);
                async move { chat.repair_if_needed(&id, false).await }
            }),
            Job::Catch(id) => self.run({
                let chat = Arc::clone(self);
                async move { chat.repair_if_needed(&id, true).await }
            }),
            Job::Peers(id) => self.run({
                let chat = Arc::clone(self);
                async move { chat.load_peers_of(&id).await }
            }),
            Job::DropPeer(peer) => self.drop_peer(&peer),
            Job::Wake(tell) => tell.send(()),
            Job::Expiring(socket) => {
                if let Some(socket) = socket.upgrade() {
                    self.tell_expiring(&socket);
                }
            }
            Job::Expired(socket) => {
                if let Some(socket) = socket.upgrade() {
                    self.expire(&socket);
                }
            }
            Job::Forget(user) => match user.ban_left(now) {
                // Nobody gets around it by staying away.
                Some(left) => {
                    self.schedule.add(now + u64::from(left), Job::Forget(user));
                }
                None => _ = self.users.forget(&user),
            },
            Job::Remind => self.remind(),
            Job::Sweep => self.sweep(now),
        }
    }

    /// Whether somebody's last leave is so long ago that others are to be told.
    fn has_left_for_good(&self, id: &RoomId, user: &Arc<str>, now: u64) -> bool {
        let key = (id.clone(), Arc::clone(user));
        let mut left = self.left();
        match left.get(&key) {
            Some(left_at) if now < left_at + LEAVE_HOLD_MS => false,
            _ => {
                left.remove(&key);
                true
            }
        }
    }

    fn left(&self) -> MutexGuard<'_, HashMap<(RoomId, Arc<str>), u64>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for so long.
    pub(super) async fn sleep(&self, ms: u64) {
        let (tell, told) = rooms::answer();
        self.schedule.add(self.now() + ms, Job::Wake(tell));
        told.await;
    }

    /// Runs a turn in a room, if there is one.
    pub(super) fn in_room(&self, id: &RoomId, turn: impl FnOnce(&mut Room<Meeting>) + Send + 'static) {
        self.meetings.deliver(id, move |room| {
            if let Ok(room) = room {
                turn(room);
            }
        });
    }

    /// What is left of a turn.
    pub(super) fn put_off(&self, later: Later, id: &RoomId, user: &Arc<str>) {
        match later {
            Later::Nothing => {}
            Later::Leave => {
                self.schedule.add(self.now() + LEAVE_HOLD_MS, Job::Leave(id.clone(), Arc::clone(user)));
            }
            Later::Count => {
                self.schedule.add(self.now() + COUNT_PAUSE_MS, Job::Count(id.clone()));
            }
        }
    }

    /// A socket of a user is no member any more.
    pub(super) fn has_left(&self, room: &mut Room<Meeting>, id: &RoomId, user: &User) {
        let moved = meeting::leave(room, id, &user.id, user.number, self.now());
        if self.cluster.is_some() && moved.later == Later::Leave {
            self.left().insert((id.clone(), Arc::clone(&user.id)), self.now());
        }
        self.moved(moved, id, &user.id);
    }

    pub(super) fn put_off_receipts(&self, id: &RoomId) {
        self.schedule.add(self.now() + RECEIPT_PAUSE_MS, Job::Receipts(id.clone()));
    }

    pub(super) fn put_off_readers(&self, id: &RoomId) {
        self.schedule.add(self.now() + UNREAD_PAUSE_MS, Job::Readers(id.clone()));
    }

    /// What is unread of a user has changed; `except` knows already.
    pub(super) fn unread_changed(&self, user: &Arc<User>, except: Option<&SocketId>) {
        if user.is_online() && user.note_unread(except) {
            self.schedule.add(self.now() + UNREAD_PAUSE_MS, Job::Unread(Arc::clone(user)));
        }
    }

    fn tell_unread(self: &Arc<Self>, user: Arc<User>) {
        let chat = Arc::clone(self);
        self.run(async move {
            // Before it is counted: what changes from here on makes another job.
            let sockets = user.take_unread();
            if sockets.is_empty() {
                return;
            }
            if let Ok(unread) = chat.store.unread(&user.id, chat.now()).await {
                for socket in sockets {
                    socket.emit("unread", &event::Unread(&unread));
                }
            }
        });
    }

    fn tell_readers(self: &Arc<Self>, id: RoomId) {
        let chat = Arc::clone(self);
        self.run(async move {
            chat.in_room(&id, |room| room.state.unread_told());
            let Ok(readers) = chat.store.readers(&id, chat.now()).await else { return };
            chat.tell_unread_elsewhere(&readers);
            for user in readers.iter().filter_map(|user| chat.users.find(user)) {
                // Whoever is in the meeting with all sockets sees its messages.
                let is_elsewhere = |socket| client(socket).is_some_and(|client| !client.member.is_in(id.as_str()));
                if user.sockets().iter().any(is_elsewhere) {
                    chat.unread_changed(&user, None);
                }
            }
        });
    }

    fn sweep(self: &Arc<Self>, now: u64) {
        self.schedule.add(now + SWEEP_MS, Job::Sweep);
        self.revoked.sweep(now);
        self.access.sweep(now);
        if let Some(cluster) = &self.cluster {
            cluster.sweep(|id| self.meetings.has(id) || self.has_plain_room(id.as_str()), now);
        }
        let rate = self.settings.rates.room;
        self.room_buckets.pin().retain(|_, bucket| !bucket.is_full(rate, now));
        self.left().retain(|_, left_at| now <= *left_at + 2 * LEAVE_HOLD_MS);
        let chat = Arc::clone(self);
        self.run(async move {
            let _ = chat.store.sweep(now).await;
        });
    }

    /// Sees to it that the next reminder is sent in time.
    pub(super) fn watch_reminders(&self) {
        let Some(at) = self.store.next_reminder() else { return };
        let mut watched = self.reminder.lock().unwrap_or_else(PoisonError::into_inner);
        match *watched {
            Some((present, _)) if present <= at => {}
            present => {
                if let Some((_, key)) = present {
                    self.schedule.cancel(key);
                }
                *watched = Some((at, self.schedule.add(at, Job::Remind)));
            }
        }
    }
}
