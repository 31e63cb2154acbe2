//! How many bytes an array takes once it is sent: an estimate that looks at the rows of a slice and at nothing else.

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait};
use arrow::datatypes::{
    ArrowNativeType, ByteArrayType, ByteViewType, DataType, Int16Type, Int32Type, Int64Type, RunEndIndexType,
};

use crate::flight::profile::TypeProfile;

/// The bytes of an array in the body of a message, near enough to choose how many rows go into one.
pub(super) fn encoded(array: &dyn Array, profile: TypeProfile) -> usize {
    let rows = array.len();
    let nulls = if array.null_count() > 0 { rows.div_ceil(8) } else { 0 };
    let lowered = profile == TypeProfile::Lowered;
    nulls
        + match array.data_type() {
            DataType::Null => 0,
            DataType::Boolean => rows.div_ceil(8),
            DataType::Utf8 => bytes(array.as_string::<i32>()),
            DataType::LargeUtf8 => bytes(array.as_string::<i64>()),
            DataType::Binary => bytes(array.as_binary::<i32>()),
            DataType::LargeBinary => bytes(array.as_binary::<i64>()),
            DataType::Utf8View => view(array.as_string_view(), lowered),
            DataType::BinaryView => view(array.as_binary_view(), lowered),
            DataType::FixedSizeBinary(width) => rows * width.unsigned_abs() as usize,
            DataType::List(_) => list(array.as_list::<i32>().offsets(), array.as_list::<i32>().values(), profile),
            DataType::LargeList(_) => list(array.as_list::<i64>().offsets(), array.as_list::<i64>().values(), profile),
            DataType::ListView(_) => {
                let views = array.as_list_view::<i32>();
                8 * rows + items(views.values(), views.value_offsets(), views.value_sizes(), profile)
            }
            DataType::LargeListView(_) => {
                let views = array.as_list_view::<i64>();
                16 * rows + items(views.values(), views.value_offsets(), views.value_sizes(), profile)
            }
            DataType::FixedSizeList(_, _) => encoded(array.as_fixed_size_list().values(), profile),
            DataType::Struct(_) => array.as_struct().columns().iter().map(|column| encoded(column, profile)).sum(),
            DataType::Map(_, _) => {
                let map = array.as_map();
                let entries: ArrayRef = std::sync::Arc::new(map.entries().clone());
                list(map.offsets(), &entries, profile)
            }
            DataType::Dictionary(_, _) if lowered => dictionary(array, profile),
            DataType::Dictionary(keys, _) => rows * keys.primitive_width().unwrap_or(8),
            DataType::RunEndEncoded(ends, _) => match ends.data_type() {
                DataType::Int16 => runs::<Int16Type>(array, profile),
                DataType::Int32 => runs::<Int32Type>(array, profile),
                _ => runs::<Int64Type>(array, profile),
            },
            other => match profile.lower(other).primitive_width() {
                Some(width) => rows * width,
                // Unions are left: what they hold may be more than what this slice of them shows.
                None => array.get_buffer_memory_size(),
            },
        }
}

fn bytes<T: ByteArrayType>(array: &arrow::array::GenericByteArray<T>) -> usize {
    let offsets = array.value_offsets();
    size_of_val(offsets) + span(offsets)
}

fn view<T: ByteViewType>(array: &arrow::array::GenericByteViewArray<T>, lowered: bool) -> usize {
    if lowered {
        return 4 * array.len() + array.total_bytes_len();
    }
    let held = array.data_buffers().iter().map(|buffer| buffer.len()).sum();
    16 * array.len() + array.total_buffer_bytes_used().min(held)
}

fn list<O: OffsetSizeTrait>(offsets: &[O], values: &ArrayRef, profile: TypeProfile) -> usize {
    let start = offsets.first().map_or(0, |offset| offset.as_usize());
    size_of_val(offsets) + encoded(&values.slice(start, span(offsets)), profile)
}

fn span<O: OffsetSizeTrait>(offsets: &[O]) -> usize {
    match (offsets.first(), offsets.last()) {
        (Some(first), Some(last)) => (*last - *first).as_usize(),
        _ => 0,
    }
}

/// The items of views of lists, which may be those of several lists.
fn items<O: OffsetSizeTrait>(values: &ArrayRef, offsets: &[O], sizes: &[O], profile: TypeProfile) -> usize {
    if let Some(width) = profile.lower(values.data_type()).primitive_width() {
        let items: usize = sizes.iter().map(|size| size.as_usize()).sum();
        return items * width + items.div_ceil(8);
    }
    let lists = offsets.iter().zip(sizes);
    lists.map(|(offset, size)| encoded(&values.slice(offset.as_usize(), size.as_usize()), profile)).sum()
}

/// A dictionary written out: a long value counts as often as it is used.
fn dictionary(array: &dyn Array, profile: TypeProfile) -> usize {
    let dictionary = array.as_any_dictionary();
    if dictionary.values().is_empty() {
        return 0;
    }
    let sizes = each(dictionary.values(), profile);
    dictionary.normalized_keys().into_iter().filter_map(|key| sizes.get(key)).sum()
}

fn runs<R: RunEndIndexType>(array: &dyn Array, profile: TypeProfile) -> usize {
    let Some(runs) = array.as_run_opt::<R>() else { return 0 };
    let (start, end) = (runs.get_start_physical_index(), runs.get_end_physical_index());
    if array.is_empty() {
        return 0;
    }
    let values = runs.values().slice(start, end + 1 - start);
    if profile == TypeProfile::Native {
        return values.len() * size_of::<R::Native>() + encoded(&values, profile);
    }
    let mut from = 0;
    let lengths = runs.run_ends().sliced_values().map(|end| {
        let end = end.as_usize();
        end - std::mem::replace(&mut from, end)
    });
    each(&values, profile).into_iter().zip(lengths).map(|(size, length)| size * length).sum()
}

/// The bytes of each value.
fn each(values: &ArrayRef, profile: TypeProfile) -> Vec<usize> {
    match profile.lower(values.data_type()).primitive_width() {
        Some(width) => vec![width; values.len()],
        None => (0..values.len()).map(|index| encoded(&values.slice(index, 1), profile)).collect(),
    }
}
