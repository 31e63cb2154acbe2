//! A Parquet file on its way into a store: there as a whole when it is closed, and not at all before.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use nexus_flight_catalog::{Error, Result};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::SchemaDescriptor;
use tokio::io::AsyncWriteExt;

use super::{Made, Store, told, unbroken};

/// A group of rows ends where it holds as much as this in memory.
const ROW_GROUP: usize = 64 * 1024 * 1024;
/// The size of the parts that go to the store; a bucket takes 10,000 of them for a file.
const PART: usize = 16 * 1024 * 1024;
/// How many parts are on their way at once.
const PARTS_AT_ONCE: usize = 2;

/// Takes rows and makes one file of them.
pub(crate) struct Upload {
    store: Arc<Store>,
    path: Path,
    writer: AsyncArrowWriter<Parts>,
}

/// A file that is there.
#[derive(Debug)]
pub(crate) struct Uploaded {
    /// Its bytes.
    pub(crate) size: u64,
    /// What its footer says of its rows, with statistics of each column in each group of them.
    pub(crate) footer: ParquetMetaData,
}

impl Upload {
    /// Errors: `Unsupported` for a type that Parquet does not have.
    pub(crate) fn begin(store: &Arc<Store>, path: Path, schema: SchemaRef) -> Result<Self> {
        Self::opened(store, path, schema, ArrowWriterOptions::new())
    }

    /// The same, of a file that says of its columns what is said here. They are those of `schema`, in its order.
    pub(crate) fn described(store: &Arc<Store>, path: Path, schema: SchemaRef, columns: SchemaDescriptor) -> Result<Self> {
        Self::opened(store, path, schema, ArrowWriterOptions::new().with_parquet_schema(columns))
    }

    fn opened(store: &Arc<Store>, path: Path, schema: SchemaRef, options: ArrowWriterOptions) -> Result<Self> {
        if let Some(field) = schema.fields().iter().find(|field| !is_held(field.data_type())) {
            let message = format!("no type of Parquet holds the column \"{}\" of the type {}", field.name(), field.data_type());
            return Err(Error::unsupported(message).with_hint("cast it, or leave it out"));
        }
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let out = BufWriter::with_capacity(Arc::clone(store.objects()), path.clone(), PART).with_max_concurrency(PARTS_AT_ONCE);
        let parts = Parts { out: Some(out) };
        let writer = AsyncArrowWriter::try_new_with_options(parts, schema, options.with_properties(properties));
        let writer = writer.map_err(|cause| {
            Error::unsupported(format!("a column has a type that Parquet files do not hold: {cause}"))
                .with_hint("cast the column to another type")
        })?;
        Ok(Self { store: Arc::clone(store), path, writer })
    }

    /// Adds rows.
    pub(crate) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut written = self.writer.write(batch).await;
        if written.is_ok() && self.writer.memory_size() > ROW_GROUP {
            written = self.writer.flush().await;
        }
        written.map_err(|cause| failed(&self.store, &self.path, cause))
    }

    /// Where the file is to be.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes the file has about, with those that are still held.
    pub(crate) fn size(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// How many bytes of memory this takes about.
    pub(crate) fn held(&self) -> usize {
        self.writer.memory_size() + self.writer.bytes_written().min(PART * (1 + PARTS_AT_ONCE))
    }

    /// Sends what is still held, so that little is left to be done at the end.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        self.writer.flush().await.map_err(|cause| failed(&self.store, &self.path, cause))
    }

    /// Makes the file be there for as long as somebody wants it, even if nobody does any more when it is.
    pub(crate) async fn close_for_now(self) -> Result<(Uploaded, Made)> {
        let made = Made::new(&self.store, self.path.clone());
        unbroken(async move { self.close().await.map(|uploaded| (uploaded, made)) }).await
    }

    /// Makes the file be there.
    pub(crate) async fn close(self) -> Result<Uploaded> {
        let Self { store, path, mut writer } = self;
        let footer = writer.finish().await.map_err(|cause| failed(&store, &path, cause))?;
        Ok(Uploaded { size: writer.bytes_written() as u64, footer })
    }
}

fn failed(store: &Store, path: &Path, cause: ParquetError) -> Error {
    match &cause {
        ParquetError::External(inner) => match inner.downcast_ref::<object_store::Error>() {
            Some(cause) => store.write_error(cause, path),
            None => Error::unavailable(format!("the file cannot be written: {inner}")).at(store.place(path)),
        },
        // The file is not there yet: its name tells nobody anything.
        _ => Error::unsupported(format!("these rows cannot be written to a Parquet file: {cause}")),
    }
}

/// The columns of a new file for such rows: their dictionaries are stored as the values, which the writer takes them for. Each
/// batch may come with a dictionary of its own, and the keys of one are not made for the values of all.
pub(crate) fn unpacked(rows: &SchemaRef) -> SchemaRef {
    let column = |field: &Arc<Field>| match field.data_type() {
        DataType::Dictionary(_, values) if is_unpacked(values) => {
            Arc::new(field.as_ref().clone().with_data_type(values.as_ref().clone()))
        }
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new_with_metadata(rows.fields().iter().map(column).collect::<Vec<_>>(), rows.metadata().clone()))
}

/// Whether the writer takes a dictionary of such values for a column of them.
fn is_unpacked(values: &DataType) -> bool {
    let packed = matches!(values, DataType::Utf8View | DataType::BinaryView | DataType::Dictionary(..));
    !packed && !values.is_nested() && is_held(values)
}

/// Whether a file holds a type. Of the others some end the writer by a panic, and some dictionaries are written and never read:
/// those of truth values, and of numbers that are stored as bytes.
fn is_held(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) | DataType::RunEndEncoded(..) | DataType::Interval(IntervalUnit::MonthDayNano) => false,
        // One that is stored as 64 bits and that only 32 are written for.
        DataType::Decimal32(1, _) => false,
        DataType::Dictionary(_, values) => match values.as_ref() {
            DataType::Utf8View | DataType::BinaryView | DataType::Dictionary(..) => false,
            DataType::Boolean | DataType::Float16 | DataType::Interval(_) => false,
            DataType::Decimal128(19.., _) | DataType::Decimal256(19.., _) => false,
            values => !values.is_nested() && is_held(values),
        },
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => is_held(field.data_type()),
        DataType::Struct(fields) => !fields.is_empty() && fields.iter().all(|field| is_held(field.data_type())),
        _ => true,
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
                    let cause = told(&cause.to_string());
                    tracing::warn!(cause, "the parts of a file that was not finished could not be removed");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Fields;

    use super::*;

    #[test]
    fn types_that_are_not_held_are_found_within_others() {
        let dictionary = |values| DataType::Dictionary(Box::new(DataType::Int32), Box::new(values));
        let within = |inner: DataType| {
            let field = Arc::new(Field::new("item", inner, true));
            [DataType::List(Arc::clone(&field)), DataType::Struct(Fields::from(vec![field]))]
        };
        for held in [DataType::Utf8View, dictionary(DataType::Utf8), dictionary(DataType::Decimal128(18, 2))] {
            assert!(is_held(&held), "{held}");
            for outer in within(held) {
                assert!(is_held(&outer), "{outer}");
                assert!(!is_held(&dictionary(outer.clone())), "{outer}");
            }
        }
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let months = DataType::Interval(IntervalUnit::YearMonth);
        let values = [DataType::Utf8View, DataType::BinaryView, DataType::Boolean, DataType::Decimal128(19, 2), months];
        for not in values.map(dictionary).into_iter().chain([interval, DataType::Decimal32(1, 0)]) {
            assert!(!is_held(&not), "{not}");
            for outer in within(not) {
                assert!(!is_held(&outer), "{outer}");
            }
        }
        assert!(!is_held(&DataType::Struct(Fields::empty())));
    }
}
