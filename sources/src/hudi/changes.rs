//! The rows of a state that commits after another one wrote.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown, col, lit};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{self, Column};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;

use super::types::COMMIT_TIME;

/// A table at a state, without the rows that were there at an earlier one: each that is left was written after it.
#[derive(Debug)]
pub(super) struct Changes {
    table: Arc<dyn TableProvider>,
    /// The commit that all rows are later than.
    after: String,
}

impl Changes {
    /// Of a table that has Hudi's own columns.
    pub(super) fn new(table: Arc<dyn TableProvider>, after: String) -> Self {
        Self { table, after }
    }
}

#[async_trait]
impl TableProvider for Changes {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        self.table.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let schema = self.table.schema();
        let time = schema.index_of(COMMIT_TIME)?;
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let mut read = wanted.clone();
        let at = match read.iter().position(|column| *column == time) {
            Some(at) => at,
            None => {
                read.push(time);
                wanted.len()
            }
        };
        let mut conditions = filters.to_vec();
        conditions.push(col(COMMIT_TIME).gt(lit(self.after.as_str())));
        // Of the limit the table cannot know: it reads rows that are left out here.
        let rows = self.table.scan(state, Some(&read), &conditions, None).await?;
        let commit: Arc<dyn PhysicalExpr> = Arc::new(Column::new(COMMIT_TIME, at));
        let later = expressions::binary(commit, Operator::Gt, expressions::lit(self.after.as_str()), &rows.schema())?;
        let filtered: Arc<dyn ExecutionPlan> = Arc::new(FilterExec::try_new(later, rows)?);
        if read.len() == wanted.len() {
            return Ok(filtered);
        }
        let columns = wanted.iter().enumerate().map(|(place, column)| {
            let name = schema.field(*column).name();
            (Arc::new(Column::new(name, place)) as Arc<dyn PhysicalExpr>, name.clone())
        });
        Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), filtered)?))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::datasource::MemTable;
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn ask(context: &SessionContext, sql: &str) -> String {
        let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
        pretty_format_batches(&batches).unwrap().to_string()
    }

    #[tokio::test]
    async fn rows_of_later_commits_are_left() {
        let commits: ArrayRef = Arc::new(StringArray::from(vec!["1", "2", "3"]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![10, 20, 30]));
        let rows = RecordBatch::try_from_iter([(COMMIT_TIME, commits), ("n", numbers)]).unwrap();
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap();
        let context = SessionContext::new();
        context.register_table("t", Arc::new(Changes::new(Arc::new(table), "1".to_owned()))).unwrap();
        insta::assert_snapshot!(ask(&context, "SELECT n FROM t WHERE n < 30").await, @r"
        +----+
        | n  |
        +----+
        | 20 |
        +----+
        ");
        insta::assert_snapshot!(ask(&context, "SELECT * FROM t LIMIT 1").await, @r"
        +---------------------+----+
        | _hoodie_commit_time | n  |
        +---------------------+----+
        | 2                   | 20 |
        +---------------------+----+
        ");
        insta::assert_snapshot!(ask(&context, "SELECT count(*) FROM t").await, @r"
        +----------+
        | count(*) |
        +----------+
        | 2        |
        +----------+
        ");
    }
}
