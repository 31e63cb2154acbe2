//! Calls of a catalog server by HTTP: each ends in time, with an answer of a bounded size, or with an error in our words.

use std::error::Error as StdError;
use std::time::Duration;

use crate::stores::ended_early;
use nexus_flight_catalog::error::shortened;
use nexus_flight_catalog::{Error, Place, Result};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Request, StatusCode, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long it may take until there is a connection.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);
/// How long a call may take, with all that it needs and all its tries.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// The most that is read of an answer.
const LARGEST: usize = 64 * 1024 * 1024;
/// How often a server that is busy is asked.
const TRIES: u32 = 3;
/// How long to wait before that where the server does not say, for each try that has been.
const WAIT: Duration = Duration::from_millis(200);
/// How long is waited at most for a server that says when to come again.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The most that is told of what a server says about an error.
const SAID: usize = 300;

/// A client of one catalog server.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    /// The key of the configuration that has the server's address.
    place: Place,
}

/// What a server answers.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    retry_after: Option<Duration>,
}

/// What is wrong, in the words of Iceberg's REST specification (`ErrorModel`) or of RFC 6749, 5.2.
#[derive(Deserialize)]
struct Said {
    error: Value,
    error_description: Option<String>,
}

impl Http {
    /// For the server whose address is at this place of the configuration.
    pub(super) fn new(place: Place) -> Result<Self> {
        // An address that is not configured is not asked.
        let client = Client::builder().redirect(redirect::Policy::none()).connect_timeout(CONNECTS_WITHIN).build();
        let client = client.map_err(|cause| Error::internal("no HTTP client could be made").caused_by(cause))?;
        Ok(Self { client, place })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// An error about the server.
    pub(super) fn at(&self, error: Error) -> Error {
        error.at(self.place.clone())
    }

    /// A call with all that it needs. Errors: `Unavailable` when its time is over.
    pub(super) async fn within<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(ANSWERS_WITHIN, call).await.unwrap_or_else(|_| {
            let message = format!("the catalog server did not answer within {} s", ANSWERS_WITHIN.as_secs());
            Err(self.at(Error::unavailable(message)))
        })
    }

    /// Sends a request, again where the server is busy. Errors: `Unavailable` where it cannot be reached; `Data` for an answer that
    /// is too large.
    pub(super) async fn send(&self, request: Request) -> Result<Answer> {
        let mut tries = 1;
        loop {
            let again = request.try_clone().ok_or_else(|| Error::internal("a call that cannot be made again"))?;
            let answer = self.once(again).await?;
            let wait = answer.retry_after.unwrap_or(WAIT * tries);
            if !answer.is_busy() || tries == TRIES || wait > LONGEST_WAIT {
                return Ok(answer);
            }
            tokio::time::sleep(wait).await;
            tries += 1;
        }
    }

    async fn once(&self, request: Request) -> Result<Answer> {
        let mut answer = self.client.execute(request).await.map_err(|cause| self.unreachable(cause))?;
        let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
        let too_large = || {
            let message = format!("the catalog server gives more than {} MiB in one answer", LARGEST >> 20);
            self.at(Error::data(message).with_hint("check uri"))
        };
        if answer.content_length().is_some_and(|length| length > LARGEST as u64) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|cause| self.unreachable(cause))? {
            if body.len() + chunk.len() > LARGEST {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body, retry_after })
    }

    /// An error of HTTP in our words. Neither an address nor a header is in it.
    fn unreachable(&self, cause: reqwest::Error) -> Error {
        let cause = cause.without_url();
        let mut deepest: &(dyn StdError + 'static) = &cause;
        while let Some(source) = deepest.source() {
            deepest = source;
        }
        let why = deepest.to_string();
        let what = if cause.is_connect() { "cannot be reached" } else { "broke off its answer" };
        self.at(Error::unavailable(format!("the catalog server {what}: {why}")).caused_by(cause))
    }

    /// What an answer says. Errors: `Data` where it is not what it should be.
    pub(super) async fn parsed<T: DeserializeOwned + Send + 'static>(&self, body: Vec<u8>) -> Result<T> {
        // On a thread that may be busy: the metadata of a table may be large.
        let parsed = tokio::task::spawn_blocking(move || serde_json::from_slice::<T>(&body)).await;
        let parsed = parsed.map_err(ended_early)?;
        // The parser's own words may repeat what it read, and that may be secret.
        parsed.map_err(|cause| {
            let (line, column) = (cause.line(), cause.column());
            let message = format!("the answer of the catalog server is not as the specification has it, at {line}:{column}");
            self.at(Error::data(message).with_hint("check uri"))
        })
    }

    /// The error that an answer is, without any of these secrets.
    pub(super) fn refusal(&self, answer: &Answer, secrets: &[&str]) -> Error {
        let said = answer.said(secrets).map(|said| format!(": {said}")).unwrap_or_default();
        let status = answer.status.as_u16();
        let error = match status {
            401 | 419 => Error::unauthenticated(format!("the catalog server does not know who asks{said}"))
                .with_hint("check credential or token, and scope"),
            403 => Error::denied(format!("the catalog server does not allow this{said}"))
                .with_hint("grant it to who is named by credential or token"),
            404 => Error::not_found(format!("the catalog server does not have this{said}")).with_hint("check uri and warehouse"),
            300..=399 => Error::unavailable(format!("the catalog server answers with {status}, which leads elsewhere"))
                .with_retryable(false)
                .with_hint("set uri to where it leads"),
            405 | 406 | 501 => Error::unsupported(format!("the catalog server does not offer this{said}")),
            429 | 500.. => {
                let error = Error::unavailable(format!("the catalog server answers with {status}{said}"));
                match answer.retry_after {
                    Some(wait) => error.with_retry_after(wait),
                    None => error,
                }
            }
            _ => Error::invalid(format!("the catalog server answers with {status}{said}")).with_hint("check uri and warehouse"),
        };
        self.at(error)
    }
}

impl Answer {
    fn is_busy(&self) -> bool {
        matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    }

    /// What the server says is wrong, for people; nothing where it repeats a secret.
    fn said(&self, secrets: &[&str]) -> Option<String> {
        let Said { error, error_description } = serde_json::from_slice(&self.body).ok()?;
        let message = error_description.or_else(|| match error {
            Value::String(code) => Some(code),
            other => other.get("message")?.as_str().map(str::to_owned),
        })?;
        if secrets.iter().any(|secret| message.contains(*secret)) {
            return None;
        }
        let line = message.lines().next().unwrap_or_default();
        let line: String = line.chars().filter(|letter| !letter.is_control()).collect();
        Some(shortened(line, SAID)).filter(|line| !line.is_empty())
    }
}

/// The seconds that a server says to wait. The other form, a time, is not heeded.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> String {
        let http = Http::new(Place::Key("catalogs.lake.uri".to_owned())).unwrap();
        let answer = Answer { status: StatusCode::from_u16(status).unwrap(), body: body.into(), retry_after: None };
        http.refusal(&answer, &["hunter2"]).to_string()
    }

    #[tokio::test]
    async fn what_a_server_says_is_told_without_secrets() {
        let expired = r#"{"error":{"message":"Not \u0007authorized\nat all","type":"NotAuthorizedException","code":401}}"#;
        insta::assert_snapshot!(refusal(401, expired), @"catalogs.lake.uri: the catalog server does not know who asks: Not authorized; check credential or token, and scope");
        let client = r#"{"error":"invalid_client","error_description":"hunter2 is wrong"}"#;
        insta::assert_snapshot!(refusal(400, client), @"catalogs.lake.uri: the catalog server answers with 400; check uri and warehouse");
        insta::assert_snapshot!(refusal(400, r#"{"error":"invalid_scope"}"#), @"catalogs.lake.uri: the catalog server answers with 400: invalid_scope; check uri and warehouse");
        insta::assert_snapshot!(refusal(302, ""), @"catalogs.lake.uri: the catalog server answers with 302, which leads elsewhere; set uri to where it leads");
        insta::assert_snapshot!(refusal(502, "<html>"), @"catalogs.lake.uri: the catalog server answers with 502");
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_not_repeated() {
        let http = Http::new(Place::Key("catalogs.lake.uri".to_owned())).unwrap();
        let error = http.parsed::<u64>(br#""hunter2""#.to_vec()).await.unwrap_err();
        insta::assert_snapshot!(error, @"catalogs.lake.uri: the answer of the catalog server is not as the specification has it, at 1:9; check uri");
    }
}
