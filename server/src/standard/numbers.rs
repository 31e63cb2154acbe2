//! What kind of number a number is, where DataFusion decides otherwise than the standard and PostgreSQL.
//!
//! - Text between quotes beside a number is that number; DataFusion compares both as text, where '10' comes before '9'.
//! - Text between quotes beside a moment has its precision; DataFusion compares both in nanoseconds, which end in 2262.
//! - Times of day of several precisions have the finest; DataFusion does not compare them.
//! - An exact number beside an approximate one becomes approximate (ISO/IEC 9075-2, dyadic arithmetic and result types);
//!   DataFusion makes the approximate one a decimal, which loses small values and refuses large ones.
//! - A decimal is rounded up and down with one digit more than it has; DataFusion's `ceil(0.5)` does not fit its own type.
//! - The logarithm and the power of an exact number are approximate; DataFusion's have the digits after the point of their
//!   argument, so that `log(2.5)` is 0.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type, DecimalType, FieldRef, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue, TableReference};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{Between, Case, InList, InSubquery, ScalarFunction};
use datafusion::logical_expr::{
    BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, Union, Values,
};
use datafusion::optimizer::AnalyzerRule;
use nexus_flight_catalog::Error;

use crate::rewrite;
use crate::standard::casts::kept;
use crate::standard::items;

/// Functions whose arguments are values of one kind, of which they give one.
const CHOOSING: [&str; 7] = ["coalesce", "greatest", "least", "make_array", "nullif", "nvl", "nvl2"];

/// Functions that give something approximate of exact numbers too; a power of whole numbers stays exact.
const APPROXIMATE: [&str; 2] = ["log", "power"];

/// Settles it before the analysis gives every expression its type. Errors: `Invalid` for a text that is no number.
#[derive(Debug)]
pub struct Numbers;

impl AnalyzerRule for Numbers {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        // What is inserted takes the types of its table.
        let inserts = matches!(plan, LogicalPlan::Dml(_));
        rewrite::expressions(
            plan,
            |expr, schema| expr.transform_up(|expr| settled(expr, schema)),
            |node| match node {
                LogicalPlan::Union(union) => united(union),
                LogicalPlan::Values(values) if !inserts => listed(values),
                other => other.recompute_schema(),
            },
        )
    }

    fn name(&self) -> &str {
        "numbers"
    }
}

fn settled(mut expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let changed = match &mut expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => {
            beside(left, right, schema)? | beside(right, left, schema)? | alike([left.as_mut(), right.as_mut()], true, schema)?
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.is_numerical_operators() => {
            alike([left.as_mut(), right.as_mut()], false, schema)?
        }
        Expr::Between(Between { expr, low, high, .. }) => {
            let texts = beside(expr, low, schema)? | beside(expr, high, schema)?;
            texts | alike([expr.as_mut(), low.as_mut(), high.as_mut()], true, schema)?
        }
        Expr::InList(InList { expr, list, .. }) => {
            let mut changed = false;
            for item in list.iter_mut() {
                changed |= beside(expr, item, schema)?;
            }
            changed | alike(list.iter_mut().chain([expr.as_mut()]), true, schema)?
        }
        Expr::InSubquery(InSubquery { expr, subquery, .. }) => member(expr, subquery, schema)?,
        Expr::Case(Case { expr: operand, when_then_expr, else_expr }) => {
            let mut changed = false;
            if let Some(operand) = operand {
                for (when, _) in when_then_expr.iter_mut() {
                    changed |= beside(operand, when, schema)?;
                }
                let whens = when_then_expr.iter_mut().map(|(when, _)| when.as_mut());
                changed |= alike(whens.chain([operand.as_mut()]), true, schema)?;
            }
            let results = when_then_expr.iter_mut().map(|(_, then)| then.as_mut());
            changed | alike(results.chain(else_expr.as_deref_mut()), false, schema)?
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if CHOOSING.contains(&func.name()) => {
            alike(args.iter_mut(), false, schema)?
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if APPROXIMATE.contains(&func.name()) => {
            let whole = |arg: &Expr| match type_of(arg, schema) {
                Some(
                    DataType::Decimal32(_, scale)
                    | DataType::Decimal64(_, scale)
                    | DataType::Decimal128(_, scale)
                    | DataType::Decimal256(_, scale),
                ) => scale == 0,
                other => other.is_some_and(|data_type| data_type.is_integer()),
            };
            let exact = |arg: &&mut Expr| type_of(arg, schema).is_some_and(|data_type| data_type.is_decimal());
            match func.name() == "power" && args.iter().all(whole) {
                true => false,
                false => args.iter_mut().filter(exact).try_fold(false, |_, arg| to(arg, &DataType::Float64).map(|()| true))?,
            }
        }
        // What is written among approximate items is the nearest of those; a cast of what is exact may give the one beside it.
        Expr::ScalarFunction(ScalarFunction { func, args }) if items::FUNCTIONS.contains(&func.name()) => {
            let array = args.get(items::array_of(func.name())).and_then(|array| type_of(array, schema));
            match array.as_ref().and_then(items::item_of).filter(|item| item.is_floating()) {
                Some(item) => {
                    let exact = |arg: &&mut Expr| matches!(arg, Expr::Literal(value, _) if value.data_type().is_decimal());
                    args.iter_mut().filter(exact).try_fold(false, |_, arg| to(arg, item).map(|()| true))?
                }
                None => false,
            }
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if ["ceil", "floor"].contains(&func.name()) => {
            args.iter_mut().try_fold(false, |changed, arg| Ok::<_, DataFusionError>(changed | with_room(arg, schema)?))?
        }
        _ => false,
    };
    Ok(Transformed::new_transformed(expr, changed))
}

/// Gives a decimal one digit more: the next whole number of 0.9 has one before the point. Returns whether it did.
fn with_room(expr: &mut Expr, schema: &DFSchema) -> Result<bool> {
    let Some(DataType::Decimal128(precision, scale)) = type_of(expr, schema) else { return Ok(false) };
    if precision >= DECIMAL128_MAX_PRECISION {
        return Ok(false);
    }
    *expr = std::mem::take(expr).cast_to(&DataType::Decimal128(precision + 1, scale), schema)?;
    Ok(true)
}

fn compares(operator: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// The type of the values, which may be written as a dictionary. None where the analysis proper tells what is wrong.
fn type_of(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    match expr.get_type(schema).ok()? {
        DataType::Dictionary(_, values) => Some(*values),
        other => Some(other),
    }
}

/// Makes `literal` a number where `other` is one, and a moment where it is one. Returns whether it did.
fn beside(other: &mut Expr, literal: &mut Expr, schema: &DFSchema) -> Result<bool> {
    let Expr::Literal(written @ ScalarValue::Utf8(Some(text)), _) = &*literal else { return Ok(false) };
    let Some(wanted) = type_of(other, schema) else { return Ok(false) };
    if let DataType::Timestamp(_, zone) = &wanted {
        let finest = DataType::Timestamp(TimeUnit::Nanosecond, zone.clone());
        // What is no moment is left to the analysis proper.
        let Ok(value) = written.cast_to(&wanted) else { return Ok(false) };
        let value = match written.cast_to(&finest) {
            // It has more digits, which decide too.
            Ok(exact) if value.cast_to(&finest).ok().as_ref() != Some(&exact) => {
                *other = kept(std::mem::take(other), finest, false);
                exact
            }
            _ => value,
        };
        *literal = Expr::Literal(value, None);
        return Ok(true);
    }
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

/// Makes the exact ones approximate where one is approximate. Returns whether it did. A literal that is only compared takes
/// the type of what it is compared with: 0.1 is equal to a `REAL` that was written as 0.1.
fn alike<'a>(exprs: impl IntoIterator<Item = &'a mut Expr>, compared: bool, schema: &DFSchema) -> Result<bool> {
    let exprs: Vec<(&mut Expr, Option<DataType>)> = exprs
        .into_iter()
        .map(|expr| {
            let data_type = type_of(expr, schema);
            (expr, data_type)
        })
        .collect();
    if exprs.iter().any(|(_, data_type)| data_type.as_ref().is_some_and(is_time)) {
        return of_one_unit(exprs);
    }
    let widest = exprs
        .iter()
        .filter_map(|(_, data_type)| data_type.clone())
        .filter(DataType::is_floating)
        .max_by_key(|float| float.primitive_width());
    let Some(widest) = widest else { return Ok(false) };
    let wanted = if compared { widest } else { DataType::Float64 };
    let mut changed = false;
    for (expr, data_type) in exprs {
        if data_type.is_some_and(|data_type| data_type.is_decimal()) {
            to(expr, &wanted)?;
            changed = true;
        }
    }
    Ok(changed)
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Time32(_) | DataType::Time64(_))
}

/// Gives times of day the finest unit, where theirs differ: DataFusion finds none that is common to them.
fn of_one_unit(exprs: Vec<(&mut Expr, Option<DataType>)>) -> Result<bool> {
    let mut units = exprs.iter().filter_map(|(_, data_type)| data_type.as_ref()).filter(|data_type| is_time(data_type));
    let first = units.next().cloned();
    if units.all(|unit| Some(unit) == first.as_ref()) {
        return Ok(false);
    }
    let finest = DataType::Time64(TimeUnit::Nanosecond);
    for (expr, data_type) in exprs {
        if data_type.is_some_and(|data_type| is_time(&data_type) && data_type != finest) {
            *expr = Expr::Cast(Cast::new(Box::new(std::mem::take(expr)), finest.clone()));
        }
    }
    Ok(true)
}

/// Makes an exact number approximate.
fn to(expr: &mut Expr, wanted: &DataType) -> Result<()> {
    let taken = std::mem::take(expr);
    *expr = match &taken {
        Expr::Literal(value, _) => Expr::Literal(approximate(value)?.cast_to(wanted)?, None),
        // Of a computed one no more is lost than is needed.
        _ => Expr::Cast(Cast::new(Box::new(taken), DataType::Float64)),
    };
    Ok(())
}

/// A decimal as the nearest approximate number.
fn approximate(value: &ScalarValue) -> Result<ScalarValue> {
    let text = match value {
        ScalarValue::Decimal128(Some(value), precision, scale) => Decimal128Type::format_decimal(*value, *precision, *scale),
        ScalarValue::Decimal256(Some(value), precision, scale) => Decimal256Type::format_decimal(*value, *precision, *scale),
        other => return other.cast_to(&DataType::Float64),
    };
    ScalarValue::from(text).cast_to(&DataType::Float64)
}

/// Makes what is looked for in a sub-query, or what that gives, approximate where only the other is. Returns whether it did.
fn member(expr: &mut Box<Expr>, subquery: &mut Subquery, schema: &DFSchema) -> Result<bool> {
    let given = subquery.subquery.schema().fields().first().map(|field| field.data_type().clone());
    match (type_of(expr, schema), given) {
        (Some(float), Some(decimal)) if float.is_floating() && decimal.is_decimal() => {
            subquery.subquery = approximated(&subquery.subquery, &[true])?.into();
        }
        (Some(decimal), Some(float)) if float.is_floating() && decimal.is_decimal() => {
            **expr = Expr::Cast(Cast::new(std::mem::take(expr), DataType::Float64));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A union in whose columns exact and approximate numbers do not meet.
fn united(Union { inputs, schema }: Union) -> Result<LogicalPlan> {
    let of = |column: usize, kind: fn(&DataType) -> bool| {
        inputs.iter().any(|input| input.schema().fields().get(column).is_some_and(|field| kind(field.data_type())))
    };
    let mixed: Vec<bool> =
        (0..schema.fields().len()).map(|column| of(column, DataType::is_floating) && of(column, DataType::is_decimal)).collect();
    if !mixed.contains(&true) {
        return LogicalPlan::Union(Union { inputs, schema }).recompute_schema();
    }
    let alike = inputs.iter().map(|input| Ok(approximated(input, &mixed)?.into())).collect::<Result<_>>()?;
    // The types were those of the first.
    Ok(LogicalPlan::Union(Union::try_new_with_loose_types(alike)?))
}

/// Rows of values in whose columns exact and approximate numbers do not meet.
fn listed(Values { schema, mut values }: Values) -> Result<LogicalPlan> {
    let none = DFSchema::empty();
    let mut fields: Vec<(Option<TableReference>, FieldRef)> = Vec::with_capacity(schema.fields().len());
    for (at, (qualifier, field)) in schema.iter().enumerate() {
        // The planner has cast them to one type.
        let is_floating = |value: &Expr| match value {
            Expr::Cast(Cast { expr, .. }) => type_of(expr, &none).is_some_and(|inner| inner.is_floating()),
            _ => false,
        };
        let mixed = field.data_type().is_decimal() && values.iter().filter_map(|row| row.get(at)).any(is_floating);
        if mixed {
            for value in values.iter_mut().filter_map(|row| row.get_mut(at)) {
                match std::mem::take(value) {
                    Expr::Cast(Cast { expr, .. }) => *value = *expr,
                    other => *value = other,
                }
                match type_of(value, &none) {
                    Some(exact) if exact.is_decimal() => to(value, &DataType::Float64)?,
                    _ => *value = std::mem::take(value).cast_to(&DataType::Float64, &none)?,
                }
            }
        }
        let field = match mixed {
            true => Arc::new(field.as_ref().clone().with_data_type(DataType::Float64)),
            false => Arc::clone(field),
        };
        fields.push((qualifier.cloned(), field));
    }
    let schema = DFSchema::new_with_metadata(fields, schema.metadata().clone())?;
    Ok(LogicalPlan::Values(Values { schema: Arc::new(schema), values }))
}

/// The plan with the exact ones of these columns made approximate.
fn approximated(plan: &LogicalPlan, wanted: &[bool]) -> Result<LogicalPlan> {
    let columns = plan.schema().iter().zip(wanted).map(|((qualifier, field), wanted)| {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        if *wanted && field.data_type().is_decimal() {
            Expr::Cast(Cast::new(Box::new(column), DataType::Float64)).alias_qualified(qualifier.cloned(), field.name())
        } else {
            column
        }
    });
    LogicalPlanBuilder::from(plan.clone()).project(columns)?.build()
}

/// The text as a number without rounding: of the wanted type where that holds it, else as an exact decimal.
fn number(text: &str, wanted: &DataType) -> Option<ScalarValue> {
    let text_value = ScalarValue::from(text);
    if wanted.is_integer()
        && let Ok(value) = text_value.cast_to(wanted)
    {
        return Some(value);
    }
    if wanted.is_floating() {
        return text_value.cast_to(wanted).ok();
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_plain = !digits.is_empty() && [whole, fraction].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    if is_plain && whole.len() + fraction.len() <= 38 {
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
        assert_eq!(shown("0.5", DataType::Float32).as_deref(), Some("0.5 Float32"));
        for text in ["many", "", "1.2.3", ".", "0x10", "1 2"] {
            assert_eq!(shown(text, DataType::Int64), None, "{text}");
        }
    }
}
