//! RESP2 as bytes: commands are written, and streams of replies and of messages taken apart, within limits.
//!
//! Replies become the `redis` crate's values, though not by its parser: for 1 200 strings of 100 bytes that one takes
//! 0.44 ms, and a whole call with this one 0.1 ms. Neither reader does I/O: bytes are pushed, values pulled.

use redis::Value;

/// Starts a command of `count` arguments, its name among them.
pub(super) fn put_array(out: &mut Vec<u8>, count: usize) {
    put_head(out, b'*', count);
}

/// One argument.
pub(super) fn put_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    put_head(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(CRLF);
}

/// One argument that is a number.
pub(super) fn put_int(out: &mut Vec<u8>, number: u64) {
    put_bulk(out, decimal(number, &mut [0; MAX_DIGITS]));
}

fn put_head(out: &mut Vec<u8>, kind: u8, count: usize) {
    out.push(kind);
    out.extend_from_slice(decimal(count as u64, &mut [0; MAX_DIGITS]));
    out.extend_from_slice(CRLF);
}

/// The digits of a number. In place: an append has two dozen lengths and numbers, each of which would be an allocation.
fn decimal(number: u64, digits: &mut [u8; MAX_DIGITS]) -> &[u8] {
    let mut left = number;
    let mut start = MAX_DIGITS;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
        start -= 1;
        if left == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}

/// A whole command.
pub(super) fn put_command(out: &mut Vec<u8>, args: &[&[u8]]) {
    put_array(out, args.len());
    for arg in args {
        put_bulk(out, arg);
    }
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReadError {
    /// No RESP2.
    Malformed,
    /// A reply with more bytes than allowed.
    TooLarge,
    /// Arrays in arrays, more than [`MAX_DEPTH`] of them.
    TooDeep,
}

impl ReadError {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "what came was no RESP2",
            Self::TooLarge => "a reply was too large",
            Self::TooDeep => "a reply was nested too deeply",
        }
    }
}

/// One reply.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Reply {
    Value(Value),
    Error { code: Box<str>, message: Box<str> },
}

/// Takes a stream of replies apart.
pub(super) struct Replies {
    max_bytes: usize,
    bytes: Vec<u8>,
    /// Where the reply begins that is not yet whole.
    start: usize,
    /// Up to where it is known. Whole elements only, so nothing is looked at twice but the beginning of an element.
    scanned: usize,
    /// Of the arrays around the next element, outermost first: how many elements each still lacks, at least 1.
    lacking: Vec<usize>,
}

impl Replies {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, bytes: Vec::new(), start: 0, scanned: 0, lacking: Vec::new() }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next reply, if it is there as a whole.
    pub(super) fn pull(&mut self) -> Result<Option<Reply>, ReadError> {
        if !self.scan()? {
            return Ok(None);
        }
        let bytes = self.bytes.get(self.start..self.scanned).unwrap_or_default();
        let reply = match bytes.split_first() {
            Some((b'-', line)) => error(line),
            _ => Reply::Value(value(&mut { bytes })?),
        };
        self.start = self.scanned;
        if self.start == self.bytes.len() {
            (self.start, self.scanned) = (0, 0);
            clear(&mut self.bytes);
        }
        Ok(Some(reply))
    }

    /// Whether a whole reply lies between `start` and `scanned`.
    fn scan(&mut self) -> Result<bool, ReadError> {
        loop {
            let rest = self.bytes.get(self.scanned..).unwrap_or_default();
            let Some(line) = line(rest)? else { return self.within_limit(rest.len()).map(|()| false) };
            let mut element = line.len() + CRLF.len();
            let mut ended = true;
            match line.split_first() {
                Some((b'+' | b'-' | b':', _)) => {}
                Some((b'$', digits)) => {
                    if let Some(length) = length(digits)? {
                        self.within_limit(length)?;
                        element += length + CRLF.len();
                        match rest.get(element - CRLF.len()..element) {
                            None => return self.within_limit(element).map(|()| false),
                            Some(end) if end != CRLF => return Err(ReadError::Malformed),
                            Some(_) => {}
                        }
                    }
                }
                Some((b'*', digits)) => {
                    if let Some(count) = length(digits)?.filter(|count| *count > 0) {
                        // The shortest element has three bytes: nobody can make us wait for more than the limit allows.
                        self.within_limit(count.saturating_mul(3))?;
                        if self.lacking.len() == MAX_DEPTH {
                            return Err(ReadError::TooDeep);
                        }
                        self.lacking.push(count);
                        ended = false;
                    }
                }
                _ => return Err(ReadError::Malformed),
            }
            self.within_limit(element)?;
            self.scanned += element;
            while ended {
                match self.lacking.last_mut() {
                    None => return Ok(true),
                    Some(lacking) if *lacking > 1 => {
                        *lacking -= 1;
                        ended = false;
                    }
                    // The last element of an array ends the array as well.
                    Some(_) => _ = self.lacking.pop(),
                }
            }
        }
    }

    fn within_limit(&self, more: usize) -> Result<(), ReadError> {
        let length = (self.scanned - self.start).saturating_add(more);
        if length > self.max_bytes { Err(ReadError::TooLarge) } else { Ok(()) }
    }
}

/// What a connection that subscribes gets.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Push<'a> {
    Message {
        channel: &'a [u8],
        payload: &'a [u8],
        is_pattern: bool,
    },
    /// A message that was left out, for its size.
    TooLarge,
    Subscribed(&'a [u8]),
    Unsubscribed(&'a [u8]),
    PatternSubscribed,
    /// The answer to a PING.
    Pong,
    Error {
        code: Box<str>,
        message: Box<str>,
    },
    /// Something of a newer server.
    Other,
}

/// Takes a stream of messages apart, and leaves out those with an element of more than so many bytes.
pub(super) struct Messages {
    max_bytes: usize,
    bytes: Vec<u8>,
    start: usize,
    leaving_out: Option<LeavingOut>,
}

/// What is left of a message that is too large.
struct LeavingOut {
    bytes: usize,
    elements: usize,
}

impl Messages {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, bytes: Vec::new(), start: 0, leaving_out: None }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that are held.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Gives back what a burst took, if nothing is held.
    pub(super) fn shrink(&mut self) {
        if self.start == self.bytes.len() {
            self.start = 0;
            clear(&mut self.bytes);
        }
    }

    /// The next one, if it is there as a whole.
    pub(super) fn pull(&mut self) -> Result<Option<Push<'_>>, ReadError> {
        if self.leaving_out.is_some() {
            return Ok(self.leave_out()?.then_some(Push::TooLarge));
        }
        let rest = self.bytes.get(self.start..).unwrap_or_default();
        let Some(head) = line(rest)? else { return Ok(None) };
        let mut length = head.len() + CRLF.len();
        let count = match head.split_first() {
            Some((b'*', digits)) => self::length(digits)?.filter(|count| (1..=MAX_ELEMENTS).contains(count)),
            Some((b'+' | b'-', text)) => {
                let text = self.start + 1..self.start + 1 + text.len();
                let is_error = head.starts_with(b"-");
                self.start += length;
                let text = self.bytes.get(text).unwrap_or_default();
                return Ok(Some(match is_error.then(|| error(text)) {
                    Some(Reply::Error { code, message }) => Push::Error { code, message },
                    _ => Push::Pong,
                }));
            }
            _ => None,
        };
        let count = count.ok_or(ReadError::Malformed)?;
        let mut elements = [(0, 0); MAX_ELEMENTS];
        for (element, after) in elements.iter_mut().take(count).zip((0..count).rev()) {
            let Some(head) = line(rest.get(length..).unwrap_or_default())? else { return Ok(None) };
            length += head.len() + CRLF.len();
            match head.split_first() {
                Some((b':', _)) => {}
                Some((b'$', digits)) => {
                    let Some(bytes) = self::length(digits)? else { continue };
                    if bytes > self.max_bytes {
                        self.start += length;
                        self.leaving_out = Some(LeavingOut { bytes: bytes.saturating_add(2), elements: after });
                        return Ok(self.leave_out()?.then_some(Push::TooLarge));
                    }
                    *element = (self.start + length, self.start + length + bytes);
                    length += bytes + CRLF.len();
                    match rest.get(length - CRLF.len()..length) {
                        None => return Ok(None),
                        Some(end) if end != CRLF => return Err(ReadError::Malformed),
                        Some(_) => {}
                    }
                }
                _ => return Err(ReadError::Malformed),
            }
        }
        self.start += length;
        let [kind, first, second, third] = elements.map(|(start, end)| self.bytes.get(start..end).unwrap_or_default());
        Ok(Some(match (kind, count) {
            (b"message", 3) => Push::Message { channel: first, payload: second, is_pattern: false },
            (b"pmessage", 4) => Push::Message { channel: second, payload: third, is_pattern: true },
            (b"subscribe", 3) => Push::Subscribed(first),
            (b"unsubscribe", 3) => Push::Unsubscribed(first),
            (b"psubscribe", 3) => Push::PatternSubscribed,
            (b"pong", 2) => Push::Pong,
            _ => Push::Other,
        }))
    }

    /// Whether the message has come to its end.
    fn leave_out(&mut self) -> Result<bool, ReadError> {
        while let Some(left) = &mut self.leaving_out {
            let here = left.bytes.min(self.bytes.len() - self.start);
            self.start += here;
            left.bytes -= here;
            if left.bytes > 0 {
                return Ok(false);
            }
            if left.elements == 0 {
                self.leaving_out = None;
                return Ok(true);
            }
            let Some(head) = line(self.bytes.get(self.start..).unwrap_or_default())? else { return Ok(false) };
            match head.split_first() {
                Some((b':', _)) => {}
                Some((b'$', digits)) => left.bytes = length(digits)?.map_or(0, |bytes| bytes.saturating_add(2)),
                _ => return Err(ReadError::Malformed),
            }
            left.elements -= 1;
            self.start += head.len() + CRLF.len();
        }
        Ok(true)
    }
}

const CRLF: &[u8] = b"\r\n";
/// Of a number.
const MAX_DIGITS: usize = 20;
/// Of arrays in replies.
pub(super) const MAX_DEPTH: usize = 16;
/// Longest line: an error's text, as long as servers make them.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// Kind, pattern, channel, payload.
const MAX_ELEMENTS: usize = 4;
/// What an empty buffer may keep.
const KEPT_BYTES: usize = 64 * 1024;

fn clear(bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.shrink_to(KEPT_BYTES);
}

/// The first line, without its end, if it is there as a whole.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, ReadError> {
    let bytes = bytes.get(..MAX_LINE_BYTES).unwrap_or(bytes);
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => bytes.get(..end).and_then(|line| line.strip_suffix(b"\r")).map(Some).ok_or(ReadError::Malformed),
        None if bytes.len() == MAX_LINE_BYTES => Err(ReadError::TooLarge),
        None => Ok(None),
    }
}

/// Of a string or an array. None: there is none.
fn length(digits: &[u8]) -> Result<Option<usize>, ReadError> {
    match digits {
        b"-1" => Ok(None),
        _ if digits.is_empty() || digits.len() > 10 || !digits.iter().all(u8::is_ascii_digit) => {
            Err(ReadError::Malformed)
        }
        _ => Ok(Some(digits.iter().fold(0, |length, digit| length * 10 + usize::from(digit - b'0')))),
    }
}

/// Takes a value from the front, which is there as a whole, and not nested too deeply.
fn value(bytes: &mut &[u8]) -> Result<Value, ReadError> {
    let start = *bytes;
    let head = line(bytes)?.ok_or(ReadError::Malformed)?;
    *bytes = bytes.get(head.len() + CRLF.len()..).unwrap_or_default();
    let Some((kind, rest)) = head.split_first() else { return Err(ReadError::Malformed) };
    Ok(match kind {
        b'+' if rest == b"OK" => Value::Okay,
        b'+' => Value::SimpleString(String::from_utf8_lossy(rest).into_owned()),
        b':' => {
            Value::Int(str::from_utf8(rest).ok().and_then(|digits| digits.parse().ok()).ok_or(ReadError::Malformed)?)
        }
        b'$' => match length(rest)? {
            None => Value::Nil,
            Some(length) => {
                let (text, behind) = bytes.split_at_checked(length).ok_or(ReadError::Malformed)?;
                *bytes = behind.get(CRLF.len()..).unwrap_or_default();
                Value::BulkString(text.to_vec())
            }
        },
        b'*' => match length(rest)? {
            None => Value::Nil,
            Some(count) => Value::Array((0..count).map(|_| value(bytes)).collect::<Result<_, _>>()?),
        },
        // An error in an array. Only the crate can make that value.
        b'-' => {
            let line = start.get(..head.len() + CRLF.len()).unwrap_or_default();
            redis::parse_redis_value(String::from_utf8_lossy(line).as_bytes()).map_err(|_| ReadError::Malformed)?
        }
        _ => return Err(ReadError::Malformed),
    })
}

fn error(line: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    let (code, message) = text.split_once(' ').unwrap_or((text, ""));
    // Up to 6.2, an error that ends a script is `ERR`, and the code stands in its text.
    if code == "ERR"
        && message.starts_with("Error running script")
        && let Some((_, inner)) = message.split_once(": -")
        && let Some((inner, message)) = inner.split_once(' ')
        && inner.bytes().all(|byte| byte.is_ascii_uppercase())
    {
        return Reply::Error { code: inner.into(), message: message.into() };
    }
    Reply::Error { code: code.into(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(pieces: &[&[u8]], max_bytes: usize) -> Result<Vec<Reply>, ReadError> {
        let mut reader = Replies::new(max_bytes);
        let mut replies = Vec::new();
        for piece in pieces {
            reader.push(piece);
            while let Some(reply) = reader.pull()? {
                replies.push(reply);
            }
        }
        Ok(replies)
    }

    fn err(code: &str, message: &str) -> Reply {
        Reply::Error { code: code.into(), message: message.into() }
    }

    #[test]
    fn commands_are_arrays_of_strings() {
        let mut out = Vec::new();
        put_command(&mut out, &[b"SET", b"", b"\r\n\0"]);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$3\r\n\r\n\0\r\n");
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 9, 10, 99, 100, 1_760_000_000_000, u64::MAX - 1, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; MAX_DIGITS]), number.to_string().as_bytes());
        }
        let mut out = Vec::new();
        put_int(&mut out, u64::MAX);
        assert_eq!(out, b"$20\r\n18446744073709551615\r\n");
    }

    #[test]
    fn replies_are_the_same_wherever_the_stream_is_cut() {
        let wire: &[u8] =
            b"+OK\r\n:-7\r\n$-1\r\n$4\r\na\r\nb\r\n*-1\r\n*0\r\n*2\r\n*1\r\n:1\r\n*2\r\n$0\r\n\r\n-ERR in\r\n\
            -WRONGTYPE no \xff\r\n+PONG\r\n";
        let whole = replies(&[wire], 1000).unwrap();
        assert_eq!(whole.len(), 9);
        assert_eq!(whole[0], Reply::Value(Value::Okay));
        assert_eq!(whole[1], Reply::Value(Value::Int(-7)));
        assert_eq!(whole[2], Reply::Value(Value::Nil));
        assert_eq!(whole[3], Reply::Value(Value::BulkString(b"a\r\nb".to_vec())));
        assert_eq!(whole[4], Reply::Value(Value::Nil));
        assert_eq!(whole[5], Reply::Value(Value::Array(Vec::new())));
        assert_eq!(whole[7], err("WRONGTYPE", "no \u{fffd}"));
        assert_eq!(whole[8], Reply::Value(Value::SimpleString("PONG".to_owned())));
        for first in 0..=wire.len() {
            for second in first..=wire.len() {
                let cut = replies(&[&wire[..first], &wire[first..second], &wire[second..]], 1000);
                assert_eq!(cut.as_ref(), Ok(&whole), "{first} {second}");
            }
        }
    }

    #[test]
    fn replies_mean_what_the_crate_takes_them_for() {
        fn wire(random: &mut fastrand::Rng, depth: usize, out: &mut Vec<u8>) {
            match random.u32(if depth == 0 { 1 } else { 0 }..9) {
                0 | 8 if depth < MAX_DEPTH => {
                    let count = random.usize(0..4);
                    put_array(out, count);
                    for _ in 0..count {
                        wire(random, depth + 1, out);
                    }
                }
                1 => out.extend_from_slice(b"+OK\r\n"),
                2 => out.extend_from_slice(b"+Queued it\r\n"),
                3 => out.extend_from_slice(format!(":{}\r\n", random.i64(..)).as_bytes()),
                4 => out.extend_from_slice(b"$-1\r\n"),
                5 => out.extend_from_slice(b"*-1\r\n"),
                6 if depth > 0 => out.extend_from_slice(b"-LOADING not yet\r\n"),
                _ => put_bulk(out, &vec![random.u8(..); random.usize(0..5)]),
            }
        }
        for seed in 0..2000 {
            let mut out = Vec::new();
            wire(&mut fastrand::Rng::with_seed(seed), 0, &mut out);
            let theirs = redis::parse_redis_value(&out).unwrap();
            assert_eq!(
                replies(&[&out], 1 << 20),
                Ok(vec![Reply::Value(theirs)]),
                "{:?}",
                String::from_utf8_lossy(&out)
            );
        }
    }

    #[test]
    fn what_is_no_reply_ends_the_stream() {
        for wire in [
            &b"?\r\n"[..],
            b"\r\n",
            b"\n",
            b"+OK\n",
            b"$x\r\n",
            b"$\r\n",
            b"$-2\r\n",
            b"*-3\r\n",
            b"$3\r\nabcd\r\n",
            b"%1\r\n",
            b":x\r\n",
            b":\r\n",
            b":9223372036854775808\r\n",
            b"$+3\r\nabc\r\n",
            b"$12345678901\r\n",
        ] {
            assert_eq!(replies(&[wire], 1000), Err(ReadError::Malformed), "{:?}", String::from_utf8_lossy(wire));
        }
    }

    #[test]
    fn replies_are_limited_in_bytes_before_they_have_come() {
        let exact = b"$5\r\nabcde\r\n";
        assert_eq!(replies(&[exact], exact.len()).unwrap().len(), 1);
        assert_eq!(replies(&[exact], exact.len() - 1), Err(ReadError::TooLarge));
        assert_eq!(replies(&[b"$100\r\n"], 99), Err(ReadError::TooLarge), "announced");
        assert_eq!(replies(&[b"*100\r\n"], 299), Err(ReadError::TooLarge), "announced elements");
        assert_eq!(replies(&[b"*100\r\n"], 306), Ok(vec![]));
        assert_eq!(replies(&[b"*9\r\n$5\r\nabcde\r\n$5\r\nabcde\r\n:1\r\n"], 29), Err(ReadError::TooLarge), "in sum");
        assert_eq!(replies(&[&[b'+'; MAX_LINE_BYTES]], 1 << 20), Err(ReadError::TooLarge), "a line without end");
        // The limit is one for each reply.
        assert_eq!(replies(&[&exact.repeat(10)], exact.len()).unwrap().len(), 10);
    }

    #[test]
    fn replies_are_limited_in_depth() {
        let nested = |depth: usize| [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
        assert_eq!(replies(&[&nested(MAX_DEPTH)], 1000).unwrap().len(), 1);
        assert_eq!(replies(&[&nested(MAX_DEPTH + 1)], 1000), Err(ReadError::TooDeep));
    }

    #[test]
    fn the_code_of_an_error_inside_a_script_is_found() {
        let old =
            b"ERR Error running script (call to f_6b1b): @user_script:1: @user_script: 1: -OOM command not allowed";
        assert_eq!(error(old), err("OOM", "command not allowed"));
        assert_eq!(error(b"OOM command not allowed. script: 6b1b"), err("OOM", "command not allowed. script: 6b1b"));
        let plain = b"ERR Error running script (call to f_6b1b): @user_script:1: user_script:1: attempt to add a nil";
        assert!(matches!(error(plain), Reply::Error { code, .. } if &*code == "ERR"));
        assert_eq!(error(b"BROKEN"), err("BROKEN", ""));
    }

    #[test]
    fn an_idle_reader_gives_back_what_a_burst_took() {
        let mut reader = Replies::new(1 << 20);
        reader.push(&[b"$500000\r\n".to_vec(), vec![0; 500_000], b"\r\n".to_vec()].concat());
        reader.pull().unwrap().unwrap();
        assert!(reader.bytes.capacity() <= KEPT_BYTES);
        let mut reader = Messages::new(1 << 20);
        reader.push(
            &[b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$500000\r\n".to_vec(), vec![0; 500_000], b"\r\n".to_vec()].concat(),
        );
        reader.pull().unwrap().unwrap();
        reader.shrink();
        assert!(reader.bytes.capacity() <= KEPT_BYTES);
    }

    fn pushes(pieces: &[&[u8]], max_bytes: usize) -> Result<Vec<String>, ReadError> {
        let mut reader = Messages::new(max_bytes);
        let mut pushes = Vec::new();
        for piece in pieces {
            reader.push(piece);
            while let Some(push) = reader.pull()? {
                pushes.push(match push {
                    Push::Message { channel, payload, is_pattern } => {
                        let [channel, payload] = [channel, payload].map(String::from_utf8_lossy);
                        format!("message {channel} {payload} {is_pattern}")
                    }
                    Push::Subscribed(channel) => format!("subscribed {}", String::from_utf8_lossy(channel)),
                    Push::Unsubscribed(channel) => format!("unsubscribed {}", String::from_utf8_lossy(channel)),
                    other => format!("{other:?}"),
                });
            }
        }
        Ok(pushes)
    }

    #[test]
    fn messages_are_the_same_wherever_the_stream_is_cut() {
        let wire: &[u8] = b"*3\r\n$10\r\npsubscribe\r\n$2\r\np*\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:2\r\n\
            *3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\n\r\n\r\n*4\r\n$8\r\npmessage\r\n$2\r\np*\r\n$2\r\npq\r\n$0\r\n\r\n\
            *3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$11\r\n12345678901\r\n*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$12\r\n\
            123456789012\r\n$1\r\nx\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n+PONG\r\n*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n\
            -NOPERM no\r\n*3\r\n$3\r\nnew\r\n:1\r\n:1\r\n";
        // The longest name of a kind has 11 bytes; here such an element is too large, so that one can be.
        let whole = pushes(&[wire], 10).unwrap();
        let expected = [
            "PatternSubscribed",
            "subscribed c",
            "message c \r\n false",
            "message pq  true",
            "TooLarge",
            "TooLarge",
            "Pong",
            "Pong",
            "TooLarge",
            "Error { code: \"NOPERM\", message: \"no\" }",
            "Other",
        ];
        assert_eq!(whole, expected);
        for first in 0..=wire.len() {
            for second in first..=wire.len() {
                let cut = pushes(&[&wire[..first], &wire[first..second], &wire[second..]], 10);
                assert_eq!(cut.as_ref(), Ok(&whole), "{first} {second}");
            }
        }
    }

    #[test]
    fn a_message_is_taken_up_to_its_limit() {
        let message = |bytes: usize| {
            [
                format!("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n${bytes}\r\n").into_bytes(),
                vec![b'x'; bytes],
                b"\r\n".to_vec(),
            ]
            .concat()
        };
        assert!(pushes(&[&message(1000)], 1000).unwrap()[0].starts_with("message c xxx"));
        assert_eq!(pushes(&[&message(1001)], 1000).unwrap(), ["TooLarge"]);
    }

    #[test]
    fn a_message_that_is_too_large_is_not_held() {
        let mut reader = Messages::new(1000);
        reader.push(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$100000\r\n");
        assert_eq!(reader.pull(), Ok(None));
        for _ in 0..100 {
            reader.push(&[0; 1000]);
            assert_eq!(reader.pull(), Ok(None));
            assert!(reader.held() <= 1040);
        }
        reader.push(b"\r\n+PONG\r\n");
        assert_eq!(reader.pull(), Ok(Some(Push::TooLarge)));
        assert_eq!(reader.pull(), Ok(Some(Push::Pong)));
    }

    #[test]
    fn what_is_no_message_ends_the_stream() {
        for wire in [&b"$1\r\nx\r\n"[..], b"*0\r\n", b"*5\r\n", b"*-1\r\n", b"*1\r\n+x\r\n", b"*1\r\n$1\r\nxyz\r\n"] {
            assert_eq!(pushes(&[wire], 1000), Err(ReadError::Malformed), "{:?}", String::from_utf8_lossy(wire));
        }
    }
}
