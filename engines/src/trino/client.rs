//! The statement protocol of Trino ("Trino client REST API" in its documentation): a statement is posted, its pages are asked
//! for one after another, and who leaves early has it ended there.
//!
//! Pages and segments are read ahead, up to [`AHEAD`] of them; while nobody reads those, no page is asked for. Without spooling that
//! holds the statement up; with it Trino goes on, and its segments wait in the store. One that is not asked for anything for
//! `query.client.timeout` it ends.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use nexus_flight_catalog::source::TRACE;
use nexus_flight_catalog::{Context, Error, Place, Result};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Certificate, Identity, Method, Request, RequestBuilder, StatusCode, redirect};
use secrecy::ExposeSecret;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;
use url::Url;
use url::form_urlencoded::byte_serialize;

use super::config::{Config, Login};
use super::error;
use super::page::{Data, Page};
use super::segments::{self, Spooled};
use crate::told::{deepest, host};
use ending::MOST_ENDINGS;

mod ending;
mod info;

/// How many pages and segments are read or under way that nobody has taken yet.
const AHEAD: usize = 4;
/// The most bytes of a page.
const LARGEST_PAGE: usize = 64 << 20;
/// The most that is read of an answer that is a refusal, or says how a server is.
const LARGEST_REFUSAL: usize = 64 << 10;
/// How much is taken for an answer at first.
const FIRST_ROOM: usize = 8 << 10;

/// For how long a server is asked again that cannot be reached, or breaks off; it may have been ended.
const BROKEN_FOR: Duration = Duration::from_secs(3);
/// For how long one that says that it, or what stands before it, is busy.
const BUSY_FOR: Duration = Duration::from_secs(30);
/// How long is waited in between at first; then twice as long each time, up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// The longest time that a server is believed that says when to come again.
const LONGEST_RETRY: Duration = Duration::from_secs(3_600);

/// Trino answers after a second where there is nothing new. A page that comes sooner than this, and without rows, is quick.
const QUICK: Duration = Duration::from_millis(10);
/// How many quick pages may come in a row, as they do while a statement begins and ends, until the next one waits.
const QUICK_PAGES: u32 = 8;

/// How long a server may take to say how it is, to end a statement, and to hear that a segment was fetched.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How many times as long as a server may be silent it may take for a whole page or segment: one that sends a few bytes now and
/// then is never silent.
pub(super) const SLOWEST: u32 = 10;
/// How many segments are acknowledged at once.
const MOST_ACKS: usize = 32;

/// A column of an answer: its name, and its type as Trino writes it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) type_name: String,
}

/// Rows: the text of a JSON list of rows, and what it takes of the memory of who asked.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) json: Bytes,
    pub(super) room: MemoryReservation,
}

/// A statement that has begun.
pub(super) struct Statement {
    /// Trino's id of it.
    pub(super) id: String,
    /// The columns; none for a statement without an answer.
    pub(super) columns: Vec<Named>,
    /// The rows in their order. Dropped before its end, it ends the statement there. Errors: those of Trino and of the way to
    /// it; `Data` for what is not as the protocol has it, or too large; `Exhausted` without room for it; `Cancelled` and
    /// `Timeout`.
    pub(super) rows: BoxStream<'static, Result<Rows>>,
}

/// A client of one Trino.
#[derive(Clone)]
pub(super) struct Client(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    trino: reqwest::Client,
    /// For segments that are elsewhere: it shows no certificate, and trusts the machine's authorities too.
    stores: reqwest::Client,
    /// For segments over plain http: by no proxy, which could read them.
    plain: reqwest::Client,
    acks: Arc<Semaphore>,
    endings: Semaphore,
    /// As the server said when it was asked how it is.
    version: Mutex<Option<String>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&host(&self.0.config.url)).finish()
    }
}

/// What a server answers, and what that takes.
struct Answer {
    status: StatusCode,
    body: Bytes,
    room: MemoryReservation,
    retry_after: Option<Duration>,
}

impl Client {
    /// A client; of everything outside the process only the files of certificates are touched. Errors: `Invalid` where they are
    /// none.
    pub(super) fn new(config: Arc<Config>) -> Result<Self> {
        let builder = || {
            // An address that is not configured is not asked.
            let builder = reqwest::Client::builder().redirect(redirect::Policy::none());
            builder.connect_timeout(config.connect_timeout).read_timeout(config.read_timeout)
        };
        let (mut trino, mut stores) = (builder(), builder());
        // A proxy of the environment is led through by https. Over plain http it would read what is sent, the login too.
        if config.url.scheme() == "http" {
            trino = trino.no_proxy();
        }
        if let Some(path) = &config.ca {
            trino = trino.tls_built_in_root_certs(false);
            for authority in authorities(path, &config)? {
                trino = trino.add_root_certificate(authority.clone());
                stores = stores.add_root_certificate(authority);
            }
        }
        if let Some((certificate, key)) = &config.certificate {
            trino = trino.identity(identity(certificate, key, &config)?);
        }
        let built = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|cause| {
                Error::invalid(format!("no client of trino can be made: {}", deepest(&cause)))
                    .with_hint("check ca, certificate and key")
                    .at(config.place.clone())
            })
        };
        let (trino, stores, plain) = (built(trino)?, built(stores)?, built(builder().no_proxy())?);
        let (acks, endings) = (Arc::new(Semaphore::new(MOST_ACKS)), Semaphore::new(MOST_ENDINGS));
        let version = Mutex::default();
        Ok(Self(Arc::new(Inner { config, trino, stores, plain, acks, endings, version })))
    }

    /// The catalog there that statements are about.
    pub(super) fn catalog(&self) -> &str {
        &self.0.config.catalog
    }

    /// Begins a statement, and waits until its columns are known, or it has ended without any. What is on its way is taken of
    /// `cx.memory`. Errors: those of [`Statement::rows`].
    pub(super) async fn run(&self, cx: &Context, sql: &str) -> Result<Statement> {
        // It is held for as long as there may be more rows.
        let span = tracing::info_span!(target: TRACE, parent: &cx.span, "query", otel.kind = "client", db.system.name = "trino");
        let room = MemoryConsumer::new("rows of trino").register(&cx.memory);
        // In a task: who leaves before the answer would leave a statement that cannot be ended, since nothing is known of it
        // yet.
        let begun = tokio::spawn(self.clone().begin(self.posted(cx, sql)?, room));
        let begun = async { begun.await.map_err(|cause| Error::broken_off().caused_by(cause))? };
        let (mut running, mut page) = cx.run(begun).await?;
        while page.columns.is_none() {
            if !page.data.is_none() {
                return Err(Error::data("trino sends rows before it says what their columns are"));
            }
            match cx.run(running.turn()).await? {
                Some(next) => page = next,
                None => break,
            }
        }
        let (id, columns) = (running.id.clone(), page.columns.take().unwrap_or_default());
        // There is always a place for how it ended, since what is ahead has a permit.
        let (sender, receiver) = mpsc::channel(AHEAD + 1);
        let driven = cx.clone();
        let driver = tokio::spawn(async move {
            let ended = driven.run(drive(running, page, &sender)).await;
            // Nobody may be there any more who wants to know.
            let _ = sender.send(ended.map(|()| None)).await;
        });
        let state = (receiver, AbortOnDropHandle::new(driver), cx.clone(), span);
        let rows = stream::try_unfold(state, |(mut receiver, driver, cx, span)| async move {
            let next = async {
                // Rows without an end that was told are not all.
                let Some(ahead) = receiver.recv().await else { return Err(Error::broken_off()) };
                let Some(Ahead { rows, place }) = ahead? else { return Ok(None) };
                let rows = rows.await?;
                drop(place);
                Ok(Some(rows))
            };
            let rows = cx.run(next).await?;
            Ok::<_, Error>(rows.map(|rows| (rows, (receiver, driver, cx, span))))
        });
        Ok(Statement { id, columns, rows: rows.boxed() })
    }

    /// The bytes of a segment. No login is sent to where it is.
    pub(super) async fn segment(&self, spooled: &Spooled, room: &MemoryReservation) -> Result<(Bytes, MemoryReservation)> {
        let Inner { config, trino, stores, plain, .. } = self.0.as_ref();
        let url = &spooled.uri;
        let http = match url.scheme() {
            "http" => plain,
            _ if url.origin() == config.url.origin() => trino,
            _ => stores,
        };
        let request = http.get(url.clone()).headers(spooled.headers.clone()).timeout(config.read_timeout * SLOWEST).build();
        let request = request.map_err(|_| Error::data("trino gives an address of a segment that is none"))?;
        let answer = self.get(http, request, segments::LARGEST, room).await?;
        match answer.status {
            StatusCode::OK => Ok((answer.body, answer.room)),
            status => Err(error::no_segment(status.as_u16(), url, config)),
        }
    }

    /// Tells Trino that a segment was fetched, while nobody waits. Where too much is to be told already it is not: then the
    /// segment is forgotten after its time.
    pub(super) fn acknowledge(&self, url: Url, headers: HeaderMap) {
        let Ok(permit) = Arc::clone(&self.0.acks).try_acquire_owned() else { return };
        let request = self.0.trino.get(url).headers(headers).timeout(ANSWERS_WITHIN);
        tokio::spawn(async move {
            let answered = request.send().await.and_then(reqwest::Response::error_for_status);
            if let Err(error) = answered.map_err(reqwest::Error::without_url) {
                tracing::debug!(%error, "a segment was not acknowledged at trino");
            }
            drop(permit);
        });
    }

    fn address(&self, path: &str) -> Url {
        let mut url = self.0.config.url.clone();
        url.set_path(path);
        url
    }

    /// A request in the name of the configured user.
    fn asked(&self, method: Method, url: Url) -> RequestBuilder {
        let config = &self.0.config;
        let request = self.0.trino.request(method, url);
        let request = request.header("x-trino-user", config.user.as_str()).header("x-trino-source", "nexus-gateway");
        match &config.login {
            Login::None => request,
            Login::Password(password) => request.basic_auth(&config.user, Some(password.expose_secret())),
            Login::Token(token) => request.bearer_auth(token.expose_secret()),
        }
    }

    /// The request that begins a statement ("Client request headers").
    fn posted(&self, cx: &Context, sql: &str) -> Result<Request> {
        let config = &self.0.config;
        let mut request = self
            .asked(Method::POST, self.address("/v1/statement"))
            // Trino answers at once. Nobody may wait for it any more, so there is no other end.
            .timeout(config.read_timeout)
            .header("x-trino-catalog", config.catalog.as_str())
            .header("x-trino-time-zone", "UTC")
            // Without it times have three digits behind the stop.
            .header("x-trino-client-capabilities", "PARAMETRIC_DATETIME")
            .header("x-trino-trace-token", cx.query.to_string());
        for (name, value) in &config.session {
            let value: String = byte_serialize(value.as_bytes()).collect();
            request = request.header("x-trino-session", format!("{name}={value}"));
        }
        if !config.client_tags.is_empty() {
            request = request.header("x-trino-client-tags", config.client_tags.join(","));
        }
        if config.spooling {
            request = request.header("x-trino-query-data-encoding", "json+zstd");
        }
        let request = request.body(sql.to_owned()).build();
        request.map_err(|_| {
            Error::invalid("an option has letters that no header can have")
                .with_hint("check user, password, token, catalog, session and client_tags")
                .at(config.place.clone())
        })
    }

    /// Posts a statement, once: it may have been begun where the answer did not come.
    async fn begin(self, request: Request, room: MemoryReservation) -> Result<(Running, Page)> {
        let url = request.url().clone();
        let answer = self.once(&self.0.trino, request, LARGEST_PAGE, &room).await?;
        let answer = answer.map_err(|cause| error::broken(cause, &url, &self.0.config))?;
        // What is no page for us tells nothing by which the statement could be ended: Trino ends it, since nobody asks for its
        // pages.
        let page = self.page(answer)?;
        let running = Running { client: self, id: page.id.clone(), next: None, room, quick: 0 };
        running.begun(page)
    }

    /// The page that an answer is.
    fn page(&self, answer: Answer) -> Result<Page> {
        match answer.status {
            StatusCode::OK => {
                let page = Page::parse(&answer.body, answer.room, &self.0.config);
                page.map_err(|error| error.at(self.0.config.place.clone()))
            }
            _ => Err(self.refusal(&answer)),
        }
    }

    fn refusal(&self, answer: &Answer) -> Error {
        error::refusal(answer.status.as_u16(), &answer.body, answer.retry_after, &self.0.config)
    }

    /// What is there, asked for again for a while where nobody answers, the answer breaks off, or the server is busy. Errors:
    /// as of [`Self::once`]; `Unavailable`.
    async fn get(&self, http: &reqwest::Client, request: Request, most: usize, room: &MemoryReservation) -> Result<Answer> {
        let (mut failing, mut wait) = (None, FIRST_WAIT);
        loop {
            let again = request.try_clone().ok_or_else(|| Error::internal("a call that cannot be made again"))?;
            let tried = self.once(http, again, most, room).await?;
            let (patience, pause) = match &tried {
                Ok(answer) if is_busy(answer.status) => (BUSY_FOR, answer.retry_after.unwrap_or(wait).max(wait)),
                Ok(_) => (Duration::ZERO, wait),
                // It was waited for long enough.
                Err(cause) if cause.is_timeout() => (Duration::ZERO, wait),
                Err(_) => (BROKEN_FOR, wait),
            };
            let since = *failing.get_or_insert_with(Instant::now);
            if since.elapsed() + pause > patience {
                return tried.map_err(|cause| error::broken(cause, request.url(), &self.0.config));
            }
            tokio::time::sleep(pause).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// The answer to a request, or why there is none. What it takes is asked of the pool of `room` before it is read. Errors:
    /// `Data` for one of more than `most` bytes; `Exhausted`.
    async fn once(
        &self,
        http: &reqwest::Client,
        request: Request,
        most: usize,
        room: &MemoryReservation,
    ) -> Result<Result<Answer, reqwest::Error>> {
        let mut response = match http.execute(request).await {
            Ok(response) => response,
            Err(cause) => return Ok(Err(cause)),
        };
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let mut body =
            Body { bytes: Vec::new(), room: room.new_empty(), most: if status.is_success() { most } else { LARGEST_REFUSAL } };
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.has_place_for(&chunk) => body.push(&chunk)?,
                Ok(Some(_)) if status.is_success() => {
                    let message = format!("trino gives more than {} in one answer", shown(most));
                    return Err(Error::data(message).with_hint("ask for fewer or shorter columns"));
                }
                // The beginning of a refusal says enough.
                Ok(_) => break,
                Err(cause) => return Ok(Err(cause)),
            }
        }
        let Body { bytes, room, .. } = body;
        Ok(Ok(Answer { status, body: Bytes::from(bytes), room, retry_after }))
    }
}

/// Rows that nobody has taken yet, which may be under way, with the place that they have among them.
struct Ahead {
    rows: BoxFuture<'static, Result<Rows>>,
    place: OwnedSemaphorePermit,
}

/// Where what is ahead goes, and at the end that there is no more.
type Sender = mpsc::Sender<Result<Option<Ahead>>>;

/// Asks for page after page, and has what is on them fetched, as long as there is a place ahead.
async fn drive(mut running: Running, first: Page, sender: &Sender) -> Result<()> {
    let places = Arc::new(Semaphore::new(AHEAD));
    let mut first = Some(first);
    loop {
        // Taken before the page is asked for: it has rows that must have one.
        let mut free = Some(free_place(&places).await?);
        let page = match first.take() {
            Some(page) => Some(page),
            None => running.turn().await?,
        };
        let Some(Page { data, room, .. }) = page else { return Ok(()) };
        match data {
            Data::None => {}
            Data::Rows(json) => {
                if let Some(free) = free.take() {
                    send(sender, std::future::ready(Ok(Rows { json, room })).boxed(), free).await?;
                }
            }
            // What the page takes is held until all of them have begun, and none of its text is needed any more.
            Data::Segments(segments) => {
                let room = Arc::new(room);
                for segment in segments {
                    let free = match free.take() {
                        Some(free) => free,
                        None => free_place(&places).await?,
                    };
                    send(sender, segments::begin(&running.client, segment, &room), free).await?;
                }
            }
        }
    }
}

async fn free_place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    Arc::clone(places).acquire_owned().await.map_err(|_| Error::internal("there are no places ahead"))
}

/// Errors: `Cancelled` where nobody is there any more who wants to have it.
async fn send(sender: &Sender, rows: BoxFuture<'static, Result<Rows>>, place: OwnedSemaphorePermit) -> Result<()> {
    sender.send(Ok(Some(Ahead { rows, place }))).await.map_err(|_| Error::cancelled())
}

/// A statement as far as its pages are read. Dropped before its last page, it is ended at Trino.
struct Running {
    client: Client,
    id: String,
    next: Option<Url>,
    /// Of the pool that everything is taken from; itself it takes nothing.
    room: MemoryReservation,
    /// How many quick pages have come in a row.
    quick: u32,
}

impl Running {
    fn begun(mut self, page: Page) -> Result<(Self, Page)> {
        let page = self.heeded(page)?;
        Ok((self, page))
    }

    /// The next page; none after the last one. Errors: that of the statement where it has failed; those of [`Client::get`].
    async fn turn(&mut self) -> Result<Option<Page>> {
        let Some(next) = self.next.clone() else { return Ok(None) };
        if let Some(pause) = pause(self.quick) {
            tokio::time::sleep(pause).await;
        }
        let asked = Instant::now();
        let client = &self.client;
        let request = client.asked(Method::GET, next).timeout(client.0.config.read_timeout * SLOWEST).build();
        let request = request.map_err(|_| Error::internal("no request could be made"))?;
        let answer = client.get(&client.0.trino, request, LARGEST_PAGE, &self.room).await?;
        if matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Err(error::forgotten(&self.id, &client.0.config));
        }
        let page = client.page(answer)?;
        let is_quick = page.data.is_none() && asked.elapsed() < QUICK;
        self.quick = if is_quick { self.quick.saturating_add(1) } else { 0 };
        self.heeded(page).map(Some)
    }

    /// A page, when it was heeded what it says of the statement. Errors: that of the statement; `Data` for a page of another one.
    fn heeded(&mut self, mut page: Page) -> Result<Page> {
        if page.id != self.id {
            let error = Error::data(format!("trino answers with a page of another statement than {}", self.id));
            return Err(error.with_hint("check url").at(self.client.0.config.place.clone()));
        }
        self.next = page.next.take();
        match page.failure.take() {
            Some(failure) => Err(error::failed(failure, &self.id, &self.client.0.config)),
            None => Ok(page),
        }
    }
}

/// How long the next page waits after so many quick ones: it is Trino that lets others wait, and a server that does not would
/// be asked without end.
fn pause(quick: u32) -> Option<Duration> {
    let more = quick.checked_sub(QUICK_PAGES)?;
    Some((QUICK * (1 << more.min(6))).min(LONGEST_WAIT))
}

/// A body as it comes, with room for each part before it is taken up.
struct Body {
    bytes: Vec<u8>,
    room: MemoryReservation,
    most: usize,
}

impl Body {
    fn has_place_for(&self, chunk: &[u8]) -> bool {
        chunk.len() <= self.most.saturating_sub(self.bytes.len())
    }

    fn push(&mut self, chunk: &[u8]) -> Result<()> {
        let (wanted, there) = (self.bytes.len() + chunk.len(), self.bytes.capacity());
        if wanted > there {
            let capacity = wanted.max((there * 2).max(FIRST_ROOM).min(self.most));
            self.room.try_grow(capacity - there)?;
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }
}

fn shown(bytes: usize) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        mebibytes => format!("{mebibytes} MiB"),
    }
}

fn is_busy(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// The seconds that a server says to wait. The other form, a time, is not heeded.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY))
}

/// The certificates in a file.
fn authorities(path: &Path, config: &Config) -> Result<Vec<Certificate>> {
    let pem = read(path, "ca", config)?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(authorities) if !authorities.is_empty() => Ok(authorities),
        _ => Err(no_pem(path, "there is no certificate in it", "ca", config)),
    }
}

/// A certificate and its key. What is in the file of the key is not told.
fn identity(certificate: &Path, key: &Path, config: &Config) -> Result<Identity> {
    let mut pem = read(certificate, "certificate", config)?;
    pem.push(b'\n');
    pem.extend(read(key, "key", config)?);
    Identity::from_pem(&pem)
        .map_err(|_| no_pem(certificate, "with the file of key it is no certificate with its key", "certificate", config))
}

fn read(path: &Path, key: &str, config: &Config) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|cause| no_pem(path, &cause.to_string(), key, config))
}

fn no_pem(path: &Path, why: &str, key: &str, config: &Config) -> Error {
    let error = Error::invalid(format!("{}: {why}", path.display())).with_hint("name a file in PEM");
    match &config.place {
        Place::Key(url) => error.at(Place::Key(format!("{}{key}", url.strip_suffix("url").unwrap_or(url)))),
        other => error.at(other.clone()),
    }
}

#[cfg(test)]
pub(super) mod tests;
