//! The life of one Engine.IO session.

use std::time::{Duration, Instant};

use crate::{
    engine::{Message, Packet, ProtocolError, Refusal},
    types::{CloseReason, SessionId, Transport},
};

/// One Engine.IO session, server side. Does no I/O, reads no clock, holds no packets.
///
/// What waits for the client stands in its `Outbox`; the session decides who may take it out. After every call
/// that takes `&mut self`, wake the tasks that wait for this session: they ask again ([`poll_answer`],
/// [`handle_probe`]), so no answer is ever queued for a request that may be gone.
/// Call [`handle_timeout`](Self::handle_timeout) by [`next_deadline`](Self::next_deadline) at the latest.
///
/// [`poll_answer`]: Self::poll_answer
/// [`handle_probe`]: Self::handle_probe
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    state: State,
    heartbeat: Heartbeat,
    /// How many upgrades were begun: tells a WebSocket whose upgrade was given up from the one that came after.
    upgrades: u32,
}

/// The timing that the handshake announces, and the limit on an upgrade.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Pause between a pong and the next ping.
    pub ping_interval: Duration,
    /// How long a pong may take.
    pub ping_timeout: Duration,
    /// How long an upgrade may take, from the WebSocket's opening to the upgrade packet.
    pub upgrade_timeout: Duration,
    /// The largest message a client may send, in bytes.
    pub max_payload: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Polling(Requests),
    /// A WebSocket with this sid is open; the client still polls. Section "Upgrade".
    Upgrading {
        requests: Requests,
        probed: bool,
        deadline: Instant,
        noops: Noops,
    },
    WebSocket,
    /// Closed while no GET was parked: the next one is told, if it comes in time.
    Closing {
        until: Instant,
        by_client: bool,
    },
    /// A GET that is still parked gets a close packet, or a noop if the client closed by itself.
    Closed {
        by_client: bool,
    },
}

/// The requests that are under way: at most one GET and one POST.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Requests {
    get: bool,
    post: bool,
}

/// Keeps a client that opens a WebSocket and never probes from polling in a tight loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Noops {
    given: u8,
    next_at: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heartbeat {
    Idle { ping_at: Instant },
    AwaitingPong { overdue_at: Instant },
}

/// What a packet brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Received<'a> {
    /// Nothing for anybody else.
    Nothing,
    /// A message for the layer above.
    Message(Message<'a>),
    /// The client closes the session.
    Close,
}

/// What a GET is to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PollAnswer {
    /// Nothing yet: wait until woken.
    Wait,
    /// Nothing yet: wait until woken, or until then.
    WaitUntil(Instant),
    /// Answer with what is queued.
    Take,
    /// Answer with a noop packet.
    Noop,
    /// Answer with what is queued and a close packet.
    Close,
}

/// What the WebSocket of an upgrade is to do after a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProbeStep {
    /// Send the probe's answer, `3probe`.
    Answer,
    /// Ask again when woken: a POST is still being read, and its packets come first.
    Hold,
    /// The session is on this WebSocket now.
    Done,
    /// Close this WebSocket; the session goes on without it, or is closed.
    Abort,
}

/// What [`Session::handle_timeout`] found due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Send a ping.
    Ping,
    /// The upgrade took too long: its WebSocket is to be closed. The session goes on.
    UpgradeOver,
    /// The pong is overdue: the session is to be closed.
    PingTimeout,
    /// A closed session waited long enough for a last GET: it is to be forgotten.
    LingerOver,
}

/// The first noops of an upgrade are given at once, as real clients need them; then this far apart.
const NOOP_PAUSE: Duration = Duration::from_millis(50);
const NOOPS_AT_ONCE: u8 = 16;
/// How long a closed session waits for the GET that is told so. The reference's number.
const CLOSE_LINGER: Duration = Duration::from_secs(30);
/// How long a session that its client closed waits for a GET that was on its way.
const LAST_GET_LINGER: Duration = Duration::from_millis(50);

const _: () = assert!(size_of::<Session>() <= 144);

impl Session {
    /// A session that a handshake opens at `now`. Its first ping is due one interval later.
    pub fn new(transport: Transport, settings: Settings, now: Instant) -> Self {
        let state = match transport {
            // The handshake itself is a GET, but it is answered at once.
            Transport::Polling => State::Polling(Requests::default()),
            Transport::WebSocket => State::WebSocket,
        };
        Self { settings, state, heartbeat: Heartbeat::Idle { ping_at: now + settings.ping_interval }, upgrades: 0 }
    }

    /// The open packet, with exactly the keys that the protocol names.
    pub fn open_packet(&self, id: &SessionId) -> String {
        let upgrades = if self.transport() == Transport::Polling { "\"websocket\"" } else { "" };
        format!(
            r#"0{{"sid":"{}","upgrades":[{upgrades}],"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
            id.secret(),
            self.settings.ping_interval.as_millis(),
            self.settings.ping_timeout.as_millis(),
            self.settings.max_payload,
        )
    }

    /// The transport the client is on. During an upgrade that is still polling.
    pub fn transport(&self) -> Transport {
        match self.state {
            State::WebSocket => Transport::WebSocket,
            _ => Transport::Polling,
        }
    }

    /// Whether the session is over. One that waits to tell its client so is over, too.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closing { .. } | State::Closed { .. })
    }

    /// Whether a closed session still waits to tell its client.
    pub fn is_lingering(&self) -> bool {
        matches!(self.state, State::Closing { .. })
    }

    /// A GET begins. Ask [`poll_answer`](Self::poll_answer) next.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] if the session is on a WebSocket, or if another GET is parked: then the session is to be
    /// closed as well (the caller sees it by [`is_polled`](Self::is_polled) before the call).
    pub fn begin_poll(&mut self) -> Result<(), Refusal> {
        match &mut self.state {
            State::Polling(requests) | State::Upgrading { requests, .. } if !requests.get => {
                requests.get = true;
                Ok(())
            }
            State::Closing { .. } => Ok(()),
            State::Closed { .. } => Err(Refusal::UnknownSession),
            State::Polling(_) | State::Upgrading { .. } | State::WebSocket => Err(Refusal::BadRequest),
        }
    }

    /// Whether a GET is under way.
    pub fn is_polled(&self) -> bool {
        self.requests().is_some_and(|requests| requests.get)
    }

    /// What the GET under way is to do. Any answer but a wait ends it.
    ///
    /// Decided when asked and not by a queued packet, so that *every* poll during an upgrade gets its noop and none
    /// is written to the WebSocket.
    pub fn poll_answer(&mut self, queued: bool, now: Instant) -> PollAnswer {
        match &mut self.state {
            State::Polling(_) if !queued => PollAnswer::Wait,
            State::Polling(requests) => {
                requests.get = false;
                PollAnswer::Take
            }
            State::Upgrading { requests, noops, .. } => {
                if queued {
                    requests.get = false;
                    PollAnswer::Take
                } else if noops.given >= NOOPS_AT_ONCE && now < noops.next_at {
                    PollAnswer::WaitUntil(noops.next_at)
                } else {
                    *noops = Noops { given: noops.given.saturating_add(1), next_at: now + NOOP_PAUSE };
                    requests.get = false;
                    PollAnswer::Noop
                }
            }
            State::WebSocket | State::Closed { by_client: true } => PollAnswer::Noop,
            // Clients drop what shares an answer with the close.
            State::Closing { by_client: false, .. } if queued => PollAnswer::Take,
            State::Closing { by_client, .. } => {
                let by_client = *by_client;
                self.state = State::Closed { by_client };
                if by_client { PollAnswer::Noop } else { PollAnswer::Close }
            }
            State::Closed { by_client: false } => PollAnswer::Close,
        }
    }

    /// A POST begins; call [`end_post`](Self::end_post) when its packets were handled.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] if the session is on a WebSocket, or if another POST is under way: then the session is to be
    /// closed as well (the caller sees it by [`is_posted`](Self::is_posted) before the call).
    pub fn begin_post(&mut self) -> Result<(), Refusal> {
        match &mut self.state {
            State::Polling(requests) | State::Upgrading { requests, .. } if !requests.post => {
                requests.post = true;
                Ok(())
            }
            State::Closing { .. } | State::Closed { .. } => Err(Refusal::UnknownSession),
            State::Polling(_) | State::Upgrading { .. } | State::WebSocket => Err(Refusal::BadRequest),
        }
    }

    /// Whether a POST is under way.
    pub fn is_posted(&self) -> bool {
        self.requests().is_some_and(|requests| requests.post)
    }

    /// The POST's packets have been handled.
    pub fn end_post(&mut self) {
        if let State::Polling(requests) | State::Upgrading { requests, .. } = &mut self.state {
            requests.post = false;
        }
    }

    /// A packet of an open session, over whichever transport.
    ///
    /// A pong is taken from either transport: the ping may have gone out on polling just before an upgrade.
    /// `0`, `5` and `6` mean nothing here and are ignored, as in the reference.
    ///
    /// # Errors
    /// What a client must not send; the session is to be closed.
    pub fn handle_packet<'a>(&mut self, packet: Packet<'a>, now: Instant) -> Result<Received<'a>, ProtocolError> {
        match packet {
            Packet::Message(message) => return Ok(Received::Message(message)),
            Packet::Pong => {
                // A pong that nobody asked for moves nothing: pings cannot be put off.
                if matches!(self.heartbeat, Heartbeat::AwaitingPong { .. }) {
                    self.heartbeat = Heartbeat::Idle { ping_at: now + self.settings.ping_interval };
                }
            }
            Packet::Close => return Ok(Received::Close),
            Packet::Ping(_) => return Err(ProtocolError::PingFromClient),
            Packet::Open | Packet::Upgrade | Packet::Noop => {}
        }
        Ok(Received::Nothing)
    }

    /// A WebSocket with this session's sid was opened. Returns the number by which it asks on.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`]: the session is on a WebSocket, in an upgrade, or closed. Only the new WebSocket is to be
    /// closed.
    pub fn begin_upgrade(&mut self, now: Instant) -> Result<u32, Refusal> {
        let State::Polling(requests) = self.state else {
            return Err(Refusal::BadRequest);
        };
        self.upgrades = self.upgrades.wrapping_add(1);
        let deadline = now + self.settings.upgrade_timeout;
        let noops = Noops { given: 0, next_at: now };
        self.state = State::Upgrading { requests, probed: false, deadline, noops };
        Ok(self.upgrades)
    }

    /// A packet on the WebSocket of upgrade number `upgrade`: `2probe`, then `5`. Any other one ends the upgrade.
    pub fn handle_probe(&mut self, upgrade: u32, packet: &str) -> ProbeStep {
        let is_current = self.upgrades == upgrade;
        match &mut self.state {
            State::Upgrading { probed, requests, .. } if is_current => match (packet, *probed) {
                ("2probe", false) => {
                    *probed = true;
                    ProbeStep::Answer
                }
                // Clients that do not wait for the probe's answer send `5` right behind it.
                ("5", true) if requests.post => ProbeStep::Hold,
                ("5", true) => {
                    self.state = State::WebSocket;
                    ProbeStep::Done
                }
                _ => {
                    self.abort_upgrade(upgrade);
                    ProbeStep::Abort
                }
            },
            _ => ProbeStep::Abort,
        }
    }

    /// Whether upgrade number `upgrade` is still under way.
    pub fn is_upgrading(&self, upgrade: u32) -> bool {
        self.upgrades == upgrade && matches!(self.state, State::Upgrading { .. })
    }

    /// The WebSocket of upgrade number `upgrade` is gone. The session stays on polling.
    pub fn abort_upgrade(&mut self, upgrade: u32) {
        if let State::Upgrading { requests, .. } = self.state
            && self.upgrades == upgrade
        {
            self.state = State::Polling(requests);
        }
    }

    /// Ends the session. True at the first call.
    ///
    /// If a session that polls is closed in order, it lingers so that the next GET can be told, as a parked one takes what
    /// is queued first. A client that closes by itself may have sent its last GET at the same time as its close packet.
    pub fn close(&mut self, reason: CloseReason, now: Instant) -> bool {
        if self.is_closed() {
            return false;
        }
        let by_client = reason == CloseReason::TransportClose;
        let linger = match reason {
            CloseReason::ServerClose
            | CloseReason::Draining
            | CloseReason::SlowConsumer
            | CloseReason::AuthExpired
            | CloseReason::TooManyRefusals => Some(CLOSE_LINGER),
            CloseReason::TransportClose => Some(LAST_GET_LINGER),
            _ => None,
        };
        self.state = match (self.requests(), linger) {
            (Some(requests), Some(linger)) if !requests.get || !by_client => {
                State::Closing { until: now + linger, by_client }
            }
            _ => State::Closed { by_client },
        };
        true
    }

    /// The next thing that is due at `now`; call it until it returns `None`. A call made too early does nothing.
    ///
    /// Section "Heartbeat": a silent client is gone `ping_interval + ping_timeout` after its last pong. With no GET
    /// parked the ping waits in the outbox, and the time runs all the same.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        match self.state {
            State::Closing { until, by_client } if until <= now => {
                self.state = State::Closed { by_client };
                return Some(Due::LingerOver);
            }
            State::Closing { .. } | State::Closed { .. } => return None,
            State::Upgrading { requests, deadline, .. } if deadline <= now => {
                self.state = State::Polling(requests);
                return Some(Due::UpgradeOver);
            }
            _ => {}
        }
        match self.heartbeat {
            Heartbeat::Idle { ping_at } if ping_at <= now => {
                // Counted from when it was due, so that late wake-ups do not add up; but a client whose ping went
                // out late because the machine stalled gets half of its time at least.
                let timeout = self.settings.ping_timeout;
                self.heartbeat = Heartbeat::AwaitingPong { overdue_at: (ping_at + timeout).max(now + timeout / 2) };
                Some(Due::Ping)
            }
            Heartbeat::AwaitingPong { overdue_at } if overdue_at <= now => Some(Due::PingTimeout),
            _ => None,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do. `None` once closed for good.
    pub fn next_deadline(&self) -> Option<Instant> {
        let heartbeat = match self.heartbeat {
            Heartbeat::Idle { ping_at } => ping_at,
            Heartbeat::AwaitingPong { overdue_at } => overdue_at,
        };
        match self.state {
            State::Polling(_) | State::WebSocket => Some(heartbeat),
            State::Upgrading { deadline, .. } => Some(heartbeat.min(deadline)),
            State::Closing { until, .. } => Some(until),
            State::Closed { .. } => None,
        }
    }

    fn requests(&self) -> Option<Requests> {
        match self.state {
            State::Polling(requests) | State::Upgrading { requests, .. } => Some(requests),
            State::WebSocket | State::Closing { .. } | State::Closed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        ping_interval: Duration::from_secs(25),
        ping_timeout: Duration::from_secs(20),
        upgrade_timeout: Duration::from_secs(10),
        max_payload: 65_536,
    };

    fn polling() -> (Session, Instant) {
        let now = Instant::now();
        (Session::new(Transport::Polling, SETTINGS, now), now)
    }

    /// A session on its WebSocket, by way of an upgrade.
    fn upgraded() -> (Session, Instant) {
        let (mut session, now) = polling();
        let upgrade = session.begin_upgrade(now).unwrap();
        assert_eq!(session.handle_probe(upgrade, "2probe"), ProbeStep::Answer);
        assert_eq!(session.handle_probe(upgrade, "5"), ProbeStep::Done);
        (session, now)
    }

    #[test]
    fn open_packet_has_exactly_the_keys_of_the_protocol() {
        let (session, now) = polling();
        assert_eq!(
            session.open_packet(&SessionId::new("abc")),
            r#"0{"sid":"abc","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":65536}"#
        );
        assert_eq!(
            Session::new(Transport::WebSocket, SETTINGS, now).open_packet(&SessionId::new("abc")),
            r#"0{"sid":"abc","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":65536}"#
        );
    }

    #[test]
    fn silent_client_is_over_after_interval_plus_timeout() {
        let (mut session, start) = polling();
        let almost = start + SETTINGS.ping_interval - Duration::from_millis(1);
        assert_eq!(session.handle_timeout(almost), None);
        assert_eq!(session.next_deadline(), Some(start + SETTINGS.ping_interval));
        assert_eq!(session.handle_timeout(start + SETTINGS.ping_interval), Some(Due::Ping));
        assert_eq!(session.handle_timeout(start + SETTINGS.ping_interval), None);
        let overdue = start + SETTINGS.ping_interval + SETTINGS.ping_timeout;
        assert_eq!(session.next_deadline(), Some(overdue));
        assert_eq!(session.handle_timeout(overdue), Some(Due::PingTimeout));
    }

    #[test]
    fn a_pong_starts_the_next_interval_and_nothing_else_does() {
        let (mut session, start) = polling();
        let pinged = start + SETTINGS.ping_interval;
        assert_eq!(session.handle_packet(Packet::Pong, start), Ok(Received::Nothing));
        assert_eq!(session.next_deadline(), Some(pinged), "an unasked pong moves nothing");
        assert_eq!(session.handle_timeout(pinged), Some(Due::Ping));
        let text = Packet::Message(Message::Text("x"));
        assert_eq!(session.handle_packet(text, pinged), Ok(Received::Message(Message::Text("x"))));
        assert_eq!(session.next_deadline(), Some(pinged + SETTINGS.ping_timeout), "other traffic is no pong");
        let ponged = pinged + Duration::from_secs(3);
        assert_eq!(session.handle_packet(Packet::Pong, ponged), Ok(Received::Nothing));
        assert_eq!(session.next_deadline(), Some(ponged + SETTINGS.ping_interval));
    }

    #[test]
    fn a_ping_that_went_out_late_leaves_half_the_time_to_answer() {
        let (mut session, start) = polling();
        let late = start + SETTINGS.ping_interval + SETTINGS.ping_timeout;
        assert_eq!(session.handle_timeout(late), Some(Due::Ping));
        assert_eq!(session.handle_timeout(late), None);
        assert_eq!(session.next_deadline(), Some(late + SETTINGS.ping_timeout / 2));
    }

    #[test]
    fn packets_a_client_must_not_send() {
        let (mut session, now) = polling();
        assert_eq!(session.handle_packet(Packet::Ping(""), now), Err(ProtocolError::PingFromClient));
        for ignored in [Packet::Open, Packet::Upgrade, Packet::Noop] {
            assert_eq!(session.handle_packet(ignored, now), Ok(Received::Nothing));
        }
        assert_eq!(session.handle_packet(Packet::Close, now), Ok(Received::Close));
    }

    #[test]
    fn a_poll_waits_and_takes_what_is_queued() {
        let (mut session, now) = polling();
        assert_eq!(session.begin_poll(), Ok(()));
        assert_eq!(session.poll_answer(false, now), PollAnswer::Wait);
        assert!(session.is_polled());
        assert_eq!(session.poll_answer(true, now), PollAnswer::Take);
        assert!(!session.is_polled());
    }

    #[test]
    fn one_get_and_one_post_at_a_time() {
        let (mut session, _) = polling();
        assert_eq!(session.begin_poll(), Ok(()));
        assert_eq!(session.begin_poll(), Err(Refusal::BadRequest));
        assert_eq!(session.begin_post(), Ok(()));
        assert_eq!(session.begin_post(), Err(Refusal::BadRequest));
        session.end_post();
        assert_eq!(session.begin_post(), Ok(()));
    }

    #[test]
    fn every_poll_during_an_upgrade_gets_its_noop() {
        let (mut session, now) = polling();
        session.begin_poll().unwrap();
        assert_eq!(session.poll_answer(false, now), PollAnswer::Wait);
        let upgrade = session.begin_upgrade(now).unwrap();
        assert_eq!(session.poll_answer(false, now), PollAnswer::Noop, "the parked one");
        for _ in 0..5 {
            session.begin_poll().unwrap();
            assert_eq!(session.poll_answer(false, now), PollAnswer::Noop, "before the probe");
        }
        assert_eq!(session.handle_probe(upgrade, "2probe"), ProbeStep::Answer);
        for _ in 0..5 {
            session.begin_poll().unwrap();
            assert_eq!(session.poll_answer(false, now), PollAnswer::Noop, "after the probe");
        }
    }

    #[test]
    fn a_client_that_spins_on_noops_is_slowed_down() {
        let (mut session, now) = polling();
        session.begin_upgrade(now).unwrap();
        for _ in 0..NOOPS_AT_ONCE {
            session.begin_poll().unwrap();
            assert_eq!(session.poll_answer(false, now), PollAnswer::Noop);
        }
        session.begin_poll().unwrap();
        assert_eq!(session.poll_answer(false, now), PollAnswer::WaitUntil(now + NOOP_PAUSE));
        assert_eq!(session.poll_answer(false, now + NOOP_PAUSE), PollAnswer::Noop);
        session.begin_poll().unwrap();
        assert_eq!(session.poll_answer(true, now), PollAnswer::Take, "packets never wait");
    }

    #[test]
    fn polls_and_posts_are_refused_after_the_upgrade() {
        let (mut session, now) = upgraded();
        assert_eq!(session.transport(), Transport::WebSocket);
        assert_eq!(session.begin_poll(), Err(Refusal::BadRequest));
        assert_eq!(session.begin_post(), Err(Refusal::BadRequest));
        assert_eq!(session.begin_upgrade(now), Err(Refusal::BadRequest));
        assert!(!session.is_closed());
    }

    #[test]
    fn a_get_still_parked_at_the_upgrade_packet_is_finished_with_a_noop() {
        let (mut session, now) = polling();
        let upgrade = session.begin_upgrade(now).unwrap();
        session.handle_probe(upgrade, "2probe");
        session.begin_poll().unwrap();
        assert_eq!(session.handle_probe(upgrade, "5"), ProbeStep::Done);
        assert_eq!(session.poll_answer(true, now), PollAnswer::Noop, "what is queued goes over the WebSocket");
    }

    #[test]
    fn the_upgrade_waits_for_a_post_that_is_under_way() {
        let (mut session, now) = polling();
        let upgrade = session.begin_upgrade(now).unwrap();
        session.begin_post().unwrap();
        assert_eq!(session.handle_probe(upgrade, "2probe"), ProbeStep::Answer);
        assert_eq!(session.handle_probe(upgrade, "5"), ProbeStep::Hold);
        session.end_post();
        assert_eq!(session.handle_probe(upgrade, "5"), ProbeStep::Done);
    }

    #[test]
    fn wrong_packets_end_the_upgrade_only() {
        for packets in [&["5"][..], &["2"], &["4hi"], &["2probe", "2probe"], &["2probe", "4hi"], &[""]] {
            let (mut session, now) = polling();
            let upgrade = session.begin_upgrade(now).unwrap();
            let last = packets.iter().map(|packet| session.handle_probe(upgrade, packet)).last();
            assert_eq!(last, Some(ProbeStep::Abort), "{packets:?}");
            assert!(!session.is_closed());
            assert_eq!(session.begin_poll(), Ok(()), "{packets:?}");
            assert_eq!(session.poll_answer(false, now), PollAnswer::Wait);
        }
    }

    #[test]
    fn an_upgrade_has_a_deadline_and_leaves_a_later_one_alone() {
        let (mut session, now) = polling();
        let first = session.begin_upgrade(now).unwrap();
        assert_eq!(session.begin_upgrade(now), Err(Refusal::BadRequest), "one at a time");
        assert_eq!(session.next_deadline(), Some(now + SETTINGS.upgrade_timeout));
        let over = now + SETTINGS.upgrade_timeout;
        assert_eq!(session.handle_timeout(over), Some(Due::UpgradeOver));
        let second = session.begin_upgrade(over).unwrap();
        assert_eq!(session.handle_probe(first, "2probe"), ProbeStep::Abort);
        session.abort_upgrade(first);
        assert!(session.is_upgrading(second));
        assert_eq!(session.handle_probe(second, "2probe"), ProbeStep::Answer);
    }

    #[test]
    fn the_ping_may_fall_into_the_upgrade() {
        let (mut session, now) = polling();
        let upgrade = session.begin_upgrade(now + SETTINGS.ping_interval).unwrap();
        let pinged = now + SETTINGS.ping_interval;
        assert_eq!(session.handle_timeout(pinged), Some(Due::Ping));
        session.handle_probe(upgrade, "2probe");
        session.handle_probe(upgrade, "5");
        session.handle_packet(Packet::Pong, pinged).unwrap();
        assert_eq!(session.next_deadline(), Some(pinged + SETTINGS.ping_interval));
    }

    #[test]
    fn a_parked_poll_is_told_of_the_close() {
        for (reason, answer) in [
            (CloseReason::TransportClose, PollAnswer::Noop),
            (CloseReason::ServerClose, PollAnswer::Close),
            (CloseReason::PingTimeout, PollAnswer::Close),
        ] {
            let (mut session, now) = polling();
            session.begin_poll().unwrap();
            assert!(session.close(reason, now));
            assert!(!session.close(reason, now), "only the first call ends it");
            assert_eq!(session.is_lingering(), reason == CloseReason::ServerClose);
            assert_eq!(session.poll_answer(false, now), answer, "{reason:?}");
            assert!(!session.is_lingering());
        }
    }

    #[test]
    fn what_is_queued_and_the_close_take_a_poll_each() {
        for is_parked in [true, false] {
            let (mut session, now) = polling();
            if is_parked {
                session.begin_poll().unwrap();
            }
            session.close(CloseReason::AuthExpired, now);
            if !is_parked {
                session.begin_poll().unwrap();
            }
            assert_eq!(session.poll_answer(true, now), PollAnswer::Take);
            assert_eq!(session.begin_poll(), Ok(()));
            assert_eq!(session.poll_answer(false, now), PollAnswer::Close);
            assert_eq!(session.begin_poll(), Err(Refusal::UnknownSession));
        }
    }

    #[test]
    fn a_session_closed_by_the_server_waits_for_one_more_poll() {
        let (mut session, now) = polling();
        assert!(session.close(CloseReason::ServerClose, now));
        assert!(session.is_lingering());
        assert_eq!(session.begin_post(), Err(Refusal::UnknownSession));
        assert_eq!(session.begin_poll(), Ok(()));
        assert_eq!(session.poll_answer(false, now), PollAnswer::Close);
        assert_eq!(session.begin_poll(), Err(Refusal::UnknownSession));
    }

    #[test]
    fn a_get_that_crosses_the_clients_close_packet_gets_its_noop() {
        let (mut session, now) = polling();
        assert!(session.close(CloseReason::TransportClose, now));
        assert_eq!(session.begin_poll(), Ok(()));
        assert_eq!(session.poll_answer(false, now), PollAnswer::Noop);
        assert_eq!(session.begin_poll(), Err(Refusal::UnknownSession));
    }

    #[test]
    fn a_closed_session_is_forgotten_after_its_linger_time() {
        let (mut session, now) = polling();
        session.close(CloseReason::ServerClose, now);
        assert_eq!(session.next_deadline(), Some(now + CLOSE_LINGER));
        assert_eq!(session.handle_timeout(now + CLOSE_LINGER - Duration::from_millis(1)), None);
        assert_eq!(session.handle_timeout(now + CLOSE_LINGER), Some(Due::LingerOver));
        assert_eq!(session.next_deadline(), None);
    }

    #[test]
    fn faults_of_the_client_leave_nothing_behind() {
        for reason in [CloseReason::ParseError, CloseReason::PingTimeout, CloseReason::TransportError] {
            let (mut session, now) = polling();
            session.close(reason, now);
            assert_eq!(session.begin_poll(), Err(Refusal::UnknownSession), "{reason:?}");
        }
    }
}
