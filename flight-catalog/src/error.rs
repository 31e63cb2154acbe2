//! The one error of the project: what went wrong, where, why, what to do, and whether to try again.

mod foreign;

use std::fmt;
use std::time::Duration;

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
    retry_after: Option<Duration>,
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
        let message = message.into();
        Self(Box::new(Inner { kind, message, place: None, hint: None, retryable, retry_after: None, source: None }))
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

    /// The work on a statement ended by itself, as a panic ends it. What that says is for the log alone: it may quote values.
    pub fn broken_off() -> Self {
        Self::internal("the engine failed on this statement").with_hint(
            "where a function gets a value beyond what it can compute with, leave such values out; \
             the log of the gateway says what failed",
        )
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

    /// When it is worth to try again.
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        (self.0.retryable, self.0.retry_after) = (true, Some(wait));
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

    /// When it is worth to try again, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The same error without the cause, for the second and later of those who wait for one result.
    pub fn copied(&self) -> Self {
        let Inner { kind, message, place, hint, retryable, retry_after, .. } = &*self.0;
        Self(Box::new(Inner {
            kind: *kind,
            message: message.clone(),
            place: place.clone(),
            hint: hint.clone(),
            retryable: *retryable,
            retry_after: *retry_after,
            source: None,
        }))
    }

    /// The same error in other words, with this one as its cause. It has no place: this one's leads nowhere where it is told.
    pub fn retold(self, message: impl Into<String>) -> Self {
        let mut told = self.copied();
        (told.0.message, told.0.place) = (message.into(), None);
        told.caused_by(self)
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
        let Inner { kind, message, place, hint, retryable, retry_after, source } = &*self.0;
        f.debug_struct("Error")
            .field("kind", kind)
            .field("message", message)
            .field("place", place)
            .field("hint", hint)
            .field("retryable", retryable)
            .field("retry_after", retry_after)
            .field("source", source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|cause| cause as _)
    }
}

/// The bytes of names that are compared, which takes time in the product of their lengths: nobody mistypes longer ones.
const LONGEST_COMPARED: usize = 256;

/// The known name that is nearest to a wrong one, if any is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST_COMPARED {
        return None;
    }
    let wanted = name.to_lowercase();
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST_COMPARED)
        .map(|candidate| (strsim::jaro_winkler(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The hint about a wrong name: the known one that is nearest, or else what `otherwise` says.
pub fn suggestion(name: &str, known: &[&str], otherwise: impl FnOnce() -> String) -> String {
    nearest(name, known.iter().copied()).map_or_else(otherwise, |near| format!("did you mean \"{near}\"?"))
}

/// A text for a message, cut to a length in bytes.
pub fn shortened(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}

/// Names for a message: quoted, and cut after the first ten.
pub fn list(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(10).map(|name| format!("\"{name}\"")).collect();
    let rest = names.len().saturating_sub(10);
    if rest > 0 { format!("{} and {rest} more", shown.join(", ")) } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn what_is_retold_is_the_same_error_without_its_place() {
        let wait = Duration::from_secs(2);
        let place = Place::Statement { line: 1, column: 8 };
        let told = Error::data("cut off").with_hint("wait").with_retry_after(wait).at(place).retold("it is cut off");
        assert_eq!(told.to_string(), "it is cut off; wait");
        assert_eq!((told.kind(), told.retryable(), told.retry_after()), (Kind::Data, true, Some(wait)));
        assert_eq!(told.source().map(ToString::to_string).as_deref(), Some("line 1, column 8: cut off; wait"));
    }
}
