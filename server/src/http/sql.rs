//! `POST /v1/sql`: a statement in, its rows out as Arrow IPC, newline JSON or CSV, as they are made.

use std::io::Write;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::csv;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::{JsonFormat, LineDelimited};
use arrow::json::{Writer as JsonWriter, WriterBuilder};
use arrow_ipc::writer::StreamWriter;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HOST, ORIGIN, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use axum::{Extension, Router};
use futures::{StreamExt, TryStreamExt, future, stream};
use nexus_flight_catalog::{Context, Error, Principal, Result};
use serde::Deserialize;
use tokio::task::yield_now;
use url::Url;

use crate::audit::Trail;
use crate::flight::caller::TRACEPARENT;
use crate::flight::profile::TypeProfile;
use crate::gateway::Gateway;
use crate::procedures::Named;
use crate::query::{Answer, Client, Protocol, Query};
use crate::times::refuse_unnamed;
use crate::wire::body;
use crate::wire::caching::{self, Asked};
use crate::wire::connection::Peer;
use crate::wire::problem::problem;

/// A request as JSON; a body of plain text is the statement alone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    statement: String,
    catalog: Option<String>,
    schema: Option<String>,
}

/// Finds the statement that a request is, in its body.
type Parse = fn(&HeaderMap, &[u8]) -> Result<Statement>;

/// The pages of statements: one that runs what is sent, and one that gives up what is kept of a table or a tag, as the statement does
/// that is called for this. Its answer is the number of answers.
pub fn pages() -> Router<Arc<Gateway>> {
    Router::new().route("/v1/sql", runs(parse)).route("/v1/cache/invalidate", runs(parse_invalidate))
}

/// Runs a statement. An error before the first row is an answer in JSON; a later one breaks the body off, so that no client
/// can take a part for the whole.
fn runs(parse: Parse) -> MethodRouter<Arc<Gateway>> {
    post(
        move |State(gateway): State<Arc<Gateway>>,
              Extension(principal): Extension<Principal>,
              Extension(peer): Extension<Peer>,
              headers: HeaderMap,
              body: Result<Bytes, BytesRejection>| async move {
            let answered = answer(&gateway, principal, &peer, &headers, body, parse).await;
            answered.unwrap_or_else(|error| problem(&error))
        },
    )
}

fn parse_invalidate(_: &HeaderMap, body: &[u8]) -> Result<Statement> {
    let named: Named = serde_json::from_slice(body).map_err(|error| {
        Error::invalid(format!("the body is not as expected: {error}"))
            .with_hint("send {\"table\": \"catalog.schema.table\"} or {\"tag\": \"…\"}")
    })?;
    Ok(Statement { statement: named.statement()?, catalog: None, schema: None })
}

fn unread(rejection: BytesRejection) -> Error {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Error::exhausted("the statement is longer than the limit")
            .with_hint("shorten it, or raise limits.statement")
            .with_retryable(false);
    }
    body::refusal(&rejection).unwrap_or_else(|| Error::invalid("the body could not be read to its end").caused_by(rejection))
}

async fn answer(
    gateway: &Gateway,
    principal: Principal,
    peer: &Peer,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
    parse: Parse,
) -> Result<Response> {
    let client = Client::new(Some(peer.address), headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()));
    let asked = || {
        check_origin(headers)?;
        Ok((Format::accepted(headers.get(ACCEPT))?, Asked::of(headers)?, parse(headers, &body.map_err(unread)?)?))
    };
    let (format, caching, request) = match asked() {
        Ok(asked) => asked,
        Err(error) => {
            let refused = Query::new(Context::new(principal), "(a request)", gateway.sessions.start(), Protocol::Http);
            Trail::refused(gateway.trail.as_deref(), &Query { client, ..refused }, &error)?;
            return Err(error);
        }
    };
    let mut session = gateway.sessions.start();
    session.catalog = request.catalog.unwrap_or(session.catalog);
    session.schema = request.schema.unwrap_or(session.schema);
    caching.over(&mut session.options);
    let parent = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).map(Arc::from);
    let deadline = Some(gateway.sessions.deadline(&session));
    let cx = Context { parent, deadline, ..Context::new(principal) };
    let id = cx.query;
    let query = Query { client, ..Query::new(cx, request.statement, session, Protocol::Http) };
    let answer = gateway.execute.execute(query).await?;
    let cached = answer.cache;
    let mut body = Box::pin(encoded(format, answer)?);
    // The status goes out before the first byte, so whether there is one must be known first.
    let first = body.try_next().await?.unwrap_or_default();
    // A connection is given up with all of it that is not sent yet. So what comes before an error is let out first, the head too.
    let rest = body.or_else(|error| async move {
        yield_now().await;
        Err::<Bytes, _>(error)
    });
    let mut response = Response::new(Body::from_stream(stream::once(async { Ok(first) }).chain(rest)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    for (name, value) in caching::told(&cached) {
        let value = value.parse().map_err(|_| Error::internal("what the cache did makes no header"))?;
        headers.insert(name, value);
    }
    if let Ok(id) = id.to_string().parse() {
        headers.insert("x-nexus-query", id);
    }
    Ok(response)
}

/// A browser says which page a request comes from. One of another site could write here in the name of whoever looks at it, and
/// so could one whose name was made to lead here: only an address or `localhost` is known to be this server.
fn check_origin(headers: &HeaderMap) -> Result<()> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let page = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let is_ours = page.is_some_and(|page| {
        let is_address = match page.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(_) => true,
            None => false,
        };
        is_address && host == Some(&page[url::Position::BeforeHost..url::Position::AfterPort])
    });
    if is_ours {
        return Ok(());
    }
    Err(Error::denied("the request comes from a page of another site, or of a name, which could be led here by others")
        .with_hint("send it from a program, or from a page of this server that is opened by its IP address or as localhost"))
}

/// What the type of a body begins with that is no plain text.
const JSON: &[u8] = b"application/json";

fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Statement> {
    let text = std::str::from_utf8(body).map_err(|_| Error::invalid("the body is not UTF-8"))?;
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..JSON.len()));
    let is_json = kind.is_some_and(|kind| kind.eq_ignore_ascii_case(JSON));
    if !is_json {
        return Ok(Statement { statement: text.to_owned(), catalog: None, schema: None });
    }
    serde_json::from_str(text).map_err(|error| {
        Error::invalid(format!("the body is not as expected: {error}"))
            .with_hint("send {\"statement\": \"SELECT …\"}, with \"catalog\" and \"schema\" if wanted")
    })
}

/// The forms in which rows are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Arrow,
    Json,
    Csv,
}

impl Format {
    const ALL: [Format; 3] = [Format::Arrow, Format::Json, Format::Csv];

    const fn media_type(self) -> &'static str {
        match self {
            Format::Arrow => "application/vnd.apache.arrow.stream",
            Format::Json => "application/x-ndjson",
            Format::Csv => "text/csv",
        }
    }

    /// The first form that the client takes; newline JSON where it takes any.
    fn accepted(header: Option<&HeaderValue>) -> Result<Self> {
        let Some(header) = header else { return Ok(Format::Json) };
        let header = header.to_str().map_err(|_| Error::invalid("the accept header is not text"))?;
        for part in header.to_ascii_lowercase().split(',') {
            let mut words = part.split(';').map(str::trim);
            let wanted = words.next().unwrap_or_default();
            // Of weights only the one that refuses counts.
            if words.any(|word| word.strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok()) == Some(0.0)) {
                continue;
            }
            match wanted {
                "*/*" | "application/*" => return Ok(Format::Json),
                "text/*" => return Ok(Format::Csv),
                _ => {}
            }
            if let Some(format) = Format::ALL.into_iter().find(|format| format.media_type() == wanted) {
                return Ok(format);
            }
        }
        let known: Vec<&str> = Format::ALL.iter().map(|format| format.media_type()).collect();
        Err(Error::invalid(format!("no rows can be sent as {header}")).with_hint(format!("accept one of {}", known.join(", "))))
    }
}

/// The rows as bytes, a chunk for each batch that has some.
fn encoded(format: Format, answer: Answer) -> Result<impl futures::Stream<Item = Result<Bytes>> + Send + 'static> {
    let Answer { schema, batches, .. } = answer;
    // Views are compacted and nothing else changes.
    let profile = TypeProfile::Native;
    let schema = profile.schema(&schema);
    let writer = Writer::new(format, &schema)?;
    // One without rows may come before the error that is met in the first row.
    let batches = batches.try_filter(|batch| future::ready(batch.num_rows() > 0));
    let state = Some((batches, writer));
    Ok(stream::unfold(state, move |state| {
        let schema = Arc::clone(&schema);
        async move {
            let (mut batches, mut writer) = state?;
            match batches.next().await {
                Some(Ok(batch)) => {
                    let written = profile.batch(&batch, &schema).and_then(|batch| writer.write(&batch));
                    let state = written.is_ok().then_some((batches, writer));
                    Some((written, state))
                }
                Some(Err(error)) => Some((Err(error), None)),
                None => Some((writer.finish(), None)),
            }
        }
    }))
}

/// A writer that gives away what it has written.
enum Writer {
    Arrow(Shared, Box<StreamWriter<Shared>>),
    Json(Shared, JsonWriter<Shared, LineDelimited>),
    Csv(Shared, Box<csv::Writer<Shared>>),
}

impl Writer {
    fn new(format: Format, schema: &SchemaRef) -> Result<Self> {
        let out = Shared::default();
        Ok(match format {
            Format::Arrow => Writer::Arrow(out.clone(), Box::new(StreamWriter::try_new(out, schema)?)),
            Format::Json => Writer::Json(out.clone(), json_writer(out)),
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new().with_header(true).build(out.clone());
                // The header stands there even where there are no rows.
                writer.write(&RecordBatch::new_empty(Arc::clone(schema)))?;
                Writer::Csv(out, Box::new(writer))
            }
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<Bytes> {
        match self {
            Writer::Arrow(_, writer) => writer.write(batch)?,
            Writer::Json(_, writer) => {
                refuse_unnamed(batch)?;
                writer.write(batch)?;
            }
            Writer::Csv(_, writer) => writer.write(batch)?,
        }
        Ok(self.take())
    }

    fn finish(mut self) -> Result<Bytes> {
        match &mut self {
            Writer::Arrow(_, writer) => writer.finish()?,
            Writer::Json(_, writer) => writer.finish()?,
            Writer::Csv(..) => {}
        }
        Ok(self.take())
    }

    fn take(&self) -> Bytes {
        match self {
            Writer::Arrow(out, _) | Writer::Json(out, _) | Writer::Csv(out, _) => out.take(),
        }
    }
}

/// NULL is written out, so that every line has every key.
fn json_writer<F: JsonFormat>(out: Shared) -> JsonWriter<Shared, F> {
    WriterBuilder::new().with_explicit_nulls(true).build(out)
}

/// A buffer that a writer owns and this module empties.
#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())).into()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[tokio::test]
    async fn an_error_in_the_first_row_comes_before_all_else() {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
        for format in Format::ALL {
            let empty = RecordBatch::new_empty(Arc::clone(&schema));
            let batches = stream::iter([Ok(empty), Err(Error::invalid("no"))]).boxed();
            let answer = Answer::new(Arc::clone(&schema), batches);
            let mut body = Box::pin(encoded(format, answer).unwrap());
            assert!(body.next().await.unwrap().is_err(), "{format:?}");
        }
    }

    #[test]
    fn a_body_is_json_whatever_the_case_of_its_type() {
        let statement = |kind: &'static str| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            parse(&headers, br#"{"statement":"SELECT 1"}"#).unwrap().statement
        };
        assert_eq!(statement("Application/JSON; charset=utf-8"), "SELECT 1");
        for kind in ["text/plain", "application"] {
            assert_eq!(statement(kind), r#"{"statement":"SELECT 1"}"#);
        }
    }
}
