//! What the scripts publish, in the parts that they put together: see [`crate::adapter::classic`].

use crate::{
    adapter::{
        classic::{Channels, broadcast_parts},
        msgpack::{object_fields, write_map, write_str},
        rooms::{room_of_meeting, room_of_user},
    },
    store::{Kind, redis::meeting::extra_name},
    types::{MessageId, RoomId},
};

/// Everything but the fields that are decided in the script.
pub(super) struct Frame {
    /// Where it is published.
    pub(super) channel: String,
    /// Up to the value of the first of those fields.
    pub(super) head: Vec<u8>,
    /// The fields of the content.
    pub(super) content: Vec<u8>,
    /// Up to the first value of what is for our own instances.
    pub(super) tail: Vec<u8>,
}

const NAMESPACE: &str = "/";
/// No server is called that.
const NOBODY: &str = "inbox";

/// An event of a meeting. The script adds seq, epoch, time, and the field that its kind has beside; for us seq, epoch, kind
/// and payload.
pub(super) fn event(
    channels: &Channels,
    uid: &str,
    meeting: &RoomId,
    kind: Kind,
    id: Option<MessageId>,
    json: &str,
) -> Frame {
    let room = room_of_meeting(meeting.as_str());
    let (mut head, mut tail) = broadcast_parts(uid, NAMESPACE, kind.as_str(), &[&room]);
    // Contents are checked before. From one that is no object Node's clients get less; ours get it as it is.
    let (count, content) = object_fields(json).unwrap_or_default();
    let decided = 3 + usize::from(id.is_some()) + usize::from(extra_name(kind).is_some());
    write_map(&mut head, count + decided);
    if let Some(id) = id {
        write_str(&mut head, "id");
        write_str(&mut head, &id.to_string());
    }
    write_str(&mut head, "seq");
    write_map(&mut tail, 4);
    write_str(&mut tail, "s");
    Frame { channel: channels.room(NAMESPACE, &room), head, content, tail }
}

/// A notification. The script adds its number, and that it is not read; for us the payload. Nobody's own: it is by this that
/// a user's sockets get it, at the instance that made it as well, whatever becomes of the script's answer.
pub(super) fn notification(channels: &Channels, user: &str, json: &str) -> Frame {
    let room = room_of_user(user);
    let (mut head, mut tail) = broadcast_parts(NOBODY, NAMESPACE, "notification", &[&room]);
    let (count, content) = object_fields(json).unwrap_or_default();
    write_map(&mut head, count + 2);
    write_str(&mut head, "nseq");
    write_map(&mut tail, 1);
    write_str(&mut tail, "j");
    Frame { channel: channels.room(NAMESPACE, &room), head, content, tail }
}
