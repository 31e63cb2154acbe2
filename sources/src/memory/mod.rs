//! Tables in memory: the reference connector. To add a connector, copy this folder.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use nexus_flight_catalog::quantity::Size;
use nexus_flight_catalog::{
    Capabilities, Context, Error, IfExists, Keys, Opt, OptType, Options, Proof, Put, Resolved, Result, Source, Spec, TableEntry,
    Target, Transaction,
};

mod room;
mod state;
mod transaction;

use room::Room;
use state::{State, Table, collected};
use transaction::MemoryTransaction;

/// What this connector declares. The conformance suite holds it to the capabilities, in both directions.
pub static SPEC: Spec = Spec {
    kind: "memory",
    summary: "tables held in this process",
    options: &[Opt {
        name: "size",
        value: OptType::Size,
        required: false,
        secret: false,
        help: "the most bytes that all its tables may have together, with what open transactions keep; \"1GiB\" by default",
    }],
    // Filters and limits are applied by the plan above the scan: the rows are here already.
    capabilities: Capabilities {
        versions: true,
        keys: true,
        append: true,
        ingest: true,
        transactions: true,
        ..Capabilities::NONE
    },
    proof: Proof::Real,
    docs: include_str!("docs.md"),
    open,
};

fn open(options: &Options) -> Result<Arc<dyn Source>> {
    let Configured { size } = options.parse(&SPEC)?;
    Ok(Arc::new(MemorySource::of_size(size)))
}

#[derive(serde::Deserialize)]
struct Configured {
    #[serde(default = "default_size")]
    size: Size,
}

const fn default_size() -> Size {
    Size(1 << 30)
}

/// Tables in memory, by schema and name. Clones share them.
#[derive(Debug, Clone)]
pub struct MemorySource {
    /// All tables as they are now. A statement and a transaction go on with the state that they began with.
    state: Arc<RwLock<State>>,
    /// What the transactions take from as well.
    room: Arc<Room>,
}

impl Default for MemorySource {
    fn default() -> Self {
        Self::new()
    }
}

impl MemorySource {
    /// A source without tables.
    pub fn new() -> Self {
        Self::of_size(default_size())
    }

    /// A source without tables, which may have so many bytes together.
    pub fn of_size(size: Size) -> Self {
        Self::of(State::default(), Arc::new(Room::new(size)))
    }

    /// Whether it has no table.
    pub fn is_empty(&self) -> bool {
        self.read().schemas().is_empty()
    }

    fn of(state: State, room: Arc<Room>) -> Self {
        Self { state: Arc::new(RwLock::new(state)), room }
    }

    /// Puts a table of these rows in place, instead of an earlier one of that name. A statement that has begun keeps the
    /// rows it began with. Errors: `Invalid` where there is no batch to take the schema from, or two schemas differ;
    /// `Exhausted` where there is no room for them.
    pub fn insert(&self, schema: &str, table: &str, batches: Vec<RecordBatch>, keys: Keys) -> Result<()> {
        let Some(first) = batches.first() else {
            return Err(Error::invalid(format!("the table \"{table}\" has no batch to take its schema from"))
                .with_hint("give one batch without rows"));
        };
        let table_schema = first.schema();
        let made = Arc::new(Table::new(table_schema, batches, keys)?);
        self.write(|state| {
            state.put(schema, table, Some(made));
            Ok(())
        })
    }

    /// All tables as they are now. It copies none: what has a copy does not go when it is replaced.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes back to a state that it had.
    fn restore(&self, earlier: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = earlier;
    }

    /// Changes the state as a whole or not at all.
    fn write<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut current = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // What the tables hold is shared, so this copies their names.
        let mut next = current.clone();
        let done = change(&mut next)?;
        next.settle(&current, &self.room)?;
        *current = next;
        Ok(done)
    }
}

#[async_trait]
impl Source for MemorySource {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn is_elsewhere(&self) -> bool {
        false
    }

    async fn ping(&self, _cx: &Context) -> Result<()> {
        Ok(())
    }

    async fn schemas(&self, _cx: &Context) -> Result<Vec<String>> {
        Ok(self.read().schemas())
    }

    async fn tables(&self, _cx: &Context, schema: &str) -> Result<Vec<TableEntry>> {
        self.read().tables(schema)
    }

    async fn table(&self, _cx: &Context, schema: &str, table: &str) -> Result<Resolved> {
        Ok(self.read().table(schema, table)?.resolved())
    }

    async fn ingest(&self, cx: &Context, target: &Target, rows: SendableRecordBatchStream) -> Result<u64> {
        // Before the rows are read, and again when they are there: much may happen meanwhile.
        let (beside, instead) = {
            let state = self.read();
            let there = state.get(&target.schema, &target.table);
            let instead = match target.put(there.map(Table::version))? {
                Put::Keep => return Ok(0),
                Put::Replace => there.map_or(0, Table::bytes),
                Put::Create | Put::Append => 0,
            };
            (state.bytes() - instead, instead)
        };
        let schema = rows.schema();
        let batches = cx.run(collected(rows, &self.room, beside, instead)).await?;
        let count = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        self.write(|state| {
            let there = state.get(&target.schema, &target.table);
            let table = match (target.put(there.map(Table::version))?, there) {
                (Put::Keep, _) => return Ok(0),
                (Put::Append, Some(there)) => there.appended(&schema, batches)?,
                (Put::Replace, Some(there)) if matches!(target.if_exists, IfExists::Rewrite(_)) => there.rewritten(batches)?,
                _ => {
                    let keys = Keys { primary: target.primary_key.clone(), foreign: vec![] };
                    Table::new(schema, batches, keys)?
                }
            };
            state.put(&target.schema, &target.table, Some(Arc::new(table)));
            Ok(count)
        })
    }

    async fn drop_table(&self, _cx: &Context, schema: &str, table: &str) -> Result<()> {
        self.write(|state| {
            state.table(schema, table)?;
            state.put(schema, table, None);
            Ok(())
        })
    }

    async fn begin(&self, _cx: &Context) -> Result<Arc<dyn Transaction>> {
        Ok(Arc::new(MemoryTransaction::new(self.clone())))
    }
}
