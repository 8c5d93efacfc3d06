//! Packets of the server: the text packets with their Engine.IO `4`, and finished frames.
//!
//! Arguments come as JSON text, the values with commas between them and without brackets, and are not looked at
//! again: whoever has text from outside has checked it with [`Packet::parse`](crate::socket::Packet::parse).

use std::io::Write as _;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{outbox::Frame, types::SocketId};

/// Appends a CONNECT, the answer to a client that joined: `40/ns,{"sid":"…"}`.
pub fn write_connect(out: &mut Vec<u8>, namespace: &str, id: &SocketId) {
    write_head(out, b'0', None, namespace, None);
    out.extend_from_slice(b"{\"sid\":");
    write_json(out, id.as_str());
    out.push(b'}');
}

/// Appends a CONNECT_ERROR, the answer to a client that may not join: `44/ns,{"message":"…","data":…}`.
pub fn write_connect_error(out: &mut Vec<u8>, namespace: &str, message: &str, data: Option<&RawValue>) {
    write_head(out, b'4', None, namespace, None);
    out.extend_from_slice(b"{\"message\":");
    write_json(out, message);
    if let Some(data) = data {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(data.get().as_bytes());
    }
    out.push(b'}');
}

/// Appends a DISCONNECT: `41/ns,`.
pub fn write_disconnect(out: &mut Vec<u8>, namespace: &str) {
    write_head(out, b'1', None, namespace, None);
}

/// Appends an EVENT: `42/ns,<ack id>["name",args…]`.
pub fn write_event(out: &mut Vec<u8>, namespace: &str, name: &str, ack_id: Option<u64>, args_json: &str) {
    write_head(out, b'2', None, namespace, ack_id);
    write_named_array(out, name, args_json);
}

/// Appends a BINARY_EVENT, behind which `attachments` binary messages follow: `45<n>-/ns,<ack id>["name",args…]`.
pub fn write_binary_event(
    out: &mut Vec<u8>,
    attachments: usize,
    namespace: &str,
    name: &str,
    ack_id: Option<u64>,
    args_json: &str,
) {
    write_head(out, b'5', Some(attachments), namespace, ack_id);
    write_named_array(out, name, args_json);
}

/// Appends an ACK: `43/ns,<id>[args…]`.
pub fn write_ack(out: &mut Vec<u8>, namespace: &str, id: u64, args_json: &str) {
    write_head(out, b'3', None, namespace, Some(id));
    write_array(out, args_json);
}

/// Appends a BINARY_ACK, behind which `attachments` binary messages follow: `46<n>-/ns,<id>[args…]`.
pub fn write_binary_ack(out: &mut Vec<u8>, attachments: usize, namespace: &str, id: u64, args_json: &str) {
    write_head(out, b'6', Some(attachments), namespace, Some(id));
    write_array(out, args_json);
}

/// An EVENT whose arguments are JSON text.
pub fn event_frame(namespace: &str, name: &str, args_json: &str) -> Frame {
    Frame::build_text(|out| write_event(out, namespace, name, None, args_json))
}

/// An EVENT with one argument, which is serialised straight into the frame.
pub fn event_frame_json<T: Serialize + ?Sized>(namespace: &str, name: &str, arg: &T) -> Frame {
    Frame::build_text(|out| {
        write_head(out, b'2', None, namespace, None);
        out.push(b'[');
        write_json(out, name);
        out.push(b',');
        write_json(out, arg);
        out.push(b']');
    })
}

/// A BINARY_EVENT and its attachments, which must be queued together; an EVENT if there are no attachments.
///
/// `args_json` holds the placeholders: `{"_placeholder":true,"num":0}` for the first attachment.
pub fn binary_event_frames<B: AsRef<[u8]>>(
    namespace: &str,
    name: &str,
    args_json: &str,
    attachments: &[B],
) -> Vec<Frame> {
    event_frames(namespace, name, None, args_json, attachments)
}

/// An EVENT, or a BINARY_EVENT and its attachments, which asks for an ack if it has an id.
pub(super) fn event_frames<B: AsRef<[u8]>>(
    namespace: &str,
    name: &str,
    ack_id: Option<u64>,
    args_json: &str,
    attachments: &[B],
) -> Vec<Frame> {
    let head = Frame::build_text(|out| match attachments.len() {
        0 => write_event(out, namespace, name, ack_id, args_json),
        count => write_binary_event(out, count, namespace, name, ack_id, args_json),
    });
    with_attachments(head, attachments)
}

/// An ACK, or a BINARY_ACK and its attachments.
pub(super) fn ack_frames<B: AsRef<[u8]>>(namespace: &str, id: u64, args_json: &str, attachments: &[B]) -> Vec<Frame> {
    let head = Frame::build_text(|out| match attachments.len() {
        0 => write_ack(out, namespace, id, args_json),
        count => write_binary_ack(out, count, namespace, id, args_json),
    });
    with_attachments(head, attachments)
}

/// An ACK with one argument, which is serialised straight into the frame.
pub(super) fn ack_frame_json<T: Serialize + ?Sized>(namespace: &str, id: u64, arg: &T) -> Frame {
    Frame::build_text(|out| {
        write_head(out, b'3', None, namespace, Some(id));
        out.push(b'[');
        write_json(out, arg);
        out.push(b']');
    })
}

fn with_attachments<B: AsRef<[u8]>>(head: Frame, attachments: &[B]) -> Vec<Frame> {
    std::iter::once(head).chain(attachments.iter().map(|data| Frame::binary(data.as_ref()))).collect()
}

/// Writes everything before the JSON. The main namespace is not named.
fn write_head(out: &mut Vec<u8>, packet_type: u8, attachments: Option<usize>, namespace: &str, ack_id: Option<u64>) {
    out.extend_from_slice(&[b'4', packet_type]);
    // A vector refuses nothing.
    if let Some(attachments) = attachments {
        let _ = write!(out, "{attachments}-");
    }
    if namespace != "/" {
        out.extend_from_slice(namespace.as_bytes());
        out.push(b',');
    }
    if let Some(ack_id) = ack_id {
        let _ = write!(out, "{ack_id}");
    }
}

fn write_named_array(out: &mut Vec<u8>, name: &str, args_json: &str) {
    out.push(b'[');
    write_json(out, name);
    if !args_json.is_empty() {
        out.push(b',');
        out.extend_from_slice(args_json.as_bytes());
    }
    out.push(b']');
}

fn write_array(out: &mut Vec<u8>, args_json: &str) {
    out.push(b'[');
    out.extend_from_slice(args_json.as_bytes());
    out.push(b']');
}

/// Writes a value, or `null` if it cannot be written: a map without string keys, say. That is a mistake of ours, not
/// worth a connection.
fn write_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let start = out.len();
    if let Err(err) = serde_json::to_writer(&mut *out, value) {
        log::error!("value cannot be written as JSON, sent null: {err}");
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::socket::{Packet, PacketKind, PacketLimits};

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn text(frame: &Frame) -> &str {
        std::str::from_utf8(frame.payload()).unwrap()
    }

    /// socket.io v5 § Packet encoding.
    #[test]
    fn writes_every_packet_form() {
        let id = SocketId::new("oSO0OpakMV_3jnilAAAA");
        let data: Box<RawValue> = serde_json::from_str(r#"{"code":1}"#).unwrap();
        let placeholder = r#"{"_placeholder":true,"num":0}"#;
        let cases = [
            (written(|out| write_connect(out, "/", &id)), r#"40{"sid":"oSO0OpakMV_3jnilAAAA"}"#),
            (written(|out| write_connect(out, "/admin", &id)), r#"40/admin,{"sid":"oSO0OpakMV_3jnilAAAA"}"#),
            (
                written(|out| write_connect_error(out, "/random", "Invalid namespace", None)),
                r#"44/random,{"message":"Invalid namespace"}"#,
            ),
            (
                written(|out| write_connect_error(out, "/", "a\"b", Some(&data))),
                r#"44{"message":"a\"b","data":{"code":1}}"#,
            ),
            (written(|out| write_disconnect(out, "/")), "41"),
            (written(|out| write_disconnect(out, "/admin")), "41/admin,"),
            (written(|out| write_event(out, "/", "foo", None, "")), r#"42["foo"]"#),
            (written(|out| write_event(out, "/admin", "b\"r", Some(1), "1,[2]")), r#"42/admin,1["b\"r",1,[2]]"#),
            (
                written(|out| write_binary_event(out, 1, "/", "baz", None, placeholder)),
                r#"451-["baz",{"_placeholder":true,"num":0}]"#,
            ),
            (
                written(|out| write_binary_event(out, 1, "/admin", "baz", Some(7), placeholder)),
                r#"451-/admin,7["baz",{"_placeholder":true,"num":0}]"#,
            ),
            (written(|out| write_ack(out, "/", 12, "")), "4312[]"),
            (written(|out| write_ack(out, "/admin", 13, "\"bar\"")), r#"43/admin,13["bar"]"#),
            (written(|out| write_binary_ack(out, 1, "/", 15, placeholder)), r#"461-15[{"_placeholder":true,"num":0}]"#),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for namespace in ["/", "/admin"] {
            for ack_id in [None, Some(0), Some(u64::MAX)] {
                for args in ["", "1", r#"{"a":[1,"\ud800"]},null"#] {
                    for name in ["a", "é\"\\\n", ""] {
                        let packet = written(|out| write_event(out, namespace, name, ack_id, args));
                        let read = Packet::parse(&packet[1..], &PacketLimits::default()).unwrap();
                        assert_eq!(read.namespace, namespace);
                        let PacketKind::Event { name: n, args: a, ack_id: i, attachments } = read.kind else {
                            panic!("{packet}")
                        };
                        assert_eq!((&*n, a.as_str(), i, attachments), (name, args, ack_id, 0));
                    }
                }
            }
        }
    }

    #[test]
    fn a_struct_goes_straight_into_its_frame() {
        #[derive(Serialize)]
        struct Arg {
            n: u8,
        }
        assert_eq!(text(&event_frame_json("/", "a", &Arg { n: 1 })), r#"42["a",{"n":1}]"#);
        assert_eq!(text(&ack_frame_json("/b", 2, &Arg { n: 1 })), r#"43/b,2[{"n":1}]"#);
        assert_eq!(text(&event_frame("/b", "a", "1,2")), r#"42/b,["a",1,2]"#);
    }

    #[test]
    fn a_value_that_cannot_be_written_becomes_null() {
        let value = BTreeMap::from([((1, 2), 3)]);
        assert_eq!(text(&event_frame_json("/", "a", &value)), r#"42["a",null]"#);
    }

    #[test]
    fn attachments_follow_their_header() {
        let frames = binary_event_frames("/", "a", r#"{"_placeholder":true,"num":0}"#, &[[1, 2], [3, 4]]);
        assert_eq!(text(&frames[0]), r#"452-["a",{"_placeholder":true,"num":0}]"#);
        assert_eq!(frames[1..], [Frame::binary(&[1, 2]), Frame::binary(&[3, 4])]);
        assert_eq!(text(&binary_event_frames::<&[u8]>("/", "a", "1", &[])[0]), r#"42["a",1]"#);
        assert_eq!(text(&ack_frames::<&[u8]>("/", 1, "1", &[])[0]), "431[1]");
    }
}
