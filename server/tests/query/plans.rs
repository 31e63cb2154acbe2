//! A plan that is kept answers as one that is made anew: whatever has changed since, and whoever asks.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::datasource::ViewTable;
use datafusion::logical_expr::{LogicalPlanBuilder, lit};
use nexus_flight_catalog::{Kind, Version};

use crate::fixture::{Fixture, numbers, shown};

const UNCACHED: &str = "[cache]\nsize = \"0\"\n";

fn named(name: &str, values: impl Into<StringArray>) -> RecordBatch {
    RecordBatch::try_from_iter([(name, Arc::new(values.into()) as ArrayRef)]).unwrap()
}

async fn bound(fixture: &Fixture, statement: &str, value: ArrayRef) -> String {
    let mut query = fixture.query(statement);
    query.parameters = Some(RecordBatch::try_from_iter([("$1", value)]).unwrap());
    shown(fixture.gateway.execute.execute(query).await.unwrap()).await.unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_columns_are_those_of_the_moment() {
    let fixture = Fixture::new(UNCACHED);
    for table in ["numbers", "changing"] {
        let all = format!("SELECT * FROM {table}");
        fixture.rows(&all).await;
        fixture.source.put(table, numbers(&[7]));
        assert!(fixture.rows(&all).await.contains("| 7  | n7   |"), "{table}");
        fixture.source.put(table, named("word", vec!["other"]));
        assert!(fixture.rows(&all).await.contains("| other |"), "{table}");
        let described = fixture.gateway.execute.describe(&fixture.query(&all)).await.unwrap();
        assert_eq!(described.schema.field(0).name(), "word");
        let columns = format!("DESCRIBE {table}");
        assert!(fixture.rows(&columns).await.contains("| word "), "{table}");
        fixture.source.put(table, numbers(&[7]));
        assert!(fixture.rows(&columns).await.contains("| id "), "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_gone_is_missed() {
    let fixture = Fixture::new(UNCACHED);
    let statement = "SELECT id FROM (SELECT id FROM other) WHERE id IN (SELECT id FROM numbers)";
    fixture.rows(statement).await;
    fixture.source.take("numbers");
    assert_eq!(fixture.error(statement).await.kind(), Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_those_of_the_session() {
    let fixture = Fixture::new(UNCACHED);
    let statement = "SELECT count(*) FROM tables";
    assert_eq!(fixture.error(statement).await.kind(), Kind::NotFound);
    let mut query = fixture.query(statement);
    query.session.schema = "information_schema".to_owned();
    let answer = fixture.gateway.execute.execute(query.clone()).await.unwrap();
    let there = shown(answer).await.unwrap().1;
    assert_eq!(fixture.error(statement).await.kind(), Kind::NotFound);
    query.session.catalog = "system".to_owned();
    let answer = fixture.gateway.execute.execute(query).await.unwrap();
    assert_ne!(shown(answer).await.unwrap().1, there);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recursive_query_may_have_the_name_of_a_table() {
    let fixture = Fixture::new(UNCACHED);
    let statement = "WITH RECURSIVE numbers AS (SELECT id FROM test.main.numbers WHERE id = 1 UNION ALL \
                     SELECT id + 1 FROM numbers WHERE id < 5) SELECT count(*) AS c FROM numbers";
    for _ in 0..3 {
        assert!(fixture.rows(statement).await.contains("| 5 |"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_what_it_is_now() {
    let fixture = Fixture::new(UNCACHED);
    for value in 1..=3_i64 {
        let plan = LogicalPlanBuilder::values(vec![vec![lit(value)]]).unwrap().build().unwrap();
        fixture.source.put_resolved("view", Version::Unknown, Arc::new(ViewTable::new(plan, None)));
        assert!(fixture.rows("SELECT * FROM view").await.contains(&format!("| {value} ")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_bound_anew() {
    let fixture = Fixture::new(UNCACHED);
    let statement = "SELECT id, ? AS given FROM numbers WHERE id = 2";
    for value in ["a", "b"] {
        let rows = bound(&fixture, statement, Arc::new(StringArray::from(vec![value]))).await;
        assert!(rows.contains(&format!("| 2  | {value} ")), "{rows}");
    }
    let rows = bound(&fixture, statement, Arc::new(Int64Array::from(vec![9]))).await;
    assert!(rows.contains("| 2  | 9 "), "{rows}");
    assert_eq!(fixture.error(statement).await.kind(), Kind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_are_those_of_the_session() {
    let fixture = Fixture::new(UNCACHED);
    let statement = "SELECT to_timestamp('2024-01-01 00:00:00') AS moment";
    let mut texts = Vec::new();
    for zone in ["+00:00", "Asia/Shanghai", "+00:00", "Asia/Shanghai"] {
        let mut query = fixture.query(statement);
        query.session.options.set("time_zone", Some(zone)).unwrap();
        texts.push(shown(fixture.gateway.execute.execute(query).await.unwrap()).await.unwrap().1);
    }
    assert_eq!(texts[0], texts[2]);
    assert_eq!(texts[1], texts[3]);
    assert_ne!(texts[0], texts[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_volatile_stays_so() {
    let fixture = Fixture::new(UNCACHED);
    for statement in ["SELECT random()", "SELECT now()", "SELECT uuid()"] {
        assert_ne!(fixture.rows(statement).await, fixture.rows(statement).await, "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_writes_does_so_each_time() {
    let fixture = Fixture::new("[cache]\nsize = \"0\"\n[catalogs.notes]\nkind = \"memory\"\nwritable = true\n");
    fixture.rows("CREATE TABLE notes.main.t (a BIGINT)").await;
    for _ in 0..3 {
        fixture.rows("INSERT INTO notes.main.t VALUES (1)").await;
    }
    assert!(fixture.rows("SELECT count(*) AS c FROM notes.main.t").await.contains("| 3 |"));
    fixture.rows("DROP TABLE notes.main.t").await;
    fixture.rows("CREATE TABLE notes.main.t (a VARCHAR)").await;
    assert!(fixture.rows("SELECT count(*) AS c FROM notes.main.t").await.contains("| 0 |"));
}
