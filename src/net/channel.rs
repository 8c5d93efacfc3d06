//! A WebSocket: messages in through the library, finished frames out in vectored writes.

use std::{
    collections::VecDeque,
    future::{Future as _, poll_fn},
    io::{self, IoSlice},
    mem,
    net::Shutdown,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use async_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        error::ProtocolError,
        protocol::{Role, WebSocketConfig},
    },
};
use smol::{
    Async,
    future::{FutureExt as _, yield_now},
    stream::Stream as _,
};

use crate::{
    net::{
        io::{Io, poll_read},
        timers::Timers,
    },
    outbox::Frame,
    types::CloseReason,
};

/// One WebSocket after its handshake.
///
/// Reading goes through the library, which checks frames, unmasks, reassembles and answers pings. Writing does not:
/// frames come encoded, and all that wait leave in one vectored write.
pub(super) struct Channel {
    websocket: WebSocketStream<Io>,
    /// Taken out of the outbox and not yet written whole.
    writing: VecDeque<Frame>,
    /// How much of the first one is written, in bytes.
    written_bytes: usize,
    /// The answer to the upgrade request is the first one, and not written yet.
    greets: bool,
    /// The library's read buffer is larger than it began.
    has_grown: bool,
    /// Bytes of control frames that were put into `writing` since it was last empty.
    control_bytes: usize,
}

/// Why no more messages come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The client closed in order; the answer to its close frame is ready to be written.
    Closed,
    /// The stream ended or failed.
    Lost,
    /// The client broke RFC 6455 or a limit: to be closed with this code.
    Fault(CloseCode),
}

/// The close codes that we send. RFC 6455 §7.4.1 and the registry it made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub(super) enum CloseCode {
    Normal = 1000,
    Protocol = 1002,
    InvalidUtf8 = 1007,
    Policy = 1008,
    TooLarge = 1009,
    Internal = 1011,
    Restart = 1012,
    TryLater = 1013,
}

/// Slices per system call. More would not make it cheaper per frame.
const SLICES: usize = 64;
/// A read buffer stays with its connection, so it is small, in bytes. A larger message makes it grow for a while.
const READ_BUFFER_BYTES: usize = 1024;
/// Pongs that may wait to be written, in bytes.
const CONTROL_MAX_BYTES: usize = 16 * 1024;
/// How long a closed connection may take to read what was queued for it, and then to hang up.
const FLUSH: Duration = Duration::from_secs(5);
const LINGER: Duration = Duration::from_secs(1);

impl Channel {
    /// Takes over a stream whose handshake is done. `unread` came behind the request and are the first frames.
    pub(super) async fn new(stream: Async<std::net::TcpStream>, unread: Vec<u8>, max_message: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let io = Io::new(stream, &unread);
        let has_grown = unread.len() > READ_BUFFER_BYTES;
        let websocket = WebSocketStream::from_partially_read(io, unread, Role::Server, Some(config)).await;
        Self { websocket, writing: VecDeque::new(), written_bytes: 0, greets: false, has_grown, control_bytes: 0 }
    }

    /// Puts bytes at the head of everything, such as the handshake's answer: it leaves with the first frames.
    pub(super) fn prepend(&mut self, bytes: &[u8]) {
        self.writing.push_front(Frame::raw(bytes));
        self.greets = true;
    }

    /// To be called when the task gets its turn.
    pub(super) fn begin_turn(&mut self) {
        self.websocket.get_mut().begin_turn();
    }

    /// The next text or binary message.
    pub(super) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, End>> {
        loop {
            let Poll::Ready(next) = Pin::new(&mut self.websocket).poll_next(cx) else {
                self.give_buffer_back(cx);
                return Poll::Pending;
            };
            return Poll::Ready(match next {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    self.has_grown |= message.len() > READ_BUFFER_BYTES;
                    Ok(message)
                }
                // Answered by the library at its next read.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_) | Message::Close(_))) => continue,
                Some(Err(error)) => Err(end_of(&error)),
                None => Err(End::Closed),
            });
        }
    }

    /// The library keeps a buffer as large as the largest message it read. Between two messages nothing stands in it, and a new
    /// instance of the library takes over.
    fn give_buffer_back(&mut self, cx: &mut Context<'_>) {
        if !self.has_grown || !self.websocket.get_ref().is_clear() {
            return;
        }
        let config = *self.websocket.get_config();
        let io = self.websocket.get_mut().renew();
        let renewed = pin!(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)));
        // Ready at once: there is no handshake. The read that is waited for is registered with the socket already.
        if let Poll::Ready(websocket) = renewed.poll(cx) {
            self.websocket = websocket;
            self.has_grown = false;
        }
    }

    /// Bytes read since this was last asked.
    pub(super) fn take_bytes_in(&mut self) -> u64 {
        self.websocket.get_mut().take_bytes_in()
    }

    /// Frames that are still to be written.
    pub(super) fn writing(&mut self) -> &mut VecDeque<Frame> {
        &mut self.writing
    }

    /// Writes everything that it has, and returns the bytes written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let collected = mem::take(&mut self.websocket.get_mut().collected);
        if !collected.is_empty() {
            // Ahead of data, but not into the middle of a frame, nor before the answer to the upgrade request.
            let index = usize::from(self.written_bytes > 0 || self.greets);
            self.control_bytes += collected.len();
            self.writing.insert(index.min(self.writing.len()), Frame::raw(&collected));
        }
        let mut total_bytes = 0;
        while !self.writing.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(&self.writing) {
                let skip = if count == 0 { self.written_bytes } else { 0 };
                *slice = IoSlice::new(frame.websocket().get(skip..).unwrap_or(&[]));
                count += 1;
            }
            let written = match self.websocket.get_ref().poll_write_all(cx, &slices[..count]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if total_bytes > 0 => return Poll::Ready(Ok(total_bytes)),
                Poll::Pending => return Poll::Pending,
            };
            total_bytes += written as u64;
            self.advance(written);
        }
        self.control_bytes = 0;
        Poll::Ready(Ok(total_bytes))
    }

    /// Whether a client that pings and does not read has made us keep enough pongs: nothing more is read until they
    /// are written.
    pub(super) fn is_clogged(&self) -> bool {
        self.control_bytes > CONTROL_MAX_BYTES
    }

    /// Whether everything is written.
    pub(super) fn is_flushed(&self) -> bool {
        self.writing.is_empty() && self.websocket.get_ref().collected.is_empty()
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(frame) = self.writing.front() {
            let left = frame.websocket().len() - self.written_bytes;
            if written < left {
                self.written_bytes += written;
                return;
            }
            written -= left;
            self.written_bytes = 0;
            self.greets = false;
            self.writing.pop_front();
        }
    }

    /// Writes what is left and, with a code, a close frame, then waits a moment for the client to hang up: closing at once
    /// could make the kernel throw the close frame away.
    pub(super) async fn close(&mut self, code: Option<CloseCode>, timers: &Timers) {
        // The library's answer to the client's close frame, if it is that: no frame may follow it.
        let collected = mem::take(&mut self.websocket.get_mut().collected);
        if !collected.is_empty() {
            self.writing.push_back(Frame::raw(&collected));
        }
        if let Some(code) = code {
            let [high, low] = (code as u16).to_be_bytes();
            self.writing.push_back(Frame::raw(&[0x88, 2, high, low]));
        }
        let flush = async {
            while !self.is_flushed() {
                if poll_fn(|cx| self.poll_flush(cx)).await.is_err() {
                    return false;
                }
            }
            true
        };
        let late = async {
            timers.after(FLUSH).await;
            false
        };
        if flush.or(late).await {
            drain(self.websocket.get_ref().stream(), timers).await;
        }
    }
}

/// Says that we write no more, and reads until the client does so too, or for [`LINGER`]: closing while it still sends could
/// make the kernel throw away what it has not read.
pub(super) async fn drain(stream: &Async<std::net::TcpStream>, timers: &Timers) {
    if stream.get_ref().shutdown(Shutdown::Write).is_err() {
        return;
    }
    let goodbye = async {
        while let Ok(1..) = poll_fn(|cx| poll_read(stream, cx, &mut [0; 4096])).await {
            // A client that never stops sending must not keep the time limit from being looked at.
            yield_now().await;
        }
    };
    goodbye.or(timers.after(LINGER)).await;
}

fn end_of(error: &tungstenite::Error) -> End {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => End::Closed,
        tungstenite::Error::Io(_) | tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            End::Lost
        }
        tungstenite::Error::Capacity(_) => End::Fault(CloseCode::TooLarge),
        tungstenite::Error::Utf8(_) => End::Fault(CloseCode::InvalidUtf8),
        _ => End::Fault(CloseCode::Protocol),
    }
}

impl End {
    /// Why a session ends with it.
    pub(super) fn reason(self) -> CloseReason {
        match self {
            Self::Closed => CloseReason::TransportClose,
            Self::Fault(CloseCode::TooLarge) => CloseReason::TooLarge,
            Self::Lost | Self::Fault(_) => CloseReason::TransportError,
        }
    }
}

impl From<CloseReason> for CloseCode {
    /// The one place where a session's end becomes a close code. Stock clients reconnect after each of them.
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::TransportClose
            | CloseReason::TransportError
            | CloseReason::ServerClose
            | CloseReason::PingTimeout => Self::Normal,
            CloseReason::ParseError
            | CloseReason::ConnectTimeout
            | CloseReason::AuthExpired
            | CloseReason::TooManyRefusals => Self::Policy,
            CloseReason::TooLarge => Self::TooLarge,
            CloseReason::SlowConsumer => Self::TryLater,
            CloseReason::Draining => Self::Restart,
            CloseReason::InternalError => Self::Internal,
        }
    }
}
