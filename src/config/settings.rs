//! The one table of everything that can be set. What a row means is read in the parent module.

use std::fmt;

use self::Group::{General, History, Identity, Limits, Logs, Network, Redis, Rights, Timing};

/// One variable, as `--help` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Under which heading it is shown.
    pub group: Group,
    /// The environment variable.
    pub name: &'static str,
    /// What is taken when it is unset, in its own syntax; in parentheses when it is worked out instead.
    pub default: &'static str,
    /// Takes the place of `default` in production, where the two differ.
    pub in_production: Option<&'static str>,
    /// The unit, or the words it can be.
    pub unit: &'static str,
    /// What it does, in a sentence.
    pub help: &'static str,
    /// Whether a message may never show the value.
    pub secret: bool,
}

impl Setting {
    const fn new(
        group: Group,
        name: &'static str,
        default: &'static str,
        unit: &'static str,
        help: &'static str,
    ) -> Self {
        Self { group, name, default, in_production: None, unit, help, secret: false }
    }

    const fn in_production(self, default: &'static str) -> Self {
        Self { in_production: Some(default), ..self }
    }

    const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// The row of `name`.
    #[expect(clippy::expect_used, reason = "names are constants, and a test reads every variable")]
    pub(super) fn named(name: &str) -> &'static Self {
        SETTINGS.iter().find(|setting| setting.name == name).expect("every variable is in SETTINGS")
    }
}

/// What a setting is about. The rows of a group stand together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Where the process runs and what it uses.
    General,
    /// Other instances, and whoever else publishes.
    Redis,
    /// How clients prove who they are.
    Identity,
    /// What they may do.
    Rights,
    /// What is kept, and for how long.
    History,
    /// How much one client may ask for.
    Limits,
    /// Addresses and sizes of connections.
    Network,
    /// How long things may take.
    Timing,
    /// What is said about it.
    Logs,
}

impl fmt::Display for Group {
    /// The heading.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            General => "General",
            Redis => "Redis",
            Identity => "Identity",
            Rights => "Rights",
            History => "History and reminders",
            Limits => "Limits",
            Network => "Network",
            Timing => "Timing",
            Logs => "Logs and metrics",
        })
    }
}

/// Every variable that [`Config::from_vars`](super::Config::from_vars) reads, in the order of `--help`.
#[rustfmt::skip] // a table: one row, one setting
pub const SETTINGS: [Setting; 65] = [
    Setting::new(General, "ENV", "development", "development|production", "Which defaults apply."),
    Setting::new(General, "FLASK_ENV", "(as ENV)", "development|production", "The older name of ENV; if both are set they must agree."),
    Setting::new(General, "WORKER_THREADS", "(available cores)", "threads", "Threads that run connections."),
    Setting::new(General, "DOCS", "1", "1|0", "Serve the descriptions of the API, made for people and generators.").in_production("0"),

    Setting::new(Redis, "REDIS_URL", "(none)", "redis, rediss or unix URL", "Where instances meet and everything is kept; without it this process is alone.").secret(),
    Setting::new(Redis, "REDIS_MIN_REPLICAS", "0", "replicas", "How many have to have a message before it is acked."),
    Setting::new(Redis, "REDIS_PREFIX", "socket.io", "text", "In front of the channels that Node servers and emitters share (their option key)."),
    Setting::new(Redis, "PYTHON_CHANNELS", "socketio,flask-socketio", "comma list, or off", "Where python-socketio and Flask-SocketIO publish."),
    Setting::new(Redis, "PUBLISH_WAIT", "5s", "duration", "How long a message waits for Redis before it is refused."),

    Setting::new(Identity, "AUTH_MODE", "(jwt if a key is set, else none)", "jwt|none", "How clients prove who they are; with none the user id is the socket id.").in_production("(jwt; none has to be said)"),
    Setting::new(Identity, "JWT_ALGORITHMS", "(HS256; with a public key RS256,ES256,EdDSA)", "comma list", "What tokens may be signed with: of HS256, HS384, HS512, or of RS256, ES256, EdDSA."),
    Setting::new(Identity, "JWT_SECRET_KEY", "(as SECRET_KEY)", "secret", "Shared key of HS256, HS384, HS512: in production at least 16 bytes, better 32.").secret(),
    Setting::new(Identity, "SECRET_KEY", "(none)", "secret", "Flask's name for it; used if JWT_SECRET_KEY is not set.").secret(),
    // A private key put here by mistake must not be shown either.
    Setting::new(Identity, "JWT_PUBLIC_KEY", "(none)", "PEM", "Key of RS256, ES256, EdDSA; \\n may stand for a line end.").secret(),
    Setting::new(Identity, "JWKS_URL", "(none)", "http or https URL", "Where the Auth Service's set of public keys is fetched, in place of JWT_PUBLIC_KEY.").secret(),
    Setting::new(Identity, "JWT_REQUIRE_EXP", "1", "1|0", "Refuse tokens that never expire."),
    Setting::new(Identity, "JWT_USER_CLAIM", "(sub, user_id, identity or id)", "claim", "Which claim is the user's id."),
    Setting::new(Identity, "JWT_ISSUER", "(any)", "text", "What the claim iss must be."),
    Setting::new(Identity, "JWT_AUDIENCE", "(any)", "text", "What the claim aud must be or hold."),
    Setting::new(Identity, "AUTH_QUERY_TOKEN", "0", "1|0", "Take tokens from the URL's query too, where proxies log them."),

    Setting::new(Rights, "ROOM_POLICY", "authenticated", "members|authenticated", "Who may join and write where neither token, participants nor AUTHZ_URL answer.").in_production("members"),
    Setting::new(Rights, "AUTHZ_URL", "(none)", "http or https URL", "Who is asked for a user's right in a meeting.").secret(),
    Setting::new(Rights, "TLS_CA", "(built-in authorities)", "PEM", "Certificates trusted as well, for https in JWKS_URL and AUTHZ_URL, and for rediss://."),
    Setting::new(Rights, "CHAT_API_KEY", "(none)", "secret", "X-API-Key of other services: in production at least 16 bytes. Without it they need a token.").secret(),

    Setting::new(History, "HISTORY_SIZE", "1000", "events", "Kept of each meeting."),
    Setting::new(History, "HISTORY_TTL", "7d", "duration", "How long they are kept."),
    Setting::new(History, "MEMORY_HISTORY_MAX", "268435456", "bytes", "Kept of all meetings together while they are kept in memory; the oldest go first."),
    Setting::new(History, "REMINDERS", "15m,5m,0m", "comma list of durations, or off", "How long before a meeting its participants are reminded."),
    Setting::new(History, "ROOM_CLOSE_AFTER", "24h", "duration", "How long a meeting that has ended can still be written to."),

    Setting::new(Limits, "RATE_LIMITS", "on", "on|off", "Whether there are rates and strikes; off is for load tests. Caps stay."),
    Setting::new(Limits, "RATE_MSG", "5/20", "per second/burst, or off", "Messages, edits, deletions and reactions of a user."),
    Setting::new(Limits, "RATE_TYPING", "2/5", "per second/burst, or off", "Typing and reading marks of a user."),
    Setting::new(Limits, "RATE_JOIN", "10/50", "per second/burst, or off", "Joins, leaves and refreshed tokens of a user."),
    Setting::new(Limits, "RATE_HIST", "5/20", "per second/burst, or off", "Requests for history, presence and notifications of a user."),
    Setting::new(Limits, "RATE_EVT", "50/100", "per second/burst, or off", "Events of a user, of whatever kind."),
    Setting::new(Limits, "RATE_ROOM", "50/200", "per second/burst, or off", "Messages, edits, deletions and reactions in a room."),
    Setting::new(Limits, "RATE_CONNECT", "20/100", "per second/burst, or off", "New connections from an IP address."),
    Setting::new(Limits, "RATE_INPUT", "131072/524288", "bytes per second/burst, or off", "What is read from a connection."),
    Setting::new(Limits, "STRIKES", "200", "refusals", "Refused events in 60 s; one more ends the connection. 0 is off."),
    Setting::new(Limits, "PENALTY", "30s", "duration", "How long a user whose connection was ended so has to stay away."),
    Setting::new(Limits, "MAX_SOCKETS_PER_USER", "20", "sockets", "Live sockets of a user; 0 is no limit."),
    Setting::new(Limits, "MAX_CONNECTIONS_PER_IP", "500", "connections", "Live connections from an IP address; 0 is no limit."),
    Setting::new(Limits, "MAX_ROOMS_PER_SOCKET", "100", "rooms", "Rooms that a socket can be in."),
    Setting::new(Limits, "MAX_USERS_PER_ROOM", "10000", "users", "Users that can be in a room."),

    Setting::new(Network, "HOST", "127.0.0.1", "IP address", "Address to listen on.").in_production("0.0.0.0"),
    Setting::new(Network, "PORT", "5003", "TCP port", "Port to listen on; 0 takes any free one."),
    Setting::new(Network, "CORS_ALLOWED_ORIGINS", "(same origin and localhost)", "* or a comma list", "Whose pages may call.").in_production("(same origin)"),
    Setting::new(Network, "TRUSTED_PROXIES", "(none)", "comma list of addresses and networks", "Whose X-Forwarded-For is believed."),
    Setting::new(Network, "MAX_CONNECTIONS", "16000", "connections", "Open connections, and sessions; 0 is no limit. Lowered to what the descriptor limit leaves."),
    Setting::new(Network, "MAX_PAYLOAD", "65536", "bytes", "Longest message or polling body of a client."),
    Setting::new(Network, "OUTBOX_MAX_BYTES", "1048576", "bytes", "Queued for one slow client before it is closed."),
    Setting::new(Network, "HEAD_MAX_BYTES", "16384", "bytes", "Longest request head."),
    Setting::new(Network, "HEAD_MAX_HEADERS", "64", "headers", "Most header fields in a request."),

    Setting::new(Timing, "PING_INTERVAL_MS", "25000", "milliseconds", "Pause between a pong and the next ping."),
    Setting::new(Timing, "PING_TIMEOUT_MS", "20000", "milliseconds", "How long a pong may take."),
    Setting::new(Timing, "CONNECT_TIMEOUT_MS", "10000", "milliseconds", "How long a session may go without joining a namespace."),
    Setting::new(Timing, "UPGRADE_TIMEOUT_MS", "10000", "milliseconds", "How long the change to WebSocket may take."),
    Setting::new(Timing, "HEAD_TIMEOUT", "5s", "duration", "How long a request head may take to arrive."),
    Setting::new(Timing, "BODY_TIMEOUT", "10s", "duration", "How long a request body may take to arrive."),
    Setting::new(Timing, "KEEP_ALIVE_TIMEOUT", "75s", "duration", "How long a connection may idle between requests."),
    Setting::new(Timing, "DRAIN_SPREAD", "10s", "duration", "Over how long a stop spreads the reconnects."),
    Setting::new(Timing, "DRAIN_TIMEOUT", "25s", "duration", "How long a stop may take in all."),

    Setting::new(Logs, "LOG_LEVEL", "info", "off|error|warn|info|debug|trace", "What is logged, to stderr."),
    Setting::new(Logs, "LOG_FORMAT", "text", "text|json", "How a line of the log looks."),
    Setting::new(Logs, "METRICS_ADDR", "off", "IP address:port, or off", "A listener of its own for the metrics."),
];
