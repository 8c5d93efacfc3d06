//! Whose request it is, when it comes through proxies (`X-Forwarded-For`).
//!
//! Each proxy appends the address that it was asked by, so the list is to be believed from its right end, and only as
//! far as the proxies are ours: everything to the left of the first foreign address is what that client said.

use std::net::IpAddr;

use super::token;

/// The proxies whose word is taken for who their client is: `TRUSTED_PROXIES`. None by default.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TrustedProxies(Box<[Network]>);

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Network {
    address: IpAddr,
    prefix_bits: u32,
}

impl TrustedProxies {
    /// Reads a comma list of addresses and networks, such as `10.0.0.0/8, fd00::/8, 127.0.0.1`. Bits behind a prefix are
    /// ignored. Nothing in the list: nobody is trusted.
    ///
    /// # Errors
    ///
    /// Which element was not understood, and what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let networks = token::list(text.as_bytes()).map(|element| {
            let element = String::from_utf8_lossy(element);
            Network::parse(&element).ok_or_else(|| {
                format!(
                    "{element:?}: expected an address such as 10.0.0.1, or a network such as 10.0.0.0/8 or fd00::/8"
                )
            })
        });
        networks.collect::<Result<_, _>>().map(Self)
    }

    /// Whether `address` is one of these proxies.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whether every address of a kind is one of them.
    pub fn contains_everything(&self) -> bool {
        self.0.iter().any(|network| network.prefix_bits == 0)
    }

    /// Who asks, if `peer` is who is connected and `forwarded_for` are the values of all `X-Forwarded-For` headers, in
    /// order.
    ///
    /// That is the peer, unless it is a proxy of ours; then it is the right-most address that is not. If all are ours, the
    /// left-most of them is the client. What cannot be read, down to there, makes it the peer.
    pub fn client<'a>(&self, peer: IpAddr, forwarded_for: impl Iterator<Item = &'a [u8]>) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.contains(peer) {
            return peer;
        }
        let mut client = peer;
        // Bounded by the request head's limit.
        let hops: Vec<_> = forwarded_for.flat_map(token::list).collect();
        for hop in hops.into_iter().rev() {
            let Some(address) = parse_hop(hop) else { return peer };
            client = address;
            if !self.contains(address) {
                break;
            }
        }
        client
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix_bits) = match text.split_once('/') {
            // Neither a sign nor an empty number.
            Some((address, bits)) if !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address, Some(bits.parse().ok()?))
            }
            Some(_) => return None,
            None => (text, None),
        };
        let given: IpAddr = address.parse().ok()?;
        let prefix_bits = prefix_bits.unwrap_or(bits(given));
        if prefix_bits > bits(given) {
            return None;
        }
        let address = given.to_canonical();
        // A network of IPv4-mapped addresses is one of IPv4, or holds more than those.
        let cut_bits = bits(given) - bits(address);
        Some(Self { address, prefix_bits: prefix_bits.checked_sub(cut_bits)? })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let differing = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => u128::from(own.to_bits() ^ other.to_bits()),
            (IpAddr::V6(own), IpAddr::V6(other)) => own.to_bits() ^ other.to_bits(),
            _ => return false,
        };
        differing.checked_shr(bits(address) - self.prefix_bits).is_none_or(|prefix| prefix == 0)
    }
}

fn bits(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// One element of the list: an address, in brackets or not, with a port or not.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?;
    let address = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            if !port.is_empty() && !is_port(port.strip_prefix(':')?) {
                return None;
            }
            IpAddr::V6(address.parse().ok()?)
        }
        None => match text.split_once(':') {
            // More than one colon: IPv6, without a port.
            Some((address, port)) if !port.contains(':') => {
                if !is_port(port) {
                    return None;
                }
                IpAddr::V4(address.parse().ok()?)
            }
            _ => text.parse().ok()?,
        },
    };
    Some(address.to_canonical())
}

fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client(proxies: &str, peer: &str, headers: &[&str]) -> String {
        let proxies = TrustedProxies::parse(proxies).unwrap();
        proxies.client(ip(peer), headers.iter().map(|value| value.as_bytes())).to_string()
    }

    #[test]
    fn networks_hold_what_begins_like_them() {
        let cases = [
            ("10.0.0.1", &["10.0.0.1", "::ffff:10.0.0.1"][..], &["10.0.0.2", "::1", "::a00:1"][..]),
            ("10.0.0.0/8", &["10.0.0.0", "10.255.255.255"], &["9.255.255.255", "11.0.0.0", "::ffff:11.0.0.1"]),
            ("10.1.2.3/8", &["10.255.0.1"], &["11.1.2.3"]),
            ("10.0.0.0/31", &["10.0.0.0", "10.0.0.1"], &["10.0.0.2"]),
            ("10.0.0.0/32", &["10.0.0.0"], &["10.0.0.1"]),
            ("0.0.0.0/0", &["1.2.3.4", "255.255.255.255"], &["::1"]),
            ("::/0", &["::1", "2001:db8::1"], &["1.2.3.4", "::ffff:1.2.3.4"]),
            ("fd00::/8", &["fd12::1", "fdff::"], &["fe00::", "fc00::"]),
            ("2001:db8::/127", &["2001:db8::", "2001:db8::1"], &["2001:db8::2"]),
            ("::1", &["::1"], &["::2", "127.0.0.1"]),
            ("::ffff:10.0.0.0/104", &["10.1.1.1"], &["11.1.1.1"]),
            ("::ffff:10.0.0.1", &["10.0.0.1"], &["10.0.0.2"]),
            (" 10.0.0.1 ,, fd00::/8,", &["10.0.0.1", "fd00::1"], &["10.0.0.2"]),
            ("", &[], &["127.0.0.1", "::1"]),
        ];
        for (text, inside, outside) in cases {
            let proxies = TrustedProxies::parse(text).unwrap();
            for address in inside {
                assert!(proxies.contains(ip(address)), "{address} in {text:?}");
            }
            for address in outside {
                assert!(!proxies.contains(ip(address)), "{address} not in {text:?}");
            }
        }
    }

    #[test]
    fn what_is_no_network_is_named() {
        let cases = [
            "proxy",
            "10.0.0",
            "10.0.0.1:80",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "/8",
            "[::1]",
            "fe80::1%eth0",
            "10.0.0.0/4294967304",
            "::ffff:10.0.0.0/95",
            "10.0.0.1 10.0.0.2",
            "*",
        ];
        for text in cases {
            let error = TrustedProxies::parse(&format!("127.0.0.1, {text}")).unwrap_err();
            assert!(error.starts_with(&format!("{text:?}: expected")), "{error}");
        }
    }

    #[test]
    fn the_client_is_the_first_foreign_address_from_the_right() {
        const PROXIES: &str = "10.0.0.0/8, ::1";
        let cases: &[(&str, &str, &[&str], &str)] = &[
            ("no proxy", "1.1.1.1", &[], "1.1.1.1"),
            ("no proxy, but it says so", "1.1.1.1", &["2.2.2.2"], "1.1.1.1"),
            ("no proxy, and it names one", "1.1.1.1", &["2.2.2.2, 10.0.0.1"], "1.1.1.1"),
            ("a proxy that says nothing", "10.0.0.1", &[], "10.0.0.1"),
            ("a proxy that says nothing, at length", "10.0.0.1", &["", " , "], "10.0.0.1"),
            ("one hop", "10.0.0.1", &["2.2.2.2"], "2.2.2.2"),
            ("what the client said is not believed", "10.0.0.1", &["9.9.9.9, 2.2.2.2"], "2.2.2.2"),
            ("nor that it is one of us", "10.0.0.1", &["10.0.0.7, 2.2.2.2"], "2.2.2.2"),
            ("nor read", "10.0.0.1", &["<script>, \u{ff}, 2.2.2.2"], "2.2.2.2"),
            ("two proxies", "10.0.0.1", &["9.9.9.9, 2.2.2.2, 10.0.0.2"], "2.2.2.2"),
            ("in two headers", "::1", &["9.9.9.9", "2.2.2.2,10.0.0.2"], "2.2.2.2"),
            ("the last header counts", "::1", &["2.2.2.2", "3.3.3.3"], "3.3.3.3"),
            ("only ours", "10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("malformed", "10.0.0.1", &["2.2.2.2, unknown"], "10.0.0.1"),
            ("malformed behind a proxy", "10.0.0.1", &["unknown, 10.0.0.2"], "10.0.0.1"),
            ("a mapped peer", "::ffff:10.0.0.1", &["2.2.2.2"], "2.2.2.2"),
            ("a mapped stranger", "::ffff:1.1.1.1", &["2.2.2.2"], "1.1.1.1"),
            ("a mapped hop", "10.0.0.1", &["2.2.2.2, ::ffff:10.0.0.2"], "2.2.2.2"),
        ];
        for (name, peer, headers, expected) in cases {
            assert_eq!(client(PROXIES, peer, headers), *expected, "{name}");
        }
        assert_eq!(client("", "127.0.0.1", &["2.2.2.2"]), "127.0.0.1", "nobody is trusted by default");
        let bytes: [&[u8]; 1] = [b"\xff, 2.2.2.2"];
        assert_eq!(TrustedProxies::parse("::1").unwrap().client(ip("::1"), bytes.into_iter()), ip("2.2.2.2"));
    }

    #[test]
    fn hops_come_in_several_forms() {
        let cases = [
            ("1.2.3.4", Some("1.2.3.4")),
            ("1.2.3.4:5678", Some("1.2.3.4")),
            ("::1", Some("::1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("[::ffff:1.2.3.4]:443", Some("1.2.3.4")),
            ("1.2.3.4:", None),
            ("1.2.3.4:x", None),
            ("1.2.3.4:123456", None),
            ("01.2.3.4", None),
            ("1.2.3", None),
            ("[1.2.3.4]", None),
            ("[::1", None),
            ("::1]", None),
            ("[::1]443", None),
            ("[::1]:", None),
            ("[]", None),
            ("\"1.2.3.4\"", None),
            ("fe80::1%eth0", None),
            ("unknown", None),
            ("_hidden", None),
            ("1.2.3.4 5.6.7.8", None),
            ("-", None),
        ];
        for (hop, expected) in cases {
            assert_eq!(parse_hop(hop.as_bytes()), expected.map(ip), "{hop:?}");
        }
        assert_eq!(parse_hop(b"\xff"), None);
    }
}
