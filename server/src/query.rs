//! A query and its answer: what every protocol asks and gets, and the trait between them.

use std::fmt::{self, Debug};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use nexus_flight_catalog::{Context, Error, IfExists, IfMissing, Result};

use crate::flight::encode::Shared;
use crate::parts::Part;
use crate::session::Session;
use crate::touched::Telling;
use crate::transactions::Using;

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
    /// The open transaction that it is part of.
    pub transaction: Option<Arc<Using>>,
    /// Rows to be written; then the statement only says so.
    pub ingest: Option<Arc<Ingest>>,
    /// Whether its client comes back in the same session.
    pub session_lasts: bool,
    /// The one part of its answer that is wanted; all of it where there is none.
    pub part: Option<Part>,
    /// What is asked as a serialised `substrait.Plan`; then the statement only says so.
    pub substrait: Option<Arc<[u8]>>,
    /// The program that it comes from.
    pub client: Client,
    /// Where it is told what the statement touches.
    pub touched: Telling,
    /// The most rows that its client takes.
    pub most: Option<u64>,
}

/// The program at the other end.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// Where it is.
    pub address: Option<SocketAddr>,
    /// What it calls itself.
    pub agent: Option<Arc<str>>,
}

impl Client {
    /// A program by its address and what it calls itself, which is cut to a length.
    pub fn new(address: Option<SocketAddr>, agent: Option<&str>) -> Self {
        Self { address, agent: agent.map(|agent| agent.chars().take(LONGEST_AGENT).collect::<String>().into()) }
    }
}

/// How much is kept of what a program calls itself, in characters.
const LONGEST_AGENT: usize = 200;

/// Rows that a client sends for a table.
pub struct Ingest {
    /// The table, in the session's catalog and schema.
    pub table: String,
    /// Whether it is one of the session alone.
    pub temporary: bool,
    /// What to do where it is not there.
    pub if_missing: IfMissing,
    /// What to do where it is.
    pub if_exists: IfExists,
    /// The columns of the rows.
    pub schema: SchemaRef,
    rows: Mutex<Option<Batches>>,
}

impl Ingest {
    /// Rows with these columns, which are read once.
    pub fn new(table: String, if_missing: IfMissing, if_exists: IfExists, schema: SchemaRef, rows: Batches) -> Self {
        Self { table, temporary: false, if_missing, if_exists, schema, rows: Mutex::new(Some(rows)) }
    }

    /// The rows, for the first who asks.
    pub fn take(&self) -> Option<Batches> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Debug for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingest").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Query {
    /// A statement by itself: without parameters, in no transaction, with no rows of its own.
    pub fn new(cx: Context, statement: impl Into<Arc<str>>, session: Session, protocol: Protocol) -> Self {
        let (statement, parameters, transaction, ingest) = (statement.into(), None, None, None);
        let (session_lasts, part, substrait) = (false, None, None);
        let (client, touched, most) = (Client::default(), None, None);
        Self {
            cx,
            statement,
            parameters,
            session,
            protocol,
            transaction,
            ingest,
            session_lasts,
            part,
            substrait,
            client,
            touched,
            most,
        }
    }

    /// Whether its answer may come in parts: it is one answer, all of it is of one moment, and nobody has to count its rows.
    pub fn may_be_parted(&self) -> bool {
        let is_counted = self.session.options.max_rows.is_some();
        self.rows() <= 1 && self.transaction.is_none() && self.ingest.is_none() && !is_counted
    }

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
    /// Whether it writes; then the one column of its answer is the number of rows that it affected.
    pub is_update: bool,
    /// The parts that its answer can be fetched in; none where it comes as a whole.
    pub parts: Vec<Part>,
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
    pub cache: Cached,
    /// Where the messages are that were made of its batches, for as long as the cache keeps those.
    pub shared: Weak<Shared>,
}

impl Answer {
    /// Rows of a schema, with which the cache has nothing to do.
    pub fn new(schema: SchemaRef, batches: Batches) -> Self {
        Self { schema, batches, cache: Cached::default(), shared: Weak::new() }
    }

    /// The same answer, which ends with an error where it has more rows than that.
    pub fn within(self, most: Option<u64>) -> Self {
        let Some(most) = most else { return self };
        let mut rows: u64 = 0;
        let batches = self.batches.map(move |batch| {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            if rows > most {
                return Err(Error::exhausted(format!("the answer has more than {most} rows"))
                    .with_hint("ask for fewer, or raise the session option max_rows")
                    .with_retryable(false));
            }
            Ok(batch)
        });
        Self { batches: batches.boxed(), ..self }
    }

    /// The rows that a statement affected which writes, in all its answers together.
    pub async fn affected(self) -> Result<i64> {
        let mut total: i64 = 0;
        let mut batches = self.batches;
        while let Some(batch) = batches.try_next().await? {
            let counts = batch.columns().first().and_then(|column| column.as_primitive_opt::<Int64Type>());
            let counts = counts.ok_or_else(|| Error::internal("a statement that writes gave no count"))?;
            total = counts.values().iter().fold(total, |total, count| total.saturating_add(*count));
        }
        Ok(total)
    }
}

/// What the cache had to do with an answer. By itself: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cached {
    /// What it did.
    pub how: CacheUse,
    /// How long ago its rows were read, where they came from the cache or were made for another statement too.
    pub age: Option<Duration>,
    /// How long ago its tables were known to be as it tells of them, where it came from there; since then they may have changed.
    pub bound: Option<Duration>,
    /// Why they neither came from it nor were kept, or were not made for this statement alone.
    pub why: Option<&'static str>,
}

/// What the cache does with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheUse {
    /// It came from the cache.
    Hit,
    /// It came from the cache, and may be out of date by as long as was allowed.
    Stale,
    /// It was made, and kept if it was small enough.
    Miss,
    /// It was made, and must not be kept.
    #[default]
    Bypass,
}

impl CacheUse {
    /// The name in headers, metrics and tables.
    pub const fn name(self) -> &'static str {
        match self {
            CacheUse::Hit => "hit",
            CacheUse::Stale => "stale",
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
