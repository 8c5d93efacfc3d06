//! SIGTERM and SIGINT: the first starts the drain, the second ends the process at once.

use std::future::Future;
use std::io;
use std::process;
use std::thread;
use std::time::Duration;

use async_signal::{Signal, Signals};
use smol::channel;
use smol::stream::StreamExt as _;

/// Listens from this call on; the future ends with the first signal.
///
/// A second signal ends the process at once, with status 128 + its number (143 for SIGTERM, 130 for
/// SIGINT) as if it had not been caught. That is why a thread of its own listens: whoever sends the
/// second one has no patience left for an executor that is stuck.
///
/// # Errors
/// The handlers could not be installed, or there is no thread to be had.
pub fn signal() -> io::Result<impl Future<Output = Signal>> {
    let mut signals = Signals::new([Signal::Term, Signal::Int])?;
    let (sender, receiver) = channel::bounded(1);
    thread::Builder::new().name("signals".into()).stack_size(STACK_BYTES).spawn(move || {
        smol::block_on(async {
            let first = next(&mut signals).await;
            // Fails only if nobody waits any more, and then there is nothing to drain.
            let _ = sender.send(first).await;
            let second = next(&mut signals).await;
            // Not logged first: a log that nobody reads may be what the process is stuck on.
            process::exit(128 + second as i32);
        });
    })?;
    // The sender lives until it has sent; should its thread die, a server that cannot be told to stop
    // is better stopped.
    Ok(async move { receiver.recv().await.unwrap_or(Signal::Term) })
}

/// Ends the process after `timeout`, with status 0, whatever it is busy with: a drain must not depend on the very
/// threads that may be the problem.
pub fn end_after(timeout: Duration) {
    let watch = move || {
        thread::sleep(timeout);
        process::exit(0);
    };
    if let Err(error) = thread::Builder::new().name("deadline".into()).stack_size(STACK_BYTES).spawn(watch) {
        log::warn!("nobody watches the drain's deadline: {error}");
    }
}

async fn next(signals: &mut Signals) -> Signal {
    loop {
        // The stream never ends; an error is a short read of its pipe, and the next read is sound.
        if let Some(Ok(signal)) = signals.next().await {
            return signal;
        }
    }
}

/// The thread only waits.
const STACK_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::env;
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    /// Set in the child process of [`second_signal_ends_a_stuck_process`].
    const CHILD: &str = "CHAT_SERVICE_SHUTDOWN_CHILD";

    /// Not a test: the process that gets the signals. Stuck on purpose once it was told to stop.
    #[test]
    fn child() {
        if env::var_os(CHILD).is_some() {
            let stop = signal().expect("handlers");
            eprintln!("listening");
            let first = smol::block_on(stop);
            eprintln!("draining after {first:?}");
            thread::sleep(Duration::from_secs(60));
        }
    }

    #[test]
    fn second_signal_ends_a_stuck_process() {
        for (first, second, status) in [("TERM", "TERM", 143), ("TERM", "INT", 130)] {
            let mut child = Command::new(env::current_exe().expect("a path"))
                .args(["--exact", "shutdown::tests::child", "--nocapture"])
                .env(CHILD, "1")
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the test binary runs");
            let kill = |signal: &str, pid: u32| {
                let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).status();
                assert!(sent.expect("a shell").success());
            };
            let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
            let mut wait_for = |text: &str| lines.by_ref().map_while(Result::ok).any(|line| line.starts_with(text));
            assert!(wait_for("listening"));
            kill(first, child.id());
            assert!(wait_for("draining after Term"));
            kill(second, child.id());
            let ended = child.wait().expect("it ends");
            assert_eq!(ended.code(), Some(status), "{first}, {second}");
        }
    }
}
