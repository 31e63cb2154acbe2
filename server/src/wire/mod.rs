//! What gRPC and HTTP share below the protocols: who is calling.

pub mod auth;
