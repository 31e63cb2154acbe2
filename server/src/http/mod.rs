//! HTTP: health, metrics, and statements over the same query path as Flight.

mod length;
pub mod sql;
mod text;

use std::iter;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use nexus_flight_catalog::Error;

use crate::gateway::Gateway;
use crate::wire::problem::problem;
use crate::wire::{auth, body};

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

/// Ready means that all catalogs are registered. Sources are not asked: one that is down must not take the others with it. Engines that are
/// known to take no statements are told below, a line each.
async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    match gateway.catalogs.all().iter().any(|(name, _)| name == crate::system::CATALOG) {
        true => {
            let out = gateway.engines.all().iter().filter_map(|engine| engine.outage()).collect::<Vec<_>>();
            iter::once("ok".to_owned()).chain(out).map(|line| line + "\n").collect::<String>().into_response()
        }
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
