//! One user: their inbox, and in which meetings they have a mark.
//!
//! Plain values, as in [`meeting`](super::meeting): whoever calls has them to themselves.

use std::{
    collections::{HashMap, VecDeque},
    mem::size_of,
};

use crate::{
    store::{
        From, InboxPage, InboxRange, InboxRead, Notification, Notified, Read, fields, memory::table::Weigh,
        note_payload,
    },
    types::RoomId,
};

/// What is kept of a user.
pub(super) struct User {
    /// Their notifications.
    pub(super) inbox: Inbox,
    /// The meetings in which they have a mark, and when it was moved last, counted in moves.
    marks: HashMap<RoomId, u64>,
    moves: u64,
}

/// A user's notifications.
#[derive(Default)]
pub(super) struct Inbox {
    /// The last number that was given.
    nseq: u64,
    /// Ascending by number.
    notes: VecDeque<Note>,
    /// The last notification, in ms since the epoch.
    noted_at: u64,
    /// The ids of the last that were not kept, the last one first, and when they were told.
    told: VecDeque<(Box<str>, u64)>,
    bytes: usize,
}

struct Note {
    nseq: u64,
    id: Box<str>,
    /// The payload's fields but for `nseq` and `read`.
    fields: Box<str>,
    at: u64,
    expires_at: Option<u64>,
    is_read: bool,
}

/// Meetings in which a user has a mark; the mark that was not moved for longest goes.
const MARKS_MAX: usize = 1000;
/// Notifications in an inbox; the oldest goes.
const NOTES_MAX: usize = 200;
/// How long a notification is kept, and the numbering of an inbox that is empty, in ms: 30 d.
const KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1000;
/// For how long one that is not kept is known, in ms, and how many of them.
const TOLD_MS: u64 = 60_000;
const TOLD_MAX: usize = 8;

/// A user without anything: itself, its lock, its key and its place in the table.
const USER_BYTES: usize = size_of::<User>() + 256;
const MARK_BYTES: usize = 2 * size_of::<(RoomId, u64)>();
const TOLD_BYTES: usize = 2 * size_of::<(Box<str>, u64)>();
const NOTE_BYTES: usize = size_of::<Note>() * 3 / 2 + 32;

impl Weigh for User {
    fn bytes(&self) -> usize {
        USER_BYTES + self.marks.len() * MARK_BYTES + self.inbox.bytes + self.inbox.told_bytes()
    }
}

impl User {
    /// Nobody has heard of this user.
    pub(super) fn new() -> Self {
        Self { inbox: Inbox::default(), marks: HashMap::new(), moves: 0 }
    }

    /// Notes that a mark was made or moved. Returns the meeting whose mark has to go, if they are too many.
    pub(super) fn note_mark(&mut self, meeting: &RoomId) -> Option<RoomId> {
        self.moves += 1;
        self.marks.insert(meeting.clone(), self.moves);
        if self.marks.len() <= MARKS_MAX {
            return None;
        }
        let oldest = self.marks.iter().min_by_key(|(_, moved)| **moved).map(|(meeting, _)| meeting.clone())?;
        self.marks.remove(&oldest);
        Some(oldest)
    }

    /// Notes that a mark is gone.
    pub(super) fn forget_mark(&mut self, meeting: &RoomId) {
        self.marks.remove(meeting);
    }

    /// Whether there is a mark in this meeting.
    pub(super) fn has_mark(&self, meeting: &RoomId) -> bool {
        self.marks.contains_key(meeting)
    }

    /// The meetings with a mark, in no order.
    pub(super) fn marks(&self) -> impl Iterator<Item = &RoomId> {
        self.marks.keys()
    }

    /// Whether nothing would be lost with this user.
    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.inbox.nseq == 0
    }

    /// Drops every notification. True if nothing is left then.
    pub(super) fn drop_inbox(&mut self) -> bool {
        self.inbox.notes = VecDeque::new();
        self.inbox.told = VecDeque::new();
        self.inbox.bytes = 0;
        self.marks.is_empty()
    }

    /// Drops what is past its time. True if nothing is left, and was not for so long that numbers may begin anew.
    pub(super) fn sweep(&mut self, now: u64) -> bool {
        self.inbox.trim(now);
        let is_idle = self.inbox.notes.is_empty() && now.saturating_sub(self.inbox.noted_at) > KEPT_MS;
        self.marks.is_empty() && (is_idle || self.inbox.nseq == 0)
    }

    /// What [`Weigh::bytes`] should be, counted anew.
    #[cfg(test)]
    pub(super) fn recount(&self) -> usize {
        let notes: usize = self.inbox.notes.iter().map(Note::bytes).sum();
        USER_BYTES + self.marks.len() * MARK_BYTES + notes + self.inbox.told_bytes()
    }
}

impl Inbox {
    fn told_bytes(&self) -> usize {
        self.told.iter().map(|(id, _)| TOLD_BYTES + id.len()).sum()
    }

    /// See [`Store::notify`](crate::store::Store::notify).
    pub(super) fn notify(&mut self, notification: Notification, now: u64) -> Notified {
        self.trim(now);
        let Notification { id, json, is_kept, expires_at } = notification;
        if self.notes.iter().any(|note| note.id == id) {
            return Notified { json: None };
        }
        if !is_kept {
            self.told.retain(|(_, at)| now.saturating_sub(*at) <= TOLD_MS);
            if self.told.iter().any(|(told, _)| *told == id) {
                return Notified { json: None };
            }
            self.told.push_front((id.clone(), now));
            self.told.truncate(TOLD_MAX);
        }
        self.nseq += 1;
        self.noted_at = now;
        let nseq = self.nseq;
        let note = Note { nseq, id, fields: fields(&json).into(), at: now, expires_at, is_read: false };
        let payload = note.payload();
        if is_kept {
            if self.notes.len() >= NOTES_MAX {
                self.drop_first();
            }
            self.bytes += note.bytes();
            self.notes.push_back(note);
        }
        Notified { json: Some(payload) }
    }

    /// See [`Store::inbox`](crate::store::Store::inbox).
    pub(super) fn page(&mut self, range: InboxRange, now: u64) -> InboxPage {
        self.trim(now);
        let wanted = |note: &&Note| {
            let is_there = match range.from {
                From::Top => true,
                From::Before(nseq) => note.nseq < nseq,
                From::After(nseq) => note.nseq > nseq,
            };
            is_there && !(range.unread_only && note.is_read)
        };
        // One more than asked for tells whether there are more.
        let most = range.limit.saturating_add(1);
        let is_ascending = matches!(range.from, From::After(_));
        let mut notes: Vec<_> = match is_ascending {
            true => self.notes.iter().filter(wanted).take(most).collect(),
            false => self.notes.iter().rev().filter(wanted).take(most).collect(),
        };
        let has_more = notes.len() > range.limit;
        notes.truncate(range.limit);
        if !is_ascending {
            notes.reverse();
        }
        InboxPage { items: notes.into_iter().map(Note::payload).collect(), has_more, unread: self.count_unread() }
    }

    /// See [`Store::read_inbox`](crate::store::Store::read_inbox).
    pub(super) fn read(&mut self, which: &Read, now: u64) -> InboxRead {
        self.trim(now);
        let mut has_changed = false;
        for note in self.notes.iter_mut().filter(|note| !note.is_read) {
            note.is_read = match which {
                Read::Ids(ids) => ids.contains(&note.id),
                Read::UpTo(nseq) => note.nseq <= *nseq,
            };
            has_changed |= note.is_read;
        }
        InboxRead { unread: self.count_unread(), has_changed }
    }

    /// How many notifications are unread.
    pub(super) fn unread(&mut self, now: u64) -> u32 {
        self.trim(now);
        self.count_unread()
    }

    /// How many notifications are kept.
    pub(super) fn len(&mut self, now: u64) -> usize {
        self.trim(now);
        self.notes.len()
    }

    /// When the last notification came, in ms since the epoch.
    pub(super) fn noted_at(&self) -> u64 {
        self.noted_at
    }

    fn count_unread(&self) -> u32 {
        self.notes.iter().map(|note| u32::from(!note.is_read)).sum()
    }

    fn trim(&mut self, now: u64) {
        let bytes = &mut self.bytes;
        self.notes.retain(|note| {
            let is_over = now.saturating_sub(note.at) > KEPT_MS || note.expires_at.is_some_and(|at| at <= now);
            if is_over {
                *bytes -= note.bytes();
            }
            !is_over
        });
        if self.notes.is_empty() {
            self.notes = VecDeque::new();
        }
    }

    fn drop_first(&mut self) {
        if let Some(note) = self.notes.pop_front() {
            self.bytes -= note.bytes();
        }
    }
}

impl Note {
    fn payload(&self) -> String {
        note_payload(self.nseq, &self.fields, self.is_read)
    }

    fn bytes(&self) -> usize {
        NOTE_BYTES + self.id.len() + self.fields.len()
    }
}
