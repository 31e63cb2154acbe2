//! Work that is done in a task of its own.

use nexus_flight_catalog::{Error, Result};
use tokio::task::JoinError;

/// What is said of a task that gave no answer.
pub(crate) fn ended_early(cause: JoinError) -> Error {
    Error::internal("a task of this statement ended early").caused_by(cause)
}

/// Does to its end what has begun, whether it is still wanted or not: others would have to finish the half of it.
pub(crate) async fn unbroken<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let done = tokio::spawn(work).await;
    done.map_err(ended_early)?
}
