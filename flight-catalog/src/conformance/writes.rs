//! What a source must do that takes rows, changes them, or has transactions.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{col, lit};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};

use super::{Run, answer, text};
use crate::error::{Error, Kind, Result};
use crate::source::{Source, Version};
use crate::write::{Change, IfExists, IfMissing, Target};

/// The table that is made here.
const MADE: &str = "made";

impl Run<'_> {
    pub(super) async fn writes(&mut self) {
        let Some(links) = self.fixture.tables.iter().find(|table| table.name == "links") else { return };
        let rows = links.batch.clone();
        self.ingest(&rows).await;
        self.changes(&rows).await;
        self.transactions(&rows).await;
    }

    async fn ingest(&mut self, rows: &RecordBatch) {
        let source = &self.fixture.source;
        let schema = self.fixture.schema.clone();
        if !self.fixture.capabilities.ingest {
            if self.fixture.capabilities.append {
                self.appends(rows).await;
            } else {
                let ingested = source.ingest(&self.cx, &Target::append(&schema, "links"), sent(rows, false)).await;
                self.refused("ingest", ingested.err());
            }
            let dropped = source.drop_table(&self.cx, &schema, "links").await;
            return self.refused("dropping tables", dropped.err());
        }
        let mode = |if_missing, if_exists| {
            let (schema, table) = (schema.clone(), MADE.to_owned());
            Target { schema, table, if_missing, if_exists, primary_key: vec![] }
        };
        let (create, append) = (mode(IfMissing::Create, IfExists::Fail), mode(IfMissing::Fail, IfExists::Append));
        self.fails("appending to a table that is not there", Kind::NotFound, put(source, self, &append, rows).await);
        self.fails("dropping a table that is not there", Kind::NotFound, source.drop_table(&self.cx, &schema, MADE).await);
        let broken = source.ingest(&self.cx, &create, sent(rows, true)).await;
        self.expect(broken.is_err(), || "rows that break off make a table".into());
        self.fails("a table whose rows broke off", Kind::NotFound, self.resolve(MADE).await);

        self.puts("making a table", &create, rows).await;
        self.holds(MADE, "a table that was made", &[rows]).await;
        self.fails("making a table that is there", Kind::Exists, put(source, self, &create, rows).await);
        self.puts("appending", &append, rows).await;
        self.holds(MADE, "a table that was appended to", &[rows, rows]).await;
        let broken = source.ingest(&self.cx, &append, sent(rows, true)).await;
        self.expect(broken.is_err(), || "rows that break off are taken".into());
        self.holds(MADE, "a table after rows that broke off", &[rows, rows]).await;
        let kept = put(source, self, &mode(IfMissing::Create, IfExists::Keep), rows).await;
        if let Some(count) = self.works("keeping a table", kept) {
            self.expect(count == 0, || format!("a table that is kept takes {count} rows"));
        }
        self.puts("replacing", &mode(IfMissing::Fail, IfExists::Replace), &rows.slice(0, 3)).await;
        self.holds(MADE, "a table that was replaced", &[&rows.slice(0, 3)]).await;
        if let Ok(first) = rows.project(&[0]) {
            self.puts("appending one column", &append, &first).await;
            let nulls = self.count(MADE, &format!("\"{}\" IS NULL", rows.schema().field(2).name())).await;
            let expected = rows.num_rows() + rows.slice(0, 3).column(2).null_count();
            self.expect(nulls == Some(expected), || {
                format!("after one column was appended, {nulls:?} rows of {expected} are NULL")
            });
        }
        self.rewrites(rows).await;
        let dropped = source.drop_table(&self.cx, &schema, MADE).await;
        self.works("dropping a table", dropped);
        self.fails("a table that was dropped", Kind::NotFound, self.resolve(MADE).await);
    }

    /// Rows for a table that is there are all that is taken.
    async fn appends(&mut self, rows: &RecordBatch) {
        let source = &self.fixture.source;
        let append = self.target("links", IfMissing::Fail, IfExists::Append);
        self.puts("appending", &append, rows).await;
        self.holds("links", "a table that was appended to", &[rows, rows]).await;
        let missing = self.target(MADE, IfMissing::Fail, IfExists::Append);
        self.fails("appending to a table that is not there", Kind::NotFound, put(source, self, &missing, rows).await);
        let before = self.resolve("links").await.map(|resolved| resolved.version);
        for (table, if_missing, if_exists) in [
            (MADE, IfMissing::Create, IfExists::Fail),
            (MADE, IfMissing::Create, IfExists::Append),
            ("links", IfMissing::Fail, IfExists::Replace),
            ("links", IfMissing::Fail, IfExists::Rewrite(before.unwrap_or(Version::Unknown))),
        ] {
            let refused = put(source, self, &self.target(table, if_missing, if_exists), rows).await;
            self.refused("making and replacing tables", refused.err());
        }
        self.fails("a table whose making was refused", Kind::NotFound, self.resolve(MADE).await);
        let broken = source.ingest(&self.cx, &append, sent(rows, true)).await;
        self.expect(broken.is_err(), || "rows that break off are taken".into());
        self.holds("links", "a table after what was refused and what broke off", &[rows, rows]).await;
        let before = self.resolve("links").await;
        self.puts("appending again", &append, &rows.slice(0, 3)).await;
        self.holds("links", "a table that was appended to again", &[rows, rows, &rows.slice(0, 3)]).await;
        let (before, after) = (self.works("resolving a table", before), self.resolve("links").await);
        if let (Some(before), Ok(after)) = (before, after) {
            let changes = !self.fixture.capabilities.versions || before.version != after.version;
            self.expect(changes, || "rows are appended and the version does not change".into());
        }
        if let Ok(first) = rows.project(&[0]) {
            self.puts("appending one column", &append, &first).await;
            let nulls = self.count("links", &format!("\"{}\" IS NULL", rows.schema().field(2).name())).await;
            let each = rows.column(2).null_count();
            let expected = rows.num_rows() + 2 * each + rows.slice(0, 3).column(2).null_count();
            self.expect(nulls == Some(expected), || {
                format!("after one column was appended, {nulls:?} rows of {expected} are NULL")
            });
        }
    }

    fn target(&self, table: &str, if_missing: IfMissing, if_exists: IfExists) -> Target {
        Target { if_missing, if_exists, ..Target::append(&self.fixture.schema, table) }
    }

    /// Rows that were made of an earlier version do not take the place of a later one.
    async fn rewrites(&mut self, rows: &RecordBatch) {
        let source = &self.fixture.source;
        let Ok(before) = self.resolve(MADE).await else { return };
        if before.version == Version::Unknown {
            return;
        }
        let target = |version| Target { if_exists: IfExists::Rewrite(version), ..Target::append(&self.fixture.schema, MADE) };
        let (first, second) = (target(before.version.clone()), target(before.version));
        self.puts("rewriting", &first, rows).await;
        self.holds(MADE, "a table that was rewritten", &[rows]).await;
        self.fails("rewriting an earlier version", Kind::Precondition, put(source, self, &second, rows).await);
        self.holds(MADE, "a table that was not rewritten", &[rows]).await;
    }

    async fn changes(&mut self, rows: &RecordBatch) {
        let source = &self.fixture.source;
        let change = |filter, set| Change { schema: self.fixture.schema.clone(), table: MADE.into(), filter, set };
        let (update, delete) = (
            change(Some(col("link").lt(lit(10i64))), Some(vec![("note".into(), lit("new"))])),
            change(Some(col("link").gt_eq(lit(35i64))), None),
        );
        if !self.fixture.capabilities.changes {
            return self.refused("changes", source.change(&self.cx, &update).await.err());
        }
        self.made(rows).await;
        for (what, change, expected) in [
            ("an update", update, 10),
            ("a delete", delete, 5),
            ("another update", change(None, Some(vec![("target".into(), col("link"))])), 35),
        ] {
            let changed = source.change(&self.cx, &change).await;
            if let Some(count) = self.works(what, changed) {
                self.expect(count == expected, || format!("{what} says that it changed {count} rows of {expected}"));
            }
        }
        let (all, new) = (self.count(MADE, "true").await, self.count(MADE, "note = 'new'").await);
        let moved = self.count(MADE, "target = link").await;
        self.expect((all, new, moved) == (Some(35), Some(10), Some(35)), || {
            format!("after changes there are {all:?} rows, {new:?} new and {moved:?} moved")
        });
        self.unmade().await;
    }

    async fn transactions(&mut self, rows: &RecordBatch) {
        let source = &self.fixture.source;
        if !self.fixture.capabilities.transactions {
            return self.refused("transactions", source.begin(&self.cx).await.err());
        }
        self.made(rows).await;
        let append = Target::append(&self.fixture.schema, MADE);
        for commits in [false, true] {
            let begun = source.begin(&self.cx).await;
            let Some(transaction) = self.works("beginning a transaction", begun) else { return };
            let inside: Arc<dyn Source> = Arc::clone(&transaction) as _;
            let ingested = put(&inside, self, &append, rows).await;
            self.works("appending in a transaction", ingested);
            self.fails("a savepoint that was never set", Kind::NotFound, transaction.rollback_to(&self.cx, "never").await);
            let marked = transaction.savepoint(&self.cx, "mark").await;
            self.works("a savepoint", marked);
            let ingested = put(&inside, self, &append, rows).await;
            self.works("appending after a savepoint", ingested);
            let (within, without) = (rows_of(&inside, self).await, self.count(MADE, "true").await);
            self.expect(within == Some(3 * rows.num_rows()), || {
                format!("a transaction sees {within:?} rows of its own and others")
            });
            self.expect(without == Some(rows.num_rows()), || format!("others see {without:?} rows while a transaction runs"));
            let back = transaction.rollback_to(&self.cx, "mark").await;
            self.works("going back to a savepoint", back);
            let within = rows_of(&inside, self).await;
            self.expect(within == Some(2 * rows.num_rows()), || format!("after a savepoint a transaction sees {within:?} rows"));
            let released = transaction.release(&self.cx, "mark").await;
            self.works("releasing a savepoint", released);
            self.fails("a savepoint that was released", Kind::NotFound, transaction.release(&self.cx, "mark").await);
            let ended = if commits { transaction.commit(&self.cx).await } else { transaction.rollback(&self.cx).await };
            self.works("ending a transaction", ended);
            let (after, expected) = (self.count(MADE, "true").await, if commits { 2 } else { 1 } * rows.num_rows());
            self.expect(after == Some(expected), || format!("after a transaction (commit: {commits}) there are {after:?} rows"));
        }
        self.unmade().await;
    }

    async fn made(&mut self, rows: &RecordBatch) {
        let target =
            Target { if_missing: IfMissing::Create, if_exists: IfExists::Fail, ..Target::append(&self.fixture.schema, MADE) };
        self.puts("making a table", &target, rows).await;
    }

    async fn unmade(&mut self) {
        let dropped = self.fixture.source.drop_table(&self.cx, &self.fixture.schema, MADE).await;
        self.works("dropping a table", dropped);
    }

    /// All rows are taken, and counted right.
    async fn puts(&mut self, what: &str, target: &Target, rows: &RecordBatch) {
        let taken = put(&self.fixture.source, self, target, rows).await;
        if let Some(count) = self.works(what, taken) {
            self.expect(count == rows.num_rows() as u64, || format!("{what} takes {count} rows of {}", rows.num_rows()));
        }
    }

    /// A table holds these rows and no others.
    async fn holds(&mut self, table: &str, what: &str, expected: &[&RecordBatch]) {
        let held = match self.resolve(table).await {
            Ok(resolved) => answer(&format!("SELECT * FROM {table}"), &[(table.to_owned(), resolved.provider)]).await,
            Err(error) => Err(error),
        };
        let expected: Result<Vec<_>> = expected.iter().map(|batch| text(batch)).collect();
        if let (Some(mut held), Ok(expected)) = (self.works(what, held), expected) {
            let mut expected = expected.concat();
            held.sort();
            expected.sort();
            self.expect(held == expected, || super::difference(what, &held, &expected));
        }
    }

    async fn count(&self, table: &str, filter: &str) -> Option<usize> {
        let resolved = self.resolve(table).await.ok()?;
        let rows = answer(&format!("SELECT * FROM {table} WHERE {filter}"), &[(table.to_owned(), resolved.provider)]).await;
        rows.ok().map(|rows| rows.len())
    }
}

async fn put(source: &Arc<dyn Source>, run: &Run<'_>, target: &Target, rows: &RecordBatch) -> Result<u64> {
    run.cx.run(source.ingest(&run.cx, target, sent(rows, false))).await
}

async fn rows_of(source: &Arc<dyn Source>, run: &Run<'_>) -> Option<usize> {
    let resolved = source.table(&run.cx, &run.fixture.schema, MADE).await.ok()?;
    let rows = answer(&format!("SELECT * FROM {MADE}"), &[(MADE.to_owned(), resolved.provider)]).await;
    rows.ok().map(|rows| rows.len())
}

/// Rows on their way, in two batches; broken off after them where that is wanted.
fn sent(rows: &RecordBatch, breaks: bool) -> SendableRecordBatchStream {
    let half = rows.num_rows() / 2;
    let mut batches = vec![Ok(rows.slice(0, half)), Ok(rows.slice(half, rows.num_rows() - half))];
    if breaks {
        batches.push(Err(DataFusionError::from(Error::unavailable("the rows broke off"))));
    }
    Box::pin(RecordBatchStreamAdapter::new(rows.schema(), stream::iter(batches).boxed()))
}
