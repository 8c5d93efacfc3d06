//! Where log records go: stderr, as text for people or as one JSON object a line.
//!
//! Text is [`SimpleLogger`]'s; this module adds what a server needs around it: chatty dependencies are
//! capped at `warn`, a record is one line whatever a client managed to put into it, and a stderr that
//! nobody reads any more is not a reason to panic.
//!
//! A write to stderr blocks while the pipe behind it is full, so per-event records are `debug`.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record, SetLoggerError};
use simple_logger::SimpleLogger;

use crate::config::LogFormat;

/// Sends the records of the whole process to stderr from here on.
///
/// # Errors
/// A logger was set before.
pub fn init(level: LevelFilter, format: LogFormat) -> Result<(), SetLoggerError> {
    log::set_boxed_logger(Box::new(Logger { level, sink: Sink::new(format) }))?;
    log::set_max_level(level);
    Ok(())
}

struct Logger {
    level: LevelFilter,
    sink: Sink,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= limit(self.level, metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            match &self.sink {
                Sink::Text(text) => text.log(record),
                Sink::Json => {
                    let line = json_line(SystemTime::now(), record);
                    // Nowhere to report it to.
                    let _ = io::stderr().write_all(&line);
                }
            }
        }
    }

    fn flush(&self) {}
}

enum Sink {
    Text(Text),
    Json,
}

impl Sink {
    fn new(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text(Text::default()),
            LogFormat::Json => Self::Json,
        }
    }
}

/// The level for a record of `target`: what was set, but at most `warn` for the crates in [`NOISY`].
fn limit(level: LevelFilter, target: &str) -> LevelFilter {
    let krate = target.split("::").next().unwrap_or(target);
    if NOISY.contains(&krate) { level.min(LevelFilter::Warn) } else { level }
}

/// Dependencies that log every frame or every turn of the reactor.
const NOISY: [&str; 5] = ["async_io", "async_tungstenite", "polling", "tracing", "tungstenite"];

/// [`SimpleLogger`], kept from panicking: it prints with `eprintln!`, which does when stderr is a pipe
/// without a reader or a full disk.
#[derive(Default)]
struct Text {
    logger: SimpleLogger,
    /// Records still to be dropped after a failed write, since every failure costs an unwinding and
    /// runs the panic hook.
    muted: AtomicU32,
}

impl Text {
    fn log(&self, record: &Record<'_>) {
        // ORDERING: Relaxed. Only counts; nothing else is published by it.
        let mute = |left: u32| left.checked_sub(1);
        if self.muted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, mute).is_ok() {
            return;
        }
        // A panic hook that logs would come back here and fail again, which aborts the process.
        if LOGGING.try_with(|logging| logging.replace(true)).unwrap_or(true) {
            return;
        }
        let print = AssertUnwindSafe(|| {
            self.logger.log(
                &Record::builder()
                    .metadata(record.metadata().clone())
                    .args(format_args!("{}", OneLine(record.args())))
                    .module_path(record.module_path())
                    .build(),
            );
        });
        if panic::catch_unwind(print).is_err() {
            self.muted.store(MUTED_RECORDS, Ordering::Relaxed);
        }
        let _ = LOGGING.try_with(|logging| logging.set(false));
    }
}

/// How long to leave a broken stderr alone, in records.
const MUTED_RECORDS: u32 = 1000;

thread_local! {
    /// Whether this thread is inside [`Text::log`].
    static LOGGING: Cell<bool> = const { Cell::new(false) };
}

/// A message with its control characters escaped, so that no client can forge a second record.
struct OneLine<'a>(&'a fmt::Arguments<'a>);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

        impl fmt::Write for Escaping<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for part in text.split_inclusive(char::is_control) {
                    let last = part.chars().next_back().filter(|c| c.is_control());
                    self.0.write_str(&part[..part.len() - last.map_or(0, char::len_utf8)])?;
                    if let Some(control) = last {
                        write!(self.0, "{}", control.escape_default())?;
                    }
                }
                Ok(())
            }
        }

        Escaping(f).write_fmt(*self.0)
    }
}

/// `{"ts":…,"level":…,"target":…,"message":…}` and a line end, in one piece so that the lines of two
/// threads never mix.
fn json_line(now: SystemTime, record: &Record<'_>) -> Vec<u8> {
    let level = match record.level() {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let mut line = format!(r#"{{"ts":"{}","level":"{level}","target":"#, Timestamp(now)).into_bytes();
    // Writing a string to a Vec cannot fail.
    let _ = serde_json::to_writer(&mut line, record.target());
    line.extend_from_slice(br#","message":"#);
    let _ = match record.args().as_str() {
        Some(message) => serde_json::to_writer(&mut line, message),
        None => serde_json::to_writer(&mut line, &record.args().to_string()),
    };
    line.extend_from_slice(b"}\n");
    line
}

/// A point in time as RFC 3339, UTC, milliseconds. Times before 1970 show as 1970.
struct Timestamp(SystemTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil_date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let milli = since.subsec_millis();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01.
///
/// Counts from 0000-03-01, so that the leap day is the last of its year, in eras of 400 years, which
/// are all of one length. <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_ERA: u64 = 146_097;
    let days = days + 719_468;
    let (era, day_of_era) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn timestamps_are_rfc_3339() {
        // Checked with `date -u -d @SECONDS +%FT%T`.
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_001, "2000-03-01T00:00:00.001Z"),
            (1_709_210_096_789, "2024-02-29T12:34:56.789Z"),
            (1_767_225_599_000, "2025-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (millis, expected) in cases {
            let time = UNIX_EPOCH + Duration::from_millis(millis);
            assert_eq!(Timestamp(time).to_string(), expected, "{millis}");
        }
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(Timestamp(before).to_string(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_json_record_is_one_object_on_one_line() {
        let messages = ["plain", "line\nend \"quoted\" \\ \u{1} \u{2028} é", ""];
        for message in messages {
            let line = json_line(
                UNIX_EPOCH,
                &Record::builder()
                    .level(Level::Warn)
                    .target("chat_service::net")
                    .args(format_args!("{message}"))
                    .build(),
            );
            let (end, body) = line.split_last().expect("not empty");
            assert_eq!(*end, b'\n');
            assert!(!body.contains(&b'\n'), "{message:?}");
            let object: Value = serde_json::from_slice(body).expect("valid JSON");
            let expected = serde_json::json!({
                "ts": "1970-01-01T00:00:00.000Z",
                "level": "warn",
                "target": "chat_service::net",
                "message": message,
            });
            assert_eq!(object, expected);
        }
    }

    #[test]
    fn noisy_crates_are_capped_and_only_they() {
        use LevelFilter::{Debug, Error, Off, Warn};
        let cases = [
            (Debug, "chat_service::net", Debug),
            (Debug, "tungstenite::protocol", Warn),
            (Debug, "tungstenite", Warn),
            (Debug, "polling::epoll", Warn),
            (Debug, "pollingstation", Debug),
            (Error, "tungstenite::protocol", Error),
            (Off, "async_io", Off),
        ];
        for (level, target, expected) in cases {
            assert_eq!(limit(level, target), expected, "{level} {target}");
        }
    }

    #[test]
    fn control_characters_do_not_start_a_new_line() {
        let cases =
            [("plain é", "plain é"), ("", ""), ("a\nb\r\n", "a\\nb\\r\\n"), ("\u{1b}[31m\u{85}", "\\u{1b}[31m\\u{85}")];
        for (text, expected) in cases {
            assert_eq!(OneLine(&format_args!("{text}")).to_string(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_muted_text_log_comes_back() {
        let text = Text { muted: AtomicU32::new(1), ..Text::default() };
        let record = Record::builder().level(Level::Error).args(format_args!("not shown")).build();
        text.log(&record);
        assert_eq!(text.muted.load(Ordering::Relaxed), 0);
    }
}
