//! The columns of new files: by field ids at any depth, and with the types and the promises of the table.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema as ArrowSchema, SchemaRef as ArrowSchemaRef};
use arrow::error::ArrowError;
use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};
use nexus_flight_catalog::write::filled;
use nexus_flight_catalog::{Error, Result};
use parquet::arrow::{ArrowSchemaConverter, PARQUET_FIELD_ID_META_KEY};
use parquet::basic::{LogicalType, Type as PhysicalType};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::schema::types::{SchemaDescriptor, Type as ParquetType, TypePtr};

use crate::iceberg::types::columns;

/// The columns of a table, for rows that are to be written.
pub(super) struct Columns {
    /// As clients see them, but for what takes no NULL.
    given: ArrowSchemaRef,
    /// With field ids, and with what takes no NULL at any depth.
    pub(super) stored: ArrowSchemaRef,
    /// The same in the words of Parquet.
    pub(super) described: SchemaDescriptor,
}

impl Columns {
    /// Of a schema. Errors: those of types that are not offered.
    pub(super) fn of(schema: &Schema) -> Result<Self> {
        let (seen, _) = columns(schema, None)?;
        let both = || schema.as_struct().fields().iter().zip(seen.fields());
        let given = both().map(|(field, seen)| seen.as_ref().clone().with_nullable(!field.required));
        let stored = both().map(|(field, seen)| stored(field, seen)).collect::<Result<Fields>>()?;
        let given = Arc::new(ArrowSchema::new(given.collect::<Fields>()));
        let stored = Arc::new(ArrowSchema::new(stored));
        let unwritten = |cause: ParquetError| Error::unsupported(format!("columns of this table are not written: {cause}"));
        let plain = ArrowSchemaConverter::new().convert(&stored).map_err(unwritten)?;
        let described = SchemaDescriptor::new(described(&plain.root_schema_ptr(), schema).map_err(unwritten)?);
        Ok(Self { given, stored, described })
    }

    /// Rows as files hold them; columns that they lack are NULL. Errors: `Invalid` for a NULL where the table takes none;
    /// `Precondition` where the types are not the table's.
    pub(super) fn rows(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = filled(batch, &self.given)?;
        let columns = rows.columns().iter().zip(self.stored.fields());
        let columns = columns.map(|(column, field)| {
            retyped(column, field.data_type()).map_err(|cause| {
                Error::invalid(format!("values of the column \"{}\" are not as the table wants them: {cause}", field.name()))
                    .with_hint("fields and elements that take no NULL have to have a value")
            })
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.stored), columns, &options)?)
    }
}

fn stored(field: &NestedField, seen: &Field) -> Result<FieldRef> {
    let differs = || Error::internal("a column has other fields than the table says");
    let data_type = match (field.field_type.as_ref(), seen.data_type()) {
        (Type::Primitive(_), seen) => seen.clone(),
        (Type::Struct(inner), DataType::Struct(fields)) => {
            let fields = inner.fields().iter().zip(fields).map(|(field, seen)| stored(field, seen));
            DataType::Struct(fields.collect::<Result<Fields>>()?)
        }
        (Type::List(list), DataType::List(element)) => DataType::List(stored(&list.element_field, element)?),
        (Type::Map(map), DataType::Map(entries, sorted)) => {
            let DataType::Struct(fields) = entries.data_type() else { return Err(differs()) };
            let [key, value] = &fields[..] else { return Err(differs()) };
            let key = stored(&map.key_field, key)?.as_ref().clone().with_nullable(false);
            let fields = Fields::from(vec![Arc::new(key), stored(&map.value_field, value)?]);
            DataType::Map(Arc::new(entries.as_ref().clone().with_data_type(DataType::Struct(fields))), *sorted)
        }
        _ => return Err(differs()),
    };
    let id = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), field.id.to_string())]);
    Ok(Arc::new(Field::new(&field.name, data_type, !field.required).with_metadata(id)))
}

/// A Parquet type that calls UUIDs so, which Arrow has no word for.
fn described(plain: &TypePtr, schema: &Schema) -> ParquetResult<TypePtr> {
    let info = plain.get_basic_info();
    let id = info.has_id().then(|| info.id());
    let field = id.and_then(|id| schema.field_by_id(id));
    if let ParquetType::GroupType { fields, .. } = plain.as_ref() {
        let fields = fields.iter().map(|field| described(field, schema)).collect::<ParquetResult<Vec<TypePtr>>>()?;
        let mut group = ParquetType::group_type_builder(info.name()).with_fields(fields).with_id(id);
        group = group.with_logical_type(info.logical_type_ref().cloned()).with_converted_type(info.converted_type());
        if info.has_repetition() {
            group = group.with_repetition(info.repetition());
        }
        return group.build().map(Arc::new);
    }
    if field.is_none_or(|field| *field.field_type != Type::Primitive(PrimitiveType::Uuid)) {
        return Ok(Arc::clone(plain));
    }
    let uuid = ParquetType::primitive_type_builder(info.name(), PhysicalType::FIXED_LEN_BYTE_ARRAY).with_length(16);
    let uuid = uuid.with_logical_type(Some(LogicalType::Uuid)).with_repetition(info.repetition()).with_id(id);
    uuid.build().map(Arc::new)
}

/// The same values in a type that differs in what its fields say besides their types. Errors: where a field has NULL that takes none.
fn retyped(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == wanted {
        return Ok(Arc::clone(column));
    }
    match (column.data_type(), wanted) {
        (DataType::Struct(_), DataType::Struct(fields)) => Ok(Arc::new(retyped_struct(column.as_struct(), fields)?)),
        (DataType::List(_), DataType::List(element)) => {
            let list = column.as_list::<i32>();
            // Others than those of these rows are nobody's matter.
            let (first, end) = (list.value_offsets()[0] as usize, list.value_offsets()[list.len()] as usize);
            let values = retyped(&list.values().slice(first, end - first), element.data_type())?;
            let offsets = OffsetBuffer::from_lengths(list.offsets().lengths());
            Ok(Arc::new(ListArray::try_new(Arc::clone(element), offsets, values, list.nulls().cloned())?))
        }
        (DataType::Map(..), DataType::Map(entries, sorted)) => {
            let map = column.as_map();
            let DataType::Struct(fields) = entries.data_type() else {
                return Err(ArrowError::SchemaError("a map without entries".to_owned()));
            };
            let (first, end) = (map.value_offsets()[0] as usize, map.value_offsets()[map.len()] as usize);
            let values = retyped_struct(&map.entries().slice(first, end - first), fields)?;
            let offsets = OffsetBuffer::from_lengths(map.offsets().lengths());
            Ok(Arc::new(MapArray::try_new(Arc::clone(entries), offsets, values, map.nulls().cloned(), *sorted)?))
        }
        (found, wanted) => Err(ArrowError::SchemaError(format!("they are of the type {found}, and not {wanted}"))),
    }
}

fn retyped_struct(array: &StructArray, fields: &Fields) -> Result<StructArray, ArrowError> {
    let columns = array.columns().iter().zip(fields).map(|(column, field)| retyped(column, field.data_type()));
    StructArray::try_new(fields.clone(), columns.collect::<Result<_, _>>()?, array.nulls().cloned())
}

#[cfg(test)]
mod tests {
    use arrow::array::{FixedSizeBinaryArray, Int32Array};
    use arrow::datatypes::Int32Type;
    use nexus_flight_catalog::Kind;

    use super::*;

    fn schema() -> Schema {
        serde_json::from_value(serde_json::json!({
            "type": "struct", "schema-id": 0, "fields": [
                { "id": 1, "name": "id", "required": false, "type": "uuid" },
                { "id": 2, "name": "numbers", "required": true, "type":
                    { "type": "list", "element-id": 3, "element-required": true, "element": "int" } },
                { "id": 4, "name": "point", "required": false, "type":
                    { "type": "struct", "fields": [{ "id": 5, "name": "x", "required": true, "type": "int" }] } },
                { "id": 6, "name": "names", "required": false, "type":
                    { "type": "map", "key-id": 7, "key": "string", "value-id": 8, "value-required": false, "value": "uuid" } },
            ],
        }))
        .unwrap()
    }

    fn lists(lists: Vec<Option<Vec<Option<i32>>>>) -> ArrayRef {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
        let element = Arc::new(Field::new("element", DataType::Int32, true));
        let (_, offsets, values, nulls) = list.into_parts();
        Arc::new(ListArray::new(element, offsets, values, nulls))
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
    }

    #[test]
    fn files_say_which_field_is_which() {
        let columns = Columns::of(&schema()).unwrap();
        let leaves = columns.described.columns().iter().map(|leaf| {
            let info = leaf.self_type().get_basic_info();
            (info.id(), info.logical_type_ref() == Some(&LogicalType::Uuid))
        });
        assert_eq!(leaves.collect::<Vec<_>>(), [(1, true), (3, false), (5, false), (7, false), (8, true)]);
        let roots = columns.described.root_schema().get_fields().iter().map(|root| root.get_basic_info().id());
        assert_eq!(roots.collect::<Vec<_>>(), [1, 2, 4, 6]);
    }

    #[test]
    fn rows_are_filled_and_promises_are_kept_at_any_depth() {
        let columns = Columns::of(&schema()).unwrap();
        // What another row has is nobody's matter.
        let numbers = lists(vec![Some(vec![None]), Some(vec![Some(1)]), Some(vec![])]).slice(1, 2);
        let rows = columns.rows(&batch(vec![("numbers", numbers)])).unwrap();
        assert_eq!((rows.num_rows(), rows.num_columns(), rows.column(0).null_count()), (2, 4, 2));
        assert_eq!(rows.schema(), columns.stored);
        assert_eq!(rows.column(1).as_list::<i32>().value(0).as_primitive::<Int32Type>().value(0), 1);
        let refusal = |columns_of: Vec<(&str, ArrayRef)>| columns.rows(&batch(columns_of)).unwrap_err();
        assert_eq!(refusal(vec![("numbers", lists(vec![Some(vec![None])]))]).kind(), Kind::Invalid);
        insta::assert_snapshot!(refusal(vec![("numbers", lists(vec![None]))]), @r#"the column "numbers" takes no NULL; give a value for it in every row"#);
        let x = Arc::new(Field::new("x", DataType::Int32, true));
        let point = StructArray::new(vec![x].into(), vec![Arc::new(Int32Array::from(vec![None]))], None);
        let one = lists(vec![Some(vec![])]);
        assert_eq!(refusal(vec![("numbers", Arc::clone(&one)), ("point", Arc::new(point))]).kind(), Kind::Invalid);
        let id: ArrayRef = Arc::new(FixedSizeBinaryArray::from(vec![&[1_u8; 16]]));
        assert!(columns.rows(&batch(vec![("id", id), ("numbers", one)])).is_ok());
    }
}
