//! `a IS NOT DISTINCT FROM b` between two tables. DataFusion makes it the key of a join to which NULL equals NULL, and then takes
//! in what `=` says in a condition above it: of that, NULL would equal NULL too. Here both sides are written so that `=` is right.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

/// Writes them so. It needs the types that the analysis gives.
#[derive(Debug)]
pub struct Distinct;

impl AnalyzerRule for Distinct {
    fn name(&self) -> &str {
        "distinct"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Filter(filter) if compares(&filter.predicate) => {
                let predicate = by_equality(filter.predicate, filter.input.schema())?;
                Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)))
            }
            LogicalPlan::Join(mut join) if join.filter.as_ref().is_some_and(compares) => {
                let schema = join.left.schema().join(join.right.schema())?;
                join.filter = join.filter.map(|filter| by_equality(filter, &schema)).transpose()?;
                Ok(Transformed::yes(LogicalPlan::Join(join)))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()
    }
}

fn compares(expr: &Expr) -> bool {
    let is_one = |expr: &Expr| matches!(expr, Expr::BinaryExpr(BinaryExpr { op: Operator::IsNotDistinctFrom, .. }));
    expr.exists(|expr| Ok(is_one(expr))).unwrap_or(false)
}

fn by_equality(predicate: Expr, schema: &DFSchema) -> Result<Expr> {
    let parts = split_conjunction_owned(predicate).into_iter().map(|part| match part {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::IsNotDistinctFrom, right })
            if named(&left) && named(&right) && left.get_type(schema)? == right.get_type(schema)? =>
        {
            let Ok(value) = ScalarValue::new_default(&left.get_type(schema)?) else {
                return Ok(Expr::BinaryExpr(BinaryExpr::new(left, Operator::IsNotDistinctFrom, right)));
            };
            let value = Expr::Literal(value, None);
            let nulls = left.clone().is_null().eq(right.clone().is_null());
            Ok(coalesce(vec![*left, value.clone()]).eq(coalesce(vec![*right, value])).and(nulls))
        }
        other => Ok(other),
    });
    let parts = parts.collect::<Result<Vec<_>>>()?;
    Ok(conjunction(parts).unwrap_or_else(|| Expr::Literal(ScalarValue::Boolean(Some(true)), None)))
}

/// Whether an expression may be the key of a join.
fn named(expr: &Expr) -> bool {
    !expr.column_refs().is_empty() || expr.contains_outer()
}
