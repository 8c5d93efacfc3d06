//! The chat's other door: the same commands over HTTP, for users with their token and for services with a key.
//!
//! A request is routed by its path, its caller found by its headers, and its payload read by the same readers as an
//! event's. What answers an event with an ack answers a request with a body; what refuses it is the same error object.

use std::{borrow::Cow, sync::Arc};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    auth::Identity,
    chat::{
        Chat, Code, Error,
        command::{
            self, DeleteMessage, EditMessage, History, MarkRead, Meeting, Notifications, Presence, ReadNotifications,
            SendMessage,
        },
        identity::bearer,
        publishing::{Count, service_only},
        service::{Caller, Class},
        service_command::{Disconnect, Publish, Revoke},
    },
    http::{Head, Response},
};

/// Who may use the service's own paths.
pub struct Keys {
    /// `CHAT_API_KEY`.
    pub api_key: Option<Box<[u8]>>,
}

/// A path of the chat, its parameters decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Resource {
    Messages { meeting: String },
    Message { meeting: String, id: String },
    Presence { meeting: String },
    Read { meeting: String },
    Notifications,
    NotificationsRead,
    Unread,
    Publish,
    Updates,
    Disconnect,
    Revoke,
    Stats,
    Close { meeting: String },
    Meeting { meeting: String },
    User { id: String },
}

/// Bodies are JSON.
const JSON: &str = "application/json";
const USER_ID_MAX_CHARS: usize = 128;
/// Somebody who came over HTTP where nobody is asked for a token.
const ANYBODY: &str = "anybody";

#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a Error,
}

impl Resource {
    /// The resource of a path below the service's prefix.
    pub(super) fn of(path: &str) -> Option<Self> {
        // A segment that is empty, or cannot be decoded, names nothing.
        let segments = path.strip_prefix('/')?.split('/').map(|segment| decode(segment).filter(|it| !it.is_empty()));
        let segments = segments.collect::<Option<Vec<_>>>()?;
        let mut segments = segments.into_iter();
        let mut next = || segments.next();
        let (first, second, third, fourth) = (next()?, next(), next(), next());
        if next().is_some() {
            return None;
        }
        Some(match (&*first, second, third.as_deref(), fourth) {
            ("notifications", None, ..) => Self::Notifications,
            ("notifications", Some(read), None, None) if read == "read" => Self::NotificationsRead,
            ("unread", None, ..) => Self::Unread,
            ("publish", None, ..) => Self::Publish,
            ("updates", None, ..) => Self::Updates,
            ("disconnect", None, ..) => Self::Disconnect,
            ("revoke", None, ..) => Self::Revoke,
            ("stats", None, ..) => Self::Stats,
            ("users", Some(id), None, None) => Self::User { id: id.into_owned() },
            ("meetings", Some(meeting), what, id) => {
                let meeting = meeting.into_owned();
                match (what, id) {
                    (None, None) => Self::Meeting { meeting },
                    (Some("messages"), None) => Self::Messages { meeting },
                    (Some("messages"), Some(id)) => Self::Message { meeting, id: id.into_owned() },
                    (Some("presence"), None) => Self::Presence { meeting },
                    (Some("read"), None) => Self::Read { meeting },
                    (Some("close"), None) => Self::Close { meeting },
                    _ => return None,
                }
            }
            _ => return None,
        })
    }

    /// The methods it takes.
    pub(super) const fn allow(&self) -> &'static str {
        match self {
            Self::Messages { .. } => "GET, HEAD, POST, OPTIONS",
            Self::Message { .. } => "PATCH, DELETE, OPTIONS",
            Self::Presence { .. } | Self::Notifications | Self::Unread | Self::Stats => "GET, HEAD, OPTIONS",
            Self::Read { .. } => "PUT, OPTIONS",
            Self::NotificationsRead
            | Self::Publish
            | Self::Updates
            | Self::Disconnect
            | Self::Revoke
            | Self::Close { .. } => "POST, OPTIONS",
            Self::Meeting { .. } | Self::User { .. } => "DELETE, OPTIONS",
        }
    }

    /// Whether it is there for services only.
    const fn is_for_services(&self) -> bool {
        matches!(
            self,
            Self::Publish
                | Self::Updates
                | Self::Disconnect
                | Self::Revoke
                | Self::Stats
                | Self::Close { .. }
                | Self::Meeting { .. }
                | Self::User { .. }
        )
    }

    const fn class(&self, is_write: bool) -> Class {
        match self {
            Self::Messages { .. } if !is_write => Class::History,
            Self::Messages { .. } | Self::Message { .. } => Class::Message,
            Self::Presence { .. } | Self::Notifications => Class::History,
            Self::Read { .. } | Self::NotificationsRead => Class::Typing,
            _ => Class::Event,
        }
    }
}

/// Does what a request asks for. Its method is one that the resource takes. `stats` is what the server says of itself.
pub(super) async fn respond(
    chat: &Arc<Chat>,
    keys: &Keys,
    resource: Resource,
    head: &Head,
    body: &[u8],
    request_id: &str,
    stats: impl FnOnce() -> Response,
) -> Response {
    if is_unsupported(head, body) {
        let error = Error::new(Code::InvalidPayload, "Content-Type: expected application/json");
        chat.count_refusal(&error);
        return Response::json(415, Refusal { error: &error.with_request_id(request_id) });
    }
    let answer = async {
        if resource.is_for_services() {
            authorize_service(chat, keys, head).await?;
            let body = read_body(body)?;
            return serve_service(chat, resource, body, stats).await;
        }
        let caller = caller(chat, head).await?;
        let body = read_body(body)?;
        let is_write = !matches!(head.method(), "GET" | "HEAD");
        chat.take_for(&caller, resource.class(is_write))?;
        serve_user(chat, caller, resource, head, body).await
    };
    answer.await.unwrap_or_else(|error| refuse(chat, error.with_request_id(request_id)))
}

async fn serve_user(
    chat: &Arc<Chat>,
    caller: Caller,
    resource: Resource,
    head: &Head,
    body: Option<&RawValue>,
) -> Result<Response, Error> {
    let chat = Arc::clone(chat);
    let query: Vec<_> = head.query_params().collect();
    let query = || query.iter().map(|(name, value)| (&**name, &**value));
    Ok(match (resource, head.method()) {
        (Resource::Messages { meeting }, "POST") => {
            let key = head.header_str("idempotency-key");
            let message = SendMessage::read_in(&meeting, body, key)?.prepare(caller.identity());
            let (status, message) = chat.send_and_show(caller, message).await?;
            Response::json(status, message)
        }
        (Resource::Messages { meeting }, _) => {
            Response::json(200, chat.history(caller, History::from_query(&meeting, query())?).await?)
        }
        (Resource::Message { meeting, id }, "PATCH") => {
            let edit = EditMessage::read_in(&meeting, &id, body)?.prepare(caller.identity());
            Response::json(200, chat.edit_message(caller, edit).await?)
        }
        (Resource::Message { meeting, id }, _) => {
            chat.delete_message(caller, DeleteMessage::from_path(&meeting, &id)?).await?;
            Response::new(204)
        }
        (Resource::Presence { meeting }, _) => {
            Response::json(200, chat.presence(caller, Presence::from_query(&meeting, query())?).await?)
        }
        (Resource::Read { meeting }, _) => {
            Response::json(200, chat.mark_read(caller, MarkRead::read_in(&meeting, body)?).await?)
        }
        (Resource::Notifications, _) => {
            Response::json(200, chat.notifications(caller, Notifications::from_query(query())?).await?)
        }
        (Resource::NotificationsRead, _) => {
            Response::json(200, chat.read_notifications(caller, ReadNotifications::read(body)?).await?)
        }
        (Resource::Unread, _) => Response::json(200, chat.unread(caller).await?),
        _ => return Err(Error::new(Code::NotFound, "no such path")),
    })
}

async fn serve_service(
    chat: &Arc<Chat>,
    resource: Resource,
    body: Option<&RawValue>,
    stats: impl FnOnce() -> Response,
) -> Result<Response, Error> {
    let text = body.map_or("null", RawValue::get);
    Ok(match resource {
        Resource::Publish => Response::json(202, Arc::clone(chat).publish(Publish::read(body)?).await?),
        Resource::Updates => Response::json(202, Arc::clone(chat).update(text).await?),
        Resource::Disconnect => {
            Response::json(200, Count::of(chat.disconnect(&Disconnect::read(body)?.subject).await?))
        }
        Resource::Revoke => Response::json(200, Count::of(chat.revoke(Revoke::read(body)?).await?)),
        Resource::Close { meeting } => {
            Response::json(200, Arc::clone(chat).close_meeting(&Meeting::from_path(&meeting)?).await?)
        }
        Resource::Meeting { meeting } => {
            Response::json(200, Arc::clone(chat).erase_meeting(&Meeting::from_path(&meeting)?).await?)
        }
        Resource::User { id } => Response::json(200, Arc::clone(chat).erase_user(&user_from_path(&id)?).await?),
        Resource::Stats => stats(),
        _ => return Err(Error::new(Code::NotFound, "no such path")),
    })
}

/// The user that a path names.
fn user_from_path(id: &str) -> Result<String, Error> {
    let is_fine = (1..=USER_ID_MAX_CHARS).contains(&id.chars().count()) && !id.chars().any(char::is_control);
    if is_fine { Ok(id.to_owned()) } else { Err(Error::invalid("user_id", "1-128 printable characters")) }
}

/// Who a request is from, by its token.
async fn caller(chat: &Arc<Chat>, head: &Head) -> Result<Caller, Error> {
    let identity = match (chat.is_authenticating(), token(head)) {
        (false, _) => Identity::anonymous(ANYBODY),
        (true, Some(token)) => chat.authenticate(token).await?,
        (true, None) => {
            return Err(Error::new(Code::Unauthorized, "expected an Authorization header with a Bearer token"));
        }
    };
    chat.visitor(identity)
}

async fn authorize_service(chat: &Arc<Chat>, keys: &Keys, head: &Head) -> Result<(), Error> {
    if let Some(given) = head.header("x-api-key") {
        return match &keys.api_key {
            Some(key) if is_same(key, given) => Ok(()),
            _ => Err(Error::new(Code::Unauthorized, "X-API-Key: expected the service's key")),
        };
    }
    if keys.api_key.is_none() && !chat.is_authenticating() {
        return Err(Error::new(Code::Forbidden, "the service API is off: set CHAT_API_KEY"));
    }
    let Some(token) = token(head).filter(|_| chat.is_authenticating()) else {
        return Err(Error::new(Code::Unauthorized, "expected X-API-Key, or a token with the role service"));
    };
    if chat.authenticate(token).await?.is_service { Ok(()) } else { Err(service_only()) }
}

fn token(head: &Head) -> Option<&str> {
    head.header_str("authorization").and_then(bearer)
}

/// Compares in a time that tells nothing but the lengths.
fn is_same(key: &[u8], given: &[u8]) -> bool {
    key.len() == given.len() && key.iter().zip(given).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Whether there is a body that is not JSON.
fn is_unsupported(head: &Head, body: &[u8]) -> bool {
    let kind = head.header_str("content-type").and_then(|given| given.split(';').next());
    !body.is_empty() && !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(JSON))
}

/// The body, if there is one.
fn read_body(body: &[u8]) -> Result<Option<&RawValue>, Error> {
    if body.is_empty() { Ok(None) } else { command::body(body).map(Some) }
}

fn refuse(chat: &Chat, error: Error) -> Response {
    chat.count_refusal(&error);
    let response = Response::json(error.code.status(), Refusal { error: &error });
    match error.retry_after_ms {
        Some(ms) => response.with_header("Retry-After", ms.div_ceil(1000).max(1).to_string()),
        None => response,
    }
}

/// Undoes percent-encoding. `None` if what it stands for is no UTF-8, or is no encoding at all.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_resources() {
        let meeting = || "m 1".to_owned();
        let cases = [
            ("/meetings/m%201/messages", Some(Resource::Messages { meeting: meeting() })),
            ("/meetings/m%201/messages/x", Some(Resource::Message { meeting: meeting(), id: "x".into() })),
            ("/meetings/m%201", Some(Resource::Meeting { meeting: meeting() })),
            ("/meetings/m%201/close", Some(Resource::Close { meeting: meeting() })),
            ("/users/a%2Fb", Some(Resource::User { id: "a/b".into() })),
            ("/notifications", Some(Resource::Notifications)),
            ("/notifications/read", Some(Resource::NotificationsRead)),
            ("/notifications/unread", None),
            ("/meetings", None),
            ("/meetings/m/messages/x/y", None),
            ("/meetings/m%2/messages", None),
            ("/meetings/m%ff/messages", None),
            ("/", None),
        ];
        for (path, resource) in cases {
            assert_eq!(Resource::of(path), resource, "{path}");
        }
    }

    #[test]
    fn keys_are_compared_whole() {
        for (given, is_fine) in [("secret", true), ("secreT", false), ("secre", false), ("secrets", false), ("", false)]
        {
            assert_eq!(is_same(b"secret", given.as_bytes()), is_fine, "{given}");
        }
    }

    #[test]
    fn percent_encoding_is_undone() {
        let cases = [
            ("a%20b", Some("a b")),
            ("%C3%A4", Some("ä")),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("a+b", Some("a+b")),
        ];
        for (text, decoded) in cases {
            assert_eq!(decode(text).as_deref(), decoded, "{text}");
        }
    }
}
