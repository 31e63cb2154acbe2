//! The seed as files of every format, and what a catalog over them declares.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use futures::future::BoxFuture;
use nexus_flight_catalog::conformance::{Fixture, SeedTable, seed, types};
use nexus_flight_catalog::{Options, Source};
use serde_json::{Value, json};

/// Writes a file by its name.
pub(crate) type Put = Box<dyn Fn(String, Vec<u8>) -> BoxFuture<'static, ()> + Send + Sync>;

/// How the seed is stored.
#[derive(Clone, Copy)]
pub(crate) enum Stored {
    Parquet,
    Csv,
    Json,
    Arrow,
}

impl Stored {
    /// The seed, put somewhere by name, and a source that reads it there.
    pub(crate) async fn fixture(self, source: Arc<dyn Source>, put: Put) -> Fixture {
        let tables = self.tables();
        for table in &tables {
            put(self.file(&table.name), self.encode(&table.batch)).await;
        }
        let mut fixture = Fixture::new(source, "main");
        // Only Parquet has statistics to leave rows out by.
        fixture.capabilities.filters = matches!(self, Stored::Parquet);
        fixture.tables = tables;
        fixture.mutate = Some(Box::new(move |rows| put(self.file("types"), self.encode(&types(rows)))));
        fixture
    }

    /// What this form can hold: text has no structure and no bytes.
    fn tables(self) -> Vec<SeedTable> {
        let holds = |table: &SeedTable| table.name != "nested" || matches!(self, Stored::Parquet | Stored::Arrow);
        seed().into_iter().filter(holds).collect()
    }

    /// The configuration's tables: keys, and for text the types.
    pub(crate) fn declared(self) -> Value {
        let mut declared = serde_json::Map::new();
        for table in self.tables() {
            let foreign = table.keys.foreign.iter();
            let foreign: Vec<Value> =
                foreign.map(|key| json!({ "columns": key.columns, "table": key.table, "referenced": key.referenced })).collect();
            let mut value = json!({ "path": self.file(&table.name), "primary_key": table.keys.primary, "foreign_keys": foreign });
            if matches!(self, Stored::Csv | Stored::Json) {
                let columns = table.batch.schema();
                let columns =
                    columns.fields().iter().map(|field| json!({ "name": field.name(), "type": sql(field.data_type()) }));
                value["columns"] = columns.collect();
            }
            declared.insert(table.name, value);
        }
        Value::Object(declared)
    }

    fn ending(self) -> &'static str {
        match self {
            Stored::Parquet => "parquet",
            Stored::Csv => "csv",
            Stored::Json => "json",
            Stored::Arrow => "arrow",
        }
    }

    /// The name of a table's file.
    pub(crate) fn file(self, name: &str) -> String {
        format!("{name}.{}", self.ending())
    }

    /// A table's file.
    pub(crate) fn encode(self, batch: &RecordBatch) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Stored::Parquet => {
                // Several row groups, so that there is something to leave out.
                let properties = parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(50));
                let mut writer =
                    parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties.build())).unwrap();
                writer.write(batch).unwrap();
                writer.close().unwrap();
            }
            Stored::Csv => arrow::csv::Writer::new(&mut bytes).write(batch).unwrap(),
            Stored::Json => {
                let mut writer = arrow::json::LineDelimitedWriter::new(&mut bytes);
                writer.write(batch).unwrap();
                writer.finish().unwrap();
            }
            Stored::Arrow => {
                let mut writer = arrow::ipc::writer::FileWriter::try_new(&mut bytes, &batch.schema()).unwrap();
                writer.write(batch).unwrap();
                writer.finish().unwrap();
            }
        }
        bytes
    }
}

/// A source of files with these options.
pub(crate) fn open(values: Value) -> Arc<dyn Source> {
    open_as("files", values)
}

/// A source of a kind with these options.
pub(crate) fn open_as(kind: &str, values: Value) -> Arc<dyn Source> {
    let options = Options { catalog: "lake".into(), base: PathBuf::new(), values: values.as_object().unwrap().clone() };
    nexus_sources::open(kind, &options).unwrap()
}

/// Writes files in a folder, and makes the folders within it.
pub(crate) fn into_folder(folder: &Path) -> Put {
    let folder = folder.to_owned();
    Box::new(move |name, bytes| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        Box::pin(async {})
    })
}

/// Fails with all violations, a line each.
pub(crate) fn violations(result: Result<(), Vec<String>>) {
    if let Err(violations) = result {
        panic!("{} violations:\n{}", violations.len(), violations.join("\n"));
    }
}

fn sql(data_type: &DataType) -> String {
    match data_type {
        DataType::Int64 => "BIGINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Utf8 => "VARCHAR".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Timestamp(..) => "TIMESTAMP(6)".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision},{scale})"),
        other => panic!("no SQL type for {other}"),
    }
}
