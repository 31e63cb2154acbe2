//! Rows for tables in a folder, and what becomes of them where others write too.

use std::path::Path as FilePath;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, stream};
use nexus_flight_catalog::{Kind, Options, Principal, Source, TableEntry, Version};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::iceberg::catalog::{Catalog, Folder, Found, Outcome};
use crate::stores::Location;

/// A table without rows, partitioned by `part`.
fn folder(change: impl Fn(&mut Value)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("t");
    let mut metadata = json!({
        "format-version": 2, "table-uuid": "fb072c92-a02b-11e9-ae9c-1bb7bc9eca94",
        "location": format!("file://{}", table.display()),
        "last-sequence-number": 0, "last-updated-ms": 0, "last-column-id": 2, "current-schema-id": 0,
        "schemas": [{ "type": "struct", "schema-id": 0, "fields": [
            { "id": 1, "name": "id", "required": true, "type": "long" },
            { "id": 2, "name": "part", "required": false, "type": "string" },
        ] }],
        "partition-specs": [{ "spec-id": 0, "fields": [
            { "name": "part", "transform": "identity", "source-id": 2, "field-id": 1000 },
        ] }],
        "default-spec-id": 0, "last-partition-id": 1000, "properties": {},
        "sort-orders": [{ "order-id": 0, "fields": [] }], "default-sort-order-id": 0,
    });
    change(&mut metadata);
    std::fs::create_dir_all(table.join("metadata")).unwrap();
    std::fs::write(table.join("metadata/v1.metadata.json"), metadata.to_string()).unwrap();
    folder
}

fn source(folder: &TempDir) -> Arc<dyn Source> {
    let values = json!({ "location": folder.path().to_str().unwrap() }).as_object().unwrap().clone();
    (SPEC.open)(&Options { catalog: "lake".into(), values, ..Options::default() }).unwrap()
}

fn batch(rows: &[(i64, &str)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(id, _)| *id)));
    let parts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, part)| *part)));
    RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("part", parts, true)]).unwrap()
}

fn sent(batches: Vec<Result<RecordBatch, DataFusionError>>) -> SendableRecordBatchStream {
    let schema = batch(&[]).schema();
    Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter(batches).boxed()))
}

fn cx() -> Context {
    Context::new(Principal::anonymous())
}

async fn put(source: &Arc<dyn Source>, rows: &[(i64, &str)]) -> Result<u64> {
    source.ingest(&cx(), &Target::append("main", "t"), sent(vec![Ok(batch(rows))])).await
}

/// How many rows a table has, and the version that says so.
async fn count(source: &Arc<dyn Source>, table: &str) -> (usize, Version) {
    let resolved = source.table(&cx(), "main", table).await.unwrap();
    let count = SessionContext::new().read_table(resolved.provider).unwrap().count().await.unwrap();
    (count, resolved.version)
}

/// The files of a table but for those of metadata in JSON.
fn files(folder: &FilePath) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let count = entries.map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path) } else { usize::from(path.extension().is_some_and(|ending| ending != "json")) }
    });
    count.sum()
}

/// Waits until nothing is left of what was not kept.
async fn becomes(folder: &TempDir, count: usize) {
    let emptied = async {
        while files(folder.path()) != count {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), emptied).await;
    assert!(waited.is_ok(), "{} files, not {count}", files(folder.path()));
}

#[tokio::test]
async fn rows_are_a_snapshot_more() {
    for format in [1, 2, 3] {
        let folder = folder(|metadata| {
            metadata["format-version"] = format.into();
            if format == 3 {
                metadata["next-row-id"] = 0.into();
            }
        });
        std::fs::write(folder.path().join("t/metadata/version-hint.text"), "1").unwrap();
        let source = source(&folder);
        let (_, empty) = count(&source, "t").await;
        assert_eq!(put(&source, &[(1, "a"), (2, "b/c"), (3, "a")]).await.unwrap(), 3);
        let (found, first) = count(&source, "t").await;
        assert_eq!(found, 3);
        assert_ne!(first, empty);
        assert_eq!(put(&source, &[(4, "a")]).await.unwrap(), 1);
        assert_eq!(count(&source, "t").await.0, 4);
        let Version::Pinned(version) = &first else { panic!("no version") };
        let snapshot = version.split(':').nth(1).unwrap();
        assert_eq!(count(&source, &format!("t@{snapshot}")).await, (3, first.clone()));
        let table = folder.path().join("t");
        assert!(table.join("data/part=b%2Fc").is_dir());
        assert_eq!(std::fs::read_to_string(table.join("metadata/version-hint.text")).unwrap(), "3");
        let metadata = std::fs::read(table.join("metadata/v3.metadata.json")).unwrap();
        let metadata: Value = serde_json::from_slice(&metadata).unwrap();
        let said = ["operation", "added-records", "total-records"].map(|key| metadata["snapshots"][1]["summary"][key].as_str());
        assert_eq!(said, [Some("append"), Some("1"), Some("4")]);
        assert_eq!(metadata["metadata-log"].as_array().map(Vec::len), Some(2));
        assert_eq!(metadata["next-row-id"], if format == 3 { json!(4) } else { Value::Null });
        assert_eq!(put(&source, &[]).await.unwrap(), 0);
        assert!(!table.join("metadata/v4.metadata.json").exists());
    }
}

#[tokio::test]
async fn what_breaks_off_leaves_nothing() {
    let folder = folder(|_| ());
    let source = source(&folder);
    let ended = || Err(DataFusionError::from(Error::unavailable("the rows broke off")));
    let rows = vec![Ok(batch(&[(1, "a"), (2, "b")])), ended()];
    let error = source.ingest(&cx(), &Target::append("main", "t"), sent(rows)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    becomes(&folder, 0).await;
    assert_eq!(count(&source, "t").await.0, 0);
    let without = batch(&[(1, "a")]).project(&[1]).unwrap();
    let stream = RecordBatchStreamAdapter::new(without.schema(), stream::iter([Ok(without)]).boxed());
    let error = source.ingest(&cx(), &Target::append("main", "t"), Box::pin(stream)).await.unwrap_err();
    insta::assert_snapshot!(error, @r#"the column "id" takes no NULL; give a value for it in every row"#);
}

#[tokio::test]
async fn nothing_goes_behind_a_state_that_is_not_whole() {
    let folder = folder(|_| ());
    let source = source(&folder);
    put(&source, &[(1, "a")]).await.unwrap();
    let metadata = folder.path().join("t/metadata");
    let (whole, next) = (std::fs::read(metadata.join("v2.metadata.json")).unwrap(), metadata.join("v3.metadata.json"));
    for end in [0, whole.len() / 2] {
        std::fs::write(&next, &whole[..end]).unwrap();
        let written = put(&source, &[(2, "b")]).await.unwrap_err();
        let read = source.table(&cx(), "main", "t").await.unwrap_err();
        for error in [written, read] {
            assert_eq!((error.kind(), error.retryable()), (Kind::Data, true), "{error}");
            assert!(error.to_string().contains("/v3.metadata.json: "), "{error}");
        }
        becomes(&folder, 3).await;
    }
    // What the hint advises, where the writer has died.
    std::fs::remove_file(&next).unwrap();
    assert_eq!(count(&source, "t").await.0, 1);
    put(&source, &[(2, "b")]).await.unwrap();
    assert_eq!(count(&source, "t").await.0, 2);
}

#[tokio::test]
async fn a_state_counts_that_is_whole_soon() {
    let folder = folder(|_| ());
    let source = source(&folder);
    put(&source, &[(1, "a")]).await.unwrap();
    let path = folder.path().join("t/metadata/v2.metadata.json");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let written = async {
        // The first look comes before, and the last one much later.
        tokio::time::sleep(Duration::from_millis(15)).await;
        std::fs::write(&path, &whole).unwrap();
    };
    let ((found, _), ()) = tokio::join!(count(&source, "t"), written);
    assert_eq!(found, 1);
}

#[tokio::test]
async fn tables_that_want_more_are_refused() {
    let refusal = async |table: &str, change: &dyn Fn(&mut Value)| {
        let folder = folder(change);
        let error = source(&folder).ingest(&cx(), &Target::append("main", table), sent(vec![])).await.unwrap_err();
        assert_eq!(error.kind(), if table == "none" { Kind::NotFound } else { Kind::Unsupported });
        error.message().to_owned()
    };
    let property =
        |key: &'static str, value: &'static str| move |metadata: &mut Value| metadata["properties"][key] = value.into();
    insta::assert_snapshot!(refusal("t", &property("write.format.default", "orc")).await, @"this table takes no rows here: its files are to be orc (write.format.default), and only Parquet is written");
    insta::assert_snapshot!(refusal("t", &property("write.metadata.compression-codec", "gzip")).await, @"the metadata of this table is packed, under names that an unpacked one is not in the way of");
    insta::assert_snapshot!(refusal("t", &|metadata| metadata["location"] = "file:///elsewhere".into()).await, @"this table takes no rows here: its metadata is not where the table says that it is itself");
    insta::assert_snapshot!(refusal("t@1", &|_| ()).await, @r#""t@1" is about the table "t" and takes no rows"#);
    insta::assert_snapshot!(refusal("none", &|_| ()).await, @r#"table "main.none" does not exist"#);
    let folder = folder(|_| ());
    let given = folder.path().join("t/metadata/00001-7d5d0a4c-9b1a-4f5e-8d9e-0a1b2c3d4e5f.metadata.json");
    std::fs::rename(folder.path().join("t/metadata/v1.metadata.json"), given).unwrap();
    let error = put(&source(&folder), &[(1, "a")]).await.unwrap_err();
    insta::assert_snapshot!(error.message(), @"this table takes no rows here: which of its files of metadata counts, a catalog says and not the folder");
}

/// What others do before each commit.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Others {
    Append,
    Rename,
    Pack,
    /// The commit is made, and the answer to it is another.
    Hide(bool),
}

/// A folder whose tables are written to by others too, so many times.
#[derive(Debug)]
struct Busy {
    inner: Folder,
    folder: std::path::PathBuf,
    others: Others,
    left: AtomicUsize,
}

#[async_trait]
impl Catalog for Busy {
    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn schemas(&self) -> Result<Vec<String>> {
        self.inner.schemas().await
    }

    async fn tables(&self, schema: &str) -> Result<Vec<TableEntry>> {
        self.inner.tables(schema).await
    }

    async fn find(&self, schema: &str, table: &str) -> Result<Option<Found>> {
        self.inner.find(schema, table).await
    }

    fn check_commit(&self, found: &Found, table: &Table) -> Result<()> {
        self.inner.check_commit(found, table)
    }

    async fn commit(&self, schema: &str, table: &str, found: &Found, change: &Change) -> Result<Outcome> {
        let is_time = || self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        match self.others {
            Others::Hide(hidden) if is_time() => {
                self.inner.commit(schema, table, found, change).await?;
                let lost = || Outcome::Unknown(Error::unavailable("the connection broke off"));
                return Ok(if hidden { Outcome::Conflict } else { lost() });
            }
            Others::Append if is_time() => {
                let folder = self.folder.to_str().unwrap();
                let values = json!({ "location": folder }).as_object().unwrap().clone();
                let other = (SPEC.open)(&Options { catalog: "lake".into(), values, ..Options::default() }).unwrap();
                put(&other, &[(100, "a")]).await?;
            }
            Others::Rename | Others::Pack if is_time() => {
                let metadata = self.folder.join("t/metadata");
                let mut next: Value = serde_json::from_slice(&std::fs::read(metadata.join("v1.metadata.json")).unwrap()).unwrap();
                match self.others {
                    Others::Pack => next["properties"]["write.metadata.compression-codec"] = "gzip".into(),
                    _ => next["schemas"][0]["fields"][1]["name"] = "title".into(),
                }
                std::fs::write(metadata.join("v2.metadata.json"), next.to_string()).unwrap();
            }
            _ => {}
        }
        self.inner.commit(schema, table, found, change).await
    }
}

/// Appends a row beside others.
async fn beside(others: Others, times: usize) -> (TempDir, Result<()>) {
    let folder = folder(|_| ());
    let path = folder.path().canonicalize().unwrap();
    let inner = Folder::open("lake", &Location::Folder(path.clone()), "main", None).unwrap();
    let found = inner.find("main", "t").await.unwrap().unwrap();
    let (table, _) = Table::read_whole(&found.lake, &found.current.path).await.unwrap();
    let rows = sent(vec![]);
    // The folder is another name of the temporary one where that is a link; metadata names the one that was given.
    let mut files = super::files(&found.lake, &table, &rows, &cx().memory).unwrap();
    files.write(&batch(&[(1, "a")])).await.unwrap();
    let files = files.finish().await.unwrap();
    let catalog = Arc::new(Busy { inner, folder: folder.path().to_owned(), others, left: AtomicUsize::new(times) });
    let append = Append { catalog, schema: "main".to_owned(), name: "t".to_owned(), table, files };
    let done = append.commit().await;
    (folder, done)
}

#[tokio::test]
async fn rows_go_behind_those_of_others() {
    let (folder, done) = beside(Others::Append, 2).await;
    done.unwrap();
    assert_eq!(count(&source(&folder), "t").await.0, 3);
    // Of each snapshot a file of rows, a manifest and a list.
    becomes(&folder, 9).await;
}

#[tokio::test]
async fn rows_do_not_fit_what_others_have_made_of_the_table() {
    let (folder, done) = beside(Others::Rename, 1).await;
    let error = done.unwrap_err();
    assert_eq!((error.kind(), error.retryable()), (Kind::Precondition, true));
    insta::assert_snapshot!(error.message(), @r#"the table "main.t" got other columns, partitions or another format while this statement ran"#);
    becomes(&folder, 0).await;
}

#[tokio::test]
async fn a_state_that_others_pack_by_now_gets_no_other_beside_it() {
    let (folder, done) = beside(Others::Pack, 1).await;
    assert_eq!(done.unwrap_err().kind(), Kind::Unsupported);
    becomes(&folder, 0).await;
}

#[tokio::test]
async fn rows_are_never_there_twice() {
    for hidden in [true, false] {
        let (folder, done) = beside(Others::Hide(hidden), 1).await;
        done.unwrap();
        assert_eq!(count(&source(&folder), "t").await.0, 1);
        becomes(&folder, 3).await;
    }
}
