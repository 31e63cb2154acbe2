//! The one query path, without a network: names, parameters, cache, limits, cancelling, depth, engines, refusals, what is prepared.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod cache;
mod cancel;
mod check;
mod depth;
mod engines;
mod explain;
mod fills;
mod fixture;
mod limits;
mod lookup;
mod names;
mod native;
mod parameters;
mod plans;
mod policy;
mod predicates;
mod prepared;
mod readonly;
mod refusals;
mod rewrites;
mod translate;
mod types;
mod writes;
