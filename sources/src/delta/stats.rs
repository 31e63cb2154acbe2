//! What the log says of the values in each file.

use std::collections::HashMap;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array, new_empty_array};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use nexus_flight_catalog::Result;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::values::{date, decimal, null, timestamp, whole_number};
use crate::lake::Bounds;

/// Writers cut the bounds of times to milliseconds.
const CUT: i64 = 999;
/// What an offset lacks without its seconds, in microseconds.
const MINUTE: i64 = 60_000_000;
/// Up to so many digits a decimal number passes through a `double` unchanged, through which some writers put it.
const DIGITS: u8 = 15;

/// The statistics of one file. Columns go by their names in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats<'a> {
    pub(super) num_records: Option<u64>,
    tight_bounds: Option<bool>,
    #[serde(borrow)]
    min_values: Option<HashMap<String, &'a RawValue>>,
    #[serde(borrow)]
    max_values: Option<HashMap<String, &'a RawValue>>,
    #[serde(borrow)]
    null_count: Option<HashMap<String, &'a RawValue>>,
}

impl<'a> Stats<'a> {
    /// What a file's statistics say: nothing where they are not sound, since no answer needs them.
    pub(super) fn parse(json: Option<&'a str>) -> Self {
        json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }

    /// Whether the bounds are those of the rows that are left, not only of those that once were.
    fn tight(&self) -> bool {
        self.tight_bounds != Some(false)
    }

    fn nulls(&self, column: &str) -> Option<u64> {
        let count = self.null_count.as_ref()?.get(column)?.get().parse().ok()?;
        // Of bounds that are not tight any other number says nothing (Delta protocol, Per-file Statistics).
        (self.tight() || count == 0 || Some(count) == self.num_records).then_some(count)
    }
}

/// Collects what is known of a column, file by file.
pub(super) struct Collected {
    data_type: DataType,
    min: Vec<ScalarValue>,
    max: Vec<ScalarValue>,
    nulls: Vec<Option<u64>>,
    exact: Vec<bool>,
}

impl Collected {
    pub(super) fn new(data_type: &DataType) -> Self {
        Self { data_type: data_type.clone(), min: Vec::new(), max: Vec::new(), nulls: Vec::new(), exact: Vec::new() }
    }

    /// Of a column that a file holds, under this name.
    pub(super) fn add(&mut self, stats: &Stats<'_>, column: &str) -> Result<()> {
        if self.data_type.is_nested() {
            return Ok(());
        }
        let of = |values: &Option<HashMap<String, &RawValue>>| {
            values.as_ref()?.get(column).and_then(|text| bound(&self.data_type, text))
        };
        let (min, max) = (of(&stats.min_values).and_then(not_more), of(&stats.max_values).and_then(not_less));
        self.min.push(min.map_or_else(|| null(&self.data_type), Ok)?);
        self.max.push(max.map_or_else(|| null(&self.data_type), Ok)?);
        self.nulls.push(stats.nulls(column));
        self.exact.push(stats.tight() && is_whole(&self.data_type));
        Ok(())
    }

    /// Of a column that has one value in all rows of a file.
    pub(super) fn add_constant(&mut self, stats: &Stats<'_>, value: &ScalarValue) -> Result<()> {
        let of_float = matches!(self.data_type, DataType::Float32 | DataType::Float64);
        let bound = if of_float { null(&self.data_type)? } else { value.clone() };
        self.nulls.push(if value.is_null() { stats.num_records } else { Some(0) });
        // There may be no row that has it.
        self.exact.push(!of_float && stats.num_records.is_some());
        self.min.push(bound.clone());
        self.max.push(bound);
        Ok(())
    }

    /// What is known of the column in so many files.
    pub(super) fn finish(self, files: usize) -> Result<Bounds> {
        if self.data_type.is_nested() {
            return Ok(Bounds::unknown(&self.data_type, files));
        }
        let array = |values: Vec<ScalarValue>| -> Result<ArrayRef> {
            if values.is_empty() {
                return Ok(new_empty_array(&self.data_type));
            }
            Ok(ScalarValue::iter_to_array(values)?)
        };
        let (min, max) = (array(self.min)?, array(self.max)?);
        Ok(Bounds { min, max, nulls: UInt64Array::from(self.nulls), exact: BooleanArray::from(self.exact) })
    }
}

/// Whether writers put the values of a type into the log as they are.
fn is_whole(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Date32 | DataType::Decimal128(..)
    )
}

/// A bound that is written as JSON; none where it says nothing: of a float, whose NaN is in no bounds, and of what is not one value.
fn bound(data_type: &DataType, json: &RawValue) -> Option<ScalarValue> {
    let text = || serde_json::from_str::<String>(json.get()).ok();
    Some(match data_type {
        DataType::Utf8 => ScalarValue::Utf8(Some(text()?)),
        DataType::Date32 => ScalarValue::Date32(Some(date(&text()?)?)),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            ScalarValue::TimestampMicrosecond(Some(timestamp(&text()?, zone.is_some())?), zone.clone())
        }
        DataType::Decimal128(precision, scale) if *precision <= DIGITS => {
            let number = text().unwrap_or_else(|| json.get().to_owned());
            ScalarValue::Decimal128(Some(decimal(&number, *precision, *scale)?), *precision, *scale)
        }
        whole => whole_number(whole, json.get().parse().ok()?)?,
    })
}

/// A bound that no value is less than, from one that was written with the offset of a zone without its seconds.
fn not_more(bound: ScalarValue) -> Option<ScalarValue> {
    match bound {
        ScalarValue::TimestampMicrosecond(Some(micros), zone) if is_old(micros) && zone.is_some() => {
            Some(ScalarValue::TimestampMicrosecond(Some(micros.checked_sub(MINUTE)?), zone))
        }
        other => Some(other),
    }
}

/// A bound that no value is greater than, from one that is cut.
fn not_less(bound: ScalarValue) -> Option<ScalarValue> {
    match bound {
        ScalarValue::TimestampMicrosecond(Some(micros), zone) => {
            let more = if is_old(micros) && zone.is_some() { CUT + MINUTE } else { CUT };
            Some(ScalarValue::TimestampMicrosecond(Some(micros.checked_add(more)?), zone))
        }
        // Cut text ends so where the next character is less by its units of UTF-16, and greater by its bytes.
        ScalarValue::Utf8(Some(text)) if text.ends_with('\u{FFFD}') => None,
        other => Some(other),
    }
}

/// Whether a time is of years in which the offsets of zones had seconds.
fn is_old(micros: i64) -> bool {
    micros < 100_000_000_000_000
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;

    use super::*;

    fn collected(data_type: &DataType, json: &str) -> Bounds {
        let mut collected = Collected::new(data_type);
        collected.add(&Stats::parse(Some(json)), "c").unwrap();
        collected.finish(1).unwrap()
    }

    fn ends(bounds: &Bounds) -> (ScalarValue, ScalarValue) {
        (ScalarValue::try_from_array(&bounds.min, 0).unwrap(), ScalarValue::try_from_array(&bounds.max, 0).unwrap())
    }

    #[test]
    fn bounds_are_of_the_type() {
        let whole = collected(
            &DataType::Int64,
            r#"{"numRecords":3,"minValues":{"c":-9007199254740993},"maxValues":{"c":7},"nullCount":{"c":1}}"#,
        );
        assert_eq!(ends(&whole), (ScalarValue::Int64(Some(-9_007_199_254_740_993)), ScalarValue::Int64(Some(7))));
        assert_eq!((whole.nulls.value(0), whole.exact.value(0)), (1, true));
        let text = collected(&DataType::Utf8, r#"{"numRecords":3,"minValues":{"c":"a\"b"},"maxValues":{"c":"文"}}"#);
        assert_eq!(ends(&text), (ScalarValue::from("a\"b"), ScalarValue::from("文")));
        assert!(!text.exact.value(0) && text.nulls.is_null(0));
    }

    #[test]
    fn bounds_of_a_narrower_type_are_of_the_wider_one() {
        let of = |data_type: &DataType, value: &str| {
            ends(&collected(data_type, &format!(r#"{{"minValues":{{"c":{value}}},"maxValues":{{"c":{value}}}}}"#)))
        };
        let same = |value: ScalarValue| (value.clone(), value);
        assert_eq!(of(&DataType::Int64, "-128"), same(ScalarValue::Int64(Some(-128))));
        assert_eq!(of(&DataType::Decimal128(12, 2), "7"), same(ScalarValue::Decimal128(Some(700), 12, 2)));
        assert_eq!(of(&DataType::Decimal128(12, 4), "7.25"), same(ScalarValue::Decimal128(Some(72_500), 12, 4)));
        let day = ScalarValue::TimestampMicrosecond(Some(86_400_000_000), None);
        assert_eq!(of(&DataType::Timestamp(TimeUnit::Microsecond, None), r#""1970-01-02""#).0, day);
    }

    #[test]
    fn a_partition_may_have_no_rows_where_nobody_counted_them() {
        let exact = |json| {
            let mut collected = Collected::new(&DataType::Int64);
            collected.add_constant(&Stats::parse(json), &ScalarValue::Int64(Some(7))).unwrap();
            let bounds = collected.finish(1).unwrap();
            assert_eq!(ends(&bounds), (ScalarValue::Int64(Some(7)), ScalarValue::Int64(Some(7))));
            bounds.exact.value(0)
        };
        assert!(exact(Some(r#"{"numRecords":3}"#)) && !exact(None));
    }

    #[test]
    fn the_last_time_may_be_within_its_millisecond() {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let bounds =
            collected(&time, r#"{"minValues":{"c":"1970-01-01T00:00:00.001"},"maxValues":{"c":"1970-01-01T00:00:00.001"}}"#);
        let micros = |micros| ScalarValue::TimestampMicrosecond(Some(micros), None);
        assert_eq!(ends(&bounds), (micros(1000), micros(1999)));
    }

    #[test]
    fn bounds_that_were_cut_are_wide_enough() {
        let text = collected(
            &DataType::Utf8,
            &format!(r#"{{"minValues":{{"c":"a"}},"maxValues":{{"c":"{}"}}}}"#, "a".repeat(32) + "\u{FFFD}"),
        );
        assert!(text.min.is_valid(0) && text.max.is_null(0));
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let sentinel = r#"{"minValues":{"c":"1900-01-01T00:00:00.000+08:05"},"maxValues":{"c":"1900-01-01T00:00:00.000+08:05"}}"#;
        let bounds = collected(&time, sentinel);
        // Its offset is +08:05:43.
        let written = chrono::DateTime::parse_from_rfc3339("1899-12-31T15:54:17Z").unwrap().timestamp_micros();
        let (ScalarValue::TimestampMicrosecond(Some(min), _), ScalarValue::TimestampMicrosecond(Some(max), _)) = ends(&bounds)
        else {
            unreachable!("times")
        };
        assert!(min <= written && written <= max);
    }

    #[test]
    fn what_says_nothing_bounds_nothing() {
        for (data_type, json) in [
            (DataType::Float64, r#"{"minValues":{"c":1.0},"maxValues":{"c":2.0}}"#),
            (DataType::Decimal128(18, 2), r#"{"minValues":{"c":1.0},"maxValues":{"c":2.0}}"#),
            (DataType::Int8, r#"{"minValues":{"c":-129},"maxValues":{"c":1.5}}"#),
            (DataType::Int64, r#"{"minValues":{"d":1}"#),
            (DataType::Int64, "cut"),
        ] {
            let bounds = collected(&data_type, json);
            assert!(bounds.min.null_count() == 1 && bounds.max.null_count() == 1, "{json}");
        }
        let wide = r#"{"numRecords":3,"tightBounds":false,"minValues":{"c":1},"maxValues":{"c":2},"nullCount":{"c":1}}"#;
        let wide = collected(&DataType::Int32, wide);
        assert_eq!(ends(&wide), (ScalarValue::Int32(Some(1)), ScalarValue::Int32(Some(2))));
        assert!(wide.nulls.is_null(0) && !wide.exact.value(0));
    }
}
