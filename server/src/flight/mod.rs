//! Flight SQL: the main way in.

pub mod actions;
pub mod caller;
pub mod columns;
pub mod commands;
pub mod control;
pub mod decode;
pub mod encode;
pub mod endpoints;
pub mod frames;
pub mod metadata;
pub mod options;
pub mod profile;
pub mod put;
pub mod service;
pub mod status;
pub mod ticket;
pub mod transactions;
