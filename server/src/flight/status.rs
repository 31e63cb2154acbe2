//! The project's error as a gRPC status: the one place where a kind becomes a code.

use axum::http::HeaderValue;
use axum::response::Response;
use nexus_flight_catalog::{Error, Kind};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::printable::shortened;
use crate::wire::body;

/// What a client is told: the code of the error's kind, and its message with place and hint. The cause stays here.
pub fn status(error: &Error) -> Status {
    // It travels in a header, percent-encoded, and clients bound all headers together to 8 KiB.
    let message = shortened(error.to_string());
    let code = code(error.kind());
    match error.retry_after() {
        // As google.rpc.RetryInfo, by which clients wait by themselves.
        Some(wait) => Status::with_error_details(code, message, ErrorDetails::with_retry_info(Some(wait))),
        None => Status::new(code, message),
    }
}

/// A stream that the client broke off, or that we did not read to its end.
pub fn broken(status: Status) -> Error {
    let broke_off = || Error::invalid(format!("the stream of the client broke off: {}", status.message()));
    body::refusal(&status).unwrap_or_else(broke_off)
}

/// A response as it should be: of a message that is no protobuf tonic says that the server is at fault.
pub async fn of_the_client(mut response: Response) -> Response {
    let said = Status::from_header_map(response.headers()).filter(|status| status.code() == Code::Internal);
    if said.is_some_and(|status| status.message().starts_with("failed to decode Protobuf message")) {
        response.headers_mut().insert(Status::GRPC_STATUS, HeaderValue::from(i32::from(Code::InvalidArgument)));
    }
    response
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
    use std::time::Duration;

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

    #[tokio::test]
    async fn what_is_no_protobuf_is_the_fault_of_the_client() {
        for (message, wanted) in
            [("failed to decode Protobuf message: buffer underflow", Code::InvalidArgument), ("", Code::Internal)]
        {
            let response = of_the_client(Status::internal(message).into_http()).await;
            assert_eq!(Status::from_header_map(response.headers()).unwrap().code(), wanted);
        }
    }

    #[test]
    fn a_client_is_told_when_to_come_back() {
        let status = status(&Error::exhausted("full").with_retry_after(Duration::from_secs(3)));
        let told = status.get_error_details().retry_info().and_then(|retry| retry.retry_delay);
        assert_eq!(told, Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let status = status(&Error::invalid("é".repeat(5_000)));
        assert!(status.message().len() <= 2_000 + '…'.len_utf8());
        assert!(status.message().ends_with("é…"));
    }
}
