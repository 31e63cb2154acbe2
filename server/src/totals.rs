//! `GROUP BY ROLLUP`, `CUBE` and `GROUPING SETS` (ISO/IEC 9075-2, group by clause). The total of no rows is a row as well, which
//! DataFusion leaves out; and of two equal sets each has rows of its own, where it would count all rows twice.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{ScalarValue, Statistics};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::Distribution;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use nexus_flight_catalog::Error;

use crate::piped::{Pipe, Piped};

/// Puts the total after each aggregate that is to have one.
#[derive(Debug)]
pub struct GrandTotals;

impl PhysicalOptimizerRule for GrandTotals {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| match node.as_any().downcast_ref::<AggregateExec>().and_then(sets) {
            None => Ok(Transformed::no(node)),
            Some((aggregate, sets)) => {
                let groups = sets.groups();
                if groups.iter().enumerate().any(|(index, set)| groups.iter().skip(index + 1).any(|other| other == set)) {
                    return Err(Error::unsupported("one grouping set twice in a GROUP BY is not offered")
                        .with_hint("leave one of them out, or unite two queries by UNION ALL")
                        .into());
                }
                if !groups.iter().any(|set| set.iter().all(|is_left_out| *is_left_out)) {
                    return Ok(Transformed::no(node));
                }
                let total = GrandTotal { columns: sets.expr().len(), calls: aggregate.aggr_expr().to_vec() };
                Ok(Transformed::yes(Arc::new(Piped::new(node, Arc::new(total))) as Arc<dyn ExecutionPlan>))
            }
        })
        .data()
    }

    fn name(&self) -> &str {
        "grand_totals"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The grouping sets of an aggregate that gives the answer, and not a part of it.
fn sets(aggregate: &AggregateExec) -> Option<(&AggregateExec, &PhysicalGroupBy)> {
    let by = match aggregate.mode() {
        AggregateMode::Partial => return None,
        AggregateMode::Single | AggregateMode::SinglePartitioned => aggregate.group_expr(),
        _ => aggregate.input().as_any().downcast_ref::<AggregateExec>()?.group_expr(),
    };
    by.has_grouping_set().then_some((aggregate, by))
}

/// The total of no rows, where no row comes.
#[derive(Debug)]
struct GrandTotal {
    /// How many columns are grouped by.
    columns: usize,
    calls: Vec<Arc<AggregateFunctionExpr>>,
}

impl GrandTotal {
    fn of_no_rows(&self, schema: SchemaRef) -> Result<RecordBatch> {
        let before = schema.fields().len().saturating_sub(self.calls.len());
        let groups = schema.fields().iter().take(before).enumerate().map(|(index, field)| match index < self.columns {
            true => ScalarValue::try_new_null(field.data_type()),
            // Which columns are left out of the group, a bit each: all.
            false => ScalarValue::UInt64(Some((1_u64 << self.columns.min(63)) - 1)).cast_to(field.data_type()),
        });
        let calls = self.calls.iter().map(|call| call.create_accumulator()?.evaluate());
        let values = groups.chain(calls).map(|value| value?.to_array_of_size(1)).collect::<Result<Vec<ArrayRef>>>()?;
        Ok(RecordBatch::try_new(schema, values)?)
    }
}

impl Pipe for GrandTotal {
    fn name(&self) -> &'static str {
        "GrandTotal"
    }

    fn needs(&self) -> Distribution {
        Distribution::SinglePartition
    }

    /// There may be one row more.
    fn statistics(&self, input: Statistics) -> Statistics {
        Statistics { num_rows: Precision::Absent, total_byte_size: Precision::Absent, ..input.to_inexact() }
    }

    fn pass(
        self: Arc<Self>,
        input: SendableRecordBatchStream,
        _context: &TaskContext,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let schema = input.schema();
        let input = input.try_filter(|batch| std::future::ready(batch.num_rows() > 0));
        stream::once(async move {
            let mut input = Box::pin(input.peekable());
            match input.as_mut().peek().await {
                Some(_) => input.boxed(),
                None => stream::iter([self.of_no_rows(schema)]).boxed(),
            }
        })
        .flatten()
        .boxed()
    }
}
