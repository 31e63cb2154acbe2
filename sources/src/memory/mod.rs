//! Tables in memory: the reference connector. To add a connector, copy this folder.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::datasource::MemTable;
use nexus_flight_catalog::{
    Capabilities, Context, Error, Keys, Options, Proof, Resolved, Result, Source, Spec, TableEntry, Version,
};

/// What this connector declares. The conformance suite holds it to the capabilities, in both directions.
pub static SPEC: Spec = Spec {
    kind: "memory",
    summary: "tables held in this process",
    options: &[],
    // Filters and limits are applied by the plan above the scan: the rows are here already.
    capabilities: Capabilities { filters: false, limit: false, versions: true, keys: true, native: false, ingest: false },
    proof: Proof::Real,
    docs: include_str!("docs.md"),
    open,
};

fn open(options: &Options) -> Result<Arc<dyn Source>> {
    let Empty {} = options.parse(&SPEC)?;
    Ok(Arc::new(MemorySource::new()))
}

#[derive(serde::Deserialize)]
struct Empty {}

/// Versions are counted through the whole process, so that a source put in place of another repeats none of its versions.
static NEXT_VERSION: AtomicU64 = AtomicU64::new(1);

/// Tables in memory, by schema and name.
#[derive(Debug, Default)]
pub struct MemorySource {
    schemas: RwLock<BTreeMap<String, BTreeMap<String, Resolved>>>,
}

impl MemorySource {
    /// A source without tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a table of these rows in place, instead of an earlier one of that name. A statement that has begun keeps the
    /// rows it began with. Errors: `Invalid` where there is no batch to take the schema from, or two schemas differ.
    pub fn insert(&self, schema: &str, table: &str, batches: Vec<RecordBatch>, keys: Keys) -> Result<()> {
        let Some(first) = batches.first() else {
            return Err(Error::invalid(format!("the table \"{table}\" has no batch to take its schema from"))
                .with_hint("give one batch without rows"));
        };
        let provider = MemTable::try_new(first.schema(), vec![batches])?;
        let version = Version::Pinned(NEXT_VERSION.fetch_add(1, Ordering::Relaxed).to_string());
        let resolved = Resolved { provider: Arc::new(provider), version, keys };
        let mut schemas = self.schemas.write().unwrap_or_else(PoisonError::into_inner);
        schemas.entry(schema.to_owned()).or_default().insert(table.to_owned(), resolved);
        Ok(())
    }

    /// Looks at one schema.
    fn schema<T>(&self, name: &str, look: impl FnOnce(&BTreeMap<String, Resolved>) -> Result<T>) -> Result<T> {
        let schemas = self.schemas.read().unwrap_or_else(PoisonError::into_inner);
        look(schemas.get(name).ok_or_else(|| Error::not_found(format!("schema \"{name}\" does not exist")))?)
    }
}

#[async_trait]
impl Source for MemorySource {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    async fn ping(&self, _cx: &Context) -> Result<()> {
        Ok(())
    }

    async fn schemas(&self, _cx: &Context) -> Result<Vec<String>> {
        Ok(self.schemas.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect())
    }

    async fn tables(&self, _cx: &Context, schema: &str) -> Result<Vec<TableEntry>> {
        self.schema(schema, |tables| Ok(tables.keys().map(TableEntry::table).collect()))
    }

    async fn table(&self, _cx: &Context, schema: &str, table: &str) -> Result<Resolved> {
        self.schema(schema, |tables| {
            let found = tables.get(table).cloned();
            found.ok_or_else(|| Error::not_found(format!("table \"{schema}.{table}\" does not exist")))
        })
    }
}
