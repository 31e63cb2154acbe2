//! Types, literals and casts.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, ExprSchemable};
use nexus_flight_catalog::Result;
use nexus_flight_catalog::sql::Dialect;

use super::expr::constant;
use super::{Scope, Writer, refused};
use crate::trino::Trino;

/// What a type is called there; none for one of which nothing is computed.
pub(super) fn type_name(of: &DataType) -> Option<String> {
    Some(match of {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 => "tinyint".to_owned(),
        DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        // Numbers of rows and of grouping sets are of these here. There is no type without sign, and none of them is so large.
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => "bigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Decimal128(precision, scale @ 0..) => format!("decimal({precision}, {scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "varchar".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "varbinary".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Time64(unit) => format!("time({})", digits(*unit)),
        DataType::Timestamp(unit, None) => format!("timestamp({})", digits(*unit)),
        DataType::Timestamp(unit, Some(zone)) if is_utc(zone) => format!("timestamp({}) with time zone", digits(*unit)),
        _ => return None,
    })
}

pub(super) fn is_known(of: &DataType) -> bool {
    type_name(of).is_some()
}

/// The digits of a second behind the point.
fn digits(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

fn is_utc(zone: &str) -> bool {
    ["UTC", "+00:00", "+00", "Z"].contains(&zone)
}

/// Whether values of two types are of one type there, or of two that it compares as they are compared here.
pub(super) fn alike(one: &DataType, other: &DataType) -> bool {
    match (one, other) {
        (DataType::Decimal128(..), DataType::Decimal128(..)) => true,
        (one, other) if one.is_unsigned_integer() && other.is_unsigned_integer() => true,
        (one, other) => one == other || is_known(one) && type_name(one) == type_name(other),
    }
}

impl Writer<'_> {
    /// A value as it stands in the plan, with its type.
    pub(super) fn literal(&mut self, value: &ScalarValue) -> Result<String> {
        let of = value.data_type();
        if value.is_null() {
            return match type_name(&of) {
                Some(of) => Ok(format!("CAST(NULL AS {of})")),
                None if of.is_null() => Ok("NULL".to_owned()),
                None => Err(refused(format_args!("NULL of the type {of}"))),
            };
        }
        let written = match value {
            ScalarValue::UInt8(Some(value)) => Some(format!("BIGINT '{value}'")),
            ScalarValue::UInt16(Some(value)) => Some(format!("BIGINT '{value}'")),
            ScalarValue::UInt32(Some(value)) => Some(format!("BIGINT '{value}'")),
            ScalarValue::UInt64(Some(value)) => i64::try_from(*value).ok().map(|value| format!("BIGINT '{value}'")),
            ScalarValue::Float64(Some(value)) if value.is_nan() => Some("nan()".to_owned()),
            other => Trino.literal(other),
        };
        // A text with a zero, a year of more than four digits, a type of which there are no literals.
        written.ok_or_else(|| refused(format_args!("a literal of the type {of}")))
    }

    /// `CAST`, or with `is_try` `TRY_CAST`, which gives NULL for what does not fit. Casts that round, cut or read in another way
    /// there are written so that they do not, or refused.
    pub(super) fn cast(&mut self, expr: &Expr, to: &DataType, is_try: bool, scope: &Scope<'_>) -> Result<String> {
        let from = expr.get_type(scope.schema)?;
        // A text beside a date is that date: of a literal there is no doubt what it is.
        if let Some(value) = constant(expr) {
            let is_number = |text: &str| text.bytes().any(|letter| letter.is_ascii_digit());
            // To Arrow a text without digits is a decimal too, and to the gateway it is none.
            let is_one = !to.is_decimal() || value.try_as_str().flatten().is_none_or(is_number);
            return match value.cast_to(to) {
                Ok(value) if is_one => self.literal(&value),
                _ => Err(refused(format_args!("a cast of a literal to {to}, which fails"))),
            };
        }
        let sql = self.value(expr, scope)?;
        // There it would be a `bigint`, which less than zero fits into.
        let wanted = type_name(to).filter(|_| from.is_unsigned_integer() || !to.is_unsigned_integer());
        let Some(wanted) = wanted else { return Err(refused(format_args!("a cast from {from} to {to}"))) };
        if type_name(&from).as_ref() == Some(&wanted) {
            return Ok(sql);
        }
        let word = if is_try { "TRY_CAST" } else { "CAST" };
        let plain = format!("{word}({sql} AS {wanted})");
        match kind(&from, to) {
            Some(Fit::Always) => Ok(plain),
            Some(fit) => {
                if !is_try {
                    self.fails("a cast to a type of fewer digits");
                }
                // Trino rounds to the nearest whole number, and here the digits behind the point are cut.
                Ok(if fit == Fit::Cut { format!("{word}(truncate({sql}) AS {wanted})") } else { plain })
            }
            None => Err(refused(format_args!("a cast from {from} to {to}"))),
        }
    }
}

/// How values fit into another type.
#[derive(Debug, PartialEq)]
enum Fit {
    /// All of them.
    Always,
    /// Some do not, here and there, and then it fails.
    Perhaps,
    /// The same, for numbers whose digits behind the point go away.
    Cut,
}

/// None for a cast that does something else there.
fn kind(from: &DataType, to: &DataType) -> Option<Fit> {
    use DataType::{Boolean, Date32, Decimal128, Float32, Float64, Timestamp};
    let is_text = |of: &DataType| of.is_string();
    Some(match (from, to) {
        (DataType::Null, _) => Fit::Always,
        (from, to) if from.is_integer() && to.is_integer() => match whole_digits(to)? >= whole_digits(from)? {
            true => Fit::Always,
            false => Fit::Perhaps,
        },
        (from, Decimal128(precision, scale)) if from.is_integer() => fit(whole_digits(from)?, *precision, *scale),
        (Decimal128(before, had), Decimal128(precision, scale)) => fit(i16::from(*before) - i16::from(*had), *precision, *scale),
        (Decimal128(..) | Float32 | Float64, to) if to.is_integer() => Fit::Cut,
        // To the nearest one in both places.
        (from, Float32 | Float64) if from.is_integer() => Fit::Always,
        (Decimal128(..) | Float32 | Float64, Float32 | Float64) => Fit::Always,
        (from, Boolean) if from.is_integer() => Fit::Always,
        (Boolean, to) if to.is_integer() => Fit::Always,
        // A number of floating point is another text there, as is a moment; and how texts are read differs in blanks, signs and
        // forms.
        (from, to) if is_text(to) && (from.is_integer() || matches!(from, Boolean | Decimal128(..) | Date32)) => Fit::Always,
        (Date32, Timestamp(_, None)) | (Timestamp(_, None), Date32) => Fit::Always,
        // To fewer digits Trino rounds, and here they are cut.
        (Timestamp(from, zone), Timestamp(to, other)) if digits(*to) >= digits(*from) && zone.is_some() == other.is_some() => {
            Fit::Always
        }
        _ => return None,
    })
}

/// Whether numbers of so many digits before the point fit into a decimal. Digits behind it that go away are rounded half away from
/// zero by both.
fn fit(before: i16, precision: u8, scale: i8) -> Fit {
    // Rounding may make one digit more of them.
    match before < i16::from(precision) - i16::from(scale) {
        true => Fit::Always,
        false => Fit::Perhaps,
    }
}

/// The digits of the greatest whole number of a type.
fn whole_digits(of: &DataType) -> Option<i16> {
    Some(match of {
        DataType::Int8 => 3,
        DataType::Int16 => 5,
        DataType::Int32 => 10,
        // Those without sign are such a number there.
        DataType::Int64 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => 19,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_that_do_the_same_are_known() {
        use DataType::*;
        for (from, to, fits) in [
            (Int32, Int64, Some(Fit::Always)),
            (Int64, Int32, Some(Fit::Perhaps)),
            (Int64, Decimal128(20, 0), Some(Fit::Always)),
            (Int64, Decimal128(10, 2), Some(Fit::Perhaps)),
            (Decimal128(12, 2), Decimal128(14, 2), Some(Fit::Always)),
            (Decimal128(12, 2), Decimal128(12, 1), Some(Fit::Always)),
            (Decimal128(12, 2), Decimal128(11, 1), Some(Fit::Perhaps)),
            (Decimal128(12, 2), Int64, Some(Fit::Cut)),
            (Float64, Int64, Some(Fit::Cut)),
            (Decimal128(12, 2), Float64, Some(Fit::Always)),
            (Date32, Timestamp(TimeUnit::Nanosecond, None), Some(Fit::Always)),
            (Timestamp(TimeUnit::Millisecond, None), Timestamp(TimeUnit::Microsecond, None), Some(Fit::Always)),
            (Int64, Utf8, Some(Fit::Always)),
            (Timestamp(TimeUnit::Nanosecond, None), Timestamp(TimeUnit::Millisecond, None), None),
            (Timestamp(TimeUnit::Millisecond, None), Timestamp(TimeUnit::Millisecond, Some("UTC".into())), None),
            (Float64, Utf8, None),
            (Float64, Decimal128(10, 2), None),
            (Utf8, Int64, None),
            (Utf8, Date32, None),
        ] {
            assert_eq!(kind(&from, &to), fits, "{from} to {to}");
        }
    }
}
