//! HTTP: health, metrics, and statements over the same query path as Flight.

pub mod sql;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use nexus_flight_catalog::Error;

use crate::gateway::Gateway;
use crate::wire::auth;
use crate::wire::problem::problem;

/// All routes, for statements of up to `longest` bytes. What can read data asks for credentials; health and metrics do not.
pub fn router(gateway: Arc<Gateway>, metrics: PrometheusHandle, longest: usize) -> Router {
    let statements = Router::new()
        .route("/v1/sql", post(sql::run))
        .layer(from_fn_with_state(Arc::clone(&gateway.authenticator), auth::require))
        // As JSON a statement may take six bytes for each of its own; its own length is checked where it is parsed.
        .layer(DefaultBodyLimit::max(longest.saturating_mul(6).saturating_add(4 << 10)))
        .with_state(Arc::clone(&gateway));
    let health =
        Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(ready)).with_state(Arc::clone(&gateway));
    let metrics = Router::new().route("/metrics", get(expose)).with_state((gateway, metrics));
    let pages = "POST /v1/sql, GET /livez, /readyz, /metrics";
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
    metrics::gauge!("nexus_memory_reserved_bytes").set(gateway.reserved() as f64);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}
