//! An answer that is kept, and how it stands to who asks now.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use nexus_flight_catalog::TableName;

use crate::digest::Digests;
use crate::flight::encode::Shared;
use crate::layers::audit::shown;
use crate::layers::cache::Listed;
use crate::plan::Planned;
use crate::procedures::Invalidate;
use crate::touched::Touched;

/// What is asked, of which state of things.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// The question and the versions of its tables.
    pub(super) digests: Digests,
    /// From before these versions were looked up.
    pub(super) began: Instant,
    /// For how long its tables may be taken as unchanged; none where their versions tell.
    pub(super) lives: Option<Duration>,
    /// When one of its tables was written to last through this gateway.
    pub(super) written: Option<Instant>,
    /// When the policy changed last.
    pub(super) governed: Option<Instant>,
}

/// Of what statement an answer is.
#[derive(Debug, Clone, Default)]
pub(super) struct About {
    /// Who asked.
    pub(super) principal: String,
    /// In which words.
    pub(super) statement: String,
    /// The tables that it reads.
    pub(super) tables: Vec<TableName>,
    /// The name that its client has given to its answers.
    pub(super) tag: Option<String>,
}

impl About {
    /// Of a statement; with `redacts` without its values.
    pub(super) fn of(planned: &Planned, redacts: bool) -> Self {
        let query = &planned.query;
        let tables = planned.tables.iter().map(|(name, _)| name.clone()).collect();
        let (principal, statement) = (query.cx.principal.to_string(), shown(&query.statement, redacts));
        Self { principal, statement, tables, tag: query.session.options.cache_tag.clone() }
    }

    /// What it weighs.
    pub(super) fn bytes(&self) -> u64 {
        let of_table = |name: &TableName| name.catalog.len() + name.schema.len() + name.table.len();
        let tables = self.tables.iter().map(of_table).sum::<usize>();
        (self.principal.len() + self.statement.len() + tables + self.tag.as_ref().map_or(0, String::len)) as u64
    }

    /// Whether it is one of those that are given up.
    pub(super) fn is_of(&self, what: &Invalidate) -> bool {
        match what {
            Invalidate::Tables(names) => self.tables.iter().any(|table| names.contains(table)),
            Invalidate::Tag(tag) => self.tag.as_ref() == Some(tag),
        }
    }
}

/// An answer that is kept.
#[derive(Debug)]
pub(super) struct Entry {
    /// What was asked.
    pub(super) key: Key,
    /// Its columns.
    pub(super) schema: SchemaRef,
    /// Its rows.
    pub(super) batches: Arc<[RecordBatch]>,
    /// What it weighs.
    pub(super) bytes: u64,
    /// What it was made of.
    pub(super) touched: Touched,
    /// Of what statement it is.
    pub(super) about: About,
    /// Whether the policy hides a part of its tables.
    pub(super) is_part: bool,
    /// When its tables were last known to be in the state that it is of.
    pub(super) current: Mutex<Instant>,
    /// Its rows in number.
    pub(super) rows: u64,
    /// What it took to make it, without what its reader took.
    pub(super) took: Duration,
    /// How often it was given.
    pub(super) given: AtomicU64,
    /// The messages that Flight gives it in.
    pub(super) shared: Arc<Shared>,
}

/// How an entry stands to who asks its question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is the answer.
    Fresh,
    /// It was the answer that long ago, and may have been so since.
    Stale(Duration),
    /// It is nobody's any more.
    Gone,
}

impl Entry {
    /// How it stands now to a key of its question.
    pub(super) fn standing(&self, key: &Key, now: Instant) -> Standing {
        let is_before = |change: Option<Instant>| change.is_some_and(|change| self.key.began <= change);
        if is_before(key.written) {
            return Standing::Gone;
        }
        let changed = (self.key.digests.state != key.digests.state).then(|| now.saturating_duration_since(self.current()));
        let ran_out = key.lives.and_then(|lives| self.age(now).checked_sub(lives)).filter(|out| !out.is_zero());
        match changed.max(ran_out) {
            None => Standing::Fresh,
            // Who was let in since may not see what was gone by then.
            Some(_) if is_before(key.governed) => Standing::Gone,
            Some(out) => Standing::Stale(out),
        }
    }

    /// How long ago its rows were read, at most.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.key.began)
    }

    /// How long ago its tables were known to be in its state, for who does not know their versions; none where one of them may have been
    /// changed last then, by a write that its version need not tell of yet.
    pub(super) fn holds(&self, key: &Key, changed: Option<Instant>, now: Instant) -> Option<Duration> {
        let current = self.current();
        let is_before = |change: Option<Instant>, then: Instant| change.is_none_or(|change| change < then);
        // One over a table that had no version was only taken as current.
        let is_known = self.key.lives.is_none();
        let holds = is_known && is_before(key.written, self.key.began) && is_before(changed, current);
        holds.then(|| now.saturating_duration_since(current))
    }

    /// How long ago its tables were known to be in its state, for who asks with a key: since then they may have changed.
    pub(super) fn bound(&self, key: &Key, now: Instant) -> Duration {
        match key.lives {
            // What has no version is known by reading it alone.
            Some(_) => self.age(now),
            None => now.saturating_duration_since(self.current()),
        }
    }

    /// Holds that its tables were in its state then, or later.
    pub(super) fn was_current(&self, then: Instant) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = then.max(*current);
    }

    /// Counts that it is given once more, and what that saves.
    pub(super) fn give(&self) {
        self.given.fetch_add(1, Ordering::Relaxed);
        metrics::histogram!("nexus_cache_saved_seconds").record(self.took.as_secs_f64());
    }

    /// As it is listed.
    pub(super) fn listed(&self, now: Instant) -> Listed {
        let About { principal, statement, tables, tag } = self.about.clone();
        let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
        Listed {
            principal,
            statement,
            tables: tables.join(", "),
            tag,
            rows: self.rows,
            bytes: self.bytes + self.shared.bytes(),
            age: self.age(now),
            took: self.took,
            given: self.given.load(Ordering::Relaxed),
        }
    }

    fn current(&self) -> Instant {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;

    use super::*;
    use crate::flight::encode::Room;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(state: u8, began: Instant, lives: Option<Duration>) -> Key {
        let digests = Digests { question: [0; 32], state: [state; 32] };
        Key { digests, began, lives, written: None, governed: None }
    }

    fn entry(key: Key) -> Entry {
        let (schema, current) = (Arc::new(Schema::empty()), Mutex::new(key.began));
        Entry {
            key,
            schema,
            batches: Arc::default(),
            bytes: 0,
            touched: Touched::default(),
            about: About::default(),
            is_part: false,
            current,
            rows: 0,
            took: Duration::ZERO,
            given: AtomicU64::default(),
            shared: Arc::new(Shared::new(&Room::new(0))),
        }
    }

    #[test]
    fn an_entry_is_out_of_date_since_it_was_last_known_to_be_current() {
        let start = Instant::now();
        let (entry, later) = (entry(key(1, start, None)), start + SECOND * 10);
        assert_eq!(entry.standing(&key(1, later, None), later), Standing::Fresh);
        assert_eq!(entry.standing(&key(2, later, None), later), Standing::Stale(SECOND * 10));
        entry.was_current(start + SECOND * 7);
        entry.was_current(start + SECOND);
        assert_eq!(entry.standing(&key(2, later, None), later), Standing::Stale(SECOND * 3));
        assert_eq!(entry.age(later), SECOND * 10);
        assert_eq!(entry.bound(&key(1, later, None), later), SECOND * 3);
        assert_eq!(entry.bound(&key(1, later, Some(SECOND)), later), SECOND * 10);
    }

    #[test]
    fn it_is_known_to_be_current_until_something_changes() {
        let start = Instant::now();
        let (entry, later) = (entry(key(1, start, None)), start + SECOND * 10);
        // The state of the key is not looked at.
        let holds = |written, changed| entry.holds(&Key { written, ..key(2, later, None) }, changed, later);
        assert_eq!(holds(None, None), Some(SECOND * 10));
        entry.was_current(start + SECOND * 7);
        assert_eq!(holds(None, None), Some(SECOND * 3));
        assert_eq!(holds(None, Some(start + SECOND * 6)), Some(SECOND * 3));
        assert_eq!(holds(None, Some(start + SECOND * 7)), None);
        // What is given up is so for good, however it was found since.
        assert_eq!(holds(Some(start + SECOND), None), None);
        let unversioned = super::tests::entry(key(1, start, Some(SECOND * 60)));
        unversioned.was_current(start + SECOND * 9);
        assert_eq!(unversioned.holds(&key(2, later, None), None, later), None);
    }

    #[test]
    fn what_is_taken_as_unchanged_runs_out() {
        let start = Instant::now();
        let (entry, lives) = (entry(key(1, start, Some(SECOND * 5))), Some(SECOND * 5));
        let standing = |after: Duration| entry.standing(&key(1, start + after, lives), start + after);
        assert_eq!(standing(SECOND * 5), Standing::Fresh);
        assert_eq!(standing(SECOND * 6), Standing::Stale(SECOND));
        // One that has changed too is out of date for the longer of both.
        assert_eq!(entry.standing(&key(2, start, lives), start + SECOND * 6), Standing::Stale(SECOND * 6));
    }

    #[test]
    fn a_write_ends_it_and_another_policy_keeps_it_from_being_given_late() {
        let start = Instant::now();
        let (entry, later) = (entry(key(1, start, None)), start + SECOND);
        let at = |state, written, governed| entry.standing(&Key { written, governed, ..key(state, later, None) }, later);
        let before = start.checked_sub(Duration::from_nanos(1)).unwrap();
        assert_eq!(at(1, Some(start), None), Standing::Gone);
        assert_eq!(at(2, Some(later), None), Standing::Gone);
        assert_eq!(at(1, Some(before), None), Standing::Fresh);
        assert_eq!(at(1, None, Some(later)), Standing::Fresh);
        assert_eq!(at(2, None, Some(later)), Standing::Gone);
        assert_eq!(at(2, None, Some(before)), Standing::Stale(SECOND));
    }
}
