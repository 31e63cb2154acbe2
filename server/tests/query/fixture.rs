//! A gateway in this process over a source that counts what is asked of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::MemTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::{TryStreamExt, stream};
use nexus_flight_catalog::{
    Capabilities, Context, Error, Keys, Principal, Proof, Resolved, Result, Source, Spec, TableEntry, Version,
};
use nexus_server::config::{Config, Period};
use nexus_server::gateway::Gateway;
use nexus_server::query::{Answer, CacheUse, Protocol, Query};
use nexus_server::workers::Workers;
use tokio::sync::watch;

/// A running gateway whose catalog `test` is a [`Counted`] source, with that catalog as the default.
pub(crate) struct Fixture {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) source: Arc<Counted>,
}

impl Fixture {
    /// With a few tables in `test.main`: `numbers` (id 1 to 3, name), `other` (id), `endless`, and `changing` of unknown
    /// version. `settings` is more of the configuration; unless it says otherwise, tables are looked up for each statement.
    pub(crate) fn new(settings: &str) -> Self {
        Self::on(settings, Workers::here())
    }

    /// The same with threads for its statements.
    pub(crate) fn on(settings: &str, workers: Workers) -> Self {
        let catalog = if settings.contains("[catalogs.test]") { "" } else { "[catalogs.test]\nkind = \"memory\"\n" };
        let text = format!("{settings}{catalog}");
        let mut config = Config::parse(&text, Path::new("nexus.toml"), &|_| None).unwrap();
        if !text.contains("check = ") {
            // Tests change tables behind the gateway's back.
            config.cache.check = Period::default();
        }
        let gateway = Gateway::new(&config, workers, None).unwrap();
        let source = Arc::new(Counted::default());
        source.put("numbers", numbers(&[1, 2, 3]));
        source.put("other", numbers(&[4]));
        source.put_resolved("changing", Version::Unknown, memory(numbers(&[5])));
        source.put_resolved("endless", Version::Pinned("1".to_owned()), source.endless());
        gateway.catalogs.register("test", Arc::clone(&source) as _);
        Self { gateway, source }
    }

    /// A query of a session of its own.
    pub(crate) fn query(&self, statement: &str) -> Query {
        let (cx, session) = (Context::new(Principal::anonymous()), self.gateway.sessions.start());
        Query::new(cx, statement, session, Protocol::Flight)
    }

    pub(crate) async fn execute(&self, statement: &str) -> Result<Answer> {
        self.gateway.execute.execute(self.query(statement)).await
    }

    /// The rows as a table for people, and what the cache had to do with them.
    pub(crate) async fn run(&self, statement: &str) -> Result<(CacheUse, String)> {
        shown(self.execute(statement).await?).await
    }

    /// The rows as a table for people.
    pub(crate) async fn rows(&self, statement: &str) -> String {
        self.run(statement).await.unwrap().1
    }

    /// How often the source was asked for a table.
    pub(crate) fn opened(&self) -> usize {
        self.source.opened.load(Ordering::Relaxed)
    }

    /// The error, as a client would see it.
    pub(crate) async fn error(&self, statement: &str) -> Error {
        match self.run(statement).await {
            Ok((_, rows)) => panic!("no error, but\n{rows}"),
            Err(error) => error,
        }
    }
}

/// The rows of an answer as a table for people.
pub(crate) async fn shown(answer: Answer) -> Result<(CacheUse, String)> {
    let batches: Vec<RecordBatch> = answer.batches.try_collect().await?;
    Ok((answer.cache.how, pretty_format_batches(&batches).unwrap().to_string()))
}

/// Rows of `id` and `name`.
pub(crate) fn numbers(ids: &[i64]) -> RecordBatch {
    let names: StringArray = ids.iter().map(|id| Some(format!("n{id}"))).collect();
    let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(Int64Array::from(ids.to_vec()))), ("name", Arc::new(names))];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Rows as a table.
pub(crate) fn memory(rows: RecordBatch) -> Arc<dyn TableProvider> {
    Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap())
}

/// A source that counts the tables that were opened and knows how many scans of its endless table run.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    tables: Mutex<BTreeMap<String, Resolved>>,
    opened: AtomicUsize,
    versions: AtomicUsize,
    running: watch::Sender<usize>,
}

static SPEC: Spec = Spec {
    kind: "counted",
    summary: "counts what is asked of it",
    options: &[],
    capabilities: Capabilities { versions: true, ..Capabilities::NONE },
    proof: Proof::Untested,
    docs: "",
    open: |_| Err(Error::unsupported("only made in tests")),
};

impl Counted {
    /// Puts a table in place, at a version that was never there.
    pub(crate) fn put(&self, name: &str, rows: RecordBatch) {
        let version = self.versions.fetch_add(1, Ordering::Relaxed).to_string();
        self.put_resolved(name, Version::Pinned(version), memory(rows));
    }

    pub(crate) fn put_resolved(&self, name: &str, version: Version, provider: Arc<dyn TableProvider>) {
        self.tables.lock().unwrap().insert(name.to_owned(), Resolved { provider, version, keys: Keys::default() });
    }

    /// Takes a table away.
    pub(crate) fn take(&self, name: &str) {
        self.tables.lock().unwrap().remove(name);
    }

    fn endless(&self) -> Arc<dyn TableProvider> {
        let rows = numbers(&(0..8_192).collect::<Vec<_>>());
        let partition = Endless { schema: rows.schema(), rows, running: self.running.clone() };
        Arc::new(StreamingTable::try_new(partition.rows.schema(), vec![Arc::new(partition)]).unwrap())
    }

    /// Waits until so many scans of the endless table run.
    pub(crate) async fn until_running(&self, wanted: usize) {
        self.running.subscribe().wait_for(|running| *running == wanted).await.unwrap();
    }
}

#[async_trait]
impl Source for Counted {
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
        Ok(self.tables.lock().unwrap().keys().map(TableEntry::table).collect())
    }

    async fn table(&self, _cx: &Context, schema: &str, table: &str) -> Result<Resolved> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let found = self.tables.lock().unwrap().get(table).filter(|_| schema == "main").cloned();
        found.ok_or_else(|| Error::not_found("not there"))
    }
}

/// The same rows again and again.
#[derive(Debug)]
struct Endless {
    schema: SchemaRef,
    rows: RecordBatch,
    running: watch::Sender<usize>,
}

impl PartitionStream for Endless {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _cx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let guard = Running::start(&self.running);
        let rows = self.rows.clone();
        let batches = stream::repeat_with(move || {
            let _ = &guard;
            Ok(rows.clone())
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// Counts as one that runs until it is dropped.
pub(crate) struct Running(watch::Sender<usize>);

impl Running {
    pub(crate) fn start(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|running| *running += 1);
        Self(count.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}
