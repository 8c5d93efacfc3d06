//! Listening sockets and what is let in.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use smol::{Async, future::yield_now};

use crate::{
    metrics::Refusal,
    net::{
        channel::drain,
        connection::Connection,
        shared::{Admission, Shared, Verdict},
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
    // On a socket for both families, an IPv4 peer comes as an IPv6 address.
    let peer = peer.to_canonical();
    let (admission, verdict) = Admission::new(shared, peer);
    let refusal = match verdict {
        Verdict::Welcome => None,
        Verdict::Full => Some(Refusal::TooManyConnections),
        Verdict::PeerFull => Some(Refusal::TooManyPerIp),
    };
    if let Some(refusal) = refusal {
        shared.metrics.refused(refusal);
        return refuse(stream, admission, shared);
    }
    if let Err(error) = stream.get_ref().set_nodelay(true) {
        log::debug!("TCP_NODELAY: {error}");
    }
    let connection = Connection::new(stream, peer, Arc::clone(shared), admission);
    shared.executor.spawn(connection.run()).detach();
}

fn refuse(stream: Async<TcpStream>, admission: Admission, shared: &Arc<Shared>) {
    // One attempt: the answer fits into an empty send buffer.
    if io::Write::write(&mut stream.get_ref(), TOO_MANY).is_err() {
        return;
    }
    // Closing at once could take the answer back, but a flood must not make us wait for many.
    // ORDERING: Relaxed. A limit that several acceptors may pass by one each.
    if shared.lingering.load(Ordering::Relaxed) >= LINGERING_MAX {
        return;
    }
    shared.lingering.fetch_add(1, Ordering::Relaxed);
    let task_shared = Arc::clone(shared);
    let linger = async move {
        drain(&stream, &task_shared.timers).await;
        task_shared.lingering.fetch_sub(1, Ordering::Relaxed);
        drop(admission);
    };
    shared.executor.spawn(linger).detach();
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
