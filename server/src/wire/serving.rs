//! Serves the connections of a port, of gRPC and HTTP alike.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::Response;
use axum::routing::future::RouteFuture;
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
use crate::wire::sent::Sent;

/// Serves connections until `stop` fires, then those that are there until their answers have ended. One on which nothing is asked, or
/// of whose client nothing is heard, is let go, and one of this age is not used for new calls: its client makes another one, through
/// whatever balances them. Each request has the [`Peer`] that it comes from.
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
    let connections = TaskTracker::new();
    // It cannot fail.
    while let Some(Some(Ok(connection))) = stop.run_until_cancelled(incoming.next()).await {
        let calls = Calls { router: router.clone(), peer: connection.peer().clone() };
        let (server, stop) = (server.clone(), stop.clone());
        connections.spawn(async move {
            let wire = connection.wire();
            let served = server.serve_connection(TokioIo::new(connection), TowerToHyperService::new(calls));
            let mut served = Sending::new(served, wire);
            let ended = tokio::select! {
                ended = &mut served => Some(ended),
                () = stop.cancelled() => None,
                () = tokio::time::sleep(age) => None,
            };
            let ended = match ended {
                Some(ended) => ended,
                // What runs on it comes to its end.
                None => {
                    served.connection().graceful_shutdown();
                    served.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }
    drop(incoming);
    connections.close();
    connections.wait().await;
}

/// The calls of one connection.
#[derive(Clone)]
struct Calls {
    router: Router,
    peer: Peer,
}

type Answered = Result<Response, Infallible>;
type Goes = Result<http::Response<Sent>, Infallible>;

impl<B> Service<Request<B>> for Calls
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Sent>;
    type Error = Infallible;
    type Future = Map<RouteFuture<Infallible>, fn(Answered) -> Goes>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // As a router is.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        self.router.call(request).map((|answered: Answered| answered.map(Sent::of)) as fn(Answered) -> Goes)
    }
}
