//! A statement in a source's own SQL as a table: its columns are those that it was described with, and it runs as its rows are read.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use crate::error::{Error, Place, Result};
use crate::scan::{Scan, ScanExec};
use crate::source::{Context, Source};

/// The schema of a catalog that plans and records have such statements in, by number: `warehouse.native().1` tells nothing of its text.
pub const SCHEMA: &str = "native()";

/// The rows of a statement in a source's own SQL.
#[derive(Clone)]
pub struct Native {
    source: Arc<dyn Source>,
    cx: Context,
    catalog: String,
    sql: Arc<str>,
    schema: SchemaRef,
}

impl Native {
    /// Asks the source of a catalog for the columns of a statement. Errors: those of [`Source::native_describe`].
    pub async fn describe(source: Arc<dyn Source>, cx: &Context, catalog: &str, sql: Arc<str>) -> Result<Self> {
        let schema = cx.run(source.native_describe(cx, &sql)).await.map_err(|error| placed(catalog, error))?;
        Ok(Self { source, cx: cx.clone(), catalog: catalog.to_owned(), sql, schema })
    }
}

impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Native").field("catalog", &self.catalog).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for Native {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(wanted) => Arc::new(self.schema.project(wanted)?),
            None => Arc::clone(&self.schema),
        };
        let scan = NativeScan { native: self.clone(), projection: projection.cloned(), schema: Arc::clone(&schema) };
        Ok(Arc::new(ScanExec::new(scan, schema)))
    }
}

/// One run of a statement.
#[derive(Debug)]
struct NativeScan {
    native: Native,
    projection: Option<Vec<usize>>,
    /// The columns that are wanted.
    schema: SchemaRef,
}

impl Scan for NativeScan {
    const NAME: &'static str = "NativeScan";

    fn detail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "catalog={}, sql=", self.native.catalog)?;
        // A node is one line, and moves nothing at a terminal.
        let mut parts = self.native.sql.split(char::is_control).map(str::trim).filter(|part| !part.is_empty());
        f.write_str(parts.next().unwrap_or_default())?;
        parts.try_for_each(|part| write!(f, " {part}"))
    }

    fn read(&self, task: &TaskContext) -> BoxStream<'static, Result<RecordBatch>> {
        let Native { source, cx, catalog, sql, schema: described } = self.native.clone();
        let cx = cx.within(task.memory_pool());
        let (wanted, schema) = (self.projection.clone(), Arc::clone(&self.schema));
        let batches = async move {
            let rows = cx.run(source.native_query(&cx, &sql)).await.map_err(|error| placed(&catalog, error))?;
            check_same(&rows.schema(), &described, &catalog)?;
            Ok::<_, Error>(rows.map(move |batch| {
                let batch = batch.map_err(|error| placed(&catalog, Error::from(error)))?;
                projected(&batch, wanted.as_deref(), &schema)
            }))
        };
        stream::once(batches).try_flatten().boxed()
    }
}

/// Errors: `Precondition` where the rows have other columns than those that the statement was planned with.
fn check_same(rows: &Schema, described: &Schema, catalog: &str) -> Result<()> {
    let columns = |schema: &Schema| -> Vec<_> {
        schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
    };
    if columns(rows) == columns(described) {
        return Ok(());
    }
    Err(Error::precondition(format!("the statement for \"{catalog}\" gives other columns than it did a moment ago"))
        .with_hint("send the statement again")
        .with_retryable(true))
}

/// The wanted columns of a batch, as a batch of this schema.
fn projected(batch: &RecordBatch, wanted: Option<&[usize]>, schema: &SchemaRef) -> Result<RecordBatch> {
    let batch = match wanted {
        Some(wanted) => batch.project(wanted)?,
        None => batch.clone(),
    };
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}

/// An error of a statement that stands within another one, of which a position in it is none.
fn placed(catalog: &str, error: Error) -> Error {
    let Some(place @ Place::Statement { .. }) = error.place() else { return error };
    let message = format!("in the statement for \"{catalog}\", {place}: {}", error.message());
    error.retold(message)
}
