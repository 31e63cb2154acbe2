//! Which partition of a table each new row belongs to (Iceberg specification, Partition Transforms).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int32Array, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Date32Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType};
use arrow::row::{Row, RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use chrono::{Datelike, NaiveDate};
use datafusion::common::ScalarValue;
use iceberg::spec::{Literal, PartitionSpec, PrimitiveLiteral, PrimitiveType, Schema, Struct, Transform};
use iceberg::transform::create_transform_function;
use nexus_flight_catalog::{Error, Result};
use url::form_urlencoded::byte_serialize;

use super::unwritten;
use crate::iceberg::types::column;

/// From the first day of the year 1 to that of 1970.
const DAYS: i64 = 719_163;
/// The most letters of a part of the name of a folder, which tells people and nobody else.
const LONGEST: usize = 80;

/// How rows are parted.
pub(super) struct Parting {
    fields: Vec<Part>,
    converter: RowConverter,
}

/// A field of the partitions.
struct Part {
    name: String,
    transform: Transform,
    /// The place of the column that it is made of; none where it is always NULL.
    column: Option<usize>,
}

/// What rows of one partition have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Partition {
    /// Tells partitions apart, which the values alone do not: to metadata 0.0 equals -0.0.
    key: Vec<u8>,
    pub(super) values: Struct,
    /// The folders that its files go into, with slashes between; empty for a table without partitions.
    pub(super) folder: String,
}

impl Parting {
    /// By a spec, of rows with the columns of a schema. Errors: `Unsupported` for a transform that is not made here, by name.
    pub(super) fn of(spec: &PartitionSpec, schema: &Schema) -> Result<Self> {
        let (mut fields, mut types) = (Vec::new(), Vec::new());
        for field in spec.fields() {
            let refused = |why: &str| Err(unwritten(&format!("the partition \"{}\" {why}", field.name)));
            let columns = schema.as_struct().fields().iter();
            let place = columns.clone().position(|column| column.id == field.source_id);
            let source = columns.clone().find(|column| column.id == field.source_id);
            let place = match (&field.transform, place, source) {
                (Transform::Void, ..) => None,
                (Transform::Unknown, ..) => return refused("is made by a transform that is not known"),
                (Transform::Bucket(0) | Transform::Truncate(0), ..) => return refused("has the width 0"),
                (Transform::Bucket(width) | Transform::Truncate(width), ..) if i32::try_from(*width).is_err() => {
                    return refused("is too wide");
                }
                (_, None, _) | (_, _, None) => return refused("is made of a field within a column"),
                (transform, Some(place), Some(source)) => {
                    let of = transform.result_type(&source.field_type);
                    if of.is_err() || !source.field_type.is_primitive() {
                        return refused("is made of a column of another type than its transform is for");
                    }
                    if *transform == Transform::Identity && source.field_type.as_primitive_type() == Some(&PrimitiveType::Uuid) {
                        return refused("is a UUID as it is");
                    }
                    let (seen, _) = column(source, None)?;
                    types.push(SortField::new(match transform {
                        Transform::Identity | Transform::Truncate(_) => seen.data_type().clone(),
                        Transform::Day => DataType::Date32,
                        _ => DataType::Int32,
                    }));
                    Some(place)
                }
            };
            fields.push(Part { name: field.name.clone(), transform: field.transform, column: place });
        }
        Ok(Self { fields, converter: RowConverter::new(types)? })
    }

    /// Parts rows. Errors: `Invalid` for a time that no partition can be made of.
    pub(super) fn split(&self, rows: RecordBatch) -> Result<Vec<(Partition, RecordBatch)>> {
        let made = self.fields.iter().map(|part| {
            let column = part.column.map(|place| transformed(&part.transform, rows.column(place)));
            column.transpose()
        });
        let made = made.collect::<Result<Vec<Option<ArrayRef>>>>()?;
        let columns: Vec<ArrayRef> = made.iter().flatten().cloned().collect();
        if columns.is_empty() || rows.num_rows() == 0 {
            let (values, folder) = self.partition(&made, 0)?;
            return Ok(vec![(Partition { key: Vec::new(), values, folder }, rows)]);
        }
        let keys = self.converter.convert_columns(&columns)?;
        let mut places: HashMap<Row<'_>, usize> = HashMap::new();
        let mut groups: Vec<(Row<'_>, Vec<u32>)> = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            let group = *places.entry(key).or_insert(groups.len());
            if group == groups.len() {
                groups.push((key, Vec::new()));
            }
            groups[group].1.push(u32::try_from(place).map_err(|_| Error::internal("a batch of too many rows"))?);
        }
        let parts = groups.into_iter().map(|(key, members)| -> Result<(Partition, RecordBatch)> {
            let first = members.first().map_or(0, |place| *place as usize);
            let (values, folder) = self.partition(&made, first)?;
            let rows = take_record_batch(&rows, &UInt32Array::from(members))?;
            Ok((Partition { key: key.as_ref().to_vec(), values, folder }, rows))
        });
        parts.collect()
    }

    /// The partition of a row, and its folder.
    fn partition(&self, made: &[Option<ArrayRef>], row: usize) -> Result<(Struct, String)> {
        let (mut values, mut folders) = (Vec::new(), Vec::new());
        for (part, made) in self.fields.iter().zip(made) {
            let made = made.as_ref().filter(|made| row < made.len());
            let value = made.map(|made| literal(made, row)).transpose()?.flatten();
            let text = match (&value, made) {
                (Some(Literal::Primitive(PrimitiveLiteral::Int(number))), _) => text(&part.transform, *number),
                _ => None,
            };
            let text = match (text, made) {
                (Some(text), _) => text,
                (None, Some(made)) if value.is_some() => array_value_to_string(made, row)?,
                _ => "null".to_owned(),
            };
            folders.push(format!("{}={}", encoded(&part.name), encoded(&text)));
            values.push(value);
        }
        Ok((Struct::from_iter(values), folders.join("/")))
    }
}

fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect::<String>().chars().take(LONGEST).collect()
}

/// What people see of a time that is a number; none where it is no such time.
fn text(transform: &Transform, number: i32) -> Option<String> {
    match transform {
        Transform::Year => Some(format!("{:04}", i64::from(number) + 1970)),
        Transform::Month => Some(format!("{:04}-{:02}", i64::from(number.div_euclid(12)) + 1970, number.rem_euclid(12) + 1)),
        Transform::Hour => {
            let day = date(i64::from(number.div_euclid(24)))?;
            Some(format!("{}-{:02}", day.format("%Y-%m-%d"), number.rem_euclid(24)))
        }
        _ => None,
    }
}

fn date(days: i64) -> Option<NaiveDate> {
    NaiveDate::from_num_days_from_ce_opt(i32::try_from(days + DAYS).ok()?)
}

/// The values of a partition for those of a column. The times of the format's crate are not used: before 1970 they are wrong by a
/// day in the second before midnight.
pub(in crate::iceberg) fn transformed(transform: &Transform, column: &ArrayRef) -> Result<ArrayRef> {
    Ok(match (transform, column.data_type()) {
        (Transform::Identity, _) => Arc::clone(column),
        (Transform::Year | Transform::Month | Transform::Day | Transform::Hour, _) => return times(transform, column),
        // The crate's own would go beyond what these hold.
        (Transform::Truncate(width), DataType::Int32) => {
            let width = i64::from(*width);
            let cut = |value: i32| (i64::from(value) - i64::from(value).rem_euclid(width)) as i32;
            Arc::new(column.as_primitive::<Int32Type>().unary::<_, Int32Type>(cut))
        }
        (Transform::Truncate(width), DataType::Int64) => {
            let width = i64::from(*width);
            let cut = |value: i64| value.wrapping_sub(value.rem_euclid(width));
            Arc::new(column.as_primitive::<Int64Type>().unary::<_, Int64Type>(cut))
        }
        // The crate's own rounds to zero.
        (Transform::Bucket(_), DataType::Timestamp(TimeUnit::Nanosecond, _)) => {
            let micros = |value: i64| value.div_euclid(1000);
            let micros = column.as_primitive::<TimestampNanosecondType>().unary::<_, TimestampMicrosecondType>(micros);
            made(transform, Arc::new(micros))?
        }
        _ => made(transform, Arc::clone(column))?,
    })
}

/// By the format's crate.
fn made(transform: &Transform, column: ArrayRef) -> Result<ArrayRef> {
    let made = create_transform_function(transform).and_then(|function| function.transform(column));
    made.map_err(|cause| unwritten(&format!("a partition cannot be made: {}", cause.message())))
}

fn times(transform: &Transform, column: &ArrayRef) -> Result<ArrayRef> {
    let seconds: Int64Array = match column.data_type() {
        DataType::Date32 => column.as_primitive::<Date32Type>().unary(|days| i64::from(days) * 86_400),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            column.as_primitive::<TimestampMicrosecondType>().unary(|time| time.div_euclid(1_000_000))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            column.as_primitive::<TimestampNanosecondType>().unary(|time| time.div_euclid(1_000_000_000))
        }
        other => return Err(Error::internal(format!("a partition of times is made of {other}"))),
    };
    let value = |seconds: i64| -> Option<i32> {
        let days = seconds.div_euclid(86_400);
        match transform {
            Transform::Hour => i32::try_from(seconds.div_euclid(3600)).ok(),
            Transform::Day => i32::try_from(days).ok(),
            Transform::Year => Some(date(days)?.year() - 1970),
            _ => Some((date(days)?.year() - 1970) * 12 + date(days)?.month0() as i32),
        }
    };
    let values = seconds.iter().map(|seconds| {
        let value = seconds.map(|seconds| value(seconds).ok_or_else(|| Error::invalid("no partition is made of so far a time")));
        value.transpose()
    });
    match transform {
        Transform::Day => Ok(Arc::new(values.collect::<Result<Date32Array>>()?)),
        _ => Ok(Arc::new(values.collect::<Result<Int32Array>>()?)),
    }
}

/// A value as metadata has it; none for NULL.
fn literal(column: &ArrayRef, row: usize) -> Result<Option<Literal>> {
    use ScalarValue as S;
    if column.is_null(row) {
        return Ok(None);
    }
    let primitive = match ScalarValue::try_from_array(column, row)? {
        S::Boolean(Some(value)) => PrimitiveLiteral::Boolean(value),
        S::Int32(Some(value)) | S::Date32(Some(value)) => PrimitiveLiteral::Int(value),
        S::Int64(Some(value)) | S::Time64Microsecond(Some(value)) => PrimitiveLiteral::Long(value),
        S::TimestampMicrosecond(Some(value), _) | S::TimestampNanosecond(Some(value), _) => PrimitiveLiteral::Long(value),
        S::Float32(Some(value)) => return Ok(Some(Literal::float(value))),
        S::Float64(Some(value)) => return Ok(Some(Literal::double(value))),
        S::Utf8(Some(value)) => PrimitiveLiteral::String(value),
        S::Binary(Some(value)) | S::FixedSizeBinary(_, Some(value)) => PrimitiveLiteral::Binary(value),
        S::Decimal128(Some(value), ..) => PrimitiveLiteral::Int128(value),
        other => return Err(Error::internal(format!("a partition has a value of the type {}", other.data_type()))),
    };
    Ok(Some(Literal::Primitive(primitive)))
}

#[cfg(test)]
mod tests {
    use arrow::array::{StringArray, TimestampMicrosecondArray};

    use super::*;

    fn parting(fields: serde_json::Value) -> Result<Parting> {
        let schema: Schema = serde_json::from_value(serde_json::json!({
            "type": "struct", "schema-id": 0, "fields": [
                { "id": 1, "name": "name", "required": false, "type": "string" },
                { "id": 2, "name": "at", "required": false, "type": "timestamp" },
                { "id": 3, "name": "number", "required": false, "type": "int" },
            ],
        }))
        .unwrap();
        let spec: PartitionSpec = serde_json::from_value(serde_json::json!({ "spec-id": 0, "fields": fields })).unwrap();
        Parting::of(&spec, &schema)
    }

    fn rows() -> RecordBatch {
        let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a/b"), None, Some("a/b"), Some("名")]));
        // The second before midnight of a day before 1970, and a moment of 2024.
        let times = vec![-86_400_500_000, -1, -86_400_500_000, 1_704_103_200_000_000];
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times));
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![-1, 0, -1, i32::MIN]));
        RecordBatch::try_from_iter_with_nullable([("name", names, true), ("at", times, true), ("number", numbers, true)]).unwrap()
    }

    fn folders(fields: serde_json::Value) -> Vec<(String, usize)> {
        let parts = parting(fields).unwrap().split(rows()).unwrap();
        parts.into_iter().map(|(partition, rows)| (partition.folder, rows.num_rows())).collect()
    }

    fn field(name: &str, transform: &str, source: i32) -> serde_json::Value {
        serde_json::json!({ "name": name, "transform": transform, "source-id": source, "field-id": 1000 + source })
    }

    #[test]
    fn rows_of_one_partition_are_together() {
        let shown = |transform: &str, source: i32| {
            folders(serde_json::json!([field("p", transform, source)])).into_iter().map(|(folder, _)| folder).collect::<Vec<_>>()
        };
        assert_eq!(shown("identity", 1), ["p=a%2Fb", "p=null", "p=%E5%90%8D"]);
        assert_eq!(shown("day", 2), ["p=1969-12-30", "p=1969-12-31", "p=2024-01-01"]);
        assert_eq!(shown("month", 2), ["p=1969-12", "p=2024-01"]);
        assert_eq!(shown("year", 2), ["p=1969", "p=2024"]);
        assert_eq!(shown("hour", 2), ["p=1969-12-30-23", "p=1969-12-31-23", "p=2024-01-01-10"]);
        assert_eq!(shown("truncate[10]", 3)[..2], ["p=-10", "p=0"]);
        assert_eq!(shown("void", 1), ["p=null"]);
        let both = folders(serde_json::json!([field("名", "identity", 1), field("n", "void", 3)]));
        assert_eq!(both.first(), Some(&("%E5%90%8D=a%2Fb/n=null".to_owned(), 2)));
        assert_eq!(folders(serde_json::json!([])), [(String::new(), 4)]);
    }

    #[test]
    fn buckets_are_those_of_the_specification() {
        // Of Appendix B: the hash of 34 is 2017239379.
        let of: ArrayRef = Arc::new(Int32Array::from(vec![Some(34), None]));
        let buckets = transformed(&Transform::Bucket(16), &of).unwrap();
        assert_eq!(buckets.as_primitive::<Int32Type>(), &Int32Array::from(vec![Some(2_017_239_379 % 16), None]));
    }

    #[test]
    fn transforms_that_are_not_made_are_refused() {
        let refusal = |transform: &str, source| {
            let error = parting(serde_json::json!([field("p", transform, source)])).err().unwrap();
            error.message().to_owned()
        };
        insta::assert_snapshot!(refusal("unknown", 1), @r#"this table takes no rows here: the partition "p" is made by a transform that is not known"#);
        insta::assert_snapshot!(refusal("bucket[0]", 1), @r#"this table takes no rows here: the partition "p" has the width 0"#);
        insta::assert_snapshot!(refusal("day", 1), @r#"this table takes no rows here: the partition "p" is made of a column of another type than its transform is for"#);
        insta::assert_snapshot!(refusal("identity", 9), @r#"this table takes no rows here: the partition "p" is made of a field within a column"#);
    }
}
