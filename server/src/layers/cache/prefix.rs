//! What is there of an answer that several read at once, and how far each of them is: all of it from the beginning for as long as
//! that has room, and after that what not all of them have read.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

/// Of the memory of a user, what it takes as all small wants do; of more than that, it leaves a part to the work itself, which cannot do
/// without.
const SMALL: usize = 64;
const LEFT: usize = 4;

/// The batches that are there, and the readers.
#[derive(Debug)]
pub(super) struct Prefix {
    batches: VecDeque<Held>,
    /// How many there were before these.
    gone: usize,
    /// Whether all are there, and stay.
    is_whole: bool,
    /// The most that they may take of the memory, and what they have taken.
    largest: usize,
    pool: Arc<dyn MemoryPool>,
    memory: MemoryReservation,
    /// How many batches each has read.
    readers: HashMap<u64, usize>,
    /// How many readers there ever were.
    came: u64,
    /// How many batches the foremost has read.
    furthest: usize,
}

#[derive(Debug)]
struct Held {
    batch: RecordBatch,
    /// What it has taken of the memory.
    charged: usize,
    /// How many have yet to read it, where it goes when all have.
    left: usize,
}

/// What there is for a reader.
#[derive(Debug)]
pub(super) enum Next {
    /// The next batch.
    Batch(RecordBatch),
    /// None as yet.
    Nothing,
    /// None ever again: others went on without it.
    LeftBehind,
}

impl Prefix {
    /// Of an answer of which nothing is there and that nobody reads. It keeps `largest` bytes at most, which it takes from `pool`.
    pub(super) fn new(largest: usize, pool: Arc<dyn MemoryPool>) -> Self {
        // It can do without, as those that can put rows on disk.
        let memory = MemoryConsumer::new("Shared answer").with_can_spill(true).register(&pool);
        Self {
            batches: VecDeque::new(),
            gone: 0,
            is_whole: true,
            largest,
            pool,
            memory,
            readers: HashMap::new(),
            came: 0,
            furthest: 0,
        }
    }

    /// One more reader, from the beginning on: while all of it is there.
    pub(super) fn join(&mut self) -> u64 {
        self.came += 1;
        self.readers.insert(self.came, 0);
        self.came
    }

    /// One reader less. What the last one leaves is given up.
    pub(super) fn leave(&mut self, reader: u64) {
        let Some(read) = self.readers.remove(&reader) else { return };
        if self.readers.is_empty() {
            self.batches.clear();
            self.is_whole = false;
            self.memory.free();
        }
        if !self.is_whole {
            for held in self.batches.iter_mut().skip(read.saturating_sub(self.gone)) {
                held.left = held.left.saturating_sub(1);
            }
            self.give_up();
        }
    }

    /// What comes next for a reader, which has it then.
    pub(super) fn next(&mut self, reader: u64) -> Next {
        let Some(read) = self.readers.get_mut(&reader) else { return Next::LeftBehind };
        let Some(held) = self.batches.get_mut(read.saturating_sub(self.gone)) else { return Next::Nothing };
        let batch = held.batch.clone();
        *read += 1;
        self.furthest = self.furthest.max(*read);
        if !self.is_whole {
            held.left = held.left.saturating_sub(1);
            self.give_up();
        }
        Next::Batch(batch)
    }

    /// Takes one more batch, or gives it back where readers have to make room first. What is more than may be kept is not whole any
    /// more, and neither is what there is no memory for.
    pub(super) fn add(&mut self, batch: RecordBatch) -> Result<(), RecordBatch> {
        if !self.is_read() {
            return Ok(());
        }
        let bytes = batch.get_array_memory_size();
        let mut fits = self.takes(bytes);
        if !fits && self.is_whole {
            self.end_whole();
            fits = self.takes(bytes);
        }
        // One by itself goes on its way, as it would with one reader.
        if !fits && !self.batches.is_empty() {
            return Err(batch);
        }
        let charged = if fits { bytes } else { 0 };
        self.batches.push_back(Held { batch, charged, left: self.readers.len() });
        Ok(())
    }

    /// Whether the next batch is to be made: one, while that before it is on its way.
    pub(super) fn wants(&self) -> bool {
        self.is_read() && self.gone + self.batches.len() <= self.furthest
    }

    /// Leaves those behind whom the others wait for; whether there are any.
    pub(super) fn leave_behind(&mut self) -> bool {
        let slow = self.readers.iter().filter(|(_, read)| **read <= self.gone).map(|(reader, _)| *reader);
        let slow: Vec<u64> = slow.collect();
        // Where nobody is ahead of them nobody waits.
        let others_wait = slow.len() < self.readers.len();
        if others_wait {
            slow.into_iter().for_each(|reader| self.leave(reader));
        }
        others_wait
    }

    /// Whether all of it is there, with somebody who reads it.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole && self.is_read()
    }

    /// Whether anybody reads it.
    pub(super) fn is_read(&self) -> bool {
        !self.readers.is_empty()
    }

    /// All batches with what they have taken of the memory, where they are all there.
    pub(super) fn whole(&self) -> Option<(Vec<RecordBatch>, usize)> {
        self.is_whole().then(|| (self.batches.iter().map(|held| held.batch.clone()).collect(), self.memory.size()))
    }

    /// How many batches are there no more, and how many the foremost reader has read: where either has moved on, more may come.
    pub(super) fn marks(&self) -> (usize, usize) {
        (self.gone, self.furthest)
    }

    /// Takes so many bytes of the memory, if they may be had.
    fn takes(&self, bytes: usize) -> bool {
        let all = self.memory.size().saturating_add(bytes);
        let is_left = match self.pool.memory_limit() {
            MemoryLimit::Finite(most) => {
                all <= most / SMALL || self.pool.reserved().saturating_add(bytes) <= most.saturating_sub(most / LEFT)
            }
            MemoryLimit::Infinite | MemoryLimit::Unknown => true,
        };
        all <= self.largest && is_left && self.memory.try_grow(bytes).is_ok()
    }

    /// From now on a batch goes when all have read it.
    fn end_whole(&mut self) {
        self.is_whole = false;
        // How many have read so many.
        let mut at: HashMap<usize, usize> = HashMap::new();
        for read in self.readers.values() {
            *at.entry(*read).or_default() += 1;
        }
        let mut left = 0;
        for (place, held) in self.batches.iter_mut().enumerate() {
            left += at.get(&place).copied().unwrap_or_default();
            held.left = left;
        }
        self.give_up();
    }

    fn give_up(&mut self) {
        while self.batches.front().is_some_and(|held| held.left == 0) {
            let Some(held) = self.batches.pop_front() else { return };
            self.gone += 1;
            self.memory.shrink(held.charged);
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};

    use super::*;

    fn batch(number: i64) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values([number; 100])) as _)]).unwrap()
    }

    fn size() -> usize {
        batch(0).get_array_memory_size()
    }

    /// With room for so many batches.
    fn prefix(batches: usize) -> (Prefix, Arc<dyn MemoryPool>) {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        (Prefix::new(size() * batches, Arc::clone(&pool)), pool)
    }

    /// The numbers of the batches that a reader has next, until it has read so many.
    fn read(prefix: &mut Prefix, reader: u64, most: usize) -> Vec<i64> {
        let next = |_| match prefix.next(reader) {
            Next::Batch(batch) => {
                let numbers = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
                Some(numbers.value(0))
            }
            Next::Nothing | Next::LeftBehind => None,
        };
        (0..most).map_while(next).collect()
    }

    #[test]
    fn who_joins_reads_it_from_the_beginning() {
        let (mut prefix, pool) = prefix(3);
        let first = prefix.join();
        assert!(prefix.wants());
        for number in 0..2 {
            prefix.add(batch(number)).unwrap();
        }
        assert!(!prefix.wants());
        assert_eq!(read(&mut prefix, first, 9), [0, 1]);
        assert!(prefix.wants());
        let second = prefix.join();
        prefix.add(batch(2)).unwrap();
        assert_eq!((read(&mut prefix, first, 9), read(&mut prefix, second, 9)), (vec![2], vec![0, 1, 2]));
        assert_eq!(prefix.whole().unwrap().0.len(), 3);
        prefix.leave(first);
        assert_eq!(pool.reserved(), size() * 3);
        prefix.leave(second);
        assert_eq!((pool.reserved(), prefix.is_whole(), prefix.wants()), (0, false, false));
    }

    #[test]
    fn past_its_room_a_batch_is_there_until_all_have_read_it() {
        let (mut prefix, pool) = prefix(3);
        let (fast, slow) = (prefix.join(), prefix.join());
        for number in 0..3 {
            prefix.add(batch(number)).unwrap();
        }
        assert_eq!((read(&mut prefix, fast, 9), read(&mut prefix, slow, 1)), (vec![0, 1, 2], vec![0]));
        assert!(prefix.is_whole());
        prefix.add(batch(3)).unwrap();
        assert_eq!((prefix.is_whole(), prefix.marks(), pool.reserved()), (false, (1, 3), size() * 3));
        assert_eq!(read(&mut prefix, fast, 9), [3]);
        let back = prefix.add(batch(4)).unwrap_err();
        assert_eq!(read(&mut prefix, slow, 1), [1]);
        prefix.add(back).unwrap();
        assert_eq!(read(&mut prefix, slow, 9), [2, 3, 4]);
        assert_eq!((read(&mut prefix, fast, 9), pool.reserved()), (vec![4], 0));
    }

    #[test]
    fn those_whom_others_wait_for_are_left_behind() {
        let (mut prefix, pool) = prefix(1);
        let (fast, slow) = (prefix.join(), prefix.join());
        prefix.add(batch(0)).unwrap();
        prefix.add(batch(1)).unwrap_err();
        // Nobody has read any, so nobody waits for another.
        assert!(!prefix.leave_behind());
        assert_eq!(read(&mut prefix, fast, 9), [0]);
        assert!(prefix.leave_behind());
        assert!(matches!(prefix.next(slow), Next::LeftBehind));
        prefix.add(batch(1)).unwrap();
        assert_eq!((read(&mut prefix, fast, 9), pool.reserved()), (vec![1], 0));
    }

    #[test]
    fn one_batch_goes_on_its_way_without_room() {
        let (mut prefix, pool) = prefix(0);
        let only = prefix.join();
        for number in 0..2 {
            prefix.add(batch(number)).unwrap();
            prefix.add(batch(9)).unwrap_err();
            assert_eq!(read(&mut prefix, only, 9), [number]);
        }
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn a_part_of_the_memory_is_left_to_the_work() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(size() * 4));
        let mut prefix = Prefix::new(usize::MAX, Arc::clone(&pool));
        let only = prefix.join();
        for number in 0..3 {
            prefix.add(batch(number)).unwrap();
        }
        assert!(prefix.is_whole());
        prefix.add(batch(3)).unwrap_err();
        assert!(!prefix.is_whole());
        assert_eq!(read(&mut prefix, only, 9), [0, 1, 2]);
        assert_eq!(pool.reserved(), 0);
    }
}
