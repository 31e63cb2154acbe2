//! Rows as text, a piece at a time. What a piece takes at the most is taken from memory before it is made, and given back when it is made
//! where it is small, or else when it is sent: as text a row may be many times what it is in memory.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StructArray};
use arrow::csv;
use arrow::datatypes::{Field, SchemaRef};
use arrow::json::writer::{EncoderOptions, make_encoder};
use axum::body::Bytes;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use nexus_flight_catalog::{Error, Result};

use crate::flight::encode::LARGEST_MESSAGE;
use crate::flight::profile::TypeProfile;
use crate::http::length::length;
use crate::query::Batches;
use crate::times::refuse_unnamed;

/// The most bytes of a piece, unless a row alone takes more: so many, and such a part of the memory that it is no large want.
const PIECE: usize = 1 << 20;
const PART: usize = 256;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    /// An object a line.
    Json,
    /// RFC 4180, with the names of the columns in front.
    Csv,
}

impl Text {
    /// What is before all rows. Errors: `Data` for columns that cannot be written so.
    pub(super) fn head(self, schema: &SchemaRef) -> Result<Vec<u8>> {
        let mut head = Vec::new();
        if self == Text::Csv {
            let mut writer = csv::WriterBuilder::new().with_header(true).build(&mut head);
            writer.write(&RecordBatch::new_empty(Arc::clone(schema)))?;
        }
        Ok(head)
    }

    /// Rows of `schema`, in pieces that are made when they are asked for. Errors: those of the rows, `Invalid` for times that have no text,
    /// and `Exhausted` where there is no room for the next piece in `memory`.
    pub(super) fn pieces(
        self,
        schema: SchemaRef,
        batches: Batches,
        memory: Arc<dyn MemoryPool>,
    ) -> BoxStream<'static, Result<Bytes>> {
        let left = RecordBatch::new_empty(Arc::clone(&schema));
        let pieces = Pieces { text: self, schema, batches, left, rows: usize::MAX, memory };
        let next = |mut pieces: Pieces| async move { Ok::<_, Error>(pieces.next().await?.map(|piece| (piece, pieces))) };
        stream::try_unfold(pieces, next).boxed()
    }

    /// How often what is written is in memory meanwhile: as text, and as rows without what is not theirs. Arrow's writer of CSV has a row
    /// in two places of its own before.
    fn copies(self) -> usize {
        match self {
            Text::Json => 2,
            Text::Csv => 4,
        }
    }

    fn write(self, rows: RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Text::Json => write_json(rows, out),
            Text::Csv => write_csv(&rows, out),
        }
    }
}

struct Pieces {
    text: Text,
    schema: SchemaRef,
    batches: Batches,
    /// What is not written yet of the last batch.
    left: RecordBatch,
    /// How many rows to try in the next piece.
    rows: usize,
    memory: Arc<dyn MemoryPool>,
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.left.num_rows() == 0 {
            let Some(batch) = self.batches.try_next().await? else { return Ok(None) };
            if self.text == Text::Json {
                refuse_unnamed(&batch)?;
            }
            self.left = batch;
        }
        self.piece().map(Some)
    }

    fn piece(&mut self) -> Result<Bytes> {
        let all = match self.memory.memory_limit() {
            MemoryLimit::Finite(all) => all,
            _ => usize::MAX,
        };
        let most = PIECE.min(all / PART);
        let length = |rows: usize, most: usize| length(self.schema.fields(), self.left.columns(), 0..rows, self.text, most);
        let (mut rows, mut bytes) = (self.left.num_rows().min(self.rows), usize::MAX);
        while rows > 1 {
            bytes = length(rows, most);
            if bytes <= most {
                break;
            }
            rows /= 2;
        }
        if rows == 1 {
            bytes = length(1, all);
        }
        let held = MemoryConsumer::new("rows of an answer").register(&self.memory);
        held.try_grow(bytes.saturating_mul(self.text.copies()))?;
        self.rows = rows.saturating_mul(2);
        let taken = TypeProfile::Native.batch(&self.left.slice(0, rows), &self.schema)?;
        self.left = self.left.slice(rows, self.left.num_rows() - rows);
        let mut text = Vec::with_capacity(bytes);
        self.text.write(taken, &mut text)?;
        text.shrink_to_fit();
        held.resize(text.capacity());
        Ok(held_by(text, held))
    }
}

/// Bytes that are counted until they are dropped, where they are large. Of others one or two wait on a connection, as of Flight's messages,
/// also where its client takes nothing any more and the statement has ended.
pub(super) fn held_by(bytes: Vec<u8>, memory: MemoryReservation) -> Bytes {
    if bytes.len() <= LARGEST_MESSAGE {
        return bytes.into();
    }
    struct Held {
        bytes: Vec<u8>,
        _memory: MemoryReservation,
    }
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Held { bytes, _memory: memory })
}

/// NULL is written out, so that every line has every key.
fn write_json(rows: RecordBatch, out: &mut Vec<u8>) -> Result<()> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let field = Arc::new(Field::new_struct("", rows.schema_ref().fields().clone(), false));
    let rows = StructArray::from(rows);
    let mut encoder = make_encoder(&field, &rows, &options)?;
    for row in 0..rows.len() {
        encoder.encode(row, out);
        out.push(b'\n');
    }
    Ok(())
}

fn write_csv(rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
    csv::WriterBuilder::new().with_header(false).build(out).write(rows)?;
    Ok(())
}

#[cfg(test)]
mod tests;
