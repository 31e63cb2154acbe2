//! PostgreSQL's SQL: literals, and which comparisons it decides as the gateway does.

use arrow::datatypes::DataType;
use chrono::{DateTime, Datelike, NaiveDate, NaiveTime};
use datafusion::common::ScalarValue;
use nexus_flight_catalog::sql::{Columns, Compares, Dialect};
use uuid::Uuid;

use super::listing::{Column, Shape};
use super::types::Type;

/// How PostgreSQL writes it.
#[derive(Debug)]
pub(super) struct Postgres;

impl Dialect for Postgres {
    fn literal(&self, value: &ScalarValue) -> Option<String> {
        if value.is_null() {
            return Some("NULL".to_owned());
        }
        Some(match value {
            ScalarValue::Boolean(Some(value)) => value.to_string().to_uppercase(),
            ScalarValue::Int8(Some(value)) => format!("({value})::int2"),
            ScalarValue::Int16(Some(value)) => format!("({value})::int2"),
            ScalarValue::Int32(Some(value)) => format!("({value})::int4"),
            ScalarValue::Int64(Some(value)) => format!("({value})::int8"),
            ScalarValue::Float32(Some(value)) => format!("'{value}'::float4"),
            ScalarValue::Float64(Some(value)) => format!("'{value}'::float8"),
            ScalarValue::Decimal128(Some(value), _, scale @ 0..) => format!("'{}'::numeric", decimal(*value, *scale)),
            ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
                format!("{}::text", quoted(text)?)
            }
            ScalarValue::Binary(Some(bytes)) | ScalarValue::LargeBinary(Some(bytes)) | ScalarValue::BinaryView(Some(bytes)) => {
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("decode('{digits}', 'hex')")
            }
            ScalarValue::Time64Microsecond(Some(at)) => time(*at)?,
            ScalarValue::Date32(Some(days)) => format!("'{}'::date", date(i64::from(*days))?),
            ScalarValue::TimestampMicrosecond(Some(at), zone) => timestamp(*at, zone.is_some())?,
            ScalarValue::TimestampNanosecond(Some(at), zone) if at % 1_000 == 0 => timestamp(at / 1_000, zone.is_some())?,
            _ => return None,
        })
    }

    fn integer(&self, data_type: &DataType) -> Option<&'static str> {
        match data_type {
            DataType::Int16 => Some("int2"),
            DataType::Int32 => Some("int4"),
            DataType::Int64 => Some("int8"),
            _ => None,
        }
    }
}

impl Shape {
    pub(super) fn find(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl Columns for Shape {
    fn dialect(&self) -> &dyn Dialect {
        &Postgres
    }

    fn column(&self, name: &str) -> Option<(DataType, Compares)> {
        let column = self.find(name)?;
        let compares = match column.ty {
            Type::Bool | Type::Int2 | Type::Int4 | Type::Int8 | Type::Float4 | Type::Float8 | Type::Bytes => Compares::Order,
            Type::Decimal(..) | Type::Date | Type::Time | Type::Timestamp | Type::TimestampTz => Compares::Order,
            // Which text is greater depends on its collation, and of some whether two are equal.
            Type::Text | Type::Name if column.deterministic => Compares::Equality,
            Type::Uuid => Compares::Equality,
            // Padding does not count, labels that are not there fail, 1.0 is 1, intervals have months of 30 days.
            _ => Compares::Nothing,
        };
        Some((column.ty.arrow(), compares))
    }

    fn compared(&self, name: &str, value: &ScalarValue) -> Option<String> {
        let column = self.find(name)?;
        let data_type = value.data_type();
        let fits = data_type == column.ty.arrow() || data_type.is_string() && column.ty.arrow().is_string();
        if !fits || value.is_null() {
            return None;
        }
        match (&column.ty, value) {
            // Of two zeros with different signs the gateway makes two numbers, PostgreSQL one.
            (_, ScalarValue::Float32(Some(zero))) if *zero == 0.0 => None,
            (_, ScalarValue::Float64(Some(zero))) if *zero == 0.0 => None,
            (Type::Uuid, _) => {
                // Another way to write the same id is another text here.
                let text = value.try_as_str().flatten()?;
                Uuid::parse_str(text).is_ok_and(|id| id.to_string() == text).then(|| format!("'{text}'::uuid"))
            }
            _ => Postgres.literal(value),
        }
    }
}

/// A text between quotes, in which a backslash stands for itself (`standard_conforming_strings`, on since version 9.1, is
/// not relied upon). None for one with a zero, which no text of PostgreSQL can hold.
fn quoted(text: &str) -> Option<String> {
    if text.contains('\0') {
        return None;
    }
    let doubled = text.replace('\'', "''");
    Some(match doubled.contains('\\') {
        true => format!("E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    })
}

fn decimal(unscaled: i128, scale: i8) -> String {
    let scale = usize::try_from(scale).unwrap_or(0);
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn time(microseconds: i64) -> Option<String> {
    let seconds = u32::try_from(microseconds / 1_000_000).ok()?;
    let nanoseconds = u32::try_from(microseconds % 1_000_000).ok()? * 1_000;
    let at = NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanoseconds)?;
    Some(format!("'{}'::time", at.format("%H:%M:%S%.6f")))
}

/// Years of other lengths are written in other ways.
fn date(days: i64) -> Option<NaiveDate> {
    let at = DateTime::from_timestamp(days.checked_mul(86_400)?, 0)?;
    (1..=9999).contains(&at.year()).then(|| at.date_naive())
}

fn timestamp(microseconds: i64, zoned: bool) -> Option<String> {
    let at = DateTime::from_timestamp_micros(microseconds)?;
    (1..=9999).contains(&at.year()).then_some(())?;
    let at = at.format("%Y-%m-%d %H:%M:%S%.6f");
    Some(if zoned { format!("'{at}+00'::timestamptz") } else { format!("'{at}'::timestamp") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals() {
        let text = |text: &str| Postgres.literal(&ScalarValue::from(text));
        assert_eq!(text("it's").unwrap(), "'it''s'::text");
        assert_eq!(text("a\\'; DROP TABLE t; --").unwrap(), "E'a\\\\''; DROP TABLE t; --'::text");
        assert_eq!(text("a\0b"), None);
        let decimal = |value, scale| Postgres.literal(&ScalarValue::Decimal128(Some(value), 38, scale)).unwrap();
        assert_eq!([decimal(-5, 2), decimal(12345, 2), decimal(7, 0)], ["'-0.05'::numeric", "'123.45'::numeric", "'7'::numeric"]);
        assert_eq!(Postgres.literal(&ScalarValue::Float64(Some(f64::NAN))).unwrap(), "'NaN'::float8");
        assert_eq!(Postgres.literal(&ScalarValue::Float64(Some(f64::NEG_INFINITY))).unwrap(), "'-inf'::float8");
        assert_eq!(Postgres.literal(&ScalarValue::Date32(Some(i32::MAX))), None);
        let at = ScalarValue::TimestampMicrosecond(Some(-1), Some("UTC".into()));
        assert_eq!(Postgres.literal(&at).unwrap(), "'1969-12-31 23:59:59.999999+00'::timestamptz");
    }
}
