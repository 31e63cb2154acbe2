//! The footers of Parquet files: read once for each state of a file, then kept within a bound.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::error::Result as DataFusionResult;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, MetadataFetch};
use parquet::basic::{LogicalType, Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;

use super::store::PinnedStore;

/// How much of a file's end is read at first: most footers fit.
const TAIL: usize = 64 * 1024;
/// The memory that the footers of one source may take.
const KEPT: u64 = 64 * 1024 * 1024;

/// One state of one file.
#[derive(PartialEq, Eq, Hash)]
struct FileState {
    path: Path,
    size: u64,
    modified: i64,
    e_tag: Option<String>,
}

impl FileState {
    fn of(meta: &ObjectMeta) -> Self {
        let modified = meta.last_modified.timestamp_nanos_opt().unwrap_or_default();
        Self { path: meta.location.clone(), size: meta.size, modified, e_tag: meta.e_tag.clone() }
    }
}

/// The footers that a source has read.
#[derive(Clone)]
pub(super) struct Footers(moka::future::Cache<FileState, Arc<ParquetMetaData>>);

impl Footers {
    pub(super) fn new() -> Self {
        let weigh = |_: &FileState, footer: &Arc<ParquetMetaData>| u32::try_from(footer.memory_size()).unwrap_or(u32::MAX);
        Self(moka::future::Cache::builder().max_capacity(KEPT).weigher(weigh).build())
    }

    /// The footer of a file, with its page index where there is one.
    pub(super) async fn read(&self, store: &Arc<PinnedStore>, meta: &ObjectMeta) -> Result<Arc<ParquetMetaData>> {
        let key = FileState::of(meta);
        if let Some(footer) = self.0.get(&key).await {
            return Ok(footer);
        }
        let fetch = Fetch { store: Arc::clone(store), path: meta.location.clone() };
        let reader =
            ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional).with_prefetch_hint(Some(TAIL));
        let footer = Arc::new(without_float_bounds(reader.load_and_finish(fetch, meta.size).await?)?);
        self.0.insert(key, Arc::clone(&footer)).await;
        Ok(footer)
    }
}

/// Writers leave NaN out of the bounds of a column (Parquet format, `ColumnOrder`), and in SQL it is the largest of all: by
/// these bounds rows would be left out that are wanted.
fn without_float_bounds(footer: ParquetMetaData) -> Result<ParquetMetaData> {
    let is_float = |column: &ColumnChunkMetaData| {
        matches!(column.column_type(), Type::FLOAT | Type::DOUBLE)
            || matches!(column.column_descr().logical_type_ref(), Some(LogicalType::Float16))
    };
    let floats = |group: &RowGroupMetaData| group.columns().iter().map(is_float).collect::<Vec<bool>>();
    let Some(floats) = footer.row_groups().first().map(floats).filter(|floats| floats.contains(&true)) else { return Ok(footer) };
    let mut builder = footer.into_builder();
    let groups = builder.take_row_groups().into_iter().map(|group| {
        let columns = group.columns().iter().zip(&floats).map(|(column, float)| match float {
            true => column.clone().into_builder().clear_statistics().build(),
            false => Ok(column.clone()),
        });
        let columns = columns.collect::<Result<_>>()?;
        group.into_builder().set_column_metadata(columns).build()
    });
    let groups = groups.collect::<Result<_>>()?;
    let index = builder.take_column_index().map(|mut index| {
        for group in &mut index {
            group
                .iter_mut()
                .zip(&floats)
                .filter(|(_, float)| **float)
                .for_each(|(column, _)| *column = ColumnIndexMetaData::NONE);
        }
        index
    });
    Ok(builder.set_row_groups(groups).set_column_index(index).build())
}

impl fmt::Debug for Footers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Footers({})", self.0.entry_count())
    }
}

struct Fetch {
    store: Arc<PinnedStore>,
    path: Path,
}

impl MetadataFetch for Fetch {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move { Ok(self.store.get_range(&self.path, range).await?) }.boxed()
    }
}

/// Gives DataFusion's Parquet reader the files of one listing with the footers already known.
#[derive(Debug)]
pub(super) struct Readers {
    pub(super) store: Arc<PinnedStore>,
    pub(super) footers: Footers,
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        _tail: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> DataFusionResult<Box<dyn AsyncFileReader + Send>> {
        let metrics = ParquetFileMetrics::new(partition, file.object_meta.location.as_ref(), metrics);
        let (store, footers) = (Arc::clone(&self.store), self.footers.clone());
        Ok(Box::new(Reader { store, footers, meta: file.object_meta, metrics }))
    }
}

struct Reader {
    store: Arc<PinnedStore>,
    footers: Footers,
    meta: ObjectMeta,
    metrics: ParquetFileMetrics,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            let mut bytes = self.get_byte_ranges(vec![range]).await?;
            bytes.pop().ok_or_else(|| ParquetError::General("no bytes were read".to_owned()))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        let bytes: u64 = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        self.metrics.bytes_scanned.add(bytes as usize);
        async move { Ok(self.store.get_ranges(&self.meta.location, &ranges).await?) }.boxed()
    }

    fn get_metadata<'a>(&'a mut self, _options: Option<&'a ArrowReaderOptions>) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        self.footers.read(&self.store, &self.meta).boxed()
    }
}
