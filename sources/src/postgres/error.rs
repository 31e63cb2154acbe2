//! What PostgreSQL says, as our error.

use nexus_flight_catalog::{Error, Kind};
use tokio_postgres::error::DbError;

/// The trouble with a statement or a connection that was there.
pub(super) fn of(error: tokio_postgres::Error) -> Error {
    let Some(said) = error.as_db_error() else {
        // Text that the driver writes itself names no value.
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let message = match error.is_closed() {
            true => "the connection to the database broke off".to_owned(),
            false => format!("the connection to the database failed: {error}{cause}"),
        };
        return Error::unavailable(message).with_hint("send the statement again").caused_by(error);
    };
    let made = Error::new(kind(said.code().code()), sentence(said)).with_retryable(is_retryable(said.code().code()));
    match hint(said) {
        Some(hint) => made.with_hint(hint),
        None => made,
    }
}

/// The trouble with a COMMIT: where the answer did not come, all may be there, and doing it again would do it twice.
pub(super) fn of_commit(error: Error) -> Error {
    match error.kind() {
        Kind::Unavailable => error.with_retryable(false).with_hint("it may have been committed: look before you do it again"),
        _ => error,
    }
}

/// The kind of a SQLSTATE: Appendix A of PostgreSQL's manual.
fn kind(state: &str) -> Kind {
    match state {
        "42P01" | "3F000" | "3D000" | "42704" | "3B001" => Kind::NotFound,
        "42P07" | "42P06" | "42710" => Kind::Exists,
        "42501" | "25006" => Kind::Denied,
        "57014" => Kind::Cancelled,
        "0A000" => Kind::Unsupported,
        "54000" | "54001" | "54011" | "54023" => Kind::Exhausted,
        "55P03" | "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" => Kind::Unavailable,
        "XX001" | "XX002" => Kind::Data,
        _ => match state.get(..2) {
            Some("08") => Kind::Unavailable,
            Some("28") => Kind::Unauthenticated,
            Some("53") => Kind::Exhausted,
            Some("40" | "25") => Kind::Precondition,
            Some("58") => Kind::Unavailable,
            _ => Kind::Invalid,
        },
    }
}

fn is_retryable(state: &str) -> bool {
    matches!(kind(state), Kind::Unavailable | Kind::Exhausted) && !state.starts_with("54") || state.starts_with("40")
}

/// The server's message in our form, with the row or key that it tells of.
fn sentence(said: &DbError) -> String {
    let lowered = |text: &str| {
        let text = text.trim().trim_end_matches('.');
        let mut letters = text.chars();
        match (letters.next(), letters.next()) {
            (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
                first.to_lowercase().chain(text.chars().skip(1)).collect()
            }
            _ => text.to_owned(),
        }
    };
    match said.detail() {
        Some(detail) => format!("{}: {}", lowered(said.message()), lowered(detail)),
        None => lowered(said.message()),
    }
}

fn hint(said: &DbError) -> Option<String> {
    if let Some(hint) = said.hint() {
        return Some(hint.trim_end_matches('.').to_owned());
    }
    let hint = match said.code().code() {
        "42501" => "ask for the privilege, or configure another user",
        "53300" => "make pool smaller, or max_connections of the server larger",
        "40001" | "40P01" => "do the transaction again",
        "25P02" => "roll it back, or go back to a savepoint",
        "57P01" | "57P02" | "57P03" => "send the statement again",
        _ => return None,
    };
    Some(hint.to_owned())
}
