//! Record batches → Flight messages, none above the size that every gRPC client takes.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow_flight::{IpcMessage, SchemaAsIpc};
use arrow_ipc::writer::{DictionaryHandling, DictionaryTracker, DictionaryUpdate, IpcDataGenerator, IpcWriteOptions};
use bytes::Bytes;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::StreamExt;
use futures::stream::{self, BoxStream, Stream};
use nexus_flight_catalog::{Error, Result};

use crate::bounds::all_within;
use crate::flight::encode::shared::Keeping;
use crate::flight::profile::{TypeProfile, shed_dictionaries};

mod ahead;
mod body;
mod message;
mod shared;
mod size;

pub use ahead::ahead;
pub use message::{DATA_BODY, Message};
pub use shared::{Room, Shared};

/// The largest message, with its framing. Clients refuse more than 4 MiB unless told otherwise.
pub const LARGEST_MESSAGE: usize = 3_500_000;

/// What a message is aimed at: a little below the largest, so that rows of about one length need one attempt.
const AIM: usize = LARGEST_MESSAGE / 16 * 15;

/// What is made at once of rows that share their values: of no more rows than that, and of one row that takes more only where there is
/// room.
const MOST: usize = 2 * LARGEST_MESSAGE;

/// gRPC puts a flag and the length before each message.
const PREFIX: usize = 5;

/// The messages of a result: its schema as `profile` has it, then its rows, each message made when it is asked for.
///
/// No message is above [`LARGEST_MESSAGE`] unless one row alone is; then what is made of it is taken from `memory`. `schema` is that of
/// `batches`, before the profile. Errors: those of the rows, and `Exhausted`.
pub fn encode(
    schema: &Schema,
    profile: TypeProfile,
    batches: BoxStream<'static, Result<RecordBatch>>,
    memory: &Arc<dyn MemoryPool>,
) -> impl Stream<Item = Result<Message>> + Send + use<> {
    encode_shared(schema, profile, batches, memory, Weak::new())
}

/// The same messages for an answer that the cache keeps: what was made of a batch of it before is sent again, and what is made
/// now is kept in `shared`, for as long as that is there and has room.
pub fn encode_shared(
    schema: &Schema,
    profile: TypeProfile,
    batches: BoxStream<'static, Result<RecordBatch>>,
    memory: &Arc<dyn MemoryPool>,
    shared: Weak<Shared>,
) -> impl Stream<Item = Result<Message>> + Send + use<> {
    let encoder = Encoder::new(profile.schema(schema), profile, batches, memory, shared);
    stream::try_unfold(encoder, |mut encoder| async move { Ok(encoder.next().await?.map(|message| (message, encoder))) })
}

/// A schema as an encapsulated message, the form that `FlightInfo`, `SchemaResult` and prepared statements carry.
pub fn schema_bytes(schema: &Schema) -> Result<Bytes> {
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into()?;
    Ok(bytes)
}

struct Encoder {
    profile: TypeProfile,
    schema: SchemaRef,
    batches: BoxStream<'static, Result<RecordBatch>>,
    /// What is left of the last batch, first things first.
    pieces: VecDeque<Piece>,
    /// Messages made and not yet sent: the rows of one piece and the dictionaries they need.
    ready: VecDeque<Message>,
    tracker: DictionaryTracker,
    /// Whether there are list views, which share their items.
    has_list_views: bool,
    /// What is made of a row that is large alone, until the next rows are taken up.
    made: MemoryReservation,
    /// Where the messages of batches are kept.
    shared: Weak<Shared>,
    /// The batches that have come.
    come: usize,
    /// The messages of the latest one, as far as they were sent.
    keeping: Option<Keeping>,
}

/// Rows not yet encoded, and how many of them to try in one message.
struct Piece {
    rows: RecordBatch,
    at_once: usize,
    /// Whether all of them together may be made at once.
    is_small: bool,
}

impl Encoder {
    fn new(
        schema: SchemaRef,
        profile: TypeProfile,
        batches: BoxStream<'static, Result<RecordBatch>>,
        memory: &Arc<dyn MemoryPool>,
        shared: Weak<Shared>,
    ) -> Self {
        let is_list_view = |data_type: &&DataType| matches!(data_type, DataType::ListView(_) | DataType::LargeListView(_));
        let has_list_views = schema.fields().iter().any(|field| all_within(field.data_type()).iter().any(is_list_view));
        let mut encoder = Self {
            profile,
            schema,
            batches,
            pieces: VecDeque::new(),
            ready: VecDeque::new(),
            tracker: DictionaryTracker::new(false),
            has_list_views,
            made: MemoryConsumer::new("rows of an answer").register(memory),
            shared,
            come: 0,
            keeping: None,
        };
        let schema = encoder.encode_schema();
        encoder.ready.push_back(schema);
        if !encoder.tracker.dict_id().is_empty() {
            // What is sent of a dictionary hangs on what was sent before, so these messages are those of one stream alone.
            encoder.shared = Weak::new();
        }
        encoder
    }

    async fn next(&mut self) -> Result<Option<Message>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                self.keeping = self.keeping.take().and_then(|keeping| keeping.with(&message));
                return Ok(Some(message));
            }
            if let Some(piece) = self.pieces.pop_front() {
                self.encode_piece(piece)?;
                continue;
            }
            if let Some(keeping) = self.keeping.take() {
                keeping.end();
            }
            match self.batches.next().await {
                Some(batch) => self.begin(batch?),
                None => return Ok(None),
            }
        }
    }

    /// Takes a batch up, or the messages that were made of it before.
    fn begin(&mut self, rows: RecordBatch) {
        let place = self.come;
        self.come += 1;
        if let Some(shared) = self.shared.upgrade() {
            if let Some(messages) = shared.messages(self.profile, place, &rows) {
                metrics::counter!("nexus_cache_batches_shared_total").increment(1);
                self.ready.extend(messages);
                return;
            }
            metrics::counter!("nexus_cache_batches_encoded_total").increment(1);
            self.keeping = Some(Keeping::new(&shared, self.profile, place, &rows));
        }
        let piece = self.piece(rows);
        self.push(piece);
    }

    /// A batch, with how many rows of it to try in one message.
    fn piece(&self, rows: RecordBatch) -> Piece {
        // Most batches fit with all the memory that they hold on to, and then there is nothing to look at.
        let held = || rows.columns().iter().map(|column| column.get_buffer_memory_size()).sum::<usize>();
        if self.profile == TypeProfile::Native && !self.has_list_views && held() <= AIM {
            return Piece { at_once: rows.num_rows(), rows, is_small: true };
        }
        let size = self.size(&rows);
        Piece { at_once: rows.num_rows().div_ceil(size.div_ceil(AIM).max(1)), rows, is_small: size <= MOST }
    }

    /// The bytes of rows once they are sent.
    fn size(&self, rows: &RecordBatch) -> usize {
        rows.columns().iter().map(|column| size::encoded(column, self.profile)).sum()
    }

    /// Of so many rows those that may be made at once, and their bytes: a few may be much longer than the others.
    fn within(&self, rows: &RecordBatch, mut at_once: usize) -> (usize, usize) {
        let mut size = self.size(&rows.slice(0, at_once));
        while at_once > 1 && size > MOST {
            let half = at_once.div_ceil(2);
            let less = self.size(&rows.slice(0, half));
            if less == size {
                // It does not hang on the rows, and would be as large with one of them.
                break;
            }
            (at_once, size) = (half, less);
        }
        (at_once, size)
    }

    /// Puts rows before all others that wait.
    fn push(&mut self, piece: Piece) {
        if piece.rows.num_rows() > 0 {
            self.pieces.push_front(piece);
        }
    }

    fn encode_piece(&mut self, Piece { rows, at_once: wanted, is_small }: Piece) -> Result<()> {
        let wanted = wanted.clamp(1, rows.num_rows());
        let (at_once, size) = if is_small { (wanted, 0) } else { self.within(&rows, wanted) };
        let rows = if at_once < rows.num_rows() {
            self.push(Piece { rows: rows.slice(at_once, rows.num_rows() - at_once), at_once: wanted, is_small });
            rows.slice(0, at_once)
        } else {
            rows
        };
        let copied = |column: &&ArrayRef| self.profile.copies(column.data_type());
        let made: usize = if size > MOST {
            rows.columns().iter().filter(copied).map(|column| size::encoded(column, self.profile)).sum()
        } else {
            0
        };
        self.made.try_resize(made)?;
        let mut batch = self.profile.batch(&rows, &self.schema)?;
        let (mut dictionaries, mut message) = self.encode_batch(&batch)?;
        if dictionaries.iter().any(too_large) {
            // A dictionary may hold values that these rows do not use: once without those, and only then fewer rows.
            self.forget_dictionaries();
            self.made.try_grow(dictionaries.iter().map(Message::encoded_len).sum())?;
            batch = shed_dictionaries(&batch)?;
            (dictionaries, message) = self.encode_batch(&batch)?;
            if at_once > 1 && dictionaries.iter().any(too_large) {
                self.forget_dictionaries();
                self.halve(batch);
                return Ok(());
            }
        }
        // The tracker takes these for sent, so they are, even where the rows go in two messages.
        self.ready.extend(dictionaries);
        if at_once > 1 && too_large(&message) {
            self.halve(batch);
        } else {
            self.ready.push_back(message);
        }
        Ok(())
    }

    /// A batch that has been through the profile may go through it again: it stays as it is.
    fn halve(&mut self, batch: RecordBatch) {
        let at_once = batch.num_rows().div_ceil(2);
        self.push(Piece { rows: batch, at_once, is_small: false });
    }

    /// The dictionaries that the client does not have yet, and the rows.
    fn encode_batch(&mut self, batch: &RecordBatch) -> Result<(Vec<Message>, Message)> {
        let numbers = self.tracker.dict_id().to_vec();
        let mut found = Vec::with_capacity(numbers.len());
        if !numbers.is_empty() {
            batch.columns().iter().for_each(|column| body::dictionaries(column, &mut found));
        }
        if found.len() != numbers.len() {
            return Err(Error::internal("a batch has other dictionaries than its schema"));
        }
        let mut dictionaries = Vec::new();
        for (number, column) in numbers.into_iter().zip(&found) {
            let update = self.tracker.insert_column(number, column, DictionaryHandling::Resend)?;
            if !matches!(update, DictionaryUpdate::None) {
                dictionaries.push(body::dictionary(number, column.as_any_dictionary().values()));
            }
        }
        Ok((dictionaries, body::rows(batch)))
    }

    fn encode_schema(&mut self) -> Message {
        let (generator, options) = (IpcDataGenerator::default(), IpcWriteOptions::default());
        generator.schema_to_bytes_with_dictionary_tracker(&self.schema, &mut self.tracker, &options).into()
    }

    /// Dictionaries that were encoded and then not sent must not count as known to the client.
    fn forget_dictionaries(&mut self) {
        self.tracker.clear();
        // Numbers the dictionaries again as the schema message that was sent did.
        self.encode_schema();
    }
}

fn too_large(message: &Message) -> bool {
    PREFIX + message.encoded_len() > LARGEST_MESSAGE
}

#[cfg(test)]
mod tests;
