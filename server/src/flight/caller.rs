//! Who makes a Flight call, in which session, and what its client can read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use nexus_flight_catalog::{Context, Error, Principal, Result};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Response};
use uuid::Uuid;

use crate::flight::profile::TypeProfile;
use crate::query::{Client, Protocol, Query};
use crate::session::{LONGEST_NAME, Session, Sessions};
use crate::transactions::Using;
use crate::wire::caching::Asked;
use crate::wire::connection::Peer;

/// The cookie that carries the sealed session.
const COOKIE: &str = "nexus-session";
/// The headers that say where names without a catalog or schema are looked up.
pub const CATALOG: &str = "catalog";
/// See [`CATALOG`].
pub const SCHEMA: &str = "schema";
/// What programs call themselves that keep cookies from their first call on: the JDBC driver, and `nexus sql`.
const KEEP_COOKIES: [&str; 2] = ["grpc-java", "nexus-sql"];
/// The header that chooses a type profile.
pub const PROFILE: &str = "x-nexus-type-profile";

/// The header that names the trace of the client, as in W3C Trace Context.
pub const TRACEPARENT: &str = "traceparent";

/// One Flight call's client.
#[derive(Debug)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    /// Its session: its own, or a new one with the defaults; with the names that this call alone is to have.
    pub session: Session,
    /// The catalog and schema of the session itself.
    lasting: (String, String),
    /// The types it can read.
    pub profile: TypeProfile,
    /// Whether it sent a session.
    pub has_session: bool,
    /// The trace that the call belongs to.
    pub parent: Option<Arc<str>>,
    /// When it is out of time.
    deadline: Instant,
    /// The program.
    pub client: Client,
    /// Whether it is known to keep cookies from its first call on.
    pub keeps_cookies: bool,
    /// What its headers want of the cache.
    caching: Asked,
    /// Whether the session is not the one that the client has.
    changed: bool,
    sessions: Arc<Sessions>,
}

impl Caller {
    /// Reads the headers of a call. The principal was put there when the credentials were checked.
    pub async fn new(headers: &MetadataMap, extensions: &Extensions, sessions: &Arc<Sessions>) -> Result<Self> {
        let principal = extensions.get::<Principal>().cloned().ok_or_else(|| Error::internal("a call passed unchecked"))?;
        let agent = headers.get("user-agent").and_then(|value| value.to_str().ok());
        let profile = match headers.get(PROFILE).map(|value| value.to_str()) {
            Some(Ok(name)) => Some(name.parse()?),
            Some(Err(_)) => return Err(Error::invalid(format!("the header {PROFILE} is not text"))),
            None => None,
        };
        let sent = cookie(headers);
        let (mut session, changed) = match sent {
            Some(sealed) => sessions.open(&principal, sealed).await?,
            None => (sessions.start(), false),
        };
        if sent.is_some() {
            sessions.note(&principal, &session, agent).await;
        }
        let profile = profile.or(session.options.type_profile).unwrap_or_else(|| TypeProfile::of_user_agent(agent));
        let lasting = (session.catalog.clone(), session.schema.clone());
        // For this call alone: a client that cannot set options can still send headers.
        for (name, value) in [(CATALOG, &mut session.catalog), (SCHEMA, &mut session.schema)] {
            if let Some(header) = headers.get(name) {
                header
                    .to_str()
                    .ok()
                    .filter(|text| text.len() <= LONGEST_NAME)
                    .ok_or_else(|| Error::invalid(format!("the header {name} is no text of {LONGEST_NAME} bytes at most")))?
                    .clone_into(value);
            }
        }
        let caching = Asked::of(headers.as_ref())?;
        let waits = headers.get("grpc-timeout").and_then(|value| timeout(value.to_str().ok()?));
        let within = waits.and_then(|waits| Instant::now().checked_add(waits));
        let deadline = sessions.deadline(&session);
        let deadline = within.map_or(deadline, |within| within.min(deadline));
        let parent = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).map(Arc::from);
        let keeps_cookies = sent.is_some() || agent.is_some_and(|agent| KEEP_COOKIES.iter().any(|name| agent.contains(name)));
        Ok(Self {
            principal,
            session,
            lasting,
            profile,
            has_session: sent.is_some(),
            parent,
            deadline,
            client: Client::new(extensions.get::<Peer>().map(|peer| peer.address), agent),
            keeps_cookies,
            caching,
            changed,
            sessions: Arc::clone(sessions),
        })
    }

    /// What work for this call goes by: who asks, and until when.
    pub fn context(&self) -> Context {
        Context { deadline: Some(self.deadline), parent: self.parent.clone(), ..Context::new(self.principal.clone()) }
    }

    /// A query of this caller.
    pub fn query(&self, statement: Arc<str>, parameters: Option<RecordBatch>, transaction: Option<Arc<Using>>) -> Query {
        let query = Query::new(self.context(), statement, self.asking(&self.session), Protocol::Flight);
        Query { parameters, transaction, session_lasts: self.keeps_cookies, client: self.client.clone(), ..query }
    }

    /// A session as this call has it, by its headers.
    pub fn asking(&self, session: &Session) -> Session {
        let mut session = session.clone();
        self.caching.over(&mut session.options);
        session
    }

    /// Sets where names without a catalog are looked up from now on.
    pub fn set_catalog(&mut self, catalog: String) {
        self.lasting.0.clone_from(&catalog);
        self.session.catalog = catalog;
    }

    /// Sets where names without a schema are looked up from now on.
    pub fn set_schema(&mut self, schema: String) {
        self.lasting.1.clone_from(&schema);
        self.session.schema = schema;
    }

    /// The session without what is of this call alone.
    fn own(&self) -> Session {
        let (catalog, schema) = self.lasting.clone();
        Session { catalog, schema, ..self.session.clone() }
    }

    /// Makes a transaction that of the session.
    pub async fn set_transaction(&mut self, transaction: Option<Uuid>) {
        self.session.transaction = transaction;
        self.change().await;
    }

    /// Holds that the session is not as it was: the client gets it with the response, and older values of it are not gone by.
    pub async fn change(&mut self) {
        self.session.revision = self.session.revision.saturating_add(1);
        self.changed = true;
        // What was not sent is a new session each time, and is not remembered before it comes back.
        if self.has_session {
            self.sessions.note(&self.principal, &self.own(), self.client.agent.as_deref()).await;
        }
    }

    /// The response with a session for a client that has none yet, or another one.
    pub fn greet<T>(&self, mut response: Response<T>) -> Result<Response<T>> {
        let temporary = self.sessions.temporaries().server_of(&self.session);
        if self.has_session && !self.changed && temporary == self.session.temporary {
            return Ok(response);
        }
        let session = Session { temporary, ..self.own() };
        let sealed = self.sessions.seal(&self.principal, &session)?;
        let cookie = format!("{COOKIE}={sealed}; Path=/; HttpOnly; SameSite=Strict");
        let cookie = cookie.parse().map_err(|_| Error::internal("a session makes no header"))?;
        response.metadata_mut().append("set-cookie", cookie);
        Ok(response)
    }
}

/// The session in the `cookie` headers. Some clients send each cookie in a header of its own, some quote the value.
fn cookie(headers: &MetadataMap) -> Option<&str> {
    headers
        .get_all("cookie")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value.trim_matches('"'))
}

/// How long a client waits: at most eight digits and a unit, as gRPC over HTTP/2 writes `grpc-timeout`.
fn timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}
