//! What rows take once each has values of its own: those of dictionaries, runs and views are shared by as many rows as like, and are
//! copied for each where they are cast.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait, make_array};
use arrow::compute::cast;
use arrow::datatypes::{ArrowNativeType, DataType, Int64Type};
use datafusion::error::Result;

use super::measure::{bytes, lengths};
use super::types::all_within;

/// The bytes of a column without anything shared, at the least those that it has. What lies in it and is in none of its rows counts
/// as well: it is cast with the rest.
pub fn unfolded(array: &ArrayRef) -> Result<usize> {
    let has = bytes(array);
    if !shares(array.data_type()) {
        return Ok(has);
    }
    let mut within = 0_usize;
    for child in array.to_data().child_data() {
        within = within.saturating_add(unfolded(&make_array(child.clone()))?);
    }
    Ok(sizes(array)?.into_iter().fold(0, usize::saturating_add).max(has).max(within))
}

/// Whether rows of such a type can share their values.
fn shares(data_type: &DataType) -> bool {
    use DataType::{BinaryView, Dictionary, LargeListView, ListView, RunEndEncoded, Utf8View};
    let is_shared = |data_type: &&DataType| {
        matches!(data_type, Dictionary(..) | RunEndEncoded(..) | ListView(_) | LargeListView(_) | Utf8View | BinaryView)
    };
    all_within(data_type).iter().any(is_shared)
}

/// The bytes of each row's own values.
fn sizes(array: &ArrayRef) -> Result<Vec<usize>> {
    let rows = array.len();
    Ok(match array.data_type() {
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView => {
            lengths(array)?.into_iter().map(|length| usize::try_from(length).unwrap_or(usize::MAX)).collect()
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let each = sizes(dictionary.values())?;
            let keys = cast(dictionary.keys(), &DataType::Int64)?;
            let size = |key: Option<i64>| each.get(usize::try_from(key?).ok()?).copied();
            keys.as_primitive::<Int64Type>().iter().map(|key| size(key).unwrap_or_default()).collect()
        }
        DataType::RunEndEncoded(..) => runs(array)?,
        DataType::List(_) => lists(array.as_list::<i32>().values(), array.as_list::<i32>().value_offsets())?,
        DataType::LargeList(_) => lists(array.as_list::<i64>().values(), array.as_list::<i64>().value_offsets())?,
        DataType::Map(..) => {
            let entries: ArrayRef = Arc::new(array.as_map().entries().clone());
            lists(&entries, array.as_map().value_offsets())?
        }
        DataType::ListView(_) => views::<i32>(array)?,
        DataType::LargeListView(_) => views::<i64>(array)?,
        DataType::FixedSizeList(..) => {
            let list = array.as_fixed_size_list();
            let length = usize::try_from(list.value_length()).unwrap_or_default();
            spans(list.values(), (0..rows).map(|row| (row * length, (row + 1) * length)))?
        }
        DataType::Struct(_) => {
            let mut sums = vec![0_usize; rows];
            for column in array.as_struct().columns() {
                sums.iter_mut().zip(sizes(column)?).for_each(|(sum, size)| *sum = sum.saturating_add(size));
            }
            sums
        }
        _ => vec![bytes(array).div_ceil(rows.max(1)); rows],
    })
}

fn runs(array: &ArrayRef) -> Result<Vec<usize>> {
    let data = array.to_data();
    let [ends, values] = data.child_data() else { return Ok(Vec::new()) };
    let ends = cast(&make_array(ends.clone()), &DataType::Int64)?;
    let (first, last) = (data.offset(), data.offset() + data.len());
    let (mut sizes_of_rows, mut start) = (Vec::with_capacity(data.len()), 0);
    for (end, size) in ends.as_primitive::<Int64Type>().values().iter().zip(sizes(&make_array(values.clone()))?) {
        let end = usize::try_from(*end).unwrap_or_default();
        let rows = end.min(last).saturating_sub(start.max(first));
        sizes_of_rows.extend(std::iter::repeat_n(size, rows));
        start = end;
    }
    Ok(sizes_of_rows)
}

fn lists<O: OffsetSizeTrait>(values: &ArrayRef, offsets: &[O]) -> Result<Vec<usize>> {
    let ends = offsets.iter().skip(1);
    spans(values, offsets.iter().zip(ends).map(|(start, end)| (start.as_usize(), end.as_usize())))
}

fn views<O: OffsetSizeTrait + ArrowNativeType>(array: &ArrayRef) -> Result<Vec<usize>> {
    let views = array.as_list_view::<O>();
    let both = views.offsets().iter().zip(views.sizes().iter());
    let spans =
        spans(views.values(), both.map(|(start, size)| (start.as_usize(), start.as_usize().saturating_add(size.as_usize()))))?;
    // For lists each item is looked up by its place and may have one of its own, also where it has no bytes.
    let places = |size: &O| size.as_usize().saturating_mul(2 * size_of::<O>());
    Ok(spans.into_iter().zip(views.sizes().iter()).map(|(span, size)| span.saturating_add(places(size))).collect())
}

/// The bytes of the items from one place to another, for each row.
fn spans(values: &ArrayRef, rows: impl Iterator<Item = (usize, usize)>) -> Result<Vec<usize>> {
    let mut sums = vec![0_usize];
    let mut sum = 0_usize;
    for size in sizes(values)? {
        sum = sum.saturating_add(size);
        sums.push(sum);
    }
    let until = |place: usize| sums.get(place).copied().unwrap_or(sum);
    Ok(rows.map(|(start, end)| until(end).saturating_sub(until(start))).collect())
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        DictionaryArray, Int32Array, Int64Array, ListArray, ListViewArray, NullArray, RunArray, StringArray, StringViewArray,
        StructArray,
    };
    use arrow::buffer::{OffsetBuffer, ScalarBuffer};
    use arrow::datatypes::{Field, Int32Type};

    use super::*;

    /// One long text and many that are empty: what they are on average says nothing.
    fn texts() -> ArrayRef {
        let texts = std::iter::once("x".repeat(10_000)).chain(std::iter::repeat_n(String::new(), 999));
        Arc::new(StringArray::from_iter_values(texts))
    }

    fn item() -> Arc<Field> {
        Arc::new(Field::new_list_field(DataType::Utf8, true))
    }

    #[test]
    fn what_is_shared_counts_for_each_that_has_it() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![7; 1_000]));
        assert_eq!(unfolded(&numbers).unwrap(), 8_000);
        let dictionary = |values: ArrayRef, key: i32| -> ArrayRef {
            Arc::new(DictionaryArray::<Int32Type>::new(vec![key; 100].into(), values))
        };
        let starts = OffsetBuffer::from_lengths([1, 0]);
        let lists: ArrayRef = Arc::new(ListArray::new(item(), starts, texts().slice(0, 1), None));
        let views = ListViewArray::new(item(), ScalarBuffer::from(vec![0; 100]), ScalarBuffer::from(vec![1; 100]), texts(), None);
        let runs = RunArray::<Int32Type>::try_new(&Int32Array::from(vec![100, 1_099]), &texts().slice(0, 2)).unwrap();
        let text = "x".repeat(10_000);
        let viewed: ArrayRef = Arc::new(StringViewArray::from_iter_values([text.as_str()]));
        let shared: [ArrayRef; 5] =
            [dictionary(texts(), 0), dictionary(lists, 0), dictionary(viewed, 0), Arc::new(views), Arc::new(runs)];
        for array in shared {
            // Of views the places of the items count too.
            assert!((1_000_000..=1_000_800).contains(&unfolded(&array).unwrap()), "{}", array.data_type());
            let field = Arc::new(Field::new("v", array.data_type().clone(), true));
            let half: ArrayRef = Arc::new(StructArray::from(vec![(field, array)]).slice(0, 50));
            assert!((500_000..1_000_000).contains(&unfolded(&half).unwrap()), "{}", half.data_type());
        }
        assert!(unfolded(&dictionary(texts(), 1)).unwrap() < 20_000);
        let same = StringViewArray::from_iter_values([text]);
        let (view, buffers) = (same.views().first().copied().unwrap(), same.data_buffers().to_vec());
        let views: ArrayRef = Arc::new(StringViewArray::new(ScalarBuffer::from(vec![view; 1_000]), buffers, None));
        assert_eq!(unfolded(&views).unwrap(), 10_000_000);
        let nothing = Arc::new(Field::new_list_field(DataType::Null, true));
        let (starts, lengths) = (ScalarBuffer::from(vec![0; 1_000]), ScalarBuffer::from(vec![1_000; 1_000]));
        let views: ArrayRef = Arc::new(ListViewArray::new(nothing, starts, lengths, Arc::new(NullArray::new(1_000)), None));
        assert_eq!(unfolded(&views).unwrap(), 8_000_000);
    }

    #[test]
    fn what_is_in_no_row_counts() {
        let dictionary: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::new(vec![0; 100].into(), texts()));
        let item = Arc::new(Field::new_list_field(dictionary.data_type().clone(), true));
        let empty: ArrayRef = Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([0]), dictionary, None));
        assert_eq!(unfolded(&empty).unwrap(), 1_000_000);
    }
}
