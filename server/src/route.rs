//! Where a planned statement runs. Today there is one place: DataFusion, here.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{FieldRef, Int64Type, SchemaRef};
use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, collect, execute_stream};
use futures::{StreamExt, TryStreamExt, stream};
use nexus_flight_catalog::compact::exactly;
use nexus_flight_catalog::source::TRACE;
use nexus_flight_catalog::{Context, Error, Result};
use tracing::Instrument;

use crate::bounds;
use crate::config::Limits;
use crate::explain::{Explain, Ran};
use crate::gathered::gathered;
use crate::layers::Run;
use crate::parts::{self, Part};
use crate::plan::Planned;
use crate::plans::is_constant;
use crate::query::{Answer, Batches, size};
use crate::state::State;
use crate::touched::Tell;
use crate::write::{Action, Write, count_batch};

/// The name of the route that is here.
const HERE: &str = "datafusion";

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

    /// The bytes that the literals of a statement may take in a batch.
    pub fn most(&self) -> usize {
        self.most
    }
}

#[async_trait]
impl Run for Route {
    async fn run(&self, planned: Planned) -> Result<Answer> {
        let parted = planned.query.part.map(|part| (part, parts::common(&planned)));
        let tell = Tell::of(&planned);
        let Planned { query, schema, plan, mut state, write, explain, .. } = planned;
        if let Some(explain) = explain {
            let held = query.transaction;
            let answer = self.explain(explain, plan, schema, state, &tell).await?;
            // As below, since with ANALYZE it is executed as its rows are asked for.
            let batches = answer.batches.inspect(move |_| _ = &held).boxed();
            return Ok(Answer { batches, ..answer });
        }
        let Some(write) = write else {
            let span = tracing::info_span!(target: TRACE, parent: &query.cx.span, "run", nexus.route = HERE);
            let plan = physical(plan, &mut state, self.most, &tell).instrument(span.clone()).await?;
            let held = (query.transaction, span);
            let stream = match parted {
                None => execute_stream(plan, state.into_task().into())?,
                Some((part, digest)) => {
                    part.check(digest, &plan)?;
                    plan.execute(part.index, state.into_task().into())?
                }
            };
            let batches = gathered(conforming(stream, Arc::clone(&schema)), &schema).inspect(move |_| {
                // Held for as long as the stream lives: what it reads is the transaction's, and its end is that of the span.
                let _ = &held;
            });
            return Ok(Answer::new(schema, batches.boxed()));
        };
        let span = tracing::info_span!(target: TRACE, parent: &query.cx.span, "write", nexus.catalog = write.name.catalog);
        let count = self.write(&query.cx, write, plan, state, &tell).instrument(span).await?;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let batch = count_batch(count)?;
        Ok(Answer::new(schema, stream::iter([Ok(batch)]).boxed()))
    }
}

impl Route {
    /// Tells how a plan is executed, and with ANALYZE executes it.
    async fn explain(
        &self,
        mut explain: Explain,
        plan: LogicalPlan,
        schema: SchemaRef,
        mut state: State,
        tell: &Tell,
    ) -> Result<Answer> {
        let optimized = optimized(plan, &mut state, self.most, tell)?;
        explain.clock.end("optimizer");
        let plan = executable(&optimized, &mut state, self.most).await?;
        explain.clock.end("physical plan");
        let answer = async move {
            let ran = match explain.analyze {
                false => None,
                true => {
                    let mut rows = rows(Arc::clone(&plan), state.into_task(), schema)?;
                    let mut ran = Ran::default();
                    while let Some(batch) = rows.try_next().await? {
                        if ran.rows == 0 {
                            explain.clock.end("first rows");
                        }
                        ran.rows += batch.num_rows() as u64;
                        ran.bytes += size(&batch);
                    }
                    explain.clock.end("all rows");
                    Some(ran)
                }
            };
            explain.answer(&optimized, plan.as_ref(), ran.as_ref())
        };
        Ok(Answer::new(Explain::schema(), stream::once(answer).boxed()))
    }

    /// Writes what a plan gives, all of it by the time that it returns, and says how many rows it affected.
    async fn write(&self, cx: &Context, write: Write, plan: LogicalPlan, mut state: State, tell: &Tell) -> Result<u64> {
        let Write { name, source, action } = write;
        tell.writes(HERE, &name);
        match action {
            Action::Put { target, columns } => {
                let plan = physical(plan, &mut state, self.most, tell).await?;
                let task = Arc::new(state.into_task());
                source.ingest(&cx.within(task.memory_pool()), &target, sent(plan, task, columns)?).await
            }
            Action::Rewrite { target, columns, affected } => {
                let affected = physical(*affected, &mut state, self.most, tell).await?;
                let plan = physical(plan, &mut state, self.most, tell).await?;
                let task = Arc::new(state.into_task());
                let affected = single_count(collect(affected, Arc::clone(&task)).await?)?;
                if affected > 0 {
                    source.ingest(&cx.within(task.memory_pool()), &target, sent(plan, task, columns)?).await?;
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
    Ok(conforming(execute_stream(plan, task.into())?, schema))
}

fn conforming(stream: SendableRecordBatchStream, schema: SchemaRef) -> Batches {
    stream.map_err(Error::from).map(move |batch| conform(batch?, &schema)).boxed()
}

/// The parts that the answer to a statement falls into; none where it comes as a whole.
pub async fn parts(planned: Planned, most: usize) -> Result<Vec<Part>> {
    let (part, digest, tell) = (planned.query.part, parts::common(&planned), Tell::of(&planned));
    let Planned { plan, mut state, explain, .. } = planned;
    let (Some(part), Some(digest), None) = (part, digest, explain) else { return Ok(Vec::new()) };
    let of = parts::count(physical(plan, &mut state, most, &tell).await?.as_ref());
    state.give_back();
    Ok(if of > 1 { (0..of).map(|index| Part { index, of, digest, ..part }).collect() } else { Vec::new() })
}

/// Rows on their way to a source.
fn sent(plan: Arc<dyn ExecutionPlan>, task: Arc<TaskContext>, columns: SchemaRef) -> Result<SendableRecordBatchStream> {
    let rows = rows(plan, task, Arc::clone(&columns))?.map_err(DataFusionError::from);
    Ok(Box::pin(RecordBatchStreamAdapter::new(columns, rows)))
}

fn single_count(batches: Vec<RecordBatch>) -> Result<u64> {
    let count =
        batches.iter().find(|batch| batch.num_rows() > 0).map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0));
    count.and_then(|count| u64::try_from(count).ok()).ok_or_else(|| Error::internal("a count gave no number"))
}

async fn physical(plan: LogicalPlan, state: &mut State, most: usize, tell: &Tell) -> Result<Arc<dyn ExecutionPlan>> {
    let optimized = optimized(plan, state, most, tell)?;
    executable(&optimized, state, most).await
}

fn optimized(plan: LogicalPlan, state: &mut State, most: usize, tell: &Tell) -> Result<LogicalPlan> {
    let optimized = match is_constant(&plan) {
        // Pools of connections ask so whether one is still good. All rules would be tried, and none has anything to do.
        true => plan,
        false => {
            let optimize = || state.session.optimizer().optimize(plan, &state.session, |_, _| {});
            bounds::with_constants_within(most / 4, optimize)?
        }
    };
    tell.reads(HERE, &optimized)?;
    // Not before: what is computed of literals alone is a literal by now.
    state.limit_batches(bounds::rows_within(&optimized, most / 4)?);
    Ok(optimized)
}

async fn executable(optimized: &LogicalPlan, state: &mut State, most: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = state.session.query_planner().create_physical_plan(optimized, &state.session).await?;
    state.limit_batches(bounds::rows_as_wide(plan.as_ref(), most)?);
    Ok(plan)
}

/// The plan's schema is what the client was told; an optimised plan may differ from it in nullability and metadata, and where
/// it has found a value to be a constant, in its type.
fn conform(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let broken = |cause| Error::internal("the answer does not have the columns that its plan promised").caused_by(cause);
    let column = |(column, field): (&ArrayRef, &FieldRef)| match column.data_type() == field.data_type() {
        true => Ok(Arc::clone(column)),
        false => exactly(column, field.data_type()),
    };
    let columns = batch.columns().iter().zip(schema.fields()).map(column).collect::<Result<_, _>>().map_err(broken)?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(broken)
}
