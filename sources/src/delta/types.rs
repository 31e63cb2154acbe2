//! The columns of a Delta table: their types here, and how its files name them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use delta_kernel::schema::{ColumnMetadataKey, DataType as DeltaType, MetadataValue, PrimitiveType, StructField, StructType};
use delta_kernel::table_features::ColumnMappingMode;
use nexus_flight_catalog::{Error, Result};
use serde::Deserialize;

use crate::lake::{Column, Columns, becomes};

/// What the type of a column, or one within it, was and became (Delta's protocol, Type Widening).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    from_type: PrimitiveType,
    to_type: PrimitiveType,
}

/// The columns of a table as clients see them, and as files name them. All of them may be NULL: files do not have those that were
/// added after them, and nothing else checks what a writer left out.
/// Errors: `Unsupported` with the column, for a type that is not read.
pub(super) fn shape(schema: &StructType, mode: ColumnMappingMode) -> Result<(SchemaRef, Columns)> {
    let (fields, columns) = fields(schema, mode, "")?;
    let commented = fields.iter().zip(schema.fields()).map(|(field, written)| match written.metadata.get("comment") {
        Some(MetadataValue::String(comment)) => {
            let comment = HashMap::from([("comment".to_owned(), comment.clone())]);
            Arc::new(field.as_ref().clone().with_metadata(comment))
        }
        _ => Arc::clone(field),
    });
    Ok((Arc::new(Schema::new(commented.collect::<Fields>())), Columns::new(columns)))
}

fn fields(of: &StructType, mode: ColumnMappingMode, within: &str) -> Result<(Fields, Vec<Column>)> {
    let both = of.fields().map(|field| one(field, mode, within)).collect::<Result<Vec<_>>>()?;
    let (fields, columns): (Vec<Field>, Vec<Column>) = both.into_iter().unzip();
    Ok((fields.into(), columns))
}

fn one(field: &StructField, mode: ColumnMappingMode, within: &str) -> Result<(Field, Column)> {
    let path = format!("{within}{}", field.name());
    check_changes(field, &path)?;
    let (data_type, fields) = read_as(field.data_type(), mode, &path)?;
    let id = match mode {
        ColumnMappingMode::Id => field.column_mapping_id().and_then(|id| i32::try_from(id).ok()),
        ColumnMappingMode::None | ColumnMappingMode::Name => None,
    };
    let column = Column { name: field.name().clone(), id, aliases: vec![field.physical_name(mode).to_owned()], fields };
    Ok((Field::new(field.name(), data_type, true), column))
}

/// Errors: `Unsupported` where older files have values that are not read as those of the column's type.
fn check_changes(field: &StructField, path: &str) -> Result<()> {
    let changes = match field.get_config_value(&ColumnMetadataKey::TypeChanges) {
        None => return Ok(()),
        Some(MetadataValue::Other(changes)) => Vec::<Change>::deserialize(changes).ok(),
        Some(_) => None,
    };
    let refused = |why: &str| Error::unsupported(format!("the type of the column \"{path}\" was changed {why}")).with_hint(ANEW);
    for Change { from_type, to_type } in changes.ok_or_else(|| refused("in a way that is not known here"))? {
        let of = |plain: &PrimitiveType| read_as(&DeltaType::Primitive(plain.clone()), ColumnMappingMode::None, path);
        let ((from, _), (to, _)) = (of(&from_type)?, of(&to_type)?);
        if !becomes(&from, &to) {
            return Err(refused(&format!("from {from_type} to {to_type}, which is not read here")));
        }
    }
    Ok(())
}

/// A field within a list or a map, which every file names alike.
fn inner(of: &DeltaType, name: &str, mode: ColumnMappingMode, path: &str) -> Result<(DataType, Column)> {
    let (data_type, fields) = read_as(of, mode, &format!("{path}.{name}"))?;
    Ok((data_type, Column { name: name.to_owned(), id: None, aliases: vec![name.to_owned()], fields }))
}

fn read_as(of: &DeltaType, mode: ColumnMappingMode, path: &str) -> Result<(DataType, Vec<Column>)> {
    let plain = match of {
        DeltaType::Struct(of) => {
            let (fields, columns) = fields(of, mode, &format!("{path}."))?;
            return Ok((DataType::Struct(fields), columns));
        }
        DeltaType::Array(of) => {
            let (element, column) = inner(of.element_type(), "element", mode, path)?;
            return Ok((DataType::List(Arc::new(Field::new("element", element, true))), vec![column]));
        }
        DeltaType::Map(of) => {
            let (key, key_column) = inner(of.key_type(), "key", mode, path)?;
            let (value, value_column) = inner(of.value_type(), "value", mode, path)?;
            let entry = Fields::from(vec![Field::new("key", key, false), Field::new("value", value, true)]);
            let entries = Field::new("key_value", DataType::Struct(entry), false);
            return Ok((DataType::Map(Arc::new(entries), false), vec![key_column, value_column]));
        }
        DeltaType::Primitive(plain) => plain,
        DeltaType::Variant(_) => return Err(refused(path, "variant")),
    };
    let data_type = match plain {
        PrimitiveType::String => DataType::Utf8,
        PrimitiveType::Long => DataType::Int64,
        PrimitiveType::Integer => DataType::Int32,
        PrimitiveType::Short => DataType::Int16,
        PrimitiveType::Byte => DataType::Int8,
        PrimitiveType::Float => DataType::Float32,
        PrimitiveType::Double => DataType::Float64,
        PrimitiveType::Boolean => DataType::Boolean,
        PrimitiveType::Binary => DataType::Binary,
        PrimitiveType::Date => DataType::Date32,
        PrimitiveType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        PrimitiveType::TimestampNtz => DataType::Timestamp(TimeUnit::Microsecond, None),
        PrimitiveType::Decimal(of) => match i8::try_from(of.scale()) {
            Ok(scale) => DataType::Decimal128(of.precision(), scale),
            Err(_) => return Err(refused(path, "decimal")),
        },
        PrimitiveType::Void => return Err(refused(path, "void")),
        PrimitiveType::IntervalYearMonth | PrimitiveType::IntervalDayTime => return Err(refused(path, "interval")),
    };
    Ok((data_type, Vec::new()))
}

/// What is advised for a column that is not read.
const ANEW: &str = "drop the column, or write a table without it";

fn refused(column: &str, data_type: &str) -> Error {
    Error::unsupported(format!("the column \"{column}\" is of the type {data_type}, which is not read here")).with_hint(ANEW)
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Kind;

    use super::*;

    fn shaped(json: &str, mode: ColumnMappingMode) -> Result<(Fields, Vec<Column>)> {
        let of: StructType = serde_json::from_str(json).unwrap();
        fields(&of, mode, "")
    }

    #[test]
    fn a_column_goes_by_the_name_that_files_have_for_it() {
        let json = r#"{"type":"struct","fields":[{"name":"größe","type":"integer","nullable":false,"metadata":
            {"delta.columnMapping.id":7,"delta.columnMapping.physicalName":"col-7"}}]}"#;
        let column = |mode| shaped(json, mode).unwrap().1.remove(0);
        let by_name = column(ColumnMappingMode::Name);
        assert_eq!((by_name.id, by_name.aliases), (None, vec!["col-7".to_owned()]));
        let by_id = column(ColumnMappingMode::Id);
        assert_eq!((by_id.id, by_id.aliases), (Some(7), vec!["col-7".to_owned()]));
        let unmapped = column(ColumnMappingMode::None);
        assert_eq!((unmapped.id, unmapped.aliases, unmapped.name), (None, vec!["größe".to_owned()], "größe".to_owned()));
    }

    #[test]
    fn types_nest() {
        let json = r#"{"type":"struct","fields":[{"name":"m","nullable":true,"metadata":{},"type":{"type":"map","keyType":"string",
            "valueType":{"type":"array","elementType":"timestamp","containsNull":true},"valueContainsNull":true}}]}"#;
        let (schema, columns) = shaped(json, ColumnMappingMode::None).unwrap();
        let DataType::Map(entries, false) = schema[0].data_type() else { unreachable!("a map") };
        let DataType::Struct(entry) = entries.data_type() else { unreachable!("an entry") };
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        assert_eq!(entry[1].data_type(), &DataType::List(Arc::new(Field::new("element", time, true))));
        assert_eq!(columns[0].fields[1].fields[0].name, "element");
    }

    #[test]
    fn types_become_wider_ones_only() {
        let changed = |from: &str, to: &str| {
            let json = format!(
                r#"{{"type":"struct","fields":[{{"name":"n","type":"{to}","nullable":true,"metadata":{{"delta.typeChanges":
                [{{"fromType":"{from}","toType":"{to}","tableVersion":1}}]}}}}]}}"#
            );
            shaped(&json, ColumnMappingMode::None).map(|_| ())
        };
        for (from, to) in [
            ("byte", "short"),
            ("byte", "long"),
            ("short", "integer"),
            ("integer", "long"),
            ("float", "double"),
            ("short", "double"),
            ("integer", "double"),
            ("date", "timestamp_ntz"),
            ("byte", "decimal(10,0)"),
            ("integer", "decimal(12,2)"),
            ("long", "decimal(20,0)"),
            ("decimal(10,2)", "decimal(12,2)"),
            ("decimal(10,2)", "decimal(12,4)"),
        ] {
            assert!(changed(from, to).is_ok(), "{from} {to}");
        }
        for (from, to) in [("long", "double"), ("date", "timestamp"), ("decimal(10,2)", "decimal(11,4)"), ("new", "long")] {
            assert_eq!(changed(from, to).unwrap_err().kind(), Kind::Unsupported, "{from} {to}");
        }
        insta::assert_snapshot!(changed("long", "integer").unwrap_err(), @r#"the type of the column "n" was changed from long to integer, which is not read here; drop the column, or write a table without it"#);
    }

    #[test]
    fn what_is_not_read_is_refused_by_name() {
        let json = r#"{"type":"struct","fields":[{"name":"s","nullable":true,"metadata":{},"type":{"type":"struct","fields":
            [{"name":"nothing","type":"void","nullable":true,"metadata":{}}]}}]}"#;
        insta::assert_snapshot!(shaped(json, ColumnMappingMode::None).unwrap_err(), @r#"the column "s.nothing" is of the type void, which is not read here; drop the column, or write a table without it"#);
    }
}
