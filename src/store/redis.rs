//! Everything in Redis, shared by all instances.
//!
//! Each atomic step is one Lua script, and so one round trip; the one that logs an event publishes it as well. All that a
//! script touches belongs to one meeting or to one user, and the names of its keys hold the same hash tag: `{m:<meeting>}`
//! or `{u:<user>}`. Where a step touches both (marks are listed at their user's), it is two scripts in an order in which
//! nothing is lost if the second never runs: at worst a mark is listed that is not there, or the next move of a mark lists
//! it.
//!
//! Times come from the caller. That keys expire is only for those that nobody uses any more: they live longer than what
//! is in them.
//!
//! Left to others: the connection, its retries and its limits (`redis`), and what is published besides (`cluster`). Start
//! at `redis/meeting.lua`, then `redis/append.lua`.

mod frame;
mod meeting;
mod reminders;
mod scripts;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::Value;

use crate::{
    adapter::classic::Channels,
    limits::Slots,
    redis::{
        Call, CallError, Redis, Script,
        reply::{self, Fields, parse},
    },
    store::{
        Answer, Append, Appended, Change, Content, Failures, From, InboxPage, InboxRange, InboxRead, Kind, Known,
        Marked, Notification, Notified, Open, Opened, Page, Participation, Position, REMINDER_TAKEN_MS, Range, Read,
        Reminder, Reminders, Standing, Store, StoreError, Unread, Usage, fields, new_epoch, note_payload,
        redis::reminders::Waiting,
    },
    types::{MessageId, RoomId},
};

/// Keeps everything in Redis.
pub struct RedisStore {
    redis: Redis,
    settings: RedisSettings,
    channels: Channels,
    /// Appends that wait for their answer.
    pending: Slots,
    /// As the last script on reminders has said.
    waiting: Mutex<Waiting>,
    failures: Counters,
    /// When the last failure was logged, in ms since the epoch.
    warned_at: AtomicU64,
}

/// What a [`RedisStore`] is made with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedisSettings {
    /// What the names of all keys begin with. Default `chat:`.
    pub prefix: Box<str>,
    /// What the names of channels begin with: the prefix of Socket.IO's adapter. Default `socket.io`.
    pub adapter_prefix: Box<str>,
    /// This instance's id, 6 characters: of what comes with it, it knows that it has sent it.
    pub instance: Box<str>,
    /// Events in a meeting's log. Default 1000.
    pub history_size: usize,
    /// How long an event is kept, in ms. Default 7 d.
    pub history_ttl_ms: u64,
    /// How long an append waits for Redis. Default 5 s.
    pub wait: Duration,
    /// Bytes of events beyond which no more are read for one answer: about as many as it may hold.
    pub answer_max_bytes: usize,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            prefix: "chat:".into(),
            adapter_prefix: "socket.io".into(),
            instance: "".into(),
            history_size: 1000,
            history_ttl_ms: 7 * 24 * 60 * 60 * 1000,
            wait: Duration::from_secs(5),
            answer_max_bytes: usize::MAX,
        }
    }
}

/// [`Failures`] as they are counted.
#[derive(Default)]
struct Counters {
    away: AtomicU64,
    full: AtomicU64,
    unknown: AtomicU64,
    not_replicated: AtomicU64,
    refused: AtomicU64,
    malformed: AtomicU64,
}

/// Appends that wait at a time; one more is refused at once.
const PENDING_MAX: usize = 1000;
/// Stands in a claim instead of its owner's word when that is done.
const HELD: &str = "!";
/// Meetings in which a user has a mark; the mark that was not moved for longest goes.
const MARKS_MAX: u64 = 1000;
/// Most meetings that [`Store::unread`] tells.
const UNREAD_MEETINGS_MAX: usize = 50;
/// Most messages that are counted as unread.
const UNREAD_MAX: u64 = 999;
/// Reminders that are taken in one call.
const TAKEN_MAX: u64 = 256;
/// Calls of one batch, where it is not known how many there will be.
const BATCH: usize = 500;
/// How long a list of marks lives that nobody uses, beside the log's time, in ms: 91 d, as the marks.
const MARKS_KEPT_MS: u64 = 91 * 24 * 60 * 60 * 1000;
/// The longest time for which a key can be claimed, in ms: 10 years.
const CLAIM_MAX_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1000;
/// Up to here Lua's numbers are exact. What is larger is as good as this.
const NUMBER_MAX: u64 = 1 << 53;
/// Failures are logged so often at most, in ms.
const WARNING_PAUSE_MS: u64 = 10_000;
/// When to try again, in ms; and if the server has refused it, which is seldom over soon.
const RETRY_MS: u32 = 1000;
const RETRY_REFUSED_MS: u32 = 5000;

impl RedisStore {
    /// A store on this connection.
    pub fn new(redis: Redis, settings: RedisSettings) -> Self {
        Self {
            redis,
            channels: Channels::new(settings.adapter_prefix.clone()),
            settings,
            pending: Slots::new(PENDING_MAX),
            waiting: Mutex::new(Waiting { count: 0, next: None }),
            failures: Counters::default(),
            warned_at: AtomicU64::new(0),
        }
    }

    fn failures(&self) -> Failures {
        // ORDERING: Relaxed, here and where they are counted. Only for metrics.
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { away, full, unknown, not_replicated, refused, malformed } = &self.failures;
        Failures {
            away: count(away),
            full: count(full),
            unknown: count(unknown),
            not_replicated: count(not_replicated),
            refused: count(refused),
            malformed: count(malformed),
        }
    }

    fn meeting_key(&self, meeting: &RoomId, name: &str) -> String {
        format!("{}{{m:{}}}{name}", self.settings.prefix, meeting.as_str())
    }

    fn user_key(&self, user: &str, name: &str) -> String {
        format!("{}{{u:{user}}}{name}", self.settings.prefix)
    }

    /// A script on a meeting: see `meeting.lua`.
    fn on_meeting(&self, script: &'static Script, meeting: &RoomId, known: Option<&Position>, now: u64) -> Call {
        let (epoch, seq) = known.map_or(("", 0), |known| (&known.epoch, known.seq));
        Call::script(script, 1)
            .arg(self.meeting_key(meeting, ""))
            .int(number(now))
            .arg(new_epoch())
            .life()
            .arg(epoch)
            .int(number(seq))
            .int(number(self.settings.history_size as u64))
            .int(number(self.settings.history_ttl_ms))
    }

    /// A script on a user: see `user.lua`.
    fn on_user(&self, script: &'static Script, user: &str, now: u64) -> Call {
        Call::script(script, 1).arg(self.user_key(user, "")).int(number(now))
    }

    /// A script on reminders: see `reminders.lua`.
    fn on_reminders(&self, script: &'static Script) -> Call {
        let prefix = &self.settings.prefix;
        Call::script(script, 2).arg(format!("{prefix}{{reminders}}:due")).arg(format!("{prefix}{{reminders}}:plans"))
    }

    /// Notes that a user has a mark in a meeting.
    fn list_mark(&self, user: &str, meeting: &RoomId, has_moved: bool, now: u64) -> Call {
        self.on_user(&scripts::LIST_MARK, user, now)
            .arg(meeting.as_str())
            .arg(flag(has_moved))
            .int(MARKS_MAX)
            .int(number(self.settings.history_ttl_ms.saturating_add(MARKS_KEPT_MS)))
            .repeatable()
    }

    fn drop_mark(&self, user: &str, meeting: &RoomId) -> Call {
        Call::command("HDEL").arg(self.meeting_key(meeting, ":marks")).arg(user).repeatable()
    }

    fn unlist_mark(&self, user: &str, meeting: &RoomId) -> Call {
        Call::command("ZREM").arg(self.user_key(user, ":marks")).arg(meeting.as_str()).repeatable()
    }

    /// Takes marks away that were pushed out of their user's list.
    async fn drop_displaced(&self, user: &str, listed: Result<Value, CallError>, now: u64) -> Result<(), StoreError> {
        let displaced = self.read(listed, now, |value| Fields::of(value)?.all(reply::text))?;
        let calls = displaced.iter().map(|meeting| self.drop_mark(user, &RoomId::new(meeting))).collect();
        self.batch(calls, now).await.map(drop)
    }

    /// Makes calls, each of which must succeed.
    async fn batch(&self, mut calls: Vec<Call>, now: u64) -> Result<Vec<Value>, StoreError> {
        let mut values = Vec::with_capacity(calls.len());
        while !calls.is_empty() {
            let rest = calls.split_off(calls.len().min(BATCH));
            for answer in self.redis.calls(calls).await {
                values.push(self.read(answer, now, Some)?);
            }
            calls = rest;
        }
        Ok(values)
    }

    /// Makes one call.
    fn ask<'a, T: 'a>(
        &'a self,
        call: Call,
        now: u64,
        read: impl FnOnce(Value) -> Option<T> + Send + 'a,
    ) -> Answer<'a, T> {
        let answer = self.redis.call(call);
        Answer::later(async move { self.read(answer.await, now, read) })
    }

    fn read<T>(
        &self,
        answer: Result<Value, CallError>,
        now: u64,
        read: impl FnOnce(Value) -> Option<T>,
    ) -> Result<T, StoreError> {
        let value = answer.map_err(|error| self.failed(&error, now))?;
        read(value).ok_or_else(|| {
            count(&self.failures.malformed);
            self.warn(now, || log::error!("Redis answers what cannot be read"));
            StoreError::Broken
        })
    }

    fn failed(&self, error: &CallError, now: u64) -> StoreError {
        let failures = &self.failures;
        let retry_after_ms = match error {
            CallError::Server { .. } => RETRY_REFUSED_MS,
            _ => RETRY_MS,
        };
        match error {
            // The connection says so itself.
            CallError::Away => count(&failures.away),
            CallError::Full => count(&failures.full),
            CallError::Unknown => count(&failures.unknown),
            CallError::NotReplicated => {
                count(&failures.not_replicated);
                self.warn(now, || log::warn!("too few replicas have what was written (REDIS_MIN_REPLICAS)"));
            }
            CallError::Server { code, message } if is_broken(code, message) => {
                count(&failures.malformed);
                self.warn(now, || log::error!("what Redis holds cannot be used: {code} {message}"));
                return StoreError::Broken;
            }
            CallError::Server { code, message } => {
                count(&failures.refused);
                self.warn(now, || log::warn!("Redis refuses: {code} {message}"));
            }
        }
        StoreError::Unavailable { retry_after_ms }
    }

    fn warn(&self, now: u64, warn: impl FnOnce()) {
        // ORDERING: Relaxed. Two at once do not matter.
        let warned_at = self.warned_at.load(Ordering::Relaxed);
        if now.abs_diff(warned_at) >= WARNING_PAUSE_MS {
            self.warned_at.store(now, Ordering::Relaxed);
            warn();
        }
    }

    fn note_waiting(&self, waiting: Waiting) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
    }

    fn waiting(&self) -> Waiting {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The call that logs an event, its kind, and its content.
    fn append_call(&self, append: Append, now: u64) -> (Call, Kind, Content) {
        let Append { meeting, author, change, known } = append;
        let call = self.on_meeting(&scripts::APPEND, &meeting, known.as_ref(), now);
        let start = |kind: Kind, id: Option<MessageId>, content: &Content| {
            let frame = frame::event(&self.channels, &self.settings.instance, &meeting, kind, id, &content.json);
            let tail = tail(content);
            call.int(kind as u64)
                .arg(&*author)
                .arg(id.map(|id| id.to_string()).unwrap_or_default())
                .arg(tail)
                .int(erasable_from(content, tail))
                .arg(frame.channel)
                .arg(frame.head)
                .arg(frame.content)
                .arg(frame.tail)
        };
        let (call, kind, content) = match change {
            Change::Message { id, content, client_id, fingerprint, reply_to } => {
                let kind = Kind::ChatMessage;
                let call = start(kind, Some(id), &content)
                    .arg(client_id.unwrap_or_default().as_bytes())
                    .int(fingerprint)
                    .arg(reply_to.map(|id| id.to_string()).unwrap_or_default());
                (call.repeatable(), kind, content)
            }
            // Twice would be two versions.
            Change::Edit { id, content, is_moderator } => {
                let kind = Kind::MessageEdited;
                (start(kind, Some(id), &content).arg(flag(is_moderator)), kind, content)
            }
            Change::Delete { id, content, is_moderator } => {
                let kind = Kind::MessageDeleted;
                (start(kind, Some(id), &content).arg(flag(is_moderator)).repeatable(), kind, content)
            }
            Change::React { id, content, emoji, is_removal } => {
                let kind = Kind::MessageReaction;
                let call = start(kind, Some(id), &content).arg(emoji.as_bytes()).arg(flag(is_removal));
                (call.repeatable(), kind, content)
            }
            Change::Update { content, event_id } => {
                let kind = Kind::MeetingUpdate;
                (start(kind, None, &content).arg(event_id.as_bytes()).repeatable(), kind, content)
            }
        };
        (call.replicated().within(self.settings.wait), kind, content)
    }
}

impl Store for RedisStore {
    fn append(&self, append: Append, now: u64) -> Answer<'_, Appended> {
        let Some(pending) = self.pending.take() else {
            count(&self.failures.full);
            return Answer::ready(Err(StoreError::Unavailable { retry_after_ms: RETRY_MS }));
        };
        let (call, kind, content) = self.append_call(append, now);
        let answer = self.redis.call(call);
        Answer::later(async move {
            let answer = answer.await;
            drop(pending);
            self.read(answer, now, |value| meeting::appended(value, kind, tail(&content)))?
        })
    }

    fn open(&self, open: Open, now: u64) -> Answer<'_, Opened> {
        let (has_since, since) = match &open.since {
            Some(since) => (true, (&*since.epoch, since.seq)),
            None => (false, ("", 0)),
        };
        let call = self
            .on_meeting(&scripts::OPEN, &open.meeting, open.known.as_ref(), now)
            .arg(open.reader.as_deref().unwrap_or_default())
            .arg(flag(has_since))
            .arg(since.0)
            .int(number(since.1))
            .int(number(open.limit as u64))
            .int(number(self.settings.answer_max_bytes as u64))
            .repeatable();
        let Some(reader) = open.reader else { return self.ask(call, now, meeting::opened) };
        // Listed first: a mark that is not listed would never be told.
        let answers = self.redis.calls(vec![self.list_mark(&reader, &open.meeting, false, now), call]);
        Answer::later(async move {
            let mut answers = answers.await.into_iter();
            let (Some(listed), Some(opened)) = (answers.next(), answers.next()) else {
                return Err(self.failed(&CallError::Unknown, now));
            };
            let opened = self.read(opened, now, meeting::opened)?;
            self.drop_displaced(&reader, listed, now).await?;
            Ok(opened)
        })
    }

    fn check(&self, meetings: Vec<Known>, now: u64) -> Answer<'_, Vec<Standing>> {
        let check = |known: &Known| {
            self.on_meeting(&scripts::CHECK, &known.meeting, known.known.as_ref(), now).early().repeatable()
        };
        let calls = meetings.iter().map(check).collect();
        Answer::later(async move {
            let values = self.batch(calls, now).await?;
            values.into_iter().map(|value| self.read(Ok(value), now, meeting::standing)).collect()
        })
    }

    fn range(&self, range: Range, now: u64) -> Answer<'_, Page> {
        let (from, seq) = beginning(range.from);
        let kinds: String = range.kinds.iter().filter_map(|kind| char::from_digit(*kind as u32, 10)).collect();
        let call = self
            .on_meeting(&scripts::RANGE, &range.meeting, None, now)
            .arg(range.epoch.as_deref().unwrap_or_default())
            .arg(from)
            .int(number(seq))
            .int(number(range.limit as u64))
            .arg(kinds)
            .int(number(self.settings.answer_max_bytes as u64))
            .repeatable();
        let answer = self.redis.call(call);
        Answer::later(async move { self.read(answer.await, now, meeting::page)? })
    }

    fn mark_read(&self, meeting: &RoomId, user: &Arc<str>, seq: u64, now: u64) -> Answer<'_, Marked> {
        let call =
            self.on_meeting(&scripts::MARK, meeting, None, now).arg(user.as_bytes()).int(number(seq)).repeatable();
        let (meeting, user) = (meeting.clone(), Arc::clone(user));
        let answer = self.redis.call(call);
        Answer::later(async move {
            let marked = self.read(answer.await, now, meeting::marked)?;
            if marked.has_moved {
                let listed = self.redis.call(self.list_mark(&user, &meeting, true, now)).await;
                self.drop_displaced(&user, listed, now).await?;
            }
            Ok(marked)
        })
    }

    fn readers(&self, meeting: &RoomId, now: u64) -> Answer<'_, Vec<Arc<str>>> {
        let call = Call::command("HKEYS").arg(self.meeting_key(meeting, ":marks")).repeatable();
        self.ask(call, now, |value| Fields::of(value)?.all(|user| Some(reply::text(user)?.into())))
    }

    fn unread(&self, user: &str, now: u64) -> Answer<'_, Unread> {
        let user: Arc<str> = user.into();
        let answer = self.redis.call(self.on_user(&scripts::SUMMARY, &user, now).repeatable());
        Answer::later(async move {
            let Summary { unread, marked, .. } = self.read(answer.await, now, Summary::read)?;
            let mut meetings = Vec::new();
            for part in marked.chunks(BATCH) {
                let ask = |meeting: &RoomId| {
                    let log = Call::command("HMGET").arg(self.meeting_key(meeting, ":meta")).arg("n").arg("t");
                    let mark = Call::command("HGET").arg(self.meeting_key(meeting, ":marks")).arg(user.as_bytes());
                    [log.repeatable(), mark.repeatable()]
                };
                let mut answers = self.redis.calls(part.iter().flat_map(ask).collect()).await.into_iter();
                for meeting in part {
                    let (Some(log), Some(mark)) = (answers.next(), answers.next()) else { break };
                    match (log, mark) {
                        (Ok(log), Ok(mark)) => {
                            meetings.extend(unread_in(log, mark).map(|(at, unread)| (at, meeting.clone(), unread)));
                        }
                        // A key of another type: that meeting is left out, the others are told.
                        (Err(CallError::Server { code, .. }), _) | (_, Err(CallError::Server { code, .. }))
                            if &*code == "WRONGTYPE" => {}
                        (Err(error), _) | (_, Err(error)) => return Err(self.failed(&error, now)),
                    }
                }
            }
            meetings.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
            let is_truncated = meetings.len() > UNREAD_MEETINGS_MAX;
            meetings.truncate(UNREAD_MEETINGS_MAX);
            let meetings = meetings.into_iter().map(|(_, meeting, unread)| (meeting, unread)).collect();
            Ok(Unread { notifications: unread, meetings, is_truncated })
        })
    }

    fn notify(&self, user: &Arc<str>, notification: Notification, now: u64) -> Answer<'_, Notified> {
        let Notification { id, json, is_kept, expires_at } = notification;
        let frame = frame::notification(&self.channels, user, &json);
        let call = self
            .on_user(&scripts::NOTIFY, user, now)
            .arg(id.as_bytes())
            .arg(flag(is_kept))
            .int(expires_at.map_or(0, |at| number(at.max(1))))
            .arg(fields(&json))
            .arg(frame.channel)
            .arg(frame.head)
            .arg(frame.content)
            .arg(frame.tail)
            .replicated()
            .repeatable();
        self.ask(call, now, move |value| {
            let json = match reply::number(&value)? {
                0 => None,
                nseq => Some(note_payload(nseq, fields(&json), false)),
            };
            Some(Notified { json })
        })
    }

    fn inbox(&self, user: &str, range: InboxRange, now: u64) -> Answer<'_, InboxPage> {
        let (from, nseq) = beginning(range.from);
        let call = self
            .on_user(&scripts::INBOX, user, now)
            .arg(from)
            .int(number(nseq))
            .int(number(range.limit as u64))
            .arg(flag(range.unread_only))
            .repeatable();
        self.ask(call, now, |value| {
            let mut fields = Fields::of(value)?;
            let (has_more, unread) = (fields.flag()?, u32::try_from(fields.number()?).ok()?);
            let items = fields.list()?.all(|note| note_of(&reply::bytes(note)?))?;
            Some(InboxPage { items, has_more, unread })
        })
    }

    fn read_inbox(&self, user: &str, which: Read, now: u64) -> Answer<'_, InboxRead> {
        let call = self.on_user(&scripts::READ, user, now).repeatable();
        let call = match &which {
            Read::UpTo(nseq) => call.int(number(*nseq)),
            Read::Ids(ids) => ids.iter().fold(call.int(0), |call, id| call.arg(id.as_bytes())),
        };
        self.ask(call, now, |value| {
            let mut fields = Fields::of(value)?;
            Some(InboxRead { unread: u32::try_from(fields.number()?).ok()?, has_changed: fields.flag()? })
        })
    }

    fn claim(&self, key: &str, ttl_ms: u64, now: u64) -> Answer<'_, bool> {
        // A word of our own tells our claim from another's, if the call came twice.
        let call = Call::script(&scripts::CLAIM, 1)
            .arg(format!("{}claim:{key}", self.settings.prefix))
            .int(number(now))
            .int(ttl_ms.min(CLAIM_MAX_MS))
            .arg(new_epoch())
            .repeatable();
        self.ask(call, now, |value| reply::number(&value).map(|is_first| is_first == 1))
    }

    fn hold(&self, key: &str, ttl_ms: u64, now: u64) -> Answer<'_, ()> {
        let ttl_ms = ttl_ms.min(CLAIM_MAX_MS);
        // As the script has it: until when, and whose.
        let held = format!("{} {HELD}", now.saturating_add(ttl_ms));
        let name = format!("{}claim:{key}", self.settings.prefix);
        let call = Call::command("SET").arg(name).arg(held).arg("PX").int(ttl_ms + 60_000).repeatable();
        self.ask(call, now, |_| Some(()))
    }

    fn is_held(&self, key: &str, now: u64) -> Answer<'_, bool> {
        let call = Call::command("GET").arg(format!("{}claim:{key}", self.settings.prefix)).repeatable();
        self.ask(call, now, move |value| match value {
            Value::Nil => Some(false),
            value => {
                let text = reply::text(value)?;
                let (until, word) = text.split_once(' ')?;
                Some(word == HELD && now < until.parse().ok()?)
            }
        })
    }

    fn close_at(&self, meeting: &RoomId, at: Option<u64>, now: u64) -> Answer<'_, Option<u64>> {
        let at = at.map(|at| number(at).to_string()).unwrap_or_default();
        let call = self.on_meeting(&scripts::CLOSE, meeting, None, now).arg(at);
        self.ask(call, now, |value| match reply::bytes(value)?.as_slice() {
            b"" => Some(None),
            before => Some(Some(parse(before)?)),
        })
    }

    fn closes_at(&self, meeting: &RoomId, now: u64) -> Answer<'_, Option<u64>> {
        let call = Call::command("HGET").arg(self.meeting_key(meeting, ":meta")).arg("c").repeatable();
        self.ask(call, now, |value| match value {
            Value::Nil => Some(None),
            at => Some(Some(reply::number(&at)?)),
        })
    }

    fn set_reminders(&self, meeting: &RoomId, reminders: Reminders, now: u64) -> Answer<'_, ()> {
        let call = self
            .on_reminders(&scripts::SET_REMINDERS)
            .arg(meeting.as_str())
            .int(number(reminders.starts_at))
            .arg(reminders::write_recipients(reminders.recipients.as_deref()))
            .arg(reminders::write_title(reminders.title.as_deref()));
        let call = reminders.due.iter().fold(call, |call, (at, offset)| call.int(number(*at)).arg(offset.as_bytes()));
        self.ask(call, now, |value| {
            self.note_waiting(reminders::waiting(value)?);
            Some(())
        })
    }

    fn take_reminders(&self, now: u64) -> Answer<'_, Vec<Reminder>> {
        let again_at = number(now.saturating_add(REMINDER_TAKEN_MS));
        let call = self.on_reminders(&scripts::TAKE_REMINDERS).int(number(now)).int(again_at).int(TAKEN_MAX);
        self.ask(call, now, |value| {
            let (waiting, taken) = reminders::taken(value)?;
            self.note_waiting(waiting);
            Some(taken)
        })
    }

    fn drop_reminder(&self, reminder: &Reminder, now: u64) -> Answer<'_, ()> {
        let call = self
            .on_reminders(&scripts::DROP_REMINDER)
            .arg(reminder.meeting.as_str())
            .int(number(reminder.starts_at))
            .arg(reminder.offset.as_bytes())
            .repeatable();
        self.ask(call, now, |value| {
            self.note_waiting(reminders::waiting(value)?);
            Some(())
        })
    }

    fn next_reminder(&self) -> Option<u64> {
        self.waiting().next
    }

    fn add_participants(&self, _meeting: &RoomId, _users: &[Arc<str>], _now: u64) -> Answer<'_, ()> {
        // Other services write who takes part.
        Answer::ready(Ok(()))
    }

    fn remove_participants(&self, meeting: &RoomId, users: &[Arc<str>], now: u64) -> Answer<'_, ()> {
        let calls = users.iter().flat_map(|user| [self.unlist_mark(user, meeting), self.drop_mark(user, meeting)]);
        let calls = calls.collect();
        Answer::later(async move { self.batch(calls, now).await.map(drop) })
    }

    fn participant(&self, meeting: &RoomId, user: &str, now: u64) -> Answer<'_, Option<Participation>> {
        // Others' key: it has their name, and not our prefix.
        let key = format!("meeting:{}:participants", meeting.as_str());
        let call = Call::script(&scripts::PARTICIPANT, 1).arg(key).arg(user).repeatable();
        self.ask(call, now, |value| {
            Some(match reply::bytes(value)?.as_slice() {
                b"" => None,
                b"read" => Some(Participation::Read),
                b"write" => Some(Participation::Write),
                b"host" => Some(Participation::Host),
                // A word for something else gives nothing.
                _ => None,
            })
        })
    }

    fn has_participants(&self) -> bool {
        // That would be a question to Redis.
        true
    }

    fn erase_meeting(&self, meeting: &RoomId, now: u64) -> Answer<'_, u64> {
        let meeting = meeting.clone();
        let readers = self.readers(&meeting, now);
        Answer::later(async move {
            // The lists first: whoever joins meanwhile is listed, and has no mark.
            let calls = readers.await?.iter().map(|reader| self.unlist_mark(reader, &meeting)).collect();
            self.batch(calls, now).await?;
            let drop_plan = Reminders::default();
            self.set_reminders(&meeting, drop_plan, now).await?;
            self.ask(self.on_meeting(&scripts::ERASE, &meeting, None, now), now, |value| reply::number(&value)).await
        })
    }

    fn erase_user(&self, user: &str, now: u64) -> Answer<'_, u64> {
        let user: Arc<str> = user.into();
        let answer = self.redis.call(self.on_user(&scripts::SUMMARY, &user, now).repeatable());
        Answer::later(async move {
            let Summary { kept, marked, .. } = self.read(answer.await, now, Summary::read)?;
            // The list goes last: if this ends half way, it can be done again.
            let calls = marked.iter().map(|meeting| self.drop_mark(&user, meeting)).collect();
            let dropped = self.batch(calls, now).await?.iter().filter_map(reply::number).sum::<u64>();
            let keys = [":inbox", ":notes", ":marks"];
            let call = keys.iter().fold(Call::command("UNLINK"), |call, name| call.arg(self.user_key(&user, name)));
            self.batch(vec![call.repeatable()], now).await?;
            Ok(kept + dropped)
        })
    }

    fn sweep(&self, _now: u64) -> Answer<'_, ()> {
        // Whatever nobody uses expires, and what is used drops what is too old when it is.
        Answer::ready(Ok(()))
    }

    fn usage(&self) -> Usage {
        Usage {
            pending: self.pending.taken(),
            failures: self.failures(),
            reminders: usize::try_from(self.waiting().count).unwrap_or(usize::MAX),
            ..Usage::default()
        }
    }
}

/// The answer of `summary.lua`.
struct Summary {
    unread: u32,
    /// Notifications in the inbox.
    kept: u64,
    /// Meetings with a mark.
    marked: Vec<RoomId>,
}

impl Summary {
    fn read(value: Value) -> Option<Self> {
        let mut fields = Fields::of(value)?;
        let (unread, kept) = (u32::try_from(fields.number()?).ok()?, fields.number()?);
        let marked = fields.list()?.all(|meeting| Some(RoomId::new(&reply::text(meeting)?)))?;
        Some(Self { unread, kept, marked })
    }
}

/// When a log or a mark in it moved last, and the messages of others above that mark: from the log's number of messages and
/// last time, and the mark as it stands in `meeting.lua`. `None` if there is no mark.
fn unread_in(log: Value, mark: Value) -> Option<(u64, u32)> {
    let mut log = Fields::of(log)?;
    let (total, last_ts) = (log.number().unwrap_or(0), log.number().unwrap_or(0));
    let mark = reply::text(mark)?;
    let mut mark = mark.split(' ').map(|number| parse(number.as_bytes()));
    let _seq: Option<u64> = mark.next()?;
    let (total_at, own, moved_at): (u64, u64, u64) = (mark.next()??, mark.next()??, mark.next()??);
    let unread = total.saturating_sub(total_at).saturating_sub(own).min(UNREAD_MAX);
    Some((last_ts.max(moved_at), unread as u32))
}

/// Whether a script failed at what the keys hold, and will again.
fn is_broken(code: &str, message: &str) -> bool {
    // Lua's own errors say where without an `@`; what the server refuses within a script says `@user_script`.
    let is_of_lua = message.starts_with("user_script:") || message.contains(" user_script:");
    code == "WRONGTYPE" || (code == "ERR" && is_of_lua)
}

/// A notification as it lies in an inbox: see `NOTE` in `user.lua`.
fn note_of(note: &[u8]) -> Option<String> {
    let (is_read, rest) = note.split_first()?;
    let (nseq, rest) = rest.split_first_chunk()?;
    let (_at_and_expiry, rest) = rest.split_first_chunk::<16>()?;
    let (id_bytes, rest) = rest.split_first_chunk()?;
    let (_id, fields) = rest.split_at_checked(usize::from(u16::from_be_bytes(*id_bytes)))?;
    Some(note_payload(u64::from_be_bytes(*nseq), str::from_utf8(fields).ok()?, *is_read == 1))
}

/// A content without its opening brace.
fn tail(content: &Content) -> &str {
    content.json.strip_prefix('{').unwrap_or(&content.json)
}

/// Where in a content without its brace begins what a deletion erases, from 1; 0 if nothing does.
fn erasable_from(content: &Content, tail: &str) -> u64 {
    let Some(from) = content.erasable_from else { return 0 };
    // Better nothing of the message than what should be erased, if the place makes no sense.
    let in_tail = usize::try_from(from).ok().and_then(|from| from.checked_sub(content.json.len() - tail.len()));
    in_tail.filter(|from| tail.is_char_boundary(*from)).map_or(1, |from| from as u64 + 1)
}

fn beginning(from: From) -> (&'static str, u64) {
    match from {
        From::Top => ("top", 0),
        From::Before(number) => ("before", number),
        From::After(number) => ("after", number),
    }
}

fn flag(is_set: bool) -> &'static str {
    if is_set { "1" } else { "0" }
}

/// A number that Lua can hold.
fn number(number: u64) -> u64 {
    number.min(NUMBER_MAX)
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
