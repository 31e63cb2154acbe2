//! Answers on their way that several read: made once, for as long as anybody reads them, and given to nobody whom they do not fit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use nexus_flight_catalog::{Context, Error, Kind, Principal, Result, TableName, Version};
use nexus_server::query::CacheUse::{self, Hit, Miss};
use nexus_server::query::{Answer, Query};
use tokio::sync::watch;

use crate::fixture::{Fixture, Running, numbers};

const STATEMENT: &str = "SELECT id, name FROM held";
const NEVER: Duration = Duration::from_secs(60);

/// A table whose batches come when they may, and then an end or an error.
#[derive(Debug)]
struct Held {
    batch: RecordBatch,
    schema: SchemaRef,
    batches: usize,
    fails: bool,
    /// How many batches may come; the end is one more.
    may: watch::Sender<usize>,
    /// How many scans there ever were.
    scans: AtomicUsize,
    /// How many there are.
    running: watch::Sender<usize>,
}

impl PartitionStream for Held {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _cx: Arc<TaskContext>) -> SendableRecordBatchStream {
        self.scans.fetch_add(1, Ordering::SeqCst);
        let (scan, may) = (Running::start(&self.running), self.may.subscribe());
        let (batch, batches, fails) = (self.batch.clone(), self.batches, self.fails);
        let rows = stream::unfold((0, scan, may), move |(at, scan, mut may)| {
            let batch = batch.clone();
            async move {
                may.wait_for(|may| *may > at).await.ok()?;
                let next: datafusion::error::Result<RecordBatch> = match at < batches {
                    true => Ok(batch),
                    false if at == batches && fails => Err(Error::data("the disk is broken").into()),
                    false => return None,
                };
                Some((next, (at + 1, scan, may)))
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

impl Held {
    fn may(&self, batches: usize) {
        self.may.send_replace(batches);
    }

    fn scans(&self) -> usize {
        self.scans.load(Ordering::SeqCst)
    }

    async fn until_running(&self, wanted: usize) {
        let mut running = self.running.subscribe();
        let found = running.wait_for(|running| *running == wanted);
        tokio::time::timeout(NEVER, found).await.unwrap().unwrap();
    }
}

fn held(batches: usize, fails: bool) -> Arc<Held> {
    let batch = numbers(&(0..8_192).collect::<Vec<_>>());
    let (may, running) = (watch::Sender::new(0), watch::Sender::new(0));
    Arc::new(Held { schema: batch.schema(), batch, batches, fails, may, scans: AtomicUsize::new(0), running })
}

/// A gateway with such a table, `held`.
fn fixture(settings: &str, version: Version, held: &Arc<Held>) -> Fixture {
    let fixture = Fixture::new(settings);
    let partition = Arc::clone(held) as Arc<dyn PartitionStream>;
    let table = StreamingTable::try_new(Arc::clone(&held.schema), vec![partition]).unwrap();
    fixture.source.put_resolved("held", version, Arc::new(table));
    fixture
}

fn pinned() -> Version {
    Version::Pinned("1".to_owned())
}

/// The answer to a statement whose client sets the option `cache` so.
async fn asked(fixture: &Fixture, control: &str) -> Result<Answer> {
    let mut query = fixture.query(STATEMENT);
    query.session.options.set("cache", Some(control)).unwrap();
    fixture.gateway.execute.execute(query).await
}

/// Whether an answer is made for another statement too, which came first.
fn joined(answer: &Answer) -> bool {
    assert_eq!((answer.cache.how, answer.cache.why.is_some()), (Miss, answer.cache.age.is_some()));
    answer.cache.why.is_some()
}

async fn rows(answer: Answer) -> Result<usize> {
    let batches: Vec<RecordBatch> = answer.batches.try_collect().await?;
    Ok(batches.iter().map(RecordBatch::num_rows).sum())
}

async fn again(fixture: &Fixture) -> CacheUse {
    fixture.execute(STATEMENT).await.unwrap().cache.how
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_equal_statements_are_one_execution() {
    let held = held(3, false);
    // One slot, and no queue: to read along takes none.
    let fixture = fixture("[limits]\nconcurrency = 1\nqueue = 0\n", pinned(), &held);
    // A plan that is there wants no place among those that are planned.
    fixture.gateway.execute.describe(&fixture.query(STATEMENT)).await.unwrap();
    let answers = join_all((0..1_000).map(|_| fixture.execute(STATEMENT))).await;
    let answers: Vec<Answer> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| joined(answer)).count(), 999);
    assert_eq!(fixture.gateway.gate.load(), (1, 0));
    held.may(4);
    let all = tokio::time::timeout(NEVER, join_all(answers.into_iter().map(rows))).await.unwrap();
    assert!(all.into_iter().all(|rows| rows.unwrap() == 3 * 8_192));
    assert_eq!((held.scans(), fixture.gateway.reserved(), again(&fixture).await), (1, 0, Hit));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_late_reads_it_from_its_beginning() {
    let held = held(3, false);
    let fixture = fixture("", pinned(), &held);
    let mut first = fixture.execute(STATEMENT).await.unwrap();
    held.may(2);
    for _ in 0..2 {
        first.batches.next().await.unwrap().unwrap();
    }
    // What is there of it is charged.
    assert!(fixture.gateway.reserved() >= 2 * held.batch.get_array_memory_size());
    let late = fixture.execute(STATEMENT).await.unwrap();
    assert!(joined(&late) && !joined(&first));
    held.may(4);
    assert_eq!((rows(first).await.unwrap(), rows(late).await.unwrap()), (8_192, 3 * 8_192));
    assert_eq!((held.scans(), fixture.gateway.reserved()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_stops_no_other_and_the_last_one_does() {
    let held = held(3, false);
    let fixture = fixture("", pinned(), &held);
    let [first, second, third] = [(); 3].map(|()| fixture.execute(STATEMENT));
    let (first, second, third) = (first.await.unwrap(), second.await.unwrap(), third.await.unwrap());
    held.may(1);
    drop(first);
    drop(second);
    held.may(4);
    assert_eq!(rows(third).await.unwrap(), 3 * 8_192);
    assert_eq!((held.scans(), again(&fixture).await), (1, Hit));
    fixture.run("CALL system.invalidate('held')").await.unwrap();
    held.may(1);
    let (mut fourth, fifth) = (fixture.execute(STATEMENT).await.unwrap(), fixture.execute(STATEMENT).await.unwrap());
    fourth.batches.next().await.unwrap().unwrap();
    held.until_running(1).await;
    drop((fourth, fifth));
    held.until_running(0).await;
    while fixture.gateway.reserved() > 0 {
        tokio::task::yield_now().await;
    }
    held.may(4);
    // It is not kept, and nobody joins it.
    assert_eq!((again(&fixture).await, held.scans()), (Miss, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_for_all() {
    let held = held(1, true);
    let fixture = fixture("", pinned(), &held);
    let (first, second) = (fixture.execute(STATEMENT).await.unwrap(), fixture.execute(STATEMENT).await.unwrap());
    held.may(2);
    for answer in [first, second] {
        let mut batches: Vec<Result<RecordBatch>> = answer.batches.collect().await;
        let error = batches.pop().unwrap().unwrap_err();
        assert_eq!((batches.len(), error.kind(), error.message()), (1, Kind::Data, "the disk is broken"));
    }
    assert_eq!((again(&fixture).await, held.scans()), (Miss, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_first_may_give_up_or_run_out_of_time() {
    for gives_up in [true, false] {
        let held = held(3, false);
        let fixture = fixture("", pinned(), &held);
        let mut query = fixture.query(STATEMENT);
        if !gives_up {
            query.cx.deadline = Some(Instant::now() + Duration::from_secs(2));
        }
        let cancel = query.cx.cancel.clone();
        let mut first = fixture.gateway.execute.execute(query).await.unwrap();
        let second = fixture.execute(STATEMENT).await.unwrap();
        assert!(joined(&second));
        if gives_up {
            cancel.cancel();
        }
        let error = tokio::time::timeout(NEVER, first.batches.next()).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.kind(), if gives_up { Kind::Cancelled } else { Kind::Timeout });
        held.may(4);
        assert_eq!((rows(second).await.unwrap(), held.scans(), again(&fixture).await), (3 * 8_192, 1, Hit));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_past_the_room_is_left_behind_and_the_others_have_it_all() {
    let held = held(100, false);
    let size = held.batch.get_array_memory_size();
    let fixture = fixture("cache.entry = \"2MiB\"\n[limits]\nstall = \"2s\"\n", pinned(), &held);
    let mut slow = fixture.execute(STATEMENT).await.unwrap();
    let fast = join_all((0..99).map(|_| fixture.execute(STATEMENT))).await;
    held.may(101);
    slow.batches.next().await.unwrap().unwrap();
    let gateway = &fixture.gateway;
    let read = |answer: Result<Answer>| async move {
        let (mut batches, mut rows) = (answer.unwrap().batches, 0);
        while let Some(batch) = batches.try_next().await.unwrap() {
            rows += batch.num_rows();
            assert!(gateway.reserved() <= (2 << 20) + size);
        }
        rows
    };
    let all = tokio::time::timeout(NEVER, join_all(fast.into_iter().map(read))).await.unwrap();
    assert_eq!(all, [100 * 8_192; 99]);
    let error = slow.batches.map(Result::err).filter_map(std::future::ready).next().await.unwrap();
    assert_eq!((error.kind(), error.hint()), (Kind::Timeout, Some("read on sooner, or raise limits.stall")));
    assert_eq!((held.scans(), fixture.gateway.reserved()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_changed_since_it_began_is_not_joined() {
    let held = held(1, false);
    let fixture = fixture("", pinned(), &held);
    let mut all = vec![fixture.execute(STATEMENT).await.unwrap()];
    fixture.gateway.writes.wrote(&TableName::new("test", "main", "held"));
    all.push(fixture.execute(STATEMENT).await.unwrap());
    fixture.run("CALL system.invalidate('held')").await.unwrap();
    all.push(fixture.execute(STATEMENT).await.unwrap());
    fixture.gateway.writes.governed();
    all.push(fixture.execute(STATEMENT).await.unwrap());
    assert!(!all.iter().any(joined));
    let latest = fixture.execute(STATEMENT).await.unwrap();
    assert!(joined(&latest));
    all.push(latest);
    held.may(2);
    assert!(join_all(all.into_iter().map(rows)).await.into_iter().all(|rows| rows.unwrap() == 8_192));
    assert_eq!(held.scans(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_is_another_answer() {
    let held = held(1, false);
    let fixture = fixture("", pinned(), &held);
    let first = fixture.execute(STATEMENT).await.unwrap();
    fixture.source.put("held", numbers(&[7]));
    let second = fixture.execute(STATEMENT).await.unwrap();
    assert!(!joined(&second));
    assert_eq!(rows(second).await.unwrap(), 1);
    held.may(2);
    assert_eq!(rows(first).await.unwrap(), 8_192);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_unknown_version_are_not_joined() {
    let held = held(1, false);
    let fixture = fixture("[catalogs.test]\nkind = \"memory\"\nttl = \"1h\"\n", Version::Unknown, &held);
    let (first, second) = (fixture.execute(STATEMENT).await.unwrap(), fixture.execute(STATEMENT).await.unwrap());
    assert!(!joined(&first) && !joined(&second));
    held.may(2);
    assert_eq!((rows(first).await.unwrap(), rows(second).await.unwrap()), (8_192, 8_192));
    assert_eq!((held.scans(), again(&fixture).await), (2, Hit));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_says_whether_it_takes_what_has_begun() {
    let held = held(1, false);
    let fixture = fixture("", pinned(), &held);
    let first = asked(&fixture, "use").await.unwrap();
    let error = asked(&fixture, "only-if-cached").await.err().unwrap();
    assert_eq!(error.kind(), Kind::Precondition);
    let mut own = Vec::new();
    for control in ["no-cache", "max-age=0"] {
        own.push(asked(&fixture, control).await.unwrap());
    }
    assert!(!own.iter().any(joined));
    let along = asked(&fixture, "max-age=600").await.unwrap();
    assert!(joined(&along));
    held.may(2);
    own.extend([first, along]);
    assert!(join_all(own.into_iter().map(rows)).await.into_iter().all(|rows| rows.unwrap() == 8_192));
    assert_eq!(held.scans(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_one_user_does_not_get_is_not_refused_to_another() {
    let held = held(1, false);
    let limits = "[limits]\nconcurrency = 4\nconcurrency_per_user = 1\nqueue = 4\nqueue_wait = \"100ms\"\n";
    let fixture = fixture(limits, pinned(), &held);
    held.may(2);
    let ask = |user: &str, statement: &str| {
        let query = Query { cx: Context::new(Principal(user.into())), ..fixture.query(statement) };
        fixture.gateway.execute.execute(query)
    };
    let busy = ask("ann", "SELECT * FROM endless").await.unwrap();
    let (ann, bob) = tokio::join!(ask("ann", STATEMENT), ask("bob", STATEMENT));
    assert_eq!(rows(bob.unwrap()).await.unwrap(), 8_192);
    // Whichever of the two came first.
    if let Err(error) = ann {
        assert_eq!(error.kind(), Kind::Exhausted);
    }
    drop(busy);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_what_another_has_made_keeps_no_room() {
    let held = held(1, false);
    let fixture = fixture("[limits]\nconcurrency = 1\nqueue = 2\n", pinned(), &held);
    let busy = fixture.execute("SELECT * FROM endless").await.unwrap();
    let ask = |words: &str| {
        let (execute, query) = (Arc::clone(&fixture.gateway.execute), fixture.query(words));
        tokio::spawn(async move { execute.execute(query).await })
    };
    // Until so many tables were looked up, and one statement waits.
    let until = async |opened: usize| {
        let waits = async {
            while fixture.opened() < opened || fixture.gateway.gate.load() != (1, 1) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(NEVER, waits).await.unwrap();
    };
    let first = ask(STATEMENT);
    until(2).await;
    // In other words, so that it is planned too.
    let second = ask("SELECT h.id, h.name FROM held AS h");
    until(3).await;
    drop(busy);
    held.may(2);
    let answers = [first.await.unwrap().unwrap(), second.await.unwrap().unwrap()];
    assert_eq!(answers.iter().filter(|answer| joined(answer)).count(), 1);
    assert!(join_all(answers.into_iter().map(rows)).await.into_iter().all(|rows| rows.unwrap() == 8_192));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_late_is_not_kept_in_place_of_what_began_later() {
    let held = held(1, false);
    let fixture = fixture("[catalogs.test]\nkind = \"memory\"\nttl = \"1h\"\n", Version::Unknown, &held);
    let first = fixture.execute(STATEMENT).await.unwrap();
    let since = Instant::now();
    let second = fixture.execute(STATEMENT).await.unwrap();
    held.may(2);
    for answer in [second, first] {
        assert_eq!(rows(answer).await.unwrap(), 8_192);
    }
    let answer = fixture.execute(STATEMENT).await.unwrap();
    assert_eq!(answer.cache.how, Hit);
    assert!(answer.cache.age.unwrap() <= since.elapsed());
}
