//! Text between quotes that is compared with a number is that number, as in PostgreSQL and DuckDB. DataFusion compares both
//! as text, where '10' comes before '9'.

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, InList};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;
use nexus_flight_catalog::Error;

/// Gives such literals the type of a number. Errors: `Invalid` for a text that is none.
#[derive(Debug)]
pub struct NumberLiterals;

impl AnalyzerRule for NumberLiterals {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            let mut schema = DFSchema::empty();
            node.inputs().iter().for_each(|input| schema.merge(input.schema()));
            node.map_expressions(|expr| expr.transform_up(|expr| typed(expr, &schema)))
        })
        .data()
    }

    fn name(&self) -> &str {
        "number_literals"
    }
}

fn typed(mut expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let changed = match &mut expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => {
            beside(left, right, schema)? | beside(right, left, schema)?
        }
        Expr::Between(Between { expr, low, high, .. }) => beside(expr, low, schema)? | beside(expr, high, schema)?,
        Expr::InList(InList { expr, list, .. }) => {
            let mut changed = false;
            for item in list {
                changed |= beside(expr, item, schema)?;
            }
            changed
        }
        _ => false,
    };
    Ok(Transformed::new_transformed(expr, changed))
}

fn compares(operator: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// Makes `literal` a number where `other` is one. Returns whether it did.
fn beside(other: &Expr, literal: &mut Expr, schema: &DFSchema) -> Result<bool> {
    let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = &*literal else { return Ok(false) };
    // What has no type here is told by the analysis proper.
    let Ok(wanted) = other.get_type(schema) else { return Ok(false) };
    if !wanted.is_numeric() {
        return Ok(false);
    }
    let Some(value) = number(text.trim(), &wanted) else {
        return Err(Error::invalid(format!("{text:?} is not a number, and {other} is one, of type {wanted}"))
            .with_hint("write a number, or cast the number to text to compare both as text")
            .into());
    };
    *literal = Expr::Literal(value, None);
    Ok(true)
}

/// The text as a number without rounding: of the wanted type where that holds it, else as an exact decimal.
fn number(text: &str, wanted: &DataType) -> Option<ScalarValue> {
    let text_value = ScalarValue::from(text);
    if wanted.is_integer()
        && let Ok(value) = text_value.cast_to(wanted)
    {
        return Some(value);
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_plain = !digits.is_empty() && [whole, fraction].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    if !wanted.is_floating() && is_plain && whole.len() + fraction.len() <= 38 {
        let precision = u8::try_from(whole.len() + fraction.len()).ok()?.max(1);
        let scale = i8::try_from(fraction.len()).ok()?;
        return text_value.cast_to(&DataType::Decimal128(precision, scale)).ok();
    }
    text_value.cast_to(&DataType::Float64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_rounded() {
        let shown = |text: &str, wanted: DataType| number(text, &wanted).map(|value| format!("{value} {}", value.data_type()));
        let decimal = DataType::Decimal128(15, 2);
        assert_eq!(shown("5", DataType::Int32).as_deref(), Some("5 Int32"));
        assert_eq!(shown("-5", DataType::UInt8).as_deref(), Some("Some(-5),1,0 Decimal128(1, 0)"));
        assert_eq!(shown("1.5", DataType::Int64).as_deref(), Some("Some(15),2,1 Decimal128(2, 1)"));
        assert_eq!(shown("0.055", decimal.clone()).as_deref(), Some("Some(55),4,3 Decimal128(4, 3)"));
        assert_eq!(
            shown("9223372036854775808", DataType::Int64).as_deref(),
            Some("Some(9223372036854775808),19,0 Decimal128(19, 0)")
        );
        assert_eq!(shown("1e3", decimal).as_deref(), Some("1000 Float64"));
        assert_eq!(shown("0.5", DataType::Float32).as_deref(), Some("0.5 Float64"));
        for text in ["many", "", "1.2.3", ".", "0x10", "1 2"] {
            assert_eq!(shown(text, DataType::Int64), None, "{text}");
        }
    }
}
