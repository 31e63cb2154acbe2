//! The NaN that arithmetic makes. Processors give it a sign that says nothing, and Arrow orders and groups by the sign: of two
//! that a user cannot tell apart, one would be the greatest number and the other the least. Here each has none.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use crate::rewrite;

/// Functions that are not defined for all numbers.
const PARTIAL: [&str; 13] =
    ["acos", "acosh", "asin", "atanh", "cos", "cot", "ln", "log", "log10", "log2", "power", "sin", "sqrt"];

/// Takes the sign from what is computed. It needs the types that the analysis gives.
#[derive(Debug)]
pub struct PlainNan;

impl AnalyzerRule for PlainNan {
    fn name(&self) -> &str {
        "plain_nan"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        rewrite::expressions(plan, |expr, schema| expr.transform_up(|expr| plain(expr, schema)), Ok)
    }
}

fn plain(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let makes_nan = match &expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide => !is_plain(left) && !is_plain(right),
            Operator::Modulo => true,
            _ => false,
        },
        Expr::Negative(inner) => !is_plain(inner),
        Expr::ScalarFunction(ScalarFunction { func, .. }) => PARTIAL.contains(&func.name()),
        _ => false,
    };
    if !makes_nan || !matches!(expr.get_type(schema), Ok(DataType::Float32 | DataType::Float64)) {
        return Ok(Transformed::no(expr));
    }
    // Within one computation the sign decides nothing.
    let bare = match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            Expr::BinaryExpr(BinaryExpr::new(Box::new(signed(*left)), op, Box::new(signed(*right))))
        }
        other => other,
    };
    Ok(Transformed::yes(ScalarUDF::from(Unsigned::default()).call(vec![bare])))
}

/// Whether an operand is a number beside which no other makes NaN.
fn is_plain(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(value)), _) => value.is_finite() && *value != 0.0,
        Expr::Literal(ScalarValue::Float32(Some(value)), _) => value.is_finite() && *value != 0.0,
        Expr::Cast(cast) => match cast.expr.as_ref() {
            Expr::Literal(value, _) => {
                !value.is_null() && value.cast_to(&DataType::Float64).is_ok_and(|value| is_plain(&literal(value)))
            }
            _ => false,
        },
        _ => false,
    }
}

fn literal(value: ScalarValue) -> Expr {
    Expr::Literal(value, None)
}

fn signed(expr: Expr) -> Expr {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, mut args }) if func.inner().as_any().is::<Unsigned>() && args.len() == 1 => {
            args.swap_remove(0)
        }
        other => other,
    }
}

/// A number, and NaN without a sign.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Unsigned {
    signature: Signature,
}

impl Default for Unsigned {
    fn default() -> Self {
        Self { signature: Signature::uniform(1, vec![DataType::Float32, DataType::Float64], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Unsigned {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        "plain_nan"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Float64))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else { return internal_err!("one number has one sign") };
        Ok(match value {
            ColumnarValue::Scalar(ScalarValue::Float64(Some(value))) if value.is_nan() => ScalarValue::from(f64::NAN).into(),
            ColumnarValue::Scalar(ScalarValue::Float32(Some(value))) if value.is_nan() => ScalarValue::from(f32::NAN).into(),
            ColumnarValue::Scalar(value) => value.clone().into(),
            ColumnarValue::Array(values) => ColumnarValue::Array(match values.data_type() {
                DataType::Float64 => {
                    let values = values.as_primitive::<Float64Type>();
                    match values.values().iter().any(|value| value.is_nan()) {
                        true => Arc::new(values.unary::<_, Float64Type>(|value| if value.is_nan() { f64::NAN } else { value })),
                        false => Arc::new(values.clone()),
                    }
                }
                DataType::Float32 => {
                    let values = values.as_primitive::<Float32Type>();
                    match values.values().iter().any(|value| value.is_nan()) {
                        true => Arc::new(values.unary::<_, Float32Type>(|value| if value.is_nan() { f32::NAN } else { value })),
                        false => Arc::new(values.clone()),
                    }
                }
                other => return internal_err!("{other} has no NaN"),
            }),
        })
    }
}
