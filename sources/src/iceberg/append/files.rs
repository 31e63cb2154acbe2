//! The data files of a statement: one or more for each partition that it has rows of.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use iceberg::spec::{DataFile, SchemaRef, Struct};
use nexus_flight_catalog::Result;
use uuid::Uuid;

use super::columns::Columns;
use super::metrics::described;
use super::parts::{Parting, Share};
use crate::lake::Lake;
use crate::stores::{Made, Upload};

/// How many files are written side by side.
const MOST: usize = 64;
/// How much memory they take.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// Takes rows and makes files of them.
pub(super) struct Files {
    lake: Arc<Lake>,
    columns: Columns,
    parting: Parting,
    schema: SchemaRef,
    spec: i32,
    /// What the address of each file begins with.
    folder: String,
    /// How large a file is at most, about.
    size: usize,
    open: HashMap<Vec<u8>, Open>,
    done: Vec<New>,
}

struct Open {
    upload: Upload,
    address: String,
    partition: Struct,
}

/// A file that is there and that no snapshot has.
#[derive(Debug)]
pub(super) struct New {
    pub(super) file: DataFile,
    pub(super) made: Made,
}

impl Files {
    /// In this folder, of about this size.
    pub(super) fn new(
        lake: &Arc<Lake>,
        columns: Columns,
        parting: Parting,
        of: (SchemaRef, i32),
        folder: String,
        size: usize,
    ) -> Self {
        let (schema, spec) = of;
        Self { lake: Arc::clone(lake), columns, parting, schema, spec, folder, size, open: HashMap::new(), done: Vec::new() }
    }

    /// Adds rows. Errors: those of rows that the table does not take, and of the store.
    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        for share in self.parting.split(self.columns.rows(batch)?)? {
            let mut open = match self.open.remove(&share.key) {
                Some(open) => open,
                None => self.begin(&share).await?,
            };
            open.upload.write(&share.rows).await?;
            if open.upload.size() >= self.size {
                self.close(open).await?;
            } else {
                self.open.insert(share.key, open);
            }
            while self.open.len() > MOST || self.open.values().map(|open| open.upload.held()).sum::<usize>() > MOST_BYTES {
                let largest = self.open.iter().max_by_key(|(_, open)| open.upload.held()).map(|(key, _)| key.clone());
                let Some(open) = largest.and_then(|key| self.open.remove(&key)) else { break };
                self.close(open).await?;
            }
        }
        Ok(())
    }

    /// All files that were made.
    pub(super) async fn finish(mut self) -> Result<Vec<New>> {
        let open: Vec<Open> = self.open.drain().map(|(_, open)| open).collect();
        for open in open {
            self.close(open).await?;
        }
        Ok(self.done)
    }

    // An upload cannot be looked at from two sides, so nothing that waits may share it.
    async fn begin(&mut self, share: &Share) -> Result<Open> {
        let slash = if share.folder.is_empty() { "" } else { "/" };
        let address = format!("{}/{}{slash}{}.parquet", self.folder, share.folder, Uuid::now_v7());
        let path = self.lake.inside(&address)?;
        self.lake.store.stays_within(&path).await?;
        let columns = (Arc::clone(&self.columns.stored), self.columns.described.clone());
        let upload = Upload::described(&self.lake.store, path, columns.0, columns.1)?;
        Ok(Open { upload, address, partition: share.values.clone() })
    }

    async fn close(&mut self, open: Open) -> Result<()> {
        let (uploaded, made) = open.upload.close_for_now().await?;
        let file = described(&uploaded, &open.address, open.partition, self.spec, &self.schema)?;
        self.done.push(New { file, made });
        Ok(())
    }
}
