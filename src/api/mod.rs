//! Plain HTTP: health, readiness, metrics, the chat's other door (`rest`), descriptions of all that for machines
//! (`describe`), and in development a page that says what this is, and one to try it with.

mod describe;
mod rest;

use std::{borrow::Cow, future::Future, pin::Pin, sync::Arc, time::Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

pub use rest::Keys;

use self::rest::Resource;
use crate::{
    chat::{Chat, RedisState},
    http::{Body, Head, HttpError, Response},
    metrics::{self, Gauges, Metrics, Refusal},
    net::{self, Request, Shared},
};

/// Everything that is not Socket.IO.
pub struct Pages {
    chat: Arc<Chat>,
    metrics: Arc<Metrics>,
    started_at: Instant,
    keys: Arc<Keys>,
    options: Options,
}

/// Which pages there are.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `GET /` says what this is.
    pub index: bool,
    /// The metrics are here, and not on a port of their own.
    pub metrics: bool,
    /// The descriptions of the API are here.
    pub docs: bool,
    /// The page to try the chat with is here.
    pub demo: bool,
    /// Everything else is here.
    pub service: bool,
}

/// Where the service's own paths are.
const PREFIX: &str = "/api/v1/chat";
const INDEX: &[u8] = include_bytes!("pages/index.html");
/// The page has no scripts, and its style stands in it.
const INDEX_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'";
/// Stands in it where the nonce of its script and style is to be.
const DEMO: &str = include_str!("pages/demo.html");
const NONCE: &str = "{{nonce}}";
const NONCE_BYTES: usize = 16;
const HTML: &str = "text/html; charset=utf-8";
const REQUEST_ID_MAX: usize = 128;
const ALLOW: &str = "GET, HEAD, OPTIONS";

#[derive(Clone, PartialEq, Eq, Debug)]
enum Page {
    Health,
    Ready,
    Metrics,
    Index,
    AsyncApi,
    OpenApi,
    Types,
    Demo,
    Rest(Resource),
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    service: &'static str,
    version: &'static str,
    uptime_s: u64,
    redis: &'static str,
    connections: usize,
}

#[derive(Serialize)]
struct Stats {
    version: &'static str,
    instance: String,
    uptime_s: u64,
    connections: usize,
    sessions: usize,
    sockets: usize,
    rooms: usize,
    users: usize,
    outbox_bytes: usize,
    outbox_bytes_max: usize,
    redis: &'static str,
    pending_publishes: usize,
    store: StoreStats,
}

#[derive(Serialize)]
struct StoreStats {
    bytes: usize,
    meetings: usize,
    users: usize,
    reminders: usize,
}

#[derive(Serialize)]
struct Readiness {
    status: &'static str,
    checks: Checks,
}

#[derive(Serialize)]
struct Checks {
    accepting: bool,
    redis: String,
}

impl Pages {
    /// The pages of a server that started at `started_at`.
    pub fn new(chat: Arc<Chat>, metrics: Arc<Metrics>, started_at: Instant, keys: Arc<Keys>, options: Options) -> Self {
        Self { chat, metrics, started_at, keys, options }
    }

    async fn answer(&self, shared: &Shared, request: &Request<'_>, request_id: &str) -> Response {
        let method = request.head.method();
        if !METHODS.contains(&method) {
            return self.refusal(&HttpError::MethodUnknown, request_id);
        }
        let Some(page) = Page::of(request.head.path(), self.options) else {
            return self.refusal(&HttpError::NotFound, request_id);
        };
        let allow = match &page {
            Page::Rest(resource) => resource.allow(),
            _ => ALLOW,
        };
        if method == "OPTIONS" {
            return Response::new(204).with_header("Allow", allow);
        }
        if !allow.split(", ").any(|allowed| allowed == method) {
            return self.refusal(&HttpError::MethodNotAllowed { allow }, request_id);
        }
        match page {
            Page::Rest(resource) => {
                let stats = || Response::json(200, self.stats(shared));
                let (head, body) = (request.head, &request.body);
                rest::respond(&self.chat, &self.keys, resource, head, body, request_id, stats).await
            }
            page => self.render(shared, &page),
        }
    }

    /// HTTP's own refusals.
    fn refusal(&self, error: &HttpError, request_id: &str) -> Response {
        if let Some(refusal) = Refusal::of_status(error.status()) {
            self.metrics.refused(refusal);
        }
        Response::from_error_of(error, request_id)
    }

    fn stats(&self, shared: &Shared) -> Stats {
        let usage = self.chat.store().usage();
        Stats {
            version: env!("CARGO_PKG_VERSION"),
            instance: self.chat.instance().to_owned(),
            uptime_s: self.started_at.elapsed().as_secs(),
            connections: shared.connection_count(),
            sessions: shared.session_count(),
            sockets: self.chat.socket_count(),
            rooms: self.chat.meeting_count(),
            users: self.chat.user_count(),
            outbox_bytes: shared.outbox_bytes(),
            outbox_bytes_max: shared.outbox_bytes_max(),
            redis: self.chat.redis_state().as_str(),
            pending_publishes: usage.pending,
            store: StoreStats {
                bytes: usage.bytes,
                meetings: usage.meetings,
                users: usage.users,
                reminders: usage.reminders,
            },
        }
    }

    fn render(&self, shared: &Shared, page: &Page) -> Response {
        match page {
            Page::Health => Response::json(
                200,
                Health {
                    status: "ok",
                    service: env!("CARGO_PKG_NAME"),
                    version: env!("CARGO_PKG_VERSION"),
                    uptime_s: self.started_at.elapsed().as_secs(),
                    redis: self.chat.redis_state().as_str(),
                    connections: shared.session_count(),
                },
            ),
            Page::Ready if shared.is_draining() => {
                let checks = Checks { accepting: false, redis: self.chat.redis_state().to_string() };
                Response::json(503, Readiness { status: "draining", checks }).with_header("Retry-After", "1")
            }
            Page::Ready => {
                let redis = self.chat.redis_state();
                let checks = Checks { accepting: true, redis: redis.to_string() };
                match redis {
                    RedisState::Down(_) => {
                        Response::json(503, Readiness { status: "degraded", checks }).with_header("Retry-After", "1")
                    }
                    _ => Response::json(200, Readiness { status: "ready", checks }),
                }
            }
            Page::Metrics => {
                let gauges = Gauges {
                    rooms: self.chat.meeting_count() as u64,
                    outbox_bytes: shared.outbox_bytes() as u64,
                    uptime: self.started_at.elapsed(),
                    redis: self.chat.redis_gauges(),
                };
                Response::text(200, metrics::CONTENT_TYPE, self.metrics.render(&gauges).into_bytes())
            }
            Page::Rest(_) => Response::from_error(&HttpError::NotFound),
            Page::Index => html(INDEX, INDEX_POLICY),
            Page::Demo => demo(),
            Page::AsyncApi => Response::text(200, "application/json", describe::asyncapi()),
            Page::OpenApi => Response::text(200, "application/json", describe::openapi(PREFIX)),
            // Browsers would take a type of its own for a download.
            Page::Types => Response::text(200, "text/plain; charset=utf-8", describe::typescript()),
        }
    }
}

impl Page {
    /// What a path names, if these options let it be.
    fn of(path: &str, options: Options) -> Option<Self> {
        let Options { index, metrics, docs, demo, service } = options;
        match path {
            "/" if index => Some(Self::Index),
            "/demo" if demo => Some(Self::Demo),
            "/metrics" if metrics => Some(Self::Metrics),
            _ => match path.strip_prefix(PREFIX)? {
                "/health" if service => Some(Self::Health),
                "/ready" if service => Some(Self::Ready),
                "/metrics" if metrics => Some(Self::Metrics),
                "/asyncapi.json" if docs => Some(Self::AsyncApi),
                "/openapi.json" if docs => Some(Self::OpenApi),
                "/events.d.ts" if docs => Some(Self::Types),
                "/demo" if demo => Some(Self::Demo),
                path if service => Resource::of(path).map(Self::Rest),
                _ => None,
            },
        }
    }
}

/// The page to try the chat with: its own script and style, under a nonce that was never there before, and nothing from
/// elsewhere.
fn demo() -> Response {
    let mut bytes = [0; NONCE_BYTES];
    if getrandom::fill(&mut bytes).is_err() {
        return Response::from_error(&HttpError::Internal);
    }
    let nonce = URL_SAFE_NO_PAD.encode(bytes);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    html(DEMO.replace(NONCE, &nonce), policy)
}

fn html(page: impl Into<Body>, policy: impl Into<Cow<'static, str>>) -> Response {
    Response::text(200, HTML, page)
        .with_header("Content-Security-Policy", policy)
        .with_header("X-Content-Type-Options", "nosniff")
        // A demo's address names a meeting.
        .with_header("Referrer-Policy", "no-referrer")
}

/// The request's own id, if it is one that may stand in a log, or a new one.
fn request_id(given: Option<&str>) -> String {
    match given {
        Some(id) if (1..=REQUEST_ID_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) => {
            id.to_owned()
        }
        _ => format!("{:016x}", fastrand::u64(..)),
    }
}

/// The methods that HTTP itself knows; any other is 501 and not 405.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];

impl net::Pages for Pages {
    fn refuse(&self, head: &Head, error: &HttpError) -> Response {
        let id = request_id(head.header_str("x-request-id"));
        self.refusal(error, &id).with_header("X-Request-Id", id)
    }

    fn respond<'a>(
        &'a self,
        shared: &'a Shared,
        request: Request<'a>,
    ) -> Pin<Box<dyn Future<Output = Response> + Send + 'a>> {
        Box::pin(async move {
            let id = request_id(request.head.header_str("x-request-id"));
            self.answer(shared, &request, &id).await.with_header("X-Request-Id", id)
        })
    }
}
