//! Windows whose frames reach to the end of a partition. DataFusion answers them when it has all partitions; here each is
//! answered when it is whole, and what is kept until then counts against the memory limit.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{concat, concat_batches, partition};
use arrow::datatypes::SchemaRef;
use datafusion::common::Statistics;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::physical_expr::OrderingRequirements;
use datafusion::physical_expr::window::{PlainAggregateWindowExpr, WindowExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::WindowAggExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::{StreamExt, stream};

use super::answers::shared_by;
use crate::bounds::{bytes, counted};

/// Puts these windows in the place of DataFusion's.
#[derive(Debug)]
pub struct WindowsByPartition;

impl PhysicalOptimizerRule for WindowsByPartition {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            if !node.as_any().is::<WindowAggExec>() {
                return Ok(Transformed::no(node));
            }
            Ok(Transformed::yes(Arc::new(ByPartition { window: node }) as Arc<dyn ExecutionPlan>))
        })
        .data()
    }

    fn name(&self) -> &str {
        "windows_by_partition"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A window of DataFusion's, executed otherwise.
#[derive(Debug)]
struct ByPartition {
    window: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for ByPartition {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.window.fmt_as(format, f)
    }
}

impl ExecutionPlan for ByPartition {
    fn name(&self) -> &str {
        "WindowsByPartition"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.window.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.window.children()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.window.maintains_input_order()
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        self.window.required_input_ordering()
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        self.window.required_input_distribution()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self { window: Arc::clone(&self.window).with_new_children(children)? }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(window) = self.window.as_any().downcast_ref::<WindowAggExec>() else {
            return self.window.execute(partition, context);
        };
        let input = window.input().execute(partition, Arc::clone(&context))?;
        let open = Open {
            windows: window.window_expr().to_vec(),
            schema: self.schema(),
            batches: Vec::new(),
            rows: 0,
            last: None,
            whole: 0,
            held: MemoryConsumer::new("windows").register(context.memory_pool()),
            pool: Arc::clone(context.memory_pool()),
        };
        let enough = context.session_config().batch_size();
        let answered = stream::try_unfold(Some((input, open)), move |running| async move {
            let Some((mut input, mut open)) = running else { return Ok(None) };
            while let Some(batch) = input.next().await {
                open.add(batch?)?;
                if open.whole >= enough {
                    let answered = open.answered()?;
                    return Ok(Some((answered, Some((input, open)))));
                }
            }
            open.whole = open.rows;
            Ok(if open.whole == 0 { None } else { Some((open.answered()?, None)) })
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), answered)))
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Statistics> {
        self.window.partition_statistics(partition)
    }
}

/// The partitions of a window that are not answered yet.
struct Open {
    windows: Vec<Arc<dyn WindowExpr>>,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    rows: usize,
    /// The keys of the last of them.
    last: Option<Vec<ArrayRef>>,
    /// The rows of those partitions that are known to be whole, since another has begun.
    whole: usize,
    held: MemoryReservation,
    pool: Arc<dyn MemoryPool>,
}

impl Open {
    fn add(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        // Once as they came, and once more joined.
        self.held.try_grow(2 * size(&batch))?;
        let keys = self.keys(&batch)?;
        // The last row before tells whether the first one belongs to its partition.
        let with_last = match &self.last {
            Some(last) => last.iter().zip(&keys).map(|(last, key)| Ok(concat(&[last, key])?)).collect::<Result<Vec<_>>>()?,
            None => keys.clone(),
        };
        let begins = ranges(&with_last, batch.num_rows())?.pop().map_or(0, |last| last.start);
        if begins > 0 {
            self.whole = self.rows + begins - usize::from(self.last.is_some());
        }
        self.last = Some(keys.iter().map(|key| key.slice(key.len() - 1, 1)).collect());
        self.rows += batch.num_rows();
        self.batches.push(batch);
        Ok(())
    }

    /// What tells the partitions apart.
    fn keys(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let keys = self.windows.first().map_or_else(Default::default, |window| window.partition_by());
        keys.iter().map(|key| key.evaluate(batch)?.into_array(batch.num_rows())).collect()
    }

    /// The whole partitions with their answers.
    fn answered(&mut self) -> Result<RecordBatch> {
        let schema = self.batches.first().map_or_else(|| Arc::clone(&self.schema), RecordBatch::schema);
        let all = concat_batches(&schema, &self.batches)?;
        let whole = all.slice(0, self.whole);
        let rest = all.slice(self.whole, self.rows - self.whole);
        let ranges = ranges(&self.keys(&whole)?, self.whole)?;
        let answers = self.windows.iter().map(|window| self.answers(window.as_ref(), &whole, &ranges));
        let columns = whole.columns().iter().cloned().map(Ok).chain(answers).collect::<Result<Vec<_>>>()?;
        let answered = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        (self.rows, self.whole) = (rest.num_rows(), 0);
        self.batches.clear();
        self.held.free();
        if self.rows > 0 {
            self.held.try_grow(2 * size(&rest))?;
            self.batches.push(rest);
        }
        Ok(answered)
    }

    fn answers(&self, window: &dyn WindowExpr, batch: &RecordBatch, partitions: &[Range<usize>]) -> Result<ArrayRef> {
        let is_one = has_one_answer(window);
        let answers = partitions.iter().map(|rows| {
            let partition = batch.slice(rows.start, rows.len());
            let answers = shared_by(if is_one { rows.len() } else { 1 }, || window.evaluate(&partition))?;
            counted(answers, &self.pool)
        });
        let answers = answers.collect::<Result<Vec<_>>>()?;
        match answers.as_slice() {
            [answers] => Ok(Arc::clone(answers)),
            answers => counted(concat(&answers.iter().map(AsRef::as_ref).collect::<Vec<_>>())?, &self.pool),
        }
    }
}

/// The rows of each partition.
fn ranges(keys: &[ArrayRef], rows: usize) -> Result<Vec<Range<usize>>> {
    if keys.is_empty() { Ok(vec![Range { start: 0, end: rows }]) } else { Ok(partition(keys)?.ranges()) }
}

fn size(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(bytes).sum()
}

/// Whether all rows of a partition have the same answer, which then is evaluated once.
fn has_one_answer(window: &dyn WindowExpr) -> bool {
    let frame = window.get_window_frame();
    let is_whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
    is_whole && window.as_any().is::<PlainAggregateWindowExpr>()
}
