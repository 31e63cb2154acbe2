//! Engines that do not answer, come back, or are drained: what is asked of them, and what clients and operators are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use nexus_engines::{Engine, Load};
use nexus_flight_catalog::{
    Capabilities, Context, Error, Keys, Kind, Principal, Proof, Resolved, Result, Source, Spec, TableEntry, Version,
};

use crate::fixture::{Fixture, memory, numbers};

/// How long a test waits for what is to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// An engine with the table `main.numbers`.
#[derive(Debug, Default)]
struct Fake {
    /// Whether nobody can reach it.
    is_down: AtomicBool,
    /// Whether what lies behind it cannot be reached, which it says itself.
    is_cut_off: AtomicBool,
    /// Whether it does not let in who asks how it is.
    refuses_probes: AtomicBool,
    asked: AtomicUsize,
    probed: AtomicUsize,
}

static SPEC: Spec = Spec {
    kind: "fake",
    summary: "an engine of the tests",
    options: &[],
    capabilities: Capabilities { native: true, ..Capabilities::NONE },
    proof: Proof::Untested,
    docs: "",
    open: |_| Err(Error::unsupported("only made in tests")),
};

impl Fake {
    fn answers(&self) -> Result<()> {
        match self.is_down.load(Ordering::Relaxed) {
            true => Err(Error::unavailable("fake does not answer")),
            false => Ok(()),
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Source for Fake {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    async fn ping(&self, _cx: &Context) -> Result<()> {
        self.answers()
    }

    async fn schemas(&self, _cx: &Context) -> Result<Vec<String>> {
        self.answers().map(|()| vec!["main".to_owned()])
    }

    async fn tables(&self, _cx: &Context, _schema: &str) -> Result<Vec<TableEntry>> {
        self.answers().map(|()| vec![TableEntry::table("numbers")])
    }

    async fn table(&self, _cx: &Context, _schema: &str, _table: &str) -> Result<Resolved> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.answers()?;
        if self.is_cut_off.load(Ordering::Relaxed) {
            return Err(Error::unavailable("fake: a database does not answer"));
        }
        Ok(Resolved { provider: memory(numbers(&[1, 2])), version: Version::Unknown, keys: Keys::default() })
    }

    async fn native_describe(&self, _cx: &Context, sql: &str) -> Result<SchemaRef> {
        match sql {
            "numbers" => self.answers().map(|()| numbers(&[]).schema()),
            // Nobody has to be asked for that.
            _ => Err(Error::unsupported("that is no query")),
        }
    }

    async fn native_query(&self, _cx: &Context, _sql: &str) -> Result<SendableRecordBatchStream> {
        self.answers()?;
        let rows = numbers(&[1, 2]);
        let schema = rows.schema();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter([Ok(rows)]))))
    }
}

#[async_trait]
impl Engine for Fake {
    async fn describe(&self, _cx: &Context, _sql: &str) -> Result<SchemaRef> {
        Err(Error::unsupported("not in these tests"))
    }

    async fn execute(&self, _cx: &Context, _sql: &str) -> Result<SendableRecordBatchStream> {
        Err(Error::unsupported("not in these tests"))
    }

    async fn cancel(&self, _cx: &Context, _id: &str) -> Result<()> {
        Err(Error::unsupported("not in these tests"))
    }

    async fn health(&self, _cx: &Context) -> Result<()> {
        self.probed.fetch_add(1, Ordering::Relaxed);
        match self.refuses_probes.load(Ordering::Relaxed) {
            true => Err(Error::unauthenticated("who asks?")),
            false => self.answers(),
        }
    }

    async fn load(&self, _cx: &Context) -> Result<Load> {
        self.answers().map(|()| Load { queued: 2, running: 5 })
    }

    async fn catalogs(&self, _cx: &Context) -> Result<Vec<String>> {
        self.answers().map(|()| Vec::new())
    }

    fn version(&self) -> Option<String> {
        Some("7".to_owned())
    }
}

/// A gateway whose catalog `lake` is one of an engine.
fn gateway(settings: &str) -> (Fixture, Arc<Fake>) {
    let fixture = Fixture::new(&format!("[engines]\nfailures = 2\nretry = \"1s\"\n{settings}\n"));
    let fake = Arc::new(Fake::default());
    let source = fixture.gateway.engines.watch("lake", Arc::clone(&fake) as _, Arc::clone(&fake) as _);
    fixture.gateway.catalogs.register("lake", source);
    (fixture, fake)
}

const ASKED: &str = "SELECT count(*) AS n FROM lake.main.numbers";

/// The state of the engine, as its table tells it.
async fn state(fixture: &Fixture) -> String {
    let rows = fixture.rows("SELECT state FROM system.engines WHERE catalog = 'lake'").await;
    rows.lines().nth(3).unwrap().trim_matches(['|', ' ']).to_owned()
}

/// Waits until it is in a state.
async fn until(fixture: &Fixture, wanted: &str) {
    let began = Instant::now();
    while state(fixture).await != wanted {
        assert!(began.elapsed() < PATIENCE, "it is {}, and not {wanted}", state(fixture).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_does_not_answer_is_asked_no_more_until_a_trial() {
    let (fixture, fake) = gateway("probe = \"0s\"");
    assert_eq!((state(&fixture).await.as_str(), fake.asked()), ("unused", 0), "a start asks nothing");
    fixture.rows(ASKED).await;
    assert_eq!(state(&fixture).await, "up");

    fake.is_down.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        assert_eq!(fixture.error(ASKED).await.message(), "fake does not answer");
    }
    until(&fixture, "out").await;
    let asked = fake.asked();
    let error = fixture.error(ASKED).await;
    assert_eq!((error.kind(), error.retryable(), fake.asked()), (Kind::Unavailable, true, asked));
    assert_eq!(error.message(), "the engine of the catalog \"lake\" does not answer");
    let hint = error.hint().unwrap();
    assert!(hint.starts_with("the engine \"lake\" (fake) is out since 2"), "{hint}");
    let outage = fixture.gateway.engines.get("lake").unwrap().outage().unwrap();
    assert!(outage.starts_with("engine \"lake\" (fake) is out since 2"), "{outage}");
    let rows = fixture.rows("SELECT failures >= 3 AS many, version, last_error FROM system.engines").await;
    assert!(rows.contains("| true | 7       | fake does not answer |"), "{rows}");
    // What needs nothing of it is answered.
    fixture.rows("SELECT id FROM numbers").await;

    // After a while one probe decides for all who come meanwhile: none of their statements reaches it as long as that fails.
    let began = Instant::now();
    let probed = fake.probed.load(Ordering::Relaxed);
    while fake.probed.load(Ordering::Relaxed) == probed {
        assert!(began.elapsed() < PATIENCE);
        fixture.error(ASKED).await;
    }
    assert_eq!(fake.asked(), asked);
    fake.is_down.store(false, Ordering::Relaxed);
    while fixture.run(ASKED).await.is_err() {
        assert!(began.elapsed() < PATIENCE);
    }
    assert_eq!(state(&fixture).await, "up");
    assert!(fixture.gateway.engines.get("lake").unwrap().outage().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_alone_find_out_too() {
    let (fixture, fake) = gateway("probe = \"1s\"");
    fixture.rows(ASKED).await;
    fake.is_down.store(true, Ordering::Relaxed);
    until(&fixture, "out").await;
    assert_eq!(fake.asked(), 1);
    fake.is_down.store(false, Ordering::Relaxed);
    until(&fixture, "up").await;
    let began = Instant::now();
    let load = async || fixture.rows("SELECT running, queued FROM system.engines WHERE running IS NOT NULL").await;
    while !load().await.contains("| 5       | 2      |") {
        assert!(began.elapsed() < PATIENCE, "{}", load().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Nobody asks anything of it: how busy it was says nothing any more, and it is not asked how it is.
    while load().await.contains('5') {
        assert!(began.elapsed() < PATIENCE, "{}", load().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let probed = fake.probed.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(fake.probed.load(Ordering::Relaxed), probed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_without_asking_it_is_no_answer_of_it() {
    let (fixture, fake) = gateway("probe = \"0s\"");
    fake.is_down.store(true, Ordering::Relaxed);
    fixture.error(ASKED).await;
    let error = fixture.error("SELECT * FROM native('lake', 'drop')").await;
    assert!(error.message().ends_with("that is no query"), "{error}");
    fixture.error(ASKED).await;
    until(&fixture, "out").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_needs_no_room() {
    let fixture = Fixture::new("[limits]\nconcurrency = 1\nqueue = 0\n");
    let fake = Arc::new(Fake::default());
    let source = fixture.gateway.engines.watch("lake", Arc::clone(&fake) as _, fake);
    fixture.gateway.catalogs.register("lake", source);
    let _running = fixture.execute("SELECT * FROM endless").await.unwrap();
    assert_eq!(fixture.error(ASKED).await.kind(), Kind::Exhausted);
    fixture.rows("CALL system.drain('lake')").await;
    assert!(fixture.gateway.engines.get("lake").unwrap().outage().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_behind_an_engine_does_not_take_it_out() {
    let (fixture, fake) = gateway("probe = \"0s\"");
    fake.is_cut_off.store(true, Ordering::Relaxed);
    for _ in 0..10 {
        assert_eq!(fixture.error(ASKED).await.message(), "fake: a database does not answer");
    }
    let began = Instant::now();
    while fake.probed.load(Ordering::Relaxed) == 0 {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((state(&fixture).await.as_str(), fake.asked()), ("up", 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_refuses_to_say_how_it_is_is_there() {
    let (fixture, fake) = gateway("probe = \"1s\"");
    fake.refuses_probes.store(true, Ordering::Relaxed);
    let began = Instant::now();
    while fake.probed.load(Ordering::Relaxed) < 3 {
        assert!(began.elapsed() < PATIENCE);
        fixture.rows(ASKED).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fixture.rows(ASKED).await;
    assert_eq!(state(&fixture).await, "up");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_drains_an_engine() {
    let (fixture, fake) = gateway("probe = \"0s\"");
    let call = async |what: &str| {
        let rows = fixture.rows(&format!("CALL system.{what}('lake')")).await;
        rows.lines().nth(3).unwrap().trim_matches(['|', ' ']).to_owned()
    };
    let mut under_way = fixture.execute("SELECT id FROM lake.main.numbers").await.unwrap();
    assert_eq!((call("drain").await.as_str(), call("drain").await.as_str()), ("1", "0"));
    let asked = fake.asked();
    let error = fixture.error(ASKED).await;
    assert_eq!((error.kind(), error.retryable(), fake.asked()), (Kind::Unavailable, true, asked));
    assert_eq!(error.message(), "the engine of the catalog \"lake\" takes no new statements");
    assert!(error.hint().unwrap().starts_with("the engine \"lake\" (fake) is drained since 2"), "{error}");
    assert_eq!(state(&fixture).await, "drained");
    assert!(under_way.batches.next().await.unwrap().is_ok(), "what runs goes on");
    // Its rows are read when what is joined with them is there.
    let source = fixture.gateway.catalogs.source(&Principal::anonymous(), "lake").unwrap();
    let cx = Context::new(Principal::anonymous());
    assert_eq!(source.native_describe(&cx, "numbers").await.unwrap_err().kind(), Kind::Unavailable);
    assert!(source.native_query(&cx, "numbers").await.is_ok());

    // Opened anew, as for new secrets, it is drained all the same.
    let again = fixture.gateway.engines.watch("lake", Arc::clone(&fake) as _, Arc::clone(&fake) as _);
    fixture.gateway.catalogs.register("lake", again);
    assert_eq!(state(&fixture).await, "drained");
    assert_eq!((call("undrain").await.as_str(), call("undrain").await.as_str()), ("1", "0"));
    fixture.rows(ASKED).await;
    let error = fixture.error("CALL system.drain('test')").await;
    assert_eq!(error.to_string(), "there is no engine behind a catalog \"test\"; system.engines has those that there are");
}
