//! What the answers of a window function take while they are made, one value a row, before they become an array.

use std::cell::Cell;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::Accumulator;
use nexus_flight_catalog::Error;

/// The answers that may be there at a time where a window goes on batch by batch: those of a batch.
const BATCH: usize = 8192;

thread_local! {
    /// The rows that share an answer, of the window that this thread evaluates.
    static SHARED: Cell<usize> = const { Cell::new(1) };
}

/// Evaluates a window whose answers are each for `rows` rows.
pub(super) fn shared_by<T>(rows: usize, evaluate: impl FnOnce() -> T) -> T {
    struct Restored(usize);
    impl Drop for Restored {
        fn drop(&mut self) {
            SHARED.set(self.0);
        }
    }
    let _restored = Restored(SHARED.replace(rows));
    evaluate()
}

/// Counts answers, for as long as whoever makes them is there.
#[derive(Debug)]
pub(super) struct Answers {
    reservation: MemoryReservation,
    count: usize,
}

impl Answers {
    pub(super) fn new(pool: &Arc<dyn MemoryPool>) -> Self {
        Self { reservation: MemoryConsumer::new("windows").register(pool), count: 0 }
    }

    /// So many bytes are to be an answer, once as a value and once more in an array. Errors: `ResourcesExhausted`, and `Exhausted` where no array could hold them.
    pub(super) fn take(&mut self, bytes: usize) -> Result<()> {
        if self.count == BATCH {
            self.count = 0;
            self.reservation.free();
        }
        self.count += 1;
        let bytes = bytes.saturating_mul(SHARED.get()).saturating_mul(2);
        if self.reservation.size().saturating_add(bytes) > i32::MAX as usize {
            return Err(Error::exhausted("the answers of a window function would take more than 2 GiB at once")
                .with_hint("use a frame of fewer rows, as in rows between 10 preceding and current row")
                .with_retryable(false)
                .into());
        }
        self.reservation.try_grow(bytes)
    }
}

/// Whether values of a type can be of any size.
pub(super) fn is_sized_by_value(data_type: &DataType) -> bool {
    !data_type.is_primitive() && !matches!(data_type, DataType::Boolean | DataType::Null)
}

/// An aggregate whose answers are counted.
#[derive(Debug)]
pub(super) struct Answering {
    inner: Box<dyn Accumulator>,
    answers: Answers,
}

impl Answering {
    pub(super) fn new(inner: Box<dyn Accumulator>, pool: &Arc<dyn MemoryPool>) -> Self {
        Self { inner, answers: Answers::new(pool) }
    }
}

#[warn(clippy::missing_trait_methods)]
impl Accumulator for Answering {
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = self.inner.evaluate()?;
        self.answers.take(value.size())?;
        Ok(value)
    }

    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }
}
