//! Reads variables, and collects what is wrong with them.

use std::{fmt, ops::RangeInclusive, time::Duration};

use super::settings::Setting;

/// Why the process does not start: at least one variable that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Never empty.
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn from_problems(problems: Vec<Problem>) -> Option<Self> {
        if problems.is_empty() { None } else { Some(Self { problems }) }
    }

    /// Everything that was wrong, in the order it was read. Never empty.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    /// One problem a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One variable that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    variable: &'static str,
    given: Given,
    expected: String,
}

/// What the variable held.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    Value(String),
    Secret,
    Nothing,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.given {
            // Quoted and escaped: a stray line end or blank is what the reader is looking for.
            Given::Value(value) => write!(f, "{}={value:?}", self.variable)?,
            Given::Secret => write!(f, "{}=(hidden)", self.variable)?,
            Given::Nothing => write!(f, "{} is not set", self.variable)?,
        }
        write!(f, ": expected {}", self.expected)
    }
}

/// Reads variables and collects what is wrong with them.
///
/// A value that cannot be used is replaced by its default, only so that reading can go on.
pub(super) struct Reader<L> {
    lookup: L,
    /// Which column of the table counts.
    pub(super) production: bool,
    pub(super) problems: Vec<Problem>,
}

impl<L: Fn(&str) -> Option<String>> Reader<L> {
    pub(super) fn new(lookup: L) -> Self {
        Self { lookup, production: false, problems: Vec::new() }
    }

    pub(super) fn raw(&self, name: &'static str) -> Option<String> {
        (self.lookup)(Setting::named(name).name).filter(|value| !value.is_empty())
    }

    pub(super) fn refuse(&mut self, variable: &'static str, expected: String) {
        let setting = Setting::named(variable);
        let given = match self.raw(variable) {
            Some(_) if setting.secret => Given::Secret,
            Some(value) => Given::Value(value.chars().take(SHOWN_CHARS).collect()),
            None => Given::Nothing,
        };
        self.problems.push(Problem { variable, given, expected });
    }

    /// The variable's value; the default of the table when it is unset. `parse` fails with what it
    /// expected.
    #[expect(clippy::expect_used, reason = "defaults are constants, and a test reads them all")]
    pub(super) fn read<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        let setting = Setting::named(name);
        let default = setting.in_production.filter(|_| self.production).unwrap_or(setting.default);
        let default = parse(default).expect("every default in SETTINGS parses");
        self.read_or(name, default, parse)
    }

    /// As [`read`](Self::read), for a default that is worked out.
    pub(super) fn read_or<T>(
        &mut self,
        name: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        match self.raw(name).as_deref().map(parse) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(expected)) => {
                self.refuse(name, expected);
                default
            }
        }
    }

    /// As [`read`](Self::read), for a variable that has no default.
    pub(super) fn optional<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.read_or(name, None, |text| parse(text).map(Some))
    }

    pub(super) fn flag(&mut self, name: &'static str) -> bool {
        self.read(name, parse_flag)
    }

    pub(super) fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> T {
        self.read(name, |text| parse_word(text, words))
    }

    pub(super) fn integer<T: TryFrom<u64>>(&mut self, name: &'static str, range: RangeInclusive<u64>) -> T {
        let unit = Setting::named(name).unit;
        self.read(name, |text| parse_integer(text, unit, &range))
    }

    pub(super) fn milliseconds(&mut self, name: &'static str) -> Duration {
        Duration::from_millis(self.integer(name, 10..=3_600_000))
    }

    /// The bounds are written as an operator writes them, and shown so.
    #[expect(clippy::expect_used, reason = "bounds are constants, and a test reads them all")]
    pub(super) fn duration(&mut self, name: &'static str, min: &str, max: &str) -> Duration {
        let bound = |text| parse_duration(text).expect("a bound is a duration");
        let range = bound(min)..=bound(max);
        self.read(name, |text| {
            parse_duration(text).filter(|duration| range.contains(duration)).ok_or_else(|| {
                let bare = text.bytes().all(|byte| byte.is_ascii_digit());
                let hint = if bare { "; a bare integer has no unit" } else { "" };
                format!("a duration with its unit (ms, s, m, h or d), from {min} to {max}{hint}")
            })
        })
    }
}

/// One of `words`, spelled exactly.
pub(super) fn parse_word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        words.join(" or ")
    })
}

/// Digits only: no sign, no blanks, no separators, as JSON writes an integer.
pub(super) fn parse_integer<T: TryFrom<u64>>(text: &str, unit: &str, range: &RangeInclusive<u64>) -> Result<T, String> {
    digits(text)
        .filter(|value| range.contains(value))
        .and_then(|value| T::try_from(value).ok())
        .ok_or_else(|| format!("{unit}, an integer from {} to {}", range.start(), range.end()))
}

/// `1` or `0`, and the words that other tools write for them.
fn parse_flag(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" | "on" | "yes" => Ok(true),
        "0" | "false" | "off" | "no" => Ok(false),
        _ => Err("1 or 0 (or true or false, on or off, yes or no)".to_owned()),
    }
}

/// What another service writes into a claim.
pub(super) fn parse_text(text: &str) -> Result<String, String> {
    let fits = text.chars().count() <= MAX_TEXT_CHARS && !text.chars().any(char::is_control);
    let is_trimmed = text.trim().len() == text.len();
    (fits && is_trimmed)
        .then(|| text.to_owned())
        .ok_or_else(|| format!("1 to {MAX_TEXT_CHARS} printable characters, without blanks at the ends"))
}

/// An address that can be fetched, as it was written. Whether it answers is seen when it is used.
pub(super) fn parse_url(text: &str) -> Result<String, String> {
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| text.get(..scheme.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(scheme)));
    let rest = scheme.and_then(|scheme| text.get(scheme.len()..)).unwrap_or_default();
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let has_host = !host.is_empty() && !host.starts_with(':');
    // A blank or control character would end the request line early; a fragment is never sent.
    let is_sendable = text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\'));
    (has_host && is_sendable && text.len() <= MAX_URL_BYTES)
        .then(|| text.to_owned())
        .ok_or_else(|| format!("http:// or https://, a host, and a path if needed; at most {MAX_URL_BYTES} bytes"))
}

/// A text in PEM (RFC 7468) in which every label ends with `label`. Compose files and shells find it hard to pass a
/// line end, so `\n` may stand for one.
pub(super) fn parse_pem(text: &str, label: &str) -> Option<String> {
    let text = text.replace("\\n", "\n");
    let (mut begins, mut ends) = (0, 0);
    for line in text.lines().map(str::trim).filter(|line| line.starts_with("-----")) {
        begins += usize::from(line.starts_with("-----BEGIN "));
        ends += usize::from(line.starts_with("-----END "));
        if !line.ends_with(label) {
            return None;
        }
    }
    (begins > 0 && begins == ends).then_some(text)
}

/// `10s`, `250ms`, `15m`, `24h`, `7d`; `None` for everything else.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    digits(number)?.checked_mul(unit_ms).map(Duration::from_millis)
}

fn digits(text: &str) -> Option<u64> {
    // `parse` alone would take a leading plus.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A claim's name or value; issuers are often URLs.
const MAX_TEXT_CHARS: usize = 256;

/// More is not an address that somebody wrote.
const MAX_URL_BYTES: usize = 2048;

/// How much of an unusable value a message shows.
pub(super) const SHOWN_CHARS: usize = 80;
