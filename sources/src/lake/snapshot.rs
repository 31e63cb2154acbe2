//! One state of a table: its columns, its files, and what is known of the values in each.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::ScalarValue;
use datafusion::execution::memory_pool::MemoryPool;
use nexus_flight_catalog::Result;
use object_store::path::Path;
use roaring::RoaringTreemap;

use super::columns::Columns;

/// One state of a table, as its format tells it. It never changes, and another state is another snapshot.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The columns as clients see them.
    pub(crate) schema: SchemaRef,
    /// How the files name those columns that they hold.
    pub(crate) columns: Arc<Columns>,
    /// The columns, as places in `schema`, that the files do not hold: each has one value in a file, as Delta's partition columns do.
    pub(crate) constants: Vec<usize>,
    /// The files that hold its rows.
    pub(crate) files: Vec<DataFile>,
    /// What is known of the values of each column of `schema`, in that order, file by file.
    pub(crate) bounds: Vec<Bounds>,
    /// What tells of files that they lack values which are within their bounds, where there is such.
    pub(crate) lacking: Option<Arc<dyn Lacking>>,
}

/// Knows which files lack some values, by other things than bounds.
pub(crate) trait Lacking: Debug + Send + Sync {
    /// For each file, in their order, whether no row of it has one of these values in a column, which is a place in the schema; none
    /// where that is known of no file. A file without one of them may be said to have some.
    fn lacking(&self, column: usize, values: &[&ScalarValue]) -> Option<Vec<bool>>;
}

/// A file of rows.
#[derive(Debug)]
pub(crate) struct DataFile {
    /// Where it is in the store.
    pub(crate) path: Path,
    /// The same in the words of the table's metadata, by which deletes refer to it.
    pub(crate) name: String,
    /// Its bytes.
    pub(crate) size: u64,
    /// How many rows it holds, deleted ones included, where the metadata says so.
    pub(crate) rows: Option<u64>,
    /// How many of them are deleted, where that is exactly known; 0 where `deletes` is none.
    pub(crate) deleted: Option<u64>,
    /// The values of the snapshot's `constants`, in that order and in the types of `schema`.
    pub(crate) constants: Vec<ScalarValue>,
    /// What says which of its rows are deleted; none where none is.
    pub(crate) deletes: Option<Arc<dyn Deletes>>,
}

/// Knows which rows of data files are deleted. One value may serve many files.
#[async_trait]
pub(crate) trait Deletes: Debug + Send + Sync {
    /// The places of the deleted rows in a file, counted from 0 at its first row. Called when the file is about to be read, more than
    /// once perhaps; what is large is kept by whoever implements this, within a bound.
    /// Errors: `Data` where what says so is missing or not sound, with the file as its place.
    /// `Exhausted` where finding out takes more of `pool` than there is.
    async fn of(&self, file: &DataFile, pool: &Arc<dyn MemoryPool>) -> Result<Arc<RoaringTreemap>>;
}

/// What is known of the values of one column in each file, in the order of the files.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// No value is less than this, in the type of the column; NULL where nothing is known. Never of a float, whose NaN is in no bounds.
    pub(crate) min: ArrayRef,
    /// No value is greater than this.
    pub(crate) max: ArrayRef,
    /// How many values are NULL, of the file's rows with the deleted ones; NULL where nothing is known.
    pub(crate) nulls: UInt64Array,
    /// Whether both bounds are values of rows that the file was written with, not cut or rounded ones.
    pub(crate) exact: BooleanArray,
}

impl Bounds {
    /// Nothing is known of a column of this type in so many files.
    pub(crate) fn unknown(data_type: &arrow::datatypes::DataType, files: usize) -> Self {
        let none = arrow::array::new_null_array(data_type, files);
        let (nulls, exact) = (UInt64Array::new_null(files), BooleanArray::from(vec![false; files]));
        Self { min: Arc::clone(&none), max: none, nulls, exact }
    }
}
