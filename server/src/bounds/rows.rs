//! How many rows a batch can have. Wide rows make large batches, which operators put together again where a source cuts them.
//! Large values that are written in a statement, or bound to it, become a column of a whole batch wherever they stand; and each
//! of many columns takes memory for every row.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_plan::ExecutionPlan;

/// The values of a batch, in all its columns together.
const CELLS: usize = 1 << 20;

/// How many rows a batch can have so that the literals of a plan, in each of them, are at most `most` bytes, and that it is
/// not too wide for so many.
pub fn rows_within(plan: &LogicalPlan, most: usize) -> Result<usize> {
    let (mut total, mut widest) = (0, 1);
    plan.apply_with_subqueries(|node| {
        widest = widest.max(node.schema().fields().len());
        // Those of VALUES stand in one row each.
        if !matches!(node, LogicalPlan::Values(_)) {
            node.apply_expressions(|expr| {
                expr.apply(|expr| {
                    match expr {
                        Expr::Literal(value, _) => total += value.size(),
                        // Of a list one is looked for in all of it, and none becomes a column.
                        Expr::InList(_) => return Ok(TreeNodeRecursion::Jump),
                        _ => {}
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok((most / total.max(1)).min(CELLS / widest).max(1))
}

/// How many rows a batch can have so that it is at most `most` bytes, by what is known of the rows that the plan reads.
pub fn rows_as_wide(plan: &dyn ExecutionPlan, most: usize) -> Result<usize> {
    let mut rows = usize::MAX;
    let mut open = vec![plan];
    while let Some(node) = open.pop() {
        let inputs = node.children();
        if inputs.is_empty() {
            let known = node.partition_statistics(None)?;
            if let (Some(count), Some(bytes)) = (known.num_rows.get_value(), known.total_byte_size.get_value()) {
                rows = rows.min(most / (bytes / (*count).max(1)).max(1));
            }
        }
        open.extend(inputs.into_iter().map(AsRef::as_ref));
    }
    Ok(rows.max(1))
}
