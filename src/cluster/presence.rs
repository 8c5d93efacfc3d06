//! Who is where: a hash for each meeting, with an entry for each user and instance.

use std::{
    collections::HashSet,
    future::{self, Future},
    pin::Pin,
    sync::{Arc, PoisonError},
};

use super::Cluster;
use crate::{
    redis::{Call, Script, reply},
    types::RoomId,
};

static HERE: Script = Script::new(include_str!("here.lua"));

/// A user's sockets at another instance, in the application's own words.
type Present = (Arc<str>, String);

/// Users of whom it is to be told later that they have left.
const UNTOLD_MAX: usize = 100_000;
/// Users that are noted in one command.
const PRESENT_AT_A_TIME: usize = 500;
/// What is noted of who is where, if nobody takes it back.
const PRESENCE_KEPT_MS: u64 = 24 * 60 * 60 * 1000;

impl Cluster {
    /// Users who have left meetings, of which the others could not be told.
    pub fn take_untold(&self) -> HashSet<(RoomId, Arc<str>)> {
        std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that a user has sockets here, as JSON in the application's own words, or has none. The other instances of the
    /// meeting are told `note`, unless they know.
    pub fn note_present(
        self: &Arc<Self>,
        meeting: &RoomId,
        user: &Arc<str>,
        present: Option<&str>,
        note: Option<&str>,
    ) {
        let (channel, payload) = note.map(|note| self.encode_note(Some(meeting), note)).unwrap_or_default();
        let call = Call::script(&HERE, 1)
            .arg(self.presence_key(meeting))
            .arg(format!("{} {user}", self.names.uid))
            .arg(present.unwrap_or_default())
            .int(PRESENCE_KEPT_MS)
            .arg(channel)
            .arg(payload);
        let answer = self.redis.call(call.repeatable());
        let (cluster, untold) = (Arc::clone(self), (meeting.clone(), Arc::clone(user)));
        let has_left = present.is_none();
        (self.spawn)(Box::pin(async move {
            // Whoever is here is noted again with the next connection, and who is not must not stay for ever.
            if answer.await.is_err() && has_left {
                let mut all = cluster.untold.lock().unwrap_or_else(PoisonError::into_inner);
                if all.len() < UNTOLD_MAX {
                    all.insert(untold);
                }
            }
        }));
    }

    /// Notes users who have sockets here, as [`note_present`](Self::note_present) does, and tells nobody.
    pub fn note_all_present(
        &self,
        meeting: &RoomId,
        present: Vec<(Arc<str>, String)>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        if present.is_empty() {
            return Box::pin(future::ready(()));
        }
        let key = self.presence_key(meeting);
        let mut calls: Vec<_> = present
            .chunks(PRESENT_AT_A_TIME)
            .map(|present| {
                let field = |user: &str| format!("{} {user}", self.names.uid);
                let call = Call::command("HSET").arg(&key);
                present.iter().fold(call, |call, (user, json)| call.arg(field(user)).arg(json)).repeatable()
            })
            .collect();
        calls.push(Call::command("PEXPIRE").arg(&key).int(PRESENCE_KEPT_MS).repeatable());
        let answers = self.redis.calls(calls);
        // What was not noted is missing when it is compared the next time.
        Box::pin(async move { _ = answers.await })
    }

    /// Who is in a meeting at other instances, in their words, and the users that this one has noted. `None` if it cannot be
    /// asked.
    pub async fn present(self: &Arc<Self>, meeting: &RoomId) -> Option<(Vec<Present>, Vec<Arc<str>>)> {
        let answer =
            self.redis.call(Call::command("HGETALL").arg(self.presence_key(meeting)).repeatable()).await.ok()?;
        let (mut present, mut ours) = (Vec::new(), Vec::new());
        let mut lost = Vec::new();
        let mut is_sure = false;
        for (field, value) in reply::pairs(answer)? {
            let Some((peer, user)) = field.split_once(' ') else { continue };
            if peer == &*self.names.uid {
                ours.push(user.into());
                continue;
            }
            if !self.members.is_alive(peer) && !is_sure {
                // It may have just begun.
                is_sure = self.beat().await;
                if !is_sure {
                    continue;
                }
            }
            match self.members.is_alive(peer) {
                true => present.push((Arc::from(peer), value)),
                false => lost.push(field),
            }
        }
        if !lost.is_empty() {
            self.send(lost.into_iter().fold(Call::command("HDEL").arg(self.presence_key(meeting)), Call::arg));
        }
        Some((present, ours))
    }

    fn presence_key(&self, meeting: &RoomId) -> String {
        format!("{}{{m:{}}}:here", self.settings.key_prefix, meeting.as_str())
    }
}
