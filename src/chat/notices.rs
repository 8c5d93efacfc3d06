//! What a user is told wherever they are: notifications, kept in an inbox, and counts of what is unread.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    auth::{Identity, Right, access::AccessError},
    chat::{
        Chat, Error,
        command::{Notifications, ReadNotifications},
        error::Code,
        event::{self, to_json},
        joining::store_error,
        messages::shorten,
        peers::Note,
        service::{Caller, NAMESPACE, client},
    },
    outbox::Frame,
    socket::event_frame,
    store::{From, InboxRange, Notification, Place},
    types::RoomId,
};

/// How long it is tried to notify somebody of a message, with which pauses at first and at most.
const NOTICE_WAIT_MS: u64 = 60_000;
const NOTICE_PAUSE_MS: u64 = 250;
const NOTICE_PAUSE_MAX_MS: u64 = 4000;
/// How many wait at a time to be tried again.
pub(super) const NOTICES_WAITING_MAX: usize = 1000;

/// The ack of `notifications_get`.
#[derive(Serialize, Debug)]
pub struct InboxAnswer {
    items: Box<RawValue>,
    has_more: bool,
    unread: u32,
}

/// The ack of `notifications_read`.
#[derive(Serialize, Debug)]
pub struct InboxReadAnswer {
    unread: u32,
}

/// A mention or a reply, as a notification.
#[derive(Serialize)]
struct ChatNotice<'a> {
    id: &'a str,
    kind: &'a str,
    meeting_id: &'a str,
    actor_id: &'a str,
    title: &'a str,
    /// Where the message stands. Not its text: that may be deleted, and inboxes are not searched for it.
    data: ChatNoticeData<'a>,
    ts: u64,
}

#[derive(Serialize)]
struct ChatNoticeData<'a> {
    message_id: &'a str,
    seq: u64,
    epoch: &'a str,
}

impl Chat {
    /// A page of the caller's inbox.
    ///
    /// # Errors
    /// The store is away.
    pub async fn notifications(
        self: Arc<Self>,
        caller: Caller,
        notifications: Notifications,
    ) -> Result<InboxAnswer, Error> {
        let Notifications { from, limit, unread_only } = notifications;
        let range = InboxRange { from, limit, unread_only };
        let is_forward = matches!(range.from, From::After(_));
        let mut page = self.store.inbox(&caller.user.id, range, self.now()).await.map_err(store_error)?;
        page.has_more |= shorten(&mut page.items, is_forward, self.settings.answer_max_bytes, String::len);
        let items = RawValue::from_string(format!("[{}]", page.items.join(",")));
        let items = items.unwrap_or_else(|_| RawValue::NULL.to_owned());
        Ok(InboxAnswer { items, has_more: page.has_more, unread: page.unread })
    }

    /// Marks notifications of the caller as read.
    ///
    /// # Errors
    /// The store is away.
    pub async fn read_notifications(
        self: Arc<Self>,
        caller: Caller,
        read: ReadNotifications,
    ) -> Result<InboxReadAnswer, Error> {
        let read = self.store.read_inbox(&caller.user.id, read.which, self.now()).await.map_err(store_error)?;
        if read.has_changed {
            self.tell_unread_elsewhere(std::slice::from_ref(&caller.user.id));
            self.unread_changed(&caller.user, caller.door.as_ref().map(|door| door.socket.id()));
        }
        Ok(InboxReadAnswer { unread: read.unread })
    }

    /// What the caller has not seen.
    ///
    /// # Errors
    /// The store is away.
    pub async fn unread(self: Arc<Self>, caller: Caller) -> Result<Box<RawValue>, Error> {
        let unread = self.store.unread(&caller.user.id, self.now()).await.map_err(store_error)?;
        let json = RawValue::from_string(to_json(&event::Unread(&unread)));
        Ok(json.unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }

    /// Puts a notification into a user's inbox, and tells their sockets. Returns how many those are here.
    ///
    /// # Errors
    /// The store is away.
    pub(super) async fn notify(&self, user: &Arc<str>, notification: Notification) -> Result<usize, Error> {
        let notified = self.store.notify(user, notification, self.now()).await.map_err(store_error)?;
        let Some(json) = notified.json else { return Ok(0) };
        Ok(match &self.cluster {
            None => self.tell_user(user, &notice(&json)),
            // By the user's channel, as at the other instances: once, also if the answer to the first try was lost.
            Some(_) => self.users.find(user).map_or(0, |user| user.sockets().len()),
        })
    }

    /// Sends a finished frame to all sockets of a user. Returns how many those are.
    pub(super) fn tell_user(&self, user: &str, frame: &Frame) -> usize {
        let Some(user) = self.users.find(user) else { return 0 };
        let sockets = user.sockets();
        for socket in &sockets {
            socket.emit_frames(std::slice::from_ref(frame));
        }
        sockets.len()
    }

    /// Notifies those whom a message mentions, and the author of the message that it answers.
    pub(super) fn tell_mentioned(
        self: &Arc<Self>,
        caller: &Caller,
        meeting: &RoomId,
        mentions: Vec<Arc<str>>,
        reply_author: Option<Arc<str>>,
        place: Place,
    ) {
        let (chat, sender, name) = (Arc::clone(self), Arc::clone(&caller.user.id), Arc::clone(&caller.identity.name));
        let meeting = meeting.clone();
        self.run(async move {
            let Some(message_id) = place.id.map(|id| id.to_string()) else { return };
            let mut told = vec![Arc::clone(&sender)];
            let mentioned = mentions.into_iter().map(|user| (user, "chat.mention"));
            for (user, kind) in mentioned.chain(reply_author.map(|user| (user, "chat.reply"))) {
                if told.contains(&user) {
                    continue;
                }
                told.push(Arc::clone(&user));
                let id = format!("{message_id}.{}", kind.trim_start_matches("chat."));
                let json = to_json(&ChatNotice {
                    id: &id,
                    kind,
                    meeting_id: meeting.as_str(),
                    actor_id: &sender,
                    title: &name,
                    data: ChatNoticeData { message_id: &message_id, seq: place.seq, epoch: &place.epoch },
                    ts: place.ts,
                });
                let may_read = chat.notify_reader(&user, &meeting, id.as_str().into(), json.as_str().into()).await;
                if !may_read && !chat.users.is_connected(&user) {
                    // Their token may say more than is known here.
                    let meeting = meeting.as_str().into();
                    chat.tell(None, &Note::Mentioned { meeting, user, id: id.into(), json: json.into() });
                }
            }
        });
    }

    /// Notifies somebody who is connected here of a message that was sent at another instance, if they may read it.
    pub(super) fn heed_mention(self: &Arc<Self>, meeting: RoomId, user: Arc<str>, id: Box<str>, json: Box<str>) {
        if !self.users.is_connected(&user) {
            return;
        }
        let chat = Arc::clone(self);
        self.run(async move { _ = chat.notify_reader(&user, &meeting, id, json).await });
    }

    /// Notifies somebody of a message that was acked, if they may read it: however often that takes, within limits. False if
    /// they may not.
    async fn notify_reader(&self, user: &Arc<str>, meeting: &RoomId, id: Box<str>, json: Box<str>) -> bool {
        let notification = Notification { id, json, is_kept: true, expires_at: None };
        let (mut waited_ms, mut pause_ms) = (0, NOTICE_PAUSE_MS);
        loop {
            let error = match self.may_read(user, meeting).await {
                Ok(false) => return false,
                Ok(true) => match self.notify(user, notification.clone()).await {
                    Ok(_) => return true,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            let slot = self.notices_waiting.take();
            if error.code != Code::Unavailable || waited_ms >= NOTICE_WAIT_MS || slot.is_none() {
                log::warn!("a notification is lost: {}", error.message);
                return true;
            }
            self.sleep(pause_ms).await;
            waited_ms += pause_ms;
            pause_ms = (pause_ms * 2).min(NOTICE_PAUSE_MAX_MS);
        }
    }

    /// Whether a user who is not asking anything may read a meeting.
    ///
    /// # Errors
    /// The store is away. An authorisation service that does not answer is a no.
    async fn may_read(&self, user: &Arc<str>, meeting: &RoomId) -> Result<bool, Error> {
        let online = self.users.find(user).and_then(|user| user.sockets().first().cloned());
        let identity = online.and_then(|socket| Some(client(&socket)?.identity()));
        let is_online = identity.is_some();
        let identity = identity.unwrap_or_else(|| Arc::new(Identity::anonymous(user)));
        match self.access.right(&identity, meeting.as_str(), self.now()).await {
            Ok(Some(right)) => Ok(right >= Right::Read),
            // Of somebody who is away the claims are not known: that they have read there must do, if nobody else is
            // to be asked.
            Ok(None) if !is_online && !self.access.asks_a_service() => {
                let readers = self.store.readers(meeting, self.now()).await.map_err(store_error)?;
                Ok(readers.contains(user))
            }
            Err(AccessError::Unavailable { retry_after_ms }) if !self.access.asks_a_service() => {
                Err(Error::unavailable("rights cannot be checked just now", retry_after_ms))
            }
            Ok(None) | Err(_) => Ok(false),
        }
    }
}

/// A notification, encoded for everybody.
pub(super) fn notice(json: &str) -> Frame {
    event_frame(NAMESPACE, "notification", json)
}
