//! How the database is asked: on any connection, or on the one that a transaction has.

use std::ops::Deref;
use std::sync::Arc;

use nexus_flight_catalog::{Error, Kind, Result};
use tokio::sync::{Mutex, MutexGuard};

use super::pool::{Connections, Lease};

/// Where statements go.
#[derive(Debug, Clone)]
pub(crate) enum Access {
    /// To a connection from the pool, each to its own.
    Pool(Connections),
    /// To the connection of a transaction, one after the other.
    Transaction(Arc<Session>),
}

/// The connection of a transaction, until it ends or breaks off.
#[derive(Debug)]
pub(crate) struct Session {
    lease: Mutex<Option<Lease>>,
    /// Held by a statement that writes, whose savepoint others must not go behind.
    pub(super) writes: Mutex<()>,
}

impl Session {
    /// On a connection where a transaction was begun.
    pub(super) fn new(lease: Lease) -> Self {
        Self { lease: Mutex::new(Some(lease)), writes: Mutex::default() }
    }

    /// Whether the connection is there or in use.
    pub(super) fn is_there(&self) -> bool {
        !self.lease.try_lock().is_ok_and(|lease| lease.is_none())
    }

    /// Takes the connection out for good. Errors: `Precondition` where it is gone.
    pub(super) async fn end(&self) -> Result<Lease> {
        self.lease.lock().await.take().ok_or_else(gone)
    }
}

impl Access {
    /// A connection for a statement, or for some. What holds it is given to [`Held::settle`] with what came of them;
    /// dropped otherwise, it ends them and, in a transaction, that as well.
    pub(crate) async fn hold(&self) -> Result<Held<'_>> {
        match self {
            Access::Pool(connections) => Ok(Held { lease: connections.get().await?, slot: None }),
            Access::Transaction(session) => {
                let mut slot = session.lease.lock().await;
                let lease = slot.take().ok_or_else(gone)?;
                Ok(Held { lease, slot: Some(slot) })
            }
        }
    }
}

/// A connection that is held for a while.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    lease: Lease,
    slot: Option<MutexGuard<'a, Option<Lease>>>,
}

impl Deref for Held<'_> {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.lease
    }
}

impl Held<'_> {
    /// Gives the connection back, unless what came of it means that something still runs there.
    pub(crate) fn settle<T>(self, result: Result<T>) -> Result<T> {
        let Self { lease, slot } = self;
        match (&result, slot) {
            (Err(error), _) if matches!(error.kind(), Kind::Unavailable | Kind::Timeout | Kind::Cancelled) => drop(lease),
            // An error of the server leaves its session as it was, and a transaction to be rolled back.
            (_, Some(mut slot)) => *slot = Some(lease),
            (Ok(_), None) => lease.give_back(),
            (Err(error), None) if matches!(error.kind(), Kind::NotFound | Kind::Exists | Kind::Unsupported) => lease.give_back(),
            (Err(_), None) => drop(lease),
        }
        result
    }
}

fn gone() -> Error {
    Error::precondition("the transaction was rolled back, since one of its statements was left or its connection broke off")
        .with_hint("do the transaction again")
        .with_retryable(true)
}
