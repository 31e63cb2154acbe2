//! Errors of a scan with the file they come from: a wrapper around DataFusion's readers that changes nothing else.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use futures::{FutureExt, StreamExt};
use nexus_flight_catalog::{Error, Kind, Place};
use object_store::ObjectStore;
use object_store::path::Path;

use super::store::Store;

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
            return ours.copied().at(self.place(path));
        }
        let error = Error::from(error);
        let line = line(error.message());
        // Whatever else a reader says of a file is about what the file holds.
        let error = match error.kind() {
            Kind::Invalid | Kind::Internal | Kind::Unavailable => Error::data(error.message()).caused_by(error),
            _ => error,
        };
        error.at(Place::File { path: self.show(path), line })
    }
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

/// The line that a reader names: `… for line 5, expected …`, `… at line 5. Row data …`.
fn line(message: &str) -> Option<u64> {
    let (_, after) = message.split_once(" line ")?;
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    after.get(..digits)?.parse().ok()
}

/// A reader of files whose errors say which file they come from.
#[derive(Clone)]
pub(super) struct Located {
    pub(super) inner: Arc<dyn FileSource>,
    pub(super) store: Arc<Store>,
    /// Whether parts of a file may be read side by side.
    pub(super) splits: bool,
}

impl Located {
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
        let inner = self.inner.create_file_opener(store, config, partition)?;
        Ok(Arc::new(LocatedOpener { inner, store: Arc::clone(&self.store) }))
    }

    /// The optimizer knows the inner reader, not the wrapper.
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }

    fn table_schema(&self) -> &TableSchema {
        self.inner.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        self.around(self.inner.with_batch_size(batch_size))
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
        self.splits && self.inner.supports_repartitioning()
    }

    fn repartitioned(
        &self,
        partitions: usize,
        least: usize,
        ordering: Option<LexOrdering>,
        config: &FileScanConfig,
    ) -> DataFusionResult<Option<FileScanConfig>> {
        // The configuration holds this wrapper, and what comes back is a copy of it.
        if self.splits { self.inner.repartitioned(partitions, least, ordering, config) } else { Ok(None) }
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

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> DataFusionResult<Option<Arc<dyn FileSource>>> {
        Ok(self.inner.try_pushdown_projection(projection)?.map(|inner| self.around(inner)))
    }
}

struct LocatedOpener {
    inner: Arc<dyn FileOpener>,
    store: Arc<Store>,
}

impl FileOpener for LocatedOpener {
    fn open(&self, file: PartitionedFile) -> DataFusionResult<FileOpenFuture> {
        let (store, path) = (Arc::clone(&self.store), file.object_meta.location.clone());
        let opening = self.inner.open(file).map_err(|error| store.locate(error, &path))?;
        Ok(async move {
            let batches = opening.await.map_err(|error| store.locate(error, &path))?;
            Ok(batches.map(move |batch| Ok(batch.map_err(|error| store.locate(error, &path))?)).boxed())
        }
        .boxed())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn readers_name_lines() {
        assert_eq!(super::line("incorrect number of fields for line 5, expected 2 got more than 2"), Some(5));
        assert_eq!(super::line("error while parsing value 'x' as type 'Int64' for column 1 at line 12. Row data: '[x]'"), Some(12));
        assert_eq!(super::line("there is a line here"), None);
    }
}
