//! The format of `python-socketio` from 5.14 on and of Flask-SocketIO: one JSON object on one channel for all namespaces.
//!
//! Every server gets every message and applies it to its own sockets only. Older versions send pickles, which run
//! code when they are read: they are told apart and refused. Where versions differ in how they write an event's
//! arguments, each is read as the newest server reads it.
//!
//! Start at [`Message::decode`].

#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::adapter::{
    Event, FormatError, MAX_ATTACHMENTS, MAX_DEPTH, MAX_JSON_BYTES, MAX_MESSAGE_BYTES, MAX_NAME_BYTES, MAX_NAMES,
    Values,
    json::{self, Number, Reader, Token},
};

/// A message to all servers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// The host that sent it, if it says so. It ignores its own messages. (A callback names its receiver instead.)
    pub host_id: Option<Cow<'a, str>>,
    /// The namespace; `/` if the message names none.
    pub namespace: Cow<'a, str>,
    /// What to do.
    pub method: Method<'a>,
}

/// What a server is to do with its own sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Method<'a> {
    /// Emit an event.
    Emit(Emit<'a>),
    /// Run the callback that the host named by [`Message::host_id`] keeps.
    Callback {
        /// For whom it was made: a socket or a room, as JSON text.
        sid: &'a str,
        /// Its number, as JSON text.
        id: &'a str,
        /// The client's answer.
        args_json: &'a str,
    },
    /// Disconnect a socket.
    Disconnect {
        /// Which.
        sid: Cow<'a, str>,
    },
    /// Let a socket join a room.
    EnterRoom {
        /// Which.
        sid: Cow<'a, str>,
        /// What it joins.
        room: Cow<'a, str>,
    },
    /// Let a socket leave a room.
    LeaveRoom {
        /// Which.
        sid: Cow<'a, str>,
        /// What it leaves.
        room: Cow<'a, str>,
    },
    /// Let all leave a room.
    CloseRoom {
        /// Which.
        room: Cow<'a, str>,
    },
}

/// An event, and whom it is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Emit<'a> {
    /// The event.
    pub event: Event<'a>,
    /// For the members of any of these rooms, of which sockets have one of their own. `None`: for all of the namespace.
    pub rooms: Option<Vec<Cow<'a, str>>>,
    /// But not for these sockets.
    pub skip_sids: Vec<Cow<'a, str>>,
    /// Who awaits the clients' acks.
    pub callback: Option<Callback>,
}

/// Where a client's ack is awaited. All parts but the first are JSON text, and go back as they came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Callback {
    host_id: String,
    sid: String,
    namespace: String,
    id: String,
}

/// Why a message is not understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PythonError {
    /// It is a pickle: python-socketio before 5.14.
    Pickle,
    /// It is not JSON.
    NotJson,
    /// It is JSON, but no object.
    NotAnObject,
    /// It has a method that servers do not know.
    UnknownMethod,
    /// Something is missing, or of another type.
    Expected(&'static str),
    /// It exceeds a limit: of bytes, depth, names or attachments.
    TooLarge,
}

impl fmt::Display for PythonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pickle => f.write_str("a pickle, which is not read; python-socketio 5.15.1 or later sends JSON"),
            Self::NotJson => f.write_str("not JSON"),
            Self::NotAnObject => f.write_str("not a JSON object"),
            Self::UnknownMethod => f.write_str("an unknown method"),
            Self::Expected(what) => write!(f, "expected {what}"),
            Self::TooLarge => f.write_str("too large"),
        }
    }
}

impl std::error::Error for PythonError {}

impl From<FormatError> for PythonError {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Expected(what) => Self::Expected(what),
            FormatError::BadPlaceholder => Self::Expected("data: placeholders with the number of an attachment"),
            FormatError::TooDeep
            | FormatError::TooLarge { .. }
            | FormatError::TooMany(_)
            | FormatError::TooManyAttachments => Self::TooLarge,
            _ => Self::NotJson,
        }
    }
}

impl<'a> Message<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// It is none, or exceeds a limit.
    pub fn decode(payload: &'a [u8]) -> Result<Self, PythonError> {
        const NAMES: [&str; 12] = [
            "method",
            "host_id",
            "namespace",
            "event",
            "data",
            "binary",
            "room",
            "skip_sid",
            "callback",
            "sid",
            "id",
            "args",
        ];
        if payload.len() > MAX_MESSAGE_BYTES {
            return Err(PythonError::TooLarge);
        }
        if let [0x80, 0..=0x0f, ..] = payload {
            return Err(PythonError::Pickle);
        }
        let text = str::from_utf8(payload).map_err(|_| PythonError::NotJson)?;
        let mut reader = Reader::new(text);
        if reader.token()? != Token::Object {
            // Whatever it is: it must be JSON first.
            let mut reader = Reader::new(text);
            reader.value(MAX_DEPTH, None)?;
            reader.finish()?;
            return Err(PythonError::NotAnObject);
        }
        // Around an argument there are two arrays at most: of the arguments, and of these and their attachments.
        let fields = json::fields(&mut reader, NAMES, MAX_DEPTH + 2)?;
        reader.finish()?;
        let [method, host_id, namespace, event, data, binary, room, skip_sid, callback, sid, id, args] = fields;
        let host_id = optional_name(host_id, "host_id: a string")?;
        let namespace = optional_name(namespace, "namespace: a string")?.unwrap_or(Cow::Borrowed("/"));
        let room_name = || name(room, "room: a string or number");
        let sid_name = || name(sid, "sid: a string");
        let method = match &*string(method, "method: a string")? {
            "emit" => Method::Emit(Emit {
                event: Event { name: string(event, "event: a string")?, args: read_args(data, binary)? },
                rooms: names(room, "room: a string or an array of strings")?,
                skip_sids: names(skip_sid, "skip_sid: a string or an array of strings")?.unwrap_or_default(),
                callback: Callback::read(callback, host_id.as_deref())?,
            }),
            "callback" => Method::Callback {
                sid: scalar(sid, "sid: a string or number")?,
                id: scalar(id, "id: a number")?,
                args_json: array(args, "args: an array")?,
            },
            "disconnect" => Method::Disconnect { sid: sid_name()? },
            "enter_room" => Method::EnterRoom { sid: sid_name()?, room: room_name()? },
            "leave_room" => Method::LeaveRoom { sid: sid_name()?, room: room_name()? },
            "close_room" => Method::CloseRoom { room: room_name()? },
            _ => return Err(PythonError::UnknownMethod),
        };
        Ok(Self { host_id, namespace, method })
    }
}

impl Callback {
    /// None is awaited by a host without a name. As Python does, anything else than three values is ignored.
    fn read(callback: Option<&str>, host_id: Option<&str>) -> Result<Option<Self>, PythonError> {
        const EXPECTED: &str = "callback: an array of room, namespace and number";
        let (Some(callback), Some(host_id)) = (present(callback), host_id) else { return Ok(None) };
        let mut parts = elements(array(Some(callback), EXPECTED)?);
        let (Some(sid), Some(namespace), Some(id), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Ok(None);
        };
        Ok(Some(Self {
            host_id: host_id.to_owned(),
            sid: scalar(Some(sid), EXPECTED)?.to_owned(),
            namespace: scalar(Some(namespace), EXPECTED)?.to_owned(),
            id: scalar(Some(id), EXPECTED)?.to_owned(),
        }))
    }

    /// The message that tells it of one client's ack, as Python writes it. `args_json` holds JSON values with commas
    /// between them. There is no such message for an ack with attachments: Python fails to send it.
    ///
    /// # Errors
    /// `args_json` is something else.
    pub fn answer(&self, args_json: &str) -> Result<String, FormatError> {
        let mut out = String::with_capacity(160 + args_json.len());
        out.push_str("{\"method\": \"callback\", \"host_id\": ");
        json::write_ascii_string(&mut out, &self.host_id);
        for (key, value) in [("sid", &self.sid), ("namespace", &self.namespace), ("id", &self.id)] {
            out.push_str(", \"");
            out.push_str(key);
            out.push_str("\": ");
            json::write_python(&mut out, value)?;
        }
        out.push_str(", \"args\": [");
        json::write_python(&mut out, args_json)?;
        out.push_str("]}");
        Ok(out)
    }
}

/// What clients get, as the newest server reads what any version sends.
fn read_args<'a>(data: Option<&'a str>, binary: Option<&str>) -> Result<Values<'a>, PythonError> {
    const EXPECTED: &str = "data: an array of arguments and base64 texts";
    let data = data.ok_or(PythonError::Expected("data"))?;
    let mut attachments = Vec::new();
    let (args, count) = match binary {
        None | Some("null" | "false") => (data, None),
        Some("true") => {
            let mut parts = elements(array(Some(data), EXPECTED)?);
            let args = parts.next().ok_or(PythonError::Expected(EXPECTED))?;
            for part in parts {
                if attachments.len() >= MAX_ATTACHMENTS {
                    return Err(PythonError::TooLarge);
                }
                let Token::String(text) = Reader::new(part).token()? else {
                    return Err(PythonError::Expected(EXPECTED));
                };
                let bytes = STANDARD.decode(&*text.unescape()).map_err(|_| PythonError::Expected(EXPECTED))?;
                attachments.push(Cow::Owned(bytes));
            }
            (args, Some(attachments.len()))
        }
        Some(_) => return Err(PythonError::Expected("binary: true or false")),
    };
    // Up to 5.15.0 a single argument stands without an array.
    let args = if args.starts_with('[') { array(Some(args), EXPECTED)? } else { args };
    if args.len() > MAX_JSON_BYTES {
        return Err(PythonError::TooLarge);
    }
    let mut reader = Reader::new(args);
    let mut is_first = true;
    while reader.next_listed(&mut is_first)? {
        reader.value(MAX_DEPTH, count)?;
    }
    // `None` alone is how Python says that there are no arguments.
    let args = if args == "null" { "" } else { args };
    Ok(Values { json: Cow::Borrowed(args), attachments })
}

/// What Python calls `None` is as if it were not there.
fn present(field: Option<&str>) -> Option<&str> {
    field.filter(|text| *text != "null")
}

fn string<'a>(field: Option<&'a str>, expected: &'static str) -> Result<Cow<'a, str>, PythonError> {
    match Reader::new(field.ok_or(PythonError::Expected(expected))?).token()? {
        Token::String(text) => bounded(text.unescape()),
        _ => Err(PythonError::Expected(expected)),
    }
}

fn optional_name<'a>(field: Option<&'a str>, expected: &'static str) -> Result<Option<Cow<'a, str>>, PythonError> {
    present(field).map(|field| string(Some(field), expected)).transpose()
}

/// A name, which in Python may be a number.
fn name<'a>(field: Option<&'a str>, expected: &'static str) -> Result<Cow<'a, str>, PythonError> {
    let text = field.ok_or(PythonError::Expected(expected))?;
    match Reader::new(text).token()? {
        Token::Number(number) if !matches!(Number::parse(number), Number::Float(_)) => bounded(Cow::Borrowed(number)),
        _ => string(field, expected),
    }
}

fn bounded(name: Cow<'_, str>) -> Result<Cow<'_, str>, PythonError> {
    if name.len() > MAX_NAME_BYTES { Err(PythonError::TooLarge) } else { Ok(name) }
}

/// One name or an array of them.
fn names<'a>(field: Option<&'a str>, expected: &'static str) -> Result<Option<Vec<Cow<'a, str>>>, PythonError> {
    let Some(text) = present(field) else { return Ok(None) };
    if !text.starts_with('[') {
        return Ok(Some(vec![name(Some(text), expected)?]));
    }
    let mut names = Vec::new();
    for element in elements(array(Some(text), expected)?) {
        if names.len() >= MAX_NAMES {
            return Err(PythonError::TooLarge);
        }
        names.push(name(Some(element), expected)?);
    }
    Ok(Some(names))
}

/// The text of a string or number.
fn scalar<'a>(field: Option<&'a str>, expected: &'static str) -> Result<&'a str, PythonError> {
    let text = field.ok_or(PythonError::Expected(expected))?;
    match Reader::new(text).token()? {
        Token::String(_) | Token::Number(_) if text.len() > MAX_NAME_BYTES => Err(PythonError::TooLarge),
        Token::String(_) | Token::Number(_) => Ok(text),
        _ => Err(PythonError::Expected(expected)),
    }
}

/// What is between an array's brackets.
fn array<'a>(field: Option<&'a str>, expected: &'static str) -> Result<&'a str, PythonError> {
    let inner = field.and_then(|text| text.strip_prefix('[')?.strip_suffix(']'));
    inner.map(str::trim_ascii).ok_or(PythonError::Expected(expected))
}

/// The texts of values with commas between them, which have been checked.
fn elements(list: &str) -> impl Iterator<Item = &str> {
    let mut reader = Reader::new(list);
    let mut is_first = true;
    std::iter::from_fn(move || {
        let is_there = reader.next_listed(&mut is_first).unwrap_or(false);
        is_there.then(|| reader.value(MAX_DEPTH + 2, None).ok()).flatten()
    })
}
