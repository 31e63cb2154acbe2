//! Values of text formats as the types of their columns, or an error. The readers of JSON and CSV cut what does not fit: 2.9
//! is read as the whole number 2, and a time of day is dropped where a date is wanted. So where that can happen they read
//! another type, which holds all of it, and what they read is converted here.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, LargeListArray, ListArray, PrimitiveArray, StringArray, StructArray,
    downcast_integer, new_null_array,
};
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{
    ArrowPrimitiveType, ArrowTimestampType, DataType, Date32Type, Decimal128Type, Field, FieldRef, Fields, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use chrono::{DateTime, NaiveDate, NaiveTime, TimeZone, Utc};
use nexus_flight_catalog::{Error, Result};

use super::format::Format;

/// The digits after the point that are kept of a number in JSON, until it is known to have none.
const SCALE: i8 = 18;
const ONE: i128 = 1_000_000_000_000_000_000;

/// The type to read for a column of a type: the same, where the reader refuses what does not fit.
pub(super) fn read_as(format: Format, wanted: &DataType) -> DataType {
    let field = |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(read_as(format, field.data_type())));
    match (format, wanted) {
        (Format::Json, DataType::Struct(fields)) => DataType::Struct(fields.iter().map(field).collect()),
        (Format::Json, DataType::List(items)) => DataType::List(field(items)),
        (Format::Json, DataType::LargeList(items)) => DataType::LargeList(field(items)),
        (Format::Json, whole) if whole.is_integer() => DataType::Decimal128(38, SCALE),
        (Format::Json | Format::Csv, DataType::Date32 | DataType::Timestamp(..)) => DataType::Utf8,
        (_, other) => other.clone(),
    }
}

/// The columns to read for the columns of a table.
pub(super) fn fields_read_as(format: Format, wanted: &Fields) -> Fields {
    wanted
        .iter()
        .map(|field| field.as_ref().clone().with_data_type(read_as(format, field.data_type())))
        .collect::<Vec<Field>>()
        .into()
}

/// What was read, as the wanted type. Errors: `Data`, with the first value that does not fit.
pub(super) fn converted(read: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    if read.data_type() == wanted {
        return Ok(Arc::clone(read));
    }
    match (read.data_type(), wanted) {
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let read = read.as_struct();
            let columns = read.columns().iter().zip(fields).map(|(column, field)| converted(column, field.data_type()));
            let columns = columns.collect::<Result<Vec<_>>>()?;
            Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, read.nulls().cloned(), read.len())?))
        }
        (DataType::List(_), DataType::List(items)) => {
            let (_, offsets, values, nulls) = read.as_list::<i32>().clone().into_parts();
            Ok(Arc::new(ListArray::try_new(Arc::clone(items), offsets, converted(&values, items.data_type())?, nulls)?))
        }
        (DataType::LargeList(_), DataType::LargeList(items)) => {
            let (_, offsets, values, nulls) = read.as_list::<i64>().clone().into_parts();
            Ok(Arc::new(LargeListArray::try_new(Arc::clone(items), offsets, converted(&values, items.data_type())?, nulls)?))
        }
        (DataType::Decimal128(..), wanted) if wanted.is_integer() => {
            macro_rules! whole {
                ($number:ty) => {
                    Ok(Arc::new(whole_numbers::<$number>(read.as_primitive(), wanted)?))
                };
            }
            downcast_integer! {
                wanted => (whole),
                other => Err(Error::internal(format!("{other} is no whole number"))),
            }
        }
        (DataType::Utf8, DataType::Date32) => {
            let days: Date32Array = texts(read.as_string(), wanted, |text| {
                let date = match text.len() {
                    ..=10 => text.parse::<NaiveDate>().ok()?,
                    _ => moment(&Utc, text).filter(|moment| moment.time() == NaiveTime::MIN)?.date_naive(),
                };
                Some(Date32Type::from_naive_date(date))
            })?;
            Ok(Arc::new(days))
        }
        (DataType::Utf8, DataType::Timestamp(unit, zone)) => {
            let zone = zone.as_deref().unwrap_or("+00:00");
            let zone: Tz = zone.parse().map_err(|cause| Error::invalid(format!("{zone} is no time zone: {cause}")))?;
            let texts_read = read.as_string();
            let read: ArrayRef = match unit {
                TimeUnit::Second => Arc::new(times::<TimestampSecondType>(texts_read, wanted, &zone)?),
                TimeUnit::Millisecond => Arc::new(times::<TimestampMillisecondType>(texts_read, wanted, &zone)?),
                TimeUnit::Microsecond => Arc::new(times::<TimestampMicrosecondType>(texts_read, wanted, &zone)?),
                TimeUnit::Nanosecond => Arc::new(times::<TimestampNanosecondType>(texts_read, wanted, &zone)?),
            };
            Ok(read)
        }
        (DataType::Null, wanted) => Ok(new_null_array(wanted, read.len())),
        (read, wanted) => Err(Error::internal(format!("{read} was read for a column of {wanted}"))),
    }
}

const HINT: &str = "declare the column with a type that holds all its values, such as DOUBLE, TIMESTAMP or VARCHAR";

fn unfit(value: impl std::fmt::Display, wanted: &DataType) -> Error {
    let kind = match wanted {
        DataType::Date32 => "a date".to_owned(),
        DataType::Timestamp(unit, _) => format!("a time of the unit {unit:?}").to_lowercase(),
        other => format!("a whole number of the type {other}"),
    };
    Error::data(format!("{value} is not {kind}, which the column holds")).with_hint(HINT)
}

fn whole_numbers<T>(read: &Decimal128Array, wanted: &DataType) -> Result<PrimitiveArray<T>>
where
    T: ArrowPrimitiveType<Native: TryFrom<i128>>,
{
    let fits = |value: i128| if value % ONE == 0 { T::Native::try_from(value / ONE).ok() } else { None };
    read.try_unary::<_, T, Error>(|value| {
        fits(value).ok_or_else(|| {
            let shown = <Decimal128Type as arrow::datatypes::DecimalType>::format_decimal(value, 38, SCALE);
            unfit(shown.trim_end_matches('0').trim_end_matches('.'), wanted)
        })
    })
}

fn texts<T: ArrowPrimitiveType>(
    read: &StringArray,
    wanted: &DataType,
    parsed: impl Fn(&str) -> Option<T::Native>,
) -> Result<PrimitiveArray<T>> {
    read.iter()
        .map(|text| text.map(|text| parsed(text).ok_or_else(|| unfit(format!("{text:?}"), wanted))).transpose())
        .collect::<Result<PrimitiveArray<T>>>()
        .map(|array| array.with_data_type(wanted.clone()))
}

fn times<T: ArrowTimestampType>(read: &StringArray, wanted: &DataType, zone: &Tz) -> Result<PrimitiveArray<T>> {
    let nanos = match T::UNIT {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    texts(read, wanted, |text| {
        let moment = moment(zone, text).filter(|moment| moment.timestamp_subsec_nanos() % nanos == 0)?;
        T::from_datetime(moment.to_utc())
    })
}

fn moment<Z: TimeZone>(zone: &Z, text: &str) -> Option<DateTime<Z>> {
    string_to_datetime(zone, text).ok()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int8Array, UInt64Array};

    use super::*;

    fn numbers(values: &[i128]) -> ArrayRef {
        Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(38, SCALE).unwrap())
    }

    fn text(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn said(read: &ArrayRef, wanted: &DataType) -> String {
        converted(read, wanted)
            .map_or_else(|error| error.message().to_owned(), |array| format!("{array:?}").replace(['\n', ' '], ""))
    }

    #[test]
    fn whole_numbers_stay_whole() {
        let read = numbers(&[5 * ONE, -128 * ONE]);
        assert_eq!(converted(&read, &DataType::Int8).unwrap().as_ref(), &Int8Array::from(vec![5, -128]));
        let largest = numbers(&[i128::from(u64::MAX) * ONE]);
        assert_eq!(converted(&largest, &DataType::UInt64).unwrap().as_ref(), &UInt64Array::from(vec![u64::MAX]));
        insta::assert_snapshot!(said(&numbers(&[29 * ONE / 10]), &DataType::Int64), @"2.9 is not a whole number of the type Int64, which the column holds");
        insta::assert_snapshot!(said(&numbers(&[128 * ONE]), &DataType::Int8), @"128 is not a whole number of the type Int8, which the column holds");
        insta::assert_snapshot!(said(&largest, &DataType::Int64), @"18446744073709551615 is not a whole number of the type Int64, which the column holds");
    }

    #[test]
    fn no_part_of_a_time_is_dropped() {
        let second = DataType::Timestamp(TimeUnit::Second, None);
        insta::assert_snapshot!(said(&text(&["2024-01-01", "2024-02-29 00:00:00"]), &DataType::Date32), @"PrimitiveArray<Date32>[2024-01-01,2024-02-29,]");
        insta::assert_snapshot!(said(&text(&["2024-01-01 10:30:00"]), &DataType::Date32), @r#""2024-01-01 10:30:00" is not a date, which the column holds"#);
        insta::assert_snapshot!(said(&text(&["2024-01-01T10:30:00", "9999-12-31"]), &second), @"PrimitiveArray<Timestamp(s)>[2024-01-01T10:30:00,9999-12-31T00:00:00,]");
        insta::assert_snapshot!(said(&text(&["2024-01-01 10:30:00.5"]), &second), @r#""2024-01-01 10:30:00.5" is not a time of the unit second, which the column holds"#);
        insta::assert_snapshot!(said(&text(&["2024-01-01T10:30:00.000000001"]), &DataType::Timestamp(TimeUnit::Nanosecond, Some("Europe/Berlin".into()))), @r#"PrimitiveArray<Timestamp(ns,"Europe/Berlin")>[2024-01-01T10:30:00.000000001+01:00,]"#);
        insta::assert_snapshot!(said(&text(&["9999-12-31"]), &DataType::Timestamp(TimeUnit::Nanosecond, None)), @r#""9999-12-31" is not a time of the unit nanosecond, which the column holds"#);
    }

    #[test]
    fn what_is_nested_is_converted_too() {
        let wanted = DataType::Struct(
            vec![Field::new("a", DataType::List(Arc::new(Field::new("item", DataType::Int64, true))), true)].into(),
        );
        let read = read_as(Format::Json, &wanted);
        let lines = std::io::Cursor::new("{\"s\":{\"a\":[1,null]}}\n{\"s\":null}\n");
        let schema = arrow::datatypes::Schema::new(vec![Field::new("s", read, true)]);
        let mut reader = arrow::json::ReaderBuilder::new(Arc::new(schema)).build(lines).unwrap();
        let batch = reader.next().unwrap().unwrap();
        let column = converted(batch.column(0), &wanted).unwrap();
        assert_eq!(column.data_type(), &wanted);
        assert_eq!((column.len(), column.null_count()), (2, 1));
    }
}
