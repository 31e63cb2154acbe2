//! The messages that an answer of the cache goes out in, kept beside its rows: who is sent them first has them made, for each
//! type profile, and whoever is sent them later shares them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arrow::array::{Array, ArrayData, RecordBatch};
use bytes::Bytes;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool, MemoryReservation};

use super::message::Message;
use crate::flight::profile::TypeProfile;

/// The room for what the messages of all answers take beside the rows that they are of.
#[derive(Debug)]
pub struct Room(Arc<dyn MemoryPool>);

impl Room {
    /// Room for so many bytes.
    pub fn new(most: u64) -> Arc<Self> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Arc::new(Self(Arc::new(GreedyMemoryPool::new(most))))
    }

    /// The bytes that are taken.
    pub fn used(&self) -> u64 {
        self.0.reserved() as u64
    }
}

/// The messages of one answer, by type profile and the places of its batches.
#[derive(Debug)]
pub struct Shared {
    /// Nothing of the room, of which each batch takes its part.
    room: MemoryReservation,
    kept: Mutex<HashMap<(TypeProfile, usize), Arc<Kept>>>,
}

/// The messages of one batch.
#[derive(Debug)]
struct Kept {
    rows: RecordBatch,
    messages: Vec<Message>,
    taken: MemoryReservation,
}

impl Shared {
    /// None yet, and room for them.
    pub fn new(room: &Arc<Room>) -> Self {
        Self { room: MemoryConsumer::new("messages").register(&room.0), kept: Mutex::default() }
    }

    /// What they take beside the rows.
    pub fn bytes(&self) -> u64 {
        self.kept().values().map(|kept| kept.taken.size() as u64).sum()
    }

    /// What was made of the batch at a place; none where that was of other rows.
    pub(super) fn messages(&self, profile: TypeProfile, place: usize, rows: &RecordBatch) -> Option<Vec<Message>> {
        let kept = self.kept().get(&(profile, place)).cloned()?;
        let is_same = kept.rows.num_rows() == rows.num_rows()
            && kept.rows.num_columns() == rows.num_columns()
            && kept.rows.columns().iter().zip(rows.columns()).all(|(kept, column)| Arc::ptr_eq(kept, column));
        is_same.then(|| kept.messages.clone())
    }

    fn keep(&self, profile: TypeProfile, place: usize, kept: Kept) {
        // Two may have made the same at once.
        self.kept().entry((profile, place)).or_insert_with(|| Arc::new(kept));
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<(TypeProfile, usize), Arc<Kept>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The messages of one batch as they are made.
#[derive(Debug)]
pub(super) struct Keeping {
    shared: Weak<Shared>,
    profile: TypeProfile,
    place: usize,
    kept: Kept,
    /// Where the buffers of the rows lie, which the cache keeps in any case.
    lie: Vec<Range<usize>>,
}

impl Keeping {
    /// None yet, of the batch at a place.
    pub(super) fn new(shared: &Arc<Shared>, profile: TypeProfile, place: usize, rows: &RecordBatch) -> Self {
        let mut lie = Vec::new();
        rows.columns().iter().for_each(|column| find(&column.to_data(), &mut lie));
        let kept = Kept { rows: rows.clone(), messages: Vec::new(), taken: shared.room.new_empty() };
        Self { shared: Arc::downgrade(shared), profile, place, kept, lie }
    }

    /// With one more; none where there is no room for it.
    pub(super) fn with(mut self, message: &Message) -> Option<Self> {
        let is_of_rows = |piece: &Bytes| self.lie.iter().any(|range| range.contains(&piece.as_ptr().addr()));
        let own: usize = message.body.iter().filter(|piece| !is_of_rows(piece)).map(Bytes::len).sum();
        let beside = size_of::<Message>() + message.head_len() + 2 * size_of::<Bytes>() * message.body.len();
        self.kept.taken.try_grow(own + beside).ok()?;
        // A piece may be the smaller part of what it keeps alive: that counts in full here, so it is copied.
        let body = message.body.iter().map(|piece| match is_of_rows(piece) {
            true => piece.clone(),
            false => Bytes::copy_from_slice(piece),
        });
        let body = body.collect();
        self.kept.messages.push(Message { head: message.head.clone(), body });
        Some(self)
    }

    /// Keeps them all, where the cache still keeps the rows.
    pub(super) fn end(self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.keep(self.profile, self.place, self.kept);
        }
    }
}

fn find(data: &ArrayData, lie: &mut Vec<Range<usize>>) {
    let nulls = data.nulls().map(|nulls| nulls.buffer());
    for buffer in data.buffers().iter().chain(nulls) {
        let start = buffer.as_ptr().addr();
        lie.push(start..start + buffer.len());
    }
    data.child_data().iter().for_each(|child| find(child, lie));
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow_flight::FlightData;

    use super::*;

    fn rows() -> RecordBatch {
        RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from_iter_values(0..1_000)) as _)]).unwrap()
    }

    fn message(body: Bytes) -> Message {
        Message { head: FlightData::new().with_data_header(vec![1; 100]), body: vec![body] }
    }

    /// Keeps one message of a body at a place; whether there was room.
    fn keep(shared: &Arc<Shared>, place: usize, rows: &RecordBatch, body: Bytes) -> bool {
        let keeping = Keeping::new(shared, TypeProfile::Native, place, rows).with(&message(body));
        keeping.map(Keeping::end).is_some()
    }

    #[test]
    fn they_are_kept_while_there_is_room_which_comes_back() {
        let (room, rows) = (Room::new(10_000), rows());
        let shared = Arc::new(Shared::new(&room));
        assert!(keep(&shared, 3, &rows, vec![0; 6_000].into()));
        assert!(!keep(&shared, 0, &rows, vec![0; 6_000].into()));
        assert!((6_000..7_000).contains(&room.used()), "{}", room.used());
        assert_eq!(shared.bytes(), room.used());
        // As another reader makes the same at once.
        assert!(keep(&shared, 3, &rows, vec![0; 1_000].into()));
        let kept = shared.messages(TypeProfile::Native, 3, &rows).unwrap();
        assert_eq!((kept.len(), kept[0].body_len()), (1, 6_000));
        assert!(shared.messages(TypeProfile::Native, 0, &rows).is_none());
        assert!(shared.messages(TypeProfile::Lowered, 3, &rows).is_none());
        drop(shared);
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn they_are_of_the_very_rows_alone() {
        let (room, first) = (Room::new(10_000), rows());
        let shared = Arc::new(Shared::new(&room));
        keep(&shared, 0, &first, vec![0; 10].into());
        assert!(shared.messages(TypeProfile::Native, 0, &first.clone()).is_some());
        assert!(shared.messages(TypeProfile::Native, 0, &rows()).is_none());
        assert!(shared.messages(TypeProfile::Native, 0, &first.slice(0, 5)).is_none());
    }

    #[test]
    fn what_lies_in_the_rows_takes_no_room() {
        struct Values(RecordBatch);
        impl AsRef<[u8]> for Values {
            fn as_ref(&self) -> &[u8] {
                let column = self.0.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
                column.values().inner().as_slice()
            }
        }
        let (room, rows) = (Room::new(1_000), rows());
        let shared = Arc::new(Shared::new(&room));
        let body = Bytes::from_owner(Values(rows.clone()));
        assert!(keep(&shared, 0, &rows, body.slice(100..)));
        let kept = shared.messages(TypeProfile::Native, 0, &rows).unwrap();
        assert_eq!(kept[0].body[0].as_ptr(), body[100..].as_ptr());
        assert!(!keep(&shared, 1, &rows, Bytes::copy_from_slice(&body)));
    }
}
