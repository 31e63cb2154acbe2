//! What gRPC and HTTP share below the protocols: how a connection begins and who is calling.

pub mod auth;
pub mod body;
pub mod connection;
pub mod hello;
pub mod jwt;
pub mod problem;
pub mod tls;
pub mod tokens;
