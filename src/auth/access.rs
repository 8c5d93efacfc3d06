//! What somebody may do in a meeting: the first source that answers decides.
//!
//! In this order: the token's role `admin`, its claim `meetings`, the noted participants, the authorisation service, the
//! room policy. What participants and service said is kept for 30 s, so that a right can be checked before every write; a
//! check that asks nobody takes no lock and allocates nothing. Who is asked gives up in time by itself: the timeout is in
//! the [`FetchRequest`], and participants are the store's.

use std::{
    cell::Cell,
    collections::{HashMap, hash_map},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use smol::lock::OnceCell;

use super::{Fetch, FetchError, FetchRequest, Identity, Meetings, Right};

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
    /// The right that a participant has; `None` if this source does not know them. An error denies access.
    fn right(&self, meeting: &str, user: &str, now: u64) -> Pin<Box<dyn Future<Output = Noted> + Send + '_>>;

    /// Whether nobody is noted for any meeting, so that there is nothing to ask. Called for every message: cheap, without
    /// a lock.
    fn is_empty(&self) -> bool {
        false
    }
}

/// What is noted of somebody.
pub type Noted = Result<Option<Right>, AccessError>;

/// Decides rights.
pub struct Access {
    policy: RoomPolicy,
    authz_url: Option<String>,
    participants: Arc<dyn Participants>,
    fetch: Arc<dyn Fetch>,
    /// What the sources said. Changed only by whoever holds `flights`, so that an answer cannot pass a `forget`.
    known: papaya::HashMap<Pair, Known>,
    flights: Mutex<HashMap<Pair, Flight>>,
    limits: Limits,
    /// When it was last said in the log that the authorisation service fails.
    warned_at: AtomicU64,
}

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

impl AccessError {
    const UNAVAILABLE: Self = Self::Unavailable { retry_after_ms: 1000 };
}

impl Access {
    /// `authz_url` is asked where claims and participants do not answer.
    pub fn new(
        policy: RoomPolicy,
        authz_url: Option<String>,
        participants: Arc<dyn Participants>,
        fetch: Arc<dyn Fetch>,
    ) -> Self {
        Self {
            policy,
            authz_url,
            participants,
            fetch,
            known: papaya::HashMap::new(),
            flights: Mutex::default(),
            limits: Limits { known: MAX_KNOWN, flights: MAX_FLIGHTS },
            warned_at: AtomicU64::new(0),
        }
    }

    /// What `identity` may do in `meeting` at `now` (ms since the epoch); `None` is nothing. Waits only if somebody has to
    /// be asked; those who wait for the same user and meeting share one question.
    ///
    /// # Errors
    /// Nobody could decide; see [`AccessError`].
    pub async fn right(&self, identity: &Identity, meeting: &str, now: u64) -> Result<Option<Right>, AccessError> {
        for _ in 0..ROUNDS {
            if let Some(decision) = self.right_now(identity, meeting, now) {
                return decision;
            }
            let pair = Pair { user: Arc::clone(&identity.user_id), meeting: meeting.into() };
            let seat = match self.take_seat(pair, now) {
                Begin::Known(answer) => return self.conclude(identity, answer),
                Begin::Full => return Err(AccessError::UNAVAILABLE),
                Begin::Seat(seat) => seat,
            };
            // If the one who asks is dropped, the cell lets the next one ask.
            let answer = seat.cell.get_or_init(|| async {
                let (answer, failed_after_ms) = self.ask(&seat.pair, now).await;
                self.settle(&seat, answer, failed_after_ms, now)
            });
            if let Some(answer) = *answer.await {
                return self.conclude(identity, answer);
            }
            // Forgotten meanwhile: what was said may be what had to be forgotten.
        }
        Err(AccessError::UNAVAILABLE)
    }

    /// What [`right`](Self::right) says, if nobody has to be asked for it. Takes no lock and allocates nothing.
    pub fn right_now(
        &self,
        identity: &Identity,
        meeting: &str,
        now: u64,
    ) -> Option<Result<Option<Right>, AccessError>> {
        if identity.is_admin {
            return Some(Ok(Some(Right::Host)));
        }
        match &identity.meetings {
            Some(Meetings::All) => return Some(Ok(Some(Right::Write))),
            Some(Meetings::Listed(listed)) => {
                if let Some(right) = listed.get(meeting) {
                    return Some(Ok(Some(*right)));
                }
            }
            None => {}
        }
        if self.authz_url.is_none() && self.participants.is_empty() {
            return Some(self.conclude(identity, Answer::Silent));
        }
        let answer = self.known(&identity.user_id, meeting, now)?;
        Some(self.conclude(identity, answer))
    }

    /// Whether an authorisation service is asked.
    pub fn asks_a_service(&self) -> bool {
        self.authz_url.is_some()
    }

    /// Forgets what was decided about a user in a meeting (or in all of them), and what is being asked: whoever waits for
    /// that asks again.
    pub fn forget(&self, user: &str, meeting: Option<&str>) {
        let mut flights = self.flights();
        let known = self.known.pin();
        match meeting {
            Some(meeting) => {
                known.remove(&PairRef { user, meeting });
                flights.remove(&Pair { user: user.into(), meeting: meeting.into() });
            }
            None => {
                known.retain(|pair, _| *pair.user != *user);
                flights.retain(|pair, _| *pair.user != *user);
            }
        }
    }

    /// Drops what is too old to be used. Called about once a minute.
    pub fn sweep(&self, now: u64) {
        let _flights = self.flights();
        self.known.pin().retain(|_, known| known.is_fresh(now));
    }

    fn known(&self, user: &str, meeting: &str, now: u64) -> Option<Answer> {
        let pinned = self.known.pin();
        let known = pinned.get(&PairRef { user, meeting })?;
        known.is_fresh(now).then_some(known.answer)
    }

    /// What an answer means for this token: not every token is subject to the room policy.
    fn conclude(&self, identity: &Identity, answer: Answer) -> Result<Option<Right>, AccessError> {
        match answer {
            Answer::Granted(right) => Ok(Some(right)),
            Answer::Denied => Ok(None),
            Answer::Silent => {
                let is_open = self.policy == RoomPolicy::Authenticated && identity.meetings.is_none();
                Ok(is_open.then_some(Right::Write))
            }
            Answer::NoMeeting => Err(AccessError::NoMeeting),
            Answer::Failed => Err(AccessError::UNAVAILABLE),
        }
    }

    /// Joins those who wait for an answer about the pair, unless it has come since we looked.
    fn take_seat(&self, pair: Pair, now: u64) -> Begin<'_> {
        let mut flights = self.flights();
        if let Some(answer) = self.known(&pair.user, &pair.meeting, now) {
            return Begin::Known(answer);
        }
        let is_full = flights.len() >= self.limits.flights;
        let flight = match flights.entry(pair.clone()) {
            hash_map::Entry::Occupied(entry) => entry.into_mut(),
            hash_map::Entry::Vacant(_) if is_full => return Begin::Full,
            hash_map::Entry::Vacant(entry) => entry.insert(Flight::default()),
        };
        flight.seats += 1;
        Begin::Seat(Seat { access: self, pair, cell: Arc::clone(&flight.cell) })
    }

    /// Asks the sources in their order. With a failure: how many ms after `now` it is known, at least; `None` if asking again
    /// troubles nobody.
    async fn ask(&self, pair: &Pair, now: u64) -> (Answer, Option<u64>) {
        match self.participants.right(&pair.meeting, &pair.user, now).await {
            Ok(Some(right)) => return (Answer::Granted(right), Some(0)),
            Ok(None) => {}
            // Whoever was removed there must not come in because that cannot be read.
            Err(_) => return (Answer::Failed, None),
        }
        let Some(url) = &self.authz_url else { return (Answer::Silent, Some(0)) };
        let question = Question { user_id: &pair.user, meeting_id: &pair.meeting, action: "join" };
        let Ok(json) = serde_json::to_string(&question) else { return (Answer::Failed, Some(0)) };
        let request =
            FetchRequest { url: url.clone(), json: Some(json), timeout: AUTHZ_TIMEOUT, max_bytes: MAX_ANSWER_BYTES };
        let answer = match self.fetch.fetch(request).await {
            Ok(response) => {
                let answer = read_answer(response.status, &response.body);
                if answer == Answer::Failed {
                    self.warn(now, format_args!("the answer, of status {}, says neither yes nor no", response.status));
                }
                answer
            }
            Err(error) => {
                self.warn(now, format_args!("{error:?}"));
                if error == FetchError::Timeout {
                    // There is no clock here, but so much is certain; else the back-off would be over as it begins.
                    return (Answer::Failed, Some(AUTHZ_TIMEOUT.as_millis() as u64));
                }
                Answer::Failed
            }
        };
        (answer, Some(0))
    }

    /// Keeps an answer for those to come, and returns it for those who wait. `None` if the pair was forgotten since it was
    /// asked about.
    fn settle(&self, seat: &Seat<'_>, answer: Answer, failed_after_ms: Option<u64>, now: u64) -> Option<Answer> {
        let mut flights = self.flights();
        let is_current = flights.get(&seat.pair).is_some_and(|flight| Arc::ptr_eq(&flight.cell, &seat.cell));
        if !is_current {
            // Asking a service that fails once more would not help.
            return (answer == Answer::Failed).then_some(answer);
        }
        flights.remove(&seat.pair);
        let Some(failed_after_ms) = failed_after_ms else { return Some(answer) };
        if self.known.len() >= self.limits.known {
            self.make_room(now);
        }
        let keep_ms = if answer == Answer::Failed { failed_after_ms.saturating_add(BACK_OFF_MS) } else { KEEP_MS };
        let known = Known { answer, until: now.saturating_add(keep_ms) };
        self.known.pin().insert(seat.pair.clone(), known);
        Some(answer)
    }

    /// Drops what is too old to be used or, if that is nothing, about a tenth: the oldest. Called with `flights` held.
    fn make_room(&self, now: u64) {
        let known = self.known.pin();
        known.retain(|_, known| known.is_fresh(now));
        if known.len() < self.limits.known {
            return;
        }
        let mut untils: Vec<u64> = known.values().map(|known| known.until).collect();
        let excess = (untils.len() / 10).min(untils.len().saturating_sub(1));
        let (_, oldest, _) = untils.select_nth_unstable(excess);
        // Those of one moment are as old as each other: some of them.
        let left = Cell::new(excess + 1);
        known.retain(|_, known| {
            let goes = known.until <= *oldest && left.get() > 0;
            left.set(left.get() - usize::from(goes));
            !goes
        });
    }

    /// Says in the log that the authorisation service fails, once in a while.
    fn warn(&self, now: u64, what: std::fmt::Arguments<'_>) {
        // ORDERING: Relaxed. Only counts; nothing else is published by it.
        let last = self.warned_at.load(Ordering::Relaxed);
        if now.abs_diff(last) >= WARN_EVERY_MS
            && self.warned_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            log::warn!("the authorisation service fails, so access is denied: {what}");
        }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Pair, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers that are kept: about 200 bytes each.
const MAX_KNOWN: usize = 100_000;
/// Pairs that are asked about at a time. How many requests run at a time is the fetcher's to say.
const MAX_FLIGHTS: usize = 10_000;
/// For how long an answer is used.
const KEEP_MS: u64 = 30_000;
/// For how long nobody is asked about a pair after a failure.
const BACK_OFF_MS: u64 = 1000;
/// By how much the clocks of two callers may differ, for one to use what the other was told.
const SKEW_MS: u64 = 1000;
/// For the question to the authorisation service.
const AUTHZ_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest answer of the authorisation service. A usual one is 30 bytes.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// How often a question is asked that is forgotten while it is asked.
const ROUNDS: usize = 2;
const WARN_EVERY_MS: u64 = 10_000;

struct Limits {
    known: usize,
    flights: usize,
}

/// Who is asked about, where.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Pair {
    user: Arc<str>,
    meeting: Arc<str>,
}

/// A [`Pair`] to look up. The same fields in the same order, so that it hashes alike.
#[derive(Hash)]
struct PairRef<'a> {
    user: &'a str,
    meeting: &'a str,
}

impl papaya::Equivalent<Pair> for PairRef<'_> {
    fn equivalent(&self, pair: &Pair) -> bool {
        *self.user == *pair.user && *self.meeting == *pair.meeting
    }
}

/// What the sources say about a pair. Other tokens of the same user may make something else of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Granted(Right),
    Denied,
    /// None of them knows.
    Silent,
    NoMeeting,
    /// Whoever should know could not be asked.
    Failed,
}

/// An answer and when it ends to be used, in ms since the epoch.
struct Known {
    answer: Answer,
    until: u64,
}

impl Known {
    /// Not after its end; nor long before it began, for then the clock was set back.
    fn is_fresh(&self, now: u64) -> bool {
        (1..=KEEP_MS + SKEW_MS).contains(&self.until.saturating_sub(now))
    }
}

/// A question on its way.
#[derive(Default)]
struct Flight {
    /// Written once, by whichever of those who wait is asking: the answer, or that it was forgotten before it came.
    cell: Arc<OnceCell<Option<Answer>>>,
    /// Those who wait.
    seats: usize,
}

/// One who waits for an answer. The last one to go takes the flight away.
struct Seat<'a> {
    access: &'a Access,
    pair: Pair,
    cell: Arc<OnceCell<Option<Answer>>>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut flights = self.access.flights();
        // An answer or a `forget` has taken the flight away before; there may be a new one.
        if let Some(flight) = flights.get_mut(&self.pair)
            && Arc::ptr_eq(&flight.cell, &self.cell)
        {
            flight.seats = flight.seats.saturating_sub(1);
            if flight.seats == 0 {
                flights.remove(&self.pair);
            }
        }
    }
}

enum Begin<'a> {
    Seat(Seat<'a>),
    Known(Answer),
    /// Too much is being asked.
    Full,
}

/// What the authorisation service is asked.
#[derive(Serialize)]
struct Question<'a> {
    user_id: &'a str,
    meeting_id: &'a str,
    action: &'a str,
}

/// What it answers.
#[derive(Deserialize)]
struct Verdict {
    allow: bool,
    right: Option<String>,
}

fn read_answer(status: u16, body: &[u8]) -> Answer {
    match status {
        200..=299 => read_verdict(body).unwrap_or(Answer::Failed),
        403 => Answer::Denied,
        404 => Answer::NoMeeting,
        _ => Answer::Failed,
    }
}

fn read_verdict(body: &[u8]) -> Option<Answer> {
    // An array would be taken for the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let verdict: Verdict = serde_json::from_slice(body).ok()?;
    match verdict.right {
        _ if !verdict.allow => Some(Answer::Denied),
        None => Some(Answer::Granted(Right::Write)),
        Some(name) => Right::from_name(&name).map(Answer::Granted),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::mpsc, thread};

    use smol::{block_on, channel, future::poll_once};

    use super::*;
    use crate::auth::FetchResponse;

    const NOW: u64 = 1_700_000_000_000;
    const UNAVAILABLE: Decision = Err(AccessError::Unavailable { retry_after_ms: 1000 });

    type Reply = Result<FetchResponse, FetchError>;
    type Decision = Result<Option<Right>, AccessError>;

    /// Answers with what the test sends, one by one; waits while there is nothing.
    struct Script {
        asked: Mutex<Vec<FetchRequest>>,
        say: channel::Sender<Reply>,
        said: channel::Receiver<Reply>,
    }

    impl Script {
        fn new() -> Arc<Self> {
            let (say, said) = channel::unbounded();
            Arc::new(Self { asked: Mutex::default(), say, said })
        }

        fn say(&self, status: u16, body: &str) {
            self.say.try_send(Ok(FetchResponse { status, body: body.into() })).unwrap();
        }

        fn fail(&self, error: FetchError) {
            self.say.try_send(Err(error)).unwrap();
        }

        fn count(&self) -> usize {
            self.asked.lock().unwrap().len()
        }
    }

    impl Fetch for Script {
        fn fetch(&self, request: FetchRequest) -> Pin<Box<dyn Future<Output = Reply> + Send + '_>> {
            self.asked.lock().unwrap().push(request);
            Box::pin(async { self.said.recv().await.unwrap() })
        }
    }

    #[derive(Default)]
    struct Notes {
        rights: Mutex<HashMap<(String, String), Right>>,
        asked: AtomicU64,
        is_empty: bool,
    }

    impl Notes {
        fn with(meeting: &str, user: &str, right: Right) -> Arc<Self> {
            let noted = Self::default();
            noted.rights.lock().unwrap().insert((meeting.into(), user.into()), right);
            Arc::new(noted)
        }

        fn count(&self) -> u64 {
            self.asked.load(Ordering::Relaxed)
        }
    }

    impl Participants for Notes {
        fn right(&self, meeting: &str, user: &str, _: u64) -> Pin<Box<dyn Future<Output = Noted> + Send + '_>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let right = self.rights.lock().unwrap().get(&(meeting.into(), user.into())).copied();
            Box::pin(async move { Ok(right) })
        }

        fn is_empty(&self) -> bool {
            self.is_empty
        }
    }

    fn access(policy: RoomPolicy, noted: &Arc<Notes>, script: &Arc<Script>, asks: bool) -> Access {
        let url = asks.then(|| "http://auth/allow".to_owned());
        Access::new(policy, url, Arc::clone(noted) as Arc<_>, Arc::clone(script) as Arc<_>)
    }

    /// One that asks the service about everything.
    fn asking() -> (Access, Arc<Script>) {
        let script = Script::new();
        (access(RoomPolicy::Authenticated, &Arc::default(), &script, true), script)
    }

    fn user(id: &str) -> Identity {
        Identity::anonymous(id)
    }

    fn listing(meeting: &str, right: Right) -> Identity {
        Identity { meetings: Some(Meetings::Listed(HashMap::from([(meeting.into(), right)]))), ..user("u") }
    }

    fn right(access: &Access, user: &Identity, meeting: &str, now: u64) -> Decision {
        block_on(access.right(user, meeting, now))
    }

    #[test]
    fn the_first_source_that_answers_decides() {
        use RoomPolicy::{Authenticated, Members};
        let admin = Identity { is_admin: true, ..listing("m", Right::Read) };
        let all = Identity { meetings: Some(Meetings::All), ..user("u") };
        let service = Identity { is_service: true, ..user("u") };
        let none = Identity { meetings: Some(Meetings::Listed(HashMap::new())), ..user("u") };
        let (read, write, host) = (Ok(Some(Right::Read)), Ok(Some(Right::Write)), Ok(Some(Right::Host)));
        let (yes, no, gone) = (Some((200, r#"{"allow":true}"#)), Some((403, "")), Some((404, "")));
        let noted = Some(Right::Host);
        // Who; what is noted; what the service says, if there is one; the policy; the decision; whether it took no asking.
        let cases = [
            ("admin", &admin, None, no, Members, host, true),
            ("all", &all, noted, no, Members, write, true),
            ("listed", &listing("m", Right::Read), noted, yes, Members, read, true),
            ("listed host", &listing("m", Right::Host), None, no, Members, host, true),
            ("unlisted, noted", &listing("x", Right::Read), noted, no, Members, host, false),
            ("unlisted, asked", &listing("x", Right::Read), None, yes, Members, write, false),
            ("unlisted, refused", &listing("x", Right::Read), None, no, Authenticated, Ok(None), false),
            ("unlisted, unknown", &listing("x", Right::Read), None, None, Authenticated, Ok(None), false),
            ("nothing listed", &none, None, None, Authenticated, Ok(None), false),
            ("noted", &user("u"), noted, no, Members, host, false),
            ("noted for less", &user("u"), Some(Right::Read), yes, Authenticated, read, false),
            ("asked", &user("u"), None, yes, Members, write, false),
            ("refused", &user("u"), None, no, Authenticated, Ok(None), false),
            ("no meeting", &user("u"), None, gone, Authenticated, Err(AccessError::NoMeeting), false),
            ("members", &user("u"), None, None, Members, Ok(None), false),
            ("authenticated", &user("u"), None, None, Authenticated, write, false),
            ("a service, as others", &service, None, None, Members, Ok(None), false),
            ("a service, refused", &service, None, no, Authenticated, Ok(None), false),
        ];
        for (name, identity, noted, said, policy, expected, at_once) in cases {
            let script = Script::new();
            let noted = noted.map_or_else(Arc::default, |right| Notes::with("m", "u", right));
            let access = access(policy, &noted, &script, said.is_some());
            if let Some((status, body)) = said {
                script.say(status, body);
            }
            assert_eq!(access.right_now(identity, "m", NOW), at_once.then_some(expected), "{name}");
            assert_eq!(right(&access, identity, "m", NOW), expected, "{name}");
            assert_eq!(access.right_now(identity, "m", NOW), Some(expected), "{name}, again");
            assert_eq!(noted.count(), u64::from(!at_once), "{name}");
        }
    }

    #[test]
    fn the_question() {
        let (access, script) = asking();
        script.say(200, r#"{"allow":true}"#);
        assert_eq!(right(&access, &user("u \"1\""), "m", NOW), Ok(Some(Right::Write)));
        let asked = script.asked.lock().unwrap();
        let [request] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!(request.url, "http://auth/allow");
        assert_eq!(request.json.as_deref(), Some(r#"{"user_id":"u \"1\"","meeting_id":"m","action":"join"}"#));
        assert_eq!(request.timeout, Duration::from_secs(1));
        assert_eq!(request.max_bytes, 16 * 1024);
    }

    #[test]
    fn answers_of_the_service() {
        use Answer::{Denied, Failed, Granted, NoMeeting};
        let cases = [
            (200, r#"{"allow":true}"#, Granted(Right::Write)),
            (200, r#"{"allow":true,"right":null}"#, Granted(Right::Write)),
            (200, r#"{"allow":true,"right":"read"}"#, Granted(Right::Read)),
            (200, r#"{"allow":true,"right":"write"}"#, Granted(Right::Write)),
            (201, " \r\n{\"right\" : \"host\", \"allow\":true, \"more\":[1]}\n", Granted(Right::Host)),
            (200, r#"{"allow":false}"#, Denied),
            (200, r#"{"allow":false,"right":"host"}"#, Denied),
            (200, r#"{"allow":false,"right":"whatever"}"#, Denied),
            (403, r#"{"allow":true}"#, Denied),
            (404, r#"{"allow":true}"#, NoMeeting),
            (200, r#"{"allow":true,"right":"owner"}"#, Failed),
            (200, r#"{"allow":true,"right":"Read"}"#, Failed),
            (200, r#"{"allow":true,"right":""}"#, Failed),
            (200, r#"{"allow":true,"right":1}"#, Failed),
            (200, r#"{"allow":1}"#, Failed),
            (200, r#"{"allow":"true"}"#, Failed),
            (200, r#"{"allow":null}"#, Failed),
            (200, r#"{"allow":false,"allow":true}"#, Failed),
            (200, r#"{"right":"write"}"#, Failed),
            (200, r#"{"allow":true"#, Failed),
            (200, r#"{"allow":true}{"#, Failed),
            (200, r#"[true,"host"]"#, Failed),
            (200, "true", Failed),
            (200, "{}", Failed),
            (200, "", Failed),
            (204, "", Failed),
            (199, r#"{"allow":true}"#, Failed),
            (300, r#"{"allow":true}"#, Failed),
            (302, r#"{"allow":true}"#, Failed),
            (401, r#"{"allow":true}"#, Failed),
            (429, r#"{"allow":true}"#, Failed),
            (500, r#"{"allow":true}"#, Failed),
            (503, "", Failed),
        ];
        for (status, body, expected) in cases {
            assert_eq!(read_answer(status, body.as_bytes()), expected, "{status} {body}");
        }
        assert_eq!(read_answer(200, b"{\"allow\":true,\"right\":\"\xff\"}"), Failed);
        assert_eq!(read_answer(200, &b"[".repeat(16 * 1024)), Failed);
        assert_eq!(read_answer(200, &[br#"{"allow":true,"x":"#, &b"[".repeat(16 * 1024)[..]].concat()), Failed);
    }

    #[test]
    fn answers_are_kept_for_30_seconds() {
        let cases: [(u16, &str, Decision); 3] = [
            (200, r#"{"allow":true}"#, Ok(Some(Right::Write))),
            (403, "", Ok(None)),
            (404, "", Err(AccessError::NoMeeting)),
        ];
        for (status, body, expected) in cases {
            let (access, script) = asking();
            script.say(status, body);
            assert_eq!(right(&access, &user("u"), "m", NOW), expected);
            // The clock of another thread may be a little behind.
            for now in [NOW - 1000, NOW, NOW + 29_999] {
                assert_eq!(access.right_now(&user("u"), "m", now), Some(expected), "{status}");
                assert_eq!(right(&access, &user("u"), "m", now), expected, "{status}");
            }
            // Too old; or from a future that has been set back.
            for now in [NOW + 30_000, NOW + 30_001, u64::MAX, NOW - 1001, 0] {
                assert_eq!(access.right_now(&user("u"), "m", now), None, "{status}");
            }
            // About nobody else, and nowhere else.
            assert_eq!(access.right_now(&user("m"), "u", NOW), None);
            assert_eq!(access.right_now(&user("u"), "m2", NOW), None);
            assert_eq!(access.right_now(&user("um"), "", NOW), None);
            assert_eq!(script.count(), 1);

            script.say(200, r#"{"allow":true,"right":"host"}"#);
            assert_eq!(right(&access, &user("u"), "m", NOW + 30_000), Ok(Some(Right::Host)));
            assert_eq!(access.right_now(&user("u"), "m", NOW + 59_999), Some(Ok(Some(Right::Host))));
            assert_eq!(script.count(), 2);
        }
    }

    #[test]
    fn participants_are_kept_too() {
        let (noted, script) = (Notes::with("m", "u", Right::Read), Script::new());
        let access = access(RoomPolicy::Members, &noted, &script, false);
        for _ in 0..2 {
            assert_eq!(right(&access, &user("u"), "m", NOW), Ok(Some(Right::Read)));
            assert_eq!(right(&access, &user("v"), "m", NOW), Ok(None));
        }
        assert_eq!(noted.count(), 2);
        noted.rights.lock().unwrap().insert(("m".into(), "v".into()), Right::Write);
        assert_eq!(right(&access, &user("v"), "m", NOW + 29_999), Ok(None));
        access.forget("v", Some("m"));
        assert_eq!(right(&access, &user("v"), "m", NOW + 29_999), Ok(Some(Right::Write)));
        assert_eq!(noted.count(), 3);
        assert_eq!(right(&access, &user("u"), "m", NOW + 30_000), Ok(Some(Right::Read)));
        assert_eq!(noted.count(), 4);
    }

    #[test]
    fn what_one_token_was_told_does_not_open_the_room_to_another() {
        let (noted, script) = (Arc::default(), Script::new());
        let access = access(RoomPolicy::Authenticated, &noted, &script, false);
        assert_eq!(right(&access, &user("u"), "m", NOW), Ok(Some(Right::Write)));
        assert_eq!(right(&access, &listing("x", Right::Write), "m", NOW), Ok(None));
        assert_eq!(right(&access, &user("u"), "m", NOW), Ok(Some(Right::Write)));
        assert_eq!(noted.count(), 1);
    }

    #[test]
    fn without_sources_nobody_is_asked() {
        let noted = Arc::new(Notes { is_empty: true, ..Notes::default() });
        for (policy, expected) in [(RoomPolicy::Members, None), (RoomPolicy::Authenticated, Some(Right::Write))] {
            let access = access(policy, &noted, &Script::new(), false);
            assert_eq!(access.right_now(&user("u"), "m", NOW), Some(Ok(expected)));
            assert_eq!(right(&access, &user("u"), "m", NOW), Ok(expected));
            assert_eq!(access.right_now(&listing("x", Right::Read), "m", NOW), Some(Ok(None)));
        }
        assert_eq!(noted.count(), 0);
        // There is still the service to ask.
        assert_eq!(access(RoomPolicy::Members, &noted, &Script::new(), true).right_now(&user("u"), "m", NOW), None);
    }

    #[test]
    fn what_is_known_is_told_without_the_lock() {
        let (access, script) = asking();
        script.say(403, "");
        assert_eq!(right(&access, &user("u"), "m", NOW), Ok(None));
        let (done, is_done) = mpsc::channel();
        let access = Arc::new(access);
        let held = access.flights();
        thread::spawn({
            let access = Arc::clone(&access);
            move || {
                let admin = Identity { is_admin: true, ..user("u") };
                let told = [&admin, &listing("m", Right::Read), &user("u")].map(|who| access.right_now(who, "m", NOW));
                done.send(told).unwrap();
            }
        });
        let told = is_done.recv_timeout(Duration::from_secs(10)).expect("it waits for the lock");
        assert_eq!(told, [Some(Ok(Some(Right::Host))), Some(Ok(Some(Right::Read))), Some(Ok(None))]);
        drop(held);
    }

    #[test]
    fn failures_deny_and_are_kept_for_a_second() {
        // The reply; when it can be known, in ms.
        let cases: [(Reply, u64); 6] = [
            (Err(FetchError::BadUrl), 0),
            (Err(FetchError::TooLarge), 0),
            (Err(FetchError::Failed("refused".into())), 0),
            (Err(FetchError::Timeout), 1000),
            (Ok(FetchResponse { status: 500, body: vec![] }), 0),
            (Ok(FetchResponse { status: 200, body: b"{}".to_vec() }), 0),
        ];
        for (reply, after) in cases {
            let (access, script) = asking();
            script.say.try_send(reply.clone()).unwrap();
            assert_eq!(right(&access, &user("u"), "m", NOW), UNAVAILABLE, "{reply:?}");
            assert_eq!(right(&access, &user("u"), "m", NOW + after + 999), UNAVAILABLE, "{reply:?}");
            assert_eq!(script.count(), 1, "{reply:?}");
            assert_eq!(access.right_now(&user("u"), "m", NOW + after + 1000), None, "{reply:?}");
            // Others are asked about.
            script.say(403, "");
            assert_eq!(right(&access, &user("v"), "m", NOW), Ok(None), "{reply:?}");
            script.say(200, r#"{"allow":true}"#);
            assert_eq!(right(&access, &user("u"), "m", NOW + after + 1000), Ok(Some(Right::Write)), "{reply:?}");
        }
    }

    #[test]
    fn a_failure_is_said_in_the_log_once_in_a_while() {
        let (access, script) = asking();
        for (now, warned_at) in [(NOW, NOW), (NOW + 9_999, NOW), (NOW + 10_000, NOW + 10_000)] {
            script.fail(FetchError::Timeout);
            assert_eq!(right(&access, &user("u"), &format!("{now}"), now), UNAVAILABLE);
            assert_eq!(access.warned_at.load(Ordering::Relaxed), warned_at);
        }
    }

    #[test]
    fn those_who_wait_share_one_question() {
        for (status, expected) in [(403, Ok(None)), (500, UNAVAILABLE)] {
            let (access, script) = asking();
            let (u, v) = (user("u"), user("v"));
            block_on(async {
                let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(access.right(&u, "m", NOW))).collect();
                for future in &mut waiting {
                    assert_eq!(poll_once(future).await, None);
                }
                let (mut other_user, mut other_meeting) =
                    (Box::pin(access.right(&v, "m", NOW)), Box::pin(access.right(&u, "n", NOW)));
                assert_eq!(poll_once(&mut other_user).await, None);
                assert_eq!(poll_once(&mut other_meeting).await, None);
                assert_eq!(script.count(), 3);
                assert_eq!(access.flights().len(), 3);
                for _ in 0..3 {
                    script.say(status, "");
                }
                for future in waiting {
                    assert_eq!(future.await, expected);
                }
                assert_eq!(other_user.await, expected);
                assert_eq!(other_meeting.await, expected);
            });
            assert_eq!(script.count(), 3);
            assert!(access.flights().is_empty());
        }
    }

    #[test]
    fn another_asks_if_the_one_who_asks_goes_away() {
        let (access, script) = asking();
        let u = user("u");
        block_on(async {
            let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(access.right(&u, "m", NOW))).collect();
            for future in &mut waiting {
                assert_eq!(poll_once(future).await, None);
            }
            // The one who asks, and one who only waits.
            drop(waiting.remove(0));
            drop(waiting.remove(2));
            assert_eq!(script.count(), 1);
            assert_eq!(access.flights().len(), 1);
            script.say(200, r#"{"allow":true}"#);
            for future in waiting {
                assert_eq!(future.await, Ok(Some(Right::Write)));
            }
            assert_eq!(script.count(), 2);

            // Nobody is left: nothing stays.
            let mut last = Box::pin(access.right(&u, "n", NOW));
            assert_eq!(poll_once(&mut last).await, None);
            drop(last);
        });
        assert!(access.flights().is_empty());
        assert_eq!(access.known.len(), 1);
    }

    #[test]
    fn what_is_forgotten_is_asked_again() {
        let (access, script) = asking();
        let known = |user_id: &str, meeting: &str| access.right_now(&user(user_id), meeting, NOW).is_some();
        for (user_id, meeting) in [("u", "m"), ("u", "n"), ("v", "m")] {
            script.say(403, "");
            assert_eq!(right(&access, &user(user_id), meeting, NOW), Ok(None));
        }
        access.forget("u", Some("x"));
        access.forget("x", None);
        assert!(known("u", "m") && known("u", "n") && known("v", "m"));
        access.forget("u", Some("m"));
        assert!(!known("u", "m") && known("u", "n") && known("v", "m"));
        access.forget("u", None);
        assert!(!known("u", "n") && known("v", "m"));
    }

    #[test]
    fn an_answer_that_was_forgotten_on_its_way_is_not_used() {
        for meeting in [Some("m"), None] {
            let (access, script) = asking();
            let u = user("u");
            block_on(async {
                let (mut first, mut second) =
                    (Box::pin(access.right(&u, "m", NOW)), Box::pin(access.right(&u, "m", NOW)));
                assert_eq!(poll_once(&mut first).await, None);
                assert_eq!(poll_once(&mut second).await, None);
                access.forget("u", meeting);
                // Somebody who comes later does not wait for the old answer.
                let mut third = Box::pin(access.right(&u, "m", NOW));
                assert_eq!(poll_once(&mut third).await, None);
                assert_eq!(script.count(), 2);
                script.say(200, r#"{"allow":true}"#);
                assert_eq!(poll_once(&mut first).await, None);
                assert!(access.right_now(&u, "m", NOW).is_none());
                script.say(403, "");
                assert_eq!(third.await, Ok(None));
                assert_eq!(first.await, Ok(None));
                assert_eq!(second.await, Ok(None));
            });
            assert_eq!(script.count(), 2);
            assert!(access.flights().is_empty());
        }
    }

    #[test]
    fn asking_again_has_an_end() {
        let (access, script) = asking();
        let u = user("u");
        block_on(async {
            let mut asking = Box::pin(access.right(&u, "m", NOW));
            assert_eq!(poll_once(&mut asking).await, None);
            access.forget("u", Some("m"));
            script.say(200, r#"{"allow":true}"#);
            assert_eq!(poll_once(&mut asking).await, None);
            access.forget("u", Some("m"));
            script.say(200, r#"{"allow":true}"#);
            assert_eq!(poll_once(&mut asking).await, Some(UNAVAILABLE));
        });
        assert_eq!(script.count(), ROUNDS);
        assert!(access.flights().is_empty() && access.known.is_empty());
    }

    #[test]
    fn what_is_known_is_bounded() {
        let (mut access, script) = asking();
        access.limits.known = 20;
        let ask = |user_id: usize, now: u64| {
            script.say(403, "");
            assert_eq!(right(&access, &user(&user_id.to_string()), "m", now), Ok(None));
        };
        let known = |now: u64| -> HashSet<usize> {
            (0..100).filter(|id| access.right_now(&user(&id.to_string()), "m", now).is_some()).collect()
        };
        for id in 0..20 {
            ask(id, NOW + id as u64);
        }
        assert_eq!(access.known.len(), 20);
        // One more: the oldest go, which are a tenth and one.
        ask(20, NOW + 20);
        assert_eq!(known(NOW + 20), (3..=20).collect());
        assert_eq!(access.known.len(), 18);
        ask(21, NOW + 21);
        ask(22, NOW + 22);
        assert_eq!(access.known.len(), 20);
        // What is out of date goes first, and then nothing else need.
        ask(23, NOW + 30_010);
        assert_eq!(known(NOW + 30_010), (11..=23).collect());
        assert_eq!(access.known.len(), 13);
        access.sweep(NOW + 30_011);
        assert_eq!(access.known.len(), 12);
        // All of one moment: not all of them go.
        for id in 30..100 {
            ask(id, NOW + 50_000);
            assert!((10..=20).contains(&access.known.len()), "{}", access.known.len());
        }
        assert!(access.known.len() >= 18);
        access.sweep(NOW + 80_000);
        assert!(access.known.is_empty());
    }

    #[test]
    fn a_bound_of_one_still_works() {
        let (mut access, script) = asking();
        access.limits.known = 1;
        for id in ["u", "v", "w"] {
            script.say(403, "");
            assert_eq!(right(&access, &user(id), "m", NOW), Ok(None));
            assert_eq!(access.known.len(), 1);
            assert_eq!(access.right_now(&user(id), "m", NOW), Some(Ok(None)));
        }
    }

    #[test]
    fn questions_are_bounded() {
        let (mut access, script) = asking();
        access.limits.flights = 2;
        let [u, v, w] = ["u", "v", "w"].map(user);
        block_on(async {
            let (mut first, mut second) = (Box::pin(access.right(&u, "m", NOW)), Box::pin(access.right(&v, "m", NOW)));
            assert_eq!(poll_once(&mut first).await, None);
            assert_eq!(poll_once(&mut second).await, None);
            assert_eq!(poll_once(Box::pin(access.right(&w, "m", NOW))).await, Some(UNAVAILABLE));
            // To wait for what is being asked is still possible.
            let mut third = Box::pin(access.right(&u, "m", NOW));
            assert_eq!(poll_once(&mut third).await, None);
            script.say(403, "");
            assert_eq!(first.await, Ok(None));
            assert_eq!(third.await, Ok(None));
            script.say(403, "");
            assert_eq!(access.right(&w, "m", NOW).await, Ok(None));
        });
    }

    #[test]
    fn many_threads_get_one_answer_per_question() {
        let (access, script) = asking();
        for _ in 0..1000 {
            script.say(403, "");
        }
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for meeting in 0..50 {
                        assert_eq!(right(&access, &user("u"), &meeting.to_string(), NOW), Ok(None));
                    }
                });
            }
        });
        assert_eq!(script.count(), 50);
        assert!(access.flights().is_empty());
    }
}
