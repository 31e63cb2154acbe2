//! `||` as a function, since an operator cannot be bounded as functions are.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::kernels::concat_elements::concat_elements_utf8_many;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDFImpl, Signature,
    Volatility,
};

use super::patterns;
use crate::rewrite;

const NAME: &str = "||";

/// Joins texts of one type; NULL where one is.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Concatenation {
    signature: Signature,
}

impl Default for Concatenation {
    fn default() -> Self {
        let types = vec![DataType::Utf8, DataType::LargeUtf8];
        Self { signature: Signature::variadic(types, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Concatenation {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Utf8))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let joined: ArrayRef = match arrays.first().map(|array| array.data_type()) {
            Some(DataType::LargeUtf8) => {
                Arc::new(concat_elements_utf8_many(&arrays.iter().map(|array| array.as_string::<i64>()).collect::<Vec<_>>())?)
            }
            _ => Arc::new(concat_elements_utf8_many(&arrays.iter().map(|array| array.as_string::<i32>()).collect::<Vec<_>>())?),
        };
        if is_scalar && joined.len() == 1 {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&joined, 0)?));
        }
        Ok(ColumnarValue::Array(joined))
    }
}

/// The analysed plan with the bounded functions of a state: for every `||` of texts, with one call for a chain of them, since
/// DataFusion takes the type of nested calls over and over; for what it makes of syntax such as `[a, b]`; and for what compares
/// texts with patterns of rows.
pub fn replaced(plan: LogicalPlan, state: &SessionState) -> Result<LogicalPlan> {
    let (joined, like) = (state.udf(NAME)?, state.udf("regexp_like")?);
    let replaced = |expr: Expr, schema: &DFSchema| {
        expr.transform_down(|expr| match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) if is_text(&left, &right, schema) => {
                let call = ScalarFunction::new_udf(Arc::clone(&joined), operands(*left, *right));
                Ok(Transformed::yes(Expr::ScalarFunction(call)))
            }
            Expr::BinaryExpr(_) | Expr::SimilarTo(_) => Ok(match patterns::call(&like, &expr, schema) {
                Some(call) => Transformed::yes(call),
                None => Transformed::no(expr),
            }),
            Expr::ScalarFunction(call) => match state.scalar_functions().get(call.name()) {
                Some(func) if !Arc::ptr_eq(func, &call.func) => {
                    let call = ScalarFunction::new_udf(Arc::clone(func), call.args);
                    Ok(Transformed::yes(Expr::ScalarFunction(call)))
                }
                _ => Ok(Transformed::no(Expr::ScalarFunction(call))),
            },
            other => Ok(Transformed::no(other)),
        })
    };
    rewrite::expressions(plan, replaced, Ok)
}

/// What a chain joins, in order.
fn operands(left: Expr, right: Expr) -> Vec<Expr> {
    let (mut open, mut operands) = (vec![right, left], Vec::new());
    while let Some(expr) = open.pop() {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => open.extend([*right, *left]),
            other => operands.push(other),
        }
    }
    operands
}

pub(super) fn is_text(left: &Expr, right: &Expr, schema: &DFSchema) -> bool {
    let types = (left.get_type(schema), right.get_type(schema));
    matches!(types, (Ok(DataType::Utf8), Ok(DataType::Utf8)) | (Ok(DataType::LargeUtf8), Ok(DataType::LargeUtf8)))
}
