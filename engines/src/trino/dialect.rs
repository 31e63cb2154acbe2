//! Trino's SQL: literals, and which comparisons it decides as the gateway does.

use std::fmt::LowerExp;

use arrow::datatypes::DataType;
use chrono::{DateTime, Datelike};
use datafusion::common::ScalarValue;
use nexus_flight_catalog::sql::{Columns, Compares, Dialect};
use uuid::Uuid;

use super::listing::Shape;
use super::types::Type;

/// What a second is counted in: how many of it a second has, and how many digits after the point that is.
#[derive(Clone, Copy)]
struct Parts {
    in_a_second: i64,
    digits: usize,
}

const MILLISECONDS: Parts = Parts { in_a_second: 1_000, digits: 3 };
const MICROSECONDS: Parts = Parts { in_a_second: 1_000_000, digits: 6 };
const NANOSECONDS: Parts = Parts { in_a_second: 1_000_000_000, digits: 9 };

/// How Trino writes it.
#[derive(Debug)]
pub(crate) struct Trino;

impl Dialect for Trino {
    fn literal(&self, value: &ScalarValue) -> Option<String> {
        Some(match value {
            // Of other types none is compared with a column.
            ScalarValue::Boolean(None) => "CAST(NULL AS boolean)".to_owned(),
            ScalarValue::Boolean(Some(value)) => value.to_string().to_uppercase(),
            ScalarValue::Int8(Some(value)) => format!("TINYINT '{value}'"),
            ScalarValue::Int16(Some(value)) => format!("SMALLINT '{value}'"),
            ScalarValue::Int32(Some(value)) => format!("INTEGER '{value}'"),
            ScalarValue::Int64(Some(value)) => format!("BIGINT '{value}'"),
            ScalarValue::Float32(Some(value)) if value.is_finite() => format!("REAL '{}'", float(value)),
            ScalarValue::Float64(Some(value)) if value.is_finite() => format!("DOUBLE '{}'", float(value)),
            ScalarValue::Decimal128(Some(value), precision, scale @ 0..) => decimal(*value, *precision, *scale)?,
            ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
                quoted(text)?
            }
            ScalarValue::Binary(Some(bytes)) | ScalarValue::LargeBinary(Some(bytes)) | ScalarValue::BinaryView(Some(bytes)) => {
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("X'{digits}'")
            }
            ScalarValue::Date32(Some(days)) => {
                let at = DateTime::from_timestamp(i64::from(*days).checked_mul(86_400)?, 0)?;
                is_plain_year(at.year()).then(|| format!("DATE '{}'", at.format("%Y-%m-%d")))?
            }
            ScalarValue::Time64Microsecond(Some(at)) => time(*at, MICROSECONDS)?,
            ScalarValue::Time64Nanosecond(Some(at)) => time(*at, NANOSECONDS)?,
            ScalarValue::TimestampMillisecond(Some(at), zone) => timestamp(*at, MILLISECONDS, zone.is_some())?,
            ScalarValue::TimestampMicrosecond(Some(at), zone) => timestamp(*at, MICROSECONDS, zone.is_some())?,
            ScalarValue::TimestampNanosecond(Some(at), zone) => timestamp(*at, NANOSECONDS, zone.is_some())?,
            _ => return None,
        })
    }

    fn integer(&self, data_type: &DataType) -> Option<&'static str> {
        match data_type {
            DataType::Int8 => Some("tinyint"),
            DataType::Int16 => Some("smallint"),
            DataType::Int32 => Some("integer"),
            DataType::Int64 => Some("bigint"),
            _ => None,
        }
    }
}

impl Columns for Shape {
    fn dialect(&self) -> &dyn Dialect {
        &Trino
    }

    fn column(&self, name: &str) -> Option<(DataType, Compares)> {
        let column = self.find(name)?;
        let compares = match column.ty {
            Type::Boolean | Type::TinyInt | Type::SmallInt | Type::Integer | Type::BigInt | Type::Decimal(..) => Compares::Order,
            Type::Date | Type::Time(_) | Type::Timestamp(_) | Type::TimestampTz(_) => Compares::Order,
            // Texts by their code points, and so by their bytes as here.
            Type::Varchar => Compares::Order,
            Type::Bytes if column.type_name == "varbinary" => Compares::Order,
            // NaN is greater than all numbers here, and neither greater nor less than any there.
            Type::Real | Type::Double => Compares::Equality,
            // As a type of its own, for Trino compares none with a text.
            Type::Other if column.type_name == "uuid" => return Some((DataType::FixedSizeBinary(16), Compares::Equality)),
            // The blanks that end a char(n) do not count there, and what is read as text is not compared as text.
            _ => Compares::Nothing,
        };
        Some((column.ty.arrow(), compares))
    }

    fn compared(&self, name: &str, value: &ScalarValue) -> Option<String> {
        let column = self.find(name)?;
        let (given, read) = (value.data_type(), column.ty.arrow());
        if value.is_null() || given != read && !(given.is_string() && read.is_string()) {
            return None;
        }
        match value {
            // Of two zeros with different signs the gateway makes two numbers, Trino one.
            ScalarValue::Float32(Some(zero)) if *zero == 0.0 => None,
            ScalarValue::Float64(Some(zero)) if *zero == 0.0 => None,
            _ if column.type_name == "uuid" => {
                // Another way to write the same id is another text here.
                let text = value.try_as_str().flatten()?;
                Uuid::parse_str(text).is_ok_and(|id| id.to_string() == text).then(|| format!("UUID '{text}'"))
            }
            _ => Trino.literal(value),
        }
    }
}

/// A text between quotes, in which only a quote is written otherwise. None for one with a zero, which not all databases hold.
pub(crate) fn quoted(text: &str) -> Option<String> {
    (!text.contains('\0')).then(|| format!("'{}'", text.replace('\'', "''")))
}

/// The shortest digits that make this number and no other.
fn float(value: &impl LowerExp) -> String {
    format!("{value:e}")
}

/// None for a number that has more digits than its type.
fn decimal(unscaled: i128, precision: u8, scale: i8) -> Option<String> {
    let places = usize::try_from(scale).ok()?;
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = places + 1);
    (digits.trim_start_matches('0').len() <= usize::from(precision)).then_some(())?;
    let (whole, fraction) = digits.split_at_checked(digits.len().checked_sub(places)?)?;
    let (sign, point) = (if unscaled < 0 { "-" } else { "" }, if places == 0 { "" } else { "." });
    // Of the type of its column, so that no other type has to hold both.
    Some(format!("CAST('{sign}{whole}{point}{fraction}' AS decimal({precision}, {scale}))"))
}

/// Years of other lengths are written in other ways.
fn is_plain_year(year: i32) -> bool {
    (1..=9999).contains(&year)
}

fn time(at: i64, parts: Parts) -> Option<String> {
    let text = instant(at, parts, "%H:%M:%S")?;
    (0..86_400).contains(&at.div_euclid(parts.in_a_second)).then(|| format!("TIME '{text}'"))
}

fn timestamp(at: i64, parts: Parts, zoned: bool) -> Option<String> {
    let zone = if zoned { " UTC" } else { "" };
    Some(format!("TIMESTAMP '{}{zone}'", instant(at, parts, "%Y-%m-%d %H:%M:%S")?))
}

/// A moment in a form, with all digits of its second.
fn instant(at: i64, Parts { in_a_second, digits }: Parts, form: &str) -> Option<String> {
    let second = DateTime::from_timestamp(at.div_euclid(in_a_second), 0)?;
    let (text, rest) = (second.format(form), at.rem_euclid(in_a_second));
    is_plain_year(second.year()).then(|| format!("{text}.{rest:0digits$}"))
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};
    use nexus_flight_catalog::sql::condition;

    use super::super::client::Named;
    use super::*;

    fn shape() -> Shape {
        let columns = [
            ("n", "bigint"),
            ("s", "varchar(10)"),
            ("c", "char(3)"),
            ("j", "json"),
            ("u", "uuid"),
            ("x", "double"),
            ("p", "decimal(6,2)"),
            ("at", "timestamp(3) with time zone"),
            ("fine", "timestamp(12)"),
            ("list", "array(bigint)"),
            ("h", "HyperLogLog"),
            ("b", "boolean"),
        ];
        let columns = columns.map(|(name, type_name)| Named { name: name.to_owned(), type_name: type_name.to_owned() });
        Shape::new(columns.into()).unwrap()
    }

    #[test]
    fn literals() {
        let written = |value: ScalarValue| Trino.literal(&value);
        assert_eq!(written(ScalarValue::from("it's \\ 数据")).unwrap(), "'it''s \\ 数据'");
        assert_eq!(written(ScalarValue::from("a\0b")), None);
        assert_eq!(written(ScalarValue::Int64(Some(i64::MIN))).unwrap(), "BIGINT '-9223372036854775808'");
        let decimal = |value, precision, scale| written(ScalarValue::Decimal128(Some(value), precision, scale));
        assert_eq!(decimal(-5, 4, 2).unwrap(), "CAST('-0.05' AS decimal(4, 2))");
        assert_eq!(decimal(7, 38, 0).unwrap(), "CAST('7' AS decimal(38, 0))");
        assert_eq!(decimal(12345, 4, 2), None);
        assert_eq!(written(ScalarValue::Float64(Some(-1.5e300))).unwrap(), "DOUBLE '-1.5e300'");
        assert_eq!(written(ScalarValue::Float32(Some(0.1))).unwrap(), "REAL '1e-1'");
        assert_eq!(written(ScalarValue::Float64(Some(f64::NAN))), None);
        assert_eq!(written(ScalarValue::Binary(Some(vec![0, 255]))).unwrap(), "X'00ff'");
        assert_eq!(written(ScalarValue::Date32(Some(-1))).unwrap(), "DATE '1969-12-31'");
        assert_eq!(written(ScalarValue::Date32(Some(i32::MAX))), None);
        assert_eq!(written(ScalarValue::Time64Microsecond(Some(3_723_000_004))).unwrap(), "TIME '01:02:03.000004'");
        assert_eq!(written(ScalarValue::Time64Microsecond(Some(86_400_000_000))), None);
        let zoned = ScalarValue::TimestampMicrosecond(Some(-1), Some("UTC".into()));
        assert_eq!(written(zoned).unwrap(), "TIMESTAMP '1969-12-31 23:59:59.999999 UTC'");
        assert_eq!(
            written(ScalarValue::TimestampNanosecond(Some(7), None)).unwrap(),
            "TIMESTAMP '1970-01-01 00:00:00.000000007'"
        );
    }

    #[test]
    fn what_is_decided_alike_is_written() {
        let id = "123e4567-e89b-12d3-a456-426614174000";
        let price = ScalarValue::Decimal128(Some(150), 6, 2);
        let at = ScalarValue::TimestampMillisecond(Some(1_500), Some("UTC".into()));
        for (expr, sql) in [
            (col("n").gt_eq(lit(5i64)), r#"("n" >= BIGINT '5')"#),
            (col("s").lt(lit("é")), r#"("s" < 'é')"#),
            (col("s").in_list(vec![lit("a"), lit("b")], false), r#"("s" IN ('a', 'b'))"#),
            (col("u").eq(lit(id)), format!(r#"("u" = UUID '{id}')"#).as_str()),
            (col("x").not_eq(lit(1.5)), r#"("x" <> DOUBLE '1.5e0')"#),
            (col("p").eq(lit(price)), r#"("p" = CAST('1.50' AS decimal(6, 2)))"#),
            (col("at").gt(lit(at)), r#"("at" > TIMESTAMP '1970-01-01 00:00:01.500 UTC')"#),
            (col("c").is_null(), r#"("c" IS NULL)"#),
            (col("b").is_not_true(), r#"("b" IS DISTINCT FROM TRUE)"#),
        ] {
            assert_eq!(condition(&expr, &shape(), false).as_deref(), Some(sql));
        }
    }

    #[test]
    fn what_is_not_is_refused() {
        for expr in [
            col("c").eq(lit("a")),
            col("j").eq(lit("1")),
            col("list").eq(lit("[1]")),
            col("u").eq(lit("123E4567-E89B-12D3-A456-426614174000")),
            col("u").eq(col("s")),
            col("x").gt(lit(1.5)),
            col("x").eq(lit(0.0)),
            col("x").eq(lit(f64::NAN)),
            col("n").eq(lit(5i32)),
            col("fine").eq(lit("1970-01-01 00:00:00.000000000001")),
            col("h").eq(lit(ScalarValue::Binary(Some(vec![1])))),
        ] {
            assert_eq!(condition(&expr, &shape(), false), None, "{expr}");
        }
    }
}
