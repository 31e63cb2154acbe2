//! Calls that a client gives up before they are answered. They cost it two small frames each, and the gateway a task: who gives up more of
//! them than there is a reason for is let go, and not at once, so that coming again and again is no way around it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::response::Response;
use axum::routing::future::RouteFuture;
use futures::FutureExt;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::wire::connection::STREAMS;

/// In this time a client may give up as many calls of a connection as it may have there at once.
const WINDOW: Duration = Duration::from_secs(1);

/// How long a connection that broke the rules is held, and nothing read from it, before it is closed.
const LINGER: Duration = Duration::from_secs(1);

/// How many are held so at once, since each takes a file handle; others are closed at once.
const LINGERING: usize = 256;

/// How many calls of one connection are given up.
#[derive(Debug, Default)]
pub struct Resets {
    /// Since when, and how many.
    window: Mutex<Option<(Instant, u32)>>,
    many: CancellationToken,
}

impl Resets {
    /// Ends when there were too many.
    pub async fn are_many(&self) {
        self.many.cancelled().await;
    }

    fn count(&self, now: Instant) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, before) = window.filter(|(since, _)| now.duration_since(*since) < WINDOW).unwrap_or((now, 0));
        let count = before.saturating_add(1);
        *window = Some((since, count));
        if count > STREAMS {
            self.many.cancel();
        }
    }
}

/// A call, which counts where it ends without an answer, or its request breaks off.
#[derive(Debug)]
struct Call {
    resets: Arc<Resets>,
    is_answered: AtomicBool,
    is_broken: AtomicBool,
}

impl Drop for Call {
    fn drop(&mut self) {
        if *self.is_broken.get_mut() || !*self.is_answered.get_mut() {
            self.resets.count(Instant::now());
        }
    }
}

/// The body of the request of a call.
#[derive(Debug)]
pub struct Asked<B> {
    body: B,
    call: Arc<Call>,
}

/// The answer to a call.
pub struct Answering {
    answer: RouteFuture<Infallible>,
    call: Arc<Call>,
}

impl Resets {
    /// A request as one of the calls that are counted here, and how its answer is.
    pub fn watch<B>(
        self: &Arc<Self>,
        request: Request<B>,
    ) -> (Request<Asked<B>>, impl FnOnce(RouteFuture<Infallible>) -> Answering) {
        let call = Call { resets: Arc::clone(self), is_answered: AtomicBool::default(), is_broken: AtomicBool::default() };
        let call = Arc::new(call);
        let asked = Arc::clone(&call);
        (request.map(|body| Asked { body, call: asked }), |answer| Answering { answer, call })
    }
}

impl<B: Body + Unpin> Body for Asked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            self.call.is_broken.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Future for Answering {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.answer.poll_unpin(cx);
        if polled.is_ready() {
            self.call.is_answered.store(true, Ordering::Relaxed);
        }
        polled
    }
}

/// Holds connections that broke the rules for a while.
#[derive(Debug, Clone)]
pub struct Linger(Arc<Semaphore>);

impl Default for Linger {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LINGERING)))
    }
}

impl Linger {
    /// Holds what it is given, unless too many are held already or the port is closed.
    pub async fn hold(&self, connection: impl Send, stop: &CancellationToken) {
        if let Ok(_place) = self.0.try_acquire() {
            stop.run_until_cancelled(tokio::time::sleep(LINGER)).await;
        }
        drop(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_there_may_be_at_once_are_given_up_in_a_second() {
        let (resets, began) = (Resets::default(), Instant::now());
        let count = |number: u32, at: Instant| (0..number).for_each(|_| resets.count(at));
        count(STREAMS, began);
        count(STREAMS, began + WINDOW);
        assert!(!resets.many.is_cancelled());
        count(1, began + WINDOW + WINDOW / 2);
        assert!(resets.many.is_cancelled());
    }

    #[tokio::test]
    async fn so_many_are_held_and_others_are_not() {
        let (linger, stop) = (Linger::default(), CancellationToken::new());
        let mut held = Box::pin(linger.hold((), &stop));
        assert!(held.as_mut().now_or_never().is_none());
        let others = linger.0.try_acquire_many(LINGERING as u32 - 1).unwrap();
        assert!(linger.hold((), &stop).now_or_never().is_some());
        drop(others);
        let again = Box::pin(linger.hold((), &stop));
        stop.cancel();
        again.await;
        held.await;
        assert_eq!(linger.0.available_permits(), LINGERING);
    }
}
