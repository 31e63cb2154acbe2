//! A statement in a source's own SQL as a table: its columns are those that it was described with, and it runs as its rows are read.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::{Error, Place, Result};
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
        Ok(Arc::new(NativeScan::new(self.clone(), projection.cloned())?))
    }
}

/// One run of a statement.
#[derive(Debug)]
struct NativeScan {
    native: Native,
    projection: Option<Vec<usize>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl NativeScan {
    fn new(native: Native, projection: Option<Vec<usize>>) -> DataFusionResult<Self> {
        let schema = match &projection {
            Some(wanted) => Arc::new(native.schema.project(wanted)?),
            None => Arc::clone(&native.schema),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self { native, projection, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() })
    }
}

impl DisplayAs for NativeScan {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NativeScan: catalog={}, sql=", self.native.catalog)?;
        // A node is one line, and moves nothing at a terminal.
        let mut parts = self.native.sql.split(char::is_control).map(str::trim).filter(|part| !part.is_empty());
        f.write_str(parts.next().unwrap_or_default())?;
        parts.try_for_each(|part| write!(f, " {part}"))
    }
}

impl ExecutionPlan for NativeScan {
    fn name(&self) -> &'static str {
        "NativeScan"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let Native { source, cx, catalog, sql, schema: described } = self.native.clone();
        let cx = cx.within(task.memory_pool());
        let (wanted, schema) = (self.projection.clone(), self.schema());
        let count = MetricBuilder::new(&self.metrics).output_rows(partition);
        let batches = async move {
            let rows = cx.run(source.native_query(&cx, &sql)).await.map_err(|error| placed(&catalog, error))?;
            check_same(&rows.schema(), &described, &catalog)?;
            Ok::<_, DataFusionError>(rows.map(move |batch| {
                let batch = batch.map_err(|error| placed(&catalog, Error::from(error)))?;
                count.add(batch.num_rows());
                projected(&batch, wanted.as_deref(), &schema)
            }))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::once(batches).try_flatten())))
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
fn projected(batch: &RecordBatch, wanted: Option<&[usize]>, schema: &SchemaRef) -> DataFusionResult<RecordBatch> {
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
