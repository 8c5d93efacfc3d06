//! A connection while it speaks HTTP.

use std::{
    future::poll_fn,
    io, mem,
    net::{IpAddr, TcpStream},
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use smol::{
    Async,
    future::{FutureExt as _, yield_now},
    io::AsyncWriteExt as _,
};

use crate::{
    http::{self, Accept, BodyDecoder, CONTINUE, Cors, Encoding, Framing, Head, HttpError, Response, Version},
    metrics::Refusal,
    net::{
        Request,
        channel::{Channel, CloseCode, drain},
        echo,
        io::poll_read,
        session::Session,
        shared::{Admission, Shared, WebSocketMode},
        stream,
    },
    types::CloseReason,
};

/// One TCP connection, one request after the other.
pub(super) struct Connection {
    stream: Async<TcpStream>,
    /// Received and not yet used: the rest of a request, pipelined ones, or first frames behind an upgrade request.
    input: Vec<u8>,
    peer: IpAddr,
    pub(super) shared: Arc<Shared>,
    admission: Admission,
}

/// What a request leads to.
pub(super) enum Outcome {
    /// An answer. Its body, if it still has one to read, is read or the connection closed.
    Respond(Response),
    /// Packets of a session: if they cannot be written they are lost, and the session with them.
    RespondTo(Arc<Session>, Response),
    /// The connection is a WebSocket from here on.
    Upgrade(Upgrade),
    /// The client is gone, or the connection is worth nothing any more: no answer.
    Hang,
}

/// Everything that the WebSocket's task needs from the HTTP phase.
pub(super) struct Upgrade {
    /// The `101` answer.
    pub(super) answer: Vec<u8>,
    pub(super) kind: UpgradeKind,
}

pub(super) enum UpgradeKind {
    /// A session, and the number of its upgrade unless it begins here.
    Session(Arc<Session>, Option<u32>),
    /// To be closed at once: the session is not to be had.
    Refused,
    Echo,
}

/// What a wait for bytes ended with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Read {
    Some,
    Eof,
    Late,
    Failed,
    Cancelled,
}

/// Requests of one connection before others get their turn.
const REQUESTS_IN_A_ROW: u64 = 16;
/// How long an answer may take to be taken from us.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A refused request's body is read and thrown away up to this size, so that the connection can go on.
const DISCARD_MAX_BYTES: usize = 64 * 1024;
/// A head without line ends is parsed again after this many bytes.
const PARSE_BYTES: usize = 1024;
/// Bytes asked from the kernel at a time.
const CHUNK_BYTES: usize = 8 * 1024;

impl Connection {
    pub(super) fn new(stream: Async<TcpStream>, peer: IpAddr, shared: Arc<Shared>, admission: Admission) -> Self {
        Self { stream, input: Vec::new(), peer, shared, admission }
    }

    /// Serves requests until the connection ends or becomes a WebSocket.
    pub(super) async fn run(self) {
        // A panic has been counted and logged by the hook; the connection goes with its task.
        let _ = AssertUnwindSafe(self.serve()).catch_unwind().await;
    }

    async fn serve(mut self) {
        let mut is_first = true;
        for served in 1_u64.. {
            // Pipelined requests need not wait for anything, and others need their turn.
            if served.is_multiple_of(REQUESTS_IN_A_ROW) {
                yield_now().await;
            }
            let head = match self.read_head(is_first).await {
                Ok(Some(head)) => head,
                Ok(None) => return,
                Err(error) => return self.refuse(&error).await,
            };
            is_first = false;
            let mut body = Body::new(&head);
            let outcome = self.route(&head, &mut body).await;
            match outcome {
                Outcome::Hang => return,
                Outcome::Upgrade(upgrade) => return self.upgrade(upgrade).await,
                Outcome::Respond(response) => {
                    if !self.respond(&head, &mut body, &response).await {
                        return self.hang_up().await;
                    }
                }
                Outcome::RespondTo(session, response) => {
                    if !self.respond(&head, &mut body, &response).await {
                        if body.write_failed {
                            session.end(CloseReason::TransportError);
                        }
                        return self.hang_up().await;
                    }
                }
            }
        }
    }

    async fn route(&mut self, head: &Head, body: &mut Body) -> Outcome {
        let settings = &self.shared.settings;
        if settings.websocket == WebSocketMode::Echo && head.has_token("upgrade", "websocket") {
            return match http::upgrade::websocket(head) {
                Ok(accept) => Outcome::upgrade(&accept, UpgradeKind::Echo),
                Err(error) => body.refuse_upgrade(error.into()),
            };
        }
        if settings.path.as_deref().is_some_and(|path| head.path().starts_with(path)) {
            return self.engine(head, body).await;
        }
        let cors = settings.cors.decide_for(head);
        if head.method() == "OPTIONS" && matches!(cors, Cors::Allowed { .. }) {
            return Outcome::Respond(settings.cors.preflight(head));
        }
        let mut response = match self.read_body(head, body, settings.max_body, |_| false).await {
            Ok(bytes) => {
                let request = Request { head, body: bytes, peer: self.client(head) };
                self.shared.pages.respond(&self.shared, request).await
            }
            Err(BodyError::Http(error)) => self.shared.pages.refuse(head, &error),
            Err(BodyError::Lost | BodyError::Cancelled) => return Outcome::Hang,
        };
        cors.add_headers(&mut response);
        Outcome::Respond(response)
    }

    /// The next request's head. `None`: there is none, and nothing to say about it.
    async fn read_head(&mut self, is_first: bool) -> Result<Option<Head>, HttpError> {
        let shared = Arc::clone(&self.shared);
        let settings = &shared.settings;
        let idle = if is_first { settings.head_timeout } else { settings.keep_alive_timeout };
        let mut deadline = Instant::now() + idle;
        let mut has_begun = false;
        let mut parsed_bytes = 0;
        loop {
            // A parse starts from the head's first byte, so it is tried only when a line has come to its end: a client that
            // sends single bytes must not make us read them over and over.
            let fresh = self.input.get(parsed_bytes..).unwrap_or(&[]);
            if !self.input.is_empty() && (parsed_bytes == 0 || fresh.contains(&b'\n') || fresh.len() >= PARSE_BYTES) {
                if let Some((head, used)) = Head::parse(&self.input, &settings.head)? {
                    self.input.drain(..used);
                    return Ok(Some(head));
                }
                parsed_bytes = self.input.len();
            }
            if !self.input.is_empty() && !has_begun {
                has_begun = true;
                deadline = Instant::now() + settings.head_timeout;
            }
            match self.read_more(deadline, |_| false).await {
                Read::Some => {}
                Read::Late if has_begun => return Err(HttpError::RequestTimeout),
                Read::Eof | Read::Late | Read::Failed | Read::Cancelled => return Ok(None),
            }
        }
    }

    /// Reads a request's body into memory. `cancelled` is asked whenever the task wakes, and registers what wakes it.
    pub(super) async fn read_body(
        &mut self,
        head: &Head,
        body: &mut Body,
        max_bytes: usize,
        cancelled: impl Fn(&Context<'_>) -> bool,
    ) -> Result<Vec<u8>, BodyError> {
        // Whatever goes wrong from here, the place of the next request is not known until the body has been read.
        body.must_close = true;
        let mut decoder = BodyDecoder::new(head.framing(), max_bytes).map_err(BodyError::Http)?;
        let mut bytes = Vec::new();
        let deadline = Instant::now() + self.shared.settings.body_timeout;
        loop {
            let decoded = decoder.decode(&self.input, &mut bytes).map_err(BodyError::Http)?;
            self.input.drain(..decoded.used);
            if decoded.done {
                body.must_close = false;
                body.is_read = true;
                return Ok(bytes);
            }
            if mem::take(&mut body.awaits_continue) && self.input.is_empty() {
                self.write(CONTINUE).await.map_err(|_| BodyError::Lost)?;
            }
            match self.read_more(deadline, &cancelled).await {
                Read::Some => {}
                Read::Late => return Err(BodyError::Http(HttpError::RequestTimeout)),
                Read::Cancelled => return Err(BodyError::Cancelled),
                Read::Eof | Read::Failed => return Err(BodyError::Lost),
            }
        }
    }

    async fn read_more(&mut self, deadline: Instant, cancelled: impl Fn(&Context<'_>) -> bool) -> Read {
        let timers = self.shared.timers.clone();
        let read = poll_fn(|cx| if cancelled(cx) { Poll::Ready(Read::Cancelled) } else { self.poll_read_more(cx) });
        let late = timers.at(deadline);
        let late = async {
            late.await;
            Read::Late
        };
        read.or(late).await
    }

    /// Appends what there is to `input`.
    pub(super) fn poll_read_more(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        let mut chunk = [0; CHUNK_BYTES];
        poll_read(&self.stream, cx, &mut chunk).map(|read| match read {
            Ok(0) => Read::Eof,
            Ok(count) => {
                self.input.extend_from_slice(chunk.get(..count).unwrap_or(&[]));
                Read::Some
            }
            Err(_) => Read::Failed,
        })
    }

    /// Whose request it is.
    pub(super) fn client(&self, head: &Head) -> IpAddr {
        self.shared.settings.trusted_proxies.client(self.peer, head.headers("x-forwarded-for"))
    }

    /// Bytes received and not yet used.
    pub(super) fn input_bytes(&self) -> usize {
        self.input.len()
    }

    /// Sends an answer. True if the connection goes on.
    async fn respond(&mut self, head: &Head, body: &mut Body, response: &Response) -> bool {
        if !body.is_read && !body.must_close {
            self.discard(head, body).await;
        }
        let keep_alive = body.is_read && !body.must_close && head.keep_alive() && !self.shared.is_draining();
        let encoding = Encoding { version: head.version(), head_only: head.method() == "HEAD", keep_alive };
        let mut answer = Vec::new();
        response.encode(&mut answer, &encoding);
        body.write_failed = self.write(&answer).await.is_err();
        keep_alive && !body.write_failed
    }

    /// Reads the body of a request that was refused without it, if that is short.
    async fn discard(&mut self, head: &Head, body: &mut Body) {
        let is_short = match head.framing() {
            Framing::None => true,
            Framing::Length(bytes) => bytes <= DISCARD_MAX_BYTES as u64,
            Framing::Chunked => true,
        };
        // A client that waits for leave to send has nothing on its way.
        if !is_short || body.awaits_continue {
            body.must_close = true;
        } else {
            // What goes wrong here closes the connection after the answer.
            let _ = self.read_body(head, body, DISCARD_MAX_BYTES, |_| false).await;
        }
    }

    /// Answers bytes that are no request, and closes.
    async fn refuse(mut self, error: &HttpError) {
        self.shared.metrics.refused(match error {
            HttpError::RequestTimeout => Refusal::HeadTimeout,
            HttpError::HeadTooLarge { .. } | HttpError::TooManyHeaders { .. } | HttpError::TargetTooLong { .. } => {
                Refusal::TooLarge
            }
            _ => Refusal::BadHttp,
        });
        let mut answer = Vec::new();
        let encoding = Encoding { version: Version::Http11, head_only: false, keep_alive: false };
        Response::from_error(error).encode(&mut answer, &encoding);
        if self.write(&answer).await.is_ok() {
            self.hang_up().await;
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = &self.stream;
        let late = async {
            self.shared.timers.after(ANSWER_TIMEOUT).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        stream.write_all(bytes).or(late).await
    }

    /// Closes in order: the client may still be sending, and a reset would take our answer from it.
    async fn hang_up(self) {
        drain(&self.stream, &self.shared.timers).await;
    }

    /// Hands the connection over to a task of its own, so that nothing of the HTTP phase stays in memory.
    async fn upgrade(self, upgrade: Upgrade) {
        let Self { stream, input, shared, admission, .. } = self;
        let max_message = match upgrade.kind {
            UpgradeKind::Session(..) | UpgradeKind::Refused => shared.settings.engine.max_payload,
            UpgradeKind::Echo => shared.settings.max_body,
        };
        let mut channel = Channel::new(stream, input, max_message).await;
        channel.prepend(&upgrade.answer);
        let executor = Arc::clone(&shared.executor);
        match upgrade.kind {
            UpgradeKind::Session(session, number) => {
                executor.spawn(stream::serve(channel, session, shared, number, admission)).detach();
            }
            UpgradeKind::Refused => channel.close(Some(CloseCode::Policy), &shared.timers).await,
            UpgradeKind::Echo => executor.spawn(echo::run(channel, shared, admission)).detach(),
        }
    }

    pub(super) fn count_refusal(&self, status: u16) {
        if let Some(refusal) = Refusal::of_status(status) {
            self.shared.metrics.refused(refusal);
        }
    }
}

impl Outcome {
    pub(super) fn upgrade(accept: &Accept, kind: UpgradeKind) -> Self {
        let mut answer = Vec::new();
        accept.encode(&mut answer, &[]);
        Self::Upgrade(Upgrade { answer, kind })
    }
}

/// What is known of the body of the request at hand.
#[derive(Default)]
pub(super) struct Body {
    /// All of it was read, or there was none.
    is_read: bool,
    /// The client waits for `100 Continue`.
    awaits_continue: bool,
    /// The connection cannot go on after the answer.
    must_close: bool,
    /// The answer could not be written.
    write_failed: bool,
}

impl Body {
    fn new(head: &Head) -> Self {
        Self { awaits_continue: head.expects_continue(), ..Self::default() }
    }

    /// The answer to an upgrade request that fails. The client may have sent frames already, so nothing can follow.
    pub(super) fn refuse_upgrade(&mut self, response: Response) -> Outcome {
        self.must_close = true;
        Outcome::Respond(response)
    }
}

/// Why there is no body.
#[derive(Debug)]
pub(super) enum BodyError {
    /// To be answered, and the connection closed.
    Http(HttpError),
    /// The client is gone.
    Lost,
    /// The session that the request belongs to is gone.
    Cancelled,
}
