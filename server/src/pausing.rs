//! Joins that pause now and then. Each input batch of a join may become any number of output batches, and between those
//! nothing of DataFusion's own pauses: a large cross join would neither let others run nor notice that it is no longer wanted.

use std::any::Any;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use datafusion::common::Statistics;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream};
use futures::{StreamExt, stream};
use tokio::task::coop;

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
            Ok(Transformed::yes(Arc::new(Pausing::new(node)) as Arc<dyn ExecutionPlan>))
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
struct Pausing {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl Pausing {
    fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::clone(input.properties()).with_scheduling_type(SchedulingType::Cooperative);
        Self { input, properties: Arc::new(properties) }
    }
}

impl DisplayAs for Pausing {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pausing")
    }
}

impl ExecutionPlan for Pausing {
    fn name(&self) -> &str {
        "Pausing"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(Self::new(input)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut input = self.input.execute(partition, context)?;
        let pausing = stream::poll_fn(move |cx| {
            if !coop::has_budget_remaining() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let batch = ready!(input.poll_next_unpin(cx));
            // The batch goes on even where nothing of the share is left to take.
            let _taken = pin!(coop::consume_budget()).poll(cx);
            Poll::Ready(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), pausing)))
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Statistics> {
        self.input.partition_statistics(partition)
    }
}
