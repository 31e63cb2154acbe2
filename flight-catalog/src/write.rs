//! What writing needs: where rows go and on what condition, and transactions.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::Column;
use datafusion::logical_expr::Expr;
use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::source::{Context, Source, Version};

/// Where rows go: a table of a source, there or to be made. The modes are those of Flight SQL's `TableDefinitionOptions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// What to do where the table is not there.
    pub if_missing: IfMissing,
    /// What to do where it is.
    pub if_exists: IfExists,
    /// The columns of the primary key of a table that is made; empty for none.
    pub primary_key: Vec<String>,
}

/// What to do with rows for a table that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    /// Make it, with the columns of the rows.
    Create,
    /// Fail as `NotFound`.
    Fail,
}

/// What to do with rows for a table that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfExists {
    /// Fail as `Exists`.
    Fail,
    /// Leave the table as it is and take no row.
    Keep,
    /// Put them behind the rows that are there.
    Append,
    /// Put them in place of the table, with the columns of the rows.
    Replace,
    /// Put them in place of the rows, as long as the table is the one that they were made from. Fail as `Precondition` where
    /// it has changed since.
    Rewrite(Version),
}

/// What becomes of the table that a [`Target`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is made.
    Create,
    /// It gets more rows.
    Append,
    /// It gets other rows, and perhaps other columns.
    Replace,
    /// Nothing.
    Keep,
}

impl Target {
    /// Rows for the end of a table that is there.
    pub fn append(schema: impl Into<String>, table: impl Into<String>) -> Self {
        let (if_missing, if_exists) = (IfMissing::Fail, IfExists::Append);
        Self { schema: schema.into(), table: table.into(), if_missing, if_exists, primary_key: vec![] }
    }

    /// What is to be done, given the version of the table that is there, if one is. Errors: `NotFound`, `Exists`, `Precondition`.
    pub fn put(&self, there: Option<&Version>) -> Result<Put> {
        let Self { schema, table, .. } = self;
        match (there, &self.if_missing, &self.if_exists) {
            (None, IfMissing::Create, _) => Ok(Put::Create),
            (None, IfMissing::Fail, _) => Err(Error::not_found(format!("table \"{schema}.{table}\" does not exist"))),
            (Some(_), _, IfExists::Fail) => Err(Error::exists(format!("table \"{schema}.{table}\" exists already"))
                .with_hint("append to it, replace it, or take another name")),
            (Some(_), _, IfExists::Keep) => Ok(Put::Keep),
            (Some(_), _, IfExists::Append) => Ok(Put::Append),
            (Some(_), _, IfExists::Replace) => Ok(Put::Replace),
            (Some(now), _, IfExists::Rewrite(read)) if now == read => Ok(Put::Replace),
            (Some(_), _, IfExists::Rewrite(_)) => {
                let message = format!("table \"{schema}.{table}\" was changed while this statement read it");
                Err(Error::precondition(message).with_hint("send the statement again").with_retryable(true))
            }
        }
    }
}

/// Rows with all columns of the table that they are put into, in its order; those that they lack are NULL. Errors: `Invalid` for
/// a NULL where the table takes none; `Precondition` where the types are not the table's, which it had when the statement was
/// planned.
pub fn filled(batch: &RecordBatch, table: &SchemaRef) -> Result<RecordBatch> {
    let column = |name: &str, data_type| match batch.column_by_name(name) {
        Some(column) => Arc::clone(column),
        None => new_null_array(data_type, batch.num_rows()),
    };
    let columns: Vec<_> = table.fields().iter().map(|field| column(field.name(), field.data_type())).collect();
    for (field, column) in table.fields().iter().zip(&columns) {
        if !field.is_nullable() && column.null_count() > 0 {
            return Err(Error::invalid(format!("the column \"{}\" takes no NULL", field.name()))
                .with_hint("give a value for it in every row"));
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(table), columns, &options).map_err(|cause| {
        Error::precondition("the table has columns of other types")
            .with_hint("send the statement again")
            .with_retryable(true)
            .caused_by(cause)
    })
}

/// An UPDATE or DELETE for a source that does it itself.
#[derive(Debug, Clone)]
pub struct Change {
    /// The table's schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// Which rows; all where there is none. Its columns are those of the table, without a qualifier.
    pub filter: Option<Expr>,
    /// The columns that get new values, and these; none where the rows go.
    pub set: Option<Vec<(Column, Expr)>>,
}

/// A source as one transaction sees it. What it reads and writes is the transaction's until it ends; a dropped one is rolled
/// back.
#[async_trait]
pub trait Transaction: Source {
    /// Makes what was written visible to all. Errors: `Precondition` where another transaction stands against it; then
    /// nothing was written.
    async fn commit(&self, cx: &Context) -> Result<()>;

    /// Forgets what was written.
    async fn rollback(&self, cx: &Context) -> Result<()>;

    /// Marks this moment under a name, which may be taken more than once: the latest counts.
    async fn savepoint(&self, cx: &Context, name: &str) -> Result<()>;

    /// Forgets a mark and those after it, and keeps what was written. Errors: `NotFound` for a name that is not marked.
    async fn release(&self, cx: &Context, name: &str) -> Result<()>;

    /// Forgets what was written since a mark, which stays. Errors: `NotFound` for a name that is not marked.
    async fn rollback_to(&self, cx: &Context, name: &str) -> Result<()>;

    /// Where what it holds is short: a permit for each who waits for as much. Whoever takes one for good rolls a transaction
    /// back that holds it.
    fn wanted(&self) -> Option<Arc<Semaphore>> {
        None
    }
}
