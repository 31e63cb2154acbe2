//! Functions of an array and of values that are items of it or may be. Both have one type; DataFusion finds none where one of them is
//! a decimal and the other is not, or has other digits, so that `array_has(prices, 2.5)` would be no function.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::context::SessionState;
use datafusion::execution::registry::FunctionRegistry;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{ScalarUDF, ScalarUDFImpl, Signature};

use crate::around::{Around, Wrapped};

/// The array is the first argument, or of `array_prepend` the second: see [`array_of`].
pub(super) const FUNCTIONS: [&str; 12] = [
    "array_append",
    "array_has",
    "array_position",
    "array_positions",
    "array_prepend",
    "array_remove",
    "array_remove_all",
    "array_remove_n",
    "array_replace",
    "array_replace_all",
    "array_replace_n",
    "array_resize",
];

/// Which argument of such a function is the array.
pub(super) fn array_of(name: &str) -> usize {
    usize::from(name == "array_prepend")
}

/// Has these functions of a state take them.
pub(super) fn register(state: &mut SessionState) -> Result<()> {
    for name in FUNCTIONS {
        let inner = state.udf(name)?;
        let signature = Signature::user_defined(inner.signature().volatility);
        let array = array_of(name);
        state.register_udf(Arc::new(ScalarUDF::from(Wrapped(AmongItems { inner, signature, array }))))?;
    }
    Ok(())
}

/// A function that gives its arguments one type of items first.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AmongItems {
    inner: Arc<ScalarUDF>,
    signature: Signature,
    /// Which argument is the array.
    array: usize,
}

impl AmongItems {
    /// The types of the arguments, with one of items.
    fn settled(&self, types: &[DataType]) -> Vec<DataType> {
        let Some(array) = types.get(self.array) else { return types.to_vec() };
        let Some(mut item) = item_of(array).cloned() else { return types.to_vec() };
        for (at, data_type) in types.iter().enumerate() {
            if let Some(common) = common(&item, data_type).filter(|_| at != self.array) {
                item = common;
            }
        }
        let settled = types.iter().enumerate().map(|(at, data_type)| match at == self.array {
            true => with_items(data_type, item.clone()),
            false if common(&item, data_type).is_some() => item.clone(),
            // Such as how often, or where.
            false => data_type.clone(),
        });
        settled.collect()
    }
}

impl Around for AmongItems {
    fn inner(&self) -> &dyn ScalarUDFImpl {
        self.inner.inner().as_ref()
    }

    fn with_updated_config(&self, _config: &ConfigOptions) -> Option<ScalarUDF> {
        // None of these hangs on the configuration.
        None
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let settled = self.settled(types).into_iter().map(|data_type| Arc::new(Field::new("f", data_type, true)));
        let coerced = fields_with_udf(&settled.collect::<Vec<_>>(), self.inner.as_ref())?;
        Ok(coerced.iter().map(|field| field.data_type().clone()).collect())
    }
}

/// The type of the items of an array and of a value beside them, where one is exact; of arrays, that of arrays of such a type.
fn common(item: &DataType, value: &DataType) -> Option<DataType> {
    match (item, value) {
        (DataType::Decimal128(item, scale), DataType::Decimal128(value, other)) => {
            let whole = (i16::from(*item) - i16::from(*scale)).max(i16::from(*value) - i16::from(*other));
            let scale = *scale.max(other);
            let precision = u8::try_from(whole + i16::from(scale)).ok()?;
            (precision <= DECIMAL128_MAX_PRECISION).then_some(DataType::Decimal128(precision, scale))
        }
        (approximate, exact) if approximate.is_floating() && exact.is_decimal() => Some(approximate.clone()),
        (exact, approximate) if exact.is_decimal() && approximate.is_floating() => Some(DataType::Float64),
        (array, value) => Some(with_items(array, common(item_of(array)?, item_of(value)?)?)),
    }
}

pub(super) fn item_of(array: &DataType) -> Option<&DataType> {
    match array {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => Some(item.data_type()),
        _ => None,
    }
}

/// An array type with another type of items.
fn with_items(array: &DataType, data_type: DataType) -> DataType {
    let of = |item: &FieldRef| Arc::new(item.as_ref().clone().with_data_type(data_type));
    match array {
        DataType::List(item) => DataType::List(of(item)),
        DataType::LargeList(item) => DataType::LargeList(of(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(of(item), *size),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_and_a_value_beside_it_have_one_type() {
        let exact = DataType::Decimal128;
        assert_eq!(common(&exact(3, 1), &exact(4, 3)), Some(exact(5, 3)));
        assert_eq!(common(&exact(38, 0), &exact(2, 1)), None);
        assert_eq!(common(&DataType::Float32, &exact(2, 1)), Some(DataType::Float32));
        assert_eq!(common(&exact(2, 1), &DataType::Float32), Some(DataType::Float64));
        assert_eq!(common(&DataType::Float64, &DataType::Int64), None);
        let list = |item| DataType::new_list(item, true);
        assert_eq!(common(&list(DataType::Float64), &list(exact(2, 1))), Some(list(DataType::Float64)));
    }
}
