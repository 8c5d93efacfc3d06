//! The stream of meeting updates: what was added while no instance was there is taken in as well.
//!
//! One instance at a time reads it, so that what happens to a meeting happens in its order. An entry is acknowledged when
//! it has been applied; if the instance ends, another one reads on after [`PENDING_MS`], with what was not acknowledged.

use std::{sync::Arc, time::Duration};

use redis::Value;
use smol::Timer;

use super::{
    Cluster, UPDATES_STREAM,
    members::{integer, text},
};
use crate::redis::{Call, CallError, Script};

static LEASE: Script = Script::new(include_str!("lease.lua"));

const GROUP: &str = "chat";
/// Entries that are taken at a time.
const COUNT: u64 = 64;
/// How long one question waits for entries, in ms.
const BLOCK_MS: u64 = 5000;
/// How long an instance has to apply what it has taken, in ms.
const PENDING_MS: u64 = 15_000;
/// The pause after the stream could not be read, or does not exist.
const PAUSE: Duration = Duration::from_secs(1);
/// Which field of an entry holds the update.
const FIELD: &str = "data";

impl Cluster {
    /// Takes updates from the stream, for ever.
    pub async fn read_updates(self: Arc<Self>) {
        loop {
            // Two at a time could apply two updates of one meeting in the wrong order.
            if !self.leads().await {
                Timer::after(PAUSE).await;
                continue;
            }
            let taken = match self.take_over().await {
                Ok(0) => self.take_new().await,
                taken => taken,
            };
            if taken.is_err() {
                Timer::after(PAUSE).await;
                if !self.make_group().await {
                    Timer::after(PAUSE).await;
                }
            }
            if self.deliver().is_none() {
                return;
            }
        }
    }

    /// Whether it is for this instance to read the stream.
    async fn leads(&self) -> bool {
        let lease = format!("{}{{cluster}}:stream", self.settings.key_prefix);
        let call = Call::script(&LEASE, 1).arg(lease).arg(&*self.names.uid).int(PENDING_MS);
        matches!(self.redis.call(call).await, Ok(value) if integer(&value) == Some(1))
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

    /// Takes over what others have left. Returns how many entries that were.
    async fn take_over(&self) -> Result<usize, CallError> {
        let call = Call::command("XAUTOCLAIM")
            .arg(UPDATES_STREAM)
            .arg(GROUP)
            .arg(&*self.names.uid)
            .int(PENDING_MS)
            .arg("0")
            .arg("COUNT")
            .int(COUNT);
        match self.redis.call(call).await? {
            // Cursor, entries, and those that were deleted meanwhile.
            Value::Array(answer) => match answer.into_iter().nth(1) {
                Some(entries) => self.apply(entries).await,
                None => Ok(0),
            },
            _ => Ok(0),
        }
    }

    async fn take_new(&self) -> Result<usize, CallError> {
        let call = Call::command("XREADGROUP")
            .arg("GROUP")
            .arg(GROUP)
            .arg(&*self.names.uid)
            .arg("COUNT")
            .int(COUNT)
            .arg("BLOCK")
            .int(BLOCK_MS)
            .arg("STREAMS")
            .arg(UPDATES_STREAM)
            .arg(">");
        // [[stream, entries]], or nothing.
        match self.redis.block(call.within(Duration::from_millis(2 * BLOCK_MS))).await? {
            Value::Array(streams) => match streams.into_iter().next() {
                Some(Value::Array(stream)) => match stream.into_iter().nth(1) {
                    Some(entries) => self.apply(entries).await,
                    None => Ok(0),
                },
                _ => Ok(0),
            },
            _ => Ok(0),
        }
    }

    async fn apply(&self, entries: Value) -> Result<usize, CallError> {
        let Value::Array(entries) = entries else { return Ok(0) };
        let mut done = Vec::new();
        let count = entries.len();
        for entry in entries {
            let Value::Array(entry) = entry else { continue };
            let mut entry = entry.into_iter();
            let (Some(id), fields) = (entry.next(), entry.next()) else { continue };
            let Some(id) = text(&id).map(ToOwned::to_owned) else { continue };
            let json = match fields {
                Some(Value::Array(fields)) => fields
                    .chunks_exact(2)
                    .find(|pair| pair.first().and_then(text) == Some(FIELD))
                    .and_then(|pair| text(pair.last()?).map(ToOwned::to_owned)),
                _ => None,
            };
            let Some(deliver) = self.deliver() else { return Ok(0) };
            let is_done = match json {
                Some(json) => deliver.kept_update(json).await,
                None => {
                    self.metrics.unreadable();
                    true
                }
            };
            if is_done {
                done.push(id);
            }
        }
        if !done.is_empty() {
            let call = Call::command("XACK").arg(UPDATES_STREAM).arg(GROUP);
            self.redis.call(done.into_iter().fold(call, Call::arg).repeatable()).await?;
        }
        Ok(count)
    }
}
