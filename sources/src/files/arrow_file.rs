//! Arrow files and streams, message by message. A file is a stream between its magic bytes and its footer, and is read as one;
//! what a message declares is held against the bytes that are there before it is decoded.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::root_as_message;
use bytes::{Bytes, BytesMut};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion_datasource::projection::{ProjectionOpener, SplitProjection};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use nexus_flight_catalog::{Error, Result, ipc};
use object_store::{ObjectStore, ObjectStoreExt};

/// How an Arrow file begins, as opposed to an Arrow stream.
const MAGIC: &[u8; 8] = b"ARROW1\0\0";
const PADDING: &[u8; 8] = &[0; 8];
/// What stands before the length of a message.
const CONTINUATION: u32 = 0xffff_ffff;
/// The longest header of a message.
const LONGEST_HEADER: usize = 16 << 20;
/// The longest body of one, packed or not.
const LONGEST_BODY: usize = 1 << 30;

/// Opens Arrow files with the columns of a projection, by their names.
pub(super) fn opener(
    store: Arc<dyn ObjectStore>,
    split: SplitProjection,
    schema: &TableSchema,
) -> DataFusionResult<Arc<dyn FileOpener>> {
    let wanted = Arc::new(schema.file_schema().project(&split.file_indices)?);
    ProjectionOpener::try_new(split, Arc::new(Opener { store, wanted }), schema.file_schema())
}

/// The columns of a file, from its beginning. Errors: `Data`.
pub(super) async fn columns(head: Vec<u8>) -> Result<Schema> {
    let size = head.len();
    let mut messages = Messages::new(stream::iter([Ok(Bytes::from(head))]).boxed(), size);
    let mut decoder = StreamDecoder::new();
    while decoder.schema().is_none() {
        let mut message = messages.next().await?.ok_or_else(|| damaged("it has no columns"))?;
        decode(&mut decoder, &mut message)?;
    }
    Ok(decoder.schema().map(|schema| schema.as_ref().clone()).unwrap_or_else(Schema::empty))
}

struct Opener {
    store: Arc<dyn ObjectStore>,
    wanted: SchemaRef,
}

impl FileOpener for Opener {
    fn open(&self, file: PartitionedFile) -> DataFusionResult<FileOpenFuture> {
        let (store, wanted) = (Arc::clone(&self.store), Arc::clone(&self.wanted));
        Ok(async move {
            let meta = &file.object_meta;
            let bytes = store.get(&meta.location).await?.into_stream().map_err(|cause| Error::from(DataFusionError::from(cause)));
            let messages = Messages::new(bytes.boxed(), usize::try_from(meta.size).unwrap_or(usize::MAX));
            let state = (messages, StreamDecoder::new(), wanted);
            let batches = stream::try_unfold(state, |(mut messages, mut decoder, wanted)| async move {
                while let Some(mut message) = messages.next().await? {
                    if let Some(batch) = decode(&mut decoder, &mut message)? {
                        let batch = named(&batch, &wanted)?;
                        return Ok(Some((batch, (messages, decoder, wanted))));
                    }
                }
                Ok(None)
            });
            Ok(batches.map_err(|error: Error| error.into()).boxed())
        }
        .boxed())
    }
}

fn decode(decoder: &mut StreamDecoder, message: &mut Buffer) -> Result<Option<RecordBatch>> {
    // Where it still meets what it does not expect, it panics.
    match catch_unwind(AssertUnwindSafe(|| decoder.decode(message))) {
        Ok(decoded) => decoded.map_err(|cause| damaged(&cause.to_string())),
        Err(_) => Err(damaged("a message is not sound")),
    }
}

/// The wanted columns of a batch; NULL where the file has none of a name.
fn named(batch: &RecordBatch, wanted: &SchemaRef) -> Result<RecordBatch> {
    let columns = wanted.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => Err(damaged(&format!(
            "the column \"{}\" is {} in this file and {} in the table",
            field.name(),
            column.data_type(),
            field.data_type()
        ))),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(wanted), columns.collect::<Result<_>>()?, &options)?)
}

fn damaged(why: &str) -> Error {
    Error::data(format!("this Arrow file cannot be read: {why}")).with_hint("write the file again, or remove it")
}

/// Cuts bytes into messages.
struct Messages {
    bytes: BoxStream<'static, Result<Bytes>>,
    held: BytesMut,
    /// No message is longer than the file.
    size: usize,
    begun: bool,
}

impl Messages {
    fn new(bytes: BoxStream<'static, Result<Bytes>>, size: usize) -> Self {
        Self { bytes, held: BytesMut::new(), size, begun: false }
    }

    /// The next message with all that belongs to it; none at the end of the stream.
    async fn next(&mut self) -> Result<Option<Buffer>> {
        if !std::mem::replace(&mut self.begun, true) {
            // What follows the name of the format is padded, to as much as the writer likes.
            while self.has(8).await? && matches!(self.held.first_chunk(), Some(MAGIC | PADDING)) {
                let _ = self.held.split_to(8);
            }
        }
        let cut = || damaged("it is cut short");
        if !self.has(4).await? {
            // A stream need not have an end mark.
            return if self.held.is_empty() { Ok(None) } else { Err(cut()) };
        }
        let (mut before, mut length) = (4, self.number(0));
        if length == CONTINUATION {
            if !self.has(8).await? {
                return Err(cut());
            }
            (before, length) = (8, self.number(4));
        }
        let length = length as usize;
        if length == 0 {
            return Ok(None);
        }
        if length > LONGEST_HEADER || length > self.size {
            return Err(damaged("a message is longer than the file"));
        }
        if !self.has(before + length).await? {
            return Err(cut());
        }
        let header = self.held.get(before..before + length).unwrap_or_default();
        let body = root_as_message(header).map(|message| message.bodyLength()).map_err(|cause| damaged(&cause.to_string()))?;
        let body = usize::try_from(body).ok().filter(|body| *body <= self.size.min(LONGEST_BODY));
        let whole = before + length + body.ok_or_else(|| damaged("a message is longer than the file"))?;
        if !self.has(whole).await? {
            return Err(cut());
        }
        let message = self.held.split_to(whole).freeze();
        let (header, body) = message.get(before..).and_then(|rest| rest.split_at_checked(length)).unwrap_or_default();
        if ipc::sound(header, body, LONGEST_BODY as i64).is_none() {
            return Err(damaged("a message is not sound"));
        }
        // The decoder gets the length without the mark before it, in both forms. After a message without a body it would wait for
        // more bytes, so it gets a mark there, of which it makes nothing.
        let framed = message.slice(before - 4..);
        if body.is_empty() {
            return Ok(Some(Buffer::from_vec([&framed[..], &CONTINUATION.to_le_bytes()].concat())));
        }
        Ok(Some(Buffer::from(framed)))
    }

    /// Whether there are so many bytes.
    async fn has(&mut self, length: usize) -> Result<bool> {
        while self.held.len() < length {
            match self.bytes.try_next().await? {
                Some(more) => self.held.extend_from_slice(&more),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn number(&self, at: usize) -> u32 {
        self.held.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }
}
