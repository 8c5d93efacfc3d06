//! Listening sockets and what is let in.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use smol::{Async, future::yield_now};

use crate::{
    metrics::Refusal,
    net::{
        channel::drain,
        connection::Connection,
        shared::{Admission, Shared},
    },
};

/// Connections that the kernel keeps for us while we are busy. The standard library's 128 would make a wave of
/// reconnecting clients wait a second for their next SYN.
const BACKLOG: i32 = 4096;
/// Connections accepted before others get their turn on this thread.
const ACCEPTS_IN_A_ROW: u64 = 64;
/// Refused connections that are given time to read why.
const LINGERING_MAX: usize = 256;
/// Pauses after a failed accept: out of descriptors, most likely.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Binds a listening socket.
///
/// # Errors
/// The address is taken, or not ours.
pub fn bind(address: SocketAddr) -> io::Result<Async<TcpListener>> {
    let listener = TcpListener::bind(address)?;
    // Said again, for a longer queue.
    rustix::net::listen(&listener, BACKLOG)?;
    Async::new(listener)
}

/// Accepts connections, for ever. Errors are survived with a growing pause.
pub async fn serve(listener: Async<TcpListener>, shared: Arc<Shared>) {
    let mut pause = PAUSE_MIN;
    let mut log_at = Instant::now();
    for accepted in 1_u64.. {
        if accepted.is_multiple_of(ACCEPTS_IN_A_ROW) {
            yield_now().await;
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                pause = PAUSE_MIN;
                admit(stream, peer.ip(), &shared);
            }
            Err(error) => {
                shared.metrics.accept_failed();
                if log_at <= Instant::now() {
                    log::warn!("cannot accept connections: {error}");
                    log_at = Instant::now() + Duration::from_secs(10);
                }
                shared.timers.after(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

fn admit(stream: Async<TcpStream>, peer: IpAddr, shared: &Arc<Shared>) {
    let (admission, open) = Admission::new(shared);
    if shared.settings.max_connections.is_some_and(|limit| open >= limit) {
        shared.metrics.refused(Refusal::TooManyConnections);
        // One attempt: the answer fits into an empty send buffer.
        let told = io::Write::write(&mut stream.get_ref(), TOO_MANY).is_ok();
        // Closing at once could take the answer back, but a flood must not make us wait for many.
        if told && shared.settings.max_connections.is_some_and(|limit| open < limit + LINGERING_MAX) {
            let timers = shared.timers.clone();
            let linger = async move {
                drain(&stream, &timers).await;
                drop(admission);
            };
            shared.executor.spawn(linger).detach();
        }
        return;
    }
    if let Err(error) = stream.get_ref().set_nodelay(true) {
        log::debug!("TCP_NODELAY: {error}");
    }
    let connection = Connection::new(stream, peer, Arc::clone(shared), admission);
    shared.executor.spawn(connection.run()).detach();
}

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
    Cache-Control: no-store\r\nRetry-After: 5\r\nContent-Length: 89\r\nConnection: close\r\n\r\n\
    {\"error\":{\"code\":\"unavailable\",\"message\":\"too many connections\",\"retry_after_ms\":5000}}\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canned_answer_says_its_own_length() {
        let text = std::str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
