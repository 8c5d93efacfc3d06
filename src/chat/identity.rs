//! Who a client is: from its CONNECT to the end of its token.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use serde::Serialize;

use crate::{
    auth::{Identity, token::TokenError},
    chat::{
        Chat, Error,
        command::{ConnectAuth, MESSAGE_MAX_BYTES, TEXT_MAX_CHARS},
        error::Code,
        event::{self, AuthExpired, AuthExpiring, Ready, ReadyLimits, RoomLeft},
        job::Job,
        peers::{self, Note},
        service::{Caller, Door, client},
        service_command::{Revoke, Subject},
        user::{Client, User},
    },
    rooms::Member,
    socket::{ConnectRequest, Socket},
    store::Unread,
    types::{CloseReason, RoomId},
};

/// How long a token is good after its end. The token's verifier allows as much.
const LEEWAY_MS: u64 = 30_000;
/// How long before its end a client is told.
const NOTICE_MS: u64 = 60_000;
/// How long a user is kept who has no socket, with their budgets: reconnecting does not fill these.
const KEEP_MS: u64 = 60_000;
/// How long a revocation is remembered. Tokens that live longer have to be refused by their issuer's key set.
const REVOCATION_MS: u64 = 24 * 60 * 60 * 1000;
/// Revocations that are remembered; of more, the oldest are forgotten.
const REVOCATIONS_MAX: usize = 100_000;

/// The ack of `auth_refresh`.
#[derive(Serialize, Debug)]
pub struct Refreshed {
    /// When the new token expires, in ms since the epoch.
    exp: Option<u64>,
}

impl Chat {
    /// Lets a client in, or does not.
    pub(super) fn decide(self: &Arc<Self>, request: ConnectRequest) {
        let Some(_) = &self.authenticator else {
            let identity = Identity::anonymous(request.socket_id().as_str());
            return self.let_in(request, identity);
        };
        let Some(token) = self.token_of(&request) else {
            let error = Error::new(Code::Unauthorized, "expected a token: auth.token, or an Authorization header");
            return self.turn_away(request, &error);
        };
        let chat = Arc::clone(self);
        self.run(async move {
            match chat.authenticate(&token).await {
                Ok(identity) => chat.let_in(request, identity),
                Err(error) => chat.turn_away(request, &error),
            }
        });
    }

    /// Who the bearer of a token is.
    ///
    /// # Errors
    /// `token_invalid`, `token_expired`.
    pub async fn authenticate(&self, token: &str) -> Result<Identity, Error> {
        let now = self.now();
        let Some(authenticator) = &self.authenticator else {
            return Err(Error::new(Code::Unauthorized, "tokens are not verified here"));
        };
        let identity = authenticator.authenticate(token, now).await.map_err(|error| match error {
            TokenError::Invalid(expected) => Error::new(Code::TokenInvalid, format!("token: expected {expected}")),
            TokenError::Expired => Error::new(Code::TokenExpired, "the token has expired"),
            TokenError::UnknownKey => Error::new(Code::TokenInvalid, "token: expected a key that is known"),
        })?;
        if self.revoked.covers(&identity, now) || self.is_revoked_elsewhere(&identity).await {
            return Err(Error::new(Code::TokenInvalid, "the token has been revoked"));
        }
        Ok(identity)
    }

    /// Fetches what is needed to verify tokens, if something is.
    pub async fn warm_up(&self) {
        if let Some(authenticator) = &self.authenticator
            && !authenticator.warm_up(self.now()).await
        {
            log::warn!("no key set yet: tokens are refused until it is there");
        }
    }

    /// Whether clients have to prove who they are.
    pub fn is_authenticating(&self) -> bool {
        self.authenticator.is_some()
    }

    fn token_of(&self, request: &ConnectRequest) -> Option<String> {
        let handshake = request.handshake();
        let payload = ConnectAuth::read(request.payload());
        if let Some(token) = payload.token {
            return Some(token.into_owned());
        }
        let header = handshake.authorization.as_deref().and_then(bearer);
        let query = || {
            let fields = handshake.query.split('&').filter(|_| self.settings.token_in_query);
            fields.filter_map(|field| field.strip_prefix("token=")).next()
        };
        header.or_else(query).map(ToOwned::to_owned)
    }

    fn turn_away(&self, request: ConnectRequest, error: &Error) {
        self.metrics.refused(error.metric());
        request.refuse_with("unauthorized", error);
    }

    fn let_in(self: &Arc<Self>, request: ConnectRequest, identity: Identity) {
        let now = self.now();
        let max = self.settings.sockets_per_user;
        let seat = self.users.enter(&identity.user_id, |user, entered| {
            if let Some(left) = user.ban_left(now) {
                Err(Error::rate_limited(left))
            } else if entered.take_seat(max) {
                Ok(Arc::clone(user))
            } else {
                Err(Error::new(Code::LimitReached, format!("expected at most {max} sockets a user")))
            }
        });
        match (seat, request.outbox()) {
            (Ok(user), Some(outbox)) => {
                let member = Arc::new(Member::new(outbox, user.number));
                request.accept_with(Arc::new(Client::new(self, user, member, Arc::new(identity))));
            }
            (Ok(user), None) => self.give_seat_back(&user),
            (Err(error), _) => self.turn_away(request, &error),
        }
    }

    /// The client has joined the namespace.
    pub(super) fn connected(self: &Arc<Self>, socket: &Socket) {
        let Some(client) = client(socket) else { return };
        client.user.add_socket(socket);
        let identity = client.identity();
        // It may have been revoked since it was decided.
        if self.revoked.covers(&identity, self.now()) {
            return self.expire(socket);
        }
        let (chat, door) = (Arc::clone(self), Door { socket: socket.clone(), client: Arc::clone(client) });
        let door_too = door.clone();
        self.step(&door_too, async move {
            let user = &door.client.user;
            // Somebody without a token has never been here before.
            let unread = match &chat.authenticator {
                Some(_) => chat.store.unread(&user.id, chat.now()).await.unwrap_or_default(),
                None => Unread::default(),
            };
            let limits = ReadyLimits {
                text: TEXT_MAX_CHARS,
                payload: chat.settings.max_payload.min(MESSAGE_MAX_BYTES),
                history_page: 100,
            };
            let ready = Ready {
                user_id: &user.id,
                name: &identity.name,
                sid: door.socket.id().as_str(),
                instance: chat.instance(),
                server_time: chat.now(),
                protocol: 1,
                exp: identity.expires_at,
                limits,
                unread: event::Unread(&unread),
            };
            door.socket.emit("ready", &ready);
            chat.watch_expiry(&door.socket, &door.client, &identity);
        });
    }

    /// The client is gone.
    pub(super) fn disconnected(self: &Arc<Self>, socket: &Socket) {
        let Some(client) = client(socket) else { return };
        self.replace_expiry(client, None);
        client.user.remove_socket(socket);
        self.leave_all(client);
        self.leave_plain_rooms(socket);
        if self.authenticator.is_none() {
            // Nobody will ever be this user again.
            let (chat, user) = (Arc::clone(self), Arc::clone(&client.user));
            self.run(async move {
                let _ = chat.store.erase_user(&user.id, chat.now()).await;
            });
        }
    }

    pub(super) async fn refresh_token(self: Arc<Self>, caller: Caller, token: String) -> Result<Refreshed, Error> {
        let Some(door) = &caller.door else { return Ok(Refreshed { exp: None }) };
        if self.authenticator.is_none() {
            return Ok(Refreshed { exp: None });
        }
        let identity = Arc::new(self.authenticate(&token).await?);
        if identity.user_id != caller.user.id {
            return Err(Error::new(Code::Forbidden, "the token is somebody else's"));
        }
        let exp = identity.expires_at;
        door.client.set_identity(Arc::clone(&identity));
        self.watch_expiry(&door.socket, &door.client, &identity);
        // The new token may say less than the old one.
        for meeting in door.client.member.rooms() {
            // Whatever the reason, as at a join: without a right nobody is in.
            if !matches!(self.access.right(&identity, meeting.as_str(), self.now()).await, Ok(Some(_))) {
                self.put_out(&meeting, door, "forbidden");
            }
        }
        Ok(Refreshed { exp })
    }

    /// Closes what a revocation covers, at every instance, and keeps its bearer out. Returns how many sockets that were
    /// here.
    ///
    /// # Errors
    /// `unavailable`: done here, and not certain elsewhere.
    pub async fn revoke(self: &Arc<Self>, revocation: Revoke) -> Result<usize, Error> {
        let closed = self.revoke_here(revocation.clone());
        self.keep_revocation(&revocation).await?;
        let note = Note::Revoke { subject: peers::name_of(&revocation.subject), before: revocation.before };
        self.tell_surely(&note).await?;
        Ok(closed)
    }

    /// Keeps a revocation for instances that begin later.
    ///
    /// # Errors
    /// `unavailable`
    pub(super) async fn keep_revocation(&self, revocation: &Revoke) -> Result<(), Error> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let before = Revocations::before(revocation, self.now());
        let kept = cluster.keep_revocation(&peers::name_of(&revocation.subject), before, REVOCATION_MS).await;
        kept.map_err(|_| Error::unavailable("the revocation cannot be kept", 1000))
    }

    pub(super) fn revoke_here(self: &Arc<Self>, revocation: Revoke) -> usize {
        let now = self.now();
        self.revoked.add(&revocation, now);
        let covered = self.sockets_of(&revocation.subject, |_, identity| self.revoked.covers(identity, now));
        for socket in &covered {
            self.expire(socket);
        }
        covered.len()
    }

    /// Closes the transports of some sockets, at every instance; their clients may come back. Returns how many those were
    /// here.
    ///
    /// # Errors
    /// `unavailable`: done here, and not certain elsewhere.
    pub async fn disconnect(self: &Arc<Self>, subject: &Subject) -> Result<usize, Error> {
        let closed = self.disconnect_here(subject);
        self.tell_surely(&Note::Disconnect { subject: peers::name_of(subject) }).await?;
        Ok(closed)
    }

    pub(super) fn disconnect_here(self: &Arc<Self>, subject: &Subject) -> usize {
        let sockets = match subject {
            // Here, and only here, a socket's own id is meant.
            Subject::Sid(id) => self.sockets().into_iter().filter(|socket| socket.id().as_str() == &**id).collect(),
            _ => self.sockets_of(subject, |_, _| true),
        };
        for socket in &sockets {
            self.dismiss(socket, CloseReason::ServerClose);
        }
        sockets.len()
    }

    /// The sockets of a user, of a token, or of a login session, and of those only the wanted ones.
    fn sockets_of(&self, subject: &Subject, wanted: impl Fn(&Socket, &Identity) -> bool) -> Vec<Socket> {
        let mut sockets = match subject {
            Subject::User(id) => self.users.find(id).map(|user| user.sockets()).unwrap_or_default(),
            Subject::Jti(_) | Subject::Sid(_) => self.sockets(),
        };
        let is_meant = |identity: &Identity| match subject {
            Subject::User(_) => true,
            Subject::Jti(jti) => identity.jti.as_deref() == Some(&**jti),
            Subject::Sid(sid) => identity.sid.as_deref() == Some(&**sid),
        };
        sockets.retain(|socket| {
            let identity = client(socket).map(|client| client.identity());
            identity.is_some_and(|identity| is_meant(&identity) && wanted(socket, &identity))
        });
        sockets
    }

    /// All sockets. For what is rare, and not worth a table of its own.
    pub(super) fn sockets(&self) -> Vec<Socket> {
        self.users.all().iter().flat_map(|user| user.sockets()).collect()
    }

    /// Says when the token ends, and ends the connection then.
    fn watch_expiry(&self, socket: &Socket, client: &Client, identity: &Identity) {
        let now = self.now();
        let notice =
            identity.expires_at.map(|at| (at.saturating_sub(NOTICE_MS).max(now), Job::Expiring(socket.downgrade())));
        self.replace_expiry(client, notice);
    }

    /// Replaces the job for the token's end.
    fn replace_expiry(&self, client: &Client, job: Option<(u64, Job)>) {
        // Held until the new key stands: a job that is due at once replaces itself, behind us.
        let mut expiry = client.expiry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = expiry.take() {
            self.schedule.cancel(key);
        }
        *expiry = job.map(|(at, job)| self.schedule.add(at, job));
    }

    /// A token ends soon.
    pub(super) fn tell_expiring(&self, socket: &Socket) {
        let Some(client) = client(socket).filter(|_| socket.is_connected()) else { return };
        let Some(exp) = client.identity().expires_at else { return };
        socket.emit("auth_expiring", &AuthExpiring { exp, in_ms: exp.saturating_sub(self.now()) });
        self.replace_expiry(client, Some((exp.saturating_add(LEEWAY_MS), Job::Expired(socket.downgrade()))));
    }

    /// A token is good no more. Closing the transport, unlike a DISCONNECT, makes stock clients come back and ask their
    /// application for a new one.
    pub(super) fn expire(self: &Arc<Self>, socket: &Socket) {
        socket.emit("auth_expired", &AuthExpired {});
        self.dismiss(socket, CloseReason::AuthExpired);
    }

    /// Closes a connection, and takes it out of its meetings at once: a client that does not read may stay for a while.
    pub(super) fn dismiss(self: &Arc<Self>, socket: &Socket, reason: CloseReason) {
        socket.close_transport(reason);
        if let Some(client) = client(socket) {
            self.leave_all(client);
        }
    }

    fn leave_all(self: &Arc<Self>, client: &Client) {
        let (chat, user) = (Arc::clone(self), Arc::clone(&client.user));
        self.meetings.remove(&client.member, move |id, room| chat.has_left(room, id, &user));
    }

    /// Counts a refusal, and closes a user who had too many.
    pub(super) fn strike(self: &Arc<Self>, user: &User) {
        let now = self.now();
        if user.strike(self.settings.strikes, now) {
            user.banned_until.store(now + self.settings.penalty_ms, Ordering::Relaxed);
            for socket in user.sockets() {
                self.dismiss(&socket, CloseReason::TooManyRefusals);
            }
        }
    }

    /// Takes a socket out of a meeting, and tells it.
    pub(super) fn put_out(self: &Arc<Self>, meeting: &RoomId, door: &Door, reason: &'static str) {
        let (chat, id, door) = (Arc::clone(self), meeting.clone(), door.clone());
        let member = Arc::clone(&door.client.member);
        self.meetings.leave(meeting, &member, move |room| {
            door.socket.emit("room_left", &RoomLeft { meeting_id: id.as_str(), reason });
            chat.has_left(room, &id, &door.client.user);
        });
    }

    /// Takes all sockets of a user out of a meeting. Returns how many those were.
    pub(super) fn put_user_out(self: &Arc<Self>, meeting: &RoomId, user: &str, reason: &'static str) -> usize {
        let Some(user) = self.users.find(user) else { return 0 };
        doors_into(&user, meeting).map(|door| self.put_out(meeting, &door, reason)).count()
    }

    /// A user's last seat has become free: the user is forgotten when nobody has taken one for a while.
    pub(super) fn forget_later(self: &Arc<Self>, user: &Arc<User>) {
        if self.authenticator.is_none() {
            // A socket's own user.
            self.users.forget(user);
        } else {
            self.schedule.add(self.now() + KEEP_MS, Job::Forget(Arc::clone(user)));
        }
    }

    fn give_seat_back(self: &Arc<Self>, user: &Arc<User>) {
        if user.leave_seat() {
            self.forget_later(user);
        }
    }

    /// A user who came over HTTP.
    ///
    /// # Errors
    /// `rate_limited`: they have to stay away for a while.
    pub fn visitor(self: &Arc<Self>, identity: Identity) -> Result<Caller, Error> {
        let user = self.users.enter(&identity.user_id, |user, entered| {
            if entered.is_to_be_watched() {
                self.schedule.add(self.now() + KEEP_MS, Job::Forget(Arc::clone(user)));
            }
            Arc::clone(user)
        });
        match user.ban_left(self.now()) {
            Some(left) => Err(Error::rate_limited(left)),
            None => Ok(Caller { user, identity: Arc::new(identity), door: None }),
        }
    }
}

/// The sockets of a user that are in a meeting.
pub(super) fn doors_into(user: &User, meeting: &RoomId) -> impl Iterator<Item = Door> {
    user.sockets().into_iter().filter_map(|socket| {
        let client = Arc::clone(client(&socket)?);
        client.member.is_in(meeting.as_str()).then_some(Door { socket, client })
    })
}

/// The token of an `Authorization` header.
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What was revoked, and is to be refused as long as its tokens may live.
#[derive(Default)]
pub(super) struct Revocations(Mutex<HashMap<Subject, Revoked>>);

struct Revoked {
    /// Tokens that were issued later are good. ms since the epoch.
    before: u64,
    at: u64,
}

impl Revocations {
    /// Up to when tokens are bad: a user's next token is good; one that is named is bad for ever.
    fn before(revocation: &Revoke, now: u64) -> u64 {
        revocation.before.unwrap_or(match revocation.subject {
            Subject::User(_) => now,
            _ => u64::MAX,
        })
    }

    fn add(&self, revocation: &Revoke, now: u64) {
        let mut revoked = self.lock();
        if revoked.len() >= REVOCATIONS_MAX && !revoked.contains_key(&revocation.subject) {
            // Many at once: looking for them takes as long as for one.
            let mut times: Vec<u64> = revoked.values().map(|revoked| revoked.at).collect();
            let (_, &mut last, _) = times.select_nth_unstable(REVOCATIONS_MAX / 16);
            let mut left = REVOCATIONS_MAX / 16;
            revoked.retain(|_, revoked| {
                let goes = revoked.at <= last && left > 0;
                left -= usize::from(goes);
                !goes
            });
        }
        let before = Self::before(revocation, now);
        // A narrower one does not undo a wider one.
        let before = revoked.get(&revocation.subject).map_or(before, |known| known.before.max(before));
        revoked.insert(revocation.subject.clone(), Revoked { before, at: now });
    }

    fn covers(&self, identity: &Identity, now: u64) -> bool {
        let revoked = self.lock();
        if revoked.is_empty() {
            return false;
        }
        let is_covered = |target: Subject| {
            revoked.get(&target).is_some_and(|revoked| {
                now < revoked.at + REVOCATION_MS && identity.issued_at.is_none_or(|at| at <= revoked.before)
            })
        };
        is_covered(Subject::User(Arc::clone(&identity.user_id)))
            || identity.jti.clone().is_some_and(|jti| is_covered(Subject::Jti(jti)))
            || identity.sid.clone().is_some_and(|sid| is_covered(Subject::Sid(sid)))
    }

    /// Forgets what is too old.
    pub(super) fn sweep(&self, now: u64) {
        self.lock().retain(|_, revoked| now < revoked.at + REVOCATION_MS);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Revoked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revoke(before: Option<u64>) -> Revoke {
        Revoke { subject: Subject::Jti("j".into()), before }
    }

    #[test]
    fn a_revocation_covers_what_was_issued_before_it_and_a_narrower_one_does_not_undo_it() {
        let bearer =
            |issued_at| Identity { jti: Some("j".into()), issued_at: Some(issued_at), ..Identity::anonymous("u") };
        let revoked = Revocations::default();
        revoked.add(&revoke(Some(1000)), 0);
        assert!(revoked.covers(&bearer(1000), 0) && !revoked.covers(&bearer(1001), 0));
        revoked.add(&revoke(None), 0);
        revoked.add(&revoke(Some(1000)), 0);
        assert!(revoked.covers(&bearer(1001), REVOCATION_MS - 1));
        assert!(!revoked.covers(&bearer(1001), REVOCATION_MS), "forgotten");
    }
}
