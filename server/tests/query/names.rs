//! How names are looked up, and what listings cost.

use std::time::{Duration, Instant};

use nexus_flight_catalog::Kind;

use crate::fixture::{Fixture, numbers};

#[tokio::test(flavor = "multi_thread")]
async fn a_name_may_have_one_two_or_three_parts() {
    let fixture = Fixture::new("");
    let wanted = fixture.rows("SELECT * FROM test.main.numbers").await;
    for name in ["numbers", "main.numbers", "test.numbers", "\"test\".\"main\".\"numbers\"", "NUMBERS"] {
        assert_eq!(fixture.rows(&format!("SELECT * FROM {name}")).await, wanted, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_there_gets_the_nearest() {
    let fixture = Fixture::new("");
    let mut messages = Vec::new();
    for name in ["number", "test.main.othr", "tests.main.numbers", "test.mian.numbers", "information_schema.table"] {
        let error = fixture.error(&format!("SELECT * FROM {name}")).await;
        assert_eq!(error.kind(), Kind::NotFound);
        messages.push(error.to_string());
    }
    let error = fixture.error("SELECT nmae FROM numbers").await;
    messages.push(error.to_string());
    insta::assert_snapshot!(messages.join("\n"), @r#"
    table "test.main.number" does not exist; did you mean "numbers"?
    table "test.main.othr" does not exist; did you mean "other"?
    catalog "tests" does not exist; did you mean "test"?
    schema "test.mian" does not exist; did you mean "main"?
    table "table" does not exist; did you mean "tables"?
    line 1, column 8: column "nmae" does not exist; did you mean "name"?
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_seen_as_soon_as_it_is_there() {
    let fixture = Fixture::new("");
    fixture.error("SELECT * FROM fresh").await;
    fixture.source.put("fresh", numbers(&[7]));
    assert!(fixture.rows("SELECT * FROM fresh").await.contains("n7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_tables_that_are_named_are_opened() {
    let fixture = Fixture::new("");
    let opened = |statement: &'static str| {
        let fixture = &fixture;
        async move {
            let before = fixture.opened();
            fixture.run(statement).await.unwrap();
            fixture.opened() - before
        }
    };
    assert_eq!(opened("SELECT 1").await, 0);
    assert_eq!(opened("SELECT * FROM numbers a, numbers b, other").await, 2);
    assert_eq!(opened("WITH numbers AS (SELECT 1 AS id) SELECT * FROM numbers").await, 0);
    assert_eq!(opened("SHOW TABLES").await, 0);
    assert_eq!(opened("SELECT table_name FROM information_schema.tables").await, 0);
    assert_eq!(opened("SELECT column_name FROM information_schema.columns WHERE table_name = 'other'").await, 1);
    assert_eq!(opened("DESCRIBE numbers").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_tables_are_listed_in_under_a_second_and_none_is_opened() {
    let fixture = Fixture::new("");
    for number in 0..10_000 {
        fixture.source.put(&format!("t{number:05}"), numbers(&[]));
    }
    for statement in [
        "SELECT count(*) FROM information_schema.tables WHERE table_name LIKE 't%'",
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main' ORDER BY table_name LIMIT 5",
        "SHOW TABLES",
    ] {
        let (opened, began) = (fixture.opened(), Instant::now());
        fixture.run(statement).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(1), "{statement}: {:?}", began.elapsed());
        assert_eq!(fixture.opened(), opened, "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_say_what_there_is() {
    let fixture = Fixture::new("");
    insta::assert_snapshot!(fixture.rows("SELECT table_schema, table_name, table_type FROM information_schema.tables ORDER BY 1, 2").await, @r#"
    +--------------------+-------------------+------------+
    | table_schema       | table_name        | table_type |
    +--------------------+-------------------+------------+
    | information_schema | columns           | VIEW       |
    | information_schema | key_column_usage  | VIEW       |
    | information_schema | schemata          | VIEW       |
    | information_schema | table_constraints | VIEW       |
    | information_schema | tables            | VIEW       |
    | main               | changing          | BASE TABLE |
    | main               | endless           | BASE TABLE |
    | main               | numbers           | BASE TABLE |
    | main               | other             | BASE TABLE |
    +--------------------+-------------------+------------+
    "#);
    insta::assert_snapshot!(fixture.rows("SELECT column_name, ordinal_position, data_type, is_nullable FROM information_schema.columns WHERE table_name = 'numbers'").await, @r#"
    +-------------+------------------+-----------+-------------+
    | column_name | ordinal_position | data_type | is_nullable |
    +-------------+------------------+-----------+-------------+
    | id          | 1                | Int64     | NO          |
    | name        | 2                | Utf8      | NO          |
    +-------------+------------------+-----------+-------------+
    "#);
    insta::assert_snapshot!(fixture.rows("DESCRIBE numbers").await, @r#"
    +-------------+-----------+-------------+
    | column_name | data_type | is_nullable |
    +-------------+-----------+-------------+
    | id          | Int64     | NO          |
    | name        | Utf8      | NO          |
    +-------------+-----------+-------------+
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_beside_a_number_is_that_number() {
    let fixture = Fixture::new("");
    fixture.source.put("grown", numbers(&[5, 9, 10]));
    for (condition, wanted) in [
        ("id < '10'", 2),
        ("'10' > id", 2),
        ("id BETWEEN '5' AND '9'", 2),
        ("id IN ('9', '10')", 2),
        ("id = '9.0'", 1),
        ("id > '9.5'", 1),
        ("id IS DISTINCT FROM '9'", 2),
        ("id / 2.0 < '4.75'", 2),
        ("EXISTS (SELECT 1 FROM numbers n WHERE n.id + 7 = grown.id AND n.id < '3')", 1),
        ("name < 'n9'", 2),
    ] {
        let rows = fixture.rows(&format!("SELECT count(*) AS c FROM grown WHERE {condition}")).await;
        assert!(rows.contains(&format!("| {wanted} |")), "{condition}:\n{rows}");
    }
}
