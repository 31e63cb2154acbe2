//! A record of every statement: opened when it comes, closed when its stream ends, refusals and cache hits included.

mod reader;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use futures::StreamExt;
use nexus_flight_catalog::source::TRACE;
use nexus_flight_catalog::{Context, Error, Kind, Result};
use tracing::Span;
use tracing::field::Empty;
use uuid::Uuid;

use crate::audit::{Ended, Trail, redacted};
use crate::layers::audit::reader::Reader;
use crate::printable::{printable, shortened};
use crate::query::{Answer, Description, Execute, Query};
use crate::touched::{Telling, Touched, told};
use crate::traces;

/// How many statements that ran are remembered.
const REMEMBERED: usize = 1_000;

/// How much of a statement's text a record keeps, in characters.
const TEXT: usize = 4_096;

/// The text of a statement as it is kept: cut to a length, and with `redacts` without its values.
pub fn shown(statement: &str, redacts: bool) -> String {
    let statement: String = statement.chars().take(TEXT).collect();
    if redacts { redacted(&statement) } else { statement }
}

/// The statements that run now and the latest of those that ran.
#[derive(Debug, Default)]
pub struct History {
    statements: Mutex<Statements>,
}

#[derive(Debug, Default)]
struct Statements {
    running: BTreeMap<Uuid, Record>,
    recent: VecDeque<Record>,
}

/// What is known of one statement.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its id: in logs, answers and tables the same.
    pub id: Uuid,
    /// Who sent it.
    pub principal: String,
    /// The session that it belongs to.
    pub session: Uuid,
    /// The protocol that it came in by.
    pub protocol: &'static str,
    /// Its text, cut to a length.
    pub statement: String,
    /// When it came.
    pub started: SystemTime,
    /// `running`, `finished`, or the kind of its error.
    pub state: &'static str,
    /// The error, as the client got it.
    pub error: Option<String>,
    /// How long it took, or takes so far.
    pub elapsed: Duration,
    /// The rows sent.
    pub rows: u64,
    /// The bytes of those rows in memory.
    pub bytes: u64,
    /// What the cache had to do with it.
    pub cache: Option<&'static str>,
}

impl Record {
    fn ended<'a>(&'a self, touched: &'a Touched) -> Ended<'a> {
        Ended {
            outcome: self.state,
            error: self.error.as_deref(),
            rows: self.rows,
            bytes: self.bytes,
            milliseconds: u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
            cache: self.cache,
            touched,
        }
    }
}

impl History {
    /// The running statements and then the recent ones, the latest first.
    pub fn records(&self) -> Vec<Record> {
        let statements = self.lock();
        let running = statements.running.values().rev().map(|record| {
            let elapsed = record.started.elapsed().unwrap_or_default();
            Record { elapsed, ..record.clone() }
        });
        running.chain(statements.recent.iter().rev().cloned()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Statements> {
        self.statements.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn open(&self, record: Record) {
        metrics::gauge!("nexus_statements_running").increment(1);
        self.lock().running.insert(record.id, record);
    }

    fn progress(&self, id: Uuid, rows: u64, bytes: u64) {
        if let Some(record) = self.lock().running.get_mut(&id) {
            (record.rows, record.bytes) = (rows, bytes);
        }
    }

    fn close(&self, record: Record) {
        metrics::gauge!("nexus_statements_running").decrement(1);
        let mut statements = self.lock();
        statements.running.remove(&record.id);
        if statements.recent.len() >= REMEMBERED {
            statements.recent.pop_front();
        }
        statements.recent.push_back(record);
    }
}

/// The outermost layer.
pub struct Audit<E> {
    inner: E,
    history: Arc<History>,
    trail: Option<Arc<Trail>>,
    stall: Duration,
}

impl<E> Audit<E> {
    /// Records into a history, and into a trail where there is one. A statement ends where its reader takes nothing for `stall`.
    pub fn new(inner: E, history: Arc<History>, trail: Option<Arc<Trail>>, stall: Duration) -> Self {
        Self { inner, history, trail, stall }
    }

    fn open(&self, query: &Query) -> Result<Open> {
        if let Some(trail) = &self.trail {
            trail.start(query)?;
        }
        Ok(Open::new(&self.history, self.trail.as_ref(), query))
    }
}

#[async_trait]
impl<E: Execute> Execute for Audit<E> {
    async fn describe(&self, query: &Query) -> Result<Description> {
        let span = tracing::info_span!(
            target: TRACE,
            parent: None,
            "describe",
            otel.kind = "server",
            nexus.session = %query.session.id,
            nexus.protocol = query.protocol.name(),
            enduser.id = %query.cx.principal,
        );
        traces::join(&span, query.cx.parent.as_deref());
        let cx = Context { span, ..query.cx.clone() };
        let described = self.inner.describe(&Query { cx, ..query.clone() }).await;
        // A statement that is described runs next and is recorded then; one that is refused here never comes back.
        if let Err(error) = &described {
            self.open(query)?.close(Err(error));
        }
        described
    }

    async fn execute(&self, mut query: Query) -> Result<Answer> {
        let mut open = self.open(&query)?;
        // From before the span is set: the watch beside the rows must not keep it open.
        let (cx, most) = (query.cx.clone(), query.most);
        query.cx.span = open.span.clone();
        query.touched = open.touched.clone();
        match self.inner.execute(query).await {
            Ok(answer) => {
                open.record.cache = Some(answer.cache.how.name());
                let answer = answer.within(most);
                Ok(Answer { batches: Reader::new(answer.batches, open, cx, self.stall).boxed(), ..answer })
            }
            Err(error) => {
                open.close(Err(&error));
                Err(error)
            }
        }
    }
}

/// An open record. Dropped before its end, it is closed as cancelled: the client went away.
struct Open {
    history: Arc<History>,
    trail: Option<Arc<Trail>>,
    touched: Telling,
    record: Record,
    began: Instant,
    span: Span,
    closed: bool,
}

impl Open {
    fn new(history: &Arc<History>, trail: Option<&Arc<Trail>>, query: &Query) -> Self {
        let statement = shown(&query.statement, trail.is_some_and(|trail| trail.redacts()));
        let record = Record {
            id: query.cx.query,
            principal: query.cx.principal.to_string(),
            session: query.session.id,
            protocol: query.protocol.name(),
            statement,
            started: SystemTime::now(),
            state: "running",
            error: None,
            elapsed: Duration::ZERO,
            rows: 0,
            bytes: 0,
            cache: None,
        };
        history.open(record.clone());
        let span = tracing::info_span!(
            target: TRACE,
            parent: None,
            "statement",
            otel.kind = "server",
            otel.status_code = Empty,
            nexus.query = %record.id,
            nexus.session = %record.session,
            nexus.protocol = record.protocol,
            nexus.cache = Empty,
            nexus.outcome = Empty,
            enduser.id = record.principal,
            db.response.returned_rows = Empty,
        );
        traces::join(&span, query.cx.parent.as_deref());
        let (history, trail) = (Arc::clone(history), trail.cloned());
        let touched = trail.is_some().then(Arc::default);
        Self { history, trail, touched, record, began: Instant::now(), span, closed: false }
    }

    fn count(&mut self, rows: u64, bytes: u64) {
        self.record.rows += rows;
        self.record.bytes += bytes;
        self.history.progress(self.record.id, self.record.rows, self.record.bytes);
    }

    fn close(mut self, outcome: Result<(), &Error>) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Result<(), &Error>) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let record = &mut self.record;
        record.elapsed = self.began.elapsed();
        record.state = outcome.map_or_else(|error| error.kind().name(), |()| "finished");
        // What it says may quote the statement.
        let is_told = self.trail.as_ref().is_none_or(|trail| !trail.redacts());
        record.error = outcome.err().filter(|_| is_told).map(|error| shortened(error.to_string()));
        self.span.record("nexus.outcome", record.state);
        self.span.record("nexus.cache", record.cache);
        self.span.record("db.response.returned_rows", i64::try_from(record.rows).unwrap_or(i64::MAX));
        self.span.record("otel.status_code", if outcome.is_ok() { "ok" } else { "error" });
        metrics::counter!("nexus_statements_total", "protocol" => record.protocol, "outcome" => record.state).increment(1);
        metrics::counter!("nexus_rows_sent_total", "protocol" => record.protocol).increment(record.rows);
        metrics::histogram!("nexus_statement_seconds", "protocol" => record.protocol).record(record.elapsed.as_secs_f64());
        if let Err(error) = outcome
            && error.kind() == Kind::Internal
        {
            let cause = if is_told { format!("{error:?}") } else { error.kind().name().to_owned() };
            tracing::error!(query = %record.id, cause, "a statement met a defect");
        }
        tracing::info!(
            target: "nexus::audit",
            query = %record.id,
            principal = %record.principal,
            session = %record.session,
            protocol = record.protocol,
            outcome = record.state,
            rows = record.rows,
            bytes = record.bytes,
            milliseconds = record.elapsed.as_millis() as u64,
            cache = record.cache.unwrap_or("none"),
            error = %printable(record.error.as_deref().unwrap_or_default()),
            // Over several lines it could look like other entries of the log.
            statement = %printable(&record.statement),
            "statement"
        );
        if let Some(trail) = &self.trail {
            // That it could not be written is in the log, and ends the next statement.
            let _ = trail.end(record.id, &record.principal, &record.ended(&told(&self.touched)));
        }
        self.history.close(self.record.clone());
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.end(Err(&Error::cancelled()));
    }
}
