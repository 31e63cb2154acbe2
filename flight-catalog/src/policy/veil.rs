//! Errors from beneath a guard: what they tell of rows that are not seen stays there.

use datafusion::error::DataFusionError;
use uuid::Uuid;

use crate::error::{Error, Kind};

/// Hangs before the errors of a table of which one sees a part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Veil {
    /// The statement, by which the log is found.
    pub(super) query: Uuid,
    /// Whether values are kept out of the log as well.
    pub(super) redacts: bool,
}

impl Veil {
    /// The same trouble without what a value, a place or another statement says of it. What does not hang on them is passed on.
    pub(super) fn over(self, error: Error) -> Error {
        let kind = error.kind();
        let message = match kind {
            Kind::Cancelled | Kind::Timeout => return error,
            // By how much may be of the length of a value.
            Kind::Exhausted => "a limit was reached beneath a table of which you see a part",
            Kind::Unavailable => "the source of a table of which you see a part does not answer",
            Kind::Precondition => "a table of which you see a part has changed meanwhile",
            _ => "a table of which you see a part cannot be read",
        };
        self.hidden(error, message)
    }

    /// The same for what a catalog was given: it may be of tables that are not seen, beside one that is.
    pub(super) fn over_key(self, error: Error) -> Error {
        let message = match error.kind() {
            Kind::Cancelled | Kind::Timeout => return error,
            Kind::Unavailable => "the source does not answer",
            _ => "the table cannot be read, for a reason that may be of what you do not see",
        };
        self.hidden(error, message)
    }

    /// The same for a write: what stands against it may be of rows, columns and tables that are not seen.
    pub(super) fn over_write(self, error: Error) -> Error {
        let message = match error.kind() {
            // Of the table that is written, which who may write may know of.
            Kind::NotFound | Kind::Exists => return error,
            Kind::Cancelled | Kind::Timeout | Kind::Exhausted => return error,
            Kind::Unavailable => "the source does not answer, and nothing may have been written",
            Kind::Precondition => "the table has changed meanwhile",
            _ => "the source does not take this write, for a reason that may be of what you do not see",
        };
        self.hidden(error, message)
    }

    /// The same for what DataFusion passes on.
    pub(super) fn below(self, error: DataFusionError) -> DataFusionError {
        DataFusionError::External(Box::new(self.over(Error::from(error))))
    }

    fn hidden(self, error: Error, message: &str) -> Error {
        let (kind, retryable) = (error.kind(), error.retryable());
        let hint = match retryable || kind == Kind::Precondition {
            true => "try again",
            false => "ask who sees all of it; the log of the gateway says why",
        };
        let cause = if self.redacts { kind.name().to_owned() } else { format!("{error:?}") };
        tracing::warn!(query = %self.query, cause, "what went wrong beneath a policy was not told");
        Error::new(kind, message).with_hint(hint).with_retryable(retryable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_tells_nothing_of_what_reached_it() {
        let veil = Veil { query: Uuid::nil(), redacts: false };
        let large = || Error::exhausted("repeat would make 287 MiB at once").with_hint("ask for less").with_retryable(false);
        assert_eq!(veil.over(large()).message(), "a limit was reached beneath a table of which you see a part");
        let told = veil.over_key(large());
        assert_eq!(told.message(), "the table cannot be read, for a reason that may be of what you do not see");
        let later = veil.over(large().with_retryable(true));
        assert_eq!((later.kind(), later.retryable()), (Kind::Exhausted, true));
    }
}
