//! The source of the tables of an engine, which is asked nothing while the engine is out or drained.
//!
//! All that a statement wants of an engine begins with a call here: its tables are looked up each time, since an engine tells no versions.
//! So what is refused here never reaches it, and what fails here is what the breaker counts.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use nexus_flight_catalog::{Change, Context, Principal, Resolved, Result, Source, Spec, TableEntry, Target, Transaction};

use crate::engines::watched::Watched;

/// A source whose calls are held against how its engine is.
#[derive(Debug)]
pub(super) struct WatchedSource {
    inner: Arc<dyn Source>,
    watched: Arc<Watched>,
}

impl WatchedSource {
    pub(super) fn new(inner: Arc<dyn Source>, watched: Arc<Watched>) -> Self {
        Self { inner, watched }
    }
}

#[async_trait]
impl Source for WatchedSource {
    fn spec(&self) -> &'static Spec {
        self.inner.spec()
    }

    fn is_visible(&self, principal: &Principal) -> bool {
        self.inner.is_visible(principal)
    }

    fn is_elsewhere(&self) -> bool {
        self.inner.is_elsewhere()
    }

    /// It is asked in any case: who wants to know whether it answers is told.
    async fn ping(&self, cx: &Context) -> Result<()> {
        self.inner.ping(cx).await
    }

    async fn schemas(&self, cx: &Context) -> Result<Vec<String>> {
        self.watched.enter().await?;
        self.watched.saw(self.inner.schemas(cx).await)
    }

    async fn tables(&self, cx: &Context, schema: &str) -> Result<Vec<TableEntry>> {
        self.watched.enter().await?;
        self.watched.saw(self.inner.tables(cx, schema).await)
    }

    async fn table(&self, cx: &Context, schema: &str, table: &str) -> Result<Resolved> {
        self.watched.enter().await?;
        self.watched.saw(self.inner.table(cx, schema, table).await)
    }

    fn about<'a>(&self, name: &'a str) -> Option<&'a str> {
        self.inner.about(name)
    }

    fn check_write(&self, cx: &Context, schema: &str, table: &str) -> Result<()> {
        self.inner.check_write(cx, schema, table)
    }

    async fn native_describe(&self, cx: &Context, sql: &str) -> Result<SchemaRef> {
        self.watched.enter().await?;
        self.watched.saw(self.inner.native_describe(cx, sql).await)
    }

    /// The statement was let in when it was described: its rows may be read long after, when new ones are let in no more.
    async fn native_query(&self, cx: &Context, sql: &str) -> Result<SendableRecordBatchStream> {
        self.watched.saw(self.inner.native_query(cx, sql).await)
    }

    async fn ingest(&self, cx: &Context, target: &Target, rows: SendableRecordBatchStream) -> Result<u64> {
        self.watched.enter().await?;
        self.watched.saw(self.inner.ingest(cx, target, rows).await)
    }

    async fn drop_table(&self, cx: &Context, schema: &str, table: &str) -> Result<()> {
        self.watched.enter().await?;
        self.watched.saw(self.inner.drop_table(cx, schema, table).await)
    }

    async fn change(&self, cx: &Context, change: &Change) -> Result<u64> {
        self.watched.enter().await?;
        self.watched.saw(self.inner.change(cx, change).await)
    }

    async fn begin(&self, cx: &Context) -> Result<Arc<dyn Transaction>> {
        self.watched.enter().await?;
        self.watched.saw(self.inner.begin(cx).await)
    }
}
