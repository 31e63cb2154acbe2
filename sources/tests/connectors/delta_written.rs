//! Delta tables that are written: held to what is asked of a source, and what happens at once.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, stream};
use nexus_flight_catalog::conformance::{Fixture, check, seed, types};
use nexus_flight_catalog::{Context, Error, IfExists, IfMissing, Kind, Options, Principal, Result, Source, Target};
use serde_json::{Value, json};

use crate::seeds::violations;

fn cx() -> Context {
    Context::new(Principal::anonymous())
}

fn source(folder: &Path) -> Arc<dyn Source> {
    let values = json!({ "location": folder }).as_object().unwrap().clone();
    nexus_sources::open("delta", &Options { catalog: "lake".into(), values, ..Options::default() }).unwrap()
}

fn folder() -> (tempfile::TempDir, Arc<dyn Source>) {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path());
    (folder, source)
}

fn replace(table: &str) -> Target {
    Target { if_missing: IfMissing::Create, if_exists: IfExists::Replace, ..Target::append("main", table) }
}

fn sent(batch: RecordBatch) -> SendableRecordBatchStream {
    Box::pin(RecordBatchStreamAdapter::new(batch.schema(), stream::iter([Ok(batch)]).boxed()))
}

async fn put(source: &Arc<dyn Source>, target: &Target, range: std::ops::Range<i64>) -> Result<u64> {
    let batch = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from_iter_values(range)) as _)]).unwrap();
    source.ingest(&cx(), target, sent(batch)).await
}

/// The rows of a table of one column, sorted.
async fn rows(source: &Arc<dyn Source>, table: &str) -> Result<Vec<i64>> {
    let table = source.table(&cx(), "main", table).await?;
    let session = SessionContext::new();
    session.register_table("t", table.provider)?;
    let batches = session.sql("SELECT a FROM t ORDER BY a").await?.collect().await?;
    let column = |batch: &RecordBatch| {
        batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().iter().map(Option::unwrap).collect::<Vec<_>>()
    };
    Ok(batches.iter().flat_map(column).collect())
}

fn log(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder.join("t/_delta_log")) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Adds a commit as another engine would.
fn commit(folder: &Path, version: u64, actions: &[Value]) {
    let lines: Vec<String> = actions.iter().map(Value::to_string).collect();
    std::fs::create_dir_all(folder.join("t/_delta_log")).unwrap();
    std::fs::write(folder.join(format!("t/_delta_log/{version:020}.json")), lines.join("\n")).unwrap();
}

/// What makes a table of the columns `a` and `p`.
fn made(partitions: &[&str], configuration: Value) -> Value {
    let field = |name: &str, of: &str| json!({ "name": name, "type": of, "nullable": true, "metadata": {} });
    let schema = json!({ "type": "struct", "fields": [field("a", "long"), field("p", "string")] }).to_string();
    let format = json!({ "provider": "parquet", "options": {} });
    json!({ "metaData": {
        "id": "x", "format": format, "schemaString": schema, "partitionColumns": partitions, "configuration": configuration
    } })
}

#[tokio::test]
async fn what_is_asked_of_a_source() {
    let (_dir, source) = folder();
    for table in seed() {
        source.ingest(&cx(), &replace(&table.name), sent(table.batch)).await.unwrap();
    }
    let mut fixture = Fixture::new(Arc::clone(&source), "main");
    // Its lists call what they hold otherwise than Delta's do.
    fixture.tables.retain(|table| table.name != "nested");
    fixture.mutate = Some(Box::new(move |rows| {
        let source = Arc::clone(&source);
        Box::pin(async move {
            source.ingest(&cx(), &replace("types"), sent(types(rows))).await.unwrap();
        })
    }));
    violations(check(&fixture).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_lose_nothing() {
    let (dir, first) = folder();
    put(&first, &replace("t"), 0..1).await.unwrap();
    let writers = (0..2).map(|writer| {
        // As another gateway would.
        let source = source(dir.path());
        tokio::spawn(async move {
            for row in 0..8 {
                let at = 1 + writer * 8 + row;
                put(&source, &Target::append("main", "t"), at..at + 1).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(rows(&first, "t").await.unwrap(), (0..17).collect::<Vec<_>>());
    let log = log(dir.path());
    assert_eq!(log.iter().filter(|name| name.ends_with(".json")).count(), 17);
    assert!(log.contains(&"00000000000000000010.checkpoint.parquet".to_owned()), "{log:?}");
    // The checkpoint says what the commits before it did.
    for version in 0..10 {
        std::fs::remove_file(dir.path().join(format!("t/_delta_log/{version:020}.json"))).unwrap();
    }
    assert_eq!(rows(&source(dir.path()), "t").await.unwrap().len(), 17);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_one_state_until_a_table_is_dropped() {
    let (dir, source) = folder();
    put(&source, &replace("t"), 0..3).await.unwrap();
    put(&source, &replace("t"), 10..13).await.unwrap();
    let writer = {
        let source = Arc::clone(&source);
        tokio::spawn(async move {
            for round in 2..40 {
                put(&source, &replace("t"), round * 10..round * 10 + 3).await.unwrap();
            }
            source.drop_table(&cx(), "main", "t").await.unwrap();
        })
    };
    let (mut seen, mut is_gone) = (10, false);
    while !writer.is_finished() {
        match rows(&source, "t").await {
            Ok(rows) => {
                let first = rows[0];
                assert!(!is_gone && first >= seen && rows == [first, first + 1, first + 2], "{rows:?} after {seen}");
                seen = first;
            }
            // What goes while it is read is told; no older rows are given instead.
            Err(error) => is_gone |= error.kind() == Kind::NotFound,
        }
    }
    writer.await.unwrap();
    assert_eq!(rows(&source, "t").await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(source.drop_table(&cx(), "main", "t").await.unwrap_err().kind(), Kind::NotFound);
    assert!(!dir.path().join("t").exists());
    put(&source, &replace("t"), 7..8).await.unwrap();
    assert_eq!(rows(&source, "t").await.unwrap(), [7]);
}

#[tokio::test]
async fn a_drop_that_stopped_half_way_is_a_drop() {
    let (dir, source) = folder();
    put(&source, &replace("t"), 0..3).await.unwrap();
    let features = json!(["nexusDropped"]);
    let mut protocol = json!({ "minReaderVersion": 3, "minWriterVersion": 7 });
    protocol["readerFeatures"] = features.clone();
    protocol["writerFeatures"] = features;
    commit(dir.path(), 1, &[json!({ "protocol": protocol })]);
    assert_eq!(rows(&source, "t").await.unwrap_err().kind(), Kind::NotFound);
    std::fs::remove_file(dir.path().join("t/_delta_log/00000000000000000000.json")).unwrap();
    assert_eq!(rows(&source, "t").await.unwrap_err().kind(), Kind::NotFound);
    // Whoever drops it may still be at it.
    let error = put(&source, &replace("t"), 5..6).await.unwrap_err();
    assert!(error.kind() == Kind::Precondition && error.retryable(), "{error}");
    let mark = std::fs::File::options().write(true).open(dir.path().join("t/_delta_log/00000000000000000001.json")).unwrap();
    mark.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    put(&source, &replace("t"), 5..6).await.unwrap();
    assert_eq!(rows(&source, "t").await.unwrap(), [5]);
    assert_eq!(log(dir.path()), ["00000000000000000000.json"]);
}

#[tokio::test]
async fn what_a_table_asks_for_and_is_not_done_is_refused() {
    let append = Target::append("main", "t");
    let legacy = |version: i32| json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": version } });
    let named = |feature: &str| {
        let protocol = json!({ "minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": [feature] });
        json!({ "protocol": protocol })
    };
    let mut said = Vec::new();
    for (protocol, configuration, target) in [
        (named("rowTracking"), json!({}), &append),
        (named("icebergCompatV2"), json!({}), &append),
        (legacy(3), json!({ "delta.constraints.positive": "a > 0" }), &append),
        (legacy(2), json!({ "delta.appendOnly": "true" }), &replace("t")),
        (legacy(4), json!({ "delta.enableChangeDataFeed": "true" }), &replace("t")),
    ] {
        let (dir, source) = folder();
        commit(dir.path(), 0, &[protocol, made(&[], configuration)]);
        let error = put(&source, target, 0..1).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        said.push(error.message().to_owned());
        assert_eq!(log(dir.path()).len(), 1);
    }
    insta::assert_snapshot!(said.join("\n"), @r#"
    the table has features that are not written here: "rowTracking"
    the table has features that are not written here: "icebergCompatV2"
    the table uses "checkConstraints", and nothing here checks or makes such values
    the rows of this table cannot be replaced: it only takes more of them (delta.appendOnly)
    the rows of this table cannot be replaced: it tells of each change (delta.enableChangeDataFeed)
    "#);
    let (dir, source) = folder();
    commit(dir.path(), 0, &[legacy(4), made(&[], json!({ "delta.appendOnly": "true" }))]);
    assert_eq!(put(&source, &append, 0..2).await.unwrap(), 2);
    assert_eq!(rows(&source, "t").await.unwrap(), [0, 1]);
    for name in ["t@0", "t$files"] {
        let error = put(&source, &Target::append("main", name), 0..1).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    }
}

#[tokio::test]
async fn partitions_are_kept_as_long_as_their_columns_are() {
    let (dir, source) = folder();
    let protocol = json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 2 } });
    commit(dir.path(), 0, &[protocol, made(&["p"], json!({}))]);
    let both = |from: i64| {
        let a: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + 3));
        let p: ArrayRef = Arc::new(StringArray::from(vec![Some("x y"), None, Some("文/%")]));
        RecordBatch::try_from_iter([("a", a), ("p", p)]).unwrap()
    };
    source.ingest(&cx(), &Target::append("main", "t"), sent(both(0))).await.unwrap();
    assert_eq!(rows(&source, "t").await.unwrap(), [0, 1, 2]);
    assert!(dir.path().join("t/p=x y").is_dir() && dir.path().join("t/p=文%2F%25").is_dir());
    source.ingest(&cx(), &replace("t"), sent(both(5))).await.unwrap();
    assert_eq!(rows(&source, "t").await.unwrap(), [5, 6, 7]);
    assert_eq!(rows(&source, "t@1").await.unwrap(), [0, 1, 2]);
    put(&source, &replace("t"), 9..10).await.unwrap();
    assert_eq!(rows(&source, "t").await.unwrap(), [9]);
    let last = std::fs::read_to_string(dir.path().join("t/_delta_log/00000000000000000003.json")).unwrap();
    let mut actions = last.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let metadata = actions.find(|action| action["metaData"].is_object()).unwrap()["metaData"].clone();
    assert_eq!((&metadata["id"], &metadata["partitionColumns"]), (&json!("x"), &json!([])));
}

#[tokio::test]
async fn rows_that_break_off_leave_nothing() {
    let (dir, source) = folder();
    let batch = RecordBatch::try_from_iter([("a b", Arc::new(Int64Array::from_iter_values(0..1000)) as _)]).unwrap();
    let lost = Err(Error::unavailable("the rows broke off").into());
    let broken = stream::iter([Ok(batch.clone()), lost]).boxed();
    let rows = Box::pin(RecordBatchStreamAdapter::new(batch.schema(), broken));
    assert_eq!(source.ingest(&cx(), &replace("t"), rows).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(log(dir.path()), Vec::<String>::new());
    assert!(source.tables(&cx(), "main").await.unwrap().is_empty());
    // Its column is one that files know by another name.
    source.ingest(&cx(), &replace("t"), sent(batch)).await.unwrap();
    let made = source.table(&cx(), "main", "t").await.unwrap();
    assert_eq!(made.provider.schema().field(0).name(), "a b");
}
