//! The columns of a table in the types of Arrow, how files know them, and values out of metadata.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use iceberg::spec::{MappedField, NameMapping, NestedField, PrimitiveLiteral, PrimitiveType, Schema, Type};
use nexus_flight_catalog::{Error, Result};

use crate::lake::{Column, Columns};

/// The zone of timestamps that have one.
const UTC: &str = "UTC";
/// The most bytes of values that all have the same.
const LONGEST: i32 = 64 * 1024;

/// The columns of a schema as clients see them, and as files know them. Errors: `Data` for a type that no value has.
pub(super) fn columns(schema: &Schema, mapping: Option<&NameMapping>) -> Result<(SchemaRef, Columns)> {
    let mapped: Vec<&MappedField> = mapping.map(|mapping| mapping.fields().iter().collect()).unwrap_or_default();
    let (fields, columns) = all(schema.as_struct().fields().iter().map(AsRef::as_ref), &mapped)?;
    let lost = schema.as_struct().fields().iter().find_map(|field| lost(field, &mapped));
    let commented = fields.iter().zip(schema.as_struct().fields()).map(|(field, written)| match &written.doc {
        Some(doc) => Arc::new(field.as_ref().clone().with_metadata(HashMap::from([("comment".to_owned(), doc.clone())]))),
        None => Arc::clone(field),
    });
    Ok((Arc::new(ArrowSchema::new(commented.collect::<Fields>())), Columns::new(columns).with_lost(lost)))
}

/// One column right in a schema.
pub(super) fn column(field: &NestedField, mapping: Option<&NameMapping>) -> Result<(Field, Column)> {
    let mapped: Vec<&MappedField> = mapping.map(|mapping| mapping.fields().iter().collect()).unwrap_or_default();
    one(field, &mapped)
}

/// The name of a column, or of a field within it, that the mapping has since given to a later one: it knows no more what older files
/// without ids have under that name.
pub(super) fn lost_column(field: &NestedField, mapping: Option<&NameMapping>) -> Option<String> {
    let mapped: Vec<&MappedField> = mapping.map(|mapping| mapping.fields().iter().collect()).unwrap_or_default();
    lost(field, &mapped)
}

fn lost(field: &NestedField, mapped: &[&MappedField]) -> Option<String> {
    let named_so = mapped.iter().filter(|other| other.names().contains(&field.name));
    if named_so.map(|other| other.field_id()).max().flatten() > Some(field.id) {
        return Some(field.name.clone());
    }
    let own = mapped.iter().filter(|own| own.field_id() == Some(field.id));
    let within: Vec<&MappedField> = own.flat_map(|own| own.fields().iter().map(AsRef::as_ref)).collect();
    match field.field_type.as_ref() {
        Type::Primitive(_) => None,
        Type::Struct(inner) => inner.fields().iter().find_map(|field| lost(field, &within)),
        Type::List(list) => lost(&list.element_field, &within),
        Type::Map(map) => lost(&map.key_field, &within).or_else(|| lost(&map.value_field, &within)),
    }
}

fn all<'a>(fields: impl Iterator<Item = &'a NestedField>, mapped: &[&MappedField]) -> Result<(Fields, Vec<Column>)> {
    let both = fields.map(|field| one(field, mapped)).collect::<Result<Vec<(Field, Column)>>>()?;
    let (fields, columns): (Vec<Field>, Vec<Column>) = both.into_iter().unzip();
    Ok((fields.into(), columns))
}

fn one(field: &NestedField, mapped: &[&MappedField]) -> Result<(Field, Column)> {
    let own: Vec<&&MappedField> = mapped.iter().filter(|mapped| mapped.field_id() == Some(field.id)).collect();
    let aliases = own.iter().flat_map(|mapped| mapped.names().iter().cloned()).collect();
    let within: Vec<&MappedField> = own.iter().flat_map(|mapped| mapped.fields().iter().map(AsRef::as_ref)).collect();
    let (data_type, fields) = match field.field_type.as_ref() {
        Type::Primitive(primitive) => (primitive_type(primitive).map_err(|error| named(error, field))?, Vec::new()),
        Type::Struct(inner) => {
            let (fields, columns) = all(inner.fields().iter().map(AsRef::as_ref), &within)?;
            (DataType::Struct(fields), columns)
        }
        Type::List(list) => {
            let (element, column) = one(&list.element_field, &within)?;
            (DataType::List(Arc::new(element)), vec![column])
        }
        Type::Map(map) => {
            let (key, key_column) = one(&map.key_field, &within)?;
            let (value, value_column) = one(&map.value_field, &within)?;
            let entry = DataType::Struct(vec![key.with_nullable(false), value].into());
            let entries = Field::new("key_value", entry, false);
            (DataType::Map(Arc::new(entries), false), vec![key_column, value_column])
        }
    };
    let column = Column { name: field.name.clone(), id: Some(field.id), aliases, fields };
    // Files need not keep what the table promises, and plans that rely on it would not notice.
    Ok((Field::new(&field.name, data_type, true), column))
}

fn named(error: Error, field: &NestedField) -> Error {
    Error::new(error.kind(), format!("the column \"{}\" is of {}", field.name, error.message()))
}

fn primitive_type(primitive: &PrimitiveType) -> Result<DataType> {
    Ok(match primitive {
        PrimitiveType::Boolean => DataType::Boolean,
        PrimitiveType::Int => DataType::Int32,
        PrimitiveType::Long => DataType::Int64,
        PrimitiveType::Float => DataType::Float32,
        PrimitiveType::Double => DataType::Float64,
        PrimitiveType::Decimal { precision, scale } => match (u8::try_from(*precision), i8::try_from(*scale)) {
            (Ok(precision @ 1..=38), Ok(scale)) if precision >= scale.unsigned_abs() => DataType::Decimal128(precision, scale),
            _ => return Err(Error::data(format!("a decimal type that there is not, {primitive}"))),
        },
        PrimitiveType::Date => DataType::Date32,
        PrimitiveType::Time => DataType::Time64(TimeUnit::Microsecond),
        PrimitiveType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        PrimitiveType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        PrimitiveType::TimestampNs => DataType::Timestamp(TimeUnit::Nanosecond, None),
        PrimitiveType::TimestamptzNs => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
        PrimitiveType::String => DataType::Utf8,
        PrimitiveType::Uuid => DataType::FixedSizeBinary(16),
        PrimitiveType::Fixed(length) => match i32::try_from(*length) {
            Ok(length) if length <= LONGEST => DataType::FixedSizeBinary(length),
            // NULL takes as much as a value.
            _ => return Err(Error::unsupported(format!("a length that is not offered, {primitive}, which is over {LONGEST}"))),
        },
        PrimitiveType::Binary => DataType::Binary,
    })
}

/// A value that was written as one type, in the type that the column has now; none where the one is no promotion of the other, or
/// the value none of the type.
pub(super) fn value(literal: &PrimitiveLiteral, written: &PrimitiveType, now: &PrimitiveType) -> Option<ScalarValue> {
    use PrimitiveLiteral as L;
    use PrimitiveType as T;
    if !is_promotion(written, now) {
        return None;
    }
    let utc = || Some(UTC.into());
    Some(match (now, literal) {
        (T::Boolean, L::Boolean(value)) => ScalarValue::Boolean(Some(*value)),
        (T::Int, L::Int(value)) => ScalarValue::Int32(Some(*value)),
        (T::Long, L::Long(value)) => ScalarValue::Int64(Some(*value)),
        (T::Long, L::Int(value)) => ScalarValue::Int64(Some((*value).into())),
        (T::Float, L::Float(value)) => ScalarValue::Float32(Some(**value)),
        (T::Double, L::Double(value)) => ScalarValue::Float64(Some(**value)),
        (T::Double, L::Float(value)) => ScalarValue::Float64(Some((**value).into())),
        (T::Decimal { precision, scale }, L::Int128(value)) => {
            let (precision, scale) = (u8::try_from(*precision).ok()?, i8::try_from(*scale).ok()?);
            ScalarValue::Decimal128(Some(*value), precision, scale)
        }
        (T::Date, L::Int(value)) => ScalarValue::Date32(Some(*value)),
        (T::Time, L::Long(value)) => ScalarValue::Time64Microsecond(Some(*value)),
        (T::Timestamp, L::Long(value)) => ScalarValue::TimestampMicrosecond(Some(*value), None),
        (T::Timestamptz, L::Long(value)) => ScalarValue::TimestampMicrosecond(Some(*value), utc()),
        (T::TimestampNs, L::Long(value)) => ScalarValue::TimestampNanosecond(Some(*value), None),
        (T::TimestamptzNs, L::Long(value)) => ScalarValue::TimestampNanosecond(Some(*value), utc()),
        (T::String, L::String(value)) => ScalarValue::Utf8(Some(value.clone())),
        (T::Uuid, L::UInt128(value)) => ScalarValue::FixedSizeBinary(16, Some(value.to_be_bytes().to_vec())),
        (T::Fixed(length), L::Binary(value)) if *length == value.len() as u64 => {
            ScalarValue::FixedSizeBinary(i32::try_from(*length).ok()?, Some(value.clone()))
        }
        (T::Binary, L::Binary(value)) => ScalarValue::Binary(Some(value.clone())),
        _ => return None,
    })
}

fn is_promotion(written: &PrimitiveType, now: &PrimitiveType) -> bool {
    use PrimitiveType as T;
    match (written, now) {
        (T::Int, T::Long) | (T::Float, T::Double) => true,
        (T::Decimal { precision: before, scale: old }, T::Decimal { precision: after, scale: new }) => {
            before <= after && old == new
        }
        (before, after) => before == after,
    }
}

/// Whether the bounds of values of a type are known as what they are: `Some(true)` where both are values, `Some(false)` where they may
/// have been cut, none where they say nothing. NaN is in no bounds, and not everybody orders UUIDs alike.
pub(super) fn bounds_are_values(primitive: &PrimitiveType) -> Option<bool> {
    match primitive {
        PrimitiveType::Float | PrimitiveType::Double | PrimitiveType::Uuid => None,
        PrimitiveType::String | PrimitiveType::Binary | PrimitiveType::Fixed(_) => Some(false),
        // Some writers know no nanoseconds.
        PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs => Some(false),
        _ => Some(true),
    }
}

/// The ids of all fields at any depth that are in a set.
pub(super) fn ids_among(schema: &Schema, wanted: &HashSet<i32>) -> Vec<i32> {
    let mut found: Vec<i32> = wanted.iter().copied().filter(|id| schema.field_by_id(*id).is_some()).collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_known_by_ids_and_by_mapped_names_at_any_depth() {
        let schema: Schema = serde_json::from_value(serde_json::json!({
            "type": "struct", "schema-id": 0, "fields": [
                { "id": 1, "name": "id", "required": true, "type": "long" },
                { "id": 2, "name": "names", "required": false, "type":
                    { "type": "list", "element-id": 3, "element-required": true, "element":
                        { "type": "struct", "fields": [{ "id": 4, "name": "名", "required": false, "type": "string" }] } } },
                { "id": 5, "name": "counts", "required": false, "type":
                    { "type": "map", "key-id": 6, "key": "uuid", "value-id": 7, "value-required": false, "value": "decimal(9,2)" } },
            ],
        }))
        .unwrap();
        let mapping: NameMapping = serde_json::from_value(serde_json::json!([
            { "field-id": 1, "names": ["id", "old_id"] },
            { "field-id": 2, "names": ["names"], "fields": [
                { "field-id": 3, "names": ["element"], "fields": [{ "field-id": 4, "names": ["name"] }] },
            ] },
        ]))
        .unwrap();
        let (arrow, _) = super::columns(&schema, Some(&mapping)).unwrap();
        let mapped: Vec<&MappedField> = mapping.fields().iter().collect();
        let (_, columns) = all(schema.as_struct().fields().iter().map(AsRef::as_ref), &mapped).unwrap();
        let name = Field::new("名", DataType::Utf8, true);
        let element = Field::new("element", DataType::Struct(vec![name].into()), true);
        let decimal = Field::new("value", DataType::Decimal128(9, 2), true);
        let entry = DataType::Struct(vec![Field::new("key", DataType::FixedSizeBinary(16), false), decimal].into());
        let wanted = ArrowSchema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("names", DataType::List(Arc::new(element)), true),
            Field::new("counts", DataType::Map(Arc::new(Field::new("key_value", entry, false)), false), true),
        ]);
        assert_eq!(*arrow, wanted);
        assert_eq!((columns[0].id, columns[0].aliases.as_slice()), (Some(1), ["id".to_owned(), "old_id".to_owned()].as_slice()));
        let inner = &columns[1].fields[0].fields[0];
        assert_eq!((inner.id, inner.name.as_str(), inner.aliases.as_slice()), (Some(4), "名", ["name".to_owned()].as_slice()));
        let ids: Vec<Option<i32>> = columns[2].fields.iter().map(|field| field.id).collect();
        assert_eq!((ids, columns[2].aliases.len()), (vec![Some(6), Some(7)], 0));
    }

    #[test]
    fn a_name_that_the_mapping_has_given_to_a_later_column_is_lost() {
        let mapping = |json: serde_json::Value| serde_json::from_value::<NameMapping>(json).unwrap();
        let lost = |id, mapping: &NameMapping| {
            let inner = NestedField::optional(4, "x", PrimitiveType::Int.into());
            let point = Type::Struct(iceberg::spec::StructType::new(vec![inner.into()]));
            let fields = [NestedField::optional(id, "a", PrimitiveType::Int.into()), NestedField::optional(3, "point", point)];
            fields.iter().find_map(|field| lost_column(field, Some(mapping)))
        };
        let given = mapping(serde_json::json!([{ "field-id": 1, "names": [] }, { "field-id": 2, "names": ["a"] }]));
        assert_eq!(lost(1, &given), Some("a".to_owned()));
        // The later column itself, and one that nobody gave a name in the mapping.
        assert_eq!((lost(2, &given), lost(5, &given)), (None, None));
        let kept = mapping(serde_json::json!([{ "field-id": 1, "names": ["a"] }]));
        assert_eq!(lost(1, &kept), None);
        let within = [serde_json::json!({ "field-id": 5, "names": ["x"] })];
        let within = mapping(serde_json::json!([{ "field-id": 3, "names": ["point"], "fields": within }]));
        assert_eq!(lost(1, &within), Some("x".to_owned()));
    }

    #[test]
    fn values_of_a_large_fixed_size_are_refused_by_name() {
        let of = |length| {
            let field = NestedField::optional(1, "photo", PrimitiveType::Fixed(length).into());
            column(&field, None).map(|(field, _)| field.data_type().clone())
        };
        assert_eq!(of(65_536).unwrap(), DataType::FixedSizeBinary(65_536));
        let error = of(65_537).unwrap_err();
        assert_eq!(error.kind(), nexus_flight_catalog::Kind::Unsupported);
        insta::assert_snapshot!(error.message(), @r#"the column "photo" is of a length that is not offered, fixed(65537), which is over 65536"#);
    }

    #[test]
    fn values_have_the_type_of_now() {
        use PrimitiveLiteral as L;
        use PrimitiveType as T;
        let decimal = |precision, scale| T::Decimal { precision, scale };
        assert_eq!(value(&L::Int(7), &T::Int, &T::Long), Some(ScalarValue::Int64(Some(7))));
        assert_eq!(value(&L::Long(7), &T::Long, &T::Long), Some(ScalarValue::Int64(Some(7))));
        let wide = Some(ScalarValue::Decimal128(Some(7), 20, 2));
        assert_eq!(value(&L::Int128(7), &decimal(9, 2), &decimal(20, 2)), wide);
        assert_eq!(value(&L::Int128(7), &decimal(9, 2), &decimal(20, 3)), None);
        assert_eq!(value(&L::Int(7), &T::Date, &T::Timestamp), None);
        assert_eq!(value(&L::Binary(vec![1]), &T::Fixed(2), &T::Fixed(2)), None);
    }
}
