//! What somebody may do in a meeting: the first source that answers decides.

use std::{future::Future, pin::Pin, sync::Arc};

use super::{Fetch, Identity, Right};

/// What everybody may do in meetings for which no other source answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoomPolicy {
    /// Nothing.
    Members,
    /// Write, if they have an identity.
    Authenticated,
}

/// Tells who takes part in a meeting. The store does it.
pub trait Participants: Send + Sync + 'static {
    /// The right that a participant has; `None` if this source does not know them.
    fn right(&self, meeting: &str, user: &str, now: u64) -> Pin<Box<dyn Future<Output = Option<Right>> + Send + '_>>;
}

/// Decides rights.
pub struct Access;

/// Why there is no decision: access is denied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessError {
    /// The authorisation service says that there is no such meeting.
    NoMeeting,
    /// The authorisation service did not answer: try again.
    Unavailable {
        /// When.
        retry_after_ms: u32,
    },
}

impl Access {
    /// `authz_url` is asked where claims and participants do not answer.
    pub fn new(
        _policy: RoomPolicy,
        _authz_url: Option<String>,
        _participants: Arc<dyn Participants>,
        _fetch: Arc<dyn Fetch>,
    ) -> Self {
        Self
    }

    /// What `identity` may do in `meeting` at `now` (ms since the epoch); `None` is nothing. Waits only if somebody has to
    /// be asked.
    ///
    /// # Errors
    /// Nobody could decide; see [`AccessError`].
    pub async fn right(&self, _identity: &Identity, _meeting: &str, _now: u64) -> Result<Option<Right>, AccessError> {
        Ok(None)
    }

    /// Forgets what was decided about a user in a meeting (or in all of them).
    pub fn forget(&self, _user: &str, _meeting: Option<&str>) {}
}
