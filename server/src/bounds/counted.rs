//! What large answers of functions take. Arrays count against the memory limit for as long as they are there; constants are
//! made while a statement is planned, all of them at once, and share a bound of their own.

use std::cell::RefCell;
use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, make_array};
use arrow::buffer::Buffer;
use bytes::Bytes;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};

use nexus_flight_catalog::Error;

use super::measure::bytes;

/// What is less is not worth the counting.
const LARGE: usize = 256 << 10;

/// What the constants of a statement may take yet, and why one was refused.
struct Constants {
    left: usize,
    refused: Option<Error>,
}

thread_local! {
    /// Of the statement that this thread plans; none where it plans nothing.
    static CONSTANTS: RefCell<Option<Constants>> = const { RefCell::new(None) };
}

/// Plans a statement, whose functions of constants alone make at most `most` bytes together. Errors: those of planning, and
/// `Exhausted`: the optimizer leaves a call that fails to the execution, where it would fail again, or be one of many.
pub fn with_constants_within<T>(most: usize, plan: impl FnOnce() -> Result<T>) -> Result<T> {
    struct Restored(Option<Constants>);
    impl Drop for Restored {
        fn drop(&mut self) {
            CONSTANTS.set(self.0.take());
        }
    }
    let _restored = Restored(CONSTANTS.replace(Some(Constants { left: most, refused: None })));
    let planned = plan()?;
    match CONSTANTS.take().and_then(|constants| constants.refused) {
        Some(refused) => Err(refused.into()),
        None => Ok(planned),
    }
}

/// What constants may take yet, where a statement is being planned.
pub(super) fn left() -> Option<usize> {
    CONSTANTS.with_borrow(|constants| constants.as_ref().map(|constants| constants.left))
}

/// A constant of so many bytes has been made.
pub(super) fn made(size: usize) {
    CONSTANTS.with_borrow_mut(|constants| {
        if let Some(constants) = constants {
            constants.left = constants.left.saturating_sub(size);
        }
    });
}

/// A constant would have been too large.
pub(super) fn refused(error: &Error) {
    CONSTANTS.with_borrow_mut(|constants| {
        if let Some(constants) = constants {
            constants.refused.get_or_insert_with(|| error.copied());
        }
    });
}

/// The same array, counted until it is dropped. Errors: `ResourcesExhausted`.
pub fn counted(array: ArrayRef, pool: &Arc<dyn MemoryPool>) -> Result<ArrayRef> {
    let size = bytes(&array);
    if size < LARGE {
        return Ok(array);
    }
    let reservation = MemoryConsumer::new("functions").register(pool);
    reservation.try_grow(size)?;
    Ok(make_array(held(array.to_data(), &Arc::new(reservation))?))
}

/// A buffer with what counts it.
struct Held {
    buffer: Buffer,
    _reservation: Arc<MemoryReservation>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

fn held(data: ArrayData, reservation: &Arc<MemoryReservation>) -> Result<ArrayData> {
    let hold = |buffer: &Buffer| {
        let held = Held { buffer: buffer.clone(), _reservation: Arc::clone(reservation) };
        Buffer::from(Bytes::from_owner(held))
    };
    let buffers = data.buffers().iter().map(hold).collect();
    let children = data.child_data().iter().map(|child| held(child.clone(), reservation)).collect::<Result<_>>()?;
    Ok(data.into_builder().buffers(buffers).child_data(children).build()?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, StringArray};
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    use super::*;

    #[test]
    fn an_array_counts_for_as_long_as_it_is_there() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(3 << 20));
        let array = || Arc::new(StringArray::from_iter_values((0..2048).map(|_| "x".repeat(1000)))) as ArrayRef;
        let first = counted(array(), &pool).unwrap();
        assert!(pool.reserved() > 2_000_000);
        assert!(counted(array(), &pool).is_err());
        let part = first.slice(2000, 10);
        drop(first);
        assert!(pool.reserved() > 2_000_000);
        assert_eq!(part.as_string::<i32>().value(9), "x".repeat(1000));
        drop(part);
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn constants_are_bounded_while_planning_only() {
        with_constants_within(10, || {
            made(4);
            Ok(())
        })
        .unwrap();
        assert_eq!(left(), None);
        let planned = with_constants_within(10, || {
            made(4);
            assert_eq!(left(), Some(6));
            made(40);
            assert_eq!(left(), Some(0));
            refused(&Error::exhausted("too much"));
            Ok(())
        });
        assert_eq!(Error::from(planned.unwrap_err()).message(), "too much");
        assert_eq!(left(), None);
    }
}
