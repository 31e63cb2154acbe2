//! Rows as clients send them: Arrow IPC from outside.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt, future};
use nexus_flight_catalog::ipc::{self, Dictionaries};
use nexus_flight_catalog::{Error, Result};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use crate::bounds::{all_within, unfolded};
use crate::flight::status::broken;
use crate::parameters::{as_lists, has_views, with_lists};
use crate::query::size;

/// The most messages of parameters that hold rows: a row of NULLs alone may have no bytes.
const BATCHES: usize = 10_000;
/// The most rows of parameters.
const ROWS: usize = 4 << 20;
/// The most bytes that the buffers of a message may be once they are unpacked, and the most rows of a column without any.
const MOST: i64 = 64 << 20;
/// The most bytes of the dictionaries of a stream, all of which are held until its end.
const DICTIONARIES: i64 = 32 << 20;

/// The rows of a stream of messages as they come.
pub struct Sent {
    /// Their columns; none where no message tells of any.
    pub schema: Option<SchemaRef>,
    /// The rows. Errors: `Invalid` for messages that are not sound, or for a stream that breaks off.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

/// Reads a stream of messages up to its schema. What is read and not asked for yet is taken from `memory`: many streams may wait for
/// their turn, or for their clients.
pub async fn sent(
    first: FlightData,
    rest: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    memory: &Arc<dyn MemoryPool>,
) -> Result<Sent> {
    let rows = MemoryConsumer::new("what a client puts").register(memory);
    let mut held = Held { dictionaries: Dictionaries::default(), header: 0, memory: rows.new_empty() };
    let messages = stream::iter([Ok(first)]).chain(rest).map_err(broken).try_filter_map(move |message| {
        let is_held = held.check(&message);
        // The first one may hold a command and nothing else.
        future::ready(is_held.map(|()| (!message.data_header.is_empty()).then_some(message)))
    });
    let messages = messages.map_err(|error| FlightError::ExternalError(Box::new(error)));
    let mut decoder = FlightRecordBatchStream::new_from_flight_data(messages);
    let (sender, mut receiver) = mpsc::channel(1);
    // In a task of its own: where the decoder still meets what it does not expect, it panics.
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let batch = decoder.next().await.map(|batch| counted(batch.map_err(decoded)?, rows.new_empty()));
            let has_ended = !matches!(batch, Some(Ok(_)));
            if sender.send((decoder.schema().cloned(), batch)).await.is_err() || has_ended {
                break;
            }
        }
    }));
    let first = receiver.recv().await;
    let schema = first.as_ref().and_then(|(schema, _)| schema.clone());
    // A batch counts here until the next one is asked for.
    let batches = stream::unfold((receiver, Some(task), first, None), |(mut receiver, mut task, mut first, _)| async move {
        let next = match first.take() {
            Some(first) => Some(first),
            None => receiver.recv().await,
        };
        match next {
            Some((_, Some(Ok((batch, held))))) => Some((Ok(batch), (receiver, task, None, Some(held)))),
            Some((_, Some(Err(error)))) => Some((Err(error), (receiver, task, None, None))),
            Some((_, None)) => None,
            // The task ended without a word, or its last word was an error.
            None => match task.take()?.await {
                Ok(()) => None,
                Err(cause) => Some((Err(unreadable("they are not sound").caused_by(cause)), (receiver, None, None, None))),
            },
        }
    });
    Ok(Sent { schema, batches: batches.boxed() })
}

/// The rows of parameters in a stream of messages, as one batch, which may have none; none where there are no columns. List views
/// have become lists. Errors: `Exhausted` for more than `most` bytes of them, and those of [`Sent::batches`].
pub async fn parameters(
    first: FlightData,
    rest: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    memory: &Arc<dyn MemoryPool>,
    most: usize,
) -> Result<Option<RecordBatch>> {
    let Sent { schema, mut batches } = sent(first, rest, memory).await?;
    let held = MemoryConsumer::new("parameters").register(memory);
    let (mut rows, mut bytes, mut count) = (Vec::new(), 0_usize, 0);
    while let Some(batch) = batches.try_next().await? {
        if batch.num_rows() > 0 {
            bytes = bytes.saturating_add(bytes_of(&batch)?);
            count += batch.num_rows();
            if bytes > most || rows.len() >= BATCHES {
                return Err(too_much(&format!("the parameters have more than {most} bytes")));
            }
            if count > ROWS {
                return Err(too_much(&format!("the parameters have more than {ROWS} rows")));
            }
            // In the end they are there twice for a moment.
            held.try_grow(2 * unfolded_of(&batch)?)?;
            rows.push(as_lists(batch)?);
        }
    }
    let Some(schema) = schema.filter(|schema| !schema.fields().is_empty()) else { return Ok(None) };
    // DataFusion takes a row of it for no row.
    let mut types = schema.fields().iter().flat_map(|field| all_within(field.data_type()));
    if types.any(|data_type| matches!(data_type, DataType::FixedSizeList(_, 0))) {
        return Err(Error::unsupported("lists of the fixed size 0 are not offered as parameters").with_hint("bind NULL"));
    }
    concat_batches(&with_lists(&schema), &rows).map(Some).map_err(|error| unreadable(&error.to_string()))
}

fn too_much(what: &str) -> Error {
    Error::exhausted(what).with_hint("bind fewer rows or smaller values at once").with_retryable(false)
}

fn decoded(error: FlightError) -> Error {
    match error {
        FlightError::ExternalError(cause) => match cause.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(cause) => unreadable(&cause.to_string()),
        },
        FlightError::Arrow(error) => unreadable(&error.to_string()),
        other => unreadable(&other.to_string()),
    }
}

fn unreadable(why: &str) -> Error {
    Error::invalid(format!("the rows that were sent cannot be read: {why}"))
}

/// What a stream of messages takes while it is read.
struct Held {
    dictionaries: Dictionaries,
    /// The longest header: that of the schema, mostly, which is kept.
    header: usize,
    memory: MemoryReservation,
}

impl Held {
    /// Holds what a message declares against the bytes that came with it, its dictionary against all before it, and all that against
    /// the memory that there is.
    fn check(&mut self, message: &FlightData) -> Result<()> {
        if message.data_header.is_empty() {
            return Ok(());
        }
        let sound = ipc::sound(&message.data_header, &message.data_body, MOST).ok_or_else(|| unreadable("they are not sound"))?;
        if !self.dictionaries.fit(&sound, DICTIONARIES) {
            return Err(too_much("the dictionaries of the rows are larger than 32 MiB together"));
        }
        self.header = self.header.max(message.data_header.len());
        let unpacked = usize::try_from(self.dictionaries.with(&sound)).unwrap_or(usize::MAX);
        Ok(self.memory.try_resize(self.header.saturating_add(unpacked))?)
    }
}

/// A batch, with what it takes of the memory: where it is cast, each of its rows gets values of its own.
fn counted(batch: RecordBatch, memory: MemoryReservation) -> Result<(RecordBatch, MemoryReservation)> {
    memory.try_grow(unfolded_of(&batch)?)?;
    Ok((batch, memory))
}

fn unfolded_of(batch: &RecordBatch) -> Result<usize> {
    batch.columns().iter().try_fold(0_usize, |sum, column| Ok(sum.saturating_add(unfolded(column)?)))
}

/// The bytes of rows as they came, and of the lists that their list views become.
fn bytes_of(batch: &RecordBatch) -> Result<usize> {
    let mut sum = usize::try_from(size(batch)).unwrap_or(usize::MAX);
    for column in batch.columns().iter().filter(|column| has_views(column.data_type())) {
        sum = sum.saturating_add(unfolded(column)?);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        ArrayRef, AsArray, DictionaryArray, Int32Array, Int64Array, ListViewArray, NullArray, StringArray, StructArray,
    };
    use arrow::buffer::ScalarBuffer;
    use arrow::datatypes::Field;
    use arrow_ipc::CompressionType;
    use arrow_ipc::writer::{CompressionContext, DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
    use datafusion::execution::memory_pool::GreedyMemoryPool;
    use nexus_flight_catalog::Kind;

    use super::*;

    /// A schema and a batch of one row, with its buffers packed or not.
    fn messages(packed: bool) -> Vec<FlightData> {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a".repeat(1000)]));
        let number: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        encoded(&RecordBatch::try_from_iter([("t", text), ("n", number)]).unwrap(), packed)
    }

    fn encoded(batch: &RecordBatch, packed: bool) -> Vec<FlightData> {
        let compression = packed.then_some(CompressionType::LZ4_FRAME);
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let mut tracker = DictionaryTracker::new(false);
        let schema = IpcDataGenerator {}.schema_to_bytes_with_dictionary_tracker(&batch.schema(), &mut tracker, &options);
        let (dictionaries, rows) =
            IpcDataGenerator {}.encode(batch, &mut tracker, &options, &mut CompressionContext::default()).unwrap();
        std::iter::once(schema).chain(dictionaries).chain([rows]).map(Into::into).collect()
    }

    fn pool(bytes: usize) -> Arc<dyn MemoryPool> {
        Arc::new(GreedyMemoryPool::new(bytes))
    }

    async fn read(mut messages: Vec<FlightData>) -> Result<Option<RecordBatch>> {
        let rest = messages.split_off(1);
        parameters(messages.remove(0), stream::iter(rest.into_iter().map(Ok)), &pool(usize::MAX), 1 << 20).await
    }

    #[tokio::test]
    async fn a_row_is_read_packed_or_not() {
        for packed in [false, true] {
            assert_eq!(read(messages(packed)).await.unwrap().unwrap().num_columns(), 2);
        }
    }

    #[tokio::test]
    async fn rows_of_several_messages_are_one_batch_up_to_a_bound() {
        let mut several = messages(false);
        several.extend([several[1].clone(), several[1].clone()]);
        assert_eq!(read(several.clone()).await.unwrap().unwrap().num_rows(), 3);
        several.extend(std::iter::repeat_n(several[1].clone(), 1_100));
        insta::assert_snapshot!(read(several).await.unwrap_err(), @"the parameters have more than 1048576 bytes; bind fewer rows or smaller values at once");
    }

    #[tokio::test]
    async fn list_views_become_lists_within_the_bound() {
        // Each row shows the same numbers.
        let views = |rows: usize| -> ArrayRef {
            let item = Arc::new(Field::new_list_field(DataType::Int64, true));
            let (starts, lengths) = (ScalarBuffer::from(vec![0; rows]), ScalarBuffer::from(vec![1_000; rows]));
            Arc::new(ListViewArray::new(item, starts, lengths, Arc::new(Int64Array::from(vec![7; 1_000])), None))
        };
        let within = |views: ArrayRef| -> ArrayRef {
            let field = Arc::new(Field::new("v", views.data_type().clone(), true));
            Arc::new(StructArray::from(vec![(field, views)]))
        };
        let of = |column: ArrayRef| encoded(&RecordBatch::try_from_iter([("v", column)]).unwrap(), false);
        let rows = read(of(views(2))).await.unwrap().unwrap();
        assert_eq!(rows.column(0).as_list::<i32>().value(1).len(), 1_000);
        let rows = read(of(within(views(2)))).await.unwrap().unwrap();
        assert_eq!(rows.column(0).as_struct().column(0).as_list::<i32>().value(1).len(), 1_000);
        for column in [views(1_000), within(views(1_000))] {
            let error = read(of(column)).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Exhausted);
            assert_eq!(error.message(), "the parameters have more than 1048576 bytes");
        }
        // Of no row too they are lists.
        let rows = read(of(views(0))).await.unwrap().unwrap();
        assert!(matches!(rows.column(0).data_type(), DataType::List(_)), "{}", rows.column(0).data_type());
    }

    #[tokio::test]
    async fn what_nobody_has_asked_for_yet_is_taken_from_memory() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![0; 1 << 17]));
        let mut several = encoded(&RecordBatch::try_from_iter([("n", numbers)]).unwrap(), true);
        several.extend([several[1].clone(), several[1].clone()]);
        let memory = pool(8 << 20);
        let start = || {
            let rest = stream::iter(several.clone().into_iter().skip(1).map(Ok)).chain(stream::pending());
            sent(several[0].clone(), rest, &memory)
        };
        // Packed they are next to nothing, and each takes a MiB.
        let mut begun = Vec::new();
        let refused = loop {
            assert!(begun.len() <= 8, "more is read than there is memory for");
            let mut sent = start().await.unwrap();
            match sent.batches.try_next().await {
                Ok(batch) => assert_eq!(batch.unwrap().num_rows(), 1 << 17),
                Err(error) => break error,
            }
            begun.push(sent);
        };
        assert_eq!(refused.kind(), Kind::Exhausted);
        drop(begun);
        // What reads ahead is told to end, and gives all back.
        while memory.reserved() > 0 {
            tokio::task::yield_now().await;
        }
        let mut sent = start().await.unwrap();
        for _ in 0..3 {
            assert_eq!(sent.batches.try_next().await.unwrap().unwrap().num_rows(), 1 << 17);
        }
    }

    #[tokio::test]
    async fn rows_without_bytes_count_too() {
        let nothing: ArrayRef = Arc::new(NullArray::new(3 << 20));
        let mut several = encoded(&RecordBatch::try_from_iter([("n", nothing)]).unwrap(), false);
        assert_eq!(read(several.clone()).await.unwrap().unwrap().num_rows(), 3 << 20);
        several.push(several[1].clone());
        insta::assert_snapshot!(read(several).await.unwrap_err(), @"the parameters have more than 4194304 rows; bind fewer rows or smaller values at once");
    }

    #[tokio::test]
    async fn dictionaries_are_held_and_count_together() {
        let values = StringArray::from_iter_values((0..20).map(|number| number.to_string().repeat(1 << 20)));
        let column =
            |_| -> ArrayRef { Arc::new(DictionaryArray::new(Int32Array::from(vec![1]), Arc::new(values.clone()) as ArrayRef)) };
        let of = |columns: usize| {
            let columns = (0..columns).map(|number| (format!("c{number}"), column(number)));
            encoded(&RecordBatch::try_from_iter(columns).unwrap(), true)
        };
        // That of one fits, and only what it is used for is too large here.
        assert!(read(of(1)).await.unwrap_err().message().starts_with("the parameters have more than"));
        insta::assert_snapshot!(read(of(2)).await.unwrap_err(), @"the dictionaries of the rows are larger than 32 MiB together; bind fewer rows or smaller values at once");
    }

    #[tokio::test]
    async fn a_length_that_is_forged_takes_no_memory() {
        let mut forged = messages(true);
        let mut body = forged[1].data_body.to_vec();
        let length = 1000_i64.to_le_bytes();
        let at = body.windows(8).rposition(|bytes| bytes == length).unwrap();
        body[at..at + 8].copy_from_slice(&(1_i64 << 36).to_le_bytes());
        forged[1].data_body = body.into();
        let error = read(forged).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        insta::assert_snapshot!(error, @"the rows that were sent cannot be read: they are not sound");
    }

    #[tokio::test]
    async fn whatever_is_changed_the_process_goes_on() {
        for packed in [false, true] {
            let whole = messages(packed);
            for message in 0..2 {
                for (at, value) in (0..whole[message].data_header.len()).flat_map(|at| [(at, 0xff), (at, 0x00), (at, 0x7f)]) {
                    let mut changed = whole.clone();
                    let mut header = changed[message].data_header.to_vec();
                    header[at] = value;
                    changed[message].data_header = header.into();
                    if let Err(error) = read(changed).await {
                        assert!(matches!(error.kind(), Kind::Invalid | Kind::Unsupported), "{error}");
                    }
                }
            }
        }
    }
}
