//! Answers to events, in both directions.

use std::{collections::VecDeque, fmt, time::Instant};

use serde::Serialize;

use crate::{
    outbox::Pushed,
    socket::{Args, Socket, encode},
};

/// The right to answer one event of a client, once.
///
/// May be kept and used later, from any thread. An answer to a socket that has gone is dropped, as is an `Ack` that is
/// never used: the protocol knows no refusal.
#[derive(Debug)]
pub struct Ack {
    socket: Socket,
    id: u64,
}

impl Ack {
    pub(super) fn new(socket: Socket, id: u64) -> Self {
        Self { socket, id }
    }

    /// Answers with arguments that are JSON text: values with commas between them, maybe none.
    pub fn send(self, args_json: &str) -> Pushed {
        self.send_binary::<&[u8]>(args_json, &[])
    }

    /// Answers with one argument.
    pub fn send_json<T: Serialize + ?Sized>(self, arg: &T) -> Pushed {
        self.socket.push_if_connected(|namespace| encode::ack_frame_json(namespace, self.id, arg))
    }

    /// Answers with attachments, which `args_json` names by its placeholders.
    pub fn send_binary<B: AsRef<[u8]>>(self, args_json: &str, attachments: &[B]) -> Pushed {
        self.socket.push_all_if_connected(|namespace| encode::ack_frames(namespace, self.id, args_json, attachments))
    }
}

/// A client's answer to an event of the server.
#[derive(Clone, Copy, Debug)]
pub struct AckArgs<'a> {
    /// The arguments.
    pub args: Args<'a>,
    /// The attachments that placeholders in the arguments name.
    pub attachments: &'a [Vec<u8>],
}

/// Why an event of the server got no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckError {
    /// The deadline has passed.
    Timeout,
    /// The socket has gone.
    Disconnected,
    /// The event was not sent, because too many of the socket's events await their answers.
    TooManyPending,
}

impl fmt::Display for AckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "no answer in time",
            Self::Disconnected => "socket is disconnected",
            Self::TooManyPending => "too many events await an answer",
        })
    }
}

impl std::error::Error for AckError {}

/// What is called with the answer, or with the reason for there being none.
#[allow(clippy::type_complexity, reason = "written once, and this is the name for it")]
pub(super) struct AckCallback(Box<dyn FnOnce(Result<AckArgs<'_>, AckError>) + Send>);

impl AckCallback {
    pub(super) fn new(call: impl FnOnce(Result<AckArgs<'_>, AckError>) + Send + 'static) -> Self {
        Self(Box::new(call))
    }

    pub(super) fn call(self, answer: Result<AckArgs<'_>, AckError>) {
        (self.0)(answer);
    }
}

/// One socket's events that await their answers. Every entry goes by answer, deadline or the socket's end.
#[derive(Default)]
pub(super) struct PendingAcks {
    /// The id given last. The first is 1, and ids are not given again to the next socket of the same client and
    /// namespace, so a late answer finds nothing.
    last_id: u64,
    /// In the order of their ids.
    pending: VecDeque<PendingAck>,
}

struct PendingAck {
    id: u64,
    deadline: Instant,
    callback: AckCallback,
}

impl PendingAcks {
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn insert(&mut self, deadline: Instant, callback: AckCallback) -> u64 {
        self.last_id += 1;
        self.pending.push_back(PendingAck { id: self.last_id, deadline, callback });
        self.last_id
    }

    pub(super) fn take(&mut self, id: u64) -> Option<AckCallback> {
        let index = self.pending.binary_search_by_key(&id, |ack| ack.id).ok()?;
        Some(self.pending.remove(index)?.callback)
    }

    /// Moves the callbacks whose deadline has come to the end of `into`.
    pub(super) fn take_expired(&mut self, now: Instant, into: &mut Vec<AckCallback>) {
        if self.pending.iter().all(|ack| ack.deadline > now) {
            return;
        }
        for ack in std::mem::take(&mut self.pending) {
            if ack.deadline <= now {
                into.push(ack.callback);
            } else {
                self.pending.push_back(ack);
            }
        }
    }

    pub(super) fn take_all(&mut self) -> Vec<AckCallback> {
        std::mem::take(&mut self.pending).into_iter().map(|ack| ack.callback).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.pending.iter().map(|ack| ack.deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_go_by_answer_deadline_or_end() {
        let now = Instant::now();
        let mut acks = PendingAcks::default();
        for seconds in [3, 1, 2] {
            acks.insert(now + Duration::from_secs(seconds), AckCallback::new(|_| {}));
        }
        assert_eq!(acks.next_deadline(), Some(now + Duration::from_secs(1)));
        assert!(acks.take(1).is_some());
        assert!(acks.take(1).is_none(), "at most once");
        assert!(acks.take(9).is_none());
        let mut expired = Vec::new();
        acks.take_expired(now, &mut expired);
        assert!(expired.is_empty());
        acks.take_expired(now + Duration::from_secs(1), &mut expired);
        assert_eq!((expired.len(), acks.len()), (1, 1));
        assert!(acks.take(3).is_some());
        assert_eq!(acks.insert(now, AckCallback::new(|_| {})), 4);
        assert_eq!(acks.take_all().len(), 1);
        assert_eq!(acks.next_deadline(), None);
    }
}
