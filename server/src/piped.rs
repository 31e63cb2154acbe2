//! A node of a physical plan that passes the batches of another on through a function, row by row in order.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::Statistics;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::Distribution;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream};
use futures::stream::BoxStream;

/// What a node does with the batches of its input: all their rows come out in the order that they came in.
pub trait Pipe: fmt::Debug + Send + Sync {
    /// The name of the node in a plan.
    fn name(&self) -> &'static str;

    /// What is known of the node, given what is known of its input.
    fn properties(&self, input: &Arc<PlanProperties>) -> Arc<PlanProperties> {
        Arc::clone(input)
    }

    /// What of the input has to be in one partition.
    fn needs(&self) -> Distribution {
        Distribution::UnspecifiedDistribution
    }

    /// What is known of the rows, given what is known of those that come in.
    fn statistics(&self, input: Statistics) -> Statistics {
        input
    }

    /// The batches of one partition.
    fn pass(self: Arc<Self>, input: SendableRecordBatchStream, context: &TaskContext) -> BoxStream<'static, Result<RecordBatch>>;
}

/// A pipe in its place.
#[derive(Debug)]
pub struct Piped<P> {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    pipe: Arc<P>,
}

impl<P: Pipe + 'static> Piped<P> {
    /// A pipe behind an input.
    pub fn new(input: Arc<dyn ExecutionPlan>, pipe: Arc<P>) -> Self {
        let properties = pipe.properties(input.properties());
        Self { input, properties, pipe }
    }
}

impl<P: Pipe> DisplayAs for Piped<P> {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.pipe.name())
    }
}

impl<P: Pipe + 'static> ExecutionPlan for Piped<P> {
    fn name(&self) -> &str {
        self.pipe.name()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![self.pipe.needs()]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(Self::new(input, Arc::clone(&self.pipe))))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let batches = Arc::clone(&self.pipe).pass(input, &context);
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Statistics> {
        Ok(self.pipe.statistics(self.input.partition_statistics(partition)?))
    }
}
