//! Deletes that name rows by their places: Iceberg's files of position deletes, and its deletion vectors.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use async_trait::async_trait;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
use futures::stream::{self, TryStreamExt};
use futures::{FutureExt, StreamExt};
use nexus_flight_catalog::{Error, Result};
use object_store::ObjectStore;
use object_store::path::Path;
use roaring::RoaringTreemap;

use super::kept::{EACH, Set, memory};
use super::{Column, Columns, DataFile, Deletes, Lake, deletion_vector, rows};
use crate::stores::PinnedStore;

/// Files of deletes that are read at the same time for one data file.
pub(super) const AT_ONCE: usize = 8;

/// The reserved field ids of the columns of a file of position deletes.
const FILE_PATH: i32 = 2_147_483_546;
const POS: i32 = 2_147_483_545;

/// A file that says which rows of data files are deleted. It is written once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct DeleteFile {
    /// Where it is in the store.
    pub(crate) path: Path,
    /// Its bytes.
    pub(crate) size: u64,
}

impl DeleteFile {
    /// What is in it makes no sense.
    pub(super) fn unsound(&self, lake: &Lake, what: impl Into<String>) -> Error {
        let error = Error::data(what).with_hint("restore the file, or write the table's deletes again");
        error.at(lake.store.place(&self.path))
    }

    /// Errors: `Data` where a place that this says is deleted is beyond the rows of the data file.
    fn within(&self, lake: &Lake, set: &RoaringTreemap, file: &DataFile) -> Result<()> {
        match (file.rows, set.max()) {
            (Some(rows), Some(last)) if last >= rows => {
                Err(self.unsound(lake, format!("row {last} of {} is deleted, and it has {rows} rows", file.name)))
            }
            _ => Ok(()),
        }
    }
}

/// The deletes of a list from some place on. Files of rows that are older have more of the same list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tail<T> {
    all: Arc<[T]>,
    from: usize,
}

impl<T> Tail<T> {
    /// Nothing where the list ends before that place.
    pub(crate) fn new(all: Arc<[T]>, from: usize) -> Self {
        Self { all, from }
    }
}

impl<T> Deref for Tail<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.all.get(self.from..).unwrap_or_default()
    }
}

impl<T> From<Vec<T>> for Tail<T> {
    fn from(all: Vec<T>) -> Self {
        Self::new(all.into(), 0)
    }
}

/// What a file of position deletes says: the deleted places in each data file, by the name that it has in the table's metadata.
pub(super) type Named = HashMap<String, Arc<RoaringTreemap>>;

/// The rows that files of position deletes name. One of these serves all data files that the same files apply to.
#[derive(Debug)]
pub(crate) struct Positions {
    lake: Arc<Lake>,
    files: Tail<DeleteFile>,
}

impl Positions {
    /// What these Parquet files delete; a file may name more data files than it is asked about.
    pub(crate) fn new(lake: Arc<Lake>, files: impl Into<Tail<DeleteFile>>) -> Self {
        Self { lake, files: files.into() }
    }
}

#[async_trait]
impl Deletes for Positions {
    async fn of(&self, file: &DataFile, pool: &Arc<dyn MemoryPool>) -> Result<Arc<RoaringTreemap>> {
        let read = |delete: &DeleteFile| named(Arc::clone(&self.lake), delete.clone(), Arc::clone(pool)).boxed();
        let reads: Vec<_> = self.files.iter().map(read).collect();
        let mut reads = stream::iter(reads).buffered(AT_ONCE);
        let mut sets = Vec::new();
        while let Some((delete, named)) = reads.try_next().await? {
            if let Some(set) = named.get(&file.name) {
                delete.within(&self.lake, set, file)?;
                sets.push(Arc::clone(set));
            }
        }
        Ok(union(sets))
    }
}

/// What a file of position deletes says, with the file; it is read where that is not kept.
async fn named(lake: Arc<Lake>, delete: DeleteFile, pool: Arc<dyn MemoryPool>) -> Result<(DeleteFile, Arc<Named>)> {
    let read = || read_named(Arc::clone(&lake), delete.clone(), Arc::clone(&pool));
    let named = lake.kept.positions.get(delete.clone(), read).await?;
    Ok((delete, named))
}

async fn read_named(lake: Arc<Lake>, delete: DeleteFile, pool: Arc<dyn MemoryPool>) -> Result<Arc<Named>> {
    let fields = [("file_path", FILE_PATH, DataType::Utf8), ("pos", POS, DataType::Int64)];
    let columns = fields.iter().map(|(name, id, _)| Column {
        name: (*name).to_owned(),
        id: Some(*id),
        aliases: vec![(*name).to_owned()],
        fields: Vec::new(),
    });
    let columns = Columns::new(columns.collect());
    let fields: Vec<Field> = fields.into_iter().map(|(name, _, data_type)| Field::new(name, data_type, true)).collect();
    let held = MemoryConsumer::new("deletes").register(&pool);
    // Each set with the memory that it has been charged for.
    let mut found: HashMap<String, (RoaringTreemap, usize)> = HashMap::new();
    let mut batches = rows(&lake, &delete.path, delete.size, Arc::new(Schema::new(fields)), &columns).await?;
    while let Some(batch) = batches.try_next().await? {
        let names = batch.column(0).as_string::<i32>();
        let places = batch.column(1).as_primitive::<Int64Type>();
        if names.null_count() > 0 || places.null_count() > 0 {
            return Err(delete.unsound(&lake, "a position delete lacks its file or its place"));
        }
        if let Some(place) = places.values().iter().find(|place| **place < 0) {
            return Err(delete.unsound(&lake, format!("a position delete has the place {place}")));
        }
        let mut touched: HashSet<&str> = HashSet::new();
        let mut rest = places.values().iter().zip(names.iter().flatten()).peekable();
        while let Some((_, name)) = rest.peek().copied() {
            touched.insert(name);
            // The rows of one data file follow each other.
            let run = std::iter::from_fn(|| rest.next_if(|(_, next)| *next == name));
            let (set, _) = found.entry(name.to_owned()).or_default();
            set.extend(run.map(|(place, _)| *place as u64));
        }
        for name in touched {
            if let Some((set, charged)) = found.get_mut(name) {
                let now = name.len() + EACH + memory(set);
                held.try_grow(now.saturating_sub(*charged))?;
                *charged = now.max(*charged);
            }
        }
    }
    Ok(Arc::new(found.into_iter().map(|(name, (set, _))| (name, Arc::new(set))).collect()))
}

/// All that any of several says is deleted.
#[derive(Debug)]
pub(crate) struct All(Vec<Arc<dyn Deletes>>);

impl All {
    /// The union of these.
    pub(crate) fn new(all: Vec<Arc<dyn Deletes>>) -> Self {
        Self(all)
    }
}

#[async_trait]
impl Deletes for All {
    async fn of(&self, file: &DataFile, pool: &Arc<dyn MemoryPool>) -> Result<Arc<RoaringTreemap>> {
        let mut sets = Vec::new();
        for deletes in &self.0 {
            sets.push(deletes.of(file, pool).await?);
        }
        Ok(union(sets))
    }
}

/// One set where there is one, without a copy.
fn union(sets: Vec<Arc<RoaringTreemap>>) -> Arc<RoaringTreemap> {
    let mut sets = sets.into_iter().filter(|set| !set.is_empty());
    let mut all = sets.next().unwrap_or_default();
    for set in sets {
        *Arc::make_mut(&mut all) |= &*set;
    }
    all
}

/// The rows of one data file that a deletion vector names, which is a part of a Puffin file.
#[derive(Debug)]
pub(crate) struct Vector {
    lake: Arc<Lake>,
    file: DeleteFile,
    offset: u64,
    length: u64,
    cardinality: u64,
}

impl Vector {
    /// The vector in the Puffin file of `size` bytes at `path`, which has `length` bytes from `offset` on, and names as many rows
    /// as `cardinality` says.
    pub(crate) fn new(lake: Arc<Lake>, path: Path, size: u64, offset: u64, length: u64, cardinality: u64) -> Self {
        Self { lake, file: DeleteFile { path, size }, offset, length, cardinality }
    }
}

#[async_trait]
impl Deletes for Vector {
    async fn of(&self, file: &DataFile, pool: &Arc<dyn MemoryPool>) -> Result<Arc<RoaringTreemap>> {
        let Self { lake, file: puffin, offset, length, cardinality } = self;
        let key = Set::Vector { file: puffin.clone(), offset: *offset, length: *length };
        let read = || read_vector(Arc::clone(lake), puffin.clone(), *offset, *length, Arc::clone(pool));
        let set = lake.kept.sets.get(key, read).await?;
        if set.len() != *cardinality {
            let message = format!("a deletion vector names {} rows, and the table's metadata says {cardinality}", set.len());
            return Err(puffin.unsound(lake, message));
        }
        puffin.within(lake, &set, file)?;
        Ok(set)
    }
}

async fn read_vector(
    lake: Arc<Lake>,
    puffin: DeleteFile,
    offset: u64,
    length: u64,
    pool: Arc<dyn MemoryPool>,
) -> Result<Arc<RoaringTreemap>> {
    let Some(end) = offset.checked_add(length).filter(|end| *end <= puffin.size) else {
        let size = puffin.size;
        let message = format!("a deletion vector of {length} bytes is said to begin at {offset}, and the file has {size}");
        return Err(puffin.unsound(&lake, message));
    };
    lake.store.stays_within(&puffin.path).await?;
    let held = MemoryConsumer::new("deletes").register(&pool);
    held.try_grow(usize::try_from(length).unwrap_or(usize::MAX))?;
    // It reads nothing before it has seen that the file is as long as it is said to be.
    let pinned = PinnedStore::immutable(Arc::clone(&lake.store), [(puffin.path.clone(), puffin.size)]);
    let range = offset..end;
    let read = pinned.get_ranges(&puffin.path, &[range]).await;
    let bytes = read.map_err(|cause| lake.failure(&cause, &puffin.path))?.pop().unwrap_or_default();
    let set = deletion_vector(&bytes).map_err(|error| error.at(lake.store.place(&puffin.path)))?;
    held.try_grow(memory(&set))?;
    Ok(Arc::new(set))
}

#[cfg(test)]
pub(super) mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use datafusion::execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};
    use nexus_flight_catalog::Kind;
    use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY};
    use parquet::file::properties::WriterProperties;
    use tempfile::TempDir;

    use super::super::vector::tests::blob;
    use super::*;
    use crate::stores::{Location, Store};

    /// A lake over a folder.
    pub(in crate::lake) fn lake(folder: &TempDir) -> Arc<Lake> {
        let location = Location::Folder(folder.path().to_owned());
        Arc::new(Lake::new(Arc::new(Store::open("lake", &location).unwrap()), &location))
    }

    /// A Parquet file of columns with field ids.
    pub(in crate::lake) fn written(folder: &TempDir, name: &str, columns: &[(&str, i32, ArrayRef)]) -> DeleteFile {
        let field = |(name, id, array): &(&str, i32, ArrayRef)| {
            let id = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]);
            Field::new(*name, array.data_type().clone(), true).with_metadata(id)
        };
        let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let arrays = columns.iter().map(|(_, _, array)| Arc::clone(array)).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap();
        let path = folder.path().join(name);
        // A dictionary takes 0.0 and -0.0 for one value at times.
        let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        DeleteFile { path: Path::from(name), size: path.metadata().unwrap().len() }
    }

    /// A data file of which the name and the number of rows are known.
    pub(in crate::lake) fn data(name: &str, size: u64, rows: u64) -> DataFile {
        DataFile {
            path: Path::from(name),
            name: name.to_owned(),
            size,
            rows: Some(rows),
            deleted: None,
            constants: Vec::new(),
            deletes: None,
        }
    }

    /// A pool with room for all.
    pub(in crate::lake) fn unbounded() -> Arc<dyn MemoryPool> {
        Arc::new(UnboundedMemoryPool::default())
    }

    fn deletes(folder: &TempDir, name: &str, rows: &[(Option<&str>, Option<i64>)]) -> DeleteFile {
        let names: ArrayRef = Arc::new(rows.iter().map(|(name, _)| *name).collect::<StringArray>());
        let places: ArrayRef = Arc::new(rows.iter().map(|(_, place)| *place).collect::<Int64Array>());
        written(folder, name, &[("file_path", FILE_PATH, names), ("pos", POS, places)])
    }

    async fn refusal(deletes: &dyn Deletes, file: &DataFile) -> String {
        let error = deletes.of(file, &unbounded()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Data, "{error}");
        assert!(error.place().is_some(), "{error}");
        error.message().to_owned()
    }

    #[tokio::test]
    async fn places_are_those_of_the_file_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let lake = lake(&folder);
        let many: Vec<_> = (0..20_000).map(|place| (Some("a"), Some(place * 2))).chain([(Some("名"), Some(7))]).collect();
        // Not in order, and one twice.
        let few = [("名", 3), ("a", 1), ("名", 3), ("a", 0)].map(|(name, place)| (Some(name), Some(place)));
        let files = vec![deletes(&folder, "1.parquet", &many), deletes(&folder, "2.parquet", &few)];
        let positions = Positions::new(lake, files);
        let pool = unbounded();
        let of = async |name: &str| positions.of(&data(name, 1, 50_000), &pool).await.unwrap();
        let a: RoaringTreemap = (0..20_000_u64).map(|place| place * 2).chain([1]).collect();
        assert_eq!(*of("a").await, a);
        assert_eq!(*of("名").await, RoaringTreemap::from([3_u64, 7]));
        assert!(of("b").await.is_empty());
        assert_eq!(pool.reserved(), 0);
        // They are read once.
        std::fs::remove_file(folder.path().join("1.parquet")).unwrap();
        assert_eq!(*of("a").await, a);
    }

    #[tokio::test]
    async fn places_that_no_row_has_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let lake = lake(&folder);
        let of = async |name: &str, row| {
            let positions = Positions::new(Arc::clone(&lake), vec![deletes(&folder, name, &[(Some("a"), Some(1)), row])]);
            refusal(&positions, &data("a", 1, 10)).await
        };
        let lacks = "a position delete lacks its file or its place";
        assert_eq!(of("1.parquet", (Some("a"), None)).await, lacks);
        assert_eq!(of("2.parquet", (None, Some(1))).await, lacks);
        assert_eq!(of("3.parquet", (Some("b"), Some(-1))).await, "a position delete has the place -1");
        assert_eq!(of("4.parquet", (Some("a"), Some(10))).await, "row 10 of a is deleted, and it has 10 rows");
        let gone = DeleteFile { path: Path::from("gone.parquet"), size: 100 };
        refusal(&Positions::new(lake, vec![gone]), &data("a", 1, 10)).await;
    }

    #[tokio::test]
    async fn what_finds_no_memory_is_read_when_there_is_some() {
        let folder = tempfile::tempdir().unwrap();
        let positions = Positions::new(lake(&folder), vec![deletes(&folder, "1.parquet", &[(Some("a"), Some(1))])]);
        let little: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100));
        let error = positions.of(&data("a", 1, 10), &little).await.unwrap_err();
        assert_eq!((error.kind(), little.reserved()), (Kind::Exhausted, 0));
        assert_eq!(positions.of(&data("a", 1, 10), &unbounded()).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_vector_is_a_part_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let lake = lake(&folder);
        let set = RoaringTreemap::from([1_u64, 3, 9]);
        let vector = blob(&set);
        let bytes = [&b"PFA1"[..], &vector[..], &b"the rest"[..]].concat();
        std::fs::write(folder.path().join("a.puffin"), &bytes).unwrap();
        let (size, length) = (bytes.len() as u64, vector.len() as u64);
        let of = |size, offset, length, rows| Vector::new(Arc::clone(&lake), Path::from("a.puffin"), size, offset, length, rows);
        let file = data("a", 1, 10);
        assert_eq!(*of(size, 4, length, 3).of(&file, &unbounded()).await.unwrap(), set);
        let positions = Positions::new(Arc::clone(&lake), vec![deletes(&folder, "1.parquet", &[(Some("a"), Some(0))])]);
        let all = All::new(vec![Arc::new(positions), Arc::new(of(size, 4, length, 3))]);
        assert_eq!(*all.of(&file, &unbounded()).await.unwrap(), RoaringTreemap::from([0_u64, 1, 3, 9]));
        // What is kept is not what the union was made in.
        assert_eq!(*of(size, 4, length, 3).of(&file, &unbounded()).await.unwrap(), set);
        let message = refusal(&of(size, 4, length, 4), &file).await;
        assert_eq!(message, "a deletion vector names 3 rows, and the table's metadata says 4");
        assert_eq!(refusal(&of(size, 4, length, 3), &data("a", 1, 9)).await, "row 9 of a is deleted, and it has 9 rows");
        let message = refusal(&of(size, 5, length, 3), &file).await;
        assert!(message.starts_with("the deletion vector is not sound: it says that it has "), "{message}");
        for (offset, length) in [(size, 1), (4, u64::MAX), (u64::MAX, 4)] {
            let message = refusal(&of(size, offset, length, 3), &file).await;
            assert!(message.starts_with("a deletion vector of "), "{message}");
        }
        let message = refusal(&of(size + 100, size, 50, 3), &file).await;
        assert_eq!(message, "this is not the file that the table's metadata names: its size differs");
    }
}
