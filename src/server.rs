//! Builds the parts and puts them together; start, and graceful stop.

use std::{
    future::{self, Future},
    io,
    net::{SocketAddr, TcpListener},
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use smol::{Async, Executor, Timer, future::FutureExt as _};

use crate::{
    api::{self, Pages},
    auth::{self, Access, Authenticator, token::KeySource},
    chat::{self, Chat},
    cluster::{self, Cluster, UID_LEN},
    config::{Auth, Config, Environment},
    engine, fetch,
    http::HeadLimits,
    limits::{Rate, StrikeLimits},
    metrics::Metrics,
    net::{self, Settings, Shared, SocketIo, WebSocketMode},
    redis::{self, Redis},
    socket::{self, Namespaces},
    store::{self, Store},
    types::{CloseReason, DrainNotice},
};

/// A server that has its addresses and does not serve yet.
pub struct Server {
    listener: Async<TcpListener>,
    shared: Arc<Shared>,
    /// The metrics' own address, if they have one.
    metrics: Option<(Async<TcpListener>, Arc<Shared>)>,
    chat: Arc<Chat>,
    config: Config,
}

/// Why a server cannot start.
#[derive(Debug)]
pub enum StartError {
    /// An address is taken, or not ours.
    Listen(io::Error),
    /// A setting that looks right cannot be used; says which, and why.
    Setting(String),
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Listen(error)
    }
}

/// Where Socket.IO clients look by default.
const SOCKET_IO_PATH: &str = "/socket.io/";
/// The largest body of a request that is not Engine.IO's.
const MAX_BODY: usize = 64 * 1024;
/// Descriptors that are no connections: listeners, the reactor's, logs.
const OTHER_DESCRIPTORS: u64 = 24;
/// What is kept of the drain's time to say how it went, at most.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// How often the end of a drain is looked for.
const DRAIN_TICK: Duration = Duration::from_millis(20);
/// The longest time after which the clock is looked at again for what was put off.
const JOBS_PAUSE: Duration = Duration::from_secs(10);
/// The longest list of events in one answer of the chat.
const ANSWER_MAX_BYTES: usize = 256 * 1024;
/// In which so many refusals are too many.
const STRIKES_WINDOW_MS: u64 = 60_000;
/// In front of everything that is kept in Redis.
const KEY_PREFIX: &str = "chat:";
/// A clock that is off by less is right.
const CLOCK_TOLERANCE_MS: u64 = 500;
/// How long clients may take, after the last was closed, to read what was queued and hang up. One that polls has come
/// back by then, if it is alive.
const GOODBYE: Duration = Duration::from_secs(2);

impl Server {
    /// Binds the addresses that the configuration names, and builds everything behind them.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn bind(config: Config, executor: &Arc<Executor<'static>>) -> Result<Self, StartError> {
        let started_at = Instant::now();
        let metrics = Arc::new(Metrics::new(SystemTime::now()));
        count_panics(&metrics);
        let offloader = Arc::clone(executor);
        let offload = move |turns: Box<dyn FnOnce() + Send>| offloader.spawn(async move { turns() }).detach();
        let instance = chat::random_name();
        let shared_redis = shared_redis(&config, &metrics, executor, &instance)?;
        let socket_id_prefix = shared_redis.as_ref().map(|shared| shared.cluster.uid().to_owned()).unwrap_or_default();
        let chat = Chat::new(parts(&config, &metrics, executor, Box::new(offload), instance, shared_redis.as_ref())?);
        if let Some(shared) = &shared_redis {
            shared.start(&chat, executor);
        }
        let namespaces = Namespaces::builder()
            .limits(socket::Limits {
                connect_timeout: config.connect_timeout,
                max_attachment_bytes: config.max_payload * 10,
                ..socket::Limits::default()
            })
            .socket_id_prefix(&socket_id_prefix)
            .namespace("/", |namespace| chat.register(namespace))
            .build();
        let (draining, busy) = (Arc::clone(&chat), Arc::clone(&chat));
        let app = SocketIo::new(namespaces, move |socket, notice| draining.announce_drain(socket, notice))
            .wait_while(move |socket| busy.is_busy(socket));

        let options = api::Options {
            index: config.environment == Environment::Development,
            metrics: config.metrics_addr.is_none(),
            docs: config.docs,
            demo: config.environment == Environment::Development,
            service: true,
        };
        let api_key = config.api_key.as_ref().map(|key| key.expose().as_bytes().into());
        let keys = Arc::new(api::Keys { api_key });
        let pages =
            |options| Pages::new(Arc::clone(&chat), Arc::clone(&metrics), started_at, Arc::clone(&keys), options);
        let make_shared = |settings, app, pages| {
            Arc::new(Shared::new(settings, Arc::clone(&metrics), Arc::clone(executor), app, Box::new(pages)))
        };
        let settings = settings(&config, raise_descriptor_limit());
        let shared = make_shared(settings.clone(), Box::new(app), pages(options));

        // After the maps: binding starts the reactor's thread, and the first map asks the kernel for something
        // (membarrier) that takes it 20 ms as soon as there are two threads.
        let listener = net::bind(SocketAddr::new(config.host, config.port))?;
        let metrics = match config.metrics_addr {
            None => None,
            Some(address) => {
                let listener = net::bind(address)?;
                let options = api::Options { index: false, metrics: true, docs: false, demo: false, service: false };
                let settings = Settings { path: None, ..settings };
                // The pages show the main server's numbers; nothing here opens a session.
                let pages = MetricsPages { main: Arc::clone(&shared), pages: pages(options) };
                let app = SocketIo::new(Namespaces::builder().build(), |_, _| {});
                let shared = Shared::new(
                    settings,
                    Arc::new(Metrics::new(SystemTime::now())),
                    Arc::clone(executor),
                    Box::new(app),
                    Box::new(pages),
                );
                Some((listener, Arc::new(shared)))
            }
        };
        Ok(Self { listener, shared, metrics, chat, config })
    }

    /// The address that clients connect to.
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.get_ref().local_addr()
    }

    /// Serves until `stop` is ready, then drains.
    pub async fn run(self, stop: impl Future) {
        let Self { listener, shared, metrics, chat, config } = self;
        let executor = Arc::clone(shared.executor());
        let serving = executor.spawn(net::serve(listener, Arc::clone(&shared)));
        let serving_metrics = metrics.map(|(listener, shared)| executor.spawn(net::serve(listener, shared)));
        let jobs = executor.spawn(run_jobs(Arc::clone(&chat)));
        let chat_too = Arc::clone(&chat);
        // So that the first client need not wait for the key set.
        let warming_up = Arc::clone(&chat_too);
        executor.spawn(async move { warming_up.warm_up().await }).detach();
        stop.await;
        drain(&shared, &config).await;
        chat.say_bye().await;
        drop((serving, serving_metrics, jobs));
    }
}

/// The metrics on their own address.
struct MetricsPages {
    main: Arc<Shared>,
    pages: Pages,
}

impl net::Pages for MetricsPages {
    fn respond<'a>(
        &'a self,
        _own: &'a Shared,
        request: net::Request<'a>,
    ) -> std::pin::Pin<Box<dyn Future<Output = crate::http::Response> + Send + 'a>> {
        self.pages.respond(&self.main, request)
    }
}

/// Runs `main` on this thread, and the executor on as many threads as the configuration says, this one included.
pub fn block_on<T>(executor: &Arc<Executor<'static>>, worker_threads: usize, main: impl Future<Output = T>) -> T {
    for number in 1..worker_threads {
        let executor = Arc::clone(executor);
        let spawned = thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || smol::block_on(executor.run(future::pending::<()>())));
        if let Err(error) = spawned {
            log::warn!("cannot start worker thread {number}, going on with fewer: {error}");
        }
    }
    smol::block_on(executor.run(main))
}

/// What the chat is built from.
fn parts(
    config: &Config,
    metrics: &Arc<Metrics>,
    executor: &Arc<Executor<'static>>,
    offload: chat::Offload,
    instance: Box<str>,
    shared: Option<&SharedRedis>,
) -> Result<chat::Parts, StartError> {
    let fetch: Arc<dyn auth::Fetch> = Arc::new(http_client(config)?);
    let authenticator = match &config.auth {
        Auth::None => None,
        Auth::Jwt(jwt) => {
            let jwks_url = jwt.jwks_url.as_ref().map(|url| url.expose().to_owned());
            let authenticator = Authenticator::new(jwt.token.clone(), jwks_url, Arc::clone(&fetch));
            let setting = match &jwt.token.key {
                KeySource::Secret(_) => "JWT_SECRET_KEY",
                KeySource::Pem(_) => "JWT_PUBLIC_KEY",
                KeySource::Jwks => "JWKS_URL",
            };
            Some(Arc::new(authenticator.map_err(|error| invalid(setting, &error))?))
        }
    };
    let store: Arc<dyn Store> = match shared {
        Some(shared) => Arc::new(store::RedisStore::new(
            shared.redis.clone(),
            store::RedisSettings {
                prefix: KEY_PREFIX.into(),
                adapter_prefix: config.redis_prefix.clone(),
                instance: shared.cluster.uid().into(),
                history_size: config.history_size,
                history_ttl_ms: millis(config.history_ttl),
                wait: config.publish_wait,
                answer_max_bytes: answer_max_bytes(config),
            },
        )),
        None => Arc::new(store::Memory::new(store::MemoryLimits {
            history_size: config.history_size,
            history_ttl_ms: millis(config.history_ttl),
            max_bytes: config.memory_history_max,
        })),
    };
    let authz_url = config.authz_url.as_ref().map(|url| url.expose().to_owned());
    let participants = Arc::new(chat::StoredParticipants::new(Arc::clone(&store)));
    let access = Arc::new(Access::new(config.room_policy, authz_url, participants, fetch));
    let spawner = Arc::clone(executor);
    let limits = &config.limits;
    let rate = |rate: Option<Rate>| rate.unwrap_or(Rate::OFF);
    Ok(chat::Parts {
        store,
        cluster: shared.map(|shared| Arc::clone(&shared.cluster)),
        instance,
        access,
        authenticator,
        metrics: Arc::clone(metrics),
        clock: match shared {
            Some(shared) => {
                let clock = Arc::clone(&shared.clock);
                Box::new(move || clock.now())
            }
            None => Box::new(unix_ms),
        },
        spawn: Box::new(move |step| {
            // A panic has been counted and logged by the hook.
            let step = AssertUnwindSafe(step).catch_unwind();
            spawner.spawn(async move { _ = step.await }).detach();
        }),
        offload,
        settings: chat::Settings {
            max_payload: config.max_payload,
            answer_max_bytes: answer_max_bytes(config),
            token_in_query: config.auth_query_token,
            rates: chat::Rates {
                message: rate(limits.msg),
                typing: rate(limits.typing),
                join: rate(limits.join),
                history: rate(limits.hist),
                event: rate(limits.evt),
                room: rate(limits.room),
            },
            strikes: StrikeLimits { max: limits.strikes.map_or(0, u32::from), window_ms: STRIKES_WINDOW_MS },
            penalty_ms: millis(limits.penalty),
            sockets_per_user: limits.max_sockets_per_user.map_or(0, usize::from),
            rooms_per_socket: limits.max_rooms_per_socket,
            users_per_room: limits.max_users_per_room,
            reminders: config.reminders.iter().map(|(before, name)| (millis(*before), name.clone())).collect(),
            room_close_after_ms: millis(config.room_close_after),
        },
    })
}

fn answer_max_bytes(config: &Config) -> usize {
    ANSWER_MAX_BYTES.min(config.outbox_max_bytes / 4)
}

fn invalid(setting: &str, error: &dyn std::fmt::Display) -> StartError {
    StartError::Setting(format!("{setting}=(hidden): {error}"))
}

fn http_client(config: &Config) -> Result<fetch::Client, StartError> {
    fetch::Client::new(config.tls_ca.as_deref()).map_err(|error| invalid("TLS_CA", &error))
}

/// What this process shares with other instances.
struct SharedRedis {
    redis: Redis,
    cluster: Arc<Cluster>,
    clock: Arc<ServerClock>,
    connections: smol::channel::Receiver<redis::Connected>,
}

/// The Redis server's time of day, which all instances go by.
#[derive(Default)]
struct ServerClock {
    offset_ms: AtomicI64,
}

impl ServerClock {
    fn now(&self) -> u64 {
        // ORDERING: Relaxed. A number of its own.
        unix_ms().saturating_add_signed(self.offset_ms.load(Ordering::Relaxed))
    }

    fn set(&self, offset_ms: i64) {
        // A little is only what the question took on its way.
        let offset_ms = if offset_ms.unsigned_abs() < CLOCK_TOLERANCE_MS { 0 } else { offset_ms };
        let before = self.offset_ms.swap(offset_ms, Ordering::Relaxed);
        if before != offset_ms && offset_ms != 0 {
            log::warn!("the clock here is {} ms off the Redis server's, whose is used", -offset_ms);
        }
    }
}

/// Connects this process with others, if it is to be.
fn shared_redis(
    config: &Config,
    metrics: &Arc<Metrics>,
    executor: &Arc<Executor<'static>>,
    instance: &str,
) -> Result<Option<SharedRedis>, StartError> {
    let Some(address) = &config.redis else { return Ok(None) };
    let mut settings = redis::Settings::new(address.clone());
    if address.is_tls() {
        settings.tls = Some(http_client(config)?.connector().map_err(|error| invalid("REDIS_URL", &error))?);
    }
    settings.min_replicas = config.redis_min_replicas;
    let (tell, connections) = smol::channel::unbounded();
    let spawner = Arc::clone(executor);
    let connected = move |connected| _ = tell.try_send(connected);
    let redis = Redis::start(settings, connected, |task| spawner.spawn(task).detach());
    let uid = instance.get(..UID_LEN).unwrap_or(instance);
    let spawner = Arc::clone(executor);
    let cluster = Cluster::new(
        redis.clone(),
        uid,
        cluster::Settings {
            adapter_prefix: config.redis_prefix.clone(),
            key_prefix: KEY_PREFIX.into(),
            needs_replicas: config.redis_min_replicas > 0,
            python_channels: config.python_channels.clone(),
        },
        Arc::clone(metrics),
        Box::new(move |task| spawner.spawn(task).detach()),
    );
    Ok(Some(SharedRedis { redis, cluster, clock: Arc::default(), connections }))
}

impl SharedRedis {
    /// Begins to listen and to tell.
    fn start(&self, chat: &Arc<Chat>, executor: &Arc<Executor<'static>>) {
        let cluster = Arc::clone(&self.cluster);
        let (channels, patterns) = cluster.channels();
        let spawner = Arc::clone(executor);
        let subscriber = self.redis.subscriber(patterns, cluster.ears(), |task| spawner.spawn(task).detach());
        cluster.start(subscriber, chat::Peers::new(chat));
        executor.spawn(Arc::clone(&cluster).listen_for_ever(channels)).detach();
        executor.spawn(Arc::clone(&cluster).beat_for_ever()).detach();
        executor.spawn(Arc::clone(&cluster).read_updates()).detach();
        let (connections, clock, spawner) = (self.connections.clone(), Arc::clone(&self.clock), Arc::clone(executor));
        let following = async move {
            while let Ok(redis::Connected { connection, run_id, offset_ms }) = connections.recv().await {
                clock.set(offset_ms);
                spawner.spawn(Arc::clone(&cluster).admit(connection, run_id)).detach();
            }
        };
        executor.spawn(following).detach();
    }
}

/// Does what the chat has put off, for ever.
async fn run_jobs(chat: Arc<Chat>) {
    let (tell, told) = smol::channel::bounded::<()>(1);
    // Full: it will be looked at anyway.
    chat.on_earlier_deadline(move || _ = tell.try_send(()));
    loop {
        chat.handle_timeout();
        let pause = chat.time_to_next_deadline().unwrap_or(JOBS_PAUSE);
        // The time of day may be put forward meanwhile.
        let sleep = async { _ = Timer::after(pause.min(JOBS_PAUSE)).await };
        sleep.or(async { _ = told.recv().await }).await;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn settings(config: &Config, descriptors: Option<u64>) -> Settings {
    // Accepting more than there are descriptors would make the kernel refuse them, and us our own files.
    let affordable = descriptors.map(|limit| limit.saturating_sub(OTHER_DESCRIPTORS) as usize);
    // Without a limit it is the kernel that refuses, and accepting goes on when descriptors come back.
    let limit = config.max_connections.map(usize::from);
    let max_connections = limit.map(|limit| limit.min(affordable.unwrap_or(limit)));
    if let Some(lowered) = max_connections.filter(|lowered| Some(*lowered) != limit) {
        log::warn!("at most {lowered} connections at a time: there are no more descriptors");
    }
    Settings {
        path: Some(SOCKET_IO_PATH.into()),
        websocket: WebSocketMode::Engine,
        engine: engine::Settings {
            ping_interval: config.ping_interval,
            ping_timeout: config.ping_timeout,
            upgrade_timeout: config.upgrade_timeout,
            max_payload: config.max_payload,
        },
        outbox_max_bytes: config.outbox_max_bytes,
        head: HeadLimits { max_bytes: config.head_max_bytes, max_headers: config.head_max_headers },
        head_timeout: config.head_timeout,
        body_timeout: config.body_timeout,
        keep_alive_timeout: config.keep_alive_timeout,
        max_body: MAX_BODY,
        max_connections,
        max_connections_per_ip: config
            .limits
            .max_connections_per_ip
            .map(|limit| u32::try_from(limit.get()).unwrap_or(u32::MAX)),
        connect_rate: config.limits.connect,
        input_rate: config.limits.input,
        trusted_proxies: config.trusted_proxies.clone(),
        cors: config.cors.clone(),
    }
}

/// Tells every client when to come back, closes them in that order, and waits until they are gone.
async fn drain(shared: &Shared, config: &Config) {
    let started_at = Instant::now();
    // A little before the process is ended from outside, so that the log can say how it went.
    let deadline = started_at + config.drain_timeout.mul_f32(0.9).max(config.drain_timeout.saturating_sub(LAST_WORDS));
    shared.start_draining();
    let sessions = shared.sessions();
    let count = sessions.len() as u32;
    log::info!("draining {count} sessions");
    let (mut closing, mut busy) = (Vec::with_capacity(sessions.len()), Vec::new());
    for (index, session) in sessions.into_iter().enumerate() {
        // In the middle of its own slot: a single client neither waits for the whole time nor is cut off at once.
        let after = config.drain_spread * (2 * index as u32 + 1) / (2 * count.max(1));
        session.peer().announce_drain(DrainNotice {
            reconnect_after_ms: after.as_millis() as u64,
            deadline_ms: config.drain_spread.as_millis() as u64,
        });
        closing.push((started_at + after, session));
    }
    for (at, session) in closing {
        // Nobody is waited for who has left by himself.
        while Instant::now() < at.min(deadline) && shared.session_count() > 0 {
            Timer::at(at.min(deadline).min(Instant::now() + DRAIN_TICK)).await;
        }
        match session.peer().is_busy() {
            // What it has asked for waits, for Redis maybe.
            true => busy.push(session),
            false => session.request_close(CloseReason::Draining),
        }
    }
    while !busy.is_empty() && Instant::now() < deadline {
        busy.retain(|session| {
            let is_busy = session.peer().is_busy();
            if !is_busy {
                session.request_close(CloseReason::Draining);
            }
            is_busy
        });
        Timer::after(DRAIN_TICK).await;
    }
    // Those, and whoever came in the very moment in which the drain began.
    for session in shared.sessions() {
        session.request_close(CloseReason::Draining);
    }
    let goodbye = deadline.min(Instant::now() + GOODBYE);
    while (shared.session_count() > 0 || shared.connection_count() > 0) && Instant::now() < goodbye {
        Timer::after(DRAIN_TICK).await;
    }
    log::info!("drained in {} ms, {} sessions left", started_at.elapsed().as_millis(), shared.session_count());
}

/// Lets the process have as many descriptors as it may, and returns how many those are.
fn raise_descriptor_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// Counts panics and logs where they happened, without what they said about data.
fn count_panics(metrics: &Arc<Metrics>) {
    let metrics = Arc::clone(metrics);
    panic::set_hook(Box::new(move |panic| {
        metrics.panicked();
        match panic.location() {
            Some(place) => log::error!("panic at {place}"),
            None => log::error!("panic"),
        }
    }));
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
