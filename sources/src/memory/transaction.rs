//! A transaction over tables in memory: a copy of the state, brought back on commit unless another one came first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use nexus_flight_catalog::{Context, Error, Resolved, Result, Source, Spec, TableEntry, Target, Transaction};

use super::state::State;
use super::{MemorySource, SPEC};

/// How many marks a transaction may have at once.
const SAVEPOINTS: usize = 1_000;

#[derive(Debug)]
pub(super) struct MemoryTransaction {
    shared: MemorySource,
    began: State,
    /// What this transaction alone sees.
    own: MemorySource,
    savepoints: Mutex<Vec<(String, State)>>,
}

impl MemoryTransaction {
    pub(super) fn new(shared: MemorySource) -> Self {
        let began = shared.read();
        let own = MemorySource::of(began.clone(), shared.size);
        Self { shared, began, own, savepoints: Mutex::default() }
    }

    fn savepoints(&self) -> MutexGuard<'_, Vec<(String, State)>> {
        self.savepoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Source for MemoryTransaction {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn is_elsewhere(&self) -> bool {
        false
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        self.own.ping(cx).await
    }

    async fn schemas(&self, cx: &Context) -> Result<Vec<String>> {
        self.own.schemas(cx).await
    }

    async fn tables(&self, cx: &Context, schema: &str) -> Result<Vec<TableEntry>> {
        self.own.tables(cx, schema).await
    }

    async fn table(&self, cx: &Context, schema: &str, table: &str) -> Result<Resolved> {
        self.own.table(cx, schema, table).await
    }

    async fn ingest(&self, cx: &Context, target: &Target, rows: SendableRecordBatchStream) -> Result<u64> {
        self.own.ingest(cx, target, rows).await
    }

    async fn drop_table(&self, cx: &Context, schema: &str, table: &str) -> Result<()> {
        self.own.drop_table(cx, schema, table).await
    }

    async fn begin(&self, _cx: &Context) -> Result<Arc<dyn Transaction>> {
        Err(Error::unsupported("a transaction in a transaction is not offered").with_hint("set a savepoint"))
    }
}

#[async_trait]
impl Transaction for MemoryTransaction {
    async fn commit(&self, _cx: &Context) -> Result<()> {
        let ours = self.own.read();
        self.shared.write(|state| state.merge(&self.began, &ours))
    }

    async fn rollback(&self, _cx: &Context) -> Result<()> {
        self.own.restore(self.began.clone());
        Ok(())
    }

    async fn savepoint(&self, _cx: &Context, name: &str) -> Result<()> {
        let mut savepoints = self.savepoints();
        if savepoints.len() >= SAVEPOINTS {
            return Err(Error::exhausted(format!("the transaction has {SAVEPOINTS} savepoints"))
                .with_hint("release some")
                .with_retryable(false));
        }
        savepoints.push((name.to_owned(), self.own.read()));
        Ok(())
    }

    async fn release(&self, _cx: &Context, name: &str) -> Result<()> {
        let mut savepoints = self.savepoints();
        let at = position(&savepoints, name)?;
        savepoints.truncate(at);
        Ok(())
    }

    async fn rollback_to(&self, _cx: &Context, name: &str) -> Result<()> {
        let mut savepoints = self.savepoints();
        let at = position(&savepoints, name)?;
        savepoints.truncate(at + 1);
        self.own.restore(savepoints[at].1.clone());
        Ok(())
    }
}

fn position(savepoints: &[(String, State)], name: &str) -> Result<usize> {
    let at = savepoints.iter().rposition(|(mark, _)| mark == name);
    at.ok_or_else(|| Error::not_found(format!("there is no savepoint \"{name}\" in the transaction")))
}
