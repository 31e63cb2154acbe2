//! A transaction: one connection, and what was marked on it.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use nexus_flight_catalog::{Change, Context, Error, Resolved, Result, Source, Spec, TableEntry, Target, Transaction};
use tokio::sync::{Mutex, Semaphore};

use super::access::{Access, Session};
use super::{PostgresSource, SPEC, error};

/// A statement here may be several queries there, which are to see the same rows.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ";

/// Fails where the transaction has failed: a COMMIT alone would then roll back and say that all is well.
const COMMIT: &str = "SELECT 1; COMMIT";

#[derive(Debug)]
pub(super) struct PostgresTransaction {
    inner: PostgresSource,
    session: Arc<Session>,
    savepoints: Mutex<Savepoints>,
    /// Where others wait for its connection.
    wanted: Arc<Semaphore>,
}

/// The marks that are set, the oldest first, by the numbers that they have at the server.
#[derive(Debug, Default)]
struct Savepoints {
    set: Vec<(String, u64)>,
    next: u64,
}

impl PostgresTransaction {
    /// Begins one on a connection of its own.
    pub(super) async fn begin(shared: &PostgresSource) -> Result<Self> {
        let Access::Pool(connections) = &shared.access else {
            return Err(Error::unsupported("a transaction in a transaction is not offered").with_hint("set a savepoint"));
        };
        let lease = connections.get().await?;
        lease.run(BEGIN).await?;
        let session = Arc::new(Session::new(lease));
        let inner = PostgresSource { access: Access::Transaction(Arc::clone(&session)), ..shared.clone() };
        Ok(Self { inner, session, savepoints: Mutex::default(), wanted: connections.wanted() })
    }

    async fn run(&self, cx: &Context, sql: &str) -> Result<()> {
        cx.run(async {
            let held = self.inner.access.hold().await?;
            let done = held.run(sql).await;
            held.settle(done)
        })
        .await
    }
}

#[async_trait]
impl Source for PostgresTransaction {
    fn spec(&self) -> &'static Spec {
        &SPEC
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
        self.inner.table(cx, schema, table).await
    }

    async fn ingest(&self, cx: &Context, target: &Target, rows: SendableRecordBatchStream) -> Result<u64> {
        self.inner.ingest(cx, target, rows).await
    }

    async fn drop_table(&self, cx: &Context, schema: &str, table: &str) -> Result<()> {
        self.inner.drop_table(cx, schema, table).await
    }

    async fn change(&self, cx: &Context, change: &Change) -> Result<u64> {
        self.inner.change(cx, change).await
    }

    async fn begin(&self, cx: &Context) -> Result<Arc<dyn Transaction>> {
        self.inner.begin(cx).await
    }
}

#[async_trait]
impl Transaction for PostgresTransaction {
    async fn commit(&self, cx: &Context) -> Result<()> {
        cx.run(async {
            let mut lease = self.session.end().await?;
            lease.holds(cx);
            lease.run(COMMIT).await.map_err(error::of_commit)?;
            lease.give_back();
            Ok(())
        })
        .await
    }

    async fn rollback(&self, cx: &Context) -> Result<()> {
        cx.run(async {
            // One that broke off was rolled back.
            let Ok(lease) = self.session.end().await else { return Ok(()) };
            lease.run("ROLLBACK").await?;
            lease.give_back();
            Ok(())
        })
        .await
    }

    async fn savepoint(&self, cx: &Context, name: &str) -> Result<()> {
        let mut savepoints = self.savepoints.lock().await;
        let number = savepoints.next;
        self.run(cx, &format!("SAVEPOINT nexus_{number}")).await?;
        savepoints.next += 1;
        savepoints.set.push((name.to_owned(), number));
        Ok(())
    }

    async fn release(&self, cx: &Context, name: &str) -> Result<()> {
        let mut savepoints = self.savepoints.lock().await;
        let (at, number) = savepoints.find(name)?;
        self.run(cx, &format!("RELEASE SAVEPOINT nexus_{number}")).await?;
        savepoints.set.truncate(at);
        Ok(())
    }

    async fn rollback_to(&self, cx: &Context, name: &str) -> Result<()> {
        let mut savepoints = self.savepoints.lock().await;
        let (at, number) = savepoints.find(name)?;
        self.run(cx, &format!("ROLLBACK TO SAVEPOINT nexus_{number}")).await?;
        savepoints.set.truncate(at + 1);
        Ok(())
    }

    fn wanted(&self) -> Option<Arc<Semaphore>> {
        // One that broke off has none to give back.
        self.session.is_there().then(|| Arc::clone(&self.wanted))
    }
}

impl Savepoints {
    /// The latest of a name. To ask the server for one that is not there would make the transaction fail.
    fn find(&self, name: &str) -> Result<(usize, u64)> {
        let found = self.set.iter().enumerate().rfind(|(_, (mark, _))| mark == name);
        let found = found.map(|(at, (_, number))| (at, *number));
        found.ok_or_else(|| Error::not_found(format!("there is no savepoint \"{name}\" in the transaction")))
    }
}
