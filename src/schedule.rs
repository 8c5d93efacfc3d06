//! What is to be done later: jobs by the time at which they are due.
//!
//! Reads no clock and runs nothing: whoever drives it asks for the [next](Schedule::next) time, sleeps until then, and
//! [takes](Schedule::take_due) what is due.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

/// Jobs that wait for their time. Shared by all threads.
///
/// It bounds nothing by itself: whoever adds jobs keeps at most one for each thing that it bounds.
pub struct Schedule<J> {
    jobs: Mutex<Jobs<J>>,
    /// Called when a job is due before all others.
    on_earlier: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

struct Jobs<J> {
    waiting: BTreeMap<Key, J>,
    last_number: u64,
}

/// Names a job that waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    /// ms since the epoch.
    at: u64,
    number: u64,
}

impl<J> Schedule<J> {
    /// A schedule without jobs.
    pub fn new() -> Self {
        Self { jobs: Mutex::new(Jobs { waiting: BTreeMap::new(), last_number: 0 }), on_earlier: OnceLock::new() }
    }

    /// Sets what is called when [`next`](Self::next) has become earlier. Once.
    pub fn on_earlier(&self, call: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_earlier.set(Box::new(call));
    }

    /// Adds a job that is due `at` a time, in ms since the epoch.
    pub fn add(&self, at: u64, job: J) -> Key {
        let (key, is_first) = {
            let mut jobs = self.jobs();
            jobs.last_number += 1;
            let key = Key { at, number: jobs.last_number };
            let is_first = jobs.waiting.first_key_value().is_none_or(|(first, _)| key < *first);
            jobs.waiting.insert(key, job);
            (key, is_first)
        };
        if is_first && let Some(call) = self.on_earlier.get() {
            call();
        }
        key
    }

    /// Takes a job back, if it still waits.
    pub fn cancel(&self, key: Key) -> Option<J> {
        self.jobs().waiting.remove(&key)
    }

    /// When the first job is due, in ms since the epoch.
    pub fn next(&self) -> Option<u64> {
        self.jobs().waiting.first_key_value().map(|(key, _)| key.at)
    }

    /// Takes the first job, if it is due.
    pub fn take_due(&self, now: u64) -> Option<J> {
        let mut jobs = self.jobs();
        let (key, _) = jobs.waiting.first_key_value()?;
        if key.at > now { None } else { jobs.waiting.pop_first().map(|(_, job)| job) }
    }

    /// How many jobs wait.
    pub fn len(&self) -> usize {
        self.jobs().waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs<J>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Default for Schedule<J> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn jobs_come_in_the_order_of_their_times() {
        let schedule = Schedule::new();
        let earlier = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&earlier);
        schedule.on_earlier(move || _ = counted.fetch_add(1, Ordering::Relaxed));
        schedule.add(20, "b");
        let key = schedule.add(30, "gone");
        schedule.add(10, "a");
        schedule.add(20, "c");
        assert_eq!(earlier.load(Ordering::Relaxed), 2, "at 20 and at 10");
        assert_eq!(schedule.cancel(key), Some("gone"));
        assert_eq!(schedule.cancel(key), None);
        assert_eq!((schedule.next(), schedule.take_due(9)), (Some(10), None));
        assert_eq!(schedule.take_due(20), Some("a"));
        assert_eq!(schedule.take_due(20), Some("b"));
        assert_eq!(schedule.take_due(20), Some("c"));
        assert_eq!((schedule.take_due(u64::MAX), schedule.next()), (None, None));
    }
}
