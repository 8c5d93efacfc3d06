//! Who somebody is, and what they may do in a meeting.

use std::{collections::HashMap, sync::Arc};

/// What a token says of its bearer, checked. Without tokens: a name and nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// 1–128 printable characters.
    pub user_id: Arc<str>,
    /// What to call them: 1–80 characters; the user id where the token has no name.
    pub name: Arc<str>,
    /// Moderates everywhere.
    pub is_admin: bool,
    /// May publish, and is not shown as present.
    pub is_service: bool,
    /// The meetings that the token names, if it names any.
    pub meetings: Option<Meetings>,
    /// The token's own id, for revocation.
    pub jti: Option<Box<str>>,
    /// The login session that the token belongs to, for revocation.
    pub sid: Option<Box<str>>,
    /// When the token was issued, in ms since the epoch.
    pub issued_at: Option<u64>,
    /// When it expires, in ms since the epoch, without leeway.
    pub expires_at: Option<u64>,
}

/// The claim `meetings`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meetings {
    /// `"*"`: every meeting, to write.
    All,
    /// These. Others fall through to the other sources, but not to the room policy.
    Listed(HashMap<Box<str>, Right>),
}

/// What somebody may do in a meeting. Each includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Right {
    /// Join, read history and presence.
    Read,
    /// Send, react, type.
    Write,
    /// Moderate: edit and delete what others wrote.
    Host,
}

impl Right {
    /// Every right, from the least.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Host];

    /// The name in tokens, participant hashes and answers of the authorisation service.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Host => "host",
        }
    }

    /// The right of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|right| right.as_str() == name)
    }
}

impl Identity {
    /// Somebody without a token, who is called by their id.
    pub fn anonymous(user_id: &str) -> Self {
        let user_id: Arc<str> = user_id.into();
        Self {
            name: Arc::clone(&user_id),
            user_id,
            is_admin: false,
            is_service: false,
            meetings: None,
            jti: None,
            sid: None,
            issued_at: None,
            expires_at: None,
        }
    }
}
