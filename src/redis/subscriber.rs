//! The connection for published messages: which channels are wanted, and the task that keeps them subscribed.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::Future,
    mem::take,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use smol::Timer;

use super::{
    Counters, Open, Shared, Signal, lock,
    resp::{Messages, Push, ReadError, put_array, put_bulk, put_command},
    server::{self, Backoff, ConnectError, Greeted},
    wire::{Alarm, End, TURNS, Wire, silent, unreadable},
};

/// Is told what is published. Called on the connection's task: must be quick.
pub trait Listener: Send + Sync + 'static {
    /// A message on a channel that was asked for, or that matches a pattern; twice if both.
    fn message(&self, channel: &str, payload: &[u8], is_pattern: bool);
    /// All that was wanted when the connection was made is subscribed. What was published before is lost.
    fn restored(&self);
    /// The connection has ended. Not told of one that ended before all was restored.
    fn lost(&self);
}

/// The connection for published messages. Cheap to clone.
#[derive(Clone)]
pub struct Subscriber(Arc<Inner>);

/// Why channels are not subscribed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubscribeError {
    /// There is no connection, or none came back in time.
    Away,
    /// The server does not let this user.
    Refused,
    /// One of them was unsubscribed meanwhile.
    Withdrawn,
}

impl Subscriber {
    pub(super) fn start(
        shared: &Arc<Shared>,
        patterns: Vec<Arc<str>>,
        listener: impl Listener,
        spawn: impl Fn(Pin<Box<dyn Future<Output = ()> + Send>>),
    ) -> Self {
        let inner = Arc::new(Inner { table: Mutex::default(), signal: Arc::default() });
        lock(&shared.subscribers).push(Arc::clone(&inner.signal));
        let task =
            Loop { shared: Arc::clone(shared), inner: Arc::clone(&inner), patterns, listener: Box::new(listener) };
        spawn(Box::pin(async move { task.run().await }));
        Self(inner)
    }

    /// Subscribes to channels; answered when the server has confirmed each of them on the connection there is.
    ///
    /// They then stay subscribed, over all connections, until [`unsubscribe`](Self::unsubscribe), however often they
    /// were asked for. If it fails, or is dropped, those that nobody else asked for are not wanted any more.
    pub fn subscribe(
        &self,
        channels: Vec<Arc<str>>,
    ) -> impl Future<Output = Result<(), SubscribeError>> + Send + use<> {
        self.subscribe_within(channels, DEFAULT_TIME)
    }

    /// As [`subscribe`](Self::subscribe), with another time than 5 s.
    pub fn subscribe_within(
        &self,
        channels: Vec<Arc<str>>,
        time: Duration,
    ) -> impl Future<Output = Result<(), SubscribeError>> + Send + use<> {
        let id = lock(&self.0.table).subscribe(channels);
        self.0.signal.notify();
        Subscribing { inner: Arc::clone(&self.0), id, timer: Timer::after(time) }
    }

    /// Unsubscribes, some time soon.
    pub fn unsubscribe(&self, channels: Vec<Arc<str>>) {
        let wakers = lock(&self.0.table).unsubscribe(&channels);
        self.0.signal.notify();
        wake(wakers);
    }

    /// What the server has said against subscribing, since all that was wanted was subscribed.
    pub fn refusal(&self) -> Option<Box<str>> {
        lock(&self.0.table).refusal.clone()
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").finish_non_exhaustive()
    }
}

struct Inner {
    table: Mutex<Table>,
    /// There is something to do.
    signal: Arc<Signal>,
}

/// What is wanted, and what the server knows of it.
#[derive(Default)]
struct Table {
    channels: HashMap<Arc<str>, Channel>,
    /// Channels for which there may be something to do. Each is here once at most.
    changed: VecDeque<Arc<str>>,
    /// Who waits, by their own numbers.
    waiting: HashMap<u64, Waiting>,
    last_waiting: u64,
    /// What the server has said against subscribing, since all was subscribed.
    refusal: Option<Box<str>>,
}

#[derive(Default)]
struct Channel {
    is_wanted: bool,
    /// Somebody was told that it is subscribed.
    is_held: bool,
    /// The last command for it on this connection was SUBSCRIBE.
    is_asked: bool,
    /// That command is not answered yet.
    is_in_flight: bool,
    /// It is in `changed`.
    is_changed: bool,
    /// Who asked for it and has not gone, whether it stands or not.
    waiting: Vec<u64>,
}

/// One call of `subscribe`.
struct Waiting {
    channels: Vec<Arc<str>>,
    /// How many of them do not stand.
    left: usize,
    outcome: Option<Result<(), SubscribeError>>,
    waker: Option<Waker>,
}

impl Waiting {
    /// The first outcome counts.
    fn finish(&mut self, outcome: Result<(), SubscribeError>) -> Option<Waker> {
        if self.outcome.is_some() {
            return None;
        }
        self.outcome = Some(outcome);
        self.waker.take()
    }
}

impl Table {
    fn subscribe(&mut self, channels: Vec<Arc<str>>) -> u64 {
        self.last_waiting += 1;
        let id = self.last_waiting;
        let mut left = 0;
        for name in &channels {
            let channel = self.channels.entry(Arc::clone(name)).or_default();
            channel.is_wanted = true;
            channel.waiting.push(id);
            if !channel.is_asked || channel.is_in_flight {
                left += 1;
                self.change(name);
            }
        }
        self.waiting.insert(id, Waiting { channels, left, outcome: None, waker: None });
        if left == 0 {
            self.succeed(id);
        }
        id
    }

    fn unsubscribe(&mut self, channels: &[Arc<str>]) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for name in channels {
            wakers.extend(self.withdraw(name, SubscribeError::Withdrawn));
        }
        wakers
    }

    /// Nobody wants the channel any more.
    fn withdraw(&mut self, name: &Arc<str>, error: SubscribeError) -> Vec<Waker> {
        let Some(channel) = self.channels.get_mut(name) else { return Vec::new() };
        channel.is_wanted = false;
        channel.is_held = false;
        let waiting = take(&mut channel.waiting);
        self.change(name);
        waiting.into_iter().filter_map(|id| self.waiting.get_mut(&id)?.finish(Err(error))).collect()
    }

    /// There may be something to do for the channel.
    fn change(&mut self, name: &Arc<str>) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        // What is in flight is looked at when it is answered.
        if channel.is_in_flight || channel.is_changed {
            return;
        }
        if channel.is_wanted != channel.is_asked {
            channel.is_changed = true;
            self.changed.push_back(Arc::clone(name));
        } else if !channel.is_wanted {
            self.channels.remove(name);
        }
    }

    fn succeed(&mut self, id: u64) -> Option<Waker> {
        let waiting = self.waiting.get_mut(&id)?;
        if waiting.outcome.is_none() {
            for name in &waiting.channels {
                if let Some(channel) = self.channels.get_mut(name) {
                    channel.is_held = true;
                }
            }
        }
        waiting.finish(Ok(()))
    }

    /// Whoever waited has gone, with an outcome or without.
    fn forget(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        for name in &waiting.channels {
            let Some(channel) = self.channels.get_mut(name) else { continue };
            channel.waiting.retain(|other| *other != id);
            if !channel.is_held && channel.waiting.is_empty() {
                channel.is_wanted = false;
                self.change(name);
            }
        }
        Some(waiting)
    }

    /// A new connection: nothing is subscribed, and everything wanted is to be. Returns how many channels.
    fn start_over(&mut self) -> usize {
        self.changed.clear();
        self.channels.retain(|_, channel| channel.is_wanted);
        for (name, channel) in &mut self.channels {
            channel.is_asked = false;
            channel.is_in_flight = false;
            channel.is_changed = true;
            self.changed.push_back(Arc::clone(name));
        }
        for waiting in self.waiting.values_mut() {
            waiting.left = waiting.channels.len();
        }
        self.changed.len()
    }

    /// Takes what is to be done next, and how many channels were looked at for that.
    fn batch(&mut self, now: Instant) -> (Batch, usize) {
        let mut batch = Batch { subscribe: Vec::new(), unsubscribe: Vec::new(), patterns: 0, at: now };
        let mut looked_at = 0;
        while batch.subscribe.len() < BATCH_CHANNELS
            && batch.unsubscribe.len() < BATCH_CHANNELS
            && let Some(name) = self.changed.pop_front()
        {
            looked_at += 1;
            let Some(channel) = self.channels.get_mut(&name) else { continue };
            channel.is_changed = false;
            match (channel.is_wanted, channel.is_asked) {
                (true, false) => batch.subscribe.push(Arc::clone(&name)),
                (false, true) => batch.unsubscribe.push(Arc::clone(&name)),
                (false, false) => {
                    self.channels.remove(&name);
                    continue;
                }
                (true, true) => continue,
            }
            channel.is_asked = channel.is_wanted;
            channel.is_in_flight = true;
        }
        // Answered from the back, so that the first channel is the last.
        batch.subscribe.reverse();
        batch.unsubscribe.reverse();
        (batch, looked_at)
    }

    /// The server has confirmed the last command for the channel.
    fn confirm(&mut self, name: &Arc<str>) -> Vec<Waker> {
        let Some(channel) = self.channels.get_mut(name) else { return Vec::new() };
        channel.is_in_flight = false;
        let stands = channel.is_asked && channel.is_wanted;
        let mut done = Vec::new();
        for id in channel.waiting.iter().filter(|_| stands) {
            let Some(waiting) = self.waiting.get_mut(id).filter(|waiting| waiting.outcome.is_none()) else { continue };
            waiting.left -= 1;
            if waiting.left == 0 {
                done.push(*id);
            }
        }
        self.change(name);
        done.into_iter().filter_map(|id| self.succeed(id)).collect()
    }

    /// The server does not let us subscribe to the channel. None: there is somebody who has been told that it stands.
    fn refuse(&mut self, name: &Arc<str>) -> Option<Vec<Waker>> {
        let channel = self.channels.get_mut(name)?;
        channel.is_in_flight = false;
        channel.is_asked = false;
        if channel.is_held {
            return None;
        }
        Some(self.withdraw(name, SubscribeError::Refused))
    }
}

fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

/// The future of `subscribe`.
struct Subscribing {
    inner: Arc<Inner>,
    id: u64,
    timer: Timer,
}

impl Future for Subscribing {
    type Output = Result<(), SubscribeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        {
            let mut table = lock(&self.inner.table);
            match table.waiting.get_mut(&self.id) {
                None => return Poll::Pending,
                Some(Waiting { outcome: Some(outcome), .. }) => return Poll::Ready(*outcome),
                Some(waiting) => waiting.waker = Some(cx.waker().clone()),
            }
        }
        Pin::new(&mut self.timer).poll(cx).map(|_| Err(SubscribeError::Away))
    }
}

impl Drop for Subscribing {
    fn drop(&mut self) {
        let forgotten = lock(&self.inner.table).forget(self.id);
        // Its waker is dropped without the lock: with it, a task may go.
        drop(forgotten);
        self.inner.signal.notify();
    }
}

/// The task.
struct Loop {
    shared: Arc<Shared>,
    inner: Arc<Inner>,
    patterns: Vec<Arc<str>>,
    listener: Box<dyn Listener>,
}

impl Loop {
    /// Keeps the connection up, for ever.
    async fn run(&self) {
        let mut backoff = Backoff::new();
        let mut connections = 0_u64;
        loop {
            match server::connect(&self.shared.settings).await {
                Ok(greeted) => {
                    if connections > 0 {
                        Counters::add(&self.shared.counters.subscriber_reconnects, 1);
                    }
                    connections += 1;
                    let since = Instant::now();
                    match self.serve(greeted).await {
                        End::Failed(reason) | End::Refused(reason) => self.shared.report(&reason),
                        End::Elsewhere => {}
                    }
                    backoff.had_success(since.elapsed());
                    lock(&self.inner.table).start_over();
                }
                Err(ConnectError::Refused(reason) | ConnectError::Failed(reason)) => self.shared.report(&reason),
            }
            Timer::after(backoff.pause()).await;
        }
    }

    async fn serve(&self, greeted: Greeted) -> End {
        let now = Instant::now();
        let mut wire = Wire::new(greeted.stream);
        let mut batch = None;
        if !self.patterns.is_empty() {
            put_names(&mut wire.out, "PSUBSCRIBE", self.patterns.iter());
            let patterns = self.patterns.len();
            batch = Some(Batch { subscribe: Vec::new(), unsubscribe: Vec::new(), patterns, at: now });
        }
        let mut link = Link {
            task: self,
            wire,
            messages: Messages::new(self.shared.settings.max_message_bytes),
            batch,
            to_restore: Some(lock(&self.inner.table).start_over()),
            heard_at: now,
            ping_at: None,
            alarm: Alarm::new(),
        };
        let run_id = greeted.run_id;
        let end = std::future::poll_fn(|cx| match link.poll(&run_id, cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        })
        .await;
        if link.to_restore.is_none() {
            self.tell(|listener| listener.lost());
        }
        end
    }

    fn tell(&self, tell: impl FnOnce(&dyn Listener)) {
        // A panic has told the log by itself, and must not end the task.
        _ = catch_unwind(AssertUnwindSafe(|| tell(&*self.listener)));
    }
}

/// Commands that are not answered yet.
struct Batch {
    /// Those that are not confirmed, the next one last.
    subscribe: Vec<Arc<str>>,
    unsubscribe: Vec<Arc<str>>,
    /// How many.
    patterns: usize,
    at: Instant,
}

/// One connection, from when it is logged in to its end.
struct Link<'a> {
    task: &'a Loop,
    wire: Wire,
    messages: Messages,
    batch: Option<Batch>,
    /// Channels of the beginning that are not asked for yet. None: all stand, and the listener knows.
    to_restore: Option<usize>,
    /// When something came.
    heard_at: Instant,
    /// When a PING was written, if nothing came since.
    ping_at: Option<Instant>,
    alarm: Alarm,
}

impl Link<'_> {
    /// Goes on until the connection ends.
    fn poll(&mut self, run_id: &str, cx: &mut Context<'_>) -> Result<(), End> {
        for _ in 0..TURNS {
            let now = Instant::now();
            while self.task.inner.signal.take(cx) {}
            if self.task.shared.open(run_id).0 == Open::Elsewhere {
                return Err(End::Elsewhere);
            }
            if self.batch.is_none() {
                self.fill(now);
            }
            let wrote = self.wire.poll_write(cx)?;
            let read = self.read(cx, now)?;
            if !wrote && !read {
                return self.watch(cx, now);
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Makes a batch of what is to be done.
    fn fill(&mut self, now: Instant) {
        // Before there is more to do, or it could be put off for ever.
        self.tell_if_restored();
        let (batch, looked_at) = lock(&self.task.inner.table).batch(now);
        if let Some(to_restore) = &mut self.to_restore {
            // They were the first in the row.
            *to_restore = to_restore.saturating_sub(looked_at);
        }
        if !batch.subscribe.is_empty() {
            put_names(&mut self.wire.out, "SUBSCRIBE", batch.subscribe.iter().rev());
        }
        if !batch.unsubscribe.is_empty() {
            put_names(&mut self.wire.out, "UNSUBSCRIBE", batch.unsubscribe.iter().rev());
        }
        if !batch.is_answered() {
            self.batch = Some(batch);
        } else {
            self.tell_if_restored();
        }
    }

    /// Not while a batch is on its way.
    fn tell_if_restored(&mut self) {
        if self.to_restore.take_if(|to_restore| *to_restore == 0).is_some() {
            lock(&self.task.inner.table).refusal = None;
            self.task.tell(|listener| listener.restored());
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, End> {
        let Some(bytes) = self.wire.poll_read(cx)? else { return Ok(false) };
        self.heard_at = now;
        self.ping_at = None;
        self.messages.push(bytes);
        while let Some(push) = self.messages.pull().map_err(unreadable)? {
            handle(self.task, &mut self.batch, push)?;
        }
        self.messages.shrink();
        Ok(true)
    }

    /// Ends a connection on which the server is silent, and sees to it that this is asked again in time.
    fn watch(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), End> {
        let settings = &self.task.shared.settings;
        let asked_at = self.ping_at.into_iter().chain(self.batch.as_ref().map(|batch| batch.at)).min();
        let overdue_at = asked_at.map(|at| at + settings.io_timeout);
        if overdue_at.is_some_and(|at| at <= now) {
            Counters::add(&self.task.shared.counters.timeouts, 1);
            return Err(silent());
        }
        let ping_at = self.heard_at + settings.subscriber_ping_interval;
        if self.ping_at.is_none() && ping_at <= now {
            put_command(&mut self.wire.out, &[b"PING"]);
            self.ping_at = Some(now);
            cx.waker().wake_by_ref();
            return Ok(());
        }
        let due = match overdue_at {
            Some(at) if self.ping_at.is_some() => at,
            Some(at) => at.min(ping_at),
            None => ping_at,
        };
        self.alarm.set(due, cx);
        Ok(())
    }
}

impl Batch {
    fn is_answered(&self) -> bool {
        self.patterns == 0 && self.subscribe.is_empty() && self.unsubscribe.is_empty()
    }
}

fn handle(task: &Loop, batch: &mut Option<Batch>, push: Push<'_>) -> Result<(), End> {
    let unexpected = || unreadable(ReadError::Malformed);
    let counters = &task.shared.counters;
    match push {
        Push::Message { channel, payload, is_pattern } => match str::from_utf8(channel) {
            Ok(channel) => {
                Counters::add(&counters.messages, 1);
                task.tell(|listener| listener.message(channel, payload, is_pattern));
            }
            Err(_) => Counters::add(&counters.messages_bad_channel, 1),
        },
        Push::TooLarge => Counters::add(&counters.messages_too_large, 1),
        Push::PatternSubscribed => {
            let patterns = batch.as_mut().map(|batch| &mut batch.patterns).filter(|patterns| **patterns > 0);
            *patterns.ok_or_else(unexpected)? -= 1;
        }
        // The server answers in the order of the names.
        Push::Subscribed(name) | Push::Unsubscribed(name) => {
            let batch = batch.as_mut().ok_or_else(unexpected)?;
            let names = if matches!(push, Push::Subscribed(_)) { &mut batch.subscribe } else { &mut batch.unsubscribe };
            let name = names.pop_if(|next| next.as_bytes() == name).ok_or_else(unexpected)?;
            let wakers = lock(&task.inner.table).confirm(&name);
            wake(wakers);
        }
        Push::Error { code, message } => {
            let reason = server::short(format_args!("subscribing is answered {code} {message}"));
            lock(&task.inner.table).refusal = Some(reason.clone());
            let Some(batch) = batch.as_mut().filter(|batch| batch.patterns == 0 && !batch.subscribe.is_empty()) else {
                return Err(End::Refused(reason));
            };
            let mut is_needed = false;
            for name in take(&mut batch.subscribe) {
                let refused = lock(&task.inner.table).refuse(&name);
                is_needed |= refused.is_none();
                wake(refused.unwrap_or_default());
            }
            if is_needed {
                return Err(End::Refused(reason));
            }
        }
        Push::Pong | Push::Other => {}
    }
    if batch.as_ref().is_some_and(Batch::is_answered) {
        *batch = None;
    }
    Ok(())
}

fn put_names<'a>(out: &mut Vec<u8>, command: &str, names: impl ExactSizeIterator<Item = &'a Arc<str>>) {
    put_array(out, 1 + names.len());
    put_bulk(out, command.as_bytes());
    for name in names {
        put_bulk(out, name.as_bytes());
    }
}

/// For a call that says nothing else.
const DEFAULT_TIME: Duration = Duration::from_secs(5);
/// Channels of a batch.
const BATCH_CHANNELS: usize = 512;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn name(number: u32) -> Arc<str> {
        format!("c{number}").into()
    }

    fn outcome(table: &Table, id: u64) -> Option<Result<(), SubscribeError>> {
        table.waiting.get(&id).and_then(|waiting| waiting.outcome)
    }

    /// Answers a batch as the server does.
    fn answer(table: &mut Table, batch: Batch, server: &mut HashSet<Arc<str>>) {
        for name in batch.subscribe.into_iter().rev() {
            server.insert(Arc::clone(&name));
            table.confirm(&name);
        }
        for name in batch.unsubscribe.into_iter().rev() {
            server.remove(&name);
            table.confirm(&name);
        }
    }

    #[test]
    fn batches_are_limited_and_hold_what_was_asked_for_meanwhile() {
        let mut table = Table::default();
        let now = Instant::now();
        let first = table.subscribe((0..BATCH_CHANNELS as u32 + 1).map(name).collect());
        let (batch, looked_at) = table.batch(now);
        assert_eq!((batch.subscribe.len(), looked_at), (BATCH_CHANNELS, BATCH_CHANNELS));
        let second = table.subscribe(vec![name(0), name(9999)]);
        let mut server = HashSet::new();
        answer(&mut table, batch, &mut server);
        assert_eq!((outcome(&table, first), outcome(&table, second)), (None, None));
        let (batch, _) = table.batch(now);
        assert_eq!(batch.subscribe.len(), 2, "one is left, and one is new");
        answer(&mut table, batch, &mut server);
        assert_eq!((outcome(&table, first), outcome(&table, second)), (Some(Ok(())), Some(Ok(()))));
        let third = table.subscribe(vec![name(0)]);
        assert_eq!(outcome(&table, third), Some(Ok(())), "at once");
        assert!(table.batch(now).0.is_answered());
    }

    /// Random requests, answers and lost connections, beside a server that does what it is told.
    #[test]
    fn what_is_confirmed_stands_and_in_the_end_all_that_is_wanted_does() {
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut table = Table::default();
            let mut server: HashSet<Arc<str>> = HashSet::new();
            let mut in_flight: Option<Batch> = None;
            let mut waiting: Vec<(u64, Vec<Arc<str>>)> = Vec::new();
            // What was confirmed to somebody, and not unsubscribed since.
            let mut held: HashSet<Arc<str>> = HashSet::new();
            for step in 0..60 {
                let names: Vec<Arc<str>> = (0..random.u32(1..3)).map(|_| name(random.u32(0..4))).collect();
                match random.u32(0..10) {
                    0..4 => waiting.push((table.subscribe(names.clone()), names)),
                    4..6 => {
                        for name in &names {
                            held.remove(name);
                        }
                        table.unsubscribe(&names);
                    }
                    6 if !waiting.is_empty() => {
                        let (id, _) = waiting.swap_remove(random.usize(0..waiting.len()));
                        table.forget(id);
                    }
                    7 if random.bool() => {
                        in_flight = None;
                        server.clear();
                        table.start_over();
                    }
                    _ => match in_flight.take() {
                        None => in_flight = Some(table.batch(Instant::now()).0),
                        Some(batch) => answer(&mut table, batch, &mut server),
                    },
                }
                waiting.retain(|(id, names)| match outcome(&table, *id) {
                    None => true,
                    Some(done) => {
                        if done == Ok(()) {
                            for name in names {
                                assert!(server.contains(name), "seed {seed}, step {step}: {name} does not stand");
                                held.insert(Arc::clone(name));
                            }
                        }
                        table.forget(*id);
                        false
                    }
                });
                for name in &held {
                    assert!(table.channels[name].is_wanted, "seed {seed}, step {step}: {name} was let go");
                }
            }
            if let Some(batch) = in_flight {
                answer(&mut table, batch, &mut server);
            }
            loop {
                let (batch, _) = table.batch(Instant::now());
                if batch.is_answered() && table.changed.is_empty() {
                    break;
                }
                answer(&mut table, batch, &mut server);
            }
            let mut wanted = held;
            for (id, names) in waiting {
                assert_eq!(outcome(&table, id), Some(Ok(())), "seed {seed}: somebody waits for ever");
                wanted.extend(names);
            }
            assert_eq!(server, wanted, "seed {seed}");
            assert_eq!(table.channels.len(), server.len(), "seed {seed}: nothing is left behind");
        }
    }
}
