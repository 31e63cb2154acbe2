//! Errors from beneath a guard: what they tell of rows that are not seen stays there.

use datafusion::error::DataFusionError;

use crate::error::{Error, Kind};

/// The same trouble without what a value, a place or another statement says of it. What does not hang on values is passed on.
pub(super) fn veiled(error: Error) -> Error {
    let (kind, retryable) = (error.kind(), error.retryable());
    let message = match kind {
        Kind::Cancelled | Kind::Timeout | Kind::Exhausted | Kind::Denied | Kind::Unauthenticated => return error,
        Kind::Unavailable => "the source of a table of which you see a part does not answer",
        Kind::Precondition => "a table of which you see a part has changed meanwhile",
        _ => "a table of which you see a part cannot be read",
    };
    let hint = match retryable || kind == Kind::Precondition {
        true => "try again",
        false => "ask who sees all of it; the log of the gateway says why",
    };
    tracing::warn!(error = ?error, "what went wrong beneath a policy was not told");
    Error::new(kind, message).with_hint(hint).with_retryable(retryable).caused_by(error)
}

/// The same for what DataFusion passes on.
pub(super) fn veiled_below(error: DataFusionError) -> DataFusionError {
    DataFusionError::External(Box::new(veiled(Error::from(error))))
}
