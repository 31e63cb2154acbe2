//! What an engine is: a whole statement in its own SQL is described, executed and cancelled there.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use nexus_flight_catalog::{Context, Options, Result, Source, Spec};

use crate::trino;

/// An engine. As a source of tables it is a [`Source`](nexus_flight_catalog::Source) too, whose native statements are these.
#[async_trait]
pub trait Engine: Debug + Send + Sync {
    /// The schema of the rows of a query, without executing it. Errors: `Invalid` with the place in the query; `Unsupported` for
    /// what is no query.
    async fn describe(&self, cx: &Context, sql: &str) -> Result<SchemaRef>;

    /// The rows of a query, as they come. Dropped early, they end it there. Errors: those of `describe`, and while rows are read
    /// whatever the engine says.
    async fn execute(&self, cx: &Context, sql: &str) -> Result<SendableRecordBatchStream>;

    /// Ends a statement there by the id that the engine has given it, whoever began it. Errors: `NotFound`; `Denied`.
    async fn cancel(&self, cx: &Context, id: &str) -> Result<()>;

    /// Whether it takes statements now. Whether it lets us in is not asked. Errors: `Unavailable`.
    async fn health(&self, cx: &Context) -> Result<()>;

    /// How busy it is. Errors: `Unavailable`, `Unauthenticated`, and `Denied` to who may not know.
    async fn load(&self, cx: &Context) -> Result<Load>;

    /// The names of the catalogs there that its user may see, sorted. Errors: `Unavailable`, `Unauthenticated`.
    async fn catalogs(&self, cx: &Context) -> Result<Vec<String>>;

    /// What it calls its version, as it said when its health was asked for last; none where it has not.
    fn version(&self) -> Option<String> {
        None
    }
}

/// One engine, as the source of its tables and as what runs whole statements, over the same connections.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The source of its tables.
    pub source: Arc<dyn Source>,
    /// The engine.
    pub engine: Arc<dyn Engine>,
}

type Open = fn(&Options) -> Result<Opened>;

/// How the kinds are opened that are engines.
pub(crate) static ENGINES: &[(&Spec, Open)] = &[(&trino::SPEC, trino::opened)];

/// Opens an engine by its kind, without touching anything outside the process but files that its options name; none for a kind that
/// is no engine's. Errors: `Invalid`, with the key at fault.
pub fn open(kind: &str, options: &Options) -> Option<Result<Opened>> {
    let (_, open) = ENGINES.iter().find(|(spec, _)| spec.kind == kind)?;
    Some(open(options))
}

/// The statements that an engine has at one moment, as far as its user may see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Those that wait.
    pub queued: u64,
    /// Those that it works on.
    pub running: u64,
}
