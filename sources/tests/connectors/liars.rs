//! The conformance suite finds sources that promise what they do not keep, and those that hide what they do.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use nexus_flight_catalog::conformance::{Fixture, check, seed, types};
use nexus_flight_catalog::{
    Capabilities, Context, Keys, Resolved, Result, Source, Spec, TableEntry, Target, Transaction, Version,
};
use nexus_sources::memory::{MemorySource, SPEC};

/// The memory source with one thing wrong.
#[derive(Debug)]
struct Liar {
    inner: Arc<MemorySource>,
    spec: &'static Spec,
    lie: Lie,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    /// Says the truth but for its declaration.
    Declaration,
    DropsRows,
    /// Applies the limit before the filter that it took.
    LimitBeforeFilter,
    /// Takes every filter and applies none.
    IgnoresFilters,
    /// Names one version for all states.
    FixedVersion,
    /// Has its own SQL without saying so.
    HiddenNative,
    /// Takes rows and drops them.
    IngestsNothing,
    /// Keeps the rows that came before their stream broke off.
    KeepsHalf,
    /// Takes no rows.
    RefusesRows,
    /// Stops at a limit without saying so.
    HiddenLimit,
    /// Knows no keys.
    NoKeys,
}

async fn violations(lie: Lie, declare: impl FnOnce(&mut Capabilities)) -> String {
    let mut capabilities = SPEC.capabilities;
    declare(&mut capabilities);
    let spec = Spec { capabilities, options: &[], ..copy() };
    let inner = Arc::new(MemorySource::new());
    for table in seed() {
        inner.insert("main", &table.name, vec![table.batch], table.keys).unwrap();
    }
    let source = Liar { inner: Arc::clone(&inner), spec: Box::leak(Box::new(spec)), lie };
    let mut fixture = Fixture::new(Arc::new(source), "main");
    fixture.mutate = Some(Box::new(move |rows| {
        let keys = Keys { primary: vec!["id".into()], foreign: vec![] };
        inner.insert("main", "types", vec![types(rows)], keys).unwrap();
        Box::pin(async {})
    }));
    check(&fixture).await.err().unwrap_or_default().join("\n")
}

fn copy() -> Spec {
    let Spec { kind, summary, options, capabilities, proof, docs, open } = SPEC_REF;
    Spec { kind, summary, options, capabilities: *capabilities, proof: *proof, docs, open: *open }
}

/// What a liar's Spec claims beyond the truth.
type Declare = fn(&mut Capabilities);

const SPEC_REF: &Spec = &SPEC;

#[tokio::test]
async fn the_truth_passes() {
    assert_eq!(violations(Lie::Declaration, |_| {}).await, "");
}

#[tokio::test]
async fn what_is_declared_and_absent() {
    let found = violations(Lie::NoKeys, |_| {}).await;
    assert!(found.contains("has the keys Keys { primary: [], foreign: [] } and should have"), "{found}");
    let found = violations(Lie::RefusesRows, |it| it.ingest = false).await;
    assert!(found.contains("appending fails"), "{found}");
    let cases: [(Declare, &str); 5] = [
        (|it| it.filters = true, "filters are declared, and the table takes none"),
        (|it| it.limit = true, "limits are declared, and a scan with limit 1 gives all 120 rows"),
        (|it| it.native = true, "a native statement fails"),
        (|it| it.changes = true, "an update fails"),
        (|it| it.append = false, "ingest is declared without append"),
    ];
    for (declare, wanted) in cases {
        let found = violations(Lie::Declaration, declare).await;
        assert!(found.contains(wanted), "{wanted} is not in:\n{found}");
    }
}

#[tokio::test]
async fn what_is_there_and_not_declared() {
    let cases: [(Lie, Declare, &str); 9] = [
        (Lie::HiddenLimit, |_| {}, "limits are not declared, and a scan with limit 1 gives 1 of 120 rows"),
        (Lie::Declaration, |it| it.ingest = false, "making and replacing tables work and are not declared"),
        (Lie::Declaration, |it| it.ingest = false, "dropping tables work and are not declared"),
        (Lie::Declaration, |it| (it.append, it.ingest) = (false, false), "ingest work and are not declared"),
        (Lie::Declaration, |it| it.transactions = false, "transactions work and are not declared"),
        (Lie::Declaration, |it| it.keys = false, "and should have Keys"),
        (Lie::Declaration, |it| it.versions = false, "versions are not declared, and there is Pinned"),
        (Lie::HiddenNative, |_| {}, "native statements work and are not declared"),
        (Lie::IgnoresFilters, |_| {}, "filters are not declared, and the table takes them"),
    ];
    for (lie, declare, wanted) in cases {
        let found = violations(lie, declare).await;
        assert!(found.contains(wanted), "{wanted} is not in:\n{found}");
    }
}

#[tokio::test]
async fn wrong_answers() {
    let cases: [(Lie, Declare, &str); 8] = [
        (Lie::DropsRows, |_| {}, "SELECT count(*) FROM types"),
        (Lie::IgnoresFilters, |it| it.filters = true, "WHERE id = 5 gives 120 rows and should give 1"),
        (
            Lie::LimitBeforeFilter,
            |it| (it.filters, it.limit) = (true, true),
            "SELECT * FROM types WHERE id >= 100 AND small > 0 LIMIT 1 gives",
        ),
        (Lie::FixedVersion, |_| {}, "the rows change and the version does not"),
        (Lie::IngestsNothing, |_| {}, "a table that was made fails"),
        (Lie::KeepsHalf, |_| {}, "rows that break off make a table"),
        (Lie::IngestsNothing, |it| it.ingest = false, "a table that was appended to gives 40 rows and should give 80"),
        (Lie::KeepsHalf, |it| it.ingest = false, "rows that break off are taken"),
    ];
    for (lie, declare, wanted) in cases {
        let found = violations(lie, declare).await;
        assert!(found.contains(wanted), "{wanted} is not in:\n{found}");
    }
}

#[async_trait]
impl Source for Liar {
    fn spec(&self) -> &'static Spec {
        self.spec
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        self.inner.ping(cx).await
    }

    async fn schemas(&self, cx: &Context) -> Result<Vec<String>> {
        self.inner.schemas(cx).await
    }

    async fn tables(&self, cx: &Context, schema: &str) -> Result<Vec<TableEntry>> {
        self.inner.tables(cx, schema).await
    }

    async fn table(&self, cx: &Context, schema: &str, table: &str) -> Result<Resolved> {
        let mut resolved = self.inner.table(cx, schema, table).await?;
        match self.lie {
            Lie::NoKeys => resolved.keys = Keys::default(),
            Lie::DropsRows | Lie::LimitBeforeFilter | Lie::IgnoresFilters | Lie::HiddenLimit => {
                resolved.provider = Arc::new(LyingTable { inner: resolved.provider, lie: self.lie });
            }
            Lie::FixedVersion => resolved.version = Version::Pinned("1".into()),
            Lie::Declaration | Lie::HiddenNative | Lie::IngestsNothing | Lie::KeepsHalf | Lie::RefusesRows => {}
        }
        Ok(resolved)
    }

    async fn native_describe(&self, _cx: &Context, _sql: &str) -> Result<SchemaRef> {
        match self.lie {
            Lie::HiddenNative => Ok(Arc::new(Schema::new(vec![Field::new("1", DataType::Int64, true)]))),
            _ => Err(self.spec.refusal("native statements")),
        }
    }

    async fn ingest(&self, cx: &Context, target: &Target, rows: SendableRecordBatchStream) -> Result<u64> {
        match self.lie {
            Lie::IngestsNothing => Ok(40),
            Lie::RefusesRows => Err(self.spec.ingest_refusal("ingest")),
            Lie::KeepsHalf => {
                let schema = rows.schema();
                let whole = rows.take_while(|batch| std::future::ready(batch.is_ok())).boxed();
                self.inner.ingest(cx, target, Box::pin(RecordBatchStreamAdapter::new(schema, whole))).await
            }
            _ => self.inner.ingest(cx, target, rows).await,
        }
    }

    async fn drop_table(&self, cx: &Context, schema: &str, table: &str) -> Result<()> {
        self.inner.drop_table(cx, schema, table).await
    }

    async fn begin(&self, cx: &Context) -> Result<Arc<dyn Transaction>> {
        self.inner.begin(cx).await
    }
}

#[derive(Debug)]
struct LyingTable {
    inner: Arc<dyn TableProvider>,
    lie: Lie,
}

#[async_trait]
impl TableProvider for LyingTable {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let answer = match self.lie {
            Lie::IgnoresFilters => TableProviderFilterPushDown::Exact,
            Lie::LimitBeforeFilter => TableProviderFilterPushDown::Inexact,
            _ => TableProviderFilterPushDown::Unsupported,
        };
        Ok(vec![answer; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let scan = self.inner.scan(state, projection, filters, None).await?;
        match self.lie {
            // As if a limit were pushed below a filter that is applied above.
            Lie::LimitBeforeFilter => {
                let few = if filters.is_empty() { limit } else { Some(60) };
                Ok(Arc::new(GlobalLimitExec::new(scan, 0, few)))
            }
            Lie::HiddenLimit => Ok(Arc::new(GlobalLimitExec::new(scan, 0, limit))),
            Lie::DropsRows => Ok(Arc::new(GlobalLimitExec::new(scan, 1, None))),
            _ => Ok(scan),
        }
    }
}

/// An empty table is no reason to fail.
#[tokio::test]
async fn an_empty_batch_makes_a_table() {
    let source = MemorySource::new();
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    source.insert("s", "t", vec![RecordBatch::new_empty(Arc::clone(&schema))], Keys::default()).unwrap();
    assert!(source.insert("s", "u", vec![], Keys::default()).is_err());
    let cx = Context::new(nexus_flight_catalog::Principal::anonymous());
    let table = source.table(&cx, "s", "t").await.unwrap();
    assert!(table.provider.as_any().is::<MemTable>());
}
