//! One meeting: its log, who has read how far, and who takes part.
//!
//! A plain value: whoever calls has it to themselves. Each method that can see old events drops those that are past
//! their time first, so that what was not swept yet does not show.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem::size_of,
    sync::Arc,
};

use crate::{
    store::{
        Append, Appended, Change, Content, ERASED, From, Kind, LogEvent, Marked, Missed, Open, Opened, Page, Place,
        Position, Range, Standing, StoreError,
        memory::{
            MemoryLimits,
            recent::{Logged, Recent},
            table::Weigh,
        },
        new_epoch, payload,
    },
    types::MessageId,
};

/// One meeting's log and what belongs to it.
pub(super) struct Meeting {
    epoch: Arc<str>,
    /// The last event's seq; 0 if there was none.
    top: u64,
    /// The last event's.
    last_ts: u64,
    /// Messages that were ever logged.
    total: u64,
    /// The last events, without holes: the last one is `top`.
    items: VecDeque<Item>,
    /// Those whose `chat_message` is among `items`.
    messages: HashMap<MessageId, Message>,
    /// By author.
    sent: HashMap<Arc<str>, Recent>,
    updates: Recent,
    marks: HashMap<Arc<str>, Mark>,
    participants: HashSet<Arc<str>>,
    closes_at: Option<u64>,
    /// The last append or open, in ms since the epoch.
    used_at: u64,
    /// Bytes of `items`, `messages`, `sent` and `updates`.
    content_bytes: usize,
    /// Bytes of `marks` and `participants`.
    people_bytes: usize,
}

/// An event of the log; its seq follows from where it stands.
struct Item {
    kind: Kind,
    json: Arc<str>,
    ts: u64,
    /// [`Meeting::total`], this event included.
    total: u64,
    author: Arc<str>,
    id: Option<MessageId>,
    /// Where in `json` begins what a deletion erases.
    erasable_from: Option<u32>,
}

struct Message {
    author: Arc<str>,
    made: Spot,
    /// The last event about it.
    last: Spot,
    version: u32,
    deleted: Option<Spot>,
    /// The seqs of its edits; some may be out of the log already.
    edits: Vec<u64>,
    reactions: Vec<Reaction>,
}

#[derive(Clone, Copy)]
struct Spot {
    seq: u64,
    ts: u64,
}

/// An emoji that somebody has put on a message.
struct Reaction {
    emoji: Box<str>,
    users: HashMap<Arc<str>, Spot>,
}

/// How far somebody has read. Unread is what was logged since, without their own: `total - total_at - own_above`.
struct Mark {
    seq: u64,
    /// [`Meeting::total`] at `seq`.
    total_at: u64,
    /// Their own messages above `seq`.
    own_above: u64,
    /// When it was last moved.
    moved_at: u64,
}

/// An author may edit a message until it is so old, in ms: 24 h.
const EDITABLE_MS: u64 = 24 * 60 * 60 * 1000;
/// Different emoji on one message.
const EMOJI_MAX: usize = 20;
/// `client_id`s of an author in a meeting that are remembered however old they are.
const SENT_KEPT: usize = 1000;
/// The same of `event_id`s.
const UPDATES_KEPT: usize = 16;
/// Most messages that are counted as unread.
const UNREAD_MAX: u64 = 999;

/// What a map or set takes for an entry: they keep up to half of their room free.
const fn map_entry_bytes<T>() -> usize {
    2 * size_of::<T>()
}

/// The counts that every shared text begins with, and what the allocator adds.
const SHARED_BYTES: usize = 32;
/// A meeting without anything: itself, its lock, its key and its place in the table.
const MEETING_BYTES: usize = size_of::<Meeting>() + 256;
const ITEM_BYTES: usize = size_of::<Item>() * 3 / 2 + SHARED_BYTES;
const MESSAGE_BYTES: usize = map_entry_bytes::<(MessageId, Message)>();
const AUTHOR_BYTES: usize = map_entry_bytes::<(Arc<str>, Recent)>();
const REACTION_BYTES: usize = 2 * size_of::<Reaction>();
const REACTING_BYTES: usize = map_entry_bytes::<(Arc<str>, Spot)>();
const MARK_BYTES: usize = map_entry_bytes::<(Arc<str>, Mark)>() + SHARED_BYTES;
const PARTICIPANT_BYTES: usize = map_entry_bytes::<Arc<str>>() + SHARED_BYTES;

impl Weigh for Meeting {
    fn bytes(&self) -> usize {
        MEETING_BYTES + self.content_bytes + self.people_bytes
    }
}

impl Meeting {
    /// A new life of a log.
    pub(super) fn new(now: u64) -> Self {
        Self {
            epoch: new_epoch().into(),
            top: 0,
            last_ts: 0,
            total: 0,
            items: VecDeque::new(),
            messages: HashMap::new(),
            sent: HashMap::new(),
            updates: Recent::default(),
            marks: HashMap::new(),
            participants: HashSet::new(),
            closes_at: None,
            used_at: now,
            content_bytes: 0,
            people_bytes: 0,
        }
    }

    /// When an event was last appended or the meeting opened, in ms since the epoch.
    pub(super) fn used_at(&self) -> u64 {
        self.used_at
    }

    /// Whether there is something that [`drop_contents`](Self::drop_contents) would drop.
    pub(super) fn has_contents(&self) -> bool {
        self.content_bytes > 0
    }

    /// How many events are kept.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// See [`Store::append`](crate::store::Store::append).
    pub(super) fn append(&mut self, append: Append, limits: &MemoryLimits, now: u64) -> Result<Appended, StoreError> {
        self.used_at = now;
        self.trim(limits, now);
        let Append { author, change, .. } = append;
        let appended = match change {
            Change::Message { id, content, client_id, fingerprint, reply_to } => {
                self.send(id, author, &content, client_id.as_deref(), fingerprint, reply_to, now)
            }
            Change::Edit { id, content, is_moderator } => self.edit(id, &author, &content, is_moderator, now),
            Change::Delete { id, content, is_moderator } => self.delete(id, &author, &content, is_moderator, now),
            Change::React { id, content, emoji, is_removal: false } => self.react(id, &author, &content, emoji, now),
            Change::React { id, content, emoji, is_removal: true } => self.unreact(id, &author, &content, &emoji, now),
            Change::Update { content, event_id } => Ok(self.update(author, &content, &event_id, now)),
        };
        self.trim(limits, now);
        appended
    }

    #[expect(clippy::too_many_arguments, reason = "one for each field of `Change::Message`")]
    fn send(
        &mut self,
        id: MessageId,
        author: Arc<str>,
        content: &Content,
        client_id: Option<&str>,
        fingerprint: u64,
        reply_to: Option<MessageId>,
        now: u64,
    ) -> Result<Appended, StoreError> {
        // Before anything else: whoever asks again wants to know what became of it then.
        if let Some(client_id) = client_id
            && let Some(recent) = self.sent.get_mut(&author)
        {
            self.content_bytes -= recent.forget(SENT_KEPT, now);
            match recent.find(client_id) {
                Some(logged) if logged.fingerprint == fingerprint => {
                    let target = reply_to.and_then(|target| self.messages.get(&target));
                    let reply_author = target.map(|message| Arc::clone(&message.author));
                    return Ok(Appended { reply_author, ..self.repeated(logged) });
                }
                Some(_) => return Err(StoreError::ClientIdReused),
                None => {}
            }
        }
        self.check_open(now)?;
        let reply_author = match reply_to {
            Some(target) => {
                let target = self.messages.get(&target).filter(|message| message.deleted.is_none());
                Some(Arc::clone(&target.ok_or(StoreError::NoReplyTarget)?.author))
            }
            None => None,
        };

        let appended = self.log(Kind::ChatMessage, Some(id), &author, None, content, now);
        let made = Spot { seq: appended.place.seq, ts: appended.place.ts };
        if let Some(mark) = self.marks.get_mut(&author) {
            mark.own_above += 1;
        }
        if let Some(client_id) = client_id {
            let recent = self.sent.entry(Arc::clone(&author)).or_insert_with(|| {
                self.content_bytes += AUTHOR_BYTES;
                Recent::default()
            });
            let logged = Logged { fingerprint, id: Some(id), seq: made.seq, ts: made.ts };
            self.content_bytes += recent.insert(client_id, logged);
        }
        let message =
            Message { author, made, last: made, version: 0, deleted: None, edits: Vec::new(), reactions: Vec::new() };
        self.content_bytes += message.bytes();
        if let Some(replaced) = self.messages.insert(id, message) {
            self.content_bytes -= replaced.bytes();
        }
        Ok(Appended { reply_author, ..appended })
    }

    fn edit(
        &mut self,
        id: MessageId,
        author: &Arc<str>,
        content: &Content,
        is_moderator: bool,
        now: u64,
    ) -> Result<Appended, StoreError> {
        let message = self.messages.get(&id).ok_or(StoreError::NoMessage)?;
        self.check_open(now)?;
        let is_own = message.author == *author && now.saturating_sub(message.made.ts) <= EDITABLE_MS;
        if !is_moderator && !is_own {
            return Err(StoreError::NotAllowed);
        }
        if message.deleted.is_some() {
            return Err(StoreError::Deleted);
        }
        let version = message.version.saturating_add(1);

        let appended = self.log(Kind::MessageEdited, Some(id), author, Some(("version", version.into())), content, now);
        let first_seq = self.first_seq();
        self.change(id, |message| {
            message.version = version;
            message.last = Spot { seq: appended.place.seq, ts: appended.place.ts };
            message.edits.retain(|seq| *seq >= first_seq);
            message.edits.push(appended.place.seq);
        });
        Ok(Appended { version, ..appended })
    }

    fn delete(
        &mut self,
        id: MessageId,
        author: &Arc<str>,
        content: &Content,
        is_moderator: bool,
        now: u64,
    ) -> Result<Appended, StoreError> {
        let message = self.messages.get(&id).ok_or(StoreError::NoMessage)?;
        let may_delete = is_moderator || message.author == *author;
        if let Some(deleted) = message.deleted
            && may_delete
        {
            return Ok(self.unchanged(id, deleted));
        }
        self.check_open(now)?;
        if !may_delete {
            return Err(StoreError::NotAllowed);
        }

        for seq in message.edits.iter().copied().chain([message.made.seq]).collect::<Vec<_>>() {
            self.erase(seq);
        }
        let appended = self.log(Kind::MessageDeleted, Some(id), author, None, content, now);
        let deleted = Spot { seq: appended.place.seq, ts: appended.place.ts };
        self.change(id, |message| {
            message.deleted = Some(deleted);
            message.last = deleted;
            message.edits = Vec::new();
            message.reactions = Vec::new();
        });
        Ok(appended)
    }

    fn react(
        &mut self,
        id: MessageId,
        user: &Arc<str>,
        content: &Content,
        emoji: Box<str>,
        now: u64,
    ) -> Result<Appended, StoreError> {
        let message = self.reactive(id, now)?;
        let count = match message.reactions.iter().find(|reaction| reaction.emoji == emoji) {
            Some(reaction) => match reaction.users.get(user) {
                Some(done) => return Ok(self.unchanged(id, *done)),
                None => reaction.users.len() + 1,
            },
            None if message.reactions.len() >= EMOJI_MAX => return Err(StoreError::TooManyReactions),
            None => 1,
        };

        let count = Some(("count", count as u64));
        let appended = self.log(Kind::MessageReaction, Some(id), user, count, content, now);
        let done = Spot { seq: appended.place.seq, ts: appended.place.ts };
        self.change(id, |message| {
            message.last = done;
            match message.reactions.iter_mut().find(|reaction| reaction.emoji == emoji) {
                Some(reaction) => {
                    reaction.users.insert(Arc::clone(user), done);
                }
                None => message.reactions.push(Reaction { emoji, users: [(Arc::clone(user), done)].into() }),
            }
        });
        Ok(appended)
    }

    fn unreact(
        &mut self,
        id: MessageId,
        user: &Arc<str>,
        content: &Content,
        emoji: &str,
        now: u64,
    ) -> Result<Appended, StoreError> {
        let message = self.reactive(id, now)?;
        let reaction = message.reactions.iter().find(|reaction| *reaction.emoji == *emoji);
        let Some(reaction) = reaction.filter(|reaction| reaction.users.contains_key(user)) else {
            return Ok(self.unchanged(id, message.last));
        };

        let count = Some(("count", reaction.users.len() as u64 - 1));
        let appended = self.log(Kind::MessageReaction, Some(id), user, count, content, now);
        self.change(id, |message| {
            message.last = Spot { seq: appended.place.seq, ts: appended.place.ts };
            message.reactions.retain_mut(|reaction| {
                if *reaction.emoji == *emoji {
                    reaction.users.remove(user);
                }
                !reaction.users.is_empty()
            });
        });
        Ok(appended)
    }

    fn update(&mut self, author: Arc<str>, content: &Content, event_id: &str, now: u64) -> Appended {
        self.content_bytes -= self.updates.forget(UPDATES_KEPT, now);
        if let Some(logged) = self.updates.find(event_id) {
            return self.repeated(logged);
        }
        let appended = self.log(Kind::MeetingUpdate, None, &author, None, content, now);
        let logged = Logged { fingerprint: 0, id: None, seq: appended.place.seq, ts: appended.place.ts };
        self.content_bytes += self.updates.insert(event_id, logged);
        appended
    }

    /// See [`Store::open`](crate::store::Store::open), but for the mark.
    pub(super) fn open(&mut self, open: &Open, limits: &MemoryLimits, now: u64) -> Opened {
        self.used_at = now;
        self.trim(limits, now);
        let first_seq = self.first_seq();
        let seq = self.top;
        let (recovered, count) = match &open.since {
            None => (None, (open.limit as u64).min(seq)),
            Some(since) => match self.missed(since.epoch == self.epoch, since.seq, open.limit) {
                Ok(count) => (Some(Ok(())), count),
                Err(missed) => (Some(Err(missed)), 0),
            },
        };
        let events = self.events((seq - count).max(first_seq - 1));
        Opened { epoch: Arc::clone(&self.epoch), seq, first_seq, recovered, events }
    }

    /// How many events somebody has missed who has seen all up to `since`.
    fn missed(&self, is_same_epoch: bool, since: u64, limit: usize) -> Result<u64, Missed> {
        if !is_same_epoch || since > self.top {
            return Err(Missed::Epoch);
        }
        let count = self.top - since;
        if count > 0 && since + 1 < self.first_seq() {
            Err(Missed::Window)
        } else if count > limit as u64 {
            Err(Missed::TooMany)
        } else {
            Ok(count)
        }
    }

    /// See [`Store::check`](crate::store::Store::check). It cannot have gone back.
    pub(super) fn standing(&self) -> Standing {
        Standing { top: Position { epoch: Arc::clone(&self.epoch), seq: self.top }, first_seq: self.first_seq() }
    }

    /// See [`Store::range`](crate::store::Store::range).
    pub(super) fn range(&mut self, range: &Range, limits: &MemoryLimits, now: u64) -> Result<Page, StoreError> {
        self.trim(limits, now);
        if range.epoch.as_ref().is_some_and(|epoch| *epoch != self.epoch) {
            return Err(StoreError::EpochDiffers);
        }
        let wanted = |event: &LogEvent| range.kinds.is_empty() || range.kinds.contains(&event.kind);
        // One more than asked for tells whether there are more.
        let most = range.limit.saturating_add(1);
        let mut items: Vec<_> = match range.from {
            From::Top => self.all().rev().filter(wanted).take(most).collect(),
            From::Before(seq) => self.all().rev().filter(|event| event.seq < seq).filter(wanted).take(most).collect(),
            From::After(seq) => self.all().filter(|event| event.seq > seq).filter(wanted).take(most).collect(),
        };
        let has_more = items.len() > range.limit;
        items.truncate(range.limit);
        if !matches!(range.from, From::After(_)) {
            items.reverse();
        }
        Ok(Page { epoch: Arc::clone(&self.epoch), top_seq: self.top, first_seq: self.first_seq(), items, has_more })
    }

    /// Moves a mark forward, or makes it.
    pub(super) fn mark_read(&mut self, user: &Arc<str>, seq: u64, limits: &MemoryLimits, now: u64) -> Marked {
        self.trim(limits, now);
        let seq = seq.min(self.top);
        match self.marks.get(user) {
            Some(mark) if mark.seq >= seq => Marked { seq: mark.seq, has_moved: false },
            _ => Marked { seq: self.set_mark(user, seq, now), has_moved: true },
        }
    }

    /// Makes a mark, unless there is one. True if it was made.
    pub(super) fn mark_first(&mut self, user: &Arc<str>, seq: u64, now: u64) -> bool {
        let is_new = !self.marks.contains_key(user);
        if is_new {
            self.set_mark(user, seq, now);
        }
        is_new
    }

    /// Puts a mark, and returns where it stands: what is out of the log counts as read.
    fn set_mark(&mut self, user: &Arc<str>, seq: u64, now: u64) -> u64 {
        let first_seq = self.first_seq();
        let seq = seq.clamp(first_seq - 1, self.top);
        let mut above = self.items.iter().skip((seq + 1 - first_seq) as usize).peekable();
        let total_at = above.peek().map_or(self.total, |next| next.total - u64::from(next.kind == Kind::ChatMessage));
        let own_above = above.filter(|item| item.kind == Kind::ChatMessage && item.author == *user).count() as u64;
        let mark = Mark { seq, total_at, own_above, moved_at: now };
        if self.marks.insert(Arc::clone(user), mark).is_none() {
            self.people_bytes += MARK_BYTES + user.len();
        }
        seq
    }

    /// Takes a mark away. False if there was none.
    pub(super) fn drop_mark(&mut self, user: &str) -> bool {
        let was_there = self.marks.remove(user).is_some();
        if was_there {
            self.people_bytes -= MARK_BYTES + user.len();
        }
        was_there
    }

    /// Who has a mark.
    pub(super) fn readers(&self) -> impl Iterator<Item = &Arc<str>> {
        self.marks.keys()
    }

    /// When the log or somebody's mark moved last, and the messages of others above that mark.
    pub(super) fn unread(&self, user: &str) -> Option<(u64, u32)> {
        let mark = self.marks.get(user)?;
        let unread = (self.total - mark.total_at).saturating_sub(mark.own_above).min(UNREAD_MAX);
        Some((self.last_ts.max(mark.moved_at), unread as u32))
    }

    /// Sets when the meeting becomes read-only, and returns what was set before.
    pub(super) fn close_at(&mut self, at: Option<u64>) -> Option<u64> {
        std::mem::replace(&mut self.closes_at, at)
    }

    /// When it becomes read-only.
    pub(super) fn closes_at(&self) -> Option<u64> {
        self.closes_at
    }

    /// Notes participants.
    pub(super) fn add_participants(&mut self, users: &[Arc<str>]) {
        for user in users {
            if self.participants.insert(Arc::clone(user)) {
                self.people_bytes += PARTICIPANT_BYTES + user.len();
            }
        }
    }

    /// Forgets participants.
    pub(super) fn remove_participants(&mut self, users: &[Arc<str>]) {
        for user in users {
            if self.participants.remove(user) {
                self.people_bytes -= PARTICIPANT_BYTES + user.len();
            }
        }
    }

    /// Whether somebody is noted as a participant.
    pub(super) fn is_participant(&self, user: &str) -> bool {
        self.participants.contains(user)
    }

    /// Drops events that are too many or too old.
    pub(super) fn trim(&mut self, limits: &MemoryLimits, now: u64) {
        while self.items.len() > limits.history_size {
            self.drop_first();
        }
        while self.items.front().is_some_and(|item| now.saturating_sub(item.ts) > limits.history_ttl_ms) {
            self.drop_first();
        }
    }

    /// Drops what is past its time, and gives back the room that a burst has left.
    pub(super) fn sweep(&mut self, limits: &MemoryLimits, now: u64) {
        self.trim(limits, now);
        self.content_bytes -= self.updates.forget(UPDATES_KEPT, now);
        for recent in self.sent.values_mut() {
            self.content_bytes -= recent.forget(SENT_KEPT, now);
        }
        if self.items.len() * 4 < self.items.capacity() {
            self.items.shrink_to_fit();
            self.messages.shrink_to_fit();
        }
    }

    /// Drops the log's events and what is remembered of them. The epoch, the top, marks and participants stay: clients are
    /// told that they missed something, and not that there is another log.
    pub(super) fn drop_contents(&mut self) {
        self.items = VecDeque::new();
        self.messages = HashMap::new();
        self.sent = HashMap::new();
        self.updates = Recent::default();
        self.content_bytes = 0;
    }

    /// Drops the oldest events until that has freed so many bytes, and everything else if events do not suffice.
    pub(super) fn drop_oldest(&mut self, bytes: usize) {
        let target = self.content_bytes.saturating_sub(bytes);
        while self.content_bytes > target && !self.items.is_empty() {
            self.drop_first();
        }
        if self.content_bytes > target {
            self.drop_contents();
        }
    }

    /// The first event that is kept; `top + 1` if none is.
    fn first_seq(&self) -> u64 {
        self.top + 1 - self.items.len() as u64
    }

    /// Events above `after`, which is in the log or just before it.
    fn events(&self, after: u64) -> Vec<LogEvent> {
        self.all().skip((after + 1).saturating_sub(self.first_seq()) as usize).collect()
    }

    /// Every event that is kept, ascending.
    fn all(&self) -> impl DoubleEndedIterator<Item = LogEvent> + ExactSizeIterator {
        let first_seq = self.first_seq();
        self.items.iter().enumerate().map(move |(index, item)| LogEvent {
            kind: item.kind,
            epoch: Arc::clone(&self.epoch),
            seq: first_seq + index as u64,
            json: Arc::clone(&item.json),
        })
    }

    /// Puts an event on top of the log.
    fn log(
        &mut self,
        kind: Kind,
        id: Option<MessageId>,
        author: &Arc<str>,
        extra: Option<(&str, u64)>,
        content: &Content,
        now: u64,
    ) -> Appended {
        // A clock may be set back; a log's order is the order of its times.
        let ts = now.max(self.last_ts);
        let seq = self.top + 1;
        self.top = seq;
        self.last_ts = ts;
        self.total += u64::from(kind == Kind::ChatMessage);

        let place = Place { id, seq, epoch: Arc::clone(&self.epoch), ts };
        let tail = content.json.strip_prefix('{').unwrap_or(&content.json);
        let json: Arc<str> = payload(&place, extra, tail).into();
        let in_front = (json.len() - tail.len()) as u32;

        let item = Item {
            kind,
            json: Arc::clone(&json),
            ts,
            total: self.total,
            author: Arc::clone(author),
            id,
            // The content's own brace is not there any more.
            erasable_from: content.erasable_from.map(|from| from.saturating_add(in_front).saturating_sub(1)),
        };
        self.content_bytes += item.bytes();
        self.items.push_back(item);
        let event = LogEvent { kind, epoch: Arc::clone(&place.epoch), seq, json };
        Appended { place, event: Some(event), version: 0, reply_author: None }
    }

    /// Erases the texts of a message from one of its events, if that is in the log.
    fn erase(&mut self, seq: u64) {
        let Some(index) = seq.checked_sub(self.first_seq()) else { return };
        let Some(item) = self.items.get_mut(index as usize) else { return };
        let Some(from) = item.erasable_from.take() else { return };
        self.content_bytes -= item.bytes();
        // Better nothing of the message than what should be erased, if the place makes no sense.
        let kept = item.json.get(..from as usize).unwrap_or("{");
        item.json = format!("{kept}{ERASED}").into();
        self.content_bytes += item.bytes();
    }

    fn drop_first(&mut self) {
        let seq = self.first_seq();
        let Some(item) = self.items.pop_front() else { return };
        self.content_bytes -= item.bytes();
        if item.kind == Kind::ChatMessage
            && let Some(id) = item.id
            && self.messages.get(&id).is_some_and(|message| message.made.seq == seq)
            && let Some(message) = self.messages.remove(&id)
        {
            self.content_bytes -= message.bytes();
        }
    }

    /// Changes what is known of a message.
    fn change(&mut self, id: MessageId, change: impl FnOnce(&mut Message)) {
        if let Some(message) = self.messages.get_mut(&id) {
            self.content_bytes -= message.bytes();
            change(message);
            self.content_bytes += message.bytes();
        }
    }

    /// A message to which reactions can be added.
    fn reactive(&self, id: MessageId, now: u64) -> Result<&Message, StoreError> {
        let message = self.messages.get(&id).ok_or(StoreError::NoMessage)?;
        self.check_open(now)?;
        if message.deleted.is_some() { Err(StoreError::Deleted) } else { Ok(message) }
    }

    fn check_open(&self, now: u64) -> Result<(), StoreError> {
        match self.closes_at {
            Some(at) if at <= now => Err(StoreError::Closed),
            _ => Ok(()),
        }
    }

    fn repeated(&self, logged: Logged) -> Appended {
        let place = Place { id: logged.id, seq: logged.seq, epoch: Arc::clone(&self.epoch), ts: logged.ts };
        Appended { place, event: None, version: 0, reply_author: None }
    }

    fn unchanged(&self, id: MessageId, spot: Spot) -> Appended {
        let place = Place { id: Some(id), seq: spot.seq, epoch: Arc::clone(&self.epoch), ts: spot.ts };
        Appended { place, event: None, version: 0, reply_author: None }
    }

    /// What [`Weigh::bytes`] should be, counted anew.
    #[cfg(test)]
    pub(super) fn recount(&self) -> usize {
        let items: usize = self.items.iter().map(Item::bytes).sum();
        let messages: usize = self.messages.values().map(Message::bytes).sum();
        let sent: usize = self.sent.values().map(|recent| AUTHOR_BYTES + recent.bytes()).sum();
        let marks: usize = self.marks.keys().map(|user| MARK_BYTES + user.len()).sum();
        let participants: usize = self.participants.iter().map(|user| PARTICIPANT_BYTES + user.len()).sum();
        MEETING_BYTES + items + messages + sent + self.updates.bytes() + marks + participants
    }
}

impl Item {
    fn bytes(&self) -> usize {
        ITEM_BYTES + self.json.len()
    }
}

impl Message {
    /// At most as many steps as there are different emoji.
    fn bytes(&self) -> usize {
        let reactions: usize = self.reactions.iter().map(Reaction::bytes).sum();
        MESSAGE_BYTES + self.edits.len() * size_of::<u64>() + reactions
    }
}

impl Reaction {
    fn bytes(&self) -> usize {
        REACTION_BYTES + self.emoji.len() + self.users.len() * REACTING_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RoomId;

    const NOW: u64 = 1_760_000_000_000;

    /// Appends to a log that keeps three events.
    fn append(meeting: &mut Meeting, author: &str, change: Change) -> Result<Appended, StoreError> {
        let limits = MemoryLimits { history_size: 3, ..MemoryLimits::default() };
        meeting.append(Append { meeting: RoomId::new("m"), author: author.into(), change, known: None }, &limits, NOW)
    }

    fn message(number: u128) -> Change {
        let (id, content) = (MessageId::new(NOW, number), content());
        Change::Message { id, content, client_id: None, fingerprint: 0, reply_to: None }
    }

    fn content() -> Content {
        Content { json: r#"{"text":"x"}"#.into(), erasable_from: None }
    }

    #[test]
    fn nobody_reacts_to_a_deleted_message() {
        let mut meeting = Meeting::new(NOW);
        let (id, content) = (MessageId::new(NOW, 1), content());
        append(&mut meeting, "a", message(1)).unwrap();
        let react = Change::React { id, content: content.clone(), emoji: "x".into(), is_removal: false };
        append(&mut meeting, "b", react).unwrap();
        assert!(meeting.messages[&id].bytes() > MESSAGE_BYTES);
        append(&mut meeting, "a", Change::Delete { id, content, is_moderator: false }).unwrap();
        assert_eq!(meeting.messages[&id].bytes(), MESSAGE_BYTES);
        assert_eq!(meeting.bytes(), meeting.recount());
    }

    /// Ids are new. If one is not, the younger message has it.
    #[test]
    fn an_id_that_comes_twice_names_the_last_message() {
        let mut meeting = Meeting::new(NOW);
        for (number, is_there) in [(1, true), (1, true), (2, true), (3, true), (4, false)] {
            append(&mut meeting, "a", message(number)).unwrap();
            assert_eq!(meeting.messages.contains_key(&MessageId::new(NOW, 1)), is_there, "after {number}");
            assert_eq!(meeting.bytes(), meeting.recount());
        }
    }

    /// Where a text begins is checked before. If it is wrong, more is erased, and nothing is left of the text.
    #[test]
    fn a_place_that_makes_no_sense_erases_all() {
        for from in [9999, u32::MAX] {
            let mut meeting = Meeting::new(NOW);
            let (id, json) = (MessageId::new(NOW, 1), "{\"text\":\"S3CRET\"}".into());
            let content = Content { json, erasable_from: Some(from) };
            let message = Change::Message { id, content, client_id: None, fingerprint: 0, reply_to: None };
            append(&mut meeting, "a", message).unwrap();
            append(&mut meeting, "a", Change::Delete { id, content: self::content(), is_moderator: false }).unwrap();
            let first = meeting.all().next().unwrap().json;
            assert_eq!(&*first, r#"{"text":"","deleted":true}"#, "{from}");
        }
    }
}
