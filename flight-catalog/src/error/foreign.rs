//! What DataFusion, Arrow and the SQL parser say, as our errors.

use std::collections::BTreeSet;

use arrow::error::ArrowError;
use datafusion::common::{Location, SchemaError};
use datafusion::error::DataFusionError;

use super::{Cause, Error, Kind, Place, list, nearest};

/// Functions that stand over a window only.
const OVER_WINDOWS: [&str; 8] = ["row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead"];

/// The letters of a foreign message that are kept.
const LONGEST: usize = 1000;

/// Through DataFusion and back an error keeps its kind, place and hint.
impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::External(cause) => from_cause(cause),
            DataFusionError::Context(_, inner) => Error::from(*inner),
            DataFusionError::Diagnostic(diagnostic, inner) => {
                let error = Error::from(*inner);
                match diagnostic.span {
                    Some(span) => error.at(place(span.start)),
                    None => error,
                }
            }
            DataFusionError::Collection(errors) => match errors.into_iter().next() {
                Some(first) => Error::from(first),
                None => Error::internal("an empty list of errors"),
            },
            DataFusionError::ArrowError(inner, _) => Error::from(*inner),
            DataFusionError::ParquetError(inner) => Error::data(sentence(&inner.to_string())).caused_by(inner),
            DataFusionError::ObjectStore(inner) => from_display(Kind::Unavailable, *inner),
            DataFusionError::IoError(inner) => from_io(inner),
            DataFusionError::SQL(inner, _) => from_parser(&inner.to_string()),
            DataFusionError::NotImplemented(message) => from_unsupported(&message),
            DataFusionError::Plan(message) => from_plan(&message),
            DataFusionError::Configuration(message) => Error::invalid(sentence(&message)),
            DataFusionError::SchemaError(inner, _) => from_schema(*inner),
            DataFusionError::Execution(message) => from_plan(&message),
            DataFusionError::ResourcesExhausted(message) => from_memory(message),
            // A mistake in the statement, which it takes for one of its own.
            DataFusionError::Internal(message) if message.contains("unnest on struct") => {
                Error::invalid("unnest of a struct cannot be a part of an expression")
                    .with_hint("name it by itself in the SELECT list, or take a field of the struct by its name")
            }
            DataFusionError::Internal(message) => Error::internal(sentence(&message))
                .with_hint("this is a defect; write the statement in another way until it is mended"),
            DataFusionError::ExecutionJoin(inner) => Error::broken_off().caused_by(inner),
            DataFusionError::Shared(inner) => from_shared(&inner),
            // Of a plan that a client made.
            DataFusionError::Substrait(message) => Error::invalid(sentence(&message)),
            other => Error::internal(sentence(&other.to_string())),
        }
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::ExternalError(cause) => from_cause(cause),
            ArrowError::NotYetImplemented(message) => Error::unsupported(sentence(&message)),
            ArrowError::CsvError(message) | ArrowError::JsonError(message) => Error::data(sentence(&message)),
            ArrowError::ParquetError(message) | ArrowError::IpcError(message) => Error::data(sentence(&message)),
            ArrowError::IoError(_, cause) => from_io(cause),
            ArrowError::DivideByZero => Error::invalid("division by zero"),
            ArrowError::MemoryError(message) => Error::exhausted(sentence(&message)),
            ArrowError::CDataInterface(message) => Error::internal(sentence(&message)),
            ArrowError::CastError(message) => from_cast(&message),
            ArrowError::ArithmeticOverflow(message)
            | ArrowError::ComputeError(message)
            | ArrowError::InvalidArgumentError(message)
            | ArrowError::ParseError(message)
            | ArrowError::SchemaError(message) => Error::invalid(sentence(&message)),
            other => Error::invalid(sentence(&other.to_string())),
        }
    }
}

fn from_cause(cause: Cause) -> Error {
    let cause = match cause.downcast::<Error>() {
        Ok(ours) => return *ours,
        Err(cause) => cause,
    };
    let cause = match cause.downcast::<DataFusionError>() {
        Ok(inner) => return Error::from(*inner),
        Err(cause) => cause,
    };
    match cause.downcast::<ArrowError>() {
        Ok(inner) => Error::from(*inner),
        Err(cause) => from_other(cause),
    }
}

fn from_other(cause: Cause) -> Error {
    let text = cause.to_string();
    // The pattern is on lines of its own between the two.
    if text.starts_with("regex parse error:") {
        let why = text.rsplit_once("error: ").map_or("", |(_, why)| why).trim();
        return Error::invalid(format!("the regular expression is not valid: {why}"));
    }
    Error::unavailable(sentence(&text)).caused_by(cause)
}

/// A shared error cannot be taken apart, so what it says of itself is copied.
fn from_shared(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::Shared(inner) => from_shared(inner),
        DataFusionError::Context(_, inner) => from_shared(inner),
        DataFusionError::External(cause) => match cause.downcast_ref::<Error>() {
            Some(ours) => ours.copied(),
            None => Error::unavailable(sentence(&cause.to_string())),
        },
        DataFusionError::ResourcesExhausted(message) => Error::from(DataFusionError::ResourcesExhausted(message.clone())),
        DataFusionError::NotImplemented(message) => from_unsupported(message),
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::ExternalError(cause) if cause.is::<Error>() => {
                cause.downcast_ref::<Error>().map_or_else(|| Error::internal("no cause"), Error::copied)
            }
            ArrowError::DivideByZero => Error::invalid("division by zero"),
            other => Error::invalid(sentence(&other.to_string())),
        },
        other => Error::invalid(sentence(&other.strip_backtrace())),
    }
}

fn from_display(kind: Kind, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(kind, sentence(&cause.to_string())).caused_by(cause)
}

fn from_io(cause: std::io::Error) -> Error {
    let kind = match cause.kind() {
        std::io::ErrorKind::NotFound => Kind::NotFound,
        std::io::ErrorKind::PermissionDenied => Kind::Denied,
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => Kind::Data,
        std::io::ErrorKind::TimedOut => Kind::Timeout,
        _ => Kind::Unavailable,
    };
    from_display(kind, cause)
}

/// DataFusion writes what it would propose on a line of its own.
fn from_plan(text: &str) -> Error {
    if let Some(error) = from_signature(text) {
        return error;
    }
    let Some((message, proposed)) = text.split_once("\nDid you mean '") else { return Error::invalid(sentence(text)) };
    let name = message.split('\'').nth(1).unwrap_or_default();
    let error = Error::invalid(sentence(message));
    if OVER_WINDOWS.contains(&name) {
        return error.with_hint(format!("it stands over a window: {name}(…) OVER (…)"));
    }
    error.with_hint(format!("did you mean \"{}\"?", proposed.trim_end_matches(['?', '\''])))
}

/// Of arguments that a function does not take DataFusion says all that it tried, and at the end what would go.
fn from_signature(text: &str) -> Option<Error> {
    let (_, after) = text.split_once("No function matches the given name and argument types '")?;
    let (call, after) = after.split_once("'. ")?;
    let candidates = after.split_once("Candidate functions:\n").map_or("", |(_, candidates)| candidates);
    let candidates: Vec<&str> = candidates.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let is_plain =
        |candidate: &&str| !["Coerc", "UserDefined", "NullAry", "TypeSignature"].iter().any(|odd| candidate.contains(odd));
    let hint = if (1..=3).contains(&candidates.len()) && candidates.iter().all(is_plain) {
        format!("there is {}", candidates.join(", "))
    } else {
        "give it the arguments that it takes, or cast them".to_owned()
    };
    Some(Error::invalid(format!("there is no function {call}")).with_hint(hint))
}

/// A TIMESTAMP of which nobody says more is in nanoseconds, which reach less far than the columns that it is compared with.
fn from_cast(text: &str) -> Error {
    match text.split_once(" to Nanosecond. The dates that can be represented as nanoseconds have to be between ") {
        Some((overflow, _)) => Error::invalid(format!("{} to a timestamp in nanoseconds", sentence(overflow)))
            .with_hint("those are of 1677-09-21 to 2262-04-11; write CAST('…' AS TIMESTAMP(6)), which is in microseconds"),
        None => Error::invalid(sentence(text)),
    }
}

/// The pool lists who holds how much, of all statements, and says at the end what was missing.
fn from_memory(message: String) -> Error {
    let missing = message.rsplit_once("Failed to allocate additional ").and_then(|(_, missing)| {
        let (more, rest) = missing.split_once(" for ")?;
        let (consumer, _) = rest.split_once(" with ")?;
        let (free, _) = rest.rsplit_once(" - ")?.1.split_once(" remain available")?;
        Some((consumer, more, free))
    });
    let (whose, key) = match message.ends_with("remain available for one user") {
        true => (" of one user", "limits.memory_per_user"),
        false => ("", "limits.memory"),
    };
    let missing = missing.map(|(consumer, more, free)| {
        format!("the memory limit{whose} is reached: {consumer} needs {more} more and {free} are free")
    });
    Error::exhausted(missing.unwrap_or_else(|| sentence(&message)))
        .with_hint(format!("ask for less at once, or raise {key} in the configuration"))
        .caused_by(DataFusionError::ResourcesExhausted(message))
}

fn from_unsupported(text: &str) -> Error {
    if let Some((_, call)) =
        text.split_once("Aggregate can not be used as a sliding accumulator because `retract_batch` is not implemented: ")
    {
        let name = call.split('(').next().unwrap_or_default();
        return Error::unsupported(format!("{name} has no answer over a frame whose start moves"))
            .with_hint("begin the frame at UNBOUNDED PRECEDING");
    }
    if text.starts_with("Multiple recursive references") {
        return Error::unsupported("a recursive query refers to itself more than once")
            .with_hint("name it once in its second part");
    }
    let Some((_, expression)) = text.split_once("Physical plan does not support logical expression ") else {
        return Error::unsupported(sentence(text));
    };
    match expression.split(['(', ' ']).next() {
        Some("AggregateFunction") => {
            Error::invalid("an aggregate function cannot stand here").with_hint("compute it in a sub-query, and use its column")
        }
        Some("Exists" | "InSubquery") => Error::unsupported("IN, ANY and EXISTS with a sub-query stand in WHERE and HAVING only")
            .with_hint("write it as a join, or count: (select count(*) from …) > 0"),
        Some("ScalarSubquery") => {
            Error::unsupported("a sub-query of this form cannot refer to the query around it").with_hint("write it as a join")
        }
        _ => Error::unsupported("an expression of this form cannot stand here")
            .with_hint("compute it in a sub-query of FROM, and use its column"),
    }
}

/// sqlparser writes the position into its message: `… at Line: 1, Column: 8`.
fn from_parser(text: &str) -> Error {
    let text = text.strip_prefix("sql parser error: ").unwrap_or(text);
    let (message, position) = text.rsplit_once(" at Line: ").unwrap_or((text, ""));
    let error = Error::invalid(format!("syntax error: {}", sentence(message)));
    match position.split_once(", Column: ").map(|(line, column)| (line.parse(), column.trim().parse())) {
        Some((Ok(line), Ok(column))) => error.at(Place::Statement { line, column }),
        _ => error,
    }
}

fn from_schema(error: SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            // Each once, however many tables have it: what a statement selects of a table comes beside that.
            let mut seen = BTreeSet::new();
            let known: Vec<&str> = valid_fields.iter().map(|column| column.name()).filter(|name| seen.insert(*name)).collect();
            let error = Error::invalid(format!("column \"{}\" does not exist", field.name()));
            match nearest(field.name(), known.iter().copied()) {
                Some(name) => error.with_hint(format!("did you mean \"{name}\"?")),
                None if known.is_empty() => error,
                None => error.with_hint(format!("the columns here are {}", list(&known))),
            }
        }
        other => Error::invalid(sentence(&other.to_string())),
    }
}

fn place(location: Location) -> Place {
    Place::Statement { line: location.line, column: location.column }
}

/// A foreign message in our form: no leading label, no backtrace, no syntax tree, a lower first letter, no final stop.
fn sentence(text: &str) -> String {
    let mut text = text.split("\n\nbacktrace:").next().unwrap_or(text).trim();
    for label in ["Error during planning: ", "Execution error: ", "External error: ", "Arrow error: ", "Parquet error: "] {
        text = text.strip_prefix(label).unwrap_or(text);
    }
    let text = without_tree(text).trim_end_matches('.');
    // What is longer shows what it is about, which may be all of a file.
    let text = text.char_indices().nth(LONGEST).and_then(|(end, _)| text.get(..end)).unwrap_or(text);
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        // An acronym keeps its capitals.
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}

/// What stands before the syntax tree that a message ends with, as Rust shows it: `Substring { expr: Value(…`. Of the tree it
/// leaves the first word, which tells what it is.
fn without_tree(text: &str) -> &str {
    let text = text.split(", got Literal(").next().unwrap_or(text);
    let is_field = |at: usize| {
        let name = text.get(at + 3..).unwrap_or_default();
        let name = name.split(':').next().unwrap_or_default();
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let Some((at, _)) = text.match_indices(" { ").find(|(at, _)| is_field(*at)) else { return text };
    let word = text.get(..at).unwrap_or_default();
    let start = word.rfind(' ').map_or(0, |space| space + 1);
    let end = text.get(start..at).and_then(|word| word.find('(')).map_or(at, |open| start + open);
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use datafusion::common::Column;

    use super::*;

    fn said(error: DataFusionError) -> String {
        Error::from(error).to_string()
    }

    #[test]
    fn arguments_that_a_function_does_not_take() {
        let planned = |text: &str| said(DataFusionError::Plan(text.to_owned()));
        assert_eq!(
            planned(
                "Internal error: Function 'sum' failed to match any signature, errors: Error during planning: x.\nThis issue was likely caused by a bug. No function matches the given name and argument types 'sum(Utf8)'. You might need to add explicit type casts.\n\tCandidate functions:\n\tsum(Coercion(TypeSignatureClass::Decimal))"
            ),
            "there is no function sum(Utf8); give it the arguments that it takes, or cast them"
        );
        assert_eq!(
            planned(
                "Failed to coerce arguments. No function matches the given name and argument types 'array_length(Int64)'. You might need to add explicit type casts.\n\tCandidate functions:\n\tarray_length(array)\n\tarray_length(array, index)"
            ),
            "there is no function array_length(Int64); there is array_length(array), array_length(array, index)"
        );
        assert_eq!(
            planned("Invalid function 'lag'.\nDid you mean 'log'?"),
            "invalid function 'lag'; it stands over a window: lag(…) OVER (…)"
        );
    }

    #[test]
    fn a_time_that_nanoseconds_do_not_reach() {
        // As `arrow::compute::cast` says it.
        let text = "Overflow converting 9999-12-31 23:59:59.999999 to Nanosecond. The dates that can be represented as nanoseconds have to be between 1677-09-21T00:12:44.0 and 2262-04-11T23:47:16.854775804";
        let cast = |text: &str| said(ArrowError::CastError(text.to_owned()).into());
        assert_eq!(
            cast(text),
            "overflow converting 9999-12-31 23:59:59.999999 to a timestamp in nanoseconds; those are of 1677-09-21 to 2262-04-11; write CAST('…' AS TIMESTAMP(6)), which is in microseconds"
        );
        assert_eq!(cast("Cannot cast string 'x' to value of Int32 type"), "cannot cast string 'x' to value of Int32 type");
    }

    #[test]
    fn columns_that_are_there_are_named_once() {
        let columns = [Some("t"), Some("u"), None].map(|table| Column::new(table, "id"));
        let error = SchemaError::FieldNotFound { field: Box::new(Column::from_name("salary")), valid_fields: columns.into() };
        assert_eq!(from_schema(error).to_string(), "column \"salary\" does not exist; the columns here are \"id\"");
    }

    #[test]
    fn memory_that_is_missing() {
        let full = "Additional allocation failed for S[0] with top memory consumers (across reservations) as:\n  S[1] consumed 9.0 MB.\nError: Failed to allocate additional 4.2 MB for S[0] with 83.4 MB already allocated for this reservation - 1460.7 KB remain available for the total pool";
        assert_eq!(
            Error::from(DataFusionError::ResourcesExhausted(full.to_owned())).message(),
            "the memory limit is reached: S[0] needs 4.2 MB more and 1460.7 KB are free"
        );
    }

    #[test]
    fn no_syntax_trees() {
        let unsupported = |text: &str| said(DataFusionError::NotImplemented(text.to_owned()));
        assert_eq!(
            unsupported("Unsupported JOIN operator Anti(On(Value(ValueWithSpan { value: Boolean(true) })))"),
            "unsupported JOIN operator Anti"
        );
        assert_eq!(
            unsupported("Unsupported ast node in sqltorel: Collate { expr: Value(x) }"),
            "unsupported ast node in sqltorel: Collate"
        );
        assert_eq!(
            unsupported("Physical plan does not support logical expression Exists(Exists { subquery: x })"),
            "IN, ANY and EXISTS with a sub-query stand in WHERE and HAVING only; write it as a join, or count: (select count(*) from …) > 0"
        );
        assert_eq!(
            unsupported("Physical plan does not support logical expression ScalarSubquery(<subquery>)"),
            "a sub-query of this form cannot refer to the query around it; write it as a join"
        );
        assert_eq!(
            unsupported(
                "Aggregate can not be used as a sliding accumulator because `retract_batch` is not implemented: string_agg(t.name, Utf8(\",\")) ORDER BY [t.id ASC NULLS LAST]"
            ),
            "string_agg has no answer over a frame whose start moves; begin the frame at UNBOUNDED PRECEDING"
        );
        assert_eq!(
            unsupported("Multiple recursive references to the same CTE are not supported"),
            "a recursive query refers to itself more than once; name it once in its second part"
        );
        assert_eq!(
            unsupported("Physical plan does not support logical expression GroupingSet(Rollup([x]))"),
            "an expression of this form cannot stand here; compute it in a sub-query of FROM, and use its column"
        );
        assert_eq!(unsupported("the object { a } is odd"), "the object { a } is odd");
    }
}
