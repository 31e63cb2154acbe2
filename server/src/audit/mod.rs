//! The audit trail: a start and an end of every statement, as lines of JSON in a folder, each sealed to the one before it.

mod chain;
mod redact;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use nexus_flight_catalog::{Error, Place, Result};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use uuid::Uuid;

use crate::audit::chain::{Chain, Head, Link};
use crate::config;
use crate::printable::{in_json, shortened};
use crate::query::Query;
use crate::touched::Touched;

pub use redact::redacted;
pub use verify::{Verified, verify};

/// The last link of the chain, beside the records: what is cut off at their end is missed. With a key it is signed, so that nobody
/// else makes one for what is left.
const HEAD: &str = "head";
const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";
/// The most bytes that the text of a statement takes of its record, as JSON writes it: long ones must not soon have the records of all
/// others go, which are kept by their bytes. What is read and written is told in full, so that nobody hides it behind a long text.
const TEXT: usize = 64 << 10;

/// Writes the trail. What cannot be recorded does not run.
#[derive(Debug)]
pub struct Trail {
    folder: PathBuf,
    chain: Chain,
    rotate: u64,
    keep: usize,
    redacts: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    records: File,
    /// The bytes of whole records in the file.
    length: u64,
    head: File,
    last: Link,
}

/// How a statement ended.
#[derive(Debug)]
pub struct Ended<'a> {
    /// `finished`, or the kind of its error.
    pub outcome: &'static str,
    /// The error, as the client got it.
    pub error: Option<&'a str>,
    /// The rows sent.
    pub rows: u64,
    /// The bytes of those rows in memory.
    pub bytes: u64,
    /// From its arrival to its end, in milliseconds.
    pub milliseconds: u64,
    /// What the cache had to do with it.
    pub cache: Option<&'static str>,
    /// What it read and wrote, where it came so far.
    pub touched: &'a Touched,
}

#[derive(Serialize)]
struct Record<'a, T> {
    index: u64,
    at: String,
    event: &'static str,
    #[serde(flatten)]
    what: &'a T,
}

#[derive(Serialize)]
struct Opened<'a> {
    version: &'static str,
    previous: &'a str,
}

#[derive(Serialize)]
struct Start<'a> {
    query: String,
    principal: &'a str,
    session: String,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    statement: &'a str,
    #[serde(flatten)]
    whole: Option<Whole>,
}

/// What is told of a text that is cut, so that it is known again by who has all of it.
#[derive(Serialize)]
struct Whole {
    statement_bytes: usize,
    statement_sha256: String,
}

#[derive(Serialize)]
struct End<'a> {
    query: String,
    principal: &'a str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    rows: u64,
    bytes: u64,
    milliseconds: u64,
    route: &'static str,
    cache: &'static str,
    reads: &'a BTreeMap<String, BTreeSet<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    writes: Option<&'a str>,
}

/// Work that is recorded as cancelled, unless it comes to its end.
struct Left<'a> {
    trail: &'a Trail,
    query: &'a Query,
    /// When it began, until its end is recorded.
    began: Option<Instant>,
}

impl Left<'_> {
    fn end(&mut self, outcome: Result<(), &Error>) {
        if let Some(began) = self.began.take() {
            self.trail.ended(self.query, began, outcome);
        }
    }
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.end(Err(&Error::cancelled()));
    }
}

impl Trail {
    /// Goes on with the trail of a folder, which is made where it is not there. Errors: `Invalid` where it cannot be written or read,
    /// where another gateway writes it, and where records at its end are missing or changed.
    pub fn open(config: &config::Audit, base: &Path) -> Result<Self> {
        let folder = base.join(&config.folder);
        let wrong = |reason: String, hint: &str| {
            let place = Place::File { path: folder.display().to_string(), line: None };
            Error::invalid(format!("the audit trail cannot be gone on with: {reason}")).with_hint(hint).at(place)
        };
        let io = |error: std::io::Error| wrong(error.to_string(), "let the gateway write to audit.folder");
        fs::create_dir_all(&folder).map_err(io)?;
        let head = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join(HEAD)).map_err(io)?;
        head.try_lock().map_err(|_| wrong("another gateway writes it".to_owned(), "give each its own audit.folder"))?;
        let chain = Chain::new(config.key.as_ref());
        let hint = "run nexus audit verify; to begin another trail, name another folder as audit.folder";
        let missing = || wrong("records at its end are missing or changed".to_owned(), hint);
        let known = match chain.of_head(&head).map_err(io)? {
            Head::Empty => None,
            Head::Of(link) => Some(link),
            Head::Changed => return Err(missing()),
        };
        let mut files = files(&folder).map_err(io)?;
        let state = loop {
            let Some((_, path)) = files.pop() else {
                if known.is_some() {
                    return Err(wrong("its records are missing".to_owned(), hint));
                }
                break State::begin(&folder, head, Link::first(), &chain).map_err(io)?;
            };
            let (records, length, last) = State::read(&path).map_err(io)?;
            match (last, &known) {
                // The process ended when it had just made it.
                (None, _) => fs::remove_file(&path).map_err(io)?,
                (Some(last), Some(known)) if last.index > known.index || last == *known => {
                    break State { records, length, head, last };
                }
                _ => return Err(missing()),
            }
        };
        let (rotate, keep, redacts) = (config.rotate.0, config.keep as usize, config.redact);
        Ok(Self { folder, chain, rotate, keep, redacts, state: Mutex::new(state) })
    }

    /// Whether no values of statements are to be seen.
    pub fn redacts(&self) -> bool {
        self.redacts
    }

    /// Records that a statement has come. Errors: `Unavailable` where that cannot be written.
    pub fn start(&self, query: &Query) -> Result<()> {
        let redacted = self.redacts.then(|| redacted(&query.statement));
        // Of what may be told alone: a hash of the values would tell who guesses them.
        let whole = redacted.as_deref().unwrap_or(&query.statement);
        let statement = fitting(whole);
        let client = &query.client;
        self.record(
            "start",
            &Start {
                query: query.cx.query.to_string(),
                principal: &query.cx.principal.0,
                session: query.session.id.to_string(),
                protocol: query.protocol.name(),
                address: client.address.map(|address| address.to_string()),
                agent: client.agent.as_deref(),
                statement,
                whole: (statement.len() < whole.len()).then(|| Whole {
                    statement_bytes: whole.len(),
                    statement_sha256: hex::encode(digest(&SHA256, whole.as_bytes())),
                }),
            },
        )
    }

    /// Records how a statement that has a start ended. Errors: `Unavailable` where that cannot be written.
    pub fn end(&self, query: Uuid, principal: &str, ended: &Ended<'_>) -> Result<()> {
        self.record(
            "end",
            &End {
                query: query.to_string(),
                principal,
                outcome: ended.outcome,
                error: ended.error,
                rows: ended.rows,
                bytes: ended.bytes,
                milliseconds: ended.milliseconds,
                route: ended.touched.route,
                cache: ended.cache.unwrap_or("none"),
                reads: &ended.touched.reads,
                writes: ended.touched.writes.as_deref(),
            },
        )
    }

    /// Records work that goes past the query path, where there is a trail.
    pub async fn around<T>(trail: Option<&Self>, query: &Query, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(trail) = trail else { return work.await };
        trail.start(query)?;
        let mut left = Left { trail, query, began: Some(Instant::now()) };
        let done = work.await;
        left.end(done.as_ref().map(drop));
        done
    }

    /// Records a statement that was refused before it came to the query path, where there is a trail. Errors: `Unavailable` where that
    /// cannot be written.
    pub fn refused(trail: Option<&Self>, query: &Query, error: &Error) -> Result<()> {
        let Some(trail) = trail else { return Ok(()) };
        trail.start(query)?;
        trail.ended(query, Instant::now(), Err(error));
        Ok(())
    }

    fn ended(&self, query: &Query, began: Instant, outcome: Result<(), &Error>) {
        let error = outcome.err().filter(|_| !self.redacts).map(|error| shortened(error.to_string()));
        let ended = Ended {
            outcome: outcome.map_or_else(|error| error.kind().name(), |()| "finished"),
            error: error.as_deref(),
            rows: 0,
            bytes: 0,
            milliseconds: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            cache: None,
            touched: &Touched::default(),
        };
        // That it could not be written is in the log, and ends the next statement.
        let _ = self.end(query.cx.query, &query.cx.principal.0, &ended);
    }

    fn record(&self, event: &'static str, what: &impl Serialize) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let written = state.append(&self.chain, event, what).and_then(|()| match state.length >= self.rotate {
            true => self.rotate(&mut state),
            false => Ok(()),
        });
        written.map_err(|error| {
            metrics::counter!("nexus_audit_failures_total").increment(1);
            tracing::error!(%error, folder = %self.folder.display(), "the audit trail cannot be written");
            Error::unavailable("the statement cannot be recorded in the audit trail, and does not run without that")
                .with_hint("tell who runs this gateway: its log says why, which mostly is a full disk")
                .caused_by(error)
        })
    }

    fn rotate(&self, state: &mut State) -> std::io::Result<()> {
        let head = state.head.try_clone()?;
        *state = State::begin(&self.folder, head, state.last.clone(), &self.chain)?;
        let files = files(&self.folder)?;
        for (_, path) in files.iter().take(files.len().saturating_sub(self.keep)) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

impl State {
    /// A file to go on with: the bytes of its whole records, and the last of them.
    fn read(path: &Path) -> std::io::Result<(File, u64, Option<Link>)> {
        let records = OpenOptions::new().read(true).append(true).open(path)?;
        let (mut length, mut last) = (0, None);
        let mut lines = BufReader::new(&records);
        let mut line = Vec::new();
        // What is no whole line was being written when the process ended, and nobody was answered after it.
        while lines.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            length += line.len() as u64;
            last = Link::of_line(&line);
            line.clear();
        }
        records.set_len(length)?;
        Ok((records, length, last))
    }

    /// A new file after a link, whose first record names that.
    fn begin(folder: &Path, head: File, last: Link, chain: &Chain) -> std::io::Result<Self> {
        let path = folder.join(format!("{PREFIX}{:020}{SUFFIX}", last.next()));
        let records = OpenOptions::new().append(true).create_new(true).open(path)?;
        let previous = last.hex();
        let mut state = State { records, length: 0, head, last };
        state.append(chain, "opened", &Opened { version: env!("CARGO_PKG_VERSION"), previous: &previous })?;
        Ok(state)
    }

    fn append(&mut self, chain: &Chain, event: &'static str, what: &impl Serialize) -> std::io::Result<()> {
        let index = self.last.next();
        let at = DateTime::<Utc>::from(SystemTime::now()).to_rfc3339_opts(SecondsFormat::Micros, true);
        let record = serde_json::to_string(&Record { index, at, event, what })?;
        let (line, link) = chain.sealed(&self.last, index, record);
        let head = chain.head(&link);
        let written = self.records.write_all(line.as_bytes()).and_then(|()| self.head.write_all_at(head.as_bytes(), 0));
        if let Err(error) = written {
            // Half a record would end the trail, and so would another with the index of one that counts as not written.
            self.records.set_len(self.length)?;
            return Err(error);
        }
        self.length += line.len() as u64;
        self.last = link;
        Ok(())
    }
}

/// As much of a text, from its beginning, as a record has room for.
fn fitting(text: &str) -> &str {
    let mut taken = 0;
    let end = text.bytes().position(|byte| {
        taken += in_json(byte);
        taken > TEXT
    });
    let end = end.map_or(text.len(), |end| text.floor_char_boundary(end));
    text.get(..end).unwrap_or_default()
}

/// The files of records in a folder, by the index of their first.
fn files(folder: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(SUFFIX));
        if let Some(first) = number.and_then(|number| number.parse().ok()) {
            files.push((first, path));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
