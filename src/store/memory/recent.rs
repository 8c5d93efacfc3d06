//! What was logged lately, by the ids that senders gave it: so that a repeat is answered and not logged again.

use std::{
    collections::{HashMap, VecDeque},
    mem::size_of,
    sync::Arc,
};

use crate::types::MessageId;

/// Events of one sender by `client_id`, or of one meeting by `event_id`.
#[derive(Default)]
pub(super) struct Recent {
    by_id: HashMap<Arc<str>, Logged>,
    /// The keys of `by_id`, oldest first, and when each was logged.
    order: VecDeque<(Arc<str>, u64)>,
}

/// What is known of an event that was logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Logged {
    /// Of its text.
    pub(super) fingerprint: u64,
    /// The message.
    pub(super) id: Option<MessageId>,
    /// Where it stands.
    pub(super) seq: u64,
    /// When, in ms since the epoch.
    pub(super) ts: u64,
}

/// Every id is remembered for so long, in ms: 10 min.
const REMEMBERED_MS: u64 = 10 * 60 * 1000;
/// Of one id, beside its text: an entry in a map and one in a queue, with the room that both keep to grow.
const ENTRY_BYTES: usize = 2 * (2 * size_of::<Arc<str>>() + size_of::<Logged>()) + 2 * size_of::<usize>();

impl Recent {
    /// What was logged by this id, if it is remembered.
    pub(super) fn find(&self, id: &str) -> Option<Logged> {
        self.by_id.get(id).copied()
    }

    /// Remembers an id that is not remembered, and returns how many bytes that takes.
    pub(super) fn insert(&mut self, id: &str, logged: Logged) -> usize {
        let id: Arc<str> = id.into();
        let bytes = entry_bytes(&id);
        self.by_id.insert(Arc::clone(&id), logged);
        self.order.push_back((id, logged.ts));
        bytes
    }

    /// Forgets what is old enough, except for the last `keep`, and returns how many bytes that frees.
    pub(super) fn forget(&mut self, keep: usize, now: u64) -> usize {
        let mut freed = 0;
        while self.order.len() > keep
            && let Some((id, _)) = self.order.pop_front_if(|(_, ts)| now.saturating_sub(*ts) > REMEMBERED_MS)
        {
            self.by_id.remove(&id);
            freed += entry_bytes(&id);
        }
        freed
    }

    /// Bytes of all entries.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        assert_eq!(self.by_id.len(), self.order.len());
        self.by_id.keys().map(|id| entry_bytes(id)).sum()
    }
}

fn entry_bytes(id: &str) -> usize {
    ENTRY_BYTES + id.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_remembered_for_its_time_and_among_the_last() {
        let logged = |ts| Logged { fingerprint: 7, id: None, seq: ts, ts };
        let mut recent = Recent::default();
        let mut bytes = 0;
        for ts in 1..=4 {
            bytes += recent.insert(&ts.to_string(), logged(ts));
        }
        let known = |recent: &Recent| (1..=4).filter(|ts: &u64| recent.find(&ts.to_string()).is_some()).count();
        for (name, keep, now, left) in [
            ("all are young", 0, 1 + REMEMBERED_MS, 4),
            ("one is old, and among the last", 4, 2 + REMEMBERED_MS, 4),
            ("one is old, and not among the last", 3, 2 + REMEMBERED_MS, 3),
            ("all are old, some are among the last", 2, u64::MAX, 2),
            ("all are old", 0, u64::MAX, 0),
        ] {
            bytes -= recent.forget(keep, now);
            assert_eq!((known(&recent), recent.bytes()), (left, bytes), "{name}");
        }
        assert_eq!(bytes, 0);
        assert_eq!(recent.find("4"), None);
    }
}
