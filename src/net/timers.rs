//! All deadlines of a server in one place.
//!
//! The runtime's own timers wake its reactor, by a system call and a thread, whenever one is set. Connections set one
//! at every ping; with ten thousand of them idle that was most of the work. Here a deadline that is not the next one
//! costs an entry in a tree, and one task sleeps for all.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use smol::{Executor, Timer};

/// Deadlines and who waits for them. Cheap to clone.
#[derive(Clone)]
pub(super) struct Timers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By time; the number tells apart what is due at the same instant.
    sleepers: BTreeMap<(Instant, u64), Waker>,
    next_number: u64,
    /// The task that wakes the sleepers, and when it will look again.
    driver: Option<Waker>,
    looks_at: Option<Instant>,
}

/// One deadline. Stays with one task. Dropping it forgets the deadline.
pub(super) struct Sleep {
    timers: Timers,
    at: Option<Instant>,
    /// The entry that stands in the tree, if there is one.
    entry: Option<u64>,
}

/// What is due within this time is woken together.
const GRAIN: Duration = Duration::from_millis(1);

impl Timers {
    /// Timers that a task on `executor` watches.
    pub(super) fn new(executor: &Executor<'static>) -> Self {
        let timers = Self(Arc::default());
        let driven = timers.clone();
        let mut timer = Timer::never();
        let drive = poll_fn(move |cx| {
            loop {
                let Some(next) = driven.wake_due(cx, Instant::now()) else { return Poll::Pending };
                timer.set_at(next);
                if Pin::new(&mut timer).poll(cx).is_pending() {
                    return Poll::<()>::Pending;
                }
            }
        });
        executor.spawn(drive).detach();
        timers
    }

    /// A deadline that is not set yet.
    pub(super) fn sleep(&self) -> Sleep {
        Sleep { timers: self.clone(), at: None, entry: None }
    }

    /// Ready at `at`.
    pub(super) fn at(&self, at: Instant) -> Sleep {
        Sleep { timers: self.clone(), at: Some(at), entry: None }
    }

    /// Ready after `pause`.
    pub(super) fn after(&self, pause: Duration) -> Sleep {
        self.at(Instant::now() + pause)
    }

    /// Wakes what is due, and returns when to look again.
    fn wake_due(&self, cx: &Context<'_>, now: Instant) -> Option<Instant> {
        let (due, next) = {
            let mut state = self.lock();
            let later = state.sleepers.split_off(&(now, u64::MAX));
            let due = mem::replace(&mut state.sleepers, later);
            let next = state.sleepers.first_key_value().map(|((at, _), _)| (*at).max(now + GRAIN));
            state.looks_at = next;
            state.driver = Some(cx.waker().clone());
            (due, next)
        };
        for waker in due.into_values() {
            waker.wake();
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sleep {
    /// Sets the deadline anew.
    pub(super) fn set_at(&mut self, at: Instant) {
        self.forget();
        self.at = Some(at);
    }

    fn forget(&mut self) {
        if let (Some(at), Some(number)) = (self.at, self.entry.take()) {
            self.timers.lock().sleepers.remove(&(at, number));
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if at <= Instant::now() {
            self.forget();
            self.at = None;
            return Poll::Ready(());
        }
        if self.entry.is_none() {
            let driver = {
                let mut state = self.timers.lock();
                state.next_number += 1;
                let number = state.next_number;
                state.sleepers.insert((at, number), cx.waker().clone());
                let is_next = state.looks_at.is_none_or(|looks_at| at < looks_at);
                let driver = if is_next { state.driver.take() } else { None };
                drop(state);
                self.entry = Some(number);
                driver
            };
            if let Some(driver) = driver {
                driver.wake();
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(timers: &Timers) -> usize {
        timers.lock().sleepers.len()
    }

    #[test]
    fn sleepers_wake_in_order_and_leave_nothing_behind() {
        let executor = Executor::new();
        let timers = Timers::new(&executor);
        let order = Mutex::new(Vec::new());
        let start = Instant::now();
        smol::block_on(executor.run(async {
            let sleeper = |ms| {
                let (sleep, order) = (timers.at(start + Duration::from_millis(ms)), &order);
                async move {
                    sleep.await;
                    order.lock().unwrap().push(ms);
                }
            };
            let both = smol::future::zip(sleeper(30), sleeper(10));
            smol::future::zip(both, sleeper(20)).await;
        }));
        assert!(start.elapsed() >= Duration::from_millis(30));
        assert_eq!(*order.lock().unwrap(), [10, 20, 30]);
        assert_eq!(entries(&timers), 0);
    }

    #[test]
    fn a_deadline_can_be_moved_and_dropped() {
        let executor = Executor::new();
        let timers = Timers::new(&executor);
        let mut cx = Context::from_waker(Waker::noop());
        let mut sleep = timers.sleep();
        assert!(Pin::new(&mut sleep).poll(&mut cx).is_pending());
        assert_eq!(entries(&timers), 0, "not set");
        sleep.set_at(Instant::now() + Duration::from_secs(3600));
        assert!(Pin::new(&mut sleep).poll(&mut cx).is_pending());
        assert!(Pin::new(&mut sleep).poll(&mut cx).is_pending());
        assert_eq!(entries(&timers), 1);
        sleep.set_at(Instant::now());
        assert_eq!(entries(&timers), 0);
        assert!(Pin::new(&mut sleep).poll(&mut cx).is_ready());
        assert!(Pin::new(&mut sleep).poll(&mut cx).is_pending(), "once");
        sleep.set_at(Instant::now() + Duration::from_secs(3600));
        assert!(Pin::new(&mut sleep).poll(&mut cx).is_pending());
        drop(sleep);
        assert_eq!(entries(&timers), 0);
    }
}
