//! The table that a statement reads: one query, with the columns, conditions and limit that it asks for.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{TryStreamExt, stream};
use nexus_flight_catalog::{Context, sql};

use super::access::Access;
use super::dialect::Postgres;
use super::listing::{Column, Shape};
use super::rows;

/// A table as it was described for one statement.
pub(super) struct PostgresTable {
    pub(super) cx: Context,
    pub(super) access: Access,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) shape: Arc<Shape>,
}

impl fmt::Debug for PostgresTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresTable({}.{})", self.schema, self.name)
    }
}

#[async_trait]
impl TableProvider for PostgresTable {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.shape.schema)
    }

    fn table_type(&self) -> TableType {
        if self.shape.is_stored { TableType::Base } else { TableType::View }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let answer = |filter: &&Expr| match sql::condition(filter, self.shape.as_ref(), false) {
            Some(_) => TableProviderFilterPushDown::Exact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(answer).collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let all = &self.shape.columns;
        let columns: Vec<Column> = match projection {
            Some(wanted) => wanted.iter().filter_map(|at| all.get(*at).cloned()).collect(),
            None => all.clone(),
        };
        let schema = match projection {
            Some(wanted) => Arc::new(self.shape.schema.project(wanted)?),
            None => Arc::clone(&self.shape.schema),
        };
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let conditions: Option<Vec<String>> =
            filters.iter().map(|filter| sql::condition(filter, self.shape.as_ref(), false)).collect();
        let Some(conditions) = conditions else {
            return Err(DataFusionError::Internal("a filter was pushed down that was not taken".to_owned()));
        };
        let sql = sql::select(&Postgres, &names, [&self.schema, &self.name], &conditions, limit);
        Ok(Arc::new(PostgresScan::new(self.cx.clone(), self.access.clone(), sql, columns, schema)))
    }
}

/// One query of a plan.
#[derive(Debug)]
struct PostgresScan {
    cx: Context,
    access: Access,
    sql: String,
    columns: Vec<Column>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl PostgresScan {
    fn new(cx: Context, access: Access, sql: String, columns: Vec<Column>, schema: Arc<Schema>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { cx, access, sql, columns, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for PostgresScan {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresScan: {}", self.sql)
    }
}

impl ExecutionPlan for PostgresScan {
    fn name(&self) -> &'static str {
        "PostgresScan"
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
        let most = task.session_config().batch_size();
        let read = rows::Read {
            cx: self.cx.clone(),
            access: self.access.clone(),
            sql: self.sql.clone(),
            columns: self.columns.clone(),
            schema: self.schema(),
            most,
        };
        let count = MetricBuilder::new(&self.metrics).output_rows(partition);
        // Of the clock, and not of the processor: most of it is the server's.
        let elapsed = MetricBuilder::new(&self.metrics).subset_time("time_elapsed_reading", partition);
        let batches = Box::pin(rows::batches(read).map_err(DataFusionError::from));
        let batches = stream::try_unfold((batches, count, elapsed), |(mut batches, count, elapsed)| async move {
            let started = Instant::now();
            let batch = batches.try_next().await?;
            elapsed.add_elapsed(started);
            Ok(batch.map(|batch| {
                count.add(batch.num_rows());
                (batch, (batches, count, elapsed))
            }))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}
