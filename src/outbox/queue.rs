//! The bounded queue of frames for one client.

use std::{
    collections::VecDeque,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use crate::{outbox::Frame, types::CloseReason};

/// Frames that wait for one client, in the order in which it will see them.
///
/// Bounded in bytes. When full, the queue is given up and the client is to be closed as
/// [`CloseReason::SlowConsumer`]: it comes back and recovers. Volatile frames are refused earlier, from half
/// the limit on. The lock is held for a few instructions, never across a system call or an await.
///
/// Whoever writes to the client (at most one task at a time) takes frames out and sleeps in a [`Slot`].
pub struct Outbox {
    max_bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Frame>,
    /// Sum of the frames' `cost_bytes`.
    queued_bytes: usize,
    /// Set once; from then on nothing is queued.
    close: Option<CloseReason>,
    sleepers: [Option<Waker>; Slot::COUNT],
}

/// A place in which a task sleeps until the outbox has something for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Slot {
    /// The WebSocket's task. Woken by frames and by a close.
    Stream,
    /// The parked polling GET. Woken by frames and by a close.
    Poll,
    /// The POST whose body is being read. Woken by a close only.
    Post,
    /// The task that watches the deadlines of a session without a WebSocket. Woken by a close only.
    Keeper,
}

impl Slot {
    const COUNT: usize = 4;
}

/// What became of frames that were pushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pushed {
    /// They will be written, unless the client goes away first.
    Queued,
    /// Volatile, and the queue was more than half full: dropped.
    Dropped,
    /// The outbox is closed, or was full and is closed by this push.
    Closed,
}

/// An idle queue keeps room for this many frames; more is given back after a burst.
const KEEP_FRAMES: usize = 8;
/// What one [`Outbox::poll_take`] takes out, in bytes: enough for a full write.
const TAKE_BYTES: usize = 128 * 1024;

impl Outbox {
    /// An empty outbox that holds at most `max_bytes` of frames.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, state: Mutex::new(State::default()) }
    }

    /// Queues one frame.
    pub fn push(&self, frame: Frame) -> Pushed {
        let cost_bytes = frame.cost_bytes();
        self.push_with(cost_bytes, self.max_bytes, |frames| frames.push_back(frame))
    }

    /// Queues frames that must not be separated by another message: a header and its attachments.
    pub fn push_all(&self, frames: &[Frame]) -> Pushed {
        let cost_bytes = frames.iter().map(Frame::cost_bytes).sum();
        self.push_with(cost_bytes, self.max_bytes, |queue| queue.extend(frames.iter().cloned()))
    }

    /// Queues a frame that may be lost: it is dropped if that would fill more than half of the limit.
    pub fn push_volatile(&self, frame: Frame) -> Pushed {
        let cost_bytes = frame.cost_bytes();
        self.push_with(cost_bytes, self.max_bytes / 2, |frames| frames.push_back(frame))
    }

    /// Queues a frame ahead of everything else. For pings, which must not wait behind data on a slow link
    /// (a ping may stand between a header and its attachments: Engine.IO pings are no Socket.IO packets).
    pub fn push_urgent(&self, frame: Frame) -> Pushed {
        let cost_bytes = frame.cost_bytes();
        self.push_with(cost_bytes, self.max_bytes, |frames| frames.push_front(frame))
    }

    fn push_with(&self, cost_bytes: usize, max_bytes: usize, enqueue: impl FnOnce(&mut VecDeque<Frame>)) -> Pushed {
        let mut state = self.lock();
        if state.close.is_some() {
            return Pushed::Closed;
        }
        let queued_bytes = state.queued_bytes.saturating_add(cost_bytes);
        let pushed = if queued_bytes <= max_bytes {
            enqueue(&mut state.frames);
            state.queued_bytes = queued_bytes;
            Pushed::Queued
        } else if max_bytes < self.max_bytes {
            return Pushed::Dropped;
        } else {
            state.give_up(CloseReason::SlowConsumer);
            Pushed::Closed
        };
        // Taken out, so that a task that is awake already is not woken again by the next frame.
        let stream = state.sleepers[Slot::Stream as usize].take();
        let poll = state.sleepers[Slot::Poll as usize].take();
        let others = if pushed == Pushed::Closed { mem::take(&mut state.sleepers) } else { Default::default() };
        drop(state);
        wake([stream, poll]);
        wake(others);
        pushed
    }

    /// Asks for the client to be closed, once what is queued now has been written. The first reason stands.
    pub fn close(&self, reason: CloseReason) {
        let mut state = self.lock();
        state.close.get_or_insert(reason);
        let sleepers = mem::take(&mut state.sleepers);
        drop(state);
        wake(sleepers);
    }

    /// Like [`close`](Self::close), and throws away what is queued: there is nobody to write it to.
    pub fn abandon(&self, reason: CloseReason) {
        let mut state = self.lock();
        state.give_up(reason);
        let sleepers = mem::take(&mut state.sleepers);
        drop(state);
        wake(sleepers);
    }

    /// Why the client is to be closed, if it is.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.lock().close
    }

    /// Moves queued frames to the end of `into`, in order: all of them, or the first 128 KiB and the frame on their edge.
    ///
    /// Nothing queued: sleeps in `slot`, or says why the client is to be closed, if it is. The bound keeps what is
    /// taken out, and no longer counts against the limit, small.
    pub fn poll_take(&self, slot: Slot, waker: &Waker, into: &mut VecDeque<Frame>) -> Poll<Result<(), CloseReason>> {
        let mut state = self.lock();
        if state.frames.is_empty() {
            if let Some(reason) = state.close {
                return Poll::Ready(Err(reason));
            }
            state.sleep_in(slot, waker);
            return Poll::Pending;
        }
        if into.is_empty() && state.queued_bytes <= TAKE_BYTES {
            // The two queues change places, so that a busy connection allocates nothing.
            into.shrink_to(KEEP_FRAMES);
            mem::swap(&mut state.frames, into);
            state.queued_bytes = 0;
        } else {
            let mut taken_bytes = 0;
            while taken_bytes < TAKE_BYTES
                && let Some(frame) = state.frames.pop_front()
            {
                taken_bytes += frame.cost_bytes();
                into.push_back(frame);
            }
            state.queued_bytes = state.queued_bytes.saturating_sub(taken_bytes);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the first frames that are queued, at most `count` of them.
    pub fn take_up_to(&self, count: usize) -> VecDeque<Frame> {
        let mut state = self.lock();
        let count = count.min(state.frames.len());
        let rest = state.frames.split_off(count);
        let taken = mem::replace(&mut state.frames, rest);
        state.queued_bytes -= taken.iter().map(Frame::cost_bytes).sum::<usize>().min(state.queued_bytes);
        taken
    }

    /// Takes everything that is queued.
    pub fn take_all(&self) -> VecDeque<Frame> {
        let mut state = self.lock();
        state.queued_bytes = 0;
        mem::take(&mut state.frames)
    }

    /// Sleeps in `slot`: the waker is called at the next frame or close, once. Look at the state *after*
    /// registering, or a wake-up in between is lost.
    pub fn sleep_in(&self, slot: Slot, waker: &Waker) {
        self.lock().sleep_in(slot, waker);
    }

    /// Wakes every sleeper, to make it look at its session again.
    pub fn wake_all(&self) {
        let sleepers = mem::take(&mut self.lock().sleepers);
        wake(sleepers);
    }

    /// How many frames are queued.
    pub fn len(&self) -> usize {
        self.lock().frames.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether more than half of the limit is queued: volatile frames are dropped, and nothing more is read from the client.
    pub fn is_half_full(&self) -> bool {
        self.queued_bytes() > self.max_bytes / 2
    }

    /// Bytes queued.
    pub fn queued_bytes(&self) -> usize {
        self.lock().queued_bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock, so a poisoned state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sleep_in(&mut self, slot: Slot, waker: &Waker) {
        let place = &mut self.sleepers[slot as usize];
        if !place.as_ref().is_some_and(|present| present.will_wake(waker)) {
            *place = Some(waker.clone());
        }
    }

    fn give_up(&mut self, reason: CloseReason) {
        self.close.get_or_insert(reason);
        self.frames = VecDeque::new();
        self.queued_bytes = 0;
    }
}

/// Wakes outside the lock: the woken task would otherwise run into it.
fn wake<const N: usize>(sleepers: [Option<Waker>; N]) {
    for waker in sleepers.into_iter().flatten() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[derive(Default)]
    struct CountWakes(AtomicUsize);

    impl std::task::Wake for CountWakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn sleeper(outbox: &Outbox, slot: Slot) -> Arc<CountWakes> {
        let count = Arc::new(CountWakes::default());
        outbox.sleep_in(slot, &Waker::from(Arc::clone(&count)));
        count
    }

    fn payloads(outbox: &Outbox) -> Vec<String> {
        outbox.take_all().iter().map(|frame| String::from_utf8_lossy(frame.payload()).into_owned()).collect()
    }

    /// Costs ten bytes: two of header, eight of payload.
    fn ten_bytes(digit: u8) -> Frame {
        Frame::text(&char::from(digit).to_string().repeat(8))
    }

    #[test]
    fn exactly_the_limit_is_queued_and_one_byte_more_closes() {
        let outbox = Outbox::new(20);
        assert_eq!(outbox.push(ten_bytes(b'1')), Pushed::Queued);
        assert_eq!(outbox.push(ten_bytes(b'2')), Pushed::Queued);
        assert_eq!(outbox.queued_bytes(), 20);
        assert_eq!(outbox.push(Frame::text("")), Pushed::Closed);
        assert_eq!(outbox.close_reason(), Some(CloseReason::SlowConsumer));
        assert_eq!(outbox.queued_bytes(), 0);
        assert_eq!(outbox.push(Frame::text("")), Pushed::Closed);
    }

    #[test]
    fn volatile_is_dropped_above_half_and_never_closes() {
        let outbox = Outbox::new(40);
        assert_eq!(outbox.push_volatile(ten_bytes(b'1')), Pushed::Queued);
        assert_eq!(outbox.push_volatile(ten_bytes(b'2')), Pushed::Queued);
        assert_eq!(outbox.push_volatile(Frame::text("")), Pushed::Dropped);
        assert_eq!(outbox.push(ten_bytes(b'3')), Pushed::Queued);
        assert_eq!(outbox.close_reason(), None);
    }

    #[test]
    fn order_is_kept_and_urgent_goes_first() {
        let outbox = Outbox::new(1000);
        outbox.push(Frame::text("4a"));
        outbox.push_all(&[Frame::text("4b"), Frame::text("4c")]);
        outbox.push_urgent(Frame::text("2"));
        assert_eq!(payloads(&outbox), ["2", "4a", "4b", "4c"]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn taking_is_bounded_and_keeps_order() {
        let outbox = Outbox::new(TAKE_BYTES * 4);
        let large = "x".repeat(TAKE_BYTES / 2);
        for digit in ["1", "2", "3", "4", "5"] {
            outbox.push(Frame::text(&format!("{digit}{large}")));
        }
        let mut taken = VecDeque::new();
        let mut first_bytes = || {
            taken.clear();
            assert!(outbox.poll_take(Slot::Stream, Waker::noop(), &mut taken).is_ready());
            taken.iter().map(|frame| char::from(frame.payload()[0])).collect::<String>()
        };
        assert_eq!(first_bytes(), "12");
        assert_eq!(first_bytes(), "34");
        assert_eq!(first_bytes(), "5");
        assert_eq!(outbox.queued_bytes(), 0);
    }

    #[test]
    fn taking_a_few_leaves_the_rest() {
        let outbox = Outbox::new(1000);
        for packet in ["4a", "4b", "4c"] {
            outbox.push(Frame::text(packet));
        }
        assert_eq!(outbox.take_up_to(2).len(), 2);
        assert_eq!(outbox.queued_bytes(), 4);
        assert_eq!(payloads(&outbox), ["4c"]);
        assert!(outbox.take_up_to(2).is_empty());
    }

    #[test]
    fn what_is_queued_comes_before_the_close() {
        let outbox = Outbox::new(100);
        outbox.push(Frame::text("4a"));
        outbox.close(CloseReason::Draining);
        let mut taken = VecDeque::new();
        assert_eq!(outbox.poll_take(Slot::Stream, Waker::noop(), &mut taken), Poll::Ready(Ok(())));
        assert_eq!(outbox.poll_take(Slot::Stream, Waker::noop(), &mut taken), Poll::Ready(Err(CloseReason::Draining)));
    }

    #[test]
    fn a_sleeper_is_woken_once_for_many_frames() {
        let outbox = Outbox::new(1000);
        let stream = sleeper(&outbox, Slot::Stream);
        let keeper = sleeper(&outbox, Slot::Keeper);
        outbox.push(Frame::text("4a"));
        outbox.push(Frame::text("4b"));
        assert_eq!(stream.0.load(Ordering::Relaxed), 1);
        assert_eq!(keeper.0.load(Ordering::Relaxed), 0);
        outbox.close(CloseReason::ServerClose);
        assert_eq!(keeper.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn overflow_wakes_everybody() {
        let outbox = Outbox::new(1);
        let sleepers = [Slot::Stream, Slot::Poll, Slot::Post, Slot::Keeper].map(|slot| sleeper(&outbox, slot));
        assert_eq!(outbox.push(ten_bytes(b'1')), Pushed::Closed);
        for count in sleepers {
            assert_eq!(count.0.load(Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn the_first_close_reason_stands_and_keeps_what_is_queued() {
        let outbox = Outbox::new(100);
        outbox.push(Frame::text("4a"));
        outbox.close(CloseReason::Draining);
        outbox.close(CloseReason::ServerClose);
        assert_eq!(outbox.close_reason(), Some(CloseReason::Draining));
        assert_eq!(payloads(&outbox), ["4a"]);
    }
}
