//! Where logs are known to end: what the database may have lost, an instance may still know.

use std::sync::{Arc, PoisonError};

use super::Cluster;
use crate::{store::Position, types::RoomId};

/// Where a log is known to end.
#[derive(Clone)]
pub(super) struct Top {
    pub(super) position: Position,
    /// When an event was last noted, in ms since the epoch.
    pub(super) noted_at: u64,
}

/// Ends of logs that are known, and for how long those that nobody listens to.
const TOPS_MAX: usize = 1_000_000;
pub(super) const KNOWN_KEPT_MS: u64 = 120_000;

impl Cluster {
    /// Forgets ends of logs that nobody listens to, when no failing server would.
    pub(super) fn forget_known(&self, is_up: bool, now: u64) {
        let up_since = {
            let mut up_since = self.up_since.lock().unwrap_or_else(PoisonError::into_inner);
            match is_up {
                true => Some(*up_since.get_or_insert(now)),
                false => up_since.take().and(None),
            }
        };
        let is_recent = |at: u64| now.saturating_sub(at) <= KNOWN_KEPT_MS;
        if up_since.is_some_and(|since| !is_recent(since)) {
            let channels = self.channels.pin();
            self.known.pin().retain(|meeting, top| is_recent(top.noted_at) || channels.contains_key(meeting));
        }
    }

    /// Notes an event that is known here.
    pub fn note(&self, meeting: &RoomId, epoch: &Arc<str>, seq: u64, now: u64) {
        let tops = self.known.pin();
        if tops.len() >= TOPS_MAX && !tops.contains_key(meeting) {
            return;
        }
        let first = Top { position: Position { epoch: Arc::clone(epoch), seq }, noted_at: now };
        tops.update_or_insert_with(
            meeting.clone(),
            |top| match &top.position {
                known if known.epoch == *epoch && known.seq > seq => Top { noted_at: now, ..top.clone() },
                _ => first.clone(),
            },
            || first.clone(),
        );
    }

    /// The last event that is known of a meeting here.
    pub fn known(&self, meeting: &RoomId) -> Option<Position> {
        Some(self.known.pin().get(meeting)?.position.clone())
    }

    /// Whether that event, or a later one of the same epoch, has been noted.
    pub(super) fn has_known(&self, meeting: &str, epoch: &str, seq: u64) -> bool {
        let tops = self.known.pin();
        let top = tops.get(&RoomId::new(meeting));
        top.is_some_and(|top| *top.position.epoch == *epoch && top.position.seq >= seq)
    }

    /// The last events that are known, of all meetings.
    pub fn all_known(&self) -> Vec<(RoomId, Position)> {
        self.known.pin().iter().map(|(meeting, top)| (meeting.clone(), top.position.clone())).collect()
    }
}
