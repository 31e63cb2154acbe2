//! Tables whose rows are made when they are read, with the filters that the statement puts on them.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::context::ExecutionProps;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::error::Result;

type Make = dyn Fn(Filters) -> BoxStream<'static, Result<RecordBatch>> + Send + Sync;

/// A table of a fixed schema whose rows come from a closure. The closure gets the statement's filters and may use them to
/// do less; whatever it leaves in is filtered again by the plan.
#[derive(Clone)]
pub struct VirtualTable {
    schema: SchemaRef,
    make: Arc<Make>,
}

impl VirtualTable {
    /// A table whose batches, all of `schema`, are made by `make` each time it is read.
    pub fn new(
        schema: SchemaRef,
        make: impl Fn(Filters) -> BoxStream<'static, Result<RecordBatch>> + Send + Sync + 'static,
    ) -> Self {
        Self { schema, make: Arc::new(make) }
    }
}

impl fmt::Debug for VirtualTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualTable").field("schema", &self.schema).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for VirtualTable {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let partition = Partition { table: self.clone(), filters: Filters(filters.to_vec()) };
        let exec = StreamingTableExec::try_new(self.schema(), vec![Arc::new(partition)], projection, [], false, limit)?;
        Ok(Arc::new(exec))
    }
}

#[derive(Debug)]
struct Partition {
    table: VirtualTable,
    filters: Filters,
}

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        &self.table.schema
    }

    fn execute(&self, _cx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = (self.table.make)(self.filters.clone()).map(|batch| Ok(batch?));
        Box::pin(RecordBatchStreamAdapter::new(self.table.schema(), batches))
    }
}

/// The conjuncts that a statement puts on a virtual table.
#[derive(Debug, Clone, Default)]
pub struct Filters(Vec<Expr>);

impl Filters {
    /// Which of these rows could pass, judged by the conjuncts that name no other column than the given ones. What cannot
    /// be judged is let through.
    pub fn admit(&self, rows: &RecordBatch) -> Vec<bool> {
        let mut admitted = vec![true; rows.num_rows()];
        for verdict in self.0.iter().filter_map(|filter| evaluate(filter, rows)) {
            for (row, passes) in admitted.iter_mut().zip(verdict) {
                *row &= passes;
            }
        }
        admitted
    }
}

fn evaluate(filter: &Expr, rows: &RecordBatch) -> Option<Vec<bool>> {
    let known = |column: &&Column| rows.schema().column_with_name(&column.name).is_some();
    if !filter.column_refs().iter().all(known) || filter.is_volatile() {
        return None;
    }
    let schema = DFSchema::try_from(rows.schema()).ok()?;
    let bare = strip_qualifiers(filter.clone())?;
    let physical = create_physical_expr(&bare, &schema, &ExecutionProps::new()).ok()?;
    let verdict = physical.evaluate(rows).ok()?.into_array(rows.num_rows()).ok()?;
    // NULL is not true, so the row is not wanted.
    Some(as_boolean_array(&verdict).ok()?.iter().map(|passes| passes.unwrap_or(false)).collect())
}

/// The row has bare column names, the statement's filter may carry a table's.
fn strip_qualifiers(filter: Expr) -> Option<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    filter
        .transform(|expr| match expr {
            Expr::Column(column) => Ok(Transformed::yes(Expr::Column(Column::from_name(column.name)))),
            other => Ok(Transformed::no(other)),
        })
        .ok()
        .map(|transformed| transformed.data)
}
