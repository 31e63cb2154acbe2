//! Hudi tables whose timeline is written here, held to what is asked of a source.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Fields};
use nexus_flight_catalog::Source;
use nexus_flight_catalog::conformance::{Fixture, check, types};
use serde_json::{Value, json};

use crate::lakes::{File, files, held};
use crate::seeds::{Put, Stored, into_folder, open_as, violations};

const PROPERTIES: &str = "hoodie.table.name=seed\nhoodie.table.type=COPY_ON_WRITE\nhoodie.table.version=6\n\
                          hoodie.timeline.layout.version=1\nhoodie.populate.meta.fields=false\n";

#[tokio::test]
async fn hudi() {
    let folder = tempfile::tempdir().unwrap();
    let source = open_as("hudi", json!({ "location": folder.path() }));
    violations(check(&fixture(source, into_folder(folder.path())).await).await);
}

/// The seed as Hudi tables, put somewhere by name, and a source that reads them there.
pub(crate) async fn fixture(source: Arc<dyn Source>, put: Put) -> Fixture {
    let mut fixture = Fixture::new(source, "main");
    fixture.tables = held();
    for table in &fixture.tables {
        put(format!("{}/.hoodie/hoodie.properties", table.name), PROPERTIES.into()).await;
        write(&put, &table.name, 1, &table.batch).await;
    }
    let put = Arc::new(put);
    fixture.mutate = Some(Box::new(move |rows| {
        let put = Arc::clone(&put);
        Box::pin(async move { write(&put, "types", 3, &types(rows)).await })
    }));
    fixture
}

/// Makes these the rows of a table, by commits of two days. That of the first writes rows that are deleted too, and that of the
/// second each file anew without them: the older files stay where they are.
async fn write(put: &Put, table: &str, day: u8, batch: &RecordBatch) {
    let (schema, files) = (batch.schema(), files(batch));
    let all: Vec<RecordBatch> = files.iter().map(|file| file.rows.clone()).collect();
    let left: Vec<RecordBatch> = files.iter().map(left).collect();
    commit(put, table, day, schema.fields(), &all).await;
    commit(put, table, day + 1, schema.fields(), &left).await;
}

/// The rows of a file that are not deleted.
fn left(file: &File) -> RecordBatch {
    let left: Vec<bool> = (0..).take(file.rows.num_rows()).map(|place: u64| !file.deleted.contains(&place)).collect();
    filter_record_batch(&file.rows, &BooleanArray::from(left)).unwrap()
}

/// Writes base files, each in the place of that of its file group before, and the commit that says so.
async fn commit(put: &Put, table: &str, day: u8, columns: &Fields, files: &[RecordBatch]) {
    let instant = instant_of(day);
    let previous = if day == 1 { "null".to_owned() } else { instant_of(day - 1) };
    let mut stats = Vec::new();
    for (number, rows) in files.iter().enumerate() {
        let (group, bytes) = (format!("group-{number}"), Stored::Parquet.encode(rows));
        let path = format!("{group}_{number}-1-2_{instant}.parquet");
        stats.push(json!({ "fileId": group, "path": path, "prevCommit": previous, "fileSizeInBytes": bytes.len() }));
        put(format!("{table}/{path}"), bytes).await;
    }
    let said = json!({
        "partitionToWriteStats": { "": stats }, "operationType": "UPSERT",
        "extraMetadata": { "schema": record("seed", columns).to_string() },
    });
    put(format!("{table}/.hoodie/{instant}.commit"), said.to_string().into_bytes()).await;
}

fn instant_of(day: u8) -> String {
    format!("202401{day:02}000000000")
}

fn record(name: &str, fields: &Fields) -> Value {
    let field = |field: &Arc<Field>| json!({ "name": field.name(), "type": ["null", avro_type(field)], "default": null });
    json!({ "type": "record", "name": name, "fields": fields.iter().map(field).collect::<Vec<Value>>() })
}

fn avro_type(field: &Field) -> Value {
    match field.data_type() {
        DataType::Int64 => "long".into(),
        DataType::Int32 => "int".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Float64 => "double".into(),
        DataType::Utf8 => "string".into(),
        DataType::Binary => "bytes".into(),
        DataType::Date32 => json!({ "type": "int", "logicalType": "date" }),
        DataType::Timestamp(_, None) => json!({ "type": "long", "logicalType": "local-timestamp-micros" }),
        DataType::Decimal128(precision, scale) => {
            json!({ "type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale })
        }
        DataType::List(item) => json!({ "type": "array", "items": ["null", avro_type(item)] }),
        DataType::Struct(fields) => record(field.name(), fields),
        other => panic!("no type of Avro for {other}"),
    }
}
