//! Keys that were claimed for a while.

use std::{
    collections::{BTreeMap, HashMap},
    mem::size_of,
    sync::Arc,
};

use crate::store::memory::table::Weigh;

/// Keys that are claimed. Bounded: the one that was claimed first goes.
#[derive(Default)]
pub(super) struct Claims {
    by_key: HashMap<Arc<str>, Claim>,
    order: BTreeMap<u64, Arc<str>>,
    /// The last number that was given.
    number: u64,
    key_bytes: usize,
}

/// A key that is claimed.
struct Claim {
    /// In ms since the epoch.
    until: u64,
    /// In `order`.
    number: u64,
    /// What it was claimed for is done.
    is_held: bool,
}

/// Keys that are claimed at a time.
const KEYS_MAX: usize = 100_000;
/// Of one key, beside its text: an entry in each of the two maps.
const KEY_BYTES: usize = 3 * size_of::<(Arc<str>, Claim)>();

impl Weigh for Claims {
    fn bytes(&self) -> usize {
        self.by_key.len() * KEY_BYTES + self.key_bytes
    }
}

impl Claims {
    /// Holds a key for `ttl_ms` from now, whether or not it is claimed.
    pub(super) fn hold(&mut self, key: &str, ttl_ms: u64, now: u64) {
        self.drop_key(key);
        self.claim(key, ttl_ms, now);
        if let Some(claim) = self.by_key.get_mut(key) {
            claim.is_held = true;
        }
    }

    /// Whether a key is held.
    pub(super) fn is_held(&self, key: &str, now: u64) -> bool {
        self.by_key.get(key).is_some_and(|claim| claim.is_held && now < claim.until)
    }

    /// Claims a key for `ttl_ms` from now. False if it is claimed.
    pub(super) fn claim(&mut self, key: &str, ttl_ms: u64, now: u64) -> bool {
        match self.by_key.get(key) {
            Some(claim) if now < claim.until => return false,
            Some(_) => self.drop_key(key),
            None if self.by_key.len() >= KEYS_MAX => {
                self.drop_first();
            }
            None => {}
        }
        self.number += 1;
        let key: Arc<str> = key.into();
        self.key_bytes += key.len();
        let claim = Claim { until: now.saturating_add(ttl_ms), number: self.number, is_held: false };
        self.by_key.insert(Arc::clone(&key), claim);
        self.order.insert(self.number, key);
        true
    }

    /// Drops keys whose time is over.
    pub(super) fn sweep(&mut self, now: u64) {
        let Self { by_key, order, key_bytes, .. } = self;
        by_key.retain(|key, claim| {
            let is_over = claim.until <= now;
            if is_over {
                order.remove(&claim.number);
                *key_bytes -= key.len();
            }
            !is_over
        });
        if by_key.len() * 4 < by_key.capacity() {
            by_key.shrink_to_fit();
        }
    }

    /// Drops the key that was claimed first. False if there is none.
    pub(super) fn drop_first(&mut self) -> bool {
        let Some((_, key)) = self.order.pop_first() else { return false };
        self.by_key.remove(&key);
        self.key_bytes -= key.len();
        true
    }

    fn drop_key(&mut self, key: &str) {
        if let Some(claim) = self.by_key.remove(key) {
            self.order.remove(&claim.number);
            self.key_bytes -= key.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_full_the_first_goes() {
        let mut claims = Claims::default();
        for number in 0..KEYS_MAX {
            assert!(claims.claim(&number.to_string(), 10, 0));
        }
        assert!(!claims.claim("0", 10, 0), "exactly full: all are kept");
        assert!(claims.claim("one past", 10, 0));
        assert_eq!((claims.by_key.len(), claims.order.len()), (KEYS_MAX, KEYS_MAX));
        assert!(!claims.claim("1", 10, 0));
        assert!(claims.claim("0", 10, 0), "the first one went");
        // A key that is claimed again is as young as a new one, and leaves nothing behind.
        assert!(claims.claim("2", 10, 10));
        assert_eq!((claims.by_key.len(), claims.order.len()), (KEYS_MAX, KEYS_MAX));
        claims.sweep(19);
        assert_eq!((claims.by_key.len(), claims.order.len()), (1, 1));
        claims.sweep(20);
        assert_eq!((claims.order.len(), claims.bytes()), (0, 0));
    }
}
