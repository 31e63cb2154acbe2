//! Which files lack some values, as the buckets of their partitions tell (Iceberg specification, Bucket Transform Details).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int32Type, Schema as ArrowSchema, TimeUnit};
use datafusion::common::ScalarValue;
use iceberg::spec::{PrimitiveLiteral, Schema, Transform};

use super::append::transformed;
use super::snapshot::Entry;
use super::table::Table;
use crate::lake::Lacking;

/// The bucket of files in which a column has no values but NULL; those of values are not below 0.
const NULLS: i32 = -1;

/// By the buckets of each column that some files are partitioned by.
#[derive(Debug)]
struct Buckets(Vec<Bucketed>);

/// The buckets of a column.
#[derive(Debug)]
struct Bucketed {
    /// The place of the column, and its type.
    column: usize,
    data_type: DataType,
    transform: Transform,
    /// That of each file; none of those that are not partitioned so.
    files: Vec<Option<i32>>,
}

/// What the buckets of these files tell; none where there are none. The columns are those of `schema`, which clients see as `arrow`.
pub(super) fn lacking(table: &Table, schema: &Schema, arrow: &ArrowSchema, data: &[Entry<'_>]) -> Option<Arc<dyn Lacking>> {
    let mut found: BTreeMap<(usize, u32), Vec<Option<i32>>> = BTreeMap::new();
    for (file, entry) in data.iter().enumerate() {
        let Some(spec) = table.metadata.partition_spec_by_id(entry.files.spec) else { continue };
        for (place, field) in spec.fields().iter().enumerate() {
            let Transform::Bucket(width) = field.transform else { continue };
            let column = schema.as_struct().fields().iter().position(|column| column.id == field.source_id);
            let (Some(column), Some(bucket)) = (column, bucket(entry, place, width)) else { continue };
            let files = found.entry((column, width)).or_insert_with(|| vec![None; data.len()]);
            files[file] = Some(bucket);
        }
    }
    let bucketed = found.into_iter().filter_map(|((column, width), files)| {
        let data_type = arrow.fields().get(column)?.data_type().clone();
        is_hashed(&data_type).then_some(Bucketed { column, data_type, transform: Transform::Bucket(width), files })
    });
    let bucketed: Vec<Bucketed> = bucketed.collect();
    (!bucketed.is_empty()).then(|| Arc::new(Buckets(bucketed)) as Arc<dyn Lacking>)
}

/// The bucket of a file, from a field of its partition; none where it is no bucket of so many.
fn bucket(entry: &Entry<'_>, place: usize, width: u32) -> Option<i32> {
    i32::try_from(width).ok()?;
    let Some(literal) = entry.entry.data_file().partition().fields().get(place)? else { return Some(NULLS) };
    match literal.as_primitive_literal()? {
        PrimitiveLiteral::Int(bucket) if u32::try_from(bucket).is_ok_and(|bucket| bucket < width) => Some(bucket),
        _ => None,
    }
}

/// Whether values of a type have one hash, in whatever type they were written before the column was promoted to this one.
fn is_hashed(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int32
            | DataType::Int64
            | DataType::Decimal128(..)
            | DataType::Date32
            | DataType::Timestamp(TimeUnit::Microsecond, _)
            | DataType::Utf8
    )
}

impl Lacking for Buckets {
    fn lacking(&self, column: usize, values: &[&ScalarValue]) -> Option<Vec<bool>> {
        let told = self.0.iter().filter(|bucketed| bucketed.column == column).filter_map(|bucketed| bucketed.lacking(values));
        told.reduce(|one, other| one.into_iter().zip(other).map(|(one, other)| one || other).collect())
    }
}

impl Bucketed {
    /// For each file whether its bucket has none of these values; none where it is not known which buckets they are in.
    fn lacking(&self, values: &[&ScalarValue]) -> Option<Vec<bool>> {
        if values.iter().any(|value| value.is_null() || value.data_type() != self.data_type) {
            return None;
        }
        let values = ScalarValue::iter_to_array(values.iter().copied().cloned()).ok()?;
        let wanted = transformed(&self.transform, &values).ok()?;
        let wanted: HashSet<i32> = wanted.as_primitive_opt::<Int32Type>()?.iter().flatten().collect();
        Some(self.files.iter().map(|bucket| bucket.is_some_and(|bucket| !wanted.contains(&bucket))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucketed(data_type: DataType, width: u32, files: &[Option<i32>]) -> Bucketed {
        Bucketed { column: 1, data_type, transform: Transform::Bucket(width), files: files.to_vec() }
    }

    #[test]
    fn a_value_is_in_one_bucket() {
        // The hash of 34 is 2017239379 (Iceberg specification, 32-bit Hash Requirements), which is 3 in 16.
        let files = [Some(3), Some(4), None, Some(NULLS)];
        let lacking = |data_type: DataType, value: ScalarValue| bucketed(data_type, 16, &files).lacking(&[&value]);
        let told = Some(vec![false, true, false, true]);
        assert_eq!(lacking(DataType::Int64, ScalarValue::Int64(Some(34))), told);
        assert_eq!(lacking(DataType::Int32, ScalarValue::Int32(Some(34))), told);
        assert_eq!(lacking(DataType::Int64, ScalarValue::Int32(Some(34))), None);
        assert_eq!(lacking(DataType::Int64, ScalarValue::Int64(None)), None);
    }

    #[test]
    fn buckets_of_one_column_tell_together() {
        // That of "iceberg" is 1210000089: 9 in 16, and 1 in 8.
        let buckets = Buckets(vec![
            bucketed(DataType::Utf8, 16, &[Some(9), Some(8), None, None]),
            bucketed(DataType::Utf8, 8, &[None, None, Some(1), Some(2)]),
        ]);
        let value = ScalarValue::Utf8(Some("iceberg".to_owned()));
        assert_eq!(buckets.lacking(1, &[&value]), Some(vec![false, true, false, true]));
        assert_eq!(buckets.lacking(0, &[&value]), None);
        assert_eq!(buckets.lacking(1, &[]), None);
    }
}
