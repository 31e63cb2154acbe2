//! Transactions and savepoints as clients name them: sealed ids, so that none can be guessed or taken from another.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::sql::{ActionBeginSavepointRequest, ActionEndSavepointRequest, ActionEndTransactionRequest, EndTransaction};
use nexus_flight_catalog::{Error, Result};
use uuid::Uuid;

use crate::flight::caller::Caller;
use crate::flight::ticket::check_owner;
use crate::seal::{Purpose, Seal};
use crate::transactions::{Transactions, Using};

/// `ActionEndSavepointRequest.EndSavepoint` (FlightSql.proto), which arrow-flight keeps to itself.
pub const RELEASE: i32 = 1;
const ROLLBACK: i32 = 2;

/// The open transactions behind their handles.
#[derive(Debug)]
pub struct Handles {
    seal: Arc<Seal>,
    transactions: Arc<Transactions>,
    /// How long a handle is good for.
    lives: Duration,
}

impl Handles {
    /// Handles that are good for so long.
    pub fn new(seal: Arc<Seal>, transactions: Arc<Transactions>, lives: Duration) -> Self {
        Self { seal, transactions, lives }
    }

    /// Begins a transaction and gives its handle.
    pub fn begin(&self, caller: &Caller) -> Result<Vec<u8>> {
        let id = self.transactions.begin(&caller.principal, caller.session.id)?;
        self.seal.seal(Purpose::Transaction, &(&*caller.principal.0, id), self.lives)
    }

    /// The open transactions themselves.
    pub fn all(&self) -> &Transactions {
        &self.transactions
    }

    /// The transaction behind a handle, if there is one, else that of the session; nothing and no bytes both stand for none.
    /// Errors: it is not open here.
    pub fn opened(&self, caller: &Caller, handle: Option<&[u8]>) -> Result<Option<Uuid>> {
        match handle {
            None | Some([]) => Ok(caller.session.transaction),
            Some(handle) => {
                let id = self.unsealed(caller, handle)?;
                self.transactions.get(&caller.principal, id)?;
                Ok(Some(id))
            }
        }
    }

    /// An open transaction. Errors: it is not open here, or is another principal's.
    pub fn open(&self, caller: &Caller, id: Uuid) -> Result<Arc<Using>> {
        self.transactions.get(&caller.principal, id)
    }

    /// Commits a transaction or rolls it back.
    pub async fn end(&self, caller: &Caller, request: &ActionEndTransactionRequest) -> Result<()> {
        let id = self.unsealed(caller, &request.transaction_id)?;
        let commits = match request.action() {
            EndTransaction::Commit => true,
            EndTransaction::Rollback => false,
            EndTransaction::Unspecified => return Err(unsaid("commit", "roll back")),
        };
        self.transactions.end(&caller.context(), id, commits).await
    }

    /// Sets a savepoint and gives its handle.
    pub async fn savepoint(&self, caller: &Caller, request: &ActionBeginSavepointRequest) -> Result<Vec<u8>> {
        let transaction = self.unsealed(caller, &request.transaction_id)?;
        let open = self.open(caller, transaction)?;
        let savepoint = open.savepoint(&caller.context()).await?;
        self.seal.seal(Purpose::Savepoint, &(&*caller.principal.0, transaction, savepoint), self.lives)
    }

    /// Goes back to a savepoint or forgets it.
    pub async fn end_savepoint(&self, caller: &Caller, request: &ActionEndSavepointRequest) -> Result<()> {
        let releases = match request.action {
            RELEASE => true,
            ROLLBACK => false,
            _ => return Err(unsaid("release", "roll back to")),
        };
        let (owner, transaction, savepoint): (String, Uuid, Uuid) = self.seal.open(Purpose::Savepoint, &request.savepoint_id)?;
        check_owner(&owner, &caller.principal, "savepoint")?;
        let open = self.open(caller, transaction)?;
        open.end_savepoint(&caller.context(), savepoint, releases).await
    }

    fn unsealed(&self, caller: &Caller, handle: &[u8]) -> Result<Uuid> {
        let (owner, id): (String, Uuid) = self.seal.open(Purpose::Transaction, handle)?;
        check_owner(&owner, &caller.principal, "transaction")?;
        Ok(id)
    }
}

fn unsaid(one: &str, other: &str) -> Error {
    Error::invalid(format!("the request does not say whether to {one} or to {other} it"))
}
