//! What is said in a meeting, and read of it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    auth::{Identity, Right},
    chat::{
        Chat, Code, Error,
        command::{DeleteMessage, EditMessage, History, MarkRead, MessageRef, React, SendMessage},
        delivery::Origin,
        event::{self, ChatMessage, MessageDeleted, MessageEdited, MessageReaction},
        joining::store_error,
        meeting,
        peers::Note,
        service::{Caller, busy},
    },
    limits::SharedBucket,
    store::{Append, Appended, Change, Content, From, Range, StoreError},
    types::{MessageId, RoomId},
};

/// A message that is ready to be logged.
pub struct Message {
    meeting: RoomId,
    content: Content,
    client_id: Option<Box<str>>,
    fingerprint: u64,
    reply_to: Option<MessageRef>,
    mentions: Vec<Arc<str>>,
}

/// An edit that is ready to be logged.
pub struct Edit {
    meeting: RoomId,
    id: MessageRef,
    content: Content,
}

/// A reaction that is ready to be logged.
pub struct Reaction {
    meeting: RoomId,
    id: MessageId,
    content: Content,
    emoji: Box<str>,
    is_removal: bool,
}

/// The ack of `chat_message`.
#[derive(Serialize, Debug)]
pub struct Sent {
    id: MessageId,
    seq: u64,
    epoch: Arc<str>,
    ts: u64,
    /// Whether it was sent before.
    duplicate: bool,
    /// The whole message, if it was not.
    #[serde(skip)]
    message: Option<Arc<str>>,
}

/// The ack of `edit_message`.
#[derive(Serialize, Debug)]
pub struct Edited {
    seq: u64,
    version: u32,
}

/// The ack of `delete_message` and `react`.
#[derive(Serialize, Debug)]
pub struct Logged {
    seq: u64,
}

/// The ack of `mark_read`.
#[derive(Serialize, Debug)]
pub struct Marked {
    seq: u64,
}

/// The ack of `get_history`.
#[derive(Serialize, Debug)]
pub struct HistoryPage {
    epoch: Arc<str>,
    top_seq: u64,
    first_seq: u64,
    items: Box<RawValue>,
    has_more: bool,
}

/// Leaves out what would be too long for one answer, at the far end of a page; at least one item stays. True if it did.
pub(super) fn shorten<T>(items: &mut Vec<T>, is_forward: bool, max_bytes: usize, bytes: impl Fn(&T) -> usize) -> bool {
    let count = items.len();
    let mut sum = 0;
    let mut is_fitting = |item: &T| {
        sum += bytes(item);
        sum <= max_bytes
    };
    let fitting = if is_forward {
        items.iter().take_while(|item| is_fitting(item)).count()
    } else {
        items.iter().rev().take_while(|item| is_fitting(item)).count()
    };
    let fitting = fitting.max(1).min(count);
    if is_forward {
        items.truncate(fitting);
    } else {
        items.drain(..count - fitting);
    }
    fitting < count
}

impl SendMessage<'_> {
    /// Encodes all but what the log decides.
    pub fn prepare(self, sender: &Identity) -> Message {
        let mentions: Option<Vec<Arc<str>>> =
            self.mentions.as_ref().map(|users| users.iter().map(|user| user.as_ref().into()).collect());
        // Other instances compare it as well, and those that begin later.
        let digest = sha1_smol::Sha1::from(self.unescaped_text()).digest().bytes();
        let fingerprint = digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let content = ChatMessage {
            meeting_id: self.meeting.as_str(),
            sender: &sender.user_id,
            sender_name: &sender.name,
            client_id: self.client_id.as_deref(),
            reply_to: self.reply_to.and_then(|id| id.id().ok()),
            mentions: mentions.as_deref(),
            meta: self.meta,
            text: self.text,
        };
        let content = content.content();
        Message {
            content,
            fingerprint,
            meeting: self.meeting,
            client_id: self.client_id.as_deref().map(Into::into),
            reply_to: self.reply_to,
            mentions: mentions.unwrap_or_default(),
        }
    }
}

impl EditMessage<'_> {
    /// Encodes all but what the log decides.
    pub fn prepare(self, editor: &Identity) -> Edit {
        let edited = MessageEdited { meeting_id: self.meeting.as_str(), editor: &editor.user_id, text: self.text };
        Edit { content: edited.content(), meeting: self.meeting, id: self.id }
    }
}

impl React<'_> {
    /// Encodes all but what the log decides.
    ///
    /// # Errors
    /// `not_found`.
    pub fn prepare(self, user: &Identity) -> Result<Reaction, Error> {
        let reaction = MessageReaction {
            meeting_id: self.meeting.as_str(),
            user_id: &user.user_id,
            emoji: &self.emoji,
            removed: self.is_removal,
        };
        let content = event::content(&reaction);
        let (id, emoji) = (self.id.id()?, self.emoji.as_ref().into());
        Ok(Reaction { content, meeting: self.meeting, id, emoji, is_removal: self.is_removal })
    }
}

impl Chat {
    /// Sends a message to a meeting.
    ///
    /// # Errors
    /// The caller may not, or the log refuses.
    pub async fn send_message(self: Arc<Self>, caller: Caller, message: Message) -> Result<Sent, Error> {
        match self.require_joined(&caller, &message.meeting).await {
            // Only the log can tell a message that was sent before, and whose ack was lost, from a new one.
            Err(error) if error.code == Code::RoomClosed && message.client_id.is_some() => {}
            outcome => outcome?,
        }
        self.require(&caller, &message.meeting, Right::Write).await?;
        self.take_room(&message.meeting)?;
        let reply_to = match message.reply_to {
            Some(MessageRef::Unknown) => return Err(store_error(StoreError::NoReplyTarget)),
            Some(MessageRef::Known(id)) => Some(id),
            None => None,
        };
        let id = MessageId::new(self.now(), fastrand::u128(..));
        let Message { meeting, content, client_id, fingerprint, mentions, .. } = message;
        let change = Change::Message { id, content, client_id, fingerprint, reply_to };
        let appended = self.append(&caller, &meeting, change).await?;
        let place = appended.place.clone();
        // Another instance may have logged it, and ended before they were told. Nobody is told twice.
        let is_untold = appended.event.is_some() || self.cluster.is_some();
        if is_untold && !(mentions.is_empty() && appended.reply_author.is_none()) {
            self.tell_mentioned(&caller, &meeting, mentions, appended.reply_author.clone(), place.clone());
        }
        let id = place.id.unwrap_or(id);
        let message = appended.event.map(|event| event.json);
        Ok(Sent { id, seq: place.seq, epoch: place.epoch, ts: place.ts, duplicate: message.is_none(), message })
    }

    /// Sends a message to a meeting, and shows it. The status is 201, or 200 if it was sent before.
    ///
    /// # Errors
    /// As [`send_message`](Self::send_message).
    pub async fn send_and_show(
        self: Arc<Self>,
        caller: Caller,
        message: Message,
    ) -> Result<(u16, Box<RawValue>), Error> {
        let meeting = message.meeting.clone();
        let sent = Arc::clone(&self).send_message(caller, message).await?;
        let raw = |json: String| RawValue::from_string(json).unwrap_or_else(|_| RawValue::NULL.to_owned());
        if let Some(message) = &sent.message {
            return Ok((201, raw(message.to_string())));
        }
        let range = Range { meeting, from: From::After(sent.seq - 1), epoch: None, limit: 1, kinds: Vec::new() };
        let page = self.store.range(range, self.now()).await.map_err(store_error)?;
        let kept = page.items.first().filter(|event| event.seq == sent.seq && event.epoch == sent.epoch);
        // It may have been trimmed from the log since.
        Ok((200, raw(kept.map_or_else(|| event::to_json(&sent), |event| event.json.to_string()))))
    }

    /// Gives a message another text.
    ///
    /// # Errors
    /// The caller may not, or the log refuses.
    pub async fn edit_message(self: Arc<Self>, caller: Caller, edit: Edit) -> Result<Edited, Error> {
        let right = self.require(&caller, &edit.meeting, Right::Write).await?;
        self.take_room(&edit.meeting)?;
        let change = Change::Edit { id: edit.id.id()?, content: edit.content, is_moderator: right >= Right::Host };
        let appended = self.append(&caller, &edit.meeting, change).await?;
        Ok(Edited { seq: appended.place.seq, version: appended.version })
    }

    /// Deletes a message.
    ///
    /// # Errors
    /// The caller may not, or the log refuses.
    pub async fn delete_message(self: Arc<Self>, caller: Caller, delete: DeleteMessage) -> Result<Logged, Error> {
        let right = self.require(&caller, &delete.meeting, Right::Write).await?;
        self.take_room(&delete.meeting)?;
        let deleted = MessageDeleted { meeting_id: delete.meeting.as_str(), deleted_by: &caller.user.id };
        let content = event::content(&deleted);
        let change = Change::Delete { id: delete.id.id()?, content, is_moderator: right >= Right::Host };
        let appended = self.append(&caller, &delete.meeting, change).await?;
        Ok(Logged { seq: appended.place.seq })
    }

    /// Puts an emoji on a message, or takes it back.
    ///
    /// # Errors
    /// The caller may not, or the log refuses.
    pub async fn react(self: Arc<Self>, caller: Caller, react: Reaction) -> Result<Logged, Error> {
        self.require_joined(&caller, &react.meeting).await?;
        self.require(&caller, &react.meeting, Right::Write).await?;
        self.take_room(&react.meeting)?;
        let Reaction { meeting, id, content, emoji, is_removal } = react;
        let change = Change::React { id, content, emoji, is_removal };
        let appended = self.append(&caller, &meeting, change).await?;
        Ok(Logged { seq: appended.place.seq })
    }

    /// Moves the caller's read mark.
    ///
    /// # Errors
    /// The caller may not read the meeting.
    pub async fn mark_read(self: Arc<Self>, caller: Caller, mark: MarkRead) -> Result<Marked, Error> {
        self.require(&caller, &mark.meeting, Right::Read).await?;
        let user = &caller.user;
        let marked = self.store.mark_read(&mark.meeting, &user.id, mark.seq, self.now()).await.map_err(store_error)?;
        if marked.has_moved {
            self.unread_changed(user, caller.door.as_ref().map(|door| door.socket.id()));
            self.tell_unread_elsewhere(std::slice::from_ref(&user.id));
            let (chat, id, user, is_visible) =
                (Arc::clone(&self), mark.meeting.clone(), Arc::clone(&user.id), !caller.identity.is_service);
            self.meetings.deliver(&mark.meeting, move |room| {
                let Ok(room) = room else {
                    if is_visible {
                        chat.tell(Some(&id), &Note::Receipts { marks: vec![(user, marked.seq)] });
                    }
                    return;
                };
                if is_visible && meeting::note_receipt(&mut room.state, &user, marked.seq) {
                    chat.put_off_receipts(&id);
                }
            });
        }
        Ok(Marked { seq: marked.seq })
    }

    /// A page of a meeting's log.
    ///
    /// # Errors
    /// The caller may not read the meeting, or its log has begun anew.
    pub async fn history(self: Arc<Self>, caller: Caller, history: History) -> Result<HistoryPage, Error> {
        self.require(&caller, &history.meeting, Right::Read).await?;
        let range = Range {
            meeting: history.meeting,
            from: history.from,
            epoch: history.epoch,
            limit: history.limit,
            kinds: history.kinds,
        };
        let is_forward = matches!(range.from, From::After(_));
        let mut page = self.store.range(range, self.now()).await.map_err(store_error)?;
        page.has_more |= shorten(&mut page.items, is_forward, self.settings.answer_max_bytes, |event| event.json.len());
        Ok(HistoryPage {
            epoch: page.epoch,
            top_seq: page.top_seq,
            first_seq: page.first_seq,
            items: event::items(&page.items),
            has_more: page.has_more,
        })
    }

    async fn append(self: &Arc<Self>, caller: &Caller, meeting: &RoomId, change: Change) -> Result<Appended, Error> {
        // What is logged has to be delivered: with too many turns waiting nothing more is logged.
        if self.meetings.is_busy(meeting) {
            return Err(busy());
        }
        let append = Append {
            meeting: meeting.clone(),
            author: Arc::clone(&caller.user.id),
            change,
            known: self.known(meeting),
        };
        let appended = self.store.append(append, self.now()).await;
        if let (Err(StoreError::Unavailable { .. }), Some(cluster)) = (&appended, &self.cluster) {
            cluster.suspect();
        }
        let appended = appended.map_err(store_error)?;
        if let Some(event) = &appended.event {
            self.deliver(meeting, event.clone(), Origin::Here(Some(&caller.user.id)));
        }
        Ok(appended)
    }

    fn take_room(&self, meeting: &RoomId) -> Result<(), Error> {
        let (rate, now) = (self.settings.rates.room, self.now());
        if rate.per_s == 0 {
            return Ok(());
        }
        let buckets = self.room_buckets.pin();
        let bucket = buckets.get_or_insert_with(meeting.clone(), SharedBucket::default);
        bucket.take(rate, 1, now).map_err(Error::rate_limited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_cut_at_its_far_end_to_what_one_answer_holds() {
        let cases: [(&[usize], bool, &[usize], bool); 6] = [
            (&[4, 3, 3], true, &[4, 3, 3], false),
            (&[4, 3, 4], true, &[4, 3], true),
            (&[4, 3, 4], false, &[3, 4], true),
            (&[11, 1], true, &[11], true),
            (&[1, 11], false, &[11], true),
            (&[], false, &[], false),
        ];
        for (items, is_forward, left, is_cut) in cases {
            let mut page = items.to_vec();
            assert_eq!(shorten(&mut page, is_forward, 10, |bytes| *bytes), is_cut, "{items:?} {is_forward}");
            assert_eq!(page, left, "{items:?} {is_forward}");
        }
    }
}
