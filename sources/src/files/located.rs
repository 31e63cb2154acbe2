//! How the files of a catalog of files are opened: with the file in every error, and by readers of our own where DataFusion's would not do.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result as DataFusionResult;
use datafusion_datasource::projection::SplitProjection;
use futures::StreamExt;
use nexus_flight_catalog::Result;
use object_store::ObjectStore;

use super::arrow_file;
use super::format::Format;
use super::strict::converted;
use super::text_file::{self, Text};
use crate::stores::{Locate, Opens, Store, guarded};

/// Opens files so that errors say which file they come from.
#[derive(Clone)]
pub(super) struct Located {
    pub(super) store: Arc<Store>,
    /// An Arrow file is read by our own reader, and in one piece.
    pub(super) format: Format,
    /// CSV and JSON are read by our own reader too, which looks at what Arrow's decoders do not.
    pub(super) text: Text,
    pub(super) batch_size: usize,
    /// The columns of the table; those of the inner reader differ where it would cut values.
    pub(super) schema: TableSchema,
}

impl Opens for Located {
    fn schema<'a>(&'a self, _inner: &'a dyn FileSource) -> &'a TableSchema {
        &self.schema
    }

    fn in_pieces(&self) -> bool {
        self.format != Format::Arrow
    }

    fn with_batch_size(&self, batch_size: usize) -> Self {
        Self { batch_size, ..self.clone() }
    }

    fn opener(
        &self,
        inner: &dyn FileSource,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> DataFusionResult<Arc<dyn FileOpener>> {
        let schema = inner.table_schema();
        // What is read of a file, and what is made of that, for readers of our own.
        let split = || match inner.projection() {
            Some(projection) => SplitProjection::new(schema.file_schema(), projection),
            None => SplitProjection::unprojected(schema),
        };
        let inner = match self.format {
            Format::Arrow => arrow_file::opener(store, split(), schema)?,
            Format::Csv | Format::Json => {
                let (text, compression) = (self.text.clone(), config.file_compression_type);
                text_file::opener(text, store, compression, self.batch_size, split(), schema)?
            }
            Format::Parquet => inner.create_file_opener(store, config, partition)?,
        };
        Ok(Arc::new(LocatedOpener { inner, store: Arc::clone(&self.store), schema: config.projected_schema()? }))
    }
}

struct LocatedOpener {
    inner: Arc<dyn FileOpener>,
    store: Arc<Store>,
    schema: SchemaRef,
}

impl FileOpener for LocatedOpener {
    fn open(&self, file: PartitionedFile) -> DataFusionResult<FileOpenFuture> {
        let (store, path) = (Arc::clone(&self.store), file.object_meta.location.clone());
        let (inner, schema) = (Arc::clone(&self.inner), Arc::clone(&self.schema));
        let opening = async move {
            let batches = inner.open(file)?.await?;
            Ok(batches.map(move |batch| Ok(strict(batch?, &schema)?)).boxed())
        };
        Ok(guarded(opening, move |error| store.locate(error, &path).into()))
    }
}

/// The batch with the columns of the table.
fn strict(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let types = |schema: &SchemaRef| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
    if types(batch.schema_ref()) == types(schema) {
        return Ok(batch);
    }
    let columns = batch.columns().iter().zip(schema.fields()).map(|(read, field)| converted(read, field.data_type()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<Result<_>>()?, &options)?)
}
