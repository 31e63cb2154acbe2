//! The rows that a deletion vector takes out of a file.

use std::fmt;
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
use crate::lake::{DataFile, Deletes, Lake};

/// The memory that the vectors of one catalog may take.
const KEPT: u64 = 64 * 1024 * 1024;
/// What stands around a vector in its file: its length before it, its checksum after it.
const AROUND: u64 = 8;

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
    /// Where the kernel's store begins.
    root: Path,
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
        let (root, file, descriptor) = match descriptor.storage_type {
            DeletionVectorStorageType::Inline => (table.clone(), None, descriptor),
            DeletionVectorStorageType::PersistedRelative => {
                let address = kernel.heard(descriptor.absolute_path(&begin))?.unwrap_or(begin);
                // What stands before its name could be another address, which the kernel would ask.
                let within = Some(address.path()).filter(|_| address.as_str().starts_with(ROOT));
                let within = within.and_then(|path| Path::from_url_path(path).ok());
                let within = within.ok_or_else(|| kernel.damaged("the name of a deletion vector is no path in the table"))?;
                (table.clone(), Some(table.parts().chain(within.parts()).collect()), descriptor)
            }
            DeletionVectorStorageType::PersistedAbsolute => {
                let decoded = percent_decode_str(&descriptor.path_or_inline_dv).decode_utf8_lossy().into_owned();
                let file = lake.inside(&decoded)?;
                let mut address = begin;
                if let Ok(mut segments) = address.path_segments_mut() {
                    segments.clear().extend(file.parts().map(|part| part.as_ref().to_owned()));
                }
                let DeletionVectorDescriptor { storage_type, offset, size_in_bytes, cardinality, .. } = descriptor;
                let path_or_inline_dv = address.into();
                let own = DeletionVectorDescriptor { storage_type, path_or_inline_dv, offset, size_in_bytes, cardinality };
                (Path::default(), Some(file), own)
            }
        };
        Ok(Self { lake, kept: kept.clone(), root, file, log: log.clone(), descriptor })
    }

    /// How many rows it takes out.
    pub(super) fn cardinality(&self) -> Option<u64> {
        u64::try_from(self.descriptor.cardinality).ok()
    }

    /// The bytes that are read to know the rows. Errors: `Data` where the file is not there, or ends before the vector does.
    async fn size(&self) -> Result<u64> {
        let Some(file) = &self.file else { return Ok(self.descriptor.path_or_inline_dv.len() as u64) };
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
        let end = number(self.descriptor.offset.unwrap_or(1))
            .saturating_add(number(self.descriptor.size_in_bytes))
            .saturating_add(AROUND);
        if end > meta.size {
            return Err(self.unsound(format!("it has {} bytes, and the vector should end at {end}", meta.size)));
        }
        Ok(meta.size)
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
        let key = (self.root.clone(), self.descriptor.unique_id());
        let rows = match self.kept.get(&key).await {
            Some(rows) => rows,
            None => {
                let size = self.size().await?;
                // The file, and the rows that are made of it.
                let reservation = MemoryConsumer::new("deletion vector").register(pool);
                reservation.try_grow((size as usize).saturating_mul(2))?;
                let descriptor = self.descriptor.clone();
                let place = self.file.clone().unwrap_or_else(|| self.log.clone());
                let read = move |kernel: &Kernel| {
                    let begin = kernel.heard(Url::parse(ROOT).map_err(Into::into))?;
                    kernel.heard(descriptor.read(kernel.engine().storage_handler(), &begin))
                };
                let rows = Arc::new(blocking(&self.lake, &self.root, place, read).await?);
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
