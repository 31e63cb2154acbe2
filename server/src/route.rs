//! Where a planned statement runs. Today there is one place: DataFusion, here.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{StreamExt, TryStreamExt};
use nexus_flight_catalog::{Error, Result};

use crate::bounds;
use crate::config::Limits;
use crate::layers::Run;
use crate::plan::Planned;
use crate::query::{Answer, CacheUse};
use crate::state::State;

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
        let Planned { query: _, schema, plan, tables: _, mut state } = planned;
        let plan = physical(plan, &mut state, self.most).await?;
        let stream = execute_stream(plan, Arc::new(state.into_task()))?;
        let shape = Arc::clone(&schema);
        let batches = stream.map_err(Error::from).map(move |batch| conform(batch?, &shape)).boxed();
        Ok(Answer { schema, batches, cache: CacheUse::Bypass })
    }
}

async fn physical(plan: LogicalPlan, state: &mut State, most: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let optimized = match plan {
        // The optimizer shows its work for this one.
        explain @ LogicalPlan::Explain(_) => state.session.optimize(&explain)?,
        plan => state.session.optimizer().optimize(plan, &state.session, |_, _| {})?,
    };
    // Not before: what is computed of literals alone is a literal by now.
    state.limit_batches(bounds::rows_within(&optimized, most)?);
    Ok(state.session.query_planner().create_physical_plan(&optimized, &state.session).await?)
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
