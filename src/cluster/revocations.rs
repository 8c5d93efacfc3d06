//! Tokens that are good no more: what instances keep of it, and the keys of other services.

use std::time::Duration;

use super::{Cluster, Deaf};
use crate::redis::{Call, Script, reply};

static REVOKE: Script = Script::new(include_str!("revoke.lua"));

/// How long a client's CONNECT waits for the list of revoked tokens.
const REVOKED_WAIT: Duration = Duration::from_secs(1);

impl Cluster {
    /// Whether a token was revoked: by its id, by another service, or by one of its subjects before it was issued. Nobody is
    /// kept out because that cannot be asked.
    pub async fn is_revoked(&self, jti: Option<&str>, subjects: &[&str], issued_at: Option<u64>) -> bool {
        let key = |subject: &&str| Call::command("GET").arg(self.revocation_key(subject));
        let mut calls: Vec<_> = subjects.iter().map(key).collect();
        // Of any type: that there is one says it.
        calls.extend(jti.map(|jti| named(&[jti])));
        let calls = calls.into_iter().map(|call| call.within(REVOKED_WAIT).repeatable()).collect();
        let mut answers = self.redis.calls(calls).await;
        let is_named = jti.is_some()
            && matches!(answers.pop(), Some(Ok(value)) if reply::number(&value).is_some_and(|count| count > 0));
        let covers = |before: u64| issued_at.is_none_or(|at| at <= before);
        is_named || answers.iter().flatten().filter_map(reply::number).any(covers)
    }

    /// Whether one of these tokens was revoked by another service. None, if that cannot be asked.
    pub async fn is_any_named(&self, jtis: &[&str]) -> bool {
        let answer = self.redis.call(named(jtis).within(REVOKED_WAIT).repeatable()).await;
        answer.is_ok_and(|value| reply::number(&value).is_some_and(|count| count > 0))
    }

    /// Keeps a revocation for instances that begin later: tokens of that subject issued until `before` are bad.
    ///
    /// # Errors
    /// [`Deaf`]: it is not certain that it is kept.
    pub async fn keep_revocation(&self, subject: &str, before: u64, kept_ms: u64) -> Result<(), Deaf> {
        let call = Call::script(&REVOKE, 1).arg(self.revocation_key(subject)).int(before).int(kept_ms);
        self.redis.call(call.repeatable()).await.map(drop).map_err(|_| Deaf)
    }

    fn revocation_key(&self, subject: &str) -> String {
        format!("{}revoked:{subject}", self.settings.key_prefix)
    }
}

/// How many of these tokens another service has revoked: their keys may be of any type.
fn named(jtis: &[&str]) -> Call {
    jtis.iter().fold(Call::command("EXISTS"), |call, jti| call.arg(format!("auth:revoked:{jti}")))
}
