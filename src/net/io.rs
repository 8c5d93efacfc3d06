//! A TCP stream as the WebSocket library sees it.

use std::{
    io::{self, ErrorKind, IoSlice, Read as _, Write as _},
    mem,
    net::TcpStream,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use smol::{
    Async,
    io::{AsyncRead, AsyncWrite},
};

use crate::net::boundary::Boundary;

/// Reads come from the socket; writes are collected, and written by whoever writes everything else.
///
/// The library writes pongs and answers to close frames by itself. Collecting them keeps one writer per socket, so
/// that they cannot come in the middle of a frame.
#[derive(Debug)]
pub(super) struct Io {
    stream: Arc<Async<TcpStream>>,
    boundary: Boundary,
    /// The last read took all there was: asking the kernel again would only cost a system call.
    drained: bool,
    /// What may still be read in this turn, in bytes.
    budget: usize,
    /// Bytes read since [`take_bytes_in`](Self::take_bytes_in) was asked.
    bytes_in: u64,
    /// What the library wrote. Bounded: it writes at most one control frame for each that it reads in a turn.
    pub(super) collected: Vec<u8>,
}

/// What one connection may read before the others get their turn.
const TURN_BYTES: usize = 64 * 1024;

impl Io {
    /// `unread` was read before, and goes to the library first.
    pub(super) fn new(stream: Async<TcpStream>, unread: &[u8]) -> Self {
        let mut boundary = Boundary::default();
        boundary.pass(unread);
        Self {
            stream: Arc::new(stream),
            boundary,
            drained: false,
            budget: TURN_BYTES,
            bytes_in: 0,
            collected: Vec::new(),
        }
    }

    /// Whether the library has got whole messages only.
    pub(super) fn is_clear(&self) -> bool {
        self.boundary.is_clear()
    }

    /// The same stream for a new instance of the library. What is left of this one reads and writes nothing any more.
    pub(super) fn renew(&mut self) -> Self {
        Self {
            stream: Arc::clone(&self.stream),
            boundary: mem::take(&mut self.boundary),
            drained: self.drained,
            budget: self.budget,
            bytes_in: self.bytes_in,
            collected: mem::take(&mut self.collected),
        }
    }

    /// A task's turn begins: so much may be read until the others get theirs.
    pub(super) fn begin_turn(&mut self) {
        self.budget = TURN_BYTES;
    }

    pub(super) fn take_bytes_in(&mut self) -> u64 {
        mem::take(&mut self.bytes_in)
    }

    /// Writes as many of the slices as the kernel takes.
    pub(super) fn poll_write_all(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let written = match slices {
                // Cheaper than a vector of one.
                [slice] => self.stream.get_ref().write(slice),
                _ => self.stream.get_ref().write_vectored(slices),
            };
            match written {
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready!(self.stream.poll_writable(cx))?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    pub(super) fn stream(&self) -> &Async<TcpStream> {
        &self.stream
    }
}

/// Reads what there is into `buf`; `Ok(0)` is the end of the stream.
pub(super) fn poll_read(stream: &Async<TcpStream>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
    loop {
        match stream.get_ref().read(buf) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => ready!(stream.poll_readable(cx))?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return Poll::Ready(outcome),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.budget == 0 {
            // The library answers pings and skips fragments by itself, for as long as there are any.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.drained {
            ready!(self.stream.poll_readable(cx))?;
            self.drained = false;
        }
        let Poll::Ready(outcome) = poll_read(&self.stream, cx, buf) else {
            // Registered: until the socket says something, a wake-up is for something else.
            self.drained = true;
            return Poll::Pending;
        };
        if let Ok(read) = outcome {
            self.boundary.pass(buf.get(..read).unwrap_or(&[]));
            self.drained = read < buf.len() && read > 0;
            self.bytes_in += read as u64;
            self.budget = self.budget.saturating_sub(read);
        }
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.collected.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
