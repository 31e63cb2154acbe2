//! A database of a real PostgreSQL server, which `make test` starts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::logical_expr::lit;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use nexus_flight_catalog::conformance::{Fixture, SeedTable, check, seed};
use nexus_flight_catalog::{Change, Context, Error, Kind, Options, Principal, Source};
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};

fn from(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

/// The address of a database of the server.
fn url(database: &str) -> String {
    let url = from("NEXUS_TEST_POSTGRES_URL");
    format!("{}/{database}", url.rsplit_once('/').unwrap().0)
}

fn open(values: Value) -> Arc<dyn Source> {
    let options = Options { catalog: "shop".into(), base: PathBuf::new(), values: values.as_object().unwrap().clone() };
    nexus_sources::open("postgres", &options).unwrap()
}

fn source(database: &str) -> Arc<dyn Source> {
    open(json!({ "url": url(database), "password": from("NEXUS_TEST_POSTGRES_PASSWORD") }))
}

/// A connection of the driver itself.
async fn driver(database: &str) -> Client {
    let mut config: tokio_postgres::Config = url(database).parse().unwrap();
    config.password(from("NEXUS_TEST_POSTGRES_PASSWORD"));
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A new database, so that tests run side by side.
async fn database(name: &str) -> Client {
    let server = driver("postgres").await;
    server.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.unwrap();
    server.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    driver(name).await
}

fn cx() -> Context {
    Context::new(Principal::anonymous())
}

/// The seed as PostgreSQL has it: it knows no structures, and a primary key is never NULL.
fn held() -> Vec<SeedTable> {
    let table = |table: SeedTable| {
        let schema = table.batch.schema();
        let kept: Vec<usize> =
            (0..schema.fields().len()).filter(|at| !matches!(schema.field(*at).data_type(), DataType::Struct(_))).collect();
        let batch = table.batch.project(&kept).unwrap();
        let schema = batch.schema();
        let field = |field: &Arc<Field>| Field::clone(field).with_nullable(!table.keys.primary.contains(field.name()));
        let schema = Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>());
        SeedTable { batch: RecordBatch::try_new(Arc::new(schema), batch.columns().to_vec()).unwrap(), ..table }
    };
    seed().into_iter().map(table).collect()
}

fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Int64 => "bigint".into(),
        DataType::Int32 => "integer".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Float64 => "double precision".into(),
        DataType::Utf8 => "text".into(),
        DataType::Binary => "bytea".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Decimal128(precision, scale) => format!("numeric({precision},{scale})"),
        DataType::List(item) => format!("{}[]", sql_type(item.data_type())),
        other => panic!("no SQL type for {other}"),
    }
}

/// A value as PostgreSQL reads it from text.
fn literal(column: &dyn Array, row: usize) -> String {
    if column.is_null(row) {
        return "NULL".into();
    }
    let text =
        |column: &dyn Array, row| ArrayFormatter::try_new(column, &FormatOptions::default()).unwrap().value(row).to_string();
    let text = match column.data_type() {
        DataType::Binary => format!("\\x{}", text(column, row)),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            let items: Vec<String> = (0..items.len()).map(|at| text(&items, at)).collect();
            format!("{{{}}}", items.join(","))
        }
        _ => text(column, row),
    };
    format!("'{}'", text.replace('\'', "''"))
}

async fn load(client: &Client, table: &SeedTable) {
    let SeedTable { name, batch, keys } = table;
    let schema = batch.schema();
    let mut parts: Vec<String> =
        schema.fields().iter().map(|field| format!("\"{}\" {}", field.name(), sql_type(field.data_type()))).collect();
    if !keys.primary.is_empty() {
        parts.push(format!("PRIMARY KEY ({})", keys.primary.join(", ")));
    }
    let parts = parts.join(", ");
    client.batch_execute(&format!("CREATE TABLE main.{name} ({parts})")).await.unwrap();
    for row in 0..batch.num_rows() {
        let values: Vec<String> = batch.columns().iter().map(|column| literal(column, row)).collect();
        client.batch_execute(&format!("INSERT INTO main.{name} VALUES ({})", values.join(", "))).await.unwrap();
    }
    for key in &keys.foreign {
        let (columns, table, referenced) = (key.columns.join(", "), &key.table, key.referenced.join(", "));
        // Some rows of the seed refer to rows that are not there.
        let key = format!("FOREIGN KEY ({columns}) REFERENCES main.{table} ({referenced}) NOT VALID");
        client.batch_execute(&format!("ALTER TABLE main.{name} ADD {key}")).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server: make test starts one and runs this"]
async fn conformance() {
    let client = database("conformance").await;
    client.batch_execute("CREATE SCHEMA main").await.unwrap();
    let mut tables = held();
    // The table that is referred to comes first.
    tables.sort_by_key(|table| table.keys.foreign.len());
    for table in &tables {
        load(&client, table).await;
    }
    let mut fixture = Fixture::new(source("conformance"), "main");
    fixture.tables = tables;
    if let Err(violations) = check(&fixture).await {
        panic!("{} violations:\n{}", violations.len(), violations.join("\n"));
    }
}

async fn rows(source: &Arc<dyn Source>, cx: &Context, table: &str, filter: &str) -> Result<usize, Error> {
    let resolved = source.table(cx, "public", table).await?;
    let session = SessionContext::new();
    session.register_table("t", resolved.provider)?;
    Ok(session.sql(&format!("SELECT * FROM t WHERE {filter}")).await?.collect().await?.iter().map(RecordBatch::num_rows).sum())
}

/// Statements of the gateway that hold a text and run.
async fn running(client: &Client, part: &str) -> i64 {
    let sql =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'nexus-gateway' AND state = 'active' AND query LIKE $1";
    client.query_one(sql, &[&format!("%{part}%")]).await.unwrap().get(0)
}

async fn ends_within_a_second(client: &Client, part: &str) {
    for _ in 0..50 {
        if running(client, part).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it still runs");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server: make test starts one and runs this"]
async fn what_is_cancelled_or_late_ends_at_the_server() {
    let client = database("cancelled").await;
    client.batch_execute("CREATE VIEW slow AS SELECT pg_sleep(60)::text AS slept").await.unwrap();
    let source = source("cancelled");
    for kind in [Kind::Cancelled, Kind::Timeout] {
        let mut cx = cx();
        if kind == Kind::Timeout {
            cx.deadline = Some(Instant::now() + Duration::from_millis(700));
        }
        let read = tokio::spawn({
            let (source, cx) = (Arc::clone(&source), cx.clone());
            async move { rows(&source, &cx, "slow", "true").await }
        });
        while running(&client, "slow").await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if kind == Kind::Cancelled {
            cx.cancel.cancel();
        }
        assert_eq!(read.await.unwrap().unwrap_err().kind(), kind);
        ends_within_a_second(&client, "slow").await;
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server: make test starts one and runs this"]
async fn what_one_leaves_on_a_connection_the_next_does_not_find() {
    let client = database("behind").await;
    client
        .batch_execute("CREATE TABLE t (id int); CREATE VIEW v AS SELECT set_config('work_mem', '77MB', false) AS said")
        .await
        .unwrap();
    client.batch_execute("CREATE VIEW w AS SELECT 1 AS one WHERE current_setting('work_mem') = '77MB'").await.unwrap();
    let options = json!({ "url": url("behind"), "password": from("NEXUS_TEST_POSTGRES_PASSWORD"), "pool": 1 });
    let source = open(options);
    let cx = cx();
    assert_eq!(rows(&source, &cx, "v", "true").await.unwrap(), 1);
    assert_eq!(rows(&source, &cx, "w", "true").await.unwrap(), 0);
    // A transaction that is dropped is rolled back, and its connection comes free.
    drop(source.begin(&cx).await.unwrap());
    assert_eq!(rows(&source, &cx, "t", "true").await.unwrap(), 0);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server: make test starts one and runs this"]
async fn states_have_kinds() {
    let client = database("states").await;
    client
        .batch_execute("CREATE TABLE t (id int); DROP ROLE IF EXISTS weak; CREATE ROLE weak LOGIN PASSWORD 'w34k'")
        .await
        .unwrap();
    client.batch_execute("CREATE VIEW divides AS SELECT 1 / (id - id) AS v FROM t; INSERT INTO t VALUES (1)").await.unwrap();
    let cx = cx();
    let weak = open(json!({ "url": url("states").replace("postgres@", "weak@"), "password": "w34k" }));
    let denied = rows(&weak, &cx, "t", "true").await.unwrap_err();
    assert_eq!(denied.kind(), Kind::Denied, "{denied}");
    let wrong = open(json!({ "url": url("states"), "password": "wr0ng" }));
    let error = wrong.ping(&cx).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated, "{error}");
    assert!(error.to_string().starts_with("catalogs.shop.password: "), "{error}");
    assert!(!format!("{error:?} {wrong:?}").contains("wr0ng"), "{error:?} {wrong:?}");
    let nowhere = open(json!({ "url": "postgres://me@127.0.0.1:1/db" }));
    let error = nowhere.ping(&cx).await.unwrap_err();
    assert_eq!((error.kind(), error.retryable()), (Kind::Unavailable, true), "{error}");
    let absent = open(json!({ "url": url("there_is_none"), "password": from("NEXUS_TEST_POSTGRES_PASSWORD") }));
    let error = absent.ping(&cx).await.unwrap_err();
    assert_eq!(error.to_string(), "catalogs.shop.url: database \"there_is_none\" does not exist; name another database");
    let divided = rows(&source("states"), &cx, "divides", "true").await.unwrap_err();
    assert_eq!((divided.kind(), divided.message()), (Kind::Invalid, "division by zero"));
    let full =
        open(json!({ "url": url("states"), "password": from("NEXUS_TEST_POSTGRES_PASSWORD"), "pool": 1, "connect_timeout": 1 }));
    let held = full.begin(&cx).await.unwrap();
    let error = full.ping(&cx).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted, "{error}");
    held.rollback(&cx).await.unwrap();
    full.ping(&cx).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server: make test starts one and runs this"]
async fn transactions_that_stand_against_each_other() {
    let client = database("against").await;
    client.batch_execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)").await.unwrap();
    let (source, cx) = (source("against"), cx());
    let change = Change { schema: "public".into(), table: "t".into(), filter: None, set: Some(vec![("id".into(), lit(2i32))]) };
    let ours = source.begin(&cx).await.unwrap();
    assert_eq!(rows(&(Arc::clone(&ours) as _), &cx, "t", "id = 1").await.unwrap(), 1);
    client.batch_execute("UPDATE t SET id = 3").await.unwrap();
    let error = ours.change(&cx, &change).await.unwrap_err();
    assert_eq!((error.kind(), error.retryable()), (Kind::Precondition, true), "{error}");
    // The statement failed, and the transaction goes on without it.
    assert_eq!(rows(&(Arc::clone(&ours) as _), &cx, "t", "id = 1").await.unwrap(), 1);
    ours.commit(&cx).await.unwrap();
    // A read that fails leaves PostgreSQL nothing to commit, and that is said.
    client.batch_execute("CREATE VIEW broken AS SELECT 1 / (id - id) AS v FROM t").await.unwrap();
    let ours = source.begin(&cx).await.unwrap();
    assert_eq!(ours.change(&cx, &change).await.unwrap(), 1);
    rows(&(Arc::clone(&ours) as _), &cx, "broken", "true").await.unwrap_err();
    assert_eq!(ours.commit(&cx).await.unwrap_err().kind(), Kind::Precondition);
    assert_eq!(rows(&source, &cx, "t", "id = 3").await.unwrap(), 1);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server: make test starts one and runs this"]
async fn a_name_is_as_long_as_its_database_counts_it() {
    // Three bytes each there, and two in UTF-8: 63 bytes are full sooner.
    let (longest, longer) = ("é".repeat(21), "é".repeat(22));
    let server = driver("postgres").await;
    server.batch_execute("DROP DATABASE IF EXISTS counted WITH (FORCE)").await.unwrap();
    server.batch_execute("CREATE DATABASE counted ENCODING 'EUC_JP' LOCALE 'C' TEMPLATE template0").await.unwrap();
    driver("counted").await.batch_execute(&format!("CREATE TABLE \"{longest}\" (id int)")).await.unwrap();
    let (source, cx) = (source("counted"), cx());
    let error = source.drop_table(&cx, "public", &longer).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    source.drop_table(&cx, "public", &longest).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server: make test starts one and runs this"]
async fn what_is_of_one_connection_is_not_there() {
    let _client = database("passing").await;
    let (source, cx) = (source("passing"), cx());
    for schema in ["pg_temp", "pg_temp_3", "pg_toast_temp_3"] {
        let kinds = [
            source.tables(&cx, schema).await.map(drop).unwrap_err().kind(),
            source.table(&cx, schema, "t").await.map(drop).unwrap_err().kind(),
            source.drop_table(&cx, schema, "t").await.unwrap_err().kind(),
        ];
        assert_eq!(kinds, [Kind::NotFound; 3], "{schema}");
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server: make test starts one and runs this"]
async fn batches_are_bounded_in_rows_and_bytes() {
    let client = database("bounded").await;
    client.batch_execute("CREATE VIEW wide AS SELECT n, repeat('x', 1000000) AS x FROM generate_series(1, 40) n").await.unwrap();
    client.batch_execute("CREATE VIEW long AS SELECT n FROM generate_series(1, 30000) n").await.unwrap();
    let (source, cx) = (source("bounded"), cx());
    let transaction = source.begin(&cx).await.unwrap();
    for source in [source, transaction as Arc<dyn Source>] {
        let session = SessionContext::new();
        for (table, rows, bytes) in [("wide", 40, 20_000_000), ("long", 30_000, 1_000_000)] {
            let provider = source.table(&cx, "public", table).await.unwrap().provider;
            let plan = provider.scan(&session.state(), None, &[], None).await.unwrap();
            let batches = collect(plan, session.task_ctx()).await.unwrap();
            assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
            assert!(batches.len() > 1, "{table}");
            assert!(batches.iter().all(|batch| batch.num_rows() <= 8192 && batch.get_array_memory_size() <= bytes), "{table}");
        }
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server: make test starts one and runs this"]
async fn what_waits_for_a_connection_can_be_left() {
    // It takes connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://me@{}/db", silent.local_addr().unwrap());
    let source = open(json!({ "url": url, "connect_timeout": 1 }));
    let cx = cx();
    let started = Instant::now();
    let cancel = cx.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cancel.cancel();
    });
    assert_eq!(source.ping(&cx).await.unwrap_err().kind(), Kind::Cancelled);
    assert!(started.elapsed() < Duration::from_millis(600), "{:?}", started.elapsed());
    let error = source.ping(&Context::new(Principal::anonymous())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}
