//! Verifies tokens, and fetches the key set when it takes that.
//!
//! There is no task in the background: whoever needs newer keys fetches them, once for all who wait. What a token must
//! look like is left to [`token`](super::token), HTTP to [`Fetch`].

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use smol::lock::{Mutex, MutexGuard};

use super::{
    Fetch, FetchError, FetchRequest, FetchResponse, Identity,
    jwks::JWKS_MAX_BYTES,
    token::{KeyError, KeySource, TokenError, TokenSettings, Verifier},
};

/// Says who somebody is, by their token. Shared by all connections.
pub struct Authenticator {
    verifier: Verifier,
    /// With a key set only.
    key_set: Option<KeySetSource>,
}

/// Where the key set comes from, and when it did.
struct KeySetSource {
    url: String,
    fetch: Arc<dyn Fetch>,
    /// When the keys in force were fetched, in ms since the epoch, or [`NEVER`].
    fetched_at: AtomicU64,
    /// How many fetches have ended, well or badly.
    ended: AtomicU64,
    /// Whoever holds the lock drives the fetch, and the others wait for the lock.
    fetching: Mutex<Fetching>,
}

#[derive(Default)]
struct Fetching {
    /// When the last fetch began, in ms since the epoch.
    began_at: Option<u64>,
    /// The fetch that is under way. It stands here and not in its driver's future, because a driver may be dropped
    /// (its client went away): then the next in the queue goes on with it. Otherwise anybody could spend the one
    /// fetch of a minute by coming with an unknown `kid` and leaving.
    pending: Option<Pending>,
}

struct Pending(Pin<Box<dyn Future<Output = Result<FetchResponse, FetchError>> + Send>>);

const NEVER: u64 = u64::MAX;
/// Least time between two fetches, in ms.
const FETCH_INTERVAL_MS: u64 = 60_000;
/// The same while there are no keys at all, in ms: longer than a fetch may take.
const FIRST_FETCH_INTERVAL_MS: u64 = 6_000;
/// Age at which keys are fetched anew, in ms: how long a key that was withdrawn can stay in use.
const KEYS_MAX_AGE_MS: u64 = 600_000;
/// A client waits for this, and gives up a connection attempt after some 20 s.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

impl Authenticator {
    /// `jwks_url` is where the key set is fetched from: there if and only if the key source is [`KeySource::Jwks`].
    /// Nothing is fetched yet; see [`warm_up`](Self::warm_up).
    ///
    /// # Errors
    /// The key does not fit the algorithms or the URL, or cannot be read.
    pub fn new(settings: TokenSettings, jwks_url: Option<String>, fetch: Arc<dyn Fetch>) -> Result<Self, KeyError> {
        let key_set = match (&settings.key, jwks_url) {
            (KeySource::Jwks, Some(url)) => Some(KeySetSource::new(url, fetch)),
            (KeySource::Jwks, None) => return Err(KeyError("a key set, but no URL to fetch it from".to_owned())),
            (_, Some(_)) => return Err(KeyError("a URL of a key set beside another key".to_owned())),
            (_, None) => None,
        };
        Ok(Self { verifier: Verifier::new(settings)?, key_set })
    }

    /// Fetches the key set, if there is one to fetch, so that the first client need not wait for it. Returns whether
    /// there are keys now; if not, [`authenticate`](Self::authenticate) will try again.
    pub async fn warm_up(&self, now: u64) -> bool {
        let Some(key_set) = &self.key_set else { return true };
        key_set.refresh(&self.verifier, now).await;
        key_set.fetched_at.load(Ordering::Relaxed) != NEVER
    }

    /// Verifies a token at `now`, in ms since the epoch.
    ///
    /// Waits only with a key set, for at most one fetch: if the token's key is not in the set, or if the set is older
    /// than 10 min and nobody else is fetching it. There is at most one fetch a minute, the first good one aside, and
    /// one in 6 s as long as there are no keys at all. If it fails the old keys
    /// stay. The future may be dropped at any time.
    ///
    /// # Errors
    /// Why it is refused. Until a key set could be fetched, that is [`TokenError::UnknownKey`].
    pub async fn authenticate(&self, token: &str, now: u64) -> Result<Identity, TokenError> {
        let verified = self.verifier.verify(token, now);
        let Some(key_set) = &self.key_set else { return verified };
        match verified {
            Err(TokenError::UnknownKey) => key_set.refresh(&self.verifier, now).await,
            Ok(_) if key_set.is_old(now) => key_set.refresh_unless_others_do(&self.verifier, now).await,
            Ok(_) | Err(_) => return verified,
        }
        self.verifier.verify(token, now)
    }
}

impl KeySetSource {
    fn new(url: String, fetch: Arc<dyn Fetch>) -> Self {
        Self {
            url,
            fetch,
            fetched_at: AtomicU64::new(NEVER),
            ended: AtomicU64::new(0),
            fetching: Mutex::new(Fetching::default()),
        }
    }

    fn is_old(&self, now: u64) -> bool {
        // ORDERING: Relaxed. The keys have a lock of their own; a glance at the wrong time costs a look at `fetching`.
        let fetched_at = self.fetched_at.load(Ordering::Relaxed);
        fetched_at != NEVER && is_apart(now, fetched_at, KEYS_MAX_AGE_MS)
    }

    /// Waits for the fetch that is under way, or fetches if it is time.
    async fn refresh(&self, verifier: &Verifier, now: u64) {
        // ORDERING: Relaxed. Written under the lock, and read again under the lock.
        let ended = self.ended.load(Ordering::Relaxed);
        let fetching = self.fetching.lock().await;
        if self.ended.load(Ordering::Relaxed) == ended {
            self.drive(fetching, verifier, now).await;
        }
    }

    /// Fetches if it is time and nobody does so: old keys are good enough to go on with.
    async fn refresh_unless_others_do(&self, verifier: &Verifier, now: u64) {
        if let Some(fetching) = self.fetching.try_lock() {
            self.drive(fetching, verifier, now).await;
        }
    }

    async fn drive(&self, mut fetching: MutexGuard<'_, Fetching>, verifier: &Verifier, now: u64) {
        // A fetch that was left alone for so long is dropped here: it can only have timed out.
        let has_keys = self.fetched_at.load(Ordering::Relaxed) != NEVER;
        let interval_ms = if has_keys { FETCH_INTERVAL_MS } else { FIRST_FETCH_INTERVAL_MS };
        if fetching.began_at.is_none_or(|began_at| is_apart(now, began_at, interval_ms)) {
            fetching.began_at = Some(now);
            fetching.pending = Some(self.begin());
        }
        let Some(Pending(answer)) = &mut fetching.pending else { return };
        let answer = answer.await;
        fetching.pending = None;
        match set_keys(verifier, answer) {
            Ok(usable) => {
                log::debug!("key set fetched: {usable} usable keys");
                if self.fetched_at.swap(now, Ordering::Relaxed) == NEVER {
                    // To have keys at all is no refresh: a key that is new since may be asked for at once.
                    fetching.began_at = None;
                }
            }
            Err(why) => log::warn!("key set not fetched, the old keys stay: {why}"),
        }
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    fn begin(&self) -> Pending {
        let fetch = Arc::clone(&self.fetch);
        let url = self.url.clone();
        let request = FetchRequest { url, json: None, timeout: FETCH_TIMEOUT, max_bytes: JWKS_MAX_BYTES };
        Pending(Box::pin(async move { fetch.fetch(request).await }))
    }
}

fn set_keys(verifier: &Verifier, answer: Result<FetchResponse, FetchError>) -> Result<usize, String> {
    match answer {
        Ok(FetchResponse { status: 200, body }) => verifier.set_keys(&body).map_err(|err| err.0),
        Ok(FetchResponse { status, .. }) => Err(format!("status {status}")),
        Err(err) => Err(format!("{err:?}")),
    }
}

/// Whether two readings of the clock are `ms` apart, in either direction: callers come a little out of order, and a
/// clock that was set back must not stop the fetching until it is as late again.
fn is_apart(now: u64, then: u64, ms: u64) -> bool {
    now.abs_diff(then) >= ms
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::Mutex as StdMutex,
        task::{Context, Poll, Waker},
    };

    use super::*;
    use crate::auth::{
        mint::{self, NOW},
        token::Algorithm,
    };

    /// Answers fetches in turn, each when it is told to.
    #[derive(Default)]
    struct Server {
        requests: StdMutex<Vec<FetchRequest>>,
        answers: StdMutex<VecDeque<Result<FetchResponse, FetchError>>>,
        sleeper: StdMutex<Option<Waker>>,
    }

    impl Server {
        fn answer(&self, answer: Result<FetchResponse, FetchError>) {
            self.answers.lock().unwrap().push_back(answer);
            if let Some(waker) = self.sleeper.lock().unwrap().take() {
                waker.wake();
            }
        }

        fn answer_keys(&self, keys: &[String]) {
            self.answer(Ok(FetchResponse { status: 200, body: mint::jwks(keys).into_bytes() }));
        }

        fn fetches(&self) -> usize {
            self.requests.lock().unwrap().len()
        }
    }

    impl Fetch for Server {
        fn fetch(
            &self,
            request: FetchRequest,
        ) -> Pin<Box<dyn Future<Output = Result<FetchResponse, FetchError>> + Send + '_>> {
            self.requests.lock().unwrap().push(request);
            Box::pin(std::future::poll_fn(|context| match self.answers.lock().unwrap().pop_front() {
                Some(answer) => Poll::Ready(answer),
                None => {
                    *self.sleeper.lock().unwrap() = Some(context.waker().clone());
                    Poll::Pending
                }
            }))
        }
    }

    fn start() -> (Arc<Server>, Authenticator) {
        let server = Arc::new(Server::default());
        let settings = mint::settings(&[Algorithm::EdDsa], KeySource::Jwks);
        let url = Some("https://auth.test/jwks".to_owned());
        let authenticator = Authenticator::new(settings, url, Arc::clone(&server) as Arc<dyn Fetch>).unwrap();
        (server, authenticator)
    }

    fn key(kid: &str) -> String {
        mint::with_kid(&mint::ed25519_jwk(), kid)
    }

    fn token(kid: &str) -> String {
        mint::ed25519(&format!(r#"{{"alg":"EdDSA","kid":"{kid}"}}"#), mint::CLAIMS)
    }

    fn is_good(authenticator: &Authenticator, kid: &str, now: u64) -> bool {
        match finish(authenticator.authenticate(&token(kid), now)) {
            Ok(_) => true,
            Err(err) => {
                assert_eq!(err, TokenError::UnknownKey);
                false
            }
        }
    }

    /// What a future comes to that has nothing to wait for. Does not wait, because a fetch too many would have no answer.
    fn finish<F: Future>(future: F) -> F::Output {
        poll(&mut Box::pin(future)).expect("an answer is there")
    }

    /// Polls once, with a waker that does nothing.
    fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Option<F::Output> {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn url_and_key_source_must_fit() {
        let hmac = || mint::settings(&[Algorithm::Hs256], KeySource::Secret(mint::SECRET.to_vec()));
        let jwks = || mint::settings(&[Algorithm::EdDsa], KeySource::Jwks);
        let url = || Some("https://auth.test/jwks".to_owned());
        let fetch = || Arc::new(Server::default());
        assert!(Authenticator::new(hmac(), None, fetch()).is_ok());
        assert!(Authenticator::new(jwks(), url(), fetch()).is_ok());
        assert!(Authenticator::new(hmac(), url(), fetch()).is_err());
        assert!(Authenticator::new(jwks(), None, fetch()).is_err());
    }

    #[test]
    fn fixed_keys_fetch_nothing() {
        let server = Arc::new(Server::default());
        let settings = mint::settings(&[Algorithm::Hs256], KeySource::Secret(mint::SECRET.to_vec()));
        let authenticator = Authenticator::new(settings, None, Arc::clone(&server) as Arc<dyn Fetch>).unwrap();
        assert!(finish(authenticator.warm_up(NOW)));
        let token = mint::hs256(r#"{"alg":"HS256","kid":"other"}"#, mint::CLAIMS);
        assert_eq!(&*finish(authenticator.authenticate(&token, NOW)).unwrap().user_id, "u1");
        assert_eq!(server.fetches(), 0);
    }

    #[test]
    fn first_fetch_is_bounded_and_asks_for_the_url() {
        let (server, authenticator) = start();
        server.answer_keys(&[key("a")]);
        assert!(finish(authenticator.warm_up(NOW)));
        let requests = server.requests.lock().unwrap();
        let [request] = &requests[..] else { panic!("{requests:?}") };
        assert_eq!(request.url, "https://auth.test/jwks");
        assert_eq!(request.json, None);
        assert_eq!(request.timeout, Duration::from_secs(5));
        assert_eq!(request.max_bytes, 256 * 1024);
        drop(requests);
        assert!(is_good(&authenticator, "a", NOW));
        assert_eq!(server.fetches(), 1);
    }

    #[test]
    fn without_warm_up_the_first_token_fetches() {
        let (server, authenticator) = start();
        server.answer_keys(&[key("a")]);
        assert!(is_good(&authenticator, "a", NOW));
        assert_eq!(server.fetches(), 1);
    }

    #[test]
    fn unknown_key_fetches_once_a_minute() {
        let (server, authenticator) = start();
        server.answer_keys(&[key("a")]);
        assert!(!is_good(&authenticator, "b", NOW), "to have keys at all");
        server.answer_keys(&[key("a")]);
        assert!(!is_good(&authenticator, "b", NOW), "a key that may be newer");
        assert_eq!(server.fetches(), 2);
        server.answer_keys(&[key("a"), key("b")]);
        for later in [0, 1, 59_999] {
            assert!(!is_good(&authenticator, "b", NOW + later), "{later}");
        }
        assert!(!is_good(&authenticator, "b", NOW - 59_999), "a clock that was set back a little");
        assert_eq!(server.fetches(), 2);
        assert!(is_good(&authenticator, "b", NOW + 60_000));
        assert_eq!(server.fetches(), 3);
        assert!(is_good(&authenticator, "a", NOW + 60_000));

        server.answer_keys(&[key("c")]);
        assert!(is_good(&authenticator, "c", NOW - 1_000), "a clock that was set back for longer");
        assert!(!is_good(&authenticator, "a", NOW - 1_000), "no longer in the set");
        assert_eq!(server.fetches(), 4);
    }

    #[test]
    fn failed_fetch_keeps_the_keys_and_counts() {
        let (server, authenticator) = start();
        server.answer_keys(&[key("a")]);
        assert!(finish(authenticator.warm_up(NOW)));
        let ok = |status, body: &str| Ok(FetchResponse { status, body: body.into() });
        let keys = mint::jwks(&[key("b")]);
        let failures = [
            Err(FetchError::Timeout),
            Err(FetchError::TooLarge),
            Err(FetchError::BadUrl),
            Err(FetchError::Failed("refused".to_owned())),
            ok(500, &keys),
            ok(204, &keys),
            ok(200, "<html>"),
            ok(200, r#"{"keys":[]}"#),
        ];
        let mut now = NOW;
        for (index, failure) in failures.into_iter().enumerate() {
            now += 60_000;
            let name = format!("{failure:?}");
            server.answer(failure);
            assert!(!is_good(&authenticator, "b", now), "{name}");
            assert!(!is_good(&authenticator, "b", now + 59_999), "{name}");
            assert_eq!(server.fetches(), index + 2, "{name}");
            assert!(is_good(&authenticator, "a", now), "{name}");
        }
        server.answer_keys(&[key("b")]);
        assert!(is_good(&authenticator, "b", now + 60_000));
    }

    #[test]
    fn failed_warm_up_is_made_up_for() {
        let (server, authenticator) = start();
        server.answer(Err(FetchError::Timeout));
        assert!(!finish(authenticator.warm_up(NOW)));
        assert!(!is_good(&authenticator, "a", NOW + 5_999), "while there are no keys it is tried more often");
        server.answer_keys(&[key("a")]);
        assert!(is_good(&authenticator, "a", NOW + 6_000));
        assert_eq!(server.fetches(), 2);
    }

    #[test]
    fn bad_tokens_fetch_nothing() {
        let (server, authenticator) = start();
        server.answer_keys(&[key("a")]);
        assert!(finish(authenticator.warm_up(NOW)));
        let forged = format!("{}AA", token("a"));
        for token in ["", "a.b.c", forged.as_str(), &mint::hs256(r#"{"alg":"HS256","kid":"z"}"#, mint::CLAIMS)] {
            let refused = finish(authenticator.authenticate(token, NOW + 700_000));
            assert!(matches!(refused, Err(TokenError::Invalid(_))), "{token}: {refused:?}");
        }
        assert_eq!(server.fetches(), 1);
    }

    #[test]
    fn old_keys_are_fetched_anew() {
        let (server, authenticator) = start();
        server.answer_keys(&[key("a")]);
        assert!(finish(authenticator.warm_up(NOW)));
        assert!(is_good(&authenticator, "a", NOW + 599_999));
        assert_eq!(server.fetches(), 1);

        server.answer(Err(FetchError::Timeout));
        assert!(is_good(&authenticator, "a", NOW + 600_000), "the old keys stay");
        assert!(is_good(&authenticator, "a", NOW + 659_999), "once a minute");
        assert_eq!(server.fetches(), 2);

        server.answer_keys(&[key("b")]);
        assert!(!is_good(&authenticator, "a", NOW + 660_000), "withdrawn");
        assert!(is_good(&authenticator, "b", NOW + 660_000));
        assert!(is_good(&authenticator, "b", NOW + 660_000 + 599_999));
        assert_eq!(server.fetches(), 3);
    }

    #[test]
    fn while_old_keys_are_fetched_only_one_waits() {
        let (server, authenticator) = start();
        server.answer_keys(&[key("a")]);
        assert!(finish(authenticator.warm_up(NOW)));
        let token = token("a");
        let mut waiting = Box::pin(authenticator.authenticate(&token, NOW + 600_000));
        assert!(poll(&mut waiting).is_none());
        assert!(is_good(&authenticator, "a", NOW + 600_000), "does not wait");
        server.answer_keys(&[key("a")]);
        assert!(poll(&mut waiting).unwrap().is_ok());
        assert_eq!(server.fetches(), 2);
    }

    #[test]
    fn callers_share_one_fetch() {
        let (server, authenticator) = start();
        let good = token("a");
        let other = token("b");
        let mut first = Box::pin(authenticator.authenticate(&good, NOW));
        let mut second = Box::pin(authenticator.authenticate(&good, NOW + 1));
        let mut third = Box::pin(authenticator.authenticate(&other, NOW + 2));
        assert!(poll(&mut first).is_none());
        assert!(poll(&mut second).is_none());
        assert!(poll(&mut third).is_none());
        server.answer_keys(&[key("a")]);
        assert!(poll(&mut first).unwrap().is_ok());
        assert!(poll(&mut second).unwrap().is_ok());
        assert_eq!(poll(&mut third).unwrap(), Err(TokenError::UnknownKey));
        assert_eq!(server.fetches(), 1);
    }

    #[test]
    fn waiters_share_a_failure_too() {
        let (server, authenticator) = start();
        let token = token("a");
        // Late enough for a fetch of its own, if it did not take the answer that it waited for.
        let mut first = Box::pin(authenticator.authenticate(&token, NOW));
        let mut second = Box::pin(authenticator.authenticate(&token, NOW + 60_000));
        assert!(poll(&mut first).is_none());
        assert!(poll(&mut second).is_none());
        server.answer(Err(FetchError::Timeout));
        assert_eq!(poll(&mut first).unwrap(), Err(TokenError::UnknownKey));
        assert_eq!(poll(&mut second).unwrap(), Err(TokenError::UnknownKey));
        assert_eq!(server.fetches(), 1);
    }

    #[test]
    fn dropped_caller_leaves_its_fetch_to_the_next() {
        let (server, authenticator) = start();
        let token = token("a");
        let mut first = Box::pin(authenticator.authenticate(&token, NOW));
        let mut second = Box::pin(authenticator.authenticate(&token, NOW));
        assert!(poll(&mut first).is_none());
        assert!(poll(&mut second).is_none());
        drop(first);
        assert!(poll(&mut second).is_none());
        drop(second);
        server.answer_keys(&[key("a")]);
        assert!(is_good(&authenticator, "a", NOW + 5_999), "nobody waited for a while");
        assert_eq!(server.fetches(), 1);
    }

    #[test]
    fn fetch_that_was_left_alone_is_replaced() {
        let (server, authenticator) = start();
        let token = token("a");
        let mut first = Box::pin(authenticator.authenticate(&token, NOW));
        assert!(poll(&mut first).is_none());
        drop(first);
        server.answer_keys(&[key("a")]);
        assert!(is_good(&authenticator, "a", NOW + 6_000));
        assert_eq!(server.fetches(), 2);
    }

    #[test]
    fn threads_share_one_fetch() {
        let (server, authenticator) = start();
        let token = token("a");
        std::thread::scope(|scope| {
            let callers: Vec<_> =
                (0..8).map(|_| scope.spawn(|| smol::block_on(authenticator.authenticate(&token, NOW)))).collect();
            while server.fetches() == 0 {
                std::thread::yield_now();
            }
            server.answer_keys(&[key("a")]);
            assert!(callers.into_iter().all(|caller| caller.join().unwrap().is_ok()));
        });
        assert_eq!(server.fetches(), 1);
    }
}
