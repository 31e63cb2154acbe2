//! Queries that refer to themselves. DataFusion leaves columns out of their two parts that nothing after them names, although
//! the second part reads them of the first.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::{TableProvider, provider_as_source, source_as_provider};
use datafusion::error::Result;
use datafusion::logical_expr::{LogicalPlan, RecursiveQuery, SubqueryAlias, TableSource};
use datafusion::optimizer::AnalyzerRule;

/// What the optimizer takes for a sub-query, and a recursive query with one it leaves as it is.
const NAME: &str = "first part";

/// Keeps all columns of recursive queries.
#[derive(Debug)]
pub struct WholeRecursion;

impl AnalyzerRule for WholeRecursion {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let mut count = 0;
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::RecursiveQuery(query) => {
                count += 1;
                // A name that no table has: one that reads a table of its name passes for a reference to itself.
                let name = format!("{} (recursive {count})", query.name);
                let first = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::clone(&query.static_term), NAME)?);
                let second = renamed(&query, &name)?;
                let (static_term, recursive_term) = (Arc::new(first), Arc::new(second));
                let query = RecursiveQuery { name, static_term, recursive_term, is_distinct: query.is_distinct };
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

/// The second part of a recursive query, reading the rows before it under another name. What its columns are called stays.
fn renamed(query: &RecursiveQuery, name: &str) -> Result<LogicalPlan> {
    let own = |source: &Arc<dyn TableSource>| {
        let provider = source_as_provider(source).ok()?;
        let own = provider.as_any().downcast_ref::<CteWorkTable>().filter(|table| table.name() == query.name)?;
        Some(provider_as_source(Arc::new(CteWorkTable::new(name, TableProvider::schema(own)))))
    };
    LogicalPlan::clone(&query.recursive_term)
        .transform_up_with_subqueries(|node| match node {
            LogicalPlan::TableScan(mut scan) => {
                if let Some(source) = own(&scan.source) {
                    scan.source = source;
                }
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()
}
