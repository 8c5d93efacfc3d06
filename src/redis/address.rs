//! Where Redis is, and as whom to log in there.

use std::{fmt, path::PathBuf};

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};

/// A parsed `REDIS_URL`. Never shows its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    pub(super) place: Place,
    pub(super) user: Option<Box<str>>,
    pub(super) password: Option<Box<str>>,
    pub(super) database: u32,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Place {
    Tcp { host: Box<str>, port: u16, tls: bool },
    Unix(PathBuf),
}

/// What is wrong with a URL. Never quotes it: it may hold a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressError {
    /// Neither `redis://`, `rediss://`, `unix://` nor `redis+unix://`.
    Scheme,
    /// No URL.
    Malformed,
    /// A URL without a host, or with one that cannot be connected to, such as `0.0.0.0`.
    Host,
    /// A socket without a path: `unix:///` and an absolute path is what is needed.
    Path,
    /// The database is no number.
    Database,
    /// The user or the password is not UTF-8 once it is percent-decoded.
    NotUtf8,
    /// A part behind `#`. There is no way to leave out the check of certificates.
    Fragment,
    /// A user without a password.
    NoPassword,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "expected redis://, rediss://, unix:// or redis+unix://",
            Self::Malformed => "not a URL",
            Self::Host => "no host, or none that can be connected to",
            Self::Path => "no path of a socket: expected unix:///path",
            Self::Database => "the database is not a number",
            Self::NotUtf8 => "the user or the password is not UTF-8",
            Self::Fragment => "nothing may stand behind a #",
            Self::NoPassword => "a user without a password",
        })
    }
}

impl Address {
    /// `redis://[[user]:password@]host[:port][/database]`, `rediss://` the same with TLS, or
    /// `unix:///path[?db=…&user=…&pass=…]`, also as `redis+unix://`. What a URL reserves is percent-encoded.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = url.split_once("://").ok_or(AddressError::Scheme)?;
        let (scheme, tls) = match scheme {
            "redis" => ("redis", false),
            // The crate refuses it when its own TLS is not compiled in.
            "rediss" => ("redis", true),
            "unix" | "redis+unix" => ("unix", false),
            _ => return Err(AddressError::Scheme),
        };
        let url = redis::parse_redis_url(&format!("{scheme}://{rest}")).ok_or(AddressError::Malformed)?;
        if url.fragment().is_some() {
            return Err(AddressError::Fragment);
        }
        if scheme == "redis" && url.host_str().is_none_or(str::is_empty) {
            return Err(AddressError::Host);
        }
        let info: ConnectionInfo = url.into_connection_info().map_err(|error| match error.to_string() {
            // The crate has one kind of error for all of them, and only its text tells them apart.
            text if text.contains("database") => AddressError::Database,
            text if text.contains("UTF-8") => AddressError::NotUtf8,
            _ if scheme == "unix" => AddressError::Path,
            _ => AddressError::Host,
        })?;
        let place = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Place::Tcp { host: host.as_str().into(), port: *port, tls },
            ConnectionAddr::Unix(path) => Place::Unix(path.clone()),
            _ => return Err(AddressError::Scheme),
        };
        let login = info.redis_settings();
        let user: Option<Box<str>> = login.username().filter(|user| !user.is_empty()).map(Into::into);
        let password: Option<Box<str>> = login.password().filter(|password| !password.is_empty()).map(Into::into);
        if user.is_some() && password.is_none() {
            return Err(AddressError::NoPassword);
        }
        let database = u32::try_from(login.db()).map_err(|_| AddressError::Database)?;
        Ok(Self { place, user, password, database })
    }

    /// Whether a connection needs TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.place, Place::Tcp { tls: true, .. })
    }
}

/// Without user and password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp { host, port, tls } => {
                let scheme = if *tls { "rediss" } else { "redis" };
                if host.contains(':') {
                    write!(f, "{scheme}://[{host}]:{port}/{}", self.database)
                } else {
                    write!(f, "{scheme}://{host}:{port}/{}", self.database)
                }
            }
            Place::Unix(path) => write!(f, "unix://{}?db={}", path.display(), self.database),
        }
    }
}

/// As [`Display`](fmt::Display).
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16, tls: bool) -> Place {
        Place::Tcp { host: host.into(), port, tls }
    }

    #[test]
    fn reads_every_form_of_a_url() {
        let unix = |path: &str| Place::Unix(path.into());
        #[rustfmt::skip]
        let cases: &[(&str, Place, [Option<&str>; 2], u32)] = &[
            ("redis://127.0.0.1", tcp("127.0.0.1", 6379, false), [None, None], 0),
            ("redis://localhost:7000/3", tcp("localhost", 7000, false), [None, None], 3),
            ("redis://localhost:7000/", tcp("localhost", 7000, false), [None, None], 0),
            ("rediss://cache.example/15", tcp("cache.example", 6379, true), [None, None], 15),
            ("redis://[::1]:7000", tcp("::1", 7000, false), [None, None], 0),
            ("redis://:se%40cret@h", tcp("h", 6379, false), [None, Some("se@cret")], 0),
            ("redis://chat:p%2Fa%25s%3A@h:1/2", tcp("h", 1, false), [Some("chat"), Some("p/a%s:")], 2),
            ("redis://j%C3%B6rg:%C3%A4@h", tcp("h", 6379, false), [Some("jörg"), Some("ä")], 0),
            ("unix:///run/redis.sock", unix("/run/redis.sock"), [None, None], 0),
            ("redis+unix:///run/r%20s.sock?db=4&user=chat&pass=%26%3F", unix("/run/r s.sock"), [Some("chat"), Some("&?")], 4),
        ];
        for (url, place, [user, password], database) in cases {
            let address = Address::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert!(address.place == *place, "{url}: {address}");
            assert_eq!(address.user.as_deref(), *user, "{url}");
            assert_eq!(address.password.as_deref(), *password, "{url}");
            assert_eq!(address.database, *database, "{url}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_url() {
        for (url, error) in [
            ("", AddressError::Scheme),
            ("localhost:6379", AddressError::Scheme),
            ("http://h", AddressError::Scheme),
            ("redis://", AddressError::Host),
            ("redis://0.0.0.0", AddressError::Host),
            ("redis://h:port", AddressError::Malformed),
            ("redis://h:99999", AddressError::Malformed),
            ("redis://h/first", AddressError::Database),
            ("redis://h/-1", AddressError::Database),
            ("redis://h/4294967296", AddressError::Database),
            ("redis://:%FF@h", AddressError::NotUtf8),
            ("redis://user@h", AddressError::NoPassword),
            ("rediss://h#insecure", AddressError::Fragment),
            ("unix://relative.sock", AddressError::Path),
            ("unix:///s?db=x", AddressError::Database),
        ] {
            assert_eq!(Address::parse(url).err(), Some(error), "{url}");
        }
    }

    #[test]
    fn never_shows_user_or_password() {
        for url in ["redis://chat:secret@h:1/2", "unix:///s?user=chat&pass=secret&db=2", "rediss://chat:secret@[::1]"] {
            let address = Address::parse(url).unwrap();
            let shown = format!("{address} {address:?}");
            assert!(!shown.contains("secret") && !shown.contains("chat"), "{shown}");
        }
        assert_eq!(Address::parse("rediss://u:p@[::1]").unwrap().to_string(), "rediss://[::1]:6379/0");
    }
}
