//! Snapshots made by hand over real Parquet files, and read by statements.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::writer::LineDelimited;
use arrow::json::{ReaderBuilder, WriterBuilder};
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use datafusion::common::ScalarValue;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use nexus_flight_catalog::{Error, Kind, Result};
use object_store::path::Path;
use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY};
use parquet::file::properties::WriterProperties;
use roaring::RoaringTreemap;

use super::{Bounds, Column, Columns, DataFile, Deletes, Lake, LakeTable, Snapshot};
use crate::stores::{Location, Store};

/// Rows of a file, a row group each thousand: `id` counts on from `first`, and `name` is of it.
fn rows(first: i64, count: i64) -> RecordBatch {
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + count));
    let name: ArrayRef = Arc::new(StringArray::from_iter_values((first..first + count).map(|id| format!("名{id}"))));
    RecordBatch::try_from_iter([("id", id), ("name", name)]).unwrap()
}

#[derive(Debug)]
struct Listed(RoaringTreemap);

#[async_trait]
impl Deletes for Listed {
    async fn of(&self, _file: &DataFile, _pool: &Arc<dyn MemoryPool>) -> Result<Arc<RoaringTreemap>> {
        Ok(Arc::new(self.0.clone()))
    }
}

/// A folder with files of 3,000 rows each, from 0, 3,000 and so on; in each these places are deleted.
struct Made {
    folder: tempfile::TempDir,
    snapshot: Snapshot,
}

const ROWS: i64 = 3000;

fn made(files: usize, deleted: &RoaringTreemap) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)]));
    let column = |name: &str| Column { name: name.into(), id: None, aliases: vec![name.into()], fields: Vec::new() };
    let mut listed = Vec::new();
    for number in 0..files {
        let name = format!("{number}.parquet");
        let path = folder.path().join(&name);
        let batch = rows(number as i64 * ROWS, ROWS);
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1000)).build();
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let deletes = (!deleted.is_empty()).then(|| Arc::new(Listed(deleted.clone())) as Arc<dyn Deletes>);
        listed.push(DataFile {
            path: Path::from(name.as_str()),
            name,
            size: path.metadata().unwrap().len(),
            rows: Some(ROWS as u64),
            deleted: Some(deleted.len()),
            constants: Vec::new(),
            deletes,
        });
    }
    let first = |offset: i64| Int64Array::from_iter_values((0..files as i64).map(|number| number * ROWS + offset));
    let ids = Bounds {
        min: Arc::new(first(0)),
        max: Arc::new(first(ROWS - 1)),
        nulls: UInt64Array::from(vec![0; files]),
        exact: BooleanArray::from(vec![true; files]),
    };
    let bounds = vec![ids, Bounds::unknown(&DataType::Utf8, files)];
    let columns = Arc::new(Columns::new(vec![column("id"), column("name")]));
    let snapshot = Snapshot { schema, columns, constants: Vec::new(), files: listed, bounds, lacking: None };
    Made { folder, snapshot }
}

impl Made {
    fn context(self) -> (tempfile::TempDir, SessionContext) {
        self.context_within(usize::MAX)
    }

    /// Statements have so much memory together.
    fn context_within(self, memory: usize) -> (tempfile::TempDir, SessionContext) {
        let location = Location::Folder(self.folder.path().to_owned());
        let lake = Arc::new(Lake::new(Arc::new(Store::open("lake", &location).unwrap()), &location));
        let table = LakeTable::new(lake, "lake", "t", "1", Arc::new(self.snapshot)).unwrap();
        let config = SessionConfig::new().with_target_partitions(4);
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(memory))).build_arc().unwrap();
        let context = SessionContext::new_with_config_rt(config, runtime);
        context.register_table("t", Arc::new(table)).unwrap();
        (self.folder, context)
    }
}

async fn ask(context: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
    Ok(context.sql(sql).await?.collect().await?)
}

async fn text(context: &SessionContext, sql: &str) -> String {
    pretty_format_batches(&ask(context, sql).await.unwrap()).unwrap().to_string()
}

async fn number(context: &SessionContext, sql: &str) -> i64 {
    let batches = ask(context, sql).await.unwrap();
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
    let value = ScalarValue::try_from_array(batch.column(0), 0).unwrap();
    match value.cast_to(&DataType::Int64).unwrap() {
        ScalarValue::Int64(Some(number)) => number,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn conditions_on_a_wider_type_find_its_rows() {
    let wider = DataType::Decimal128(22, 2);
    let mut table = made(2, &RoaringTreemap::new());
    let id = Field::new("id", wider.clone(), true);
    table.snapshot.schema = Arc::new(Schema::new(vec![id, Field::new("name", DataType::Utf8, true)]));
    let ids = &mut table.snapshot.bounds[0];
    (ids.min, ids.max) = (cast(&ids.min, &wider).unwrap(), cast(&ids.max, &wider).unwrap());
    let (_folder, context) = table.context();
    for (condition, rows) in [
        ("id >= 1999.5 and id < 4000.25", 2001),
        ("id = 2500", 1),
        ("id = 2500.5", 0),
        ("id <> 2500.5", 6000),
        ("id in (0, 5999.00, 5999.01)", 2),
        ("cast(id as bigint) = 3000", 1),
    ] {
        assert_eq!(number(&context, &format!("select count(*) from t where {condition}")).await, rows, "{condition}");
    }
}

#[tokio::test]
async fn deleted_rows_are_in_no_answer() {
    // All of the first row group, and every other row of the second.
    let deleted: RoaringTreemap = (0..1000).chain((1000..2000).step_by(2)).collect();
    let (_folder, context) = made(2, &deleted).context();
    assert_eq!(number(&context, "SELECT count(*) FROM t").await, 3000);
    assert_eq!(number(&context, "SELECT count(*) FROM t WHERE id < 3000").await, 1500);
    assert_eq!(number(&context, "SELECT count(name) FROM t WHERE name LIKE '名%'").await, 3000);
    assert_eq!(number(&context, "SELECT min(id) FROM t").await, 1001);
    assert_eq!(number(&context, "SELECT max(id) FROM t WHERE id < 2000").await, 1999);
    assert_eq!(number(&context, "SELECT count(*) FROM (SELECT * FROM t LIMIT 700)").await, 700);
    assert_eq!(number(&context, "SELECT min(id) FROM (SELECT id FROM t WHERE id < 2000 LIMIT 3)").await, 1001);
    assert_eq!(number(&context, "SELECT count(*) FROM t a JOIN t b ON a.id = b.id").await, 3000);
    let ordered = text(&context, "SELECT id FROM t ORDER BY id DESC LIMIT 2").await;
    assert!(ordered.contains("5999") && ordered.contains("5998"), "{ordered}");
    let first = text(&context, "SELECT id FROM t ORDER BY id LIMIT 1").await;
    assert!(first.contains("1001"), "{first}");
}

#[tokio::test]
async fn the_rows_that_are_left_out_take_memory_of_the_statement() {
    let deleted: RoaringTreemap = (0..ROWS as u64).step_by(2).collect();
    let (_folder, context) = made(1, &deleted).context_within(100_000);
    assert_eq!(ask(&context, "SELECT id FROM t").await.unwrap_err().kind(), Kind::Exhausted);
    // What stands together takes no more than one row.
    let (_folder, context) = made(1, &(0..1500).collect()).context_within(100_000);
    assert_eq!(ask(&context, "SELECT id FROM t").await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 1500);
}

/// The reader takes whole row groups for a limit where a condition holds for all of their rows.
#[tokio::test]
async fn a_limit_under_a_condition_that_holds_for_all_rows_brings_no_deleted_row_back() {
    let deleted: RoaringTreemap = (0..999).collect();
    let (_folder, context) = made(1, &deleted).context();
    for pushed in [false, true] {
        let set = format!("SET datafusion.execution.parquet.pushdown_filters = {pushed}");
        ask(&context, &set).await.unwrap();
        for limit in [1, 5, 1000, 1500] {
            let sql = format!("SELECT min(id) FROM (SELECT id FROM t WHERE id >= 0 LIMIT {limit})");
            assert!(number(&context, &sql).await >= 999, "{sql}");
        }
    }
}

#[tokio::test]
async fn files_that_cannot_hold_wanted_rows_are_not_opened() {
    let made = made(10, &RoaringTreemap::new());
    let folder = made.folder.path().to_owned();
    let (_folder, context) = made.context();
    for number in (0..10).filter(|number| *number != 7) {
        std::fs::remove_file(folder.join(format!("{number}.parquet"))).unwrap();
    }
    assert_eq!(number(&context, "SELECT count(*) FROM t WHERE id BETWEEN 21100 AND 21199").await, 100);
    // What the snapshot tells needs no file at all.
    assert_eq!(number(&context, "SELECT count(*) FROM t").await, 30_000);
    assert_eq!(number(&context, "SELECT max(id) FROM t").await, 29_999);
    let error = Error::from(context.sql("SELECT sum(id) FROM t").await.unwrap().collect().await.unwrap_err());
    assert_eq!(error.kind(), Kind::Data, "{error}");
    assert!(error.to_string().contains("the table's metadata names this file, and it is not there"), "{error}");
}

#[tokio::test]
async fn what_is_said_of_a_file_without_rows_bounds_nothing() {
    let mut made = made(2, &RoaringTreemap::new());
    made.snapshot.files[1].rows = Some(0);
    let (_folder, context) = made.context();
    assert_eq!(number(&context, "SELECT max(id) FROM t").await, ROWS - 1);
    assert_eq!(number(&context, "SELECT count(*) FROM t").await, ROWS);
}

#[tokio::test]
async fn another_file_of_the_name_is_refused() {
    let made = made(2, &RoaringTreemap::new());
    let path = made.folder.path().join("0.parquet");
    std::fs::write(&path, b"PAR1").unwrap();
    let (_folder, context) = made.context();
    let error = ask(&context, "SELECT sum(id) FROM t").await.unwrap_err();
    assert!(error.to_string().contains("this is not the file that the table's metadata names"), "{error}");
}

#[tokio::test]
async fn a_deleted_row_that_is_not_there_is_refused() {
    let deleted: RoaringTreemap = [5, 3000].into_iter().collect();
    let (_folder, context) = made(1, &deleted).context();
    let error = ask(&context, "SELECT sum(id) FROM t").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Data, "{error}");
    assert!(error.to_string().contains("row 3000 of 0.parquet is deleted"), "{error}");
}

/// A file whose nested columns have other fields than those of the table, and lists and maps of them.
fn older() -> Made {
    let field = |name: &str, id: i32, of: DataType| {
        let id = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]);
        Arc::new(Field::new(name, of, true).with_metadata(id))
    };
    let key = Arc::new(Field::clone(&field("key", 8, DataType::Utf8)).with_nullable(false));
    let point = DataType::Struct([field("x", 3, DataType::Int32), field("old", 4, DataType::Utf8)].into());
    let element = field("element", 2, point);
    let value = field("value", 9, DataType::Struct([field("b", 10, DataType::Int32)].into()));
    let entries = DataType::Struct([key, value].into());
    let written = Arc::new(Schema::new([
        field("points", 1, DataType::List(element)),
        field("named", 7, DataType::Map(Arc::new(Field::new("key_value", entries, false)), false)),
        field("one", 11, DataType::Struct([field("a", 12, DataType::Int32)].into())),
    ]));
    let rows = r#"
        {"points": [{"x": 1, "old": "a"}, null], "named": {"k": {"b": 1}, "l": null}, "one": {"a": 7}}
        {"points": null, "named": {}, "one": null}
    "#;
    let batch = ReaderBuilder::new(written).build(rows.as_bytes()).unwrap().next().unwrap().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.parquet");
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    // Since then "old" is dropped, "x" has its name, and there is another "x".
    let plain = |name: &str, of: DataType| Field::new(name, of, true);
    let point = DataType::Struct(vec![plain("x", DataType::Float64), plain("old", DataType::Int64)].into());
    let entries = vec![
        plain("key", DataType::Utf8).with_nullable(false),
        plain("value", DataType::Struct(vec![plain("c", DataType::Utf8)].into())),
    ];
    let entries = Field::new("key_value", DataType::Struct(entries.into()), false);
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        plain("one", DataType::Struct(vec![plain("b", DataType::Int64), plain("a", DataType::Utf8)].into())),
        plain("points", DataType::List(Arc::new(plain("element", point)))),
        plain("named", DataType::Map(Arc::new(entries), false)),
    ]));
    let column = |name: &str, id: i32, fields| Column { name: name.into(), id: Some(id), aliases: Vec::new(), fields };
    let leaf = |name: &str, id: i32| column(name, id, Vec::new());
    let columns = Arc::new(Columns::new(vec![
        column("one", 11, vec![leaf("b", 12), leaf("a", 13)]),
        column("points", 1, vec![column("element", 2, vec![leaf("x", 5), leaf("old", 3)])]),
        column("named", 7, vec![leaf("key", 8), column("value", 9, vec![leaf("c", 14)])]),
    ]));
    let file = DataFile {
        path: Path::from("0.parquet"),
        name: "0.parquet".to_owned(),
        size: path.metadata().unwrap().len(),
        rows: Some(2),
        deleted: Some(0),
        constants: Vec::new(),
        deletes: None,
    };
    let bounds = schema.fields().iter().map(|field| Bounds::unknown(field.data_type(), 1)).collect();
    let snapshot = Snapshot { schema, columns, constants: Vec::new(), files: vec![file], bounds, lacking: None };
    Made { folder, snapshot }
}

#[tokio::test]
async fn nested_columns_of_older_files_are_those_of_the_table() {
    let (_folder, context) = older().context();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    for batch in ask(&context, "SELECT * FROM t").await.unwrap() {
        writer.write(&batch).unwrap();
    }
    writer.finish().unwrap();
    insta::assert_snapshot!(String::from_utf8(writer.into_inner()).unwrap(), @r#"
    {"one":{"b":7,"a":null},"points":[{"x":null,"old":1},null],"named":{"k":{"c":null},"l":null}}
    {"one":null,"points":null,"named":{}}
    "#);
    assert_eq!(number(&context, "SELECT count(*) FROM t WHERE one['b'] = 7").await, 1);
    assert_eq!(number(&context, "SELECT count(*) FROM t WHERE one['a'] IS NULL").await, 2);
    assert_eq!(number(&context, "SELECT count(*) FROM t WHERE points IS NULL").await, 1);
}
