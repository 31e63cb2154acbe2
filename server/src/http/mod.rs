//! HTTP: health, metrics, and statements over the same query path as Flight.

pub mod sql;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use nexus_flight_catalog::{Context, Error, Kind, Principal};
use serde_json::json;

use crate::gateway::Gateway;
use crate::wire::auth;

/// All routes. What can read data asks for credentials; health and metrics do not.
pub fn router(gateway: Arc<Gateway>, metrics: PrometheusHandle) -> Router {
    let statements = Router::new()
        .route("/v1/sql", post(sql::run))
        .layer(from_fn_with_state(Arc::clone(&gateway.authenticator), auth::require))
        .with_state(Arc::clone(&gateway));
    let health = Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(ready)).with_state(gateway);
    let metrics = Router::new().route("/metrics", get(expose)).with_state(metrics);
    statements.merge(health).merge(metrics).fallback(|| async {
        problem(&Error::not_found("there is no such page").with_hint("POST /v1/sql, GET /livez, /readyz, /metrics"))
    })
}

/// Ready means that catalogs can be listed. Sources are not asked: one that is down must not take the others with it.
async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    let cx = Context::new(Principal::anonymous());
    match gateway.catalogs.schemas(&cx, crate::system::CATALOG).await {
        Ok(_) => "ok\n".into_response(),
        Err(error) => problem(&error),
    }
}

async fn expose(State(metrics): State<PrometheusHandle>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}

/// An error as JSON: kind, message, place, hint, retryable.
pub fn problem(error: &Error) -> Response {
    let body = json!({
        "error": {
            "kind": error.kind().name(),
            "message": error.message(),
            "place": error.place().map(ToString::to_string),
            "hint": error.hint(),
            "retryable": error.retryable(),
        }
    });
    (code(error.kind()), Json(body)).into_response()
}

fn code(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Kind::Precondition => StatusCode::CONFLICT,
        Kind::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Kind::Data => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
