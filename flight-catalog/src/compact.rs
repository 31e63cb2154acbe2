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
        // Where a run ends may be where a row began that is not here.
        DataType::RunEndEncoded(_, values) => return exactly(&bare(&exactly(array, values.data_type())?)?, array.data_type()),
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

/// A dictionary of the values that are in use, in the order of their first use.
pub fn dictionary(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let dictionary = array.as_any_dictionary();
    if dictionary.values().is_empty() {
        return Ok(Arc::clone(array));
    }
    let nulls = dictionary.keys().nulls();
    let keys = dictionary.normalized_keys();
    // By their first use, since any other order may be that of rows which are not here.
    let mut moved: Vec<Option<u64>> = vec![None; dictionary.values().len()];
    let mut kept: Vec<u64> = Vec::new();
    let mut own: Vec<u64> = Vec::with_capacity(keys.len());
    for (row, key) in keys.into_iter().enumerate() {
        let is_valid = nulls.is_none_or(|nulls| nulls.is_valid(row));
        let place = moved.get_mut(key).filter(|_| is_valid).map(|place| {
            *place.get_or_insert_with(|| {
                kept.push(key as u64);
                kept.len() as u64 - 1
            })
        });
        own.push(place.unwrap_or_default());
    }
    let values = take(dictionary.values(), &UInt64Array::from(kept), None)?;
    let keys = ScalarBuffer::from(own);
    let keys: ArrayRef = Arc::new(UInt64Array::try_new(keys, nulls.cloned())?);
    let keys = exactly(&keys, dictionary.keys().data_type())?.to_data();
    let data = keys.into_builder().data_type(array.data_type().clone()).add_child_data(values.to_data()).build()?;
    Ok(make_array(data))
}

/// A cast that fails rather than makes a null of a value.
pub fn exactly(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, target, &CastOptions { safe: false, ..CastOptions::default() })
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
