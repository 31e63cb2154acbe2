//! Work that is done in a task of its own.

use nexus_flight_catalog::Error;
use tokio::task::JoinError;

/// What is said of a task that gave no answer.
pub(crate) fn ended_early(cause: JoinError) -> Error {
    Error::internal("a task of this statement ended early").caused_by(cause)
}
