//! Temporary tables: those of one session, held in memory by this server, seen by nobody else, and gone with the session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use nexus_flight_catalog::quantity::Size;
use nexus_flight_catalog::{Catalogs, Error, Principal, Result, Source, TableName};
use nexus_sources::memory::MemorySource;
use tokio::time::Instant;
use uuid::Uuid;

use crate::query::Query;
use crate::session::Session;

/// The catalog that a session sees its own temporary tables in.
pub const CATALOG: &str = "temp";
/// The schema of all of them.
pub const SCHEMA: &str = "main";
/// How many sessions may have temporary tables at once, and how many of them one user's.
const SESSIONS: usize = 32;
const OF_ONE: usize = SESSIONS / 4 * 3;

/// The full name of a temporary table.
pub fn name(table: &str) -> TableName {
    TableName::new(CATALOG, SCHEMA, table)
}

/// Whether a statement makes a temporary table; it is one that makes a table like any other after that, which is all that
/// DataFusion plans.
pub fn take(statement: &mut Statement) -> bool {
    let Statement::Statement(statement) = statement else { return false };
    match statement.as_mut() {
        ast::Statement::CreateTable(create) => std::mem::take(&mut create.temporary),
        _ => false,
    }
}

/// The temporary tables of all sessions.
#[derive(Debug)]
pub struct Temporaries {
    /// Tells this process from the others that a session may come to.
    server: Uuid,
    held: Arc<Mutex<HashMap<Uuid, Arc<Held>>>>,
    size: Size,
    idle: Duration,
}

#[derive(Debug)]
struct Held {
    principal: Principal,
    tables: MemorySource,
    used: Mutex<Instant>,
}

impl Temporaries {
    /// Those of a session have at most `size` together, and go when it was not heard of for so long.
    pub fn new(size: Size, idle: Duration) -> Self {
        Self { server: Uuid::new_v4(), held: Arc::default(), size, idle }
    }

    /// Those of a session; none where it has none. Errors: `Precondition` where they are not here.
    pub fn of(&self, session: &Session) -> Result<Option<MemorySource>> {
        match lock(&self.held).get(&session.id) {
            Some(held) => {
                *lock(&held.used) = Instant::now();
                Ok(Some(held.tables.clone()))
            }
            None if session.temporary.is_none() => Ok(None),
            None => Err(Error::precondition("the temporary tables of this session are not on this server")
                .with_hint("they are on another one, or went when the session was left alone or the server ended: behind a balancer keep to one server, name other tables in full, or connect again")),
        }
    }

    /// The catalogs as a session sees them.
    pub fn over(&self, catalogs: &Arc<Catalogs>, session: &Session) -> Arc<Catalogs> {
        // What is not here is missed by the statements that name it.
        let Ok(Some(tables)) = self.of(session) else { return Arc::clone(catalogs) };
        let all = catalogs.replaced([(CATALOG.to_owned(), Arc::new(tables) as Arc<dyn Source>)]);
        all.allow_writes(CATALOG);
        Arc::new(all)
    }

    /// Makes room for those of the session of a query. Errors: `Precondition` where its client would not find them again,
    /// `Exhausted` where too many sessions have some, of its user or of all.
    pub fn start(&self, query: &Query) -> Result<()> {
        if !query.session_lasts {
            return Err(Error::precondition("this client keeps no session that temporary tables could belong to").with_hint(
                "turn cookies on: adbc.flight.sql.rpc.with_cookie_middleware=true for ADBC, withCookieMiddleware for other clients",
            ));
        }
        if self.of(&query.session)?.is_some() {
            return Ok(());
        }
        let principal = &query.cx.principal;
        let mut all = lock(&self.held);
        if all.len() >= SESSIONS || of_one(&all, principal) >= OF_ONE {
            all.retain(|_, held| !held.tables.is_empty());
        }
        if of_one(&all, principal) >= OF_ONE {
            return Err(Error::exhausted(format!("you have temporary tables in {OF_ONE} sessions"))
                .with_hint("drop those of sessions that are not needed"));
        }
        if all.len() >= SESSIONS {
            return Err(Error::exhausted(format!("{SESSIONS} sessions have temporary tables"))
                .with_hint("drop those of sessions that are not needed, or try again later"));
        }
        let (principal, tables) = (principal.clone(), MemorySource::of_size(self.size));
        let held = Held { principal, tables, used: Mutex::new(Instant::now()) };
        let held = all.entry(query.session.id).or_insert(Arc::new(held));
        tokio::spawn(left_alone(query.session.id, Arc::downgrade(held), Arc::clone(&self.held), self.idle));
        Ok(())
    }

    /// The server that has those of a session, to be carried in it.
    pub fn server_of(&self, session: &Session) -> Option<Uuid> {
        match lock(&self.held).get(&session.id) {
            Some(held) if held.tables.is_empty() => None,
            Some(_) => Some(self.server),
            None => session.temporary,
        }
    }

    /// Drops those of a session.
    pub fn close(&self, session: Uuid) {
        lock(&self.held).remove(&session);
    }
}

/// How many sessions of a user have some.
fn of_one(all: &HashMap<Uuid, Arc<Held>>, principal: &Principal) -> usize {
    all.values().filter(|held| held.principal == *principal).count()
}

/// Drops the tables of a session that is not heard of any more.
async fn left_alone(session: Uuid, held: Weak<Held>, all: Arc<Mutex<HashMap<Uuid, Arc<Held>>>>, idle: Duration) {
    loop {
        let Some(used) = held.upgrade().map(|held| *lock(&held.used)) else { return };
        let until = used + idle;
        if until <= Instant::now() {
            lock(&all).remove(&session);
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch};
    use nexus_flight_catalog::{Context, Keys, Kind};

    use super::*;
    use crate::query::Protocol;
    use crate::session::options::Options;

    const IDLE: Duration = Duration::from_secs(60);

    fn session() -> Session {
        let (catalog, schema, options) = ("memory".to_owned(), "main".to_owned(), Options::default());
        let started = std::time::SystemTime::now();
        Session { id: Uuid::new_v4(), catalog, schema, started, revision: 0, options, transaction: None, temporary: None }
    }

    fn query(user: &str, session: &Session) -> Query {
        let query = Query::new(Context::new(Principal(user.into())), "", session.clone(), Protocol::Flight);
        Query { session_lasts: true, ..query }
    }

    fn put(temporaries: &Temporaries, user: &str, session: &Session) {
        temporaries.start(&query(user, session)).unwrap();
        let batch = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
        temporaries.of(session).unwrap().unwrap().insert(SCHEMA, "t", vec![batch], Keys::default()).unwrap();
    }

    #[tokio::test]
    async fn tables_go_when_their_session_is_left_alone() {
        let temporaries = Temporaries::new(Size(1 << 20), Duration::from_millis(1));
        let mut session = session();
        put(&temporaries, "ann", &session);
        session.temporary = temporaries.server_of(&session);
        while !lock(&temporaries.held).is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(temporaries.of(&session).unwrap_err().kind(), Kind::Precondition);
    }

    #[tokio::test]
    async fn another_server_says_that_it_has_them_not() {
        let (here, elsewhere) = (Temporaries::new(Size(1 << 20), IDLE), Temporaries::new(Size(1 << 20), IDLE));
        let mut session = session();
        assert!(elsewhere.of(&session).unwrap().is_none());
        put(&here, "ann", &session);
        session.temporary = here.server_of(&session);
        assert_eq!(elsewhere.of(&session).unwrap_err().kind(), Kind::Precondition);
        assert_eq!(elsewhere.start(&query("ann", &session)).unwrap_err().kind(), Kind::Precondition);
        // It stays known where they are.
        assert_eq!(elsewhere.server_of(&session), session.temporary);
    }

    #[tokio::test]
    async fn only_so_many_sessions_have_some() {
        let temporaries = Temporaries::new(Size(1 << 20), IDLE);
        let sessions: Vec<Session> = (0..SESSIONS).map(|_| session()).collect();
        let (some, others) = sessions.split_at(SESSIONS / 2);
        temporaries.start(&query("ann", &some[0])).unwrap();
        some[1..].iter().for_each(|session| put(&temporaries, "ann", session));
        others.iter().for_each(|session| put(&temporaries, "bob", session));
        // The first has made none, so there is room for one more.
        put(&temporaries, "eve", &session());
        let error = temporaries.start(&query("eve", &session())).unwrap_err();
        assert_eq!(error.kind(), Kind::Exhausted);
        insta::assert_snapshot!(error, @"32 sessions have temporary tables; drop those of sessions that are not needed, or try again later");
        temporaries.close(some[1].id);
        temporaries.start(&query("eve", &session())).unwrap();
    }

    #[tokio::test]
    async fn one_user_leaves_places_to_others() {
        let temporaries = Temporaries::new(Size(1 << 20), IDLE);
        let sessions: Vec<Session> = (0..OF_ONE).map(|_| session()).collect();
        temporaries.start(&query("ann", &sessions[0])).unwrap();
        sessions[1..].iter().for_each(|session| put(&temporaries, "ann", session));
        // The first has made none, so there is room for one more.
        put(&temporaries, "ann", &session());
        let error = temporaries.start(&query("ann", &session())).unwrap_err();
        assert_eq!(error.kind(), Kind::Exhausted);
        insta::assert_snapshot!(error, @"you have temporary tables in 24 sessions; drop those of sessions that are not needed");
        put(&temporaries, "bob", &session());
        temporaries.close(sessions[1].id);
        put(&temporaries, "ann", &session());
    }

    #[tokio::test]
    async fn a_client_without_a_session_has_none() {
        let query = Query { session_lasts: false, ..query("ann", &session()) };
        assert_eq!(Temporaries::new(Size(1), IDLE).start(&query).unwrap_err().kind(), Kind::Precondition);
    }
}
