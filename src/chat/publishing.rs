//! What other services bring about: meeting updates, published events, reminders, and the end of things.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    adapter::rooms::{room_of_meeting, room_of_user},
    chat::{
        Chat, Error,
        delivery::Origin,
        error::Code,
        event::to_json,
        joining::store_error,
        notices::notice,
        peers::Note,
        service::{Door, NAMESPACE, busy, client},
        service_command::{Publish, Target},
        update::{SideEffect, To, Update, UpdateKind},
    },
    limits::{Slot, Slots},
    socket::event_frame,
    store::{Append, Change, Content, Notification, Reminder, Reminders},
    types::{MessageId, RoomId},
};

/// For how long an update that names itself is known, and how long the bytes of one that does not.
const KNOWN_MS: u64 = 24 * 60 * 60 * 1000;
const KNOWN_BYTES_MS: u64 = 10_000;
/// How long it is waited, at first and at most, before it is looked again at what somebody else is doing.
const CLAIM_PAUSE_MS: u64 = 50;
const CLAIM_PAUSE_MAX_MS: u64 = 2000;
/// When to ask again for what somebody else is doing.
const BUSY_RETRY_MS: u32 = 1000;
/// How long an update that was heard is tried to be applied, with which pauses at first and at most.
const UPDATE_WAIT_MS: u64 = 60_000;
const UPDATE_PAUSE_MS: u64 = 250;
const UPDATE_PAUSE_MAX_MS: u64 = 4000;
/// Updates that wait.
const UPDATES_MAX: usize = 1000;
/// For how long one is, at first, that is being applied.
const CLAIMED_MS: u64 = 10_000;
/// A reminder that comes later than this is not sent any more.
const REMINDER_LATE_MS: u64 = 2 * 60 * 1000;

/// Updates that were heard and not taken in yet, those that are being taken in included.
pub(super) struct Updates {
    /// A meeting is here as long as somebody takes in its updates.
    by_meeting: Mutex<HashMap<Option<RoomId>, VecDeque<Heard>>>,
    slots: Slots,
}

/// An update that was heard.
struct Heard {
    json: Box<str>,
    /// When, in ms since the epoch.
    at: u64,
    _slot: Slot,
}

/// Somebody takes in a meeting's updates. Whatever becomes of them, the next one that is heard is taken in.
struct Taking<'a> {
    updates: &'a Updates,
    meeting: Option<RoomId>,
}

impl Default for Updates {
    fn default() -> Self {
        Self { by_meeting: Mutex::default(), slots: Slots::new(UPDATES_MAX) }
    }
}

impl Updates {
    fn lock(&self) -> MutexGuard<'_, HashMap<Option<RoomId>, VecDeque<Heard>>> {
        self.by_meeting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taking<'_> {
    /// The next one. If there is none, nobody takes in this meeting's from now.
    fn next(&self) -> Option<Heard> {
        let mut by_meeting = self.updates.lock();
        let next = by_meeting.get_mut(&self.meeting)?.pop_front();
        if next.is_none() {
            by_meeting.remove(&self.meeting);
        }
        next
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.updates.lock().remove(&self.meeting);
        }
    }
}

/// What became of an update.
#[derive(Serialize, Debug)]
pub struct Updated {
    /// The update's own id, or the one that was derived from its bytes.
    pub id: String,
    /// Whether it was known already, and nothing was done.
    pub duplicate: bool,
}

/// What became of a published event.
#[derive(Serialize, Debug)]
pub struct Published {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    /// Sockets of this process for which it was queued.
    delivered_local: usize,
}

/// How many things something was done to.
#[derive(Serialize, Debug)]
pub struct Count {
    /// So many.
    pub count: u64,
}

impl Count {
    /// So many.
    pub fn of(count: usize) -> Self {
        Self { count: count as u64 }
    }
}

/// `meeting_update`, of an event that a service publishes.
#[derive(Serialize)]
struct PublishedUpdate<'a> {
    meeting_id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    event_id: &'a str,
    data: &'a RawValue,
}

/// A notification, of an event that a service publishes.
#[derive(Serialize)]
struct PublishedNotice<'a> {
    id: &'a str,
    kind: &'a str,
    data: &'a RawValue,
    ts: u64,
}

/// What `meeting.reminder` says.
#[derive(Serialize)]
struct ReminderData<'a> {
    starts_at: u64,
    in_ms: u64,
    offset: &'a str,
}

impl Chat {
    /// Takes in one update, as JSON text.
    ///
    /// # Errors
    /// It is not one, or the store is away.
    pub async fn update(self: Arc<Self>, json: &str) -> Result<Updated, Error> {
        let now = self.now();
        self.update_of(json, now).await
    }

    /// The same of one that was said `at` that time.
    async fn update_of(self: Arc<Self>, json: &str, at: u64) -> Result<Updated, Error> {
        let update = Update::read(json)?;
        if update.is_for_nobody() {
            return Err(Error::invalid("recipients", "meeting_id, recipients, or broadcast: true"));
        }
        let (id, known_ms) = match &update.id {
            Some(id) => (id.clone(), KNOWN_MS),
            None => (Update::derived_id(json.as_bytes()), KNOWN_BYTES_MS),
        };
        let claim = format!("update:{id}");
        if !self.claim(&claim).await? {
            return Ok(Updated { id, duplicate: true });
        }
        // Without an id the same bytes are another update later, to the log and to inboxes as well.
        let event_id = match &update.id {
            Some(id) => id.clone(),
            None => format!("{id}-{}", at / KNOWN_BYTES_MS),
        };
        let applied = self.apply(&update, &event_id).await;
        self.settle(&claim, known_ms, applied.is_ok()).await?;
        applied.map(|()| Updated { id, duplicate: false })
    }

    /// Claims something to be done, for no longer than it takes: if this process ends meanwhile, others may do it. False if
    /// it is done. Waits while somebody else is doing it.
    async fn claim(&self, key: &str) -> Result<bool, Error> {
        let (mut waited_ms, mut pause_ms) = (0, CLAIM_PAUSE_MS);
        while waited_ms <= CLAIMED_MS + CLAIM_PAUSE_MAX_MS {
            let now = self.now();
            if self.store.claim(key, CLAIMED_MS, now).await.map_err(store_error)? {
                return Ok(true);
            }
            if self.store.is_held(key, now).await.map_err(store_error)? {
                return Ok(false);
            }
            self.sleep(pause_ms).await;
            waited_ms += pause_ms;
            pause_ms = (pause_ms * 2).min(CLAIM_PAUSE_MAX_MS);
        }
        Err(Error::unavailable("somebody else is doing it", BUSY_RETRY_MS))
    }

    /// What was claimed is done, or has failed and may be done again.
    async fn settle(&self, key: &str, known_ms: u64, is_done: bool) -> Result<(), Error> {
        self.store.hold(key, if is_done { known_ms } else { 0 }, self.now()).await.map_err(store_error)
    }

    /// Takes in an update that was heard, behind those of its meeting that were heard before.
    pub(super) fn queue_update(self: &Arc<Self>, json: &str) {
        let meeting = match Update::read(json) {
            Ok(update) => update.meeting,
            Err(error) => return self.could_not_read("meeting_updates", &error.message),
        };
        let Some(slot) = self.updates.slots.take() else {
            return self.could_not_read("meeting_updates", "too many at a time");
        };
        let is_idle = {
            let mut by_meeting = self.updates.lock();
            let is_idle = !by_meeting.contains_key(&meeting);
            let heard = Heard { json: json.into(), at: self.now(), _slot: slot };
            by_meeting.entry(meeting.clone()).or_default().push_back(heard);
            is_idle
        };
        if is_idle {
            let chat = Arc::clone(self);
            self.run(async move {
                let taking = Taking { updates: &chat.updates, meeting };
                while let Some(heard) = taking.next() {
                    chat.take_in_at_last(&heard).await;
                }
            });
        }
    }

    /// Takes in an update that nobody brings again, however often that takes, within limits.
    async fn take_in_at_last(self: &Arc<Self>, heard: &Heard) {
        let (mut waited_ms, mut pause_ms) = (0, UPDATE_PAUSE_MS);
        while !Arc::clone(self).take_in(&heard.json, heard.at).await {
            if waited_ms >= UPDATE_WAIT_MS {
                return self.could_not_read("meeting_updates", "could not be applied for too long");
            }
            self.sleep(pause_ms).await;
            waited_ms += pause_ms;
            pause_ms = (pause_ms * 2).min(UPDATE_PAUSE_MAX_MS);
        }
    }

    /// Takes in an update that every instance hears, or that one has taken from a stream. False if whoever keeps it is to
    /// bring it again.
    pub(super) async fn take_in(self: Arc<Self>, json: &str, at: u64) -> bool {
        let chat = Arc::clone(&self);
        match chat.update_of(json, at).await {
            Ok(_) => true,
            Err(error) if error.code == Code::Unavailable => {
                log::debug!("an update has to wait: {}", error.message);
                false
            }
            Err(error) => {
                self.could_not_read("meeting_updates", &error.message);
                true
            }
        }
    }

    async fn apply(self: &Arc<Self>, update: &Update, id: &str) -> Result<(), Error> {
        let now = self.now();
        if let Some(meeting) = &update.meeting {
            if update.kind == UpdateKind::Created {
                self.store.add_participants(meeting, &update.recipients, now).await.map_err(store_error)?;
                update.recipients.iter().for_each(|user| self.forget_right(user, meeting));
            }
            // Who is added may come in as soon as they hear of it.
            if let SideEffect::ParticipantsAdded(users) = update.side_effect() {
                self.store.add_participants(meeting, users, now).await.map_err(store_error)?;
                users.iter().for_each(|user| self.forget_right(user, meeting));
            }
            if update.goes_to_room() {
                self.log_update(meeting, update.room_content(id, meeting), id, update.actor.clone()).await?;
            }
        }
        let notification = || Notification {
            id: id.into(),
            json: update.notification(id, now),
            is_kept: update.persist,
            expires_at: update.expires_at(now),
        };
        let mut lost = None;
        for user in update.notified() {
            // The others are told nevertheless. Whoever brings the update again tells nobody twice.
            if let Err(error) = self.notify(&user, notification()).await {
                lost = Some(error);
            }
        }
        if update.is_for_everybody() {
            let left_out = update.left_out();
            self.notify_everybody(&update.notification(id, now), &left_out);
        }
        if let Some(meeting) = &update.meeting {
            self.follow_up(meeting, update, now).await?;
        }
        lost.map_or(Ok(()), Err)
    }

    /// What an update leads to beside being told.
    async fn follow_up(self: &Arc<Self>, meeting: &RoomId, update: &Update, now: u64) -> Result<(), Error> {
        match update.side_effect() {
            SideEffect::None | SideEffect::ParticipantsAdded(_) => {}
            SideEffect::SetReminders { starts_at } | SideEffect::MoveReminders { starts_at } => {
                let due = self.settings.reminders.iter().filter_map(|(before, name)| {
                    let at = starts_at.checked_sub(*before)?;
                    (at >= now).then(|| (at, name.clone()))
                });
                let recipients = match update.to {
                    To::Room => Some(Vec::new()),
                    // One that moves a meeting need not say again for whom.
                    _ => (!update.recipients.is_empty()).then(|| update.recipients.clone()),
                };
                let (due, title) = (due.collect(), update.title.clone());
                let reminders = Reminders { starts_at, due, recipients, title };
                self.store.set_reminders(meeting, reminders, now).await.map_err(store_error)?;
                self.watch_reminders();
            }
            SideEffect::DropReminders => {
                self.store.set_reminders(meeting, Reminders::default(), now).await.map_err(store_error)?;
            }
            SideEffect::CloseRoom => {
                self.store.set_reminders(meeting, Reminders::default(), now).await.map_err(store_error)?;
                self.store.close_at(meeting, Some(now), now).await.map_err(store_error)?;
            }
            SideEffect::StartCloseTimer => {
                self.store.set_reminders(meeting, Reminders::default(), now).await.map_err(store_error)?;
                let at = now.saturating_add(self.settings.room_close_after_ms);
                // What is closed, or will be sooner, stays so.
                let set = self.store.closes_at(meeting, now).await.map_err(store_error)?;
                let at = set.map_or(at, |set| set.min(at));
                self.store.close_at(meeting, Some(at), now).await.map_err(store_error)?;
            }
            SideEffect::ParticipantsRemoved(users) => {
                self.store.remove_participants(meeting, users, now).await.map_err(store_error)?;
                for user in users {
                    self.access.forget(user, Some(meeting.as_str()));
                    self.put_user_out(meeting, user, "removed");
                    self.tell_surely(&Note::PutOut { meeting: meeting.as_str().into(), user: Arc::clone(user) })
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Logs a `meeting_update` and brings it to everybody in the meeting. Returns its seq.
    async fn log_update(
        self: &Arc<Self>,
        meeting: &RoomId,
        content: Content,
        event_id: &str,
        author: Option<Arc<str>>,
    ) -> Result<u64, Error> {
        if self.meetings.is_busy(meeting) {
            return Err(busy());
        }
        let change = Change::Update { content, event_id: event_id.into() };
        let append =
            Append { meeting: meeting.clone(), author: author.unwrap_or_default(), change, known: self.known(meeting) };
        let appended = self.store.append(append, self.now()).await.map_err(store_error)?;
        if let Some(event) = appended.event {
            self.deliver(meeting, event, Origin::Here(None));
        }
        Ok(appended.place.seq)
    }

    fn notify_everybody(&self, json: &str, left_out: &[Arc<str>]) {
        // Not kept, so without a number, and nothing to be read later.
        let mut json = json.strip_suffix('}').unwrap_or(json).to_owned();
        json.push_str(",\"nseq\":0,\"read\":false}");
        if let Some(cluster) = &self.cluster {
            let except: Vec<_> = left_out.iter().map(|user| room_of_user(user)).collect();
            let except: Vec<_> = except.iter().map(String::as_str).collect();
            cluster.emit_elsewhere(&[], &except, "notification", &json, false);
        }
        let frame = notice(&json);
        for user in self.users.all().iter().filter(|user| !left_out.contains(&user.id)) {
            self.tell_user(&user.id, &frame);
        }
    }

    /// Sends an event of a service's own to a meeting, to users, or to everybody. One that is to be kept becomes a
    /// `meeting_update` of that type, or a notification of that kind.
    ///
    /// # Errors
    /// The store is away.
    pub async fn publish(self: Arc<Self>, publish: Publish) -> Result<Published, Error> {
        let now = self.now();
        let id = match &publish.idempotency_key {
            Some(key) => key.clone(),
            None => MessageId::new(now, fastrand::u128(..)).to_string(),
        };
        let Some(key) = &publish.idempotency_key else { return self.publish_as(&publish, id, now).await };
        let claim = format!("publish:{key}");
        if !self.claim(&claim).await? {
            return Ok(Published { id, seq: None, delivered_local: 0 });
        }
        let published = self.publish_as(&publish, id, now).await;
        self.settle(&claim, KNOWN_MS, published.is_ok()).await?;
        published
    }

    async fn publish_as(self: &Arc<Self>, publish: &Publish, id: String, now: u64) -> Result<Published, Error> {
        let frame = event_frame(NAMESPACE, &publish.event, publish.data.get());
        let mut seq = None;
        let delivered_local = match &publish.target {
            Target::Meeting(meeting) if publish.persist => {
                let content = to_json(&PublishedUpdate {
                    meeting_id: meeting.as_str(),
                    kind: &publish.event,
                    event_id: &id,
                    data: &publish.data,
                });
                let content = Content { json: content.into(), erasable_from: None };
                seq = Some(self.log_update(meeting, content, &id, None).await?);
                self.meetings.ask(meeting, |room| room.len()).await.unwrap_or(0)
            }
            Target::Meeting(meeting) => {
                self.emit_elsewhere(&[&room_of_meeting(meeting.as_str())], publish);
                let told = self.meetings.ask(meeting, move |room| {
                    room.broadcast(&frame);
                    room.len()
                });
                told.await.unwrap_or(0)
            }
            Target::Users(users) if publish.persist => {
                let json: Box<str> =
                    to_json(&PublishedNotice { id: &id, kind: &publish.event, data: &publish.data, ts: now }).into();
                let mut told = 0;
                for user in users {
                    let notification =
                        Notification { id: id.as_str().into(), json: json.clone(), is_kept: true, expires_at: None };
                    told += self.notify(user, notification).await?;
                }
                told
            }
            Target::Users(users) => {
                for user in users {
                    self.emit_elsewhere(&[&room_of_user(user)], publish);
                }
                users.iter().map(|user| self.tell_user(user, &frame)).sum()
            }
            Target::Broadcast => {
                self.emit_elsewhere(&[], publish);
                self.users.all().iter().map(|user| self.tell_user(&user.id, &frame)).sum()
            }
        };
        Ok(Published { id, seq, delivered_local })
    }

    fn emit_elsewhere(&self, rooms: &[&str], publish: &Publish) {
        if let Some(cluster) = &self.cluster {
            cluster.emit_elsewhere(rooms, &[], &publish.event, publish.data.get(), false);
        }
    }

    /// Makes a meeting read-only, and takes everybody out of it.
    ///
    /// # Errors
    /// The store is away.
    pub async fn close_meeting(self: Arc<Self>, meeting: &RoomId) -> Result<Count, Error> {
        let now = self.now();
        self.store.set_reminders(meeting, Reminders::default(), now).await.map_err(store_error)?;
        self.store.close_at(meeting, Some(now), now).await.map_err(store_error)?;
        let count = self.empty(meeting) as u64;
        self.tell_surely(&Note::Empty { meeting: meeting.as_str().into() }).await?;
        Ok(Count { count })
    }

    /// Forgets a meeting, and takes everybody out of it. Counts events.
    ///
    /// # Errors
    /// The store is away.
    pub async fn erase_meeting(self: Arc<Self>, meeting: &RoomId) -> Result<Count, Error> {
        self.empty(meeting);
        self.tell_surely(&Note::Empty { meeting: meeting.as_str().into() }).await?;
        let count = self.store.erase_meeting(meeting, self.now()).await.map_err(store_error)?;
        Ok(Count { count })
    }

    /// Forgets a user's inbox and read marks. Counts both.
    ///
    /// # Errors
    /// The store is away.
    pub async fn erase_user(self: Arc<Self>, user: &str) -> Result<Count, Error> {
        let count = self.store.erase_user(user, self.now()).await.map_err(store_error)?;
        Ok(Count { count })
    }

    /// Takes everybody out of a meeting. Returns how many sockets those are. Rare, and not worth a table of its own.
    pub(super) fn empty(self: &Arc<Self>, meeting: &RoomId) -> usize {
        let mut count = 0;
        for socket in self.sockets() {
            let Some(client) = client(&socket).cloned() else { continue };
            if client.member.is_in(meeting.as_str()) {
                self.put_out(meeting, &Door { socket, client }, "closed");
                count += 1;
            }
        }
        count
    }

    /// Sends the reminders that are due.
    pub(super) fn remind(self: &Arc<Self>) {
        *self.reminder.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let chat = Arc::clone(self);
        self.run(async move {
            match chat.store.take_reminders(chat.now()).await {
                Ok(reminders) => {
                    for reminder in reminders {
                        chat.send_reminder(&reminder).await;
                    }
                }
                Err(error) => log::warn!("reminders have to wait: {error:?}"),
            }
            chat.watch_reminders();
        });
    }

    async fn send_reminder(self: &Arc<Self>, reminder: &Reminder) {
        let now = self.now();
        if now <= reminder.starts_at.saturating_add(REMINDER_LATE_MS)
            && let Err(error) = self.apply_reminder(reminder, now).await
        {
            return log::warn!("a reminder has to wait: {}", error.message);
        }
        if let Err(error) = self.store.drop_reminder(reminder, now).await {
            // It is known by its id, and nobody is told twice.
            log::debug!("a reminder comes again: {error:?}");
        }
    }

    async fn apply_reminder(self: &Arc<Self>, reminder: &Reminder, now: u64) -> Result<(), Error> {
        let Reminder { meeting, starts_at, offset, recipients, title, .. } = reminder.clone();
        let data = ReminderData { starts_at, in_ms: starts_at.saturating_sub(now), offset: &offset };
        let id = Update::derived_id(format!("reminder:{}:{starts_at}:{offset}", meeting.as_str()).as_bytes());
        let update = Update {
            id: None,
            kind: UpdateKind::Reminder,
            meeting: Some(meeting.clone()),
            actor: None,
            recipients,
            participants: Vec::new(),
            exclude: None,
            to: To::Both,
            title,
            body: None,
            data: to_raw_value(&data).ok(),
            starts_at: None,
            persist: true,
            ttl_ms: None,
            ts: None,
            broadcast: false,
        };
        self.apply(&update, &id).await
    }
}

/// What a service may not do without a key.
pub fn service_only() -> Error {
    Error::new(Code::Forbidden, "expected the API key, or a token with the role service")
}
