//! Iceberg tables whose metadata is written here, held to what is asked of a source.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Date32Type, Field, Int32Type, Int64Type, Schema as ArrowSchema, TimestampMicrosecondType};
use iceberg::arrow::{arrow_schema_to_schema_auto_assign_ids, schema_to_arrow_schema};
use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, ManifestListWriter, ManifestWriterBuilder, PartitionSpec,
    Schema, SchemaRef, Struct,
};
use nexus_flight_catalog::conformance::{Fixture, check, types};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use serde_json::{Value, json};

use crate::lakes::{conformed, ends, files, held};
use crate::seeds::{Stored, open_as, violations};

#[tokio::test]
async fn iceberg() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("file://{}", folder.path().display());
    let mut fixture = Fixture::new(open_as("iceberg", json!({ "location": folder.path() })), "main");
    fixture.tables = held();
    for table in &fixture.tables {
        commit(&format!("{address}/{}", table.name), 1, &table.batch).await;
    }
    fixture.mutate = Some(Box::new(move |rows| {
        let table = format!("{address}/types");
        Box::pin(async move { commit(&table, 2, &types(rows)).await })
    }));
    violations(check(&fixture).await);
}

/// Writes a version of a table, with a snapshot that has these rows and no others. A table that never had rows has no snapshot.
async fn commit(table: &str, version: i64, batch: &RecordBatch) {
    let io = FileIO::new_with_fs();
    let schema = Arc::new(arrow_schema_to_schema_auto_assign_ids(&batch.schema()).unwrap());
    let mut metadata = metadata(table, version, &schema);
    if batch.num_rows() > 0 {
        let batch = conformed(batch, Arc::new(schema_to_arrow_schema(&schema).unwrap()));
        snapshot(&io, table, version, &schema, &batch).await;
        metadata["current-snapshot-id"] = version.into();
        metadata["snapshots"] = (1..=version).map(|version| about(table, version)).collect();
    }
    let bytes = serde_json::to_vec(&metadata).unwrap();
    io.new_output(format!("{table}/metadata/v{version}.metadata.json")).unwrap().write(bytes.into()).await.unwrap();
}

fn metadata(table: &str, version: i64, schema: &Schema) -> Value {
    json!({
        "format-version": 2, "table-uuid": "fb072c92-a02b-11e9-ae9c-1bb7bc9eca94", "location": table,
        "last-sequence-number": version, "last-updated-ms": changed(version), "last-column-id": schema.highest_field_id(),
        "schemas": [schema], "current-schema-id": schema.schema_id(),
        "partition-specs": [{ "spec-id": 0, "fields": [] }], "default-spec-id": 0, "last-partition-id": 999,
        "sort-orders": [{ "order-id": 0, "fields": [] }], "default-sort-order-id": 0,
    })
}

fn about(table: &str, version: i64) -> Value {
    json!({
        "snapshot-id": version, "sequence-number": version, "timestamp-ms": changed(version), "schema-id": 0,
        "manifest-list": list_of(table, version), "summary": { "operation": "overwrite" },
    })
}

/// When a version was made, in milliseconds since 1970.
fn changed(version: i64) -> i64 {
    1_704_067_200_000 + version
}

fn list_of(table: &str, version: i64) -> String {
    format!("{table}/metadata/snap-{version}.avro")
}

async fn snapshot(io: &FileIO, table: &str, version: i64, schema: &SchemaRef, batch: &RecordBatch) {
    let manifest = |name: &str| {
        let output = io.new_output(format!("{table}/metadata/{version}-{name}.avro")).unwrap();
        ManifestWriterBuilder::new(output, Some(version), Arc::clone(schema), PartitionSpec::unpartition_spec())
    };
    let (mut data, mut deletes) = (manifest("data").build_v2_data(), manifest("deletes").build_v2_deletes());
    let mut deleted: Vec<(String, i64)> = Vec::new();
    for (number, file) in files(batch).into_iter().enumerate() {
        let path = format!("{table}/data/{version}-{number}.parquet");
        deleted.extend(file.deleted.iter().map(|place| (path.clone(), i64::try_from(*place).unwrap())));
        let size = put(io, &path, &file.rows).await;
        data.add_file(data_file(path, size, schema, &file.rows), version).unwrap();
    }
    let path = format!("{table}/data/{version}-deletes.parquet");
    let rows = positions(&deleted);
    let size = put(io, &path, &rows).await;
    deletes.add_file(described(DataContentType::PositionDeletes, path, size, &rows).build().unwrap(), version).unwrap();
    let manifests = [data.write_manifest_file().await.unwrap(), deletes.write_manifest_file().await.unwrap()];
    let output = io.new_output(list_of(table, version)).unwrap().writer().await.unwrap();
    let mut list = ManifestListWriter::v2(output, version, None, version);
    list.add_manifests(manifests.into_iter()).unwrap();
    list.close().await.unwrap();
}

/// Writes a file of rows, and gives its size.
async fn put(io: &FileIO, path: &str, rows: &RecordBatch) -> u64 {
    let bytes = Stored::Parquet.encode(rows);
    let size = bytes.len() as u64;
    io.new_output(path).unwrap().write(bytes.into()).await.unwrap();
    size
}

/// The rows of a file that deletes others by their places.
fn positions(deleted: &[(String, i64)]) -> RecordBatch {
    let field = |name: &str, of: DataType, id: i32| {
        let id = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]);
        Field::new(name, of, false).with_metadata(id)
    };
    let fields = vec![field("file_path", DataType::Utf8, 2_147_483_546), field("pos", DataType::Int64, 2_147_483_545)];
    let paths = StringArray::from_iter_values(deleted.iter().map(|(path, _)| path));
    let places = Int64Array::from_iter_values(deleted.iter().map(|(_, place)| *place));
    RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), vec![Arc::new(paths), Arc::new(places)]).unwrap()
}

fn data_file(path: String, size: u64, schema: &Schema, rows: &RecordBatch) -> DataFile {
    let columns = || schema.as_struct().fields().iter().zip(rows.columns()).filter(|(field, _)| field.field_type.is_primitive());
    let bounds = |end: usize| -> HashMap<i32, Datum> {
        columns().filter_map(|(field, column)| Some((field.id, datum(ends(column)?.get(end)?)?))).collect()
    };
    described(DataContentType::Data, path, size, rows)
        .value_counts(columns().map(|(field, column)| (field.id, column.len() as u64)).collect())
        .null_value_counts(columns().map(|(field, column)| (field.id, column.null_count() as u64)).collect())
        .lower_bounds(bounds(0))
        .upper_bounds(bounds(1))
        .build()
        .unwrap()
}

/// What is said of every file.
fn described(content: DataContentType, path: String, size: u64, rows: &RecordBatch) -> DataFileBuilder {
    let mut file = DataFileBuilder::default();
    file.content(content).file_path(path).file_format(DataFileFormat::Parquet).partition(Struct::empty());
    file.file_size_in_bytes(size).record_count(rows.num_rows() as u64);
    file
}

/// A value as metadata has it; none of a type whose bounds this does not write.
fn datum(value: &ArrayRef) -> Option<Datum> {
    Some(match value.data_type() {
        DataType::Int64 => Datum::long(value.as_primitive::<Int64Type>().value(0)),
        DataType::Int32 => Datum::int(value.as_primitive::<Int32Type>().value(0)),
        DataType::Utf8 => Datum::string(value.as_string::<i32>().value(0)),
        DataType::Date32 => Datum::date(value.as_primitive::<Date32Type>().value(0)),
        DataType::Timestamp(..) => Datum::timestamp_micros(value.as_primitive::<TimestampMicrosecondType>().value(0)),
        _ => return None,
    })
}
