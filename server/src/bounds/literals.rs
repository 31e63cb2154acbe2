//! How many rows a batch can have. Large values that are written in a statement, or bound to it, become a column of a whole
//! batch wherever they stand; and each of many columns takes memory for every row.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};

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
