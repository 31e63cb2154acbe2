//! The memory that what tells of tables takes while it is read: a catalog has so much. Where tables lie, files of a few bytes may come
//! to more than there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nexus_flight_catalog::{Error, Result};

/// The bytes that what is read of one catalog at once may take.
const ALL: u64 = 2 * 1024 * 1024 * 1024;
/// What an object in JSON takes in memory, and any other value: much, where its name is of one letter.
const OBJECT: u64 = 640;
const VALUE: u64 = 96;

/// What is left of it.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<AtomicU64>);

/// What is taken of it, until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    room: Room,
    bytes: u64,
}

impl Room {
    /// All that a catalog has.
    pub(crate) fn new() -> Self {
        Self::of(ALL)
    }

    /// So many bytes.
    pub(crate) fn of(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// Nothing yet.
    pub(crate) fn taken(&self) -> Taken {
        Taken { room: self.clone(), bytes: 0 }
    }
}

impl Taken {
    /// Takes so many bytes more. Errors: `Exhausted` where so many are not left.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<()> {
        let taken = self.room.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        if taken.is_err() {
            let error = Error::exhausted("what tells of the tables of this catalog takes too much memory while it is read");
            return Err(error.with_hint("run the statement again; let old snapshots expire, or write the table in fewer files"));
        }
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }

    /// Takes no less than what a text in JSON takes as values. Errors: as of [`Self::grow`].
    pub(crate) fn grow_by_json(&mut self, json: &[u8]) -> Result<()> {
        let weight = |byte: &u8| match byte {
            b'{' => OBJECT,
            b'[' | b',' => VALUE,
            _ => 1,
        };
        self.grow(json.iter().map(weight).sum())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.0.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Kind;

    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let room = Room::of(1000);
        let (mut one, mut other) = (room.taken(), room.taken());
        one.grow(600).unwrap();
        assert_eq!(other.grow(401).unwrap_err().kind(), Kind::Exhausted);
        other.grow(400).unwrap();
        assert_eq!(one.grow(1).unwrap_err().kind(), Kind::Exhausted);
        drop(one);
        other.grow(600).unwrap();
    }

    #[test]
    fn objects_of_few_letters_take_much() {
        let room = Room::of(10_000);
        room.taken().grow_by_json(&[b' '; 10_000]).unwrap();
        let objects = "{\"\":0},".repeat(20);
        assert_eq!(room.taken().grow_by_json(objects.as_bytes()).unwrap_err().kind(), Kind::Exhausted);
    }
}
