//! Everything in this process, and nothing longer than it lives.
//!
//! A meeting has a lock of its own, and so has a user: what happens in one meeting does not wait for another. The locks'
//! order is evicting, meeting, user; the calendar and the claims are locked alone. Every answer is there at once.
//!
//! Memory is bounded by [`MemoryLimits::max_bytes`]. What is held is estimated as it changes, which costs an atomic
//! addition; only when that is over the limit is something dropped, and then a sixteenth of the limit at once, because
//! finding what was idle for longest is one pass over all meetings (and, if those do not suffice, all users).

mod claims;
mod inbox;
mod meeting;
mod recent;
mod reminders;
mod table;

use std::sync::{
    Arc, Mutex, TryLockError,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    store::{
        Answer, Append, Appended, Failures, InboxPage, InboxRange, InboxRead, Known, Marked, Notification, Notified,
        Open, Opened, Page, Participation, Range, Read, Reminder, Reminders, Standing, Store, Unread, Usage,
        memory::{
            claims::Claims,
            inbox::User,
            meeting::Meeting,
            reminders::Calendar,
            table::{Table, Total, lock},
        },
    },
    types::RoomId,
};

/// Keeps everything in this process.
pub struct Memory {
    limits: MemoryLimits,
    total: Arc<Total>,
    meetings: Table<RoomId, Meeting>,
    users: Table<Arc<str>, User>,
    claims: Mutex<Claims>,
    calendar: Mutex<Calendar>,
    /// Somebody has been a participant of something.
    has_participants: AtomicBool,
    /// Held by whoever makes room: the others go on, over the limit by what they add meanwhile.
    evicting: Mutex<()>,
}

/// What bounds a [`Memory`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryLimits {
    /// Events in a meeting's log. Default 1000.
    pub history_size: usize,
    /// How long an event is kept, in ms. Default 7 d.
    pub history_ttl_ms: u64,
    /// Estimated bytes of everything. Default 256 MiB.
    ///
    /// When it is more, meetings' logs are dropped, those first that were not appended to or opened for longest; they
    /// keep their epoch, top, marks and participants. If that does not suffice, whole meetings go, then inboxes, then
    /// the oldest events of the meeting that is being used, then claims and reminders.
    pub max_bytes: usize,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self { history_size: 1000, history_ttl_ms: 7 * 24 * 60 * 60 * 1000, max_bytes: 256 * 1024 * 1024 }
    }
}

/// Most meetings that [`Store::unread`] tells.
const UNREAD_MEETINGS_MAX: usize = 50;

impl Memory {
    /// An empty store.
    pub fn new(limits: MemoryLimits) -> Self {
        let total = Arc::default();
        Self {
            limits,
            meetings: Table::new(&total),
            users: Table::new(&total),
            total,
            claims: Mutex::default(),
            calendar: Mutex::default(),
            has_participants: AtomicBool::new(false),
            evicting: Mutex::new(()),
        }
    }

    /// Uses a meeting, which is made if there is none.
    fn meeting<R>(&self, id: &RoomId, now: u64, run: impl FnOnce(&mut Meeting) -> R) -> R {
        let result = self.meetings.update_or_make(id, || Meeting::new(now), run);
        self.make_room(Some(id), None);
        result
    }

    /// Notes in the user's list that a mark was made or moved: called while the mark's meeting is locked, so that the two
    /// do not part. Returns the meeting whose mark has to go, when that lock is given back.
    fn note_mark(&self, user: &Arc<str>, meeting: &RoomId) -> Option<RoomId> {
        self.users.update_or_make(user, User::new, |user| user.note_mark(meeting))
    }

    /// Takes a mark away that is not in the user's list any more. False if there is none, or it was made anew.
    fn drop_mark(&self, user: &str, meeting: &RoomId) -> bool {
        let dropped = self.meetings.update(meeting, |marks| {
            let is_listed = self.users.update(user, |user| user.has_mark(meeting)).unwrap_or(false);
            !is_listed && marks.drop_mark(user)
        });
        dropped.unwrap_or(false)
    }

    /// Takes a meeting out, with its marks. Returns how many events it had.
    fn remove_meeting(&self, id: &RoomId, is_meant: impl FnOnce(&mut Meeting) -> bool) -> Option<usize> {
        self.meetings.take_if(id, |meeting| {
            if !is_meant(meeting) {
                return None;
            }
            for reader in meeting.readers() {
                self.users.update(reader, |user| user.forget_mark(id));
                self.users.take_if(reader, |user| user.is_empty().then_some(()));
            }
            Some(meeting.len())
        })
    }

    /// Drops what was idle for longest, if there is too much; last the meeting and the user that are being used.
    fn make_room(&self, used_meeting: Option<&RoomId>, used_user: Option<&Arc<str>>) {
        if self.total.bytes() <= self.limits.max_bytes {
            return;
        }
        let _evicting = match self.evicting.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let target = self.limits.max_bytes - self.limits.max_bytes / 16;
        let is_enough = || self.total.bytes() <= target;

        let mut meetings = Vec::new();
        self.meetings.for_each(|id, meeting| {
            if used_meeting != Some(id) {
                meetings.push((meeting.used_at(), id.clone(), meeting.has_contents()));
            }
        });
        meetings.sort_unstable();
        for (used_at, id, _) in meetings.iter().filter(|(.., has_contents)| *has_contents) {
            if is_enough() {
                return;
            }
            self.meetings.update(id, |meeting| {
                if meeting.used_at() == *used_at {
                    meeting.drop_contents();
                }
            });
        }
        for (used_at, id, _) in &meetings {
            if is_enough() {
                return;
            }
            self.remove_meeting(id, |meeting| meeting.used_at() == *used_at);
        }

        let mut users = Vec::new();
        self.users.for_each(|id, user| {
            if used_user != Some(id) {
                users.push((user.inbox.noted_at(), Arc::clone(id)));
            }
        });
        users.sort_unstable();
        for (_, user) in &users {
            if is_enough() {
                return;
            }
            self.users.take_if(user, |user| user.drop_inbox().then_some(()));
        }

        if let Some(id) = used_meeting {
            self.meetings.update(id, |meeting| meeting.drop_oldest(self.total.bytes().saturating_sub(target)));
        }
        while !is_enough() && self.claims(Claims::drop_first) {}
        while !is_enough() && self.calendar(Calendar::drop_last) {}
        // Nothing is left but the marks and participants of one meeting.
        if let Some(id) = used_meeting
            && self.total.bytes() > self.limits.max_bytes
        {
            self.remove_meeting(id, |_| true);
        }
    }

    fn claims<R>(&self, run: impl FnOnce(&mut Claims) -> R) -> R {
        self.total.weigh(&mut *lock(&self.claims), run)
    }

    fn calendar<R>(&self, run: impl FnOnce(&mut Calendar) -> R) -> R {
        self.total.weigh(&mut *lock(&self.calendar), run)
    }
}

impl Store for Memory {
    fn append(&self, append: Append, now: u64) -> Answer<'_, Appended> {
        let id = append.meeting.clone();
        Answer::ready(self.meeting(&id, now, |meeting| meeting.append(append, &self.limits, now)))
    }

    fn open(&self, open: Open, now: u64) -> Answer<'_, Opened> {
        let mut displaced = None;
        let opened = self.meeting(&open.meeting, now, |meeting| {
            let opened = meeting.open(&open, &self.limits, now);
            if let Some(reader) = &open.reader
                && meeting.mark_first(reader, opened.seq, now)
            {
                displaced = self.note_mark(reader, &open.meeting);
            }
            opened
        });
        if let (Some(reader), Some(displaced)) = (&open.reader, displaced) {
            self.drop_mark(reader, &displaced);
        }
        Answer::ready(Ok(opened))
    }

    fn check(&self, meetings: Vec<Known>, now: u64) -> Answer<'_, Vec<Standing>> {
        let standing = |known: Known| self.meeting(&known.meeting, now, |meeting| meeting.standing());
        Answer::ready(Ok(meetings.into_iter().map(standing).collect()))
    }

    fn range(&self, range: Range, now: u64) -> Answer<'_, Page> {
        // Makes a log where there is none: the epoch that is told must be the one of the first event.
        Answer::ready(self.meeting(&range.meeting, now, |meeting| meeting.range(&range, &self.limits, now)))
    }

    fn mark_read(&self, meeting: &RoomId, user: &Arc<str>, seq: u64, now: u64) -> Answer<'_, Marked> {
        let mut displaced = None;
        let marked = self.meeting(meeting, now, |state| {
            let marked = state.mark_read(user, seq, &self.limits, now);
            if marked.has_moved {
                displaced = self.note_mark(user, meeting);
            }
            marked
        });
        if let Some(displaced) = displaced {
            self.drop_mark(user, &displaced);
        }
        Answer::ready(Ok(marked))
    }

    fn readers(&self, meeting: &RoomId, _now: u64) -> Answer<'_, Vec<Arc<str>>> {
        let readers = self.meetings.update(meeting, |meeting| meeting.readers().cloned().collect());
        Answer::ready(Ok(readers.unwrap_or_default()))
    }

    fn unread(&self, user: &str, now: u64) -> Answer<'_, Unread> {
        let known = self.users.update(user, |user| (user.inbox.unread(now), user.marks().cloned().collect::<Vec<_>>()));
        let Some((notifications, marked)) = known else { return Answer::ready(Ok(Unread::default())) };
        let unread = |id: RoomId| {
            let (moved_at, unread) = self.meetings.update(&id, |meeting| meeting.unread(user)).flatten()?;
            Some((moved_at, id, unread))
        };
        let mut meetings: Vec<_> = marked.into_iter().filter_map(unread).collect();
        meetings.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let is_truncated = meetings.len() > UNREAD_MEETINGS_MAX;
        meetings.truncate(UNREAD_MEETINGS_MAX);
        let meetings = meetings.into_iter().map(|(_, id, unread)| (id, unread)).collect();
        Answer::ready(Ok(Unread { notifications, meetings, is_truncated }))
    }

    fn notify(&self, user: &Arc<str>, notification: Notification, now: u64) -> Answer<'_, Notified> {
        let notified = self.users.update_or_make(user, User::new, |user| user.inbox.notify(notification, now));
        self.make_room(None, Some(user));
        Answer::ready(Ok(notified))
    }

    fn inbox(&self, user: &str, range: InboxRange, now: u64) -> Answer<'_, InboxPage> {
        let page = self.users.update(user, |user| user.inbox.page(range, now));
        Answer::ready(Ok(page.unwrap_or(InboxPage { items: Vec::new(), has_more: false, unread: 0 })))
    }

    fn read_inbox(&self, user: &str, which: Read, now: u64) -> Answer<'_, InboxRead> {
        let read = self.users.update(user, |user| user.inbox.read(&which, now));
        Answer::ready(Ok(read.unwrap_or(InboxRead { unread: 0, has_changed: false })))
    }

    fn claim(&self, key: &str, ttl_ms: u64, now: u64) -> Answer<'_, bool> {
        let is_first = self.claims(|claims| claims.claim(key, ttl_ms, now));
        self.make_room(None, None);
        Answer::ready(Ok(is_first))
    }

    fn hold(&self, key: &str, ttl_ms: u64, now: u64) -> Answer<'_, ()> {
        self.claims(|claims| claims.hold(key, ttl_ms, now));
        self.make_room(None, None);
        Answer::ready(Ok(()))
    }

    fn is_held(&self, key: &str, now: u64) -> Answer<'_, bool> {
        Answer::ready(Ok(self.claims(|claims| claims.is_held(key, now))))
    }

    fn close_at(&self, meeting: &RoomId, at: Option<u64>, now: u64) -> Answer<'_, Option<u64>> {
        Answer::ready(Ok(match at {
            Some(_) => self.meeting(meeting, now, |meeting| meeting.close_at(at)),
            None => self.meetings.update(meeting, |meeting| meeting.close_at(None)).flatten(),
        }))
    }

    fn closes_at(&self, meeting: &RoomId, _now: u64) -> Answer<'_, Option<u64>> {
        Answer::ready(Ok(self.meetings.update(meeting, |meeting| meeting.closes_at()).flatten()))
    }

    fn set_reminders(&self, meeting: &RoomId, reminders: Reminders, _now: u64) -> Answer<'_, ()> {
        self.calendar(|calendar| calendar.set(meeting, reminders));
        self.make_room(None, None);
        Answer::ready(Ok(()))
    }

    fn take_reminders(&self, now: u64) -> Answer<'_, Vec<Reminder>> {
        Answer::ready(Ok(self.calendar(|calendar| calendar.take(now))))
    }

    fn drop_reminder(&self, reminder: &Reminder, _now: u64) -> Answer<'_, ()> {
        self.calendar(|calendar| calendar.drop_one(reminder));
        Answer::ready(Ok(()))
    }

    fn next_reminder(&self) -> Option<u64> {
        lock(&self.calendar).next()
    }

    fn add_participants(&self, meeting: &RoomId, users: &[Arc<str>], now: u64) -> Answer<'_, ()> {
        if !users.is_empty() {
            self.meeting(meeting, now, |meeting| meeting.add_participants(users));
            self.has_participants.store(true, Ordering::Relaxed);
        }
        Answer::ready(Ok(()))
    }

    fn remove_participants(&self, meeting: &RoomId, users: &[Arc<str>], _now: u64) -> Answer<'_, ()> {
        self.meetings.update(meeting, |meeting| meeting.remove_participants(users));
        for user in users {
            self.users.update(&**user, |user| user.forget_mark(meeting));
            self.users.take_if(&**user, |user| user.is_empty().then_some(()));
            self.drop_mark(user, meeting);
        }
        Answer::ready(Ok(()))
    }

    fn participant(&self, meeting: &RoomId, user: &str, _now: u64) -> Answer<'_, Option<Participation>> {
        let is_participant = self.meetings.update(meeting, |meeting| meeting.is_participant(user)).unwrap_or(false);
        Answer::ready(Ok(is_participant.then_some(Participation::Write)))
    }

    fn has_participants(&self) -> bool {
        // ORDERING: Relaxed. Whoever was told that somebody was added has synchronised by that.
        self.has_participants.load(Ordering::Relaxed)
    }

    fn erase_meeting(&self, meeting: &RoomId, now: u64) -> Answer<'_, u64> {
        self.calendar(|calendar| calendar.drop_plan(meeting));
        let erased = self.remove_meeting(meeting, |meeting| {
            meeting.trim(&self.limits, now);
            true
        });
        Answer::ready(Ok(erased.unwrap_or(0) as u64))
    }

    fn erase_user(&self, user: &str, now: u64) -> Answer<'_, u64> {
        let taken =
            self.users.take_if(user, |user| Some((user.inbox.len(now), user.marks().cloned().collect::<Vec<_>>())));
        let Some((notifications, marked)) = taken else { return Answer::ready(Ok(0)) };
        let marks = marked.iter().filter(|meeting| self.drop_mark(user, meeting)).count();
        Answer::ready(Ok((notifications + marks) as u64))
    }

    fn sweep(&self, now: u64) -> Answer<'_, ()> {
        self.meetings.for_each(|_, meeting| meeting.sweep(&self.limits, now));
        let mut gone = Vec::new();
        self.users.for_each(|id, user| {
            if user.sweep(now) {
                gone.push(Arc::clone(id));
            }
        });
        for user in &gone {
            self.users.take_if(user, |user| user.sweep(now).then_some(()));
        }
        self.claims(|claims| claims.sweep(now));
        Answer::ready(Ok(()))
    }

    fn usage(&self) -> Usage {
        Usage {
            bytes: self.total.bytes(),
            meetings: self.meetings.len(),
            users: self.users.len(),
            pending: 0,
            reminders: lock(&self.calendar).len(),
            failures: Failures::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use super::{table::Weigh, *};
    use crate::{
        store::{
            Change, Content, From, Missed, Position, StoreError,
            suite::{SuiteLimits, compare_with_a_model, store_suite},
        },
        types::MessageId,
    };

    fn make(limits: SuiteLimits) -> Memory {
        let SuiteLimits { history_size, history_ttl_ms } = limits;
        Memory::new(MemoryLimits { history_size, history_ttl_ms, ..MemoryLimits::default() })
    }

    store_suite!(on_memory, make);

    #[test]
    fn a_naive_model_agrees() {
        compare_with_a_model(make, 200, 1000, |_| {});
    }

    const NOW: u64 = 1_760_000_000_000;
    const MINUTE: u64 = 60_000;

    fn limited(max_bytes: usize) -> Memory {
        Memory::new(MemoryLimits { max_bytes, ..MemoryLimits::default() })
    }

    fn wait<T: Unpin>(answer: Answer<'_, T>) -> T {
        smol::block_on(answer).unwrap()
    }

    fn id(number: u128) -> MessageId {
        MessageId::new(NOW, number)
    }

    fn content(length: usize) -> Content {
        let json = format!("{{\"meeting_id\":\"m\",\"text\":\"{}\"}}", "x".repeat(length));
        Content { json: json.into(), erasable_from: Some(17) }
    }

    /// Sends a message of about 1 KiB, with a `client_id`.
    fn say(store: &Memory, meeting: &str, number: u128, now: u64) -> Result<Appended, StoreError> {
        let change = Change::Message {
            id: id(number),
            content: content(1000),
            client_id: Some(number.to_string().into()),
            fingerprint: 0,
            reply_to: None,
        };
        smol::block_on(
            store.append(Append { meeting: RoomId::new(meeting), author: "a".into(), change, known: None }, now),
        )
    }

    fn join(store: &Memory, meeting: &str, since: Option<Position>, now: u64) -> Opened {
        let reader = Some("reader".into());
        wait(store.open(Open { meeting: RoomId::new(meeting), reader, since, limit: 1000, known: None }, now))
    }

    fn notify(store: &Memory, user: &str, number: u64, now: u64) {
        let json = format!("{{\"id\":\"{number}\",\"body\":\"{}\"}}", "x".repeat(1000)).into();
        let notification = Notification { id: number.to_string().into(), json, is_kept: true, expires_at: None };
        wait(store.notify(&user.into(), notification, now));
    }

    fn notifications(store: &Memory, user: &str) -> u32 {
        wait(store.unread(user, NOW)).notifications
    }

    /// What [`Usage::bytes`] should be, counted anew.
    fn recount(store: &Memory) -> usize {
        let mut bytes = lock(&store.claims).bytes() + lock(&store.calendar).bytes();
        store.meetings.for_each(|_, meeting| bytes += meeting.recount());
        store.users.for_each(|_, user| bytes += user.recount());
        bytes
    }

    #[test]
    fn bytes_are_counted_as_they_come_and_go() {
        compare_with_a_model(make, 20, 300, |store| assert_eq!(store.usage().bytes, recount(store)));
        let mut random = fastrand::Rng::with_seed(1);
        let store = Memory::new(MemoryLimits { history_size: 30, ..MemoryLimits::default() });
        let mut now = NOW;
        for step in 0..20_000 {
            now += random.u64(..MINUTE);
            let meeting = RoomId::new(["m", "n", "o"][random.usize(..3)]);
            let author: Arc<str> = ["a", "b", "long user id"][random.usize(..3)].into();
            let (about, number) = (id(random.u128(step.max(40) - 40..=step)), random.u8(..30).to_string());
            let (content, is_moderator) = (content(random.usize(..50)), random.bool());
            let change = match random.u8(..14) {
                0..3 => {
                    let reply_to = random.bool().then_some(about);
                    let client_id = random.bool().then_some(number.into());
                    Some(Change::Message { id: id(step), content, client_id, fingerprint: 0, reply_to })
                }
                3 => Some(Change::Edit { id: about, content, is_moderator }),
                4 => Some(Change::Delete { id: about, content, is_moderator }),
                5..7 => Some(Change::React { id: about, content, emoji: number.into(), is_removal: is_moderator }),
                7 => Some(Change::Update { content, event_id: number.into() }),
                8 => {
                    notify(&store, &author, random.u64(..300), now);
                    None
                }
                9 => {
                    let users = [Arc::clone(&author), "z".into()];
                    match is_moderator {
                        true => wait(store.add_participants(&meeting, &users, now)),
                        false => wait(store.remove_participants(&meeting, &users, now)),
                    }
                    None
                }
                10 => {
                    wait(store.mark_read(&meeting, &author, random.u64(..100), now));
                    None
                }
                11 => {
                    wait(store.claim(&number, random.u64(..MINUTE), now));
                    let due =
                        (0..random.u64(..4)).map(|_| (now + random.u64(..MINUTE), number.as_str().into())).collect();
                    wait(store.set_reminders(&meeting, Reminders { due, ..Reminders::default() }, now));
                    wait(store.take_reminders(now));
                    None
                }
                12 if random.u8(..50) == 0 => {
                    wait(store.erase_user(&author, now));
                    None
                }
                13 if random.u8(..50) == 0 => {
                    wait(store.erase_meeting(&meeting, now));
                    None
                }
                _ => {
                    wait(store.sweep(now));
                    None
                }
            };
            if let Some(change) = change {
                let _ = smol::block_on(store.append(Append { meeting, author, change, known: None }, now));
            }
            assert_eq!(store.usage().bytes, recount(&store), "step {step}");
        }
        assert!(store.usage().bytes > 0);
        for meeting in ["m", "n", "o"] {
            wait(store.erase_meeting(&RoomId::new(meeting), now));
        }
        for user in ["a", "b", "long user id"] {
            wait(store.erase_user(user, now));
        }
        wait(store.sweep(now + MINUTE));
        assert_eq!(store.usage(), Usage::default());
    }

    #[test]
    fn participants_come_and_go() {
        let store = limited(usize::MAX);
        let is_in = |meeting, user: &str| match wait(store.participant(&RoomId::new(meeting), user, NOW)) {
            Some(participation) => participation == Participation::Write,
            None => false,
        };
        let users = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Vec<_>>();
        assert!(!store.has_participants());
        wait(store.add_participants(&RoomId::new("m"), &users(&["a", "b"]), NOW));
        wait(store.add_participants(&RoomId::new("m"), &users(&["b", "c"]), NOW));
        wait(store.add_participants(&RoomId::new("m"), &[], NOW));
        assert!(store.has_participants());
        assert!(is_in("m", "a") && is_in("m", "b") && is_in("m", "c") && !is_in("m", "d") && !is_in("n", "a"));
        wait(store.remove_participants(&RoomId::new("m"), &users(&["b", "d"]), NOW));
        wait(store.remove_participants(&RoomId::new("n"), &users(&["a"]), NOW));
        assert!(is_in("m", "a") && !is_in("m", "b") && is_in("m", "c"));
        wait(store.erase_meeting(&RoomId::new("m"), NOW));
        assert!(!is_in("m", "a"));
    }

    #[test]
    fn old_client_ids_are_forgotten_beyond_the_last_thousand() {
        let store = Memory::new(MemoryLimits { history_size: 1, ..MemoryLimits::default() });
        for number in 0..1001 {
            say(&store, "m", number, NOW).unwrap();
        }
        let later = NOW + 10 * MINUTE + 1;
        assert!(say(&store, "m", 1, later).unwrap().event.is_none(), "the 1000th last");
        assert!(say(&store, "m", 0, later).unwrap().event.is_some(), "the 1001st last");
    }

    #[test]
    fn the_log_that_was_idle_for_longest_goes_first() {
        let store = limited(100_000);
        let mut epochs = Vec::new();
        for (number, meeting) in ["opened since", "idle", "idle too", "written since"].into_iter().enumerate() {
            epochs.push(join(&store, meeting, None, NOW).epoch);
            for message in 0..5 {
                say(&store, meeting, number as u128 * 10 + message, NOW + number as u64).unwrap();
            }
            wait(store.close_at(&RoomId::new(meeting), Some(NOW + MINUTE), NOW));
            wait(store.add_participants(&RoomId::new(meeting), &["p".into()], NOW));
        }
        join(&store, "opened since", None, NOW + 10);
        say(&store, "written since", 99, NOW + 10).unwrap();
        assert!(store.usage().bytes < 100_000);
        let kept = |meeting: &str| {
            let range =
                Range { meeting: RoomId::new(meeting), from: From::Top, epoch: None, limit: 9, kinds: Vec::new() };
            wait(store.range(range, NOW + 20)).items.len()
        };
        let mut number = 1000;
        while kept("idle") > 0 {
            assert_eq!((kept("idle too"), kept("opened since"), kept("written since")), (5, 5, 6));
            say(&store, "busy", number, NOW + 20).unwrap();
            number += 1;
            assert!(number < 1100, "nothing goes");
        }
        assert!(number > 1010, "not before the limit is reached");
        assert!(store.usage().bytes <= 100_000);
        assert_eq!((kept("opened since"), kept("written since")), (5, 6));
        // What is gone is gone, but it is the same log, and the same meeting.
        let at = |seq| Some(Position { epoch: Arc::clone(&epochs[1]), seq });
        assert_eq!(wait(store.unread("reader", NOW)).meetings.len(), 4);
        assert!(wait(store.unread("reader", NOW)).meetings.contains(&(RoomId::new("idle"), 5)));
        let opened = join(&store, "idle", at(4), NOW + 20);
        assert_eq!((opened.recovered, opened.seq, opened.first_seq), (Some(Err(Missed::Window)), 5, 6));
        assert_eq!(join(&store, "idle", at(5), NOW + 20).recovered, Some(Ok(())));
        assert!(wait(store.participant(&RoomId::new("idle"), "p", NOW)).is_some());
        assert_eq!(say(&store, "idle", 2000, NOW + MINUTE), Err(StoreError::Closed));
        assert_eq!(say(&store, "idle", 2000, NOW + 20).unwrap().place.seq, 6);
    }

    #[test]
    fn whole_meetings_go_when_only_those_are_left() {
        let store = limited(200_000);
        let first = join(&store, "0", None, NOW);
        let mut number: u64 = 1;
        while store.usage().meetings as u64 == number {
            join(&store, &number.to_string(), None, NOW + number);
            number += 1;
            assert!(number < 1000, "nothing goes");
        }
        assert!(store.usage().bytes <= 200_000, "{}", store.usage().bytes);
        assert!(store.usage().meetings > 50, "only some go: {}", store.usage().meetings);
        let since = Some(Position { epoch: Arc::clone(&first.epoch), seq: 0 });
        assert!(wait(store.readers(&RoomId::new("0"), NOW)).is_empty());
        assert_eq!(join(&store, "0", since, NOW + number).recovered, Some(Err(Missed::Epoch)));
        assert!(!wait(store.readers(&RoomId::new(&(number - 1).to_string()), NOW)).is_empty(), "the last stays");
        assert_eq!(store.usage().bytes, recount(&store));
    }

    #[test]
    fn the_oldest_inboxes_go_after_all_meetings() {
        let store = limited(100_000);
        say(&store, "m", 1, NOW + MINUTE).unwrap();
        for number in 0..20 {
            notify(&store, "old", number, NOW);
            notify(&store, "young", number, NOW + 1);
        }
        assert_eq!((notifications(&store, "old"), notifications(&store, "young"), store.usage().meetings), (20, 20, 1));
        let mut number = 0;
        while notifications(&store, "old") == 20 {
            assert_eq!(notifications(&store, "young"), 20);
            notify(&store, "own", number, NOW - 1);
            number += 1;
            assert!(number < 100, "nothing goes, or the wrong one");
        }
        assert_eq!((notifications(&store, "old"), notifications(&store, "young")), (0, 20));
        assert_eq!(u64::from(notifications(&store, "own")), number, "the one that is used stays");
        assert_eq!(store.usage().meetings, 0);
        assert!(store.usage().bytes <= 100_000);
        assert_eq!(store.usage().bytes, recount(&store));
    }

    #[test]
    fn a_meeting_that_is_too_large_alone_loses_its_oldest_events() {
        let store = limited(100_000);
        let epoch = join(&store, "m", None, NOW).epoch;
        for number in 1..=300 {
            assert_eq!(say(&store, "m", number, NOW).unwrap().place.seq, number as u64);
            assert!(store.usage().bytes <= 100_000);
            let events = join(&store, "m", None, NOW).events.len() as u128;
            assert!(events >= number.min(8), "{events} of {number} are left");
        }
        let opened = join(&store, "m", None, NOW);
        assert_eq!((&opened.epoch, opened.seq), (&epoch, 300));
        assert_eq!(wait(store.unread("reader", NOW)).meetings, [(RoomId::new("m"), 300)]);
    }

    /// A limit that makes no sense must not hang anything, and everything is dropped again.
    #[test]
    fn any_limit_is_kept() {
        for max_bytes in [0, 1, 1000, 3000, 10_000] {
            let store = limited(max_bytes);
            for number in 0..50 {
                let meeting = (number % 3).to_string();
                join(&store, &meeting, None, NOW + number);
                assert!(say(&store, &meeting, number.into(), NOW + number).unwrap().event.is_some());
                wait(store.claim(&number.to_string(), MINUTE, NOW));
                let due = vec![(NOW + number, "5m".into())];
                wait(store.set_reminders(&RoomId::new(&meeting), Reminders { due, ..Reminders::default() }, NOW));
                wait(store.add_participants(&RoomId::new(&meeting), &["p".into()], NOW));
                assert!(store.usage().bytes <= max_bytes, "{max_bytes}: {}", store.usage().bytes);
                // One inbox is used, and stays until something else is.
                notify(&store, "reader", number, NOW);
                assert_eq!(store.usage().bytes, recount(&store));
            }
        }
    }

    #[test]
    fn a_mark_that_was_made_anew_is_not_dropped() {
        let (store, meeting) = (limited(usize::MAX), RoomId::new("m"));
        join(&store, "m", None, NOW);
        // It was to go, and was moved before its turn came.
        assert!(!store.drop_mark("reader", &meeting));
        assert_eq!(wait(store.readers(&meeting, NOW)).len(), 1);
        store.users.take_if("reader", |_| Some(()));
        assert!(store.drop_mark("reader", &meeting));
        assert!(!store.drop_mark("reader", &meeting));
        assert_eq!(wait(store.readers(&meeting, NOW)).len(), 0);
    }

    #[test]
    fn users_without_anything_are_swept() {
        let store = limited(usize::MAX);
        notify(&store, "a", 1, NOW);
        const DAY: u64 = 24 * 60 * MINUTE;
        for (now, users) in [(NOW, 1), (NOW + 30 * DAY, 1), (NOW + 30 * DAY + 1, 0)] {
            wait(store.sweep(now));
            assert_eq!(store.usage().users, users, "after {} ms", now - NOW);
        }
        assert_eq!(store.usage(), Usage::default());
    }

    /// Meetings are evicted and erased while others use them: no seq is given twice in an epoch, and nothing stays behind.
    #[test]
    fn threads_share_what_comes_and_goes() {
        const EACH: u128 = 3000;
        let store = limited(60_000);
        let given = Mutex::new(HashSet::new());
        thread::scope(|scope| {
            for thread in 0..3 {
                let (store, given) = (&store, &given);
                scope.spawn(move || {
                    for number in 0..EACH {
                        let meeting = format!("{}", number % 7);
                        let place = say(store, &meeting, thread * EACH + number, NOW + number as u64).unwrap().place;
                        assert!(lock(given).insert((place.epoch, place.seq)), "given twice");
                        if number % 5 == 0 {
                            join(store, &meeting, None, NOW);
                            wait(store.mark_read(&RoomId::new(&meeting), &"reader".into(), place.seq, NOW));
                            notify(store, "reader", number as u64, NOW);
                        }
                    }
                });
            }
            scope.spawn(|| {
                for number in 0..EACH {
                    wait(store.erase_meeting(&RoomId::new(&(number % 7).to_string()), NOW));
                    wait(store.erase_user("reader", NOW));
                    if number % 10 == 0 {
                        wait(store.sweep(NOW));
                    }
                }
            });
        });
        assert_eq!(store.usage().bytes, recount(&store));
        assert!(store.usage().bytes < 100_000, "{}", store.usage().bytes);
        // A mark stands in its meeting and in its user's list, or in neither.
        for number in 0..7 {
            let meeting = RoomId::new(&number.to_string());
            let is_reader = !wait(store.readers(&meeting, NOW)).is_empty();
            let is_listed = store.users.update("reader", |user| user.has_mark(&meeting)).unwrap_or(false);
            assert_eq!(is_reader, is_listed, "{number}");
        }
        for number in 0..7 {
            wait(store.erase_meeting(&RoomId::new(&number.to_string()), NOW));
        }
        wait(store.erase_user("reader", NOW));
        assert_eq!(store.usage(), Usage::default());
    }
}
