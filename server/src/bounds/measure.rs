//! What the size of an answer hangs on, row by row.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::compute::kernels::length::length;
use arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::error::Result;

const DAY: i128 = 86_400_000_000_000;

/// A column, measured. One of a single row stands for a value that all rows share.
pub(super) struct Measured {
    /// Of text its bytes, of a list its items, of a number its value, of a date or time the nanoseconds since 1970, of an
    /// interval its nanoseconds at the least, which are none where its parts have different signs; zero for NULL.
    numbers: Vec<i128>,
    holds: Holds,
    nulls: Option<NullBuffer>,
    /// The bytes of an item of a list, of another value that is no text: on average.
    each: i128,
}

#[derive(PartialEq)]
enum Holds {
    Text,
    Lists,
    Values,
    Intervals,
}

/// A month has at least 28 days. One month less 28 days may be no time at all.
fn least(interval: IntervalMonthDayNano) -> i128 {
    let parts = [i128::from(interval.months) * 28 * DAY, i128::from(interval.days) * DAY, i128::from(interval.nanoseconds)];
    let one_way = parts.iter().all(|part| *part >= 0) || parts.iter().all(|part| *part <= 0);
    if one_way { parts.iter().sum() } else { 0 }
}

impl Measured {
    pub(super) fn of(array: &ArrayRef) -> Result<Self> {
        use DataType::{
            Binary, BinaryView, Date32, Date64, FixedSizeList, Interval, LargeBinary, LargeList, LargeUtf8, List, Timestamp,
            Utf8, Utf8View,
        };
        let (holds, numbers) = match array.data_type() {
            Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView => (Holds::Text, lengths(array)?),
            List(_) | LargeList(_) | FixedSizeList(..) => (Holds::Lists, lengths(array)?),
            number if number.is_integer() => (Holds::Values, whole(array, 1)?),
            Date32 => (Holds::Values, whole(&cast(array, &DataType::Int32)?, DAY)?),
            Date64 => (Holds::Values, whole(array, 1_000_000)?),
            Timestamp(unit, _) => {
                let nanos = match unit {
                    TimeUnit::Second => 1_000_000_000,
                    TimeUnit::Millisecond => 1_000_000,
                    TimeUnit::Microsecond => 1_000,
                    TimeUnit::Nanosecond => 1,
                };
                (Holds::Values, whole(array, nanos)?)
            }
            Interval(IntervalUnit::MonthDayNano) => {
                let nanos = array.as_primitive::<IntervalMonthDayNanoType>().iter().map(|value| value.map_or(0, least));
                (Holds::Intervals, nanos.collect())
            }
            _ => (Holds::Values, vec![0; array.len()]),
        };
        let each = match (&holds, array.data_type()) {
            (Holds::Text, _) => 0,
            (Holds::Lists, FixedSizeList(..)) => average(array.as_fixed_size_list().values()),
            (Holds::Lists, LargeList(_)) => average(array.as_list::<i64>().values()),
            (Holds::Lists, _) => average(array.as_list::<i32>().values()),
            (Holds::Values | Holds::Intervals, _) => average(array),
        };
        Ok(Self { numbers, holds, nulls: array.logical_nulls(), each })
    }

    /// What is said at `numbers` of a row.
    pub(super) fn number(&self, row: usize) -> i128 {
        let row = if self.numbers.len() == 1 { 0 } else { row };
        self.numbers.get(row).copied().unwrap_or_default()
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        let row = if self.numbers.len() == 1 { 0 } else { row };
        self.nulls.as_ref().is_some_and(|nulls| row < nulls.len() && nulls.is_null(row))
    }

    pub(super) fn is_interval(&self) -> bool {
        self.holds == Holds::Intervals
    }

    /// The bytes of an item of the lists.
    pub(super) fn item(&self) -> i128 {
        self.each
    }

    /// Whether a number is below zero.
    pub(super) fn has_negative(&self) -> bool {
        self.numbers.iter().any(|number| *number < 0)
    }

    /// The bytes of the value of a row.
    pub(super) fn bytes(&self, row: usize) -> i128 {
        match self.holds {
            Holds::Text => self.number(row).saturating_add(4),
            Holds::Lists => self.number(row).saturating_mul(self.each).saturating_add(4),
            Holds::Values | Holds::Intervals => self.each,
        }
    }
}

/// The values of whole numbers, in units; zero for NULL.
fn whole(array: &dyn Array, unit: i128) -> Result<Vec<i128>> {
    let array = cast(array, &DataType::Int64)?;
    Ok(array.as_primitive::<Int64Type>().iter().map(|value| i128::from(value.unwrap_or(0)) * unit).collect())
}

/// The bytes of each text, the items of each list; zero for NULL.
pub(super) fn lengths(array: &ArrayRef) -> Result<Vec<i128>> {
    whole(&length(array)?, 1)
}

fn average(array: &ArrayRef) -> i128 {
    bytes(array).div_ceil(array.len().max(1)) as i128
}

/// The bytes of the values of an array, whatever it shares its buffers with; of views, with all that their buffers hold.
pub fn bytes(array: &ArrayRef) -> usize {
    if matches!(array.data_type(), DataType::Utf8View | DataType::BinaryView) {
        return array.get_array_memory_size();
    }
    array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
}

/// Cuts rows of these sizes into runs of at most `most`, or of one row.
pub(super) fn runs(sizes: &[i128], most: i128) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut total) = (0, 0_i128);
    for (row, size) in sizes.iter().enumerate() {
        if row > start && total.saturating_add(*size) > most {
            runs.push(start..row);
            (start, total) = (row, 0);
        }
        total = total.saturating_add(*size);
    }
    if start < sizes.len() {
        runs.push(start..sizes.len());
    }
    runs
}
