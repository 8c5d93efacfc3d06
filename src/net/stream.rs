//! A session on its WebSocket.

use std::{
    future::{Future, poll_fn},
    mem,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use async_tungstenite::tungstenite::Message;
use smol::future::FutureExt as _;

use crate::{
    engine::{Packet, ProbeStep},
    net::{
        channel::{Channel, CloseCode, End},
        session::Session,
        shared::{Admission, Shared},
        timers::Sleep,
    },
    outbox::{Frame, Slot},
    types::{CloseReason, Transport},
};

/// Serves one WebSocket of one session.
struct Stream {
    channel: Channel,
    session: Arc<Session>,
    shared: Arc<Shared>,
    timer: Sleep,
    /// For when the timer is set. It may fire too early, never too late.
    armed: Option<Instant>,
    phase: Phase,
    /// Reading stopped with messages left, perhaps.
    reads_on: bool,
    /// Until then nothing is read: the client has sent more than its rate. Boxed, for hardly anybody has one.
    pause: Option<Box<Sleep>>,
    /// Counted while the connection is open.
    _admission: Admission,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The session still polls. Section "Upgrade".
    Probing(u32),
    /// The upgrade packet came while a POST was being read: nothing is read until that is done.
    Held(u32),
    Open,
}

/// How it ends.
enum Over {
    /// The session is closed, or to be closed, for this reason.
    Session(CloseReason, Option<CloseCode>),
    /// The upgrade came to nothing. The session goes on.
    Upgrade,
}

/// Messages read before others get their turn on this thread.
const MESSAGES_IN_A_ROW: usize = 64;
/// A budget, raised knowingly: times ten thousand.
const FUTURE_MAX_BYTES: usize = 1024;
/// How much later than the session's own limit an upgrade is given up by its WebSocket.
const UPGRADE_GRACE: Duration = Duration::from_secs(1);

/// Serves a session on `channel` until one of them ends. `upgrade` is the number of the upgrade, if this is one.
///
/// The future is most of what an idle client costs, so everything is in it once: what runs borrows from the `Stream`.
pub(super) fn serve(
    channel: Channel,
    session: Arc<Session>,
    shared: Arc<Shared>,
    upgrade: Option<u32>,
    admission: Admission,
) -> impl Future<Output = ()> {
    let phase = upgrade.map_or(Phase::Open, Phase::Probing);
    let mut timer = shared.timers.sleep();
    if upgrade.is_some() {
        // The session's keeper ends an upgrade that takes too long, and tells us. This is for the case that a later upgrade's
        // task sleeps in our place by then.
        timer.set_at(Instant::now() + shared.settings.engine.upgrade_timeout + UPGRADE_GRACE);
    }
    let mut stream = Stream {
        channel,
        session,
        shared,
        timer,
        armed: None,
        phase,
        reads_on: false,
        pause: None,
        _admission: admission,
    };
    let serving = async move {
        if AssertUnwindSafe(stream.run()).catch_unwind().await.is_err() {
            stream.session.end(CloseReason::InternalError);
        }
    };
    // Known at compile time, so it costs nothing unless it fails.
    assert!(size_of_val(&serving) <= FUTURE_MAX_BYTES, "{} bytes", size_of_val(&serving));
    serving
}

impl Stream {
    async fn run(&mut self) {
        let over = poll_fn(|cx| self.poll_run(cx)).await;
        let code = match over {
            Over::Session(reason, code) => {
                self.session.end(reason);
                // What was queued before the end still goes out, if there is somebody to read it.
                let outbox = self.session.outbox();
                while outbox.poll_take(Slot::Stream, Waker::noop(), self.channel.writing()) == Poll::Ready(Ok(())) {}
                code
            }
            Over::Upgrade => {
                if let Phase::Probing(number) | Phase::Held(number) = self.phase {
                    self.session.engine().abort_upgrade(number);
                    self.session.outbox().wake_all();
                }
                Some(CloseCode::Normal)
            }
        };
        self.channel.close(code, &self.shared.timers).await;
    }

    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        self.channel.begin_turn();
        // In this order: answers to everything that was read leave in one write.
        if let Poll::Ready(over) = self.poll_read(cx) {
            // What was queued before, the answer to a close frame among it, still goes out.
            return Poll::Ready(over);
        }
        if let Poll::Ready(over) = self.poll_write(cx) {
            return Poll::Ready(over);
        }
        // If not, the socket wakes us as soon as it takes more.
        if mem::take(&mut self.reads_on) && self.channel.is_flushed() {
            cx.waker().wake_by_ref();
        }
        match self.phase {
            Phase::Open => self.poll_deadline(cx),
            Phase::Probing(_) | Phase::Held(_) => Pin::new(&mut self.timer).poll(cx).map(|()| Over::Upgrade),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        for _ in 0..MESSAGES_IN_A_ROW {
            if let Phase::Held(number) = self.phase {
                self.session.outbox().sleep_in(Slot::Stream, cx.waker());
                match self.step(number, "5") {
                    Some(over) => return Poll::Ready(over),
                    None if self.phase != Phase::Open => return Poll::Pending,
                    None => {}
                }
            }
            if self.channel.is_clogged() {
                break;
            }
            // Answers first: a client that reads what it gets must not be taken for a slow one because it sends fast. What it
            // sends waits in the kernel until half of the outbox is free again.
            if self.phase == Phase::Open && self.session.outbox().is_half_full() {
                break;
            }
            if let Some(pause) = &mut self.pause {
                // Writing and the heartbeat go on. What the client sends waits in the kernel, its pong as well.
                if Pin::new(pause).poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.pause = None;
            }
            let polled = self.channel.poll_message(cx);
            let bytes_in = self.channel.take_bytes_in();
            if bytes_in == 0 && polled.is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if bytes_in > 0 {
                self.shared.metrics.bytes_in(Transport::WebSocket, bytes_in);
                // The bytes of the stream and not of its messages: pings and fragments are work, too.
                self.pause = self.session.spend_input(bytes_in, now).map(Box::new);
            }
            let over = match polled {
                // If this is a pause, it has to be waited for.
                Poll::Pending if self.pause.is_some() => continue,
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(message)) => self.handle(&message, now),
                Poll::Ready(Err(end)) => Some(self.over(end)),
            };
            if let Some(over) = over {
                return Poll::Ready(over);
            }
        }
        // There may be more. If everything can be written, come back when the others had their turn.
        self.reads_on = true;
        Poll::Pending
    }

    fn handle(&mut self, message: &Message, now: Instant) -> Option<Over> {
        match (self.phase, message) {
            (Phase::Open, Message::Text(text)) => {
                let handled = match Packet::parse(text.as_str()) {
                    Ok(packet) => self.session.handle_packet(packet, Transport::WebSocket, now),
                    Err(error) => {
                        log::debug!("{:?}: {error}", self.session);
                        Err(error.close_reason())
                    }
                };
                handled.err().map(|reason| Over::Session(reason, Some(reason.into())))
            }
            (Phase::Open, Message::Binary(data)) => {
                let handled = self.session.handle_binary(data, now);
                handled.err().map(|reason| Over::Session(reason, Some(reason.into())))
            }
            (Phase::Probing(number) | Phase::Held(number), Message::Text(text)) => self.step(number, text.as_str()),
            _ => Some(Over::Upgrade),
        }
    }

    /// One packet of an upgrade.
    fn step(&mut self, number: u32, packet: &str) -> Option<Over> {
        let step = self.session.engine().handle_probe(number, packet);
        match step {
            ProbeStep::Answer => self.channel.writing().push_back(Frame::text("3probe")),
            ProbeStep::Hold => {
                self.phase = Phase::Held(number);
                return None;
            }
            ProbeStep::Done => {
                self.phase = Phase::Open;
                self.timer = self.shared.timers.sleep();
                self.shared.metrics.upgraded();
            }
            ProbeStep::Abort => return Some(Over::Upgrade),
        }
        // A parked GET gets its noop; the keeper of the deadlines leaves when we are done.
        self.session.outbox().wake_all();
        None
    }

    fn over(&self, end: End) -> Over {
        if self.phase != Phase::Open {
            return Over::Upgrade;
        }
        let code = match end {
            End::Fault(code) => Some(code),
            End::Closed | End::Lost => None,
        };
        Over::Session(end.reason(), code)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        loop {
            if self.channel.is_flushed() {
                match self.refill(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(over)) => return Poll::Ready(over),
                    Poll::Pending => return Poll::Pending,
                }
            } else {
                // While the kernel takes nothing, a close must still be noticed.
                self.session.outbox().sleep_in(Slot::Stream, cx.waker());
                if let Some(reason) = self.session.outbox().close_reason()
                    && (reason == CloseReason::SlowConsumer || self.session.engine().is_closed())
                {
                    if self.phase != Phase::Open {
                        return Poll::Ready(Over::Upgrade);
                    }
                    return Poll::Ready(Over::Session(reason, Some(reason.into())));
                }
            }
            match self.channel.poll_flush(cx) {
                Poll::Ready(Ok(bytes)) => self.shared.metrics.bytes_out(Transport::WebSocket, bytes),
                Poll::Ready(Err(_)) if self.phase != Phase::Open => return Poll::Ready(Over::Upgrade),
                Poll::Ready(Err(_)) => return Poll::Ready(Over::Session(CloseReason::TransportError, None)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Takes what is queued, once the session is here.
    fn refill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Over>> {
        if self.phase != Phase::Open {
            self.session.outbox().sleep_in(Slot::Stream, cx.waker());
            let (Phase::Probing(number) | Phase::Held(number)) = self.phase else { return Poll::Pending };
            let goes_on = self.session.engine().is_upgrading(number);
            return if goes_on { Poll::Pending } else { Poll::Ready(Err(Over::Upgrade)) };
        }
        match self.session.outbox().poll_take(Slot::Stream, cx.waker(), self.channel.writing()) {
            Poll::Ready(Ok(())) => {
                let packets = self.channel.writing().len() as u64;
                self.shared.metrics.packets_out(Transport::WebSocket, packets);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(reason)) => Poll::Ready(Err(Over::Session(reason, Some(reason.into())))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        loop {
            // `None`: closed, which the outbox says as well.
            let Some(deadline) = self.session.next_deadline() else { return Poll::Pending };
            // A timer that is set for earlier is left alone: moving it at every pong would cost more than one vain wake-up.
            if self.armed.is_none_or(|armed| deadline < armed) {
                self.armed = Some(deadline);
                self.timer.set_at(deadline);
            }
            match Pin::new(&mut self.timer).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => {
                    self.armed = None;
                    self.session.handle_timeout(Instant::now());
                    // A ping may wait now, or the session may be over.
                    if let Poll::Ready(over) = self.poll_write(cx) {
                        return Poll::Ready(over);
                    }
                }
            }
        }
    }
}
