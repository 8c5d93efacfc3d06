//! What one server asks of all others.

use std::borrow::Cow;

use crate::adapter::{
    Event, FormatError,
    classic::{Broadcast, Options, check_size, name, own, read_event, read_names, read_packet, scalar, unsigned},
    msgpack::{Reader, Value, json_to_msgpack},
};

/// A request. It is for all servers, the sender among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The server that asks. Emitters leave it out, or are all called `emitter`.
    pub uid: Option<String>,
    /// What it asks for.
    pub ask: Ask,
}

/// What is asked for. Where there is a request id, a [`Response`](super::Response) with it is awaited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// 0: the ids of the sockets in any of these rooms, or of all. Only versions before 8 send it.
    Sockets {
        /// Names the request.
        request_id: String,
        /// The rooms.
        rooms: Vec<String>,
    },
    /// 1: the names of all rooms, which include the sockets' own.
    Rooms {
        /// Names the request.
        request_id: String,
    },
    /// 2: that sockets join rooms.
    Join {
        /// Who joins.
        sockets: Sockets,
        /// What they join.
        rooms: Vec<String>,
    },
    /// 3: that sockets leave rooms.
    Leave {
        /// Who leaves.
        sockets: Sockets,
        /// What they leave.
        rooms: Vec<String>,
    },
    /// 4: that sockets are disconnected.
    Disconnect {
        /// Who is.
        sockets: Sockets,
        /// Whether the connection is closed too, with all its namespaces.
        close: bool,
    },
    /// 5: what is known of sockets.
    Fetch {
        /// Names the request.
        request_id: String,
        /// Of which.
        sockets: Selection,
    },
    /// 6: that an event is given to the other servers' applications.
    Emit {
        /// Names the request, if an answer is awaited.
        request_id: Option<String>,
        /// The event.
        event: Event<'static>,
    },
    /// 7: a broadcast whose acks the sender awaits: first their number, then each of them.
    Broadcast {
        /// Names the request.
        request_id: String,
        /// The broadcast, without uid and meta.
        broadcast: Box<Broadcast<'static>>,
    },
}

/// Whom a request is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sockets {
    /// Those in rooms.
    In(Selection),
    /// One socket, as versions before 7 ask for it. The server that has it answers [`Reply::Done`](super::Reply::Done).
    One {
        /// Its id.
        sid: String,
        /// Names the request.
        request_id: Option<String>,
    },
}

/// Sockets by their rooms.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// Those in any of these rooms; all of the namespace if there are none.
    pub rooms: Vec<String>,
    /// But not those in any of these.
    pub except: Vec<String>,
}

impl Request {
    /// Reads a request, as JSON or MessagePack.
    ///
    /// # Errors
    /// It is no request, exceeds a limit, or would break a Node server.
    pub fn decode(payload: &[u8]) -> Result<Self, FormatError> {
        check_size(payload)?;
        // Told apart as the adapter does. One reader for both: requests are rare.
        let mut transcoded = Vec::new();
        let payload = if payload.first() == Some(&b'{') {
            json_to_msgpack(&String::from_utf8_lossy(payload), &mut transcoded)?;
            &transcoded
        } else {
            payload
        };
        let names = ["uid", "requestId", "type", "rooms", "opts", "sid", "room", "close", "data", "packet"];
        let mut reader = Reader::new(payload);
        let fields = reader.fields(names, "a map")?;
        reader.finish()?;
        Self::read(fields)
    }

    fn read(fields: [Option<Reader<'_>>; 10]) -> Result<Self, FormatError> {
        let [uid, request_id, kind, rooms, options, sid, room, close, data, packet] = fields;
        let uid = match scalar(uid)? {
            Some(uid @ Value::Str(_)) => Some(own(name(uid, "uid: a string")?)),
            _ => None,
        };
        let request_id = read_id(request_id)?;
        let awaited = || request_id.clone().ok_or(FormatError::Expected("requestId: a string"));
        let sockets = || {
            Ok(match selection(options)? {
                Some(selection) => Sockets::In(selection),
                None => Sockets::One { sid: required(sid, "opts, or sid: a string")?, request_id: request_id.clone() },
            })
        };
        let rooms = || read_names(rooms, "rooms: an array of strings or numbers").map(owned);
        let joined = |sockets: &Sockets| match sockets {
            Sockets::In(_) => {
                let rooms = rooms()?;
                if rooms.is_empty() {
                    Err(FormatError::Expected("rooms: an array of strings or numbers"))
                } else {
                    Ok(rooms)
                }
            }
            Sockets::One { .. } => Ok(vec![required(room, "room: a string or number")?]),
        };
        let ask = match scalar(kind)?.and_then(unsigned) {
            Some(0) => Ask::Sockets { request_id: awaited()?, rooms: rooms()? },
            Some(1) => Ask::Rooms { request_id: awaited()? },
            Some(2) => {
                let sockets = sockets()?;
                Ask::Join { rooms: joined(&sockets)?, sockets }
            }
            Some(3) => {
                let sockets = sockets()?;
                Ask::Leave { rooms: joined(&sockets)?, sockets }
            }
            Some(4) => {
                let close = scalar(close)?;
                Ask::Disconnect { sockets: sockets()?, close: close == Some(Value::Bool(true)) }
            }
            Some(5) => {
                let sockets = selection(options)?.ok_or(FormatError::Expected("opts: a map"))?;
                Ask::Fetch { request_id: awaited()?, sockets }
            }
            Some(6) => {
                let event = read_event(data, None, "data: an array that begins with the name of an event")?;
                Ask::Emit { event: event.into_owned(), request_id }
            }
            Some(7) => {
                let (namespace, event) = read_packet(packet.ok_or(FormatError::Expected("packet: a map"))?, None)?;
                let Options { rooms, except, flags } =
                    Options::read(options.ok_or(FormatError::Expected("opts: a map"))?)?;
                let cows = |names: Vec<Cow<'_, str>>| owned(names).into_iter().map(Cow::Owned).collect();
                Ask::Broadcast {
                    request_id: awaited()?,
                    broadcast: Box::new(Broadcast {
                        uid: None,
                        namespace: own(namespace).into(),
                        event: event.into_owned(),
                        rooms: cows(rooms),
                        except: cows(except),
                        flags,
                        meta: None,
                    }),
                }
            }
            _ => return Err(FormatError::Expected("type: from 0 to 7")),
        };
        Ok(Self { uid, ask })
    }
}

/// `None` if there are no options.
fn selection(options: Option<Reader<'_>>) -> Result<Option<Selection>, FormatError> {
    let Some(mut options) = options else { return Ok(None) };
    let mut value = options;
    if value.value()? == Value::Nil {
        return Ok(None);
    }
    let [rooms, except] = options.fields(["rooms", "except"], "opts: a map")?;
    Ok(Some(Selection {
        rooms: owned(read_names(rooms, "opts.rooms: an array of strings or numbers")?),
        except: owned(read_names(except, "opts.except: an array of strings or numbers")?),
    }))
}

/// `None` if it is missing or null.
fn read_id(id: Option<Reader<'_>>) -> Result<Option<String>, FormatError> {
    match scalar(id)? {
        None | Some(Value::Nil) => Ok(None),
        Some(id) => name(id, "requestId: a string").map(|id| Some(own(id))),
    }
}

fn required(value: Option<Reader<'_>>, expected: &'static str) -> Result<String, FormatError> {
    name(value.ok_or(FormatError::Expected(expected))?.value()?, expected).map(own)
}

fn owned(names: Vec<Cow<'_, str>>) -> Vec<String> {
    names.into_iter().map(own).collect()
}
