//! How much one client may ask for.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::reader::{Reader, parse_integer};
use crate::limits::Rate;

/// Rates, strikes and caps.
///
/// A rate is `per second/burst`; `None` is no limit. `RATE_LIMITS=off` makes all of them and `strikes` `None`, and
/// leaves the caps as they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Messages, edits, deletions and reactions of a user. `RATE_MSG`, default 5/20.
    pub msg: Option<Rate>,
    /// Typing and reading marks of a user. `RATE_TYPING`, default 2/5.
    pub typing: Option<Rate>,
    /// Joins, leaves and refreshed tokens of a user. `RATE_JOIN`, default 10/50.
    pub join: Option<Rate>,
    /// Requests for history, presence and notifications of a user. `RATE_HIST`, default 5/20.
    pub hist: Option<Rate>,
    /// Events of a user, of whatever kind. `RATE_EVT`, default 50/100.
    pub evt: Option<Rate>,
    /// Messages, edits, deletions and reactions in a room, by whomever. `RATE_ROOM`, default 50/200.
    pub room: Option<Rate>,
    /// New connections from an IP address. `RATE_CONNECT`, default 20/100.
    pub connect: Option<Rate>,
    /// Bytes that are read from a connection. `RATE_INPUT`, default 131 072/524 288.
    pub input: Option<Rate>,
    /// Refused events of a connection in 60 s; one more and it is closed. `STRIKES`, default 200, 0 is off.
    pub strikes: Option<NonZeroU32>,
    /// How long a user whose connection was closed for it has to stay away. `PENALTY`, default 30 s.
    pub penalty: Duration,
    /// Live sockets of a user; `None` is no limit. `MAX_SOCKETS_PER_USER`, default 20, 0 is off.
    pub max_sockets_per_user: Option<NonZeroUsize>,
    /// Live connections from an IP address; `None` is no limit. `MAX_CONNECTIONS_PER_IP`, default 500, 0 is off.
    ///
    /// Behind a proxy that `TRUSTED_PROXIES` does not name, all clients share one address.
    pub max_connections_per_ip: Option<NonZeroUsize>,
    /// Rooms that a socket can be in. `MAX_ROOMS_PER_SOCKET`, default 100, at least 1.
    pub max_rooms_per_socket: usize,
    /// Users that can be in a room. `MAX_USERS_PER_ROOM`, default 10 000, at least 1. A message costs a write for each.
    pub max_users_per_room: usize,
}

impl<L: Fn(&str) -> Option<String>> Reader<L> {
    pub(super) fn limits(&mut self) -> Limits {
        let on = self.flag("RATE_LIMITS");
        // Read even if they are off: a mistake should not wait for the day on which they are turned on.
        let mut rate = |name| self.rate(name).filter(|_| on);
        Limits {
            msg: rate("RATE_MSG"),
            typing: rate("RATE_TYPING"),
            join: rate("RATE_JOIN"),
            hist: rate("RATE_HIST"),
            evt: rate("RATE_EVT"),
            room: rate("RATE_ROOM"),
            connect: rate("RATE_CONNECT"),
            input: rate("RATE_INPUT"),
            strikes: NonZeroU32::new(self.integer("STRIKES", 0..=MAX_STRIKES)).filter(|_| on),
            penalty: self.duration("PENALTY", "0s", "1d"),
            max_sockets_per_user: NonZeroUsize::new(self.integer("MAX_SOCKETS_PER_USER", 0..=MAX_CAP)),
            max_connections_per_ip: NonZeroUsize::new(self.integer("MAX_CONNECTIONS_PER_IP", 0..=MAX_CAP)),
            max_rooms_per_socket: self.integer("MAX_ROOMS_PER_SOCKET", 1..=MAX_CAP),
            max_users_per_room: self.integer("MAX_USERS_PER_ROOM", 1..=MAX_CAP),
        }
    }

    fn rate(&mut self, name: &'static str) -> Option<Rate> {
        self.read(name, |text| match text {
            "off" => Ok(None),
            _ => parse_rate(text)
                .map(Some)
                .ok_or_else(|| format!("per second/burst, two integers from 1 to {MAX_RATE} such as 5/20, or off")),
        })
    }
}

fn parse_rate(text: &str) -> Option<Rate> {
    let (per_s, burst) = text.split_once('/')?;
    let number = |text| parse_integer(text, "", &(1..=MAX_RATE)).ok();
    Some(Rate { per_s: number(per_s)?, burst: number(burst)? })
}

/// Far beyond what a machine can do, in events or bytes, and far from where sums overflow.
const MAX_RATE: u64 = 1_000_000_000;

/// As many refusals in a minute are no limit.
const MAX_STRIKES: u64 = 1_000_000;

/// As `MAX_CONNECTIONS`.
const MAX_CAP: u64 = 10_000_000;
