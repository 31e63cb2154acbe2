//! Every connector, held to what is asked of a source. What needs a server is ignored here; `make test` starts the server and runs it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

// One program: each links the whole of DataFusion, which takes a minute.
mod conformance;
mod delta;
mod delta_written;
mod files;
#[cfg(feature = "hudi")]
mod hudi;
mod iceberg;
mod iceberg_written;
mod lakes;
mod liars;
mod postgres;
mod s3;
mod seeds;
mod written;
