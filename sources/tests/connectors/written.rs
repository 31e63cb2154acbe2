//! Tables of files that are written: what stops half way, what happens at once, and what is not a table of the gateway's kind.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, stream};
use nexus_flight_catalog::{Context, IfExists, IfMissing, Kind, Principal, Resolved, Result, Source, Target, Version};
use serde_json::json;

use crate::seeds::open;

fn cx() -> Context {
    Context::new(Principal::anonymous())
}

fn folder() -> (tempfile::TempDir, Arc<dyn Source>) {
    let folder = tempfile::tempdir().unwrap();
    let source = open(json!({ "location": folder.path() }));
    (folder, source)
}

fn target(table: &str, if_missing: IfMissing, if_exists: IfExists) -> Target {
    Target { if_missing, if_exists, ..Target::append("main", table) }
}

fn replace(table: &str) -> Target {
    target(table, IfMissing::Create, IfExists::Replace)
}

fn numbers(range: std::ops::Range<i64>) -> SendableRecordBatchStream {
    let batch = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from_iter_values(range)) as _)]).unwrap();
    Box::pin(RecordBatchStreamAdapter::new(batch.schema(), stream::iter([Ok(batch)]).boxed()))
}

/// The rows of a table of one column, sorted.
async fn rows(source: &Arc<dyn Source>, table: &str) -> Result<Vec<i64>> {
    read(source.table(&cx(), "main", table).await?).await
}

async fn read(table: Resolved) -> Result<Vec<i64>> {
    let session = SessionContext::new();
    session.register_table("t", table.provider)?;
    let batches = session.sql("SELECT a FROM t ORDER BY a").await?.collect().await?;
    let column = |batch: &RecordBatch| {
        batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().iter().map(Option::unwrap).collect::<Vec<_>>()
    };
    Ok(batches.iter().flat_map(column).collect())
}

async fn put(source: &Arc<dyn Source>, target: &Target, range: std::ops::Range<i64>) -> Result<u64> {
    source.ingest(&cx(), target, numbers(range)).await
}

fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A claim as it is left by one who stopped half way, so long ago that it has expired.
fn claim(folder: &Path, by: &str, replaces: &[String]) {
    let replaces: Vec<_> = replaces.iter().map(|name| format!("t/{name}")).collect();
    std::fs::write(folder.join("_nexus.json"), json!({ "by": by, "replaces": replaces, "at": 0 }).to_string()).unwrap();
}

#[tokio::test]
async fn a_replacement_that_stopped_before_it_was_made() {
    let (dir, source) = folder();
    put(&source, &replace("t"), 0..3).await.unwrap();
    let t = dir.path().join("t");
    claim(&t, "never.parquet", &files(&t));
    assert_eq!(rows(&source, "t").await.unwrap(), [0, 1, 2]);
    put(&source, &Target::append("main", "t"), 3..5).await.unwrap();
    assert_eq!(rows(&source, "t").await.unwrap(), [0, 1, 2, 3, 4]);
    put(&source, &replace("t"), 7..8).await.unwrap();
    assert_eq!(rows(&source, "t").await.unwrap(), [7]);
    assert_eq!(files(&t).len(), 1);
}

#[tokio::test]
async fn a_replacement_that_stopped_after_it_was_made() {
    let (dir, source) = folder();
    put(&source, &replace("t"), 0..3).await.unwrap();
    let t = dir.path().join("t");
    let first = files(&t);
    put(&source, &Target::append("main", "t"), 7..8).await.unwrap();
    let second = files(&t).into_iter().find(|name| !first.contains(name)).unwrap();
    claim(&t, &second, &first);
    assert_eq!(rows(&source, "t").await.unwrap(), [7]);
    put(&source, &Target::append("main", "t"), 8..9).await.unwrap();
    assert_eq!(rows(&source, "t").await.unwrap(), [7, 8]);
    put(&source, &replace("t"), 9..10).await.unwrap();
    assert_eq!(rows(&source, "t").await.unwrap(), [9]);
    assert_eq!(files(&t).len(), 1);
}

#[tokio::test]
async fn a_drop_that_stopped_after_it_was_made() {
    let (dir, source) = folder();
    put(&source, &replace("t"), 0..3).await.unwrap();
    let t = dir.path().join("t");
    claim(&t, "_nexus-dropped-x", &files(&t));
    std::fs::write(t.join("_nexus-dropped-x"), "dropped").unwrap();
    assert_eq!(rows(&source, "t").await.unwrap_err().kind(), Kind::NotFound);
    put(&source, &target("t", IfMissing::Create, IfExists::Fail), 5..6).await.unwrap();
    assert_eq!(rows(&source, "t").await.unwrap(), [5]);
    assert_eq!(files(&t).len(), 1);
    source.drop_table(&cx(), "main", "t").await.unwrap();
    assert!(!t.exists(), "{:?}", files(&t));
}

#[tokio::test]
async fn a_claim_is_about_its_own_folder() {
    let (dir, source) = folder();
    put(&source, &replace("t"), 0..3).await.unwrap();
    put(&source, &replace("u"), 3..6).await.unwrap();
    let (t, u) = (dir.path().join("t"), dir.path().join("u"));
    let (ours, other) = (files(&t).remove(0), files(&u).remove(0));
    let foreign = json!({ "by": ours, "replaces": [format!("u/{other}"), "../up", "t"], "at": 0 });
    std::fs::write(t.join("_nexus.json"), foreign.to_string()).unwrap();
    assert_eq!(rows(&source, "u").await.unwrap(), [3, 4, 5]);
    // The next change finishes what the claim says.
    put(&source, &replace("t"), 7..8).await.unwrap();
    assert_eq!((rows(&source, "t").await.unwrap(), rows(&source, "u").await.unwrap()), (vec![7], vec![3, 4, 5]));
}

#[tokio::test]
async fn a_claim_that_is_none() {
    let (dir, source) = folder();
    put(&source, &replace("t"), 0..3).await.unwrap();
    std::fs::write(dir.path().join("t/_nexus.json"), "[]").unwrap();
    let error = rows(&source, "t").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.to_string().contains("_nexus.json"), "{error}");
}

#[tokio::test]
async fn rows_that_break_off_leave_nothing() {
    let (dir, source) = folder();
    let batch = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from_iter_values(0..1_000_000)) as _)]).unwrap();
    let lost = || Err(nexus_flight_catalog::Error::unavailable("the rows broke off").into());
    let batches = (0..100).map(|_| Ok(batch.clone())).chain([lost()]);
    let rows = Box::pin(RecordBatchStreamAdapter::new(batch.schema(), stream::iter(batches.collect::<Vec<_>>()).boxed()));
    let error = source.ingest(&cx(), &replace("t"), rows).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    // What was sent is removed beside the statement.
    for _ in 0..1000 {
        if !files(&dir.path().join("t")).iter().any(|name| name.contains("parquet")) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("left behind: {:?}", files(&dir.path().join("t")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_one_state_while_it_is_replaced() {
    let (_dir, source) = folder();
    put(&source, &replace("t"), 0..10).await.unwrap();
    let writer = {
        let source = Arc::clone(&source);
        tokio::spawn(async move {
            for round in 1..60_i64 {
                let start = round * 10;
                put(&source, &replace("t"), start..start + 10).await.unwrap();
                put(&source, &Target::append("main", "t"), start..start + 10).await.unwrap();
            }
        })
    };
    let (mut whole, mut refused) = (0, 0);
    while !writer.is_finished() {
        match rows(&source, "t").await {
            Ok(rows) => {
                let first = rows[0];
                let once: Vec<_> = (first..first + 10).collect();
                let twice: Vec<_> = once.iter().flat_map(|row| [*row, *row]).collect();
                assert!(first % 10 == 0 && (rows == once || rows == twice), "{rows:?}");
                whole += 1;
            }
            // Files that go while they are read are told; no other rows are given instead.
            Err(error) => {
                assert_eq!(error.kind(), Kind::Precondition, "{error}");
                refused += 1;
            }
        }
    }
    writer.await.unwrap();
    assert!(whole > 0, "{refused} refusals and no answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_at_once_one_waits_or_is_told() {
    let (dir, source) = folder();
    let create = target("t", IfMissing::Create, IfExists::Fail);
    let (first, second) = tokio::join!(put(&source, &create, 0..3), put(&source, &create, 3..6));
    let made = first.is_ok();
    let error = if made { second.unwrap_err() } else { second.map(|_| first.unwrap_err()).unwrap() };
    assert_eq!(error.kind(), Kind::Exists);
    assert_eq!(rows(&source, "t").await.unwrap(), if made { [0, 1, 2] } else { [3, 4, 5] });
    let version = source.table(&cx(), "main", "t").await.unwrap().version;
    let rewrite = |version: &Version| target("t", IfMissing::Fail, IfExists::Rewrite(version.clone()));
    let (one, two) = (rewrite(&version), rewrite(&version));
    let (first, second) = tokio::join!(put(&source, &one, 10..12), put(&source, &two, 12..14));
    let made = first.is_ok();
    let error = if made { second.unwrap_err() } else { second.map(|_| first.unwrap_err()).unwrap() };
    assert_eq!(error.kind(), Kind::Precondition);
    assert_eq!(rows(&source, "t").await.unwrap(), if made { [10, 11] } else { [12, 13] });
    assert_eq!(files(&dir.path().join("t")).len(), 1);
}

#[tokio::test]
async fn what_is_no_folder_of_parquet_files() {
    let (dir, source) = folder();
    std::fs::write(dir.path().join("one.csv"), "a\n1\n").unwrap();
    std::fs::create_dir(dir.path().join("text")).unwrap();
    std::fs::write(dir.path().join("text/1.csv"), "a\n1\n").unwrap();
    std::fs::create_dir_all(dir.path().join("parts/b=1")).unwrap();
    put(&source, &replace("whole"), 0..1).await.unwrap();
    let file = files(&dir.path().join("whole")).remove(0);
    std::fs::copy(dir.path().join("whole").join(file), dir.path().join("parts/b=1/1.parquet")).unwrap();
    let mut refusals = String::new();
    for table in ["one", "text", "parts"] {
        let error = put(&source, &Target::append("main", table), 0..1).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert_eq!(source.drop_table(&cx(), "main", table).await.unwrap_err().to_string(), error.to_string());
        refusals += &format!("{error}\n");
    }
    for table in ["../up", "a/b", ".hidden", "_hidden", "a*", "x=1", "t.csv", ""] {
        let error = put(&source, &replace(table), 0..1).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{table}: {error}");
    }
    let mut keyed = replace("keyed");
    keyed.primary_key = vec!["a".into()];
    refusals += &format!("{}\n", put(&source, &keyed, 0..1).await.unwrap_err());
    let elsewhere = Target { schema: "other".into(), ..replace("t") };
    refusals += &format!("{}", put(&source, &elsewhere, 0..1).await.unwrap_err());
    insta::assert_snapshot!(refusals, @r#"
    the table "one" cannot be written: it is one file; only a table that is a folder of Parquet files takes rows
    the table "text" cannot be written: its files are csv; only a table that is a folder of Parquet files takes rows
    the table "parts" cannot be written: its folders hold columns; only a table that is a folder of Parquet files takes rows
    files keep no primary key; declare primary_key for the table in the configuration, and leave it out here
    schema "other" does not exist
    "#);
}

#[cfg(unix)]
#[tokio::test]
async fn no_link_leads_rows_out() {
    let (dir, source) = folder();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("out")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("new"), dir.path().join("nowhere")).unwrap();
    for table in ["out", "nowhere"] {
        let error = put(&source, &replace(table), 0..1).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
    }
    assert!(files(outside.path()).is_empty());
}

#[tokio::test]
async fn a_table_of_every_name_is_found_again() {
    let (_dir, source) = folder();
    for table in ["订单", "two words", "Mixed", "ünïcode", "a.b", "100%", "a#1", "q?".trim_end_matches('?')] {
        put(&source, &replace(table), 0..2).await.unwrap_or_else(|error| panic!("{table}: {error}"));
        assert_eq!(rows(&source, table).await.unwrap(), [0, 1], "{table}");
        let listed = source.tables(&cx(), "main").await.unwrap();
        assert!(listed.iter().any(|entry| entry.name == table), "{table}");
        source.drop_table(&cx(), "main", table).await.unwrap();
    }
}
