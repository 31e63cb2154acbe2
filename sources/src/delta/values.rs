//! Values that the log writes as text: those of partition columns, and what bounds a column in a file.

use arrow::datatypes::{DataType, Decimal128Type, DecimalType, TimeUnit};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use datafusion::common::ScalarValue;
use nexus_flight_catalog::{Error, Result};

/// NULL of a type.
pub(super) fn null(data_type: &DataType) -> Result<ScalarValue> {
    Ok(ScalarValue::try_from(data_type)?)
}

/// The value of a partition column, as Delta's protocol serializes it (Partition Value Serialization); none for a text that is not a
/// value of this type.
pub(super) fn partition(data_type: &DataType, text: &str) -> Option<ScalarValue> {
    Some(match data_type {
        DataType::Utf8 => ScalarValue::Utf8(Some(text.to_owned())),
        DataType::Boolean => ScalarValue::Boolean(Some(text.parse().ok()?)),
        DataType::Float32 => ScalarValue::Float32(Some(text.parse().ok()?)),
        DataType::Float64 => ScalarValue::Float64(Some(text.parse().ok()?)),
        DataType::Decimal128(precision, scale) => {
            ScalarValue::Decimal128(Some(decimal(text, *precision, *scale)?), *precision, *scale)
        }
        DataType::Date32 => ScalarValue::Date32(Some(date(text)?)),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            ScalarValue::TimestampMicrosecond(Some(timestamp(text, zone.is_some())?), zone.clone())
        }
        whole => whole_number(whole, text.parse().ok()?)?,
    })
}

/// The text of a value of a partition column, as Delta's protocol has it, with times in UTC; none for NULL, which an empty text is too.
/// Errors: `Unsupported` for a value that has no such text.
pub(super) fn written(value: &ScalarValue) -> Result<Option<String>> {
    let none = || {
        Error::unsupported(format!("a value of the type {} cannot be that of a partition column", value.data_type()))
            .with_hint("leave the row out, or write a table that is not divided by the column")
    };
    if value.is_null() {
        return Ok(None);
    }
    let text = match value {
        ScalarValue::Utf8(Some(text)) => text.clone(),
        ScalarValue::Boolean(Some(flag)) => flag.to_string(),
        ScalarValue::Int8(Some(number)) => number.to_string(),
        ScalarValue::Int16(Some(number)) => number.to_string(),
        ScalarValue::Int32(Some(number)) => number.to_string(),
        ScalarValue::Int64(Some(number)) => number.to_string(),
        ScalarValue::Float32(Some(number)) => float(f64::from(*number), number.to_string()),
        ScalarValue::Float64(Some(number)) => float(*number, number.to_string()),
        ScalarValue::Decimal128(Some(number), precision, scale) => Decimal128Type::format_decimal(*number, *precision, *scale),
        ScalarValue::Date32(Some(days)) => date_text(*days).ok_or_else(none)?,
        ScalarValue::TimestampMicrosecond(Some(micros), zone) => {
            let time = DateTime::from_timestamp_micros(*micros).filter(is_of_four_digits).ok_or_else(none)?;
            let form = if zone.is_some() { "%Y-%m-%dT%H:%M:%S%.6fZ" } else { "%Y-%m-%d %H:%M:%S%.6f" };
            time.format(form).to_string()
        }
        _ => return Err(none()),
    };
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// The text of a float, where Java reads infinities by their whole name.
fn float(number: f64, text: String) -> String {
    match number.is_infinite() {
        true if number > 0.0 => "Infinity".to_owned(),
        true => "-Infinity".to_owned(),
        false => text,
    }
}

/// The text of a date, of days since 1970; none where its year has not four digits.
pub(super) fn date_text(days: i32) -> Option<String> {
    let date = NaiveDate::default().checked_add_signed(TimeDelta::try_days(i64::from(days))?)?;
    (0..=9999).contains(&date.year()).then(|| date.format("%Y-%m-%d").to_string())
}

/// The text of a time in the statistics of a file, of milliseconds since 1970; none where its year has not four digits.
pub(super) fn time_text(millis: i64, zoned: bool) -> Option<String> {
    let time = DateTime::from_timestamp_millis(millis).filter(is_of_four_digits)?;
    Some(format!("{}{}", time.format("%Y-%m-%dT%H:%M:%S%.3f"), if zoned { "Z" } else { "" }))
}

fn is_of_four_digits(time: &DateTime<Utc>) -> bool {
    (0..=9999).contains(&time.year())
}

/// A whole number of a type, if it is within the type and the type is one of whole numbers.
pub(super) fn whole_number(data_type: &DataType, value: i64) -> Option<ScalarValue> {
    Some(match data_type {
        DataType::Int8 => ScalarValue::Int8(Some(value.try_into().ok()?)),
        DataType::Int16 => ScalarValue::Int16(Some(value.try_into().ok()?)),
        DataType::Int32 => ScalarValue::Int32(Some(value.try_into().ok()?)),
        DataType::Int64 => ScalarValue::Int64(Some(value)),
        _ => return None,
    })
}

/// The days of a date since 1970.
pub(super) fn date(text: &str) -> Option<i32> {
    let days = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.signed_duration_since(NaiveDate::default()).num_days();
    i32::try_from(days).ok()
}

/// The microseconds of a time since 1970. One without an offset is of UTC, or of no zone where the type has none; one with an offset
/// is of no type without a zone. A date is its first moment, where the type has no zone: it was once the column's type.
pub(super) fn timestamp(text: &str, zoned: bool) -> Option<i64> {
    let local = |form| NaiveDateTime::parse_from_str(text, form).ok().map(|time| time.and_utc().timestamp_micros());
    let with_offset = || DateTime::parse_from_rfc3339(text).ok().filter(|_| zoned).map(|time| time.timestamp_micros());
    let of_date = || {
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| !zoned)?;
        Some(date.and_time(NaiveTime::MIN).and_utc().timestamp_micros())
    };
    local("%Y-%m-%d %H:%M:%S%.f").or_else(|| local("%Y-%m-%dT%H:%M:%S%.f")).or_else(with_offset).or_else(of_date)
}

/// A decimal number without its point, if the type can hold it as it is.
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let shift = i32::from(scale).checked_add(exponent)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let power = |places: u32| 10i128.checked_pow(places);
    let value = match u32::try_from(shift) {
        _ if digits == 0 => 0,
        Ok(places) => digits.checked_mul(power(places)?)?,
        Err(_) => {
            let parts = power(shift.unsigned_abs())?;
            (digits % parts == 0).then_some(digits / parts)?
        }
    };
    (value.unsigned_abs() < power(u32::from(precision))?.unsigned_abs()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_none() {
        assert_eq!(decimal("12.5", 10, 2), Some(1250));
        assert_eq!(decimal("-0.05", 10, 2), Some(-5));
        assert_eq!(decimal("0E-18", 38, 18), Some(0));
        assert_eq!(decimal("1.2E+3", 10, 1), Some(12_000));
        assert_eq!(decimal("1.20", 10, 1), Some(12));
        for not_held in ["1.25", "100000000000", "1e99999", "", "1.-5", "x", "."] {
            assert_eq!(decimal(not_held, 10, 1), None, "{not_held}");
        }
    }

    #[test]
    fn times_are_of_utc() {
        assert_eq!(timestamp("1970-01-01 00:00:01.5", true), Some(1_500_000));
        assert_eq!(timestamp("1970-01-01T01:00:00.000001+01:00", true), Some(1));
        assert_eq!(timestamp("1970-01-01T00:00:00Z", false), None);
        assert_eq!(timestamp("1969-12-31T23:59:59.999", false), Some(-1000));
        assert_eq!((timestamp("1969-12-31", false), timestamp("1969-12-31", true)), (Some(-86_400_000_000), None));
        assert_eq!((date("1970-01-02"), date("1969-12-31"), date("1970-02-30")), (Some(1), Some(-1), None));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let zone = Some("UTC".into());
        for value in [
            ScalarValue::Boolean(Some(true)),
            ScalarValue::Int16(Some(-7)),
            ScalarValue::Float64(Some(f64::NEG_INFINITY)),
            ScalarValue::Float32(Some(0.1)),
            ScalarValue::Decimal128(Some(-5), 10, 2),
            ScalarValue::Date32(Some(-719_000)),
            ScalarValue::TimestampMicrosecond(Some(-1), zone),
            ScalarValue::TimestampMicrosecond(Some(1_700_000_000_000_001), None),
            ScalarValue::from("名 %/="),
        ] {
            let text = written(&value).unwrap().unwrap();
            assert_eq!(partition(&value.data_type(), &text), Some(value), "{text}");
        }
        assert_eq!(written(&ScalarValue::from("")).unwrap(), None);
        assert_eq!(written(&ScalarValue::Int8(None)).unwrap(), None);
        assert!(written(&ScalarValue::Date32(Some(i32::MAX))).is_err());
        assert!(written(&ScalarValue::Binary(Some(vec![1]))).is_err());
    }

    #[test]
    fn values_are_of_their_type() {
        assert_eq!(partition(&DataType::Int8, "-128"), Some(ScalarValue::Int8(Some(-128))));
        assert_eq!(partition(&DataType::Int8, "128"), None);
        assert_eq!(partition(&DataType::Boolean, "true"), Some(ScalarValue::Boolean(Some(true))));
        assert_eq!(partition(&DataType::Binary, "1"), None);
    }
}
