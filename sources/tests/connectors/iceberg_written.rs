//! Iceberg tables in a folder, held to what is asked of a source; their rows are put there by the source itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use nexus_flight_catalog::conformance::{Fixture, check, seed, types};
use nexus_flight_catalog::{Context, Options, Principal, Source, Target};
use serde_json::{Value, json};

use crate::seeds::violations;

/// What Iceberg calls a type. `next` is the first field id that is free.
fn called(data_type: &DataType, next: &mut i32) -> Value {
    match data_type {
        DataType::Int64 => "long".into(),
        DataType::Int32 => "int".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Float64 => "double".into(),
        DataType::Utf8 => "string".into(),
        DataType::Binary => "binary".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision}, {scale})").into(),
        DataType::List(element) => {
            let id = free(next);
            json!({ "type": "list", "element-id": id, "element-required": false, "element": called(element.data_type(), next) })
        }
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| {
                let id = free(next);
                json!({ "id": id, "name": field.name(), "required": false, "type": called(field.data_type(), next) })
            });
            json!({ "type": "struct", "fields": fields.collect::<Vec<Value>>() })
        }
        other => panic!("no type of Iceberg for {other}"),
    }
}

fn free(next: &mut i32) -> i32 {
    *next += 1;
    *next - 1
}

/// A table without rows, of which `parts` says how it is partitioned.
fn made(folder: &Path, schema: &Schema, parts: &Value) {
    let mut next = schema.fields().len() as i32 + 1;
    let fields = schema.fields().iter().zip(1..).map(|(field, id): (&Arc<Field>, i32)| {
        json!({ "id": id, "name": field.name(), "required": false, "type": called(field.data_type(), &mut next) })
    });
    let fields: Vec<Value> = fields.collect();
    let metadata = json!({
        "format-version": 2, "table-uuid": uuid::Uuid::new_v4(), "location": folder, "last-sequence-number": 0,
        "last-updated-ms": 0, "last-column-id": next - 1, "current-schema-id": 0,
        "schemas": [{ "type": "struct", "schema-id": 0, "fields": fields }],
        "partition-specs": [{ "spec-id": 0, "fields": parts }], "default-spec-id": 0, "last-partition-id": 1001,
        "sort-orders": [{ "order-id": 0, "fields": [] }], "default-sort-order-id": 0,
    });
    std::fs::create_dir_all(folder.join("metadata")).unwrap();
    std::fs::write(folder.join("metadata/v1.metadata.json"), metadata.to_string()).unwrap();
}

async fn put(source: &Arc<dyn Source>, table: &str, rows: RecordBatch) {
    let cx = Context::new(Principal::anonymous());
    let sent = RecordBatchStreamAdapter::new(rows.schema(), stream::iter([Ok(rows)]).boxed());
    source.ingest(&cx, &Target::append("main", table), Box::pin(sent)).await.unwrap();
}

/// Lists as Iceberg has them.
fn with_elements(batch: &RecordBatch) -> RecordBatch {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| match field.data_type() {
        DataType::List(element) => {
            let element = Arc::new(element.as_ref().clone().with_name("element"));
            (field.name(), cast(column, &DataType::List(element)).unwrap(), true)
        }
        _ => (field.name(), Arc::clone(column), true),
    });
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

async fn conforms(parts: fn(&str) -> Value) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let values = json!({ "location": root }).as_object().unwrap().clone();
    let options = Options { catalog: "lake".into(), base: PathBuf::new(), values };
    let source = nexus_sources::open("iceberg", &options).unwrap();
    let mut fixture = Fixture::new(Arc::clone(&source), "main");
    for table in &mut fixture.tables {
        table.batch = with_elements(&table.batch);
        made(&root.join(&table.name), &table.batch.schema(), &parts(&table.name));
        put(&source, &table.name, table.batch.clone()).await;
    }
    let before = seed().into_iter().find(|table| table.name == "types").unwrap().batch.num_rows();
    fixture.mutate = Some(Box::new(move |rows| {
        let source = Arc::clone(&source);
        Box::pin(async move { put(&source, "types", types(rows).slice(before, rows as usize - before)).await })
    }));
    violations(check(&fixture).await);
}

#[tokio::test]
async fn iceberg() {
    conforms(|_| json!([])).await;
}

#[tokio::test]
async fn iceberg_in_partitions() {
    conforms(|table| match table {
        // Not by what makes the names of a file alike: DataFusion forgets the backslash of a pattern where it asks statistics, which the
        // server mends for all connectors (`standard/escapes.rs`).
        "types" => json!([
            { "name": "id_bucket", "transform": "bucket[2]", "source-id": 1, "field-id": 1000 },
            { "name": "flag", "transform": "identity", "source-id": 2, "field-id": 1001 },
        ]),
        "links" => json!([
            { "name": "note_trunc", "transform": "truncate[2]", "source-id": 3, "field-id": 1000 },
            { "name": "link_bucket", "transform": "bucket[3]", "source-id": 1, "field-id": 1001 },
        ]),
        _ => json!([]),
    })
    .await;
}
