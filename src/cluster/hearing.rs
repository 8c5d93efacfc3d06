//! What comes on the channels: to whom it is, and whether it can be read.

use std::{
    borrow::Cow,
    sync::{Arc, PoisonError, Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use serde::de::IgnoredAny;
use smol::Timer;

use super::{ANSWERS_MAX, AUTH_EVENTS, Answers, Cluster, Deliver, Emit, NAMESPACE, UPDATES};
use crate::{
    adapter::{
        classic::{self, Request},
        python::{Message, Method, PythonError},
        rooms::meeting_of_room,
    },
    redis::{Listener, SubscribeError},
    store::{Kind, LogEvent},
    types::RoomId,
};

/// The ears of a cluster; deaf when it is gone.
pub struct Ears(Weak<Cluster>);

/// The largest update or event of the Auth Service, in bytes.
const TEXT_MAX_BYTES: usize = 64 * 1024;
/// The pause before it is asked again to listen.
const SUBSCRIBE_PAUSE: Duration = Duration::from_millis(100);
/// Something that cannot be read, or is refused, is said in the log so often.
const WARN_PAUSE: Duration = Duration::from_secs(10);

impl Cluster {
    /// What the subscriber is to tell.
    pub fn ears(self: &Arc<Self>) -> Ears {
        Ears(Arc::downgrade(self))
    }

    /// Listens to channels that are not meetings'. Returns when they stand.
    pub async fn listen_for_ever(self: Arc<Self>, channels: Vec<Arc<str>>) {
        let Some(subscriber) = self.subscriber.get() else { return };
        // Once they stand, they stand again with every connection.
        while let Err(error) = subscriber.subscribe(channels.clone()).await {
            if error == SubscribeError::Refused {
                self.warn(|| log::error!("Redis does not let this user listen to the channels that are needed"));
            }
            Timer::after(SUBSCRIBE_PAUSE).await;
        }
        self.is_listening.store(true, Ordering::Relaxed);
    }

    pub(super) fn hear(
        &self,
        deliver: &dyn Deliver,
        channel: &str,
        payload: &[u8],
        is_pattern: bool,
    ) -> Result<(), String> {
        let names = &self.names;
        if let Some(room) = channel.strip_prefix(&*names.everybody) {
            return match room.strip_suffix('#') {
                Some(room) => self.hear_room(deliver, room, payload, is_pattern),
                None => self.hear_room(deliver, "", payload, is_pattern),
            };
        }
        if channel == &*names.peers {
            return self.hear_room(deliver, "", payload, is_pattern);
        }
        if channel == &*names.requests {
            let request = Request::decode(payload).map_err(|error| error.to_string())?;
            if request.uid.as_deref() != Some(&*names.uid) {
                deliver.request(request);
            }
            return Ok(());
        }
        if channel.starts_with(&*names.responses) {
            // Nothing is asked of other servers, so these are for others.
            return Ok(());
        }
        let text = || {
            let text = std::str::from_utf8(payload).map_err(|_| "expected UTF-8".to_owned())?;
            if text.len() > TEXT_MAX_BYTES { Err(format!("expected at most {TEXT_MAX_BYTES} bytes")) } else { Ok(text) }
        };
        match channel {
            UPDATES => {
                deliver.update(text()?);
                Ok(())
            }
            AUTH_EVENTS => {
                deliver.auth_event(text()?);
                Ok(())
            }
            _ => self.hear_python(deliver, channel, payload),
        }
    }

    /// A message in the adapter's format.
    fn hear_room(&self, deliver: &dyn Deliver, room: &str, payload: &[u8], is_pattern: bool) -> Result<(), String> {
        let peeked = classic::peek(payload).map_err(|error| error.to_string())?;
        let meta = peeked.meta.unwrap_or_default();
        let is_ours = peeked.uid == Some(&*self.names.uid);
        if let (Some(seq), Some(epoch), Some(kind), Some(json)) = (meta.seq, meta.epoch, meta.kind, meta.json) {
            // Our own come as well: if the answer to an append was lost, this is how members here get it.
            let kind = *Kind::ALL.get(usize::from(kind)).ok_or("expected a known kind of event")?;
            let meeting = meeting_of_room(room).ok_or("expected a meeting's channel")?;
            if is_ours && self.has_known(meeting, epoch, seq) {
                // It was delivered when Redis answered.
                return Ok(());
            }
            check_json(json)?;
            if !json.starts_with('{') {
                return Err("expected an object".into());
            }
            deliver.logged(RoomId::new(meeting), LogEvent { kind, epoch: epoch.into(), seq, json: json.into() });
            return Ok(());
        }
        if is_ours {
            return Ok(());
        }
        if let Some(note) = meta.control {
            let peer: Arc<str> = peeked.uid.ok_or("expected who notes it")?.into();
            self.members.note(&peer);
            let meeting = meeting_of_room(room).filter(|meeting| !meeting.is_empty());
            deliver.note(&peer, meeting.map(RoomId::new), note);
            return Ok(());
        }
        // Patterns show what exact channels show as well.
        if is_pattern && self.channels.pin().contains_key(&RoomId::new(meeting_of_room(room).unwrap_or_default())) {
            return Ok(());
        }
        let args_json = meta.json.filter(|json| check_json(json).is_ok());
        let broadcast = peeked.decode(args_json).map_err(|error| error.to_string())?;
        if broadcast.namespace == NAMESPACE {
            deliver.emit(Emit {
                rooms: owned(broadcast.rooms),
                except: owned(broadcast.except),
                event: broadcast.event.into_owned(),
                is_volatile: broadcast.flags.volatile,
                ack: None,
            });
        }
        Ok(())
    }

    fn hear_python(&self, deliver: &dyn Deliver, channel: &str, payload: &[u8]) -> Result<(), String> {
        let message = Message::decode(payload).map_err(|error| {
            if error == PythonError::Pickle {
                self.metrics.pickle_refused();
            }
            error.to_string()
        })?;
        if message.namespace != NAMESPACE {
            return Ok(());
        }
        let emit = match message.method {
            Method::Emit(emit) => emit,
            method => {
                deliver.python(method);
                return Ok(());
            }
        };
        if emit.rooms.as_ref().is_some_and(Vec::is_empty) {
            // For nobody, and not for everybody.
            return Ok(());
        }
        deliver.emit(Emit {
            rooms: emit.rooms.map(owned).unwrap_or_default(),
            except: owned(emit.skip_sids),
            event: emit.event.into_owned(),
            is_volatile: false,
            ack: emit.callback.map(|callback| {
                let deadline = Instant::now() + ANSWERS_MAX;
                Answers::Python { channel: channel.into(), callback, deadline }
            }),
        });
        Ok(())
    }

    /// Counts what cannot be read, and says so once in a while, without what it was.
    pub fn could_not_read(&self, channel: &str, why: &str) {
        self.metrics.unreadable();
        self.warn(|| {
            let channel: String = channel.chars().take(64).collect();
            log::warn!("a message on {channel:?} was dropped: {why}");
        });
    }

    /// Says something in the log, unless something was said lately.
    pub fn warn(&self, say: impl FnOnce()) {
        {
            let mut warned_at = self.warned_at.lock().unwrap_or_else(PoisonError::into_inner);
            if warned_at.is_some_and(|at| at.elapsed() < WARN_PAUSE) {
                return;
            }
            *warned_at = Some(Instant::now());
        }
        say();
    }
}

/// What goes to clients as it is has to be one JSON value.
fn check_json(json: &str) -> Result<(), String> {
    serde_json::from_str::<IgnoredAny>(json).map(drop).map_err(|_| "expected JSON".to_owned())
}

pub(super) fn owned(names: Vec<Cow<'_, str>>) -> Vec<String> {
    names.into_iter().map(Cow::into_owned).collect()
}

impl Listener for Ears {
    fn message(&self, channel: &str, payload: &[u8], is_pattern: bool) {
        let Some(cluster) = self.0.upgrade() else { return };
        let Some(deliver) = cluster.deliver() else { return };
        if let Err(why) = cluster.hear(&*deliver, channel, payload, is_pattern) {
            cluster.could_not_read(channel, &why);
        }
    }

    fn restored(&self) {
        let Some(cluster) = self.0.upgrade() else { return };
        let silent_for = cluster.silent_for();
        cluster.set_hearing(true);
        if let Some(deliver) = cluster.deliver() {
            deliver.heard_again(silent_for);
        }
    }

    fn lost(&self) {
        if let Some(cluster) = self.0.upgrade() {
            cluster.set_hearing(false);
        }
    }
}
