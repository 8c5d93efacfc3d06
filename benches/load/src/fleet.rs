//! All connections of a run and the epoll that waits for them.

use std::time::{Duration, Instant};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, EventData, EventFlags},
    },
    fd::OwnedFd,
    io::Errno,
};

use crate::{
    Failure,
    connection::{Connection, Tally},
};

/// Large enough to take what a member was sent in one read under load.
const READ_BUFFER_BYTES: usize = 256 * 1024;

pub struct Fleet {
    pub connections: Vec<Connection>,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
    /// Packets that begin so are counted as [`Tally::replies`].
    watched: Vec<u8>,
}

impl Fleet {
    /// Opens `count` connections, one after the other: no server is flooded with handshakes.
    pub fn open(count: usize, port: u16, watched_event: &str) -> Result<Self, Failure> {
        let mut connections = Vec::with_capacity(count);
        for index in 0..count {
            let connection = Connection::open(port).map_err(|err| format!("connection {index} of {count}: {err}"))?;
            connections.push(connection);
        }
        Ok(Self {
            connections,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(1024),
            buffer: vec![0; READ_BUFFER_BYTES],
            watched: format!("42[\"{watched_event}\"").into_bytes(),
        })
    }

    /// Ends the blocking set-up phase.
    pub fn watch(&mut self) -> Result<(), Failure> {
        for (index, connection) in self.connections.iter_mut().enumerate() {
            connection.make_nonblocking()?;
            epoll::add(&self.epoll, &connection.stream, EventData::new_u64(index as u64), EventFlags::IN)?;
        }
        Ok(())
    }

    /// Sends frames on one connection, and asks to be told when the rest of them can be written.
    pub fn send(&mut self, index: usize, frames: &[u8]) -> Result<(), Failure> {
        let connection = &mut self.connections[index];
        let waited = connection.has_unsent();
        connection.send(frames)?;
        if connection.has_unsent() && !waited {
            self.modify(index, EventFlags::IN | EventFlags::OUT)?;
        }
        Ok(())
    }

    /// Waits until something arrives or `deadline` passes; hands each connection's tally to `on_read`.
    ///
    /// What `on_read` returns is sent on that connection.
    pub fn turn(
        &mut self,
        deadline: Instant,
        mut on_read: impl FnMut(usize, &Tally, &mut Vec<u8>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&Timespec::try_from(left)?)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
        let mut events = std::mem::take(&mut self.events);
        let mut frames = Vec::new();
        for event in events.drain(..) {
            let index = event.data.u64() as usize;
            let flags = event.flags;
            if flags.contains(EventFlags::OUT) {
                self.connections[index].flush()?;
                if !self.connections[index].has_unsent() {
                    self.modify(index, EventFlags::IN)?;
                }
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                let tally = self.connections[index].read(&mut self.buffer, &self.watched)?;
                frames.clear();
                on_read(index, &tally, &mut frames)?;
                if !frames.is_empty() {
                    self.send(index, &frames)?;
                }
            }
        }
        self.events = events;
        Ok(())
    }

    /// Reads and answers pings until nothing but pings came for `quiet`.
    pub fn settle(&mut self, quiet: Duration) -> Result<(), Failure> {
        let give_up = Instant::now() + quiet * 8 + Duration::from_secs(2);
        let mut quiet_at = Instant::now() + quiet;
        while Instant::now() < quiet_at {
            if Instant::now() > give_up {
                return Err("the server does not come to rest".into());
            }
            let mut heard = false;
            self.turn(quiet_at, |_, tally, _| {
                heard |= tally.packets() > tally.pings;
                Ok(())
            })?;
            if heard {
                quiet_at = Instant::now() + quiet;
            }
        }
        Ok(())
    }

    fn modify(&self, index: usize, flags: EventFlags) -> Result<(), Failure> {
        let stream = &self.connections[index].stream;
        Ok(epoll::modify(&self.epoll, stream, EventData::new_u64(index as u64), flags)?)
    }
}
