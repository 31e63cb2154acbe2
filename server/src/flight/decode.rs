//! Rows as clients send them: Arrow IPC from outside.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt, future};
use nexus_flight_catalog::ipc::{self, Dictionaries};
use nexus_flight_catalog::{Error, Result};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use crate::flight::status::broken;
use crate::query::size;

/// The most messages of parameters that hold rows: a row of NULLs alone may have no bytes.
const BATCHES: usize = 10_000;
/// The most rows of parameters.
const ROWS: usize = 4 << 20;
/// How long a client may send nothing in the middle of its rows.
const SILENCE: Duration = Duration::from_secs(300);
/// The most bytes that the buffers of a message may be once they are unpacked, and the most rows of a column without any.
const MOST: i64 = 64 << 20;

/// The rows of a stream of messages as they come.
pub struct Sent {
    /// Their columns; none where no message tells of any.
    pub schema: Option<SchemaRef>,
    /// The rows. Errors: `Invalid` for messages that are not sound, or for a stream that breaks off.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

/// Reads a stream of messages up to its schema.
pub async fn sent(first: FlightData, rest: impl Stream<Item = Result<FlightData, Status>> + Send + 'static) -> Result<Sent> {
    let mut dictionaries = Dictionaries::default();
    let messages = stream::iter([Ok(first)]).chain(unless_silent(rest)).map_err(broken).try_filter_map(move |message| {
        let is_held = check(&message, &mut dictionaries);
        // The first one may hold a command and nothing else.
        future::ready(is_held.map(|()| (!message.data_header.is_empty()).then_some(message)))
    });
    let messages = messages.map_err(|error| FlightError::ExternalError(Box::new(error)));
    let mut decoder = FlightRecordBatchStream::new_from_flight_data(messages);
    let (sender, mut receiver) = mpsc::channel(1);
    // In a task of its own: where the decoder still meets what it does not expect, it panics.
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let batch = decoder.next().await.map(|batch| batch.map_err(decoded));
            let has_ended = !matches!(batch, Some(Ok(_)));
            if sender.send((decoder.schema().cloned(), batch)).await.is_err() || has_ended {
                break;
            }
        }
    }));
    let first = receiver.recv().await;
    let schema = first.as_ref().and_then(|(schema, _)| schema.clone());
    let batches = stream::unfold((receiver, Some(task), first), |(mut receiver, mut task, mut first)| async move {
        let next = match first.take() {
            Some(first) => Some(first),
            None => receiver.recv().await,
        };
        match next {
            Some((_, Some(batch))) => Some((batch, (receiver, task, None))),
            Some((_, None)) => None,
            // The task ended without a word, or its last word was an error.
            None => match task.take()?.await {
                Ok(()) => None,
                Err(cause) => Some((Err(unreadable("they are not sound").caused_by(cause)), (receiver, None, None))),
            },
        }
    });
    Ok(Sent { schema, batches: batches.boxed() })
}

/// The rows of parameters in a stream of messages, as one batch, which may have none; none where there are no columns. Errors: `Exhausted` for more than
/// `most` bytes of them, and those of [`Sent::batches`].
pub async fn parameters(
    first: FlightData,
    rest: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    most: usize,
) -> Result<Option<RecordBatch>> {
    let Sent { schema, mut batches } = sent(first, rest).await?;
    let (mut rows, mut bytes, mut count) = (Vec::new(), 0, 0);
    while let Some(batch) = batches.try_next().await? {
        if batch.num_rows() > 0 {
            bytes += size(&batch);
            count += batch.num_rows();
            if bytes > most as u64 || rows.len() >= BATCHES {
                return Err(too_much(&format!("the parameters have more than {most} bytes")));
            }
            if count > ROWS {
                return Err(too_much(&format!("the parameters have more than {ROWS} rows")));
            }
            rows.push(batch);
        }
    }
    let Some(schema) = schema.filter(|schema| !schema.fields().is_empty()) else { return Ok(None) };
    concat_batches(&schema, &rows).map(Some).map_err(|error| unreadable(&error.to_string()))
}

/// The same messages, which break off where nothing comes for too long.
fn unless_silent<T: Send>(
    rest: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
    stream::unfold(Some(Box::pin(rest)), |rest| async move {
        let mut rest = rest?;
        match tokio::time::timeout(SILENCE, rest.next()).await {
            Ok(next) => next.map(|message| (message, Some(rest))),
            Err(_) => Some((Err(Status::deadline_exceeded(format!("nothing came for {} s", SILENCE.as_secs()))), None)),
        }
    })
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

/// Holds what a message declares against the bytes that came with it, and its dictionary against all before it.
fn check(message: &FlightData, dictionaries: &mut Dictionaries) -> Result<()> {
    if message.data_header.is_empty() {
        return Ok(());
    }
    let sound = ipc::sound(&message.data_header, &message.data_body, MOST).ok_or_else(|| unreadable("they are not sound"))?;
    let fits = dictionaries.fit(&sound, MOST);
    fits.then_some(()).ok_or_else(|| too_much("the dictionaries of the rows are larger than 64 MiB together"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray, Int32Array, Int64Array, NullArray, StringArray};
    use arrow_ipc::CompressionType;
    use arrow_ipc::writer::{CompressionContext, DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
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

    async fn read(mut messages: Vec<FlightData>) -> Result<Option<RecordBatch>> {
        let rest = messages.split_off(1);
        parameters(messages.remove(0), stream::iter(rest.into_iter().map(Ok)), 1 << 20).await
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
        // Those of two fit, and only what they are used for is too large here.
        assert!(read(of(2)).await.unwrap_err().message().starts_with("the parameters have more than"));
        insta::assert_snapshot!(read(of(3)).await.unwrap_err(), @"the dictionaries of the rows are larger than 64 MiB together; bind fewer rows or smaller values at once");
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
