//! Serves the connections of a port, of gRPC and HTTP alike.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::Response;
use axum::{BoxError, Router};
use bytes::Bytes;
use futures::future::Map;
use futures::{FutureExt, StreamExt};
use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::wire::connection::{GIVEN_UP, HEADERS, KEEP_ALIVE, Peer, SEND_AHEAD, STREAMS};
use crate::wire::hello::{Incoming, SILENCE};
use crate::wire::outbox::Sending;
use crate::wire::resets::{Answering, Linger, Resets};
use crate::wire::sent::Sent;

/// Serves connections until `stop` fires, then those that are there until their answers have ended. One on which nothing is asked, or
/// of whose client nothing is heard, is let go, and one of this age is not used for new calls: its client makes another one, through
/// whatever balances them. One that breaks the rules is held for a while, and closed. Each request has the [`Peer`] that it comes from.
pub async fn serve(mut incoming: Incoming, router: Router, age: Duration, stop: CancellationToken) {
    let mut server = Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(SILENCE).max_buf_size(HEADERS as usize);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .max_send_buf_size(SEND_AHEAD)
        .max_pending_accept_reset_streams(GIVEN_UP)
        .max_local_error_reset_streams(GIVEN_UP)
        .keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1);
    let (connections, linger) = (TaskTracker::new(), Linger::default());
    // It cannot fail.
    while let Some(Some(Ok(connection))) = stop.run_until_cancelled(incoming.next()).await {
        let resets = Arc::new(Resets::default());
        let calls = Calls { router: router.clone(), peer: connection.peer().clone(), resets: Arc::clone(&resets) };
        let (server, stop, linger) = (server.clone(), stop.clone(), linger.clone());
        connections.spawn(async move {
            let (wire, peer) = (connection.wire(), connection.peer().clone());
            let served = server.serve_connection(TokioIo::new(connection), TowerToHyperService::new(calls));
            let mut served = Sending::new(served, wire.clone());
            let ended = async {
                tokio::select! {
                    ended = &mut served => return ended,
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(age) => {}
                }
                // What runs on it comes to its end.
                served.connection().graceful_shutdown();
                served.await
            };
            let broken = tokio::select! {
                ended = ended => match ended {
                    Ok(()) => false,
                    Err(error) => {
                        tracing::debug!(%error, "a connection broke off");
                        breaks_rules(&error)
                    }
                },
                () = resets.are_many() => {
                    tracing::debug!("a connection is closed whose client gives up calls without end");
                    true
                }
            };
            if broken {
                // Its calls have ended with it: what is held is the socket, and the seat that it counts by.
                linger.hold((wire, peer), &stop).await;
            }
        });
    }
    drop(incoming);
    connections.close();
    connections.wait().await;
}

/// Whether a connection ended since its client does what HTTP does not allow: not since an answer of ours failed, and not since the client is
/// silent or went away.
fn breaks_rules(error: &BoxError) -> bool {
    let Some(error) = error.downcast_ref::<hyper::Error>() else { return false };
    let went_away = error.source().is_some_and(|cause| cause.is::<std::io::Error>());
    !(error.is_user() || error.is_timeout() || error.is_incomplete_message() || went_away)
}

/// The calls of one connection.
#[derive(Clone)]
struct Calls {
    router: Router,
    peer: Peer,
    resets: Arc<Resets>,
}

type Answered = Result<Response, Infallible>;
type Goes = Result<http::Response<Sent>, Infallible>;

impl<B> Service<Request<B>> for Calls
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Sent>;
    type Error = Infallible;
    type Future = Map<Answering, fn(Answered) -> Goes>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // As a router is.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        let (request, answering) = self.resets.watch(request);
        answering(self.router.call(request)).map((|answered: Answered| answered.map(Sent::of)) as fn(Answered) -> Goes)
    }
}
