//! The seed as tables of lakes hold it: in files that have deleted rows among the others, with what is known of their values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{SortOptions, cast, concat, interleave_record_batch, sort};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use nexus_flight_catalog::conformance::{SeedTable, seed};

/// So many rows are deleted at the beginning of a file, which are its first row group.
const GROUP: usize = 50;

/// A file of a table.
pub(crate) struct File {
    pub(crate) rows: RecordBatch,
    /// The places of those that are deleted.
    pub(crate) deleted: Vec<u64>,
}

/// The seed in the types of lakes, where what a list holds is called an element.
pub(crate) fn held() -> Vec<SeedTable> {
    let named = |field: &Arc<Field>| match field.data_type() {
        DataType::List(item) => {
            let element = Field::clone(item).with_name("element");
            Arc::new(Field::clone(field).with_data_type(DataType::List(Arc::new(element))))
        }
        _ => Arc::clone(field),
    };
    let held = |table: SeedTable| {
        let schema = Schema::new(table.batch.schema().fields().iter().map(named).collect::<Fields>());
        let batch = conformed(&table.batch, Arc::new(schema));
        SeedTable { batch, ..table }
    };
    seed().into_iter().map(held).collect()
}

/// The same rows in the types of a schema.
pub(crate) fn conformed(batch: &RecordBatch, schema: SchemaRef) -> RecordBatch {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type()).unwrap()).collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

/// The rows of a table in two files, or in none. The first has deleted rows, of which none is one of the table: all of its first
/// row group, and one before every third row.
pub(crate) fn files(batch: &RecordBatch) -> Vec<File> {
    let half = batch.num_rows() / 2;
    if half == 0 {
        return Vec::new();
    }
    let (first, second) = (batch.slice(0, half), batch.slice(half, batch.num_rows() - half));
    // Each is a row of the first of these, or of the second.
    let mut rows: Vec<(usize, usize)> = (0..GROUP).map(|row| (1, row % half)).collect();
    for row in 0..half {
        if row % 3 == 0 {
            rows.push((1, row));
        }
        rows.push((0, row));
    }
    let deleted = (0..).zip(&rows).filter(|(_, (of, _))| *of == 1).map(|(place, _)| place).collect();
    let mixed = interleave_record_batch(&[&first, &strangers(&first)], &rows).unwrap();
    vec![File { rows: mixed, deleted }, File { rows: second, deleted: Vec::new() }]
}

/// Rows with the same values, each with the first of one row and the others of the next, so that they are within the same bounds.
fn strangers(batch: &RecordBatch) -> RecordBatch {
    let rest = batch.num_rows() - 1;
    let columns = batch.columns().iter().enumerate().map(|(place, column)| match place {
        0 => Arc::clone(column),
        _ => concat(&[&column.slice(1, rest), &column.slice(0, 1)]).unwrap(),
    });
    RecordBatch::try_new(batch.schema(), columns.collect()).unwrap()
}

/// The least and the greatest value of a column, each as an array of one; none where nothing is less or greater.
pub(crate) fn ends(column: &ArrayRef) -> Option<[ArrayRef; 2]> {
    let of = column.data_type();
    let values = column.len() - column.null_count();
    if values == 0 || !(of.is_numeric() || of.is_temporal() || *of == DataType::Utf8) {
        return None;
    }
    let sorted = sort(column, Some(SortOptions { descending: false, nulls_first: false })).unwrap();
    Some([sorted.slice(0, 1), sorted.slice(values - 1, 1)])
}
