//! Delta tables whose log is written here, held to what is asked of a source.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, FieldRef, Fields};
use arrow::json::LineDelimitedWriter;
use nexus_flight_catalog::Source;
use nexus_flight_catalog::conformance::{Fixture, SeedTable, check, types};
use roaring::RoaringTreemap;
use serde_json::{Map, Value, json};

use crate::lakes::{File, ends, files, held};
use crate::seeds::{Put, Stored, into_folder, open_as, violations};

#[tokio::test]
async fn delta() {
    let folder = tempfile::tempdir().unwrap();
    let source = open_as("delta", json!({ "location": folder.path() }));
    violations(check(&fixture(source, into_folder(folder.path())).await).await);
}

/// The seed as Delta tables, put somewhere by name, and a source that reads them there.
pub(crate) async fn fixture(source: Arc<dyn Source>, put: Put) -> Fixture {
    let mut fixture = Fixture::new(source, "main");
    fixture.tables = held();
    for table in &fixture.tables {
        make(&put, table).await;
    }
    let before = fixture.tables.iter().find(|table| table.name == "types").unwrap().batch.clone();
    let put = Arc::new(put);
    fixture.mutate = Some(Box::new(move |rows| {
        let (put, before) = (Arc::clone(&put), before.clone());
        Box::pin(async move { replace(&put, "types", &before, &types(rows)).await })
    }));
    fixture
}

async fn make(put: &Put, table: &SeedTable) {
    let features = json!(["deletionVectors", "timestampNtz"]);
    let protocol =
        json!({ "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features });
    let metadata = json!({
        "id": table.name, "format": { "provider": "parquet", "options": {} }, "partitionColumns": [],
        "schemaString": structure(table.batch.schema().fields()).to_string(),
        "configuration": { "delta.enableDeletionVectors": "true" },
    });
    let actions = vec![json!({ "protocol": protocol }), json!({ "metaData": metadata })];
    commit(put, &table.name, 0, actions, &table.batch).await;
}

async fn replace(put: &Put, table: &str, before: &RecordBatch, batch: &RecordBatch) {
    let removed = added(0, before).into_iter().map(|(path, _, add)| {
        let vector = add.get("deletionVector");
        json!({ "remove": { "path": path, "deletionTimestamp": 1, "dataChange": true, "deletionVector": vector } })
    });
    commit(put, table, 1, removed.collect(), batch).await;
}

/// Writes a version of a table that adds these rows besides what else it does.
async fn commit(put: &Put, table: &str, version: u64, mut actions: Vec<Value>, batch: &RecordBatch) {
    for (path, bytes, add) in added(version, batch) {
        put(format!("{table}/{path}"), bytes).await;
        actions.push(json!({ "add": add }));
    }
    let lines: Vec<String> = actions.iter().map(Value::to_string).collect();
    put(format!("{table}/_delta_log/{version:020}.json"), lines.join("\n").into_bytes()).await;
}

/// The files that a version adds, and what the log says of each.
fn added(version: u64, batch: &RecordBatch) -> Vec<(String, Vec<u8>, Value)> {
    let added = |(number, file): (usize, File)| {
        let path = format!("{version}-{number}.parquet");
        let bytes = Stored::Parquet.encode(&file.rows);
        let mut add = json!({
            "path": path, "partitionValues": {}, "size": bytes.len(), "modificationTime": 0, "dataChange": true,
            "stats": stats(&file).to_string(),
        });
        if !file.deleted.is_empty() {
            add["deletionVector"] = vector(&file.deleted);
        }
        (path, bytes, add)
    };
    files(batch).into_iter().enumerate().map(added).collect()
}

/// What the log says of the values in a file, its deleted rows included.
fn stats(file: &File) -> Value {
    let schema = file.rows.schema();
    let columns = || schema.fields().iter().zip(file.rows.columns());
    let bounds = |end: usize| {
        let bound = columns().filter_map(|(field, column)| Some((field.name(), ends(column)?.get(end)?.clone())));
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write(&RecordBatch::try_from_iter(bound).unwrap()).unwrap();
        writer.finish().unwrap();
        serde_json::from_slice::<Value>(&writer.into_inner()).unwrap()
    };
    let plain = columns().filter(|(field, _)| !field.data_type().is_nested());
    let nulls: Map<String, Value> = plain.map(|(field, column)| (field.name().clone(), column.null_count().into())).collect();
    json!({
        "numRecords": file.rows.num_rows(), "minValues": bounds(0), "maxValues": bounds(1), "nullCount": nulls,
        "tightBounds": file.deleted.is_empty(),
    })
}

/// A deletion vector that is in the log itself.
fn vector(deleted: &[u64]) -> Value {
    let mut bytes = 1_681_511_377_u32.to_le_bytes().to_vec();
    deleted.iter().copied().collect::<RoaringTreemap>().serialize_into(&mut bytes).unwrap();
    let size = bytes.len();
    bytes.resize(size.next_multiple_of(4), 0);
    json!({ "storageType": "i", "pathOrInlineDv": z85(&bytes), "sizeInBytes": size, "cardinality": deleted.len() })
}

/// Bytes as text, of which five letters stand for four of them.
fn z85(bytes: &[u8]) -> String {
    let letters = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
    let mut text = String::new();
    for four in bytes.chunks(4) {
        let number = four.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte));
        let digits = (0..5).rev().map(|place| number / 85_u32.pow(place) % 85);
        text.extend(digits.map(|digit| char::from(letters[digit as usize])));
    }
    text
}

fn structure(fields: &Fields) -> Value {
    let field = |field: &FieldRef| json!({ "name": field.name(), "type": delta_type(field.data_type()), "nullable": true, "metadata": {} });
    json!({ "type": "struct", "fields": fields.iter().map(field).collect::<Vec<Value>>() })
}

fn delta_type(data_type: &DataType) -> Value {
    match data_type {
        DataType::Int64 => "long".into(),
        DataType::Int32 => "integer".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Float64 => "double".into(),
        DataType::Utf8 => "string".into(),
        DataType::Binary => "binary".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(_, None) => "timestamp_ntz".into(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})").into(),
        DataType::List(item) => json!({ "type": "array", "elementType": delta_type(item.data_type()), "containsNull": true }),
        DataType::Struct(fields) => structure(fields),
        other => panic!("no type of Delta for {other}"),
    }
}
