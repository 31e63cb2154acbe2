//! The footers of Parquet files: read once for each state of a file, then kept within a bound.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock, OnceLock};

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

use super::lists::{look_through, look_through_bounds, look_through_places};
use super::pinned::{PinnedStore, Seen};

/// How much of a file's end is read at first: most footers fit.
const TAIL: usize = 64 * 1024;
/// The most bytes of a footer, or of a page index.
const LARGEST: u64 = 256 * 1024 * 1024;
/// The memory that the footers of one source may take.
const KEPT: u64 = 64 * 1024 * 1024;

/// Changes the footers of files before anybody sees them.
pub(crate) trait Rewrite: fmt::Debug + Send + Sync {
    /// Footers are kept under it: what has the same key changes all footers alike.
    fn key(&self) -> u64;

    /// The changed footer, or none where it stays as it is. Errors: what is wrong with the file, without its place.
    fn rewrite(&self, footer: &ParquetMetaData) -> nexus_flight_catalog::Result<Option<ParquetMetaData>>;
}

/// One state of one file, and how its footer is changed.
#[derive(PartialEq, Eq, Hash)]
struct FileState {
    /// For whom it was read.
    of: Arc<str>,
    path: Path,
    size: u64,
    modified: i64,
    e_tag: Option<String>,
    rewrite: Option<u64>,
}

impl FileState {
    fn new(of: &Arc<str>, meta: &ObjectMeta, rewrite: Option<&dyn Rewrite>) -> Self {
        let modified = meta.last_modified.timestamp_nanos_opt().unwrap_or_default();
        let (of, path, e_tag) = (Arc::clone(of), meta.location.clone(), meta.e_tag.clone());
        Self { of, path, size: meta.size, modified, e_tag, rewrite: rewrite.map(|rewrite| rewrite.key()) }
    }
}

/// The footers that a source has read, with what was seen of files that are known by their sizes: a file of the same size may come to
/// stand in the place of one that nobody should replace, and the store tells that with the first bytes of it that are read.
#[derive(Clone)]
pub(crate) struct Footers {
    kept: Arc<LazyLock<Kept>>,
    /// For whom they are read: what was read with the keys of one is nothing that another has seen.
    of: Arc<str>,
}

/// It takes memory with nothing in it too, and most catalogs are never asked.
type Kept = moka::future::Cache<FileState, Footer>;

type Footer = (Arc<ParquetMetaData>, Option<Seen>);

impl Footers {
    pub(crate) fn new() -> Self {
        let kept: LazyLock<Kept> = LazyLock::new(|| {
            let weigh = |_: &FileState, (footer, _): &Footer| u32::try_from(footer.memory_size()).unwrap_or(u32::MAX);
            Kept::builder().max_capacity(KEPT).weigher(weigh).build()
        });
        Self { kept: Arc::new(kept), of: Arc::default() }
    }

    /// The same room for who reads with other keys.
    pub(crate) fn under(&self, of: &Arc<str>) -> Self {
        Self { kept: Arc::clone(&self.kept), of: Arc::clone(of) }
    }

    /// The footer of a file, with its page index where there is one, and changed if that is wanted. An error of the change is the
    /// cause of the one that comes back.
    pub(crate) async fn read(
        &self,
        store: &Arc<PinnedStore>,
        meta: &ObjectMeta,
        rewrite: Option<&dyn Rewrite>,
    ) -> Result<Arc<ParquetMetaData>> {
        let key = FileState::new(&self.of, meta, rewrite);
        if let Some((footer, seen)) = self.kept.get(&key).await {
            if let Some(seen) = seen {
                store.expect(&meta.location, seen)?;
            }
            return Ok(footer);
        }
        let footer = without_float_bounds(fetched(store, meta).await?)?;
        let changed = rewrite.map_or(Ok(None), |rewrite| rewrite.rewrite(&footer));
        let changed = changed.map_err(|error| ParquetError::External(Box::new(error)))?;
        let footer = Arc::new(changed.unwrap_or(footer));
        self.kept.insert(key, (Arc::clone(&footer), store.seen(&meta.location))).await;
        Ok(footer)
    }

    /// The footer is not that of the file that is there.
    async fn forget(&self, meta: &ObjectMeta, rewrite: Option<&dyn Rewrite>) {
        self.kept.invalidate(&FileState::new(&self.of, meta, rewrite)).await;
    }
}

/// Looks at the footer of a file, as it is now, that somebody else decodes. Errors: where it says what cannot be.
pub(crate) async fn look_at_footer(store: &Arc<PinnedStore>, meta: &ObjectMeta) -> Result<()> {
    fetched(store, meta).await.map(drop)
}

/// The footer of a file with its page index.
async fn fetched(store: &Arc<PinnedStore>, meta: &ObjectMeta) -> Result<ParquetMetaData> {
    let fetch = Fetch { store: Arc::clone(store), path: meta.location.clone(), size: meta.size, first: Arc::default() };
    let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(TAIL));
    let footer = reader.load_and_finish(fetch.clone(), meta.size).await?;
    with_page_index(footer, fetch).await
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
        write!(f, "Footers({})", self.kept.entry_count())
    }
}

/// What looks through a part of the page index.
type Look = fn(&[u8]) -> std::result::Result<(), &'static str>;

/// Where the parts of the page index of a file are, of which each column of each group of rows may have two.
fn parts_of_index(footer: &ParquetMetaData) -> Vec<(Range<u64>, Look)> {
    let range = |offset: Option<i64>, length: Option<i32>| {
        let (offset, length) = (u64::try_from(offset?).ok()?, u64::try_from(length?).ok()?);
        Some(offset..offset.saturating_add(length))
    };
    let mut parts = Vec::new();
    for column in footer.row_groups().iter().flat_map(RowGroupMetaData::columns) {
        let bounds = range(column.column_index_offset(), column.column_index_length());
        let places = range(column.offset_index_offset(), column.offset_index_length());
        parts.extend(bounds.map(|range| (range, look_through_bounds as Look)));
        parts.extend(places.map(|range| (range, look_through_places as Look)));
    }
    parts
}

/// The footer with the page index, where the file has one. Errors: where that says what cannot be. To leave it out would not help:
/// DataFusion reads one that it misses.
async fn with_page_index(footer: ParquetMetaData, mut fetch: Fetch) -> Result<ParquetMetaData> {
    let parts = parts_of_index(&footer);
    let ranges = || parts.iter().map(|(range, _)| range);
    let (Some(start), Some(end)) = (ranges().map(|range| range.start).min(), ranges().map(|range| range.end).max()) else {
        return Ok(footer);
    };
    let unsound = |why: &str| ParquetError::General(format!("the page index of the file is not sound: {why}"));
    // What is of several columns would be decoded as often.
    let all = ranges().fold(0_u64, |all, range| all.saturating_add(range.end - range.start));
    if end > fetch.size || all > end - start {
        return Err(unsound("its parts are within each other, or beyond the end of the file"));
    }
    let index = Held { start, bytes: fetch.again(start..end).await? };
    for (range, look) in &parts {
        let part = index.part(range).ok_or_else(|| unsound("it is cut"))?;
        look(&part).map_err(unsound)?;
    }
    let mut reader = ParquetMetaDataReader::new_with_metadata(footer).with_page_index_policy(PageIndexPolicy::Optional);
    reader.load_page_index(index).await?;
    reader.finish()
}

/// Errors: what the footer of a whole file says that cannot be.
#[cfg(feature = "hudi")]
pub(crate) fn look_through_file(file: &[u8]) -> std::result::Result<(), &'static str> {
    footer_in(file, 0).map_or(Ok(()), look_through)
}

/// Bytes of a file that are read already.
struct Held {
    /// Where they begin in it.
    start: u64,
    bytes: Bytes,
}

impl Held {
    /// Those of a range, where they are all there.
    fn part(&self, range: &Range<u64>) -> Option<Bytes> {
        let place = |at: u64| usize::try_from(at.checked_sub(self.start)?).ok();
        let (from, to) = (place(range.start)?, place(range.end)?);
        (from <= to && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

impl MetadataFetch for Held {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        let part = self.part(&range).ok_or_else(|| ParquetError::General("more of the file is wanted than was read".to_owned()));
        async move { part }.boxed()
    }
}

#[derive(Clone)]
struct Fetch {
    store: Arc<PinnedStore>,
    path: Path,
    size: u64,
    /// What was read first: the end of the file, in which there may be all that is wanted.
    first: Arc<OnceLock<Held>>,
}

impl Fetch {
    /// The bytes of a range, which may have been read already.
    async fn again(&mut self, range: Range<u64>) -> Result<Bytes> {
        let held = self.first.get().and_then(|first| first.part(&range));
        match held {
            Some(bytes) => Ok(bytes),
            None => self.fetch(range).await,
        }
    }
}

impl MetadataFetch for Fetch {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            // The file may be as large without taking any place.
            if range.end.saturating_sub(range.start) > LARGEST {
                return Err(ParquetError::General(format!("the footer of the file has more than {LARGEST} bytes")));
            }
            let bytes = self.store.get_range(&self.path, range.clone()).await?;
            if let Some(footer) = footer_in(&bytes, self.size.saturating_sub(range.end)) {
                let refused = |why| ParquetError::General(format!("the footer of the file is not sound: {why}"));
                look_through(footer).map_err(refused)?;
            }
            self.first.get_or_init(|| Held { start: range.start, bytes: bytes.clone() });
            Ok(bytes)
        }
        .boxed()
    }
}

/// The footer, where bytes that end so far before the end of the file hold it: with what stands behind it, or alone.
fn footer_in(bytes: &[u8], before: u64) -> Option<&[u8]> {
    match before {
        0 => {
            let (rest, [a, b, c, d, b'P', b'A', b'R', b'1']) = bytes.split_last_chunk::<8>()? else { return None };
            let length = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).ok()?;
            rest.get(rest.len().checked_sub(length)?..)
        }
        8 => Some(bytes),
        _ => None,
    }
}

/// Gives DataFusion's Parquet reader the files of one listing with the footers already known.
#[derive(Debug, Clone)]
pub(crate) struct Readers {
    pub(crate) store: Arc<PinnedStore>,
    pub(crate) footers: Footers,
    /// How footers are changed; none where they stay as they are.
    pub(crate) rewrite: Option<Arc<dyn Rewrite>>,
}

impl Readers {
    /// The footer of a file as DataFusion's reader sees it.
    pub(crate) async fn footer(&self, meta: &ObjectMeta) -> Result<Arc<ParquetMetaData>> {
        self.footers.read(&self.store, meta, self.rewrite.as_deref()).await
    }
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
        Ok(Box::new(Reader { of: self.clone(), meta: file.object_meta, metrics }))
    }
}

struct Reader {
    of: Readers,
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
        async move {
            let read = self.of.store.get_ranges(&self.meta.location, &ranges).await;
            if let Err(object_store::Error::Precondition { .. }) = &read {
                self.of.footers.forget(&self.meta, self.of.rewrite.as_deref()).await;
            }
            Ok(read?)
        }
        .boxed()
    }

    fn get_metadata<'a>(&'a mut self, _options: Option<&'a ArrowReaderOptions>) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        self.of.footer(&self.meta).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use arrow::array::{ArrayRef, Int32Array, RecordBatch};
    use nexus_flight_catalog::{Error, Kind};
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::{FileMetaData, ParquetMetaDataBuilder};

    use super::super::{Locate, Location, Store, immutable};
    use super::*;

    /// Says that the file was written by somebody, whose number is not 0.
    #[derive(Debug)]
    struct By(u64);

    impl Rewrite for By {
        fn key(&self) -> u64 {
            self.0
        }

        fn rewrite(&self, footer: &ParquetMetaData) -> nexus_flight_catalog::Result<Option<ParquetMetaData>> {
            let (file, writer) = (footer.file_metadata(), self.0.to_string());
            match self.0 {
                0 => Err(Error::unsupported("nobody wrote this")),
                _ => {
                    let file = FileMetaData::new(1, file.num_rows(), Some(writer), None, file.schema_descr_ptr(), None);
                    Ok(Some(ParquetMetaDataBuilder::new(file).build()))
                }
            }
        }
    }

    #[tokio::test]
    async fn a_footer_that_says_more_than_it_has_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open("c", &Location::Folder(folder.path().to_owned())).unwrap());
        // A list of row groups that would take all memory; with so much behind it that it is not in the first bytes that are read.
        let list = [0x49, 0xFC, 0xFF, 0xFF, 0xFF, 0xFF, 0x07];
        for more in [0, TAIL] {
            let length = u32::try_from(list.len() + more).unwrap().to_le_bytes();
            let file = [&b"PAR1"[..], &list[..], &vec![0; more][..], &length[..], &b"PAR1"[..]].concat();
            std::fs::write(folder.path().join("a.parquet"), &file).unwrap();
            let meta = immutable(Path::from("a.parquet"), file.len() as u64);
            let pinned = Arc::new(PinnedStore::immutable(Arc::clone(&store), [(meta.location.clone(), meta.size)]));
            let error = Footers::new().read(&pinned, &meta, None).await.unwrap_err();
            let wanted = "the footer of the file is not sound: a list in it has more items than there are bytes";
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }

    #[tokio::test]
    async fn a_footer_that_is_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open("c", &Location::Folder(folder.path().to_owned())).unwrap());
        // It is told at the end, and takes no place.
        let meta = immutable(Path::from("a.parquet"), LARGEST + 100);
        let end = [&u32::try_from(LARGEST + 1).unwrap().to_le_bytes()[..], &b"PAR1"[..]].concat();
        let file = std::fs::File::create(folder.path().join("a.parquet")).unwrap();
        file.write_all_at(&end, meta.size - 8).unwrap();
        let pinned = Arc::new(PinnedStore::immutable(store, [(meta.location.clone(), meta.size)]));
        let error = Footers::new().read(&pinned, &meta, None).await.unwrap_err();
        assert!(error.to_string().contains("the footer of the file has more than 268435456 bytes"), "{error}");
    }

    /// What is read of the footer of a file of these bytes.
    async fn read(bytes: &[u8]) -> Result<Arc<ParquetMetaData>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.parquet"), bytes).unwrap();
        let store = Arc::new(Store::open("c", &Location::Folder(folder.path().to_owned())).unwrap());
        let meta = immutable(Path::from("a.parquet"), bytes.len() as u64);
        let pinned = Arc::new(PinnedStore::immutable(store, [(meta.location.clone(), meta.size)]));
        Footers::new().read(&pinned, &meta, None).await
    }

    #[tokio::test]
    async fn a_page_index_that_says_more_than_it_has_is_refused() {
        let whole = written(1);
        let footer = read(&whole).await.unwrap();
        assert!(footer.column_index().is_some() && footer.offset_index().is_some());
        let column = footer.row_group(0).column(0);
        for place in [column.column_index_offset(), column.offset_index_offset()] {
            let (mut file, at) = (whole.clone(), usize::try_from(place.unwrap()).unwrap());
            // A list of pages that would take all memory.
            file[at..at + 7].copy_from_slice(&[0x19, 0xFC, 0xFF, 0xFF, 0xFF, 0xFF, 0x07]);
            let error = read(&file).await.unwrap_err();
            let wanted = "the page index of the file is not sound: a list in it has more items than there are bytes";
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }

    #[tokio::test]
    async fn a_page_index_of_which_a_part_stands_for_two_is_refused() {
        let whole = written(1);
        let footer = ParquetMetaDataReader::new().parse_and_finish(&Bytes::from(whole.clone())).unwrap();
        let mut builder = footer.into_builder();
        let groups = builder.take_row_groups().into_iter().map(|group| {
            let column = group.column(0).clone();
            let (offset, length) = (column.offset_index_offset(), column.offset_index_length());
            let column = column.into_builder().set_column_index_offset(offset).set_column_index_length(length).build().unwrap();
            group.into_builder().set_column_metadata(vec![column]).build().unwrap()
        });
        let groups = groups.collect();
        let footer = builder.set_row_groups(groups).build();
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open("c", &Location::Folder(folder.path().to_owned())).unwrap());
        let (path, size) = (Path::from("a.parquet"), whole.len() as u64);
        let pinned = Arc::new(PinnedStore::immutable(store, [(path.clone(), size)]));
        let fetch = Fetch { store: pinned, path, size, first: Arc::default() };
        let error = with_page_index(footer, fetch).await.unwrap_err();
        assert!(error.to_string().contains("its parts are within each other"), "{error}");
    }

    /// A file with this value.
    fn written(value: i32) -> Vec<u8> {
        let batch = RecordBatch::try_from_iter([("a", Arc::new(Int32Array::from(vec![value])) as ArrayRef)]).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    }

    #[tokio::test]
    async fn the_footer_of_a_file_that_was_replaced_by_one_of_the_same_size_is_not_taken_for_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a.parquet"), folder.path().join("b.parquet"));
        std::fs::write(&path, written(1)).unwrap();
        std::fs::write(&other, written(2)).unwrap();
        let size = path.metadata().unwrap().len();
        assert_eq!(size, other.metadata().unwrap().len());
        let store = Arc::new(Store::open("c", &Location::Folder(folder.path().to_owned())).unwrap());
        let (meta, footers) = (immutable(Path::from("a.parquet"), size), Footers::new());
        let reader = || {
            let store = Arc::new(PinnedStore::immutable(Arc::clone(&store), [(meta.location.clone(), size)]));
            let metrics = ParquetFileMetrics::new(0, "a.parquet", &ExecutionPlanMetricsSet::new());
            Reader { of: Readers { store, footers: footers.clone(), rewrite: None }, meta: meta.clone(), metrics }
        };
        let mut first = reader();
        let footer = first.get_metadata(None).await.unwrap();
        assert_eq!(first.get_bytes(0..4).await.unwrap(), &b"PAR1"[..]);
        std::fs::rename(&other, &path).unwrap();
        let mut second = reader();
        assert!(Arc::ptr_eq(&footer, &second.get_metadata(None).await.unwrap()));
        let error = second.get_bytes(0..4).await.unwrap_err();
        assert!(error.to_string().contains("it was replaced"), "{error}");
        // The next statement reads the file that is there, and the first one goes on with none of it.
        let mut third = reader();
        assert!(!Arc::ptr_eq(&footer, &third.get_metadata(None).await.unwrap()));
        assert_eq!(third.get_bytes(0..4).await.unwrap(), &b"PAR1"[..]);
        assert!(first.get_metadata(None).await.is_err());
    }

    #[tokio::test]
    async fn a_footer_is_kept_with_each_change() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = written(1);
        std::fs::write(folder.path().join("a.parquet"), &bytes).unwrap();

        let store = Arc::new(Store::open("c", &Location::Folder(folder.path().to_owned())).unwrap());
        let meta = immutable(Path::from("a.parquet"), bytes.len() as u64);
        let pinned = Arc::new(PinnedStore::immutable(Arc::clone(&store), [(meta.location.clone(), meta.size)]));
        let footers = Footers::new();
        let writer = async |by: u64| {
            let footer = footers.read(&pinned, &meta, Some(&By(by))).await.unwrap();
            footer.file_metadata().created_by().map(str::to_owned)
        };
        assert_eq!((writer(1).await, writer(2).await), (Some("1".to_owned()), Some("2".to_owned())));
        assert_eq!(writer(1).await, Some("1".to_owned()));
        let unchanged = footers.read(&pinned, &meta, None).await.unwrap();
        assert_eq!(unchanged.num_row_groups(), 1);
        let failed = footers.read(&pinned, &meta, Some(&By(0))).await.unwrap_err();
        let error = store.locate(failed.into(), &meta.location);
        assert_eq!((error.kind(), error.message()), (Kind::Unsupported, "nobody wrote this"));
        assert_eq!(error.place(), Some(&store.place(&meta.location)));
    }
}
