//! A light load generator for Socket.IO 5 servers: raw WebSockets, one thread, one epoll.
//!
//! It is built to cost much less than the server it loads: frames are recognised by their first
//! bytes and skipped, nothing is parsed as JSON, what is sent is prepared beforehand where it can be.
//! Each mode prints one line of JSON on stdout; what goes on meanwhile is told on stderr.
//!
//! Start reading in [`modes`]; [`connection`] is the protocol, [`fleet`] the event loop, [`process`]
//! what `/proc` says about the server.

mod args;
mod connection;
mod fleet;
mod modes;
mod process;
mod report;

use std::process::ExitCode;

use args::Args;

/// Anything that ends a run: shown to the person who started it, never matched on.
type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "\
usage: chat-load MODE --port PORT [--pid SERVER_PID] [OPTIONS]

  idle       --connections N --hold SECONDS
  echo       --connections N --window W --seconds S [--warmup S] [--event message] [--reply response]
  broadcast  --rooms R --members M --senders-per-room K --window W --seconds S [--warmup S] [--settle S]
  burst      --members M --messages N [--settle S]     one room, one message at a time
  start      --times N [--path /api/v1/chat/health] [--rest S] -- COMMAND...   start to first 200, then RSS

Each prints one line of JSON. What the numbers mean stands in benches/README.md.";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(mode) = words.next() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let outcome = Args::parse(words).and_then(|args| match mode.as_str() {
        "idle" => modes::idle(&args),
        "echo" => modes::echo(&args),
        "broadcast" => modes::broadcast(&args),
        "burst" => modes::burst(&args),
        "start" => modes::start(&args),
        _ => Err(format!("no such mode: {mode}\n{USAGE}").into()),
    });
    match outcome {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("chat-load {mode}: {failure}");
            ExitCode::FAILURE
        }
    }
}
