#![expect(clippy::type_complexity, reason = "tables of cases say what they hold in place")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::num::NonZeroU32;

use super::reader::{SHOWN_CHARS, parse_url};
use super::*;
use crate::auth::token::Algorithm;
use crate::limits::Rate;

fn config(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_vars(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
}

fn production(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
    config(&[&[("ENV", "production"), ("AUTH_MODE", "none")], vars].concat())
}

#[test]
fn table_and_reader_name_the_same_variables() {
    let listed: BTreeSet<String> = SETTINGS.iter().map(|s| s.name.to_owned()).collect();
    assert_eq!(listed.len(), SETTINGS.len(), "a variable is listed twice");
    for environment in ["development", "production"] {
        let read = RefCell::new(BTreeSet::new());
        let _ = Config::from_vars(|name| {
            read.borrow_mut().insert(name.to_owned());
            (name == "ENV").then(|| environment.to_owned())
        });
        assert_eq!(read.into_inner(), listed, "{environment}");
    }
}

#[test]
fn nothing_set_is_the_development_default() {
    let config = config(&[]).expect("the defaults are valid");
    assert_eq!(config.host, IpAddr::from([127, 0, 0, 1]));
    assert_eq!(config.port, 5003);
    assert_eq!(config.environment, Environment::Development);
    assert_eq!(config.log_level, LevelFilter::Info);
    assert_eq!(config.log_format, LogFormat::Text);
    assert!(matches!(config.auth, Auth::None));
    assert!(!config.auth_query_token);
    assert_eq!(config.room_policy, RoomPolicy::Authenticated);
    assert_eq!((&config.authz_url, &config.tls_ca, &config.api_key), (&None, &None, &None));
    assert_eq!(config.history_size, 1000);
    assert_eq!(config.history_ttl, Duration::from_secs(604_800));
    assert_eq!(config.memory_history_max, 268_435_456);
    let minutes = |minutes: u64, label: &str| (Duration::from_secs(60 * minutes), label.into());
    assert_eq!(config.reminders, [minutes(15, "15m"), minutes(5, "5m"), minutes(0, "0m")]);
    assert_eq!(config.room_close_after, Duration::from_secs(86_400));
    assert_eq!(config.trusted_proxies, TrustedProxies::default());
    assert!(config.docs);
    assert!(matches!(config.cors, AllowedOrigins::SameOrigin { localhost: true }));
    assert_eq!(config.ping_interval, Duration::from_secs(25));
    assert_eq!(config.ping_timeout, Duration::from_secs(20));
    assert_eq!(config.connect_timeout, Duration::from_secs(10));
    assert_eq!(config.upgrade_timeout, Duration::from_secs(10));
    assert_eq!(config.max_payload, 65_536);
    assert_eq!(config.outbox_max_bytes, 1_048_576);
    assert_eq!(config.max_connections, NonZeroUsize::new(16_000));
    assert!((1..=256).contains(&config.worker_threads));
    assert_eq!(config.head_timeout, Duration::from_secs(5));
    assert_eq!(config.body_timeout, Duration::from_secs(10));
    assert_eq!(config.keep_alive_timeout, Duration::from_secs(75));
    assert_eq!(config.head_max_bytes, 16_384);
    assert_eq!(config.head_max_headers, 64);
    assert_eq!(config.drain_spread, Duration::from_secs(10));
    assert_eq!(config.drain_timeout, Duration::from_secs(25));
    assert_eq!(config.metrics_addr, None);
    assert!(config.redis.is_none());
    assert_eq!((config.redis_min_replicas, &*config.redis_prefix), (0, "socket.io"));
    assert_eq!(config.python_channels.join(","), "socketio,flask-socketio");
    assert_eq!(config.publish_wait, Duration::from_secs(5));
    assert_eq!(config.warnings().len(), 1, "one clear warning: {:?}", config.warnings());
}

#[test]
fn production_has_other_defaults_under_either_name() {
    for name in ["ENV", "FLASK_ENV"] {
        let config = config(&[(name, "production"), ("AUTH_MODE", "none")]).expect(name);
        assert_eq!(config.environment, Environment::Production, "{name}");
        assert_eq!(config.host, IpAddr::from([0, 0, 0, 0]), "{name}");
        assert!(matches!(config.cors, AllowedOrigins::SameOrigin { localhost: false }), "{name}");
        assert_eq!(config.room_policy, RoomPolicy::Members, "{name}");
        assert!(!config.docs, "{name}");
    }
}

#[test]
fn values_are_taken() {
    let config = production(&[
        ("FLASK_ENV", "production"),
        ("HOST", "::1"),
        ("PORT", "0"),
        ("LOG_LEVEL", "off"),
        ("LOG_FORMAT", "json"),
        ("CORS_ALLOWED_ORIGINS", "*"),
        ("PING_INTERVAL_MS", "300"),
        ("MAX_CONNECTIONS", "0"),
        ("WORKER_THREADS", "256"),
        ("HEAD_TIMEOUT", "250ms"),
        ("KEEP_ALIVE_TIMEOUT", "15m"),
        ("METRICS_ADDR", "[::1]:9103"),
        ("REDIS_URL", "redis://:hunter2@redis:6379/0"),
        ("PYTHON_CHANNELS", "off"),
    ])
    .expect("all valid");
    assert_eq!(config.host, IpAddr::from_str("::1").expect("an address"));
    assert_eq!(config.port, 0);
    assert_eq!(config.log_level, LevelFilter::Off);
    assert_eq!(config.log_format, LogFormat::Json);
    assert!(matches!(config.cors, AllowedOrigins::Any));
    assert_eq!(config.ping_interval, Duration::from_millis(300));
    assert_eq!(config.max_connections, None);
    assert_eq!(config.worker_threads, 256);
    assert_eq!(config.head_timeout, Duration::from_millis(250));
    assert_eq!(config.keep_alive_timeout, Duration::from_secs(900));
    assert_eq!(config.metrics_addr.map(|addr| addr.port()), Some(9103));
    assert!(config.redis.is_some());
    assert!(config.python_channels.is_empty());
    let warnings = config.warnings();
    assert!(
        matches!(&warnings[..], [auth, rooms] if auth.contains("AUTH_MODE") && rooms.contains("ROOM_POLICY")),
        "{warnings:?}"
    );
}

#[test]
fn an_empty_value_is_unset() {
    let config = config(&[("PORT", ""), ("ENV", ""), ("METRICS_ADDR", ""), ("REDIS_URL", "")]);
    let config = config.expect("all unset");
    assert_eq!((config.port, config.redis.is_none()), (5003, true));
}

#[test]
fn an_error_names_variable_value_and_expectation() {
    let ms = "milliseconds, an integer from 10 to 3600000";
    let head = "a duration with its unit (ms, s, m, h or d), from 10ms to 10m";
    let cases = [
        ("PING_INTERVAL_MS", "25s", ms.to_owned()),
        ("PING_INTERVAL_MS", "9", ms.to_owned()),
        ("PING_TIMEOUT_MS", "3600001", ms.to_owned()),
        ("CONNECT_TIMEOUT_MS", "+10", ms.to_owned()),
        ("UPGRADE_TIMEOUT_MS", "18446744073709551616", ms.to_owned()),
        ("HEAD_TIMEOUT", "5", format!("{head}; a bare integer has no unit")),
        ("HEAD_TIMEOUT", "9ms", head.to_owned()),
        ("HEAD_TIMEOUT", "11m", head.to_owned()),
        ("HEAD_TIMEOUT", "5 s", head.to_owned()),
        ("HEAD_TIMEOUT", "1.5s", head.to_owned()),
        ("HEAD_TIMEOUT", "s", head.to_owned()),
        ("HEAD_TIMEOUT", "99999999999999999d", head.to_owned()),
        ("PORT", "65536", "TCP port, an integer from 0 to 65535".into()),
        ("HOST", "localhost", "an IP address such as 127.0.0.1 or ::".into()),
        ("ENV", "staging", "development or production".into()),
        ("FLASK_ENV", "testing", "development or production".into()),
        ("LOG_LEVEL", "INFO", "off or error or warn or info or debug or trace".into()),
        ("LOG_FORMAT", "xml", "text or json".into()),
        ("AUTH_MODE", "JWT", "jwt or none".into()),
        ("ROOM_POLICY", "everybody", "members or authenticated".into()),
        ("DOCS", "2", "1 or 0 (or true or false, on or off, yes or no)".into()),
        ("HISTORY_SIZE", "0", "events, an integer from 1 to 100000".into()),
        ("HISTORY_SIZE", "100001", "events, an integer from 1 to 100000".into()),
        ("HISTORY_TTL", "999ms", "a duration with its unit (ms, s, m, h or d), from 1s to 365d".into()),
        ("HISTORY_TTL", "366d", "a duration with its unit (ms, s, m, h or d), from 1s to 365d".into()),
        ("MEMORY_HISTORY_MAX", "1048575", "bytes, an integer from 1048576 to 1099511627776".into()),
        ("MEMORY_HISTORY_MAX", "1099511627777", "bytes, an integer from 1048576 to 1099511627776".into()),
        ("ROOM_CLOSE_AFTER", "366d", "a duration with its unit (ms, s, m, h or d), from 0s to 365d".into()),
        ("PENALTY", "25h", "a duration with its unit (ms, s, m, h or d), from 0s to 1d".into()),
        ("STRIKES", "1000001", "refusals, an integer from 0 to 1000000".into()),
        ("MAX_SOCKETS_PER_USER", "10000001", "sockets, an integer from 0 to 10000000".into()),
        ("MAX_CONNECTIONS_PER_IP", "10000001", "connections, an integer from 0 to 10000000".into()),
        ("MAX_ROOMS_PER_SOCKET", "0", "rooms, an integer from 1 to 10000000".into()),
        ("MAX_ROOMS_PER_SOCKET", "10000001", "rooms, an integer from 1 to 10000000".into()),
        ("MAX_USERS_PER_ROOM", "0", "users, an integer from 1 to 10000000".into()),
        ("MAX_USERS_PER_ROOM", "10000001", "users, an integer from 1 to 10000000".into()),
        ("WORKER_THREADS", "0", "threads, an integer from 1 to 256".into()),
        ("WORKER_THREADS", "257", "threads, an integer from 1 to 256".into()),
        ("METRICS_ADDR", "9103", "an address and port such as 127.0.0.1:9103, or off".into()),
        ("MAX_PAYLOAD", "1023", "bytes, an integer from 1024 to 16777216".into()),
        ("OUTBOX_MAX_BYTES", "65535", "at least MAX_PAYLOAD, which is 65536".into()),
        ("DRAIN_SPREAD", "26s", "at most DRAIN_TIMEOUT, which is 25s".into()),
    ];
    for (name, value, expected) in cases {
        let error = config(&[(name, value)]).expect_err(name).to_string();
        assert_eq!(error, format!("{name}={value:?}: expected {expected}"));
    }
}

#[test]
fn an_unusable_origin_is_reported_with_its_reason() {
    let error = config(&[("CORS_ALLOWED_ORIGINS", "app")]).expect_err("no scheme").to_string();
    let beginning = "CORS_ALLOWED_ORIGINS=\"app\": expected * or a comma list of origins (";
    assert!(error.starts_with(beginning) && error.ends_with(')'), "{error}");
}

#[test]
fn values_at_the_limit_are_taken() {
    let at_limit = [
        ("PING_INTERVAL_MS", "10"),
        ("PING_TIMEOUT_MS", "3600000"),
        ("HEAD_TIMEOUT", "10ms"),
        ("BODY_TIMEOUT", "10m"),
        ("PORT", "65535"),
        ("WORKER_THREADS", "1"),
        ("MAX_PAYLOAD", "1024"),
        ("OUTBOX_MAX_BYTES", "65536"),
        ("DRAIN_SPREAD", "25s"),
        ("HISTORY_SIZE", "1"),
        ("HISTORY_SIZE", "100000"),
        ("HISTORY_TTL", "1s"),
        ("HISTORY_TTL", "365d"),
        ("MEMORY_HISTORY_MAX", "1048576"),
        ("MEMORY_HISTORY_MAX", "1099511627776"),
        ("ROOM_CLOSE_AFTER", "0s"),
        ("ROOM_CLOSE_AFTER", "365d"),
        ("PENALTY", "0s"),
        ("PENALTY", "1d"),
        ("STRIKES", "1000000"),
        ("MAX_SOCKETS_PER_USER", "10000000"),
        ("MAX_CONNECTIONS_PER_IP", "10000000"),
        ("MAX_ROOMS_PER_SOCKET", "1"),
        ("MAX_ROOMS_PER_SOCKET", "10000000"),
        ("MAX_USERS_PER_ROOM", "1"),
        ("MAX_USERS_PER_ROOM", "10000000"),
    ];
    for (name, value) in at_limit {
        assert!(config(&[(name, value)]).is_ok(), "{name}={value}");
    }
}

#[test]
fn the_two_names_of_the_environment_must_agree() {
    let error = config(&[("ENV", "production"), ("FLASK_ENV", "development")]);
    let error = error.expect_err("they differ").to_string();
    assert!(error.starts_with("FLASK_ENV=\"development\": expected the same as ENV=\"production\""), "{error}");
}

#[test]
fn production_does_not_start_open_by_accident() {
    let error = config(&[("ENV", "production")]).expect_err("not said").to_string();
    assert_eq!(
        error,
        "AUTH_MODE is not set: expected a key (JWT_SECRET_KEY, SECRET_KEY, JWT_PUBLIC_KEY or JWKS_URL); or none, said \
         explicitly in production"
    );
}

#[test]
fn every_problem_is_reported() {
    let error = config(&[("PORT", "x"), ("HOST", "y"), ("LOG_FORMAT", "z")]);
    let error = error.expect_err("three are wrong");
    assert_eq!(error.problems().len(), 3);
    assert_eq!(error.to_string().lines().count(), 3);
}

#[test]
fn a_message_neither_shows_secrets_nor_grows_with_the_value() {
    let mut vars = Reader::new(|_: &str| Some("hunter2".repeat(1000)));
    vars.refuse("REDIS_URL", "a URL".to_owned());
    vars.refuse("PORT", "a port".to_owned());
    let error = ConfigError::from_problems(vars.problems).expect("two").to_string();
    let (secret, long) = error.split_once('\n').expect("two lines");
    assert_eq!(secret, "REDIS_URL=(hidden): expected a URL");
    assert!(long.len() < 2 * SHOWN_CHARS, "{long}");
}

#[test]
fn durations_take_every_unit() {
    let cases = [
        ("250ms", Some(250)),
        ("10s", Some(10_000)),
        ("15m", Some(900_000)),
        ("24h", Some(86_400_000)),
        ("7d", Some(604_800_000)),
        ("0s", Some(0)),
        ("", None),
        ("10", None),
        ("10S", None),
        ("-1s", None),
        ("1s1s", None),
        ("١s", None),
    ];
    for (text, ms) in cases {
        assert_eq!(parse_duration(text), ms.map(Duration::from_millis), "{text:?}");
    }
}

fn jwt(vars: &[(&str, &str)]) -> JwtConfig {
    match config(vars).map(|config| config.auth) {
        Ok(Auth::Jwt(jwt)) => *jwt,
        other => panic!("{vars:?}: {other:?}"),
    }
}

/// Which key, without a key: `KeySource` shows itself to nobody.
fn key(jwt: &JwtConfig) -> (&str, Option<&str>) {
    let key = match &jwt.token.key {
        KeySource::Secret(secret) => std::str::from_utf8(secret).expect("text"),
        KeySource::Pem(_) => "a PEM",
        KeySource::Jwks => "a key set",
    };
    (key, jwt.jwks_url.as_ref().map(Secret::expose))
}

const PEM: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n";
const LONG: &str = "0123456789abcdef0123456789abcdef";
const JWKS: &str = "https://auth/jwks.json";

#[test]
fn the_kind_of_key_decides_and_algorithms_decide_between_kinds() {
    use Algorithm::*;
    let public: &[Algorithm] = &[Rs256, Es256, EdDsa];
    let (secret, flask) = (("JWT_SECRET_KEY", LONG), ("SECRET_KEY", "flask"));
    let (pem, jwks) = (("JWT_PUBLIC_KEY", PEM), ("JWKS_URL", JWKS));
    let with = |algorithms| ("JWT_ALGORITHMS", algorithms);
    let cases: [(&[(&str, &str)], &[Algorithm], &str); 12] = [
        (&[secret], &[Hs256], LONG),
        (&[flask], &[Hs256], "flask"),
        (&[secret, flask], &[Hs256], LONG),
        (&[secret, ("AUTH_MODE", "jwt")], &[Hs256], LONG),
        (&[secret, with("HS512, HS384,HS512")], &[Hs512, Hs384], LONG),
        (&[pem], public, "a PEM"),
        (&[jwks], public, "a key set"),
        (&[pem, with("EdDSA")], &[EdDsa], "a PEM"),
        (&[pem, secret, flask], public, "a PEM"),
        (&[jwks, secret], public, "a key set"),
        (&[jwks, secret, with("HS256")], &[Hs256], LONG),
        (&[pem, secret, with("RS256,ES256")], &[Rs256, Es256], "a PEM"),
    ];
    for (vars, algorithms, expected) in cases {
        let jwt = jwt(vars);
        let url = (expected == "a key set").then_some(JWKS);
        assert_eq!((&jwt.token.algorithms[..], key(&jwt)), (algorithms, (expected, url)), "{vars:?}");
    }
}

#[test]
fn keys_that_do_not_go_together_are_one_problem_each() {
    let a_key = "a key (JWT_SECRET_KEY, SECRET_KEY, JWT_PUBLIC_KEY or JWKS_URL)";
    let families = "a comma list of HS256, HS384, HS512, or one of RS256, ES256, EdDSA; never of both, or a public key \
                    could be taken for a secret";
    let pem = "JWT_PUBLIC_KEY=(hidden): expected a public key in PEM, from -----BEGIN PUBLIC KEY----- to its end, and \
               nothing private";
    let (secret, public) = (("SECRET_KEY", LONG), ("JWT_PUBLIC_KEY", PEM));
    let algorithms = |names| ("JWT_ALGORITHMS", names);
    let cases: [(&[(&str, &str)], String); 13] = [
        (&[("AUTH_MODE", "jwt")], format!("AUTH_MODE=\"jwt\": expected none, or beside it {a_key}")),
        (&[("AUTH_MODE", "jwt"), ("ENV", "production")], format!("AUTH_MODE=\"jwt\": expected none, or beside it {a_key}")),
        (&[("AUTH_MODE", "on"), ("ENV", "production")], "AUTH_MODE=\"on\": expected jwt or none".into()),
        (&[public, ("JWKS_URL", JWKS)], "JWKS_URL=(hidden): expected to be the only one of JWKS_URL and JWT_PUBLIC_KEY".into()),
        (&[secret, algorithms("RS256")], "JWT_ALGORITHMS=\"RS256\": expected HS256, HS384 or HS512, because the key that is set is a secret; RS256, ES256 and EdDSA take JWT_PUBLIC_KEY or JWKS_URL".into()),
        (&[public, algorithms("HS256")], "JWT_ALGORITHMS=\"HS256\": expected RS256, ES256 or EdDSA, because the key that is set is a public one; HS256, HS384 and HS512 take JWT_SECRET_KEY or SECRET_KEY".into()),
        (&[secret, public, algorithms("HS256,RS256")], format!("JWT_ALGORITHMS=\"HS256,RS256\": expected {families}")),
        (&[algorithms("none")], format!("JWT_ALGORITHMS=\"none\": expected {families}")),
        (&[secret, algorithms("HS256,")], format!("JWT_ALGORITHMS=\"HS256,\": expected {families}")),
        (&[secret, algorithms("hs256")], format!("JWT_ALGORITHMS=\"hs256\": expected {families}")),
        (&[("AUTH_MODE", "jwt"), ("JWT_PUBLIC_KEY", "hunter2")], pem.into()),
        (&[("JWT_PUBLIC_KEY", "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----")], pem.into()),
        (&[("AUTH_MODE", "jwt"), ("JWKS_URL", "auth/jwks")], "JWKS_URL=(hidden): expected http:// or https://, a host, and a path if needed; at most 2048 bytes".into()),
    ];
    for (vars, expected) in cases {
        assert_eq!(config(vars).expect_err("refused").to_string(), expected, "{vars:?}");
    }
}

#[test]
fn a_mode_that_is_said_wins_over_what_keys_suggest() {
    for environment in ["development", "production"] {
        let open = [("ENV", environment), ("AUTH_MODE", "none"), ("SECRET_KEY", "short"), ("JWKS_URL", JWKS)];
        assert!(matches!(config(&open).expect("said").auth, Auth::None), "{environment}: the keys are not used");
        let closed = config(&[("ENV", environment), ("SECRET_KEY", LONG)]).expect("a key");
        assert!(matches!(closed.auth, Auth::Jwt(_)), "{environment}");
        assert_eq!(closed.warnings(), [""; 0], "{environment}");
    }
}

#[test]
fn short_secrets_are_refused_in_production_and_warned_of_elsewhere() {
    let too_short = "=(hidden): expected at least 16 bytes in production, better 32";
    for name in ["JWT_SECRET_KEY", "SECRET_KEY", "CHAT_API_KEY"] {
        let read = |environment, length| {
            let value = "x".repeat(length);
            let vars = [("JWT_SECRET_KEY", LONG), ("ENV", environment), (name, &value)];
            // The key of services says nothing of clients; production needs one of theirs beside it.
            config(if name == "CHAT_API_KEY" { &vars } else { &vars[1..] })
        };
        let error = read("production", 15).expect_err("15 bytes");
        assert_eq!(error.to_string(), format!("{name}{too_short}"));
        assert!(read("production", 16).is_ok(), "{name}");

        let warned = |environment, length| match &read(environment, length).expect("taken").warnings()[..] {
            [] => None,
            [one] => Some(one.contains(name)),
            more => panic!("{more:?}"),
        };
        assert_eq!(warned("development", 1), Some(true), "{name}");
        assert_eq!(warned("development", 15), Some(true), "{name}");
        assert_eq!(warned("development", 16), None, "{name}");
        let is_shared_with_clients = name != "CHAT_API_KEY";
        assert_eq!(warned("production", 31), is_shared_with_clients.then_some(true), "{name}");
        assert_eq!(warned("production", 32), None, "{name}");
    }
}

#[test]
fn claims_are_taken_as_they_are() {
    let longest = "é".repeat(256);
    let told = [
        ("SECRET_KEY", LONG),
        ("JWT_REQUIRE_EXP", "0"),
        ("JWT_USER_CLAIM", "uid"),
        ("JWT_ISSUER", &longest),
        ("JWT_AUDIENCE", "chat service"),
    ];
    let token = jwt(&told).token;
    assert!(!token.require_exp);
    let claims = [&token.user_claim, &token.issuer, &token.audience].map(Option::as_deref);
    assert_eq!(claims, [Some("uid"), Some(&longest[..]), Some("chat service")]);

    let token = jwt(&[("SECRET_KEY", LONG)]).token;
    assert!(token.require_exp);
    assert_eq!([token.user_claim, token.issuer, token.audience], [None, None, None]);

    for name in ["JWT_USER_CLAIM", "JWT_ISSUER", "JWT_AUDIENCE"] {
        for value in [" chat", "chat\n", "a\tb", &"e".repeat(257)] {
            let error = config(&[(name, value)]).expect_err("refused").to_string();
            let expected = ": expected 1 to 256 printable characters, without blanks at the ends";
            assert!(error.starts_with(name) && error.ends_with(expected), "{error}");
        }
    }
}

#[test]
fn flags_take_every_pair_of_words() {
    let flags: [(&str, fn(&Config) -> bool); 4] = [
        ("DOCS", |config| config.docs),
        ("AUTH_QUERY_TOKEN", |config| config.auth_query_token),
        ("RATE_LIMITS", |config| config.limits.msg.is_some()),
        ("JWT_REQUIRE_EXP", |config| matches!(&config.auth, Auth::Jwt(jwt) if jwt.token.require_exp)),
    ];
    for (name, of) in flags {
        for (on, off) in [("1", "0"), ("true", "false"), ("on", "off"), ("yes", "no")] {
            for (text, expected) in [(on, true), (off, false)] {
                let config = config(&[("SECRET_KEY", LONG), (name, text)]).expect("a flag");
                assert_eq!(of(&config), expected, "{name}={text}");
            }
        }
        assert!(config(&[(name, "True")]).is_err(), "{name}");
    }
}

#[test]
fn pems_are_taken_with_escaped_line_ends() {
    let escaped = PEM.replace('\n', "\\n");
    let KeySource::Pem(pem) = jwt(&[("JWT_PUBLIC_KEY", &escaped)]).token.key else { panic!("not a PEM") };
    assert_eq!(pem, PEM);
    let rsa = PEM.replace("PUBLIC", "RSA PUBLIC").replace('\n', "\r\n");
    assert_eq!(key(&jwt(&[("JWT_PUBLIC_KEY", &rsa)])).0, "a PEM");

    let certificate = PEM.replace("PUBLIC KEY", "CERTIFICATE");
    let bundle = format!("# ours\n{certificate}\n# theirs\n{certificate}");
    for text in [&certificate, &certificate.replace('\n', "\\n"), &bundle] {
        let read = config(&[("TLS_CA", text)]).expect("certificates").tls_ca.expect("set");
        assert_eq!(read, text.replace("\\n", "\n"));
    }
    let expected = "certificates in PEM, each from -----BEGIN CERTIFICATE----- to its end, and nothing else";
    let cut = certificate.replace("-----END CERTIFICATE-----", "");
    for text in ["/etc/ssl/ca.pem", PEM, &cut, &format!("{certificate}{PEM}"), &format!("{certificate}{cut}")] {
        let error = config(&[("TLS_CA", text)]).expect_err("refused").to_string();
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn urls_have_a_scheme_and_a_host() {
    let longest = format!("http://a/{}", "x".repeat(2048 - 9));
    let cases = [
        ("http://auth", true),
        ("https://auth:8443/keys?set=1", true),
        ("HTTPS://user:pass@auth.example.com/", true),
        ("http://[::1]:80/", true),
        (&longest, true),
        (&format!("{longest}x"), false),
        ("", false),
        ("auth/keys", false),
        ("ftp://auth/", false),
        ("http:auth", false),
        ("http:///keys", false),
        ("http://?a", false),
        ("http://:80/", false),
        ("http://user@/", false),
        ("http://user@:80/", false),
        ("http://auth/#a", false),
        ("http://auth/a b", false),
        ("http://auth/\r\nX: y", false),
        ("http://evil\\@auth/", false),
        ("http://aüth/", false),
        ("é", false),
    ];
    for (text, valid) in cases {
        assert_eq!(parse_url(text).is_ok(), valid, "{text:?}");
    }
    let config = config(&[("AUTHZ_URL", "http://u:p@auth/authz")]).expect("a URL");
    assert_eq!(config.authz_url.map(Secret::into_exposed).as_deref(), Some("http://u:p@auth/authz"));
}

#[test]
fn reminders_are_a_short_list() {
    let of = |text| config(&[("REMINDERS", text)]).map(|config| config.reminders);
    let minute = Duration::from_secs(60);
    assert_eq!(of("off"), Ok(vec![]));
    assert_eq!(of("7d, 90m,0s").map(|all| all.len()), Ok(3));
    assert_eq!(of("60s"), Ok(vec![(minute, "60s".into())]), "called as the operator calls it");
    assert_eq!(of("1m,2m,3m,4m,5m,6m,7m,8m").map(|all| all.len()), Ok(8));
    for text in ["1m,2m,3m,4m,5m,6m,7m,8m,9m", "169h", "604800001ms", "15", "15m,", ",", "off,5m", "1m,60s", "-1m"] {
        let error = of(text).expect_err(text).to_string();
        let expected = ": expected a comma list of up to 8 different durations with their units (ms, s, m, h or d), each \
                        from 0m to 7d, or off";
        assert_eq!(error, format!("REMINDERS={text:?}{expected}"));
    }
}

/// Every rate with its default and where it ends up.
const RATES: [(&str, (u32, u32), fn(&Limits) -> Option<Rate>); 8] = [
    ("RATE_MSG", (5, 20), |limits| limits.msg),
    ("RATE_TYPING", (2, 5), |limits| limits.typing),
    ("RATE_JOIN", (10, 50), |limits| limits.join),
    ("RATE_HIST", (5, 20), |limits| limits.hist),
    ("RATE_EVT", (50, 100), |limits| limits.evt),
    ("RATE_ROOM", (50, 200), |limits| limits.room),
    ("RATE_CONNECT", (20, 100), |limits| limits.connect),
    ("RATE_INPUT", (131_072, 524_288), |limits| limits.input),
];

#[test]
fn every_rate_has_its_own_place() {
    let defaults = config(&[]).expect("the defaults are valid").limits;
    for (name, (per_s, burst), of) in RATES {
        assert_eq!(of(&defaults), Some(Rate { per_s, burst }), "{name}");
        for (text, expected) in [
            ("off", None),
            ("1/1", Some(Rate { per_s: 1, burst: 1 })),
            ("1000000000/7", Some(Rate { per_s: 1_000_000_000, burst: 7 })),
            ("7/1000000000", Some(Rate { per_s: 7, burst: 1_000_000_000 })),
        ] {
            let limits = config(&[(name, text)]).expect("a rate").limits;
            for (other, _, of_other) in RATES {
                let expected = if other == name { expected } else { of_other(&defaults) };
                assert_eq!(of_other(&limits), expected, "{other} with {name}={text}");
            }
        }
        for text in ["0/1", "1/0", "1000000001/1", "1/1000000001", "5", "5/", "/5", "5/20/1", "+5/20", "5 / 20", "none"]
        {
            let error = config(&[(name, text)]).expect_err(text).to_string();
            let expected = "per second/burst, two integers from 1 to 1000000000 such as 5/20, or off";
            assert_eq!(error, format!("{name}={text:?}: expected {expected}"));
        }
    }
}

#[test]
fn turning_rates_off_takes_the_strikes_and_leaves_the_caps() {
    let on = config(&[]).expect("the defaults are valid").limits;
    assert_eq!(on.strikes, NonZeroU32::new(200));
    assert_eq!(on.penalty, Duration::from_secs(30));
    assert_eq!(on.max_sockets_per_user, NonZeroUsize::new(20));
    assert_eq!(on.max_connections_per_ip, NonZeroUsize::new(500));
    assert_eq!((on.max_rooms_per_socket, on.max_users_per_room), (100, 10_000));

    let off = config(&[("RATE_LIMITS", "off")]).expect("off").limits;
    assert!(RATES.iter().all(|(_, _, of)| of(&off).is_none()), "{off:?}");
    let rates_of = |limits: &Limits| Limits { strikes: None, ..limits.clone() };
    let expected = Limits {
        msg: None,
        typing: None,
        join: None,
        hist: None,
        evt: None,
        room: None,
        connect: None,
        input: None,
        ..rates_of(&on)
    };
    assert_eq!(off, expected);
    assert!(config(&[("RATE_LIMITS", "off"), ("RATE_MSG", "x")]).is_err(), "read even so");

    let uncapped = [("STRIKES", "0"), ("MAX_SOCKETS_PER_USER", "0"), ("MAX_CONNECTIONS_PER_IP", "0")];
    let limits = config(&uncapped).expect("0 is off").limits;
    assert_eq!((limits.strikes, limits.max_sockets_per_user, limits.max_connections_per_ip), (None, None, None));
}

#[test]
fn proxies_are_addresses_and_networks() {
    let of = |text: &str| config(&[("TRUSTED_PROXIES", text)]);
    let proxies = of("127.0.0.1, fd00::/8").expect("two").trusted_proxies;
    for (address, is_trusted) in [("127.0.0.1", true), ("127.0.0.2", false), ("fdff::1", true), ("fe00::1", false)] {
        assert_eq!(proxies.contains(address.parse().expect("valid")), is_trusted, "{address}");
    }
    for text in ["proxy", "*", "10.0.0.0/33"] {
        let error = of(text).expect_err(text).to_string();
        assert!(error.starts_with(&format!("TRUSTED_PROXIES={text:?}: expected ")), "{error}");
    }
}

#[test]
fn what_is_allowed_but_odd_is_warned_of() {
    let base = ("SECRET_KEY", LONG);
    let cases: [(&[(&str, &str)], &[&str]); 12] = [
        (&[], &[]),
        (&[("TRUSTED_PROXIES", "0.0.0.0/1")], &[]),
        (&[("TRUSTED_PROXIES", "0.0.0.0/0")], &["TRUSTED_PROXIES"]),
        (&[("TRUSTED_PROXIES", "::1,::/0")], &["TRUSTED_PROXIES"]),
        (&[("RATE_INPUT", "1/65536")], &[]),
        (&[("RATE_INPUT", "1/65535")], &["RATE_INPUT"]),
        (&[("RATE_INPUT", "1/65535"), ("RATE_LIMITS", "off")], &[]),
        (&[("AUTH_MODE", "none")], &["AUTH_MODE"]),
        (&[("AUTH_MODE", "none"), ("ROOM_POLICY", "members")], &["AUTH_MODE", "ROOM_POLICY"]),
        (&[("AUTH_MODE", "none"), ("ENV", "production")], &["AUTH_MODE", "ROOM_POLICY"]),
        (&[("AUTH_MODE", "none"), ("ROOM_POLICY", "members"), ("AUTHZ_URL", JWKS)], &["AUTH_MODE"]),
        (&[("AUTH_MODE", "none"), ("ENV", "production"), ("ROOM_POLICY", "authenticated")], &["AUTH_MODE"]),
    ];
    for (vars, expected) in cases {
        let warnings = config(&[&[base], vars].concat()).expect("allowed").warnings();
        assert_eq!(warnings.len(), expected.len(), "{vars:?}: {warnings:?}");
        assert!(warnings.iter().zip(expected).all(|(warning, name)| warning.starts_with(name)), "{warnings:?}");
    }
}

#[test]
fn secrets_are_shown_neither_in_errors_nor_for_debugging() {
    let secrets: Vec<&str> = SETTINGS.iter().filter(|setting| setting.secret).map(|setting| setting.name).collect();
    assert_eq!(
        secrets,
        ["REDIS_URL", "JWT_SECRET_KEY", "SECRET_KEY", "JWT_PUBLIC_KEY", "JWKS_URL", "AUTHZ_URL", "CHAT_API_KEY"]
    );
    let url = "http://user:hunter2@auth/";
    let redis_url = "redis://user:hunter2@redis/0";
    let taken: [&[(&str, &str)]; 3] = [
        &[
            ("JWT_SECRET_KEY", "hunter2"),
            ("SECRET_KEY", "hunter2"),
            ("CHAT_API_KEY", "hunter2"),
            ("REDIS_URL", redis_url),
        ],
        &[("JWKS_URL", url), ("AUTHZ_URL", url)],
        &[("JWT_PUBLIC_KEY", "-----BEGIN PUBLIC KEY-----\nhunter2\n-----END PUBLIC KEY-----")],
    ];
    for vars in taken {
        let config = config(vars).expect("all valid");
        let shown = format!("{config:?} {config:#?}");
        assert!(!shown.contains("hunter2") && shown.contains("hidden"), "{shown}");
        // The bytes of a key, as a list of numbers, would be the key too.
        assert!(!shown.contains("104, 117, 110"), "{shown}");
    }

    let refused = [
        ("JWT_SECRET_KEY", "hunter2"),
        ("SECRET_KEY", "hunter2"),
        ("JWT_PUBLIC_KEY", "hunter2"),
        ("JWKS_URL", "hunter2"),
        ("AUTHZ_URL", "hunter2"),
        ("CHAT_API_KEY", "hunter2"),
        ("CHAT_API_KEY", "hunter2 hunter2 hunter2"),
        ("CHAT_API_KEY", "hunter2hunter2hunter2\n"),
        ("CHAT_API_KEY", "hünter2hunter2hunter2"),
    ];
    for (name, value) in refused {
        let error = config(&[("ENV", "production"), (name, value)]).expect_err(name);
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(error.to_string().contains(&format!("{name}=(hidden): expected ")), "{shown}");
    }
}

#[test]
fn the_readme_lists_every_setting_with_its_defaults() {
    let readme = include_str!("../../README.md");
    let plain = |cell: &str| cell.trim().replace('`', "");
    for setting in SETTINGS {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{}` |", setting.name)));
        let cells: Vec<String> =
            row.unwrap_or_else(|| panic!("{} has no row", setting.name)).split('|').map(plain).collect();
        assert_eq!(cells.len(), 7, "{row:?}");
        assert_eq!(cells[2..4], [setting.default, setting.in_production.unwrap_or_default()], "{}", setting.name);
    }
}
