//! Calls of a catalog server by HTTP: each ends in time, with an answer of a bounded size, or with an error in our words.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::time::Duration;

use nexus_flight_catalog::error::shortened;
use nexus_flight_catalog::{Error, Kind, Options, Place, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Request, RequestBuilder, StatusCode, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::stores::ended_early;

/// The most names that a server may list at one place, and the most pages that they may be on.
pub(crate) const MOST_NAMES: usize = 10_000;

/// How long it may take until there is a connection.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);
/// How long a call may take, with all that it needs and all its tries.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// The most that is read of an answer.
const LARGEST: usize = 64 * 1024 * 1024;
/// The most of all pages of a list.
const LARGEST_LIST: usize = 256 * 1024 * 1024;
/// The most of an answer that says what is wrong.
const LARGEST_REFUSAL: usize = 64 * 1024;
/// How often a server that is busy is asked.
const TRIES: u32 = 3;
/// How long to wait before that where the server does not say, for each try that has been.
const WAIT: Duration = Duration::from_millis(200);
/// How long is waited at most for a server that says when to come again.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The most that is told of what a server says about an error.
const SAID: usize = 300;
/// What may stand in a part of an address as it is (RFC 3986, 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A client of one catalog server.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client,
    /// The key of the configuration that has the server's address.
    place: Place,
    /// The keys that say who asks.
    asks: &'static str,
}

/// What a server answers.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
    retry_after: Option<Duration>,
}

/// A page of a list.
pub(crate) struct Page<T> {
    pub(crate) listed: Vec<T>,
    /// By which the next page is asked for; none, or empty, on the last one.
    pub(crate) next: Option<String>,
    /// The bytes of the answer that it came in.
    pub(crate) bytes: usize,
}

/// What is wrong, in the words of Iceberg's REST specification (`ErrorModel`), of RFC 6749, 5.2, or of Unity Catalog.
#[derive(Deserialize)]
struct Said {
    error: Option<Value>,
    error_description: Option<String>,
    message: Option<String>,
}

impl Http {
    /// For the server whose address is at this place of the configuration; the keys `asks` say in whose name it is asked.
    pub(crate) fn new(place: Place, asks: &'static str) -> Result<Self> {
        // An address that is not configured is not asked.
        let client = Client::builder().redirect(redirect::Policy::none()).connect_timeout(CONNECTS_WITHIN).build();
        let client = client.map_err(|cause| Error::internal("no HTTP client could be made").caused_by(cause))?;
        Ok(Self { client, place, asks })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// An error about the server.
    pub(crate) fn at(&self, error: Error) -> Error {
        error.at(self.place.clone())
    }

    /// A call with all that it needs. Errors: `Unavailable` when its time is over.
    pub(crate) async fn within<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(ANSWERS_WITHIN, call).await.unwrap_or_else(|_| {
            let message = format!("the catalog server did not answer within {} s", ANSWERS_WITHIN.as_secs());
            Err(self.at(Error::unavailable(message)))
        })
    }

    /// Sends a request, again where the server is busy. Errors: `Unavailable` where it cannot be reached; `Data` for an answer that
    /// is too large.
    pub(crate) async fn send(&self, request: Request) -> Result<Answer> {
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

    /// Sends a request with a token, if there is one. Errors: as of [`Self::send`], and `Data` for a token that cannot be sent.
    pub(crate) async fn send_with(&self, request: RequestBuilder, token: Option<&SecretString>) -> Result<Answer> {
        let request = match token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        };
        let request = request.build();
        let request = request.map_err(|_| self.at(Error::data("the token has characters that tokens do not have")))?;
        self.send(request).await
    }

    /// What an answer to who sent this token says. Errors: the one that the answer is, and those of [`Self::parsed`].
    pub(crate) async fn understood<T: DeserializeOwned + Send + 'static>(
        &self,
        answer: Answer,
        token: Option<&SecretString>,
    ) -> Result<T> {
        if answer.status.is_success() {
            return self.parsed(answer.body).await;
        }
        let secret = token.map(|token| token.expose_secret());
        Err(self.refusal(&answer, secret.as_slice()))
    }

    /// All that is on the pages of a list; `page` asks for the one of a token, which is empty for the first.
    /// Errors: `Exhausted` for more than [`MOST_NAMES`], and those of [`Self::turn`].
    pub(crate) async fn pages<T, F>(&self, page: impl Fn(String) -> F) -> Result<Vec<T>>
    where
        F: Future<Output = Result<Page<T>>>,
    {
        let mut all = Vec::new();
        let take = |listed: Vec<T>| {
            all.extend(listed);
            if all.len() > MOST_NAMES { Err(self.too_many()) } else { Ok(false) }
        };
        self.turn(page, take).await?;
        Ok(all)
    }

    /// Turns the pages of a list, which `page` asks for as in [`Self::pages`], to the last or until what is on one is enough.
    /// Errors: `Exhausted` for more pages than [`MOST_NAMES`], `Data` for pages without end or of too much, and those of both.
    pub(crate) async fn turn<T, F>(
        &self,
        page: impl Fn(String) -> F,
        mut is_enough: impl FnMut(Vec<T>) -> Result<bool>,
    ) -> Result<()>
    where
        F: Future<Output = Result<Page<T>>>,
    {
        let (mut seen, mut token, mut all) = (HashSet::new(), String::new(), 0_usize);
        loop {
            let Page { listed, next, bytes } = self.within(page(token)).await?;
            // Names and tokens may be of any length.
            all = all.saturating_add(bytes);
            if all > LARGEST_LIST {
                let message = format!("the catalog server gives more than {} MiB in one list", LARGEST_LIST >> 20);
                return Err(self.at(Error::data(message).with_hint("check uri")));
            }
            if is_enough(listed)? {
                return Ok(());
            }
            let Some(next) = next.filter(|next| !next.is_empty()) else { return Ok(()) };
            if seen.len() >= MOST_NAMES {
                return Err(self.too_many());
            }
            if !seen.insert(next.clone()) {
                return Err(self.at(Error::data("the catalog server gives a page of a list again, and so without end")));
            }
            token = next;
        }
    }

    /// What is said of a server that lists too much.
    pub(crate) fn too_many(&self) -> Error {
        let error = Error::new(Kind::Exhausted, format!("the catalog server lists more than {MOST_NAMES} names"));
        self.at(error.with_retryable(false).with_hint("set warehouse to one that holds fewer"))
    }

    /// An address of the server. Errors: `Invalid`.
    pub(crate) fn url(&self, address: &str) -> Result<Url> {
        Url::parse(address).map_err(|_| self.at(Error::invalid("names there make no address")))
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
    pub(crate) async fn parsed<T: DeserializeOwned + Send + 'static>(&self, body: Vec<u8>) -> Result<T> {
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
    pub(crate) fn refusal(&self, answer: &Answer, secrets: &[&str]) -> Error {
        let said = answer.said(secrets).map(|said| format!(": {said}")).unwrap_or_default();
        let status = answer.status.as_u16();
        let error = match status {
            401 | 419 => Error::unauthenticated(format!("the catalog server does not know who asks{said}"))
                .with_hint(format!("check {}", self.asks)),
            403 => Error::denied(format!("the catalog server does not allow this{said}"))
                .with_hint(format!("grant it to who is named by {}", self.asks)),
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

    /// What the server says is wrong, for people; nothing where it repeats a secret, as it is or as it stands in an address.
    fn said(&self, secrets: &[&str]) -> Option<String> {
        // What is longer is not for people, and may become much.
        let body = Some(&self.body).filter(|body| body.len() <= LARGEST_REFUSAL)?;
        let Said { error, error_description, message } = serde_json::from_slice(body).ok()?;
        let message = error_description.or(message).or_else(|| match error? {
            Value::String(code) => Some(code),
            other => other.get("message")?.as_str().map(str::to_owned),
        })?;
        if secrets.iter().any(|secret| message.contains(*secret) || message.contains(&encoded(secret))) {
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

/// A name as a part of an address.
pub(crate) fn encoded(name: &str) -> String {
    utf8_percent_encode(name, UNRESERVED).to_string()
}

/// The address of a server, as it is written at a key of a configuration. What is written is not repeated in messages: somebody may
/// have put a password into it. Errors: `Invalid` with the key.
pub(crate) fn address(written: &str, key: &str, allow_http: bool, options: &Options) -> Result<Url> {
    let wrong = |message: &str, hint: &str| Err(Error::invalid(message).with_hint(hint).at(options.key(key)));
    let url = match Url::parse(written) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => url,
        _ => return wrong("this is no address of a server", "write it as https://host/path"),
    };
    if url.scheme() == "http" && !allow_http {
        return wrong("the address is http and not https", "set allow_http = true if that is meant");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("a user in the address is not heeded", "leave it out; other keys say who asks");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong("the address has parameters behind the path", "leave them out");
    }
    Ok(url)
}

/// A token as it is written. Errors: `Invalid` for one that cannot stand in a header.
pub(crate) fn checked_token(written: SecretString, options: &Options) -> Result<SecretString> {
    let text = written.expose_secret();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(written);
    }
    Err(Error::invalid("this is no token: it has characters that tokens do not have")
        .with_hint("look for a space or line end")
        .at(options.key("token")))
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// How a request begins, and the status and body that it is answered with.
    pub(crate) type Reply = (&'static str, &'static str, &'static str);

    /// The address of a server that answers requests without a body, those that nothing is said of with 404.
    pub(crate) async fn served(answers: &'static [Reply]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut asked = 0;
            'connections: loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (mut request, mut piece) = (Vec::new(), [0; 1024]);
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut piece).await.unwrap() {
                        0 => continue 'connections,
                        count => request.extend_from_slice(&piece[..count]),
                    }
                }
                let request = String::from_utf8(request).unwrap();
                // A server may be busy at first.
                let mut possible = answers.iter().enumerate().skip(asked);
                let found = possible.find(|(_, (wanted, ..))| request.starts_with(*wanted));
                let (status, body) = match found {
                    Some((place, (_, status, body))) => {
                        asked = if status.starts_with("503") { place + 1 } else { 0 };
                        (*status, *body)
                    }
                    None => ("404 Not Found", "{}"),
                };
                let length = body.len();
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        format!("http://{address}")
    }

    fn http() -> Http {
        Http::new(Place::Key("catalogs.lake.uri".to_owned()), "credential or token").unwrap()
    }

    fn refusal(status: u16, body: &str) -> String {
        let http = http();
        let answer = Answer { status: StatusCode::from_u16(status).unwrap(), body: body.into(), retry_after: None };
        http.refusal(&answer, &["hunter2"]).to_string()
    }

    #[tokio::test]
    async fn what_a_server_says_is_told_without_secrets() {
        let expired = r#"{"error":{"message":"Not \u0007authorized\nat all","type":"NotAuthorizedException","code":401}}"#;
        insta::assert_snapshot!(refusal(401, expired), @"catalogs.lake.uri: the catalog server does not know who asks: Not authorized; check credential or token");
        let client = r#"{"error":"invalid_client","error_description":"hunter2 is wrong"}"#;
        insta::assert_snapshot!(refusal(400, client), @"catalogs.lake.uri: the catalog server answers with 400; check uri and warehouse");
        let form = r#"{"error_description":"in the form: client_secret=hunter2%2F%2B"}"#;
        let answer = Answer { status: StatusCode::BAD_REQUEST, body: form.into(), retry_after: None };
        insta::assert_snapshot!(http().refusal(&answer, &["hunter2/+"]), @"catalogs.lake.uri: the catalog server answers with 400; check uri and warehouse");
        insta::assert_snapshot!(refusal(400, r#"{"error":"invalid_scope"}"#), @"catalogs.lake.uri: the catalog server answers with 400: invalid_scope; check uri and warehouse");
        let unity = r#"{"error_code":"INVALID_ARGUMENT","details":[],"message":"no such operation"}"#;
        insta::assert_snapshot!(refusal(400, unity), @"catalogs.lake.uri: the catalog server answers with 400: no such operation; check uri and warehouse");
        insta::assert_snapshot!(refusal(302, ""), @"catalogs.lake.uri: the catalog server answers with 302, which leads elsewhere; set uri to where it leads");
        insta::assert_snapshot!(refusal(502, "<html>"), @"catalogs.lake.uri: the catalog server answers with 502");
    }

    #[tokio::test]
    async fn nobody_is_asked_but_who_is_configured() {
        let address = served(&[("GET /a ", "302 Found\r\nlocation: /b", ""), ("GET /b ", "200 OK", "1")]).await;
        let http = http();
        let answer = http.send(http.client().get(format!("{address}/a")).build().unwrap()).await.unwrap();
        assert_eq!(answer.status, StatusCode::FOUND);
    }

    #[tokio::test]
    async fn a_list_has_an_end() {
        let turned = async |bytes: usize, next: fn(&str) -> String| {
            let page = |token: String| async move { Ok(Page { listed: vec![0_u8], next: Some(next(&token)), bytes }) };
            http().pages(page).await.unwrap_err().to_string()
        };
        insta::assert_snapshot!(turned(1, |_| "again".to_owned()).await, @"catalogs.lake.uri: the catalog server gives a page of a list again, and so without end");
        let longer = |token: &str| format!("{token}1");
        insta::assert_snapshot!(turned(LARGEST, longer).await, @"catalogs.lake.uri: the catalog server gives more than 256 MiB in one list; check uri");
        let long = format!(r#"{{"message":"no","more":"{}"}}"#, "x".repeat(LARGEST_REFUSAL));
        insta::assert_snapshot!(refusal(404, &long), @"catalogs.lake.uri: the catalog server does not have this; check uri and warehouse");
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_not_repeated() {
        let error = http().parsed::<u64>(br#""hunter2""#.to_vec()).await.unwrap_err();
        insta::assert_snapshot!(error, @"catalogs.lake.uri: the answer of the catalog server is not as the specification has it, at 1:9; check uri");
    }
}
