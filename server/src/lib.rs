//! The nexus gateway: protocols over one query path.

pub mod config;
pub mod demo;
pub mod digest;
pub mod docs;
pub mod flight;
pub mod gateway;
pub mod http;
pub mod layers;
pub mod number_literals;
pub mod pausing;
pub mod plan;
pub mod query;
pub mod route;
pub mod seal;
pub mod serve;
pub mod session;
pub mod shell;
pub mod single_row;
pub mod stack;
pub mod state;
pub mod statement;
pub mod system;
pub mod tpch;
pub mod wire;
pub mod workers;
