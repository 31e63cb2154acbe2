//! The nexus gateway: protocols over one query path.

pub mod config;
pub mod digest;
pub mod flight;
pub mod layers;
pub mod plan;
pub mod query;
pub mod route;
pub mod session;
pub mod stack;
pub mod statement;
pub mod stores;
