//! Requests to the Engine.IO path: handshakes, polls, posts, and the way to a WebSocket.

use std::{
    collections::VecDeque,
    future::{Future as _, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Instant,
};

use crate::{
    engine::{self, Intent, PollAnswer, payload},
    http::{self, Cors, Head, HttpError, Response},
    limits::Refused,
    metrics,
    net::{
        connection::{Body, BodyError, Connection, Outcome, Read, UpgradeKind},
        session::Session,
    },
    outbox::Slot,
    types::{CloseReason, Handshake, SessionId, Transport},
};

/// While a GET is parked, this much of what a client sends behind it is kept; then nothing more is read.
const PIPELINE_MAX_BYTES: usize = 64 * 1024;
/// What a client is told that comes while the server stops.
const DRAIN_RETRY_MS: u32 = 1000;
/// And one that comes while there are as many sessions as there may be, in all or of its address.
const FULL_RETRY_MS: u32 = 5000;
/// Packets in one answer. Clients built on python-engineio refuse a payload with more.
const PACKETS_MAX: usize = 16;

impl Connection {
    /// Answers a request to the Engine.IO path.
    pub(super) async fn engine(&mut self, head: &Head, body: &mut Body) -> Outcome {
        let upgrades = head.has_token("upgrade", "websocket");
        let cors = self.shared.settings.cors.decide_for(head);
        if head.method() == "OPTIONS" && cors != Cors::NotCrossOrigin {
            return Outcome::Respond(self.shared.settings.cors.preflight(head));
        }
        let mut outcome = match self.intent(head, upgrades, &cors) {
            Ok(Intent::OpenPolling) => self.open_polling(head),
            Ok(Intent::OpenWebSocket) => self.open_websocket(head, body),
            Ok(Intent::Poll(sid)) => match self.find(&sid) {
                Some(session) => self.poll(session).await,
                None => self.refuse_request(engine::Refusal::UnknownSession),
            },
            Ok(Intent::Post(sid)) => match self.find(&sid) {
                Some(session) => self.post(session, head, body).await,
                None => self.refuse_request(engine::Refusal::UnknownSession),
            },
            Ok(Intent::Upgrade(sid)) => match self.find(&sid) {
                Some(session) => self.upgrade_session(session, head, body),
                None => self.refuse_upgrade(engine::Refusal::UnknownSession, body),
            },
            Ok(Intent::OtherMethod(sid)) => {
                let refusal = match self.find(&sid) {
                    Some(_) => engine::Refusal::BadRequest,
                    None => engine::Refusal::UnknownSession,
                };
                if upgrades { self.refuse_upgrade(refusal, body) } else { self.refuse_request(refusal) }
            }
            Err(refusal) if upgrades => self.refuse_upgrade(refusal, body),
            Err(refusal) => self.refuse_request(refusal),
        };
        if let Outcome::Respond(response) | Outcome::RespondTo(_, response) = &mut outcome {
            cors.add_headers(response);
        }
        outcome
    }

    /// In the reference's order: the transport, then the origin's bytes, then everything else.
    fn intent(&self, head: &Head, upgrades: bool, cors: &Cors) -> Result<Intent, engine::Refusal> {
        let intent = Intent::read(head.method(), head.query(), upgrades);
        if intent == Err(engine::Refusal::UnknownTransport) {
            return intent;
        }
        match cors {
            Cors::Malformed => Err(engine::Refusal::BadRequest),
            // CORS itself does not keep a page from opening a WebSocket, so it is refused here.
            Cors::Forbidden => Err(engine::Refusal::Forbidden),
            Cors::NotCrossOrigin | Cors::Allowed { .. } => intent,
        }
    }

    fn find(&self, sid: &SessionId) -> Option<Arc<Session>> {
        Session::find(&self.shared, sid)
    }

    fn open_polling(&self, head: &Head) -> Outcome {
        match self.open(head, Transport::Polling) {
            Ok(session) => {
                let mut packet = Vec::new();
                for frame in session.outbox().take_all() {
                    payload::encode(&frame, &mut packet);
                }
                self.packets(session, packet, 1)
            }
            Err(response) => Outcome::Respond(response),
        }
    }

    fn open_websocket(&self, head: &Head, body: &mut Body) -> Outcome {
        let accept = match http::upgrade::websocket(head) {
            Ok(accept) => accept,
            Err(error) => return body.refuse_upgrade(error.into()),
        };
        match self.open(head, Transport::WebSocket) {
            Ok(session) => Outcome::upgrade(&accept, UpgradeKind::Session(session, None)),
            Err(response) => body.refuse_upgrade(response),
        }
    }

    fn upgrade_session(&self, session: Arc<Session>, head: &Head, body: &mut Body) -> Outcome {
        let accept = match http::upgrade::websocket(head) {
            Ok(accept) => accept,
            Err(error) => return body.refuse_upgrade(error.into()),
        };
        let begun = session.engine().begin_upgrade(Instant::now());
        match begun {
            Ok(number) => {
                // A parked GET gets its noop, and the keeper an earlier deadline.
                session.outbox().wake_all();
                Outcome::upgrade(&accept, UpgradeKind::Session(session, Some(number)))
            }
            // Opened and closed at once, as the reference does it: clients take an HTTP error for a fault of the network.
            Err(refusal) => {
                self.count(refusal);
                Outcome::upgrade(&accept, UpgradeKind::Refused)
            }
        }
    }

    fn open(&self, head: &Head, transport: Transport) -> Result<Arc<Session>, Response> {
        if self.shared.is_draining() {
            self.shared.metrics.refused(metrics::Refusal::Draining);
            return Err(Response::from_error(&HttpError::Unavailable { retry_after_ms: DRAIN_RETRY_MS }));
        }
        // A session on polling needs no connection between its requests, so counting those would not bound it.
        if self.shared.settings.max_connections.is_some_and(|limit| self.shared.session_count() >= limit) {
            self.shared.metrics.refused(metrics::Refusal::TooManyConnections);
            return Err(Response::from_error(&HttpError::Unavailable { retry_after_ms: FULL_RETRY_MS }));
        }
        let client = self.client(head);
        let now = self.shared.ms(Instant::now());
        let place = self.shared.sessions_by_address.enter(client.into(), now).map_err(|refused| {
            let (refusal, retry_after_ms) = match refused {
                // Nobody knows when a place will be free. Not 409, after which a client would not come back by itself.
                Refused::NoPlace => (metrics::Refusal::TooManyPerIp, FULL_RETRY_MS),
                Refused::TooFast(retry_after_ms) => (metrics::Refusal::RateLimited, retry_after_ms),
            };
            self.shared.metrics.refused(refusal);
            Response::from_error(&HttpError::RateLimited { retry_after_ms })
        })?;
        let handshake = Handshake {
            query: head.query().into(),
            authorization: head.header_str("authorization").map(Into::into),
            origin: head.header_str("origin").map(Into::into),
            peer: Some(client),
        };
        Session::open(&self.shared, transport, handshake, place).map_err(|error| {
            log::error!("no session ids: {error}");
            Response::from_error(&HttpError::Internal)
        })
    }

    /// Waits for packets, or for the end of the session or the client.
    async fn poll(&mut self, session: Arc<Session>) -> Outcome {
        let begun = {
            let mut engine = session.engine();
            let overlaps = engine.is_polled();
            engine.begin_poll().map_err(|refusal| (refusal, overlaps))
        };
        if let Err((refusal, overlaps)) = begun {
            return self.refuse_overlap(&session, refusal, overlaps);
        }
        let mut timer = self.shared.timers.sleep();
        let answer = poll_fn(|cx| {
            loop {
                session.outbox().sleep_in(Slot::Poll, cx.waker());
                let queued = session.outbox().len();
                let answer = session.engine().poll_answer(queued > 0, Instant::now());
                match answer {
                    PollAnswer::Wait => {}
                    PollAnswer::WaitUntil(at) => {
                        timer.set_at(at);
                        if Pin::new(&mut timer).poll(cx).is_ready() {
                            continue;
                        }
                    }
                    answer => return Poll::Ready(Some(answer)),
                }
                // The client must not hang up unnoticed, and what it pipelines is not lost.
                if self.input_bytes() >= PIPELINE_MAX_BYTES {
                    return Poll::Pending;
                }
                match self.poll_read_more(cx) {
                    Poll::Ready(Read::Some) => {}
                    Poll::Ready(_) => return Poll::Ready(None),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        let Some(answer) = answer.await else {
            session.end(CloseReason::TransportError);
            return Outcome::Hang;
        };
        let mut packets = Vec::new();
        let frames = match answer {
            // The rest comes with the next poll.
            PollAnswer::Take => session.outbox().take_up_to(PACKETS_MAX),
            PollAnswer::Close => session.outbox().take_all(),
            _ => VecDeque::new(),
        };
        for frame in &frames {
            payload::encode(frame, &mut packets);
        }
        let last: &[u8] = match answer {
            PollAnswer::Close => b"1",
            // What was queued went away in between: an overflow. The close comes with the next poll.
            _ if packets.is_empty() => b"6",
            _ => b"",
        };
        let is_over = {
            let engine = session.engine();
            engine.is_closed() && !engine.is_lingering()
        };
        if is_over {
            session.forget();
        }
        if !packets.is_empty() && !last.is_empty() {
            packets.push(payload::SEPARATOR);
        }
        packets.extend_from_slice(last);
        session.outbox().wake_all();
        self.packets(session, packets, frames.len() as u64)
    }

    /// Reads packets and handles them, in order, before the answer.
    async fn post(&mut self, session: Arc<Session>, head: &Head, body: &mut Body) -> Outcome {
        let begun = {
            let mut engine = session.engine();
            let overlaps = engine.is_posted();
            engine.begin_post().map_err(|refusal| (refusal, overlaps))
        };
        if let Err((refusal, overlaps)) = begun {
            return self.refuse_overlap(&session, refusal, overlaps);
        }
        if head.header("content-type").is_some_and(|value| value.starts_with(b"application/octet-stream")) {
            session.end(CloseReason::ParseError);
            return self.refuse_request(engine::Refusal::BadRequest);
        }
        let max_bytes = self.shared.settings.engine.max_payload;
        let watched = Arc::clone(&session);
        let is_closed = move |cx: &std::task::Context<'_>| {
            watched.outbox().sleep_in(Slot::Post, cx.waker());
            watched.engine().is_closed()
        };
        let bytes = match self.read_body(head, body, max_bytes, is_closed).await {
            Ok(bytes) => bytes,
            Err(BodyError::Http(error)) => {
                // A body that is too large was not read, and costs only this request; the session goes on.
                if matches!(error, HttpError::BodyTooLarge { .. }) {
                    session.engine().end_post();
                } else {
                    session.end(CloseReason::TransportError);
                }
                session.outbox().wake_all();
                self.count_refusal(error.status());
                return Outcome::Respond(Response::from_error(&error));
            }
            Err(BodyError::Lost) => {
                session.end(CloseReason::TransportError);
                return Outcome::Hang;
            }
            Err(BodyError::Cancelled) => return Outcome::Hang,
        };
        self.shared.metrics.bytes_in(Transport::Polling, bytes.len() as u64);
        // A handler that panics ends its session; the hook has logged where.
        let handled = catch_unwind(AssertUnwindSafe(|| handle_payload(&session, &bytes)));
        let handled = handled.unwrap_or(Err(CloseReason::InternalError));
        if handled.is_ok() {
            self.pause_after(&session, bytes.len()).await;
        }
        session.engine().end_post();
        let outcome = match handled {
            Ok(()) => Outcome::Respond(Response::text(200, "text/html", b"ok".as_slice())),
            Err(reason) => {
                session.end(reason);
                if reason == CloseReason::TransportClose {
                    // A GET may have crossed this request. Once we have answered, the session is gone for everybody.
                    poll_fn(|cx| {
                        session.outbox().sleep_in(Slot::Post, cx.waker());
                        if session.engine().is_lingering() { Poll::Pending } else { Poll::Ready(()) }
                    })
                    .await;
                    Outcome::Respond(Response::text(200, "text/html", b"ok".as_slice()))
                } else if reason == CloseReason::InternalError {
                    Outcome::Respond(Response::from_error(&HttpError::Internal))
                } else {
                    self.refuse_request(engine::Refusal::BadRequest)
                }
            }
        };
        // An upgrade may wait for this, and a deadline may have changed.
        session.outbox().wake_all();
        outcome
    }

    /// Waits if the session has sent more than its rate: it must not post again before it has its answer. Not after its end.
    async fn pause_after(&self, session: &Session, bytes: usize) {
        let Some(mut pause) = session.spend_input(bytes as u64, Instant::now()) else { return };
        poll_fn(|cx| {
            session.outbox().sleep_in(Slot::Post, cx.waker());
            if session.engine().is_closed() { Poll::Ready(()) } else { Pin::new(&mut pause).poll(cx) }
        })
        .await;
    }

    fn packets(&self, session: Arc<Session>, packets: Vec<u8>, count: u64) -> Outcome {
        self.shared.metrics.packets_out(Transport::Polling, count);
        self.shared.metrics.bytes_out(Transport::Polling, packets.len() as u64);
        Outcome::RespondTo(session, Response::text(200, "text/plain; charset=UTF-8", packets))
    }

    /// A second GET or POST beside one that is under way ends the session: one of them would be lost.
    fn refuse_overlap(&self, session: &Session, refusal: engine::Refusal, overlaps: bool) -> Outcome {
        if !overlaps {
            return self.refuse_request(refusal);
        }
        self.count(refusal);
        session.end(CloseReason::TransportError);
        Outcome::Respond(Response::new(400))
    }

    fn refuse_request(&self, refusal: engine::Refusal) -> Outcome {
        self.count(refusal);
        let body = format!(r#"{{"code":{},"message":"{}"}}"#, refusal.code(), refusal.message());
        Outcome::Respond(Response::text(refusal.status(), "application/json", body.into_bytes()))
    }

    fn refuse_upgrade(&self, refusal: engine::Refusal, body: &mut Body) -> Outcome {
        self.count(refusal);
        let mut response = http::upgrade::refusal(refusal.message());
        response.status = refusal.status();
        body.refuse_upgrade(response)
    }

    fn count(&self, refusal: engine::Refusal) {
        self.shared.metrics.refused(match refusal {
            engine::Refusal::UnknownTransport => metrics::Refusal::UnknownTransport,
            engine::Refusal::UnknownSession => metrics::Refusal::UnknownSession,
            engine::Refusal::BadHandshakeMethod => metrics::Refusal::BadHandshakeMethod,
            engine::Refusal::BadRequest => metrics::Refusal::BadRequest,
            engine::Refusal::Forbidden => metrics::Refusal::ForbiddenOrigin,
            engine::Refusal::UnsupportedVersion => metrics::Refusal::UnsupportedVersion,
        });
    }
}

fn handle_payload(session: &Session, bytes: &[u8]) -> Result<(), CloseReason> {
    let now = Instant::now();
    for packet in payload::decode(bytes) {
        let packet = packet.map_err(|error| {
            log::debug!("{session:?}: {error}");
            error.close_reason()
        })?;
        session.handle_packet(packet, Transport::Polling, now)?;
        if session.engine().is_closed() {
            return Ok(());
        }
    }
    Ok(())
}
