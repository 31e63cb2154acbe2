//! The rows of a statement on their way to its reader, which end early where nobody wants them any more. That is watched from
//! beside them: a reader that takes no rows asks for none either, and what waits to be asked would never see it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{self, Poll, Waker};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use futures::{Stream, StreamExt};
use nexus_flight_catalog::{Context, Error, Kind, Result};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Period;
use crate::layers::audit::Open;
use crate::query::{Batches, size};

/// The rows, with the record closed at their end. Dropping it stops the work.
pub(super) struct Reader {
    rows: Arc<Mutex<Rows>>,
    /// Held, so that it ends with the reader; none where there is nothing to wait for.
    _watch: Option<AbortOnDropHandle<()>>,
}

struct Rows {
    /// None where they have ended.
    left: Option<(Batches, Open)>,
    doing: Doing,
    /// Why they were ended, for a reader that has yet to be told.
    error: Option<Error>,
}

/// What the reader does.
enum Doing {
    /// It has asked for nothing since then.
    Nothing(Instant),
    /// It waits for rows, and is to be woken.
    Waits(Waker),
}

impl Reader {
    /// For as long as the statement is wanted by `cx`, and until its reader takes nothing for `longest`.
    pub(super) fn new(batches: Batches, open: Open, cx: Context, longest: Duration) -> Self {
        // Of one batch that is there its reader is given all when it asks first.
        let is_one = batches.size_hint().1.is_some_and(|most| most <= 1);
        let rows = Rows { left: Some((batches, open)), doing: Doing::Nothing(Instant::now()), error: None };
        let rows = Arc::new(Mutex::new(rows));
        let watched = || AbortOnDropHandle::new(tokio::spawn(watch(Arc::downgrade(&rows), cx, longest)));
        let watch = (!is_one).then(watched);
        Self { rows, _watch: watch }
    }
}

impl Stream for Reader {
    type Item = Result<RecordBatch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        let mut rows = lock(&self.rows);
        let rows = &mut *rows;
        let Some((batches, open)) = &mut rows.left else {
            return Poll::Ready(rows.error.take().map(Err));
        };
        let next = batches.poll_next_unpin(cx);
        match &next {
            Poll::Pending => rows.doing = Doing::Waits(cx.waker().clone()),
            Poll::Ready(Some(Ok(batch))) => {
                open.count(batch.num_rows() as u64, bytes(batch));
                let is_last = batches.size_hint().1 == Some(0);
                rows.doing = Doing::Nothing(Instant::now());
                if is_last {
                    rows.end(Ok(()));
                }
            }
            Poll::Ready(Some(Err(error))) => rows.end(Err(error)),
            Poll::Ready(None) => rows.end(Ok(())),
        }
        next
    }
}

impl Rows {
    /// Stops the work and closes the record.
    fn end(&mut self, outcome: Result<(), &Error>) {
        if let Some((batches, open)) = self.left.take() {
            drop(batches);
            open.close(outcome);
        }
    }

    /// When the reader will have asked for nothing for so long. Who waits has asked.
    fn stalled_at(&self, now: Instant, longest: Duration) -> Instant {
        match self.doing {
            Doing::Nothing(since) => since + longest,
            Doing::Waits(_) => now + longest,
        }
    }
}

/// Ends the rows when nobody wants them any more.
async fn watch(reader: Weak<Mutex<Rows>>, cx: Context, longest: Duration) {
    let Err(error) = cx.run(stall(&reader, longest)).await else { return };
    let Some(rows) = reader.upgrade() else { return };
    let mut rows = lock(&rows);
    if rows.left.is_none() {
        return;
    }
    rows.end(Err(&error));
    rows.error = Some(error);
    if let Doing::Waits(waker) = &rows.doing {
        waker.wake_by_ref();
    }
}

/// Errors: `Timeout` when the reader has asked for nothing for so long. Ends well where there is none any more.
async fn stall(reader: &Weak<Mutex<Rows>>, longest: Duration) -> Result<()> {
    loop {
        let now = Instant::now();
        let Some(stalled) = reader.upgrade().map(|rows| lock(&rows).stalled_at(now, longest)) else { return Ok(()) };
        if stalled <= now {
            let message = format!("the client took no rows for {}", Period(longest));
            return Err(Error::new(Kind::Timeout, message).with_hint("read on sooner, or raise limits.stall"));
        }
        tokio::time::sleep_until(stalled).await;
    }
}

/// The bytes of rows, each with its own text: of views a batch holds the places of their texts, which several may share.
fn bytes(batch: &RecordBatch) -> u64 {
    let texts = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8View => column.as_string_view().total_buffer_bytes_used(),
        DataType::BinaryView => column.as_binary_view().total_buffer_bytes_used(),
        _ => 0,
    });
    size(batch) + texts.sum::<usize>() as u64
}

fn lock(rows: &Mutex<Rows>) -> MutexGuard<'_, Rows> {
    rows.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int32Array, StringViewArray};
    use arrow::compute::take;

    use super::*;

    #[test]
    fn a_text_that_rows_share_counts_for_each() {
        let values = StringViewArray::from_iter_values(["x".repeat(1_000)]);
        let shared: ArrayRef = take(&values, &Int32Array::from_value(0, 100), None).unwrap();
        let batch = RecordBatch::try_from_iter([("t", shared)]).unwrap();
        assert_eq!(bytes(&batch), 100 * (16 + 1_000));
    }
}
