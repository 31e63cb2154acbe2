//! Sums, products and quotients, and moments some time later.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, ExprSchemable, Operator};
use nexus_flight_catalog::Result;

use super::expr::{constant, is_floating};
use super::{Scope, Writer, refused};

/// The digits that a decimal has at most, here and there.
const WIDEST: i16 = 38;

/// The parts of an interval that are added one after the other: months, then days, then what is shorter.
#[derive(Clone, Copy, Default)]
struct Span {
    months: i64,
    days: i64,
    nanoseconds: i64,
}

impl Writer<'_> {
    /// `of` is the type of the result.
    pub(super) fn arithmetic(&mut self, sides: [&Expr; 2], op: Operator, of: &DataType, scope: &Scope<'_>) -> Result<String> {
        let [left, right] = sides;
        let (one, other) = (left.get_type(scope.schema)?, right.get_type(scope.schema)?);
        let odd = || refused(format_args!("{one} {op} {other}"));
        match (&one, &other) {
            // Both cut towards zero where they divide, and the rest has the sign of the dividend.
            (one, other) if one.is_signed_integer() && one == other => self.fails("a sum of whole numbers"),
            // To divide by zero gives infinity or NaN in both places.
            (one, other) if is_floating(one) && one == other => {}
            (DataType::Decimal128(_, scale), DataType::Decimal128(_, beside)) if op == Operator::Divide => {
                self.fails("a quotient");
                let (a, b) = (self.value(left, scope)?, self.value(right, scope)?);
                return quotient([&a, &b], [*scale, *beside], of);
            }
            (DataType::Decimal128(precision, scale), DataType::Decimal128(wide, beside)) => {
                // The digits behind the point are as many in both places. Those before it are cut to 38 in all, and what has more
                // fails.
                let digits = |precision: u8, scale: i8| i16::from(precision) - i16::from(scale);
                let (whole, parts) = match op {
                    Operator::Multiply => (i16::from(*precision) + i16::from(*wide), 0),
                    _ => {
                        let whole = digits(*precision, *scale).max(digits(*wide, *beside)) + 1;
                        (whole, i16::from(*scale.max(beside)))
                    }
                };
                if op == Operator::Modulo || whole + parts > WIDEST {
                    self.fails("a sum or product of decimals");
                }
            }
            (DataType::Date32 | DataType::Timestamp(..), DataType::Interval(_)) => {
                let span = span(right).ok_or_else(|| refused("an interval that is no literal"))?;
                return self.later(left, op, span, &one, scope);
            }
            // The days between two dates.
            (DataType::Date32, DataType::Date32) if op == Operator::Minus && *of == DataType::Int64 => {
                return Ok(format!("date_diff('day', {}, {})", self.value(right, scope)?, self.value(left, scope)?));
            }
            _ => return Err(odd()),
        }
        Ok(format!("({} {op} {})", self.value(left, scope)?, self.value(right, scope)?))
    }

    /// A moment, with months added first, of which the day is cut to the last one of its month in both places.
    fn later(&mut self, moment: &Expr, op: Operator, span: Span, of: &DataType, scope: &Scope<'_>) -> Result<String> {
        let is_minus = match op {
            Operator::Plus => false,
            Operator::Minus => true,
            _ => return Err(refused(format_args!("{of} {op} an interval"))),
        };
        // What is shorter than a day a date has no place for, and Trino counts milliseconds.
        if *of == DataType::Date32 && span.nanoseconds != 0 || span.nanoseconds % 1_000_000 != 0 {
            return Err(refused("an interval that is not of whole days, or milliseconds"));
        }
        let seconds = span.nanoseconds.unsigned_abs();
        let seconds = format!("{}.{:03}", seconds / 1_000_000_000, seconds / 1_000_000 % 1_000);
        let mut sql = self.value(moment, scope)?;
        for (count, text, unit) in [
            (span.months, span.months.unsigned_abs().to_string(), "MONTH"),
            (span.days, span.days.unsigned_abs().to_string(), "DAY"),
            (span.nanoseconds, seconds, "SECOND"),
        ] {
            if count != 0 {
                let sign = if is_minus == (count < 0) { "+" } else { "-" };
                sql = format!("({sql} {sign} INTERVAL '{text}' {unit})");
            }
        }
        Ok(sql)
    }
}

/// A quotient of decimals with the digits that it has here, where the others are cut: four more than the dividend has. Trino has as
/// many as the longer of both, and rounds. So what would be cut is taken from the dividend before.
pub(super) fn quotient([a, b]: [&str; 2], [scale, beside]: [i8; 2], of: &DataType) -> Result<String> {
    let DataType::Decimal128(precision, digits) = of else { return Err(refused(format_args!("a quotient of the type {of}"))) };
    if *digits < 1 || *digits < scale || i16::from(*digits) + i16::from(beside) > WIDEST {
        return Err(refused(format_args!("a quotient of decimals of {scale} and {beside} digits behind the point")));
    }
    let zeros = "0".repeat(usize::from(digits.unsigned_abs()) - 1);
    let unit = format!("CAST('0.{zeros}1' AS decimal({digits}, {digits}))");
    Ok(format!("CAST((({a} - ({a} % ({b} * {unit}))) / {b}) AS decimal({precision}, {digits}))"))
}

/// What a literal interval is made of.
fn span(expr: &Expr) -> Option<Span> {
    Some(match constant(expr)? {
        ScalarValue::IntervalYearMonth(Some(months)) => Span { months: months.into(), ..Span::default() },
        ScalarValue::IntervalDayTime(Some(time)) => {
            Span { days: time.days.into(), nanoseconds: i64::from(time.milliseconds).checked_mul(1_000_000)?, ..Span::default() }
        }
        ScalarValue::IntervalMonthDayNano(Some(time)) => {
            Span { months: time.months.into(), days: time.days.into(), nanoseconds: time.nanoseconds }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotient_is_cut_and_not_rounded() {
        let of = DataType::Decimal128(19, 6);
        assert_eq!(
            quotient(["a", "b"], [2, 1], &of).unwrap(),
            "CAST(((a - (a % (b * CAST('0.000001' AS decimal(6, 6))))) / b) AS decimal(19, 6))"
        );
        let of = DataType::Decimal128(38, 24);
        assert!(quotient(["a", "b"], [20, 20], &of).is_err(), "it has no place for all digits");
    }
}
