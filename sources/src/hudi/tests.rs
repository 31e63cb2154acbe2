//! Tables made by hand, as Hudi writes them, read by statements.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use nexus_flight_catalog::{Context, Kind, Options, Principal, Resolved, Result, Source, Version};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use super::open;
use super::properties::tests::properties;

const ONE: &str = "20240101000000000";
const TWO: &str = "20240102000000000";
const THREE: &str = "20240103000000000";

/// A table of version 6 in a folder of its own.
struct Made(tempfile::TempDir);

impl Made {
    fn new(kind: &str) -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        made.write(".hoodie/hoodie.properties", properties(kind, 6).as_bytes());
        made.write("p=1/.hoodie_partition_metadata", b"");
        made
    }

    fn path(&self, within: &str) -> PathBuf {
        self.0.path().join("t").join(within)
    }

    fn write(&self, within: &str, bytes: &[u8]) {
        let path = self.path(within);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// A base file of a group with rows of these commits and numbers, as columns were at first, or are now: wider, and one more.
    fn base(&self, group: &str, instant: &str, wide: bool, rows: &[(&str, i32)]) -> Value {
        let column = |of: &dyn Fn(&(&str, i32)) -> String| -> ArrayRef {
            Arc::new(rows.iter().map(|row| Some(of(row))).collect::<StringArray>())
        };
        let narrow: Int32Array = rows.iter().map(|(_, n)| Some(*n)).collect();
        let widened: Int64Array = rows.iter().map(|(_, n)| Some(i64::from(*n))).collect();
        let mut columns = vec![
            ("_hoodie_commit_time", column(&|(commit, _)| (*commit).to_owned())),
            ("_hoodie_commit_seqno", column(&|(commit, n)| format!("{commit}_{n}"))),
            ("_hoodie_record_key", column(&|(_, n)| n.to_string())),
            ("_hoodie_partition_path", column(&|_| "p=1".to_owned())),
            ("_hoodie_file_name", column(&|_| group.to_owned())),
        ];
        match wide {
            true => columns.extend([("n", Arc::new(widened) as ArrayRef), ("名", column(&|(_, n)| format!("名{n}")))]),
            false => columns.push(("n", Arc::new(narrow) as ArrayRef)),
        }
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let within = format!("p=1/{group}_0-1-2_{instant}.parquet");
        let file = std::fs::File::create(self.path(&within)).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        json!({ "fileId": group, "path": within, "prevCommit": "null", "fileSizeInBytes": 1 })
    }

    fn commit(&self, instant: &str, action: &str, wide: bool, stats: &[Value], replaced: &[&str]) {
        let field = |name: &str, of: &str| json!({ "name": name, "type": ["null", of], "default": null });
        let fields = match wide {
            true => vec![field("n", "long"), field("名", "string")],
            false => vec![field("n", "int")],
        };
        let schema = json!({ "type": "record", "name": "t", "fields": fields }).to_string();
        let said = json!({
            "partitionToWriteStats": { "p=1": stats }, "partitionToReplaceFileIds": { "p=1": replaced },
            "extraMetadata": { "schema": schema }, "operationType": "UPSERT",
        });
        self.write(&format!(".hoodie/{instant}.{action}"), said.to_string().as_bytes());
    }

    fn source(&self, read: &str) -> Arc<dyn Source> {
        let values = [("location", "."), ("read", read)].map(|(key, value)| (key.to_owned(), value.into()));
        let base = self.0.path().to_owned();
        open(&Options { catalog: "lake".into(), base, values: values.into_iter().collect() }).unwrap()
    }

    async fn table(&self, name: &str) -> Result<Resolved> {
        self.source("snapshot").table(&Context::new(Principal::anonymous()), "main", name).await
    }
}

async fn ask(resolved: Resolved, sql: &str) -> String {
    let context = SessionContext::new();
    context.register_table("t", resolved.provider).unwrap();
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

fn version(resolved: &Resolved) -> String {
    match &resolved.version {
        Version::Pinned(version) => version.clone(),
        Version::Unknown => unreachable!("rows have a version"),
    }
}

/// A table with an update, a column that was added and another that became wider, and what is not completed.
fn evolved() -> Made {
    let made = Made::new("COPY_ON_WRITE");
    let first = [made.base("a", ONE, false, &[(ONE, 1), (ONE, 2)]), made.base("b", ONE, false, &[(ONE, 3)])];
    made.commit(ONE, "commit", false, &first, &[]);
    let mut updated = made.base("a", TWO, true, &[(ONE, 1), (TWO, 20)]);
    updated["prevCommit"] = ONE.into();
    made.commit(TWO, "commit", true, &[updated], &[]);
    made.base("c", "20240102120000000", true, &[(TWO, 99)]);
    made.write(".hoodie/20240102120000000.commit.requested", b"");
    made.write(".hoodie/20240102120000000.inflight", b"");
    made
}

#[tokio::test]
async fn rows_are_those_of_completed_commits() {
    let made = evolved();
    let now = made.table("t").await.unwrap();
    insta::assert_snapshot!(ask(now, "SELECT _hoodie_commit_time AS c, n, \"名\" FROM t ORDER BY n").await, @r"
    +-------------------+----+------+
    | c                 | n  | 名   |
    +-------------------+----+------+
    | 20240101000000000 | 1  | 名1  |
    | 20240101000000000 | 3  |      |
    | 20240102000000000 | 20 | 名20 |
    +-------------------+----+------+
    ");
    let then = made.table(&format!("t@{ONE}")).await.unwrap();
    insta::assert_snapshot!(ask(then, "SELECT count(*) AS rows, sum(n) AS n, max(\"名\") AS \"名\" FROM t").await, @r"
    +------+---+----+
    | rows | n | 名 |
    +------+---+----+
    | 3    | 6 |    |
    +------+---+----+
    ");
    let wide = made.table("t").await.unwrap();
    insta::assert_snapshot!(ask(wide, "SELECT n FROM t WHERE n < 3000000000 AND n > 2 ORDER BY n LIMIT 1").await, @r"
    +---+
    | n |
    +---+
    | 3 |
    +---+
    ");
    let changed = made.table("t@20240101000000000..2024-01-02").await.unwrap();
    insta::assert_snapshot!(ask(changed, "SELECT n FROM t").await, @r"
    +----+
    | n  |
    +----+
    | 20 |
    +----+
    ");
    let timeline = made.table("t$timeline").await.unwrap();
    assert_eq!(timeline.version, Version::Unknown);
    insta::assert_snapshot!(ask(timeline, "SELECT * FROM t").await, @r"
    +-------------------+--------+-----------+-----------+
    | instant           | action | state     | completed |
    +-------------------+--------+-----------+-----------+
    | 20240102120000000 | commit | inflight  |           |
    | 20240102000000000 | commit | completed |           |
    | 20240101000000000 | commit | completed |           |
    +-------------------+--------+-----------+-----------+
    ");
}

#[tokio::test]
async fn a_version_is_of_what_is_completed() {
    let made = evolved();
    let [first, same] = [made.table("t").await.unwrap(), made.table("t").await.unwrap()];
    assert_eq!(version(&first), version(&same));
    assert!(version(&first).starts_with(&format!("{TWO}:")));
    made.commit(THREE, "replacecommit", true, &[made.base("d", THREE, true, &[(THREE, 4)])], &["a", "b"]);
    let other = made.table("t").await.unwrap();
    assert_ne!(version(&first), version(&other));
    insta::assert_snapshot!(ask(other, "SELECT n FROM t").await, @r"
    +---+
    | n |
    +---+
    | 4 |
    +---+
    ");
    // What a statement began with it reads to the end, and by its instant it is there still.
    assert!(ask(first, "SELECT n FROM t ORDER BY n").await.contains("20"));
    let before = made.table(&format!("t@{TWO}")).await.unwrap();
    assert!(ask(before, "SELECT count(*) FROM t").await.contains("3"));
}

#[tokio::test]
async fn a_file_that_is_gone_is_an_error() {
    let made = evolved();
    let gone = |name: &str| std::fs::remove_file(made.path(name)).unwrap();
    // As a cleaner does.
    gone(&format!("p=1/a_0-1-2_{ONE}.parquet"));
    assert!(made.table("t").await.is_ok());
    let cleaned = made.table(&format!("t@{ONE}")).await.unwrap_err();
    insta::assert_snapshot!(cleaned.message(), @"the files of the table as of 20240101000000000 are cleaned up");
    assert_eq!(cleaned.kind(), Kind::NotFound);
    let newest = format!("p=1/a_0-1-2_{TWO}.parquet");
    std::fs::write(made.path(&newest), b"").unwrap();
    assert_eq!(made.table("t").await.unwrap_err().kind(), Kind::Data);
    gone(&newest);
    let lost = made.table("t").await.unwrap_err();
    insta::assert_snapshot!(lost.message(), @"a commit of the table wrote the file p=1/a_0-1-2_20240102000000000.parquet, and it is not there as a whole");
    assert_eq!(lost.kind(), Kind::Data);
}

#[tokio::test]
async fn what_is_compacted_is_read_without_log_files() {
    let made = Made::new("MERGE_ON_READ");
    made.commit(ONE, "deltacommit", false, &[made.base("a", ONE, false, &[(ONE, 1)])], &[]);
    let log = format!("p=1/.a_{ONE}.log.1_0-1-2");
    made.write(&log, b"no log file");
    let stat = json!({ "fileId": "a", "path": log, "prevCommit": ONE });
    made.commit(TWO, "deltacommit", false, &[stat], &[]);
    let optimised = made.source("read_optimized");
    let context = Context::new(Principal::anonymous());
    let compacted = optimised.table(&context, "main", "t").await.unwrap();
    insta::assert_snapshot!(ask(compacted, "SELECT n FROM t").await, @r"
    +---+
    | n |
    +---+
    | 1 |
    +---+
    ");
    let changes = optimised.table(&Context::new(Principal::anonymous()), "main", &format!("t@{ONE}..{TWO}")).await.unwrap_err();
    insta::assert_snapshot!(changes.message(), @"changes of a table that is merged on read, but for those in its log files, are not read here");
    // A log file that is none is not taken for an empty one.
    let context = SessionContext::new();
    context.register_table("t", made.table("t").await.unwrap().provider).unwrap();
    assert!(context.sql("SELECT n FROM t").await.unwrap().collect().await.is_err());
    // Who merges is asked before.
    let custom = format!("{}hoodie.record.merge.mode=CUSTOM\n", properties("MERGE_ON_READ", 6));
    made.write(".hoodie/hoodie.properties", custom.as_bytes());
    assert_eq!(made.table("t").await.unwrap_err().kind(), Kind::Unsupported);
    assert!(optimised.table(&Context::new(Principal::anonymous()), "main", "t").await.is_ok());
}

#[tokio::test]
async fn what_means_nothing_is_not_found() {
    let made = evolved();
    let said = async |name: &str| made.table(name).await.unwrap_err().to_string();
    insta::assert_snapshot!(said("t$files").await, @r#"nothing about the table "t" is called "files"; there is "$timeline""#);
    insta::assert_snapshot!(said("t@yesterday").await, @r#""yesterday" is no instant of the table, and no time; of 2 commits the newest are 20240102000000000, 20240101000000000"#);
    insta::assert_snapshot!(said("u").await, @r#"table "u" does not exist"#);
    let source = made.source("snapshot");
    let context = Context::new(Principal::anonymous());
    let names: Vec<String> = source.tables(&context, "main").await.unwrap().into_iter().map(|table| table.name).collect();
    assert_eq!((source.schemas(&context).await.unwrap(), names), (vec!["main".to_owned()], vec!["t".to_owned()]));
    assert_eq!(source.about("t@1..2"), Some("t"));
}

#[test]
fn a_way_to_read_is_one_of_two() {
    let values = [("location", "."), ("read", "all")].map(|(key, value)| (key.to_owned(), value.into()));
    let options = Options { catalog: "lake".into(), values: values.into_iter().collect(), ..Options::default() };
    assert_eq!(open(&options).unwrap_err().kind(), Kind::Invalid);
}
