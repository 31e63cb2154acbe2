//! How many values of new files are NaN, column by column: their footers do not tell, and leave them out of what they tell.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type};

/// Of each column of a file without those that hold others, one after the other, how many values are NaN. What lists and maps hold is
/// not counted.
#[derive(Debug, Default)]
pub(crate) struct Nans(Vec<u64>);

impl Nans {
    /// Counts those of more rows, as the file holds them.
    pub(crate) fn add(&mut self, rows: &RecordBatch) {
        let mut leaf = 0;
        for column in rows.columns() {
            self.count(column, None, &mut leaf);
        }
    }

    /// How many there are in a column at this place.
    pub(crate) fn of(&self, leaf: usize) -> u64 {
        self.0.get(leaf).copied().unwrap_or_default()
    }

    /// Counts those of a column whose first one in the file is `leaf`, within a column that is NULL there.
    fn count(&mut self, column: &ArrayRef, hidden: Option<&NullBuffer>, leaf: &mut usize) {
        let found = match column.data_type() {
            DataType::Struct(_) => {
                let hidden = NullBuffer::union(hidden, column.nulls());
                for within in column.as_struct().columns() {
                    self.count(within, hidden.as_ref(), leaf);
                }
                return;
            }
            DataType::Float32 => nans::<Float32Type>(column, hidden, f32::is_nan),
            DataType::Float64 => nans::<Float64Type>(column, hidden, f64::is_nan),
            _ => 0,
        };
        if self.0.len() <= *leaf {
            self.0.resize(*leaf + 1, 0);
        }
        if let Some(count) = self.0.get_mut(*leaf) {
            *count += found;
        }
        *leaf += leaves(column.data_type());
    }
}

fn nans<T: ArrowPrimitiveType>(column: &ArrayRef, hidden: Option<&NullBuffer>, is_nan: impl Fn(T::Native) -> bool) -> u64 {
    let values = column.as_primitive::<T>().values();
    if !values.iter().any(|value| is_nan(*value)) {
        return 0;
    }
    // What is NULL may be anything beneath.
    let nulls = NullBuffer::union(hidden, column.nulls());
    let is_there = |place: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(place));
    values.iter().enumerate().filter(|(place, value)| is_nan(**value) && is_there(*place)).count() as u64
}

/// How many columns of a file one of this type is.
pub(crate) fn leaves(data_type: &DataType) -> usize {
    match data_type {
        DataType::Struct(fields) => fields.iter().map(|field| leaves(field.data_type())).sum(),
        DataType::List(field) | DataType::Map(field, _) => leaves(field.data_type()),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float32Array, Float64Array, Int32Array, ListArray, StructArray};
    use arrow::datatypes::{Field, Fields};

    use super::*;

    #[test]
    fn those_beneath_a_null_are_none() {
        let hidden = NullBuffer::from(vec![true, false, true]);
        let doubles = Float64Array::new(vec![f64::NAN; 3].into(), Some(NullBuffer::from(vec![true, true, false])));
        let list = ListArray::from_iter_primitive::<Float64Type, _, _>([Some([Some(f64::NAN)]), None, None]);
        let fields: Vec<Field> = [DataType::Float64, list.data_type().clone(), DataType::Float32]
            .into_iter()
            .enumerate()
            .map(|(place, data_type)| Field::new(place.to_string(), data_type, true))
            .collect();
        let floats = Float32Array::from(vec![0.5, f32::NAN, f32::NAN]);
        let within: Vec<ArrayRef> = vec![Arc::new(doubles), Arc::new(list), Arc::new(floats.clone())];
        let both = StructArray::new(Fields::from(fields), within, Some(hidden));
        let columns: [(&str, ArrayRef); 3] =
            [("n", Arc::new(Int32Array::from(vec![1, 2, 3]))), ("s", Arc::new(both)), ("f", Arc::new(floats))];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let mut nans = Nans::default();
        nans.add(&rows);
        nans.add(&rows.slice(2, 1));
        assert_eq!([0, 1, 2, 3, 4, 5].map(|leaf| nans.of(leaf)), [0, 1, 0, 2, 3, 0]);
    }
}
