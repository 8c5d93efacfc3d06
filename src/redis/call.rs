//! One command, and the answer to it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use redis::Value;

use super::resp::{put_array, put_bulk, put_int};

/// A Lua script, for [`Call::script`].
#[derive(Debug)]
pub struct Script {
    body: &'static str,
    sha1: OnceLock<String>,
}

impl Script {
    /// A script with this source.
    pub const fn new(body: &'static str) -> Self {
        Self { body, sha1: OnceLock::new() }
    }

    fn sha1(&self) -> &str {
        self.sha1.get_or_init(|| sha1_smol::Sha1::from(self.body).digest().to_string())
    }
}

/// One command, its arguments, and how it is to be treated.
#[derive(Clone, Debug)]
pub struct Call {
    verb: Verb,
    /// Encoded.
    args: Vec<u8>,
    count: usize,
    /// Where in `args` the life is put in.
    life_at: Vec<usize>,
    pub(super) repeatable: bool,
    pub(super) replicated: bool,
    pub(super) early: bool,
    pub(super) time: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Verb {
    Command(&'static str),
    Script(&'static Script, usize),
}

impl Call {
    /// A command by its name.
    pub fn command(name: &'static str) -> Self {
        Self::new(Verb::Command(name))
    }

    /// `EVALSHA`, and `EVAL` if the server does not know the script. `keys` is the number of keys, which come first
    /// among the arguments.
    pub fn script(script: &'static Script, keys: usize) -> Self {
        Self::new(Verb::Script(script, keys))
    }

    fn new(verb: Verb) -> Self {
        Self {
            verb,
            args: Vec::with_capacity(ARGS_BYTES),
            count: 0,
            life_at: Vec::new(),
            repeatable: false,
            replicated: false,
            early: false,
            time: DEFAULT_TIME,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<[u8]>) -> Self {
        put_bulk(&mut self.args, arg.as_ref());
        self.count += 1;
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn int(mut self, arg: u64) -> Self {
        put_int(&mut self.args, arg);
        self.count += 1;
        self
    }

    /// Adds an argument that is filled in when the call is written: the life that [`Redis::admit`](super::Redis::admit)
    /// was told last, as a number.
    #[must_use]
    pub fn life(mut self) -> Self {
        self.life_at.push(self.args.len());
        self.count += 1;
        self
    }

    /// May be sent again if the connection ended before its answer.
    #[must_use]
    pub fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    /// Is answered only when [`Settings::min_replicas`](super::Settings::min_replicas) replicas have it. Takes another
    /// connection than other calls, so it keeps its order only among its like. Nothing special at 0.
    #[must_use]
    pub fn replicated(mut self) -> Self {
        self.replicated = true;
        self
    }

    /// Is sent before the connection is admitted, and before all that is not early.
    #[must_use]
    pub fn early(mut self) -> Self {
        self.early = true;
        self
    }

    /// How long it may take from when it is made, waiting for a connection included. 5 s if it is not said.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// What it counts for among the bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.args.len() + CALL_BYTES
    }

    pub(super) fn as_script(&self) -> Option<&'static Script> {
        match self.verb {
            Verb::Command(_) => None,
            Verb::Script(script, _) => Some(script),
        }
    }

    /// `with_body`: as `EVAL`.
    pub(super) fn encode(&self, out: &mut Vec<u8>, life: u64, with_body: bool) {
        match self.verb {
            Verb::Command(name) => {
                put_array(out, 1 + self.count);
                put_bulk(out, name.as_bytes());
            }
            Verb::Script(script, keys) => {
                put_array(out, 3 + self.count);
                let (name, which) = if with_body { ("EVAL", script.body) } else { ("EVALSHA", script.sha1()) };
                put_bulk(out, name.as_bytes());
                put_bulk(out, which.as_bytes());
                put_int(out, keys as u64);
            }
        }
        let mut args = self.args.as_slice();
        let mut done = 0;
        for at in &self.life_at {
            if let Some((before, after)) = args.split_at_checked(at - done) {
                out.extend_from_slice(before);
                args = after;
                done = *at;
            }
            put_int(out, life);
        }
        out.extend_from_slice(args);
    }
}

/// Why a call has no value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallError {
    /// There is no connection, or none came back in time; nothing was done.
    Away,
    /// As many calls wait as may.
    Full,
    /// The connection ended, or the time, after it was sent: it may have been done.
    Unknown,
    /// Done, but too few replicas are known to have it.
    NotReplicated,
    /// The server's own error.
    Server {
        /// Its first word, such as `OOM`, `READONLY`, `WRONGTYPE`.
        code: Box<str>,
        /// The rest.
        message: Box<str>,
    },
}

/// Where one outcome is put and taken.
pub(super) struct Slot(Mutex<Content>);

enum Content {
    Empty(Option<Waker>),
    Full(Result<Value, CallError>),
    Taken,
}

impl Slot {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Content::Empty(None))))
    }

    /// The first outcome counts. Whether this is it.
    pub(super) fn put(&self, outcome: Result<Value, CallError>) -> bool {
        let mut content = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Content::Empty(waker) = &mut *content else { return false };
        let waker = waker.take();
        *content = Content::Full(outcome);
        drop(content);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

/// Whether nobody waits for the outcome.
pub(super) fn is_gone(slot: &Arc<Slot>) -> bool {
    Arc::strong_count(slot) == 1
}

/// The outcome, when it is there.
pub(super) struct Answer(pub(super) Arc<Slot>);

impl Future for Answer {
    type Output = Result<Value, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut content = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *content {
            Content::Empty(waker) => {
                waker.clone_from(&Some(cx.waker().clone()));
                Poll::Pending
            }
            Content::Full(_) => match std::mem::replace(&mut *content, Content::Taken) {
                Content::Full(outcome) => Poll::Ready(outcome),
                _ => Poll::Pending,
            },
            Content::Taken => Poll::Pending,
        }
    }
}

/// For a call that says nothing else.
const DEFAULT_TIME: Duration = Duration::from_secs(5);
/// What arguments have room for from the beginning: enough for most calls, and an append grows it once or twice.
const ARGS_BYTES: usize = 256;
/// What a call takes beside its arguments, rounded up.
const CALL_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(call: &Call, life: u64, with_body: bool) -> String {
        let mut out = Vec::new();
        call.encode(&mut out, life, with_body);
        String::from_utf8(out).unwrap().replace("\r\n", " ")
    }

    #[test]
    fn calls_become_commands() {
        static SCRIPT: Script = Script::new("return 1");
        let script = Call::script(&SCRIPT, 1).arg("key").life().arg("x").life();
        let sha1 = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
        for (name, call, with_body, expected) in [
            ("no argument", Call::command("PING"), false, "*1 $4 PING ".to_owned()),
            ("a number", Call::command("GET").int(7), false, "*2 $3 GET $1 7 ".to_owned()),
            ("only a life", Call::command("GET").life(), false, "*2 $3 GET $2 42 ".to_owned()),
            ("EVALSHA", script.clone(), false, format!("*7 $7 EVALSHA $40 {sha1} $1 1 $3 key $2 42 $1 x $2 42 ")),
            ("EVAL", script, true, "*7 $4 EVAL $8 return 1 $1 1 $3 key $2 42 $1 x $2 42 ".to_owned()),
        ] {
            assert_eq!(wire(&call, 42, with_body), expected, "{name}");
        }
    }
}
