//! Every engine, held to what is asked of a source. It needs a server, so it is ignored here; `make test` starts one and runs it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod trino;
