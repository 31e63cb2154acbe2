//! A scalar sub-query gives one row or none. DataFusion joins whatever rows it gives; the standard makes more than one an
//! error (ISO/IEC 9075-2, scalar subquery: cardinality violation), and so do we.

use std::mem::size_of;
use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::nullif;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, LogicalPlan, LogicalPlanBuilder, Signature, Subquery, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use nexus_flight_catalog::Error;

use crate::rewrite;

/// Puts the check into every scalar sub-query that might give several rows.
#[derive(Debug)]
pub struct SingleRow;

impl AnalyzerRule for SingleRow {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let settled = |expr: Expr, _: &DFSchema| {
            expr.transform_up(|expr| match expr {
                Expr::ScalarSubquery(subquery) if may_be_many(&subquery) => {
                    Ok(Transformed::yes(Expr::ScalarSubquery(checked(subquery)?)))
                }
                Expr::ScalarSubquery(subquery) if seems_never_null(&subquery) => {
                    Ok(Transformed::yes(Expr::ScalarSubquery(perhaps_null(subquery)?)))
                }
                other => Ok(Transformed::no(other)),
            })
        };
        rewrite::expressions(plan, settled, LogicalPlan::recompute_schema)
    }

    fn name(&self) -> &str {
        "single_row"
    }
}

/// A correlated one must be an aggregate for DataFusion to take it at all.
fn may_be_many(subquery: &Subquery) -> bool {
    subquery.outer_ref_columns.is_empty() && most_rows(&subquery.subquery).is_none_or(|rows| rows > 1)
}

/// It may have no row, and then it is NULL, whatever its column is.
fn seems_never_null(subquery: &Subquery) -> bool {
    let plan = &subquery.subquery;
    plan.schema().fields().first().is_some_and(|field| !field.is_nullable()) && !always_has_a_row(plan)
}

fn always_has_a_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(node) => node.produce_one_row,
        LogicalPlan::Values(node) => !node.values.is_empty(),
        LogicalPlan::Aggregate(node) => node.group_expr.is_empty(),
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Sort(_) => {
            plan.inputs().into_iter().next().is_some_and(always_has_a_row)
        }
        _ => false,
    }
}

/// The same values, which DataFusion takes for such as may be NULL.
fn perhaps_null(subquery: Subquery) -> Result<Subquery> {
    let plan = Arc::unwrap_or_clone(subquery.subquery);
    let columns = plan.schema().iter().map(|(qualifier, field)| {
        let (column, null) =
            (Expr::Column(Column::new(qualifier.cloned(), field.name())), ScalarValue::try_new_null(field.data_type())?);
        // Another name: the columns beneath may have to be named beside it.
        Ok(nullif(column, Expr::Literal(null, None)).alias(format!("perhaps {}", field.name())))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let plan = LogicalPlanBuilder::from(plan).project(columns)?.build()?;
    Ok(Subquery { subquery: Arc::new(plan), ..subquery })
}

/// How many rows a plan can give at the most, if that is plain to see. DataFusion's own `max_rows` has none for a `SELECT`
/// without `FROM`, which has one.
fn most_rows(plan: &LogicalPlan) -> Option<usize> {
    match plan {
        LogicalPlan::EmptyRelation(node) => Some(usize::from(node.produce_one_row)),
        LogicalPlan::Values(node) => Some(node.values.len()),
        LogicalPlan::Aggregate(node) if node.group_expr.is_empty() => Some(1),
        LogicalPlan::Limit(_) => plan.max_rows(),
        LogicalPlan::Union(node) => node.inputs.iter().map(|input| most_rows(input)).sum(),
        LogicalPlan::Projection(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Distinct(_) => plan.inputs().into_iter().next().and_then(most_rows),
        _ => None,
    }
}

fn checked(subquery: Subquery) -> Result<Subquery> {
    let plan = Arc::unwrap_or_clone(subquery.subquery);
    let Some((qualifier, field)) = plan.schema().iter().next().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)))
    else {
        return Ok(Subquery { subquery: Arc::new(plan), ..subquery });
    };
    let column = Expr::Column(Column::new(qualifier.clone(), field.name()));
    let call = AggregateFunction::new_udf(Arc::clone(&SINGLE_VALUE), vec![column], false, None, vec![], None);
    let plan = LogicalPlanBuilder::from(plan).aggregate(Vec::<Expr>::new(), vec![Expr::AggregateFunction(call)])?;
    let value = plan.schema().columns().into_iter().next().map(Expr::Column);
    let plan = plan.project(value.map(|value| value.alias_qualified(qualifier, field.name())))?.build()?;
    Ok(Subquery { subquery: Arc::new(plan), ..subquery })
}

static SINGLE_VALUE: LazyLock<Arc<AggregateUDF>> =
    LazyLock::new(|| Arc::new(AggregateUDF::from(SingleValue { signature: Signature::any(1, Volatility::Immutable) })));

/// The value of the only row, NULL where there is none, an error where there are more.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleValue {
    signature: Signature,
}

impl AggregateUDFImpl for SingleValue {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn name(&self) -> &str {
        "single_value"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments.first().cloned().unwrap_or(DataType::Null))
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Single { value: ScalarValue::try_new_null(arguments.return_type())?, rows: 0 }))
    }

    fn state_fields(
        &self,
        arguments: datafusion::logical_expr::function::StateFieldsArgs<'_>,
    ) -> Result<Vec<arrow::datatypes::FieldRef>> {
        let value = arguments.return_field.as_ref().clone().with_name("value").with_nullable(true);
        let rows = arrow::datatypes::Field::new("rows", DataType::UInt64, false);
        Ok(vec![Arc::new(value), Arc::new(rows)])
    }
}

#[derive(Debug)]
struct Single {
    value: ScalarValue,
    rows: u64,
}

impl Single {
    fn add(&mut self, rows: u64, value: impl FnOnce() -> Result<ScalarValue>) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        self.rows += rows;
        if self.rows > 1 {
            return Err(Error::invalid("a sub-query that stands for one value gave more than one row")
                .with_hint("add LIMIT 1 or an aggregate, or use IN or EXISTS")
                .into());
        }
        self.value = value()?;
        Ok(())
    }
}

impl Accumulator for Single {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values.iter().try_for_each(|values| self.add(values.len() as u64, || ScalarValue::try_from_array(values, 0)))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [values, counts] = states else { return Ok(()) };
        (0..values.len()).try_for_each(|row| {
            let rows = match ScalarValue::try_from_array(counts, row)? {
                ScalarValue::UInt64(Some(rows)) => rows,
                _ => 0,
            };
            self.add(rows, || ScalarValue::try_from_array(values, row))
        })
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone(), ScalarValue::from(self.rows)])
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.value.size()
    }
}
