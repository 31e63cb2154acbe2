//! The columns of a table: their types here, as its schema in Avro has them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use nexus_flight_catalog::{Error, Result};
use serde_json::Value;

use crate::lake::{Column, Columns};

/// The columns that Hudi adds to each row, in this order before all others.
const META: [&str; 5] =
    [COMMIT_TIME, "_hoodie_commit_seqno", "_hoodie_record_key", "_hoodie_partition_path", "_hoodie_file_name"];
/// Which commit wrote a row.
pub(super) const COMMIT_TIME: &str = "_hoodie_commit_time";
/// How deep a schema may nest.
const DEEPEST: usize = 64;
/// The most bytes of a schema, which takes many times as much where it is parsed.
const LARGEST: usize = 4 * 1024 * 1024;
/// How many columns and fields may come of types that are told by their names: a few types, each twice in the next, are soon millions.
const MOST_AGAIN: usize = 20_000;

/// The columns of a table as clients see them, and as files name them: by these names. All of them may be NULL: files do not have
/// those that were added after them. `has_meta` tells whether Hudi's own are there.
/// Errors: `Data` for what is no schema of rows; `Unsupported` with the column, for a type that is not read.
pub(super) fn shape(schema: &str, has_meta: bool) -> Result<(SchemaRef, Columns)> {
    if schema.len() > LARGEST {
        return Err(damaged(&format!("it has more than {LARGEST} bytes")));
    }
    // Java has a stroke before colons in what it writes to properties.
    let schema = schema.trim().replace("\\:", ":");
    let schema: Value = serde_json::from_str(&schema).map_err(|cause| damaged(&format!("it is no JSON: {cause}")))?;
    let mut named = Named { known: HashMap::new(), left: MOST_AGAIN };
    let written = fields(&schema, &mut named, "", 0)?;
    let is_written = |name: &str| written.iter().any(|(field, _)| field.name() == name);
    let meta = META.into_iter().filter(|name| has_meta && !is_written(name));
    let mut both: Vec<(Field, Column)> =
        meta.map(|name| (Field::new(name, DataType::Utf8, true), column(name, Vec::new()))).collect();
    both.extend(written);
    let (fields, columns): (Vec<Field>, Vec<Column>) = both.into_iter().unzip();
    Ok((Arc::new(Schema::new(fields)), Columns::new(columns)))
}

/// The types of a schema that have names, and may be told by those when they come again.
struct Named {
    known: HashMap<String, (DataType, Vec<Column>)>,
    /// How many columns and fields may come of them yet.
    left: usize,
}

impl Named {
    /// A type that comes again. Errors: `Unsupported` for a name that none has, and where too many have come already.
    fn again(&mut self, name: &str, path: &str) -> Result<(DataType, Vec<Column>)> {
        let known = self.known.get(name).or_else(|| self.known.get(name.rsplit('.').next().unwrap_or(name)));
        let (data_type, columns) = known.ok_or_else(|| refused(path, name))?;
        let left = self.left.checked_sub(1 + count(columns));
        self.left = left.ok_or_else(|| refused(path, "that repeats others too often"))?;
        Ok((data_type.clone(), columns.clone()))
    }
}

/// How many columns these are with all that are in them.
fn count(columns: &[Column]) -> usize {
    columns.iter().map(|column| 1 + count(&column.fields)).sum()
}

fn column(name: &str, fields: Vec<Column>) -> Column {
    Column { name: name.to_owned(), id: None, aliases: vec![name.to_owned()], fields }
}

/// The fields of a record.
fn fields(record: &Value, named: &mut Named, within: &str, depth: usize) -> Result<Vec<(Field, Column)>> {
    let fields = record.get("fields").and_then(Value::as_array).ok_or_else(|| damaged("a record has no fields"))?;
    let mut both = Vec::with_capacity(fields.len());
    for field in fields {
        let name = field.get("name").and_then(Value::as_str).ok_or_else(|| damaged("a field has no name"))?;
        let of = field.get("type").ok_or_else(|| damaged("a field has no type"))?;
        let (data_type, inner) = read_as(of, named, &format!("{within}{name}"), depth + 1)?;
        both.push((Field::new(name, data_type, true), column(name, inner)));
    }
    Ok(both)
}

fn read_as(of: &Value, named: &mut Named, path: &str, depth: usize) -> Result<(DataType, Vec<Column>)> {
    if depth > DEEPEST {
        return Err(refused(path, "that nests too deep"));
    }
    match of {
        Value::String(name) => primitive(name, named, path),
        Value::Array(of) => {
            let mut others = of.iter().filter(|of| of.as_str() != Some("null"));
            match (others.next(), others.next()) {
                (Some(of), None) => read_as(of, named, path, depth + 1),
                _ => Err(refused(path, "union")),
            }
        }
        Value::Object(object) => {
            let text = |key: &str| object.get(key).and_then(Value::as_str);
            let inner = |key: &str| object.get(key).ok_or_else(|| damaged("a type within another is missing"));
            let read = match text("type") {
                _ if object.contains_key("logicalType") => {
                    (logical_type(text("logicalType").unwrap_or_default(), of, path)?, Vec::new())
                }
                Some("record") => {
                    let both = fields(of, named, &format!("{path}."), depth + 1)?;
                    if both.is_empty() {
                        return Err(refused(path, "record without fields"));
                    }
                    let (fields, columns): (Vec<Field>, Vec<Column>) = both.into_iter().unzip();
                    (DataType::Struct(fields.into()), columns)
                }
                Some("array") => {
                    let (element, within) = read_as(inner("items")?, named, &format!("{path}.element"), depth + 1)?;
                    (DataType::List(Arc::new(Field::new("element", element, true))), vec![column("element", within)])
                }
                Some("map") => {
                    let (value, within) = read_as(inner("values")?, named, &format!("{path}.value"), depth + 1)?;
                    let entry = Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", value, true)]);
                    let entries = Field::new("key_value", DataType::Struct(entry), false);
                    (DataType::Map(Arc::new(entries), false), vec![column("key", Vec::new()), column("value", within)])
                }
                Some("enum") => (DataType::Utf8, Vec::new()),
                Some("fixed") => (DataType::FixedSizeBinary(size(of, path)?), Vec::new()),
                Some(name) => return primitive(name, named, path),
                // A type may be wrapped in another object.
                None => return read_as(inner("type")?, named, path, depth + 1),
            };
            if let Some(name) = text("name") {
                let full = text("namespace").map(|space| format!("{space}.{name}"));
                named.known.extend(full.into_iter().chain([name.to_owned()]).map(|name| (name, read.clone())));
            }
            Ok(read)
        }
        _ => Err(damaged("a type is no text, list or object")),
    }
}

fn primitive(name: &str, named: &mut Named, path: &str) -> Result<(DataType, Vec<Column>)> {
    let data_type = match name {
        "boolean" => DataType::Boolean,
        "int" => DataType::Int32,
        "long" => DataType::Int64,
        "float" => DataType::Float32,
        "double" => DataType::Float64,
        "bytes" => DataType::Binary,
        "string" => DataType::Utf8,
        name => return named.again(name, path),
    };
    Ok((data_type, Vec::new()))
}

fn logical_type(logical: &str, of: &Value, path: &str) -> Result<DataType> {
    let utc = Some(Arc::from("UTC"));
    Ok(match logical {
        "date" => DataType::Date32,
        "time-millis" => DataType::Time32(TimeUnit::Millisecond),
        "time-micros" => DataType::Time64(TimeUnit::Microsecond),
        "timestamp-micros" => DataType::Timestamp(TimeUnit::Microsecond, utc),
        "timestamp-nanos" => DataType::Timestamp(TimeUnit::Nanosecond, utc),
        "local-timestamp-millis" => DataType::Timestamp(TimeUnit::Millisecond, None),
        "local-timestamp-micros" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "local-timestamp-nanos" => DataType::Timestamp(TimeUnit::Nanosecond, None),
        "uuid" if of.get("type").and_then(Value::as_str) == Some("string") => DataType::Utf8,
        "decimal" => {
            let number = |key: &str| of.get(key).map_or(Some(0), Value::as_u64);
            let (precision, scale) = (number("precision"), number("scale"));
            match (precision.and_then(|p| u8::try_from(p).ok()), scale.and_then(|s| i8::try_from(s).ok())) {
                (Some(precision @ 1..=38), Some(scale)) if scale as u8 <= precision => DataType::Decimal128(precision, scale),
                _ => return Err(refused(path, "decimal")),
            }
        }
        // `timestamp-millis` too: there are writers of Hudi that call it microseconds in the files (apache/hudi#13233).
        other => return Err(refused(path, other)),
    })
}

/// The bytes of a value of a type that has so many.
fn size(of: &Value, path: &str) -> Result<i32> {
    let size = of.get("size").and_then(Value::as_i64).and_then(|size| i32::try_from(size).ok());
    size.filter(|size| *size > 0).ok_or_else(|| refused(path, "fixed"))
}

/// Errors: `Unsupported` with a column that the crate of the format does not know the type of, and would end at.
pub(super) fn known_to_the_crate(schema: &Schema) -> Result<()> {
    fn is_local(of: &DataType) -> bool {
        match of {
            DataType::Timestamp(_, None) => true,
            DataType::Struct(fields) => fields.iter().any(|field| is_local(field.data_type())),
            DataType::List(field) | DataType::Map(field, _) => is_local(field.data_type()),
            _ => false,
        }
    }
    match schema.fields().iter().find(|field| is_local(field.data_type())) {
        Some(field) => Err(refused(field.name(), "local timestamp, with records in log files")),
        None => Ok(()),
    }
}

fn refused(column: &str, data_type: &str) -> Error {
    Error::unsupported(format!("the column \"{column}\" is of the type {data_type}, which is not read here"))
        .with_hint("drop the column, or write a table without it")
}

fn damaged(why: &str) -> Error {
    Error::data(format!("the schema of the table is no schema of Avro: {why}")).with_hint("write to the table again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(fields: &str) -> Result<SchemaRef> {
        shape(&format!(r#"{{"type":"record","name":"r","fields":[{fields}]}}"#), false).map(|(schema, _)| schema)
    }

    fn one(of: &str) -> DataType {
        shaped(&format!(r#"{{"name":"c","type":{of}}}"#)).unwrap().field(0).data_type().clone()
    }

    #[test]
    fn types_are_those_of_the_files() {
        assert_eq!(one(r#"["null","long"]"#), DataType::Int64);
        assert_eq!(one(r#"[{"type":"int","logicalType":"date"},"null"]"#), DataType::Date32);
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        assert_eq!(one(r#"{"type":"long","logicalType":"timestamp-micros"}"#), utc);
        let decimal = r#"{"type":"fixed","name":"f","size":5,"logicalType":"decimal","precision":10,"scale":2}"#;
        assert_eq!(one(decimal), DataType::Decimal128(10, 2));
        assert_eq!(one(r#"{"type":"fixed","name":"f","size":3}"#), DataType::FixedSizeBinary(3));
        let list = one(r#"{"type":"array","items":["null","string"]}"#);
        assert_eq!(list, DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))));
        let map = one(r#"{"type":"map","values":"int"}"#);
        let DataType::Map(entries, false) = map else { unreachable!("a map") };
        assert_eq!(entries.name(), "key_value");
    }

    #[test]
    fn a_named_type_can_come_again() {
        let again = shaped(
            r#"{"name":"a","type":{"type":"record","name":"p","namespace":"n","fields":[{"name":"x","type":"int"}]}},
               {"name":"b","type":["null","n.p"]}"#,
        );
        let again = again.unwrap();
        assert_eq!(again.field(0).data_type(), again.field(1).data_type());
    }

    #[test]
    fn types_that_double_are_refused_before_they_are_too_many() {
        let record = |name: usize, fields: &str| format!(r#"{{"type":"record","name":"r{name}","fields":[{fields}]}}"#);
        let doubled = |levels| {
            (1..levels).fold(record(0, r#"{"name":"a","type":"int"}"#), |within, level| {
                record(level, &format!(r#"{{"name":"a","type":{within}}},{{"name":"b","type":"r{}"}}"#, level - 1))
            })
        };
        let column = |levels| shaped(&format!(r#"{{"name":"c","type":{}}}"#, doubled(levels)));
        column(10).unwrap();
        let refused = column(25).unwrap_err();
        assert!(refused.message().contains("that repeats others too often"), "{refused}");
        assert_eq!(shape(&" ".repeat(LARGEST + 1), false).unwrap_err().kind(), nexus_flight_catalog::Kind::Data);
    }

    #[test]
    fn the_columns_of_hudi_come_first_and_once() {
        let fields = r#"{"name":"_hoodie_record_key","type":"string"},{"name":"名","type":"string"}"#;
        let schema = format!(r#"{{"type":"record","name":"r","fields":[{fields}]}}"#);
        let (schema, _) = shape(&schema, true).unwrap();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, [META[0], META[1], META[3], META[4], META[2], "名"]);
    }

    #[test]
    fn what_is_not_read_is_refused_by_name() {
        insta::assert_snapshot!(shaped(r#"{"name":"c","type":["int","string"]}"#).unwrap_err().message(), @r#"the column "c" is of the type union, which is not read here"#);
        insta::assert_snapshot!(shaped(r#"{"name":"c","type":{"type":"bytes","logicalType":"vector"}}"#).unwrap_err().message(), @r#"the column "c" is of the type vector, which is not read here"#);
        let local = shaped(r#"{"name":"c","type":{"type":"long","logicalType":"local-timestamp-micros"}}"#).unwrap();
        insta::assert_snapshot!(known_to_the_crate(&local).unwrap_err().message(), @r#"the column "c" is of the type local timestamp, with records in log files, which is not read here"#);
        assert_eq!(shape("[]", true).unwrap_err().kind(), nexus_flight_catalog::Kind::Data);
    }
}
