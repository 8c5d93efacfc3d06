//! One connection for commands: a queue of calls, and the task that writes them and matches the answers.

use std::{
    collections::VecDeque,
    mem::take,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use redis::Value;
use smol::Timer;

use super::{
    Connected, Counters, Open, Settings, Shared, State,
    call::{Call, CallError, Script, Slot, is_gone},
    lock,
    resp::{ReadError, Replies, Reply, put_command},
    server::{self, Backoff, ConnectError, Greeted},
    wire::{Alarm, End, FOREVER, TURNS, Wire, silent, unreadable},
};

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Commands,
    /// Batches that end with `WAIT`, one at a time.
    Replicated,
    /// Calls that the server answers late, one at a time. Connects when there is one.
    Blocking,
}

/// The queue of one connection.
pub(super) struct Lane {
    kind: Kind,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// Written before the others, and before the connection is admitted.
    early: VecDeque<Pending>,
    /// Were written before, and are older than all of `waiting`.
    again: VecDeque<Pending>,
    waiting: VecDeque<Pending>,
    /// Written, or at least about to be: answers come in this order.
    sent: VecDeque<Sent>,
    /// Answered, but `WAIT` is not.
    held: Vec<(Pending, Result<Value, CallError>)>,
    /// Of all the above, how many calls and bytes.
    calls: usize,
    bytes: usize,
    /// Calls made so far.
    serial: u64,
    /// No call has an earlier one.
    next_deadline: Option<Instant>,
    waker: Option<Waker>,
}

struct Pending {
    call: Call,
    slot: Arc<Slot>,
    serial: u64,
    deadline: Instant,
    /// It was written on a connection that ended.
    maybe_done: bool,
    /// How often the server did not know its script.
    unknown_script: u8,
}

enum Sent {
    Call {
        pending: Pending,
        at: Instant,
        /// Where it ends, in bytes since the connection began.
        end: u64,
    },
    Wait {
        at: Instant,
    },
    Ping {
        at: Instant,
    },
}

impl Sent {
    fn at(&self) -> Instant {
        match self {
            Self::Call { at, .. } | Self::Wait { at } | Self::Ping { at } => *at,
        }
    }
}

/// What became of new calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pushed {
    Done,
    /// One has to be given up before all others.
    EarlierDeadline,
    Full,
}

/// Outcomes, to be put when no lock is held: that wakes tasks.
#[derive(Default)]
struct Outcomes(Vec<(Arc<Slot>, Result<Value, CallError>)>);

impl Outcomes {
    fn add(&mut self, slot: &Arc<Slot>, outcome: Result<Value, CallError>) {
        self.0.push((Arc::clone(slot), outcome));
    }

    /// Says how many of them are the first for their calls.
    fn put(self) -> usize {
        self.0.into_iter().map(|(slot, outcome)| usize::from(slot.put(outcome))).sum()
    }
}

impl Lane {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, queue: Mutex::default() }
    }

    /// Takes all calls, or none if they do not fit.
    pub(super) fn push(
        &self,
        settings: &Settings,
        calls: impl AsRef<[Call]> + IntoIterator<Item = Call>,
        slots: &[Arc<Slot>],
        now: Instant,
    ) -> Pushed {
        let bytes: usize = calls.as_ref().iter().map(Call::bytes).sum();
        let mut pushed = Pushed::Done;
        let waker = {
            let mut queue = lock(&self.queue);
            if queue.calls.saturating_add(slots.len()) > settings.max_calls
                || queue.bytes.saturating_add(bytes) > settings.max_bytes
            {
                return Pushed::Full;
            }
            queue.calls += slots.len();
            queue.bytes += bytes;
            for (call, slot) in calls.into_iter().zip(slots) {
                let deadline = now.checked_add(call.time).unwrap_or_else(|| now + FOREVER);
                if queue.next_deadline.is_none_or(|next| deadline < next) {
                    queue.next_deadline = Some(deadline);
                    pushed = Pushed::EarlierDeadline;
                }
                queue.serial += 1;
                let serial = queue.serial;
                let slot = Arc::clone(slot);
                let pending = Pending { call, slot, serial, deadline, maybe_done: false, unknown_script: 0 };
                if pending.call.early { &mut queue.early } else { &mut queue.waiting }.push_back(pending);
            }
            queue.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        pushed
    }

    pub(super) fn wake(&self) {
        let waker = lock(&self.queue).waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        lock(&self.queue).next_deadline
    }

    /// Gives up the calls whose time is over, and says how many. What is written stays, for its answer still comes.
    pub(super) fn expire(&self, now: Instant) -> usize {
        let mut outcomes = Outcomes::default();
        {
            let queue = &mut *lock(&self.queue);
            if queue.next_deadline.is_none_or(|next| next > now) {
                return 0;
            }
            let mut next = None;
            let mut later = |deadline: Instant| next = Some(next.map_or(deadline, |next: Instant| next.min(deadline)));
            let (mut calls, mut bytes) = (0, 0);
            for pendings in [&mut queue.early, &mut queue.again, &mut queue.waiting] {
                pendings.retain(|pending| {
                    if pending.deadline > now {
                        later(pending.deadline);
                        return true;
                    }
                    calls += 1;
                    bytes += pending.call.bytes();
                    outcomes.add(&pending.slot, Err(pending.given_up()));
                    false
                });
            }
            let sent = queue.sent.iter().filter_map(|sent| match sent {
                Sent::Call { pending, .. } => Some(pending),
                _ => None,
            });
            for pending in sent.chain(queue.held.iter().map(|(pending, _)| pending)) {
                if pending.deadline > now {
                    later(pending.deadline);
                } else if !is_gone(&pending.slot) {
                    outcomes.add(&pending.slot, Err(CallError::Unknown));
                }
            }
            queue.calls -= calls;
            queue.bytes -= bytes;
            queue.next_deadline = next;
        }
        outcomes.put()
    }

    /// The connection has ended, after so many bytes had gone out.
    fn lose(&self, written: u64) {
        let mut outcomes = Outcomes::default();
        {
            let queue = &mut *lock(&self.queue);
            for (mut pending, outcome) in take(&mut queue.held) {
                if pending.call.repeatable {
                    pending.maybe_done = true;
                    queue.again.push_back(pending);
                } else {
                    queue.leave(&pending, outcome.and(Err(CallError::NotReplicated)), &mut outcomes);
                }
            }
            for sent in take(&mut queue.sent) {
                let Sent::Call { mut pending, end, .. } = sent else { continue };
                // What has not gone out as a whole cannot have been done.
                let is_written = end <= written;
                if is_written && !pending.call.repeatable {
                    queue.leave(&pending, Err(CallError::Unknown), &mut outcomes);
                    continue;
                }
                pending.maybe_done |= is_written;
                queue.put_back(pending);
            }
            for pendings in [&mut queue.early, &mut queue.again] {
                pendings.make_contiguous().sort_by_key(|pending| pending.serial);
            }
        }
        outcomes.put();
    }

    /// Waits for a call.
    async fn has_calls(&self) {
        std::future::poll_fn(|cx| {
            let mut queue = lock(&self.queue);
            if queue.calls > 0 {
                return Poll::Ready(());
            }
            queue.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Queue {
    /// To be written again. What is put back has been written in the order of `again`, and mostly comes in it.
    fn put_back(&mut self, pending: Pending) {
        if pending.call.early { &mut self.early } else { &mut self.again }.push_back(pending);
    }

    /// The call does not wait any more.
    fn leave(&mut self, pending: &Pending, outcome: Result<Value, CallError>, outcomes: &mut Outcomes) {
        self.calls -= 1;
        self.bytes -= pending.call.bytes();
        outcomes.add(&pending.slot, outcome);
    }

    /// The next call to write.
    fn next(&mut self, open: Open, now: Instant, outcomes: &mut Outcomes) -> Option<Pending> {
        loop {
            let next = match open {
                Open::None | Open::Elsewhere => None,
                Open::Early => self.early.pop_front(),
                Open::All => {
                    self.early.pop_front().or_else(|| self.again.pop_front()).or_else(|| self.waiting.pop_front())
                }
            };
            let pending = next?;
            if !is_gone(&pending.slot) && pending.deadline > now {
                return Some(pending);
            }
            let error = pending.given_up();
            self.leave(&pending, Err(error), outcomes);
        }
    }
}

impl Pending {
    /// What it means that it is not sent any more.
    fn given_up(&self) -> CallError {
        if self.maybe_done { CallError::Unknown } else { CallError::Away }
    }
}

/// Keeps one connection up, for ever.
pub(super) async fn run(shared: &Shared, kind: Kind) {
    let lane = shared.lane(kind);
    let mut backoff = Backoff::new();
    let mut connections = 0_u64;
    loop {
        if kind == Kind::Blocking {
            lane.has_calls().await;
        }
        match server::connect(&shared.settings).await {
            Ok(greeted) => {
                if connections > 0 {
                    Counters::add(&shared.counters.reconnects, 1);
                }
                connections += 1;
                let since = Instant::now();
                let end = serve(shared, kind, greeted).await;
                backoff.had_success(since.elapsed());
                match end {
                    End::Failed(reason) => {
                        shared.set_state(kind, State::Connecting);
                        shared.report(&reason);
                    }
                    End::Refused(reason) => {
                        shared.report(&reason);
                        shared.set_state(kind, State::Refused(reason));
                    }
                    End::Elsewhere => shared.set_state(kind, State::Connecting),
                }
                if kind == Kind::Commands {
                    shared.lost();
                }
            }
            Err(ConnectError::Refused(reason)) => {
                shared.report(&reason);
                shared.set_state(kind, State::Refused(reason));
            }
            Err(ConnectError::Failed(reason)) => {
                shared.report(&reason);
                shared.set_state(kind, State::Connecting);
            }
        }
        Timer::after(backoff.pause()).await;
    }
}

async fn serve(shared: &Shared, kind: Kind, greeted: Greeted) -> End {
    let Greeted { stream, run_id, version, offset_ms } = greeted;
    shared.set_state(kind, State::Connected { admitted: false });
    if kind == Kind::Commands {
        let connection = shared.connected(&run_id);
        shared.report_success(&version);
        shared.tell(Connected { connection, run_id: run_id.clone(), offset_ms });
    }
    let mut link = Link {
        shared,
        lane: shared.lane(kind),
        wire: Wire::new(stream),
        run_id,
        replies: Replies::new(shared.settings.max_reply_bytes),
        encoded: 0,
        used_at: Instant::now(),
        loaded: Vec::new(),
        draining: None,
        alarm: Alarm::new(),
    };
    let end = std::future::poll_fn(|cx| match link.poll(cx) {
        Ok(()) => Poll::Pending,
        Err(end) => Poll::Ready(end),
    })
    .await;
    link.lane.lose(link.wire.written);
    end
}

/// One connection, from when it is logged in to its end.
struct Link<'a> {
    shared: &'a Shared,
    lane: &'a Lane,
    wire: Wire,
    run_id: Box<str>,
    replies: Replies,
    /// Bytes put into batches since the beginning.
    encoded: u64,
    /// When something was written, or came.
    used_at: Instant,
    /// Scripts whose source was sent, and up to where, as `Sent` says it.
    loaded: Vec<(&'static Script, u64)>,
    /// The server has turned out to be the wrong one: nothing more is written, and with the last answer it ends.
    draining: Option<Box<str>>,
    alarm: Alarm,
}

impl Link<'_> {
    /// Goes on until the connection ends.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        for _ in 0..TURNS {
            let now = Instant::now();
            if self.wire.out.is_empty() && self.draining.is_none() {
                self.fill(cx, now)?;
            }
            let wrote = self.wire.poll_write(cx)?;
            let read = self.read(cx)?;
            if wrote || read {
                self.used_at = now;
            }
            if let Some(reason) = self.draining.take_if(|_| lock(&self.lane.queue).sent.is_empty()) {
                return Err(End::Refused(reason));
            }
            if !wrote && !read {
                return self.watch(cx, now);
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Makes a batch of what waits.
    fn fill(&mut self, cx: &Context<'_>, now: Instant) -> Result<(), End> {
        let mut outcomes = Outcomes::default();
        let mut count = 0;
        {
            let mut queue = lock(&self.lane.queue);
            queue.waker.clone_from(&Some(cx.waker().clone()));
        }
        // Asked for behind the waker, so that an admission in between wakes us.
        let (open, life) = self.shared.open(&self.run_id);
        if open == Open::Elsewhere {
            return Err(End::Elsewhere);
        }
        {
            let queue = &mut *lock(&self.lane.queue);
            if self.lane.kind == Kind::Commands || queue.sent.is_empty() {
                let most = if self.lane.kind == Kind::Blocking { 1 } else { usize::MAX };
                while count < most && self.wire.out.len() < BATCH_BYTES {
                    let Some(pending) = queue.next(open, now, &mut outcomes) else { break };
                    let before = self.wire.out.len();
                    let with_body = self.with_body(&pending);
                    pending.call.encode(&mut self.wire.out, life, with_body);
                    self.encoded += (self.wire.out.len() - before) as u64;
                    if with_body && let Some(script) = pending.call.as_script() {
                        self.loaded.push((script, self.encoded));
                    }
                    queue.sent.push_back(Sent::Call { pending, at: now, end: self.encoded });
                    count += 1;
                }
                if count > 0 && self.lane.kind == Kind::Replicated {
                    let replicas = self.shared.settings.min_replicas.to_string();
                    self.put_own(&[b"WAIT", replicas.as_bytes(), WAIT_MS.as_bytes()]);
                    queue.sent.push_back(Sent::Wait { at: now });
                }
            }
            if queue.sent.is_empty() && now >= self.used_at + self.shared.settings.ping_interval {
                self.put_own(&[b"PING"]);
                queue.sent.push_back(Sent::Ping { at: now });
            }
        }
        if count > 0 {
            Counters::add(&self.shared.counters.written, count);
            Counters::add(&self.shared.counters.batches, 1);
        }
        outcomes.put();
        Ok(())
    }

    /// Adds a command that is no call.
    fn put_own(&mut self, args: &[&[u8]]) {
        let before = self.wire.out.len();
        put_command(&mut self.wire.out, args);
        self.encoded += (self.wire.out.len() - before) as u64;
    }

    /// Whether the source of a script has to be sent: calls behind the first one that sends it find it.
    fn with_body(&self, pending: &Pending) -> bool {
        let is_loaded = |script| self.loaded.iter().any(|(loaded, _)| std::ptr::eq(*loaded, script));
        pending.unknown_script > 0 && pending.call.as_script().is_some_and(|script| !is_loaded(script))
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let Some(bytes) = self.wire.poll_read(cx)? else { return Ok(false) };
        self.replies.push(bytes);
        let mut outcomes = Outcomes::default();
        let end = loop {
            match self.replies.pull() {
                Ok(None) => break None,
                Ok(Some(reply)) => {
                    if let Err(end) = self.handle(reply, &mut outcomes) {
                        break Some(end);
                    }
                }
                Err(error) => break Some(unreadable(error)),
            }
        };
        outcomes.put();
        end.map_or(Ok(true), Err)
    }

    fn handle(&mut self, reply: Reply, outcomes: &mut Outcomes) -> Result<(), End> {
        let queue = &mut *lock(&self.lane.queue);
        let (mut pending, end) = match queue.sent.pop_front() {
            None => return Err(unreadable(ReadError::Malformed)),
            Some(Sent::Ping { .. }) => return Ok(()),
            Some(Sent::Wait { .. }) => {
                let needed = i64::from(self.shared.settings.min_replicas);
                let is_replicated = matches!(reply, Reply::Value(Value::Int(replicas)) if replicas >= needed);
                for (pending, outcome) in take(&mut queue.held) {
                    let outcome = if is_replicated { outcome } else { outcome.and(Err(CallError::NotReplicated)) };
                    queue.leave(&pending, outcome, outcomes);
                }
                return Ok(());
            }
            Some(Sent::Call { pending, end, .. }) => (pending, end),
        };
        let outcome = match reply {
            Reply::Value(value) => Ok(value),
            Reply::Error { code, message } => {
                if &*code == "NOSCRIPT"
                    && let Some(script) = pending.call.as_script()
                    && pending.unknown_script < MAX_UNKNOWN
                {
                    pending.unknown_script += 1;
                    // Not known although its source was sent before: somebody has flushed all scripts.
                    self.loaded.retain(|(loaded, at)| !std::ptr::eq(*loaded, script) || *at >= end);
                    queue.put_back(pending);
                    return Ok(());
                }
                if let Some(reason) = wrong_server(&code) {
                    self.draining = Some(reason.into());
                    queue.put_back(pending);
                    return Ok(());
                }
                Err(CallError::Server { code, message })
            }
        };
        if self.lane.kind == Kind::Replicated {
            queue.held.push((pending, outcome));
        } else {
            queue.leave(&pending, outcome, outcomes);
        }
        Ok(())
    }

    /// Ends a connection on which the server is silent, and sees to it that this is asked again in time.
    fn watch(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), End> {
        let settings = &self.shared.settings;
        let overdue_at = match (lock(&self.lane.queue).sent.front(), self.lane.kind) {
            (None, _) => None,
            (Some(Sent::Call { pending, .. }), Kind::Blocking) => Some(pending.deadline + GRACE),
            (Some(sent), Kind::Replicated) => Some(sent.at() + settings.io_timeout + WAIT_TIME),
            (Some(sent), _) => Some(sent.at() + settings.io_timeout),
        };
        if overdue_at.is_some_and(|at| at <= now) {
            Counters::add(&self.shared.counters.timeouts, 1);
            return Err(silent());
        }
        // Without anything that is due, it is time for a PING some day, which `fill` writes.
        self.alarm.set(overdue_at.unwrap_or(self.used_at + settings.ping_interval), cx);
        Ok(())
    }
}

/// Why an error of the server means that it is the wrong one now, and has done nothing.
fn wrong_server(code: &str) -> Option<&'static str> {
    match code {
        "LOADING" => Some(server::LOADING),
        "READONLY" | "MASTERDOWN" => Some(server::READONLY),
        "NOAUTH" => Some("the login is not valid any more (NOAUTH)"),
        _ => None,
    }
}

/// What a batch may have before its last call.
const BATCH_BYTES: usize = 256 * 1024;
/// What `WAIT` waits for replicas.
const WAIT_MS: &str = "1000";
const WAIT_TIME: Duration = Duration::from_secs(1);
/// How often a script may be unknown to the server: once, and again whenever somebody flushes all scripts.
const MAX_UNKNOWN: u8 = 4;
/// For the answer to a call that blocks, behind its time: the caller has its answer by then.
const GRACE: Duration = Duration::from_millis(100);
