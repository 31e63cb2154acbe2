//! Connections: opened when needed, kept for the next statement, and given up with what runs on them when they are left.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult};
use nexus_flight_catalog::{Context, Error, Place, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use secrecy::ExposeSecret;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::config::SslMode;
use tokio_postgres::{CancelToken, Client};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::config::{Config, Tls};
use super::error;

/// Ends what the last user of a connection may have left; one in a transaction is never given back. Prepared statements stay:
/// only this connector makes them, and the driver keeps some of its own.
const CLEAN: &str = "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; \
                     SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// How long a server may take to end a statement that nobody waits for.
const ENDED_WITHIN: Duration = Duration::from_secs(10);
/// How long it is given at first, until it is asked again.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// The connections to one database.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    /// Those that can be used again.
    pool: Pool<Opener>,
    /// Room for each that may be there, also for one that is being given up: the server has its session until then.
    room: Arc<Semaphore>,
    wanted: Arc<Wanted>,
    config: Arc<Config>,
}

impl Connections {
    /// To the database that is configured; none is opened.
    pub(crate) fn new(config: Arc<Config>) -> Result<Self> {
        let opener = Opener { config: Arc::clone(&config), tls: OnceCell::new() };
        let pool = Pool::builder(opener).max_size(config.pool).build();
        let pool = pool.map_err(|error| Error::internal("the pool cannot be made").caused_by(error))?;
        let (room, wanted) = (Arc::new(Semaphore::new(config.pool)), Arc::default());
        Ok(Self { pool, room, wanted, config })
    }

    /// A connection of one's own. Errors: `Exhausted` where all are in use for too long, `Unavailable` and `Unauthenticated`
    /// where none can be opened.
    pub(super) async fn get(&self) -> Result<Lease> {
        let Config { connect_timeout, read_timeout, pool, catalog, .. } = self.config.as_ref();
        let until = Instant::now() + *connect_timeout;
        let Ok(room) = timeout_at(until, self.room()).await else {
            let message = format!("all {pool} connections of the catalog \"{catalog}\" are in use");
            return Err(Error::exhausted(message).with_hint("try again later, or raise its option pool"));
        };
        let (room, pool) = (room?, self.pool.clone());
        // As a task, so that one which is being opened or cleaned for somebody who has left meanwhile keeps its room until it is there.
        let opening = tokio::spawn(async move { timeout_at(until, pool.get()).await.map(|opened| (opened, room)) });
        match opening.await.map_err(|error| Error::internal("a connection was not opened to its end").caused_by(error))? {
            Ok((Ok(connection), room)) => Ok(Lease { used: Some((connection, room)), silence: *read_timeout, held: None }),
            Ok((Err(PoolError::Backend(error)), _)) => Err(error),
            Ok((Err(error), _)) => Err(Error::internal("the pool gives no connection").caused_by(error)),
            Err(_) => Err(unreachable(&self.config, "no answer in time")),
        }
    }

    /// Room for a connection; where there is none, it is wanted of idle transactions.
    async fn room(&self) -> Result<OwnedSemaphorePermit> {
        if let Ok(room) = Arc::clone(&self.room).try_acquire_owned() {
            return Ok(room);
        }
        let _waiting = self.wanted.one_more();
        let room = Arc::clone(&self.room).acquire_owned().await;
        room.map_err(|error| Error::internal("the pool gives no room").caused_by(error))
    }

    /// A permit for each who waits for a connection: whoever takes one for good is to give a connection back.
    pub(super) fn wanted(&self) -> Arc<Semaphore> {
        Arc::clone(&self.wanted.permits)
    }
}

/// What is asked of idle transactions.
#[derive(Debug)]
struct Wanted {
    /// Those who wait for room.
    waiting: AtomicUsize,
    /// No more than those: each that is taken for good gives one of them a connection.
    permits: Arc<Semaphore>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { waiting: AtomicUsize::new(0), permits: Arc::new(Semaphore::new(0)) }
    }
}

impl Wanted {
    fn one_more(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.permits.add_permits(1);
        Waiting(self)
    }
}

/// One who waits, until then.
struct Waiting<'a>(&'a Wanted);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Wanted { waiting, permits } = self.0;
        let still = waiting.fetch_sub(1, Ordering::Relaxed).saturating_sub(1);
        // Where a transaction has given a connection for it, those that are left are for the others who wait.
        permits.forget_permits(permits.available_permits().saturating_sub(still));
    }
}

/// A connection that is used. Unless it is given back, what runs on it is ended at the server, and it is closed.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The connection, and after it its room.
    used: Option<(Object<Opener>, OwnedSemaphorePermit)>,
    silence: Duration,
    /// What is held until nothing runs on it any more.
    held: Option<Arc<dyn Any + Send + Sync>>,
}

impl Lease {
    /// What is asked through. Errors: none, but for a defect.
    pub(crate) fn client(&self) -> Result<&Client> {
        let used = self.used.as_ref();
        used.map(|(connection, _)| &connection.client).ok_or_else(|| Error::internal("the connection was given back"))
    }

    /// What the server answers. Errors: its own; `Unavailable` where it is silent for too long.
    pub(crate) async fn answer<T>(&self, answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T> {
        answer_within(self.silence, answer).await
    }

    /// Runs statements whose answer is not wanted. Errors: as of [`Lease::answer`].
    pub(super) async fn run(&self, sql: &str) -> Result<()> {
        self.answer(self.client()?.batch_execute(sql)).await
    }

    /// Has it hold what a context does, for what changes a table.
    pub(super) fn holds(&mut self, cx: &Context) {
        self.held = cx.held.clone();
    }

    /// Lets the next statement have it: nothing runs on it any more.
    pub(super) fn give_back(mut self) {
        self.used = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((connection, room)) = self.used.take() {
            Object::take(connection).abandon((room, self.held.take()));
        }
    }
}

/// An answer, unless the server is silent for too long.
async fn answer_within<T>(most: Duration, answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T> {
    match timeout(most, answer).await {
        Ok(answer) => answer.map_err(error::of),
        Err(_) => Err(Error::unavailable(format!("the database was silent for {} s", most.as_secs()))
            .with_hint("see whether the server runs; where its statements take so long, raise the option read_timeout")),
    }
}

/// An open connection, with the task that reads and writes its socket.
pub(super) struct Connection {
    client: Client,
    task: Task,
    tls: MakeRustlsConnect,
}

/// Dropped, it closes the socket at once: a server that is frozen would let it wait for ever.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Connection {
    /// Ends what runs on it, and closes it; its room is for others, and what it holds given up, when nothing runs there any more, or the server
    /// does not end it.
    fn abandon(self, held: impl Send + 'static) {
        let Self { client, mut task, tls } = self;
        let cancel = client.cancel_token();
        let closed = client.is_closed();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            // Without it the task ends with the last answer that is due.
            drop(client);
            if !closed && timeout(ENDED_WITHIN, end(&cancel, &tls, &mut task)).await.is_err() {
                tracing::warn!("a statement that nobody waits for does not end at its database");
            }
            // The closed socket must do in any case.
            drop(task);
            drop(held);
        });
    }
}

/// Asks the server to end what runs on a connection, again and again until it has, or cannot be asked.
async fn end(cancel: &CancelToken, tls: &MakeRustlsConnect, task: &mut Task) {
    let mut wait = FIRST_WAIT;
    loop {
        if let Err(error) = cancel.cancel_query(tls.clone()).await {
            tracing::warn!(%error, "a statement that nobody waits for cannot be ended at its database");
            return;
        }
        // The server says nothing about whether a request to cancel was heard, and one that comes before the statement has
        // begun is not.
        if timeout(wait, &mut task.0).await.is_ok() {
            return;
        }
        wait *= 2;
    }
}

/// Opens connections, and cleans those that come back.
#[derive(Debug)]
pub(super) struct Opener {
    config: Arc<Config>,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Manager for Opener {
    type Type = Connection;
    type Error = Error;

    async fn create(&self) -> Result<Connection> {
        let tls = self.tls.get_or_try_init(|| async { tls(&self.config).map(Arc::new) }).await?;
        let tls = MakeRustlsConnect::new(ClientConfig::clone(tls));
        let config = &self.config;
        let mut wanted = tokio_postgres::Config::new();
        wanted.host(&config.host).port(config.port).user(&config.user).dbname(&config.database);
        wanted.application_name("nexus-gateway").connect_timeout(config.connect_timeout);
        wanted.keepalives_idle(Duration::from_secs(60)).tcp_user_timeout(config.read_timeout);
        wanted.ssl_mode(if matches!(config.tls, Tls::Off) { SslMode::Disable } else { SslMode::Require });
        if let Some(password) = &config.password {
            wanted.password(password.expose_secret());
        }
        let (client, mut connection) = wanted.connect(tls.clone()).await.map_err(|error| refused(config, error))?;
        // Whoever waits for an answer is told of what ends the connection. Notices are not logged: data may be in them.
        let task = tokio::spawn(async move { while let Some(Ok(_)) = poll_fn(|cx| connection.poll_message(cx)).await {} });
        let task = Task(task);
        Ok(Connection { client, task, tls })
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<Error> {
        connection.client.clear_type_cache();
        let cleaned = answer_within(self.config.connect_timeout, connection.client.batch_execute(CLEAN)).await;
        cleaned.map_err(RecycleError::Backend)
    }
}

fn tls(config: &Config) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let place = |key: &str| Place::Key(format!("catalogs.{}.{key}", config.catalog));
    match &config.tls {
        Tls::Off => {}
        Tls::Verify { ca: None } => {
            // Those of the machine that cannot be read vouch for nobody.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Tls::Verify { ca: Some(path) } => {
            let unread = |why: String| {
                Err(Error::invalid(format!("{}: {why}", path.display()))
                    .with_hint("name a file of certificates in PEM")
                    .at(place("ca")))
            };
            let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            match certificates {
                Ok(certificates) if certificates.is_empty() => return unread("there is no certificate in it".to_owned()),
                Ok(certificates) => {
                    roots.add_parsable_certificates(certificates);
                }
                Err(error) => return unread(error.to_string()),
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::internal("TLS cannot be set up").caused_by(error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Why no connection was opened.
fn refused(config: &Config, error: tokio_postgres::Error) -> Error {
    let place = |key: &str| Place::Key(format!("catalogs.{}.{key}", config.catalog));
    if let Some(said) = error.as_db_error() {
        let state = said.code().code().to_owned();
        let made = error::of(error);
        return match state.as_str() {
            "28P01" | "28000" if config.password.is_none() => made.with_hint("give a password").at(place("password")),
            "28P01" | "28000" => made.with_hint("check user and password, and pg_hba.conf of the server").at(place("password")),
            "3D000" => Error::invalid(made.message()).with_hint("name another database").at(place(config.key)),
            _ => made,
        };
    }
    let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), |cause| cause.to_string());
    if error.to_string().contains("authentication") || cause.contains("password") {
        return Error::unauthenticated(format!("the server at {} wants a password", config.address()))
            .with_hint("give one")
            .at(place("password"));
    }
    if error.to_string().contains("TLS") {
        let hint = "check ca; for a network that can be trusted set tls = \"off\"";
        return Error::unavailable(format!("no TLS with {}: {cause}", config.address())).with_hint(hint).at(place("tls"));
    }
    unreachable(config, &cause)
}

fn unreachable(config: &Config, why: &str) -> Error {
    Error::unavailable(format!(
        "the database of the catalog \"{}\" at {} cannot be reached: {why}",
        config.catalog,
        config.address()
    ))
    .with_hint(format!("check its option {}, and whether the server runs", config.key))
}
