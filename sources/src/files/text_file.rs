//! CSV and JSON files, read by Arrow's decoders, with what those do not notice: a CSV file that ends within a value, and keys of
//! JSON that are not among guessed columns.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion_datasource::projection::{ProjectionOpener, SplitProjection};
use datafusion_datasource::{RangeCalculation, calculate_range};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use nexus_flight_catalog::Error;
use object_store::{GetOptions, ObjectStore};

use super::decoding::{Decoder, Pieces, batches};
use super::format::Format;
use super::heads;
use super::quotes::Quotes;

/// The values of a batch that is read, in all its columns together.
const CELLS: usize = 1 << 20;

type Batches = BoxStream<'static, DataFusionResult<RecordBatch>>;

/// How the text files of a table are read.
#[derive(Clone)]
pub(super) struct Text {
    pub(super) format: Format,
    pub(super) options: heads::Options,
    /// Whether the columns were guessed, so that JSON may hold keys which are not among them.
    pub(super) guessed: bool,
}

/// Opens text files with the columns of a projection.
pub(super) fn opener(
    text: Text,
    store: Arc<dyn ObjectStore>,
    compression: FileCompressionType,
    batch_size: usize,
    split: SplitProjection,
    schema: &TableSchema,
) -> DataFusionResult<Arc<dyn FileOpener>> {
    let opener = Opener { text, store, compression, batch_size, schema: schema.clone(), wanted: split.file_indices.clone() };
    ProjectionOpener::try_new(split, Arc::new(opener), schema.file_schema())
}

#[derive(Clone)]
struct Opener {
    text: Text,
    store: Arc<dyn ObjectStore>,
    compression: FileCompressionType,
    batch_size: usize,
    schema: TableSchema,
    wanted: Vec<usize>,
}

impl FileOpener for Opener {
    fn open(&self, file: PartitionedFile) -> DataFusionResult<FileOpenFuture> {
        let opener = self.clone();
        Ok(async move {
            let range = match calculate_range(&file, &opener.store, None).await? {
                RangeCalculation::Range(range) => range,
                RangeCalculation::TerminateEarly => return Ok(stream::empty().boxed()),
            };
            let options = GetOptions { range: range.map(Into::into), ..GetOptions::default() };
            let bytes = opener.store.get_opts(&file.object_meta.location, options).await?.into_stream();
            let bytes = opener.compression.convert_stream(bytes.map_err(DataFusionError::from).boxed())?;
            match opener.text.format {
                Format::Csv => Ok(opener.csv(bytes)),
                _ => opener.json(bytes),
            }
        }
        .boxed())
    }
}

impl Opener {
    fn csv(self, bytes: Pieces) -> Batches {
        let columns = self.schema.file_schema();
        let decoder = arrow::csv::ReaderBuilder::new(Arc::clone(columns))
            .with_header(self.text.options.header)
            .with_delimiter(self.text.options.delimiter)
            .with_batch_size(self.rows(columns))
            .with_projection(self.wanted)
            .build_decoder();
        let decoder = Decoder::Csv(Box::new(decoder), Quotes::new(self.text.options.delimiter));
        batches(bytes, decoder).map_err(DataFusionError::from).boxed()
    }

    fn json(self, bytes: Pieces) -> DataFusionResult<Batches> {
        let columns = self.schema.file_schema();
        let read = if self.text.guessed { self.every_key() } else { Arc::new(columns.project(&self.wanted)?) };
        let rows = self.rows(&read);
        // Numbers in a column of text are read as they are written.
        let decoder = arrow::json::ReaderBuilder::new(read)
            .with_batch_size(rows)
            .with_coerce_primitive(true)
            .with_strict_mode(self.text.guessed)
            .build_decoder()?;
        let batches = batches(bytes, Decoder::Json(decoder));
        if !self.text.guessed {
            return Ok(batches.map_err(DataFusionError::from).boxed());
        }
        let wanted = self.wanted;
        Ok(batches.map(move |batch| Ok(batch.map_err(unguessed)?.project(&wanted)?)).boxed())
    }

    /// The rows of a batch: fewer where there are many columns, each of which takes memory for every row.
    fn rows(&self, read: &Schema) -> usize {
        self.batch_size.min(CELLS / read.flattened_fields().len().max(1)).max(1)
    }

    /// The columns, and the keys that may stand in the files although folders give their values.
    fn every_key(&self) -> SchemaRef {
        let columns = self.schema.file_schema().fields();
        let folders = self.schema.table_partition_cols().iter();
        let keys = folders.map(|folder| Arc::new(Field::new(folder.name(), DataType::Utf8, true)));
        Arc::new(Schema::new(columns.iter().cloned().chain(keys).collect::<Vec<_>>()))
    }
}

/// What the decoder says of JSON that guessed columns do not hold.
fn unguessed(cause: ArrowError) -> DataFusionError {
    let said = cause.to_string();
    let key = said.split_once("column '").and_then(|(_, rest)| rest.rsplit_once("' missing from schema"));
    let error = match key {
        Some((key, _)) => Error::data(format!("the key \"{key}\" is not among the columns, which the first rows decide")),
        None if said.contains("whilst decoding field") => Error::from(cause),
        // It is no JSON.
        None => return cause.into(),
    };
    error.with_hint("declare the table's columns, each with a type that holds all its values, such as VARCHAR or DECIMAL").into()
}
