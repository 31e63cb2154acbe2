//! Dates and times that text cannot show: the writers would put what is wrong in the place of the value.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampSecondType,
};
use arrow::temporal_conversions::as_datetime;
use nexus_flight_catalog::{Error, Result};

/// Errors: `Invalid` where a row holds a date or time before or after all years that have a name.
pub fn refuse_unnamed(batch: &RecordBatch) -> Result<()> {
    batch.schema_ref().fields().iter().zip(batch.columns()).try_for_each(|(field, column)| {
        if has_names(column) {
            return Ok(());
        }
        let message = format!("the column \"{}\" holds a date or time that text cannot show", field.name());
        Err(Error::invalid(message).with_hint("select it as a number, or fetch the rows as Arrow"))
    })
}

fn has_names(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::Date32 => has_all::<Date32Type>(column),
        DataType::Date64 => has_all::<Date64Type>(column),
        DataType::Timestamp(TimeUnit::Second, _) => has_all::<TimestampSecondType>(column),
        DataType::Timestamp(TimeUnit::Millisecond, _) => has_all::<TimestampMillisecondType>(column),
        DataType::Timestamp(TimeUnit::Microsecond, _) => has_all::<TimestampMicrosecondType>(column),
        DataType::Struct(_) => column.as_struct().columns().iter().all(has_names),
        DataType::List(_) => has_names(column.as_list::<i32>().values()),
        DataType::LargeList(_) => has_names(column.as_list::<i64>().values()),
        DataType::FixedSizeList(..) => has_names(column.as_fixed_size_list().values()),
        DataType::Map(..) => column.as_map().entries().columns().iter().all(has_names),
        _ => true,
    }
}

fn has_all<T>(column: &ArrayRef) -> bool
where
    T: ArrowPrimitiveType,
    i64: From<T::Native>,
{
    let column = column.as_primitive::<T>();
    [min(column), max(column)].into_iter().flatten().all(|value| as_datetime::<T>(value.into()).is_some())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, TimestampSecondArray};

    use super::*;

    #[test]
    fn the_years_that_have_names() {
        let refused = |column: ArrayRef| refuse_unnamed(&RecordBatch::try_from_iter([("t", column)]).unwrap()).err();
        assert!(refused(Arc::new(TimestampSecondArray::from(vec![Some(0), None, Some(253_402_300_799)]))).is_none());
        assert!(refused(Arc::new(Date32Array::from(vec![-719_162, 2_932_896]))).is_none());
        let error = refused(Arc::new(TimestampSecondArray::from(vec![i64::MAX]))).unwrap();
        assert_eq!(error.message(), "the column \"t\" holds a date or time that text cannot show");
        assert!(refused(Arc::new(Date32Array::from(vec![i32::MIN]))).is_some());
    }
}
