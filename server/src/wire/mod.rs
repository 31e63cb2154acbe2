//! What gRPC and HTTP share below the protocols: how a connection begins and who is calling.

pub mod auth;
pub mod body;
pub mod caching;
pub mod connection;
pub mod hello;
pub mod jwt;
pub mod outbox;
pub mod problem;
pub mod resets;
pub mod seat;
pub mod sent;
pub mod serving;
pub mod tls;
pub mod tokens;
pub mod turns;

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// Whether a request is one of gRPC, and its answer has to be.
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
