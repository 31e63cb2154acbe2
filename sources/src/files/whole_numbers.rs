//! Whole numbers of JSON beyond 64 bits: columns of them are guessed as DOUBLE, which would round them, and become text.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use serde_json::value::RawValue;

/// The guessed columns of lines of JSON, with text for those that hold such numbers.
pub(super) fn kept(schema: Schema, lines: &[u8]) -> Schema {
    if !schema.fields().iter().any(|field| has_double(field.data_type())) {
        return schema;
    }
    let rows = serde_json::Deserializer::from_slice(lines).into_iter::<&RawValue>();
    let columns = DataType::Struct(schema.fields().clone());
    match rows.map_while(Result::ok).fold(columns, widened) {
        DataType::Struct(fields) => Schema::new(fields),
        _ => schema,
    }
}

fn has_double(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float64 => true,
        DataType::Struct(fields) => fields.iter().any(|field| has_double(field.data_type())),
        DataType::List(item) => has_double(item.data_type()),
        _ => false,
    }
}

/// The type that holds a value too.
fn widened(data_type: DataType, value: &RawValue) -> DataType {
    match data_type {
        DataType::Float64 if !is_exact(value.get()) => DataType::Utf8,
        DataType::Struct(fields) if fields.iter().any(|field| has_double(field.data_type())) => {
            let values: BTreeMap<String, &RawValue> = serde_json::from_str(value.get()).unwrap_or_default();
            let widened = |field: &Arc<Field>| match values.get(field.name()) {
                Some(value) if has_double(field.data_type()) => with_type(field, widened(field.data_type().clone(), value)),
                _ => Arc::clone(field),
            };
            DataType::Struct(fields.iter().map(widened).collect::<Fields>())
        }
        DataType::List(item) if has_double(item.data_type()) => {
            let values: Vec<&RawValue> = serde_json::from_str(value.get()).unwrap_or_default();
            let data_type = values.into_iter().fold(item.data_type().clone(), widened);
            DataType::List(with_type(&item, data_type))
        }
        same => same,
    }
}

fn with_type(field: &Arc<Field>, data_type: DataType) -> Arc<Field> {
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

/// Whether a value is not a whole number, or one of 64 bits.
fn is_exact(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    !digits.bytes().all(|byte| byte.is_ascii_digit()) || value.parse::<i64>().is_ok()
}
