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
        let began = shared.read().clone();
        let own = MemorySource::of(began.clone(), Arc::clone(&shared.room));
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
        let ours = self.own.read().clone();
        self.shared.write(|state| state.merge(&self.began, &ours))?;
        self.savepoints().clear();
        Ok(())
    }

    async fn rollback(&self, _cx: &Context) -> Result<()> {
        self.savepoints().clear();
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
        savepoints.push((name.to_owned(), self.own.read().clone()));
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

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use futures::stream;
    use nexus_flight_catalog::quantity::Size;
    use nexus_flight_catalog::{IfExists, IfMissing, Kind, Principal};

    use super::*;
    use crate::memory::room::Rows;

    /// More rows than are put together with others.
    fn block() -> RecordBatch {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..2_000));
        RecordBatch::try_from_iter([("a", values)]).unwrap()
    }

    fn of_blocks(count: u64) -> MemorySource {
        MemorySource::of_size(Size(count * Rows::new(block()).bytes))
    }

    /// For how many blocks there is room.
    fn left(source: &MemorySource) -> u64 {
        source.room.left() / Rows::new(block()).bytes
    }

    fn cx() -> Context {
        Context::new(Principal::anonymous())
    }

    /// Puts a block into a table, which is made where it is not there.
    async fn put(source: &(impl Source + ?Sized), table: &str, if_exists: IfExists) -> Result<u64> {
        let (schema, table) = ("main".to_owned(), table.to_owned());
        let target = Target { schema, table, if_missing: IfMissing::Create, if_exists, primary_key: vec![] };
        let rows = RecordBatchStreamAdapter::new(block().schema(), stream::iter([Ok(block())]));
        source.ingest(&cx(), &target, Box::pin(rows)).await
    }

    async fn append(source: &(impl Source + ?Sized), table: &str) -> Result<u64> {
        put(source, table, IfExists::Append).await
    }

    async fn replace(source: &(impl Source + ?Sized), table: &str) -> Result<u64> {
        put(source, table, IfExists::Replace).await
    }

    #[tokio::test]
    async fn all_transactions_together_have_the_room_of_their_source() {
        let source = of_blocks(4);
        append(&source, "t").await.unwrap();
        let (one, other) = (source.begin(&cx()).await.unwrap(), source.begin(&cx()).await.unwrap());
        // What is shared counts once.
        assert_eq!(left(&source), 3);
        append(&*one, "t").await.unwrap();
        append(&*other, "u").await.unwrap();
        append(&*other, "u").await.unwrap();
        assert_eq!(left(&source), 0);
        for error in [append(&*one, "t").await.unwrap_err(), append(&source, "t").await.unwrap_err()] {
            assert_eq!(error.kind(), Kind::Exhausted);
            let said = error.to_string();
            assert!(said.contains("with what savepoints and other transactions keep") && said.contains("option size"), "{said}");
        }
        one.rollback(&cx()).await.unwrap();
        assert_eq!(left(&source), 1);
        append(&*other, "u").await.unwrap();
        other.commit(&cx()).await.unwrap();
        assert_eq!(left(&source), 0);
        drop((one, other));
        // Now the tables alone have all of it.
        let error = append(&source, "t").await.unwrap_err();
        assert!(!error.to_string().contains("other transactions"), "{error}");
        source.drop_table(&cx(), "main", "u").await.unwrap();
        assert_eq!(left(&source), 3);
    }

    #[tokio::test]
    async fn a_savepoint_has_room_for_what_it_alone_keeps() {
        let source = of_blocks(4);
        let begun = source.begin(&cx()).await.unwrap();
        append(&*begun, "t").await.unwrap();
        begun.savepoint(&cx(), "s").await.unwrap();
        append(&*begun, "t").await.unwrap();
        assert_eq!(left(&source), 2);
        // The second block goes, and the first one stays for the savepoint.
        replace(&*begun, "t").await.unwrap();
        assert_eq!(left(&source), 2);
        begun.rollback_to(&cx(), "s").await.unwrap();
        assert_eq!(left(&source), 3);
        replace(&*begun, "t").await.unwrap();
        assert_eq!(left(&source), 2);
        begun.release(&cx(), "s").await.unwrap();
        assert_eq!(left(&source), 3);
        begun.savepoint(&cx(), "s").await.unwrap();
        replace(&*begun, "t").await.unwrap();
        begun.rollback(&cx()).await.unwrap();
        assert_eq!(left(&source), 4);
        append(&*begun, "t").await.unwrap();
        drop(begun);
        assert_eq!(left(&source), 4);
    }

    #[tokio::test]
    async fn what_is_replaced_makes_room_unless_a_transaction_keeps_it() {
        let source = of_blocks(1);
        append(&source, "t").await.unwrap();
        replace(&source, "t").await.unwrap();
        let begun = source.begin(&cx()).await.unwrap();
        for refused in [replace(&*begun, "t").await, replace(&source, "t").await] {
            assert_eq!(refused.unwrap_err().kind(), Kind::Exhausted);
        }
        // What was refused has taken nothing.
        assert_eq!(left(&source), 0);
        drop(begun);
        replace(&source, "t").await.unwrap();
        source.drop_table(&cx(), "main", "t").await.unwrap();
        assert_eq!(left(&source), 1);
    }
}
