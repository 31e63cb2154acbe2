//! The rows of a query as batches, of so many rows and bytes at the most, as they come from the server.
//!
//! Outside of a transaction the query is sent as a whole: then the server may use its parallel plans, and is held up by the
//! socket where its rows are not read. In a transaction several queries share one connection, so each has a cursor, from
//! which rows are fetched in between.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use futures::{FutureExt, Stream, TryStreamExt, stream};
use nexus_flight_catalog::source::TRACE;
use nexus_flight_catalog::{Context, Error, Kind, Result};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, RowStream, Statement};

use super::access::Access;
use super::decode::{Builder, Raw};
use super::listing::Column;
use super::pool::Lease;

/// How many bytes of values a batch has before it is full.
const BATCH: usize = 4 << 20;

/// How many rows are fetched first, when nothing is known of their size.
const FIRST: usize = 8;

/// Cursors have names of their own within a connection.
static CURSORS: AtomicU64 = AtomicU64::new(0);

/// What is read.
pub(super) struct Read {
    pub(super) cx: Context,
    pub(super) access: Access,
    pub(super) sql: String,
    pub(super) columns: Vec<Column>,
    pub(super) schema: SchemaRef,
    /// The most rows of a batch.
    pub(super) most: usize,
}

/// The batches. Dropped early, they end the query at the server. Errors: those of the server; `Unavailable` where it does
/// not answer or breaks off; `Data` for a value that Arrow cannot hold.
pub(super) fn batches(read: Read) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let span = tracing::info_span!(
        target: TRACE,
        parent: &read.cx.span,
        "query",
        otel.kind = "client",
        db.system.name = "postgresql",
    );
    // The span is held for as long as there may be more rows.
    stream::try_unfold((read, Place::Start, span), |(read, place, span)| async move {
        // Rows that are there already would never ask whether they are still wanted.
        read.cx.run(async { Ok(()) }).await?;
        let place = match place {
            Place::Start => read.cx.run(read.open()).await?,
            other => other,
        };
        let (batch, place) = match place {
            Place::Start | Place::End => return Ok(None),
            Place::Stream { lease, mut rows } => {
                let (batch, ended) = read.fill(&lease, &mut rows).await?;
                match ended {
                    true => {
                        lease.give_back();
                        (batch, Place::End)
                    }
                    false => (batch, Place::Stream { lease, rows }),
                }
            }
            Place::Cursor(cursor) => read.cx.run(read.fetch(cursor)).await?,
        };
        Ok((batch.num_rows() > 0).then_some((batch, (read, place, span))))
    })
}

/// How far a query is read.
enum Place {
    Start,
    Stream { lease: Box<Lease>, rows: Pin<Box<RowStream>> },
    Cursor(Cursor),
    End,
}

/// A cursor, and how many rows are fetched from it next.
struct Cursor {
    name: String,
    next: usize,
    access: Access,
    open: bool,
}

impl Drop for Cursor {
    /// One that is left before its end is closed, so that a long transaction does not gather them.
    fn drop(&mut self) {
        let (true, Ok(runtime)) = (self.open, tokio::runtime::Handle::try_current()) else { return };
        let (access, name) = (self.access.clone(), std::mem::take(&mut self.name));
        runtime.spawn(async move {
            // A transaction that has ended has closed it.
            let Ok(held) = access.hold().await else { return };
            let closed = close(&held, &name).await;
            drop(held.settle(closed));
        });
    }
}

/// Closes a cursor. One that went with a savepoint is not there, and to ask for it must not make the transaction fail.
async fn close(lease: &Lease, name: &str) -> Result<()> {
    let closing = format!("SAVEPOINT nexus_close; CLOSE {name}; RELEASE nexus_close");
    match lease.run(&closing).await {
        Err(error) if error.kind() != Kind::Unavailable => lease.run("ROLLBACK TO nexus_close; RELEASE nexus_close").await,
        closed => closed,
    }
}

impl Read {
    async fn open(&self) -> Result<Place> {
        match &self.access {
            Access::Pool(connections) => {
                let lease = connections.get().await?;
                let statement = self.prepared(&lease, &self.sql).await?;
                let rows = Box::pin(query(&lease, &statement).await?);
                Ok(Place::Stream { lease: Box::new(lease), rows })
            }
            Access::Transaction(_) => {
                let name = format!("nexus_{}", CURSORS.fetch_add(1, Ordering::Relaxed));
                let held = self.access.hold().await?;
                let declare = format!("DECLARE {name} NO SCROLL CURSOR FOR {}", self.sql);
                let declared = held.run(&declare).await;
                held.settle(declared)?;
                Ok(Place::Cursor(Cursor { name, next: FIRST.min(self.most), access: self.access.clone(), open: true }))
            }
        }
    }

    /// A statement whose columns are sent as they were described. Errors: `Precondition` where they are not.
    async fn prepared(&self, lease: &Lease, sql: &str) -> Result<Statement> {
        let statement = lease.answer(lease.client()?.prepare(sql)).await?;
        let sent = statement.columns();
        let same = sent.len() == self.columns.len()
            && sent.iter().zip(&self.columns).all(|(sent, described)| sent.type_().oid() == described.oid);
        match same {
            true => Ok(statement),
            false => Err(Error::precondition("a table was changed since its columns were read")
                .with_hint("send the statement again")
                .with_retryable(true)),
        }
    }

    /// A batch, full or the last, and whether the rows are at their end.
    async fn fill(&self, lease: &Lease, rows: &mut Pin<Box<RowStream>>) -> Result<(RecordBatch, bool)> {
        let mut filling = Filling::new(self);
        while !filling.is_full(self.most) {
            // Most rows are there already: for these no clock is started.
            let row = match rows.try_next().now_or_never() {
                Some(row) => lease.answer(std::future::ready(row)).await?,
                None => self.cx.run(lease.answer(rows.try_next())).await?,
            };
            match row {
                Some(row) => filling.push(&self.columns, &row)?,
                None => return Ok((filling.finish(self)?, true)),
            }
        }
        Ok((filling.finish(self)?, false))
    }

    /// Fetches once: the connection is free for others in between.
    async fn fetch(&self, mut cursor: Cursor) -> Result<(RecordBatch, Place)> {
        let count = cursor.next;
        let held = self.access.hold().await?;
        let fetched = self.fetched(&held, &cursor.name, count).await;
        let filling = held.settle(fetched)?;
        if filling.rows < count {
            cursor.open = false;
            return Ok((filling.finish(self)?, Place::End));
        }
        // As many rows as a batch has place for, going by these.
        let wanted = BATCH / (filling.bytes / count).max(1);
        cursor.next = wanted.clamp(1, count * 4).min(self.most);
        Ok((filling.finish(self)?, Place::Cursor(cursor)))
    }

    async fn fetched(&self, lease: &Lease, name: &str, count: usize) -> Result<Filling> {
        let statement = self.prepared(lease, &format!("FETCH FORWARD {count} FROM {name}")).await?;
        let mut rows = Box::pin(query(lease, &statement).await?);
        let mut filling = Filling::new(self);
        while let Some(row) = lease.answer(rows.try_next()).await? {
            filling.push(&self.columns, &row)?;
        }
        if filling.rows < count {
            // All rows were fetched.
            lease.run(&format!("CLOSE {name}")).await?;
        }
        Ok(filling)
    }
}

async fn query(lease: &Lease, statement: &Statement) -> Result<RowStream> {
    let none: [&(dyn ToSql + Sync); 0] = [];
    lease.answer(lease.client()?.query_raw(statement, none)).await
}

/// A batch that is being filled.
struct Filling {
    builders: Vec<Builder>,
    rows: usize,
    bytes: usize,
}

impl Filling {
    fn new(read: &Read) -> Self {
        Self { builders: read.columns.iter().map(|column| Builder::new(&column.ty)).collect(), rows: 0, bytes: 0 }
    }

    fn push(&mut self, columns: &[Column], row: &Row) -> Result<()> {
        for (at, (column, builder)) in columns.iter().zip(&mut self.builders).enumerate() {
            let raw: Option<Raw<'_>> = row.try_get(at).map_err(super::error::of)?;
            self.bytes += raw.as_ref().map_or(0, |raw| raw.0.len());
            builder.push(column, raw.map(|raw| raw.0))?;
        }
        self.rows += 1;
        Ok(())
    }

    fn is_full(&self, most: usize) -> bool {
        self.rows >= most || self.bytes >= BATCH
    }

    fn finish(self, read: &Read) -> Result<RecordBatch> {
        let columns = self.builders.into_iter().map(Builder::finish).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&read.schema), columns, &options)?)
    }
}
