//! The formats in which other Socket.IO servers and emitters talk over Redis.
//!
//! [`classic`] is what `@socket.io/redis-adapter` and `@socket.io/redis-emitter` speak, and what our instances speak
//! among themselves: MessagePack and JSON on channels per namespace and room. [`python`] is what `python-socketio` and
//! Flask-SocketIO publish: JSON on one channel. [`msgpack`] reads and writes MessagePack as `notepack.io` does.
//!
//! All of it is bytes to values and back: nothing here does I/O, or knows rooms, sockets or who may do what. Whatever
//! comes in was written by somebody else: it is bounded, refused with a [`FormatError`], and never trusted to hold what
//! it announces. What goes out never harms a Node server, which ends its process on input that it cannot read.

pub mod classic;
mod json;
pub mod msgpack;
pub mod python;
pub mod rooms;
#[cfg(test)]
mod test_support;

use std::{borrow::Cow, fmt};

/// Bytes of one message. What is longer is refused unread.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of an event's or an answer's arguments as JSON text.
pub const MAX_JSON_BYTES: usize = 1024 * 1024;
/// Binary attachments of one event, as many as clients may send.
pub const MAX_ATTACHMENTS: usize = 10;
/// Depth of arrays and objects within one argument, whose outermost brackets count as 1.
pub const MAX_DEPTH: usize = 32;
/// Rooms, excepted rooms or socket ids of one message, each.
pub const MAX_NAMES: usize = 1000;
/// Bytes of a name: of an event, a room, a namespace, a socket, a server or a request.
pub const MAX_NAME_BYTES: usize = 1024;

/// Why a message is not understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FormatError {
    /// It ends within a value, or announces more than it holds.
    Truncated,
    /// Something follows its one value.
    Trailing,
    /// It holds the byte that MessagePack never uses.
    UnusedByte,
    /// It is not JSON.
    NotJson,
    /// Arrays and objects are nested deeper than they may be.
    TooDeep,
    /// It is longer than this.
    TooLarge {
        /// The limit that was exceeded.
        max_bytes: usize,
    },
    /// It has more attachments than an event may have.
    TooManyAttachments,
    /// A placeholder stands for no attachment.
    BadPlaceholder,
    /// The key of a map is neither a string nor an integer.
    BadKey,
    /// Something is missing, or of another type.
    Expected(&'static str),
    /// There are more of these than there may be.
    TooMany(&'static str),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("it ends within a value"),
            Self::Trailing => f.write_str("something follows the value"),
            Self::UnusedByte => f.write_str("not MessagePack"),
            Self::NotJson => f.write_str("not JSON"),
            Self::TooDeep => f.write_str("nested too deep"),
            Self::TooLarge { max_bytes } => write!(f, "larger than {max_bytes} bytes"),
            Self::TooManyAttachments => write!(f, "more than {MAX_ATTACHMENTS} attachments"),
            Self::BadPlaceholder => f.write_str("a placeholder without its attachment"),
            Self::BadKey => f.write_str("a key that is neither a string nor an integer"),
            Self::Expected(what) => write!(f, "expected {what}"),
            Self::TooMany(what) => write!(f, "too many {what}"),
        }
    }
}

impl std::error::Error for FormatError {}

/// An event: its name and its arguments.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Event<'a> {
    /// The name.
    pub name: Cow<'a, str>,
    /// The arguments.
    pub args: Values<'a>,
}

impl<'a> Event<'a> {
    /// An event without attachments. `args_json` holds JSON values with commas between them, without brackets.
    pub fn new(name: impl Into<Cow<'a, str>>, args_json: impl Into<Cow<'a, str>>) -> Self {
        Self { name: name.into(), args: Values { json: args_json.into(), attachments: Vec::new() } }
    }

    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Event<'static> {
        Event { name: Cow::Owned(self.name.into_owned()), args: self.args.into_owned() }
    }
}

/// JSON values, and the binary ones among them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Values<'a> {
    /// The values with commas between them and without brackets; empty if there are none. In the place of each
    /// attachment stands `{"_placeholder":true,"num":0}`, if there are attachments.
    pub json: Cow<'a, str>,
    /// The binary values, in the order of their placeholders' numbers.
    pub attachments: Vec<Cow<'a, [u8]>>,
}

impl Values<'_> {
    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Values<'static> {
        Values {
            json: Cow::Owned(self.json.into_owned()),
            attachments: self.attachments.into_iter().map(|bytes| Cow::Owned(bytes.into_owned())).collect(),
        }
    }
}
