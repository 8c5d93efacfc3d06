//! What other services bring about: meeting updates, published events, reminders, and the end of things.

use std::sync::{Arc, PoisonError};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    chat::{
        Chat, Error,
        error::Code,
        event::to_json,
        joining::store_error,
        notices::notice,
        service::{Door, NAMESPACE, busy, client},
        service_command::{Publish, Target},
        update::{SideEffect, To, Update, UpdateKind},
    },
    socket::event_frame,
    store::{Append, Change, Content, Notification, Reminder, Reminders},
    types::{MessageId, RoomId},
};

/// For how long an update that names itself is known.
const KNOWN_MS: u64 = 24 * 60 * 60 * 1000;
/// For how long one that does not is.
const KNOWN_BYTES_MS: u64 = 10_000;
/// A reminder that comes later than this is not sent any more.
const REMINDER_LATE_MS: u64 = 2 * 60 * 1000;

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
        let update = Update::read(json)?;
        if update.is_for_nobody() {
            return Err(Error::invalid("recipients", "meeting_id, recipients, or broadcast: true"));
        }
        let (id, known_ms) = match &update.id {
            Some(id) => (id.clone(), KNOWN_MS),
            None => (Update::derived_id(json.as_bytes()), KNOWN_BYTES_MS),
        };
        let is_new = self.store.claim(&format!("update:{id}"), known_ms, self.now()).await.map_err(store_error)?;
        if is_new {
            self.apply(&update, &id).await?;
        }
        Ok(Updated { id, duplicate: !is_new })
    }

    async fn apply(self: &Arc<Self>, update: &Update, id: &str) -> Result<(), Error> {
        let now = self.now();
        if let Some(meeting) = &update.meeting {
            if update.kind == UpdateKind::Created {
                self.store.add_participants(meeting, &update.recipients, now).await.map_err(store_error)?;
                update.recipients.iter().for_each(|user| self.access.forget(user, Some(meeting.as_str())));
            }
            // Who is added may come in as soon as they hear of it.
            if let SideEffect::ParticipantsAdded(users) = update.side_effect() {
                self.store.add_participants(meeting, users, now).await.map_err(store_error)?;
                users.iter().for_each(|user| self.access.forget(user, Some(meeting.as_str())));
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
        for user in update.notified() {
            self.notify(&user, notification()).await;
        }
        if update.is_for_everybody() {
            self.notify_everybody(&update.notification(id, now), |user| !update.leaves_out(user));
        }
        match &update.meeting {
            Some(meeting) => self.follow_up(meeting, update, now).await,
            None => Ok(()),
        }
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
        let append = Append { meeting: meeting.clone(), author: author.unwrap_or_default(), change, known: None };
        let appended = self.store.append(append, self.now()).await.map_err(store_error)?;
        if let Some(event) = appended.event {
            self.deliver(meeting, event, None);
        }
        Ok(appended.place.seq)
    }

    fn notify_everybody(&self, json: &str, wanted: impl Fn(&str) -> bool) -> usize {
        // Not kept, so without a number, and nothing to be read later.
        let mut json = json.strip_suffix('}').unwrap_or(json).to_owned();
        json.push_str(",\"nseq\":0,\"read\":false}");
        let frame = notice(&json);
        let users = self.users.all();
        users.iter().filter(|user| wanted(&user.id)).map(|user| self.tell_user(&user.id, &frame)).sum()
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
        if publish.idempotency_key.is_some()
            && !self.store.claim(&format!("publish:{id}"), KNOWN_MS, now).await.map_err(store_error)?
        {
            return Ok(Published { id, seq: None, delivered_local: 0 });
        }
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
                    told += self.notify(user, notification).await;
                }
                told
            }
            Target::Users(users) => users.iter().map(|user| self.tell_user(user, &frame)).sum(),
            Target::Broadcast => self.users.all().iter().map(|user| self.tell_user(&user.id, &frame)).sum(),
        };
        Ok(Published { id, seq, delivered_local })
    }

    /// Makes a meeting read-only, and takes everybody out of it.
    ///
    /// # Errors
    /// The store is away.
    pub async fn close_meeting(self: Arc<Self>, meeting: &RoomId) -> Result<Count, Error> {
        let now = self.now();
        self.store.set_reminders(meeting, Reminders::default(), now).await.map_err(store_error)?;
        self.store.close_at(meeting, Some(now), now).await.map_err(store_error)?;
        Ok(Count { count: self.empty(meeting) as u64 })
    }

    /// Forgets a meeting, and takes everybody out of it. Counts events.
    ///
    /// # Errors
    /// The store is away.
    pub async fn erase_meeting(self: Arc<Self>, meeting: &RoomId) -> Result<Count, Error> {
        self.empty(meeting);
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
    fn empty(self: &Arc<Self>, meeting: &RoomId) -> usize {
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
                        chat.send_reminder(reminder).await;
                    }
                }
                Err(error) => log::warn!("reminders have to wait: {error:?}"),
            }
            chat.watch_reminders();
        });
    }

    async fn send_reminder(self: &Arc<Self>, reminder: Reminder) {
        let now = self.now();
        let Reminder { meeting, starts_at, offset, recipients, title, .. } = reminder;
        if now > starts_at.saturating_add(REMINDER_LATE_MS) {
            return;
        }
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
        if let Err(error) = self.apply(&update, &id).await {
            log::warn!("a reminder is lost: {}", error.message);
        }
    }
}

/// What a service may not do without a key.
pub fn service_only() -> Error {
    Error::new(Code::Forbidden, "expected the API key, or a token with the role service")
}
