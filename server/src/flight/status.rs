//! The project's error as a gRPC status: the one place where a kind becomes a code.

use nexus_flight_catalog::{Error, Kind};
use tonic::{Code, Status};

/// A status travels in a header, percent-encoded, and clients bound all headers together to 8 KiB.
const LONGEST_MESSAGE: usize = 2_000;

/// What a client is told: the code of the error's kind, and its message with place and hint. The cause stays here.
pub fn status(error: &Error) -> Status {
    let mut message = error.to_string();
    if message.len() > LONGEST_MESSAGE {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
        message.push('…');
    }
    Status::new(code(error.kind()), message)
}

/// A stream that the client broke off.
pub fn broken(status: Status) -> Error {
    Error::invalid(format!("the stream of the client broke off: {}", status.message()))
}

fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Exists => Code::AlreadyExists,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Denied => Code::PermissionDenied,
        Kind::Unsupported => Code::Unimplemented,
        Kind::Precondition => Code::FailedPrecondition,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        Kind::Cancelled => Code::Cancelled,
        Kind::Timeout => Code::DeadlineExceeded,
        Kind::Data => Code::DataLoss,
        Kind::Internal => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Place;

    use super::*;

    #[test]
    fn a_status_says_what_the_error_says_and_not_what_caused_it() {
        let cause = std::io::Error::other("password=hunter2");
        let error = Error::not_found("table \"lineitm\" does not exist")
            .with_hint("did you mean \"lineitem\"?")
            .at(Place::Statement { line: 1, column: 15 })
            .caused_by(cause);
        let status = status(&error);
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), "line 1, column 15: table \"lineitm\" does not exist; did you mean \"lineitem\"?");
        assert!(!format!("{status:?}").contains("hunter2"));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let status = status(&Error::invalid("é".repeat(5_000)));
        assert!(status.message().len() <= LONGEST_MESSAGE + '…'.len_utf8());
        assert!(status.message().ends_with("é…"));
    }
}
