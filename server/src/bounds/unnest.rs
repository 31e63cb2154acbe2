//! Lists that become rows. All that a batch of lists holds becomes one batch, with the other columns beside each item; so the
//! batch is cut into runs of rows before.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::unnest::{ListUnnest, UnnestExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use nexus_flight_catalog::Error;

use super::measure::{Measured, lengths, runs};
use super::shown;
use crate::piped::{Pipe, Piped};

/// Cuts what goes into an unnest, so that what comes out is about a batch, and refuses a row that alone becomes too much.
#[derive(Debug)]
pub struct NarrowUnnest {
    /// The most bytes that one row may become.
    pub most: usize,
}

impl PhysicalOptimizerRule for NarrowUnnest {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(unnest) = node.as_any().downcast_ref::<UnnestExec>() else { return Ok(Transformed::no(node)) };
            let lists = unnest.list_column_indices().to_vec();
            let narrow = Piped::new(Arc::clone(unnest.input()), Arc::new(Narrow { lists, most: self.most }));
            Ok(Transformed::yes(Arc::clone(&node).with_new_children(vec![Arc::new(narrow)])?))
        })
        .data()
    }

    fn name(&self) -> &str {
        "narrow_unnest"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Narrow {
    lists: Vec<ListUnnest>,
    most: usize,
}

impl Narrow {
    fn pieces(&self, batch: &RecordBatch, rows: usize) -> Result<Vec<RecordBatch>> {
        let counts = self.counts(batch)?;
        let is_list = |column: usize| self.lists.iter().any(|list| list.index_in_input_schema == column);
        let columns = batch.columns().iter().enumerate();
        // What is unnested counts for each of its items.
        let sizes = columns.map(|(column, array)| Ok((is_list(column), Measured::of(array)?))).collect::<Result<Vec<_>>>()?;
        for (row, count) in counts.iter().enumerate() {
            let width = sizes.iter().fold(0_i128, |width, (is_list, measured)| {
                width.saturating_add(if *is_list { measured.item() } else { measured.bytes(row) })
            });
            let size = count.saturating_mul(width);
            if size > self.most as i128 {
                let (size, most) = (shown(size.unsigned_abs()), shown(self.most as u128));
                let message = format!("a row would become {count} rows with {size} at once by unnest, the limit is {most}");
                return Err(Error::exhausted(message)
                    .with_hint("select fewer columns beside it, unnest shorter lists, or raise limits.memory")
                    .with_retryable(false)
                    .into());
            }
        }
        Ok(runs(&counts, rows as i128).into_iter().map(|run| batch.slice(run.start, run.len())).collect())
    }

    /// How many rows each row becomes, at the most.
    fn counts(&self, batch: &RecordBatch) -> Result<Vec<i128>> {
        let depths_differ = self.lists.windows(2).any(|pair| matches!(pair, [a, b] if a.depth != b.depth));
        let mut counts = vec![1_i128; batch.num_rows()];
        for list in &self.lists {
            let items = items(batch.column(list.index_in_input_schema), list.depth)?;
            for (count, items) in counts.iter_mut().zip(items) {
                // Lists beside one another are walked together; one in another is walked for each item of the outer.
                *count = if depths_differ { count.saturating_mul(items.max(1)) } else { (*count).max(items) };
            }
        }
        Ok(counts)
    }
}

/// How many items the list of each row has, `depth` lists down.
fn items(lists: &ArrayRef, depth: usize) -> Result<Vec<i128>> {
    if depth <= 1 {
        return lengths(lists);
    }
    let (inner, starts): (&ArrayRef, Vec<usize>) = match lists.data_type() {
        DataType::List(_) => {
            let lists = lists.as_list::<i32>();
            (lists.values(), lists.value_offsets().iter().map(|offset| *offset as usize).collect())
        }
        DataType::LargeList(_) => {
            let lists = lists.as_list::<i64>();
            (lists.values(), lists.value_offsets().iter().map(|offset| *offset as usize).collect())
        }
        _ => {
            let lists = lists.as_fixed_size_list();
            let size = lists.value_length() as usize;
            (lists.values(), (0..=lists.len()).map(|row| row * size).collect())
        }
    };
    let inner = items(inner, depth - 1)?;
    let within = |pair: &[usize]| match pair {
        [start, end] => inner.get(*start..*end).unwrap_or_default().iter().map(|items| (*items).max(1)).sum(),
        _ => 0,
    };
    Ok(starts.windows(2).map(within).collect())
}

impl Pipe for Narrow {
    fn name(&self) -> &'static str {
        "Narrow"
    }

    fn pass(self: Arc<Self>, input: SendableRecordBatchStream, context: &TaskContext) -> BoxStream<'static, Result<RecordBatch>> {
        let rows = context.session_config().batch_size();
        let pieces = move |batch| Ok::<_, DataFusionError>(stream::iter(self.pieces(&batch?, rows)?).map(Ok));
        input.map(pieces).try_flatten().boxed()
    }
}
