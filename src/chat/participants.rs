//! The participants that updates have named, as one of the sources of rights.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    auth::{
        Right,
        access::{AccessError, Noted, Participants},
    },
    store::{Participation, Store},
    types::RoomId,
};

/// Takes part who was named by a `meeting.created` or `participant.added`, and not removed since; they may write. Beside
/// other instances it is other services who note who takes part, and with which right.
pub struct StoredParticipants(Arc<dyn Store>);

impl StoredParticipants {
    /// The participants that `store` knows of.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }
}

impl Participants for StoredParticipants {
    fn right(&self, meeting: &str, user: &str, now: u64) -> Pin<Box<dyn Future<Output = Noted> + Send + '_>> {
        let (meeting, user) = (RoomId::new(meeting), user.to_owned());
        Box::pin(async move {
            match self.0.participant(&meeting, &user, now).await {
                Ok(participation) => Ok(participation.map(|participation| match participation {
                    Participation::Read => Right::Read,
                    Participation::Write => Right::Write,
                    Participation::Host => Right::Host,
                })),
                Err(_) => Err(AccessError::Unavailable { retry_after_ms: 1000 }),
            }
        })
    }

    fn is_empty(&self) -> bool {
        !self.0.has_participants()
    }
}
