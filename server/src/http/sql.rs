//! `POST /v1/sql`: a statement in, its rows out as Arrow IPC, newline JSON or CSV, as they are made.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HOST, ORIGIN, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use axum::{Extension, Router};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
use futures::stream::{self, BoxStream, Stream};
use futures::{StreamExt, TryStreamExt};
use nexus_flight_catalog::{Context, Error, Principal, Result};
use serde::Deserialize;
use tokio::task::yield_now;
use url::Url;

use crate::audit::Trail;
use crate::flight::caller::TRACEPARENT;
use crate::flight::encode::{Message, encode, schema_bytes};
use crate::flight::profile::TypeProfile;
use crate::gateway::Gateway;
use crate::http::text::{Text, held_by};
use crate::procedures::Named;
use crate::query::{Answer, Batches, Client, Protocol, Query};
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
    let (id, memory) = (cx.query, gateway.planner.shares().of(&cx.principal));
    let query = Query { client, ..Query::new(cx, request.statement, session, Protocol::Http) };
    let answer = gateway.execute.execute(query).await?;
    let cached = answer.cache;
    let mut body = Box::pin(encoded(format, answer, memory)?);
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

/// The rows as bytes, each chunk made when it is asked for, of what there is room for in `memory`. Errors: those of the rows, and
/// `Exhausted`.
fn encoded(
    format: Format,
    answer: Answer,
    memory: Arc<dyn MemoryPool>,
) -> Result<impl Stream<Item = Result<Bytes>> + Send + 'static> {
    let Answer { schema, batches, .. } = answer;
    let text = |text: Text, batches: Batches, memory: Arc<dyn MemoryPool>| {
        Ok::<_, Error>((Bytes::from(text.head(&schema)?), text.pieces(Arc::clone(&schema), batches, memory), Bytes::new()))
    };
    let (head, rows, end) = match format {
        Format::Arrow => {
            let messages = encode(&schema, TypeProfile::Native, batches, &memory);
            // The first one is the schema.
            let rows = messages.skip(1).map(move |message| framed(&message?, &memory));
            (schema_bytes(&schema)?, rows.boxed(), Bytes::from_static(&END))
        }
        Format::Json => text(Text::Json, batches, memory)?,
        Format::Csv => text(Text::Csv, batches, memory)?,
    };
    let head = Some(head).filter(|head: &Bytes| !head.is_empty());
    let chunks = Chunks { head, rows, held: None, end: Some(end) };
    let next = |mut chunks: Chunks| async move { Ok::<_, Error>(chunks.next().await?.map(|chunk| (chunk, chunks))) };
    Ok(stream::try_unfold(chunks, next))
}

/// A body in its order.
struct Chunks {
    /// What is before all rows, and goes when the first of them are there: an error in these comes before all else.
    head: Option<Bytes>,
    rows: BoxStream<'static, Result<Bytes>>,
    /// What came and has to wait for the head.
    held: Option<Bytes>,
    end: Option<Bytes>,
}

impl Chunks {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        if self.end.is_none() {
            return Ok(None);
        }
        let next = match self.rows.try_next().await? {
            Some(rows) => Some(rows),
            None => self.end.take(),
        };
        match self.head.take() {
            Some(head) => {
                self.held = next;
                Ok(Some(head))
            }
            None => Ok(next),
        }
    }
}

/// The end of a stream of Arrow IPC.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// What the places of messages in a stream are a multiple of.
const ALIGNED: usize = 64;

/// A message as a stream of Arrow IPC has it: a mark, the length of the header, the header, and the body. Errors: `Exhausted`.
fn framed(message: &Message, memory: &Arc<dyn MemoryPool>) -> Result<Bytes> {
    let header = &message.head.data_header;
    let start = (END.len() + header.len()).next_multiple_of(ALIGNED);
    let length = u32::try_from(start - END.len()).map_err(|_| Error::internal("the header of a message is too long"))?;
    let size = start + message.body_len();
    let held = MemoryConsumer::new("rows of an answer").register(memory);
    held.try_grow(size)?;
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&END[..4]);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(header);
    bytes.resize(start, 0);
    message.body.iter().for_each(|piece| bytes.extend_from_slice(piece));
    Ok(held_by(bytes, held))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, Int64Array, RecordBatch, StringViewArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use arrow_ipc::reader::StreamReader;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};
    use nexus_flight_catalog::Kind;

    use super::*;

    #[tokio::test]
    async fn an_error_in_the_first_row_comes_before_all_else() {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
        for format in Format::ALL {
            let empty = RecordBatch::new_empty(Arc::clone(&schema));
            let batches = stream::iter([Ok(empty), Err(Error::invalid("no"))]).boxed();
            let answer = Answer::new(Arc::clone(&schema), batches);
            let mut body = Box::pin(encoded(format, answer, Arc::new(UnboundedMemoryPool::default())).unwrap());
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

    /// Two batches of rows that are long, each with a text of its own.
    fn rows(bytes: usize) -> Vec<RecordBatch> {
        let batch = |from: i64| {
            let texts = (from..from + 40).map(|row| format!("{row}{}", "x".repeat(bytes))).collect::<Vec<_>>();
            let texts = StringViewArray::from_iter_values(&texts);
            let numbers = Int64Array::from_iter_values(from..from + 40);
            RecordBatch::try_from_iter([("n", Arc::new(numbers) as Arc<dyn Array>), ("t", Arc::new(texts) as _)]).unwrap()
        };
        vec![batch(0), batch(40)]
    }

    fn answer_of(batches: Vec<RecordBatch>) -> Answer {
        let schema = batches[0].schema();
        Answer::new(schema, stream::iter(batches.into_iter().map(Ok)).boxed())
    }

    #[tokio::test]
    async fn arrow_is_read_again_as_it_was() {
        for bytes in [1, 300_000] {
            let memory: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
            let body = encoded(Format::Arrow, answer_of(rows(bytes)), Arc::clone(&memory)).unwrap();
            let chunks: Vec<Bytes> = body.try_collect().await.unwrap();
            let whole = chunks.concat();
            let read = StreamReader::try_new(whole.as_slice(), None).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
            let schema = read[0].schema();
            let [read, wanted] = [read, rows(bytes)].map(|all| arrow::compute::concat_batches(&schema, &all).unwrap());
            assert_eq!(read, wanted);
            // None of them is large.
            assert_eq!(memory.reserved(), 0);
        }
    }

    #[tokio::test]
    async fn what_there_is_no_room_for_is_refused_before_it_is_made() {
        for format in Format::ALL {
            let memory: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100_000));
            let mut body = Box::pin(encoded(format, answer_of(rows(300_000)), memory).unwrap());
            let error = body.next().await.unwrap().unwrap_err();
            assert_eq!(error.kind(), Kind::Exhausted);
            assert!(error.message().contains("rows of an answer"), "{error}");
            assert!(body.next().await.is_none());
        }
    }
}
