//! Casts that lose digits. DataFusion takes `CAST(x AS INT) = 1` for `x = 1.00`, which is not true of 1.25, and the same with
//! decimals of fewer digits and with moments of a coarser unit. Here they are functions, which it leaves as they are.

use std::any::Any;

use arrow::compute::CastOptions;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, TryCast, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use crate::rewrite;

/// Makes functions of them.
#[derive(Debug)]
pub struct Casts;

impl AnalyzerRule for Casts {
    fn name(&self) -> &str {
        "casts"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        rewrite::expressions(
            plan,
            |expr, schema| expr.transform_up(|expr| as_function(expr, schema)),
            LogicalPlan::recompute_schema,
        )
    }
}

fn as_function(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let (inner, is_try) = match &expr {
        Expr::Cast(Cast { expr: inner, .. }) => (inner.as_ref(), false),
        Expr::TryCast(TryCast { expr: inner, .. }) => (inner.as_ref(), true),
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "arrow_cast" => match args.first() {
            Some(inner) => (inner, false),
            None => return Ok(Transformed::no(expr)),
        },
        _ => return Ok(Transformed::no(expr)),
    };
    // What has no type is left to the analysis proper, and literals are cast at once.
    let (Ok(from), Ok(to), false) = (inner.get_type(schema), expr.get_type(schema), matches!(inner, Expr::Literal(..))) else {
        return Ok(Transformed::no(expr));
    };
    match loses(&from, &to) {
        true => Ok(Transformed::yes(kept(inner.clone(), to, is_try))),
        false => Ok(Transformed::no(expr)),
    }
}

/// A cast that stays where it is.
pub(super) fn kept(expr: Expr, to: DataType, is_try: bool) -> Expr {
    ScalarUDF::from(Kept::new(to, is_try)).call(vec![expr])
}

fn loses(from: &DataType, to: &DataType) -> bool {
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    match (from, to) {
        (DataType::Dictionary(_, from), to) => loses(from, to),
        (DataType::Timestamp(from, _), DataType::Timestamp(to, _)) => unit(to) < unit(from),
        _ => match (scale(from), scale(to)) {
            (Some(from), Some(to)) => to < from,
            (Some(from), None) => from > 0 && to.is_integer(),
            _ => false,
        },
    }
}

fn scale(data_type: &DataType) -> Option<i8> {
    match data_type {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => Some(*scale),
        _ => None,
    }
}

/// A cast to a type; of what does not fit, an error or NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Kept {
    to: DataType,
    is_try: bool,
    /// With the type, which decides what comes of a value.
    name: String,
    signature: Signature,
}

impl Kept {
    fn new(to: DataType, is_try: bool) -> Self {
        let name = format!("{}({to})", if is_try { "try_cast" } else { "cast" });
        Self { to, is_try, name, signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Kept {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(self.to.clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = self.is_try || args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Field::new(self.name(), self.to.clone(), nullable).into())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else { return internal_err!("a cast is of one value") };
        value.cast_to(&self.to, Some(&CastOptions { safe: self.is_try, ..CastOptions::default() }))
    }
}
