//! What servers answer to requests.

use crate::adapter::{
    FormatError, Values,
    json::ObjectWriter,
    msgpack::{write_map, write_str, write_u64, write_values},
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

/// A socket, as other servers get to know it.
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

impl RemoteSocket {
    fn write(&self, out: &mut ObjectWriter) -> Result<(), FormatError> {
        out.string("id", &self.id);
        out.value("handshake", &self.handshake)?;
        out.strings("rooms", &self.rooms);
        out.value("data", &self.data)
    }
}
