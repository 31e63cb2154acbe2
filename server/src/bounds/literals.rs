//! Large values that are written in a statement, or bound to it: wherever they stand they become a column of a whole batch.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// How many rows a batch can have so that the literals of a plan, in each of them, are at most `most` bytes.
pub fn rows_within(plan: &LogicalPlan, most: usize) -> Result<usize> {
    let mut total = 0;
    plan.apply_with_subqueries(|node| {
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
    Ok((most / total.max(1)).max(1))
}
