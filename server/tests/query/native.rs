//! Statements in a source's own SQL: `native('catalog', 'statement')` in FROM.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;
use nexus_flight_catalog::{Capabilities, Context, Error, Kind, Place, Proof, Resolved, Result, Source, Spec, TableEntry};
use nexus_server::query::CacheUse::Bypass;
use nexus_server::touched::{Tell, told};

use crate::fixture::{Fixture, numbers, shown};

/// A source whose own SQL is one word, and which counts what is asked of it.
#[derive(Debug, Default)]
pub(crate) struct Native {
    described: AtomicUsize,
    queried: AtomicUsize,
}

/// A word of it that would clear a terminal.
const STEERING: &str = "numbers\u{1b}[2J\r\n\t again";

static SPEC: Spec = Spec {
    kind: "native",
    summary: "takes words for statements of its own",
    options: &[],
    capabilities: Capabilities { native: true, ..Capabilities::NONE },
    proof: Proof::Untested,
    docs: "",
    open: |_| Err(Error::unsupported("only made in tests")),
};

impl Native {
    /// How many statements it was asked to describe and to run.
    pub(crate) fn asked(&self) -> (usize, usize) {
        (self.described.load(Ordering::Relaxed), self.queried.load(Ordering::Relaxed))
    }
}

#[async_trait]
impl Source for Native {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    async fn ping(&self, _cx: &Context) -> Result<()> {
        Ok(())
    }

    async fn schemas(&self, _cx: &Context) -> Result<Vec<String>> {
        Ok(vec!["main".to_owned()])
    }

    async fn tables(&self, _cx: &Context, _schema: &str) -> Result<Vec<TableEntry>> {
        Ok(Vec::new())
    }

    async fn table(&self, _cx: &Context, _schema: &str, _table: &str) -> Result<Resolved> {
        Err(Error::not_found("not there"))
    }

    async fn native_describe(&self, _cx: &Context, sql: &str) -> Result<SchemaRef> {
        self.described.fetch_add(1, Ordering::Relaxed);
        match sql {
            "numbers" | "changing" | "hungry" | "broken" | STEERING => Ok(numbers(&[]).schema()),
            _ => Err(Error::invalid("no such word").with_hint("write numbers").at(Place::Statement { line: 1, column: 3 })),
        }
    }

    async fn native_query(&self, cx: &Context, sql: &str) -> Result<SendableRecordBatchStream> {
        self.queried.fetch_add(1, Ordering::Relaxed);
        let rows = match sql {
            "changing" => {
                let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
                RecordBatch::try_from_iter([("other", column)])?
            }
            "hungry" => {
                MemoryConsumer::new("native").register(&cx.memory).try_grow(1 << 50)?;
                numbers(&[1])
            }
            _ => numbers(&[1, 2, 3]),
        };
        let schema = rows.schema();
        let broken = (sql == "broken").then(|| Err(DataFusionError::from(Error::data("row 4 is cut off"))));
        let rows = stream::iter([Ok(rows)].into_iter().chain(broken));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

/// A gateway with such a source as the catalog `w`.
fn with_native(settings: &str) -> (Fixture, Arc<Native>) {
    let (fixture, source) = (Fixture::new(settings), Arc::new(Native::default()));
    fixture.gateway.catalogs.register("w", Arc::clone(&source) as _);
    (fixture, source)
}

#[tokio::test(flavor = "multi_thread")]
async fn its_rows_are_those_of_a_table_wherever_it_stands() {
    let (fixture, _) = with_native("");
    let wanted = fixture.rows("SELECT * FROM numbers ORDER BY id").await;
    for statement in [
        "SELECT * FROM native('w', 'numbers') ORDER BY id",
        "SELECT native.id, native.name FROM NATIVE('w', $$numbers$$) ORDER BY native.id",
        "SELECT n.* FROM \"native\"('w', E'numbers') AS n ORDER BY n.id",
        "SELECT a AS id, b AS name FROM native('w', 'numbers') AS n (a, b) ORDER BY a",
        "SELECT * FROM (SELECT * FROM native('w', 'numbers')) AS s ORDER BY id",
        "WITH c AS (SELECT * FROM native('w', 'numbers')) SELECT * FROM c ORDER BY id",
        "WITH native AS (SELECT 7 AS id) SELECT * FROM native('w', 'numbers') ORDER BY id",
        "SELECT a.id, b.name FROM native('w', 'numbers') a JOIN native('w', 'numbers') b ON a.id = b.id ORDER BY a.id",
        "SELECT n.* FROM native('w', 'numbers') n JOIN numbers t ON n.id = t.id ORDER BY n.id",
        "SELECT * FROM numbers WHERE id IN (SELECT id FROM native('w', 'numbers')) ORDER BY id",
        "SELECT * FROM native('w', 'numbers') WHERE id < 2 UNION ALL SELECT * FROM numbers WHERE id > 1 ORDER BY id",
    ] {
        assert_eq!(fixture.rows(statement).await, wanted, "{statement}");
    }
    let count = fixture.rows("SELECT count(*) AS c FROM native('w', 'numbers')").await;
    assert!(count.contains("| 3 |"), "{count}");
    let one = fixture.rows("SELECT name FROM native('w', 'numbers') WHERE id > 1 ORDER BY id LIMIT 1").await;
    assert!(one.contains("n2") && !one.contains("n1") && !one.contains("n3"), "{one}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_only_as_its_rows_are_read() {
    let (fixture, source) = with_native("");
    let statement = "SELECT name FROM native('w', 'numbers')";
    let described = fixture.gateway.execute.describe(&fixture.query(statement)).await.unwrap();
    assert_eq!((described.schema.fields().len(), described.is_update), (1, false));
    let explained = fixture.rows(&format!("EXPLAIN {statement}")).await;
    for part in [
        "NativeScan: catalog=w, sql=numbers",
        "w.native().1: native, of unknown version",
        "bypass: a function may give another value each time",
    ] {
        assert!(explained.contains(part), "no {part} in\n{explained}");
    }
    assert_eq!(source.asked(), (2, 0));
    let explained = fixture.rows(&format!("EXPLAIN ANALYZE {statement}")).await;
    assert!(explained.contains("output_rows=3"), "{explained}");
    assert_eq!(source.asked(), (3, 1));
    let explained = fixture.rows(&format!("EXPLAIN SELECT name FROM native('w', '{STEERING}')")).await;
    assert!(explained.contains("sql=numbers [2J again") && !explained.contains('\u{1b}'), "{explained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_answer_is_never_kept_and_its_plan_is() {
    let (fixture, source) = with_native("defaults.catalog = \"test\"\n[catalogs.w]\nkind = \"memory\"\nttl = \"1h\"\n");
    let statement = "SELECT id FROM native('w', 'numbers')";
    for _ in 0..2 {
        assert_eq!(fixture.run(statement).await.unwrap().0, Bypass);
    }
    // What it reads is looked up each time, as of a table.
    assert_eq!(source.asked(), (2, 2));
    assert!(fixture.gateway.planner.has(&fixture.query(statement)));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_bound_around_it() {
    let (fixture, _) = with_native("");
    for (value, wanted) in [(2, "n2"), (3, "n3")] {
        let mut query = fixture.query("SELECT name FROM native('w', 'numbers') WHERE id = ?");
        let described = fixture.gateway.execute.describe(&query).await.unwrap();
        assert_eq!(described.parameters.fields().len(), 1);
        let column: ArrayRef = Arc::new(Int64Array::from(vec![value]));
        query.parameters = Some(RecordBatch::try_from_iter([("$1", column)]).unwrap());
        let (_, rows) = shown(fixture.gateway.execute.execute(query).await.unwrap()).await.unwrap();
        assert!(rows.contains(wanted) && rows.matches("| n").count() == 2, "{rows}");
    }
    let error = fixture.error("SELECT * FROM native('w', $1)").await;
    assert!(error.message().starts_with("native takes no parameters"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_told() {
    let (fixture, source) = with_native("");
    let mut told = Vec::new();
    for (call, kind) in [
        ("native('v', 'numbers')", Kind::NotFound),
        ("native('W', 'numbers')", Kind::NotFound),
        ("native('test', 'numbers')", Kind::Unsupported),
        ("native('w', 'SELECT 1')", Kind::Invalid),
        ("native('w', 'changing')", Kind::Precondition),
        ("native('w', 'broken')", Kind::Data),
        ("native('w')", Kind::Invalid),
        // A name that plans have for it is none that a statement could write.
        ("w.\"native()\".\"1\"", Kind::NotFound),
    ] {
        let error = fixture.error(&format!("SELECT * FROM {call}")).await;
        assert_eq!(error.kind(), kind, "{call}: {error}");
        told.push(error.to_string());
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    catalog "v" does not exist; there are "system", "test", "w"
    catalog "W" does not exist; did you mean "w"?
    a catalog of kind "counted" does not offer native statements; the table of capabilities in the connector reference says what each kind offers
    in the statement for "w", line 1, column 3: no such word; write numbers
    the statement for "w" gives other columns than it did a moment ago; send the statement again
    row 4 is cut off
    line 1, column 15: native takes two arguments: a catalog, and a statement in its own SQL; write native('catalog', 'SELECT …'), or $$SELECT …$$ where it has quotes of its own
    schema "w.native()" does not exist; there are "main"
    "#);
    // Where it takes memory, it is that of the statement's user.
    assert_eq!(fixture.error("SELECT * FROM native('w', 'hungry')").await.kind(), Kind::Exhausted);
    let before = source.asked();
    for statement in ["DELETE FROM native('w', 'numbers')", "UPDATE native('w', 'numbers') SET id = 1"] {
        assert_eq!(fixture.error(statement).await.kind(), Kind::Unsupported, "{statement}");
    }
    assert_eq!(source.asked(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_by_the_name_that_plans_have_for_it() {
    let (fixture, source) = with_native("");
    for statement in [
        "INSERT INTO w.\"native()\".\"1\" SELECT * FROM native('w', 'numbers')",
        "DELETE FROM w.\"native()\".\"1\" WHERE id IN (SELECT id FROM native('w', 'numbers'))",
        "UPDATE w.\"native()\".\"1\" SET name = 'x' WHERE id IN (SELECT id FROM native('w', 'numbers'))",
        "CREATE TABLE w.\"native()\".\"2\" AS SELECT * FROM native('w', 'numbers')",
    ] {
        let error = fixture.error(statement).await;
        let wanted = "schema \"w.native()\" does not exist; the rows of native cannot be changed: name the table itself";
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::NotFound, wanted), "{statement}");
    }
    assert_eq!(source.asked().1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_says_which_catalog_was_asked_and_not_what() {
    let (fixture, _) = with_native("");
    let mut query = fixture.query("SELECT id FROM native('w', 'numbers') JOIN numbers USING (id)");
    query.touched = Some(Arc::default());
    let telling = query.touched.clone();
    let planned = fixture.gateway.planner.plan(query).await.unwrap().unwrap();
    assert_eq!(planned.catalogs(), BTreeSet::from(["test", "w"]));
    Tell::of(&planned).reads("datafusion", &planned.plan).unwrap();
    let both = || BTreeSet::from(["id".to_owned(), "name".to_owned()]);
    let wanted = BTreeMap::from([("test.main.numbers".to_owned(), both()), ("w.native().1".to_owned(), both())]);
    assert_eq!(*told(&telling).reads, wanted);
}
