//! The room of a memory source: what its tables take of it, and what its open transactions and their savepoints keep besides.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, RecordBatch};
use nexus_flight_catalog::Error;
use nexus_flight_catalog::quantity::Size;

/// The bytes that all rows of a source may have together, whoever keeps them.
#[derive(Debug)]
pub(super) struct Room {
    most: Size,
    used: AtomicU64,
}

impl Room {
    pub(super) const fn new(most: Size) -> Self {
        Self { most, used: AtomicU64::new(0) }
    }

    pub(super) fn left(&self) -> u64 {
        self.most.0.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Takes the bytes of rows that come, and gives back at the same moment those of rows that go: an update needs no room for
    /// both. Whether there is room; if not, nothing is taken.
    pub(super) fn exchange(self: &Arc<Self>, comes: &[&Rows], goes: &[&Rows]) -> bool {
        let bytes = |rows: &[&Rows]| rows.iter().map(|rows| rows.bytes).sum::<u64>();
        let (more, less) = (bytes(comes), bytes(goes));
        let exchanged = |used: u64| Some((used + more).saturating_sub(less)).filter(|used| *used <= self.most.0);
        if self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, exchanged).is_err() {
            return false;
        }
        comes.iter().for_each(|rows| *rows.room() = Some(Arc::clone(self)));
        goes.iter().for_each(|rows| *rows.room() = None);
        true
    }

    /// The error where tables that would have so many bytes have no room.
    pub(super) fn full(&self, tables: u64) -> Error {
        let most = self.most;
        if tables > most.0 {
            return Error::exhausted(format!("the tables of this catalog would have more than {most}"))
                .with_hint("drop tables, or raise its option size")
                .with_retryable(false);
        }
        Error::exhausted(format!("this catalog would have more than {most} with what savepoints and other transactions keep"))
            .with_hint("end those that are not needed, release savepoints, or raise its option size")
    }
}

/// Rows that take from a room once, however many tables, transactions and savepoints share them, until none of those is left.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) batch: RecordBatch,
    pub(super) bytes: u64,
    /// What they have taken from; nothing before they are part of a table of their source.
    room: Mutex<Option<Arc<Room>>>,
}

impl Rows {
    pub(super) fn new(batch: RecordBatch) -> Self {
        Self { bytes: bytes(&batch), batch, room: Mutex::default() }
    }

    pub(super) fn have_room(&self) -> bool {
        self.room().is_some()
    }

    fn room(&self) -> MutexGuard<'_, Option<Arc<Room>>> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        let room = self.room().take();
        if let Some(room) = room {
            room.used.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// The bytes of the rows themselves, and something for the batch, so that even rows without columns count.
pub(super) fn bytes(batch: &RecordBatch) -> u64 {
    let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0));
    sizes.map(|size| size as u64).sum::<u64>() + 256
}
