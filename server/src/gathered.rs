//! Small batches on their way out are put together: each one becomes a message, which costs its sender and its reader as much as
//! thousands of rows do. Nothing waits for that: what is not ready at once goes without.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use futures::{StreamExt, stream};
use nexus_flight_catalog::Result;

use crate::bounds::all_within;
use crate::query::{Batches, size};

/// From so many rows or bytes on a batch goes as it is, and those that are put together go.
const ENOUGH_ROWS: usize = 4_096;
const ENOUGH_BYTES: u64 = 256 << 10;
/// How long rows are held while others keep coming.
const WITHIN: Duration = Duration::from_millis(5);

/// The same rows in the same order, in fewer batches. The first one goes as it is and at once.
pub fn gathered(batches: Batches, schema: &SchemaRef) -> Batches {
    if !schema.fields().iter().all(|field| is_plain(field.data_type())) {
        return batches;
    }
    let mut gathering = Gathering::new(batches, Arc::clone(schema), WITHIN);
    stream::poll_fn(move |cx| gathering.poll(cx)).boxed()
}

/// Whether arrays of a type are put together by copying them one behind the other. Dictionaries would have to become one, which
/// may not fit the type of its keys.
fn is_plain(data_type: &DataType) -> bool {
    use DataType::{Dictionary, LargeListView, ListView, RunEndEncoded, Union};
    let is_other = |data_type: &&DataType| {
        matches!(data_type, Dictionary(..) | RunEndEncoded(..) | Union(..) | ListView(_) | LargeListView(_))
    };
    !all_within(data_type).iter().any(is_other)
}

struct Gathering {
    /// None where they have ended.
    batches: Option<Batches>,
    schema: SchemaRef,
    within: Duration,
    is_first: bool,
    /// Those that will be one.
    held: Vec<RecordBatch>,
    rows: usize,
    bytes: u64,
    /// When the first of those came.
    since: Instant,
    /// What goes before all that is held or comes.
    ready: VecDeque<Result<RecordBatch>>,
}

impl Gathering {
    fn new(batches: Batches, schema: SchemaRef, within: Duration) -> Self {
        let (held, ready, since) = (Vec::new(), VecDeque::new(), Instant::now());
        Self { batches: Some(batches), schema, within, is_first: true, held, rows: 0, bytes: 0, since, ready }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        loop {
            if let Some(next) = self.ready.pop_front() {
                return Poll::Ready(Some(next));
            }
            let Some(batches) = &mut self.batches else { return Poll::Ready(None) };
            match batches.poll_next_unpin(cx) {
                Poll::Pending if self.held.is_empty() => return Poll::Pending,
                Poll::Pending => self.give(),
                Poll::Ready(Some(Ok(batch))) if self.is_small(&batch) => self.hold(batch),
                Poll::Ready(Some(next)) => {
                    self.is_first = false;
                    self.give();
                    self.ready.push_back(next);
                }
                Poll::Ready(None) => {
                    self.batches = None;
                    self.give();
                }
            }
        }
    }

    fn is_small(&self, batch: &RecordBatch) -> bool {
        !self.is_first && batch.num_rows() < ENOUGH_ROWS && size(batch) < ENOUGH_BYTES
    }

    fn hold(&mut self, batch: RecordBatch) {
        if self.held.is_empty() {
            self.since = Instant::now();
        }
        self.rows += batch.num_rows();
        self.bytes += size(&batch);
        self.held.push(batch);
        if self.rows >= ENOUGH_ROWS || self.bytes >= ENOUGH_BYTES || self.since.elapsed() >= self.within {
            self.give();
        }
    }

    /// Puts what is held into one batch, which goes next.
    fn give(&mut self) {
        let held = std::mem::take(&mut self.held);
        (self.rows, self.bytes) = (0, 0);
        if held.len() > 1
            && let Ok(batch) = concat_batches(&self.schema, &held)
        {
            self.ready.push_back(Ok(batch));
        } else {
            self.ready.extend(held.into_iter().map(Ok));
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, DictionaryArray, Int64Array};
    use arrow::datatypes::{Int8Type, Int64Type};
    use futures::FutureExt;
    use futures::channel::mpsc;
    use nexus_flight_catalog::Error;

    use super::*;

    fn batch(numbers: std::ops::Range<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(numbers)) as ArrayRef)]).unwrap()
    }

    /// As [`gathered`], however long the processor is away in between.
    fn unhurried(batches: Vec<Result<RecordBatch>>) -> Batches {
        let mut gathering = Gathering::new(stream::iter(batches).boxed(), batch(0..0).schema(), Duration::MAX);
        stream::poll_fn(move |cx| gathering.poll(cx)).boxed()
    }

    /// The rows of each batch, of which all numbers have to come in their order.
    async fn rows_of(batches: Batches) -> Vec<usize> {
        let batches: Vec<RecordBatch> = batches.map(Result::unwrap).collect().await;
        let numbers = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().iter().copied());
        assert!(numbers.enumerate().all(|(place, number)| place as i64 == number));
        batches.iter().map(RecordBatch::num_rows).collect()
    }

    #[tokio::test]
    async fn small_ones_are_put_together_and_large_ones_go_as_they_are() {
        let small = (0..100).map(|place| Ok(batch(place * 100..place * 100 + 100)));
        assert_eq!(rows_of(unhurried(small.collect())).await, [100, 4_100, 4_100, 1_700]);
        let mixed = [0..10, 10..20, 20..30, 30..8_000, 8_000..8_010].into_iter().map(|numbers| Ok(batch(numbers)));
        assert_eq!(rows_of(unhurried(mixed.collect())).await, [10, 20, 7_970, 10]);
        assert_eq!(rows_of(gathered(stream::empty().boxed(), &batch(0..0).schema())).await, [0_usize; 0]);
    }

    #[tokio::test]
    async fn none_waits_for_one_that_is_not_ready() {
        let (mut sender, receiver) = mpsc::channel(10);
        let mut got = gathered(receiver.boxed(), &batch(0..0).schema());
        for numbers in [0..1, 1..3] {
            sender.try_send(Ok(batch(numbers.clone()))).unwrap();
            assert_eq!(got.next().now_or_never().flatten().unwrap().unwrap(), batch(numbers));
        }
        assert!(got.next().now_or_never().is_none());
        drop(sender);
        assert!(got.next().await.is_none());
    }

    #[tokio::test]
    async fn an_error_comes_behind_the_rows_before_it() {
        let batches = [0..1, 1..2, 2..3].into_iter().map(|numbers| Ok(batch(numbers)));
        let failing = batches.chain([Err(Error::unavailable("the source went away"))]);
        let got: Vec<Result<RecordBatch>> = unhurried(failing.collect()).collect().await;
        let rows: Vec<Option<usize>> = got.iter().map(|next| next.as_ref().ok().map(RecordBatch::num_rows)).collect();
        assert_eq!(rows, [Some(1), Some(2), None]);
    }

    #[tokio::test]
    async fn dictionaries_stay_as_they_are() {
        let column = |value: String| Arc::new(DictionaryArray::<Int8Type>::from_iter([value.as_str()])) as ArrayRef;
        // Together they have more values than there are keys.
        let batches: Vec<_> =
            (0..200).map(|value: i32| RecordBatch::try_from_iter([("d", column(value.to_string()))]).unwrap()).collect();
        let schema = batches[0].schema();
        let got: Vec<Result<RecordBatch>> = gathered(stream::iter(batches.into_iter().map(Ok)).boxed(), &schema).collect().await;
        assert_eq!(got.len(), 200);
    }
}
