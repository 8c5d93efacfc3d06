//! The stream of meeting updates: what was added while no instance was there is taken in as well.
//!
//! One instance at a time reads it, so that what happens to a meeting happens in its order: the one that has the lease.
//! All read under one name, so what one has taken and not acknowledged is what the next one finds first. An instance that
//! ends gives the lease back; one that dies keeps it for [`LEASE_MS`].

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use redis::Value;
use smol::{Timer, future::FutureExt as _};

use super::{Cluster, UPDATES_STREAM};
use crate::redis::{
    Call, CallError, Script,
    reply::{number, text, text_of},
};

static LEASE: Script = Script::new(include_str!("lease.lua"));
static ACK: Script = Script::new(include_str!("ack.lua"));
static SHED: Script = Script::new(include_str!("shed.lua"));
static RELEASE: Script = Script::new(include_str!("release.lua"));

const GROUP: &str = "chat";
/// The group's only consumer: whoever has the lease.
const CONSUMER: &str = "chat";
/// What was taken and not acknowledged, from the first on; what nobody has taken.
const PENDING: &str = "0";
const NEW: &str = ">";
/// Entries that are taken at a time.
const COUNT: u64 = 64;
/// The most bytes of an entry, in all its fields: as many as are taken at a time fit into one answer then.
const ENTRY_MAX_BYTES: u64 = 512 * 1024;
/// How long one question waits for entries, in ms.
const BLOCK_MS: u64 = 2000;
/// For how long an instance may read, in ms, unless it asks again.
const LEASE_MS: u64 = 6000;
/// The pause after the stream could not be read, or does not exist, and before it is asked again who reads.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an instance that ends waits for the update that it is applying.
const LAST_UPDATE: Duration = Duration::from_secs(1);
/// Which field of an entry holds the update.
const FIELD: &str = "data";

impl Cluster {
    /// Takes updates from the stream, until this instance ends.
    pub async fn read_updates(self: Arc<Self>) {
        let mut refused: Option<Box<str>> = None;
        while !self.is_ending.load(Ordering::Relaxed) {
            let Some(mut renew_at) = self.lease().await else {
                Timer::after(PAUSE).await;
                continue;
            };
            // Whoever takes something may end before it is applied: so it is taken first, and applied when it is found among
            // what was taken.
            let taken = match self.take(PENDING).await {
                Ok(entries) if entries.is_empty() => self.take(NEW).await.map(|_| Taken::default()),
                Ok(entries) => self.apply(entries, &mut renew_at).await,
                Err(error) => Err(error),
            };
            match taken {
                Ok(Taken { count, done }) if done == count => {}
                Ok(_) => _ = Timer::after(PAUSE).await,
                Err(error) => {
                    if let CallError::Server { code, message } = error
                        && &*code != "NOGROUP"
                        && refused.as_ref() != Some(&code)
                    {
                        log::error!("{UPDATES_STREAM} cannot be read: {code} {message}");
                        refused = Some(code);
                    }
                    Timer::after(PAUSE).await;
                    self.shed().await;
                    if !self.make_group().await {
                        Timer::after(PAUSE).await;
                    }
                }
            }
        }
    }

    /// Passes over what was taken and cannot be read, as the answer would be too large: all of that would be asked for again
    /// and again.
    async fn shed(&self) {
        let call = Call::script(&SHED, 1).arg(UPDATES_STREAM).arg(GROUP).int(COUNT).int(ENTRY_MAX_BYTES);
        let Some(count) = self.redis.call(call).await.ok().as_ref().and_then(number) else { return };
        for _ in 0..count {
            self.metrics.unreadable();
        }
        if count > 0 {
            log::warn!("{count} entries of {UPDATES_STREAM} were left out: larger than {ENTRY_MAX_BYTES} bytes");
        }
    }

    /// Asks for the lease, or for more of it, and returns when to do so again. `None` if somebody else has it, or nobody can
    /// say.
    async fn lease(&self) -> Option<Instant> {
        let renew_at = Instant::now() + Duration::from_millis(LEASE_MS / 2);
        let call = Call::script(&LEASE, 1).arg(&self.names.lease).arg(&*self.names.uid).int(LEASE_MS);
        let answer = self.redis.call(call.repeatable()).await.ok()?;
        (number(&answer) == Some(1)).then_some(renew_at)
    }

    /// Reads no more, and lets others do so. Waits a little for the update that is being applied.
    pub(super) async fn stop_reading(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
        let applied = async { _ = self.applying.lock().await };
        applied.or(async { _ = Timer::after(LAST_UPDATE).await }).await;
        let call = Call::script(&RELEASE, 1).arg(&self.names.lease).arg(&*self.names.uid);
        let _ = self.redis.call(call.within(LAST_UPDATE)).await;
    }

    /// Makes the group that reads the stream from its first entry, if there is a stream.
    async fn make_group(&self) -> bool {
        let call = Call::command("XGROUP").arg("CREATE").arg(UPDATES_STREAM).arg(GROUP).arg("0");
        match self.redis.call(call).await {
            Ok(_) => true,
            Err(CallError::Server { code, .. }) => &*code == "BUSYGROUP",
            Err(_) => false,
        }
    }

    /// Entries that were taken and not acknowledged, or takes new ones.
    async fn take(&self, from: &str) -> Result<Vec<Value>, CallError> {
        let call = Call::command("XREADGROUP")
            .arg("GROUP")
            .arg(GROUP)
            .arg(CONSUMER)
            .arg("COUNT")
            .int(COUNT)
            .arg("BLOCK")
            .int(BLOCK_MS)
            .arg("STREAMS")
            .arg(UPDATES_STREAM)
            .arg(from);
        // [[stream, entries]], or nothing.
        let Value::Array(streams) = self.redis.block(call.within(Duration::from_millis(2 * BLOCK_MS))).await? else {
            return Ok(Vec::new());
        };
        let Some(Value::Array(stream)) = streams.into_iter().next() else { return Ok(Vec::new()) };
        match stream.into_iter().nth(1) {
            Some(Value::Array(entries)) => Ok(entries),
            _ => Ok(Vec::new()),
        }
    }

    /// Applies one entry after the other, up to the first that cannot be, and acknowledges them.
    async fn apply(&self, entries: Vec<Value>, renew_at: &mut Instant) -> Result<Taken, CallError> {
        let _applying = self.applying.lock().await;
        let count = entries.len();
        let mut done = Vec::new();
        for entry in entries {
            // [id, [field, value, ...]], or [id, nil] if the entry was deleted meanwhile.
            let Value::Array(entry) = entry else { continue };
            let mut entry = entry.into_iter();
            let (Some(id), fields) = (entry.next(), entry.next()) else { continue };
            let Some(id) = text(id) else { continue };
            let json = match fields {
                Some(Value::Array(fields)) => fields
                    .chunks_exact(2)
                    .find(|pair| pair.first().and_then(text_of) == Some(FIELD))
                    .and_then(|pair| text_of(pair.last()?).map(ToOwned::to_owned)),
                _ => None,
            };
            if !self.may_go_on(renew_at).await {
                break;
            }
            let Some(deliver) = self.deliver() else { break };
            let is_done = match json {
                Some(json) => {
                    // An entry's id is the time at which it was added, and a number.
                    let at = id.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or_default();
                    deliver.kept_update(json, at).await
                }
                None => {
                    self.metrics.unreadable();
                    true
                }
            };
            if !is_done {
                break;
            }
            done.push(id);
        }
        let taken = Taken { count, done: done.len() };
        if !done.is_empty() {
            let call = Call::script(&ACK, 1).arg(UPDATES_STREAM).arg(GROUP);
            self.redis.call(done.into_iter().fold(call, Call::arg).repeatable()).await?;
        }
        Ok(taken)
    }

    /// Whether it is still for this instance to read.
    async fn may_go_on(&self, renew_at: &mut Instant) -> bool {
        if Instant::now() >= *renew_at {
            match self.lease().await {
                Some(later) => *renew_at = later,
                None => return false,
            }
        }
        !self.is_ending.load(Ordering::Relaxed)
    }
}

/// How many entries were taken, and how many of them applied and acknowledged.
#[derive(Default)]
struct Taken {
    count: usize,
    done: usize,
}
