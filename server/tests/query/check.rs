//! For how long an answer that is kept takes the versions of its tables as they were looked up, and what ends that at once.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use nexus_flight_catalog::{Capabilities, Context, Error, Kind, Proof, Resolved, Result, Source, Spec, TableEntry, Target};
use nexus_server::query::CacheUse::{Hit, Miss};
use nexus_server::query::{CacheUse, Query};
use tokio::sync::Notify;

use crate::cache::asked;
use crate::fixture::{Counted, Fixture, numbers, shown};

/// What is looked up is taken for what is so for all of a test.
const HOUR: &str = "cache.check = \"1h\"\n";
const SUM: &str = "SELECT sum(id) AS s FROM numbers";

impl Fixture {
    /// What the cache did with a statement, which must give a row of one number.
    async fn number(&self, statement: &str) -> (CacheUse, i64) {
        let (cache, rows) = self.run(statement).await.unwrap();
        (cache, rows.lines().nth(3).unwrap().trim_matches(['|', ' ']).parse().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_kept_asks_nothing_of_its_source() {
    let fixture = Fixture::new(HOUR);
    assert_eq!(fixture.number(SUM).await, (Miss, 6));
    let opened = fixture.opened();
    fixture.source.put("numbers", numbers(&[10, 20]));
    for _ in 0..2 {
        let description = fixture.gateway.execute.describe(&fixture.query(SUM)).await.unwrap();
        assert_eq!(description.schema.field(0).name(), "s");
        assert_eq!(fixture.number(SUM).await, (Hit, 6));
    }
    assert_eq!(fixture.opened(), opened);
    // What is not kept is read as it is now, and looked up for that.
    assert_eq!(fixture.number("SELECT max(id) AS m FROM numbers").await, (Miss, 20));
    assert_eq!(fixture.opened(), opened + 1);
    // What somebody has looked up and found to be the answer is so for all who ask the same; the others are as late as is allowed.
    assert_eq!(fixture.number(SUM).await, (Hit, 6));
    assert_eq!(fixture.number("SELECT sum(x.id) AS s FROM numbers x").await, (Miss, 30));
    assert_eq!(fixture.number(SUM).await, (Hit, 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_interval_each_statement_looks_up() {
    let fixture = Fixture::new("cache.check = \"0s\"\n");
    assert_eq!(fixture.number(SUM).await, (Miss, 6));
    let opened = fixture.opened();
    assert_eq!(fixture.number(SUM).await, (Hit, 6));
    assert_eq!(fixture.opened(), opened + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_can_want_what_is_so_now() {
    let fixture = Fixture::new(HOUR);
    for (control, sum, later) in [("max-age=0", 1, 1), ("no-cache", 2, 2), ("no-store", 3, 2)] {
        fixture.run(SUM).await.unwrap();
        assert_eq!(fixture.run(SUM).await.unwrap().0, Hit);
        fixture.source.put("numbers", numbers(&[sum]));
        // It is not out of date as yet.
        assert_eq!(asked(&fixture, SUM, &[("cache", "max-stale=0")]).await.unwrap().0, Hit);
        let (cache, rows) = asked(&fixture, SUM, &[("cache", control)]).await.unwrap();
        assert_ne!(cache, Hit, "{control}");
        assert!(rows.contains(&format!("| {sum} |")), "{control}: {rows}");
        // What was not kept changes nothing for who takes what is.
        assert_eq!(fixture.number(SUM).await, (Hit, later), "{control}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_through_the_gateway_is_seen_at_once() {
    let catalogs = "[catalogs.test]\nkind = \"memory\"\n[catalogs.kept]\nkind = \"memory\"\nwritable = true\n";
    let fixture = Fixture::new(&format!("{HOUR}defaults.catalog = \"kept\"\n{catalogs}"));
    let sum = "SELECT coalesce(sum(n), 0) AS s FROM t";
    fixture.run("CREATE TABLE t AS SELECT 1 AS n").await.unwrap();
    for (write, wanted) in [("INSERT INTO t VALUES (41)", 42), ("UPDATE t SET n = 2", 4), ("DELETE FROM t WHERE n = 2", 0)] {
        let before = fixture.number(sum).await.1;
        assert_eq!(fixture.number(sum).await, (Hit, before));
        fixture.run(write).await.unwrap();
        assert_eq!(fixture.number(sum).await, (Miss, wanted), "{write}");
    }
    fixture.run("DROP TABLE t").await.unwrap();
    assert_eq!(fixture.error(sum).await.kind(), Kind::NotFound);
    fixture.run("CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
    assert_eq!(fixture.number(sum).await, (Miss, 7));
}

/// A source that carries a write out when it may, whoever waits for that.
#[derive(Debug, Default)]
struct Late {
    tables: Arc<Counted>,
    begun: Notify,
    may: Arc<Notify>,
    done: Arc<Notify>,
}

static LATE: Spec = Spec {
    kind: "late",
    summary: "writes when it may",
    options: &[],
    capabilities: Capabilities { versions: true, append: true, ..Capabilities::NONE },
    proof: Proof::Untested,
    docs: "",
    open: |_| Err(Error::unsupported("only made in tests")),
};

#[async_trait]
impl Source for Late {
    fn spec(&self) -> &'static Spec {
        &LATE
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        self.tables.ping(cx).await
    }

    async fn schemas(&self, cx: &Context) -> Result<Vec<String>> {
        self.tables.schemas(cx).await
    }

    async fn tables(&self, cx: &Context, schema: &str) -> Result<Vec<TableEntry>> {
        self.tables.tables(cx, schema).await
    }

    async fn table(&self, cx: &Context, schema: &str, table: &str) -> Result<Resolved> {
        self.tables.table(cx, schema, table).await
    }

    async fn ingest(&self, cx: &Context, _target: &Target, _rows: SendableRecordBatchStream) -> Result<u64> {
        let (tables, may, done, held) =
            (Arc::clone(&self.tables), Arc::clone(&self.may), Arc::clone(&self.done), cx.held.clone().unwrap());
        let write = tokio::spawn(async move {
            may.notified().await;
            tables.put("numbers", numbers(&[42]));
            let held_by_others = Arc::downgrade(&held);
            drop(held);
            while held_by_others.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
            done.notify_one();
        });
        self.begun.notify_one();
        write.await.map(|()| 1).map_err(|_| Error::internal("it broke off"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_left_is_seen_when_it_is_carried_out() {
    let fixture = Fixture::new(HOUR);
    let late = Arc::new(Late { tables: Arc::clone(&fixture.source), ..Late::default() });
    fixture.gateway.catalogs.register("test", Arc::clone(&late) as _);
    fixture.gateway.catalogs.allow_writes("test");
    let query = fixture.query("INSERT INTO numbers VALUES (4, 'n4')");
    let (execute, cancel) = (Arc::clone(&fixture.gateway.execute), query.cx.cancel.clone());
    let write = tokio::spawn(async move { execute.execute(query).await.map(|_| ()) });
    late.begun.notified().await;
    cancel.cancel();
    assert_eq!(write.await.unwrap().unwrap_err().kind(), Kind::Cancelled);
    // What is read between that and the commit is kept until then.
    while fixture.number(SUM).await != (Hit, 6) {
        tokio::task::yield_now().await;
    }
    late.may.notify_one();
    late.done.notified().await;
    assert_eq!(fixture.number(SUM).await, (Miss, 42));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_looked_up_again() {
    let fixture = Fixture::new(HOUR);
    fixture.run(SUM).await.unwrap();
    fixture.source.put("numbers", numbers(&[10, 20]));
    fixture.run("CALL system.invalidate('test.main.numbers')").await.unwrap();
    assert_eq!(fixture.number(SUM).await, (Miss, 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_table_is_of_its_session_alone() {
    let fixture = Fixture::new(HOUR);
    fixture.run(SUM).await.unwrap();
    let session = fixture.gateway.sessions.start();
    let run = async |statement: &str| {
        let query = Query { session: session.clone(), session_lasts: true, ..fixture.query(statement) };
        shown(fixture.gateway.execute.execute(query).await.unwrap()).await.unwrap()
    };
    assert_eq!(run(SUM).await.0, Hit);
    run("CREATE TEMPORARY TABLE numbers AS SELECT 99 AS id").await;
    for _ in 0..2 {
        assert!(run(SUM).await.1.contains("| 99 |"));
    }
    assert_eq!(fixture.number(SUM).await.1, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_unknown_version_is_looked_up_each_time() {
    let fixture = Fixture::new("cache.check = \"1h\"\n[catalogs.test]\nkind = \"memory\"\nttl = \"1h\"\n");
    let statement = "SELECT * FROM changing";
    assert_eq!(fixture.run(statement).await.unwrap().0, Miss);
    let opened = fixture.opened();
    assert_eq!(fixture.run(statement).await.unwrap().0, Hit);
    assert_eq!(fixture.opened(), opened + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_values_are_read_from_the_tables_of_now() {
    let fixture = Fixture::new(HOUR);
    let of = async |id: i64| {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![id]));
        let values = RecordBatch::try_from_iter([("1", values)]).unwrap();
        let query = Query { parameters: Some(values), ..fixture.query("SELECT name FROM numbers WHERE id = $1") };
        shown(fixture.gateway.execute.execute(query).await.unwrap()).await.unwrap()
    };
    let (cache, rows) = of(1).await;
    assert_eq!((cache, rows.contains("n1")), (Miss, true));
    fixture.source.put("numbers", numbers(&[1, 4]));
    assert_eq!(of(1).await, (Hit, rows));
    let (cache, rows) = of(4).await;
    assert_eq!((cache, rows.contains("n4")), (Miss, true), "{rows}");
    // Of other columns too: the plan that was made over the old ones is no good any more.
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![5]));
    let columns: [(&str, ArrayRef); 2] = [("name", Arc::new(StringArray::from(vec!["new"]))), ("id", ids)];
    fixture.source.put("numbers", RecordBatch::try_from_iter(columns).unwrap());
    let (cache, rows) = of(5).await;
    assert_eq!((cache, rows.contains("new")), (Miss, true), "{rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_for_how_long_it_may_be_out_of_date() {
    let fixture = Fixture::new(HOUR);
    let bound = async || {
        let answer = fixture.execute(SUM).await.unwrap();
        let bound = answer.cache.bound;
        shown(answer).await.unwrap();
        bound
    };
    assert_eq!(bound().await, None);
    let (first, second) = (bound().await.unwrap(), bound().await.unwrap());
    assert!(first < second && second < Duration::from_secs(3_600), "{first:?} {second:?}");
    let explained = fixture.rows("EXPLAIN SELECT sum(id) AS s FROM numbers").await;
    assert!(explained.contains("hit, out of date by 1h at most"), "{explained}");
}
