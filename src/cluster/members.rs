//! How instances know of one another, and when they may append to logs.
//!
//! Each instance lists itself with the server's time, every [`BEAT`]; one that has not for [`LAPSE_MS`] is gone. All times
//! are the Redis server's, so that an instance with a wrong clock lives as long as others.
//!
//! When the server has been restarted or replaced, its last writes may be lost, and only the instances know. So each one
//! compares its meetings' logs with what it has seen before the connection is admitted, and waits until the others have
//! done so (see `run.lua`).

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use redis::Value;
use smol::Timer;

use super::{Cluster, Deliver};
use crate::redis::{
    Call, CallError, Script,
    reply::{number, text_of},
};

/// How often an instance says that it is alive. A server that comes back with what is older than that is found out by it.
const BEAT: Duration = Duration::from_secs(2);
/// Regular work is done every fifth time.
const BEATS_PER_WORK: u32 = 5;
/// After how long without that it is gone, in ms. With the pause between two looks this is less than 45 s.
const LAPSE_MS: u64 = 30_000;
/// Logs are compared with what is known of them every fifteenth time.
const BEATS_PER_CHECK: u32 = 15;
/// How long the others have to look after a restart of the server, in ms.
const CHECK_WAIT_MS: u64 = 3000;
/// How often it is looked whether they have.
const CHECK_PAUSE: Duration = Duration::from_millis(100);

static RUN: Script = Script::new(include_str!("run.lua"));
static BEATING: Script = Script::new(include_str!("beat.lua"));

/// The other instances.
#[derive(Default)]
pub(super) struct Members(Mutex<Peers>);

#[derive(Default)]
struct Peers {
    alive: HashSet<Arc<str>>,
    /// Those that have said that they end, and count as alive until their users are back elsewhere.
    ending: HashSet<Arc<str>>,
}

impl Members {
    pub(super) fn is_alive(&self, peer: &str) -> bool {
        let peers = self.lock();
        peers.alive.contains(peer) || peers.ending.contains(peer)
    }

    fn all(&self) -> Vec<Arc<str>> {
        self.lock().alive.iter().cloned().collect()
    }

    /// Notes who has been heard of.
    pub(super) fn note(&self, peer: &Arc<str>) {
        let mut peers = self.lock();
        if !peers.alive.contains(peer) {
            peers.alive.insert(Arc::clone(peer));
        }
    }

    /// Notes who has said that it ends.
    fn note_end(&self, peer: &Arc<str>) {
        self.lock().ending.insert(Arc::clone(peer));
    }

    fn forget(&self, peer: &str) {
        let mut peers = self.lock();
        peers.alive.remove(peer);
        peers.ending.remove(peer);
    }

    /// Takes over who is alive, and returns who was `before` that was asked, and has ended without a word. Who was heard of
    /// since then is alive as well.
    fn replace(&self, before: &[Arc<str>], alive: HashSet<Arc<str>>) -> Vec<Arc<str>> {
        let mut peers = self.lock();
        let gone: Vec<Arc<str>> =
            before.iter().filter(|peer| peers.alive.contains(*peer) && !alive.contains(*peer)).cloned().collect();
        gone.iter().for_each(|peer| _ = peers.alive.remove(peer));
        peers.alive.extend(alive);
        gone.into_iter().filter(|peer| !peers.ending.contains(peer)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Peers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody compares what is known here with what others have noted, until this is dropped.
struct Looking(Arc<Cluster>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.is_looking.store(false, Ordering::Relaxed);
    }
}

impl Cluster {
    /// Says that this instance is alive, and looks who else is, for ever.
    pub async fn beat_for_ever(self: Arc<Self>) {
        let mut beats = 0_u32;
        loop {
            Timer::after(BEAT).await;
            beats = beats.wrapping_add(1);
            self.beat().await;
            if !beats.is_multiple_of(BEATS_PER_WORK) {
                continue;
            }
            let left_out = self.gauges().left_out;
            if self.left_out.swap(left_out, Ordering::Relaxed) != left_out {
                log::warn!("{left_out} messages were left out so far: too long, or on a channel whose name is no text");
            }
            let Some(deliver) = self.deliver() else { return };
            deliver.beat();
            // Never in the way of the next heartbeat, and never twice at a time.
            if beats.is_multiple_of(BEATS_PER_CHECK) && !self.is_looking.swap(true, Ordering::Relaxed) {
                let looking = Looking(Arc::clone(&self));
                (self.spawn)(Box::pin(async move {
                    let _looking = looking;
                    deliver.check().await;
                    deliver.look_around().await;
                }));
            }
        }
    }

    /// One heartbeat. False if it could not be made.
    pub(super) async fn beat(&self) -> bool {
        let call = Call::script(&BEATING, 2)
            .arg(&self.names.run)
            .arg(&self.names.instances)
            .arg(&*self.names.uid)
            .int(LAPSE_MS)
            .life();
        let before = self.members.all();
        // Never before it is admitted: who is alive is then still to be found out from what was written before.
        let answer = self.redis.call(call.repeatable()).await;
        // It writes, as appending does: what hinders the one hinders the other.
        self.note_trouble(&match &answer {
            Ok(_) if self.settings.needs_replicas => self.probe().await,
            _ => answer.clone(),
        });
        let Ok(Value::Array(answer)) = answer else { return false };
        let mut answer = answer.iter();
        let is_new = answer.next().and_then(number) == Some(1);
        let at = answer.next().and_then(number);
        // ORDERING: Relaxed. A number of its own.
        self.beat_at.store(at.unwrap_or_default(), Ordering::Relaxed);
        let others = answer.filter_map(text_of).filter(|peer| *peer != &*self.names.uid).map(Arc::from).collect();
        let lost = self.members.replace(&before, others);
        if let Some(deliver) = self.deliver() {
            if is_new {
                deliver.note_again();
            }
            if !lost.is_empty() {
                deliver.lost_peers(lost);
            }
        }
        true
    }

    /// Writes something that enough replicas must have.
    async fn probe(&self) -> Result<Value, CallError> {
        let call = Call::command("SET").arg(&self.names.probe).arg("").arg("PX").int(LAPSE_MS);
        self.redis.call(call.replicated().repeatable()).await
    }

    /// Looks at the logs on a new connection, waits until the others have done so, and lets calls through.
    pub async fn admit(self: Arc<Self>, connection: u64, run_id: Box<str>) {
        let Some(deliver) = self.deliver() else { return };
        // ORDERING: Relaxed. A number of its own.
        self.connection.store(connection, Ordering::Relaxed);
        let mut has_looked = false;
        let life = loop {
            // Another task is on the next connection already.
            if self.connection.load(Ordering::Relaxed) != connection {
                return;
            }
            match self.run(&run_id, has_looked).await {
                Some((true, life)) => break life,
                Some((false, _)) if !has_looked => {
                    has_looked = deliver.check().await;
                    if has_looked {
                        continue;
                    }
                }
                _ => {}
            }
            Timer::after(CHECK_PAUSE).await;
        };
        if !self.redis.admit(connection, life) {
            return;
        }
        *self.run_id.lock().unwrap_or_else(PoisonError::into_inner) = run_id;
        self.beat().await;
        deliver.note_again();
        if !has_looked {
            deliver.check().await;
        }
    }

    async fn run(&self, run_id: &str, has_looked: bool) -> Option<(bool, u64)> {
        let names = &self.names;
        let before = self.run_id.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let call = Call::script(&RUN, 4)
            .arg(&names.run)
            .arg(&names.instances)
            .arg(&names.checked)
            .arg(&names.expected)
            .arg(&*names.uid)
            .int(u64::from(has_looked))
            .int(CHECK_WAIT_MS)
            .int(LAPSE_MS)
            .arg(run_id)
            .arg(&*before)
            .int(self.beat_at.load(Ordering::Relaxed));
        let call = self.members.all().iter().fold(call, |call, peer| call.arg(&**peer));
        let answer = self.redis.call(call.early().repeatable()).await;
        self.note_trouble(&answer);
        match answer {
            Ok(Value::Array(answer)) => match answer.as_slice() {
                [open, life] => Some((number(open)? == 1, number(life)?)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Notes whether the server refuses what has to be done all the time, and says so when that changes.
    fn note_trouble(&self, answer: &Result<Value, CallError>) {
        let code = match answer {
            Err(CallError::Server { code, message }) => Some((code.clone(), &**message)),
            Err(CallError::NotReplicated) => {
                Some(("NOREPLICAS".into(), "fewer than REDIS_MIN_REPLICAS have what was written"))
            }
            _ => None,
        };
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((code, message)) = &code
            && trouble.as_ref() != Some(code)
        {
            log::error!("Redis refuses what instances need: {code} {message}");
        }
        *trouble = code.map(|(code, _)| code);
    }

    /// Takes this instance off the list: it ends, and says so.
    pub async fn leave(self: &Arc<Self>, last_words: &str) {
        self.stop_reading().await;
        self.tell(None, last_words);
        let call = Call::command("ZREM").arg(&self.names.instances).arg(&*self.names.uid);
        let _ = self.redis.call(call.within(Duration::from_secs(1))).await;
    }

    /// An instance has said that it ends.
    pub fn peer_ends(&self, peer: &Arc<str>) {
        self.members.note_end(peer);
    }

    /// An instance has ended, and its users had time to be elsewhere.
    pub fn forget_peer(&self, peer: &str) {
        self.members.forget(peer);
    }

    pub(super) fn deliver(&self) -> Option<Arc<dyn Deliver>> {
        self.deliver.get().cloned()
    }

    /// For how long channels have not stood.
    pub(super) fn silent_for(&self) -> Duration {
        let deaf_since = *self.deaf_since.lock().unwrap_or_else(PoisonError::into_inner);
        deaf_since.map(|since| since.elapsed()).unwrap_or_default()
    }

    pub(super) fn set_hearing(&self, is_hearing: bool) {
        self.is_hearing.store(is_hearing, Ordering::Relaxed);
        let mut deaf_since = self.deaf_since.lock().unwrap_or_else(PoisonError::into_inner);
        match is_hearing {
            true => *deaf_since = None,
            false => _ = deaf_since.get_or_insert_with(Instant::now),
        }
    }
}
