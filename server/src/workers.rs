//! The threads on which statements are planned and run: apart from those of the protocols, so that a busy statement never
//! keeps a client, a health check or a Ctrl-C waiting.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result as DataFusionResult;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use futures::{StreamExt, stream};
use nexus_flight_catalog::{Error, Result};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::query::Batches;

/// Batches on their way between the threads: one to send while the next one is made.
const AHEAD: usize = 2;

/// The threads that statements run on.
#[derive(Debug, Clone)]
pub struct Workers(pub Handle);

impl Workers {
    /// Does a piece of work on them. Dropping the future ends the work at its next pause.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let task = AbortOnDropHandle::new(self.0.spawn(work));
        task.await.unwrap_or_else(|error| Err(Error::internal("a statement ended early").caused_by(error)))
    }

    /// The same batches, made on them and only a few ahead of the reader. Dropping the stream ends the work at its next pause.
    pub fn stream(&self, mut batches: Batches) -> Batches {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let task = AbortOnDropHandle::new(self.0.spawn(async move {
            while let Some(batch) = batches.next().await {
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
        }));
        let state = (receiver, Some(task));
        stream::unfold(state, |(mut receiver, mut task)| async move {
            if let Some(batch) = receiver.recv().await {
                return Some((batch, (receiver, task)));
            }
            // A task that panicked has not sent all there is, which must not pass for the end.
            match task.take()?.await {
                Ok(()) => None,
                Err(error) => Some((Err(Error::internal("a statement ended early").caused_by(error)), (receiver, None))),
            }
        })
        .boxed()
    }
}

/// Makes joins pause now and then. Each input batch of a join may become any number of output batches, and between those
/// nothing of DataFusion's own pauses: a large cross join would neither let others run nor notice that it is no longer wanted.
#[derive(Debug)]
pub struct PausingJoins;

impl PhysicalOptimizerRule for PausingJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let any = node.as_any();
            let multiplies = any.is::<CrossJoinExec>()
                || any.is::<NestedLoopJoinExec>()
                || any.is::<HashJoinExec>()
                || any.is::<SortMergeJoinExec>();
            if !multiplies {
                return Ok(Transformed::no(node));
            }
            Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>))
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
