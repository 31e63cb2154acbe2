//! All tables of a memory source at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use datafusion::datasource::MemTable;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use nexus_flight_catalog::write::filled;
use nexus_flight_catalog::{Error, Keys, Resolved, Result, TableEntry, Version};

use super::room::{Room, Rows, bytes};

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

    pub(super) fn bytes(&self) -> u64 {
        self.schemas.values().flat_map(BTreeMap::values).map(|table| table.bytes).sum()
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

    /// Takes room for the rows that come with this state, in place of those that go with the one before it. What a transaction
    /// or savepoint has as well does not go. Errors: `Exhausted` where there is no room.
    pub(super) fn settle(&self, before: &State, room: &Arc<Room>) -> Result<()> {
        let rows = self.beyond(before).flat_map(|table| &table.rows).filter(|rows| !rows.have_room());
        let comes: Vec<&Rows> = rows.map(Arc::as_ref).collect();
        let tables = before.beyond(self).filter(|table| Arc::strong_count(table) == 1);
        let rows = tables.flat_map(|table| &table.rows).filter(|rows| Arc::strong_count(rows) == 1);
        let goes: Vec<&Rows> = rows.map(Arc::as_ref).collect();
        if room.exchange(&comes, &goes) { Ok(()) } else { Err(room.full(self.bytes())) }
    }
}

impl State {
    fn schema(&self, name: &str) -> Result<&BTreeMap<String, Arc<Table>>> {
        self.schemas.get(name).ok_or_else(|| Error::not_found(format!("schema \"{name}\" does not exist")))
    }

    /// The tables that it has and another state has not, or not in this version.
    fn beyond<'a>(&'a self, other: &'a State) -> impl Iterator<Item = &'a Arc<Table>> {
        self.schemas.iter().flat_map(move |(schema, tables)| {
            let theirs = other.schemas.get(schema);
            let new = tables.iter().filter(move |(name, table)| {
                let there = theirs.and_then(|theirs| theirs.get(*name));
                there.is_none_or(|there| !Arc::ptr_eq(there, table))
            });
            new.map(|(_, table)| table)
        })
    }
}

/// A table in one version.
#[derive(Debug)]
pub(super) struct Table {
    resolved: Resolved,
    rows: Vec<Arc<Rows>>,
    bytes: u64,
}

impl Table {
    pub(super) fn new(schema: SchemaRef, batches: Vec<RecordBatch>, keys: Keys) -> Result<Self> {
        Self::of(schema, batches.into_iter().map(Rows::new).map(Arc::new).collect(), keys)
    }

    fn of(schema: SchemaRef, rows: Vec<Arc<Rows>>, keys: Keys) -> Result<Self> {
        let bytes = rows.iter().map(|rows| rows.bytes).sum();
        let batches = rows.iter().map(|rows| rows.batch.clone()).collect();
        let provider = MemTable::try_new(schema, vec![batches])?;
        let version = Version::Pinned(NEXT_VERSION.fetch_add(1, Ordering::Relaxed).to_string());
        Ok(Self { resolved: Resolved { provider: Arc::new(provider), version, keys }, rows, bytes })
    }

    pub(super) fn resolved(&self) -> Resolved {
        self.resolved.clone()
    }

    pub(super) fn version(&self) -> &Version {
        &self.resolved.version
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The table with more rows, which have columns of these names.
    pub(super) fn appended(&self, schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<Self> {
        let own = self.resolved.provider.schema();
        if let Some(field) = schema.fields().iter().find(|field| own.index_of(field.name()).is_err()) {
            return Err(changed(&format!("has no column \"{}\"", field.name())));
        }
        let batches = batches.iter().map(|batch| filled(batch, &own)).collect::<Result<Vec<_>>>()?;
        let mut all = self.rows.clone();
        for batch in batches {
            add(&mut all, batch, &own)?;
        }
        Self::of(own, all, self.resolved.keys.clone())
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
fn add(all: &mut Vec<Arc<Rows>>, batch: RecordBatch, schema: &SchemaRef) -> Result<()> {
    let batch = match all.pop_if(|last| last.batch.num_rows() + batch.num_rows() <= SMALL) {
        Some(last) => concat_batches(schema, [&last.batch, &batch])?,
        None => batch,
    };
    all.push(Arc::new(Rows::new(batch)));
    Ok(())
}

fn changed(how: &str) -> Error {
    Error::precondition(format!("the table {how}")).with_hint("send the statement again").with_retryable(true)
}

/// The rows of a stream, as long as they have room, to which that of the table adds in whose place they go. Errors: `Exhausted`
/// where they would not; `beside` is what the other tables have.
pub(super) async fn collected(
    mut rows: SendableRecordBatchStream,
    room: &Room,
    beside: u64,
    instead: u64,
) -> Result<Vec<RecordBatch>> {
    let (mut batches, mut total) = (Vec::new(), 0);
    while let Some(batch) = rows.try_next().await? {
        if batch.num_rows() > 0 {
            total += bytes(&batch);
            if total > room.left() + instead {
                return Err(room.full(beside + total));
            }
            batches.push(batch);
        }
    }
    Ok(batches)
}
