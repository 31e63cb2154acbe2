//! Where a planned statement runs. Today there is one place: DataFusion, here.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, collect, execute_stream};
use futures::{StreamExt, TryStreamExt, stream};
use nexus_flight_catalog::{Context, Error, Result};

use crate::bounds;
use crate::config::Limits;
use crate::layers::Run;
use crate::plan::Planned;
use crate::query::{Answer, Batches, CacheUse};
use crate::state::State;
use crate::write::{Action, Write, count_batch};

/// Runs a statement where it belongs.
#[derive(Debug)]
pub struct Route {
    /// The bytes that the literals of a statement may take in a batch.
    most: usize,
}

impl Route {
    /// The route of statements under these limits.
    pub fn new(limits: &Limits) -> Self {
        Self { most: bounds::most(limits.memory.bytes()) }
    }
}

#[async_trait]
impl Run for Route {
    async fn run(&self, planned: Planned) -> Result<Answer> {
        let Planned { query, schema, plan, tables: _, mut state, write } = planned;
        let Some(write) = write else {
            let plan = physical(plan, &mut state, self.most).await?;
            let transaction = query.transaction;
            let batches = rows(plan, state.into_task(), Arc::clone(&schema))?.inspect(move |_| {
                // Held for as long as the stream lives, since what it reads is the transaction's.
                let _ = &transaction;
            });
            return Ok(Answer { schema, batches: batches.boxed(), cache: CacheUse::Bypass });
        };
        let count = self.write(&query.cx, write, plan, state).await?;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let batch = count_batch(count)?;
        Ok(Answer { schema, batches: stream::iter([Ok(batch)]).boxed(), cache: CacheUse::Bypass })
    }
}

impl Route {
    /// Writes what a plan gives, all of it by the time that it returns, and says how many rows it affected.
    async fn write(&self, cx: &Context, write: Write, plan: LogicalPlan, mut state: State) -> Result<u64> {
        let Write { name, source, action } = write;
        match action {
            Action::Put { target, columns } => {
                let plan = physical(plan, &mut state, self.most).await?;
                source.ingest(cx, &target, sent(plan, state.into_task(), columns)?).await
            }
            Action::Rewrite { target, columns, affected } => {
                let (affected, plan) =
                    (physical(*affected, &mut state, self.most).await?, physical(plan, &mut state, self.most).await?);
                let task = Arc::new(state.into_task());
                let affected = single_count(collect(affected, Arc::clone(&task)).await?)?;
                if affected > 0 {
                    source.ingest(cx, &target, sent(plan, task, columns)?).await?;
                }
                Ok(affected)
            }
            Action::Change(change) => source.change(cx, &change).await,
            Action::Drop => source.drop_table(cx, &name.schema, &name.table).await.map(|()| 0),
            Action::Nothing => Ok(0),
        }
    }
}

fn rows(plan: Arc<dyn ExecutionPlan>, task: impl Into<Arc<TaskContext>>, schema: SchemaRef) -> Result<Batches> {
    let stream = execute_stream(plan, task.into())?;
    Ok(stream.map_err(Error::from).map(move |batch| conform(batch?, &schema)).boxed())
}

/// Rows on their way to a source.
fn sent(
    plan: Arc<dyn ExecutionPlan>,
    task: impl Into<Arc<TaskContext>>,
    columns: SchemaRef,
) -> Result<SendableRecordBatchStream> {
    let rows = rows(plan, task, Arc::clone(&columns))?.map_err(DataFusionError::from);
    Ok(Box::pin(RecordBatchStreamAdapter::new(columns, rows)))
}

fn single_count(batches: Vec<RecordBatch>) -> Result<u64> {
    let count =
        batches.iter().find(|batch| batch.num_rows() > 0).map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0));
    count.and_then(|count| u64::try_from(count).ok()).ok_or_else(|| Error::internal("a count gave no number"))
}

async fn physical(plan: LogicalPlan, state: &mut State, most: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let optimized = bounds::with_constants_within(most / 4, || match plan {
        // The optimizer shows its work for this one.
        explain @ LogicalPlan::Explain(_) => state.session.optimize(&explain),
        plan => state.session.optimizer().optimize(plan, &state.session, |_, _| {}),
    })?;
    // Not before: what is computed of literals alone is a literal by now.
    state.limit_batches(bounds::rows_within(&optimized, most / 4)?);
    let plan = state.session.query_planner().create_physical_plan(&optimized, &state.session).await?;
    state.limit_batches(bounds::rows_as_wide(plan.as_ref(), most)?);
    Ok(plan)
}

/// The plan's schema is what the client was told; an optimised plan may differ from it in nullability and metadata, and in
/// nothing else.
fn conform(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
        .map_err(|error| Error::internal("the answer does not have the columns that its plan promised").caused_by(error))
}
