//! All tables of a memory source at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use datafusion::datasource::MemTable;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use nexus_flight_catalog::quantity::Size;
use nexus_flight_catalog::write::filled;
use nexus_flight_catalog::{Error, Keys, Resolved, Result, TableEntry, Target, Version};

/// Versions are counted through the whole process, so that a source put in place of another repeats none of its versions.
static NEXT_VERSION: AtomicU64 = AtomicU64::new(1);

/// Tables by schema and name. A schema is there as long as it has a table.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    schemas: BTreeMap<String, BTreeMap<String, Arc<Table>>>,
}

impl State {
    pub(super) fn schemas(&self) -> Vec<String> {
        self.schemas.keys().cloned().collect()
    }

    pub(super) fn tables(&self, schema: &str) -> Result<Vec<TableEntry>> {
        Ok(self.schema(schema)?.keys().map(TableEntry::table).collect())
    }

    pub(super) fn table(&self, schema: &str, table: &str) -> Result<&Table> {
        let found = self.schema(schema)?.get(table);
        found.map(Arc::as_ref).ok_or_else(|| Error::not_found(format!("table \"{schema}.{table}\" does not exist")))
    }

    pub(super) fn get(&self, schema: &str, table: &str) -> Option<&Table> {
        self.schemas.get(schema)?.get(table).map(Arc::as_ref)
    }

    pub(super) fn version(&self, target: &Target) -> Option<&Version> {
        self.get(&target.schema, &target.table).map(Table::version)
    }

    /// Puts a table in place, or takes it away.
    pub(super) fn put(&mut self, schema: &str, name: &str, table: Option<Arc<Table>>) {
        let tables = self.schemas.entry(schema.to_owned()).or_default();
        match table {
            Some(table) => tables.insert(name.to_owned(), table),
            None => tables.remove(name),
        };
        if tables.is_empty() {
            self.schemas.remove(schema);
        }
    }

    /// Brings in what `ours` has changed since `began`. Errors: `Precondition` where the same table was changed here as well.
    pub(super) fn merge(&mut self, began: &State, ours: &State) -> Result<()> {
        let names = |state: &State| -> Vec<(String, String)> {
            let of = |(schema, tables): (&String, &BTreeMap<String, Arc<Table>>)| {
                let schema = schema.clone();
                tables.keys().map(move |table| (schema.clone(), table.clone())).collect::<Vec<_>>()
            };
            state.schemas.iter().flat_map(of).collect()
        };
        let mut touched = [names(began), names(ours)].concat();
        touched.sort();
        touched.dedup();
        for (schema, table) in touched {
            let version = |state: &State| state.get(&schema, &table).map(Table::version).cloned();
            if version(began) == version(ours) {
                continue;
            }
            if version(self) != version(began) {
                let message = format!("table \"{schema}.{table}\" was changed by another transaction");
                return Err(Error::precondition(message).with_hint("do the transaction again").with_retryable(true));
            }
            self.put(&schema, &table, ours.schemas.get(&schema).and_then(|tables| tables.get(&table)).cloned());
        }
        Ok(())
    }

    /// Errors: `Exhausted` where the tables have more bytes than this.
    pub(super) fn check(&self, most: Size) -> Result<()> {
        let bytes: u64 = self.schemas.values().flat_map(BTreeMap::values).map(|table| table.bytes).sum();
        if bytes > most.0 { Err(too_large(most)) } else { Ok(()) }
    }
}

impl State {
    fn schema(&self, name: &str) -> Result<&BTreeMap<String, Arc<Table>>> {
        self.schemas.get(name).ok_or_else(|| Error::not_found(format!("schema \"{name}\" does not exist")))
    }
}

/// A table in one version.
#[derive(Debug)]
pub(super) struct Table {
    resolved: Resolved,
    batches: Vec<RecordBatch>,
    bytes: u64,
}

impl Table {
    pub(super) fn new(schema: SchemaRef, batches: Vec<RecordBatch>, keys: Keys) -> Result<Self> {
        let bytes = batches.iter().map(bytes).sum();
        let provider = MemTable::try_new(schema, vec![batches.clone()])?;
        let version = Version::Pinned(NEXT_VERSION.fetch_add(1, Ordering::Relaxed).to_string());
        Ok(Self { resolved: Resolved { provider: Arc::new(provider), version, keys }, batches, bytes })
    }

    pub(super) fn resolved(&self) -> Resolved {
        self.resolved.clone()
    }

    pub(super) fn version(&self) -> &Version {
        &self.resolved.version
    }

    /// The table with more rows, which have columns of these names.
    pub(super) fn appended(&self, schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<Self> {
        let own = self.resolved.provider.schema();
        if let Some(field) = schema.fields().iter().find(|field| own.index_of(field.name()).is_err()) {
            return Err(changed(&format!("has no column \"{}\"", field.name())));
        }
        let batches = batches.iter().map(|batch| filled(batch, &own)).collect::<Result<Vec<_>>>()?;
        let mut all = self.batches.clone();
        for batch in batches {
            add(&mut all, batch, &own)?;
        }
        Self::new(own, all, self.resolved.keys.clone())
    }

    /// The table with other rows.
    pub(super) fn rewritten(&self, batches: Vec<RecordBatch>) -> Result<Self> {
        let own = self.resolved.provider.schema();
        let batches = batches.iter().map(|batch| filled(batch, &own)).collect::<Result<Vec<_>>>()?;
        Self::new(own, batches, self.resolved.keys.clone())
    }
}

/// A batch with fewer rows than this takes those of the next one in.
const SMALL: usize = 1_024;

/// Adds rows behind others: many writes of a row each make few batches.
fn add(all: &mut Vec<RecordBatch>, batch: RecordBatch, schema: &SchemaRef) -> Result<()> {
    match all.pop_if(|last| last.num_rows() + batch.num_rows() <= SMALL) {
        Some(last) => all.push(concat_batches(schema, [&last, &batch])?),
        None => all.push(batch),
    }
    Ok(())
}

fn changed(how: &str) -> Error {
    Error::precondition(format!("the table {how}")).with_hint("send the statement again").with_retryable(true)
}

/// The rows of a stream, as long as they have room. Errors: `Exhausted` where they would not.
pub(super) async fn collected(mut rows: SendableRecordBatchStream, most: Size) -> Result<Vec<RecordBatch>> {
    let (mut batches, mut total) = (Vec::new(), 0);
    while let Some(batch) = rows.try_next().await? {
        if batch.num_rows() > 0 {
            total += bytes(&batch);
            if total > most.0 {
                return Err(too_large(most));
            }
            batches.push(batch);
        }
    }
    Ok(batches)
}

/// The bytes of the rows themselves, and something for the batch, so that even rows without columns count.
fn bytes(batch: &RecordBatch) -> u64 {
    let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0));
    sizes.map(|size| size as u64).sum::<u64>() + 256
}

fn too_large(most: Size) -> Error {
    Error::exhausted(format!("the tables of this catalog would have more than {most}"))
        .with_hint("drop tables, or raise its option size")
        .with_retryable(false)
}
