//! The participants that updates have named, as one of the sources of rights.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    auth::{Right, access::Participants},
    store::Store,
    types::RoomId,
};

/// Takes part who was named by a `meeting.created` or `participant.added`, and not removed since. They may write.
pub struct StoredParticipants(Arc<dyn Store>);

impl StoredParticipants {
    /// The participants that `store` knows of.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }
}

impl Participants for StoredParticipants {
    fn right(&self, meeting: &str, user: &str, now: u64) -> Pin<Box<dyn Future<Output = Option<Right>> + Send + '_>> {
        let (meeting, user) = (RoomId::new(meeting), user.to_owned());
        Box::pin(async move {
            let is_one = self.0.is_participant(&meeting, &user, now).await;
            // Whether a store that is away would have known them cannot be told: the other sources decide.
            is_one.unwrap_or(false).then_some(Right::Write)
        })
    }

    fn is_empty(&self) -> bool {
        !self.0.has_participants()
    }
}
