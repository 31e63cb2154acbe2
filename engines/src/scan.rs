//! A table of an engine as a statement reads it: one query, with the columns, conditions and limit that it asks for.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
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
use nexus_flight_catalog::sql::{Columns, condition};
use nexus_flight_catalog::{Context, Error, Result};

/// A table as it was described for one statement. Its `Debug` is shown in plans.
pub(crate) trait Table: fmt::Debug + Send + Sync + 'static {
    /// What its node of a plan is called.
    const SCAN: &'static str;

    /// The bytes of conditions that are taken at once. The optimizer may ask up to three times, each time with those that are
    /// left; what has no place in them is decided here.
    const CONDITIONS: usize;

    /// Its columns.
    fn schema(&self) -> &SchemaRef;

    /// Its columns as the engine compares them.
    fn columns(&self) -> &dyn Columns;

    /// The text of a query for the columns at these places; a query that only counts rows names none of them, and reads a
    /// constant.
    fn select(&self, places: &[usize], conditions: &[String], limit: Option<usize>) -> String;

    /// The batches of such a query. Those of one that only counts rows have the constant. Dropped early, they end it at the
    /// engine.
    fn read(self: Arc<Self>, read: Read) -> BoxStream<'static, Result<RecordBatch>>;
}

/// What is read of a table.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) cx: Context,
    pub(crate) sql: String,
    /// The places of the columns in the schema of the table; none where rows are only counted.
    pub(crate) places: Vec<usize>,
    /// Those columns.
    pub(crate) schema: SchemaRef,
    /// The most rows of a batch.
    pub(crate) most: usize,
}

impl Read {
    /// The schema of the rows, by that which the engine sends: the one that was described, or that of the constant. Errors:
    /// `Precondition` where the columns are not those that were described.
    pub(crate) fn described(&self, sent: SchemaRef) -> Result<SchemaRef> {
        if self.places.is_empty() {
            return Ok(sent);
        }
        let (there, here) = (sent.fields(), self.schema.fields());
        let mut pairs = there.iter().zip(here);
        if there.len() == here.len() && pairs.all(|(there, here)| there.data_type() == here.data_type()) {
            return Ok(Arc::clone(&self.schema));
        }
        Err(Error::precondition("a table was changed since its columns were read")
            .with_hint("send the statement again")
            .with_retryable(true))
    }
}

/// The table for DataFusion.
pub(crate) struct Provider<T> {
    pub(crate) cx: Context,
    pub(crate) table: Arc<T>,
}

impl<T: Table> fmt::Debug for Provider<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.table, f)
    }
}

#[async_trait]
impl<T: Table> TableProvider for Provider<T> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(self.table.schema())
    }

    /// What computes its rows is not known, and it may tell of a row that a condition fails on.
    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let mut left = T::CONDITIONS;
        let answer = |filter: &&Expr| {
            let room = condition(filter, self.table.columns(), false).and_then(|sql| left.checked_sub(sql.len()));
            left = room.unwrap_or(left);
            match room {
                Some(_) => TableProviderFilterPushDown::Exact,
                None => TableProviderFilterPushDown::Unsupported,
            }
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
        let all = self.table.schema();
        let places = projection.cloned().unwrap_or_else(|| (0..all.fields().len()).collect());
        let schema = Arc::new(all.project(&places)?);
        let conditions: Option<Vec<String>> =
            filters.iter().map(|filter| condition(filter, self.table.columns(), false)).collect();
        let Some(conditions) = conditions else {
            return Err(DataFusionError::Internal("a filter was pushed down that was not taken".to_owned()));
        };
        let sql = self.table.select(&places, &conditions, limit);
        // The most rows of a batch are known when it runs.
        let read = Read { cx: self.cx.clone(), sql, places, schema: Arc::clone(&schema), most: 0 };
        Ok(Arc::new(ScanExec::new(Query { table: Arc::clone(&self.table), read }, schema)))
    }
}

/// One query of a plan.
#[derive(Debug)]
struct Query<T> {
    table: Arc<T>,
    read: Read,
}

impl<T: Table> Scan for Query<T> {
    const NAME: &'static str = T::SCAN;

    fn detail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.read.sql)
    }

    fn read(&self, task: &TaskContext) -> BoxStream<'static, Result<RecordBatch>> {
        let read = Read {
            // What the rows of this plan take is of its pool, which may be another one than that of the time of planning.
            cx: self.read.cx.within(task.memory_pool()),
            most: task.session_config().batch_size(),
            ..self.read.clone()
        };
        let schema = Arc::clone(&read.schema);
        Arc::clone(&self.table).read(read).map(move |batch| wanted(batch?, &schema)).boxed()
    }
}

/// A batch with the columns that are wanted: that of a query which only counts rows has one more.
fn wanted(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if !schema.fields().is_empty() {
        return Ok(batch);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), vec![], &options)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int32Array};
    use arrow::datatypes::{DataType, Field, Schema};
    use nexus_flight_catalog::{Kind, Principal};

    use super::*;

    fn schema(types: &[DataType]) -> SchemaRef {
        let fields: Vec<Field> = types.iter().map(|of| Field::new("c", of.clone(), true)).collect();
        Arc::new(Schema::new(fields))
    }

    #[test]
    fn of_a_constant_the_rows_are_left() {
        let ones: ArrayRef = Arc::new(Int32Array::from(vec![1; 3]));
        let batch = RecordBatch::try_new(schema(&[DataType::Int32]), vec![ones]).unwrap();
        let counted = wanted(batch, &schema(&[])).unwrap();
        assert_eq!((counted.num_rows(), counted.num_columns()), (3, 0));
    }

    #[test]
    fn columns_are_those_that_were_described() {
        let cx = Context::new(Principal::anonymous());
        let read = Read { cx, sql: String::new(), places: vec![4], schema: schema(&[DataType::Utf8]), most: 1 };
        assert_eq!(read.described(schema(&[DataType::Utf8])).unwrap(), read.schema);
        for changed in [vec![], vec![DataType::Int32], vec![DataType::Utf8, DataType::Utf8]] {
            let error = read.described(schema(&changed)).unwrap_err();
            assert_eq!((error.kind(), error.retryable()), (Kind::Precondition, true));
        }
        let counts = Read { places: vec![], schema: schema(&[]), ..read };
        assert_eq!(counts.described(schema(&[DataType::Int32])).unwrap(), schema(&[DataType::Int32]));
    }
}
