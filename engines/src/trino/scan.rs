//! The table that a statement reads: one query, with the columns, conditions and limit that it asks for; and the rows of any query.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::runtime::SpawnedTask;
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{Stream, TryStreamExt, stream};
use nexus_flight_catalog::sql::Dialect;
use nexus_flight_catalog::{Context, Error, Result, sql};

use super::client::{Client, Rows, Statement};
use super::decode::Decoder;
use super::dialect::Trino;
use super::listing::{Column, Shape, ours};
use super::types::{self, Type};

/// The bytes of conditions that are taken at once. Trino takes a million letters of a query (`query.max-length`), and the optimizer
/// may ask up to three times, each time with those that are left; what has no place in it is decided here.
const CONDITIONS: usize = 300_000;

/// How many arrays of rows are decoded at once, ahead of the one that is handed on.
const AHEAD: usize = 2;

/// A table as it was described for one statement.
pub(super) struct TrinoTable {
    pub(super) cx: Context,
    pub(super) client: Client,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) shape: Arc<Shape>,
}

impl fmt::Debug for TrinoTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrinoTable({}.{})", self.schema, self.name)
    }
}

#[async_trait]
impl TableProvider for TrinoTable {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.shape.schema)
    }

    /// What computes its rows is not known, and it may tell of a row that a condition fails on.
    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let mut left = CONDITIONS;
        let answer = |filter: &&Expr| {
            let room = sql::condition(filter, self.shape.as_ref(), false).and_then(|sql| left.checked_sub(sql.len()));
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
        let all = &self.shape.columns;
        let columns: Vec<Column> = match projection {
            Some(wanted) => wanted.iter().filter_map(|at| all.get(*at).cloned()).collect(),
            None => all.clone(),
        };
        let schema = match projection {
            Some(wanted) => Arc::new(self.shape.schema.project(wanted)?),
            None => Arc::clone(&self.shape.schema),
        };
        let conditions: Option<Vec<String>> =
            filters.iter().map(|filter| sql::condition(filter, self.shape.as_ref(), false)).collect();
        let Some(conditions) = conditions else {
            return Err(DataFusionError::Internal("a filter was pushed down that was not taken".to_owned()));
        };
        let fields = schema.fields().iter().zip(&columns);
        let list: Vec<String> = fields.map(|(field, column)| selected(field.name(), &column.ty)).collect();
        // Trino has no query without columns: one that only counts rows reads a constant for each.
        let list = if list.is_empty() { "1".to_owned() } else { list.join(", ") };
        // It has no greater number of rows than that of a bigint.
        let limit = limit.filter(|limit| i64::try_from(*limit).is_ok());
        let sql = sql::select(&Trino, &[], [&self.schema, &self.name], &conditions, limit);
        let sql = sql.replacen("SELECT", &format!("SELECT {list}"), 1);
        Ok(Arc::new(TrinoScan::new(self.cx.clone(), self.client.clone(), sql, columns, schema)))
    }
}

/// A column as it is selected.
fn selected(name: &str, ty: &Type) -> String {
    let name = Trino.identifier(name);
    match ty {
        // Where clocks are put back an hour comes twice, and the time that is written with its zone does not say which of both it is.
        Type::TimestampTz(_) => format!("{name} AT TIME ZONE 'UTC' AS {name}"),
        _ => name,
    }
}

/// One query of a plan.
#[derive(Debug)]
struct TrinoScan {
    cx: Context,
    client: Client,
    sql: String,
    columns: Vec<Column>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl TrinoScan {
    fn new(cx: Context, client: Client, sql: String, columns: Vec<Column>, schema: Arc<Schema>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { cx, client, sql, columns, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for TrinoScan {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrinoScan: {}", self.sql)
    }
}

impl ExecutionPlan for TrinoScan {
    fn name(&self) -> &'static str {
        "TrinoScan"
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
        let read = Read {
            // What the rows of this plan take is of its pool, which may be another one than that of the time of planning.
            cx: self.cx.within(task.memory_pool()),
            client: self.client.clone(),
            sql: self.sql.clone(),
            columns: self.columns.clone(),
            schema: self.schema(),
            most: task.session_config().batch_size(),
        };
        let count = MetricBuilder::new(&self.metrics).output_rows(partition);
        // Of the clock, and not of the processor: most of it is the cluster's.
        let elapsed = MetricBuilder::new(&self.metrics).subset_time("time_elapsed_reading", partition);
        let batches = Box::pin(read.batches().map_err(DataFusionError::from));
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

/// What is read of a table.
struct Read {
    cx: Context,
    client: Client,
    sql: String,
    columns: Vec<Column>,
    schema: SchemaRef,
    /// The most rows of a batch.
    most: usize,
}

impl Read {
    /// The batches. Dropped early, they end the query at the cluster. Errors: those of the cluster; `Precondition` where the
    /// columns are not those that were described.
    fn batches(self) -> impl Stream<Item = Result<RecordBatch>> + Send {
        let batches = async move {
            let statement = self.client.run(&self.cx, &self.sql).await?;
            let decoder = self.decoder(&statement)?;
            let Self { cx, schema, most, .. } = self;
            let batches = decoded(cx, statement, decoder, most);
            Ok::<_, Error>(batches.and_then(move |batch| std::future::ready(wanted(batch, &schema))))
        };
        stream::once(batches).try_flatten().map_err(ours)
    }

    /// Errors: `Precondition`.
    fn decoder(&self, statement: &Statement) -> Result<Decoder> {
        let (types, sent) = types::schema(&statement.columns)?;
        if self.columns.is_empty() {
            return Ok(Decoder::new(types, sent));
        }
        let (sent, described) = (sent.fields(), self.schema.fields());
        let mut pairs = sent.iter().zip(described);
        if sent.len() == described.len() && pairs.all(|(sent, described)| sent.data_type() == described.data_type()) {
            let types = self.columns.iter().map(|column| column.ty.clone()).collect();
            return Ok(Decoder::new(types, Arc::clone(&self.schema)));
        }
        Err(Error::precondition("a table was changed since its columns were read")
            .with_hint("send the statement again")
            .with_retryable(true))
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

/// What is made of one array of rows, and what that takes of the memory.
type Decoded = (std::vec::IntoIter<RecordBatch>, MemoryReservation);

/// The rows of a statement in batches of at most so many. They are decoded in threads of their own while the next ones come.
/// Dropped early, they end the statement at the cluster. Errors: those of the cluster; `Data` for a value that is not of its type.
pub(super) fn decoded(
    cx: Context,
    statement: Statement,
    decoder: Decoder,
    most: usize,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    tracing::debug!(query = %cx.query, trino = statement.id, "trino has begun a statement");
    let rows = stream::try_unfold(statement, |mut statement| async move {
        Ok::<_, Error>(statement.rows.try_next().await?.map(|rows| (rows, statement)))
    });
    let arrays = Box::pin(rows.map_ok(move |rows| decode(decoder.clone(), rows, most)).try_buffered(AHEAD));
    let handed: Option<Decoded> = None;
    stream::try_unfold((cx, arrays, handed), |(cx, mut arrays, mut handed)| async move {
        loop {
            if let Some(batch) = handed.as_mut().and_then(|(batches, _)| batches.next()) {
                return Ok(Some((batch, (cx, arrays, handed))));
            }
            // What it took is free for the next one.
            drop(handed.take());
            handed = cx.run(arrays.try_next()).await?;
            if handed.is_none() {
                return Ok(None);
            }
        }
    })
}

async fn decode(decoder: Decoder, rows: Rows, most: usize) -> Result<Decoded> {
    let decoding = SpawnedTask::spawn_blocking(move || -> Result<Decoded> {
        let Rows { json, room } = rows;
        let batches = decoder.decode(&json, most, &room)?;
        // Of the array nothing is kept.
        drop(json);
        room.try_resize(batches.iter().map(RecordBatch::get_array_memory_size).sum())?;
        Ok((batches.into_iter(), room))
    });
    decoding.join().await.map_err(|cause| Error::broken_off().caused_by(cause))?
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};
    use datafusion::physical_plan::displayable;
    use datafusion::prelude::SessionContext;
    use nexus_flight_catalog::Principal;

    use super::super::client::Named;
    use super::super::client::tests::room;
    use super::super::config::tests::configured;
    use super::*;

    fn table() -> TrinoTable {
        let columns =
            [("id", "bigint"), ("Na\"me", "varchar"), ("x", "double"), ("at", "timestamp(6) with time zone"), ("b", "boolean")];
        let columns = columns.map(|(name, type_name)| Named { name: name.to_owned(), type_name: type_name.to_owned() });
        let client = Client::new(Arc::new(configured(serde_json::json!({})).unwrap())).unwrap();
        let shape = Arc::new(Shape::new(columns.into()).unwrap());
        let cx = Context::new(Principal::anonymous());
        TrinoTable { cx, client, schema: "a".to_owned(), name: "t".to_owned(), shape }
    }

    async fn planned(projection: Option<&Vec<usize>>, filters: &[Expr], limit: Option<usize>) -> String {
        let plan = table().scan(&SessionContext::new().state(), projection, filters, limit).await.unwrap();
        displayable(plan.as_ref()).one_line().to_string().trim().to_owned()
    }

    #[tokio::test]
    async fn columns_conditions_and_limits_are_sent() {
        assert_eq!(
            planned(None, &[], None).await,
            r#"TrinoScan: SELECT "id", "Na""me", "x", "at" AT TIME ZONE 'UTC' AS "at", "b" FROM "a"."t""#
        );
        let filters = [col("id").gt(lit(5i64)), col("x").is_not_null()];
        assert_eq!(
            planned(Some(&vec![1]), &filters, Some(3)).await,
            r#"TrinoScan: SELECT "Na""me" FROM "a"."t" WHERE ("id" > BIGINT '5') AND ("x" IS NOT NULL) LIMIT 3"#
        );
    }

    #[tokio::test]
    async fn what_trino_has_no_words_for_is_not_sent() {
        let filters = [col("b").is_true()];
        assert_eq!(
            planned(Some(&vec![4]), &filters, Some(usize::MAX)).await,
            r#"TrinoScan: SELECT "b" FROM "a"."t" WHERE ("b" IS NOT DISTINCT FROM TRUE)"#
        );
    }

    #[tokio::test]
    async fn batches_take_what_they_are_of_the_memory() {
        let columns = types::schema(&[Named { name: "n".to_owned(), type_name: "bigint".to_owned() }]).unwrap();
        let json = format!("[{}]", vec!["[null]"; 10_000].join(","));
        let rows = Rows { json: json.into(), room: room() };
        let (batches, room) = decode(Decoder::new(columns.0, columns.1), rows, 1_000).await.unwrap();
        assert_eq!(room.size(), batches.map(|batch| batch.get_array_memory_size()).sum::<usize>());
        assert!(room.size() >= 80_000);
    }

    #[tokio::test]
    async fn rows_without_columns_are_counted_by_a_constant() {
        assert_eq!(planned(Some(&vec![]), &[], Some(1)).await, r#"TrinoScan: SELECT 1 FROM "a"."t" LIMIT 1"#);
        let columns = types::schema(&[Named { name: "_col0".to_owned(), type_name: "integer".to_owned() }]).unwrap();
        let batches = Decoder::new(columns.0, columns.1).decode(b"[[1],[1],[1]]", 8, &room()).unwrap();
        let none = Arc::new(Schema::empty());
        let rows: Vec<RecordBatch> = batches.into_iter().map(|batch| wanted(batch, &none).unwrap()).collect();
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
        assert!(rows.iter().all(|batch| batch.num_columns() == 0));
    }

    #[tokio::test]
    async fn what_a_query_has_no_room_for_is_decided_here() {
        let long = col("id").in_list((0..100_000i64).map(lit).collect(), false);
        let short = col("id").eq(lit(1i64));
        let told = table().supports_filters_pushdown(&[&short, &long, &short]).unwrap();
        let [exact, here] = [TableProviderFilterPushDown::Exact, TableProviderFilterPushDown::Unsupported];
        assert_eq!(told, [exact.clone(), here.clone(), exact.clone()]);
        // What is taken each time that the optimizer asks has a place in one query.
        let half = col("id").in_list((0..9_000i64).map(lit).collect(), false);
        assert_eq!(table().supports_filters_pushdown(&[&half, &half, &half]).unwrap(), [exact.clone(), exact, here]);
        let all = vec![half; 6];
        let sent = planned(None, &all, None).await;
        assert!((700_000..1_000_000).contains(&sent.len()), "{}", sent.len());
    }
}
