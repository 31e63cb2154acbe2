//! The bytes of a CSV or JSON file as batches, none of them much larger than a bound, and no row longer than one.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::{csv, json};
use bytes::{Buf, Bytes};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use futures::TryStreamExt;
use futures::stream::{self, BoxStream};
use nexus_flight_catalog::Error;

use super::quotes::Quotes;

/// The bytes that a row may have, and those after which a batch ends with the row.
const ROW: usize = 16 << 20;
const BATCH: usize = 16 << 20;
/// How much is looked at, at a time.
const CHUNK: usize = 1 << 20;

pub(super) type Pieces = BoxStream<'static, DataFusionResult<Bytes>>;

/// Takes bytes, and makes batches of the rows in them.
pub(super) enum Decoder {
    /// With what tells the ends of rows from those of lines within a value, and whether the text ends within one.
    Csv(Box<csv::reader::Decoder>, Quotes),
    Json(json::reader::Decoder),
}

/// The batches of a file.
pub(super) fn batches(bytes: Pieces, decoder: Decoder) -> BoxStream<'static, Result<RecordBatch, ArrowError>> {
    let reading = Reading { bytes, decoder, piece: Bytes::new(), chunk: Bytes::new(), whole: 0, taken: 0, open: 0 };
    Box::pin(stream::try_unfold(reading, |mut reading| async move { Ok(reading.next().await?.map(|batch| (batch, reading))) }))
}

struct Reading {
    bytes: Pieces,
    decoder: Decoder,
    /// What came and is not looked at yet.
    piece: Bytes,
    /// What is looked at and not taken yet.
    chunk: Bytes,
    /// How much of that belongs to whole rows of CSV.
    whole: usize,
    /// The bytes that the next batch is made of.
    taken: usize,
    /// The bytes of the row that is not whole yet.
    open: usize,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        loop {
            if !self.chunk.is_empty() {
                if let Some(batch) = self.take()? {
                    return Ok(Some(batch));
                }
            } else if !self.piece.is_empty() {
                self.chunk = self.piece.split_to(self.piece.len().min(CHUNK));
                if let Decoder::Csv(_, quotes) = &mut self.decoder {
                    self.whole = quotes.piece(&self.chunk);
                }
            } else {
                match self.bytes.try_next().await? {
                    Some(piece) => self.piece = piece,
                    None => return self.rest(),
                }
            }
        }
    }

    /// Decodes a part of the chunk. Errors: `Data` where a row is too long.
    fn take(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let end = self.end();
        let part = self.chunk.get(..end).unwrap_or_default();
        let (read, ends_row) = match &mut self.decoder {
            Decoder::Csv(decoder, _) => (decoder.decode(part)?, self.whole > 0),
            Decoder::Json(decoder) => {
                let rows = decoder.len();
                let read = decoder.decode(part)?;
                if decoder.len() > rows {
                    self.open = 0;
                }
                (read, !decoder.has_partial_record())
            }
        };
        self.chunk.advance(read);
        self.whole = self.whole.saturating_sub(read);
        self.taken += read;
        self.open += read;
        if self.open > ROW + CHUNK {
            return Err(DataFusionError::from(too_long()).into());
        }
        if read < end {
            return self.flush();
        }
        if ends_row {
            self.open = 0;
            if self.taken >= BATCH {
                return self.flush();
            }
        }
        Ok(None)
    }

    /// Up to where the chunk is decoded at once: a batch can only end with a row.
    fn end(&self) -> usize {
        let end = match &self.decoder {
            Decoder::Csv(..) => Some(self.whole).filter(|whole| *whole > 0),
            Decoder::Json(_) if self.taken >= BATCH => self.chunk.iter().position(|byte| *byte == b'}').map(|last| last + 1),
            Decoder::Json(_) => None,
        };
        end.unwrap_or(self.chunk.len())
    }

    fn flush(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        (self.taken, self.open) = (0, 0);
        match &mut self.decoder {
            Decoder::Csv(decoder, _) => decoder.flush(),
            Decoder::Json(decoder) => decoder.flush(),
        }
    }

    /// What is left at the end. Errors: `Data` where it is a part of a value.
    fn rest(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        match &mut self.decoder {
            Decoder::Csv(decoder, quotes) => {
                quotes.end().map_err(DataFusionError::from)?;
                decoder.decode(&[])?;
            }
            Decoder::Json(decoder) => {
                decoder.decode(&[])?;
            }
        }
        self.flush()
    }
}

fn too_long() -> Error {
    Error::data(format!("a row is longer than {} MiB", ROW >> 20))
        .with_hint("write the file with a row in each line; a quote that is never closed makes all that follows one value")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn schema() -> Arc<Schema> {
        Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, true)]))
    }

    fn csv(rows: usize) -> Decoder {
        Decoder::Csv(Box::new(csv::ReaderBuilder::new(schema()).with_batch_size(rows).build_decoder()), Quotes::new(b','))
    }

    fn json(rows: usize) -> Decoder {
        Decoder::Json(json::ReaderBuilder::new(schema()).with_batch_size(rows).build_decoder().unwrap())
    }

    /// The rows of each batch of a text that comes in pieces.
    fn rows(text: &[u8], size: usize, decoder: Decoder) -> Result<Vec<usize>, String> {
        let pieces: Vec<_> = text.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let batches = batches(stream::iter(pieces).boxed(), decoder).map_ok(|batch| batch.num_rows()).try_collect();
        batches.now_or_never().unwrap().map_err(|error: ArrowError| error.to_string())
    }

    #[test]
    fn batches_have_the_rows_that_are_wanted() {
        for size in [1, 3, 1000] {
            assert_eq!(rows(b"1\n\"2\n2\"\n3\n4\n5", size, csv(2)), Ok(vec![2, 2, 1]));
            assert_eq!(rows(b"1\n2\n", size, csv(2)), Ok(vec![2]));
            assert_eq!(rows(b"", size, csv(2)), Ok(vec![]));
            assert_eq!(rows(b"{\"a\":\"1\"}{\"a\":\n\"}\"}\n\n{\"a\":\"3\"}", size, json(2)), Ok(vec![2, 1]));
            assert!(rows(b"{\"a\":\"1\"}\n{\"a\"", size, json(2)).is_err());
        }
    }

    #[test]
    fn batches_of_large_rows_end_early() {
        let value = "x}".repeat(1 << 20);
        let text = format!("{value}\n").repeat(20);
        assert_eq!(rows(text.as_bytes(), 64 << 10, csv(100)), Ok(vec![8, 8, 4]));
        for between in ["\n", ""] {
            let text = format!("{{\n\"a\":\n\"{value}\"}}{between}").repeat(20);
            let rows = rows(text.as_bytes(), 64 << 10, json(100)).unwrap();
            assert!(rows.iter().all(|rows| *rows < 10) && rows.iter().sum::<usize>() == 20, "{rows:?}");
        }
    }

    #[test]
    fn a_row_has_an_end() {
        let value = "x".repeat(18 << 20);
        for (text, decoder) in
            [(format!("\"{value}"), csv(100)), (value.clone(), csv(100)), (format!("{{\"a\":\"{value}"), json(100))]
        {
            assert!(rows(text.as_bytes(), 64 << 10, decoder).unwrap_err().contains("a row is longer than 16 MiB"));
        }
    }
}
