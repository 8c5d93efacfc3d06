//! What servers answer to requests.

use crate::adapter::{
    FormatError, MAX_JSON_BYTES, MAX_MESSAGE_BYTES, MAX_NAMES, Values,
    classic::{MAX_LISTED, decode_fields, list, name, own, read_one, request::read_id, scalar, unsigned},
    json::ObjectWriter,
    msgpack::{JsonWriter, Reader, Value, write_map, write_str, write_u64, write_values},
};

/// A response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// The request's.
    pub request_id: String,
    /// What is answered.
    pub reply: Reply,
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// To 0: ids of sockets. To 5 too, if there are none: the two answers are the same then.
    Sockets(Vec<String>),
    /// To 1: names of rooms.
    Rooms(Vec<String>),
    /// To 2, 3 and 4 about one socket: it is done. Of anything else that holds no answer, too.
    Done,
    /// To 5: what is known of sockets.
    Fetched(Vec<RemoteSocket>),
    /// 6: an application's answer, one value.
    Emitted(Values<'static>),
    /// 8: how many clients are asked for an ack.
    ClientCount(u64),
    /// 9: a client's ack, its first value.
    Ack(Values<'static>),
}

/// A socket of another server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteSocket {
    /// Its id.
    pub id: String,
    /// Its handshake, as JSON text.
    pub handshake: String,
    /// Its rooms, its own among them.
    pub rooms: Vec<String>,
    /// What the application keeps with it, as JSON text.
    pub data: String,
}

impl Response {
    /// Reads a response, as JSON or MessagePack.
    ///
    /// # Errors
    /// It is no response, or exceeds a limit.
    pub fn decode(payload: &[u8]) -> Result<Self, FormatError> {
        const NAMES: [&str; 7] = ["requestId", "type", "sockets", "rooms", "data", "clientCount", "packet"];
        decode_fields(payload, NAMES, Self::read)
    }

    fn read(fields: [Option<Reader<'_>>; 7]) -> Result<Self, FormatError> {
        let [request_id, kind, sockets, rooms, data, client_count, packet] = fields;
        let request_id = read_id(request_id)?.ok_or(FormatError::Expected("requestId: a string"))?;
        let reply = match (scalar(kind)?.and_then(unsigned), sockets, rooms) {
            (Some(6), ..) => Reply::Emitted(read_one(data)?.into_owned()),
            (Some(8), ..) => {
                let count = scalar(client_count)?.and_then(unsigned);
                Reply::ClientCount(count.ok_or(FormatError::Expected("clientCount: a number"))?)
            }
            (Some(9), ..) => Reply::Ack(read_one(packet)?.into_owned()),
            (_, Some(sockets), _) => read_sockets(sockets)?,
            (_, None, Some(rooms)) => {
                Reply::Rooms(list(Some(rooms), MAX_LISTED, ROOMS, |reader| name(reader.value()?, ROOMS).map(own))?)
            }
            (_, None, None) => Reply::Done,
        };
        Ok(Self { request_id, reply })
    }

    /// Writes a response as the adapter does: JSON, or MessagePack for clients' acks and where there are attachments.
    ///
    /// # Errors
    /// A value is not one JSON value, or does not fit to its attachments.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let mut out = ObjectWriter::new();
        let kind = match &self.reply {
            Reply::Emitted(data) if !data.attachments.is_empty() => return self.encode_value(6, "data", data),
            Reply::Ack(packet) => return self.encode_value(9, "packet", packet),
            Reply::Emitted(_) => Some(6),
            Reply::ClientCount(_) => Some(8),
            _ => None,
        };
        if let Some(kind) = kind {
            out.number("type", kind);
        }
        out.string("requestId", &self.request_id);
        match &self.reply {
            Reply::Sockets(sids) => out.strings("sockets", sids),
            Reply::Rooms(rooms) => out.strings("rooms", rooms),
            Reply::Done | Reply::Ack(_) => {}
            Reply::Fetched(sockets) => out.array("sockets", sockets, RemoteSocket::write)?,
            Reply::Emitted(data) => out.value("data", &data.json)?,
            Reply::ClientCount(count) => out.number("clientCount", *count),
        }
        Ok(out.finish().into_bytes())
    }

    fn encode_value(&self, kind: u64, key: &str, values: &Values<'_>) -> Result<Vec<u8>, FormatError> {
        let mut out = Vec::with_capacity(64 + values.json.len());
        write_map(&mut out, 3);
        write_str(&mut out, "type");
        write_u64(&mut out, kind);
        write_str(&mut out, "requestId");
        write_str(&mut out, &self.request_id);
        write_str(&mut out, key);
        match write_values(&mut out, &values.json, &values.attachments)? {
            1 => Ok(out),
            _ => Err(FormatError::Expected("one value")),
        }
    }
}

const ROOMS: &str = "rooms: an array of strings or numbers";
const SOCKETS: &str = "sockets: an array of ids or of maps with ids";

fn read_sockets(sockets: Reader<'_>) -> Result<Reply, FormatError> {
    let mut elements = sockets;
    let is_fetched = matches!(elements.value()?, Value::Array(1..)) && matches!(elements.value()?, Value::Map(_));
    if !is_fetched {
        let sids = list(Some(sockets), MAX_LISTED, SOCKETS, |reader| name(reader.value()?, SOCKETS).map(own))?;
        return Ok(Reply::Sockets(sids));
    }
    // What is kept of them all, in bytes.
    let mut left = MAX_MESSAGE_BYTES;
    let fetched = list(Some(sockets), MAX_LISTED, SOCKETS, |reader| RemoteSocket::read(reader, &mut left))?;
    Ok(Reply::Fetched(fetched))
}

impl RemoteSocket {
    fn read(reader: &mut Reader<'_>, left: &mut usize) -> Result<Self, FormatError> {
        const SOCKET_ROOMS: &str = "sockets[].rooms: an array of strings or numbers";
        let [id, handshake, rooms, data] = reader.fields(["id", "handshake", "rooms", "data"], SOCKETS)?;
        let id = name(id.ok_or(FormatError::Expected(SOCKETS))?.value()?, SOCKETS).map(own)?;
        let rooms = list(rooms, MAX_NAMES, SOCKET_ROOMS, |reader| name(reader.value()?, SOCKET_ROOMS).map(own))?;
        Ok(Self { id, handshake: read_text(handshake, left)?, rooms, data: read_text(data, left)? })
    }

    fn write(&self, out: &mut ObjectWriter) -> Result<(), FormatError> {
        out.string("id", &self.id);
        out.value("handshake", &self.handshake)?;
        out.strings("rooms", &self.rooms);
        out.value("data", &self.data)
    }
}

/// A value's JSON text; that of an empty object if it is missing.
fn read_text(value: Option<Reader<'_>>, left: &mut usize) -> Result<String, FormatError> {
    let Some(mut reader) = value else { return Ok("{}".to_owned()) };
    let mut out = JsonWriter::new(MAX_JSON_BYTES.min(*left));
    out.value(&mut reader)?;
    let (json, attachments) = out.finish()?;
    if !attachments.is_empty() {
        return Err(FormatError::Expected("sockets without attachments"));
    }
    *left = left.saturating_sub(json.len());
    Ok(json)
}
