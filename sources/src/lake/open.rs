//! How a data file of a snapshot is opened: without the rows that are deleted, and only if it is the file that the snapshot names.

use std::ops::Range;
use std::sync::Arc;

use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::StreamExt;
use nexus_flight_catalog::{Error, Result};
use object_store::ObjectStore;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::file::metadata::ParquetMetaData;
use roaring::RoaringTreemap;

use super::access::Lake;
use super::snapshot::{DataFile, Snapshot};
use crate::stores::{Opens, Readers, guarded};

/// What rows that are left out together take while a file is read: the rows before them, as a range, and both as parts of a selection,
/// which the reader has for each row group and for all.
const RUN: usize = size_of::<Range<usize>>() + 4 * size_of::<RowSelector>();

/// The place of a file in its snapshot.
pub(super) struct Place(pub(super) usize);

/// Opens the files of a snapshot.
#[derive(Clone)]
pub(super) struct AsSnapshot {
    pub(super) lake: Arc<Lake>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) readers: Readers,
    /// What finding deleted rows takes memory from.
    pub(super) pool: Arc<dyn MemoryPool>,
}

impl Opens for AsSnapshot {
    fn opener(
        &self,
        inner: &dyn FileSource,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> DataFusionResult<Arc<dyn FileOpener>> {
        // DataFusion 53 chooses row groups by the limit as if no row of them were deleted, and forgets which are
        // (`RowGroupAccessPlanFilter::prune_by_limit`). The scan stops at the limit by itself, above this.
        let mut unlimited = config.clone();
        unlimited.limit = None;
        let inner = inner.create_file_opener(store, &unlimited, partition)?;
        Ok(Arc::new(Opener { inner, of: self.clone() }))
    }
}

struct Opener {
    inner: Arc<dyn FileOpener>,
    of: AsSnapshot,
}

impl FileOpener for Opener {
    fn open(&self, part: PartitionedFile) -> DataFusionResult<FileOpenFuture> {
        let (inner, of) = (Arc::clone(&self.inner), self.of.clone());
        let path = part.object_meta.location.clone();
        let opens = of.clone();
        let opening = async move {
            let (part, reserved) = opens.without_deleted(part).await?;
            let batches = inner.open(part)?.await?;
            let Some(reserved) = reserved else { return Ok(batches) };
            // As long as the rows to read are known to the reader.
            let batches = batches.inspect(move |_| {
                let _held = &reserved;
            });
            Ok::<_, DataFusionError>(batches.boxed())
        };
        Ok(guarded(opening, move |error| of.lake.located(error, &path).into()))
    }
}

impl AsSnapshot {
    /// The part of a file to read, with the rows to leave out, and the memory that these take. Errors: `Exhausted` where the pool has
    /// less; those of reading the deletes.
    async fn without_deleted(&self, part: PartitionedFile) -> DataFusionResult<(PartitionedFile, Option<MemoryReservation>)> {
        let place = part.extensions.as_ref().and_then(|place| place.downcast_ref::<Place>());
        let file = place.and_then(|place| self.snapshot.files.get(place.0));
        let file = file.ok_or_else(|| Error::internal("a file is read that is not of the snapshot"))?;
        self.lake.store.stays_within(&file.path).await?;
        let footer = self.readers.footer(&part.object_meta).await?;
        if let Some(rows) = file.rows.filter(|rows| i64::try_from(*rows) != Ok(footer.file_metadata().num_rows())) {
            let found = footer.file_metadata().num_rows();
            let message = format!("the file has {found} rows, and the table's metadata says {rows}");
            return Err(Error::data(message).with_hint("it is not the file that the table was written with").into());
        }
        let Some(deletes) = &file.deletes else { return Ok((part, None)) };
        let deleted = deletes.of(file, &self.pool).await?;
        let reserved = MemoryConsumer::new("deleted rows").register(&self.pool);
        reserved.try_grow((runs(&deleted) + 2 * footer.num_row_groups()).saturating_mul(RUN))?;
        let plan = access_plan(&deleted, &footer, file)?;
        Ok((PartitionedFile { extensions: Some(Arc::new(plan)), ..part }, Some(reserved)))
    }
}

/// How often rows of a set stand together.
fn runs(rows: &RoaringTreemap) -> usize {
    let mut next = None;
    let begins = rows.iter().filter(|row| next.replace(row.wrapping_add(1)) != Some(*row));
    begins.count()
}

/// Which rows of each row group to read. Errors: `Data` for a place beyond the file's rows.
fn access_plan(deleted: &RoaringTreemap, footer: &ParquetMetaData, file: &DataFile) -> Result<ParquetAccessPlan> {
    let mut deleted = deleted.iter().peekable();
    let mut first = 0;
    let mut groups = Vec::with_capacity(footer.num_row_groups());
    for group in footer.row_groups() {
        let rows = u64::try_from(group.num_rows()).map_err(|_| Error::data("a row group has less than no rows"))?;
        let end = first + rows;
        let mut kept = Vec::new();
        let mut next = first;
        while let Some(row) = deleted.next_if(|row| *row < end) {
            if next < row {
                kept.push((next - first) as usize..(row - first) as usize);
            }
            next = row + 1;
        }
        groups.push(match next == first {
            true => RowGroupAccess::Scan,
            false => {
                if next < end {
                    kept.push((next - first) as usize..rows as usize);
                }
                match kept.is_empty() {
                    true => RowGroupAccess::Skip,
                    false => RowGroupAccess::Selection(RowSelection::from_consecutive_ranges(kept.into_iter(), rows as usize)),
                }
            }
        });
        first = end;
    }
    match deleted.next() {
        Some(row) => Err(Error::data(format!("row {row} of {} is deleted, and it has {first} rows", file.name))),
        None => Ok(ParquetAccessPlan::new(groups)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_stand_together_are_counted_once() {
        let of = |rows: &[u64]| runs(&rows.iter().copied().collect());
        assert_eq!((of(&[]), of(&[7]), of(&[0, 1, 2]), of(&[0, 2, 3, 5, u64::MAX])), (0, 1, 1, 4));
    }
}
