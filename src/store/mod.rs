//! What is kept: meetings' logs, read marks, inboxes, reminders.
//!
//! [`Store`] is the one interface, with a method for each atomic step: what must not be half done is one call. The
//! [`memory`] backend keeps everything in this process, the [`redis`] backend shares it with other instances. One suite of
//! tests, `suite`, runs on every backend.
//!
//! A meeting's *log* numbers its events: `seq` is 1, 2, 3 … without holes, and `epoch` names one life of the log. If
//! events were lost, the epoch changes, and a seq is never given twice within an epoch.
//!
//! Left to others: who may do what (`auth::access`), who hears of it (`chat`), and what a payload must look like
//! (`chat::command`): everything handed in here is checked. Nothing here reads a clock: `now` is ms since the epoch.

pub mod memory;
pub mod redis;
#[cfg(test)]
mod suite;

use std::{
    fmt::Write,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use crate::types::{MessageId, RoomId};

pub use memory::{Memory, MemoryLimits};
pub use redis::{RedisSettings, RedisStore};

/// Where meetings, marks, inboxes and reminders are kept.
pub trait Store: Send + Sync + 'static {
    /// Logs one event, or says why not. What was logged before by the same author with the same `client_id` (or, for
    /// updates, the same `event_id`) is answered as it was then, without an event.
    fn append(&self, append: Append, now: u64) -> Answer<'_, Appended>;

    /// What somebody who joins a meeting gets, and their read mark, in one step: a reader without a mark gets one at the
    /// top.
    fn open(&self, open: Open, now: u64) -> Answer<'_, Opened>;

    /// Where logs end, in the order in which they are asked for. A log that has gone back behind what is known of it
    /// gets another epoch first.
    fn check(&self, meetings: Vec<Known>, now: u64) -> Answer<'_, Vec<Standing>>;

    /// A page of a meeting's log.
    fn range(&self, range: Range, now: u64) -> Answer<'_, Page>;

    /// Moves a reader's mark forward, at most to the top. A reader without a mark gets one.
    fn mark_read(&self, meeting: &RoomId, user: &Arc<str>, seq: u64, now: u64) -> Answer<'_, Marked>;

    /// Who has a mark in a meeting.
    fn readers(&self, meeting: &RoomId, now: u64) -> Answer<'_, Vec<Arc<str>>>;

    /// What a user has not seen: notifications, and messages of others in the meetings where they have a mark.
    fn unread(&self, user: &str, now: u64) -> Answer<'_, Unread>;

    /// Puts a notification into a user's inbox. One with an id that the inbox holds already changes nothing.
    fn notify(&self, user: &Arc<str>, notification: Notification, now: u64) -> Answer<'_, Notified>;

    /// A page of a user's inbox.
    fn inbox(&self, user: &str, range: InboxRange, now: u64) -> Answer<'_, InboxPage>;

    /// Marks notifications as read.
    fn read_inbox(&self, user: &str, which: Read, now: u64) -> Answer<'_, InboxRead>;

    /// Whether this is the first time in `ttl_ms` that `key` is claimed.
    fn claim(&self, key: &str, ttl_ms: u64, now: u64) -> Answer<'_, bool>;

    /// Says for how long it is known that what a key was claimed for is done.
    fn hold(&self, key: &str, ttl_ms: u64, now: u64) -> Answer<'_, ()>;

    /// Whether what a key was claimed for is done, and not only claimed.
    fn is_held(&self, key: &str, now: u64) -> Answer<'_, bool>;

    /// Sets when a meeting becomes read-only (`None`: it is not to), and returns what was set before.
    fn close_at(&self, meeting: &RoomId, at: Option<u64>, now: u64) -> Answer<'_, Option<u64>>;

    /// When a meeting becomes, or became, read-only; `None` if it is not to.
    fn closes_at(&self, meeting: &RoomId, now: u64) -> Answer<'_, Option<u64>>;

    /// Replaces a meeting's reminders. Without `due` that drops them.
    fn set_reminders(&self, meeting: &RoomId, reminders: Reminders, now: u64) -> Answer<'_, ()>;

    /// Takes the reminders whose time has come: each is given to one caller, and after [`REMINDER_TAKEN_MS`] to another,
    /// unless it is [dropped](Self::drop_reminder).
    fn take_reminders(&self, now: u64) -> Answer<'_, Vec<Reminder>>;

    /// Drops a reminder that is done. One that was replaced meanwhile stays.
    fn drop_reminder(&self, reminder: &Reminder, now: u64) -> Answer<'_, ()>;

    /// When [`take_reminders`](Self::take_reminders) has something to give next, as far as this process knows.
    fn next_reminder(&self) -> Option<u64>;

    /// Notes who takes part in a meeting, unless others note that where it is kept.
    fn add_participants(&self, meeting: &RoomId, users: &[Arc<str>], now: u64) -> Answer<'_, ()>;

    /// Notes who takes no longer part (see [`add_participants`](Self::add_participants)), and takes their read marks away.
    fn remove_participants(&self, meeting: &RoomId, users: &[Arc<str>], now: u64) -> Answer<'_, ()>;

    /// How somebody takes part in a meeting, if they are noted as a participant.
    fn participant(&self, meeting: &RoomId, user: &str, now: u64) -> Answer<'_, Option<Participation>>;

    /// Whether anybody is noted as a participant of anything, as far as this process knows. Cheap: asked for every message.
    fn has_participants(&self) -> bool;

    /// Forgets everything of a meeting, and returns how many events that were. The next log has another epoch.
    fn erase_meeting(&self, meeting: &RoomId, now: u64) -> Answer<'_, u64>;

    /// Forgets a user's inbox and marks, and returns how many entries that were. What they wrote stays in the logs.
    fn erase_user(&self, user: &str, now: u64) -> Answer<'_, u64>;

    /// Drops what is older than it may get. Called about once a minute.
    fn sweep(&self, now: u64) -> Answer<'_, ()>;

    /// What is held in this process.
    fn usage(&self) -> Usage;
}

/// What a store says, now or later. The memory backend's answers are there at once.
pub struct Answer<'a, T>(State<'a, T>);

enum State<'a, T> {
    Ready(Option<Result<T, StoreError>>),
    Later(Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>),
}

impl<'a, T> Answer<'a, T> {
    /// An answer that is known.
    pub fn ready(answer: Result<T, StoreError>) -> Self {
        Self(State::Ready(Some(answer)))
    }

    /// An answer that is to come.
    pub fn later(answer: impl Future<Output = Result<T, StoreError>> + Send + 'a) -> Self {
        Self(State::Later(Box::pin(answer)))
    }

    /// The answer, or itself if it is not known yet.
    ///
    /// # Errors
    /// The answer to wait for.
    pub fn now(self) -> Result<Result<T, StoreError>, Self> {
        match self.0 {
            State::Ready(Some(answer)) => Ok(answer),
            other => Err(Self(other)),
        }
    }
}

impl<T: Unpin> Future for Answer<'_, T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Ready(answer) => answer.take().map_or(Poll::Pending, Poll::Ready),
            State::Later(answer) => answer.as_mut().poll(cx),
        }
    }
}

/// Why a store did not do what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreError {
    /// The log holds no such message (any more).
    NoMessage,
    /// The message that is replied to is not in the log.
    NoReplyTarget,
    /// The message belongs to somebody else, or is too old to be edited.
    NotAllowed,
    /// The message was deleted.
    Deleted,
    /// The `client_id` was used for another text.
    ClientIdReused,
    /// The meeting is read-only.
    Closed,
    /// Too many different emoji on one message.
    TooManyReactions,
    /// The position is of another life of the log.
    EpochDiffers,
    /// What is kept of it cannot be used, now or later.
    Broken,
    /// Not now.
    Unavailable {
        /// When to try again.
        retry_after_ms: u32,
    },
}

/// An event to be logged.
#[derive(Clone, Debug)]
pub struct Append {
    /// Where.
    pub meeting: RoomId,
    /// Who does it, by user id.
    pub author: Arc<str>,
    /// What.
    pub change: Change,
    /// The last event that whoever appends knows of: if the log has gone back behind it, the epoch changes first.
    pub known: Option<Position>,
}

/// What an event does. Contents are JSON objects; the store puts the fields it decides in front.
#[derive(Clone, Debug)]
pub enum Change {
    /// `chat_message`. Refused in a closed meeting, as are edits, deletions and reactions.
    Message {
        /// Its id, new.
        id: MessageId,
        /// `{"meeting_id":…}`; gets `id`, `seq`, `epoch`, `ts`.
        content: Content,
        /// For idempotency: 1–64 characters.
        client_id: Option<Box<str>>,
        /// Of the text: the same `client_id` with another fingerprint is a conflict.
        fingerprint: u64,
        /// Must be in the log and not deleted.
        reply_to: Option<MessageId>,
    },
    /// `message_edited`: by its author within 24 h, or by a moderator at any time.
    Edit {
        /// Which message.
        id: MessageId,
        /// Gets `id`, `seq`, `epoch`, `ts`, `version`.
        content: Content,
        /// Whether the author of the event moderates.
        is_moderator: bool,
    },
    /// `message_deleted`: by its author or by a moderator. Its texts are erased from the log. Deleting again is answered as
    /// the first time, without an event.
    Delete {
        /// Which message.
        id: MessageId,
        /// Gets `id`, `seq`, `epoch`, `ts`.
        content: Content,
        /// Whether the author of the event moderates.
        is_moderator: bool,
    },
    /// `message_reaction`: at most 20 different emoji a message. What changes nothing is answered with the seq of the event
    /// that made it so (for a removal of what is not there: of the message's last event), without an event.
    React {
        /// Which message: in the log, and not deleted.
        id: MessageId,
        /// Gets `id`, `seq`, `epoch`, `ts`, `count`.
        content: Content,
        /// Which one.
        emoji: Box<str>,
        /// Whether it is taken back.
        is_removal: bool,
    },
    /// `meeting_update`: taken in a closed meeting too.
    Update {
        /// Gets `seq`, `epoch`, `ts`.
        content: Content,
        /// For idempotency, 10 min.
        event_id: Box<str>,
    },
}

/// The part of an event's payload that its author decides: a JSON object with at least one field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// `{…}`.
    pub json: Box<str>,
    /// The byte of `json` where what a deletion erases begins: always behind a comma and up to the closing brace. What is
    /// erased is replaced by `"text":"","deleted":true`.
    pub erasable_from: Option<u32>,
}

/// What became of an [`Append`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Where the event stands.
    pub place: Place,
    /// To be delivered; `None` if nothing new was logged.
    pub event: Option<LogEvent>,
    /// Edits: 1 for the first, as the message itself is version 0.
    pub version: u32,
    /// The author of the message that was replied to.
    pub reply_author: Option<Arc<str>>,
}

/// Where an event stands in its meeting's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Of the message that the event is about; `None` for updates.
    pub id: Option<MessageId>,
    /// The number in the log, from 1.
    pub seq: u64,
    /// The life of the log, 12 characters.
    pub epoch: Arc<str>,
    /// ms since the epoch.
    pub ts: u64,
}

/// An event of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogEvent {
    /// Which event it is to clients.
    pub kind: Kind,
    /// The life of the log.
    pub epoch: Arc<str>,
    /// Its number there.
    pub seq: u64,
    /// The whole payload, a JSON object.
    pub json: Arc<str>,
}

/// The kinds of logged events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A message.
    ChatMessage,
    /// A message's new text.
    MessageEdited,
    /// A message's end.
    MessageDeleted,
    /// A reaction, or its end.
    MessageReaction,
    /// Something happened to the meeting.
    MeetingUpdate,
}

impl Kind {
    /// Every kind, in declaration order.
    pub const ALL: [Self; 5] =
        [Self::ChatMessage, Self::MessageEdited, Self::MessageDeleted, Self::MessageReaction, Self::MeetingUpdate];

    /// The event's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChatMessage => "chat_message",
            Self::MessageEdited => "message_edited",
            Self::MessageDeleted => "message_deleted",
            Self::MessageReaction => "message_reaction",
            Self::MeetingUpdate => "meeting_update",
        }
    }
}

/// A join, as the store sees it.
#[derive(Clone, Debug)]
pub struct Open {
    /// Where.
    pub meeting: RoomId,
    /// Gets a mark, unless there is one.
    pub reader: Option<Arc<str>>,
    /// The last event the client has.
    pub since: Option<Position>,
    /// Most events to give: without `since` the last ones, with it all or none.
    pub limit: usize,
    /// As in [`Append::known`].
    pub known: Option<Position>,
}

/// A place in a meeting's order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position {
    /// The life of the log.
    pub epoch: Arc<str>,
    /// An event in it, or 0 for before the first.
    pub seq: u64,
}

/// What is known of a meeting's log.
#[derive(Clone, Debug)]
pub struct Known {
    /// Which meeting.
    pub meeting: RoomId,
    /// As in [`Append::known`].
    pub known: Option<Position>,
}

/// Where a log stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The last event; seq 0 if there was none.
    pub top: Position,
    /// The first event that is still kept; `top.seq + 1` if none is.
    pub first_seq: u64,
}

/// What somebody who joins gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// The life of the log.
    pub epoch: Arc<str>,
    /// The top.
    pub seq: u64,
    /// The first event that is still kept; `top + 1` if none is.
    pub first_seq: u64,
    /// With `since`: whether `events` is all that was missed, or why not.
    pub recovered: Option<Result<(), Missed>>,
    /// Ascending, none after `seq`.
    pub events: Vec<LogEvent>,
}

/// Why a client cannot be given all that it missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missed {
    /// It knows another life of the log, or claims to have seen more than there is.
    Epoch,
    /// Some of it is not kept any more.
    Window,
    /// It is more than [`Open::limit`].
    TooMany,
}

/// Which part of a log.
#[derive(Clone, Debug)]
pub struct Range {
    /// Of which meeting.
    pub meeting: RoomId,
    /// Where to begin. [`StoreError::EpochDiffers`] if the epoch is given and not the log's.
    pub from: From,
    /// See `from`.
    pub epoch: Option<Arc<str>>,
    /// Most items.
    pub limit: usize,
    /// Only these; empty is all.
    pub kinds: Vec<Kind>,
}

/// Where a page begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// The last items.
    Top,
    /// The last items before this one.
    Before(u64),
    /// The first items after this one.
    After(u64),
}

/// A page of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// The life of the log.
    pub epoch: Arc<str>,
    /// The last event; 0 if there was none.
    pub top_seq: u64,
    /// The first that is still kept; `top_seq + 1` if none is.
    pub first_seq: u64,
    /// Ascending.
    pub items: Vec<LogEvent>,
    /// Whether there are more of these kinds in the direction of the page.
    pub has_more: bool,
}

/// Where a mark is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marked {
    /// The highest seq that is read.
    pub seq: u64,
    /// Whether it moved.
    pub has_moved: bool,
}

/// What a user has not seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unread {
    /// Unread notifications, at most the inbox's size.
    pub notifications: u32,
    /// Messages of others above the mark, at most 999 each: the 50 meetings whose marks or logs moved last, 0 included.
    pub meetings: Vec<(RoomId, u32)>,
    /// Whether there were more than 50.
    pub is_truncated: bool,
}

/// A notification to be kept.
#[derive(Clone, Debug)]
pub struct Notification {
    /// 1–64 characters, the same for all its recipients.
    pub id: Box<str>,
    /// `{"id":…,"kind":…,…,"ts":…}` without `nseq` and `read`.
    pub json: Box<str>,
    /// Whether it is to be kept. If not it gets a number nevertheless.
    pub is_kept: bool,
    /// When it may be dropped, beside the inbox's own limits.
    pub expires_at: Option<u64>,
}

/// What became of a notification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notified {
    /// The whole payload, with `nseq` and `read`; `None` if the inbox holds it already.
    pub json: Option<String>,
}

/// Which part of an inbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InboxRange {
    /// Where to begin, by `nseq`.
    pub from: From,
    /// Most items.
    pub limit: usize,
    /// Leave out what is read.
    pub unread_only: bool,
}

/// A page of an inbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InboxPage {
    /// Whole payloads, ascending by `nseq`.
    pub items: Vec<String>,
    /// Whether there are more in the direction of the page.
    pub has_more: bool,
    /// Unread ones in the whole inbox.
    pub unread: u32,
}

/// Which notifications are read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    /// These; unknown ones do not matter.
    Ids(Vec<Box<str>>),
    /// All up to this `nseq`.
    UpTo(u64),
}

/// What reading has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InboxRead {
    /// Unread ones that are left.
    pub unread: u32,
    /// Whether that changed.
    pub has_changed: bool,
}

/// A meeting's reminders.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reminders {
    /// When the meeting begins.
    pub starts_at: u64,
    /// When to remind: the time, and how it is called (`15m`).
    pub due: Vec<(u64, Box<str>)>,
    /// Who gets a notification. `None`: those of the reminders that are replaced.
    pub recipients: Option<Vec<Arc<str>>>,
    /// What the meeting is called. `None`: as in the reminders that are replaced.
    pub title: Option<Box<str>>,
}

/// How long somebody who has taken reminders has to send them, in ms.
pub const REMINDER_TAKEN_MS: u64 = 30_000;

/// A reminder whose time has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reminder {
    /// Of which meeting.
    pub meeting: RoomId,
    /// When the meeting begins.
    pub starts_at: u64,
    /// How it is called.
    pub offset: Box<str>,
    /// When it was due, or was to be given again.
    pub due_at: u64,
    /// Who gets a notification.
    pub recipients: Vec<Arc<str>>,
    /// What the meeting is called.
    pub title: Option<Box<str>>,
}

/// What a participant may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Participation {
    /// Read.
    Read,
    /// Read and write.
    Write,
    /// Read, write and moderate.
    Host,
}

/// How often what was asked of the store was not done, by the reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Failures {
    /// There was no connection.
    pub away: u64,
    /// Too many calls or appends were waiting.
    pub full: u64,
    /// It may have been done.
    pub unknown: u64,
    /// Too few replicas had it.
    pub not_replicated: u64,
    /// The server refused it.
    pub refused: u64,
    /// What is kept could not be used, or the answer not be read.
    pub malformed: u64,
}

/// What is held in this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Estimated bytes of everything.
    pub bytes: usize,
    /// Meetings with a log.
    pub meetings: usize,
    /// Users with an inbox or a mark.
    pub users: usize,
    /// Reminders that wait.
    pub reminders: usize,
    /// Events that wait to be logged.
    pub pending: usize,
    /// What could not be done.
    pub failures: Failures,
}

/// What stands in an event instead of what was erased, behind what is kept of its content.
const ERASED: &str = "\"text\":\"\",\"deleted\":true}";

/// An event's payload: what the store decides, in front of its content, which is given without the opening brace.
fn payload(place: &Place, extra: Option<(&str, u64)>, content: &str) -> String {
    let mut json = String::with_capacity(content.len() + 160);
    json.push('{');
    // Writing into a `String` does not fail.
    if let Some(id) = place.id {
        let _ = write!(json, "\"id\":\"{id}\",");
    }
    let _ = write!(json, "\"seq\":{},\"epoch\":\"{}\",\"ts\":{},", place.seq, place.epoch, place.ts);
    if let Some((name, value)) = extra {
        let _ = write!(json, "\"{name}\":{value},");
    }
    json.push_str(content);
    json
}

/// The name of a new life of a log.
fn new_epoch() -> String {
    const EPOCH_CHARS: usize = 12;
    std::iter::repeat_with(fastrand::alphanumeric).take(EPOCH_CHARS).collect()
}

/// A notification's payload: its number in front of what its sender decides, which is given without braces.
fn note_payload(nseq: u64, fields: &str, is_read: bool) -> String {
    format!("{{\"nseq\":{nseq},{fields},\"read\":{is_read}}}")
}

/// A JSON object without its braces; nothing if it is none.
fn fields(json: &str) -> &str {
    json.strip_prefix('{').and_then(|json| json.strip_suffix('}')).unwrap_or_default()
}
