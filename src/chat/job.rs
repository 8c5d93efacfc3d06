//! What the chat does later: each thing that was put off, when its time has come.

use std::sync::{Arc, PoisonError};

use crate::{
    chat::{
        Chat, event,
        meeting::{self, COUNT_PAUSE_MS, LEAVE_HOLD_MS, Later, Meeting, RECEIPT_PAUSE_MS},
        service::client,
        user::User,
    },
    rooms::Room,
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
                self.in_room(&id.clone(), move |room| {
                    let later = meeting::tell_leave(room, &id, &user, now);
                    chat.put_off(later, &id, &user);
                });
            }
            Job::Count(id) => {
                self.in_room(&id.clone(), move |room| meeting::tell_count(room, &id, now));
            }
            Job::Receipts(id) => {
                let chat = Arc::clone(self);
                self.in_room(&id.clone(), move |room| {
                    meeting::tell_receipts(room, &id, |user| Some(chat.users.find(user)?.number), now);
                });
            }
            Job::Readers(id) => self.tell_readers(id),
            Job::Unread(user) => self.tell_unread(user),
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
        let later = meeting::leave(room, id, &user.id, user.number, self.now());
        self.put_off(later, id, &user.id);
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
        let rate = self.settings.rates.room;
        self.room_buckets.pin().retain(|_, bucket| !bucket.is_full(rate, now));
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
