//! Which web pages may talk to this service (the Fetch standard's CORS protocol).
//!
//! CORS headers tell a browser whether a page may *read* an answer. They do not keep it from
//! opening a WebSocket, nor from sending a simple POST; so the decision made here also stands for a
//! refusal, which polling and the upgrade have to ask for.

use std::borrow::Cow;

use super::authority::Authority;
use super::error::HttpError;
use super::head::Head;
use super::response::Response;
use super::token;

/// Whose pages may use the service: `CORS_ALLOWED_ORIGINS`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AllowedOrigins {
    /// `*`: everybody's. Safe as long as nothing is decided by cookies.
    Any,
    /// The default: pages that came from the host they talk to.
    SameOrigin {
        /// In development, pages from this machine as well, whatever their port.
        localhost: bool,
    },
    /// These and no others, in the form that [`parse`](Self::parse) gives them.
    ///
    /// The service's own host is not added: a page under a name that an attacker points at our address (DNS
    /// rebinding) is of the same origin, and whoever writes a list wants it kept out. Flask-SocketIO does the same.
    List(Vec<Box<str>>),
}

/// What an origin gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cors {
    /// No Origin header (not a browser, or a plain GET of the same origin), or the same origin: no CORS headers.
    NotCrossOrigin,
    /// The page may read the answer.
    Allowed {
        /// Value of Access-Control-Allow-Origin: the origin as it was sent, or `*`.
        origin: Box<str>,
        /// Whether the page may have cookies sent along; only for a listed origin.
        credentials: bool,
    },
    /// Not one of the allowed origins: 403.
    Forbidden,
    /// No origin looks like that; Engine.IO's "Bad request".
    Malformed,
}

impl AllowedOrigins {
    /// Reads `*` or a comma list of origins, `scheme://host[:port]`. Letters get lower case, default ports go.
    ///
    /// # Errors
    ///
    /// Which element was not understood, and what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self::Any);
        }
        let origins: Vec<_> = token::list(text.as_bytes())
            .map(|element| {
                normalized(element).ok_or_else(|| {
                    let element = String::from_utf8_lossy(element);
                    format!("{element:?}: expected an origin of the form scheme://host[:port], or * alone")
                })
            })
            .collect::<Result<_, _>>()?;
        if origins.is_empty() {
            return Err("expected * or a comma list of origins of the form scheme://host[:port]".into());
        }
        Ok(Self::List(origins))
    }

    /// Decides about a request by its Origin header and its [`host`](Head::host).
    ///
    /// Behind a proxy the comparison needs the Host that the browser sent (nginx: `proxy_set_header Host
    /// $http_host`). The scheme is not compared: behind a proxy that ends TLS we do not know ours.
    pub fn decide(&self, origin: Option<&[u8]>, host: Option<&[u8]>) -> Cors {
        let Some(bytes) = origin else {
            return match self {
                Self::Any => Cors::allowed("*", false),
                Self::SameOrigin { .. } | Self::List(_) => Cors::NotCrossOrigin,
            };
        };
        let origin = match std::str::from_utf8(bytes) {
            Ok(origin) if !origin.is_empty() && bytes.iter().all(u8::is_ascii_graphic) => origin,
            _ => return Cors::Malformed,
        };
        match self {
            Self::Any => Cors::allowed("*", false),
            Self::SameOrigin { localhost } => match web_authority(origin) {
                Some(page) if host.and_then(Authority::parse).is_some_and(|host| page.is_same_as(&host)) => {
                    Cors::NotCrossOrigin
                }
                Some(page) if *localhost && is_localhost(&page) => Cors::allowed(origin, false),
                _ => Cors::Forbidden,
            },
            Self::List(origins) => match normalized(bytes) {
                Some(page) if origins.contains(&page) => Cors::allowed(origin, true),
                _ => Cors::Forbidden,
            },
        }
    }

    /// Like [`decide`](Self::decide), with both headers taken from `head`.
    pub fn decide_for(&self, head: &Head) -> Cors {
        self.decide(head.header("origin"), head.host())
    }

    /// The answer to an OPTIONS request. Needs no session and touches none.
    ///
    /// The requested headers are echoed: what may be sent is not for this layer to say.
    pub fn preflight(&self, head: &Head) -> Response {
        let cors = self.decide_for(head);
        if let Some(error) = cors.refusal() {
            return Response::from_error(&error);
        }
        let mut response = Response::new(204);
        cors.add_headers(&mut response);
        // `add_headers` has set Vary for an echoed origin; the two belong into one line.
        let vary = match response.headers.iter().position(|(name, _)| *name == VARY) {
            Some(at) => {
                response.headers.remove(at);
                "Origin, Access-Control-Request-Headers"
            }
            None => "Access-Control-Request-Headers",
        };
        response = response.with_header("Access-Control-Allow-Methods", "GET,HEAD,PUT,PATCH,POST,DELETE");
        let requested = head.header("access-control-request-headers");
        if let Some(requested) = requested.filter(|value| token::list(value).all(token::is_token)) {
            let names = String::from_utf8_lossy(requested).into_owned();
            response = response.with_header("Access-Control-Allow-Headers", names);
        }
        response.with_header(VARY, vary).with_header("Content-Length", "0")
    }
}

impl Cors {
    fn allowed(origin: &str, credentials: bool) -> Self {
        Self::Allowed { origin: origin.into(), credentials }
    }

    /// The error to answer with if the request must not go on. Engine.IO requests have their own form for
    /// it: code 4 for [`Forbidden`](Self::Forbidden), code 3 for [`Malformed`](Self::Malformed).
    pub fn refusal(&self) -> Option<HttpError> {
        match self {
            Self::NotCrossOrigin | Self::Allowed { .. } => None,
            Self::Forbidden => Some(HttpError::OriginForbidden),
            Self::Malformed => Some(HttpError::OriginMalformed),
        }
    }

    /// Adds what the browser has to know to an answer, be it an error or not. Without these headers
    /// a page learns of an error only that there was one.
    pub fn add_headers(&self, response: &mut Response) {
        let Self::Allowed { origin, credentials } = self else { return };
        response.headers.push(("Access-Control-Allow-Origin", Cow::Owned(origin.to_string())));
        if *credentials {
            response.headers.push(("Access-Control-Allow-Credentials", Cow::Borrowed("true")));
        }
        if &**origin != "*" {
            response.headers.push((VARY, Cow::Borrowed("Origin")));
        }
    }
}

/// The host and port of an `http:` or `https:` origin.
fn web_authority(origin: &str) -> Option<Authority<'_>> {
    let (scheme, rest) = origin.split_once("://")?;
    let is_web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    Authority::parse(rest.as_bytes()).filter(|page| is_web && !page.host.is_empty())
}

fn is_localhost(page: &Authority<'_>) -> bool {
    page.host.eq_ignore_ascii_case("localhost") || matches!(page.host, "127.0.0.1" | "[::1]")
}

/// An origin as browsers write it: lower case, and no port that its scheme implies. `None` if it is no origin.
fn normalized(origin: &[u8]) -> Option<Box<str>> {
    let (scheme, rest) = std::str::from_utf8(origin).ok()?.split_once("://")?;
    let scheme_is_valid = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let page = Authority::parse(rest.as_bytes()).filter(|page| scheme_is_valid && !page.host.is_empty())?;
    let scheme = scheme.to_ascii_lowercase();
    let host = page.host.to_ascii_lowercase();
    Some(match (scheme.as_str(), page.port) {
        (_, None) | ("http", Some(80)) | ("https", Some(443)) => format!("{scheme}://{host}").into(),
        (_, Some(port)) => format!("{scheme}://{host}:{port}").into(),
    })
}

const VARY: &str = "Vary";

#[cfg(test)]
mod tests {
    use super::super::head::HeadLimits;
    use super::*;

    const SAME: AllowedOrigins = AllowedOrigins::SameOrigin { localhost: false };
    const DEVELOPMENT: AllowedOrigins = AllowedOrigins::SameOrigin { localhost: true };

    fn list(text: &str) -> AllowedOrigins {
        AllowedOrigins::parse(text).unwrap()
    }

    #[test]
    fn settings_are_read() {
        let origins =
            |origins: &[&str]| Some(AllowedOrigins::List(origins.iter().map(|&origin| origin.into()).collect()));
        let cases = [
            ("*", Some(AllowedOrigins::Any)),
            (" * ", Some(AllowedOrigins::Any)),
            ("https://a.com", origins(&["https://a.com"])),
            (
                "https://A.com:443 , http://b:80,http://b:8080,",
                origins(&["https://a.com", "http://b", "http://b:8080"]),
            ),
            ("capacitor://localhost", origins(&["capacitor://localhost"])),
            ("http://[::1]:3000", origins(&["http://[::1]:3000"])),
            ("", None),
            (",", None),
            ("a.com", None),
            ("https://a.com/", None),
            ("https://a.com/path", None),
            ("https://*.a.com", None),
            ("https://", None),
            ("://a", None),
            ("https://u@a", None),
            ("null", None),
            ("https://a.com,*", None),
        ];
        for (text, expected) in cases {
            let parsed = AllowedOrigins::parse(text);
            assert!(parsed.as_ref().err().is_none_or(|error| error.contains("expected")), "{parsed:?}");
            assert_eq!(parsed.ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn origins_are_decided() {
        let echo = |origin: &str| Cors::allowed(origin, false);
        let listed = |origin: &str| Cors::allowed(origin, true);
        let two = list("https://app.example.com,http://b:8080");
        let cases = [
            (&AllowedOrigins::Any, None, "h", echo("*")),
            (&AllowedOrigins::Any, Some("https://x"), "h", echo("*")),
            (&AllowedOrigins::Any, Some("null"), "h", echo("*")),
            (&AllowedOrigins::Any, Some("a b"), "h", Cors::Malformed),
            (&SAME, None, "h", Cors::NotCrossOrigin),
            (&SAME, Some("http://h"), "h", Cors::NotCrossOrigin),
            (&SAME, Some("https://H"), "h", Cors::NotCrossOrigin),
            (&SAME, Some("https://h"), "h:443", Cors::NotCrossOrigin),
            (&SAME, Some("http://h:80"), "h", Cors::NotCrossOrigin),
            (&SAME, Some("http://h:5003"), "h:5003", Cors::NotCrossOrigin),
            (&SAME, Some("http://h:3000"), "h:5003", Cors::Forbidden),
            (&SAME, Some("http://h.evil.com"), "h", Cors::Forbidden),
            (&SAME, Some("http://h@evil.com"), "h", Cors::Forbidden),
            (&SAME, Some("http://h/"), "h", Cors::Forbidden),
            (&SAME, Some("ftp://h"), "h", Cors::Forbidden),
            (&SAME, Some("h"), "h", Cors::Forbidden),
            (&SAME, Some("http://"), "", Cors::Forbidden),
            (&SAME, Some("null"), "null", Cors::Forbidden),
            (&SAME, Some("http://localhost:3000"), "h", Cors::Forbidden),
            (&SAME, Some(""), "h", Cors::Malformed),
            (&SAME, Some("http://h\u{e9}"), "h", Cors::Malformed),
            (&SAME, Some("http://h http://h"), "h", Cors::Malformed),
            (&DEVELOPMENT, Some("http://localhost:3000"), "h", echo("http://localhost:3000")),
            (&DEVELOPMENT, Some("https://127.0.0.1"), "h", echo("https://127.0.0.1")),
            (&DEVELOPMENT, Some("http://[::1]:8"), "h", echo("http://[::1]:8")),
            (&DEVELOPMENT, Some("http://localhost.evil.com"), "h", Cors::Forbidden),
            (&DEVELOPMENT, Some("http://localhost:80@evil.com"), "h", Cors::Forbidden),
            (&DEVELOPMENT, Some("http://127.0.0.2"), "h", Cors::Forbidden),
            (&DEVELOPMENT, Some("null"), "h", Cors::Forbidden),
            (&DEVELOPMENT, Some("file://localhost"), "h", Cors::Forbidden),
            (&two, None, "h", Cors::NotCrossOrigin),
            (&two, Some("https://app.example.com"), "h", listed("https://app.example.com")),
            (&two, Some("https://app.example.com:443"), "h", listed("https://app.example.com:443")),
            (&two, Some("http://app.example.com"), "h", Cors::Forbidden),
            (&two, Some("http://b:8080"), "h", listed("http://b:8080")),
            (&two, Some("http://b"), "h", Cors::Forbidden),
            (&two, Some("https://h"), "h", Cors::Forbidden),
            (&two, Some("null"), "h", Cors::Forbidden),
            (&two, Some("https://app.example.com\0"), "h", Cors::Malformed),
        ];
        for (allowed, origin, host, expected) in cases {
            let found = allowed.decide(origin.map(str::as_bytes), Some(host.as_bytes()));
            assert_eq!(found, expected, "{allowed:?} {origin:?} {host:?}");
        }
        assert_eq!(SAME.decide(Some(b"http://h"), None), Cors::Forbidden);
        assert_eq!(SAME.decide(Some(b"\xff"), Some(b"h")), Cors::Malformed);
    }

    #[test]
    fn answers_get_their_headers() {
        let headers = |cors: &Cors| {
            let mut response = Response::new(200);
            cors.add_headers(&mut response);
            response.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
        };
        assert_eq!(headers(&Cors::allowed("*", false)), ["Access-Control-Allow-Origin: *"]);
        assert_eq!(
            headers(&Cors::allowed("http://a", false)),
            ["Access-Control-Allow-Origin: http://a", "Vary: Origin"]
        );
        assert_eq!(
            headers(&Cors::allowed("http://a", true)),
            ["Access-Control-Allow-Origin: http://a", "Access-Control-Allow-Credentials: true", "Vary: Origin"]
        );
        for cors in [Cors::NotCrossOrigin, Cors::Forbidden, Cors::Malformed] {
            assert_eq!(headers(&cors), [""; 0], "{cors:?}");
        }
    }

    #[test]
    fn preflights_are_answered() {
        const METHODS: &str = "Access-Control-Allow-Methods: GET,HEAD,PUT,PATCH,POST,DELETE";
        const VARY_HEADERS: &str = "Vary: Access-Control-Request-Headers";
        let cases = [
            (
                AllowedOrigins::Any,
                "Origin: http://a\r\nAccess-Control-Request-Headers: content-type,x-b\r\n",
                204,
                vec![
                    "Access-Control-Allow-Origin: *",
                    METHODS,
                    "Access-Control-Allow-Headers: content-type,x-b",
                    VARY_HEADERS,
                    "Content-Length: 0",
                ],
            ),
            (
                list("http://a"),
                "Origin: http://a\r\n",
                204,
                vec![
                    "Access-Control-Allow-Origin: http://a",
                    "Access-Control-Allow-Credentials: true",
                    METHODS,
                    "Vary: Origin, Access-Control-Request-Headers",
                    "Content-Length: 0",
                ],
            ),
            (SAME, "Access-Control-Request-Headers: a b\r\n", 204, vec![METHODS, VARY_HEADERS, "Content-Length: 0"]),
            (SAME, "Origin: http://evil\r\n", 403, vec!["Content-Type: application/json"]),
            (SAME, "Origin: \r\n", 400, vec!["Content-Type: application/json"]),
        ];
        for (allowed, lines, status, expected) in cases {
            let text = format!("OPTIONS /socket.io/?sid=gone HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
            let (head, _) = Head::parse(text.as_bytes(), &HeadLimits::default()).unwrap().unwrap();
            let response = allowed.preflight(&head);
            let headers: Vec<_> = response.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            assert_eq!(
                (response.status, headers),
                (status, expected.iter().map(ToString::to_string).collect()),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn preflight_has_a_length_for_safari() {
        let (head, _) = Head::parse(b"OPTIONS / HTTP/1.0\r\n\r\n", &HeadLimits::default()).unwrap().unwrap();
        let how = super::super::Encoding { version: head.version(), head_only: false, keep_alive: true };
        let mut wire = Vec::new();
        AllowedOrigins::Any.preflight(&head).encode(&mut wire, &how);
        let wire = String::from_utf8(wire).unwrap();
        assert!(wire.starts_with("HTTP/1.1 204 No Content\r\n"), "{wire}");
        assert_eq!(wire.matches("Content-Length: 0\r\n").count(), 1, "{wire}");
    }
}
