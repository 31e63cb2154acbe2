//! What EXPLAIN tells: the route, the cache's answer, the tables, the plans as they run, and the time of each part.

use crate::fixture::Fixture;

/// The answer to an EXPLAIN, a line of each kind after the other, with times as `…`.
async fn explained(fixture: &Fixture, statement: &str) -> String {
    let rows = fixture.rows(statement).await;
    let mut text = String::new();
    // How many threads there are is the machine's to say.
    for line in rows.lines().filter(|line| !line.starts_with("+-") && !line.contains("RepartitionExec")).skip(1) {
        let line = line.trim_matches(['|', ' ']).replace('|', ":");
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let timed = words.ends_with(" ms") && words.rsplit(' ').nth(1).is_some_and(|number| number.parse::<f64>().is_ok());
        match words.rsplit_once(": ") {
            Some((before, _)) if timed => text += &format!("{before}: …\n"),
            _ => text += &format!("{words}\n"),
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_statement_would_be_answered() {
    let fixture = Fixture::new("");
    insta::assert_snapshot!(explained(&fixture, "EXPLAIN SELECT id + 1 AS n FROM numbers WHERE id > 1").await, @r#"
    route : here, by DataFusion
    cache : miss
    tables : test.main.numbers: counted, version 0
    logical_plan : Projection: numbers.id + Int64(1) AS n
    Filter: numbers.id > Int64(1)
    TableScan: numbers projection=[id]
    physical_plan : ProjectionExec: expr=[id@0 + 1 as n]
    FilterExec: id@0 > 1
    DataSourceExec: partitions=1, partition_sizes=[1]
    times : parsing: …
    tables: …
    planning: …
    analysis: …
    optimizer: …
    physical plan: …
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_it_was_answered() {
    let fixture = Fixture::new("");
    let text = explained(&fixture, "EXPLAIN ANALYZE SELECT * FROM numbers WHERE id > 1").await;
    for part in ["answer : 2 rows", "output_rows=2", "first rows: …", "all rows: …", "cache : miss"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    // Running it for this has put nothing into the cache.
    assert!(explained(&fixture, "EXPLAIN SELECT * FROM numbers WHERE id > 1").await.contains("cache : miss"));
    assert_eq!(
        fixture.error("EXPLAIN ANALYZE SELECT 1 / (id - 1) FROM numbers").await.to_string(),
        fixture.error("SELECT 1 / (id - 1) FROM numbers").await.to_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cache_has() {
    let fixture = Fixture::new("");
    let cache = async |statement: &str| {
        let text = explained(&fixture, statement).await;
        text.lines().find_map(|line| line.strip_prefix("cache : ")).unwrap().to_owned()
    };
    assert_eq!(cache("EXPLAIN SELECT id FROM numbers").await, "miss");
    fixture.run("SELECT id FROM numbers").await.unwrap();
    assert_eq!(cache("EXPLAIN SELECT n.id FROM numbers n").await, "hit");
    insta::assert_snapshot!(cache("EXPLAIN SELECT now()").await, @"bypass: a function may give another value each time");
    insta::assert_snapshot!(cache("EXPLAIN SELECT * FROM changing").await, @"bypass: a table is of unknown version, and its catalog has no ttl for which it may be taken as unchanged");
    insta::assert_snapshot!(cache("EXPLAIN SELECT * FROM information_schema.tables").await, @"bypass: information_schema is read anew each time");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format() {
    let fixture = Fixture::new("");
    for (format, part) in [("INDENT", "FilterExec"), ("TREE", "┌──"), ("PGJSON", "\"Node Type\""), ("GRAPHVIZ", "digraph")]
    {
        let text = explained(&fixture, &format!("EXPLAIN FORMAT {format} SELECT id FROM numbers WHERE id > 1")).await;
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    insta::assert_snapshot!(fixture.error("EXPLAIN FORMAT XML SELECT 1").await, @"invalid explain format. Expected 'indent', 'tree', 'pgjson' or 'graphviz'. Got 'XML'");
}
