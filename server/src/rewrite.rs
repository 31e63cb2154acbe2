//! Rewrites of the expressions of a plan, that keep the names of its columns.

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// The plan with each expression of each node, and those of its sub-queries, as `rewrite` makes it of the expression and the
/// columns that it can name. `after` gets each node from the bottom up, since what lies beneath may have other types by then.
pub fn expressions(
    plan: LogicalPlan,
    rewrite: impl Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
    after: impl Fn(LogicalPlan) -> Result<LogicalPlan>,
) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let mut schema = DFSchema::empty();
        node.inputs().iter().for_each(|input| schema.merge(input.schema()));
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| named(expr, &names, &mut |expr| rewrite(expr, &schema)))?;
        node.map_data(&after)
    })
    .data()
}

/// The expression of a node as `rewrite` makes it, under the name that it had. Of a grouping set each part has a name.
pub fn named(
    expr: Expr,
    names: &NamePreserver,
    rewrite: &mut dyn FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<Expr>> {
    if matches!(expr, Expr::GroupingSet(_)) {
        return expr.map_children(|part| named(part, names, rewrite));
    }
    let name = names.save(&expr);
    Ok(rewrite(expr)?.update_data(|expr| name.restore(expr)))
}
