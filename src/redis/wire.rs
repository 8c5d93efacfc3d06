//! Bytes of one connection: a batch on its way out, what comes in, and when to look again.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use smol::{
    Timer,
    io::{AsyncRead as _, AsyncWrite as _},
};

use super::{
    resp::ReadError,
    server::{self, Stream},
};

/// Why a connection was ended.
#[derive(Debug)]
pub(super) enum End {
    /// It broke, or the server was silent.
    Failed(Box<str>),
    /// The server cannot be used any more.
    Refused(Box<str>),
    /// The connection for commands has gone to another server.
    Elsewhere,
}

/// A stream with a batch that is being written.
///
/// Polled, not awaited: reading and writing wait at the same time, on one stream, and nothing is lost when one of them
/// is ready before the other.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    /// The batch. Empty: the next may be made.
    pub(super) out: Vec<u8>,
    /// Up to where the batch has gone out.
    done: usize,
    is_flushed: bool,
    /// Bytes that have gone out since the beginning.
    pub(super) written: u64,
    chunk: Box<[u8]>,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, out: Vec::new(), done: 0, is_flushed: true, written: 0, chunk: vec![0; READ_BYTES].into() }
    }

    /// Writes what it can, and says whether it could.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut wrote = false;
        while let Some(bytes) = self.out.get(self.done..).filter(|bytes| !bytes.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Err(closed()),
                Poll::Ready(Ok(count)) => {
                    self.done += count;
                    self.written += count as u64;
                    self.is_flushed = false;
                    wrote = true;
                }
                Poll::Ready(Err(error)) => return Err(broken(&error)),
                Poll::Pending => break,
            }
        }
        if self.done == self.out.len() {
            self.out.clear();
            self.out.shrink_to(KEPT_BYTES);
            self.done = 0;
        }
        if !self.is_flushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.is_flushed = true,
                Poll::Ready(Err(error)) => return Err(broken(&error)),
                Poll::Pending => {}
            }
        }
        Ok(wrote)
    }

    /// What has come, if something has.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<Option<&[u8]>, End> {
        match Pin::new(&mut self.stream).poll_read(cx, &mut self.chunk) {
            Poll::Ready(Ok(0)) => Err(closed()),
            Poll::Ready(Ok(count)) => Ok(self.chunk.get(..count)),
            Poll::Ready(Err(error)) => Err(broken(&error)),
            Poll::Pending => Ok(None),
        }
    }
}

/// Wakes its task at a time that is mostly put off.
pub(super) struct Alarm {
    timer: Timer,
    /// None: it has gone off.
    at: Option<Instant>,
}

impl Alarm {
    pub(super) fn new() -> Self {
        Self { timer: Timer::never(), at: None }
    }

    /// The task is woken at `due`, or earlier.
    pub(super) fn set(&mut self, due: Instant, cx: &mut Context<'_>) {
        // Set earlier when that is needed, but later only when it has gone off: most answers come at once.
        if self.at.is_none_or(|at| due < at) {
            self.at = Some(due);
            self.timer.set_at(due);
        }
        if Pin::new(&mut self.timer).poll(cx).is_ready() {
            self.at = None;
            cx.waker().wake_by_ref();
        }
    }
}

/// Reads and writes of a connection before other tasks have their turn.
pub(super) const TURNS: usize = 16;
const READ_BYTES: usize = 16 * 1024;
/// What an empty batch may keep.
const KEPT_BYTES: usize = 64 * 1024;
/// For a time that no clock can tell.
pub(super) const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

fn closed() -> End {
    End::Failed("the server closed the connection".into())
}

fn broken(error: &io::Error) -> End {
    End::Failed(server::short(format_args!("the connection broke: {error}")))
}

pub(super) fn unreadable(error: ReadError) -> End {
    End::Failed(error.as_str().into())
}

pub(super) fn silent() -> End {
    End::Failed("it did not answer in time".into())
}
