//! Tables made by hand, as Hudi writes them, read by statements.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use nexus_flight_catalog::{Context, Kind, Options, Principal, Resolved, Result, Source, Version};
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use super::open;
use super::properties::tests::properties;
use super::tables::{Tables, When};
use crate::lake::Lake;
use crate::stores::{Location, Store};

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
        let narrow: Int32Array = rows.iter().map(|(_, n)| Some(*n)).collect();
        let widened: Int64Array = rows.iter().map(|(_, n)| Some(i64::from(*n))).collect();
        let texts: StringArray = rows.iter().map(|(_, n)| Some(format!("名{n}"))).collect();
        let columns: Vec<(&str, ArrayRef)> = match wide {
            true => vec![("n", Arc::new(widened) as ArrayRef), ("名", Arc::new(texts))],
            false => vec![("n", Arc::new(narrow) as ArrayRef)],
        };
        self.base_of(group, instant, rows, columns)
    }

    /// A base file of a group with these columns beside those of Hudi.
    fn base_of(&self, group: &str, instant: &str, rows: &[(&str, i32)], own: Vec<(&str, ArrayRef)>) -> Value {
        let column = |of: &dyn Fn(&(&str, i32)) -> String| -> ArrayRef {
            Arc::new(rows.iter().map(|row| Some(of(row))).collect::<StringArray>())
        };
        let mut columns = vec![
            ("_hoodie_commit_time", column(&|(commit, _)| (*commit).to_owned())),
            ("_hoodie_commit_seqno", column(&|(commit, n)| format!("{commit}_{n}"))),
            ("_hoodie_record_key", column(&|(_, n)| n.to_string())),
            ("_hoodie_partition_path", column(&|_| "p=1".to_owned())),
            ("_hoodie_file_name", column(&|_| group.to_owned())),
        ];
        columns.extend(own);
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let within = format!("p=1/{group}_0-1-2_{instant}.parquet");
        let file = std::fs::File::create(self.path(&within)).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        json!({ "fileId": group, "path": within, "prevCommit": "null", "fileSizeInBytes": 1 })
    }

    /// A log file of a group with one block: it takes back a commit that has written nothing, and so all rows stay.
    fn log(&self, group: &str) -> Value {
        let entry =
            |key: u32, value: &str| [&key.to_be_bytes()[..], &(value.len() as u32).to_be_bytes()[..], value.as_bytes()].concat();
        let header = [&3_u32.to_be_bytes()[..], &entry(0, TWO)[..], &entry(1, THREE)[..], &entry(3, "0")[..]].concat();
        let start = [1_u32.to_be_bytes(), 0_u32.to_be_bytes()].concat();
        let block = [&start[..], &header[..], &0_u64.to_be_bytes()[..], &0_u32.to_be_bytes()[..]].concat();
        let length = block.len() as u64 + 8;
        let within = format!("p=1/.{group}_{ONE}.log.1_0-1-2");
        let file = [&b"#HUDI#"[..], &length.to_be_bytes()[..], &block[..], &(length + 6).to_be_bytes()[..]].concat();
        self.write(&within, &file);
        json!({ "fileId": group, "path": within, "prevCommit": ONE, "fileSizeInBytes": file.len() })
    }

    /// Puts a file into the folder of another partition.
    fn moved(&self, mut stat: Value, folder: &str) -> Value {
        let from = stat["path"].as_str().unwrap().to_owned();
        let to = from.replace("p=1/", &format!("{folder}/"));
        self.write(&format!("{folder}/.hoodie_partition_metadata"), b"");
        std::fs::rename(self.path(&from), self.path(&to)).unwrap();
        stat["path"] = to.into();
        stat
    }

    /// Adds lines to the properties.
    fn tell(&self, lines: &str) {
        let said = std::fs::read_to_string(self.path(".hoodie/hoodie.properties")).unwrap();
        self.write(".hoodie/hoodie.properties", format!("{said}{lines}\n").as_bytes());
    }

    fn commit(&self, instant: &str, action: &str, wide: bool, stats: &[Value], replaced: &[&str]) {
        let fields: &[(&str, &str)] = if wide { &[("n", "long"), ("名", "string")] } else { &[("n", "int")] };
        self.commit_of(instant, action, fields, stats, replaced);
    }

    fn commit_of(&self, instant: &str, action: &str, fields: &[(&str, &str)], stats: &[Value], replaced: &[&str]) {
        let field = |(name, of): &(&str, &str)| json!({ "name": name, "type": ["null", of], "default": null });
        let fields: Vec<Value> = fields.iter().map(field).collect();
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

/// What is asked by so many threads, within a memory.
async fn ask_within(resolved: Resolved, sql: &str, partitions: usize, bytes: usize) -> Result<String> {
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(bytes))).build_arc().unwrap();
    let config = SessionConfig::new().with_target_partitions(partitions);
    let context = SessionContext::new_with_config_rt(config, runtime);
    context.register_table("t", resolved.provider).unwrap();
    let batches = context.sql(sql).await?.collect().await?;
    Ok(pretty_format_batches(&batches).unwrap().to_string())
}

/// A table that is merged on read, of these groups, a row in each; each with a log file that changes nothing.
fn logged(groups: &[&str]) -> Made {
    let made = Made::new("MERGE_ON_READ");
    made.tell("hoodie.record.merge.mode=COMMIT_TIME_ORDERING\nhoodie.table.recordkey.fields=n");
    let bases: Vec<Value> = (1..).zip(groups).map(|(n, group)| made.base(group, ONE, false, &[(ONE, n)])).collect();
    made.commit(ONE, "deltacommit", false, &bases, &[]);
    let logs: Vec<Value> = groups.iter().map(|group| made.log(group)).collect();
    made.commit(TWO, "deltacommit", false, &logs, &[]);
    made
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

const ROWS: &str = "SELECT n FROM t ORDER BY n";

#[tokio::test]
async fn no_more_slices_are_merged_at_once_than_there_are_partitions() {
    let made = logged(&["a", "b", "c", "d", "e"]);
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let plan = made.table("t").await.unwrap().provider.scan(&context.state(), None, &[], None).await.unwrap();
    // One of them is for the files without logs, of which there are none.
    assert_eq!(plan.properties().output_partitioning().partition_count(), 3);
    let size = |within: &str| usize::try_from(made.path(within).metadata().unwrap().len()).unwrap();
    let one = size(&format!("p=1/a_0-1-2_{ONE}.parquet")) + 8 * size(&format!("p=1/.a_{ONE}.log.1_0-1-2"));
    // There is room for one after another, and in no moment for two.
    let read = ask_within(made.table("t").await.unwrap(), "SELECT n FROM t", 1, one * 3 / 2).await.unwrap();
    insta::assert_snapshot!(read, @r"
    +---+
    | n |
    +---+
    | 1 |
    | 2 |
    | 3 |
    | 4 |
    | 5 |
    +---+
    ");
    let error = ask_within(made.table("t").await.unwrap(), "SELECT n FROM t", 1, one / 2).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted, "{error}");
    assert!(error.message().contains("merge of log files needs"), "{error}");
}

#[tokio::test]
async fn a_partition_whose_folder_has_other_values_is_not_opened() {
    for (hive, folders) in [(true, ["n=1", "n=2"]), (false, ["1", "2"])] {
        let made = Made::new("MERGE_ON_READ");
        let style = format!("hoodie.datasource.write.hive_style_partitioning={hive}");
        made.tell(&format!("hoodie.table.partition.fields=n\nhoodie.table.keygenerator.type=SIMPLE\n{style}"));
        made.tell("hoodie.record.merge.mode=COMMIT_TIME_ORDERING\nhoodie.table.recordkey.fields=n");
        let mut files = Vec::new();
        for (n, folder, groups) in [(1, folders[0], ["a", "c"]), (2, folders[1], ["b", "d"])] {
            files.extend(groups.map(|group| made.moved(made.base(group, ONE, false, &[(ONE, n)]), folder)));
            files.push(made.moved(made.log(groups[1]), folder));
        }
        made.commit(ONE, "deltacommit", false, &files, &[]);
        for damaged in files.iter().filter_map(|file| file["path"].as_str()).filter(|path| path.starts_with(folders[1])) {
            let bytes = made.path(damaged).metadata().unwrap().len();
            made.write(damaged, &vec![0; usize::try_from(bytes).unwrap()]);
        }
        let read = ask(made.table("t").await.unwrap(), "SELECT n FROM t WHERE n = 1").await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(read, @r"
            +---+
            | n |
            +---+
            | 1 |
            | 1 |
            +---+
            ");
        }
        let all = ask_within(made.table("t").await.unwrap(), "SELECT n FROM t WHERE n >= 1", 1, 1 << 30).await;
        assert_eq!(all.unwrap_err().kind(), Kind::Data);
    }
}

#[tokio::test]
async fn a_float_becomes_the_same_double_with_logs_and_without() {
    let made = Made::new("MERGE_ON_READ");
    made.tell("hoodie.record.merge.mode=COMMIT_TIME_ORDERING\nhoodie.table.recordkey.fields=f");
    let floats = || -> Vec<(&str, ArrayRef)> { vec![("f", Arc::new(Float32Array::from(vec![0.1, 1e-20])) as ArrayRef)] };
    let rows = [(ONE, 1), (ONE, 2)];
    let bases = ["a", "b"].map(|group| made.base_of(group, ONE, &rows, floats()));
    made.commit_of(ONE, "deltacommit", &[("f", "float")], &bases, &[]);
    made.commit_of(TWO, "deltacommit", &[("f", "double")], &[made.log("a")], &[]);
    let sql = "SELECT f, count(*) AS files FROM t WHERE f <> 0.5 GROUP BY f ORDER BY f";
    insta::assert_snapshot!(ask(made.table("t").await.unwrap(), sql).await, @r"
    +-------+-------+
    | f     | files |
    +-------+-------+
    | 1e-20 | 2     |
    | 0.1   | 2     |
    +-------+-------+
    ");
}

#[tokio::test]
async fn what_is_no_folder_is_merged_by_copies() {
    let made = logged(&["a", "b"]);
    let location = Location::Folder(made.0.path().to_owned());
    let mut store = Store::open("lake", &location).unwrap();
    // As of a bucket: files are reached through the store and in no other way.
    store.folder = None;
    let tables = Tables::new(Arc::new(Lake::new(Arc::new(store), &location)), false);
    let (provider, _) = tables.table("lake", "t", &Path::from("t"), When::Now).await.unwrap();
    let context = SessionContext::new();
    context.register_table("t", provider).unwrap();
    let rows = async || context.sql(ROWS).await.unwrap().collect().await;
    insta::assert_snapshot!(pretty_format_batches(&rows().await.unwrap()).unwrap().to_string(), @r"
    +---+
    | n |
    +---+
    | 1 |
    | 2 |
    +---+
    ");
    std::fs::remove_file(made.path(&format!("p=1/a_0-1-2_{ONE}.parquet"))).unwrap();
    assert!(rows().await.is_err());
}

#[tokio::test]
async fn what_is_cut_of_a_completed_commit_is_refused() {
    // Of a commit that is not on the timeline any more nothing tells how long its files were.
    let archived = "20231231000000000";
    let made = Made::new("MERGE_ON_READ");
    made.commit(ONE, "deltacommit", false, &[made.base("b", ONE, false, &[(ONE, 1)])], &[]);
    made.base("a", archived, false, &[(archived, 2)]);
    let header = [&1_u32.to_be_bytes()[..], &0_u32.to_be_bytes()[..], &17_u32.to_be_bytes()[..], archived.as_bytes()].concat();
    let start = [&b"#HUDI#"[..], &900_u64.to_be_bytes()[..], &1_u32.to_be_bytes()[..], &3_u32.to_be_bytes()[..]].concat();
    let name = format!(".a_{archived}.log.1_0-1-2");
    made.write(&format!("p=1/{name}"), &[start, header].concat());
    let read = ask_within(made.table("t").await.unwrap(), ROWS, 1, 1 << 30).await.unwrap_err();
    assert_eq!(read.kind(), Kind::Data);
    insta::assert_snapshot!(read.message(), @"the log file .a_20231231000000000.log.1_0-1-2 is cut short where a completed commit has written rows");
    assert!(read.to_string().contains(&format!("t/p=1/{name}: ")), "{read}");
}

#[tokio::test]
async fn a_file_that_is_cut_before_it_is_merged_is_an_error() {
    let made = Made::new("MERGE_ON_READ");
    made.commit(ONE, "deltacommit", false, &[made.base("a", ONE, false, &[(ONE, 1)])], &[]);
    let (base, log) = (format!("p=1/a_0-1-2_{ONE}.parquet"), format!("p=1/.a_{ONE}.log.1_0-1-2"));
    made.write(&log, b"#HUDI#");
    made.commit(TWO, "deltacommit", false, &[json!({ "fileId": "a", "path": log, "prevCommit": ONE })], &[]);
    let context = SessionContext::new();
    context.register_table("t", made.table("t").await.unwrap().provider).unwrap();
    for file in [&base, &log] {
        let whole = std::fs::read(made.path(file)).unwrap();
        made.write(file, &whole[1..]);
        let error = context.sql("SELECT n FROM t").await.unwrap().collect().await.unwrap_err().to_string();
        assert!(error.contains("this file is not as it was when the table was listed"), "{file}: {error}");
        made.write(file, &whole);
    }
}

#[tokio::test]
async fn what_means_nothing_is_not_found() {
    let made = evolved();
    let said = async |name: &str| {
        let error = made.table(name).await.unwrap_err();
        // Without a place the error would be taken for that of a table which is not there.
        assert_eq!(error.place().is_some(), name != "u", "{error}");
        [Some(error.message()), error.hint()].into_iter().flatten().collect::<Vec<_>>().join("; ")
    };
    insta::assert_snapshot!(said("t$files").await, @r#"nothing about the table "t" is called "files"; there is "$timeline""#);
    insta::assert_snapshot!(said("t@yesterday").await, @r#""yesterday" is no instant of the table, and no time; of 2 commits the newest are 20240102000000000, 20240101000000000"#);
    insta::assert_snapshot!(said("t@20000101000000000").await, @"of 20000101000000000 no commit is known; of 2 commits the newest are 20240102000000000, 20240101000000000");
    insta::assert_snapshot!(said("t@2023..2024").await, @r#""2024" is no instant of the table, and no time; of 2 commits the newest are 20240102000000000, 20240101000000000"#);
    insta::assert_snapshot!(said("t@a..2024-01-03").await, @r#""a" is no instant of the table, and no time; of 2 commits the newest are 20240102000000000, 20240101000000000"#);
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
