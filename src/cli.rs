//! The command line: which of the five things to do. All settings are variables (see [`config`]),
//! so there is little to parse and no crate for it.
//!
//! [`config`]: crate::config

use std::ffi::OsString;
use std::fmt::Write as _;

use crate::config::{SETTINGS, Setting};

/// What the process was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve. No argument.
    Run,
    /// Print [`help_text`].
    Help,
    /// Print [`version_text`].
    Version,
    /// Read the settings, say what is wrong with them, and leave.
    CheckConfig,
    /// Ask a running server for its health; see [`healthcheck`](crate::healthcheck).
    Healthcheck,
}

/// Reads the arguments behind the program's name: `std::env::args_os().skip(1)`.
///
/// # Errors
/// An argument that is not known, or one too many. The process should leave with status 2.
pub fn parse<A: Into<OsString>>(args: impl IntoIterator<Item = A>) -> Result<Command, String> {
    let mut args = args.into_iter().map(|arg| arg.into().to_string_lossy().into_owned());
    let command = match args.next().as_deref() {
        None => Command::Run,
        Some("--check-config") => Command::CheckConfig,
        Some("healthcheck") => Command::Healthcheck,
        Some("--help" | "-h") => Command::Help,
        Some("--version" | "-V") => Command::Version,
        Some(other) => return Err(format!("unknown argument {other:?}: expected {EXPECTED}")),
    };
    match args.next() {
        None => Ok(command),
        Some(extra) => Err(format!("unexpected argument {extra:?}: expected only one of {EXPECTED}")),
    }
}

/// What `--help` prints: the commands, then every setting with its unit and default.
pub fn help_text() -> String {
    let mut text = format!("{}: {SUMMARY}\n\n{COMMANDS}\n", version_text());
    text.push_str("Settings are environment variables; an empty one counts as unset.\n");
    let mut shown = None;
    for Setting { group, name, default, in_production, unit, help, .. } in SETTINGS {
        // Writing to a String cannot fail.
        if shown.replace(group) != Some(group) {
            let _ = write!(text, "\n{group}:\n");
        }
        let production = in_production.map(|value| format!("; in production {value}"));
        let production = production.as_deref().unwrap_or_default();
        let _ = write!(text, "\n  {name}\n      {help}\n      {unit}; default {default}{production}\n");
    }
    text
}

/// What `--version` prints.
pub fn version_text() -> &'static str {
    concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"))
}

const SUMMARY: &str = "real-time chat and notifications over Socket.IO";

const EXPECTED: &str = "--check-config, healthcheck, --help, --version, or nothing to run the server";

const COMMANDS: &str = "\
Usage: chat-service [healthcheck | --check-config | --help | --version]

  (nothing)      run the server until SIGTERM or SIGINT; a second one ends it at once
  --check-config read the settings and say what is wrong with them
  healthcheck    ask the server on HOST and PORT for its health
  -h, --help     print this
  -V, --version  print the version

Exit status: 0 done or healthy, 1 stopped by an error or unhealthy, 2 bad arguments or settings,
130 or 143 ended at once by a second SIGINT or SIGTERM.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_command() {
        let cases: &[(&[&str], Command)] = &[
            (&[], Command::Run),
            (&["--check-config"], Command::CheckConfig),
            (&["healthcheck"], Command::Healthcheck),
            (&["--help"], Command::Help),
            (&["-h"], Command::Help),
            (&["--version"], Command::Version),
            (&["-V"], Command::Version),
        ];
        for (args, expected) in cases {
            assert_eq!(parse(args.iter()), Ok(*expected), "{args:?}");
        }
    }

    #[test]
    fn an_unknown_argument_is_named() {
        let cases: &[(&[&str], &str)] = &[
            (&["serve"], "serve"),
            (&[""], "\"\""),
            (&["--port=1"], "--port=1"),
            (&["--help", "me"], "me"),
            (&["healthcheck", "--help"], "--help"),
        ];
        for (args, named) in cases {
            let error = parse(args.iter()).expect_err("unknown");
            assert!(error.contains(named) && error.ends_with(EXPECTED), "{args:?}: {error}");
        }
    }

    #[test]
    fn help_lists_every_setting_with_its_default() {
        let help = help_text();
        for setting in SETTINGS {
            let entry = format!("\n  {}\n", setting.name);
            assert_eq!(help.matches(&entry).count(), 1, "{}", setting.name);
            let line = format!("{}; default {}", setting.unit, setting.default);
            assert!(help.contains(&line), "{}", setting.name);
            let heading = format!("\n{}:\n", setting.group);
            assert_eq!(help.matches(&heading).count(), 1, "{heading:?}: a group's settings stand together");
        }
        let too_long: Vec<&str> = help.lines().filter(|line| line.chars().count() > 100).collect();
        assert!(too_long.is_empty(), "{too_long:#?}");
    }
}
