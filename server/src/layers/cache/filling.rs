//! What an answer on its way becomes when all of it has come: an entry.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use nexus_flight_catalog::policy::is_part;

use crate::flight::encode::Shared;
use crate::layers::cache::entry::{About, Entry, Key};
use crate::plan::Planned;
use crate::touched::Touched;

/// What an entry weighs beside its rows.
const BESIDE: u64 = 1_024;

/// What is known of an entry before its rows are there.
pub(super) struct Filling {
    key: Key,
    about: About,
    is_part: bool,
    shared: Shared,
}

impl Filling {
    /// Of the answer to a statement; with `redacts` its values are not in the statement. `shared` is for the messages that are made of it.
    pub(super) fn new(key: Key, planned: &Planned, redacts: bool, shared: Shared) -> Self {
        // The policy hides a part of its tables.
        let is_part = planned.tables.iter().any(|(_, table)| is_part(table));
        Self { key, about: About::of(planned, redacts), is_part, shared }
    }

    /// The bytes that its rows may take, where an entry has at most so many.
    pub(super) fn room(&self, largest: u64) -> usize {
        usize::try_from(largest.saturating_sub(self.beside())).unwrap_or(usize::MAX)
    }

    /// The entry with these rows, which have so many bytes and took so long.
    pub(super) fn entry(
        self,
        schema: SchemaRef,
        batches: Vec<RecordBatch>,
        bytes: u64,
        touched: Touched,
        took: Duration,
    ) -> Entry {
        let bytes = self.beside() + bytes;
        let Self { key, about, is_part, shared } = self;
        let rows: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let (batches, current, given) = (batches.into(), Mutex::new(key.began), AtomicU64::default());
        Entry { key, schema, batches, bytes, touched, about, is_part, current, rows, took, given, shared: Arc::new(shared) }
    }

    fn beside(&self) -> u64 {
        BESIDE + self.about.bytes()
    }
}
