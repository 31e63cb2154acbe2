//! Sessions: the current catalog and schema of a client, carried by the client itself as a sealed value.

pub mod cache_control;
pub mod options;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use moka::Entry;
use moka::future::Cache;
use nexus_flight_catalog::{Error, Principal, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::Config;
use crate::latest::{REFUSED, latest};
use crate::seal::{Purpose, Seal};
use crate::session::options::Options;
use crate::temporary::Temporaries;

/// The longest name of a catalog or schema that a client may set, in bytes: it is carried, and kept.
pub const LONGEST_NAME: usize = 256;
/// How many sessions are remembered as seen.
const SEEN: u64 = 10_000;

/// What a client has set. Any replica that can open the sealed value can go on with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Tells sessions apart in logs and tables.
    pub id: Uuid,
    /// Where names without a catalog are looked up.
    pub catalog: String,
    /// Where names without a schema are looked up.
    pub schema: String,
    /// When it began.
    pub started: SystemTime,
    /// How often it was changed since: of two values of one session, the one with more is the newer.
    pub revision: u32,
    /// What else it has set.
    pub options: Options,
    /// The transaction that a statement of it has begun.
    pub transaction: Option<Uuid>,
    /// The server that has its temporary tables.
    pub temporary: Option<Uuid>,
}

/// A session as this process saw it last.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Whose it is.
    pub principal: Principal,
    /// What it has set.
    pub session: Session,
    /// The program that calls itself so.
    pub client: Option<String>,
    /// When it was last heard of.
    pub last: SystemTime,
}

/// Opens and seals sessions, and remembers those seen lately.
#[derive(Debug)]
pub struct Sessions {
    seal: Arc<Seal>,
    catalog: String,
    schema: String,
    lives: Duration,
    longest: Duration,
    temporaries: Arc<Temporaries>,
    seen: Cache<Uuid, Seen>,
    closed: Cache<Uuid, ()>,
}

impl Sessions {
    /// Sessions that start in a catalog and schema, and live as long as the handles of `config`, with its bounds of time for statements.
    pub fn new(seal: Arc<Seal>, catalog: String, config: &Config, temporaries: Arc<Temporaries>) -> Self {
        let (schema, lives, longest) = (config.defaults.schema.clone(), config.tickets.session_ttl.0, config.limits.time.0);
        let seen = latest(SEEN).time_to_idle(lives).build();
        // What is closed is denied for as long as its seal would hold.
        let closed = latest(REFUSED).time_to_live(lives).build();
        Self { seal, catalog, schema, lives, longest, temporaries, seen, closed }
    }

    /// The temporary tables of all of them.
    pub fn temporaries(&self) -> &Temporaries {
        &self.temporaries
    }

    /// A new session.
    pub fn start(&self) -> Session {
        let (catalog, schema) = (self.catalog.clone(), self.schema.clone());
        let (options, transaction, temporary) = (Options::default(), None, None);
        Session { id: Uuid::new_v4(), catalog, schema, started: SystemTime::now(), revision: 0, options, transaction, temporary }
    }

    /// When a statement of a session that arrives now is out of time.
    pub fn deadline(&self, session: &Session) -> Instant {
        let allowed = session.options.timeout.map_or(self.longest, |timeout| timeout.min(self.longest));
        Instant::now() + allowed
    }

    /// The session of a principal as a value for a cookie.
    pub fn seal(&self, principal: &Principal, session: &Session) -> Result<String> {
        self.seal.seal_text(Purpose::Session, &(&*principal.0, session), self.lives)
    }

    /// The session behind such a value, and whether the value is older than what this process has given for it since. Drivers go
    /// back to an older one: that of ADBC takes the cookie of a statement again when its rows are closed, and what was set, or
    /// begun, meanwhile must hold all the same. Errors: it is not ours, expired, closed, or another principal's.
    pub async fn open(&self, principal: &Principal, sealed: &str) -> Result<(Session, bool)> {
        let (owner, session): (String, Session) = self.seal.open_text(Purpose::Session, sealed)?;
        if owner != *principal.0 {
            return Err(Error::denied("the session belongs to another user").with_hint("connect again"));
        }
        if self.closed.contains_key(&session.id) {
            return Err(Error::precondition("the session was closed").with_hint("connect again"));
        }
        match self.seen.get(&session.id).await.filter(|seen| seen.session.revision > session.revision) {
            Some(newer) => Ok((newer.session, true)),
            None => Ok((session, false)),
        }
    }

    /// Remembers that a session was heard of, and its newest state.
    pub async fn note(&self, principal: &Principal, session: &Session, client: Option<&str>) {
        let seen = Seen {
            principal: principal.clone(),
            session: session.clone(),
            client: client.map(|client| client.chars().take(200).collect()),
            last: SystemTime::now(),
        };
        let newest = |known: Option<Entry<Uuid, Seen>>| {
            let newer = known.map(|known| known.into_value().session).filter(|known| known.revision > seen.session.revision);
            std::future::ready(match newer {
                Some(session) => Seen { session, ..seen },
                None => seen,
            })
        };
        self.seen.entry(session.id).and_upsert_with(newest).await;
    }

    /// Denies a session from now on.
    pub async fn close(&self, session: &Session) {
        self.closed.insert(session.id, ()).await;
        self.seen.invalidate(&session.id).await;
        self.temporaries.close(session.id);
    }

    /// The sessions seen lately, the latest first.
    pub fn recent(&self) -> Vec<Seen> {
        let mut recent: Vec<Seen> = self.seen.iter().map(|(_, seen)| seen).collect();
        recent.sort_by_key(|seen| std::cmp::Reverse(seen.last));
        recent
    }
}
