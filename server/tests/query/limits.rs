//! How many run, how many wait, and what the next one is told.

use std::time::Duration;

use futures::StreamExt;
use futures::future::select;
use nexus_flight_catalog::Kind;
use nexus_server::query::CacheUse::Hit;

use crate::fixture::Fixture;

const ONE: &str = "[limits]\nconcurrency = 1\nqueue = ";

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_lives_as_long_as_its_stream() {
    let fixture = Fixture::new(&format!("{ONE}0\n"));
    fixture.run("SELECT id FROM numbers").await.unwrap();
    let mut first = fixture.execute("SELECT * FROM endless").await.unwrap();
    first.batches.next().await.unwrap().unwrap();
    let error = fixture.error("SELECT * FROM other").await;
    assert_eq!((error.kind(), error.retryable()), (Kind::Exhausted, true));
    insta::assert_snapshot!(error, @"0 statements are waiting already; try again later, or raise limits.queue");
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
    insta::assert_snapshot!(error, @"no statement ended within 20ms to make room; try again later, or raise limits.concurrency");
}
