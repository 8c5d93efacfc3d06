//! What a request to the Engine.IO path wants.

use crate::{engine::Refusal, types::SessionId};

/// A request, read from its method and query. Sections "Handshake" and "Upgrade".
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Intent {
    /// Open a session on HTTP long-polling.
    OpenPolling,
    /// Open a session on a WebSocket.
    OpenWebSocket,
    /// Wait for packets.
    Poll(SessionId),
    /// Bring packets.
    Post(SessionId),
    /// Take over a session that began on polling.
    Upgrade(SessionId),
    /// A method that a session does not know. The session must be looked up first: an unknown one is the
    /// error that is reported.
    OtherMethod(SessionId),
}

impl Intent {
    /// Reads `transport`, `sid` and `EIO` of the query in the reference's order of checks; unknown keys, `t` and
    /// `j` among them, are ignored. `upgrades` says whether the request asks for `Upgrade: websocket`.
    ///
    /// # Errors
    /// The refusal that the protocol names. Two answers are stricter than the reference's: an Upgrade with
    /// `transport=polling` is refused before the 101, and so is a WebSocket of another version.
    pub fn read(method: &str, query: &str, upgrades: bool) -> Result<Self, Refusal> {
        let websocket = match value(query, "transport") {
            Some("polling") => false,
            Some("websocket") => true,
            _ => return Err(Refusal::UnknownTransport),
        };
        let sid = value(query, "sid").map(SessionId::new);
        if websocket != upgrades {
            // Said after the look-up for a known session, so that an unknown one is called that.
            return match sid {
                Some(sid) => Ok(Self::OtherMethod(sid)),
                None if method != "GET" => Err(Refusal::BadHandshakeMethod),
                None => Err(Refusal::BadRequest),
            };
        }
        match (sid, method, websocket) {
            (Some(sid), "GET", true) => Ok(Self::Upgrade(sid)),
            (Some(sid), "GET", false) => Ok(Self::Poll(sid)),
            (Some(sid), "POST", false) => Ok(Self::Post(sid)),
            (Some(sid), _, _) => Ok(Self::OtherMethod(sid)),
            (None, "GET", _) if value(query, "EIO") != Some("4") => Err(Refusal::UnsupportedVersion),
            (None, "GET", true) => Ok(Self::OpenWebSocket),
            (None, "GET", false) => Ok(Self::OpenPolling),
            (None, _, _) => Err(Refusal::BadHandshakeMethod),
        }
    }
}

/// The first value of a key. The values that we know need no percent-decoding; a sid that is encoded is none of
/// ours.
fn value<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key).map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind_of_request() {
        let sid = || SessionId::new("abc");
        type Case<'a> = (&'a str, &'a str, &'a str, bool, Result<Intent, Refusal>);
        let cases: &[Case<'_>] = &[
            ("polling handshake", "GET", "EIO=4&transport=polling", false, Ok(Intent::OpenPolling)),
            ("keys in any order", "GET", "t=x&transport=polling&j=1&EIO=4", false, Ok(Intent::OpenPolling)),
            ("websocket handshake", "GET", "EIO=4&transport=websocket", true, Ok(Intent::OpenWebSocket)),
            ("poll, EIO is not looked at", "GET", "transport=polling&sid=abc", false, Ok(Intent::Poll(sid()))),
            ("post", "POST", "EIO=4&transport=polling&sid=abc", false, Ok(Intent::Post(sid()))),
            ("upgrade", "GET", "EIO=4&transport=websocket&sid=abc", true, Ok(Intent::Upgrade(sid()))),
            ("no transport", "GET", "EIO=4", false, Err(Refusal::UnknownTransport)),
            ("webtransport", "GET", "EIO=4&transport=webtransport", false, Err(Refusal::UnknownTransport)),
            ("transport before all else", "PUT", "EIO=3&transport=x&sid=abc", false, Err(Refusal::UnknownTransport)),
            ("handshake by POST", "POST", "EIO=4&transport=polling", false, Err(Refusal::BadHandshakeMethod)),
            ("handshake by HEAD", "HEAD", "EIO=4&transport=polling", false, Err(Refusal::BadHandshakeMethod)),
            ("method before version", "PUT", "EIO=3&transport=polling", false, Err(Refusal::BadHandshakeMethod)),
            ("version 3", "GET", "EIO=3&transport=polling", false, Err(Refusal::UnsupportedVersion)),
            ("no version", "GET", "transport=polling", false, Err(Refusal::UnsupportedVersion)),
            ("no version, websocket", "GET", "transport=websocket", true, Err(Refusal::UnsupportedVersion)),
            ("websocket without Upgrade", "GET", "EIO=4&transport=websocket", false, Err(Refusal::BadRequest)),
            ("polling with Upgrade", "GET", "EIO=4&transport=polling", true, Err(Refusal::BadRequest)),
            ("PUT on a session", "PUT", "transport=polling&sid=abc", false, Ok(Intent::OtherMethod(sid()))),
            (
                "websocket sid without Upgrade",
                "GET",
                "transport=websocket&sid=abc",
                false,
                Ok(Intent::OtherMethod(sid())),
            ),
            ("an empty query", "GET", "", false, Err(Refusal::UnknownTransport)),
        ];
        for (name, method, query, upgrades, expected) in cases {
            assert_eq!(Intent::read(method, query, *upgrades), *expected, "{name}");
        }
    }
}
