//! A bare WebSocket echo, on the same code as everything else: for the public RFC 6455 suites.

use std::{future::poll_fn, sync::Arc, task::Poll};

use async_tungstenite::tungstenite::Message;

use crate::{
    net::{
        channel::{Channel, CloseCode, End},
        shared::{Admission, Shared},
    },
    outbox::Frame,
};

/// Sends every message back until the client closes. A message is read only after the one before is written.
pub(super) async fn run(mut channel: Channel, shared: Arc<Shared>, _admission: Admission) {
    let code: Option<CloseCode> = loop {
        let next = poll_fn(|cx| {
            channel.begin_turn();
            match channel.poll_flush(cx) {
                Poll::Ready(Ok(_)) if channel.is_flushed() => {}
                Poll::Ready(Ok(_)) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Lost)),
                Poll::Pending => return Poll::Pending,
            }
            let polled = channel.poll_message(cx);
            // The library may have answered a ping or a close frame.
            match channel.poll_flush(cx) {
                Poll::Ready(Err(_)) => Poll::Ready(Err(End::Lost)),
                _ => polled,
            }
        });
        match next.await {
            Ok(Message::Text(text)) => channel.writing().push_back(Frame::text(text.as_str())),
            Ok(Message::Binary(data)) => channel.writing().push_back(Frame::binary(&data)),
            Ok(_) => {}
            Err(End::Fault(code)) => break Some(code),
            Err(End::Closed | End::Lost) => break None,
        }
    };
    channel.close(code, &shared.timers).await;
}
