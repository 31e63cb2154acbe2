//! The table that a statement reads: one query, with the columns, conditions and limit that it asks for.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;
use futures::stream::BoxStream;
use nexus_flight_catalog::scan::{Scan, ScanExec};
use nexus_flight_catalog::{Context, Result, sql};

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
        let (cx, access) = (self.cx.clone(), self.access.clone());
        let scan = PostgresScan { cx, access, sql, columns, schema: Arc::clone(&schema) };
        Ok(Arc::new(ScanExec::new(scan, schema)))
    }
}

/// One query of a plan.
#[derive(Debug)]
struct PostgresScan {
    cx: Context,
    access: Access,
    sql: String,
    columns: Vec<Column>,
    schema: SchemaRef,
}

impl Scan for PostgresScan {
    const NAME: &'static str = "PostgresScan";

    fn detail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sql)
    }

    fn read(&self, task: &TaskContext) -> BoxStream<'static, Result<RecordBatch>> {
        let read = rows::Read {
            cx: self.cx.clone(),
            access: self.access.clone(),
            sql: self.sql.clone(),
            columns: self.columns.clone(),
            schema: Arc::clone(&self.schema),
            most: task.session_config().batch_size(),
        };
        rows::batches(read).boxed()
    }
}
