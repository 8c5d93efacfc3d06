//! What a turn returns to somebody who waits for it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// The two ends of one answer.
pub(crate) fn answer<R>() -> (Sender<R>, Receiver<R>) {
    let shared = Arc::new(Mutex::new(State::Waiting(None)));
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// Gives the answer. Dropped without one, the answer is `None`.
pub(crate) struct Sender<R>(Arc<Mutex<State<R>>>);

/// Waits for the answer.
pub(crate) struct Receiver<R>(Arc<Mutex<State<R>>>);

enum State<R> {
    Waiting(Option<Waker>),
    Done(Option<R>),
}

impl<R> Sender<R> {
    pub(crate) fn send(self, value: R) {
        self.end(Some(value));
    }

    fn end(&self, value: Option<R>) {
        let mut state = lock(&self.0);
        if let State::Waiting(waker) = &mut *state {
            let waker = waker.take();
            *state = State::Done(value);
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl<R> Drop for Sender<R> {
    fn drop(&mut self) {
        self.end(None);
    }
}

impl<R> Future for Receiver<R> {
    type Output = Option<R>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *lock(&self.0) {
            State::Waiting(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Done(value) => Poll::Ready(value.take()),
        }
    }
}

fn lock<R>(state: &Mutex<State<R>>) -> MutexGuard<'_, State<R>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<R>(told: &mut Receiver<R>) -> Poll<Option<R>> {
        Pin::new(told).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_answer_comes_once_and_a_lost_sender_is_none() {
        let (tell, mut told) = answer();
        assert_eq!(poll(&mut told), Poll::Pending);
        tell.send(5);
        assert_eq!(poll(&mut told), Poll::Ready(Some(5)));
        let (tell, mut told) = answer::<u8>();
        drop(tell);
        assert_eq!(poll(&mut told), Poll::Ready(None));
    }
}
