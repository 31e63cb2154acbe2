//! The node of a plan whose rows come from elsewhere as one stream, and what is measured of them.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::TryStreamExt;
use futures::stream::{self, BoxStream};

use crate::error::Result;

/// What is read elsewhere for a plan, by one query or statement.
pub trait Scan: fmt::Debug + Send + Sync + 'static {
    /// What its node of a plan is called.
    const NAME: &'static str;

    /// What the plan shows behind that name: one line, as a rule the text that is sent. Whoever may see the plan reads it.
    fn detail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// The batches of one run, of the schema of the node. What runs elsewhere begins when the first one is asked for, and ends
    /// when the stream is dropped. Errors: those of the source.
    fn read(&self, task: &TaskContext) -> BoxStream<'static, Result<RecordBatch>>;
}

/// The node: it has no input and one partition. As metrics it has its rows, and how long they were waited for.
#[derive(Debug)]
pub struct ScanExec<S> {
    scan: S,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl<S: Scan> ScanExec<S> {
    /// The node of a scan whose batches have this schema.
    pub fn new(scan: S, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { scan, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl<S: Scan> DisplayAs for ScanExec<S> {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", S::NAME)?;
        self.scan.detail(f)
    }
}

impl<S: Scan> ExecutionPlan for ScanExec<S> {
    fn name(&self) -> &'static str {
        S::NAME
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
        let count = MetricBuilder::new(&self.metrics).output_rows(partition);
        // Of the clock, and not of the processor: most of it is spent elsewhere.
        let elapsed = MetricBuilder::new(&self.metrics).subset_time("time_elapsed_reading", partition);
        let state = (self.scan.read(&task), count, elapsed);
        let batches = stream::try_unfold(state, |(mut batches, count, elapsed)| async move {
            let started = Instant::now();
            let batch = batches.try_next().await?;
            elapsed.add_elapsed(started);
            Ok::<_, DataFusionError>(batch.map(|batch| {
                count.add(batch.num_rows());
                (batch, (batches, count, elapsed))
            }))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::physical_plan::displayable;
    use futures::StreamExt;

    use super::*;
    use crate::error::{Error, Kind};

    /// Two rows, and then an error.
    #[derive(Debug)]
    struct Breaks(SchemaRef);

    impl Scan for Breaks {
        const NAME: &'static str = "BreaksScan";

        fn detail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("SELECT id")
        }

        fn read(&self, _task: &TaskContext) -> BoxStream<'static, Result<RecordBatch>> {
            let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
            let batch = RecordBatch::try_new(Arc::clone(&self.0), vec![ids]).unwrap();
            stream::iter([Ok(batch), Err(Error::data("no more"))]).boxed()
        }
    }

    #[tokio::test]
    async fn rows_are_counted_and_an_error_is_that_of_the_source() {
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
        let node = ScanExec::new(Breaks(Arc::clone(&schema)), schema);
        assert_eq!(displayable(&node).one_line().to_string().trim(), "BreaksScan: SELECT id");
        let mut batches = node.execute(0, Arc::new(TaskContext::default())).unwrap();
        assert_eq!(batches.next().await.unwrap().unwrap().num_rows(), 2);
        let error = Error::from(batches.next().await.unwrap().unwrap_err());
        assert_eq!((error.kind(), error.message()), (Kind::Data, "no more"));
        let metrics = node.metrics().unwrap();
        assert_eq!(metrics.output_rows(), Some(2));
        assert!(metrics.sum_by_name("time_elapsed_reading").is_some_and(|time| time.as_usize() > 0));
    }
}
