//! What is no longer wanted stops, gives back its memory, and is on record as cancelled.

use std::time::{Duration, Instant};

use futures::StreamExt;
use nexus_flight_catalog::Kind;
use nexus_server::query::Answer;

use crate::fixture::Fixture;

/// Never gives a row, and holds memory all the while: one side of the join.
const BUSY: &str = "SELECT count(*) FROM endless e JOIN numbers n ON e.id = n.id GROUP BY e.id % 7";
const NEVER: Duration = Duration::from_secs(60);

/// Returns when a source reads and an operator holds memory.
async fn until_busy(fixture: &Fixture) {
    let busy = async {
        fixture.source.until_running(1).await;
        while fixture.gateway.reserved() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(NEVER, busy).await.unwrap();
}

/// Returns when no source reads any more and no operator holds memory.
async fn until_idle(fixture: &Fixture) {
    let idle = async {
        fixture.source.until_running(0).await;
        // The operators above a source are dropped one after another, on a thread of their own.
        while fixture.gateway.reserved() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(NEVER, idle).await.unwrap();
}

async fn outcome(fixture: &Fixture, statement: &str) -> String {
    let found = format!("SELECT state FROM system.main.queries WHERE statement = '{statement}'");
    fixture.rows(&found).await
}

async fn first_error(mut answer: Answer) -> Kind {
    loop {
        match answer.batches.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return error.kind(),
            None => panic!("it ended"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_dropped_stops_its_work() {
    let fixture = Fixture::new("");
    let mut answer = fixture.execute("SELECT * FROM endless").await.unwrap();
    answer.batches.next().await.unwrap().unwrap();
    fixture.source.until_running(1).await;
    assert!(outcome(&fixture, "SELECT * FROM endless").await.contains("running"));
    drop(answer);
    until_idle(&fixture).await;
    assert!(outcome(&fixture, "SELECT * FROM endless").await.contains("cancelled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_context_ends_the_stream() {
    let fixture = Fixture::new("");
    let query = fixture.query(BUSY);
    let cancel = query.cx.cancel.clone();
    let answer = fixture.gateway.execute.execute(query).await.unwrap();
    let reader = tokio::spawn(first_error(answer));
    until_busy(&fixture).await;
    cancel.cancel();
    assert_eq!(tokio::time::timeout(NEVER, reader).await.unwrap().unwrap(), Kind::Cancelled);
    until_idle(&fixture).await;
    assert!(outcome(&fixture, BUSY).await.contains("cancelled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_the_stream() {
    let fixture = Fixture::new("");
    let mut query = fixture.query(BUSY);
    query.cx.deadline = Some(Instant::now() + Duration::from_millis(50));
    // On a busy machine it may be over before there is an answer.
    let outcome = match fixture.gateway.execute.execute(query).await {
        Ok(answer) => tokio::time::timeout(NEVER, first_error(answer)).await.unwrap(),
        Err(error) => error.kind(),
    };
    assert_eq!(outcome, Kind::Timeout);
    until_idle(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_ends_also_where_nobody_reads() {
    let fixture = Fixture::new("");
    let query = fixture.query("SELECT * FROM endless");
    let cancel = query.cx.cancel.clone();
    let mut answer = fixture.gateway.execute.execute(query).await.unwrap();
    answer.batches.next().await.unwrap().unwrap();
    fixture.source.until_running(1).await;
    cancel.cancel();
    until_idle(&fixture).await;
    assert_eq!(answer.batches.next().await.unwrap().unwrap_err().kind(), Kind::Cancelled);
    assert!(answer.batches.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_given_up() {
    let fixture = Fixture::new("[limits]\nstall = \"1s\"\n");
    let mut answer = fixture.execute("SELECT * FROM endless").await.unwrap();
    answer.batches.next().await.unwrap().unwrap();
    fixture.source.until_running(1).await;
    until_idle(&fixture).await;
    let error = answer.batches.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    insta::assert_snapshot!(error, @"the client took no rows for 1s; read on sooner, or raise limits.stall");
    assert!(answer.batches.next().await.is_none());
    assert!(outcome(&fixture, "SELECT * FROM endless").await.contains("timeout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_waits_for_rows_is_not_given_up() {
    let fixture = Fixture::new("[limits]\nstall = \"1s\"\n");
    let mut query = fixture.query(BUSY);
    query.cx.deadline = Some(Instant::now() + Duration::from_secs(3));
    let mut answer = fixture.gateway.execute.execute(query).await.unwrap();
    let error = tokio::time::timeout(NEVER, answer.batches.next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.message(), "the time allowed for this statement ran out");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_before_it_begins_never_runs() {
    let fixture = Fixture::new("");
    let query = fixture.query("SELECT * FROM numbers");
    query.cx.cancel.cancel();
    assert_eq!(fixture.gateway.execute.execute(query).await.err().unwrap().kind(), Kind::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_on_record_with_its_rows_or_its_error() {
    let fixture = Fixture::new("");
    fixture.run("SELECT name FROM numbers").await.unwrap();
    fixture.error("SELECT name FROM numberz").await;
    let found = fixture.rows("SELECT statement, state, rows, cache, error FROM system.main.queries ORDER BY started").await;
    insta::assert_snapshot!(found.replace(" FROM system.main.queries", ""), @r#"
    +---------------------------------------------------------------------------------------+-----------+------+-------+-------------------------------------------------------------------+
    | statement                                                                             | state     | rows | cache | error                                                             |
    +---------------------------------------------------------------------------------------+-----------+------+-------+-------------------------------------------------------------------+
    | SELECT name FROM numbers                                                              | finished  | 3    | miss  |                                                                   |
    | SELECT name FROM numberz                                                              | not_found | 0    |       | table "test.main.numberz" does not exist; did you mean "numbers"? |
    | SELECT statement, state, rows, cache, error ORDER BY started | running   | 0    |       |                                                                   |
    +---------------------------------------------------------------------------------------+-----------+------+-------+-------------------------------------------------------------------+
    "#);
}
