//! How many run, how many wait, and what the next one is told.

use std::time::Duration;

use futures::StreamExt;
use futures::future::select;
use nexus_flight_catalog::{Error, Kind};
use nexus_server::query::CacheUse::{self, Hit, Miss};
use nexus_server::query::Query;

use crate::fixture::{Fixture, shown};

const ONE: &str = "[limits]\nconcurrency = 1\nqueue = ";

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_lives_as_long_as_its_stream() {
    let fixture = Fixture::new(&format!("{ONE}0\n"));
    fixture.run("SELECT id FROM numbers").await.unwrap();
    let mut first = fixture.execute("SELECT * FROM endless").await.unwrap();
    first.batches.next().await.unwrap().unwrap();
    let error = fixture.error("SELECT * FROM other").await;
    assert_eq!((error.kind(), error.retryable()), (Kind::Exhausted, true));
    insta::assert_snapshot!(error, @"the queue of 0 statements is full; try again later, or raise limits.concurrency or limits.queue");
    // What is kept needs no permit.
    assert_eq!(fixture.run("SELECT id FROM numbers").await.unwrap().0, Hit);
    drop(first);
    let let_in = async {
        while fixture.run("SELECT * FROM other").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), let_in).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_runs_when_there_is_room() {
    let fixture = Fixture::new(&format!("{ONE}1\n"));
    let first = fixture.execute("SELECT * FROM endless").await.unwrap();
    // Of two more, one finds the place in the queue taken, whichever it is.
    let (one, other) = (Box::pin(fixture.run("SELECT id FROM other")), Box::pin(fixture.run("SELECT id FROM numbers")));
    let (refused, waits) = select(one, other).await.factor_first();
    assert_eq!(refused.unwrap_err().kind(), Kind::Exhausted);
    drop(first);
    waits.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends() {
    let fixture = Fixture::new(&format!("{ONE}1\nqueue_wait = \"20ms\"\n"));
    let _first = fixture.execute("SELECT * FROM endless").await.unwrap();
    let error = fixture.error("SELECT * FROM other").await;
    assert_eq!(error.kind(), Kind::Exhausted);
    insta::assert_snapshot!(error, @"no statement ended within 20ms to make room; try again later, or raise limits.concurrency or limits.queue");
}

/// What came of a statement whose client takes so many rows.
async fn at_most(fixture: &Fixture, most: u64, statement: &str) -> Result<CacheUse, Error> {
    let query = Query { most: Some(most), ..fixture.query(statement) };
    Ok(shown(fixture.gateway.execute.execute(query).await?).await?.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn more_rows_than_the_client_takes_are_an_error() {
    let fixture = Fixture::new("");
    let error = at_most(&fixture, 10_000, "SELECT id FROM endless").await.unwrap_err();
    assert_eq!((error.kind(), error.retryable()), (Kind::Exhausted, false));
    insta::assert_snapshot!(error, @"the answer has more than 10000 rows; ask for fewer, or raise the session option max_rows");
    fixture.source.until_running(0).await;
    assert_eq!(at_most(&fixture, 3, "SELECT id FROM numbers").await.unwrap(), Miss);
    // What is kept is counted too, and is no less for those who take more.
    assert_eq!(at_most(&fixture, 2, "SELECT id FROM numbers").await.unwrap_err().kind(), Kind::Exhausted);
    assert_eq!(at_most(&fixture, 3, "SELECT id FROM numbers").await.unwrap(), Hit);
    assert_eq!(at_most(&fixture, 2, "SELECT name FROM numbers").await.unwrap_err().kind(), Kind::Exhausted);
    assert!(fixture.rows("SELECT name FROM numbers").await.contains("n3"));
}

/// The error of a statement whose rows would be too many to show.
async fn exhausted(fixture: &Fixture, statement: &str) -> Error {
    match fixture.run(statement).await {
        Ok((_, rows)) => panic!("{statement}: no error, but {} bytes", rows.len()),
        Err(error) => error,
    }
}

/// Statements whose batches would be gigabytes, were they made.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_grows_to_its_bound_and_no_further() {
    let fixture = Fixture::new("[limits]\nmemory = \"64MiB\"\n");
    fixture.source.put("many", crate::fixture::numbers(&(0..8192).collect::<Vec<_>>()));
    for statement in [
        "SELECT repeat(name, 1000000) FROM many",
        "SELECT repeat('ab', 2000000000)",
        "SELECT lpad(name, 1000000), id FROM many",
        "SELECT rpad(name, 1000000, 'xy') FROM many",
        "SELECT length(repeat(repeat(name, 1000), 1000)) FROM many",
        "SELECT replace(repeat(name, 100), 'n', repeat('x', 100000)) FROM many",
        "SELECT regexp_replace(repeat(name, 100), '.', repeat('x', 100000), 'g') FROM many",
        r"SELECT regexp_replace(repeat(name, 1000), '(.*)', repeat('\1', 1000)) FROM many",
        "SELECT regexp_match(repeat(name, 1000), repeat('(', 100) || 'n.*' || repeat(')', 100)) FROM many",
        "SELECT array_to_string(range(id), repeat('x', 100000)) FROM many",
        "SELECT range(1000000000000)",
        "SELECT generate_series(0, id * 1000000) FROM many",
        "SELECT generate_series(TIMESTAMP '1900-01-01', TIMESTAMP '2100-01-01', INTERVAL '1' SECOND)",
        "SELECT generate_series(TIMESTAMP '2000-01-01', TIMESTAMP '2200-01-01', INTERVAL '1 month -28 day')",
        "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))",
        "SELECT length(a || a || a || a || a || a || a || a) FROM (SELECT b || b || b || b || b AS a FROM (SELECT repeat(name, 100) AS b FROM many))",
        "SELECT cardinality(array_concat(x, x, x, x, x, x, x, x)) FROM (SELECT range(id / 8) AS x FROM many)",
        "SELECT array_repeat(name, 1000000) FROM many",
        "SELECT array_repeat(array_repeat(id, 1000), 1000) FROM many",
        "SELECT array_resize([id], 1000000, 0) FROM many",
        "SELECT array_replace_all(array_repeat(1, 1000), 1, id) FROM many WHERE array_length(array_repeat(id, 100000)) > 0",
        // Constants, each within the bound, and not all together.
        "SELECT repeat('a', 1000000) || repeat('b', 1000000) || repeat('c', 1000000)",
        "SELECT translate(repeat('a', 1500000), 'a', 'é')",
        "SELECT unnest(range(100000)), repeat(name, 1000) FROM many WHERE id < 3",
        "SELECT unnest(unnest([range(1000), range(100000)])), repeat(name, 1000) FROM many WHERE id < 3",
    ] {
        let error = exhausted(&fixture, statement).await;
        assert_eq!((error.kind(), error.retryable()), (Kind::Exhausted, false), "{statement}: {error}");
    }
    insta::assert_snapshot!(fixture.error("SELECT repeat(name, 1000000) FROM many").await, @"repeat would make 16 MiB at once, the limit is 9 MiB; ask for shorter values, or raise limits.memory");
    insta::assert_snapshot!(fixture.error("SELECT unnest(range(100000)), repeat(name, 1000) FROM numbers").await, @"a row would become 100000 rows with 192 MiB at once by unnest, the limit is 8 MiB; select fewer columns beside it, unnest shorter lists, or raise limits.memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_ends_where_numbers_do() {
    let fixture = Fixture::new("");
    insta::assert_snapshot!(fixture.error("SELECT count(*) FROM generate_series(9223372036854775800, 9223372036854775807)").await, @"a series to 9223372036854775807 in steps of 1 goes beyond the numbers of 64 bits; end it one step earlier");
    insta::assert_snapshot!(fixture.error("SELECT count(*) FROM range(1, 9223372036854775807, 10)").await, @"a series to 9223372036854775807 in steps of 10 goes beyond the numbers of 64 bits; end it one step earlier");
    insta::assert_snapshot!(fixture.rows("SELECT count(*) AS c FROM range(9223372036854775800, 9223372036854775807)").await, @r"
    +---+
    | c |
    +---+
    | 7 |
    +---+
    ");
}

/// Each row has another regular expression, and all of them at once would take gigabytes.
#[tokio::test(flavor = "multi_thread")]
async fn patterns_of_rows_are_compiled_a_few_at_a_time() {
    let fixture = Fixture::new("[limits]\nmemory = \"64MiB\"\n");
    fixture.source.put("many", crate::fixture::numbers(&(0..8192).collect::<Vec<_>>()));
    let pattern = "'^N?n' || id || '$'";
    let statement = format!(
        "SELECT count(*) FILTER (WHERE name ~ ({pattern})) AS a, count(*) FILTER (WHERE name !~ ({pattern})) AS b,
             count(*) FILTER (WHERE upper(name) ~* ({pattern})) AS c, count(*) FILTER (WHERE upper(name) !~* ({pattern})) AS d,
             count(*) FILTER (WHERE regexp_like(name, {pattern})) AS e, sum(regexp_count(name, {pattern})) AS f,
             sum(regexp_instr(name, {pattern})) AS g, count(regexp_match(name, {pattern})) AS h,
             count(*) FILTER (WHERE regexp_replace(name, {pattern}, 'x') = 'x') AS i,
             count(*) FILTER (WHERE name SIMILAR TO ({pattern})) AS j FROM many"
    );
    insta::assert_snapshot!(fixture.rows(&statement).await, @r"
    +------+---+------+---+------+------+------+------+------+------+
    | a    | b | c    | d | e    | f    | g    | h    | i    | j    |
    +------+---+------+---+------+------+------+------+------+------+
    | 8192 | 0 | 8192 | 0 | 8192 | 8192 | 8192 | 8192 | 8192 | 8192 |
    +------+---+------+---+------+------+------+------+------+------+
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_count_together() {
    let fixture = Fixture::new("[limits]\nmemory = \"64MiB\"\n");
    fixture.source.put("many", crate::fixture::numbers(&(0..8192).collect::<Vec<_>>()));
    let columns = (0..12).map(|number| format!("repeat(name, {}) AS c{number}", 150 + number)).collect::<Vec<_>>().join(", ");
    for statement in [
        &format!("SELECT {columns} FROM many"),
        "SELECT encode(encode(encode(encode(repeat(name, 100)::bytea, 'hex')::bytea, 'hex')::bytea, 'hex')::bytea, 'hex') FROM many",
        "SELECT [x, x, x, x, x, x, x, x, x, x] FROM (SELECT repeat(name, 200) AS x FROM many)",
        "SELECT struct(x, x, x, x, x, x, x, x, x, x) FROM (SELECT repeat(name, 200) AS x FROM many)",
    ] {
        let error = exhausted(&fixture, statement).await;
        assert_eq!(error.kind(), Kind::Exhausted, "{statement}: {error}");
    }
}

/// Windows that would ask for gigabytes, or terabytes.
#[tokio::test(flavor = "multi_thread")]
async fn windows_count_what_they_hold() {
    let fixture = Fixture::new("[limits]\nmemory = \"64MiB\"\n");
    fixture.source.put("many", crate::fixture::numbers(&(0..8192).collect::<Vec<_>>()));
    for statement in [
        "SELECT array_agg(name) OVER () FROM many",
        "SELECT array_agg(name) OVER (RANGE CURRENT ROW) FROM many",
        "SELECT array_agg(name) FILTER (WHERE id < 2000) OVER () FROM many",
        "SELECT array_agg(DISTINCT name) OVER () FROM many",
        "SELECT string_agg(name, ',') OVER (PARTITION BY id % 2) FROM many",
        "SELECT array_agg(name) OVER (ORDER BY id) FROM many",
        "SELECT max(x) OVER () FROM (SELECT CASE WHEN id = 0 THEN repeat('x', 100000) ELSE name END AS x FROM many)",
        "SELECT first_value(x) OVER (ORDER BY id) FROM (SELECT id, CASE WHEN id = 0 THEN repeat('x', 100000) ELSE name END AS x FROM many)",
        "SELECT lag(name, 8000, repeat('x', 1000000)) OVER (ORDER BY id) FROM many",
        "SELECT sum(id) OVER () FROM generate_series(0, 5000000) v(id)",
    ] {
        let error = exhausted(&fixture, statement).await;
        assert_eq!(error.kind(), Kind::Exhausted, "{statement}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_within_the_bound_is_answered() {
    let fixture = Fixture::new("[limits]\nmemory = \"64MiB\"\n");
    fixture.source.put("many", crate::fixture::numbers(&(0..8192).collect::<Vec<_>>()));
    for (statement, wanted) in [
        // Bounded from above they are gigabytes.
        ("SELECT sum(length(replace(name, 'zz', repeat('x', 100000)))) = sum(length(name)) FROM many", "true"),
        ("SELECT sum(length(regexp_replace(name, 'zz', repeat('x', 100000), 'g'))) = sum(length(name)) FROM many", "true"),
        ("SELECT count(*) FROM (SELECT unnest(range(100)), name FROM many)", "819200"),
        ("SELECT sum(x) FROM (SELECT unnest(unnest([range(10), range(5)])) AS x FROM many)", "450560"),
        ("SELECT count(*) FROM (SELECT unnest(range(id % 3)) FROM many)", "8191"),
        ("SELECT array_length(generate_series(DATE '2024-01-01', DATE '2024-12-31', INTERVAL '1' DAY))", "366"),
        ("SELECT range(5, 0), range(5, 0, -2), range(0, 1000000000000, -1)", "[]"),
        ("SELECT lpad('7', 3, '0'), rpad(NULL, 3), repeat('ab', -1), concat('a', NULL, 'b')", "007"),
        ("SELECT max(length(concat_ws(repeat('x', 100000), name, name, name))) FROM many", "200015"),
        ("SELECT max(array_length(x)) FROM (SELECT array_agg(name) OVER (PARTITION BY id / 10) AS x FROM many)", "10"),
        ("SELECT max(length(x)) FROM (SELECT max(name) OVER (ORDER BY id ROWS 99 PRECEDING) AS x FROM many)", "5"),
        // Each literal is in each row of a batch, which is made of fewer rows.
        ("SELECT max(length(x)), count(*) FROM (SELECT repeat('x', 100000) || name AS x FROM many)", "8192"),
    ] {
        let rows = fixture.rows(statement).await;
        assert!(rows.contains(wanted), "{statement}\n{rows}");
    }
}
