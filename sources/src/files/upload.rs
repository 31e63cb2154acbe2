//! A Parquet file on its way into a store: there as a whole when it is closed, and not at all before.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use nexus_flight_catalog::{Error, Result};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::properties::WriterProperties;
use tokio::io::AsyncWriteExt;

use super::store::Store;

/// A group of rows ends where it holds as much as this in memory.
const ROW_GROUP: usize = 64 * 1024 * 1024;
/// The size of the parts that go to the store; a bucket takes 10,000 of them for a file.
const PART: usize = 16 * 1024 * 1024;
/// How many parts are on their way at once.
const PARTS_AT_ONCE: usize = 2;

/// Takes rows and makes one file of them.
pub(super) struct Upload {
    store: Arc<Store>,
    path: Path,
    writer: AsyncArrowWriter<Parts>,
}

impl Upload {
    /// Errors: `Unsupported` for a type that Parquet does not have.
    pub(super) fn begin(store: &Arc<Store>, path: Path, schema: SchemaRef) -> Result<Self> {
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let out = BufWriter::with_capacity(Arc::clone(store.objects()), path.clone(), PART).with_max_concurrency(PARTS_AT_ONCE);
        let parts = Parts { out: Some(out) };
        let writer = AsyncArrowWriter::try_new(parts, schema, Some(properties)).map_err(|cause| {
            Error::unsupported(format!("a column has a type that Parquet files do not hold: {cause}"))
                .with_hint("cast the column to another type")
        })?;
        Ok(Self { store: Arc::clone(store), path, writer })
    }

    /// Adds rows.
    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut written = self.writer.write(batch).await;
        if written.is_ok() && self.writer.memory_size() > ROW_GROUP {
            written = self.writer.flush().await;
        }
        written.map_err(|cause| failed(&self.store, &self.path, cause))
    }

    /// Sends what is still held, so that little is left to be done at the end.
    pub(super) async fn flush(&mut self) -> Result<()> {
        self.writer.flush().await.map_err(|cause| failed(&self.store, &self.path, cause))
    }

    /// Makes the file be there.
    pub(super) async fn close(self) -> Result<()> {
        let Self { store, path, writer } = self;
        writer.close().await.map(|_| ()).map_err(|cause| failed(&store, &path, cause))
    }
}

fn failed(store: &Store, path: &Path, cause: ParquetError) -> Error {
    match &cause {
        ParquetError::External(inner) => match inner.downcast_ref::<object_store::Error>() {
            Some(cause) => store.write_error(cause, path),
            None => Error::unavailable(format!("the file cannot be written: {inner}")).at(store.place(path)),
        },
        _ => Error::unsupported(format!("these rows cannot be written to a Parquet file: {cause}")).at(store.place(path)),
    }
}

/// The bytes of the file. Left before its end, nothing of it stays.
struct Parts {
    out: Option<BufWriter>,
}

impl AsyncFileWriter for Parts {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, ParquetResult<()>> {
        async move {
            let Some(out) = &mut self.out else { return Err(ParquetError::General("the file has ended".to_owned())) };
            out.put(bytes).await.map_err(|cause| ParquetError::External(Box::new(cause)))
        }
        .boxed()
    }

    fn complete(&mut self) -> BoxFuture<'_, ParquetResult<()>> {
        async move {
            let Some(mut out) = self.out.take() else { return Ok(()) };
            out.shutdown().await.map_err(|cause| match cause.downcast::<object_store::Error>() {
                Ok(cause) => ParquetError::External(Box::new(cause)),
                Err(cause) => ParquetError::External(Box::new(cause)),
            })
        }
        .boxed()
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // A statement ends where a runtime is; the process may be ending elsewhere.
        if let (Some(mut out), Ok(runtime)) = (self.out.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                if let Err(cause) = out.abort().await {
                    tracing::warn!(%cause, "the parts of a file that was not finished could not be removed");
                }
            });
        }
    }
}
