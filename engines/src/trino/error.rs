//! What Trino says is wrong, and what is wrong with how it is reached, as our error.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nexus_flight_catalog::{Error, Kind, Place};
use secrecy::ExposeSecret;
use serde::Deserialize;
use url::Url;

use super::client::SLOWEST;
use super::config::{Config, Login};
use crate::told::{deepest, hidden, host, sentence};

/// The most bytes of a message of Trino that are told.
const LONGEST: usize = 2_000;
/// The most of the body of a refusal that are told.
const LONGEST_REFUSAL: usize = 300;
/// The letters of the longest name of an error.
const LONGEST_NAME: usize = 64;

/// Why a statement failed (`QueryError` of Trino's client). It may hold secrets until it is an error, so it is not shown.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failure {
    message: Option<String>,
    error_name: Option<String>,
    error_type: Option<String>,
    error_location: Option<Location>,
}

/// Where in the statement, both counted from 1.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    line_number: i64,
    column_number: i64,
}

/// The error that a failed statement is, with its place in the statement where Trino knows one. The id is that of the statement
/// there.
pub(super) fn failed(failure: Failure, id: &str, config: &Config) -> Error {
    let Failure { message, error_name, error_type, error_location } = failure;
    // It is compared and told, so nothing but a word.
    let name = error_name.filter(|name| is_name(name)).unwrap_or_default();
    let kind = kind(&name, error_type.as_deref().unwrap_or_default());
    let mut text = message.as_deref().unwrap_or_default();
    let mut place = None;
    if let Some(Location { line_number, column_number }) = error_location {
        // The message begins with the place too.
        text = text.strip_prefix(&format!("line {line_number}:{column_number}: ")).unwrap_or(text);
        if let (Ok(line), Ok(column)) = (u64::try_from(line_number), u64::try_from(column_number)) {
            place = Some(Place::Statement { line, column });
        }
    }
    let text = sentence(&hidden(text, &secrets(config)), LONGEST);
    let text = if text.is_empty() { "the statement failed" } else { text.as_str() };
    let shown = if name.is_empty() { String::new() } else { format!(" ({name})") };
    let error = Error::new(kind, format!("trino: {text}{shown}"))
        .with_retryable(is_retryable(kind, &name))
        .with_hint(format!("{}; trino has it as query {id}", hint(kind)));
    match place {
        Some(place) => error.at(place),
        None => error,
    }
}

fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_letter)
}

/// The kind of an error by its name and its type (`StandardErrorCode` and `ErrorType` of Trino).
fn kind(name: &str, sort: &str) -> Kind {
    match name {
        "TABLE_NOT_FOUND" | "SCHEMA_NOT_FOUND" | "CATALOG_NOT_FOUND" | "NOT_FOUND" => Kind::NotFound,
        "PERMISSION_DENIED" | "READ_ONLY_VIOLATION" => Kind::Denied,
        "NOT_SUPPORTED" | "UNSUPPORTED_SUBQUERY" => Kind::Unsupported,
        "EXCEEDED_TIME_LIMIT" | "ABANDONED_QUERY" => Kind::Timeout,
        "USER_CANCELED" => Kind::Cancelled,
        "ADMINISTRATIVELY_KILLED" => Kind::Unavailable,
        "TRANSACTION_CONFLICT" => Kind::Precondition,
        "EXCEEDED_FUNCTION_MEMORY_LIMIT" | "QUERY_HAS_TOO_MANY_STAGES" => Kind::Exhausted,
        _ if name.ends_with("ALREADY_EXISTS") => Kind::Exists,
        // Each connector has its own of these: HIVE_BAD_DATA, ICEBERG_INVALID_METADATA.
        _ if name.ends_with("_BAD_DATA") || name.ends_with("_INVALID_METADATA") => Kind::Data,
        _ => match sort {
            "USER_ERROR" => Kind::Invalid,
            "INSUFFICIENT_RESOURCES" => Kind::Exhausted,
            _ => Kind::Unavailable,
        },
    }
}

/// The same statement reaches a limit of one statement again; one of all statements may be free later.
fn is_retryable(kind: Kind, name: &str) -> bool {
    match kind {
        Kind::Unavailable => name != "ADMINISTRATIVELY_KILLED",
        Kind::Exhausted => !name.starts_with("EXCEEDED_") && name != "QUERY_HAS_TOO_MANY_STAGES",
        Kind::Precondition => true,
        _ => false,
    }
}

fn hint(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "correct the statement",
        Kind::NotFound => "look which names there are, and which the user of the catalog may see",
        Kind::Denied => "grant it to the user of the catalog",
        Kind::Unsupported => "write it in another way",
        Kind::Exhausted => "ask for less at once, or try again later",
        Kind::Timeout => "ask for less, read the answer faster, or have trino allow more time",
        Kind::Cancelled => "it was ended there; send it again if it is still wanted",
        Kind::Data => "see what is wrong with the table there",
        _ => "send it again; if it stays so, ask who runs trino",
    }
}

/// The error that an answer by HTTP is which is no page; `body` is what it has, or its beginning.
pub(super) fn refusal(status: u16, body: &[u8], retry_after: Option<Duration>, config: &Config) -> Error {
    let host = host(&config.url);
    // Trino says why in a line of text; a page for browsers, or what is for programs, is told to nobody.
    let text = String::from_utf8_lossy(body);
    let line = text.trim().lines().next().unwrap_or_default();
    let said = sentence(&hidden(line, &secrets(config)), LONGEST_REFUSAL);
    let said = if said.is_empty() || said.starts_with(['<', '{']) { String::new() } else { format!(": {said}") };
    let error = match status {
        401 => Error::unauthenticated(format!("trino at {host} does not know who asks{said}"))
            .with_hint("check user, and password or token, of the catalog"),
        403 => Error::denied(format!("trino at {host} does not allow this{said}"))
            .with_hint("check user, and password or token, of the catalog"),
        300..=399 => Error::unavailable(format!("trino at {host} answers with {status}, which leads elsewhere"))
            .with_retryable(false)
            .with_hint("set url to where it leads"),
        404 | 405 | 410 => Error::unavailable(format!("what answers at {host} with {status} is no trino"))
            .with_retryable(false)
            .with_hint("check url"),
        429 | 500.. => {
            let error = Error::unavailable(format!("trino at {host} answers with {status}{said}"));
            match retry_after {
                Some(wait) => error.with_retry_after(wait),
                None => error,
            }
        }
        _ => Error::invalid(format!("trino at {host} answers with {status}{said}"))
            .with_hint("check url, user, session and client_tags of the catalog"),
    };
    error.at(config.place.clone())
}

/// The error of a page that is asked for by its address, and not there any more.
pub(super) fn forgotten(id: &str, config: &Config) -> Error {
    Error::unavailable(format!("trino at {} does not know the statement any more", host(&config.url)))
        .with_hint(format!("it may have been started again; send the statement again; it was query {id}"))
}

/// The error of a segment that its store does not give.
pub(super) fn no_segment(status: u16, url: &Url, config: &Config) -> Error {
    let error = Error::unavailable(format!("{} answers with {status}", who(url, config)));
    match status {
        300..=399 => error.with_retryable(false).with_hint(
            "redirects are not followed: set protocol.spooling.retrieval-mode of trino to STORAGE or COORDINATOR_PROXY, \
             or spooling = false here",
        ),
        _ => error.with_hint("send the statement again; where the store cannot be read from here, set spooling = false"),
    }
}

/// The error of a call that was not answered, or not to its end. No address beyond the host is in it, and no header.
pub(super) fn broken(cause: reqwest::Error, url: &Url, config: &Config) -> Error {
    let cause = cause.without_url();
    let who = who(url, config);
    let why = deepest(&cause);
    let (message, hint) = if cause.is_connect() {
        let hint = match why.contains("certificate") {
            true => "check ca and certificate",
            false => "check url, and whether the server runs",
        };
        (format!("{who} does not answer: {why}"), hint)
    } else if cause.is_timeout() {
        let silence = config.read_timeout.as_secs();
        (
            format!("{who} was silent for {silence} s, or its answer took {} s", silence.saturating_mul(SLOWEST.into())),
            "see whether the server runs; where it takes so long, raise the option read_timeout",
        )
    } else {
        (format!("{who} broke off its answer: {why}"), "send the statement again")
    };
    Error::unavailable(message).with_hint(hint).at(config.place.clone()).caused_by(cause)
}

fn who(url: &Url, config: &Config) -> String {
    match url.origin() == config.url.origin() {
        true => format!("trino at {}", host(url)),
        false => format!("the store of trino's segments at {}", host(url)),
    }
}

/// What we log in with, as it is and as it is sent.
fn secrets(config: &Config) -> Vec<String> {
    match &config.login {
        Login::None => Vec::new(),
        Login::Token(token) => vec![token.expose_secret().to_owned()],
        Login::Password(password) => {
            let password = password.expose_secret();
            // The longer one first: the password may be a part of it.
            vec![STANDARD.encode(format!("{}:{password}", config.user)), password.to_owned()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trino::client::tests::config;

    fn said(json: &str) -> Error {
        let mut config = config("http://trino:8080");
        config.login = Login::Password("hunter2".into());
        failed(serde_json::from_str(json).unwrap(), "20250101_000000_00000_abcde", &config)
    }

    #[test]
    fn a_failure_is_told_with_its_place_and_name() {
        let error = said(
            r#"{"message":"line 1:8: Column 'x' cannot be resolved","errorCode":47,"errorName":"COLUMN_NOT_FOUND","errorType":"USER_ERROR",
                "errorLocation":{"lineNumber":1,"columnNumber":8},"failureInfo":{"type":"x","stack":[]}}"#,
        );
        assert_eq!(error.kind(), Kind::Invalid);
        assert_eq!(
            error.to_string(),
            "line 1, column 8: trino: column 'x' cannot be resolved (COLUMN_NOT_FOUND); correct the statement; trino has it as query 20250101_000000_00000_abcde"
        );
        let bare = said(r#"{"errorName":"<b>","errorLocation":{"lineNumber":-1,"columnNumber":0}}"#);
        assert_eq!((bare.kind(), bare.message()), (Kind::Unavailable, "trino: the statement failed"));
        assert_eq!(bare.place(), None);
    }

    #[test]
    fn kinds_and_whether_to_try_again() {
        let of = |name: &str, sort: &str| {
            let error = said(&format!(r#"{{"message":"m","errorName":"{name}","errorType":"{sort}"}}"#));
            (error.kind(), error.retryable())
        };
        assert_eq!(of("SYNTAX_ERROR", "USER_ERROR"), (Kind::Invalid, false));
        assert_eq!(of("TABLE_NOT_FOUND", "USER_ERROR"), (Kind::NotFound, false));
        assert_eq!(of("TABLE_ALREADY_EXISTS", "USER_ERROR"), (Kind::Exists, false));
        assert_eq!(of("PERMISSION_DENIED", "USER_ERROR"), (Kind::Denied, false));
        assert_eq!(of("EXCEEDED_TIME_LIMIT", "INSUFFICIENT_RESOURCES"), (Kind::Timeout, false));
        assert_eq!(of("EXCEEDED_LOCAL_MEMORY_LIMIT", "INSUFFICIENT_RESOURCES"), (Kind::Exhausted, false));
        assert_eq!(of("QUERY_QUEUE_FULL", "INSUFFICIENT_RESOURCES"), (Kind::Exhausted, true));
        assert_eq!(of("USER_CANCELED", "USER_ERROR"), (Kind::Cancelled, false));
        assert_eq!(of("ADMINISTRATIVELY_KILLED", "USER_ERROR"), (Kind::Unavailable, false));
        assert_eq!(of("JDBC_ERROR", "EXTERNAL"), (Kind::Unavailable, true));
        assert_eq!(of("HIVE_BAD_DATA", "EXTERNAL"), (Kind::Data, false));
        assert_eq!(of("REMOTE_TASK_ERROR", "INTERNAL_ERROR"), (Kind::Unavailable, true));
    }

    #[test]
    fn no_secret_and_no_more_than_is_read() {
        let sent = STANDARD.encode("me:hunter2");
        let error = said(&format!(r#"{{"message":"a\nhunter2 b {sent}.","errorType":"USER_ERROR"}}"#));
        assert_eq!(error.message(), "trino: a *** b ***");
        let long = said(&format!(r#"{{"message":"{}"}}"#, "é".repeat(5_000)));
        assert!(long.message().len() < LONGEST + 20, "{}", long.message().len());
        // What a cut would leave of a secret is gone before it.
        let cut = said(&format!(r#"{{"message":"{}hunter2"}}"#, "x".repeat(LONGEST - 3)));
        assert!(!cut.message().contains("hun"));
    }

    #[test]
    fn refusals() {
        let mut config = config("https://trino");
        config.login = Login::Token("abc.def".into());
        let said = |status, body: &str| refusal(status, body.as_bytes(), None, &config).to_string();
        assert_eq!(
            said(401, "Access Denied: abc.def is wrong\nat x"),
            "catalogs.t.url: trino at trino:443 does not know who asks: access Denied: *** is wrong; check user, and password or token, of the catalog"
        );
        assert_eq!(
            said(302, ""),
            "catalogs.t.url: trino at trino:443 answers with 302, which leads elsewhere; set url to where it leads"
        );
        assert_eq!(said(500, "<html>"), "catalogs.t.url: trino at trino:443 answers with 500");
        let busy = refusal(503, b"", Some(Duration::from_secs(7)), &config);
        assert_eq!((busy.kind(), busy.retry_after()), (Kind::Unavailable, Some(Duration::from_secs(7))));
    }

    #[test]
    fn of_an_address_only_the_host_is_told() {
        let config = config("https://trino:8443");
        let store = Url::parse("https://bucket.example/key?X-Amz-Signature=secret").unwrap();
        let error = no_segment(403, &store, &config);
        assert!(error.message().starts_with("the store of trino's segments at bucket.example:443 answers"), "{error}");
        assert!(no_segment(303, &config.url, &config).to_string().contains("retrieval-mode"));
    }
}
