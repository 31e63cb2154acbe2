//! HTTP: health, metrics, and statements over the same query path as Flight.

pub mod sql;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures::StreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use nexus_flight_catalog::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gateway::Gateway;
use crate::wire::connection::{GIVEN_UP, HEADERS, KEEP_ALIVE, STREAMS};
use crate::wire::hello::{Incoming, SILENCE};
use crate::wire::problem::problem;
use crate::wire::{auth, body};

/// Serves connections until `stop` fires, then those that are there until their answers have ended. One on which nothing is asked, or
/// of whose client nothing is heard, is let go, and so is one of this age.
pub async fn serve(mut incoming: Incoming, router: Router, age: Duration, stop: CancellationToken) {
    let mut server = Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(SILENCE).max_buf_size(HEADERS as usize);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .max_pending_accept_reset_streams(GIVEN_UP)
        .max_local_error_reset_streams(GIVEN_UP)
        .keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1);
    let connections = TaskTracker::new();
    // It cannot fail.
    while let Some(Some(Ok(connection))) = stop.run_until_cancelled(incoming.next()).await {
        let router = router.clone().layer(Extension(ConnectInfo(connection.peer().clone())));
        let (server, stop) = (server.clone(), stop.clone());
        connections.spawn(async move {
            let mut served = pin!(server.serve_connection(TokioIo::new(connection), TowerToHyperService::new(router)));
            let ended = tokio::select! {
                ended = served.as_mut() => Some(ended),
                () = stop.cancelled() => None,
                () = tokio::time::sleep(age) => None,
            };
            let ended = match ended {
                Some(ended) => ended,
                // What runs on it comes to its end.
                None => {
                    served.as_mut().graceful_shutdown();
                    served.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection of HTTP broke off");
            }
        });
    }
    drop(incoming);
    connections.close();
    connections.wait().await;
}

/// All routes, for statements of up to `longest` bytes. What can read data asks for credentials; health and metrics do not.
pub fn router(gateway: Arc<Gateway>, metrics: PrometheusHandle, longest: usize) -> Router {
    let statements = sql::pages()
        .layer(from_fn_with_state(Arc::clone(gateway.planner.shares()), body::watch))
        .layer(from_fn_with_state(Arc::clone(&gateway.authenticator), auth::require))
        // As JSON a statement may take six bytes for each of its own; its own length is checked where it is parsed.
        .layer(DefaultBodyLimit::max(longest.saturating_mul(6).saturating_add(4 << 10)))
        .with_state(Arc::clone(&gateway));
    let health =
        Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(ready)).with_state(Arc::clone(&gateway));
    let metrics = Router::new().route("/metrics", get(expose)).with_state((gateway, metrics));
    let pages = "POST /v1/sql, /v1/cache/invalidate, GET /livez, /readyz, /metrics";
    statements
        .merge(health)
        .merge(metrics)
        .fallback(move || async move { problem(&Error::not_found("there is no such page").with_hint(pages)) })
        .method_not_allowed_fallback(move || async move {
            let error = Error::unsupported("this page does not take this method").with_hint(pages);
            (StatusCode::METHOD_NOT_ALLOWED, problem(&error))
        })
}

/// Ready means that all catalogs are registered. Sources are not asked: one that is down must not take the others with it.
async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    match gateway.catalogs.all().iter().any(|(name, _)| name == crate::system::CATALOG) {
        true => "ok\n".into_response(),
        false => problem(&Error::unavailable("the catalogs are not there yet")),
    }
}

async fn expose(State((gateway, metrics)): State<(Arc<Gateway>, PrometheusHandle)>) -> Response {
    let (slots, waiting) = gateway.gate.load();
    metrics::gauge!("nexus_slots_used").set(slots as f64);
    metrics::gauge!("nexus_statements_waiting").set(waiting as f64);
    let cache = gateway.kept.usage().await;
    metrics::gauge!("nexus_cache_entries").set(cache.entries as f64);
    metrics::gauge!("nexus_cache_bytes").set(cache.bytes as f64);
    metrics::gauge!("nexus_memory_reserved_bytes").set(gateway.reserved() as f64);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}
