//! Errors of a scan with the file they come from: a wrapper around DataFusion's readers that changes nothing else.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use datafusion_datasource::projection::SplitProjection;
use futures::{FutureExt, Stream, StreamExt};
use nexus_flight_catalog::{Error, Kind, Place, Result};
use object_store::ObjectStore;
use object_store::path::Path;

use super::arrow_file;
use super::format::Format;
use super::store::Store;
use super::strict::converted;
use super::text_file::{self, Text};

/// Puts the file into an error.
pub(super) trait Locate {
    /// The error in our words, with the file as its place, and the line where the message names one.
    fn locate(&self, error: DataFusionError, path: &Path) -> Error;
}

impl Locate for Store {
    fn locate(&self, error: DataFusionError, path: &Path) -> Error {
        if let Some(cause) = cause::<object_store::Error>(&error) {
            return self.error(cause, path);
        }
        if let Some(ours) = cause::<Error>(&error) {
            return match ours.place() {
                // Whoever looks at text knows its lines and not the file.
                Some(Place::File { path: unknown, line }) if unknown.is_empty() => {
                    let error = Error::new(ours.kind(), ours.message()).with_hint(ours.hint().unwrap_or_default());
                    error.at(Place::File { path: self.show(path), line: *line })
                }
                _ => ours.copied().at(self.place(path)),
            };
        }
        let error = Error::from(error);
        // Whatever else a reader says of a file is about what the file holds.
        let (Kind::Invalid | Kind::Internal | Kind::Unavailable | Kind::Data) = error.kind() else {
            return error.at(self.place(path));
        };
        let (message, line) = without_line(error.message());
        let hint = if line.is_some() { "correct the line, or remove the file" } else { "write the file again, or remove it" };
        Error::data(message).with_hint(hint).at(Place::File { path: self.show(path), line })
    }
}

/// Takes the line out of what the CSV reader says, and the row, which may hold what is not for everybody's eyes.
fn without_line(message: &str) -> (String, Option<u64>) {
    // Where the number of fields is wrong the reader counts lines from one, where a value is wrong from zero.
    for (mark, end, offset) in [(" for line ", ",", 0), (" at line ", ".", 1)] {
        let Some((before, after)) = message.split_once(mark) else { continue };
        let (number, rest) = after.split_once(end).unwrap_or((after, ""));
        if let Ok(number) = number.parse::<u64>() {
            let rest = if mark == " for line " { rest } else { "" };
            let comma = if rest.is_empty() { "" } else { "," };
            return (format!("{before}{comma}{rest}"), Some(number + offset));
        }
    }
    (message.to_owned(), None)
}

/// The first error of a type in a chain of causes.
fn cause<T: StdError + 'static>(error: &DataFusionError) -> Option<&T> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// A reader of files whose errors say which file they come from.
#[derive(Clone)]
pub(super) struct Located {
    pub(super) inner: Arc<dyn FileSource>,
    pub(super) store: Arc<Store>,
    /// An Arrow file is read by our own reader, and in one piece.
    pub(super) format: Format,
    /// CSV and JSON are read by our own reader too, which looks at what Arrow's decoders do not.
    pub(super) text: Text,
    pub(super) batch_size: usize,
    /// The columns of the table; those of the inner reader differ where it would cut values.
    pub(super) schema: TableSchema,
}

impl Located {
    /// What is read of a file, and what is made of that, for readers of our own.
    fn split(&self) -> SplitProjection {
        let schema = self.inner.table_schema();
        match self.inner.projection() {
            Some(projection) => SplitProjection::new(schema.file_schema(), projection),
            None => SplitProjection::unprojected(schema),
        }
    }

    fn around(&self, inner: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self { inner, ..self.clone() })
    }
}

impl FileSource for Located {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> DataFusionResult<Arc<dyn FileOpener>> {
        let schema = self.inner.table_schema();
        let inner = match self.format {
            Format::Arrow => arrow_file::opener(store, self.split(), schema)?,
            Format::Csv | Format::Json => {
                let (text, compression) = (self.text.clone(), config.file_compression_type);
                text_file::opener(text, store, compression, self.batch_size, self.split(), schema)?
            }
            Format::Parquet => self.inner.create_file_opener(store, config, partition)?,
        };
        Ok(Arc::new(LocatedOpener { inner, store: Arc::clone(&self.store), schema: config.projected_schema()? }))
    }

    /// The optimizer knows the inner reader, not the wrapper.
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }

    fn table_schema(&self) -> &TableSchema {
        &self.schema
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(Self { inner: self.inner.with_batch_size(batch_size), batch_size, ..self.clone() })
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.inner.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.inner.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn file_type(&self) -> &str {
        self.inner.file_type()
    }

    fn fmt_extra(&self, format: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        self.inner.fmt_extra(format, f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.format != Format::Arrow && self.inner.supports_repartitioning()
    }

    fn repartitioned(
        &self,
        partitions: usize,
        least: usize,
        ordering: Option<LexOrdering>,
        config: &FileScanConfig,
    ) -> DataFusionResult<Option<FileScanConfig>> {
        // The configuration holds this wrapper, and what comes back is a copy of it.
        if self.format == Format::Arrow {
            return Ok(None);
        }
        self.inner.repartitioned(partitions, least, ordering, config)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> DataFusionResult<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let FilterPushdownPropagation { filters, updated_node } = self.inner.try_pushdown_filters(filters, config)?;
        Ok(FilterPushdownPropagation { filters, updated_node: updated_node.map(|inner| self.around(inner)) })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        properties: &EquivalenceProperties,
    ) -> DataFusionResult<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        Ok(self.inner.try_pushdown_sort(order, properties)?.map(|inner| self.around(inner)))
    }

    /// Only columns: what goes wrong with an expression is no fault of the file, and must not be said to be.
    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> DataFusionResult<Option<Arc<dyn FileSource>>> {
        if !projection.iter().all(|column| column.expr.as_any().is::<Column>()) {
            return Ok(None);
        }
        Ok(self.inner.try_pushdown_projection(projection)?.map(|inner| self.around(inner)))
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
        let schema = Arc::clone(&self.schema);
        let opening = self.inner.open(file).map_err(|error| store.locate(error, &path))?;
        Ok(async move {
            // Where a reader meets what no writer would have written, it may panic.
            let opened = AssertUnwindSafe(opening).catch_unwind().await.unwrap_or_else(|_| Err(unsound()));
            let batches = opened.map_err(|error| store.locate(error, &path))?;
            let fit = move |batch: DataFusionResult<RecordBatch>| {
                let batch = batch.and_then(|batch| Ok(strict(batch, &schema)?));
                Ok(batch.map_err(|error| store.locate(error, &path))?)
            };
            Ok(caught(batches).map(fit).boxed())
        }
        .boxed())
    }
}

/// The same batches, with an error where the reader panics, and nothing after it.
fn caught(batches: impl Stream<Item = DataFusionResult<RecordBatch>>) -> impl Stream<Item = DataFusionResult<RecordBatch>> {
    AssertUnwindSafe(batches).catch_unwind().map(|batch| batch.unwrap_or_else(|_| Err(unsound())))
}

fn unsound() -> DataFusionError {
    Error::data("the file is not sound: its parts contradict each other").with_hint("write the file again, or remove it").into()
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

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use nexus_flight_catalog::{Error, Kind};

    use super::{caught, without_line};

    #[tokio::test]
    async fn a_reader_that_panics_has_met_bad_data() {
        let reader = stream::poll_fn(|_| panic!("decoder for dict should have been set"));
        let said: Vec<_> = caught(reader).collect().await;
        assert_eq!(said.len(), 1);
        for batch in said {
            assert_eq!(Error::from(batch.unwrap_err()).kind(), Kind::Data);
        }
    }

    #[test]
    fn readers_name_lines() {
        let fields = without_line("incorrect number of fields for line 5, expected 2 got more than 2");
        assert_eq!(fields, ("incorrect number of fields, expected 2 got more than 2".to_owned(), Some(5)));
        let value = without_line("error while parsing value 'x' as type 'Int64' for column 1 at line 12. Row data: '[x,secret]'");
        assert_eq!(value, ("error while parsing value 'x' as type 'Int64' for column 1".to_owned(), Some(13)));
        assert_eq!(without_line("there is no line here"), ("there is no line here".to_owned(), None));
    }
}
