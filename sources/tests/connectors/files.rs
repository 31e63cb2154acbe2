//! Files that are broken, changing, strange or gone: a clear error that names the file, or the right rows.

use std::path::Path;
use std::sync::Arc;

use crate::seeds::open;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use nexus_flight_catalog::{
    Catalogs, Context, Error, Kind, Principal, Resolved, Result, Source, TableName, Version, information_schema,
};
use serde_json::json;

fn cx() -> Context {
    Context::new(Principal::anonymous())
}

async fn table(source: &Arc<dyn Source>, name: &str) -> Result<Resolved> {
    source.table(&cx(), "main", name).await
}

/// An answer over one table, which is called t.
async fn read(resolved: Resolved, sql: &str) -> Result<String> {
    let session = SessionContext::new();
    session.register_table("t", resolved.provider)?;
    let batches = session.sql(sql).await?.collect().await?;
    Ok(pretty_format_batches(&batches)?.to_string())
}

async fn ask(source: &Arc<dyn Source>, name: &str, sql: &str) -> Result<String> {
    read(table(source, name).await?, sql).await
}

fn folder() -> (tempfile::TempDir, Arc<dyn Source>) {
    let folder = tempfile::tempdir().unwrap();
    let source = open(json!({ "location": folder.path() }));
    (folder, source)
}

fn parquet(path: &Path, batch: &RecordBatch) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn numbers(count: i64) -> RecordBatch {
    RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from_iter_values(0..count)) as _)]).unwrap()
}

/// The error without the folder that this run made.
fn shown(error: &Error, folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap();
    format!("{}: {}", error.kind().name(), error.to_string().replace(folder.to_str().unwrap(), "DIR"))
}

#[tokio::test]
async fn a_truncated_parquet_file() {
    let (dir, source) = folder();
    let path = dir.path().join("t.parquet");
    parquet(&path, &numbers(10_000));
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = table(&source, "t").await.unwrap_err();
    insta::assert_snapshot!(shown(&error, dir.path()), @"data: DIR/t.parquet: invalid Parquet file. Corrupt footer; write the file again, or remove it");
    // The middle is missing and the footer is whole: found out when the rows are read.
    let mut holed = whole.clone();
    let len = holed.len();
    holed[4..len / 2].fill(0xff);
    std::fs::write(&path, &holed).unwrap();
    let error = ask(&source, "t", "SELECT sum(a) FROM t").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Data, "{error}");
    assert!(error.to_string().contains("t.parquet"), "{error}");
    std::fs::write(&path, &whole).unwrap();
    assert!(ask(&source, "t", "SELECT sum(a) FROM t").await.unwrap().contains("49995000"));
}

#[tokio::test]
async fn a_damaged_parquet_file_is_told_with_its_name() {
    let (dir, source) = folder();
    let path = dir.path().join("t.parquet");
    let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..300).map(|row| format!("row {}", row % 7))));
    parquet(&path, &RecordBatch::try_from_iter([("t", text)]).unwrap());
    let whole = std::fs::read(&path).unwrap();
    let mut told = 0;
    // The pages of the one column come first, the one of its dictionary before all.
    for (at, value) in (4..whole.len() / 2).flat_map(|at| [(at, 0xff), (at, 0x00), (at, 0x04), (at, 0x15)]) {
        let mut damaged = whole.clone();
        damaged[at] = value;
        std::fs::write(&path, &damaged).unwrap();
        if let Err(error) = ask(&source, "t", "SELECT t, count(*) FROM t GROUP BY t").await {
            assert_eq!(error.kind(), Kind::Data, "{at} {value}: {error}");
            assert!(error.to_string().contains("t.parquet"), "{at} {value}: {error}");
            told += 1;
        }
    }
    assert!(told > 0, "no damage was noticed");
}

#[tokio::test]
async fn csv_columns_of_which_the_beginning_knows_nothing() {
    let (dir, source) = folder();
    let empty = "1,\n".repeat(25_000);
    write(&dir.path().join("late.csv"), &format!("a,b\n{empty}2,hello\n"));
    assert!(ask(&source, "late", "SELECT max(b) AS b FROM t").await.unwrap().contains("hello"));
    let long = "x".repeat(5 << 20);
    write(&dir.path().join("long.csv"), &format!("a,b\n1,{long}\n2,y\n"));
    assert!(ask(&source, "long", "SELECT max(length(b)) AS l, max(a) AS a FROM t").await.unwrap().contains("| 5242880 | 2 |"));
    write(&dir.path().join("line.csv"), &format!("{long},b\n1,2\n"));
    let error = table(&source, "line").await.unwrap_err();
    insta::assert_snapshot!(shown(&error, dir.path()), @"data: DIR/line.csv: the first line is longer than 4 MiB, so the columns cannot be guessed from it; declare the table's columns");
    // What another file knows is what the column is.
    write(&dir.path().join("t/1.csv"), "a,b\n1,\n");
    write(&dir.path().join("t/2.csv"), "a,b\n1,5\n");
    assert!(ask(&source, "t", "SELECT sum(b) + 1 AS s FROM t").await.unwrap().contains("| 6 |"));
}

#[tokio::test]
async fn a_csv_row_with_too_many_fields() {
    let (dir, source) = folder();
    write(&dir.path().join("short.csv"), "a,b\n1,2\n1,2,3\n4,5\n");
    let error = ask(&source, "short", "SELECT * FROM t").await.unwrap_err();
    insta::assert_snapshot!(shown(&error, dir.path()), @"data: DIR/short.csv:3: incorrect number of fields, expected 2 got 3; correct the line, or remove the file");
    let good: String = (0..30_000).map(|row| format!("{row},x\n")).collect();
    write(&dir.path().join("t.csv"), &format!("a,b\n{good}1,2,3\n"));
    let error = ask(&source, "t", "SELECT * FROM t").await.unwrap_err();
    insta::assert_snapshot!(shown(&error, dir.path()), @"data: DIR/t.csv:30002: incorrect number of fields, expected 2 got 3; correct the line, or remove the file");
    write(&dir.path().join("t.csv"), &format!("a,b\n{good}oops,y\n"));
    let error = ask(&source, "t", "SELECT * FROM t").await.unwrap_err();
    insta::assert_snapshot!(shown(&error, dir.path()), @"data: DIR/t.csv:30002: error while parsing value 'oops' as type 'Int64' for column 0; correct the line, or remove the file");
    write(&dir.path().join("u.csv"), "a,b\n1,\"two\nlines\"\n2,\"x\"\"y\"\n");
    insta::assert_snapshot!(ask(&source, "u", "SELECT a, length(b) AS l FROM t").await.unwrap(), @"
    +---+---+
    | a | l |
    +---+---+
    | 1 | 9 |
    | 2 | 3 |
    +---+---+
    ");
}

#[tokio::test]
async fn a_csv_file_cut_within_a_value() {
    let (dir, source) = folder();
    write(&dir.path().join("t.csv"), "a,b\n1,\"x\n2,y\n");
    let error = ask(&source, "t", "SELECT * FROM t").await.unwrap_err();
    insta::assert_snapshot!(shown(&error, dir.path()), @"data: DIR/t.csv:2: the file ends within a quoted value, so it was cut, or a quote is missing; write the file again, or close the value");
    let good = "1,\"some\nlines\"\n".repeat(400_000);
    write(&dir.path().join("t.csv"), &format!("a,b\n{good}"));
    assert!(ask(&source, "t", "SELECT count(*) AS n FROM t").await.unwrap().contains("| 400000 |"));
    write(&dir.path().join("t.csv"), &format!("a,b\n{good}1,\"x\n2,y\n"));
    let error = ask(&source, "t", "SELECT count(b) FROM t").await.unwrap_err();
    insta::assert_snapshot!(shown(&error, dir.path()), @"data: DIR/t.csv:800002: the file ends within a quoted value, so it was cut, or a quote is missing; write the file again, or close the value");
}

#[tokio::test]
async fn json_that_the_beginning_does_not_tell() {
    let (dir, source) = folder();
    let good = "{\"a\":1,\"s\":{\"x\":1.5}}\n".repeat(200_000);
    let mut said = Vec::new();
    for late in ["{\"a\":1,\"b\":2}", "{\"s\":{\"y\":1}}", "{\"a\":12345678901234567890}", "{\"a\":[1]}", "{\"s\":{\"x\":\"z\"}}"]
    {
        write(&dir.path().join("t.json"), &format!("{good}{late}\n"));
        said.push(shown(&ask(&source, "t", "SELECT sum(a) FROM t").await.unwrap_err(), dir.path()));
    }
    insta::assert_snapshot!(said.join("\n"), @r#"
    data: DIR/t.json: the key "b" is not among the columns, which the first rows decide; declare the table's columns, each with a type that holds all its values, such as VARCHAR or DECIMAL
    data: DIR/t.json: the key "y" is not among the columns, which the first rows decide; declare the table's columns, each with a type that holds all its values, such as VARCHAR or DECIMAL
    data: DIR/t.json: 12345678901234567890 is not a whole number of the type Int64, which the column holds; declare the column with a type that holds all its values, such as DOUBLE, TIMESTAMP or VARCHAR
    data: DIR/t.json: whilst decoding field 'a': expected decimal got [1]; declare the table's columns, each with a type that holds all its values, such as VARCHAR or DECIMAL
    data: DIR/t.json: whilst decoding field 's': whilst decoding field 'x': failed to parse "z" as Float64; declare the table's columns, each with a type that holds all its values, such as VARCHAR or DECIMAL
    "#);
    // Columns that are declared are all that is wanted.
    write(&dir.path().join("t.json"), &format!("{good}{{\"a\":1,\"b\":2}}\n"));
    let columns = json!([{ "name": "a", "type": "BIGINT" }]);
    let declared = open(json!({ "location": dir.path(), "tables": { "t": { "columns": columns } } }));
    assert!(ask(&declared, "t", "SELECT sum(a) AS s FROM t").await.unwrap().contains("| 200001 |"));
}

#[tokio::test]
async fn json_values_of_several_types_are_text() {
    let (dir, source) = folder();
    write(&dir.path().join("mixed.json"), "{\"a\":1}\n{\"a\":\"x\"}\n");
    write(&dir.path().join("large.json"), "{\"a\":12345678901234567890123456789,\"l\":[18446744073709551615]}\n{\"a\":1.5}\n");
    insta::assert_snapshot!(ask(&source, "mixed", "SELECT * FROM t").await.unwrap(), @"
    +---+
    | a |
    +---+
    | 1 |
    | x |
    +---+
    ");
    insta::assert_snapshot!(ask(&source, "large", "SELECT * FROM t").await.unwrap(), @"
    +-------------------------------+------------------------+
    | a                             | l                      |
    +-------------------------------+------------------------+
    | 12345678901234567890123456789 | [18446744073709551615] |
    | 1.5                           |                        |
    +-------------------------------+------------------------+
    ");
}

#[tokio::test]
async fn a_broken_json_line() {
    let (dir, source) = folder();
    write(&dir.path().join("short.json"), "{\"a\":1}\n\n{\"a\":\n");
    let error = ask(&source, "short", "SELECT * FROM t").await.unwrap_err();
    insta::assert_snapshot!(shown(&error, dir.path()), @"data: DIR/short.json:3: not valid JSON, EOF while parsing a value; correct the line, or remove the file");
    let good: String = (0..30_000).map(|row| format!("{{\"a\":{row}}}\n")).collect();
    write(&dir.path().join("t.json"), &format!("{good}{{\"a\":\n"));
    let error = ask(&source, "t", "SELECT * FROM t").await.unwrap_err();
    insta::assert_snapshot!(shown(&error, dir.path()), @"data: DIR/t.json: truncated record whilst reading value; write the file again, or remove it");
}

#[tokio::test]
async fn a_file_that_vanishes_or_changes() {
    for ending in ["parquet", "csv"] {
        let (dir, source) = folder();
        let path = dir.path().join(format!("t.{ending}"));
        let fill = |rows: i64| match ending {
            "parquet" => parquet(&path, &numbers(rows)),
            _ => write(&path, &(0..rows).fold("a\n".to_owned(), |text, row| format!("{text}{row}\n"))),
        };
        fill(100);
        let before = table(&source, "t").await.unwrap();
        fill(101);
        let error = read(before.clone(), "SELECT a FROM t").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Precondition, "{error}");
        assert!(error.retryable());
        std::fs::remove_file(&path).unwrap();
        let error = read(before, "SELECT a FROM t").await.unwrap_err();
        let wanted = format!(
            "precondition: DIR/t.{ending}: the file has changed or gone since the statement began; run the statement again"
        );
        assert_eq!(shown(&error, dir.path()), wanted);
    }
}

#[tokio::test]
async fn new_files_are_seen_and_change_the_version() {
    let (dir, source) = folder();
    parquet(&dir.path().join("t/1.parquet"), &numbers(10));
    let first = table(&source, "t").await.unwrap();
    assert_eq!(first.version, table(&source, "t").await.unwrap().version);
    parquet(&dir.path().join("t/2.parquet"), &numbers(5));
    let second = table(&source, "t").await.unwrap();
    assert_ne!(first.version, second.version);
    assert!(matches!(second.version, Version::Pinned(_)));
    assert!(read(first, "SELECT count(*), sum(a) FROM t").await.unwrap().contains("| 10       | 45"));
    assert!(read(second, "SELECT count(*), sum(a) FROM t").await.unwrap().contains("| 15       | 55"));
    write(&dir.path().join("later.csv"), "x\n1\n");
    let names: Vec<String> = source.tables(&cx(), "main").await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["later", "t"]);
}

#[tokio::test]
async fn text_without_an_end() {
    let (dir, source) = folder();
    write(&dir.path().join("array.json"), &format!("[{{\"a\":\"{}\"}}]", "x".repeat(10_000)));
    let error = table(&source, "array").await.unwrap_err();
    insta::assert_snapshot!(shown(&error, dir.path()), @"data: DIR/array.json: the file is one array of JSON, and not an object in each line; write an object in each line, as jq -c '.[]' does");
    let names = |count: usize| (0..count).map(|number| format!("c{number}")).collect::<Vec<_>>();
    write(&dir.path().join("wide.csv"), &format!("{}\n", names(10_001).join(",")));
    let keys = names(10_001).iter().map(|name| format!("\"{name}\":1")).collect::<Vec<_>>().join(",");
    write(&dir.path().join("keys.json"), &format!("{{\"s\":{{{keys}}}}}\n"));
    let error = table(&source, "wide").await.unwrap_err();
    insta::assert_snapshot!(shown(&error, dir.path()), @"data: DIR/wide.csv: the first rows have 10001 columns and keys, the limit is 10000; declare the table's columns");
    assert!(table(&source, "keys").await.unwrap_err().message().contains("10002 columns and keys"));
    let row = names(9_000).join(",");
    write(&dir.path().join("many.csv"), &format!("{row}\n").repeat(500));
    let counted = ask(&source, "many", "SELECT count(c8999), min(c0) FROM t").await.unwrap();
    assert!(counted.contains("| 499 "), "{counted}");
    write(&dir.path().join("long.csv"), &format!("a,b\n1,2\n3,\"{}\"\n", "x".repeat(20 << 20)));
    let error = ask(&source, "long", "SELECT a, length(b) FROM t").await.unwrap_err();
    insta::assert_snapshot!(shown(&error, dir.path()), @"data: DIR/long.csv: a row is longer than 16 MiB; write the file with a row in each line; a quote that is never closed makes all that follows one value");
}

#[tokio::test]
async fn partition_folders_are_columns() {
    let (dir, source) = folder();
    for (year, month) in [(2023, "dec"), (2024, "jan"), (2024, "feb")] {
        parquet(&dir.path().join(format!("t/year={year}/month={month}/x.parquet")), &numbers(3));
    }
    parquet(&dir.path().join("t/year=2025/month=__HIVE_DEFAULT_PARTITION__/x.parquet"), &numbers(3));
    let sql = "SELECT year, month, count(*) AS n, sum(a) AS s FROM t WHERE year >= 2024 GROUP BY 1, 2 ORDER BY 1, 2";
    insta::assert_snapshot!(ask(&source, "t", sql).await.unwrap(), @"
    +------+-------+---+---+
    | year | month | n | s |
    +------+-------+---+---+
    | 2024 | feb   | 3 | 3 |
    | 2024 | jan   | 3 | 3 |
    | 2025 |       | 3 | 3 |
    +------+-------+---+---+
    ");
    let plan = ask(&source, "t", "EXPLAIN FORMAT INDENT SELECT a FROM t WHERE month = 'jan' AND a > 1").await.unwrap();
    assert!(plan.contains("month=jan") && !plan.contains("month=feb") && plan.contains("pruning_predicate"), "{plan}");
    // A limit may be pushed only where the filter above is certain.
    let rows = ask(&source, "t", "SELECT a FROM t WHERE month = 'jan' AND a = 2 LIMIT 1").await.unwrap();
    assert!(rows.contains("| 2 |"), "{rows}");
    for month in ["01", "5", "12"] {
        parquet(&dir.path().join(format!("n/month={month}/x.parquet")), &numbers(3));
    }
    let rows = ask(&source, "n", "SELECT month, a FROM t WHERE month < 5 AND a = 2").await.unwrap();
    assert!(rows.contains("| 1     | 2 |"), "{rows}");
    parquet(&dir.path().join("t/year=2026/x.parquet"), &numbers(3));
    let error = table(&source, "t").await.unwrap_err();
    insta::assert_snapshot!(shown(&error, dir.path()), @"data: DIR/t/year=2026/x.parquet: its folders name other partition columns than those of DIR/t/year=2023/month=dec/x.parquet; give all files of a table the same name=value folders");
}

#[tokio::test]
async fn schemas_merge_or_say_why_not() {
    let (dir, source) = folder();
    let text = |name: &str| RecordBatch::try_from_iter([(name, Arc::new(StringArray::from(vec!["x"])) as _)]).unwrap();
    parquet(&dir.path().join("t/1.parquet"), &numbers(1));
    parquet(&dir.path().join("t/2.parquet"), &text("b"));
    insta::assert_snapshot!(ask(&source, "t", "SELECT * FROM t ORDER BY a").await.unwrap(), @"
    +---+---+
    | a | b |
    +---+---+
    | 0 |   |
    |   | x |
    +---+---+
    ");
    parquet(&dir.path().join("t/3.parquet"), &text("a"));
    let error = table(&source, "t").await.unwrap_err();
    insta::assert_snapshot!(shown(&error, dir.path()), @r#"data: DIR/t/3.parquet: the column "a" is Utf8 here and Int64 in DIR/t/1.parquet; write both files with one type, or declare the table's columns"#);
    write(&dir.path().join("c/1.csv"), "a,b\n1,2\n");
    write(&dir.path().join("c/2.csv"), "b,a\n3,4\n");
    let error = table(&source, "c").await.unwrap_err();
    insta::assert_snapshot!(shown(&error, dir.path()), @"data: DIR/c/2.csv: the columns are b, a here and a, b in DIR/c/1.csv; give all CSV files of a table the same columns in the same order, or declare a table for each");
}

#[tokio::test]
async fn folders_and_names_that_do_not_work() {
    let (dir, source) = folder();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    write(&dir.path().join("two.csv"), "a\n1\n");
    write(&dir.path().join("two.json"), "{\"a\":1}\n");
    write(&dir.path().join("mixed/1.csv"), "a\n1\n");
    write(&dir.path().join("mixed/2.json"), "{\"a\":1}\n");
    write(&dir.path().join("_hidden.csv"), "a\n1\n");
    let mut errors = Vec::new();
    for name in ["empty", "two", "mixed", "_hidden", "../two"] {
        errors.push(shown(&table(&source, name).await.unwrap_err(), dir.path()));
    }
    insta::assert_snapshot!(errors.join("\n"), @r#"
    not_found: DIR/empty: the table "empty" has no data files; put a file there, or declare the table's columns so that it can be empty
    invalid: the name "two" could mean "DIR/two.csv", "DIR/two.json"; rename all but one, or declare tables with a path for each
    data: DIR/mixed: the table "mixed" mixes formats: DIR/mixed/1.csv is csv and DIR/mixed/2.json is json; keep a folder for each format, or declare a table for each
    not_found: table "_hidden" does not exist
    not_found: table "../two" does not exist
    "#);
    let columns = json!([{ "name": "a", "type": "BIGINT" }]);
    let declared = open(json!({ "location": dir.path(), "tables": { "empty": { "columns": columns } } }));
    assert!(ask(&declared, "empty", "SELECT count(a) AS n FROM t").await.unwrap().contains("| 0 |"));
    let nowhere = open(json!({ "location": dir.path().join("nowhere") }));
    let error = nowhere.ping(&cx()).await.unwrap_err();
    insta::assert_snapshot!(shown(&error, dir.path()), @"not_found: catalogs.lake.location: the folder DIR/nowhere cannot be opened: No such file or directory (os error 2); create it, or correct the location; it is relative to the configuration file");
}

#[tokio::test]
async fn links_do_not_lead_out() {
    let (dir, source) = folder();
    let outside = tempfile::tempdir().unwrap();
    write(&outside.path().join("secret.csv"), "a\n1\n");
    std::os::unix::fs::symlink(outside.path().join("secret.csv"), dir.path().join("link.csv")).unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("linked")).unwrap();
    std::fs::create_dir(dir.path().join("t")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret.csv"), dir.path().join("t/x.csv")).unwrap();
    let mut names: Vec<String> = source.tables(&cx(), "main").await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["t"]);
    names.extend(["link".to_owned(), "linked".to_owned()]);
    for name in names {
        assert!(table(&source, &name).await.is_err(), "{name}");
    }
    let declared = open(json!({ "location": dir.path(), "tables": { "x": { "path": "link.csv" }, "y": { "path": "linked/" } } }));
    for name in ["x", "y"] {
        assert_eq!(table(&declared, name).await.unwrap_err().kind(), Kind::Denied, "{name}");
    }
}

#[tokio::test]
async fn a_refused_table_hides_no_others() {
    let (dir, _) = folder();
    let outside = tempfile::tempdir().unwrap();
    write(&outside.path().join("secret.csv"), "a\n1\n");
    std::os::unix::fs::symlink(outside.path().join("secret.csv"), dir.path().join("link.csv")).unwrap();
    write(&dir.path().join("good.csv"), "seen\n1\n");
    write(&dir.path().join("two.csv"), "a\n1\n");
    write(&dir.path().join("two.json"), "{\"a\":1}\n");
    let catalogs = Arc::new(Catalogs::default());
    catalogs.register("lake", open(json!({ "location": dir.path(), "tables": { "x": { "path": "link.csv" } } })));
    let columns = information_schema::table(&catalogs, &cx(), "lake", "columns").unwrap();
    let listed = read(columns, "SELECT table_name, column_name FROM t WHERE table_schema = 'main'").await.unwrap();
    assert!(listed.contains("| good       | seen "), "{listed}");
    let error = catalogs.table(&cx(), &TableName::new("lake", "main", "x")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
}

#[tokio::test]
async fn patterns_and_compressed_text() {
    let (dir, _) = folder();
    write(&dir.path().join("2024/a.csv"), "x;y\n1;a\n");
    write(&dir.path().join("2024/b.csv"), "x;y\n2.5;b\n");
    write(&dir.path().join("2024/c.txt"), "no\n");
    write(&dir.path().join("2023/a.csv"), "x;y\n9;z\n");
    let source = open(json!({ "location": dir.path(), "tables": { "t": { "path": "2024/*.csv", "delimiter": ";" } } }));
    insta::assert_snapshot!(ask(&source, "t", "SELECT * FROM t ORDER BY x").await.unwrap(), @"
    +-----+---+
    | x   | y |
    +-----+---+
    | 1.0 | a |
    | 2.5 | b |
    +-----+---+
    ");
}

#[tokio::test]
async fn secrets_do_not_show() {
    let source = open(json!({
        "location": "s3://bucket/prefix", "endpoint": "http://127.0.0.1:1", "allow_http": true, "region": "r",
        "access_key_id": "AKIAID", "secret_access_key": "s3cr3t", "session_token": "t0ken",
    }));
    let error = source.ping(&cx()).await.unwrap_err();
    let shown = format!("{source:?} {error} {error:?}");
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(!shown.contains("s3cr3t") && !shown.contains("t0ken"), "{shown}");
}

#[tokio::test]
async fn an_arrow_file_of_nulls_or_of_no_rows() {
    let (dir, source) = folder();
    let nulls: ArrayRef = Arc::new(arrow::array::NullArray::new(3));
    let batch = RecordBatch::try_from_iter_with_nullable([("a", nulls, true)]).unwrap();
    let mut writer = arrow::ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    std::fs::write(dir.path().join("none.arrow"), {
        let mut none = arrow::ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        none.finish().unwrap();
        none.into_inner().unwrap()
    })
    .unwrap();
    writer.write(&batch).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    std::fs::write(dir.path().join("nulls.arrow"), writer.into_inner().unwrap()).unwrap();
    assert!(ask(&source, "nulls", "SELECT count(*) AS n, count(a) AS a FROM t").await.unwrap().contains("| 6 | 0 |"));
    assert!(ask(&source, "none", "SELECT count(*) AS n, count(a) AS a FROM t").await.unwrap().contains("| 0 | 0 |"));
}

#[tokio::test]
async fn a_damaged_arrow_file_is_told_and_takes_no_memory() {
    let (dir, source) = folder();
    let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..300).map(|row| format!("row {row}"))));
    let number: ArrayRef = Arc::new(Int64Array::from_iter_values(0..300));
    let batch = RecordBatch::try_from_iter([("t", text), ("a", number)]).unwrap();
    for packed in [false, true] {
        let compression = packed.then_some(arrow::ipc::CompressionType::LZ4_FRAME);
        let options = arrow::ipc::writer::IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let mut whole = Vec::new();
        let mut writer = arrow::ipc::writer::FileWriter::try_new_with_options(&mut whole, &batch.schema(), options).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        std::fs::write(dir.path().join("whole.arrow"), &whole).unwrap();
        assert!(ask(&source, "whole", "SELECT sum(a), max(t) FROM t").await.unwrap().contains("89700"));
        std::fs::write(dir.path().join("cut.arrow"), &whole[..whole.len() / 2]).unwrap();
        assert_eq!(ask(&source, "cut", "SELECT sum(a) FROM t").await.unwrap_err().kind(), Kind::Data);
        for (at, value) in (8..whole.len() - 4).step_by(7).flat_map(|at| [(at, 0xff), (at, 0x7f)]) {
            let mut damaged = whole.clone();
            damaged[at..at + 4].fill(value);
            std::fs::write(dir.path().join("damaged.arrow"), &damaged).unwrap();
            if let Err(error) = ask(&source, "damaged", "SELECT sum(a), max(t) FROM t").await {
                // A changed name of a column is a column that is not there.
                assert!(matches!(error.kind(), Kind::Data | Kind::Invalid | Kind::Unsupported), "{at}: {error}");
            }
        }
    }
}
