//! What rows take once each has values of its own: those of dictionaries and of list views are shared by as many as like, and are
//! copied for each where they are cast.

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait, make_array};
use arrow::compute::cast;
use arrow::datatypes::{ArrowNativeType, DataType, Int64Type};
use datafusion::error::Result;

use super::measure::{bytes, lengths};

/// The bytes of a column without anything shared, at the least those that it has.
pub fn unfolded(array: &ArrayRef) -> Result<usize> {
    let all = match array.data_type() {
        DataType::Dictionary(..) => dictionary(array)?,
        DataType::ListView(_) => views::<i32>(array)?,
        DataType::LargeListView(_) => views::<i64>(array)?,
        DataType::RunEndEncoded(..) => match array.to_data().child_data().get(1) {
            Some(values) => mean(&make_array(values.clone()))?.saturating_mul(array.len()),
            None => 0,
        },
        _ => {
            let data = array.to_data();
            let children = data.child_data().iter().map(|child| unfolded(&make_array(child.clone())));
            children.sum::<Result<usize>>()?
        }
    };
    Ok(all.max(bytes(array)))
}

/// The bytes of one of these values.
fn mean(values: &ArrayRef) -> Result<usize> {
    Ok(unfolded(values)?.div_ceil(values.len().max(1)))
}

fn dictionary(array: &ArrayRef) -> Result<usize> {
    let dictionary = array.as_any_dictionary();
    let values = dictionary.values();
    let mean = mean(values)?;
    let is_text = matches!(values.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary);
    let each = if is_text { lengths(values)? } else { Vec::new() };
    let keys = cast(dictionary.keys(), &DataType::Int64)?;
    let sizes = keys.as_primitive::<Int64Type>().iter().flatten().map(|key| {
        let size = usize::try_from(key).ok().and_then(|key| each.get(key)).copied();
        size.map_or(mean, |size| usize::try_from(size).unwrap_or(usize::MAX))
    });
    Ok(sizes.fold(0, usize::saturating_add))
}

fn views<O: OffsetSizeTrait + ArrowNativeType>(array: &ArrayRef) -> Result<usize> {
    let views = array.as_list_view::<O>();
    let each = mean(views.values())?;
    let items = views.sizes().iter().map(|size| size.as_usize()).fold(0, usize::saturating_add);
    Ok(items.saturating_mul(each))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int64Array, ListViewArray, StringArray, StructArray};
    use arrow::buffer::ScalarBuffer;
    use arrow::datatypes::{Field, Int32Type};

    use super::*;

    #[test]
    fn what_is_shared_counts_for_each_that_has_it() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![7; 1_000]));
        assert_eq!(unfolded(&numbers).unwrap(), 8_000);
        let item = Arc::new(Field::new_list_field(DataType::Int64, true));
        let (starts, sizes) = (ScalarBuffer::from(vec![0; 500]), ScalarBuffer::from(vec![1_000; 500]));
        let views: ArrayRef = Arc::new(ListViewArray::new(item, starts, sizes, numbers, None));
        assert_eq!(unfolded(&views).unwrap(), 500 * 8_000);
        let field = Arc::new(Field::new("v", views.data_type().clone(), true));
        let within: ArrayRef = Arc::new(StructArray::from(vec![(field, views)]));
        assert_eq!(unfolded(&within).unwrap(), 500 * 8_000);
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(10_000), String::new()]));
        let named = |keys: Vec<i32>| -> ArrayRef { Arc::new(DictionaryArray::<Int32Type>::new(keys.into(), Arc::clone(&texts))) };
        assert_eq!(unfolded(&named(vec![0; 100])).unwrap(), 1_000_000);
        assert!(unfolded(&named(vec![1; 100])).unwrap() < 20_000);
    }
}
