//! The one error of the project: what went wrong, where, why, what to do, and whether to try again.

use std::fmt;

use arrow::error::ArrowError;
use datafusion::common::{Location, SchemaError};
use datafusion::error::DataFusionError;

/// The result of everything in this project that can fail for a user to see.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What sort of trouble it is. Each protocol maps a kind to its own code in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The statement, an argument or the configuration is wrong.
    Invalid,
    /// A name is not there, or is hidden from this principal.
    NotFound,
    /// A name that was to be made is there.
    Exists,
    /// No credential, or one that does not hold.
    Unauthenticated,
    /// The principal is known and may not do this.
    Denied,
    /// A part of SQL or of a protocol that is not offered here.
    Unsupported,
    /// The state has moved on: a changed table, an expired ticket.
    Precondition,
    /// A bound was reached: memory, queue, tokens, nesting.
    Exhausted,
    /// A source or this server cannot be reached just now.
    Unavailable,
    /// The caller gave up.
    Cancelled,
    /// The time allowed ran out.
    Timeout,
    /// A source holds data that cannot be read.
    Data,
    /// A defect of ours.
    Internal,
}

impl Kind {
    /// The name in logs, metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Invalid => "invalid",
            Kind::NotFound => "not_found",
            Kind::Exists => "exists",
            Kind::Unauthenticated => "unauthenticated",
            Kind::Denied => "denied",
            Kind::Unsupported => "unsupported",
            Kind::Precondition => "precondition",
            Kind::Exhausted => "exhausted",
            Kind::Unavailable => "unavailable",
            Kind::Cancelled => "cancelled",
            Kind::Timeout => "timeout",
            Kind::Data => "data",
            Kind::Internal => "internal",
        }
    }
}

/// Where the trouble is, as the user would look for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A position in the statement, both counted from 1.
    Statement {
        /// The line.
        line: u64,
        /// The column in it, in characters.
        column: u64,
    },
    /// A file or object, and the line in it where one is known.
    File {
        /// Its path or address.
        path: String,
        /// The line in it.
        line: Option<u64>,
    },
    /// A key of the configuration, dotted: `catalogs.lake.path`.
    Key(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Statement { line, column } => write!(f, "line {line}, column {column}"),
            Place::File { path, line: Some(line) } => write!(f, "{path}:{line}"),
            Place::File { path, line: None } => f.write_str(path),
            Place::Key(key) => f.write_str(key),
        }
    }
}

/// An error as data. The message is lower case without a final stop and says what and why; the hint says what to do.
///
/// ```
/// use nexus_flight_catalog::{Error, Kind};
/// let error = Error::not_found("table \"lineitm\" does not exist").with_hint("did you mean \"lineitem\"?");
/// assert_eq!(error.kind(), Kind::NotFound);
/// assert_eq!(error.to_string(), "table \"lineitm\" does not exist; did you mean \"lineitem\"?");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    message: String,
    place: Option<Place>,
    hint: Option<String>,
    retryable: bool,
    source: Option<Cause>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {
        $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self { Self::new(Kind::$kind, message) })*
    };
}

impl Error {
    /// An error of a kind. Only [`Kind::Unavailable`] and [`Kind::Exhausted`] are worth trying again unless said otherwise.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let retryable = matches!(kind, Kind::Unavailable | Kind::Exhausted);
        Self(Box::new(Inner { kind, message: message.into(), place: None, hint: None, retryable, source: None }))
    }

    constructors! {
        /// The statement, an argument or the configuration is wrong.
        invalid => Invalid;
        /// A name is not there.
        not_found => NotFound;
        /// A name is there already.
        exists => Exists;
        /// No credential, or one that does not hold.
        unauthenticated => Unauthenticated;
        /// Not allowed to this principal.
        denied => Denied;
        /// Not offered here.
        unsupported => Unsupported;
        /// The state has moved on.
        precondition => Precondition;
        /// A bound was reached.
        exhausted => Exhausted;
        /// Not reachable just now.
        unavailable => Unavailable;
        /// Data that cannot be read.
        data => Data;
        /// A defect of ours.
        internal => Internal;
    }

    /// The caller gave up.
    pub fn cancelled() -> Self {
        Self::new(Kind::Cancelled, "the statement was cancelled")
    }

    /// What to do about it.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Where it is. A place that is known already is more exact, and stays.
    pub fn at(mut self, place: Place) -> Self {
        self.0.place.get_or_insert(place);
        self
    }

    /// The error beneath, kept for logs; the message must stand without it.
    pub fn caused_by(mut self, cause: impl Into<Cause>) -> Self {
        self.0.source = Some(cause.into());
        self
    }

    /// Whether the same call may work if made again.
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// What sort of trouble it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What and why, without place and hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where it is, if that is known.
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// What to do, if that is known.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Whether the same call may work if made again.
    pub fn retryable(&self) -> bool {
        self.0.retryable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.0.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(hint) = &self.0.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, message, place, hint, retryable, source } = &*self.0;
        f.debug_struct("Error")
            .field("kind", kind)
            .field("message", message)
            .field("place", place)
            .field("hint", hint)
            .field("retryable", retryable)
            .field("source", source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|cause| cause as _)
    }
}

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
            DataFusionError::NotImplemented(message) => Error::unsupported(sentence(&message)),
            DataFusionError::Plan(message) => from_plan(&message),
            DataFusionError::Configuration(message) => Error::invalid(sentence(&message)),
            DataFusionError::SchemaError(inner, _) => from_schema(*inner),
            DataFusionError::Execution(message) => Error::invalid(sentence(&message)),
            DataFusionError::ResourcesExhausted(message) => Error::exhausted(sentence(&message))
                .with_hint("ask for less at once, or raise limits.memory in the configuration"),
            DataFusionError::Internal(message) => Error::internal(sentence(&message))
                .with_hint("this is a defect; write the statement in another way until it is mended"),
            DataFusionError::ExecutionJoin(inner) => Error::internal("a task of this statement ended early").caused_by(inner),
            DataFusionError::Shared(inner) => from_shared(&inner),
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
            ArrowError::ArithmeticOverflow(message)
            | ArrowError::CastError(message)
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
        Err(cause) => Error::unavailable(sentence(&cause.to_string())).caused_by(cause),
    }
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

impl Error {
    /// The same error without the cause, for the second and later of those who wait for one result.
    pub fn copied(&self) -> Self {
        let Inner { kind, message, place, hint, retryable, .. } = &*self.0;
        Self(Box::new(Inner {
            kind: *kind,
            message: message.clone(),
            place: place.clone(),
            hint: hint.clone(),
            retryable: *retryable,
            source: None,
        }))
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
    match text.split_once("\nDid you mean '") {
        Some((message, proposed)) => {
            Error::invalid(sentence(message)).with_hint(format!("did you mean \"{}\"?", proposed.trim_end_matches(['?', '\''])))
        }
        None => Error::invalid(sentence(text)),
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
            let known: Vec<&str> = valid_fields.iter().map(|column| column.name()).collect();
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

/// A foreign message in our form: no leading label, no backtrace, a lower first letter, no final stop.
fn sentence(text: &str) -> String {
    let mut text = text.split("\n\nbacktrace:").next().unwrap_or(text).trim();
    for label in ["Error during planning: ", "Execution error: ", "External error: ", "Arrow error: ", "Parquet error: "] {
        text = text.strip_prefix(label).unwrap_or(text);
    }
    let text = text.trim_end_matches('.');
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        // An acronym keeps its capitals.
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}

/// The known name that is nearest to a wrong one, if any is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The hint about a wrong name: the known one that is nearest, or else what `otherwise` says.
pub fn suggestion(name: &str, known: &[&str], otherwise: impl FnOnce() -> String) -> String {
    nearest(name, known.iter().copied()).map_or_else(otherwise, |near| format!("did you mean \"{near}\"?"))
}

/// Names for a message: quoted, and cut after the first ten.
pub fn list(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(10).map(|name| format!("\"{name}\"")).collect();
    let rest = names.len().saturating_sub(10);
    if rest > 0 { format!("{} and {rest} more", shown.join(", ")) } else { shown.join(", ") }
}
