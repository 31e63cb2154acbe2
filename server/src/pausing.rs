//! Joins that pause now and then. Each input batch of a join may become any number of output batches, and between those
//! nothing of DataFusion's own pauses: a large cross join would neither let others run nor notice that it is no longer wanted.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use arrow::array::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::{ExecutionPlan, PlanProperties, SendableRecordBatchStream};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::task::coop;

use crate::piped::{Pipe, Piped};

/// Puts a pause after each join of a plan.
#[derive(Debug)]
pub struct PausingJoins;

impl PhysicalOptimizerRule for PausingJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let any = node.as_any();
            let multiplies = any.is::<CrossJoinExec>()
                || any.is::<NestedLoopJoinExec>()
                || any.is::<HashJoinExec>()
                || any.is::<SortMergeJoinExec>();
            if !multiplies {
                return Ok(Transformed::no(node));
            }
            Ok(Transformed::yes(Arc::new(Piped::new(node, Arc::new(Pausing))) as Arc<dyn ExecutionPlan>))
        })
        .data()
    }

    fn name(&self) -> &str {
        "pausing_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Passes batches on, and pauses when the share of the task in its thread is used up.
///
/// Unlike `CooperativeExec`, it takes from the share after a batch and not before: of more than 128 of those within one
/// another, the outermost take the whole share on the way in, each time anew, and the innermost is never reached.
#[derive(Debug)]
struct Pausing;

impl Pipe for Pausing {
    fn name(&self) -> &'static str {
        "Pausing"
    }

    fn properties(&self, input: &Arc<PlanProperties>) -> Arc<PlanProperties> {
        Arc::new(PlanProperties::clone(input).with_scheduling_type(SchedulingType::Cooperative))
    }

    fn pass(
        self: Arc<Self>,
        mut input: SendableRecordBatchStream,
        _context: &TaskContext,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        stream::poll_fn(move |cx| {
            if !coop::has_budget_remaining() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let batch = ready!(input.poll_next_unpin(cx));
            // The batch goes on even where nothing of the share is left to take.
            let _taken = pin!(coop::consume_budget()).poll(cx);
            Poll::Ready(batch)
        })
        .boxed()
    }
}
