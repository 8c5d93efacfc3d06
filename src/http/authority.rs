//! `host[:port]`, as the Host header, an absolute request target and an origin write it (RFC 3986 §3.2).

/// A host and its port, borrowed from where they were read. Never holds user information.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Authority<'a> {
    /// The name or address, IPv6 with its brackets, in the case it was written in; empty if the text was.
    pub(super) host: &'a str,
    /// The port, if one was written.
    pub(super) port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads the whole of `bytes`, or `None` if it is not `host[:port]`.
    ///
    /// Stricter than RFC 3986 in the host's characters: letters, digits, `-`, `.` and `_`. What else a reg-name
    /// may hold (`%41`, `,`, `;`, `=`) appears in no real name, but is read differently by different parsers.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (host, port) = if text.starts_with('[') {
            let (address, rest) = text.split_at(text.find(']')? + 1);
            (address, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let host_is_valid = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')),
        };
        let port = match port {
            // `host:` is valid and means the scheme's default port.
            None | Some("") => None,
            // `u16::from_str` takes a sign; a port has none.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
        };
        host_is_valid.then_some(Self { host, port })
    }

    /// Whether both name the same host and port, letters compared without case, 80 and 443 as "no port".
    ///
    /// Those two are equal to each other as well: behind a proxy that ends TLS the scheme is not
    /// known, so neither is the default port that belongs to it.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        let explicit = |port: Option<u16>| port.filter(|port| !matches!(port, 80 | 443));
        self.host.eq_ignore_ascii_case(other.host) && explicit(self.port) == explicit(other.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hosts_and_ports() {
        let cases = [
            ("example.com", Some(("example.com", None))),
            ("example.com:8080", Some(("example.com", Some(8080)))),
            ("chat_service:5003", Some(("chat_service", Some(5003)))),
            ("10.0.0.1:80", Some(("10.0.0.1", Some(80)))),
            ("[::1]", Some(("[::1]", None))),
            ("[::1]:5003", Some(("[::1]", Some(5003)))),
            ("host:", Some(("host", None))),
            ("host:65535", Some(("host", Some(65535)))),
            ("", Some(("", None))),
            ("host:65536", None),
            ("host:+80", None),
            ("host:80:80", None),
            ("host:http", None),
            ("user@host", None),
            ("host/path", None),
            ("a,b", None),
            ("a b", None),
            ("a%41", None),
            ("é.com", None),
            ("[::1", None),
            ("[::1]5003", None),
            ("[zz]", None),
            ("::1", None),
        ];
        for (text, expected) in cases {
            let found = Authority::parse(text.as_bytes()).map(|authority| (authority.host, authority.port));
            assert_eq!(found, expected, "{text:?}");
        }
        assert_eq!(Authority::parse(b"a\xff"), None);
    }

    #[test]
    fn compares_without_case_and_default_ports() {
        let cases = [
            ("a.com", "A.COM", true),
            ("a.com", "a.com:443", true),
            ("a.com:80", "a.com", true),
            ("a.com:80", "a.com:443", true),
            ("a.com:5003", "a.com:5003", true),
            ("a.com:5003", "a.com", false),
            ("a.com", "b.com", false),
            ("a.com", "a.com.evil.org", false),
        ];
        for (left, right, same) in cases {
            let pair = [left, right].map(|text| Authority::parse(text.as_bytes()).unwrap());
            assert_eq!(pair[0].is_same_as(&pair[1]), same, "{left} {right}");
        }
    }
}
