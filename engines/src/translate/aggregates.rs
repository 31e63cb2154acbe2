//! Functions of several rows. Of no rows they give NULL in both places, and `count` 0.

use arrow::datatypes::DataType;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, NullTreatment};
use datafusion::logical_expr::{Expr, ExprSchemable};
use nexus_flight_catalog::Result;

use super::arithmetic::quotient;
use super::casts::is_known;
use super::expr::{constant, is_floating};
use super::{Scope, Writer, refused};

/// Functions of numbers of floating point by their names here and there; their last digits hang on the order of the rows.
const OF_NUMBERS: [(&str, &str); 4] =
    [("stddev", "stddev_samp"), ("stddev_pop", "stddev_pop"), ("var", "var_samp"), ("var_pop", "var_pop")];

/// What is computed of rows.
pub(super) struct Rows<'a> {
    pub(super) args: &'a [Expr],
    pub(super) is_distinct: bool,
    /// Of which rows: FILTER or OVER, behind a blank.
    pub(super) of: &'a str,
    /// The type of the result.
    pub(super) gives: &'a DataType,
}

impl Writer<'_> {
    /// A call in an aggregate.
    pub(super) fn aggregate_call(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<String> {
        let Expr::AggregateFunction(AggregateFunction { func, params }) = expr else {
            return Err(refused(format_args!("{expr} as an aggregate")));
        };
        let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = params;
        if !order_by.is_empty() || *null_treatment == Some(NullTreatment::IgnoreNulls) {
            return Err(refused(format_args!("ORDER BY or IGNORE NULLS in the function {}", func.name())));
        }
        let of = match filter {
            Some(condition) => format!(" FILTER (WHERE {})", self.value(condition, scope)?),
            None => String::new(),
        };
        let gives = expr.get_type(scope.schema)?;
        self.over_rows(func.name(), &Rows { args, is_distinct: *distinct, of: &of, gives: &gives }, scope)
    }

    /// A function of these rows.
    pub(super) fn over_rows(&mut self, name: &str, rows: &Rows<'_>, scope: &Scope<'_>) -> Result<String> {
        let Rows { args, is_distinct, of, gives } = *rows;
        let [arg] = args else { return Err(refused(format_args!("the function {name} of {} values", args.len()))) };
        if name == "count" && constant(arg).is_some_and(|value| !value.is_null()) && !is_distinct {
            return Ok(format!("count(*){of}"));
        }
        let found = arg.get_type(scope.schema)?;
        if is_distinct && (is_floating(&found) || !is_known(&found)) {
            return Err(refused(format_args!("{name}(DISTINCT …) of a value of the type {found}")));
        }
        let sql = if name == "count" && !is_distinct { self.passed(arg, scope)? } else { self.value(arg, scope)? };
        let distinct = if is_distinct { "DISTINCT " } else { "" };
        let plain = |name: &str| Ok(format!("{name}({distinct}{sql}){of}"));
        match (name, &found) {
            ("count", _) => plain("count"),
            // Of whole numbers it is one of 64 bits in both places, and of decimals it has their digits behind the point.
            ("sum", DataType::Int64 | DataType::Float64 | DataType::Decimal128(..)) => plain("sum"),
            // The analysis has made a number of floating point of whole ones.
            ("avg", DataType::Float64) => plain("avg"),
            // Trino has the digits behind the point of the values, and here there are four more.
            ("avg", DataType::Decimal128(_, scale)) => {
                let sum = format!("sum({distinct}{sql}){of}");
                let count = format!("CAST(nullif(count({distinct}{sql}){of}, 0) AS decimal(19, 0))");
                quotient([&sum, &count], [*scale, 0], gives)
            }
            ("min" | "max", found) if is_floating(found) => Ok(extreme(name, &sql, of, found)),
            ("min" | "max", found) if is_known(found) => plain(name),
            ("bool_and" | "bool_or", DataType::Boolean) => plain(name),
            (name, DataType::Float64) if !is_distinct => match OF_NUMBERS.iter().find(|(here, _)| *here == name) {
                Some((_, there)) => plain(there),
                None => Err(refused(format_args!("the function {name}"))),
            },
            _ => Err(refused(format_args!("the function {name} of a value of the type {found}"))),
        }
    }
}

/// The least or the greatest of numbers of which some may be NaN, which is greater than all others here.
fn extreme(name: &str, sql: &str, of: &str, found: &DataType) -> String {
    let nan = if *found == DataType::Float32 { "CAST(nan() AS real)" } else { "nan()" };
    match name {
        "max" => format!("CASE WHEN count_if(is_nan({sql})){of} > 0 THEN {nan} ELSE max({sql}){of} END"),
        _ => {
            let least = format!("min(CASE WHEN NOT is_nan({sql}) THEN {sql} END){of}");
            format!("CASE WHEN count({sql}){of} > 0 AND count_if(NOT is_nan({sql})){of} = 0 THEN {nan} ELSE {least} END")
        }
    }
}
