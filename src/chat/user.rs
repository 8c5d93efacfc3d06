//! The users that are here: their sockets, their budgets, and what is to be told to them.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    auth::Identity,
    chat::Chat,
    limits::{SharedBucket, StrikeLimits, Strikes},
    rooms::Member,
    schedule,
    socket::Socket,
    types::SocketId,
};

/// Everybody who is connected, or was a moment ago, or came over REST. Finding somebody takes no lock.
#[derive(Default)]
pub(super) struct Users {
    users: papaya::HashMap<Arc<str>, Arc<User>>,
    last_number: AtomicU64,
}

/// One user, with all their sockets in this process.
pub(super) struct User {
    pub(super) id: Arc<str>,
    /// The same user has the same number as long as they are kept; it names them to `rooms`.
    pub(super) number: u64,
    pub(super) buckets: Buckets,
    /// When they may come back, after too many refusals. ms since the epoch.
    pub(super) banned_until: AtomicU64,
    live: Mutex<Live>,
}

/// How much of each kind a user may still do.
#[derive(Default)]
pub(super) struct Buckets {
    pub(super) message: SharedBucket,
    pub(super) typing: SharedBucket,
    pub(super) join: SharedBucket,
    pub(super) history: SharedBucket,
    pub(super) event: SharedBucket,
}

#[derive(Default)]
struct Live {
    /// Joined, and not ended.
    sockets: Vec<Socket>,
    /// Sockets that may join: the joined ones, and those that were let in just now.
    seats: usize,
    strikes: Strikes,
    /// Out of the table: look the user up again.
    is_retired: bool,
    /// A job will look whether the user can be forgotten.
    is_to_be_forgotten: bool,
    /// A job will tell the sockets what is unread; all but this one, if only this one brought the change about.
    unread: Option<Option<SocketId>>,
}

/// The data of a socket: who it is. Holds a seat of its user as long as it lives.
pub(super) struct Client {
    /// For the seat; gone if the chat is.
    chat: Weak<Chat>,
    pub(super) user: Arc<User>,
    pub(super) member: Arc<Member>,
    identity: Mutex<Arc<Identity>>,
    /// The job for the token's end.
    pub(super) expiry: Mutex<Option<schedule::Key>>,
    lane: Mutex<Lane>,
}

/// What a socket has asked for is done in order, one after the other.
#[derive(Default)]
struct Lane {
    is_busy: bool,
    waiting: VecDeque<Step>,
}

/// One thing a client has asked for, answer included.
pub(super) type Step = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What became of a step that was to be done.
pub(super) enum Queued {
    /// It is its turn: do it, then [`Client::next_step`].
    Now(Step),
    /// It will be done.
    Waiting,
    /// Too many wait.
    Full,
}

/// Steps of one socket that wait for one that takes its time, such as a question to the authorisation service.
const LANE_MAX: usize = 4096;

impl Users {
    /// The user of that id, if they are here.
    pub(super) fn find(&self, id: &str) -> Option<Arc<User>> {
        self.users.pin().get(id).cloned()
    }

    /// Whether a user has sockets here.
    pub(super) fn is_connected(&self, id: &str) -> bool {
        self.find(id).is_some_and(|user| !user.sockets().is_empty())
    }

    pub(super) fn all(&self) -> Vec<Arc<User>> {
        self.users.pin().values().cloned().collect()
    }

    /// The user of that id, made if need be, and what `then` makes of them. `then` is not called for a user who is just
    /// being forgotten.
    pub(super) fn enter<R>(&self, id: &Arc<str>, then: impl Fn(&Arc<User>, &mut Entered<'_>) -> R) -> R {
        loop {
            let user = self.find(id).unwrap_or_else(|| {
                let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
                let made = Arc::new(User::new(Arc::clone(id), number));
                Arc::clone(self.users.pin().get_or_insert(Arc::clone(id), made))
            });
            let mut live = user.live();
            if !live.is_retired {
                return then(&user, &mut Entered { live: &mut live });
            }
            drop(live);
            // Whoever retired them takes them out of the table, or we do.
            let _ = self.users.pin().remove_if(&**id, |_, present| Arc::ptr_eq(present, &user));
        }
    }

    /// Forgets a user without sockets. False if there are some.
    pub(super) fn forget(&self, user: &Arc<User>) -> bool {
        {
            let mut live = user.live();
            live.is_to_be_forgotten = false;
            if live.seats > 0 {
                return false;
            }
            live.is_retired = true;
        }
        let _ = self.users.pin().remove_if(&*user.id, |_, present| Arc::ptr_eq(present, user));
        true
    }
}

/// A user who cannot be forgotten at the moment.
pub(super) struct Entered<'a> {
    live: &'a mut Live,
}

impl Entered<'_> {
    /// Takes a seat for a socket, unless `max` are taken (0 is no limit).
    pub(super) fn take_seat(&mut self, max: usize) -> bool {
        let is_free = max == 0 || self.live.seats < max;
        if is_free {
            self.live.seats += 1;
        }
        is_free
    }

    /// Whether a job has to be made that looks whether the user can be forgotten. Asked once until it has looked.
    pub(super) fn is_to_be_watched(&mut self) -> bool {
        self.live.seats == 0 && !std::mem::replace(&mut self.live.is_to_be_forgotten, true)
    }
}

impl User {
    fn new(id: Arc<str>, number: u64) -> Self {
        let (buckets, banned_until) = (Buckets::default(), AtomicU64::new(0));
        Self { id, number, buckets, banned_until, live: Mutex::default() }
    }

    /// Their sockets, as they are now.
    pub(super) fn sockets(&self) -> Vec<Socket> {
        self.live().sockets.clone()
    }

    pub(super) fn socket_count(&self) -> usize {
        self.live().sockets.len()
    }

    pub(super) fn is_online(&self) -> bool {
        !self.live().sockets.is_empty()
    }

    pub(super) fn add_socket(&self, socket: &Socket) {
        self.live().sockets.push(socket.clone());
    }

    pub(super) fn remove_socket(&self, socket: &Socket) {
        let removed = {
            let mut live = self.live();
            let index = live.sockets.iter().position(|present| present.id() == socket.id());
            index.map(|index| live.sockets.swap_remove(index))
        };
        // Outside of the lock: the last handle drops the client, which gives its seat back.
        drop(removed);
    }

    /// Notes that the sockets are to be told what is unread, all but `except`. True if a job has to be made for it.
    pub(super) fn note_unread(&self, except: Option<&SocketId>) -> bool {
        let mut live = self.live();
        match &mut live.unread {
            None => {
                live.unread = Some(except.cloned());
                true
            }
            Some(present) => {
                if present.as_ref() != except {
                    *present = None;
                }
                false
            }
        }
    }

    /// Whom to tell what is unread.
    pub(super) fn take_unread(&self) -> Vec<Socket> {
        let mut live = self.live();
        let except = live.unread.take().flatten();
        live.sockets.iter().filter(|socket| Some(socket.id()) != except.as_ref()).cloned().collect()
    }

    /// Counts a refusal. True if there were too many.
    pub(super) fn strike(&self, limits: StrikeLimits, now: u64) -> bool {
        self.live().strikes.strike(limits, now)
    }

    /// For how long they may not come, in ms.
    pub(super) fn ban_left(&self, now: u64) -> Option<u32> {
        // ORDERING: Relaxed. A time of its own, nothing is read with it.
        let left = self.banned_until.load(Ordering::Relaxed).saturating_sub(now);
        u32::try_from(left).ok().filter(|left| *left > 0)
    }

    /// Gives a seat back. True if that was the last and a job has to look whether the user can be forgotten.
    pub(super) fn leave_seat(&self) -> bool {
        let mut live = self.live();
        live.seats = live.seats.saturating_sub(1);
        live.seats == 0 && !std::mem::replace(&mut live.is_to_be_forgotten, true)
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.user.leave_seat()
            && let Some(chat) = self.chat.upgrade()
        {
            chat.forget_later(&self.user);
        }
    }
}

impl Client {
    /// The data of a socket for which a seat was taken.
    pub(super) fn new(chat: &Arc<Chat>, user: Arc<User>, member: Arc<Member>, identity: Arc<Identity>) -> Self {
        let (identity, expiry, lane) = (Mutex::new(identity), Mutex::default(), Mutex::default());
        Self { chat: Arc::downgrade(chat), user, member, identity, expiry, lane }
    }

    pub(super) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_identity(&self, identity: Arc<Identity>) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// Puts a step behind those that are not done yet.
    pub(super) fn queue(&self, step: Step) -> Queued {
        let mut lane = self.lane();
        if !lane.is_busy {
            lane.is_busy = true;
            Queued::Now(step)
        } else if lane.waiting.len() < LANE_MAX {
            lane.waiting.push_back(step);
            Queued::Waiting
        } else {
            Queued::Full
        }
    }

    /// For whoever did the last step: the next one, or the end of being busy.
    pub(super) fn next_step(&self) -> Option<Step> {
        let mut lane = self.lane();
        let next = lane.waiting.pop_front();
        lane.is_busy = next.is_some();
        next
    }

    /// Whether a step is not done yet.
    pub(super) fn is_busy(&self) -> bool {
        self.lane().is_busy
    }

    fn lane(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
