//! An answer on its way, which is kept when all of it has come.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, stream};

use crate::layers::cache::Kept;
use crate::layers::cache::entry::{About, Entry, Key};
use crate::query::Batches;
use crate::touched::{Telling, told};

/// What an entry weighs beside its rows.
const BESIDE: u64 = 1_024;

/// An answer on its way, copied until it is too large.
pub(super) struct Filling {
    key: Key,
    schema: SchemaRef,
    batches: Option<Vec<RecordBatch>>,
    bytes: u64,
    telling: Telling,
    about: About,
    is_part: bool,
    took: Duration,
}

impl Filling {
    /// Of an answer with these columns, which so far has taken so long. `is_part` where the policy hides a part of its tables.
    pub(super) fn new(key: Key, schema: SchemaRef, telling: Telling, about: About, is_part: bool, took: Duration) -> Self {
        let bytes = BESIDE + about.bytes();
        Self { key, schema, batches: Some(Vec::new()), bytes, telling, about, is_part, took }
    }

    fn add(&mut self, batch: &RecordBatch, largest: u64) {
        let Some(batches) = &mut self.batches else { return };
        self.bytes += batch.get_array_memory_size() as u64;
        if self.bytes > largest {
            self.batches = None;
        } else {
            batches.push(batch.clone());
        }
    }

    /// All of it; none where it was too large.
    fn entry(self) -> Option<Entry> {
        let Self { key, schema, batches, bytes, telling, about, is_part, took } = self;
        let batches = batches?;
        let rows: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let (touched, current, given) = (told(&telling), Mutex::new(key.began), AtomicU64::default());
        Some(Entry { key, schema, batches, bytes, touched, about, is_part, current, rows, took, given })
    }
}

/// The same batches; what failed or was left early is not kept, since it never gets to the end.
pub(super) fn filled(batches: Batches, filling: Filling, kept: Arc<Kept>) -> Batches {
    stream::unfold((batches, Some(filling)), move |(mut batches, mut filling)| {
        let kept = Arc::clone(&kept);
        async move {
            let asked = Instant::now();
            let next = batches.next().await;
            if let Some(filling) = &mut filling {
                filling.took += asked.elapsed();
            }
            match (&next, &mut filling) {
                (Some(Ok(batch)), Some(filling)) => filling.add(batch, kept.largest),
                (Some(Err(_)), _) => filling = None,
                (None, _) => {
                    if let Some(entry) = filling.take().and_then(Filling::entry) {
                        kept.keep(entry).await;
                    }
                }
                _ => {}
            }
            next.map(|batch| (batch, (batches, filling)))
        }
    })
    .boxed()
}
