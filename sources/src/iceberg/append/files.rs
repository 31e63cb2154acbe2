//! The data files of a table: where they are, how they begin, and what metadata tells of them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use iceberg::spec::{DataFile, SchemaRef};
use nexus_flight_catalog::Result;
use uuid::Uuid;

use super::columns::Columns;
use super::metrics::described;
use super::parts::{Parting, Partition};
use crate::lake::{Lake, Nans, Writes};
use crate::stores::{Upload, Uploaded};

/// How rows become data files of a table.
pub(super) struct DataFiles {
    pub(super) lake: Arc<Lake>,
    pub(super) columns: Columns,
    pub(super) parting: Parting,
    pub(super) schema: SchemaRef,
    /// The id of the partition spec.
    pub(super) spec: i32,
    /// What the address of each file begins with.
    pub(super) folder: String,
}

impl Writes for DataFiles {
    type Partition = Partition;
    type Told = DataFile;

    fn parts(&self, rows: &RecordBatch) -> Result<Vec<(Partition, RecordBatch)>> {
        self.parting.split(self.columns.rows(rows)?)
    }

    fn begin(&self, partition: &Partition) -> Result<(Upload, String)> {
        let slash = if partition.folder.is_empty() { "" } else { "/" };
        let address = format!("{}/{}{slash}{}.parquet", self.folder, partition.folder, Uuid::now_v7());
        let path = self.lake.inside(&address)?;
        let (stored, described) = (Arc::clone(&self.columns.stored), self.columns.described.clone());
        Ok((Upload::described(&self.lake.store, path, stored, described)?, address))
    }

    fn told(&self, partition: &Partition, address: &str, file: &Uploaded, nans: &Nans) -> Result<DataFile> {
        described(file, nans, address, partition.values.clone(), self.spec, &self.schema)
    }
}
