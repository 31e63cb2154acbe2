//! The files that the rows of a statement go into, one or more for each partition. They count once the metadata of the table
//! names them, and are removed where it never does.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use nexus_flight_catalog::Result;

use super::nans::Nans;
use crate::stores::{Made, Store, Upload, Uploaded};

/// About how large files become where the table does not say, in bytes.
pub(crate) const SIZE: usize = 512 * 1024 * 1024;
/// How many files are written side by side at most.
const OPEN: usize = 64;
/// The memory that they take at most, in bytes; and no more than half of what there is, since whoever makes the rows needs some.
const MEMORY: usize = 256 * 1024 * 1024;
/// Where there is no room for as much as this, a statement fails: its files would become very many and very small.
const LEAST: usize = 16 * 1024 * 1024;

/// How a format divides the rows of a table into files, and what its metadata says of each.
pub(crate) trait Writes {
    /// What the rows of a file have in common.
    type Partition: Clone + Eq + Hash;
    /// What metadata says of a file.
    type Told;

    /// The rows of each partition, as files hold them. Errors: those of rows that the table does not take.
    fn parts(&self, rows: &RecordBatch) -> Result<Vec<(Self::Partition, RecordBatch)>>;

    /// A new file of a partition, and how metadata names it.
    fn begin(&self, partition: &Self::Partition) -> Result<(Upload, String)>;

    /// What is said of a file of a partition that was begun under this name, now that it is there with so many NaN in its columns.
    fn told(&self, partition: &Self::Partition, name: &str, file: &Uploaded, nans: &Nans) -> Result<Self::Told>;
}

/// Takes rows and makes files of them. Left before its end, nothing of them stays.
pub(crate) struct Files<W: Writes> {
    store: Arc<Store>,
    writes: W,
    /// How large a file is at most, about.
    size: usize,
    open: HashMap<W::Partition, Open>,
    done: Vec<New<W::Told>>,
    /// What the open files take of the memory of the statement, and how much that may be.
    memory: MemoryReservation,
    most: usize,
}

struct Open {
    upload: Upload,
    name: String,
    nans: Nans,
}

/// A file that is there and that no metadata names. Dropped, it is removed, unless it was kept.
#[derive(Debug)]
pub(crate) struct New<T> {
    pub(crate) told: T,
    pub(crate) made: Made,
}

impl<W: Writes> Files<W> {
    /// In the store that the files are begun in, of about this size, with memory of this pool.
    pub(crate) fn new(store: &Arc<Store>, writes: W, size: usize, pool: &Arc<dyn MemoryPool>) -> Self {
        let most = match pool.memory_limit() {
            MemoryLimit::Finite(all) => (all / 2).clamp(LEAST, MEMORY),
            _ => MEMORY,
        };
        let memory = MemoryConsumer::new("new files").register(pool);
        Self { store: Arc::clone(store), writes, size, open: HashMap::new(), done: Vec::new(), memory, most }
    }

    /// Adds rows. Errors: those of rows that the table does not take, and of the store; `Exhausted` where there is no memory.
    pub(crate) async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        for (partition, rows) in self.writes.parts(rows)? {
            let mut open = match self.open.remove(&partition) {
                Some(open) => open,
                None => self.begin(&partition).await?,
            };
            open.nans.add(&rows);
            open.upload.write(&rows).await?;
            if open.upload.size() < self.size {
                self.open.insert(partition, open);
            } else {
                self.close(partition, open).await?;
            }
            self.fit().await?;
        }
        Ok(())
    }

    /// Ends the largest files until there is room for the others.
    async fn fit(&mut self) -> Result<()> {
        loop {
            let held = self.held();
            if held <= self.most {
                match self.memory.try_resize(held) {
                    Ok(()) => return Ok(()),
                    Err(cause) if held <= LEAST => return Err(cause.into()),
                    Err(_) => {}
                }
            }
            self.close_largest().await?;
        }
    }

    /// All files that were made.
    pub(crate) async fn finish(mut self) -> Result<Vec<New<W::Told>>> {
        while !self.open.is_empty() {
            self.close_largest().await?;
        }
        Ok(self.done)
    }

    // An upload cannot be looked at from two sides, so nothing that waits may share it.
    async fn begin(&mut self, partition: &W::Partition) -> Result<Open> {
        if self.open.len() >= OPEN {
            self.close_largest().await?;
        }
        let (upload, name) = self.writes.begin(partition)?;
        let path = upload.path().clone();
        self.store.stays_within(&path).await?;
        Ok(Open { upload, name, nans: Nans::default() })
    }

    async fn close_largest(&mut self) -> Result<()> {
        match self.take_largest() {
            Some((partition, open)) => self.close(partition, open).await,
            None => Ok(()),
        }
    }

    async fn close(&mut self, partition: W::Partition, open: Open) -> Result<()> {
        let (file, made) = open.upload.close_for_now().await?;
        let told = self.writes.told(&partition, &open.name, &file, &open.nans)?;
        self.done.push(New { told, made });
        Ok(())
    }

    fn take_largest(&mut self) -> Option<(W::Partition, Open)> {
        let largest = self.open.iter().max_by_key(|(_, open)| open.upload.held()).map(|(partition, _)| partition.clone())?;
        self.open.remove_entry(&largest)
    }

    fn held(&self) -> usize {
        self.open.values().map(|open| open.upload.held()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};
    use futures::FutureExt;
    use nexus_flight_catalog::Kind;
    use object_store::path::Path;
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;
    use crate::stores::Location;

    /// Files of one number each.
    struct Numbers(Arc<Store>);

    impl Writes for Numbers {
        type Partition = i64;
        type Told = (i64, i64);

        fn parts(&self, rows: &RecordBatch) -> Result<Vec<(i64, RecordBatch)>> {
            let numbers = rows.column(0).as_primitive::<Int64Type>().values();
            Ok(numbers.iter().enumerate().map(|(place, number)| (*number, rows.slice(place, 1))).collect())
        }

        fn begin(&self, number: &i64) -> Result<(Upload, String)> {
            let name = format!("t/{number}-{}.parquet", Uuid::new_v4());
            Ok((Upload::begin(&self.0, Path::from(name.as_str()), rows(vec![]).schema())?, name))
        }

        /// The number, and how often it is there.
        fn told(&self, number: &i64, name: &str, file: &Uploaded, _: &Nans) -> Result<(i64, i64)> {
            assert!(name.starts_with(&format!("t/{number}-")));
            Ok((*number, file.footer.file_metadata().num_rows()))
        }
    }

    fn rows(numbers: Vec<i64>) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from(numbers));
        RecordBatch::try_from_iter([("n", numbers)]).unwrap()
    }

    fn files(size: usize) -> (TempDir, Arc<Store>, Files<Numbers>) {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        files_within(size, &pool)
    }

    fn files_within(size: usize, pool: &Arc<dyn MemoryPool>) -> (TempDir, Arc<Store>, Files<Numbers>) {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open("lake", &Location::Folder(folder.path().to_owned())).unwrap());
        let files = Files::new(&store, Numbers(Arc::clone(&store)), size, pool);
        (folder, store, files)
    }

    /// How many files there are once nobody has the store any more.
    async fn left(folder: &TempDir, store: &Arc<Store>) -> usize {
        let ended = async {
            while Arc::strong_count(store) > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
        there(folder)
    }

    fn there(folder: &TempDir) -> usize {
        std::fs::read_dir(folder.path().join("t")).map_or(0, Iterator::count)
    }

    #[tokio::test]
    async fn each_partition_has_a_file_and_not_all_at_once() {
        let (_folder, _store, mut files) = files(SIZE);
        files.write(&rows((0..70).collect())).await.unwrap();
        assert_eq!((files.open.len(), files.done.len()), (OPEN, 6));
        files.write(&rows(vec![69, 69])).await.unwrap();
        files.write(&rows(vec![])).await.unwrap();
        let made = files.finish().await.unwrap();
        let mut told: Vec<(i64, i64)> = made.iter().map(|new| new.told).collect();
        told.sort_unstable();
        let expected: Vec<(i64, i64)> = (0..70).map(|number| (number, if number == 69 { 3 } else { 1 })).collect();
        assert_eq!(told, expected);
    }

    #[tokio::test]
    async fn a_file_ends_at_its_size() {
        let (_folder, _store, mut files) = files(1);
        files.write(&rows(vec![1, 1])).await.unwrap();
        let made = files.finish().await.unwrap();
        assert_eq!(made.iter().map(|new| new.told).collect::<Vec<_>>(), [(1, 1), (1, 1)]);
    }

    #[tokio::test]
    async fn open_files_take_from_the_memory_of_the_statement() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(LEAST));
        let (_folder, _store, mut files) = files_within(SIZE, &pool);
        files.write(&rows(vec![1, 2])).await.unwrap();
        assert!(pool.reserved() > 0);
        assert_eq!(pool.reserved(), files.held());
        files.finish().await.unwrap();
        assert_eq!(pool.reserved(), 0);
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1));
        let (folder, store, mut files) = files_within(SIZE, &pool);
        assert_eq!(files.write(&rows(vec![1, 2])).await.unwrap_err().kind(), Kind::Exhausted);
        drop(files);
        assert_eq!(left(&folder, &store).await, 0);
    }

    #[tokio::test]
    async fn what_is_not_kept_is_removed() {
        let (folder, store, mut files) = files(SIZE);
        files.write(&rows(vec![1, 2, 3])).await.unwrap();
        let mut made = files.finish().await.unwrap();
        assert_eq!(there(&folder), 3);
        made[0].made.keep();
        drop(made);
        assert_eq!(left(&folder, &store).await, 1);
    }

    #[tokio::test]
    async fn a_file_that_nobody_waits_for_is_removed() {
        let (folder, store, mut files) = files(SIZE);
        files.write(&rows(vec![1])).await.unwrap();
        assert!(files.finish().now_or_never().is_none());
        assert_eq!(left(&folder, &store).await, 0);
    }
}
