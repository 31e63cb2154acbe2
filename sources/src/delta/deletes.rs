//! The rows that a deletion vector takes out of a file.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
use delta_kernel::actions::deletion_vector::{DeletionVectorDescriptor, DeletionVectorStorageType};
use nexus_flight_catalog::{Error, Result};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use percent_encoding::percent_decode_str;
use roaring::RoaringTreemap;
use url::Url;

use super::engine::{Kernel, ROOT, blocking};
use crate::lake::{DataFile, Deletes, Lake, deletion_vector};

/// The memory that the vectors of one catalog may take.
const KEPT: u64 = 64 * 1024 * 1024;
/// What stands around a vector in its file: its length before it, its checksum after it.
const AROUND: u64 = 8;
/// What a file of vectors begins with: the version of its format.
const VERSION: &[u8] = &[1];

/// The vectors that a catalog has read, by what names each in its log; a vector never changes.
pub(super) type Kept = moka::future::Cache<(Path, String), Arc<RoaringTreemap>>;

pub(super) fn kept() -> Kept {
    let weigh = |_: &(Path, String), rows: &Arc<RoaringTreemap>| u32::try_from(rows.serialized_size()).unwrap_or(u32::MAX);
    moka::future::Cache::builder().max_capacity(KEPT).weigher(weigh).build()
}

/// The deletion vector of one data file.
pub(super) struct Vector {
    lake: Arc<Lake>,
    kept: Kept,
    /// The table's folder.
    table: Path,
    /// The file that holds the vector; none where the log does.
    file: Option<Path>,
    /// The table's log.
    log: Path,
    descriptor: DeletionVectorDescriptor,
}

impl fmt::Debug for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vector({})", self.descriptor.unique_id())
    }
}

impl Vector {
    /// The vector that a table's log describes. Errors: `Data` where it says nothing sound, `Denied` where it leads out of the location.
    pub(super) fn new(
        kernel: &Kernel,
        kept: &Kept,
        table: &Path,
        log: &Path,
        descriptor: DeletionVectorDescriptor,
    ) -> Result<Self> {
        let lake = Arc::clone(kernel.lake());
        let begin = kernel.heard(Url::parse(ROOT).map_err(Into::into))?;
        let file = match descriptor.storage_type {
            DeletionVectorStorageType::Inline => None,
            DeletionVectorStorageType::PersistedRelative => {
                let address = kernel.heard(descriptor.absolute_path(&begin))?.unwrap_or(begin);
                // What stands before its name could be another address.
                let within = Some(address.path()).filter(|_| address.as_str().starts_with(ROOT));
                let within = within.and_then(|path| Path::from_url_path(path).ok());
                let within = within.ok_or_else(|| kernel.damaged("the name of a deletion vector is no path in the table"))?;
                Some(table.parts().chain(within.parts()).collect())
            }
            DeletionVectorStorageType::PersistedAbsolute => {
                let decoded = percent_decode_str(&descriptor.path_or_inline_dv).decode_utf8_lossy().into_owned();
                Some(lake.inside(&decoded).map_err(|error| error.at(lake.store.place(log)))?)
            }
        };
        Ok(Self { lake, kept: kept.clone(), table: table.clone(), file, log: log.clone(), descriptor })
    }

    /// How many rows it takes out.
    pub(super) fn cardinality(&self) -> Option<u64> {
        u64::try_from(self.descriptor.cardinality).ok()
    }

    /// The rows that it takes out. Errors: `Data` where its file is not there, or ends before the vector does; `Exhausted` where
    /// there is no room in the pool for it.
    async fn read(&self, pool: &Arc<dyn MemoryPool>) -> Result<RoaringTreemap> {
        // The bytes, and the rows that are made of them.
        let reserve = |bytes: u64| {
            let reservation = MemoryConsumer::new("deletion vector").register(pool);
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).saturating_mul(2);
            reservation.try_grow(bytes).map(|()| reservation)
        };
        let Some(file) = &self.file else {
            let _reserved = reserve(self.descriptor.path_or_inline_dv.len() as u64)?;
            let descriptor = self.descriptor.clone();
            let read = move |kernel: &Kernel| {
                let begin = kernel.heard(Url::parse(ROOT).map_err(Into::into))?;
                kernel.heard(descriptor.read(kernel.engine().storage_handler(), &begin))
            };
            return blocking(&self.lake, &self.table, self.log.clone(), read).await;
        };
        // A file holds the vectors of many files of rows, so that no more than its own part is read.
        let store = &self.lake.store;
        let part = self.part(file).await?;
        let _reserved = reserve(part.end - part.start)?;
        let read = store.objects().get_ranges(file, &[0..VERSION.len() as u64, part]).await;
        let read = read.map_err(|cause| store.error(&cause, file))?;
        match read.as_slice() {
            [version, vector] if **version == *VERSION => deletion_vector(vector).map_err(|error| error.at(store.place(file))),
            _ => Err(self.unsound("its file is of another format")),
        }
    }

    /// Where the vector is in its file, with what stands around it.
    async fn part(&self, file: &Path) -> Result<Range<u64>> {
        self.lake.store.stays_within(file).await?;
        let meta = match self.lake.store.objects().head(file).await {
            Ok(meta) => meta,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(Error::data("this deletion vector is missing, and without it deleted rows would be read")
                    .with_hint("run the statement again if it was cleaned up just now, else restore the file")
                    .at(self.lake.store.place(file)));
            }
            Err(cause) => return Err(self.lake.store.error(&cause, file)),
        };
        let number = |number: i32| u64::try_from(number).unwrap_or(u64::MAX);
        let start = number(self.descriptor.offset.unwrap_or(1));
        let end = start.saturating_add(number(self.descriptor.size_in_bytes)).saturating_add(AROUND);
        if end > meta.size {
            return Err(self.unsound(format!("it has {} bytes, and the vector should end at {end}", meta.size)));
        }
        Ok(start..end)
    }

    fn unsound(&self, why: impl fmt::Display) -> Error {
        let place = self.lake.store.place(self.file.as_ref().unwrap_or(&self.log));
        Error::data(format!("the deletion vector is not sound: {why}"))
            .with_hint("restore the file, or write the table again")
            .at(place)
    }
}

#[async_trait]
impl Deletes for Vector {
    async fn of(&self, file: &DataFile, pool: &Arc<dyn MemoryPool>) -> Result<Arc<RoaringTreemap>> {
        let key = (self.table.clone(), self.descriptor.unique_id());
        let rows = match self.kept.get(&key).await {
            Some(rows) => rows,
            None => {
                let rows = Arc::new(self.read(pool).await?);
                self.kept.insert(key, Arc::clone(&rows)).await;
                rows
            }
        };
        if Some(rows.len()) != self.cardinality() {
            return Err(self.unsound(format!("it names {} rows and should name {}", rows.len(), self.descriptor.cardinality)));
        }
        match (rows.max(), file.rows) {
            (Some(last), Some(all)) if last >= all => {
                Err(self.unsound(format!("it names the row {last} of a file of {all} rows")))
            }
            _ => Ok(rows),
        }
    }
}
