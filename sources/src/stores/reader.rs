//! A wrapper around DataFusion's readers of files, written once: whoever wraps one says how a file is opened, and nothing else changes.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use nexus_flight_catalog::Error;
use object_store::ObjectStore;

/// How the files of a scan are opened.
pub(crate) trait Opens: Clone + Send + Sync + 'static {
    /// The columns of the table, where those of the reader differ.
    fn schema<'a>(&'a self, inner: &'a dyn FileSource) -> &'a TableSchema {
        inner.table_schema()
    }

    /// Whether one file may be read in several pieces.
    fn in_pieces(&self) -> bool {
        true
    }

    /// The same for batches of so many rows.
    fn with_batch_size(&self, _batch_size: usize) -> Self {
        self.clone()
    }

    /// Opens the files of a partition.
    fn opener(
        &self,
        inner: &dyn FileSource,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>>;
}

/// A reader of files that opens them in its own way.
#[derive(Clone)]
pub(crate) struct Reader<O> {
    pub(crate) inner: Arc<dyn FileSource>,
    pub(crate) opens: O,
}

impl<O: Opens> Reader<O> {
    fn around(&self, inner: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self { inner, opens: self.opens.clone() })
    }
}

impl<O: Opens> FileSource for Reader<O> {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        self.opens.opener(self.inner.as_ref(), store, config, partition)
    }

    /// The optimizer knows the inner reader, not the wrapper.
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }

    fn table_schema(&self) -> &TableSchema {
        self.opens.schema(self.inner.as_ref())
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(Self { inner: self.inner.with_batch_size(batch_size), opens: self.opens.with_batch_size(batch_size) })
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
        self.opens.in_pieces() && self.inner.supports_repartitioning()
    }

    fn repartitioned(
        &self,
        partitions: usize,
        least: usize,
        ordering: Option<LexOrdering>,
        config: &FileScanConfig,
    ) -> Result<Option<FileScanConfig>> {
        // The configuration holds this wrapper, and what comes back is a copy of it.
        if !self.opens.in_pieces() {
            return Ok(None);
        }
        self.inner.repartitioned(partitions, least, ordering, config)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let FilterPushdownPropagation { filters, updated_node } = self.inner.try_pushdown_filters(filters, config)?;
        Ok(FilterPushdownPropagation { filters, updated_node: updated_node.map(|inner| self.around(inner)) })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        properties: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        Ok(self.inner.try_pushdown_sort(order, properties)?.map(|inner| self.around(inner)))
    }

    /// Only columns: what goes wrong with an expression is no fault of the file, and must not be said to be.
    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        if !projection.iter().all(|column| column.expr.as_any().is::<Column>()) {
            return Ok(None);
        }
        Ok(self.inner.try_pushdown_projection(projection)?.map(|inner| self.around(inner)))
    }
}

/// A file that is being opened. Whatever goes wrong, then or while it is read, is told by `located`, and so is a panic of the reader.
pub(crate) fn guarded(
    opening: impl Future<Output = Result<BoxStream<'static, Result<RecordBatch>>>> + Send + 'static,
    located: impl Fn(DataFusionError) -> DataFusionError + Send + 'static,
) -> FileOpenFuture {
    async move {
        // Where a reader meets what no writer would have written, it may panic.
        let opened = AssertUnwindSafe(opening).catch_unwind().await.unwrap_or_else(|_| Err(unsound()));
        let batches = opened.map_err(&located)?;
        Ok(caught(batches).map(move |batch| batch.map_err(&located)).boxed())
    }
    .boxed()
}

/// The same batches, with an error where the reader panics, and nothing after it.
fn caught(batches: impl Stream<Item = Result<RecordBatch>>) -> impl Stream<Item = Result<RecordBatch>> {
    AssertUnwindSafe(batches).catch_unwind().map(|batch| batch.unwrap_or_else(|_| Err(unsound())))
}

fn unsound() -> DataFusionError {
    Error::data("the file is not sound: its parts contradict each other").with_hint("write the file again, or remove it").into()
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use nexus_flight_catalog::{Error, Kind};

    use super::caught;

    #[tokio::test]
    async fn a_reader_that_panics_has_met_bad_data() {
        let reader = stream::poll_fn(|_| panic!("decoder for dict should have been set"));
        let said: Vec<_> = caught(reader).collect().await;
        assert_eq!(said.len(), 1);
        for batch in said {
            assert_eq!(Error::from(batch.unwrap_err()).kind(), Kind::Data);
        }
    }
}
