//! Casts that lose something. DataFusion takes `CAST(x AS INT) = 1` for `x = 1.00`, which is not true of 1.25, and the same with
//! decimals of fewer digits and with moments of a coarser unit; and for `TRY_CAST(x AS TINYINT) < 50` it compares x, whatever
//! does not fit. Here they are functions, which it leaves as they are. So are casts of text to decimals, of which '' would be 0.
//! A cast of an exact number to Float16, which Arrow does not have, goes by way of Float64.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{AsArray, StringArray};
use arrow::compute::CastOptions;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    Cast, ColumnarValue, DmlStatement, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, TryCast, Volatility,
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
            |node| match node {
                LogicalPlan::Dml(written) => assigned(written),
                other => other.recompute_schema(),
            },
        )
    }
}

/// What is written is compared with nothing, and a database that writes it itself knows casts and not our function.
fn assigned(mut written: DmlStatement) -> Result<LogicalPlan> {
    if let LogicalPlan::Projection(values) = written.input.as_ref() {
        let cast = |expr: Expr| match expr {
            Expr::ScalarFunction(ScalarFunction { func, mut args }) => match func.inner().as_any().downcast_ref::<Kept>() {
                Some(kept) if !kept.is_try && args.len() == 1 => {
                    Expr::Cast(Cast::new(Box::new(args.swap_remove(0)), kept.to.clone()))
                }
                _ => Expr::ScalarFunction(ScalarFunction { func, args }),
            },
            other => other,
        };
        let values = values.expr.iter().cloned().map(|expr| match expr {
            Expr::Alias(mut alias) => {
                alias.expr = Box::new(cast(*alias.expr));
                Expr::Alias(alias)
            }
            other => cast(other),
        });
        let input = written.input.inputs().into_iter().cloned().collect();
        written.input = Arc::new(written.input.with_new_exprs(values.collect(), input)?);
    }
    Ok(LogicalPlan::Dml(written))
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
    // What has no type is left to the analysis proper, and literals that fit are cast at once.
    let (Ok(from), Ok(to)) = (inner.get_type(schema), expr.get_type(schema)) else { return Ok(Transformed::no(expr)) };
    // Arrow makes half a float of an approximate number only.
    if from.is_decimal() && to == DataType::Float16 {
        let approximate = Box::new(inner.clone().cast_to(&DataType::Float64, schema)?);
        return Ok(Transformed::yes(match is_try {
            true => Expr::TryCast(TryCast::new(approximate, to)),
            false => Expr::Cast(Cast::new(approximate, to)),
        }));
    }
    let is_text = from.is_string() && to.is_decimal();
    let fits = matches!(inner, Expr::Literal(value, _) if !is_text && !is_try && value.cast_to(&to).is_ok());
    match is_text || (!fits && loses(&from, &to)) {
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
        (from, to) if from.is_integer() && to.is_integer() => {
            let (from, to) = (whole(from), whole(to));
            // One bit of a number with a sign is the sign.
            to.0 < from.0 + u32::from(to.1 && !from.1) || (from.1 && !to.1)
        }
        _ => match (digits(from), digits(to)) {
            (Some(from), Some(to)) => to.0 < from.0 || to.1 < from.1,
            _ => false,
        },
    }
}

/// How many bits whole numbers of a type have, and whether they have a sign.
fn whole(data_type: &DataType) -> (u32, bool) {
    let bits = data_type.primitive_width().map_or(0, |bytes| bytes as u32 * 8);
    (bits, data_type.is_signed_integer())
}

/// How many digits exact numbers of a type have before and after the point.
fn digits(data_type: &DataType) -> Option<(i16, i16)> {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => Some((i16::from(*precision) - i16::from(*scale), i16::from(*scale))),
        DataType::Int8 | DataType::UInt8 => Some((3, 0)),
        DataType::Int16 | DataType::UInt16 => Some((5, 0)),
        DataType::Int32 | DataType::UInt32 => Some((10, 0)),
        DataType::Int64 => Some((19, 0)),
        DataType::UInt64 => Some((20, 0)),
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

    /// The texts that have a digit, and NULL for others where that is wanted. Errors: where it is not.
    fn with_digits(&self, texts: &ColumnarValue) -> Result<ColumnarValue> {
        let is_number = |text: &str| text.bytes().any(|letter| letter.is_ascii_digit());
        let refused =
            |text: &str| ArrowError::CastError(format!("Cannot cast string '{text}' to value of {} type", self.to)).into();
        let checked = |text: Option<&str>| match text {
            Some(text) if !is_number(text) && !self.is_try => Err(refused(text)),
            text => Ok(text.filter(|text| is_number(text)).map(str::to_owned)),
        };
        match texts.cast_to(&DataType::Utf8, None)? {
            ColumnarValue::Scalar(text) => {
                let text = checked(text.try_as_str().flatten())?;
                Ok(ColumnarValue::Scalar(ScalarValue::Utf8(text)))
            }
            ColumnarValue::Array(texts) => {
                let texts = texts.as_string::<i32>();
                // Hardly ever is there one that has none.
                if texts.iter().flatten().all(is_number) {
                    return Ok(ColumnarValue::Array(Arc::new(texts.clone())));
                }
                let checked = texts.iter().map(checked).collect::<Result<StringArray>>()?;
                Ok(ColumnarValue::Array(Arc::new(checked)))
            }
        }
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
        if value.data_type().is_string() && self.to.is_decimal() {
            return self
                .with_digits(value)?
                .cast_to(&self.to, Some(&CastOptions { safe: self.is_try, ..CastOptions::default() }));
        }
        value.cast_to(&self.to, Some(&CastOptions { safe: self.is_try, ..CastOptions::default() }))
    }
}
