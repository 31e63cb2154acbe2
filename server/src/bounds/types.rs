//! Sizes that a statement writes into a type or an argument, of which even a NULL, or a group without rows, takes the memory.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion::logical_expr::{Cast, Expr, LogicalPlan, TryCast};
use nexus_flight_catalog::{Error, Result};

/// The most that a fixed size may be: bytes of binary, items of a list, centroids of an approximate percentile.
const MOST: i64 = 100_000;

/// Errors: `Exhausted` where a plan writes a size above the bound, `Invalid` where it is negative.
pub fn refuse_sizes(plan: &LogicalPlan) -> Result<()> {
    let mut error = Ok(());
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                error = refuse(expr);
                Ok(if error.is_ok() { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
            })
        })
    })?;
    error
}

fn refuse(expr: &Expr) -> Result<()> {
    match expr {
        Expr::Cast(Cast { data_type, .. }) | Expr::TryCast(TryCast { data_type, .. }) => sized(data_type),
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name().starts_with("arrow_") => match args.get(1) {
            // One that is no type is told by the function itself.
            Some(Expr::Literal(ScalarValue::Utf8(Some(text)), _)) => text.parse().map_or(Ok(()), |data_type| sized(&data_type)),
            _ => Ok(()),
        },
        Expr::AggregateFunction(AggregateFunction { func, params }) if func.name().starts_with("approx_percentile") => {
            params.args.iter().try_for_each(|arg| match arg {
                Expr::Literal(ScalarValue::Int64(Some(size)), _) => bounded(*size),
                _ => Ok(()),
            })
        }
        _ => Ok(()),
    }
}

fn sized(data_type: &DataType) -> Result<()> {
    all_within(data_type).into_iter().try_for_each(|data_type| match data_type {
        DataType::FixedSizeBinary(size) | DataType::FixedSizeList(_, size) => bounded((*size).into()),
        _ => Ok(()),
    })
}

/// All types that a type is made of, itself first.
pub fn all_within(data_type: &DataType) -> Vec<&DataType> {
    use DataType::{Dictionary, FixedSizeList, LargeList, LargeListView, List, ListView, Map, RunEndEncoded, Struct, Union};
    let (mut open, mut all) = (vec![data_type], Vec::new());
    while let Some(next) = open.pop() {
        all.push(next);
        match next {
            List(item)
            | LargeList(item)
            | ListView(item)
            | LargeListView(item)
            | FixedSizeList(item, _)
            | Map(item, _)
            | RunEndEncoded(_, item) => open.push(item.data_type()),
            Dictionary(_, values) => open.push(values),
            Struct(fields) => open.extend(fields.iter().rev().map(|field| field.data_type())),
            Union(fields, _) => open.extend(fields.iter().map(|(_, field)| field.data_type())),
            _ => {}
        }
    }
    all
}

fn bounded(size: i64) -> Result<()> {
    match size {
        ..0 => Err(Error::invalid(format!("{size} is no size")).with_hint("a size is not negative")),
        0..=MOST => Ok(()),
        _ => Err(Error::exhausted(format!("the size {size} is more than {MOST}"))
            .with_hint("use a type without a fixed size, or a smaller one")
            .with_retryable(false)),
    }
}
