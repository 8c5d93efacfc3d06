//! The format of `@socket.io/redis-adapter` 8 and `@socket.io/redis-emitter` 5.
//!
//! A broadcast is a MessagePack array `[uid, packet, options]` on the channel of its one room, or on that of the
//! namespace; servers ignore what follows those three, so a fourth element holds our own [`Meta`]. Requests to all
//! servers and the responses to them are JSON or MessagePack, told apart by the first byte.
//!
//! Reading is as tolerant as the adapter, but for what makes that throw or break its clients: this is refused. What is
//! written is what the adapter itself writes, byte for byte. Which server answers what, and when enough have answered,
//! is left to others.
//!
//! Start at [`Channels`], [`peek`] and [`Broadcast`].

mod request;
mod response;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::adapter::{
    Event, FormatError, MAX_JSON_BYTES, MAX_MESSAGE_BYTES, MAX_NAME_BYTES, MAX_NAMES, Values, json,
    msgpack::{
        JsonWriter, Reader, Value, write_array, write_bool, write_map, write_nil, write_str, write_u64, write_values,
    },
};

pub use request::{Ask, Request, Selection, Sockets};
pub use response::{RemoteSocket, Reply, Response};

/// The names of channels, which begin with a prefix (the adapter's option `key`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Channels {
    prefix: Box<str>,
}

impl Channels {
    /// The adapter's own prefix is `socket.io`.
    pub fn new(prefix: impl Into<Box<str>>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// Where broadcasts to all of a namespace go, and those to several rooms.
    pub fn namespace(&self, namespace: &str) -> String {
        format!("{}#{namespace}#", self.prefix)
    }

    /// Where broadcasts to one room go.
    pub fn room(&self, namespace: &str, room: &str) -> String {
        format!("{}#{namespace}#{room}#", self.prefix)
    }

    /// Where a broadcast to these rooms goes.
    pub fn rooms<T: AsRef<str>>(&self, namespace: &str, rooms: &[T]) -> String {
        match rooms {
            [room] => self.room(namespace, room.as_ref()),
            _ => self.namespace(namespace),
        }
    }

    /// Where requests go.
    pub fn request(&self, namespace: &str) -> String {
        format!("{}-request#{namespace}#", self.prefix)
    }

    /// Where responses go.
    pub fn response(&self, namespace: &str) -> String {
        format!("{}-response#{namespace}#", self.prefix)
    }

    /// Where responses to one server may go.
    pub fn response_to(&self, namespace: &str, uid: &str) -> String {
        format!("{}-response#{namespace}#{uid}#", self.prefix)
    }
}

/// An event for the members of rooms.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Broadcast<'a> {
    /// The server that sent it, so that it can ignore its own. `None` if that is no string.
    pub uid: Option<Cow<'a, str>>,
    /// The namespace.
    pub namespace: Cow<'a, str>,
    /// What to emit.
    pub event: Event<'a>,
    /// To whom: members of any of these rooms; everybody in the namespace if there are none. The channel does not count.
    pub rooms: Vec<Cow<'a, str>>,
    /// But not members of any of these. Sockets are rooms too.
    pub except: Vec<Cow<'a, str>>,
    /// How.
    pub flags: Flags,
    /// What our instances add.
    pub meta: Option<Meta<'a>>,
}

/// How to emit. Other flags of the adapter mean nothing here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// May be lost if the client cannot take it now.
    pub volatile: bool,
    /// How long clients' acks are awaited.
    pub timeout_ms: Option<u64>,
}

/// What our instances add to a broadcast. Each part is `None` if it is missing or of another type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meta<'a> {
    /// The event's number in its log.
    pub seq: Option<u64>,
    /// The log's life.
    pub epoch: Option<&'a str>,
    /// The kind of logged event.
    pub kind: Option<u8>,
    /// The payload as JSON text.
    pub json: Option<&'a str>,
    /// What instances tell one another, and no client.
    pub control: Option<&'a str>,
}

/// A broadcast of which only this has been decoded.
#[derive(Clone, Debug)]
pub struct Peeked<'a> {
    /// As [`Broadcast::uid`].
    pub uid: Option<&'a str>,
    /// As [`Broadcast::meta`].
    pub meta: Option<Meta<'a>>,
    packet: Reader<'a>,
    options: Reader<'a>,
}

/// Reads who sent a broadcast, and what our instances add, without looking at the rest, which may be anything.
///
/// # Errors
/// The payload is not exactly one MessagePack array of three elements or more.
pub fn peek(payload: &[u8]) -> Result<Peeked<'_>, FormatError> {
    const EXPECTED: &str = "an array of uid, packet and options";
    check_size(payload)?;
    let mut reader = Reader::new(payload);
    let count = reader.array_of(EXPECTED)?;
    if count < 3 {
        return Err(FormatError::Expected(EXPECTED));
    }
    let mut uid = reader;
    reader.skip()?;
    let uid = match uid.value()? {
        Value::Str(uid) => str::from_utf8(uid).ok(),
        _ => None,
    };
    let packet = reader;
    reader.skip()?;
    let options = reader;
    reader.skip()?;
    let mut meta = None;
    for index in 3..count {
        if index == 3 {
            meta = Meta::read(reader)?;
        }
        reader.skip()?;
    }
    reader.finish()?;
    Ok(Peeked { uid, meta, packet, options })
}

impl<'a> Peeked<'a> {
    /// Decodes the rest. With `args_json`, these are the event's arguments, and those in the packet are not looked at: what
    /// our instances send has them in [`Meta::json`] as they were.
    ///
    /// # Errors
    /// It is no broadcast, exceeds a limit, or would break a Node server or its clients.
    pub fn decode(self, args_json: Option<&'a str>) -> Result<Broadcast<'a>, FormatError> {
        let (namespace, event) = read_packet(self.packet, args_json)?;
        let Options { rooms, except, flags } = Options::read(self.options)?;
        let uid = self.uid.map(Cow::Borrowed);
        Ok(Broadcast { uid, namespace, event, rooms, except, flags, meta: self.meta })
    }
}

impl Broadcast<'_> {
    /// Writes it as the adapter does, and [`meta`](Self::meta), if there is any, behind.
    ///
    /// # Errors
    /// The event's arguments are not JSON values, or do not fit to its attachments.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let mut out = Vec::with_capacity(128 + self.event.args.json.len());
        write_array(&mut out, if self.meta.is_some() { 4 } else { 3 });
        match &self.uid {
            Some(uid) => write_str(&mut out, uid),
            None => write_nil(&mut out),
        }
        write_packet(&mut out, &self.namespace, &self.event)?;
        write_options(&mut out, &self.rooms, &self.except, self.flags);
        if let Some(meta) = &self.meta {
            meta.write(&mut out);
        }
        Ok(out)
    }
}

/// What stands before and behind the one argument of a broadcast that is put together elsewhere: head, argument, tail
/// and [`Meta`] (or any other value) make a broadcast, if each of the two is one MessagePack value.
pub fn broadcast_parts(uid: &str, namespace: &str, event: &str, rooms: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let mut head = Vec::with_capacity(64);
    write_array(&mut head, 4);
    write_str(&mut head, uid);
    write_packet_head(&mut head);
    write_array(&mut head, 2);
    write_str(&mut head, event);
    let mut tail = Vec::with_capacity(64);
    write_packet_tail(&mut tail, namespace);
    write_options(&mut tail, rooms, &[], Flags::default());
    (head, tail)
}

impl Meta<'_> {
    /// Appends it as MessagePack, without what is `None`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Self { seq, epoch, kind, json, control } = *self;
        let numbers = [("s", seq), ("k", kind.map(u64::from))];
        let texts = [("e", epoch), ("j", json), ("c", control)];
        write_map(
            out,
            numbers.iter().flat_map(|(_, value)| value).count() + texts.iter().flat_map(|(_, value)| value).count(),
        );
        for (key, value) in numbers {
            if let Some(value) = value {
                write_str(out, key);
                write_u64(out, value);
            }
        }
        for (key, value) in texts {
            if let Some(value) = value {
                write_str(out, key);
                write_str(out, value);
            }
        }
    }
}

impl<'a> Meta<'a> {
    /// `None` if it is no map.
    fn read(mut reader: Reader<'a>) -> Result<Option<Self>, FormatError> {
        let mut meta = Self::default();
        let Value::Map(count) = reader.value()? else { return Ok(None) };
        for _ in 0..count {
            let mut key = reader;
            reader.skip()?;
            let mut value = reader;
            reader.skip()?;
            let (Value::Str([key]), value) = (key.value()?, value.value()?) else { continue };
            let text = || match value {
                Value::Str(text) => str::from_utf8(text).ok(),
                _ => None,
            };
            match key {
                b's' => meta.seq = unsigned(value),
                b'e' => meta.epoch = text(),
                b'k' => meta.kind = unsigned(value).and_then(|kind| u8::try_from(kind).ok()),
                b'j' => meta.json = text(),
                b'c' => meta.control = text(),
                _ => {}
            }
        }
        Ok(Some(meta))
    }
}

fn check_size(payload: &[u8]) -> Result<(), FormatError> {
    if payload.len() > MAX_MESSAGE_BYTES {
        return Err(FormatError::TooLarge { max_bytes: MAX_MESSAGE_BYTES });
    }
    Ok(())
}

const EVENT: u64 = 2;

/// Namespace and event of a packet, with these arguments if there are any, and not its own.
fn read_packet<'a>(
    mut reader: Reader<'a>,
    args_json: Option<&'a str>,
) -> Result<(Cow<'a, str>, Event<'a>), FormatError> {
    let [kind, data, namespace] = reader.fields(["type", "data", "nsp"], "packet: a map")?;
    // Others come from servers with another format, and break Node's clients.
    if scalar(kind)?.and_then(unsigned) != Some(EVENT) {
        return Err(FormatError::Expected("packet.type: 2"));
    }
    let namespace = match namespace {
        None => Cow::Borrowed("/"),
        Some(mut namespace) => match namespace.value()? {
            Value::Str(name) => name_text(name)?,
            _ => return Err(FormatError::Expected("packet.nsp: a string")),
        },
    };
    let event = read_event(data, args_json, "packet.data: an array that begins with the name of an event")?;
    Ok((namespace, event))
}

/// A name and arguments, or the name and these arguments.
fn read_event<'a>(
    data: Option<Reader<'a>>,
    args_json: Option<&'a str>,
    expected: &'static str,
) -> Result<Event<'a>, FormatError> {
    let mut reader = data.ok_or(FormatError::Expected(expected))?;
    let count = reader.array_of(expected)?;
    if count == 0 {
        return Err(FormatError::Expected(expected));
    }
    let name = match reader.value()? {
        Value::Str(name) => name_text(name)?,
        _ => return Err(FormatError::Expected(expected)),
    };
    match args_json {
        Some(json) => Ok(Event::new(name, json)),
        None => Ok(Event { name, args: read_values(&mut reader, count - 1)? }),
    }
}

fn read_values<'a>(reader: &mut Reader<'a>, count: usize) -> Result<Values<'a>, FormatError> {
    let mut out = JsonWriter::new(MAX_JSON_BYTES);
    for _ in 0..count {
        out.value(reader)?;
    }
    let (json, attachments) = out.finish()?;
    Ok(Values { json: Cow::Owned(json), attachments: attachments.into_iter().map(Cow::Borrowed).collect() })
}

/// The options of a broadcast.
struct Options<'a> {
    rooms: Vec<Cow<'a, str>>,
    except: Vec<Cow<'a, str>>,
    flags: Flags,
}

impl<'a> Options<'a> {
    fn read(mut reader: Reader<'a>) -> Result<Self, FormatError> {
        let [rooms, except, flags] = reader.fields(["rooms", "except", "flags"], "opts: a map")?;
        Ok(Self {
            rooms: read_names(rooms, "opts.rooms: an array of strings or numbers")?,
            except: read_names(except, "opts.except: an array of strings or numbers")?,
            flags: match flags {
                Some(flags) => Flags::read(flags)?,
                None => Flags::default(),
            },
        })
    }
}

impl Flags {
    fn read(mut reader: Reader<'_>) -> Result<Self, FormatError> {
        // As in JavaScript, anything has fields: that of null is `{}` to the adapter, others have none of these.
        let Value::Map(_) = { reader }.value()? else { return Ok(Self::default()) };
        let [volatile, timeout] = reader.fields(["volatile", "timeout"], "")?;
        Ok(Self {
            volatile: scalar(volatile)? == Some(Value::Bool(true)),
            timeout_ms: scalar(timeout)?.and_then(unsigned),
        })
    }
}

/// Names of rooms or sockets: none if the array is missing or null.
///
/// Nothing is left out: without the one room that it names, a message would be for everybody.
fn read_names<'a>(names: Option<Reader<'a>>, expected: &'static str) -> Result<Vec<Cow<'a, str>>, FormatError> {
    let Some(mut reader) = names else { return Ok(Vec::new()) };
    let count = match reader.value()? {
        Value::Nil => return Ok(Vec::new()),
        Value::Array(count) if count > MAX_NAMES => return Err(FormatError::TooMany(expected)),
        Value::Array(count) => count,
        _ => return Err(FormatError::Expected(expected)),
    };
    (0..count).map(|_| name(reader.value()?, expected)).collect()
}

/// The value of a field, if there is one.
fn scalar<'a>(field: Option<Reader<'a>>) -> Result<Option<Value<'a>>, FormatError> {
    field.map(|mut reader| reader.value()).transpose()
}

/// A name, which in JavaScript may be a number.
fn name<'a>(value: Value<'a>, expected: &'static str) -> Result<Cow<'a, str>, FormatError> {
    match value {
        Value::Str(text) => name_text(text),
        Value::Unsigned(number) => Ok(number.to_string().into()),
        Value::Negative(number) => Ok(number.to_string().into()),
        Value::Float(number) if number.is_finite() => {
            let mut text = String::new();
            json::write_f64(&mut text, number);
            Ok(text.into())
        }
        _ => Err(FormatError::Expected(expected)),
    }
}

fn own(name: Cow<'_, str>) -> String {
    name.into_owned()
}

fn name_text(text: &[u8]) -> Result<Cow<'_, str>, FormatError> {
    if text.len() > MAX_NAME_BYTES {
        return Err(FormatError::TooLarge { max_bytes: MAX_NAME_BYTES });
    }
    Ok(String::from_utf8_lossy(text))
}

/// A whole number that is not negative, in whichever form it was written.
fn unsigned(value: Value<'_>) -> Option<u64> {
    // Above it not every whole number is a float.
    const MAX_EXACT: f64 = 9_007_199_254_740_991.0;
    match value {
        Value::Unsigned(number) => Some(number),
        Value::Float(number) if number.fract() == 0.0 && (0.0..=MAX_EXACT).contains(&number) => Some(number as u64),
        _ => None,
    }
}

fn write_packet(out: &mut Vec<u8>, namespace: &str, event: &Event<'_>) -> Result<(), FormatError> {
    write_packet_head(out);
    let mut data = Vec::with_capacity(event.args.json.len());
    let count = write_values(&mut data, &event.args.json, &event.args.attachments)?;
    write_array(out, 1 + count);
    write_str(out, &event.name);
    out.extend_from_slice(&data);
    write_packet_tail(out, namespace);
    Ok(())
}

fn write_packet_head(out: &mut Vec<u8>) {
    write_map(out, 3);
    write_str(out, "type");
    write_u64(out, EVENT);
    write_str(out, "data");
}

fn write_packet_tail(out: &mut Vec<u8>, namespace: &str) {
    write_str(out, "nsp");
    write_str(out, namespace);
}

fn write_options<R: AsRef<str>>(out: &mut Vec<u8>, rooms: &[R], except: &[R], flags: Flags) {
    write_map(out, 3);
    for (key, names) in [("rooms", rooms), ("except", except)] {
        write_str(out, key);
        write_array(out, names.len());
        for name in names {
            write_str(out, name.as_ref());
        }
    }
    write_str(out, "flags");
    write_map(out, usize::from(flags.volatile) + usize::from(flags.timeout_ms.is_some()));
    if flags.volatile {
        write_str(out, "volatile");
        write_bool(out, true);
    }
    if let Some(timeout_ms) = flags.timeout_ms {
        write_str(out, "timeout");
        write_u64(out, timeout_ms);
    }
}
