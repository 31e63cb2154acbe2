//! A query and its answer: what every protocol asks and gets, and the trait between them.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use futures::stream::BoxStream;
use nexus_flight_catalog::{Context, Result};

use crate::session::Session;

/// The way in of every protocol: there is no second query path.
#[async_trait]
pub trait Execute: Send + Sync {
    /// The shape of the answer, without running anything.
    async fn describe(&self, query: &Query) -> Result<Description>;

    /// The answer. Rows are made as they are read; dropping the stream stops the work.
    async fn execute(&self, query: Query) -> Result<Answer>;
}

/// A statement with all that decides its answer.
#[derive(Debug, Clone)]
pub struct Query {
    /// Who asks, under which id, until when.
    pub cx: Context,
    /// The text, as the client sent it.
    pub statement: Arc<str>,
    /// The values of `$1`, `$2`, …, a column each; the statement runs once for each row. None where it is only described.
    pub parameters: Option<RecordBatch>,
    /// The current catalog and schema.
    pub session: Session,
    /// The way it came in.
    pub protocol: Protocol,
}

impl Query {
    /// How often the statement runs: once for each row of its parameters.
    pub fn rows(&self) -> usize {
        self.parameters.as_ref().map_or(1, RecordBatch::num_rows)
    }

    /// The same query with one row of its parameters.
    pub fn of_row(&self, row: usize) -> Self {
        let parameters = self.parameters.as_ref().map(|rows| rows.slice(row, 1));
        Self { parameters, ..self.clone() }
    }
}

/// The protocols that a query comes in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Arrow Flight SQL.
    Flight,
    /// HTTP.
    Http,
}

impl Protocol {
    /// The name in logs, metrics and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Flight => "flight",
            Protocol::Http => "http",
        }
    }
}

/// What a statement gives and takes.
#[derive(Debug, Clone)]
pub struct Description {
    /// The columns of the answer.
    pub schema: SchemaRef,
    /// The parameters `$1`, `$2`, … in order, with the types that the statement implies; text where it implies none.
    pub parameters: SchemaRef,
}

/// Batches as they are made.
pub type Batches = BoxStream<'static, Result<RecordBatch>>;

/// The same columns, any of which may be NULL.
pub fn nullable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The bytes of the rows themselves: their buffers may be shared with other columns and batches.
pub fn size(batch: &RecordBatch) -> u64 {
    let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0));
    sizes.map(|size| size as u64).sum()
}

/// The rows of a statement.
pub struct Answer {
    /// The columns, the same as [`Description::schema`].
    pub schema: SchemaRef,
    /// The rows, all of that schema.
    pub batches: Batches,
    /// What the cache had to do with it.
    pub cache: CacheUse,
}

/// What the cache had to do with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheUse {
    /// It came from the cache.
    Hit,
    /// It was made, and kept if it was small enough.
    Miss,
    /// It was made, and must not be kept.
    Bypass,
}

impl CacheUse {
    /// The name in headers, metrics and tables.
    pub const fn name(self) -> &'static str {
        match self {
            CacheUse::Hit => "hit",
            CacheUse::Miss => "miss",
            CacheUse::Bypass => "bypass",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_counts_its_own_bytes_only() {
        let column = arrow::array::Int64Array::from_iter_values(0..1000);
        let batch = RecordBatch::try_from_iter([("a", std::sync::Arc::new(column) as _)]).unwrap();
        assert_eq!(size(&batch.slice(0, 10)), 80);
    }
}
