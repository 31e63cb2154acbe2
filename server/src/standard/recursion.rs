//! Queries that refer to themselves. DataFusion leaves columns out of their two parts that nothing after them names, although
//! the second part reads them of the first.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::error::Result;
use datafusion::logical_expr::{LogicalPlan, RecursiveQuery, SubqueryAlias};
use datafusion::optimizer::AnalyzerRule;

/// What the optimizer takes for a sub-query, and a recursive query with one it leaves as it is.
const NAME: &str = "first part";

/// Keeps all columns of recursive queries.
#[derive(Debug)]
pub struct WholeRecursion;

impl AnalyzerRule for WholeRecursion {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::RecursiveQuery(query) => {
                let named = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::clone(&query.static_term), NAME)?);
                let query = RecursiveQuery { static_term: Arc::new(named), ..query };
                Ok(Transformed::yes(LogicalPlan::RecursiveQuery(query)))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()
    }

    fn name(&self) -> &str {
        "whole_recursion"
    }
}
