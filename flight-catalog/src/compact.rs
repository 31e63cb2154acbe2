//! Arrays that hold the values that are seen in them and nothing else.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, MutableArrayData, OffsetSizeTrait, StringViewArray, UInt64Array, make_array,
};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// The same values in buffers of their own: there is nothing beneath a null, in a dictionary that no row has, or beside the bytes of a
/// view. Whatever is done with an array hides values and keeps their bytes, and bytes are what is sent. Errors: `InvalidArgumentError`
/// for list views whose lists lie over one another.
pub fn bare(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Utf8View => return Ok(Arc::new(array.as_string_view().iter().collect::<StringViewArray>())),
        DataType::BinaryView => return Ok(Arc::new(array.as_binary_view().iter().collect::<BinaryViewArray>())),
        DataType::ListView(_) => check_apart::<i32>(array)?,
        DataType::LargeListView(_) => check_apart::<i64>(array)?,
        _ => {}
    }
    let mut copy = copied(array);
    if matches!(copy.data_type(), DataType::Dictionary(..)) {
        copy = dictionary(&copy)?;
    }
    let data = copy.to_data();
    if data.child_data().is_empty() {
        return Ok(copy);
    }
    let children = data.child_data().iter().map(|child| Ok(bare(&make_array(child.clone()))?.to_data()));
    let children = children.collect::<Result<_, ArrowError>>()?;
    Ok(make_array(data.into_builder().child_data(children).build()?))
}

/// The rows that are valid, and nulls that are made anew.
fn copied(array: &ArrayRef) -> ArrayRef {
    let data = array.to_data();
    let mut copy = MutableArrayData::new(vec![&data], true, array.len());
    let mut next = 0;
    match array.nulls() {
        None => copy.extend(0, 0, array.len()),
        Some(nulls) => {
            for (start, end) in nulls.valid_slices() {
                copy.extend_nulls(start - next);
                copy.extend(0, start, end);
                next = end;
            }
            copy.extend_nulls(array.len() - next);
        }
    }
    make_array(copy.freeze())
}

/// Lists that are copied take as much room as there is, where none of them shares its values.
fn check_apart<O: OffsetSizeTrait>(array: &ArrayRef) -> Result<(), ArrowError> {
    let views = array.as_list_view::<O>();
    let wanted = views.sizes().iter().fold(0_usize, |sum, size| sum.saturating_add(size.as_usize()));
    if wanted <= views.values().len() {
        return Ok(());
    }
    Err(ArrowError::InvalidArgumentError("the lists of a list view lie over one another".to_owned()))
}

/// A dictionary of the values that are in use, in their order.
pub fn dictionary(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let dictionary = array.as_any_dictionary();
    if dictionary.values().is_empty() {
        return Ok(Arc::clone(array));
    }
    let nulls = dictionary.keys().nulls();
    let keys = dictionary.normalized_keys();
    let mut used = vec![false; dictionary.values().len()];
    for (row, key) in keys.iter().enumerate() {
        if let Some(used) = used.get_mut(*key) {
            *used |= nulls.is_none_or(|nulls| nulls.is_valid(row));
        }
    }
    let moved = used.iter().scan(0, |next, used| {
        let index = *next;
        *next += u64::from(*used);
        Some(index)
    });
    let moved: Vec<u64> = moved.collect();
    let kept = UInt64Array::from_iter_values((0..).zip(&used).filter_map(|(index, used)| used.then_some(index)));
    let values = take(dictionary.values(), &kept, None)?;
    let keys: ScalarBuffer<u64> = (0..)
        .zip(keys)
        .map(|(row, key)| match nulls.is_none_or(|nulls| nulls.is_valid(row)) {
            true => moved.get(key).copied().unwrap_or_default(),
            false => 0,
        })
        .collect();
    let keys: ArrayRef = Arc::new(UInt64Array::try_new(keys, nulls.cloned())?);
    let exactly = CastOptions { safe: false, ..CastOptions::default() };
    let keys = cast_with_options(&keys, dictionary.keys().data_type(), &exactly)?.to_data();
    let data = keys.into_builder().data_type(array.data_type().clone()).add_child_data(values.to_data()).build()?;
    Ok(make_array(data))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayData, BooleanArray, DictionaryArray, Int64Array, ListArray, StringArray, StructArray};
    use arrow::compute::{filter, nullif};
    use arrow::datatypes::{Field, Int8Type};

    use super::*;

    const SECRET: &str = "a secret of some length";
    const NUMBER: i64 = 0x5EC2_E75E_C2E7_5EC2;

    fn holds(data: &ArrayData) -> bool {
        let is_in = |bytes: &[u8], secret: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
        data.buffers().iter().any(|buffer| is_in(buffer, SECRET.as_bytes()) || is_in(buffer, &NUMBER.to_le_bytes()))
            || data.child_data().iter().any(holds)
    }

    #[test]
    fn nothing_is_left_of_what_is_hidden() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![SECRET, "own"]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![NUMBER, 7]));
        let keyed: ArrayRef = Arc::new(DictionaryArray::<Int8Type>::from_iter([SECRET, "own"]));
        let lists =
            ListArray::from_nested_iter::<arrow::array::StringBuilder, _, _, _>([Some([Some(SECRET)]), Some([Some("own")])]);
        let field = |name: &str, array: &ArrayRef| Arc::new(Field::new(name, array.data_type().clone(), true));
        let nulled = nullif(&texts, &BooleanArray::from(vec![true, false])).unwrap();
        let structs = StructArray::from(vec![(field("t", &nulled), nulled), (field("n", &numbers), Arc::clone(&numbers))]);
        let all: [ArrayRef; 6] = [
            Arc::clone(&texts),
            numbers,
            keyed,
            Arc::new(StringViewArray::from_iter_values([SECRET, "another text that is longer than twelve"])),
            Arc::new(lists),
            Arc::new(structs),
        ];
        for array in all {
            assert!(holds(&array.to_data()), "{}", array.data_type());
            let masked = nullif(&array, &BooleanArray::from(vec![true, false])).unwrap();
            let filtered = filter(&array, &BooleanArray::from(vec![false, true])).unwrap();
            for seen in [masked, filtered, array.slice(1, 1)] {
                let bared = bare(&seen).unwrap();
                assert_eq!(&bared, &seen);
                assert!(!holds(&bared.to_data()), "{}", array.data_type());
            }
        }
    }
}
