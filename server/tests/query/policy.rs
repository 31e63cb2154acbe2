//! Who sees and changes what: random policies against an oracle of its own, restricted tables against copies of what they show,
//! what is denied against what is missing, and rules that cannot hold.

mod copies;
mod entries;
mod kept;
mod misfits;
mod missing;
mod native;
mod oracle;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use datafusion::common::TableReference;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::prelude::SessionContext;
use datafusion_substrait::logical_plan::producer::to_substrait_plan;
use futures::StreamExt;
use nexus_flight_catalog::policy::{Action, Policies, Policy, PolicyText, RuleText};
use nexus_flight_catalog::quantity::Size;
use nexus_flight_catalog::{Error, ForeignKey, IfExists, IfMissing, Keys, Kind, Principal};
use nexus_server::config::Config;
use nexus_server::flight::service::Service;
use nexus_server::http::sql;
use nexus_server::query::{CacheUse, Ingest, Query};
use nexus_server::serve;
use nexus_server::wire::connection::Peer;
use nexus_server::wire::seat::Seat;
use nexus_sources::memory::MemorySource;
use prost::Message;
use tokio::sync::Semaphore;
use tonic::Request;
use tonic::codegen::Service as _;

use crate::fixture::{Fixture, shown};

/// Random numbers of a seed.
struct Dice(u64);

impl Dice {
    /// Below a bound. The steps are those of a linear congruential generator (Knuth, MMIX).
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    fn is(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A gateway whose catalogs `a` and `b` are governed, with the tables `t` and `u` of the columns x, y and z in each: x is the key of
/// either, and z refers to that of the other one.
struct Governed {
    fixture: Fixture,
    policies: Arc<Policies>,
    /// Flight SQL as those meet it who have come in.
    service: Service,
}

fn set<const N: usize>(items: [&str; N]) -> BTreeSet<String> {
    items.map(str::to_owned).into()
}

/// The rule of who makes the tables.
fn of_root() -> RuleText {
    let allow = [Action::Read, Action::Write].into();
    RuleText { users: Some(set(["root"])), tables: vec!["*.*.*".to_owned()], allow, ..RuleText::default() }
}

impl Governed {
    async fn new() -> Self {
        Self::with("").await
    }

    async fn with(settings: &str) -> Self {
        let fixture = Fixture::new(settings);
        let policy = Policy::new(PolicyText { rules: vec![of_root()], ..PolicyText::default() }).unwrap();
        let policies = Arc::new(Policies::new(policy, fixture.gateway.planner.expressions(), false).unwrap());
        fixture.gateway.catalogs.govern(Arc::clone(&policies));
        for catalog in ["a", "b"] {
            let memory = MemorySource::of_size(Size(16 << 20));
            for (table, other) in [("t", "u"), ("u", "t")] {
                memory.insert("main", table, vec![rows()], keys(other)).unwrap();
            }
            fixture.gateway.catalogs.register(catalog, Arc::new(memory));
            fixture.gateway.catalogs.allow_writes(catalog);
        }
        let config = Config::parse("[catalogs.test]\nkind = \"memory\"\n", Path::new("nexus.toml"), &|_| None).unwrap();
        let service = serve::service(&config, &fixture.gateway);
        Self { fixture, policies, service }
    }

    fn rules(&self, rules: Vec<RuleText>) {
        let groups = BTreeMap::from([("staff".to_owned(), set(["ann", "bob"])), ("guests".to_owned(), set(["bob", "cid"]))]);
        let rules = std::iter::once(of_root()).chain(rules).collect();
        self.policies.replace(Policy::new(PolicyText { groups, rules }).unwrap()).unwrap();
    }

    fn query(&self, who: &str, statement: &str) -> Query {
        let mut query = self.fixture.query(statement);
        query.cx.principal = Principal(who.into());
        query
    }

    async fn ask(&self, who: &str, statement: &str) -> Result<(CacheUse, String), Error> {
        self.answer(self.query(who, statement)).await
    }

    /// A message of somebody who has come in.
    fn call<T>(who: &str, message: T) -> Request<T> {
        let mut call = Request::new(message);
        call.extensions_mut().insert(Principal(who.into()));
        call
    }

    async fn run(&self, who: &str, statement: &str) -> Result<String, Error> {
        self.ask(who, statement).await.map(|(_, rows)| rows)
    }

    async fn answer(&self, query: Query) -> Result<(CacheUse, String), Error> {
        shown(self.fixture.gateway.execute.execute(query).await?).await
    }

    /// Appends no rows to a table, as clients ingest.
    async fn ingest(&self, who: &str, table: &str) -> Result<(), Error> {
        let mut query = self.query(who, "INGEST");
        (query.session.catalog, query.session.schema) = (table[..1].to_owned(), "main".to_owned());
        query.ingest = Some(Arc::new(no_rows(&table[7..])));
        self.answer(query).await.map(|_| ())
    }

    /// All of a table, by a plan.
    async fn substrait(&self, who: &str, table: &str) -> Result<String, Error> {
        let mut query = self.query(who, "SUBSTRAIT");
        query.substrait = Some(plan_of(table).await);
        self.answer(query).await.map(|(_, rows)| rows)
    }

    /// A statement over HTTP, of somebody who has come in: the status and the body.
    async fn http(&self, who: &str, statement: &str) -> (StatusCode, String) {
        let seat = Seat::new(Arc::new(Semaphore::new(1)));
        let peer = Peer { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), certificate: None, seat };
        let (gateway, principal) = (Arc::clone(&self.fixture.gateway), Principal(who.into()));
        let request = axum::http::Request::post("/v1/sql").extension(principal).extension(peer);
        let request = request.body(Body::from(statement.to_owned())).unwrap();
        let answer = sql::pages().with_state(gateway).call(request).await.unwrap();
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

const TABLES: [&str; 4] = ["a.main.t", "a.main.u", "b.main.t", "b.main.u"];
const COLUMNS: [&str; 3] = ["x", "y", "z"];
const PEOPLE: [&str; 4] = ["ann", "bob", "cid", "dan"];

/// No rows for a table, as a client ingests them.
fn no_rows(table: &str) -> Ingest {
    Ingest::new(table.to_owned(), IfMissing::Fail, IfExists::Append, schema(), futures::stream::empty().boxed())
}

/// All of a table as a serialised `substrait.Plan`, which names all its columns.
async fn plan_of(table: &str) -> Arc<[u8]> {
    let context = SessionContext::new();
    let source = provider_as_source(Arc::new(EmptyTable::new(schema())));
    let reference = TableReference::full(&table[..1], "main", &table[7..]);
    let plan = LogicalPlanBuilder::scan(reference, source, None).unwrap().build().unwrap();
    to_substrait_plan(&plan, &context.state()).unwrap().encode_to_vec().into()
}

/// That of the tables.
fn schema() -> SchemaRef {
    let fields = [("x", DataType::Int64), ("y", DataType::Utf8), ("z", DataType::Int64)];
    Arc::new(Schema::new(fields.map(|(name, of)| Field::new(name, of, true)).to_vec()))
}

/// Those of each table.
fn rows() -> RecordBatch {
    let x = Int64Array::from(vec![1, 2, 3, 4, 5]);
    let y = StringArray::from(vec![Some("one"), Some("two"), None, Some("four"), Some("5")]);
    let z = Int64Array::from(vec![Some(10), Some(20), Some(0), None, Some(50)]);
    RecordBatch::try_new(schema(), vec![Arc::new(x), Arc::new(y), Arc::new(z)]).unwrap()
}

/// Those of a table that refers to another one.
fn keys(other: &str) -> Keys {
    let (columns, referenced) = (vec!["z".to_owned()], vec!["x".to_owned()]);
    let foreign = ForeignKey { columns, schema: "main".to_owned(), table: other.to_owned(), referenced };
    Keys { primary: vec!["x".to_owned()], foreign: vec![foreign] }
}

/// What `cid` sees of `a.main.t`.
fn restricted() -> RuleText {
    RuleText {
        users: Some(set(["cid"])),
        tables: vec!["a.main.t".to_owned()],
        allow: [Action::Read, Action::Write].into(),
        filter: Some("x <> 2 AND z IS DISTINCT FROM 0".to_owned()),
        masks: BTreeMap::from([("y".to_owned(), "upper(left(y, 1)) || '*'".to_owned())]),
        ..RuleText::default()
    }
}

/// Between the planning of a statement and its turn the policy may change, and the rows that were planned with stay.
#[tokio::test(flavor = "multi_thread")]
async fn who_sees_a_part_is_refused_before_it_is_their_turn() {
    let governed = Governed::with("[limits]\nconcurrency = 1\nqueue = 1\nqueue_wait = \"20ms\"\n").await;
    governed.rules(vec![restricted()]);
    let mut running = governed.fixture.gateway.execute.execute(governed.query("root", "SELECT * FROM endless")).await.unwrap();
    running.batches.next().await.unwrap().unwrap();
    for statement in ["UPDATE a.main.t SET z = 1 WHERE x = 1", "DELETE FROM a.main.t WHERE x = 1"] {
        let error = governed.run("cid", statement).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{statement}: {error}");
    }
    let error = governed.run("cid", "SELECT x FROM a.main.t").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_the_cache_tell_nothing_of_what_is_hidden() {
    let governed = Governed::new().await;
    let of_all = RuleText { users: None, ..restricted() };
    governed.rules(vec![of_all]);
    let explained = governed.run("cid", "EXPLAIN SELECT x FROM a.main.t").await.unwrap();
    assert!(explained.contains("in a version that is not told"), "{explained}");
    let asked = "SELECT x FROM a.main.t WHERE x = 4";
    let uses = [governed.ask("cid", asked).await, governed.ask("cid", asked).await, governed.ask("ann", asked).await];
    assert_eq!(uses.map(|answer| answer.unwrap().0), [CacheUse::Miss, CacheUse::Hit, CacheUse::Miss]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_a_part_may_append_and_no_more() {
    let governed = Governed::new().await;
    governed.rules(vec![restricted()]);
    governed.run("cid", "INSERT INTO a.main.t VALUES (6, 'six', 60)").await.unwrap();
    for refused in [
        "UPDATE a.main.t SET z = 1",
        "DELETE FROM a.main.t",
        "DELETE FROM a.main.t WHERE x = 1",
        "DROP TABLE a.main.t",
        "CREATE OR REPLACE TABLE a.main.t AS SELECT 1 AS x",
    ] {
        let error = governed.run("cid", refused).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Denied | Kind::Unsupported), "{refused}: {error}");
    }
    assert!(governed.run("root", "SELECT count(*) AS c FROM a.main.t").await.unwrap().contains("| 6 |"));
}

/// They never run themselves: the optimizer of statements puts others in their place.
#[tokio::test(flavor = "multi_thread")]
async fn functions_that_are_planned_away_are_fit_for_a_policy() {
    let governed = Governed::new().await;
    for filter in [
        "coalesce(x, 0) > 1",
        "ifnull(x, 0) > 1",
        "x > 1 AND now() > TIMESTAMP '2020-01-01'",
        "x > 1 AND current_date > DATE '2020-01-01'",
        "arrow_cast(x, 'Int64') > 1",
        // What fails for this user is not asked for this user.
        "CASE WHEN $user LIKE 'c%' THEN x > 1 ELSE x = CAST($user AS BIGINT) END",
    ] {
        let masks = BTreeMap::from([("y".to_owned(), "coalesce(y, '?')".to_owned())]);
        governed.rules(vec![RuleText { filter: Some(filter.to_owned()), masks, ..restricted() }]);
        let found = governed.run("cid", "SELECT count(*) AS c, count(y) AS n FROM a.main.t").await;
        assert!(found.as_ref().is_ok_and(|found| found.contains("| 4 | 4 |")), "{filter}: {found:?}");
    }
}

/// A client sets the zone of its own statements.
#[tokio::test(flavor = "multi_thread")]
async fn today_is_that_of_the_policy_wherever_a_client_says_it_is() {
    let governed = Governed::new().await;
    let filter = "current_date = CAST(now() AS DATE) AND to_unixtime('2020-01-01T00:00:00') = 1577836800".to_owned();
    governed.rules(vec![RuleText { filter: Some(filter), ..restricted() }]);
    for zone in ["+23:59", "-23:59"] {
        let mut query = governed.query("cid", "SELECT count(*) AS c FROM a.main.t");
        query.session.options.time_zone = Some(zone.to_owned());
        let found = governed.answer(query).await;
        assert!(found.as_ref().is_ok_and(|(_, found)| found.contains("| 5 |")), "{zone}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_over_a_part_are_kept_for_who_asked() {
    let governed = Governed::new().await;
    let see = |who: &str, filter: Option<&str>, mask: Option<&str>| RuleText {
        users: Some(set([who])),
        tables: vec!["a.main.t".to_owned()],
        allow: [Action::Read].into(),
        filter: filter.map(str::to_owned),
        masks: mask.map(|mask| ("y".to_owned(), mask.to_owned())).into_iter().collect(),
        ..RuleText::default()
    };
    governed.rules(vec![
        see("ann", Some("x < 3"), None),
        see("bob", Some("x < 3"), None),
        see("cid", Some("x < 4"), None),
        see("dan", Some("y = $user OR random() < 2"), Some("'?'")),
    ]);
    let statement = "SELECT x, y FROM a.main.t ORDER BY x";
    let mut answers = Vec::new();
    for (who, wanted) in [
        ("root", CacheUse::Miss),
        ("ann", CacheUse::Miss),
        ("bob", CacheUse::Miss),
        ("ann", CacheUse::Hit),
        ("cid", CacheUse::Miss),
        ("dan", CacheUse::Bypass),
        ("root", CacheUse::Hit),
    ] {
        let (cache, rows) = governed.ask(who, statement).await.unwrap();
        assert_eq!(cache, wanted, "{who}");
        answers.push(rows.lines().count() - 4);
    }
    assert_eq!(answers, [5, 2, 2, 2, 3, 5, 5]);
    // Another policy takes at once, whatever is kept.
    governed.rules(vec![see("ann", Some("x < 2"), None)]);
    assert_eq!(governed.run("ann", statement).await.unwrap().lines().count(), 5);
    assert_eq!(governed.run("bob", statement).await.unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn what_is_wrong_with_a_policy_is_said() {
    let wrong = |rule: RuleText| Policy::new(PolicyText { rules: vec![rule], ..PolicyText::default() }).unwrap_err().to_string();
    let read = || RuleText { tables: vec!["a.b.c".to_owned()], allow: [Action::Read].into(), ..RuleText::default() };
    insta::assert_snapshot!(wrong(RuleText { tables: vec![], ..read() }), @r#"rule 1: it names no tables; write tables = ["*.*.*"] for all of them"#);
    insta::assert_snapshot!(wrong(RuleText { tables: vec!["a.b".to_owned()], ..read() }), @r#"rule 1: "a.b" is not of the form catalog.schema.table"#);
    insta::assert_snapshot!(wrong(RuleText { groups: Some(set(["staff"])), ..read() }), @r#"rule 1: there is no group "staff"; list its members under [groups]"#);
    insta::assert_snapshot!(wrong(RuleText { allow: BTreeSet::new(), filter: Some("x".to_owned()), ..read() }), @r#"rule 1: a filter or a mask is of no use where reading is not allowed; add allow = ["read"]"#);
    let masks = BTreeMap::from([("y".to_owned(), "NULL".to_owned())]);
    insta::assert_snapshot!(wrong(RuleText { columns: Some(set(["x"])), masks, ..read() }), @r#"rule 1: it masks "y", which is not one of its columns"#);
}
